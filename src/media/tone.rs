//! Sine tones, and the ear that tells them apart (Goertzel's filter): each phone of a test speaks its own tone, so that a
//! crossed call is heard and a recording's channels can be checked.

use std::f64::consts::TAU;

/// Peak of a tone, of 32767: loud, without clipping in any codec.
const AMPLITUDE: f64 = 12_000.0;

/// An endless sine.
#[derive(Clone, Debug)]
pub struct Tone {
    step: f64,
    phase: f64,
}

impl Tone {
    /// A tone of `hz` at `rate` samples a second.
    pub fn new(hz: u32, rate: u32) -> Tone {
        Tone { step: TAU * f64::from(hz) / f64::from(rate.max(1)), phase: 0.0 }
    }
}

impl Iterator for Tone {
    type Item = i16;
    fn next(&mut self) -> Option<i16> {
        let sample = (self.phase.sin() * AMPLITUDE) as i16;
        self.phase = (self.phase + self.step) % TAU;
        Some(sample)
    }
}

/// Which share of the energy of `samples` lies at `hz`: 1 for that tone alone, 0 for silence. Tones must lie apart by more
/// than the rate divided by the number of samples.
pub fn strength(samples: &[i16], hz: u32, rate: u32) -> f64 {
    let energy: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    if energy == 0.0 {
        return 0.0;
    }
    let coefficient = 2.0 * (TAU * f64::from(hz) / f64::from(rate.max(1))).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        (last, before) = (f64::from(*sample) + coefficient * last - before, last);
    }
    let power = last * last + before * before - coefficient * last * before;
    (2.0 * power / (energy * samples.len() as f64)).min(1.0)
}

/// Which of some tones is heard: the strongest, if it has most of the energy.
pub fn heard(samples: &[i16], rate: u32, among: &[u32]) -> Option<u32> {
    let strongest = among.iter().map(|hz| (strength(samples, *hz, rate), *hz)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (strongest.0 > 0.5).then_some(strongest.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_told_from_others_and_from_silence() {
        let among = [440, 500, 620, 1000];
        for hz in among {
            let sound: Vec<i16> = Tone::new(hz, 8000).take(800).collect();
            assert!(strength(&sound, hz, 8000) > 0.95);
            assert_eq!(heard(&sound, 8000, &among), Some(hz));
        }
        let both: Vec<i16> = Tone::new(440, 8000).zip(Tone::new(1000, 8000)).map(|(a, b)| a + b).take(800).collect();
        assert!((0.4..0.6).contains(&strength(&both, 440, 8000)));
        assert_eq!(heard(&[0; 800], 8000, &among), None);
        assert_eq!(heard(&[], 8000, &among), None);
    }
}
