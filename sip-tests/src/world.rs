//! The clock, the network, the phones, the core and its relay, driven together in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use strowger::b2bua::{Action, Event, Notice, Save};
use strowger::base::{Instant, Now, Rng, Wall};
use strowger::call::leg::Opened;
use strowger::directory::Directory;
use strowger::media::relay::{Arrival, Relay, Spoken, Verdict};
use strowger::media::{self, Port};
use strowger::registrar::Binding;
use strowger::sip::transport::{Flow, Transport};

use crate::net::{Net, Weather};
use crate::office;
use crate::oracle::{MAX_BURST, Oracle, name};
use crate::phone::text::{First, Msg, user_of};
use crate::phone::voice::Tone;
use crate::phone::{Act, Habit, Identity, NotNow, Out, Phone, Wire};
use crate::{MS, SEC, Time, sounds};

/// The core under test, as the world drives it.
pub trait Subject {
    /// Something happened.
    fn handle(&mut self, now: Now, event: Event);
    /// What it wants done; drained after each event.
    fn poll(&mut self) -> Option<Action>;
    /// When it wants [`Event::Tick`].
    fn deadline(&self) -> Option<Instant>;
    /// Sizes of its tables by name, all zero at rest.
    fn tables(&self) -> Vec<(String, u64)>;
}

/// 64*T1: how long a transaction may linger.
pub const LINGER: Time = 32 * SEC;
/// Ports that the world's core may use.
pub const PORTS: std::ops::Range<u16> = 20_000..20_200;
/// How often in a row something may happen at one and the same moment.
const MAX_SPINS: u32 = 10_000;
/// Wall clock at the beginning: 2026-11-23T05:00:00Z, a Monday morning in Yekaterinburg.
const WALL: i64 = 1_795_410_000_000_000;

/// How a node answers the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It does.
    Alive,
    /// Packets vanish.
    Dead,
    /// Packets bounce (ICMP port unreachable, RST).
    Refusing,
}

/// A phone or carrier in the world.
pub struct Node {
    /// The phone.
    pub phone: Phone,
    /// Whether it is there.
    pub health: Health,
    /// Who it is towards others: all addresses of one trunk are one party.
    pub party: String,
    wake: Option<Time>,
}

/// What is under way.
#[derive(Clone, Debug)]
enum Parcel {
    ToServer { flow: Flow, node: usize, bytes: Bytes },
    ToNode { node: usize, from: SocketAddr, bytes: Bytes },
    RtpToServer { from: SocketAddr, port: u16, bytes: Bytes },
    RtpToNode { node: usize, port: u16, from: SocketAddr, bytes: Bytes },
    Lost { flow: Flow },
    Media { output: media::Output },
    Hook { query: strowger::call::hook::HookQuery, outcome: Box<strowger::policy::hook::Outcome> },
    Resolved { query: strowger::b2bua::QueryId, targets: Vec<strowger::b2bua::event::Resolved> },
}

struct Connection {
    node: usize,
    remote: SocketAddr,
    open: bool,
}

/// A line of the world's log.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was sent (server) or had arrived (server).
    pub at: Time,
    /// The node on the other side.
    pub node: usize,
    /// The server sent it.
    pub out: bool,
    /// The bytes.
    pub bytes: Bytes,
}

/// The world.
pub struct World {
    /// Now.
    pub now: Time,
    /// Phones, carriers and strangers.
    pub nodes: Vec<Node>,
    /// What must hold.
    pub oracle: Oracle,
    /// Every SIP message that the server sent or got, oldest first.
    pub log: Vec<Line>,
    /// Resolver: host to targets.
    pub names: BTreeMap<String, Vec<SocketAddr>>,
    /// Whether recording replaces records later.
    pub records_come_again: bool,
    /// Media does not pass through the server (`relay = "never"`).
    pub direct: bool,
    /// Numbers whose owner has to press 1 before it has anything of a call.
    pub confirms: BTreeSet<&'static str>,
    /// Those of them that had something of a call all the same.
    caught: BTreeSet<Tone>,
    /// RTP packets that reached the server.
    pub relay_packets: u64,
    /// What the operator was told of failed logins.
    pub logins: Vec<strowger::b2bua::LoginFailed>,
    /// What the operator was told of carriers' calls.
    pub not_taken: Vec<strowger::b2bua::NotTaken>,
    subject: Box<dyn Subject>,
    /// What the store keeps for the next run.
    bindings: Vec<Binding>,
    opened: Vec<Opened>,
    net: Net<Parcel>,
    rtp_weather: Weather,
    relays: Vec<Relay>,
    ports_open: BTreeMap<u16, Time>,
    ports_closed: BTreeMap<u16, Time>,
    connections: Vec<Connection>,
    server: SocketAddr,
    rng: Rng,
    spins: u32,
    stuck: bool,
}

impl World {
    /// A world with nobody in it but the core.
    pub fn new(subject: Box<dyn Subject>, weather: Weather, workers: usize, seed: u64) -> World {
        let mut rng = Rng::from_number(seed);
        let net = Net::new(weather, rng.fork());
        let mut world = World {
            now: SEC,
            nodes: Vec::new(),
            oracle: Oracle::default(),
            log: Vec::new(),
            names: BTreeMap::new(),
            records_come_again: false,
            confirms: BTreeSet::new(),
            caught: BTreeSet::new(),
            direct: false,
            relay_packets: 0,
            logins: Vec::new(),
            not_taken: Vec::new(),
            subject,
            bindings: Vec::new(),
            opened: Vec::new(),
            net,
            rtp_weather: weather,
            relays: (0..workers.max(1)).map(|_| Relay::new()).collect(),
            ports_open: BTreeMap::new(),
            ports_closed: BTreeMap::new(),
            connections: Vec::new(),
            server: office::SERVER.parse().expect("an address"),
            rng,
            spins: 0,
            stuck: false,
        };
        for relay in &mut world.relays {
            relay.apply(Instant::from_micros(SEC), media::Command::Sounds(sounds::library()), &mut Vec::new());
        }
        world.tell(Event::PortsReady(PORTS.step_by(2).map(Port).collect()));
        world
    }

    /// Puts a phone of an extension into the world; `name` is its name in ladders.
    pub fn add_phone(&mut self, name: &str, extension: &str, wire: Wire, habit: Habit) -> usize {
        let index = self.nodes.len();
        let address = SocketAddr::from(([10, 0, (index / 200) as u8, (index % 200) as u8 + 10], 5060));
        self.add(name, extension, address, wire, habit, false, &format!("phone {name}"), office::password(extension))
    }

    /// Puts a carrier's address into the world.
    pub fn add_carrier(&mut self, name: &str, address: &str, trunk: &str, wire: Wire, habit: Habit) -> usize {
        let address = address.parse().expect("an address");
        self.add(name, "+79990000000", address, wire, habit, true, &format!("trunk {trunk}"), String::new())
    }

    /// Puts somebody into the world who has no business here.
    pub fn add_stranger(&mut self, name: &str) -> usize {
        let address = SocketAddr::from(([198, 18, 0, self.nodes.len() as u8], 5060));
        let party = format!("stranger {name}");
        self.add(name, name, address, Wire::Udp, Habit::default(), false, &party, String::new())
    }

    #[expect(clippy::too_many_arguments, reason = "three callers, each with another part fixed")]
    fn add(
        &mut self,
        name: &str,
        user: &str,
        address: SocketAddr,
        wire: Wire,
        habit: Habit,
        carrier: bool,
        party: &str,
        password: String,
    ) -> usize {
        let index = self.nodes.len();
        let domain = if carrier { self.server.to_string() } else { office::DOMAIN.to_owned() };
        let id = Identity {
            name: name.into(),
            user: user.into(),
            display: String::new(),
            password,
            address,
            wire,
            server: self.server,
            domain,
            carrier,
            index: index as u32 + 1,
        };
        let phone = Phone::new(id, habit, self.rng.fork());
        self.nodes.push(Node { phone, health: Health::Alive, party: party.into(), wake: None });
        index
    }

    /// The node with that name.
    pub fn node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|n| n.phone.id.name == name)
    }

    /// Has a phone do something now.
    pub fn act(&mut self, node: usize, call: Option<usize>, act: &Act) -> Result<(), NotNow> {
        let now = self.now;
        let result = self.nodes[node].phone.act(now, call, act);
        self.flush(node);
        result
    }

    /// Tells the core something.
    pub fn tell(&mut self, event: Event) {
        let now = Now { mono: Instant::from_micros(self.now), wall: Wall::from_micros(WALL + self.now as i64) };
        self.subject.handle(now, event);
        self.drain();
    }

    /// A new configuration.
    pub fn reload(&mut self, directory: Directory) {
        self.tell(Event::Directory(Arc::new(directory)));
    }

    /// Breaks a phone's connection; whoever did not notice finds out when he next uses it.
    pub fn disconnect(&mut self, node: usize, noticed: bool) {
        let mut lost = Vec::new();
        for (i, c) in self.connections.iter_mut().enumerate().filter(|(_, c)| c.node == node && c.open) {
            c.open = false;
            lost.push(tcp(self.server, c.remote, i as u32 + 1));
        }
        if !noticed {
            return;
        }
        if !lost.is_empty() {
            let party = self.nodes[node].party.clone();
            self.oracle.connection_lost(&party);
        }
        for flow in lost {
            self.tell(Event::FlowLost { flow });
        }
    }

    /// The server is killed and started again, as `subject`: it has what the store kept, and nothing else. Its media and connections are
    /// gone.
    pub fn kill_server(&mut self, subject: Box<dyn Subject>) {
        self.subject = subject;
        for relay in &mut self.relays {
            *relay = Relay::new();
            relay.apply(Instant::from_micros(self.now), media::Command::Sounds(sounds::library()), &mut Vec::new());
        }
        self.ports_open.clear();
        self.ports_closed.clear();
        self.connections.iter_mut().for_each(|c| c.open = false);
        self.oracle.server_killed();
        self.tell(Event::PortsReady(PORTS.step_by(2).map(Port).collect()));
        self.tell(Event::Restore(self.bindings.clone()));
        self.tell(Event::LeftOpen(self.opened.clone()));
        self.tell(Event::Tick);
    }

    /// The next moment at which something happens.
    pub fn next(&self) -> Option<Time> {
        let subject = self.subject.deadline().map(Instant::micros);
        let relay = self.relays.iter().filter_map(|r| r.deadline()).map(Instant::micros);
        let nodes = self.nodes.iter().filter_map(|n| n.wake);
        nodes.chain(relay).chain(subject).chain(self.net.deadline()).min()
    }

    /// Plays until `until`, or until nothing is left to happen.
    pub fn play(&mut self, until: Time) {
        while let Some(next) = self.next().filter(|n| *n <= until && !self.stuck) {
            self.spins = if next > self.now { 0 } else { self.spins + 1 };
            if self.spins > MAX_SPINS {
                let core = self.subject.deadline().is_some_and(|at| at.micros() <= self.now);
                let who = if core { "the core's" } else { "a phone's" };
                self.oracle.fault(self.now, format!("time stands still: {who} deadline is never met"));
                self.stuck = true;
                return;
            }
            self.now = self.now.max(next);
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Plays until `done` says so, at most until `until`; whether it said so.
    pub fn play_until(&mut self, until: Time, mut done: impl FnMut(&mut World) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            if self.stuck {
                return false;
            }
            match self.next().filter(|n| *n <= until) {
                Some(next) => self.play(next.max(self.now)),
                None => {
                    self.play(until);
                    return done(self);
                }
            }
        }
    }

    /// Silence: every phone has stopped, and all transactions have run out. Then nothing may be left.
    pub fn come_to_rest(&mut self) {
        let until = self.now + 3 * LINGER;
        self.play_until(until, |w| w.nodes.iter().all(|n| n.health != Health::Alive || !n.phone.is_busy()));
        let quiet = self.now + LINGER + 8 * SEC;
        self.play(quiet);
        let now = self.now;
        self.oracle.rest(now);
        // Trunks are asked for their health now and then; between two such questions nothing is open.
        let empty = |w: &mut World| w.tables().iter().all(|(_, size)| *size == 0);
        self.play_until(self.now + 40 * SEC, empty);
        let now = self.now;
        let mute = |n: &Node| n.health != Health::Alive || n.phone.habit.deaf_to_options;
        let dead = self.nodes.iter().any(|n| n.phone.id.carrier && mute(n));
        for (table, size) in self.subject.tables() {
            // A dead trunk has questions open all the time, a few at once.
            let asked = if dead && table == "client transactions" { 12 } else { 0 };
            if size > asked {
                self.oracle.fault(now, format!("at rest, yet {size} in table {table:?}"));
            }
        }
        if !self.opened.is_empty() {
            self.oracle.fault(now, format!("at rest, yet the store keeps {} opened phones", self.opened.len()));
        }
        for (port, at) in self.ports_open.clone() {
            self.oracle.fault(now, format!("port {port}, opened at {:.3} s, was never closed", at as f64 / SEC as f64));
        }
        for i in 0..self.nodes.len() {
            let name = self.nodes[i].phone.id.name.clone();
            let open = self.nodes[i].phone.is_busy() && self.nodes[i].health == Health::Alive;
            if open {
                self.oracle.fault(now, format!("{name} is still in a call"));
            }
            let voices =
                self.nodes[i].phone.calls.iter().filter(|_| !self.direct).flat_map(|c| c.voice.complaints.clone());
            let mut complaints: Vec<String> = self.nodes[i].phone.complaints.iter().cloned().chain(voices).collect();
            complaints.dedup();
            for complaint in complaints {
                self.oracle.fault(now, format!("{name} complains: {complaint}"));
            }
        }
    }

    /// The core's tables.
    pub fn tables(&self) -> Vec<(String, u64)> {
        self.subject.tables()
    }

    /// The world's log as a ladder.
    pub fn ladder(&self) -> String {
        let mut out = String::new();
        for line in &self.log {
            let name = &self.nodes[line.node].phone.id.name;
            let arrow = if line.out { "<-" } else { "->" };
            let at = line.at as f64 / SEC as f64;
            let what = match Msg::read(&line.bytes) {
                Ok(msg) => describe(&msg),
                Err(_) => String::from_utf8_lossy(&line.bytes).lines().next().unwrap_or("").to_owned(),
            };
            let _ = writeln!(out, "{at:10.3}  {name:>12} {arrow} {what}");
        }
        out
    }

    /// The whole text of every message, for the curious.
    pub fn messages(&self) -> String {
        let mut out = String::new();
        for line in &self.log {
            let name = &self.nodes[line.node].phone.id.name;
            let arrow = if line.out { "<-" } else { "->" };
            let text = String::from_utf8_lossy(&line.bytes);
            let _ = writeln!(out, "{:10.3} {name} {arrow}\n{text}", line.at as f64 / SEC as f64);
        }
        out
    }

    fn step(&mut self) {
        while let Some(parcel) = self.net.pop(self.now) {
            self.deliver(parcel);
        }
        let now = self.now;
        for i in 0..self.nodes.len() {
            if self.nodes[i].wake.is_some_and(|at| at <= now) {
                if self.nodes[i].health == Health::Alive {
                    self.nodes[i].phone.tick(now);
                    self.flush(i);
                } else {
                    // Whoever is cut off goes on living, unheard.
                    self.nodes[i].phone.tick(now);
                    self.nodes[i].phone.out.clear();
                    self.nodes[i].wake = self.nodes[i].phone.deadline();
                }
            }
        }
        for i in 0..self.relays.len() {
            self.speak(i);
            let due = self.relays[i].deadline().is_some_and(|at| at.micros() <= now);
            if due || self.relays[i].has_news() {
                let mut out = Vec::new();
                self.relays[i].tick(Instant::from_micros(now), &mut out);
                self.report(out);
            }
        }
        if self.subject.deadline().is_some_and(|at| at.micros() <= now) {
            self.tell(Event::Tick);
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        let now = self.now;
        match parcel {
            Parcel::ToServer { flow, node, bytes } => {
                self.log.push(Line { at: now, node, out: false, bytes: bytes.clone() });
                match Msg::read(&bytes) {
                    Ok(msg) => {
                        let party = self.nodes[node].party.clone();
                        self.oracle.server_hears(now, flow.remote, &party, &msg);
                    }
                    Err(_) => { /* a test sends what it likes */ }
                }
                self.tell(Event::Received { flow, bytes });
            }
            Parcel::ToNode { node, from, bytes } => match self.nodes[node].health {
                Health::Alive => {
                    self.nodes[node].phone.receive(now, from, &bytes);
                    self.flush(node);
                }
                Health::Dead | Health::Refusing => {}
            },
            Parcel::RtpToServer { from, port, bytes } => self.relay(from, port, bytes),
            Parcel::RtpToNode { node, port, from, bytes } => {
                if self.nodes[node].health != Health::Alive {
                    return;
                }
                if from.ip() != self.server.ip() {
                    let name = self.nodes[node].phone.id.name.clone();
                    if !self.direct {
                        self.oracle.fault(now, format!("{name} gets RTP from {from}"));
                    }
                }
                let phone = &mut self.nodes[node].phone;
                phone.hear(now, port, &bytes);
                // Without a relay a fork's losers are heard until they are told, and nobody keeps streams in one piece.
                if !self.direct
                    && !phone.habit.hears_many
                    && let Some(call) = phone.calls.iter().rev().find(|c| c.voice.local.port() == port)
                    && let Some(heard) = call.voice.heard.iter().rfind(|h| h.last == now)
                {
                    let (own, heard, up_at) = (call.voice.tone, heard.tone, call.up_at);
                    self.oracle.ear(now, own, heard, up_at);
                    for tone in [own, heard] {
                        if let Some(number) = self.unconfirmed(tone)
                            && self.caught.insert(tone)
                        {
                            let (own, heard) = (name(own), name(heard));
                            let what = format!("{own} hears {heard}, and {number} has not pressed 1");
                            self.oracle.fault(now, what);
                        }
                    }
                }
            }
            Parcel::Lost { flow } => {
                let node = self.at(flow.remote).or_else(|| self.at_ip(flow.remote));
                if let Some(node) = node {
                    let party = self.nodes[node].party.clone();
                    self.oracle.connection_lost(&party);
                }
                self.tell(Event::FlowLost { flow });
            }
            Parcel::Media { output } => self.tell(Event::Media(output)),
            Parcel::Hook { query, outcome } => self.tell(Event::HookAnswer { query, outcome }),
            Parcel::Resolved { query, targets } => self.tell(Event::Resolved { query, targets }),
        }
    }

    /// Sends what a phone wants sent.
    fn flush(&mut self, node: usize) {
        let alive = self.nodes[node].health == Health::Alive;
        while let Some(out) = self.nodes[node].phone.out.pop_front() {
            if !alive {
                continue;
            }
            let own = self.nodes[node].phone.id.address;
            match out {
                Out::Sip { to, bytes } => {
                    if to != self.server {
                        self.oracle.fault(self.now, format!("{own} was told to send SIP to {to}"));
                        continue;
                    }
                    let bytes = Bytes::from(bytes);
                    match self.nodes[node].phone.id.wire {
                        Wire::Udp => {
                            let flow = Flow { transport: Transport::Udp, local: self.server, remote: own, conn: 0 };
                            self.net.send(self.now, own, to, Parcel::ToServer { flow, node, bytes });
                        }
                        Wire::Tcp => {
                            let conn = self.connect(node, None);
                            let remote = self.connections[conn].remote;
                            let flow = tcp(self.server, remote, conn as u32 + 1);
                            self.net.send_reliably(self.now, remote, to, Parcel::ToServer { flow, node, bytes });
                        }
                    }
                }
                Out::Rtp { from, to, bytes } => {
                    let bytes = Bytes::from(bytes);
                    let parcel = if to.ip() == self.server.ip() {
                        Parcel::RtpToServer { from, port: to.port(), bytes }
                    } else if let Some(node) = self.nodes.iter().position(|n| n.phone.id.address.ip() == to.ip()) {
                        Parcel::RtpToNode { node, port: to.port(), from, bytes }
                    } else {
                        continue;
                    };
                    self.send_rtp(from, to, parcel);
                }
            }
        }
        self.nodes[node].wake = self.nodes[node].phone.deadline();
    }

    /// Packets from somewhere else than the peer, for the tests of RTP bleed and injection.
    pub fn inject_rtp(&mut self, from: SocketAddr, port: u16, packet: Vec<u8>) {
        self.relay(from, port, Bytes::from(packet));
    }

    /// Ports that are open now.
    pub fn open_ports(&self) -> Vec<u16> {
        self.ports_open.keys().copied().collect()
    }

    fn relay(&mut self, from: SocketAddr, port: u16, bytes: Bytes) {
        let now = Instant::from_micros(self.now);
        self.relay_packets += 1;
        let arrival = Arrival { port: Port(port & !1), rtcp: port % 2 == 1, from };
        let mut packet = bytes.to_vec();
        for i in 0..self.relays.len() {
            let verdict = self.relays[i].packet(now, arrival, &mut packet);
            if verdict == Verdict::Fan {
                self.announce(i, arrival.port, &packet);
                break;
            }
            if let Verdict::Forward { port, to, rtcp } = verdict {
                let own = SocketAddr::new(self.server.ip(), port.0 + u16::from(rtcp));
                match self.nodes.iter().position(|n| n.phone.id.address.ip() == to.ip()) {
                    Some(node) => {
                        let bytes = Bytes::from(packet);
                        let parcel = Parcel::RtpToNode { node, port: to.port(), from: own, bytes };
                        self.send_rtp(own, to, parcel);
                    }
                    None => self.oracle.fault(self.now, format!("RTP to {to}, where nobody is")),
                }
                break;
            }
        }
        for i in 0..self.relays.len() {
            if self.relays[i].has_news() {
                let mut out = Vec::new();
                self.relays[i].tick(now, &mut out);
                self.report(out);
            }
        }
    }

    /// Sends a packet to everybody who hears the announcement.
    fn announce(&mut self, relay: usize, from: Port, packet: &[u8]) {
        let mut buffer = [0; 2048];
        let now = Instant::from_micros(self.now);
        for nth in 0..self.relays[relay].fans(from) {
            if let Some(spoken) = self.relays[relay].fan(now, from, nth, packet, &mut buffer) {
                self.spoken(spoken, &buffer);
            }
        }
    }

    fn spoken(&mut self, spoken: Spoken, buffer: &[u8]) {
        let Spoken { port, to, length } = spoken;
        let own = SocketAddr::new(self.server.ip(), port.0);
        match self.nodes.iter().position(|n| n.phone.id.address.ip() == to.ip()) {
            Some(node) => {
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                self.send_rtp(own, to, Parcel::RtpToNode { node, port: to.port(), from: own, bytes });
            }
            // Nobody of this world listens to groups.
            None if to.ip().is_multicast() => {}
            None => self.oracle.fault(self.now, format!("sound to {to}, where nobody is")),
        }
    }

    /// Sends what is due of the sounds that the server plays.
    fn speak(&mut self, relay: usize) {
        let mut buffer = [0; 2048];
        while let Some(spoken) = self.relays[relay].speak(Instant::from_micros(self.now), &mut buffer) {
            self.spoken(spoken, &buffer);
        }
    }

    fn send_rtp(&mut self, from: SocketAddr, to: SocketAddr, parcel: Parcel) {
        let weather = std::mem::replace(&mut self.net.weather, self.rtp_weather);
        self.net.send(self.now, from, to, parcel);
        self.net.weather = weather;
    }

    fn report(&mut self, outputs: Vec<media::Output>) {
        for output in outputs {
            self.net.push(self.now, Parcel::Media { output });
        }
    }

    /// Does what the core wants done.
    fn drain(&mut self) {
        let mut burst = 0;
        while let Some(action) = self.subject.poll() {
            burst += 1;
            if burst == MAX_BURST {
                self.oracle.fault(self.now, format!("{MAX_BURST} actions after one event"));
            }
            match action {
                Action::Send { flow, bytes } => self.send(flow, bytes),
                Action::Resolve { query, host, port, transport } => {
                    let transport = transport.unwrap_or(Transport::Udp);
                    let known = self.names.get(&host).cloned().unwrap_or_default();
                    let resolved = |a: SocketAddr| strowger::b2bua::event::Resolved {
                        transport,
                        address: a.ip(),
                        port: port.unwrap_or(a.port()),
                    };
                    let targets = known.into_iter().map(resolved).collect();
                    self.net.push(self.now + 20 * MS, Parcel::Resolved { query, targets });
                }
                Action::AskHook { query, hook, .. } => {
                    let outcome = match &*hook.url {
                        "silent" => continue,
                        "go-on" => Ok(None),
                        "fails" => Err("it answered 500".to_owned()),
                        steps => {
                            let to = crate::office::steps(steps).expect("the ladder says what the hook answers");
                            Ok(Some(strowger::policy::hook::Answer { to, ..Default::default() }))
                        }
                    };
                    self.net.push(self.now + 50 * MS, Parcel::Hook { query, outcome: Box::new(outcome) });
                }
                Action::Media { worker, command } => self.command(usize::from(worker), command),
                Action::Save(Save::Record(record)) => {
                    self.oracle.record(self.now, &record, self.records_come_again);
                }
                Action::Notify(Notice::LoginFailed(failed)) => self.logins.push(*failed),
                Action::Notify(Notice::NotTaken(call)) => self.not_taken.push(*call),
                Action::Save(Save::Binding(new)) => {
                    let same =
                        |b: &Binding| (&b.aor, &b.contact, &b.instance) == (&new.aor, &new.contact, &new.instance);
                    self.bindings.retain(|b| !same(b));
                    self.bindings.push(*new);
                }
                Action::Save(Save::Unbind { aor, contact }) => {
                    self.bindings.retain(|b| (&b.aor, &b.contact) != (&aor, &contact));
                }
                Action::Save(Save::Opened(new)) => {
                    self.opened.retain(|o| o.dialog.call_id != new.dialog.call_id);
                    self.opened.push(*new);
                }
                Action::Save(Save::Closed { call_id }) => self.opened.retain(|o| *o.dialog.call_id != *call_id),
                Action::Notify(_) | Action::Reply { .. } => {}
            }
        }
    }

    fn command(&mut self, worker: usize, command: media::Command) {
        let now = self.now;
        match &command {
            media::Command::Open { port, .. } => {
                if !PORTS.contains(&port.0) || port.0 % 2 == 1 {
                    self.oracle.fault(now, format!("port {} was never ours", port.0));
                }
                if self.ports_open.insert(port.0, now).is_some() {
                    self.oracle.fault(now, format!("port {} opened twice", port.0));
                }
                if self.ports_closed.get(&port.0).is_some_and(|at| now < at + 5 * SEC) {
                    self.oracle.fault(now, format!("port {} did not rest 5 s", port.0));
                }
            }
            media::Command::Close { port } => {
                if self.ports_open.remove(&port.0).is_none() {
                    self.oracle.fault(now, format!("port {} closed, but it was not open", port.0));
                }
                self.ports_closed.insert(port.0, now);
            }
            media::Command::Finish { recording } => {
                let result =
                    media::Recorded { length_ms: 0, gaps_ms: 0, complete: true, undecoded: Vec::new(), no_file: None };
                let output = media::Output::Recorded { recording: *recording, result };
                self.net.push(now + MS, Parcel::Media { output });
            }
            _ => {}
        }
        let Some(relay) = self.relays.get_mut(worker) else {
            self.oracle.fault(now, format!("there is no media worker {worker}"));
            return;
        };
        let mut out = Vec::new();
        relay.apply(Instant::from_micros(now), command, &mut out);
        self.report(out);
    }

    fn send(&mut self, flow: Flow, bytes: Bytes) {
        let reliable = flow.transport != Transport::Udp;
        if flow.local != self.server {
            self.oracle.fault(self.now, format!("sent from {}, where nobody listens", flow.local));
        }
        let connection = self.connections.get((flow.conn as usize).wrapping_sub(1));
        let (node, gone) = match (reliable, connection) {
            (true, Some(c)) => (Some(c.node), !c.open),
            // Nobody listens there (any more).
            (true, None) => (self.at(flow.remote).or_else(|| self.at_ip(flow.remote)), self.at(flow.remote).is_none()),
            (false, _) => (self.at(flow.remote), false),
        };
        let Some(node) = node else {
            self.oracle.fault(self.now, format!("SIP to {}, where nobody is", flow.remote));
            return;
        };
        self.log.push(Line { at: self.now, node, out: true, bytes: bytes.clone() });
        if bytes.iter().all(|b| matches!(b, b'\r' | b'\n')) {
            return;
        }
        match Msg::read(&bytes) {
            Ok(msg) => {
                let party = self.nodes[node].party.clone();
                let to = if reliable && flow.conn > 0 {
                    self.connections[flow.conn as usize - 1].remote
                } else {
                    flow.remote
                };
                self.oracle.server_says(self.now, to, &party, &msg, &bytes);
            }
            Err(why) => self.oracle.fault(self.now, format!("the server wrote what cannot be read: {why}")),
        }
        if gone {
            self.net.push(self.now + 10 * MS, Parcel::Lost { flow });
            return;
        }
        match (self.nodes[node].health, reliable) {
            (Health::Refusing, _) => {
                self.net.push(self.now + 2 * self.net.weather.delay, Parcel::Lost { flow });
            }
            (Health::Dead, _) => {}
            (Health::Alive, false) => {
                let parcel = Parcel::ToNode { node, from: flow.local, bytes };
                self.net.send(self.now, flow.local, flow.remote, parcel);
            }
            (Health::Alive, true) => {
                let conn = if flow.conn > 0 { flow.conn as usize - 1 } else { self.connect(node, Some(flow.remote)) };
                let remote = self.connections[conn].remote;
                let parcel = Parcel::ToNode { node, from: flow.local, bytes };
                self.net.send_reliably(self.now, flow.local, remote, parcel);
            }
        }
    }

    fn at(&self, address: SocketAddr) -> Option<usize> {
        let by_address = self.nodes.iter().position(|n| n.phone.id.address == address);
        by_address.or_else(|| self.connections.iter().find(|c| c.open && c.remote == address).map(|c| c.node))
    }

    fn at_ip(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|n| n.phone.id.address.ip() == address.ip())
    }

    /// The number called, if it is one that has to confirm and nobody pressed the key.
    fn unconfirmed(&self, tone: Tone) -> Option<&'static str> {
        let phone = &self.nodes.iter().find(|n| n.phone.id.index == tone.0 >> 16)?.phone;
        let call = phone.calls.get(((tone.0 & 0xffff) as usize).wrapping_sub(1))?;
        let First::Request { uri, .. } = &call.invite.first else { return None };
        let number = self.confirms.get(user_of(uri)).filter(|_| !call.ours)?;
        (!call.pressed.contains('1')).then_some(*number)
    }

    /// The open connection with a node, or a new one.
    fn connect(&mut self, node: usize, listening: Option<SocketAddr>) -> usize {
        if let Some(i) = self.connections.iter().position(|c| c.node == node && c.open) {
            return i;
        }
        let i = self.connections.len();
        let ip = self.nodes[node].phone.id.address.ip();
        let remote = listening.unwrap_or(SocketAddr::new(ip, 50_000 + i as u16));
        self.connections.push(Connection { node, remote, open: true });
        i
    }

    /// Takes the next unread message of a node that fits.
    pub fn take(&mut self, node: usize, fits: impl Fn(&crate::phone::Seen) -> bool) -> Option<crate::phone::Seen> {
        let inbox = &mut self.nodes[node].phone.inbox;
        let found = inbox.iter_mut().find(|s| !s.used && !s.again && fits(s))?;
        found.used = true;
        Some(found.clone())
    }
}

fn tcp(local: SocketAddr, remote: SocketAddr, conn: u32) -> Flow {
    Flow { transport: Transport::Tcp, local, remote, conn }
}

/// One line for a message.
pub fn describe(msg: &Msg) -> String {
    let what = match &msg.first {
        First::Request { method, uri } => format!("{method} {uri}"),
        First::Response { code, phrase } => format!("{code} {phrase} ({})", msg.method()),
    };
    let from = user_of(crate::phone::text::uri_of(msg.get("From").unwrap_or("")));
    let sdp = if msg.body.is_empty() { "" } else { " +body" };
    format!("{what}  [{} from {from} cseq {}{sdp}]", &msg.call_id().chars().take(8).collect::<String>(), msg.cseq())
}

impl World {
    /// Changes the weather, for SIP and RTP.
    pub fn set_weather(&mut self, weather: Weather) {
        self.net.weather = weather;
        self.rtp_weather = weather;
    }
}
