//! The small languages inside the configuration's strings: durations, sizes, hours, addresses, patterns. Pure functions; an
//! error says what is wrong, in words that end the sentence "`…` …".

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::directory::calendar::Span;
use crate::directory::{Cidr, Country, E164, Region};

/// What is wrong with a value, in words.
pub type Wrong = String;

/// Longest duration that makes sense anywhere here.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);
/// Minutes of a day.
const DAY: u16 = 1440;

/// `"300ms"`, `"30s"`, `"1h30m"`, `"180d"`; a bare `0`.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || "is not a duration".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let millis: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "" => return Err("has no unit".to_owned()),
            unit => return Err(format!("has the unit `{unit}`, which is none")),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(millis).map(Duration::from_millis);
        total =
            part.and_then(|p| total.checked_add(p)).filter(|t| *t <= MAX_DURATION).ok_or("is longer than a century")?;
    }
    Ok(total)
}

/// `"512KiB"`, `"64MiB"`, `"1GiB"`, `"1GB"`, `"0"`.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| "is not a size".to_owned())?;
    let factor: u64 = match &text[digits..] {
        "" if number == 0 => 1,
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "" => return Err("has no unit".to_owned()),
        unit => return Err(format!("has the unit `{unit}`, which is none")),
    };
    number.checked_mul(factor).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(|| "is too large".to_owned())
}

/// An IANA zone.
pub fn zone(text: &str) -> Result<jiff::tz::TimeZone, Wrong> {
    jiff::tz::TimeZone::get(text).map_err(|_| "is not a time zone".to_owned())
}

/// ISO 3166-1, two capital letters.
pub fn country(text: &str) -> Result<(), Wrong> {
    Country::parse(text).map(drop).ok_or_else(|| "is not a country of two capital letters".to_owned())
}

/// ISO 3166-2, e.g. `RU-SVE`, or a country.
pub fn region(text: &str) -> Result<(), Wrong> {
    Region::parse(text).map(drop).ok_or_else(|| "is not a region by ISO 3166-2".to_owned())
}

/// E.164 with its plus.
pub fn e164(text: &str) -> Result<E164, Wrong> {
    let number = E164::from_str(text).map_err(|_| "is not a telephone number in E.164 form".to_owned())?;
    // No door would ever read it as the same number.
    let zone_7 = text.starts_with("+7");
    if zone_7 && text.len() != "+73433000001".len() {
        Err("has not ten digits behind +7".to_owned())
    } else {
        Ok(number)
    }
}

/// `127.0.0.1:5060`, `[::1]:5060`.
pub fn address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err("has port 0".to_owned()) } else { Ok(address) };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("has no port".to_owned());
    }
    Err("is not an IP address with a port".to_owned())
}

/// A bare IP address.
pub fn ip(text: &str) -> Result<IpAddr, Wrong> {
    text.parse().map_err(|_| "is not an IP address".to_owned())
}

/// `192.0.2.0/24`, `2001:db8::/32`, or one address.
pub fn cidr(text: &str) -> Result<Cidr, Wrong> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| "is not a block of IP addresses".to_owned())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => match prefix.parse::<u8>() {
            Ok(n) if n <= most => n,
            _ => return Err(format!("has a prefix that is not 0 to {most}")),
        },
        None => most,
    };
    Ok(Cidr { address, prefix })
}

/// Name of a host: letters, digits, hyphens and dots (RFC 1123), at most 253 characters.
pub fn host(text: &str) -> Result<(), Wrong> {
    let label = |l: &str| {
        let inside = !l.is_empty() && l.len() <= 63 && !l.starts_with('-') && !l.ends_with('-');
        inside && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = text.len() <= 253 && name.split('.').all(label);
    // 1.2.3 and 300.1.1.1 look like addresses and are none.
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.parse::<IpAddr>().is_err();
    if fits && !numeric { Ok(()) } else { Err("is not a host name or an IP address".to_owned()) }
}

/// The parts of a URI that matter here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SipUri {
    /// Host without brackets.
    pub host: String,
    /// Port, if there is one.
    pub port: Option<u16>,
    /// The transport parameter, if there is one, in small letters.
    pub transport: Option<String>,
    /// `sips`.
    pub secure: bool,
}

/// `sip:host[:port][;transport=tcp]`.
pub fn sip_uri(text: &str) -> Result<SipUri, Wrong> {
    let (scheme, rest) = text.split_once(':').ok_or("is not a SIP URI")?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "sip" => false,
        "sips" => true,
        _ => return Err("is not a SIP URI".to_owned()),
    };
    let mut parts = rest.split(';');
    let hostport = parts.next().unwrap_or_default();
    if hostport.contains('@') {
        return Err("has a user part, which belongs into `username`".to_owned());
    }
    if rest.bytes().any(|b| b.is_ascii_whitespace() || b == b'<' || b == b'>' || b == b'"' || b == b'?') {
        return Err("has characters that do not belong there".to_owned());
    }
    let (name, port) = split_port(hostport)?;
    let mut transport = None;
    for parameter in parts {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if key.eq_ignore_ascii_case("transport") {
            let value = value.to_ascii_lowercase();
            if !["udp", "tcp", "tls", "ws", "wss"].contains(&value.as_str()) {
                return Err(format!("has the transport `{value}`, which is none"));
            }
            transport = Some(value);
        }
    }
    Ok(SipUri { host: name, port, transport, secure })
}

/// `http://host[:port]/…` or `https://…`.
pub fn http_url(text: &str) -> Result<(), Wrong> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or("is not an http:// or https:// URL")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("has a user part, which is not allowed".to_owned());
    }
    if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err("has spaces in it".to_owned());
    }
    split_port(authority).map(|_| ())
}

fn split_port(text: &str) -> Result<(String, Option<u16>), Wrong> {
    let port = |p: &str| match p.parse::<u16>() {
        Ok(n) if n > 0 && p.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
        _ => Err(format!("has the port `{p}`, which is none")),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or("has a bracket that is not closed")?;
        inside.parse::<std::net::Ipv6Addr>().map_err(|_| "has no IPv6 address in its brackets".to_owned())?;
        return match after.strip_prefix(':') {
            Some(p) => Ok((inside.to_owned(), Some(port(p)?))),
            None if after.is_empty() => Ok((inside.to_owned(), None)),
            None => Err("has something behind its bracket".to_owned()),
        };
    }
    match text.split_once(':') {
        Some((_, p)) if p.contains(':') => Err("has an IPv6 address without brackets".to_owned()),
        Some((name, p)) => host(name).and_then(|()| Ok((name.to_owned(), Some(port(p)?)))),
        None => host(text).map(|()| (text.to_owned(), None)),
    }
}

/// `20000-29999`.
pub fn ports(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let (first, last) = text.split_once('-').ok_or("is not a range of ports")?;
    let number = |t: &str| t.trim().parse::<u16>().map_err(|_| "is not a range of ports".to_owned());
    let (first, last) = (number(first)?, number(last)?);
    if first < 1024 {
        return Err("begins below port 1024".to_owned());
    }
    if last <= first {
        return Err("ends before it begins".to_owned());
    }
    Ok(first..=last)
}

/// Numbers that a range of dialled numbers may have at most.
const MAX_PARK: u32 = 100;

/// `751-759`, or one number.
pub fn park(text: &str) -> Result<RangeInclusive<u32>, Wrong> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |t: &str| (1..=6).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) || first.len() != last.len() || first.starts_with('0') {
        return Err("is not a range of numbers to dial".to_owned());
    }
    let (a, b) = (first.parse::<u32>().unwrap_or(0), last.parse::<u32>().unwrap_or(0));
    if b < a {
        return Err("ends before it begins".to_owned());
    }
    if b - a >= MAX_PARK {
        return Err(format!("has more than {MAX_PARK} places"));
    }
    Ok(a..=b)
}

/// An extension's number, which is also its SIP user.
pub fn extension(text: &str) -> Result<(), Wrong> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if text.is_empty() || text.len() > 32 {
        return Err("is not 1 to 32 characters long".to_owned());
    }
    if !text.bytes().all(allowed) {
        return Err("has other characters than digits, letters, `_`, `-` and `.`".to_owned());
    }
    Ok(())
}

/// A name that targets, records and files may use.
pub fn name(text: &str) -> Result<(), Wrong> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().count() > 100 {
        return Err("is longer than 100 characters".to_owned());
    }
    if text.trim() != text {
        return Err("begins or ends with a space".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters".to_owned());
    }
    Ok(())
}

/// Text for people.
pub fn words(text: &str) -> Result<(), Wrong> {
    if text.chars().any(char::is_control) {
        return Err("has control characters".to_owned());
    }
    if text.chars().count() > 500 {
        return Err("is longer than 500 characters".to_owned());
    }
    Ok(())
}

/// A pattern of outside numbers: digits, `+`, `*`, `#`, `X`, a final `.`.
pub fn pattern(text: &str) -> Result<(), Wrong> {
    let body = text.strip_suffix('.').unwrap_or(text);
    let good = |(i, b): (usize, u8)| b.is_ascii_digit() || matches!(b, b'X' | b'*' | b'#') || (b == b'+' && i == 0);
    if body.is_empty() || text.len() > 40 || !body.bytes().enumerate().all(good) {
        return Err("is not a pattern of numbers".to_owned());
    }
    Ok(())
}

/// How E.164 numbers begin.
pub fn prefix(text: &str) -> Result<crate::directory::Prefix, Wrong> {
    text.parse().map_err(|_| "is not the beginning of E.164 numbers".to_owned())
}

/// What is dialled: digits, `*`, `#`.
pub fn code(text: &str) -> Result<(), Wrong> {
    let good = |b: u8| b.is_ascii_digit() || matches!(b, b'*' | b'#');
    if text.is_empty() || text.len() > 10 || !text.bytes().all(good) {
        return Err("cannot be dialled".to_owned());
    }
    Ok(())
}

/// A caller in `when`: E.164, or its beginning with `*`.
pub fn caller(text: &str) -> Result<(), Wrong> {
    let wrong = || "is not a number in E.164 form, nor the beginning of one with `*`".to_owned();
    match text.strip_suffix('*') {
        Some(head) => {
            let digits = head.strip_prefix('+').ok_or_else(wrong)?;
            if digits.len() > 15 || !digits.bytes().all(|b| b.is_ascii_digit()) { Err(wrong()) } else { Ok(()) }
        }
        None => e164(text).map(|_| ()).map_err(|_| wrong()),
    }
}

/// `2026-12-31`.
pub fn date(text: &str) -> Result<jiff::civil::Date, Wrong> {
    let shaped = text.len() == 10;
    text.parse().ok().filter(|_| shaped).ok_or_else(|| "is not a date".to_owned())
}

/// `2026-11-21T00:00`, in the zone of what it stands in.
pub fn instant(text: &str) -> Result<jiff::civil::DateTime, Wrong> {
    let shaped = text.len() >= 16 && text.as_bytes()[10] == b'T' && !text.contains(['Z', '+', '[']);
    text.parse().ok().filter(|_| shaped).ok_or_else(|| "is not a local date and time".to_owned())
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Days of a week, Monday first.
pub type Days = [bool; 7];

/// `mon-fri 09:00-18:00`, `sat,sun 10:00-14:00`, `daily 00:00-24:00`, `mon-fri 09:00-13:00,14:00-18:00`, `fri 22:00-06:00`.
pub fn hours(text: &str) -> Result<(Days, Vec<Span>), Wrong> {
    let mut words = text.split_ascii_whitespace();
    let (Some(days), Some(hours), None) = (words.next(), words.next(), words.next()) else {
        return Err("is not opening hours".to_owned());
    };
    let day = |t: &str| {
        let found = DAYS.iter().position(|d| d.eq_ignore_ascii_case(t));
        found.ok_or_else(|| format!("names the day `{t}`, which is none"))
    };
    let mut on = [false; 7];
    for part in days.split(',') {
        let (first, last) = match part.split_once('-') {
            _ if part.eq_ignore_ascii_case("daily") => (0, 6),
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        // fri-mon goes over the week's end.
        let length = (last + 7 - first) % 7;
        for i in 0..=length {
            on[(first + i) % 7] = true;
        }
    }
    Ok((on, spans(hours)?))
}

/// The same, or hours without days: `10:00-14:00`.
pub fn hours_of_a_day(text: &str) -> Result<(Days, Vec<Span>), Wrong> {
    match text.trim() {
        span if !span.contains(' ') && span.starts_with(|c: char| c.is_ascii_digit()) => Ok(([true; 7], spans(span)?)),
        _ => hours(text),
    }
}

/// `09:00-13:00,14:00-18:00`; what ends before it begins ends on the next day.
fn spans(text: &str) -> Result<Vec<Span>, Wrong> {
    let wrong = || "is not opening hours".to_owned();
    let minute = |t: &str| -> Result<u16, Wrong> {
        let (h, m) = t.split_once(':').ok_or_else(wrong)?;
        let two = |s: &str, most: u16| {
            let fits = s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
            s.parse::<u16>().ok().filter(|n| fits && *n <= most)
        };
        match (two(h, 24), two(m, 59)) {
            (Some(h), Some(m)) if h * 60 + m <= DAY => Ok(h * 60 + m),
            _ => Err(format!("has the time `{t}`, which is none")),
        }
    };
    let span = |text: &str| {
        let (from, until) = text.split_once('-').ok_or_else(wrong)?;
        match (minute(from)?, minute(until)?) {
            (DAY, _) => Err("begins at 24:00; write 00:00 of the next day".to_owned()),
            (from, until) if from == until => Err("ends when it begins; a whole day is 00:00-24:00".to_owned()),
            (from, until) if until < from => Ok(Span { from, until: until + DAY }),
            (from, until) => Ok(Span { from, until }),
        }
    };
    text.split(',').map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("300ms", Ok(300)),
            ("30s", Ok(30_000)),
            ("1h30m", Ok(5_400_000)),
            ("180d", Ok(15_552_000_000)),
            ("0", Ok(0)),
            ("0s", Ok(0)),
            ("30", Err("has no unit")),
            ("", Err("is not a duration")),
            ("-5s", Err("is not a duration")),
            ("5 s", Err("has no unit")),
            ("5x", Err("has the unit `x`, which is none")),
            ("99999999999999999999s", Err("is not a duration")),
            ("9999999999999999w", Err("is longer than a century")),
            ("5µs", Err("has no unit")),
        ] {
            let got = duration(text).map(|d| d.as_millis());
            assert_eq!(got, want.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, want) in [
            ("1GiB", Some(1 << 30)),
            ("64MiB", Some(64 << 20)),
            ("1kB", Some(1000)),
            ("0", Some(0)),
            ("1", None),
            ("GiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(size(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn addresses_and_uris() {
        for (text, good) in [
            ("sip:carrier.example", true),
            ("sip:127.0.0.1:5090", true),
            ("sip:[2001:db8::1]:5060;transport=tcp", true),
            ("sips:carrier.example", true),
            ("sip:me@carrier.example", false),
            ("sip:carrier.example:99999", false),
            ("sip:2001:db8::1", false),
            ("sip:", false),
            ("sip:300.1.1.1", false),
            ("sip:a b", false),
            ("carrier.example", false),
            ("http://carrier.example", false),
            ("sip:x;transport=quic", false),
        ] {
            assert_eq!(sip_uri(text).is_ok(), good, "{text}");
        }
        for (text, good) in
            [("10.0.0.0/8", true), ("10.0.0.1", true), ("::1/128", true), ("10.0.0.0/33", false), ("x", false)]
        {
            assert_eq!(cidr(text).is_ok(), good, "{text}");
        }
        for (text, good) in
            [("127.0.0.1:5060", true), ("[::]:5060", true), ("127.0.0.1", false), ("127.0.0.1:0", false)]
        {
            assert_eq!(address(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn hours_of_a_week() {
        let span = |from, until| Span { from, until };
        let workdays = [true, true, true, true, true, false, false];
        assert_eq!(hours("mon-fri 09:00-18:00"), Ok((workdays, vec![span(540, 1080)])));
        assert_eq!(hours("Mon-Fri 09:00-13:00,14:00-18:00"), Ok((workdays, vec![span(540, 780), span(840, 1080)])));
        assert_eq!(hours("sun 22:00-06:00").map(|h| h.1), Ok(vec![span(1320, 1800)]));
        let weekend = [true, false, false, false, true, true, true];
        assert_eq!(hours("fri-mon 00:00-24:00"), Ok((weekend, vec![span(0, 1440)])));
        assert_eq!(hours_of_a_day("10:00-14:00"), Ok(([true; 7], vec![span(600, 840)])));
        assert_eq!(hours_of_a_day("daily 10:00-14:00"), hours_of_a_day("10:00-14:00"));
        for text in [
            "mon-fri",
            "mon-fry 09:00-18:00",
            "mon 09:00-09:00",
            "mon 24:00-06:00",
            "mon 9-18",
            "mon 25:00-26:00",
            "",
            "mon 09:00-24:01",
            "10:00-14:00",
            "mon 09:00-18:00,",
        ] {
            assert!(hours(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dialled_things() {
        for (text, good) in [
            ("751-759", true),
            ("700", true),
            ("759-751", false),
            ("75-759", false),
            ("x", false),
            ("1000-1999", false),
        ] {
            assert_eq!(park(text).is_ok(), good, "{text}");
        }
        for (text, good) in [("8XXXXXXXXXX", true), ("+X.", true), (".", false), ("8.X", false), ("8+", false)] {
            assert_eq!(pattern(text).is_ok(), good, "{text}");
        }
        for (text, good) in [("+7913*", true), ("+79131234567", true), ("7913*", false), ("*", false), ("+*", true)] {
            assert_eq!(caller(text).is_ok(), good, "{text}");
        }
        assert!(instant("2026-11-21T00:00").is_ok() && instant("2026-11-21").is_err() && date("2026-02-30").is_err());
    }
}
