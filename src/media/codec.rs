//! Codecs that a recording can read and a prompt or a test phone can speak: G.711 by tables of our own (ITU-T G.711), G.722 by
//! `ezk-g722`. Nothing here transcodes a call.

use std::fmt;

use ezk_g722::libg722;

use super::Codec;

/// Samples a second of G.711.
pub const NARROW: u32 = 8000;
/// Samples a second of G.722.
pub const WIDE: u32 = 16000;

static ULAW: [i16; 256] = TABLES.0;
static ALAW: [i16; 256] = TABLES.1;
const TABLES: ([i16; 256], [i16; 256]) = tables();

/// One byte of µ-law as 16-bit linear.
pub fn ulaw(byte: u8) -> i16 {
    ULAW[usize::from(byte)]
}

/// One byte of A-law as 16-bit linear.
pub fn alaw(byte: u8) -> i16 {
    ALAW[usize::from(byte)]
}

/// 16-bit linear as one byte of µ-law.
pub fn to_ulaw(sample: i16) -> u8 {
    const BIAS: i32 = 132;
    const CLIP: i32 = 32635;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(CLIP) + BIAS;
    // 7 for 0x4000.., 0 for 0x80..: the bias makes sure of bit 7.
    let exponent = 24 - (magnitude as u32).leading_zeros();
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | (exponent as u8) << 4 | mantissa as u8)
}

/// 16-bit linear as one byte of A-law.
pub fn to_alaw(sample: i16) -> u8 {
    let (sign, magnitude) = if sample >= 0 { (0x80, i32::from(sample)) } else { (0, -i32::from(sample) - 1) };
    let exponent = 24u32.saturating_sub((magnitude as u32).leading_zeros());
    let shift = if exponent == 0 { 4 } else { exponent + 3 };
    let mantissa = (magnitude >> shift) & 0x0f;
    (sign | (exponent as u8) << 4 | mantissa as u8) ^ 0x55
}

/// Reads one side's payloads as linear samples of one rate.
pub struct Decoder {
    codec: Codec,
    rate: u32,
    /// Last narrow sample, where narrow sound goes into a wide file.
    last: i16,
    g722: Option<Box<libg722::decoder::Decoder>>,
}

impl Decoder {
    /// A decoder whose output has `rate` samples a second: [`NARROW`] or [`WIDE`].
    pub fn new(codec: Codec, rate: u32) -> Decoder {
        let g722 = (codec == Codec::G722)
            .then(|| Box::new(libg722::decoder::Decoder::new(libg722::Bitrate::Mode1_64000, false, rate == NARROW)));
        Decoder { codec, rate, last: 0, g722 }
    }

    /// Which codec it reads.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the sound of a payload to `out`. Codecs without sound, or not known, append nothing.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) {
        match (self.codec, &mut self.g722) {
            (Codec::Pcmu, _) => self.narrow(&ULAW, payload, out),
            (Codec::Pcma, _) => self.narrow(&ALAW, payload, out),
            (Codec::G722, Some(g722)) => out.extend_from_slice(&g722.decode(payload)),
            (Codec::G722 | Codec::Event | Codec::Noise | Codec::Unknown, _) => {}
        }
    }

    fn narrow(&mut self, table: &[i16; 256], payload: &[u8], out: &mut Vec<i16>) {
        if self.rate == NARROW {
            out.extend(payload.iter().map(|byte| table[usize::from(*byte)]));
            return;
        }
        for byte in payload {
            let sample = table[usize::from(*byte)];
            out.push(((i32::from(self.last) + i32::from(sample)) / 2) as i16);
            out.push(sample);
            self.last = sample;
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({:?}, {} Hz)", self.codec, self.rate)
    }
}

/// Turns linear samples into payloads, for prompts, tones and test phones.
pub struct Encoder {
    codec: Codec,
    g722: Option<Box<libg722::encoder::Encoder>>,
}

impl Encoder {
    /// An encoder. G.722 takes 16,000 samples a second, G.711 8,000.
    pub fn new(codec: Codec) -> Encoder {
        let g722 = (codec == Codec::G722)
            .then(|| Box::new(libg722::encoder::Encoder::new(libg722::Bitrate::Mode1_64000, false, false)));
        Encoder { codec, g722 }
    }

    /// The payload of some samples; empty for codecs that we do not speak.
    pub fn encode(&mut self, samples: &[i16]) -> Vec<u8> {
        match (self.codec, &mut self.g722) {
            (Codec::Pcmu, _) => samples.iter().copied().map(to_ulaw).collect(),
            (Codec::Pcma, _) => samples.iter().copied().map(to_alaw).collect(),
            (Codec::G722, Some(g722)) => g722.encode(samples),
            (Codec::G722 | Codec::Event | Codec::Noise | Codec::Unknown, _) => Vec::new(),
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({:?})", self.codec)
    }
}

const fn tables() -> ([i16; 256], [i16; 256]) {
    let (mut ulaw, mut alaw) = ([0; 256], [0; 256]);
    let mut byte = 0;
    while byte < 256 {
        ulaw[byte] = decode_ulaw(byte as u8);
        alaw[byte] = decode_alaw(byte as u8);
        byte += 1;
    }
    (ulaw, alaw)
}

const fn decode_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((((byte & 0x0f) as i32) << 3) + 132) << ((byte >> 4) & 7);
    (if byte & 0x80 != 0 { 132 - magnitude } else { magnitude - 132 }) as i16
}

const fn decode_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, ((byte & 0x0f) as i32) << 4);
    let magnitude = match exponent {
        0 => mantissa + 8,
        n => (mantissa + 0x108) << (n - 1),
    };
    (if byte & 0x80 != 0 { magnitude } else { -magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::tone::{self, Tone};

    #[test]
    fn g711_keeps_the_values_of_the_recommendation() {
        for (byte, sample) in
            [(0x00, -32124), (0x80, 32124), (0xff, 0), (0x7f, 0), (0xfe, 8), (0x7e, -8), (0xf0, 120), (0x8f, 16764)]
        {
            assert_eq!(ulaw(byte), sample, "{byte:02x}");
        }
        for (byte, sample) in [(0xd5, 8), (0x55, -8), (0xaa, 32256), (0x2a, -32256), (0xd4, 24), (0x80, 5504)] {
            assert_eq!(alaw(byte), sample, "{byte:02x}");
        }
    }

    #[test]
    fn g711_gives_every_byte_back_and_errs_little() {
        for byte in 0..=255u8 {
            assert_eq!(to_alaw(alaw(byte)), byte);
            // µ-law has two zeros.
            assert!(to_ulaw(ulaw(byte)) == byte || (byte == 0x7f && to_ulaw(0) == 0xff));
        }
        for sample in i16::MIN..=i16::MAX {
            let bound = (i32::from(sample).abs() / 16).max(16);
            assert!((i32::from(alaw(to_alaw(sample))) - i32::from(sample)).abs() <= bound, "{sample}");
            let clipped = i32::from(sample).clamp(-32635, 32635);
            assert!((i32::from(ulaw(to_ulaw(sample))) - clipped).abs() <= bound, "{sample}");
        }
    }

    #[test]
    fn tones_survive_every_codec_at_both_rates() {
        for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722] {
            let from = if codec == Codec::G722 { WIDE } else { NARROW };
            let sound: Vec<i16> = Tone::new(700, from).take(from as usize).collect();
            let payload = Encoder::new(codec).encode(&sound);
            assert_eq!(payload.len(), 8000);
            for rate in [NARROW, WIDE] {
                let (mut decoder, mut out) = (Decoder::new(codec, rate), Vec::new());
                payload.chunks(160).for_each(|packet| decoder.decode(packet, &mut out));
                assert_eq!(out.len(), rate as usize, "{decoder:?}");
                assert!(tone::strength(&out[400..], 700, rate) > 0.9, "{decoder:?}");
                assert!(tone::strength(&out[400..], 1100, rate) < 0.05, "{decoder:?}");
            }
        }
        let mut out = Vec::new();
        Decoder::new(Codec::Unknown, NARROW).decode(b"noise", &mut out);
        assert!(out.is_empty());
    }
}
