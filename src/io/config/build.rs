//! A tree without errors to what the program works with. Whatever is valid and not in force is listed on the way.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::calendar::{self, Years};
use super::dom::{self, Node, Value};
use super::problem::Place;
use super::schema::{self, Named, Need, Section};
use super::secret::Secrets;
use super::target::Parsed;
use super::{Config, Files, Http, MediaPorts, value};
use crate::base::Wall;
use crate::directory::calendar::{Calendar, Hours};
use crate::directory::{
    Branch, CallerId, CallerIdForm, CallerIdRule, Class, Country, Dealer, Dial, Directory, Duty, E164, Extension, Hook,
    Label, Listen, MediaPolicy, Member, Mobile, Node as ThisNode, Number, NumberFormat, Page, People, Queue, Recording,
    Region, Relay, Route, Secret, Shape, Step, Strategy, Target, Trunk, Turn, When,
};
use crate::sip::digest::Algorithm;
use crate::sip::transport::Transport;

/// A table held against its section, so that an absent key gives its default.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    node: Option<&'a Node>,
    section: &'static Section,
}

impl<'a> View<'a> {
    /// The table `name` of the file, there or not.
    pub fn of(root: &'a Node, name: &str) -> View<'a> {
        View { node: root.get(name), section: section(name) }
    }

    /// The tables `[[name]]` of the file.
    pub fn all(root: &'a Node, name: &str) -> Vec<View<'a>> {
        let items = root.get(name).map(Node::items).unwrap_or_default();
        items.iter().map(|item| View { node: Some(item), section: section(name) }).collect()
    }

    /// What stands there, without defaults.
    pub fn own(&self, key: &str) -> Option<&'a Node> {
        self.node?.get(key)
    }

    /// What stands there or is the default.
    pub fn node(&self, key: &str) -> Option<Cow<'a, Node>> {
        if let Some(node) = self.own(key) {
            return Some(Cow::Borrowed(node));
        }
        let Need::Default(literal) = self.section.keys.iter().find(|k| k.name == key)?.need else { return None };
        let root = dom::read(0, &format!("value = {literal}"), &mut Vec::new(), &mut Vec::new());
        root.get("value").cloned().map(Cow::Owned)
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<Label> {
        self.node(key)?.text().map(Label::from)
    }

    /// A list of texts, or one.
    pub fn texts(&self, key: &str) -> Vec<Label> {
        let Some(node) = self.node(key) else { return Vec::new() };
        node.items().iter().filter_map(Node::text).map(Label::from).collect()
    }

    /// A duration.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        value::duration(self.node(key)?.text()?).ok()
    }

    /// A boolean; false if there is none.
    pub fn bool(&self, key: &str) -> bool {
        self.node(key).is_some_and(|n| matches!(n.value, Value::Bool(true)))
    }

    /// A whole number; 0 if there is none.
    pub fn int(&self, key: &str) -> u32 {
        match self.node(key).map(|n| n.into_owned().value) {
            Some(Value::Int(Some(n))) => u32::try_from(n).unwrap_or(0),
            _ => 0,
        }
    }

    fn number(&self, key: &str) -> Option<E164> {
        self.node(key)?.text()?.parse().ok()
    }

    fn regions(&self, key: &str) -> Vec<Region> {
        self.texts(key).iter().filter_map(|code| Region::parse(code)).collect()
    }

    fn region(&self, key: &str) -> Option<Region> {
        Region::parse(self.node(key)?.text()?)
    }

    fn size(&self, key: &str) -> u64 {
        self.node(key).and_then(|n| value::size(n.text()?).ok()).unwrap_or(0)
    }
}

/// The zone in a table; none where it says none.
fn zone(v: &View<'_>, key: &str) -> Option<TimeZone> {
    value::zone(&v.text(key)?).ok()
}

fn section(name: &str) -> &'static Section {
    schema::sections().find(|s| s.name == name).unwrap_or(&schema::ROOT)
}

/// What is built from, and what is found not to be in force on the way.
pub struct Builder<'a> {
    /// The tree.
    pub root: &'a Node,
    /// Resolved secrets.
    pub secrets: &'a Secrets,
    /// Production calendars.
    pub years: &'a Years,
    /// The folder of the file that a place is in.
    pub folder: &'a dyn Fn(Place) -> PathBuf,
    /// Valid, but not in force.
    pub not_yet: Vec<(Place, String)>,
}

impl<'a> Builder<'a> {
    /// Of a tree.
    pub fn at(
        root: &'a Node,
        secrets: &'a Secrets,
        years: &'a Years,
        folder: &'a dyn Fn(Place) -> PathBuf,
    ) -> Builder<'a> {
        Builder { root, secrets, years, folder, not_yet: Vec::new() }
    }
}

impl Builder<'_> {
    /// The whole.
    pub fn build(&mut self) -> Config {
        let node = View::of(self.root, "node");
        let listen = self.listen();
        let media = self.media(&listen);
        let (data_dir, files) = self.places();
        let http = View::of(self.root, "http").own("bind").and_then(Node::text).and_then(|t| t.parse().ok());
        let ladder = usize::try_from(node.size("ladder")).unwrap_or(usize::MAX);
        let http = http.map(|bind: SocketAddr| Http { bind });
        let directory = Arc::new(self.directory(node, listen));
        let (path, sounds, report) = Default::default();
        Config { path, directory, data_dir, files, media, http, sounds, ladder, report }
    }

    /// The data directory and the files that grow.
    pub fn places(&self) -> (PathBuf, Files) {
        let node = View::of(self.root, "node");
        let data_dir = self.path(&node, "data_dir").unwrap_or_else(|| PathBuf::from("/var/lib/strowger"));
        let store = View::of(self.root, "store");
        let written = store.own("url").and_then(|n| Some((n.at, n.text()?.strip_prefix("sqlite:")?.to_owned())));
        let database = match written {
            Some((at, file)) => (self.folder)(at).join(file),
            None => data_dir.join("strowger.db"),
        };
        let recording = View::of(self.root, "recording");
        let files = Files {
            database,
            imported: data_dir.join("directory.db"),
            recordings: self.path(&recording, "dir").unwrap_or_else(|| data_dir.join("recordings")),
            keep: recording.duration("keep"),
        };
        (data_dir, files)
    }

    fn path(&self, view: &View<'_>, key: &str) -> Option<PathBuf> {
        match view.own(key) {
            Some(node) => Some((self.folder)(node.at).join(node.text()?)),
            None => view.text(key).map(|text| PathBuf::from(&*text)),
        }
    }

    fn directory(&mut self, node: View<'_>, listen: Vec<Listen>) -> Directory {
        let name = node.text("name").unwrap_or_else(|| "strowger".into());
        let mut domains = node.texts("domains");
        if domains.is_empty() {
            domains.push(name.clone());
        }
        let algorithm = |text: &Label| if **text == *"sha-256" { Algorithm::Sha256 } else { Algorithm::Md5 };
        let mut directory = Directory::empty(ThisNode {
            name,
            domains,
            digest: node.texts("digest").iter().map(algorithm).collect(),
            country: node.text("country").and_then(|c| Country::parse(&c)),
            zone: zone(&node, "timezone").unwrap_or(TimeZone::UTC),
        });
        let media = View::of(self.root, "media");
        let relay = if media.text("relay").as_deref() == Some("never") { Relay::Never } else { Relay::Always };
        directory.listen = listen;
        directory.media = MediaPolicy { relay, timeout: media.duration("timeout").unwrap_or_default() };
        directory.recording =
            self.recording(&View::of(self.root, "recording"), "mode", "[recording]").unwrap_or(Recording::None);
        directory.short_ring = View::of(self.root, "outcome").duration("short_ring").unwrap_or_default();
        directory.caller_id = caller_id(&View::of(self.root, "caller_id"));
        directory.trunks = View::all(self.root, "trunk").into_iter().map(|v| self.trunk(v)).collect();
        directory.numbers = View::all(self.root, "number").into_iter().filter_map(number).collect();
        directory.extensions =
            View::all(self.root, "extension").into_iter().filter_map(|v| self.extension(v)).collect();
        let extensions = std::mem::take(&mut directory.extensions);
        directory.queues =
            View::all(self.root, "queue").into_iter().filter_map(|v| self.queue(v, &extensions)).collect();
        directory.extensions = extensions;
        directory.calendars =
            View::all(self.root, "calendar").into_iter().filter_map(|v| calendar::build(v, self.years)).collect();
        let here = directory.node.zone.clone();
        directory.branches = View::all(self.root, "branch").into_iter().filter_map(|v| self.branch(v, &here)).collect();
        let dealers = View::all(self.root, "dealer").into_iter();
        directory.dealers = dealers.filter_map(|v| self.dealer(v, &here, &directory.calendars)).collect();
        directory.duties = View::all(self.root, "duty").into_iter().filter_map(|v| self.duty(v, &here)).collect();
        directory.pages = View::all(self.root, "page").into_iter().filter_map(|v| self.page(v)).collect();
        directory.hooks = View::all(self.root, "hook").into_iter().filter_map(|v| self.hook(v)).collect();
        directory.routes = View::all(self.root, "route").into_iter().filter_map(|v| self.route(v)).collect();
        directory.dial = dial(&View::of(self.root, "dial"));
        directory.indexed()
    }

    fn listen(&self) -> Vec<Listen> {
        let one = |v: View<'_>| {
            let bind: SocketAddr = v.text("bind")?.parse().ok()?;
            let advertise = v.text("advertise").and_then(|t| t.parse().ok());
            let transport = if v.text("transport").as_deref() == Some("tcp") { Transport::Tcp } else { Transport::Udp };
            Some(Listen { transport, bind, advertise: advertise.or_else(|| outward(bind.ip())) })
        };
        View::all(self.root, "listen").into_iter().filter_map(one).collect()
    }

    fn media(&self, listen: &[Listen]) -> MediaPorts {
        let media = View::of(self.root, "media");
        let ip = |key: &str| media.text(key).and_then(|t| t.parse::<IpAddr>().ok());
        let first = listen.first();
        let bind = ip("bind").or(first.map(|l| l.bind.ip())).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let advertise = ip("advertise").or(first.and_then(|l| l.advertise)).or_else(|| outward(bind)).unwrap_or(bind);
        let ports = media.text("ports").and_then(|t| value::ports(&t).ok()).unwrap_or(20_000..=29_999);
        MediaPorts { bind, advertise, ports }
    }

    fn trunk(&self, v: View<'_>) -> Trunk {
        Trunk {
            name: v.text("name").unwrap_or_default(),
            uris: v.texts("uri"),
            allow_from: v.texts("allow_from").iter().filter_map(|t| value::cidr(t).ok()).collect(),
            username: v.text("username"),
            password: self.secret(&v, "password"),
            register: v.bool("register"),
            max_calls: v.int("max_calls"),
            number_format: match v.text("number_format").as_deref() {
                Some("international") => NumberFormat::International,
                Some("national") => NumberFormat::National,
                _ => NumberFormat::E164,
            },
            caller_id: match v.text("caller_id").as_deref() {
                Some("p-asserted-identity") => CallerIdForm::PAssertedIdentity,
                Some("remote-party-id") => CallerIdForm::RemotePartyId,
                _ => CallerIdForm::From,
            },
            trust_identity: v.bool("trust_identity"),
            did_header: v.text("did_header"),
            foreign_numbers: v.bool("foreign_numbers"),
        }
    }

    fn secret(&self, v: &View<'_>, key: &str) -> Option<Secret> {
        self.secrets.get(&v.own(key)?.at).map(|s| Secret(s.as_str().into()))
    }

    fn extension(&mut self, v: View<'_>) -> Option<Extension> {
        let number = v.text("number")?;
        let record = self.recording(&v, "record", &format!("extension {number}"));
        Some(Extension {
            name: v.text("name").unwrap_or_else(|| number.clone()),
            password: self.secret(&v, "password")?,
            branch: v.text("branch"),
            groups: v.texts("groups"),
            outbound: match v.text("outbound").as_deref() {
                Some("internal") => Class::Internal,
                Some("local") => Class::Local,
                Some("international") => Class::International,
                _ => Class::National,
            },
            max_calls: v.int("max_calls"),
            paging: v.text("kind").as_deref() == Some("paging"),
            record,
            mobile: self.mobile(&v),
            vendor: v.text("vendor"),
            intercom_from: v.own("intercom_from").map(|_| people(&v, "intercom_from")),
            number,
        })
    }

    fn mobile(&self, v: &View<'_>) -> Option<Mobile> {
        let node = v.own("mobile")?;
        let view = View { node: Some(node), section: &schema::MOBILE };
        let (after, confirm) = (view.duration("after").unwrap_or_default(), view.bool("confirm"));
        Some(Mobile { number: view.number("number")?, after, confirm })
    }

    fn page(&self, v: View<'_>) -> Option<Page> {
        let number = v.text("number")?;
        let member = |text: &Label| match Parsed::read(text) {
            Ok(Parsed::Named(Named::Extension, number, _)) => Some(Member::Extension(number.into())),
            Ok(Parsed::Named(Named::Group, name, branch)) => Some(Member::Group(name.into(), branch.map(Label::from))),
            Ok(Parsed::Named(Named::Page, number, _)) => Some(Member::Page(number.into())),
            Ok(Parsed::Multicast(group)) => Some(Member::Multicast(group)),
            Ok(Parsed::Polycom(group, channel)) => Some(Member::Polycom { group, channel }),
            _ => None,
        };
        let members = v.texts("members").iter().filter_map(member).collect();
        Some(Page {
            name: v.text("name").unwrap_or_else(|| number.clone()),
            members,
            talkback: v.text("mode").as_deref() == Some("talkback"),
            max: v.duration("max").unwrap_or_default(),
            chime: v.bool("chime"),
            emergency: v.text("priority").as_deref() == Some("emergency"),
            allow: people(&v, "allow"),
            number,
        })
    }

    fn queue(&mut self, v: View<'_>, extensions: &[Extension]) -> Option<Queue> {
        let name = v.text("name")?;
        let mut agents: Vec<Label> = Vec::new();
        for node in v.own("agents").map(Node::items).unwrap_or_default() {
            match node.text().map(Parsed::read) {
                Some(Ok(Parsed::Named(Named::Extension, number, _))) => agents.push(number.into()),
                Some(Ok(Parsed::Named(Named::Group, group, branch))) => {
                    agents.extend(members(extensions, group, branch))
                }
                Some(Ok(Parsed::Number(number))) => {
                    agents.push(number.to_string().into());
                }
                _ => {}
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        agents.retain(|a| seen.insert(a.clone()));
        let strategy = match v.text("strategy").as_deref() {
            Some("first-free") => Strategy::FirstFree,
            Some("longest-idle") => Strategy::LongestIdle,
            Some("round-robin") => Strategy::RoundRobin,
            _ => Strategy::RingAll,
        };
        let who = format!("queue \"{name}\"");
        Some(Queue {
            number: v.text("number"),
            agents,
            strategy,
            ring: v.duration("ring").unwrap_or_default(),
            wrap_up: v.duration("wrap_up").unwrap_or_default(),
            wait: v.duration("wait"),
            overflow: self.steps(v.own("overflow"), &who),
            record: self.recording(&v, "record", &who),
            label: v.text("label"),
            music: v.text("music"),
            elsewhere: v.bool("elsewhere"),
            name,
        })
    }

    fn branch(&mut self, v: View<'_>, here: &TimeZone) -> Option<Branch> {
        let name = v.text("name")?;
        Some(Branch {
            number: v.text("number"),
            region: v.region("region"),
            zone: zone(&v, "timezone").unwrap_or_else(|| here.clone()),
            calendar: v.text("calendar"),
            caller_id: v.number("caller_id"),
            to: self.steps(v.own("to"), &format!("branch \"{name}\"")),
            name,
        })
    }

    fn dealer(&mut self, v: View<'_>, here: &TimeZone, calendars: &[Calendar]) -> Option<Dealer> {
        let name = v.text("name")?;
        Some(Dealer {
            number: v.text("number"),
            regions: v.regions("regions"),
            hours: match v.text("calendar") {
                Some(named) => calendars.iter().find(|c| c.name == named).cloned(),
                None => v.own("hours").map(|node| Calendar::new(&name, calendar::week(Some(node)))),
            },
            zone: zone(&v, "timezone").unwrap_or_else(|| here.clone()),
            to: self.steps(v.own("to"), &format!("dealer \"{name}\"")),
            dealers: v.texts("dealers"),
            name,
        })
    }

    fn duty(&mut self, v: View<'_>, here: &TimeZone) -> Option<Duty> {
        let name = v.text("name")?;
        let who = format!("duty \"{name}\"");
        let mut roster = Vec::new();
        for turn in v.own("roster").map(Node::items).unwrap_or_default() {
            let instant = |key: &str| {
                let local = value::instant(turn.get(key)?.text()?).ok()?;
                Some(Wall::from_micros(local.to_zoned(here.clone()).ok()?.timestamp().as_microsecond()))
            };
            if let (Some(from), Some(until)) = (instant("from"), instant("until")) {
                roster.push(Turn { from, until, to: self.steps(turn.get("to"), &who) });
            }
        }
        Some(Duty { roster, otherwise: self.steps(v.own("otherwise"), &who), name })
    }

    fn route(&mut self, v: View<'_>) -> Option<Route> {
        let name = v.text("name")?;
        let mut when = When::default();
        if let Some(node) = v.own("when") {
            let texts = |key: &str| {
                let items = node.get(key).map(Node::items).unwrap_or_default();
                items.iter().filter_map(Node::text).map(str::to_owned).collect::<Vec<String>>()
            };
            when.number = texts("number").iter().filter_map(|t| t.parse().ok()).collect();
            when.trunk = texts("trunk").into_iter().map(Label::from).collect();
            when.campaign = texts("campaign").into_iter().map(Label::from).collect();
            when.caller = texts("caller").iter().filter_map(|t| t.parse().ok()).collect();
            when.anonymous = match node.get("anonymous").map(|n| &n.value) {
                Some(Value::Bool(wanted)) => Some(*wanted),
                _ => None,
            };
            when.category = texts("category").into_iter().map(Label::from).collect();
            when.region = texts("region").iter().filter_map(|t| Region::parse(t)).collect();
            when.tag = texts("tag").into_iter().map(Label::from).collect();
            when.calendar = node.get("calendar").and_then(Node::text).map(Label::from);
            when.is = texts("is").iter().filter_map(|t| hours(t)).collect();
        }
        let who = format!("route \"{name}\"");
        let to = self.steps(v.own("to"), &who);
        Some(Route { record: self.recording(&v, "record", &who), name, when, to })
    }

    fn hook(&mut self, v: View<'_>) -> Option<Arc<Hook>> {
        let name = v.text("name")?;
        let who = format!("hook \"{name}\"");
        let shape = match v.text("shape").as_deref() {
            Some("sipuni") => Shape::Sipuni {
                label: v.text("label").unwrap_or_default(),
                pick: v.text("pick").unwrap_or_else(|| "/choice".into()),
                is: v.text("is").unwrap_or_else(|| "1".into()),
                first: self.steps(v.own("first"), &who),
                second: self.steps(v.own("second"), &who),
            },
            Some("exolve") => Shape::Exolve,
            Some("zadarma") => Shape::Zadarma { secret: self.secret(&v, "secret") },
            _ => Shape::Strowger,
        };
        Some(Arc::new(Hook {
            url: v.text("url")?,
            timeout: v.duration("timeout").unwrap_or_default(),
            shape,
            cache: v.duration("cache").unwrap_or_default(),
            concurrent: v.int("concurrent"),
            name,
        }))
    }

    fn steps(&mut self, node: Option<&Node>, who: &str) -> Vec<Step> {
        let Some(node) = node else { return Vec::new() };
        let view = |item| View { node: Some(item), section: &schema::STEP };
        let mut steps = Vec::new();
        for item in node.items() {
            let table = matches!(item.value, Value::Table(_));
            let written = if table { item.get("target") } else { Some(item) };
            let Some(text) = written.and_then(Node::text) else { continue };
            let target = match Parsed::read(text) {
                Ok(Parsed::Named(Named::Extension, number, _)) => Target::Extension(number.into()),
                Ok(Parsed::Named(Named::Queue, name, _)) => Target::Queue(name.into()),
                Ok(Parsed::Named(Named::Group, name, branch)) => Target::Group(name.into(), branch.map(Label::from)),
                Ok(Parsed::Manager) => Target::Manager,
                Ok(Parsed::OpenBranch) => Target::OpenBranch,
                Ok(Parsed::NearestDealer) => Target::NearestDealer,
                Ok(Parsed::Named(Named::Dealer, name, _)) => Target::Dealer(name.into()),
                Ok(Parsed::Named(Named::Branch, name, _)) => Target::Branch(name.into()),
                Ok(Parsed::Named(Named::Duty, name, _)) => Target::Duty(name.into()),
                Ok(Parsed::Number(number)) => Target::Number(number),
                Ok(Parsed::Named(Named::Hook, name, _)) => Target::Hook(name.into()),
                Ok(Parsed::Named(Named::Page, number, _)) => Target::Page(number.into()),
                Ok(Parsed::Play(name)) => Target::Play(name.into()),
                Ok(Parsed::Reject(status)) => Target::Reject(status),
                _ => Target::NotYet(text.into()),
            };
            if let Target::NotYet(_) = target {
                self.not_yet.push((item.at, format!("step \"{text}\" of {who}: skipped")));
            }
            let mut step = Step::to(target);
            if table {
                let v = view(item);
                step.ring = v.duration("ring");
                step.after = v.duration("after").unwrap_or_default();
                step.confirm = v.own("confirm").map(|_| v.bool("confirm"));
                step.caller_name = v.text("caller_name");
                step.record = self.recording(&v, "record", who);
                step.answer = v.bool("answer");
                step.except_regions = v.regions("except_regions");
            }
            steps.push(step);
        }
        steps
    }

    fn recording(&mut self, v: &View<'_>, key: &str, who: &str) -> Option<Recording> {
        match &*v.text(key)? {
            "all" => Some(Recording::All),
            "on-demand" => {
                if let Some(node) = v.own(key) {
                    self.not_yet.push((node.at, format!("on-demand recording of {who}: nothing is recorded")));
                }
                Some(Recording::OnDemand)
            }
            _ => Some(Recording::None),
        }
    }
}

/// What a calendar must say.
fn hours(text: &str) -> Option<Hours> {
    [Hours::Open, Hours::Closed, Hours::Holiday].into_iter().find(|h| h.to_string() == text)
}

fn caller_id(v: &View<'_>) -> CallerId {
    let rule = |word: &Label| CallerIdRule::ALL.into_iter().find(|rule| rule.word() == &**word);
    CallerId {
        order: v.texts("order").iter().filter_map(rule).collect(),
        sticky: v.duration("sticky").unwrap_or_default(),
        default: v.number("default"),
    }
}

/// A step of a hook's answer.
pub fn step(value: &serde_json::Value) -> Result<Step, String> {
    let node = node_of(value, 0).ok_or("a step is a target or a table with one")?;
    let target = node.get("target").unwrap_or(&node).text().ok_or("a step without a target")?;
    let parsed = Parsed::read(target).map_err(|wrong| wrong.what)?;
    if let Some(words) = parsed.misplaced(schema::Targets::Step) {
        return Err(format!("`{target}`: {words}"));
    }
    let nobody = super::names::Names::default();
    let problems = super::walk::Walk::over_step(&node, &nobody).problems;
    // Names are looked up when the step's turn comes: here there is no file that has them.
    if let Some(problem) = problems.into_iter().find(|p| p.code != "config::unknown_target") {
        return Err(format!("step \"{target}\": {}", problem.what));
    }
    let (root, secrets) = (Node::table(Place::default()), Secrets::default());
    let mut builder = Builder {
        root: &root,
        secrets: &secrets,
        folder: &|_| PathBuf::new(),
        years: &Years::default(),
        not_yet: Vec::new(),
    };
    let step = builder.steps(Some(&node), "").pop().ok_or("a step without a target")?;
    match step.target {
        Target::NotYet(words) => Err(format!("`{words}` is not yet in force")),
        _ => Ok(step),
    }
}

/// JSON as if it had stood in the file; a step needs no lists of lists.
fn node_of(value: &serde_json::Value, depth: u8) -> Option<Node> {
    const MAX_DEPTH: u8 = 3;
    use serde_json::Value as Json;
    let at = Place::default();
    let value = match value {
        Json::String(text) => Value::Text(text.clone()),
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => Value::Int(number.as_i64()),
        Json::Array(items) if depth < MAX_DEPTH => {
            Value::List(items.iter().map(|item| node_of(item, depth + 1)).collect::<Option<_>>()?)
        }
        Json::Object(table) if depth < MAX_DEPTH => {
            let entry = |(key, value): (&String, &Json)| {
                Some(dom::Entry { key: key.clone(), at, node: node_of(value, depth + 1)?, written: None })
            };
            Value::Table(table.iter().map(entry).collect::<Option<_>>()?)
        }
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    };
    Some(Node { at, value })
}

fn number(v: View<'_>) -> Option<Number> {
    Some(Number {
        e164: v.number("e164")?,
        trunk: v.text("trunk")?,
        region: v.region("region"),
        branch: v.text("branch"),
        label: v.text("label"),
        campaign: v.text("campaign"),
        channel: v.text("channel"),
        brand: v.bool("brand"),
        show: v.bool("show"),
    })
}

/// Who is meant by a list of people.
fn people(v: &View<'_>, key: &str) -> Vec<People> {
    let one = |text: &Label| match Parsed::read(text) {
        Ok(Parsed::Named(Named::Extension, number, _)) => Some(People::Extension(number.into())),
        Ok(Parsed::Named(Named::Group, name, branch)) => Some(People::Group(name.into(), branch.map(Label::from))),
        Ok(Parsed::Named(Named::Queue, name, _)) => Some(People::Queue(name.into())),
        Ok(Parsed::Named(Named::Branch, name, _)) => Some(People::Branch(name.into())),
        _ => None,
    };
    v.texts(key).iter().filter_map(one).collect()
}

/// Who answers a queue for `group:name@branch`; loudspeaker phones never do.
fn members(extensions: &[Extension], group: &str, branch: Option<&str>) -> Vec<Label> {
    let belongs = |e: &&Extension| {
        !e.paging && e.groups.iter().any(|g| **g == *group) && branch.is_none_or(|b| e.branch.as_deref() == Some(b))
    };
    extensions.iter().filter(belongs).map(|e| e.number.clone()).collect()
}

fn dial(v: &View<'_>) -> Dial {
    const CODES: [&str; 7] = ["forward_on", "forward_off", "dnd_on", "dnd_off", "pause", "pickup", "listen"];
    let park = v.text("park").and_then(|t| value::park(&t).ok()).into_iter().flatten();
    let codes = CODES.iter().filter_map(|key| v.text(key)).chain(park.map(|n| n.to_string().into()));
    Dial {
        outside: v.texts("outside"),
        forbidden: v.texts("forbidden").iter().filter_map(|text| value::prefix(text).ok()).collect(),
        emergency: v.texts("emergency"),
        intercom: v.text("intercom"),
        codes: codes.collect(),
    }
}

/// The address by which others reach us, when we listen on all of them: that of the default route. Nothing is sent.
fn outward(bind: IpAddr) -> Option<IpAddr> {
    if !bind.is_unspecified() {
        return None;
    }
    let (any, far) = match bind {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(far).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}
