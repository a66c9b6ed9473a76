//! What relaying costs: the real worker against a bare recv + send loop over as many sockets, in the same run.
//!
//! ```text
//! cargo bench --bench relay -- [--calls 500] [--rate 50] [--seconds 10] [--rounds 3] [--dir /tmp] [--smoke]
//! ```
//!
//! The bare loop is non-blocking epoll, recv and send_to with a 1 ms nap after a round that found something; it looks at nothing
//! in a packet. Load comes from one thread on the first core, whoever relays is on the second. CPU is what the scheduler
//! counted for the threads that do the work (the writers of recordings included), divided by the packets that came through.
//! Delay is from the sender's clock before it sends to after it has received, so it holds the sender's own rounds too.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use strowger::base::Rng;
use strowger::io::clock::Clock;
use strowger::io::record::{Recorder, Settings};
use strowger::io::relay::ports::{Sockets, allowance};
use strowger::io::relay::{self, Report, Sink, Stock};
use strowger::media::packet::Sender;
use strowger::media::{Codec, Command, Kind, Port, RecordingId, Remote, Side};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FIRST_PORT: u16 = 30_000;
const WARM_UP: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(1);
/// Fixed header, then the sender's clock, then sound.
const STAMP: std::ops::Range<usize> = 12..20;

struct Options {
    calls: usize,
    rate: u64,
    seconds: u64,
    rounds: usize,
    dir: PathBuf,
}

/// One measurement.
struct Row {
    /// CPU time of the threads that relay, ns per packet.
    cpu: f64,
    /// Delay in µs: half of the packets, 99 of 100, all.
    delay: [u64; 3],
    sent: u64,
    lost: u64,
}

fn main() -> io::Result<()> {
    let options = options();
    allowance();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < 2 {
        println!("one core only: load and relay share it, so delays mean little");
    }
    println!(
        "{} calls, {} packets/s each way, {} s, {} rounds",
        options.calls, options.rate, options.seconds, options.rounds
    );
    println!(
        "{:<22}{:>12}{:>8}{:>10}{:>10}{:>10}{:>12}{:>8}",
        "", "µs/packet", "ratio", "p50 ms", "p99 ms", "max ms", "packets", "lost"
    );
    let mut all: [Vec<Row>; 3] = Default::default();
    for _ in 0..options.rounds {
        all[0].push(bare(&options, cores.get(1).copied())?);
        all[1].push(relayed(&options, false)?);
        all[2].push(relayed(&options, true)?);
        let base = all[0].last().map_or(0.0, |row| row.cpu);
        for (name, rows) in ["bare loop", "strowger", "strowger, recorded"].iter().zip(&all) {
            if let Some(row) = rows.last() {
                print(name, row, row.cpu / base);
            }
        }
    }
    let median = |rows: &[Row]| {
        let mut ratios: Vec<f64> = rows.iter().zip(&all[0]).map(|(row, base)| row.cpu / base.cpu).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    println!(
        "median ratio to the bare loop: relayed {:.2} (target 1.3), recorded {:.2} (target 1.8)",
        median(&all[1]),
        median(&all[2])
    );
    Ok(())
}

fn options() -> Options {
    let mut options = Options { calls: 500, rate: 50, seconds: 10, rounds: 3, dir: std::env::temp_dir() };
    let mut words = std::env::args().skip(1);
    let number = |word: Option<String>| word.and_then(|w| w.parse::<u64>().ok()).unwrap_or_else(|| usage());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--calls" => options.calls = number(words.next()) as usize,
            "--rate" => options.rate = number(words.next()).clamp(1, 1000),
            "--seconds" => options.seconds = number(words.next()),
            "--rounds" => options.rounds = number(words.next()).max(1) as usize,
            "--dir" => options.dir = words.next().map_or_else(|| usage(), PathBuf::from),
            "--smoke" => (options.calls, options.seconds, options.rounds) = (20, 1, 1),
            "--bench" => {}
            _ => usage(),
        }
    }
    options
}

fn usage() -> ! {
    eprintln!("usage: relay [--calls N] [--rate PACKETS] [--seconds S] [--rounds N] [--dir DIR] [--smoke]");
    std::process::exit(2)
}

fn print(name: &str, row: &Row, ratio: f64) {
    let ms = |us: u64| us as f64 / 1000.0;
    let [half, most, max] = row.delay;
    println!(
        "{name:<22}{:>12.2}{ratio:>8.2}{:>10.2}{:>10.2}{:>10.2}{:>12}{:>8}",
        row.cpu / 1000.0,
        ms(half),
        ms(most),
        ms(max),
        row.sent,
        row.lost
    );
}

/// The floor: what the kernel takes for it.
fn bare(options: &Options, core: Option<core_affinity::CoreId>) -> io::Result<Row> {
    let last = FIRST_PORT + 4 * options.calls as u16 + 1;
    let sockets = Arc::new(Sockets::new(LOCALHOST, FIRST_PORT..=last));
    let mut ports = Vec::new();
    while ports.len() < 2 * options.calls {
        ports.extend(Some(sockets.bind_block()).filter(|block| !block.is_empty()).ok_or(io::ErrorKind::AddrInUse)?);
    }
    let phones = phones(options)?;
    let peers: Vec<SocketAddr> = (0..phones.len()).map(|i| phones[i ^ 1].local_addr()).collect::<Result<_, _>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, mine) = (stop.clone(), sockets.clone());
    let indexes: Vec<usize> = ports.iter().take(phones.len()).filter_map(|port| sockets.index(*port)).collect();
    let looping = thread::Builder::new().name("bare".into()).spawn(move || -> io::Result<()> {
        core.map(core_affinity::set_for_current);
        let pairs: Vec<_> = indexes.iter().filter_map(|index| mine.pair(*index)).collect();
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        for (i, pair) in pairs.iter().enumerate() {
            epoll.add(&pair.rtp, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
        }
        let (mut events, mut buffer) = (vec![EpollEvent::empty(); 1024], [0; 2048]);
        while !stopped.load(Ordering::Relaxed) {
            let ready = epoll.wait(&mut events, EpollTimeout::from(10u8))?;
            for event in &events[..ready] {
                let i = event.data() as usize;
                if let Ok(length) = pairs[i].rtp.recv(&mut buffer) {
                    let _ = pairs[i ^ 1].rtp.send_to(&buffer[..length], peers[i]);
                }
            }
            if ready > 0 {
                thread::sleep(NAP);
            }
        }
        Ok(())
    })?;
    let row = drive(options, &phones, &ports, &["bare"]);
    stop.store(true, Ordering::Relaxed);
    looping.join().map_err(|_| io::Error::other("the bare loop panicked"))??;
    row
}

/// The real thing.
fn relayed(options: &Options, record: bool) -> io::Result<Row> {
    let clock = Clock::new();
    let (report, reports) = channel();
    let sink: Sink = Arc::new(move |it| drop(report.send(it)));
    let dir = options.dir.join(format!("strowger-bench-{}", std::process::id()));
    let settings = Settings { dir: dir.clone(), keep: None, writers: 1 };
    let recorder = record.then(|| Recorder::start(settings, clock.clone(), sink.clone())).transpose()?;
    let stock = Stock { recorder: recorder.as_ref().map(Recorder::handle), ..Stock::default() };
    let last = FIRST_PORT + 4 * options.calls as u16 + 1;
    let relay = relay::start(LOCALHOST, FIRST_PORT..=last, 1, stock, clock.clone(), sink)?;
    let phones = phones(options)?;
    let mut ports: Vec<Port> = Vec::new();
    let mut rng = Rng::from_number(1);
    let tell = |command: Command| {
        // Thousands of commands at once are not what an engine does; the worker takes them within its nap.
        while relay.send(0, command.clone()).is_err() {
            thread::sleep(NAP);
        }
    };
    let mut recordings = Vec::new();
    for (i, phone) in phones.iter().enumerate() {
        while ports.len() <= i {
            match reports.recv_timeout(Duration::from_secs(10)) {
                Ok(Report::Ports(more)) => ports.extend(more),
                Ok(Report::Media(_) | Report::Deleted { .. }) => {}
                Err(_) => return Err(io::Error::other("no RTP ports")),
            }
        }
        let port = ports[i];
        tell(Command::Open {
            port,
            kind: Kind::Rtp { clock: 8000 },
            ssrc: rng.bits32(),
            timeout: Duration::from_secs(60),
        });
        tell(Command::Remote { port, remote: Remote { sdp: phone.local_addr()?, nat: None } });
        tell(Command::Flow { port, send: true, expect: true });
        if i % 2 == 1 {
            tell(Command::Link { a: ports[i - 1], b: port, to_a: Vec::new(), to_b: Vec::new() });
            if record {
                let recording = RecordingId::mint(clock.wall(), &mut rng);
                recordings.push(recording);
                for (port, side) in [(ports[i - 1], Side::Left), (port, Side::Right)] {
                    tell(Command::Tap { port, recording, side, payloads: vec![(8, Codec::Pcma)] });
                }
            }
        }
    }
    let row = drive(options, &phones, &ports, &["relay-0", "record-0"]);
    recordings.into_iter().for_each(|recording| tell(Command::Finish { recording }));
    drop(relay);
    drop(recorder);
    let _ = fs::remove_dir_all(&dir);
    row
}

fn phones(options: &Options) -> io::Result<Vec<UdpSocket>> {
    let phone = |_| {
        let socket = UdpSocket::bind((LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    (0..2 * options.calls).map(phone).collect()
}

/// Has every phone talk and measures what comes of it, on the first core.
fn drive(options: &Options, phones: &[UdpSocket], ports: &[Port], threads: &[&str]) -> io::Result<Row> {
    let core = core_affinity::get_core_ids().unwrap_or_default().first().copied();
    // A thread of its own: the relay's threads inherit where the one that starts them may run.
    let talk = || {
        core.map(core_affinity::set_for_current);
        talk(options, phones, ports, threads)
    };
    thread::scope(|scope| scope.spawn(talk).join()).map_err(|_| io::Error::other("the load panicked"))?
}

fn talk(options: &Options, phones: &[UdpSocket], ports: &[Port], threads: &[&str]) -> io::Result<Row> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    for (i, phone) in phones.iter().enumerate() {
        epoll.add(phone, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
    }
    let gap = Duration::from_micros(1_000_000 / options.rate);
    let ticks = (8000 / options.rate) as u32;
    let mut voices: Vec<Sender> = (0..phones.len()).map(|i| Sender::new(i as u32 + 1, i as u16, i as u32)).collect();
    let mut packets: Vec<Vec<u8>> = voices.iter_mut().map(|voice| voice.packet(8, false, &[0x55; 160])).collect();
    let begin = Instant::now();
    let (from, until) = (begin + WARM_UP, begin + WARM_UP + Duration::from_secs(options.seconds));
    let (mut events, mut buffer) = (vec![EpollEvent::empty(); 256], [0; 2048]);
    let mut delays: Vec<u32> = Vec::new();
    let (mut sent, mut received, mut turn) = (0u64, 0u64, 0u64);
    let mut before = None;
    let count = phones.len() as u64;
    let mut after = 0;
    loop {
        let now = Instant::now();
        if before.is_none() && now >= from {
            before = Some(cpu(threads)?);
        }
        if now >= until && after == 0 {
            after = cpu(threads)?;
        }
        if now >= until + Duration::from_millis(200) {
            break;
        }
        // The phones' turns are spread evenly over each packet time.
        let due = (now - begin).as_nanos() as u64 * count / gap.as_nanos() as u64;
        for _ in 0..64 {
            if turn >= due || now >= until {
                break;
            }
            let i = (turn % count) as usize;
            let at = begin.elapsed().as_micros() as u64;
            let packet = &mut packets[i];
            let (seq, timestamp) = ((turn / count) as u16, (turn / count) as u32 * ticks);
            packet[2..4].copy_from_slice(&seq.to_be_bytes());
            packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
            packet[STAMP].copy_from_slice(&at.to_le_bytes());
            if phones[i].send_to(packet, (LOCALHOST, ports[i].0)).is_ok() {
                sent += u64::from(now >= from);
            }
            turn += 1;
        }
        let ready = epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in &events[..ready] {
            if let Ok(length) = phones[event.data() as usize].recv(&mut buffer)
                && length > STAMP.end
            {
                let mut stamp = [0; 8];
                stamp.copy_from_slice(&buffer[STAMP]);
                let stamp = u64::from_le_bytes(stamp);
                if begin + Duration::from_micros(stamp) >= from {
                    received += 1;
                    delays.push((begin.elapsed().as_micros() as u64).saturating_sub(stamp) as u32);
                }
            }
        }
    }
    delays.sort_unstable();
    let at = |share: f64| {
        delays.get((delays.len() as f64 * share) as usize).or(delays.last()).map_or(0, |us| u64::from(*us))
    };
    let cpu = (after - before.unwrap_or(after)) as f64 / received.max(1) as f64;
    Ok(Row { cpu, delay: [at(0.5), at(0.99), at(1.0)], sent, lost: sent.saturating_sub(received) })
}

/// CPU time that threads of these names have had, in ns.
fn cpu(names: &[&str]) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task: &Path = &task?.path();
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if names.contains(&name.trim()) {
            let times = fs::read_to_string(task.join("schedstat"))?;
            sum += times.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}
