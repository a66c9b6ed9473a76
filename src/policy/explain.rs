//! What would become of a call: [`plan()`] and [`fork()`], the very functions that calls run, played through as if nobody answered.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Ask, Branch, Fork, Kind, Live, MAX_STAGES, Moment, Stage, Why, fork, page, plan};
use crate::base::Wall;
use crate::directory::{Directory, E164, Label, Strategy, Target};

/// Which call is meant, as a person writes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Question {
    /// Into the company or out of it.
    pub way: Way,
    /// A caller's number or `anonymous`; for a call out, an extension.
    pub from: String,
    /// A number of ours; for a call out, what is dialled.
    pub to: String,
    /// When; now if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Wall>,
}

/// Which way a call goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From a carrier.
    Inbound,
    /// From a phone of ours.
    Outbound,
}

/// What would become of a call.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// When.
    pub at: Wall,
    /// The route that decides, for calls from outside.
    pub route: Option<Label>,
    /// Its steps, or where a dialled call goes, in order.
    pub steps: Vec<Step>,
    /// The caller ID of the first leg that goes out.
    pub shown: Option<E164>,
    /// The trunk that the call comes by, or the first that it goes out by.
    pub trunk: Option<Label>,
    /// The final answer if nobody takes the call.
    pub last: u16,
    /// How the decision was made, before any step: of the caller, of routes.
    pub decided: Vec<Why>,
}

/// One step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// In the operator's words.
    pub target: String,
    /// Whether the call goes there.
    pub taken: bool,
    /// Why, and what it led to.
    pub why: Vec<Why>,
    /// Who rings, in order.
    pub legs: Vec<Leg>,
    /// The call is refused here with this status.
    pub refused: Option<u16>,
}

/// Somebody who rings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Leg {
    /// `extension:121`, `number:+79120000101`.
    pub target: String,
    /// Who that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Label>,
    /// For how long at most, in milliseconds; all waiting rounds of a queue included.
    pub ring_ms: u64,
    /// This much later than the step begins, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after_ms: u64,
    /// Out through this trunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<Label>,
    /// Which is shown there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<E164>,
    /// Legs of one turn ring together, turns one after the other; from 1.
    pub turn: usize,
    /// Whose mobile it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mobile_of: Option<Label>,
    /// Whoever answers has to press 1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// Rings only if the one before could not take the call at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub instead: bool,
}

fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

impl Question {
    /// As calls ask it. What is wrong, in words, if there can be no such call.
    pub fn ask(&self, directory: &Directory) -> Result<Ask, String> {
        let read = |text: &str| E164::read(text, directory.node.country);
        match self.way {
            Way::Inbound => {
                let ours = read(&self.to).and_then(|n| directory.number(n));
                let ours = ours.ok_or_else(|| format!("{} is no number of ours", self.to))?;
                let caller = read(&self.from);
                let anonymous = ["anonymous", "unknown", "restricted", ""].contains(&self.from.as_str());
                if caller.is_none() && !anonymous {
                    return Err(format!("{} is no telephone number (and not `anonymous`)", self.from));
                }
                Ok(Ask::In { trunk: ours.trunk.clone(), number: ours.e164, caller, anonymous: caller.is_none() })
            }
            Way::Outbound => {
                let extension = directory.extension(&self.from);
                let extension = extension.ok_or_else(|| format!("there is no extension {}", self.from))?;
                Ok(Ask::Dialled { extension: extension.number.clone(), text: self.to.clone() })
            }
        }
    }
}

/// Plays a call through.
pub fn explain(ask: &Ask, directory: &Directory, live: &dyn Live, at: Wall) -> Explained {
    let plan = plan(ask, directory, at);
    let trunk = match ask {
        Ask::In { trunk, .. } => Some(trunk.clone()),
        Ask::Dialled { .. } | Ask::Operator { .. } => None,
    };
    let mut told = Explained {
        at,
        route: plan.route,
        steps: Vec::new(),
        shown: None,
        trunk,
        last: plan.refuse.map_or(480, |r| r.status),
        decided: plan.why,
    };
    let mut tried = Vec::new();
    let mut worst = None;
    for stage in plan.stages {
        let step = play(stage, ask, directory, live, at, &mut tried, &mut worst);
        let refused = step.refused;
        told.steps.push(step);
        if let Some(status) = refused {
            told.last = status;
            return told.counted();
        }
    }
    // A caller from outside always hears the same; one of ours hears what was wrong with the only step.
    if plan.kind != Kind::In
        && let (Some(status), true) = (worst, told.steps.iter().all(|s| !s.taken))
    {
        told.last = status;
    }
    told.counted()
}

fn play(
    stage: Stage,
    ask: &Ask,
    directory: &Directory,
    live: &dyn Live,
    at: Wall,
    tried: &mut Vec<Target>,
    last: &mut Option<u16>,
) -> Step {
    let target = stage.target.to_string();
    let mut step = Step { target, taken: false, why: Vec::new(), legs: Vec::new(), refused: None };
    let mut ahead = vec![stage];
    let (mut passed, mut plays) = (0, false);
    while let Some(stage) = ahead.pop()
        && passed < MAX_STAGES
    {
        passed += 1;
        let moment = Moment { ask, directory, live, at, tried, spent: &[], rung: &[] };
        let ring = stage.wait.max(stage.ring);
        let turn = step.legs.last().map_or(1, |l| l.turn + 1);
        match fork(&stage, &moment, &mut step.why) {
            Fork::Ring(branches) => {
                let queue = match &stage.target {
                    Target::Queue(name) => directory.queue(name).filter(|queue| queue.strategy != Strategy::RingAll),
                    _ => None,
                };
                let ring = if queue.is_some() { stage.ring } else { ring };
                let legs = |branch| Leg::all(branch, directory, &stage, ring, turn);
                step.legs.extend(branches.iter().flat_map(legs));
                if let Some(queue) = queue {
                    let rung = owners(&branches);
                    others(&stage, &moment, rung, &mut step);
                    if !stage.wait.is_zero() {
                        let because = format!("one after the other, for {} s in all", stage.wait.as_secs());
                        step.why.push(Why::new(format!("queue:{}", queue.name), because));
                    }
                }
            }
            Fork::Through(stages) => ahead.extend(stages.into_iter().rev()),
            Fork::Refuse(status) => {
                step.refused = Some(status);
                step.taken = true;
                return step;
            }
            Fork::Skip(status) => {
                *last = Some(status);
                continue;
            }
            Fork::Play(_) => plays = true,
            Fork::Page(number) => {
                let Some(page) = directory.page(&number) else { continue };
                let found = page::members(page, &moment);
                let left = |l: &page::LeftOut| {
                    Why::new(stage.target.to_string(), format!("not {}: {}", l.extension, l.because))
                };
                step.why.extend(found.left_out.iter().map(left));
                step.why.extend(found.zones.iter().map(|zone| Why::new(stage.target.to_string(), zone.to_string())));
                plays |= !found.zones.is_empty();
                let way = |s: &page::Speaker| super::Way::Extension(s.extension.clone());
                let branch = Branch::new(None, found.speakers.iter().map(way).collect());
                let legs = Leg::all(&branch, directory, &stage, page::DIAL, turn);
                step.legs.extend(legs.into_iter().map(|leg| Leg { instead: false, ..leg }));
            }
            Fork::Ask(hook) => {
                let patience = directory.hook(&hook).map_or(0, |hook| hook.timeout.as_millis());
                let because =
                    format!("a call asks it and waits {patience} ms at most; here it is not asked, so: go on");
                step.why.push(Why::new(format!("hook:{hook}"), because));
            }
            // Where nobody talks nobody waits; it has no leg to show.
            Fork::Wait => {}
        }
        tried.push(stage.target);
    }
    step.taken = plays || !step.legs.is_empty();
    step
}

/// The agents whom a queue rings after the first, one by one, each in a turn of its own.
fn others(stage: &Stage, moment: &Moment<'_>, mut rung: Vec<Label>, step: &mut Step) {
    while let Fork::Ring(branches) = fork(stage, &Moment { rung: &rung, ..*moment }, &mut Vec::new()) {
        let new = owners(&branches);
        // All had a turn: it begins anew.
        if new.is_empty() || new.iter().any(|owner| rung.contains(owner)) {
            return;
        }
        let turn = step.legs.last().map_or(1, |l| l.turn + 1);
        let legs = branches.iter().flat_map(|branch| Leg::all(branch, moment.directory, stage, stage.ring, turn));
        step.legs.extend(legs);
        rung.extend(new);
    }
}

fn owners(branches: &[Branch]) -> Vec<Label> {
    branches.iter().filter_map(|branch| branch.owner.clone()).collect()
}

impl Leg {
    fn all(branch: &Branch, directory: &Directory, stage: &Stage, ring: Duration, turn: usize) -> Vec<Leg> {
        let leg = |(i, way)| Leg { turn, instead: i > 0, ..Leg::of(way, branch, directory, stage, ring) };
        branch.ways.iter().enumerate().map(leg).collect()
    }

    fn of(way: &super::Way, branch: &Branch, directory: &Directory, stage: &Stage, ring: Duration) -> Leg {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let leg = Leg {
            target: String::new(),
            name: None,
            ring_ms: ms(ring),
            after_ms: ms(stage.after + branch.after),
            trunk: None,
            shown: None,
            turn: 1,
            mobile_of: None,
            confirm: branch.confirm,
            instead: false,
        };
        match way {
            super::Way::Extension(number) => Leg {
                target: format!("extension:{number}"),
                name: directory.extension(number).map(|e| e.name.clone()),
                ..leg
            },
            super::Way::Trunk { trunk, user, shown } => Leg {
                target: match &stage.target {
                    target @ (Target::Number(_) | Target::Emergency(_)) => target.to_string(),
                    _ => format!("number:{user}"),
                },
                mobile_of: branch.owner.clone().filter(|owner| directory.extension(owner).is_some()),
                trunk: Some(trunk.clone()),
                shown: *shown,
                ..leg
            },
        }
    }
}

impl Explained {
    /// The whole trail, as the record of such a call keeps it.
    pub fn trail(&self) -> impl Iterator<Item = &Why> {
        self.decided.iter().chain(self.steps.iter().flat_map(|s| &s.why))
    }

    /// `{route, steps:[{target, result, why, legs}], shown, trunk, explain:[{rule, because}]}`.
    pub fn json(&self) -> Value {
        let step = |s: &Step| {
            let why: Vec<&str> = s.why.iter().map(|w| w.because.as_str()).collect();
            let result = if s.taken { "ring" } else { "skip" };
            json!({ "target": s.target, "result": result, "why": why.join("; "), "legs": s.legs })
        };
        json!({
            "route": self.route,
            "steps": self.steps.iter().map(step).collect::<Vec<Value>>(),
            "shown": self.shown,
            "trunk": self.trunk,
            "explain": self.trail().collect::<Vec<&Why>>(),
        })
    }

    /// Completes what the legs say.
    fn counted(mut self) -> Explained {
        let out = self.steps.iter().flat_map(|s| &s.legs).find(|l| l.trunk.is_some());
        if let Some(out) = out {
            self.shown = out.shown;
            self.trunk = self.trunk.or_else(|| out.trunk.clone());
        }
        self
    }
}
