//! The call record: what remains of one customer's call. One call is one record with one id, whatever happened to it.
//! The names are a contract with users (INTERFACE, "The call record"); additions are free, changes are not.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::{Rng, Wall};
use crate::policy::Why;

/// Version of the record's shape, its field `v`.
pub const VERSION: u32 = 1;

/// The id of a call and of its record: 128 bits, the first 48 of them the wall clock's milliseconds, written in
/// Crockford's base 32 (26 characters), so that ids sort by time. The idempotency key everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RecordId(pub u128);

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl RecordId {
    /// A new id.
    pub fn mint(at: Wall, rng: &mut Rng) -> RecordId {
        let millis = (at.micros().max(0) as u128 / 1000) & 0xffff_ffff_ffff;
        let random = (u128::from(rng.bits()) << 16) | u128::from(rng.bits32() & 0xffff);
        RecordId((millis << 80) | random)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 26];
        for (i, c) in text.iter_mut().enumerate() {
            *c = CROCKFORD[((self.0 >> (125 - 5 * i)) & 31) as usize];
        }
        f.write_str(std::str::from_utf8(&text).expect("base 32 is ASCII"))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not a call id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a call id (26 letters and digits)")]
pub struct NotAnId;

impl FromStr for RecordId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<RecordId, NotAnId> {
        if text.len() != 26 {
            return Err(NotAnId);
        }
        let mut value: u128 = 0;
        for b in text.bytes() {
            let digit = CROCKFORD.iter().position(|c| *c == b.to_ascii_uppercase()).ok_or(NotAnId)? as u128;
            value = value.checked_mul(32).and_then(|v| v.checked_add(digit)).ok_or(NotAnId)?;
        }
        Ok(RecordId(value))
    }
}

impl Serialize for RecordId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<RecordId, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One customer's call, from its first INVITE to its end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CallRecord {
    /// Its id.
    pub id: RecordId,
    /// [`VERSION`].
    pub v: u32,
    /// Which way it went.
    pub direction: Direction,
    /// INVITE received.
    pub started_at: Wall,
    /// First answered by someone.
    pub answered_at: Option<Wall>,
    /// Over.
    pub ended_at: Wall,
    /// Who called.
    pub caller: Caller,
    /// What was called.
    pub called: Called,
    /// The caller ID that went out.
    pub shown: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Who talked, e.g. `extension:121`.
    pub answered_by: Option<String>,
    /// Branch of who talked.
    pub branch: Option<String>,
    /// Trunk it came or went by.
    pub trunk: Option<String>,
    /// Milliseconds before the answer; wait + talk + hold = ended - started, exactly.
    pub wait_ms: u64,
    /// Milliseconds of talk.
    pub talk_ms: u64,
    /// Milliseconds on hold.
    pub hold_ms: u64,
    /// Who ended it and how.
    pub hangup: Hangup,
    /// What the customer experienced; phases tile the time without gap or overlap.
    pub journey: Vec<Phase>,
    /// Files.
    pub recordings: Vec<RecordingEntry>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// What an operator added.
    #[serde(default)]
    pub note: Option<String>,
    /// Kind of call, as an operator classed it.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Why it went where it went.
    pub explain: Vec<Why>,
}

/// `direction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From a trunk.
    In,
    /// To a trunk.
    Out,
    /// Between our phones.
    Internal,
    /// A page.
    Page,
}

/// `caller`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Caller {
    /// E.164 of an outside caller, extension of an inside one; none if withheld.
    pub number: Option<String>,
    /// Name: the contact's, else what the carrier says.
    pub name: Option<String>,
    /// Category of the contact, or `unknown`; none for our own phones.
    pub category: Option<String>,
    /// Region.
    pub region: Option<String>,
}

/// `called`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Called {
    /// The number.
    pub number: String,
    /// Its label.
    pub label: Option<String>,
    /// Its campaign.
    pub campaign: Option<String>,
    /// Its channel.
    pub channel: Option<String>,
    /// Its brand flag.
    pub brand: bool,
}

/// `outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Someone talked.
    Answered,
    /// The caller left during a prompt.
    NonTarget,
    /// The caller left soon after the first ring.
    Short,
    /// Nobody answered.
    Missed,
    /// The other side was busy (outgoing).
    Busy,
    /// The other side or a `reject:` target refused.
    Rejected,
    /// Our fault or the carrier's.
    Failed,
}

/// `hangup`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hangup {
    /// Who.
    pub by: By,
    /// Final SIP status that ended an unanswered call.
    pub sip: Option<u16>,
    /// In words, or the peer's Reason.
    pub reason: Option<String>,
}

/// Who ended a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Who called.
    Caller,
    /// Who was called.
    Callee,
    /// We.
    System,
}

/// A phase of the journey.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// What the customer experienced.
    pub phase: PhaseKind,
    /// From.
    pub at: Wall,
    /// Until.
    pub until: Wall,
    /// Why it began, in words.
    pub why: String,
    /// Legs during it.
    pub who: Vec<Who>,
}

/// `phase`, strongest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Talk.
    Talk,
    /// On hold.
    Hold,
    /// A leg rings.
    Ring,
    /// Only unconfirmed legs are left.
    Confirm,
    /// A prompt plays.
    Prompt,
    /// Queued, none rings.
    Queue,
    /// A hook is asked.
    Hook,
    /// Being routed.
    Route,
    /// Being transferred.
    Transfer,
    /// Parked.
    Park,
    /// Paged.
    Page,
}

/// A leg in a phase.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Who {
    /// Who, e.g. `extension:121`, `number:+7…`.
    pub target: String,
    /// The leg's number within the call.
    pub leg: u32,
    /// From.
    pub at: Wall,
    /// Until.
    pub until: Wall,
    /// `answered`, `elsewhere`, `busy`, `rejected`, `no_answer`, `unreachable`, `unconfirmed`, `cancelled`, `failed`.
    pub result: String,
    /// In words, or the peer's Reason.
    pub why: Option<String>,
}

/// A recording in a record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordingEntry {
    /// Its id; the file is `DIR/YYYY/MM/DD/ID.wav`.
    pub id: String,
    /// From.
    pub from: Wall,
    /// Until.
    pub until: Option<Wall>,
    /// Silence put where packets were missing, in milliseconds.
    pub gaps_ms: u64,
    /// Whether it holds all that was said.
    pub complete: bool,
    /// Payload types that were heard but could not be decoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecoded: Vec<u8>,
    /// When the file was deleted for its age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Wall>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let mut rng = Rng::from_number(1);
        let a = RecordId::mint(Wall::from_micros(1_000_000), &mut rng);
        let b = RecordId::mint(Wall::from_micros(2_000_000), &mut rng);
        assert!(a.to_string() < b.to_string());
        assert_eq!(a.to_string().parse(), Ok(a));
        assert_eq!("nonsense".parse::<RecordId>(), Err(NotAnId));
    }
}
