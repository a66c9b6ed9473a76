//! Who rings, and who wins: stages in order, a stage's branches at once or one after the other, one winner, losers told so.

use std::time::Duration;

use bytes::Bytes;

use super::bridge::{self, Desk, NoPort};
use super::journey::LegResult;
use super::leg::{Dial, Event, Leg, Peer};
use super::record::{By, Direction, PhaseKind};
use super::{Call, Cause, Connected, Cx, ELSEWHERE, Final, LegKey, Legs, NO_PORT, Place, Ringing, State};
use crate::directory::{E164, Target};
use crate::policy::{self, Branch, Fork, Kind, MAX_STAGES};
use crate::sdp::Session;
use crate::sip::phrase;

/// A caller who waits gets a provisional answer at least so often, or proxies on the way give up (RFC 3261 13.3.1.1).
const REMIND: Duration = Duration::from_secs(60);
/// Legs that ring at once in one call at most (RFC 5393 has 60 for a proxy's fork).
const MAX_FORK: usize = 60;

impl Call {
    /// Goes on to the next stage that has somebody to ring; ends the call when there is none.
    pub(super) fn next_stage(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        loop {
            let State::Ringing(ringing) = &mut self.state else { return };
            // A stage that was skipped is no stage that was tried.
            ringing.tried.extend(ringing.stage.take().map(|done| done.target));
            ringing.stage_ends = None;
            let Some(stage) = ringing.stages.pop_front() else { return self.nobody(legs, cx) };
            ringing.stage_ends = Some(cx.now.mono + stage.wait.max(stage.ring));
            ringing.stage = Some(stage);
            if self.next_round(legs, cx) {
                return;
            }
            if let State::Ringing(ringing) = &mut self.state {
                ringing.stage = None;
            }
        }
    }

    /// One more round of the present stage. Whether anybody rings now (or the call is over).
    fn next_round(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) -> bool {
        let State::Ringing(ringing) = &mut self.state else { return true };
        if ringing.remind.is_none() {
            ringing.remind = Some(cx.now.mono + REMIND);
            cx.switch.arm_call(cx.now.mono + REMIND, self.key);
        }
        let Some(stage) = &ringing.stage else { return false };
        let round_ends = (cx.now.mono + stage.ring).min(ringing.stage_ends.unwrap_or(cx.now.mono + stage.ring));
        let moment = policy::Moment {
            ask: &self.ask,
            directory: cx.directory,
            live: &*cx.switch,
            at: cx.now.wall,
            tried: &ringing.tried,
            spent: &ringing.spent,
        };
        match policy::fork(stage, &moment, &mut self.plan.why) {
            Fork::Through(stages) => {
                ringing.tried.push(stage.target.clone());
                let room = MAX_STAGES.saturating_sub(ringing.stages.len());
                stages.into_iter().take(room).rev().for_each(|stage| ringing.stages.push_front(stage));
                false
            }
            Fork::Refuse(status) => {
                self.refuse(legs, cx, status, crate::sip::phrase(status), None, Cause::Refused);
                true
            }
            Fork::Skip(status) => {
                ringing.note(Final { status, phrase: crate::sip::phrase(status).to_owned(), reason: None });
                false
            }
            Fork::Serial(branches) => {
                ringing.serial = branches.into();
                ringing.round_ends = Some(round_ends);
                cx.switch.arm_call(round_ends, self.key);
                self.next_branch(legs, cx)
            }
            Fork::Parallel(branches) => {
                ringing.round_ends = Some(round_ends);
                cx.switch.arm_call(round_ends, self.key);
                let mut any = false;
                for branch in &branches {
                    for place in cx.switch.places(branch) {
                        any |= self.dial(legs, cx, branch, place);
                    }
                }
                any || matches!(self.state, State::Closing { .. })
            }
        }
    }

    /// The next address of the present branch, else the next branch.
    fn next_branch(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) -> bool {
        loop {
            let State::Ringing(ringing) = &mut self.state else { return true };
            let Some(branch) = ringing.serial.front().cloned() else { return false };
            if let Some(place) = ringing.places.pop_front() {
                if ringing.places.is_empty() {
                    ringing.serial.pop_front();
                }
                if self.dial(legs, cx, &branch, place) {
                    return true;
                }
                continue;
            }
            let places = cx.switch.places(&branch);
            if places.is_empty() {
                ringing.serial.pop_front();
                self.plan.why.push(policy::Why::new(name(&branch), "skipped: it has no address that answers"));
            }
            ringing.places = places.into();
        }
    }

    fn dial(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, branch: &Branch, place: Place) -> bool {
        let State::Ringing(ringing) = &mut self.state else { return false };
        if ringing.legs.len() >= MAX_FORK {
            return false;
        }
        let (peer, shown) = match branch {
            Branch::Extension(number) => (Peer::Extension(number.clone()), None),
            Branch::Trunk { trunk, user, shown } => {
                (Peer::Trunk { trunk: trunk.clone(), number: user.as_str().into() }, *shown)
            }
        };
        if let Peer::Trunk { trunk, number } = &peer {
            if self.direction != Direction::In {
                self.trunk = Some(trunk.clone());
            }
            self.shown = shown.map(|n| n.to_string());
            if let Some(shown) = shown.filter(|_| self.direction == Direction::Out)
                && let Some(customer) = E164::read(number, cx.directory.node.country)
            {
                cx.switch.met(customer, shown);
            }
        }
        if let Some(diverted) = &mut self.identity.diverted {
            diverted.unanswered = self.first_ring.is_some();
        }
        let offer = match self.offer_for(legs, cx, &place) {
            Ok(offer) => offer,
            Err(NoPort) => {
                self.refuse(legs, cx, 503, "Service Unavailable", Some(NO_PORT.to_owned()), Cause::Fault);
                return false;
            }
        };
        let (end, body) = offer;
        let State::Ringing(ringing) = &mut self.state else { return false };
        let number = self.journey.leg(cx.now, peer.to_string());
        // The last address of the last trunk may take as long as SIP allows (Timer B): there is nobody to try instead.
        let impatient = !(ringing.places.is_empty() && ringing.serial.is_empty());
        let dial = Dial::new(cx, branch, place, &self.identity, self.max_forwards, body, impatient);
        let first_of_peer = !ringing.legs.iter().any(|k| legs.get(*k).is_some_and(|l| l.peer == peer));
        let call = self.key;
        let key = legs.insert_with_key(|key| Leg::uac(key, call, number, peer, dial, end, cx));
        let Some(leg) = legs.get_mut(key) else { return false };
        cx.switch.named(self.id, leg.call_id(), leg.peer.to_string().into());
        if first_of_peer {
            leg.occupies = true;
            cx.switch.occupy(&leg.peer, true);
        }
        ringing.legs.push(key);
        self.alive.push(key);
        leg.invite(cx);
        true
    }

    /// What a new leg is offered: the caller's offer through our ports of that leg.
    fn offer_for(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        place: &Place,
    ) -> Result<(Option<bridge::End>, Option<Bytes>), NoPort> {
        let Some(caller) = legs.get(self.a) else { return Ok((None, None)) };
        if !self.relay {
            return Ok((None, caller.offered().cloned()));
        }
        let mut end = bridge::End::new(cx.rng, place.media);
        let theirs = caller.end.as_ref().and_then(|e| e.last_heard());
        let Some(theirs) = theirs else { return Ok((Some(end), None)) };
        // Whoever is offered after another was answered gets only the codec in use.
        let in_use = caller.is_up().then(|| caller.end.as_ref()?.in_use()).flatten();
        let keep = in_use.as_ref().map(<[_; 2]>::as_slice).or(self.keep());
        let body = self.at_desk(cx, |desk| bridge::pass(desk, &theirs, &mut end, keep, false));
        match body {
            Ok(body) => Ok((Some(end), Some(body))),
            Err(NoPort) => {
                self.give_back(cx, end);
                Err(NoPort)
            }
        }
    }

    /// Runs something that opens ports or tells the media worker.
    pub fn at_desk<T>(&self, cx: &mut Cx<'_>, work: impl FnOnce(&mut Desk<'_>) -> T) -> T {
        let (now, key) = (cx.now.mono, self.key);
        let timeout = cx.directory.media.timeout;
        let mut commands = Vec::new();
        let switch = &mut *cx.switch;
        let mut take = || switch.take_port(now, key);
        let result = work(&mut Desk { take: &mut take, commands: &mut commands, timeout, now });
        commands.into_iter().for_each(|command| cx.switch.media(self.worker, command));
        result
    }

    /// The caller did something while others ring.
    pub(super) fn caller_while_ringing(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Cancelled { reason } => {
                let why = Some(reason.clone().unwrap_or_else(|| "the caller gave up".to_owned()));
                self.drop_legs(legs, cx, None, reason.as_deref(), LegResult::Cancelled);
                self.finish_unanswered(legs, cx, 487, "Request Terminated", reason, By::Caller, why, Cause::CallerLeft);
            }
            Event::Bye { reason } | Event::Lost { because: reason, .. } => {
                let why = Some(reason.unwrap_or_else(|| "the caller gave up".to_owned()));
                self.drop_legs(legs, cx, None, None, LegResult::Cancelled);
                self.finish_unanswered(legs, cx, 487, "Request Terminated", None, By::Caller, why, Cause::CallerLeft);
            }
            // Before the answer there is nothing to offer again, nobody to tell, and nothing to acknowledge.
            Event::Offered { .. } | Event::Asked { .. } => {
                if let Some(leg) = legs.get_mut(self.a) {
                    leg.decline(cx, 491);
                }
            }
            Event::Progress { .. }
            | Event::Answered { .. }
            | Event::Refused { .. }
            | Event::Acked { .. }
            | Event::OfferAnswered { .. }
            | Event::AskedAnswered { .. }
            | Event::Restated { .. }
            | Event::Withdrawn
            | Event::Gone => {}
        }
    }

    /// A ringing leg has news.
    pub(super) fn branch_while_ringing(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, event: Event) {
        match event {
            Event::Progress { status, body, early } => self.progress(legs, cx, key, status, body, early),
            Event::Answered { body, early } => self.answered(legs, cx, key, body, early),
            Event::Refused { status, phrase, reason, connected } => {
                self.branch_failed(legs, cx, key, Final { status, phrase, reason }, connected)
            }
            Event::Lost { because, status } => {
                let phrase = because.unwrap_or_else(|| "no response".to_owned());
                self.branch_failed(legs, cx, key, Final { status, phrase, reason: None }, false);
            }
            // A loser of an earlier round that is over now.
            Event::Gone => self.bury(legs, cx, key),
            // Requests within an early dialog: UPDATE and INFO have nobody to go to yet.
            Event::Offered { .. } | Event::Asked { .. } => {
                if let Some(leg) = legs.get_mut(key) {
                    leg.decline(cx, 491);
                }
            }
            Event::Cancelled { .. }
            | Event::Acked { .. }
            | Event::OfferAnswered { .. }
            | Event::AskedAnswered { .. }
            | Event::Restated { .. }
            | Event::Withdrawn
            | Event::Bye { .. } => {}
        }
    }

    fn progress(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, status: u16, body: Option<Bytes>, early: u8) {
        let State::Ringing(ringing) = &mut self.state else { return };
        if !ringing.legs.contains(&key) {
            return;
        }
        let alone = ringing.legs.len() == 1;
        if status == 180 || (status == 183 && body.is_some()) {
            if self.first_ring.is_none() {
                self.first_ring = Some(cx.now.mono);
            }
            let who = legs.get(key).map_or(String::new(), |l| l.peer.to_string());
            self.journey.enter(cx.now, PhaseKind::Ring, &format!("{who} rings"));
        }
        // Early media passes where one leg alone rings; of a fork the caller hears ringback, not whoever was quicker.
        let (variant, answer) = match body.filter(|_| alone) {
            Some(body) => match self.answer_from(legs, cx, key, &body, false) {
                Ok(answer) => (self.variant(legs, key, early), answer),
                Err(_) => (0, None),
            },
            None => (0, None),
        };
        if let Some(caller) = legs.get_mut(self.a) {
            caller.progress(cx, status, variant, answer.as_ref());
        }
    }

    /// Towards the caller every early dialog of a leg is an early dialog of its own (RFC 3261 12.1, 13.2.2.4): an answer in one
    /// never contradicts the answer in another.
    fn variant(&mut self, legs: &mut Legs, key: LegKey, early: u8) -> u8 {
        let State::Ringing(ringing) = &mut self.state else { return 0 };
        let Some(leg) = legs.get_mut(key) else { return 0 };
        leg.variant_of(early, &mut ringing.variants)
    }

    /// A leg's description as the caller's answer (or, late, offer), and the streams joined.
    fn answer_from(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        key: LegKey,
        body: &Bytes,
        expected: bool,
    ) -> Result<Option<Bytes>, AnswerFault> {
        if !self.relay {
            return Ok(Some(body.clone()));
        }
        let theirs = Session::parse(body).map_err(|_| AnswerFault::Unreadable)?;
        let Some([caller, leg]) = legs.get_disjoint_mut([self.a, key]) else { return Ok(None) };
        let source = leg.flow().remote.ip();
        let keep = self.keep();
        let (Some(a), Some(b)) = (caller.end.as_mut(), leg.end.as_mut()) else { return Ok(None) };
        if !b.answers(&theirs) {
            return Err(AnswerFault::Unreadable);
        }
        let answer = self.at_desk(cx, |desk| {
            b.heard(desk, &theirs, body, source)?;
            let answer = bridge::pass(desk, &theirs, a, keep, true)?;
            bridge::link(desk.commands, a, b, expected);
            Ok(answer)
        });
        answer.map(Some).map_err(|NoPort| AnswerFault::NoPort)
    }

    fn answered(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: Option<Bytes>, early: u8) {
        let State::Ringing(ringing) = &self.state else { return };
        if !ringing.legs.contains(&key) {
            // A loser that answered before our CANCEL reached it.
            if let Some(leg) = legs.get_mut(key) {
                leg.hang_up(cx, Some(ELSEWHERE));
            }
            return;
        }
        let late = legs.get(self.a).is_some_and(|a| a.offered_late());
        let answered_early = legs.get(key).and_then(|l| l.end.as_ref()).is_none_or(|e| e.last_heard().is_some());
        let answer = match body.as_ref().map(|b| self.answer_from(legs, cx, key, b, !late)).transpose() {
            Ok(answer) if answer.is_some() || answered_early => answer.flatten(),
            fault => {
                let fault = fault.err().unwrap_or(AnswerFault::Unreadable);
                if let Some(leg) = legs.get_mut(key) {
                    leg.hang_up(cx, Some("SIP;cause=488;text=\"Not Acceptable Here\""));
                }
                let last = match fault {
                    AnswerFault::Unreadable => Final::new(488, "Not Acceptable Here"),
                    AnswerFault::NoPort => Final::new(503, "Service Unavailable"),
                };
                return self.branch_failed(legs, cx, key, last, false);
            }
        };
        let variant = if answer.is_some() { self.variant(legs, key, early) } else { 0 };
        self.drop_legs(legs, cx, Some(key), Some(ELSEWHERE), LegResult::Elsewhere);
        let Some([caller, leg]) = legs.get_disjoint_mut([self.a, key]) else { return };
        // An answer to our offer is acknowledged at once; an offer waits for the caller's answer in its ACK.
        if !late {
            leg.ack(cx, None);
        }
        caller.accept(cx, variant, answer.as_ref());
        self.answered_by = Some(leg.peer.clone());
        if let Peer::Extension(number) = &leg.peer {
            self.branch = cx.directory.extension(number).and_then(|e| e.branch.clone());
        }
        if let Peer::Trunk { trunk: name, .. } = &leg.peer {
            let (name, flow) = (name.clone(), leg.flow());
            cx.switch.trunk_said(cx.now, &name, &flow, None);
        }
        self.journey.answered(leg.number);
        let who = leg.peer.to_string();
        let record = self.records();
        self.state = State::Connected(Connected { b: key, held: false, standing: None });
        self.journey.enter(cx.now, PhaseKind::Talk, &format!("{who} answered"));
        if record && !late {
            self.begin_recording(legs, cx);
        }
        self.show(legs, cx);
    }

    fn records(&self) -> bool {
        let State::Ringing(ringing) = &self.state else { return false };
        self.relay && ringing.stage.as_ref().and_then(|s| s.record).unwrap_or(self.plan.record)
    }

    fn branch_failed(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, last: Final, connected: bool) {
        let State::Ringing(ringing) = &mut self.state else { return };
        let was_ringing = ringing.legs.contains(&key);
        ringing.legs.retain(|k| *k != key);
        let Some(leg) = legs.get(key) else { return };
        let (peer, number, flow) = (leg.peer.clone(), leg.number, leg.flow());
        let status = last.status;
        let why = last.reason.clone().unwrap_or_else(|| format!("{} {}", last.status, last.phrase));
        let last = last.for_callers();
        self.journey.over(cx.now, number, LegResult::of(status), Some(why.clone()));
        self.bury(legs, cx, key);
        let State::Ringing(ringing) = &mut self.state else { return };
        if !was_ringing {
            return;
        }
        let unable =
            matches!(peer, Peer::Trunk { .. }) && matches!(status, 401 | 407 | 408 | 500 | 502..=504) && !connected;
        // A carrier that cannot take the call is no word of whoever was called.
        let noted = if unable { Final { phrase: phrase(503).to_owned(), status: 503, ..last } } else { last };
        ringing.note(noted);
        match &peer {
            Peer::Extension(number) => {
                // Whoever rejected is not rung again in this call, nor is who cannot be reached at any place: the next round
                // would only get the same answer at once.
                let rejected = matches!(status, 486 | 600 | 603);
                let last_place = !ringing.legs.iter().any(|k| legs.get(*k).is_some_and(|l| l.peer == peer));
                if (rejected || last_place) && !ringing.spent.contains(number) {
                    ringing.spent.push(number.clone());
                }
            }
            Peer::Trunk { trunk: name, .. } => {
                // The carrier could not take the call at all: its next address, then the next trunk. Any other answer is
                // the answer of who was called.
                cx.switch.trunk_said(cx.now, name, &flow, unable.then_some(why.as_str()));
                if unable {
                    self.plan.why.push(policy::Why::new(format!("trunk {name}"), format!("next tried: {why}")));
                    if self.next_branch(legs, cx) {
                        return;
                    }
                } else {
                    ringing.serial.clear();
                    ringing.places.clear();
                }
            }
        }
        let State::Ringing(ringing) = &mut self.state else { return };
        if ringing.legs.is_empty() {
            self.round_over(legs, cx);
        }
    }

    fn round_over(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        ringing.round_ends = None;
        let more = ringing.stage.as_ref().is_some_and(|s| !s.wait.is_zero() && matches!(s.target, Target::Queue(_)))
            && ringing.stage_ends.is_some_and(|ends| ends > cx.now.mono);
        if !(more && self.next_round(legs, cx)) {
            self.next_stage(legs, cx);
        }
    }

    /// Patience of the round came to its end, or the caller has heard nothing for a minute.
    pub(super) fn patience(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        if ringing.remind.is_some_and(|at| at <= cx.now.mono) {
            ringing.remind = Some(cx.now.mono + REMIND);
            cx.switch.arm_call(cx.now.mono + REMIND, self.key);
            let status = if self.first_ring.is_some() { 180 } else { 183 };
            if let Some(caller) = legs.get_mut(self.a) {
                caller.progress(cx, status, 0, None);
            }
        }
        if ringing.round_ends.is_none_or(|ends| ends > cx.now.mono) {
            return;
        }
        ringing.serial.clear();
        ringing.places.clear();
        ringing.note(Final::new(480, "Temporarily Unavailable"));
        self.drop_legs(legs, cx, None, None, LegResult::NoAnswer);
        self.round_over(legs, cx);
    }

    /// Cancels what rings, but for `keep`.
    fn drop_legs(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        keep: Option<LegKey>,
        reason: Option<&str>,
        result: LegResult,
    ) {
        let State::Ringing(ringing) = &mut self.state else { return };
        ringing.serial.clear();
        ringing.places.clear();
        for key in std::mem::take(&mut ringing.legs) {
            if Some(key) == keep {
                continue;
            }
            let Some(leg) = legs.get_mut(key) else { continue };
            self.journey.over(cx.now, leg.number, result, reason.map(str::to_owned));
            leg.hang_up(cx, reason);
            self.bury(legs, cx, key);
        }
    }

    /// Every stage is used up.
    fn nobody(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        let best = ringing.best.take();
        let incoming = self.direction == Direction::In || self.plan.kind == Kind::In;
        let own = Final::new(480, "Temporarily Unavailable");
        let last = if incoming { own } else { best.unwrap_or(own) };
        let cause = if last.status == 503 { Cause::Fault } else { Cause::Nobody };
        self.refuse(legs, cx, last.status, &last.phrase, last.reason, cause);
    }

    /// The call ends without an answer, by us.
    pub(super) fn refuse(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        status: u16,
        phrase: &str,
        reason: Option<String>,
        cause: Cause,
    ) {
        self.drop_legs(legs, cx, None, None, LegResult::Cancelled);
        let by = if cause == Cause::Nobody { By::Callee } else { By::System };
        let words = Some(reason.clone().unwrap_or_else(|| format!("{status} {phrase}")));
        self.finish_unanswered(legs, cx, status, phrase, reason, by, words, cause);
    }
}

#[derive(Clone, Copy, Debug)]
enum AnswerFault {
    Unreadable,
    NoPort,
}

impl Ringing {
    /// Keeps the better of two final answers (RFC 3261 16.7, point 6): a 6xx first, else the lowest class; within a class what tells
    /// the caller more than that nobody was there.
    fn note(&mut self, last: Final) {
        let rank = |f: &Final| match f.status {
            600.. => 0,
            486 => 1,
            400..=499 if !matches!(f.status, 401 | 407 | 408 | 480 | 487) => 2,
            400..=499 => 3,
            _ => 4,
        };
        if self.best.as_ref().is_none_or(|best| rank(&last) < rank(best)) {
            self.best = Some(last);
        }
    }
}

impl Final {
    pub(super) fn new(status: u16, phrase: &str) -> Final {
        Final { status, phrase: phrase.to_owned(), reason: None }
    }

    /// As a caller may hear it: a redirection or a challenge was meant for us.
    fn for_callers(self) -> Final {
        match self.status {
            300..=399 => Final::new(480, "Temporarily Unavailable"),
            401 | 407 => Final::new(503, "Service Unavailable"),
            _ => self,
        }
    }
}

fn name(branch: &Branch) -> String {
    match branch {
        Branch::Extension(number) => format!("extension:{number}"),
        Branch::Trunk { trunk, .. } => format!("trunk {trunk}"),
    }
}
