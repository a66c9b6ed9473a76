//! A caller in a queue: waits for his turn, is served when the node says so, and hears ringback meanwhile. In which order
//! callers are served is the node's business, whom a queue rings is `policy`'s.
//!
//! ```text
//!   the stage begins --join--> waits --serve: an agent is free--> rings --2xx--> (Connected)
//!                                ^  |                               |
//!                                |  +--nobody will come free, or    +--no answer, refusal--+
//!                                |     the wait is over--> (next stage)                    |
//!                                +---------------------------------------------------------+
//! ```

use super::fork::Rings;
use super::record::PhaseKind;
use super::{Call, Cx, Final, Legs, Ringing, State};
use crate::directory::{Directory, Label, Queue, Strategy, Target};
use crate::policy::{self, Fork, Stage};
use crate::sip::phrase;

impl Ringing {
    /// The queue that the present stage is.
    pub(super) fn queue<'a>(&self, directory: &'a Directory) -> Option<&'a Queue> {
        match &self.stage {
            Some(Stage { target: Target::Queue(name), .. }) => directory.queue(name),
            Some(_) | None => None,
        }
    }
}

impl Call {
    /// Takes a place in the line, if the present stage is a queue. Whether it is served when its turn comes.
    pub(super) fn queued(&mut self, cx: &mut Cx<'_>) -> bool {
        let State::Ringing(ringing) = &mut self.state else { return false };
        let Some(queue) = ringing.queue(cx.directory) else { return false };
        ringing.rung.clear();
        ringing.ticket = cx.switch.join(&queue.name, self.key);
        if ringing.ticket.is_none() {
            self.plan.why.push(policy::Why::new(format!("queue:{}", queue.name), "skipped: too many callers wait"));
            ringing.note(Final::new(480, phrase(480)));
            ringing.stage = None;
            return false;
        }
        if let Some(ends) = ringing.stage_ends {
            cx.switch.arm_call(ends, self.key);
        }
        true
    }

    /// Gives its place in the line up.
    pub(super) fn leave_line(&mut self, cx: &mut Cx<'_>) {
        if let State::Ringing(ringing) = &mut self.state
            && let Some(ticket) = ringing.ticket.take()
        {
            cx.switch.leave(ticket);
        }
    }

    /// Its turn has come: rings whom the queue says, goes on waiting, or goes on to the next stage.
    pub fn serve(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        let (Some(queue), Some(stage)) = (ringing.queue(cx.directory), ringing.stage.clone()) else {
            // The queue is gone with a new configuration.
            self.next_stage(legs, cx);
            return self.show(legs, cx);
        };
        ringing.rungs.retain(|rung| !matches!(rung.step, Rings::Over));
        let others = !ringing.rungs.is_empty();
        if others && queue.strategy != Strategy::RingAll {
            return;
        }
        let fork = self.fork(cx, &stage);
        let State::Ringing(ringing) = &mut self.state else { return };
        match fork {
            Fork::Ring(branches) => {
                let agents: Vec<Label> = branches.iter().filter_map(|branch| branch.owner.clone()).collect();
                for agent in &agents {
                    cx.switch.rang(&queue.name, agent);
                    ringing.rung.retain(|rung| rung != agent);
                    ringing.rung.push(agent.clone());
                }
                self.begin(legs, cx, branches, stage.ring);
                self.spend_unbegun(&agents);
                self.hurry(legs, cx);
                // Nobody could be dialled after all.
                if self.idle() {
                    self.spend_rung();
                    self.round_over(legs, cx);
                }
            }
            Fork::Wait
            | Fork::Skip(_)
            | Fork::Through(_)
            | Fork::Ask(_)
            | Fork::Page(_)
            | Fork::Play(_)
            | Fork::Refuse(_)
                if others =>
            {
                return;
            }
            Fork::Wait => self.waits(legs, cx),
            Fork::Play(_) => self.next_stage(legs, cx),
            Fork::Skip(status) | Fork::Refuse(status) => {
                ringing.note(Final::new(status, phrase(status)));
                self.next_stage(legs, cx);
            }
            // A queue leads nowhere else.
            Fork::Through(_) | Fork::Ask(_) | Fork::Page(_) => self.next_stage(legs, cx),
        }
        self.show(legs, cx);
    }

    /// Nobody rings: the caller hears ringback all the same.
    fn waits(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        let name = ringing.queue(cx.directory).map_or("", |queue| &queue.name);
        self.journey.enter(cx.now, PhaseKind::Queue, &format!("nobody of queue {name} is free"));
        if !std::mem::replace(&mut ringing.told, true)
            && let Some(caller) = legs.get_mut(self.a)
        {
            // Who hears music needs no ringback.
            if ringing.voice.is_none() {
                caller.progress(cx, 180, 0, None);
            }
        }
    }

    /// Agents none of whose telephones may be rung for this caller, since nobody there could be asked to confirm, are not tried
    /// again: they would be chosen for ever.
    fn spend_unbegun(&mut self, agents: &[Label]) {
        let State::Ringing(ringing) = &mut self.state else { return };
        for agent in agents {
            let begun = ringing.rungs.iter().any(|rung| rung.branch.owner.as_ref() == Some(agent));
            if !begun && !ringing.spent.contains(agent) {
                ringing.spent.push(agent.clone());
            }
        }
    }

    /// Agents whose addresses all failed at once are not tried again.
    fn spend_rung(&mut self) {
        let State::Ringing(ringing) = &mut self.state else { return };
        for i in 0..ringing.rungs.len() {
            ringing.spend(i, 480);
        }
    }
}
