//! The identifiers that we make: tags, which name their leg, and Call-IDs.

use slotmap::{Key, KeyData};

use super::super::LegKey;
use crate::base::Rng;

/// The leg that a local tag names. It may be gone, and another may have taken its place: see [`super::Leg::owns`].
pub fn leg_of(tag: &str) -> Option<LegKey> {
    let mut parts = tag.split('.');
    let (_engine, slot) = (parts.next()?, parts.next()?);
    u64::from_str_radix(slot, 16).ok().map(|n| LegKey::from(KeyData::from_ffi(n)))
}

pub(super) fn mint_tag(engine: u16, key: LegKey, rng: &mut Rng) -> Box<str> {
    let mut text = Hex::new();
    text.number(engine.into()).sign(b'.').number(key.data().as_ffi()).sign(b'.');
    text.digits(rng.bits(), 16).digits(rng.bits32().into(), 8).text().into()
}

/// A Call-ID of ours: the engine's number and 96 random bits.
pub fn mint_call_id(engine: u16, rng: &mut Rng) -> Box<str> {
    Hex::new().number(engine.into()).sign(b'-').digits(rng.bits(), 16).digits(rng.bits32().into(), 8).text().into()
}

/// Room for the longest identifier of ours: an engine, a leg's key, 96 random bits, two signs between them.
const LONGEST_ID: usize = 4 + 1 + 16 + 1 + 24;

/// Identifiers in hexadecimal, made without the formatter: every leg has two.
struct Hex {
    pub(super) room: [u8; LONGEST_ID],
    pub(super) len: usize,
}

impl Hex {
    pub(super) fn new() -> Hex {
        Hex { room: [0; LONGEST_ID], len: 0 }
    }

    fn sign(&mut self, sign: u8) -> &mut Hex {
        self.room[self.len] = sign;
        self.len += 1;
        self
    }

    /// As many digits as it has.
    pub(super) fn number(&mut self, n: u64) -> &mut Hex {
        self.digits(n, (u64::BITS - n.leading_zeros()).div_ceil(4).max(1))
    }

    fn digits(&mut self, n: u64, count: u32) -> &mut Hex {
        for at in (0..count).rev() {
            self.sign(b"0123456789abcdef"[(n >> (4 * at) & 15) as usize]);
        }
        self
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.room[..self.len]).expect("digits are ASCII")
    }
}

pub(super) fn is_variant(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}
