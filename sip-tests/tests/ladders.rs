//! Plays every ladder over a perfect network and over bad ones. `cargo test -p sip-tests --test ladders [WORD]` plays those
//! whose name holds the word; with `-v` it prints every message of a failure, with `-l` the ladder of a success too.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use sip_tests::core::core;
use sip_tests::ladder::Ladder;
use sip_tests::net::Weather;

/// Networks, and the seeds that each is tried with.
const NETWORKS: [(&str, Weather, std::ops::Range<u64>); 4] = [
    ("fair", Weather::FAIR, 1..2),
    ("loss", Weather::LOSSY, 1..4),
    ("twice", Weather::ECHO, 1..3),
    ("shuffled", Weather::SHUFFLE, 1..4),
];

/// What the command line asks for.
struct Wanted {
    verbose: bool,
    brief: bool,
    fair: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let wanted = Wanted { verbose: has("-v"), brief: has("-b"), fair: has("--fair") };
    let words: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let mut ladders = Vec::new();
    let mut failed = 0;
    for ladder in Ladder::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ladders")) {
        match ladder {
            Ok(ladder) if words.is_empty() || words.iter().any(|w| ladder.name.contains(w.as_str())) => {
                ladders.push(ladder)
            }
            Ok(_) => {}
            Err(why) => {
                println!("FAILED  {why}");
                failed += 1;
            }
        }
    }
    let (next, runs, faults) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(failed));
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                while let Some(ladder) = ladders.get(next.fetch_add(1, Relaxed)) {
                    let (played, bad, told) = play(ladder, &wanted);
                    runs.fetch_add(played, Relaxed);
                    faults.fetch_add(usize::from(bad), Relaxed);
                    // In one piece, or two ladders' lines would mix.
                    print!("{told}");
                }
            });
        }
    });
    let failed = faults.into_inner();
    println!("{} ladders, {} runs, {failed} failed", ladders.len(), runs.into_inner());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a ladder over every network: how many runs, whether one failed, and the lines to print.
fn play(ladder: &Ladder, wanted: &Wanted) -> (usize, bool, String) {
    let (mut runs, mut failed, mut told) = (0, false, String::new());
    'networks: for (network, weather, seeds) in NETWORKS {
        if network != "fair" && (ladder.fair.is_some() || wanted.fair) {
            continue;
        }
        for seed in seeds {
            runs += 1;
            let Err(failure) = ladder.run(weather, seed, core) else { continue };
            failed = true;
            told += &format!("FAILED  {}  ({network} network, seed {seed})\n", ladder.name);
            told += &match (wanted.verbose, wanted.brief) {
                (true, _) => format!("{failure}\n{}\n", failure.messages),
                (_, true) => format!("    line {}: {}: {}\n", failure.line, failure.text, first(&failure.why)),
                _ => format!("{failure}\n"),
            };
            if network == "fair" {
                break 'networks;
            }
        }
    }
    if !failed {
        told = format!("ok      {}: {}\n", ladder.name, ladder.title);
    }
    (runs, failed, told)
}

fn first(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
