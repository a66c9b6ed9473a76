//! The registrar's rules as tables, and random lives of phones against its bounds.

use std::net::IpAddr;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::directory::{Class, Extension, Listen, Node, Secret};
use crate::sip::digest::Algorithm;

/// A company with the extensions 121 to 123.
pub(super) fn office() -> Directory {
    let label = |s: &str| Label::from(s);
    let mut directory = Directory::empty(Node {
        name: label("test"),
        domains: vec![label("office.example")],
        digest: vec![Algorithm::Md5, Algorithm::Sha256],
        country: Some(crate::directory::Country::RU),
        zone: jiff::tz::TimeZone::UTC,
    });
    directory.listen = [Transport::Udp, Transport::Tcp]
        .map(|transport| Listen { transport, bind: SocketAddr::from(([127, 0, 0, 1], 5060)), advertise: None })
        .into();
    directory.extensions = ["121", "122", "123"]
        .map(|number| Extension {
            number: label(number),
            name: label(number),
            password: Secret(label(&format!("secret-of-{number}"))),
            branch: None,
            groups: Vec::new(),
            outbound: Class::National,
            max_calls: 2,
            paging: false,
            record: None,
            mobile: None,
            vendor: None,
            intercom_from: None,
        })
        .into();
    directory.indexed()
}

/// A flow from `192.0.2.host:port`.
pub(super) fn flow(transport: Transport, host: u8, port: u16) -> Flow {
    Flow {
        transport,
        local: SocketAddr::from(([127, 0, 0, 1], 5060)),
        remote: SocketAddr::from(([192, 0, 2, host], port)),
        conn: if transport.reliable() { u32::from(port) } else { 0 },
    }
}

/// `seconds` after the beginning of a test.
pub(super) fn at(seconds: u64) -> Now {
    let mono = Instant::from_micros(1_000_000 + seconds * 1_000_000);
    Now { mono, wall: Wall::from_micros(1_795_350_000_000_000 + seconds as i64 * 1_000_000) }
}

/// A request; `more` are whole header lines.
pub(super) fn request(method: &str, uri: &str, user: &str, cseq: u32, more: &[&str]) -> Message {
    let more: String = more.iter().flat_map(|line| [*line, "\r\n"]).collect();
    let text = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bK{cseq};rport\r\n\
         From: <sip:{user}@office.example>;tag=f{cseq}\r\nTo: <sip:{user}@office.example>\r\nCall-ID: call-{user}\r\n\
         CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n{more}Content-Length: 0\r\n\r\n"
    );
    Message::parse(Bytes::from(text)).expect("the test writes it well")
}

fn register(cseq: u32, more: &[&str]) -> Message {
    request("REGISTER", "sip:office.example", "121", cseq, more)
}

struct Desk {
    registrar: Registrar,
    office: Directory,
    changes: Vec<Change>,
}

impl Desk {
    fn new() -> Desk {
        Desk { registrar: Registrar::new(&mut Rng::from_number(1)), office: office(), changes: Vec::new() }
    }

    fn serve(&mut self, seconds: u64, flow: Flow, msg: &Message) -> Message {
        self.changes.clear();
        let bytes =
            self.registrar.register(at(seconds), flow, msg, &Label::from("121"), &self.office, &mut self.changes);
        Message::parse(bytes).expect("we write well")
    }

    /// Registers from one UDP phone.
    fn udp(&mut self, seconds: u64, cseq: u32, more: &[&str]) -> Message {
        self.serve(seconds, flow(Transport::Udp, 1, 5062), &register(cseq, more))
    }

    fn contacts(&self, seconds: u64) -> Vec<&str> {
        self.registrar.bindings("121", at(seconds)).map(|b| b.contact.as_str()).collect()
    }
}

#[test]
fn a_phone_comes_is_listed_refreshes_and_goes() {
    let mut desk = Desk::new();
    let ok = desk.udp(0, 1, &["Contact: <sip:121@10.0.0.1:5062>;expires=120", "User-Agent: test/1"]);
    assert_eq!(ok.status(), 200);
    assert_eq!(ok.text(Name::Contact), Some("<sip:121@10.0.0.1:5062>;expires=120;q=1.000"));
    assert_eq!(ok.text(Name::Date), Some("Sun, 22 Nov 2026 12:20:00 GMT"));
    assert!(ok.to_tag().is_some());
    assert!(matches!(&desk.changes[..], [Change::Added(b)] if b.user_agent.as_deref() == Some("test/1")));
    assert_eq!(desk.registrar.by_flow(&flow(Transport::Udp, 1, 5062)), Some("121"));
    assert_eq!(desk.registrar.by_flow(&flow(Transport::Udp, 1, 5063)), None);

    let listed = desk.udp(100, 2, &[]);
    assert_eq!(listed.text(Name::Contact), Some("<sip:121@10.0.0.1:5062>;expires=20;q=1.000"));
    assert!(desk.changes.is_empty());

    desk.udp(110, 3, &["Contact: <sip:121@10.0.0.1:5062>", "Expires: 300"]);
    assert!(matches!(&desk.changes[..], [Change::Refreshed(_)]));
    assert_eq!(desk.contacts(409), ["sip:121@10.0.0.1:5062"]);
    assert!(desk.contacts(410).is_empty());

    let gone = desk.udp(120, 4, &["Contact: <sip:121@10.0.0.1:5062>;expires=0"]);
    assert_eq!((gone.status(), gone.header(Name::Contact)), (200, None));
    assert!(matches!(&desk.changes[..], [Change::Removed { left: Left::SignedOff, .. }]));
    assert_eq!((desk.registrar.len(), desk.registrar.deadline()), (0, None));
    assert_eq!(desk.registrar.by_flow(&flow(Transport::Udp, 1, 5062)), None);
}

#[test]
fn answers_by_the_rules() {
    // (what it shows, header lines, status, a header of the answer)
    let many: String = (0..11).map(|i| format!("<sip:121@10.0.0.{i}>")).collect::<Vec<_>>().join(", ");
    let many = format!("Contact: {many}");
    let long = format!("Contact: <sip:121@10.0.0.1;x={}>", "x".repeat(URI_LEN));
    let two = "Contact: <sip:121@10.0.0.1>, <sip:121@10.0.0.2>;q=0.5";
    type Row<'a> = (&'a str, &'a [&'a str], u16, Option<(Name, &'a str)>);
    let rows: &[Row<'_>] = &[
        ("nobody is there", &[], 200, None),
        ("two at once", &[two], 200, None),
        ("too short", &["Contact: <sip:121@h>;expires=59"], 423, Some((Name::MinExpires, "60"))),
        ("too short in the header", &["Contact: <sip:121@h>", "Expires: 1"], 423, Some((Name::MinExpires, "60"))),
        (
            "too long is cut",
            &["Contact: <sip:121@h>;expires=999999999999"],
            200,
            Some((Name::Contact, "<sip:121@h>;expires=3600;q=1.000")),
        ),
        (
            "nonsense is an hour",
            &["Contact: <sip:121@h>;expires=soon"],
            200,
            Some((Name::Contact, "<sip:121@h>;expires=3600;q=1.000")),
        ),
        (
            "the parameter wins",
            &["Contact: <sip:121@h>;expires=90", "Expires: 0"],
            200,
            Some((Name::Contact, "<sip:121@h>;expires=90;q=1.000")),
        ),
        (
            "nothing said is an hour",
            &["Contact: <sip:121@h>;q=0.7"],
            200,
            Some((Name::Contact, "<sip:121@h>;expires=3600;q=0.700")),
        ),
        (
            "URI headers are left out",
            &["Contact: <sip:121@h;a=b?Subject=x>"],
            200,
            Some((Name::Contact, "<sip:121@h;a=b>;expires=3600;q=1.000")),
        ),
        ("star needs Expires: 0", &["Contact: *"], 400, None),
        ("star, other expiry", &["Contact: *", "Expires: 60"], 400, None),
        ("star is alone", &["Contact: *, <sip:121@h>", "Expires: 0"], 400, None),
        ("star is alone, last", &["Contact: <sip:121@h>, *", "Expires: 0"], 400, None),
        ("star on an empty list", &["Contact: *", "Expires: 0"], 200, None),
        ("no address", &["Contact: <sip:@@>"], 400, None),
        ("empty", &["Contact:"], 400, None),
        ("nobody calls a mail address", &["Contact: <mailto:x@y>"], 200, None),
        ("more than ten", &[&many], 403, None),
        ("a long one", &[&long], 400, None),
        (
            "Path without Supported",
            &["Path: <sip:edge;lr>", "Contact: <sip:121@h>"],
            420,
            Some((Name::Unsupported, "path")),
        ),
        (
            "Path",
            &["Path: <sip:edge;lr>", "Supported: path", "Contact: <sip:121@h>"],
            200,
            Some((Name::Path, "<sip:edge;lr>")),
        ),
        ("bad Path", &["Path: <tel:1>", "Supported: path", "Contact: <sip:121@h>"], 400, None),
        (
            "an instance comes back",
            &["Contact: <sip:121@h>;+sip.instance=\"<urn:uuid:1>\";reg-id=1"],
            200,
            Some((Name::Contact, "<sip:121@h>;expires=3600;q=1.000;+sip.instance=\"<urn:uuid:1>\";reg-id=1")),
        ),
    ];
    for (what, lines, status, header) in rows {
        let mut desk = Desk::new();
        let text: String = lines.iter().flat_map(|line| [*line, "\r\n"]).collect();
        let text = String::from_utf8_lossy(register(1, &["X: x"]).wire()).replace("X: x\r\n", &text);
        let msg = match Message::parse(Bytes::from(text)) {
            Ok(msg) => msg,
            Err(bad) => {
                // Some of it does not even pass the parser.
                assert_eq!(bad.answer.map(|a| a.status), Some(*status), "{what}");
                continue;
            }
        };
        let answer = desk.serve(0, flow(Transport::Udp, 1, 5062), &msg);
        assert_eq!(answer.status(), *status, "{what}");
        if let Some((name, value)) = header {
            assert_eq!(answer.text(*name), Some(*value), "{what}");
        }
        if *status != 200 {
            assert!(desk.changes.is_empty() && desk.registrar.is_empty(), "{what}: something was left behind");
        }
    }
}

#[test]
fn only_the_own_address_of_record_at_our_domain() {
    let rows = [
        ("REGISTER sip:office.example", "<sip:121@office.example>", 200),
        ("REGISTER sip:127.0.0.1:5060", "<sip:121@127.0.0.1>", 200),
        ("REGISTER sip:office.example", "<sip:%3121@OFFICE.example>", 200),
        ("REGISTER sip:office.example", "<sip:122@office.example>", 403),
        ("REGISTER sip:office.example", "<sip:121@elsewhere.example>", 404),
        ("REGISTER sip:elsewhere.example", "<sip:121@office.example>", 404),
        ("REGISTER sip:office.example", "<tel:121>", 400),
    ];
    for (line, to, status) in rows {
        let text = format!(
            "{line} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:121@office.example>;tag=1\r\nTo: {to}\r\n\
             Call-ID: a\r\nCSeq: 1 REGISTER\r\nContact: <sip:121@h>\r\nContent-Length: 0\r\n\r\n"
        );
        let msg = Message::parse(Bytes::from(text)).expect("well written");
        assert_eq!(Desk::new().serve(0, flow(Transport::Udp, 1, 1), &msg).status(), status, "{line} {to}");
    }
}

#[test]
fn old_requests_change_nothing() {
    let mut desk = Desk::new();
    assert_eq!(desk.udp(0, 5, &["Contact: <sip:121@a>"]).status(), 200);
    for (cseq, lines) in [
        (5, &["Contact: <sip:121@a>;expires=0"][..]),
        (4, &["Contact: <sip:121@b>, <sip:121@a>"][..]),
        (5, &["Contact: *", "Expires: 0"][..]),
    ] {
        assert_eq!(desk.udp(1, cseq, lines).status(), 500);
        assert!(desk.changes.is_empty());
        assert_eq!(desk.contacts(1), ["sip:121@a"]);
    }
    assert_eq!(desk.udp(2, 6, &["Contact: *", "Expires: 0"]).status(), 200);
    assert!(desk.contacts(2).is_empty());
}

#[test]
fn q_orders_and_the_freshest_comes_first() {
    let mut desk = Desk::new();
    desk.udp(0, 1, &["Contact: <sip:a@h>;q=0.5, <sip:b@h>;q=0.9, <sip:c@h>;q=0.5, <sip:d@h>;q=7"]);
    assert_eq!(desk.contacts(0), ["sip:d@h", "sip:b@h", "sip:c@h", "sip:a@h"]);
    desk.udp(1, 2, &["Contact: <sip:a@h>;q=0.5"]);
    assert_eq!(desk.contacts(1), ["sip:d@h", "sip:b@h", "sip:a@h", "sip:c@h"]);
}

#[test]
fn a_phone_that_moved_replaces_itself() {
    let mut desk = Desk::new();
    let with = |uri: &str, more: &str| format!("Contact: <{uri}>;+sip.instance=\"<urn:uuid:1>\"{more}");
    desk.udp(0, 1, &[&with("sip:121@10.0.0.1:1", "")]);
    desk.udp(1, 2, &[&with("sip:121@10.0.0.1:2", "")]);
    assert_eq!(desk.contacts(1), ["sip:121@10.0.0.1:2"]);
    assert!(
        matches!(&desk.changes[..], [Change::Removed { binding, left: Left::Replaced }, Change::Added(_)] if binding.contact == "sip:121@10.0.0.1:1")
    );
    // Two flows of one phone are two bindings; two phones with one private address are two.
    desk.udp(2, 3, &[&with("sip:121@10.0.0.1:3", ";reg-id=1"), &with("sip:121@10.0.0.1:4", ";reg-id=2")]);
    assert_eq!(desk.contacts(2).len(), 3);
    desk.udp(3, 4, &["Contact: <sip:121@10.0.0.1:2>;+sip.instance=\"<urn:uuid:2>\""]);
    assert_eq!(desk.contacts(3).len(), 4);
    // When one of two with the same contact goes, the other is told again, for the store knows them by contact.
    desk.udp(4, 5, &["Contact: <sip:121@10.0.0.1:2>;+sip.instance=\"<urn:uuid:2>\";expires=0"]);
    assert!(
        matches!(&desk.changes[..], [Change::Removed { .. }, Change::Refreshed(b)] if b.instance.as_deref() == Some("<urn:uuid:1>"))
    );
    // One request with two contacts of one instance keeps both.
    let mut desk = Desk::new();
    desk.udp(0, 1, &[&with("sip:121@h", ""), &with("sip:121@h;transport=tcp", "")]);
    assert_eq!(desk.contacts(0).len(), 2);
}

#[test]
fn ten_contacts_and_dead_ones_make_room() {
    let mut desk = Desk::new();
    for port in 1..=10 {
        let msg = register(u32::from(port), &[&format!("Contact: <sip:121@h:{port}>")]);
        assert_eq!(desk.serve(0, flow(Transport::Tcp, 1, port), &msg).status(), 200);
    }
    let eleventh = register(11, &["Contact: <sip:121@h:11>"]);
    assert_eq!(desk.serve(1, flow(Transport::Tcp, 1, 11), &eleventh).status(), 403);
    desk.registrar.flow_lost(at(1), &flow(Transport::Tcp, 1, 4));
    assert_eq!(desk.serve(2, flow(Transport::Tcp, 1, 11), &eleventh).status(), 200);
    assert!(!desk.contacts(2).contains(&"sip:121@h:4"));
    assert_eq!(desk.registrar.len(), PER_AOR);
}

#[test]
fn a_lost_connection_is_not_called_a_bounced_datagram_last_and_both_stay_registered() {
    let mut desk = Desk::new();
    let (tcp, udp) = (flow(Transport::Tcp, 1, 4000), flow(Transport::Udp, 2, 5060));
    desk.serve(0, tcp, &register(1, &["Contact: <sip:121@t>;q=0.1"]));
    desk.serve(0, udp, &register(2, &["Contact: <sip:121@u>;q=0.9"]));
    desk.registrar.flow_lost(at(10), &udp);
    assert_eq!(desk.contacts(10), ["sip:121@t", "sip:121@u"]);
    desk.registrar.flow_lost(at(10), &tcp);
    // A datagram may get through the next time; a connection only the phone can open.
    assert_eq!(desk.contacts(10), ["sip:121@u"]);
    let all: Vec<Binding> = desk.registrar.registered("121", at(10)).cloned().collect();
    let known = |desk: &Desk, n| all.iter().map(|b| desk.registrar.trouble(b, at(n))).collect::<Vec<_>>();
    let until = at(10).wall + BOUNCE;
    assert_eq!(known(&desk, 10), [Some((Trouble::Bounced, Some(until))), Some((Trouble::Closed, None))]);
    assert_eq!(known(&desk, 40), [None, Some((Trouble::Closed, None))]);
    assert_eq!(all.len(), 2);
    assert_eq!((desk.registrar.by_flow(&tcp), desk.registrar.by_flow(&udp)), (None, Some("121")));
    let again = flow(Transport::Tcp, 1, 4001);
    desk.serve(20, again, &register(3, &["Contact: <sip:121@t>;q=0.1"]));
    assert_eq!(desk.contacts(20), ["sip:121@t", "sip:121@u"]);
    assert_eq!(desk.contacts(40), ["sip:121@u", "sip:121@t"]);
    assert_eq!(desk.registrar.by_flow(&again), Some("121"));
}

#[test]
fn expiry_is_a_tick_and_a_clock_step_is_nothing() {
    let mut desk = Desk::new();
    desk.udp(0, 1, &["Contact: <sip:121@h>;expires=60"]);
    let due = desk.registrar.deadline().expect("armed");
    assert!(due >= at(60).mono && due.since(at(60).mono) <= GRID);
    let stepped = Now { mono: at(30).mono, wall: at(100_000).wall };
    assert_eq!(desk.registrar.bindings("121", stepped).count(), 1);
    desk.changes.clear();
    desk.registrar.tick(stepped, &mut desk.changes);
    assert!(desk.changes.is_empty());
    desk.registrar.tick(Now { mono: due, wall: at(0).wall }, &mut desk.changes);
    assert!(matches!(&desk.changes[..], [Change::Removed { left: Left::RanOut, .. }]));
    assert!(desk.registrar.is_empty() && desk.registrar.deadline().is_none());
}

#[test]
fn a_reload_takes_the_bindings_of_gone_extensions() {
    let mut desk = Desk::new();
    desk.udp(0, 1, &["Contact: <sip:121@h>"]);
    let mut next = office();
    next.extensions.remove(0);
    let next = next.indexed();
    desk.registrar.reload(&desk.office, &mut Vec::new());
    assert_eq!(desk.registrar.len(), 1);
    desk.registrar.reload(&next, &mut desk.changes);
    assert!(
        desk.registrar.is_empty()
            && matches!(desk.changes.last(), Some(Change::Removed { left: Left::NoExtension, .. }))
    );
}

#[test]
fn ten_thousand_come_back_at_once() {
    let mut office = office();
    let model = office.extensions[0].clone();
    office.extensions =
        (0..10_000).map(|i| Extension { number: Label::from(format!("{}", 10_000 + i)), ..model.clone() }).collect();
    let office = office.indexed();
    let bindings: Vec<Binding> = (0..10_000u32)
        .map(|i| Binding {
            aor: format!("{}", 10_000 + i),
            contact: format!("sip:{i}@h"),
            instance: None,
            path: Vec::new(),
            flow: flow(Transport::Udp, (i % 250) as u8, (i / 250) as u16 + 1),
            call_id: String::new(),
            cseq: 1,
            q: 1000,
            user_agent: None,
            expires_at: at(600).wall,
        })
        .collect();
    let mut registrar = Registrar::new(&mut Rng::from_number(1));
    let mut changes = Vec::new();
    registrar.restore(at(0), bindings, &office, &mut changes);
    assert_eq!((registrar.len(), changes.len()), (10_000, 0));
    assert_eq!(registrar.bindings("12345", at(1)).count(), 1);
    registrar.tick(at(700), &mut changes);
    assert_eq!((registrar.len(), changes.len()), (0, 10_000));
}

#[derive(Clone, Debug)]
enum Life {
    Register { who: usize, port: u16, tcp: bool, contacts: Vec<(u8, Option<u32>, Option<u8>)>, late: bool },
    Star(usize),
    Lost { port: u16, tcp: bool },
    Pass(u64),
    Restart,
}

fn life() -> impl Strategy<Value = Life> {
    let contact = (0u8..14, prop::option::of(prop_oneof![Just(0u32), Just(30), 60u32..4000]), prop::option::of(0u8..4));
    prop_oneof![
        6 => (0usize..3, 1u16..6, any::<bool>(), prop::collection::vec(contact, 0..4), prop::bool::weighted(0.1))
            .prop_map(|(who, port, tcp, contacts, late)| Life::Register { who, port, tcp, contacts, late }),
        1 => (0usize..3).prop_map(Life::Star),
        1 => (1u16..6, any::<bool>()).prop_map(|(port, tcp)| Life::Lost { port, tcp }),
        2 => (1u64..2000).prop_map(Life::Pass),
        1 => Just(Life::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever phones do: no panic, no bound exceeded, the changes tell the store all there is, and a restart gives it back.
    #[test]
    fn whatever_phones_do(lives in prop::collection::vec(life(), 1..60)) {
        let office = office();
        let mut registrar = Registrar::new(&mut Rng::from_number(3));
        let mut store: Vec<Binding> = Vec::new();
        let (mut time, mut cseq) = (0, 10);
        for life in lives {
            let mut changes = Vec::new();
            cseq += 1;
            let now = at(time);
            match life {
                Life::Register { who, port, tcp, contacts, late } => {
                    let who = &office.extensions[who].number;
                    let lines: Vec<String> = contacts.iter().map(|(c, expires, instance)| {
                        let expires = expires.map(|e| format!(";expires={e}")).unwrap_or_default();
                        let instance = instance.map(|i| format!(";+sip.instance=\"<urn:{i}>\"")).unwrap_or_default();
                        format!("Contact: <sip:{c}@h>{expires}{instance}")
                    }).collect();
                    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                    let msg = request("REGISTER", "sip:office.example", who, if late { 1 } else { cseq }, &lines);
                    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
                    let before: Vec<Binding> = registrar.all().cloned().collect();
                    let bytes = registrar.register(now, flow(transport, 1, port), &msg, who, &office, &mut changes);
                    let status = Message::parse(bytes).expect("we write well").status();
                    prop_assert!([200, 403, 423, 500].contains(&status));
                    if status != 200 {
                        prop_assert!(changes.is_empty());
                        prop_assert_eq!(before, registrar.all().cloned().collect::<Vec<_>>());
                    }
                }
                Life::Star(who) => {
                    let who = &office.extensions[who].number;
                    let msg = request("REGISTER", "sip:office.example", who, cseq, &["Contact: *", "Expires: 0"]);
                    registrar.register(now, flow(Transport::Udp, 1, 1), &msg, who, &office, &mut changes);
                    prop_assert_eq!(registrar.registered(who, now).count(), 0);
                }
                Life::Lost { port, tcp } => {
                    registrar.flow_lost(now, &flow(if tcp { Transport::Tcp } else { Transport::Udp }, 1, port));
                }
                Life::Pass(seconds) => {
                    time += seconds;
                    registrar.tick(at(time), &mut changes);
                }
                Life::Restart => {
                    registrar = Registrar::new(&mut Rng::from_number(4));
                    registrar.restore(now, store.clone(), &office, &mut changes);
                }
            }
            for change in changes {
                match change {
                    Change::Added(b) | Change::Refreshed(b) => {
                        store.retain(|s| !s.twin(&b) || s.aor != b.aor);
                        store.push(b);
                    }
                    Change::Removed { binding, .. } => {
                        store.retain(|s| s.aor != binding.aor || s.contact != binding.contact);
                    }
                }
            }
            let all: Vec<&Binding> = registrar.all().collect();
            prop_assert_eq!(all.len(), registrar.len());
            prop_assert_eq!(registrar.offices.values().sum::<usize>(), all.len());
            prop_assert_eq!(registrar.deadline().is_none(), all.is_empty());
            for e in &office.extensions {
                prop_assert!(registrar.entries(&e.number).len() <= PER_AOR);
            }
            // Connections do not survive a restart, all else does.
            let key = |b: &Binding| {
                let mut b = b.clone();
                b.flow.conn = 0;
                (b.aor.clone(), b.contact.clone(), b.instance.clone(), format!("{b:?}"))
            };
            let mut have: Vec<_> = all.iter().map(|b| key(b)).collect();
            let mut kept: Vec<_> = store.iter().map(key).collect();
            have.sort();
            kept.sort();
            prop_assert_eq!(have, kept);
            // Who lives on a flow has a binding there.
            for (path, who) in &registrar.flows {
                for w in who {
                    prop_assert!(registrar.entries(w).iter().any(|e| Path::from(&e.binding.flow) == *path));
                }
            }
        }
    }
}

#[test]
fn home_is_where_a_live_binding_is() {
    let mut desk = Desk::new();
    desk.udp(0, 1, &["Contact: <sip:121@h>;expires=60"]);
    let ip = |host| IpAddr::from([192, 0, 2, host]);
    assert!(lives(&desk.registrar.aors, at(59).mono, "121", ip(1)));
    assert!(!lives(&desk.registrar.aors, at(60).mono, "121", ip(1)));
    assert!(!lives(&desk.registrar.aors, at(1).mono, "121", ip(2)));
    assert!(!lives(&desk.registrar.aors, at(1).mono, "122", ip(1)));
    assert_eq!(desk.registrar.offices.get(&ip(1)), Some(&1));
    desk.registrar.tick(at(70), &mut Vec::new());
    assert!(desk.registrar.offices.is_empty());
}
