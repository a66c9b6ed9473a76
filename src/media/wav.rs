//! WAV files that an operator gives us to play: PCM of 8 or 16 bits, A-law and µ-law, 8 or 16 kHz, one channel or two (mixed).
//! It reads bytes in memory; whoever opened the file bounded them. Recordings are written by `io::record`, not here.

use super::codec::{self, NARROW, WIDE};

/// Longest sound that is played, in seconds.
pub const MAX_SECONDS: usize = 600;
/// Largest file that can hold so much: two channels of 16 bits at 16 kHz, and some room for the chunks around it.
pub const MAX_BYTES: usize = MAX_SECONDS * 16_000 * 4 + 64 * 1024;
/// Chunks that are looked at before the samples must have been found.
const MAX_CHUNKS: usize = 64;

const PCM: u16 = 1;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
/// The real format stands further behind.
const EXTENSIBLE: u16 = 0xfffe;

/// Why a file is not played.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unplayable {
    /// No RIFF/WAVE file, or cut off before its samples.
    #[error("not a WAV file")]
    NotWav,
    /// Another encoding.
    #[error("WAV of an encoding that is not played here (format {0}, {1} bits): PCM of 8 or 16 bits, A-law or µ-law")]
    Encoding(u16, u16),
    /// Another rate.
    #[error("{0} samples a second: 8000 or 16000 are played")]
    Rate(u32),
    /// More than two channels.
    #[error("{0} channels: one or two are played")]
    Channels(u16),
    /// Too long.
    #[error("longer than {MAX_SECONDS} s")]
    TooLong,
    /// No sound in it.
    #[error("no sound in it")]
    Empty,
}

/// The samples of a WAV file, mixed to one channel, and how many there are in a second ([`NARROW`] or [`WIDE`]).
///
/// # Errors
/// What is wrong with the file, for the operator.
pub fn read(file: &[u8]) -> Result<(Vec<i16>, u32), Unplayable> {
    if file.get(..4) != Some(b"RIFF") || file.get(8..12) != Some(b"WAVE") {
        return Err(Unplayable::NotWav);
    }
    let (mut format, mut at) = (None, 12);
    for _ in 0..MAX_CHUNKS {
        let (name, size) = match (file.get(at..at + 4), word32(file, at + 4)) {
            (Some(name), Some(size)) => (name, size as usize),
            _ => return Err(Unplayable::NotWav),
        };
        let begin = at + 8;
        // A recorder that was cut off left a size that is too large (or none at all): what is there counts.
        let end = begin.saturating_add(size).min(file.len());
        let body = &file[begin.min(end)..end];
        match (name, format) {
            (b"fmt ", _) => format = Some(Format::read(body)?),
            (b"data", Some(format)) => return samples(body, format),
            (b"data", None) => return Err(Unplayable::NotWav),
            _ => {}
        }
        at = begin.saturating_add(size).saturating_add(size & 1);
    }
    Err(Unplayable::NotWav)
}

#[derive(Clone, Copy, Debug)]
struct Format {
    encoding: u16,
    channels: usize,
    rate: u32,
    bits: u16,
}

impl Format {
    fn read(body: &[u8]) -> Result<Format, Unplayable> {
        let field = |at| word16(body, at).ok_or(Unplayable::NotWav);
        let (mut encoding, channels, bits) = (field(0)?, field(2)?, field(14)?);
        let rate = word32(body, 4).ok_or(Unplayable::NotWav)?;
        if encoding == EXTENSIBLE {
            encoding = field(24)?;
        }
        if !matches!((encoding, bits), (PCM, 8 | 16) | (A_LAW | MU_LAW, 8)) {
            return Err(Unplayable::Encoding(encoding, bits));
        }
        if rate != NARROW && rate != WIDE {
            return Err(Unplayable::Rate(rate));
        }
        match channels {
            1 | 2 => Ok(Format { encoding, channels: usize::from(channels), rate, bits }),
            n => Err(Unplayable::Channels(n)),
        }
    }
}

fn samples(body: &[u8], format: Format) -> Result<(Vec<i16>, u32), Unplayable> {
    let width = usize::from(format.bits / 8);
    let frame = width * format.channels;
    if body.len() / frame > MAX_SECONDS * format.rate as usize {
        return Err(Unplayable::TooLong);
    }
    let sample = |bytes: &[u8]| match (format.encoding, bytes) {
        (A_LAW, [byte, ..]) => codec::alaw(*byte),
        (MU_LAW, [byte, ..]) => codec::ulaw(*byte),
        (_, [low, high]) => i16::from_le_bytes([*low, *high]),
        // PCM of 8 bits has no sign.
        (_, [byte, ..]) => (i16::from(*byte) - 128) << 8,
        (_, []) => 0,
    };
    let mixed = body.chunks_exact(frame).map(|frame| {
        let sum: i32 = frame.chunks_exact(width).map(|bytes| i32::from(sample(bytes))).sum();
        (sum / format.channels as i32) as i16
    });
    let samples: Vec<i16> = mixed.collect();
    if samples.is_empty() { Err(Unplayable::Empty) } else { Ok((samples, format.rate)) }
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wav(encoding: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        for field in [encoding, channels] {
            file.extend(field.to_le_bytes());
        }
        file.extend(rate.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        file.extend(b"data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn what_is_played_and_what_is_not() {
        let ok = |samples: &[i16], rate| Ok((samples.to_vec(), rate));
        let cut = wav(PCM, 1, 8000, 16, &[1, 0, 2, 0]);
        for (name, file, result) in [
            ("pcm", wav(PCM, 1, 8000, 16, &[1, 0, 0xff, 0xff]), ok(&[1, -1], NARROW)),
            ("stereo is mixed", wav(PCM, 2, 16000, 16, &[10, 0, 20, 0]), ok(&[15], WIDE)),
            ("8 bits", wav(PCM, 1, 8000, 8, &[128, 129]), ok(&[0, 256], NARROW)),
            ("µ-law", wav(MU_LAW, 1, 8000, 8, &[0xff, 0x80]), ok(&[0, 32124], NARROW)),
            ("A-law", wav(A_LAW, 1, 8000, 8, &[0xd5]), ok(&[8], NARROW)),
            ("a last sample cut in two", wav(PCM, 1, 8000, 16, &[1, 0, 2]), ok(&[1], NARROW)),
            ("cut off", cut[..cut.len() - 2].to_vec(), ok(&[1], NARROW)),
            ("music", wav(PCM, 2, 44100, 16, &[0; 4]), Err(Unplayable::Rate(44100))),
            ("float", wav(3, 1, 8000, 32, &[0; 4]), Err(Unplayable::Encoding(3, 32))),
            ("24 bits", wav(PCM, 1, 8000, 24, &[0; 3]), Err(Unplayable::Encoding(PCM, 24))),
            ("surround", wav(PCM, 6, 8000, 16, &[0; 12]), Err(Unplayable::Channels(6))),
            ("nothing in it", wav(PCM, 1, 8000, 16, &[]), Err(Unplayable::Empty)),
            ("text", b"RIFFabcdWAV".to_vec(), Err(Unplayable::NotWav)),
            ("no data", wav(PCM, 1, 8000, 16, &[])[..40].to_vec(), Err(Unplayable::NotWav)),
            ("too long", wav(MU_LAW, 1, 8000, 8, &vec![0; MAX_SECONDS * 8000 + 1]), Err(Unplayable::TooLong)),
        ] {
            assert_eq!(read(&file), result, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(tail in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..60usize) {
            let mut file = wav(PCM, 2, 8000, 16, &[0; 8]);
            file.truncate(cut.max(12));
            file.extend(tail);
            let _ = read(&file);
        }
    }
}
