//! `strowger check`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use super::{Fail, complain, output};
use crate::io::config::{self, Config};

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file; else that of --config.
    #[arg(conflicts_with = "defaults")]
    file: Option<PathBuf>,
    /// Prints every key with type and default, as a file to begin with.
    #[arg(long)]
    defaults: bool,
}

/// Checks the whole file.
pub fn run(config: &Path, args: &Args) -> Result<(), Fail> {
    if args.defaults {
        return output::say(&config::defaults());
    }
    let path = args.file.as_deref().unwrap_or(config);
    let config = Config::check(path)?;
    if !config.report.problems.is_empty() {
        complain(config.report.render(io::stderr().is_terminal()).trim_end());
    }
    let directory = &config.directory;
    for line in &directory.not_yet {
        complain(&format!("not yet in force: {line}"));
    }
    let (_, warnings) = config.report.counts();
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let parts = [
        count(directory.trunks.len(), "trunk"),
        count(directory.numbers.len(), "number"),
        count(directory.extensions.len(), "extension"),
        count(directory.queues.len(), "queue"),
        count(directory.routes.len(), "route"),
    ];
    let warned = if warnings == 0 { String::new() } else { format!(", {}", count(warnings, "warning")) };
    output::say(&format!("{}: valid{warned}: {}\n", path.display(), parts.join(", ")))
}
