//! Hooks: what a shape needs, and keys that belong to another shape.

use super::{tables, text};
use crate::io::config::dom::Node;
use crate::io::config::problem::Problem;

/// Keys that only one shape reads.
const ONLY: [(&str, &str); 6] = [
    ("secret", "zadarma"),
    ("label", "sipuni"),
    ("pick", "sipuni"),
    ("is", "sipuni"),
    ("first", "sipuni"),
    ("second", "sipuni"),
];

pub fn check(root: &Node, problems: &mut Vec<Problem>) {
    for hook in tables(root, "hook") {
        let shape = text(hook, "shape").unwrap_or("strowger");
        for (key, owner) in ONLY.iter().filter(|(_, owner)| *owner != shape) {
            let Some(entry) = hook.entry(key) else { continue };
            let what = format!("`{key}` is for hooks of shape {owner}; this one is of shape {shape}");
            let problem = Problem::error("config::hook", entry.at, what).label("not read");
            problems.push(problem.help(format!("remove it, or write `shape = \"{owner}\"`")));
        }
        if shape == "sipuni" && hook.get("first").is_none() {
            let what = "a hook of shape sipuni picks one of two branches, and the first is missing";
            let problem = Problem::error("config::hook", hook.at, what).label("`first` is missing");
            problems
                .push(problem.help("add e.g. `first = [\"queue:sales\"]`, and `second` if the route is not to go on"));
        }
        if shape == "sipuni" && text(hook, "pick").is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
            let at = hook.get("pick").map_or(hook.at, |n| n.at);
            let problem = Problem::error("config::hook", at, "a JSON pointer begins with `/`").label("here");
            problems.push(problem.help("write e.g. `pick = \"/choice\"` (RFC 6901)"));
        }
    }
}
