//! What any telephone system does: calls out, calls inside, callers who give up, strangers who guess passwords.

use super::super::party::Missed;
use super::{
    Cast, Check, RING, Scene, adds_up, answered_by, caller_of, customer, listen, pause, result_of, says_elsewhere,
    talk, tones,
};
use crate::call::record::{By, Direction, Outcome};
use crate::sip::digest::{Algorithm, Credentials, ha1};
use crate::sip::{Message, Name};

/// Out through a carrier that asks for a password.
pub const OUTBOUND: Scene = Scene {
    name: "outbound",
    at: "2026-11-02T11:05",
    proves: "A call out by a carrier that wants our password",
    play: outbound,
    record: Some(|r| {
        let mut checks = answered_by(r, "number:+73432001020");
        checks.extend([
            Check::is(
                "went out by carrier-a",
                r.direction == Direction::Out && r.trunk.as_deref() == Some("carrier-a"),
            ),
            Check::is("caller 121", r.caller.number.as_deref() == Some("121")),
            Check::is("called in full", r.called.number == "+73432001020"),
            Check::is("showed the head office", r.shown.as_deref() == Some("+73433000001")),
            Check::is("the caller hung up", r.hangup.by == By::Caller),
        ]);
        checks
    }),
    recorded: Some((tones::ANNA, tones::OUTSIDE)),
};

fn outbound(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let from = format!("<sip:121@{}>", cast.domain);
    let mut anna = cast.anna.invite(&format!("sip:83432001020@{}", cast.domain), &from, tones::ANNA)?;
    let unproven = cast.carrier_a.called()?;
    let challenge = cast.carrier_a.challenge("carrier-a.example");
    let tag = cast.carrier_a.token();
    cast.carrier_a.reply(&unproven, 407, &tag, Some(&challenge));
    cast.carrier_a.acknowledged(&unproven)?;
    let ringing = cast.carrier_a.rings(None)?;
    let proven = &ringing.invite;
    let secret = ha1(Algorithm::Md5, "office", "carrier-a.example", &cast.carrier_password);
    let proof = proven.text(Name::ProxyAuthorization).and_then(|value| Credentials::parse(value).ok());
    let mut checks = vec![
        Check::is("no password before it is asked for", !unproven.has(Name::ProxyAuthorization)),
        Check::is(
            "the carrier's password is proven",
            proof.is_some_and(|p| p.username == "office" && p.nonce == challenge.nonce && p.verify(&secret, "INVITE")),
        ),
        Check::is("the carrier sees the number in full", proven.request_uri().starts_with("sip:+73432001020@")),
        Check::is("it sees the head office's number", caller_of(proven) == "+73433000001"),
    ];
    cast.anna.progress(&anna, 180)?;
    pause(RING / 2);
    let supplier = cast.carrier_a.accept(&ringing, tones::OUTSIDE)?;
    cast.anna.answered(&mut anna)?;
    cast.carrier_a.acknowledged(&ringing.invite)?;
    let names = ("121", "the supplier");
    let talked = talk((&mut cast.anna, anna, tones::ANNA), (&mut cast.carrier_a, supplier, tones::OUTSIDE), names)?;
    checks.extend(talked);
    Ok(checks)
}

/// Inside.
pub const INTERNAL: Scene = Scene {
    name: "internal",
    at: "2026-11-02T11:12",
    proves: "One desk calls another",
    play: internal,
    record: Some(|r| {
        let mut checks = answered_by(r, "extension:123");
        checks.extend([
            Check::is("internal", r.direction == Direction::Internal && r.trunk.is_none()),
            Check::is("121 to 123", r.caller.number.as_deref() == Some("121") && r.called.number == "123"),
        ]);
        checks
    }),
    recorded: Some((tones::ANNA, tones::SHOP)),
};

fn internal(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let from = format!("<sip:121@{}>", cast.domain);
    let mut anna = cast.anna.invite(&format!("sip:123@{}", cast.domain), &from, tones::ANNA)?;
    let ringing = cast.shop.rings(None)?;
    cast.anna.progress(&anna, 180)?;
    pause(RING / 2);
    let shop = cast.shop.accept(&ringing, tones::SHOP)?;
    cast.anna.answered(&mut anna)?;
    cast.shop.acknowledged(&ringing.invite)?;
    let mut checks = vec![Check::is("123 sees who calls", caller_of(&ringing.invite) == "121")];
    checks.extend(talk((&mut cast.anna, anna, tones::ANNA), (&mut cast.shop, shop, tones::SHOP), ("121", "123"))?);
    Ok(checks)
}

/// Loudspeakers.
pub const PAGE: Scene = Scene {
    name: "page",
    at: "2026-11-02T11:19",
    proves: "121 speaks to both workshops: the loudspeakers answer by themselves",
    play: page,
    record: Some(|r| {
        let played = |target: &str| result_of(r, target).as_deref() == Some("answered");
        vec![
            Check::is("a page", r.direction == Direction::Page),
            Check::is("the report: both played it", played("extension:601") && played("extension:602")),
            Check::is("121 hung up", r.hangup.by == By::Caller),
            Check::is("nothing was recorded", r.recordings.is_empty()),
            adds_up(r),
        ]
    }),
    recorded: None,
};

/// As long as the chime takes, and a little.
const CHIME: std::time::Duration = std::time::Duration::from_millis(1200);

fn page(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let from = format!("<sip:121@{}>", cast.domain);
    let mut anna = cast.anna.invite(&format!("sip:700@{}", cast.domain), &from, tones::ANNA)?;
    let [one, two] = &mut cast.speakers;
    let (first, second) = (one.rings(None)?, two.rings(None)?);
    let told = |invite: &Message| invite.text(Name::CallInfo).is_some_and(|info| info.contains("answer-after=0"));
    let mut checks =
        vec![Check::is("both are told to answer by themselves", told(&first.invite) && told(&second.invite))];
    // A workshop is noisy: what its loudspeaker's microphone hears must go nowhere.
    let (shop, hall) = (one.accept(&first, tones::SHOP)?, two.accept(&second, tones::WRONG)?);
    cast.anna.answered(&mut anna)?;
    one.acknowledged(&first.invite)?;
    two.acknowledged(&second.invite)?;
    pause(super::LISTEN);
    checks.push(Check::is("a chime comes first", shop.voice.hears_sound() && hall.voice.hears_sound()));
    pause(CHIME);
    let heard = listen(&shop.voice, &hall.voice);
    let back = listen(&anna.voice, &anna.voice).0;
    checks.push(Check::is("both workshops hear 121", heard == (Some(tones::ANNA), Some(tones::ANNA))));
    checks.push(Check::is("121 does not hear the workshops", back.is_none()));
    cast.anna.hang_up(anna)?;
    let [one, two] = &mut cast.speakers;
    one.hung_up_on(shop)?;
    two.hung_up_on(hall)?;
    Ok(checks)
}

/// Nobody is quick enough.
pub const GIVES_UP: Scene = Scene {
    name: "gives-up",
    at: "2026-11-02T11:26",
    proves: "A customer gives up: every phone stops and shows a missed call",
    play: gives_up,
    record: Some(|r| {
        vec![
            Check::is("nobody answered", r.answered_at.is_none() && r.answered_by.is_none()),
            Check::is("outcome short", r.outcome == Outcome::Short),
            Check::near("waited as long as it rang", r.wait_ms, RING, super::NEAR),
            Check::is("the caller left", r.hangup.by == By::Caller),
            Check::is("nothing was recorded", r.recordings.is_empty()),
            adds_up(r),
        ]
    }),
    recorded: None,
};

fn gives_up(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73833000002@{}", cast.host);
    let call = cast.carrier_b.invite(&uri, &customer(cast, "+79137654321"), tones::CUSTOMER)?;
    let (desk, mobile) = (cast.anna.rings(None)?, cast.carrier_b.rings(Some(super::routes::MOBILE_NUMBER))?);
    let boris = cast.boris.rings(None)?;
    cast.carrier_b.progress(&call, 180)?;
    pause(RING);
    cast.carrier_b.give_up(&call)?;
    let ends = [cast.anna.called_off(&desk)?, cast.carrier_b.called_off(&mobile)?, cast.boris.called_off(&boris)?];
    Ok(vec![
        Check::is("both desks and the mobile stop ringing", true),
        Check::is("and show a missed call", !ends.iter().any(says_elsewhere)),
    ])
}

/// Passwords are guessed.
pub const WRONG_PASSWORD: Scene = Scene {
    name: "wrong-password",
    at: "2026-11-02T11:31",
    proves: "Somebody guesses passwords and does not even learn which extensions exist",
    play: wrong_password,
    record: None,
    recorded: None,
};

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

/// Everything of an answer that a guesser could compare: status, header names and the length of their values.
fn shape(answer: &Message) -> (u16, Vec<(Name, usize)>) {
    (answer.status(), answer.all().map(|(name, _, value)| (name, value.len())).collect())
}
