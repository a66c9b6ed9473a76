//! The server as who looks after it meets it: a process with its log, asked by the command line.
#![cfg(feature = "io")]
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use strowger::sip::digest::{self, Challenge};
use strowger::sip::print::Writer;
use strowger::sip::{Message, Name};

const PATIENCE: Duration = Duration::from_secs(10);

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("strowger-admin-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn config(&self) -> PathBuf {
        self.0.join("strowger.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.config(), text).expect("written");
    }

    /// A command with this configuration; what it prints.
    fn strowger(&self, words: &[&str]) -> Output {
        command(&self.config()).args(words).output().expect("it runs")
    }

    /// What a command says to standard output; it must succeed.
    fn says(&self, words: &[&str]) -> String {
        let done = self.strowger(words);
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.env_remove("RUST_LOG").env("STROWGER_CONFIG", config).env("NO_COLOR", "1");
    command
}

/// `strowger serve`, killed with the test.
struct Server {
    child: Child,
    log: Receiver<String>,
}

impl Server {
    fn start(folder: &Folder) -> Server {
        let mut child = command(&folder.config()).arg("serve").stderr(Stdio::piped()).spawn().expect("it runs");
        let (tell, log) = channel();
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let server = Server { child, log };
        server.logs("ready after");
        server
    }

    /// The next line of the log with these words.
    fn logs(&self, words: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line with {words:?}: {seen:#?}"));
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
    }

    /// Lines so far.
    fn lines(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port at 127.0.0.2 that nobody has: servers listen there, and phones and carriers of other tests do not.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.2:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// A phone's or carrier's socket, and its port.
fn socket() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("valid");
    let port = socket.local_addr().expect("bound").port();
    (socket, port)
}

fn hear(socket: &UdpSocket) -> (Message, SocketAddr) {
    let mut buffer = [0; 65_536];
    let (n, from) = socket.recv_from(&mut buffer).expect("in time");
    (Message::parse(Bytes::copy_from_slice(&buffer[..n])).expect("SIP"), from)
}

/// A REGISTER of 121, answered; the status.
fn register(phone: &UdpSocket, server: SocketAddr, cseq: u32, expires: u32) -> u16 {
    let here = phone.local_addr().expect("bound");
    let say = |cseq: u32, proof: Option<(Name, String)>| {
        let mut w = Writer::request("REGISTER", "sip:office.example");
        w.fmt(Name::Via, format_args!("SIP/2.0/UDP {here};rport;branch=z9hG4bK{cseq}"));
        w.header(Name::From, "<sip:121@office.example>;tag=1").header(Name::To, "<sip:121@office.example>");
        w.header(Name::CallId, "reg").fmt(Name::CSeq, format_args!("{cseq} REGISTER")).number(Name::MaxForwards, 70u32);
        w.fmt(Name::Contact, format_args!("<sip:121@{here}>")).number(Name::Expires, expires);
        w.header(Name::UserAgent, "Tin Can/1");
        proof.into_iter().for_each(|(name, value)| {
            w.header(name, value);
        });
        phone.send_to(&w.finish(), server).expect("sent");
        hear(phone).0
    };
    let (name, challenge) = Challenge::choose(&say(cseq, None)).expect("challenged");
    let uri = "sip:office.example";
    let proof = digest::answer(&challenge, "121", "a-secret-of-121", "REGISTER", uri, "c", 1, b"");
    say(cseq + 1, Some((name, proof))).status()
}

fn office(port: u16, more: &str) -> String {
    format!(
        "schema = 1\n[node]\nname = \"lab\"\ndomains = [\"office.example\"]\ntimezone = \"Asia/Novosibirsk\"\ndata_dir = \"data\"\n\
         [[listen]]\nbind = \"127.0.0.2:{port}\"\n[media]\nrelay = \"never\"\n[recording]\nmode = \"none\"\n\
         [[extension]]\nnumber = \"121\"\nname = \"Anna\"\npassword = \"a-secret-of-121\"\n\
         [[extension]]\nnumber = \"122\"\nname = \"Boris\"\npassword = \"a-secret-of-122\"\n{more}"
    )
}

#[test]
fn who_registers_is_in_the_log_in_phones_and_in_trace() {
    let folder = Folder::new();
    let port = free_port();
    folder.write(&office(port, ""));
    let server = Server::start(&folder);
    let at = SocketAddr::from(([127, 0, 0, 2], port));
    let (phone, here) = socket();
    assert_eq!(register(&phone, at, 1, 600), 200);
    let line = server.logs("phone registered");
    for part in ["INFO", "extension=\"121\"", &format!("source=127.0.0.1:{here}"), "user_agent=\"Tin Can/1\"", "until="]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(register(&phone, at, 3, 600), 200);
    let phones = folder.says(&["phones"]);
    assert!(phones.contains("UNTIL (Asia/Novosibirsk)") && phones.contains("Tin Can/1"), "{phones}");
    let boris = phones.lines().find(|l| l.starts_with("122")).expect("it is listed");
    assert!(boris.contains("Boris") && boris.contains("not registered"), "{phones}");
    assert!(!folder.says(&["phones", "--registered"]).contains("Boris"));
    let json: Vec<serde_json::Value> =
        folder.says(&["phones", "--json"]).lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!((&json[0]["registered"], &json[1]["registered"]), (&true.into(), &false.into()));

    assert_eq!(register(&phone, at, 5, 0), 200);
    let line = server.logs("phone is gone: it signed off");
    assert!(line.contains("extension=\"121\""), "{line}");
    let others: Vec<String> = server.lines();
    assert!(!others.iter().any(|line| line.contains("phone registered")), "a refresh is no news: {others:?}");
    let phones = folder.says(&["phones"]);
    assert!(phones.contains(&format!("not registered (was at 127.0.0.1:{here})")), "{phones}");
    assert!(phones.contains("no: it signed off at "), "{phones}");

    let trace = folder.says(&["trace", "--extension", "121", "--last", "4"]);
    let said: Vec<Vec<&str>> = trace.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(said[0][..2], ["TIME", "(Asia/Novosibirsk)"], "{trace}");
    let words = |i: usize| said[i][1..].join(" ");
    assert_eq!(words(1), format!("127.0.0.1:{here} ──> REGISTER 121 121"), "{trace}");
    assert_eq!(words(2), format!("127.0.0.1:{here} <── 401 Unauthorized REGISTER 121 121"), "{trace}");
    assert_eq!((said.len(), words(4)), (5, format!("127.0.0.1:{here} <── 200 OK REGISTER 121 121")), "{trace}");
    assert!(folder.says(&["trace", "--address", "127.0.0.1", "--full"]).contains("  User-Agent: Tin Can/1\n"));
    let nobody = folder.strowger(&["trace", "--extension", "122"]);
    assert!(nobody.stdout.is_empty() && String::from_utf8_lossy(&nobody.stderr).contains("no such message"));
}

#[test]
fn a_reload_is_a_line_of_the_log() {
    let folder = Folder::new();
    let port = free_port();
    folder.write(&office(port, ""));
    let server = Server::start(&folder);
    let new = "[[extension]]\nnumber = \"123\"\npassword = \"a-secret-of-123\"\n";
    folder.write(&office(port, new));
    let done = folder.strowger(&["reload"]);
    assert_eq!((done.status.code(), done.stdout.is_empty()), (Some(0), true));
    let line = server.logs("configuration reloaded");
    assert!(line.ends_with("configuration reloaded: extensions: new 123"), "{line}");
    folder.write(&office(port, "").replace("Boris", "Bela"));
    let hangup = Command::new("kill").args(["-HUP", &server.child.id().to_string()]).status();
    assert!(hangup.expect("kill runs").success());
    let line = server.logs("configuration reloaded");
    assert!(line.ends_with("configuration reloaded: extensions: gone 123, changed 122"), "{line}");
    folder.write(&office(port, "[[extention]]\n"));
    let refused = folder.strowger(&["reload"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the old configuration stays"));
    server.logs("configuration refused, the old one stays");
}

#[test]
fn a_trunk_says_why_it_is_not_registered() {
    let folder = Folder::new();
    let (port, nobody) = (free_port(), free_port());
    let (carrier, its) = socket();
    let trunk = |name: &str, at: String| {
        format!(
            "[[trunk]]\nname = \"{name}\"\nuri = [\"sip:{at}\"]\nusername = \"office\"\npassword = \"given\"\nregister = true\n"
        )
    };
    folder.write(&office(
        port,
        &(trunk("strict", format!("127.0.0.1:{its}")) + &trunk("gone", format!("127.0.0.2:{nobody}"))),
    ));
    let server = Server::start(&folder);
    let refuse = |method: &str| loop {
        let (message, from) = hear(&carrier);
        let register = message.text(Name::CSeq).is_some_and(|cseq| cseq.ends_with("REGISTER"));
        let (status, words) = if register { (403, "Forbidden") } else { (200, "OK") };
        carrier.send_to(&Writer::answer(&message, from, status, words, Some("1")).finish(), from).expect("sent");
        if message.text(Name::CSeq).is_some_and(|cseq| cseq.ends_with(method)) {
            return;
        }
    };
    refuse("REGISTER");
    let (mut refused, mut dead) = (false, false);
    while !(refused && dead) {
        let line = server.logs("registration ");
        refused |= line.contains("trunk=\"strict\"") && line.contains("registration refused: 403 Forbidden");
        dead |= line.contains("trunk=\"gone\"") && line.contains("registration failed: nobody listens there (ICMP)");
    }
    let trunks = folder.says(&["trunks"]);
    let of = |name: &str| trunks.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{trunks}"));
    assert!(of("strict").contains("not registered") && of("strict").contains("registration refused: 403 Forbidden"));
    assert!(of("gone").contains(" nobody listens there (ICMP); registration failed: "), "{trunks}");
    assert!(trunks.contains("SINCE (Asia/Novosibirsk)"), "{trunks}");
}

#[test]
fn what_cannot_be_written_or_bound_is_said_at_the_start() {
    let folder = Folder::new();
    let port = free_port();
    std::fs::write(folder.0.join("file"), "").expect("written");
    let good = office(port, "").replace("relay = \"never\"", "ports = \"21000-21099\"");
    let recorded = good.replace("mode = \"none\"", "mode = \"all\"\ndir = \"file/recordings\"");
    let elsewhere = good.replace("[media]\n", "[media]\nbind = \"192.0.2.77\"\n");
    for (text, checked, said) in [
        (recorded, Some(2), ["file/recordings", "`dir` in [recording]"]),
        (elsewhere, Some(0), ["192.0.2.77", "`bind` in [media]"]),
    ] {
        folder.write(&text);
        let check = folder.strowger(&["check"]);
        let told = String::from_utf8_lossy(&check.stderr);
        assert_eq!(check.status.code(), checked, "{told}");
        assert!(told.contains(said[0].trim_start_matches("file/")), "{told}");
        let serve = folder.strowger(&["serve"]);
        let told = String::from_utf8_lossy(&serve.stderr);
        assert_eq!(serve.status.code(), Some(1), "{told}");
        let last = told.lines().last().unwrap_or_default();
        assert!(said.iter().all(|part| last.contains(part)) && last.starts_with("strowger: cannot"), "{told}");
    }
}

#[test]
fn who_may_not_open_the_socket_is_told_so() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let folder = Folder::new();
    folder.write(&office(5060, ""));
    let data = folder.0.join("data");
    std::fs::create_dir_all(&data).expect("a folder");
    std::fs::write(data.join("strowger.sock"), "").expect("written");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o000)).expect("it is ours");
    let mut calls = command(&folder.config());
    calls.arg("calls");
    let root = std::fs::read_dir(&data).is_ok();
    if root {
        calls.uid(NOBODY).gid(NOBODY);
    }
    let Ok(done) = calls.output() else { return println!("SKIPPED: another user cannot run the command") };
    let told = String::from_utf8_lossy(&done.stderr);
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).expect("it is ours");
    assert_eq!(done.status.code(), Some(4), "{told}");
    assert!(told.contains("this user may not open") && told.contains("as the user that runs"), "{told}");
    assert!(!told.contains("running with this --config"), "{told}");
}

#[test]
fn an_import_says_what_changes() {
    let folder = Folder::new();
    folder.write(&office(5060, ""));
    let list = folder.0.join("customers.csv");
    let rows: String = (1..=7).map(|n| format!("+7913000000{n},name {n}\n")).collect();
    std::fs::write(&list, format!("number,name\n{rows}nonsense,x\n")).expect("written");
    let file = list.to_str().expect("UTF-8");
    let import = |more: &[&str]| folder.says(&[&["import", "contacts", file, "--dry-run"], more].concat());
    let json: serde_json::Value = serde_json::from_str(&import(&["--json"])).expect("JSON");
    let keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["changed", "new", "notes", "rejected", "rejects", "removed", "rows", "trimmed", "unchanged"]);
    assert_eq!(json["new"]["count"], 7);
    assert_eq!(json["new"]["examples"].as_array().map(Vec::len), Some(5));
    assert_eq!((&json["rows"], &json["rejected"], &json["trimmed"]), (&8.into(), &1.into(), &0.into()));
    assert_eq!(json["rejects"].as_str(), folder.0.join("customers.rejects.csv").to_str());
    assert!(import(&[]).contains("and 2 more (--all tells them)"));
    assert_eq!(import(&["--all"]).lines().filter(|l| l.starts_with("  new ")).count(), 7);
    let json: serde_json::Value = serde_json::from_str(&import(&["--json", "--all"])).expect("JSON");
    assert_eq!(json["new"]["examples"].as_array().map(Vec::len), Some(7));
}
