//! Plays seeded worlds: the seeds of `seeds.txt` that once failed, then new ones. `STROWGER_SEEDS=100..200` chooses others,
//! `-v` prints the ladder of a failure, `-vv` every message.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use sip_tests::core::core;
use sip_tests::swarm::{Outcome, play};

/// Seeds that are played without being asked for, in a release build.
const SEEDS: u64 = 500;
/// The same in a debug build.
const SEEDS_DEBUG: u64 = 50;
/// Every so many seeds one is played twice, to see that it is the same.
const TWICE: u64 = 50;
/// Failures that are told at length.
const TOLD: usize = 10;

#[expect(clippy::disallowed_methods, reason = "which seeds, and how long they took, is not part of any world")]
fn main() -> ExitCode {
    let level = std::env::args().filter_map(|a| a.strip_prefix('-').map(|v| v.matches('v').count())).max().unwrap_or(0);
    let known = include_str!("../seeds.txt").lines().filter_map(|l| l.split('#').next()?.trim().parse().ok());
    let seeds: Vec<u64> = match std::env::var("STROWGER_SEEDS").ok().as_deref().map(range) {
        Some(Some((a, b))) => (a..b).collect(),
        Some(None) => {
            println!("STROWGER_SEEDS is a number or two like 100..200");
            return ExitCode::FAILURE;
        }
        None => known.chain(0..if cfg!(debug_assertions) { SEEDS_DEBUG } else { SEEDS }).collect(),
    };
    let began = Instant::now();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut failed, mut sum) = (Vec::new(), [0u64; 5]);
    for &seed in &seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| play(seed, core)));
        let again = || catch_unwind(AssertUnwindSafe(|| play(seed, core).print)).ok();
        let why = match &outcome {
            Err(panic) => Some(format!("panic: {}", words(panic.as_ref()))),
            Ok(o) if !o.faults.is_empty() => Some(o.faults.join("\n    ")),
            Ok(o) if seed % TWICE == 0 && again() != Some(o.print) => Some("played twice, it was not the same".into()),
            Ok(_) => None,
        };
        if let Ok(o) = &outcome {
            let now = [o.records as u64, o.answered as u64, o.sip as u64, o.rtp, o.faults.len() as u64];
            sum.iter_mut().zip(now).for_each(|(a, b)| *a += b);
        }
        if let Some(why) = why {
            failed.push(seed);
            if failed.len() <= TOLD {
                tell(seed, &why, outcome.ok().as_ref(), level);
            }
        }
    }
    let [records, answered, sip, rtp, _] = sum;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds in {seconds:.1} s: {records} calls, {answered} answered, {sip} SIP messages, {rtp} RTP packets; {} failed {:?}",
        seeds.len(),
        failed.len(),
        failed
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(seed: u64, why: &str, outcome: Option<&Outcome>, level: usize) {
    println!("FAILED  seed {seed}{}", outcome.map_or(String::new(), |o| format!(" ({})", o.weather)));
    println!("    {why}");
    println!("    replay: STROWGER_SEEDS={seed} cargo test --release -p sip-tests --test swarm -- -v");
    if let Some(outcome) = outcome {
        if level >= 1 {
            println!("{}", outcome.ladder);
        }
        if level >= 2 {
            println!("{}", outcome.messages);
        }
    }
}

fn range(text: &str) -> Option<(u64, u64)> {
    match text.split_once("..") {
        Some((a, b)) => Some((a.parse().ok()?, b.parse().ok()?)),
        None => text.parse().ok().map(|a: u64| (a, a + 1)),
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
