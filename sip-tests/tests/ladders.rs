//! Plays every ladder over a perfect network and over bad ones. `cargo test -p sip-tests --test ladders [WORD]` plays those
//! whose name holds the word; with `-v` it prints every message of a failure, with `-l` the ladder of a success too.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::ExitCode;

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

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let verbose = args.iter().any(|a| a == "-v");
    let brief = args.iter().any(|a| a == "-b");
    let words: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let (mut played, mut failed, mut runs) = (0, 0, 0);
    for ladder in Ladder::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ladders")) {
        let ladder = match ladder {
            Ok(ladder) => ladder,
            Err(why) => {
                println!("FAILED  {why}");
                failed += 1;
                continue;
            }
        };
        if !words.is_empty() && !words.iter().any(|w| ladder.name.contains(w.as_str())) {
            continue;
        }
        played += 1;
        let mut faults = 0;
        'networks: for (network, weather, seeds) in NETWORKS {
            if network != "fair" && (ladder.fair.is_some() || args.iter().any(|a| a == "--fair")) {
                continue;
            }
            for seed in seeds {
                runs += 1;
                let Err(failure) = ladder.run(weather, seed, core) else { continue };
                faults += 1;
                println!("FAILED  {}  ({network} network, seed {seed})", ladder.name);
                match (verbose, brief) {
                    (true, _) => println!("{failure}\n{}", failure.messages),
                    (_, true) => println!("    line {}: {}: {}", failure.line, failure.text, first(&failure.why)),
                    _ => println!("{failure}"),
                }
                if network == "fair" {
                    break 'networks;
                }
            }
        }
        if faults == 0 {
            println!("ok      {}: {}", ladder.name, ladder.title);
        } else {
            failed += 1;
        }
    }
    println!("{played} ladders, {runs} runs, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn first(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
