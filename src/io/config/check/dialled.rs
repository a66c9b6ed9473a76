//! Everything that can be dialled shares one space: extensions, queues, pages, codes, park places, outside numbers. No two
//! may want the same digits, and none may hide an emergency number unsaid.

use std::collections::BTreeMap;

use super::super::dom::Node;
use super::super::problem::{Place, Problem};
use super::super::value;
use super::{tables, text, texts};
use crate::directory::number::fits;

/// Looks at everything that can be dialled.
pub fn check(root: &Node, problems: &mut Vec<Problem>) {
    let users = users(root);
    duplicates(&users, problems);
    emergency(root, &users, problems);
    let Some(dial) = root.get("dial") else { return };
    codes(dial, &users, problems);
    outside(dial, &users, problems);
    in_call(dial, problems);
}

/// Something that is dialled by its whole name.
struct User<'a> {
    dialled: &'a str,
    what: &'static str,
    at: Place,
}

fn users(root: &Node) -> Vec<User<'_>> {
    const USERS: [(&str, &str, &str); 8] = [
        ("extension", "number", "extension"),
        ("queue", "number", "number of a queue"),
        ("queue", "name", "queue"),
        ("branch", "number", "number of a branch"),
        ("branch", "name", "branch"),
        ("dealer", "number", "number of a dealer"),
        ("dealer", "name", "dealer"),
        ("page", "number", "page"),
    ];
    let mut users = Vec::new();
    for (section, key, what) in USERS {
        for node in tables(root, section).iter().filter_map(|t| t.get(key)) {
            if let Some(dialled) = node.text() {
                users.push(User { dialled, what, at: node.at });
            }
        }
    }
    users
}

fn duplicates(users: &[User<'_>], problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<&str, &User<'_>> = BTreeMap::new();
    for user in users {
        let Some(first) = seen.get(user.dialled) else {
            seen.insert(user.dialled, user);
            continue;
        };
        // Two of one table are told by the walk; a queue may bear one name with a branch, but not be dialled alike.
        if first.what == user.what {
            continue;
        }
        problems.push(
            Problem::error(
                "config::duplicate_number",
                user.at,
                format!("`{}` is both {} and {}", user.dialled, a(first.what), a(user.what)),
            )
            .label(format!("{} here", user.what))
            .other(first.at, format!("{} here", first.what))
            .help("both would be reached by it: give one of them another"),
        );
    }
}

fn a(what: &str) -> String {
    if what.starts_with(['a', 'e', 'i', 'o', 'u']) { format!("an {what}") } else { format!("a {what}") }
}

/// Emergency numbers of a country.
fn emergency_numbers(country: &str) -> &'static [&'static str] {
    match country {
        "RU" => &["101", "102", "103", "104", "112"],
        "KZ" => &["101", "102", "103", "104", "112"],
        "US" | "CA" => &["911"],
        "GB" => &["112", "999"],
        _ => &["112"],
    }
}

fn emergency(root: &Node, users: &[User<'_>], problems: &mut Vec<Problem>) {
    let country = root.get("node").and_then(|n| text(n, "country")).unwrap_or("RU");
    let of_country = emergency_numbers(country);
    let own = root.get("dial").map(|d| texts(d, "emergency").map(|(_, t)| t).collect::<Vec<_>>()).unwrap_or_default();
    let nobody = root.get("dial").and_then(|d| d.get("emergency")).filter(|list| list.items().is_empty());
    if let Some(list) = nobody.filter(|_| !tables(root, "trunk").is_empty()) {
        let what = "no phone here can call for help: there is no emergency number";
        let problem = Problem::warning("config::no_emergency", list.at, what).label("empty");
        problems.push(problem.help(format!("name those of the country: {}", quoted(of_country))));
    }
    for user in users.iter().filter(|u| of_country.contains(&u.dialled) || own.contains(&u.dialled)) {
        problems.push(
            Problem::warning(
                "config::hides_emergency",
                user.at,
                format!(
                    "nobody can call {} for help: {} {} hides that emergency number",
                    user.dialled, user.what, user.dialled
                ),
            )
            .label("an emergency number")
            .help("who dials it reaches this instead; give this another number"),
        );
    }
}

fn quoted(numbers: &[&str]) -> String {
    let numbers: Vec<String> = numbers.iter().map(|n| format!("\"{n}\"")).collect();
    numbers.join(", ")
}

/// Codes that something may follow, with what they are for.
const CODES: [&str; 8] = ["intercom", "forward_on", "forward_off", "dnd_on", "dnd_off", "pause", "pickup", "listen"];
/// Codes that take an argument directly behind them.
const OPEN: [&str; 4] = ["intercom", "forward_on", "pickup", "listen"];

fn codes(dial: &Node, users: &[User<'_>], problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    for key in CODES {
        let Some(node) = dial.get(key) else { continue };
        let Some(code) = node.text() else { continue };
        if let Some(first) = seen.get(code) {
            problems.push(
                Problem::error("config::duplicate_code", node.at, format!("`{code}` has two meanings"))
                    .label("again here")
                    .other(*first, "first here")
                    .help("give one of them another code"),
            );
            continue;
        }
        seen.insert(code, node.at);
        let hidden = |u: &&User<'_>| {
            u.dialled == code || (OPEN.contains(&key) && !code.is_empty() && u.dialled.starts_with(code))
        };
        for user in users.iter().filter(hidden) {
            problems.push(
                Problem::error(
                    "config::overlapping_dial",
                    node.at,
                    format!("the code `{code}` overlaps with {} {}", user.what, user.dialled),
                )
                .label("begins it")
                .other(user.at, format!("this {}", user.what))
                .help("begin codes with * so that they never look like a number"),
            );
        }
    }
    let Some(node) = dial.get("park") else { return };
    let Some(range) = node.text().and_then(|t| value::park(t).ok()) else { return };
    let inside =
        |u: &&User<'_>| u.dialled.parse::<u32>().is_ok_and(|n| range.contains(&n) && n.to_string() == u.dialled);
    for user in users.iter().filter(inside) {
        problems.push(
            Problem::error(
                "config::overlapping_dial",
                node.at,
                format!("the park places contain {} {}", user.what, user.dialled),
            )
            .label("contains it")
            .other(user.at, format!("this {}", user.what))
            .help("move the park places or the number"),
        );
    }
    for (emergency, number) in texts(dial, "emergency") {
        let parked = number.parse::<u32>().is_ok_and(|n| range.contains(&n) && n.to_string() == number);
        if parked || seen.contains_key(number) {
            let what = format!("{number} is an emergency number and something else besides");
            let problem = Problem::error("config::overlapping_dial", emergency.at, what).label("taken twice");
            problems.push(problem.help("give the code or the park places another number"));
        }
    }
}

fn outside(dial: &Node, users: &[User<'_>], problems: &mut Vec<Problem>) {
    for (node, pattern) in texts(dial, "outside") {
        for user in users.iter().filter(|u| fits(pattern, u.dialled)) {
            problems.push(
                Problem::warning(
                    "config::overlapping_dial",
                    node.at,
                    format!("`{pattern}` also fits {} {}", user.what, user.dialled),
                )
                .label("fits both")
                .other(user.at, format!("this {}", user.what))
                .help("who dials that reaches the inside, never the outside number; make the pattern narrower"),
            );
        }
    }
}

fn in_call(dial: &Node, problems: &mut Vec<Problem>) {
    let Some(keys) = dial.get("in_call") else { return };
    let codes: Vec<(&str, &Node)> = keys.entries().iter().filter_map(|e| Some((e.node.text()?, &e.node))).collect();
    for (i, (code, node)) in codes.iter().enumerate() {
        let clash = codes[..i].iter().find(|(other, _)| code.starts_with(other) || other.starts_with(code));
        if let Some((other, first)) = clash {
            let what = match code == other {
                true => format!("`{code}` has two meanings"),
                false => format!("`{code}` and `{other}` begin alike, so the shorter one always wins"),
            };
            let problem =
                Problem::error("config::duplicate_code", node.at, what).label("this").other(first.at, "and this");
            problems.push(problem.help("let none be the beginning of another"));
        }
    }
}
