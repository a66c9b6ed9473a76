//! What this telephone system is bought for: the right person, the right number. Suppliers, own managers, mobiles and their
//! voicemails, dealers, regions, evenings and holidays.

use std::time::Duration;

use super::super::MANAGER_RINGS;
use super::super::party::Missed;
use super::{
    Cast, Check, LISTEN, NEAR, RING, Sabotage, Scene, TALK, adds_up, answered_by, by_route, caller_of, customer,
    diverted_from, listen, name_of, pause, result_of, says_elsewhere, taken, talk, tones,
};
use crate::call::record::{By, Direction as Way, PhaseKind};
use crate::sdp::session::Direction;

/// 121's mobile.
pub const MOBILE_NUMBER: &str = "+79120000101";
/// How long somebody is on hold.
const HOLD: Duration = Duration::from_millis(1000);

/// Desk and mobile at once, and a voicemail.
pub const SALES: Scene = Scene {
    name: "sales",
    at: "2026-11-02T10:02",
    proves: "Unknown, from Novosibirsk: sales ring on desk and mobile at once; the mobile's voicemail does not win",
    play: sales,
    record: Some(|r| {
        let mut checks = answered_by(r, "extension:122");
        let ended = |target: &str| result_of(r, target);
        checks.extend([
            Check::is("came in by carrier-b", r.direction == Way::In && r.trunk.as_deref() == Some("carrier-b")),
            Check::is("campaign of the number called", r.called.campaign.as_deref() == Some("site-nsk")),
            Check::is("from Novosibirsk, in no directory", {
                r.caller.region.as_deref() == Some("RU-NVS") && r.caller.category.as_deref() == Some("unknown")
            }),
            by_route(r, "everyone else"),
            Check::is("121 rang", ended("extension:121").as_deref() == Some("elsewhere")),
            Check::is("the voicemail is nobody's answer", {
                ended("number:+79120000101").is_some_and(|result| result != "answered")
            }),
            Check::near("waited as long as it rang", r.wait_ms, RING + LISTEN, NEAR),
            Check::is("the caller hung up", r.hangup.by == By::Caller),
        ]);
        checks
    }),
    recorded: Some((tones::CUSTOMER, tones::BORIS)),
};

fn sales(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73833000001@{}", cast.host);
    let mut call = cast.carrier_b.invite(&uri, &customer(cast, "+73832223344"), tones::CUSTOMER)?;
    let (desk, mobile) = (cast.anna.rings(None)?, cast.carrier_b.rings(Some(MOBILE_NUMBER))?);
    let boris = cast.boris.rings(None)?;
    cast.carrier_b.progress(&call, 180)?;
    let voicemail = cast.carrier_b.accept(&mobile, tones::VOICEMAIL)?;
    cast.carrier_b.acknowledged(&mobile.invite)?;
    pause(RING);
    voicemail.voice.forget();
    pause(LISTEN);
    let asked = voicemail.voice.hears_sound();
    let waits = !cast.carrier_b.has_answer(&call);
    let voice = if cast.sabotage == Some(Sabotage::Tone) { tones::WRONG } else { tones::BORIS };
    let desk_122 = cast.boris.accept(&boris, voice)?;
    cast.carrier_b.answered(&mut call)?;
    cast.boris.acknowledged(&boris.invite)?;
    let (cancel, bye) = (cast.anna.called_off(&desk)?, cast.carrier_b.hung_up_on(voicemail)?);
    let mut checks = vec![
        Check::is("the voicemail is asked to press 1", asked),
        Check::is("meanwhile the caller hears ringing", waits),
        Check::is("121's desk and mobile are told who answered", says_elsewhere(&cancel) && says_elsewhere(&bye)),
        Check::is("122 sees the caller's number", caller_of(&boris.invite) == "+73832223344"),
        Check::is("the mobile sees the number called", caller_of(&mobile.invite) == "+73833000001"),
    ];
    let heard = (&mut cast.boris, desk_122, tones::BORIS);
    checks.extend(talk((&mut cast.carrier_b, call, tones::CUSTOMER), heard, ("the caller", "122"))?);
    Ok(checks)
}

/// The mobile's owner takes it.
pub const MOBILE: Scene = Scene {
    name: "mobile",
    at: "2026-11-02T10:09",
    proves: "The mobile's owner presses 1 and has the call",
    play: mobile,
    record: Some(|r| {
        let mut checks = answered_by(r, "extension:121");
        let ended = |target: &str| result_of(r, target);
        checks.extend([
            Check::is("on the mobile", ended("number:+79120000101").as_deref() == Some("answered")),
            Check::is("the desks were called off", {
                ["extension:121", "extension:122"].iter().all(|who| ended(who).as_deref() == Some("elsewhere"))
            }),
        ]);
        checks
    }),
    recorded: Some((tones::CUSTOMER, tones::ANNA)),
};

fn mobile(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73433000001@{}", cast.host);
    let mut call = cast.carrier_a.invite(&uri, &customer(cast, "+73432223344"), tones::CUSTOMER)?;
    let (desk, mobile) = (cast.anna.rings(None)?, cast.carrier_a.rings(Some(MOBILE_NUMBER))?);
    let boris = cast.boris.rings(None)?;
    cast.carrier_a.progress(&call, 180)?;
    let anna = cast.carrier_a.accept(&mobile, tones::ANNA)?;
    cast.carrier_a.acknowledged(&mobile.invite)?;
    pause(RING / 2);
    let early = cast.carrier_a.has_answer(&call);
    anna.press('1')?;
    cast.carrier_a.answered(&mut call)?;
    let ends = [cast.anna.called_off(&desk)?, cast.boris.called_off(&boris)?];
    pause(TALK - LISTEN);
    let heard = listen(&call.voice, &anna.voice);
    let checks = vec![
        Check::is("the call is not hers before the key", !early),
        Check::is("the desks are told who answered", ends.iter().all(says_elsewhere)),
        Check::is("the caller hears the mobile", heard.0 == Some(tones::ANNA)),
        Check::is("the mobile hears the caller, and no prompt", heard.1 == Some(tones::CUSTOMER)),
        Check::is("it sees where the call comes from", diverted_from(&mobile.invite).is_some()),
    ];
    cast.carrier_a.hang_up(call)?;
    cast.carrier_a.hung_up_on(anna)?;
    Ok(checks)
}

/// Contact, category, route.
pub const SUPPLIER: Scene = Scene {
    name: "supplier",
    at: "2026-11-02T10:17",
    proves: "A supplier never lands on sales: production rings",
    play: supplier,
    record: Some(|r| {
        let mut checks = answered_by(r, "extension:123");
        checks.extend([
            Check::is("known by name", r.caller.name.as_deref() == Some("Металл-Снаб")),
            Check::is("as a supplier", r.caller.category.as_deref() == Some("supplier")),
            by_route(r, "suppliers"),
        ]);
        checks
    }),
    recorded: Some((tones::CUSTOMER, tones::SHOP)),
};

fn supplier(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73433000001@{}", cast.host);
    let call = cast.carrier_a.invite(&uri, &customer(cast, "+73432001020"), tones::CUSTOMER)?;
    let ringing = cast.shop.rings(None)?;
    cast.carrier_a.progress(&call, 180)?;
    pause(RING / 2);
    let mut checks = vec![
        Check::is("123 sees the supplier's name", name_of(&ringing.invite) == "Металл-Снаб"),
        Check::is("sales stay quiet", cast.anna.left_alone() && cast.boris.left_alone()),
    ];
    checks.extend(taken(&mut cast.carrier_a, call, &mut cast.shop, &ringing, tones::SHOP, "123")?);
    Ok(checks)
}

/// The own manager; with a hold in the talk.
pub const MANAGER: Scene = Scene {
    name: "manager",
    at: "2026-11-02T10:26",
    proves: "A regular customer reaches the own manager, who holds the call and comes back",
    play: manager,
    record: Some(|r| {
        vec![
            Check::is("answered by 122", r.answered_by.as_deref() == Some("extension:122")),
            Check::is("known by name", r.caller.name.as_deref() == Some("ООО Ромашка")),
            by_route(r, "own manager first"),
            Check::is("121 did not ring", result_of(r, "extension:121").is_none()),
            Check::near("on hold as long as he was", r.hold_ms, HOLD, NEAR),
            Check::is("the journey shows it", r.journey.iter().any(|p| p.phase == PhaseKind::Hold)),
            Check::is("122 hung up", r.hangup.by == By::Callee),
            adds_up(r),
        ]
    }),
    recorded: Some((tones::CUSTOMER, tones::BORIS)),
};

fn manager(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73433000001@{}", cast.host);
    let mut call = cast.carrier_a.invite(&uri, &customer(cast, "+73432003040"), tones::CUSTOMER)?;
    let ringing = cast.boris.rings(None)?;
    cast.carrier_a.progress(&call, 180)?;
    pause(RING / 2);
    let mut boris = cast.boris.accept(&ringing, tones::BORIS)?;
    cast.carrier_a.answered(&mut call)?;
    cast.boris.acknowledged(&ringing.invite)?;
    pause(TALK / 2);

    cast.boris.hold(&mut boris, true)?;
    let wanted = cast.carrier_a.held(&mut call)?;
    cast.boris.hold_answered(&mut boris, true)?;
    pause(HOLD - LISTEN);
    let quiet = listen(&call.voice, &boris.voice);

    cast.boris.hold(&mut boris, false)?;
    let back = cast.carrier_a.held(&mut call)?;
    cast.boris.hold_answered(&mut boris, false)?;
    pause(TALK / 2);
    let heard = listen(&call.voice, &boris.voice);
    let checks = vec![
        Check::is("122 sees the customer's name", name_of(&ringing.invite) == "ООО Ромашка"),
        Check::is("nothing is heard on hold", wanted == Direction::SendOnly && quiet == (None, None)),
        Check::is("then both hear each other again", {
            back == Direction::SendRecv && heard == (Some(tones::BORIS), Some(tones::CUSTOMER))
        }),
    ];
    cast.boris.hang_up(boris)?;
    cast.carrier_a.hung_up_on(call)?;
    Ok(checks)
}

/// The own manager is away.
pub const MANAGER_AWAY: Scene = Scene {
    name: "manager-away",
    at: "2026-11-02T10:38",
    proves: "The manager does not answer: the customer, calling from another telephone, goes on to sales",
    play: manager_away,
    record: Some(|r| {
        let mut checks = answered_by(r, "extension:121");
        checks.extend([
            Check::is("known by his second number", r.caller.name.as_deref() == Some("ООО Ромашка")),
            Check::is("the manager rang in vain", result_of(r, "extension:122").is_some_and(|r| r != "answered")),
            Check::near("waited for both", r.wait_ms, MANAGER_RINGS + RING / 2, NEAR),
        ]);
        checks
    }),
    recorded: Some((tones::CUSTOMER, tones::ANNA)),
};

fn manager_away(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73433000001@{}", cast.host);
    let mut call = cast.carrier_a.invite(&uri, &customer(cast, "+79120003040"), tones::CUSTOMER)?;
    let manager = cast.boris.rings(None)?;
    cast.carrier_a.progress(&call, 180)?;
    pause(RING);
    let alone = cast.anna.left_alone();
    let given_up = cast.boris.called_off(&manager)?;
    let (desk, mobile) = (cast.anna.rings(None)?, cast.carrier_a.rings(Some(MOBILE_NUMBER))?);
    pause(RING / 2);
    let anna = cast.anna.accept(&desk, tones::ANNA)?;
    cast.carrier_a.answered(&mut call)?;
    cast.anna.acknowledged(&desk.invite)?;
    let elsewhere = cast.carrier_a.called_off(&mobile)?;
    let mut checks = vec![
        Check::is("the manager rings alone first", alone),
        Check::is("and has a missed call", !says_elsewhere(&given_up)),
        Check::is("121's mobile is told who answered", says_elsewhere(&elsewhere)),
    ];
    let heard = (&mut cast.anna, anna, tones::ANNA);
    checks.extend(talk((&mut cast.carrier_a, call, tones::CUSTOMER), heard, ("the caller", "121"))?);
    Ok(checks)
}

/// 8-800.
pub const DEALER: Scene = Scene {
    name: "dealer",
    at: "2026-11-02T10:47",
    proves: "8-800 from Kemerovo: the region's dealer, outside, by the other carrier",
    play: dealer,
    record: Some(|r| {
        let mut checks = answered_by(r, "number:+73842000001");
        checks.extend([
            Check::is("from Kemerovo", r.caller.region.as_deref() == Some("RU-KEM")),
            by_route(r, "8-800 to the nearest dealer"),
            Check::is("the 8-800 number was not shown", r.shown.as_deref() == Some("+73833000001")),
        ]);
        checks
    }),
    recorded: Some((tones::CUSTOMER, tones::OUTSIDE)),
};

fn dealer(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+78003000001@{}", cast.host);
    let call = cast.carrier_a.invite(&uri, &customer(cast, "+73842334455"), tones::CUSTOMER)?;
    let ringing = cast.carrier_b.rings(Some("+73842000001"))?;
    cast.carrier_a.progress(&call, 180)?;
    pause(RING / 2);
    let invite = &ringing.invite;
    let mut checks = vec![
        Check::is("the dealer sees Novosibirsk, of the same district", caller_of(invite) == "+73833000001"),
        Check::is("and that 8-800 sent the call on", diverted_from(invite).as_deref() == Some("+78003000001")),
        Check::is("no phone of ours rings", cast.anna.left_alone() && cast.boris.left_alone()),
    ];
    let taken = taken(&mut cast.carrier_a, call, &mut cast.carrier_b, &ringing, tones::OUTSIDE, "the dealer")?;
    checks.extend(taken);
    Ok(checks)
}

/// The number of the region called.
pub const OUTBOUND_NOVOSIBIRSK: Scene = Scene {
    name: "outbound-novosibirsk",
    at: "2026-11-02T10:58",
    proves: "A call to Novosibirsk shows the Novosibirsk number, by the carrier that owns it",
    play: outbound_novosibirsk,
    record: Some(|r| {
        let mut checks = answered_by(r, "number:+73832001020");
        checks.extend([
            Check::is("went out by carrier-b", r.direction == Way::Out && r.trunk.as_deref() == Some("carrier-b")),
            Check::is("showed Novosibirsk", r.shown.as_deref() == Some("+73833000001")),
        ]);
        checks
    }),
    recorded: Some((tones::ANNA, tones::OUTSIDE)),
};

fn outbound_novosibirsk(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let from = format!("<sip:121@{}>", cast.domain);
    let mut anna = cast.anna.invite(&format!("sip:83832001020@{}", cast.domain), &from, tones::ANNA)?;
    let ringing = cast.carrier_b.rings(Some("+73832001020"))?;
    cast.anna.progress(&anna, 180)?;
    pause(RING / 2);
    let other = cast.carrier_b.accept(&ringing, tones::OUTSIDE)?;
    cast.anna.answered(&mut anna)?;
    cast.carrier_b.acknowledged(&ringing.invite)?;
    let mut checks = vec![
        Check::is("carrier-b sees +73833000001", caller_of(&ringing.invite) == "+73833000001"),
        Check::is("carrier-a sees nothing", cast.carrier_a.left_alone()),
    ];
    let heard = (&mut cast.carrier_b, other, tones::OUTSIDE);
    checks.extend(talk((&mut cast.anna, anna, tones::ANNA), heard, ("121", "Novosibirsk"))?);
    Ok(checks)
}

/// Unity Day.
pub const HOLIDAY: Scene = Scene {
    name: "holiday",
    at: "2026-11-04T11:00",
    proves: "A public holiday: every branch is closed, the duty roster names nobody, the guard answers",
    play: holiday,
    record: Some(|r| {
        let mut checks = answered_by(r, "extension:130");
        checks.extend([
            by_route(r, "closed"),
            Check::is("since the production calendar says so", {
                r.explain.iter().any(|w| w.because.contains("holiday") || w.because.contains("production calendar"))
            }),
        ]);
        checks
    }),
    recorded: Some((tones::CUSTOMER, tones::GUARD)),
};

fn holiday(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73433000001@{}", cast.host);
    let call = cast.carrier_a.invite(&uri, &customer(cast, "+73432223344"), tones::CUSTOMER)?;
    let ringing = cast.guard.rings(None)?;
    cast.carrier_a.progress(&call, 180)?;
    pause(RING / 2);
    let quiet = [&mut cast.anna, &mut cast.boris, &mut cast.vera, &mut cast.gleb].into_iter().all(|p| p.left_alone());
    let mut checks = vec![Check::is("nobody at home is rung", quiet)];
    checks.extend(taken(&mut cast.carrier_a, call, &mut cast.guard, &ringing, tones::GUARD, "130")?);
    Ok(checks)
}

/// Novosibirsk sleeps.
pub const EVENING: Scene = Scene {
    name: "evening",
    at: "2026-11-11T20:30",
    proves: "Wednesday evening: 22:30 in Novosibirsk, where the call is for, 17:30 in Kaliningrad, which answers",
    play: evening,
    record: Some(|r| {
        let mut checks = answered_by(r, "extension:321");
        checks.extend([
            by_route(r, "closed"),
            Check::is(
                "by the open branch",
                r.explain.iter().any(|w| w.because.contains("17:30 in Europe/Kaliningrad")),
            ),
        ]);
        checks
    }),
    recorded: Some((tones::CUSTOMER, tones::GLEB)),
};

fn evening(cast: &mut Cast) -> Result<Vec<Check>, Missed> {
    let uri = format!("sip:+73833000001@{}", cast.host);
    let call = cast.carrier_b.invite(&uri, &customer(cast, "+73832223344"), tones::CUSTOMER)?;
    let ringing = cast.gleb.rings(None)?;
    cast.carrier_b.progress(&call, 180)?;
    pause(RING / 2);
    let quiet = [&mut cast.anna, &mut cast.boris, &mut cast.vera, &mut cast.guard].into_iter().all(|p| p.left_alone());
    let mut checks = vec![Check::is("nobody who sleeps is rung", quiet)];
    checks.extend(taken(&mut cast.carrier_b, call, &mut cast.gleb, &ringing, tones::GLEB, "321")?);
    Ok(checks)
}
