//! What was probably meant by a value that is none: the writer's own, in the right form. Nothing is said that would be wrong again.

use super::problem::alike;
use super::schema::Kind;
use super::value;
use crate::directory::{Country, E164};

/// The value that was probably meant; none where it can only be guessed.
pub fn meant(kind: &Kind, text: &str, country: Option<Country>) -> Option<String> {
    let text = text.trim();
    let fits = |candidate: String, check: &dyn Fn(&str) -> bool| check(&candidate).then_some(candidate);
    match kind {
        Kind::Duration => fits(duration(text), &|t| value::duration(t).is_ok()),
        Kind::Size => fits(size(text), &|t| value::size(t).is_ok()),
        Kind::Zone => zone(text),
        Kind::Country => fits(text.to_ascii_uppercase(), &|t| value::country(t).is_ok()),
        Kind::E164 => number(text, country),
        Kind::Caller => match text.strip_suffix('*') {
            Some(head) => fits(format!("+{}*", head.trim_start_matches('+')), &|t| value::caller(t).is_ok()),
            None => number(text, country),
        },
        Kind::Address => fits(address(text), &|t| value::address(t).is_ok()),
        Kind::Ip => {
            let ip =
                text.parse::<std::net::SocketAddr>().map_or_else(|_| host(text), |address| address.ip().to_string());
            fits(ip, &|t| value::ip(t).is_ok())
        }
        Kind::Cidr => fits(cidr(text), &|t| value::cidr(t).is_ok()),
        Kind::Host => {
            let bare = text.rsplit_once("//").map_or(text, |(_, rest)| rest).trim_end_matches('/');
            fits(bare.strip_prefix("sip:").unwrap_or(bare).to_owned(), &|t| value::host(t).is_ok())
        }
        Kind::SipUri => fits(sip_uri(text), &|t| value::sip_uri(t).is_ok()),
        Kind::Url => fits(format!("http://{}", text.trim_start_matches('/')), &|t| value::http_url(t).is_ok()),
        Kind::Date => fits(date(text), &|t| value::date(t).is_ok()),
        Kind::Instant => fits(instant(text), &|t| value::instant(t).is_ok()),
        Kind::Hours => fits(hours(text), &|t| value::hours(t).is_ok()),
        Kind::HoursOfADay => fits(hours(text), &|t| value::hours_of_a_day(t).is_ok()),
        Kind::Ports => fits(range(text), &|t| value::ports(t).is_ok()),
        Kind::Park => fits(range(text), &|t| value::park(t).is_ok()),
        Kind::Pattern => fits(pattern(text), &|t| value::pattern(t).is_ok()),
        Kind::Prefix => {
            let digits = text.trim_start_matches('+').trim_end_matches(['*', '.', 'X']);
            fits(format!("+{digits}"), &|t| value::prefix(t).is_ok())
        }
        Kind::Extension => fits(text.split_whitespace().collect(), &|t| value::extension(t).is_ok()),
        Kind::Name => fits(text.to_owned(), &|t| value::name(t).is_ok()),
        Kind::Header => Some(text.trim_end_matches(':').to_owned()),
        Kind::Choice(words) => alike(text, words.iter().copied()).map(str::to_owned),
        // Names that others have, and what has a form of its own, are told elsewhere; of the rest any text is right.
        Kind::Region
        | Kind::Words
        | Kind::Bool
        | Kind::Int(..)
        | Kind::StoreUrl
        | Kind::Code
        | Kind::Path
        | Kind::Glob
        | Kind::Secret
        | Kind::Ref(_)
        | Kind::Target(_)
        | Kind::Steps
        | Kind::List(_)
        | Kind::Some(_)
        | Kind::Table(_)
        | Kind::Tables(_) => None,
    }
}

/// What a whole number stands for that was written without quotes: `timeout = 60`.
pub fn of_int(kind: &Kind, n: i64) -> String {
    match kind {
        Kind::Address if (1..=65_535).contains(&n) => format!("0.0.0.0:{n}"),
        // TOML reads the plus as a sign.
        Kind::E164 | Kind::Prefix | Kind::Caller => format!("+{n}"),
        Kind::Duration => format!("{n}s"),
        Kind::Size => format!("{n}MiB"),
        _ => n.to_string(),
    }
}

fn number(text: &str, country: Option<Country>) -> Option<String> {
    E164::read(text, country).map(|number| number.to_string()).filter(|number| value::e164(number).is_ok())
}

fn duration(text: &str) -> String {
    const UNITS: [(&str, &str); 14] = [
        ("milliseconds", "ms"),
        ("msec", "ms"),
        ("seconds", "s"),
        ("second", "s"),
        ("secs", "s"),
        ("sec", "s"),
        ("minutes", "m"),
        ("minute", "m"),
        ("hours", "h"),
        ("hour", "h"),
        ("days", "d"),
        ("day", "d"),
        ("weeks", "w"),
        ("week", "w"),
    ];
    let text: String = text.split_whitespace().collect::<String>().to_lowercase();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return format!("{text}s");
    }
    let long = UNITS.iter().find_map(|(long, short)| Some(format!("{}{short}", text.strip_suffix(long)?)));
    long.unwrap_or(text)
}

fn size(text: &str) -> String {
    let text: String = text.split_whitespace().collect();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "m" | "mib" => "MiB",
        "k" | "kib" => "KiB",
        "g" | "gib" => "GiB",
        "t" | "tib" => "TiB",
        "mb" => "MB",
        "gb" => "GB",
        _ => return text,
    };
    format!("{}{unit}", &text[..digits])
}

fn zone(text: &str) -> Option<String> {
    let names: Vec<String> = jiff::tz::db().available().map(|n| n.as_str().to_owned()).collect();
    // The city alone.
    let city = text.replace(' ', "_");
    let ends = |name: &&String| name.rsplit_once('/').is_some_and(|(_, last)| last.eq_ignore_ascii_case(&city));
    let found = names.iter().find(ends).map(String::as_str);
    found.or_else(|| alike(text, names.iter().map(String::as_str))).map(str::to_owned)
}

fn host(text: &str) -> String {
    match text {
        "localhost" => "127.0.0.1".to_owned(),
        "*" | "any" | "" => "0.0.0.0".to_owned(),
        other => other.to_owned(),
    }
}

fn address(text: &str) -> String {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return std::net::SocketAddr::new(ip, 5060).to_string();
    }
    match text.rsplit_once(':') {
        Some((name, port)) => format!("{}:{port}", host(name)),
        None if text.bytes().all(|b| b.is_ascii_digit()) => format!("0.0.0.0:{text}"),
        None => format!("{}:5060", host(text)),
    }
}

fn cidr(text: &str) -> String {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return address.ip().to_string();
    }
    let bare = text.strip_prefix("sip:").unwrap_or(text);
    if let Some(net) = bare.strip_suffix(".*") {
        return format!("{net}.0/24");
    }
    if let Some((net, mask)) = bare.split_once('/')
        && let Ok(mask) = mask.parse::<std::net::Ipv4Addr>()
    {
        return format!("{net}/{}", mask.to_bits().leading_ones());
    }
    bare.to_owned()
}

fn sip_uri(text: &str) -> String {
    let bare = text.trim_start_matches('<').trim_end_matches('>');
    let bare = ["sip://", "sip:", "sips:", "pjsip:"].iter().find_map(|head| bare.strip_prefix(head)).unwrap_or(bare);
    // The user belongs into `username`.
    let bare = bare.rsplit_once('@').map_or(bare, |(_, host)| host);
    format!("sip:{bare}")
}

fn date(text: &str) -> String {
    let parts: Vec<&str> = text.split(['.', '/', '-']).collect();
    match parts[..] {
        [day, month, year] if year.len() == 4 => format!("{year}-{month:0>2}-{day:0>2}"),
        [year, month, day] if year.len() == 4 => format!("{year}-{month:0>2}-{day:0>2}"),
        _ => text.to_owned(),
    }
}

fn instant(text: &str) -> String {
    let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    format!("{}T{}", date(day), clock(time.trim()).unwrap_or_else(|| time.to_owned()))
}

/// `9`, `9:00`, `9.00`, `0900` as `09:00`.
fn clock(text: &str) -> Option<String> {
    let (hour, minute) = match text.split_once([':', '.']) {
        Some(parts) => parts,
        None if text.len() == 4 => text.split_at(2),
        None => (text, "00"),
    };
    let digits = |t: &str| (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    (digits(hour) && digits(minute)).then(|| format!("{hour:0>2}:{minute:0>2}"))
}

fn hours(text: &str) -> String {
    let text = text.to_lowercase().replace(['–', '—'], "-").replace(" - ", "-").replace(", ", ",");
    let day = |word: &str| {
        let known = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let of = |names: [&str; 7]| names.iter().position(|n| !n.is_empty() && word.starts_with(n));
        let found =
            of(["mo", "tu", "we", "th", "fr", "sa", "su"]).or_else(|| of(["пн", "вт", "ср", "чт", "пт", "сб", "вс"]));
        found.map_or(word, |i| known[i]).to_owned()
    };
    let joined = |text: &str, each: &dyn Fn(&str) -> String| {
        let lists = text.split(',').map(|part| part.split('-').map(each).collect::<Vec<_>>().join("-"));
        lists.collect::<Vec<_>>().join(",")
    };
    let span = |t: &str| clock(t).unwrap_or_else(|| t.to_owned());
    match text.split_once(' ') {
        Some((days, times)) => format!("{} {}", joined(days, &day), joined(times.trim(), &span)),
        None => joined(&text, &span),
    }
}

/// Two ends in order, whatever stands between them.
fn range(text: &str) -> String {
    let ends: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    match ends[..] {
        [first, last] => match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(a), Ok(b)) if a > b => format!("{last}-{first}"),
            _ => format!("{first}-{last}"),
        },
        _ => text.to_owned(),
    }
}

/// Without what other exchanges write into patterns and people into numbers.
fn pattern(text: &str) -> String {
    let text = text.trim_start_matches('_').replace('!', ".");
    let letters = text.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')'));
    letters.map(|c| if matches!(c, 'x' | 'N' | 'n' | 'Z' | 'z') { 'X' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writers_own_value_in_the_right_form() {
        #[rustfmt::skip]
        let table: &[(Kind, &str, Option<&str>)] = &[
            (Kind::Duration, "60", Some("60s")),
            (Kind::Duration, "5 minutes", Some("5m")),
            (Kind::Duration, "soon", None),
            (Kind::Size, "64", Some("64MiB")),
            (Kind::Size, "2 g", Some("2GiB")),
            (Kind::Zone, "Novosibirsk", Some("Asia/Novosibirsk")),
            (Kind::Zone, "Asia/Ekaterinburg", Some("Asia/Yekaterinburg")),
            (Kind::Country, "ru", Some("RU")),
            (Kind::E164, "8 (383) 300-00-01", Some("+73833000001")),
            (Kind::E164, "83300", None),
            (Kind::Caller, "7913*", Some("+7913*")),
            (Kind::Address, "192.0.2.1", Some("192.0.2.1:5060")),
            (Kind::Address, ":5060", Some("0.0.0.0:5060")),
            (Kind::Address, "localhost", Some("127.0.0.1:5060")),
            (Kind::Address, "office.example:5060", None),
            (Kind::Ip, "192.0.2.1:5060", Some("192.0.2.1")),
            (Kind::Cidr, "192.0.2.*", Some("192.0.2.0/24")),
            (Kind::Cidr, "192.0.2.0/255.255.255.0", Some("192.0.2.0/24")),
            (Kind::Cidr, "192.0.2.1:5060", Some("192.0.2.1")),
            (Kind::Cidr, "carrier.example", None),
            (Kind::Host, "https://office.example/", Some("office.example")),
            (Kind::SipUri, "192.0.2.1", Some("sip:192.0.2.1")),
            (Kind::SipUri, "sip:office@carrier.example:5070", Some("sip:carrier.example:5070")),
            (Kind::Url, "127.0.0.1:9000/route", Some("http://127.0.0.1:9000/route")),
            (Kind::Date, "31.12.2026", Some("2026-12-31")),
            (Kind::Date, "31.13.2026", None),
            (Kind::Instant, "21.11.2026 9:30", Some("2026-11-21T09:30")),
            (Kind::Instant, "2026-11-21", Some("2026-11-21T00:00")),
            (Kind::Hours, "Monday-Friday 9-18", Some("mon-fri 09:00-18:00")),
            (Kind::Hours, "пн-пт 9:00 - 18:00", Some("mon-fri 09:00-18:00")),
            (Kind::Hours, "mon-fri", None),
            (Kind::HoursOfADay, "10-14", Some("10:00-14:00")),
            (Kind::Ports, "20999..20000", Some("20000-20999")),
            (Kind::Park, "751 759", Some("751-759")),
            (Kind::Pattern, "_8NXXXXXXXXX", Some("8XXXXXXXXXX")),
            (Kind::Pattern, "8-XXX", Some("8XXX")),
            (Kind::Prefix, "7809*", Some("+7809")),
            (Kind::Extension, "12 1", Some("121")),
            (Kind::Choice(&["udp", "tcp"]), "UDP", Some("udp")),
        ];
        for (kind, text, want) in table {
            assert_eq!(meant(kind, text, Some(Country::RU)).as_deref(), *want, "{text}");
        }
        for (kind, n, want) in [
            (Kind::Duration, 60, "60s"),
            (Kind::E164, 73_433_000_001, "+73433000001"),
            (Kind::Extension, 122, "122"),
            (Kind::Address, 5060, "0.0.0.0:5060"),
        ] {
            assert_eq!(of_int(&kind, n), want);
        }
    }
}
