//! The only `now()`. Everything else is told the time. A clock may be shifted against the true wall clock: the demo plays
//! an office day at night. A shift moves stamps only, never timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::{Instant, Now, Wall};

/// Monotonic time since the clock was made, and the wall clock. Copies share origin and shift.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: std::time::Instant,
    /// Microseconds added to the true wall clock.
    shift: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that begins now and shows the true time.
    pub fn new() -> Clock {
        Clock { origin: std::time::Instant::now(), shift: Arc::new(AtomicI64::new(0)) }
    }

    /// A clock that begins now and shows `wall`.
    pub fn starting_at(wall: Wall) -> Clock {
        let clock = Clock::new();
        clock.set(wall);
        clock
    }

    /// Makes the clock and its copies show `wall` from now on. Timers do not notice.
    pub fn set(&self, wall: Wall) {
        self.shift.store(wall.micros().saturating_sub(system()), Ordering::Relaxed);
    }

    /// Both clocks at this moment.
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: self.wall() }
    }

    /// The monotonic clock, in microseconds since the clock was made.
    pub fn mono(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The wall clock.
    pub fn wall(&self) -> Wall {
        Wall::from_micros(system().saturating_add(self.shift.load(Ordering::Relaxed)))
    }

    /// When `at` will be on the system's own monotonic clock, for those who sleep until then.
    pub fn system(&self, at: Instant) -> std::time::Instant {
        self.origin + Duration::from_micros(at.micros())
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

/// Microseconds since the Unix epoch by the system's clock.
fn system() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_moves_stamps_and_not_timers() {
        let clock = Clock::new();
        let copy = clock.clone();
        let before = clock.now();
        let target = Wall::from_micros(1_000_000_000_000_000);
        clock.set(target);
        let after = copy.now();
        assert!(after.wall >= target && after.wall - target < Duration::from_secs(5));
        assert!(after.mono - before.mono < Duration::from_secs(5));
    }
}
