//! The messages of RFC 4475 and RFC 5118 against the parser, the framer and the door, as far as these layers decide. The live server is
//! sent the same ones elsewhere.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use strowger::sip::{Framer, Malformed, Message, Method, Name, door};

/// A message of RFC 5118 with CRLF for the archive's LF, and Content-Length counted anew: the archive's counts the bytes of neither.
fn with_crlf(text: &str) -> String {
    let text = text.replace('\n', "\r\n");
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return text };
    let length = |l: &str| {
        if l.starts_with("Content-Length:") { format!("Content-Length: {}", body.len()) } else { l.to_owned() }
    };
    let head: Vec<String> = head.split("\r\n").map(length).collect();
    format!("{}\r\n\r\n{body}", head.join("\r\n"))
}

/// What becomes of a message in these layers.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Fate {
    Answer(u16),
    Drop,
    Pass,
    /// On a stream: more bytes are waited for.
    Wait,
}

fn data(test: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("STROWGER_DATA") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    let folder = root.join("torture");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {test}: no test data");
    None
}

/// Rows of a simple CSV without quotes.
fn table(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().skip(1).filter(|l| !l.is_empty()).map(|l| l.split(',').map(str::to_owned).collect()).collect()
}

fn source() -> SocketAddr {
    "192.0.2.77:40000".parse().unwrap()
}

/// The answer must itself be a message, and must not come for ACK or responses.
fn refused(malformed: &Malformed) -> Fate {
    match (&malformed.answer, malformed.drop) {
        (Some(refusal), None) => {
            let bytes = malformed.response(source()).unwrap();
            assert!(
                bytes.starts_with(format!("SIP/2.0 {} ", refusal.status).as_bytes()) && bytes.ends_with(b"\r\n\r\n")
            );
            Fate::Answer(refusal.status)
        }
        (None, Some(_)) => {
            assert!(malformed.response(source()).is_none());
            Fate::Drop
        }
        other => panic!("either answered or dropped: {other:?}"),
    }
}

fn read(bytes: Bytes) -> Fate {
    match Message::parse(bytes) {
        Err(malformed) => refused(&malformed),
        Ok(m) if !m.is_request() || m.to_tag().is_some() => Fate::Pass,
        Ok(m) => door::check(&m).map_or_else(|refusal| Fate::Answer(refusal.status), |()| Fate::Pass),
    }
}

/// The first message of a stream in pieces of `step` bytes, and how many messages came before the stream ended or broke.
fn stream(bytes: &[u8], step: usize) -> (Fate, usize) {
    let mut framer = Framer::default();
    let (mut first, mut count) = (None, 0);
    for piece in bytes.chunks(step) {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(message)) => {
                    count += 1;
                    let fate = read(message);
                    first.get_or_insert(fate);
                }
                Ok(None) => break,
                Err(error) => return (first.unwrap_or_else(|| refused(&error.0)), count),
            }
        }
    }
    (first.unwrap_or(Fate::Wait), count)
}

/// What the table's cell means for these layers.
fn meant(cell: &str, kind: &str) -> Fate {
    let status = cell.get(..3).and_then(|s| s.parse::<u16>().ok());
    match status {
        Some(s @ (400 | 406 | 415 | 416 | 420 | 501 | 505)) => Fate::Answer(s),
        // A MESSAGE in parts: no phone reads it.
        _ if cell.ends_with("or 415") => Fate::Answer(415),
        _ if cell.starts_with("dropped") && kind == "invalid response" => Fate::Drop,
        _ => Fate::Pass,
    }
}

#[test]
fn rfc_4475() {
    let Some(folder) = data("rfc_4475") else { return };
    let rows = table(&folder.join("rfc4475-expected.csv"));
    assert_eq!(rows.len(), 49);
    let mut wrong = Vec::new();
    for row in &rows {
        let (name, kind, udp, tcp) = (&row[0], &row[2], &row[4], &row[5]);
        let bytes = std::fs::read(folder.join("rfc4475").join(format!("{name}.dat"))).unwrap();
        let expected = meant(udp, kind);
        let got = read(Bytes::from(bytes.clone()));
        if got != expected {
            wrong.push(format!("{name} over UDP: {got:?}, not {expected:?} ({udp})"));
        }
        let expected = match tcp.as_str() {
            "same" => expected,
            _ if tcp.starts_with("wait") => Fate::Wait,
            // Two messages on a stream.
            _ if tcp.starts_with('(') => Fate::Pass,
            _ => meant(tcp, kind),
        };
        let whole = [&bytes[..], b"\r\n"].concat();
        let bytes = if name == "baddn" { &whole } else { &bytes };
        for step in [usize::MAX, 1400] {
            let (got, count) = stream(bytes, step);
            if got != expected || (name == "dblreq" && count < 1) {
                wrong.push(format!("{name} over TCP: {got:?}, not {expected:?} ({tcp})"));
            }
        }
    }
    // As it is, without its last line end.
    let baddn = std::fs::read(folder.join("rfc4475/baddn.dat")).unwrap();
    assert_eq!(read(Bytes::from([&baddn[..], b"\r\n"].concat())), Fate::Answer(400));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rfc_5118() {
    let Some(folder) = data("rfc_5118") else { return };
    let rows = table(&folder.join("rfc5118-expected.csv"));
    assert_eq!(rows.len(), 12);
    let mut wrong = Vec::new();
    for row in &rows {
        let text = with_crlf(&std::fs::read_to_string(folder.join("rfc5118").join(&row[0])).unwrap());
        let expected = if row[3].starts_with("400") { Fate::Answer(400) } else { Fate::Pass };
        let got = read(Bytes::from(text.clone()));
        if got != expected {
            wrong.push(format!("{}: {got:?}, not {expected:?}", row[0]));
        }
        let text = if text.contains("\r\n\r\n") { text } else { text + "\r\n" };
        if stream(text.as_bytes(), 100).0 != expected {
            wrong.push(format!("{} over TCP: {:?}, not {expected:?}", row[0], stream(text.as_bytes(), 100).0));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What must also hold (last column of the tables), for what these layers know.
#[test]
fn details() {
    let Some(folder) = data("details") else { return };
    let load = |name: &str| {
        Message::parse(Bytes::from(std::fs::read(folder.join(format!("rfc4475/{name}.dat"))).unwrap())).unwrap()
    };
    let v6 = |name: &str| {
        let text = std::fs::read_to_string(folder.join("rfc5118").join(name)).unwrap();
        Message::parse(Bytes::from(with_crlf(&text))).unwrap()
    };

    let m = load("wsinv");
    assert_eq!(
        (m.max_forwards(), m.cseq().seq, m.to_tag(), m.from_tag()),
        (Some(68), 9, Some("1918181833n"), Some("98asjd8"))
    );
    assert_eq!(m.from().display_text(), "J Rosenberg \\\"");
    assert_eq!(m.unknown("unknownheaderwithunusualvalue"), Some(&b";;,,;;,;"[..]));
    assert_eq!((m.values(Name::Via).count(), m.via().host, m.branch()), (3, "192.0.2.2", Some("390skdjuw")));
    assert_eq!(m.contact().unwrap().q(), Some(330));
    assert_eq!(m.header(Name::Subject), Some(&b""[..]));

    let m = load("intmeth");
    assert_eq!(m.method(), Method::Other);
    assert_eq!(m.to().display_raw, b"\"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f\"");
    assert_eq!(m.from().display, Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(m.unknown("extensionHeader-!.%*+_`'~").unwrap(), "\u{feff}\u{5927}\u{505c}\u{96fb}".as_bytes());
    assert_eq!(m.max_forwards(), Some(255));

    let m = load("esc01");
    assert_eq!(m.uri().unwrap().user_decoded(), "sips:user@example.com");
    let m = load("escnull");
    let users: Vec<_> = m.addresses(Name::Contact).map(|a| a.unwrap().uri.user_decoded().into_owned()).collect();
    assert_eq!(users, ["\0", "\0\0"]);
    let m = load("esc02");
    assert!(m.unknown("C%6Fntact").is_some() && m.contact().is_none_or(|c| c.uri.host != "192.0.2.25"));
    let m = load("dblreq");
    assert_eq!((m.method(), m.body().len(), m.wire().ends_with(b"\r\n\r\n")), (Method::Register, 0, true));
    let m = load("semiuri");
    assert_eq!(
        (m.uri().unwrap().user_decoded().as_ref(), m.uri().unwrap().params.is_empty()),
        ("user;par=u@example.net", true)
    );
    let m = load("transports");
    let vias: Vec<_> = m.values(Name::Via).map(|v| v.split(' ').next().unwrap()).collect();
    assert_eq!(vias, ["SIP/2.0/UDP", "SIP/2.0/SCTP", "SIP/2.0/TLS", "SIP/2.0/UNKNOWN", "SIP/2.0/TCP"]);
    let m = load("mpart01");
    assert_eq!((m.content_type(), m.body().len()), (Some("multipart/mixed"), 553));
    assert_eq!((load("noreason").status(), load("noreason").reason()), (100, &b""[..]));
    let m = load("cparam01");
    let c = m.contact().unwrap();
    assert!(c.params.has("unknownparam") && c.uri.params.is_empty());
    let m = load("cparam02");
    let c = m.contact().unwrap();
    assert!(!c.params.has("unknownparam") && c.uri.params.has("unknownparam"));
    let m = load("regescrt");
    assert!(m.contact().unwrap().uri.headers.is_some());
    let m = load("inv2543");
    assert_eq!((m.branch(), m.from_tag(), m.max_forwards()), (None, None, None));
    let refusal = door::check(&load("bext01")).unwrap_err();
    let unsupported = refusal.headers.iter().find(|h| h.0 == Name::Unsupported).map(|h| h.1.as_str());
    assert_eq!(
        unsupported,
        Some("nothingSupportsThis, nothingSupportsThisEither, noProxiesSupportThis, norDoAnyProxiesSupportThis")
    );

    let m = v6("port-ambiguous");
    assert_eq!((m.uri().unwrap().host, m.uri().unwrap().port), ("2001:db8::10:5070", None));
    let m = v6("port-unambiguous");
    assert_eq!((m.uri().unwrap().host, m.uri().unwrap().port), ("2001:db8::10", Some(5070)));
    for name in ["via-received-param-with-delim", "via-received-param-no-delim"] {
        assert_eq!(v6(name).via().received(), Some("2001:db8::9:255".parse().unwrap()));
    }
    for name in ["ipv6-bug-abnf-3-colons", "ipv6-correct-abnf-2-colons"] {
        assert_eq!(v6(name).uri().unwrap().ip(), Some("2001:db8::192.0.2.1".parse().unwrap()), "{name}");
    }
    assert_eq!(v6("mult-ip-in-header").via().port, Some(6050));
}
