//! Where log lines go: standard error, as text or JSON. The filter is tracing's, e.g. `info,strowger::io::net=debug`.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::Fail;

/// Options of commands that run a server.
#[derive(Debug, Args)]
pub struct Log {
    /// What is logged: error, warn, info, debug, trace, or per module; else RUST_LOG.
    #[arg(long = "log", value_name = "FILTER", env = "RUST_LOG")]
    filter: Option<String>,
    /// How log lines look.
    #[arg(long = "log-format", value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Log {
    /// Sends log lines on their way from now on.
    pub fn begin(&self, default: &str) -> Result<(), Fail> {
        let words = self.filter.as_deref().filter(|f| !f.trim().is_empty()).unwrap_or(default);
        let filter = EnvFilter::try_new(words).map_err(|e| Fail::Usage(format!("--log {words}: {e}")))?;
        let terminal = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let log = log.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none());
        // The journal stamps each line itself.
        let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !terminal;
        let done = match (self.format, journal) {
            (Format::Json, _) => log.json().flatten_event(true).try_init(),
            (Format::Text, true) => log.with_target(false).without_time().try_init(),
            (Format::Text, false) => log.with_target(false).try_init(),
        };
        done.map_err(|e| Fail::Failed(e.to_string()))
    }
}
