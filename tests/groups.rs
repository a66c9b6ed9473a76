//! Announcements to multicast groups over a real network: the server in a network namespace, a listener in another, a cable
//! between them. Nothing of the machine's own network is touched. Where the system permits no namespaces, it is SKIPPED.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const LISTENER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const RTP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 70, 0), 10_000);
const POLYCOM: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 1, 116), 5001);
/// Which part a process plays.
const PART: &str = "STROWGER_GROUPS_PART";
const OFFICE: &str = r#"
schema = 1
[node]
name = "groups"
data_dir = "data"
[[listen]]
bind = "10.77.0.1:5060"
[media]
bind = "10.77.0.1"
ports = "20000-20099"
[[page]]
number = "700"
name = "Shop floor"
members = ["multicast:239.255.70.0:10000", "polycom:224.0.1.116:5001/25"]
"#;

/// What is killed when the test ends, however it does.
struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This test once more, in a namespace of its own, as somebody else.
fn part(name: &str, namespaces: &[&str]) -> Command {
    let me = std::env::current_exe().expect("the test has a path");
    let mut command = Command::new("unshare");
    command.args(namespaces).arg("--").arg(me).args(["--exact", "groups_hear_a_page", "--nocapture"]).env(PART, name);
    command
}

#[test]
fn groups_hear_a_page() {
    match std::env::var(PART).as_deref() {
        Ok("server") => server(),
        Ok("listener") => listener(),
        _ => {
            let possible = Command::new("unshare").args(["--user", "--map-root-user", "--net", "true"]).output();
            let tools = Command::new("ip").arg("-V").output();
            if !possible.is_ok_and(|o| o.status.success()) || tools.is_err() {
                println!("SKIPPED: no network namespace can be made here (unshare, ip)");
                return;
            }
            let done = part("server", &["--user", "--map-root-user", "--net"]).output().expect("unshare is there");
            let told = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{told}");
            println!("{told}");
        }
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("ip is there");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// In a namespace of its own: lays the cable, has the other end listen, serves, pages a file.
fn server() {
    let mut other = part("listener", &["--net"]);
    other.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut other = Part(other.spawn().expect("a listener"));
    let mut heard = BufReader::new(other.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    // It says so once its namespace is there.
    heard.by_ref().find(|line| line.ends_with("here")).expect("the listener is there");
    ip("link set lo up");
    ip("link add cable type veth peer name far");
    ip(&format!("link set far netns {}", other.0.id()));
    ip(&format!("addr add {SERVER}/24 dev cable"));
    ip("link set cable up");
    let mut tell = other.0.stdin.take().expect("piped");
    tell.write_all(b"the cable is there\n").expect("it listens");
    heard.by_ref().find(|line| line.ends_with("listening")).expect("the listener listens");

    let folder = std::env::temp_dir().join(format!("strowger-groups-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("strowger.toml");
    std::fs::write(&config, OFFICE).expect("a file");
    std::fs::write(folder.join("news.wav"), wav()).expect("a file");
    let strowger = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
        command.args(arguments).arg("--config").arg(&config);
        command
    };
    let _server = Part(strowger(&["serve"]).stdout(Stdio::null()).spawn().expect("the server"));
    let until = Instant::now() + Duration::from_secs(20);
    while !strowger(&["phones"]).output().expect("the program").status.success() {
        assert!(Instant::now() < until, "the server does not answer");
    }
    let news: PathBuf = folder.join("news.wav");
    let paged = strowger(&["page", "700"]).arg(&news).output().expect("the program");
    assert!(paged.status.success(), "{}", String::from_utf8_lossy(&paged.stderr));
    let lines: Vec<String> = heard.take_while(|line| !line.ends_with("that was all")).collect();
    let _ = std::fs::remove_dir_all(&folder);
    lines.iter().for_each(|line| println!("{line}"));
    let of = |word: &str| lines.iter().find_map(|line| line.split_once(word).map(|(_, rest)| rest.trim().to_owned()));
    // A second of chime and a second of news are 100 packets of 20 ms.
    assert_eq!(of("RTP:").as_deref(), Some("100 packets, 1 source, first marked, payload types [0]"));
    assert_eq!(of("Polycom:").as_deref(), Some("31 alerts, 100 of sound, 12 ends, channel 25, Shop floor"));
}

/// In another namespace: listens to both groups and tells what it heard.
fn listener() {
    println!("here");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("told that the cable is there");
    ip("link set lo up");
    ip(&format!("addr add {LISTENER}/24 dev far"));
    ip("link set far up");
    let join = |(group, port): (Ipv4Addr, u16)| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port");
        socket.join_multicast_v4(&group, &LISTENER).expect("a group");
        socket.set_read_timeout(Some(Duration::from_millis(3))).expect("valid");
        socket
    };
    let (rtp, polycom) = (join(RTP), join(POLYCOM));
    println!("listening");
    let (mut sound, mut framed) = (Vec::new(), Vec::new());
    let until = Instant::now() + Duration::from_secs(40);
    let mut buffer = [0; 2048];
    // Its end is said twelve times.
    while framed.iter().filter(|p: &&Vec<u8>| p[0] == 0xff).count() < 12 && Instant::now() < until {
        for (socket, heard) in [(&rtp, &mut sound), (&polycom, &mut framed)] {
            if let Ok(length) = socket.recv(&mut buffer) {
                heard.push(buffer[..length].to_vec());
            }
        }
    }
    while let Ok(length) = rtp.recv(&mut buffer) {
        sound.push(buffer[..length].to_vec());
    }
    let ssrc = |p: &[u8]| p[8..12].to_vec();
    let sources = sound.iter().map(|p| ssrc(p)).collect::<std::collections::BTreeSet<_>>().len();
    let first = if sound.first().is_some_and(|p| p[1] & 0x80 != 0) { "first marked" } else { "first not marked" };
    let types = sound.iter().map(|p| p[1] & 0x7f).collect::<std::collections::BTreeSet<_>>();
    let types: Vec<u8> = types.into_iter().collect();
    println!("RTP: {} packets, {sources} source, {first}, payload types {types:?}", sound.len());
    let count = |opcode: u8| framed.iter().filter(|p| p[0] == opcode).count();
    let (channel, name) = framed
        .first()
        .map_or((0, String::new()), |p| (p[1], String::from_utf8_lossy(&p[7..20]).trim_end_matches('\0').to_owned()));
    let (alerts, transmits, ends) = (count(0x0f), count(0x10), count(0xff));
    println!("Polycom: {alerts} alerts, {transmits} of sound, {ends} ends, channel {channel}, {name}");
    println!("that was all");
}

/// A second of a tone, 8 kHz, 16 bit.
fn wav() -> Vec<u8> {
    let samples: Vec<i16> = strowger::media::tone::Tone::new(440, 8000).take(8000).collect();
    let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&8000u32.to_le_bytes());
    file.extend_from_slice(&16_000u32.to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&(data.len() as u32).to_le_bytes());
    file.extend_from_slice(&data);
    file
}
