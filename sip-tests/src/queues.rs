//! What must hold of queues, as the call records tell it: nobody is rung for a second caller while busy with another call, and
//! whoever came first is served first.

use std::collections::BTreeMap;

use strowger::base::Wall;
use strowger::call::record::{CallRecord, Direction, PhaseKind};

/// Stamps of two records may differ by so many microseconds for one and the same moment.
const NEAR: i64 = 2000;

/// A call of a queue.
struct Served<'a> {
    record: &'a CallRecord,
    queue: &'static str,
    /// The legs of its agents: phones and mobiles.
    rang: Vec<Rang<'a>>,
}

/// A target that rang, and was busy from then on.
#[derive(Clone, Copy)]
struct Rang<'a> {
    target: &'a str,
    at: Wall,
    until: Wall,
}

/// What does not hold. `queue` names the queue to which alone a call goes, but for the target `last`.
pub fn faults(records: &[CallRecord], last: &str, queue: impl Fn(&CallRecord) -> Option<&'static str>) -> Vec<String> {
    let served = |record| {
        let mut rang = legs(record);
        rang.retain(|leg| leg.target != last);
        Some(Served { record, queue: queue(record)?, rang })
    };
    let served: Vec<Served<'_>> = records.iter().filter_map(served).collect();
    let twice = served.iter().flat_map(|call| rung_twice(call, records));
    twice.chain(served.iter().filter_map(|call| overtaken(call, &served))).collect()
}

/// Agents that were rung for a caller although another call had them.
fn rung_twice(call: &Served<'_>, records: &[CallRecord]) -> Vec<String> {
    let mut faults = Vec::new();
    for leg in call.rang.iter().filter(|leg| leg.target.starts_with("extension:")) {
        for other in records.iter().filter(|other| other.id != call.record.id) {
            let rang = legs(other).into_iter().any(|l| l.target == leg.target && within(l.at, leg.at, l.until));
            let placed = other.direction != Direction::In
                && other.caller.number.as_deref() == leg.target.strip_prefix("extension:")
                && within(other.started_at, leg.at, other.ended_at);
            if rang || placed {
                let (who, queue, id) = (leg.target, call.queue, call.record.id);
                faults.push(format!("queue {queue} rang {who} for {id} at {}, busy with {}", leg.at, other.id));
            }
        }
    }
    faults
}

/// Somebody who came before and was not served yet, when this one was.
fn overtaken(call: &Served<'_>, all: &[Served<'_>]) -> Option<String> {
    let first = call.rang.iter().map(|leg| leg.at).min()?;
    let before = all.iter().find(|other| {
        let waits = other.record.journey.iter().any(|p| p.phase == PhaseKind::Queue && within(p.at, first, p.until));
        other.queue == call.queue
            && other.record.direction == Direction::In
            && other.record.started_at.micros() + NEAR < call.record.started_at.micros()
            && waits
            && other.rang.iter().all(|leg| leg.at.micros() > first.micros() + NEAR)
            // Whose wait is over may be rung elsewhere, without a 180 that would make a phase of it.
            && !legs(other.record).iter().any(|leg| leg.at <= first && first <= leg.until)
    })?;
    let (queue, id, other) = (call.queue, call.record.id, before.record.id);
    Some(format!("queue {queue} served {id} at {first}, while {other} waited, who came first"))
}

/// Whether `at` lies between two moments, and not at them.
fn within(from: Wall, at: Wall, until: Wall) -> bool {
    from.micros() + NEAR < at.micros() && at.micros() + NEAR < until.micros()
}

/// What rang in a call, each leg once.
fn legs(record: &CallRecord) -> Vec<Rang<'_>> {
    let mut legs: BTreeMap<u32, Rang<'_>> = BTreeMap::new();
    for who in record.journey.iter().flat_map(|p| &p.who) {
        let new = Rang { target: &who.target, at: who.at, until: who.until };
        let leg = legs.entry(who.leg).or_insert(new);
        leg.at = leg.at.min(who.at);
        leg.until = leg.until.max(who.until);
    }
    legs.into_values().collect()
}
