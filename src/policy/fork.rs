//! From a stage to branches: who is rung right now, who is not, and why.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::caller::{Ends, open};
use super::rule::stages;
use super::{Ask, Live, Moment, Stage, Why, caller_id, page, queue};
use crate::directory::{self, Dealer, Directory, E164, Extension, Label, Step, Target, Trunk};

/// One branch to ring: somebody, at one place or at the first of several ways that takes the call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    /// The extension whose phone or mobile it is, or the number of an agent who has none; none for an outside number that a step
    /// or a phone named.
    pub owner: Option<Label>,
    /// Ways to reach it, the next only if one could not take the call at all.
    pub ways: Vec<Way>,
    /// It begins so much later than its stage, or as soon as nobody else rings.
    pub after: Duration,
    /// Whoever answers has to confirm; until then nobody has answered.
    pub confirm: bool,
    /// The phone is to answer by itself.
    pub intercom: bool,
    /// Shown before the caller's name.
    pub caller_name: Option<Label>,
    /// The owner's phone sent the call on to there; the carrier is told so.
    pub sent_on: bool,
}

/// A way to reach a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// All places where the extension's phones are registered, at once.
    Extension(Label),
    /// Out through a trunk.
    Trunk {
        /// Which.
        trunk: Label,
        /// The user part of the request-URI, in the trunk's own number format.
        user: String,
        /// The caller ID that it shows; none for a withheld one.
        shown: Option<E164>,
    },
}

/// What a stage comes to.
#[derive(Clone, PartialEq, Debug)]
pub enum Fork {
    /// This is played to the caller.
    Play(Label),
    /// These ring.
    Ring(Vec<Branch>),
    /// The stage leads on to these, which come in its place.
    Through(Vec<Stage>),
    /// Nobody can be rung now, but somebody may be soon: the caller waits.
    Wait,
    /// This hook is to be asked first.
    Ask(Label),
    /// The caller speaks to the members of this page.
    Page(Label),
    /// The stage answers the call with this status.
    Refuse(u16),
    /// Nobody to ring; what an outgoing call gets if nothing else comes of it.
    Skip(u16),
}

impl Branch {
    /// A branch that begins with its stage.
    pub fn new(owner: Option<Label>, ways: Vec<Way>) -> Branch {
        Branch {
            owner,
            ways,
            after: Duration::ZERO,
            confirm: false,
            intercom: false,
            caller_name: None,
            sent_on: false,
        }
    }
}

/// What a stage comes to at this moment.
pub fn fork(stage: &Stage, moment: &Moment<'_>, why: &mut Vec<Why>) -> Fork {
    let mut branches = match leads(stage, moment, why) {
        Fork::Ring(branches) => branches,
        other => return other,
    };
    for branch in &mut branches {
        branch.confirm |= stage.confirm == Some(true);
        if let (Some(by), None) = (&stage.by, &branch.owner) {
            let mobile = moment.directory.extension(by).and_then(|e| e.mobile);
            branch.confirm |= mobile.is_some_and(|m| m.confirm);
            branch.owner = Some(by.clone());
            branch.sent_on = true;
        }
        branch.caller_name = stage.caller_name.clone();
    }
    Fork::Ring(branches)
}

fn leads(stage: &Stage, moment: &Moment<'_>, why: &mut Vec<Why>) -> Fork {
    let directory = moment.directory;
    let rule = stage.target.to_string();
    let skip = |why: &mut Vec<Why>, because: &str, status: u16| {
        why.push(Why::new(rule.clone(), format!("skipped: {because}")));
        Fork::Skip(status)
    };
    if moment.tried.contains(&stage.target) {
        return skip(why, "tried in this call already", 480);
    }
    if !stage.except_regions.is_empty()
        && let Some(region) = Ends::of(moment.ask, directory).region_among(&stage.except_regions)
    {
        return skip(why, &format!("not for callers from {region}"), 480);
    }
    match &stage.target {
        Target::Extension(number) if stage.intercom => match directory.extension(number) {
            Some(extension) => match page::intercom(extension, moment.live) {
                Ok(()) => {
                    let own = extension.number.clone();
                    let branch = Branch::new(Some(own.clone()), vec![Way::Extension(own)]);
                    Fork::Ring(vec![Branch { intercom: true, ..branch }])
                }
                Err(Hindrance { status, because, .. }) => skip(why, because, status),
            },
            None => skip(why, "no such extension", 404),
        },
        Target::Extension(number) => match reach(moment, number, false, why) {
            Ok(branches) => Fork::Ring(branches),
            Err(Hindrance { status, because, .. }) => skip(why, because, status),
        },
        Target::Queue(name) => match directory.queue(name) {
            Some(queue) => queue::ring(queue, stage, moment, why),
            None => skip(why, "there is no such queue", 404),
        },
        Target::Group(name, branch) => {
            let members = directory.members(name, branch.as_deref()).map(|e| &e.number);
            everyone(moment, &rule, members, "no member can be rung", why)
        }
        Target::Branch(name) => match directory.branch(name) {
            None => skip(why, "there is no such branch", 404),
            Some(branch) if branch.to.is_empty() => skip(why, "the branch has no `to`", 480),
            Some(branch) => match open(directory.hours(branch), &branch.zone, moment.at) {
                Ok(because) => through(stage, moment, &branch.to, &rule, &because, why),
                Err(because) => skip(why, &format!("closed, {because}"), 480),
            },
        },
        Target::OpenBranch => match open_branch(moment) {
            Some((branch, because)) => {
                let next = Target::Branch(branch.name.clone());
                why.push(Why::new(rule, format!("leads to {next}, {because}")));
                Fork::Through(vec![stage.leading_to(next)])
            }
            None => skip(why, "no branch is open that was not tried already", 480),
        },
        Target::Duty(name) => match directory.duty(name) {
            None => skip(why, "there is no such duty", 404),
            Some(duty) => {
                let turn = duty.roster.iter().find(|t| t.from <= moment.at && moment.at < t.until);
                match (turn, duty.otherwise.is_empty()) {
                    (Some(turn), _) => through(stage, moment, &turn.to, &rule, "a turn of the roster", why),
                    (None, false) => through(stage, moment, &duty.otherwise, &rule, "the roster names nobody now", why),
                    (None, true) => skip(why, "the roster names nobody now", 480),
                }
            }
        },
        Target::Number(number) => {
            outside(moment, &rule, Some(*number), why, |trunk| written(directory, trunk, *number))
        }
        Target::Emergency(digits) => outside(moment, &rule, None, why, |_| digits.to_string()),
        Target::Hook(name) => match directory.hook(name) {
            Some(hook) => Fork::Ask(hook.name.clone()),
            None => skip(why, "there is no such hook", 404),
        },
        Target::Page(number) => match directory.page(number) {
            Some(page) => Fork::Page(page.number.clone()),
            None => skip(why, "there is no such page", 404),
        },
        Target::Play(name) => {
            why.push(Why::new(rule, "the caller hears it"));
            Fork::Play(name.clone())
        }
        Target::Reject(status) => {
            why.push(Why::new(rule, "the call is refused"));
            Fork::Refuse(*status)
        }
        Target::Manager => {
            let ends = Ends::of(moment.ask, directory);
            match (ends.manager(), ends.contact.and_then(|c| c.manager())) {
                (Some(manager), _) => {
                    why.push(Why::new(rule, format!("{} ({}) is the caller's manager", manager.number, manager.name)));
                    Fork::Through(vec![stage.leading_to(Target::Extension(manager.number.clone()))])
                }
                (None, Some(gone)) => skip(why, &format!("the caller's manager {gone} is no extension"), 480),
                (None, None) => skip(why, "the caller has no manager", 480),
            }
        }
        Target::Dealer(name) => match directory.dealer(name) {
            None => skip(why, "there is no such dealer", 404),
            Some(dealer) if dealer.to.is_empty() && dealer.dealers.is_empty() => {
                skip(why, "the dealer has neither `to` nor sub-dealers", 480)
            }
            Some(dealer) => match open(dealer.hours.as_ref(), &dealer.zone, moment.at) {
                Ok(because) => {
                    let below = dealer.dealers.iter().map(|name| Step::to(Target::Dealer(name.clone())));
                    let steps: Vec<Step> = dealer.to.iter().cloned().chain(below).collect();
                    through(stage, moment, &steps, &rule, &because, why)
                }
                Err(because) => skip(why, &format!("closed, {because}"), 480),
            },
        },
        Target::NearestDealer => match nearest_dealer(moment, &rule, why) {
            Ok((dealer, because)) => {
                let next = Target::Dealer(dealer.name.clone());
                why.push(Why::new(rule, format!("leads to {next}, {because}")));
                Fork::Through(vec![stage.leading_to(next)])
            }
            Err(because) => skip(why, because, 480),
        },
        Target::NotYet(_) => skip(why, "not yet in force", 480),
    }
}

/// The dealer who looks after the caller, else the first for the caller's region, if open and not tried already; and why.
fn nearest_dealer<'a>(
    moment: &Moment<'a>,
    rule: &str,
    why: &mut Vec<Why>,
) -> Result<(&'a Dealer, String), &'static str> {
    let Moment { ask, directory, at, tried, .. } = *moment;
    let ends = Ends::of(ask, directory);
    let own = ends.contact.and_then(|c| directory.dealer(c.dealer()?));
    let own = own.map(|dealer| (dealer, "the caller's own dealer".to_owned()));
    let near = directory.dealers.iter().filter_map(|dealer| {
        let region = ends.region_among(&dealer.regions)?;
        Some((dealer, format!("the first open dealer for {region}")))
    });
    let mut any = false;
    for (dealer, because) in own.into_iter().chain(near) {
        any = true;
        if tried.contains(&Target::Dealer(dealer.name.clone())) {
            continue;
        }
        match open(dealer.hours.as_ref(), &dealer.zone, at) {
            Ok(_) => return Ok((dealer, because)),
            Err(closed) => why.push(Why::new(rule, format!("dealer:{} is closed, {closed}", dealer.name))),
        }
    }
    Err(match (any, ends.regions().next()) {
        (true, _) => "no dealer for the caller is open and not tried already",
        (false, Some(_)) => "no dealer has the caller's region",
        (false, None) => "the caller's region is not known",
    })
}

/// The caller's branch if it is open, else the open one whose clocks differ least from there, and why. Branches whose every
/// step was tried count as tried.
fn open_branch<'a>(moment: &Moment<'a>) -> Option<(&'a directory::Branch, String)> {
    let Moment { ask, directory, at, tried, .. } = *moment;
    let used_up = |b: &directory::Branch| {
        tried.contains(&Target::Branch(b.name.clone())) || b.to.iter().all(|step| tried.contains(&step.target))
    };
    let is_open = |b: &directory::Branch| open(directory.hours(b), &b.zone, at).is_ok();
    let own = Ends::of(ask, directory).branch();
    if let Some((branch, because)) = own.filter(|(branch, _)| !used_up(branch) && is_open(branch)) {
        return Some((branch, because.to_owned()));
    }
    let offset = |zone: &TimeZone| zone.to_offset(at.timestamp()).seconds();
    let here = offset(own.map_or(&directory.node.zone, |(branch, _)| &branch.zone));
    let away = |b: &&directory::Branch| (offset(&b.zone) - here).abs();
    let others = directory.branches.iter().filter(|b| own.is_none_or(|(own, _)| own.name != b.name));
    let nearest = others.filter(|b| !used_up(b) && is_open(b)).min_by_key(away)?;
    let from = match own {
        Some((own, because)) if used_up(own) => format!("{} ({because}, tried already)", own.name),
        Some((own, because)) => format!("{} ({because}, closed)", own.name),
        None => "the node".to_owned(),
    };
    Some((nearest, format!("the nearest open branch: its clocks differ by {} from {from}", apart(away(&nearest)))))
}

/// A difference of clocks in words.
fn apart(seconds: i32) -> String {
    match (seconds / 3600, seconds % 3600 / 60) {
        (0, 0) => "0 h".to_owned(),
        (hours, 0) => format!("{hours} h"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// A stage that leads on to the steps of something else.
fn through(stage: &Stage, moment: &Moment<'_>, steps: &[Step], rule: &str, because: &str, why: &mut Vec<Why>) -> Fork {
    let stages = stages(moment.directory, steps, Some(stage));
    let then: Vec<String> = stages.iter().map(|s| s.target.to_string()).collect();
    why.push(Why::new(rule, format!("{because}; leads to {}", then.join(", then "))));
    Fork::Through(stages)
}

/// All of these who are free, nobody twice.
fn everyone<'a>(
    moment: &Moment<'_>,
    rule: &str,
    numbers: impl Iterator<Item = &'a Label>,
    nobody: &str,
    why: &mut Vec<Why>,
) -> Fork {
    let mut branches: Vec<Branch> = Vec::new();
    for number in numbers {
        match reach(moment, number, true, why) {
            Ok(own) => branches.extend(own),
            Err(hindrance) => why.push(Why::new(rule, format!("{number} not rung: {}", hindrance.because))),
        }
    }
    if branches.is_empty() {
        why.push(Why::new(rule, format!("skipped: {nobody}")));
        return Fork::Skip(480);
    }
    Fork::Ring(branches)
}

/// Why an extension is not rung.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hindrance {
    /// What an internal caller is told.
    pub(super) status: u16,
    /// In words.
    pub(super) because: &'static str,
    /// It passes by itself.
    pub(super) passes: bool,
}

/// The branches of an extension: its phones, and its mobile. Whoever is registered nowhere is still reached by the mobile,
/// and then at once. `queued`: by a queue or group, which rings only who is free.
pub(super) fn reach(
    moment: &Moment<'_>,
    number: &str,
    queued: bool,
    why: &mut Vec<Why>,
) -> Result<Vec<Branch>, Hindrance> {
    let Moment { directory, live, spent, .. } = *moment;
    let never = |status, because| Hindrance { status, because, passes: false };
    let Some(extension) = directory.extension(number) else { return reach_outside(moment, number, why) };
    if matches!(moment.ask, Ask::Dialled { extension: caller, .. } if *caller == extension.number) {
        return Err(never(486, "it is who calls"));
    }
    free(extension, live, spent, queued)?;
    let owner = Some(extension.number.clone());
    let mut branches = Vec::new();
    let registered = live.bindings(number) > 0;
    if registered {
        branches.push(Branch::new(owner.clone(), vec![Way::Extension(extension.number.clone())]));
    }
    if let Some(mobile) = extension.mobile {
        let rule = format!("mobile of {number}");
        if let Fork::Ring(found) =
            outside(moment, &rule, Some(mobile.number), why, |trunk| written(directory, trunk, mobile.number))
        {
            if !registered {
                why.push(Why::new(rule, format!("at once: no phone of {number} is registered")));
            }
            let (after, confirm) = (if registered { mobile.after } else { Duration::ZERO }, mobile.confirm);
            branches.extend(found.into_iter().map(|b| Branch { owner: owner.clone(), after, confirm, ..b }));
        }
    }
    let gone = || match live.registered(number) {
        true => "registered, but its connection is gone",
        false => "not registered",
    };
    if branches.is_empty() { Err(never(480, gone())) } else { Ok(branches) }
}

/// An agent who has no extension: an outside number in a queue's `agents`.
fn reach_outside(moment: &Moment<'_>, number: &str, why: &mut Vec<Why>) -> Result<Vec<Branch>, Hindrance> {
    let Moment { directory, live, spent, .. } = *moment;
    let never = |status, because| Hindrance { status, because, passes: false };
    let Ok(to) = number.parse::<E164>() else { return Err(never(404, "no such extension")) };
    let agent = Label::from(number);
    available(&agent, live, spent, 1, true)?;
    match outside(moment, &format!("number:{number}"), Some(to), why, |trunk| written(directory, trunk, to)) {
        Fork::Ring(found) => Ok(found.into_iter().map(|b| Branch { owner: Some(agent.clone()), ..b }).collect()),
        Fork::Skip(_)
        | Fork::Page(_)
        | Fork::Play(_)
        | Fork::Through(_)
        | Fork::Wait
        | Fork::Ask(_)
        | Fork::Refuse(_) => Err(never(503, "it cannot be called")),
    }
}

/// Whether an extension may be rung now, wherever it is.
pub(super) fn free(extension: &Extension, live: &dyn Live, spent: &[Label], queued: bool) -> Result<(), Hindrance> {
    if queued && extension.paging {
        return Err(Hindrance { status: 480, because: "a loudspeaker phone is never in a queue", passes: false });
    }
    available(&extension.number, live, spent, extension.max_calls, queued)
}

/// Whether somebody may be rung now, who takes so many calls at once (0: any number) or, from a queue, one.
pub(super) fn available(
    number: &Label,
    live: &dyn Live,
    spent: &[Label],
    max_calls: u32,
    queued: bool,
) -> Result<(), Hindrance> {
    let (calls, agent) = (live.calls(number), live.agent(number));
    let (status, because, passes) = match () {
        () if spent.contains(number) => (486, "it rejected this call, or could not be reached", false),
        () if agent.do_not_disturb => (480, "do not disturb", false),
        () if queued && agent.paused => (480, "paused", false),
        () if (queued && calls > 0) || (max_calls > 0 && calls >= max_calls) => (486, "busy", true),
        () if queued && agent.rests => (486, "wrapping up", true),
        () => return Ok(()),
    };
    Err(Hindrance { status, because, passes })
}

/// Out through a trunk, with a number of ours; never to a forbidden one, whoever wants it. Nobody is called back on the very number that he calls from: he would get his own
/// call waiting, or his own voicemail would take the call.
fn outside(
    moment: &Moment<'_>,
    rule: &str,
    to: Option<E164>,
    why: &mut Vec<Why>,
    write: impl Fn(&Trunk) -> String,
) -> Fork {
    if to.is_some_and(|to| matches!(moment.ask, Ask::In { caller: Some(caller), .. } if *caller == to)) {
        why.push(Why::new(rule, "skipped: it is the caller's own number"));
        return Fork::Skip(480);
    }
    if let Some(because) = to.and_then(|to| moment.directory.dial.forbids(to)) {
        why.push(Why::new(rule, format!("skipped: {because}")));
        return Fork::Skip(403);
    }
    match caller_id::lines(moment, rule, to, why) {
        Ok(lines) => {
            let way = |l: caller_id::Line<'_>| {
                let (trunk, user) = (l.trunk.name.clone(), write(l.trunk));
                Way::Trunk { trunk, user, shown: l.shown }
            };
            Fork::Ring(vec![Branch::new(None, lines.into_iter().map(way).collect())])
        }
        Err(none) => {
            why.push(Why::new(rule, none.words()));
            Fork::Skip(503)
        }
    }
}

/// The number as the trunk wants it written.
fn written(directory: &Directory, trunk: &Trunk, number: E164) -> String {
    number.written(trunk.number_format, directory.node.country)
}
