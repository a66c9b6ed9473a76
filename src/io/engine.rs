//! The one thread that owns the core. It reads the UDP sockets itself, because waking another thread for a datagram costs
//! more than all the SIP work on it: wait, drain the sockets, handle, send the answers together; where datagrams come in numbers, nap
//! two milliseconds, so that the next ones share one wake-up. Everything that may
//! wait (streams, names, files, HTTP) lives on other threads and comes in through the [`Inlet`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::clock::Clock;
use super::metrics::{Counter, Metrics};
use super::net::batch::{BATCH, Inbox};
use super::net::udp;
use crate::b2bua::{Action, Ask, B2bua, CommandId, Event, Notice, QueryId, Save};
use crate::base::{Instant, Now};
use crate::call::hook::HookQuery;
use crate::call::record::RecordId;
use crate::directory::Hook;
use crate::media;
use crate::policy::hook::Question;
use crate::sip::transport::{Flow, Transport};

/// Events that wait for the engine, at most.
pub const QUEUE: usize = 16_384;
/// Of these, messages from streams: a stream that sends faster than we decide waits in its own socket.
pub const FRAMES: usize = 1_024;
/// Commands that wait for an answer of the core, at most.
const ASKED: usize = 1_024;
/// Inputs taken from the queue per round, so that the sockets are not kept waiting.
const ROUND: usize = 256;
/// How late a deadline may be met. Messages that come meanwhile meet it for nothing; a wake-up of its own costs more than all the
/// work on a message, and most deadlines (repeat if no answer came) are void by the time they are due. SIP's shortest is 500 ms.
const SLACK: Duration = Duration::from_millis(10);
/// Datagrams a second from which on the engine naps between rounds, so that several share one wake-up: a lone one costs more for its
/// waking than for all the work on it.
const BUSY: usize = 500;
/// The nap, and so what a message may have to wait longer where there are many.
const NAP: Duration = Duration::from_millis(2);
/// Over how long datagrams are counted for that.
const WINDOW: Duration = Duration::from_millis(50);
/// Panics of the core that are logged; later ones are only counted.
const LOGGED_PANICS: u64 = 100;

/// The core as the engine drives it. A trait so that what a panic costs can be tested with a core that panics.
pub trait Core {
    /// Tells it what happened.
    fn handle(&mut self, now: Now, event: Event);
    /// What it wants done, until it wants no more.
    fn poll(&mut self) -> Option<Action>;
    /// When it wants [`Event::Tick`].
    fn deadline(&self) -> Option<Instant>;
}

impl Core for B2bua {
    fn handle(&mut self, now: Now, event: Event) {
        B2bua::handle(self, now, event);
    }

    fn poll(&mut self) -> Option<Action> {
        B2bua::poll(self)
    }

    fn deadline(&self) -> Option<Instant> {
        B2bua::deadline(self)
    }
}

/// Where actions go that are not datagrams. None of these may wait.
pub trait Outside {
    /// Sends over a stream; false: there is no room or no way, and the flow is lost.
    fn stream(&mut self, flow: Flow, bytes: Bytes) -> bool;
    /// Tells a media worker.
    fn media(&mut self, worker: u16, command: media::Command);
    /// Asks the resolver.
    fn resolve(&mut self, query: QueryId, host: String, port: Option<u16>, transport: Option<Transport>);
    /// Asks a routing hook.
    fn ask_hook(&mut self, query: HookQuery, hook: Arc<Hook>, question: Box<Question>);
    /// Puts something into the store.
    fn save(&mut self, save: Save);
    /// Tells readers.
    fn notify(&mut self, notice: Notice);
    /// The last call ended after [`Input::Drain`] or [`Input::End`].
    fn idle(&mut self);
}

/// What takes an answer of the core. Called on the engine's thread: it must not wait.
pub type Answer = Box<dyn FnOnce(serde_json::Value) + Send>;

/// What other threads put into the engine's queue.
pub enum Input {
    /// For the core.
    Event(Event),
    /// For the core, with somebody waiting for the answer.
    Ask(Ask, Answer),
    /// No new calls; say when the last one ended.
    Drain,
    /// No new calls, end those that are there, say when they are gone.
    End,
    /// Leave the thread.
    Quit,
}

/// The way into the engine for other threads. Copies share it.
#[derive(Clone)]
pub struct Inlet(Arc<Gate>);

struct Gate {
    state: Mutex<Waiting>,
    bell: EventFd,
    metrics: Metrics,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Input>,
    /// The engine sleeps and wants the bell.
    asleep: bool,
}

impl Inlet {
    /// An empty queue.
    pub fn new(metrics: Metrics) -> io::Result<Inlet> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Inlet(Arc::new(Gate { state: Mutex::default(), bell, metrics })))
    }

    /// Gives the core an event. A full queue gives it back: drop it, or keep it and try later.
    pub fn send(&self, event: Event) -> Result<(), Event> {
        match self.put(Input::Event(event), QUEUE) {
            Ok(()) => Ok(()),
            Err(Input::Event(event)) => Err(event),
            Err(_) => unreachable!("put gives back what it was given"),
        }
    }

    /// Gives the core what it must not miss, because it would wait for it forever: news of ports and recordings. There are never
    /// more of these than ports; should there be, they are dropped and counted.
    pub fn insist(&self, event: Event) {
        self.put(Input::Event(event), 16 * QUEUE).ok();
    }

    /// As [`Inlet::send`], waiting for room: streams take less than the whole queue.
    pub async fn send_when_free(&self, mut event: Event) {
        loop {
            match self.put(Input::Event(event), FRAMES) {
                Ok(()) => return,
                Err(Input::Event(back)) => event = back,
                Err(_) => unreachable!("put gives back what it was given"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks the core. The answer is `null` where there is none or the engine is gone.
    pub fn ask(&self, ask: Ask, answer: impl FnOnce(serde_json::Value) + Send + 'static) {
        if let Err(Input::Ask(_, answer)) = self.put(Input::Ask(ask, Box::new(answer)), QUEUE) {
            answer(serde_json::Value::Null);
        }
    }

    /// Steers the engine itself. Never refused.
    pub fn steer(&self, input: Input) {
        // The few inputs of this kind may stand beyond the limit.
        self.put(input, usize::MAX).ok();
    }

    fn put(&self, input: Input, room: usize) -> Result<(), Input> {
        let mut waiting = self.0.lock();
        if waiting.queue.len() >= room {
            self.0.metrics.count(Counter::QueueFull);
            return Err(input);
        }
        waiting.queue.push_back(input);
        let ring = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if ring {
            // Fails only when the bell already rings.
            self.0.bell.write(1).ok();
        }
        Ok(())
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the engine may sleep; from then on senders ring.
    fn doze(&self) -> bool {
        let mut waiting = self.lock();
        waiting.asleep = waiting.queue.is_empty();
        waiting.asleep
    }

    /// Takes what waits into the empty `into`.
    fn take(&self, into: &mut VecDeque<Input>) {
        let mut waiting = self.lock();
        waiting.asleep = false;
        std::mem::swap(&mut waiting.queue, into);
    }
}

/// The engine, before and while it runs.
pub struct Engine<C, O> {
    core: C,
    outside: O,
    sockets: Vec<udp::Socket>,
    inlet: Inlet,
    clock: Clock,
    metrics: Metrics,
    epoll: Epoll,
    inbox: Inbox,
    /// Inputs that were taken from the queue and not yet handled.
    taken: VecDeque<Input>,
    /// What readers, the store and those who asked are told once the round's datagrams are out: nobody's call waits for that.
    later: Vec<Action>,
    /// Flows that failed since the last round.
    lost: Vec<Flow>,
    asked: HashMap<CommandId, Answer>,
    last_ask: u64,
    /// Calls in progress.
    live: HashSet<RecordId>,
    /// Somebody waits for the last call's end.
    leaving: bool,
    density: Density,
    now: Now,
}

/// How close datagrams come upon each other.
#[derive(Default)]
struct Density {
    since: Instant,
    seen: usize,
    busy: bool,
}

impl Density {
    /// Counts what a round found; says whether more comes so soon that it is better to nap first. A round that found nothing sleeps anyway,
    /// and a full one has left something.
    fn naps(&mut self, now: Instant, found: usize) -> bool {
        self.seen += found;
        let over = now - self.since;
        if over >= WINDOW {
            self.busy = self.seen as u128 * 1_000_000 >= BUSY as u128 * over.as_micros();
            (self.since, self.seen) = (now, 0);
        }
        self.busy && (1..BATCH).contains(&found)
    }
}

/// Epoll's name for the bell; sockets are named by their index.
const BELL: u64 = u64::MAX;

impl<C: Core, O: Outside> Engine<C, O> {
    /// An engine over bound sockets.
    pub fn new(
        core: C,
        outside: O,
        sockets: Vec<udp::Socket>,
        inlet: Inlet,
        clock: Clock,
        metrics: Metrics,
    ) -> io::Result<Engine<C, O>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(inlet.0.bell.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        for (i, socket) in sockets.iter().enumerate() {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
        }
        let now = clock.now();
        Ok(Engine {
            core,
            outside,
            sockets,
            inlet,
            clock,
            metrics,
            epoll,
            inbox: Inbox::new(),
            taken: VecDeque::new(),
            later: Vec::new(),
            lost: Vec::new(),
            asked: HashMap::new(),
            last_ask: 0,
            live: HashSet::new(),
            leaving: false,
            density: Density::default(),
            now,
        })
    }

    /// Runs until [`Input::Quit`]; gives back the outside, to be closed.
    pub fn run(mut self) -> O {
        let mut ready = [EpollEvent::empty(); 16];
        // Sets going what the core does of itself: questions to trunks.
        self.handle(Event::Tick);
        self.flush();
        loop {
            let timeout = self.timeout();
            let woken = match self.epoll.wait(&mut ready, timeout) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                Err(error) => {
                    // The descriptor is ours and valid; whatever this is, it must not become a busy loop.
                    tracing::error!(%error, "epoll_wait failed");
                    std::thread::sleep(Duration::from_millis(10));
                    0
                }
            };
            self.metrics.count(Counter::Wakeups);
            self.now = self.clock.now();
            if ready[..woken].iter().any(|event| event.data() == BELL) {
                self.inlet.0.bell.read().ok();
            }
            // First what was there before: ports and bindings that the next message may need.
            if self.inputs() {
                self.flush();
                return self.outside;
            }
            let mut found = 0;
            for event in ready[..woken].iter().filter(|event| event.data() != BELL) {
                found += self.socket(event.data() as usize, event.events());
            }
            self.failures();
            if self.core.deadline().is_some_and(|at| at <= self.now.mono) {
                self.handle(Event::Tick);
            }
            self.flush();
            if self.density.naps(self.now.mono, found) {
                std::thread::sleep(NAP);
            }
        }
    }

    /// How long to sleep. What was due has been done, so a sleep is never shorter than a millisecond unless work waits.
    fn timeout(&self) -> EpollTimeout {
        if !self.taken.is_empty() || !self.lost.is_empty() || !self.inlet.0.doze() {
            return EpollTimeout::ZERO;
        }
        match self.core.deadline() {
            None => EpollTimeout::NONE,
            Some(at) => {
                let millis = (at + SLACK - self.now.mono).as_micros().div_ceil(1000).clamp(1, 60_000);
                EpollTimeout::from(millis as u16)
            }
        }
    }

    /// One batch of one socket; how many datagrams there were.
    fn socket(&mut self, index: usize, flags: EpollFlags) -> usize {
        let Some(socket) = self.sockets.get(index) else { return 0 };
        let local = socket.local;
        let (lost, metrics) = (&mut self.lost, &self.metrics);
        if flags.contains(EpollFlags::EPOLLERR) {
            socket.bounced(metrics, |remote| note(lost, local, remote));
        }
        // EPOLLERR may stand alone; then there is nothing to read.
        if !flags.contains(EpollFlags::EPOLLIN) {
            return 0;
        }
        let received = socket.receive(&mut self.inbox, metrics, |remote| note(lost, local, remote));
        debug_assert!(received <= BATCH);
        for i in 0..received {
            let Some((remote, bytes)) = self.inbox.datagram(i) else {
                self.metrics.count(Counter::UdpOdd);
                continue;
            };
            let flow = Flow { transport: Transport::Udp, local, remote, conn: 0 };
            // Right-sized: what a call keeps of a message must not keep the whole inbox.
            let bytes = Bytes::copy_from_slice(bytes);
            self.handle(Event::Received { flow, bytes });
        }
        received
    }

    /// Takes a round of inputs; true: leave.
    fn inputs(&mut self) -> bool {
        if self.taken.is_empty() {
            let mut taken = std::mem::take(&mut self.taken);
            self.inlet.0.take(&mut taken);
            self.taken = taken;
        }
        for _ in 0..ROUND {
            match self.taken.pop_front() {
                None => break,
                Some(Input::Event(event)) => self.handle(event),
                Some(Input::Ask(ask, answer)) => self.ask(ask, answer),
                Some(Input::Drain) => self.leave(),
                Some(Input::End) => {
                    self.leave();
                    self.ask(Ask::HangupAll, Box::new(|_| ()));
                }
                Some(Input::Quit) => return true,
            }
        }
        false
    }

    fn ask(&mut self, ask: Ask, answer: Answer) {
        if self.asked.len() >= ASKED {
            return answer(serde_json::Value::Null);
        }
        self.last_ask += 1;
        let id = CommandId(self.last_ask);
        self.asked.insert(id, answer);
        self.handle(Event::Command { id, ask });
    }

    fn leave(&mut self) {
        self.leaving = true;
        self.handle(Event::Drain);
        if self.live.is_empty() {
            self.outside.idle();
        }
    }

    /// Tells the core of flows that failed.
    fn failures(&mut self) {
        for flow in std::mem::take(&mut self.lost) {
            self.handle(Event::FlowLost { flow });
        }
    }

    /// Tells the core, and does what it wants done.
    fn handle(&mut self, event: Event) {
        self.metrics.count(Counter::Events);
        self.guarded(|engine| {
            engine.core.handle(engine.now, event);
            while let Some(action) = engine.core.poll() {
                engine.act(action);
            }
        });
    }

    /// A panic costs this one event.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.metrics.count(Counter::Panics);
            if self.metrics.read(Counter::Panics) <= LOGGED_PANICS {
                tracing::error!("the core panicked; the event is given up, the rest goes on (please report this)");
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { flow, bytes } if flow.transport == Transport::Udp => self.datagram(flow, bytes),
            Action::Send { flow, bytes } => {
                if !self.outside.stream(flow, bytes) {
                    self.metrics.count(Counter::TcpUnsent);
                    self.lost.push(flow);
                }
            }
            Action::Resolve { query, host, port, transport } => self.outside.resolve(query, host, port, transport),
            Action::AskHook { query, hook, question } => self.outside.ask_hook(query, hook, question),
            Action::Media { worker, command } => self.outside.media(worker, command),
            Action::Save(_) | Action::Notify(_) | Action::Reply { .. } => {
                // Whoever drains in the same round has to know of it.
                if let Action::Notify(Notice::Call(call)) = &action {
                    self.live.insert(call.id);
                }
                self.later.push(action);
            }
        }
    }

    fn tell(&mut self, action: Action) {
        match action {
            Action::Send { .. } | Action::Resolve { .. } | Action::AskHook { .. } | Action::Media { .. } => {
                self.act(action)
            }
            Action::Save(save) => self.outside.save(save),
            Action::Notify(notice) => {
                match &notice {
                    Notice::Ended(id) => {
                        self.live.remove(id);
                        if self.leaving && self.live.is_empty() {
                            self.outside.idle();
                        }
                    }
                    Notice::Call(_)
                    | Notice::Phone(_)
                    | Notice::PhoneGone { .. }
                    | Notice::Trunk(_)
                    | Notice::LoginFailed(_)
                    | Notice::NotTaken(_)
                    | Notice::Registration(_)
                    | Notice::Closed(_) => {}
                }
                self.outside.notify(notice);
            }
            Action::Reply { id, answer } => {
                if let Some(waiting) = self.asked.remove(&id) {
                    waiting(answer);
                }
            }
        }
    }

    /// Queues a datagram at its socket; failing that, at any that reaches the peer.
    fn datagram(&mut self, flow: Flow, bytes: Bytes) {
        let index = self.sockets.iter().position(|s| s.local == flow.local);
        match index.or_else(|| self.sockets.iter().position(|s| s.reaches(flow.remote))) {
            Some(i) => self.sockets[i].queue(flow.remote, bytes),
            None => {
                self.metrics.count(Counter::NoListener);
                note(&mut self.lost, flow.local, flow.remote);
            }
        }
    }

    fn flush(&mut self) {
        for socket in &mut self.sockets {
            let local = socket.local;
            socket.flush(&self.metrics, |remote| note(&mut self.lost, local, remote));
        }
        let mut later = std::mem::take(&mut self.later);
        later.drain(..).for_each(|action| self.guarded(|engine| engine.tell(action)));
        self.later = later;
    }
}

/// Notes a lost UDP peer, once per round.
fn note(lost: &mut Vec<Flow>, local: std::net::SocketAddr, remote: std::net::SocketAddr) {
    let flow = Flow { transport: Transport::Udp, local, remote, conn: 0 };
    if !lost.contains(&flow) {
        lost.push(flow);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::mpsc;

    use super::*;
    use crate::b2bua::LiveCall;
    use crate::base::Wall;
    use crate::call::record::Direction;
    use crate::directory::Listen;
    use crate::io::net::Listeners;

    /// Echoes datagrams, panics when told to, ticks every 20 ms, has one call.
    #[derive(Default)]
    struct Echo {
        out: VecDeque<Action>,
        next: Option<Instant>,
        ticks: u64,
        lost: u64,
    }

    impl Core for Echo {
        fn handle(&mut self, now: Now, event: Event) {
            match event {
                Event::Received { bytes, .. } if &bytes[..] == b"panic" => panic!("as told"),
                Event::Received { flow, bytes } => self.out.push_back(Action::Send { flow, bytes }),
                Event::Tick => self.ticks += 1,
                Event::FlowLost { .. } => self.lost += 1,
                Event::Command { id, ask: Ask::HangupAll } => {
                    self.out.push_back(Action::Notify(Notice::Ended(RecordId(7))));
                    self.out.push_back(Action::Reply { id, answer: true.into() });
                }
                Event::Command { id, .. } => {
                    let answer = serde_json::json!({"ticks": self.ticks, "lost": self.lost});
                    self.out.push_back(Action::Reply { id, answer });
                }
                Event::Restore(_) => self.out.push_back(Action::Notify(Notice::Call(Box::new(LiveCall {
                    id: RecordId(7),
                    direction: Direction::In,
                    state: "talking".into(),
                    started_at: Wall::default(),
                    answered_at: None,
                    caller: String::new(),
                    called: String::new(),
                    with: Vec::new(),
                    trunk: None,
                    shown: None,
                })))),
                _ => {}
            }
            self.next = Some(now.mono + Duration::from_millis(20));
        }
        fn poll(&mut self) -> Option<Action> {
            self.out.pop_front()
        }
        fn deadline(&self) -> Option<Instant> {
            self.next
        }
    }

    struct Nothing(mpsc::Sender<&'static str>);

    impl Outside for Nothing {
        fn stream(&mut self, _: Flow, _: Bytes) -> bool {
            false
        }
        fn media(&mut self, _: u16, _: media::Command) {}
        fn resolve(&mut self, _: QueryId, _: String, _: Option<u16>, _: Option<Transport>) {}
        fn ask_hook(&mut self, _: HookQuery, _: Arc<Hook>, _: Box<Question>) {}
        fn save(&mut self, _: Save) {}
        fn notify(&mut self, _: Notice) {}
        fn idle(&mut self) {
            self.0.send("idle").ok();
        }
    }

    fn start() -> (Inlet, Metrics, std::net::SocketAddr, mpsc::Receiver<&'static str>, std::thread::JoinHandle<()>) {
        let listen = Listen { transport: Transport::Udp, bind: "127.0.0.1:0".parse().unwrap(), advertise: None };
        let listeners = Listeners::bind(&[listen]).unwrap();
        let address = listeners.addresses[0].local;
        let metrics = Metrics::new();
        let inlet = Inlet::new(metrics.clone()).unwrap();
        let (idle, heard) = mpsc::channel();
        let engine =
            Engine::new(Echo::default(), Nothing(idle), listeners.udp, inlet.clone(), Clock::new(), metrics.clone())
                .unwrap();
        let thread = std::thread::spawn(move || drop(engine.run()));
        (inlet, metrics, address, heard, thread)
    }

    fn status(inlet: &Inlet) -> serde_json::Value {
        let (tell, told) = mpsc::channel();
        inlet.ask(Ask::Status, move |v| drop(tell.send(v)));
        told.recv_timeout(Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn datagrams_are_answered_and_a_panic_costs_one() {
        let (inlet, metrics, address, _, thread) = start();
        let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
        phone.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for text in ["one", "panic", "two"] {
            phone.send_to(text.as_bytes(), address).unwrap();
        }
        let mut buffer = [0; 16];
        for text in ["one", "two"] {
            let n = phone.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], text.as_bytes());
        }
        assert_eq!(metrics.read(Counter::Panics), 1);
        inlet.steer(Input::Quit);
        thread.join().unwrap();
    }

    #[test]
    fn it_naps_only_where_datagrams_come_in_numbers() {
        // Datagrams found each 10 ms, and whether it naps after half a second of them.
        let table = [(0, false), (1, false), (4, false), (5, true), (63, true), (64, false), (200, false)];
        for (found, naps) in table {
            let mut density = Density::default();
            let at = |i: u64| Instant::from_micros(i * 10_000);
            assert!(!density.naps(at(1), found), "{found}: not before it has counted");
            let later = (2..50).fold(false, |_, i| density.naps(at(i), found));
            assert_eq!(later, naps, "{found}");
            assert!(!density.naps(at(1000), 1), "{found}: long ago");
        }
    }

    #[test]
    fn questions_wake_it_and_deadlines_are_kept() {
        let (inlet, _, _, _, thread) = start();
        status(&inlet);
        let begun = std::time::Instant::now();
        while status(&inlet)["ticks"].as_u64().unwrap() == 0 {
            // The deadline moves with every event; leave it in peace for a while.
            std::thread::park_timeout(Duration::from_millis(40));
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        inlet.steer(Input::Quit);
        thread.join().unwrap();
    }

    #[test]
    fn a_dead_peer_becomes_a_lost_flow() {
        let (inlet, _, address, _, thread) = start();
        let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
        phone.send_to(b"hello", address).unwrap();
        drop(phone);
        let begun = std::time::Instant::now();
        // The echo of the datagram, sent before or after the drop, may have been taken in; another phone on a dead port follows.
        while status(&inlet)["lost"] == 0 {
            let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
            phone.send_to(b"hello", address).unwrap();
            drop(phone);
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        inlet.steer(Input::Quit);
        thread.join().unwrap();
    }

    #[test]
    fn the_end_waits_for_the_last_call() {
        let (inlet, _, _, heard, thread) = start();
        inlet.send(Event::Restore(Vec::new())).unwrap();
        inlet.steer(Input::Drain);
        status(&inlet);
        assert!(heard.try_recv().is_err(), "a call is still there");
        inlet.steer(Input::End);
        assert_eq!(heard.recv_timeout(Duration::from_secs(5)), Ok("idle"));
        inlet.steer(Input::Quit);
        thread.join().unwrap();
    }

    #[test]
    fn a_full_queue_gives_events_back() {
        let inlet = Inlet::new(Metrics::new()).unwrap();
        for _ in 0..QUEUE {
            inlet.send(Event::Tick).unwrap();
        }
        assert!(inlet.send(Event::Tick).is_err());
        assert_eq!(inlet.0.metrics.read(Counter::QueueFull), 1);
    }
}
