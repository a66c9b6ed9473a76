//! SIP messages as text, read and written from RFC 3261 section 7 by hand and slowly. Strict: what this reader refuses is
//! a fault of the sender. It does not fold, since nobody who writes messages today may (section 7.3.1 calls it bad form).

use std::net::SocketAddr;

/// A message with every header line kept in order under its long name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Msg {
    /// The first line.
    pub first: First,
    /// Name and value of each line.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// A first line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum First {
    /// Request-Line.
    Request {
        /// Method.
        method: String,
        /// Request-URI.
        uri: String,
    },
    /// Status-Line.
    Response {
        /// Status code.
        code: u16,
        /// Reason phrase.
        phrase: String,
    },
}

/// RFC 3261 section 7.3.3, RFC 4028, RFC 3515, RFC 6665.
const COMPACT: [(&str, &str); 15] = [
    ("i", "Call-ID"),
    ("m", "Contact"),
    ("e", "Content-Encoding"),
    ("l", "Content-Length"),
    ("c", "Content-Type"),
    ("f", "From"),
    ("s", "Subject"),
    ("k", "Supported"),
    ("t", "To"),
    ("v", "Via"),
    ("x", "Session-Expires"),
    ("r", "Refer-To"),
    ("o", "Event"),
    ("b", "Referred-By"),
    ("u", "Allow-Events"),
];

impl Msg {
    /// A request without headers.
    pub fn request(method: &str, uri: &str) -> Msg {
        Msg { first: First::Request { method: method.into(), uri: uri.into() }, headers: Vec::new(), body: Vec::new() }
    }

    /// The beginning of a response (section 8.2.6.2): Via, From, To, Call-ID and CSeq of the request, and Record-Route
    /// (section 12.1.1), which only a dialog-forming response needs but none is hurt by.
    pub fn response(to: &Msg, code: u16, phrase: &str, tag: Option<&str>) -> Msg {
        let mut msg =
            Msg { first: First::Response { code, phrase: phrase.into() }, headers: Vec::new(), body: Vec::new() };
        for (name, value) in &to.headers {
            match name.as_str() {
                "Via" | "From" | "Call-ID" | "CSeq" | "Record-Route" => msg.headers.push((name.clone(), value.clone())),
                "To" => {
                    let mut value = value.clone();
                    if let (None, Some(tag)) = (param(&value, "tag"), tag) {
                        value.push_str(";tag=");
                        value.push_str(tag);
                    }
                    msg.headers.push((name.clone(), value));
                }
                _ => {}
            }
        }
        msg
    }

    /// Adds a line.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Msg {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn with_body(mut self, kind: &str, body: Vec<u8>) -> Msg {
        self.headers.push(("Content-Type".into(), kind.into()));
        self.body = body;
        self
    }

    /// Reads one whole datagram or frame.
    pub fn read(bytes: &[u8]) -> Result<Msg, String> {
        let end = find(bytes, b"\r\n\r\n").ok_or("no empty line after the headers")?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "headers are not UTF-8")?;
        let body = &bytes[end + 4..];
        if head.replace("\r\n", "").contains(['\r', '\n', '\0']) {
            return Err("a bare CR, LF or NUL in the headers".into());
        }
        let mut lines = head.split("\r\n");
        let first = first_line(lines.next().unwrap_or_default())?;
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
            let name = name.trim_end();
            if name.is_empty() || name.contains(|c: char| !(c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c))) {
                return Err(format!("header name {name:?}"));
            }
            headers.push((long(name), value.trim().to_owned()));
        }
        let mut msg = Msg { first, headers, body: body.to_vec() };
        if let Some(length) = msg.get("Content-Length") {
            let length: usize = length.parse().map_err(|_| format!("Content-Length {length:?}"))?;
            if length > msg.body.len() {
                return Err(format!("Content-Length {length}, but only {} bytes of body", msg.body.len()));
            }
            msg.body.truncate(length);
        }
        for name in ["From", "To", "Call-ID", "CSeq"] {
            match msg.headers.iter().filter(|(n, _)| n == name).count() {
                1 => {}
                n => return Err(format!("{n} times {name}")),
            }
        }
        if msg.get("Via").is_none() {
            return Err("no Via".into());
        }
        let (_, cseq) = msg.cseq_checked()?;
        if let First::Request { method, .. } = &msg.first
            && *method != cseq
        {
            return Err(format!("CSeq of {cseq} in {method}"));
        }
        Ok(msg)
    }

    /// As it goes on the wire; Content-Length is ours.
    pub fn write(&self) -> Vec<u8> {
        let mut out = match &self.first {
            First::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n"),
            First::Response { code, phrase } => format!("SIP/2.0 {code} {phrase}\r\n"),
        };
        for (name, value) in self.headers.iter().filter(|(n, _)| n != "Content-Length") {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out
    }

    /// What an honest, modern element leaves out or writes wrongly (sections 8.1.1, 20, table 2 and 3); for messages that
    /// the core wrote.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut need = |name: &str, when: bool| {
            if when && self.get(name).is_none() {
                faults.push(format!("{} without {name}", self.label()));
            }
        };
        let (method, code) = (self.method(), self.code());
        need("Content-Length", true);
        match code {
            None => {
                need("Max-Forwards", true);
                need("Contact", matches!(method, "INVITE" | "UPDATE" | "REFER" | "SUBSCRIBE"));
            }
            Some(code) => {
                need("Contact", method == "INVITE" && (200..300).contains(&code));
                need("WWW-Authenticate", code == 401);
                need("Proxy-Authenticate", code == 407);
                need("Unsupported", code == 420);
                need("Min-SE", code == 422);
                need("Allow", code == 405);
            }
        }
        need("Content-Type", !self.body.is_empty());
        let branch = self.branch().unwrap_or_default();
        if code.is_none() && !branch.starts_with("z9hG4bK") {
            faults.push(format!("{} with branch {branch:?}", self.label()));
        }
        if let Some(code) = code
            && code > 100
            && self.tag("To").is_none()
            && method != "CANCEL"
        {
            faults.push(format!("{} without a tag in To", self.label()));
        }
        if self.tag("From").is_none() {
            faults.push(format!("{} without a tag in From", self.label()));
        }
        faults
    }

    /// First line with that name, whole.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Replaces every line of that name by one (or by none).
    pub fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        if let Some(value) = value {
            self.headers.push((name.into(), value));
        }
    }

    /// Every value of a header whose values may stand in a comma list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        lines.flat_map(|(_, v)| split_list(v)).collect()
    }

    /// Method of the request, or of the request that this answers.
    pub fn method(&self) -> &str {
        match &self.first {
            First::Request { method, .. } => method,
            First::Response { .. } => self.get("CSeq").and_then(|c| c.split_whitespace().nth(1)).unwrap_or(""),
        }
    }

    /// Status code of a response.
    pub fn code(&self) -> Option<u16> {
        match &self.first {
            First::Request { .. } => None,
            First::Response { code, .. } => Some(*code),
        }
    }

    /// Request-URI, empty in a response.
    pub fn uri(&self) -> &str {
        match &self.first {
            First::Request { uri, .. } => uri,
            First::Response { .. } => "",
        }
    }

    /// `INVITE`, `200 (INVITE)`.
    pub fn label(&self) -> String {
        match &self.first {
            First::Request { method, .. } => method.clone(),
            First::Response { code, .. } => format!("{code} ({})", self.method()),
        }
    }

    /// Branch of the top Via.
    pub fn branch(&self) -> Option<&str> {
        self.list("Via").first().and_then(|v| param(v, "branch"))
    }

    /// Sent-by of the top Via.
    pub fn sent_by(&self) -> &str {
        let via = self.list("Via").first().copied().unwrap_or("");
        via.split_whitespace().nth(1).unwrap_or("").split(';').next().unwrap_or("")
    }

    /// Call-ID.
    pub fn call_id(&self) -> &str {
        self.get("Call-ID").unwrap_or("")
    }

    /// CSeq number.
    pub fn cseq(&self) -> u32 {
        self.cseq_checked().map(|c| c.0).unwrap_or(0)
    }

    /// Tag of From or To.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| param(v, "tag"))
    }

    fn cseq_checked(&self) -> Result<(u32, String), String> {
        let text = self.get("CSeq").unwrap_or("");
        let mut words = text.split_whitespace();
        let number = words.next().and_then(|n| n.parse().ok());
        match (number, words.next(), words.next()) {
            (Some(number), Some(method), None) => Ok((number, method.to_owned())),
            _ => Err(format!("CSeq {text:?}")),
        }
    }
}

/// A parameter behind the address of a name-addr, addr-spec or Via value; `""` for a flag.
pub fn param<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let tail = match value.rfind('>') {
        Some(i) => &value[i + 1..],
        None => value,
    };
    tail.split(';').skip(1).find_map(|p| {
        let (n, v) = p.split_once('=').unwrap_or((p, ""));
        n.trim().eq_ignore_ascii_case(name).then(|| v.trim().trim_matches('"'))
    })
}

/// The URI of a name-addr or addr-spec.
pub fn uri_of(value: &str) -> &str {
    match (value.find('<'), value.rfind('>')) {
        (Some(a), Some(b)) if a < b => &value[a + 1..b],
        _ => value.split(';').next().unwrap_or("").trim(),
    }
}

/// User part of a URI.
pub fn user_of(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or("", |(_, rest)| rest);
    rest.split_once('@').map_or("", |(user, _)| user.split([';', ':']).next().unwrap_or(""))
}

/// Address of a URI whose host is an IP literal.
pub fn address_of(uri: &str) -> Option<SocketAddr> {
    let rest = uri.split_once(':')?.1;
    let host = rest.split_once('@').map_or(rest, |(_, host)| host).split([';', '?']).next()?;
    match host.parse() {
        Ok(address) => Some(address),
        Err(_) => Some(SocketAddr::new(host.trim_matches(['[', ']']).parse().ok()?, 5060)),
    }
}

/// Splits a comma list; commas in quotes and in `<>` do not count.
pub fn split_list(value: &str) -> Vec<&str> {
    let (mut quoted, mut angle, mut start, mut parts) = (false, false, 0, Vec::new());
    for (i, c) in value.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            ',' if !quoted && !angle => {
                parts.push(value[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(value[start..].trim());
    parts
}

/// The customary phrase of a status.
pub fn phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        183 => "Session Progress",
        200 => "OK",
        302 => "Moved Temporarily",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        422 => "Session Interval Too Small",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        600 => "Busy Everywhere",
        603 => "Decline",
        _ => "Whatever",
    }
}

fn first_line(line: &str) -> Result<First, String> {
    if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
        let (code, phrase) = rest.split_once(' ').ok_or_else(|| format!("status line {line:?}"))?;
        let code =
            code.parse().ok().filter(|c| (100..700).contains(c)).ok_or_else(|| format!("status line {line:?}"))?;
        return Ok(First::Response { code, phrase: phrase.into() });
    }
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(uri), Some("SIP/2.0"), None) if !method.is_empty() && uri.contains(':') => {
            Ok(First::Request { method: method.into(), uri: uri.into() })
        }
        _ => Err(format!("request line {line:?}")),
    }
}

fn long(name: &str) -> String {
    const KNOWN: [&str; 14] = [
        "Via",
        "From",
        "To",
        "Call-ID",
        "CSeq",
        "Contact",
        "Record-Route",
        "Route",
        "Max-Forwards",
        "Content-Length",
        "Content-Type",
        "Expires",
        "WWW-Authenticate",
        "Proxy-Authenticate",
    ];
    let compact = COMPACT.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map(|(_, long)| *long);
    let known = || KNOWN.iter().find(|known| known.eq_ignore_ascii_case(name)).copied();
    compact.or_else(known).unwrap_or(name).to_owned()
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let msg = Msg::request("OPTIONS", "sip:121@office.example")
            .with("Via", "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx;rport")
            .with("From", "\"A, B\" <sip:1@a>;tag=7")
            .with("To", "<sip:121@office.example>")
            .with("Call-ID", "c1")
            .with("CSeq", "1 OPTIONS")
            .with_body("text/plain", b"hello".to_vec());
        let read = Msg::read(&msg.write()).expect("our own message");
        assert_eq!((read.branch(), read.tag("From"), read.cseq()), (Some("z9hG4bKx"), Some("7"), 1));
        assert_eq!(read.list("From").len(), 1);
        assert_eq!(read.body, b"hello");
        assert_eq!(read.sent_by(), "10.0.0.1:5060");
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (uri, user, address) in [
            ("sip:121@10.0.0.1:5070;transport=tcp", "121", Some("10.0.0.1:5070")),
            ("sip:10.0.0.1", "", Some("10.0.0.1:5060")),
            ("sip:+7913@[2001:db8::1]:5060", "+7913", Some("[2001:db8::1]:5060")),
            ("sip:121@office.example", "121", None),
        ] {
            assert_eq!(user_of(uri), user, "{uri}");
            assert_eq!(address_of(uri).map(|a| a.to_string()).as_deref(), address, "{uri}");
        }
    }
}
