//! The one condition of a route that can be judged at a glance. A large company has hundreds of routes of which a call takes one; their
//! gates lie side by side in memory, and a route whose gate is shut need not be looked at. A gate that is open says nothing: the
//! route is then judged whole. Not the judgement itself, nor its reasons (`policy::rule`).

use smallvec::SmallVec;

use super::calendar::Hours;
use super::route::{CallerPattern, When};
use super::{Calendar, E164};

/// A route that a call may take, as far as the number called decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its place in the list of routes.
    pub route: u32,
    /// Its gate.
    pub gate: Gate,
}

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub struct Gate(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing is known at a glance.
    Open,
    /// For one category, by its hash.
    Category(u64),
    /// For callers with one tag, by its hash.
    Tag(u64),
    /// For callers whose number fits one pattern.
    Caller(CallerPattern),
    /// For certain hours (a bit each) of the calendar in this place of the list.
    Hours { calendar: u32, is: u8 },
}

/// What gates ask about a caller, looked up once a call.
#[derive(Debug)]
pub struct Facts {
    category: u64,
    tags: SmallVec<[u64; 4]>,
    caller: Option<E164>,
}

impl Facts {
    /// Of a caller with this category, these tags and this number.
    pub fn new<'a>(category: &str, tags: impl IntoIterator<Item = &'a str>, caller: Option<E164>) -> Facts {
        Facts { category: hash(category), tags: tags.into_iter().map(hash).collect(), caller }
    }
}

impl Gate {
    /// The gate of a route with these conditions. A condition on the trunk keeps it open: such a route is not one that was missed.
    pub(super) fn of(when: &When, calendars: &[Calendar]) -> Gate {
        if !when.trunk.is_empty() {
            return Gate(Kind::Open);
        }
        let calendar = when.calendar.as_ref().and_then(|name| calendars.iter().position(|c| c.name == *name));
        Gate(match (&when.category[..], &when.tag[..], &when.caller[..], calendar) {
            ([category], ..) => Kind::Category(hash(category)),
            (_, [tag], ..) => Kind::Tag(hash(tag)),
            (_, _, [pattern], _) => Kind::Caller(*pattern),
            (.., Some(calendar)) => {
                Kind::Hours { calendar: calendar as u32, is: when.is.iter().fold(0, |bits, is| bits | bit(*is)) }
            }
            (.., None) => Kind::Open,
        })
    }

    /// Whether the route certainly does not hold. `hours` says what the calendar in a place of the list says.
    pub fn is_shut(self, facts: &Facts, hours: impl FnOnce(usize) -> Hours) -> bool {
        match self.0 {
            Kind::Open => false,
            Kind::Category(wanted) => wanted != facts.category,
            Kind::Tag(wanted) => !facts.tags.contains(&wanted),
            Kind::Caller(pattern) => !facts.caller.is_some_and(|caller| pattern.fits(caller)),
            Kind::Hours { calendar, is } => bit(hours(calendar as usize)) & is == 0,
        }
    }
}

fn bit(hours: Hours) -> u8 {
    1 << hours as u8
}

/// Equal for words that differ in the size of letters only (FNV-1a over the small ones).
fn hash(word: &str) -> u64 {
    let small = word.chars().flat_map(char::to_lowercase);
    small.fold(0xcbf2_9ce4_8422_2325, |hash, c| (hash ^ u64::from(c as u32)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_shut_to_whom_the_route_is_not_for() {
        let facts = Facts::new("Regular", ["bulk", "VIP"], E164::from_digits("79131234567").ok());
        let no_hours = |_: usize| -> Hours { unreachable!("no gate here asks") };
        let shut = |when: When| Gate::of(&when, &[]).is_shut(&facts, no_hours);
        let category = |c: &str| When { category: vec![c.into()], ..When::default() };
        let tag = |t: &str| When { tag: vec![t.into()], ..When::default() };
        let caller = |p: &str| When { caller: vec![p.parse().expect("a pattern")], ..When::default() };
        assert!(!shut(When::default()));
        assert!(!shut(category("regular")));
        assert!(shut(category("supplier")));
        assert!(!shut(tag("vip")));
        assert!(shut(tag("v.i.p.")));
        assert!(!shut(caller("+7913*")));
        assert!(shut(caller("+7914*")));
        // What more than one value, or the trunk, may decide is left to the whole judgement.
        assert!(!shut(When { category: vec!["supplier".into(), "regular".into()], ..When::default() }));
        assert!(!shut(When { trunk: vec!["carrier".into()], ..category("supplier") }));
    }

    #[test]
    fn a_gate_opens_by_the_hour() {
        let office = Calendar::new("office", Default::default());
        let when = When { calendar: Some("office".into()), is: vec![Hours::Closed, Hours::Holiday], ..When::default() };
        let gate = Gate::of(&when, &[Calendar::new("other", Default::default()), office]);
        let facts = Facts::new("unknown", [], None);
        let says = |hours: Hours| {
            gate.is_shut(&facts, |calendar| {
                assert_eq!(calendar, 1);
                hours
            })
        };
        assert!(says(Hours::Open));
        assert!(!says(Hours::Closed));
        assert!(!says(Hours::Holiday));
    }
}
