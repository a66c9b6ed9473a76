//! Two legs talk: offers pass from one to the other, hold is noticed, other requests within the dialog pass, and one BYE ends
//! both.

use std::time::Duration;

use bytes::Bytes;

use super::bridge;
use super::journey::LegResult;
use super::leg::{Asked, Event, Leg};
use super::record::{By, PhaseKind, RecordingEntry};
use super::{Call, Cause, Cx, End, LegKey, Legs, RECORDER_PATIENCE, Standing, State};
use crate::base::Rng;
use crate::media::sound::BEEP;
use crate::media::{Command, Port, RecordingId, Side};
use crate::sdp::Session;
use crate::sdp::session::Format;
use crate::sip::Method;

/// The tone that whoever answers by itself hears is over by then.
const LONGEST_TONE: Duration = Duration::from_secs(1);

impl Call {
    /// Something happened on a leg of an answered call.
    pub(super) fn while_connected(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, event: Event) {
        let State::Connected(connected) = &self.state else { return };
        let b = connected.b;
        if key != self.a && key != b {
            return self.leftover(legs, cx, key, event);
        }
        let other = if key == b { self.a } else { b };
        let by = if key == b { By::Callee } else { By::Caller };
        match event {
            Event::Bye { reason } => self.end_talk(legs, cx, Some(key), by, reason),
            Event::Lost { because, status } => {
                let words = because.unwrap_or_else(|| format!("{status}"));
                // What is lost is told so all the same: it may only be deaf to us.
                self.end_talk(legs, cx, None, By::System, Some(words));
            }
            Event::Offered { body } => self.offered(legs, cx, key, other, body),
            Event::OfferAnswered { status, phrase, body } => {
                self.offer_answered(legs, cx, key, other, status, &phrase, body)
            }
            Event::Withdrawn => self.withdrawn(legs, cx, key, other),
            Event::Acked { body } => self.acked(legs, cx, key, other, body),
            Event::Asked { asked } => self.asked(legs, cx, key, other, asked),
            Event::AskedAnswered { status, phrase, body } => {
                self.asked_answered(legs, cx, key, other, status, &phrase, body)
            }
            Event::Restated { body } => self.restated(legs, cx, key, other, &body),
            // A CANCEL that met its 200: the caller sends BYE (RFC 3261 15.1.2). The leg that answered first stays the winner.
            Event::Cancelled { .. } | Event::Progress { .. } | Event::Answered { .. } | Event::Refused { .. } => {}
            Event::Gone => self.end_talk(legs, cx, Some(key), by, None),
        }
    }

    /// News of a leg that lost and is on its way out.
    pub(super) fn leftover(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, event: Event) {
        match event {
            Event::Answered { .. } => {
                if let Some(leg) = legs.get_mut(key) {
                    leg.hang_up(cx, Some(super::ELSEWHERE));
                }
            }
            Event::Refused { .. } | Event::Lost { .. } | Event::Bye { .. } | Event::Gone => self.bury(legs, cx, key),
            Event::Offered { .. } | Event::Asked { .. } => {
                if let Some(leg) = legs.get_mut(key) {
                    leg.decline(cx, 481);
                }
            }
            Event::Progress { .. }
            | Event::Cancelled { .. }
            | Event::Acked { .. }
            | Event::OfferAnswered { .. }
            | Event::AskedAnswered { .. }
            | Event::Restated { .. }
            | Event::Withdrawn => {}
        }
    }

    /// A leg that talks with nobody but us offers anew: we answer, in these codecs. Whether something has changed.
    pub(super) fn answer_alone(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        key: LegKey,
        body: Option<&Bytes>,
        codecs: &[Format],
    ) -> bool {
        let Some(leg) = legs.get_mut(key) else { return false };
        let session = body.map(|body| Session::parse(body).map(|session| (session, body)));
        let (Some(end), Ok(offer)) = (leg.end.as_mut(), session.transpose()) else {
            leg.answer_offered(cx, 488, "Not Acceptable Here", None);
            return false;
        };
        // Asked for an offer, we say what stands; the answer comes with the ACK (RFC 3261 14.2).
        let Some((session, body)) = offer.filter(|(session, _)| !end.repeats(session)) else {
            let told = end.last_told().cloned();
            leg.answer_offered(cx, 200, "OK", told.as_ref());
            return false;
        };
        let source = leg.flow.remote.ip();
        let standing = end.standing();
        let answer = match end.may_follow(&session) {
            true => {
                self.at_desk(cx, |desk| end.heard(desk, &session, body, source).ok().and_then(|()| end.answer(codecs)))
            }
            false => None,
        };
        match answer {
            Some(answer) => {
                leg.answer_offered(cx, 200, "OK", Some(&answer));
                true
            }
            None => {
                end.restore(standing.0, standing.1);
                leg.answer_offered(cx, 488, "Not Acceptable Here", None);
                false
            }
        }
    }

    /// Takes a description in. Whether it can be used.
    pub(super) fn hear(&self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: &Bytes) -> bool {
        let Some(leg) = legs.get_mut(key) else { return false };
        let source = leg.flow.remote.ip();
        let Some(end) = leg.end.as_mut() else { return false };
        let Some(session) = Session::parse(body).ok().filter(|session| end.answers(session)) else { return false };
        self.at_desk(cx, |desk| end.heard(desk, &session, body, source)).is_ok()
    }

    /// Whoever answered by itself hears a tone, and the caller hears nothing of there before that.
    pub(super) fn begin_tone(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey) {
        let State::Connected(connected) = &mut self.state else { return };
        let voice = legs.get(key).and_then(|leg| leg.end.as_ref()?.voice());
        let caller = legs.get(self.a).and_then(|leg| leg.end.as_ref());
        let (Some(voice), Some(caller)) = (voice, caller) else { return };
        let until = cx.now.mono + LONGEST_TONE;
        connected.tone = Some((voice.port, until));
        cx.switch.arm_call(until, self.key);
        let mut commands = Vec::new();
        caller.mute(&mut commands);
        let (port, codec, payload_type) = (voice.port, voice.codec, voice.payload_type);
        commands.push(Command::Play { port, sounds: vec![BEEP.into()], codec, payload_type, repeat: false });
        commands.into_iter().for_each(|command| cx.switch.media(self.worker, command));
    }

    /// A sound was played to its end; it may have been that tone.
    pub(super) fn tone_played(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, port: Port) {
        let State::Connected(connected) = &mut self.state else { return };
        if connected.tone.take_if(|tone| tone.0 == port).is_none() {
            return;
        }
        let b = connected.b;
        let Some([a, b]) = legs.get_disjoint_mut([self.a, b]) else { return };
        let (Some(a), Some(b)) = (a.end.as_mut(), b.end.as_mut()) else { return };
        let mut commands = Vec::new();
        bridge::link(&mut commands, a, b, true);
        commands.into_iter().for_each(|command| cx.switch.media(self.worker, command));
    }

    /// Its end may have gone unreported.
    pub(super) fn tone_due(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Connected(connected) = &self.state else { return };
        if let Some((port, until)) = connected.tone
            && until <= cx.now.mono
        {
            self.tone_played(legs, cx, port);
        }
    }

    /// The call is over; legs say their last words.
    pub(super) fn while_closing(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, event: Event) {
        self.leftover(legs, cx, key, event);
    }

    /// One side offers (or, without a body, asks the other to offer).
    fn offered(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, other: LegKey, body: Option<Bytes>) {
        let Some([from, to]) = legs.get_disjoint_mut([key, other]) else { return };
        let State::Connected(connected) = &mut self.state else { return };
        if connected.standing.is_some() || !to.may_offer() {
            return from.answer_offered(cx, 491, "Request Pending", None);
        }
        let (Some(mine), Some(theirs)) = (from.end.as_mut(), to.end.as_mut()) else {
            // SDP passes untouched.
            connected.standing = Some(Box::new(Standing::plain(body.is_none())));
            return to.offer(cx, body.as_ref());
        };
        let (offerer_end, other_end) = (mine.standing(), theirs.standing());
        let standing = Box::new(Standing { offerer_end, other_end, late: body.is_none() });
        let Some(body) = body else {
            connected.standing = Some(standing);
            return to.offer(cx, None);
        };
        let Ok(session) = Session::parse(&body) else {
            return from.answer_offered(cx, 488, "Not Acceptable Here", None);
        };
        if !mine.may_follow(&session) {
            return from.answer_offered(cx, 488, "Not Acceptable Here", None);
        }
        if mine.repeats(&session) {
            // A session refresh (RFC 4028 7.4): nothing changes, so the other side is not troubled.
            let told = mine.last_told().cloned();
            return from.answer_offered(cx, 200, "OK", told.as_ref());
        }
        let (source, keep) = (from.flow.remote.ip(), self.keep());
        let passed = self.at_desk(cx, |desk| {
            mine.heard(desk, &session, &body, source)?;
            bridge::pass(desk, &session, theirs, keep, false)
        });
        let State::Connected(connected) = &mut self.state else { return };
        match passed {
            Ok(offer) => {
                connected.standing = Some(standing);
                to.offer(cx, Some(&offer));
            }
            Err(bridge::NoPort) => {
                mine.restore(standing.offerer_end.0, standing.offerer_end.1);
                from.answer_offered(cx, 503, "Service Unavailable", None);
            }
        }
    }

    /// The other side answered an offer that we passed to it.
    #[allow(clippy::too_many_arguments)]
    fn offer_answered(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        key: LegKey,
        other: LegKey,
        status: u16,
        phrase: &str,
        body: Option<Bytes>,
    ) {
        let Some([answerer, offerer]) = legs.get_disjoint_mut([key, other]) else { return };
        let State::Connected(connected) = &mut self.state else { return };
        if std::mem::take(&mut connected.recoding) {
            return self.recoded(legs, cx, key, other, status, body);
        }
        let Some(standing) = connected.standing.take() else {
            // The offer was withdrawn, and the answer crossed that: the peer has agreed to what nobody wants any more.
            let told = answerer.end.as_ref().and_then(|e| e.last_told()).cloned();
            answerer.ack(cx, told.as_ref());
            if (200..300).contains(&status) {
                answerer.restate(cx);
            }
            return;
        };
        if !(200..300).contains(&status) {
            if let (Some(mine), Some(theirs)) = (offerer.end.as_mut(), answerer.end.as_mut()) {
                mine.restore(standing.offerer_end.0, standing.offerer_end.1);
                theirs.restore(standing.other_end.0, standing.other_end.1);
            }
            return offerer.answer_offered(cx, status, phrase, None);
        }
        let late = standing.late;
        let mut spare = None;
        if late {
            // The 2xx holds an offer; its ACK waits for the one of the offerer.
            connected.standing = Some(standing);
        } else {
            answerer.ack(cx, None);
            spare = Some(standing);
        }
        let (Some(mine), Some(theirs)) = (offerer.end.as_mut(), answerer.end.as_mut()) else {
            offerer.answer_offered(cx, 200, "OK", body.as_ref());
            let held = held_plain(answerer.last_told(), body.as_deref());
            return self.set_held(legs, cx, held);
        };
        let (source, keep) = (answerer.flow.remote.ip(), self.keep());
        let passed =
            body.as_ref().and_then(|body| Session::parse(body).ok().map(|s| (s, body))).map(|(session, body)| {
                self.at_desk(cx, |desk| {
                    theirs.heard(desk, &session, body, source)?;
                    let answer = bridge::pass(desk, &session, mine, keep, !late)?;
                    if !late {
                        bridge::link(desk.commands, mine, theirs, true);
                    }
                    Ok::<_, bridge::NoPort>(answer)
                })
            });
        let refused = match passed {
            Some(Ok(answer)) => {
                offerer.answer_offered(cx, 200, "OK", Some(&answer));
                None
            }
            Some(Err(bridge::NoPort)) => Some(503),
            None => Some(488),
        };
        if let Some(status) = refused {
            // Nothing has moved: both sides go on as before, and the one that agreed to the offer is told so.
            answerer.ack(cx, None);
            let State::Connected(connected) = &mut self.state else { return };
            let standing = connected.standing.take().or(spare);
            if let (Some(standing), Some(mine), Some(theirs)) = (standing, offerer.end.as_mut(), answerer.end.as_mut())
            {
                mine.restore(standing.offerer_end.0, standing.offerer_end.1);
                theirs.restore(standing.other_end.0, standing.other_end.1);
            }
            answerer.restate(cx);
            return offerer.answer_offered(cx, status, crate::sip::phrase(status), None);
        }
        if !late {
            self.note_hold(legs, cx);
        }
    }

    /// Whoever was answered by us first, and by somebody with another codec now, is offered that one: we do not translate.
    pub(super) fn recode(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Connected(connected) = &self.state else { return };
        let Some([caller, leg]) = legs.get_disjoint_mut([self.a, connected.b]) else { return };
        let (Some(a), Some(b)) = (caller.end.as_mut(), leg.end.as_ref()) else { return };
        let Some(theirs) = b.last_heard().filter(|_| !a.agrees(b)) else { return };
        let offer = self.at_desk(cx, |desk| bridge::pass(desk, &theirs, a, None, false));
        let State::Connected(connected) = &mut self.state else { return };
        match offer {
            Ok(offer) if caller.may_offer() => {
                connected.recoding = true;
                caller.offer(cx, Some(&offer));
            }
            Ok(_) | Err(bridge::NoPort) => self.no_codec(legs, cx),
        }
    }

    /// The caller's answer to that offer.
    fn recoded(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        key: LegKey,
        other: LegKey,
        status: u16,
        body: Option<Bytes>,
    ) {
        match status {
            200..=299 => {
                if let Some(caller) = legs.get_mut(key) {
                    caller.ack(cx, None);
                }
                match body {
                    Some(body) => self.restated(legs, cx, key, other, &body),
                    None => self.no_codec(legs, cx),
                }
            }
            // The caller offers anew himself, and what he offers goes to the other side.
            491 => {}
            _ => self.no_codec(legs, cx),
        }
    }

    fn no_codec(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        self.end_talk(legs, cx, None, By::System, Some("no codec in common".to_owned()));
    }

    /// One side cancelled its re-INVITE.
    fn withdrawn(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, other: LegKey) {
        let Some([from, to]) = legs.get_disjoint_mut([key, other]) else { return };
        let State::Connected(connected) = &mut self.state else { return };
        let Some(standing) = connected.standing.take() else { return };
        to.withdraw(cx);
        if let (Some(mine), Some(theirs)) = (from.end.as_mut(), to.end.as_mut()) {
            mine.restore(standing.offerer_end.0, standing.offerer_end.1);
            theirs.restore(standing.other_end.0, standing.other_end.1);
        }
    }

    /// An ACK arrived. If our 2xx held the other side's offer, the ACK holds the answer for it.
    fn acked(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, other: LegKey, body: Option<Bytes>) {
        let Some([from, to]) = legs.get_disjoint_mut([key, other]) else { return };
        if !to.owes_ack() {
            return;
        }
        let State::Connected(connected) = &mut self.state else { return };
        connected.standing = None;
        let first = self.recording.is_none();
        let (Some(mine), Some(theirs)) = (from.end.as_mut(), to.end.as_mut()) else {
            return to.ack(cx, body.as_ref());
        };
        let (source, keep) = (from.flow.remote.ip(), self.keep());
        let session = body.as_ref().and_then(|body| Session::parse(body).ok().map(|s| (s, body)));
        let answer = session.and_then(|(session, body)| {
            self.at_desk(cx, |desk| {
                mine.heard(desk, &session, body, source)?;
                let answer = bridge::pass(desk, &session, theirs, keep, true)?;
                bridge::link(desk.commands, mine, theirs, true);
                Ok::<_, bridge::NoPort>(answer)
            })
            .ok()
        });
        to.ack(cx, answer.as_ref());
        if answer.is_none() {
            return self.end_talk(legs, cx, None, By::System, Some("no answer to a late offer".to_owned()));
        }
        if first && self.plan.record {
            self.begin_recording(legs, cx);
        }
        self.note_hold(legs, cx);
    }

    /// INFO and the like pass to the other side.
    fn asked(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, other: LegKey, asked: Asked) {
        let Some([from, to]) = legs.get_disjoint_mut([key, other]) else { return };
        if !to.ask(cx, asked) {
            from.decline(cx, 481);
        }
    }

    /// The other side answered; what waited behind that goes to it now.
    #[allow(clippy::too_many_arguments)]
    fn asked_answered(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        key: LegKey,
        other: LegKey,
        status: u16,
        phrase: &str,
        body: Option<(String, Bytes)>,
    ) {
        let Some(leg) = legs.get_mut(other) else { return };
        if let Some(asked) = leg.answer_asked(cx, status, phrase, body.as_ref()) {
            self.asked(legs, cx, other, key, asked);
        }
    }

    /// One side answered a refresh of ours with something new: its packets may come from elsewhere, or by other numbers.
    fn restated(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, other: LegKey, body: &Bytes) {
        let Some([from, to]) = legs.get_disjoint_mut([key, other]) else { return };
        let source = from.flow.remote.ip();
        let (Some(mine), Some(theirs)) = (from.end.as_mut(), to.end.as_mut()) else { return };
        let Ok(session) = Session::parse(body) else { return };
        if mine.repeats(&session) || !mine.answers(&session) {
            return;
        }
        // Without a port for it nothing has changed either.
        let _ = self.at_desk(cx, |desk| {
            mine.heard(desk, &session, body, source)?;
            bridge::link(desk.commands, mine, theirs, true);
            Ok::<_, bridge::NoPort>(())
        });
        self.note_hold(legs, cx);
    }

    pub(super) fn note_hold(&mut self, legs: &Legs, cx: &mut Cx<'_>) {
        let State::Connected(connected) = &self.state else { return };
        let heard = |key| legs.get(key).and_then(|l: &super::Leg| l.end.as_ref()).and_then(|e| e.last_heard());
        if let (Some(a), Some(b)) = (heard(self.a), heard(connected.b)) {
            self.set_held(legs, cx, bridge::held(&a, &b));
        }
    }

    fn set_held(&mut self, legs: &Legs, cx: &mut Cx<'_>, held: bool) {
        let State::Connected(connected) = &mut self.state else { return };
        if connected.held != held {
            connected.held = held;
            match held {
                true => self.journey.enter(cx.now, PhaseKind::Hold, "held"),
                false => self.journey.enter(cx.now, PhaseKind::Talk, "resumed"),
            }
            self.show(legs, cx);
        }
    }

    /// Both sides are recorded from now on.
    pub(super) fn begin_recording(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Connected(connected) = &self.state else { return };
        let Some([a, b]) = legs.get_disjoint_mut([self.a, connected.b]) else { return };
        let (Some(left), Some(right)) = (a.end.as_mut(), b.end.as_mut()) else { return };
        let id = mint(cx.now.wall, cx.rng);
        let mut commands = Vec::new();
        left.tap(&mut commands, id, Side::Left);
        right.tap(&mut commands, id, Side::Right);
        if commands.is_empty() {
            return;
        }
        commands.into_iter().for_each(|c| cx.switch.media(self.worker, c));
        let from = self.journey.stamp(cx.now.mono);
        self.recording_id = Some(id);
        cx.switch.recording(self.key, id, true);
        self.recording = Some(Box::new(RecordingEntry {
            id: id.to_string(),
            from,
            until: None,
            gaps_ms: 0,
            complete: false,
            undecoded: Vec::new(),
            deleted_at: None,
        }));
    }

    /// The talk is over: `gone` has said so itself, the others are told.
    pub(super) fn end_talk(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        gone: Option<LegKey>,
        by: By,
        reason: Option<String>,
    ) {
        let State::Connected(connected) = &self.state else { return };
        let b = connected.b;
        self.end = Some(End { by, sip: None, reason: reason.clone(), cause: Cause::Nobody });
        if let Some(leg) = legs.get(b) {
            self.journey.over(cx.now, leg.number, LegResult::Answered, reason.clone());
        }
        for (key, wrap_up) in [(self.a, Duration::ZERO), (b, self.wrap_up)] {
            if let Some(extension) = legs.get(key).and_then(Leg::extension) {
                cx.switch.idle(cx.now.mono, extension, wrap_up);
            }
        }
        let told = match by {
            By::System => reason.map(|words| format!("SIP;cause=480;text=\"{}\"", words.replace(['"', '\\'], ""))),
            By::Caller | By::Callee => reason,
        };
        for key in [self.a, b] {
            if Some(key) != gone
                && let Some(leg) = legs.get_mut(key)
            {
                leg.hang_up(cx, told.as_deref());
            }
        }
        self.close(legs, cx);
    }

    /// The caller gets a final answer, and the call is over.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn finish_unanswered(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        status: u16,
        phrase: &str,
        reason: Option<String>,
        by: By,
        words: Option<String>,
        cause: Cause,
    ) {
        if let Some(leg) = legs.get_mut(self.a) {
            match leg.is_up() {
                // A prompt answered the call; it ends like one.
                true => {
                    let own = || format!("SIP;cause={status};text=\"{}\"", phrase.replace(['"', '\\'], ""));
                    leg.hang_up(cx, Some(&reason.clone().unwrap_or_else(own)));
                }
                false => leg.refuse(cx, status, phrase, reason.as_deref()),
            }
        }
        self.end = Some(End { by, sip: Some(status), reason: words, cause });
        self.close(legs, cx);
    }

    pub(super) fn close(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        self.leave_line(cx);
        let recording = self.recording_id.filter(|_| self.recording.as_ref().is_some_and(|r| r.until.is_none()));
        // The end of the call is now, whenever its last words are said.
        let record_at = cx.now;
        self.ended(record_at);
        for key in self.alive.clone() {
            self.bury(legs, cx, key);
        }
        let until = cx.now.mono + RECORDER_PATIENCE;
        self.state = State::Closing { until, recorded: false };
        match recording {
            Some(recording) => {
                cx.switch.media(self.worker, Command::Finish { recording });
                cx.switch.arm_call(until, self.key);
            }
            None => self.recorded(cx, None),
        }
        self.show(legs, cx);
    }
}

impl Standing {
    fn plain(late: bool) -> Standing {
        Standing { offerer_end: (None, None), other_end: (None, None), late }
    }
}

fn held_plain(offer: Option<&[u8]>, answer: Option<&[u8]>) -> bool {
    let read = |body: Option<&[u8]>| body.and_then(|b| Session::parse(b).ok());
    match (read(offer), read(answer)) {
        (Some(offer), Some(answer)) => bridge::held(&offer, &answer),
        _ => false,
    }
}

fn mint(at: crate::base::Wall, rng: &mut Rng) -> RecordingId {
    RecordingId(super::record::RecordId::mint(at, rng).0)
}

/// Methods that pass from one side to the other within a call.
pub(super) fn passes(method: Method) -> bool {
    matches!(method, Method::Info | Method::Message)
}
