//! Callers who wait in queues, in the order in which they came, and what agents are doing. Whom a queue rings is `policy`'s
//! choice; this keeps what it chooses by, and who is to be asked first when an agent comes free.
//!
//! One order holds for all queues of the node: of two queues that share an agent, the caller who came first is served first. A
//! place is kept over any number of agents who do not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::{Instant, Map, map};
use crate::call::{CallKey, Ticket};
use crate::directory::{Directory, Label};
use crate::policy::queue::Agent;

/// Callers that one queue takes at most; one more goes on to what comes after the queue.
pub const MAX_LINE: usize = 1000;

/// The line.
#[derive(Debug)]
pub struct Line {
    seats: BTreeMap<Ticket, Seat>,
    next: u64,
    /// Somebody may have come free, or wants to be served.
    wake: bool,
    agents: Map<Label, State>,
    /// Who was rung last, by queue.
    turns: Map<Label, Label>,
}

/// A caller's place.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Who.
    pub call: CallKey,
    /// In which queue.
    pub queue: Label,
    /// What there is for this caller has not been looked at since he came or his agent was lost.
    pub fresh: bool,
}

#[derive(Clone, Copy, Default, Debug)]
struct State {
    do_not_disturb: bool,
    paused: bool,
    rests_until: Option<Instant>,
    idle_since: Option<Instant>,
}

impl Default for Line {
    fn default() -> Line {
        Line { seats: BTreeMap::new(), next: 0, wake: false, agents: map(), turns: map() }
    }
}

impl Line {
    /// A caller takes the last place, unless the queue is full.
    pub fn join(&mut self, queue: &Label, call: CallKey) -> Option<Ticket> {
        if self.seats.values().filter(|seat| seat.queue == *queue).count() >= MAX_LINE {
            return None;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.seats.insert(ticket, Seat { call, queue: queue.clone(), fresh: true });
        self.wake = true;
        Some(ticket)
    }

    /// A caller gives his place up.
    pub fn leave(&mut self, ticket: Ticket) {
        self.seats.remove(&ticket);
    }

    /// A caller is to be looked at again.
    pub fn again(&mut self, ticket: Ticket) {
        if let Some(seat) = self.seats.get_mut(&ticket) {
            seat.fresh = true;
            self.wake = true;
        }
    }

    /// Somebody may have come free, or cannot any more.
    pub fn wake(&mut self) {
        self.wake = !self.seats.is_empty();
    }

    /// Whether the callers are to be looked at, in order.
    pub fn is_due(&mut self) -> bool {
        std::mem::take(&mut self.wake) && !self.seats.is_empty()
    }

    /// Everybody's ticket, in order.
    pub fn tickets(&self) -> Vec<Ticket> {
        self.seats.keys().copied().collect()
    }

    /// A caller is looked at: his place as it stood. None if he gave it up.
    pub fn look(&mut self, ticket: Ticket) -> Option<Seat> {
        let seat = self.seats.get_mut(&ticket)?;
        let before = seat.clone();
        seat.fresh = false;
        Some(before)
    }

    /// The queue rang an agent.
    pub fn rang(&mut self, queue: &Label, agent: &Label) {
        self.turns.insert(queue.clone(), agent.clone());
    }

    /// An agent's talk is over, or nobody took the ringing. When it is to be looked at again: after `wrap_up`.
    pub fn idle(&mut self, now: Instant, agent: &Label, wrap_up: Duration) -> Option<Instant> {
        let state = self.agents.entry(agent.clone()).or_default();
        state.idle_since = Some(now);
        if !wrap_up.is_zero() {
            state.rests_until = Some(now + wrap_up);
        }
        state.rests_until
    }

    /// Sets what an agent asks for; what is none stays.
    pub fn set(&mut self, agent: &Label, do_not_disturb: Option<bool>, paused: Option<bool>) -> Agent {
        let state = self.agents.entry(agent.clone()).or_default();
        state.do_not_disturb = do_not_disturb.unwrap_or(state.do_not_disturb);
        state.paused = paused.unwrap_or(state.paused);
        self.wake();
        self.agent(agent)
    }

    /// What an agent is doing.
    pub fn agent(&self, extension: &str) -> Agent {
        let state = self.agents.get(extension).copied().unwrap_or_default();
        let State { do_not_disturb, paused, rests_until, idle_since } = state;
        Agent { do_not_disturb, paused, rests: rests_until.is_some(), idle_since }
    }

    /// Who was rung last for that queue.
    pub fn last_rung(&self, queue: &str) -> Option<&Label> {
        self.turns.get(queue)
    }

    /// Time went on: whose rest is over is free, and not a moment before somebody looks after the callers in order.
    pub fn tick(&mut self, now: Instant) {
        for state in self.agents.values_mut() {
            state.rests_until = state.rests_until.filter(|until| *until > now);
        }
        self.wake();
    }

    /// A new configuration: who is in it no more is forgotten.
    pub fn reload(&mut self, directory: &Directory) {
        let agent = |number: &Label| directory.queues.iter().any(|queue| queue.agents.contains(number));
        self.agents.retain(|number, _| directory.extension(number).is_some() || agent(number));
        self.turns.retain(|name, _| directory.queue(name).is_some());
        self.wake();
    }
}
