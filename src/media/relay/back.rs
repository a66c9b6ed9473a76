//! Talkback: what arrives at the ports that hear an announcement is mixed ([`crate::media::mix`]) and leaves from the port of the one
//! who speaks, numbered like everything else that its peer hears there. A port on which we play a sound is not heard before that
//! sound is over, and nothing is sent while its listener hears one.

use super::{End, Relay, Spoken};
use crate::base::Instant;
use crate::media::Codec;
use crate::media::mix::Mixer;
use crate::media::packet::{FIXED, Header, Spurt};
use crate::media::prompt::MAX_LATE;
use crate::media::sound::{FRAME, TICKS};

/// What goes back to the one who speaks.
#[derive(Debug)]
pub(super) struct Back {
    mixer: Mixer,
    spurt: Spurt,
}

impl Relay {
    /// Whoever hears this end's peer is heard by it in this codec; none: nobody is.
    pub(super) fn hear_back(&mut self, slot: usize, codec: Option<Codec>) {
        let Some(end) = self.ends[slot].as_mut() else { return };
        let kept = end.back.take().filter(|back| codec.is_some_and(|codec| back.mixer.speaks(codec)));
        let new = || Some(Box::new(Back { mixer: Mixer::new(codec?)?, spurt: Spurt::default() }));
        end.back = kept.or_else(new);
        end.hear_fan();
        self.backs.retain(|back| usize::from(*back) != slot);
        if end.back.is_some() {
            self.backs.push(slot as u16);
        }
    }

    /// Takes what arrived at `from` for the one who speaks at `to`. Whether it is heard there.
    pub(super) fn talk_back(&mut self, now: Instant, to: usize, from: usize, header: &Header, payload: &[u8]) -> bool {
        let Some(end) = self.ends[to].as_mut() else { return false };
        let Some(back) = end.back.as_mut().filter(|_| header.payload_type == end.fan_payload) else { return false };
        back.mixer.packet(now, from as u16, header, payload);
        true
    }

    /// A packet of a mix that is due, written to the front of `buffer`.
    pub(super) fn mixed(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Spoken> {
        self.backs.iter().find_map(|slot| self.ends[usize::from(*slot)].as_mut()?.say_back(now, buffer))
    }

    /// When [`Relay::mixed`] will have something.
    pub(super) fn mixed_at(&self) -> Option<Instant> {
        self.backs.iter().filter_map(|slot| self.ends[usize::from(*slot)].as_ref()?.back.as_ref()?.mixer.due()).min()
    }
}

impl End {
    /// Exactly those who hear are heard.
    pub(super) fn hear_fan(&mut self) {
        if let Some(back) = &mut self.back {
            back.mixer.hear(&self.fan);
        }
    }

    fn say_back(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Spoken> {
        let target = self.target(false).filter(|_| self.send && self.prompt.is_none());
        let back = self.back.as_mut()?;
        let length = FIXED + FRAME;
        let mut frame = [0; FRAME];
        while let Some(due) = back.mixer.due().filter(|due| *due <= now) {
            if !back.mixer.frame(now, &mut frame) || now.since(due) > MAX_LATE {
                back.spurt.end();
            }
            // What may not be heard now is not heard later.
            let Some(to) = target.filter(|_| back.mixer.due().is_some()) else {
                back.spurt.end();
                continue;
            };
            buffer.get_mut(FIXED..length)?.copy_from_slice(&frame);
            let (timestamp, marker) = back.spurt.stamp(|| self.outgoing.due(due, self.ssrc));
            let seq = self.outgoing.own((self.port, self.ssrc), due, timestamp);
            let (payload_type, ssrc) = (self.fan_payload, self.ssrc);
            buffer[0] = 0x80;
            Header { marker, payload_type, seq, timestamp, ssrc, start: FIXED, end: length }.patch(buffer);
            back.spurt.advance(TICKS);
            self.stats.sent += 1;
            return Some(Spoken { port: self.port, to, length });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::media::codec::{Encoder, NARROW, alaw};
    use crate::media::packet::Sender;
    use crate::media::relay::fan::group;
    use crate::media::relay::{Arrival, Verdict};
    use crate::media::sound::{Library, Sound};
    use crate::media::tone::{Tone, strength};
    use crate::media::{Command, Kind, Port};

    const FOREMAN: Port = Port(20000);
    const SHOPS: [(Port, u32); 3] = [(Port(20002), 440), (Port(20004), 1000), (Port(20006), 700)];

    fn at(port: Port) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port.0 + 10_000))
    }

    /// A foreman who speaks over three loudspeakers, each of which hums its tone back.
    struct World {
        relay: Relay,
        ms: u64,
        hums: Vec<(Port, Vec<u8>, Sender)>,
        heard: Vec<(Header, Vec<u8>)>,
    }

    impl World {
        fn new() -> World {
            let hum = |(port, hz): (Port, u32)| {
                let samples: Vec<i16> = Tone::new(hz, NARROW).take(NARROW as usize).collect();
                (port, Encoder::new(Codec::Pcma).encode(&samples), Sender::new(u32::from(port.0), 1, 1))
            };
            let (hums, heard) = (SHOPS.map(hum).to_vec(), Vec::new());
            let mut world = World { relay: Relay::new(), ms: 1000, hums, heard };
            let mut library = Library::default();
            library.put("beep", Sound::new(&[1000; 1600], NARROW));
            world.tell(Command::Sounds(Arc::new(library)));
            for port in SHOPS.map(|shop| shop.0).into_iter().chain([FOREMAN]) {
                let kind = Kind::Rtp { clock: NARROW };
                world.tell(Command::Open { port, kind, ssrc: u32::from(port.0), timeout: Duration::ZERO });
                world.tell(Command::Remote { port, remote: group(at(port)) });
                world.tell(Command::Flow { port, send: true, expect: false });
            }
            world
        }

        fn tell(&mut self, command: Command) {
            self.relay.apply(Instant::from_micros(self.ms * 1000), command, &mut Vec::new());
        }

        fn fan(&mut self, to: &[Port]) {
            self.tell(Command::Fan { from: FOREMAN, payload_type: 8, to: to.to_vec(), back: Some(Codec::Pcma) });
        }

        fn beep(&mut self, port: Port) {
            let (sounds, codec) = (vec!["beep".into()], Codec::Pcma);
            self.tell(Command::Play { port, sounds, codec, payload_type: 8, repeat: false });
        }

        /// Time passes while these hum; what the foreman hears meanwhile.
        fn hum(&mut self, ms: u64, who: &[Port]) {
            self.heard.clear();
            let end = self.ms + ms;
            let mut buffer = [0; 2048];
            while self.ms < end {
                let now = Instant::from_micros(self.ms * 1000);
                if self.ms.is_multiple_of(20) {
                    for (port, sound, sender) in self.hums.iter_mut().filter(|hum| who.contains(&hum.0)) {
                        let from = (self.ms as usize * 8) % sound.len();
                        let mut packet = sender.packet(8, false, &sound[from..from + FRAME]);
                        sender.advance(TICKS);
                        let arrival = Arrival { port: *port, rtcp: false, from: at(*port) };
                        let _ = self.relay.packet(now, arrival, &mut packet);
                    }
                }
                while let Some(spoken) = self.relay.speak(now, &mut buffer) {
                    let header = Header::parse(&buffer[..spoken.length]).expect("RTP");
                    if spoken.port == FOREMAN {
                        assert_eq!(spoken.to, at(FOREMAN));
                        self.heard.push((header, buffer[header.start..header.end].to_vec()));
                    }
                }
                self.ms += 1;
            }
        }

        /// Which of the tones the foreman heard.
        fn tones(&self) -> Vec<u32> {
            let sound = self.heard.iter().flat_map(|(_, payload)| payload.iter().map(|byte| alaw(*byte)));
            let sound: Vec<i16> = sound.collect();
            let hums = SHOPS.map(|shop| shop.1).into_iter();
            hums.filter(|hz| strength(&sound, *hz, NARROW) > 0.2).collect()
        }
    }

    #[test]
    fn the_one_who_speaks_hears_all_who_answer_in_one_stream() {
        let mut world = World::new();
        let [one, two, three] = SHOPS.map(|shop| shop.0);
        world.hum(200, &[one]);
        assert!(world.heard.is_empty(), "it is no announcement yet");
        world.fan(&[one, two, three]);
        world.hum(1000, &[one, two]);
        assert_eq!(world.tones(), [440, 1000]);
        assert!((45..=50).contains(&world.heard.len()), "{}", world.heard.len());
        assert!(world.heard[0].0.marker && world.heard[1..].iter().all(|(header, _)| !header.marker));
        for pair in world.heard.windows(2) {
            let (before, after) = (pair[0].0, pair[1].0);
            assert_eq!(
                (after.seq, after.timestamp),
                (before.seq.wrapping_add(1), before.timestamp.wrapping_add(TICKS))
            );
            assert_eq!((after.ssrc, after.payload_type), (u32::from(FOREMAN.0), 8));
        }
        // Nobody says anything, then the third: time has passed, and the packets go on.
        let last = world.heard.last().expect("heard").0;
        world.hum(1000, &[]);
        assert!(world.heard.len() <= 2, "what was left");
        world.hum(500, &[three]);
        assert_eq!(world.tones(), [700]);
        let first = world.heard[0].0;
        let ticks = first.timestamp.wrapping_sub(last.timestamp);
        assert!(first.marker && (7000..9500).contains(&ticks), "{ticks}");
    }

    #[test]
    fn who_leaves_or_hears_a_sound_is_not_heard() {
        let mut world = World::new();
        let [one, two, three] = SHOPS.map(|shop| shop.0);
        world.fan(&[one, two, three]);
        world.hum(400, &[one, two, three]);
        assert_eq!(world.tones(), [440, 1000, 700]);
        world.tell(Command::Close { port: one });
        world.hum(200, &[]);
        world.hum(400, &[one, two, three]);
        assert_eq!(world.tones(), [1000, 700]);
        // A late one joins with a sound of 200 ms: no microphone opens before it.
        world.fan(&[two]);
        world.hum(200, &[]);
        world.beep(three);
        world.fan(&[two, three]);
        world.hum(180, &[two, three]);
        assert_eq!(world.tones(), [1000]);
        world.hum(400, &[three]);
        assert_eq!(world.tones(), [700]);
        // The one who speaks hears our sound, and nothing else meanwhile; what was said then is gone.
        world.beep(FOREMAN);
        world.hum(180, &[two]);
        assert!(world.tones().is_empty());
        world.tell(Command::Flow { port: FOREMAN, send: false, expect: false });
        world.hum(400, &[two, three]);
        assert!(world.heard.is_empty(), "he holds");
        world.tell(Command::Close { port: FOREMAN });
        assert_eq!((world.relay.speaks_at(), world.relay.mixed_at()), (None, None));
    }

    #[test]
    fn what_is_no_sound_goes_nowhere() {
        let mut world = World::new();
        let [one, ..] = SHOPS.map(|shop| shop.0);
        world.fan(&[one]);
        for payload_type in [101, 0, 13] {
            let mut packet = Sender::new(1, 1, 1).packet(payload_type, false, &[0x11; 160]);
            let arrival = Arrival { port: one, rtcp: false, from: at(one) };
            let verdict = world.relay.packet(Instant::from_micros(world.ms * 1000), arrival, &mut packet);
            assert!(matches!(verdict, Verdict::Drop(_)), "{payload_type}");
        }
        world.tell(Command::Fan { from: FOREMAN, payload_type: 8, to: vec![one], back: None });
        world.hum(400, &[one]);
        assert!(world.heard.is_empty(), "one way");
    }
}
