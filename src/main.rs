//! The command line, for now only what runs a server. See the library for what it does.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use strowger::io::config::Config;
use strowger::io::{demo, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| words.iter().any(|w| w == flag);
    let after = |flag: &str| words.iter().skip_while(|w| *w != flag).nth(1).map(PathBuf::from);
    match words.first().map(String::as_str) {
        Some("serve") => {
            let path = after("--config").unwrap_or_else(|| strowger::io::config::DEFAULT_PATH.into());
            let config = match Config::load(&path) {
                Ok(config) => config,
                Err(report) => {
                    eprint!("{}", report.render(std::io::stderr().is_terminal()));
                    return ExitCode::from(2);
                }
            };
            for line in &config.directory.not_yet {
                eprintln!("not yet: {line}");
            }
            match serve(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("strowger: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Some("demo") => {
            let options =
                demo::Options { once: has("--once"), json: has("--json"), ladder: has("--ladder"), sabotage: None };
            let mut out = std::io::stdout();
            let colour = out.is_terminal();
            match demo::run(options, &mut out, colour) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("strowger: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            eprintln!("usage: strowger serve [--config FILE] | demo [--once] [--json] [--ladder]");
            ExitCode::from(2)
        }
    }
}
