//! Announcements: the caller speaks, and loudspeakers that answer by themselves are heard in the shop.
//!
//! ```text
//!             INVITE to every loudspeaker         all have answered, or 2 s after the first
//!   Ringing ------------------------> Gathering ------------------------------------------> Speaking --> Closing
//!      ^                                  |           200 to the caller, chime, then its voice   |
//!      '---- nobody hears it: next step --'                                                      '-- BYE, `max`, nobody is left
//! ```
//!
//! Multicast groups are ports of ours whose peer is the group. Every leg ends with the page; a loudspeaker that is lost drops
//! out of it. Who hears a page is `policy`'s decision; how it sounds, and who is heard back, stands in `heard`.

mod heard;

use std::time::Duration;

use bytes::Bytes;

use super::bridge::End;
use super::fork::auto_answer;
use super::journey::LegResult;
use super::leg::{Dial, Event, Leg, Peer};
use super::record::{By, PhaseKind};
use super::{Call, Cause, Cx, Final, LegKey, Legs, Place, Ringing, State};
use crate::base::Instant;
use crate::directory::{Label, Page};
use crate::media::relay::fan;
use crate::media::sound::{BEEP, SoundName};
use crate::media::{Command, Kind, Port, polycom};
use crate::policy::page::{self, DIAL, LeftOut, Zone};
use crate::policy::{Moment, Way, Why};
use crate::sdp::session::Format;
use crate::sip::phrase;

/// Once one loudspeaker has answered the others have so long, so that all begin together.
const TOGETHER: Duration = Duration::from_secs(2);
/// A phone that had to end a call is dialled so much later, and again if it is still busy.
const HANG_UP: Duration = Duration::from_millis(300);
/// Clock of G.711 and of every group, in Hz.
const CLOCK: u32 = 8000;
/// What is said to a loudspeaker whose answer cannot be used.
const UNUSABLE: &str = "SIP;cause=488;text=\"Not Acceptable Here\"";

/// A page in progress.
#[derive(Debug)]
pub(super) struct Paging {
    number: Label,
    name: Label,
    chime: bool,
    /// Loudspeakers are heard by the caller.
    talkback: bool,
    max: Duration,
    /// What everybody speaks.
    codec: Format,
    /// What is played; empty: the caller speaks.
    sounds: Vec<SoundName>,
    stage: Stage,
    speakers: Vec<Speaker>,
    /// Our ports to the groups, with the leg's number in the journey.
    zones: Vec<(Port, u32)>,
    /// Ports on which a sound has not come to its end.
    playing: Vec<Port>,
    /// The steps behind it, for when nobody hears it.
    back: Box<Ringing>,
}

#[derive(Debug)]
enum Stage {
    Gathering {
        /// Groups have heard their alerts by then.
        ready: Instant,
        /// Who has not answered by then comes later.
        together: Option<Instant>,
    },
    Speaking {
        until: Instant,
    },
}

/// A loudspeaker at one place.
#[derive(Debug)]
struct Speaker {
    extension: Label,
    place: Place,
    /// It was in a call, and may be so a moment longer.
    takes_over: bool,
    /// It has to answer until then.
    until: Instant,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// It is dialled then.
    Waits(Instant),
    Rings(LegKey),
    Hears(LegKey, Port),
    Over,
}

impl Paging {
    /// Loudspeakers that ring or hear.
    pub(super) fn legs(&self) -> impl Iterator<Item = LegKey> {
        self.speakers.iter().filter_map(Speaker::leg)
    }

    fn hearing(&self) -> impl Iterator<Item = (LegKey, Port)> {
        self.speakers.iter().filter_map(|speaker| match speaker.step {
            Step::Hears(leg, port) => Some((leg, port)),
            Step::Waits(_) | Step::Rings(_) | Step::Over => None,
        })
    }

    /// Ports from which it is heard.
    fn ports(&self) -> Vec<Port> {
        self.hearing().map(|(_, port)| port).chain(self.zones.iter().map(|zone| zone.0)).collect()
    }

    /// Whether the page opens the microphone of somebody's desk phone.
    fn opens(&self, cx: &Cx<'_>, extension: &str) -> bool {
        self.talkback && !cx.directory.extension(extension).is_some_and(|extension| extension.paging)
    }

    fn is_pending(&self) -> bool {
        self.speakers.iter().any(|speaker| matches!(speaker.step, Step::Waits(_) | Step::Rings(_)))
    }
}

impl Speaker {
    fn leg(&self) -> Option<LegKey> {
        match self.step {
            Step::Rings(leg) | Step::Hears(leg, _) => Some(leg),
            Step::Waits(_) | Step::Over => None,
        }
    }
}

impl Call {
    /// A `page:` step begins; if nobody can hear it, the trail says why, and the next step does.
    pub(super) fn begin_page(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, number: &str) {
        let directory = cx.directory;
        let Some(page) = directory.page(number) else { return };
        if let Err((status, because)) = self.page(legs, cx, page) {
            self.plan.why.push(Why::new(format!("page:{number}"), format!("skipped: {because}")));
            if let State::Ringing(ringing) = &mut self.state {
                ringing.note(Final::new(status, phrase(status)));
            }
        }
    }

    fn page(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, page: &Page) -> Result<(), (u16, &'static str)> {
        let State::Ringing(ringing) = &mut self.state else { return Ok(()) };
        let (directory, key) = (cx.directory, self.key);
        let moment = Moment {
            ask: &self.ask,
            directory,
            live: &*cx.switch,
            at: cx.now.wall,
            tried: &ringing.tried,
            spent: &ringing.spent,
            rung: &ringing.rung,
        };
        let found = page::members(page, &moment);
        let sounds = std::mem::take(&mut self.sounds);
        let groups = !found.zones.is_empty();
        // Groups are µ-law wherever that can be: some listeners know nothing else.
        let codecs = if groups { [Format::PCMU, Format::PCMA] } else { [Format::PCMA, Format::PCMU] };
        let codec = match (self.relay, sounds.is_empty()) {
            (false, _) => return Err((488, "media passes us by")),
            (true, false) => codecs[0].clone(),
            (true, true) => self.page_codec(legs, &codecs).ok_or((488, "the caller speaks no G.711"))?,
        };
        for out in &found.left_out {
            self.leave_out(cx, out);
        }
        if found.is_empty() {
            return Err((480, "nobody can hear it"));
        }
        let State::Ringing(ringing) = &mut self.state else { return Ok(()) };
        let polycom = found.zones.iter().any(|zone| matches!(zone, Zone::Polycom { .. }));
        let alerts = if polycom { polycom::GAP * polycom::ALERTS } else { Duration::ZERO };
        let mut speakers = Vec::new();
        for speaker in found.speakers {
            let begins = if speaker.takes_over { cx.now.mono + HANG_UP } else { cx.now.mono };
            if speaker.takes_over {
                let words = format!("taken over by page {} ({})", page.number, page.name);
                cx.switch.take_over(key, &speaker.extension, &words);
                cx.switch.arm_call(begins, key);
            }
            // Every place where it is registered is a loudspeaker of its own.
            speakers.extend(cx.switch.places(&Way::Extension(speaker.extension.clone())).into_iter().map(|place| {
                Speaker {
                    extension: speaker.extension.clone(),
                    place,
                    takes_over: speaker.takes_over,
                    until: begins + DIAL,
                    step: Step::Waits(begins),
                }
            }));
        }
        let paging = Paging {
            number: page.number.clone(),
            name: page.name.clone(),
            chime: page.chime,
            talkback: page.talkback && sounds.is_empty(),
            max: page.max,
            codec,
            sounds,
            stage: Stage::Gathering { ready: cx.now.mono + alerts, together: None },
            speakers,
            zones: Vec::new(),
            playing: Vec::new(),
            back: Box::new(std::mem::take(&mut **ringing)),
        };
        self.state = State::Paging(Box::new(paging));
        self.journey.enter(
            cx.now,
            PhaseKind::Ring,
            &format!("page {} ({}) gathers its members", page.number, page.name),
        );
        found.zones.into_iter().for_each(|zone| self.open_zone(cx, zone));
        if let Some(caller) = legs.get_mut(self.a) {
            caller.progress(cx, 180, 0, None);
        }
        self.page_due(legs, cx);
        Ok(())
    }

    /// What the caller can be heard in. Whoever was answered already keeps the codec in use.
    fn page_codec(&self, legs: &Legs, codecs: &[Format]) -> Option<Format> {
        let caller = legs.get(self.a)?;
        let end = caller.end.as_ref()?;
        match caller.is_up() {
            true => end.in_use()?.into_iter().find(|f| codecs.contains(f)),
            false => codecs.iter().find(|codec| end.offers(std::slice::from_ref(codec)).is_some()).cloned(),
        }
    }

    /// A member that does not hear it stands in the report all the same.
    fn leave_out(&mut self, cx: &Cx<'_>, out: &LeftOut) {
        let leg = self.journey.leg(cx.now, format!("extension:{}", out.extension));
        self.journey.over(cx.now, leg, LegResult::of(out.status), Some(out.because.to_owned()));
    }

    fn open_zone(&mut self, cx: &mut Cx<'_>, zone: Zone) {
        let leg = self.journey.leg(cx.now, zone.to_string());
        let State::Paging(paging) = &mut self.state else { return };
        let spoken = paging.codec == Format::PCMU || !matches!(zone, Zone::Polycom { .. });
        let Some(port) = spoken.then(|| cx.switch.take_port(cx.now.mono, self.key)).flatten() else {
            let because = if spoken { "no RTP port is free" } else { "Polycom groups hear µ-law only" };
            return self.journey.over(cx.now, leg, LegResult::Failed, Some(because.to_owned()));
        };
        let (Zone::Rtp(group) | Zone::Polycom { group, .. }) = zone;
        let (kind, ssrc) = (Kind::Rtp { clock: CLOCK }, cx.rng.bits32());
        let mut commands = vec![
            Command::Open { port, kind, ssrc, timeout: Duration::ZERO },
            Command::Remote { port, remote: fan::group(group) },
            Command::Flow { port, send: true, expect: false },
        ];
        if let Zone::Polycom { channel, .. } = zone {
            commands.push(Command::Polycom { port, channel, name: paging.name.to_string() });
        }
        paging.zones.push((port, leg));
        commands.into_iter().for_each(|command| cx.switch.media(self.worker, command));
    }

    /// A moment has come: somebody is to be dialled, or has not answered, or it has lasted long enough.
    pub(super) fn page_due(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let mut i = 0;
        while let State::Paging(paging) = &mut self.state
            && let Some(speaker) = paging.speakers.get_mut(i)
        {
            i += 1;
            match speaker.step {
                Step::Waits(at) if at <= cx.now.mono => self.dial_speaker(legs, cx, i - 1),
                Step::Rings(leg) if speaker.until <= cx.now.mono => {
                    speaker.step = Step::Over;
                    self.drop_leg(legs, cx, leg, None, LegResult::NoAnswer);
                }
                Step::Waits(_) | Step::Rings(_) | Step::Hears(..) | Step::Over => {}
            }
        }
        self.page_goes_on(legs, cx);
    }

    fn dial_speaker(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, i: usize) {
        let State::Paging(paging) = &mut self.state else { return };
        let (codec, identity) = (paging.codec.clone(), self.identity.shown_as(Some(&paging.name)));
        let Some(speaker) = paging.speakers.get_mut(i) else { return };
        let (extension, place) = (speaker.extension.clone(), speaker.place.clone());
        let peer = Peer::Extension(extension.clone());
        let number = self.journey.leg(cx.now, peer.to_string());
        let mut end = End::new(cx.rng, place.media);
        let Ok(body) = self.at_desk(cx, |desk| end.offer(desk, &codec)) else {
            if let State::Paging(paging) = &mut self.state {
                paging.speakers[i].step = Step::Over;
            }
            return self.journey.over(cx.now, number, LegResult::Failed, Some("no RTP port is free".to_owned()));
        };
        let how = auto_answer(cx.directory, &peer, place.agent.as_deref());
        let way = Way::Extension(extension);
        let dial = Dial::new(cx, &way, place, &identity, self.max_forwards, Some(body), false).by_itself(how);
        let call = self.key;
        let key = legs.insert_with_key(|key| Leg::uac(key, call, number, peer, dial, Some(end), cx));
        let Some(leg) = legs.get_mut(key) else { return };
        leg.occupies = true;
        cx.switch.named(self.id, leg.call_id(), &leg.peer);
        cx.switch.occupy(call, &leg.peer, leg.extension(), true);
        self.alive.push(key);
        leg.invite(cx);
        let State::Paging(paging) = &mut self.state else { return };
        paging.speakers[i].step = Step::Rings(key);
        cx.switch.arm_call(paging.speakers[i].until, self.key);
    }

    /// Something happened on a leg of a page.
    pub(super) fn while_paging(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, event: Event) {
        if key == self.a {
            return self.caller_while_paging(legs, cx, event);
        }
        let State::Paging(paging) = &mut self.state else { return };
        let codec = paging.codec.clone();
        let Some(speaker) = paging.speakers.iter_mut().find(|speaker| speaker.leg() == Some(key)) else {
            return self.leftover(legs, cx, key, event);
        };
        match event {
            Event::Answered { body, .. } => self.speaker_answered(legs, cx, key, body.as_ref()),
            Event::Refused { status: 486 | 600, .. } if speaker.takes_over && cx.now.mono + HANG_UP < speaker.until => {
                // It has not hung up yet.
                speaker.step = Step::Waits(cx.now.mono + HANG_UP);
                cx.switch.arm_call(cx.now.mono + HANG_UP, self.key);
                self.speaker_over(legs, cx, key, LegResult::Busy, "dialled again");
            }
            Event::Refused { status, phrase, reason, .. } => {
                speaker.step = Step::Over;
                let words = reason.unwrap_or_else(|| format!("{status} {phrase}"));
                self.speaker_over(legs, cx, key, LegResult::of(status), &words);
            }
            Event::Lost { because, status } => {
                speaker.step = Step::Over;
                if let Some(leg) = legs.get_mut(key) {
                    leg.hang_up(cx, None);
                }
                let words = because.unwrap_or_else(|| "lost".to_owned());
                self.speaker_over(legs, cx, key, LegResult::of(status), &words);
            }
            Event::Bye { reason } => {
                speaker.step = Step::Over;
                self.speaker_over(legs, cx, key, LegResult::Answered, &reason.unwrap_or_else(|| "hung up".to_owned()));
            }
            Event::Gone => {
                speaker.step = Step::Over;
                self.speaker_over(legs, cx, key, LegResult::Failed, "gone");
            }
            Event::Offered { body } => {
                if self.answer_alone(legs, cx, key, body.as_ref(), std::slice::from_ref(&codec)) {
                    self.flow(legs, cx);
                }
            }
            Event::Restated { body } | Event::Acked { body: Some(body) } => {
                self.hear(legs, cx, key, &body);
                self.flow(legs, cx);
            }
            Event::Asked { .. } => {
                if let Some(leg) = legs.get_mut(key) {
                    while leg.answer_asked(cx, 200, "OK", None).is_some() {}
                }
            }
            // It rings before it answers; nothing of ours is under way there.
            Event::Progress { .. }
            | Event::Cancelled { .. }
            | Event::Acked { .. }
            | Event::OfferAnswered { .. }
            | Event::AskedAnswered { .. }
            | Event::Withdrawn => {}
        }
    }

    fn caller_while_paging(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, event: Event) {
        let up = legs.get(self.a).is_some_and(Leg::is_up);
        let State::Paging(paging) = &self.state else { return };
        let codec = paging.codec.clone();
        match event {
            Event::Cancelled { reason } if !up => self.end_page(legs, cx, None, By::Caller, reason),
            Event::Bye { reason } => self.end_page(legs, cx, Some(self.a), By::Caller, reason),
            Event::Lost { because, .. } => self.end_page(legs, cx, None, By::System, because),
            Event::Gone => self.end_page(legs, cx, Some(self.a), By::Caller, None),
            Event::Offered { body } if up => {
                if self.answer_alone(legs, cx, self.a, body.as_ref(), std::slice::from_ref(&codec)) {
                    self.flow(legs, cx);
                }
            }
            Event::Restated { body } | Event::Acked { body: Some(body) } => {
                self.hear(legs, cx, self.a, &body);
                self.flow(legs, cx);
            }
            // Keys of the caller's are not for loudspeakers.
            Event::Asked { .. } if up => {
                if let Some(leg) = legs.get_mut(self.a) {
                    while leg.answer_asked(cx, 200, "OK", None).is_some() {}
                }
            }
            Event::Offered { .. } | Event::Asked { .. } => {
                if let Some(leg) = legs.get_mut(self.a) {
                    leg.decline(cx, 491);
                }
            }
            // A CANCEL that met its 200: the caller sends BYE (RFC 3261 15.1.2). Nothing of ours is under way there.
            Event::Cancelled { .. }
            | Event::Progress { .. }
            | Event::Answered { .. }
            | Event::Refused { .. }
            | Event::Acked { .. }
            | Event::OfferAnswered { .. }
            | Event::AskedAnswered { .. }
            | Event::Withdrawn => {}
        }
    }

    fn speaker_answered(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, body: Option<&Bytes>) {
        let Some(leg) = legs.get_mut(key) else { return };
        leg.ack(cx, None);
        let number = leg.number;
        let heard = body.is_some_and(|body| self.hear(legs, cx, key, body));
        let voice = legs.get(key).and_then(|leg| leg.end.as_ref()?.voice()).filter(|_| heard);
        let State::Paging(paging) = &mut self.state else { return };
        let Some(speaker) = paging.speakers.iter_mut().find(|speaker| speaker.leg() == Some(key)) else { return };
        let Some(voice) = voice else {
            speaker.step = Step::Over;
            if let Some(leg) = legs.get_mut(key) {
                leg.hang_up(cx, Some(UNUSABLE));
            }
            return self.speaker_over(legs, cx, key, LegResult::Failed, "its answer cannot be used");
        };
        speaker.step = Step::Hears(key, voice.port);
        let extension = speaker.extension.clone();
        let opens = matches!(paging.stage, Stage::Speaking { .. }) && paging.opens(cx, &extension);
        self.journey.answered(number);
        if let Stage::Gathering { together: together @ None, .. } = &mut paging.stage {
            *together = Some(cx.now.mono + TOGETHER);
            cx.switch.arm_call(cx.now.mono + TOGETHER, self.key);
        }
        // Whoever comes late hears the rest; its microphone opens with a sound all the same.
        if opens {
            self.play(cx, voice.port, vec![SoundName::from(BEEP)]);
        }
        self.flow(legs, cx);
        self.page_goes_on(legs, cx);
    }

    /// A loudspeaker is out.
    fn speaker_over(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey, result: LegResult, why: &str) {
        if let Some(leg) = legs.get(key) {
            self.journey.over(cx.now, leg.number, result, Some(why.to_owned()));
        }
        self.bury(legs, cx, key);
        self.page_goes_on(legs, cx);
    }

    /// Begins to speak when all are there; goes on to the next step, or ends, when nobody is left.
    fn page_goes_on(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Paging(paging) = &mut self.state else { return };
        let (now, pending) = (cx.now.mono, paging.is_pending());
        let heard = paging.hearing().next().is_some() || !paging.zones.is_empty();
        match paging.stage {
            Stage::Gathering { .. } if !pending && !heard => self.nobody_hears(legs, cx),
            Stage::Gathering { ready, together } => {
                let waited = !pending || together.is_some_and(|at| at <= now);
                if heard && waited && ready <= now {
                    self.speak(legs, cx);
                } else if heard && waited {
                    cx.switch.arm_call(ready, self.key);
                }
            }
            Stage::Speaking { until } if until <= now => {
                let words = format!("a page lasts {} s at most", paging.max.as_secs());
                self.end_page(legs, cx, None, By::System, Some(words));
            }
            Stage::Speaking { .. } if !pending && !heard => {
                self.end_page(legs, cx, None, By::Callee, Some("no loudspeaker is left".to_owned()));
            }
            Stage::Speaking { .. } => {}
        }
    }

    /// Nobody hears it: the step is over, and the next one begins.
    fn nobody_hears(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let State::Paging(paging) = &mut self.state else { return };
        let back = std::mem::take(&mut *paging.back);
        self.plan.why.push(Why::new(format!("page:{}", paging.number), "nobody heard it"));
        self.state = State::Ringing(Box::new(back));
        if let State::Ringing(ringing) = &mut self.state {
            ringing.note(Final::new(480, phrase(480)));
        }
        self.next_stage(legs, cx);
        self.show(legs, cx);
    }

    /// An emergency page wants the phone of an extension: it leaves this call, which goes on without it if it can.
    pub fn give_up_phone(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, extension: &Label, words: &str) {
        // Whoever talks to the fire brigade goes on talking to it.
        if self.emergency {
            return;
        }
        let its = |legs: &Legs, key: LegKey| {
            legs.get(key).is_some_and(|leg| matches!(&leg.peer, Peer::Extension(number) if number == extension))
        };
        if its(legs, self.a) {
            return match &self.state {
                State::Ringing(_) => {
                    let reason = Some(format!("SIP;cause=480;text=\"{}\"", words.replace(['"', '\\'], "")));
                    self.refuse(legs, cx, 480, phrase(480), reason, Cause::Refused);
                }
                State::Connected(_) | State::Paging(_) | State::Closing { .. } => self.hang_up(legs, cx, words),
            };
        }
        match &mut self.state {
            State::Ringing(ringing) => {
                let ringing_there: Vec<LegKey> = ringing.legs().filter(|key| its(legs, *key)).collect();
                for key in ringing_there {
                    let State::Ringing(ringing) = &mut self.state else { return };
                    let rung = ringing.lost(key);
                    self.drop_leg(legs, cx, key, Some(words), LegResult::Cancelled);
                    if let Some(i) = rung {
                        self.nothing_came(legs, cx, i, Some(486));
                    }
                }
            }
            State::Connected(connected) if its(legs, connected.b) => self.hang_up(legs, cx, words),
            State::Connected(_) | State::Closing { .. } => {}
            State::Paging(paging) => {
                let mut left = Vec::new();
                for speaker in paging.speakers.iter_mut().filter(|speaker| speaker.extension == *extension) {
                    left.extend(speaker.leg());
                    speaker.step = Step::Over;
                }
                for key in left {
                    self.drop_leg(legs, cx, key, Some(words), LegResult::Cancelled);
                }
                self.page_goes_on(legs, cx);
            }
        }
    }

    /// The page is over for all: `gone` has said so itself, the others are told.
    pub(super) fn end_page(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        gone: Option<LegKey>,
        by: By,
        reason: Option<String>,
    ) {
        let State::Paging(paging) = &mut self.state else { return };
        let spoken = matches!(paging.stage, Stage::Speaking { .. });
        let speakers = std::mem::take(&mut paging.speakers);
        let zones = std::mem::take(&mut paging.zones);
        let told = match by {
            By::System => {
                reason.as_ref().map(|words| format!("SIP;cause=480;text=\"{}\"", words.replace(['"', '\\'], "")))
            }
            By::Caller | By::Callee => None,
        };
        for speaker in &speakers {
            let result = if spoken && matches!(speaker.step, Step::Hears(..)) {
                LegResult::Answered
            } else {
                LegResult::Cancelled
            };
            if let Some(leg) = speaker.leg() {
                self.drop_leg(legs, cx, leg, told.as_deref(), result);
                cx.switch.idle(cx.now.mono, &speaker.extension, Duration::ZERO);
            }
        }
        for (port, leg) in zones {
            self.journey.over(cx.now, leg, LegResult::Cancelled, None);
            cx.switch.media(self.worker, Command::Close { port });
            cx.switch.give_port(cx.now.mono, port);
        }
        if let Some(extension) = legs.get(self.a).and_then(Leg::extension) {
            cx.switch.idle(cx.now.mono, extension, Duration::ZERO);
        }
        if !spoken {
            let (status, cause) = if by == By::Caller { (487, Cause::CallerLeft) } else { (503, Cause::Fault) };
            let words = Some(reason.clone().unwrap_or_else(|| "the caller gave up".to_owned()));
            let phrase = if status == 487 { "Request Terminated" } else { phrase(status) };
            return self.finish_unanswered(legs, cx, status, phrase, told, by, words, cause);
        }
        if gone != Some(self.a)
            && let Some(caller) = legs.get_mut(self.a)
        {
            caller.hang_up(cx, told.as_deref());
        }
        self.end = Some(super::End { by, sip: None, reason, cause: Cause::Nobody });
        self.close(legs, cx);
    }
}
