//! Time as the core sees it: always told, never asked. There is no `now()` here; `io::clock` has the only one.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the monotonic clock, in microseconds since the engine's own origin. Steps of the wall clock do not move it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Instant = Instant(0);

    /// The instant that lies `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Instant {
        Instant(micros)
    }

    /// Microseconds since the origin.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The next point of a grid of `step`, at or after this instant. Deadlines that are in no hurry are put on a
    /// grid, so that many of them cost one wake-up.
    pub fn round_up(self, step: Duration) -> Instant {
        let step = (step.as_micros() as u64).max(1);
        Instant(self.0.div_ceil(step).saturating_mul(step))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, rhs: Instant) -> Duration {
        self.since(rhs)
    }
}

/// A point on the wall clock: microseconds since 1970-01-01T00:00:00Z. For stamps only, never for durations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Wall(i64);

impl Wall {
    /// The stamp that lies `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: i64) -> Wall {
        Wall(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This stamp as a `jiff` timestamp.
    pub fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, rhs: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Wall> for Wall {
    type Output = Duration;
    fn sub(self, rhs: Wall) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(rhs.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC with milliseconds, as every outward face shows it.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A call record holds a dozen of them, so the usual years do not go through the general formatter.
        const USUAL: std::ops::Range<i64> = 0..253_402_200_000_000_000; // 1970 to 9999, within what jiff knows
        if !USUAL.contains(&self.0) {
            return write!(f, "{:.3}", self.timestamp());
        }
        let (millis, days) = (self.0 / 1000 % 86_400_000, self.0 / 86_400_000_000);
        let (year, month, day) = civil(days);
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, digits: usize, number: i64| {
            let mut rest = number;
            for c in text[at..at + digits].iter_mut().rev() {
                *c = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, seconds / 3600);
        put(14, 2, seconds / 60 % 60);
        put(17, 2, seconds % 60);
        put(20, 3, millis);
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

/// Year, month and day of a day counted from 1970-01-01, which it may not be before. Years are counted from March on, so
/// that the leap day is the last one, in eras of 400 years, which are all of the same length.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0: March
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (400 * era + year, month, day)
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Wall {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl From<Wall> for String {
    fn from(wall: Wall) -> String {
        wall.to_string()
    }
}

impl TryFrom<String> for Wall {
    type Error = jiff::Error;
    fn try_from(text: String) -> Result<Wall, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|t| Wall(t.as_microsecond()))
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For timers and durations.
    pub mono: Instant,
    /// For stamps and calendars.
    pub wall: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_never_run_backwards() {
        let (a, b) = (Instant::from_micros(5), Instant::from_micros(9));
        assert_eq!(b - a, Duration::from_micros(4));
        assert_eq!(a - b, Duration::ZERO);
    }

    #[test]
    fn a_grid_is_reached_upwards() {
        let step = Duration::from_millis(250);
        for (from, to) in [(0, 0), (1, 250_000), (250_000, 250_000), (250_001, 500_000)] {
            assert_eq!(Instant::from_micros(from).round_up(step), Instant::from_micros(to));
        }
    }

    #[test]
    fn stamps_are_rfc_3339_with_milliseconds() {
        let wall = Wall::from_micros(1_795_350_000_123_456);
        assert_eq!(wall.to_string(), "2026-11-22T12:20:00.123Z");
        assert_eq!(Wall::try_from(wall.to_string()).map(Wall::unix).ok(), Some(wall.unix()));
    }

    #[test]
    fn stamps_are_what_the_calendar_says() {
        let general = |wall: Wall| format!("{:.3}", wall.timestamp());
        // Every day at an odd moment until 2200, then far ones.
        for day in 0..84_000 {
            let wall = Wall::from_micros(day * 86_400_000_000 + day * 1_028_571 % 86_400_000_000 + 999);
            assert_eq!(wall.to_string(), general(wall));
        }
        for micros in [0, 253_402_199_999_999_999, -1, 4_107_542_399_999_999, 951_827_696_000_000] {
            let wall = Wall::from_micros(micros);
            assert_eq!(wall.to_string(), general(wall), "{micros}");
        }
    }
}
