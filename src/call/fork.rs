//! Who rings, and who wins: stages in order, a stage's branches at once or later, one winner, losers told so.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::bridge::{self, Desk, NoPort};
use super::journey::LegResult;
use super::leg::{Dial, Diverted, Event, Leg, Peer};
use super::record::{By, Direction, PhaseKind};
use super::{Call, Cause, Connected, Cx, ELSEWHERE, Final, LegKey, Legs, NO_PORT, Place, Ringing, State};
use crate::base::Instant;
use crate::directory::vendor::{self, AutoAnswer};
use crate::directory::{Directory, E164, Queue};
use crate::policy::{self, Branch, Fork, Kind, MAX_STAGES, Stage, Way};
use crate::sdp::Session;
use crate::sdp::session::Format;
use crate::sip::{Flow, phrase};

/// A caller who waits gets a provisional answer at least so often, or proxies on the way give up (RFC 3261 13.3.1.1).
const REMIND: Duration = Duration::from_secs(60);
/// A step that joins another at once is still one that joins it.
const SOON: Duration = Duration::from_millis(1);
/// Legs that ring at once in one call at most (RFC 5393 has 60 for a proxy's fork).
const MAX_FORK: usize = 60;

/// A branch of the present round.
#[derive(Debug)]
pub(super) struct Rung {
    pub(super) branch: Branch,
    pub(super) step: Rings,
    /// It refused the codec in use, and is offered all that the caller speaks.
    pub(super) anew: bool,
}

#[derive(Debug)]
pub(super) enum Rings {
    /// It begins then, or as soon as nobody else rings.
    Later { begins: Instant, ring: Duration },
    /// It rings. Ways and places are still to be tried if these legs cannot take the call at all.
    Now { until: Instant, ways: VecDeque<Way>, way: Option<Way>, places: VecDeque<Place>, legs: SmallVec<[LegKey; 2]> },
    /// Nothing more will come of it.
    Over,
}

/// A step that joins the present stage later.
#[derive(Debug)]
pub(super) struct Later {
    begins: Instant,
    stage: Stage,
}

impl Call {
    /// Goes on to the next stage that has somebody to ring; ends the call when there is none.
    pub(super) fn next_stage(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        loop {
            self.leave_line(cx);
            self.fall_silent(cx);
            let State::Ringing(ringing) = &mut self.state else { return };
            // A stage that was skipped is no stage that was tried.
            ringing.tried.extend(ringing.stage.take().map(|done| done.target));
            ringing.stage_ends = None;
            ringing.rungs.clear();
            // Those that were to join and have not come now: nobody's turn is lost because a queue's wait was shorter.
            ringing.later.sort_by_key(|later| later.begins);
            let first = ringing.later.first().map(|later| later.begins);
            for (i, Later { begins, mut stage }) in ringing.later.drain(..).enumerate().rev() {
                let behind = first.map_or(Duration::ZERO, |first| begins.since(first)).max(SOON);
                stage.after = if i == 0 { Duration::ZERO } else { behind };
                ringing.stages.push_front(stage);
            }
            let Some(stage) = ringing.stages.pop_front() else { return self.nobody(legs, cx) };
            if ringing.remind.is_none() {
                ringing.remind = Some(cx.now.mono + REMIND);
                cx.switch.arm_call(cx.now.mono + REMIND, self.key);
            }
            let waits = Some(stage.wait).filter(|wait| !wait.is_zero());
            ringing.stage_ends = waits.map(|wait| cx.now.mono + wait.max(stage.ring));
            ringing.stage = Some(stage.clone());
            let queued = self.queued(cx);
            let rings = !queued && matches!(&self.state, State::Ringing(ringing) if ringing.stage.is_some());
            let through = if rings { self.ring(legs, cx, &stage) } else { Vec::new() };
            let State::Ringing(ringing) = &mut self.state else { return };
            if ringing.asking.is_some() {
                return;
            }
            // Those behind it that say `after` join it, or the first of what it leads to.
            let behind = ringing.stages.iter().take_while(|stage| !stage.after.is_zero()).count();
            let joined: Vec<Stage> = ringing.stages.drain(..behind).collect();
            if !through.is_empty() {
                ringing.tried.push(stage.target);
                ringing.stage = None;
                let room = MAX_STAGES.saturating_sub(ringing.stages.len() + joined.len());
                let mut through = through.into_iter().take(room);
                let first = through.next();
                let next: Vec<Stage> = first.into_iter().chain(joined).chain(through).collect();
                next.into_iter().rev().for_each(|stage| ringing.stages.push_front(stage));
                continue;
            }
            for stage in joined {
                let begins = cx.now.mono + stage.after;
                cx.switch.arm_call(begins, self.key);
                ringing.later.push(Later { begins, stage });
            }
            if queued {
                return self.begin_music(legs, cx);
            }
            self.hurry(legs, cx);
            if !self.idle() {
                return;
            }
            if let State::Ringing(ringing) = &mut self.state {
                ringing.stage = None;
            }
        }
    }

    /// Whether it still looks for somebody, and there is nobody left to ring in this stage.
    pub(super) fn idle(&self) -> bool {
        let State::Ringing(ringing) = &self.state else { return false };
        let over = ringing.rungs.iter().all(|rung| matches!(rung.step, Rings::Over));
        let waits = ringing.asking.is_some() || ringing.listens();
        over && !waits && (ringing.later.is_empty() || ringing.ticket.is_some())
    }

    /// Asks policy what a stage comes to now. What the trail says already is not said again.
    pub(super) fn fork(&mut self, cx: &mut Cx<'_>, stage: &Stage) -> Fork {
        let State::Ringing(ringing) = &self.state else { return Fork::Skip(480) };
        let moment = policy::Moment {
            ask: &self.ask,
            directory: cx.directory,
            live: &*cx.switch,
            at: cx.now.wall,
            tried: &ringing.tried,
            spent: &ringing.spent,
            rung: &ringing.rung,
        };
        let mut why = Vec::new();
        let fork = policy::fork(stage, &moment, &mut why);
        why.retain(|why| !self.plan.why.contains(why));
        self.plan.why.append(&mut why);
        fork
    }

    /// The branches of a stage begin, at once or later; or the stages that it leads to.
    fn ring(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, stage: &Stage) -> Vec<Stage> {
        let fork = self.fork(cx, stage);
        let State::Ringing(ringing) = &mut self.state else { return Vec::new() };
        match fork {
            Fork::Refuse(status) if ringing.legs().next().is_some() => {
                let because = "skipped: a call is not refused while somebody rings";
                self.plan.why.push(policy::Why::new(stage.target.to_string(), because));
                ringing.note(Final::new(status, phrase(status)));
            }
            Fork::Refuse(status) => self.refuse(legs, cx, status, phrase(status), None, Cause::Refused),
            Fork::Skip(status) => ringing.note(Final::new(status, phrase(status))),
            Fork::Ring(branches) => self.begin(legs, cx, branches, stage.ring),
            Fork::Play(name) => self.begin_prompt(legs, cx, &name, stage.answer),
            Fork::Page(number) if ringing.rungs.is_empty() && ringing.stage.as_ref() == Some(stage) => {
                self.begin_page(legs, cx, &number);
            }
            Fork::Page(number) => {
                let because = "skipped: it is not heard while another step rings";
                self.plan.why.push(policy::Why::new(format!("page:{number}"), because));
            }
            Fork::Through(stages) => return stages,
            Fork::Ask(hook) if ringing.rungs.is_empty() && ringing.stage.as_ref() == Some(stage) => {
                self.ask_hook(legs, cx, &hook);
            }
            Fork::Ask(hook) => {
                let because = "skipped: it is not asked while another step rings";
                self.plan.why.push(policy::Why::new(format!("hook:{hook}"), because));
            }
            // A queue that joins another step has nobody wait in it.
            Fork::Wait => {}
        }
        Vec::new()
    }

    /// These branches begin, at once or later, and ring so long.
    pub(super) fn begin(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, branches: Vec<Branch>, ring: Duration) {
        let unasked = self.cannot_ask(legs);
        let State::Ringing(ringing) = &mut self.state else { return };
        let first = ringing.rungs.len();
        for branch in branches {
            let twice = |rung: &Rung| {
                let open = !matches!(rung.step, Rings::Over);
                open && branch.owner.is_some() && rung.branch.owner == branch.owner && !branch.sent_on
            };
            if ringing.rungs[..first].iter().any(twice) {
                continue;
            }
            let in_vain = branch.ways.first().is_some_and(|way| ringing.unconfirmed.contains(way));
            let spoken_to = branch.confirm || branch.intercom;
            if let (true, Some(because)) = (spoken_to, unasked.or(in_vain.then_some("it did not confirm before"))) {
                let rule = branch.ways.first().map_or_else(String::new, name);
                self.plan
                    .why
                    .push(policy::Why::new(rule, format!("not rung, since we have to speak to it: {because}")));
                continue;
            }
            let begins = cx.now.mono + branch.after;
            cx.switch.arm_call(begins, self.key);
            ringing.rungs.push(Rung { branch, step: Rings::Later { begins, ring }, anew: false });
        }
        self.begin_due(legs, cx, first);
    }

    /// Branches whose time has come begin, from the one at `first` on.
    fn begin_due(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, first: usize) {
        let mut i = first;
        loop {
            let State::Ringing(ringing) = &mut self.state else { return };
            let Some(rung) = ringing.rungs.get_mut(i) else { return };
            if let Rings::Later { begins, ring } = rung.step
                && begins <= cx.now.mono
            {
                let until = cx.now.mono + ring;
                let until = ringing.stage_ends.map_or(until, |ends| until.min(ends));
                let ways = rung.branch.ways.iter().cloned().collect();
                let (places, own) = (VecDeque::new(), SmallVec::new());
                rung.step = Rings::Now { until, ways, way: None, places, legs: own };
                cx.switch.arm_call(until, self.key);
                self.go_on(legs, cx, i);
            }
            i += 1;
        }
    }

    /// When nobody rings, whoever would begin next begins now: a caller is never left waiting for a delay.
    pub(super) fn hurry(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        loop {
            let State::Ringing(ringing) = &mut self.state else { return };
            if ringing.legs().next().is_some() {
                return;
            }
            let begins = |rung: &Rung| match rung.step {
                Rings::Later { begins, .. } => Some(begins),
                Rings::Now { .. } | Rings::Over => None,
            };
            let rungs = ringing.rungs.iter().filter_map(begins);
            // Who waits in a queue waits for its agents, not for the steps that join it.
            let steps = ringing.later.iter().map(|later| later.begins).filter(|_| ringing.ticket.is_none());
            let Some(next) = rungs.chain(steps).min() else { return };
            for rung in &mut ringing.rungs {
                if let Rings::Later { begins, .. } = &mut rung.step
                    && *begins == next
                {
                    *begins = cx.now.mono;
                }
            }
            ringing.later.iter_mut().filter(|l| l.begins == next).for_each(|l| l.begins = cx.now.mono);
            self.begin_due(legs, cx, 0);
            self.join_due(legs, cx);
        }
    }

    /// Steps whose time has come join.
    fn join_due(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        loop {
            let State::Ringing(ringing) = &mut self.state else { return };
            let Some(i) = ringing.later.iter().position(|later| later.begins <= cx.now.mono) else { return };
            let later = ringing.later.remove(i);
            self.join(legs, cx, VecDeque::from([later.stage]));
        }
    }

    /// The first of these joins that has somebody to ring, of all that they lead to.
    pub(super) fn join(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, mut stages: VecDeque<Stage>) {
        let State::Ringing(ringing) = &self.state else { return };
        let ringing_before = ringing.rungs.len();
        for _ in 0..MAX_STAGES {
            let Some(stage) = stages.pop_front() else { break };
            let through = self.ring(legs, cx, &stage);
            through.into_iter().rev().for_each(|stage| stages.push_front(stage));
            if !matches!(&self.state, State::Ringing(r) if r.rungs.len() == ringing_before) {
                break;
            }
        }
    }

    /// A branch goes on: its next address, else its next way. Whether somebody rings.
    fn go_on(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, i: usize) -> bool {
        loop {
            let State::Ringing(ringing) = &mut self.state else { return true };
            let Some(rung) = ringing.rungs.get_mut(i) else { return false };
            let Rings::Now { ways, way, places, .. } = &mut rung.step else { return false };
            if let (Some(present), Some(place)) = (&*way, places.pop_front()) {
                let present = present.clone();
                // The phones of an extension ring at once, the addresses of a trunk are tried in turn.
                let mut any = self.dial(legs, cx, i, &present, place);
                if matches!(present, Way::Extension(_)) {
                    while let Some(place) = self.next_place(i) {
                        any |= self.dial(legs, cx, i, &present, place);
                    }
                }
                if any {
                    return true;
                }
                continue;
            }
            let Some(next) = ways.pop_front() else {
                rung.step = Rings::Over;
                return false;
            };
            let found = cx.switch.places(&next);
            if found.is_empty() {
                self.plan.why.push(policy::Why::new(name(&next), "skipped: it has no address that answers"));
            }
            (*places, *way) = (found.into(), Some(next));
        }
    }

    fn next_place(&mut self, i: usize) -> Option<Place> {
        let State::Ringing(ringing) = &mut self.state else { return None };
        match &mut ringing.rungs.get_mut(i)?.step {
            Rings::Now { places, .. } => places.pop_front(),
            Rings::Later { .. } | Rings::Over => None,
        }
    }

    fn dial(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, i: usize, way: &Way, place: Place) -> bool {
        let State::Ringing(ringing) = &mut self.state else { return false };
        if ringing.legs().count() >= MAX_FORK {
            return false;
        }
        let (peer, shown) = match way {
            Way::Extension(number) => (Peer::Extension(number.clone()), None),
            Way::Trunk { trunk, user, shown } => {
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
        let (confirm, intercom, anew) = ringing
            .rungs
            .get(i)
            .map_or((false, false, false), |rung| (rung.branch.confirm, rung.branch.intercom, rung.anew));
        let agent = place.agent.clone();
        let offer = match self.offer_for(legs, cx, &place, confirm || intercom, anew) {
            Ok(offer) => offer,
            Err(NoPort) => {
                self.refuse(legs, cx, 503, "Service Unavailable", Some(NO_PORT.to_owned()), Cause::Fault);
                return false;
            }
        };
        let (end, body) = offer;
        let State::Ringing(ringing) = &mut self.state else { return false };
        let Some(rung) = ringing.rungs.get_mut(i) else { return false };
        let Rings::Now { ways, places, legs: own, .. } = &mut rung.step else { return false };
        let number = self.journey.leg(cx.now, peer.to_string());
        // The last address of the last trunk may take as long as SIP allows (Timer B): there is nobody to try instead.
        let impatient = matches!(peer, Peer::Trunk { .. }) && !(places.is_empty() && ways.is_empty());
        let mut identity = self.identity.shown_as(rung.branch.caller_name.as_deref());
        // A colleague's phone that sends a colleague's call outside does so with the number that the company shows for it.
        if let (true, None, Way::Trunk { shown: Some(by), .. }) = (rung.branch.sent_on, &identity.diverted, way) {
            identity.diverted = Some(Diverted { by: *by, unanswered: self.first_ring.is_some() });
        }
        let mut dial = Dial::new(cx, way, place, &identity, self.max_forwards, body, impatient);
        if intercom {
            dial = dial.by_itself(auto_answer(cx.directory, &peer, agent.as_deref()));
        }
        let (call, owner) = (self.key, rung.branch.owner.clone());
        let key = legs.insert_with_key(|key| Leg::uac(key, call, number, peer, dial, end, cx));
        let Some(leg) = legs.get_mut(key) else { return false };
        leg.owner = owner;
        leg.occupies = true;
        cx.switch.named(self.id, leg.call_id(), &leg.peer);
        cx.switch.occupy(call, &leg.peer, leg.extension(), true);
        own.push(key);
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
        confirm: bool,
        anew: bool,
    ) -> Result<(Option<bridge::End>, Option<Bytes>), NoPort> {
        let Some(caller) = legs.get(self.a) else { return Ok((None, None)) };
        if !self.relay {
            return Ok((None, caller.offered().cloned()));
        }
        let mut end = bridge::End::new(cx.rng, place.media);
        let theirs = caller.end.as_ref().and_then(|e| e.last_heard());
        let Some(theirs) = theirs else { return Ok((Some(end), None)) };
        // Whoever is offered after another was answered gets only the codec in use, unless he refused that.
        let in_use = (caller.is_up() && !anew).then(|| caller.end.as_ref()?.in_use()).flatten();
        let cut = if confirm { Some(&Format::BASIC[..]) } else { self.keep() };
        let keep = in_use.as_ref().map(<[_; 2]>::as_slice).or(cut);
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
            Event::Offered { body } => self.caller_offers(legs, cx, body.as_ref()),
            Event::Restated { body } | Event::Acked { body: Some(body) } => {
                if self.hear(legs, cx, self.a, &body) {
                    self.attend_caller(legs, cx);
                }
            }
            // There is nobody to tell yet.
            Event::Asked { .. } => {
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
            | Event::Withdrawn
            | Event::Gone => {}
        }
    }

    /// A ringing leg has news.
    pub(super) fn branch_while_ringing(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, event: Event) {
        if self.while_asked(legs, cx, key, &event) {
            return;
        }
        match event {
            Event::Progress { status, body, early } => self.progress(legs, cx, key, status, body, early),
            Event::Answered { body, early } => self.answered(legs, cx, key, body, early),
            Event::Refused { status, phrase, reason, connected, contacts, unheard } => {
                self.branch_failed(legs, cx, key, Final { status, phrase, reason, unheard }, connected, &contacts)
            }
            Event::Lost { because, status } => {
                let phrase = because.unwrap_or_else(|| "no response".to_owned());
                self.branch_failed(legs, cx, key, Final { status, phrase, reason: None, unheard: true }, false, &[]);
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
        let Some(rung) = ringing.rung_of(key) else { return };
        let confirm = rung.branch.confirm;
        let alone = ringing.legs().count() == 1 && !confirm;
        if let Some(body) = body.as_ref().filter(|_| confirm) {
            self.hear_early(legs, cx, key, body);
        }
        if status == 180 || (status == 183 && body.is_some()) {
            if self.first_ring.is_none() {
                self.first_ring = Some(cx.now.mono);
            }
            let who = legs.get(key).map_or(String::new(), |l| l.peer.to_string());
            self.journey.enter(cx.now, PhaseKind::Ring, &format!("{who} rings"));
        }
        // Early media passes where one leg alone rings; of a fork the caller hears ringback, not whoever was quicker, and of
        // somebody who has yet to confirm, nothing: it may be a voicemail.
        let status = if status == 183 && body.is_some() && !alone { 180 } else { status };
        let (variant, answer) = match body.filter(|_| alone) {
            Some(body) => match self.answer_from(legs, cx, key, &body, false) {
                Ok(answer) => (self.variant(legs, key, early), answer),
                Err(_) => (0, None),
            },
            None => (0, None),
        };
        let rings = answer.is_none() && status == 180;
        if rings && self.ring_by_voice(legs, cx) {
            return;
        }
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
        self.fall_silent(cx);
        let Some([caller, leg]) = legs.get_disjoint_mut([self.a, key]) else { return Ok(None) };
        let (source, up) = (leg.flow().remote.ip(), caller.is_up());
        let keep = self.keep();
        let (Some(a), Some(b)) = (caller.end.as_mut(), leg.end.as_mut()) else { return Ok(None) };
        if !b.answers(&theirs) {
            return Err(AnswerFault::Unreadable);
        }
        let answer = self.at_desk(cx, |desk| {
            b.heard(desk, &theirs, body, source)?;
            // A caller who was answered by us keeps that answer.
            let answer = match a.last_told().filter(|_| up) {
                Some(told) => told.clone(),
                None => bridge::pass(desk, &theirs, a, keep, true)?,
            };
            bridge::link(desk.commands, a, b, expected);
            Ok(answer)
        });
        answer.map(Some).map_err(|NoPort| AnswerFault::NoPort)
    }

    fn answered(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: Option<Bytes>, early: u8) {
        let State::Ringing(ringing) = &self.state else { return };
        match ringing.rung_of(key).map(|rung| rung.branch.confirm) {
            Some(true) => self.question(legs, cx, key, body.as_ref(), early),
            Some(false) => self.wins(legs, cx, key, body, early),
            // A loser that answered before our CANCEL reached it.
            None => {
                if let Some(leg) = legs.get_mut(key) {
                    leg.hang_up(cx, Some(ELSEWHERE));
                }
            }
        }
    }

    /// Somebody has answered, and confirmed it where that was wanted.
    pub(super) fn wins(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: Option<Bytes>, early: u8) {
        let intercom = matches!(&self.state, State::Ringing(r) if r.rung_of(key).is_some_and(|r| r.branch.intercom));
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
                return self.branch_failed(legs, cx, key, last, false, &[]);
            }
        };
        let variant = if answer.is_some() { self.variant(legs, key, early) } else { 0 };
        let told = self.queue_of(cx).is_none_or(|queue| queue.elsewhere).then_some(ELSEWHERE);
        self.drop_legs(legs, cx, Some(key), told, LegResult::Elsewhere);
        let Some([caller, leg]) = legs.get_disjoint_mut([self.a, key]) else { return };
        // An answer to our offer is acknowledged at once; an offer waits for the caller's answer in its ACK.
        if !late {
            leg.ack(cx, None);
        }
        let heard_us = caller.is_up();
        caller.accept(cx, variant, answer.as_ref());
        let extension = leg.extension().filter(|number| cx.directory.extension(number).is_some()).cloned();
        self.answered_by = Some(extension.map_or_else(|| leg.peer.clone(), Peer::Extension));
        if let Some(number) = leg.extension() {
            self.branch = cx.directory.extension(number).and_then(|e| e.branch.clone());
        }
        if let Peer::Trunk { trunk: name, .. } = &leg.peer {
            let (name, flow) = (name.clone(), leg.flow());
            cx.switch.trunk_said(cx.now, &name, &flow, None);
        }
        self.journey.answered(leg.number);
        let who = leg.peer.to_string();
        let record = self.records();
        self.wrap_up = self.queue_of(cx).map_or(Duration::ZERO, |queue| queue.wrap_up);
        self.leave_line(cx);
        self.state = State::Connected(Connected { b: key, held: false, standing: None, recoding: false, tone: None });
        self.journey.enter(cx.now, PhaseKind::Talk, &format!("{who} answered"));
        if intercom {
            self.begin_tone(legs, cx, key);
        }
        if heard_us {
            self.recode(legs, cx);
            self.note_hold(legs, cx);
        }
        if record && !late {
            self.begin_recording(legs, cx);
        }
        self.show(legs, cx);
    }

    /// The queue that the present stage is.
    fn queue_of<'a>(&self, cx: &Cx<'a>) -> Option<&'a Queue> {
        let State::Ringing(ringing) = &self.state else { return None };
        ringing.queue(cx.directory)
    }

    fn records(&self) -> bool {
        let State::Ringing(ringing) = &self.state else { return false };
        self.relay && ringing.stage.as_ref().and_then(|s| s.record).unwrap_or(self.plan.record)
    }

    fn branch_failed(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        key: LegKey,
        last: Final,
        connected: bool,
        contacts: &[String],
    ) {
        let State::Ringing(ringing) = &mut self.state else { return };
        let rung = ringing.lost(key);
        let Some(leg) = legs.get(key) else { return };
        let (peer, number, flow) = (leg.peer.clone(), leg.number, leg.flow());
        let status = last.status;
        let why = match (&last.reason, last.unheard) {
            (Some(reason), _) => reason.clone(),
            (None, true) => last.phrase.clone(),
            (None, false) => format!("{} {}", last.status, last.phrase),
        };
        let last = last.for_callers();
        self.journey.over(cx.now, number, LegResult::of(status), Some(why.clone()));
        self.bury(legs, cx, key);
        let State::Ringing(ringing) = &mut self.state else { return };
        let Some(i) = rung else { return };
        // To an emergency number every carrier is tried, whatever the one before thought of us.
        let refused = self.emergency && matches!(status, 400..=485 | 488..=599 | 604..);
        let unable = matches!(peer, Peer::Trunk { .. })
            && (refused || matches!(status, 300..=399 | 401 | 407 | 408 | 500 | 502..=504))
            && !connected;
        // A carrier that cannot take the call, or would have us call elsewhere, is no word of whoever was called.
        let noted = if unable { Final { phrase: phrase(503).to_owned(), status: 503, ..last } } else { last };
        ringing.note(noted);
        if let Peer::Trunk { trunk: name, .. } = &peer {
            // The carrier could not take the call at all: its next address, then the next trunk. Any other answer is the
            // answer of who was called.
            cx.switch.trunk_said(cx.now, name, &flow, unable.then_some(why.as_str()));
            if unable {
                self.plan.why.push(policy::Why::new(format!("trunk {name}"), format!("next tried: {why}")));
                if self.go_on(legs, cx, i) {
                    return;
                }
            }
        }
        if status == 488 && self.offer_anew(legs, cx, i, &flow) {
            return;
        }
        if let (Peer::Extension(extension), false) = (&peer, contacts.is_empty())
            && self.sent_on(legs, cx, i, extension, flow.local.ip(), contacts)
        {
            return;
        }
        self.nothing_came(legs, cx, i, Some(status));
    }

    /// Somebody refused the codec in which the caller hears us: offers him once all that the caller speaks. Whether he rings.
    fn offer_anew(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, i: usize, flow: &Flow) -> bool {
        let caller = legs.get(self.a).filter(|caller| caller.is_up());
        let others = caller.and_then(|caller| caller.end.as_ref()).is_some_and(|end| end.speaks_more());
        let State::Ringing(ringing) = &mut self.state else { return false };
        let Some(rung) = ringing.rungs.get_mut(i).filter(|rung| others && !rung.anew) else { return false };
        let Rings::Now { way: Some(way), .. } = &rung.step else { return false };
        let way = way.clone();
        let Some(place) = cx.switch.places(&way).into_iter().find(|place| place.flow == *flow) else { return false };
        rung.anew = true;
        self.dial(legs, cx, i, &way, place)
    }

    /// Nothing will come of a leg of this branch any more: its last answer, or none that says anything of its owner.
    pub(super) fn nothing_came(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, i: usize, status: Option<u16>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        match status {
            Some(status) => ringing.spend(i, status),
            None => ringing.used_up(i),
        }
        self.hurry(legs, cx);
        self.note_confirm(cx);
        if self.idle() {
            self.round_over(legs, cx);
        }
    }

    /// Nobody rings any more: the queue is asked again in its turn, else the next stage comes.
    pub(super) fn round_over(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        match ringing.ticket {
            Some(ticket) => cx.switch.again(ticket),
            None => self.next_stage(legs, cx),
        }
    }

    /// Somebody's patience came to its end, somebody is to begin, or the caller has heard nothing for a minute.
    pub(super) fn patience(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        self.prompt_due(legs, cx);
        self.questions_due(legs, cx);
        let State::Ringing(ringing) = &mut self.state else { return };
        if ringing.remind.is_some_and(|at| at <= cx.now.mono) {
            ringing.remind = Some(cx.now.mono + REMIND);
            cx.switch.arm_call(cx.now.mono + REMIND, self.key);
            let rings = ringing.voice.is_none() && (self.first_ring.is_some() || ringing.told);
            let status = if rings { 180 } else { 183 };
            if let Some(caller) = legs.get_mut(self.a) {
                caller.progress(cx, status, 0, None);
            }
        }
        if ringing.asking.as_ref().is_some_and(|asking| asking.is_late(cx.now.mono)) {
            return self.hook_is_late(legs, cx);
        }
        if ringing.ticket.is_some() && ringing.stage_ends.is_some_and(|ends| ends <= cx.now.mono) {
            ringing.note(Final::new(480, phrase(480)));
            let later = std::mem::take(&mut ringing.later);
            self.drop_legs(legs, cx, None, None, LegResult::NoAnswer);
            if let State::Ringing(ringing) = &mut self.state {
                ringing.later = later;
            }
            self.next_stage(legs, cx);
            return self.show(legs, cx);
        }
        // Whoever has answered and is asked has time of its own.
        let asked = |key: &LegKey| ringing.questions.iter().any(|q| q.leg == *key);
        let ended = |rung: &Rung| match &rung.step {
            Rings::Now { until, legs, .. } => *until <= cx.now.mono && !legs.iter().any(asked),
            Rings::Later { .. } | Rings::Over => false,
        };
        let ended: Vec<usize> = (0..ringing.rungs.len()).filter(|&i| ended(&ringing.rungs[i])).collect();
        let mut silent: Vec<LegKey> = Vec::new();
        for &i in &ended {
            ringing.note(Final::new(480, "Temporarily Unavailable"));
            if let Rings::Now { legs: own, .. } = std::mem::replace(&mut ringing.rungs[i].step, Rings::Over) {
                silent.extend(own);
            }
            if let Some(agent) = &ringing.rungs[i].branch.owner {
                cx.switch.idle(cx.now.mono, agent, Duration::ZERO);
            }
        }
        silent.into_iter().for_each(|key| self.drop_leg(legs, cx, key, None, LegResult::NoAnswer));
        self.begin_due(legs, cx, 0);
        self.join_due(legs, cx);
        self.hurry(legs, cx);
        self.note_confirm(cx);
        if !ended.is_empty() && self.idle() {
            self.round_over(legs, cx);
        }
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
        ringing.later.clear();
        ringing.questions.clear();
        let ringing_now: Vec<LegKey> = ringing.legs().filter(|key| Some(*key) != keep).collect();
        ringing.rungs.clear();
        for key in ringing_now {
            self.drop_leg(legs, cx, key, reason, result);
        }
    }

    pub(super) fn drop_leg(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        key: LegKey,
        reason: Option<&str>,
        result: LegResult,
    ) {
        let Some(leg) = legs.get_mut(key) else { return };
        let why = if leg.is_silent(cx.now.mono) { Some(SILENT) } else { reason };
        self.journey.over(cx.now, leg.number, result, why.map(str::to_owned));
        leg.hang_up(cx, reason);
        self.bury(legs, cx, key);
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
    /// The legs that ring.
    pub(super) fn legs(&self) -> impl Iterator<Item = LegKey> {
        let legs = |rung| match rung {
            &Rung { step: Rings::Now { ref legs, .. }, .. } => legs.as_slice(),
            Rung { step: Rings::Later { .. } | Rings::Over, .. } => &[],
        };
        self.rungs.iter().flat_map(legs).copied()
    }

    /// The branch that a ringing leg belongs to.
    pub(super) fn rung_of(&self, key: LegKey) -> Option<&Rung> {
        self.rungs.iter().find(|rung| matches!(&rung.step, Rings::Now { legs, .. } if legs.contains(&key)))
    }

    /// A leg rings no longer; its branch's place in the list.
    pub(super) fn lost(&mut self, key: LegKey) -> Option<usize> {
        let own = |rung: &mut Rung| match &mut rung.step {
            Rings::Now { legs, .. } => legs.iter().position(|k| *k == key).map(|at| legs.remove(at)).is_some(),
            Rings::Later { .. } | Rings::Over => false,
        };
        self.rungs.iter_mut().position(own)
    }

    /// A branch without a leg is over.
    fn used_up(&mut self, i: usize) {
        if let Some(rung) = self.rungs.get_mut(i)
            && matches!(&rung.step, Rings::Now { legs, .. } if legs.is_empty())
        {
            rung.step = Rings::Over;
        }
    }

    /// A leg of the branch ended with that status, and the branch goes nowhere else. Whoever rejected is not rung again in
    /// this call, nor is who cannot be reached at any place: the next round would only get the same answer at once.
    pub(super) fn spend(&mut self, i: usize, status: u16) {
        self.used_up(i);
        let Some(rung) = self.rungs.get_mut(i) else { return };
        let Some(owner) = rung.branch.owner.clone() else { return };
        let rejected = matches!(status, 486 | 600 | 603);
        if rejected {
            let own = |r: &&mut Rung| r.branch.owner.as_ref() == Some(&owner);
            let later = |r: &&mut Rung| matches!(r.step, Rings::Later { .. });
            self.rungs.iter_mut().filter(own).filter(later).for_each(|r| r.step = Rings::Over);
        }
        let open = |r: &Rung| r.branch.owner.as_ref() == Some(&owner) && !matches!(r.step, Rings::Over);
        if (rejected || !self.rungs.iter().any(open)) && !self.spent.contains(&owner) {
            self.spent.push(owner);
        }
    }

    /// Keeps the better of two final answers (RFC 3261 16.7, point 6): a 6xx first, else the lowest class; within a class what tells
    /// the caller more than that nobody was there.
    pub(super) fn note(&mut self, last: Final) {
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
        Final { status, phrase: phrase.to_owned(), reason: None, unheard: false }
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

/// Of a leg that was given up before it said anything.
const SILENT: &str = "it has not answered the INVITE at all";

/// How a phone is told to answer by itself.
pub(super) fn auto_answer(directory: &Directory, peer: &Peer, agent: Option<&str>) -> AutoAnswer {
    let extension = match peer {
        Peer::Extension(number) => directory.extension(number),
        Peer::Trunk { .. } => None,
    };
    vendor::auto_answer(extension.and_then(|e| e.vendor.as_deref()), agent)
}

fn name(way: &Way) -> String {
    match way {
        Way::Extension(number) => format!("extension:{number}"),
        Way::Trunk { trunk, .. } => format!("trunk {trunk}"),
    }
}
