//! Sounds that we play: encoded once, when they are loaded, as payloads of 20 ms in each codec that we speak, so that playing
//! one is a copy. [`Library`] holds them by name: those of our own making (tones, the spoken words of a prompt), and the
//! operator's files, which may replace ours. Reading files is `io`'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::Codec;
use super::codec::{Encoder, NARROW, WIDE};
use super::tone::Tone;
use super::wav::{self, Unplayable};

/// Bytes of one payload of 20 ms, in G.711 and in G.722.
pub const FRAME: usize = 160;
/// Clock ticks of one such payload; G.722's RTP clock is 8 kHz too (RFC 3551 4.5.2).
pub const TICKS: u32 = 160;
/// Sounds that one library holds at most.
pub const MAX_SOUNDS: usize = 1000;

/// The name of a sound: a file of the operator's (`closed.wav`), or one of ours without an ending (`press-1`).
pub type SoundName = Arc<str>;

/// "Press 1 to take the call from", before the caller's digits.
pub const PRESS_1: &str = "press-1";
/// A ringing tone of 1 s and a pause of 4 s.
pub const RINGBACK: &str = "ringback";
/// A short tone.
pub const BEEP: &str = "beep";
/// Two tones before an announcement.
pub const CHIME: &str = "chime";
/// Half a second of nothing.
pub const PAUSE: &str = "pause";

/// A sound, ready for every codec that we speak.
#[derive(Clone, PartialEq, Eq)]
pub struct Sound {
    pcmu: Bytes,
    pcma: Bytes,
    g722: Bytes,
}

impl Sound {
    /// A sound of linear samples, `rate` of them a second: [`NARROW`] or [`WIDE`]. The last 20 ms are filled up with silence.
    pub fn new(samples: &[i16], rate: u32) -> Sound {
        let (mut narrow, mut wide) = match rate {
            WIDE => (halved(samples), samples.to_vec()),
            _ => (samples.to_vec(), doubled(samples)),
        };
        let frames = narrow.len().div_ceil(FRAME);
        narrow.resize(frames * FRAME, 0);
        wide.resize(frames * 2 * FRAME, 0);
        let encode = |codec, samples: &[i16]| Bytes::from(Encoder::new(codec).encode(samples));
        Sound {
            pcmu: encode(Codec::Pcmu, &narrow),
            pcma: encode(Codec::Pcma, &narrow),
            g722: encode(Codec::G722, &wide),
        }
    }

    /// A sound from the bytes of a WAV file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn of_wav(file: &[u8]) -> Result<Sound, Unplayable> {
        let (samples, rate) = wav::read(file)?;
        Ok(Sound::new(&samples, rate))
    }

    /// The payload of its `n`th 20 ms; none behind its end, or in a codec that we do not speak.
    pub fn frame(&self, codec: Codec, n: usize) -> Option<&[u8]> {
        let payload = match codec {
            Codec::Pcmu => &self.pcmu,
            Codec::Pcma => &self.pcma,
            Codec::G722 => &self.g722,
            Codec::Event | Codec::Noise | Codec::Unknown => return None,
        };
        payload.get(n.checked_mul(FRAME)?..)?.get(..FRAME)
    }

    /// How many payloads of 20 ms it has.
    pub fn frames(&self) -> usize {
        self.pcma.len() / FRAME
    }
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({} ms)", self.frames() * 20)
    }
}

/// Which words our own prompts are spoken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    /// English.
    English,
    /// Russian.
    Russian,
}

impl Language {
    /// What is understood in a country (ISO 3166-1).
    pub fn of(country: &str) -> Language {
        match country {
            "RU" | "BY" | "KZ" | "KG" => Language::Russian,
            _ => Language::English,
        }
    }
}

/// All sounds of a node, by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Library {
    sounds: BTreeMap<SoundName, Arc<Sound>>,
}

impl Library {
    /// The sounds of our own making, encoded once for all configurations.
    pub fn own(language: Language) -> Library {
        static ENGLISH: LazyLock<Library> = LazyLock::new(|| Library::made(Language::English));
        static RUSSIAN: LazyLock<Library> = LazyLock::new(|| Library::made(Language::Russian));
        match language {
            Language::English => ENGLISH.clone(),
            Language::Russian => RUSSIAN.clone(),
        }
    }

    fn made(language: Language) -> Library {
        let mut library = Library::default();
        for (name, file) in spoken(language) {
            let sound = Sound::of_wav(file).expect("we made this file, and a test reads it");
            library.put(name, sound);
        }
        let tone = |hz, ms: usize, pause_ms: usize| {
            let sound = Tone::new(hz, NARROW).take(ms * 8).map(|s| s / 2);
            Sound::new(&sound.chain(std::iter::repeat_n(0, pause_ms * 8)).collect::<Vec<_>>(), NARROW)
        };
        library.put(RINGBACK, tone(425, 1000, 4000));
        library.put(BEEP, tone(1000, 200, 100));
        let falling = |hz, ms: usize| Tone::new(hz, NARROW).take(ms * 8).map(|s| s / 2);
        let chime: Vec<i16> =
            falling(659, 400).chain(falling(523, 500)).chain(std::iter::repeat_n(0, 100 * 8)).collect();
        library.put(CHIME, Sound::new(&chime, NARROW));
        library.put(PAUSE, tone(0, 0, 500));
        library
    }

    /// Puts a sound in; it replaces one of the same name. Nothing happens when [`MAX_SOUNDS`] are there.
    pub fn put(&mut self, name: &str, sound: Sound) {
        if self.sounds.len() < MAX_SOUNDS || self.sounds.contains_key(name) {
            self.sounds.insert(name.into(), Arc::new(sound));
        }
    }

    /// The sound of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Sound>> {
        self.sounds.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&SoundName, &Arc<Sound>)> {
        self.sounds.iter()
    }
}

/// The names of the sounds that speak a number, digit by digit; what is no digit is not spoken.
pub fn digits(number: &str) -> impl Iterator<Item = SoundName> {
    number.chars().filter(char::is_ascii_digit).map(|digit| digit.to_string().into())
}

/// Words spoken by a machine (espeak-ng) while this was written; 8 kHz µ-law.
fn spoken(language: Language) -> [(&'static str, &'static [u8]); 11] {
    macro_rules! words {
        ($folder:literal, $($name:literal)*) => {
            [$(($name, include_bytes!(concat!("../../fixtures/audio/", $folder, "/", $name, ".wav")))),*]
        };
    }
    match language {
        Language::English => words!("en", "press-1" "0" "1" "2" "3" "4" "5" "6" "7" "8" "9"),
        Language::Russian => words!("ru", "press-1" "0" "1" "2" "3" "4" "5" "6" "7" "8" "9"),
    }
}

/// 16 kHz to 8 kHz through a half-band filter, else what lies above 4 kHz would come back as noise.
fn halved(samples: &[i16]) -> Vec<i16> {
    /// A half-band low pass of 11 taps, of 1024; the missing taps are zero.
    const TAPS: [(isize, i32); 7] = [(-5, 12), (-3, -64), (-1, 308), (0, 512), (1, 308), (3, -64), (5, 12)];
    let at = |i: isize| usize::try_from(i).ok().and_then(|i| samples.get(i)).map_or(0, |s| i32::from(*s));
    let filtered = (0..samples.len() as isize).step_by(2).map(|i| {
        let sum: i32 = TAPS.iter().map(|(offset, tap)| at(i + offset) * tap).sum();
        (sum >> 10).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    });
    filtered.collect()
}

/// 8 kHz to 16 kHz: the values between are the means.
fn doubled(samples: &[i16]) -> Vec<i16> {
    let next = samples.iter().skip(1).chain(samples.last());
    let mean = |a: i16, b: i16| ((i32::from(a) + i32::from(b)) / 2) as i16;
    samples.iter().zip(next).flat_map(|(a, b)| [*a, mean(*a, *b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::Decoder;
    use crate::media::tone;

    fn heard(sound: &Sound, codec: Codec) -> Vec<i16> {
        let (mut decoder, mut out) = (Decoder::new(codec, NARROW), Vec::new());
        (0..).map_while(|n| sound.frame(codec, n)).for_each(|frame| decoder.decode(frame, &mut out));
        out
    }

    #[test]
    fn a_sound_is_the_same_in_every_codec() {
        for rate in [NARROW, WIDE] {
            let samples: Vec<i16> = Tone::new(700, rate).take(rate as usize + 1).collect();
            let sound = Sound::new(&samples, rate);
            assert_eq!(sound.frames(), 51);
            for codec in [Codec::Pcma, Codec::Pcmu, Codec::G722] {
                let out = heard(&sound, codec);
                assert_eq!(out.len(), 51 * FRAME);
                assert!(tone::strength(&out[400..8000], 700, NARROW) > 0.95, "{codec:?} from {rate} Hz");
            }
            assert_eq!(sound.frame(Codec::Event, 0), None);
            assert_eq!(sound.frame(Codec::Pcma, 51), None);
            assert_eq!(sound.frame(Codec::Pcma, usize::MAX), None);
        }
    }

    #[test]
    fn what_narrow_sound_cannot_hold_does_not_come_back_as_another_tone() {
        let high: Vec<i16> = Tone::new(6500, WIDE).take(16_000).collect();
        let power = |s: &[i16]| s.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / s.len() as f64;
        assert!(power(&halved(&high)) < power(&high) / 300.0);
    }

    #[test]
    fn our_own_words_are_there_in_every_language() {
        for language in [Language::English, Language::Russian] {
            let library = Library::own(language);
            let names = [PRESS_1, RINGBACK, BEEP, PAUSE].map(SoundName::from).into_iter().chain(digits("0123456789"));
            for name in names {
                let sound = library.get(&name).expect("there");
                assert!((10..=250).contains(&sound.frames()), "{name}: {sound:?}");
            }
        }
        assert_eq!(digits("+7 (343) 0").collect::<Vec<_>>(), ["7", "3", "4", "3", "0"].map(SoundName::from));
        assert_eq!((Language::of("RU"), Language::of("DE")), (Language::Russian, Language::English));
    }

    #[test]
    fn a_file_of_the_operator_replaces_ours() {
        let mut library = Library::own(Language::English);
        let count = library.iter().count();
        library.put(BEEP, Sound::new(&[0; 160], NARROW));
        assert_eq!(library.get(BEEP).map(|s| s.frames()), Some(1));
        assert_eq!(library.iter().count(), count);
    }
}
