//! What only shows across tables: numbers that two things want, steps and routes that can never be reached, targets that run
//! in a circle, codes that hide each other, secrets.

mod dialled;
mod hooks;
mod reach;

use std::path::{Path, PathBuf};

use super::dom::{Node, Value};
use super::names::Names;
use super::problem::{Place, Problem};
use super::schema::Named;
use super::secret::{Environment, Reader, Secrets, Use};
use super::target::Parsed;
use super::value;
use crate::directory::Cidr;

/// Directory entries that a glob looks at, at most.
const MAX_GLOBBED: usize = 100_000;
/// Ports of a call with one stream: RTP and RTCP of two legs.
const PORTS_PER_CALL: usize = 4;

/// Looks at the whole tree.
pub fn across(
    root: &Node,
    names: &Names,
    folder: &dyn Fn(Place) -> PathBuf,
    env: Environment<'_>,
    secrets: &mut Secrets,
    problems: &mut Vec<Problem>,
) {
    listeners(root, problems);
    media(root, problems);
    trunks(root, problems);
    numbers(root, problems);
    people(root, problems);
    pages(root, problems);
    times(root, problems);
    dialled::check(root, problems);
    reach::check(root, &names.somebody(), problems);
    hooks::check(root, problems);
    files(root, folder, problems);
    passwords(root, folder, env, secrets, problems);
}

/// The tables under a name; none if it is something else.
fn tables<'a>(root: &'a Node, name: &str) -> &'a [Node] {
    root.get(name).map(Node::items).unwrap_or_default()
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.get(key).and_then(Node::text)
}

/// The texts of a list, or the one text, with their nodes.
fn texts<'a>(node: &'a Node, key: &str) -> impl Iterator<Item = (&'a Node, &'a str)> {
    node.get(key).map(Node::items).unwrap_or_default().iter().filter_map(|n| Some((n, n.text()?)))
}

fn listeners(root: &Node, problems: &mut Vec<Problem>) {
    let listen = tables(root, "listen");
    if listen.is_empty() {
        problems.push(
            Problem::error(
                "config::no_listener",
                root.at,
                "there is no [[listen]], so no phone and no carrier can reach us",
            )
            .label("no [[listen]] in here")
            .help("add:  [[listen]]  transport = \"udp\"  bind = \"0.0.0.0:5060\""),
        );
    }
    let mut seen: Vec<(&str, &str, Place)> = Vec::new();
    for one in listen {
        let (transport, Some(bind)) = (text(one, "transport").unwrap_or("udp"), one.get("bind")) else { continue };
        let Some(address) = bind.text() else { continue };
        if let Some((.., first)) = seen.iter().find(|(t, a, _)| *t == transport && *a == address) {
            problems.push(
                Problem::error("config::duplicate_listen", bind.at, format!("{transport} {address} is bound twice"))
                    .label("again here")
                    .other(*first, "first here")
                    .help("remove one of them"),
            );
        }
        seen.push((transport, address, bind.at));
    }
}

fn media(root: &Node, problems: &mut Vec<Problem>) {
    let Some(media) = root.get("media") else { return };
    let never = text(media, "relay") == Some("never");
    if never && let Some(mode) = root.get("recording").and_then(|r| r.get("mode")).filter(|m| m.text() == Some("all")) {
        let what = "nothing can be recorded while media does not pass through us";
        let problem = Problem::warning("config::no_media", mode.at, what).label("without effect");
        let relay = media.get("relay").map_or(media.at, |n| n.at);
        problems.push(problem.other(relay, "because of this").help("write `relay = \"always\"`, or `mode = \"none\"`"));
    }
    let Some(node) = media.get("ports") else { return };
    let Some(ports) = node.text().and_then(|t| value::ports(t).ok()) else { return };
    for one in tables(root, "listen").iter().filter(|l| text(l, "transport").unwrap_or("udp") == "udp") {
        let Some(bind) = one.get("bind") else { continue };
        let port = bind.text().and_then(|t| value::address(t).ok()).map(|a| a.port());
        if port.is_some_and(|p| ports.contains(&p)) {
            problems.push(
                Problem::error("config::bad_ports", node.at, "the RTP ports contain a port that SIP listens on")
                    .label("overlaps")
                    .other(bind.at, "this one")
                    .help("move the range, e.g. \"20000-29999\""),
            );
        }
    }
    let calls = ports.len() / PORTS_PER_CALL;
    let wanted: i64 =
        tables(root, "trunk").iter().filter_map(|t| t.get("max_calls")).map(|n| int(n).clamp(0, 1 << 20)).sum();
    if calls == 0 {
        problems.push(
            Problem::error("config::bad_ports", node.at, "these are too few ports for a single call")
                .label("too few")
                .help("a call needs 4: RTP and RTCP on both sides; write e.g. \"20000-29999\""),
        );
    } else if !never && usize::try_from(wanted).is_ok_and(|w| w > calls) {
        let what = format!("there are ports for {calls} calls, and the trunks may carry {wanted}");
        let help = format!("a call needs 4 ports; make the range {} ports wide or more", wanted.saturating_mul(4));
        problems.push(Problem::warning("config::few_ports", node.at, what).label("too few").help(help));
    }
}

fn int(node: &Node) -> i64 {
    match node.value {
        Value::Int(Some(n)) => n,
        _ => 0,
    }
}

fn trunks(root: &Node, problems: &mut Vec<Problem>) {
    for trunk in tables(root, "trunk") {
        let name = text(trunk, "name").unwrap_or_default();
        let mut need = |there: &str, why: &str, missing: &str| {
            let Some(node) = trunk.get(there) else { return };
            let problem =
                Problem::error("config::missing_key", node.at, format!("trunk \"{name}\" has no `{missing}`"));
            problems.push(problem.label(why.to_owned()).help(format!("add `{missing} = …`, as the carrier gave it")));
        };
        let registers = trunk.get("register").is_some_and(|n| matches!(n.value, Value::Bool(true)));
        match (trunk.get("username").is_some(), trunk.get("password").is_some()) {
            (true, false) => need("username", "a user without a password", "password"),
            (false, true) => need("password", "a password without a user", "username"),
            (false, false) if registers => need("register", "registering needs a user and a password", "username"),
            (false, false) | (true, true) => {}
        }
        if let Some(uri) = trunk.get("uri").filter(|n| matches!(&n.value, Value::List(items) if items.is_empty())) {
            let problem =
                Problem::error("config::bad_uri", uri.at, format!("trunk \"{name}\" has no URI")).label("empty");
            problems.push(problem.help("write e.g. [\"sip:192.0.2.1:5060\"]"));
        }
        for (node, block) in texts(trunk, "allow_from") {
            let open = value::cidr(block).is_ok_and(|c| c.prefix == 0);
            if open {
                let what = format!("trunk \"{name}\" takes calls from everyone");
                let problem = Problem::warning("config::open_trunk", node.at, what).label("all addresses");
                problems.push(problem.help("name the carrier's addresses"));
            }
        }
    }
    shared(root, problems);
}

/// Trunks of which two take calls from one address: once for each two. Not on loopback, where all carriers of a trial are.
fn shared(root: &Node, problems: &mut Vec<Problem>) {
    let trunks = tables(root, "trunk");
    let blocks = |trunk: &Node| -> Vec<(Place, Cidr)> {
        let read = |(node, block): (&Node, &str)| Some((node.at, value::cidr(block).ok()?));
        let narrow = |(_, block): &(Place, Cidr)| block.prefix > 0 && !block.address.is_loopback();
        texts(trunk, "allow_from").filter_map(read).filter(narrow).collect()
    };
    let all: Vec<(&str, Vec<(Place, Cidr)>)> =
        trunks.iter().map(|t| (text(t, "name").unwrap_or_default(), blocks(t))).collect();
    for (i, (name, own)) in all.iter().enumerate() {
        for (other, theirs) in &all[..i] {
            let both = own.iter().find_map(|(at, a)| {
                let same = |b: &Cidr| a.contains(b.address) || b.contains(a.address);
                theirs
                    .iter()
                    .find(|(_, b)| same(b))
                    .map(|(first, b)| (*at, *first, if a.prefix > b.prefix { a } else { b }))
            });
            let Some((at, first, block)) = both else { continue };
            let from = match block.prefix {
                32 | 128 => block.address.to_string(),
                prefix => format!("{}/{prefix}", block.address),
            };
            let what = format!("trunks \"{other}\" and \"{name}\" both take calls from {from}");
            let problem =
                Problem::warning("config::shared_address", at, what).label("again here").other(first, "first here");
            let help = "a call from there is taken for the trunk that owns the number called; if they are two carriers, name the \
                        addresses of each";
            problems.push(problem.help(help));
        }
    }
}

fn numbers(root: &Node, problems: &mut Vec<Problem>) {
    let hidden = |e164: &str| {
        let found = tables(root, "number").iter().find(|n| text(n, "e164") == Some(e164));
        found.and_then(|n| n.get("show")).filter(|n| matches!(n.value, Value::Bool(false)))
    };
    let mut shown = |node: &Node| {
        if let Some(show) = node.text().and_then(hidden) {
            let what = format!("{} is never shown, so it cannot be a caller ID", node.text().unwrap_or_default());
            let problem = Problem::error("config::hidden_number", node.at, what).label("not to be shown");
            problems.push(
                problem
                    .other(show.at, "because of this")
                    .help("name another number of yours, or remove `show = false`"),
            );
        }
    };
    root.get("caller_id").and_then(|c| c.get("default")).into_iter().for_each(&mut shown);
    tables(root, "branch").iter().filter_map(|b| b.get("caller_id")).for_each(&mut shown);
}

fn people(root: &Node, problems: &mut Vec<Problem>) {
    let paging = |number: &str| {
        let mut extensions = tables(root, "extension").iter();
        extensions.any(|e| text(e, "number") == Some(number) && text(e, "kind") == Some("paging"))
    };
    for queue in tables(root, "queue") {
        for (node, target) in texts(queue, "agents") {
            if let Ok(Parsed::Named(Named::Extension, number, _)) = Parsed::read(target)
                && paging(number)
            {
                let what = format!("extension {number} is a loudspeaker, which never answers a queue");
                let problem = Problem::error("config::wrong_target", node.at, what).label("kind = \"paging\"");
                problems.push(problem.help("name a phone"));
            }
        }
        if let Some(agents) = queue.get("agents").filter(|n| matches!(&n.value, Value::List(items) if items.is_empty()))
        {
            let what = format!("nobody answers queue \"{}\"", text(queue, "name").unwrap_or_default());
            let problem = Problem::error("config::no_agents", agents.at, what).label("empty");
            problems.push(problem.help("write e.g. [\"extension:121\"] or [\"group:sales\"]"));
        }
    }
    if let Some(digest) = root.get("node").and_then(|n| n.get("digest"))
        && matches!(&digest.value, Value::List(items) if items.is_empty())
    {
        let problem = Problem::error("config::bad_value", digest.at, "without a digest nobody can prove who he is")
            .label("empty");
        problems.push(problem.help("write [\"md5\", \"sha-256\"]"));
    }
}

/// Whoever listens to a group has no way back.
fn pages(root: &Node, problems: &mut Vec<Problem>) {
    for page in tables(root, "page").iter().filter(|page| text(page, "mode") == Some("talkback")) {
        for (node, target) in texts(page, "members") {
            if matches!(Parsed::read(target), Ok(Parsed::Multicast(_) | Parsed::Polycom(..))) {
                let what = format!("who listens to `{target}` cannot talk back");
                let mut problem = Problem::warning("config::one_way", node.at, what).label("one-way by nature");
                if let Some(mode) = page.get("mode") {
                    problem = problem.other(mode.at, "the page's other members can");
                }
                problems.push(
                    problem.help("name a loudspeaker that is to be heard as an extension; else nothing is wrong"),
                );
            }
        }
    }
}

fn times(root: &Node, problems: &mut Vec<Problem>) {
    for (section, key) in [("queue", "ring"), ("hook", "timeout"), ("page", "max")] {
        for node in tables(root, section).iter().filter_map(|t| t.get(key)) {
            if node.text().is_some_and(|t| value::duration(t).is_ok_and(|d| d.is_zero())) {
                let problem =
                    Problem::error("config::bad_duration", node.at, format!("`{key}` of no time at all")).label("zero");
                problems.push(problem.help("write e.g. \"20s\"; to leave something out, remove its line"));
            }
        }
    }
    for except in tables(root, "calendar").iter().flat_map(|c| tables(c, "except")) {
        let date = |key: &str| except.get(key).and_then(|n| Some((n, value::date(n.text()?).ok()?)));
        let Some((from, first)) = date("date") else { continue };
        let until = date("until");
        if let Some((node, last)) = until
            && last < first
        {
            let problem = Problem::error("config::bad_date", node.at, "these days end before they begin").label("ends");
            problems.push(problem.other(from.at, "begins").help("put the later day into `until`"));
            continue;
        }
        let length = until.map_or(0, |(_, last)| (last - first).get_days()).min(6);
        let mut on: Vec<usize> = Vec::new();
        on.extend((0..=length).map(|i| (first.weekday().to_monday_zero_offset() as i32 + i) as usize % 7));
        for (node, hours) in texts(except, "hours") {
            if value::hours_of_a_day(hours).is_ok_and(|(days, _)| !on.iter().any(|d| days[*d])) {
                let what = format!("`{hours}` names none of these days: {first} is a {:?}", first.weekday());
                let problem = Problem::error("config::bad_hours", node.at, what).label("other days");
                problems.push(problem.other(from.at, "begins").help("write the hours alone: \"10:00-14:00\""));
            }
        }
    }
    for turn in tables(root, "duty").iter().flat_map(|d| tables(d, "roster")) {
        let (Some(from), Some(until)) = (turn.get("from"), turn.get("until")) else { continue };
        let instant = |n: &Node| n.text().and_then(|t| value::instant(t).ok());
        if let (Some(a), Some(b)) = (instant(from), instant(until))
            && b <= a
        {
            let problem =
                Problem::error("config::bad_date", until.at, "this turn of duty ends before it begins").label("ends");
            problems.push(problem.other(from.at, "begins").help("put the later instant into `until`"));
        }
    }
    for dealer in tables(root, "dealer") {
        let name = text(dealer, "name").unwrap_or_default();
        if let (Some(hours), Some(calendar)) = (dealer.get("hours"), dealer.get("calendar")) {
            let what = format!("dealer \"{name}\" has both `hours` and `calendar`");
            let problem =
                Problem::error("config::bad_value", calendar.at, what).label("and this").other(hours.at, "this");
            problems.push(problem.help("keep one of them"));
        }
        if dealer.get("to").is_none() && dealer.get("dealers").is_none() {
            let what = format!("dealer \"{name}\" has neither `to` nor `dealers`");
            let problem = Problem::warning("config::leads_nowhere", dealer.at, what).label("leads nowhere");
            problems.push(problem.help("add e.g. `to = [\"number:+73842000001\"]`"));
        }
    }
    for route in tables(root, "route") {
        let Some(when) = route.get("when") else { continue };
        for (there, missing) in [("calendar", "is"), ("is", "calendar")] {
            if let (Some(node), None) = (when.get(there), when.get(missing)) {
                let problem = Problem::error(
                    "config::missing_key",
                    node.at,
                    format!("`{there}` says nothing without `{missing}`"),
                );
                let help = "write e.g. { calendar = \"office\", is = [\"closed\", \"holiday\"] }";
                problems.push(problem.label(format!("`{missing}` is missing")).help(help));
            }
        }
    }
}

fn files(root: &Node, folder: &dyn Fn(Place) -> PathBuf, problems: &mut Vec<Problem>) {
    let calendars = tables(root, "calendar").iter().flat_map(|c| texts(c, "holidays"));
    let numbering = root.get("numbering").into_iter().flat_map(|n| texts(n, "files"));
    for (node, glob) in calendars.chain(numbering) {
        if matching(&folder(node.at), glob).is_empty() {
            let problem = Problem::warning("config::no_match", node.at, format!("no file matches `{glob}`"))
                .label("nothing there");
            problems.push(problem.help(format!("looked in {}", shown(&folder(node.at)))));
        }
    }
}

fn shown(folder: &Path) -> String {
    if folder.as_os_str().is_empty() { "the current folder".to_owned() } else { folder.display().to_string() }
}

/// The files that match a path whose last part may hold `*`, in the order of their names.
pub(super) fn matching(folder: &Path, glob: &str) -> Vec<PathBuf> {
    let path = folder.join(glob);
    let Some(name) = path.file_name().map(|n| n.to_string_lossy().into_owned()) else { return Vec::new() };
    if !name.contains('*') {
        return if path.is_file() { vec![path] } else { Vec::new() };
    }
    // A bare file name has the empty parent, which is the current folder.
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let fits = |path: &PathBuf| path.file_name().is_some_and(|n| glob_fits(&name, &n.to_string_lossy()));
    let mut found: Vec<PathBuf> = entries.take(MAX_GLOBBED).filter_map(|e| Some(e.ok()?.path())).filter(fits).collect();
    found.sort();
    found
}

/// `*` stands for any characters.
fn glob_fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(tail) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

fn passwords(
    root: &Node,
    folder: &dyn Fn(Place) -> PathBuf,
    env: Environment<'_>,
    secrets: &mut Secrets,
    problems: &mut Vec<Problem>,
) {
    let reader = Reader { env, folder, exposed: exposed(root) };
    for (section, key) in [("extension", "password"), ("trunk", "password"), ("hook", "secret"), ("webhook", "secret")]
    {
        for item in tables(root, section) {
            let Some(node) = item.get(key) else { continue };
            let what = match section {
                "extension" => Use::Extension(text(item, "number")),
                "trunk" => Use::Trunk,
                _ => Use::Other,
            };
            reader.read(node, what, secrets, problems);
        }
    }
    let extensions = tables(root, "extension").iter().filter_map(|e| Some((text(e, "number")?, e.get("password")?)));
    reader.short(&extensions.collect::<Vec<_>>(), secrets, problems);
    for node in root.get("http").into_iter().flat_map(|h| tables(h, "token")).filter_map(|t| t.get("secret")) {
        reader.read(node, Use::Other, secrets, problems);
    }
}

/// The first listener that others can reach.
fn exposed(root: &Node) -> Option<(String, Place)> {
    let binds = tables(root, "listen").iter().filter_map(|l| l.get("bind"));
    for bind in binds.chain(root.get("http").and_then(|h| h.get("bind"))) {
        let text = bind.text().unwrap_or_default();
        // What cannot be read is an error already and counts as loopback, so that it does not make more of them.
        if value::address(text).is_ok_and(|a| !a.ip().to_canonical().is_loopback()) {
            return Some((text.to_owned(), bind.at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, want) in [
            ("*.csv", "a.csv", true),
            ("ru-*.json", "ru-2026.json", true),
            ("ru-*.json", "ru-2026.xml", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXc", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob_fits(pattern, name), want, "{pattern} {name}");
        }
    }
}
