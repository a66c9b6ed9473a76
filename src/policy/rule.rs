//! From a question to a plan: the first route whose `when` holds, or what a phone dialled.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use jiff::tz::TimeZone;
use smallvec::SmallVec;

use super::caller::Ends;
use super::{Ask, Kind, MAX_STAGES, Plan, RING, RING_DIALLED, Refuse, Stage, Why, page, recorded};
use crate::base::Wall;
use crate::directory::calendar::Hours;
use crate::directory::gate::Facts;
use crate::directory::number::fits;
use crate::directory::{Class, Directory, E164, Extension, Label, Queue, Recording, Region, Route, Step, Target};

/// Routes that were not taken and might have been, at most; they stand in the trail with their reason.
const MAX_MISSED: usize = 16;

/// The plan for a call that comes in at this instant.
pub fn plan(ask: &Ask, directory: &Directory, at: Wall) -> Plan {
    match ask {
        Ask::In { number, .. } => incoming(&Ends::of(ask, directory), directory, *number, at),
        Ask::Dialled { extension, text } => dialled(ask, directory, extension, text, at),
        Ask::Operator { page } => paged(page, Why::new("operator", "has a file played")),
    }
}

fn incoming(ends: &Ends<'_>, directory: &Directory, number: E164, at: Wall) -> Plan {
    let routes = directory.routes_for(number);
    // The caller, the routes, the caller ID: a call keeps this.
    let mut why = Vec::with_capacity(routes.len().min(MAX_MISSED) + 2);
    why.push(ends.told());
    let mut clock = Clock { directory, zone: ends.zone(), at, read: SmallVec::new() };
    let facts = Facts::new(ends.category, ends.tags.iter().copied(), ends.caller);
    let mut missed = 0;
    for (gate, place) in routes {
        let is_shut = missed >= MAX_MISSED && gate.is_shut(&facts, |calendar| clock.at(calendar).0);
        if is_shut {
            missed += 1;
            // What tests are built with judges each such route whole all the same.
            debug_assert!(
                holds(directory.route(place).0, ends, number, &mut clock, false).is_err(),
                "a gate was wrong"
            );
            continue;
        }
        let (route, rule) = directory.route(place);
        match holds(route, ends, number, &mut clock, missed < MAX_MISSED) {
            Ok(because) => {
                if missed > MAX_MISSED {
                    why.push(Why::new("routes", format!("{} more did not hold", missed - MAX_MISSED)));
                }
                why.push(Why::new(rule.clone(), because));
                return Plan {
                    kind: Kind::In,
                    route: Some(route.name.clone()),
                    stages: stages(directory, &route.to, None),
                    refuse: None,
                    record: recorded(directory, route.record),
                    why,
                };
            }
            Err(Missed::Line) => {}
            Err(Missed::Because(because)) => {
                missed += 1;
                if missed <= MAX_MISSED {
                    why.push(Why::new(rule.clone(), because));
                }
            }
        }
    }
    why.push(Why::new("routes", format!("no route holds for {number}")));
    refuse(Kind::In, 480, "Temporarily Unavailable", why)
}

/// Why a route does not hold.
enum Missed {
    /// It is for another trunk. Nobody would have expected it.
    Line,
    /// For this caller or at this time.
    Because(String),
}

/// What calendars say at the instant of the call, each read once.
struct Clock<'a> {
    directory: &'a Directory,
    zone: &'a TimeZone,
    at: Wall,
    read: SmallVec<[(usize, Hours, String); 2]>,
}

impl Clock<'_> {
    fn says(&mut self, name: &str) -> Option<(Hours, &str)> {
        let calendar = self.directory.calendars.iter().position(|c| *c.name == *name)?;
        Some(self.at(calendar))
    }

    /// The same of the calendar in this place of the list.
    fn at(&mut self, calendar: usize) -> (Hours, &str) {
        let known = self.read.iter().position(|(place, ..)| *place == calendar);
        let i = known.unwrap_or_else(|| {
            let (hours, because) = self.directory.calendars[calendar].at(self.at, self.zone);
            self.read.push((calendar, hours, because));
            self.read.len() - 1
        });
        let (_, hours, because) = &self.read[i];
        (*hours, because)
    }
}

/// Whether a route holds that is for the number called; `told` is whether anybody reads why not.
fn holds(route: &Route, ends: &Ends<'_>, number: E164, clock: &mut Clock<'_>, told: bool) -> Result<String, Missed> {
    let when = &route.when;
    if !when.trunk.is_empty() && !ends.trunk.is_some_and(|trunk| when.trunk.contains(trunk)) {
        return Err(Missed::Line);
    }
    // Joined, not formatted, where the words are there: this is said of most routes of every call.
    let not = |because: &dyn Fn() -> String| Missed::Because(if told { because() } else { String::new() });
    if let Some(wanted) = when.anonymous
        && wanted != ends.anonymous
    {
        let does = if wanted { "shows the number" } else { "withholds the number" };
        return Err(not(&|| ["not taken: the caller ", does].concat()));
    }
    if !when.category.is_empty() && !when.category.iter().any(|c| same(c, ends.category)) {
        let words =
            || ["not taken: the caller's category is ", ends.category, ", not ", &listed(&when.category)].concat();
        return Err(not(&words));
    }
    if !when.caller.is_empty() && !ends.caller.is_some_and(|n| when.caller.iter().any(|p| p.fits(n))) {
        let wanted = Listed(&when.caller);
        return Err(not(&|| match ends.caller {
            Some(caller) => said(format_args!("not taken: the caller's number {caller} is not {wanted}")),
            None => said(format_args!("not taken: the caller has no number that could be {wanted}")),
        }));
    }
    if !when.region.is_empty() && ends.region_among(&when.region).is_none() {
        let own: SmallVec<[Region; 4]> = ends.regions().collect();
        let wanted = Listed(&when.region);
        return Err(not(&|| match own.is_empty() {
            true => said(format_args!("not taken: the caller's region is not known, not {wanted}")),
            false => said(format_args!("not taken: the caller's region is {}, not {wanted}", Listed(&own))),
        }));
    }
    if !when.tag.is_empty() && tag(route, ends).is_none() {
        return Err(not(&|| ["not taken: the caller is not tagged ", &listed(&when.tag)].concat()));
    }
    let mut hours = None;
    if let Some(name) = &when.calendar {
        match clock.says(name) {
            Some((is, because)) if when.is.contains(&is) => hours = Some(format!("calendar {name}: {because}")),
            Some((_, because)) => return Err(not(&|| ["not taken: calendar ", name, ": ", because].concat())),
            None => return Err(not(&|| ["not taken: there is no calendar ", name].concat())),
        }
    }
    Ok(taken(route, ends, number, hours))
}

/// The tag of the caller's contact that the route asks for.
fn tag<'a>(route: &'a Route, ends: &Ends<'_>) -> Option<&'a Label> {
    route.when.tag.iter().find(|wanted| ends.tags.iter().any(|tag| same(tag, wanted)))
}

/// Words of one list in another's spelling: `Supplier` is `supplier`.
fn same(a: &str, b: &str) -> bool {
    a == b || a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

/// Why a route was taken, in words.
fn taken(route: &Route, ends: &Ends<'_>, number: E164, hours: Option<String>) -> String {
    let when = &route.when;
    let mut words = Vec::new();
    if !when.number.is_empty() {
        words.push(format!("{number} was called"));
    }
    if let Some(trunk) = ends.trunk.filter(|_| !when.trunk.is_empty()) {
        words.push(format!("the call came by trunk {trunk}"));
    }
    if let Some(campaign) = ends.number.and_then(|n| n.campaign.as_ref()).filter(|_| !when.campaign.is_empty()) {
        words.push(format!("the number belongs to campaign {campaign}"));
    }
    match when.anonymous {
        Some(true) => words.push("the caller withholds the number".to_owned()),
        Some(false) => words.push("the caller shows a number".to_owned()),
        None => {}
    }
    if let Some(pattern) = ends.caller.and_then(|n| when.caller.iter().find(|p| p.fits(n))) {
        words.push(format!("the caller's number is {pattern}"));
    }
    if !when.category.is_empty() {
        words.push(format!("the caller's category is {}", ends.category));
    }
    if let Some(region) = ends.region_among(&when.region) {
        words.push(format!("the caller's region is {region}"));
    }
    if let Some(tag) = tag(route, ends) {
        words.push(format!("the caller is tagged {tag}"));
    }
    words.extend(hours);
    match words.is_empty() {
        true => "taken: it has no condition".to_owned(),
        false => format!("taken: {}", words.join(", ")),
    }
}

/// `a`, `a or b`, `a, b or c`.
struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            match i {
                0 => write!(f, "{item}")?,
                _ if i + 1 == self.0.len() => write!(f, " or {item}")?,
                _ => write!(f, ", {item}")?,
            }
        }
        if self.0.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

/// The same of names; one alone as it stands.
fn listed(list: &[Label]) -> Cow<'_, str> {
    match list {
        [one] => Cow::Borrowed(one),
        list => Cow::Owned(Listed(list).to_string()),
    }
}

/// Words in a text that seldom has to grow: the trail is most of what a plan costs.
fn said(words: fmt::Arguments<'_>) -> String {
    let mut text = String::with_capacity(96);
    text.write_fmt(words).expect("a String takes everything");
    text
}

/// Stages of a list of steps; what `from` (the stage that led here) said of ringing, confirming, names and recording holds for
/// those that say nothing themselves.
pub fn stages(directory: &Directory, steps: &[Step], from: Option<&Stage>) -> Vec<Stage> {
    let mut stages = Vec::with_capacity(steps.len());
    add(directory, steps, from, &mut stages, 0);
    if let (Some(from), Some(first)) = (from, stages.first_mut()) {
        first.after += from.after;
    }
    stages
}

/// A queue's overflow comes behind the queue, and behind the steps that join it.
fn add(directory: &Directory, steps: &[Step], from: Option<&Stage>, stages: &mut Vec<Stage>, depth: u8) {
    // `check` refuses cycles; the depth only guards against a directory that was built by hand.
    if depth > 8 {
        return;
    }
    let queue = |step: &Step| match &step.target {
        Target::Queue(name) => directory.queue(name),
        _ => None,
    };
    for together in steps.chunk_by(|_, next| !next.after.is_zero()) {
        for step in together.iter().take(MAX_STAGES.saturating_sub(stages.len())) {
            stages.push(stage(step, queue(step), from));
        }
        for queue in together.iter().filter_map(queue) {
            add(directory, &queue.overflow, None, stages, depth + 1);
        }
    }
}

fn stage(step: &Step, queue: Option<&Queue>, from: Option<&Stage>) -> Stage {
    let limit = step.ring.or(from.and_then(|f| f.limit));
    Stage {
        target: step.target.clone(),
        ring: limit.or(queue.map(|q| q.ring)).unwrap_or(RING),
        wait: queue.and_then(|q| q.wait).unwrap_or_default(),
        limit,
        after: step.after,
        confirm: step.confirm.or(from.and_then(|f| f.confirm)),
        caller_name: step
            .caller_name
            .clone()
            .or_else(|| queue.and_then(|q| q.label.clone()))
            .or_else(|| from.and_then(|f| f.caller_name.clone())),
        record: step
            .record
            .or(queue.and_then(|q| q.record))
            .map(|r| r == Recording::All)
            .or(from.and_then(|f| f.record)),
        answer: step.answer,
        intercom: false,
        except_regions: step.except_regions.clone(),
        by: None,
    }
}

/// The plan for what an extension dials, or its phone sends a call on to (then `ask` is another's).
pub(super) fn dialled(ask: &Ask, directory: &Directory, extension: &Label, text: &str, at: Wall) -> Plan {
    let Some(own) = directory.extension(extension) else {
        return refuse(Kind::Internal, 403, "Forbidden", vec![Why::new("dialled", format!("{extension} is unknown"))]);
    };
    let record = recorded(directory, own.record);
    let plan = |kind, target: Target, because: String| Plan {
        kind,
        route: None,
        stages: vec![Stage::new(target, RING_DIALLED)],
        refuse: None,
        record,
        why: vec![Why::new(format!("dialled {text}"), because)],
    };
    if let Some(other) = directory.extension(text) {
        return plan(Kind::Internal, Target::Extension(other.number.clone()), format!("extension of {}", other.name));
    }
    if directory.dial.emergency.iter().any(|n| **n == *text) {
        return plan(Kind::Out, Target::Emergency(text.into()), "emergency number".to_owned());
    }
    if let Some(page) = directory.page(text) {
        let rule = format!("dialled {text}");
        let Some(because) = page::may_speak(page, directory, own) else {
            let because = format!("{extension} may not speak on page {} ({})", page.number, page.name);
            return refuse(Kind::Page, 403, "Forbidden", vec![Why::new(rule, because)]);
        };
        return paged(&page.number, Why::new(rule, format!("page {}, allowed to {because}", page.name)));
    }
    if let Some(target) = named(directory, text) {
        let because = target.to_string();
        let stages = stages(directory, &[Step::to(target)], None);
        let why = vec![Why::new(format!("dialled {text}"), because)];
        return Plan { kind: Kind::Internal, route: None, stages, refuse: None, record, why };
    }
    let country = directory.node.country;
    let outside = directory.dial.outside.iter().any(|p| fits(p, text));
    let Some(number) = E164::read(text, country).filter(|_| outside) else {
        // The longest literal prefix wins.
        let code = directory.dial.codes.iter().filter(|c| text.starts_with(&***c)).max_by_key(|c| c.len());
        let intercom = directory.dial.intercom.as_ref().filter(|i| code.is_none_or(|code| code.len() < i.len()));
        if let Some(called) = intercom.and_then(|code| text.strip_prefix(&**code)) {
            return talk_into(directory, own, text, called, record);
        }
        let because = match code {
            Some(code) => format!("the code {code} is not yet in force"),
            None => "no extension, queue or number of this company, and no `dial.outside` pattern fits".to_owned(),
        };
        return refuse(Kind::Internal, 404, "Not Found", vec![Why::new(format!("dialled {text}"), because)]);
    };
    if directory.number(number).is_some() {
        let mut inside = incoming(&Ends::of(ask, directory), directory, number, at);
        inside.why.insert(0, Why::new(format!("dialled {text}"), format!("{number} is ours: routed inside")));
        return inside;
    }
    if let Some(because) = directory.dial.forbids(number) {
        return refuse(Kind::Out, 403, "Forbidden", vec![Why::new(format!("dialled {text}"), because)]);
    }
    let needed = class_of(directory, own, number);
    if own.outbound < needed {
        let because = format!("{number} needs class {needed}, {extension} has {}", own.outbound);
        return refuse(Kind::Out, 403, "Forbidden", vec![Why::new(format!("dialled {text}"), because)]);
    }
    plan(Kind::Out, Target::Number(number), format!("outside number {number}, class {needed} is allowed"))
}

/// A page, whoever speaks it.
fn paged(number: &Label, because: Why) -> Plan {
    let stages = vec![Stage::new(Target::Page(number.clone()), RING)];
    Plan { kind: Kind::Page, route: None, stages, refuse: None, record: false, why: vec![because] }
}

/// Intercom: the phone that is called answers by itself, if it lets the caller in.
fn talk_into(directory: &Directory, own: &Extension, text: &str, called: &str, record: bool) -> Plan {
    let rule = format!("dialled {text}");
    let no = |status, phrase, because: String| refuse(Kind::Internal, status, phrase, vec![Why::new(&*rule, because)]);
    let Some(extension) = directory.extension(called) else {
        return no(404, "Not Found", format!("intercom: there is no extension {called}"));
    };
    let Some(people) = extension.lets_in(directory, own).filter(|_| extension.number != own.number) else {
        return no(403, "Forbidden", format!("intercom: {called} does not let {} in (intercom_from)", own.number));
    };
    let stage = Stage::new(Target::Extension(extension.number.clone()), page::DIAL);
    let stages = vec![Stage { intercom: true, ..stage }];
    let why = vec![Why::new(rule, format!("intercom: {called} ({}) lets {people} in", extension.name))];
    Plan { kind: Kind::Internal, route: None, stages, refuse: None, record, why }
}

/// Queues, branches and dealers are SIP users too, by name and by number.
fn named(directory: &Directory, text: &str) -> Option<Target> {
    let is = |name: &Label, number: &Option<Label>| **name == *text || number.as_deref() == Some(text);
    let queue = || directory.queues.iter().find(|q| is(&q.name, &q.number)).map(|q| Target::Queue(q.name.clone()));
    let branch = || directory.branches.iter().find(|b| is(&b.name, &b.number)).map(|b| Target::Branch(b.name.clone()));
    let dealer = || directory.dealers.iter().find(|d| is(&d.name, &d.number)).map(|d| Target::Dealer(d.name.clone()));
    queue().or_else(branch).or_else(dealer)
}

/// The class that a call to `number` needs.
fn class_of(directory: &Directory, own: &Extension, number: E164) -> Class {
    const AREA: usize = 4; // +7 and the three digits of a Russian area code
    if !number.is_of(directory.node.country) {
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
