//! A circuit breaker: a hook that failed five times in a row is left alone for ten seconds, then one call may try it.
//!
//! ```text
//!   Closed --5 failures in a row--> Open --10 s--> Trying --success--> Closed
//!      ^-- a success forgets them     ^---------------- failure ---------+
//! ```

use std::time::Duration;

use crate::base::Instant;

/// Failures in a row that open it.
pub const FAILURES: u32 = 5;
/// How long it stays open.
pub const PAUSE: Duration = Duration::from_secs(10);

/// The breaker of one hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breaker {
    /// Questions pass.
    Closed {
        /// Failures in a row so far.
        failures: u32,
    },
    /// No question passes.
    Open {
        /// Until then.
        until: Instant,
    },
    /// One question is under way, to see whether it works again.
    Trying {
        /// If nothing is heard of it by then, the next one may try.
        until: Instant,
    },
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a question may pass now; if not, for how much longer.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match *self {
            Breaker::Closed { .. } => Ok(()),
            Breaker::Open { until } | Breaker::Trying { until } if now < until => Err(until.since(now)),
            Breaker::Open { .. } | Breaker::Trying { .. } => {
                *self = Breaker::Trying { until: now + PAUSE };
                Ok(())
            }
        }
    }

    /// A question was answered.
    pub fn worked(&mut self) {
        *self = Breaker::default();
    }

    /// A question failed. True if that opened it.
    pub fn failed(&mut self, now: Instant) -> bool {
        let failures = match *self {
            Breaker::Closed { failures } => failures + 1,
            Breaker::Trying { .. } => FAILURES,
            // One that was under way when it opened says nothing new.
            Breaker::Open { .. } => return false,
        };
        let opens = failures >= FAILURES;
        *self = if opens { Breaker::Open { until: now + PAUSE } } else { Breaker::Closed { failures } };
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert!(!breaker.failed(at(1)));
        }
        breaker.worked();
        for _ in 0..4 {
            assert!(!breaker.failed(at(1)));
        }
        assert_eq!(breaker.admit(at(1)), Ok(()));
        assert!(breaker.failed(at(1)));
        assert!(!breaker.failed(at(2)), "late news of an earlier question do not prolong the pause");
        assert_eq!(breaker.admit(at(4)), Err(Duration::from_secs(7)));
    }

    #[test]
    fn after_the_pause_one_tries() {
        let mut breaker = Breaker::Open { until: at(10) };
        assert_eq!(breaker.admit(at(10)), Ok(()));
        assert!(breaker.admit(at(10)).is_err(), "one at a time");
        assert!(breaker.failed(at(11)));
        assert!(breaker.admit(at(20)).is_err());
        assert_eq!(breaker.admit(at(21)), Ok(()));
        breaker.worked();
        assert_eq!(breaker.admit(at(21)), Ok(()));
        assert_eq!(breaker.admit(at(21)), Ok(()));
    }
}
