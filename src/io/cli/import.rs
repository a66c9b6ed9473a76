//! `strowger import`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Fail, complain, output};
use crate::io::api::client::{Client, ClientError};
use crate::io::clock::Clock;
use crate::io::config::Config;
use crate::io::import::rejects::Rejects;
use crate::io::import::{Changes, EXAMPLES, ImportError, Job, Outcome, Progress, What};

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the files hold.
    what: What,
    /// Together they are the whole list: what was imported before and stands in none of them is taken out. Calendars: a file
    /// takes the place of the one for its year, the others stay.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only tells what would change.
    #[arg(long)]
    dry_run: bool,
    /// Tells every change, not only the first five of each kind.
    #[arg(long)]
    all: bool,
    /// Where rows go that cannot be taken, with line and reason; else beside the first file, as FILE.rejects.csv.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// What changes, as one JSON object, with --all every change of it; `rejects` names the file with every row that was not taken as it is.
    #[arg(long)]
    json: bool,
}

/// Imports, and tells the server if one runs.
pub fn run(config: &Path, args: &Args) -> Result<(), Fail> {
    let config = Config::load(config)?;
    let place = args.rejects.clone().or_else(|| args.files.first().map(|file| file.with_extension("rejects.csv")));
    if let Some(place) = place.as_ref().filter(|place| args.files.contains(place)) {
        let place = output::plain(&place.display().to_string());
        return Err(Fail::Usage(format!(
            "{place} is to be read, and rejected rows would be written there: use --rejects"
        )));
    }
    let mut rejects = Rejects::to(&place.unwrap_or_default());
    let bar = Bar::new();
    let done = args.what.import(&mut Job {
        files: &args.files,
        dry_run: args.dry_run,
        directory: &config.directory,
        database: &config.files.imported,
        shown: if args.all { usize::MAX } else { EXAMPLES },
        now: Clock::new().wall(),
        rejects: &mut rejects,
        progress: &bar,
    });
    bar.0.finish_and_clear();
    let (rejected, trimmed) = (rejects.rejected, rejects.trimmed);
    // What was rejected tells why nothing could be taken.
    let kept = rejects.close().map_err(failed)?;
    if let Some(path) = &kept {
        let rows = |n: u64| format!("{n} row{}", if n == 1 { "" } else { "s" });
        let (rejected, trimmed) = (rows(rejected), rows(trimmed));
        let path = output::plain(&path.display().to_string());
        complain(&format!(
            "{rejected} rejected, {trimmed} taken without something; all of them with line and reason: {path}"
        ));
    }
    let outcome = done.map_err(failed)?;
    outcome.notes.iter().for_each(|note| complain(&output::plain(note)));
    if args.json {
        let mut value = serde_json::to_value(&outcome)?;
        value["rejected"] = rejected.into();
        value["trimmed"] = trimmed.into();
        value["rejects"] = kept.as_ref().map(|path| path.display().to_string()).into();
        output::json(&value)?;
    } else {
        output::say(&words(args.what, &outcome, rejected))?;
    }
    if args.dry_run {
        complain("a dry run: nothing was changed");
        return Ok(());
    }
    match Client::new(&config.socket()).post("/directory") {
        Ok(_) => complain("the server has it in force"),
        Err(ClientError::Unreachable { .. }) => complain("no server answers: the next one that starts takes it"),
        Err(other) => return Err(Fail::Failed(format!("it is stored, but the server did not take it: {other}"))),
    }
    Ok(())
}

fn failed(error: ImportError) -> Fail {
    Fail::Failed(output::plain(&error.to_string()))
}

/// The difference, for people.
fn words(what: What, outcome: &Outcome, rejected: u64) -> String {
    let kinds = [("new", &outcome.new), ("changed", &outcome.changed), ("removed", &outcome.removed)];
    let counts = kinds.map(|(name, changes)| format!("{} {name}", changes.count)).join(", ");
    let (what, rows, same) = (what.name(), outcome.rows, outcome.unchanged);
    let mut text = format!("{what}: {rows} rows, {rejected} rejected: {counts}, {same} unchanged\n");
    for (name, Changes { count, examples, .. }) in kinds {
        for example in examples {
            text.push_str(&format!("  {name:8} {}\n", output::plain(example)));
        }
        let more = count.saturating_sub(examples.len() as u64);
        if more > 0 {
            text.push_str(&format!("  {name:8} and {more} more (--all tells them)\n"));
        }
    }
    text
}

/// A bar on a terminal, nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let terminal = io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{msg:10} {wide_bar} {percent:>3}% {elapsed}");
        bar.set_style(style.expect("the template is well-formed"));
        Bar(bar)
    }
}

impl Progress for Bar {
    fn stage(&self, what: &'static str, steps: u64) {
        self.0.set_message(what);
        self.0.set_length(steps.max(1));
        self.0.set_position(0);
        self.0.tick();
    }

    fn at(&self, done: u64) {
        self.0.set_position(done);
    }
}
