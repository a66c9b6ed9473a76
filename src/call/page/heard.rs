//! What is heard of a page: the chime, the caller's voice in every loudspeaker, and what loudspeakers say back.
//!
//! The caller's packets leave from the port of every loudspeaker ([`Command::Fan`]), so all speak one G.711 codec. With talkback what
//! the loudspeakers say is mixed and goes to the caller, and to nobody else: two shops that hear each other would howl.

use super::Stage;
use crate::call::record::{By, PhaseKind};
use crate::call::{Call, Cx, Legs, State};
use crate::media::sound::{CHIME, SoundName};
use crate::media::{Command, Port};

impl Call {
    /// The caller is answered, the chime sounds everywhere at once, and then its voice.
    pub(super) fn speak(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Paging(paging) = &mut self.state else { return };
        let codec = std::slice::from_ref(&paging.codec);
        if let Some(caller) = legs.get_mut(self.a).filter(|caller| !caller.is_up()) {
            let Some(answer) = caller.end.as_mut().and_then(|end| end.answer(codec)) else {
                let words = "no answer to the caller's offer".to_owned();
                return self.end_page(legs, cx, None, By::System, Some(words));
            };
            let variant = paging.back.variants;
            caller.accept(cx, variant, Some(&answer));
        }
        let until = cx.now.mono + paging.max;
        paging.stage = Stage::Speaking { until };
        cx.switch.arm_call(until, self.key);
        let ports = paging.ports();
        let words = format!("page {} ({}) is heard in {} places", paging.number, paging.name, ports.len());
        self.paged = Some(paging.number.clone());
        self.journey.enter(cx.now, PhaseKind::Page, &words);
        paging.zones.iter().for_each(|zone| self.journey.answered(zone.1));
        // No desk phone's microphone opens without a sound (INTERFACE, Auto-answer).
        let opens = paging.speakers.iter().any(|speaker| paging.opens(cx, &speaker.extension));
        let chime = (paging.chime || opens).then(|| SoundName::from(CHIME));
        let sounds: Vec<SoundName> = chime.into_iter().chain(paging.sounds.iter().cloned()).collect();
        if !paging.sounds.is_empty() {
            paging.playing.clone_from(&ports);
        }
        // The caller hears the chime too, and knows when to speak.
        let own = legs.get(self.a).and_then(|leg| Some(leg.end.as_ref()?.voice()?.port));
        if !sounds.is_empty() {
            for port in ports.into_iter().chain(own) {
                self.play(cx, port, sounds.clone());
            }
        }
        // After the sounds: what a microphone takes up is not heard before they are over.
        self.flow(legs, cx);
        self.show(legs, cx);
    }

    pub(super) fn play(&self, cx: &mut Cx<'_>, port: Port, sounds: Vec<SoundName>) {
        let State::Paging(paging) = &self.state else { return };
        let (codec, payload_type) = (paging.codec.codec(), paging.codec.payload);
        cx.switch.media(self.worker, Command::Play { port, sounds, codec, payload_type, repeat: false });
    }

    /// Packets flow as the last descriptions say, once the page is spoken.
    pub(super) fn flow(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Paging(paging) = &self.state else { return };
        if !matches!(paging.stage, Stage::Speaking { .. }) {
            return;
        }
        let mut commands = Vec::new();
        for (key, _) in paging.hearing() {
            if let Some(end) = legs.get(key).and_then(|leg| leg.end.as_ref()) {
                end.attend(&mut commands, false);
            }
        }
        if let Some(end) = legs.get(self.a).and_then(|leg| leg.end.as_ref()) {
            end.attend(&mut commands, true);
            let (payload_type, to) = (paging.codec.payload, paging.ports());
            let back = paging.talkback.then(|| paging.codec.codec());
            commands.extend(end.voice().map(|voice| Command::Fan { from: voice.port, payload_type, to, back }));
        }
        commands.into_iter().for_each(|command| cx.switch.media(self.worker, command));
    }

    /// A sound was played to its end; a page of a file is over when that was heard everywhere.
    pub(in crate::call) fn page_played(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, port: Port) {
        let State::Paging(paging) = &mut self.state else { return };
        let before = paging.playing.len();
        paging.playing.retain(|p| *p != port);
        if before > 0 && paging.playing.is_empty() {
            self.end_page(legs, cx, None, By::System, Some("it was played".to_owned()));
        }
    }
}
