//! Whom a queue rings for a caller: a pure choice among the agents who are free. Who waits in which place, and what agents are
//! doing, is kept by the node; nothing here remembers anything.

use super::fork::{self, Hindrance, reach};
use super::{Branch, Fork, Live, Moment, Stage, Why};
use crate::base::Instant;
use crate::directory::{Directory, Label, Queue, Strategy};

/// What an agent is doing, besides being in calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Agent {
    /// Nothing rings there, from a colleague neither.
    pub do_not_disturb: bool,
    /// The agent pauses: no queue and no group rings.
    pub paused: bool,
    /// The time after a call (`wrap_up`) is not over.
    pub rests: bool,
    /// End of the last talk or of the last ringing that nobody took; none: none since the start.
    pub idle_since: Option<Instant>,
}

/// An agent who can be rung.
#[derive(Clone, PartialEq, Debug)]
struct Free<'a> {
    /// Place in the queue's list.
    place: usize,
    number: &'a Label,
    idle_since: Option<Instant>,
    /// Rung for this caller before, since every other had a turn.
    rung: bool,
    branches: Vec<Branch>,
}

/// What a queue comes to for a caller. An agent who was not rung for this caller yet has his turn first.
pub(super) fn ring(queue: &Queue, stage: &Stage, moment: &Moment<'_>, why: &mut Vec<Why>) -> Fork {
    let Moment { live, rung, .. } = *moment;
    let rule = format!("queue:{}", queue.name);
    let mut free = Vec::new();
    let mut passes = false;
    for (place, number) in queue.agents.iter().enumerate() {
        match reach(moment, number, true, why) {
            Ok(branches) => {
                let (idle_since, rung) = (live.agent(number).idle_since, rung.contains(number));
                free.push(Free { place, number, idle_since, rung, branches });
            }
            Err(hindrance) => {
                passes |= hindrance.passes;
                why.push(Why::new(rule.clone(), format!("{number} not rung: {}", hindrance.because)));
            }
        }
    }
    let waits = !stage.wait.is_zero();
    if !waits {
        free.retain(|agent| !agent.rung);
    }
    let last = live.last_rung(&queue.name).and_then(|last| queue.agents.iter().position(|a| *a == last));
    let chosen = choose(queue.strategy, &free, last);
    if !chosen.is_empty() {
        return Fork::Ring(chosen.into_iter().flat_map(|agent| agent.branches.iter().cloned()).collect());
    }
    if waits && passes {
        return Fork::Wait;
    }
    why.push(Why::new(
        rule,
        if rung.is_empty() { "skipped: no agent can be rung" } else { "nobody is left to be rung" },
    ));
    Fork::Skip(480)
}

fn choose<'a, 'b>(strategy: Strategy, free: &'b [Free<'a>], last: Option<usize>) -> Vec<&'b Free<'a>> {
    if strategy == Strategy::RingAll {
        return free.iter().collect();
    }
    // Whoever was rung for this caller before has another turn only when everybody had one.
    let fresh = free.iter().any(|agent| !agent.rung);
    let candidates = free.iter().filter(|agent| !fresh || !agent.rung);
    let one = match strategy {
        Strategy::RingAll | Strategy::FirstFree => candidates.min_by_key(|agent| agent.place),
        Strategy::LongestIdle => candidates.min_by_key(|agent| (agent.idle_since, agent.place)),
        // The next behind the one who was rung last, and round again.
        Strategy::RoundRobin => candidates.min_by_key(|agent| (last.is_some_and(|l| agent.place <= l), agent.place)),
    };
    one.into_iter().collect()
}

/// What a queue has for whoever waits in it, whoever that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outlook {
    /// An agent is free.
    Free,
    /// None is free, but one will be.
    Later,
    /// None will be.
    Nobody,
}

/// What there is to wait for.
pub fn outlook(queue: &str, directory: &Directory, live: &dyn Live) -> Outlook {
    let agents = directory.queue(queue).map(|q| q.agents.as_slice()).unwrap_or_default();
    let mut outlook = Outlook::Nobody;
    for number in agents {
        let free = match directory.extension(number) {
            Some(extension) if live.bindings(number) == 0 && extension.mobile.is_none() => continue,
            Some(extension) => fork::free(extension, live, &[], true),
            None => fork::available(number, live, &[], 1, true),
        };
        match free {
            Ok(()) => return Outlook::Free,
            Err(Hindrance { passes: true, .. }) => outlook = Outlook::Later,
            Err(_) => {}
        }
    }
    outlook
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::Ask;
    use super::*;
    use crate::base::Wall;
    use crate::directory::{Extension, Node, Target};

    /// Agents as a line: `121 free idle=5`, `122 busy`, `123 rests`, `124 paused`, `125 dnd`, `126 away`.
    struct Office {
        agents: BTreeMap<String, (Agent, u32, usize)>,
        last: Option<Label>,
    }

    impl Office {
        fn read(text: &str) -> Office {
            let mut office = Office { agents: BTreeMap::new(), last: None };
            for line in text.split(',') {
                let mut words = line.split_whitespace();
                let number = words.next().expect("a number").to_owned();
                let (mut agent, mut calls, mut bindings) = (Agent::default(), 0, 1);
                for word in words {
                    match word {
                        "busy" => calls = 1,
                        "rests" => agent.rests = true,
                        "paused" => agent.paused = true,
                        "dnd" => agent.do_not_disturb = true,
                        "away" => bindings = 0,
                        idle => agent.idle_since = idle.parse().ok().map(|s: u64| Instant::from_micros(s * 1_000_000)),
                    }
                }
                office.agents.insert(number, (agent, calls, bindings));
            }
            office
        }
    }

    impl Live for Office {
        fn bindings(&self, extension: &str) -> usize {
            self.agents[extension].2
        }
        fn calls(&self, extension: &str) -> u32 {
            self.agents[extension].1
        }
        fn trunk_up(&self, _: &str) -> bool {
            true
        }
        fn trunk_calls(&self, _: &str) -> u32 {
            0
        }
        fn agent(&self, extension: &str) -> Agent {
            self.agents[extension].0
        }
        fn last_rung(&self, _: &str) -> Option<Label> {
            self.last.clone()
        }
    }

    #[test]
    fn whom_a_queue_rings() {
        use Strategy::{FirstFree, LongestIdle, RingAll, RoundRobin};
        for (strategy, agents, last, rung, spent, want) in [
            (RingAll, "1,2,3", "", "", "", "1 2 3"),
            (RingAll, "1 busy,2,3 away", "", "", "", "2"),
            (RingAll, "1 dnd,2 paused,3 rests", "", "", "", "wait"),
            (RingAll, "1 dnd,2 paused,3 away", "", "", "", "nobody"),
            (RingAll, "1,2,3", "", "", "1,2,3", "nobody"),
            (FirstFree, "1,2,3", "", "", "", "1"),
            (FirstFree, "1 busy,2,3", "3", "", "", "2"),
            (FirstFree, "1,2,3", "", "1", "", "2"),
            (FirstFree, "1,2,3", "", "1,2,3", "", "1"),
            (FirstFree, "1 busy,2 busy", "", "", "", "wait"),
            (FirstFree, "1 busy,2", "", "", "2", "wait"),
            (FirstFree, "1 busy,2", "", "", "1,2", "nobody"),
            (LongestIdle, "1 30,2 10,3 20", "", "", "", "2"),
            (LongestIdle, "1 30,2 10,3 20", "", "2", "", "3"),
            (LongestIdle, "1 30,2 10,3", "", "", "", "3"),
            (LongestIdle, "1 10,2 10,3 20", "", "", "", "1"),
            (RoundRobin, "1,2,3", "", "", "", "1"),
            (RoundRobin, "1,2,3", "1", "", "", "2"),
            (RoundRobin, "1,2,3", "3", "", "", "1"),
            (RoundRobin, "1,2 busy,3", "1", "", "", "3"),
            (RoundRobin, "1,2,3", "2", "3", "", "1"),
        ] {
            let mut office = Office::read(agents);
            let list = |text: &str| text.split(',').filter(|t| !t.is_empty()).map(Label::from).collect::<Vec<_>>();
            office.last = list(last).pop();
            let mut directory = Directory::empty(Node::new("n", "d"));
            let numbers: Vec<Label> = office.agents.keys().map(|n| Label::from(n.as_str())).collect();
            directory.extensions = numbers.iter().map(|n| Extension::new(n, n, "secret")).collect();
            let queue = Queue { strategy, ..Queue::new("q", numbers) };
            let directory = directory.indexed();
            let wait = Duration::from_secs(60);
            let stage = Stage { wait, ..Stage::new(Target::Queue("q".into()), Duration::from_secs(20)) };
            let ask = Ask::Dialled { extension: "9".into(), text: "q".into() };
            let (spent, rung) = (list(spent), list(rung));
            let (at, tried) = (Wall::default(), &[][..]);
            let moment =
                Moment { ask: &ask, directory: &directory, live: &office, at, tried, spent: &spent, rung: &rung };
            let fork = super::ring(&queue, &stage, &moment, &mut Vec::new());
            let got = match fork {
                Fork::Page(_) => panic!("a queue is no page"),
                Fork::Ring(branches) => {
                    let owners: Vec<&str> = branches.iter().filter_map(|b| b.owner.as_deref()).collect();
                    owners.join(" ")
                }
                Fork::Wait => "wait".to_owned(),
                Fork::Through(_) | Fork::Ask(_) | Fork::Play(_) | Fork::Refuse(_) | Fork::Skip(_) => {
                    "nobody".to_owned()
                }
            };
            assert_eq!(got, want, "{strategy:?} of {agents}, last {last}, rung {rung:?}, spent {spent:?}");
        }
    }

    #[test]
    fn a_queue_without_a_wait_rings_everybody_once() {
        let office = Office::read("1,2 busy");
        let mut directory = Directory::empty(Node::new("n", "d"));
        directory.extensions = ["1", "2"].iter().map(|n| Extension::new(n, n, "secret")).collect();
        let directory = directory.indexed();
        let queue = Queue { strategy: Strategy::FirstFree, ..Queue::new("q", vec!["1".into(), "2".into()]) };
        let stage = Stage::new(Target::Queue("q".into()), Duration::from_secs(20));
        let ask = Ask::Dialled { extension: "9".into(), text: "q".into() };
        let ring = |rung: &[Label]| {
            let (at, tried, spent) = (Wall::default(), &[][..], &[][..]);
            let moment = Moment { ask: &ask, directory: &directory, live: &office, at, tried, spent, rung };
            super::ring(&queue, &stage, &moment, &mut Vec::new())
        };
        assert!(matches!(ring(&[]), Fork::Ring(branches) if branches.len() == 1));
        assert_eq!(ring(&["1".into()]), Fork::Skip(480));
    }
}
