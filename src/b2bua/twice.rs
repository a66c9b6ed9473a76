//! Calls that reach us twice: one INVITE by two ways (RFC 3261 8.2.2.2), and our own calls that come back to us in a circle.
//!
//! A loop through other back-to-back user agents leaves no trace in what arrives: neither our Via nor our Call-ID, and often
//! not even Max-Forwards comes back. What does is the pair of numbers, so that is what is counted, for each trunk.

use smallvec::SmallVec;

use crate::base::{Map, Rng, map};
use crate::call::CallKey;
use crate::sip::Message;
use crate::transaction::ServerKey;

/// Calls at once that one trunk may bring for the same pair of caller's and called number and that go out again: a circle
/// always does, while many calls of one number to our phones (another exchange, a load test) are nobody's fault.
pub const SAME_PAIR: usize = 10;
/// The same where the caller withholds the number, so that many callers look like one.
pub const SAME_CALLED: usize = 20;
/// Entries that a table may hold before what is over is cleared out for the first time; after that twice what was left, so
/// that clearing costs the same for each call however many there are.
const SLACK: usize = 64;

/// INVITEs that may come twice. Keys are seeded hashes, since what is hashed comes from the network. What is over is cleared
/// out when a table has doubled.
#[derive(Debug)]
pub struct Twice {
    hasher: ahash::RandomState,
    /// By Call-ID, From tag and CSeq, with the hash of the Request-URI.
    invites: Map<u64, (ServerKey, u64)>,
    /// By trunk, caller's and called number.
    pairs: Map<u64, SmallVec<[CallKey; 1]>>,
    clear_invites_at: usize,
    clear_pairs_at: usize,
}

/// A trunk, the caller's number if there is one, and the called number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair(pub u64);

impl Twice {
    /// Nothing is known.
    pub fn new(rng: &mut Rng) -> Twice {
        let (clear_invites_at, clear_pairs_at) = (SLACK, SLACK);
        Twice { hasher: rng.hasher(), invites: map(), pairs: map(), clear_invites_at, clear_pairs_at }
    }

    /// Whether the INVITE is one that came before by another way and is still under way. `refused`: whether a transaction was refused; `None` if it
    /// is over.
    ///
    /// A carrier that was refused and calls another number of ours with the same INVITE hunts one after the other, and is welcome.
    pub fn is_merged(&self, msg: &Message, refused: impl Fn(ServerKey) -> Option<bool>) -> bool {
        let Some((key, uri)) = self.invites.get(&self.invite(msg)) else { return false };
        refused(*key).is_some_and(|refused| !refused || *uri == self.uri(msg))
    }

    /// An INVITE is taken.
    pub fn took(&mut self, msg: &Message, key: ServerKey, open: impl Fn(ServerKey) -> bool) {
        if self.invites.len() >= self.clear_invites_at {
            self.invites.retain(|_, (key, _)| open(*key));
            self.clear_invites_at = (2 * self.invites.len()).max(SLACK);
        }
        self.invites.insert(self.invite(msg), (key, self.uri(msg)));
    }

    /// The pair for [`Twice::is_circle`].
    pub fn pair(&self, trunk: &str, caller: Option<&str>, called: &str) -> Pair {
        Pair(self.hasher.hash_one((trunk, caller, called)))
    }

    /// Whether the pair has `most` calls. `live`: whether a call is still one.
    pub fn is_circle(&mut self, pair: Pair, most: usize, live: impl Fn(CallKey) -> bool) -> bool {
        let Some(calls) = self.pairs.get_mut(&pair.0) else { return false };
        calls.retain(|key| live(*key));
        calls.len() >= most
    }

    /// The pair has a call more that goes out again.
    pub fn began(&mut self, pair: Pair, key: CallKey, live: impl Fn(CallKey) -> bool) {
        if self.pairs.len() >= self.clear_pairs_at {
            self.pairs.retain(|_, calls| calls.iter().any(|key| live(*key)));
            self.clear_pairs_at = (2 * self.pairs.len()).max(SLACK);
        }
        self.pairs.entry(pair.0).or_default().push(key);
    }

    fn invite(&self, msg: &Message) -> u64 {
        self.hasher.hash_one((msg.call_id(), msg.from_tag(), msg.cseq().seq))
    }

    fn uri(&self, msg: &Message) -> u64 {
        self.hasher.hash_one(msg.request_uri())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use slotmap::SlotMap;

    use super::*;

    fn invite(call_id: &str, tag: &str, seq: u32) -> Message {
        invite_to("b", call_id, tag, seq)
    }

    fn invite_to(user: &str, call_id: &str, tag: &str, seq: u32) -> Message {
        let text = format!(
            "INVITE sip:{user}@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag={tag}\r\nTo: <sip:b@h>\r\n\
             Call-ID: {call_id}\r\nCSeq: {seq} INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).expect("the test writes it well")
    }

    #[test]
    fn an_invite_is_merged_only_with_itself_and_while_it_is_open() {
        let mut keys: SlotMap<ServerKey, ()> = SlotMap::with_key();
        let mut twice = Twice::new(&mut Rng::from_number(1));
        let key = keys.insert(());
        twice.took(&invite("c", "1", 7), key, |k| keys.contains_key(k));
        for (call_id, tag, seq, merged) in
            [("c", "1", 7, true), ("d", "1", 7, false), ("c", "2", 7, false), ("c", "1", 8, false)]
        {
            assert_eq!(twice.is_merged(&invite(call_id, tag, seq), |_| Some(false)), merged, "{call_id} {tag}");
        }
        for (user, refused, merged) in
            [("b", Some(true), true), ("b", None, false), ("c", Some(false), true), ("c", Some(true), false)]
        {
            assert_eq!(twice.is_merged(&invite_to(user, "c", "1", 7), |_| refused), merged, "{user} {refused:?}");
        }
    }

    #[test]
    fn the_tables_stay_within_their_bound() {
        let mut keys: SlotMap<ServerKey, ()> = SlotMap::with_key();
        let mut calls: SlotMap<CallKey, ()> = SlotMap::with_key();
        let mut twice = Twice::new(&mut Rng::from_number(1));
        for i in 0..1000 {
            let (key, call) = (keys.insert(()), calls.insert(()));
            twice.took(&invite(&i.to_string(), "1", 1), key, |k| keys.contains_key(k));
            let pair = twice.pair("t", Some(&i.to_string()), "b");
            twice.began(pair, call, |k| calls.contains_key(k));
            assert!(twice.invites.len() <= SLACK + 2 && twice.pairs.len() <= SLACK + 2);
            keys.remove(key);
            calls.remove(call);
        }
    }

    #[test]
    fn a_pair_has_so_many_calls_at_once_and_no_more() {
        let mut calls: SlotMap<CallKey, ()> = SlotMap::with_key();
        let mut twice = Twice::new(&mut Rng::from_number(1));
        let (pair, other) = (twice.pair("t", Some("a"), "b"), twice.pair("t", Some("a"), "c"));
        let mut last = None;
        for _ in 0..SAME_PAIR {
            assert!(!twice.is_circle(pair, SAME_PAIR, |k| calls.contains_key(k)));
            let key = calls.insert(());
            twice.began(pair, key, |k| calls.contains_key(k));
            last = Some(key);
        }
        assert!(
            twice.is_circle(pair, SAME_PAIR, |k| calls.contains_key(k)) && !twice.is_circle(other, SAME_PAIR, |_| true)
        );
        last.map(|key| calls.remove(key));
        assert!(!twice.is_circle(pair, SAME_PAIR, |k| calls.contains_key(k)));
    }
}
