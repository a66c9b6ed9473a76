//! Addresses: URIs (RFC 3261 19.1, tel: RFC 3966), name-addr with its parameters (20.10), Via values (20.42). Views into the message's
//! bytes; nothing is copied, and what cannot be mistaken for structure is tolerated. No comparison rules (the registrar has them).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::chars::{self, all, is, quoted_end, run, skip, trim};
use super::message::Span;
use super::transport::Transport;

/// A value that does not follow its grammar; the text says which part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Bad(pub &'static str);

/// A URI's scheme.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:` (RFC 3966)
    Tel,
    /// Anything else that looks like a scheme.
    Other,
}

/// A URI, checked and taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uri<'a> {
    /// The whole URI as written.
    pub raw: &'a str,
    /// Its scheme.
    pub scheme: Scheme,
    /// The user part, still escaped; of `tel:` the number.
    pub user: Option<&'a str>,
    /// What stands behind the user's colon.
    pub password: Option<&'a str>,
    /// Host name or address, without the brackets of IPv6; empty where the scheme has none.
    pub host: &'a str,
    /// The port, when one is named.
    pub port: Option<u16>,
    /// The URI's own parameters.
    pub params: Params<'a>,
    /// What stands behind `?`, still escaped.
    pub headers: Option<&'a str>,
}

impl<'a> Uri<'a> {
    /// Reads a URI that fills the whole text.
    pub fn parse(raw: &'a str) -> Result<Uri<'a>, Bad> {
        let parts = Parts::of(raw.as_bytes())?;
        let text = |piece: Piece| &raw[piece.0..piece.1];
        Ok(Uri {
            raw,
            scheme: parts.scheme,
            user: parts.user.map(text),
            password: parts.password.map(text),
            host: text(parts.host),
            port: parts.port,
            params: Params(&raw.as_bytes()[parts.params.0..parts.params.1]),
            headers: parts.headers.map(text),
        })
    }

    /// The user part with `%HH` replaced, once; bytes that are no UTF-8 become U+FFFD.
    pub fn user_decoded(&self) -> Cow<'a, str> {
        decode(self.user.unwrap_or(""))
    }

    /// The user part up to its first `;` (a telephone number's parameters stand behind it, RFC 3261 19.1.6), decoded.
    pub fn user_number(&self) -> Cow<'a, str> {
        let user = self.user.unwrap_or("");
        decode(user.split_once(';').map_or(user, |(number, _)| number))
    }

    /// The host when it is an address. `[2001:db8:::192.0.2.1]` counts as one (RFC 5118 4.10).
    pub fn ip(&self) -> Option<IpAddr> {
        address(self.host)
    }

    /// Whether the scheme is `tel:`.
    pub fn is_tel(&self) -> bool {
        self.scheme == Scheme::Tel
    }

    /// Whether the scheme is `sip:` or `sips:`.
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The `transport` parameter, when it is one of ours.
    pub fn transport(&self) -> Option<Transport> {
        Transport::from_token(self.params.get("transport")?)
    }
}

/// From where to where.
type Piece = (usize, usize);

/// Where the parts of a URI stand: the grammar, on bytes. What it accepts is UTF-8.
pub(super) struct Parts {
    scheme: Scheme,
    user: Option<Piece>,
    password: Option<Piece>,
    host: Piece,
    port: Option<u16>,
    params: Piece,
    pub(super) headers: Option<Piece>,
}

impl Parts {
    /// Reads a URI that fills all bytes.
    #[inline]
    pub(super) fn of(b: &[u8]) -> Result<Parts, Bad> {
        match b {
            [b's', b'i', b'p', b':', ..] => Self::hierarchical(b, Scheme::Sip, 4),
            _ => Self::rare(b),
        }
    }

    fn rare(b: &[u8]) -> Result<Parts, Bad> {
        let begins = |scheme: &[u8]| b.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
        match () {
            () if begins(b"sip:") => Self::hierarchical(b, Scheme::Sip, 4),
            () if begins(b"sips:") => Self::hierarchical(b, Scheme::Sips, 5),
            () if begins(b"tel:") => Self::telephone(b),
            () => Self::opaque(b),
        }
    }

    fn hierarchical(b: &[u8], scheme: Scheme, start: usize) -> Result<Parts, Bad> {
        let (mut user, mut password) = (None, None);
        // A user, or else the host and what follows: whatever ends the run tells which.
        let mut at = start + run(&b[start..], chars::USER);
        if b.get(at) == Some(&b'@') && at > start {
            user = Some((start, at));
            at += 1;
        } else if let Some(n) = b.get(at).and_then(|_| memchr::memchr(b'@', &b[at..])) {
            let end = at + n;
            let colon = memchr::memchr(b':', &b[start..end]).map(|n| start + n);
            let name_end = colon.unwrap_or(end);
            if name_end == start || !escaped(&b[start..name_end]) {
                return Err(Bad("user of URI"));
            }
            user = Some((start, name_end));
            if let Some(colon) = colon {
                if !escaped(&b[colon + 1..end]) {
                    return Err(Bad("password of URI"));
                }
                password = Some((colon + 1, end));
            }
            at = end + 1;
        } else {
            at = start;
        }
        let (host, mut at) = host(b, at)?;
        let mut port = None;
        if b.get(at) == Some(&b':') {
            let (number, end) = port_number(b, at + 1).ok_or(Bad("port of URI"))?;
            port = Some(number);
            at = end;
        }
        let mut params = (at, at);
        if b.get(at) == Some(&b';') {
            let end = memchr::memchr(b'?', &b[at..]).map_or(b.len(), |n| at + n);
            uri_params(&b[at..end])?;
            params = (at, end);
            at = end;
        }
        let mut headers = None;
        if b.get(at) == Some(&b'?') {
            if at + 1 == b.len() || !all(&b[at + 1..], chars::PARAM) {
                return Err(Bad("headers of URI"));
            }
            headers = Some((at + 1, b.len()));
            at = b.len();
        }
        if at != b.len() {
            return Err(Bad("host of URI"));
        }
        Ok(Parts { scheme, user, password, host, port, params, headers })
    }

    fn telephone(b: &[u8]) -> Result<Parts, Bad> {
        let end = memchr::memchr(b';', b).unwrap_or(b.len());
        let number = &b[4..end];
        if number.is_empty() || !number.iter().all(|&c| c.is_ascii_hexdigit() || b"+-.()*#".contains(&c)) {
            return Err(Bad("number of tel URI"));
        }
        uri_params(&b[end..])?;
        let user = Some((4, end));
        Ok(Parts {
            scheme: Scheme::Tel,
            user,
            password: None,
            host: (0, 0),
            port: None,
            params: (end, b.len()),
            headers: None,
        })
    }

    fn opaque(b: &[u8]) -> Result<Parts, Bad> {
        let colon = memchr::memchr(b':', b).ok_or(Bad("scheme of URI"))?;
        let scheme = &b[..colon];
        if !scheme.first().is_some_and(u8::is_ascii_alphabetic)
            || !scheme.iter().all(|&c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
        {
            return Err(Bad("scheme of URI"));
        }
        let rest = &b[colon + 1..];
        if rest.is_empty() || !rest.iter().all(|&c| is(c, chars::VISIBLE) && !b"<>\"\\^`{|}".contains(&c)) {
            return Err(Bad("opaque part of URI"));
        }
        let (user, password, host, port) = (None, None, (0, 0), None);
        Ok(Parts { scheme: Scheme::Other, user, password, host, port, params: (0, 0), headers: None })
    }
}

/// Checks a URI's parameters: no blanks, no quotes.
fn uri_params(raw: &[u8]) -> Result<(), Bad> {
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b';' {
            return Err(Bad("parameter of URI"));
        }
        let n = run(&raw[at + 1..], chars::PARAM);
        if n == 0 || raw[at + 1] == b'=' {
            return Err(Bad("parameter of URI"));
        }
        at += 1 + n;
    }
    Ok(())
}

impl std::fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.raw)
    }
}

/// Parameters of a URI, an address or a Via: `;name=value;flag`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    /// Reads `;name=value` pairs of a header (quotes, and blanks around `;` and `=`, are fine) that fill the text.
    pub fn parse(raw: &'a [u8]) -> Result<Params<'a>, Bad> {
        let raw = &raw[skip(raw, 0)..];
        Self::find(raw, b"").map(|_| Params(raw))
    }

    /// Checks parameters that fill the bytes from the first `;` on; gives the value of one of them, which may not occur twice, nor be
    /// quoted, as tags and branches are tokens.
    pub(super) fn find(raw: &'a [u8], wanted: &[u8]) -> Result<Option<&'a [u8]>, Bad> {
        let mut found = None;
        let mut at = 0;
        while at < raw.len() {
            if raw[at] != b';' {
                return Err(Bad("parameter"));
            }
            at = skip(raw, at + 1);
            let name_end = at + run(&raw[at..], chars::TOKEN);
            if name_end == at {
                return Err(Bad("name of parameter"));
            }
            let name = &raw[at..name_end];
            at = skip(raw, name_end);
            let mut value = &raw[..0];
            let mut quoted = false;
            if raw.get(at) == Some(&b'=') {
                at = skip(raw, at + 1);
                if raw.get(at) == Some(&b'"') {
                    let end = quoted_end(raw, at).ok_or(Bad("quotes of parameter"))?;
                    quoted = true;
                    at = end;
                } else {
                    let end = at + run(&raw[at..], chars::VALUE);
                    value = &raw[at..end];
                    at = end;
                }
                at = skip(raw, at);
            }
            if name.len() == wanted.len()
                && name.eq_ignore_ascii_case(wanted)
                && (quoted || found.replace(value).is_some())
            {
                return Err(Bad("parameter is quoted or occurs twice"));
            }
        }
        Ok(found)
    }

    /// The value of a parameter, without its quotes; a flag gives `""`. Names in any case; the first of several.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.bytes()
            .find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .and_then(|(_, v)| std::str::from_utf8(v).ok())
    }

    /// Whether the parameter is there.
    pub fn has(&self, name: &str) -> bool {
        self.bytes().any(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Every parameter that is UTF-8, in order: name as written, value without its quotes.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.bytes().filter_map(|(n, v)| Some((std::str::from_utf8(n).ok()?, std::str::from_utf8(v).ok()?)))
    }

    /// As written, from the first `;` on.
    pub fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> ParamIter<'a> {
        ParamIter { raw: self.0, at: 0 }
    }
}

/// Walks over checked parameters.
#[derive(Clone)]
pub(super) struct ParamIter<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Iterator for ParamIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let raw = self.raw;
        let start = skip(raw, self.at) + 1; // behind the ';'
        if start > raw.len() {
            return None;
        }
        let mut at = start;
        loop {
            match memchr::memchr2(b';', b'"', &raw[at..]) {
                Some(n) if raw[at + n] == b'"' => at = quoted_end(raw, at + n).unwrap_or(raw.len()),
                Some(n) => break at += n,
                None => break at = raw.len(),
            }
        }
        self.at = at;
        let equals = memchr::memchr(b'=', &raw[start..at]).map(|n| start + n);
        let name = trim(&raw[start..equals.unwrap_or(at)]);
        let value = trim(equals.map_or(&raw[..0], |e| &raw[e + 1..at]));
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        Some((name, value))
    }
}

/// An address with or without a display name and angle brackets, and its header parameters (From, To, Contact, Route, ...).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes included; `None` if there is none or it is not UTF-8 (see [`NameAddr::display_text`]).
    pub display: Option<&'a str>,
    /// The display name's bytes as written; may be empty.
    pub display_raw: &'a [u8],
    /// The URI: between the brackets, or up to the first `;`.
    pub uri: Uri<'a>,
    /// The header's parameters.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one address that fills the text.
    pub fn parse(text: &'a str) -> Result<NameAddr<'a>, Bad> {
        Self::parse_bytes(text.as_bytes())
    }

    /// The same from bytes: only the URI has to be UTF-8.
    pub fn parse_bytes(value: &'a [u8]) -> Result<NameAddr<'a>, Bad> {
        let value = trim(value);
        let (place, _) = Place::of(value, b"")?;
        Self::at(value, place)
    }

    /// The view of an address whose place is known.
    pub(super) fn at(value: &'a [u8], place: Place) -> Result<NameAddr<'a>, Bad> {
        let uri = std::str::from_utf8(place.uri.of(value)).map_err(|_| Bad("URI is not UTF-8"))?;
        let display_raw = trim(&value[..usize::from(place.display_end)]);
        Ok(NameAddr {
            display: if display_raw.is_empty() { None } else { std::str::from_utf8(display_raw).ok() },
            display_raw,
            uri: Uri::parse(uri)?,
            params: Params(&value[usize::from(place.params)..]),
        })
    }

    /// The display name for people: quotes and escapes removed, U+FFFD for what is no UTF-8; empty if there is none.
    pub fn display_text(&self) -> Cow<'a, str> {
        match self.display_raw {
            [b'"', inner @ .., b'"'] => {
                let text = String::from_utf8_lossy(inner);
                if text.contains('\\') { Cow::Owned(unescape(&text)) } else { text }
            }
            raw => String::from_utf8_lossy(raw),
        }
    }

    /// The `tag` parameter.
    pub fn tag(&self) -> Option<&'a str> {
        self.params.get("tag").filter(|t| !t.is_empty())
    }
}

/// Where the parts of an address stand in its value, which is no longer than a message.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    display_end: u16,
    pub(super) uri: Span,
    params: u16,
}

impl Place {
    /// Reads one address from trimmed bytes; also gives the value of one of its parameters.
    pub(super) fn of<'a>(value: &'a [u8], wanted: &[u8]) -> Result<(Place, Option<&'a [u8]>), Bad> {
        let open;
        let display_end;
        match value.first() {
            Some(b'<') => (open, display_end) = (0, 0),
            Some(b'"') => {
                display_end = quoted_end(value, 0).ok_or(Bad("quotes of display name"))?;
                open = skip(value, display_end);
                if value.get(open) != Some(&b'<') {
                    return Err(Bad("address behind display name"));
                }
            }
            _ => {
                let n = run(value, chars::DISPLAY);
                match value.get(n) {
                    Some(b'<') => (open, display_end) = (n, n),
                    None | Some(b';') => return Self::bare(value, wanted),
                    Some(_) => return Err(Bad("display name")),
                }
            }
        }
        let close = memchr::memchr(b'>', &value[open..]).ok_or(Bad("brackets of address"))? + open;
        Self::within(value, display_end, (open + 1, close), close + 1, wanted)
    }

    /// An address without brackets: what follows `;` belongs to the header, and `?` and `,` may not occur (RFC 3261 20).
    fn bare<'a>(value: &'a [u8], wanted: &[u8]) -> Result<(Place, Option<&'a [u8]>), Bad> {
        let end = value.iter().position(|&c| c == b';' || chars::blank(c)).unwrap_or(value.len());
        if value[..end].iter().any(|&c| c == b'?' || c == b',') {
            return Err(Bad("address needs brackets"));
        }
        Self::within(value, 0, (0, end), end, wanted)
    }

    fn within<'a>(
        value: &'a [u8],
        display_end: usize,
        uri: Piece,
        params: usize,
        wanted: &[u8],
    ) -> Result<(Place, Option<&'a [u8]>), Bad> {
        Parts::of(&value[uri.0..uri.1])?;
        let params = skip(value, params);
        let found = if params < value.len() { Params::find(&value[params..], wanted)? } else { None };
        // Text that did not come out of a message may be longer.
        if value.len() > usize::from(u16::MAX) {
            return Err(Bad("length of address"));
        }
        let uri = Span { at: uri.0 as u16, len: (uri.1 - uri.0) as u16 };
        Ok((Place { display_end: display_end as u16, uri, params: params as u16 }, found))
    }
}

/// One Via value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via<'a> {
    /// The transport as written: `UDP`, or one that we do not know.
    pub transport: &'a str,
    /// The host of sent-by, without the brackets of IPv6.
    pub host: &'a str,
    /// The port of sent-by, when one is named.
    pub port: Option<u16>,
    /// Its parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one Via value that fills the text.
    pub fn parse(text: &'a str) -> Result<Via<'a>, Bad> {
        Self::parse_bytes(text.as_bytes()).map(|(via, _)| via)
    }

    /// The same from bytes; also gives where the parameters begin.
    pub(super) fn parse_bytes(value: &'a [u8]) -> Result<(Via<'a>, usize), Bad> {
        let (place, _) = Self::locate(value, b"")?;
        Ok((Self::at(value, place)?, usize::from(place.params)))
    }

    /// The view of a value whose place is known.
    pub(super) fn at(value: &'a [u8], place: ViaPlace) -> Result<Via<'a>, Bad> {
        let text = |span: Span| std::str::from_utf8(span.of(value)).map_err(|_| Bad("Via is not UTF-8"));
        let params = Params(&value[usize::from(place.params)..]);
        Ok(Via { transport: text(place.transport)?, host: text(place.host)?, port: place.port, params })
    }

    /// Reads one value; also gives the value of one of its parameters.
    pub(super) fn locate(value: &'a [u8], wanted: &[u8]) -> Result<(ViaPlace, Option<&'a [u8]>), Bad> {
        let start = match value {
            [b'S', b'I', b'P', b'/', b'2', b'.', b'0', b'/', ..] => 8,
            _ => Self::protocol(value).ok_or(Bad("protocol of Via"))?,
        };
        let end = start + run(&value[start..], chars::TOKEN);
        let after = skip(value, end);
        if end == start || after == end {
            return Err(Bad("transport of Via"));
        }
        let (host, mut params) = host(value, after).map_err(|_| Bad("host of Via"))?;
        params = skip(value, params);
        let mut port = None;
        if value.get(params) == Some(&b':') {
            let (number, end) = port_number(value, skip(value, params + 1)).ok_or(Bad("port of Via"))?;
            port = Some(number);
            params = skip(value, end);
        }
        let found = Params::find(&value[params..], wanted)?;
        // Text that did not come out of a message may be longer.
        if value.len() > usize::from(u16::MAX) {
            return Err(Bad("length of Via"));
        }
        let span = |piece: Piece| Span { at: piece.0 as u16, len: (piece.1 - piece.0) as u16 };
        let place = ViaPlace { transport: span((start, end)), host: span(host), port, params: params as u16 };
        Ok((place, found))
    }

    /// `SIP / 2.0 /` in its long-winded spellings; gives where the transport begins.
    fn protocol(value: &[u8]) -> Option<usize> {
        let at = skip(value, 0);
        let name = value.get(at..at + 3)?;
        let slash = skip(value, at + 3);
        let version = skip(value, slash + 1);
        let digits = value.get(version..version + 3)?;
        let second = skip(value, version + 3);
        let good = name.eq_ignore_ascii_case(b"SIP")
            && value.get(slash) == Some(&b'/')
            && digits == b"2.0"
            && value.get(second) == Some(&b'/');
        good.then(|| skip(value, second + 1))
    }

    /// The `branch` parameter.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.get("branch").filter(|b| !b.is_empty())
    }

    /// The `rport` parameter (RFC 3581): `Some(None)` asks for it, `Some(Some(port))` has it filled in.
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.get("rport").map(|p| p.parse().ok())
    }

    /// The `received` parameter, with or without brackets (RFC 5118 4.5).
    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.get("received")?;
        address(text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text))
    }
}

/// Where the parts of a Via value stand, which is no longer than a message.
#[derive(Clone, Copy, Default)]
pub(super) struct ViaPlace {
    transport: Span,
    host: Span,
    port: Option<u16>,
    params: u16,
}

/// Splits a comma list; quotes and angle brackets protect commas. Empty elements are left out.
pub(super) fn list(value: &[u8]) -> List<'_> {
    List { rest: value }
}

/// See [`list`].
#[derive(Clone)]
pub(super) struct List<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for List<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = element_end(self.rest);
            let element = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or(&[]);
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

/// Where the first element of a comma list ends.
#[inline]
pub(super) fn element_end(value: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match memchr::memchr3(b',', b'"', b'<', &value[at..]).map(|n| at + n) {
            None => return value.len(),
            Some(n) if value[n] == b',' => return n,
            Some(n) if value[n] == b'"' => match quoted_end(value, n) {
                Some(end) => at = end,
                None => return value.len(),
            },
            Some(n) => match memchr::memchr(b'>', &value[n..]) {
                Some(end) => at = n + end + 1,
                None => return value.len(),
            },
        }
    }
}

/// A host at `at`: where it stands without brackets, and where what follows it begins.
fn host(b: &[u8], at: usize) -> Result<(Piece, usize), Bad> {
    let rest = b.get(at..).unwrap_or(&[]);
    match rest.first() {
        Some(b'[') => {
            let n = run(&rest[1..], chars::IPV6);
            if !(2..=47).contains(&n) || rest.get(1 + n) != Some(&b']') || !rest[1..1 + n].contains(&b':') {
                return Err(Bad("IPv6 reference"));
            }
            Ok(((at + 1, at + 1 + n), at + n + 2))
        }
        Some(b'.' | b'-') | None => Err(Bad("host")),
        Some(_) => match run(rest, chars::HOST) {
            n @ 1..=255 => Ok(((at, at + n), at + n)),
            _ => Err(Bad("host")),
        },
    }
}

/// A port at `at`, and where what follows it begins.
#[inline]
fn port_number(b: &[u8], at: usize) -> Option<(u16, usize)> {
    let (mut n, mut end) = (0u32, at);
    while let Some(c @ b'0'..=b'9') = b.get(end) {
        n = n * 10 + u32::from(c - b'0');
        end += 1;
        if end - at > 5 {
            return None;
        }
    }
    (end > at && n <= u32::from(u16::MAX)).then_some((n as u16, end))
}

/// Text of an address; an IPv6 address with the three colons of RFC 3261's grammar is one too.
fn address(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let v6 = text.parse::<Ipv6Addr>().or_else(|_| text.replacen(":::", "::", 1).parse()).ok()?;
    Some(IpAddr::V6(v6))
}

/// Whether it is made of `user` characters, `%HH` and UTF-8.
fn escaped(bytes: &[u8]) -> bool {
    let mut at = 0;
    let mut high = false;
    while at < bytes.len() {
        let c = bytes[at];
        if is(c, chars::USER) || c >= 0x80 {
            high |= c >= 0x80;
            at += 1;
        } else if let Some([b'%', a, b]) = bytes.get(at..at + 3)
            && a.is_ascii_hexdigit()
            && b.is_ascii_hexdigit()
        {
            at += 3;
        } else {
            return false;
        }
    }
    !high || std::str::from_utf8(bytes).is_ok()
}

/// Replaces `%HH` once.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let b = text.as_bytes();
    let hex = |c: u8| (c as char).to_digit(16);
    let mut out = Vec::with_capacity(b.len());
    let mut at = 0;
    while at < b.len() {
        if b[at] == b'%'
            && at + 2 < b.len()
            && let (Some(h), Some(l)) = (hex(b[at + 1]), hex(b[at + 2]))
        {
            out.push((h * 16 + l) as u8);
            at += 3;
        } else {
            out.push(b[at]);
            at += 1;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// Removes the backslashes of quoted pairs.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}
