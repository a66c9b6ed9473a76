//! Where calls go: routes with their conditions and steps, and what steps may lead to (offices, dealers, duty rosters). Only the
//! operator's words; `policy` reads them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::calendar::{Calendar, Hours};
use super::{E164, Label, Recording, Region};
use crate::base::Wall;

/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name.
    pub name: Label,
    /// When it holds.
    pub when: When,
    /// Steps, in order.
    pub to: Vec<Step>,
    /// Whether its calls are recorded, if it says so.
    pub record: Option<Recording>,
}

impl Route {
    /// A route for every call, to one target.
    pub fn new(name: &str, target: Target) -> Route {
        Route { name: name.into(), when: When::default(), to: vec![Step::to(target)], record: None }
    }
}

/// `when` of a route. Every key that is not empty must hold; of a key's values any.
#[derive(Clone, Default, Debug)]
pub struct When {
    /// The number called.
    pub number: Vec<E164>,
    /// The trunk that the call came by.
    pub trunk: Vec<Label>,
    /// The campaign of the number called.
    pub campaign: Vec<Label>,
    /// The caller's number.
    pub caller: Vec<CallerPattern>,
    /// Whether the caller withholds the number.
    pub anonymous: Option<bool>,
    /// The category of the caller's contact; `unknown` for a caller in no directory.
    pub category: Vec<Label>,
    /// The caller's region.
    pub region: Vec<Region>,
    /// A tag of the caller's contact.
    pub tag: Vec<Label>,
    /// A calendar, read in the zone of the branch of the number called, else the node's,
    pub calendar: Option<Label>,
    /// and what it must say.
    pub is: Vec<Hours>,
}

/// `+79131234567`, or `+7913*`: a number or how numbers begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallerPattern {
    digits: u64,
    open: bool,
}

/// Why something is no pattern of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("neither a number in E.164 form nor the beginning of one with `*`")]
pub struct NotCaller;

impl CallerPattern {
    /// Whether the number fits.
    pub fn fits(self, number: E164) -> bool {
        if self.open { number.begins_with(self.digits) } else { number.value() == self.digits }
    }
}

impl FromStr for CallerPattern {
    type Err = NotCaller;
    fn from_str(text: &str) -> Result<CallerPattern, NotCaller> {
        let Some(head) = text.strip_suffix('*') else {
            let number: E164 = text.parse().map_err(|_| NotCaller)?;
            return Ok(CallerPattern { digits: number.value(), open: false });
        };
        let digits = head.strip_prefix('+').filter(|d| d.len() <= 15 && d.bytes().all(|b| b.is_ascii_digit()));
        let digits = digits.filter(|d| !d.starts_with('0')).ok_or(NotCaller)?;
        let digits = if digits.is_empty() { Ok(0) } else { digits.parse() };
        Ok(CallerPattern { digits: digits.map_err(|_| NotCaller)?, open: true })
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.open, self.digits) {
            (true, 0) => f.write_str("+*"),
            (true, digits) => write!(f, "+{digits}*"),
            (false, digits) => write!(f, "+{digits}"),
        }
    }
}

/// A step of a route, queue, branch, dealer or duty.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// Where.
    pub target: Target,
    /// How long it rings, if it says so.
    pub ring: Option<Duration>,
    /// How much later it rings.
    pub after: Duration,
    /// Whether who answers must confirm, if it says so.
    pub confirm: Option<bool>,
    /// Shown before the caller's name.
    pub caller_name: Option<Label>,
    /// Whether calls answered there are recorded, if it says so.
    pub record: Option<Recording>,
    /// `play:` answers the call first.
    pub answer: bool,
    /// Callers from these regions go past it.
    pub except_regions: Vec<Region>,
}

impl Step {
    /// A step that says nothing but where.
    pub fn to(target: Target) -> Step {
        Step {
            target,
            ring: None,
            after: Duration::ZERO,
            confirm: None,
            caller_name: None,
            record: None,
            answer: false,
            except_regions: Vec::new(),
        }
    }
}

/// A target. What a later version does is `NotYet`, in the operator's own words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// `extension:121`.
    Extension(Label),
    /// `queue:sales`.
    Queue(Label),
    /// `group:foremen@ekb`: all its members (in that branch) who are free.
    Group(Label, Option<Label>),
    /// `manager`: of the caller's contact.
    Manager,
    /// `branch:nsk`.
    Branch(Label),
    /// `branch:open`: the caller's, else the nearest that is open.
    OpenBranch,
    /// `dealer:Siberia`.
    Dealer(Label),
    /// `dealer:nearest`: the first open one for the caller's region.
    NearestDealer,
    /// `duty:weekend`.
    Duty(Label),
    /// `number:+7912…`, out through a trunk.
    Number(E164),
    /// An emergency number that a phone dialled, sent as it is.
    Emergency(Label),
    /// `hook:crm`: what it answers.
    Hook(Label),
    /// `page:700`.
    Page(Label),
    /// `play:closed.wav`.
    Play(Label),
    /// `reject:486`.
    Reject(u16),
    /// Valid, but not in force: skipped.
    NotYet(Label),
}

impl Target {
    /// Whether a caller may be played to there or kept waiting by us, or led on to where he may.
    pub fn may_play(&self) -> bool {
        matches!(
            self,
            Target::Play(_)
                | Target::Queue(_)
                | Target::Branch(_)
                | Target::OpenBranch
                | Target::Dealer(_)
                | Target::NearestDealer
                | Target::Duty(_)
        )
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Extension(n) => write!(f, "extension:{n}"),
            Target::Queue(n) => write!(f, "queue:{n}"),
            Target::Group(n, None) => write!(f, "group:{n}"),
            Target::Group(n, Some(branch)) => write!(f, "group:{n}@{branch}"),
            Target::Manager => f.write_str("manager"),
            Target::Branch(n) => write!(f, "branch:{n}"),
            Target::OpenBranch => f.write_str("branch:open"),
            Target::Dealer(n) => write!(f, "dealer:{n}"),
            Target::NearestDealer => f.write_str("dealer:nearest"),
            Target::Duty(n) => write!(f, "duty:{n}"),
            Target::Number(n) => write!(f, "number:{n}"),
            Target::Emergency(n) => write!(f, "emergency:{n}"),
            Target::Hook(n) => write!(f, "hook:{n}"),
            Target::Page(n) => write!(f, "page:{n}"),
            Target::Play(name) => write!(f, "play:{name}"),
            Target::Reject(n) => write!(f, "reject:{n}"),
            Target::NotYet(words) => f.write_str(words),
        }
    }
}

/// `[[branch]]`: an office.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Name; also a SIP user.
    pub name: Label,
    /// What is dialled to reach it.
    pub number: Option<Label>,
    /// ISO 3166-2 region.
    pub region: Option<Region>,
    /// Its zone, the node's if it names none.
    pub zone: TimeZone,
    /// Name of the calendar that says when it is open; none: always.
    pub calendar: Option<Label>,
    /// Number its people show, if it says so.
    pub caller_id: Option<E164>,
    /// Where its calls go.
    pub to: Vec<Step>,
}

/// `[[dealer]]`: a partner who takes calls of his regions.
#[derive(Clone, Debug)]
pub struct Dealer {
    /// Name; also a SIP user.
    pub name: Label,
    /// What is dialled to reach it.
    pub number: Option<Label>,
    /// Whose callers are his: ISO 3166-2 regions.
    pub regions: Vec<Region>,
    /// When he is open; none: always.
    pub hours: Option<Calendar>,
    /// Zone of his hours, the node's if he names none.
    pub zone: TimeZone,
    /// Where his calls go.
    pub to: Vec<Step>,
    /// Names of sub-dealers, tried after his own.
    pub dealers: Vec<Label>,
}

/// `[[duty]]`: who answers outside hours.
#[derive(Clone, Debug)]
pub struct Duty {
    /// Name.
    pub name: Label,
    /// Turns, in file order.
    pub roster: Vec<Turn>,
    /// When the roster names nobody.
    pub otherwise: Vec<Step>,
}

/// A turn of duty.
#[derive(Clone, Debug)]
pub struct Turn {
    /// From then on.
    pub from: Wall,
    /// Until then, not included.
    pub until: Wall,
    /// Who.
    pub to: Vec<Step>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_callers() {
        for (pattern, number, want) in [
            ("+79131234567", "+79131234567", true),
            ("+79131234567", "+79131234568", false),
            ("+7913*", "+79131234567", true),
            ("+7913*", "+79141234567", false),
            ("+7*", "+442071234567", false),
            ("+44*", "+442071234567", true),
            ("+79131234567890*", "+79131234567", false),
            ("+*", "+442071234567", true),
        ] {
            let parsed: CallerPattern = pattern.parse().expect("a pattern");
            assert_eq!(parsed.fits(number.parse().expect("a number")), want, "{pattern} {number}");
            assert_eq!(parsed.to_string(), pattern);
        }
        for text in ["*", "7913*", "+7913", "", "+0*", "+79*1*"] {
            assert!(text.parse::<CallerPattern>().is_err(), "{text}");
        }
    }
}
