//! What only shows on the machine that `check` runs on: addresses that it has, folders that can be written, and the categories of
//! the contacts that were imported. The server may be another machine or another user, so most of it is a warning; the server
//! itself finds out when it starts.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use super::Files;
use super::dom::Node;
use super::problem::{Place, Problem, suggest};
use super::value;
use crate::io::import::imported::Imported;
use crate::io::record;

/// Looks around.
pub fn check(root: &Node, data_dir: &Path, files: &Files, problems: &mut Vec<Problem>) {
    addresses(root, problems);
    let of = |section: &str, key: &str| root.get(section)?.get(key).map(|node| node.at);
    folder(data_dir, "data_dir", "the data directory", of("node", "data_dir"), problems);
    if records(root) {
        folder(&files.recordings, "dir", "recordings", of("recording", "dir"), problems);
    }
    categories(root, &files.imported, problems);
}

fn addresses(root: &Node, problems: &mut Vec<Problem>) {
    let listen = root.get("listen").map(Node::items).unwrap_or_default();
    let binds = listen.iter().filter_map(|l| l.get("bind")).filter_map(|bind| {
        let address = value::address(bind.text()?).ok()?;
        Some((bind.at, address.ip()))
    });
    let media = root.get("media").filter(|m| m.get("relay").and_then(Node::text) != Some("never"));
    let media = media.and_then(|m| m.get("bind")).and_then(|bind| Some((bind.at, value::ip(bind.text()?).ok()?)));
    for (at, ip) in binds.chain(media).filter(|(_, ip)| is_elsewhere(*ip)) {
        let what = format!("{ip} is no address of this machine: `serve` would not start on it");
        let problem = Problem::warning("config::not_here", at, what).label("not here");
        problems.push(problem.help("`ip addr` shows which it has; 0.0.0.0 stands for all of them"));
    }
}

fn is_elsewhere(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Whether `all` stands behind any `mode` or `record`.
fn records(node: &Node) -> bool {
    let all = |key: &str, node: &Node| matches!(key, "mode" | "record") && node.text() == Some("all");
    node.entries().iter().any(|e| all(&e.key, &e.node) || e.node.items().iter().any(records))
}

/// A folder that is to be written, or to be made.
fn folder(path: &Path, key: &str, what: &str, at: Option<Place>, problems: &mut Vec<Problem>) {
    let Err((blocked, error)) = probe(path) else { return };
    let shown = path.display();
    let never = matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::ReadOnlyFilesystem);
    let place = at.unwrap_or_default();
    let (problem, help) = match never {
        true => {
            let why = if error.kind() == io::ErrorKind::NotADirectory { "is no folder" } else { "is read-only" };
            let what = match blocked == path {
                true => format!("{what} cannot be written: {shown} {why}"),
                false => format!("{what} cannot be written into {shown}: {} {why}", blocked.display()),
            };
            (Problem::error("config::folder", place, what), format!("name another folder in `{key}`"))
        }
        false => {
            let what = format!("{what}: this user cannot write into {shown}: {error}");
            let help = "the user that runs `serve` must be able to; if that is another one, all may be well".to_owned();
            (Problem::warning("config::folder", place, what), help)
        }
    };
    problems.push(Problem { at, ..problem.label("here").help(help) });
}

/// Tries to write into a folder, or where it would be made; where it failed.
fn probe(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    // A path without a folder in front stands in the current one.
    let there = |p: &Path| if p.as_os_str().is_empty() { PathBuf::from(".") } else { p.to_owned() };
    for ancestor in path.ancestors().map(there) {
        match std::fs::metadata(&ancestor) {
            Ok(found) if found.is_dir() => return record::probe(&ancestor).map_err(|error| (ancestor, error)),
            Ok(_) => return Err((ancestor, io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file stands in the way further up, and that is what to name.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err((ancestor, error)),
        }
    }
    Ok(())
}

/// Categories that routes ask for and no imported contact has.
fn categories(root: &Node, database: &Path, problems: &mut Vec<Problem>) {
    // Where the list cannot be read, or none was imported, there is nothing to say.
    let Ok(Some(known)) = Imported::look(database).and_then(|db| db.map(|db| db.categories()).transpose()) else {
        return;
    };
    if known.is_empty() {
        return;
    }
    let routes = root.get("route").map(Node::items).unwrap_or_default();
    let asked = routes.iter().filter_map(|r| r.get("when")?.get("category")).flat_map(Node::items);
    for (node, category) in asked.filter_map(|node| Some((node, node.text()?))) {
        let same = |name: &String| name.to_lowercase() == category.to_lowercase();
        // Whoever is in no directory.
        if category == "unknown" || known.iter().any(same) {
            continue;
        }
        let what = format!("no imported contact has the category `{category}`");
        let problem = Problem::warning("config::no_category", node.at, what).label("nobody");
        problems.push(problem.help(suggest(category, known.iter().map(String::as_str), "")));
    }
}
