//! The table of caller IDs (`fixtures/policy/caller-id/calls.txt`), and that no configuration shows what its trunk may not show.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::Config;
use crate::base::{Wall, map};
use crate::directory::{Directory, E164, Label, Node, Number, Target, Trunk};
use crate::policy::{self, Ask, Fork, Live, Moment, Way, Why};

/// Noon of a working day.
const NOW: Wall = Wall::from_micros(1_795_590_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// What is so in a line of the table.
#[derive(Debug)]
struct So {
    down: Vec<String>,
    full: Vec<String>,
    knows: Option<(E164, Wall)>,
}

impl Live for So {
    fn bindings(&self, _: &str) -> usize {
        0
    }
    fn calls(&self, _: &str) -> u32 {
        0
    }
    fn trunk_up(&self, trunk: &str) -> bool {
        !self.down.iter().any(|t| t == trunk)
    }
    fn trunk_calls(&self, trunk: &str) -> u32 {
        if self.full.iter().any(|t| t == trunk) { u32::MAX } else { 0 }
    }
    fn sticky(&self, _: E164) -> Option<(E164, Wall)> {
        self.knows
    }
}

fn ways(
    ask: &Ask,
    target: Option<Target>,
    directory: &Directory,
    live: &dyn Live,
) -> (Vec<(Label, Option<E164>)>, Vec<Why>) {
    let mut plan = policy::plan(ask, directory, NOW);
    let stage = plan.stages.first_mut().expect("somebody is rung");
    stage.target = target.unwrap_or_else(|| stage.target.clone());
    let moment = Moment { ask, directory, live, at: NOW, tried: &[], spent: &[], rung: &[] };
    let mut why = Vec::new();
    let ways = match policy::fork(stage, &moment, &mut why) {
        Fork::Ring(branches) => branches
            .into_iter()
            .flat_map(|branch| branch.ways)
            .filter_map(|way| match way {
                Way::Trunk { trunk, shown, .. } => Some((trunk, shown)),
                Way::Extension(_) => None,
            })
            .collect(),
        Fork::Skip(503) => Vec::new(),
        other => panic!("{other:?}"),
    };
    (ways, why)
}

#[test]
fn the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policy/caller-id/company.toml");
    let config = Config::load(&path).unwrap_or_else(|r| panic!("{}", r.render(false)));
    let directory = &config.directory;
    let mut failed = String::new();
    let table = include_str!("../../../fixtures/policy/caller-id/calls.txt");
    for (i, line) in table.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.trim().is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [who, called, facts, sees, because] = columns[..] else { panic!("line {}: not five columns", i + 1) };
        let mut so = So { down: Vec::new(), full: Vec::new(), knows: None };
        let mut anonymous = false;
        for fact in facts.split(',').map(str::trim).filter(|f| !f.is_empty()) {
            match fact.split_ascii_whitespace().collect::<Vec<_>>()[..] {
                ["down", trunk] => so.down.push(trunk.to_owned()),
                ["full", trunk] => so.full.push(trunk.to_owned()),
                ["knows", number, ago] => {
                    let days: u32 = ago.strip_suffix('d').and_then(|d| d.parse().ok()).expect("days, as 3d");
                    let at = NOW.micros() - (DAY * days).as_micros() as i64;
                    so.knows = Some((number.parse().expect("a number"), Wall::from_micros(at)));
                }
                ["hidden"] => anonymous = true,
                _ => panic!("line {}: `{fact}` says nothing", i + 1),
            }
        }
        let (ask, target) = match who.split_once('>') {
            Some((caller, ours)) => {
                let number: E164 = ours.parse().expect("a number of ours");
                let trunk = directory.number(number).expect("a number of ours").trunk.clone();
                let caller = Some(caller.parse().expect("a number"));
                let to = called.parse().expect("a number in E.164 form");
                (Ask::In { trunk, number, caller, anonymous }, Some(Target::Number(to)))
            }
            None => (Ask::Dialled { extension: who.into(), text: called.replace(' ', "") }, None),
        };
        let (ways, why) = ways(&ask, target, directory, &so);
        let told: Vec<String> = ways
            .iter()
            .map(|(trunk, shown)| format!("{} {trunk}", shown.map_or("no number".to_owned(), |n| n.to_string())))
            .collect();
        let told = if told.is_empty() { "nothing: 503".to_owned() } else { told.join(", ") };
        let trail: Vec<String> = why.iter().map(|w| format!("{}: {}", w.rule, w.because)).collect();
        if told != sees || !trail.iter().any(|t| t.contains(because)) {
            let _ = writeln!(failed, "{}: {line}\n   sees {told}\n   {}", i + 1, trail.join("\n   "));
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
}

fn number(n: u64) -> E164 {
    E164::from_digits(&n.to_string()).expect("a number")
}

proptest! {
    /// Whatever the company, the order, the trunks and the past: what is shown is the trunk's own, or the trunk takes others;
    /// it is a number that is shown at all, or the customer's own on a call that is forwarded.
    #[test]
    fn never_a_number_that_its_trunk_may_not_show(
        trunks in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..3), 1..5),
        numbers in prop::collection::vec((0u64..60, any::<prop::sample::Index>(), any::<bool>()), 0..8),
        order in Just(crate::directory::CallerIdRule::ALL.to_vec()).prop_shuffle(),
        default in any::<prop::sample::Index>(),
        knows in prop::option::of((any::<prop::sample::Index>(), 0u32..200)),
        area in prop::sample::select(vec![343u64, 383, 401, 381, 495, 812, 342, 912, 800]),
        forwarded in any::<bool>(),
        anonymous in any::<bool>(),
    ) {
        let mut d = Directory::empty(Node::new("any", "any.example"));
        for (i, (foreign, _, max)) in trunks.iter().enumerate() {
            let mut trunk = Trunk::new(&format!("t{i}"), "sip:192.0.2.1");
            (trunk.foreign_numbers, trunk.max_calls) = (*foreign, *max);
            d.trunks.push(trunk);
        }
        let mut seen = map();
        for (n, trunk, show) in &numbers {
            let area = [343, 383, 401, 495][(*n % 4) as usize];
            let e164 = number(70_000_000_000 + area * 10_000_000 + 3_000_000 + n);
            if seen.insert(e164, ()).is_none() {
                let mut number = Number::new(e164, &format!("t{}", trunk.index(trunks.len())));
                number.show = *show;
                d.numbers.push(number);
            }
        }
        d.extensions.push(crate::directory::Extension::new("121", "Anna", "x"));
        d.routes.push(crate::directory::Route::new("all", Target::Number(number(79_120_000_777))));
        d.caller_id.order = order;
        d.caller_id.default = (!d.numbers.is_empty()).then(|| d.numbers[default.index(d.numbers.len())].e164);
        let d = d.indexed();
        let live = So {
            down: trunks.iter().enumerate().filter(|(_, t)| t.1).map(|(i, _)| format!("t{i}")).collect(),
            full: vec!["t0".to_owned()],
            knows: knows.filter(|_| !d.numbers.is_empty()).map(|(n, days)| {
                (d.numbers[n.index(d.numbers.len())].e164, Wall::from_micros(NOW.micros() - (DAY * days).as_micros() as i64))
            }),
        };
        let customer = number(79_130_000_001);
        let ours = d.numbers.first().map(|n| n.e164).filter(|_| forwarded);
        let ask = match ours {
            Some(number) => Ask::In { trunk: "t0".into(), number, caller: Some(customer), anonymous },
            None => Ask::In { trunk: "t0".into(), number: customer, caller: None, anonymous: true },
        };
        let target = Target::Number(number(70_000_000_000 + area * 10_000_000 + 2_221_122));
        for target in [target, Target::Emergency("112".into())] {
            let emergency = matches!(target, Target::Emergency(_));
            let (ways, why) = ways(&ask, Some(target), &d, &live);
            for (trunk, shown) in &ways {
                let trunk = d.trunk(trunk).expect("one of ours");
                match shown {
                    Some(shown) => {
                        let own = d.number(*shown).is_some_and(|n| n.show && (n.trunk == trunk.name || trunk.foreign_numbers));
                        let theirs = trunk.foreign_numbers && ours.is_some() && !anonymous && *shown == customer;
                        prop_assert!(own || theirs, "{shown} on {}: {why:?}", trunk.name);
                    }
                    None => prop_assert!(emergency || d.numbers.is_empty()),
                }
                prop_assert_eq!(ways.iter().filter(|w| w.0 == trunk.name).count(), 1, "each trunk is tried once");
            }
            prop_assert!(!emergency || ways.len() == d.trunks.len(), "an emergency call tries everyone");
            prop_assert!(!why.is_empty());
        }
    }
}
