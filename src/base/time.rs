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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
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
        write!(f, "{:.3}", self.timestamp())
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
}
