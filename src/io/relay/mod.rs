//! The media path: worker threads that relay RTP between bound ports as the core says, and the thread that binds the ports.
//!
//! ```text
//!   engine ── Command (bounded) ──> relay-0 ─┐ sockets of the ports, shared, bound by "relay-ports"
//!      ^                            relay-1 ─┘
//!      └──────── Report (callback) ───┘ └── tape ──> record::writer
//! ```
//!
//! It shares nothing with the database, the HTTP side or the log: a call's sound goes on whatever hangs there.

pub mod ports;
mod worker;

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::io::clock::Clock;
use crate::io::record;
use crate::media::sound::Library;
use crate::media::{Command, Output, Port, RecordingId};
use ports::{BLOCK, Sockets};
use worker::{Wake, Worker};

/// Commands that may wait for one worker.
const MAX_COMMANDS: usize = 8192;
/// Opened ports between two looks at how many are left.
const LOOK: usize = 32;
/// How long a closed port rests in the core before it is used again, and a little more.
const REST: Duration = Duration::from_secs(6);

/// Takes what the media threads have to say. It is called on their threads and must not wait: put it into a queue, ring a bell.
pub type Sink = Arc<dyn Fn(Report) + Send + Sync>;

/// What media threads say.
#[derive(Clone, PartialEq, Debug)]
pub enum Report {
    /// For the core.
    Media(Output),
    /// These ports are bound and free from now on.
    Ports(Vec<Port>),
    /// The files of this recording were deleted for their age.
    Deleted {
        /// Which.
        recording: RecordingId,
    },
}

/// The workers, as the engine holds them. Dropped, it ends them and waits for them.
#[derive(Debug)]
pub struct RelayHandle {
    workers: Vec<(SyncSender<Command>, Arc<Wake>)>,
    threads: Vec<JoinHandle<()>>,
    look: Option<SyncSender<()>>,
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

/// Why a command did not go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such worker.
    #[error("no such media worker")]
    NoWorker,
    /// So many commands wait that the worker must be stuck.
    #[error("media worker does not take commands")]
    Full,
}

/// How many workers this machine should have: its cores but one, and one at least.
pub fn workers() -> usize {
    core_affinity::get_core_ids().map_or(1, |cores| cores.len().saturating_sub(1)).max(1)
}

/// What the workers have besides their ports.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// Writes what is tapped.
    pub recorder: Option<record::Handle>,
    /// What is played; a reload swaps it, and the next sound that begins is of the new ones.
    pub sounds: Arc<ArcSwap<Library>>,
}

/// Starts the workers and begins to bind `ports`; each block of them is reported.
///
/// # Errors
/// A thread or a descriptor cannot be had.
pub fn start(
    bind: IpAddr,
    ports: RangeInclusive<u16>,
    workers: usize,
    stock: Stock,
    clock: Clock,
    sink: Sink,
) -> io::Result<RelayHandle> {
    let sockets = Arc::new(Sockets::new(bind, ports));
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let (look, looks) = sync_channel(1);
    let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut handle = RelayHandle {
        workers: Vec::new(),
        threads: Vec::new(),
        look: Some(look),
        opened: opened.clone(),
        closed: closed.clone(),
    };
    for i in 0..workers.clamp(1, usize::from(u16::MAX)) {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let wake = Arc::new(Wake::new(event));
        let (to, commands) = sync_channel(MAX_COMMANDS);
        let tape = stock.recorder.as_ref().map(|recorder| recorder.tape(i));
        let (wake_its, sounds) = (wake.clone(), stock.sounds.clone());
        let worker = Worker::new(sockets.clone(), wake_its, commands, tape, sounds, clock.clone(), sink.clone())?;
        // The first core is the engine's.
        let core = (cores.len() > 1).then(|| cores[(i + 1) % cores.len()]);
        let thread = Builder::new().name(format!("relay-{i}")).spawn(move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            worker.run();
        })?;
        handle.threads.push(thread);
        handle.workers.push((to, wake));
    }
    let binder = Binder { sockets, opened, closed, looks, clock, sink };
    handle.threads.push(Builder::new().name("relay-ports".into()).spawn(move || binder.run())?);
    Ok(handle)
}

impl RelayHandle {
    /// Tells a worker.
    ///
    /// # Errors
    /// It did not get it; the call that it was for has no media.
    pub fn send(&self, worker: u16, command: Command) -> Result<(), Refused> {
        let (to, wake) = self.workers.get(usize::from(worker)).ok_or(Refused::NoWorker)?;
        match &command {
            Command::Open { .. } if self.opened.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK) => {
                if let Some(look) = &self.look {
                    let _ = look.try_send(());
                }
            }
            Command::Close { .. } => drop(self.closed.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        match to.try_send(command) {
            Ok(()) => {
                wake.ring();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Refused::Full),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }
}

impl Drop for RelayHandle {
    fn drop(&mut self) {
        self.look = None;
        for (to, wake) in self.workers.drain(..) {
            drop(to);
            wake.ring();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Keeps a block more bound than is in use or at rest.
struct Binder {
    sockets: Arc<Sockets>,
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    looks: Receiver<()>,
    clock: Clock,
    sink: Sink,
}

impl Binder {
    fn run(self) {
        let allowance = ports::allowance();
        let mut bound = 0;
        // Closed ports by when they were seen to be.
        let mut rests = (0, 0, self.clock.mono());
        loop {
            let now = self.clock.mono();
            let closed = self.closed.load(Ordering::Relaxed);
            if now.since(rests.2) >= REST {
                rests = (rests.1, closed, now);
            }
            let away = self.opened.load(Ordering::Relaxed).saturating_sub(rests.0);
            while bound < allowance && bound < away + BLOCK {
                let ports = self.sockets.bind_block();
                if ports.is_empty() {
                    break;
                }
                bound += ports.len();
                (self.sink)(Report::Ports(ports));
            }
            match self.looks.recv_timeout(if away > 0 { REST } else { Duration::MAX }) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use super::*;
    use crate::base::{Rng, Wall};
    use crate::io::record::{Recorder, Settings, parts};
    use crate::media::codec::{Encoder, NARROW};
    use crate::media::packet::{Header, Sender};
    use crate::media::sound::Language;
    use crate::media::tone::{self, Tone};
    use crate::media::{Codec, Kind, PtMap, Remote, Side, dtmf};

    const SSRC: u32 = 0x5157;

    /// Two phones and the relay between them, on an address of its own.
    struct World {
        relay: RelayHandle,
        reports: Receiver<Report>,
        ports: Vec<Port>,
        phones: [UdpSocket; 2],
        ip: IpAddr,
    }

    impl World {
        fn new(last: u8, recorder: impl FnOnce(&Clock, &Sink) -> Option<record::Handle>) -> World {
            let [_, _, high, low] = std::process::id().to_be_bytes();
            let ip = IpAddr::V4(Ipv4Addr::new(127, 64 + last, high, low.max(1)));
            let (report, reports) = channel();
            let sink: Sink = Arc::new(move |it| drop(report.send(it)));
            let clock = Clock::new();
            let stock = Stock { recorder: recorder(&clock, &sink), ..Stock::default() };
            stock.sounds.store(Arc::new(Library::own(Language::English)));
            let relay = start(ip, 20000..=20999, 1, stock, clock, sink).expect("a relay");
            let phones = [0; 2].map(|_| {
                let phone = UdpSocket::bind((ip, 0)).expect("a socket");
                phone.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
                phone
            });
            let mut world = World { relay, reports, ports: Vec::new(), phones, ip };
            world.ports = world.wait(|report| match report {
                Report::Ports(ports) => Some(ports),
                Report::Media(_) | Report::Deleted { .. } => None,
            });
            world
        }

        fn wait<T>(&self, mut wanted: impl FnMut(Report) -> Option<T>) -> T {
            loop {
                let report = self.reports.recv_timeout(Duration::from_secs(5)).expect("a report in time");
                if let Some(found) = wanted(report) {
                    return found;
                }
            }
        }

        fn tell(&self, command: Command) {
            self.relay.send(0, command).expect("taken");
        }

        fn phone(&self, i: usize) -> SocketAddr {
            self.phones[i].local_addr().expect("an address")
        }

        /// Links the phones over the first two ports.
        fn connect(&self) {
            for i in 0..2 {
                let port = self.ports[i];
                self.tell(Command::Open {
                    port,
                    kind: Kind::Rtp { clock: 8000 },
                    ssrc: SSRC + i as u32,
                    timeout: Duration::ZERO,
                });
                self.tell(Command::Remote { port, remote: Remote { sdp: self.phone(i), nat: None } });
                self.tell(Command::Flow { port, send: true, expect: true });
            }
            let (a, b, to_b) = (self.ports[0], self.ports[1], vec![PtMap { from: 101, to: 96 }]);
            self.tell(Command::Link { a, b, to_a: vec![], to_b });
            self.settle();
        }

        /// Until all commands so far are obeyed: the last one has an answer.
        fn settle(&self) {
            let recording = RecordingId(0);
            self.tell(Command::Finish { recording });
            self.wait(|report| {
                matches!(report, Report::Media(Output::Recorded { recording: it, .. }) if it == recording).then_some(())
            });
        }

        fn send(&self, i: usize, packet: &[u8]) {
            self.phones[i].send_to(packet, (self.ip, self.ports[i].0)).expect("sent");
        }

        fn hear(&self, i: usize) -> Vec<u8> {
            let mut packet = [0; 2048];
            let (length, from) = self.phones[i].recv_from(&mut packet).expect("a packet in time");
            assert_eq!(from, SocketAddr::new(self.ip, self.ports[i].0));
            packet[..length].to_vec()
        }
    }

    #[test]
    fn two_phones_hear_each_other_and_nobody_else() {
        let world = World::new(0, |_, _| None);
        world.connect();
        let (mut voice, mut reply) = (Sender::new(1, 9, 9), Sender::new(2, 5, 5));
        for _ in 0..5 {
            // The stranger's first, so that it would be heard first.
            let stranger = UdpSocket::bind((world.ip, 0)).expect("a socket");
            stranger.send_to(&voice.packet(0, false, b"stranger"), (world.ip, world.ports[0].0)).expect("sent");
            world.send(0, &voice.packet(101, false, b"left"));
            let heard = world.hear(1);
            let header = Header::parse(&heard).expect("RTP");
            assert_eq!((header.ssrc, header.payload_type, &heard[header.start..]), (SSRC + 1, 96, &b"left"[..]));
            world.send(1, &reply.packet(0, false, b"right"));
            assert!(world.hear(0).ends_with(b"right"));
        }
        let recording = RecordingId(7);
        world.tell(Command::Finish { recording });
        for port in [world.ports[0], world.ports[1]] {
            world.tell(Command::Close { port });
        }
        let (mut heard, mut stats, mut recorded) = (0, HashMap::new(), None);
        while stats.len() < 2 {
            world.wait(|report| {
                match report {
                    Report::Media(Output::Heard { .. }) => heard += 1,
                    Report::Media(Output::Closed { port, stats: its }) => drop(stats.insert(port, its)),
                    Report::Media(Output::Recorded { result, .. }) => recorded = Some(result.complete),
                    _ => {}
                }
                Some(())
            });
        }
        assert_eq!((heard, recorded), (2, Some(false)), "there is no recorder");
        let left = stats[&world.ports[0]];
        assert_eq!((left.received, left.sent, left.strangers), (5, 5, 5));
        assert_eq!(world.relay.send(9, Command::Close { port: Port(1) }), Err(Refused::NoWorker));
    }

    #[test]
    fn a_prompt_is_paced_and_keys_are_heard() {
        let world = World::new(3, |_, _| None);
        world.connect();
        let port = world.ports[0];
        world.tell(Command::Listen { port, payloads: vec![(101, Codec::Event)], in_band: false });
        let sounds = vec!["beep".into(), "beep".into()];
        world.tell(Command::Play { port, sounds, codec: Codec::Pcma, payload_type: 8, repeat: false });
        let begin = Instant::now();
        let headers: Vec<Header> = (0..30).map(|_| Header::parse(&world.hear(0)).expect("RTP")).collect();
        let took = begin.elapsed();
        assert!((500..5000).contains(&took.as_millis()), "30 packets of 20 ms took {took:?}");
        let steps = headers.windows(2);
        assert!(steps.into_iter().all(|w| w[1].seq == w[0].seq.wrapping_add(1) && w[1].ssrc == SSRC));
        world.wait(|report| (report == Report::Media(Output::Played { port })).then_some(()));
        for packet in dtmf::press(&mut Sender::new(1, 2, 3), 101, '1', 40) {
            world.send(0, &packet);
        }
        world.wait(|report| (report == Report::Media(Output::Digit { port, digit: '1' })).then_some(()));
    }

    #[test]
    fn ports_are_bound_ahead_of_need() {
        let world = World::new(1, |_, _| None);
        assert_eq!((world.ports.len(), world.ports[0]), (BLOCK, Port(20000)));
        for port in &world.ports[..LOOK + 1] {
            world.tell(Command::Open { port: *port, kind: Kind::Opaque, ssrc: 0, timeout: Duration::ZERO });
        }
        let more = world.wait(|report| match report {
            Report::Ports(ports) => Some(ports),
            Report::Media(_) | Report::Deleted { .. } => None,
        });
        assert_eq!(more.first(), Some(&Port(20000 + 2 * BLOCK as u16)));
    }

    #[test]
    fn each_phone_is_heard_on_its_side_of_the_file_even_before_the_end() {
        let dir = std::env::temp_dir().join(format!("strowger-record-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let mut recorder = None;
        let world = World::new(2, |clock, sink| {
            let settings = Settings { dir: dir.clone(), keep: None, writers: 1 };
            let started = Recorder::start(settings, clock.clone(), sink.clone()).expect("a recorder");
            Some(recorder.insert(started).handle())
        });
        world.connect();
        let recording = RecordingId::mint(Wall::from_micros(1_795_350_000_000_000), &mut Rng::from_number(9));
        for (i, side) in [Side::Left, Side::Right].into_iter().enumerate() {
            let payloads = vec![(8, Codec::Pcma), (0, Codec::Pcmu)];
            world.tell(Command::Tap { port: world.ports[i], recording, side, payloads });
        }
        world.settle();
        let begin = Instant::now();
        let mut tones = [440, 1000].map(|hz| Tone::new(hz, NARROW));
        let mut voices = [Sender::new(1, 65530, 5), Sender::new(2, 7, u32::MAX - 800)];
        let mut live = 0;
        for step in 0..80u32 {
            for (i, codec) in [Codec::Pcma, Codec::Pcmu].into_iter().enumerate() {
                let sound: Vec<i16> = tones[i].by_ref().take(160).collect();
                let packet = voices[i].packet(if i == 0 { 8 } else { 0 }, false, &Encoder::new(codec).encode(&sound));
                voices[i].advance(160);
                world.send(i, &packet);
                let _ = world.hear(1 - i);
            }
            // Waiting for a report that does not come is what paces a phone here.
            let due = begin + Duration::from_millis(20) * (step + 1);
            while let Some(wait) = due.checked_duration_since(Instant::now()) {
                let _ = world.reports.recv_timeout(wait);
            }
            if step == 74 {
                // What a kill would leave at this moment.
                let path = &parts(&dir, recording)[0];
                live = hound::WavReader::open(path).expect("readable while it is written").duration();
            }
        }
        assert!(live > 8 * (1500 - record::LOSS.as_millis() as u32), "{live} frames of 1.5 s");
        world.tell(Command::Finish { recording });
        let result = world.wait(|report| match report {
            Report::Media(Output::Recorded { recording: it, result }) if it == recording => Some(result),
            _ => None,
        });
        assert!(result.complete && result.undecoded.is_empty() && result.gaps_ms == 0, "{result:?}");
        assert!((1580..1900).contains(&result.length_ms), "{result:?}");
        let reader = hound::WavReader::open(&parts(&dir, recording)[0]).expect("a WAV file");
        assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, NARROW));
        let samples: Vec<i16> = reader.into_samples().map(|s| s.expect("a sample")).collect();
        for (i, hz) in [440, 1000].into_iter().enumerate() {
            let side: Vec<i16> = samples.iter().skip(i).step_by(2).copied().skip(2400).take(8000).collect();
            assert_eq!(tone::heard(&side, NARROW, &[440, 1000]), Some(hz), "side {i}");
        }
        drop(world);
        drop(recorder);
        let _ = std::fs::remove_dir_all(&dir);
    }
}
