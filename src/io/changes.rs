//! What a reload changes, in one line of the log: what is new, gone and otherwise, by name. Not what of it: the file says that.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use crate::directory::Directory;

/// Names of each kind that are shown.
const SHOWN: usize = 5;

/// The differences; `nothing` if there is none that a call could meet.
pub fn told(old: &Directory, new: &Directory) -> String {
    let mut parts = Vec::new();
    for ((kind, before), (_, after)) in tables(old).into_iter().zip(tables(new)) {
        let fresh = after.keys().filter(|name| !before.contains_key(*name));
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        let other =
            after.iter().filter(|(name, says)| before.get(*name).is_some_and(|was| was != *says)).map(|(n, _)| n);
        let lists = [("new", list(fresh)), ("gone", list(gone)), ("changed", list(other))];
        let words: Vec<String> = lists
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {names}"))
            .collect();
        if !words.is_empty() {
            parts.push(format!("{kind} {}", words.join(", ")));
        }
    }
    let (before, after) = (order(old), order(new));
    let both = |one: &[&str], other: &[&str]| -> Vec<String> {
        one.iter().filter(|name| other.contains(name)).map(ToString::to_string).collect()
    };
    if both(&before, &after) != both(&after, &before) {
        parts.push("routes in another order".to_owned());
    }
    if settings(old) != settings(new) {
        parts.push("settings changed".to_owned());
    }
    if parts.is_empty() { "nothing changed".to_owned() } else { parts.join("; ") }
}

type Table = BTreeMap<String, String>;

/// Everything that has a name, with what is said of it. Passwords are compared and shown nowhere.
fn tables(d: &Directory) -> [(&'static str, Table); 11] {
    [
        ("trunks:", table(&d.trunks, |t| (t.name.to_string(), t.password.as_ref().map(|p| p.0.to_string())))),
        ("numbers:", table(&d.numbers, |n| (n.e164.to_string(), None))),
        ("extensions:", table(&d.extensions, |e| (e.number.to_string(), Some(e.password.0.to_string())))),
        ("queues:", table(&d.queues, |q| (q.name.to_string(), None))),
        ("calendars:", table(&d.calendars, |c| (c.name.to_string(), None))),
        ("branches:", table(&d.branches, |b| (b.name.to_string(), None))),
        ("dealers:", table(&d.dealers, |x| (x.name.to_string(), None))),
        ("duties:", table(&d.duties, |x| (x.name.to_string(), None))),
        ("pages:", table(&d.pages, |p| (p.number.to_string(), None))),
        ("hooks:", table(&d.hooks, |h| (h.name.to_string(), None))),
        ("routes:", table(&d.routes, |r| (r.name.to_string(), None))),
    ]
}

fn table<T: Debug>(items: &[T], name: impl Fn(&T) -> (String, Option<String>)) -> Table {
    let entry = |item: &T| {
        let (name, secret) = name(item);
        (name, format!("{item:?} {secret:?}"))
    };
    items.iter().map(entry).collect()
}

/// The names of routes, whose order decides.
fn order(d: &Directory) -> Vec<&str> {
    d.routes.iter().map(|r| &*r.name).collect()
}

fn settings(d: &Directory) -> String {
    let mut text = String::new();
    let said = write!(text, "{:?} {:?} {:?} {:?}", d.node, d.media, d.recording, d.short_ring)
        .and_then(|()| write!(text, "{:?} {:?}", d.caller_id, d.dial));
    said.expect("a String takes everything");
    text
}

/// `121, 122 and 3 more`.
fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<&str>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Extension, Node, Queue, Route, Target};

    #[test]
    fn what_a_reload_changed() {
        let office = || {
            let mut d = Directory::empty(Node::new("n", "d"));
            d.extensions = ["121", "122"].map(|n| Extension::new(n, n, "a password")).to_vec();
            d.queues = vec![Queue::new("sales", vec!["121".into()])];
            d.routes = vec![Route::new("a", Target::Manager), Route::new("b", Target::Manager)];
            d
        };
        type Change = fn(&mut Directory);
        let cases: [(&str, Change); 6] = [
            ("nothing changed", |_| {}),
            ("extensions: new 1230, 1231, 1232, 1233, 1234 and 2 more, gone 122", |d| {
                d.extensions.pop();
                d.extensions.extend((0..7).map(|n| Extension::new(&format!("123{n}"), "x", "y")));
            }),
            ("extensions: changed 121", |d| {
                d.extensions[0].password = Extension::new("121", "121", "another").password
            }),
            ("queues: changed sales", |d| d.queues[0].agents.clear()),
            ("routes in another order", |d| d.routes.reverse()),
            ("settings changed", |d| d.dial.emergency.push("112".into())),
        ];
        for (want, change) in cases {
            let mut new = office();
            change(&mut new);
            let said = told(&office(), &new);
            assert_eq!(said, want);
            assert!(!said.contains("another password") && !said.contains("a password"));
        }
    }
}
