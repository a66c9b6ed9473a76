//! The relay as a pure machine: packets that arrive at one of our ports are checked, patched in place, and told where to go.
//!
//! **Where packets may come from** (and so where ours go; "RTP bleed"): the address in the peer's SDP, ip and port. Behind NAT
//! the core names the signalling address too: any port of that ip may then be learnt, once it has sent [`PROOF`] RTP packets in
//! sequence; from then on it alone is the peer, unless the very address in the SDP speaks up. RTCP is one port higher; behind
//! NAT its port is learnt too, after RTP's. Everybody else is a stranger: counted and dropped.
//!
//! **What a peer sees** is one stream for the whole call: our SSRC, sequence numbers and timestamps that go on where they were
//! when the far side's stream changes (transfer, new SSRC, a jump), and a marker where it does. In between, the far side's own
//! numbers show through by constant offsets, so loss and jitter stay visible. Payload types are translated by a table.
//!
//! **Where we speak ourselves** ([`Command::Play`]), [`Relay::speak`] makes the packets: they are numbered like those of any
//! other source, so the peer hears prompt, bridge and the next prompt as one stream. So are those of a mix ([`super::mix`]).
//!
//! No allocation, no lock, no clock here: [`Relay::packet`] is what `io::relay` calls per packet.

mod back;
pub mod fan;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::codec::NARROW;
use super::ear::Ear;
use super::packet::{FIXED, Header};
use super::prompt::Prompt;
use super::rtcp::{self, Moves};
use super::sound::{Library, TICKS};
use super::{Command, Kind, Output, Port, PtMap, Remote, Stats};
use crate::base::Instant;

/// RTP packets in sequence that an address behind NAT must send before it is taken for the peer.
pub const PROOF: u8 = 2;
/// Largest step of sequence numbers in such a proof: the network loses packets before us too.
pub const MAX_PROOF_GAP: u16 = 8;
/// A step forward in sequence numbers that is a new stream rather than loss (RFC 3550 A.1).
pub const MAX_DROPOUT: i16 = 3000;
/// A step back in sequence numbers that is a new stream rather than reordering (RFC 3550 A.1).
pub const MAX_MISORDER: i16 = 100;
/// A difference between timestamp and clock, from one packet to the next, that is a jump rather than jitter, in seconds.
pub const MAX_DRIFT_S: u32 = 3;
/// Most ports in use at one time in one relay.
pub const MAX_PORTS: usize = 32 * 1024;
/// The RTP clock of video; there the marker ends a frame and is not ours to set.
const VIDEO_CLOCK: u32 = 90_000;

/// Where a packet came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// The RTP port of the pair.
    pub port: Port,
    /// On the pair's RTCP port, which is one higher.
    pub rtcp: bool,
    /// Source address; IPv4 as IPv4, never mapped.
    pub from: SocketAddr,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It was patched; it leaves.
    Forward {
        /// From the pair of this port,
        port: Port,
        /// to this address,
        to: SocketAddr,
        /// from the RTCP port of the pair.
        rtcp: bool,
    },
    /// It leaves from many ports: see [`Relay::fan`].
    Fan,
    /// It is taken into a mix: see [`Relay::speak`].
    Mixed,
    /// It goes no further.
    Drop(Dropped),
}

impl Verdict {
    /// Whether it is the peer's own packet, which a recording wants wherever it goes.
    pub fn is_from_peer(self) -> bool {
        match self {
            Verdict::Forward { .. }
            | Verdict::Fan
            | Verdict::Mixed
            | Verdict::Drop(Dropped::Unlinked | Dropped::Muted | Dropped::Nowhere) => true,
            Verdict::Drop(Dropped::Closed | Dropped::Stranger | Dropped::Unproven | Dropped::Malformed) => false,
        }
    }
}

/// A packet that we speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoken {
    /// It leaves from this port,
    pub port: Port,
    /// to this address,
    pub to: SocketAddr,
    /// and is so long.
    pub length: usize,
}

/// Why a packet goes no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// The port is not in use.
    Closed,
    /// It came from elsewhere than the peer.
    Stranger,
    /// It came from where the peer may be, which has not been proved yet.
    Unproven,
    /// It is no RTP or RTCP.
    Malformed,
    /// The port has no link.
    Unlinked,
    /// Nothing may leave the linked port now.
    Muted,
    /// The peer of the linked port is not known yet.
    Nowhere,
}

/// All ports of one worker.
#[derive(Debug)]
pub struct Relay {
    /// By port number: index into `ends` plus one.
    index: Vec<u16>,
    ends: Vec<Option<End>>,
    free: Vec<u16>,
    news: Vec<Output>,
    sounds: Arc<Library>,
    /// Ends that speak, by when their next packet is due.
    speakers: VecDeque<u16>,
    /// Ends that speak to a group with alerts and ends.
    zones: Vec<u16>,
    /// Ends whose peer hears a mix.
    backs: Vec<u16>,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay {
            index: vec![0; 1 << 16],
            ends: Vec::new(),
            free: Vec::new(),
            news: Vec::new(),
            sounds: Arc::default(),
            speakers: VecDeque::new(),
            zones: Vec::new(),
            backs: Vec::new(),
        }
    }
}

impl Relay {
    /// A relay without ports.
    pub fn new() -> Relay {
        Relay::default()
    }

    /// Does what the core says. A command for a port that is not open is without effect: the call was faster. Taps are the
    /// business of whoever drives the relay.
    pub fn apply(&mut self, now: Instant, command: Command, out: &mut Vec<Output>) {
        match command {
            Command::Open { port, kind, ssrc, timeout } => self.open(now, port, End::new(port, kind, ssrc, timeout)),
            Command::Remote { port, remote } => {
                if let Some(end) = self.end(port).filter(|end| end.remote != Some(remote)) {
                    end.remote = Some(remote);
                    end.far = Far::Unknown;
                    end.far_rtcp = None;
                }
            }
            Command::Link { a, b, to_a, to_b } => self.link(a, b, to_a, to_b),
            Command::Clock { port, clock } => {
                if let Some(end) = self.end(port).filter(|end| matches!(end.kind, Kind::Rtp { .. })) {
                    end.kind = Kind::Rtp { clock };
                }
            }
            Command::Flow { port, send, expect } => {
                if let Some(end) = self.end(port) {
                    end.send = send;
                    if expect && !end.expect {
                        end.heard_at = now;
                        end.silent = false;
                    }
                    end.expect = expect;
                }
            }
            Command::Fan { from, payload_type, to, back } => self.announce(from, payload_type, &to, back),
            Command::Polycom { port, channel, name } => self.alert(now, port, channel, &name),
            Command::Close { port } if self.lingers(now, port) => {}
            Command::Close { port } => {
                if let Some(stats) = self.close(port) {
                    out.push(Output::Closed { port, stats });
                }
            }
            Command::Play { port, sounds, codec, payload_type, repeat } => {
                self.hush(now, port);
                let sounds = sounds.iter().filter_map(|name| self.sounds.get(name).cloned()).collect();
                match Prompt::new(now, sounds, codec, payload_type, repeat) {
                    Some(prompt) => self.play(port, prompt),
                    None => out.push(Output::Played { port }),
                }
            }
            Command::Hush { port } => self.hush(now, port),
            Command::Listen { port, payloads, in_band } => {
                if let Some(end) = self.end(port) {
                    end.ear = (!payloads.is_empty()).then(|| Box::new(Ear::new(payloads, in_band)));
                }
            }
            Command::Sounds(sounds) => self.sounds = sounds,
            Command::Tap { .. } | Command::Untap { .. } | Command::Finish { .. } => {}
        }
        self.news(out);
    }

    /// The next packet of ours that is due, written to the front of `buffer`: to be sent at once. To be asked until there is none.
    pub fn speak(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Spoken> {
        if let Some(spoken) = self.signal(now, buffer).or_else(|| self.mixed(now, buffer)) {
            return Some(spoken);
        }
        loop {
            let slot = *self.speakers.front()?;
            let end = self.ends[usize::from(slot)].as_mut()?;
            let due = end.speaks_at()?;
            if due > now {
                return None;
            }
            self.speakers.pop_front();
            let Some(length) = end.say(now, buffer) else {
                end.prompt = None;
                end.heard_at = now;
                self.news.push(Output::Played { port: end.port });
                continue;
            };
            self.speakers.push_back(slot);
            if let Some(to) = end.target(false).filter(|_| end.send && length > 0) {
                end.stats.sent += 1;
                return Some(Spoken { port: end.port, to, length });
            }
        }
    }

    /// When [`Relay::speak`] will have something.
    pub fn speaks_at(&self) -> Option<Instant> {
        let speaker = self.speakers.front().and_then(|slot| self.ends[usize::from(*slot)].as_ref()?.speaks_at());
        speaker.into_iter().chain(self.signals_at()).chain(self.mixed_at()).min()
    }

    /// Takes one packet, which may be patched in place. It must be sent at once and unchanged if the verdict is to forward it.
    pub fn packet(&mut self, now: Instant, arrival: Arrival, packet: &mut [u8]) -> Verdict {
        match self.judge(now, arrival, packet) {
            Ok(verdict) => verdict,
            Err(reason) => {
                if let Some(end) = self.end(arrival.port) {
                    match reason {
                        Dropped::Stranger => end.stats.strangers += 1,
                        _ => end.stats.dropped += 1,
                    }
                }
                Verdict::Drop(reason)
            }
        }
    }

    /// What packets brought up since the last call.
    pub fn news(&mut self, out: &mut Vec<Output>) {
        out.append(&mut self.news);
    }

    /// The same, and who is silent. It looks at every port: to be called a few times a second, or at the deadline.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.news(out);
        for end in self.ends.iter_mut().flatten() {
            if end.silence().is_some_and(|at| at <= now) {
                end.silent = true;
                out.push(Output::Silent { port: end.port });
            }
        }
    }

    /// Whether [`Relay::news`] has something to report.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// When somebody will have been silent for too long. It looks at every port.
    pub fn deadline(&self) -> Option<Instant> {
        self.ends.iter().flatten().filter_map(End::silence).chain(self.speaks_at()).min()
    }

    /// Ports in use.
    pub fn len(&self) -> usize {
        self.ends.len() - self.free.len()
    }

    /// Whether no port is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a port has carried so far.
    pub fn stats(&self, port: Port) -> Option<Stats> {
        self.ends[self.slot(port)?].as_ref().map(End::stats)
    }

    /// Where packets to a port's peer go now, if that is known.
    pub fn peer(&self, port: Port) -> Option<SocketAddr> {
        self.ends[self.slot(port)?].as_ref().and_then(|end| end.target(false))
    }

    fn judge(&mut self, now: Instant, arrival: Arrival, packet: &mut [u8]) -> Result<Verdict, Dropped> {
        let from = self.slot(arrival.port).ok_or(Dropped::Closed)?;
        let end = self.ends[from].as_mut().ok_or(Dropped::Closed)?;
        let header = match (end.kind, arrival.rtcp) {
            (Kind::Rtp { .. }, false) => Some(end.admit_rtp(arrival.from, packet)?),
            (Kind::Rtp { .. }, true) => {
                end.admit_rtcp(arrival.from, packet)?;
                None
            }
            (Kind::Opaque, false) => {
                end.admit_opaque(arrival.from)?;
                None
            }
            (Kind::Opaque, true) => return Err(Dropped::Malformed),
        };
        end.stats.received += 1;
        end.heard_at = now;
        end.silent = false;
        if !end.heard && !arrival.rtcp {
            end.heard = true;
            self.news.push(Output::Heard { port: arrival.port });
        }
        if let Some(header) = &header {
            end.incoming.count(header);
            if let Some(ear) = &mut end.ear
                && let Some(digit) = ear.packet(header, &packet[header.start..header.end])
            {
                self.news.push(Output::Digit { port: arrival.port, digit });
            }
        }
        if let (Some(header), false) = (&header, end.fan.is_empty()) {
            let heard = header.payload_type == end.fan_payload;
            return if heard { Ok(Verdict::Fan) } else { Err(Dropped::Muted) };
        }
        let Some(to) = end.link else {
            let back = end.heard_from.filter(|_| end.prompt.is_none());
            let (Some(header), Some(to)) = (header, back) else { return Err(Dropped::Unlinked) };
            let payload = &packet[header.start..header.end];
            return match self.talk_back(now, usize::from(to), from, &header, payload) {
                true => Ok(Verdict::Mixed),
                false => Err(Dropped::Unlinked),
            };
        };
        let [Some(end), Some(far)] = self.pair(from, usize::from(to)) else { return Err(Dropped::Unlinked) };
        // RTCP goes on while a stream is held (RFC 3264 5.1): whoever hears nothing at all gives the call up.
        if (!far.send || far.prompt.is_some()) && !arrival.rtcp {
            return Err(Dropped::Muted);
        }
        let target = far.target(arrival.rtcp).ok_or(Dropped::Nowhere)?;
        match (header, arrival.rtcp) {
            (Some(header), _) => far.outgoing.carry(now, end.port, far.kind, header, far.ssrc, &far.map).patch(packet),
            (None, true) => {
                let moves = Moves {
                    sender: far.ssrc,
                    source: end.incoming.ssrc(),
                    timestamp: far.outgoing.timestamp,
                    ours: end.ssrc,
                    theirs: far.incoming.ssrc(),
                    seq: end.outgoing.seq,
                };
                if !rtcp::patch(packet, &moves) {
                    return Err(Dropped::Malformed);
                }
            }
            (None, false) => {}
        }
        far.stats.sent += 1;
        Ok(Verdict::Forward { port: far.port, to: target, rtcp: arrival.rtcp })
    }

    fn open(&mut self, now: Instant, port: Port, mut end: End) {
        end.heard_at = now;
        if let Some(slot) = self.slot(port) {
            // A port that the core opens again without closing it begins anew; its link goes with it.
            self.unlink(slot);
            self.leave_fan(slot);
            self.zones.retain(|zone| usize::from(*zone) != slot);
            self.speakers.retain(|speaker| usize::from(*speaker) != slot);
            self.backs.retain(|back| usize::from(*back) != slot);
            self.ends[slot] = Some(end);
            return;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.ends.len() < MAX_PORTS => {
                self.ends.push(None);
                (self.ends.len() - 1) as u16
            }
            None => return,
        };
        self.ends[usize::from(slot)] = Some(end);
        self.index[usize::from(port.0)] = slot + 1;
    }

    fn close(&mut self, port: Port) -> Option<Stats> {
        let slot = self.slot(port)?;
        self.unlink(slot);
        self.leave_fan(slot);
        self.zones.retain(|zone| usize::from(*zone) != slot);
        self.speakers.retain(|speaker| usize::from(*speaker) != slot);
        self.backs.retain(|back| usize::from(*back) != slot);
        self.index[usize::from(port.0)] = 0;
        self.free.push(slot as u16);
        self.ends[slot].take().map(|end| end.stats())
    }

    fn link(&mut self, a: Port, b: Port, to_a: Vec<PtMap>, to_b: Vec<PtMap>) {
        let (Some(slot_a), Some(slot_b)) = (self.slot(a), self.slot(b)) else { return };
        if slot_a == slot_b {
            return;
        }
        self.unlink(slot_a);
        self.unlink(slot_b);
        if let [Some(a), Some(b)] = self.pair(slot_a, slot_b) {
            (a.link, b.link) = (Some(slot_b as u16), Some(slot_a as u16));
            (a.map, b.map) = (SmallVec::from_vec(to_a), SmallVec::from_vec(to_b));
        }
    }

    fn unlink(&mut self, slot: usize) {
        let other = self.ends[slot].as_mut().and_then(|end| end.link.take());
        if let Some(end) = other.and_then(|other| self.ends[usize::from(other)].as_mut()) {
            end.link = None;
        }
    }

    fn play(&mut self, port: Port, prompt: Box<Prompt>) {
        let Some(slot) = self.slot(port) else { return };
        let Some(end) = self.ends[slot].as_mut() else { return };
        // What we speak has this clock, whatever the first codec of the offer had.
        end.kind = Kind::Rtp { clock: NARROW };
        end.prompt = Some(prompt);
        self.speakers.push_front(slot as u16);
    }

    fn hush(&mut self, now: Instant, port: Port) {
        let Some(slot) = self.slot(port) else { return };
        self.speakers.retain(|speaker| usize::from(*speaker) != slot);
        if let Some(end) = self.ends[slot].as_mut()
            && end.prompt.take().is_some()
        {
            end.heard_at = now;
        }
    }

    fn end(&mut self, port: Port) -> Option<&mut End> {
        let slot = self.slot(port)?;
        self.ends[slot].as_mut()
    }

    fn slot(&self, port: Port) -> Option<usize> {
        usize::from(self.index[usize::from(port.0)]).checked_sub(1)
    }

    fn pair(&mut self, a: usize, b: usize) -> [Option<&mut End>; 2] {
        match self.ends.get_disjoint_mut([a, b]) {
            Ok([a, b]) => [a.as_mut(), b.as_mut()],
            Err(_) => [None, None],
        }
    }
}

/// What we know of where a peer's RTP comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Far {
    /// Nothing was heard yet.
    Unknown,
    /// Behind NAT: this address sent so many packets in sequence, the last one this.
    Candidate { from: SocketAddr, ssrc: u32, seq: u16, proofs: u8 },
    /// This one, and nobody else.
    Locked(SocketAddr),
}

/// One port.
#[derive(Debug)]
struct End {
    port: Port,
    kind: Kind,
    ssrc: u32,
    timeout: Duration,
    remote: Option<Remote>,
    far: Far,
    far_rtcp: Option<SocketAddr>,
    link: Option<u16>,
    /// Ends that hear what this one's peer says,
    fan: Vec<u16>,
    /// in this payload type.
    fan_payload: u8,
    /// The end whose peer this one's peer hears.
    heard_from: Option<u16>,
    /// What those who hear this one's peer say to it.
    back: Option<Box<back::Back>>,
    /// The Polycom group that this end speaks to.
    zone: Option<Box<fan::Zone>>,
    map: SmallVec<[PtMap; 4]>,
    send: bool,
    expect: bool,
    heard: bool,
    silent: bool,
    heard_at: Instant,
    incoming: Incoming,
    outgoing: Outgoing,
    /// What we say to the peer.
    prompt: Option<Box<Prompt>>,
    /// Listens for the peer's keys.
    ear: Option<Box<Ear>>,
    stats: Stats,
}

impl End {
    fn new(port: Port, kind: Kind, ssrc: u32, timeout: Duration) -> End {
        End {
            port,
            kind,
            ssrc,
            timeout,
            remote: None,
            far: Far::Unknown,
            far_rtcp: None,
            link: None,
            fan: Vec::new(),
            fan_payload: 0,
            heard_from: None,
            back: None,
            zone: None,
            map: SmallVec::new(),
            send: false,
            expect: false,
            heard: false,
            silent: false,
            heard_at: Instant::ZERO,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            prompt: None,
            ear: None,
            stats: Stats::default(),
        }
    }

    fn speaks_at(&self) -> Option<Instant> {
        self.prompt.as_ref().map(|prompt| prompt.due())
    }

    /// Writes the packet of our own that is due. None: there is no more.
    fn say(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let prompt = self.prompt.as_mut()?;
        let frame = prompt.frame(now)?;
        let length = FIXED + frame.len();
        buffer.get_mut(FIXED..length)?.copy_from_slice(frame);
        if let Some(zone) = &mut self.zone {
            let (frame, payload_type) = (frame.to_vec(), prompt.payload_type);
            let length = zone.wrap(payload_type, &frame, buffer).unwrap_or(0);
            prompt.advance();
            return Some(length);
        }
        let due = prompt.due();
        let (timestamp, marker) = prompt.timestamp(|| self.outgoing.due(due, self.ssrc));
        let seq = self.outgoing.own((self.port, self.ssrc), due, timestamp);
        let payload_type = prompt.payload_type;
        buffer[0] = 0x80;
        Header { marker, payload_type, seq, timestamp, ssrc: self.ssrc, start: FIXED, end: length }.patch(buffer);
        prompt.advance();
        Some(length)
    }

    fn admit_rtp(&mut self, from: SocketAddr, packet: &[u8]) -> Result<Header, Dropped> {
        if self.far == Far::Locked(from) {
            return Header::parse(packet).ok_or(Dropped::Malformed);
        }
        let remote = self.remote.ok_or(Dropped::Stranger)?;
        if from == remote.sdp {
            let header = Header::parse(packet).ok_or(Dropped::Malformed)?;
            (self.far, self.far_rtcp) = (Far::Locked(from), None);
            return Ok(header);
        }
        if remote.nat != Some(from.ip()) || matches!(self.far, Far::Locked(_)) {
            return Err(Dropped::Stranger);
        }
        let header = Header::parse(packet).ok_or(Dropped::Malformed)?;
        let proofs = match self.far {
            Far::Candidate { from: earlier, ssrc, seq, proofs }
                if earlier == from
                    && ssrc == header.ssrc
                    && (1..=MAX_PROOF_GAP).contains(&header.seq.wrapping_sub(seq)) =>
            {
                proofs + 1
            }
            // A rival does not displace a candidate by sending faster: both begin anew, the first in sequence wins.
            _ => 1,
        };
        if proofs >= PROOF {
            (self.far, self.far_rtcp) = (Far::Locked(from), None);
            return Ok(header);
        }
        self.far = Far::Candidate { from, ssrc: header.ssrc, seq: header.seq, proofs };
        Err(Dropped::Unproven)
    }

    fn admit_rtcp(&mut self, from: SocketAddr, packet: &[u8]) -> Result<(), Dropped> {
        let remote = self.remote.ok_or(Dropped::Stranger)?;
        let known = self.far_rtcp == Some(from)
            || next_port(remote.sdp) == Some(from)
            || matches!(self.far, Far::Locked(rtp) if next_port(rtp) == Some(from));
        let learns = || match self.far {
            Far::Locked(rtp) => remote.nat == Some(from.ip()) && rtp.ip() == from.ip() && self.far_rtcp.is_none(),
            Far::Unknown | Far::Candidate { .. } => false,
        };
        if !known && !learns() {
            return Err(Dropped::Stranger);
        }
        // The rest of the lengths is checked when it is patched.
        if packet.len() < 8 || packet[0] >> 6 != 2 || !(192..=223).contains(&packet[1]) {
            return Err(Dropped::Malformed);
        }
        if !known {
            self.far_rtcp = Some(from);
        }
        Ok(())
    }

    fn admit_opaque(&mut self, from: SocketAddr) -> Result<(), Dropped> {
        let remote = self.remote.ok_or(Dropped::Stranger)?;
        let learns = remote.nat == Some(from.ip()) && !matches!(self.far, Far::Locked(_));
        if self.far != Far::Locked(from) && from != remote.sdp && !learns {
            return Err(Dropped::Stranger);
        }
        self.far = Far::Locked(from);
        Ok(())
    }

    /// Where packets for the peer go. A private address in the SDP of a peer behind NAT is somebody else's on our side of it.
    fn target(&self, rtcp: bool) -> Option<SocketAddr> {
        let rtp = match (self.far, self.remote?) {
            (Far::Locked(from), _) => from,
            (_, Remote { sdp, nat }) => {
                let reachable = nat.is_none_or(|nat| nat == sdp.ip() || !is_private(sdp.ip()));
                Some(sdp).filter(|sdp| reachable && sdp.port() != 0 && !sdp.ip().is_unspecified())?
            }
        };
        if rtcp { self.far_rtcp.or_else(|| next_port(rtp)) } else { Some(rtp) }
    }

    fn silence(&self) -> Option<Instant> {
        let counts = self.expect && !self.silent && !self.timeout.is_zero() && self.prompt.is_none();
        counts.then(|| self.heard_at + self.timeout)
    }

    fn stats(&self) -> Stats {
        Stats { lost: self.incoming.lost(), ..self.stats }
    }
}

/// The stream that comes from a peer: who it is and how much of it was lost (RFC 3550 A.1, A.3).
#[derive(Debug, Default)]
struct Incoming {
    /// SSRC, first and highest sequence number (with its cycles), packets.
    now: Option<(u32, u64, u64, u64)>,
    lost_before: u64,
}

impl Incoming {
    fn count(&mut self, header: &Header) {
        if let Some((ssrc, _, highest, received)) = &mut self.now
            && *ssrc == header.ssrc
        {
            let step = header.seq.wrapping_sub(*highest as u16) as i16;
            if (-MAX_MISORDER..=MAX_DROPOUT).contains(&step) {
                *highest = (*highest).max(highest.wrapping_add_signed(i64::from(step)));
                *received += 1;
                return;
            }
        }
        self.lost_before = self.lost();
        // One cycle ahead, so that a packet from before the first one has room below it.
        let first = u64::from(header.seq) + (1 << 16);
        self.now = Some((header.ssrc, first, first, 1));
    }

    fn ssrc(&self) -> Option<u32> {
        self.now.map(|(ssrc, ..)| ssrc)
    }

    fn lost(&self) -> u64 {
        let now = self.now.map_or(0, |(_, first, highest, received)| (highest - first + 1).saturating_sub(received));
        self.lost_before + now
    }
}

/// The stream that we send to a peer: where it stands, and how the far side's numbers become its own.
#[derive(Debug, Default)]
struct Outgoing {
    /// Whose stream it carries: our port that it arrives at, and its SSRC.
    source: Option<(Port, u32)>,
    /// Added to sequence numbers.
    seq: u16,
    /// Added to timestamps.
    timestamp: u32,
    last_seq: u16,
    last_timestamp: u32,
    last_at: Instant,
}

impl Outgoing {
    fn carry(&mut self, now: Instant, from: Port, kind: Kind, mut header: Header, ssrc: u32, map: &[PtMap]) -> Header {
        let clock = match kind {
            Kind::Rtp { clock } => clock,
            Kind::Opaque => 0,
        };
        let elapsed = (now.since(self.last_at).as_micros() as u64).wrapping_mul(u64::from(clock)) / 1_000_000;
        let due = self.last_timestamp.wrapping_add(elapsed as u32);
        let step = header.seq.wrapping_add(self.seq).wrapping_sub(self.last_seq) as i16;
        let drift = header.timestamp.wrapping_add(self.timestamp).wrapping_sub(due) as i32;
        let source = (from, header.ssrc);
        let steady = self.source == Some(source) && (-MAX_MISORDER..=MAX_DROPOUT).contains(&step);
        let mut anew = false;
        if !steady && self.source.is_some() {
            self.seq = self.last_seq.wrapping_add(1).wrapping_sub(header.seq);
        }
        if self.source.is_some() && (!steady || drift.unsigned_abs() > MAX_DRIFT_S.saturating_mul(clock)) {
            let due = if elapsed == 0 { due.wrapping_add(1) } else { due };
            self.timestamp = due.wrapping_sub(header.timestamp);
            anew = clock != VIDEO_CLOCK;
        }
        header.seq = header.seq.wrapping_add(self.seq);
        header.timestamp = header.timestamp.wrapping_add(self.timestamp);
        header.ssrc = ssrc;
        if let Some(map) = map.iter().find(|map| map.from == header.payload_type) {
            header.payload_type = map.to & 0x7f;
        }
        // With a marker these would look like RTCP (RFC 5761 4).
        header.marker |= anew && !(64..=95).contains(&header.payload_type);
        if !steady || step > 0 {
            (self.last_seq, self.last_timestamp, self.last_at) = (header.seq, header.timestamp, now);
        }
        self.source = Some(source);
        header
    }
}

impl Outgoing {
    /// Where a packet of our own that begins anew stands in the stream.
    fn due(&self, at: Instant, ssrc: u32) -> u32 {
        if self.source.is_none() {
            // The first of all: anywhere (RFC 3550 5.1), and the SSRC is a random number already.
            return ssrc.rotate_left(13);
        }
        let elapsed = at.since(self.last_at).as_micros() as u64 * u64::from(NARROW) / 1_000_000;
        self.last_timestamp.wrapping_add((elapsed as u32).max(TICKS))
    }

    /// The sequence number of a packet of our own.
    fn own(&mut self, source: (Port, u32), at: Instant, timestamp: u32) -> u16 {
        let seq = if self.source.is_none() { source.1 as u16 } else { self.last_seq.wrapping_add(1) };
        self.source = Some(source);
        (self.last_seq, self.last_timestamp, self.last_at) = (seq, timestamp, at);
        seq
    }
}

fn next_port(address: SocketAddr) -> Option<SocketAddr> {
    let port = address.port().checked_add(1).filter(|_| address.port() != 0)?;
    Some(SocketAddr::new(address.ip(), port))
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        // RFC 1918, RFC 6598 (carrier-grade NAT), link-local.
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::packet::Sender;
    use crate::media::sound::Sound;
    use crate::media::{Codec, dtmf};

    const A: Port = Port(20000);
    const B: Port = Port(20002);
    const C: Port = Port(20004);
    const AUDIO: Kind = Kind::Rtp { clock: 8000 };
    const TIMEOUT: Duration = Duration::from_secs(30);

    /// A relay with the clock in milliseconds.
    struct World {
        relay: Relay,
        out: Vec<Output>,
        ms: u64,
    }

    impl World {
        /// A and B linked and open both ways, C open; peers at 192.0.2.(port - 20000) port 4000.
        fn new() -> World {
            let mut world = World { relay: Relay::new(), out: Vec::new(), ms: 1000 };
            for port in [A, B, C] {
                let ssrc = u32::from(port.0);
                world.tell(Command::Open { port, kind: AUDIO, ssrc, timeout: TIMEOUT });
                world.remote(port, peer(port), None);
                world.tell(Command::Flow { port, send: true, expect: false });
            }
            world.tell(Command::Link { a: A, b: B, to_a: vec![], to_b: vec![PtMap { from: 101, to: 96 }] });
            world
        }

        fn tell(&mut self, command: Command) {
            self.relay.apply(Instant::from_micros(self.ms * 1000), command, &mut self.out);
        }

        fn remote(&mut self, port: Port, sdp: SocketAddr, nat: Option<&str>) {
            let nat = nat.map(|ip| ip.parse().expect("an address"));
            self.tell(Command::Remote { port, remote: Remote { sdp, nat } });
        }

        fn send(&mut self, port: Port, rtcp: bool, from: SocketAddr, packet: &mut [u8]) -> Verdict {
            self.relay.packet(Instant::from_micros(self.ms * 1000), Arrival { port, rtcp, from }, packet)
        }

        /// One packet of 20 ms; what the other peer sees of it.
        fn talk(&mut self, port: Port, voice: &mut Sender) -> Header {
            let mut packet = voice.packet(0, false, &[0xff; 160]);
            voice.advance(160);
            self.ms += 20;
            let verdict = self.send(port, false, peer(port), &mut packet);
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            Header::parse(&packet).expect("still RTP")
        }

        fn ticked(&mut self) -> Vec<Output> {
            self.out.clear();
            self.relay.tick(Instant::from_micros(self.ms * 1000), &mut self.out);
            std::mem::take(&mut self.out)
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn peer(port: Port) -> SocketAddr {
        address(&format!("192.0.2.{}:4000", port.0 - 20000))
    }

    #[test]
    fn packets_pass_patched_both_ways_and_nobody_elses() {
        let mut world = World::new();
        let mut voice = Sender::new(7, 10, 500);
        let mut packet = voice.packet(101, true, b"digit");
        let verdict = world.send(A, false, peer(A), &mut packet);
        assert_eq!(verdict, Verdict::Forward { port: B, to: peer(B), rtcp: false });
        let header = Header::parse(&packet).expect("RTP");
        assert_eq!((header.ssrc, header.seq, header.timestamp, header.payload_type), (20002, 10, 500, 96));
        let mut packet = voice.packet(101, false, b"digit");
        assert_eq!(world.send(B, false, peer(B), &mut packet), Verdict::Forward { port: A, to: peer(A), rtcp: false });
        assert_eq!(packet[1], 101);
        for (port, rtcp, from, dropped) in [
            (A, false, "192.0.2.0:4001", Dropped::Stranger),
            (A, false, "192.0.2.9:4000", Dropped::Stranger),
            (A, true, "192.0.2.0:4000", Dropped::Stranger),
            (A, true, "192.0.2.0:4001", Dropped::Malformed),
            (C, false, "192.0.2.4:4000", Dropped::Unlinked),
            (Port(9), false, "192.0.2.4:4000", Dropped::Closed),
        ] {
            let mut packet = voice.packet(0, false, b"x");
            assert_eq!(world.send(port, rtcp, address(from), &mut packet), Verdict::Drop(dropped), "{from}");
        }
        assert_eq!(world.send(A, false, peer(A), &mut [0; 40]), Verdict::Drop(Dropped::Malformed));
        world.tell(Command::Close { port: A });
        let stats = Stats { received: 1, sent: 1, strangers: 3, dropped: 2, lost: 0 };
        assert!(world.out.contains(&Output::Closed { port: A, stats }), "{:?}", world.out);
        assert_eq!(world.send(B, false, peer(B), &mut packet), Verdict::Drop(Dropped::Unlinked));
        assert_eq!(world.relay.len(), 2);
    }

    #[test]
    fn behind_nat_one_address_is_learnt_by_proof_and_then_alone() {
        let mut world = World::new();
        let (real, rival, stranger) =
            (address("203.0.113.7:61000"), address("203.0.113.7:999"), address("198.51.100.1:61000"));
        world.remote(A, address("10.0.0.5:4000"), Some("203.0.113.7"));
        let (mut voice, mut noise, mut other) = (Sender::new(7, 65535, 0), Sender::new(8, 9, 0), Sender::new(9, 0, 0));
        assert_eq!(world.relay.peer(A), None, "a private address is not ours to send to");
        let unproven = Verdict::Drop(Dropped::Unproven);
        assert_eq!(world.send(A, false, stranger, &mut other.packet(0, false, b"")), Verdict::Drop(Dropped::Stranger));
        assert_eq!(world.send(A, true, real, &mut [0x80, 201, 0, 1, 0, 0, 0, 1]), Verdict::Drop(Dropped::Stranger));
        assert_eq!(world.send(A, false, rival, &mut noise.packet(0, false, b"")), unproven);
        assert_eq!(world.send(A, false, real, &mut voice.packet(0, false, b"")), unproven);
        assert_eq!(world.send(A, false, rival, &mut [1; 30]), Verdict::Drop(Dropped::Malformed));
        assert!(matches!(world.send(A, false, real, &mut voice.packet(0, false, b"")), Verdict::Forward { .. }));
        assert_eq!(world.relay.peer(A), Some(real));
        for _ in 0..5 {
            assert_eq!(world.send(A, false, rival, &mut noise.packet(0, false, b"")), Verdict::Drop(Dropped::Stranger));
        }
        // RTCP from a port of its own is learnt after RTP, once.
        let mut report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        assert!(matches!(
            world.send(A, true, address("203.0.113.7:7"), &mut report),
            Verdict::Forward { rtcp: true, .. }
        ));
        assert_eq!(world.send(A, true, address("203.0.113.7:8"), &mut report), Verdict::Drop(Dropped::Stranger));
        let back = world.send(B, true, address("192.0.2.2:4001"), &mut report);
        assert_eq!(back, Verdict::Forward { port: A, to: address("203.0.113.7:7"), rtcp: true });
        // The same remote again keeps what was learnt, another one does not.
        world.remote(A, address("10.0.0.5:4000"), Some("203.0.113.7"));
        assert_eq!(world.relay.peer(A), Some(real));
        world.remote(A, address("203.0.113.7:5000"), Some("203.0.113.7"));
        assert_eq!(world.relay.peer(A), Some(address("203.0.113.7:5000")));
        for _ in 0..2 {
            let _ = world.send(A, false, rival, &mut noise.packet(0, false, b""));
        }
        assert_eq!(world.relay.peer(A), Some(rival));
        assert!(matches!(
            world.send(A, false, address("203.0.113.7:5000"), &mut voice.packet(0, false, b"")),
            Verdict::Forward { .. }
        ));
        assert_eq!(
            world.relay.peer(A),
            Some(address("203.0.113.7:5000")),
            "the address of the SDP outweighs a learnt one"
        );
    }

    #[test]
    fn nothing_is_sent_to_nowhere_or_where_it_is_muted() {
        let mut world = World::new();
        let mut voice = Sender::new(7, 10, 500);
        for sdp in ["0.0.0.0:0", "192.0.2.2:0", "0.0.0.0:4000"] {
            world.remote(B, address(sdp), None);
            assert_eq!(
                world.send(A, false, peer(A), &mut voice.packet(0, false, b"")),
                Verdict::Drop(Dropped::Nowhere)
            );
        }
        world.remote(B, peer(B), None);
        world.tell(Command::Flow { port: B, send: false, expect: false });
        assert_eq!(world.send(A, false, peer(A), &mut voice.packet(0, false, b"")), Verdict::Drop(Dropped::Muted));
        let mut report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        assert!(matches!(world.send(A, true, address("192.0.2.0:4001"), &mut report), Verdict::Forward { .. }));
        assert_eq!(report[4..], 20002u32.to_be_bytes());
    }

    #[test]
    fn a_peer_sees_one_stream_whatever_happens_behind() {
        let mut world = World::new();
        let mut a = Sender::new(7, 65530, u32::MAX - 300);
        let mut last = world.talk(A, &mut a);
        let mut check = |world: &mut World, port, voice: &mut Sender, marker, what: &str| {
            let next = world.talk(port, voice);
            assert_eq!(next.ssrc, 20002, "{what}");
            assert_eq!(next.seq, last.seq.wrapping_add(1), "{what}");
            assert_eq!(next.timestamp.wrapping_sub(last.timestamp), 160, "{what}");
            assert_eq!(next.marker, marker, "{what}");
            last = next;
        };
        for _ in 0..10 {
            check(&mut world, A, &mut a, false, "sequence and timestamp wrap");
        }
        let mut other = Sender::new(8, 40000, 77);
        check(&mut world, A, &mut other, true, "another SSRC");
        check(&mut world, A, &mut other, false, "goes on");
        other.advance(1 << 31);
        check(&mut world, A, &mut other, true, "a timestamp jump");
        other.advance((1u32 << 31).wrapping_neg());
        check(&mut world, A, &mut other, true, "and back");
        let mut jumped = Sender::new(8, 10000, other.timestamp());
        check(&mut world, A, &mut jumped, true, "a jump of sequence numbers");
        world.tell(Command::Link { a: B, b: C, to_a: vec![], to_b: vec![] });
        let mut c = Sender::new(7, 1, 1);
        check(&mut world, C, &mut c, true, "another leg");
        assert_eq!(world.send(A, false, peer(A), &mut a.packet(0, false, b"")), Verdict::Drop(Dropped::Unlinked));
        check(&mut world, C, &mut c, false, "goes on");
    }

    #[test]
    fn a_marker_of_ours_never_makes_rtcp_of_rtp() {
        let mut world = World::new();
        let _ = world.talk(A, &mut Sender::new(7, 1, 1));
        for payload_type in 0..128 {
            let mut packet = Sender::new(100 + u32::from(payload_type), 1, 1).packet(payload_type, false, b"");
            let _ = world.send(A, false, peer(A), &mut packet);
            let header = Header::parse(&packet).expect("still RTP");
            assert_eq!(header.marker, !(64..=95).contains(&payload_type), "{payload_type}");
        }
    }

    #[test]
    fn loss_and_reordering_show_through_and_are_counted() {
        let mut world = World::new();
        let mut voice = Sender::new(7, 65533, 0);
        let packets: Vec<_> = (0..10)
            .map(|_| {
                voice.advance(160);
                voice.packet(0, false, b"x")
            })
            .collect();
        let mut seen = Vec::new();
        for i in [0usize, 1, 4, 3, 3, 8] {
            world.ms += 20;
            let mut packet = packets[i].clone();
            let _ = world.send(A, false, peer(A), &mut packet);
            seen.push(Header::parse(&packet).map(|h| (h.seq, h.timestamp, h.marker)).expect("RTP"));
        }
        let expected = [0u16, 1, 4, 3, 3, 8].map(|i| (65533u16.wrapping_add(i), 160 * (u32::from(i) + 1), false));
        assert_eq!(seen, expected);
        assert_eq!(world.relay.stats(A).map(|s| (s.received, s.lost)), Some((6, 3)));
    }

    #[test]
    fn silence_is_reported_once_and_only_where_it_is_due() {
        let mut world = World::new();
        let mut voice = Sender::new(7, 10, 500);
        world.ms += 60_000;
        assert_eq!(world.ticked(), []);
        assert_eq!(world.relay.deadline(), None);
        world.tell(Command::Flow { port: A, send: true, expect: true });
        world.ms += 29_999;
        assert_eq!(world.ticked(), []);
        world.ms += 1;
        assert_eq!(world.relay.deadline(), Some(Instant::from_micros(world.ms * 1000)));
        assert_eq!(world.ticked(), [Output::Silent { port: A }]);
        assert_eq!(world.ticked(), []);
        let _ = world.talk(A, &mut voice);
        assert!(world.relay.has_news());
        assert_eq!(world.ticked(), [Output::Heard { port: A }]);
        world.ms += 20_000;
        let _ = world.send(A, true, address("192.0.2.0:4001"), &mut [0x80, 201, 0, 1, 0, 0, 0, 1]);
        world.ms += 20_000;
        assert_eq!(world.ticked(), [], "reports are a sign of life");
        world.tell(Command::Flow { port: A, send: true, expect: false });
        world.ms += 60_000;
        world.tell(Command::Flow { port: A, send: true, expect: true });
        assert_eq!(world.ticked(), [], "the clock begins when it is switched on");
        world.ms += 30_000;
        assert_eq!(world.ticked(), [Output::Silent { port: A }]);
    }

    #[test]
    fn reports_fit_the_patched_streams() {
        let mut world = World::new();
        let (mut a, mut b) = (Sender::new(7, 100, 1000), Sender::new(9, 300, 5000));
        let _ = (world.talk(A, &mut a), world.talk(B, &mut b));
        let mut other = Sender::new(8, 5000, 70_000);
        let moved = world.talk(A, &mut other);
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
        let mut report = words(&[0x81C8_000C, 8, 1, 2, 70_000, 1, 160, 20000, 0, 300, 0, 0, 0]);
        let _ = world.send(A, true, address("192.0.2.0:4001"), &mut report);
        assert_eq!(report, words(&[0x81C8_000C, 20002, 1, 2, moved.timestamp, 1, 160, 9, 0, 300, 0, 0, 0]));
        let mut report = words(&[0x81C9_0007, 9, 20002, 0, u32::from(moved.seq), 0, 0, 0]);
        let _ = world.send(B, true, address("192.0.2.2:4001"), &mut report);
        assert_eq!(report, words(&[0x81C9_0007, 20000, 8, 0, 5000, 0, 0, 0]));
        let mut liar = words(&[0x81C9_0009, 9, 20002]);
        assert_eq!(world.send(B, true, address("192.0.2.2:4001"), &mut liar), Verdict::Drop(Dropped::Malformed));
    }

    #[test]
    fn fax_passes_untouched() {
        let mut world = World::new();
        for port in [A, B] {
            world.tell(Command::Open { port, kind: Kind::Opaque, ssrc: 0, timeout: Duration::ZERO });
            world.remote(port, peer(port), None);
            world.tell(Command::Flow { port, send: true, expect: false });
        }
        world.tell(Command::Link { a: A, b: B, to_a: vec![], to_b: vec![] });
        let mut packet = *b"udptl";
        let verdict = world.send(A, false, peer(A), &mut packet);
        assert_eq!((verdict, &packet), (Verdict::Forward { port: B, to: peer(B), rtcp: false }, b"udptl"));
        world.remote(A, address("10.0.0.1:1"), Some("203.0.113.7"));
        assert!(matches!(world.send(A, false, address("203.0.113.7:5"), &mut packet), Verdict::Forward { .. }));
        assert_eq!(world.send(A, false, address("203.0.113.7:6"), &mut packet), Verdict::Drop(Dropped::Stranger));
    }

    /// What we say until `ms`; each packet's header and when it left.
    fn spoken(world: &mut World, ms: u64) -> Vec<(u64, Header)> {
        let mut heard = Vec::new();
        let mut buffer = [0; 200];
        while world.ms <= ms {
            let now = Instant::from_micros(world.ms * 1000);
            while let Some(Spoken { port, to, length }) = world.relay.speak(now, &mut buffer) {
                assert_eq!((port, to, length), (A, peer(A), 172));
                heard.push((world.ms, Header::parse(&buffer[..length]).expect("RTP")));
            }
            world.ms += 1;
        }
        heard
    }

    fn beep(repeat: bool) -> Command {
        Command::Play { port: A, sounds: vec!["beep".into()], codec: Codec::Pcma, payload_type: 8, repeat }
    }

    #[test]
    fn prompt_and_bridge_and_prompt_are_one_stream() {
        let mut world = World::new();
        let mut library = Library::default();
        library.put("beep", Sound::new(&[1000; 800], NARROW));
        world.tell(Command::Sounds(Arc::new(library)));
        let mut voice = Sender::new(77, 40_000, 4_000_000_000);
        let mut last: Option<(u64, Header)> = None;
        let mut one_stream = |at: u64, header: Header, marker: bool| {
            if let Some((before, last)) = last {
                assert_eq!(header.seq, last.seq.wrapping_add(1));
                let ticks = i64::from(header.timestamp.wrapping_sub(last.timestamp) as i32);
                assert!((ticks - (at - before) as i64 * 8).abs() <= 160, "{ticks} ticks in {} ms", at - before);
            }
            assert_eq!((header.ssrc, header.marker), (u32::from(A.0), marker));
            last = Some((at, header));
        };
        for round in 0..3 {
            world.tell(beep(false));
            let end = world.ms + 300;
            for (i, (at, header)) in spoken(&mut world, end).into_iter().enumerate() {
                one_stream(at, header, i == 0);
                assert!(i < 5, "100 ms");
            }
            assert_eq!(world.ticked(), [Output::Played { port: A }], "round {round}");
            for i in 0..20 {
                let header = world.talk(B, &mut voice);
                one_stream(world.ms, header, i == 0);
            }
        }
    }

    #[test]
    fn who_hears_a_prompt_hears_nobody_else_and_need_not_speak() {
        let mut world = World::new();
        let mut library = Library::default();
        library.put("beep", Sound::new(&[1000; 800], NARROW));
        world.tell(beep(true));
        assert_eq!(std::mem::take(&mut world.out), [Output::Played { port: A }], "no such sound");
        world.tell(Command::Sounds(Arc::new(library)));
        world.tell(Command::Flow { port: A, send: true, expect: true });
        world.tell(beep(true));
        let mut packet = Sender::new(7, 1, 1).packet(0, false, b"from B");
        assert_eq!(world.send(B, false, peer(B), &mut packet), Verdict::Drop(Dropped::Muted));
        let mut packet = Sender::new(7, 1, 1).packet(0, false, b"from A");
        assert!(matches!(world.send(A, false, peer(A), &mut packet), Verdict::Forward { .. }), "and is heard");
        world.ticked();
        let (begin, end) = (world.ms, world.ms + 60_000);
        let heard = spoken(&mut world, end);
        assert_eq!(heard.len(), 3001);
        assert!(heard.iter().enumerate().all(|(i, (at, _))| *at == begin + 20 * i as u64));
        assert_eq!(world.ticked(), [], "the silence clock stands still");
        world.tell(Command::Hush { port: A });
        assert_eq!(spoken(&mut world, end + 30_000), []);
        assert_eq!(world.ticked(), [Output::Silent { port: A }], "it begins anew");
        // A peer that holds us gets nothing, but time goes on; a closed port says nothing.
        world.tell(beep(false));
        world.tell(Command::Flow { port: A, send: false, expect: false });
        let end = world.ms + 200;
        assert_eq!(spoken(&mut world, end), []);
        assert_eq!(world.ticked(), [Output::Played { port: A }]);
        world.tell(beep(true));
        world.tell(Command::Close { port: A });
        assert_eq!(
            (world.relay.speaks_at(), world.relay.speak(Instant::from_micros(u64::MAX), &mut [0; 200])),
            (None, None)
        );
    }

    #[test]
    fn keys_are_heard_where_somebody_listens() {
        let mut world = World::new();
        let mut voice = Sender::new(9, 1, 1);
        let mut press = |world: &mut World, key| {
            for mut packet in dtmf::press(&mut voice, 101, key, 100) {
                world.ms += 20;
                assert!(matches!(world.send(A, false, peer(A), &mut packet), Verdict::Forward { .. }));
            }
            world.ticked().into_iter().filter(|out| !matches!(out, Output::Heard { .. })).collect::<Vec<_>>()
        };
        assert_eq!(press(&mut world, '1'), []);
        let payloads = vec![(0, Codec::Pcmu), (101, Codec::Event)];
        world.tell(Command::Listen { port: A, payloads, in_band: true });
        assert_eq!(press(&mut world, '1'), [Output::Digit { port: A, digit: '1' }]);
        assert_eq!(press(&mut world, '#'), [Output::Digit { port: A, digit: '#' }]);
        world.tell(Command::Listen { port: A, payloads: vec![], in_band: false });
        assert_eq!(press(&mut world, '1'), []);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(packets in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..60), 0u8..4), 0..40)) {
            let mut world = World::new();
            for (mut packet, way) in packets {
                if let Some(first) = packet.first_mut() {
                    *first = *first & 0x3f | 0x80;
                }
                let (port, rtcp) = (if way & 1 == 0 { A } else { B }, way & 2 != 0);
                let from = SocketAddr::new(peer(port).ip(), 4000 + u16::from(rtcp));
                world.ms += 20;
                let _ = world.send(port, rtcp, from, &mut packet);
            }
            let _ = (world.ticked(), world.relay.stats(A));
        }
    }
}
