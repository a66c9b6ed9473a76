//! The timers of RFC 3261 section 17 (table 4) and RFC 6026 as values: [`Timing`] has the three base values, [`Pace`] says
//! what they come to over one transport, [`Backoff`] is a running retransmission timer. Nothing here fires; a state holds these
//! values as fields, and leaving the state drops them.
//!
//! Deadlines that only clean up (D, I, J, K, L, M) are put on a grid of [`GRID`], so that many of them cost one wake-up.
//! They are never early: only the peer's patience is measured by them, and a little more of it does no harm.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::Instant;

pub use crate::base::timer::GRID;

/// How long a final answer to an INVITE may be repeated by a peer over UDP: the floor of Timer D (RFC 3261 17.1.1.2).
pub const LEAST_D: Duration = Duration::from_secs(32);

/// After this time without an answer of the user an INVITE gets its 100 (RFC 3261 17.2.1).
pub const TRYING_AFTER: Duration = Duration::from_millis(200);

/// The base values of RFC 3261 section 17.1.1.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// The estimated round trip. 500 ms.
    pub t1: Duration,
    /// The longest pause between two retransmissions of a non-INVITE request or of an INVITE's answer. 4 s.
    pub t2: Duration,
    /// How long a message stays in the network. 5 s.
    pub t4: Duration,
}

impl Timing {
    /// 64 T1: B, F, H, J, L, M.
    pub const fn timeout(self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// These values over a transport.
    pub const fn over(self, reliable: bool) -> Pace {
        Pace { timing: self, reliable }
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) }
    }
}

/// What the timers come to over one transport. `None` means a timer that does not run (A, E, G over a reliable transport)
/// or that is of zero length (D, I, J, K over a reliable transport).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    timing: Timing,
    reliable: bool,
}

impl Pace {
    /// INVITE request retransmission: T1, doubling without end (B ends it).
    pub fn a(self, now: Instant) -> Option<Backoff> {
        (!self.reliable).then(|| Backoff::start(now, self.timing.t1, Duration::MAX))
    }

    /// INVITE transaction time-out.
    pub fn b(self, now: Instant) -> Instant {
        now + self.timing.timeout()
    }

    /// How long retransmitted finals of an INVITE are acknowledged.
    pub fn d(self, now: Instant) -> Option<Instant> {
        (!self.reliable).then(|| (now + self.timing.timeout().max(LEAST_D)).round_up(GRID))
    }

    /// Non-INVITE request retransmission: T1, doubling to T2.
    pub fn e(self, now: Instant) -> Option<Backoff> {
        (!self.reliable).then(|| Backoff::start(now, self.timing.t1, self.timing.t2))
    }

    /// Non-INVITE transaction time-out.
    pub fn f(self, now: Instant) -> Instant {
        now + self.timing.timeout()
    }

    /// Retransmission of an INVITE's refusal: T1, doubling to T2.
    pub fn g(self, now: Instant) -> Option<Backoff> {
        (!self.reliable).then(|| Backoff::start(now, self.timing.t1.min(self.timing.t2), self.timing.t2))
    }

    /// How long an INVITE's refusal waits for its ACK, over any transport.
    pub fn h(self, now: Instant) -> Instant {
        now + self.timing.timeout()
    }

    /// How long retransmitted ACKs are absorbed.
    pub fn i(self, now: Instant) -> Option<Instant> {
        (!self.reliable).then(|| (now + self.timing.t4).round_up(GRID))
    }

    /// How long a non-INVITE request's final answer is repeated on demand.
    pub fn j(self, now: Instant) -> Option<Instant> {
        (!self.reliable).then(|| (now + self.timing.timeout()).round_up(GRID))
    }

    /// How long retransmitted finals of a non-INVITE request are absorbed.
    pub fn k(self, now: Instant) -> Option<Instant> {
        (!self.reliable).then(|| (now + self.timing.t4).round_up(GRID))
    }

    /// How long an accepted INVITE's retransmissions are absorbed, over any transport (RFC 6026 8.7).
    pub fn l(self, now: Instant) -> Instant {
        (now + self.timing.timeout()).round_up(GRID)
    }

    /// How long an INVITE's further 2xx are taken, over any transport (RFC 6026 8.4).
    pub fn m(self, now: Instant) -> Instant {
        (now + self.timing.timeout()).round_up(GRID)
    }
}

/// A running retransmission timer: when it fires next, and how long the pause before was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backoff {
    at: Instant,
    pause: Duration,
    cap: Duration,
}

impl Backoff {
    /// Fires `first` after `now`; each pause is twice the one before, up to `cap`.
    pub fn start(now: Instant, first: Duration, cap: Duration) -> Backoff {
        Backoff { at: now + first, pause: first, cap }
    }

    /// When it fires.
    pub fn at(self) -> Instant {
        self.at
    }

    /// The timer after it fired. A firing that came late is not made up for by a burst.
    pub fn next(self, now: Instant) -> Backoff {
        self.after(now, self.pause.saturating_mul(2).min(self.cap))
    }

    /// The timer after it fired while a provisional answer slows it to its longest pause (Timer E in Proceeding).
    pub fn slowest(self, now: Instant) -> Backoff {
        self.after(now, self.cap)
    }

    fn after(self, now: Instant, pause: Duration) -> Backoff {
        let due = self.at + pause;
        Backoff { at: if due > now { due } else { now + pause }, pause, cap: self.cap }
    }
}

/// The earlier of two deadlines that may not exist.
pub fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// RFC 3261 table 4, RFC 6026: name, over UDP, over TCP; in ms after an instant that lies on the grid.
    #[test]
    fn every_timer_has_its_value() {
        let now = ms(1000);
        let (udp, tcp) = (Timing::default().over(false), Timing::default().over(true));
        let first = |b: Option<Backoff>| b.map(Backoff::at);
        let table = [
            ("A", first(udp.a(now)), first(tcp.a(now)), Some(500), None),
            ("B", Some(udp.b(now)), Some(tcp.b(now)), Some(32_000), Some(32_000)),
            ("D", udp.d(now), tcp.d(now), Some(32_000), None),
            ("E", first(udp.e(now)), first(tcp.e(now)), Some(500), None),
            ("F", Some(udp.f(now)), Some(tcp.f(now)), Some(32_000), Some(32_000)),
            ("G", first(udp.g(now)), first(tcp.g(now)), Some(500), None),
            ("H", Some(udp.h(now)), Some(tcp.h(now)), Some(32_000), Some(32_000)),
            ("I", udp.i(now), tcp.i(now), Some(5_000), None),
            ("J", udp.j(now), tcp.j(now), Some(32_000), None),
            ("K", udp.k(now), tcp.k(now), Some(5_000), None),
            ("L", Some(udp.l(now)), Some(tcp.l(now)), Some(32_000), Some(32_000)),
            ("M", Some(udp.m(now)), Some(tcp.m(now)), Some(32_000), Some(32_000)),
        ];
        for (name, udp, tcp, over_udp, over_tcp) in table {
            assert_eq!(udp, over_udp.map(|v| ms(1000 + v)), "{name} over UDP");
            assert_eq!(tcp, over_tcp.map(|v| ms(1000 + v)), "{name} over TCP");
        }
    }

    #[test]
    fn clean_up_lies_on_the_grid_and_is_never_early() {
        let now = ms(1001);
        let pace = Timing::default().over(false);
        for (name, at, least) in [
            ("D", pace.d(now), 32_000),
            ("I", pace.i(now), 5_000),
            ("J", pace.j(now), 32_000),
            ("K", pace.k(now), 5_000),
            ("L", Some(pace.l(now)), 32_000),
            ("M", Some(pace.m(now)), 32_000),
        ] {
            assert_eq!(at, Some(ms(1250 + least)), "{name}");
        }
        assert_eq!(pace.b(now), ms(33_001), "what the user waits for is exact");
    }

    #[test]
    fn a_back_off_doubles_to_its_cap_and_never_bursts() {
        let pace = Timing::default().over(false);
        let mut at = Vec::new();
        let mut e = pace.e(Instant::ZERO).expect("UDP");
        for _ in 0..6 {
            at.push(e.at().micros() / 1000);
            e = e.next(e.at());
        }
        assert_eq!(at, [500, 1500, 3500, 7500, 11_500, 15_500]);
        assert_eq!(e.next(ms(60_000)).at(), ms(64_000), "late by a minute: one, then the pause");
        let slow = pace.e(Instant::ZERO).expect("UDP").slowest(ms(500));
        assert_eq!(slow.at(), ms(4500));
    }
}
