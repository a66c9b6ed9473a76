//! What the audience sees: of each scene what it proves, the call as one plain sentence made from the server's record, a few
//! lines of why and where, and on demand its ladder.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::scenes::Scene;
use super::{Check, Heard, Played};
use crate::base::Wall;
use crate::call::record::{By, CallRecord, Direction, Outcome};
use crate::directory::Directory;
use crate::io::{Running, ladder};
use crate::policy::Why;

/// Where text begins that belongs to a scene.
const INDENT: usize = 9;
/// Columns of the names before it.
const NAME: usize = 9;
/// Where lines end, if they can.
const WIDTH: usize = 120;

/// Tells it.
pub struct Teller<'a> {
    /// Who is who.
    pub directory: &'a Directory,
    /// The demo's configuration, for commands that the audience may try.
    pub config: &'a Path,
    /// Where its files are.
    pub dir: &'a Path,
    /// Whether colours are wanted.
    pub colour: bool,
    /// One JSON object a scene instead of words.
    pub json: bool,
}

impl Teller<'_> {
    /// Says what runs where.
    pub fn opening(&self, running: &Running, contacts: u64, socket: &Path) {
        if self.json {
            return;
        }
        let on = running.handle();
        eprintln!(
            "{} the office of fixtures/office.toml, played on this machine by real SIP and RTP",
            self.bold("strowger demo")
        );
        eprintln!("  listens    {on}");
        eprintln!("  carriers   {}", self.carriers());
        eprintln!("  contacts   {contacts} customers, imported from contacts.csv");
        eprintln!("  files      {}", self.dir.display());
        eprintln!("  control    {}", socket.display());
        eprintln!("  clock      set anew for each scene; a manager's phone rings for 3 s here, 15 s in the file");
    }

    /// A new day begins.
    pub fn day(&self, out: &mut dyn Write, played: &Played) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let (day, zone) = (self.when(played.at, "%A, %-d %B %Y"), self.when(played.at, "%Q"));
        writeln!(out, "\n{}, {zone}", self.bold(&day))
    }

    /// Tells a scene.
    pub fn scene(&self, out: &mut dyn Write, scene: &Scene, played: &Played) -> io::Result<()> {
        if self.json {
            return writeln!(out, "{}", self.object(scene, played));
        }
        let sign = if played.ok() { self.paint("32", "✓") } else { self.paint("31", "✗") };
        let time = self.when(played.at, "%H:%M");
        writeln!(out, "\n{sign} {time}  {}", self.bold(scene.proves))?;
        if let Some(record) = &played.record {
            self.detail(out, "call", &self.sentence(scene, played))?;
            self.reasons(out, record)?;
        }
        self.checked(out, played)?;
        for check in played.checks.iter().filter(|c| !c.ok) {
            let name = self.paint("31", &format!("{:<NAME$}", "WRONG"));
            writeln!(out, "{:INDENT$}{name}{}", "", check.what)?;
        }
        for file in &played.recordings {
            self.detail(out, "recorded", &self.file(file))?;
        }
        if let Some(ladder) = &played.ladder {
            self.ladder(out, ladder)?;
        }
        if let Some(record) = &played.record {
            self.detail(out, "record", &record.id.to_string())?;
        }
        Ok(())
    }

    /// Says what it came to.
    pub fn ending(&self, all_well: bool, scenes: usize, once: bool) {
        if self.json {
            return;
        }
        let (dir, config) = (self.dir.display(), self.config.display());
        if all_well {
            eprintln!("\n{} All {scenes} scenes did what they say. Their files stay in {dir}", self.paint("32", "✓"));
        } else {
            eprintln!("\n{} Something did not do what it says: see the lines marked WRONG.", self.paint("31", "✗"));
        }
        eprintln!("  why a call went where it went: strowger call RECORD --config {config}");
        if once {
            return;
        }
        eprintln!("\nThe server stays up until Ctrl-C. From another terminal, each with --config {config}:");
        for command in ["call RECORD --ladder", "records", "phones", "trunks"] {
            eprintln!("  strowger {command}");
        }
    }

    /// The call in one sentence, from its record.
    pub fn sentence(&self, scene: &Scene, played: &Played) -> String {
        let Some(record) = &played.record else { return format!("{}.", scene.proves) };
        let mut text = format!("{} called {}", self.caller(record), self.called(record));
        let rang: Vec<String> = self.rang(record);
        let waited = seconds(record.wait_ms);
        match (record.direction, record.outcome) {
            (Direction::Out, _) => {
                let shown = record.shown.as_deref().unwrap_or("no number");
                let trunk = record.trunk.as_deref().unwrap_or("no trunk");
                let _ = write!(text, " by {trunk}, showing {shown}");
            }
            (Direction::In | Direction::Internal | Direction::Page, _) if !rang.is_empty() => {
                let _ = write!(text, "; {} rang", rang.join(", "));
            }
            (Direction::In | Direction::Internal | Direction::Page, _) => text.push_str("; nothing rang"),
        }
        match record.outcome {
            Outcome::Answered => {
                let who = record.answered_by.as_deref().map(|w| self.short(w)).unwrap_or_default();
                let _ = write!(text, ", {who} answered after {waited}, they talked {}", seconds(record.talk_ms));
                if record.hold_ms > 0 {
                    let _ = write!(text, " with {} on hold", seconds(record.hold_ms));
                }
                let by = match record.hangup.by {
                    By::Caller => "the caller".to_owned(),
                    By::Callee => who,
                    By::System => "strowger".to_owned(),
                };
                let _ = write!(text, ", {by} hung up.");
            }
            Outcome::Short | Outcome::Missed | Outcome::NonTarget => {
                let _ = write!(text, "; nobody answered, the caller gave up after {waited}.");
            }
            Outcome::Busy | Outcome::Rejected | Outcome::Failed => {
                let why = record.hangup.reason.clone().unwrap_or_default();
                let status = record.hangup.sip.map(|s| s.to_string()).unwrap_or_default();
                let _ = write!(text, "; it ended after {waited}: {status} {why}.");
            }
        }
        text
    }

    /// Why it went where it went: what decided. What was passed over before that is in the record.
    fn reasons(&self, out: &mut dyn Write, record: &CallRecord) -> io::Result<()> {
        let mut name = "why";
        for why in record.explain.iter().filter(|w| decided(w)) {
            self.detail(out, name, &format!("{}: {}", why.rule, why.because))?;
            name = "";
        }
        Ok(())
    }

    fn checked(&self, out: &mut dyn Write, played: &Played) -> io::Result<()> {
        let (ends, figures) = played.checks.split_at(played.at_the_ends);
        let right = |checks: &[Check]| checks.iter().filter(|c| c.ok).map(|c| c.what.clone()).collect::<Vec<_>>();
        let (mut seen, figures) = (right(ends), right(figures).len());
        if figures > 0 {
            seen.push(format!("{figures} things in the record"));
        }
        // No line ends within one of them.
        let seen: Vec<String> = seen.iter().map(|what| what.replace(' ', "\u{a0}")).collect();
        self.detail(out, "checked", &seen.join(" · "))
    }

    fn object(&self, scene: &Scene, played: &Played) -> Value {
        json!({
            "scene": scene.name,
            "at": played.at,
            "ok": played.ok(),
            "text": self.sentence(scene, played),
            "checks": played.checks,
            "record": played.record,
            "recordings": played.recordings,
            "ladder": played.ladder,
        })
    }

    fn caller(&self, record: &CallRecord) -> String {
        match (&record.caller.number, record.direction) {
            (None, _) => "somebody who hides the number".into(),
            (Some(number), Direction::In) => match &record.caller.name {
                Some(name) => format!("{name} ({number})"),
                None => number.clone(),
            },
            (Some(number), Direction::Out | Direction::Internal | Direction::Page) => self.person(number),
        }
    }

    fn called(&self, record: &CallRecord) -> String {
        let called = &record.called;
        match called.label.as_deref().or(called.campaign.as_deref()) {
            Some(label) => format!("{} ({label})", called.number),
            None => self.person(&called.number),
        }
    }

    /// A target in words: `121 Анна Смирнова`, `121's mobile`, `+7…`.
    fn target(&self, target: &str) -> String {
        let Some((kind, name)) = target.split_once(':') else { return target.to_owned() };
        let owns = |e: &&crate::directory::Extension| e.mobile.as_ref().is_some_and(|m| m.number.to_string() == name);
        match (kind, self.directory.extensions.iter().find(owns)) {
            ("number", Some(owner)) => format!("{}'s mobile", owner.number),
            _ => self.person(name),
        }
    }

    /// Who rang, in the order of the record, each once.
    fn rang(&self, record: &CallRecord) -> Vec<String> {
        let mut rang: Vec<String> = Vec::new();
        for who in record.journey.iter().flat_map(|p| &p.who).filter(|w| w.target.contains(':')) {
            let name = self.target(&who.target);
            if !rang.contains(&name) {
                rang.push(name);
            }
        }
        rang
    }

    /// `122` of `extension:122`, `+7…` of `number:+7…`.
    fn short(&self, target: &str) -> String {
        target.split_once(':').map_or(target, |(_, name)| name).to_owned()
    }

    /// An extension with its person's name.
    fn person(&self, number: &str) -> String {
        self.directory.extension(number).map_or_else(|| number.to_owned(), |e| format!("{number} {}", e.name))
    }

    fn carriers(&self) -> String {
        let trunk = |t: &crate::directory::Trunk| {
            let uris: Vec<&str> = t.uris.iter().map(|u| u.strip_prefix("sip:").unwrap_or(u)).collect();
            format!("{} {}", t.name, uris.join(", "))
        };
        self.directory.trunks.iter().map(trunk).collect::<Vec<_>>().join(" · ")
    }

    fn file(&self, file: &Heard) -> String {
        let hz = |tone: Option<u32>| tone.map_or_else(|| "silence".to_owned(), |hz| format!("{hz} Hz"));
        let (left, right) = (hz(file.left), hz(file.right));
        let path = file.path.strip_prefix(self.dir).unwrap_or(&file.path);
        format!("{}  {:.1} s, left {left} caller, right {right} called", path.display(), file.seconds)
    }

    fn ladder(&self, out: &mut dyn Write, ladder: &Value) -> io::Result<()> {
        let drawn = ladder::draw(ladder, &|at| self.when(at, "%H:%M:%S%.3f"));
        drawn.lines().try_for_each(|line| writeln!(out, "{:INDENT$}{}", "", self.paint("2", line)))
    }

    /// A named piece of text, its further lines below its first.
    fn detail(&self, out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
        let mut name = name;
        for line in lines(text, WIDTH - INDENT - NAME) {
            let line = line.replace('\u{a0}', " ");
            writeln!(out, "{:INDENT$}{}{line}", "", self.paint("2", &format!("{name:<NAME$}")))?;
            name = "";
        }
        Ok(())
    }

    fn when(&self, at: Wall, format: &str) -> String {
        at.timestamp().to_zoned(zone(self.directory)).strftime(format).to_string()
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The server's zone.
pub fn zone(directory: &Directory) -> jiff::tz::TimeZone {
    directory.node.zone.clone()
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Whether it decided something, and was not passed over.
fn decided(why: &Why) -> bool {
    let passed_over = ["not taken", "skipped"].iter().any(|word| why.because.starts_with(word));
    let no_number = &*why.rule == "caller ID" && !why.because.starts_with('+');
    !passed_over && !no_number
}

/// Text in lines of at most `width` letters, where its words allow it.
fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.chars().count() + word.trim_end().chars().count() > width {
            line.truncate(line.trim_end_matches([' ', '·']).len());
            lines.push(word.to_owned());
        } else {
            line.push_str(word);
        }
    }
    lines
}
