//! Counters of what the outside world did to us, by reason. Read by `status`, logged at the end. Everything that is dropped
//! without an answer is counted here or by the core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)+) => {
        /// What is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $variant,)+ }

        impl Counter {
            /// All of them.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)+];

            /// Its name in metrics and logs.
            pub fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// Datagrams received.
    UdpReceived => "udp_received",
    /// Datagrams sent.
    UdpSent => "udp_sent",
    /// Datagrams not sent: the socket's buffer was full.
    UdpFull => "udp_send_buffer_full",
    /// Datagrams not sent: the system refused (no route, a firewall).
    UdpRefused => "udp_send_refused",
    /// Datagrams that bounced (ICMP).
    UdpBounced => "udp_bounced",
    /// Datagrams whose sender could not be read.
    UdpOdd => "udp_unreadable_sender",
    /// Sends for which no listener fits.
    NoListener => "no_listener",
    /// Times the engine woke up.
    Wakeups => "engine_wakeups",
    /// Events handled.
    Events => "engine_events",
    /// Events that the engine's queue had no room for.
    QueueFull => "engine_queue_full",
    /// Commands that a media worker did not take.
    MediaRefused => "media_commands_refused",
    /// Panics in the core, each of which cost one event.
    Panics => "core_panics",
    /// Stream connections accepted.
    TcpAccepted => "tcp_accepted",
    /// Stream connections that we opened.
    TcpDialled => "tcp_dialled",
    /// Stream connections that could not be opened.
    TcpDialFailed => "tcp_dial_failed",
    /// Stream connections refused because there were too many.
    TcpRefused => "tcp_refused_full",
    /// Silent stream connections closed to make room.
    TcpEvicted => "tcp_evicted",
    /// Stream connections closed because no whole message came in time.
    TcpTooSlow => "tcp_too_slow",
    /// Stream connections closed because what came was not SIP.
    TcpMalformed => "tcp_malformed",
    /// Stream connections closed because the peer did not read what we sent.
    TcpStalled => "tcp_stalled",
    /// Messages received over streams.
    TcpReceived => "tcp_received",
    /// Messages sent over streams.
    TcpSent => "tcp_sent",
    /// Messages not sent over a stream: its queue was full or it was gone.
    TcpUnsent => "tcp_unsent",
    /// Times that accepting failed (out of descriptors, mostly).
    AcceptFailed => "tcp_accept_failed",
}

/// The counters of one server. Copies share the figures.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<[AtomicU64]>);

impl Metrics {
    /// All zero.
    pub fn new() -> Metrics {
        Metrics(Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }

    /// One more.
    pub fn count(&self, what: Counter) {
        self.add(what, 1);
    }

    /// `n` more.
    pub fn add(&self, what: Counter, n: u64) {
        self.0[what as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn read(&self, what: Counter) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }

    /// All that are not zero, with their names.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL.iter().map(|c| (c.name(), self.read(*c))).filter(|(_, n)| *n > 0).collect()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_and_zeros_are_not_shown() {
        let (a, b) = (Metrics::new(), Metrics::new());
        let copy = a.clone();
        copy.add(Counter::UdpSent, 3);
        assert_eq!(a.all(), [("udp_sent", 3)]);
        assert!(b.all().is_empty());
    }
}
