//! Dialogs to the letter: what a carrier says, header by header, and what we say to that. For what no telephone of the ladders does.
#![allow(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strowger::b2bua::{Action, B2bua, Event, Settings};
use strowger::base::Now;
use strowger::directory::{Directory, Node, Number, Relay, Route, Secret, Target, Trunk};
use strowger::sip::digest::{self, Challenge, Credentials};
use strowger::sip::{Flow, Message, Name, Transport, Writer};

const HERE: &str = "192.0.2.1:5060";
const CARRIER: &str = "203.0.113.1:5060";
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";

/// A carrier that calls a number of ours, and the number that such calls are forwarded to, through the same carrier. Media passes us by.
struct Lab {
    b2bua: B2bua,
    now: Now,
    sent: VecDeque<Message>,
}

impl Lab {
    fn new() -> Lab {
        let mut directory = Directory::empty(Node::new("lab", "lab.example"));
        directory.media.relay = Relay::Never;
        let mut trunk = Trunk::new("carrier", &format!("sip:{CARRIER}"));
        (trunk.username, trunk.password) = (Some("office".into()), Some(Secret("secret".into())));
        directory.trunks.push(trunk);
        directory.numbers.push(Number::new("+73833000001".parse().expect("a number"), "carrier"));
        let to = Target::Number("+79120000001".parse().expect("a number"));
        directory.routes.push(Route::new("all", to));
        let settings = Settings { listen: vec![(Transport::Udp, address(HERE))], ..Settings::default() };
        let b2bua = B2bua::new(Arc::new(directory.indexed()), settings, [7; 32]);
        Lab { b2bua, now: Now::default(), sent: VecDeque::new() }
    }

    /// A call comes in, and goes out again: our INVITE.
    fn called() -> (Lab, Message) {
        let mut lab = Lab::new();
        lab.asks("INVITE", 1, "", SDP);
        let invite = lab.request("INVITE");
        (lab, invite)
    }

    fn hears(&mut self, bytes: Bytes) {
        let flow = Flow { transport: Transport::Udp, local: address(HERE), remote: address(CARRIER), conn: 0 };
        self.happens(Event::Received { flow, bytes });
    }

    fn happens(&mut self, event: Event) {
        self.b2bua.handle(self.now, event);
        while let Some(action) = self.b2bua.poll() {
            if let Action::Send { bytes, .. } = action {
                self.sent.push_back(Message::parse(bytes).expect("we write what can be read"));
            }
        }
    }

    fn waits(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.happens(Event::Tick);
    }

    /// A request of the caller's; `tag` is ours.
    fn asks(&mut self, method: &str, seq: u32, tag: &str, body: &str) {
        let tag = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{method} sip:+73833000001@{HERE} SIP/2.0\r\nVia: SIP/2.0/UDP {CARRIER};branch=z9hG4bK{method}{seq}\r\nMax-Forwards: 70\r\n\
             From: <sip:+79131234567@{CARRIER}>;tag=a\r\nTo: <sip:+73833000001@{HERE}>{tag}\r\nCall-ID: in\r\nCSeq: {seq} {method}\r\n\
             Contact: <sip:{CARRIER}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.hears(Bytes::from(text));
    }

    /// The answer to a request of ours, with these header lines.
    fn answers(&mut self, request: &Message, status: u16, lines: &[(Name, &str)], body: &str) -> Bytes {
        let mut w = Writer::answer(request, address(HERE), status, "So", Some("b"));
        for (name, value) in lines {
            w.header(*name, value);
        }
        let bytes = if body.is_empty() { w.finish() } else { w.body("application/sdp", body.as_bytes()) };
        self.hears(bytes.clone());
        bytes
    }

    /// The next request of ours with this method.
    fn request(&mut self, method: &str) -> Message {
        let at = self.sent.iter().position(|msg| msg.is_request() && msg.method_text() == method);
        at.and_then(|at| self.sent.remove(at)).unwrap_or_else(|| panic!("no {method} in {:?}", self.sent))
    }

    /// Our next answer to that method.
    fn answer(&mut self, method: &str) -> Message {
        let of = |msg: &Message| !msg.is_request() && msg.status() > 100 && msg.method().as_str() == method;
        let at = self.sent.iter().position(of);
        at.and_then(|at| self.sent.remove(at)).unwrap_or_else(|| panic!("no answer to {method} in {:?}", self.sent))
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

const CONTACT: (Name, &str) = (Name::Contact, "<sip:+79120000001@203.0.113.1:5060>");

fn challenge(realm: &str, nonce: &str, more: &str) -> String {
    format!("Digest realm=\"{realm}\", nonce=\"{nonce}\"{more}")
}

/// Whether the request proves that we know the password, to this challenge, used so often.
fn proves(request: &Message, name: Name, ask: &str, uses: u32) -> bool {
    let Some(value) = request.text(name) else { return false };
    let (given, ask) =
        (Credentials::parse(value).expect("we wrote it"), Challenge::parse(ask).expect("so did the test"));
    let cnonce = given.cnonce.as_deref().unwrap_or_default();
    let (method, uri) = (request.method_text(), request.request_uri());
    value == digest::answer(&ask, "office", "secret", method, uri, cnonce, uses, request.body())
}

/// A proxy and the server behind it challenge one after the other, one of them wants the body signed, and then the session is too short.
#[test]
fn each_server_on_the_way_gets_its_proof() {
    let (mut lab, invite) = Lab::called();
    let proxy = challenge("proxy", "1", ", qop=\"auth,auth-int\"");
    let server = challenge("server", "2", ", qop=\"auth-int\", algorithm=SHA-256");
    lab.answers(&invite, 407, &[(Name::ProxyAuthenticate, &proxy)], "");
    let invite = lab.request("INVITE");
    assert!(proves(&invite, Name::ProxyAuthorization, &proxy, 1) && !invite.body().is_empty(), "{invite:?}");
    lab.answers(&invite, 401, &[(Name::WwwAuthenticate, &server)], "");
    let invite = lab.request("INVITE");
    assert!(proves(&invite, Name::ProxyAuthorization, &proxy, 2) && proves(&invite, Name::Authorization, &server, 1));
    lab.answers(&invite, 422, &[(Name::MinSe, "3600")], "");
    let invite = lab.request("INVITE");
    assert!(proves(&invite, Name::ProxyAuthorization, &proxy, 3) && proves(&invite, Name::Authorization, &server, 2));
    lab.sent.clear();
    lab.answers(&invite, 200, &[CONTACT], SDP);
    let ack = lab.request("ACK");
    for name in [Name::Authorization, Name::ProxyAuthorization] {
        assert!(ack.text(name).is_some() && ack.text(name) == invite.text(name), "the ACK says what the INVITE did");
    }
}

#[test]
fn a_wrong_password_ends_the_attempt() {
    let (mut lab, invite) = Lab::called();
    lab.answers(&invite, 401, &[(Name::WwwAuthenticate, &challenge("server", "1", ""))], "");
    let invite = lab.request("INVITE");
    lab.answers(&invite, 401, &[(Name::WwwAuthenticate, &challenge("server", "2", ""))], "");
    assert!(lab.sent.iter().all(|msg| msg.method_text() != "INVITE" || !msg.is_request()), "{:?}", lab.sent);
}

/// Within a dialog, hours later: the nonce is stale by the time that it comes back.
#[test]
fn a_stale_nonce_is_replaced_within_a_dialog() {
    let (mut lab, invite) = Lab::called();
    lab.answers(&invite, 200, &[CONTACT], SDP);
    let tag = lab.answer("INVITE").to_tag().expect("we have one").to_owned();
    lab.asks("ACK", 1, &tag, "");
    let (first, second) =
        (challenge("server", "1", ", qop=\"auth\""), challenge("server", "2", ", qop=\"auth\", stale=true"));
    let hold = SDP.replace("m=audio", "a=sendonly\r\nm=audio");
    lab.sent.clear();
    for (method, body) in [("INVITE", hold.as_str()), ("BYE", "")] {
        lab.asks(method, if body.is_empty() { 3 } else { 2 }, &tag, body);
        for ask in [&first, &second] {
            let request = lab.request(method);
            assert!(request.text(Name::Authorization).is_none() || proves(&request, Name::Authorization, &first, 1));
            lab.answers(&request, 401, &[(Name::WwwAuthenticate, ask)], "");
        }
        let request = lab.request(method);
        assert!(proves(&request, Name::Authorization, &second, 1), "{method}");
        lab.answers(&request, 200, &[CONTACT], body);
        assert!(lab.sent.iter().all(|msg| !msg.is_request() || msg.method_text() != method), "{method} once more");
    }
}

/// The ACK of the first 200 is lost, and a re-INVITE comes in between (RFC 3261 13.2.2.4).
#[test]
fn each_200_gets_its_own_ack_again() {
    let (mut lab, invite) = Lab::called();
    let ok = lab.answers(&invite, 200, &[CONTACT], SDP);
    let first = lab.request("ACK");
    let tag = lab.answer("INVITE").to_tag().expect("we have one").to_owned();
    lab.asks("ACK", 1, &tag, "");
    lab.asks("INVITE", 2, &tag, "");
    let late = lab.request("INVITE");
    assert!(late.body().is_empty());
    let late_ok = lab.answers(&late, 200, &[CONTACT], SDP);
    let answer = SDP.replace("4000", "4002");
    lab.asks("ACK", 2, &tag, &answer);
    let second = lab.request("ACK");
    assert_eq!(second.body(), answer.as_bytes());
    // what is told in between changes nothing
    lab.asks("INVITE", 3, &tag, &SDP.replace("4000", "4004"));
    let third = lab.request("INVITE");
    lab.answers(&third, 200, &[CONTACT], SDP);
    lab.request("ACK");
    for (again, ack) in [(ok, first), (late_ok, second)] {
        lab.hears(again);
        assert_eq!(lab.request("ACK").wire(), ack.wire());
    }
}

/// Our BYE overtakes the 200 of our re-INVITE, whose Record-Route is not the dialog's route (RFC 3261 12.2.1.2).
#[test]
fn a_bye_that_overtakes_a_200_is_said_once() {
    let (mut lab, invite) = Lab::called();
    lab.answers(&invite, 200, &[CONTACT, (Name::RecordRoute, "<sip:203.0.113.1:5060;lr>")], SDP);
    let tag = lab.answer("INVITE").to_tag().expect("we have one").to_owned();
    lab.asks("ACK", 1, &tag, "");
    lab.asks("INVITE", 2, &tag, &SDP.replace("4000", "4002"));
    let reinvite = lab.request("INVITE");
    lab.asks("BYE", 3, &tag, "");
    let bye = lab.request("BYE");
    lab.sent.clear();
    let ok = lab.answers(&reinvite, 200, &[CONTACT, (Name::RecordRoute, "<sip:203.0.113.99:5070;lr>")], SDP);
    let ack = lab.request("ACK");
    assert_eq!(ack.text(Name::Route), bye.text(Name::Route));
    assert_eq!(ack.cseq().seq, reinvite.cseq().seq);
    lab.hears(ok);
    assert_eq!(lab.request("ACK").wire(), ack.wire());
    assert!(lab.sent.is_empty(), "{:?}", lab.sent);
}

/// RFC 3311 5.2: the 2xx to an UPDATE has a Contact, in an early dialog too.
#[test]
fn an_early_update_learns_our_contact() {
    let (mut lab, invite) = Lab::called();
    lab.answers(&invite, 180, &[CONTACT], "");
    let tag = lab.answer("INVITE").to_tag().expect("we have one").to_owned();
    lab.asks("UPDATE", 2, &tag, "");
    let ok = lab.answer("UPDATE");
    assert_eq!((ok.status(), ok.text(Name::Contact)), (200, Some("<sip:192.0.2.1:5060>")));
    lab.waits(Duration::from_secs(1));
}
