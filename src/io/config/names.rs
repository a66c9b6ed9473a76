//! What has names in a configuration, so that what refers to them can be held against it. A name that stands there with a mistake in
//! it counts as what was meant by it: the mistake is told once, where it is.

use std::collections::{BTreeMap, BTreeSet};

use super::dom::{Node, Value};
use super::problem::alike;
use super::schema::{self, Kind, Named, Section};
use super::{meant, value};
use crate::directory::{Country, Dial, Prefix};

/// What has names.
#[derive(Debug, Default)]
pub struct Names {
    all: BTreeMap<Named, Vec<String>>,
    /// Kinds of which an entry has no name that can be read: any name may be that one's.
    nameless: BTreeSet<Named>,
    /// Whose numbers are written in national form.
    pub(super) country: Option<Country>,
    /// Group and branch of every extension that is in a group.
    pub(super) members: Vec<(String, Option<String>)>,
    /// How numbers begin that no call may go to.
    pub(super) forbidden: Vec<Prefix>,
}

/// Sections, the key that names their entries, and what they are.
pub const NAMED: [(&str, &str, Named); 11] = [
    ("trunk", "name", Named::Trunk),
    ("number", "e164", Named::Number),
    ("extension", "number", Named::Extension),
    ("queue", "name", Named::Queue),
    ("branch", "name", Named::Branch),
    ("calendar", "name", Named::Calendar),
    ("duty", "name", Named::Duty),
    ("dealer", "name", Named::Dealer),
    ("hook", "name", Named::Hook),
    ("page", "number", Named::Page),
    ("pool", "name", Named::Pool),
];

impl Names {
    /// Collects all names of a tree.
    pub fn collect(root: &Node) -> Names {
        let country = root.get("node").and_then(|n| n.get("country")).and_then(Node::text);
        let country = country.map_or(Some(Country::RU), Country::parse);
        let mut names = Names { country, ..Names::default() };
        for (section, key, named) in NAMED {
            let list = names.all.entry(named).or_default();
            for item in root.get(section).map(Node::items).unwrap_or_default() {
                // A name with a mistake in it is told once, where it stands: what refers to it is right.
                match item.get(key).and_then(|node| Names::read(node, named, country)) {
                    Some(name) => list.push(name),
                    None => drop(names.nameless.insert(named)),
                }
            }
        }
        let mut groups: Vec<String> = Vec::new();
        for extension in root.get("extension").map(Node::items).unwrap_or_default() {
            let branch = extension.get("branch").and_then(Node::text).map(str::to_owned);
            for group in extension.get("groups").map(Node::items).unwrap_or_default() {
                if let Some(text) = group.text() {
                    names.members.push((text.to_owned(), branch.clone()));
                    if !groups.iter().any(|g| g == text) {
                        groups.push(text.to_owned());
                    }
                }
            }
        }
        names.all.insert(Named::Group, groups);
        names.forbidden = match root.get("dial").and_then(|d| d.get("forbidden")) {
            Some(own) => own.items().iter().filter_map(|n| n.text()?.parse().ok()).collect(),
            None => Dial::default().forbidden,
        };
        names
    }

    /// The name of a thing, as it was meant.
    fn read(node: &Node, named: Named, country: Option<Country>) -> Option<String> {
        let (kind, right): (Kind, fn(&str) -> bool) = match named {
            Named::Number => (Kind::E164, |t| value::e164(t).is_ok()),
            Named::Extension | Named::Page => (Kind::Extension, |t| value::extension(t).is_ok()),
            _ => (Kind::Name, |t| value::name(t).is_ok()),
        };
        let text = match node.value {
            Value::Int(Some(n)) => meant::of_int(&kind, n),
            _ => node.text()?.to_owned(),
        };
        if right(&text) { Some(text) } else { meant::meant(&kind, &text, country) }
    }

    /// Whether there is one, for sure.
    pub fn knows(&self, named: Named, name: &str) -> bool {
        self.of(named).any(|n| n == name)
    }

    /// Whether there is one, or may be: an entry whose name cannot be read.
    pub fn has(&self, named: Named, name: &str) -> bool {
        self.knows(named, name) || self.nameless.contains(&named)
    }

    /// All of a kind.
    pub fn of(&self, named: Named) -> impl Iterator<Item = &str> {
        self.all.get(&named).into_iter().flatten().map(String::as_str)
    }

    /// Somebody of the file who may be named where an example is wanted.
    pub fn somebody(&self) -> String {
        let first = |named: Named| self.of(named).next().map(|name| format!("{}:{name}", named.word()));
        first(Named::Queue).or_else(|| first(Named::Extension)).unwrap_or_else(|| "queue:sales".to_owned())
    }
}

/// Gives misspelled keys the names that were probably meant, so that what else looks at the tree misses nothing that is there. The
/// walk tells of them.
pub fn respell(node: &mut Node, section: &'static Section) {
    let Value::Table(entries) = &mut node.value else { return };
    for i in 0..entries.len() {
        let known = section.keys.iter().map(|k| k.name);
        let (written, all) = (&entries[i].key, &*entries);
        let free = known.clone().filter(|name| !all.iter().any(|e| e.key == *name));
        if !known.clone().any(|name| name == written)
            && let Some(name) = alike(written, free)
            && alike(written, known) == Some(name)
        {
            entries[i].written = Some(std::mem::replace(&mut entries[i].key, name.to_owned()));
        }
    }
    for entry in entries {
        let Some(key) = section.keys.iter().find(|k| k.name == entry.key) else { continue };
        let inner = match &key.kind {
            Kind::Table(inner) | Kind::Tables(inner) => inner,
            Kind::Steps => &schema::STEP,
            _ => continue,
        };
        match &mut entry.node.value {
            Value::List(items) => items.iter_mut().for_each(|item| respell(item, inner)),
            _ => respell(&mut entry.node, inner),
        }
    }
}
