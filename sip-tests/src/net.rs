//! The network: what is handed to it arrives later, never, twice or out of order, as a seed says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;

use strowger::base::Rng;

use crate::{MS, Time};

/// What the network does to packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Least delay of one way.
    pub delay: Time,
    /// Added to it at most, evenly drawn.
    pub jitter: Time,
    /// Lost, per mille.
    pub loss: u64,
    /// Delivered twice, per mille.
    pub twice: u64,
    /// Overtaken by later ones, per mille; without that a link is a queue.
    pub late: u64,
}

/// How much later a packet comes that is overtaken.
const LATE: Time = 400 * MS;

impl Weather {
    /// Nothing is lost and nothing overtakes.
    pub const FAIR: Weather = Weather { delay: 5 * MS, jitter: 0, loss: 0, twice: 0, late: 0 };
    /// One packet in five is lost.
    pub const LOSSY: Weather = Weather { loss: 200, jitter: 20 * MS, ..Weather::FAIR };
    /// Every packet comes twice.
    pub const ECHO: Weather = Weather { twice: 1000, jitter: 20 * MS, ..Weather::FAIR };
    /// One packet in five is overtaken.
    pub const SHUFFLE: Weather = Weather { late: 200, jitter: 30 * MS, ..Weather::FAIR };
}

/// Packets under way, earliest first.
pub struct Net<P> {
    /// For datagrams.
    pub weather: Weather,
    rng: Rng,
    serial: u64,
    under_way: BinaryHeap<Reverse<Entry<P>>>,
    last: BTreeMap<(SocketAddr, SocketAddr), Time>,
}

struct Entry<P> {
    at: Time,
    serial: u64,
    parcel: P,
}

impl<P: Clone> Net<P> {
    /// An empty network.
    pub fn new(weather: Weather, rng: Rng) -> Net<P> {
        Net { weather, rng, serial: 0, under_way: BinaryHeap::new(), last: BTreeMap::new() }
    }

    /// A datagram sets out.
    pub fn send(&mut self, now: Time, from: SocketAddr, to: SocketAddr, parcel: P) {
        let w = self.weather;
        if self.rng.below(1000) < w.loss {
            return;
        }
        let copies = if self.rng.below(1000) < w.twice { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = now + w.delay + self.rng.below(w.jitter + 1);
            if self.rng.below(1000) < w.late {
                at += self.rng.below(LATE);
            } else {
                let last = self.last.entry((from, to)).or_default();
                *last = (*last).max(at);
                at = *last;
            }
            self.push(at, parcel.clone());
        }
    }

    /// A message sets out over a connection: it arrives, once and in order.
    pub fn send_reliably(&mut self, now: Time, from: SocketAddr, to: SocketAddr, parcel: P) {
        let at = now + self.weather.delay + self.rng.below(self.weather.jitter + 1);
        let last = self.last.entry((from, to)).or_default();
        *last = (*last).max(at);
        let at = *last;
        self.push(at, parcel);
    }

    /// Something happens at that time.
    pub fn push(&mut self, at: Time, parcel: P) {
        self.serial += 1;
        self.under_way.push(Reverse(Entry { at, serial: self.serial, parcel }));
    }

    /// When the next parcel arrives.
    pub fn deadline(&self) -> Option<Time> {
        self.under_way.peek().map(|e| e.0.at)
    }

    /// The next parcel that has arrived.
    pub fn pop(&mut self, now: Time) -> Option<P> {
        (self.deadline()? <= now).then(|| self.under_way.pop().map(|e| e.0.parcel)).flatten()
    }
}

impl<P> PartialEq for Entry<P> {
    fn eq(&self, other: &Entry<P>) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}
impl<P> Eq for Entry<P> {}
impl<P> PartialOrd for Entry<P> {
    fn partial_cmp(&self, other: &Entry<P>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<P> Ord for Entry<P> {
    fn cmp(&self, other: &Entry<P>) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}
