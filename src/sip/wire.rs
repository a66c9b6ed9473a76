//! Reading messages from the wire (RFC 3261 section 7 and 18.3): one pass over the head without a copy, then the mandatory headers; and
//! the framing of streams. Bounded by `limits`. Lines end in CRLF and nothing else: two readers of one message must not disagree on it.
//!
//! Not here: whether a request makes sense to us (`door`).

use bytes::{Buf, Bytes, BytesMut};

use super::chars::{self, all, blank, is, skip, trim};
use super::door;
use super::limits;
use super::message::{Drop, Head, Line, Malformed, Message, Refusal, Span};
use super::name::{self, Method, Name};
use super::uri::{self, Place, Via, ViaPlace};

/// Header lines while reading, on the stack.
struct Lines {
    lines: [Line; limits::HEADERS],
    len: usize,
    /// The first line of each name; [`NONE`] where there is none.
    first: [u8; Name::COUNT],
    /// Bits of the names that occur, see [`Name::bit`].
    present: u64,
}

/// No line.
const NONE: u8 = u8::MAX;

impl Lines {
    fn new() -> Lines {
        let nothing = Line { text: Span { at: 0, len: 0 }, value: Span { at: 0, len: 0 }, name: Name::Other, _zero: 0 };
        Lines { lines: [nothing; limits::HEADERS], len: 0, first: [NONE; Name::COUNT], present: 0 }
    }

    fn as_slice(&self) -> &[Line] {
        &self.lines[..self.len]
    }

    fn value(&self, name: Name) -> Option<Span> {
        match self.first[name as usize] {
            NONE => None,
            at => Some(self.lines[usize::from(at)].value),
        }
    }

    /// Adds a line. False: its name has been there before.
    #[inline]
    fn push(&mut self, line: Line) -> bool {
        let first = &mut self.first[line.name as usize];
        let new = *first == NONE;
        if new {
            *first = self.len as u8;
            self.present |= line.name.bit();
        }
        self.lines[self.len] = line;
        self.len += 1;
        new
    }
}

/// A fault: the status and phrase of its answer. The first one counts.
type Fault = (u16, &'static str);

/// What the branch of an RFC 3261 transaction begins with.
const COOKIE: &[u8] = b"z9hG4bK";

/// See [`Message::parse`].
pub(super) fn parse(mut wire: Bytes) -> Result<Message, Malformed> {
    let leading = wire.iter().position(|&c| c != b'\r' && c != b'\n').unwrap_or(wire.len());
    wire.advance(leading);
    if wire.is_empty() {
        return Err(Malformed::dropped(Drop::KeepAlive));
    }
    let mut fault = None;
    if wire.len() > limits::MESSAGE {
        wire.truncate(limits::MESSAGE);
        fault = Some((513, "Message Too Large"));
    }
    let mut lines = Lines::new();
    let mut head = scan(&wire, &mut lines);
    if head.folded {
        wire = join(wire);
        lines = Lines::new();
        head = scan(&wire, &mut lines);
    }
    interpret(wire, head, &lines, fault)
}

/// What one pass over the head has found.
struct Scanned {
    /// The end of the start line.
    start: usize,
    /// Where the body begins.
    body: usize,
    /// There is a folded line, and the pass ended there (with a fault, should it be there after joining).
    folded: bool,
    fault: Option<Fault>,
}

/// Cuts the head into lines and the lines into name and value.
fn scan(buf: &[u8], lines: &mut Lines) -> Scanned {
    let mut fault = None;
    let start = line_end(buf, 0, &mut fault);
    let mut found = Scanned { start, body: buf.len(), folded: false, fault: None };
    let mut at = start + 2;
    loop {
        at = usual(buf, at, lines);
        if at >= buf.len() {
            // No empty line. A datagram that ends with a whole line is complete all the same (RFC 5118 4.10 is sent so).
            if at > buf.len() {
                fault.get_or_insert((400, "Truncated Message"));
            }
            break;
        }
        let end = line_end(buf, at, &mut fault);
        if end == at && end < buf.len() {
            found.body = at + 2;
            break;
        }
        if blank(buf[at]) {
            found.folded = true;
            fault = Some((400, "Folded Start-Line"));
            break;
        }
        if lines.len == limits::HEADERS {
            fault.get_or_insert((400, "Too Many Header Fields"));
            break;
        }
        if let Err(phrase) = header(buf, at, end, lines) {
            fault.get_or_insert((400, phrase));
        }
        at = end + 2;
    }
    found.fault = fault;
    found
}

/// Takes the lines from `at` on that look as nearly all do (a known name, a colon, one space or none, a value, CRLF); gives where the
/// first one begins that does not.
#[inline]
fn usual(buf: &[u8], mut at: usize, lines: &mut Lines) -> usize {
    while let Some((name, len)) = name::prefix(buf, at)
        && name != Name::Other
        && lines.len < limits::HEADERS
    {
        let mut from = at + len + 1;
        if buf.get(from) == Some(&b' ') {
            from += 1;
        }
        // From the line's start, not from the value's: so the processor need not wait for the name before it goes on to the next line.
        let end = chars::control(buf, at);
        let Some(&[last, b'\r', b'\n']) = buf.get(end.wrapping_sub(1)..end + 2) else { break };
        if from > end || last == b' ' || buf[from] == b' ' || (name.is_single() && lines.value(name).is_some()) {
            break;
        }
        let text = Span { at: at as u16, len: len as u16 };
        lines.push(Line { text, value: Span { at: from as u16, len: (end - from) as u16 }, name, _zero: 0 });
        at = end + 2;
    }
    at
}

/// Takes the line from `at` to `end` apart, whatever it looks like.
fn header(buf: &[u8], at: usize, end: usize, lines: &mut Lines) -> Result<(), &'static str> {
    let (name, len, colon) = match name::prefix(buf, at) {
        Some((name, len)) if name != Name::Other => (name, len, at + len),
        _ => {
            let line = &buf[at..end];
            let colon = memchr::memchr(b':', line).ok_or("Header Field without Colon")?;
            let text = trim_end(&line[..colon]);
            let name = Name::from_bytes(text);
            if name == Name::Other && (text.is_empty() || text.len() > limits::NAME || !all(text, chars::TOKEN)) {
                return Err("Bad Header Field Name");
            }
            (name, text.len(), at + colon)
        }
    };
    let (mut from, mut to) = (colon + 1, end);
    // Other control characters are faults already.
    while from < to && buf[from] <= b' ' {
        from += 1;
    }
    while from < to && buf[to - 1] <= b' ' {
        to -= 1;
    }
    if from > to {
        return Err("Header Field without Colon");
    }
    let text = Span { at: at as u16, len: len as u16 };
    let line = Line { text, value: Span { at: from as u16, len: (to - from) as u16 }, name, _zero: 0 };
    if !lines.push(line) && name.is_single() {
        return Err(twice(name));
    }
    Ok(())
}

/// Without spaces and tabs at the end.
fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes
        && blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// The position of the CRLF that ends the line at `from`, or the end of everything. Lone CR and LF, and other control characters that are
/// not escaped in a quoted string (RFC 4475 3.1.1.2), are faults, and part of the line.
#[inline]
fn line_end(buf: &[u8], from: usize, fault: &mut Option<Fault>) -> usize {
    let mut at = from;
    loop {
        at = chars::control(buf, at);
        match buf.get(at) {
            Some(b'\r') if buf.get(at + 1) == Some(&b'\n') => return at,
            None => return at,
            Some(b'\t') => {}
            Some(b'\r' | b'\n') => {
                fault.get_or_insert((400, "Bare CR or LF"));
            }
            Some(_) if at > from && buf[at - 1] == b'\\' => {}
            Some(_) => {
                fault.get_or_insert((400, "Control Character in Header Field"));
            }
        }
        at += 1;
    }
}

/// Replaces the line ends of folded lines by spaces, in place where nobody else holds the buffer.
fn join(wire: Bytes) -> Bytes {
    let mut buf = wire.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let mut at = 0;
    while let Some(n) = memchr::memchr(b'\r', &buf[at..]) {
        at += n;
        if buf.get(at + 1) != Some(&b'\n') {
            at += 1;
            continue;
        }
        match buf.get(at + 2) {
            Some(&c) if blank(c) => {
                buf[at] = b' ';
                buf[at + 1] = b' ';
            }
            Some(b'\r') if buf.get(at + 3) == Some(&b'\n') => break,
            _ => {}
        }
        at += 2;
    }
    buf.freeze()
}

/// The first line.
enum Start {
    Request { method: Span, uri: Span, fault: Option<Fault> },
    Response { status: u16, reason: Span },
    BadResponse,
    NotSip,
}

fn start_line(line: &[u8]) -> Start {
    if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        return status_line(line);
    }
    let n = chars::run(line, chars::TOKEN);
    if n == 0 || n > limits::METHOD || line.get(n) != Some(&b' ') {
        return Start::NotSip;
    }
    let (uri, fault) = match line.strip_suffix(b" SIP/2.0") {
        Some(rest) if rest.len() > n => (&rest[n + 1..], None),
        _ => match version(line, n) {
            Some(found) => found,
            None => return Start::NotSip,
        },
    };
    let fault = if uri.len() > limits::URI { fault.or(Some((414, "Request-URI Too Long"))) } else { fault };
    Start::Request { method: Span { at: 0, len: n as u16 }, uri: Span::within(line, uri), fault }
}

/// The URI of a request line that does not end in our version, and what is wrong with it. None: it is no request line at all.
fn version(line: &[u8], method: usize) -> Option<(&[u8], Option<Fault>)> {
    let trimmed = trim(line);
    let last = memchr::memrchr(b' ', trimmed)?;
    let version = &trimmed[last + 1..];
    if last <= method || version.len() < 4 || !version[..4].eq_ignore_ascii_case(b"SIP/") {
        return None;
    }
    let fault = match &version[4..] {
        b"2.0" if trimmed.len() != line.len() => Some((400, "Blanks in Request-Line")),
        b"2.0" => None,
        _ => Some((505, "Version Not Supported")),
    };
    Some((&line[method + 1..last], fault))
}

fn status_line(line: &[u8]) -> Start {
    if !line[4..].starts_with(b"2.0 ") {
        return Start::BadResponse;
    }
    let code = line.get(8..11).and_then(|c| chars::number(c, 699));
    match (code, line.get(11)) {
        (Some(status @ 100..), None | Some(b' ')) => {
            let reason = line.get(12..).unwrap_or(&line[..0]);
            Start::Response { status: status as u16, reason: Span::within(line, reason) }
        }
        _ => Start::BadResponse,
    }
}

/// Reads what every message must have.
fn interpret(wire: Bytes, head: Scanned, lines: &Lines, fault: Option<Fault>) -> Result<Message, Malformed> {
    let buf: &[u8] = &wire;
    let mut message = Draft { fault, ..Draft::default() };
    match start_line(&buf[..head.start]) {
        Start::NotSip => return Err(Malformed::dropped(Drop::NotSip)),
        Start::BadResponse => return Err(Malformed::dropped(Drop::BadResponse)),
        Start::Response { status, reason } => {
            message.status = status;
            message.uri = reason;
        }
        Start::Request { method, uri, fault } => {
            message.method_text = method;
            message.method = Method::from_bytes(method.of(buf));
            message.uri = uri;
            message.note(fault);
        }
    }
    message.note(head.fault);
    if message.fault.is_none() {
        message.read(buf, lines, head.body);
    }
    if let Some((status, phrase)) = message.fault {
        return Err(malformed(wire, lines.as_slice(), message.status != 0, message.method, (status, phrase)));
    }
    let mut wire = wire;
    if wire.len() > head.body + message.body_len {
        wire.truncate(head.body + message.body_len);
    }
    Ok(Message {
        lines: lines.as_slice().into(),
        present: lines.present,
        uri: message.uri,
        method_text: message.method_text,
        via: message.via,
        via_place: message.via_place,
        branch: message.branch,
        from: message.from,
        from_place: message.from_place,
        from_tag: message.from_tag,
        to: message.to,
        to_place: message.to_place,
        to_tag: message.to_tag,
        call_id: message.call_id,
        seq: message.seq,
        body_at: head.body as u32,
        status: message.status,
        method: message.method,
        wire,
    })
}

/// Drop or answer.
#[cold]
fn malformed(wire: Bytes, lines: &[Line], response: bool, method: Method, (status, phrase): Fault) -> Malformed {
    if response {
        return Malformed::dropped(Drop::BadResponse);
    }
    if method == Method::Ack {
        return Malformed::dropped(Drop::BadAck);
    }
    if !lines.iter().any(|l| l.name == Name::Via) {
        return Malformed::dropped(Drop::NoVia);
    }
    let refusal = if status == 501 { door::not_implemented() } else { Refusal::new(status, phrase) };
    Malformed { drop: None, answer: Some(refusal), head: Some(Box::new(Head { wire, lines: lines.into() })) }
}

/// A message while its mandatory headers are read.
#[derive(Default)]
struct Draft {
    status: u16,
    method: Method,
    method_text: Span,
    uri: Span,
    via: Span,
    via_place: ViaPlace,
    branch: Span,
    from: Span,
    from_place: Place,
    from_tag: Span,
    to: Span,
    to_place: Place,
    to_tag: Span,
    call_id: Span,
    seq: u32,
    body_len: usize,
    fault: Option<Fault>,
}

impl Draft {
    fn note(&mut self, fault: Option<Fault>) {
        if self.fault.is_none() {
            self.fault = fault;
        }
    }

    /// Reads the header lines; leaves the first fault behind.
    fn read(&mut self, buf: &[u8], lines: &Lines, body: usize) {
        if let Err(fault) = self.try_read(buf, lines, body) {
            self.fault = Some(fault);
        }
    }

    fn try_read(&mut self, buf: &[u8], lines: &Lines, body: usize) -> Result<(), Fault> {
        self.via(buf, lines)?;
        self.from = lines.value(Name::From).ok_or((400, "Missing From Header Field"))?;
        (self.from_place, self.from_tag) = address(buf, self.from).ok_or((400, "Bad From Header Field"))?;
        self.to = lines.value(Name::To).ok_or((400, "Missing To Header Field"))?;
        (self.to_place, self.to_tag) = address(buf, self.to).ok_or((400, "Bad To Header Field"))?;
        self.call_id = lines.value(Name::CallId).ok_or((400, "Missing Call-ID Header Field"))?;
        if !identifier(self.call_id.of(buf)) {
            return Err((400, "Bad Call-ID Header Field"));
        }
        self.cseq(buf, lines.value(Name::CSeq).ok_or((400, "Missing CSeq Header Field"))?)?;
        let rest = buf.len() - body;
        self.body_len = rest;
        if let Some(value) = lines.value(Name::ContentLength) {
            let length =
                chars::number(value.of(buf), u64::from(u32::MAX)).ok_or((400, "Bad Content-Length Header Field"))?;
            if length > rest as u64 {
                return Err((400, "Body Shorter than Content-Length"));
            }
            self.body_len = length as usize;
        }
        if self.status == 0 {
            self.request(buf, lines)?;
        }
        Ok(())
    }

    fn via(&mut self, buf: &[u8], lines: &Lines) -> Result<(), Fault> {
        let bad = (400, "Bad Via Header Field");
        let first = lines.first[Name::Via as usize];
        if first == NONE {
            return Err((400, "Missing Via Header Field"));
        }
        let lines = &lines.as_slice()[usize::from(first)..];
        let line = lines[0].value.of(buf);
        // One value fills the line nearly always. No value that holds a comma outside quotes does.
        let (value, (place, branch), mut vias) = match Via::locate(line, b"branch") {
            Ok(found) => (line, found, 1),
            Err(_) => {
                let value = trim(&line[..uri::element_end(line)]);
                (value, Via::locate(value, b"branch").map_err(|_| bad)?, count(line))
            }
        };
        for line in lines[1..].iter().filter(|l| l.name == Name::Via) {
            vias += count(line.value.of(buf));
        }
        if vias > limits::VIAS {
            return Err((400, "Too Many Via Header Fields"));
        }
        self.via = Span::within(buf, value);
        self.via_place = place;
        if let Some(branch) = branch {
            // Nothing behind the cookie: two such transactions could not be told apart (RFC 4475 3.2.1).
            if !short(branch) || branch.eq_ignore_ascii_case(COOKIE) {
                return Err(bad);
            }
            self.branch = Span::within(buf, branch);
        }
        Ok(())
    }

    fn cseq(&mut self, buf: &[u8], value: Span) -> Result<(), Fault> {
        let bad = (400, "Bad CSeq Header Field");
        let text = value.of(buf);
        let digits = text.iter().position(|c| !c.is_ascii_digit()).ok_or(bad)?;
        let at = skip(text, digits);
        let method = &text[at..];
        self.seq = chars::number(&text[..digits], u64::from(limits::CSEQ - 1)).ok_or(bad)? as u32;
        if at == digits || method.is_empty() || method.len() > limits::METHOD || !all(method, chars::TOKEN) {
            return Err(bad);
        }
        if self.status != 0 {
            self.method_text = Span::within(buf, method);
            self.method = Method::from_bytes(method);
        } else if method != self.method_text.of(buf) {
            if self.method == Method::Other {
                return Err((501, "Not Implemented"));
            }
            return Err((400, "CSeq Method Differs from Request"));
        }
        Ok(())
    }

    /// What only requests must have.
    fn request(&mut self, buf: &[u8], lines: &Lines) -> Result<(), Fault> {
        let uri = uri::Parts::of(self.uri.of(buf)).map_err(|_| (400, "Bad Request-URI"))?;
        if uri.headers.is_some() {
            return Err((400, "Headers in Request-URI"));
        }
        if let Some(value) = lines.value(Name::MaxForwards)
            && (value.len == 0 || !value.of(buf).iter().all(u8::is_ascii_digit))
        {
            return Err((400, "Bad Max-Forwards Header Field"));
        }
        let first = usize::from(lines.first[Name::Contact as usize]);
        let mut contacts = 0;
        for line in lines.as_slice().iter().skip(first).filter(|l| l.name == Name::Contact) {
            let value = line.value.of(buf);
            // One address fills the line nearly always. None that holds a comma outside quotes and brackets does.
            let mut good = Place::of(value, b"").is_ok() || (value == b"*" && self.method == Method::Register);
            if !good && uri::element_end(value) < value.len() {
                good = uri::list(value).all(|v| {
                    contacts += 1;
                    contacts <= limits::CONTACTS && Place::of(v, b"").is_ok()
                });
            }
            if !good {
                return Err((400, "Bad Contact Header Field"));
            }
            contacts += 1;
        }
        if contacts > limits::CONTACTS {
            return Err((400, "Too Many Contact Header Fields"));
        }
        Ok(())
    }
}

/// Reads From or To; gives the parts and the tag, empty if there is none. None: it is malformed.
fn address(buf: &[u8], value: Span) -> Option<(Place, Span)> {
    match Place::of(value.of(buf), b"tag").ok()? {
        (place, Some(tag)) => short(tag).then(|| (place, Span::within(buf, tag))),
        (place, None) => Some((place, Span::default())),
    }
}

/// A Call-ID: visible ASCII, not endless.
fn identifier(text: &[u8]) -> bool {
    short(text) && all(text, chars::VISIBLE)
}

/// A tag or branch, which are visible ASCII already: not endless.
fn short(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= limits::IDENTIFIER
}

/// How many values a line has, empty ones included.
#[inline]
fn count(mut value: &[u8]) -> usize {
    let mut n = 1;
    while memchr::memchr(b',', value).is_some() {
        let end = uri::element_end(value);
        if end >= value.len() || n > limits::VIAS {
            break;
        }
        value = &value[end + 1..];
        n += 1;
    }
    n
}

fn twice(name: Name) -> &'static str {
    match name {
        Name::From => "More than One From Header Field",
        Name::To => "More than One To Header Field",
        Name::CallId => "More than One Call-ID Header Field",
        Name::CSeq => "More than One CSeq Header Field",
        Name::MaxForwards => "More than One Max-Forwards Header Field",
        Name::ContentLength => "More than One Content-Length Header Field",
        _ => "More than One Content-Type Header Field",
    }
}

/// Cuts a stream into messages (RFC 3261 18.3): by Content-Length, which is mandatory there. Line ends between messages are keep-alives
/// (RFC 5626 3.5.1). Whatever leaves in doubt where the next message begins is an error after which the stream has to be closed.
/// Only an RFC 2543 request (no cookie in its branch) may come without Content-Length: its body is what has arrived, and nothing behind it
/// is read, since RFC 2543 lets such a body last until the connection closes.
///
/// Holds at most one unfinished message of [`limits::MESSAGE`] bytes beside what was pushed last.
#[derive(Debug, Default)]
pub struct Framer {
    buf: BytesMut,
    /// How far the end of the head was looked for.
    seen: usize,
    /// Head and body of the message at the front, once its head is whole.
    need: Option<usize>,
    /// The message at the front is the last one.
    last: bool,
    /// The start line was looked at.
    started: bool,
    /// Line ends since the last message or ping.
    line_ends: u8,
    ping: bool,
    /// Nothing that comes is read any more.
    ended: bool,
}

/// A stream that cannot be followed any further: send the answer, if there is one, and close.
#[derive(Debug, Clone)]
pub struct FrameError(pub Malformed);

impl Framer {
    /// Takes what was read from the stream. Call [`Framer::next`] until it has no more, before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.ended {
            self.buf.extend_from_slice(bytes);
        }
    }

    /// The next whole message, in memory of its own.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.ended {
            return Ok(None);
        }
        self.step().map_err(|error| {
            self.end();
            FrameError(error)
        })
    }

    /// Whether a ping (two line ends between messages) came since the last call: answer it with one line end.
    pub fn ping(&mut self) -> bool {
        std::mem::take(&mut self.ping)
    }

    /// Whether a message has begun and is not whole: it has to be within a time.
    pub fn is_partial(&self) -> bool {
        !self.buf.is_empty()
    }

    /// Whether the unfinished message's head is whole and only body is missing.
    pub fn is_in_body(&self) -> bool {
        self.need.is_some()
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Whether nothing more will be read from this stream: close it when its transactions are done.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn end(&mut self) {
        self.ended = true;
        self.buf = BytesMut::new();
    }

    fn step(&mut self) -> Result<Option<Bytes>, Malformed> {
        let need = match self.need {
            Some(need) => need,
            None => match self.head()? {
                Some(need) => need,
                None => return Ok(None),
            },
        };
        self.need = Some(need);
        if self.buf.len() < need {
            return Ok(None);
        }
        // A copy of its own: a message that is kept must not keep the read buffer.
        let message = Bytes::copy_from_slice(&self.buf[..need]);
        self.buf.advance(need);
        if self.buf.is_empty() {
            self.buf.clear();
        }
        (self.need, self.seen, self.started, self.line_ends) = (None, 0, false, 0);
        if self.last {
            self.end();
        }
        Ok(Some(message))
    }

    /// Looks for the end of the head; gives the length of the message.
    fn head(&mut self) -> Result<Option<usize>, Malformed> {
        if !self.started {
            self.keep_alives()?;
        }
        if self.buf.is_empty() || self.buf[0] == b'\r' {
            return Ok(None);
        }
        if !self.started {
            if !is(self.buf[0], chars::TOKEN) {
                return Err(Malformed::dropped(Drop::NotSip));
            }
            match memchr::memchr(b'\n', &self.buf) {
                Some(end) => {
                    if let Start::NotSip = start_line(self.buf[..end].strip_suffix(b"\r").unwrap_or(&self.buf[..end])) {
                        return Err(Malformed::dropped(Drop::NotSip));
                    }
                    self.started = true;
                }
                None if self.buf.len() > limits::URI + limits::METHOD + 16 => {
                    return Err(Malformed::dropped(Drop::NotSip));
                }
                None => return Ok(None),
            }
        }
        let from = self.seen.saturating_sub(3);
        let Some(end) = memchr::memmem::find(&self.buf[from..], b"\r\n\r\n").map(|n| from + n + 4) else {
            self.seen = self.buf.len();
            if self.buf.len() >= limits::MESSAGE {
                self.buf.truncate(limits::MESSAGE);
                return Err(broken(&self.buf, (513, "Message Too Large")));
            }
            return Ok(None);
        };
        if end > limits::MESSAGE {
            self.buf.truncate(limits::MESSAGE);
            return Err(broken(&self.buf, (513, "Message Too Large")));
        }
        let body = match body_length(&self.buf[..end]) {
            Ok(Some(length)) => length,
            Ok(None) => {
                self.last = true;
                self.buf.len() - end
            }
            Err(fault) => return Err(broken(&self.buf[..end], fault)),
        };
        match end + body {
            need if need <= limits::MESSAGE => Ok(Some(need)),
            _ => Err(broken(&self.buf[..end], (413, "Request Entity Too Large"))),
        }
    }

    /// Skips line ends in front of a message.
    fn keep_alives(&mut self) -> Result<(), Malformed> {
        let mut at = 0;
        while self.buf[at..].starts_with(b"\r\n") {
            at += 2;
            self.line_ends += 1;
            if self.line_ends == 2 {
                self.ping = true;
                self.line_ends = 0;
            }
        }
        self.buf.advance(at);
        match self.buf[..] {
            [b'\r', c, ..] if c != b'\n' => Err(Malformed::dropped(Drop::NotSip)),
            [b'\n', ..] => Err(Malformed::dropped(Drop::NotSip)),
            _ => Ok(()),
        }
    }
}

/// The one Content-Length of a head on a stream. None: it may be missing.
fn body_length(head: &[u8]) -> Result<Option<usize>, Fault> {
    let mut lines = Lines::new();
    let mut scanned = scan(head, &mut lines);
    let joined;
    let mut buf = head;
    if scanned.folded {
        joined = join(Bytes::copy_from_slice(head));
        buf = &joined;
        lines = Lines::new();
        scanned = scan(buf, &mut lines);
    }
    if let Some(fault) = scanned.fault {
        return Err(fault);
    }
    let Some(value) = lines.value(Name::ContentLength).map(|v| v.of(buf)) else {
        let via = lines.value(Name::Via).map_or(&buf[..0], |v| v.of(buf));
        let top = &via[..uri::element_end(via)];
        let cookie = top.windows(COOKIE.len()).any(|w| w.eq_ignore_ascii_case(COOKIE));
        let request = buf.get(..4).is_some_and(|b| !b.eq_ignore_ascii_case(b"SIP/"));
        return if request && !cookie && !via.is_empty() {
            Ok(None)
        } else {
            Err((400, "Missing Content-Length Header Field"))
        };
    };
    let length = chars::number(value, u64::from(u32::MAX)).ok_or((400, "Bad Content-Length Header Field"))?;
    Ok(Some(length as usize))
}

/// A head after which the stream cannot be followed.
fn broken(head: &[u8], (status, phrase): Fault) -> Malformed {
    let mut wire = Bytes::copy_from_slice(head);
    let mut lines = Lines::new();
    if scan(&wire, &mut lines).folded {
        wire = join(wire);
        lines = Lines::new();
        scan(&wire, &mut lines);
    }
    let line = &wire[..memchr::memmem::find(&wire, b"\r\n").unwrap_or(wire.len())];
    match start_line(line) {
        Start::NotSip => Malformed::dropped(Drop::NotSip),
        Start::BadResponse | Start::Response { .. } => Malformed::dropped(Drop::BadResponse),
        Start::Request { method, .. } => {
            let method = Method::from_bytes(method.of(line));
            malformed(wire, lines.as_slice(), false, method, (status, phrase))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Writer;

    const INVITE: &str = "INVITE sip:+73833000001@pbx.example.com:5060;transport=udp SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.168.1.20:5062;branch=z9hG4bK-a1;rport, SIP/2.0/TCP [2001:db8::1]:5070;branch=z9hG4bKx\r\n\
        f: \"Anna, \\\"A\\\" Ivanova\" <sip:121@pbx.example.com>;tag=88a7s\r\n\
        t: <tel:+7-383-300-00-01>\r\n\
        i: 3848276298220188511@192.168.1.20\r\n\
        CSeq: 314159 INVITE\r\n\
        m: <sip:121@192.168.1.20:5062;transport=udp>;+sip.instance=\"<urn:uuid:0>\"\r\n\
        Max-Forwards: 70\r\n\
        Subject: one\r\n two\r\n\tthree\r\n\
        Allow: INVITE, ACK,BYE\r\n\
        X-Thing: caf\u{e9}\r\n\
        c: application/sdp\r\n\
        l: 4\r\n\r\nv=0\n";

    #[test]
    fn an_invite_is_read() {
        let m = Message::parse(Bytes::from_static(INVITE.as_bytes())).unwrap();
        assert!(m.is_request() && m.method() == Method::Invite && m.method_text() == "INVITE");
        assert_eq!(m.request_uri(), "sip:+73833000001@pbx.example.com:5060;transport=udp");
        let uri = m.uri().unwrap();
        assert_eq!((uri.user, uri.host, uri.port), (Some("+73833000001"), "pbx.example.com", Some(5060)));
        assert_eq!(m.via().host, "192.168.1.20");
        assert_eq!((m.branch(), m.via().rport()), (Some("z9hG4bK-a1"), Some(None)));
        assert_eq!(m.values(Name::Via).count(), 2);
        assert_eq!(m.from().display_text(), "Anna, \"A\" Ivanova");
        assert_eq!((m.from_tag(), m.to_tag()), (Some("88a7s"), None));
        assert!(m.to().uri.is_tel());
        assert_eq!(m.call_id(), "3848276298220188511@192.168.1.20");
        assert_eq!((m.cseq().seq, m.max_forwards()), (314159, Some(70)));
        assert_eq!(m.text(Name::Subject), Some("one   two  \tthree"));
        assert_eq!(m.values(Name::Allow).collect::<Vec<_>>(), ["INVITE", "ACK", "BYE"]);
        assert_eq!(m.unknown("x-thing"), Some("caf\u{e9}".as_bytes()));
        assert_eq!((m.content_type(), m.body()), (Some("application/sdp"), &b"v=0\n"[..]));
        let answer = Writer::answer(&m, "10.0.0.9:40000".parse().unwrap(), 200, "OK", Some("t1")).finish();
        let answer = Message::parse(answer).unwrap();
        assert_eq!((answer.status(), answer.reason(), answer.to_tag()), (200, &b"OK"[..], Some("t1")));
        assert_eq!(answer.via().received(), Some("10.0.0.9".parse().unwrap()));
        assert_eq!(answer.via().rport(), Some(Some(40000)));
        assert_eq!(answer.values(Name::Via).nth(1), Some("SIP/2.0/TCP [2001:db8::1]:5070;branch=z9hG4bKx"));
    }

    const HEAD: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
        Call-ID: c\r\nCSeq: 1 OPTIONS\r\n";

    /// What comes of bytes on a stream: bodies, pings, and the status of the end (0: closed without an answer).
    fn stream(pieces: &[&str]) -> (Vec<String>, usize, Option<u16>) {
        let mut framer = Framer::default();
        let (mut bodies, mut pings) = (Vec::new(), 0);
        for piece in pieces {
            framer.push(piece.as_bytes());
            loop {
                match framer.next() {
                    Ok(Some(m)) => bodies.push(String::from_utf8_lossy(Message::parse(m).unwrap().body()).into_owned()),
                    Ok(None) => break,
                    Err(e) => {
                        assert!(framer.is_ended() && !framer.is_partial() && framer.next().unwrap().is_none());
                        return (bodies, pings, Some(e.0.answer.map_or(0, |a| a.status)));
                    }
                }
            }
            pings += usize::from(framer.ping());
        }
        (bodies, pings, None)
    }

    #[test]
    fn streams_are_framed_or_closed() {
        let with = |lines: &str| format!("{HEAD}{lines}\r\n");
        let ok = with("l: 2\r\n");
        let old = HEAD.replace("z9hG4bK", "");
        type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], usize, Option<u16>);
        let table: &[Row<'_>] = &[
            ("nothing", &[], &[], 0, None),
            ("a ping", &["\r\n\r\n"], &[], 1, None),
            ("a ping in pieces", &["\r", "\n", "\r", "\n"], &[], 1, None),
            ("a line end is no ping", &["\r\n"], &[], 0, None),
            ("two in one", &[&ok, "hi", &ok, "yo"], &["hi", "yo"], 0, None),
            ("a ping before and after", &["\r\n\r\n", &ok, "hi\r\n", "\r\n", &ok, "yo"], &["hi", "yo"], 2, None),
            ("a body in pieces", &[&ok, "h", "i"], &["hi"], 0, None),
            ("unfinished", &[&ok, "h"], &[], 0, None),
            ("a body like a message", &[&with("Content-Length: 25\r\n"), "INVITE sip:a SIP/2.0\r\n\r\n"], &[], 0, None),
            ("a folded length", &[&with("Content-Length:\r\n  2\r\n"), "hi"], &["hi"], 0, None),
            ("leading zeros", &[&with("Content-Length: 0002\r\n"), "hi"], &["hi"], 0, None),
            ("no length", &[&with("")], &[], 0, Some(400)),
            ("no length, RFC 2543", &[&format!("{old}\r\nhi"), &ok, "yo"], &["hi"], 0, None),
            ("two lengths", &[&with("l: 2\r\nContent-Length: 3\r\n"), "hi"], &[], 0, Some(400)),
            ("the same twice", &[&with("l: 2\r\nl: 2\r\n"), "hi"], &[], 0, Some(400)),
            ("a list", &[&with("l: 2, 2\r\n"), "hi"], &[], 0, Some(400)),
            ("2^32 + 32", &[&with("l: 4294967328\r\n")], &[], 0, Some(400)),
            ("2^64 + 2", &[&with("l: 18446744073709551618\r\n"), "hi"], &[], 0, Some(400)),
            ("negative", &[&with("l: -2\r\n"), "hi"], &[], 0, Some(400)),
            ("plus", &[&with("l: +2\r\n"), "hi"], &[], 0, Some(400)),
            ("hexadecimal", &[&with("l: 0x2\r\n"), "hi"], &[], 0, Some(400)),
            ("words", &[&with("l: five\r\n"), "hi"], &[], 0, Some(400)),
            ("empty", &[&with("l:\r\n"), "hi"], &[], 0, Some(400)),
            ("a gigabyte", &[&with("l: 1000000000\r\n")], &[], 0, Some(413)),
            ("a bare LF", &[&with("X: y\nl: 2\r\nl: 2\r\n"), "hi"], &[], 0, Some(400)),
            (
                "a name with a blank in it",
                &[&with("Content-Length : 2\r\nContent Length: 3\r\n"), "hi"],
                &[],
                0,
                Some(400),
            ),
            ("a control character", &[&with("\u{1}l: 3\r\nl: 2\r\n"), "hi"], &[], 0, Some(400)),
            ("HTTP", &["GET / HTTP/1.1\r\n"], &[], 0, Some(0)),
            ("TLS", &["\u{16}\u{3}\u{1}\u{2}"], &[], 0, Some(0)),
            ("LF", &["\n"], &[], 0, Some(0)),
            ("an ACK without length", &[&with("").replace("OPTIONS", "ACK")], &[], 0, Some(0)),
            (
                "a response without length",
                &[&with("").replace("OPTIONS sip:a@b SIP/2.0", "SIP/2.0 200 OK")],
                &[],
                0,
                Some(0),
            ),
            ("no end of line", &[&"A".repeat(limits::URI + limits::METHOD + 17)], &[], 0, Some(0)),
            ("no end of head", &[HEAD, "X: ", &"x".repeat(limits::MESSAGE)], &[], 0, Some(513)),
        ];
        for (what, pieces, bodies, pings, end) in table {
            let (got, p, e) = stream(pieces);
            assert_eq!(
                (got.iter().map(String::as_str).collect::<Vec<_>>(), p, e),
                (bodies.to_vec(), *pings, *end),
                "{what}"
            );
        }
    }

    #[test]
    fn malformed_requests_are_answered_and_others_dropped() {
        let table: &[(&str, &str, Result<u16, Drop>)] = &[
            ("\r\n\r\n", "", Err(Drop::KeepAlive)),
            ("hello\r\n\r\n", "", Err(Drop::NotSip)),
            ("INVITE sip:a SIP/2.0\r\nTo: x\r\n\r\n", "", Err(Drop::NoVia)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS sip:a@b SIP/3.0", Ok(505)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS sip:a@b sip/2.0", Ok(200)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS  sip:a@b SIP/2.0", Ok(400)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS sip:a@b SIP/2.0 ", Ok(400)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS sip:a b SIP/2.0", Ok(400)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS <sip:a@b> SIP/2.0", Ok(400)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS sip:a@b?X=y SIP/2.0", Ok(400)),
            ("", "OPTIONS sip:a@b SIP/2.0|OPTIONS sip:a@b", Err(Drop::NotSip)),
            ("", "OPTIONS sip:a@b SIP/2.0|SIP/2.0 99 x", Err(Drop::BadResponse)),
            ("", "OPTIONS sip:a@b SIP/2.0|SIP/2.0 700 x", Err(Drop::BadResponse)),
            ("", "OPTIONS sip:a@b SIP/2.0|SIP/2.0 2000 x", Err(Drop::BadResponse)),
            ("", "OPTIONS sip:a@b SIP/2.0|SIP/2.1 200 x", Err(Drop::BadResponse)),
            ("", "OPTIONS sip:a@b SIP/2.0|SIP/2.0 200", Ok(200)),
            ("", "OPTIONS sip:a@b SIP/2.0|ACK sip:a@b SIP/2.0", Err(Drop::BadAck)),
            ("", "CSeq: 1 OPTIONS|CSeq: 1 INVITE", Ok(400)),
            ("", "CSeq: 1 OPTIONS|CSeq: 1", Ok(400)),
            ("", "CSeq: 1 OPTIONS|CSeq: 1OPTIONS", Ok(400)),
            ("", "CSeq: 1 OPTIONS|CSeq: 1 OPTIONS x", Ok(400)),
            ("", "CSeq: 1 OPTIONS|CSeq: -1 OPTIONS", Ok(400)),
            ("", "CSeq: 1 OPTIONS|CSeq: 1 \t OPTIONS", Ok(200)),
            ("", "Call-ID: c|Call-ID: c d", Ok(400)),
            ("", "Call-ID: c|Call-ID:", Ok(400)),
            ("", "Call-ID: c|Call-ID: c\r\ni: d", Ok(400)),
            ("", "Call-ID: c|X: c", Ok(400)),
            ("", "Call-ID: c|Call-ID \t : c", Ok(200)),
            ("", "To: <sip:a@b>|To : <sip:a@b>;tag=1;tag=2", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a@b>;tag=", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a@b>;tag", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a@b>;;tag=1", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a@b", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a@b>, <sip:c@d>", Ok(400)),
            ("", "To: <sip:a@b>|To: \"x\\\" <sip:a@b>", Ok(400)),
            ("", "To: <sip:a@b>|To: \"x\\\"\" <sip:a@b>", Ok(200)),
            ("", "To: <sip:a@b>|To: x (y) 'z' +7 <sip:a@b>", Ok(200)),
            ("", "To: <sip:a@b>|To: sip:a@b?x=y", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a@b:99999>", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a@[::1]:5060;x=[y]?z=1>", Ok(200)),
            ("", "To: <sip:a@b>|To: <sip:a@[::1>", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a%4>", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:a%4@b>", Ok(400)),
            ("", "To: <sip:a@b>|To: <sip:#31#%2a12@b>", Ok(200)),
            ("", "To: <sip:a@b>|To: <mailto:a@b>", Ok(200)),
            ("", "Via: SIP/2.0/UDP h;branch=z9hG4bKx|Via: SIP/2.0/UDP h;branch=z9hG4bK", Ok(400)),
            ("", "Via: SIP/2.0/UDP h;branch=z9hG4bKx|Via: SIP/2.0/UDP h;branch=a;branch=b", Ok(400)),
            ("", "Via: SIP/2.0/UDP h;branch=z9hG4bKx|Via: SIP/3.0/UDP h;branch=a", Ok(400)),
            ("", "Via: SIP/2.0/UDP h;branch=z9hG4bKx|Via: SIP/2.0/UDP h:;branch=a", Ok(400)),
            ("", "Via: SIP/2.0/UDP h;branch=z9hG4bKx|Via: SIP/2.0/UDP;branch=a", Ok(400)),
            ("", "Via: SIP/2.0/UDP h;branch=z9hG4bKx|v:SIP / 2.0 / UDP h : 5060 ; branch = a , x", Ok(200)),
            ("", "Max-Forwards: 70|Max-Forwards: 70\r\nMax-Forwards: 70", Ok(400)),
            ("", "Max-Forwards: 70|Max-Forwards: many", Ok(400)),
            ("", "Max-Forwards: 70|Max-Forwards: 256", Ok(200)),
            ("", "Max-Forwards: 70|no colon", Ok(400)),
            ("", "Max-Forwards: 70|: no name", Ok(400)),
            ("", "Max-Forwards: 70|a b: c", Ok(400)),
            ("", "Max-Forwards: 70|X: a\u{0}b", Ok(400)),
            ("", "Max-Forwards: 70|X: a\rb", Ok(400)),
            ("", "Max-Forwards: 70|X: a\nb", Ok(400)),
            ("", "Max-Forwards: 70|X: a\tb", Ok(200)),
            ("", "Max-Forwards: 70|m: <sip:a@b>, *", Ok(400)),
            ("", "Max-Forwards: 70|m: \"a,b\" <sip:a@b;c=d>, sip:e@f", Ok(200)),
            ("", "l: 0|l: 1", Ok(400)),
            ("", "l: 0|l: 0\r\nl: 0", Ok(400)),
            ("", "l: 0|X: y", Ok(200)),
        ];
        let good = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
            Call-ID: c\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nl: 0\r\n\r\n";
        for (whole, change, expected) in table {
            let text = match change.split_once('|') {
                Some((old, new)) => {
                    assert!(good.contains(old), "{old}");
                    good.replacen(old, new, 1)
                }
                None => (*whole).to_owned(),
            };
            let got = match Message::parse(Bytes::from(text.clone())) {
                Ok(_) => Ok(200),
                Err(Malformed { drop: Some(reason), .. }) => Err(reason),
                Err(malformed) => {
                    assert!(malformed.response("10.0.0.1:5060".parse().unwrap()).is_some());
                    Ok(malformed.answer.map_or(0, |a| a.status))
                }
            };
            assert_eq!(got, *expected, "{text:?}");
        }
    }

    #[test]
    fn a_malformed_answer_keeps_what_there_is_and_no_more() {
        let text = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 10.9.9.9;rport;branch=z9hG4bKx;received=1.1.1.1, SIP/2.0/UDP i\r\n\
            f: <sip:a@b>;tag=1\r\nTo: x\ny\r\nTo: z\r\nSubject: secret\r\nCSeq: 1 OPTIONS\r\n\r\n";
        let malformed = Message::parse(Bytes::from(text)).unwrap_err();
        let answer = malformed.response("[::ffff:192.0.2.9]:6000".parse().unwrap()).unwrap();
        assert_eq!(
            std::str::from_utf8(&answer).unwrap(),
            "SIP/2.0 400 Bare CR or LF\r\nVia: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKx;received=192.0.2.9;rport=6000, SIP/2.0/UDP i\r\n\
             From: <sip:a@b>;tag=1\r\nTo: x y\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn folds_are_joined_in_place_and_bodies_left_alone() {
        let text = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n ;branch=z9hG4bKx\r\nFrom: <sip:a@b>\r\n\t;tag=1\r\nTo: <sip:a@b>\r\n\
            Call-ID: c\r\nCSeq: 1\r\n   OPTIONS\r\nSubject:\r\n \r\n\r\n a\r\n b";
        for wire in [Bytes::from(text), Bytes::from_static(text.as_bytes())] {
            let m = Message::parse(wire).unwrap();
            assert_eq!((m.branch(), m.from_tag(), m.cseq().seq), (Some("z9hG4bKx"), Some("1"), 1));
            assert_eq!((m.header(Name::Subject), m.body()), (Some(&b""[..]), &b" a\r\n b"[..]));
        }
        let own = Bytes::from(text.as_bytes().to_vec());
        let at = own.as_ptr();
        assert_eq!(Message::parse(own).unwrap().wire().as_ptr(), at, "no copy where the buffer is ours");
        assert!(Message::parse(Bytes::from(text.replacen("\r\nVia", "\r\n Via", 1))).is_err());
    }
}
