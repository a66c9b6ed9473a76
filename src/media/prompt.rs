//! A sound on its way: which 20 ms of which sound come next on a port, and when. The relay numbers the packets, so that what a
//! peer hears is one stream: prompt, then bridge.

use std::sync::Arc;
use std::time::Duration;

use super::Codec;
use super::packet::Spurt;
use super::sound::{Sound, TICKS};
use crate::base::Instant;

/// Length of one packet.
pub const PACKET: Duration = Duration::from_millis(20);
/// Who could not be asked for packets for so long goes on from there: a listener is never sent a heap of old packets.
pub const MAX_LATE: Duration = Duration::from_millis(200);

/// What a port says.
#[derive(Debug)]
pub struct Prompt {
    sounds: Vec<Arc<Sound>>,
    codec: Codec,
    /// Its payload type on this port.
    pub payload_type: u8,
    repeat: bool,
    /// Which sound, and which packet of it.
    at: (usize, usize),
    due: Instant,
    spurt: Spurt,
}

impl Prompt {
    /// Sounds one after the other, the first packet now. Nothing if there is no sound in this codec.
    pub fn new(
        now: Instant,
        sounds: Vec<Arc<Sound>>,
        codec: Codec,
        payload_type: u8,
        repeat: bool,
    ) -> Option<Box<Prompt>> {
        let audible = sounds.iter().any(|sound| sound.frame(codec, 0).is_some());
        let spurt = Spurt::default();
        let prompt = Prompt { sounds, codec, payload_type, repeat, at: (0, 0), due: now, spurt };
        audible.then(|| Box::new(prompt))
    }

    /// When the next packet is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The payload that is due at `now`; none: it is over. Follow with [`Prompt::advance`].
    pub fn frame(&mut self, now: Instant) -> Option<&[u8]> {
        if now.since(self.due) > MAX_LATE {
            self.due = now;
            self.spurt.end();
        }
        for _ in 0..=self.sounds.len() {
            let (sound, frame) = self.at;
            match self.sounds.get(sound) {
                Some(sound) if frame < sound.frames() => break,
                Some(_) => self.at = (sound + 1, 0),
                None if self.repeat => self.at = (0, 0),
                None => return None,
            }
        }
        self.sounds.get(self.at.0)?.frame(self.codec, self.at.1)
    }

    /// The timestamp of the present packet. `anew` says where the stream stands if this prompt has to begin it; then the
    /// packet is the first of a talk spurt.
    pub fn timestamp(&mut self, anew: impl FnOnce() -> u32) -> (u32, bool) {
        self.spurt.stamp(anew)
    }

    /// The present packet is sent, or could not be.
    pub fn advance(&mut self) {
        self.at.1 += 1;
        self.spurt.advance(TICKS);
        self.due = self.due + PACKET;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::NARROW;

    fn sound(frames: usize, level: i16) -> Arc<Sound> {
        Arc::new(Sound::new(&vec![level; frames * 160], NARROW))
    }

    fn play(prompt: &mut Prompt, until: u64) -> Vec<(u64, u8)> {
        let mut heard = Vec::new();
        while prompt.due().micros() <= until {
            let at = prompt.due();
            let Some(byte) = prompt.frame(at).map(|frame| frame[0]) else { break };
            heard.push((at.micros() / 1000, byte));
            prompt.advance();
        }
        heard
    }

    #[test]
    fn sounds_follow_one_another_every_20_ms_once_or_for_ever() {
        let start = Instant::from_micros(5000);
        let (quiet, loud) = (sound(2, 0), sound(1, 9000));
        for (repeat, count) in [(false, 3), (true, 50)] {
            let sounds = vec![quiet.clone(), loud.clone()];
            let mut prompt = Prompt::new(start, sounds, Codec::Pcma, 8, repeat).expect("audible");
            let heard = play(&mut prompt, 1_000_000);
            assert_eq!(heard.len(), count);
            assert!(heard.windows(2).all(|w| w[1].0 == w[0].0 + 20));
            assert_ne!(heard[1].1, heard[2].1);
            assert_eq!(heard[0].1, heard[1].1);
        }
    }

    #[test]
    fn nothing_to_hear_is_no_prompt() {
        let now = Instant::ZERO;
        assert!(Prompt::new(now, vec![], Codec::Pcma, 8, true).is_none());
        assert!(Prompt::new(now, vec![sound(1, 9)], Codec::Unknown, 96, true).is_none());
        assert!(Prompt::new(now, vec![Arc::new(Sound::new(&[], NARROW))], Codec::Pcma, 8, true).is_none());
        // An empty one among others is passed over.
        let sounds = vec![Arc::new(Sound::new(&[], NARROW)), sound(1, 9)];
        assert_eq!(play(&mut Prompt::new(now, sounds, Codec::Pcma, 8, true).expect("audible"), 100_000).len(), 6);
    }

    #[test]
    fn a_worker_that_stood_still_does_not_catch_up() {
        let mut prompt = Prompt::new(Instant::ZERO, vec![sound(9, 0)], Codec::Pcma, 8, true).expect("audible");
        assert!(prompt.frame(Instant::ZERO).is_some());
        assert_eq!(prompt.timestamp(|| 100), (100, true));
        prompt.advance();
        assert_eq!(prompt.timestamp(|| 0), (260, false));
        let late = Instant::from_micros(2_000_000);
        assert!(prompt.frame(late).is_some());
        assert_eq!(prompt.timestamp(|| 16_100), (16_100, true));
        prompt.advance();
        assert_eq!(prompt.due(), late + PACKET);
    }
}
