//! Offers within the dialog: re-INVITE and UPDATE (RFC 3261 section 14, RFC 3311), ours and the peer's, and the session's refreshes
//! (RFC 4028), which are such too.

use std::time::Duration;

use bytes::Bytes;

use super::super::{Cx, LegKey, Owner};
use super::{
    ALLOW, Event, Leg, Offered, Offering, State, USER_AGENT, Up, asked_timer, finish, next, pass_until, refuse, sdp,
    write_timer,
};
use crate::base::Instant;
use crate::dialog::invite::Offer;
use crate::dialog::refresh::{self, Wish};
use crate::sip::header::SessionExpires;
use crate::sip::proof::Proofs;
use crate::sip::{Flow, Message, Method, Name, Refusal, Writer};
use crate::transaction::ServerKey;

/// A re-INVITE of ours that rings or hangs with a provisional answer is taken back after so long: nobody else ends it.
const MAX_OFFERING: Duration = Duration::from_secs(60);

impl Leg {
    /// Whether an offer may be sent now (RFC 3261 14.1). One that overtook an INFO of ours would cost that INFO.
    pub fn may_offer(&self) -> bool {
        let State::Up(up) = &self.state else { return false };
        up.usage.may_invite() && up.offering.is_none() && up.offered.is_none() && up.asking.is_none()
    }

    /// Sends a re-INVITE with this offer, or without one to ask for it.
    pub fn offer(&mut self, cx: &mut Cx<'_>, body: Option<&Bytes>) {
        self.renegotiate(cx, Method::Invite, body.cloned(), false, Proofs::default());
        self.rearm(cx);
    }

    /// The description that we sent last and that was not refused, where the call keeps no streams.
    pub fn last_told(&self) -> Option<&[u8]> {
        self.told.as_deref()
    }

    /// Answers the peer's re-INVITE or UPDATE.
    pub fn answer_offered(&mut self, cx: &mut Cx<'_>, status: u16, words: &str, body: Option<&Bytes>) {
        let State::Up(up) = &mut self.state else { return };
        let Some(offered) = up.offered.take() else { return };
        let Offered { key, method, timer, until: _ } = *offered;
        let Some(request) = cx.tx.request_of(key) else { return };
        let mut w = Writer::answer(request, self.flow.remote, status, words, None);
        let accepted = (200..300).contains(&status);
        if accepted {
            up.dialog.retarget(request);
            w.copy(request, Name::RecordRoute).contact(&self.flow);
            w.header(Name::Allow, ALLOW).header(Name::Supported, "timer");
            up.timer = write_timer(&mut w, timer, cx.now.mono).or(up.timer);
        }
        let bytes = finish(w, body.filter(|_| accepted));
        match (method, accepted) {
            (Method::Invite, true) => {
                up.usage.accept(cx.now.mono, cx.timing, bytes.clone(), body.is_some());
            }
            (Method::Invite, false) => up.usage.refuse(),
            _ => up.usage.update_answered(),
        }
        if self.end.is_none() && accepted && body.is_some() {
            self.told = body.map(|b| Bytes::copy_from_slice(b));
        }
        cx.tx.respond(cx.now.mono, key, status, bytes, cx.said);
        self.remember(cx);
        // A re-INVITE has come instead of the ACK that a BYE was waiting for.
        self.bye_if_due(cx);
        self.rearm(cx);
    }

    /// Says again what stands, because the peer has agreed to something that was taken back.
    pub fn restate(&mut self, cx: &mut Cx<'_>) {
        let Some(body) = self.end.as_mut().and_then(|end| end.restated()) else { return };
        self.renegotiate(cx, Method::Invite, Some(body), true, Proofs::default());
        self.rearm(cx);
    }

    /// Takes back an offer of ours that is not answered yet.
    pub fn withdraw(&mut self, cx: &mut Cx<'_>) {
        if let State::Up(up) = &mut self.state
            && let Some(offering) = up.offering.as_ref().filter(|o| o.method == Method::Invite)
        {
            cx.tx.cancel(cx.now.mono, offering.key, None, cx.said);
        }
    }

    pub(super) fn offer_answered(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Up(up) = &mut self.state else { return None };
        let mut offering = up.offering.take()?;
        let (status, seq, body) = (msg.status(), msg.cseq().seq, sdp(msg));
        let accepted = (200..300).contains(&status);
        match offering.method {
            Method::Invite if accepted => {
                up.usage.accepted(seq, body.is_some());
                up.dialog.retarget(msg);
                up.owed = Some(seq);
                up.proofs = std::mem::take(&mut offering.proofs);
            }
            Method::Invite => up.usage.refused(cx.now.mono, status, cx.rng),
            _ => {
                up.usage.update_done(cx.now.mono, seq, status, body.is_some(), cx.rng);
                if accepted {
                    up.dialog.retarget(msg);
                }
            }
        }
        if accepted {
            let expires = msg.text(Name::SessionExpires).and_then(|v| SessionExpires::parse(v).ok());
            up.timer = up.interval.agreed(cx.now.mono, expires.map(|e| (e.delta, e.refresher)));
            if let (None, Some(offer)) = (&self.end, &offering.body) {
                self.told = Some(Bytes::copy_from_slice(offer));
            }
        } else if let (422, Some(raised)) = (status, up.interval.raise(msg.seconds(Name::MinSe))) {
            up.interval = raised;
            self.renegotiate(cx, offering.method, offering.body, offering.refresh, offering.proofs);
            return None;
        } else if matches!(status, 401 | 407) && up.credentials.is_some() && offering.proofs.challenged(msg) {
            self.renegotiate(cx, offering.method, offering.body, offering.refresh, offering.proofs);
            return None;
        }
        if matches!(status, 408 | 481) {
            return Some(Event::Lost { because: Some(format!("{status} to {}", offering.method.as_str())), status });
        }
        match accepted {
            true => up.refresh_refused = false,
            false => up.refreshed_not(cx.now.mono, status, offering.refresh),
        }
        if offering.refresh {
            if !(accepted && offering.method == Method::Invite) {
                return None;
            }
            self.ack(cx, None);
            let told_anew = self.end.as_ref().and(body);
            return told_anew.map(|body| Event::Restated { body });
        }
        let phrase = String::from_utf8_lossy(msg.reason()).into_owned();
        Some(Event::OfferAnswered { status, phrase, body })
    }

    pub(super) fn refresh(&mut self, cx: &mut Cx<'_>) {
        let told = self.end.as_ref().and_then(|e| e.last_told()).or(self.told.as_ref()).cloned();
        let State::Up(up) = &mut self.state else { return };
        if up.offering.is_some() || up.asking.is_some() || !up.usage.may_invite() {
            if let Some(timer) = &mut up.timer {
                timer.again(cx.now.mono);
            }
            return;
        }
        match up.update {
            true => self.renegotiate(cx, Method::Update, None, true, Proofs::default()),
            false => self.renegotiate(cx, Method::Invite, told, true, Proofs::default()),
        }
    }

    fn renegotiate(&mut self, cx: &mut Cx<'_>, method: Method, body: Option<Bytes>, refresh: bool, mut proofs: Proofs) {
        let State::Up(up) = &mut self.state else { return };
        let (key, branch) = cx.tx.branch();
        let mut w = up.dialog.request(method, &branch, None);
        w.contact(&self.flow).header(Name::Allow, ALLOW).header(Name::Supported, "timer");
        if let Some(timer) = &up.timer {
            let who = if timer.ours { "uac" } else { "uas" };
            let expires = timer.expires.max(up.interval.min_se.unwrap_or(0));
            w.fmt(Name::SessionExpires, format_args!("{expires};refresher={who}"));
        }
        if let Some(min_se) = up.interval.min_se {
            w.number(Name::MinSe, min_se);
        }
        up.prove(&mut proofs, method, body.as_ref(), cx.rng);
        for (name, value) in proofs.values() {
            w.header(name, value);
        }
        w.header(Name::UserAgent, USER_AGENT);
        let bytes = finish(w, body.as_ref());
        match method {
            Method::Update => up.usage.updating(up.dialog.local_seq, body.is_some()),
            _ => up.usage.inviting(up.dialog.local_seq, body.is_some()),
        }
        let until = (method == Method::Invite).then(|| cx.now.mono + MAX_OFFERING);
        let seq = up.dialog.local_seq;
        up.offering = Some(Box::new(Offering { key, method, refresh, body, proofs, seq, until }));
        let flow = next(cx, &up.dialog, &self.peer, self.flow);
        cx.tx.request(cx.now.mono, key, flow, bytes, method, Owner::Leg(self.key), cx.said);
    }
}

impl Up {
    /// An offer or refresh of ours was refused, or could not be sent. A session's refresh that is still to be made, also one that waits since it met
    /// an offer of the peer's, comes again: after the pause if this one met one, too.
    pub(super) fn refreshed_not(&mut self, now: Instant, status: u16, refresh: bool) {
        let refresh = refresh || self.refresh_refused;
        self.refresh_refused = refresh && status == 491;
        if let (true, Some(timer)) = (refresh && status != 491, self.timer.as_mut()) {
            timer.again(now);
        }
    }

    /// The peer's re-INVITE or UPDATE.
    pub(super) fn renegotiated(
        &mut self,
        cx: &mut Cx<'_>,
        leg: LegKey,
        key: ServerKey,
        flow: Flow,
        msg: &Message,
    ) -> Option<Event> {
        let (body, seq) = (sdp(msg), msg.cseq().seq);
        let timer = asked_timer(msg);
        // An UPDATE that offers while a re-INVITE asks for an offer: one of them at a time (RFC 3311 5.2).
        if self.offered.is_some()
            && msg.method() == Method::Update
            && body.is_some()
            && self.usage.offer() == Offer::Idle
        {
            refuse(cx, key, flow, msg, &Refusal::status(491));
            return None;
        }
        if let refresh::Answer::TooShort(min_se) = refresh::answer(Wish::default(), timer) {
            refuse(cx, key, flow, msg, &Refusal::status(422).with(Name::MinSe, min_se.to_string()));
            return None;
        }
        let allowed = match msg.method() {
            Method::Invite => self.usage.invited(seq, body.is_some(), cx.rng),
            _ => self.usage.updated(seq, body.is_some(), cx.rng),
        };
        if let Err(refusal) = allowed {
            refuse(cx, key, flow, msg, &refusal);
            return None;
        }
        if msg.method() == Method::Update && body.is_none() {
            self.dialog.retarget(msg);
            self.usage.update_answered();
            let mut w = Writer::answer(msg, flow.remote, 200, "OK", None);
            w.contact(&self.dialog.flow).header(Name::Allow, ALLOW).header(Name::Supported, "timer");
            self.timer = write_timer(&mut w, timer, cx.now.mono).or(self.timer);
            cx.tx.respond(cx.now.mono, key, 200, w.finish(), cx.said);
            return None;
        }
        cx.tx.set_user(key, Owner::Leg(leg));
        let until = (msg.method() == Method::Update).then(|| pass_until(cx));
        self.offered = Some(Box::new(Offered { key, method: msg.method(), timer, until }));
        Some(Event::Offered { body })
    }
}
