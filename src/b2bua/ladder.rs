//! Raw messages in one ring of fixed size, so that any recent call's ladder can be shown, and what belongs to no call:
//! registrations, OPTIONS, what was refused. A message belongs to a leg by its Call-ID; which legs a call has is kept beside,
//! as long as the ring may hold their messages.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use ahash::RandomState;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::{Map, Wall, map};
use crate::call::Peer;
use crate::call::record::RecordId;

/// The ring.
#[derive(Debug)]
pub struct Ladder {
    bytes: Vec<u8>,
    head: usize,
    size: usize,
    entries: VecDeque<Entry>,
    /// Messages that the ring has forgotten.
    forgotten: u64,
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

/// Which messages are asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Traced {
    /// Only to or from this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Only with this user in From or To.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// Also those of calls.
    #[serde(default)]
    pub calls: bool,
    /// Only from this one on: the `next` of an earlier answer.
    #[serde(default)]
    pub after: u64,
    /// So many, the last ones; at most [`MAX_TRACED`].
    #[serde(default = "most")]
    pub limit: usize,
}

fn most() -> usize {
    MAX_TRACED
}

/// Messages in one answer at most.
pub const MAX_TRACED: usize = 1000;
/// The Call-ID of a message in which none can be found.
const NO_CALL_ID: u64 = 0;
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
            forgotten: 0,
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
        self.raw(at, remote, true, wire);
    }

    /// A message arrived that cannot be read.
    pub fn unread(&mut self, at: Wall, remote: SocketAddr, wire: &[u8]) {
        self.raw(at, remote, false, wire);
    }

    fn raw(&mut self, at: Wall, remote: SocketAddr, sent: bool, wire: &[u8]) {
        if self.size == 0 {
            return;
        }
        let call_id = self.call_id.find(wire).map_or(NO_CALL_ID, |i| {
            let start = i + 11;
            let end = memchr::memchr(b'\r', &wire[start..]).map_or(wire.len(), |n| start + n);
            self.hasher.hash_one(&wire[start..end])
        });
        self.keep(call_id, at, remote, sent, wire);
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
            Some(json!({
                "at": e.at, "sent": e.sent, "who": leg.who.to_string(), "remote": e.remote.to_string(),
                "message": String::from_utf8_lossy(self.wire(e)),
            }))
        };
        let messages: Vec<Value> = self.entries.iter().filter_map(message).collect();
        if legs.is_empty() { Value::Null } else { json!({ "call": call, "messages": messages }) }
    }

    /// The last messages of those that are asked for, oldest first, and where to go on: `{items, next}`.
    pub fn trace(&self, wanted: &Traced) -> Value {
        let mut of_calls: Map<u64, ()> = map();
        if !wanted.calls {
            of_calls.extend(self.legs.iter().map(|leg| (leg.call_id, ())));
        }
        let asked = |e: &&Entry| {
            wanted.address.is_none_or(|ip| ip.to_canonical() == e.remote.ip().to_canonical())
                && !of_calls.contains_key(&e.call_id)
                && wanted.extension.as_deref().is_none_or(|user| names(self.wire(e), user))
        };
        let old = usize::try_from(wanted.after.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        let new = self.entries.range(old.min(self.entries.len())..);
        let mut found: Vec<&Entry> = new.rev().filter(asked).take(wanted.limit.min(MAX_TRACED)).collect();
        found.reverse();
        let message = |e: &&Entry| {
            json!({
                "at": e.at, "sent": e.sent, "remote": e.remote.to_string(),
                "message": String::from_utf8_lossy(self.wire(e)),
            })
        };
        let items: Vec<Value> = found.iter().map(message).collect();
        json!({ "items": items, "next": self.forgotten + self.entries.len() as u64 })
    }

    fn wire(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start..entry.start + entry.len as usize]
    }

    fn forget(&mut self) {
        self.entries.pop_front();
        self.forgotten += 1;
    }

    fn keep(&mut self, call_id: u64, at: Wall, remote: SocketAddr, sent: bool, wire: &[u8]) {
        let wire = &wire[..wire.len().min(MAX_MESSAGE)];
        if self.head + wire.len() > self.size {
            // What stands behind the head goes with the turn of the ring.
            while self.entries.front().is_some_and(|e| e.start >= self.head) {
                self.forget();
            }
            self.head = 0;
        }
        let (start, end) = (self.head, self.head + wire.len());
        while self.entries.front().is_some_and(|e| e.start < end && start < e.start + e.len as usize) {
            self.forget();
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

/// Whether From or To has this user.
fn names(wire: &[u8], user: &str) -> bool {
    let of = |line: &[u8]| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        let asked = ["from", "to", "f", "t"].iter().any(|n| name.trim_end().eq_ignore_ascii_case(n));
        let (_, uri) = value.split_once("sip:").or_else(|| value.split_once("sips:")).filter(|_| asked)?;
        Some(uri.split_once('@').is_some_and(|(its, _)| its.split([':', ';']).next() == Some(user)))
    };
    let head = wire.split(|b| *b == b'\n').take_while(|line| !line.is_empty() && *line != b"\r");
    head.filter_map(of).any(|its| its)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_no_call_is_told() {
        let mut ladder = Ladder::new(1 << 20, RandomState::with_seeds(1, 2, 3, 4));
        let remote = |n: u8| SocketAddr::from(([192, 0, 2, n], 5060));
        ladder.leg(RecordId(7), "call", Peer::Extension("121".into()));
        let text = |user: &str, id: &str, cseq: &str| {
            format!(
                "X\r\nf: \"A\" <sip:{user};p=1@x>;tag=1\r\nTo: <sip:x>\r\nCall-ID: {id}\r\nCSeq: {cseq}\r\n\r\nTo: <sip:9@x>"
            )
        };
        for (n, user, id, cseq) in [
            (1, "121", "reg", "1 REGISTER"),
            (1, "121", "call", "1 INVITE"),
            (2, "1210", "reg2", "1 REGISTER"),
            (1, "121", "reg", "2 REGISTER"),
        ] {
            ladder.received(Wall::default(), remote(n), id, text(user, id, cseq).as_bytes());
        }
        ladder.unread(Wall::default(), remote(3), b"nonsense");
        let told = |wanted: Traced| {
            let answer = ladder.trace(&Traced { limit: wanted.limit.max(1), ..wanted });
            assert_eq!(answer["next"], 5);
            let word = |m: &Value| {
                let message = m["message"].as_str().expect("text");
                message.lines().find_map(|l| l.strip_prefix("CSeq: ")).unwrap_or(message).to_owned()
            };
            answer["items"].as_array().expect("a list").iter().map(word).collect::<Vec<_>>()
        };
        let all = Traced { limit: 100, ..Traced::default() };
        assert_eq!(told(all.clone()), ["1 REGISTER", "1 REGISTER", "2 REGISTER", "nonsense"]);
        assert_eq!(told(Traced { limit: 1, ..all.clone() }), ["nonsense"]);
        assert_eq!(told(Traced { after: 3, ..all.clone() }), ["2 REGISTER", "nonsense"]);
        assert_eq!(told(Traced { after: 99, ..all.clone() }), [""; 0]);
        let his = Traced { extension: Some("121".into()), ..all.clone() };
        assert_eq!(told(his.clone()), ["1 REGISTER", "2 REGISTER"]);
        assert_eq!(told(Traced { calls: true, ..his }), ["1 REGISTER", "1 INVITE", "2 REGISTER"]);
        assert_eq!(told(Traced { address: Some(remote(2).ip()), ..all.clone() }), ["1 REGISTER"]);
        assert_eq!(told(Traced { extension: Some("9".into()), ..all }), [""; 0], "a body says nothing");
    }

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
