//! Several voices as one: what loudspeakers say back to the one who speaks over them. Each voice has a short queue, from which a
//! beat of 20 ms takes what is there; the sum is cut off where it is too loud, not wrapped. G.711 alone, for that is what an
//! announcement speaks; one voice alone passes as it came.
//!
//! ```text
//!   packet --> [ queue of a voice: GATHER before it is heard, DEPTH at most ] --+
//!   packet --> [ queue ] -------------------------------------------------------+--> sum --> 20 ms, every 20 ms
//! ```
//!
//! What is lost is silence of its length; what comes late is lost; a voice that falls silent adds nothing, and if all do, the beat
//! stops until somebody speaks again. Told the time, it never asks it, and allocates only when a voice joins.

use std::collections::VecDeque;

use super::Codec;
use super::codec::{alaw, to_alaw, to_ulaw, ulaw};
use super::packet::Header;
use super::prompt::{MAX_LATE, PACKET};
use super::sound::FRAME;
use crate::base::Instant;

/// Samples that a voice gathers before it is heard (40 ms): so much jitter is not heard.
pub const GATHER: usize = 2 * FRAME;
/// Samples that a voice may have waiting (120 ms); beyond that it goes on from the newest [`GATHER`].
pub const DEPTH: usize = 6 * FRAME;
/// Voices at most.
pub const MAX_VOICES: usize = 256;
/// Room of a voice: what waits, what is lost before a packet, and the packet, before it is cut back.
const ROOM: usize = 3 * DEPTH;

/// Mixes voices.
#[derive(Debug)]
pub struct Mixer {
    law: Law,
    voices: Vec<Voice>,
    /// When the next 20 ms are due; none: nobody is heard.
    due: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Law {
    A,
    Mu,
}

/// One voice.
#[derive(Debug)]
struct Voice {
    /// Whose it is, as its owner numbers it.
    who: u16,
    /// Samples that wait.
    waiting: VecDeque<i16>,
    /// Its SSRC, and the timestamp that comes next.
    stream: Option<(u32, u32)>,
    /// It has gathered enough, and is heard until nothing is left.
    heard: bool,
}

impl Mixer {
    /// For voices of this codec, mixed into the same; none: it is not G.711.
    pub fn new(codec: Codec) -> Option<Mixer> {
        let law = match codec {
            Codec::Pcma => Law::A,
            Codec::Pcmu => Law::Mu,
            Codec::G722 | Codec::Event | Codec::Noise | Codec::Unknown => return None,
        };
        Some(Mixer { law, voices: Vec::new(), due: None })
    }

    /// Whether it mixes this codec.
    pub fn speaks(&self, codec: Codec) -> bool {
        self.law == if codec == Codec::Pcma { Law::A } else { Law::Mu }
    }

    /// These are heard from now on, and nobody else; whoever was heard before goes on.
    pub fn hear(&mut self, who: &[u16]) {
        self.voices.retain(|voice| who.contains(&voice.who));
        for who in who.iter().take(MAX_VOICES) {
            if !self.voices.iter().any(|voice| voice.who == *who) {
                self.voices.push(Voice::new(*who));
            }
        }
    }

    /// A packet of one of them.
    pub fn packet(&mut self, now: Instant, who: u16, header: &Header, payload: &[u8]) {
        let law = self.law;
        let Some(voice) = self.voices.iter_mut().find(|voice| voice.who == who) else { return };
        voice.take(law, header, payload);
        if voice.heard && self.due.is_none() {
            self.due = Some(now);
        }
    }

    /// When [`Mixer::frame`] is to be asked.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The 20 ms that are due, as a payload. False: nobody is heard any more.
    pub fn frame(&mut self, now: Instant, payload: &mut [u8; FRAME]) -> bool {
        let Some(due) = self.due else { return false };
        let mut sum = [0i32; FRAME];
        let mut heard = false;
        for voice in &mut self.voices {
            heard |= voice.give(&mut sum);
        }
        if !heard {
            self.due = None;
            return false;
        }
        for (byte, sample) in payload.iter_mut().zip(sum) {
            let sample = sample.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            *byte = match self.law {
                Law::A => to_alaw(sample),
                Law::Mu => to_ulaw(sample),
            };
        }
        let due = if now.since(due) > MAX_LATE { now } else { due };
        self.due = Some(due + PACKET);
        true
    }
}

impl Voice {
    fn new(who: u16) -> Voice {
        Voice { who, waiting: VecDeque::with_capacity(ROOM), stream: None, heard: false }
    }

    fn take(&mut self, law: Law, header: &Header, payload: &[u8]) {
        // What is longer is no sound of a telephone.
        let payload = payload.get(..DEPTH).unwrap_or(payload);
        let missing = match self.stream {
            Some((ssrc, next)) if ssrc == header.ssrc => header.timestamp.wrapping_sub(next) as i32,
            Some(_) | None => i32::MAX,
        };
        match missing {
            0 => {}
            // Too late: its place is taken.
            missing if (-(DEPTH as i32)..0).contains(&missing) => return,
            missing if (1..=DEPTH as i32).contains(&missing) && self.heard => {
                self.waiting.extend(std::iter::repeat_n(0, missing as usize));
            }
            // Another stream, or a pause.
            _ => {
                self.waiting.clear();
                self.heard = false;
            }
        }
        self.waiting.extend(payload.iter().map(|byte| match law {
            Law::A => alaw(*byte),
            Law::Mu => ulaw(*byte),
        }));
        if self.waiting.len() > DEPTH {
            self.waiting.drain(..self.waiting.len() - GATHER);
        }
        self.stream = Some((header.ssrc, header.timestamp.wrapping_add(payload.len() as u32)));
        self.heard |= self.waiting.len() >= GATHER;
    }

    /// Adds 20 ms, or what is left. Whether it is heard.
    fn give(&mut self, sum: &mut [i32; FRAME]) -> bool {
        self.heard &= !self.waiting.is_empty();
        if self.heard {
            let have = self.waiting.len().min(FRAME);
            sum.iter_mut().zip(self.waiting.drain(..have)).for_each(|(sum, sample)| *sum += i32::from(sample));
        }
        self.heard
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::codec::{Encoder, NARROW};
    use crate::media::packet::Sender;
    use crate::media::tone::{Tone, strength};

    /// Somebody who speaks a tone.
    struct Speaker {
        who: u16,
        sound: Vec<u8>,
        at: usize,
        sender: Sender,
    }

    impl Speaker {
        fn new(who: u16, hz: u32, codec: Codec) -> Speaker {
            let samples: Vec<i16> = Tone::new(hz, NARROW).take(NARROW as usize).collect();
            let sound = Encoder::new(codec).encode(&samples);
            Speaker { who, sound, at: 0, sender: Sender::new(u32::from(who) + 7, 9, 1000) }
        }

        /// The next packet, of so many samples.
        fn says(&mut self, samples: usize) -> Vec<u8> {
            let payload: Vec<u8> = (0..samples).map(|n| self.sound[(self.at + n) % self.sound.len()]).collect();
            self.at += samples;
            let packet = self.sender.packet(0, false, &payload);
            self.sender.advance(samples as u32);
            packet
        }

        fn tells(&mut self, mixer: &mut Mixer, ms: u64, samples: usize) {
            let packet = self.says(samples);
            give(mixer, ms, self.who, &packet);
        }
    }

    fn give(mixer: &mut Mixer, ms: u64, who: u16, packet: &[u8]) {
        let header = Header::parse(packet).expect("RTP");
        mixer.packet(at(ms), who, &header, &packet[header.start..header.end]);
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// What is heard until `ms`, each 20 ms when they are due.
    fn hear(mixer: &mut Mixer, ms: u64) -> Vec<u8> {
        let mut heard = Vec::new();
        let mut frame = [0; FRAME];
        while let Some(due) = mixer.due().filter(|due| *due <= at(ms)) {
            if mixer.frame(due, &mut frame) {
                heard.extend(frame);
            }
        }
        heard
    }

    fn samples(codec: Codec, heard: &[u8]) -> Vec<i16> {
        heard.iter().map(|byte| if codec == Codec::Pcma { alaw(*byte) } else { ulaw(*byte) }).collect()
    }

    fn mixer(codec: Codec, voices: u16) -> Mixer {
        let mut mixer = Mixer::new(codec).expect("G.711");
        mixer.hear(&(0..voices).collect::<Vec<_>>());
        mixer
    }

    #[test]
    fn two_tones_in_are_two_tones_out() {
        for codec in [Codec::Pcma, Codec::Pcmu] {
            let mut mixer = mixer(codec, 3);
            let (mut one, mut two) = (Speaker::new(0, 440, codec), Speaker::new(1, 1000, codec));
            let mut heard = Vec::new();
            for n in 0..50 {
                one.tells(&mut mixer, n * 20, 160);
                two.tells(&mut mixer, n * 20 + 7, 160);
                heard.extend(hear(&mut mixer, n * 20 + 10));
            }
            let heard = samples(codec, &heard[320..]);
            assert!(heard.len() >= 47 * 160, "{}", heard.len());
            for (hz, share) in [(440, 0.4..0.6), (1000, 0.4..0.6), (700, 0.0..0.02)] {
                let found = strength(&heard[..7200], hz, NARROW);
                assert!(share.contains(&found), "{codec:?} {hz} {found}");
            }
        }
        assert!(Mixer::new(Codec::G722).is_none());
    }

    #[test]
    fn one_alone_passes_as_it_came_whatever_its_packets() {
        for packet in [80, 160, 240, 320] {
            let mut mixer = mixer(Codec::Pcma, 2);
            let mut one = Speaker::new(1, 440, Codec::Pcma);
            let (mut heard, mut ms) = (Vec::new(), 0);
            while ms < 1000 {
                one.tells(&mut mixer, ms, packet);
                ms += packet as u64 / 8;
                heard.extend(hear(&mut mixer, ms - 1));
            }
            assert!(heard.len() >= 7200, "{packet}: {}", heard.len());
            assert_eq!(heard, one.sound[..heard.len()], "{packet}");
        }
    }

    #[test]
    fn too_loud_is_cut_off_not_wrapped() {
        let mut mixer = mixer(Codec::Pcma, 3);
        let loud = [0xaa; 160];
        let mut senders = [1, 2, 3].map(|ssrc| Sender::new(ssrc, 1, 1));
        for _ in 0..2 {
            for (who, sender) in senders.iter_mut().enumerate() {
                let packet = sender.packet(8, false, &loud);
                sender.advance(160);
                give(&mut mixer, 0, who as u16, &packet);
            }
        }
        assert_eq!(hear(&mut mixer, 0), loud);
    }

    #[test]
    fn the_beat_goes_while_somebody_is_heard() {
        let mut mixer = mixer(Codec::Pcmu, 2);
        let mut one = Speaker::new(0, 440, Codec::Pcmu);
        one.tells(&mut mixer, 0, 160);
        assert_eq!(mixer.due(), None, "it gathers");
        one.tells(&mut mixer, 20, 160);
        assert_eq!(mixer.due(), Some(at(20)));
        assert_eq!(hear(&mut mixer, 20).len(), 160);
        assert_eq!(mixer.due(), Some(at(40)));
        assert_eq!(hear(&mut mixer, 60).len(), 160, "one more is there");
        assert_eq!(mixer.due(), None);
        // A worker that stood still does not catch up.
        for n in 0..6 {
            one.tells(&mut mixer, 100 + n * 20, 160);
        }
        let mut frame = [0; FRAME];
        assert!(mixer.frame(at(1000), &mut frame));
        assert_eq!(mixer.due(), Some(at(1020)));
    }

    #[test]
    fn what_is_lost_is_silence_and_what_is_late_is_lost() {
        let mut mixer = mixer(Codec::Pcma, 1);
        let mut one = Speaker::new(0, 440, Codec::Pcma);
        let packets: Vec<_> = (0..8).map(|_| one.says(160)).collect();
        // The third comes after the fourth, the sixth twice.
        for n in [0, 1, 3, 2, 4, 5, 5] {
            give(&mut mixer, 0, 0, &packets[n]);
        }
        let heard = hear(&mut mixer, 1000);
        assert_eq!(heard.len(), 6 * 160);
        assert_eq!(heard[..320], one.sound[..320]);
        assert!(heard[320..480].iter().all(|byte| *byte == to_alaw(0)));
        assert_eq!(heard[480..], one.sound[480..960]);
        // The next stream begins anew, and so does the same after a long pause.
        let mut other = Sender::new(99, 1, 77);
        for _ in 0..2 {
            let packet = other.packet(8, false, &[0x33; 160]);
            other.advance(160);
            give(&mut mixer, 2000, 0, &packet);
        }
        assert_eq!(hear(&mut mixer, 2020), [0x33; 320]);
        other.advance(80_000);
        for _ in 0..2 {
            let packet = other.packet(8, false, &[0x44; 160]);
            other.advance(160);
            give(&mut mixer, 12_000, 0, &packet);
        }
        assert_eq!(hear(&mut mixer, 12_020), [0x44; 320]);
    }

    #[test]
    fn a_heap_of_packets_is_cut_back_to_the_newest() {
        let mut mixer = mixer(Codec::Pcma, 1);
        let mut one = Speaker::new(0, 440, Codec::Pcma);
        for _ in 0..50 {
            one.tells(&mut mixer, 0, 160);
        }
        let heard = hear(&mut mixer, 10_000);
        assert!((GATHER..=DEPTH).contains(&heard.len()), "{}", heard.len());
        assert_eq!(heard[heard.len() - 160..], one.sound[7840..8000]);
    }

    #[test]
    fn who_leaves_is_heard_no_more_and_who_stays_goes_on() {
        let mut mixer = mixer(Codec::Pcma, 2);
        let (mut one, mut two) = (Speaker::new(0, 440, Codec::Pcma), Speaker::new(1, 1000, Codec::Pcma));
        for _ in 0..3 {
            one.tells(&mut mixer, 0, 160);
            two.tells(&mut mixer, 0, 160);
        }
        hear(&mut mixer, 0);
        mixer.hear(&[0, 2]);
        assert_eq!(hear(&mut mixer, 20), one.sound[160..320]);
        two.tells(&mut mixer, 30, 160);
        assert_eq!(hear(&mut mixer, 40), one.sound[320..480]);
        assert!(mixer.speaks(Codec::Pcma) && !mixer.speaks(Codec::Pcmu));
    }

    proptest! {
        #[test]
        fn no_packets_make_it_grow(packets in proptest::collection::vec((0u16..4, any::<u32>(), 0u32..3, proptest::collection::vec(any::<u8>(), 0..1500)), 0..60)) {
            let mut mixer = mixer(Codec::Pcmu, 3);
            let mut frame = [0; FRAME];
            for (n, (who, timestamp, ssrc, payload)) in packets.into_iter().enumerate() {
                let packet = Sender::new(ssrc, n as u16, timestamp % 4000).packet(0, false, &payload);
                give(&mut mixer, n as u64 * 5, who, &packet);
                prop_assert!(mixer.voices.iter().all(|voice| voice.waiting.len() <= DEPTH && voice.waiting.capacity() == ROOM));
                if n % 3 == 0 {
                    mixer.frame(at(n as u64 * 5), &mut frame);
                }
            }
        }
    }
}
