//! The messages of RFC 4475 (SIP torture tests) and RFC 5118 (IPv6) sent to a running server over UDP and TCP. The answer is compared with
//! the CSV that lies beside the messages, and after each of them the server must still answer OPTIONS.
//!
//! Needs a built `strowger` (`STROWGER_BIN`, else the newest of target/{release,gate,debug}) and the messages (`STROWGER_DATA`, else
//! ../shared/data). Without them the tests say so and pass, unless `STROWGER_NO_SKIP` is set. What must hold beyond the answer (bindings kept,
//! nothing forwarded) is the business of the ladders.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long we wait for a final answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long nothing may come where nothing should.
const SILENCE: Duration = Duration::from_millis(400);
/// How long a connection may stay open after the answer that ends it.
const CLOSED: Duration = Duration::from_secs(3);
/// How long a connection with an unfinished message may stay open.
const UNFINISHED: Duration = Duration::from_secs(12);

#[test]
fn rfc4475_over_udp() {
    run("rfc4475", Carrier::Udp, false);
}

#[test]
fn rfc4475_over_tcp() {
    run("rfc4475", Carrier::Tcp, false);
}

#[test]
fn rfc5118_over_udp() {
    run("rfc5118", Carrier::Udp, true);
}

#[test]
fn rfc5118_over_tcp() {
    run("rfc5118", Carrier::Tcp, true);
}

#[test]
fn rfc5118_over_udp_on_ipv4() {
    run("rfc5118", Carrier::Udp, false);
}

/// RFC 4475 3.1.2.15: the archive's file has no blank line at its end. As it is, it must do no harm.
#[test]
fn baddn_as_it_is_in_the_archive() {
    let Some(data) = torture_data() else { return skip("no messages") };
    let Some(binary) = strowger() else { return skip("no strowger binary") };
    let message = fs::read(data.join("rfc4475/baddn.dat")).expect("the archive has it");
    let server = Server::start(&binary);
    let heard = udp(server.v4(), &message);
    assert!(heard.is_empty() || heard[0].status == 400, "UDP: {:?}", heard[0].status);
    assert!(server.alive(), "no OPTIONS answer afterwards");
    let mut stream = TcpStream::connect(server.v4()).expect("the server listens");
    stream.write_all(&message).expect("the connection is open");
    stream.shutdown(Shutdown::Write).expect("the connection is open");
    assert!(server.alive(), "no OPTIONS answer afterwards");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    Udp,
    Tcp,
}

fn run(archive: &str, carrier: Carrier, v6: bool) {
    let Some(data) = torture_data() else { return skip("no messages: set STROWGER_DATA") };
    let Some(binary) = strowger() else { return skip("no strowger binary: cargo build, or set STROWGER_BIN") };
    if v6 && UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skip("no IPv6 loopback here");
    }
    let cases = cases(&data, archive, carrier);
    let (mut passed, mut failures) = (0, Vec::new());
    let mut server = Server::start(&binary);
    // The archives use one branch for several messages; to a server these are retransmissions (RFC 3261 17.2.3), so each gets a server that has not seen it.
    let mut branches = HashSet::new();
    for case in &cases {
        if !branches.insert(top_branch(&case.message)) {
            branches.clear();
            branches.insert(top_branch(&case.message));
            server = Server::start(&binary);
        }
        let address = if v6 { server.v6() } else { server.v4() };
        let outcome = match carrier {
            Carrier::Udp => case.expected.judge(&udp(address, &case.message), None),
            Carrier::Tcp => {
                let (heard, closed) = tcp(address, &case.message, &case.expected);
                case.expected.judge(&heard, Some(closed))
            }
        };
        let outcome = outcome
            .and_then(|()| if server.alive() { Ok(()) } else { Err("OPTIONS is not answered afterwards".into()) });
        match outcome {
            Ok(()) => passed += 1,
            Err(why) => failures.push(format!("  {}: expected \"{}\": {why}", case.name, case.expected.text)),
        }
    }
    println!("{archive} over {carrier:?}{}: {passed} of {} as expected", if v6 { " on ::1" } else { "" }, cases.len());
    assert!(failures.is_empty(), "{} of {} failed\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn skip(why: &str) {
    assert!(std::env::var_os("STROWGER_NO_SKIP").is_none(), "would be skipped: {why}");
    println!("SKIPPED: {why}");
}

// ---- what is expected ------------------------------------------------------------------------------------------------

struct Case {
    name: String,
    message: Vec<u8>,
    expected: Expected,
}

/// One cell of the CSV, understood.
#[derive(Debug)]
struct Expected {
    text: String,
    answer: Answer,
    /// A header that must stand in the answer.
    header: Option<&'static str>,
    /// The connection must be closed after the answer.
    close: bool,
}

#[derive(Debug)]
enum Answer {
    /// No answer at all.
    Nothing,
    /// One of these, once.
    OneOf(Vec<u16>),
    /// A final answer that is none of these.
    NoneOf(&'static [u16]),
    /// Answers to both messages of the stream.
    Both,
    /// The connection is closed within a while, whatever is said before.
    CloseOnly,
}

impl Expected {
    fn read(cell: &str) -> Expected {
        let text = cell.trim().to_string();
        let codes = || -> Vec<u16> {
            let words = text.split(|c: char| !c.is_ascii_digit());
            words.filter(|w| w.len() == 3).filter_map(|w| w.parse().ok()).filter(|c| (200..700).contains(c)).collect()
        };
        let header = ["Allow", "Unsupported", "Accept", "WWW-Authenticate"].into_iter().find(|h| {
            text.contains(&format!("+ {h}")) || (*h == "WWW-Authenticate" && text.contains("Digest challenges"))
        });
        let close = text.contains("then close") && !text.starts_with("wait");
        let answer = match text.as_str() {
            t if t.contains("dropped") => Answer::Nothing,
            t if t.starts_with("wait") => Answer::CloseOnly,
            t if t.contains("both parsed") => Answer::Both,
            t if t.contains("answered once") => Answer::OneOf(vec![200, 401, 403, 404]),
            t if t.starts_with("200 for our own OPTIONS") => Answer::OneOf(vec![200]),
            t if t.starts_with("481") => Answer::OneOf(vec![481]),
            t if t.contains("never 400/413") => Answer::NoneOf(&[400, 413, 500]),
            t if t.starts_with("accepted") || t.starts_with("processed") => {
                Answer::NoneOf(&[400, 416, 420, 500, 501, 505, 513])
            }
            t if t.starts_with("policy") && codes().is_empty() => Answer::NoneOf(&[400, 416, 420, 500, 501, 505, 513]),
            _ => Answer::OneOf(codes()),
        };
        if let Answer::OneOf(list) = &answer {
            assert!(!list.is_empty(), "cannot understand \"{text}\"");
        }
        Expected { text, answer, header, close }
    }

    /// `closed`: whether the connection was closed by the server (None over UDP).
    fn judge(&self, heard: &[Heard], closed: Option<bool>) -> Result<(), String> {
        let codes: Vec<u16> = heard.iter().map(|h| h.status).collect();
        let first = heard.iter().find(|h| h.status >= 200);
        match &self.answer {
            Answer::Nothing if heard.is_empty() => {}
            Answer::Nothing => return Err(format!("heard {codes:?}")),
            Answer::OneOf(list) => match first {
                Some(h) if list.contains(&h.status) => {}
                _ => return Err(format!("heard {codes:?}")),
            },
            Answer::NoneOf(list) => match heard.first() {
                Some(_) if first.is_none_or(|h| !list.contains(&h.status)) => {}
                _ => return Err(format!("heard {codes:?}")),
            },
            Answer::Both => {
                let calls: HashSet<&str> = heard.iter().map(|h| h.call_id.as_str()).collect();
                if calls.len() < 2 {
                    return Err(format!("heard {codes:?} for {calls:?}"));
                }
            }
            Answer::CloseOnly => {}
        }
        if self.text.contains("answered once") {
            let finals: HashSet<&str> = heard.iter().map(|h| h.method.as_str()).collect();
            if finals != HashSet::from(["REGISTER"]) || heard.len() != 1 {
                return Err(format!("heard {} answers, for {finals:?}", heard.len()));
            }
        }
        if let (Some(name), Some(h)) = (self.header, first)
            && !h
                .headers
                .iter()
                .any(|(n, v)| n.eq_ignore_ascii_case(name) && (name != "WWW-Authenticate" || v.starts_with("Digest")))
        {
            return Err(format!("the answer has no {name}"));
        }
        if (self.close || matches!(self.answer, Answer::CloseOnly)) && closed == Some(false) {
            return Err(format!("heard {codes:?}, but the connection stayed open"));
        }
        Ok(())
    }
}

fn cases(data: &Path, archive: &str, carrier: Carrier) -> Vec<Case> {
    let csv =
        fs::read_to_string(data.join(format!("{archive}-expected.csv"))).expect("the CSV lies beside the messages");
    csv.lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let name = cells[0].to_string();
            // 4475: name,section,kind,rfc,udp,tcp,also; 5118: name,section,kind,expected, which may hold commas.
            let expected = match (archive, carrier) {
                ("rfc4475", Carrier::Tcp) if cells[5].trim() != "same" => Expected::read(cells[5]),
                ("rfc4475", _) => Expected::read(cells[4]),
                _ => Expected::read(&cells[3..].join(",")),
            };
            let message = if archive == "rfc4475" {
                let mut message = fs::read(data.join(format!("rfc4475/{name}.dat"))).expect("each line names a file");
                if name == "baddn" {
                    message.extend_from_slice(b"\r\n");
                }
                message
            } else {
                let text = fs::read(data.join(format!("rfc5118/{name}"))).expect("each line names a file");
                with_crlf(&text)
            };
            Case { name, message, expected }
        })
        .collect()
}

/// The RFC 5118 archive has bare line feeds, some of its files end without the blank line, and Content-Length counts other bodies than those (one
/// by 26 octets too many, which a server must refuse): the lines get their CR, and the length is put right.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).replace('\n', "\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.trim_end(), ""));
    let mut message = String::with_capacity(text.len() + 64);
    for line in head.split("\r\n") {
        if line.starts_with("Content-Length:") {
            message += &format!("Content-Length: {}", body.len());
        } else {
            message += line;
        }
        message += "\r\n";
    }
    message += "\r\n";
    message += body;
    message.into_bytes()
}

fn top_branch(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message).to_lowercase();
    text.split("branch").nth(1).map(|t| t.chars().take_while(|c| !";,\r".contains(*c)).collect()).unwrap_or_default()
}

// ---- the wire --------------------------------------------------------------------------------------------------------

struct Heard {
    status: u16,
    method: String,
    call_id: String,
    headers: Vec<(String, String)>,
}

impl Heard {
    fn read(message: &[u8]) -> Option<Heard> {
        let text = String::from_utf8_lossy(message);
        let mut lines = text.split("\r\n");
        let status = lines.next()?.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_string(), value.trim().to_string()))
            .collect();
        let value = |name: &str| {
            headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).unwrap_or_default()
        };
        let method = value("CSeq").split_whitespace().nth(1).unwrap_or_default().to_string();
        Some(Heard { status, method, call_id: value("Call-ID"), headers })
    }
}

/// Sends a datagram; what came within the time, until a final answer and a little longer.
fn udp(server: SocketAddr, message: &[u8]) -> Vec<Heard> {
    // Answers come to the source, or (RFC 3261 18.2.2, without rport) to its address and the port of Via, which is 5060 for most: a loopback address of
    // our own with that port hears both.
    let text = String::from_utf8_lossy(message);
    let port = if text.contains(":6050;") {
        6050
    } else if text.contains(":19823;") {
        19823
    } else if text.contains(":5070;branch") {
        5070
    } else {
        5060
    };
    let socket = if server.is_ipv4() {
        UdpSocket::bind(("127.0.0.77", port)).or_else(|_| UdpSocket::bind("127.0.0.1:0"))
    } else {
        UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).or_else(|_| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)))
    }
    .expect("loopback has ports");
    socket.send_to(message, server).expect("loopback takes a datagram");
    let call_ids = call_ids(message);
    let began = Instant::now();
    let mut until = began + if is_response(message) { SILENCE } else { ANSWER };
    let mut heard: Vec<Heard> = Vec::new();
    let mut buffer = [0; 65_536];
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("not zero");
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        let Some(answer) = Heard::read(&buffer[..length]) else { continue };
        if !call_ids.is_empty() && !call_ids.contains(&answer.call_id) {
            continue; // sent again for an earlier message
        }
        if answer.status >= 200 && answer.method == "INVITE" {
            continue_without_ack(&mut heard, answer);
            until = until.min(Instant::now() + Duration::from_millis(100));
        } else {
            if answer.status >= 200 {
                until = until.min(Instant::now() + Duration::from_millis(250));
            }
            heard.push(answer);
        }
    }
    heard
}

/// A final answer to an INVITE is sent again until the ACK that we do not send: one of them counts.
fn continue_without_ack(heard: &mut Vec<Heard>, answer: Heard) {
    if !heard.iter().any(|h| h.status == answer.status && h.call_id == answer.call_id) {
        heard.push(answer);
    }
}

/// Sends on a connection of its own; what came, and whether the server closed it.
fn tcp(server: SocketAddr, message: &[u8], expected: &Expected) -> (Vec<Heard>, bool) {
    let mut stream = TcpStream::connect(server).expect("the server listens");
    stream.write_all(message).expect("the connection is open");
    let began = Instant::now();
    let closes = expected.close || matches!(expected.answer, Answer::CloseOnly);
    let limit = match expected.answer {
        Answer::Nothing => SILENCE,
        Answer::CloseOnly => UNFINISHED,
        _ => ANSWER,
    };
    let mut until = began + limit;
    let (mut heard, mut closed) = (Vec::new(), false);
    let (mut pending, mut buffer) = (Vec::new(), [0; 65_536]);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        stream.set_read_timeout(Some(left)).expect("not zero");
        match stream.read(&mut buffer) {
            Ok(0) => {
                closed = true;
                break;
            }
            Ok(length) => pending.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => {
                closed = true;
                break;
            }
        }
        while let Some(answer) = cut(&mut pending) {
            let last = answer.status >= 200 && (!matches!(expected.answer, Answer::Both) || !heard.is_empty());
            heard.push(answer);
            if last && !matches!(expected.answer, Answer::CloseOnly) {
                until = Instant::now() + if closes { CLOSED } else { Duration::from_millis(100) };
            }
        }
    }
    (heard, closed)
}

/// Takes one whole response off the front of a stream.
fn cut(pending: &mut Vec<u8>) -> Option<Heard> {
    let head = pending.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let answer = Heard::read(&pending[..head]);
    let body = answer
        .as_ref()
        .and_then(|a| a.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("Content-Length")))
        .and_then(|(_, v)| v.parse::<usize>().ok());
    let whole = head + body.unwrap_or(0);
    if pending.len() < whole {
        return None;
    }
    pending.drain(..whole);
    answer
}

fn is_response(message: &[u8]) -> bool {
    message.starts_with(b"SIP/")
}

fn call_ids(message: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(message)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| matches!(name.trim().to_lowercase().as_str(), "call-id" | "i"))
        .map(|(_, value)| value.trim().to_string())
        .collect()
}

// ---- the server ------------------------------------------------------------------------------------------------------

struct Server {
    child: Child,
    place: PathBuf,
    port: u16,
}

impl Server {
    /// A fresh server with `sipp/torture.toml` in a directory of its own; returns when it answers.
    fn start(binary: &Path) -> Server {
        let port = free_port();
        let place = std::env::temp_dir().join(format!("strowger-torture-{}-{port}", std::process::id()));
        fs::create_dir_all(&place).expect("the temporary directory takes a directory");
        let template = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp/torture.toml"))
            .expect("it lies in the tree");
        let config = place.join("strowger.toml");
        fs::write(&config, template.replace("@SIP@", &port.to_string())).expect("the directory is ours");
        let log = fs::File::create(place.join("log")).expect("the directory is ours");
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let server = Server { child, place, port };
        let began = Instant::now();
        while !server.answers(Duration::from_millis(20)) {
            let log = || fs::read_to_string(server.place.join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(10), "the server does not answer OPTIONS: {}", log());
        }
        server
    }

    fn v4(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from([127, 0, 0, 1]), self.port)
    }

    fn v6(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(Ipv6Addr::LOCALHOST), self.port)
    }

    fn alive(&self) -> bool {
        (0..3).any(|_| self.answers(Duration::from_secs(1)))
    }

    fn answers(&self, patience: Duration) -> bool {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let me = socket.local_addr().expect("it is bound");
        let unique = format!("{}{:?}", me.port(), Instant::now()).replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let text = format!(
            "OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{unique};rport\r\nFrom: <sip:probe@{me}>;tag=1\r\n\
             To: <sip:127.0.0.1:{port}>\r\nCall-ID: {unique}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            port = self.port,
        );
        let _ = socket.send_to(text.as_bytes(), self.v4());
        socket.set_read_timeout(Some(patience)).expect("not zero");
        let mut buffer = [0; 65_536];
        socket.recv(&mut buffer).is_ok_and(|n| Heard::read(&buffer[..n]).is_some_and(|h| h.status == 200))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// A port that is free on both loopbacks for both transports.
fn free_port() -> u16 {
    for _ in 0..100 {
        let first = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let port = first.local_addr().expect("it is bound").port();
        let tcp = std::net::TcpListener::bind(("127.0.0.1", port));
        let other = UdpSocket::bind((Ipv6Addr::LOCALHOST, port));
        let other_tcp = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        if tcp.is_ok() && other.is_ok() && other_tcp.is_ok() {
            return port;
        }
    }
    panic!("no port is free on both loopbacks");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("sip-tests lies in the workspace").to_path_buf()
}

fn strowger() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("STROWGER_BIN") {
        return Some(PathBuf::from(path));
    }
    // This test lies in target/PROFILE/deps.
    let here = std::env::current_exe().ok()?;
    let target = here.ancestors().nth(3)?;
    let found = ["release", "gate", "debug"].map(|profile| target.join(profile).join("strowger"));
    let age = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    found.into_iter().filter(|path| path.exists()).max_by_key(age)
}

fn torture_data() -> Option<PathBuf> {
    let given = std::env::var_os("STROWGER_DATA").map(PathBuf::from);
    [given, Some(root().join("../shared/data"))].into_iter().flatten().map(|d| d.join("torture")).find(|d| d.is_dir())
}

#[test]
fn every_line_of_the_lists_is_understood() {
    let Some(data) = torture_data() else { return skip("no messages") };
    for (archive, count) in [("rfc4475", 49), ("rfc5118", 12)] {
        for carrier in [Carrier::Udp, Carrier::Tcp] {
            let cases = cases(&data, archive, carrier);
            assert_eq!(cases.len(), count, "{archive}");
            for case in cases {
                println!("{archive} {carrier:?} {}: {:?}", case.name, case.expected);
            }
        }
    }
}
