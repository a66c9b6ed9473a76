//! Holds the tree against the schema: unknown keys, wrong types, bad values, names that nobody has. Everything is looked at,
//! whatever has been found before.

use std::collections::BTreeMap;

use super::dom::{Node, Value};
use super::meant;
use super::names::{NAMED, Names};
use super::problem::{Place, Problem, alike, suggest};
use super::schema::{self, Key, Kind, Named, Need, Section, Targets};
use super::target::Parsed;
use super::value;
use crate::directory::{Country, E164, Region};

/// The walk over one tree.
#[derive(Debug)]
pub struct Walk<'a> {
    names: &'a Names,
    /// What was found.
    pub problems: Vec<Problem>,
    /// What is valid and not in force, with where it stands.
    pub not_yet: Vec<(Place, String)>,
    /// Inside a section that is not in force as a whole, single keys are not listed once more.
    quiet: bool,
}

impl<'a> Walk<'a> {
    /// Looks at the whole tree.
    pub fn over(root: &Node, names: &'a Names) -> Walk<'a> {
        let mut walk = Walk { names, problems: Vec::new(), not_yet: Vec::new(), quiet: false };
        walk.section(root, &schema::ROOT, "");
        walk
    }

    /// Looks at a single step.
    pub fn over_step(node: &Node, names: &'a Names) -> Walk<'a> {
        let mut walk = Walk { names, problems: Vec::new(), not_yet: Vec::new(), quiet: true };
        walk.step(node);
        walk
    }

    fn section(&mut self, node: &Node, section: &'static Section, who: &str) {
        for entry in node.entries() {
            if let Some(written) = &entry.written {
                self.unknown(entry.at, written, section);
            }
            match section.keys.iter().find(|k| k.name == entry.key) {
                Some(key) => {
                    let loud = !self.quiet;
                    self.later(key, entry.at, &entry.node, section, who);
                    self.quiet |= key.later.is_some();
                    self.value(&entry.node, &key.kind, key, section);
                    self.quiet = !loud;
                }
                None => self.unknown(entry.at, &entry.key, section),
            }
        }
        for key in section.keys {
            if matches!(key.need, Need::Required(_)) && node.entry(key.name).is_none() {
                self.missing(node.at, key, section, who);
            }
        }
    }

    fn later(&mut self, key: &Key, at: Place, node: &Node, section: &Section, who: &str) {
        let Some(what) = key.later.filter(|_| !self.quiet) else { return };
        let words = match &key.kind {
            Kind::Tables(inner) => {
                let count = node.items().len();
                format!("[[{}]] ({count}): {what}", inner.name)
            }
            Kind::Table(inner) if inner.identity.is_none() && section.name.is_empty() => {
                format!("[{}]: {what}", inner.name)
            }
            Kind::Table(inner) if section.name == "dial" => format!("[{}]: {what}", inner.name),
            _ if section.name == "dial" => match node.text() {
                Some(code) => format!("dial `{}` ({code}): {what}", key.name),
                None => format!("dial `{}`: {what}", key.name),
            },
            _ if who.is_empty() => format!("`{}` of [{}]: {what}", key.name, section.name),
            _ => format!("`{}` of {who}: {what}", key.name),
        };
        self.not_yet.push((at, words));
    }

    fn unknown(&mut self, at: Place, key: &str, section: &Section) {
        let place = if section.name.is_empty() { "the file".to_owned() } else { format!("[{}]", section.name) };
        let known = section.keys.iter().map(|k| k.name);
        let owners = schema::owners(key);
        let help = match alike(key, known.clone()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if !owners.is_empty() && section.name.is_empty() => {
                format!("`{key}` belongs under a header: [{}]", owners.join("], ["))
            }
            None if !owners.is_empty() => format!("`{key}` is a key of [{}], not of {place}", owners.join("], [")),
            None => suggest(key, known, "nothing may stand here"),
        };
        self.problems.push(
            Problem::error("config::unknown_key", at, format!("{place} has no key `{key}`"))
                .label("unknown key")
                .help(help),
        );
    }

    fn missing(&mut self, at: Place, key: &Key, section: &Section, who: &str) {
        let Need::Required(example) = key.need else { return };
        let own = match &key.kind {
            Kind::Ref(named) => self.names.of(*named).next().map(|name| format!("\"{name}\"")),
            Kind::Steps => Some(format!("[\"{}\"]", self.names.somebody())),
            _ => None,
        };
        let example = own.unwrap_or_else(|| example.to_owned());
        let place = match (section.name, who) {
            ("", _) => "the file".to_owned(),
            (name, "") => format!("[{name}]"),
            (_, who) => who.to_owned(),
        };
        self.problems.push(
            Problem::error("config::missing_key", at, format!("{place} has no `{}`", key.name))
                .label(format!("`{}` is missing", key.name))
                .help(format!("add `{} = {example}` ({})", key.name, key.about)),
        );
    }

    fn value(&mut self, node: &Node, kind: &'static Kind, key: &Key, section: &Section) {
        match kind {
            Kind::Table(inner) => match node.value {
                Value::Table(_) => self.section(node, inner, ""),
                _ => self.wrong_type(node, "a table", &format!("write it under a header: [{}]", inner.name)),
            },
            Kind::Tables(inner) => self.tables(node, inner),
            Kind::List(inner) | Kind::Some(inner) => match (&node.value, kind) {
                (Value::List(items), _) => {
                    for item in items {
                        self.value(item, inner, key, section);
                    }
                }
                (_, Kind::Some(_)) => self.value(node, inner, key, section),
                (Value::Text(text), _) => {
                    self.wrong_type(node, "a list", &format!("put it into square brackets: [\"{}\"]", shorten(text)));
                }
                _ => self.wrong_type(node, "a list", "put it into square brackets: [ … ]"),
            },
            Kind::Steps => match &node.value {
                Value::List(items) => items.iter().for_each(|item| self.step(item)),
                _ => self.step(node),
            },
            Kind::Bool => match node.value {
                Value::Bool(_) => {}
                _ => {
                    let says = match (&node.value, node.text().map(str::to_lowercase).as_deref()) {
                        (Value::Int(Some(1)), _) | (_, Some("true" | "yes" | "on" | "1")) => Some("true"),
                        (Value::Int(Some(0)), _) | (_, Some("false" | "no" | "off" | "0")) => Some("false"),
                        _ => None,
                    };
                    let help = says.map_or("write true or false, without quotes".to_owned(), |says| {
                        format!("without quotes: `{} = {says}`", key.name)
                    });
                    self.wrong_type(node, "true or false", &help);
                }
            },
            Kind::Int(least, most) => self.int(node, *least, *most, key),
            Kind::Secret => self.secret(node),
            _ => self.text(node, kind, key, section),
        }
    }

    fn tables(&mut self, node: &Node, inner: &'static Section) {
        let Value::List(items) = &node.value else {
            let help = format!("there may be several, so its header has two brackets: [[{}]]", inner.name);
            self.wrong_type(node, "a list of tables", &help);
            return;
        };
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        for item in items {
            if !matches!(item.value, Value::Table(_)) {
                self.wrong_type(item, "a table", &format!("write each under a header of its own: [[{}]]", inner.name));
                continue;
            }
            let own = inner.identity.and_then(|key| item.get(key));
            let who = match own.and_then(Node::text) {
                Some(name) if name.bytes().all(|b| b.is_ascii_digit() || b == b'+') => format!("{} {name}", inner.name),
                Some(name) => format!("{} \"{name}\"", inner.name),
                None => String::new(),
            };
            self.section(item, inner, &who);
            let (Some(own), Some(name)) = (own, own.and_then(Node::text)) else { continue };
            if let Some(first) = seen.insert(name, own.at) {
                let numbered = inner.identity != Some("name");
                let code = if numbered { "config::duplicate_number" } else { "config::duplicate_name" };
                self.problems.push(
                    Problem::error(code, own.at, format!("two [[{}]] are called `{name}`", inner.name))
                        .label("again here")
                        .other(first, "first here")
                        .help("give one of them another, or remove it"),
                );
                seen.insert(name, first);
            }
        }
    }

    fn step(&mut self, node: &Node) {
        match &node.value {
            Value::Table(_) => {
                let who = node.get("target").and_then(Node::text).map(|t| format!("step \"{t}\"")).unwrap_or_default();
                self.section(node, &schema::STEP, &who);
            }
            Value::Text(_) => self.target(node, Targets::Step),
            _ => self.wrong_type(
                node,
                "a target",
                "write `\"queue:sales\"` or `{ target = \"queue:sales\", ring = \"15s\" }`",
            ),
        }
    }

    fn target(&mut self, node: &Node, place: Targets) {
        let Some(text) = node.text() else {
            self.wrong_type(node, "a target", "write it as kind:name in quotes, e.g. \"extension:121\"");
            return;
        };
        let target = match Parsed::read(text) {
            Ok(target) => target,
            Err(wrong) => {
                let at = node.part(wrong.range);
                let help = self.target_meant(text).map_or(wrong.help, |target| format!("did you mean `{target}`?"));
                self.problems
                    .push(Problem::error("config::bad_target", at, wrong.what).label("not a target").help(help));
                return;
            }
        };
        if let Some(words) = target.misplaced(place) {
            self.problems.push(
                Problem::error("config::wrong_target", node.at, format!("`{text}` cannot stand here"))
                    .label("not here")
                    .help(words),
            );
            return;
        }
        if let Parsed::Number(number) = target
            && !self.forbidden(node, Some(number))
            && self.names.knows(Named::Number, &number.to_string())
        {
            let help = "to route it inside, name what its route names";
            let what = format!("{number} is a number of ours: the call would go out through a trunk and come back");
            self.problems.push(Problem::warning("config::own_number", node.at, what).label("ours").help(help));
        }
        let Parsed::Named(named, name, branch) = target else { return };
        let start = text.find(':').map_or(0, |i| i + 1);
        if !self.names.has(named, name) {
            let known: Vec<&str> = match named {
                Named::Branch => self.names.of(named).chain(["open"]).collect(),
                Named::Dealer => self.names.of(named).chain(["nearest"]).collect(),
                _ => self.names.of(named).collect(),
            };
            self.nobody(node.part(start..start + name.len()), named, name, &known, "config::unknown_target");
        }
        if let Some(branch) = branch {
            let at = node.part(start + name.len() + 1..text.len());
            let known: Vec<&str> = self.names.of(Named::Branch).collect();
            if !self.names.has(Named::Branch, branch) {
                self.nobody(at, Named::Branch, branch, &known, "config::unknown_target");
            } else if !self.names.members.iter().any(|(g, b)| g == name && b.as_deref() == Some(branch))
                && self.names.has(named, name)
            {
                let what = format!("nobody of group `{name}` is in branch `{branch}`");
                let help = format!(
                    "give an extension `branch = \"{branch}\"` and `groups = [\"{name}\"]`, or drop `@{branch}`"
                );
                self.problems.push(Problem::error("config::unknown_target", at, what).label("nobody there").help(help));
            }
        }
    }

    /// A number in another spelling, or the name alone.
    fn target_meant(&self, text: &str) -> Option<String> {
        let kinds =
            [Named::Extension, Named::Queue, Named::Group, Named::Branch, Named::Duty, Named::Dealer, Named::Page];
        if let Some(number) = text.strip_prefix("number:") {
            return meant::meant(&Kind::E164, number, self.names.country).map(|number| format!("number:{number}"));
        }
        let named = kinds.into_iter().find(|named| self.names.knows(*named, text))?;
        Some(format!("{}:{text}", named.word()))
    }

    /// A number that no call may go to: whoever named it there would wait in vain.
    fn forbidden(&mut self, node: &Node, number: Option<E164>) -> bool {
        let found = number.and_then(|n| Some((n, self.names.forbidden.iter().find(|prefix| prefix.begins(n))?)));
        let Some((number, prefix)) = found else { return false };
        let what = format!("no call may go to {number}: {prefix} is in `dial.forbidden`");
        let help = format!("name another number, or write `forbidden` under [dial] without {prefix}");
        self.problems.push(Problem::error("config::forbidden_number", node.at, what).label("never called").help(help));
        true
    }

    fn nobody(&mut self, at: Place, named: Named, name: &str, known: &[&str], code: &'static str) {
        let word = named.word();
        // The same name may well be something else: queue:121.
        let elsewhere = NAMED.iter().find(|(.., n)| *n != named && self.names.knows(*n, name)).map(|(.., n)| n.word());
        let make = match named {
            Named::Group => "a group is made by naming it in an extension's `groups`".to_owned(),
            _ => format!("there is no [[{word}]] at all yet"),
        };
        let help = match (alike(name, known.iter().copied()), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(other)) => format!("there is a {other} called `{name}`"),
            (None, None) => suggest(name, known.iter().copied(), &make),
        };
        self.problems.push(
            Problem::error(code, at, format!("there is no {word} `{name}`"))
                .label(format!("no such {word}"))
                .help(help),
        );
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, help: &str) {
        let what = format!("this is {}, where {wanted} belongs", node.kind());
        self.problems.push(
            Problem::error("config::wrong_type", node.at, what).label(format!("{wanted} belongs here")).help(help),
        );
    }

    fn int(&mut self, node: &Node, least: i64, most: i64, key: &Key) {
        match node.value {
            Value::Int(Some(n)) if (least..=most).contains(&n) => {}
            Value::Int(_) if key.name == "schema" => self.problems.push(
                Problem::error("config::schema", node.at, "this file is written for another version of strowger")
                    .label("unknown schema")
                    .help("this version reads `schema = 1`"),
            ),
            Value::Int(_) => self.problems.push(
                Problem::error("config::bad_value", node.at, format!("`{}` is not {least} to {most}", key.name))
                    .label("out of range")
                    .help(format!("{}: {least} to {most}", key.about)),
            ),
            _ => {
                let own = node.text().and_then(|t| t.trim().parse::<i64>().ok());
                let help = own.map_or("write digits without quotes".to_owned(), |n| {
                    format!("write it without quotes: `{} = {n}`", key.name)
                });
                self.wrong_type(node, "a whole number", &help);
            }
        }
    }

    fn secret(&mut self, node: &Node) {
        const KEYS: [&str; 4] = ["file", "credential", "env", "default"];
        const FORMS: &str =
            "write `{ file = \"…\" }`, `{ credential = \"…\" }`, `{ env = \"…\", default = \"…\" }` or a plain string";
        match &node.value {
            Value::Text(_) => {}
            Value::Table(entries) => {
                for entry in entries {
                    if !KEYS.contains(&entry.key.as_str()) {
                        let help = suggest(&entry.key, KEYS, "");
                        let what = format!("a secret has no key `{}`", entry.key);
                        self.problems.push(
                            Problem::error("config::unknown_key", entry.at, what).label("unknown key").help(help),
                        );
                    } else if entry.node.text().is_none() {
                        self.wrong_type(&entry.node, "a string", "put it into quotes");
                    }
                }
                let count = |names: &[&str]| entries.iter().filter(|e| names.contains(&e.key.as_str())).count();
                let sources = count(&KEYS[..3]);
                if sources != 1 || (count(&["default"]) == 1 && count(&["env"]) == 0) {
                    let what = "a secret comes from one place";
                    self.problems.push(Problem::error("config::secret", node.at, what).label("which?").help(FORMS));
                }
            }
            _ => self.wrong_type(node, "a secret", FORMS),
        }
    }

    fn text(&mut self, node: &Node, kind: &'static Kind, key: &Key, section: &Section) {
        let Some(text) = node.text() else {
            let help = match (&node.value, kind, key.need) {
                (Value::Date(date), ..) => format!("put it into quotes: `{} = \"{date}\"`", key.name),
                (Value::Int(Some(n)), ..) => {
                    format!("put it into quotes: `{} = \"{}\"`", key.name, meant::of_int(kind, *n))
                }
                (_, Kind::Choice(words), _) => format!("write one of these in quotes: {}", words.join(", ")),
                (_, _, Need::Required(e) | Need::Default(e) | Need::Optional(e)) if !e.is_empty() => {
                    format!("put it into quotes, e.g. `{} = {e}`", key.name)
                }
                _ => "put it into quotes".to_owned(),
            };
            self.wrong_type(node, "a string", &help);
            return;
        };
        let country = self.names.country;
        let bad = |code: &'static str, wrong: Result<(), String>, help: String| {
            wrong.err().map(|w| {
                let own = meant::meant(kind, text, country).filter(|own| own != text);
                let help = own.map_or(help, |own| format!("did you mean `{}`?", shorten(&own)));
                Problem::error(code, node.at, format!("`{}` {w}", shorten(text))).label("here").help(help)
            })
        };
        let say = |help: &str| help.to_owned();
        let problem = match kind {
            Kind::Words => bad("config::bad_value", value::words(text), say("write it on one line")),
            Kind::Name => bad("config::bad_value", value::name(text), say("1 to 100 characters")),
            Kind::Extension => bad("config::bad_value", value::extension(text), say("e.g. \"121\"")),
            Kind::Duration => bad(
                "config::bad_duration",
                value::duration(text).map(drop),
                say("write a number with ms, s, m, h, d or w: \"300ms\", \"30s\", \"1h30m\", \"180d\""),
            ),
            Kind::Size => bad(
                "config::bad_size",
                value::size(text).map(drop),
                say("write e.g. \"512KiB\", \"64MiB\" or \"1GiB\""),
            ),
            Kind::Zone => bad(
                "config::bad_zone",
                value::zone(text).map(drop),
                say("write the IANA name, e.g. \"Asia/Yekaterinburg\""),
            ),
            Kind::Country => bad("config::bad_region", value::country(text), say("by ISO 3166-1, e.g. \"RU\"")),
            Kind::Region => bad("config::bad_region", value::region(text), region_help(text)),
            Kind::E164 if section.name == schema::MOBILE.name && self.forbidden(node, text.parse().ok()) => None,
            Kind::E164 => bad(
                "config::bad_number",
                value::e164(text).map(drop),
                say("write + and 7 to 15 digits with the country code, e.g. \"+73433000001\""),
            ),
            Kind::Caller => {
                bad("config::bad_number", value::caller(text), say("write e.g. \"+79131234567\" or \"+7913*\""))
            }
            Kind::Address => bad(
                "config::bad_address",
                value::address(text).map(drop),
                say("write e.g. \"127.0.0.1:5060\" or \"[::1]:5060\"; 0.0.0.0 for all addresses"),
            ),
            Kind::Ip => bad(
                "config::bad_address",
                value::ip(text).map(drop),
                say("write an address without port, e.g. \"203.0.113.7\""),
            ),
            Kind::Cidr => bad("config::bad_cidr", value::cidr(text).map(drop), cidr_help(text)),
            Kind::Host => bad("config::bad_value", value::host(text), say("e.g. \"office.example\"")),
            Kind::SipUri => self.sip_uri(node, text),
            Kind::Header => bad("config::bad_value", header(text), say("e.g. \"X-Called-Number\"")),
            Kind::Url => {
                bad("config::bad_url", value::http_url(text), say("write e.g. \"http://127.0.0.1:9000/route\""))
            }
            Kind::StoreUrl => store_url(node, text),
            Kind::Date => bad("config::bad_date", value::date(text).map(drop), say("write \"2026-12-31\"")),
            Kind::Instant => bad("config::bad_date", value::instant(text).map(drop), say("write \"2026-11-21T00:00\"")),
            Kind::Hours => bad(
                "config::bad_hours",
                value::hours(text).map(drop),
                say(
                    "write e.g. \"mon-fri 09:00-18:00\"; until midnight is 24:00, over midnight is \"fri 22:00-06:00\"",
                ),
            ),
            Kind::HoursOfADay => bad(
                "config::bad_hours",
                value::hours_of_a_day(text).map(drop),
                say("write e.g. \"10:00-14:00\", or with days: \"mon-fri 10:00-14:00\""),
            ),
            Kind::Ports => bad("config::bad_ports", value::ports(text).map(drop), say("write e.g. \"20000-29999\"")),
            Kind::Park => bad("config::bad_value", value::park(text).map(drop), say("write e.g. \"751-759\"")),
            Kind::Pattern => bad(
                "config::bad_pattern",
                value::pattern(text),
                say(
                    "digits and + stand for themselves, X for any digit, a final . for one or more: \"8XXXXXXXXXX\", \"810X.\"",
                ),
            ),
            Kind::Prefix => bad(
                "config::bad_number",
                value::prefix(text).map(drop),
                say("write + and the first digits with the country code, without *: \"+7809\""),
            ),
            Kind::Code => bad("config::bad_code", value::code(text), say("1 to 10 of the digits, * and #")),
            Kind::Path | Kind::Glob => {
                bad("config::bad_value", path(text), say("name a file or folder, relative to this file"))
            }
            Kind::Choice(words) if !words.contains(&text) => Some(
                Problem::error("config::bad_choice", node.at, format!("`{}` is not a `{}`", shorten(text), key.name))
                    .label("not one of them")
                    .help(match alike(text, words.iter().copied()) {
                        Some(word) => format!("did you mean `{word}`?"),
                        None => format!("one of: {}", words.join(", ")),
                    }),
            ),
            Kind::Choice(_)
                if section.name == "listen" && key.name == "transport" && !matches!(text, "udp" | "tcp") =>
            {
                Some(
                    Problem::error("config::not_yet", node.at, format!("{text} is not yet there"))
                        .label("not yet")
                        .help("this version listens on udp and tcp; remove this [[listen]] for now"),
                )
            }
            Kind::Choice(_) => None,
            Kind::Ref(named) => {
                if !self.names.has(*named, text) {
                    let known: Vec<&str> = self.names.of(*named).collect();
                    self.nobody(node.part(0..text.len()), *named, text, &known, "config::unknown_name");
                }
                None
            }
            Kind::Target(place) => {
                self.target(node, *place);
                None
            }
            Kind::Bool
            | Kind::Int(..)
            | Kind::Secret
            | Kind::List(_)
            | Kind::Some(_)
            | Kind::Steps
            | Kind::Table(_)
            | Kind::Tables(_) => None,
        };
        self.problems.extend(problem);
    }

    fn sip_uri(&self, node: &Node, text: &str) -> Option<Problem> {
        match value::sip_uri(text) {
            Err(wrong) => Some(
                Problem::error("config::bad_uri", node.at, format!("`{}` {wrong}", shorten(text)))
                    .label("not a trunk's URI")
                    .help(match meant::meant(&Kind::SipUri, text, None) {
                        Some(own) if text.contains('@') => {
                            format!("did you mean `{own}`? The user belongs into `username`")
                        }
                        Some(own) => format!("did you mean `{own}`?"),
                        None => "write sip:HOST, sip:HOST:PORT or sip:HOST;transport=tcp".to_owned(),
                    }),
            ),
            Ok(uri) => {
                let later = uri.secure || matches!(uri.transport.as_deref(), Some("tls" | "ws" | "wss"));
                later.then(|| {
                    Problem::error("config::not_yet", node.at, "trunks over tls, ws and wss are not yet there")
                        .label("not yet")
                        .help("use sip: with udp or tcp")
                })
            }
        }
    }
}

fn header(text: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(token) {
        Err("is not the name of a header".to_owned())
    } else {
        Ok(())
    }
}

fn path(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('\0') { Err("is not a path".to_owned()) } else { Ok(()) }
}

fn store_url(node: &Node, text: &str) -> Option<Problem> {
    if let Some(file) = text.strip_prefix("sqlite:") {
        let problem = Problem::error("config::bad_url", node.at, "the store has no file").label("no file");
        return path(file).err().map(|_| problem.help("write sqlite:FILE, e.g. \"sqlite:strowger.db\""));
    }
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        let problem = Problem::error("config::not_yet", node.at, "PostgreSQL is not yet there").label("not yet");
        return Some(problem.help("use \"sqlite:strowger.db\" for now"));
    }
    let problem =
        Problem::error("config::bad_url", node.at, format!("`{}` is not a store", shorten(text))).label("not a store");
    Some(problem.help("write sqlite:FILE, e.g. \"sqlite:strowger.db\""))
}

fn cidr_help(text: &str) -> String {
    let address = text.split('/').next().unwrap_or_default();
    match address.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_ipv4() => format!("write `{ip}` alone, or with 0 to 32 behind the /: `{ip}/24`"),
        Ok(ip) => format!("write `{ip}` alone, or with 0 to 128 behind the /: `{ip}/64`"),
        Err(_) => "write addresses, not names: \"203.0.113.7\" or \"203.0.113.0/24\"".to_owned(),
    }
}

fn region_help(text: &str) -> String {
    // A name in any spelling of the registry; the country of a subdivision that we do not tell apart; a slip of the pen.
    let country = || text.split_once('-').and_then(|(land, _)| Country::parse(land)).filter(|c| *c != Country::RU);
    match Region::read(text).or_else(|| country().map(Region::from)) {
        Some(region) => format!("did you mean `{region}`?"),
        None => match alike(text, Region::all().map(Region::code)) {
            Some(name) if text.starts_with("RU") => format!("did you mean `{name}`?"),
            _ => "write country and part by ISO 3166-2, e.g. \"RU-SVE\", or a country: \"KZ\"".to_owned(),
        },
    }
}

/// A value as it may stand in a message.
fn shorten(text: &str) -> String {
    const MAX_QUOTED: usize = 60;
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_QUOTED).collect();
    if text.chars().count() > MAX_QUOTED { format!("{clean}…") } else { clean }
}
