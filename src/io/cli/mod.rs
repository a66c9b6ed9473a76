//! The command line. Data goes to standard output, talk to standard error; exit codes are 0 done, 1 failed, 2 usage or
//! configuration, 3 not found, 4 server not reachable. One small file per command; to add one, add a file, a variant of
//! [`Command`] and a line in [`run`].

mod call;
mod calls;
mod check;
mod demo;
mod explain;
mod import;
mod log;
pub mod output;
mod phones;
mod records;
mod serve;
mod steer;
mod trace;
mod trunks;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::Value;

use super::api::client::{Client, ClientError};
use super::config::problem::Report;
use super::config::{DEFAULT_PATH, Places};
use crate::base::Wall;

/// An embedded SIP back-to-back user agent and company telephone edge.
#[derive(Debug, Parser)]
#[command(name = "strowger", version, max_term_width = 100)]
struct Cli {
    /// The configuration file; conf.d/*.toml beside it is read too.
    #[arg(long, global = true, value_name = "FILE", env = "STROWGER_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Serve(serve::Args),
    /// Plays a short office day on loopback: simulated carriers, customers and phones, real SIP and RTP.
    Demo(demo::Args),
    /// Checks a configuration and tells all its errors at once.
    Check(check::Args),
    /// Tells what would become of a call, step by step, and why.
    Explain(explain::Args),
    /// Lists the calls in progress.
    Calls(JsonOnly),
    /// Shows a call: a live one with who is in it, a past one with its journey and why it went there.
    Call(call::Args),
    /// Lists finished calls.
    Records(records::Args),
    /// Lists the extensions and where their phones are registered.
    Phones(phones::Args),
    /// Lists the trunks and how they are.
    Trunks(JsonOnly),
    /// Shows the last SIP messages that belong to no call: registrations, OPTIONS, what was refused.
    Trace(trace::Args),
    /// Puts a list of another program in the place of the one before: who calls from which number.
    Import(import::Args),
    /// Plays a WAV file over a page, e.g. `page 700 fire-drill.wav`.
    Page(steer::PageArgs),
    /// Has the server read its configuration again; an invalid one is refused.
    Reload,
    /// Has the server take no new calls and end with the last.
    Drain,
    /// Prints completions for a shell.
    Completions {
        /// For which.
        shell: clap_complete::Shell,
    },
}

/// Options of a plain list.
#[derive(Debug, clap::Args)]
struct JsonOnly {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Fail {
    /// It did not work.
    Failed(String),
    /// The command line or the configuration.
    Usage(String),
    /// There is none such.
    NotFound(String),
    /// No server.
    Unreachable(String),
    /// Who read our output has gone, which is his business.
    Pipe,
}

impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Fail {
        if error.kind() == io::ErrorKind::BrokenPipe { Fail::Pipe } else { Fail::Failed(error.to_string()) }
    }
}

impl From<ClientError> for Fail {
    fn from(error: ClientError) -> Fail {
        match error {
            ClientError::Unreachable { .. } => {
                Fail::Unreachable(format!("{error}; is `strowger serve` running with this --config?"))
            }
            ClientError::Denied { .. } => {
                Fail::Unreachable(format!("{error}; run this as the user that runs `strowger serve`, or as root"))
            }
            ClientError::NotFound(what) => Fail::NotFound(what),
            ClientError::Refused(why) => Fail::Failed(why),
        }
    }
}

impl From<Report> for Fail {
    fn from(report: Report) -> Fail {
        Fail::Usage(format!("{}strowger: {report}", report.render(io::stderr().is_terminal())))
    }
}

impl From<serde_json::Error> for Fail {
    fn from(error: serde_json::Error) -> Fail {
        Fail::Failed(format!("the server's answer makes no sense ({error}); is it another version?"))
    }
}

/// Does what the process's arguments say.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no errors.
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nobody is left to tell if this cannot be written.
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let (code, words) = match run(&cli) {
        Ok(()) | Err(Fail::Pipe) => return ExitCode::SUCCESS,
        Err(Fail::Failed(words)) => (1, words),
        Err(Fail::Usage(words)) => (2, words),
        Err(Fail::NotFound(words)) => (3, words),
        Err(Fail::Unreachable(words)) => (4, words),
    };
    match words.as_str() {
        "" => {}
        // A report says who speaks in its last line.
        words if words.contains('\n') => complain(words),
        words => complain(&format!("strowger: {words}")),
    }
    ExitCode::from(code)
}

fn run(cli: &Cli) -> Result<(), Fail> {
    let office = || Office::open(&cli.config);
    match &cli.command {
        Command::Serve(args) => serve::run(&cli.config, args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(&cli.config, args),
        Command::Explain(args) => explain::run(&cli.config, args),
        Command::Calls(args) => calls::run(&office()?, args.json),
        Command::Call(args) => call::run(&office()?, args),
        Command::Records(args) => records::run(&office()?, args),
        Command::Phones(args) => phones::run(&office()?, args),
        Command::Trace(args) => trace::run(&office()?, args),
        Command::Trunks(args) => trunks::run(&office()?, args.json),
        Command::Import(args) => import::run(&cli.config, args),
        Command::Page(args) => steer::page(&office()?, args),
        Command::Reload => steer::reload(&office()?),
        Command::Drain => steer::drain(&office()?),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "strowger", &mut text);
            output::say(&String::from_utf8_lossy(&text))
        }
    }
}

/// A line to standard error, if anybody is there.
fn complain(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// The server that a configuration belongs to, running or not.
struct Office {
    places: Places,
    client: Client,
}

impl Office {
    fn open(config: &Path) -> Result<Office, Fail> {
        let places = Places::load(config)?;
        let client = Client::new(&places.socket);
        Ok(Office { places, client })
    }

    /// The items of a list that the server has.
    fn items<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Fail> {
        let mut answer = self.client.get(path)?;
        Ok(serde_json::from_value(answer.get_mut("items").map(Value::take).unwrap_or_default())?)
    }

    /// The head of a column with times: in which zone they are.
    fn column(&self, name: &str) -> String {
        format!("{name} ({})", self.zone())
    }

    /// The zone in which times are shown.
    fn zone(&self) -> &str {
        self.places.zone.iana_name().unwrap_or("local time")
    }

    /// The office's own time of a stamp.
    fn time(&self, at: Wall, format: &str) -> String {
        at.timestamp().to_zoned(self.places.zone.clone()).strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        for (words, good) in [
            (vec!["strowger", "serve", "--log-format", "json"], true),
            (vec!["strowger", "call", "X", "--ladder", "--config", "a.toml"], true),
            (vec!["strowger", "records", "--csv", "--json"], false),
            (vec!["strowger", "check", "a.toml", "--defaults"], false),
            (vec!["strowger", "explain", "inbound", "--from", "+79131234567", "--to", "+73833000001"], true),
            (vec!["strowger", "explain", "sideways", "--from", "121", "--to", "122"], false),
            (vec!["strowger", "page", "700", "drill.wav"], true),
            (vec!["strowger", "page", "700"], false),
            (vec!["strowger", "trace", "--address", "192.0.2.1", "--extension", "121", "-f"], true),
            (vec!["strowger", "trace", "--address", "somewhere"], false),
            (vec!["strowger", "trace", "--last", "0"], false),
            (vec!["strowger", "phones", "--registered"], true),
            (vec!["strowger", "explain"], false),
            (vec!["strowger"], false),
        ] {
            assert_eq!(Cli::try_parse_from(&words).is_ok(), good, "{words:?}");
        }
    }
}
