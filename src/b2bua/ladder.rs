//! Raw messages of all calls in one ring of fixed size, so that any recent call's ladder can be shown. A message belongs to
//! a leg by its Call-ID; which legs a call has is kept beside, as long as the ring may hold their messages.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ahash::RandomState;
use memchr::memmem::Finder;
use serde_json::{Value, json};

use crate::base::Wall;
use crate::call::Peer;
use crate::call::record::RecordId;

/// The ring.
#[derive(Debug)]
pub struct Ladder {
    bytes: Vec<u8>,
    head: usize,
    size: usize,
    entries: VecDeque<Entry>,
    legs: VecDeque<Leg>,
    hasher: RandomState,
    call_id: Finder<'static>,
}

#[derive(Debug)]
struct Entry {
    call_id: u64,
    at: Wall,
    remote: SocketAddr,
    sent: bool,
    start: usize,
    len: u32,
}

#[derive(Debug)]
struct Leg {
    call: RecordId,
    call_id: u64,
    who: Peer,
}

/// Legs remembered at most.
const MAX_LEGS: usize = 100_000;
/// Bytes kept of one message at most.
const MAX_MESSAGE: usize = 8 * 1024;

impl Ladder {
    /// A ring of `size` bytes; its pages are touched only as messages come. Zero keeps nothing.
    pub fn new(size: usize, hasher: RandomState) -> Ladder {
        let finder = Finder::new(b"\r\nCall-ID: ");
        let size = if size < MAX_MESSAGE { 0 } else { size };
        Ladder {
            bytes: Vec::new(),
            head: 0,
            size,
            entries: VecDeque::new(),
            legs: VecDeque::new(),
            hasher,
            call_id: finder,
        }
    }

    /// A leg of a call has this Call-ID.
    pub fn leg(&mut self, call: RecordId, call_id: &str, who: Peer) {
        if self.size == 0 {
            return;
        }
        if self.legs.len() >= MAX_LEGS {
            self.legs.pop_front();
        }
        let call_id = self.hasher.hash_one(call_id.as_bytes());
        self.legs.push_back(Leg { call, call_id, who });
    }

    /// A message of ours left.
    pub fn sent(&mut self, at: Wall, remote: SocketAddr, wire: &[u8]) {
        let Some(start) = self.call_id.find(wire).map(|i| i + 11).filter(|_| self.size > 0) else { return };
        let end = memchr::memchr(b'\r', &wire[start..]).map_or(wire.len(), |n| start + n);
        self.keep(self.hasher.hash_one(&wire[start..end]), at, remote, true, wire);
    }

    /// A message arrived.
    pub fn received(&mut self, at: Wall, remote: SocketAddr, call_id: &str, wire: &[u8]) {
        if self.size > 0 {
            self.keep(self.hasher.hash_one(call_id.as_bytes()), at, remote, false, wire);
        }
    }

    /// The messages of a call that the ring still holds, oldest first.
    pub fn show(&self, call: RecordId) -> Value {
        let legs: Vec<&Leg> = self.legs.iter().filter(|l| l.call == call).collect();
        let message = |e: &Entry| {
            let leg = legs.iter().find(|l| l.call_id == e.call_id)?;
            let wire = &self.bytes[e.start..e.start + e.len as usize];
            Some(json!({
                "at": e.at, "sent": e.sent, "who": leg.who.to_string(), "remote": e.remote.to_string(),
                "message": String::from_utf8_lossy(wire),
            }))
        };
        let messages: Vec<Value> = self.entries.iter().filter_map(message).collect();
        if legs.is_empty() { Value::Null } else { json!({ "call": call, "messages": messages }) }
    }

    fn keep(&mut self, call_id: u64, at: Wall, remote: SocketAddr, sent: bool, wire: &[u8]) {
        let wire = &wire[..wire.len().min(MAX_MESSAGE)];
        if self.head + wire.len() > self.size {
            // What stands behind the head goes with the turn of the ring.
            while self.entries.front().is_some_and(|e| e.start >= self.head) {
                self.entries.pop_front();
            }
            self.head = 0;
        }
        let (start, end) = (self.head, self.head + wire.len());
        while self.entries.front().is_some_and(|e| e.start < end && start < e.start + e.len as usize) {
            self.entries.pop_front();
        }
        if self.bytes.is_empty() {
            // Address space only: a page is touched when the ring first comes there.
            self.bytes.reserve_exact(self.size);
        }
        // What lies beyond the filled part, after the ring's end was left unused in its first turn, is filled on the way.
        let filled = self.bytes.len().saturating_sub(start).min(wire.len());
        self.bytes[start..start + filled].copy_from_slice(&wire[..filled]);
        self.bytes.extend_from_slice(&wire[filled..]);
        self.head = end;
        self.entries.push_back(Entry { call_id, at, remote, sent, start, len: wire.len() as u32 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_forgets_the_oldest_only() {
        let mut ladder = Ladder::new(MAX_MESSAGE, RandomState::with_seeds(1, 2, 3, 4));
        let remote: SocketAddr = "127.0.0.1:5060".parse().expect("an address");
        let call = RecordId(7);
        ladder.leg(call, "abc", Peer::Extension("121".into()));
        for i in 0..100 {
            let wire = format!("BYE sip:x SIP/2.0\r\nCall-ID: abc\r\nCSeq: {i} BYE\r\n\r\n{}", "x".repeat(200));
            ladder.sent(Wall::default(), remote, wire.as_bytes());
        }
        let shown = ladder.show(call);
        let messages = shown["messages"].as_array().expect("a list");
        assert!(messages.len() > 25 && messages.len() < 40, "{}", messages.len());
        assert!(messages.last().is_some_and(|m| m["message"].as_str().is_some_and(|s| s.contains("CSeq: 99 "))));
        assert_eq!(ladder.show(RecordId(8)), Value::Null);
    }
}
