//! What the operator configured: trunks, numbers, extensions, queues, routes; and what was imported: contacts. Immutable; a
//! reload or an import makes a new one and swaps it whole. `io::config` builds it from TOML, `io::import` from CSV; nothing
//! here reads files or knows of calls in progress.

pub mod calendar;
pub mod contacts;
pub mod country;
pub mod gate;
mod hook;
pub mod number;
pub mod numbering;
mod page;
pub mod reading;
pub mod region;
mod route;
pub mod spelling;
pub mod vendor;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::base::{Map, map};
use crate::sip::digest::Algorithm;
use crate::sip::transport::Transport;
pub use calendar::Calendar;
pub use contacts::{Contact, Contacts};
pub use country::Country;
use gate::{Candidate, Gate};
pub use hook::{Hook, Shape};
pub use number::{E164, Prefix};
pub use numbering::{Numbering, Place};
pub use page::{Member, Page, People};
pub use reading::{Dialect, Reading};
pub use region::{District, Region};
pub use route::{Branch, CallerPattern, Dealer, Duty, Route, Step, Target, Turn, When};

/// The name of something the operator named: a trunk, a queue, a route. Cheap to keep and to copy.
pub type Label = Arc<str>;

/// The whole configuration as the core needs it.
#[derive(Clone, Debug)]
pub struct Directory {
    /// This node.
    pub node: Node,
    /// Where we listen, in file order.
    pub listen: Vec<Listen>,
    /// Media policy.
    pub media: MediaPolicy,
    /// Recording of calls that nothing else decides.
    pub recording: Recording,
    /// An unanswered caller who rang for less than this was "short".
    pub short_ring: Duration,
    /// Which number of ours is shown on outgoing calls.
    pub caller_id: CallerId,
    /// Carriers, in file order.
    pub trunks: Vec<Trunk>,
    /// Numbers of ours, in file order.
    pub numbers: Vec<Number>,
    /// Phones and people, in file order.
    pub extensions: Vec<Extension>,
    /// Queues, in file order.
    pub queues: Vec<Queue>,
    /// Opening hours, in file order.
    pub calendars: Vec<Calendar>,
    /// Offices, in file order.
    pub branches: Vec<Branch>,
    /// Partners who take calls, in file order.
    pub dealers: Vec<Dealer>,
    /// Duty rosters, in file order.
    pub duties: Vec<Duty>,
    /// Announcements, in file order.
    pub pages: Vec<Page>,
    /// Routing hooks, in file order.
    pub hooks: Vec<Arc<Hook>>,
    /// Routes, in file order.
    pub routes: Vec<Route>,
    /// Which number belongs to which region; the built-in plan unless something better is loaded.
    pub numbering: Arc<Numbering>,
    /// Production calendars that were imported; calendars that follow one have them too.
    pub years: Arc<[calendar::Year]>,
    /// What phones dial.
    pub dial: Dial,
    /// Customers, as they were imported. Not the configuration's: a reload keeps them.
    pub contacts: Arc<Contacts>,
    /// What the file names and this version does not do yet, a line each; printed once at start-up.
    pub not_yet: Vec<String>,
    index: Index,
}

#[derive(Clone, Debug)]
struct Index {
    extension: Map<Label, usize>,
    number: Map<E164, usize>,
    trunk: Map<Label, usize>,
    queue: Map<Label, usize>,
    /// Routes that a call for this number may take, as far as `number` and `campaign` say.
    lines: Map<E164, Box<[Candidate]>>,
    /// Routes for whatever is called.
    any_line: Box<[Candidate]>,
    /// What the trail calls each route.
    rules: Box<[Label]>,
}

impl Index {
    fn empty() -> Index {
        Index {
            extension: map(),
            number: map(),
            trunk: map(),
            queue: map(),
            lines: map(),
            any_line: Box::default(),
            rules: Box::default(),
        }
    }
}

impl Directory {
    /// A directory with nothing in it but the node.
    pub fn empty(node: Node) -> Directory {
        Directory {
            node,
            listen: Vec::new(),
            media: MediaPolicy { relay: Relay::Always, timeout: Duration::from_secs(60) },
            recording: Recording::None,
            short_ring: Duration::from_secs(8),
            caller_id: CallerId::default(),
            trunks: Vec::new(),
            numbers: Vec::new(),
            extensions: Vec::new(),
            queues: Vec::new(),
            calendars: Vec::new(),
            branches: Vec::new(),
            dealers: Vec::new(),
            duties: Vec::new(),
            pages: Vec::new(),
            hooks: Vec::new(),
            routes: Vec::new(),
            numbering: Numbering::built_in(),
            years: Arc::default(),
            dial: Dial::default(),
            contacts: Arc::default(),
            not_yet: Vec::new(),
            index: Index::empty(),
        }
    }

    /// Completes a directory: builds the indexes over its lists. To be called after any change of a list.
    pub fn indexed(mut self) -> Directory {
        let mut index = Index::empty();
        index.extension.extend(self.extensions.iter().enumerate().map(|(i, e)| (e.number.clone(), i)));
        index.number.extend(self.numbers.iter().enumerate().map(|(i, n)| (n.e164, i)));
        index.trunk.extend(self.trunks.iter().enumerate().map(|(i, t)| (t.name.clone(), i)));
        index.queue.extend(self.queues.iter().enumerate().map(|(i, q)| (q.name.clone(), i)));
        let gate = |when| Gate::of(when, &self.calendars);
        let routes = |is: &dyn Fn(&When) -> bool| {
            let whens = self.routes.iter().map(|r| &r.when).enumerate().filter(|(_, when)| is(when));
            whens.map(|(i, when)| Candidate { route: i as u32, gate: gate(when) }).collect()
        };
        for number in &self.numbers {
            let ran = |when: &When| number.campaign.as_ref().is_some_and(|c| when.campaign.contains(c));
            let is = |when: &When| {
                (when.number.is_empty() || when.number.contains(&number.e164))
                    && (when.campaign.is_empty() || ran(when))
            };
            index.lines.entry(number.e164).or_insert_with(|| routes(&is));
        }
        index.any_line = routes(&|when| when.number.is_empty() && when.campaign.is_empty());
        index.rules = self.routes.iter().map(|r| ["route \"", &r.name, "\""].concat().into()).collect();
        self.index = index;
        self
    }

    /// The routes that a call for this number may take, in file order, as far as the number and its campaign decide: the gate of each,
    /// and its place for [`Directory::route`].
    pub fn routes_for(&self, called: E164) -> impl ExactSizeIterator<Item = (Gate, usize)> {
        let line = self.index.lines.get(&called).unwrap_or(&self.index.any_line);
        line.iter().map(|candidate| (candidate.gate, candidate.route as usize))
    }

    /// The route in this place of the list, and what the trail calls it.
    pub fn route(&self, place: usize) -> (&Route, &Label) {
        (&self.routes[place], &self.index.rules[place])
    }

    /// The extension with this number.
    pub fn extension(&self, number: &str) -> Option<&Extension> {
        self.index.extension.get(number).map(|&i| &self.extensions[i])
    }

    /// The number of ours.
    pub fn number(&self, e164: E164) -> Option<&Number> {
        self.index.number.get(&e164).map(|&i| &self.numbers[i])
    }

    /// The trunk with this name.
    pub fn trunk(&self, name: &str) -> Option<&Trunk> {
        self.index.trunk.get(name).map(|&i| &self.trunks[i])
    }

    /// The queue with this name.
    pub fn queue(&self, name: &str) -> Option<&Queue> {
        self.index.queue.get(name).map(|&i| &self.queues[i])
    }

    /// The calendar with this name.
    pub fn calendar(&self, name: &str) -> Option<&Calendar> {
        self.calendars.iter().find(|c| &*c.name == name)
    }

    /// Calendars that lack a production calendar although it is time for one, a line each.
    pub fn missing_years(&self, today: Date) -> Vec<String> {
        let lacks = |c: &Calendar| {
            Some(format!("calendar \"{}\" has no production calendar for {}", c.name, c.missing(today)?))
        };
        self.calendars.iter().filter_map(lacks).collect()
    }

    /// The branch with this name.
    pub fn branch(&self, name: &str) -> Option<&Branch> {
        self.branches.iter().find(|b| &*b.name == name)
    }

    /// The hours of a branch; none: it is always open.
    pub fn hours(&self, branch: &Branch) -> Option<&Calendar> {
        branch.calendar.as_deref().and_then(|name| self.calendar(name))
    }

    /// The dealer with this name.
    pub fn dealer(&self, name: &str) -> Option<&Dealer> {
        self.dealers.iter().find(|d| &*d.name == name)
    }

    /// The page with this number.
    pub fn page(&self, number: &str) -> Option<&Page> {
        self.pages.iter().find(|p| &*p.number == number)
    }

    /// The hook with this name.
    pub fn hook(&self, name: &str) -> Option<&Arc<Hook>> {
        self.hooks.iter().find(|h| &*h.name == name)
    }

    /// The duty roster with this name.
    pub fn duty(&self, name: &str) -> Option<&Duty> {
        self.duties.iter().find(|d| &*d.name == name)
    }

    /// Whether any call may be recorded from its answer on.
    pub fn records(&self) -> bool {
        let turns = self.duties.iter().flat_map(|d| d.roster.iter().flat_map(|turn| &turn.to));
        let steps = (self.routes.iter().flat_map(|r| &r.to))
            .chain(self.queues.iter().flat_map(|q| &q.overflow))
            .chain(self.branches.iter().flat_map(|b| &b.to))
            .chain(self.dealers.iter().flat_map(|d| &d.to))
            .chain(self.duties.iter().flat_map(|d| &d.otherwise))
            .chain(turns);
        let mut said = (self.extensions.iter().map(|e| e.record))
            .chain(self.queues.iter().map(|q| q.record))
            .chain(self.routes.iter().map(|r| r.record))
            .chain(steps.map(|step| step.record));
        let any = self.recording == Recording::All || said.any(|record| record == Some(Recording::All));
        any && self.media.relay == Relay::Always
    }

    /// The members of a group, in file order; only those in `branch` if it is named. Loudspeaker phones are in no group that
    /// answers calls.
    pub fn members<'a>(&'a self, group: &'a str, branch: Option<&'a str>) -> impl Iterator<Item = &'a Extension> {
        self.extensions.iter().filter(move |e| !e.paging && e.is_in(group, branch))
    }
}

/// `[node]`.
#[derive(Clone, Debug)]
pub struct Node {
    /// Our name, e.g. `ekb-1`.
    pub name: Label,
    /// Domains that are ours; the first is the digest realm. The IP hosts of `listen` are ours besides.
    pub domains: Vec<Label>,
    /// Challenges, in this order.
    pub digest: Vec<Algorithm>,
    /// Country whose national numbering plan applies.
    pub country: Option<Country>,
    /// Its zone.
    pub zone: TimeZone,
}

impl Node {
    /// A node with this name and digest realm, which challenges with MD5 and SHA-256 in UTC and knows no national numbers.
    pub fn new(name: &str, domain: &str) -> Node {
        Node {
            name: name.into(),
            domains: vec![domain.into()],
            digest: vec![Algorithm::Md5, Algorithm::Sha256],
            country: None,
            zone: TimeZone::UTC,
        }
    }
}

/// `[[listen]]`.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Transport.
    pub transport: Transport,
    /// Socket address to bind.
    pub bind: SocketAddr,
    /// Address for Via, Contact and SDP, when behind NAT.
    pub advertise: Option<IpAddr>,
}

/// `[media]` as far as the core decides by it.
#[derive(Clone, Copy, Debug)]
pub struct MediaPolicy {
    /// Whether media passes through us.
    pub relay: Relay,
    /// Silence of a leg that ought to send, which ends the call; zero: never.
    pub timeout: Duration,
}

/// `[media] relay`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relay {
    /// Every stream through our ports.
    Always,
    /// SDP passes untouched.
    Never,
}

/// `[recording] mode` and `record = …`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recording {
    /// Every call, from the answer.
    All,
    /// Only when somebody asks.
    OnDemand,
    /// Nothing.
    None,
}

/// `[[trunk]]`.
#[derive(Clone, Debug)]
pub struct Trunk {
    /// Name.
    pub name: Label,
    /// SIP URIs, tried in order: `sip:host[:port][;transport=tcp]`.
    pub uris: Vec<Label>,
    /// Sources of its calls.
    pub allow_from: Vec<Cidr>,
    /// Digest user, for outgoing calls and REGISTER.
    pub username: Option<Label>,
    /// Digest password.
    pub password: Option<Secret>,
    /// Whether we register there.
    pub register: bool,
    /// Calls at once; 0: no limit.
    pub max_calls: u32,
    /// How numbers are written towards it.
    pub number_format: NumberFormat,
    /// Where the shown number stands.
    pub caller_id: CallerIdForm,
    /// Whether P-Asserted-Identity of its calls is believed.
    pub trust_identity: bool,
    /// Header in which it puts the number called, besides the request-URI and To.
    pub did_header: Option<Label>,
    /// Whether numbers of other trunks may be shown on it.
    pub foreign_numbers: bool,
}

impl Trunk {
    /// How numbers are read that it sends.
    pub fn dialect(&self, country: Option<Country>) -> Dialect {
        Dialect { country, format: self.number_format }
    }

    /// A trunk with one URI and the defaults of the configuration: no password, no limit, numbers in E.164, the caller in From.
    pub fn new(name: &str, uri: &str) -> Trunk {
        Trunk {
            name: name.into(),
            uris: vec![uri.into()],
            allow_from: Vec::new(),
            username: None,
            password: None,
            register: false,
            max_calls: 0,
            number_format: NumberFormat::E164,
            caller_id: CallerIdForm::From,
            trust_identity: true,
            did_header: None,
            foreign_numbers: false,
        }
    }
}

/// A password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Label);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// `number_format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumberFormat {
    /// `+79131234567`.
    E164,
    /// `79131234567`.
    International,
    /// `89131234567` (numbers of other countries: `810…` in Russia).
    National,
}

/// `[caller_id]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallerId {
    /// Rules, the first that gives a number whose trunk takes the call decides.
    pub order: Vec<CallerIdRule>,
    /// For how long a customer is shown the number that they called, or were shown, last.
    pub sticky: Duration,
    /// What the rule `default` gives.
    pub default: Option<E164>,
}

impl Default for CallerId {
    /// Every rule, 90 days, no default number.
    fn default() -> CallerId {
        CallerId { order: CallerIdRule::ALL.to_vec(), sticky: Duration::from_secs(90 * 86_400), default: None }
    }
}

/// A rule of `[caller_id] order`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallerIdRule {
    /// The number that this customer last called or was last shown.
    Sticky,
    /// A number of the same city.
    City,
    /// A number of the same ISO region.
    Region,
    /// A number of the same federal district.
    District,
    /// The number of the branch of the one who calls.
    Branch,
    /// The default number.
    Default,
}

impl CallerIdRule {
    /// All of them, in the order that is taken where the configuration names none.
    pub const ALL: [CallerIdRule; 6] = [
        CallerIdRule::Sticky,
        CallerIdRule::City,
        CallerIdRule::Region,
        CallerIdRule::District,
        CallerIdRule::Branch,
        CallerIdRule::Default,
    ];

    /// As it stands in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            CallerIdRule::Sticky => "sticky",
            CallerIdRule::City => "city",
            CallerIdRule::Region => "region",
            CallerIdRule::District => "district",
            CallerIdRule::Branch => "branch",
            CallerIdRule::Default => "default",
        }
    }
}

/// `caller_id` of a trunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallerIdForm {
    /// In From.
    From,
    /// In P-Asserted-Identity (RFC 3325) and From.
    PAssertedIdentity,
    /// In Remote-Party-ID and From.
    RemotePartyId,
}

/// A block of addresses. IPv4 addresses mapped into IPv6 count as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// Any address of the block.
    pub address: IpAddr,
    /// Leading bits that decide.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `ip` lies in the block.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let bits = u32::from(self.prefix.min(32));
                bits == 0 || (u32::from(a) ^ u32::from(b)) >> (32 - bits) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let bits = u32::from(self.prefix.min(128));
                bits == 0 || (u128::from(a) ^ u128::from(b)) >> (128 - bits) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// `[[number]]`: a number of ours.
#[derive(Clone, Debug)]
pub struct Number {
    /// The number.
    pub e164: E164,
    /// The trunk that owns it.
    pub trunk: Label,
    /// ISO 3166-2 region.
    pub region: Option<Region>,
    /// Branch.
    pub branch: Option<Label>,
    /// Shown to people.
    pub label: Option<Label>,
    /// Campaign, for records.
    pub campaign: Option<Label>,
    /// Channel, for records.
    pub channel: Option<Label>,
    /// Brand flag, for records.
    pub brand: bool,
    /// Whether it may be shown as caller ID.
    pub show: bool,
}

impl Number {
    /// A number that a trunk owns, with the defaults of the configuration: it may be shown.
    pub fn new(e164: E164, trunk: &str) -> Number {
        Number {
            e164,
            trunk: trunk.into(),
            region: None,
            branch: None,
            label: None,
            campaign: None,
            channel: None,
            brand: false,
            show: true,
        }
    }
}

/// `[[extension]]`.
#[derive(Clone, Debug)]
pub struct Extension {
    /// What is dialled to reach it; its SIP user and address of record.
    pub number: Label,
    /// Person or place.
    pub name: Label,
    /// SIP password.
    pub password: Secret,
    /// Branch.
    pub branch: Option<Label>,
    /// Groups.
    pub groups: Vec<Label>,
    /// What it may dial.
    pub outbound: Class,
    /// Calls at once; a queue or group rings it only when it is free.
    pub max_calls: u32,
    /// A loudspeaker phone: never in a queue, never forwarded.
    pub paging: bool,
    /// Whether its calls are recorded, if it says so.
    pub record: Option<Recording>,
    /// A mobile phone that rings with it.
    pub mobile: Option<Mobile>,
    /// Its make, if it is not to be known by its User-Agent: a name of [`vendor::MAKES`].
    pub vendor: Option<Label>,
    /// Who may have it answer by itself; none: its own groups.
    pub intercom_from: Option<Vec<People>>,
}

/// `mobile` of an extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mobile {
    /// Its number.
    pub number: E164,
    /// It rings so much later than the desk phone.
    pub after: Duration,
    /// Whoever answers has to confirm, so that its voicemail never takes a call.
    pub confirm: bool,
}

impl Extension {
    /// An extension with the defaults of the configuration: national calls, two at once.
    pub fn new(number: &str, name: &str, password: &str) -> Extension {
        Extension {
            number: number.into(),
            name: name.into(),
            password: Secret(password.into()),
            branch: None,
            groups: Vec::new(),
            outbound: Class::National,
            max_calls: 2,
            paging: false,
            record: None,
            mobile: None,
            vendor: None,
            intercom_from: None,
        }
    }
}

/// `outbound`: class of service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Extensions only.
    Internal,
    /// Numbers with the area code of a number of the own branch.
    Local,
    /// The own country.
    National,
    /// Anywhere.
    International,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Internal => "internal",
            Class::Local => "local",
            Class::National => "national",
            Class::International => "international",
        })
    }
}

/// `[[queue]]`.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Name; also a SIP user.
    pub name: Label,
    /// A number that reaches it.
    pub number: Option<Label>,
    /// Agents in order, resolved from `agents`: extensions' numbers, and outside numbers in E.164 (these begin with `+`).
    pub agents: Vec<Label>,
    /// Whom it rings first.
    pub strategy: Strategy,
    /// How long a round rings.
    pub ring: Duration,
    /// How long an agent rests after a call of the queue.
    pub wrap_up: Duration,
    /// How long a caller waits before the overflow; none: everybody who is free is rung once.
    pub wait: Option<Duration>,
    /// Where callers go then.
    pub overflow: Vec<Step>,
    /// Whether its calls are recorded, if it says so.
    pub record: Option<Recording>,
    /// Shown before the caller's name.
    pub label: Option<Label>,
    /// What callers hear while they wait; else ringback.
    pub music: Option<Label>,
    /// Whether phones that lost are told that the call was answered elsewhere, so that they note no missed call.
    pub elsewhere: bool,
}

impl Queue {
    /// A queue with the defaults of the configuration: it rings all for 20 s, once.
    pub fn new(name: &str, agents: Vec<Label>) -> Queue {
        Queue {
            name: name.into(),
            number: None,
            agents,
            strategy: Strategy::RingAll,
            ring: Duration::from_secs(20),
            wrap_up: Duration::ZERO,
            wait: None,
            overflow: Vec::new(),
            record: None,
            label: None,
            music: None,
            elsewhere: true,
        }
    }
}

/// `strategy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// Everybody at once.
    RingAll,
    /// The first in order who is free.
    FirstFree,
    /// Who has been idle longest.
    LongestIdle,
    /// In turn.
    RoundRobin,
}

/// `[dial]`.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Patterns of outside numbers: digits, `+`, `X` for any digit, a final `.` for one or more.
    pub outside: Vec<Label>,
    /// Numbers that no call goes out to, whoever wants it: a phone, a forward, a step, a hook. Emergency numbers are no E.164
    /// numbers, and never among them.
    pub forbidden: Vec<Prefix>,
    /// Emergency numbers.
    pub emergency: Vec<Label>,
    /// Before an extension: its phone answers by itself.
    pub intercom: Option<Label>,
    /// Codes that this version does not know yet (`*72`, …).
    pub codes: Vec<Label>,
}

/// What is forbidden where the configuration names nothing: televoting and paid services of Russia (8-803, 8-809), Inmarsat,
/// satellite phones, international networks, and what pays the one who is called: +888, +979, 900 of North America, 09 of Britain.
pub const FORBIDDEN: [&str; 10] = ["+7803", "+7809", "+870", "+881", "+882", "+883", "+888", "+979", "+1900", "+449"];

impl Default for Dial {
    /// Nothing can be dialled outside, and nothing leads to [`FORBIDDEN`] numbers.
    fn default() -> Dial {
        Dial {
            outside: Vec::new(),
            forbidden: FORBIDDEN.iter().filter_map(|text| text.parse().ok()).collect(),
            emergency: Vec::new(),
            intercom: None,
            codes: Vec::new(),
        }
    }
}

impl Dial {
    /// Why no call may go to this number, if none may.
    pub fn forbids(&self, number: E164) -> Option<String> {
        let prefix = self.forbidden.iter().find(|prefix| prefix.begins(number))?;
        Some(format!("{number} is forbidden ({prefix} in dial.forbidden)"))
    }
}
