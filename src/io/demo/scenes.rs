//! The scenes of the demo: who does what, and what has to come of it. Each is played over real sockets; what it claims is
//! checked at both ends and in the server's own record. [`desk`] has what any telephone system does, [`routes`] what this one
//! is bought for. A new scene is an entry of [`PLAY`].

mod desk;
mod routes;

use std::time::Duration;

use super::party::{Call, Missed, PATIENCE, Party, Ringing};
use super::voice::Voice;
use super::{Check, Sabotage};
use crate::call::record::{CallRecord, Outcome};
use crate::sip::header::Diversion;
use crate::sip::{Message, Name};

/// How long a telephone rings before somebody takes it.
const RING: Duration = Duration::from_millis(900);
/// How long a conversation lasts in front of the audience.
const TALK: Duration = Duration::from_millis(1400);
/// How much a figure of the record may differ from what the script did: the machine is shared.
const NEAR: Duration = Duration::from_millis(400);
/// Sound that is listened to for a check.
const LISTEN: Duration = Duration::from_millis(500);

/// Tones by which voices are told apart, in Hz.
pub mod tones {
    /// Customers.
    pub const CUSTOMER: u32 = 620;
    /// Whoever is called outside: suppliers, dealers.
    pub const OUTSIDE: u32 = 740;
    /// Extension 121, at her desk and on her mobile.
    pub const ANNA: u32 = 480;
    /// Extension 122.
    pub const BORIS: u32 = 850;
    /// Extension 123.
    pub const SHOP: u32 = 1100;
    /// Extension 321.
    pub const GLEB: u32 = 970;
    /// Extension 130.
    pub const GUARD: u32 = 1250;
    /// A mobile's voicemail.
    pub const VOICEMAIL: u32 = 1370;
    /// What nobody ought to hear.
    pub const WRONG: u32 = 1500;
    /// All of them.
    pub const ALL: [u32; 9] = [CUSTOMER, OUTSIDE, ANNA, BORIS, SHOP, GLEB, GUARD, VOICEMAIL, WRONG];
}

/// Who takes part.
pub struct Cast {
    /// The carrier of the Yekaterinburg numbers.
    pub carrier_a: Party,
    /// Its second address: lives, and is not needed.
    pub _carrier_a_reserve: Party,
    /// The carrier of the Novosibirsk numbers.
    pub carrier_b: Party,
    /// Анна Смирнова, who has a mobile besides.
    pub anna: Party,
    /// Борис Орлов.
    pub boris: Party,
    /// Производство.
    pub shop: Party,
    /// Охрана.
    pub guard: Party,
    /// Вера Новосёлова in Novosibirsk.
    pub vera: Party,
    /// Глеб Балтийский in Kaliningrad.
    pub gleb: Party,
    /// The loudspeakers of both workshops.
    pub speakers: [Party; 2],
    /// Somebody who guesses passwords.
    pub stranger: Party,
    /// The server's domain.
    pub domain: String,
    /// The server's address, as a host in URIs.
    pub host: String,
    /// Carrier A's password for us.
    pub carrier_password: String,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
}

impl Cast {
    /// Everybody.
    pub fn all(&mut self) -> [&mut Party; 12] {
        let Cast { carrier_a, _carrier_a_reserve, carrier_b, anna, boris, shop, guard, vera, gleb, .. } = self;
        let ([one, two], stranger) = (&mut self.speakers, &mut self.stranger);
        [carrier_a, _carrier_a_reserve, carrier_b, anna, boris, shop, guard, vera, gleb, one, two, stranger]
    }
}

/// A scene.
pub struct Scene {
    /// Its name in `--json`.
    pub name: &'static str,
    /// The wall clock at its begin, as local date and time of the server's zone.
    pub at: &'static str,
    /// What it proves.
    pub proves: &'static str,
    /// Plays it.
    pub play: fn(&mut Cast) -> Result<Vec<Check>, Missed>,
    /// Looks at the record that the server wrote of it; none: the scene is no call and leaves none.
    pub record: Option<fn(&CallRecord) -> Vec<Check>>,
    /// What its recording has to hold: left and right tone.
    pub recorded: Option<(u32, u32)>,
}

/// The play: a working Monday, the holiday after it (Unity Day), and the Wednesday of the next week.
pub const PLAY: [Scene; 14] = [
    routes::SALES,
    routes::MOBILE,
    routes::SUPPLIER,
    routes::MANAGER,
    routes::MANAGER_AWAY,
    routes::DEALER,
    routes::OUTBOUND_NOVOSIBIRSK,
    desk::OUTBOUND,
    desk::INTERNAL,
    desk::PAGE,
    desk::GIVES_UP,
    desk::WRONG_PASSWORD,
    routes::HOLIDAY,
    routes::EVENING,
];

/// Both talk: each is asked whether it hears the other. The caller hangs up.
fn talk(
    caller: (&mut Party, Call, u32),
    other: (&mut Party, Call, u32),
    names: (&str, &str),
) -> Result<Vec<Check>, Missed> {
    pause(TALK - LISTEN);
    let ((line, ours, voice), (phone, theirs, answer)) = (caller, other);
    let heard = listen(&ours.voice, &theirs.voice);
    let checks = vec![
        Check::is(format!("{} hears {}", names.0, names.1), heard.0 == Some(answer)),
        Check::is(format!("{} hears {}", names.1, names.0), heard.1 == Some(voice)),
    ];
    line.hang_up(ours)?;
    phone.hung_up_on(theirs)?;
    Ok(checks)
}

/// A customer's call is taken by a telephone that rings: both talk, the customer hangs up.
fn taken(
    line: &mut Party,
    mut customer: Call,
    phone: &mut Party,
    ringing: &Ringing,
    voice: u32,
    name: &str,
) -> Result<Vec<Check>, Missed> {
    let call = phone.accept(ringing, voice)?;
    line.answered(&mut customer)?;
    phone.acknowledged(&ringing.invite)?;
    talk((line, customer, tones::CUSTOMER), (phone, call, voice), ("the caller", name))
}

/// Lets time pass: the demo is a play, its pauses are what the audience sees.
pub fn pause(length: Duration) {
    std::thread::sleep(length.min(PATIENCE));
}

/// Which tones two voices hear, over the next half second.
fn listen(a: &Voice, b: &Voice) -> (Option<u32>, Option<u32>) {
    a.forget();
    b.forget();
    pause(LISTEN);
    (a.hears(&tones::ALL).0, b.hears(&tones::ALL).0)
}

/// From of a call out of the public network.
fn customer(cast: &Cast, number: &str) -> String {
    format!("<sip:{number}@{}>", cast.host)
}

/// The caller that a message shows: P-Asserted-Identity, else From.
fn caller_of(message: &Message) -> String {
    let asserted = message.addresses(Name::PAssertedIdentity).find_map(Result::ok);
    asserted.unwrap_or_else(|| message.from()).uri.user.unwrap_or_default().to_owned()
}

/// The user part of who sent the call on, if it was.
fn diverted_from(message: &Message) -> Option<String> {
    let diversion = Diversion::parse(message.text(Name::Diversion)?).ok()?;
    diversion.address.uri.user.map(str::to_owned)
}

/// The name that a telephone shows beside the number.
fn name_of(message: &Message) -> String {
    message.from().display_text().into_owned()
}

fn says_elsewhere(cancel: &Message) -> bool {
    cancel.text(Name::Reason).is_some_and(|reason| reason.contains("cause=200") && reason.contains("elsewhere"))
}

/// Who answered, by which target; and that the figures hold.
fn answered_by(record: &CallRecord, target: &str) -> Vec<Check> {
    vec![
        Check::is(format!("answered by {target}"), record.answered_by.as_deref() == Some(target)),
        Check::is("outcome answered", record.outcome == Outcome::Answered),
        Check::near("talked as long as they did", record.talk_ms, TALK, NEAR),
        adds_up(record),
    ]
}

/// The route that was taken.
fn by_route(record: &CallRecord, name: &str) -> Check {
    let rule = format!("route \"{name}\"");
    let taken = record.explain.iter().any(|w| *w.rule == *rule && w.because.starts_with("taken"));
    Check::is(format!("by the route {name}"), taken)
}

/// What became of a leg, if it rang.
fn result_of(record: &CallRecord, target: &str) -> Option<String> {
    let legs = record.journey.iter().flat_map(|p| &p.who);
    legs.filter(|w| w.target == target).map(|w| w.result.clone()).next_back()
}

fn adds_up(record: &CallRecord) -> Check {
    let whole = (record.ended_at - record.started_at).as_millis() as u64;
    Check::is("wait, talk and hold are the whole call", record.wait_ms + record.talk_ms + record.hold_ms == whole)
}
