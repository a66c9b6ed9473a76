//! What a caller hears from us before somebody talks: a `play:` target, music, and ringback once we have begun to speak. It is
//! early media (183) unless a step answers the call first. Nothing here knows sounds but by name; media workers play them.
//!
//! Where media passes us by, where the caller made no offer, or where no codec of the offer is spoken here, nothing is
//! played: the step is skipped, and the trail says why.

use std::time::Duration;

use bytes::Bytes;

use super::record::PhaseKind;
use super::{Call, Cx, Legs, Ringing, State};
use crate::base::Instant;
use crate::directory::Label;
use crate::media::sound::{RINGBACK, SoundName};
use crate::media::wav::MAX_SECONDS;
use crate::media::{Command, Port};
use crate::policy::Why;
use crate::sdp::session::Format;

/// A prompt whose end was not reported is over by then.
const LONGEST: Duration = Duration::from_secs(MAX_SECONDS as u64 + 5);

/// Our own voice in a caller's ear.
#[derive(Debug)]
pub(super) struct Voice {
    /// On this port of the caller's leg,
    port: Port,
    /// by this answer to the caller's offer,
    body: Bytes,
    /// in this early dialog.
    variant: u8,
    says: Says,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    /// A prompt that a step is about; over by then at the latest.
    Prompt(Instant),
    Ringback,
    Music,
    Nothing,
}

impl Voice {
    fn is_prompt(&self) -> bool {
        matches!(self.says, Says::Prompt(_))
    }
}

impl Ringing {
    /// Whether the caller listens to a prompt whose end a step waits for.
    pub(super) fn listens(&self) -> bool {
        self.voice.as_ref().is_some_and(Voice::is_prompt)
    }
}

impl Call {
    /// A `play:` step begins; if it cannot, the trail says why, and the next one does.
    pub(super) fn begin_prompt(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, name: &Label, answer: bool) {
        let until = cx.now.mono + LONGEST;
        match self.say(legs, cx, name, Says::Prompt(until), answer) {
            Ok(()) => {
                cx.switch.arm_call(until, self.key);
                self.journey.enter(cx.now, PhaseKind::Prompt, &format!("{name} is played"));
            }
            Err(because) => self.plan.why.push(Why::new(format!("play:{name}"), format!("skipped: {because}"))),
        }
    }

    /// A queue's music, over and over, until somebody answers. Where that cannot be, the caller hears ringback.
    pub(super) fn begin_music(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &self.state else { return };
        let Some(name) = ringing.queue(cx.directory).and_then(|queue| queue.music.clone()) else { return };
        if let Err(because) = self.say(legs, cx, &name, Says::Music, false) {
            self.plan.why.push(Why::new(format!("music {name}"), format!("not played: {because}")));
        }
    }

    /// A phone rings. Whether the caller is told so by us: whoever hears us already makes no ringback of its own.
    pub(super) fn ring_by_voice(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) -> bool {
        let State::Ringing(ringing) = &self.state else { return false };
        match ringing.voice.as_ref().map(|voice| voice.says) {
            None => false,
            Some(Says::Ringback | Says::Music) => true,
            Some(Says::Nothing | Says::Prompt(_)) => {
                self.say(legs, cx, &RINGBACK.into(), Says::Ringback, false).is_ok()
            }
        }
    }

    /// The caller hears somebody else from now on.
    pub(super) fn fall_silent(&mut self, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &mut self.state else { return };
        if let Some(voice) = &mut ringing.voice
            && voice.says != Says::Nothing
        {
            voice.says = Says::Nothing;
            cx.switch.media(self.worker, Command::Hush { port: voice.port });
        }
    }

    /// A caller whom a prompt has answered offers anew while others ring or he waits: we answer for them, in the codec in which he hears us.
    pub(super) fn caller_offers(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, body: Option<&Bytes>) {
        let in_use = legs.get(self.a).and_then(|caller| caller.end.as_ref()?.in_use());
        if !self.answer_alone(legs, cx, self.a, body, in_use.as_ref().map_or(&[][..], |codecs| codecs)) {
            return;
        }
        let State::Ringing(ringing) = &mut self.state else { return };
        let Some(end) = legs.get(self.a).and_then(|caller| caller.end.as_ref()) else { return };
        if let (Some(voice), Some(told)) = (&mut ringing.voice, end.last_told()) {
            voice.body = told.clone();
        }
        self.attend_caller(legs, cx);
    }

    /// What we say to the caller goes where his last description says.
    pub(super) fn attend_caller(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let Some(end) = legs.get(self.a).and_then(|caller| caller.end.as_ref()) else { return };
        let mut commands = Vec::new();
        end.attend(&mut commands, false);
        commands.into_iter().for_each(|command| cx.switch.media(self.worker, command));
    }

    /// A worker has played a sound to its end.
    pub fn played(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, port: Port) {
        self.tone_played(legs, cx, port);
        self.page_played(legs, cx, port);
        if let State::Ringing(ringing) = &mut self.state
            && let Some(voice) = ringing.voice.as_mut().filter(|voice| voice.port == port && voice.is_prompt())
        {
            voice.says = Says::Nothing;
            self.next_stage(legs, cx);
            if matches!(&self.state, State::Ringing(ringing) if !ringing.listens()) {
                self.journey.enter(cx.now, PhaseKind::Route, "it was played");
            }
        }
    }

    /// The end of a prompt may have gone unreported.
    pub(super) fn prompt_due(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Ringing(ringing) = &self.state else { return };
        if let Some(Voice { port, says: Says::Prompt(until), .. }) = ringing.voice
            && until <= cx.now.mono
        {
            cx.switch.media(self.worker, Command::Hush { port });
            self.played(legs, cx, port);
        }
    }

    fn say(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        name: &SoundName,
        says: Says,
        answer: bool,
    ) -> Result<(), &'static str> {
        let State::Ringing(ringing) = &mut self.state else { return Err("the call is answered") };
        let caller = legs.get_mut(self.a).ok_or("the caller is gone")?;
        let end = caller.end.as_mut().ok_or("media passes us by")?;
        let mut commands = Vec::new();
        // An answer of ours stands as long as no phone's has taken its place; then it needs an early dialog of its own.
        let stands = ringing.voice.take().filter(|voice| end.last_told() == Some(&voice.body));
        let (body, variant, first) = match stands {
            Some(voice) => (voice.body, voice.variant, false),
            None => {
                end.last_heard().ok_or("the caller made no offer to be answered")?;
                let body = end.answer(&Format::BASIC).ok_or("no codec of the caller's is spoken here")?;
                end.attend(&mut commands, false);
                let variant = ringing.variants;
                ringing.variants = ringing.variants.saturating_add(1);
                (body, variant, true)
            }
        };
        let voice = end.voice().ok_or("no codec of the caller's is spoken here")?;
        let (port, codec, payload_type) = (voice.port, voice.codec, voice.payload_type);
        // Ringback and music go on until something else does; a prompt has an end.
        let repeat = !matches!(says, Says::Prompt(_));
        commands.push(Command::Play { port, sounds: vec![name.clone()], codec, payload_type, repeat });
        if answer {
            caller.accept(cx, variant, Some(&body));
        } else if first {
            caller.progress(cx, 183, variant, Some(&body));
        }
        ringing.voice = Some(Voice { port, body, variant, says });
        commands.into_iter().for_each(|command| cx.switch.media(self.worker, command));
        Ok(())
    }
}
