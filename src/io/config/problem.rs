//! What is wrong with a configuration, for the one who wrote it: a stable code, what, where with a caret, and what to do.
//! Rendered by miette, all problems of all files at once. Secrets in quoted lines are masked.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

/// Problems shown at most; the rest is counted.
const MAX_SHOWN: usize = 200;

/// A place in one of the files that were read: bytes `start..end` of file number `file`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Which file, in reading order.
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

impl Place {
    /// The place of `range` in file number `file`.
    pub fn new(file: u16, range: Range<usize>) -> Place {
        let end = range.end.max(range.start);
        Place {
            file,
            start: u32::try_from(range.start).unwrap_or(u32::MAX),
            end: u32::try_from(end).unwrap_or(u32::MAX),
        }
    }
}

/// Whether it stops us.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted, but hardly meant so.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Whether it stops us.
    pub severity: Severity,
    /// Stable name, e.g. `config::unknown_key`.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
    /// Where, and what stands there; none if the file could not even be read.
    pub at: Option<Place>,
    /// The words under the caret.
    pub label: String,
    /// A second place that belongs to it, e.g. where a name was used first.
    pub other: Option<(Place, String)>,
    /// What to do, with "did you mean" where there is something alike.
    pub help: String,
}

impl Problem {
    /// An error at a place.
    pub fn error(code: &'static str, at: Place, what: impl Into<String>) -> Problem {
        let (label, help) = ("here".to_owned(), String::new());
        Problem { severity: Severity::Error, code, what: what.into(), at: Some(at), label, other: None, help }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, at: Place, what: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(code, at, what) }
    }

    /// An error that has no place in a text.
    pub fn nowhere(code: &'static str, what: impl Into<String>) -> Problem {
        Problem { at: None, ..Problem::error(code, Place::default(), what) }
    }

    /// With other words under the caret.
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// With what to do.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = help.into();
        self
    }

    /// With a second place.
    pub fn other(mut self, at: Place, label: impl Into<String>) -> Problem {
        self.other = Some((at, label.into()));
        self
    }
}

/// One file that was read, for quoting.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path as the operator knows it.
    pub path: PathBuf,
    /// Its text with secrets masked and control characters made visible, byte for byte as long as the original.
    pub text: Arc<str>,
}

impl Source {
    /// The 1-based line of a byte.
    pub fn line(&self, byte: u32) -> usize {
        let end = (byte as usize).min(self.text.len());
        self.text.as_bytes()[..end].iter().filter(|b| **b == b'\n').count() + 1
    }
}

/// Everything that was found, with the texts to quote from.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The files, in reading order.
    pub sources: Vec<Source>,
    /// What was found, in file order.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether the configuration is refused.
    pub fn is_fatal(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// How many errors and how many warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.problems.iter().filter(|p| p.severity == Severity::Error).count();
        (errors, self.problems.len() - errors)
    }

    /// The 1-based line of a problem, if it has a place.
    pub fn line(&self, problem: &Problem) -> Option<usize> {
        let at = problem.at?;
        self.sources.get(usize::from(at.file)).map(|s| s.line(at.start))
    }

    /// All problems, each with its line and caret. `terminal`: with colours and box characters.
    pub fn render(&self, terminal: bool) -> String {
        let theme = if terminal { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
        let theme =
            if terminal && std::env::var_os("NO_COLOR").is_some() { GraphicalTheme::unicode_nocolor() } else { theme };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(110).with_links(false);
        let mut text = String::new();
        for problem in self.problems.iter().take(MAX_SHOWN) {
            let shown = Shown::new(self, problem);
            if handler.render_report(&mut text, &shown).is_err() {
                text.push_str(&self.line_of(problem));
            }
            text.push('\n');
        }
        if self.problems.len() > MAX_SHOWN {
            text.push_str(&format!("... and {} more\n", self.problems.len() - MAX_SHOWN));
        }
        text
    }

    /// One problem as one line, for logs: `office.toml:12: config::unknown_key: …`.
    pub fn line_of(&self, problem: &Problem) -> String {
        let place = match (problem.at.and_then(|at| self.sources.get(usize::from(at.file))), self.line(problem)) {
            (Some(source), Some(line)) => format!("{}:{line}: ", source.path.display()),
            _ => String::new(),
        };
        format!("{place}{}: {}", problem.code, problem.what)
    }

    /// Every problem as one line.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|p| self.line_of(p))
    }
}

/// One line that says how much is wrong; the detail is in [`Report::render`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (errors, warnings) = self.counts();
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        match (errors, warnings) {
            (0, 0) => f.write_str("no errors"),
            (0, w) => f.write_str(&plural(w, "warning")),
            (e, 0) => f.write_str(&plural(e, "error")),
            (e, w) => write!(f, "{}, {}", plural(e, "error"), plural(w, "warning")),
        }
    }
}

impl std::error::Error for Report {}

/// A problem as miette wants to see it.
struct Shown<'a> {
    problem: &'a Problem,
    source: Option<NamedSource<Arc<str>>>,
    labels: Vec<LabeledSpan>,
    help: String,
}

impl<'a> Shown<'a> {
    fn new(report: &Report, problem: &'a Problem) -> Shown<'a> {
        let Some(at) = problem.at else {
            return Shown { problem, source: None, labels: Vec::new(), help: problem.help.clone() };
        };
        let file = report.sources.get(usize::from(at.file));
        let source = file.map(|s| NamedSource::new(s.path.display().to_string(), Arc::clone(&s.text)));
        let span = |place: Place, label: &str, text: &str| {
            let start = (place.start as usize).min(text.len());
            // A span over many lines (a whole table) would quote all of them; its first line says enough.
            let first = text.get(start..).map_or(0, |rest| rest.find('\n').unwrap_or(rest.len()));
            let len = (place.end as usize).saturating_sub(start).min(first);
            LabeledSpan::new(Some(label.to_owned()), start, len)
        };
        let mut labels = Vec::new();
        let mut help = problem.help.clone();
        if let Some(file) = file {
            labels.push(span(at, &problem.label, &file.text));
            match &problem.other {
                Some((place, label)) if place.file == at.file => labels.push(span(*place, label, &file.text)),
                Some((place, label)) => {
                    if let Some(there) = report.sources.get(usize::from(place.file)) {
                        let line = there.line(place.start);
                        help = format!("{label}: {}:{line}. {help}", there.path.display());
                    }
                }
                None => {}
            }
        }
        Shown { problem, source, labels, help }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.what)
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.problem, f)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        Some(Box::new(self.problem.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// The name among `known` that `wrong` was probably meant to be.
pub fn alike<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const MAX_COMPARED: usize = 64;
    if wrong.is_empty() || wrong.chars().count() > MAX_COMPARED {
        return None;
    }
    let lower = wrong.to_lowercase();
    let near = |name: &&str| {
        let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
        let limit = (lower.chars().count().max(name.chars().count()) / 3).max(1);
        // A letter mistaken is likelier than one left out.
        (distance <= limit && *name != wrong).then_some((distance, name.len().abs_diff(wrong.len())))
    };
    known.into_iter().filter_map(|name| near(&name).map(|d| (d, name))).min_by_key(|(d, _)| *d).map(|(_, name)| name)
}

/// "Did you mean" in words, or what there is.
pub fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>, none: &str) -> String {
    const MAX_LISTED: usize = 12;
    let known: Vec<&str> = known.into_iter().collect();
    match alike(wrong, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => none.to_owned(),
        None if known.len() > MAX_LISTED => {
            format!("known are: {} and {} more", known[..MAX_LISTED].join(", "), known.len() - MAX_LISTED)
        }
        None => format!("known are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        for (wrong, want) in [("pasword", Some("password")), ("Queue", Some("queue")), ("xyz", None), ("", None)] {
            assert_eq!(alike(wrong, ["password", "queue", "trunk"]), want, "{wrong}");
        }
    }
}
