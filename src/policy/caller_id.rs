//! Which number of ours the other side sees, and by which trunk the call goes: the rules of `[caller_id] order` name numbers,
//! the first whose trunk lives is taken. Nothing is ever shown that its trunk may not show: a trunk shows its own numbers, and
//! others only with `foreign_numbers`; a number without `show` is shown by none.
//!
//! Who called is not asked here whether it is to be seen at all: a caller who withholds the number is made anonymous where the
//! request is written (RFC 3323), whatever number stands behind it for the carrier.

use std::time::Duration;

use super::caller::Ends;
use super::{Ask, Moment, Why};
use crate::directory::{CallerIdRule, Directory, E164, Number, Place, Region, Trunk};

/// A line out: a trunk, and what it shows.
pub(super) struct Line<'a> {
    pub trunk: &'a Trunk,
    /// None: there is nothing to show, which only an emergency call and a company without numbers put up with.
    pub shown: Option<E164>,
}

/// Nobody can take the call out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoLine {
    /// Some trunk lives and has as many calls as it may.
    Full,
    /// None lives, or none that may show a number of ours.
    Down,
}

impl NoLine {
    /// For the trail.
    pub fn words(self) -> &'static str {
        match self {
            NoLine::Full => "every trunk is full",
            NoLine::Down => "no trunk takes the call",
        }
    }
}

/// The lines to an outside number in the order to try them, each trunk once. `to` is none for an emergency number, which goes
/// with the branch's own number, by a full trunk too, and in the end by one that seems to be down.
pub(super) fn lines<'a>(
    moment: &Moment<'a>,
    rule: &str,
    to: Option<E164>,
    why: &mut Vec<Why>,
) -> Result<Vec<Line<'a>>, NoLine> {
    let directory = moment.directory;
    let mut trunks = Trunks { moment, emergency: to.is_none(), told: Vec::new(), full: false };
    let mut lines: Vec<Line<'a>> = Vec::new();
    let mut named: Vec<&'a Number> = Vec::new();
    for candidate in candidates(moment, to) {
        let numbers = match candidate.numbers {
            Ok(numbers) => numbers,
            Err(because) => {
                if lines.is_empty() {
                    why.push(Why::new("caller ID", format!("{}: {because}", candidate.rule)));
                }
                continue;
            }
        };
        for (number, because) in numbers {
            named.push(number);
            let owner = directory.trunk(&number.trunk);
            let others = directory.trunks.iter().filter(|t| t.foreign_numbers && t.name != number.trunk);
            for trunk in owner.into_iter().chain(others) {
                if !trunks.usable(trunk, rule, why) {
                    if lines.is_empty() && trunk.name == number.trunk {
                        let because = format!("{}: {} not shown: {CANNOT}", candidate.rule, number.e164);
                        why.push(Why::new("caller ID", because));
                    }
                    continue;
                }
                if lines.iter().any(|l| l.trunk.name == trunk.name) {
                    continue;
                }
                let shown = original(moment, trunk).unwrap_or(number.e164);
                if lines.is_empty() {
                    let by = match (shown == number.e164, trunk.name == number.trunk) {
                        (false, _) => format!("the caller's own number, which trunk {} lets through", trunk.name),
                        (true, true) => format!("{}: {because}; on trunk {}", candidate.rule, trunk.name),
                        (true, false) => {
                            format!(
                                "{}: {because}; on trunk {}, which shows foreign numbers",
                                candidate.rule, trunk.name
                            )
                        }
                    };
                    why.push(Why::new("caller ID", format!("{shown}, {by}")));
                }
                lines.push(Line { trunk, shown: Some(shown) });
            }
        }
    }
    // No rule names a number of these.
    for number in directory.numbers.iter().filter(|n| n.show) {
        let Some(trunk) = directory.trunk(&number.trunk) else { continue };
        if lines.iter().any(|l| l.trunk.name == trunk.name) || !trunks.usable(trunk, rule, why) {
            continue;
        }
        let shown = original(moment, trunk).unwrap_or(number.e164);
        if lines.is_empty() {
            let because = format!(
                "{shown}, the first number of trunk {}: no rule gives one whose trunk takes the call",
                trunk.name
            );
            why.push(Why::new("caller ID", because));
        }
        lines.push(Line { trunk, shown: Some(shown) });
    }
    for trunk in &directory.trunks {
        if lines.iter().any(|l| l.trunk.name == trunk.name) || !trunks.usable(trunk, rule, why) {
            continue;
        }
        match to.is_none() || directory.numbers.is_empty() {
            true => {
                if lines.is_empty() {
                    why.push(Why::new("caller ID", format!("no number, on trunk {}", trunk.name)));
                }
                lines.push(Line { trunk, shown: None });
            }
            false => {
                let because = format!("trunk {} skipped: no number that may be shown on it", trunk.name);
                why.push(Why::new(rule, because));
            }
        }
    }
    if to.is_none() && lines.len() < directory.trunks.len() {
        // Rather a trunk that may be dead than nobody.
        if lines.is_empty() {
            why.push(Why::new(rule, "no trunk is known to live: each is tried all the same"));
        }
        for trunk in &directory.trunks {
            if lines.iter().all(|l| l.trunk.name != trunk.name) {
                let own = directory.numbers.iter().find(|n| n.show && n.trunk == trunk.name);
                let fits = |n: &&&Number| n.trunk == trunk.name || trunk.foreign_numbers;
                let shown = named.iter().find(fits).copied().or(own).map(|n| n.e164);
                lines.push(Line { trunk, shown });
            }
        }
    }
    match (lines.is_empty(), trunks.full) {
        (false, _) => Ok(lines),
        (true, true) => Err(NoLine::Full),
        (true, false) => Err(NoLine::Down),
    }
}

/// The caller of a call that came in and goes out again, where the trunk lets such numbers through.
fn original(moment: &Moment<'_>, trunk: &Trunk) -> Option<E164> {
    match moment.ask {
        Ask::In { caller, anonymous: false, .. } if trunk.foreign_numbers => *caller,
        Ask::In { .. } | Ask::Dialled { .. } | Ask::Operator { .. } => None,
    }
}

/// Which trunks take a call now. Why one does not is said once.
struct Trunks<'a, 'b> {
    moment: &'b Moment<'a>,
    emergency: bool,
    told: Vec<&'b str>,
    full: bool,
}

impl<'b> Trunks<'_, 'b> {
    fn usable(&mut self, trunk: &'b Trunk, rule: &str, why: &mut Vec<Why>) -> bool {
        let live = self.moment.live;
        let because = if !live.trunk_up(&trunk.name) {
            "down".to_owned()
        } else if !self.emergency && trunk.max_calls > 0 && live.trunk_calls(&trunk.name) >= trunk.max_calls {
            self.full = true;
            format!("{} calls already", trunk.max_calls)
        } else {
            return true;
        };
        if !self.told.contains(&&*trunk.name) {
            self.told.push(&trunk.name);
            why.push(Why::new(rule, format!("trunk {} skipped: {because}", trunk.name)));
        }
        false
    }
}

/// What a rule says: numbers that may be shown, each with the reason, or why it has none.
struct Candidate<'a> {
    rule: &'static str,
    numbers: Result<Vec<(&'a Number, String)>, String>,
}

fn candidates<'a>(moment: &Moment<'a>, to: Option<E164>) -> Vec<Candidate<'a>> {
    let directory = moment.directory;
    let ask = |rule: CallerIdRule| {
        let numbers = match (rule, to) {
            (CallerIdRule::Branch, _) => branch(moment),
            (CallerIdRule::Default, _) => default(directory),
            (CallerIdRule::Sticky, Some(to)) => sticky(moment, to),
            (CallerIdRule::City, Some(to)) => city(directory, to),
            (CallerIdRule::Region, Some(to)) => region(directory, to),
            (CallerIdRule::District, Some(to)) => district(directory, to),
            (CallerIdRule::Sticky | CallerIdRule::City | CallerIdRule::Region | CallerIdRule::District, None) => {
                Err("an emergency call has the branch's own number".to_owned())
            }
        };
        Candidate { rule: rule.word(), numbers }
    };
    // An emergency call: who comes is to see where it burns.
    let emergency = [CallerIdRule::Branch, CallerIdRule::Default];
    let order = if to.is_none() { &emergency[..] } else { &directory.caller_id.order };
    let forwarded = match (moment.ask, to) {
        (Ask::In { number, .. }, Some(_)) => Some(Candidate {
            rule: FORWARDED,
            numbers: match directory.number(*number) {
                Some(number) if number.show => Ok(vec![(number, "the number that was called".to_owned())]),
                Some(_) | None => Err("the number that was called is never shown".to_owned()),
            },
        }),
        (Ask::In { .. } | Ask::Dialled { .. } | Ask::Operator { .. }, _) => None,
    };
    forwarded.into_iter().chain(order.iter().map(|rule| ask(*rule))).collect()
}

/// The rule that gave no number, if that is what this reason says: nobody needs to know more of it but who asks why.
pub fn gave_nothing(why: &Why) -> Option<&'static str> {
    let (word, because) = why.because.split_once(": ").filter(|_| *why.rule == *"caller ID")?;
    let mut words = [FORWARDED].into_iter().chain(CallerIdRule::ALL.iter().map(|rule| rule.word()));
    words.find(|known| *known == word && !because.ends_with(CANNOT))
}

/// The number that was called, of a call that goes on outside.
const FORWARDED: &str = "forwarded";
/// Of a number whose trunk is down or full.
const CANNOT: &str = "its trunk cannot take the call";

fn sticky<'a>(moment: &Moment<'a>, to: E164) -> Result<Vec<(&'a Number, String)>, String> {
    let window = moment.directory.caller_id.sticky;
    let nothing = || format!("{to} has not called a number of ours or been shown one in {}", days(window));
    let (number, at) = moment.live.sticky(to).filter(|(_, at)| moment.at - *at <= window).ok_or_else(nothing)?;
    let day = moment.directory.node.zone.to_datetime(at.timestamp()).date();
    match moment.directory.number(number) {
        Some(number) if number.show => Ok(vec![(number, format!("what {to} called or was shown last, on {day}"))]),
        Some(_) => Err(format!("{number}, which {to} called last on {day}, is never shown")),
        None => Err(format!("{number}, which {to} called or was shown last on {day}, is ours no more")),
    }
}

fn days(window: Duration) -> String {
    match window.as_secs() / 86_400 {
        0 => format!("{} h", window.as_secs() / 3600),
        1 => "1 day".to_owned(),
        n => format!("{n} days"),
    }
}

/// Numbers that may be shown and pass a test; else the reason.
fn those<'a>(
    directory: &'a Directory,
    fits: impl Fn(&Number) -> bool,
    because: &str,
    none: String,
) -> Result<Vec<(&'a Number, String)>, String> {
    let found = directory.numbers.iter().filter(|n| n.show && fits(n)).map(|n| (n, because.to_owned()));
    Some(found.collect::<Vec<_>>()).filter(|f| !f.is_empty()).ok_or(none)
}

fn city(directory: &Directory, to: E164) -> Result<Vec<(&Number, String)>, String> {
    let there = directory.numbering.place(to);
    let Some(city) = there.city else { return Err(format!("the city of {to} is not known")) };
    let fits = |n: &Number| {
        let here = directory.numbering.place(n.e164);
        here.city == Some(city) && here.regions.iter().any(|r| there.regions.contains(r))
    };
    those(directory, fits, &format!("from {city}, like {to}"), format!("no number that may be shown is from {city}"))
}

fn region(directory: &Directory, to: E164) -> Result<Vec<(&Number, String)>, String> {
    let there = directory.numbering.place(to);
    let Some(names) = named(&there) else { return Err(format!("the region of {to} is not known")) };
    let fits = |n: &Number| regions(directory, n).any(|r| there.regions.contains(&r));
    those(directory, fits, &format!("from {names}, like {to}"), format!("no number that may be shown is from {names}"))
}

fn district(directory: &Directory, to: E164) -> Result<Vec<(&Number, String)>, String> {
    let there = directory.numbering.place(to);
    let districts: Vec<_> = there.regions.iter().filter_map(|r| r.district()).collect();
    let Some(first) = districts.first() else { return Err(format!("the federal district of {to} is not known")) };
    let name = first.name();
    let fits = |n: &Number| regions(directory, n).filter_map(Region::district).any(|d| districts.contains(&d));
    those(directory, fits, &format!("{name}, like {to}"), format!("no number that may be shown is from there: {name}"))
}

/// The regions of a number of ours: what the operator says, else the plan.
fn regions<'a>(directory: &'a Directory, number: &Number) -> impl Iterator<Item = Region> + 'a {
    let own = number.region;
    let plan = directory.numbering.place(number.e164).regions;
    own.into_iter().chain(plan.iter().copied().filter(move |_| own.is_none()))
}

fn named(place: &Place<'_>) -> Option<String> {
    let names: Vec<&str> = place.regions.iter().map(|r| r.name()).collect();
    if names.is_empty() { None } else { Some(names.join(" or ")) }
}

fn branch<'a>(moment: &Moment<'a>) -> Result<Vec<(&'a Number, String)>, String> {
    let directory = moment.directory;
    let Some((branch, _)) = Ends::of(moment.ask, directory).branch() else {
        return Err("the caller has no branch".to_owned());
    };
    let name = &branch.name;
    let said = branch.caller_id.and_then(|n| directory.number(n)).filter(|n| n.show);
    let of_region = |n: &&Number| branch.region.is_some() && n.region == branch.region;
    let of_branch = |n: &&Number| n.branch.as_ref() == Some(name);
    let mut shown = directory.numbers.iter().filter(|n| n.show);
    let found = match said {
        Some(number) => Some((number, format!("the number of branch {name}"))),
        None => shown
            .clone()
            .find(of_region)
            .map(|n| (n, format!("the first number of the region of branch {name}")))
            .or_else(|| shown.find(of_branch).map(|n| (n, format!("the first number of branch {name}")))),
    };
    found.map(|f| vec![f]).ok_or_else(|| format!("branch {name} has no number that may be shown"))
}

fn default(directory: &Directory) -> Result<Vec<(&Number, String)>, String> {
    let Some(number) = directory.caller_id.default else { return Err("the configuration names none".to_owned()) };
    match directory.number(number) {
        Some(number) if number.show => Ok(vec![(number, "what the configuration names".to_owned())]),
        Some(_) | None => Err(format!("{number} may not be shown")),
    }
}
