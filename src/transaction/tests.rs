//! Ladders of one layer on virtual time. A line of a log is `milliseconds what`: `> x` was sent, everything else was said to the user.

use proptest::prelude::*;

use super::*;
use crate::base::Rng;
use crate::sip::Transport;

const UDP: Transport = Transport::Udp;
const TCP: Transport = Transport::Tcp;

struct World {
    layer: Layer<u32>,
    flow: Flow,
    now: Instant,
    out: Vec<Output<u32>>,
    log: Vec<String>,
    sent: Vec<(Flow, Message)>,
    /// Keys of requests that came in, in order.
    servers: Vec<ServerKey>,
    /// What was asked by each, also when the layer remembers it no more: a user who repeats a 2xx still has it.
    asked: Vec<(ServerKey, Message)>,
    /// Branch and method of the requests that were handed up, in order.
    handed: Vec<String>,
}

fn flow(transport: Transport) -> Flow {
    Flow {
        transport,
        local: "192.0.2.1:5060".parse().expect("address"),
        remote: "192.0.2.9:5062".parse().expect("address"),
        conn: if transport.reliable() { 7 } else { 0 },
    }
}

fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n"))).expect("a message of our own")
}

/// A request of the peer's; `extra` are whole header lines.
fn asks(method: &str, branch: &str, extra: &str) -> Message {
    let cseq = if matches!(method, "ACK" | "CANCEL") { "INVITE" } else { method };
    let number = 1 + (cseq != "INVITE") as u32;
    let branch = if branch.is_empty() { String::new() } else { format!(";branch={branch}") };
    let tag = if extra.contains("To:") { "" } else { "To: <sip:b@example.com>\n" };
    parse(&format!(
        "{method} sip:b@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9:5062{branch}\nFrom: <sip:a@example.com>;tag=a\n{tag}\
         Call-ID: c1\nCSeq: {number} {method}\nMax-Forwards: 70\n{extra}\n"
    ))
}

impl World {
    fn new(transport: Transport) -> World {
        World::with(transport, Limits::default())
    }

    fn with(transport: Transport, limits: Limits) -> World {
        World {
            layer: Layer::new(&mut Rng::from_number(1), 3, Timing::default(), limits),
            flow: flow(transport),
            now: Instant::ZERO,
            out: Vec::new(),
            log: Vec::new(),
            sent: Vec::new(),
            servers: Vec::new(),
            asked: Vec::new(),
            handed: Vec::new(),
        }
    }

    fn note(&mut self) {
        let ms = self.now.micros() / 1000;
        for output in std::mem::take(&mut self.out) {
            let what = match output {
                Output::Send { flow, bytes } => {
                    let msg = Message::parse(bytes).expect("what we send can be read");
                    let what = match msg.status() {
                        0 => format!("> {}", msg.method_text()),
                        status => format!("> {status} {}", msg.method_text()),
                    };
                    self.sent.push((flow, msg));
                    what
                }
                Output::Request { key, msg, .. } => {
                    self.servers.push(key);
                    self.handed.push(format!("{:?} {}", msg.branch(), msg.method_text()));
                    let what = format!("request {}", msg.method_text());
                    self.asked.push((key, msg));
                    what
                }
                Output::Cancel { .. } => "cancel".into(),
                Output::Ack { .. } => "ack".into(),
                Output::Acked { .. } => "acked".into(),
                Output::Response { msg, .. } => format!("response {} {}", msg.status(), msg.method_text()),
                Output::Stray { msg, .. } => format!("stray {} {}", msg.status(), msg.method_text()),
                Output::Timeout { .. } => "timeout".into(),
                Output::Failed { error, .. } => format!("failed {error:?}"),
                Output::NoAck { .. } => "no ack".into(),
                Output::Lost { .. } => "lost".into(),
            };
            self.log.push(format!("{ms} {what}"));
        }
    }

    /// Lets time pass, serving every deadline at its time.
    fn until(&mut self, ms: u64) -> &mut World {
        let end = Instant::from_micros(ms * 1000);
        while let Some(at) = self.layer.deadline().filter(|at| *at <= end) {
            assert!(at >= self.now, "a deadline in the past");
            self.now = at;
            self.layer.tick(at, &mut self.out);
            assert!(self.layer.deadline().is_none_or(|next| next > at), "a deadline that was served stays");
            self.note();
        }
        self.now = end;
        self
    }

    fn receive(&mut self, msg: Message) -> &mut World {
        self.layer.receive(self.now, self.flow, msg, &mut self.out);
        self.note();
        self
    }

    fn receive_from(&mut self, remote: &str, msg: Message) -> &mut World {
        let flow = Flow { remote: remote.parse().expect("address"), ..self.flow };
        self.layer.receive(self.now, flow, msg, &mut self.out);
        self.note();
        self
    }

    /// The user answers the last request that came in.
    fn respond(&mut self, status: u16) -> &mut World {
        let key = *self.servers.last().expect("a request came in");
        self.respond_to(key, status)
    }

    fn respond_to(&mut self, key: ServerKey, status: u16) -> &mut World {
        let (_, request) =
            self.asked.iter().rfind(|(asked, _)| *asked == key).expect("a request with this key came in");
        let tag = (status > 100).then_some("b");
        let bytes = Writer::answer(request, self.flow.remote, status, "So", tag).finish();
        self.layer.respond(self.now, key, status, bytes, &mut self.out);
        self.note();
        self
    }

    /// We send a request.
    fn request(&mut self, method: Method) -> ClientKey {
        let (key, branch) = self.layer.branch();
        let mut w = Writer::request(method.as_str(), "sip:b@192.0.2.9;x=1");
        w.header(Name::Via, format!("SIP/2.0/UDP 192.0.2.1:5060;branch={branch};rport"))
            .header(Name::MaxForwards, "70")
            .header(Name::Route, "<sip:p1;lr>, <sip:p2;lr>")
            .header(Name::From, "<sip:a@example.com>;tag=a")
            .header(Name::To, "<sip:b@example.com>")
            .header(Name::CallId, "c1")
            .header(Name::CSeq, format!("7 {}", method.as_str()))
            .header(Name::Contact, "<sip:a@192.0.2.1>");
        let bytes = w.body("application/sdp", b"v=0\r\n");
        self.layer.request(self.now, key, self.flow, bytes, method, 42, &mut self.out);
        self.note();
        key
    }

    fn cancel(&mut self, key: ClientKey, reason: Option<&str>) -> &mut World {
        self.layer.cancel(self.now, key, reason, &mut self.out);
        self.note();
        self
    }

    /// The peer answers the request that we sent as the `n`th message.
    fn answered(&mut self, n: usize, status: u16) -> &mut World {
        self.answered_by(n, status, "b")
    }

    fn answered_by(&mut self, n: usize, status: u16, tag: &str) -> &mut World {
        let request = &self.sent[n].1;
        let tag = (status > 100).then_some(tag);
        let bytes = Writer::answer(request, self.flow.local, status, "So", tag).finish();
        self.receive(Message::parse(bytes).expect("an answer"))
    }

    fn last(&self) -> &Message {
        &self.sent.last().expect("something was sent").1
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn check(world: &mut World, ladder: &str, at_rest: bool) {
    let expected: Vec<&str> = ladder.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(world.log(), expected);
    assert_eq!(
        world.layer.is_empty(),
        at_rest,
        "slots: {:?}, deadline {:?}",
        world.layer.len(),
        world.layer.deadline()
    );
}

#[test]
fn a_branch_is_its_slot_and_nothing_else() {
    for (slot, secret) in [(0, 0), (u64::MAX, u64::MAX), (0x0000_0001_0000_002a, 0x0123_4567_89ab_cdef)] {
        let text = encode(3, slot, secret);
        assert_eq!(text.len(), 36);
        assert_eq!(decode(&text, 3), Some((slot, secret)));
        assert_eq!(decode(&text, 4), None, "another engine's");
        assert_eq!(decode(&text[..35], 3), None);
        assert_eq!(decode(&text.to_uppercase(), 3), None);
        let mut other = text.clone();
        other.pop();
        other.push('1');
        assert_eq!(decode(&other, 3), None, "a second spelling");
    }
}

#[test]
fn invite_client_timers_a_and_b() {
    let mut w = World::new(UDP);
    w.request(Method::Invite);
    w.until(60_000);
    check(
        &mut w,
        "0 > INVITE
         500 > INVITE
         1500 > INVITE
         3500 > INVITE
         7500 > INVITE
         15500 > INVITE
         31500 > INVITE
         32000 timeout",
        true,
    );
    let mut w = World::new(TCP);
    w.request(Method::Invite);
    w.until(60_000);
    check(&mut w, "0 > INVITE\n32000 timeout", true);
}

#[test]
fn client_timers_e_and_f() {
    let mut w = World::new(UDP);
    w.request(Method::Options);
    w.until(60_000);
    check(
        &mut w,
        "0 > OPTIONS
         500 > OPTIONS
         1500 > OPTIONS
         3500 > OPTIONS
         7500 > OPTIONS
         11500 > OPTIONS
         15500 > OPTIONS
         19500 > OPTIONS
         23500 > OPTIONS
         27500 > OPTIONS
         31500 > OPTIONS
         32000 timeout",
        true,
    );
    let mut w = World::new(UDP);
    w.request(Method::Bye);
    w.until(100).answered(0, 100).until(9000);
    // a 1xx: the running pause ends, then every T2
    check(&mut w, "0 > BYE\n100 response 100 BYE\n500 > BYE\n4500 > BYE\n8500 > BYE", false);
    w.until(60_000);
    assert_eq!(w.log().last().map(String::as_str), Some("32000 timeout"));
    let mut w = World::new(TCP);
    w.request(Method::Bye);
    w.until(60_000);
    check(&mut w, "0 > BYE\n32000 timeout", true);
}

#[test]
fn client_timer_k_absorbs_repeated_answers() {
    let mut w = World::new(UDP);
    w.request(Method::Bye);
    w.until(20).answered(0, 200).until(4000).answered(0, 200).until(5000);
    check(&mut w, "0 > BYE\n20 response 200 BYE", false);
    // K: 20 + 5000, on the grid 5250
    w.until(5249);
    assert!(!w.layer.is_empty());
    w.until(5250);
    assert!(w.layer.is_empty());
    w.answered(0, 200);
    check(&mut w, "5250 stray 200 BYE", true);
    let mut w = World::new(TCP);
    w.request(Method::Bye);
    w.until(20).answered(0, 200);
    check(&mut w, "0 > BYE\n20 response 200 BYE", true);
}

#[test]
fn invite_client_refused_acknowledges_each_refusal_until_d() {
    let mut w = World::new(UDP);
    w.request(Method::Invite);
    w.answered(0, 180).until(100).answered(0, 486).until(600).answered(0, 486).answered(0, 180).until(32_249);
    check(
        &mut w,
        "0 > INVITE
         0 response 180 INVITE
         100 > ACK
         100 response 486 INVITE
         600 > ACK",
        false,
    );
    w.until(32_250);
    assert!(w.layer.is_empty(), "D");
    let ack = w.last();
    let invite = &w.sent[0].1;
    assert_eq!(ack.branch(), invite.branch());
    assert_eq!(ack.request_uri(), invite.request_uri());
    assert_eq!(ack.text(Name::Route), Some("<sip:p1;lr>, <sip:p2;lr>"));
    assert_eq!((ack.from_tag(), ack.to_tag(), ack.call_id()), (Some("a"), Some("b"), "c1"));
    assert_eq!(ack.text(Name::CSeq), Some("7 ACK"));
    assert!(!ack.has(Name::Contact) && ack.body().is_empty());
    let mut w = World::new(TCP);
    w.request(Method::Invite);
    w.answered(0, 486);
    check(&mut w, "0 > INVITE\n0 > ACK\n0 response 486 INVITE", true);
}

#[test]
fn invite_client_accepted_hands_up_every_2xx_until_m() {
    for transport in [UDP, TCP] {
        let mut w = World::new(transport);
        w.request(Method::Invite);
        w.answered(0, 180).answered(0, 200).until(500).answered(0, 200).answered_by(0, 200, "b2").answered(0, 486);
        w.answered(0, 180).until(31_999);
        check(
            &mut w,
            "0 > INVITE
             0 response 180 INVITE
             0 response 200 INVITE
             500 response 200 INVITE
             500 response 200 INVITE",
            false,
        );
        w.until(32_000);
        assert!(w.layer.is_empty(), "M");
    }
}

#[test]
fn a_refused_invite_may_still_be_accepted_by_another_branch() {
    let mut w = World::new(UDP);
    w.request(Method::Invite);
    w.answered(0, 486).answered_by(0, 200, "b2");
    check(&mut w, "0 > INVITE\n0 > ACK\n0 response 486 INVITE\n0 stray 200 INVITE", false);
}

#[test]
fn a_cancel_waits_for_the_first_provisional_answer() {
    let mut w = World::new(UDP);
    let key = w.request(Method::Invite);
    w.until(100).cancel(key, Some("SIP;cause=200;text=\"Call completed elsewhere\"")).cancel(key, None).until(600);
    check(&mut w, "0 > INVITE\n500 > INVITE", false);
    w.answered(0, 180);
    check(&mut w, "600 response 180 INVITE\n600 > CANCEL", false);
    let (cancel, invite) = (w.last().clone(), w.sent[0].1.clone());
    for name in [Name::Via, Name::Route, Name::From, Name::To, Name::CallId] {
        assert_eq!(cancel.header(name), invite.header(name), "{name:?}");
    }
    assert_eq!(cancel.request_uri(), invite.request_uri());
    assert_eq!(cancel.text(Name::CSeq), Some("7 CANCEL"));
    assert_eq!(cancel.text(Name::Reason), Some("SIP;cause=200;text=\"Call completed elsewhere\""));
    // its own transaction repeats it until it is answered; the 487 gets its ACK
    w.cancel(key, None).until(1200);
    let cancel_at = w.sent.len() - 1;
    w.answered(cancel_at, 200).until(5000).answered(cancel_at, 200).answered(0, 487).until(10_000).answered(0, 487);
    check(
        &mut w,
        "1100 > CANCEL
         5000 > ACK
         5000 response 487 INVITE
         10000 > ACK",
        false,
    );
    w.until(40_000);
    check(&mut w, "", true);
}

#[test]
fn a_cancel_without_a_final_answer_ends_after_64_t1() {
    for transport in [UDP, TCP] {
        let mut w = World::new(transport);
        let key = w.request(Method::Invite);
        w.answered(0, 100).until(1000).cancel(key, None);
        let cancel = w.sent.len() - 1;
        w.until(1010).answered(cancel, 200).until(60_000);
        check(
            &mut w,
            "0 > INVITE
             0 response 100 INVITE
             1000 > CANCEL
             33000 timeout",
            true,
        );
    }
    // nobody answers the INVITE at all
    let mut w = World::new(TCP);
    let key = w.request(Method::Invite);
    w.cancel(key, None).until(60_000);
    check(&mut w, "0 > INVITE\n32000 timeout", true);
}

/// RFC 5407 3.1.2, and the regression "200 OK racing CANCEL": the user sees the 200 and is to send ACK and BYE.
#[test]
fn a_cancel_that_crosses_a_200() {
    for transport in [UDP, TCP] {
        let mut w = World::new(transport);
        let key = w.request(Method::Invite);
        w.answered(0, 180).cancel(key, None).answered(0, 200);
        w.answered(1, 481).cancel(key, None).until(60_000);
        check(
            &mut w,
            "0 > INVITE
             0 response 180 INVITE
             0 > CANCEL
             0 response 200 INVITE",
            true,
        );
    }
}

/// The answer to the CANCEL comes after the 487: over TCP the INVITE's transaction is over by then.
#[test]
fn an_answer_to_a_cancel_is_never_a_stray() {
    let mut w = World::new(TCP);
    let key = w.request(Method::Invite);
    w.answered(0, 180).cancel(key, None).answered(0, 487).answered(1, 200);
    check(
        &mut w,
        "0 > INVITE
         0 response 180 INVITE
         0 > CANCEL
         0 > ACK
         0 response 487 INVITE",
        true,
    );
}

#[test]
fn answers_that_are_not_ours_are_strays() {
    let mut w = World::new(UDP);
    w.request(Method::Invite);
    let text = String::from_utf8_lossy(w.sent[0].1.wire()).into_owned();
    let answer = |from: &str, to: &str| {
        let text = text.replace(from, to).replacen("INVITE sip:b@192.0.2.9;x=1 SIP/2.0", "SIP/2.0 200 OK", 1);
        Message::parse(Bytes::from(text)).expect("an answer")
    };
    let branch = w.sent[0].1.branch().unwrap_or_default().to_string();
    let mut flipped = branch.clone();
    let last = flipped.pop().map_or('0', |c| if c == '0' { 'g' } else { '0' });
    flipped.push(last);
    w.log();
    for (what, msg) in [
        ("another method", answer("7 INVITE", "7 BYE")),
        ("another secret", answer(&branch, &flipped)),
        ("no branch of ours", answer(&branch, "z9hG4bKabc")),
    ] {
        w.receive(msg);
        assert!(w.log().iter().all(|l| l.contains("stray")), "{what}");
    }
    assert_eq!(w.layer.counts().stray, 3);
    w.receive(answer("x", "x"));
    check(&mut w, "0 response 200 INVITE", false);
}

#[test]
fn a_transport_failure_ends_what_is_unanswered() {
    let mut w = World::new(UDP);
    w.request(Method::Invite);
    w.request(Method::Options);
    w.request(Method::Invite);
    w.answered(2, 180);
    w.layer.lost(w.now, w.flow, Failure::Refused, &mut w.out);
    w.note();
    check(
        &mut w,
        "0 > INVITE
         0 > OPTIONS
         0 > INVITE
         0 response 180 INVITE
         0 failed Refused
         0 failed Refused",
        false,
    );
    let mut w = World::new(TCP);
    let key = w.request(Method::Invite);
    w.layer.failed(w.now, key, Failure::Closed, &mut w.out);
    w.note();
    w.receive(asks("INVITE", "z9hG4bK1", "")).receive(asks("OPTIONS", "z9hG4bK2", ""));
    w.layer.lost(w.now, w.flow, Failure::Closed, &mut w.out);
    w.note();
    check(
        &mut w,
        "0 > INVITE
         0 failed Closed
         0 request INVITE
         0 request OPTIONS
         0 lost
         0 lost",
        false,
    );
    let invite = w.servers[0];
    w.respond_to(invite, 487).until(60_000);
    check(&mut w, "0 > 487 INVITE\n32000 no ack", true);
}

#[test]
fn an_invite_gets_its_100_and_its_last_answer_again() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).until(300).receive(asks("INVITE", "z9hG4bK1", ""));
    w.respond(180).receive(asks("INVITE", "z9hG4bK1", "")).until(100_000);
    check(
        &mut w,
        "0 request INVITE
         200 > 100 INVITE
         300 > 100 INVITE
         300 > 180 INVITE
         300 > 180 INVITE",
        false,
    );
    // the user is quicker
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(100).respond(183).until(1000);
    check(&mut w, "0 request INVITE\n0 > 100 INVITE\n0 > 183 INVITE", false);
    assert_eq!(w.layer.deadline(), None);
    // at once
    let mut w = World::with(UDP, Limits { trying_after: Duration::ZERO, ..Limits::default() });
    w.receive(asks("INVITE", "z9hG4bK1", "")).until(1000);
    check(&mut w, "0 > 100 INVITE\n0 request INVITE", false);
    assert_eq!(w.last().to_tag(), None);
}

#[test]
fn invite_server_timers_g_and_h() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(486).until(60_000);
    check(
        &mut w,
        "0 request INVITE
         0 > 486 INVITE
         500 > 486 INVITE
         1500 > 486 INVITE
         3500 > 486 INVITE
         7500 > 486 INVITE
         11500 > 486 INVITE
         15500 > 486 INVITE
         19500 > 486 INVITE
         23500 > 486 INVITE
         27500 > 486 INVITE
         31500 > 486 INVITE
         32000 no ack",
        true,
    );
    let mut w = World::new(TCP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(486).until(60_000);
    check(&mut w, "0 request INVITE\n0 > 486 INVITE\n32000 no ack", true);
}

#[test]
fn invite_server_timer_i_absorbs_acks() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(486).receive(asks("INVITE", "z9hG4bK1", ""));
    w.until(20).receive(asks("ACK", "z9hG4bK1", "")).receive(asks("ACK", "z9hG4bK1", ""));
    w.receive(asks("INVITE", "z9hG4bK1", "")).until(5249);
    check(
        &mut w,
        "0 request INVITE
         0 > 486 INVITE
         0 > 486 INVITE
         20 acked",
        false,
    );
    w.until(5250);
    assert!(w.layer.is_empty(), "I");
    let mut w = World::new(TCP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(486).receive(asks("ACK", "z9hG4bK1", ""));
    check(&mut w, "0 request INVITE\n0 > 486 INVITE\n0 acked", true);
}

#[test]
fn invite_server_timer_l_absorbs_invites_and_holds_nothing() {
    for transport in [UDP, TCP] {
        let mut w = World::new(transport);
        w.receive(asks("INVITE", "z9hG4bK1", "")).respond(180).respond(200);
        let key = w.servers[0];
        assert!(w.layer.request_of(key).is_none());
        w.receive(asks("INVITE", "z9hG4bK1", "")).receive(asks("ACK", "z9hG4bK2", "")).until(31_999);
        // RFC 2543 gave the ACK the INVITE's branch
        w.receive(asks("ACK", "z9hG4bK1", ""));
        check(
            &mut w,
            "0 request INVITE
             0 > 180 INVITE
             0 > 200 INVITE
             0 ack
             31999 ack",
            false,
        );
        w.until(32_000);
        assert!(w.layer.is_empty(), "L");
    }
}

#[test]
fn server_timer_j_repeats_the_answer() {
    let mut w = World::new(UDP);
    w.receive(asks("OPTIONS", "z9hG4bK1", "")).receive(asks("OPTIONS", "z9hG4bK1", "")).respond(200);
    w.until(10).receive(asks("OPTIONS", "z9hG4bK1", "")).until(31_999).receive(asks("OPTIONS", "z9hG4bK1", ""));
    check(
        &mut w,
        "0 request OPTIONS
         0 > 200 OPTIONS
         10 > 200 OPTIONS
         31999 > 200 OPTIONS",
        false,
    );
    w.until(32_000);
    assert!(w.layer.is_empty(), "J");
    let mut w = World::new(TCP);
    w.receive(asks("OPTIONS", "z9hG4bK1", "")).respond(200);
    check(&mut w, "0 request OPTIONS\n0 > 200 OPTIONS", true);
    // nobody answers
    let mut w = World::new(UDP);
    w.receive(asks("OPTIONS", "z9hG4bK1", "")).until(32_000);
    check(&mut w, "0 request OPTIONS", true);
}

#[test]
fn there_is_one_final_answer() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(486).respond(200).respond(180).respond(603);
    w.receive(asks("OPTIONS", "z9hG4bK2", "")).respond(200).respond(404);
    w.receive(asks("INVITE", "z9hG4bK3", "")).respond(200).respond(200).respond(202).respond(487);
    check(
        &mut w,
        "0 request INVITE
         0 > 486 INVITE
         0 request OPTIONS
         0 > 200 OPTIONS
         0 request INVITE
         0 > 200 INVITE
         0 > 200 INVITE",
        false,
    );
}

#[test]
fn a_cancel_meets_its_invite() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(180);
    w.layer.set_user(w.servers[0], 9);
    w.receive(asks("CANCEL", "z9hG4bK1", ""));
    assert_eq!(w.last().to_tag(), Some("b"), "the tag of the INVITE's answers");
    // again, and an INVITE that was still on its way: answered from state, one 487
    w.receive(asks("CANCEL", "z9hG4bK1", "")).receive(asks("INVITE", "z9hG4bK1", "")).respond(487);
    w.receive(asks("INVITE", "z9hG4bK1", "")).receive(asks("CANCEL", "z9hG4bK1", ""));
    w.receive(asks("ACK", "z9hG4bK1", "")).receive(asks("CANCEL", "z9hG4bK1", ""));
    check(
        &mut w,
        "0 request INVITE
         0 > 180 INVITE
         0 > 200 CANCEL
         0 cancel
         0 > 200 CANCEL
         0 > 180 INVITE
         0 > 487 INVITE
         0 > 487 INVITE
         0 > 200 CANCEL
         0 acked
         0 > 200 CANCEL",
        false,
    );
    // before any answer: some tag, the same each time
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).receive(asks("CANCEL", "z9hG4bK1", ""));
    let tag = w.last().to_tag().map(String::from);
    assert!(tag.is_some());
    w.receive(asks("CANCEL", "z9hG4bK1", ""));
    assert_eq!(w.last().to_tag().map(String::from), tag);
}

/// RFC 5407 3.1.2 seen by the callee: too late, and harmless.
#[test]
fn a_cancel_after_the_200_has_no_effect() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(200).receive(asks("CANCEL", "z9hG4bK1", ""));
    assert_eq!(w.last().to_tag(), Some("b"));
    check(&mut w, "0 request INVITE\n0 > 200 INVITE\n0 > 200 CANCEL", false);
}

#[test]
fn a_cancel_without_its_invite_gets_481() {
    let mut w = World::new(UDP);
    w.receive(asks("CANCEL", "z9hG4bK1", ""));
    w.receive(asks("INVITE", "z9hG4bK2", "")).receive_from("203.0.113.66:5062", asks("CANCEL", "z9hG4bK2", ""));
    check(
        &mut w,
        "0 > 481 CANCEL
         0 request INVITE
         0 > 481 CANCEL",
        false,
    );
    assert_eq!(w.layer.counts().lone_cancel, 2);
    // another branch, another sent-by
    w.receive(asks("CANCEL", "z9hG4bK3", ""));
    let other =
        String::from_utf8_lossy(asks("CANCEL", "z9hG4bK2", "").wire()).replace("192.0.2.9:5062", "192.0.2.9:5063");
    w.receive(Message::parse(Bytes::from(other)).expect("a CANCEL"));
    check(&mut w, "0 > 481 CANCEL\n0 > 481 CANCEL", false);
}

#[test]
fn another_peer_changes_nothing() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(486);
    w.receive_from("203.0.113.66:5062", asks("ACK", "z9hG4bK1", ""));
    w.receive_from("203.0.113.66:5062", asks("INVITE", "z9hG4bK1", ""));
    check(&mut w, "0 request INVITE\n0 > 486 INVITE", false);
    assert_eq!(w.layer.counts().foreign, 2);
    // the same peer from another port: its NAT forgot it
    w.receive_from("192.0.2.9:9999", asks("INVITE", "z9hG4bK1", ""));
    assert_eq!(w.sent.last().map(|(flow, _)| flow.remote.port()), Some(9999));
}

#[test]
fn answers_go_where_the_request_came_from() {
    let mut w = World::new(UDP);
    w.receive_from("198.51.100.7:33333", asks("OPTIONS", "z9hG4bK1", "")).respond(200);
    assert_eq!(w.sent.last().map(|(flow, _)| flow.remote.to_string()).as_deref(), Some("198.51.100.7:33333"));
}

/// RFC 3261 17.2.3 for peers of RFC 2543: no branch, or an old one. (The cookie alone does not pass the parser.)
#[test]
fn peers_of_rfc_2543() {
    for branch in ["", "1"] {
        let mut w = World::new(UDP);
        w.receive(asks("INVITE", branch, "")).receive(asks("INVITE", branch, "")).respond(180);
        w.receive(asks("CANCEL", branch, "")).respond(487).receive(asks("INVITE", branch, ""));
        w.receive(asks("ACK", branch, "To: <sip:b@example.com>;tag=wrong\n"));
        w.receive(asks("ACK", branch, "To: <sip:b@example.com>;tag=b\n"));
        check(
            &mut w,
            "0 request INVITE
             0 > 100 INVITE
             0 > 180 INVITE
             0 > 200 CANCEL
             0 cancel
             0 > 487 INVITE
             0 > 487 INVITE
             0 ack
             0 acked",
            false,
        );
        // the ACK of a 2xx is the dialog's
        let mut w = World::new(UDP);
        w.receive(asks("INVITE", branch, "")).respond(200).receive(asks(
            "ACK",
            branch,
            "To: <sip:b@example.com>;tag=b\n",
        ));
        check(&mut w, "0 request INVITE\n0 > 200 INVITE\n0 ack", false);
        // the same but for one part: another transaction
        let mut w = World::new(UDP);
        let first = String::from_utf8_lossy(asks("OPTIONS", branch, "").wire()).into_owned();
        let others = [("Call-ID: c1", "Call-ID: c2"), ("CSeq: 2", "CSeq: 3"), ("tag=a", "tag=z"), ("5062", "5063")];
        w.receive(Message::parse(Bytes::from(first.clone())).expect("OPTIONS"));
        for (from, to) in others
            .into_iter()
            .chain([("OPTIONS sip:b@", "OPTIONS sip:c@"), ("b@example.com>\r\nC", "b@example.com>;tag=q\r\nC")])
        {
            let other = first.replacen(from, to, 1);
            assert_ne!(other, first);
            w.log();
            w.receive(Message::parse(Bytes::from(other)).expect("OPTIONS"));
            assert_eq!(w.log(), ["0 request OPTIONS"], "{from}");
        }
        w.receive(Message::parse(Bytes::from(first)).expect("OPTIONS"));
        check(&mut w, "", false);
    }
}

#[test]
fn long_branches_are_matched_and_not_remembered() {
    let long = format!("z9hG4bK{}", "x".repeat(900));
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", &long, "")).respond(486).receive(asks("INVITE", &long, ""));
    w.receive(asks("INVITE", &format!("{long}y"), "")).respond(486).receive(asks("ACK", &long, ""));
    check(
        &mut w,
        "0 request INVITE
         0 > 486 INVITE
         0 > 486 INVITE
         0 request INVITE
         0 > 486 INVITE
         0 acked",
        false,
    );
    assert!(w.layer.servers.values().all(|s| s.id.len() <= LONG_ID));
}

#[test]
fn methods_are_apart_and_case_is_kept() {
    let mut w = World::new(UDP);
    for method in ["OPTIONS", "BYE", "Options", "NEWMETHOD", "OTHERMETHOD"] {
        w.receive(asks(method, "z9hG4bK1", ""));
    }
    assert_eq!(w.log().len(), 5);
    assert_eq!(w.layer.len(), (5, 0));
}

#[test]
fn full_tables_refuse_and_hold_nothing() {
    let mut w = World::with(UDP, Limits { servers: 4, clients: 1, ..Limits::default() });
    for n in 0..6 {
        w.receive(asks("OPTIONS", &format!("z9hG4bK{n}"), ""));
    }
    assert_eq!((w.last().status(), w.last().text(Name::RetryAfter)), (503, Some("5")));
    assert!(w.last().to_tag().is_some());
    assert_eq!((w.layer.len(), w.layer.counts().full), ((4, 0), 2));
    // a call can still be ended; its retransmission is known
    w.log();
    w.receive(asks("BYE", "z9hG4bKb", "To: <sip:b@example.com>;tag=b\n")).receive(asks("OPTIONS", "z9hG4bK0", ""));
    w.receive(asks("BYE", "z9hG4bKc", "To: <sip:b@example.com>;tag=b\n"));
    check(&mut w, "0 request BYE\n0 > 503 BYE", false);
    w.request(Method::Options);
    w.request(Method::Options);
    check(&mut w, "0 > OPTIONS\n0 failed Full", false);
}

#[test]
fn a_dismissed_request_is_forgotten() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", ""));
    let bytes = Writer::answer(&asks("INVITE", "z9hG4bK1", ""), w.flow.remote, 401, "Unauthorized", Some("t")).finish();
    w.layer.dismiss(w.servers[0], bytes, &mut w.out);
    w.note();
    assert!(w.layer.is_empty() && w.layer.deadline().is_none());
    w.receive(asks("ACK", "z9hG4bK1", ""));
    check(&mut w, "0 request INVITE\n0 > 401 INVITE\n0 ack", true);
    let (key, _) = w.layer.branch();
    w.layer.release(key);
    assert!(w.layer.is_empty());
}

/// A flood of strangers, each answered and forgotten, leaves nothing: neither transactions nor deadlines.
#[test]
fn a_flood_that_is_dismissed_costs_nothing() {
    let mut w = World::new(UDP);
    for n in 0..1000 {
        w.receive(asks(["INVITE", "REGISTER"][n % 2], &format!("z9hG4bK{n}"), ""));
        let key = *w.servers.last().expect("a request");
        assert!(w.layer.deadline().is_some());
        w.layer.dismiss(key, Bytes::new(), &mut w.out);
        w.out.clear();
    }
    assert!(w.layer.is_empty() && w.layer.timers.is_empty() && w.layer.deadline().is_none());
}

/// What an established call leaves behind wakes nobody up before its time, and weighs little.
#[test]
fn an_established_call_is_quiet() {
    let mut w = World::new(UDP);
    w.receive(asks("INVITE", "z9hG4bK1", "")).respond(100);
    w.request(Method::Invite);
    w.answered(w.sent.len() - 1, 180).respond(180);
    w.answered(1, 200).respond(200).receive(asks("ACK", "z9hG4bK2", ""));
    assert_eq!(w.layer.deadline(), Some(Instant::from_micros(32_000_000)));
    assert!(size_of::<Server<u64>>() <= 400, "{}", size_of::<Server<u64>>());
    assert!(size_of::<Client<u64>>() <= 320, "{}", size_of::<Client<u64>>());
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u16),
    Peer(u8, u8),
    User(u8, u16),
    Send(bool),
    Cancel(u8),
    Answer(u8, u16),
    Break(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop::sample::select(vec![100u16, 180, 183, 200, 202, 302, 401, 486, 487, 503, 603]);
    prop_oneof![
        (0u16..9000).prop_map(Step::Wait),
        (0u8..5, 0u8..4).prop_map(|(m, b)| Step::Peer(m, b)),
        (0u8..8, status.clone()).prop_map(|(k, s)| Step::User(k, s)),
        any::<bool>().prop_map(Step::Send),
        (0u8..8).prop_map(Step::Cancel),
        (0u8..16, status).prop_map(|(n, s)| Step::Answer(n, s)),
        any::<bool>().prop_map(Step::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens in whatever order: no panic, one final answer per request in each direction, and nothing left at rest.
    #[test]
    fn anything_may_happen(tcp in any::<bool>(), steps in prop::collection::vec(step(), 0..60)) {
        let mut w = World::new(if tcp { TCP } else { UDP });
        let (mut keys, mut finals, mut told) = (Vec::new(), Vec::<(String, u16)>::new(), Vec::<(ClientKey, u16)>::new());
        for step in steps {
            let sent = w.sent.len();
            match step {
                Step::Wait(ms) => { let at = w.now.micros() / 1000 + u64::from(ms); w.until(at); }
                Step::Peer(m, b) => {
                    let method = ["INVITE", "ACK", "CANCEL", "OPTIONS", "BYE"][m as usize];
                    w.receive(asks(method, ["z9hG4bK1", "z9hG4bK2", "", "old"][b as usize], ""));
                }
                Step::User(k, status) if !w.servers.is_empty() => {
                    let key = w.servers[k as usize % w.servers.len()];
                    w.respond_to(key, status);
                }
                Step::Send(invite) => keys.push(w.request(if invite { Method::Invite } else { Method::Bye })),
                Step::Cancel(k) if !keys.is_empty() => {
                    let key = keys[k as usize % keys.len()];
                    w.cancel(key, Some("SIP;cause=200"));
                }
                Step::Answer(n, status) => {
                    let asked: Vec<usize> = (0..w.sent.len()).filter(|n| w.sent[*n].1.is_request() && w.sent[*n].1.method() != Method::Ack).collect();
                    if !asked.is_empty() {
                        let n = asked[n as usize % asked.len()];
                        let bytes = Writer::answer(&w.sent[n].1, w.flow.local, status, "So", Some("b")).finish();
                        let msg = Message::parse(bytes).expect("an answer");
                        w.layer.receive(w.now, w.flow, msg, &mut w.out);
                        for output in &w.out {
                            if let Output::Response { key, msg, .. } = output && msg.status() >= 200 {
                                told.push((*key, msg.status() / 100));
                            }
                        }
                        w.note();
                    }
                }
                Step::Break(server) => {
                    let flow = Flow { conn: if server { w.flow.conn } else { 0 }, ..w.flow };
                    w.layer.lost(w.now, flow, Failure::Closed, &mut w.out);
                    w.note();
                }
                Step::User(..) | Step::Cancel(_) => {}
            }
            for (_, msg) in &w.sent[sent..] {
                // a branch may be used anew once its transaction is over
                let id = format!("{:?} {}", msg.branch(), msg.method_text());
                let times = w.handed.iter().filter(|h| **h == id).count();
                if msg.status() >= 200 && msg.method() != Method::Cancel {
                    finals.push((format!("{id} {times}"), msg.status()));
                }
            }
        }
        for (i, (id, status)) in finals.iter().enumerate() {
            prop_assert!(finals[..i].iter().all(|(other, before)| other != id || before == status), "{finals:?}");
        }
        for (i, (key, class)) in told.iter().enumerate() {
            prop_assert!(told[..i].iter().all(|(other, before)| other != key || (*before == 2 && *class == 2)), "{told:?}");
        }
        // everybody falls silent, and the user answers what is open
        for key in w.servers.clone() {
            w.respond_to(key, 487);
        }
        for key in keys {
            w.cancel(key, None);
        }
        let end = w.now.micros() / 1000 + 100_000;
        w.until(end);
        prop_assert!(w.layer.is_empty(), "{:?}", w.layer);
        prop_assert_eq!(w.layer.deadline(), None);
        prop_assert_eq!(w.layer.table.len(), 0);
    }
}
