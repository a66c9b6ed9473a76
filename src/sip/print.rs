//! Writing messages (RFC 3261 section 7). Whatever a value holds, it stays within its line: control characters become spaces on the way.
//! One allocation a message, of its exact length.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::chars;
use super::limits;
use super::message::{Line, Message, Refusal};
use super::name::Name;
use super::transport::{Flow, Transport};
use super::uri::{self, Via};

thread_local! {
    /// The room that messages are written in before they are copied at their exact length. Nothing survives in it.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A message being written, head first.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn new() -> Writer {
        let mut out = ROOM.take();
        out.clear();
        if out.capacity() == 0 {
            out.reserve(2048);
        }
        Writer { out }
    }

    /// Begins a request.
    pub fn request(method: &str, uri: &str) -> Writer {
        let mut w = Writer::new();
        w.clean(method.as_bytes());
        w.out.push(b' ');
        w.clean(uri.as_bytes());
        w.out.extend_from_slice(b" SIP/2.0\r\n");
        w
    }

    /// Begins a response. A status outside 100 to 699 becomes 500.
    pub fn response(status: u16, phrase: &str) -> Writer {
        let mut w = Writer::new();
        let status = if (100..700).contains(&status) { status } else { 500 };
        w.out.extend_from_slice(b"SIP/2.0 ");
        w.out.extend([b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8, b' ']);
        w.clean(phrase.as_bytes());
        w.out.extend_from_slice(b"\r\n");
        w
    }

    /// Begins the answer to a request: every Via (the top one completed with `received` and `rport`, RFC 3261 18.2.1, RFC 3581), From, To
    /// (with `to_tag` if it has none), Call-ID, CSeq, Timestamp. Record-Route is for the caller to [`Writer::copy`].
    pub fn answer(req: &Message, remote: SocketAddr, status: u16, phrase: &str, to_tag: Option<&str>) -> Writer {
        let mut w = Writer::response(status, phrase);
        let mut top = true;
        for line in req.lines.iter() {
            let value = line.value.of(&req.wire);
            match line.name {
                Name::Via if top => {
                    w.name(Name::Via);
                    w.seen_via(value, req.via.of(&req.wire), &req.via(), remote);
                    top = false;
                }
                Name::To => {
                    w.line(&req.wire, line);
                    if let Some(tag) = to_tag
                        && req.to_tag.len == 0
                    {
                        w.out.truncate(w.out.len() - 2);
                        w.out.extend_from_slice(b";tag=");
                        w.clean(tag.as_bytes());
                        w.out.extend_from_slice(b"\r\n");
                    }
                }
                Name::Via | Name::From | Name::CallId | Name::CSeq | Name::Timestamp => w.line(&req.wire, line),
                _ => {}
            }
        }
        w
    }

    /// The answer that a refusal asks for, whole.
    pub fn refuse(req: &Message, remote: SocketAddr, refusal: &Refusal, to_tag: Option<&str>) -> Writer {
        let mut w = Writer::answer(req, remote, refusal.status, refusal.phrase, to_tag);
        for (name, value) in &refusal.headers {
            w.header(*name, value);
        }
        w
    }

    /// Adds a header. For names without an enum value there is [`Writer::named`].
    pub fn header(&mut self, name: Name, value: impl AsRef<[u8]>) -> &mut Self {
        self.name(name);
        self.clean(value.as_ref());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a header that has no enum name. What is no token in the name is left out of it; nothing left, nothing added.
    pub fn named(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let before = self.out.len();
        self.out.extend(name.bytes().filter(|&c| chars::is(c, chars::TOKEN)));
        if self.out.len() > before {
            self.out.extend_from_slice(b": ");
            self.clean(value.as_ref());
            self.out.extend_from_slice(b"\r\n");
        }
        self
    }

    /// Adds a formatted header.
    pub fn fmt(&mut self, name: Name, value: fmt::Arguments<'_>) -> &mut Self {
        self.name(name);
        // Cannot fail: the sink takes everything.
        let _ = Clean(self).write_fmt(value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a header whose value is made of these pieces.
    pub fn parts(&mut self, name: Name, pieces: &[&str]) -> &mut Self {
        self.name(name);
        for piece in pieces {
            self.clean(piece.as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a CSeq.
    pub fn cseq(&mut self, seq: u32, method: &str) -> &mut Self {
        self.name(Name::CSeq);
        self.decimal(u64::from(seq));
        self.out.push(b' ');
        self.clean(method.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a header with a number.
    pub fn number(&mut self, name: Name, value: impl Into<u64>) -> &mut Self {
        self.name(name);
        self.decimal(value.into());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Copies all lines of a header.
    pub fn copy(&mut self, from: &Message, name: Name) -> &mut Self {
        if from.present & name.bit() != 0 {
            for line in from.lines.iter().filter(|l| l.name == name) {
                self.line(&from.wire, line);
            }
        }
        self
    }

    /// Copies every line that `take` wants (name, name as written, value).
    pub fn copy_where(&mut self, from: &Message, mut take: impl FnMut(Name, &[u8], &[u8]) -> bool) -> &mut Self {
        let wire: &[u8] = &from.wire;
        // Neighbours that can be copied as they stand are copied together.
        let (mut start, mut end) = (0, 0);
        for line in from.lines.iter() {
            if !take(line.name, line.text.of(wire), line.value.of(wire)) {
                continue;
            }
            match line.whole(wire) {
                Some((from, to)) if from == end => end = to,
                Some(piece) => {
                    self.out.extend_from_slice(&wire[start..end]);
                    (start, end) = piece;
                }
                None => {
                    self.out.extend_from_slice(&wire[start..end]);
                    (start, end) = (0, 0);
                    self.line(wire, line);
                }
            }
        }
        self.out.extend_from_slice(&wire[start..end]);
        self
    }

    /// Adds the Via of a request of ours: the path's transport and our address of it.
    pub fn via(&mut self, flow: &Flow, branch: &str) -> &mut Self {
        self.name(Name::Via);
        self.out.extend_from_slice(b"SIP/2.0/");
        self.out.extend_from_slice(flow.transport.via_token().as_bytes());
        self.out.push(b' ');
        self.socket(flow.local);
        self.out.extend_from_slice(b";branch=");
        self.clean(branch.as_bytes());
        self.out.extend_from_slice(b";rport\r\n");
        self
    }

    /// Adds our Contact on a path.
    pub fn contact(&mut self, flow: &Flow) -> &mut Self {
        self.name(Name::Contact);
        self.out.extend_from_slice(b"<sip:");
        self.socket(flow.local);
        if flow.transport != Transport::Udp {
            self.out.extend_from_slice(b";transport=");
            self.out.extend_from_slice(flow.transport.param().as_bytes());
        }
        self.out.extend_from_slice(b">\r\n");
        self
    }

    /// Ends the message without a body.
    pub fn finish(mut self) -> Bytes {
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.done()
    }

    /// Ends the message with a body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Bytes {
        self.header(Name::ContentType, content_type);
        self.number(Name::ContentLength, body.len() as u64);
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body);
        self.done()
    }

    fn done(self) -> Bytes {
        let bytes = Bytes::copy_from_slice(&self.out);
        if self.out.capacity() <= limits::MESSAGE {
            ROOM.set(self.out);
        }
        bytes
    }

    #[inline]
    fn name(&mut self, name: Name) {
        name.start(&mut self.out);
    }

    /// A line of a parsed message: line ends cannot be in its value, and escaped control characters are its own (RFC 4475 3.1.1.2).
    /// As it stands, unless its name is compact or oddly spaced.
    #[inline]
    fn line(&mut self, wire: &[u8], line: &Line) {
        if let Some((start, end)) = line.whole(wire) {
            self.out.extend_from_slice(&wire[start..end]);
            return;
        }
        match line.name {
            Name::Other => self.out.extend_from_slice(line.text.of(wire)),
            name => self.out.extend_from_slice(name.as_str().as_bytes()),
        }
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(line.value.of(wire));
        self.out.extend_from_slice(b"\r\n");
    }

    /// The one encoder: nothing in a value can end its line.
    #[inline]
    fn clean(&mut self, value: &[u8]) {
        if chars::tame(value) {
            self.out.extend_from_slice(value);
        } else {
            self.out.extend(value.iter().map(|&c| if c < b' ' && c != b'\t' { b' ' } else { c }));
        }
    }

    fn socket(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(_) => self.ip(address.ip()),
            SocketAddr::V6(_) => {
                self.out.push(b'[');
                self.ip(address.ip());
                self.out.push(b']');
            }
        }
        self.out.push(b':');
        self.decimal(u64::from(address.port()));
    }

    fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                let mut text = [0u8; 16];
                let mut len = 0;
                let mut put = |c: u8| {
                    text[len] = c;
                    len += 1;
                };
                for octet in ip.octets() {
                    if octet >= 100 {
                        put(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        put(b'0' + octet / 10 % 10);
                    }
                    put(b'0' + octet % 10);
                    put(b'.');
                }
                self.out.extend_from_slice(&text[..len - 1]);
            }
            // Rare enough for the general formatter. Cannot fail: the sink takes everything.
            IpAddr::V6(ip) => drop(write!(Clean(self), "{ip}")),
        }
    }

    fn decimal(&mut self, mut n: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }

    /// The first Via line of an answer. What the sender claims in `received` and `rport` is replaced by what we see.
    fn top_via(&mut self, line: &[u8], remote: SocketAddr) {
        self.name(Name::Via);
        let value = chars::trim(&line[..uri::element_end(line)]);
        match Via::parse_bytes(value) {
            Ok((via, _)) => self.seen_via(line, value, &via, remote),
            Err(_) => {
                self.clean(line);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The same of a Via that is known, whose `value` is the first (or only) one of its line; behind the name.
    fn seen_via(&mut self, line: &[u8], value: &[u8], via: &Via<'_>, remote: SocketAddr) {
        let ip = remote.ip().to_canonical();
        let is = |name: &[u8], what: &str| name.eq_ignore_ascii_case(what.as_bytes());
        let (mut asked, mut told) = (false, false);
        for (name, _) in via.params.bytes() {
            asked |= is(name, "rport");
            told |= is(name, "received");
        }
        let received = asked || via.host.parse::<IpAddr>().map(|h| h.to_canonical()) != Ok(ip);
        if received || told {
            self.out.extend_from_slice(chars::trim(&value[..value.len() - via.params.raw().len()]));
            for (name, text) in via.params.bytes() {
                if is(name, "received") || is(name, "rport") {
                    continue;
                }
                self.out.push(b';');
                // The whole of it as written, quotes included: from the name's start to the value's end.
                let from = name.as_ptr() as usize - value.as_ptr() as usize;
                let to = if text.is_empty() {
                    from + name.len()
                } else {
                    let to = text.as_ptr() as usize - value.as_ptr() as usize + text.len();
                    if value.get(to) == Some(&b'"') { to + 1 } else { to }
                };
                self.clean(&value[from..to]);
            }
            if received {
                self.out.extend_from_slice(b";received=");
                self.ip(ip);
            }
            if asked {
                self.out.extend_from_slice(b";rport=");
                self.decimal(u64::from(remote.port()));
            }
            // Whatever stands behind it in its line.
            let end = value.as_ptr() as usize + value.len() - line.as_ptr() as usize;
            self.clean(&line[chars::skip(line, end)..]);
        } else {
            self.clean(line);
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

impl Line {
    /// From where to where the whole line stands as we would write it ourselves, but for the case of its name; None if its name is compact
    /// or it is oddly spaced.
    #[inline]
    fn whole(&self, wire: &[u8]) -> Option<(usize, usize)> {
        let name_end = usize::from(self.text.at) + usize::from(self.text.len);
        let value = usize::from(self.value.at);
        let end = value + usize::from(self.value.len);
        let plain = self.text.len > 1
            && value == name_end + 2
            && wire[name_end] == b':'
            && wire.get(end..end + 2) == Some(b"\r\n");
        plain.then_some((usize::from(self.text.at), end + 2))
    }
}

/// The one encoder for formatted text.
struct Clean<'a>(&'a mut Writer);

impl fmt::Write for Clean<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.clean(text.as_bytes());
        Ok(())
    }
}

/// The stateless answer to a request that could not be read: what there is of Via, From, To, Call-ID and CSeq (the first of each).
pub(super) fn malformed(wire: &[u8], lines: &[Line], refusal: &Refusal, remote: SocketAddr) -> Bytes {
    let mut w = Writer::response(refusal.status, refusal.phrase);
    let mut top = true;
    for line in lines.iter().filter(|l| l.name == Name::Via).take(limits::VIAS) {
        if top {
            w.top_via(line.value.of(wire), remote);
        } else {
            w.header(Name::Via, line.value.of(wire));
        }
        top = false;
    }
    for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
        if let Some(line) = lines.iter().find(|l| l.name == name) {
            w.header(name, line.value.of(wire));
        }
    }
    for (name, value) in &refusal.headers {
        w.header(*name, value);
    }
    w.finish()
}

/// A display name or any text as a quoted string; what may not stand in one is left out.
pub fn quote(display: &str) -> String {
    let mut out = String::with_capacity(display.len() + 2);
    out.push('"');
    for c in display.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The usual reason phrase of a status (RFC 3261 section 21 and the IANA registry).
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity-Info",
        437 => "Unsupported Certificate",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => match status / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirect",
            4 => "Client Error",
            5 => "Server Error",
            _ => "Failure",
        },
    }
}
