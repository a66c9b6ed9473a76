//! SIP over TCP (RFC 3261 section 18, RFC 5626 keep-alives): accepts and opens connections, cuts the streams into messages,
//! writes what the engine gives. Runs on tokio; the engine never waits for it and no connection waits for another.
//!
//! One task, the hub, owns the table of connections. Each connection is a task of its own with a bounded queue. Who
//! connects and says nothing is closed after 5 s, and earlier when room is needed: silence costs the newcomer nothing.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::b2bua::Event;
use crate::io::engine::Inlet;
use crate::io::metrics::{Counter, Metrics};
use crate::sip::Framer;
use crate::sip::transport::{Flow, Transport};

/// What bounds the connections of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub total: usize,
    /// Connections of one address (IPv6: of one /64).
    pub per_address: usize,
    /// Time from the connection to the first byte of a message.
    pub first: Duration,
    /// Time from a message's first byte to its last.
    pub message: Duration,
    /// Time between messages (or keep-alives) of a connection that has sent one. Longer than any registration.
    pub idle: Duration,
    /// Time for the peer to take one message that we write.
    pub write: Duration,
    /// Time for a connection that we open: shorter than the 4 s after which the next target is tried.
    pub connect: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            total: 4096,
            per_address: 512,
            first: Duration::from_secs(5),
            message: Duration::from_secs(10),
            idle: Duration::from_secs(7200),
            write: Duration::from_secs(10),
            connect: Duration::from_millis(3500),
        }
    }
}

/// Messages that wait for one peer to read, at most; a peer behind by more is given up.
const PEER_QUEUE: usize = 64;
/// Messages that wait for the hub, at most.
const HUB_QUEUE: usize = 4096;
/// Connections being opened at once, at most.
const DIALLING: usize = 256;
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// How long a stop waits for what is queued to be written.
const STOP: Duration = Duration::from_millis(200);
/// What a response begins with.
const VERSION: &[u8] = b"SIP/2.0 ";
/// How long a connection on which nothing more is read waits for the answers to what was read.
const ANSWERS: Duration = Duration::from_secs(1);
/// How long we read on after a last answer, so that the peer's system does not throw it away.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no descriptors left): the listener stays readable and would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Silence after which the system asks the peer whether it is there, and the pause between such questions.
const PROBE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// The way to the hub.
#[derive(Clone, Debug)]
pub struct Streams(mpsc::Sender<Order>);

impl Streams {
    /// Starts accepting. To be called within a tokio runtime. When the last copy is dropped, what was queued is written
    /// and everything is closed.
    pub fn start(
        listeners: Vec<(std::net::TcpListener, SocketAddr)>,
        limits: Limits,
        inlet: Inlet,
        metrics: Metrics,
    ) -> io::Result<Streams> {
        let (orders, ordered) = mpsc::channel(HUB_QUEUE);
        let (news, heard) = mpsc::channel(HUB_QUEUE);
        let shared = Arc::new(Shared { limits, inlet, metrics, news });
        let mut accepting = Vec::new();
        for (listener, local) in listeners {
            listener.set_nonblocking(true)?;
            let accept = accept(TcpListener::from_std(listener)?, local, shared.clone());
            accepting.push(tokio::spawn(accept).abort_handle());
        }
        let hub = Hub {
            shared,
            connections: HashMap::new(),
            silent: BTreeSet::new(),
            by_remote: HashMap::new(),
            by_address: HashMap::new(),
            dialling: 0,
            last: 0,
        };
        tokio::spawn(async move {
            hub.run(ordered, heard).await;
            for task in accepting {
                task.abort();
            }
        });
        Ok(Streams(orders))
    }

    /// Sends a message: over the flow's connection, or, where `conn` is 0, over any to that remote, opened if there is none.
    /// False: it could not even be queued.
    pub fn send(&self, flow: Flow, bytes: Bytes) -> bool {
        self.0.try_send(Order { flow, bytes }).is_ok()
    }
}

#[derive(Debug)]
struct Order {
    flow: Flow,
    bytes: Bytes,
}

/// What accepting and connections tell the hub.
enum News {
    Accepted {
        stream: TcpStream,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// The first whole message came.
    Spoke(u32),
    /// A connection that we opened stands.
    Connected(u32),
    Gone(u32),
}

struct Shared {
    limits: Limits,
    inlet: Inlet,
    metrics: Metrics,
    news: mpsc::Sender<News>,
}

/// The owner of the table.
struct Hub {
    shared: Arc<Shared>,
    connections: HashMap<u32, Connection>,
    /// Accepted connections that have not sent a message, oldest first: ids rise.
    silent: BTreeSet<u32>,
    by_remote: HashMap<SocketAddr, u32>,
    by_address: HashMap<IpAddr, usize>,
    dialling: usize,
    last: u32,
}

struct Connection {
    flow: Flow,
    out: mpsc::Sender<Out>,
    /// Dropped: the connection is closed at once.
    _kill: oneshot::Sender<()>,
    /// Messages went out by it under `conn` 0, and are lost with it.
    borrowed: bool,
    dialling: bool,
    spoke: bool,
}

enum Out {
    Message(Bytes),
    /// The last one: then close.
    Last(Bytes),
}

impl Hub {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, mut news: mpsc::Receiver<News>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.order(order),
                    None => break,
                },
                // Never closed: `shared` holds a sender.
                Some(item) = news.recv() => self.news(item),
            }
        }
        // Queues that lose their senders are written out; then the connections end by themselves.
        let mut waiting: Vec<_> = self.connections.drain().map(|(_, c)| (c.out, c._kill)).collect();
        let all_closed = async {
            for (out, _) in &mut waiting {
                while out.capacity() < PEER_QUEUE && !out.is_closed() {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        };
        timeout(STOP, all_closed).await.ok();
    }

    fn order(&mut self, Order { flow, bytes }: Order) {
        let known = if flow.conn == 0 { self.by_remote.get(&flow.remote).copied() } else { Some(flow.conn) };
        let Some(id) = known else { return self.dial(flow, bytes) };
        let Some(connection) = self.connections.get_mut(&id) else { return self.lost(flow) };
        connection.borrowed |= flow.conn == 0;
        match connection.out.try_send(Out::Message(bytes)) {
            Ok(()) => self.shared.metrics.count(Counter::TcpSent),
            Err(_) => {
                // It does not read, or is closing: what it misses cannot be made good on a stream.
                self.shared.metrics.count(Counter::TcpUnsent);
                self.shared.metrics.count(Counter::TcpStalled);
                self.close(id);
            }
        }
    }

    fn news(&mut self, item: News) {
        match item {
            News::Accepted { stream, local, remote } => self.accepted(stream, local, remote),
            News::Spoke(id) => {
                self.silent.remove(&id);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.spoke = true;
                }
            }
            News::Connected(id) => {
                if let Some(connection) = self.connections.get_mut(&id)
                    && std::mem::take(&mut connection.dialling)
                {
                    self.dialling -= 1;
                }
            }
            News::Gone(id) => self.close(id),
        }
    }

    fn accepted(&mut self, stream: TcpStream, local: SocketAddr, remote: SocketAddr) {
        let limits = self.shared.limits;
        let place = place(remote.ip());
        if self.by_address.get(&place).copied().unwrap_or(0) >= limits.per_address && !self.evict(Some(place)) {
            return self.shared.metrics.count(Counter::TcpRefused);
        }
        if self.connections.len() >= limits.total && !self.evict(None) {
            return self.shared.metrics.count(Counter::TcpRefused);
        }
        self.shared.metrics.count(Counter::TcpAccepted);
        let flow = Flow { transport: Transport::Tcp, local, remote, conn: self.mint() };
        let (out, queue, killed) = self.enter(flow, false);
        self.silent.insert(flow.conn);
        let task = Task::new(self.shared.clone(), flow, out, Some(limits.first));
        tokio::spawn(task.serve(stream, queue, killed));
    }

    fn dial(&mut self, flow: Flow, bytes: Bytes) {
        if self.dialling >= DIALLING || self.connections.len() >= self.shared.limits.total {
            self.shared.metrics.count(Counter::TcpUnsent);
            return self.lost(flow);
        }
        self.dialling += 1;
        let flow = Flow { conn: self.mint(), ..flow };
        let (out, queue, killed) = self.enter(flow, true);
        if out.upgrade().is_some_and(|out| out.try_send(Out::Message(bytes)).is_ok()) {
            self.shared.metrics.count(Counter::TcpSent);
        }
        let task = Task::new(self.shared.clone(), flow, out, None);
        tokio::spawn(task.dial(queue, killed));
    }

    fn enter(&mut self, flow: Flow, ours: bool) -> (mpsc::WeakSender<Out>, mpsc::Receiver<Out>, oneshot::Receiver<()>) {
        let (out, queue) = mpsc::channel(PEER_QUEUE);
        let (kill, killed) = oneshot::channel();
        let weak = out.downgrade();
        let connection = Connection { flow, out, _kill: kill, borrowed: ours, dialling: ours, spoke: false };
        self.connections.insert(flow.conn, connection);
        self.by_remote.insert(flow.remote, flow.conn);
        *self.by_address.entry(place(flow.remote.ip())).or_default() += 1;
        (weak, queue, killed)
    }

    /// Closes the connection that has been silent longest, of `place` or of all; false: none is silent.
    fn evict(&mut self, from: Option<IpAddr>) -> bool {
        let here = |id: &&u32| {
            from.is_none_or(|from| self.connections.get(id).is_some_and(|c| place(c.flow.remote.ip()) == from))
        };
        let Some(id) = self.silent.iter().find(here).copied() else { return false };
        self.shared.metrics.count(Counter::TcpEvicted);
        self.close(id);
        true
    }

    /// Takes a connection out of the table, which ends its task, and tells the core what is lost with it.
    fn close(&mut self, id: u32) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let flow = connection.flow;
        self.silent.remove(&id);
        if self.by_remote.get(&flow.remote) == Some(&id) {
            self.by_remote.remove(&flow.remote);
        }
        let place = place(flow.remote.ip());
        if let Some(count) = self.by_address.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&place);
            }
        }
        if connection.dialling {
            self.dialling -= 1;
        }
        if connection.spoke || connection.borrowed {
            self.lost(flow);
        }
        if connection.borrowed {
            self.lost(Flow { conn: 0, ..flow });
        }
    }

    fn lost(&self, flow: Flow) {
        if let Err(event) = self.shared.inlet.send(Event::FlowLost { flow }) {
            let inlet = self.shared.inlet.clone();
            tokio::spawn(async move { inlet.send_when_free(event).await });
        }
    }

    /// The next connection's number; never 0.
    fn mint(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.connections.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

async fn accept(listener: TcpListener, local: SocketAddr, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                if shared.news.send(News::Accepted { stream, local, remote }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                shared.metrics.count(Counter::AcceptFailed);
                tracing::debug!(%error, "accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection.
struct Task {
    shared: Arc<Shared>,
    flow: Flow,
    /// Our own queue, for pongs and last answers. Weak: when the hub lets go, the queue ends.
    out: mpsc::WeakSender<Out>,
    /// Time for the first message, where the peer connected to us.
    first: Option<Duration>,
    /// Requests that were read and have no final answer yet, as far as can be told from counting.
    unanswered: AtomicU32,
    /// A final answer was written.
    answered: Notify,
}

enum End {
    /// By the peer, by the hub, or by an error.
    Closed,
    /// Closed by the peer for writing, and answered.
    Finished,
    TooSlow,
    Stalled,
    /// What cannot be framed, from one who never sent a message.
    Malformed,
    /// What cannot be framed, after everything that was to be said.
    Answered,
}

impl Task {
    fn new(shared: Arc<Shared>, flow: Flow, out: mpsc::WeakSender<Out>, first: Option<Duration>) -> Task {
        Task { shared, flow, out, first, unanswered: AtomicU32::new(0), answered: Notify::new() }
    }

    async fn dial(self, queue: mpsc::Receiver<Out>, killed: oneshot::Receiver<()>) {
        match timeout(self.shared.limits.connect, connect(self.flow)).await {
            Ok(Ok(stream)) => {
                self.shared.metrics.count(Counter::TcpDialled);
                self.tell(News::Connected(self.flow.conn)).await;
                self.serve(stream, queue, killed).await;
            }
            Ok(Err(_)) | Err(_) => {
                self.shared.metrics.count(Counter::TcpDialFailed);
                self.tell(News::Gone(self.flow.conn)).await;
            }
        }
    }

    async fn serve(self, stream: TcpStream, mut queue: mpsc::Receiver<Out>, killed: oneshot::Receiver<()>) {
        // Without these two it works, only slower.
        stream.set_nodelay(true).ok();
        let keep_alive = TcpKeepalive::new().with_time(PROBE.0).with_interval(PROBE.1);
        SockRef::from(&stream).set_tcp_keepalive(&keep_alive).ok();
        let end = tokio::select! {
            end = self.read(&stream) => end,
            end = self.write(&stream, &mut queue) => end,
            _ = killed => End::Closed,
        };
        let metrics = &self.shared.metrics;
        match end {
            End::Closed | End::Finished => {}
            End::TooSlow => metrics.count(Counter::TcpTooSlow),
            End::Stalled => metrics.count(Counter::TcpStalled),
            End::Malformed | End::Answered => metrics.count(Counter::TcpMalformed),
        }
        self.tell(News::Gone(self.flow.conn)).await;
        if let End::Answered | End::Finished | End::TooSlow = end {
            linger(stream).await;
        }
    }

    async fn read(&self, stream: &TcpStream) -> End {
        let limits = self.shared.limits;
        let mut framer = Framer::default();
        let mut quiet_since = Instant::now();
        let mut first = self.first;
        // When the message at hand began to arrive.
        let mut begun: Option<Instant> = None;
        loop {
            let until = match begun {
                Some(at) => at + limits.message,
                None => quiet_since + first.unwrap_or(limits.idle),
            };
            match timeout_at(until, stream.readable()).await {
                Err(_) => return End::TooSlow,
                Ok(Err(_)) => return End::Closed,
                Ok(Ok(())) => {}
            }
            match take(stream, &mut framer) {
                Ok(0) => {
                    self.settle().await;
                    return End::Finished;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return End::Closed,
            }
            loop {
                match framer.next() {
                    Ok(Some(bytes)) => {
                        (begun, quiet_since) = (None, Instant::now());
                        if first.take().is_some() {
                            self.tell(News::Spoke(self.flow.conn)).await;
                        }
                        self.shared.metrics.count(Counter::TcpReceived);
                        if !bytes.starts_with(VERSION) && !bytes.starts_with(b"ACK ") {
                            self.unanswered.fetch_add(1, Relaxed);
                        }
                        self.shared.inlet.send_when_free(Event::Received { flow: self.flow, bytes }).await;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let answer = error.0.response(self.flow.remote);
                        // The messages before it are answered first: their answers are still on their way.
                        self.settle().await;
                        let (Some(answer), Some(out)) = (answer, self.out.upgrade()) else {
                            return if first.is_some() { End::Malformed } else { End::Answered };
                        };
                        if out.send(Out::Last(answer)).await.is_err() {
                            return End::Malformed;
                        }
                        // The writing side ends the connection.
                        return std::future::pending().await;
                    }
                }
            }
            if framer.ping() {
                if first.is_none() {
                    quiet_since = Instant::now();
                }
                if let Some(out) = self.out.upgrade() {
                    // A full queue: the peer does not read, it will not miss a pong.
                    out.try_send(Out::Message(Bytes::from_static(b"\r\n"))).ok();
                }
            }
            match (framer.is_partial(), begun) {
                (true, None) => begun = Some(Instant::now()),
                (false, Some(_)) => begun = None,
                (true, Some(_)) | (false, None) => {}
            }
        }
    }

    async fn write(&self, stream: &TcpStream, queue: &mut mpsc::Receiver<Out>) -> End {
        while let Some(out) = queue.recv().await {
            let (bytes, last) = match out {
                Out::Message(bytes) => (bytes, false),
                Out::Last(bytes) => (bytes, true),
            };
            match timeout(self.shared.limits.write, write_all(stream, &bytes)).await {
                Ok(Ok(())) if last => return End::Answered,
                Ok(Ok(())) => {
                    if bytes.strip_prefix(VERSION).is_some_and(|status| !status.starts_with(b"1")) {
                        self.unanswered.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).ok();
                        self.answered.notify_one();
                    }
                }
                Ok(Err(_)) => return End::Closed,
                Err(_) => return End::Stalled,
            }
        }
        End::Closed
    }

    /// Waits until what was read is answered; not for ever, since an INVITE may ring on.
    async fn settle(&self) {
        let answered = async {
            while self.unanswered.load(Relaxed) > 0 {
                self.answered.notified().await;
            }
        };
        timeout(ANSWERS, answered).await.ok();
    }

    async fn tell(&self, news: News) {
        // Fails only when the hub has ended, and us with it.
        self.shared.news.send(news).await.ok();
    }
}

/// Opens a connection; from our listening address where that is an address of this machine.
async fn connect(flow: Flow) -> io::Result<TcpStream> {
    let socket = if flow.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if flow.local.is_ipv4() == flow.remote.is_ipv4() {
        // An advertised address of a NAT is not ours to bind; then the system chooses.
        socket.bind(SocketAddr::new(flow.local.ip(), 0)).ok();
    }
    socket.connect(flow.remote).await
}

/// Reads what is there. Not async, so that the buffer is not part of every idle connection.
fn take(stream: &TcpStream, framer: &mut Framer) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let n = stream.try_read(&mut chunk)?;
    framer.push(&chunk[..n]);
    Ok(n)
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Closes our side and reads on for a moment: a close with unread bytes would be a reset, which destroys the last answer.
async fn linger(stream: TcpStream) {
    SockRef::from(&stream).shutdown(std::net::Shutdown::Write).ok();
    let drain = async {
        let mut chunk = [0; 512];
        loop {
            match stream.try_read(&mut chunk) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if stream.readable().await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    };
    timeout(LINGER, drain).await.ok();
}

/// What counts as one address: an IPv4 address, an IPv6 /64.
fn place(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as sync;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::b2bua::{Action, Ask, Notice, QueryId, Save};
    use crate::base::Now;
    use crate::call::hook::HookQuery;
    use crate::directory::Hook;
    use crate::io::clock::Clock;
    use crate::io::engine::{Core, Engine, Input, Outside};
    use crate::policy::hook::Question;

    /// Answers every OPTIONS with its own bytes and other requests with a 200; tells the test of lost flows.
    struct Echo(Vec<Action>, sync::Sender<Event>);

    impl Core for Echo {
        fn handle(&mut self, _: Now, event: Event) {
            match event {
                Event::Received { flow, bytes } if bytes.starts_with(b"OPTIONS ") => {
                    self.0.push(Action::Send { flow, bytes });
                }
                Event::Received { flow, .. } => {
                    self.0.push(Action::Send { flow, bytes: Bytes::from_static(ANSWER.as_bytes()) });
                }
                Event::Command { ask: Ask::Ladder(id), .. } => {
                    // The test's way to have something sent: the id is the port.
                    let remote = SocketAddr::from(([127, 0, 0, 1], id.0 as u16));
                    let local = SocketAddr::from(([127, 0, 0, 1], 5060));
                    let flow = Flow { transport: Transport::Tcp, local, remote, conn: 0 };
                    self.0.push(Action::Send { flow, bytes: Bytes::from_static(MESSAGE.as_bytes()) });
                }
                Event::Tick => {}
                other => drop(self.1.send(other)),
            }
        }
        fn poll(&mut self) -> Option<Action> {
            self.0.pop()
        }
        fn deadline(&self) -> Option<crate::base::Instant> {
            None
        }
    }

    struct Tcp(Streams);

    impl Outside for Tcp {
        fn stream(&mut self, flow: Flow, bytes: Bytes) -> bool {
            self.0.send(flow, bytes)
        }
        fn media(&mut self, _: u16, _: crate::media::Command) {}
        fn resolve(&mut self, _: QueryId, _: String, _: Option<u16>, _: Option<Transport>) {}
        fn ask_hook(&mut self, _: HookQuery, _: Arc<Hook>, _: Box<Question>) {}
        fn save(&mut self, _: Save) {}
        fn notify(&mut self, _: Notice) {}
        fn idle(&mut self) {}
    }

    const MESSAGE: &str = "OPTIONS sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:a@127.0.0.1>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 4\r\n\r\nbody";

    const ANSWER: &str = "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n";

    struct Server {
        address: SocketAddr,
        metrics: Metrics,
        inlet: Inlet,
        events: sync::Receiver<Event>,
        thread: std::thread::JoinHandle<()>,
    }

    impl Server {
        fn start(limits: Limits) -> Server {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let metrics = Metrics::new();
            let inlet = Inlet::new(metrics.clone()).unwrap();
            let streams = Streams::start(vec![(listener, address)], limits, inlet.clone(), metrics.clone()).unwrap();
            let (tell, events) = sync::channel();
            let core = Echo(Vec::new(), tell);
            let engine =
                Engine::new(core, Tcp(streams), Vec::new(), inlet.clone(), Clock::new(), metrics.clone()).unwrap();
            let thread = std::thread::spawn(move || drop(engine.run()));
            Server { address, metrics, inlet, events, thread }
        }

        fn stop(self) {
            self.inlet.steer(Input::Quit);
            self.thread.join().unwrap();
        }
    }

    async fn echo(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(MESSAGE.as_bytes()).await?;
        let mut back = vec![0; MESSAGE.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, MESSAGE.as_bytes());
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn messages_pings_and_pieces() {
        let server = Server::start(Limits::default());
        let mut phone = TcpStream::connect(server.address).await.unwrap();
        echo(&mut phone).await.unwrap();
        phone.write_all(b"\r\n\r\n").await.unwrap();
        let mut pong = [0; 2];
        phone.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\r\n");
        for piece in MESSAGE.as_bytes().chunks(50) {
            phone.write_all(piece).await.unwrap();
            phone.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut back = vec![0; MESSAGE.len()];
        phone.read_exact(&mut back).await.unwrap();
        // Half-closed with a question open: still answered; then the core hears that the flow is gone.
        phone.write_all(MESSAGE.as_bytes()).await.unwrap();
        phone.shutdown().await.unwrap();
        back.clear();
        phone.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, MESSAGE.as_bytes());
        let lost = server.events.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(
            matches!(lost, Event::FlowLost { flow } if flow.conn != 0 && flow.remote == phone.local_addr().unwrap())
        );
        server.stop();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_cannot_be_framed_is_answered_and_closed() {
        let server = Server::start(Limits::default());
        let mut phone = TcpStream::connect(server.address).await.unwrap();
        phone.write_all(MESSAGE.replace("Content-Length: 4", "Content-Length: -4").as_bytes()).await.unwrap();
        let mut back = String::new();
        phone.read_to_string(&mut back).await.unwrap();
        assert!(back.starts_with("SIP/2.0 400 "), "{back}");
        let mut stranger = TcpStream::connect(server.address).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut nothing = Vec::new();
        // Closed or reset: both are right.
        stranger.read_to_end(&mut nothing).await.ok();
        assert!(nothing.is_empty());
        server.stop();
    }

    /// RFC 4475 3.1.1.8 (dblreq) on a stream: what stands behind a whole request does not cost it its answer.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_was_asked_is_answered_before_we_close() {
        let server = Server::start(Limits { message: Duration::from_millis(300), ..Limits::default() });
        let ask = MESSAGE.replace("OPTIONS", "REGISTER");
        let bad = MESSAGE.replace("Content-Length: 4", "Content-Length: -4");
        let long = format!("GET / HTTP/1.1\r\n{}", "x".repeat(60_000));
        let begun = MESSAGE.replace("Content-Length: 4", "Content-Length: 150");
        for (what, rest, end) in [
            ("no SIP", "=-\r\n", ""),
            ("no SIP, and much of it", long.as_str(), ""),
            ("a length that is none", bad.as_str(), "SIP/2.0 400 "),
            ("unfinished", begun.as_str(), ""),
        ] {
            for times in [1, 5] {
                let mut phone = TcpStream::connect(server.address).await.unwrap();
                phone.write_all((ask.repeat(times) + rest).as_bytes()).await.unwrap();
                let mut back = String::new();
                timeout(Duration::from_secs(5), phone.read_to_string(&mut back)).await.expect(what).expect(what);
                let answers = ANSWER.repeat(times);
                assert!(back.starts_with(&answers), "{what}: {back}");
                let rest = &back[answers.len()..];
                assert!(if end.is_empty() { rest.is_empty() } else { rest.starts_with(end) }, "{what}: {back}");
            }
        }
        // One who is never answered does not hold it open.
        let mut phone = TcpStream::connect(server.address).await.unwrap();
        phone.write_all(MESSAGE.as_bytes()).await.unwrap();
        phone.shutdown().await.unwrap();
        let mut back = String::new();
        timeout(Duration::from_secs(5), phone.read_to_string(&mut back)).await.expect("closed in time").unwrap();
        server.stop();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn silence_and_dripping_end_and_make_room() {
        let limits = Limits {
            total: 60,
            per_address: 50,
            first: Duration::from_millis(300),
            message: Duration::from_millis(300),
            ..Limits::default()
        };
        let server = Server::start(limits);
        let mut silent = Vec::new();
        for _ in 0..70 {
            silent.push(TcpStream::connect(server.address).await.unwrap());
        }
        let mut phone = TcpStream::connect(server.address).await.unwrap();
        echo(&mut phone).await.unwrap();
        assert!(server.metrics.read(Counter::TcpEvicted) >= 21);
        let mut dripping = TcpStream::connect(server.address).await.unwrap();
        dripping.write_all(b"OPTIONS sip:").await.unwrap();
        for stream in silent.iter_mut().chain([&mut dripping]) {
            let end = timeout(Duration::from_secs(5), stream.read_u8()).await.expect("closed in time");
            assert!(end.is_err());
        }
        assert!(server.metrics.read(Counter::TcpTooSlow) >= 1);
        echo(&mut phone).await.unwrap();
        server.stop();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn full_of_real_phones_it_refuses() {
        let server = Server::start(Limits { total: 3, ..Limits::default() });
        let mut phones = Vec::new();
        for _ in 0..3 {
            let mut phone = TcpStream::connect(server.address).await.unwrap();
            echo(&mut phone).await.unwrap();
            phones.push(phone);
        }
        let mut late = TcpStream::connect(server.address).await.unwrap();
        assert!(echo(&mut late).await.is_err());
        for phone in &mut phones {
            echo(phone).await.unwrap();
        }
        assert_eq!(server.metrics.read(Counter::TcpRefused), 1);
        server.stop();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn connections_are_opened_reused_and_reported_lost() {
        let server = Server::start(Limits::default());
        let trunk = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = trunk.local_addr().unwrap().port();
        let ask = || server.inlet.ask(Ask::Ladder(crate::call::record::RecordId(port.into())), |_| ());
        ask();
        let (mut stream, _) = trunk.accept().await.unwrap();
        ask();
        let mut twice = vec![0; 2 * MESSAGE.len()];
        stream.read_exact(&mut twice).await.unwrap();
        assert_eq!(server.metrics.read(Counter::TcpDialled), 1);
        drop((stream, trunk));
        let mut lost = Vec::new();
        for _ in 0..2 {
            let Ok(Event::FlowLost { flow }) = server.events.recv_timeout(Duration::from_secs(5)) else {
                panic!("no loss")
            };
            lost.push(flow.conn);
        }
        assert!(lost[0] != 0 && lost[1] == 0);
        // Nobody listens there any more.
        ask();
        let Ok(Event::FlowLost { flow }) = server.events.recv_timeout(Duration::from_secs(5)) else {
            panic!("no loss")
        };
        assert_eq!(flow.remote.port(), port);
        server.stop();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn one_who_does_not_read_holds_up_nobody() {
        let server = Server::start(Limits { write: Duration::from_millis(300), ..Limits::default() });
        let mut deaf = TcpStream::connect(server.address).await.unwrap();
        let big =
            MESSAGE.replace("Content-Length: 4\r\n\r\nbody", "Content-Length: 40000\r\n\r\n") + &"x".repeat(40_000);
        let flood = tokio::spawn(async move {
            // Until the server gives it up.
            while deaf.write_all(big.as_bytes()).await.is_ok() {}
        });
        let mut phone = TcpStream::connect(server.address).await.unwrap();
        for _ in 0..20 {
            timeout(Duration::from_secs(2), echo(&mut phone)).await.expect("not held up").unwrap();
        }
        timeout(Duration::from_secs(20), flood).await.expect("given up").unwrap();
        assert!(server.metrics.read(Counter::TcpStalled) >= 1);
        server.stop();
    }
}
