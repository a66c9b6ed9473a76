//! Opening hours: a week, the country's production calendar, and the company's own exceptions, in that order of weight.
//! Pure data: which zone the office is in is the asker's to say, and what time it is too.
//!
//! **Summer time.** Hours are read off the clock on the office's wall: open is when the local time lies in a span. An hour
//! that the clock shows twice is inside or outside both times; an hour that it leaves out passes at once, and a span that
//! lies wholly in it does not happen that day. A span that crosses midnight belongs to the day on which it begins.

mod production;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::Label;
use crate::base::Wall;
pub use production::{Special, Year};

/// Minutes of a day.
const DAY: u16 = 1440;

/// `[[calendar]]`.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// Name.
    pub name: Label,
    /// Hours of an ordinary week.
    pub week: Week,
    /// A shortened day ends this much earlier.
    pub shortened: Duration,
    /// Whether production calendars decide (`holidays`), so that a year without one is worth a warning.
    pub follows: bool,
    /// Production calendars; of two for one year the later counts.
    pub years: Vec<Year>,
    /// Those that were imported; each counts before the calendar's own of that year.
    pub imported: Arc<[Year]>,
    /// Days that are otherwise, whatever the above say; of two for one day the later counts.
    pub except: Vec<Except>,
}

/// Hours of each weekday, Monday first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Week(pub [Vec<Span>; 7]);

/// From one minute of a day until before another. A span may end on the next day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span {
    /// Minutes after midnight, below 1440.
    pub from: u16,
    /// Minutes after the same midnight, above `from` and at most 24 hours later; above 1440: on the next day.
    pub until: u16,
}

/// `except`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Except {
    /// First day.
    pub first: Date,
    /// Last day.
    pub last: Date,
    /// Hours of these days, by weekday; none: closed.
    pub week: Week,
}

/// What a calendar says of an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hours {
    /// Within the hours.
    Open,
    /// Outside of them.
    Closed,
    /// A day that the week would open is closed by the production calendar or by an exception.
    Holiday,
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hours::Open => "open",
            Hours::Closed => "closed",
            Hours::Holiday => "holiday",
        })
    }
}

/// The hours of one date.
struct Day<'a> {
    spans: Cow<'a, [Span]>,
    of: Of,
}

/// Where the hours of a date come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Week,
    Shortened,
    Moved { replaces: Option<Weekday>, shortened: bool },
    Off,
    Except,
}

impl Calendar {
    /// A calendar with weekly hours and nothing else.
    pub fn new(name: &str, week: Week) -> Calendar {
        Calendar {
            name: name.into(),
            week,
            shortened: Duration::ZERO,
            follows: false,
            years: Vec::new(),
            imported: Arc::default(),
            except: Vec::new(),
        }
    }

    /// Whether an office in `zone` is open at `wall`, and why, in words like
    /// `Wed 20:30 in Asia/Yekaterinburg: after hours (09:00-18:00)`.
    pub fn at(&self, wall: Wall, zone: &TimeZone) -> (Hours, String) {
        let local = zone.to_datetime(wall.timestamp());
        let (date, time) = (local.date(), local.time());
        let minute = time.hour() as u16 * 60 + time.minute() as u16;
        let mut because = String::with_capacity(96);
        let zone = zone.iana_name().unwrap_or("local time");
        let today = self.day(date);
        let unknown = today.of == Of::Week && self.lacks(date.year());
        let mut say = |words: fmt::Arguments<'_>| {
            let head = format_args!("{} {:02}:{:02} in {zone}: ", short(date.weekday()), time.hour(), time.minute());
            because.write_fmt(format_args!("{head}{words}")).expect("a String takes everything");
            if unknown {
                let tail = format_args!("; no production calendar of {} is known", date.year());
                because.write_fmt(tail).expect("a String takes everything");
            }
        };
        if today.spans.iter().any(|s| (s.from..s.until).contains(&minute)) {
            say(format_args!("open ({today})"));
            return (Hours::Open, because);
        }
        if let Some(yesterday) = date.yesterday().ok().map(|d| self.day(d))
            && yesterday.spans.iter().any(|s| minute + DAY < s.until)
        {
            say(format_args!("still open since the evening before ({yesterday})"));
            return (Hours::Open, because);
        }
        let Some((first, last)) = today.spans.iter().min().zip(today.spans.iter().max_by_key(|s| s.until)) else {
            let holiday = today.of != Of::Week && !self.week.of(date.weekday()).is_empty();
            match today.of {
                Of::Except => say(format_args!("closed on {date} by an exception of the calendar")),
                Of::Off => say(format_args!("{date} is a day off in the production calendar")),
                Of::Moved { .. } => say(format_args!("no hours on the weekday that {date} replaces")),
                Of::Shortened => say(format_args!("nothing is left of the hours of the shortened day {date}")),
                Of::Week => say(format_args!("no hours on this weekday")),
            }
            return (if holiday { Hours::Holiday } else { Hours::Closed }, because);
        };
        let when = match minute {
            m if m < first.from => "before",
            m if m >= last.until => "after",
            _ => "between",
        };
        say(format_args!("{when} hours ({today})"));
        (Hours::Closed, because)
    }

    /// The year that lacks a production calendar although it is time for one: this year's, and from 1 November next year's.
    /// None for calendars that follow none. Until it comes, the weekly hours hold.
    pub fn missing(&self, today: Date) -> Option<i16> {
        let year = today.year();
        let wanted = [Some(year), (today.month() >= 11).then_some(year + 1)];
        wanted.into_iter().flatten().find(|year| self.lacks(*year)).filter(|_| self.follows)
    }

    /// Whether production calendars decide, and there is none for this year.
    fn lacks(&self, year: i16) -> bool {
        let mut known = self.imported.iter().chain(&self.years).peekable();
        (self.follows || known.peek().is_some()) && !known.any(|y| y.year == year)
    }

    fn day(&self, date: Date) -> Day<'_> {
        if let Some(except) = self.except.iter().rev().find(|e| e.first <= date && date <= e.last) {
            return Day { spans: Cow::Borrowed(except.week.of(date.weekday())), of: Of::Except };
        }
        let years = self.imported.iter().chain(self.years.iter().rev());
        let year = years.into_iter().find(|y| y.year == date.year());
        let week = |weekday| Cow::Borrowed(self.week.of(weekday));
        match year.and_then(|y| y.day(date)) {
            None => Day { spans: week(date.weekday()), of: Of::Week },
            Some(Special::Off) => Day { spans: Cow::Borrowed(&[]), of: Of::Off },
            Some(Special::Shortened) => Day { spans: self.shorten(week(date.weekday())), of: Of::Shortened },
            Some(Special::Moved { replaces, shortened }) => {
                let spans = week(replaces.unwrap_or(Weekday::Friday));
                let spans = if shortened { self.shorten(spans) } else { spans };
                Day { spans, of: Of::Moved { replaces, shortened } }
            }
        }
    }

    /// The day's last hour comes earlier; spans that would begin after it are gone.
    fn shorten<'a>(&self, spans: Cow<'a, [Span]>) -> Cow<'a, [Span]> {
        let less = u16::try_from(self.shortened.as_secs() / 60).unwrap_or(u16::MAX);
        if less == 0 {
            return spans;
        }
        let end = spans.iter().map(|s| s.until).max().unwrap_or(0).saturating_sub(less);
        let left = spans.iter().filter(|s| s.from < end).map(|s| Span { until: s.until.min(end), ..*s });
        Cow::Owned(left.collect())
    }
}

/// The zone of this IANA name from the data that we carry, whatever the machine has.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

impl Week {
    /// The same hours on each day of the mask, Monday first; the days keep those that they have.
    pub fn add(&mut self, days: [bool; 7], span: Span) {
        for (hours, _) in self.0.iter_mut().zip(days).filter(|(_, on)| *on) {
            hours.push(span);
            hours.sort();
        }
    }

    /// The hours of a weekday, in order.
    pub fn of(&self, weekday: Weekday) -> &[Span] {
        &self.0[weekday.to_monday_zero_offset() as usize]
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = if self.until > DAY { self.until - DAY } else { self.until };
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, until / 60, until % 60)
    }
}

impl fmt::Display for Day<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, span) in self.spans.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            span.fmt(f)?;
        }
        match self.of {
            Of::Week | Of::Off => Ok(()),
            Of::Except => f.write_str(", by an exception"),
            Of::Shortened => f.write_str(", shortened day"),
            Of::Moved { replaces, shortened } => {
                let day = short(replaces.unwrap_or(Weekday::Friday));
                write!(f, ", moved working day with the hours of {day}")?;
                if shortened { f.write_str(", shortened") } else { Ok(()) }
            }
        }
    }
}

fn short(weekday: Weekday) -> &'static str {
    match weekday {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    }
}

#[cfg(test)]
mod tests;
