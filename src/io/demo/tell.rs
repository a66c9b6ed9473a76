//! What the audience sees: each call as one plain sentence made from the server's record, a few lines of why and where, and on
//! demand its ladder.

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

/// Tells it.
pub struct Teller<'a> {
    /// Who is who.
    pub directory: &'a Directory,
    /// The demo's configuration, for commands that the audience may try.
    pub config: &'a Path,
    /// Whether colours are wanted.
    pub colour: bool,
    /// One JSON object a scene instead of words.
    pub json: bool,
}

impl Teller<'_> {
    /// Says what runs where.
    pub fn opening(&self, running: &Running, dir: &Path, socket: &Path) {
        if self.json {
            return;
        }
        let on = running.handle();
        eprintln!("{} the office of fixtures/office.toml, played on this machine", self.bold("strowger demo"));
        eprintln!("  listens    {on}");
        eprintln!("  carriers   {}", self.carriers());
        eprintln!("  files      {}", dir.display());
        eprintln!("  control    {}", socket.display());
        eprintln!("  clock      set to {} for this play\n", self.when(running.handle().clock().wall(), "%A, %e %B %Y"));
    }

    /// Tells a scene.
    pub fn scene(&self, out: &mut dyn Write, scene: &Scene, played: &Played) -> io::Result<()> {
        if self.json {
            return writeln!(out, "{}", self.object(scene, played));
        }
        let sign = if played.ok() { self.paint("32", "✓") } else { self.paint("31", "✗") };
        let time = self.bold(&self.when(played.at, "%H:%M"));
        writeln!(out, "{sign} {time}  {}", self.sentence(scene, played))?;
        if let Some(record) = &played.record {
            self.reasons(out, record)?;
        }
        self.checked(out, played)?;
        for check in played.checks.iter().filter(|c| !c.ok) {
            writeln!(out, "           {} {}", self.paint("31", "WRONG   "), check.what)?;
        }
        for file in &played.recordings {
            self.detail(out, "recorded", &self.file(file))?;
        }
        if let Some(ladder) = &played.ladder {
            self.ladder(out, ladder)?;
        } else if let Some(record) = &played.record {
            self.detail(
                out,
                "ladder",
                &format!("strowger call {} --ladder --config {}", record.id, self.config.display()),
            )?;
        }
        writeln!(out)
    }

    /// Says what it came to.
    pub fn ending(&self, all_well: bool, scenes: usize, dir: &Path, once: bool) {
        if self.json {
            return;
        }
        if all_well {
            eprintln!(
                "{} All {scenes} scenes did what they say. Recordings and database stay in {}",
                self.paint("32", "✓"),
                dir.display()
            );
        } else {
            eprintln!("{} Something did not do what it says: see the lines marked WRONG.", self.paint("31", "✗"));
        }
        if !once {
            let config = self.config.display();
            eprintln!("\nThe server stays up until Ctrl-C. From another terminal:");
            for command in ["records", "phones", "trunks"] {
                eprintln!("  strowger {command} --config {config}");
            }
        }
    }

    /// The call in one sentence, from its record.
    pub fn sentence(&self, scene: &Scene, played: &Played) -> String {
        let Some(record) = &played.record else { return format!("{}.", capital(scene.title)) };
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
                let _ = write!(text, "; {} rang", rang.join(" and "));
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

    /// Why it went where it went: what decided, and how much before it did not.
    fn reasons(&self, out: &mut dyn Write, record: &CallRecord) -> io::Result<()> {
        let passed_over = |w: &Why| ["not taken", "skipped"].iter().any(|word| w.because.starts_with(word));
        for why in record.explain.iter().filter(|w| !passed_over(w)) {
            self.detail(out, "why", &format!("{}: {}", why.rule, why.because))?;
        }
        match record.explain.iter().filter(|w| passed_over(w)).count() {
            0 => Ok(()),
            1 => self.detail(out, "", "(1 rule before it does not hold)"),
            n => self.detail(out, "", &format!("({n} rules before it do not hold)")),
        }
    }

    fn checked(&self, out: &mut dyn Write, played: &Played) -> io::Result<()> {
        let (ends, figures) = played.checks.split_at(played.at_the_ends);
        let right = |checks: &[Check]| checks.iter().filter(|c| c.ok).map(|c| c.what.clone()).collect::<Vec<_>>();
        let (mut seen, figures) = (right(ends), right(figures).len());
        if figures > 0 {
            seen.push(format!("{figures} figures of the record"));
        }
        for few in seen.chunks(3) {
            let name = if few[0] == seen[0] { "checked" } else { "" };
            self.detail(out, name, &few.join(" · "))?;
        }
        Ok(())
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
            (Some(number), Direction::In) => number.clone(),
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

    /// Who rang, in the order of the record, each once.
    fn rang(&self, record: &CallRecord) -> Vec<String> {
        let mut rang: Vec<String> = Vec::new();
        for who in record.journey.iter().flat_map(|p| &p.who).filter(|w| w.target.contains(':')) {
            let name = who.target.strip_prefix("extension:").map_or_else(|| who.target.clone(), |n| self.person(n));
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
        format!("{}  {:.1} s, left {left} (caller), right {right} (called)", file.path.display(), file.seconds)
    }

    fn ladder(&self, out: &mut dyn Write, ladder: &Value) -> io::Result<()> {
        let drawn = ladder::draw(ladder, &|at| self.when(at, "%H:%M:%S%.3f"));
        drawn.lines().try_for_each(|line| writeln!(out, "           {}", self.paint("2", line)))
    }

    fn detail(&self, out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
        writeln!(out, "           {} {}", self.paint("2", &format!("{name:<8}")), self.paint("2", text))
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

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
