//! What can be reached: steps behind one that ends the call, routes behind one that always holds, and targets that lead to
//! each other in a circle without anything that could be otherwise at run time.

use std::collections::BTreeMap;

use super::super::dom::{Node, Value};
use super::super::problem::{Place, Problem};
use super::super::schema::Named;
use super::super::target::Parsed;
use super::super::value;
use super::{tables, text, texts};

/// Looks at all steps, routes and circles.
pub fn check(root: &Node, somebody: &str, problems: &mut Vec<Problem>) {
    let lists = [("route", "to"), ("queue", "overflow"), ("branch", "to"), ("dealer", "to"), ("duty", "otherwise")];
    for (section, key) in lists {
        for owner in tables(root, section).iter().filter_map(|t| t.get(key)) {
            steps(owner, somebody, problems);
            nowhere(root, owner, somebody, problems);
        }
    }
    for list in tables(root, "duty").iter().flat_map(|d| tables(d, "roster")).filter_map(|t| t.get("to")) {
        steps(list, somebody, problems);
        nowhere(root, list, somebody, problems);
    }
    routes(root, problems);
    uncovered(root, somebody, problems);
    circles(root, problems);
}

/// The written target of a step.
fn target(step: &Node) -> Option<(&Node, &str)> {
    let node = match step.value {
        Value::Table(_) => step.get("target")?,
        _ => step,
    };
    Some((node, node.text()?))
}

fn steps(list: &Node, somebody: &str, problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    let mut end: Option<(&str, Place)> = None;
    if matches!(&list.value, Value::List(items) if items.is_empty()) {
        let problem = Problem::error("config::no_steps", list.at, "there is no step in here").label("empty");
        problems.push(problem.help(format!("write e.g. [\"{somebody}\"], or \"reject:480\" to turn callers away")));
    }
    for step in list.items() {
        let Some((node, written)) = target(step) else { continue };
        if let Some((rejects, place)) = end {
            problems.push(
                Problem::error("config::unreachable_step", node.at, format!("`{written}` can never be reached"))
                    .label("never reached")
                    .other(place, "the call ends here")
                    .help(format!("put `{rejects}` last, or remove what stands behind it")),
            );
            return;
        }
        if let Some(first) = seen.get(written) {
            problems.push(
                Problem::error("config::unreachable_step", node.at, format!("`{written}` can never be reached"))
                    .label("never reached")
                    .other(*first, "tried here already")
                    .help("a target is tried once in a call; remove one of them"),
            );
            continue;
        }
        // With except_regions some callers go past it, so it may well stand again.
        if step.get("except_regions").is_none() {
            seen.insert(written, node.at);
        }
        if written.starts_with("reject:") {
            end = Some((written, node.at));
        }
    }
}

/// Steps whose target is there but can lead to nobody.
fn nowhere(root: &Node, list: &Node, somebody: &str, problems: &mut Vec<Problem>) {
    for (node, written) in list.items().iter().filter_map(target) {
        let (what, help) = match Parsed::read(written) {
            Ok(Parsed::OpenBranch) if !tables(root, "branch").iter().any(|b| b.get("to").is_some()) => {
                ("no [[branch]] has a `to`".to_owned(), format!("add e.g. `to = \"{somebody}\"` to the branches"))
            }
            Ok(Parsed::NearestDealer) if !tables(root, "dealer").iter().any(|d| d.get("regions").is_some()) => (
                "no [[dealer]] names `regions`".to_owned(),
                "add e.g. `regions = [\"RU-KEM\"]` to the dealers".to_owned(),
            ),
            Ok(Parsed::Named(Named::Branch, name, _))
                if tables(root, "branch").iter().any(|b| text(b, "name") == Some(name) && b.get("to").is_none()) =>
            {
                (format!("branch \"{name}\" has no `to`"), format!("add e.g. `to = \"{somebody}\"` to the branch"))
            }
            _ => continue,
        };
        let problem = Problem::warning("config::leads_nowhere", node.at, format!("`{written}` leads nowhere: {what}"));
        problems.push(problem.label("leads nowhere").help(help));
    }
}

fn routes(root: &Node, problems: &mut Vec<Problem>) {
    let routes = tables(root, "route");
    for (i, route) in routes.iter().enumerate() {
        let name = text(route, "name").unwrap_or_default();
        let at = route.get("name").map_or(route.at, |n| n.at);
        if let Some(earlier) = routes[..i].iter().find(|e| covers(e.get("when"), route.get("when"))) {
            let other = text(earlier, "name").unwrap_or_default();
            let always = earlier.get("when").is_none_or(|w| w.entries().is_empty());
            let (label, help) = match always {
                true => ("always holds", format!("put \"{other}\" last, or give it a `when`")),
                false => ("holds whenever this would", format!("put \"{name}\" before \"{other}\", or remove it")),
            };
            problems.push(
                Problem::error("config::unreachable_route", at, format!("route \"{name}\" can never be reached"))
                    .label("never reached")
                    .other(earlier.get("name").map_or(earlier.at, |n| n.at), format!("\"{other}\" {label}"))
                    .help(help),
            );
            continue;
        }
        foreign(root, route, name, problems);
    }
}

/// Numbers of ours whose callers may find that no route holds: nobody is rung for them.
fn uncovered(root: &Node, somebody: &str, problems: &mut Vec<Problem>) {
    const SHOWN: usize = 3;
    let routes = tables(root, "route");
    // One with a mistake in it is told of already.
    let right = |n: &&Node| text(n, "e164").is_some_and(|e164| value::e164(e164).is_ok());
    let numbers = tables(root, "number").iter().filter(right);
    let open: Vec<&Node> = numbers.filter(|number| !covered(number, routes)).collect();
    let last = routes.last().map(|route| route.get("name").map_or(route.at, |n| n.at));
    let Some(at) = last.or(open.first().map(|number| number.at)).filter(|_| !open.is_empty()) else { return };
    let mut list: Vec<&str> = open.iter().take(SHOWN).filter_map(|n| text(n, "e164")).collect();
    let more = format!("{} more", open.len().saturating_sub(SHOWN));
    if open.len() > SHOWN {
        list.push(&more);
    }
    let what = format!("callers of {} may find that no route holds: nobody is rung, they get 480", list.join(", "));
    let label = if last.is_some() { "the last route" } else { "there is no [[route]]" };
    let problem = Problem::warning("config::no_last_route", at, what).label(label);
    problems.push(problem.help(format!("end with a route that has no `when`, e.g. `to = [\"{somebody}\"]`")));
}

/// Whether some route holds for every caller of a number at any time: one that asks for nothing but the line, or several that
/// together take all that a calendar can say, or callers with and without a number.
fn covered(number: &Node, routes: &[Node]) -> bool {
    let mut halves: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for route in routes {
        let Some(when) = route.get("when") else { return true };
        let own = |key: &str, of: &str| {
            when.get(key).is_none() || texts(when, key).any(|(_, wanted)| text(number, of) == Some(wanted))
        };
        if !own("number", "e164") || !own("trunk", "trunk") || !own("campaign", "campaign") {
            continue;
        }
        let asks = |key: &&str| !["number", "trunk", "campaign"].contains(key);
        let keys: Vec<&str> = when.entries().iter().map(|e| e.key.as_str()).filter(asks).collect();
        match keys[..] {
            [] => return true,
            ["calendar", "is"] | ["is", "calendar"] => {
                let calendar = text(when, "calendar").unwrap_or_default();
                halves.entry(("calendar", calendar)).or_default().extend(texts(when, "is").map(|(_, is)| is));
            }
            ["anonymous"] => {
                let says = matches!(when.get("anonymous").map(|n| &n.value), Some(Value::Bool(true)));
                halves.entry(("anonymous", "")).or_default().push(if says { "yes" } else { "no" });
            }
            _ => {}
        }
    }
    let all = |kind: &str| if kind == "calendar" { &["open", "closed", "holiday"][..] } else { &["yes", "no"][..] };
    halves.iter().any(|((kind, _), told)| all(kind).iter().all(|one| told.contains(one)))
}

/// Numbers and trunks that a route wants together, while no such trunk owns any such number.
fn foreign(root: &Node, route: &Node, name: &str, problems: &mut Vec<Problem>) {
    let Some(when) = route.get("when") else { return };
    let Some(trunk) = when.get("trunk") else { return };
    let wanted: Vec<&str> = texts(when, "trunk").map(|(_, t)| t).collect();
    let mut numbers = texts(when, "number").peekable();
    if numbers.peek().is_none() || wanted.is_empty() {
        return;
    }
    let owner = |e164: &str| {
        let number = tables(root, "number").iter().find(|n| text(n, "e164") == Some(e164))?;
        text(number, "trunk")
    };
    // A number that is not ours is an error of its own.
    if numbers.all(|(_, number)| owner(number).is_some_and(|o| !wanted.contains(&o))) {
        problems.push(
            Problem::error("config::unreachable_route", trunk.at, format!("route \"{name}\" can never be reached"))
                .label("owns none of the numbers")
                .help("a number's calls come by its own trunk only; remove `trunk` here"),
        );
    }
}

/// Whether `wide` holds whenever `narrow` does.
fn covers(wide: Option<&Node>, narrow: Option<&Node>) -> bool {
    let Some(wide) = wide else { return true };
    if !matches!(wide.value, Value::Table(_)) {
        return false;
    }
    wide.entries().iter().all(|entry| {
        let Some(value) = narrow.and_then(|n| n.get(&entry.key)) else { return false };
        let one = |item: &Node| {
            entry.node.items().iter().any(|w| match (&w.value, &item.value) {
                (Value::Bool(a), Value::Bool(b)) => a == b,
                (Value::Text(a), Value::Text(b)) if entry.key == "caller" => {
                    a == b || a.strip_suffix('*').is_some_and(|p| b.starts_with(p))
                }
                (Value::Text(a), Value::Text(b)) => a == b,
                _ => false,
            })
        };
        !value.items().is_empty() && value.items().iter().all(one)
    })
}

/// A place that calls can go to, and the places they go on to from there without condition.
type Edges<'a> = BTreeMap<(Named, &'a str), Vec<((Named, &'a str), Place)>>;

fn circles(root: &Node, problems: &mut Vec<Problem>) {
    let edges = edges(root);
    // 0: not seen, 1: on the way, 2: done.
    let mut state: BTreeMap<(Named, &str), u8> = BTreeMap::new();
    for start in edges.keys() {
        let mut way: Vec<((Named, &str), usize)> = vec![(*start, 0)];
        if state.insert(*start, 1).is_some_and(|s| s > 0) {
            state.insert(*start, 2);
            continue;
        }
        while let Some((here, next)) = way.last_mut() {
            let Some((to, at)) = edges.get(here).and_then(|list| list.get(*next)) else {
                state.insert(*here, 2);
                way.pop();
                continue;
            };
            *next += 1;
            match state.get(to).copied().unwrap_or(0) {
                0 if edges.contains_key(to) => {
                    state.insert(*to, 1);
                    way.push((*to, 0));
                }
                1 => {
                    let from = way.iter().position(|(n, _)| n == to).unwrap_or(0);
                    let names = way[from..].iter().map(|(n, _)| *n).chain([*to]);
                    let circle: Vec<String> = names.map(|(kind, name)| format!("{}:{name}", kind.word())).collect();
                    problems.push(
                        Problem::error(
                            "config::cycle",
                            *at,
                            format!("these targets lead to each other: {}", circle.join(" → ")),
                        )
                        .label("closes the circle")
                        .help("remove this step, or let something on the way depend on opening hours"),
                    );
                }
                _ => {}
            }
        }
    }
}

fn edges(root: &Node) -> Edges<'_> {
    let mut edges = Edges::new();
    let mut add = |kind: Named, owner: &'static str, key: &str, lists: &[&str], fixed: &dyn Fn(&Node) -> bool| {
        for table in tables(root, owner).iter().filter(|t| fixed(t)) {
            let Some(name) = text(table, key) else { continue };
            let mut out = Vec::new();
            for step in lists.iter().flat_map(|list| table.get(list).map(Node::items).unwrap_or_default()) {
                let Some((node, written)) = target(step) else { continue };
                // A dealer's sub-dealers are bare names.
                let to = match Parsed::read(written) {
                    Ok(Parsed::Named(kind, name, None)) => Some((kind, name)),
                    Err(_) if kind == Named::Dealer => Some((Named::Dealer, written)),
                    _ => None,
                };
                out.extend(to.map(|to| (to, node.at)));
            }
            edges.entry((kind, name)).or_insert(out);
        }
    };
    add(Named::Queue, "queue", "name", &["overflow"], &|_| true);
    add(Named::Branch, "branch", "name", &["to"], &|t| t.get("calendar").is_none());
    add(Named::Dealer, "dealer", "name", &["to", "dealers"], &|t| {
        t.get("hours").is_none() && t.get("calendar").is_none()
    });
    add(Named::Duty, "duty", "name", &["otherwise"], &|t| tables(t, "roster").is_empty());
    add(Named::Page, "page", "number", &["members"], &|_| true);
    edges
}
