//! What the customer experienced, phase by phase, and what each leg did meanwhile. Phases tile the call's time: one begins
//! where the other ends. All stamps are the call's start plus whole milliseconds of the monotonic clock, so that a step of
//! the wall clock bends no duration and the sums are exact.

use serde::{Deserialize, Serialize};

use super::record::{Phase, PhaseKind, Who};
use crate::base::{Instant, Now, Wall};

/// Phases that one journey keeps at most; later ones only prolong the last.
const MAX_PHASES: usize = 256;
/// Legs that one journey keeps at most.
const MAX_LEGS: usize = 256;

/// A journey in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Journey {
    start: Instant,
    wall: Wall,
    phases: Vec<Run>,
    legs: Vec<LegRun>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    kind: PhaseKind,
    at_ms: u64,
    why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LegRun {
    target: String,
    at_ms: u64,
    until_ms: Option<u64>,
    result: LegResult,
    why: Option<String>,
}

/// What became of a leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LegResult {
    /// Still ringing or talking.
    Open,
    /// It talked.
    Answered,
    /// Another was faster.
    Elsewhere,
    /// 486, 600.
    Busy,
    /// 603 and other refusals by a person or phone.
    Rejected,
    /// It rang and nobody came.
    NoAnswer,
    /// It could not be reached: 408, 480, 404, no response.
    Unreachable,
    /// It answered, and whoever it was did not confirm: a voicemail, by all signs.
    Unconfirmed,
    /// The caller left, or the call was ended otherwise.
    Cancelled,
    /// A fault: 5xx, transport.
    Failed,
    /// It sent the call on (3xx).
    Forwarded,
}

impl LegResult {
    /// As the record says it.
    pub fn as_str(self) -> &'static str {
        match self {
            LegResult::Open => "open",
            LegResult::Answered => "answered",
            LegResult::Elsewhere => "elsewhere",
            LegResult::Busy => "busy",
            LegResult::Rejected => "rejected",
            LegResult::NoAnswer => "no_answer",
            LegResult::Unreachable => "unreachable",
            LegResult::Unconfirmed => "unconfirmed",
            LegResult::Cancelled => "cancelled",
            LegResult::Failed => "failed",
            LegResult::Forwarded => "forwarded",
        }
    }

    /// What a final status says of the leg that sent it.
    pub fn of(status: u16) -> LegResult {
        match status {
            200..=299 => LegResult::Answered,
            300..=399 => LegResult::Forwarded,
            404 | 408 | 410 | 480 | 484 | 604 => LegResult::Unreachable,
            486 | 600 => LegResult::Busy,
            487 => LegResult::Cancelled,
            403 | 603 => LegResult::Rejected,
            500..=599 => LegResult::Failed,
            _ => LegResult::Rejected,
        }
    }
}

/// Sums of a finished journey, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Before the answer, and what is neither talk nor hold after it.
    pub wait: u64,
    /// Talk, pages included.
    pub talk: u64,
    /// Hold.
    pub hold: u64,
}

impl Journey {
    /// A journey that begins now with routing.
    pub fn begin(now: Now, why: &str) -> Journey {
        let wall = Wall::from_micros(now.wall.micros().div_euclid(1000) * 1000);
        let first = Run { kind: PhaseKind::Route, at_ms: 0, why: why.to_owned() };
        Journey { start: now.mono, wall, phases: vec![first], legs: Vec::new() }
    }

    /// When it began.
    pub fn started_at(&self) -> Wall {
        self.wall
    }

    /// The stamp of an instant.
    pub fn stamp(&self, at: Instant) -> Wall {
        self.wall_of(self.offset(at))
    }

    /// The present phase.
    pub fn phase(&self) -> PhaseKind {
        self.phases.last().map_or(PhaseKind::Route, |p| p.kind)
    }

    /// Enters a phase; nothing changes if the journey is in it already.
    pub fn enter(&mut self, now: Now, kind: PhaseKind, why: &str) {
        if self.phase() == kind || self.phases.len() >= MAX_PHASES {
            return;
        }
        let at_ms = self.offset(now.mono);
        match self.phases.last_mut() {
            // A phase that lasted no millisecond was not experienced.
            Some(last) if last.at_ms == at_ms => (last.kind, last.why) = (kind, why.to_owned()),
            Some(_) | None => self.phases.push(Run { kind, at_ms, why: why.to_owned() }),
        }
    }

    /// A leg begins; its number within the call, from 1 (the caller is 0).
    pub fn leg(&mut self, now: Now, target: String) -> u32 {
        if self.legs.len() < MAX_LEGS {
            // Most calls ring one phone, and a list that grows begins with room for four.
            if self.legs.is_empty() {
                self.legs.reserve_exact(1);
            }
            let at_ms = self.offset(now.mono);
            self.legs.push(LegRun { target, at_ms, until_ms: None, result: LegResult::Open, why: None });
        }
        self.legs.len() as u32
    }

    /// A leg talks; it goes on.
    pub fn answered(&mut self, leg: u32) {
        if let Some(leg) = self.legs.get_mut(index(leg)) {
            leg.result = LegResult::Answered;
        }
    }

    /// A leg is over. The first result stays, but for an answered leg the reason of its end is noted.
    pub fn over(&mut self, now: Now, leg: u32, result: LegResult, why: Option<String>) {
        let at = self.offset(now.mono);
        let Some(leg) = self.legs.get_mut(index(leg)).filter(|l| l.until_ms.is_none()) else { return };
        leg.until_ms = Some(at);
        if leg.result == LegResult::Open {
            leg.result = result;
        }
        leg.why = why;
    }

    /// The first millisecond in which somebody talked, or spoke on a page. A caller who holds when the phone answers is answered
    /// all the same: his journey has a hold where a talk of no length was.
    pub fn first_answered(&self) -> Option<u64> {
        let answered = |kind| matches!(kind, PhaseKind::Talk | PhaseKind::Hold | PhaseKind::Page);
        self.phases.iter().find(|p| answered(p.kind)).map(|p| p.at_ms)
    }

    /// The finished journey, which takes the reasons with it.
    pub fn finish(&mut self, now: Now) -> (Vec<Phase>, Sums, Wall) {
        let end = self.offset(now.mono);
        let mut sums = Sums::default();
        let mut phases = Vec::with_capacity(self.phases.len());
        for i in 0..self.phases.len() {
            let until = self.phases.get(i + 1).map_or(end, |next| next.at_ms);
            let run = &mut self.phases[i];
            let length = until - run.at_ms;
            match run.kind {
                // Whoever speaks on a page talks.
                PhaseKind::Talk | PhaseKind::Page => sums.talk += length,
                PhaseKind::Hold => sums.hold += length,
                PhaseKind::Ring
                | PhaseKind::Confirm
                | PhaseKind::Prompt
                | PhaseKind::Queue
                | PhaseKind::Hook
                | PhaseKind::Route
                | PhaseKind::Transfer
                | PhaseKind::Park => sums.wait += length,
            }
            let (phase, from, why) = (run.kind, run.at_ms, std::mem::take(&mut run.why));
            let who = self.who(from, until, end);
            phases.push(Phase { phase, at: self.wall_of(from), until: self.wall_of(until), why, who });
        }
        (phases, sums, self.wall_of(end))
    }

    fn who(&self, from: u64, until: u64, end: u64) -> Vec<Who> {
        let in_phase = |leg: &LegRun| {
            let leg_end = leg.until_ms.unwrap_or(end);
            // A leg that began and ended in one millisecond belongs to the phase of that millisecond.
            leg.at_ms < until.max(from + 1) && (leg_end > from || leg.at_ms >= from)
        };
        let who = |(number, leg): (usize, &LegRun)| Who {
            target: leg.target.clone(),
            leg: number as u32 + 1,
            at: self.wall_of(leg.at_ms.max(from)),
            until: self.wall_of(leg.until_ms.unwrap_or(end).min(until).max(leg.at_ms.max(from))),
            result: leg.result.as_str().to_owned(),
            why: leg.why.clone(),
        };
        let mut all = Vec::with_capacity(self.legs.len());
        all.extend(self.legs.iter().enumerate().filter(|(_, leg)| in_phase(leg)).map(who));
        all
    }

    fn offset(&self, at: Instant) -> u64 {
        (at.since(self.start).as_micros() / 1000) as u64
    }

    fn wall_of(&self, ms: u64) -> Wall {
        self.wall + std::time::Duration::from_millis(ms)
    }
}

/// The caller's number, 0, has no place in the list.
fn index(leg: u32) -> usize {
    (leg as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Instant::from_micros(ms * 1000 + 300), wall: Wall::from_micros(1_000_000_777 + ms as i64 * 1000) }
    }

    #[test]
    fn phases_tile_and_sums_are_exact() {
        let mut j = Journey::begin(at(0), "arrived");
        let a = j.leg(at(2), "extension:121".into());
        j.enter(at(2), PhaseKind::Ring, "121 rings");
        j.enter(at(5_001), PhaseKind::Talk, "121 answered");
        j.answered(a);
        j.enter(at(7_001), PhaseKind::Hold, "held");
        j.enter(at(8_000), PhaseKind::Talk, "resumed");
        j.over(at(9_999), a, LegResult::Cancelled, None);
        let (phases, sums, ended) = j.finish(at(9_999));
        assert_eq!(sums, Sums { wait: 5_001, talk: 2_000 + 1_999, hold: 999 });
        assert_eq!(sums.wait + sums.talk + sums.hold, (ended - j.started_at()).as_millis() as u64);
        assert!(phases.windows(2).all(|w| w[0].until == w[1].at));
        assert_eq!(phases[2].who[0].result, "answered");
    }

    #[test]
    fn who_is_on_hold_from_the_first_moment_was_answered() {
        let mut j = Journey::begin(at(0), "arrived");
        j.enter(at(1), PhaseKind::Ring, "rings");
        j.enter(at(7), PhaseKind::Talk, "121 answered");
        j.enter(at(7), PhaseKind::Hold, "held");
        assert_eq!(j.first_answered(), Some(7));
        let (phases, sums, _) = j.finish(at(9));
        assert_eq!(
            phases.iter().map(|p| p.phase).collect::<Vec<_>>(),
            [PhaseKind::Route, PhaseKind::Ring, PhaseKind::Hold]
        );
        assert_eq!(sums.hold, 2);
    }

    #[test]
    fn a_phase_of_no_length_is_replaced() {
        let mut j = Journey::begin(at(0), "arrived");
        j.enter(at(0), PhaseKind::Ring, "rings");
        let (phases, ..) = j.finish(at(1));
        assert_eq!(phases.len(), 1);
        assert_eq!(phases[0].phase, PhaseKind::Ring);
    }
}
