//! A call that waits for a routing hook: the caller hears ringing, nobody else rings yet. Its answer comes before the steps that
//! follow the hook; no answer, or one that cannot be used, is the next step.

use std::time::Duration;

use super::record::PhaseKind;
use super::{Call, CallKey, Cx, Legs, State};
use crate::base::Instant;
use crate::directory::Label;
use crate::policy::hook::{Answer, Outcome, Question};
use crate::policy::{MAX_STAGES, Stage, Why, stages};

/// How much later than the hook's own `timeout` we stop waiting for whoever asks it.
const GRACE: Duration = Duration::from_millis(200);

/// A question to a hook, as the core names it. A late answer names a question that nobody waits for any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HookQuery {
    /// The call that waits.
    pub call: CallKey,
    /// Its which question.
    pub serial: u32,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Asking {
    query: HookQuery,
    since: Instant,
    until: Instant,
}

impl Asking {
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.until <= now
    }
}

impl Call {
    /// Asks the hook of the present stage; the call waits for it.
    pub(super) fn ask_hook(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, name: &Label) {
        let Some(hook) = cx.directory.hook(name).cloned() else { return };
        let State::Ringing(ringing) = &mut self.state else { return };
        let query = HookQuery { call: self.key, serial: ringing.hooks_asked };
        let until = cx.now.mono + hook.timeout + GRACE;
        ringing.hooks_asked += 1;
        ringing.asking = Some(Asking { query, since: cx.now.mono, until });
        cx.switch.arm_call(until, self.key);
        let question = Question {
            call: self.id.to_string(),
            caller: self.caller.number.clone(),
            called: self.called.number.clone(),
            campaign: self.called.campaign.clone(),
            category: self.caller.category.clone(),
            region: self.caller.region.clone(),
            anonymous: self.identity.hidden,
            at: cx.now.wall,
        };
        cx.switch.ask_hook(query, hook, Box::new(question));
        self.journey.enter(cx.now, PhaseKind::Hook, &format!("hook {name} is asked"));
        if let Some(caller) = legs.get_mut(self.a) {
            caller.progress(cx, 180, 0, None);
        }
    }

    /// The hook answered, or there is no answer.
    pub fn hook_answered(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, query: HookQuery, outcome: Outcome) {
        let State::Ringing(ringing) = &mut self.state else { return };
        let Some(asking) = ringing.asking.take_if(|asking| asking.query == query) else { return };
        let Some(stage) = ringing.stage.clone() else { return };
        let took = cx.now.mono.since(asking.since).as_millis();
        let because = match outcome {
            Ok(Some(answer)) => self.heed(cx, &stage, answer, took),
            Ok(None) => format!("answered in {took} ms: go on"),
            Err(why) => format!("skipped: {why}"),
        };
        self.plan.why.push(Why::new(stage.target.to_string(), because));
        self.next_stage(legs, cx);
        self.show(legs, cx);
    }

    /// Nobody told us what became of the question.
    pub(super) fn hook_is_late(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &self.state else { return };
        let Some(asking) = &ringing.asking else { return };
        self.hook_answered(legs, cx, asking.query, Err("no answer in time".to_owned()));
    }

    /// Does what the answer says; in words for the trail.
    fn heed(&mut self, cx: &Cx<'_>, stage: &Stage, answer: Answer, took: u128) -> String {
        let Answer { to, caller_name, tags, card_url, record } = answer;
        let targets: Vec<String> = to.iter().map(|step| step.target.to_string()).collect();
        if let State::Ringing(ringing) = &mut self.state {
            let room = MAX_STAGES.saturating_sub(ringing.stages.len());
            // Steps behind the hook that say `after` join the first of its answer.
            let mut at = 0;
            for stage in stages(cx.directory, &to, Some(stage)).into_iter().take(room) {
                ringing.stages.insert(at, stage);
                at += if at == 0 {
                    1 + ringing.stages.iter().skip(1).take_while(|s| !s.after.is_zero()).count()
                } else {
                    1
                };
            }
        }
        if let Some(name) = &caller_name {
            self.identity.name = Some(name.to_string());
            self.caller.name = Some(name.to_string());
        }
        self.tags.extend(tags.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        self.tags.extend(card_url.map(|url| ("card_url".to_owned(), url.to_string())));
        self.plan.record = record.unwrap_or(self.plan.record);
        match targets.is_empty() {
            true => format!("answered in {took} ms: no steps of its own"),
            false => format!("answered in {took} ms: {}", targets.join(", then ")),
        }
    }
}
