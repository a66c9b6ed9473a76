//! Offer and answer (RFC 3264) for a back-to-back user agent: one side's description made into ours for the other side, hold
//! recognised, answers checked, payload types of two sides matched, and descriptions of our own.
//!
//! The relay takes part as a plain RTP endpoint with RTCP on the next port: what would go round it (ICE), needs keys that it
//! does not have (SRTP, DTLS) or ties streams together (BUNDLE, rtcp-mux) is taken out. It does not negotiate by itself: which
//! stream gets a port, and which codecs are kept, is the caller's decision.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::session::{Direction, Format, Line, MAX_PAYLOAD, Media, Session};
use crate::media::{Kind, PtMap};

/// Attributes that must not pass a plain relay: ICE (RFC 8839), SRTP and DTLS keys (RFC 4568, 5763), rtcp-mux (5761), BUNDLE
/// (9143), source and stream identifiers (5576, 8830, 8853), private candidates. Our SSRC and ports are not the peer's.
const DROPPED: [&str; 24] = [
    "alt",
    "candidate",
    "crypto",
    "dtls-id",
    "end-of-candidates",
    "fingerprint",
    "group",
    "ice-lite",
    "ice-mismatch",
    "ice-options",
    "ice-pacing",
    "ice-pwd",
    "ice-ufrag",
    "key-mgmt",
    "msid",
    "msid-semantic",
    "remote-candidates",
    "rid",
    "rtcp-mux",
    "rtcp-mux-only",
    "setup",
    "simulcast",
    "ssrc",
    "ssrc-group",
];
/// The same, of names that came later.
const DROPPED_TOO: [&str; 3] = ["bundle-only", "tls-id", "zrtp-hash"];

/// Clock for the silence between sources where no codec says one, in Hz.
const DEFAULT_CLOCK: u32 = 8000;

/// Our own `o=` line: one for each leg's dialog; the version grows by one with each description that differs (RFC 3264 8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// User name; `-` where there is none.
    pub user: String,
    /// Session id: the same for the whole dialog.
    pub id: u64,
    /// Session version.
    pub version: u64,
}

impl Origin {
    /// The first version of a session.
    pub fn new(id: u64) -> Origin {
        // Some phones read both numbers into 63 bits.
        Origin { user: "-".into(), id: id & (u64::MAX >> 2), version: 1 }
    }

    fn line(&self, address: IpAddr) -> Line {
        Line::new(b'o', format!("{} {} {} IN {} {address}", self.user, self.id, self.version, family(address)))
    }
}

/// How one side's description becomes ours.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// Where our ports are, as the other side reaches them.
    pub address: IpAddr,
    /// Our port for each `m=` line in order; `None`, or a missing entry, refuses the stream with port 0.
    pub ports: &'a [Option<u16>],
    /// Our `o=` line.
    pub origin: &'a Origin,
    /// The offer of the other side that this answers: a direction that it does not allow is narrowed (RFC 3264 6.1), for peers that answer
    /// a hold as if there was none.
    pub answers: Option<&'a Session>,
    /// Audio codecs that stay, if not all: `telephone-event` in this list keeps every clock of it. A stream that has none left
    /// (but events) is refused.
    pub keep_codecs: Option<&'a [Format]>,
}

/// What is wrong with an answer. The answerer's dialog is ended (ACK, BYE) or the offerer told 488.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mismatch {
    /// Another number of `m=` lines than the offer (RFC 3264 6).
    #[error("answer has another number of streams than the offer")]
    Count,
    /// A stream is of another kind than the one offered in its place.
    #[error("answer changes the kind of stream {0}")]
    Kind(usize),
    /// A stream that was offered with port 0 has a port in the answer.
    #[error("answer revives stream {0}")]
    Revived(usize),
    /// A stream is accepted without any codec of the offer.
    #[error("answer has no codec of the offer in stream {0}")]
    NoCodec(usize),
    /// Every stream is refused.
    #[error("answer refuses every stream")]
    Refused,
}

/// One side's description as ours for the other side. Every stream stays in its place (RFC 3264 8.2); those without a port of
/// ours, of a kind that we do not relay, or with no codec left are refused with port 0.
///
/// `c=0.0.0.0`, the old way to hold, becomes a direction, since our address is never 0.0.0.0.
pub fn rewrite(theirs: &Session, how: &Rewrite<'_>) -> Session {
    let mut lines: Vec<Line> = Vec::with_capacity(theirs.lines.len() + 1);
    lines.extend(theirs.lines.iter().take(1).cloned());
    lines.push(how.origin.line(how.address));
    lines.extend(theirs.lines.iter().skip(2).filter(|line| line.kind != b'c' && passes(line)).cloned());
    let before = |line: &Line| matches!(line.kind, b'v' | b'o' | b's' | b'i' | b'u' | b'e' | b'p');
    let at = lines.iter().rposition(before).map_or(lines.len(), |at| at + 1);
    lines.insert(at, connection_line(how.address));
    let media = (0..theirs.media.len()).map(|stream| rewrite_stream(theirs, stream, how)).collect();
    Session { lines, media }
}

/// A description of ours again, under another `o=` line.
pub fn of_origin(mut ours: Session, origin: &Origin, address: IpAddr) -> Session {
    if let Some(line) = ours.lines.iter_mut().find(|line| line.kind == b'o') {
        *line = origin.line(address);
    }
    ours
}

/// Whether the describer holds the other side: no audio stream of it receives (or none at all, if it has no audio).
pub fn is_hold(session: &Session) -> bool {
    let alive = |audio: bool| {
        let streams = session.media.iter().enumerate();
        streams.filter(move |(_, media)| media.port != 0 && (!audio || media.is_audio())).map(|(i, _)| i)
    };
    let audio = alive(true).next().is_some();
    alive(audio).next().is_some() && alive(audio).all(|stream| !direction(session, stream).receives())
}

/// The direction of a stream with the old way to hold, `c=0.0.0.0`, read as not receiving (RFC 3264 8.4).
pub fn direction(session: &Session, stream: usize) -> Direction {
    let written = session.direction(stream);
    let held = session.connection(stream).is_some_and(|ip| ip.is_unspecified());
    Direction::of(written.sends(), written.receives() && !held)
}

/// What a relay port for this stream must be; nothing for a stream that is refused or that we do not relay.
pub fn relay_kind(media: &Media) -> Option<Kind> {
    match media {
        media if media.port == 0 || !media.is_relayable() => None,
        media if media.is_udptl() => Some(Kind::Opaque),
        media => {
            let codec = media.in_use().or_else(|| media.codecs().into_iter().next());
            Some(Kind::Rtp { clock: codec.map_or(DEFAULT_CLOCK, |format| format.clock) })
        }
    }
}

/// Checks an answer against the offer that it answers.
///
/// # Errors
/// The first thing that RFC 3264 section 6 forbids; and, since it leaves nobody to talk to, an answer that refuses everything.
pub fn check_answer(offer: &Session, answer: &Session) -> Result<(), Mismatch> {
    if offer.media.len() != answer.media.len() {
        return Err(Mismatch::Count);
    }
    for (i, (offered, answered)) in offer.media.iter().zip(&answer.media).enumerate() {
        if !offered.kind.eq_ignore_ascii_case(&answered.kind) {
            return Err(Mismatch::Kind(i));
        }
        if answered.port == 0 {
            continue;
        }
        if offered.port == 0 {
            return Err(Mismatch::Revived(i));
        }
        if offered.is_rtp() && common(&offered.codecs(), &answered.codecs()).is_none() {
            return Err(Mismatch::NoCodec(i));
        }
    }
    match answer.media.iter().any(|media| media.port != 0) || offer.media.iter().all(|media| media.port == 0) {
        true => Ok(()),
        false => Err(Mismatch::Refused),
    }
}

/// Payload types to translate on the way to a peer: `declared` is what we told the sender, `peer` what the receiver said.
/// Codecs that the receiver does not know are not in the table and pass as they are. `own` is what the sender said itself: many send by
/// their own numbers where they ought to use ours.
pub fn payload_map(declared: &[Format], own: &[Format], peer: &[Format]) -> Vec<PtMap> {
    let mut map = translate(declared, peer);
    for pair in translate(own, peer) {
        if !declared.iter().any(|f| f.payload == pair.from) {
            map.push(pair);
        }
    }
    map
}

fn translate(declared: &[Format], peer: &[Format]) -> Vec<PtMap> {
    let mut map: Vec<PtMap> = Vec::new();
    for (i, from) in declared.iter().enumerate() {
        // Several entries of one codec (H.264 profiles) match in their order.
        let nth = declared[..i].iter().filter(|f| f.same_codec(from)).count();
        let mut twins = peer.iter().filter(|to| to.same_codec(from));
        let to = twins.clone().find(|to| to.payload == from.payload).or_else(|| twins.nth(nth));
        if let Some(to) = to.filter(|to| to.payload != from.payload) {
            map.push(PtMap { from: from.payload, to: to.payload });
        }
    }
    map
}

/// Dynamic payload types of a stream, and what each of them stands for in one dialog: a number never changes its meaning while the
/// session lasts (RFC 3264 8.3.2), and a codec keeps its number, whatever the far side of the call names it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Numbers(Vec<Number>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Number {
    format: Format,
    /// Its parameters, which tell two profiles of one codec apart.
    fmtp: Box<[u8]>,
    /// The peer named it in its last description.
    current: bool,
}

/// The first dynamic payload type (RFC 3551 6).
const DYNAMIC: u8 = 96;

impl Numbers {
    /// The peer of the dialog described its stream: its numbers are the ones that hold.
    pub fn learn(&mut self, media: &Media) {
        self.0.iter_mut().for_each(|known| known.current = false);
        for format in media.codecs().into_iter().filter(|f| f.payload >= DYNAMIC) {
            let number = Number { fmtp: fmtp(media, format.payload), format, current: true };
            match self.0.iter_mut().find(|known| known.format.payload == number.format.payload) {
                Some(known) => *known = number,
                None => self.0.push(number),
            }
        }
    }

    /// Gives a description of the far side, which is about to be told to the peer, the numbers of this dialog. A codec that is
    /// new here keeps the far side's number if that is free.
    pub fn put_into(&mut self, media: &mut Media) {
        let codecs = media.codecs();
        let mut pairs: Vec<PtMap> = Vec::new();
        for format in codecs.iter().filter(|f| f.payload >= DYNAMIC) {
            let to = self.of(format, &fmtp(media, format.payload), &pairs).or_else(|| {
                let taken =
                    |p: u8| self.0.iter().any(|n| n.format.payload == p) || pairs.iter().any(|pair| pair.to == p);
                let free = (DYNAMIC..=MAX_PAYLOAD).find(|p| !taken(*p) && codecs.iter().all(|f| f.payload != *p));
                Some(format.payload).filter(|p| !taken(*p)).or(free)
            });
            // With every number taken it goes as it is.
            let to = to.unwrap_or(format.payload);
            if !self.0.iter().any(|known| known.format.payload == to) {
                let fmtp = fmtp(media, format.payload);
                self.0.push(Number { format: Format { payload: to, ..format.clone() }, fmtp, current: false });
            }
            pairs.push(PtMap { from: format.payload, to });
        }
        media.renumber(&pairs);
    }

    /// The number that a codec has here: by its parameters, else by the same number, else the next of its like; what the
    /// peer named last goes before what was so earlier.
    fn of(&self, format: &Format, fmtp: &[u8], used: &[PtMap]) -> Option<u8> {
        let like = |current: bool| {
            let like = self.0.iter().filter(move |n| n.current || !current).filter(|n| n.format.same_codec(format));
            like.filter(|n| !used.iter().any(|pair| pair.to == n.format.payload))
        };
        let same = |n: &&Number| n.format.payload == format.payload;
        [true, false].into_iter().find_map(|current| {
            let twins = || like(current).filter(|n| *n.fmtp == *fmtp);
            let found = twins().find(same).or_else(|| twins().next()).or_else(|| like(current).find(same));
            found.or_else(|| like(current).next()).map(|n| n.format.payload)
        })
    }
}

fn fmtp(media: &Media, payload: u8) -> Box<[u8]> {
    media.fmtp(payload).unwrap_or_default().trim_ascii().into()
}

/// What of `offered` may go on where only `keep` is wanted: `keep`, if there is any sound left then. Else all of it: a call that
/// cannot be played to is better than none.
pub fn fitting<'a>(offered: &Session, keep: &'a [Format]) -> Option<&'a [Format]> {
    let audio = offered.media.iter().find(|media| media.is_audio() && media.port != 0)?;
    let left = audio.codecs().iter().any(|f| f.is_voice() && keep.iter().any(|k| k.same_codec(f)));
    left.then_some(keep)
}

/// Whether a description repeats an earlier one of the same dialog, as a session refresh does (RFC 3264 8: the same `o=` line
/// means the same text). A peer that changes the text without the version is not believed.
pub fn same_offer(earlier: &Session, later: &Session) -> bool {
    earlier == later
}

/// Whether two descriptions say the same but for the version in `o=`, which some phones count up in every refresh.
pub fn same_media(earlier: &Session, later: &Session) -> bool {
    fn rest(session: &Session) -> impl Iterator<Item = &Line> {
        session.lines.iter().filter(|line| line.kind != b'o')
    }
    earlier.media == later.media && rest(earlier).eq(rest(later))
}

/// An offer of our own with one audio stream.
pub fn offer(origin: &Origin, address: IpAddr, port: u16, codecs: &[Format], direction: Direction) -> Session {
    let mut session = blank(origin, address);
    session.media.push(audio(port, codecs, direction));
    session
}

/// An answer of our own: the first audio stream gets `port` and the offerer's first codec that is among `codecs`, with its
/// events if it has some; every other stream is refused. `direction` is what we are ready for; the offer narrows it.
///
/// # Errors
/// [`Mismatch::NoCodec`] or [`Mismatch::Refused`] if there is no audio stream that could be accepted.
pub fn answer(
    theirs: &Session,
    origin: &Origin,
    address: IpAddr,
    port: u16,
    codecs: &[Format],
    direction: Direction,
) -> Result<Session, Mismatch> {
    let stream = theirs.audio().ok_or(Mismatch::Refused)?;
    let offered = theirs.media[stream].codecs();
    let voice = offered.iter().find(|f| f.is_voice() && codecs.iter().any(|ours| ours.same_codec(f)));
    let voice = voice.ok_or(Mismatch::NoCodec(stream))?;
    let event = offered.iter().find(|f| f.is_event() && codecs.iter().any(|ours| ours.same_codec(f)));
    let chosen: Vec<Format> = [Some(voice), event].into_iter().flatten().cloned().collect();
    let mut session = blank(origin, address);
    session.media = theirs.media.iter().map(refused).collect();
    session.media[stream] = audio(port, &chosen, self::direction(theirs, stream).reversed().and(direction));
    Ok(session)
}

fn rewrite_stream(theirs: &Session, stream: usize, how: &Rewrite<'_>) -> Media {
    let media = &theirs.media[stream];
    let port = how.ports.get(stream).copied().flatten().filter(|port| *port != 0);
    let (Some(port), true) = (port, media.port != 0 && media.is_relayable()) else {
        return refused(media);
    };
    let mut ours = Media { port, count: 1, lines: Vec::with_capacity(media.lines.len()), ..media.clone() };
    for line in &media.lines {
        match line.attribute() {
            Some((name, _)) if name.eq_ignore_ascii_case(b"rtcp") => {
                ours.lines.push(Line::new(b'a', format!("rtcp:{}", port.saturating_add(1))));
            }
            _ if line.kind == b'c' || !passes(line) => {}
            _ => ours.lines.push(line.clone()),
        }
    }
    if let (true, Some(keep)) = (media.is_audio(), how.keep_codecs) {
        let stays = |format: &Format| keep.iter().any(|k| k.same_codec(format) || (k.is_event() && format.is_event()));
        let kept: Vec<Format> = media.codecs().into_iter().filter(stays).collect();
        if !kept.iter().any(Format::is_voice) {
            return refused(media);
        }
        if kept.len() != media.formats.len() {
            ours.set_codecs(&kept);
        }
    }
    let allowed = how.answers.map_or(Direction::SendRecv, |offer| self::direction(offer, stream).reversed());
    let direction = direction(theirs, stream).and(allowed);
    if direction != theirs.direction(stream) {
        ours.set_direction(direction);
    }
    ours
}

fn refused(media: &Media) -> Media {
    Media { port: 0, count: 1, lines: Vec::new(), ..media.clone() }
}

fn passes(line: &Line) -> bool {
    match line.attribute() {
        Some((name, _)) => !DROPPED.iter().chain(&DROPPED_TOO).any(|d| name.eq_ignore_ascii_case(d.as_bytes())),
        None => line.kind != b'k',
    }
}

/// The first codec with sound or pictures that stands in both.
fn common<'a>(offered: &[Format], answered: &'a [Format]) -> Option<&'a Format> {
    answered.iter().find(|a| a.is_voice() && offered.iter().any(|o| o.same_codec(a)))
}

fn blank(origin: &Origin, address: IpAddr) -> Session {
    let line = |kind, value: &'static str| Line { kind, value: Bytes::from_static(value.as_bytes()) };
    let lines =
        vec![line(b'v', "0"), origin.line(address), line(b's', "-"), connection_line(address), line(b't', "0 0")];
    Session { lines, media: Vec::new() }
}

fn audio(port: u16, codecs: &[Format], direction: Direction) -> Media {
    let (kind, proto) = ("audio".to_owned(), "RTP/AVP".to_owned());
    let mut media = Media { kind, port, count: 1, proto, formats: Vec::new(), lines: Vec::new() };
    media.set_codecs(codecs);
    for event in codecs.iter().filter(|format| format.is_event()) {
        media.lines.push(Line::new(b'a', format!("fmtp:{} 0-15", event.payload)));
    }
    media.set_direction(direction);
    media
}

fn connection_line(address: IpAddr) -> Line {
    Line::new(b'c', format!("IN {} {address}", family(address)))
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const US: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));
    const HEAD: &str = "v=0\r\no=alice 77 3 IN IP4 10.0.0.5\r\ns=call\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\n";

    fn parse(text: &str) -> Session {
        Session::parse(text.as_bytes()).expect("a sound description")
    }

    fn ours(theirs: &Session, ports: &[Option<u16>], keep: Option<&[Format]>) -> String {
        let origin = Origin { user: "-".into(), id: 5, version: 2 };
        rewrite(theirs, &Rewrite { address: US, ports, origin: &origin, answers: None, keep_codecs: keep }).to_string()
    }

    #[test]
    fn a_phone_becomes_ours() {
        let theirs = parse(&format!(
            "{HEAD}a=group:BUNDLE 0 1\r\na=ice-ufrag:x\r\na=tool:y\r\nm=audio 4000 RTP/AVP 8 101\r\nc=IN IP4 10.0.0.6\r\na=rtpmap:101 \
             telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=rtcp:4009 IN IP4 10.0.0.6\r\na=rtcp-mux\r\na=candidate:1 1 UDP 1 10.0.0.5 4000 \
             typ host\r\na=ssrc:1 cname:a\r\na=sendonly\r\nm=video 4002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=image 4004 udptl \
             t38\r\na=T38FaxVersion:0\r\nm=audio 4006 RTP/SAVP 0\r\na=crypto:1 X inline:k\r\nm=application 9 UDP/DTLS/SCTP webrtc\r\nm=video 0 RTP/AVP \
             96\r\n"
        ));
        assert_eq!(
            ours(&theirs, &[Some(20000), Some(20002), Some(20004), Some(20006), Some(20008), Some(20010)], None),
            "v=0\r\no=- 5 2 IN IP4 198.51.100.9\r\ns=call\r\nc=IN IP4 198.51.100.9\r\nt=0 0\r\na=tool:y\r\nm=audio 20000 RTP/AVP 8 \
             101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=rtcp:20001\r\na=sendonly\r\nm=video 20002 RTP/AVP \
             96\r\na=rtpmap:96 H264/90000\r\nm=image 20004 udptl t38\r\na=T38FaxVersion:0\r\nm=audio 0 RTP/SAVP 0\r\nm=application 0 \
             UDP/DTLS/SCTP webrtc\r\nm=video 0 RTP/AVP 96\r\n"
        );
        let none = parse(&ours(&theirs, &[], None));
        assert!(none.media.iter().all(|media| media.port == 0));
        let kinds: Vec<_> = theirs.media.iter().map(relay_kind).collect();
        let (audio, video) = (Kind::Rtp { clock: 8000 }, Kind::Rtp { clock: 90000 });
        assert_eq!(kinds, [Some(audio), Some(video), Some(Kind::Opaque), None, None, None]);
    }

    #[test]
    fn codecs_are_cut_to_a_list() {
        let text = format!(
            "{HEAD}m=audio 4000 RTP/AVP 111 9 8 0 101 110\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 x=1\r\na=rtpmap:101 \
             telephone-event/8000\r\na=rtpmap:110 telephone-event/48000\r\na=fmtp:101 0-15\r\n"
        );
        for (keep, formats) in [
            (&Format::BASIC[..], "9 8 0 101 110"),
            (&[Format::PCMA, Format::EVENT], "8 101 110"),
            (&[Format::PCMA], "8"),
            (
                &[Format {
                    channels: 2,
                    clock: 48000,
                    ..Format::of_static(0).map(|f| Format { name: "OPUS".into(), ..f }).unwrap()
                }],
                "111",
            ),
        ] {
            let cut = parse(&ours(&parse(&text), &[Some(20000)], Some(keep)));
            assert_eq!(cut.media[0].formats.join(" "), formats);
            assert_eq!(cut.media[0].codecs().len(), cut.media[0].formats.len());
            assert_eq!(cut.media[0].fmtp(111).is_some(), formats == "111");
        }
        for keep in [&[Format::EVENT][..], &[]] {
            assert_eq!(parse(&ours(&parse(&text), &[Some(20000)], Some(keep))).media[0].port, 0);
        }
    }

    #[test]
    fn hold_in_all_its_forms() {
        for (session, media, hold) in [
            ("", "", false),
            ("", "a=sendonly", true),
            ("a=sendonly\n", "", true),
            ("", "a=inactive", true),
            ("", "a=recvonly", false),
            ("a=inactive\n", "a=sendrecv\n", false),
            ("", "c=IN IP4 0.0.0.0\n", true),
            ("c=IN IP4 0.0.0.0\n", "", true),
            ("c=IN IP4 0.0.0.0\n", "c=IN IP4 192.0.2.1\n", false),
            ("c=IN IP6 ::\n", "", true),
        ] {
            let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\n{session}t=0 0\nm=audio 4000 RTP/AVP 0\n{media}");
            let theirs = parse(&text);
            assert_eq!(is_hold(&theirs), hold, "{text}");
            let through = parse(&ours(&theirs, &[Some(20000)], None));
            assert_eq!(is_hold(&through), hold, "{text}");
            assert_eq!(through.remote(0), "198.51.100.9:20000".parse().ok());
        }
        assert!(!is_hold(&parse(&format!("{HEAD}m=audio 0 RTP/AVP 0\na=inactive"))));
        assert!(!is_hold(&parse(&format!("{HEAD}m=audio 4 RTP/AVP 0\nm=video 6 RTP/AVP 31\na=inactive"))));
    }

    #[test]
    fn answers_are_checked() {
        let offer = "m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\nm=video 0 RTP/AVP 31\r\n";
        for (answer, result) in [
            ("m=audio 5000 RTP/AVP 8\r\nm=video 0 RTP/AVP 31\r\n", Ok(())),
            ("m=audio 5000 RTP/AVP 107 8\r\na=rtpmap:107 PCMU/8000\r\nm=video 0 RTP/AVP 31\r\n", Ok(())),
            ("m=audio 5000 RTP/AVP 8\r\n", Err(Mismatch::Count)),
            ("m=video 5000 RTP/AVP 8\r\nm=video 0 RTP/AVP 31\r\n", Err(Mismatch::Kind(0))),
            ("m=audio 5000 RTP/AVP 8\r\nm=video 7 RTP/AVP 31\r\n", Err(Mismatch::Revived(1))),
            ("m=audio 5000 RTP/AVP 9\r\nm=video 0 RTP/AVP 31\r\n", Err(Mismatch::NoCodec(0))),
            (
                "m=audio 5000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\nm=video 0 RTP/AVP 31\r\n",
                Err(Mismatch::NoCodec(0)),
            ),
            ("m=audio 0 RTP/AVP 8\r\nm=video 0 RTP/AVP 31\r\n", Err(Mismatch::Refused)),
        ] {
            assert_eq!(
                check_answer(&parse(&format!("{HEAD}{offer}")), &parse(&format!("{HEAD}{answer}"))),
                result,
                "{answer}"
            );
        }
    }

    #[test]
    fn payload_types_are_matched_by_codec() {
        let at = |payload: u8, format: &Format| Format { payload, ..format.clone() };
        let h264 = |payload| Format { payload, name: "H264".into(), clock: 90000, channels: 1 };
        for (declared, peer, map) in [
            (vec![Format::PCMU, at(101, &Format::EVENT)], vec![Format::PCMU, at(96, &Format::EVENT)], vec![(101, 96)]),
            (vec![Format::PCMU], vec![Format::PCMU], vec![]),
            (vec![Format::PCMU], vec![Format::PCMA], vec![]),
            (vec![h264(96), h264(97)], vec![h264(100), h264(102)], vec![(96, 100), (97, 102)]),
            (vec![h264(96), h264(97)], vec![h264(97), h264(96)], vec![]),
        ] {
            let map: Vec<_> = map.into_iter().map(|(from, to)| PtMap { from, to }).collect();
            assert_eq!(payload_map(&declared, &[], &peer), map);
        }
    }

    #[test]
    fn an_answer_is_no_wider_than_its_offer() {
        let of = |direction: &str| parse(&format!("{HEAD}m=audio 4 RTP/AVP 0\r\na={direction}"));
        for (offered, answered, told) in [
            ("sendonly", "sendrecv", Direction::RecvOnly),
            ("sendonly", "recvonly", Direction::RecvOnly),
            ("inactive", "sendrecv", Direction::Inactive),
            ("recvonly", "inactive", Direction::Inactive),
            ("sendrecv", "sendonly", Direction::SendOnly),
        ] {
            let (offer, origin) = (of(offered), Origin::new(1));
            let how =
                Rewrite { address: US, ports: &[Some(4)], origin: &origin, answers: Some(&offer), keep_codecs: None };
            assert_eq!(rewrite(&of(answered), &how).direction(0), told, "{offered} {answered}");
        }
    }

    #[test]
    fn what_a_sender_names_itself_is_understood_too() {
        let at = |payload: u8| Format { payload, ..Format::EVENT.clone() };
        for (declared, own, peer, map) in [
            (101, 96, 101, vec![(96, 101)]),
            (101, 101, 110, vec![(101, 110)]),
            (97, 96, 101, vec![(97, 101), (96, 101)]),
        ] {
            let map: Vec<_> = map.into_iter().map(|(from, to)| PtMap { from, to }).collect();
            assert_eq!(payload_map(&[at(declared)], &[at(own)], &[at(peer)]), map);
        }
        // Its own number for one codec is what we declared for another: what we declared holds.
        let opus = Format { payload: 96, name: "opus".into(), clock: 48000, channels: 2 };
        assert_eq!(payload_map(&[opus.clone(), at(101)], &[at(96)], &[opus, at(101)]), []);
    }

    #[test]
    fn a_dialog_keeps_its_numbers() {
        let stream = |formats: &str| parse(&format!("{HEAD}m=audio 4 RTP/AVP {formats}")).media.remove(0);
        let event = |n: u8| {
            format!(
                "
a=rtpmap:{n} telephone-event/8000
a=fmtp:{n} 0-15"
            )
        };
        let opus = |n: u8| {
            format!(
                "
a=rtpmap:{n} opus/48000/2
a=fmtp:{n} useinbandfec=1"
            )
        };
        // What the peer of this dialog described in turn, what the far side says, and what the peer is told.
        for (heard, theirs, told) in [
            (vec![format!("8 101{}", event(101))], format!("8 96{}", event(96)), vec!["8", "101"]),
            (vec![], format!("8 96{}", event(96)), vec!["8", "96"]),
            // 101 is taken by something else here
            (vec![format!("101 8{}", opus(101))], format!("8 101{}", event(101)), vec!["8", "96"]),
            // both have both, crosswise
            (
                vec![format!("96 97{}{}", opus(96), event(97))],
                format!("96 97{}{}", event(96), opus(97)),
                vec!["97", "96"],
            ),
            // the last numbers that the peer named go first
            (
                vec![format!("8 101{}", event(101)), format!("8 96{}", event(96))],
                format!("8 101{}", event(101)),
                vec!["8", "96"],
            ),
        ] {
            let mut numbers = Numbers::default();
            heard.iter().for_each(|text| numbers.learn(&stream(text)));
            let mut media = stream(&theirs);
            let names: Vec<_> = media.codecs().into_iter().map(|f| f.name).collect();
            numbers.put_into(&mut media);
            assert_eq!(media.formats, told, "{heard:?} {theirs}");
            assert_eq!(media.codecs().into_iter().map(|f| f.name).collect::<Vec<_>>(), names, "the maps moved along");
            let again = media.clone();
            numbers.put_into(&mut media);
            assert_eq!(media, again, "its own numbers stay");
        }
    }

    #[test]
    fn profiles_of_one_codec_are_told_apart() {
        let stream = |formats: &str| parse(&format!("{HEAD}m=video 4 RTP/AVP {formats}")).media.remove(0);
        let h264 = |n: u8, profile: &str| {
            format!(
                "
a=rtpmap:{n} H264/90000
a=fmtp:{n} profile-level-id={profile}"
            )
        };
        let mut numbers = Numbers::default();
        numbers.learn(&stream(&format!(
            "96 97 98{}{}
a=rtpmap:98 rtx/90000
a=fmtp:98 apt=97",
            h264(96, "a"),
            h264(97, "b")
        )));
        let mut media = stream(&format!(
            "100 101{}
a=rtpmap:101 rtx/90000
a=fmtp:101 apt=100;rtx-time=9",
            h264(100, "b")
        ));
        numbers.put_into(&mut media);
        assert_eq!(media.formats, ["97", "98"]);
        assert_eq!(media.fmtp(98), Some(&b"apt=97;rtx-time=9"[..]));
        let mut red = stream(
            "100 99
a=rtpmap:100 red/8000
a=fmtp:100 99/99
a=rtpmap:99 L8/8000",
        );
        let mut numbers = Numbers::default();
        numbers.learn(&stream(
            "111
a=rtpmap:111 L8/8000",
        ));
        numbers.put_into(&mut red);
        assert_eq!((red.formats.clone(), red.fmtp(100)), (vec!["100".into(), "111".into()], Some(&b"111/111"[..])));
    }

    #[test]
    fn an_offer_is_cut_if_something_is_left() {
        let of = |audio: &str| parse(&format!("{HEAD}m=audio 4 RTP/AVP {audio}"));
        let opus = "
a=rtpmap:96 opus/48000/2
a=rtpmap:101 telephone-event/8000";
        assert_eq!(fitting(&of(&format!("96 0 101{opus}")), &Format::BASIC), Some(&Format::BASIC[..]));
        assert_eq!(fitting(&of(&format!("96 101{opus}")), &Format::BASIC), None);
        assert_eq!(fitting(&parse(&format!("{HEAD}m=image 4 udptl t38")), &Format::BASIC), None);
    }

    #[test]
    fn a_refresh_is_recognised() {
        let first = parse(&format!("{HEAD}m=audio 4 RTP/AVP 0"));
        let counted = parse(&format!("{HEAD}m=audio 4 RTP/AVP 0").replace("77 3", "77 4"));
        let moved = parse(&format!("{HEAD}m=audio 6 RTP/AVP 0"));
        assert!(same_offer(&first, &first.clone()) && same_media(&first, &counted));
        assert!(!same_offer(&first, &counted) && !same_media(&first, &moved));
    }

    #[test]
    fn our_own_offer_and_answer_agree() {
        let origin = Origin::new(u64::MAX);
        let offered = offer(&origin, US, 20000, &Format::BASIC, Direction::SendOnly);
        let again = parse(&offered.to_string());
        assert_eq!(again.media[0].codecs(), Format::BASIC);
        let codecs = [Format::G722, Format::PCMU, Format::EVENT];
        let answered = answer(&again, &origin, US, 20002, &codecs, Direction::SendRecv).expect("PCMU is common");
        assert_eq!(check_answer(&again, &answered), Ok(()));
        assert_eq!(answered.media[0].in_use(), Some(Format::PCMU));
        assert_eq!(answered.media[0].event_payload(), Some(101));
        assert_eq!(answered.direction(0), Direction::RecvOnly);
        let opus = [Format { payload: 96, name: "opus".into(), clock: 48000, channels: 2 }];
        assert_eq!(answer(&again, &origin, US, 1, &opus, Direction::SendRecv), Err(Mismatch::NoCodec(0)));
        let fax = parse(&format!("{HEAD}m=image 4 udptl t38"));
        assert_eq!(answer(&fax, &origin, US, 1, &codecs, Direction::SendRecv), Err(Mismatch::Refused));
    }
}
