//! What a whole call costs in the core: a carrier's INVITE, a phone that rings and answers, ACK, BYE, with a thousand other calls up and
//! the timers of two thousand calls a second. Once with SDP that passes untouched, once with ports of ours, once recorded.
//!
//! `cargo bench --bench call` prints Criterion's figures, then time, allocations and messages of each step, of the best of twenty rounds. Only
//! `handle`, `poll` and the dropping of actions are counted; the two ends and the sockets are not. `--test` is a smoke; `--profile CALLS
//! [relay]` plays so many calls and nothing else, for perf or callgrind (`--toggle-collect='*B2bua*handle*'`).
#![allow(clippy::disallowed_methods)]

use std::alloc::{GlobalAlloc, Layout};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use criterion::Criterion;
use mimalloc::MiMalloc;
use strowger::b2bua::{Action, B2bua, Event, Settings};
use strowger::base::{Instant, Now, Wall};
use strowger::directory::{Directory, Extension, Listen, Node, Number, Recording, Relay, Route, Target, Trunk};
use strowger::media::{self, Command, Port};
use strowger::registrar::Binding;
use strowger::sip::{Flow, Transport};

/// Calls that are up meanwhile.
const LIVE: usize = 1000;
/// Virtual time from one call to the next: 2,000 calls a second.
const APART: Duration = Duration::from_micros(500);
/// Calls until every table has its usual size: 40 s, longer than any transaction lives.
const WARM: u64 = 80_000;
/// Rounds, of which the best counts, and calls of each.
const ROUNDS: usize = 20;
const ROUND: u64 = 2000;
/// Calls of which the bytes held are the average.
const HELD_CALLS: u64 = 2000;

const SERVER: &str = "198.51.100.1:5060";
const CARRIER: &str = "203.0.113.1:5060";
const PHONE: &str = "192.0.2.50:5062";

/// Counts allocations (growing one counts as well), and the bytes that are held.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is handed to the server's allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(layout.size() as u64, Ordering::Relaxed);
        unsafe { MiMalloc.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        unsafe { MiMalloc.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add((size as u64).wrapping_sub(layout.size() as u64), Ordering::Relaxed);
        unsafe { MiMalloc.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the core does with media.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Never,
    Relay,
    Recorded,
}

/// What is counted apart.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    Invite,
    Ringing,
    Answer,
    Ack,
    Bye,
    Gone,
    Media,
    Timers,
}

const STEPS: [Step; 8] =
    [Step::Invite, Step::Ringing, Step::Answer, Step::Ack, Step::Bye, Step::Gone, Step::Media, Step::Timers];

/// Time and allocations in the core, and messages through it.
#[derive(Clone, Copy, Default)]
struct Cost {
    time: Duration,
    allocations: u64,
    messages: u64,
}

/// The core with both ends of its calls.
struct Bench {
    b2bua: B2bua,
    now: Now,
    serial: u64,
    /// The ends of calls that are up: what is sent to end each.
    live: VecDeque<Bytes>,
    actions: Vec<Action>,
    costs: [Cost; STEPS.len()],
    /// For each call that begins the oldest ends.
    ends: bool,
}

impl Bench {
    fn new(mode: Mode) -> Bench {
        let mut directory = Directory::empty(Node::new("bench", "bench.example"));
        directory.listen.push(Listen { transport: Transport::Udp, bind: address(SERVER), advertise: None });
        directory.media.relay = if mode == Mode::Never { Relay::Never } else { Relay::Always };
        directory.recording = if mode == Mode::Recorded { Recording::All } else { Recording::None };
        directory.trunks.push(Trunk::new("carrier", &format!("sip:{CARRIER}")));
        directory.numbers.push(Number::new("+73833000001".parse().expect("a number"), "carrier"));
        let phone = Extension { max_calls: u32::MAX, ..Extension::new("121", "Anna", "correct horse") };
        directory.extensions.push(phone);
        directory.routes.push(Route::new("all", Target::Extension("121".into())));
        let listen = vec![(Transport::Udp, address(SERVER))];
        let settings = Settings { listen, media: address(SERVER).ip(), ..Settings::default() };
        let mut bench = Bench {
            b2bua: B2bua::new(Arc::new(directory.indexed()), settings, [7; 32]),
            now: Now { mono: Instant::ZERO + Duration::from_secs(1), wall: Wall::from_micros(1_795_000_000_000_000) },
            serial: 0,
            live: VecDeque::new(),
            actions: Vec::new(),
            costs: Default::default(),
            ends: true,
        };
        let binding = Binding {
            aor: "121".into(),
            contact: format!("sip:121@{PHONE}"),
            instance: None,
            path: Vec::new(),
            flow: flow(PHONE),
            call_id: "registered".into(),
            cseq: 1,
            q: 1000,
            user_agent: None,
            expires_at: bench.now.wall + Duration::from_secs(10 * 365 * 86_400),
        };
        bench.feed(Step::Timers, Event::Restore(vec![binding]));
        bench.feed(Step::Timers, Event::PortsReady((1024..32_767).map(|p| Port(p * 2)).collect()));
        bench.feed(Step::Timers, Event::Tick);
        bench
    }

    /// One call begins and is answered; the oldest one ends.
    fn call(&mut self) {
        self.now.mono = self.now.mono + APART;
        self.now.wall = self.now.wall + APART;
        while self.b2bua.deadline().is_some_and(|at| at <= self.now.mono) {
            self.feed(Step::Timers, Event::Tick);
        }
        self.serial += 1;
        let invite = invite(self.serial);
        let up = self.receive(Step::Invite, CARRIER, invite).expect("the call is answered");
        self.receive(Step::Ack, CARRIER, request("ACK", 1, self.serial, &up));
        self.live.push_back(request("BYE", 2, self.serial, &up));
        if self.live.len() > LIVE && self.ends {
            let bye = self.live.pop_front().expect("there are more than enough");
            let gone = self.receive(Step::Bye, CARRIER, bye).expect("the BYE is answered");
            assert!(gone.starts_with(b"SIP/2.0 200"), "{}", text(&gone));
        }
    }

    /// Every transaction comes to its end.
    fn rest(&mut self) {
        let until = self.now.mono + Duration::from_secs(40);
        while let Some(at) = self.b2bua.deadline().filter(|at| *at <= until) {
            self.now.wall = self.now.wall + at.max(self.now.mono).since(self.now.mono);
            self.now.mono = at.max(self.now.mono);
            self.feed(Step::Timers, Event::Tick);
        }
    }

    fn receive(&mut self, step: Step, from: &str, bytes: Bytes) -> Option<Bytes> {
        self.feed(step, Event::Received { flow: flow(from), bytes })
    }

    /// Gives an event to the core and plays both ends of what comes of it. What the carrier hears last is the result.
    fn feed(&mut self, step: Step, event: Event) -> Option<Bytes> {
        let mut heard = None;
        let mut events = VecDeque::from([(step, event)]);
        while let Some((step, event)) = events.pop_front() {
            let cost = &mut self.costs[step as usize];
            cost.messages += u64::from(matches!(event, Event::Received { .. }));
            let (before, start) = (ALLOCATIONS.load(Ordering::Relaxed), Clock::now());
            self.b2bua.handle(self.now, event);
            while let Some(action) = self.b2bua.poll() {
                self.actions.push(action);
            }
            cost.time += start.elapsed();
            cost.allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
            for action in &self.actions {
                match action {
                    Action::Send { flow: to, bytes } => {
                        self.costs[step as usize].messages += 1;
                        let (from, answers) = ends(to.remote, bytes);
                        heard = (from == CARRIER).then(|| bytes.clone()).or(heard);
                        for (step, bytes) in answers {
                            events.push_back((step, Event::Received { flow: flow(from), bytes }));
                        }
                    }
                    Action::Media { command: Command::Close { port }, .. } => {
                        let closed = media::Output::Closed { port: *port, stats: media::Stats::default() };
                        events.push_back((Step::Media, Event::Media(closed)));
                    }
                    Action::Media { command: Command::Finish { recording }, .. } => {
                        let recorded = recorded(*recording);
                        events.push_back((Step::Media, Event::Media(recorded)));
                    }
                    _ => {}
                }
            }
            let start = Clock::now();
            self.actions.clear();
            self.costs[step as usize].time += start.elapsed();
        }
        heard
    }
}

/// All steps together.
fn whole(costs: &[Cost]) -> Cost {
    costs.iter().fold(Cost::default(), |sum, c| Cost {
        time: sum.time + c.time,
        allocations: sum.allocations + c.allocations,
        messages: sum.messages + c.messages,
    })
}

/// Who hears a message, and what it answers.
fn ends(remote: SocketAddr, bytes: &Bytes) -> (&'static str, Vec<(Step, Bytes)>) {
    let who = if remote == address(CARRIER) { CARRIER } else { PHONE };
    let answers = match &bytes[..4] {
        b"INVI" => {
            vec![(Step::Ringing, response(bytes, "180 Ringing", "")), (Step::Answer, response(bytes, "200 OK", SDP))]
        }
        b"BYE " | b"OPTI" => vec![(Step::Gone, response(bytes, "200 OK", ""))],
        _ => Vec::new(), // responses, ACK
    };
    (who, answers)
}

const SDP: &str = "v=0\r\no=- 20041 20041 IN IP4 192.0.2.50\r\ns=SDP data\r\nc=IN IP4 192.0.2.50\r\nt=0 0\r\nm=audio 11796 RTP/AVP 8 0 101\r\n\
a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n";

fn invite(serial: u64) -> Bytes {
    format!(
        "INVITE sip:+73833000001@{SERVER} SIP/2.0\r\nVia: SIP/2.0/UDP {CARRIER};branch=z9hG4bKinvite{serial};rport\r\n\
         From: \"Customer\" <sip:+79131234567@{CARRIER}>;tag=caller{serial}\r\nTo: <sip:+73833000001@{SERVER}>\r\n\
         Call-ID: {serial}-193648843155021@203.0.113.1\r\nCSeq: 1 INVITE\r\nContact: <sip:carrier@{CARRIER}>\r\nMax-Forwards: 70\r\n\
         Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE\r\nSupported: timer\r\nUser-Agent: carrier 1.0\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    )
    .into()
}

/// The carrier's request within the dialog that `ok` confirmed.
fn request(method: &str, seq: u32, serial: u64, ok: &Bytes) -> Bytes {
    assert!(ok.starts_with(b"SIP/2.0 200"), "{}", text(ok));
    let target = line(ok, "Contact: ").trim_start_matches('<').split('>').next().expect("split gives one");
    format!(
        "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {CARRIER};branch=z9hG4bK{method}{serial};rport\r\nFrom: {}\r\nTo: {}\r\n\
         Call-ID: {}\r\nCSeq: {seq} {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        line(ok, "From: "),
        line(ok, "To: "),
        line(ok, "Call-ID: "),
    )
    .into()
}

/// The phone's answer, or the carrier's to OPTIONS.
fn response(request: &Bytes, status: &str, sdp: &str) -> Bytes {
    let to = line(request, "To: ");
    let tag = if to.contains(";tag=") { "" } else { ";tag=callee" };
    let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <sip:121@{PHONE}>\r\n\
         {kind}Content-Length: {}\r\n\r\n{sdp}",
        line(request, "Via: "),
        line(request, "From: "),
        line(request, "Call-ID: "),
        line(request, "CSeq: "),
        sdp.len()
    )
    .into()
}

/// The value of the first header line that begins so.
fn line<'a>(message: &'a Bytes, name: &str) -> &'a str {
    let found = text(message).split("\r\n").find_map(|l| l.strip_prefix(name));
    found.unwrap_or_else(|| panic!("no {name}in {}", text(message)))
}

fn text(message: &Bytes) -> &str {
    std::str::from_utf8(message).expect("ours and the core's are ASCII")
}

fn recorded(recording: media::RecordingId) -> media::Output {
    let result = media::Recorded { length_ms: 500, gaps_ms: 0, complete: true, undecoded: Vec::new(), no_file: None };
    media::Output::Recorded { recording, result }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn flow(remote: &str) -> Flow {
    Flow { transport: Transport::Udp, local: address(SERVER), remote: address(remote), conn: 0 }
}

/// The bytes that the core holds for a call that is up, its transactions being over.
fn held(mode: Mode) {
    let mut bench = Bench::new(mode);
    // Tables that double have their size before and after, or the figure would depend on where they stand.
    (0..LIVE as u64).for_each(|_| bench.call());
    bench.rest();
    let before = HELD.load(Ordering::Relaxed);
    bench.ends = false;
    (0..HELD_CALLS).for_each(|_| bench.call());
    bench.rest();
    let live = bench.live.iter().skip(LIVE).map(|bye| bye.len() as u64 + size_of::<Bytes>() as u64).sum::<u64>();
    let bytes = (HELD.load(Ordering::Relaxed) - before - live) / HELD_CALLS;
    println!("call: {mode:?} holds {bytes} bytes in the core while it is up");
}

/// What a call costs, whole and by step.
fn figures(mode: Mode, warm: u64, calls: u64) {
    let mut bench = Bench::new(mode);
    (0..warm).for_each(|_| bench.call());
    let rounds = (0..ROUNDS).map(|_| {
        bench.costs = Default::default();
        (0..calls).for_each(|_| bench.call());
        bench.costs
    });
    let best = rounds.min_by_key(|costs| whole(costs).time).expect("there are rounds");
    let show = |name: &str, cost: Cost| {
        let per = |n: u128| n as f64 / calls as f64;
        let mode = format!("{mode:?}").to_lowercase();
        let (ns, allocations, messages) =
            (per(cost.time.as_nanos()), per(cost.allocations.into()), per(cost.messages.into()));
        println!("call: {mode:<8} {name:<8} {ns:>8.0} ns {allocations:>6.1} allocations {messages:>5.1} messages");
    };
    for (step, cost) in STEPS.iter().zip(best) {
        show(&format!("{step:?}").to_lowercase(), cost);
    }
    show("whole", whole(&best));
    let status = bench.b2bua.status();
    assert!(status.calls <= 2 * LIVE, "calls pile up: {status:?}");
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == "--profile") {
        let calls = args.get(at + 1).and_then(|n| n.parse().ok()).unwrap_or(WARM);
        let mut bench = Bench::new(if args.iter().any(|a| a == "relay") { Mode::Relay } else { Mode::Never });
        (0..calls).for_each(|_| bench.call());
        return;
    }
    let (warm, calls) = if args.iter().any(|a| a == "--test") { (1500, 50) } else { (WARM, ROUND) };
    let mut c = Criterion::default().configure_from_args();
    let mut group = c.benchmark_group("call");
    for mode in [Mode::Never, Mode::Relay] {
        let mut bench = Bench::new(mode);
        (0..warm).for_each(|_| bench.call());
        group.bench_function(format!("{mode:?}").to_lowercase(), |b| {
            b.iter_custom(|calls| {
                let before = whole(&bench.costs).time;
                (0..calls).for_each(|_| bench.call());
                whole(&bench.costs).time - before
            });
        });
    }
    group.finish();
    c.final_summary();
    println!();
    for mode in [Mode::Never, Mode::Relay, Mode::Recorded] {
        figures(mode, warm, calls);
        held(mode);
    }
}
