//! From a finished call to its record.

use super::leg::Peer;
use super::record::{CallRecord, Direction, Hangup, Outcome, PhaseKind, VERSION};
use super::{By, Call, Cause};
use crate::base::Now;

/// How a call ended that nobody knows the end of; only for records of calls that were cut off.
const UNKNOWN: Hangup = Hangup { by: By::System, sip: None, reason: None };

impl Call {
    /// The call's time ends now.
    pub(super) fn ended(&mut self, now: Now) {
        self.ended_at = Some(now);
    }

    /// The record. It takes with it what nobody asks a call for that is over.
    pub(super) fn record(&mut self) -> CallRecord {
        let now = self.ended_at.unwrap_or_default();
        let outcome = self.outcome(now);
        let (journey, sums, ended_at) = self.journey.finish(now);
        let started_at = self.journey.started_at();
        let paged = self.paged.as_ref().map(|page| format!("page:{page}"));
        let ms = |ms: u64| started_at + std::time::Duration::from_millis(ms);
        CallRecord {
            id: self.id,
            v: VERSION,
            direction: self.direction,
            started_at,
            answered_at: self.journey.first_answered().map(ms),
            ended_at,
            caller: std::mem::take(&mut self.caller),
            called: std::mem::take(&mut self.called),
            shown: self.shown.clone(),
            outcome,
            answered_by: self.answered_by.as_ref().map(Peer::to_string).or(paged),
            branch: self.branch.as_deref().map(str::to_owned),
            trunk: self.trunk.as_deref().map(str::to_owned),
            wait_ms: sums.wait,
            talk_ms: sums.talk,
            hold_ms: sums.hold,
            hangup: self.end.as_ref().map_or(UNKNOWN, |end| Hangup {
                by: end.by,
                sip: end.sip,
                reason: end.reason.clone(),
            }),
            journey,
            recordings: self.recording.take().map(|entry| *entry).into_iter().collect(),
            tags: std::mem::take(&mut self.tags),
            note: None,
            kind: None,
            explain: std::mem::take(&mut self.plan.why),
        }
    }

    fn outcome(&self, now: Now) -> Outcome {
        if self.answered_by.is_some() || self.paged.is_some() {
            return Outcome::Answered;
        }
        let Some(end) = &self.end else { return Outcome::Failed };
        match (end.cause, self.direction) {
            (Cause::Fault, _) => Outcome::Failed,
            (Cause::Refused, _) => Outcome::Rejected,
            (Cause::CallerLeft, _) if self.journey.phase() == PhaseKind::Prompt => Outcome::NonTarget,
            (Cause::CallerLeft, Direction::In) => {
                let rang = self.first_ring.map(|at| now.mono.since(at));
                if rang.is_some_and(|rang| rang < self.short_ring) { Outcome::Short } else { Outcome::Missed }
            }
            (Cause::CallerLeft, Direction::Out | Direction::Internal | Direction::Page) => Outcome::Missed,
            (Cause::Nobody, Direction::In | Direction::Internal | Direction::Page) => Outcome::Missed,
            (Cause::Nobody, Direction::Out) => match end.sip {
                Some(486 | 600) => Outcome::Busy,
                Some(403 | 603) => Outcome::Rejected,
                Some(500..=599) => Outcome::Failed,
                _ => Outcome::Missed,
            },
        }
    }
}
