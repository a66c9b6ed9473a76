//! The real server on loopback: sockets, threads, signals' ways, files. What calls do in detail is told by the ladders.
#![allow(clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strowger::base::Wall;
use strowger::call::record::{By, Outcome};
use strowger::io::clock::Clock;
use strowger::io::config::Config;
use strowger::io::store::Filter;
use strowger::io::{Running, start};
use strowger::sip::digest::{self, Challenge};
use strowger::sip::print::Writer;
use strowger::sip::transport::Transport;
use strowger::sip::{Message, Method, Name};

const OFFICE: &str = include_str!("../fixtures/office.toml");
const PATIENCE: Duration = Duration::from_secs(5);

/// A directory of its own for each test, gone at its end.
struct Office(PathBuf);

impl Office {
    fn new() -> Office {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("strowger-serve-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("office.toml"), OFFICE).unwrap();
        Office(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.join("office.toml")
    }

    /// The demo company, on ports that the system chooses.
    fn config(&self) -> Config {
        let mut config = Config::load(&self.path()).unwrap_or_else(|report| panic!("{}", report.render(false)));
        let directory = Arc::get_mut(&mut config.directory).expect("nobody else has it yet");
        for listen in &mut directory.listen {
            listen.bind.set_port(0);
        }
        config
    }

    /// On a Wednesday at noon, for at night other people answer: 2026-11-25 12:00 in Yekaterinburg.
    fn start(&self) -> Running {
        let noon = Wall::from_micros(1_795_590_000_000_000);
        start(self.config(), Clock::starting_at(noon)).unwrap()
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn at(running: &Running, transport: Transport) -> SocketAddr {
    running.addresses().iter().find(|a| a.transport == transport).unwrap().bound
}

/// A telephone or carrier on a UDP socket.
struct Phone {
    socket: UdpSocket,
    server: SocketAddr,
    user: &'static str,
    count: u32,
}

impl Phone {
    fn new(running: &Running, user: &'static str) -> Phone {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Phone { socket, server: at(running, Transport::Udp), user, count: 0 }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn request(&mut self, method: Method, uri: &str, to: &str, id: &str, seq: u32) -> Writer {
        self.count += 1;
        let mut w = Writer::request(method.as_str(), uri);
        w.fmt(Name::Via, format_args!("SIP/2.0/UDP {};rport;branch=z9hG4bK{id}{}", self.address(), self.count));
        w.number(Name::MaxForwards, 70u32);
        w.fmt(Name::From, format_args!("<sip:{}@office.example>;tag={id}", self.user));
        w.header(Name::To, to).header(Name::CallId, id).fmt(Name::CSeq, format_args!("{seq} {}", method.as_str()));
        w.fmt(Name::Contact, format_args!("<sip:{}@{}>", self.user, self.address()));
        w
    }

    fn send(&self, bytes: &Bytes) {
        self.socket.send_to(bytes, self.server).unwrap();
    }

    /// The next message for which this holds; others, like the server's OPTIONS, pass by.
    fn wait(&self, wanted: impl Fn(&Message) -> bool) -> Message {
        let mut buffer = [0; 65_536];
        loop {
            let n = self.socket.recv(&mut buffer).expect("in time");
            let message = Message::parse(Bytes::copy_from_slice(&buffer[..n])).unwrap();
            if wanted(&message) {
                return message;
            }
        }
    }

    fn wait_status(&self, status: u16) -> Message {
        self.wait(|m| !m.is_request() && m.status() == status)
    }

    fn wait_request(&self, method: Method) -> Message {
        self.wait(|m| m.is_request() && m.method() == method)
    }

    fn reply(&self, request: &Message, status: u16, sdp: Option<&str>) {
        let mut w = Writer::answer(request, self.server, status, "Yes", Some("callee"));
        w.fmt(Name::Contact, format_args!("<sip:{}@{}>", self.user, self.address()));
        self.send(&match sdp {
            Some(sdp) => w.body("application/sdp", sdp.as_bytes()),
            None => w.finish(),
        });
    }

    fn register(&mut self, password: &str) -> Message {
        let to = format!("<sip:{}@office.example>", self.user);
        // CSeq rises within the one Call-ID (RFC 3261 10.2).
        let seq = self.count + 1;
        let first = self.request(Method::Register, "sip:office.example", &to, "reg", seq).finish();
        self.send(&first);
        let challenged = self.wait_status(401);
        let (name, challenge) = Challenge::choose(&challenged).unwrap();
        let proof = digest::answer(&challenge, self.user, password, "REGISTER", "sip:office.example", "c", 1, b"");
        let mut w = self.request(Method::Register, "sip:office.example", &to, "reg", seq + 1);
        w.header(name, proof).number(Name::Expires, 600u32);
        self.send(&w.finish());
        self.wait(|m| !m.is_request() && m.cseq().seq == seq + 1)
    }
}

const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n";

/// A customer's call by the carrier of that number, answered by 121.
fn talk(customer: &mut Phone, anna: &Phone) -> (Message, Message) {
    let uri = "sip:+73833000001@127.0.0.1";
    let invite = customer.request(Method::Invite, uri, &format!("<{uri}>"), "call", 1);
    customer.send(&invite.body("application/sdp", SDP.as_bytes()));
    let ring = anna.wait_request(Method::Invite);
    anna.reply(&ring, 180, None);
    customer.wait_status(180);
    anna.reply(&ring, 200, Some(SDP));
    let answer = customer.wait_status(200);
    let target = answer.contact().unwrap().uri.raw.to_owned();
    let to = answer.text(Name::To).unwrap().to_owned();
    let ack = customer.request(Method::Ack, &target, &to, "call", 1).finish();
    customer.send(&ack);
    anna.wait_request(Method::Ack);
    (ring, answer)
}

fn options(transport: &str, port: u16) -> String {
    format!(
        "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1:{port};rport;branch=z9hG4bKo\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:127.0.0.1>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

/// OPTIONS over a connection; the status line.
fn ping(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = stream.local_addr().unwrap().port();
    stream.write_all(options("TCP", port).as_bytes()).unwrap();
    let mut text = Vec::new();
    let mut chunk = [0; 2048];
    while !text.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut chunk).unwrap();
        assert!(n > 0, "closed");
        text.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8(text).unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn options_are_answered_over_both_transports() {
    let office = Office::new();
    let begun = Instant::now();
    let running = office.start();
    let phone = Phone::new(&running, "121");
    phone.send(&Bytes::from(options("UDP", phone.address().port())));
    assert_eq!(phone.wait(|m| !m.is_request()).status(), 200);
    println!("start to first answered OPTIONS: {:?}", begun.elapsed());
    let mut stream = TcpStream::connect(at(&running, Transport::Tcp)).unwrap();
    for _ in 0..3 {
        assert_eq!(ping(&mut stream), "SIP/2.0 200 OK");
    }
    running.stop();
}

#[test]
fn a_registered_phone_survives_a_restart() {
    let office = Office::new();
    let running = office.start();
    let mut phone = Phone::new(&running, "121");
    assert_eq!(phone.register("a wrong password").status(), 401);
    assert_eq!(phone.register("secret121").status(), 200);
    let seen = |running: &Running| {
        let until = Instant::now() + PATIENCE;
        while running.handle().live().phones().is_empty() && Instant::now() < until {
            std::thread::yield_now();
        }
        running.handle().live().phones().into_iter().map(|p| (p.extension, p.source)).collect::<Vec<_>>()
    };
    let here = [("121".to_owned(), phone.address().to_string())];
    assert_eq!(seen(&running), here);
    running.stop();
    let again = office.start();
    assert_eq!(seen(&again), here);
    again.stop();
}

#[test]
fn told_to_stop_it_ends_calls_and_keeps_their_records() {
    let office = Office::new();
    let running = office.start();
    let (mut anna, mut customer) = (Phone::new(&running, "121"), Phone::new(&running, "+79131234567"));
    assert_eq!(anna.register("secret121").status(), 200);
    talk(&mut customer, &anna);
    let live = running.handle().live().calls();
    assert_eq!(live.len(), 1);
    let handle = running.handle().clone();
    let begun = Instant::now();
    let stopping = std::thread::spawn(move || running.stop());
    for side in [&anna, &customer] {
        let bye = side.wait_request(Method::Bye);
        side.reply(&bye, 200, None);
    }
    stopping.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let records = handle.reader().unwrap().records(&Filter::default()).unwrap();
    let [(_, record)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.id, record.outcome, record.hangup.by), (live[0].id, Outcome::Answered, By::System));
}

#[test]
fn draining_lets_calls_end_and_takes_no_new_ones() {
    let office = Office::new();
    let running = office.start();
    let (mut anna, mut customer) = (Phone::new(&running, "121"), Phone::new(&running, "+79131234567"));
    assert_eq!(anna.register("secret121").status(), 200);
    let (_, answer) = talk(&mut customer, &anna);
    assert!(!running.drain(Duration::from_millis(50)), "a call is in progress");
    let uri = "sip:+73833000001@127.0.0.1";
    let late = customer.request(Method::Invite, uri, &format!("<{uri}>"), "late", 1);
    customer.send(&late.body("application/sdp", SDP.as_bytes()));
    let refused = customer.wait(|m| !m.is_request() && m.call_id() == "late" && m.status() >= 200);
    assert_eq!(refused.status(), 503);
    assert!(refused.has(Name::RetryAfter));
    let target = answer.contact().unwrap().uri.raw.to_owned();
    let to = answer.text(Name::To).unwrap().to_owned();
    let bye = customer.request(Method::Bye, &target, &to, "call", 2).finish();
    customer.send(&bye);
    customer.wait(|m| !m.is_request() && m.method() == Method::Bye && m.status() == 200);
    let at_anna = anna.wait_request(Method::Bye);
    anna.reply(&at_anna, 200, None);
    assert!(running.drain(PATIENCE));
    running.stop();
}

#[test]
fn silent_and_slow_connections_hold_up_nobody() {
    let office = Office::new();
    let running = office.start();
    let server = at(&running, Transport::Tcp);
    let silent: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(server).unwrap()).collect();
    let mut slow = TcpStream::connect(server).unwrap();
    slow.write_all(b"OPTIONS sip:").unwrap();
    let mut deaf = TcpStream::connect(server).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let question = options("TCP", deaf.local_addr().unwrap().port());
    for _ in 0..2000 {
        // It asks and never reads.
        if deaf.write_all(question.as_bytes()).is_err() {
            break;
        }
    }
    let begun = Instant::now();
    let mut phone = TcpStream::connect(server).unwrap();
    assert_eq!(ping(&mut phone), "SIP/2.0 200 OK");
    let mut anna = Phone::new(&running, "121");
    assert_eq!(anna.register("secret121").status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(silent);
    running.stop();
}

#[test]
fn what_is_in_the_way_is_said_in_one_line() {
    let office = Office::new();
    let running = office.start();
    let error = start(office.config(), Clock::new()).err().unwrap().to_string();
    assert!(error.contains("another strowger runs with the data directory") && !error.contains('\n'), "{error}");
    let other = Office::new();
    let mut config = other.config();
    Arc::get_mut(&mut config.directory).unwrap().listen[0].bind = at(&running, Transport::Udp);
    let error = start(config, Clock::new()).err().unwrap().to_string();
    let address = at(&running, Transport::Udp).to_string();
    assert!(error.starts_with(&format!("cannot listen on udp {address}: ")) && error.contains("[[listen]]"), "{error}");
    let mut config = other.config();
    config.media.bind = "192.0.2.77".parse().unwrap();
    let error = start(config, Clock::new()).err().unwrap().to_string();
    assert!(
        error.starts_with("cannot receive media on 192.0.2.77: ") && error.contains("`bind` in [media]"),
        "{error}"
    );
    let mut config = other.config();
    config.files.recordings = other.path().join("recordings");
    let error = start(config, Clock::new()).err().unwrap().to_string();
    assert!(error.contains("office.toml/recordings: ") && error.contains("`dir` in [recording]"), "{error}");
    running.stop();
}

#[test]
fn a_reload_takes_what_is_right_and_refuses_what_is_not() {
    let office = Office::new();
    let running = office.start();
    let mut phone = Phone::new(&running, "124");
    assert_eq!(phone.register("secret124").status(), 200);
    write(&office.path(), &OFFICE.replace("default = \"secret124\"", "default = \"another124\""));
    // The ports of the file are not those that the system chose.
    let notes = running.handle().reload().unwrap();
    assert!(notes.iter().any(|n| n.contains("[[listen]]") && n.contains("restart")), "{notes:?}");
    assert_eq!(phone.register("secret124").status(), 401);
    assert_eq!(phone.register("another124").status(), 200);
    write(&office.path(), &OFFICE.replace("[[listen]]", "[[lissten]]"));
    let report = running.handle().reload().unwrap_err().render(false);
    assert!(report.contains("lissten"), "{report}");
    assert_eq!(phone.register("another124").status(), 200);
    running.stop();
}

#[test]
fn a_record_names_no_recording_that_there_is_not() {
    let office = Office::new();
    let running = office.start();
    let (mut anna, mut customer) = (Phone::new(&running, "121"), Phone::new(&running, "+79131234567"));
    assert_eq!(anna.register("secret121").status(), 200);
    // The disk is gone.
    let recordings = running.handle().recordings().to_owned();
    std::fs::remove_dir_all(&recordings).unwrap();
    write(&recordings, "");
    let (_, answer) = talk(&mut customer, &anna);
    let to = answer.text(Name::To).unwrap().to_owned();
    let bye = customer.request(Method::Bye, answer.contact().unwrap().uri.raw, &to, "call", 2).finish();
    customer.send(&bye);
    let at_anna = anna.wait_request(Method::Bye);
    anna.reply(&at_anna, 200, None);
    assert!(running.drain(PATIENCE));
    let handle = running.handle().clone();
    running.stop();
    let records = handle.reader().unwrap().records(&Filter::default()).unwrap();
    let [(_, record)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.outcome, &record.recordings[..]), (Outcome::Answered, &[][..]));
    let why = record.explain.iter().find(|why| *why.rule == *"recording").unwrap();
    assert!(
        why.because.starts_with("there is none: ") && why.because.contains("cannot be written: Not a directory"),
        "{why:?}"
    );
}

#[test]
fn a_phone_that_lets_an_invite_lie_is_told_of() {
    let office = Office::new();
    let running = office.start();
    let (mut anna, mut customer) = (Phone::new(&running, "121"), Phone::new(&running, "+79131234567"));
    assert_eq!(anna.register("secret121").status(), 200);
    let uri = "sip:+73833000001@127.0.0.1";
    let silent = |running: &Running| running.handle().live().phones()[0].unanswered_at.is_some();
    let mut call = |id: &str, answers: bool| {
        let invite = customer.request(Method::Invite, uri, &format!("<{uri}>"), id, 1);
        let via = format!("z9hG4bK{id}{}", customer.count);
        customer.send(&invite.body("application/sdp", SDP.as_bytes()));
        let ring = anna.wait_request(Method::Invite);
        if answers {
            anna.reply(&ring, 180, None);
            customer.wait_status(180);
        } else {
            // It is sent again after 0.5, 1.5 and 3.5 s.
            (0..3).for_each(|_| drop(anna.wait_request(Method::Invite)));
        }
        let cancel = customer.request(Method::Cancel, uri, &format!("<{uri}>"), id, 1).finish();
        let cancel = String::from_utf8(cancel.to_vec()).unwrap();
        let own = format!("z9hG4bK{id}{}", customer.count);
        customer.send(&Bytes::from(cancel.replace(&own, &via)));
        customer.wait(|m| !m.is_request() && m.call_id() == id && m.status() == 487);
    };
    call("silent", false);
    let until = Instant::now() + PATIENCE;
    while !silent(&running) && Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(silent(&running), "it did not answer");
    call("rings", true);
    assert!(!silent(&running), "it answered this one");
    let handle = running.handle().clone();
    running.stop();
    let records = handle.reader().unwrap().records(&Filter::default()).unwrap();
    let lay = |(_, record): &(_, strowger::call::record::CallRecord)| {
        let mut who = record.journey.iter().flat_map(|phase| &phase.who);
        who.any(|who| who.why.as_deref() == Some("it has not answered the INVITE at all"))
    };
    assert_eq!(records.iter().map(lay).collect::<Vec<_>>(), [true, false]);
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
