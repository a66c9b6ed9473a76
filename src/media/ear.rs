//! Keys that the peer of a port presses: RFC 4733 events, and where they are asked for, the two tones of DTMF in the sound
//! itself (ITU-T Q.23, Q.24), found with Goertzel's filter. INFO is SIP's business. Nothing here takes keys out of a stream.

use std::f32::consts::TAU;

use super::codec::{Decoder, NARROW};
use super::dtmf::Reader;
use super::packet::Header;
use super::{Codec, Payloads};

/// Samples of one block at 8 kHz: 12.75 ms. The filters lie 78 Hz apart, DTMF's tones at least 73 Hz.
const BLOCK: usize = 102;
/// Blocks in a row that must hold one key: 38 ms, what Q.24 has receivers take for a key, and more than speech keeps up.
const HITS: u8 = 3;
/// Blocks in a row without it, before the same key counts again.
const MISSES: u8 = 2;
/// Weakest tone: -33 dB of full scale, as the square of its amplitude.
const MIN_LEVEL: f32 = 700.0 * 700.0;
/// Share of a block's energy that the two tones must hold. Speech has other harmonics.
const MIN_SHARE: f32 = 0.80;
/// The column's tone may be stronger by 6 dB, the row's by 8 dB (Q.24 gives 4 and 8; networks bend it).
const TWIST: (f32, f32) = (4.0, 6.3);
/// The next best tone of a group must be weaker by 8 dB.
const RIVAL: f32 = 6.3;
const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const KEYS: [[char; 4]; 4] = [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

/// Listens to one port.
#[derive(Debug)]
pub struct Ear {
    payloads: Payloads,
    events: Reader,
    tones: Option<Tones>,
    decoder: Option<Decoder>,
    /// Scratch.
    sound: Vec<i16>,
}

impl Ear {
    /// An ear for payloads as that side sends them. `in_band`: for tones in the sound too.
    pub fn new(payloads: Payloads, in_band: bool) -> Ear {
        let tones = in_band.then(Tones::default);
        Ear { payloads, events: Reader::default(), tones, decoder: None, sound: Vec::new() }
    }

    /// A packet of the peer arrived. The key that it completes.
    pub fn packet(&mut self, header: &Header, payload: &[u8]) -> Option<char> {
        let codec = self.payloads.iter().find(|p| p.0 == header.payload_type).map(|p| p.1)?;
        match codec {
            Codec::Event => {
                let key = self.events.packet(header, payload)?;
                // Who sends events has taken the tones out, or not quite: a key would count twice.
                self.tones = None;
                Some(key)
            }
            Codec::Pcmu | Codec::Pcma | Codec::G722 => {
                let tones = self.tones.as_mut()?;
                let decoder = match &mut self.decoder {
                    Some(decoder) if decoder.codec() == codec => decoder,
                    other => other.insert(Decoder::new(codec, NARROW)),
                };
                self.sound.clear();
                decoder.decode(payload, &mut self.sound);
                tones.hear(&self.sound)
            }
            Codec::Noise | Codec::Unknown => None,
        }
    }
}

/// The two tones of a key in a stream of samples, 8000 a second.
#[derive(Clone, Debug)]
pub struct Tones {
    /// Goertzel's two last values, for each tone.
    filters: [(f32, f32); 8],
    energy: f32,
    count: usize,
    /// What the last blocks held.
    last: Option<char>,
    hits: u8,
    /// The key that was counted and is still down.
    down: Option<char>,
    misses: u8,
}

impl Default for Tones {
    fn default() -> Tones {
        Tones { filters: [(0.0, 0.0); 8], energy: 0.0, count: 0, last: None, hits: 0, down: None, misses: 0 }
    }
}

impl Tones {
    /// Hears some more. The last key that was completed in it.
    pub fn hear(&mut self, samples: &[i16]) -> Option<char> {
        let mut key = None;
        for sample in samples {
            let x = f32::from(*sample);
            self.energy += x * x;
            for (filter, coefficient) in self.filters.iter_mut().zip(COEFFICIENTS.iter()) {
                *filter = (x + coefficient * filter.0 - filter.1, filter.0);
            }
            self.count += 1;
            if self.count == BLOCK {
                let block = self.block();
                key = self.decide(block).or(key);
            }
        }
        key
    }

    /// What the block that is full holds; the next one begins.
    fn block(&mut self) -> Option<char> {
        let energy = std::mem::take(&mut self.energy);
        let filters = std::mem::replace(&mut self.filters, [(0.0, 0.0); 8]);
        self.count = 0;
        let power: [f32; 8] = std::array::from_fn(|i| {
            let (last, before) = filters[i];
            last * last + before * before - COEFFICIENTS[i] * last * before
        });
        let (row, row_power) = best(&power[..4])?;
        let (column, column_power) = best(&power[4..])?;
        // A sine of amplitude a has the power (a * BLOCK / 2)² in its filter, and a²/2 of energy in each sample.
        let scale = (BLOCK * BLOCK) as f32 / 4.0;
        let loud = row_power.min(column_power) > MIN_LEVEL * scale;
        let balanced = column_power < TWIST.0 * row_power && row_power < TWIST.1 * column_power;
        let pure = (row_power + column_power) * 2.0 / BLOCK as f32 > MIN_SHARE * energy;
        // Nobody's telephone has A to D, and talk makes them most easily: they count as events only.
        (loud && balanced && pure && column < 3).then(|| KEYS[row][column])
    }

    fn decide(&mut self, block: Option<char>) -> Option<char> {
        self.hits = if block.is_some() && block == self.last { self.hits.saturating_add(1) } else { 1 };
        self.last = block;
        self.misses = if block == self.down { 0 } else { self.misses.saturating_add(1) };
        if self.misses >= MISSES {
            self.down = None;
        }
        if block.is_none() || block == self.down || self.hits < HITS {
            return None;
        }
        (self.down, self.misses) = (block, 0);
        block
    }
}

static COEFFICIENTS: std::sync::LazyLock<[f32; 8]> = std::sync::LazyLock::new(|| {
    let hz = |i: usize| if i < 4 { ROWS[i] } else { COLUMNS[i - 4] };
    std::array::from_fn(|i| 2.0 * (TAU * hz(i) / NARROW as f32).cos())
});

/// The strongest of a group, if no other comes near it.
fn best(powers: &[f32]) -> Option<(usize, f32)> {
    let (at, power) = powers.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let alone = powers.iter().enumerate().all(|(i, other)| i == at || other * RIVAL < power);
    alone.then_some((at, power))
}

/// The sound of a key, for test phones: both tones at `amplitude`, 8000 samples a second. Silence for what is no key.
pub fn sound_of(key: char, milliseconds: u32, amplitude: f32) -> Vec<i16> {
    let place = (0..16).find(|i| KEYS[i / 4][i % 4] == key.to_ascii_uppercase());
    let sample = |n: u32| {
        let Some(place) = place else { return 0 };
        let phase = |hz: f32| (TAU * hz * (n % NARROW) as f32 / NARROW as f32).sin();
        (amplitude * (phase(ROWS[place / 4]) + phase(COLUMNS[place % 4]))) as i16
    };
    (0..milliseconds * 8).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::media::codec::Encoder;
    use crate::media::dtmf;
    use crate::media::packet::Sender;
    use crate::media::sound::{Language, Library};

    fn heard(samples: &[i16]) -> String {
        let mut tones = Tones::default();
        samples.chunks(160).filter_map(|packet| tones.hear(packet)).collect()
    }

    fn pressed(keys: &str, ms: u32, amplitude: f32, offset: usize) -> Vec<i16> {
        let mut out = vec![0; offset];
        for key in keys.chars() {
            out.extend(sound_of(key, ms, amplitude));
            out.extend([0; 8 * 60]);
        }
        out
    }

    #[test]
    fn every_key_is_heard_once_at_any_offset_and_level() {
        let all = "1234567890*#1155";
        for offset in [0, 17, 51, 80, 101] {
            for (ms, amplitude) in [(60, 6000.0), (80, 900.0), (200, 15_000.0)] {
                assert_eq!(heard(&pressed(all, ms, amplitude, offset)), all, "{ms} ms, {amplitude}, offset {offset}");
            }
        }
    }

    #[test]
    fn what_is_no_key() {
        let tone = |hz: f32, n: usize| (TAU * hz * n as f32 / 8000.0).sin();
        let mix = |parts: &[(f32, f32)]| -> Vec<i16> {
            let sample = |n| parts.iter().map(|(hz, level)| tone(*hz, n) * level).sum::<f32>() as i16;
            (0..4000).map(sample).collect()
        };
        for (name, sound) in [
            ("silence", vec![0; 4000]),
            ("one tone of two", mix(&[(697.0, 8000.0)])),
            ("ringback", mix(&[(425.0, 8000.0)])),
            ("too quiet", mix(&[(697.0, 300.0), (1209.0, 300.0)])),
            ("twisted by 12 dB", mix(&[(697.0, 2000.0), (1209.0, 8000.0)])),
            ("a third tone", mix(&[(697.0, 6000.0), (1209.0, 6000.0), (1800.0, 5000.0)])),
            ("two rows", mix(&[(697.0, 6000.0), (770.0, 6000.0), (1209.0, 6000.0)])),
            ("too far off", mix(&[(660.0, 6000.0), (1260.0, 6000.0)])),
            ("20 ms", sound_of('1', 20, 8000.0)),
            ("A", sound_of('A', 100, 8000.0)),
        ] {
            assert_eq!(heard(&sound), "", "{name}");
        }
    }

    #[test]
    fn talk_is_no_key() {
        // Words of ours, in two languages, over and over at other speeds: pitch and formants wander through the tones.
        for language in [Language::English, Language::Russian] {
            for (name, sound) in Library::own(language).iter() {
                let mut decoder = Decoder::new(Codec::Pcmu, NARROW);
                let mut samples = Vec::new();
                (0..).map_while(|n| sound.frame(Codec::Pcmu, n)).for_each(|f| decoder.decode(f, &mut samples));
                for percent in (70..140).step_by(9) {
                    let stretched: Vec<i16> =
                        (0..samples.len() * 100 / percent).map(|i| samples[i * percent / 100]).collect();
                    assert_eq!(heard(&stretched), "", "{name} at {percent} %");
                }
            }
        }
        // Minutes of voices: a pitch that glides, its harmonics through two formants that wander, breath between.
        let mut rng = Rng::from_number(4);
        let mut roll = |low: f32, high: f32| low + (high - low) * (rng.bits32() as f32 / u32::MAX as f32);
        let mut tones = Tones::default();
        let (mut pitch, mut formants, mut keys) = (120.0, [600.0, 1300.0], String::new());
        let mut phase = [0.0f32; 12];
        for _ in 0..6000 {
            if roll(0.0, 1.0) < 0.08 {
                (pitch, formants) = (roll(90.0, 300.0), [roll(300.0, 1000.0), roll(900.0, 2400.0)]);
            }
            pitch *= roll(0.98, 1.02);
            // The throat gives most at the pitch itself, the mouth what it likes.
            let level = |i: usize, hz: f32| -> f32 {
                let mouth: f32 = formants.iter().map(|f| (-((hz - f) / 160.0).powi(2)).exp()).sum();
                0.4 / (i + 1) as f32 + mouth
            };
            let (voiced, breath) = (roll(0.0, 1.0) < 0.8, roll(50.0, 600.0));
            let levels: [f32; 12] = std::array::from_fn(|i| 5000.0 * level(i, pitch * (i + 1) as f32));
            let frame = (0..160).map(|_| {
                let mut sample = roll(-breath, breath);
                for (i, phase) in phase.iter_mut().enumerate().filter(|_| voiced) {
                    *phase = (*phase + TAU * pitch * (i + 1) as f32 / 8000.0) % TAU;
                    sample += levels[i] * phase.sin();
                }
                sample as i16
            });
            keys.extend(tones.hear(&frame.collect::<Vec<_>>()));
        }
        assert_eq!(keys, "");
    }

    #[test]
    fn an_ear_takes_events_of_any_payload_type_and_tones_only_where_asked() {
        let payloads = vec![(0, Codec::Pcmu), (9, Codec::G722), (97, Codec::Event)];
        let read = |ear: &mut Ear, packets: &[Vec<u8>]| -> String {
            let key = |p: &Vec<u8>| {
                let header = Header::parse(p)?;
                ear.packet(&header, &p[header.start..header.end])
            };
            packets.iter().filter_map(key).collect()
        };
        let mut sender = Sender::new(1, 2, 3);
        let events = dtmf::press(&mut sender, 97, '1', 100);
        let tones = |sender: &mut Sender, codec, payload_type: u8| -> Vec<Vec<u8>> {
            let mut samples = pressed("2", 100, 5000.0, 0);
            if codec == Codec::G722 {
                samples = samples.iter().flat_map(|s| [*s, *s]).collect();
            }
            let payload = Encoder::new(codec).encode(&samples);
            payload.chunks(160).map(|chunk| sender.packet(payload_type, false, chunk)).collect()
        };
        let (narrow, wide) = (tones(&mut sender, Codec::Pcmu, 0), tones(&mut sender, Codec::G722, 9));
        for (in_band, keys) in [(false, ""), (true, "2")] {
            assert_eq!(read(&mut Ear::new(payloads.clone(), in_band), &narrow), keys);
            assert_eq!(read(&mut Ear::new(payloads.clone(), in_band), &wide), keys);
            assert_eq!(read(&mut Ear::new(payloads.clone(), in_band), &events), "1");
        }
        // Events of a payload type that was not agreed are none, nor do tones count besides events.
        assert_eq!(read(&mut Ear::new(vec![(101, Codec::Event)], true), &events), "");
        assert_eq!(read(&mut Ear::new(payloads, true), &[events, narrow].concat()), "1");
    }
}
