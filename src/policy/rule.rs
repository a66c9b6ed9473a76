//! From a question to a plan: the first route whose `when` holds, or what a phone dialled.

use super::{Ask, Kind, MAX_STAGES, Plan, RING, RING_DIALLED, Refuse, Stage, Why, recorded};
use crate::directory::number::fits;
use crate::directory::{Class, Directory, E164, Extension, Label, Queue, Recording, Route, Step, Target};

/// The plan for a call.
pub fn plan(ask: &Ask, directory: &Directory) -> Plan {
    match ask {
        Ask::In { trunk, number } => incoming(directory, Some(trunk), *number),
        Ask::Dialled { extension, text } => dialled(directory, extension, text),
    }
}

fn incoming(directory: &Directory, trunk: Option<&Label>, number: E164) -> Plan {
    let mut why = Vec::new();
    for route in &directory.routes {
        match holds(route, trunk, number) {
            Ok(because) => {
                why.push(Why::new(format!("route \"{}\"", route.name), because));
                let mut stages = Vec::new();
                route.to.iter().for_each(|step| stage(directory, step, &mut stages, 0));
                return Plan {
                    kind: Kind::In,
                    route: Some(route.name.clone()),
                    stages,
                    refuse: None,
                    record: recorded(directory, route.record),
                    why,
                };
            }
            Err(because) => why.push(Why::new(format!("route \"{}\"", route.name), because)),
        }
    }
    why.push(Why::new("routes", format!("no route holds for {number}")));
    refuse(Kind::In, 480, "Temporarily Unavailable", why)
}

fn holds(route: &Route, trunk: Option<&Label>, number: E164) -> Result<String, String> {
    let when = &route.when;
    if let Some(key) = when.not_yet.first() {
        return Err(format!("skipped: its `{key}` is not yet in force"));
    }
    if !when.number.is_empty() && !when.number.contains(&number) {
        return Err(format!("not taken: {number} is not its number"));
    }
    if !when.trunk.is_empty() && !trunk.is_some_and(|t| when.trunk.contains(t)) {
        return Err("not taken: the call did not come by its trunk".to_owned());
    }
    Ok(match (when.number.is_empty(), when.trunk.is_empty()) {
        (true, true) => "taken: it has no condition".to_owned(),
        (false, _) => format!("taken: {number} was called"),
        (true, false) => "taken: the call came by its trunk".to_owned(),
    })
}

fn stage(directory: &Directory, step: &Step, stages: &mut Vec<Stage>, depth: u8) {
    // `check` refuses cycles; the depth only guards against a directory that was built by hand.
    if stages.len() >= MAX_STAGES || depth > 8 {
        return;
    }
    let record = step.record.map(|r| r == Recording::All);
    let Target::Queue(name) = &step.target else {
        let ring = step.ring.unwrap_or(RING);
        stages.push(Stage { target: step.target.clone(), ring, wait: std::time::Duration::ZERO, record });
        return;
    };
    if let Some(queue) = directory.queue(name) {
        stages.push(queue_stage(queue, step.ring, record));
        queue.overflow.iter().for_each(|step| stage(directory, step, stages, depth + 1));
    }
}

fn queue_stage(queue: &Queue, ring: Option<std::time::Duration>, record: Option<bool>) -> Stage {
    Stage {
        target: Target::Queue(queue.name.clone()),
        ring: ring.unwrap_or(queue.ring),
        wait: queue.wait.unwrap_or_default(),
        record: record.or(queue.record.map(|r| r == Recording::All)),
    }
}

fn dialled(directory: &Directory, extension: &Label, text: &str) -> Plan {
    let Some(own) = directory.extension(extension) else {
        return refuse(Kind::Internal, 403, "Forbidden", vec![Why::new("dialled", format!("{extension} is unknown"))]);
    };
    let record = recorded(directory, own.record);
    let plan = |kind, target: Target, because: String| {
        let stage = Stage { target, ring: RING_DIALLED, wait: std::time::Duration::ZERO, record: None };
        Plan {
            kind,
            route: None,
            stages: vec![stage],
            refuse: None,
            record,
            why: vec![Why::new(format!("dialled {text}"), because)],
        }
    };
    if let Some(other) = directory.extension(text) {
        return plan(Kind::Internal, Target::Extension(other.number.clone()), format!("extension of {}", other.name));
    }
    if directory.dial.emergency.iter().any(|n| **n == *text) {
        return plan(Kind::Out, Target::Emergency(text.into()), "emergency number".to_owned());
    }
    if let Some(queue) = directory.queues.iter().find(|q| *q.name == *text || q.number.as_deref() == Some(text)) {
        let mut stages = vec![queue_stage(queue, None, None)];
        queue.overflow.iter().for_each(|step| stage(directory, step, &mut stages, 1));
        let why = vec![Why::new(format!("dialled {text}"), format!("queue {}", queue.name))];
        return Plan { kind: Kind::Internal, route: None, stages, refuse: None, record, why };
    }
    let country = &*directory.node.country;
    let outside = directory.dial.outside.iter().any(|p| fits(p, text));
    let Some(number) = E164::read(text, country).filter(|_| outside) else {
        let code = directory.dial.codes.iter().find(|c| text.starts_with(&***c));
        let because = match code {
            Some(code) => format!("the code {code} is not yet in force"),
            None => "no extension, queue or number of this company, and no `dial.outside` pattern fits".to_owned(),
        };
        return refuse(Kind::Internal, 404, "Not Found", vec![Why::new(format!("dialled {text}"), because)]);
    };
    if directory.number(number).is_some() {
        let mut inside = incoming(directory, None, number);
        inside.why.insert(0, Why::new(format!("dialled {text}"), format!("{number} is ours: routed inside")));
        return inside;
    }
    let needed = class_of(directory, own, number);
    if own.outbound < needed {
        let because = format!("{number} needs class {needed}, {extension} has {}", own.outbound);
        return refuse(Kind::Out, 403, "Forbidden", vec![Why::new(format!("dialled {text}"), because)]);
    }
    plan(Kind::Out, Target::Number(number), format!("outside number {number}, class {needed} is allowed"))
}

/// The class that a call to `number` needs.
fn class_of(directory: &Directory, own: &Extension, number: E164) -> Class {
    const AREA: usize = 4; // +7 and the three digits of a Russian area code
    if !number.is_of(&directory.node.country) {
        return Class::International;
    }
    let digits = number.digits();
    let mut home = directory.numbers.iter().filter(|n| n.branch.is_some() && n.branch == own.branch);
    match home.any(|n| n.e164.digits().get(..AREA) == digits.get(..AREA)) {
        true => Class::Local,
        false => Class::National,
    }
}

fn refuse(kind: Kind, status: u16, phrase: &'static str, why: Vec<Why>) -> Plan {
    Plan { kind, route: None, stages: Vec::new(), refuse: Some(Refuse { status, phrase }), record: false, why }
}
