//! From a stage to branches: who is rung right now, who is not, and why.

use super::{Live, Stage, Why};
use crate::directory::{Directory, E164, Label, Target, Trunk};

/// One branch to ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Branch {
    /// All places where the extension's phones are registered.
    Extension(Label),
    /// Out through a trunk.
    Trunk {
        /// Which.
        trunk: Label,
        /// The user part of the request-URI, in the trunk's own number format.
        user: String,
        /// The caller ID that it shows; none for a withheld one.
        shown: Option<E164>,
    },
}

/// What a stage comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fork {
    /// These ring at once.
    Parallel(Vec<Branch>),
    /// These are tried one after the other, the next only if one could not take the call at all.
    Serial(Vec<Branch>),
    /// The stage answers the call with this status.
    Refuse(u16),
    /// Nobody to ring; what an outgoing call gets if nothing else comes of it.
    Skip(u16),
}

/// Branches of a stage. `spent` are extensions that were tried in this call and are not to be rung again (they rejected
/// it); `shown` is the original caller, for calls that go out again.
pub fn fork(stage: &Stage, directory: &Directory, live: &dyn Live, spent: &[Label], why: &mut Vec<Why>) -> Fork {
    let rule = stage.target.to_string();
    match &stage.target {
        Target::Extension(number) => match free(directory, live, number, spent, false) {
            Ok(()) => Fork::Parallel(vec![Branch::Extension(number.clone())]),
            Err((status, because)) => {
                why.push(Why::new(rule, format!("skipped: {because}")));
                Fork::Skip(status)
            }
        },
        Target::Queue(name) => {
            let mut branches = Vec::new();
            let agents = directory.queue(name).map(|q| q.agents.as_slice()).unwrap_or_default();
            for agent in agents {
                match free(directory, live, agent, spent, true) {
                    Ok(()) => branches.push(Branch::Extension(agent.clone())),
                    Err((_, because)) => why.push(Why::new(rule.clone(), format!("{agent} not rung: {because}"))),
                }
            }
            if branches.is_empty() {
                why.push(Why::new(rule, "skipped: no agent can be rung"));
                return Fork::Skip(480);
            }
            Fork::Parallel(branches)
        }
        Target::Number(number) => {
            outside(directory, live, &rule, why, |trunk| written(directory, trunk, *number), false)
        }
        Target::Emergency(digits) => outside(directory, live, &rule, why, |_| digits.to_string(), true),
        Target::Reject(status) => {
            why.push(Why::new(rule, "the call is refused"));
            Fork::Refuse(*status)
        }
        Target::NotYet(words) => {
            why.push(Why::new(words.to_string(), "skipped: not yet in force"));
            Fork::Skip(480)
        }
    }
}

fn free(
    directory: &Directory,
    live: &dyn Live,
    number: &str,
    spent: &[Label],
    queued: bool,
) -> Result<(), (u16, &'static str)> {
    let Some(extension) = directory.extension(number) else { return Err((404, "no such extension")) };
    let calls = live.calls(number);
    if spent.iter().any(|s| **s == *number) {
        Err((486, "it rejected this call"))
    } else if queued && extension.paging {
        Err((480, "a loudspeaker phone is never in a queue"))
    } else if live.bindings(number) == 0 {
        Err((480, "not registered"))
    } else if (queued && calls > 0) || (extension.max_calls > 0 && calls >= extension.max_calls) {
        Err((486, "busy"))
    } else {
        Ok(())
    }
}

/// Trunks for an outside number, in the order to try: the owner of the default caller ID, then every other with a number
/// that may be shown on it.
fn outside(
    directory: &Directory,
    live: &dyn Live,
    rule: &str,
    why: &mut Vec<Why>,
    write: impl Fn(&Trunk) -> String,
    emergency: bool,
) -> Fork {
    let default = directory.default_caller_id.and_then(|n| directory.number(n));
    let owner = default.and_then(|n| directory.trunk(&n.trunk));
    let mut trunks: Vec<&Trunk> = owner.into_iter().collect();
    trunks.extend(directory.trunks.iter().filter(|t| owner.is_none_or(|o| o.name != t.name)));
    let mut branches = Vec::new();
    let mut full = false;
    for trunk in trunks {
        let shown = caller_id(directory, trunk);
        if !live.trunk_up(&trunk.name) {
            why.push(Why::new(rule, format!("trunk {} skipped: down", trunk.name)));
        } else if !emergency && trunk.max_calls > 0 && live.trunk_calls(&trunk.name) >= trunk.max_calls {
            why.push(Why::new(rule, format!("trunk {} skipped: {} calls already", trunk.name, trunk.max_calls)));
            full = true;
        } else if shown.is_none() && !emergency && !directory.numbers.is_empty() {
            why.push(Why::new(rule, format!("trunk {} skipped: no number that may be shown on it", trunk.name)));
        } else {
            if branches.is_empty() {
                let number = shown.map_or("no number".to_owned(), |n| n.to_string());
                why.push(Why::new("caller ID", format!("{number}, on trunk {}", trunk.name)));
            }
            branches.push(Branch::Trunk { trunk: trunk.name.clone(), user: write(trunk), shown });
        }
    }
    match branches.is_empty() {
        true => {
            why.push(Why::new(rule, if full { "every trunk is full" } else { "no trunk takes the call" }));
            Fork::Skip(503)
        }
        false => Fork::Serial(branches),
    }
}

/// The number shown on a trunk: the default one if the trunk owns it or takes foreign numbers, else its own first.
fn caller_id(directory: &Directory, trunk: &Trunk) -> Option<E164> {
    let default = directory.default_caller_id.and_then(|n| directory.number(n));
    let fitting = default.filter(|n| n.show && (n.trunk == trunk.name || trunk.foreign_numbers));
    let own = || directory.numbers.iter().find(|n| n.show && n.trunk == trunk.name);
    fitting.or_else(own).map(|n| n.e164)
}

/// The number as the trunk wants it written.
fn written(directory: &Directory, trunk: &Trunk, number: E164) -> String {
    number.written(trunk.number_format, &directory.node.country)
}
