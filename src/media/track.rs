//! The timeline of a stereo recording: where on it each packet belongs, and what is heard where there is none.
//!
//! ```text
//!   packets ──> left  ─┐ pending: the last part of a second, where late packets still find their place
//!   packets ──> right ─┴─> frames, in order, once nothing more can come before them
//! ```
//!
//! A side is anchored by the arrival of its first packet and from then on follows the RTP timestamps, so that jitter is not
//! heard. The arrival clock watches: a new source, a jump, or a stream that has fallen behind is anchored anew, and the slow
//! drift of a phone's clock is taken out a millisecond at a time, so that both sides stay together for hours. What was lost is
//! silence and counted; what was never sent (silence suppression, events, hold) is silence and not counted. A payload that we
//! cannot decode is noted and never played.
//!
//! Pure: arrival times come in, samples come out.

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;
use webrtc_util::replay_detector::{ReplayDetector, WrappedSlidingWindowDetector};

use super::codec::{Decoder, NARROW, WIDE};
use super::packet::Header;
use super::{Codec, Payloads, Recorded, Side};
use crate::base::Instant;

/// How long a packet may be late and still be heard at its place.
pub const WINDOW: Duration = Duration::from_millis(250);
/// How far a packet's place may lie from its arrival before the clock of its sender is no longer believed.
pub const MAX_JUMP: Duration = Duration::from_secs(2);
/// How long arrivals are watched before the timeline is corrected by the earliest of them.
const WATCH: Duration = Duration::from_secs(2);
/// A deviation above this is put right at once, in ms; between the two, one ms per [`WATCH`].
const COARSE_MS: i64 = 20;
/// A deviation below this is left alone, in ms.
const FINE_MS: i64 = 3;
/// Most that is given out at one time, in seconds.
const MAX_DRAIN_S: u32 = 1;
/// Sequence numbers that the duplicate detector looks back.
const REPLAY_WINDOW: usize = 64;
/// Most holes that are remembered within the pending part of one side; more are counted as lost at once.
const MAX_HOLES: usize = 32;
/// Clock of all codecs that we decode, in Hz.
const CLOCK: u32 = 8000;

/// Both sides of one recording.
#[derive(Debug)]
pub struct Track {
    rate: u32,
    origin: Instant,
    /// Frames that have been given out.
    written: u64,
    sides: [Lane; 2],
    undecoded: u128,
    incomplete: bool,
    decoded: Vec<i16>,
}

impl Track {
    /// A timeline that begins now. `rate` as by [`rate`].
    pub fn new(origin: Instant, rate: u32) -> Track {
        let sides = [Lane::default(), Lane::default()];
        Track { rate, origin, written: 0, sides, undecoded: 0, incomplete: false, decoded: Vec::new() }
    }

    /// From now on a side's payloads are read by this table. Its clock is not believed any more: another phone may speak.
    pub fn tap(&mut self, side: Side, payloads: Payloads) {
        let lane = &mut self.sides[side as usize];
        lane.payloads = payloads;
        lane.anchor = None;
        lane.decoder = None;
    }

    /// Puts a packet where it belongs.
    pub fn packet(&mut self, side: Side, arrived: Instant, packet: &[u8]) {
        let Some(header) = Header::parse(packet) else { return };
        let arrival = self.frame(arrived);
        let lane = &mut self.sides[side as usize];
        let codec = lane.codec(header.payload_type);
        match codec {
            Codec::Event | Codec::Noise => lane.note(&header),
            Codec::Unknown => {
                lane.note(&header);
                self.undecoded |= 1 << header.payload_type;
            }
            Codec::Pcmu | Codec::Pcma | Codec::G722 => {
                if !lane.is_new(&header) {
                    return;
                }
                let decoder = match &mut lane.decoder {
                    Some(decoder) if decoder.codec() == codec => decoder,
                    slot => slot.insert(Decoder::new(codec, self.rate)),
                };
                self.decoded.clear();
                decoder.decode(&packet[header.start..header.end], &mut self.decoded);
                lane.place(&header, arrival, self.written, self.rate, &self.decoded);
            }
        }
    }

    /// Says that packets were thrown away before they came here.
    pub fn mark_incomplete(&mut self) {
        self.incomplete = true;
    }

    /// Appends interleaved frames (left, right) that are final by now, a second of them at most; returns how many. To be
    /// called until it returns 0.
    pub fn drain(&mut self, now: Instant, out: &mut Vec<i16>) -> usize {
        let until = self.frame(Instant::from_micros(now.micros().saturating_sub(WINDOW.as_micros() as u64)));
        self.drain_to(until, out)
    }

    /// The same for all that is left, up to now.
    pub fn finish(&mut self, now: Instant, out: &mut Vec<i16>) -> usize {
        self.drain_to(self.frame(now), out)
    }

    /// Frames that have been given out.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Samples a second on each side.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// What became of it so far.
    pub fn result(&self) -> Recorded {
        let ms = |frames: u64| frames * 1000 / u64::from(self.rate);
        Recorded {
            length_ms: ms(self.written),
            gaps_ms: ms(self.sides[0].lost + self.sides[1].lost),
            complete: !self.incomplete,
            undecoded: (0..128).filter(|payload| self.undecoded >> payload & 1 == 1).collect(),
            no_file: None,
        }
    }

    fn frame(&self, at: Instant) -> u64 {
        frames(at.since(self.origin), self.rate)
    }

    fn drain_to(&mut self, until: u64, out: &mut Vec<i16>) -> usize {
        let count = until.saturating_sub(self.written).min(u64::from(MAX_DRAIN_S * self.rate)) as usize;
        if count == 0 {
            return 0;
        }
        let start = out.len();
        out.resize(start + 2 * count, 0);
        for (channel, lane) in self.sides.iter_mut().enumerate() {
            let frames = out[start + channel..].iter_mut().step_by(2);
            let ready = lane.pending.len().min(count);
            frames.zip(lane.pending.drain(..ready)).for_each(|(frame, sample)| *frame = sample);
            lane.pass(self.written + count as u64);
        }
        self.written += count as u64;
        count
    }
}

/// The rate that a recording should have: wide if the first codec that makes sound is G.722.
pub fn rate(payloads: &[(u8, Codec)]) -> u32 {
    let first =
        payloads.iter().map(|(_, codec)| *codec).find(|c| !matches!(c, Codec::Event | Codec::Noise | Codec::Unknown));
    if first == Some(Codec::G722) { WIDE } else { NARROW }
}

/// One side.
#[derive(Default)]
struct Lane {
    payloads: Payloads,
    decoder: Option<Decoder>,
    /// Samples from the first frame that was not given out yet.
    pending: VecDeque<i16>,
    anchor: Option<Anchor>,
    replay: Option<WrappedSlidingWindowDetector>,
    /// Frames where packets are missing, not given out yet.
    holes: SmallVec<[(u64, u64); 2]>,
    /// Frames of silence for lost packets, given out.
    lost: u64,
}

/// How a side's timestamps fall on the timeline.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    ssrc: u32,
    /// Highest sequence number.
    seq: u16,
    /// A timestamp and the frame it falls on.
    timestamp: u32,
    frame: u64,
    /// One past the last frame that was placed.
    end: u64,
    /// Earliest arrival against its place since the watch began, in frames, and when that was.
    early: i64,
    since: u64,
}

impl Lane {
    fn codec(&self, payload: u8) -> Codec {
        let known = self.payloads.iter().find(|(known, _)| *known == payload).map(|(_, codec)| *codec);
        known.unwrap_or(match payload {
            // Many phones send what they like of what everybody knows.
            0 => Codec::Pcmu,
            8 => Codec::Pcma,
            9 => Codec::G722,
            13 => Codec::Noise,
            _ => Codec::Unknown,
        })
    }

    /// Whether this packet was not seen before. A new source, or a jump of sequence numbers, begins a new count.
    fn is_new(&mut self, header: &Header) -> bool {
        let goes_on = self.anchor.is_some_and(|anchor| {
            let step = header.seq.wrapping_sub(anchor.seq) as i16;
            anchor.ssrc == header.ssrc && step.unsigned_abs() < REPLAY_WINDOW as u16 * 8
        });
        if !goes_on {
            self.anchor = None;
            self.replay = None;
        }
        let window = || WrappedSlidingWindowDetector::new(REPLAY_WINDOW, u64::from(u16::MAX));
        let replay = self.replay.get_or_insert_with(window);
        let new = replay.check(u64::from(header.seq));
        replay.accept();
        new
    }

    /// A packet without sound that has its place in the sequence: the silence that it stands for is not lost.
    fn note(&mut self, header: &Header) {
        let goes_on = self.anchor.is_some_and(|anchor| anchor.ssrc == header.ssrc) && self.is_new(header);
        if let Some(anchor) =
            self.anchor.as_mut().filter(|anchor| goes_on && header.seq.wrapping_sub(anchor.seq) as i16 > 0)
        {
            anchor.seq = header.seq;
        }
    }

    fn place(&mut self, header: &Header, arrival: u64, written: u64, rate: u32, sound: &[i16]) {
        let (length, jump) = (sound.len() as u64, frames(MAX_JUMP, rate));
        // A packet arrives when its sound is over at the earliest.
        let heard = arrival.saturating_sub(length);
        let fresh = Anchor {
            ssrc: header.ssrc,
            seq: header.seq,
            timestamp: header.timestamp,
            frame: heard,
            end: heard,
            early: i64::MAX,
            since: arrival,
        };
        let mut anchor = self.anchor.unwrap_or(fresh);
        let step = header.seq.wrapping_sub(anchor.seq) as i16;
        let ticks = i64::from(header.timestamp.wrapping_sub(anchor.timestamp) as i32);
        let mut at = anchor.frame.saturating_add_signed(ticks * i64::from(rate / CLOCK));
        // Neither the sender's clock nor a stream that is heard only after its turn is believed.
        if at.abs_diff(heard) > jump || (step > 0 && at + length <= written) {
            anchor = Anchor { end: anchor.end, ..fresh };
            at = heard;
        }
        anchor.early = anchor.early.min(heard as i64 - at as i64);
        if arrival.saturating_sub(anchor.since) >= frames(WATCH, rate) {
            let ms = i64::from(rate / 1000);
            let correction = match anchor.early {
                early if early.abs() > COARSE_MS * ms => early,
                early if early.abs() > FINE_MS * ms => early.signum() * ms,
                _ => 0,
            };
            anchor.frame = anchor.frame.saturating_add_signed(correction);
            at = at.saturating_add_signed(correction);
            (anchor.early, anchor.since) = (i64::MAX, arrival);
        }
        let missing = u64::try_from(step - 1).unwrap_or(0);
        if missing > 0 && at > anchor.end {
            self.open_hole(anchor.end.max(at.saturating_sub(missing * length)), at);
        }
        if step >= 0 {
            anchor.seq = header.seq;
            // Close to the newest packet, a difference of timestamps never overflows.
            (anchor.timestamp, anchor.frame) = (header.timestamp, at);
        }
        anchor.end = anchor.end.max(at + length);
        self.anchor = Some(anchor);
        self.write(at, written, sound);
        self.close_hole(at, at + length);
    }

    fn write(&mut self, at: u64, written: u64, sound: &[i16]) {
        let late = written.saturating_sub(at).min(sound.len() as u64) as usize;
        let sound = &sound[late..];
        let offset = (at + late as u64).saturating_sub(written) as usize;
        if sound.is_empty() {
            return;
        }
        if self.pending.len() < offset + sound.len() {
            // Grown exactly: this is most of what a recording keeps in memory.
            self.pending.reserve_exact(offset + sound.len() - self.pending.len());
            self.pending.resize(offset + sound.len(), 0);
        }
        self.pending.range_mut(offset..offset + sound.len()).zip(sound).for_each(|(to, from)| *to = *from);
    }

    fn open_hole(&mut self, from: u64, to: u64) {
        match self.holes.len() {
            MAX_HOLES.. => self.lost += to - from,
            _ => self.holes.push((from, to)),
        }
    }

    fn close_hole(&mut self, from: u64, to: u64) {
        let Some(i) = self.holes.iter().position(|(a, b)| *a < to && from < *b) else { return };
        let (a, b) = self.holes.swap_remove(i);
        for (a, b) in [(a, from.min(b)), (to.max(a), b)] {
            if a < b {
                self.holes.push((a, b));
            }
        }
    }

    /// Counts what was missing before `frame`, which nothing can fill any more.
    fn pass(&mut self, frame: u64) {
        let lost = &mut self.lost;
        self.holes.retain(|(from, to)| {
            *lost += (*to).min(frame).saturating_sub(*from);
            *from = (*from).max(frame);
            *from < *to
        });
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("anchor", &self.anchor)
            .field("holes", &self.holes)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

fn frames(duration: Duration, rate: u32) -> u64 {
    (duration.as_micros() as u64).saturating_mul(u64::from(rate)) / 1_000_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Rng;
    use crate::media::codec::Encoder;
    use crate::media::packet::Sender;
    use crate::media::tone::{self, Tone};

    const PCMA: [(u8, Codec); 3] = [(8, Codec::Pcma), (101, Codec::Event), (96, Codec::Unknown)];

    fn at_ms(ms: u64) -> Instant {
        Instant::from_micros(5_000_000 + ms * 1000)
    }

    /// A phone that talks in packets of 20 ms.
    struct Phone {
        voice: Sender,
        tone: Tone,
        encoder: Encoder,
        samples: usize,
    }

    impl Phone {
        fn new(hz: u32, ssrc: u32, codec: Codec) -> Phone {
            let rate = if codec == Codec::G722 { WIDE } else { NARROW };
            let (voice, tone, encoder) =
                (Sender::new(ssrc, 65500, u32::MAX - 5000), Tone::new(hz, rate), Encoder::new(codec));
            Phone { voice, tone, encoder, samples: rate as usize / 50 }
        }

        fn talk(&mut self, payload_type: u8) -> Vec<u8> {
            let sound: Vec<i16> = self.tone.by_ref().take(self.samples).collect();
            let packet = self.voice.packet(payload_type, false, &self.encoder.encode(&sound));
            self.voice.advance(160);
            packet
        }
    }

    struct World {
        track: Track,
        out: Vec<i16>,
    }

    impl World {
        fn new(rate: u32) -> World {
            let mut track = Track::new(at_ms(0), rate);
            track.tap(Side::Left, PCMA.to_vec());
            track.tap(Side::Right, vec![(9, Codec::G722)]);
            World { track, out: Vec::new() }
        }

        fn hear(&mut self, side: Side, ms: u64, packet: &[u8]) {
            self.track.packet(side, at_ms(ms), packet);
        }

        fn drain(&mut self, ms: u64) {
            while self.track.drain(at_ms(ms), &mut self.out) > 0 {}
        }

        fn finish(mut self, ms: u64) -> ([Vec<i16>; 2], Recorded) {
            while self.track.finish(at_ms(ms), &mut self.out) > 0 {}
            assert_eq!(self.out.len() as u64, 2 * self.track.written());
            let side = |i| self.out.iter().skip(i).step_by(2).copied().collect::<Vec<_>>();
            ([side(0), side(1)], self.track.result())
        }
    }

    /// First and last millisecond with sound.
    fn span(side: &[i16], rate: u32) -> Option<(u64, u64)> {
        let ms = |at: usize| at as u64 * 1000 / u64::from(rate);
        Some((ms(side.iter().position(|s| s.abs() > 500)?), ms(side.iter().rposition(|s| s.abs() > 500)?)))
    }

    #[test]
    fn both_sides_stand_where_they_were_heard() {
        for rate in [NARROW, WIDE] {
            let mut world = World::new(rate);
            let (mut left, mut right) = (Phone::new(440, 1, Codec::Pcma), Phone::new(1000, 2, Codec::G722));
            for i in 0..100u64 {
                // Jitter of up to 150 ms on one side, none on the other.
                world.hear(Side::Left, 520 + i * 20 + (i * 37 % 6) * 30, &left.talk(8));
                world.hear(Side::Right, 1020 + i * 20, &right.talk(9));
                world.drain(i * 20 + 520);
            }
            let (sides, result) = world.finish(4000);
            assert_eq!(
                result,
                Recorded { length_ms: 4000, gaps_ms: 0, complete: true, undecoded: vec![], no_file: None }
            );
            let (from, to) = span(&sides[0], rate).expect("sound");
            assert!((499..=502).contains(&from) && (2497..=2500).contains(&to), "{from} {to}");
            let (from, to) = span(&sides[1], rate).expect("sound");
            assert!((999..=1003).contains(&from) && (2997..=3000).contains(&to), "{from} {to}");
            let mid = 1100 * rate as usize / 1000..2400 * rate as usize / 1000;
            assert_eq!(tone::heard(&sides[0][mid.clone()], rate, &[440, 1000]), Some(440));
            assert_eq!(tone::heard(&sides[1][mid.clone()], rate, &[440, 1000]), Some(1000));
            assert!(tone::strength(&sides[0][mid], 440, rate) > 0.95);
        }
    }

    #[test]
    fn loss_is_silence_and_counted_but_late_and_twice_is_not() {
        let mut world = World::new(NARROW);
        let mut left = Phone::new(440, 1, Codec::Pcma);
        let packets: Vec<_> = (0..50).map(|_| left.talk(8)).collect();
        for (i, packet) in packets.iter().enumerate() {
            let ms = 20 + i as u64 * 20;
            match i {
                10 | 11 | 30 => {}
                12 => {
                    world.hear(Side::Left, ms, packet);
                    world.hear(Side::Left, ms + 1, packet);
                    world.hear(Side::Left, ms + 2, &packets[10]);
                }
                // Too late to be heard.
                45 => {
                    world.hear(Side::Left, ms, packet);
                    world.hear(Side::Left, ms, &packets[30]);
                }
                _ => world.hear(Side::Left, ms, packet),
            }
            world.drain(ms);
        }
        let (sides, result) = world.finish(1000);
        assert_eq!((result.gaps_ms, result.complete), (40, true));
        for (i, packet) in sides[0].chunks(160).enumerate() {
            assert_eq!(packet.iter().all(|s| *s == 0), i == 11 || i == 30, "{i}");
        }
    }

    #[test]
    fn pauses_events_and_unknown_payloads_are_no_loss() {
        let mut world = World::new(NARROW);
        let mut left = Phone::new(440, 1, Codec::Pcma);
        for i in 0..100u64 {
            let packet = left.talk(8);
            match i {
                // Silence suppression: the sequence goes on where it stood.
                20..40 => {
                    left.voice = Sender::new(1, u16::from_be_bytes([packet[2], packet[3]]), left.voice.timestamp())
                }
                50 | 51 => world.hear(Side::Left, 20 + i * 20, &[&packet[..1], &[101], &packet[2..]].concat()),
                60..=65 => world.hear(Side::Left, 20 + i * 20, &[&packet[..1], &[96], &packet[2..]].concat()),
                66 => world.hear(Side::Left, 20 + i * 20, &[&packet[..1], &[77], &packet[2..]].concat()),
                67 => world.hear(Side::Left, 20 + i * 20, &[&packet[..1], &[13], &packet[2..]].concat()),
                68 => world.hear(Side::Left, 20 + i * 20, &packet[..11]),
                _ => world.hear(Side::Left, 20 + i * 20, &packet),
            }
            world.drain(20 + i * 20);
        }
        let (sides, result) = world.finish(2000);
        assert_eq!((result.gaps_ms, &result.undecoded[..]), (20, &[77, 96][..]));
        for (i, packet) in sides[0].chunks(160).enumerate() {
            let silent = matches!(i, 20..40 | 50 | 51 | 60..=65 | 66 | 67 | 68);
            assert_eq!(packet.iter().all(|s| *s == 0), silent, "{i}");
        }
    }

    #[test]
    fn jumps_and_new_sources_are_anchored_by_arrival() {
        let mut world = World::new(NARROW);
        let mut phone = Phone::new(440, 1, Codec::Pcma);
        for i in 0..150u64 {
            match i {
                30 => phone.voice.advance(1 << 31),
                60 => phone.voice = Sender::new(9, 5, 77),
                90 => phone.voice.advance(8000u32.wrapping_mul(7).wrapping_neg()),
                120 => phone.voice = Sender::new(9, 9000, 77),
                _ => {}
            }
            let packet = phone.talk(8);
            world.hear(Side::Left, 20 + i * 20, &packet);
            world.drain(20 + i * 20);
        }
        let (sides, result) = world.finish(3000);
        assert_eq!(result.gaps_ms, 0);
        assert_eq!(sides[0].chunks(160).filter(|packet| packet.iter().all(|s| *s == 0)).count(), 0);
    }

    #[test]
    fn a_stream_that_falls_behind_is_heard_again_at_once() {
        let mut world = World::new(NARROW);
        let mut phone = Phone::new(440, 1, Codec::Pcma);
        for i in 0..100u64 {
            // The way becomes 400 ms longer.
            let ms = 20 + i * 20 + if i >= 50 { 400 } else { 0 };
            world.hear(Side::Left, ms, &phone.talk(8));
            world.drain(ms);
        }
        let (sides, _) = world.finish(2400);
        let silent = sides[0].chunks(160).filter(|packet| packet.iter().all(|s| *s == 0)).count();
        assert!((20..=21).contains(&silent), "{silent}");
    }

    #[test]
    fn a_phones_clock_does_not_drift_away() {
        for ppm in [-300i64, -100, 100, 300] {
            let mut world = World::new(NARROW);
            let mut voice = Sender::new(1, 65500, u32::MAX - 5000);
            let mut rng = Rng::from_number(ppm as u64);
            let mut worst = 0;
            for i in 0..12_000i64 {
                let heard = 20_000 + i * 20_000 * (1_000_000 + ppm) / 1_000_000;
                let jitter = rng.below(40_000) as i64;
                let packet = voice.packet(8, false, &[0x55; 16]);
                voice.advance(160);
                world.track.packet(Side::Left, Instant::from_micros((5_000_000 + heard + jitter) as u64), &packet);
                if i % 50 == 0 {
                    let ms = heard as u64 / 1000;
                    world.drain(ms);
                    world.out.clear();
                    let end = world.track.sides[0].anchor.map_or(0, |anchor| anchor.frame + 16) as i64;
                    if i > 500 {
                        worst = worst.max((end / 8 - heard / 1000).abs());
                    }
                }
            }
            assert!(worst <= 20, "{ppm} ppm: {worst} ms");
            assert!(world.track.sides[0].pending.capacity() < 16 * 1024);
        }
    }

    #[test]
    fn the_first_codec_says_the_rate() {
        for (payloads, wide) in [
            (&[(101, Codec::Event), (9, Codec::G722), (8, Codec::Pcma)][..], true),
            (&[(8, Codec::Pcma), (9, Codec::G722)], false),
            (&[(96, Codec::Unknown)], false),
            (&[], false),
        ] {
            assert_eq!(rate(payloads), if wide { WIDE } else { NARROW });
        }
    }

    proptest! {
        #[test]
        fn no_packets_break_it_or_make_it_grow(
            packets in proptest::collection::vec((any::<u16>(), any::<u32>(), 0u8..3, 0u64..400, 0usize..400), 0..40)
        ) {
            let mut world = World::new(NARROW);
            let mut ms = 0;
            for (seq, timestamp, payload, step, length) in packets {
                ms += step;
                let packet = Sender::new(u32::from(payload), seq, timestamp).packet([8, 0, 9][usize::from(payload)], false, &vec![7; length]);
                world.hear(Side::Left, ms, &packet);
                prop_assert!(world.track.sides[0].pending.len() < 8 * 12_000);
                world.drain(ms);
            }
            let (sides, result) = world.finish(ms);
            prop_assert_eq!(sides[0].len(), sides[1].len());
            prop_assert_eq!(result.length_ms, ms);
        }
    }
}
