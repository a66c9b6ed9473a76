//! The company of the simulated world, a smaller cousin of `fixtures/office.toml`, built by hand so that a ladder can change
//! any of it with a `with` line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use strowger::directory::contacts::{Builder, NewContact};
use strowger::directory::{
    CallerIdForm, Cidr, Class, Dial, Directory, E164, Extension, Hook, Label, Listen, MediaPolicy, Member, Mobile,
    Node, Number, NumberFormat, Page, People, Queue, Recording, Relay, Route, Secret, Step, Strategy, Target, Trunk,
    When, calendar,
};
use strowger::sip::digest::Algorithm;
use strowger::sip::transport::Transport;

/// Where the server listens, for UDP and for TCP.
pub const SERVER: &str = "192.0.2.1:5060";
/// Our domain and digest realm.
pub const DOMAIN: &str = "office.example";
/// The world's carriers: name, address, the trunk it belongs to.
pub const CARRIERS: [(&str, &str, &str); 3] = [
    ("carrier-a", "203.0.113.1:5060", "carrier-a"),
    ("carrier-a2", "203.0.113.2:5060", "carrier-a"),
    ("carrier-b", "198.51.100.1:5060", "carrier-b"),
];
/// Extensions of the company.
pub const EXTENSIONS: [&str; 9] = ["121", "122", "123", "124", "130", "221", "321", "601", "602"];

/// The password of a phone.
pub fn password(extension: &str) -> String {
    format!("very-secret-{extension}")
}

/// The directory with the changes that `with` lines ask for, each `KEY VALUE`.
pub fn directory(changes: &[(String, String)]) -> Result<Directory, String> {
    let mut d = plain();
    for (key, value) in changes {
        change(&mut d, key, value).ok_or_else(|| format!("with {key} {value}: not understood"))?;
    }
    Ok(d.indexed())
}

fn plain() -> Directory {
    let node = Node {
        name: "ekb-1".into(),
        domains: vec![DOMAIN.into()],
        digest: vec![Algorithm::Md5, Algorithm::Sha256],
        country: Some(strowger::directory::Country::RU),
        zone: calendar::zone("Asia/Yekaterinburg").expect("it is in the bundle"),
    };
    let mut d = Directory::empty(node);
    let server: SocketAddr = SERVER.parse().expect("an address");
    for transport in [Transport::Udp, Transport::Tcp] {
        d.listen.push(Listen { transport, bind: server, advertise: None });
    }
    d.media = MediaPolicy { relay: Relay::Always, timeout: Duration::from_secs(60) };
    d.caller_id.default = Some(e164("+73433000001"));
    d.trunks = vec![trunk("carrier-a"), trunk("carrier-b")];
    d.trunks[0].username = Some("office".into());
    d.trunks[0].password = Some(Secret("carrier-secret".into()));
    d.trunks[0].caller_id = CallerIdForm::PAssertedIdentity;
    for (number, trunk, branch) in [
        ("+73433000001", "carrier-a", Some("ekb")),
        ("+74013000001", "carrier-a", None),
        ("+78003000001", "carrier-a", None),
        ("+73833000001", "carrier-b", None),
        ("+73833000002", "carrier-b", None),
        ("+73833000003", "carrier-b", None),
    ] {
        d.numbers.push(Number {
            e164: e164(number),
            trunk: trunk.into(),
            region: None,
            branch: branch.map(Label::from),
            label: None,
            campaign: None,
            channel: None,
            brand: false,
            show: true,
        });
    }
    for number in EXTENSIONS {
        d.extensions.push(Extension {
            number: number.into(),
            name: format!("Phone {number}").into(),
            password: Secret(password(number).into()),
            branch: Some("ekb".into()),
            groups: Vec::new(),
            outbound: match number {
                "121" => Class::International,
                "123" => Class::Internal,
                _ => Class::National,
            },
            max_calls: 2,
            paging: number.starts_with('6'),
            record: None,
            mobile: None,
            vendor: None,
            intercom_from: None,
        });
    }
    d.queues.push(Queue {
        number: Some("800".into()),
        wait: Some(Duration::from_secs(60)),
        overflow: vec![step("extension:130").expect("a step")],
        ..Queue::new("sales", vec!["121".into(), "122".into()])
    });
    d.queues.push(Queue { number: Some("801".into()), ..Queue::new("service", vec!["122".into(), "123".into()]) });
    for (name, number, to) in [
        ("direct", "+74013000001", "extension:121"),
        ("steps", "+78003000001", "extension:123@10s,extension:124@10s"),
        ("refused", "+73833000002", "reject:486"),
        ("abroad", "+73833000003", "number:+79120000777"),
    ] {
        let when = When { number: vec![e164(number)], ..When::default() };
        d.routes.push(Route { name: name.into(), when, to: steps(to).expect("steps"), record: None });
    }
    let to = steps("queue:sales").expect("steps");
    d.routes.push(Route { name: "everyone else".into(), when: When::default(), to, record: None });
    d.pages = vec![
        Page { allow: people("extension:121,group:foremen"), ..Page::new("700", members("601,602")) },
        Page { emergency: true, allow: people("extension:130"), ..Page::new("799", members("page:700")) },
    ];
    d.dial = Dial {
        outside: ["8XXXXXXXXXX", "+X.", "810X."].map(Label::from).to_vec(),
        emergency: vec!["112".into()],
        intercom: Some("*80".into()),
        ..Dial::default()
    };
    d
}

fn trunk(name: &str) -> Trunk {
    let ours = || CARRIERS.iter().filter(|c| c.2 == name);
    let address = |c: &(&str, &str, &str)| c.1.parse::<SocketAddr>().expect("an address");
    Trunk {
        name: name.into(),
        uris: ours().map(|c| format!("sip:{}", c.1).into()).collect(),
        allow_from: ours().map(|c| Cidr { address: address(c).ip(), prefix: 32 }).collect(),
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

fn change(d: &mut Directory, key: &str, value: &str) -> Option<()> {
    let words: Vec<&str> = key.splitn(3, '.').collect();
    let labels = || value.split(',').map(Label::from).collect::<Vec<_>>();
    match words[..] {
        ["queue", name, field] => {
            let queue = d.queues.iter_mut().find(|q| &*q.name == name)?;
            match field {
                "agents" => queue.agents = labels(),
                "ring" => queue.ring = duration(value)?,
                "wait" => queue.wait = if value == "none" { None } else { Some(duration(value)?) },
                "wrap_up" => queue.wrap_up = duration(value)?,
                "strategy" => {
                    queue.strategy = match value {
                        "ring-all" => Strategy::RingAll,
                        "first-free" => Strategy::FirstFree,
                        "longest-idle" => Strategy::LongestIdle,
                        "round-robin" => Strategy::RoundRobin,
                        _ => return None,
                    }
                }
                "label" => queue.label = Some(value.into()),
                "music" => queue.music = Some(value.into()),
                "elsewhere" => queue.elsewhere = value == "yes",
                "overflow" => queue.overflow = if value == "none" { Vec::new() } else { steps(value)? },
                _ => return None,
            }
        }
        ["trunk", name, field] => {
            let trunk = d.trunks.iter_mut().find(|t| &*t.name == name)?;
            match field {
                "max_calls" => trunk.max_calls = value.parse().ok()?,
                "register" => trunk.register = value == "yes",
                "username" => trunk.username = Some(value.into()),
                "password" => trunk.password = Some(Secret(value.into())),
                "uris" => trunk.uris = labels(),
                "trust_identity" => trunk.trust_identity = value == "yes",
                "foreign_numbers" => trunk.foreign_numbers = value == "yes",
                "allow_from" => trunk.allow_from = value.split(',').filter_map(network).collect(),
                "did_header" => trunk.did_header = Some(value.into()),
                "number_format" => {
                    trunk.number_format = match value {
                        "e164" => NumberFormat::E164,
                        "international" => NumberFormat::International,
                        "national" => NumberFormat::National,
                        _ => return None,
                    }
                }
                "caller_id" => {
                    trunk.caller_id = match value {
                        "from" => CallerIdForm::From,
                        "p-asserted-identity" => CallerIdForm::PAssertedIdentity,
                        "remote-party-id" => CallerIdForm::RemotePartyId,
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
        ["extension", number, field] => {
            let extension = d.extensions.iter_mut().find(|e| &*e.number == number)?;
            match field {
                "max_calls" => extension.max_calls = value.parse().ok()?,
                "mobile" => extension.mobile = Some(mobile(value)?),
                "groups" => extension.groups = labels(),
                "vendor" => extension.vendor = Some(value.into()),
                "intercom_from" => extension.intercom_from = Some(people(value)),
                "outbound" => {
                    extension.outbound = match value {
                        "internal" => Class::Internal,
                        "local" => Class::Local,
                        "national" => Class::National,
                        "international" => Class::International,
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
        ["page", number, field] => {
            let page = d.pages.iter_mut().find(|p| &*p.number == number)?;
            match field {
                "members" => page.members = members(value),
                "allow" => page.allow = people(value),
                "max" => page.max = duration(value)?,
                "chime" => page.chime = value == "yes",
                "talkback" => page.talkback = value == "yes",
                _ => return None,
            }
        }
        // One carrier with one address: nobody to go on to.
        ["trunks", "only"] => {
            d.trunks.retain(|t| &*t.name == value);
            d.trunks.first_mut()?.uris.truncate(1);
            d.numbers.retain(|n| &*n.trunk == value);
        }
        ["media", "timeout"] => d.media.timeout = duration(value)?,
        ["media", "relay"] => d.media.relay = if value == "never" { Relay::Never } else { Relay::Always },
        ["recording", "mode"] => d.recording = if value == "all" { Recording::All } else { Recording::None },
        ["node", "digest"] => {
            let read = |a| match a {
                "md5" => Some(Algorithm::Md5),
                "sha-256" => Some(Algorithm::Sha256),
                _ => None,
            };
            d.node.digest = value.split(',').map(read).collect::<Option<_>>()?;
        }
        // Its name, category and region.
        ["contact", number] => {
            let numbers = [number.parse().ok()?];
            let mut words = value.split(',');
            let mut word = || words.next().unwrap_or_default();
            let new = NewContact {
                numbers: &numbers,
                name: word(),
                category: word(),
                region: word(),
                ..NewContact::default()
            };
            let mut contacts = Builder::default();
            contacts.push(&new).ok()?;
            d.contacts = Arc::new(contacts.build());
        }
        // What it answers stands where its address would: steps, `go-on`, `fails`, `silent`.
        ["hook", name] => d.hooks.push(Arc::new(Hook::new(name, value))),
        ["outcome", "short_ring"] => d.short_ring = duration(value)?,
        ["route", number] => {
            let number: E164 = number.parse().ok()?;
            let when = When { number: vec![number], ..When::default() };
            d.routes.insert(0, Route { name: "changed".into(), when, to: steps(value)?, record: None });
        }
        _ => return None,
    }
    Some(())
}

/// `192.0.2.0/24`; `none` is none.
fn network(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.split_once('/')?;
    Some(Cidr { address: address.parse().ok()?, prefix: prefix.parse().ok()? })
}

/// `601,page:700,multicast:239.255.70.0:10000`.
fn members(text: &str) -> Vec<Member> {
    let member = |text: &str| match text.split_once(':') {
        Some(("page", number)) => Member::Page(number.into()),
        Some(("group", name)) => Member::Group(name.into(), None),
        Some(("multicast", group)) => Member::Multicast(group.parse().expect("a group")),
        Some(("polycom", group)) => Member::Polycom { group: group.parse().expect("a group"), channel: 26 },
        _ => Member::Extension(text.into()),
    };
    text.split(',').map(member).collect()
}

/// `extension:121,group:foremen`, `nobody`.
fn people(text: &str) -> Vec<People> {
    let one = |text: &str| match text.split_once(':') {
        Some(("extension", number)) => Some(People::Extension(number.into())),
        Some(("group", name)) => Some(People::Group(name.into(), None)),
        _ => None,
    };
    text.split(',').filter_map(one).collect()
}

/// Steps, separated by commas.
pub fn steps(text: &str) -> Option<Vec<Step>> {
    text.split(',').map(step).collect()
}

/// `extension:121`, `queue:sales@15s` (it rings so long), `number:+79120000777+5s` (it joins so much later), any with `!` at the
/// end (it must be confirmed; a `play:` answers the call); before all that `Website=extension:121` (shown before the caller's
/// name), `all=` or `none=` (recorded or not).
fn step(text: &str) -> Option<Step> {
    if let Some((said, text)) = text.split_once('=') {
        let step = step(text)?;
        return Some(match said {
            "all" => Step { record: Some(Recording::All), ..step },
            "none" => Step { record: Some(Recording::None), ..step },
            name => Step { caller_name: Some(name.into()), ..step },
        });
    }
    let (text, sure) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
    let (text, after) = match text.rsplit_once("+").and_then(|(text, after)| Some((text, duration(after)?))) {
        Some((text, after)) => (text, after),
        None => (text, Duration::ZERO),
    };
    let (target, ring) = match text.split_once('@') {
        Some((target, ring)) => (target, Some(duration(ring)?)),
        None => (text, None),
    };
    let (kind, name) = target.split_once(':').unwrap_or((target, ""));
    let target = match kind {
        "manager" => Target::Manager,
        "group" => Target::Group(name.into(), None),
        "branch" if name == "open" => Target::OpenBranch,
        "branch" => Target::Branch(name.into()),
        "duty" => Target::Duty(name.into()),
        "extension" => Target::Extension(name.into()),
        "queue" => Target::Queue(name.into()),
        "number" => Target::Number(name.parse().ok()?),
        "hook" => Target::Hook(name.into()),
        "play" => Target::Play(name.into()),
        "page" => Target::Page(name.into()),
        "reject" => Target::Reject(name.parse().ok()?),
        _ => Target::NotYet(text.into()),
    };
    let answer = sure && matches!(target, Target::Play(_));
    let confirm = (sure && !answer).then_some(true);
    Some(Step { ring, after, answer, confirm, ..Step::to(target) })
}

/// `+79120000101`, `+79120000101@5s` (so much later), either with `!` at the end (it must be confirmed).
fn mobile(text: &str) -> Option<Mobile> {
    let (text, confirm) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
    let (number, after) = match text.split_once('@') {
        Some((number, after)) => (number, duration(after)?),
        None => (text, Duration::ZERO),
    };
    Some(Mobile { number: number.parse().ok()?, after, confirm })
}

/// `250ms`, `20s`, `2m`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(seconds))
}

fn e164(text: &str) -> E164 {
    text.parse().expect("a number")
}
