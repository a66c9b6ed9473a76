//! The world: threads, sockets, files and the clock. The only folder that may name them; it tells the core what happened and
//! does what the core wants done.
//!
//! [`start`] brings a server up inside any process, as often as wanted; [`serve`] is the daemon around it: signals, systemd,
//! a clean end.
//!
//! ```text
//!  UDP ──> engine (the core) ──> relay workers ──> recorder      tokio: tcp, dns, control socket
//!             ^    └── store, live views                            │
//!             └──────────────── Inlet <─────────────────────────────┘
//! ```
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod api;
mod changes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod dns;
pub mod engine;
pub mod hook;
pub mod import;
pub mod ladder;
pub mod live;
pub mod metrics;
pub mod net;
pub mod record;
pub mod relay;
pub mod store;

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::b2bua::{Ask, B2bua, Event, MAX_STICKY, Met, Notice, QueryId, Save, Settings};
use crate::base::{Instant, Rng, Wall};
use crate::call::hook::HookQuery;
use crate::directory::{Directory, E164, Hook, Listen, Relay};
use crate::media;
use crate::policy::hook::Question;
use crate::sip::transport::{Flow, Transport};
use clock::Clock;
use config::Config;
use engine::{Engine, Inlet, Input, Outside};
use metrics::{Counter, Metrics};
use net::tcp::{Limits, Streams};
use net::{Address, CannotListen, Listeners};
use store::Reader as _;

/// How long calls may take to end when the server is told to stop.
const STOP: Duration = Duration::from_millis(1500);
/// How long the store may take to write what is left.
const FLUSH: Duration = Duration::from_secs(5);
/// How long tasks on tokio's side may take to end.
const RUNTIME: Duration = Duration::from_millis(300);
/// How long the first RTP ports may take to be bound.
const PORTS: Duration = Duration::from_secs(2);
/// How often it is looked whether a production calendar is missing.
const DAY: Duration = Duration::from_secs(86_400);
/// How long a question to the core may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Why the server does not start. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listening socket.
    #[error(transparent)]
    Listen(#[from] CannotListen),
    /// The database.
    #[error("{0}")]
    Store(#[from] store::StoreError),
    /// The data directory.
    #[error(
        "cannot use the data directory {path}: {error}; create it for the user that runs strowger, or change `data_dir` in [node]"
    )]
    Data {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another server has it.
    #[error(
        "another strowger runs with the data directory {0}; stop it, or give this one a `data_dir` of its own in [node]"
    )]
    Running(PathBuf),
    /// The folder of recordings.
    #[error(
        "cannot write recordings into {path}: {error}; make it writable for the user that runs strowger, or change `dir` in [recording]"
    )]
    Recordings {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The address of the RTP ports.
    #[error(
        "cannot receive media on {address}: {error}; change `bind` in [media] to an address of this machine (`ip addr` shows which it has)"
    )]
    Media {
        /// Which.
        address: IpAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Something the system ought to have.
    #[error("cannot {what}: {error}")]
    System {
        /// To do what.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

impl StartError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |error| StartError::System { what, error }
    }
}

/// A running server. Dropped, it ends at once, its calls with it.
pub struct Running {
    handle: Handle,
    engine: Option<JoinHandle<World>>,
    runtime: Option<tokio::runtime::Runtime>,
    steering: Receiver<Steer>,
    _lock: File,
}

/// What steers a running server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Steer {
    /// No new calls; end with the last one.
    Drain,
    /// End now, cleanly. A second time: at once.
    Stop,
    /// Read the configuration again.
    Reload,
    /// The last call is over.
    Idle,
}

/// Asks and steers a running server from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    inlet: Inlet,
    live: live::Live,
    store: store::StoreHandle,
    metrics: Metrics,
    clock: Clock,
    addresses: Vec<Address>,
    started: Instant,
    fixed: Fixed,
    sounds: Arc<ArcSwap<media::sound::Library>>,
    steer: Sender<Steer>,
    /// What the core decides by, for what is looked at once a day.
    directory: ArcSwap<Directory>,
    /// Held while the directory is being replaced.
    replacing: Mutex<()>,
}

/// What a reload compares with, because it needs a restart to change.
struct Fixed {
    path: PathBuf,
    listen: Vec<Listen>,
    data_dir: PathBuf,
    files: config::Files,
    media: config::MediaPorts,
}

/// Brings a server up: binds, opens the store, starts every thread. What it returns is ready for messages.
pub fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    bring_up(config, clock, false)
}

fn bring_up(config: Config, clock: Clock, daemon: bool) -> Result<Running, StartError> {
    let started = clock.mono();
    let metrics = Metrics::new();
    let lock = claim(&config.data_dir)?;
    let listeners = Listeners::bind(&config.directory.listen)?;
    if listeners.buffer < net::udp::BUFFER {
        let (got, wanted) = (listeners.buffer / 1024, net::udp::BUFFER / 1024);
        tracing::warn!("UDP socket buffers are {got} KiB, {wanted} are better: raise net.core.rmem_max and wmem_max");
    }
    if config.directory.media.relay == Relay::Always {
        let address = config.media.bind;
        UdpSocket::bind((address, 0)).map_err(|error| StartError::Media { address, error })?;
    }
    if config.directory.records() {
        let path = &config.files.recordings;
        record::writable(path).map_err(|error| StartError::Recordings { path: path.clone(), error })?;
    }
    let inlet = Inlet::new(metrics.clone()).map_err(StartError::system("create an eventfd"))?;

    let database = store::sqlite::Sqlite::open(&config.files.database)?;
    let (store, kept) = store::start(database, &config.data_dir)?;
    let mut directory = Arc::unwrap_or_clone(config.directory);
    match import::imported::load(&config.files.imported) {
        Ok(lists) => lists.put_into(&mut directory),
        // Calls that are not known are better than no calls.
        Err(error) => {
            let file = config.files.imported.display();
            tracing::error!(%error, "what was imported cannot be read from {file}: every caller is unknown; import again");
        }
    }
    let directory = Arc::new(directory);
    let config = Config { directory: directory.clone(), ..config };

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .thread_name("tokio")
        .enable_all()
        .build()
        .map_err(StartError::system("start the tokio runtime"))?;
    let mut rng = Rng::new(seed().map_err(StartError::system("read /dev/urandom"))?);
    let streams = {
        let _inside = runtime.enter();
        // Ports of calls need descriptors too.
        let limits = Limits { total: Limits::default().total.min(relay::ports::allowance() / 2), ..Limits::default() };
        Streams::start(listeners.tcp, limits, inlet.clone(), metrics.clone())
            .map_err(StartError::system("accept connections"))?
    };
    let hooks = hook::Hooks::new(runtime.handle().clone(), clock.clone());
    let dns = dns::Dns::system(runtime.handle().clone(), &mut rng);
    if let Err(error) = &dns {
        tracing::warn!(%error, "no name server is known: only IP addresses and /etc/hosts names of trunks can be reached");
    }

    let (bound, first_ports) = sync_channel(1);
    let sink = sink(inlet.clone(), store.clone(), clock.clone(), bound);
    let workers = relay::workers();
    let recording = record::Settings { dir: config.files.recordings.clone(), keep: config.files.keep, writers: 1 };
    let recorder = record::Recorder::start(recording, clock.clone(), sink.clone())
        .map_err(StartError::system("start the recorder"))?;
    let ports = config.media.ports.clone();
    let sounds = Arc::new(ArcSwap::new(config.sounds.clone()));
    let stock = relay::Stock { recorder: Some(recorder.handle()), sounds: sounds.clone() };
    let relays = relay::start(config.media.bind, ports, workers, stock, clock.clone(), sink)
        .map_err(StartError::system("start the media workers"))?;

    let settings = Settings {
        listen: listeners.addresses.iter().map(|a| (a.transport, a.local)).collect(),
        media: config.media.advertise,
        workers: u16::try_from(relays.workers()).unwrap_or(u16::MAX),
        ladder: config.ladder,
        ..Settings::default()
    };
    let mut core_seed = [0; 32];
    rng.fill(&mut core_seed);
    let core = B2bua::new(directory.clone(), settings, core_seed);
    let live = live::Live::default();
    let (steer, steering) = channel();
    let world = World {
        streams,
        relays,
        recorder,
        dns: dns.ok(),
        hooks,
        inlet: inlet.clone(),
        store: store.clone(),
        live: live.clone(),
        metrics: metrics.clone(),
        steer: steer.clone(),
    };
    let restored = kept.bindings.len();
    // Before the first message: a call to a phone that was registered a moment ago is not to fail.
    inlet.steer(Input::Event(Event::Restore(kept.bindings)));
    // No loudspeaker stays open because we were not there to close it.
    inlet.steer(Input::Event(Event::LeftOpen(kept.opened)));
    // Nor is a customer to see another number than yesterday.
    match met(&config, clock.wall()) {
        Ok(met) => inlet.steer(Input::Event(Event::Met(met))),
        Err(error) => {
            tracing::warn!(%error, "it cannot be read which number each customer knows: caller IDs go by region")
        }
    }
    let engine = Engine::new(core, world, listeners.udp, inlet.clone(), clock.clone(), metrics.clone())
        .map_err(StartError::system("create an epoll"))?;

    let fixed = Fixed {
        path: config.path.clone(),
        listen: directory.listen.clone(),
        data_dir: config.data_dir.clone(),
        files: config.files.clone(),
        media: config.media.clone(),
    };
    let handle = Handle(Arc::new(Shared {
        inlet,
        live,
        store,
        metrics,
        clock,
        addresses: listeners.addresses,
        started,
        fixed,
        sounds,
        steer,
        directory: ArcSwap::new(directory.clone()),
        replacing: Mutex::default(),
    }));

    // Control socket
    let socket = config.data_dir.join(api::SOCKET);
    {
        let _inside = runtime.enter();
        if let Err(error) = api::serve(&socket, handle.clone()) {
            // Calls matter more than the one who asks about them.
            tracing::error!(%error, "the command line cannot reach this server: no socket at {}", socket.display());
        }
    }
    // The engine reads nothing before a call can be taken and, as a daemon, a signal be heard: who gets an answer may count on both.
    if directory.media.relay == Relay::Always && first_ports.recv_timeout(PORTS).is_err() {
        tracing::error!("no RTP port of [media] ports can be bound: calls are refused with 503");
    }
    if daemon {
        obey_signals(&runtime, &handle).map_err(StartError::system("listen for signals"))?;
    }
    let engine = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || engine.run())
        .map_err(StartError::system("start the engine"))?;
    let running = Running { handle, engine: Some(engine), runtime: Some(runtime), steering, _lock: lock };
    let took = (running.handle.0.clock.mono() - started).as_millis();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        phones = restored,
        contacts = directory.contacts.len(),
        "ready after {took} ms on {}",
        running.handle
    );
    Ok(running)
}

/// The daemon: runs until it is told to stop by SIGTERM or SIGINT, or drained; SIGHUP reloads.
pub fn serve(config: Config) -> Result<(), StartError> {
    raise_descriptors();
    let running = bring_up(config, Clock::new(), true)?;
    systemd(&[sd_notify::NotifyState::Ready]);
    let mut draining = false;
    let mut look = running.handle.0.clock.mono() + DAY;
    loop {
        match running.steering.recv_timeout(look - running.handle.0.clock.mono()) {
            Ok(Steer::Drain) => {
                tracing::info!("draining: no new calls, the last one ends the server");
                systemd(&[sd_notify::NotifyState::Stopping, sd_notify::NotifyState::Status("draining")]);
                draining = true;
                running.handle.0.inlet.steer(Input::Drain);
            }
            Ok(Steer::Idle) if draining => break,
            Ok(Steer::Idle) => {}
            Ok(Steer::Reload) => running.reload(),
            Err(RecvTimeoutError::Timeout) => {
                look = running.handle.0.clock.mono() + DAY;
                running.handle.missing_years().iter().for_each(|line| tracing::warn!("{line}"));
            }
            Ok(Steer::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    systemd(&[sd_notify::NotifyState::Stopping]);
    running.stop();
    Ok(())
}

impl Running {
    /// Asks and steers it from any thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[Address] {
        &self.handle.0.addresses
    }

    /// Waits for SIGINT, SIGTERM or [`Handle::stop`].
    pub fn until_stopped(&self) {
        let heard = self.runtime.as_ref().map_or(Ok(()), |runtime| obey_signals(runtime, &self.handle));
        if let Err(error) = heard {
            tracing::error!(%error, "cannot listen for signals");
        }
        while !matches!(self.steering.recv(), Ok(Steer::Stop) | Err(_)) {}
    }

    /// Asks the core; `null` where there is nothing.
    pub fn ask(&self, ask: Ask) -> Value {
        let (tell, told) = channel();
        self.handle.0.inlet.ask(ask, move |answer| drop(tell.send(answer)));
        told.recv_timeout(ANSWER).unwrap_or(Value::Null)
    }

    /// Takes no new calls and waits until those in progress are over; false if that took longer than `within`.
    pub fn drain(&self, within: Duration) -> bool {
        self.handle.0.inlet.steer(Input::Drain);
        self.idle(within)
    }

    /// Ends the calls in progress, writes everything down and ends.
    pub fn stop(mut self) {
        self.handle.0.inlet.steer(Input::End);
        if !self.idle(STOP) {
            tracing::warn!("calls were still ending");
        }
        self.close();
    }

    /// Waits for the last call's end; a second request to stop ends the waiting.
    fn idle(&self, within: Duration) -> bool {
        let until = self.handle.0.clock.mono() + within;
        loop {
            match self.steering.recv_timeout(until - self.handle.0.clock.mono()) {
                Ok(Steer::Idle) => return true,
                Ok(Steer::Stop) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
                Ok(Steer::Drain | Steer::Reload) => {}
            }
        }
    }

    fn close(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        let shared = &self.handle.0;
        shared.inlet.steer(Input::Quit);
        match engine.join() {
            // Streams are written out, media workers and the recorder join; then nothing saves any more.
            Ok(world) => drop(world),
            Err(_) => tracing::error!("the engine's thread panicked"),
        }
        if !shared.store.flush(FLUSH) {
            tracing::error!("the store did not write everything down in time");
        }
        shared.store.close();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(RUNTIME);
        }
        let counted: Vec<String> = shared.metrics.all().into_iter().map(|(name, n)| format!("{name}={n}")).collect();
        tracing::info!("ended; {}", counted.join(" "));
    }

    fn reload(&self) {
        systemd(&reloading());
        // What came of it is in the log.
        self.handle.reload().ok();
        systemd(&[sd_notify::NotifyState::Ready]);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
    }
}

impl Handle {
    /// Asks the core; `null` where there is nothing.
    pub async fn ask(&self, ask: Ask) -> Value {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.0.inlet.ask(ask, move |answer| drop(tell.send(answer)));
        match tokio::time::timeout(ANSWER, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Value::Null,
        }
    }

    /// What is going on now.
    pub fn live(&self) -> &live::Live {
        &self.0.live
    }

    /// Extensions without a registered phone.
    pub fn away(&self) -> Vec<live::Away> {
        self.0.live.away(self.0.directory.load().extensions.iter())
    }

    /// What was. Blocks: not for an async thread.
    pub fn reader(&self) -> Result<Box<dyn store::Reader>, store::StoreError> {
        Ok(Box::new(store::sqlite::Sqlite::open_reader(&self.0.fixed.files.database)?))
    }

    /// Waits until everything that was saved can be read.
    pub fn flush(&self) -> bool {
        self.0.store.flush(FLUSH)
    }

    /// Where recordings lie.
    pub fn recordings(&self) -> &Path {
        &self.0.fixed.files.recordings
    }

    /// Where the server listens.
    pub fn addresses(&self) -> &[Address] {
        &self.0.addresses
    }

    /// The server's clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Counters, table sizes, addresses.
    pub async fn status(&self) -> Value {
        let core = self.ask(Ask::Status).await;
        let store = self.0.store.counts();
        let listen: Vec<String> =
            self.0.addresses.iter().map(|a| format!("{} {}", a.transport.param(), a.bound)).collect();
        let counters: serde_json::Map<String, Value> =
            self.0.metrics.all().into_iter().map(|(name, n)| (name.to_owned(), n.into())).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": self.0.clock.wall(),
            "uptime_s": (self.0.clock.mono() - self.0.started).as_secs(),
            "listen": listen,
            "core": core,
            "counters": counters,
            "store": {
                "stored": store.stored, "spilled": store.spilled, "lost": store.lost,
                "batches": store.batches, "waiting": self.0.store.waiting(),
            },
        })
    }

    /// Puts a WAV file among the sounds, in place of one of that name; a reload of the configuration takes it out again.
    pub fn put_sound(&self, name: &str, file: &[u8]) -> Result<(), String> {
        let sound = media::sound::Sound::of_wav(file).map_err(|why| why.to_string())?;
        self.0.sounds.rcu(|library| {
            let mut library = media::sound::Library::clone(library);
            library.put(name, sound.clone());
            library
        });
        let there = self.0.sounds.load().get(name).is_some();
        if there { Ok(()) } else { Err("there are too many sounds already".to_owned()) }
    }

    /// Takes no new calls; the server ends with the last one.
    pub fn drain(&self) {
        // Fails only when the server has ended.
        self.0.steer.send(Steer::Drain).ok();
    }

    /// Ends the server.
    pub fn stop(&self) {
        self.0.steer.send(Steer::Stop).ok();
    }

    /// Reads the configuration again and puts it in force; what cannot be changed while running is told. An invalid one is
    /// refused whole. The log says what changed, or why nothing did. Blocks: not for an async thread.
    pub fn reload(&self) -> Result<Vec<String>, config::problem::Report> {
        let old = self.0.directory.load_full();
        let done = self.read_again();
        match &done {
            Ok(notes) => {
                tracing::info!("configuration reloaded: {}", changes::told(&old, &self.0.directory.load()));
                notes.iter().for_each(|note| tracing::warn!("{note}"));
            }
            Err(report) => {
                tracing::error!("configuration refused, the old one stays:\n{}", report.render(false));
            }
        }
        done
    }

    fn read_again(&self) -> Result<Vec<String>, config::problem::Report> {
        let new = Config::load(&self.0.fixed.path)?;
        let mut notes = self.0.fixed.changed(&new);
        let recordings = &self.0.fixed.files.recordings;
        if new.directory.records()
            && let Err(error) = record::writable(recordings)
        {
            let path = recordings.display();
            notes.push(format!("no recording can be written into {path}: {error} ([recording] dir)"));
        }
        // Before the directory that names them.
        self.0.sounds.store(new.sounds);
        let mut directory = Arc::unwrap_or_clone(new.directory);
        self.replace(|old| {
            import::imported::Lists::of(old).put_into(&mut directory);
            Ok::<_, config::problem::Report>(directory)
        })?;
        notes.extend(self.missing_years());
        Ok(notes)
    }

    /// Reads again what was imported and puts it in force; gives what there is now. Blocks, for a second if there is a million
    /// of something: not for an async thread.
    pub fn import(&self) -> Result<Value, store::StoreError> {
        let begun = self.0.clock.mono();
        self.replace(|old| {
            let mut directory = old.clone();
            import::imported::load(&self.0.fixed.files.imported)?.put_into(&mut directory);
            Ok::<_, store::StoreError>(directory)
        })?;
        let took = (self.0.clock.mono() - begun).as_millis();
        let directory = self.0.directory.load();
        let contacts = directory.contacts.len();
        let ranges = directory.numbering.imported().map_or(0, |ranges| ranges.len());
        tracing::info!(contacts, ranges, "what was imported is in force after {took} ms");
        Ok(json!({ "contacts": contacts, "numbering": ranges }))
    }

    /// Puts a directory in force that is made from the one before, one at a time. The old one is kept until the engine has let
    /// go of it, so that it is this thread that gives a hundred megabytes back.
    fn replace<E>(&self, make: impl FnOnce(&Directory) -> Result<Directory, E>) -> Result<(), E> {
        let _one_at_a_time = self.0.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.0.directory.load_full();
        let new = Arc::new(make(&old)?);
        self.0.directory.store(new.clone());
        self.0.inlet.steer(Input::Event(Event::Directory(new)));
        let (tell, told) = channel();
        // Inputs are taken in order: once this is answered, the new one is in force.
        self.0.inlet.ask(Ask::Status, move |_| {
            tell.send(()).ok();
        });
        if told.recv_timeout(ANSWER).is_err() {
            tracing::warn!("the engine does not answer");
        }
        drop(old);
        Ok(())
    }

    /// Calendars that lack the production calendar of this year, or late in it of the next.
    fn missing_years(&self) -> Vec<String> {
        let directory = self.0.directory.load();
        let today = directory.node.zone.to_datetime(self.0.clock.wall().timestamp()).date();
        directory.missing_years(today)
    }
}

/// Where it listens, for people.
impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, address) in self.0.addresses.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", address.transport.param(), address.bound)?;
        }
        Ok(())
    }
}

impl Fixed {
    /// What a new configuration changes that only a restart can put in force.
    fn changed(&self, new: &Config) -> Vec<String> {
        let place = |l: &Listen| (l.transport, l.bind, l.advertise);
        let listen = self.listen.iter().map(place).ne(new.directory.listen.iter().map(place));
        let changed = [
            ("[[listen]]", listen),
            ("[node] data_dir", self.data_dir != new.data_dir),
            ("[store] and [recording] dir, keep", self.files != new.files),
            ("[media] bind, advertise, ports", self.media != new.media),
        ];
        changed.iter().filter(|(_, yes)| *yes).map(|(what, _)| format!("{what}: in force after a restart")).collect()
    }
}

/// Where the engine's actions go that are not datagrams.
struct World {
    streams: Streams,
    relays: relay::RelayHandle,
    /// Ends after the relays: they hold the way to it.
    #[expect(dead_code, reason = "kept for its drop")]
    recorder: record::Recorder,
    /// None: this machine knows no name server.
    dns: Option<dns::Dns>,
    hooks: hook::Hooks,
    inlet: Inlet,
    store: store::StoreHandle,
    live: live::Live,
    metrics: Metrics,
    steer: Sender<Steer>,
}

impl Outside for World {
    fn stream(&mut self, flow: Flow, bytes: Bytes) -> bool {
        self.streams.send(flow, bytes)
    }

    fn media(&mut self, worker: u16, command: media::Command) {
        if self.relays.send(worker, command).is_err() {
            self.metrics.count(Counter::MediaRefused);
        }
    }

    fn resolve(&mut self, query: QueryId, host: String, port: Option<u16>, transport: Option<Transport>) {
        let inlet = self.inlet.clone();
        let answer = move |query, targets| inlet.insist(Event::Resolved { query, targets });
        match &self.dns {
            Some(dns) => dns.resolve(query, &host, port, transport, answer),
            None => answer(query, Vec::new()),
        }
    }

    fn ask_hook(&mut self, query: HookQuery, hook: Arc<Hook>, question: Box<Question>) {
        let inlet = self.inlet.clone();
        let answer = move |outcome| inlet.insist(Event::HookAnswer { query, outcome: Box::new(outcome) });
        self.hooks.ask(&hook, &question, answer);
    }

    fn save(&mut self, save: Save) {
        self.store.save(save);
    }

    fn notify(&mut self, notice: Notice) {
        if let Notice::LoginFailed(failed) = &notice {
            // A stranger's words are written escaped.
            tracing::warn!(
                user = ?failed.user,
                source = %failed.source.remote,
                transport = failed.source.transport.param(),
                user_agent = ?failed.user_agent.as_deref().unwrap_or("-"),
                again = failed.again,
                untold = failed.untold,
                "login failed: {}",
                failed.reason
            );
        }
        if let Notice::NotTaken(call) = &notice {
            tracing::warn!(
                trunk = %call.trunk,
                called = ?call.called,
                source = %call.source.remote,
                again = call.again,
                untold = call.untold,
                "a carrier's call was not taken: {}",
                call.because
            );
        }
        if let Notice::Registration(phone) = &notice {
            let (extension, source, transport) =
                (&*phone.extension, phone.source.remote, phone.source.transport.param());
            let agent = phone.user_agent.as_deref().unwrap_or("-");
            let untold = (phone.untold > 0).then_some(phone.untold);
            match phone.left {
                None => tracing::info!(
                    extension, %source, transport, user_agent = ?agent, until = %phone.expires_at, untold, "phone registered"
                ),
                Some(left) => tracing::info!(
                    extension, %source, transport, user_agent = ?agent, untold, "phone is gone: {}", left.words()
                ),
            }
        }
        if let Notice::Closed(phone) = &notice {
            let because = &phone.because;
            tracing::info!(extension = &*phone.extension, "a phone that the last run left open is closed: {because}");
        }
        self.live.apply(notice);
    }

    fn idle(&mut self) {
        // Fails only when nobody runs the server any more.
        self.steer.send(Steer::Idle).ok();
    }
}

/// Takes what media threads say into the engine's queue.
fn sink(inlet: Inlet, store: store::StoreHandle, clock: Clock, bound: SyncSender<()>) -> relay::Sink {
    Arc::new(move |report| match report {
        relay::Report::Media(output) => inlet.insist(Event::Media(output)),
        relay::Report::Ports(ports) => {
            inlet.insist(Event::PortsReady(ports));
            // Full or gone: start() has heard of the first ones.
            bound.try_send(()).ok();
        }
        relay::Report::Deleted { recording } => store.mark_deleted(&recording.to_string(), clock.wall()),
    })
}

/// Which customers called which number of ours, or were shown it, as far back as it counts.
fn met(config: &Config, now: Wall) -> Result<Vec<Met>, store::StoreError> {
    let (directory, country) = (&config.directory, config.directory.node.country);
    let since = now.micros().saturating_sub(i64::try_from(directory.caller_id.sticky.as_micros()).unwrap_or(i64::MAX));
    let mut reader = store::sqlite::Sqlite::open_reader(&config.files.database)?;
    let calls = reader.numbers(Wall::from_micros(since), MAX_STICKY)?;
    let met = calls.iter().rev().filter_map(|call| {
        let number = |text: &str| E164::read(text, country);
        let ours = |number: &E164| directory.number(*number).is_some();
        let called = number(&call.called)?;
        let (customer, ours) = match ours(&called) {
            true => (number(call.caller.as_deref()?)?, called),
            false => (called, number(call.shown.as_deref()?).filter(ours)?),
        };
        Some(Met { customer, ours, at: call.at })
    });
    Ok(met.collect())
}

/// Makes the data directory ours as long as the file lives.
fn claim(data_dir: &Path) -> Result<File, StartError> {
    let wrong = |error| StartError::Data { path: data_dir.to_owned(), error };
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(data_dir).map_err(wrong)?;
    let lock = File::create(data_dir.join("lock")).map_err(wrong)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::Running(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(wrong(error)),
    }
}

/// The core's randomness begins here.
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

/// Takes all descriptors that the system lets us have: every RTP port is two.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "only {soft} file descriptors");
    }
}

/// Tells systemd, if it started us.
fn systemd(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "systemd does not listen");
    }
}

fn reloading() -> Vec<sd_notify::NotifyState<'static>> {
    let mut state = vec![sd_notify::NotifyState::Reloading];
    state.extend(sd_notify::NotifyState::monotonic_usec_now().ok());
    state
}

fn obey_signals(runtime: &tokio::runtime::Runtime, handle: &Handle) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let _inside = runtime.enter();
    let kinds = [
        (SignalKind::terminate(), Steer::Stop),
        (SignalKind::interrupt(), Steer::Stop),
        (SignalKind::hangup(), Steer::Reload),
    ];
    for (kind, what) in kinds {
        let (mut signals, steer) = (signal(kind)?, handle.0.steer.clone());
        tokio::spawn(async move { while signals.recv().await.is_some() && steer.send(what).is_ok() {} });
    }
    Ok(())
}
