//! The free list of RTP ports. `io` binds sockets ahead of need and reports them; the core hands them out and takes them
//! back without waiting. A port rests after use, so that late packets of one call never reach the next.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::Instant;
use crate::media::Port;

/// How long a port rests after use.
pub const REST: Duration = Duration::from_secs(5);

/// Ports that are bound.
#[derive(Debug, Default)]
pub struct Ports {
    free: VecDeque<Port>,
    resting: VecDeque<(Instant, Port)>,
    used: usize,
}

impl Ports {
    /// More ports are bound.
    pub fn ready(&mut self, ports: impl IntoIterator<Item = Port>) {
        self.free.extend(ports);
    }

    /// A port, if there is one.
    pub fn take(&mut self, now: Instant) -> Option<Port> {
        while let Some(&(until, port)) = self.resting.front()
            && until <= now
        {
            self.resting.pop_front();
            self.free.push_back(port);
        }
        let port = self.free.pop_front()?;
        self.used += 1;
        Some(port)
    }

    /// A port comes back.
    pub fn give(&mut self, now: Instant, port: Port) {
        self.used = self.used.saturating_sub(1);
        self.resting.push_back((now + REST, port));
    }

    /// How many are in use.
    pub fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_rests() {
        let (t0, t1) = (Instant::ZERO, Instant::ZERO + REST);
        let mut ports = Ports::default();
        ports.ready([Port(20_000)]);
        assert_eq!(ports.take(t0), Some(Port(20_000)));
        ports.give(t0, Port(20_000));
        assert_eq!(ports.take(t0), None);
        assert_eq!(ports.take(t1), Some(Port(20_000)));
    }
}
