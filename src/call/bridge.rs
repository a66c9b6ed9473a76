//! The streams of a call: which of our ports stands for which `m=` line of which leg, and what the media worker is told when
//! descriptions pass from one leg to the other.
//!
//! Each leg has an [`End`]. A description that one leg sent is taken in with [`End::heard`] and goes on to another leg with
//! [`pass`], rewritten to our ports of that leg; [`link`] then joins two ends. With `relay = "never"` nothing of this is used.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Instant, Rng};
use crate::media::{Codec, Command, Kind, Payloads, Port, RecordingId, Remote, Side};
use crate::sdp::offer::{self, Numbers, Origin, Rewrite};
use crate::sdp::session::{self, Direction, Format, Session};

/// A leg's end of the streams.
#[derive(Debug)]
pub struct End {
    streams: Vec<Stream>,
    origin: Origin,
    address: IpAddr,
    ssrc: u32,
    /// What the peer of this leg said last.
    heard: Option<Bytes>,
    /// What we told the peer of this leg last.
    told: Option<Bytes>,
    /// Where the peer's signalling comes from.
    source: IpAddr,
    /// Which stream is recorded, where, as which side, and how it is read.
    tapped: Option<(usize, RecordingId, Side, Payloads)>,
}

#[derive(Debug)]
struct Stream {
    port: Option<Port>,
    kind: Kind,
    numbers: Numbers,
}

/// Where we speak to the peer of a leg ourselves, and listen to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Voice {
    /// Our port of the first audio stream.
    pub port: Port,
    /// The codec to speak in.
    pub codec: Codec,
    /// Its payload type towards the peer.
    pub payload_type: u8,
    /// How what the peer sends is to be read.
    pub payloads: Payloads,
}

/// No RTP port is free: 503 with `Reason: Q.850;cause=34`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoPort;

/// What the ends of one call share: where their ports come from and where commands go.
pub struct Desk<'a> {
    /// The free list.
    pub take: &'a mut dyn FnMut() -> Option<Port>,
    /// For the worker of this call.
    pub commands: &'a mut Vec<Command>,
    /// Silence that ends a call; zero: never.
    pub timeout: Duration,
    /// When.
    pub now: Instant,
}

impl End {
    /// An end whose ports the peer reaches at `address`.
    pub fn new(rng: &mut Rng, address: IpAddr) -> End {
        let (origin, ssrc) = (Origin::new(rng.bits()), rng.bits32());
        End { streams: Vec::new(), origin, address, ssrc, heard: None, told: None, source: address, tapped: None }
    }

    /// The peer of this leg said `theirs`. `source` is where its signalling comes from: a peer whose description names
    /// another address than that may be behind NAT, and is then learnt by its packets, from that address only. Media goes there
    /// once it is answered: see [`link`].
    pub fn heard(&mut self, desk: &mut Desk<'_>, theirs: &Session, body: &[u8], source: IpAddr) -> Result<(), NoPort> {
        self.heard = Some(Bytes::copy_from_slice(body));
        self.source = source;
        self.open(desk, theirs)?;
        self.streams.iter_mut().zip(&theirs.media).for_each(|(stream, media)| stream.numbers.learn(media));
        Ok(())
    }

    fn point(&self, commands: &mut Vec<Command>, theirs: &Session) {
        for (i, stream) in self.streams.iter().enumerate() {
            let (Some(port), Some(sdp)) = (stream.port, theirs.remote(i)) else { continue };
            commands.push(Command::Remote { port, remote: Remote { sdp, nat: nat(sdp, self.source) } });
        }
    }

    /// Our port for every stream of `theirs` that we relay and that has none yet.
    fn open(&mut self, desk: &mut Desk<'_>, theirs: &Session) -> Result<(), NoPort> {
        for (i, media) in theirs.media.iter().enumerate() {
            if self.streams.len() == i {
                self.streams.push(Stream { port: None, kind: Kind::Opaque, numbers: Numbers::default() });
            }
            let stream = &mut self.streams[i];
            let Some(kind) = offer::relay_kind(media) else { continue };
            if stream.port.is_none() {
                let port = (desk.take)().ok_or(NoPort)?;
                let ssrc = self.ssrc.wrapping_add(i as u32);
                // Only the first stream of a call is audio that somebody must send; pictures and fax may pause.
                let timeout = if i == 0 && matches!(kind, Kind::Rtp { .. }) { desk.timeout } else { Duration::ZERO };
                desk.commands.push(Command::Open { port, kind, ssrc, timeout });
                (stream.port, stream.kind) = (Some(port), kind);
            }
        }
        Ok(())
    }

    /// What the peer of this leg said last.
    pub fn last_heard(&self) -> Option<Session> {
        self.heard.as_deref().and_then(|body| Session::parse(body).ok())
    }

    /// What we told the peer of this leg last.
    pub fn last_told(&self) -> Option<&Bytes> {
        self.told.as_ref()
    }

    /// The same, as it was written.
    pub fn heard_last(&self) -> Option<&Bytes> {
        self.heard.as_ref()
    }

    /// Our own offer of one audio stream, before the peer has said anything. Silence is not counted.
    pub fn offer(&mut self, desk: &mut Desk<'_>, codec: &Format) -> Result<Bytes, NoPort> {
        let port = (desk.take)().ok_or(NoPort)?;
        let kind = Kind::Rtp { clock: codec.clock };
        desk.commands.push(Command::Open { port, kind, ssrc: self.ssrc, timeout: Duration::ZERO });
        self.streams.push(Stream { port: Some(port), kind, numbers: Numbers::default() });
        let codecs = std::slice::from_ref(codec);
        let body = offer::offer(&self.origin, self.address, port.0, codecs, Direction::SendRecv).to_bytes();
        self.told = Some(body.clone());
        Ok(body)
    }

    /// Our own answer to what the peer offered last, by which we speak with it ourselves: its first codec of `codecs`, and every
    /// stream but the first audio stream refused.
    pub fn answer(&mut self, codecs: &[Format]) -> Option<Bytes> {
        let theirs = self.last_heard()?;
        let port = self.streams.get(theirs.audio()?)?.port?.0;
        let address = self.address;
        let answer = |origin: &Origin| offer::answer(&theirs, origin, address, port, codecs, Direction::SendRecv).ok();
        let mut body = answer(&self.origin)?.to_bytes();
        if self.told.as_ref().is_some_and(|told| *told != body) {
            self.origin.version += 1;
            body = answer(&self.origin)?.to_bytes();
        }
        self.told = Some(body.clone());
        Some(body)
    }

    /// Has packets flow between us and the peer, with nobody beyond us. `expected`: whether silence is counted.
    pub fn attend(&self, commands: &mut Vec<Command>, expected: bool) {
        let Some(theirs) = self.last_heard() else { return };
        self.point(commands, &theirs);
        if let Some((i, port)) = theirs.audio().and_then(|i| Some((i, self.streams.get(i)?.port?))) {
            let direction = offer::direction(&theirs, i);
            let (send, expect) = (direction.receives(), expected && direction.sends());
            commands.push(Command::Flow { port, send, expect });
        }
    }

    /// How we speak with the peer, as the last offer and answer have it.
    pub fn voice(&self) -> Option<Voice> {
        let theirs = self.last_heard()?;
        let stream = theirs.audio()?;
        let port = self.streams.get(stream)?.port?;
        let (declared, own) = (self.formats_told(stream), theirs.media[stream].codecs());
        let spoken = |format: &&Format| {
            matches!(format.codec(), Codec::Pcma | Codec::Pcmu | Codec::G722)
                && declared.iter().any(|ours| ours.same_codec(format))
        };
        let format = own.iter().find(spoken)?;
        let (codec, payload_type) = (format.codec(), format.payload);
        Some(Voice { port, codec, payload_type, payloads: session::payloads(&declared, &own) })
    }

    /// Whether `theirs` says nothing new (a session refresh).
    pub fn repeats(&self, theirs: &Session) -> bool {
        self.last_heard().is_some_and(|last| offer::same_media(&last, theirs))
    }

    /// Forgets what was offered: the peer refused it.
    pub fn restore(&mut self, heard: Option<Bytes>, told: Option<Bytes>) {
        (self.heard, self.told) = (heard, told);
    }

    /// What we told the peer last, as a version of its own (RFC 3264 8): it has agreed to another one meanwhile.
    pub fn restated(&mut self) -> Option<Bytes> {
        let told = Session::parse(self.told.as_deref()?).ok()?;
        self.origin.version += 1;
        let body = offer::of_origin(told, &self.origin, self.address).to_bytes();
        self.told = Some(body.clone());
        Some(body)
    }

    /// Whether a description may follow the last one of this dialog: streams are never taken away (RFC 3264 8).
    pub fn may_follow(&self, theirs: &Session) -> bool {
        self.last_heard().is_none_or(|last| theirs.media.len() >= last.media.len())
    }

    /// Whether `theirs` answers what we told the peer of this leg (RFC 3264 6).
    pub fn answers(&self, theirs: &Session) -> bool {
        let told = self.told.as_deref().and_then(|body| Session::parse(body).ok());
        told.is_none_or(|told| offer::check_answer(&told, theirs).is_ok())
    }

    /// What stands, to be put back with [`End::restore`].
    pub fn standing(&self) -> (Option<Bytes>, Option<Bytes>) {
        (self.heard.clone(), self.told.clone())
    }

    /// Gives all ports back.
    pub fn close(&mut self, commands: &mut Vec<Command>) -> Vec<Port> {
        let ports: Vec<Port> = self.streams.drain(..).filter_map(|s| s.port).collect();
        if self.tapped.is_some() {
            commands.extend(ports.first().map(|&port| Command::Untap { port }));
        }
        commands.extend(ports.iter().map(|&port| Command::Close { port }));
        ports
    }

    /// Our ports.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        self.streams.iter().filter_map(|s| s.port)
    }

    /// Records what this leg's first audio stream says.
    pub fn tap(&mut self, commands: &mut Vec<Command>, recording: RecordingId, side: Side) {
        let (Some(own), None) = (self.last_heard(), &self.tapped) else { return };
        let Some((i, port)) = own.audio().and_then(|i| Some((i, self.streams.get(i)?.port?))) else { return };
        let payloads = session::payloads(&self.formats_told(i), &own.media[i].codecs());
        commands.push(Command::Tap { port, recording, side, payloads: payloads.clone() });
        self.tapped = Some((i, recording, side, payloads));
    }

    /// The recorder reads by the codecs that stand now.
    fn retap(&mut self, commands: &mut Vec<Command>, own: &Session) {
        let Some((i, recording, side, before)) = self.tapped.take() else { return };
        let found = own.media.get(i).filter(|media| media.port != 0).zip(self.streams.get(i).and_then(|s| s.port));
        let now = found.map(|(media, port)| (port, session::payloads(&self.formats_told(i), &media.codecs())));
        let payloads = match now {
            Some((port, payloads)) if payloads != before => {
                commands.push(Command::Tap { port, recording, side, payloads: payloads.clone() });
                payloads
            }
            _ => before,
        };
        self.tapped = Some((i, recording, side, payloads));
    }

    /// The codec that both have agreed on for the first audio stream, with events.
    pub fn in_use(&self) -> Option<[Format; 2]> {
        let own = self.last_heard()?;
        let stream = own.audio()?;
        let told = self.formats_told(stream);
        let codecs = own.media[stream].codecs();
        let voice = codecs.into_iter().find(|f| f.is_voice() && told.iter().any(|t| t.same_codec(f)))?;
        Some([voice, Format::EVENT])
    }

    /// Whether the peer has offered a codec besides the one in use that we may pass on.
    pub fn speaks_more(&self) -> bool {
        let Some(([used, _], theirs)) = self.in_use().zip(self.last_heard()) else { return false };
        let codecs = theirs.audio().map(|i| theirs.media[i].codecs()).unwrap_or_default();
        codecs.iter().any(|f| f.is_voice() && !f.same_codec(&used) && Format::BASIC.iter().any(|b| b.same_codec(f)))
    }

    /// Whether what the peer of the other leg said has a codec that we told the peer of this one; or no voice is spoken at all.
    pub fn agrees(&self, other: &End) -> bool {
        let (Some(own), Some(theirs)) = (self.last_heard(), other.last_heard()) else { return true };
        let (Some(i), Some(j)) = (own.audio(), theirs.audio()) else { return true };
        let told = self.formats_told(i);
        theirs.media[j].codecs().iter().any(|f| f.is_voice() && told.iter().any(|told| told.same_codec(f)))
    }

    /// The first of these codecs that the peer offered under its own number, for its first audio stream.
    pub fn offers<'a>(&self, codecs: &'a [Format]) -> Option<&'a Format> {
        let theirs = self.last_heard()?;
        let offered = theirs.media[theirs.audio()?].codecs();
        let same = |f: &Format| codecs.iter().find(|own| own.same_codec(f) && own.payload == f.payload);
        offered.iter().find_map(same)
    }

    /// What arrives for the peer is not let through, until [`link`] says otherwise.
    pub fn mute(&self, commands: &mut Vec<Command>) {
        let port = self.last_heard().and_then(|theirs| self.streams.get(theirs.audio()?)?.port);
        commands.extend(port.map(|port| Command::Flow { port, send: false, expect: false }));
    }

    /// Whether what the peer offered has a codec that we speak.
    pub fn can_talk(&self) -> bool {
        let theirs = self.last_heard();
        let codecs = theirs.and_then(|theirs| Some(theirs.media[theirs.audio()?].codecs())).unwrap_or_default();
        codecs.iter().any(|f| f.is_voice() && Format::BASIC.iter().any(|basic| basic.same_codec(f)))
    }

    fn formats_told(&self, stream: usize) -> Vec<Format> {
        let told = self.told.as_deref().and_then(|body| Session::parse(body).ok());
        told.and_then(|s| s.media.get(stream).map(|m| m.codecs())).unwrap_or_default()
    }
}

/// A description of one leg as ours for another: with our address, ports and payload types of that leg. `keep`: the only codecs
/// that go on, if any of them is there. `answer`: it answers what the peer of the other leg said last.
pub fn pass(
    desk: &mut Desk<'_>,
    theirs: &Session,
    to: &mut End,
    keep: Option<&[Format]>,
    answer: bool,
) -> Result<Bytes, NoPort> {
    to.open(desk, theirs)?;
    let offer = answer.then(|| to.last_heard()).flatten();
    let ports: Vec<Option<u16>> = to.streams.iter().map(|s| s.port.map(|p| p.0)).collect();
    let keep = keep.and_then(|keep| offer::fitting(theirs, keep));
    let how =
        Rewrite { address: to.address, ports: &ports, origin: &to.origin, answers: offer.as_ref(), keep_codecs: keep };
    let mut ours = offer::rewrite(theirs, &how);
    let streams = to.streams.iter_mut().zip(&mut ours.media).filter(|(_, media)| media.port != 0);
    streams.for_each(|(stream, media)| stream.numbers.put_into(media));
    let mut body = ours.to_bytes();
    if to.told.as_ref().is_some_and(|told| *told != body) {
        to.origin.version += 1;
        body = offer::of_origin(ours, &to.origin, to.address).to_bytes();
    }
    to.told = Some(body.clone());
    Ok(body)
}

/// Joins two ends as their last descriptions say. `expected`: whether silence is counted (the call is answered).
pub fn link(commands: &mut Vec<Command>, a: &mut End, b: &mut End, expected: bool) {
    let (Some(at_a), Some(at_b)) = (a.last_heard(), b.last_heard()) else { return };
    a.point(commands, &at_a);
    b.point(commands, &at_b);
    for i in 0..a.streams.len().min(b.streams.len()) {
        let (Some(pa), Some(pb)) = (a.streams[i].port, b.streams[i].port) else { continue };
        let (Some(ma), Some(mb)) = (at_a.media.get(i), at_b.media.get(i)) else { continue };
        let alive = ma.port != 0 && mb.port != 0;
        let (da, db) = (offer::direction(&at_a, i), offer::direction(&at_b, i));
        let (ca, cb) = (ma.codecs(), mb.codecs());
        let to_a = offer::payload_map(&b.formats_told(i), &cb, &ca);
        let to_b = offer::payload_map(&a.formats_told(i), &ca, &cb);
        commands.push(Command::Link { a: pa, b: pb, to_a, to_b });
        // The ports were opened for what was offered first; what is spoken is what both have.
        if let Some(agreed) = ca.iter().find(|own| cb.iter().any(|other| other.same_codec(own))) {
            let clock = agreed.clock;
            commands.extend([pa, pb].map(|port| Command::Clock { port, clock }));
        }
        let (a_hears, b_hears) = (alive && da.receives(), alive && db.receives());
        // Who holds or is held need not send: the clock stands still.
        let both = da == Direction::SendRecv && db == Direction::SendRecv;
        let expect = expected && i == 0 && alive && both;
        commands.push(Command::Flow { port: pa, send: a_hears, expect });
        commands.push(Command::Flow { port: pb, send: b_hears, expect });
    }
    a.retap(commands, &at_a);
    b.retap(commands, &at_b);
}

/// Whether either side holds the other.
pub fn held(a: &Session, b: &Session) -> bool {
    offer::is_hold(a) || offer::is_hold(b)
}

fn nat(sdp: SocketAddr, source: IpAddr) -> Option<IpAddr> {
    let source = source.to_canonical();
    (sdp.ip().to_canonical() != source).then_some(source)
}
