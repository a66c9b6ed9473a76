//! A parsed message: the bytes as they came and an index of their header lines. Views are made when asked for. No writing (see `print`).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::chars;
use super::name::{Method, Name};
use super::print;
use super::uri::{self, Bad, NameAddr, Place, Uri, Via, ViaPlace};
use super::wire;

/// A request or a response that the parser has accepted. Cheap to clone: two reference counts.
///
/// Via, From, To, Call-ID and CSeq are there, once, and well-formed, so their views cannot fail.
#[derive(Clone)]
pub struct Message {
    pub(super) wire: Bytes,
    pub(super) lines: Arc<[Line]>,
    /// Bits of the names that occur, see [`Name::bit`].
    pub(super) present: u64,
    pub(super) uri: Span,
    pub(super) method_text: Span,
    /// The first Via value (not line).
    pub(super) via: Span,
    pub(super) via_place: ViaPlace,
    /// Empty: there is none; so with the tags.
    pub(super) branch: Span,
    pub(super) from: Span,
    pub(super) from_place: Place,
    pub(super) from_tag: Span,
    pub(super) to: Span,
    pub(super) to_place: Place,
    pub(super) to_tag: Span,
    pub(super) call_id: Span,
    pub(super) seq: u32,
    pub(super) body_at: u32,
    /// 0 of a request.
    pub(super) status: u16,
    pub(super) method: Method,
}

/// A piece of the message: 16 bits suffice because of [`super::limits::MESSAGE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Span {
    pub(super) at: u16,
    pub(super) len: u16,
}

impl Span {
    #[inline]
    pub(super) fn of(self, wire: &[u8]) -> &[u8] {
        &wire[self.at as usize..self.at as usize + self.len as usize]
    }

    /// The span of a piece that was cut from `whole`.
    #[inline]
    pub(super) fn within(whole: &[u8], piece: &[u8]) -> Span {
        let at = piece.as_ptr() as usize - whole.as_ptr() as usize;
        Span { at: at as u16, len: piece.len() as u16 }
    }
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// The name as written.
    pub(super) text: Span,
    /// The value, trimmed.
    pub(super) value: Span,
    pub(super) name: Name,
    /// Padding by name, so that an empty index is nothing but zeros.
    pub(super) _zero: u8,
}

/// A CSeq header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CSeq {
    /// Below 2^31.
    pub seq: u32,
    /// Its method.
    pub method: Method,
}

impl Message {
    /// Reads one whole message: a datagram, or one frame of a stream. Folded lines are joined (their line ends become spaces);
    /// everything else keeps its bytes. Octets behind the body of a datagram are cut off.
    #[allow(clippy::result_large_err)]
    pub fn parse(wire: Bytes) -> Result<Message, Malformed> {
        wire::parse(wire)
    }

    /// Whether it is a request.
    #[inline]
    pub fn is_request(&self) -> bool {
        self.status == 0
    }

    /// The method of a request; of a response its CSeq's.
    #[inline]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as written.
    pub fn method_text(&self) -> &str {
        self.str(self.method_text)
    }

    /// The request URI as written; empty of a response.
    pub fn request_uri(&self) -> &str {
        if self.is_request() { self.str(self.uri) } else { "" }
    }

    /// The request URI; the parser has checked it, so only a response has none.
    pub fn uri(&self) -> Result<Uri<'_>, Bad> {
        Uri::parse(self.request_uri())
    }

    /// The status of a response, 100 to 699; 0 of a request.
    #[inline]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase of a response; empty of a request.
    pub fn reason(&self) -> &[u8] {
        if self.is_request() {
            return b"";
        }
        self.uri.of(&self.wire)
    }

    /// The first line's whole value, trimmed.
    #[inline]
    pub fn header(&self, name: Name) -> Option<&[u8]> {
        if self.present & name.bit() == 0 {
            return None;
        }
        self.lines.iter().find(|l| l.name == name).map(|l| l.value.of(&self.wire))
    }

    /// The first line's whole value when it is UTF-8.
    pub fn text(&self, name: Name) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// Whether the header occurs.
    pub fn has(&self, name: Name) -> bool {
        self.header(name).is_some()
    }

    /// Every line's whole value, in order.
    pub fn lines(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |l| l.name == name).map(|l| l.value.of(&self.wire))
    }

    /// Every value, comma lists split (quotes and angle brackets protect commas), those that are UTF-8.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &str> {
        self.raw_values(name).filter_map(|v| std::str::from_utf8(v).ok())
    }

    /// Every value, comma lists split, as bytes.
    pub fn raw_values(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.lines(name).flat_map(uri::list)
    }

    /// Every address of a header such as Contact, Route, P-Asserted-Identity.
    pub fn addresses(&self, name: Name) -> impl Iterator<Item = Result<NameAddr<'_>, Bad>> {
        self.raw_values(name).map(NameAddr::parse_bytes)
    }

    /// Whether a comma list of tokens (Require, Supported, Allow) has this one, in any case.
    pub fn lists(&self, name: Name, token: &str) -> bool {
        self.raw_values(name).any(|v| v.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The first value of a header that has no enum name.
    pub fn unknown(&self, name: &str) -> Option<&[u8]> {
        self.lines
            .iter()
            .find(|l| l.name == Name::Other && l.text.of(&self.wire).eq_ignore_ascii_case(name.as_bytes()))
            .map(|l| l.value.of(&self.wire))
    }

    /// Every line in order: name, name as written, value.
    pub fn all(&self) -> impl Iterator<Item = (Name, &[u8], &[u8])> {
        self.lines.iter().map(|l| (l.name, l.text.of(&self.wire), l.value.of(&self.wire)))
    }

    /// The topmost Via value.
    pub fn via(&self) -> Via<'_> {
        Via::at(self.via.of(&self.wire), self.via_place).expect("the parser has read it")
    }

    /// The branch of the topmost Via.
    pub fn branch(&self) -> Option<&str> {
        self.optional(self.branch)
    }

    /// The Call-ID.
    pub fn call_id(&self) -> &str {
        self.str(self.call_id)
    }

    /// The CSeq.
    pub fn cseq(&self) -> CSeq {
        CSeq { seq: self.seq, method: self.method }
    }

    /// The From address.
    pub fn from(&self) -> NameAddr<'_> {
        NameAddr::at(self.from.of(&self.wire), self.from_place).expect("the parser has read it")
    }

    /// The URI of From as written, without reading it again.
    pub fn from_uri(&self) -> &str {
        std::str::from_utf8(self.from_place.uri.of(self.from.of(&self.wire))).expect("the parser has checked it")
    }

    /// The URI of To as written, without reading it again.
    pub fn to_uri(&self) -> &str {
        std::str::from_utf8(self.to_place.uri.of(self.to.of(&self.wire))).expect("the parser has checked it")
    }

    /// The To address.
    pub fn to(&self) -> NameAddr<'_> {
        NameAddr::at(self.to.of(&self.wire), self.to_place).expect("the parser has read it")
    }

    /// The tag of From; only RFC 2543 requests have none.
    pub fn from_tag(&self) -> Option<&str> {
        self.optional(self.from_tag)
    }

    /// The tag of To.
    pub fn to_tag(&self) -> Option<&str> {
        self.optional(self.to_tag)
    }

    /// The first Contact that is an address.
    pub fn contact(&self) -> Option<NameAddr<'_>> {
        if self.present & Name::Contact.bit() == 0 {
            return None;
        }
        NameAddr::parse_bytes(self.raw_values(Name::Contact).next()?).ok()
    }

    /// The body, byte-exact.
    pub fn body(&self) -> &[u8] {
        &self.wire[self.body_at as usize..]
    }

    /// The body as a slice of the message that shares its memory.
    pub fn body_bytes(&self) -> Bytes {
        self.wire.slice(self.body_at as usize..)
    }

    /// The body's type and subtype without parameters.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.text(Name::ContentType)?;
        Some(value.split_once(';').map_or(value, |(t, _)| t).trim_end())
    }

    /// Max-Forwards; `None` if absent or beyond 255.
    pub fn max_forwards(&self) -> Option<u8> {
        chars::number(self.header(Name::MaxForwards)?, 255).map(|n| n as u8)
    }

    /// A header that is one number of seconds (Expires, Min-Expires, Min-SE); parameters are ignored, too much is the maximum.
    pub fn seconds(&self, name: Name) -> Option<u32> {
        let value = self.header(name)?;
        let digits = &value[..value.iter().position(|c| !c.is_ascii_digit()).unwrap_or(value.len())];
        match digits {
            [] => None,
            _ => Some(chars::number(digits, u64::from(u32::MAX)).map_or(u32::MAX, |n| n as u32)),
        }
    }

    /// The message's bytes, folded lines joined.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    #[inline]
    fn optional(&self, span: Span) -> Option<&str> {
        (span.len > 0).then(|| self.str(span))
    }

    #[inline]
    fn str(&self, span: Span) -> &str {
        std::str::from_utf8(span.of(&self.wire)).expect("the parser has checked that it is ASCII or UTF-8")
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.wire))
    }
}

/// Why a message was dropped without an answer. To be counted by [`Drop::as_str`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Drop {
    /// Nothing but line ends (RFC 5626 4.4.1): no fault at all.
    KeepAlive,
    /// The first line is neither a request line nor a status line of SIP.
    NotSip,
    /// A response that cannot be read.
    BadResponse,
    /// An ACK that cannot be read: it is never answered.
    BadAck,
    /// A request that cannot be read and has no Via to be answered by.
    NoVia,
}

impl Drop {
    /// All reasons.
    pub const ALL: [Drop; 5] = [Drop::KeepAlive, Drop::NotSip, Drop::BadResponse, Drop::BadAck, Drop::NoVia];

    /// A label for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Drop::KeepAlive => "keep_alive",
            Drop::NotSip => "not_sip",
            Drop::BadResponse => "bad_response",
            Drop::BadAck => "bad_ack",
            Drop::NoVia => "no_via",
        }
    }
}

/// A final answer to a request that goes no further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// 400 to 699.
    pub status: u16,
    /// The reason phrase; says what was wrong.
    pub phrase: &'static str,
    /// What has to stand in the answer (Allow, Unsupported, Accept, ...).
    pub headers: Vec<(Name, String)>,
}

impl Refusal {
    /// A refusal without headers of its own.
    pub fn new(status: u16, phrase: &'static str) -> Refusal {
        Refusal { status, phrase, headers: Vec::new() }
    }

    /// A refusal with the usual phrase.
    pub fn status(status: u16) -> Refusal {
        Refusal::new(status, print::phrase(status))
    }

    /// Adds a header.
    pub fn with(mut self, name: Name, value: impl Into<String>) -> Refusal {
        self.headers.push((name, value.into()));
        self
    }
}

/// A message that the parser did not accept: dropped, or answered.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// Set when it is dropped.
    pub drop: Option<Drop>,
    /// Set when it can be answered.
    pub answer: Option<Refusal>,
    pub(super) head: Option<Box<Head>>,
}

/// What an answer to a malformed request is made of.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) wire: Bytes,
    pub(super) lines: Box<[Line]>,
}

impl Malformed {
    pub(super) fn dropped(reason: Drop) -> Malformed {
        Malformed { drop: Some(reason), answer: None, head: None }
    }

    /// What arrived, of a message that can be answered.
    pub fn wire(&self) -> Option<&[u8]> {
        self.head.as_ref().map(|head| &*head.wire)
    }

    /// The stateless answer, to be sent to where the message came from (its Via is not to be trusted). None for what is dropped:
    /// responses and ACK are never answered.
    pub fn response(&self, remote: SocketAddr) -> Option<Bytes> {
        let (refusal, head) = (self.answer.as_ref()?, self.head.as_ref()?);
        Some(print::malformed(&head.wire, &head.lines, refusal, remote))
    }
}
