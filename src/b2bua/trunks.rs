//! Carriers' trunks: which of their addresses take calls, and our registration there.
//!
//! Each URI of a trunk is resolved, asked by OPTIONS, and remembered as up or down. What answers anything but 408 and 503 is
//! up: even a 403 says that somebody is there. A trunk is down when all of its addresses are; one that never said anything is
//! given the benefit of the doubt. A registration is refreshed at half its time and backs off when it is refused.

use std::net::{IpAddr, SocketAddr};

use std::time::Duration;

use bytes::Bytes;

use super::event::{QueryId, Resolved};
use super::{Locals, TrunkView};
use crate::base::{Instant, Map, Now, Rng, Wall, map};
use crate::call::leg::mint_call_id;
use crate::directory::{Directory, Label, Trunk};
use crate::sip::digest::{self, Challenge};
use crate::sip::originate;
use crate::sip::{Flow, Message, Method, Name, Transport, Uri};

/// Between two OPTIONS to an address that is up.
const PROBE_UP: Duration = Duration::from_secs(30);
/// Between two OPTIONS to an address that is down.
const PROBE_DOWN: Duration = Duration::from_secs(10);
/// An OPTIONS without an answer for so long makes its address down.
const PROBE_PATIENCE: Duration = Duration::from_secs(4);
/// A name is resolved again after this.
const RESOLVE_AGAIN: Duration = Duration::from_secs(60);
/// What we ask a registrar for, in seconds.
const REGISTER_EXPIRES: u32 = 600;
/// First pause after a refused registration; it doubles up to [`REGISTER_PAUSE_MAX`].
const REGISTER_PAUSE: Duration = Duration::from_secs(15);
/// Longest pause after refused registrations.
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(900);
/// Addresses kept of one URI.
const MAX_ADDRESSES: usize = 8;

/// All trunks.
#[derive(Debug, Default)]
pub struct Trunks {
    list: Vec<State>,
    queries: Map32,
    next_query: u32,
}

type Map32 = Vec<(QueryId, usize, usize)>;

#[derive(Debug)]
struct State {
    name: Label,
    uris: Vec<Line>,
    calls: u32,
    up: bool,
    since: Wall,
    because: String,
    registration: Option<Registration>,
}

#[derive(Debug)]
struct Line {
    text: Label,
    host: String,
    port: Option<u16>,
    transport: Option<Transport>,
    addresses: Vec<Address>,
    resolve_at: Instant,
    query: Option<QueryId>,
}

#[derive(Debug)]
struct Address {
    flow: Flow,
    health: Health,
    /// Next OPTIONS; while one is out, when its patience ends.
    due: Instant,
    asked: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Health {
    Unknown,
    Up,
    Down(String),
}

#[derive(Debug)]
struct Registration {
    call_id: String,
    tag: String,
    seq: u32,
    due: Instant,
    pause: Duration,
    asked: bool,
    state: Registered,
    challenged: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Registered {
    NotYet,
    Until(Instant),
    Refused(String),
}

/// What a request of ours was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Is anybody there?
    Probe {
        /// Trunk.
        trunk: usize,
        /// Address.
        address: SocketAddr,
    },
    /// Registration.
    Register {
        /// Trunk.
        trunk: usize,
    },
}

/// What trunks want sent or asked.
#[derive(Clone, Debug)]
pub enum Want {
    /// Send this request; `branch` was the one given to [`Trunks::tick`].
    Send {
        /// By this path.
        flow: Flow,
        /// What for.
        purpose: Purpose,
        /// Method.
        method: Method,
        /// Digest answer to a challenge.
        authorization: Option<(Name, String)>,
    },
    /// Resolve.
    Resolve {
        /// Number.
        query: QueryId,
        /// Host.
        host: String,
        /// Port.
        port: Option<u16>,
        /// Transport.
        transport: Option<Transport>,
    },
    /// A trunk looks different now.
    Changed(usize),
}

impl Trunks {
    /// Takes over a configuration; trunks that stay the same keep what is known of them.
    pub fn configure(&mut self, now: Now, directory: &Directory, rng: &mut Rng, locals: &Locals) {
        let mut old: Vec<State> = std::mem::take(&mut self.list);
        self.queries.clear();
        for trunk in &directory.trunks {
            let kept =
                old.iter().position(|s| s.name == trunk.name && s.uris.iter().map(|l| &l.text).eq(trunk.uris.iter()));
            let mut state = match kept {
                Some(i) => old.swap_remove(i),
                None => State::new(now, trunk, locals),
            };
            state.uris.iter_mut().for_each(|l| l.query = None);
            state.registration = match (trunk.register, state.registration.take()) {
                (true, Some(registration)) => Some(registration),
                (true, None) => Some(Registration::new(now, rng)),
                (false, _) => None,
            };
            self.list.push(state);
        }
    }

    /// Addresses that may take a call, the living ones, in the order of the URIs.
    pub fn places(&self, trunk: &str) -> Vec<(Flow, Label)> {
        let Some(state) = self.list.iter().find(|s| *s.name == *trunk) else { return Vec::new() };
        let lines = state.uris.iter().flat_map(|l| l.addresses.iter().map(move |a| (l, a)));
        let alive = lines.filter(|(_, a)| !matches!(a.health, Health::Down(_)));
        alive.map(|(l, a)| (a.flow, l.text.clone())).collect()
    }

    /// Whether calls go out by it.
    pub fn is_up(&self, trunk: &str) -> bool {
        self.list.iter().any(|s| *s.name == *trunk && s.up)
    }

    /// Calls that it carries.
    pub fn calls(&self, trunk: &str) -> u32 {
        self.list.iter().find(|s| *s.name == *trunk).map_or(0, |s| s.calls)
    }

    /// One call more, or one less.
    pub fn occupy(&mut self, trunk: &str, more: bool) {
        if let Some(state) = self.list.iter_mut().find(|s| *s.name == *trunk) {
            state.calls = if more { state.calls + 1 } else { state.calls.saturating_sub(1) };
        }
    }

    /// Whether `ip` is one of the trunk's own addresses.
    pub fn owns(&self, trunk: &str, ip: IpAddr) -> bool {
        let state = self.list.iter().find(|s| *s.name == *trunk);
        state.is_some_and(|s| s.uris.iter().flat_map(|l| &l.addresses).any(|a| same(a.flow.remote.ip(), ip)))
    }

    /// An address took a call, or failed to.
    pub fn said(&mut self, now: Now, trunk: &str, flow: &Flow, fault: Option<&str>, wants: &mut Vec<Want>) {
        let Some(i) = self.list.iter().position(|s| *s.name == *trunk) else { return };
        self.health(now, i, flow.remote, fault, wants);
    }

    /// The resolver answered.
    pub fn resolved(&mut self, now: Now, query: QueryId, targets: &[Resolved], locals: &Locals, wants: &mut Vec<Want>) {
        let Some(at) = self.queries.iter().position(|q| q.0 == query) else { return };
        let (_, trunk, uri) = self.queries.swap_remove(at);
        let Some(line) = self.list.get_mut(trunk).and_then(|s| s.uris.get_mut(uri)) else { return };
        line.query = None;
        line.resolve_at = now.mono + RESOLVE_AGAIN;
        // A dead resolver must not take a trunk down that was found before.
        if !targets.is_empty() {
            let flows = targets.iter().filter_map(|t| locals.flow_to(t.transport, SocketAddr::new(t.address, t.port)));
            let flows: Vec<Flow> = flows.take(MAX_ADDRESSES).collect();
            line.addresses.retain(|a| flows.contains(&a.flow));
            for flow in flows {
                if !line.addresses.iter().any(|a| a.flow == flow) {
                    line.addresses.push(Address { flow, health: Health::Unknown, due: now.mono, asked: false });
                }
            }
        }
        self.judge(now, trunk, wants);
    }

    /// The peer answered a request of ours.
    pub fn answered(
        &mut self,
        now: Now,
        purpose: Purpose,
        msg: &Message,
        directory: &Directory,
        rng: &mut Rng,
        wants: &mut Vec<Want>,
    ) {
        if msg.status() < 200 {
            return;
        }
        let phrase = String::from_utf8_lossy(msg.reason()).into_owned();
        match purpose {
            Purpose::Probe { trunk, address } => {
                let fault = matches!(msg.status(), 408 | 503).then(|| format!("{} {phrase}", msg.status()));
                self.health(now, trunk, address, fault.as_deref(), wants);
            }
            Purpose::Register { trunk } => self.registered(now, trunk, msg, &phrase, directory, rng, wants),
        }
    }

    /// Nobody answered a request of ours, or it could not be sent.
    pub fn unanswered(&mut self, now: Now, purpose: Purpose, because: &str, wants: &mut Vec<Want>) {
        match purpose {
            Purpose::Probe { trunk, address } => self.health(now, trunk, address, Some(because), wants),
            Purpose::Register { trunk } => {
                if let Some(r) = self.list.get_mut(trunk).and_then(|s| s.registration.as_mut()) {
                    r.refused(now, because.to_owned());
                    wants.push(Want::Changed(trunk));
                }
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, wants: &mut Vec<Want>) {
        let mut silent: Vec<(usize, SocketAddr)> = Vec::new();
        for (i, state) in self.list.iter_mut().enumerate() {
            for (j, line) in state.uris.iter_mut().enumerate() {
                if line.resolve_at <= now.mono && line.query.is_none() && !line.is_literal() {
                    let query = QueryId(self.next_query);
                    self.next_query = self.next_query.wrapping_add(1);
                    line.query = Some(query);
                    line.resolve_at = now.mono + RESOLVE_AGAIN;
                    self.queries.retain(|q| (q.1, q.2) != (i, j));
                    self.queries.push((query, i, j));
                    let (host, port, transport) = (line.host.clone(), line.port, line.transport);
                    wants.push(Want::Resolve { query, host, port, transport });
                }
                for address in line.addresses.iter_mut().filter(|a| a.due <= now.mono) {
                    if address.asked {
                        silent.push((i, address.flow.remote));
                        continue;
                    }
                    address.asked = true;
                    address.due = now.mono + PROBE_PATIENCE;
                    let purpose = Purpose::Probe { trunk: i, address: address.flow.remote };
                    let flow = address.flow;
                    wants.push(Want::Send { flow, purpose, method: Method::Options, authorization: None });
                }
            }
            let flow = state.uris.iter().flat_map(|l| &l.addresses).find(|a| !matches!(a.health, Health::Down(_)));
            let flow = flow.map(|a| a.flow);
            if let Some(r) = state.registration.as_mut().filter(|r| r.due <= now.mono && !r.asked) {
                match flow {
                    Some(flow) => {
                        r.begin(now);
                        let purpose = Purpose::Register { trunk: i };
                        wants.push(Want::Send { flow, purpose, method: Method::Register, authorization: None });
                    }
                    None => r.due = now.mono + REGISTER_PAUSE,
                }
            }
        }
        for (i, address) in silent {
            self.health(now, i, address, Some("no answer to OPTIONS"), wants);
        }
    }

    /// When [`Trunks::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let due = |s: &State| {
            let addresses = s.uris.iter().flat_map(|l| l.addresses.iter().map(|a| a.due));
            let resolve = s.uris.iter().filter(|l| !l.is_literal() && l.query.is_none()).map(|l| l.resolve_at);
            let register = s.registration.iter().filter(|r| !r.asked).map(|r| r.due);
            addresses.chain(resolve).chain(register).min()
        };
        self.list.iter().filter_map(due).min()
    }

    /// The request for a [`Want::Send`].
    pub fn write(
        &self,
        request: &Want,
        directory: &Directory,
        branch: &str,
        engine: u16,
        rng: &mut Rng,
    ) -> Option<Bytes> {
        let Want::Send { flow, purpose, authorization, .. } = request else { return None };
        let (Purpose::Probe { trunk, .. } | Purpose::Register { trunk }) = *purpose;
        let state = self.list.get(trunk)?;
        let config = directory.trunk(&state.name)?;
        let user = config.username.as_deref().unwrap_or("strowger");
        let domain = registrar_host(state, flow);
        let via = flow.local.to_string();
        let transport = flow.transport;
        let contact = format!("sip:{user}@{}{}", flow.local, transport_param(flow.transport));
        let agent = super::USER_AGENT;
        match *purpose {
            Purpose::Probe { .. } => Some(originate::options(&originate::Options {
                uri: &format!("sip:{domain}"),
                from: &format!("sip:{user}@{}", directory.node.domains.first().map_or("localhost", |d| d)),
                contact: &contact,
                call_id: &mint_call_id(engine, rng),
                from_tag: &format!("{:016x}", rng.bits()),
                cseq: 1,
                branch,
                sent_by: &via,
                transport,
                user_agent: agent,
            })),
            Purpose::Register { .. } => {
                let r = state.registration.as_ref()?;
                let aor = format!("sip:{user}@{domain}");
                let given = |kind| authorization.as_ref().filter(|a| a.0 == kind).map(|a| a.1.as_str());
                Some(originate::register(&originate::Register {
                    registrar: &format!("sip:{domain}"),
                    aor: &aor,
                    contact: &contact,
                    expires: REGISTER_EXPIRES,
                    call_id: &r.call_id,
                    from_tag: &r.tag,
                    cseq: r.seq,
                    branch,
                    sent_by: &via,
                    transport,
                    authorization: given(Name::Authorization),
                    proxy_authorization: given(Name::ProxyAuthorization),
                    user_agent: agent,
                }))
            }
        }
    }

    /// All trunks as readers see them.
    pub fn view(&self, now: Now, trunk: usize) -> Option<TrunkView> {
        let state = self.list.get(trunk)?;
        let uri = |line: &Line| {
            let states: Vec<String> =
                line.addresses.iter().map(|a| format!("{} {}", a.flow.remote, a.health.words())).collect();
            match states.is_empty() {
                true => format!("{}: not resolved", line.text),
                false => format!("{}: {}", line.text, states.join(", ")),
            }
        };
        Some(TrunkView {
            name: state.name.to_string(),
            up: state.up,
            since: state.since,
            because: state.because.clone(),
            registration: state.registration.as_ref().map(|r| match &r.state {
                Registered::NotYet => "not yet registered".to_owned(),
                Registered::Until(until) if *until > now.mono => "registered".to_owned(),
                Registered::Until(_) => "expired".to_owned(),
                Registered::Refused(because) => format!("not registered: {because}"),
            }),
            calls: state.calls,
            uris: state.uris.iter().map(uri).collect(),
        })
    }

    /// How many trunks there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    fn health(&mut self, now: Now, trunk: usize, remote: SocketAddr, fault: Option<&str>, wants: &mut Vec<Want>) {
        let Some(state) = self.list.get_mut(trunk) else { return };
        let addresses = state.uris.iter_mut().flat_map(|l| l.addresses.iter_mut());
        for address in addresses.filter(|a| a.flow.remote == remote) {
            address.asked = false;
            let (health, pause) = match fault {
                None => (Health::Up, PROBE_UP),
                Some(because) => (Health::Down(because.to_owned()), PROBE_DOWN),
            };
            address.due = now.mono + pause;
            address.health = health;
        }
        self.judge(now, trunk, wants);
    }

    fn judge(&mut self, now: Now, trunk: usize, wants: &mut Vec<Want>) {
        let Some(state) = self.list.get_mut(trunk) else { return };
        let addresses = || state.uris.iter().flat_map(|l| &l.addresses);
        let up = state.uris.iter().any(|l| l.addresses.is_empty() && l.query.is_some())
            || addresses().any(|a| !matches!(a.health, Health::Down(_)));
        let because = match addresses().next() {
            None => "no address found".to_owned(),
            Some(first) => {
                addresses().find(|a| up != matches!(a.health, Health::Down(_))).unwrap_or(first).health.words()
            }
        };
        if up != state.up {
            (state.up, state.since) = (up, now.wall);
            match up {
                true => tracing::info!(trunk = &*state.name, "trunk is up again"),
                false => tracing::warn!(trunk = &*state.name, because, "trunk is down: calls avoid it"),
            }
            wants.push(Want::Changed(trunk));
        } else if because != state.because {
            wants.push(Want::Changed(trunk));
        }
        state.because = because;
    }

    #[allow(clippy::too_many_arguments)]
    fn registered(
        &mut self,
        now: Now,
        trunk: usize,
        msg: &Message,
        phrase: &str,
        directory: &Directory,
        rng: &mut Rng,
        wants: &mut Vec<Want>,
    ) {
        let Some(state) = self.list.get_mut(trunk) else { return };
        let Some(config) = directory.trunk(&state.name) else { return };
        let domain = state.uris.first().map(|l| l.host_port()).unwrap_or_default();
        let flow =
            state.uris.iter().flat_map(|l| &l.addresses).find(|a| !matches!(a.health, Health::Down(_))).map(|a| a.flow);
        let Some(r) = state.registration.as_mut() else { return };
        match msg.status() {
            200..=299 => {
                let granted = granted(msg).unwrap_or(REGISTER_EXPIRES).clamp(30, 86_400);
                r.asked = false;
                r.challenged = 0;
                r.pause = REGISTER_PAUSE;
                r.due = now.mono + Duration::from_secs(u64::from(granted / 2));
                if !matches!(r.state, Registered::Until(_)) {
                    tracing::info!(trunk = &*state.name, expires = granted, "registered with the carrier");
                }
                r.state = Registered::Until(now.mono + Duration::from_secs(u64::from(granted)));
            }
            401 | 407 if r.challenged < 2 => {
                let (Some(flow), Some((name, challenge)), Some(user), Some(password)) =
                    (flow, Challenge::choose(msg), config.username.as_deref(), config.password.as_ref())
                else {
                    return r.refused(now, format!("{} {phrase}, and no username and password for it", msg.status()));
                };
                r.challenged += 1;
                r.seq += 1;
                let uri = format!("sip:{domain}");
                let cnonce = format!("{:016x}", rng.bits());
                let value = digest::answer(&challenge, user, &password.0, "REGISTER", &uri, &cnonce, 1, &[]);
                let purpose = Purpose::Register { trunk };
                wants.push(Want::Send { flow, purpose, method: Method::Register, authorization: Some((name, value)) });
                return;
            }
            status => {
                let because = format!("{status} {phrase}");
                tracing::warn!(trunk = &*state.name, because, "the carrier refused our registration");
                r.refused(now, because);
            }
        }
        wants.push(Want::Changed(trunk));
    }
}

impl State {
    fn new(now: Now, trunk: &Trunk, locals: &Locals) -> State {
        let uris = trunk.uris.iter().map(|text| Line::new(now, text, locals)).collect();
        let (name, since) = (trunk.name.clone(), now.wall);
        State { name, uris, calls: 0, up: true, since, because: "not asked yet".into(), registration: None }
    }
}

impl Line {
    fn new(now: Now, text: &Label, locals: &Locals) -> Line {
        let uri = Uri::parse(text).ok();
        let host = uri.as_ref().map_or(String::new(), |u| u.host.to_owned());
        let (port, transport) = uri.as_ref().map_or((None, None), |u| (u.port, u.transport()));
        let ip = uri.as_ref().and_then(|u| u.ip());
        let transport_used = transport.unwrap_or(Transport::Udp);
        let address = ip.map(|ip| SocketAddr::new(ip, port.unwrap_or(transport_used.default_port())));
        let flow = address.and_then(|a| locals.flow_to(transport_used, a));
        let addresses = flow.map(|flow| Address { flow, health: Health::Unknown, due: now.mono, asked: false });
        let addresses = addresses.into_iter().collect();
        Line { text: text.clone(), host, port, transport, addresses, resolve_at: now.mono, query: None }
    }

    fn is_literal(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    fn host_port(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }
}

impl Health {
    fn words(&self) -> String {
        match self {
            Health::Unknown => "not asked yet".to_owned(),
            Health::Up => "up".to_owned(),
            Health::Down(because) => format!("down: {because}"),
        }
    }
}

impl Registration {
    fn new(now: Now, rng: &mut Rng) -> Registration {
        Registration {
            call_id: mint_call_id(0, rng),
            tag: format!("{:016x}{:016x}", rng.bits(), rng.bits()),
            seq: 0,
            due: now.mono,
            pause: REGISTER_PAUSE,
            asked: false,
            state: Registered::NotYet,
            challenged: 0,
        }
    }

    fn begin(&mut self, _now: Now) {
        self.asked = true;
        self.challenged = 0;
        self.seq += 1;
    }

    fn refused(&mut self, now: Now, because: String) {
        self.asked = false;
        self.challenged = 0;
        self.due = now.mono + self.pause;
        self.pause = (self.pause * 2).min(REGISTER_PAUSE_MAX);
        self.state = Registered::Refused(because);
    }
}

fn registrar_host(state: &State, flow: &Flow) -> String {
    let line = state.uris.iter().find(|l| l.addresses.iter().any(|a| a.flow == *flow)).or(state.uris.first());
    line.map_or_else(|| flow.remote.to_string(), Line::host_port)
}

fn granted(msg: &Message) -> Option<u32> {
    let contact = msg.addresses(Name::Contact).flatten().find_map(|c| c.params.get("expires")?.parse().ok());
    contact.or_else(|| msg.seconds(Name::Expires))
}

fn transport_param(transport: Transport) -> String {
    match transport {
        Transport::Udp => String::new(),
        other => format!(";transport={}", other.param()),
    }
}

fn same(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

/// Purposes of requests under way, by number.
#[derive(Debug)]
pub struct Purposes {
    next: u32,
    open: Map<u32, Purpose>,
}

impl Purposes {
    /// None.
    pub fn new() -> Purposes {
        Purposes { next: 0, open: map() }
    }

    /// Keeps one; its number.
    pub fn keep(&mut self, purpose: Purpose) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.open.insert(self.next, purpose);
        self.next
    }

    /// It is over.
    pub fn take(&mut self, number: u32) -> Option<Purpose> {
        self.open.remove(&number)
    }
}
