//! Announcements: what arrives at one port leaves from many. Loudspeakers are ports like any other; a multicast group of
//! plain RTP is a port whose peer is the group; Polycom's groups have a framing of their own, with alerts before the sound and
//! ends after it ([`polycom`]).

use std::net::SocketAddr;

use super::{Relay, Spoken};
use crate::base::Instant;
use crate::media::packet::Header;
use crate::media::polycom::{self, ALERTS, ENDS, GAP};
use crate::media::{Codec, Output, Port};

/// Ports that hear one announcement at most.
pub const MAX_FAN: usize = 256;
/// Payload type of G.711 µ-law.
const PCMU: u8 = 0;

/// A Polycom group that a port speaks to.
#[derive(Debug)]
pub(super) struct Zone {
    page: polycom::Page,
    /// Alerts that are still to come; the sound waits for them.
    alerts: u32,
    /// Ends that are still to come, once the port is closed.
    ends: Option<u32>,
    /// When the next of them leaves.
    due: Instant,
}

impl Zone {
    /// Puts a frame of µ-law into the group's framing.
    pub(super) fn wrap(&mut self, payload_type: u8, frame: &[u8], buffer: &mut [u8]) -> Option<usize> {
        if self.alerts > 0 || self.ends.is_some() || payload_type != PCMU {
            return None;
        }
        let packet = self.page.transmit(frame);
        buffer.get_mut(..packet.len())?.copy_from_slice(&packet);
        Some(packet.len())
    }

    fn due(&self) -> Option<Instant> {
        (self.alerts > 0 || self.ends.is_some()).then_some(self.due)
    }
}

impl Relay {
    /// How many ports hear what arrives at this one.
    pub fn fans(&self, from: Port) -> usize {
        self.slot(from).and_then(|slot| self.ends[slot].as_ref()).map_or(0, |end| end.fan.len())
    }

    /// What the `nth` of them sends of a packet that got [`super::Verdict::Fan`], written to the front of `buffer`.
    pub fn fan(&mut self, now: Instant, from: Port, nth: usize, packet: &[u8], buffer: &mut [u8]) -> Option<Spoken> {
        let slot = self.slot(from)?;
        let to = usize::from(*self.ends[slot].as_ref()?.fan.get(nth)?);
        let [Some(end), Some(far)] = self.pair(slot, to) else { return None };
        let target = far.target(false).filter(|_| far.send && far.prompt.is_none())?;
        let header = Header::parse(packet)?;
        let length = match &mut far.zone {
            Some(zone) => zone.wrap(header.payload_type, &packet[header.start..header.end], buffer)?,
            None => {
                let copy = buffer.get_mut(..packet.len())?;
                copy.copy_from_slice(packet);
                far.outgoing.carry(now, end.port, far.kind, header, far.ssrc, &far.map).patch(copy);
                packet.len()
            }
        };
        far.stats.sent += 1;
        Some(Spoken { port: far.port, to: target, length })
    }

    /// What arrives at `from` in that payload type leaves from each of `to`, from now on; what they say in this codec goes back.
    pub(super) fn announce(&mut self, from: Port, payload_type: u8, to: &[Port], back: Option<Codec>) {
        let Some(slot) = self.slot(from) else { return };
        self.unlink(slot);
        self.silence_fan(slot);
        if let Some(end) = &mut self.ends[slot] {
            end.fan_payload = payload_type;
        }
        for to in to.iter().take(MAX_FAN) {
            let Some(to) = self.slot(*to) else { continue };
            if to == slot || self.ends[to].as_ref().is_none_or(|end| end.heard_from.is_some()) {
                continue;
            }
            self.unlink(to);
            if let [Some(end), Some(far)] = self.pair(slot, to) {
                end.fan.push(to as u16);
                far.heard_from = Some(slot as u16);
            }
        }
        self.hear_back(slot, back);
    }

    /// The port takes no part in an announcement any more.
    pub(super) fn leave_fan(&mut self, slot: usize) {
        self.silence_fan(slot);
        let from = self.ends[slot].as_mut().and_then(|end| end.heard_from.take());
        if let Some(end) = from.and_then(|from| self.ends[usize::from(from)].as_mut()) {
            end.fan.retain(|to| usize::from(*to) != slot);
            end.hear_fan();
        }
    }

    fn silence_fan(&mut self, slot: usize) {
        let fan = self.ends[slot].as_mut().map(|end| std::mem::take(&mut end.fan)).unwrap_or_default();
        for to in fan {
            if let Some(end) = self.ends[usize::from(to)].as_mut() {
                end.heard_from = None;
            }
        }
    }

    /// The port speaks to a Polycom group: the alerts begin now.
    pub(super) fn alert(&mut self, now: Instant, port: Port, channel: u8, name: &str) {
        let Some(slot) = self.slot(port) else { return };
        let Some(end) = self.ends[slot].as_mut() else { return };
        let page = polycom::Page::new(channel, end.ssrc, name);
        end.zone = Some(Box::new(Zone { page, alerts: ALERTS, ends: None, due: now }));
        end.send = true;
        self.zones.push(slot as u16);
    }

    /// Whether the port is not to be closed yet: its group has to be told the end first.
    pub(super) fn lingers(&mut self, now: Instant, port: Port) -> bool {
        let Some(slot) = self.slot(port) else { return false };
        let zone = self.ends[slot].as_mut().and_then(|end| end.zone.as_mut());
        let Some(zone) = zone.filter(|zone| zone.ends.is_none()) else { return false };
        (zone.alerts, zone.ends, zone.due) = (0, Some(ENDS), now);
        self.leave_fan(slot);
        true
    }

    /// An alert or an end that is due.
    pub(super) fn signal(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Spoken> {
        for i in 0..self.zones.len() {
            let slot = usize::from(self.zones[i]);
            let Some(end) = self.ends[slot].as_mut() else { continue };
            let target = end.target(false);
            let Some(zone) = end.zone.as_mut().filter(|zone| zone.due().is_some_and(|due| due <= now)) else {
                continue;
            };
            zone.due = zone.due + GAP;
            let packet = match &mut zone.ends {
                None => {
                    zone.alerts -= 1;
                    zone.page.alert()
                }
                Some(0) => {
                    let port = end.port;
                    self.zones.swap_remove(i);
                    if let Some(stats) = self.close(port) {
                        self.news.push(Output::Closed { port, stats });
                    }
                    return self.signal(now, buffer);
                }
                Some(left) => {
                    *left -= 1;
                    zone.page.end()
                }
            };
            let port = end.port;
            if let (Some(to), Some(room)) = (target, buffer.get_mut(..packet.len())) {
                room.copy_from_slice(&packet);
                end.stats.sent += 1;
                return Some(Spoken { port, to, length: packet.len() });
            }
        }
        None
    }

    /// When [`Relay::signal`] will have something.
    pub(super) fn signals_at(&self) -> Option<Instant> {
        let zones = self.zones.iter().filter_map(|slot| self.ends[usize::from(*slot)].as_ref()?.zone.as_ref());
        zones.filter_map(|zone| zone.due()).min()
    }
}

/// Where a group is, as a port's peer.
pub fn group(address: SocketAddr) -> crate::media::Remote {
    crate::media::Remote { sdp: address, nat: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::media::packet::Sender;
    use crate::media::relay::{Arrival, Verdict};
    use crate::media::{Command, Kind};

    const FROM: Port = Port(20000);
    const ONE: Port = Port(20002);
    const TWO: Port = Port(20004);

    struct World {
        relay: Relay,
        ms: u64,
        voice: Sender,
    }

    fn at(port: Port) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port.0 + 10_000))
    }

    impl World {
        fn new() -> World {
            let mut world = World { relay: Relay::new(), ms: 1000, voice: Sender::new(7, 100, 4000) };
            for port in [FROM, ONE, TWO] {
                let kind = Kind::Rtp { clock: 8000 };
                world.tell(Command::Open { port, kind, ssrc: u32::from(port.0), timeout: Duration::ZERO });
                world.tell(Command::Remote { port, remote: group(at(port)) });
                world.tell(Command::Flow { port, send: true, expect: false });
            }
            world
        }

        fn now(&self) -> Instant {
            Instant::from_micros(self.ms * 1000)
        }

        fn tell(&mut self, command: Command) -> Vec<Output> {
            let mut out = Vec::new();
            let now = self.now();
            self.relay.apply(now, command, &mut out);
            out
        }

        /// 20 ms of talk into `FROM`; who sends how many bytes, and each as RTP if it is.
        fn talk(&mut self) -> Vec<(Port, SocketAddr, Vec<u8>)> {
            self.ms += 20;
            let mut packet = self.voice.packet(0, false, &[0x55; 160]);
            self.voice.advance(160);
            let arrival = Arrival { port: FROM, rtcp: false, from: at(FROM) };
            let now = self.now();
            if self.relay.packet(now, arrival, &mut packet) != Verdict::Fan {
                return Vec::new();
            }
            let mut buffer = [0; 2048];
            let all = 0..self.relay.fans(FROM);
            let sent = all.filter_map(|nth| {
                let spoken = self.relay.fan(now, FROM, nth, &packet, &mut buffer)?;
                Some((spoken.port, spoken.to, buffer[..spoken.length].to_vec()))
            });
            sent.collect()
        }
    }

    #[test]
    fn what_one_says_all_hear_each_in_a_stream_of_its_own() {
        let mut world = World::new();
        assert_eq!(world.talk(), []);
        world.tell(Command::Fan { from: FROM, payload_type: 0, to: vec![ONE, TWO, FROM], back: None });
        let mut last = None;
        for _ in 0..5 {
            let sent = world.talk();
            assert_eq!(
                sent.iter().map(|(port, to, _)| (*port, *to)).collect::<Vec<_>>(),
                [(ONE, at(ONE)), (TWO, at(TWO))]
            );
            let headers = sent.iter().map(|(_, _, packet)| Header::parse(packet).expect("RTP")).collect::<Vec<_>>();
            assert_eq!((headers[0].ssrc, headers[1].ssrc), (u32::from(ONE.0), u32::from(TWO.0)));
            if let Some((seq, timestamp)) = last {
                assert_eq!((headers[0].seq, headers[0].timestamp), (seq + 1, timestamp + 160));
            }
            last = Some((headers[0].seq, headers[0].timestamp));
        }
        // Keys and noise of another payload type are nobody's business.
        let mut other = Sender::new(7, 900, 9000).packet(13, false, b"hiss");
        let arrival = Arrival { port: FROM, rtcp: false, from: at(FROM) };
        assert!(matches!(world.relay.packet(world.now(), arrival, &mut other), Verdict::Drop(_)));
        // One is closed, one may not hear for a while.
        world.tell(Command::Close { port: ONE });
        assert_eq!(world.talk().len(), 1);
        world.tell(Command::Flow { port: TWO, send: false, expect: false });
        assert_eq!(world.talk(), []);
        world.tell(Command::Close { port: FROM });
        assert_eq!(world.relay.len(), 1);
    }

    #[test]
    fn who_listens_is_not_heard() {
        let mut world = World::new();
        world.tell(Command::Fan { from: FROM, payload_type: 0, to: vec![ONE, TWO], back: None });
        let mut packet = Sender::new(9, 1, 1).packet(0, false, b"from a loudspeaker");
        let arrival = Arrival { port: ONE, rtcp: false, from: at(ONE) };
        let now = world.now();
        assert!(matches!(world.relay.packet(now, arrival, &mut packet), Verdict::Drop(_)));
    }

    #[test]
    fn a_polycom_group_hears_alerts_sound_and_ends() {
        let mut world = World::new();
        world.tell(Command::Polycom { port: ONE, channel: 25, name: "Foreman".into() });
        world.tell(Command::Fan { from: FROM, payload_type: 0, to: vec![ONE], back: None });
        assert_eq!(world.talk(), [], "the sound waits for the alerts");
        let mut buffer = [0; 2048];
        let mut signals = |world: &mut World, ms: u64| {
            let mut heard = Vec::new();
            let end = world.ms + ms;
            while world.ms < end {
                let now = world.now();
                while let Some(spoken) = world.relay.speak(now, &mut buffer) {
                    assert_eq!((spoken.port, spoken.to), (ONE, at(ONE)));
                    heard.push((world.ms, buffer[0]));
                }
                world.ms += 1;
            }
            heard
        };
        let alerts = signals(&mut world, 2000);
        assert_eq!((alerts.len(), alerts[0].1), (31, 0x0f));
        assert!(alerts.windows(2).skip(1).all(|w| w[1].0 - w[0].0 == 30));
        let sent = world.talk();
        assert_eq!((sent.len(), sent[0].2[0], sent[0].2.len()), (1, 0x10, 26 + 160));
        assert_eq!(world.talk()[0].2.len(), 26 + 320, "with the frame before it");
        let told = world.tell(Command::Close { port: ONE });
        assert!(!told.iter().any(|output| matches!(output, Output::Closed { .. })), "not closed yet: {told:?}");
        assert_eq!(world.talk(), []);
        let ends = signals(&mut world, 1000);
        assert_eq!((ends.len(), ends[0].1), (12, 0xff));
        let mut out = Vec::new();
        world.relay.news(&mut out);
        assert!(matches!(out.as_slice(), [Output::Closed { port: ONE, .. }]), "{out:?}");
        assert_eq!(world.relay.speaks_at(), None);
    }
}
