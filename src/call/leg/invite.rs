//! The first INVITE of a leg, from us or to us, until it has its final answer and its ACK (RFC 3261 sections 13, 16.7): credentials, session
//! intervals, forks beyond us. Offers within the dialog are `offer`'s.

use std::time::Duration;

use bytes::Bytes;

use super::super::{Cx, Owner};
use super::{
    ALLOW, Calling, Event, Leg, MAX_EARLY, Peer, State, USER_AGENT, Up, asked_timer, finish, next, sdp, write_timer,
};
use crate::dialog::invite::{Carrier, Offer, Usage};
use crate::dialog::refresh::{self, Wish};
use crate::dialog::{Dialog, Sent};
use crate::sip::header::SessionExpires;
use crate::sip::{Flow, Message, Method, Name, Writer, phrase};
use crate::transaction::Output;

/// An address of a trunk that says nothing at all to an INVITE for so long is given up, and the next one tried.
pub const SILENT_TRUNK: Duration = Duration::from_millis(3500);

/// A phone that has said nothing at all to an INVITE for so long has not answered it: it was sent three times by then.
pub(super) const SILENT_PHONE: Duration = Duration::from_secs(2);

impl Leg {
    /// A provisional answer. `variant` names the early dialog.
    pub fn progress(&mut self, cx: &mut Cx<'_>, status: u16, variant: u8, body: Option<&Bytes>) {
        let State::Invited(invited) = &self.state else { return };
        let Some(request) = cx.tx.request_of(invited.invite) else { return };
        let mut w = Writer::answer(request, self.flow.remote, status, phrase(status), Some(&self.tag_of(variant)));
        w.copy(request, Name::RecordRoute).contact(&self.flow);
        let bytes = finish(w, body);
        cx.tx.respond(cx.now.mono, invited.invite, status, bytes, cx.said);
    }

    /// 200: the call is answered.
    pub fn accept(&mut self, cx: &mut Cx<'_>, variant: u8, body: Option<&Bytes>) {
        let tag = self.tag_of(variant);
        let State::Invited(invited) = &self.state else { return };
        let Some(request) = cx.tx.request_of(invited.invite) else { return };
        let Ok(mut dialog) = Dialog::uas(request, &tag, self.flow) else { return };
        dialog.early = false;
        let mut usage = Usage::uas(request.cseq().seq, invited.offer.is_some());
        let mut w = Writer::answer(request, self.flow.remote, 200, "OK", Some(&tag));
        w.copy(request, Name::RecordRoute).contact(&self.flow);
        w.header(Name::Allow, ALLOW).header(Name::Supported, "timer");
        let timer = write_timer(&mut w, asked_timer(request), cx.now.mono);
        let update = allows_update(request);
        let last = self.end.as_ref().and_then(|e| e.last_told());
        let body = body.or(last).cloned();
        let bytes = finish(w, body.as_ref());
        let has_body = body.is_some();
        if self.end.is_none() {
            self.told = body.as_deref().map(Bytes::copy_from_slice);
        }
        usage.accept(cx.now.mono, cx.timing, bytes.clone(), has_body);
        cx.tx.respond(cx.now.mono, invited.invite, 200, bytes, cx.said);
        self.state = State::Up(Box::new(Up::new(dialog, usage, timer, update, None)));
        self.rearm(cx);
    }

    /// The final refusal of the caller's INVITE.
    pub fn refuse(&mut self, cx: &mut Cx<'_>, status: u16, words: &str, reason: Option<&str>) {
        let State::Invited(invited) = &self.state else { return };
        if let Some(request) = cx.tx.request_of(invited.invite) {
            let mut w = Writer::answer(request, self.flow.remote, status, words, Some(&self.tag));
            if let Some(reason) = reason {
                w.header(Name::Reason, reason);
            }
            if status == 503 {
                w.header(Name::RetryAfter, "5");
            }
            cx.tx.respond(cx.now.mono, invited.invite, status, w.finish(), cx.said);
        }
        self.state = State::Over;
    }

    /// Sends the INVITE, or sends it again with credentials or another session interval.
    pub fn invite(&mut self, cx: &mut Cx<'_>) {
        let State::Calling(calling) = &mut self.state else { return };
        let (key, branch) = cx.tx.branch();
        calling.key = key;
        calling.seq += 1;
        let dial = &calling.dial;
        let flow = dial.place.flow;
        let mut w = Writer::request("INVITE", &dial.place.uri);
        w.via(&flow, &branch);
        w.number(Name::MaxForwards, dial.max_forwards);
        for route in &dial.place.route {
            w.header(Name::Route, route);
        }
        w.parts(Name::From, &[&dial.from, ";tag=", &self.tag]);
        w.header(Name::To, &dial.to).header(Name::CallId, &*self.call_id);
        w.cseq(calling.seq, "INVITE");
        w.contact(&flow).header(Name::Allow, ALLOW).header(Name::Supported, "timer");
        match dial.refreshes {
            true => w.fmt(Name::SessionExpires, format_args!("{};refresher=uac", calling.timer.expires)),
            false => w.number(Name::SessionExpires, calling.timer.expires),
        };
        if let Some(min_se) = calling.timer.min_se {
            w.number(Name::MinSe, min_se);
        }
        for (name, value) in &dial.identity {
            w.header(*name, value);
        }
        if let Some((user, password)) = dial.credentials.as_deref() {
            let body = dial.body.as_deref().unwrap_or_default();
            calling.proofs.prove((user, &password.0), Method::Invite, &dial.place.uri, body, cx.rng);
        }
        for (name, value) in calling.proofs.values() {
            w.header(name, value);
        }
        w.header(Name::UserAgent, USER_AGENT);
        let bytes = finish(w, dial.body.as_ref());
        if self.end.is_none() {
            self.told = dial.body.as_deref().map(Bytes::copy_from_slice);
        }
        calling.patience = dial.impatient.then(|| cx.now.mono + SILENT_TRUNK);
        cx.tx.request(cx.now.mono, key, flow, bytes, Method::Invite, Owner::Leg(self.key), cx.said);
        self.rearm(cx);
    }

    /// Acknowledges the 2xx that is owed an ACK, with the answer to a late offer if there is one.
    pub fn ack(&mut self, cx: &mut Cx<'_>, body: Option<&Bytes>) {
        let State::Up(up) = &mut self.state else { return };
        let Some(seq) = up.owed.take() else { return };
        let flow = next(cx, &up.dialog, &self.peer, self.flow);
        // An answer only where there was an offer (RFC 3261 13.2.1).
        let body = body.filter(|_| up.usage.offer() == Offer::Received(Carrier::Success));
        up.acknowledge(cx, flow, seq, body);
        if self.end.is_none() && body.is_some() {
            self.told = body.map(|b| Bytes::copy_from_slice(b));
        }
        self.rearm(cx);
    }

    /// Whether a 2xx of the peer's waits for its ACK.
    pub fn owes_ack(&self) -> bool {
        matches!(&self.state, State::Up(up) if up.owed.is_some())
    }

    fn tag_of(&self, variant: u8) -> String {
        match variant {
            0 => self.tag.to_string(),
            n => format!("{}.{n}", self.tag),
        }
    }

    pub(super) fn invite_answered(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Calling(calling) = &mut self.state else { return None };
        calling.patience = None;
        if !std::mem::replace(&mut calling.heard, true)
            && let Peer::Extension(number) = &self.peer
        {
            cx.switch.phone_said(cx.now, number, &self.flow, true);
        }
        let status = msg.status();
        match status {
            100 => None,
            101..=199 => {
                calling.rang = true;
                if calling.cancelled {
                    return None;
                }
                let early = calling.early_of(msg);
                Some(Event::Progress { status, body: sdp(msg), early })
            }
            200..=299 => self.confirmed(cx, msg),
            _ => {
                let again = !calling.cancelled && calling.again(msg);
                if again {
                    self.invite(cx);
                    return None;
                }
                let (connected, cancelled) = (calling.rang, calling.cancelled);
                self.state = State::Over;
                if cancelled {
                    return Some(Event::Gone);
                }
                let phrase = String::from_utf8_lossy(msg.reason()).into_owned();
                let reason = msg.text(Name::Reason).map(str::to_owned);
                let contacts = super::super::divert::named(msg);
                Some(Event::Refused { status, phrase, reason, connected, contacts, unheard: false })
            }
        }
    }

    fn confirmed(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Calling(calling) = &mut self.state else { return None };
        let sent = Sent {
            call_id: &self.call_id,
            local: &calling.dial.from,
            local_tag: &self.tag,
            remote: &calling.dial.to,
            seq: calling.seq,
            target: &calling.dial.place.uri,
            flow: self.flow,
        };
        let Some(dialog) = Dialog::uac(&sent, msg) else {
            // Answered, and nothing more can be said to it in this dialog: it is ended as well as may be, and this leg has failed.
            let cancelled = calling.cancelled;
            self.state = State::Over;
            self.end_stray(cx, msg);
            return Some(match cancelled {
                true => Event::Gone,
                false => Event::Refused {
                    status: 502,
                    phrase: "Bad Gateway".to_owned(),
                    reason: None,
                    connected: true,
                    contacts: Vec::new(),
                    unheard: false,
                },
            });
        };
        let body = sdp(msg);
        let early = calling.early_of(msg);
        let mut usage = Usage::uac(calling.seq, calling.dial.body.is_some());
        usage.accepted(calling.seq, body.is_some());
        let expires = msg.text(Name::SessionExpires).and_then(|v| SessionExpires::parse(v).ok());
        let timer = calling.timer.agreed(cx.now.mono, expires.map(|e| (e.delta, e.refresher)));
        let mut up = Up::new(dialog, usage, timer, allows_update(msg), calling.dial.credentials.take());
        up.interval = calling.timer;
        up.proofs = std::mem::take(&mut calling.proofs);
        up.owed = Some(calling.seq);
        up.early = std::mem::take(&mut calling.early);
        up.variants = std::mem::take(&mut calling.variants);
        let cancelled = calling.cancelled;
        self.state = State::Up(Box::new(up));
        self.remember(cx);
        if cancelled {
            // Our CANCEL crossed it (RFC 3261 9.1): the call exists, so it is acknowledged and ended.
            self.hang_up(cx, Some(super::super::ELSEWHERE));
            return None;
        }
        Some(Event::Answered { body, early })
    }

    /// A 2xx of another branch of a fork beyond us, or one that came after all: ACK, then BYE.
    pub(super) fn end_stray(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        let (from, to) = (msg.from(), msg.to());
        let target = msg.contact().map_or(to.uri.raw, |c| c.uri.raw);
        let (local, remote) = (format!("<{}>", from.uri.raw), format!("<{}>", to.uri.raw));
        let seq = msg.cseq().seq;
        let tag = msg.from_tag().unwrap_or_default();
        let sent = Sent {
            call_id: &self.call_id,
            local: &local,
            local_tag: tag,
            remote: &remote,
            seq,
            target,
            flow: self.flow,
        };
        let Some(mut dialog) = Dialog::stray(&sent, msg) else { return };
        let flow = next(cx, &dialog, &self.peer, self.flow);
        let (unused, branch) = cx.tx.branch();
        cx.said.push(Output::Send { flow, bytes: dialog.ack(seq, &branch).finish() });
        cx.tx.release(unused);
        if self.strays.len() >= MAX_EARLY || self.strays.iter().any(|tag| **tag == *dialog.remote_tag) {
            return;
        }
        self.strays.push(dialog.remote_tag.clone());
        let (key, branch) = cx.tx.branch();
        let mut w = dialog.request(Method::Bye, &branch, None);
        w.header(Name::Reason, super::super::ELSEWHERE).header(Name::UserAgent, USER_AGENT);
        cx.tx.request(cx.now.mono, key, flow, w.finish(), Method::Bye, Owner::Leg(self.key), cx.said);
    }
}

impl Calling {
    fn early_of(&mut self, msg: &Message) -> u8 {
        let Some(tag) = msg.to_tag() else { return 0 };
        if let Some((_, early)) = self.early.iter().find(|(t, _)| **t == *tag) {
            return *early;
        }
        let early = self.early.len().min(MAX_EARLY) as u8;
        if self.early.len() < MAX_EARLY {
            self.early.push((tag.into(), early));
        }
        early
    }

    /// Whether the INVITE is to be sent again: with credentials, or with a longer session interval.
    pub(super) fn again(&mut self, msg: &Message) -> bool {
        match msg.status() {
            401 | 407 => self.dial.credentials.is_some() && self.proofs.challenged(msg),
            422 => {
                let raised = self.timer.raise(msg.seconds(Name::MinSe));
                self.timer = raised.unwrap_or(self.timer);
                raised.is_some()
            }
            _ => false,
        }
    }
}

impl Up {
    /// The ACK of a 2xx; it will be said again with each repeated one.
    pub(super) fn acknowledge(&mut self, cx: &mut Cx<'_>, flow: Flow, seq: u32, body: Option<&Bytes>) {
        // The ACK of a 2xx is no transaction, but its branch must be new all the same.
        let (unused, branch) = cx.tx.branch();
        let mut w = self.dialog.ack(seq, &branch);
        for (name, value) in self.proofs.values() {
            w.header(name, value);
        }
        cx.tx.release(unused);
        let bytes = finish(w, body);
        self.usage.acknowledge(cx.now.mono, cx.timing, seq, bytes.clone());
        cx.said.push(Output::Send { flow, bytes });
    }

    /// A repeated 2xx gets the ACK that the first one got. False if none has gone out yet.
    pub(super) fn reack(&self, cx: &mut Cx<'_>, flow: Flow, seq: u32) -> bool {
        let ack = self.usage.reack(seq);
        cx.said.extend(ack.map(|ack| Output::Send { flow, bytes: ack.clone() }));
        ack.is_some()
    }
}

/// A 2xx to an INVITE of ours whose leg is gone: acknowledged, and ended, from what it says itself. Else its sender would
/// repeat it for 64*T1 and talk to nobody (RFC 3261 13.2.2.4).
pub fn disown(cx: &mut Cx<'_>, flow: Flow, msg: &Message) {
    let (from, to) = (msg.from(), msg.to());
    let (local, remote) = (format!("<{}>", from.uri.raw), format!("<{}>", to.uri.raw));
    let target = msg.contact().map_or(to.uri.raw, |c| c.uri.raw);
    let (seq, local_tag) = (msg.cseq().seq, msg.from_tag().unwrap_or_default());
    let sent = Sent { call_id: msg.call_id(), local: &local, local_tag, remote: &remote, seq, target, flow };
    let Some(mut dialog) = Dialog::uac(&sent, msg) else { return };
    let (unused, branch) = cx.tx.branch();
    cx.said.push(Output::Send { flow, bytes: dialog.ack(seq, &branch).finish() });
    cx.tx.release(unused);
    let (key, branch) = cx.tx.branch();
    let mut w = dialog.request(Method::Bye, &branch, None);
    w.header(Name::UserAgent, USER_AGENT);
    cx.tx.request(cx.now.mono, key, flow, w.finish(), Method::Bye, Owner::Nobody, cx.said);
}

/// The Min-SE that a caller is to be told with 422, if its session interval is too short (RFC 4028 section 9).
pub fn too_short(msg: &Message) -> Option<u32> {
    match refresh::answer(Wish::default(), asked_timer(msg)) {
        refresh::Answer::TooShort(min_se) => Some(min_se),
        refresh::Answer::Accept { .. } => None,
    }
}

fn allows_update(msg: &Message) -> bool {
    msg.values(Name::Allow).any(|m| m.eq_ignore_ascii_case("UPDATE"))
}
