//! One audio stream of a phone: G.711 packets whose samples are the speaker's own tone, and an ear that tells tones apart.
//! The tone is a pattern of four bytes, repeated, so that a single packet that went astray tells whose it was.

use std::net::SocketAddr;

use strowger::media::Codec;
use strowger::media::codec::{self, Encoder};

use super::sdp::Direction;
use crate::{MS, Time, sounds};

/// Whose voice it is: the phone's index and its call's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tone(pub u32);

impl Tone {
    /// What two sound like at once in G.711 of this payload type: the server adds them up, sample by sample.
    pub fn with(self, other: Tone, payload: u8) -> Tone {
        let both = |a: u8, b: u8| match payload {
            0 => codec::to_ulaw(codec::ulaw(a).saturating_add(codec::ulaw(b))),
            _ => codec::to_alaw(codec::alaw(a).saturating_add(codec::alaw(b))),
        };
        let (own, others) = (self.0.to_be_bytes(), other.0.to_be_bytes());
        Tone(u32::from_be_bytes(std::array::from_fn(|n| both(own[n], others[n]))))
    }
}

/// Packet time.
const FRAME: Time = 20 * MS;
/// Samples (bytes) a packet.
const SAMPLES: usize = 160;
/// What timestamps may differ from the clock between two packets: a phone that was held lets them stand still.
const MAX_JUMP_MS: i64 = 3500;

/// One RTP stream in both directions.
#[derive(Clone, Debug)]
pub struct Voice {
    /// What we say.
    pub tone: Tone,
    /// Where we listen.
    pub local: SocketAddr,
    /// Where we send; none: nowhere.
    pub remote: Option<SocketAddr>,
    /// What we send and hear by negotiation.
    pub direction: Direction,
    /// Our payload type.
    pub payload: u8,
    /// What else we have said that we listen to.
    pub listens: Vec<u8>,
    /// When that was last agreed upon.
    pub agreed_at: Time,
    /// The payload type of digits.
    pub digits: Option<u8>,
    /// Payload types of digits that were agreed upon earlier: what was on its way then may still come (RFC 3264 8.3.2).
    pub digits_before: Vec<u8>,
    /// The negotiation is far enough for packets to flow.
    pub on: bool,
    /// Tones heard, with how many packets and when last.
    pub heard: Vec<Heard>,
    /// Digits heard, each once.
    pub keys: String,
    /// Sounds heard that the server plays, each once as long as no other comes between.
    pub sounds: Vec<&'static str>,
    /// What was wrong with the packets.
    pub complaints: Vec<String>,
    ssrc: u32,
    seq: u16,
    stamp: u32,
    next: Time,
    source: Option<u32>,
    last_key: Option<u32>,
    pressing: Vec<Vec<u8>>,
    /// Payloads that are sent in place of the tone, the last first.
    saying: Vec<Vec<u8>>,
    /// Sequence number, timestamp and time of the last packet heard.
    last: Option<(u16, u32, Time)>,
}

/// A tone in our ear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Whose.
    pub tone: Tone,
    /// Packets.
    pub count: u64,
    /// First packet.
    pub first: Time,
    /// Last packet.
    pub last: Time,
}

impl Voice {
    /// A stream that is not on yet.
    pub fn new(tone: Tone, local: SocketAddr, random: u64) -> Voice {
        Voice {
            tone,
            local,
            remote: None,
            direction: Direction::SendRecv,
            payload: 8,
            listens: Vec::new(),
            agreed_at: 0,
            digits: None,
            digits_before: Vec::new(),
            on: false,
            heard: Vec::new(),
            keys: String::new(),
            sounds: Vec::new(),
            complaints: Vec::new(),
            ssrc: random as u32,
            seq: (random >> 32) as u16,
            stamp: (random >> 20) as u32,
            next: 0,
            source: None,
            last_key: None,
            pressing: Vec::new(),
            saying: Vec::new(),
            last: None,
        }
    }

    /// When the next packet is due.
    pub fn deadline(&self) -> Option<Time> {
        (self.on && self.remote.is_some() && self.direction.sends()).then_some(self.next)
    }

    /// The packets that are due.
    pub fn speak(&mut self, now: Time) -> Option<(SocketAddr, Vec<u8>)> {
        let to = self.remote.filter(|_| self.deadline().is_some_and(|at| at <= now))?;
        self.next = if self.next + FRAME < now { now + FRAME } else { self.next + FRAME };
        self.seq = self.seq.wrapping_add(1);
        self.stamp = self.stamp.wrapping_add(SAMPLES as u32);
        match (self.digits, self.pressing.pop()) {
            (Some(pt), Some(event)) => return Some((to, self.packet(pt, event))),
            // The peer does not take keys any more.
            (None, Some(_)) => self.pressing.clear(),
            (_, None) => {}
        }
        if let Some(payload) = self.saying.pop() {
            return Some((to, self.packet(self.payload, payload)));
        }
        let tone = self.tone.0.to_be_bytes();
        let sound = tone.iter().copied().cycle().take(SAMPLES).collect();
        Some((to, self.packet(self.payload, sound)))
    }

    /// Presses a key (RFC 4733): three beginnings and three ends, all with one timestamp in their event.
    pub fn press(&mut self, key: u8) {
        if self.digits.is_none() {
            return;
        }
        for end in [true, true, true, false, false, false] {
            let duration: u16 = if end { 1600 } else { 320 };
            let mut event = vec![key, if end { 0x8a } else { 0x0a }];
            event.extend_from_slice(&duration.to_be_bytes());
            self.pressing.push(event);
        }
    }

    /// Presses a key that is sent as sound: 100 ms of its two tones.
    pub fn sound_key(&mut self, key: char) {
        let Some(codec) = [(8, Codec::Pcma), (0, Codec::Pcmu)].iter().find(|c| c.0 == self.payload) else { return };
        let payload = Encoder::new(codec.1).encode(&sounds::key_samples(key));
        self.saying = payload.chunks(SAMPLES).rev().map(<[u8]>::to_vec).collect();
    }

    /// A packet arrives.
    pub fn hear(&mut self, now: Time, packet: &[u8]) {
        if packet.len() < 12 || packet[0] >> 6 != 2 {
            self.complaints.push("a packet that is no RTP".into());
            return;
        }
        let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        match self.source {
            Some(source) if source != ssrc => {
                self.complaints.push(format!("SSRC changed from {source:08x} to {ssrc:08x}"));
                self.source = Some(ssrc);
            }
            _ => self.source = Some(ssrc),
        }
        let (pt, body) = (packet[1] & 0x7f, &packet[12..]);
        let seq = u16::from_be_bytes([packet[2], packet[3]]);
        let stamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        let before = self.last.replace((seq, stamp, now));
        if let Some((last_seq, last_stamp, at)) = before.filter(|before| before.0.wrapping_add(1) == seq) {
            let (said, took) = (i64::from(stamp.wrapping_sub(last_stamp) as i32) / 8, ((now - at) / MS) as i64);
            if (said - took).abs() > MAX_JUMP_MS {
                self.complaints.push(format!("timestamp went {said} ms on in {took} ms, at packet {last_seq}"));
            }
        }
        // What the far side sends may lag behind by an answer that is lost a few times.
        let settled = self.agreed_at > 0 && now > self.agreed_at + 8 * crate::SEC;
        let digits = Some(pt) == self.digits || (!settled && self.digits_before.contains(&pt));
        if digits && body.len() == 4 {
            // The stamp of our own phones moves within an event, so the end bit and the key tell one press from the next.
            let press = u32::from(body[0]) | u32::from(body[1] & 0x80) << 8;
            if self.last_key != Some(press) && body[1] & 0x80 != 0 {
                self.keys.push(*b"0123456789*#ABCD".get(usize::from(body[0])).unwrap_or(&b'?') as char);
            }
            self.last_key = Some(press);
            return;
        }
        self.last_key = None;
        if settled && pt != self.payload && !self.listens.contains(&pt) {
            let at = now as f64 / crate::SEC as f64;
            self.complaints.push(format!("payload type {pt} where {} was agreed, at {at:.3} s", self.payload));
        }
        if let Some(sound) = sounds::known(body) {
            if let Some(name) = sound.filter(|name| self.sounds.last() != Some(name)) {
                self.sounds.push(name);
            }
            return;
        }
        let Some(first) = body.first_chunk::<4>() else { return };
        let tone = Tone(u32::from_be_bytes(*first));
        if !body.chunks_exact(4).all(|c| c == first) {
            self.complaints.push("a garbled payload".into());
        }
        match self.heard.iter_mut().find(|h| h.tone == tone) {
            Some(heard) => {
                heard.count += 1;
                heard.last = now;
            }
            None => self.heard.push(Heard { tone, count: 1, first: now, last: now }),
        }
    }

    /// Has packets flow from now on.
    pub fn turn_on(&mut self, now: Time) {
        if !self.on {
            self.on = true;
            self.next = now;
        }
        self.next = self.next.max(now);
    }

    fn packet(&self, pt: u8, body: Vec<u8>) -> Vec<u8> {
        let mut packet = vec![0x80, pt];
        packet.extend_from_slice(&self.seq.to_be_bytes());
        packet.extend_from_slice(&self.stamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend(body);
        packet
    }
}
