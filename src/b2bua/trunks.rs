//! Carriers' trunks: which of their addresses take calls, and our registration there.
//!
//! Each URI of a trunk is resolved, asked by OPTIONS, and remembered as up or down. What answers anything but 408 and 503 is
//! up: even a 403 says that somebody is there. Silence says little: there are carriers that answer INVITE and REGISTER and never
//! OPTIONS, so an address is judged by silent OPTIONS only if it has answered one before. An address that is down is tried last.
//! A trunk is down, and skipped, when all of its addresses are, provided that it was heard of before or refuses what is sent to
//! it. A registration is refreshed at half its time and backs off when it is refused.

use std::net::{IpAddr, SocketAddr};

use std::time::Duration;

use bytes::Bytes;

use super::event::{QueryId, Resolved};
use super::{Locals, TrunkView};
use crate::base::{Instant, Map, Now, Rng, Wall, map};
use crate::call::leg::mint_call_id;
use crate::directory::{Directory, Label, Trunk};
use crate::registrar::contact;
use crate::sip::originate;
use crate::sip::proof::Proofs;
use crate::sip::{Flow, Message, Method, Name, Transport, Uri};
use crate::transaction::{Failure, NO_ANSWER};

/// Between two OPTIONS to an address that is up.
const PROBE_UP: Duration = Duration::from_secs(30);
/// Between two OPTIONS to an address that is down.
const PROBE_DOWN: Duration = Duration::from_secs(10);
/// An OPTIONS without an answer for so long counts as silence.
const PROBE_PATIENCE: Duration = Duration::from_secs(4);
/// A name is resolved again after this.
const RESOLVE_AGAIN: Duration = Duration::from_secs(60);
/// What we ask a registrar for, in seconds, until it wants more (423).
const REGISTER_EXPIRES: u32 = 600;
/// The most that a registrar may want, and the most that it is believed to have granted, in seconds.
const REGISTER_EXPIRES_MAX: u32 = 86_400;
/// How often in a row a registrar may raise its Min-Expires.
const REGISTER_RAISES: u8 = 2;
/// First pause after a refused registration; it doubles up to [`REGISTER_PAUSE_MAX`].
const REGISTER_PAUSE: Duration = Duration::from_secs(15);
/// Longest pause after refused registrations.
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(900);
/// Our user at a carrier that has given us none.
const OWN_USER: &str = "strowger";
/// Addresses kept of one URI.
const MAX_ADDRESSES: usize = 8;

/// All trunks.
#[derive(Debug, Default)]
pub struct Trunks {
    list: Vec<State>,
    queries: Map32,
    next_query: u32,
    next_key: u32,
}

/// A trunk as long as it is the same one: a reload may put it elsewhere in the list, or another one under its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrunkKey(u32);

type Map32 = Vec<(QueryId, usize, usize)>;

#[derive(Debug)]
struct State {
    key: TrunkKey,
    name: Label,
    uris: Vec<Line>,
    calls: u32,
    up: bool,
    /// Somebody answered there, or called us from there.
    known: bool,
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
    /// Which OPTIONS is out; that an older one ran out of time says nothing any more.
    round: u32,
    /// It has answered OPTIONS, so silence will mean something.
    answers: bool,
    /// It has said anything at all.
    lived: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Health {
    Unknown,
    /// OPTIONS are not answered and never were.
    Silent,
    Up,
    Down {
        because: String,
        /// It refused, said so, or fell silent; not only that a call came to nothing.
        surely: bool,
    },
}

/// A sign of life from an address, or of the contrary.
#[derive(Clone, Copy, Debug)]
enum Sign<'a> {
    /// It answered OPTIONS.
    Answered,
    /// It answered a call or a registration, or called.
    Lives,
    /// OPTIONS in vain.
    Silent,
    /// It answered OPTIONS with 408 or 503: somebody is there, and takes no calls.
    Closed(&'a str),
    /// Nobody listens there.
    Refused(&'a str),
    /// It did not take a call.
    Failed(&'a str),
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
    proofs: Proofs,
    /// Seconds to ask for: more than [`REGISTER_EXPIRES`] if the registrar wants that.
    expires: u32,
    raised: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Registered {
    NotYet,
    Until(Instant),
    /// It was refused, or came to nothing: how, in words.
    Not(String),
}

/// What a request of ours was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Is anybody there?
    Probe {
        /// Trunk.
        trunk: TrunkKey,
        /// Address.
        address: SocketAddr,
        /// Which one.
        round: u32,
    },
    /// Registration.
    Register {
        /// Trunk.
        trunk: TrunkKey,
        /// By this path.
        flow: Flow,
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
                None => {
                    self.next_key = self.next_key.wrapping_add(1);
                    State::new(TrunkKey(self.next_key), now, trunk, locals)
                }
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

    /// Addresses to try a call at, in the order of the URIs, those that are down last.
    pub fn places(&self, trunk: &str) -> Vec<(Flow, Label)> {
        let Some(state) = self.list.iter().find(|s| *s.name == *trunk) else { return Vec::new() };
        let lines = state.uris.iter().flat_map(|l| l.addresses.iter().map(move |a| (l, a)));
        let (down, others): (Vec<_>, Vec<_>) = lines.partition(|(_, a)| a.health.is_down());
        others.into_iter().chain(down).map(|(l, a)| (a.flow, l.text.clone())).collect()
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
        self.health(now, i, flow.remote, fault.map_or(Sign::Lives, Sign::Failed), wants);
    }

    /// A call came from there: whatever of the trunk is at that IP address lives.
    pub fn called_us(&mut self, now: Now, trunk: &str, ip: IpAddr, wants: &mut Vec<Want>) {
        let Some(i) = self.list.iter().position(|s| *s.name == *trunk) else { return };
        let addresses = self.list[i].uris.iter().flat_map(|l| &l.addresses).map(|a| a.flow.remote);
        let there: Vec<SocketAddr> = addresses.filter(|a| same(a.ip(), ip)).collect();
        there.into_iter().for_each(|remote| self.health(now, i, remote, Sign::Lives, wants));
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
                    line.addresses.push(Address::new(now, flow));
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
        let Some(trunk) = self.place(purpose) else { return };
        match purpose {
            Purpose::Probe { address, .. } => {
                let fault = matches!(msg.status(), 408 | 503).then(|| format!("{} {phrase}", msg.status()));
                self.health(now, trunk, address, fault.as_deref().map_or(Sign::Answered, Sign::Closed), wants);
            }
            Purpose::Register { flow, .. } => {
                if msg.status() < 300 {
                    self.health(now, trunk, flow.remote, Sign::Lives, wants);
                }
                self.registered(now, trunk, flow, msg, &phrase, directory, rng, wants);
            }
        }
    }

    /// Nobody answered a request of ours, or it could not be delivered.
    pub fn unanswered(&mut self, now: Now, purpose: Purpose, failure: Option<Failure>, wants: &mut Vec<Want>) {
        let Some(trunk) = self.place(purpose) else { return };
        match purpose {
            Purpose::Probe { address, round, .. } => {
                let addresses = self.list.get(trunk).into_iter().flat_map(|s| &s.uris).flat_map(|l| &l.addresses);
                let mut out = addresses.filter(|a| a.flow.remote == address && a.asked && a.round == round);
                if let Some(transport) = out.next().map(|a| a.flow.transport) {
                    let sign = match failure {
                        Some(gone @ (Failure::Refused | Failure::Unreachable)) => Sign::Refused(gone.words(transport)),
                        Some(Failure::Closed | Failure::Full) | None => Sign::Silent,
                    };
                    self.health(now, trunk, address, sign, wants);
                }
            }
            Purpose::Register { flow, .. } => {
                let because = failure.map_or(NO_ANSWER, |failure| failure.words(flow.transport));
                if let Some(state) = self.list.get_mut(trunk) {
                    state.not_registered(now, format!("registration failed: {because}"));
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
                    address.round = address.round.wrapping_add(1);
                    address.due = now.mono + PROBE_PATIENCE;
                    let (flow, round) = (address.flow, address.round);
                    let purpose = Purpose::Probe { trunk: state.key, address: flow.remote, round };
                    wants.push(Want::Send { flow, purpose, method: Method::Options });
                }
            }
            let all = || state.uris.iter().flat_map(|l| &l.addresses);
            let flow = all().find(|a| !a.health.is_down()).or(all().next()).map(|a| a.flow);
            if let Some(r) = state.registration.as_mut().filter(|r| r.due <= now.mono && !r.asked) {
                match flow {
                    Some(flow) => {
                        r.begin();
                        let purpose = Purpose::Register { trunk: state.key, flow };
                        wants.push(Want::Send { flow, purpose, method: Method::Register });
                    }
                    None => r.due = now.mono + REGISTER_PAUSE,
                }
            }
        }
        for (i, address) in silent {
            self.health(now, i, address, Sign::Silent, wants);
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
        let Want::Send { flow, purpose, .. } = request else { return None };
        let state = self.list.get(self.place(*purpose)?)?;
        let config = directory.trunk(&state.name)?;
        let user = config.username.as_deref().unwrap_or(OWN_USER);
        let domain = registrar_host(state, flow);
        let via = flow.local.to_string();
        let transport = flow.transport;
        let contact = our_contact(user, flow);
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
                Some(originate::register(&originate::Register {
                    registrar: &format!("sip:{domain}"),
                    aor: &aor,
                    contact: &contact,
                    expires: r.expires,
                    call_id: &r.call_id,
                    from_tag: &r.tag,
                    cseq: r.seq,
                    branch,
                    sent_by: &via,
                    transport,
                    authorization: r.proofs.value(Name::Authorization),
                    proxy_authorization: r.proofs.value(Name::ProxyAuthorization),
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
                Registered::Not(because) => because.clone(),
            }),
            calls: state.calls,
            uris: state.uris.iter().map(uri).collect(),
        })
    }

    /// How many trunks there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Where the trunk that a request was sent for stands now, if it is still there.
    fn place(&self, purpose: Purpose) -> Option<usize> {
        let (Purpose::Probe { trunk, .. } | Purpose::Register { trunk, .. }) = purpose;
        self.list.iter().position(|state| state.key == trunk)
    }

    fn health(&mut self, now: Now, trunk: usize, remote: SocketAddr, sign: Sign<'_>, wants: &mut Vec<Want>) {
        let Some(state) = self.list.get_mut(trunk) else { return };
        let addresses = state.uris.iter_mut().flat_map(|l| l.addresses.iter_mut());
        for address in addresses.filter(|a| a.flow.remote == remote) {
            state.known |= matches!(sign, Sign::Answered | Sign::Lives | Sign::Closed(_));
            address.heard(now, sign);
        }
        self.judge(now, trunk, wants);
    }

    fn judge(&mut self, now: Now, trunk: usize, wants: &mut Vec<Want>) {
        let Some(state) = self.list.get_mut(trunk) else { return };
        let addresses = || state.uris.iter().flat_map(|l| &l.addresses);
        let resolving = state.uris.iter().any(|l| l.addresses.is_empty() && l.query.is_some());
        let all_down = addresses().all(|a| a.health.is_down());
        let surely = state.known || addresses().all(|a| matches!(a.health, Health::Down { surely: true, .. }));
        let up = resolving || !(all_down && surely);
        let because = match addresses().find(|a| up != a.health.is_down()).or(addresses().next()) {
            None => "no address found".to_owned(),
            Some(address) if up && all_down => {
                format!("{}; tried all the same, never heard of", address.health.words())
            }
            Some(address) => address.health.words(),
        };
        if up != state.up {
            (state.up, state.since) = (up, now.wall);
            match up {
                true => tracing::info!(trunk = &*state.name, because, "calls go by the trunk again"),
                false => tracing::warn!(trunk = &*state.name, because, "trunk is down: calls avoid it"),
            }
            // Nobody waits out a back-off that a dead carrier caused.
            if let Some(r) = state.registration.as_mut().filter(|r| up && matches!(r.state, Registered::Not(_))) {
                (r.due, r.pause) = (now.mono, REGISTER_PAUSE);
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
        flow: Flow,
        msg: &Message,
        phrase: &str,
        directory: &Directory,
        rng: &mut Rng,
        wants: &mut Vec<Want>,
    ) {
        let Some(state) = self.list.get_mut(trunk) else { return };
        let Some(config) = directory.trunk(&state.name) else { return };
        let domain = registrar_host(state, &flow);
        // It may have been switched off and on again meanwhile.
        let Some(r) = state.registration.as_mut().filter(|r| r.call_id == msg.call_id()) else { return };
        let credentials = config.username.as_deref().zip(config.password.as_ref().map(|password| &*password.0));
        let key = state.key;
        let send_again = |r: &mut Registration, rng: &mut Rng, wants: &mut Vec<Want>| {
            r.seq += 1;
            if let Some(credentials) = credentials {
                r.proofs.prove(credentials, Method::Register, &format!("sip:{domain}"), &[], rng);
            }
            let purpose = Purpose::Register { trunk: key, flow };
            wants.push(Want::Send { flow, purpose, method: Method::Register });
        };
        match msg.status() {
            200..=299 => {
                let contact = our_contact(config.username.as_deref().unwrap_or(OWN_USER), &flow);
                let granted = granted(msg, &contact).unwrap_or(r.expires).clamp(30, REGISTER_EXPIRES_MAX);
                r.asked = false;
                r.pause = REGISTER_PAUSE;
                r.due = now.mono + Duration::from_secs(u64::from(granted / 2));
                if !matches!(r.state, Registered::Until(_)) {
                    tracing::info!(trunk = &*state.name, expires = granted, "registered with the carrier");
                }
                r.state = Registered::Until(now.mono + Duration::from_secs(u64::from(granted)));
            }
            status @ (401 | 407) if credentials.is_none() => {
                let how = format!("registration refused: {status} {phrase}, and no username and password for it");
                state.not_registered(now, how);
            }
            401 | 407 if r.proofs.challenged(msg) => return send_again(r, rng, wants),
            423 if let Some(least) = r.may_raise(msg) => {
                tracing::info!(trunk = &*state.name, expires = least, "the carrier wants longer registrations");
                r.expires = least;
                r.raised += 1;
                return send_again(r, rng, wants);
            }
            status => state.not_registered(now, format!("registration refused: {status} {phrase}")),
        }
        wants.push(Want::Changed(trunk));
    }
}

impl State {
    fn new(key: TrunkKey, now: Now, trunk: &Trunk, locals: &Locals) -> State {
        let uris = trunk.uris.iter().map(|text| Line::new(now, text, locals)).collect();
        let (name, since) = (trunk.name.clone(), now.wall);
        State {
            key,
            name,
            uris,
            calls: 0,
            up: true,
            known: false,
            since,
            because: "not asked yet".into(),
            registration: None,
        }
    }

    /// A registration was refused or came to nothing: `how`, in words. The same is told once.
    fn not_registered(&mut self, now: Now, how: String) {
        let Some(r) = self.registration.as_mut() else { return };
        if r.state != Registered::Not(how.clone()) {
            let calls = if self.up { "; calls are tried all the same" } else { "" };
            tracing::warn!(trunk = &*self.name, "{how}{calls}");
        }
        r.failed(now, how);
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
        let addresses = flow.map(|flow| Address::new(now, flow)).into_iter().collect();
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

impl Address {
    fn new(now: Now, flow: Flow) -> Address {
        let (health, due) = (Health::Unknown, now.mono);
        Address { flow, health, due, asked: false, round: 0, answers: false, lived: false }
    }

    fn heard(&mut self, now: Now, sign: Sign<'_>) {
        let was_down = self.health.is_down();
        let was_surely_down = matches!(self.health, Health::Down { surely: true, .. });
        let down = |because: &str, surely| Health::Down { because: because.to_owned(), surely };
        self.health = match sign {
            Sign::Answered | Sign::Lives => Health::Up,
            Sign::Closed(because) | Sign::Refused(because) => down(because, true),
            Sign::Failed(because) => down(because, false),
            Sign::Silent if self.answers => down("no answer to OPTIONS", true),
            // Nothing but a call can tell whether somebody is there (again) who does not answer OPTIONS.
            Sign::Silent => match std::mem::replace(&mut self.health, Health::Unknown) {
                Health::Unknown | Health::Down { surely: true, .. } => Health::Silent,
                Health::Down { .. } if self.lived => Health::Silent,
                same => same,
            },
        };
        match sign {
            Sign::Answered | Sign::Closed(_) => self.answers = true,
            // It lives and yet its OPTIONS are not answered: they prove nothing until one is.
            Sign::Lives if was_surely_down => self.answers = false,
            Sign::Lives | Sign::Silent | Sign::Refused(_) | Sign::Failed(_) => {}
        }
        self.lived |= matches!(sign, Sign::Answered | Sign::Lives | Sign::Closed(_));
        // A call's end does not put off the question that may bring the address back.
        if !(was_down && matches!(sign, Sign::Failed(_))) {
            self.asked = false;
            self.due = now.mono + if self.health.is_down() { PROBE_DOWN } else { PROBE_UP };
        }
    }
}

impl Health {
    fn is_down(&self) -> bool {
        matches!(self, Health::Down { .. })
    }

    fn words(&self) -> String {
        match self {
            Health::Unknown => "not asked yet".to_owned(),
            Health::Silent => "does not answer OPTIONS, calls are tried".to_owned(),
            Health::Up => "up".to_owned(),
            Health::Down { because, .. } => format!("down: {because}"),
        }
    }
}

impl Registration {
    fn new(now: Now, rng: &mut Rng) -> Registration {
        Registration {
            call_id: mint_call_id(0, rng).into(),
            tag: format!("{:016x}{:016x}", rng.bits(), rng.bits()),
            seq: 0,
            due: now.mono,
            pause: REGISTER_PAUSE,
            asked: false,
            state: Registered::NotYet,
            proofs: Proofs::default(),
            expires: REGISTER_EXPIRES,
            raised: 0,
        }
    }

    /// What to ask for after a 423 (RFC 3261 10.2.8), if it makes sense to ask again.
    fn may_raise(&self, msg: &Message) -> Option<u32> {
        let least = msg.seconds(Name::MinExpires)?;
        (self.raised < REGISTER_RAISES && least > self.expires && least <= REGISTER_EXPIRES_MAX).then_some(least)
    }

    fn begin(&mut self) {
        self.asked = true;
        self.proofs = Proofs::default();
        self.raised = 0;
        self.seq += 1;
    }

    fn failed(&mut self, now: Now, how: String) {
        self.asked = false;
        self.due = now.mono + self.pause;
        self.pause = (self.pause * 2).min(REGISTER_PAUSE_MAX);
        self.state = Registered::Not(how);
    }
}

fn registrar_host(state: &State, flow: &Flow) -> String {
    let line = state.uris.iter().find(|l| l.addresses.iter().any(|a| a.flow == *flow)).or(state.uris.first());
    line.map_or_else(|| flow.remote.to_string(), Line::host_port)
}

/// The seconds that a registrar grants to our Contact: it lists those of others of the same account, too (RFC 3261 10.2.4). One that has rewritten
/// ours, and lists nothing else, means it all the same.
fn granted(msg: &Message, ours: &str) -> Option<u32> {
    let ours = Uri::parse(ours).ok()?;
    let mut listed = msg.addresses(Name::Contact).flatten();
    let first = listed.next();
    let alone = first.filter(|_| msg.addresses(Name::Contact).nth(1).is_none());
    let found = first.into_iter().chain(listed).find(|c| contact::same(&c.uri, &ours)).or(alone);
    found.and_then(|c| c.params.get("expires")?.parse().ok()).or_else(|| msg.seconds(Name::Expires))
}

/// Our Contact at a carrier.
fn our_contact(user: &str, flow: &Flow) -> String {
    format!("sip:{user}@{}{}", flow.local, transport_param(flow.transport))
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

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE: [&str; 2] = ["203.0.113.1:5060", "203.0.113.2:5060"];

    fn trunks(addresses: usize) -> Trunks {
        let node = crate::directory::Node::new("n", "office.example");
        let mut directory = Directory::empty(node);
        let mut trunk = Trunk::new("t", &format!("sip:{}", REMOTE[0]));
        trunk.uris = REMOTE[..addresses].iter().map(|a| format!("sip:{a}").into()).collect();
        directory.trunks = vec![trunk];
        let locals = Locals(vec![(Transport::Udp, "192.0.2.1:5060".parse().expect("an address"))]);
        let mut trunks = Trunks::default();
        trunks.configure(Now::default(), &directory, &mut Rng::from_number(1), &locals);
        trunks
    }

    fn remote(i: usize) -> SocketAddr {
        REMOTE[i].parse().expect("an address")
    }

    #[test]
    fn silence_counts_against_those_who_have_answered() {
        use Sign::{Answered, Closed, Failed, Lives, Refused, Silent};
        let rows: &[(&str, &[Sign<'_>], bool, &str)] = &[
            ("nothing yet", &[], true, "not asked yet"),
            ("never answers", &[Silent, Silent], true, "does not answer OPTIONS, calls are tried"),
            ("answered before", &[Answered, Silent], false, "down: no answer to OPTIONS"),
            ("answered 503", &[Closed("503 Full")], false, "down: 503 Full"),
            ("and is back", &[Answered, Silent, Answered], true, "up"),
            ("calls, no OPTIONS", &[Silent, Lives, Silent], true, "up"),
            ("refuses", &[Refused("gone")], false, "down: gone"),
            ("refused, then silent", &[Refused("gone"), Silent], true, "does not answer OPTIONS, calls are tried"),
            ("failed only", &[Failed("no")], true, "down: no; tried all the same, never heard of"),
            ("lived, failed", &[Lives, Failed("no")], false, "down: no"),
            ("one more try", &[Lives, Failed("no"), Silent], true, "does not answer OPTIONS, calls are tried"),
            ("OPTIONS stopped, calls go on", &[Answered, Silent, Lives, Silent], true, "up"),
            ("and OPTIONS again", &[Answered, Silent, Lives, Answered, Silent], false, "down: no answer to OPTIONS"),
        ];
        for (what, signs, up, because) in rows {
            let mut trunks = trunks(1);
            trunks.judge(Now::default(), 0, &mut Vec::new());
            for sign in *signs {
                trunks.health(Now::default(), 0, remote(0), *sign, &mut Vec::new());
            }
            let view = trunks.view(Now::default(), 0).expect("there is one");
            assert_eq!((trunks.is_up("t"), view.because.as_str()), (*up, *because), "{what}");
            assert_eq!(trunks.places("t").len(), 1, "{what}");
        }
    }

    #[test]
    fn what_is_down_is_tried_last() {
        let mut trunks = trunks(2);
        let order = |t: &Trunks| t.places("t").iter().map(|p| p.0.remote).collect::<Vec<_>>();
        assert_eq!(order(&trunks), [remote(0), remote(1)]);
        for sign in [Sign::Answered, Sign::Silent] {
            trunks.health(Now::default(), 0, remote(0), sign, &mut Vec::new());
        }
        assert_eq!((order(&trunks), trunks.is_up("t")), (vec![remote(1), remote(0)], true));
        trunks.health(Now::default(), 0, remote(1), Sign::Failed("no"), &mut Vec::new());
        assert!(!trunks.is_up("t"));
        trunks.called_us(Now::default(), "t", remote(1).ip(), &mut Vec::new());
        assert_eq!((order(&trunks), trunks.is_up("t")), (vec![remote(1), remote(0)], true));
    }

    #[test]
    fn an_old_question_that_runs_out_of_time_says_nothing() {
        let mut trunks = trunks(1);
        let mut wants = Vec::new();
        let mut asked = |trunks: &mut Trunks, at: Duration| {
            let now = Now { mono: Now::default().mono + at, ..Now::default() };
            wants.clear();
            trunks.tick(now, &mut wants);
            let purpose = wants.iter().find_map(|w| match w {
                Want::Send { purpose, .. } => Some(*purpose),
                _ => None,
            });
            (now, purpose)
        };
        let (now, first) = asked(&mut trunks, Duration::ZERO);
        trunks.health(now, 0, remote(0), Sign::Answered, &mut Vec::new());
        let (now, second) = asked(&mut trunks, PROBE_UP);
        assert!(first.is_some() && second.is_some() && first != second);
        trunks.unanswered(now, first.expect("asked"), None, &mut Vec::new());
        assert!(trunks.is_up("t"));
        trunks.unanswered(now, second.expect("asked"), None, &mut Vec::new());
        assert!(!trunks.is_up("t"));
    }

    fn answer(request: &Message, status: u16, lines: &str) -> Message {
        let (call_id, cseq) = (request.call_id(), request.cseq().seq);
        let text = format!(
            "SIP/2.0 {status} So\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>;tag=2\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).expect("the test writes it well")
    }

    /// A REGISTER of each trunk is out when a reload puts the trunks in another order, and takes one away.
    #[test]
    fn an_answer_finds_its_trunk_after_a_reload() {
        let (now, mut rng, mut wants) = (Now::default(), Rng::from_number(1), Vec::new());
        let locals = Locals(vec![(Transport::Udp, "192.0.2.1:5060".parse().expect("an address"))]);
        let directory = |trunks: &[(&str, &str, bool)]| {
            let mut directory = Directory::empty(crate::directory::Node::new("n", "office.example"));
            let trunk = |(name, remote, register): &(&str, &str, bool)| Trunk {
                register: *register,
                ..Trunk::new(name, &format!("sip:{remote}"))
            };
            directory.trunks = trunks.iter().map(trunk).collect();
            directory.indexed()
        };
        let before = directory(&[("a", REMOTE[0], true), ("b", REMOTE[1], true)]);
        let mut trunks = Trunks::default();
        trunks.configure(now, &before, &mut rng, &locals);
        trunks.tick(now, &mut wants);
        let mut sent = |i: usize| {
            let here = |want: &&Want| matches!(want, Want::Send { flow, method: Method::Register, .. } if flow.remote == remote(i));
            let want = wants.iter().find(here).expect("it registers");
            let Want::Send { purpose, .. } = want else { unreachable!("it was found as one") };
            let bytes = trunks.write(want, &before, "z9hG4bK1", 1, &mut rng).expect("it is there");
            (*purpose, Message::parse(bytes).expect("we wrote it"))
        };
        let (a, b) = (sent(0), sent(1));
        let after = |register| directory(&[("c", "203.0.113.3:5060", true), ("a", REMOTE[0], register)]);
        trunks.configure(now, &after(true), &mut rng, &locals);
        for (purpose, request) in [&b, &a] {
            let ok = answer(request, 200, "Expires: 600\r\n");
            trunks.answered(now, *purpose, &ok, &after(true), &mut rng, &mut Vec::new());
        }
        let registration = |i| trunks.view(now, i).and_then(|view| view.registration);
        assert_eq!(registration(0).as_deref(), Some("not yet registered"));
        assert_eq!(registration(1).as_deref(), Some("registered"));
        // its registration has begun anew: what was said to the old one is of no interest
        for register in [false, true] {
            trunks.configure(now, &after(register), &mut rng, &locals);
        }
        trunks.answered(now, a.0, &answer(&a.1, 200, ""), &after(true), &mut rng, &mut Vec::new());
        assert_eq!(trunks.view(now, 1).and_then(|view| view.registration).as_deref(), Some("not yet registered"));
    }

    #[test]
    fn the_time_granted_is_that_of_our_contact() {
        let request = Message::parse(Bytes::from_static(
            b"REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>\r\nCall-ID: c\r\n\
              CSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n",
        ));
        let request = request.expect("the test writes it well");
        let rows = [
            ("Contact: <sip:a@192.0.2.1:5060>;expires=300\r\n", Some(300)),
            ("Contact: <sip:a@192.0.2.9>;expires=3600, <sip:a@192.0.2.1:5060>;expires=300\r\n", Some(300)),
            ("Contact: <sip:a@192.0.2.9>;expires=3600, <sip:a@192.0.2.1:5060>\r\nExpires: 200\r\n", Some(200)),
            ("Contact: <sip:a@192.0.2.9>;expires=3600, <sip:b@192.0.2.8>;expires=60\r\n", None),
            ("Contact: <sip:a@198.51.100.7:1024>;expires=120\r\n", Some(120)),
            ("Expires: 500\r\n", Some(500)),
            ("", None),
        ];
        for (lines, want) in rows {
            assert_eq!(granted(&answer(&request, 200, lines), "sip:a@192.0.2.1:5060"), want, "{lines}");
        }
    }

    #[test]
    fn a_registrar_may_raise_its_wish_within_bounds() {
        let answer = |least: &str| {
            let text = format!(
                "SIP/2.0 423 Interval Too Brief\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                 To: <sip:a@h>;tag=2\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n{least}Content-Length: 0\r\n\r\n"
            );
            Message::parse(Bytes::from(text)).expect("the test writes it well")
        };
        let rows = [
            ("Min-Expires: 1800\r\n", 0, Some(1800)),
            ("Min-Expires: 1800\r\n", REGISTER_RAISES, None),
            ("Min-Expires: 600\r\n", 0, None),
            ("Min-Expires: 90000\r\n", 0, None),
            ("", 0, None),
        ];
        for (least, raised, want) in rows {
            let registration = Registration { raised, ..Registration::new(Now::default(), &mut Rng::from_number(1)) };
            assert_eq!(registration.may_raise(&answer(least)), want, "{least} {raised}");
        }
    }
}
