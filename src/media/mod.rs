//! Pure packet work: what happens to an RTP or RTCP packet between two of our ports, and what the core tells the workers.
//! No sockets here: `io::relay` drives [`Command`] and packets through `relay`, and so does the simulated network of the tests.

pub mod codec;
pub mod dtmf;
pub mod ear;
pub mod mix;
pub mod packet;
pub mod polycom;
pub mod prompt;
pub mod relay;
pub mod rtcp;
pub mod sound;
pub mod tone;
pub mod track;
pub mod wav;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{Rng, Wall};
use sound::{Library, SoundName};

/// Crockford's base 32.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A local RTP port (even); its RTCP port is the next one. It names one end of one stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Port(pub u16);

/// A recording, as the core names it ([`RecordingId::mint`]); the call record's `recordings[].id` is text of the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RecordingId(pub u128);

impl RecordingId {
    /// A new id. Like a call's, it begins with the wall clock's milliseconds (48 bits): the file's folder is told by it.
    pub fn mint(at: Wall, rng: &mut Rng) -> RecordingId {
        let millis = (at.micros().max(0) as u128 / 1000) & 0xffff_ffff_ffff;
        RecordingId(millis << 80 | u128::from(rng.bits()) << 16 | u128::from(rng.bits32() & 0xffff))
    }

    /// When it was minted, to the millisecond.
    pub fn minted_at(self) -> Wall {
        Wall::from_micros((self.0 >> 80) as i64 * 1000)
    }
}

/// As file names and call records write it: 26 characters of Crockford's base 32 (a ULID).
impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..26).rev().try_for_each(|i| fmt::Write::write_char(f, char::from(DIGITS[(self.0 >> (5 * i)) as usize & 31])))
    }
}

/// Which side of the stereo file a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Side {
    /// The caller.
    Left,
    /// The callee.
    Right,
}

/// Where a stream's packets may come from, and so where ours go (RTP bleed: nowhere else).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remote {
    /// The address in the peer's SDP. Port 0 or an unspecified address: nothing is sent until it is learnt.
    pub sdp: SocketAddr,
    /// Behind NAT: the address that the peer's signalling comes from. Packets from it (any port) may be learnt, once.
    pub nat: Option<IpAddr>,
}

/// Not the text of a recording's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a recording id (26 letters and digits)")]
pub struct NotAnId;

impl FromStr for RecordingId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<RecordingId, NotAnId> {
        let digit = |b: u8| DIGITS.iter().position(|d| *d == b.to_ascii_uppercase()).map(|digit| digit as u128);
        let add = |sum: u128, b: u8| sum.checked_mul(32)?.checked_add(digit(b)?);
        let value = (text.len() == 26).then(|| text.bytes().try_fold(0, add)).flatten();
        value.map(RecordingId).ok_or(NotAnId)
    }
}

/// What kind of packets a stream carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// RTP with RTCP on the next port: SSRC, sequence and timestamps are kept continuous.
    Rtp {
        /// RTP clock of the main payload, for continuity across sources, in Hz.
        clock: u32,
    },
    /// Anything else over UDP (udptl): relayed as it is.
    Opaque,
}

/// One payload type translated on its way out of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PtMap {
    /// As it arrives at the linked port.
    pub from: u8,
    /// As it leaves this port.
    pub to: u8,
}

/// A codec that we can decode for a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Codec {
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
    /// G.722, 16 kHz audio on an 8 kHz RTP clock.
    G722,
    /// RFC 4733 events; no audio.
    Event,
    /// Comfort noise, RFC 3389; silence.
    Noise,
    /// Known by name only: noted in the record, never played as noise.
    Unknown,
}

/// Payload types and what they mean on one port, as that side sends them.
pub type Payloads = Vec<(u8, Codec)>;

/// What the core tells a media worker. All ports of one call are on one worker.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Takes a port into use.
    Open {
        /// Which.
        port: Port,
        /// What flows.
        kind: Kind,
        /// The SSRC that we use towards the peer of this port.
        ssrc: u32,
        /// No packet from this side for so long while one is due: [`Output::Silent`]. Zero: never.
        timeout: Duration,
    },
    /// Where the port's peer is; also un-learns what was learnt if the address differs.
    Remote {
        /// Which.
        port: Port,
        /// Where.
        remote: Remote,
    },
    /// Packets that arrive at `a` leave from `b` and the other way round. Replaces earlier links of both.
    Link {
        /// One end.
        a: Port,
        /// The other.
        b: Port,
        /// Payload types translated for packets leaving `a`.
        to_a: Vec<PtMap>,
        /// Payload types translated for packets leaving `b`.
        to_b: Vec<PtMap>,
    },
    /// The clock of what is spoken on a port, once it is agreed.
    Clock {
        /// Which.
        port: Port,
        /// RTP clock of the main payload, in Hz.
        clock: u32,
    },
    /// An announcement: what arrives at `from` leaves from each of `to`; what arrives there goes nowhere, or `back`. Replaces links.
    Fan {
        /// Who speaks.
        from: Port,
        /// The payload type that is heard, the same at every port; others go nowhere.
        payload_type: u8,
        /// Who hears it.
        to: Vec<Port>,
        /// The G.711 codec of that type, if what arrives at `to` is mixed and leaves from `from`.
        back: Option<Codec>,
    },
    /// The peer of a port is a Polycom group: alerts begin now, and the port's end is told it before [`Output::Closed`].
    Polycom {
        /// Which; its peer is told with [`Command::Remote`].
        port: Port,
        /// Channel, 1 to 50.
        channel: u8,
        /// Shown on the phones, 13 characters of ASCII.
        name: String,
    },
    /// What may flow: `send` lets packets out of this port, `expect` has the silence clock run.
    Flow {
        /// Which.
        port: Port,
        /// Packets may leave from this port.
        send: bool,
        /// The peer of this port ought to send.
        expect: bool,
    },
    /// We speak on a port: these sounds, one after the other, to its peer and in the stream that the peer hears anyway. What the
    /// linked port would send there meanwhile is dropped, and the silence clock stands still. Replaces what was played.
    /// [`Output::Played`] comes at the end, and at once if there is nothing that can be played.
    Play {
        /// Which.
        port: Port,
        /// Names of the library; unknown ones are left out.
        sounds: Vec<SoundName>,
        /// G.711 or G.722, as agreed with this peer.
        codec: Codec,
        /// Its payload type towards this peer.
        payload_type: u8,
        /// From the beginning again, until [`Command::Hush`].
        repeat: bool,
    },
    /// We say no more on a port.
    Hush {
        /// Which.
        port: Port,
    },
    /// Listens for keys that the peer of a port presses: [`Output::Digit`]. They pass to the linked port all the same.
    Listen {
        /// Which.
        port: Port,
        /// How the payloads of that side are to be read; empty: listens no more.
        payloads: Payloads,
        /// Also for tones in the sound itself; not after the first event.
        in_band: bool,
    },
    /// The sounds there are, from now on.
    Sounds(Arc<Library>),
    /// Begins to record what arrives at `port` as `side` of `recording` (a recording begins with its first tap).
    Tap {
        /// Which.
        port: Port,
        /// Into which file.
        recording: RecordingId,
        /// Which channel.
        side: Side,
        /// How the payloads of that side are to be read.
        payloads: Payloads,
    },
    /// Ends the tap of a port.
    Untap {
        /// Which.
        port: Port,
    },
    /// Ends a recording: the file is closed and reported with [`Output::Recorded`].
    Finish {
        /// Which.
        recording: RecordingId,
    },
    /// Gives a port back. Its statistics come as [`Output::Closed`].
    Close {
        /// Which.
        port: Port,
    },
}

/// What a media worker or a recorder tells the core.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// The peer of this port ought to send and did not for the port's timeout.
    Silent {
        /// Which.
        port: Port,
    },
    /// The first packet arrived from the peer of this port.
    Heard {
        /// Which.
        port: Port,
    },
    /// What was to be played once on a port is over.
    Played {
        /// Which.
        port: Port,
    },
    /// The peer of a port that is listened to pressed a key: 0 to 9, `*`, `#`, A to D.
    Digit {
        /// Which.
        port: Port,
        /// The key.
        digit: char,
    },
    /// A port was given back.
    Closed {
        /// Which.
        port: Port,
        /// What it carried.
        stats: Stats,
    },
    /// A recording was closed.
    Recorded {
        /// Which.
        recording: RecordingId,
        /// What became of it.
        result: Recorded,
    },
}

/// What one port carried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Packets accepted from the peer.
    pub received: u64,
    /// Packets sent to the peer.
    pub sent: u64,
    /// Packets dropped because they came from elsewhere than the peer.
    pub strangers: u64,
    /// Packets dropped because they were no RTP (or RTCP) or had nowhere to go.
    pub dropped: u64,
    /// Packets that the sequence numbers say were lost before us.
    pub lost: u64,
}

/// What became of a recording.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// Length of the file, in milliseconds.
    pub length_ms: u64,
    /// Silence put where packets were lost or the writer was too slow, both sides together, in milliseconds.
    pub gaps_ms: u64,
    /// Whether the file holds all that was heard (false: the disk was full, the writer too slow, or no file could be made).
    pub complete: bool,
    /// Codecs that were heard but could not be decoded, as payload types.
    pub undecoded: Vec<u8>,
    /// Why there is no file at all; none where there is one.
    pub no_file: Option<String>,
}
