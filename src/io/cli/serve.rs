//! `strowger serve`.

use std::path::Path;

use super::Fail;
use super::log::Log;
use crate::io::config::Config;

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: Log,
}

/// Runs the server until it is told to end.
pub fn run(path: &Path, args: &Args) -> Result<(), Fail> {
    args.log.begin("info")?;
    let config = Config::load(path)?;
    for problem in &config.report.problems {
        tracing::warn!("{} ({})", config.report.line_of(problem), problem.help);
    }
    for line in &config.directory.not_yet {
        tracing::warn!("not yet in force: {line}");
    }
    crate::io::serve(config).map_err(|e| Fail::Failed(e.to_string()))
}
