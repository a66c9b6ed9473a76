//! The whole as one value: transactions, registrar, calls, trunks, ports, deadlines.
//!
//! ```text
//!   Event --> handle --> transaction::Layer --> Output --+--> registrar            (REGISTER)
//!                              ^                         +--> Call, Leg            (INVITE and what follows)
//!                              |                         +--> proxy                (MESSAGE)
//!                              +------ requests, answers-+--> trunks               (answers to OPTIONS and REGISTER of ours)
//!   poll <-- Action <----------------------------------------- Node: media, store, readers
//! ```
//!
//! [`B2bua`] composes these machines and decides nothing itself but who is calling (INTERFACE: a phone, a trunk, a stranger).
//! Call [`B2bua::handle`] with what happened, then [`B2bua::poll`] until it gives nothing, then wait until
//! [`B2bua::deadline`] at most. It never blocks, never asks the time, never draws a random number but from its seed: the same
//! seed and the same events give the same actions.

pub mod action;
pub mod event;
pub mod ladder;
mod left_open;
pub mod line;
mod node;
pub mod ports;
mod proxy;
mod sticky;
mod trunks;
mod twice;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use slotmap::{Key, SlotMap};

pub use action::{
    Action, Closed, LiveCall, LoginFailed, NotTaken, Notice, PhoneView, Registration, Save, Trouble, TrunkView,
};
pub use event::{Ask, CommandId, Event, QueryId, Resolved};
pub use left_open::MAX_OPENED;
pub use node::Locals;
pub use sticky::{MAX_STICKY, Met};

use crate::base::{Budget, Instant, Lines, Now, Rng, Timers, map};
use crate::call::bridge;
use crate::call::leg::{self, Diverted, Identity, Leg};
use crate::call::record::{Called, Caller, Direction};
use crate::call::{Call, CallKey, Cx, LegKey, Legs, Opening, Owner, Peer, Switch};
use crate::dialog;
use crate::directory::reading::{self, Dialect, Reading};
use crate::directory::{Directory, E164, Label, Relay, Trunk};
use crate::media;
use crate::media::sound::SoundName;
use crate::policy::queue::Outlook;
use crate::policy::{self, Ask as Question, Kind, Way};
use crate::registrar::Registrar;
use crate::registrar::auth::Verdict;
use crate::sdp::Session;
use crate::sip::header::Privacy;
use crate::sip::{Drop as Dropped, Flow, Message, Method, Name, NameAddr, Refusal, Transport, Writer, door};
use crate::transaction::timing::Timing;
use crate::transaction::{self, Failure, Layer, Output, ServerKey};
use left_open::LeftOpen;
use line::Line;
use node::{Due, Node};
use ports::Ports;
use proxy::{Proxy, ProxyKey};
use sticky::Sticky;
use trunks::{Purposes, Trunks, Want};
use twice::Twice;

/// What we call ourselves.
pub(crate) use crate::call::leg::USER_AGENT;

/// What `io` (or an embedder) knows and the configuration does not say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This engine's number among those that share identifiers; it stands in every tag, branch and Call-ID of ours.
    pub engine: u16,
    /// Our listeners, as the other side reaches them. [`Flow::local`] is one of these.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// Where our RTP ports are, as the other side reaches them.
    pub media: IpAddr,
    /// Media workers; at least 1.
    pub workers: u16,
    /// Calls at once; one more is refused with 503.
    pub max_calls: usize,
    /// Bytes of raw messages kept for ladders; 0 keeps none.
    pub ladder: usize,
    /// SIP's timers.
    pub timing: Timing,
    /// Transactions at once.
    pub transactions: transaction::Limits,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            engine: 1,
            listen: Vec::new(),
            media: IpAddr::V4(Ipv4Addr::LOCALHOST),
            workers: 1,
            max_calls: 20_000,
            ladder: 64 << 20,
            timing: Timing::default(),
            transactions: transaction::Limits::default(),
        }
    }
}

/// What was counted, and how much there is of everything now.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Status {
    /// Calls, those included that are closing.
    pub calls: usize,
    /// Legs.
    pub legs: usize,
    /// Server transactions.
    pub server_transactions: usize,
    /// Client transactions.
    pub client_transactions: usize,
    /// RTP ports in use.
    pub ports: usize,
    /// Requests being proxied.
    pub proxied: usize,
    /// Bindings.
    pub bindings: usize,
    /// Phones that the run before left open, and that are not closed yet.
    pub left_open: usize,
    /// Customers of whom it is known which number of ours they called or were shown last.
    pub sticky: usize,
    /// No new calls are taken.
    pub draining: bool,
    /// Since the start.
    pub counters: Counters,
}

/// Counters since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Counters {
    /// Messages received.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Calls begun.
    pub calls: u64,
    /// Malformed requests that got an answer.
    pub refused_malformed: u64,
    /// Datagrams that were no SIP.
    pub dropped_not_sip: u64,
    /// Responses and ACKs that could not be read.
    pub dropped_unreadable: u64,
    /// Requests that could not be read nor answered.
    pub dropped_unanswerable: u64,
    /// Responses without a transaction.
    pub stray_responses: u64,
    /// ACKs without a dialog, or from somewhere else.
    pub stray_acks: u64,
    /// Requests within a dialog that we do not have (481).
    pub strangers: u64,
    /// Challenges (401, 407).
    pub challenged: u64,
    /// Calls of carriers to numbers that are none of their trunk's (407).
    pub not_taken: u64,
    /// INVITEs that came before by another way (482).
    pub merged: u64,
    /// INVITEs that went in a circle (482).
    pub looped: u64,
}

/// The back-to-back user agent.
#[derive(Debug)]
pub struct B2bua {
    settings: Settings,
    rng: Rng,
    tx: Layer<Owner>,
    said: Vec<Output<Owner>>,
    /// The other half of a pair of buffers: what is being dealt with, while more is said.
    hearing: Vec<Output<Owner>>,
    calls: SlotMap<CallKey, Call>,
    legs: Legs,
    proxy: Proxy,
    left_open: LeftOpen,
    node: Node,
    twice: Twice,
    /// Calls of carriers that were not taken: by trunk and what was called.
    not_taken: Lines<(Label, String)>,
    draining: bool,
    next_worker: u16,
    counters: Counters,
}

/// Borrows what calls may use, leaving calls and legs themselves free.
macro_rules! cx {
    ($b2bua:ident, $directory:ident) => {
        Cx {
            now: $b2bua.node.now,
            tx: &mut $b2bua.tx,
            said: &mut $b2bua.said,
            rng: &mut $b2bua.rng,
            directory: &$directory,
            switch: &mut $b2bua.node,
            engine: $b2bua.settings.engine,
            timing: $b2bua.settings.timing,
        }
    };
}

impl B2bua {
    /// A node with nothing in it. Follow with [`Event::Tick`], which begins to look after trunks.
    pub fn new(directory: Arc<Directory>, settings: Settings, seed: [u8; 32]) -> B2bua {
        let mut rng = Rng::new(seed);
        let tx = Layer::new(&mut rng, settings.engine, settings.timing, settings.transactions);
        let twice = Twice::new(&mut rng);
        let locals = Locals(settings.listen.clone());
        let mut trunks = Trunks::default();
        trunks.configure(Now::default(), &directory, &mut rng, &locals);
        let node = Node {
            registrar: Registrar::new(&mut rng),
            trunks,
            purposes: Purposes::new(),
            wants: Vec::new(),
            ports: Ports::default(),
            port_owner: map(),
            recording_owner: map(),
            busy: map(),
            line: Line::default(),
            timers: Timers::new(),
            sticky: Sticky::new(sticky::MAX_STICKY, rng.hasher()),
            ladder: ladder::Ladder::new(settings.ladder, rng.hasher()),
            comings: Budget::new(Registration::LINES),
            out: VecDeque::new(),
            locals,
            taken_over: Vec::new(),
            opened: 0,
            media: settings.media,
            now: Now::default(),
            directory,
        };
        let (calls, legs) = (SlotMap::with_key(), SlotMap::with_key());
        B2bua {
            settings,
            rng,
            tx,
            said: Vec::new(),
            hearing: Vec::new(),
            calls,
            legs,
            proxy: Proxy::default(),
            left_open: LeftOpen::default(),
            node,
            twice,
            not_taken: Lines::default(),
            draining: false,
            next_worker: 0,
            counters: Counters::default(),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.node.now = now;
        match event {
            Event::Received { flow, bytes } => self.received(flow, bytes),
            Event::Tick => self.tick(),
            Event::FlowLost { flow } => {
                let lost = self.node.registrar.flow_lost(now, &flow);
                lost.iter().for_each(|binding| self.node.phone_changed(binding));
                if flow.transport.reliable() {
                    self.legs.values_mut().filter(|leg| leg.flow() == flow).for_each(Leg::disconnected);
                }
                self.tx.lost(now.mono, flow, Failure::Refused, &mut self.said);
            }
            Event::Resolved { query, targets } => {
                let node = &mut self.node;
                node.trunks.resolved(now, query, &targets, &node.locals, &mut node.wants);
            }
            Event::HookAnswer { query, outcome } => {
                self.on_call(query.call, |call, legs, cx| call.hook_answered(legs, cx, query, *outcome));
            }
            Event::Media(output) => self.media(output),
            Event::PortsReady(ports) => self.node.ports.ready(ports),
            Event::Directory(directory) => self.reload(directory),
            Event::Command { id, ask } => self.command(id, ask),
            Event::Met(met) => met.into_iter().for_each(|met| self.node.sticky.met(met)),
            Event::Restore(bindings) => {
                let mut changes = Vec::new();
                self.node.registrar.restore(now, bindings, &self.node.directory.clone(), &mut changes);
                let all: Vec<_> = self.node.registrar.all().cloned().collect();
                changes.extend(all.into_iter().map(crate::registrar::Change::Refreshed));
                self.node.bindings_changed(changes);
            }
            Event::LeftOpen(opened) => self.left_open(opened),
            Event::Drain => self.draining = true,
        }
        self.settle();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.node.out.pop_front()
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let node = &self.node;
        let lists = [node.registrar.deadline(), node.trunks.deadline(), self.left_open.deadline()];
        let all = [self.tx.deadline(), node.timers.deadline()].into_iter().chain(lists);
        all.flatten().min()
    }

    /// Table sizes and counters.
    pub fn status(&self) -> Status {
        let (server_transactions, client_transactions) = self.tx.len();
        Status {
            calls: self.calls.len(),
            legs: self.legs.len(),
            server_transactions,
            client_transactions,
            ports: self.node.ports.used(),
            proxied: self.proxy.len(),
            bindings: self.node.registrar.len(),
            left_open: self.left_open.len(),
            sticky: self.node.sticky.len(),
            draining: self.draining,
            counters: self.counters,
        }
    }

    /// Calls that are not over (those that only wait for their last words do not count).
    pub fn calls_in_progress(&self) -> usize {
        self.calls.values().filter(|c| !c.is_closing()).count()
    }

    fn received(&mut self, flow: Flow, bytes: bytes::Bytes) {
        self.counters.received += 1;
        match Message::parse(bytes) {
            Ok(msg) => {
                let wall = self.node.now.wall;
                self.node.ladder.received(wall, flow.remote, msg.call_id(), msg.wire());
                self.tx.receive(self.node.now.mono, flow, msg, &mut self.said);
            }
            Err(malformed) => match malformed.response(flow.remote) {
                Some(bytes) => {
                    self.counters.refused_malformed += 1;
                    let wall = self.node.now.wall;
                    malformed.wire().iter().for_each(|wire| self.node.ladder.unread(wall, flow.remote, wire));
                    self.send(flow, bytes);
                }
                None => match malformed.drop {
                    Some(Dropped::KeepAlive) => {}
                    Some(Dropped::NotSip) => self.counters.dropped_not_sip += 1,
                    Some(Dropped::BadResponse | Dropped::BadAck) => self.counters.dropped_unreadable += 1,
                    Some(Dropped::NoVia) | None => self.counters.dropped_unanswerable += 1,
                },
            },
        }
    }

    fn send(&mut self, flow: Flow, bytes: bytes::Bytes) {
        self.counters.sent += 1;
        self.node.ladder.sent(self.node.now.wall, flow.remote, &bytes);
        self.node.out.push_back(Action::Send { flow, bytes });
    }

    fn tick(&mut self) {
        let now = self.node.now;
        self.tx.tick(now.mono, &mut self.said);
        while let Some(due) = self.node.timers.pop(now.mono) {
            match due {
                Due::Leg(key) => {
                    let directory = self.node.directory.clone();
                    let Some(leg) = self.legs.get_mut(key) else { continue };
                    let event = leg.tick(&mut cx!(self, directory));
                    self.tell(key, event);
                }
                Due::Call(key) => self.on_call(key, |call, legs, cx| call.tick(legs, cx)),
                Due::Line => self.node.line.tick(now.mono),
            }
        }
        let mut changes = Vec::new();
        self.node.registrar.tick(now, &mut changes);
        self.node.bindings_changed(changes);
        self.node.trunks.tick(now, &mut self.node.wants);
        self.left_open_due();
    }

    /// Deals with everything that came of an event.
    fn settle(&mut self) {
        loop {
            std::mem::swap(&mut self.said, &mut self.hearing);
            let mut heard = std::mem::take(&mut self.hearing);
            heard.drain(..).for_each(|output| self.output(output));
            self.hearing = heard;
            if !self.node.wants.is_empty() {
                std::mem::take(&mut self.node.wants).into_iter().for_each(|want| self.want(want));
            }
            for taken in std::mem::take(&mut self.node.taken_over) {
                self.take_over(&taken);
            }
            if !self.said.is_empty() || !self.node.wants.is_empty() {
                continue;
            }
            if !self.node.line.is_due() {
                return;
            }
            self.serve();
        }
    }

    /// A phone leaves every call but the page that wants it.
    fn take_over(&mut self, taken: &node::TakenOver) {
        let calls = self.node.busy.get(&taken.extension).into_iter().flatten();
        let others: Vec<CallKey> = calls.map(|(key, _)| *key).filter(|key| *key != taken.page).collect();
        for key in others {
            self.on_call(key, |call, legs, cx| call.give_up_phone(legs, cx, &taken.extension, &taken.words));
        }
    }

    /// Looks after the callers who wait in queues, in the order in which they came: whoever comes first gets the agent who is
    /// free. A caller for whom nothing can have changed is passed over.
    fn serve(&mut self) {
        let directory = self.node.directory.clone();
        let mut outlooks: Vec<(Label, Outlook)> = Vec::new();
        for ticket in self.node.line.tickets() {
            let Some(seat) = self.node.line.look(ticket) else { continue };
            let known = outlooks.iter().find(|(queue, _)| *queue == seat.queue).map(|(_, outlook)| *outlook);
            let outlook = known.unwrap_or_else(|| {
                let outlook = policy::queue::outlook(&seat.queue, &directory, &self.node);
                outlooks.push((seat.queue.clone(), outlook));
                outlook
            });
            if seat.fresh || outlook != Outlook::Later {
                outlooks.clear();
                self.on_call(seat.call, |call, legs, cx| call.serve(legs, cx));
            }
        }
    }

    fn output(&mut self, output: Output<Owner>) {
        match output {
            Output::Send { flow, bytes } => self.send(flow, bytes),
            Output::Request { key, flow, msg } => self.request(key, flow, msg),
            Output::Cancel { user: Some(Owner::Leg(key)), msg, .. } => {
                let directory = self.node.directory.clone();
                let Some(leg) = self.legs.get_mut(key) else { return };
                let event = leg.on_cancel(&mut cx!(self, directory), &msg);
                self.tell(key, event);
            }
            Output::Cancel { .. } => {}
            Output::Ack { msg, flow } => {
                let directory = self.node.directory.clone();
                let key = msg.to_tag().and_then(leg::leg_of);
                let leg = key.and_then(|key| self.legs.get(key)).filter(|leg| leg.owns(&msg));
                let key = leg.filter(|leg| self.may_speak(leg.key, &leg.peer, &flow)).map(|leg| leg.key);
                let Some(leg) = key.and_then(|key| self.legs.get_mut(key)) else {
                    self.counters.stray_acks += 1;
                    return;
                };
                let key = leg.key;
                let event = leg.on_ack(&mut cx!(self, directory), &msg);
                self.tell(key, event);
            }
            Output::Response { key, user, msg } => self.response(key, user, &msg),
            Output::Stray { flow, msg } => {
                self.counters.stray_responses += 1;
                self.disown(flow, &msg);
            }
            Output::Timeout { key, user } => self.failed(key, user, None),
            Output::Failed { key, user, error } => self.failed(key, user, Some(error)),
            // A refusal that nobody acknowledged changes nothing: the call is over for us either way.
            Output::Acked { .. } | Output::NoAck { .. } => {}
            Output::Lost { user: Some(Owner::Leg(key)), .. } => {
                // The caller's connection broke while others ring: it cannot hear the answer any more. Whoever talks connects again.
                if self.legs.get(key).is_some_and(Leg::is_invited) {
                    let because = Some("the caller's connection was lost".to_owned());
                    self.tell(key, Some(leg::Event::Lost { because, status: 408 }));
                }
            }
            Output::Lost { .. } => {}
        }
    }

    fn response(&mut self, key: transaction::ClientKey, user: Owner, msg: &Message) {
        let flow = self.tx.path_of(key);
        let now = self.node.now;
        match user {
            Owner::Leg(leg_key) => {
                let directory = self.node.directory.clone();
                let Some(leg) = self.legs.get_mut(leg_key) else {
                    return if let Some(flow) = flow {
                        self.disown(flow, msg)
                    };
                };
                let event = leg.on_response(&mut cx!(self, directory), key, msg);
                self.tell(leg_key, event);
            }
            Owner::Nobody => {}
            Owner::Trunk(number) => {
                let purpose = match msg.status() {
                    100..=199 => None,
                    _ => self.node.purposes.take(number),
                };
                if let Some(purpose) = purpose {
                    let node = &mut self.node;
                    let directory = node.directory.clone();
                    node.trunks.answered(now, purpose, msg, &directory, &mut self.rng, &mut node.wants);
                }
            }
            Owner::Proxy(token) => {
                let proxy_key = ProxyKey::from_token(token);
                let answer = proxy::Answer::Came(msg);
                self.proxy.answered(now.mono, &mut self.tx, &mut self.said, proxy_key, key, answer);
            }
            Owner::LeftOpen(number) => self.left_open_answered(number, msg),
        }
    }

    /// A 2xx to an INVITE of ours that nobody waits for any more, from a phone or trunk that we know.
    fn disown(&mut self, flow: Flow, msg: &Message) {
        let ip = flow.remote.ip();
        let known = self.node.registrar.by_flow(&flow).is_some()
            || self.node.directory.trunks.iter().any(|t| self.is_of(t, ip));
        let ours = msg.from_tag().and_then(leg::leg_of).is_some();
        if known && ours && msg.method() == Method::Invite && (200..300).contains(&msg.status()) {
            let directory = self.node.directory.clone();
            leg::disown(&mut cx!(self, directory), flow, msg);
        }
    }

    fn failed(&mut self, key: transaction::ClientKey, user: Owner, failure: Option<Failure>) {
        let now = self.node.now;
        match user {
            Owner::Leg(leg_key) => {
                let directory = self.node.directory.clone();
                let Some(leg) = self.legs.get_mut(leg_key) else { return };
                let event = leg.on_failure(&mut cx!(self, directory), key, failure);
                self.tell(leg_key, event);
            }
            Owner::Nobody => {}
            Owner::Trunk(number) => {
                if let Some(purpose) = self.node.purposes.take(number) {
                    self.node.trunks.unanswered(now, purpose, failure, &mut self.node.wants);
                }
            }
            Owner::Proxy(token) => {
                let proxy_key = ProxyKey::from_token(token);
                let answer = failure.map_or(proxy::Answer::TimedOut, |_| proxy::Answer::Unreachable);
                self.proxy.answered(now.mono, &mut self.tx, &mut self.said, proxy_key, key, answer);
            }
            Owner::LeftOpen(number) => self.left_open_failed(number, failure),
        }
    }

    fn want(&mut self, want: Want) {
        let now = self.node.now;
        match &want {
            Want::Send { flow, purpose, method, .. } => {
                let (key, branch) = self.tx.branch();
                let directory = self.node.directory.clone();
                let bytes = self.node.trunks.write(&want, &directory, &branch, self.settings.engine, &mut self.rng);
                let Some(bytes) = bytes else { return self.tx.release(key) };
                let number = self.node.purposes.keep(*purpose);
                self.tx.request(now.mono, key, *flow, bytes, *method, Owner::Trunk(number), &mut self.said);
            }
            Want::Resolve { query, host, port, transport } => {
                let (query, host, port, transport) = (*query, host.clone(), *port, *transport);
                self.node.out.push_back(Action::Resolve { query, host, port, transport });
            }
            Want::Changed(trunk) => {
                self.node.line.wake();
                if let Some(view) = self.node.trunks.view(now, *trunk) {
                    self.node.out.push_back(Action::Notify(Notice::Trunk(Box::new(view))));
                }
            }
        }
    }

    /// Tells a leg's call what the leg said.
    fn tell(&mut self, key: LegKey, event: Option<leg::Event>) {
        let (Some(event), Some(leg)) = (event, self.legs.get(key)) else { return };
        self.on_call(leg.call, |call, legs, cx| call.on(legs, cx, key, event));
    }

    fn on_call(&mut self, key: CallKey, act: impl FnOnce(&mut Call, &mut Legs, &mut Cx<'_>)) {
        let directory = self.node.directory.clone();
        let Some(call) = self.calls.get_mut(key) else { return };
        act(call, &mut self.legs, &mut cx!(self, directory));
        // A mobile may ring later than its desk phone, so a call may go out again at any time.
        let pair = if call.goes_out() { call.pair.take() } else { None };
        if call.is_over() {
            self.calls.remove(key);
        }
        if let Some(pair) = pair {
            let calls = &self.calls;
            self.twice.began(twice::Pair(pair), key, |key| is_live(calls, key));
        }
    }

    fn media(&mut self, output: media::Output) {
        match output {
            media::Output::Silent { port } => {
                if let Some(&key) = self.node.port_owner.get(&port) {
                    self.on_call(key, |call, legs, cx| call.silent(legs, cx));
                }
            }
            media::Output::Recorded { recording, result } => {
                if let Some(key) = self.node.recording_owner.remove(&recording) {
                    self.on_call(key, |call, _, cx| call.recorded(cx, Some(result)));
                }
            }
            media::Output::Played { port } => {
                if let Some(&key) = self.node.port_owner.get(&port) {
                    self.on_call(key, |call, legs, cx| call.played(legs, cx, port));
                }
            }
            media::Output::Digit { port, digit } => {
                if let Some(&key) = self.node.port_owner.get(&port) {
                    self.on_call(key, |call, legs, cx| call.key(legs, cx, port, digit));
                }
            }
            // Statistics and first packets are for the log of the worker.
            media::Output::Heard { .. } | media::Output::Closed { .. } => {}
        }
    }

    fn reload(&mut self, directory: Arc<Directory>) {
        let now = self.node.now;
        self.node.trunks.configure(now, &directory, &mut self.rng, &self.node.locals);
        let mut changes = Vec::new();
        self.node.registrar.reload(&directory, &mut changes);
        self.node.bindings_changed(changes);
        self.node.line.reload(&directory);
        self.node.directory = directory;
        (0..self.node.trunks.len()).for_each(|i| self.node.wants.push(Want::Changed(i)));
    }

    fn command(&mut self, id: CommandId, ask: Ask) {
        let answer = match ask {
            Ask::Ladder(call) => self.node.ladder.show(call),
            Ask::Trace(wanted) => self.node.ladder.trace(&wanted),
            Ask::Explain(question) => match question.ask(&self.node.directory) {
                Ok(ask) => {
                    let at = question.at.unwrap_or(self.node.now.wall);
                    let told = policy::explain(&ask, &self.node.directory, &self.node, at);
                    serde_json::to_value(told).unwrap_or_default()
                }
                Err(error) => serde_json::json!({ "error": error }),
            },
            Ask::Page { page, sound } => self.page(&page, sound),
            Ask::Status => serde_json::to_value(self.status()).unwrap_or_default(),
            Ask::Hangup(record) => {
                let key = self.calls.iter().find(|(_, call)| call.id == record).map(|(key, _)| key);
                if let Some(key) = key {
                    self.on_call(key, |call, legs, cx| call.hang_up(legs, cx, "ended by the operator"));
                }
                serde_json::Value::from(key.is_some())
            }
            Ask::Agent { extension, do_not_disturb, paused } => {
                let known = self.node.directory.extension(&extension).map(|e| e.number.clone());
                let agent = known.map(|number| self.node.line.set(&number, do_not_disturb, paused));
                agent.map_or(
                    serde_json::Value::Null,
                    |agent| serde_json::json!({ "dnd": agent.do_not_disturb, "pause": agent.paused }),
                )
            }
            Ask::HangupAll => {
                let keys: Vec<CallKey> = self.calls.keys().collect();
                for key in &keys {
                    self.on_call(*key, |call, legs, cx| call.hang_up(legs, cx, "the server is going down"));
                }
                serde_json::Value::from(keys.len())
            }
        };
        self.node.out.push_back(Action::Reply { id, answer });
    }

    /// The operator has a sound played over a page.
    fn page(&mut self, number: &str, sound: SoundName) -> serde_json::Value {
        let directory = self.node.directory.clone();
        let error = |words: String| serde_json::json!({ "error": words });
        let Some(page) = directory.page(number) else { return error(format!("there is no page {number}")) };
        if self.draining || self.calls.len() >= self.settings.max_calls {
            return error("no new calls are taken now".to_owned());
        }
        self.counters.calls += 1;
        let ask = Question::Operator { page: page.number.clone() };
        let plan = policy::plan(&ask, &directory, self.node.now.wall);
        let worker = self.next_worker;
        self.next_worker = (self.next_worker + 1) % self.settings.workers.max(1);
        let label = Some(page.name.to_string());
        let key = self.calls.insert_with_key(|key| {
            let opening = Opening {
                key,
                direction: Direction::Page,
                caller: Caller { name: Some("operator".to_owned()), ..Caller::default() },
                called: Called { number: page.number.to_string(), label, ..Called::default() },
                identity: Identity { user: page.number.to_string(), ..Identity::default() },
                trunk: None,
                a: LegKey::null(),
                ask,
                plan,
                max_forwards: MAX_FORWARDS,
                worker,
            };
            Call::new(opening, &mut cx!(self, directory)).playing(sound)
        });
        self.on_call(key, |call, legs, cx| call.start(legs, cx));
        match self.calls.get(key).filter(|call| !call.is_closing()) {
            Some(call) => serde_json::json!({ "call": call.id, "with": call.with(&self.legs) }),
            None => error(format!("nobody can hear page {number} now; its record says why")),
        }
    }

    // --- requests ----------------------------------------------------------------------------------------------------

    fn request(&mut self, key: ServerKey, flow: Flow, msg: Message) {
        // What ends here has come far enough, whatever Max-Forwards says.
        let here = |refusal: &Refusal| refusal.status == 483 && msg.to_tag().is_some();
        if let Err(refusal) = door::check(&msg)
            && !here(&refusal)
        {
            return self.refuse(key, flow, &msg, &refusal);
        }
        if msg.to_tag().is_some() {
            return self.in_dialog(key, flow, msg);
        }
        match msg.method() {
            Method::Invite => self.invite(key, flow, msg),
            Method::Register => self.register(key, flow, &msg),
            Method::Options => {
                let tag = self.tag();
                let mut w = Writer::answer(&msg, flow.remote, 200, "OK", Some(&tag));
                w.header(Name::Allow, leg::ALLOW)
                    .header(Name::Accept, "application/sdp")
                    .header(Name::Supported, "timer, path");
                self.tx.respond(self.node.now.mono, key, 200, w.finish(), &mut self.said);
            }
            Method::Message => self.message(key, flow, msg),
            // These belong to a dialog, and there is none.
            Method::Bye
            | Method::Info
            | Method::Update
            | Method::Prack
            | Method::Notify
            | Method::Ack
            | Method::Cancel => {
                self.counters.strangers += 1;
                self.refuse(key, flow, &msg, &Refusal::status(481));
            }
            Method::Subscribe | Method::Publish => self.refuse(key, flow, &msg, &Refusal::status(489)),
            Method::Refer | Method::Other => {
                self.refuse(key, flow, &msg, &Refusal::status(405).with(Name::Allow, leg::ALLOW));
            }
        }
    }

    fn refuse(&mut self, key: ServerKey, flow: Flow, msg: &Message, refusal: &Refusal) {
        let tag = self.tag();
        let bytes = Writer::refuse(msg, flow.remote, refusal, Some(&tag)).finish();
        self.tx.respond(self.node.now.mono, key, refusal.status, bytes, &mut self.said);
    }

    fn in_dialog(&mut self, key: ServerKey, flow: Flow, msg: Message) {
        let directory = self.node.directory.clone();
        let leg_key = msg.to_tag().and_then(leg::leg_of);
        let leg = leg_key.and_then(|k| self.legs.get(k)).filter(|leg| leg.owns(&msg));
        let Some(leg) = leg else {
            self.counters.strangers += 1;
            return self.refuse(key, flow, &msg, &Refusal::status(481));
        };
        let leg_key = leg.key;
        let peer = leg.peer.clone();
        if !self.may_speak(leg_key, &peer, &flow) {
            let verdict = match &peer {
                Peer::Extension(_) => self.check(&flow, &msg, &directory, true),
                Peer::Trunk { .. } => Verdict::Refuse(481),
            };
            match (&verdict, &peer) {
                (Verdict::Known(who), Peer::Extension(number)) if who == number => {}
                (Verdict::Known(_) | Verdict::Refuse(_), _) => {
                    self.counters.strangers += 1;
                    return self.refuse(key, flow, &msg, &Refusal::status(481));
                }
                // Whoever knows both tags is no flood: the answer is kept, so that a repetition gets the same one.
                (Verdict::Challenge { status, .. }, _) => {
                    self.counters.challenged += 1;
                    if let Some(bytes) = self.node.registrar.refuse(&flow, &msg, &verdict) {
                        self.tx.respond(self.node.now.mono, key, *status, bytes, &mut self.said);
                    }
                    return;
                }
            }
        }
        let Some(leg) = self.legs.get_mut(leg_key) else { return };
        let event = leg.on_request(&mut cx!(self, directory), key, flow, &msg);
        self.tell(leg_key, event);
    }

    /// Whether a request of this dialog may come from there: the flow that set it up, a live binding of the extension, an
    /// address of the trunk.
    fn may_speak(&self, key: LegKey, peer: &Peer, flow: &Flow) -> bool {
        let Some(leg) = self.legs.get(key) else { return false };
        let own = leg.flow();
        let same = own.transport == flow.transport && own.remote == flow.remote;
        same || match peer {
            Peer::Extension(number) => self.node.registrar.lives_on(number, flow),
            Peer::Trunk { trunk, .. } => {
                let ip = flow.remote.ip();
                let config = self.node.directory.trunk(trunk);
                config.is_some_and(|t| self.is_of(t, ip)) || self.node.trunks.owns(trunk, ip)
            }
        }
    }

    fn register(&mut self, key: ServerKey, flow: Flow, msg: &Message) {
        let directory = self.node.directory.clone();
        let now = self.node.now;
        let verdict = self.check(&flow, msg, &directory, false);
        let Verdict::Known(who) = &verdict else { return self.challenge(key, flow, msg, &verdict) };
        let mut changes = Vec::new();
        let bytes = self.node.registrar.register(now, flow, msg, who, &directory, &mut changes);
        let status = status_of(&bytes);
        self.tx.respond(now.mono, key, status, bytes, &mut self.said);
        self.node.bindings_changed(changes);
        match status {
            300.. => {
                let told = self.node.registrar.register_failed(now, &flow, msg, who, status);
                self.node.out.extend(told.map(|told| Action::Notify(Notice::LoginFailed(Box::new(told)))));
            }
            _ => self.left_open_registered(who),
        }
    }

    /// Who sent this request; the operator hears why it did not get in.
    fn check(&mut self, flow: &Flow, msg: &Message, directory: &Directory, proxy: bool) -> Verdict {
        let node = &mut self.node;
        let verdict = node.registrar.check(node.now, flow, msg, directory, proxy);
        let told = node.registrar.login_failed(node.now, flow, msg);
        node.out.extend(told.map(|told| Action::Notify(Notice::LoginFailed(Box::new(told)))));
        verdict
    }

    /// The answer to somebody who did not prove who he is.
    fn challenge(&mut self, key: ServerKey, flow: Flow, msg: &Message, verdict: &Verdict) {
        self.counters.challenged += 1;
        let Some(bytes) = self.node.registrar.refuse(&flow, msg, verdict) else { return };
        match verdict {
            // Whoever has proven who he is is no flood: the answer is kept, so that a repetition gets the same one.
            Verdict::Refuse(status) => self.tx.respond(self.node.now.mono, key, *status, bytes, &mut self.said),
            Verdict::Challenge { .. } | Verdict::Known(_) => self.tx.dismiss(key, bytes, &mut self.said),
        }
    }

    fn message(&mut self, key: ServerKey, flow: Flow, msg: Message) {
        let directory = self.node.directory.clone();
        let verdict = self.check(&flow, &msg, &directory, true);
        let Verdict::Known(_) = &verdict else { return self.challenge(key, flow, &msg, &verdict) };
        let user = msg.uri().ok().map(|u| u.user_decoded().into_owned()).unwrap_or_default();
        let Some(extension) = directory.extension(&user) else {
            return self.refuse(key, flow, &msg, &Refusal::status(404));
        };
        let places = self.node.places(&Way::Extension(extension.number.clone()));
        if places.is_empty() {
            return self.refuse(key, flow, &msg, &Refusal::status(480));
        }
        let passed = self.proxy.pass(self.node.now.mono, &mut self.tx, &mut self.said, key, msg.clone(), places);
        if let Err(refusal) = passed {
            self.refuse(key, flow, &msg, &refusal);
        }
    }

    // --- a new call --------------------------------------------------------------------------------------------------

    fn invite(&mut self, key: ServerKey, flow: Flow, msg: Message) {
        let directory = self.node.directory.clone();
        let opening = match self.who_calls(&directory, &flow, &msg) {
            Ok(opening) => opening,
            Err(Stranger::Challenge(verdict)) => return self.challenge(key, flow, &msg, &verdict),
            Err(Stranger::Refuse(refusal)) => return self.refuse(key, flow, &msg, &refusal),
        };
        if let Some(trunk) = &opening.trunk {
            let node = &mut self.node;
            node.trunks.called_us(node.now, trunk, flow.remote.ip(), &mut node.wants);
        }
        if self.draining || self.calls.len() >= self.settings.max_calls {
            return self.refuse(key, flow, &msg, &Refusal::status(503).with(Name::RetryAfter, "10"));
        }
        let max_forwards = msg.max_forwards().unwrap_or(MAX_FORWARDS);
        let (tx, calls) = (&self.tx, &self.calls);
        let merged = self.twice.is_merged(&msg, |key| tx.is_refused(key));
        let caller = Some(&*opening.identity.user).filter(|user| user.bytes().any(|b| b.is_ascii_digit()));
        let pair = opening.trunk.as_ref().map(|trunk| self.twice.pair(trunk, caller, &opening.called.number));
        let most = if caller.is_some() { twice::SAME_PAIR } else { twice::SAME_CALLED };
        let circle = pair.is_some_and(|pair| self.twice.is_circle(pair, most, |key| is_live(calls, key)));
        let looped = circle || msg.values(Name::Via).skip(1).any(|via| self.is_our_via(via));
        self.counters.merged += u64::from(merged);
        self.counters.looped += u64::from(looped && !merged);
        let refusal = match () {
            () if msg.contact().is_none() => Some(Refusal::new(400, "Missing Contact")),
            () if merged || looped => Some(Refusal::status(482)),
            () if max_forwards == 0 => Some(Refusal::status(483)),
            () => dialog::check_route(&msg).err().or_else(|| {
                leg::too_short(&msg).map(|min_se| Refusal::status(422).with(Name::MinSe, min_se.to_string()))
            }),
        };
        if let Some(refusal) = refusal {
            return self.refuse(key, flow, &msg, &refusal);
        }
        let relayed = directory.media.relay == Relay::Always;
        let body = leg::sdp(&msg).filter(|_| relayed);
        let Ok(offer) = body.map(|body| Session::parse(&body).map(|s| (s, body))).transpose() else {
            return self.refuse(key, flow, &msg, &Refusal::status(488));
        };
        // The 100 is the transaction layer's: it goes out if the callee says nothing for 200 ms (RFC 3261 17.2.1), or if the INVITE
        // comes again.
        let tx = &self.tx;
        self.twice.took(&msg, key, |key| tx.flow_of(key).is_some());
        self.begin(key, flow, &msg, opening, max_forwards - 1, offer, relayed, pair);
    }

    #[allow(clippy::too_many_arguments)]
    fn begin(
        &mut self,
        key: ServerKey,
        flow: Flow,
        msg: &Message,
        opening: Who,
        max_forwards: u8,
        offer: Option<(Session, bytes::Bytes)>,
        relayed: bool,
        pair: Option<twice::Pair>,
    ) {
        self.counters.calls += 1;
        let directory = self.node.directory.clone();
        let plan = policy::plan(&opening.question, &directory, self.node.now.wall);
        // What was refused before, or leads nowhere, is no acquaintance: else anybody could write into that table.
        if let Question::In { number, caller: Some(customer), .. } = opening.question
            && plan.refuse.is_none()
        {
            self.node.met(customer, number);
        }
        let direction = match (plan.kind, &opening.trunk) {
            (_, Some(_)) => Direction::In,
            (Kind::Page, None) => Direction::Page,
            (Kind::Out, None) => Direction::Out,
            (Kind::In | Kind::Internal, None) => Direction::Internal,
        };
        let worker = self.next_worker;
        self.next_worker = (self.next_worker + 1) % self.settings.workers.max(1);
        let Who { peer, caller, called, identity, trunk, question: ask } = opening;
        let mut no_port = false;
        let call_key = self.calls.insert_with_key(|call_key| {
            let mut cx = cx!(self, directory);
            let a = self.legs.insert_with_key(|a| {
                let mut leg = Leg::uas(a, call_key, peer.clone(), key, flow, msg, &mut cx);
                leg.end = relayed.then(|| Box::new(bridge::End::new(cx.rng, self.settings.media)));
                leg
            });
            cx.tx.set_user(key, Owner::Leg(a));
            let parts = Opening {
                key: call_key,
                direction,
                caller,
                called,
                identity,
                trunk,
                a,
                ask,
                plan,
                max_forwards,
                worker,
            };
            let mut call = Call::new(parts, &mut cx);
            call.pair = pair.map(|pair| pair.0);
            if let (Some((session, body)), Some(leg)) = (&offer, self.legs.get_mut(a))
                && let Some(end) = leg.end.as_mut()
            {
                no_port = call.at_desk(&mut cx, |desk| end.heard(desk, session, body, flow.remote.ip())).is_err();
            }
            if let Some(leg) = self.legs.get_mut(a) {
                leg.occupies = true;
                cx.switch.named(call.id, leg.call_id(), &peer);
                cx.switch.occupy(call_key, &peer, leg.extension(), true);
            }
            call
        });
        self.on_call(call_key, |call, legs, cx| match no_port {
            true => call.no_port(legs, cx),
            false => call.start(legs, cx),
        });
    }

    /// A phone, a trunk, or a stranger (INTERFACE, "Who is calling").
    fn who_calls(&mut self, directory: &Arc<Directory>, flow: &Flow, msg: &Message) -> Result<Who, Stranger> {
        let from = msg.from();
        let from_user = from.uri.user_decoded();
        let phone = self.node.registrar.by_flow(flow).is_some() || directory.extension(&from_user).is_some();
        if !phone && let Some(who) = self.trunk_calls_us(directory, flow, msg, &from) {
            return Ok(who);
        }
        let verdict = self.check(flow, msg, directory, true);
        let Verdict::Known(number) = verdict else {
            if !phone {
                self.not_taken(directory, flow, msg);
            }
            return Err(Stranger::Challenge(verdict));
        };
        let uri = msg.uri().map_err(|_| Stranger::Refuse(Refusal::status(400)))?;
        let dialled = uri.user_number().into_owned();
        let extension = directory.extension(&number);
        let name = extension.map(|e| e.name.to_string());
        let hidden = msg.text(Name::Privacy).is_some_and(|p| Privacy::parse(p).hides());
        let identity = Identity { name: name.clone(), user: number.to_string(), hidden, diverted: None };
        let caller = Caller { number: Some(number.to_string()), name, ..Caller::default() };
        Ok(Who {
            peer: Peer::Extension(number.clone()),
            called: called(directory, &dialled),
            question: Question::Dialled { extension: number, text: dialled },
            caller,
            identity,
            trunk: None,
        })
    }

    /// A stranger's INVITE that comes from a trunk's address, or calls a number of ours: most likely a number or an address that nobody
    /// has configured yet.
    fn not_taken(&mut self, directory: &Directory, flow: &Flow, msg: &Message) {
        const MAX_CALLED: usize = 64;
        let ip = flow.remote.ip();
        let user = msg.uri().map(|uri| uri.user_decoded().into_owned()).unwrap_or_default();
        let ours =
            |trunk: &Trunk| E164::read(&user, trunk.dialect(directory.node.country)).and_then(|n| directory.number(n));
        let source = directory.trunks.iter().find(|t| self.is_of(t, ip));
        let owner = || directory.trunks.iter().find(|t| ours(t).is_some_and(|number| number.trunk == t.name));
        let Some(trunk) = source.or_else(owner) else { return };
        self.counters.not_taken += 1;
        let called: String = user.chars().take(MAX_CALLED).collect();
        let Some(line) = self.not_taken.note(self.node.now.mono, (trunk.name.clone(), called.clone())) else { return };
        let number = E164::read(&user, trunk.dialect(directory.node.country));
        let because = match number.map(|number| (number, directory.number(number))) {
            Some((number, Some(_))) if source.is_none() => {
                format!(
                    "{ip} is no trunk's address; {number} is trunk {}'s: is it missing in its `allow_from`?",
                    trunk.name
                )
            }
            Some((number, Some(ours))) => {
                let owner = &ours.trunk;
                format!("{number} belongs to trunk {owner}, and this address is not in its `allow_from`")
            }
            Some((number, None)) => {
                let entry = format!("[[number]] with e164 = \"{number}\" and trunk = \"{}\"", trunk.name);
                format!("{number} is no number of ours: add {entry}")
            }
            None => {
                "what was called is no number: if the carrier puts it into another header, name that in `did_header`"
                    .to_owned()
            }
        };
        let (trunk, source) = (trunk.name.clone(), *flow);
        let told = NotTaken { trunk, called, source, because, again: line.again, untold: line.untold };
        self.node.out.push_back(Action::Notify(Notice::NotTaken(Box::new(told))));
    }

    /// Whether a trunk's calls come from there.
    fn is_of(&self, trunk: &Trunk, ip: IpAddr) -> bool {
        trunk.allow_from.iter().any(|c| c.contains(ip)) || self.node.trunks.owns(&trunk.name, ip)
    }

    fn trunk_calls_us(&self, directory: &Directory, flow: &Flow, msg: &Message, from: &NameAddr<'_>) -> Option<Who> {
        let ip = flow.remote.ip();
        let country = directory.node.country;
        let candidates = |trunk: &Trunk| {
            let dialect = trunk.dialect(country);
            let read = |user: &str| E164::read(user, dialect).filter(|n| directory.number(*n).is_some());
            let uri = msg.uri().ok().and_then(|u| read(&u.user_decoded()));
            let to = || read(&msg.to().uri.user_decoded());
            let header = || trunk.did_header.as_deref().and_then(|name| read(&header_user(msg, name)?));
            uri.or_else(to).or_else(header)
        };
        let allowed = directory.trunks.iter().filter(|t| self.is_of(t, ip));
        let (trunk, number) = allowed
            .filter_map(|t| Some((t, candidates(t)?)))
            .find(|(t, n)| directory.number(*n).is_some_and(|n| n.trunk == t.name))?;
        let asserted =
            trunk.trust_identity.then(|| msg.addresses(Name::PAssertedIdentity).flatten()).into_iter().flatten();
        let Told { name, user, number: caller, hidden } = told(asserted.chain([*from]), trunk.dialect(country));
        // Nobody outside is one of us.
        let user = match caller.is_none() && directory.extension(&user).is_some() {
            true => "anonymous".to_owned(),
            false => user,
        };
        let veiled = told([*from].into_iter(), trunk.dialect(country)).hidden;
        let hidden = hidden || veiled || msg.text(Name::Privacy).is_some_and(|p| Privacy::parse(p).hides());
        // What the company calls its customer, else what the carrier does.
        let contact = caller.and_then(|number| directory.contacts.best(number));
        let name = contact.and_then(|c| c.name().map(str::to_owned)).or(name).filter(|_| !hidden);
        let place = || caller.and_then(|n| directory.numbering.place(n).regions.first().map(ToString::to_string));
        let region = contact.and_then(|c| c.region().map(str::to_owned)).or_else(place);
        Some(Who {
            peer: Peer::Trunk { trunk: trunk.name.clone(), number: user.as_str().into() },
            question: Question::In { trunk: trunk.name.clone(), number, caller, anonymous: hidden || caller.is_none() },
            caller: Caller {
                number: Some(user.clone()).filter(|_| !hidden),
                name: name.clone(),
                category: Some(contact.and_then(|c| c.category()).unwrap_or(UNKNOWN).to_owned()),
                region,
            },
            called: called_number(directory, number),
            identity: Identity { name, user, hidden, diverted: Some(Diverted { by: number, unanswered: false }) },
            trunk: Some(trunk.name.clone()),
        })
    }

    /// Whether a Via below the top is one of ours: the request comes back to us.
    fn is_our_via(&self, via: &str) -> bool {
        crate::sip::Via::parse(via).is_ok_and(|via| {
            let here =
                |local: &SocketAddr| via.host == local.ip().to_string() && via.port.unwrap_or(5060) == local.port();
            self.settings.listen.iter().any(|(_, local)| here(local))
        })
    }

    fn tag(&mut self) -> String {
        format!("{:x}.{:016x}{:08x}", self.settings.engine, self.rng.bits(), self.rng.bits32())
    }
}

/// Hops of a request that says nothing of them, and of our own (RFC 3261 8.1.1.6).
const MAX_FORWARDS: u8 = 70;

/// The category of an outside caller who has none, or is in no directory.
const UNKNOWN: &str = "unknown";
/// Characters at most of what stands in the place of a caller's number.
const MAX_CALLER: usize = 32;

/// Who calls, and what for.
struct Who {
    peer: Peer,
    question: Question,
    caller: Caller,
    called: Called,
    identity: Identity,
    trunk: Option<Label>,
}

/// What a trunk's request says of the caller.
struct Told {
    name: Option<String>,
    /// The number in E.164 form, else what stood there; "anonymous" if nothing did.
    user: String,
    number: Option<E164>,
    /// Nobody is named.
    hidden: bool,
}

/// The first address that names a number; without any, the first of all: asserted ones stand before From.
fn told<'a>(addresses: impl Iterator<Item = NameAddr<'a>>, dialect: Dialect) -> Told {
    let mut first = None;
    for address in addresses {
        let user = address.uri.user_decoded();
        let nobody = address.uri.host.eq_ignore_ascii_case(reading::ANONYMOUS_HOST);
        let name = || Some(address.display_text().into_owned()).filter(|name| !reading::is_anonymous(name));
        match Reading::of(&user, dialect) {
            Reading::Number(number, _) => {
                return Told { name: name(), user: number.to_string(), number: Some(number), hidden: nobody };
            }
            Reading::Malformed if first.is_none() && is_plain(&user) => {
                first = Some(Told { name: name(), user: user.into_owned(), number: None, hidden: nobody });
            }
            Reading::Anonymous | Reading::Malformed => {}
        }
    }
    first.unwrap_or_else(|| Told { name: None, user: "anonymous".to_owned(), number: None, hidden: true })
}

/// Whether what stands in a number's place may be shown to somebody: it goes into an address of ours as it is.
fn is_plain(user: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+*#._-".contains(&b);
    (1..=MAX_CALLER).contains(&user.len()) && user.bytes().all(allowed)
}

fn is_live(calls: &SlotMap<CallKey, Call>, key: CallKey) -> bool {
    calls.get(key).is_some_and(|call| !call.is_closing())
}

enum Stranger {
    Challenge(Verdict),
    Refuse(Refusal),
}

fn called(directory: &Directory, dialled: &str) -> Called {
    match E164::read(dialled, directory.node.country) {
        Some(number) if directory.extension(dialled).is_none() => called_number(directory, number),
        _ => {
            let label = directory.extension(dialled).map(|e| e.name.to_string());
            Called { number: dialled.to_owned(), label, ..Called::default() }
        }
    }
}

fn called_number(directory: &Directory, number: E164) -> Called {
    let text = |label: &Option<Label>| label.as_deref().map(str::to_owned);
    match directory.number(number) {
        Some(ours) => Called {
            number: number.to_string(),
            label: text(&ours.label),
            campaign: text(&ours.campaign),
            channel: text(&ours.channel),
            brand: ours.brand,
        },
        None => Called { number: number.to_string(), ..Called::default() },
    }
}

/// The user of an address in a header that the trunk names.
fn header_user(msg: &Message, name: &str) -> Option<String> {
    let value =
        std::str::from_utf8(msg.header(Name::from_bytes(name.as_bytes())).or_else(|| msg.unknown(name))?).ok()?;
    match NameAddr::parse(value) {
        Ok(address) => Some(address.uri.user_number().into_owned()),
        Err(_) => Some(value.trim().to_owned()),
    }
}

/// The status of a response that was just written.
fn status_of(bytes: &[u8]) -> u16 {
    let digits = bytes.get(8..11).and_then(|d| std::str::from_utf8(d).ok());
    digits.and_then(|d| d.parse().ok()).unwrap_or(500)
}
