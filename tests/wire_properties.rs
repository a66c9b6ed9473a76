//! Properties of reading and writing messages: no input panics, what is written is read back, nothing splits a line, streams cut anywhere
//! give the same messages, time grows with length and no faster, and rsip (a parser that we did not write) sees the same identifiers.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use bytes::Bytes;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;
use rsip::prelude::*;
use strowger::sip::{Framer, Message, Method, Name, NameAddr, Uri, Via, Writer, digest, door, header, limits};

/// More by `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000)
}

const SEEDS: &[&str] = &[
    "INVITE sip:+73833000001@pbx.example.com:5060;transport=udp SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.20:5062;branch=z9hG4bK-a1;rport\r\n\
     Max-Forwards: 70\r\nFrom: \"A \\\"B\\\" C\" <sip:121@pbx.example.com>;tag=88a7s\r\nTo: <sip:+73833000001@pbx.example.com>\r\n\
     Call-ID: 38482@192.168.1.20\r\nCSeq: 314159 INVITE\r\nContact: <sip:121@192.168.1.20:5062>;+sip.instance=\"<urn:uuid:0>\"\r\n\
     Supported: timer,\r\n 100rel\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n",
    "REGISTER sip:[2001:db8::10]:5070 SIP/2.0\r\nv: SIP/2.0/TCP [2001:db8::9:1];branch=z9hG4bKas3, SIP/2.0/UDP h;branch=z9hG4bKb\r\n\
     f: sip:user@example.com;tag=81x2\r\nt: sip:user@example.com\r\ni: SSG9\r\nCSeq: 1 REGISTER\r\nm: *\r\nExpires: 0\r\n\
     Authorization: Digest username=\"a\", realm=\"b\", nonce=\"c\", uri=\"d\", response=\"e\", qop=auth, nc=00000001, cnonce=\"f\"\r\nl: 0\r\n\r\n",
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK77;received=192.0.2.9;rport=5061\r\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\r\n\
     From: <tel:+7-383-1>;tag=a\r\nTo: Bob <sips:bob:pw@example.com;user=phone?x=y>;tag=b\r\nCall-ID: x\r\nCSeq: 2 INVITE\r\n\
     Session-Expires: 1800;refresher=uac\r\nReason: SIP;cause=200;text=\"a\"\r\nContent-Length: 0\r\n\r\n",
];

const WORDS: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    "\0",
    "\r\n ",
    "\r\n\r\n",
    ":",
    ";",
    ",",
    "\"",
    "<",
    ">",
    "\\",
    "@",
    "%",
    "%00",
    "=",
    "[",
    "]",
    "::",
    "Via: ",
    "From:",
    "l:",
    "Content-Length: 4294967328",
    "Content-Length: -1",
    "SIP/2.0",
    "SIP/7.0",
    " ",
    "\t",
    "\u{e9}",
    "\u{ff}",
    "z9hG4bK",
    ";tag=",
    ";branch=",
    "sip:",
    "tel:",
    "4294967296",
    "2147483648",
    "*",
    "?",
    "INVITE",
    "ACK",
];

/// Looks at everything that a message offers, and answers it.
fn look(m: &Message) {
    let _ = (
        m.method_text(),
        m.request_uri(),
        m.reason(),
        m.call_id(),
        m.cseq(),
        m.branch(),
        m.from_tag(),
        m.to_tag(),
        m.max_forwards(),
    );
    let (via, from, to) = (m.via(), m.from(), m.to());
    let _ = (
        via.branch(),
        via.rport(),
        via.received(),
        from.display_text(),
        to.display_text(),
        from.uri.user_decoded(),
        to.uri.ip(),
    );
    assert_eq!(m.branch(), via.branch());
    assert_eq!((m.from_tag(), m.to_tag()), (from.tag(), to.tag()));
    if m.is_request() {
        let uri = m.uri().expect("the parser has checked it");
        let _ = (uri.user_number(), uri.ip(), uri.transport(), door::check(m));
    }
    let _ = (m.contact(), m.content_type(), m.body(), m.seconds(Name::Expires));
    for name in Name::ALL {
        for value in m.values(*name) {
            let _ = (
                NameAddr::parse(value).map(|a| (a.q(), a.expires())),
                Via::parse(value).is_ok(),
                Uri::parse(value).is_ok(),
            );
            let _ = (
                header::SessionExpires::parse(value),
                header::Replaces::parse(value),
                header::ReferTo::parse(value).is_ok(),
            );
            let _ =
                (header::Reason::parse(value).is_ok(), header::RAck::parse(value), header::RetryAfter::parse(value));
            let _ = (
                header::Diversion::parse(value).is_ok(),
                header::Privacy::parse(value),
                header::SubscriptionState::parse(value).is_ok(),
            );
        }
        if let Some(text) = m.text(*name) {
            let _ = (digest::Challenge::parse(text), digest::Credentials::parse(text).map(|c| c.verify("x", "y")));
        }
    }
    // Whatever came in, the answer is a message, and belongs to the same transaction.
    let answer = Writer::answer(m, "192.0.2.7:7777".parse().unwrap(), 200, "OK", Some("t")).finish();
    if answer.len() > limits::MESSAGE {
        return;
    }
    let read = Message::parse(answer).expect("our answer can be read");
    assert_eq!((read.branch(), read.call_id(), read.cseq().seq), (m.branch(), m.call_id(), m.cseq().seq));
    assert_eq!((read.from_tag(), read.to_tag()), (m.from_tag(), m.to_tag().or(Some("t"))));
    assert_eq!(read.raw_values(Name::Via).count(), m.raw_values(Name::Via).count());
    assert_eq!(
        read.raw_values(Name::Via).skip(1).collect::<Vec<_>>(),
        m.raw_values(Name::Via).skip(1).collect::<Vec<_>>()
    );
}

fn read(bytes: &[u8]) {
    match Message::parse(Bytes::copy_from_slice(bytes)) {
        Ok(m) => {
            look(&m);
            // What was read is read again alike, and so is a copy of it line by line.
            let again = Message::parse(Bytes::copy_from_slice(m.wire())).expect("it was accepted before");
            assert!(again.all().eq(m.all()) && again.body() == m.body());
            let mut w = if m.is_request() {
                Writer::request(m.method_text(), m.request_uri())
            } else {
                Writer::response(m.status(), "x")
            };
            w.copy_where(&m, |name, _, _| name != Name::ContentLength && name != Name::ContentType);
            let copy = Message::parse(w.finish()).expect("a copy of it is as good");
            let keep = |m: &Message| -> Vec<(Name, Vec<u8>)> {
                let lines = m.all().filter(|l| l.0 != Name::ContentLength && l.0 != Name::ContentType);
                lines.map(|(n, _, v)| (n, v.to_vec())).collect()
            };
            assert_eq!(keep(&copy), keep(&m));
        }
        Err(e) => {
            assert!(e.drop.is_some() != e.answer.is_some());
            if let Some(answer) = e.response("[2001:db8::7]:7777".parse().unwrap()) {
                assert!(!bytes.starts_with(b"ACK ") && !bytes.starts_with(b"SIP/2.0"));
                let text = answer.as_ref();
                let head = text.strip_suffix(b"\r\n\r\n").expect("one empty line, at the end");
                assert!(!head.windows(4).any(|w| w == b"\r\n\r\n"));
                let lone = |c: &u8| matches!(*c, b'\r' | b'\n');
                assert!(head.split(|c| *c == b'\n').all(|l| !l.strip_suffix(b"\r").unwrap_or(l).iter().any(lone)));
            }
        }
    }
}

/// The messages of a stream that is read in pieces, and how it ended. A body that lasts until the stream's end is left out.
fn frames(bytes: &[u8], cuts: &[usize]) -> (Vec<Bytes>, bool) {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let n = cuts.next().map_or(rest.len(), |c| (*c).clamp(1, rest.len()));
        framer.push(&rest[..n]);
        rest = &rest[n..];
        loop {
            match framer.next() {
                Ok(Some(_)) if framer.is_ended() => return (out, false),
                Ok(Some(m)) => out.push(m),
                Ok(None) => break,
                Err(_) => return (out, true),
            }
        }
        assert!(framer.len() <= limits::MESSAGE + n);
    }
    (out, false)
}

fn mutated() -> impl Strategy<Value = Bytes> {
    let edit = (any::<prop::sample::Index>(), 0..4u8, prop::sample::select(WORDS), any::<u8>(), 0..40usize);
    (prop::sample::select(SEEDS), prop::collection::vec(edit, 0..6)).prop_map(|(seed, edits)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (place, kind, word, byte, len) in edits {
            let at = place.index(bytes.len() + 1);
            let end = (at + len).min(bytes.len());
            match kind {
                0 => drop(bytes.splice(at..at, word.bytes())),
                1 => drop(bytes.drain(at..end)),
                2 if at < bytes.len() => bytes[at] = byte,
                _ => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        Bytes::from(bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_messages_never_panic(bytes in mutated()) {
        read(&bytes);
        frames(&bytes, &[7]);
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), start in prop::sample::select(&["", "INVITE sip:a SIP/2.0\r\n", "SIP/2.0 200 OK\r\n"])) {
        let bytes = [start.as_bytes(), &bytes].concat();
        read(&bytes);
        frames(&bytes, &[1, 50]);
    }

    #[test]
    fn any_text_never_panics_in_typed_values(text in "[ -~]{0,60}|\\PC{0,40}") {
        let _ = (NameAddr::parse(&text).is_ok(), Via::parse(&text).is_ok(), Uri::parse(&text).map(|u| u.user_decoded().len()));
        let _ = (digest::Challenge::parse(&text), digest::Credentials::parse(&text).is_ok());
        let _ = (header::ReferTo::parse(&text).is_ok(), header::RetryAfter::parse(&text), header::Reason::parse(&text).is_ok());
    }

    #[test]
    fn nothing_splits_a_line(value in "[\\x00-\\x7f]{0,40}|\\PC{0,20}", name in "\\PC{0,10}") {
        let mut w = Writer::request("INVITE", "sip:a@b");
        w.header(Name::Via, "SIP/2.0/UDP h;branch=z9hG4bKx").header(Name::From, "<sip:a@b>;tag=1").header(Name::To, "<sip:c@d>")
            .header(Name::CallId, "c").cseq(1, "INVITE").header(Name::Subject, &value).fmt(Name::Organization, format_args!("{value}"))
            .parts(Name::Server, &[&value, &value]).named(&format!("X-{name}"), &value).named(&format!("X-{value}"), "x");
        let m = Message::parse(w.body("application/sdp", value.as_bytes())).expect("it is whole");
        prop_assert!((9..=12).contains(&m.all().count()));
        prop_assert_eq!(m.body(), value.as_bytes());
        let spaced: String = value.chars().map(|c| if c < ' ' && c != '\t' { ' ' } else { c }).collect();
        prop_assert_eq!(m.header(Name::Subject), Some(spaced.trim_matches([' ', '\t']).as_bytes()));
    }

    #[test]
    fn quoted_names_come_back(name in "\\PC{0,30}") {
        let value = format!("{} <sip:a@b>", strowger::sip::quote(&name));
        let clean: String = name.chars().filter(|c| !c.is_control()).collect();
        prop_assert_eq!(NameAddr::parse(&value).expect("it is quoted").display_text(), clean);
    }

    #[test]
    fn streams_cut_anywhere_give_the_same(parts in prop::collection::vec(mutated(), 1..4), cuts in prop::collection::vec(1..200usize, 1..8)) {
        let bytes = parts.concat();
        prop_assert_eq!(frames(&bytes, &cuts), frames(&bytes, &[bytes.len()]));
    }

    #[test]
    fn what_is_written_is_read_back(w in written()) {
        let m = Message::parse(w.bytes()).expect("it is well-formed");
        prop_assert_eq!((m.method(), m.request_uri(), m.call_id()), (Method::Invite, w.uri.as_str(), w.call_id.as_str()));
        prop_assert_eq!((m.branch(), m.from_tag(), m.to_tag()), (Some(w.branch.as_str()), Some(w.from_tag.as_str()), w.to_tag.as_deref()));
        prop_assert_eq!((m.cseq().seq, m.body(), m.from().display_text()), (w.seq, w.body.as_bytes(), w.display.as_str().into()));
        look(&m);
    }

    #[test]
    fn rsip_sees_the_same(w in written()) {
        same_as_rsip(&w.bytes(), true);
    }

    #[test]
    fn rsip_sees_the_same_in_what_both_accept(bytes in mutated()) {
        same_as_rsip(&bytes, false);
    }
}

/// A well-formed INVITE.
#[derive(Debug, Clone)]
struct Written {
    uri: String,
    host: String,
    branch: String,
    display: String,
    from_tag: String,
    to_tag: Option<String>,
    call_id: String,
    seq: u32,
    body: String,
}

impl Written {
    fn bytes(&self) -> Bytes {
        let mut w = Writer::request("INVITE", &self.uri);
        let to_tag = self.to_tag.as_ref().map(|t| format!(";tag={t}")).unwrap_or_default();
        w.fmt(Name::Via, format_args!("SIP/2.0/UDP {};branch={}", self.host, self.branch))
            .number(Name::MaxForwards, 70u8)
            .fmt(
                Name::From,
                format_args!("{} <{}>;tag={}", strowger::sip::quote(&self.display), self.uri, self.from_tag),
            )
            .fmt(Name::To, format_args!("<{}>{to_tag}", self.uri))
            .header(Name::CallId, &self.call_id)
            .cseq(self.seq, "INVITE");
        w.body("application/sdp", self.body.as_bytes())
    }
}

fn written() -> impl Strategy<Value = Written> {
    let host = "[a-z][a-z0-9]{0,8}\\.[a-z]{2,4}(:[1-9][0-9]{2,3})?|10\\.[1-9]\\.0\\.[1-9](:5060)?";
    let token = "[A-Za-z0-9.~*_+-]{1,30}";
    let text =
        (token, "[A-Za-z ]{0,12}", prop::option::of(token), "[A-Za-z0-9-]{1,30}(@[a-z.0-9]{1,9})?", "[a-z]{1,10}");
    (("[a-z0-9]{1,12}", host), text, 0..1u32 << 31, "[ -~\\r\\n]{0,80}").prop_map(|((user, host), text, seq, body)| {
        let (branch, display, to_tag, call_id, from_tag) = text;
        let display = display.trim().to_owned();
        Written {
            uri: format!("sip:{user}@{host}"),
            host,
            branch: format!("z9hG4bK{branch}"),
            display,
            from_tag,
            to_tag,
            call_id,
            seq,
            body,
        }
    })
}

/// Where rsip accepts a message and we do, the identifiers are the same.
fn same_as_rsip(bytes: &[u8], must: bool) {
    let theirs = rsip::SipMessage::try_from(bytes);
    assert!(theirs.is_ok() || !must, "{theirs:?}");
    let (Ok(theirs), Ok(ours)) = (theirs, Message::parse(Bytes::copy_from_slice(bytes))) else { return };
    if let Ok(id) = theirs.call_id_header() {
        assert_eq!(id.value().trim(), ours.call_id());
    }
    if let Ok(Ok(cseq)) = theirs.cseq_header().map(|c| c.typed()) {
        assert_eq!(cseq.seq, ours.cseq().seq);
        assert_eq!(cseq.method.to_string(), ours.method_text());
    }
    // It ends a tag or branch at the first character that is no token.
    let token = |text: Option<&str>| {
        text.is_none_or(|t| t.bytes().all(|c| c.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&c)))
    };
    if !token(ours.branch()) || !token(ours.from_tag()) || !token(ours.to_tag()) {
        return;
    }
    // A second value in one Via line, escapes in quoted names, and blanks around parameters are beyond it.
    let odd = |v: &[u8]| {
        v.iter().any(|c| b",\\\t".contains(c))
            || v.windows(2).any(|w| [b" =", b"= ", b" ;", b"; "].contains(&w.try_into().unwrap()))
    };
    let plain = |name| !ours.header(name).is_some_and(odd);
    if plain(Name::Via)
        && let Ok(Ok(via)) = theirs.via_header().map(|v| v.typed())
    {
        assert_eq!(via.branch().map(|b| b.value().trim().to_owned()).as_deref(), ours.branch(), "{:?}", ours);
    }
    if plain(Name::From)
        && let Ok(Ok(from)) = theirs.from_header().map(|f| f.typed())
    {
        assert_eq!(from.tag().map(|t| t.value().trim().to_owned()).as_deref(), ours.from_tag(), "{:?}", ours);
    }
    if plain(Name::To)
        && let Ok(Ok(to)) = theirs.to_header().map(|t| t.typed())
    {
        assert_eq!(to.tag().map(|t| t.value().trim().to_owned()).as_deref(), ours.to_tag(), "{:?}", ours);
    }
}

/// Messages of `size` bytes that are all one kind of trouble.
fn bombs(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let base = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";
    let fill = |head: &str, piece: &str| {
        let mut text = format!("{base}{head}");
        while text.len() + piece.len() + 4 < size {
            text.push_str(piece);
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    };
    vec![
        ("Via lines", fill("", "Via: SIP/2.0/UDP h\r\n")),
        ("Via values", fill("Via: ", "SIP/2.0/UDP h,")),
        ("commas in Via", fill("Via: ", ",")),
        ("commas in Contact", fill("Contact: ", "<sip:a@b>,")),
        ("quotes", fill("Contact: ", "\"")),
        ("open brackets", fill("Contact: ", "<")),
        ("open brackets between commas", fill("Contact: ", "<,")),
        ("backslashes", fill("Contact: \"", "\\")),
        ("parameters", fill("Contact: <sip:a@b>", ";a")),
        ("blanks", fill("Contact: <sip:a@b>", " ")),
        ("folds", fill("Subject: x", "\r\n ")),
        ("folds of nothing", fill("Subject: x", "\r\n \t")),
        ("colons", fill("Subject", ":")),
        ("lone CR", fill("Subject: ", "\r")),
        ("lone LF", fill("Subject: ", "\n")),
        ("NUL", fill("Subject: ", "\0")),
        ("escaped NUL", fill("Subject: \"", "\\\0")),
        ("at signs", fill("Contact: sip:", "@")),
        ("percents", fill("Contact: sip:", "%")),
        ("short lines", fill("", "a:\r\n")),
        ("no colons", fill("", "a\r\n")),
    ]
}

/// CPU time of this thread, the best of some rounds: other work runs beside.
fn cost(bytes: &[u8], mut f: impl FnMut(&[u8])) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it"));
    (0..5).fold(Duration::MAX, |best, _| {
        let start = now();
        f(bytes);
        best.min(now() - start)
    })
}

#[test]
fn time_grows_with_length_and_no_faster() {
    let parse = |bytes: &[u8]| {
        if let Ok(m) = Message::parse(Bytes::copy_from_slice(bytes)) {
            look(&m);
        }
    };
    let slice = |bytes: &[u8]| {
        frames(bytes, &[64]);
    };
    let slow = |what: &str, short: Duration, long: Duration| {
        // Four times the length: linear is 4, quadratic 16.
        let floor = Duration::from_micros(300);
        let bad = long > 9 * short.max(floor) || long > Duration::from_millis(100);
        bad.then(|| format!("{what}: {short:?} for a quarter, {long:?} for the whole"))
    };
    let mut wrong = Vec::new();
    for ((what, short), (_, long)) in bombs(16 * 1024).into_iter().zip(bombs(64 * 1024)) {
        assert!(long.len() <= limits::MESSAGE && long.len() > limits::MESSAGE - 64);
        wrong.extend(slow(&format!("{what}, parsed"), cost(&short, parse), cost(&long, parse)));
        wrong.extend(slow(&format!("{what}, in pieces"), cost(&short, slice), cost(&long, slice)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn limits_hold() {
    let base = |extra: &str| {
        format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n{extra}\r\n"
        )
    };
    let status = |text: String| Message::parse(Bytes::from(text)).err().map(|e| e.answer.map_or(0, |a| a.status));
    let table = [
        ("as many headers as may be", base(&"X: y\r\n".repeat(limits::HEADERS - 5)), None),
        ("one more", base(&"X: y\r\n".repeat(limits::HEADERS - 4)), Some(400)),
        ("as many Vias as may be", base(&"Via: SIP/2.0/UDP h\r\n".repeat(limits::VIAS - 1)), None),
        ("one more", base(&"Via: SIP/2.0/UDP h\r\n".repeat(limits::VIAS)), Some(400)),
        ("one more, in lists", base(&"Via: SIP/2.0/UDP h, SIP/2.0/UDP i\r\n".repeat(limits::VIAS / 2)), Some(400)),
        ("a long name", base(&format!("{}: y\r\n", "X".repeat(limits::NAME))), None),
        ("a longer name", base(&format!("{}: y\r\n", "X".repeat(limits::NAME + 1))), Some(400)),
        ("a long Call-ID", base("").replace(": c", &format!(": {}", "c".repeat(limits::IDENTIFIER))), None),
        ("a longer Call-ID", base("").replace(": c", &format!(": {}", "c".repeat(limits::IDENTIFIER + 1))), Some(400)),
        ("a long method", base("").replace("OPTIONS", &"M".repeat(limits::METHOD)), None),
        ("a longer method", base("").replace("OPTIONS", &"M".repeat(limits::METHOD + 1)), Some(0)),
        ("a long URI", base("").replace("sip:a@b S", &format!("sip:a@b;{} S", "p".repeat(limits::URI))), Some(414)),
        ("a long message", base(&format!("S: {}\r\n", "s".repeat(limits::MESSAGE))), Some(513)),
        (
            "as long as may be",
            {
                let b = base("S: \r\n");
                b.replace("S: ", &format!("S: {}", "s".repeat(limits::MESSAGE - b.len())))
            },
            None,
        ),
        ("CSeq as high as may be", base("").replace("CSeq: 1", "CSeq: 2147483647"), None),
        ("CSeq too high", base("").replace("CSeq: 1", "CSeq: 2147483648"), Some(400)),
    ];
    for (what, text, expected) in table {
        assert_eq!(status(text), expected, "{what}");
    }
}
