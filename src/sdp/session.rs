//! A session description (RFC 8866) as lines: bounded to parse, printed byte for byte as it came, with readers for the few
//! things that a relay must know. Lines that we do not understand are kept where they stood.
//!
//! Kind at the door: LF without CR, a last line without an end, empty lines at the end, missing `s=` and `t=`, attributes that
//! make no sense (they are kept and not believed). Strict where a misreading would send audio to the wrong place: `v=`, `o=`,
//! `m=`, ports, payload types. Host names in `c=` are kept but never resolved.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::media::{Codec, Payloads, PtMap};

/// Longest description that is read, in bytes; a SIP message is bounded by the same figure.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most lines in a description.
pub const MAX_LINES: usize = 1024;
/// Longest line, in bytes.
pub const MAX_LINE: usize = 4096;
/// Most `m=` lines.
pub const MAX_MEDIA: usize = 16;
/// Most formats in one `m=` line; there are no more payload types.
pub const MAX_FORMATS: usize = 128;
/// Highest RTP payload type (7 bits, RFC 3550 5.1).
pub const MAX_PAYLOAD: u8 = 127;

/// Why a description was not accepted. The peer is told 488 (or 400), the log says which line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SdpError {
    /// More than [`MAX_BYTES`], [`MAX_LINES`], [`MAX_LINE`], [`MAX_MEDIA`] or [`MAX_FORMATS`].
    #[error("session description is too large")]
    TooLarge,
    /// It does not begin with `v=0`.
    #[error("session description does not begin with v=0")]
    Version,
    /// There is no `o=` line, or not right after `v=`.
    #[error("session description has no origin")]
    NoOrigin,
    /// A line that is no `x=value`, holds a control byte, or whose value is not of its kind. The number counts from 1.
    #[error("session description is malformed in line {0}")]
    Line(usize),
}

/// Which way a stream flows, as its describer sees it (RFC 8866 6.7).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum Direction {
    /// Both ways; what a stream without a direction is.
    #[default]
    SendRecv,
    /// From the describer only: it holds the other.
    SendOnly,
    /// To the describer only.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    /// The same flow seen from the other end.
    pub const fn reversed(self) -> Direction {
        match self {
            Direction::SendOnly => Direction::RecvOnly,
            Direction::RecvOnly => Direction::SendOnly,
            other => other,
        }
    }

    /// Whether the describer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the describer wants to receive.
    pub const fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// From what the describer does.
    pub const fn of(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// What both allow; both seen from the same end.
    pub const fn and(self, other: Direction) -> Direction {
        Direction::of(self.sends() && other.sends(), self.receives() && other.receives())
    }

    fn from_attribute(value: &[u8]) -> Option<Direction> {
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive]
            .into_iter()
            .find(|d| value.eq_ignore_ascii_case(d.as_str().as_bytes()))
    }
}

/// One line: `kind=value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The letter before `=`.
    pub kind: u8,
    /// What stands after it, without the line's end.
    pub value: Bytes,
}

impl Line {
    /// A line of ours. Control bytes are taken out: a value never makes a second line.
    pub fn new(kind: u8, value: impl AsRef<[u8]>) -> Line {
        let value = value.as_ref();
        let clean = match value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            true => value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect(),
            false => Bytes::copy_from_slice(value),
        };
        Line { kind, value: clean }
    }

    /// Name and value of an attribute (`a=name:value` or `a=name`); the value of a flag is empty.
    pub fn attribute(&self) -> Option<(&[u8], &[u8])> {
        if self.kind != b'a' {
            return None;
        }
        match memchr::memchr(b':', &self.value) {
            Some(at) => Some((&self.value[..at], &self.value[at + 1..])),
            None => Some((&self.value, &[])),
        }
    }
}

/// A payload type and the codec it stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Format {
    /// RTP payload type, 0 to 127.
    pub payload: u8,
    /// Encoding name as registered; compared without regard to case.
    pub name: Cow<'static, str>,
    /// RTP clock in Hz.
    pub clock: u32,
    /// Audio channels; 1 where none is written.
    pub channels: u8,
}

impl Format {
    /// G.711 µ-law.
    pub const PCMU: Format = Format::fixed(0, "PCMU", 8000);
    /// G.711 A-law.
    pub const PCMA: Format = Format::fixed(8, "PCMA", 8000);
    /// G.722; its RTP clock says 8000 by an old mistake (RFC 3551 4.5.2).
    pub const G722: Format = Format::fixed(9, "G722", 8000);
    /// RFC 4733 events by the payload type that most phones use.
    pub const EVENT: Format = Format::fixed(101, "telephone-event", 8000);
    /// What an offer is cut to where a call may have to be played to, parked or supervised.
    pub const BASIC: [Format; 4] = [Format::PCMA, Format::PCMU, Format::G722, Format::EVENT];

    const fn fixed(payload: u8, name: &'static str, clock: u32) -> Format {
        Format { payload, name: Cow::Borrowed(name), clock, channels: 1 }
    }

    /// The format that a payload type has without an `a=rtpmap` (RFC 3551, table 4 and 5).
    pub fn of_static(payload: u8) -> Option<Format> {
        let (name, clock, channels) = match payload {
            0 => ("PCMU", 8000, 1),
            3 => ("GSM", 8000, 1),
            4 => ("G723", 8000, 1),
            5 => ("DVI4", 8000, 1),
            6 => ("DVI4", 16000, 1),
            7 => ("LPC", 8000, 1),
            8 => ("PCMA", 8000, 1),
            9 => ("G722", 8000, 1),
            10 => ("L16", 44100, 2),
            11 => ("L16", 44100, 1),
            12 => ("QCELP", 8000, 1),
            13 => ("CN", 8000, 1),
            14 => ("MPA", 90000, 1),
            15 => ("G728", 8000, 1),
            16 => ("DVI4", 11025, 1),
            17 => ("DVI4", 22050, 1),
            18 => ("G729", 8000, 1),
            25 => ("CelB", 90000, 1),
            26 => ("JPEG", 90000, 1),
            28 => ("nv", 90000, 1),
            31 => ("H261", 90000, 1),
            32 => ("MPV", 90000, 1),
            33 => ("MP2T", 90000, 1),
            34 => ("H263", 90000, 1),
            _ => return None,
        };
        Some(Format { payload, name: Cow::Borrowed(name), clock, channels })
    }

    /// Whether both are the same codec, whatever their payload types.
    pub fn same_codec(&self, other: &Format) -> bool {
        self.clock == other.clock && self.channels == other.channels && self.name.eq_ignore_ascii_case(&other.name)
    }

    /// Whether it is RFC 4733 events.
    pub fn is_event(&self) -> bool {
        self.name.eq_ignore_ascii_case("telephone-event")
    }

    /// Whether it carries sound or pictures, as events, comfort noise and redundancy do not by themselves.
    pub fn is_voice(&self) -> bool {
        !["telephone-event", "CN", "red", "ulpfec", "flexfec-03", "rtx", "tone"]
            .iter()
            .any(|name| self.name.eq_ignore_ascii_case(name))
    }

    /// How a recording reads it.
    pub fn codec(&self) -> Codec {
        let is = |name: &str| self.name.eq_ignore_ascii_case(name);
        match (self.clock, self.channels) {
            _ if is("telephone-event") => Codec::Event,
            _ if is("CN") => Codec::Noise,
            (8000, 1) if is("PCMU") => Codec::Pcmu,
            (8000, 1) if is("PCMA") => Codec::Pcma,
            (8000 | 16000, 1) if is("G722") => Codec::G722,
            _ => Codec::Unknown,
        }
    }

    fn rtpmap(&self) -> String {
        match self.channels {
            1 => format!("rtpmap:{} {}/{}", self.payload, self.name, self.clock),
            n => format!("rtpmap:{} {}/{}/{n}", self.payload, self.name, self.clock),
        }
    }
}

/// The payload table of one side, for a recording: how what arrives from that side is to be read. `declared` is what we told
/// it, which it should follow (RFC 3264 5.1); `own` is what it said itself, for the many that send by their own numbers.
pub fn payloads(declared: &[Format], own: &[Format]) -> Payloads {
    let mut table: Payloads = Vec::with_capacity(declared.len());
    for format in declared.iter().chain(own) {
        if !table.iter().any(|(payload, _)| *payload == format.payload) {
            table.push((format.payload, format.codec()));
        }
    }
    table
}

/// One `m=` line and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// `audio`, `video`, `image`, `application`, …
    pub kind: String,
    /// Where it is to be received; 0: refused, or no longer wanted.
    pub port: u16,
    /// How many port pairs (`port/count`); 1 where none is written.
    pub count: u16,
    /// `RTP/AVP`, `udptl`, …
    pub proto: String,
    /// Payload types, or what the protocol has instead.
    pub formats: Vec<String>,
    /// The lines after the `m=` line, in order.
    pub lines: Vec<Line>,
}

impl Media {
    /// Whether it is RTP without encryption, which is what we relay as RTP.
    pub fn is_rtp(&self) -> bool {
        self.proto.eq_ignore_ascii_case("RTP/AVP") || self.proto.eq_ignore_ascii_case("RTP/AVPF")
    }

    /// Whether it is fax over UDP (T.38), which is relayed as it is.
    pub fn is_udptl(&self) -> bool {
        self.kind.eq_ignore_ascii_case("image") && self.proto.eq_ignore_ascii_case("udptl")
    }

    /// Whether it is audio over RTP.
    pub fn is_audio(&self) -> bool {
        self.kind.eq_ignore_ascii_case("audio") && self.is_rtp()
    }

    /// Whether we can relay it: audio and video over plain RTP, and udptl.
    pub fn is_relayable(&self) -> bool {
        self.is_udptl()
            || (self.is_rtp() && (self.kind.eq_ignore_ascii_case("audio") || self.kind.eq_ignore_ascii_case("video")))
    }

    /// The value of the first attribute of that name; empty for a flag.
    pub fn attribute(&self, name: &str) -> Option<&[u8]> {
        attribute(&self.lines, name)
    }

    /// Its own direction, if it has one.
    pub fn direction(&self) -> Option<Direction> {
        direction(&self.lines)
    }

    /// Its own direction from now on.
    pub fn set_direction(&mut self, direction: Direction) {
        self.lines.retain(|line| !is_direction(line));
        self.lines.push(Line::new(b'a', direction.as_str()));
    }

    /// Its own `c=` address.
    pub fn connection(&self) -> Option<IpAddr> {
        connection(&self.lines)
    }

    /// Its RTCP port: that of `a=rtcp`, else the next after its port (RFC 3605).
    pub fn rtcp_port(&self) -> Option<u16> {
        let written = self.attribute("rtcp").and_then(|value| number(value.split(|b| *b == b' ').next()?));
        written.or(self.port.checked_add(1)).filter(|_| self.port != 0)
    }

    /// Its codecs in the order of preference, static payload types filled in. Payload types that nothing explains are left out.
    pub fn codecs(&self) -> Vec<Format> {
        if !self.is_rtp() {
            return Vec::new();
        }
        let payloads = self.formats.iter().filter_map(|text| number::<u8>(text.as_bytes()));
        payloads.filter_map(|payload| self.rtpmap(payload).or_else(|| Format::of_static(payload))).collect()
    }

    /// The `a=fmtp` value of a payload type, without the payload type.
    pub fn fmtp(&self, payload: u8) -> Option<&[u8]> {
        self.lines.iter().find_map(|line| match line.attribute() {
            Some((name, value)) if name.eq_ignore_ascii_case(b"fmtp") => of_payload(value, payload),
            _ => None,
        })
    }

    /// The payload type of RFC 4733 events: that of the 8 kHz clock first, since telephone audio runs on it.
    pub fn event_payload(&self) -> Option<u8> {
        let events = || self.codecs().into_iter().filter(Format::is_event);
        events().find(|format| format.clock == 8000).or_else(|| events().next()).map(|format| format.payload)
    }

    /// The codec in use, if this is an answer: its first that carries sound or pictures.
    pub fn in_use(&self) -> Option<Format> {
        self.codecs().into_iter().find(Format::is_voice).filter(|_| self.port != 0)
    }

    /// Puts formats and their maps in place of those that stand there; `a=fmtp` lines of payload types that are gone go too.
    pub fn set_codecs(&mut self, formats: &[Format]) {
        self.formats = formats.iter().map(|format| format.payload.to_string()).collect();
        self.lines.retain(|line| match line.attribute() {
            Some((name, value)) if name.eq_ignore_ascii_case(b"fmtp") || name.eq_ignore_ascii_case(b"rtcp-fb") => {
                value.starts_with(b"*") || formats.iter().any(|format| of_payload(value, format.payload).is_some())
            }
            Some((name, _)) => !name.eq_ignore_ascii_case(b"rtpmap"),
            None => true,
        });
        let at = self.lines.iter().position(|line| line.kind == b'a').unwrap_or(self.lines.len());
        let maps = formats.iter().map(|format| Line::new(b'a', format.rtpmap()));
        self.lines.splice(at..at, maps);
    }

    /// Gives payload types other numbers: in the list of formats and in every attribute that names them, redundancy
    /// (`fmtp:98 96/96`, RFC 2198) and retransmission (`apt=`, RFC 4588) included. What stands in no pair stays.
    pub fn renumber(&mut self, pairs: &[PtMap]) {
        let new = |text: &[u8]| {
            let payload = number::<u8>(text)?;
            pairs.iter().find(|pair| pair.from == payload && pair.to != payload).map(|pair| pair.to.to_string())
        };
        for format in &mut self.formats {
            if let Some(to) = new(format.as_bytes()) {
                *format = to;
            }
        }
        for line in &mut self.lines {
            let Some((name, value)) = line.attribute() else { continue };
            let is = |one: &str| name.eq_ignore_ascii_case(one.as_bytes());
            if !(is("rtpmap") || is("fmtp") || is("rtcp-fb")) {
                continue;
            }
            let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
            let (payload, rest) = value.split_at(end);
            let mut text = [name, &b":"[..], new(payload).as_deref().map_or(payload, str::as_bytes)].concat();
            if is("fmtp") {
                renumber_fmtp(rest, new, &mut text);
            } else {
                text.extend_from_slice(rest);
            }
            *line = Line::new(b'a', text);
        }
    }

    fn rtpmap(&self, payload: u8) -> Option<Format> {
        self.lines.iter().find_map(|line| match line.attribute() {
            Some((name, value)) if name.eq_ignore_ascii_case(b"rtpmap") => {
                let text = std::str::from_utf8(of_payload(value, payload)?).ok()?.trim();
                let mut parts = text.split('/');
                let name = parts.next().filter(|name| !name.is_empty())?;
                let clock = number(parts.next()?.as_bytes()).filter(|clock| *clock != 0)?;
                let channels = parts.next().map_or(Some(1), |n| number(n.as_bytes())).filter(|n| *n != 0)?;
                Some(Format { payload, name: Cow::Owned(name.to_owned()), clock, channels })
            }
            _ => None,
        })
    }

    fn parse(value: &[u8]) -> Option<Media> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.split_ascii_whitespace();
        let kind = words.next()?.to_owned();
        let (port, count) = match words.next()?.split_once('/') {
            Some((port, count)) => (number(port.as_bytes())?, number(count.as_bytes())?),
            None => (number(text.split_ascii_whitespace().nth(1)?.as_bytes())?, 1),
        };
        let proto = words.next()?.to_owned();
        let formats: Vec<String> = words.map(str::to_owned).take(MAX_FORMATS + 1).collect();
        let media = Media { kind, port, count, proto, formats, lines: Vec::new() };
        let rtp = media.proto.len() >= 4 && media.proto.as_bytes()[..4].eq_ignore_ascii_case(b"RTP/");
        let payload = |text: &String| number::<u8>(text.as_bytes()).is_some_and(|payload| payload <= MAX_PAYLOAD);
        let sound = !media.formats.is_empty() && (!rtp || media.formats.iter().all(payload));
        sound.then_some(media)
    }

    fn print(&self, out: &mut BytesMut) {
        out.put_slice(b"m=");
        out.put_slice(self.kind.as_bytes());
        out.put_slice(format!(" {}", self.port).as_bytes());
        if self.count != 1 {
            out.put_slice(format!("/{}", self.count).as_bytes());
        }
        out.put_u8(b' ');
        out.put_slice(self.proto.as_bytes());
        for format in &self.formats {
            out.put_u8(b' ');
            out.put_slice(format.as_bytes());
        }
        out.put_slice(b"\r\n");
        print_lines(&self.lines, out);
    }
}

/// A whole description.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub struct Session {
    /// The lines before the first `m=` line, in order: `v=` and `o=` stand first.
    pub lines: Vec<Line>,
    /// The streams.
    pub media: Vec<Media>,
}

impl Session {
    /// Reads a description.
    ///
    /// # Errors
    /// What is wrong with it; nothing is guessed.
    pub fn parse(text: &[u8]) -> Result<Session, SdpError> {
        if text.len() > MAX_BYTES {
            return Err(SdpError::TooLarge);
        }
        let end = text.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let whole = Bytes::copy_from_slice(&text[..end]);
        let mut session = Session { lines: Vec::with_capacity(8), media: Vec::new() };
        let mut start = 0;
        let mut count = 0;
        while start < whole.len() {
            let stop = memchr::memchr(b'\n', &whole[start..]).map_or(whole.len(), |at| start + at);
            let bare = if stop > start && stop < whole.len() && whole[stop - 1] == b'\r' { stop - 1 } else { stop };
            count += 1;
            if count > MAX_LINES || bare - start > MAX_LINE {
                return Err(SdpError::TooLarge);
            }
            session.take(whole.slice(start..bare), count)?;
            start = stop + 1;
        }
        match session.lines.len() {
            0 => Err(SdpError::Version),
            1 => Err(SdpError::NoOrigin),
            _ => Ok(session),
        }
    }

    /// The text, every line with CRLF.
    pub fn to_bytes(&self) -> Bytes {
        let length = |lines: &[Line]| lines.iter().map(|line| line.value.len() + 4).sum::<usize>();
        let size =
            length(&self.lines) + self.media.iter().map(|m| length(&m.lines) + 64 + m.formats.len() * 4).sum::<usize>();
        let mut out = BytesMut::with_capacity(size);
        print_lines(&self.lines, &mut out);
        for media in &self.media {
            media.print(&mut out);
        }
        out.freeze()
    }

    /// The whole value of `o=`: user, session id, version, address.
    pub fn origin(&self) -> &[u8] {
        &self.lines[1].value
    }

    /// The session version of `o=` (RFC 3264 8: one more for each change); 0 if it is no number.
    pub fn version(&self) -> u64 {
        self.origin().split(|b| *b == b' ').filter(|word| !word.is_empty()).nth(2).and_then(number).unwrap_or(0)
    }

    /// The value of the first attribute of that name at session level; empty for a flag.
    pub fn attribute(&self, name: &str) -> Option<&[u8]> {
        attribute(&self.lines, name)
    }

    /// The direction of a stream: its own, else the session's, else both ways. `c=0.0.0.0` is not looked at here.
    pub fn direction(&self, stream: usize) -> Direction {
        let own = self.media.get(stream).and_then(Media::direction);
        own.or_else(|| direction(&self.lines)).unwrap_or_default()
    }

    /// Where a stream is to be sent to by its own or the session's `c=`. Nothing for a name, or where there is no `c=`.
    pub fn connection(&self, stream: usize) -> Option<IpAddr> {
        let media = self.media.get(stream)?;
        match media.lines.iter().any(|line| line.kind == b'c') {
            true => media.connection(),
            false => connection(&self.lines),
        }
    }

    /// Address and port of a stream, as a relay needs them: nothing for a stream that is refused or has no address that can be
    /// used; port 0 stands for `c=0.0.0.0` (nothing is to be sent).
    pub fn remote(&self, stream: usize) -> Option<SocketAddr> {
        let media = self.media.get(stream).filter(|media| media.port != 0)?;
        let ip = self.connection(stream).filter(|ip| !ip.is_multicast())?;
        Some(SocketAddr::new(ip, if ip.is_unspecified() { 0 } else { media.port }))
    }

    /// The first audio stream over plain RTP that is not refused.
    pub fn audio(&self) -> Option<usize> {
        self.media.iter().position(|media| media.is_audio() && media.port != 0)
    }

    fn take(&mut self, line: Bytes, number: usize) -> Result<(), SdpError> {
        let bad = SdpError::Line(number);
        if line.len() < 2
            || line[1] != b'='
            || !line[0].is_ascii_lowercase()
            || line.iter().any(|b| matches!(b, 0 | b'\r'))
        {
            return Err(if number == 1 { SdpError::Version } else { bad });
        }
        let (kind, value) = (line[0], line.slice(2..));
        match (number, kind) {
            (1, b'v') if value.trim_ascii() == b"0" => {}
            (1, _) => return Err(SdpError::Version),
            (2, b'o') => origin_is_sound(&value).then_some(()).ok_or(bad)?,
            (2, _) => return Err(SdpError::NoOrigin),
            (_, b'v' | b'o') => return Err(bad),
            (_, b'm') if self.media.len() == MAX_MEDIA => return Err(SdpError::TooLarge),
            (_, b'm') => {
                let media = Media::parse(&value).ok_or(bad)?;
                if media.formats.len() > MAX_FORMATS {
                    return Err(SdpError::TooLarge);
                }
                self.media.push(media);
                return Ok(());
            }
            (_, b'c') => connection_is_sound(&value).then_some(()).ok_or(bad)?,
            _ => {}
        }
        let lines = self.media.last_mut().map_or(&mut self.lines, |media| &mut media.lines);
        lines.push(Line { kind, value });
        Ok(())
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl From<Session> for Vec<u8> {
    fn from(session: Session) -> Vec<u8> {
        session.to_bytes().to_vec()
    }
}

impl TryFrom<Vec<u8>> for Session {
    type Error = SdpError;
    fn try_from(text: Vec<u8>) -> Result<Session, SdpError> {
        Session::parse(&text)
    }
}

/// Whether a line is one of the four directions.
pub(super) fn is_direction(line: &Line) -> bool {
    line.kind == b'a' && Direction::from_attribute(&line.value).is_some()
}

fn attribute<'a>(lines: &'a [Line], wanted: &str) -> Option<&'a [u8]> {
    lines
        .iter()
        .filter_map(Line::attribute)
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()))
        .map(|(_, value)| value)
}

fn direction(lines: &[Line]) -> Option<Direction> {
    lines.iter().filter(|line| line.kind == b'a').find_map(|line| Direction::from_attribute(line.value.trim_ascii()))
}

fn connection(lines: &[Line]) -> Option<IpAddr> {
    let line = lines.iter().find(|line| line.kind == b'c')?;
    let address = words(&line.value).nth(2)?;
    std::str::from_utf8(address).ok()?.split('/').next()?.parse().ok()
}

/// Three words, `IN IP4|IP6 address`; an address of the wrong family or a name that no name can be is refused.
fn connection_is_sound(value: &[u8]) -> bool {
    let mut words = words(value);
    let (Some(net), Some(family), Some(address), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let Ok(address) = std::str::from_utf8(address) else { return false };
    let host = address.split('/').next().unwrap_or("");
    let is_name = || {
        host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')) && host.parse::<Ipv4Addr>().is_err()
    };
    let is_numbers = || host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    net.eq_ignore_ascii_case(b"IN")
        && match (family, host.parse::<IpAddr>()) {
            (b"IP4", Ok(ip)) => ip.is_ipv4(),
            (b"IP6", Ok(ip)) => ip.is_ipv6(),
            (b"IP4" | b"IP6", Err(_)) => !host.is_empty() && is_name() && !is_numbers(),
            _ => false,
        }
}

fn origin_is_sound(value: &[u8]) -> bool {
    let mut words = words(value);
    let digits = |word: &[u8]| word.iter().all(u8::is_ascii_digit);
    let user = words.next().is_some();
    let numbers = words.next().is_some_and(digits) && words.next().is_some_and(digits);
    user && numbers && words.count() == 3
}

fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b' ').filter(|word| !word.is_empty())
}

/// What follows `payload` and a blank.
fn of_payload(value: &[u8], payload: u8) -> Option<&[u8]> {
    let at = value.iter().position(|b| *b == b' ')?;
    (number::<u8>(&value[..at])? == payload).then(|| value[at + 1..].trim_ascii())
}

/// Digits only, no sign, no overflow.
fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn print_lines(lines: &[Line], out: &mut BytesMut) {
    for line in lines {
        out.put_slice(&[line.kind, b'=']);
        out.put_slice(&line.value);
        out.put_slice(b"\r\n");
    }
}

/// The parameters of an `a=fmtp` line with the payload types in them renumbered.
fn renumber_fmtp(rest: &[u8], new: impl Fn(&[u8]) -> Option<String>, out: &mut Vec<u8>) {
    let swap = |part: &[u8], out: &mut Vec<u8>| match new(part) {
        Some(to) => out.extend_from_slice(to.as_bytes()),
        None => out.extend_from_slice(part),
    };
    let words = rest.trim_ascii();
    let red = words.contains(&b'/') && words.iter().all(|b| b.is_ascii_digit() || *b == b'/');
    match memchr::memmem::find(rest, b"apt=") {
        _ if red => {
            out.push(b' ');
            for (i, part) in words.split(|b| *b == b'/').enumerate() {
                if i > 0 {
                    out.push(b'/');
                }
                swap(part, out);
            }
        }
        Some(at) => {
            let (head, tail) = rest.split_at(at + 4);
            let end = tail.iter().position(|b| !b.is_ascii_digit()).unwrap_or(tail.len());
            out.extend_from_slice(head);
            swap(&tail[..end], out);
            out.extend_from_slice(&tail[end..]);
        }
        None => out.extend_from_slice(rest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHONE: &str = "v=0\r\no=- 20518 2 IN IP4 203.0.113.5\r\ns= \r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\na=tool:x\r\nm=audio 49170 RTP/AVP 0 8 \
                         111 101\r\nb=AS:80\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=X-odd \
                         : \u{e9}\r\na=sendrecv\r\nm=video 0 RTP/AVP 31\r\n";

    fn parse(text: &str) -> Session {
        Session::parse(text.as_bytes()).expect("a sound description")
    }

    #[test]
    fn prints_what_it_read() {
        assert_eq!(parse(PHONE).to_string(), PHONE);
        assert_eq!(parse(&PHONE.replace("\r\n", "\n")).to_string(), PHONE);
        assert_eq!(parse(PHONE.trim_end()).to_string(), PHONE);
        assert_eq!(parse(&format!("{PHONE}\r\n\r\n")).to_string(), PHONE);
        let mut latin = PHONE.as_bytes().to_vec();
        latin[39] = 0xe9;
        assert_eq!(Session::parse(&latin).map(|s| s.to_bytes().to_vec()).ok(), Some(latin));
    }

    #[test]
    fn reads_a_phone() {
        let session = parse(PHONE);
        let audio = &session.media[0];
        let names: Vec<_> =
            audio.codecs().iter().map(|f| format!("{} {}/{}/{}", f.payload, f.name, f.clock, f.channels)).collect();
        assert_eq!(names, ["0 PCMU/8000/1", "8 PCMA/8000/1", "111 opus/48000/2", "101 telephone-event/8000/1"]);
        assert_eq!(audio.event_payload(), Some(101));
        assert_eq!(audio.fmtp(111), Some(&b"useinbandfec=1"[..]));
        assert_eq!(audio.in_use(), Some(Format::PCMU));
        assert_eq!(session.remote(0), "203.0.113.5:49170".parse().ok());
        assert_eq!((session.remote(1), session.remote(2)), (None, None));
        assert_eq!((session.version(), session.audio()), (2, Some(0)));
        assert_eq!(
            payloads(&audio.codecs(), &[Format::G722]),
            [(0, Codec::Pcmu), (8, Codec::Pcma), (111, Codec::Unknown), (101, Codec::Event), (9, Codec::G722)]
        );
    }

    #[test]
    fn directions_of_stream_and_session() {
        let head = "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n";
        for (session, media, direction) in [
            ("", "", Direction::SendRecv),
            ("a=sendonly\n", "", Direction::SendOnly),
            ("a=sendonly\n", "a=recvonly\n", Direction::RecvOnly),
            ("", "a=inactive", Direction::Inactive),
            ("", "a=SendOnly", Direction::SendOnly),
        ] {
            let mut read = parse(&format!("{head}{session}m=audio 4000 RTP/AVP 0\n{media}"));
            assert_eq!(read.direction(0), direction, "{session} {media}");
            read.media[0].set_direction(Direction::Inactive);
            assert_eq!(read.direction(0), Direction::Inactive);
            assert_eq!(read.to_string().matches("inactive").count(), 1);
        }
        for d in [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive] {
            assert_eq!(d.reversed().reversed(), d);
            assert_eq!(Direction::of(d.sends(), d.receives()), d);
            assert_eq!(d.and(Direction::SendRecv), d);
        }
    }

    #[test]
    fn refuses_what_would_be_misread() {
        let with = |from: &str, to: &str| PHONE.replacen(from, to, 1);
        let many = |n: usize| format!("{PHONE}{}", "m=audio 9 RTP/AVP 0\r\n".repeat(n));
        for (text, error) in [
            (String::new(), SdpError::Version),
            ("garbage".into(), SdpError::Version),
            ("v=0".into(), SdpError::NoOrigin),
            (with("v=0", "v=1"), SdpError::Version),
            (with("o=- 20518 2 IN IP4 203.0.113.5\r\n", ""), SdpError::NoOrigin),
            (with("o=- 20518 2", "o=- x 2"), SdpError::Line(2)),
            (with("49170", "65536"), SdpError::Line(7)),
            (with("49170", "-1"), SdpError::Line(7)),
            (with("RTP/AVP 0", "RTP/AVP 4294967296"), SdpError::Line(7)),
            (with("RTP/AVP 0", "RTP/AVP 128"), SdpError::Line(7)),
            (with(" 0 8 111 101", ""), SdpError::Line(7)),
            (with("c=IN IP4 203.0.113.5", "c=IN IP4 2001:db8::1"), SdpError::Line(4)),
            (with("c=IN IP4 203.0.113.5", "c=IN IP4 203.0.113.999"), SdpError::Line(4)),
            (with("c=IN IP4 203.0.113.5", "c=IN IP4"), SdpError::Line(4)),
            (with("a=tool:x", "tool:x"), SdpError::Line(6)),
            (with("a=tool:x", "a=to\0ol"), SdpError::Line(6)),
            (with("a=tool:x", ""), SdpError::Line(6)),
            (many(14), SdpError::Line(0)),
            (many(15), SdpError::TooLarge),
            (format!("{PHONE}{}", "a=x\r\n".repeat(MAX_LINES)), SdpError::TooLarge),
            (format!("{PHONE}a={}", "x".repeat(MAX_LINE)), SdpError::TooLarge),
            ("v".repeat(MAX_BYTES + 1), SdpError::TooLarge),
        ] {
            let result = Session::parse(text.as_bytes());
            match error {
                SdpError::Line(0) => assert!(result.is_ok(), "{text}"),
                error => assert_eq!(result.err(), Some(error), "{text}"),
            }
        }
    }

    #[test]
    fn odd_attributes_are_kept_and_not_believed() {
        let text = "v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\nm=audio 5004/2 RTP/AVP 96 97 98 99 0\r\na=rtpmap:96\r\na=rtpmap:97 \
                    x/0\r\na=rtpmap:999 y/8000\r\na=fmtp\r\na=ptime:0\r\na=rtpmap:98 L16/8000/0\r\na=rtcp:99999\r\n";
        let session = parse(text);
        assert_eq!(session.to_string(), text);
        assert_eq!(session.media[0].codecs(), [Format::PCMU]);
        assert_eq!(session.media[0].rtcp_port(), Some(5005));
        assert_eq!(session.remote(0), "[2001:db8::1]:5004".parse().ok());
        let name = parse(&text.replace("IP6 2001:db8::1", "IP4 media.example.com"));
        assert_eq!(name.remote(0), None);
        let group = parse(&text.replace("IP6 2001:db8::1", "IP4 224.2.1.1/127"));
        assert_eq!(group.remote(0), None);
    }

    #[test]
    fn codecs_are_replaced_whole() {
        let mut media = parse(PHONE).media.remove(0);
        media.set_codecs(&[Format::PCMA, Format { payload: 96, ..Format::EVENT }]);
        assert_eq!(media.formats, ["8", "96"]);
        assert_eq!(media.codecs(), [Format::PCMA, Format { payload: 96, ..Format::EVENT }]);
        assert!(media.fmtp(111).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Session::parse(&text);
        }

        #[test]
        fn what_parses_prints_stably(cut in 0usize..330, with in "[ -~\r\n]{0,12}", at in 0usize..330) {
            let mut text = PHONE.as_bytes()[..cut.min(PHONE.len())].to_vec();
            let at = at.min(text.len());
            text.splice(at..at, with.bytes());
            if let Ok(session) = Session::parse(&text) {
                let printed = session.to_bytes();
                let again = Session::parse(&printed).expect("our own text parses");
                prop_assert_eq!(again.to_bytes(), printed);
                for i in 0..session.media.len() {
                    let _ = (session.remote(i), session.direction(i), session.media[i].codecs(), session.media[i].in_use());
                }
            }
        }
    }
}
