//! The scenes of the demo's office day: who does what, and what has to come of it. Each is played over real sockets; what it
//! claims is checked at both ends and in the server's own record.

use std::time::Duration;

use super::party::{Missed, PATIENCE, Party};
use super::voice::Voice;
use super::{Check, Sabotage};
use crate::call::record::{By, CallRecord, Direction as Way, Outcome, PhaseKind};
use crate::sdp::session::Direction;
use crate::sip::digest::{Algorithm, Credentials, ha1};
use crate::sip::{Message, Name};

/// How long a telephone rings before somebody takes it.
const RING: Duration = Duration::from_millis(900);
/// How long a conversation lasts in front of the audience.
const TALK: Duration = Duration::from_millis(1600);
/// How long somebody is on hold.
const HOLD: Duration = Duration::from_millis(1200);
/// How much a figure of the record may differ from what the script did: the machine is shared.
const NEAR: Duration = Duration::from_millis(400);
/// Sound that is listened to for a check.
const LISTEN: Duration = Duration::from_millis(500);

/// Tones by which voices are told apart, in Hz.
pub mod tones {
    /// Customers.
    pub const CUSTOMER: u32 = 620;
    /// The supplier who is called.
    pub const SUPPLIER: u32 = 740;
    /// Extension 121.
    pub const ANNA: u32 = 480;
    /// Extension 122.
    pub const BORIS: u32 = 850;
    /// Extension 123.
    pub const SHOP: u32 = 1100;
    /// What nobody ought to hear.
    pub const WRONG: u32 = 1500;
    /// All of them.
    pub const ALL: [u32; 6] = [CUSTOMER, SUPPLIER, ANNA, BORIS, SHOP, WRONG];
}

/// Who takes part.
pub struct Cast {
    /// The carrier of the Yekaterinburg numbers.
    pub carrier_a: Party,
    /// Its second address: lives, and is not needed.
    pub _carrier_a_reserve: Party,
    /// The carrier of the Novosibirsk numbers.
    pub carrier_b: Party,
    /// Анна Смирнова.
    pub anna: Party,
    /// Борис Орлов.
    pub boris: Party,
    /// Производство.
    pub shop: Party,
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

/// A scene.
pub struct Scene {
    /// Its name in `--json`.
    pub name: &'static str,
    /// The wall clock's time of day on the demo's day, as `HH:MM`.
    pub at: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// Plays it.
    pub play: fn(&mut Cast) -> Result<Vec<Check>, Missed>,
    /// Looks at the record that the server wrote of it; none: the scene is no call and leaves none.
    pub record: Option<fn(&CallRecord) -> Vec<Check>>,
    /// What its recording has to hold: left and right tone.
    pub recorded: Option<(u32, u32)>,
}

/// The day.
pub const DAY: [Scene; 6] = [
    Scene {
        name: "queue",
        at: "10:02",
        title: "a customer calls, two phones ring, one answers",
        play: queue,
        record: Some(|r| {
            let rang = |who: &str| r.journey.iter().flat_map(|p| &p.who).any(|w| w.target == who);
            vec![
                Check::is("came in by carrier-b", r.direction == Way::In && r.trunk.as_deref() == Some("carrier-b")),
                Check::is("campaign of the number called", r.called.campaign.as_deref() == Some("site-nsk")),
                Check::is("rang 121 and 122", rang("extension:121") && rang("extension:122")),
                Check::is("answered by 122", r.answered_by.as_deref() == Some("extension:122")),
                Check::is("outcome answered", r.outcome == Outcome::Answered),
                Check::near("waited as long as it rang", r.wait_ms, RING, NEAR),
                Check::near("talked as long as they did", r.talk_ms, TALK, NEAR),
                Check::is("the caller hung up", r.hangup.by == By::Caller),
                adds_up(r),
            ]
        }),
        recorded: Some((tones::CUSTOMER, tones::BORIS)),
    },
    Scene {
        name: "outbound",
        at: "10:09",
        title: "121 calls a supplier; the carrier wants our password",
        play: outbound,
        record: Some(|r| {
            vec![
                Check::is("went out by carrier-a", r.direction == Way::Out && r.trunk.as_deref() == Some("carrier-a")),
                Check::is("caller 121", r.caller.number.as_deref() == Some("121")),
                Check::is("called in full", r.called.number == "+73832001020"),
                Check::is("showed the head office", r.shown.as_deref() == Some("+73433000001")),
                Check::is("outcome answered", r.outcome == Outcome::Answered),
                Check::near("talked as long as they did", r.talk_ms, TALK, NEAR),
                Check::is("the caller hung up", r.hangup.by == By::Caller),
                adds_up(r),
            ]
        }),
        recorded: Some((tones::ANNA, tones::SUPPLIER)),
    },
    Scene {
        name: "hold",
        at: "10:17",
        title: "121 answers a customer, holds him and comes back",
        play: hold,
        record: Some(|r| {
            vec![
                Check::is("answered by 121", r.answered_by.as_deref() == Some("extension:121")),
                Check::near("on hold as long as he was", r.hold_ms, HOLD, NEAR),
                Check::is("the journey shows it", r.journey.iter().any(|p| p.phase == PhaseKind::Hold)),
                Check::is("121 hung up", r.hangup.by == By::Callee),
                adds_up(r),
            ]
        }),
        recorded: Some((tones::CUSTOMER, tones::ANNA)),
    },
    Scene {
        name: "gives-up",
        at: "10:26",
        title: "a customer gives up before anyone answers",
        play: gives_up,
        record: Some(|r| {
            vec![
                Check::is("nobody answered", r.answered_at.is_none() && r.answered_by.is_none()),
                Check::is("outcome short", r.outcome == Outcome::Short),
                Check::near("waited as long as it rang", r.wait_ms, RING, NEAR),
                Check::is("the caller left", r.hangup.by == By::Caller),
                Check::is("nothing was recorded", r.recordings.is_empty()),
                adds_up(r),
            ]
        }),
        recorded: None,
    },
    Scene {
        name: "wrong-password",
        at: "10:31",
        title: "somebody guesses passwords",
        play: wrong_password,
        record: None,
        recorded: None,
    },
    Scene {
        name: "internal",
        at: "10:38",
        title: "121 calls the shop floor",
        play: internal,
        record: Some(|r| {
            vec![
                Check::is("internal", r.direction == Way::Internal && r.trunk.is_none()),
                Check::is("121 to 123", r.caller.number.as_deref() == Some("121") && r.called.number == "123"),
                Check::is("answered by 123", r.answered_by.as_deref() == Some("extension:123")),
                Check::near("talked as long as they did", r.talk_ms, TALK, NEAR),
                Check::is("123 hung up", r.hangup.by == By::Callee),
                adds_up(r),
            ]
        }),
        recorded: Some((tones::ANNA, tones::SHOP)),
    },
];

fn queue(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73833000001@{}", cast.host);
    let mut customer = cast.carrier_b.invite(&uri, &customer(cast, "+79131234567"), tones::CUSTOMER)?;
    let at_anna = cast.anna.called()?;
    let at_boris = cast.boris.called()?;
    let (anna_tag, boris_tag) = (cast.anna.token(), cast.boris.token());
    cast.anna.reply(&at_anna, 180, &anna_tag, None);
    cast.boris.reply(&at_boris, 180, &boris_tag, None);
    cast.carrier_b.progress(&customer, 180)?;
    pause(RING);
    let voice = if cast.sabotage == Some(Sabotage::Tone) { tones::WRONG } else { tones::BORIS };
    let boris = cast.boris.accept(&at_boris, &boris_tag, voice)?;
    cast.carrier_b.answered(&mut customer)?;
    cast.boris.acknowledged(&at_boris)?;
    let cancel = cast.anna.called_off(&at_anna, &anna_tag)?;
    pause(TALK - LISTEN);
    let heard = listen(&customer.voice, &boris.voice);
    let mut checks = vec![
        Check::is("the caller hears 122", heard.0 == Some(tones::BORIS)),
        Check::is("122 hears the caller", heard.1 == Some(tones::CUSTOMER)),
        Check::is("121 is told who answered", says_elsewhere(&cancel)),
        Check::is("122 sees the caller's number", caller_of(&at_boris) == "+79131234567"),
    ];
    cast.carrier_b.hang_up(customer)?;
    cast.boris.hung_up_on(boris)?;
    checks.push(Check::is("the call ended at both ends", true));
    Ok(checks)
}

fn outbound(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let from = format!("<sip:121@{}>", cast.domain);
    let mut anna = cast.anna.invite(&format!("sip:83832001020@{}", cast.domain), &from, tones::ANNA)?;
    let unproven = cast.carrier_a.called()?;
    let challenge = cast.carrier_a.challenge("carrier-a.example");
    let tag = cast.carrier_a.token();
    cast.carrier_a.reply(&unproven, 407, &tag, Some(&challenge));
    cast.carrier_a.acknowledged(&unproven)?;
    let proven = cast.carrier_a.called()?;
    let tag = cast.carrier_a.token();
    let secret = ha1(Algorithm::Md5, "office", "carrier-a.example", &cast.carrier_password);
    let proof = proven.text(Name::ProxyAuthorization).and_then(|value| Credentials::parse(value).ok());
    let mut checks = vec![
        Check::is("no password before it is asked for", !unproven.has(Name::ProxyAuthorization)),
        Check::is(
            "the carrier's password is proven",
            proof.is_some_and(|p| p.username == "office" && p.nonce == challenge.nonce && p.verify(&secret, "INVITE")),
        ),
        Check::is("the carrier sees the number in full", proven.request_uri().starts_with("sip:+73832001020@")),
        Check::is("the carrier sees the head office", caller_of(&proven) == "+73433000001"),
    ];
    cast.carrier_a.reply(&proven, 180, &tag, None);
    cast.anna.progress(&anna, 180)?;
    pause(RING);
    let supplier = cast.carrier_a.accept(&proven, &tag, tones::SUPPLIER)?;
    cast.anna.answered(&mut anna)?;
    cast.carrier_a.acknowledged(&proven)?;
    pause(TALK - LISTEN);
    let heard = listen(&anna.voice, &supplier.voice);
    checks.push(Check::is("121 hears the supplier", heard.0 == Some(tones::SUPPLIER)));
    checks.push(Check::is("the supplier hears 121", heard.1 == Some(tones::ANNA)));
    cast.anna.hang_up(anna)?;
    cast.carrier_a.hung_up_on(supplier)?;
    Ok(checks)
}

fn hold(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73433000001@{}", cast.host);
    let mut customer = cast.carrier_a.invite(&uri, &customer(cast, "+79222345678"), tones::CUSTOMER)?;
    let at_anna = cast.anna.called()?;
    let at_boris = cast.boris.called()?;
    let (anna_tag, boris_tag) = (cast.anna.token(), cast.boris.token());
    cast.anna.reply(&at_anna, 180, &anna_tag, None);
    cast.boris.reply(&at_boris, 180, &boris_tag, None);
    cast.carrier_a.progress(&customer, 180)?;
    pause(RING / 2);
    let mut anna = cast.anna.accept(&at_anna, &anna_tag, tones::ANNA)?;
    cast.carrier_a.answered(&mut customer)?;
    cast.anna.acknowledged(&at_anna)?;
    cast.boris.called_off(&at_boris, &boris_tag)?;
    pause(TALK / 2);

    cast.anna.hold(&mut anna, true)?;
    let wanted = cast.carrier_a.held(&mut customer)?;
    cast.anna.hold_answered(&mut anna, true)?;
    let again = customer.invite.clone();
    pause(HOLD - LISTEN);
    let quiet = listen(&customer.voice, &anna.voice);

    cast.anna.hold(&mut anna, false)?;
    let back = cast.carrier_a.held(&mut customer)?;
    cast.anna.hold_answered(&mut anna, false)?;
    drop(again);
    pause(TALK / 2);
    let heard = listen(&customer.voice, &anna.voice);
    let checks = vec![
        Check::is("the carrier is asked to listen only", wanted == Direction::SendOnly),
        Check::is("nothing is heard on hold", quiet == (None, None)),
        Check::is("both ways are asked for again", back == Direction::SendRecv),
        Check::is("the customer hears 121 again", heard.0 == Some(tones::ANNA)),
        Check::is("121 hears the customer again", heard.1 == Some(tones::CUSTOMER)),
    ];
    cast.anna.hang_up(anna)?;
    cast.carrier_a.hung_up_on(customer)?;
    Ok(checks)
}

fn gives_up(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73833000002@{}", cast.host);
    let customer = cast.carrier_b.invite(&uri, &customer(cast, "+79137654321"), tones::CUSTOMER)?;
    let at_anna = cast.anna.called()?;
    let at_boris = cast.boris.called()?;
    let (anna_tag, boris_tag) = (cast.anna.token(), cast.boris.token());
    cast.anna.reply(&at_anna, 180, &anna_tag, None);
    cast.boris.reply(&at_boris, 180, &boris_tag, None);
    cast.carrier_b.progress(&customer, 180)?;
    pause(RING);
    cast.carrier_b.give_up(&customer)?;
    let (first, second) = (cast.anna.called_off(&at_anna, &anna_tag)?, cast.boris.called_off(&at_boris, &boris_tag)?);
    Ok(vec![
        Check::is("both phones stop ringing", true),
        Check::is("and show a missed call", !says_elsewhere(&first) && !says_elsewhere(&second)),
    ])
}

fn wrong_password(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    cast.stranger.user = "124".into();
    let known = cast.stranger.register(&cast.domain, "a wrong password", 3600)?;
    cast.stranger.user = "999".into();
    let unknown = cast.stranger.register(&cast.domain, "a wrong password", 3600)?;
    Ok(vec![
        Check::is("124 with a wrong password gets 401", known.status() == 401),
        Check::is("999, who does not exist, gets 401", unknown.status() == 401),
        Check::is("nobody can tell the one from the other", shape(&known) == shape(&unknown)),
    ])
}

fn internal(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let from = format!("<sip:121@{}>", cast.domain);
    let mut anna = cast.anna.invite(&format!("sip:123@{}", cast.domain), &from, tones::ANNA)?;
    let at_shop = cast.shop.called()?;
    let tag = cast.shop.token();
    cast.shop.reply(&at_shop, 180, &tag, None);
    cast.anna.progress(&anna, 180)?;
    pause(RING / 2);
    let shop = cast.shop.accept(&at_shop, &tag, tones::SHOP)?;
    cast.anna.answered(&mut anna)?;
    cast.shop.acknowledged(&at_shop)?;
    pause(TALK - LISTEN);
    let heard = listen(&anna.voice, &shop.voice);
    let checks = vec![
        Check::is("121 hears 123", heard.0 == Some(tones::SHOP)),
        Check::is("123 hears 121", heard.1 == Some(tones::ANNA)),
        Check::is("123 sees who calls", caller_of(&at_shop) == "121"),
    ];
    cast.shop.hang_up(shop)?;
    cast.anna.hung_up_on(anna)?;
    Ok(checks)
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

fn says_elsewhere(cancel: &Message) -> bool {
    cancel.text(Name::Reason).is_some_and(|reason| reason.contains("cause=200") && reason.contains("elsewhere"))
}

/// Everything of an answer that a guesser could compare: status, header names and the length of their values.
fn shape(answer: &Message) -> (u16, Vec<(Name, usize)>) {
    (answer.status(), answer.all().map(|(name, _, value)| (name, value.len())).collect())
}

fn adds_up(record: &CallRecord) -> Check {
    let whole = (record.ended_at - record.started_at).as_millis() as u64;
    Check::is("wait, talk and hold are the whole call", record.wait_ms + record.talk_ms + record.hold_ms == whole)
}
