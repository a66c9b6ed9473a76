//! Who is rung, and why: pure decisions over what the operator configured and what is so at this moment.
//!
//! [`plan()`] is asked once a call and names the stages that the call goes through. [`fork()`] is asked when a stage begins,
//! because who is free may have changed since, and names the branches to ring. Both give their reasons ([`Why`]), and the
//! call's record keeps them. Nothing here waits, takes a permit, or sends.
//!
//! Files: `rule` (which route, which stages), `caller` (who calls, who is open), `fork` (whom a stage rings), `queue` (whom a queue rings), `page` (who hears a page), `divert` (where a phone may send a call on to), `caller_id` (what
//! the other side sees), `explain` (all of it, played through for people).

mod caller;
mod caller_id;
pub mod divert;
pub mod explain;
mod fork;
pub mod hook;
pub mod page;
pub mod queue;
mod rule;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::Wall;
use crate::directory::{Directory, E164, Label, Recording, Region, Target};

pub use caller_id::gave_nothing;
pub use explain::{Explained, explain};
pub use fork::{Branch, Fork, Way, fork};
pub use rule::{plan, stages};

/// One reason of a decision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Why {
    /// What decided, e.g. `route "suppliers"`.
    pub rule: Label,
    /// Why it did or did not.
    pub because: String,
}

impl Why {
    /// A reason.
    pub fn new(rule: impl Into<Label>, because: impl Into<String>) -> Why {
        Why { rule: rule.into(), because: because.into() }
    }
}

/// Who asks for what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A carrier's call for a number of ours.
    In {
        /// By which trunk.
        trunk: Label,
        /// For which number.
        number: E164,
        /// From which number, as far as it is one.
        caller: Option<E164>,
        /// The caller wants the number withheld from people; calls are routed by it all the same.
        anonymous: bool,
    },
    /// A phone dialled something.
    Dialled {
        /// Whose phone.
        extension: Label,
        /// What was dialled, as it stood in the request.
        text: String,
    },
    /// The operator has a file played.
    Operator {
        /// Over this page.
        page: Label,
    },
}

/// What is so at this moment, as far as a decision may ask.
pub trait Live {
    /// At how many places the extension's phones can be called.
    fn bindings(&self, extension: &str) -> usize;
    /// Whether a phone of the extension is registered, be it one that cannot be called at the moment.
    fn registered(&self, extension: &str) -> bool {
        self.bindings(extension) > 0
    }
    /// In how many calls the extension is, ringing included.
    fn calls(&self, extension: &str) -> u32;
    /// Whether the trunk takes calls.
    fn trunk_up(&self, trunk: &str) -> bool;
    /// How many calls the trunk carries.
    fn trunk_calls(&self, trunk: &str) -> u32;
    /// The number of ours that this customer called or was shown last, and when; none where nobody keeps count.
    fn sticky(&self, customer: E164) -> Option<(E164, Wall)> {
        let _ = customer;
        None
    }
    /// What the extension is doing, besides being in calls.
    fn agent(&self, extension: &str) -> queue::Agent {
        let _ = extension;
        queue::Agent::default()
    }
    /// The agent of that queue who was rung last; none where nobody keeps count.
    fn last_rung(&self, queue: &str) -> Option<Label> {
        let _ = queue;
        None
    }
}

/// All that the choice of branches depends on when a stage begins.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// Who asked for what.
    pub ask: &'a Ask,
    /// The configuration.
    pub directory: &'a Directory,
    /// What is so.
    pub live: &'a dyn Live,
    /// When.
    pub at: Wall,
    /// Targets that this call went through already; they are skipped, so that no circle is endless.
    pub tried: &'a [Target],
    /// Extensions that are not to be rung again in this call: they rejected it, or could not be reached.
    pub spent: &'a [Label],
    /// Agents of the queue in question who were rung for this call.
    pub rung: &'a [Label],
}

/// What kind of call it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// From a trunk, or a phone that dialled a number of ours.
    In,
    /// Out through a trunk.
    Out,
    /// Between phones.
    Internal,
    /// An announcement.
    Page,
}

/// What a call goes through.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Kind.
    pub kind: Kind,
    /// The route that decided, for incoming calls.
    pub route: Option<Label>,
    /// Stages, in order.
    pub stages: Vec<Stage>,
    /// The final answer when there is no stage at all.
    pub refuse: Option<Refuse>,
    /// Whether the call is recorded, unless a stage says otherwise.
    pub record: bool,
    /// The trail.
    pub why: Vec<Why>,
}

/// A refusal in SIP's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refuse {
    /// Status.
    pub status: u16,
    /// Reason phrase.
    pub phrase: &'static str,
}

/// One stage: a target and its patience.
#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    /// Where.
    pub target: Target,
    /// How long a round rings.
    pub ring: Duration,
    /// How long rounds are repeated; zero: one round.
    pub wait: Duration,
    /// What the step said of `ring`; steps that it leads to ring as long, unless they say otherwise.
    pub limit: Option<Duration>,
    /// It joins the stage before it so much later, while that one goes on ringing; zero: it comes after that one.
    pub after: Duration,
    /// Whether who answers must confirm, if it says so.
    pub confirm: Option<bool>,
    /// Shown before the caller's name.
    pub caller_name: Option<Label>,
    /// Whether calls answered here are recorded, if it says so.
    pub record: Option<bool>,
    /// `play:` answers the call first.
    pub answer: bool,
    /// The phone answers by itself.
    pub intercom: bool,
    /// Callers from these regions go past it.
    pub except_regions: Vec<Region>,
    /// The extension whose phone sent the call here; outside it is as its mobile.
    pub by: Option<Label>,
}

impl Stage {
    /// A stage that says nothing but where and how long.
    pub fn new(target: Target, ring: Duration) -> Stage {
        Stage {
            target,
            ring,
            wait: Duration::ZERO,
            limit: None,
            after: Duration::ZERO,
            confirm: None,
            caller_name: None,
            record: None,
            answer: false,
            intercom: false,
            except_regions: Vec::new(),
            by: None,
        }
    }

    /// The stage with the target that its own stands for.
    fn leading_to(&self, target: Target) -> Stage {
        Stage { target, except_regions: Vec::new(), ..self.clone() }
    }
}

/// How long a step rings that does not say.
pub const RING: Duration = Duration::from_secs(30);
/// How long a phone rings that was dialled by a colleague, and an outside number.
pub const RING_DIALLED: Duration = Duration::from_secs(180);
/// Stages that one call goes through at most.
pub const MAX_STAGES: usize = 64;

fn recorded(directory: &Directory, own: Option<Recording>) -> bool {
    own.unwrap_or(directory.recording) == Recording::All
}
