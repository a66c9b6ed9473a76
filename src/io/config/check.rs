//! What only shows across tables.

use std::path::PathBuf;

use super::dom::Node;
use super::problem::{Place, Problem};
use super::secret::{Environment, Reader, Secrets, Use};
use super::walk::Names;

/// Looks at the whole tree.
pub fn across(
    root: &Node,
    _names: &Names,
    folder: &dyn Fn(Place) -> PathBuf,
    env: Environment<'_>,
    secrets: &mut Secrets,
    problems: &mut Vec<Problem>,
) {
    let reader = Reader { env, folder, exposed: exposed(root) };
    for (section, key) in [("extension", "password"), ("trunk", "password"), ("webhook", "secret")] {
        for item in root.get(section).map(Node::items).unwrap_or_default() {
            let Some(node) = item.get(key) else { continue };
            let what = match section {
                "extension" => Use::Extension(item.get("number").and_then(Node::text)),
                "trunk" => Use::Trunk,
                _ => Use::Other,
            };
            reader.read(node, what, secrets, problems);
        }
    }
    for token in root.get("http").and_then(|h| h.get("token")).map(Node::items).unwrap_or_default() {
        if let Some(node) = token.get("secret") {
            reader.read(node, Use::Other, secrets, problems);
        }
    }
}

/// The first listener that others can reach.
fn exposed(root: &Node) -> Option<(String, Place)> {
    let listen = root.get("listen").map(Node::items).unwrap_or_default();
    let binds = listen.iter().filter_map(|l| l.get("bind")).chain(root.get("http").and_then(|h| h.get("bind")));
    for bind in binds {
        let text = bind.text().unwrap_or_default();
        // What cannot be read is an error already and counts as loopback, so that it does not make more of them.
        if text.parse::<std::net::SocketAddr>().is_ok_and(|a| !a.ip().to_canonical().is_loopback()) {
            return Some((text.to_owned(), bind.at));
        }
    }
    None
}
