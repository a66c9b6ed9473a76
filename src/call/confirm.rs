//! Confirmation: whoever answers a branch that wants it hears "press 1 to take the call from …" and has nothing of the caller
//! before that key. So a mobile's voicemail never takes a call.
//!
//! ```text
//!   ring --200--> asked --1--> it has won, like any other answer
//!                   |---another wins: BYE "Call completed elsewhere"
//!                   '---no key within 15 s, hangs up: BYE, "unconfirmed"; nobody has answered
//! ```
//!
//! The others go on ringing, and the caller goes on hearing that. Keys count by RFC 4733, by INFO and as tones.

use std::time::Duration;

use bytes::Bytes;

use super::journey::LegResult;
use super::leg::{Asked, Event, Peer};
use super::record::PhaseKind;
use super::{Call, Cx, Final, LegKey, Legs, State};
use crate::base::Instant;
use crate::media::sound::{PAUSE, PRESS_1, SoundName, digits};
use crate::media::{Command, Port};
use crate::sdp::Session;
use crate::sdp::session::Format;

/// How long somebody has to press the key, from the answer on, whatever is left of the time to ring.
pub const CONFIRM: Duration = Duration::from_secs(15);
/// The key.
const KEY: char = '1';
/// Digits of the caller's number that are spoken at most, the last ones.
const MAX_DIGITS: usize = 15;
/// What is said to who was asked in vain.
const UNCONFIRMED: &str = "Q.850;cause=19;text=\"Not confirmed\"";

/// Somebody who answered and is asked.
#[derive(Debug)]
pub(super) struct Question {
    /// Who.
    pub(super) leg: LegKey,
    /// The early dialog that its 2xx was of.
    early: u8,
    port: Port,
    until: Instant,
}

impl Call {
    /// Why nobody can be asked to confirm in this call, if so.
    pub(super) fn cannot_ask(&self, legs: &Legs) -> Option<&'static str> {
        if !self.relay {
            return Some("media passes us by");
        }
        let end = legs.get(self.a).and_then(|caller| caller.end.as_ref())?;
        match end.last_heard() {
            None => Some("the caller made no offer, so nobody can be spoken to before it answers"),
            Some(_) if !end.can_talk() => Some("no codec of the caller's is spoken here"),
            Some(_) => None,
        }
    }

    /// Early media of a leg that has to confirm goes nowhere, but its description counts: its 2xx may have none.
    pub(super) fn hear_early(&self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: &Bytes) {
        let Some(leg) = legs.get_mut(key) else { return };
        let source = leg.flow.remote.ip();
        if let (Some(end), Ok(session)) = (leg.end.as_mut(), Session::parse(body))
            && end.answers(&session)
        {
            // Without a port for what it answered there is nothing to be heard; its 2xx will find that out.
            let _ = self.at_desk(cx, |desk| end.heard(desk, &session, body, source));
        }
    }

    /// A leg answered that has to confirm.
    pub(super) fn question(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: Option<&Bytes>, early: u8) {
        let Some(leg) = legs.get_mut(key) else { return };
        leg.ack(cx, None);
        if let Peer::Trunk { trunk, .. } = &leg.peer {
            let (trunk, flow) = (trunk.clone(), leg.flow());
            cx.switch.trunk_said(cx.now, &trunk, &flow, None);
        }
        let until = cx.now.mono + CONFIRM;
        let Some(port) = self.ask_for_key(legs, cx, key, body) else {
            return self.unconfirmed(legs, cx, key, "it could not be asked to confirm".to_owned());
        };
        let State::Ringing(ringing) = &mut self.state else { return };
        ringing.questions.push(Question { leg: key, early, port, until });
        cx.switch.arm_call(until, self.key);
        self.note_confirm(cx);
    }

    /// Speaks and listens as the leg's last offer and answer have it; `body` is a new description of the peer's.
    fn ask_for_key(&self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: Option<&Bytes>) -> Option<Port> {
        let leg = legs.get_mut(key)?;
        let source = leg.flow.remote.ip();
        let end = leg.end.as_mut()?;
        let voice = self.at_desk(cx, |desk| {
            if let Some(body) = body {
                let session = Session::parse(body).ok().filter(|session| end.answers(session))?;
                end.heard(desk, &session, body, source).ok()?;
            }
            end.attend(desk.commands, false);
            end.voice()
        })?;
        let (port, codec, payload_type) = (voice.port, voice.codec, voice.payload_type);
        let listen = Command::Listen { port, payloads: voice.payloads, in_band: true };
        let sounds = self.words();
        for command in [listen, Command::Play { port, sounds, codec, payload_type, repeat: true }] {
            cx.switch.media(self.worker, command);
        }
        Some(port)
    }

    /// "Press 1 to take the call from" and the caller's number, digit by digit.
    fn words(&self) -> Vec<SoundName> {
        let number = self.caller.number.as_deref().unwrap_or_default();
        let all: Vec<SoundName> = digits(number).collect();
        let spoken = all[all.len().saturating_sub(MAX_DIGITS)..].iter().cloned();
        let pauses = |n| std::iter::repeat_n(SoundName::from(PAUSE), n);
        pauses(1).chain([PRESS_1.into()]).chain(spoken).chain(pauses(4)).collect()
    }

    /// A key was pressed on a port that is listened to.
    pub fn key(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, port: Port, key: char) {
        let State::Ringing(ringing) = &self.state else { return };
        if let Some(leg) = ringing.questions.iter().find(|q| q.port == port).map(|q| q.leg) {
            self.answered_by_key(legs, cx, leg, key);
        }
    }

    fn answered_by_key(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, pressed: char) {
        if pressed != KEY {
            // From the beginning: whoever pressed something else has not understood.
            self.ask_for_key(legs, cx, key, None);
            return;
        }
        let State::Ringing(ringing) = &mut self.state else { return };
        let Some(at) = ringing.questions.iter().position(|q| q.leg == key) else { return };
        let Question { port, early, .. } = ringing.questions.swap_remove(at);
        for command in [Command::Hush { port }, Command::Listen { port, payloads: Vec::new(), in_band: false }] {
            cx.switch.media(self.worker, command);
        }
        let body = legs.get(key).and_then(|leg| leg.end.as_ref()).and_then(|end| end.heard_last().cloned());
        self.wins(legs, cx, key, body, early);
    }

    /// News of a leg that is asked. Whether it is one.
    pub(super) fn while_asked(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, event: &Event) -> bool {
        let State::Ringing(ringing) = &self.state else { return false };
        if !ringing.questions.iter().any(|q| q.leg == key) {
            return false;
        }
        match event {
            Event::Bye { .. } => self.unconfirmed(legs, cx, key, "hung up without confirming".to_owned()),
            Event::Lost { because, .. } => {
                let because = because.clone().unwrap_or_else(|| "lost without confirming".to_owned());
                self.unconfirmed(legs, cx, key, because);
            }
            Event::Gone => self.unconfirmed(legs, cx, key, "gone without confirming".to_owned()),
            Event::Asked { asked } => {
                if let Some(leg) = legs.get_mut(key) {
                    leg.answer_asked(cx, 200, "OK", None);
                }
                if let Some(pressed) = info_key(asked) {
                    self.answered_by_key(legs, cx, key, pressed);
                }
            }
            // It may be heard elsewhere from now on.
            Event::Restated { body } | Event::Acked { body: Some(body) } => {
                self.ask_for_key(legs, cx, key, Some(body));
            }
            // A carrier moves its media, or refreshes its session: we answer for the caller.
            Event::Offered { body } => {
                if self.answer_alone(legs, cx, key, body.as_ref(), &Format::BASIC) {
                    self.ask_for_key(legs, cx, key, None);
                }
            }
            // Nothing of ours is under way there.
            Event::Progress { .. }
            | Event::Answered { .. }
            | Event::Refused { .. }
            | Event::Cancelled { .. }
            | Event::Acked { .. }
            | Event::OfferAnswered { .. }
            | Event::AskedAnswered { .. }
            | Event::Withdrawn => {}
        }
        true
    }

    /// Whoever was asked for too long is nobody's answer.
    pub(super) fn questions_due(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        loop {
            let State::Ringing(ringing) = &self.state else { return };
            let Some(due) = ringing.questions.iter().find(|q| q.until <= cx.now.mono).map(|q| q.leg) else { return };
            let seconds = CONFIRM.as_secs();
            self.unconfirmed(legs, cx, due, format!("no key within {seconds} s"));
        }
    }

    /// Somebody answered and is nobody's answer.
    fn unconfirmed(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, why: String) {
        let State::Ringing(ringing) = &mut self.state else { return };
        ringing.questions.retain(|q| q.leg != key);
        let way = ringing.rung_of(key).and_then(|rung| rung.branch.ways.first().cloned());
        ringing.unconfirmed.extend(way);
        ringing.note(Final::new(480, "Temporarily Unavailable"));
        let rung = ringing.lost(key);
        if let Some(leg) = legs.get_mut(key) {
            leg.hang_up(cx, Some(UNCONFIRMED));
            self.journey.over(cx.now, leg.number, LegResult::Unconfirmed, Some(why));
        }
        self.bury(legs, cx, key);
        if let Some(i) = rung {
            // A voicemail's answer is no answer of its owner, whose desk phone has its next turn.
            self.nothing_came(legs, cx, i, None);
        }
        if self.journey.phase() == PhaseKind::Confirm
            && matches!(&self.state, State::Ringing(ringing) if ringing.questions.is_empty())
        {
            self.journey.enter(cx.now, PhaseKind::Route, "nobody confirmed");
        }
    }

    /// The phase in which nobody is left but who has yet to confirm.
    pub(super) fn note_confirm(&mut self, cx: &Cx<'_>) {
        let State::Ringing(ringing) = &self.state else { return };
        let asked = |key| ringing.questions.iter().any(|q| q.leg == key);
        if !ringing.questions.is_empty() && ringing.legs().all(asked) {
            self.journey.enter(cx.now, PhaseKind::Confirm, "only who has to confirm is left");
        }
    }
}

/// The key of an INFO: `application/dtmf-relay` ("Signal=1") or `application/dtmf` ("1").
fn info_key(asked: &Asked) -> Option<char> {
    let text = std::str::from_utf8(&asked.body).ok()?;
    let of = |name: &str| asked.content_type.as_deref().is_some_and(|t| t.to_ascii_lowercase().starts_with(name));
    if of("application/dtmf-relay") {
        let signal = |line: &str| {
            let (name, value) = line.split_once('=')?;
            name.trim().eq_ignore_ascii_case("signal").then(|| value.trim().chars().next())?
        };
        return text.lines().find_map(signal);
    }
    of("application/dtmf").then(|| text.trim().chars().next())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Method;

    #[test]
    fn keys_of_info() {
        for (content_type, body, key) in [
            (Some("application/dtmf-relay"), "Signal=1\r\nDuration=160\r\n", Some('1')),
            (Some("Application/DTMF-Relay; charset=utf-8"), "duration = 160\nsignal = #\n", Some('#')),
            (Some("application/dtmf"), "1", Some('1')),
            (Some("application/dtmf"), " 5\r\n", Some('5')),
            (Some("application/dtmf"), "", None),
            (Some("application/dtmf-relay"), "Signal=", None),
            (Some("text/plain"), "1", None),
            (None, "Signal=1", None),
        ] {
            let content_type = content_type.map(str::to_owned);
            let asked = Asked { method: Method::Info, content_type, body: Bytes::copy_from_slice(body.as_bytes()) };
            assert_eq!(info_key(&asked), key, "{asked:?}");
        }
    }
}
