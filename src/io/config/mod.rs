//! The configuration: one TOML file and `conf.d/*.toml` beside it, read whole, checked whole, and turned into a
//! [`Directory`] and what the server's edges need. All errors are told at once, with file, line and caret.
//!
//! The way of a file: [`dom`] reads text into a tree with places; [`walk`] holds the tree against [`schema`]; [`check`] looks
//! at what only shows across tables; [`here`] at what shows on this machine; [`secret`] resolves passwords; [`sounds`] reads what is played; [`build`] makes the [`Config`]. Nothing here panics,
//! whatever the file holds.

mod build;
mod calendar;
mod check;
mod defaults;
mod dom;
mod here;
mod meant;
mod names;
mod numbering;
pub mod problem;
mod schema;
mod secret;
mod sounds;
mod target;
mod value;
mod walk;

#[cfg(test)]
mod shown;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;

use super::clock::Clock;
use crate::directory::Directory;
use crate::media::sound::Library;
pub use value::duration;

use problem::{Place, Problem, Report, Severity, Source};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/strowger/strowger.toml";
/// Largest configuration file.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Lines of what is not in force yet, at most; the rest is counted.
const MAX_NOT_YET: usize = 100;
/// Files in `conf.d` at most.
const MAX_FILES: usize = 1000;

/// A configuration without errors.
#[derive(Debug)]
pub struct Config {
    /// The main file.
    pub path: PathBuf,
    /// What the core decides by. `not_yet` lists what is valid and not in force, a line each.
    pub directory: Arc<Directory>,
    /// Where the server keeps its own files and its control socket.
    pub data_dir: PathBuf,
    /// Files that grow.
    pub files: Files,
    /// RTP ports.
    pub media: MediaPorts,
    /// `[http]`, not in force yet.
    pub http: Option<Http>,
    /// What is played to callers.
    pub sounds: Arc<Library>,
    /// Bytes of the ring that keeps raw messages.
    pub ladder: usize,
    /// Warnings.
    pub report: Report,
}

/// Files that grow, with their limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The SQLite database.
    pub database: PathBuf,
    /// The database of imported lists.
    pub imported: PathBuf,
    /// Folder of recordings.
    pub recordings: PathBuf,
    /// Age at which a recording is deleted; none: never.
    pub keep: Option<Duration>,
}

/// Where media is received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaPorts {
    /// Address to bind.
    pub bind: IpAddr,
    /// Address in SDP.
    pub advertise: IpAddr,
    /// RTP and RTCP ports.
    pub ports: RangeInclusive<u16>,
}

/// `[http]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Http {
    /// Address and port.
    pub bind: SocketAddr,
}

impl Config {
    /// Reads the file and `conf.d/*.toml` beside it.
    pub fn load(path: &Path) -> Result<Config, Report> {
        let texts = files(path).map_err(|problem| Report { sources: Vec::new(), problems: vec![*problem] })?;
        Config::of(path, texts, false)
    }

    /// As [`Config::load`], and looks at what shows on this machine only: addresses, folders, imported contacts.
    pub fn check(path: &Path) -> Result<Config, Report> {
        let texts = files(path).map_err(|problem| Report { sources: Vec::new(), problems: vec![*problem] })?;
        Config::of(path, texts, true)
    }

    fn of(path: &Path, texts: Vec<(PathBuf, String)>, here: bool) -> Result<Config, Report> {
        let mut config = read(texts, &|name| std::env::var(name).ok(), today(), here)?;
        config.path = path.to_owned();
        Ok(config)
    }

    /// Reads a single text as if it stood in the file `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Config, Report> {
        Config::of(path, vec![(path.to_owned(), text.to_owned())], false)
    }

    /// The control socket of a server with this configuration.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.join(super::api::SOCKET)
    }
}

/// What the command line must know to find a server, read from a file that may well have errors elsewhere.
#[derive(Clone, Debug)]
pub struct Places {
    /// The server's control socket.
    pub socket: PathBuf,
    /// Its database.
    pub database: PathBuf,
    /// The folder of recordings.
    pub recordings: PathBuf,
    /// The node's zone; UTC if it is not known.
    pub zone: jiff::tz::TimeZone,
    /// The country whose national numbers are meant.
    pub country: Option<crate::directory::Country>,
}

impl Places {
    /// Reads them. Fails only if there is no such file.
    pub fn load(path: &Path) -> Result<Places, Report> {
        let texts = files(path).map_err(|problem| Report { sources: Vec::new(), problems: vec![*problem] })?;
        let folders: Vec<PathBuf> =
            texts.iter().map(|(p, _)| p.parent().map(Path::to_owned).unwrap_or_default()).collect();
        let mut root = dom::Node::table(Place::default());
        for (i, (_, text)) in texts.iter().enumerate() {
            let file = u16::try_from(i).unwrap_or(u16::MAX);
            let node = dom::read(file, text, &mut Vec::new(), &mut Vec::new());
            dom::merge(&mut root, node, &mut Vec::new());
        }
        let folder = |place: Place| folders.get(usize::from(place.file)).cloned().unwrap_or_default();
        let (secrets, years) = (secret::Secrets::new(), calendar::Years::new());
        let (data_dir, files) = build::Builder::at(&root, &secrets, &years, &folder).places();
        let node = build::View::of(&root, "node");
        let zone = node.text("timezone").and_then(|t| value::zone(&t).ok());
        Ok(Places {
            socket: data_dir.join(super::api::SOCKET),
            database: files.database,
            recordings: files.recordings,
            zone: zone.unwrap_or(jiff::tz::TimeZone::UTC),
            country: node.text("country").and_then(|c| crate::directory::Country::parse(&c)),
        })
    }
}

/// The day by which a missing production calendar is told, to the nearest zone.
fn today() -> Date {
    jiff::tz::TimeZone::UTC.to_datetime(Clock::new().wall().timestamp()).date()
}

/// Reads a step that stands in a hook's answer: a target, or a table with one, in the words of the file. Whether the target
/// exists shows when the step's turn comes.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_step(value: &serde_json::Value) -> Result<crate::directory::Step, String> {
    build::step(value)
}

/// Every key with type and default, as a file that is itself a valid configuration.
pub fn defaults() -> String {
    defaults::print()
}

fn files(path: &Path) -> Result<Vec<(PathBuf, String)>, Box<Problem>> {
    let mut all = vec![(path.to_owned(), file(path)?)];
    let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(all) };
    let toml = |p: &PathBuf| p.extension().is_some_and(|e| e == "toml");
    let mut more: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(toml).collect();
    more.sort();
    if more.len() > MAX_FILES {
        let problem = Problem::nowhere("config::file", format!("{}: more than {MAX_FILES} files", folder.display()));
        return Err(Box::new(problem.help("put several together")));
    }
    for path in more {
        let text = file(&path)?;
        all.push((path, text));
    }
    Ok(all)
}

fn file(path: &Path) -> Result<String, Box<Problem>> {
    let wrong = |why: String, help: &str| {
        Box::new(Problem::nowhere("config::file", format!("{}: {why}", path.display())).help(help))
    };
    let found =
        std::fs::metadata(path).map_err(|e| wrong(e.to_string(), "name the configuration with --config FILE"))?;
    if found.is_dir() {
        let inside = path.join("strowger.toml");
        let help = match inside.is_file() {
            true => format!("did you mean {}?", inside.display()),
            false => "name the file itself; conf.d/*.toml beside it is read too".to_owned(),
        };
        return Err(wrong("this is a folder, not a file".to_owned(), &help));
    }
    if found.len() > MAX_FILE {
        return Err(wrong(format!("larger than {} MiB", MAX_FILE >> 20), "split it into conf.d"));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string(), "the server's user must be able to read it"))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count() + 1;
        wrong(format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })
}

/// Reads texts that were read already; `here`: looks around on this machine too.
fn read(
    texts: Vec<(PathBuf, String)>,
    env: secret::Environment<'_>,
    today: Date,
    here: bool,
) -> Result<Config, Report> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    let mut broken = Vec::new();
    let mut root: Option<dom::Node> = None;
    let mut folders = Vec::new();
    for (i, (path, text)) in texts.into_iter().enumerate() {
        let file = u16::try_from(i).unwrap_or(u16::MAX);
        // A byte order mark is what editors of one system put in front; TOML has none.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let node = dom::read(file, &text, &mut problems, &mut broken);
        folders.push(path.parent().map(Path::to_owned).unwrap_or_default());
        sources.push(Source { path, text: dom::quotable(&text, &node) });
        match &mut root {
            None => root = Some(node),
            Some(root) => dom::merge(root, node, &mut problems),
        }
    }
    let mut root = root.unwrap_or_else(|| dom::Node::table(Place::default()));
    let folder = |place: Place| folders.get(usize::from(place.file)).cloned().unwrap_or_default();

    names::respell(&mut root, &schema::ROOT);
    let names = names::Names::collect(&root);
    let walk = walk::Walk::over(&root, &names);
    let mut secrets = secret::Secrets::new();
    let mut found = walk.problems;
    check::across(&root, &names, &folder, env, &mut secrets, &mut found);
    let years = calendar::read(&root, &folder, today, &mut found);
    let library = sounds::load(&root, &folder, &mut found);
    let plan = numbering::read(&root, &folder, &mut found);
    if here {
        let builder = build::Builder::at(&root, &secrets, &years, &folder);
        let (data_dir, files) = builder.places();
        here::check(&root, &data_dir, &files, &mut found);
    }
    if !broken.is_empty() {
        // What a slip of syntax swallowed is not missing.
        let swallowed = [
            "config::missing_key",
            "config::unknown_target",
            "config::unknown_name",
            "config::no_listener",
            "config::no_last_route",
        ];
        found.retain(|p| {
            let line = p.at.and_then(|at| Some((at.file, sources.get(usize::from(at.file))?.line(at.start))));
            !swallowed.contains(&p.code) && line.is_none_or(|l| !broken.contains(&l))
        });
    }
    problems.extend(found);
    problems.sort_by_key(|p| (p.at.is_none(), p.at));
    problems.dedup();
    let report = Report { sources, problems };
    if report.is_fatal() {
        return Err(report);
    }

    let mut builder = build::Builder::at(&root, &secrets, &years, &folder);
    builder.not_yet = walk.not_yet;
    let mut config = builder.build();
    config.sounds = Arc::new(library);
    let mut not_yet = builder.not_yet;
    not_yet.sort();
    let more = not_yet.len().saturating_sub(MAX_NOT_YET);
    not_yet.truncate(MAX_NOT_YET);
    let say = |(at, words): (Place, String)| match report.sources.get(usize::from(at.file)) {
        Some(source) => {
            let file = source.path.file_name().unwrap_or_default().to_string_lossy();
            format!("{file}:{}: {words}", source.line(at.start))
        }
        None => words,
    };
    if let Some(directory) = Arc::get_mut(&mut config.directory) {
        directory.numbering = Arc::new(plan);
        directory.not_yet = not_yet.into_iter().map(say).collect();
        if more > 0 {
            directory.not_yet.push(format!("… and {more} more"));
        }
    }
    debug_assert!(report.problems.iter().all(|p| p.severity == Severity::Warning), "errors were returned above");
    config.report = report;
    Ok(config)
}
