//! Lines of a log that others cause: a phone with an old password comes every minute, a scanner a thousand times a second, and
//! neither may bury what else the log has to say. Bounded in memory and in lines.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Instant;

/// The same is told again after so long at the earliest.
pub const QUIET: Duration = Duration::from_secs(60);
/// Things that are told apart at one time. More are only counted.
pub const KEPT: usize = 1024;
/// Lines in [`QUIET`] at most.
pub const LINES: u32 = 60;

/// What was told, and when. Two things are the same if their keys are.
#[derive(Debug)]
pub struct Lines<K> {
    seen: BTreeMap<K, Seen>,
    budget: Budget,
}

/// So many lines in [`QUIET`]; what is more is only counted.
#[derive(Debug)]
pub struct Budget {
    most: u32,
    lines: u32,
    since: Instant,
    untold: u32,
}

impl Budget {
    /// At most so many lines.
    pub fn new(most: u32) -> Budget {
        Budget { most, lines: 0, since: Instant::default(), untold: 0 }
    }

    /// Something happened. None: nothing is to be written of it; else how many were not told since the last line.
    pub fn note(&mut self, now: Instant) -> Option<u32> {
        if self.since + QUIET <= now {
            (self.lines, self.since) = (0, now);
        }
        if self.lines >= self.most {
            self.skip();
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.untold))
    }

    fn skip(&mut self) {
        self.untold = self.untold.saturating_add(1);
    }
}

#[derive(Debug)]
struct Seen {
    quiet_until: Instant,
    again: u32,
}

/// A line is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The same again since the last line of it.
    pub again: u32,
    /// Of all, since the last line of all, what was not told.
    pub untold: u32,
}

impl<K> Default for Lines<K> {
    fn default() -> Lines<K> {
        Lines { seen: BTreeMap::new(), budget: Budget::new(LINES) }
    }
}

impl<K: Ord> Lines<K> {
    /// It happened. None: nothing is to be written of it.
    pub fn note(&mut self, now: Instant, key: K) -> Option<Line> {
        let before = self.seen.get(&key).map(|seen| (seen.quiet_until > now, seen.again));
        if before.is_none() && self.seen.len() >= KEPT {
            self.seen.retain(|_, seen| seen.quiet_until > now);
        }
        let quiet = before.is_some_and(|(quiet, _)| quiet);
        if quiet && let Some(seen) = self.seen.get_mut(&key) {
            seen.again = seen.again.saturating_add(1);
        }
        if quiet || self.seen.len() >= KEPT {
            self.budget.skip();
            return None;
        }
        let untold = self.budget.note(now)?;
        self.seen.insert(key, Seen { quiet_until: now + QUIET, again: 0 });
        let again = before.map_or(0, |(_, again)| again);
        Some(Line { again, untold })
    }
}
