//! Where a SIP host is: RFC 3263 without NAPTR (nobody's carrier needs it), ordered by RFC 2782. Nobody waits for it: a
//! question goes to tokio and comes back by a callback within [`BUDGET`]; what was known an hour ago is better than nothing
//! while DNS is dead. DNSSEC is not here, and neither is ENUM.
//!
//! `/etc/hosts` (read once at start) comes first, then our cache, then the name servers of `/etc/resolv.conf`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::b2bua::QueryId;
use crate::b2bua::event::Resolved;
use crate::base::Rng;
use crate::sip::transport::Transport;

/// The longest that a question takes.
pub const BUDGET: Duration = Duration::from_secs(2);
/// The longest that a question takes whose old answer is still known.
pub const STALE_WAIT: Duration = Duration::from_millis(500);
/// How long past its time an answer is used while DNS is dead.
pub const STALE: Duration = Duration::from_secs(3600);
/// After a failure: how long until the name servers are asked again where an old answer is known (RFC 8767 section 5).
pub const RETRY: Duration = Duration::from_secs(30);
/// How long "there is no such name", or a failure without an old answer, is believed.
pub const NEGATIVE: Duration = Duration::from_secs(5);
/// The longest that an answer is believed, whatever it says.
pub const TTL: Duration = Duration::from_secs(86_400);
/// Names that are asked for at the same time.
pub const CONCURRENT: usize = 64;
/// Questions that wait for one name.
pub const WAITING: usize = 1024;
/// Answers that are remembered.
pub const CACHE: usize = 1024;
/// SRV records of a name that are looked at.
pub const TARGETS: usize = 8;
/// Addresses in an answer.
pub const ADDRESSES: usize = 16;

/// How long one name server gets; the resolver tries again twice.
const ATTEMPT: Duration = Duration::from_millis(600);

/// The resolver. Cheap to clone.
#[derive(Clone)]
pub struct Dns {
    inner: Arc<Inner>,
}

/// What is to be called with the answer; an empty list is a failure.
type Answer = Box<dyn FnOnce(QueryId, Vec<Resolved>) + Send>;

struct Inner {
    runtime: Handle,
    resolver: TokioResolver,
    hosts: Hosts,
    state: Mutex<State>,
    #[cfg(test)]
    ahead: Mutex<Duration>,
}

struct State {
    known: HashMap<Question, Known>,
    /// Who waits for names that are being asked for.
    flying: HashMap<Question, Vec<(QueryId, Answer)>>,
    rng: Rng,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Question {
    host: String,
    port: Option<u16>,
    transport: Option<Transport>,
}

struct Known {
    services: Vec<Service>,
    until: Instant,
    /// Not to be asked again before; later than `until` only after a failure.
    again: Instant,
}

/// An SRV record with its addresses (RFC 2782).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// By this transport; those of one transport come before those of the next.
    pub transport: Transport,
    /// Lower ones first.
    pub priority: u16,
    /// Its share among equals.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Addresses, in the order to try.
    pub addresses: Vec<IpAddr>,
}

/// What the name servers said.
enum Found {
    /// This, for so long; nothing if there is no such name.
    Services(Vec<Service>, Duration),
    /// Nothing that could be believed.
    Failed(String),
}

impl Dns {
    /// Asks whom the system asks. Lookups run on `runtime`; `rng` decides among equal targets.
    pub fn system(runtime: Handle, rng: &mut Rng) -> Result<Dns, NetError> {
        let (config, mut options) = hickory_resolver::system_conf::read_system_conf()?;
        options.timeout = options.timeout.min(ATTEMPT);
        Dns::new(runtime, rng, config, options, Hosts::from_system().unwrap_or_default())
    }

    /// Asks these name servers.
    pub fn with(runtime: Handle, rng: &mut Rng, config: ResolverConfig) -> Result<Dns, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = ATTEMPT;
        Dns::new(runtime, rng, config, options, Hosts::from_system().unwrap_or_default())
    }

    fn new(
        runtime: Handle,
        rng: &mut Rng,
        config: ResolverConfig,
        mut options: ResolverOpts,
        hosts: Hosts,
    ) -> Result<Dns, NetError> {
        // Our own cache keeps answers past their time; another one below it would only hide when they were fresh.
        options.cache_size = 0;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let state = State { known: HashMap::new(), flying: HashMap::new(), rng: rng.fork() };
        Ok(Dns {
            inner: Arc::new(Inner {
                runtime,
                resolver: builder.build()?,
                hosts,
                state: Mutex::new(state),
                #[cfg(test)]
                ahead: Mutex::default(),
            }),
        })
    }

    /// Where is `host`? `answer` is called once, within [`BUDGET`]; at once, on this thread, if the answer is known. Never waits.
    pub fn resolve(
        &self,
        query: QueryId,
        host: &str,
        port: Option<u16>,
        transport: Option<Transport>,
        answer: impl FnOnce(QueryId, Vec<Resolved>) + Send + 'static,
    ) {
        if let Some(addresses) = self.inner.literal(host) {
            answer(query, services_at(addresses, port, transport).iter().flat_map(targets).collect());
            return;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let question = Question { host, port, transport };
        let now = self.inner.now();
        let mut state = self.inner.lock();
        let known = state.known.get(&question);
        let (fresh, stale) = known.map_or((false, false), |k| (now < k.until.max(k.again), now < k.until + STALE));
        if !fresh {
            let waiting = state.flying.values().map(Vec::len).sum::<usize>();
            let full = waiting >= WAITING || state.flying.len() >= CONCURRENT;
            if let Some(waiters) = state.flying.get_mut(&question)
                && waiting < WAITING
            {
                waiters.push((query, Box::new(answer)));
                return;
            }
            if !full {
                state.flying.insert(question.clone(), vec![(query, Box::new(answer))]);
                drop(state);
                let inner = self.inner.clone();
                self.inner.runtime.spawn(async move { inner.fly(question, stale).await });
                return;
            }
        }
        let targets = if fresh || stale { state.draw(&question) } else { Vec::new() };
        drop(state);
        answer(query, targets);
    }
}

impl Inner {
    /// Addresses that need no name server.
    fn literal(&self, host: &str) -> Option<Vec<IpAddr>> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Some(vec![ip]);
        }
        if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
            return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let name = name(host).ok()?;
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let lookup = self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            found.extend(lookup.iter().flat_map(|l| l.answers()).filter_map(|r| ip(&r.data)));
        }
        (!found.is_empty()).then_some(found)
    }

    async fn fly(self: Arc<Inner>, question: Question, stale: bool) {
        let asked = self.ask(&question);
        tokio::pin!(asked);
        let mut found = None;
        if stale {
            match tokio::time::timeout(STALE_WAIT, &mut asked).await {
                Ok(answer) => found = Some(answer),
                // Who waits gets what was known; the question goes on, for the next ones.
                Err(_) => {
                    let mut state = self.lock();
                    let again = self.now() + BUDGET;
                    if let Some(known) = state.known.get_mut(&question) {
                        known.again = again;
                    }
                    let waiters = state.flying.get_mut(&question).map(std::mem::take).unwrap_or_default();
                    answer_all(state, &question, waiters);
                }
            }
        }
        let found = match found {
            Some(found) => found,
            None => {
                let left = if stale { BUDGET - STALE_WAIT } else { BUDGET };
                let late = |_| Found::Failed("no answer in time".to_owned());
                tokio::time::timeout(left, &mut asked).await.unwrap_or_else(late)
            }
        };
        let now = self.now();
        let mut state = self.lock();
        match found {
            Found::Services(services, ttl) => state.learn(&question, Known { services, until: now + ttl, again: now }),
            Found::Failed(why) => {
                tracing::warn!(host = question.host, why, "a name cannot be resolved");
                match state.known.get_mut(&question) {
                    Some(known) if now < known.until + STALE && !known.services.is_empty() => known.again = now + RETRY,
                    _ => state.learn(&question, Known { services: Vec::new(), until: now, again: now + NEGATIVE }),
                }
            }
        }
        let waiters = state.flying.remove(&question).unwrap_or_default();
        answer_all(state, &question, waiters);
    }

    /// RFC 3263 section 4: SRV where no port is named, else or without them the addresses of the host itself. Everything is
    /// asked at once, so that a slow server costs its slowness only once.
    async fn ask(&self, question: &Question) -> Found {
        let Question { host, port, transport } = question;
        let direct = self.addresses(host);
        if port.is_some() {
            return match direct.await {
                Ok((addresses, ttl)) => Found::Services(services_at(addresses, *port, *transport), ttl),
                Err(why) => Found::Failed(why),
            };
        }
        let (udp, tcp) = match transport {
            Some(Transport::Udp) => (Some(("_sip._udp", Transport::Udp)), None),
            Some(Transport::Tcp) => (Some(("_sip._tcp", Transport::Tcp)), None),
            Some(Transport::Tls) => (Some(("_sips._tcp", Transport::Tls)), None),
            // RFC 7118 has no SRV names.
            Some(Transport::Ws | Transport::Wss) => (None, None),
            None => (Some(("_sip._udp", Transport::Udp)), Some(("_sip._tcp", Transport::Tcp))),
        };
        let (direct, first, second) = tokio::join!(direct, self.services(host, udp), self.services(host, tcp));
        let mut services = Vec::new();
        let (mut ttl, mut failed) = (TTL, None);
        for found in [first, second] {
            match found {
                Ok((found, lasts)) if !found.is_empty() => {
                    ttl = ttl.min(lasts);
                    services.extend(found);
                }
                Ok(_) => {}
                Err(why) => failed = Some(why),
            }
        }
        match (services.is_empty(), direct, failed) {
            (false, _, _) => Found::Services(services, ttl),
            // That there are no SRV records is only true if the server said so.
            (true, Ok((addresses, ttl)), None) => Found::Services(services_at(addresses, None, *transport), ttl),
            (true, Ok((addresses, ttl)), Some(_)) if !addresses.is_empty() => {
                Found::Services(services_at(addresses, None, *transport), ttl.min(NEGATIVE))
            }
            (true, Ok(_), Some(why)) | (true, Err(why), _) => Found::Failed(why),
        }
    }

    async fn services(&self, host: &str, asked: Option<(&str, Transport)>) -> Result<(Vec<Service>, Duration), String> {
        let Some((prefix, transport)) = asked else { return Ok((Vec::new(), TTL)) };
        let lookup = match self.resolver.lookup(name(&format!("{prefix}.{host}"))?, RecordType::SRV).await {
            Ok(lookup) => lookup,
            Err(why) if why.is_no_records_found() => return Ok((Vec::new(), NEGATIVE)),
            Err(why) => return Err(why.to_string()),
        };
        let mut ttl = TTL;
        let mut asking = JoinSet::new();
        for record in lookup.answers() {
            // A target "." says that there is no such service here.
            if let RData::SRV(srv) = &record.data
                && !srv.target.is_root()
                && asking.len() < TARGETS
            {
                ttl = ttl.min(Duration::from_secs(u64::from(record.ttl)));
                let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
                let (target, resolver) = (srv.target.to_utf8(), self.resolver.clone());
                asking.spawn(async move { (priority, weight, port, addresses(&resolver, &target).await) });
            }
        }
        let mut services = Vec::new();
        while let Some(done) = asking.join_next().await {
            if let Ok((priority, weight, port, Ok((addresses, lasts)))) = done
                && !addresses.is_empty()
            {
                ttl = ttl.min(lasts);
                services.push(Service { transport, priority, weight, port, addresses });
            }
        }
        // They finish in any order; what is drawn from them must not depend on it.
        services.sort_by(|a, b| {
            (a.priority, a.weight, a.port, &a.addresses).cmp(&(b.priority, b.weight, b.port, &b.addresses))
        });
        Ok((services, ttl))
    }

    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        addresses(&self.resolver, host).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        #[cfg(test)]
        return Instant::now() + *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(not(test))]
        Instant::now()
    }
}

impl State {
    /// What is known, in a new order.
    fn draw(&mut self, question: &Question) -> Vec<Resolved> {
        let Some(known) = self.known.get(question) else { return Vec::new() };
        order(&known.services, &mut self.rng).into_iter().flat_map(targets).take(ADDRESSES).collect()
    }

    fn learn(&mut self, question: &Question, known: Known) {
        if self.known.len() >= CACHE
            && !self.known.contains_key(question)
            && let Some(oldest) = self.known.iter().min_by_key(|(_, k)| k.until).map(|(q, _)| q.clone())
        {
            self.known.remove(&oldest);
        }
        self.known.insert(question.clone(), known);
    }
}

/// Services in the order to try: by transport as they come, by priority, and among equals by lot, in proportion to their
/// weights (RFC 2782; those of weight 0 nearly never first).
pub fn order<'a>(services: &'a [Service], rng: &mut Rng) -> Vec<&'a Service> {
    let mut ordered: Vec<&Service> = Vec::with_capacity(services.len());
    let mut left: Vec<&Service> = services.iter().collect();
    while let Some(first) = left.first() {
        let transport = first.transport;
        let priority = left.iter().filter(|s| s.transport == transport).map(|s| s.priority).min().unwrap_or(0);
        let (mut equals, others): (Vec<&Service>, Vec<&Service>) =
            left.into_iter().partition(|s| s.transport == transport && s.priority == priority);
        left = others;
        equals.sort_by_key(|s| s.weight);
        while !equals.is_empty() {
            let total: u64 = equals.iter().map(|s| u64::from(s.weight)).sum();
            // All of weight 0 is all alike.
            let mut lot = rng.below(total + 1);
            if total == 0 {
                let at = rng.below(equals.len() as u64) as usize;
                ordered.push(equals.remove(at));
                continue;
            }
            let chosen = equals.iter().position(|s| {
                let weight = u64::from(s.weight);
                let hit = lot <= weight;
                lot = lot.saturating_sub(weight);
                hit
            });
            ordered.push(equals.remove(chosen.unwrap_or(0)));
        }
    }
    ordered
}

fn answer_all(mut state: MutexGuard<'_, State>, question: &Question, waiters: Vec<(QueryId, Answer)>) {
    let drawn: Vec<_> = waiters.into_iter().map(|(query, answer)| (query, answer, state.draw(question))).collect();
    // Nobody's code runs under our lock.
    drop(state);
    for (query, answer, targets) in drawn {
        answer(query, targets);
    }
}

/// The host itself: one service of one address each, so that their order stays.
fn services_at(addresses: Vec<IpAddr>, port: Option<u16>, transport: Option<Transport>) -> Vec<Service> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let transport = transport.unwrap_or(Transport::Udp);
    let port = port.unwrap_or(transport.default_port());
    vec![Service { transport, priority: 0, weight: 0, port, addresses }]
}

fn targets(service: &Service) -> impl Iterator<Item = Resolved> + '_ {
    let (transport, port) = (service.transport, service.port);
    service.addresses.iter().map(move |&address| Resolved { transport, address, port })
}

async fn addresses(resolver: &TokioResolver, host: &str) -> Result<(Vec<IpAddr>, Duration), String> {
    let name = name(host)?;
    let (v4, v6) = tokio::join!(resolver.lookup(name.clone(), RecordType::A), resolver.lookup(name, RecordType::AAAA));
    let mut found = Vec::new();
    let (mut ttl, mut failed) = (TTL, None);
    for lookup in [v4, v6] {
        match lookup {
            Ok(lookup) => {
                let answers = lookup.answers().iter().filter_map(|r| Some((ip(&r.data)?, r.ttl)));
                for (address, lasts) in answers.take(ADDRESSES) {
                    found.push(address);
                    ttl = ttl.min(Duration::from_secs(u64::from(lasts)));
                }
            }
            Err(why) if why.is_no_records_found() => {}
            Err(why) => failed = Some(why.to_string()),
        }
    }
    match (found.is_empty(), failed) {
        (true, Some(why)) => Err(why),
        (true, None) => Ok((found, NEGATIVE)),
        (false, _) => Ok((found, ttl)),
    }
}

/// A name with a dot in it is meant as it stands; others go through the search list.
fn name(host: &str) -> Result<Name, String> {
    let mut name = Name::from_utf8(host).map_err(|e| e.to_string())?;
    if host.contains('.') {
        name.set_fqdn(true);
    }
    Ok(name)
}

fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
    use tokio::runtime::Runtime;

    use super::*;

    /// A name server on loopback with a zone of its own.
    struct Server {
        port: u16,
        dead: Arc<AtomicBool>,
        asked: Arc<AtomicUsize>,
    }

    impl Server {
        fn new(ttl: u32, zone: Vec<(&str, RData)>) -> Server {
            let zone: Vec<(Name, RData)> =
                zone.into_iter().map(|(host, data)| (Name::from_ascii(host).expect("a name"), data)).collect();
            let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
            let port = socket.local_addr().expect("bound").port();
            let (dead, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let server = Server { port, dead: dead.clone(), asked: asked.clone() };
            std::thread::spawn(move || {
                let mut room = [0; 4096];
                while let Ok((len, from)) = socket.recv_from(&mut room) {
                    asked.fetch_add(1, SeqCst);
                    let Ok(question) = Message::from_vec(&room[..len]) else { continue };
                    if dead.load(SeqCst) {
                        continue;
                    }
                    let query = question.queries[0].clone();
                    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                    answer.metadata.recursion_available = true;
                    answer.add_query(query.clone());
                    let mine = |name: &Name| name.to_lowercase() == query.name.to_lowercase();
                    for (name, data) in zone.iter().filter(|(name, _)| mine(name)) {
                        if data.record_type() == query.query_type {
                            answer.add_answer(Record::from_rdata(name.clone(), ttl, data.clone()));
                        }
                    }
                    if !zone.iter().any(|(name, _)| mine(name)) {
                        answer.metadata.response_code = ResponseCode::NXDomain;
                    }
                    let _ = socket.send_to(&answer.to_vec().expect("encodes"), from);
                }
            });
            server
        }
    }

    struct Desk {
        dns: Dns,
        _runtime: Runtime,
    }

    impl Desk {
        fn new(port: u16) -> Desk {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("starts");
            let mut connection = ConnectionConfig::udp();
            connection.port = port;
            let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let mut options = ResolverOpts::default();
            options.timeout = ATTEMPT;
            let mut hosts = Hosts::default();
            hosts.read_hosts_conf(&b"192.0.2.77 pbx.intern pbx\n"[..]).expect("reads");
            let rng = &mut Rng::from_number(1);
            let dns = Dns::new(runtime.handle().clone(), rng, config, options, hosts).expect("builds");
            Desk { dns, _runtime: runtime }
        }

        fn start(&self, host: &str, port: Option<u16>, transport: Option<Transport>) -> mpsc::Receiver<Vec<Resolved>> {
            let (tell, told) = mpsc::channel();
            self.dns.resolve(QueryId(7), host, port, transport, move |query, targets| {
                assert_eq!(query, QueryId(7));
                let _ = tell.send(targets);
            });
            told
        }

        fn ask(&self, host: &str, port: Option<u16>, transport: Option<Transport>) -> Vec<String> {
            let told = self.start(host, port, transport);
            show(told.recv_timeout(BUDGET * 5).expect("answers"))
        }

        fn pass(&self, time: Duration) {
            *self.dns.inner.ahead.lock().expect("whole") += time;
        }
    }

    fn show(targets: Vec<Resolved>) -> Vec<String> {
        targets.iter().map(|t| format!("{} {} {}", t.transport, t.address, t.port)).collect()
    }

    fn a(last: u8) -> RData {
        RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
    }

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).expect("a name")))
    }

    fn zone() -> Vec<(&'static str, RData)> {
        vec![
            ("plain.example.", a(1)),
            ("plain.example.", RData::AAAA(AAAA("2001:db8::1".parse().expect("ip")))),
            ("_sip._udp.carrier.example.", srv(20, 0, 5070, "c.carrier.example.")),
            ("_sip._udp.carrier.example.", srv(10, 0, 5060, "a.carrier.example.")),
            ("_sip._udp.carrier.example.", srv(15, 0, 5065, "b.carrier.example.")),
            ("_sip._tcp.carrier.example.", srv(1, 0, 5061, "a.carrier.example.")),
            ("a.carrier.example.", a(11)),
            ("b.carrier.example.", a(12)),
            ("c.carrier.example.", a(13)),
            ("carrier.example.", a(99)),
            ("_sip._udp.closed.example.", srv(0, 0, 0, ".")),
            ("closed.example.", a(5)),
        ]
    }

    #[test]
    fn names_become_targets() {
        let server = Server::new(300, zone());
        let desk = Desk::new(server.port);
        let (udp, tcp) = (Some(Transport::Udp), Some(Transport::Tcp));
        type Row<'a> = (&'a str, Option<u16>, Option<Transport>, &'a [&'a str]);
        let rows: &[Row<'_>] = &[
            ("192.0.2.9", None, None, &["udp 192.0.2.9 5060"]),
            ("[2001:db8::9]", Some(5080), tcp, &["tcp 2001:db8::9 5080"]),
            ("localhost", None, udp, &["udp 127.0.0.1 5060", "udp ::1 5060"]),
            ("PBX.intern", Some(5080), None, &["udp 192.0.2.77 5080"]),
            ("pbx", None, Some(Transport::Tls), &["tls 192.0.2.77 5061"]),
            ("plain.example", None, None, &["udp 192.0.2.1 5060", "udp 2001:db8::1 5060"]),
            ("plain.example", Some(5090), tcp, &["tcp 192.0.2.1 5090", "tcp 2001:db8::1 5090"]),
            (
                "Carrier.example.",
                None,
                None,
                &["udp 192.0.2.11 5060", "udp 192.0.2.12 5065", "udp 192.0.2.13 5070", "tcp 192.0.2.11 5061"],
            ),
            ("carrier.example", None, tcp, &["tcp 192.0.2.11 5061"]),
            ("carrier.example", Some(5060), None, &["udp 192.0.2.99 5060"]),
            ("closed.example", None, udp, &["udp 192.0.2.5 5060"]),
            ("nowhere.example", None, None, &[]),
            ("not a name\\", None, None, &[]),
        ];
        for (host, port, transport, want) in rows {
            assert_eq!(desk.ask(host, *port, *transport), *want, "{host}");
        }
    }

    #[test]
    fn answers_are_kept_for_their_time_and_used_longer_when_dns_is_dead() {
        let server = Server::new(60, zone());
        let desk = Desk::new(server.port);
        let want = ["udp 192.0.2.1 5060", "udp 2001:db8::1 5060"];
        assert_eq!(desk.ask("plain.example", None, None), want);
        let asked = server.asked.load(SeqCst);
        assert!(asked >= 4);
        server.dead.store(true, SeqCst);
        desk.pass(Duration::from_secs(59));
        assert_eq!(desk.ask("plain.example", None, None), want);
        assert_eq!(server.asked.load(SeqCst), asked, "nobody was asked");

        // Past its time: asked again, and the old answer used soon enough, then at once.
        desk.pass(Duration::from_secs(600));
        let began = Instant::now();
        assert_eq!(desk.ask("plain.example", None, None), want);
        assert!(began.elapsed() < BUDGET, "{:?}", began.elapsed());
        assert!(server.asked.load(SeqCst) > asked);
        let began = Instant::now();
        assert_eq!(desk.ask("plain.example", None, None), want);
        assert!(began.elapsed() < STALE_WAIT / 2, "{:?}", began.elapsed());

        // But not for ever.
        desk.pass(STALE + RETRY + BUDGET);
        let began = Instant::now();
        assert!(desk.ask("plain.example", None, None).is_empty());
        assert!(began.elapsed() < BUDGET * 2, "{:?}", began.elapsed());
        server.dead.store(false, SeqCst);
        desk.pass(NEGATIVE);
        assert_eq!(desk.ask("plain.example", None, None), want);
    }

    #[test]
    fn a_dead_server_costs_the_budget_once_and_a_storm_is_one_question() {
        let server = Server::new(60, zone());
        server.dead.store(true, SeqCst);
        let desk = Desk::new(server.port);
        let began = Instant::now();
        let waiting: Vec<_> = (0..500).map(|_| desk.start("plain.example", None, None)).collect();
        assert!(began.elapsed() < Duration::from_millis(500), "nobody waits: {:?}", began.elapsed());
        assert_eq!(desk.ask("192.0.2.9", None, None), ["udp 192.0.2.9 5060"]);
        for told in waiting {
            assert!(told.recv_timeout(BUDGET * 5).expect("answers").is_empty());
        }
        assert!(began.elapsed() < BUDGET + Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(server.asked.load(SeqCst) < 30, "{}", server.asked.load(SeqCst));
        // A storm of names: bounded, the rest fails at once.
        let names: Vec<_> = (0..5 * CONCURRENT).map(|n| desk.start(&format!("n{n}.example"), None, None)).collect();
        assert!(desk.dns.inner.lock().flying.len() <= CONCURRENT);
        for told in names {
            assert!(told.recv_timeout(BUDGET * 5).expect("answers").is_empty());
        }
        assert!(desk.dns.inner.lock().known.len() <= CACHE);
    }

    #[test]
    fn weights_are_shares() {
        let service =
            |transport, priority, weight, port| Service { transport, priority, weight, port, addresses: Vec::new() };
        let udp = Transport::Udp;
        let services = [
            service(udp, 1, 60, 1),
            service(udp, 1, 20, 2),
            service(udp, 1, 20, 3),
            service(udp, 1, 0, 4),
            service(udp, 2, 9, 5),
        ];
        let mut rng = Rng::from_number(9);
        let mut first = [0u32; 6];
        for _ in 0..10_000 {
            let ports: Vec<u16> = order(&services, &mut rng).iter().map(|s| s.port).collect();
            assert_eq!((ports.len(), ports[4]), (5, 5), "lower priority numbers first: {ports:?}");
            first[usize::from(ports[0])] += 1;
        }
        for (port, share) in [(1, 0.6), (2, 0.2), (3, 0.2), (4, 0.01)] {
            let got = f64::from(first[port]) / 10_000.0;
            assert!((got - share).abs() < 0.03, "{port}: {got}");
        }
        let alike = [service(udp, 1, 0, 1), service(udp, 1, 0, 2)];
        let ones = (0..1000).filter(|_| order(&alike, &mut rng)[0].port == 1).count();
        assert!((400..600).contains(&ones), "{ones}");
        let mixed = [service(udp, 9, 0, 1), service(Transport::Tcp, 1, 0, 2)];
        assert_eq!(order(&mixed, &mut rng)[0].port, 1, "the first transport stays first");
    }
}
