//! Addresses of record and where they are now (RFC 3261 section 10, with Path from RFC 3327 and instances from RFC 5626).
//!
//! A call to a binding goes out by the flow that its REGISTER came in by, whatever its Contact says: that is what crosses
//! NAT and what an attacker cannot aim at others. GRUUs, several flows to one contact and third-party registration are not here.

pub mod auth;
pub mod contact;
pub mod failed;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::base::{Instant, Map, Now, Rng, Wall, map};
use crate::directory::{Directory, Label};
use crate::sip::name::Name;
use crate::sip::transport::{Flow, Transport};
use crate::sip::uri::Uri;
use crate::sip::{Message, Refusal, Writer, phrase};
use auth::{Auth, Place, Verdict};
use failed::Failed;
pub use failed::LoginFailed;

/// Bindings of one address of record.
pub const PER_AOR: usize = 10;
/// Bindings in all.
pub const BINDINGS: usize = 100_000;
/// Shortest registration.
pub const MIN_EXPIRES: u32 = 60;
/// Longest registration, in seconds.
pub const MAX_EXPIRES: u32 = 3600;
/// Registration that names no time, in seconds.
pub const DEFAULT_EXPIRES: u32 = 3600;
/// Path hops of one binding.
pub const PATH: usize = 8;
/// Characters of a Contact URI or of a Path hop.
pub const URI_LEN: usize = 512;
/// Characters of an instance; a longer one counts as none.
pub const INSTANCE_LEN: usize = 256;
/// Bytes of a User-Agent that are kept.
pub const USER_AGENT_LEN: usize = 128;
/// How long a datagram address that bounced is tried after the others.
pub const BOUNCE: Duration = Duration::from_secs(30);
/// When a client whose registration found no room may come again, in seconds.
pub const RETRY_AFTER: u32 = 60;

/// Expired bindings are cleared away on this grid; no call goes to them meanwhile.
const GRID: Duration = Duration::from_secs(5);

/// Where a phone is (RFC 3261 section 10).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// Address of record: the extension's number.
    pub aor: String,
    /// Contact URI as the phone gave it, with its URI parameters.
    pub contact: String,
    /// `+sip.instance` and `reg-id`, by which a phone that moved replaces its own binding.
    pub instance: Option<String>,
    /// Path (RFC 3327), outermost first.
    pub path: Vec<String>,
    /// The flow that it registered by; calls go out over it.
    pub flow: Flow,
    /// Call-ID of the REGISTER.
    pub call_id: String,
    /// CSeq of the REGISTER.
    pub cseq: u32,
    /// q value times 1000.
    pub q: u16,
    /// User-Agent.
    pub user_agent: Option<String>,
    /// When it ends.
    pub expires_at: Wall,
}

/// What a REGISTER, an expiry or a reload did to the bindings; the store and the readers follow.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// A phone came.
    Added(Binding),
    /// A phone came again, perhaps by another flow.
    Refreshed(Binding),
    /// A binding is gone. If another of the same contact stays, a `Refreshed` of it follows.
    Removed {
        /// What it was.
        binding: Box<Binding>,
        /// Why.
        left: Left,
    },
}

/// Why a binding is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// The phone signed off.
    SignedOff,
    /// It did not come again in time.
    RanOut,
    /// The same phone came with another contact: a `Change::Added` follows.
    Replaced,
    /// It could not be reached, and another phone of the extension found no room.
    MadeRoom,
    /// Its extension is not configured any more.
    NoExtension,
}

impl Left {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Left::SignedOff => "it signed off",
            Left::RanOut => "its registration ran out",
            Left::Replaced => "it came with another contact",
            Left::MadeRoom => "it could not be reached and made room for another phone",
            Left::NoExtension => "its extension is not configured any more",
        }
    }
}

/// All bindings, and who may make them.
#[derive(Debug)]
pub struct Registrar {
    auth: Auth,
    failed: Failed,
    rng: Rng,
    aors: Map<Label, Aor>,
    /// Who lives on a flow.
    flows: hashbrown::HashMap<Path, SmallVec<[Label; 1]>, ahash::RandomState>,
    /// How many bindings an address has, those included that have just expired.
    offices: hashbrown::HashMap<IpAddr, usize, ahash::RandomState>,
    /// One entry per address of record: when to look at it again.
    due: BTreeSet<(Instant, Label)>,
    len: usize,
}

#[derive(Debug)]
struct Aor {
    /// By q, highest first; among equals the freshest first.
    entries: Vec<Entry>,
    due: Instant,
}

#[derive(Clone, Debug)]
struct Entry {
    binding: Binding,
    /// `expires_at` on the monotonic clock, which no step of the wall clock moves.
    ends: Instant,
    reach: Reach,
    /// When it last left an INVITE unanswered; none if it answered the last.
    unanswered: Option<Wall>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    Open,
    /// A datagram bounced; until then it is tried last. One bounce may only have met a phone that starts again, or an
    /// interface that came up late, and it may be the only phone.
    Bounced(Instant),
    /// Its connection is gone; only the phone can open another.
    Closed,
}

/// Why a phone may not be reached although it is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// A datagram to it bounced: it is called last.
    Bounced,
    /// Its connection is gone: it is not called.
    Closed,
}

/// A flow without our own side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Path(Transport, SocketAddr, u32);

impl From<&Flow> for Path {
    fn from(flow: &Flow) -> Path {
        Path(flow.transport, SocketAddr::new(flow.remote.ip().to_canonical(), flow.remote.port()), flow.conn)
    }
}

impl Registrar {
    /// Knows nobody yet.
    pub fn new(rng: &mut Rng) -> Registrar {
        let mut rng = rng.fork();
        Registrar {
            auth: Auth::new(&mut rng),
            failed: Failed::default(),
            aors: map(),
            flows: hashbrown::HashMap::with_hasher(rng.hasher()),
            offices: hashbrown::HashMap::with_hasher(rng.hasher()),
            due: BTreeSet::new(),
            len: 0,
            rng,
        }
    }

    /// Who sent this request? `proxy`: it asks to be carried on (407) rather than served (401: REGISTER, and whatever we
    /// answer as its end). An extension with a live binding at the sender's address is not locked out there by failures
    /// elsewhere, and an address where anybody lives is an office.
    pub fn check(&mut self, now: Now, flow: &Flow, msg: &Message, directory: &Directory, proxy: bool) -> Verdict {
        let (aors, offices) = (&self.aors, &self.offices);
        self.auth.check_at(now, flow, msg, directory, proxy, |aor, ip| {
            if lives(aors, now.mono, aor, ip) {
                Place::Home
            } else if offices.contains_key(&auth::network(ip)) {
                Place::Office
            } else {
                Place::Elsewhere
            }
        })
    }

    /// What the operator is to be told of a login that the last [`Registrar::check`] did not let in.
    pub fn login_failed(&mut self, now: Now, flow: &Flow, msg: &Message) -> Option<LoginFailed> {
        let (user, fault) = self.auth.take_fault()?;
        self.failed.note(now.mono, flow, msg, &user, fault.words().into())
    }

    /// What the operator is to be told of a REGISTER that was refused though its sender had proven who he is.
    pub fn register_failed(
        &mut self,
        now: Now,
        flow: &Flow,
        msg: &Message,
        who: &str,
        status: u16,
    ) -> Option<LoginFailed> {
        let reason = format!("right password, but refused with {status} {}", phrase(status));
        self.failed.note(now.mono, flow, msg, who, reason.into())
    }

    /// The answer to a request that [`Registrar::check`] did not let in; none if it did.
    pub fn refuse(&mut self, flow: &Flow, msg: &Message, verdict: &Verdict) -> Option<Bytes> {
        let (status, headers): (u16, &[_]) = match verdict {
            Verdict::Known(_) => return None,
            Verdict::Challenge { status, headers } => (*status, headers),
            Verdict::Refuse(status) => (*status, &[]),
        };
        let tag = self.tag();
        let mut w = Writer::answer(msg, flow.remote, status, phrase(status), Some(&tag));
        for (name, value) in headers {
            w.header(*name, value);
        }
        Some(w.finish())
    }

    /// Does what a REGISTER of `who` (proven by [`Registrar::check`]) asks, wholly or not at all, and gives the answer.
    pub fn register(
        &mut self,
        now: Now,
        flow: Flow,
        msg: &Message,
        who: &Label,
        directory: &Directory,
        changes: &mut Vec<Change>,
    ) -> Bytes {
        let before = changes.len();
        let done = self.apply(now, flow, msg, who, directory, changes);
        let tag = self.tag();
        match done {
            Ok(()) => self.listing(now, flow, msg, who, &tag),
            Err(refusal) => {
                changes.truncate(before);
                Writer::refuse(msg, flow.remote, &refusal, Some(&tag)).finish()
            }
        }
    }

    /// Where an extension can be called now, by q; equals with the freshest first. Addresses that bounced a moment ago come last.
    pub fn bindings(&self, aor: &str, now: Now) -> impl Iterator<Item = &Binding> {
        let entries = self.entries(aor).iter().filter(move |e| e.callable(now.mono));
        let (sure, doubtful) = (entries.clone(), entries);
        let sure = sure.filter(move |e| e.open(now.mono));
        sure.chain(doubtful.filter(move |e| !e.open(now.mono))).map(|e| &e.binding)
    }

    /// All bindings of an extension that have not expired, also those that cannot be reached at the moment.
    pub fn registered(&self, aor: &str, now: Now) -> impl Iterator<Item = &Binding> {
        self.entries(aor).iter().filter(move |e| e.ends > now.mono).map(|e| &e.binding)
    }

    /// Every binding, in an order that is the same in every run.
    pub fn all(&self) -> impl Iterator<Item = &Binding> {
        self.due.iter().filter_map(|(_, aor)| self.aors.get(aor)).flat_map(|a| &a.entries).map(|e| &e.binding)
    }

    /// Who lives on this flow; the first to come if it is several (a gateway).
    pub fn by_flow(&self, flow: &Flow) -> Option<&str> {
        self.flows.get(&Path::from(flow)).and_then(|who| who.first()).map(|who| &**who)
    }

    /// Whether this extension lives on this flow.
    pub fn lives_on(&self, aor: &str, flow: &Flow) -> bool {
        self.flows.get(&Path::from(flow)).is_some_and(|who| who.iter().any(|w| &**w == aor))
    }

    /// A connection is gone, or a datagram bounced. The phone is not called there until it registers again (connection), or is
    /// called there last until [`BOUNCE`] has passed (datagram); it stays registered. The bindings in question.
    pub fn flow_lost(&mut self, now: Now, flow: &Flow) -> Vec<Binding> {
        let path = Path::from(flow);
        let who = match flow.transport.reliable() {
            true => self.flows.remove(&path),
            false => self.flows.get(&path).cloned(),
        };
        let reach = if flow.transport.reliable() { Reach::Closed } else { Reach::Bounced(now.mono + BOUNCE) };
        let mut lost = Vec::new();
        for aor in who.into_iter().flatten() {
            let entries = self.aors.get_mut(&aor).map(|a| a.entries.iter_mut()).into_iter().flatten();
            for entry in entries.filter(|e| Path::from(&e.binding.flow) == path) {
                entry.reach = reach;
                lost.push(entry.binding.clone());
            }
        }
        lost
    }

    /// What is known against calling a binding, and until when that counts unless the phone registers again.
    pub fn trouble(&self, binding: &Binding, now: Now) -> Option<(Trouble, Option<Wall>)> {
        let entry = self.entries(&binding.aor).iter().find(|e| e.binding.contact == binding.contact)?;
        match entry.reach {
            Reach::Open => None,
            Reach::Bounced(until) if until <= now.mono => None,
            Reach::Bounced(until) => Some((Trouble::Bounced, Some(now.wall + (until - now.mono)))),
            Reach::Closed => Some((Trouble::Closed, None)),
        }
    }

    /// A phone on this flow answered an INVITE by anything at all, or did not. The bindings of which that is news. It is called all
    /// the same: the next INVITE may get through.
    pub fn invited(&mut self, now: Now, aor: &str, flow: &Flow, answered: bool) -> Vec<Binding> {
        let path = Path::from(flow);
        let entries = self.aors.get_mut(aor).map(|a| a.entries.iter_mut()).into_iter().flatten();
        let mut news = Vec::new();
        for entry in entries.filter(|e| (!answered || e.unanswered.is_some()) && Path::from(&e.binding.flow) == path) {
            entry.unanswered = (!answered).then_some(now.wall);
            news.push(entry.binding.clone());
        }
        news
    }

    /// When a phone last left an INVITE unanswered; none if it answered the last one.
    pub fn unanswered(&self, binding: &Binding) -> Option<Wall> {
        self.entries(&binding.aor).iter().find(|e| e.binding.twin(binding))?.unanswered
    }

    /// Takes back what the store kept over a restart. Connections did not survive it: those phones are registered, but
    /// cannot be reached until they come again. What has expired or has no extension any more is given as removed.
    pub fn restore(&mut self, now: Now, bindings: Vec<Binding>, directory: &Directory, changes: &mut Vec<Change>) {
        for mut binding in bindings {
            let left = (binding.expires_at - now.wall).min(Duration::from_secs(u64::from(MAX_EXPIRES)));
            let extension = directory.extension(&binding.aor);
            let (Some(extension), false) = (extension, left.is_zero() || self.len >= BINDINGS) else {
                changes.push(binding.gone(if extension.is_none() { Left::NoExtension } else { Left::RanOut }));
                continue;
            };
            let who = extension.number.clone();
            let reach = if binding.flow.transport.reliable() { Reach::Closed } else { Reach::Open };
            binding.flow.conn = 0;
            let mut entries = self.take(&who);
            if entries.len() >= PER_AOR || entries.iter().any(|e| e.binding.twin(&binding)) {
                self.put(who, entries);
                continue;
            }
            let entry = Entry { ends: now.mono + left, reach, unanswered: None, binding };
            place(&mut entries, entry);
            self.put(who, entries);
        }
        self.keep_twins(changes);
    }

    /// Clears away what has expired.
    pub fn tick(&mut self, now: Now, changes: &mut Vec<Change>) {
        while let Some((due, _)) = self.due.first()
            && *due <= now.mono
            && let Some((_, who)) = self.due.first().cloned()
        {
            let mut entries = self.take(&who);
            entries.retain(|e| {
                let stays = e.ends > now.mono;
                if !stays {
                    changes.push(e.binding.gone(Left::RanOut));
                }
                stays
            });
            self.put(who, entries);
        }
        self.keep_twins(changes);
    }

    /// When [`Registrar::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A new configuration: extensions that are gone take their bindings along.
    pub fn reload(&mut self, directory: &Directory, changes: &mut Vec<Change>) {
        let gone: Vec<Label> =
            self.due.iter().map(|(_, who)| who).filter(|who| directory.extension(who).is_none()).cloned().collect();
        for who in gone {
            changes.extend(self.take(&who).iter().map(|e| e.binding.gone(Left::NoExtension)));
        }
    }

    /// Bindings in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn entries(&self, aor: &str) -> &[Entry] {
        self.aors.get(aor).map_or(&[], |a| &a.entries)
    }

    fn apply(
        &mut self,
        now: Now,
        flow: Flow,
        msg: &Message,
        who: &Label,
        directory: &Directory,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        addressed_to_us(msg, who, directory)?;
        let asked = Asked::read(msg)?;
        if matches!(asked, Asked::List) {
            return Ok(());
        }
        let path = read_path(msg)?;

        // Everything happens to a copy, so that a refusal halfway leaves nothing behind.
        let mut entries = self.entries(who).to_vec();
        entries.retain(|e| {
            let stays = e.ends > now.mono;
            if !stays {
                changes.push(e.binding.gone(Left::RanOut));
            }
            stays
        });
        let cseq = msg.cseq().seq;
        let in_order = |b: &Binding| b.call_id != msg.call_id() || b.cseq < cseq;
        let late = || Refusal::new(500, "CSeq Out Of Order");
        match asked {
            Asked::List => {}
            Asked::Nothing => {
                if !entries.iter().all(|e| in_order(&e.binding)) {
                    return Err(late());
                }
                changes.extend(entries.drain(..).map(|e| e.binding.gone(Left::SignedOff)));
            }
            Asked::Contacts(wanted) => {
                let agent = msg.text(Name::UserAgent).map(|a| shorten(a, USER_AGENT_LEN));
                let mut fresh: SmallVec<[String; 4]> = SmallVec::new();
                for want in wanted {
                    let at = want.position(&entries, &fresh);
                    if let Some(at) = at
                        && !in_order(&entries[at].binding)
                        && !fresh.iter().any(|c| *c == entries[at].binding.contact)
                    {
                        return Err(late());
                    }
                    let old = at.map(|at| entries.remove(at));
                    if want.expires == 0 {
                        changes.extend(old.map(|e| e.binding.gone(Left::SignedOff)));
                        continue;
                    }
                    if entries.len() >= PER_AOR {
                        // Where nobody can be reached any more, nobody is missed.
                        let Some(dead) = entries.iter().position(|e| !e.open(now.mono)) else {
                            return Err(Refusal::new(403, "Too Many Contacts"));
                        };
                        changes.push(entries.remove(dead).binding.gone(Left::MadeRoom));
                    }
                    let lasting = Duration::from_secs(u64::from(want.expires));
                    let binding = Binding {
                        aor: who.to_string(),
                        contact: want.uri.to_owned(),
                        instance: want.instance,
                        path: path.clone(),
                        flow,
                        call_id: msg.call_id().to_owned(),
                        cseq,
                        q: want.q,
                        user_agent: agent.clone(),
                        // What is written down is written in milliseconds.
                        expires_at: Wall::from_micros((now.wall + lasting).micros() / 1000 * 1000),
                    };
                    // That it comes again does not prove that it hears us.
                    let unanswered = old.as_ref().and_then(|old| old.unanswered);
                    match old {
                        Some(old) if old.binding.twin(&binding) => {
                            changes.push(Change::Refreshed(binding.clone()));
                        }
                        Some(old) => {
                            changes.extend([old.binding.gone(Left::Replaced), Change::Added(binding.clone())]);
                        }
                        None => changes.push(Change::Added(binding.clone())),
                    }
                    fresh.push(binding.contact.clone());
                    place(&mut entries, Entry { binding, ends: now.mono + lasting, reach: Reach::Open, unanswered });
                }
            }
        }
        if self.len - self.entries(who).len() + entries.len() > BINDINGS {
            return Err(Refusal::status(503).with(Name::RetryAfter, RETRY_AFTER.to_string()));
        }
        self.take(who);
        self.put(who.clone(), entries);
        self.keep_twins(changes);
        Ok(())
    }

    /// The store and the readers know a binding by its contact; when one of two with the same contact goes, the other is told again.
    fn keep_twins(&self, changes: &mut Vec<Change>) {
        for at in 0..changes.len() {
            let Change::Removed { binding, .. } = &changes[at] else { continue };
            let (aor, contact) = (&binding.aor, &binding.contact);
            let told = |twin: &Binding| {
                let of = |c: &Change| matches!(c, Change::Added(b) | Change::Refreshed(b) if b.aor == twin.aor && b.twin(twin));
                changes[at..].iter().any(of)
            };
            let same = self.entries(aor).iter().map(|e| &e.binding).filter(|b| b.contact == *contact && !told(b));
            let again: SmallVec<[Change; 1]> = same.map(|b| Change::Refreshed(b.clone())).collect();
            changes.extend(again);
        }
    }

    fn take(&mut self, who: &Label) -> Vec<Entry> {
        let Some(aor) = self.aors.remove(who) else { return Vec::new() };
        self.due.remove(&(aor.due, who.clone()));
        self.len -= aor.entries.len();
        for entry in &aor.entries {
            let path = Path::from(&entry.binding.flow);
            if let Some(list) = self.flows.get_mut(&path) {
                list.retain(|w| w != who);
                if list.is_empty() {
                    self.flows.remove(&path);
                }
            }
            let office = auth::network(entry.binding.flow.remote.ip());
            if let Some(bindings) = self.offices.get_mut(&office) {
                *bindings -= 1;
                if *bindings == 0 {
                    self.offices.remove(&office);
                }
            }
        }
        aor.entries
    }

    fn put(&mut self, who: Label, entries: Vec<Entry>) {
        let Some(ends) = entries.iter().map(|e| e.ends).min() else { return };
        for entry in entries.iter().filter(|e| e.reach != Reach::Closed) {
            let list = self.flows.entry(Path::from(&entry.binding.flow)).or_default();
            if !list.contains(&who) {
                list.push(who.clone());
            }
        }
        for entry in &entries {
            *self.offices.entry(auth::network(entry.binding.flow.remote.ip())).or_default() += 1;
        }
        let due = ends.round_up(GRID);
        self.len += entries.len();
        self.due.insert((due, who.clone()));
        self.aors.insert(who, Aor { entries, due });
    }

    fn listing(&self, now: Now, flow: Flow, msg: &Message, who: &str, tag: &str) -> Bytes {
        let mut w = Writer::answer(msg, flow.remote, 200, "OK", Some(tag));
        for entry in self.entries(who).iter().filter(|e| e.ends > now.mono) {
            let b = &entry.binding;
            let left = (entry.ends - now.mono).as_micros().div_ceil(1_000_000);
            let q = format_args!(";q={}.{:03}", b.q / 1000, b.q % 1000);
            let instance =
                b.instance.as_deref().map(|i| i.rsplit_once(REG_ID).map_or((i, None), |(i, n)| (i, Some(n))));
            match instance {
                None => w.fmt(Name::Contact, format_args!("<{}>;expires={left}{q}", b.contact)),
                Some((i, None)) => {
                    w.fmt(Name::Contact, format_args!("<{}>;expires={left}{q};+sip.instance=\"{i}\"", b.contact))
                }
                Some((i, Some(n))) => w.fmt(
                    Name::Contact,
                    format_args!("<{}>;expires={left}{q};+sip.instance=\"{i}\";reg-id={n}", b.contact),
                ),
            };
        }
        w.copy(msg, Name::Path);
        w.fmt(Name::Date, format_args!("{}", now.wall.timestamp().strftime("%a, %d %b %Y %H:%M:%S GMT")));
        w.finish()
    }

    fn tag(&mut self) -> String {
        format!("{:016x}{:08x}", self.rng.bits(), self.rng.bits32())
    }
}

impl Binding {
    fn gone(&self, left: Left) -> Change {
        Change::Removed { binding: Box::new(self.clone()), left }
    }

    /// The same phone at the same place.
    fn twin(&self, other: &Binding) -> bool {
        self.contact == other.contact && self.instance == other.instance
    }
}

impl Entry {
    /// Whether there is a way to it, sure or not.
    fn callable(&self, now: Instant) -> bool {
        self.ends > now && self.reach != Reach::Closed
    }

    /// Whether it is believed to be there.
    fn open(&self, now: Instant) -> bool {
        self.ends > now
            && match self.reach {
                Reach::Open => true,
                Reach::Bounced(until) => until <= now,
                Reach::Closed => false,
            }
    }
}

/// What a REGISTER asks.
enum Asked<'a> {
    /// Without Contact: what is there?
    List,
    /// `Contact: *` with `Expires: 0`: away with all.
    Nothing,
    /// These.
    Contacts(Vec<Wanted<'a>>),
}

struct Wanted<'a> {
    uri: &'a str,
    parsed: Uri<'a>,
    instance: Option<String>,
    /// Seconds; 0: away with it.
    expires: u32,
    q: u16,
}

impl<'a> Asked<'a> {
    fn read(msg: &'a Message) -> Result<Asked<'a>, Refusal> {
        let header = msg.text(Name::Expires);
        let mut wanted = Vec::new();
        let mut values = msg.values(Name::Contact).peekable();
        if values.peek().is_none() {
            return match msg.header(Name::Contact) {
                None => Ok(Asked::List),
                Some(_) => Err(Refusal::new(400, "Bad Contact")),
            };
        }
        for (i, contact) in msg.addresses(Name::Contact).enumerate() {
            if values.next().is_some_and(|v| v == "*") {
                let alone = i == 0 && values.peek().is_none() && header == Some("0");
                return if alone { Ok(Asked::Nothing) } else { Err(Refusal::new(400, "Bad Contact: *")) };
            }
            if i >= PER_AOR {
                return Err(Refusal::new(403, "Too Many Contacts"));
            }
            let contact = contact.map_err(|_| Refusal::new(400, "Bad Contact"))?;
            // Nobody can be called at a mailto:.
            if !contact.uri.is_sip() {
                continue;
            }
            let uri = match contact.uri.headers {
                Some(headers) => &contact.uri.raw[..contact.uri.raw.len() - headers.len() - 1],
                None => contact.uri.raw,
            };
            if uri.len() > URI_LEN {
                return Err(Refusal::new(400, "Contact Too Long"));
            }
            let expires = contact.params.get("expires").or(header).map_or(DEFAULT_EXPIRES, seconds).min(MAX_EXPIRES);
            if expires > 0 && expires < MIN_EXPIRES {
                return Err(Refusal::status(423).with(Name::MinExpires, MIN_EXPIRES.to_string()));
            }
            let instance = contact.params.get("+sip.instance").filter(|i| !i.is_empty() && i.len() <= INSTANCE_LEN);
            let reg_id = contact.params.get("reg-id").and_then(|n| n.parse::<u32>().ok());
            let instance = instance.map(|i| match reg_id {
                Some(n) => format!("{i}{REG_ID}{n}"),
                None => i.to_owned(),
            });
            let q = contact.params.get("q").and_then(thousandths).unwrap_or(1000);
            wanted.push(Wanted { uri, parsed: contact.uri, instance, expires, q });
        }
        Ok(Asked::Contacts(wanted))
    }
}

/// How the `reg-id` is joined to the instance in [`Binding::instance`].
const REG_ID: &str = ";reg-id=";

impl Wanted<'_> {
    /// The binding that this contact is: the same instance, else the same URI unless two different instances say otherwise.
    /// What this REGISTER itself has just bound (`fresh`) is replaced only by the same URI.
    fn position(&self, entries: &[Entry], fresh: &[String]) -> Option<usize> {
        let same_uri = |e: &Entry| Uri::parse(&e.binding.contact).is_ok_and(|uri| contact::same(&uri, &self.parsed));
        let same_phone = |e: &Entry| self.instance.is_some() && e.binding.instance == self.instance;
        let strangers = |e: &Entry| self.instance.is_some() && e.binding.instance.is_some() && !same_phone(e);
        let find = |is: &dyn Fn(&Entry) -> bool| entries.iter().position(is);
        find(&|e| e.binding.instance == self.instance && same_uri(e))
            .or_else(|| find(&|e| same_phone(e) && !fresh.contains(&e.binding.contact)))
            .or_else(|| find(&|e| !strangers(e) && same_uri(e)))
    }
}

fn lives(aors: &Map<Label, Aor>, now: Instant, aor: &str, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    aors.get(aor)
        .is_some_and(|a| a.entries.iter().any(|e| e.ends > now && e.binding.flow.remote.ip().to_canonical() == ip))
}

/// Puts an entry where its q belongs, before its equals.
fn place(entries: &mut Vec<Entry>, entry: Entry) {
    let at = entries.iter().position(|e| e.binding.q <= entry.binding.q).unwrap_or(entries.len());
    entries.insert(at, entry);
}

fn addressed_to_us(msg: &Message, who: &str, directory: &Directory) -> Result<(), Refusal> {
    let to = msg.to();
    if !to.uri.is_sip() {
        return Err(Refusal::new(400, "Address of Record Is No SIP URI"));
    }
    if !contact::ours(directory, to.uri.host) || !msg.uri().is_ok_and(|uri| contact::ours(directory, uri.host)) {
        return Err(Refusal::status(404));
    }
    if to.uri.user_decoded() != who {
        return Err(Refusal::new(403, "Third-Party Registration"));
    }
    Ok(())
}

/// Path (RFC 3327 section 5.3): a phone that does not know of it must not be put behind it.
fn read_path(msg: &Message) -> Result<Vec<String>, Refusal> {
    if !msg.has(Name::Path) {
        return Ok(Vec::new());
    }
    if !msg.lists(Name::Supported, "path") && !msg.lists(Name::Require, "path") {
        return Err(Refusal::status(420).with(Name::Unsupported, "path"));
    }
    let hops: Vec<String> = msg.values(Name::Path).take(PATH + 1).map(str::to_owned).collect();
    let bad = hops.len() > PATH || hops.iter().any(|h| h.len() > URI_LEN);
    let bad = bad || !msg.addresses(Name::Path).take(PATH).all(|hop| hop.is_ok_and(|hop| hop.uri.is_sip()));
    if bad { Err(Refusal::new(400, "Bad Path")) } else { Ok(hops) }
}

/// An expiry; what is none counts as 3600 (RFC 3261 10.2.1.1).
fn seconds(text: &str) -> u32 {
    let text = text.trim();
    match text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        true => DEFAULT_EXPIRES,
        false => text.parse().unwrap_or(u32::MAX),
    }
}

/// A q value (RFC 3261 section 25.1), times 1000.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    let part = format!("{part:0<3}").parse::<u16>().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

fn shorten(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
