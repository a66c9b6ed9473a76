//! What arrives for a leg: requests within its dialog, answers to ours, failures, deadlines. Each is a state and an input.

use super::super::{Cx, Owner};
use super::{ALLOW, Asked, Event, Leg, MAX_ASKED, Peer, State, Up, Waiting, moved, next, pass_until, refuse, sdp};
use crate::dialog::invite::{Act, Part};
use crate::dialog::refresh::Due;
use crate::sip::{Flow, Message, Method, Name, Refusal, Writer, phrase};
use crate::transaction::{ClientKey, Failure, NO_ANSWER, Output, ServerKey};

impl Leg {
    /// A request within the dialog.
    pub fn on_request(&mut self, cx: &mut Cx<'_>, key: ServerKey, flow: Flow, msg: &Message) -> Option<Event> {
        let method = msg.method();
        let respond = |cx: &mut Cx<'_>, status: u16| {
            let bytes = Writer::answer(msg, flow.remote, status, phrase(status), None).finish();
            cx.tx.respond(cx.now.mono, key, status, bytes, cx.said);
        };
        let reason = || msg.text(Name::Reason).map(str::to_owned);
        let up = match &mut self.state {
            State::Up(up) => up,
            // A caller may give up with BYE (RFC 3261 15); anything else has to wait until there is somebody to talk to.
            State::Invited(_) if method == Method::Bye => {
                respond(cx, 200);
                return Some(Event::Bye { reason: reason() });
            }
            State::Invited(_) | State::Calling(_) => {
                let status = match method {
                    Method::Update if sdp(msg).is_none() => {
                        let mut w = Writer::answer(msg, flow.remote, 200, "OK", None);
                        w.contact(&self.flow).header(Name::Allow, ALLOW);
                        cx.tx.respond(cx.now.mono, key, 200, w.finish(), cx.said);
                        return None;
                    }
                    Method::Invite | Method::Update => 491,
                    Method::Options => 200,
                    Method::Ack
                    | Method::Bye
                    | Method::Cancel
                    | Method::Info
                    | Method::Message
                    | Method::Notify
                    | Method::Other
                    | Method::Prack
                    | Method::Publish
                    | Method::Refer
                    | Method::Register
                    | Method::Subscribe => 481,
                };
                respond(cx, status);
                return None;
            }
            State::Ending(_) => {
                respond(cx, if method == Method::Bye { 200 } else { 481 });
                return None;
            }
            State::Over => {
                respond(cx, 481);
                return None;
            }
        };
        if let Err(refusal) = up.dialog.accept(msg) {
            refuse(cx, key, flow, msg, &refusal);
            return None;
        }
        match method {
            Method::Bye => {
                respond(cx, 200);
                up.settle(cx, &self.flow);
                // Nobody may ever answer it now (RFC 3261 9.1, 15.1.2).
                if let Some(offering) = up.offering.as_ref().filter(|o| o.method == Method::Invite) {
                    cx.tx.cancel(cx.now.mono, offering.key, None, cx.said);
                }
                // Its 2xx is owed an ACK though there is no answer to put into it any more (RFC 3261 13.2.2.4).
                if let Some(seq) = up.owed.take() {
                    let flow = next(cx, &up.dialog, &self.peer, self.flow);
                    up.acknowledge(cx, flow, seq, None);
                }
                self.state = State::Over;
                Some(Event::Bye { reason: reason() })
            }
            Method::Invite | Method::Update => {
                let event = up.renegotiated(cx, self.key, key, flow, msg);
                self.flow = moved(self.flow, flow);
                self.remember(cx);
                self.rearm(cx);
                event
            }
            method if super::super::talk::passes(method) => {
                if up.asked.len() >= MAX_ASKED {
                    refuse(cx, key, flow, msg, &Refusal::status(500).with(Name::RetryAfter, "1"));
                    return None;
                }
                cx.tx.set_user(key, Owner::Leg(self.key));
                let content_type = msg.text(Name::ContentType).map(str::to_owned);
                let asked = Asked { method, content_type, body: msg.body_bytes() };
                let first = up.asked.is_empty();
                up.asked.push_back(Waiting { key: Some(key), asked: asked.clone(), until: pass_until(cx) });
                self.rearm(cx);
                first.then_some(Event::Asked { asked })
            }
            Method::Options => {
                let mut w = Writer::answer(msg, flow.remote, 200, "OK", None);
                w.header(Name::Allow, ALLOW).header(Name::Accept, "application/sdp");
                cx.tx.respond(cx.now.mono, key, 200, w.finish(), cx.said);
                None
            }
            // There is no subscription, no reliable provisional answer, and transfers are not yet in force.
            Method::Subscribe | Method::Notify | Method::Prack => {
                respond(cx, 481);
                None
            }
            Method::Refer
            | Method::Publish
            | Method::Register
            | Method::Ack
            | Method::Cancel
            | Method::Info
            | Method::Message
            | Method::Other => {
                refuse(cx, key, flow, msg, &Refusal::status(405).with(Name::Allow, ALLOW));
                None
            }
        }
    }

    /// An ACK for a 2xx of ours.
    pub fn on_ack(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Up(up) = &mut self.state else { return None };
        let body = sdp(msg);
        let part = up.usage.acked(msg.cseq().seq, body.is_some())?;
        if self.bye_if_due(cx) {
            return None;
        }
        self.rearm(cx);
        Some(Event::Acked { body: body.filter(|_| part == Part::Answer) })
    }

    /// The peer's CANCEL met its INVITE, the first or a later one.
    pub fn on_cancel(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let reason = msg.text(Name::Reason).map(str::to_owned);
        match &self.state {
            State::Invited(_) => Some(Event::Cancelled { reason }),
            State::Up(up) if up.offered.as_ref().is_some_and(|o| o.method == Method::Invite) => {
                self.answer_offered(cx, 487, phrase(487), None);
                Some(Event::Withdrawn)
            }
            State::Up(_) | State::Calling(_) | State::Ending(_) | State::Over => None,
        }
    }

    /// An answer to a request of ours.
    pub fn on_response(&mut self, cx: &mut Cx<'_>, key: ClientKey, msg: &Message) -> Option<Event> {
        let event = match &mut self.state {
            State::Calling(calling) if calling.key == key => self.invite_answered(cx, msg),
            // The INVITE that was challenged and sent again has a younger transaction.
            State::Calling(_) => None,
            State::Up(_) => self.answered_in_dialog(cx, key, msg),
            State::Ending(ending) if ending.key == key && msg.status() >= 200 => self.bye_answered(cx, msg),
            // A 2xx that came before, or that our BYE has overtaken: the BYE is said.
            State::Ending(ending) if is_success(msg) && ending.up.dialog.matches(msg) => {
                let (up, seq) = (&mut ending.up, msg.cseq().seq);
                up.dialog.retarget(msg);
                let flow = next(cx, &up.dialog, &self.peer, self.flow);
                if !up.reack(cx, flow, seq) {
                    up.proofs = up.offering.take().map(|offering| offering.proofs).unwrap_or_default();
                    up.acknowledge(cx, flow, seq, None);
                }
                None
            }
            // A 2xx of a fork after we hung up: acknowledged and ended.
            State::Ending(_) | State::Over | State::Invited(_) => {
                if is_success(msg) {
                    self.end_stray(cx, msg);
                }
                None
            }
        };
        if !matches!(event, Some(Event::Lost { .. })) {
            self.ask_due(cx);
        }
        self.rearm(cx);
        event
    }

    /// Nobody answered a request of ours, or it could not be sent.
    pub fn on_failure(&mut self, cx: &mut Cx<'_>, key: ClientKey, failure: Option<Failure>) -> Option<Event> {
        let (status, words) = match failure {
            None => (408, NO_ANSWER),
            Some(failure) => (503, failure.words(self.flow.transport)),
        };
        match &mut self.state {
            State::Calling(calling) if calling.key == key => {
                let connected = calling.rang;
                if !calling.heard
                    && let Peer::Extension(number) = &self.peer
                {
                    cx.switch.phone_said(cx.now, number, &self.flow, false);
                }
                self.state = State::Over;
                let (phrase, contacts) = (words.to_owned(), Vec::new());
                Some(Event::Refused { status, phrase, reason: None, connected, contacts, unheard: true })
            }
            // A connection is not the peer: what did not get through costs itself, not the call (RFC 3261 8.1.3.1).
            State::Up(up) if failure.is_some() && self.flow.transport.reliable() => {
                self.flow.conn = 0;
                if let Some(offering) = up.offering.take_if(|o| o.key == key) {
                    match offering.method {
                        Method::Invite => up.usage.refused(cx.now.mono, status, cx.rng),
                        _ => {
                            up.usage.update_done(cx.now.mono, offering.seq, status, false, cx.rng);
                        }
                    }
                    up.refreshed_not(cx.now.mono, status, offering.refresh);
                    self.ask_due(cx);
                    self.rearm(cx);
                    return (!offering.refresh).then(|| Event::OfferAnswered {
                        status,
                        phrase: words.to_owned(),
                        body: None,
                    });
                }
                let asking = up.asking.take_if(|asking| *asking == key);
                asking.map(|_| Event::AskedAnswered { status, phrase: words.to_owned(), body: None })
            }
            State::Up(up) => {
                let ours = up.offering.as_ref().is_some_and(|o| o.key == key) || up.asking == Some(key);
                ours.then(|| Event::Lost { because: Some(words.to_owned()), status })
            }
            State::Ending(ending) if ending.key == key => self.bye_failed(cx, failure),
            // What the BYE came on top of changes nothing any more.
            State::Ending(_) | State::Calling(_) | State::Invited(_) | State::Over => None,
        }
    }

    /// A deadline may have come up.
    pub fn tick(&mut self, cx: &mut Cx<'_>) -> Option<Event> {
        self.armed = None;
        let now = cx.now.mono;
        let event = match &mut self.state {
            State::Calling(calling) if calling.patience.is_some_and(|p| p <= now) => {
                calling.patience = None;
                calling.cancelled = true;
                cx.tx.cancel(now, calling.key, None, cx.said);
                let phrase = "no answer at all".to_owned();
                let contacts = Vec::new();
                Some(Event::Refused { status: 408, phrase, reason: None, connected: false, contacts, unheard: true })
            }
            State::Up(up) => {
                let mut acts = Vec::new();
                up.usage.tick(now, &mut acts);
                let (mut event, mut again) = (None, false);
                for act in acts {
                    match act {
                        Act::Resend(bytes) => cx.said.push(Output::Send { flow: self.flow, bytes }),
                        Act::NoAck => {
                            event = Some(Event::Lost { because: Some("no ACK".to_owned()), status: 408 });
                        }
                        // What passed from the other side is for its sender to try again.
                        Act::Retry => again = std::mem::take(&mut up.refresh_refused),
                    }
                }
                if event.is_none() && up.run_out(cx, &self.flow) {
                    self.answer_offered(cx, 504, phrase(504), None);
                    self.rearm(cx);
                    return Some(Event::Withdrawn);
                }
                if event.is_none() && up.to_ask.take_if(|waiting| waiting.until <= now).is_some() {
                    event = Some(Event::AskedAnswered { status: 504, phrase: phrase(504).to_owned(), body: None });
                }
                let due = if event.is_none() { up.timer.as_mut().and_then(|t| t.due(now)) } else { None };
                match due {
                    None if again => self.refresh(cx),
                    Some(Due::Refresh) => self.refresh(cx),
                    Some(Due::End) => {
                        event = Some(Event::Lost { because: Some("session timer expired".to_owned()), status: 408 });
                    }
                    None => {}
                }
                if matches!(event, Some(Event::Lost { .. })) && self.bye_if_due(cx) {
                    event = None;
                }
                event
            }
            State::Calling(_) | State::Invited(_) | State::Ending(_) | State::Over => None,
        };
        self.rearm(cx);
        event
    }

    fn answered_in_dialog(&mut self, cx: &mut Cx<'_>, key: ClientKey, msg: &Message) -> Option<Event> {
        let State::Up(up) = &mut self.state else { return None };
        let status = msg.status();
        if up.offering.as_ref().is_some_and(|o| o.key == key) && msg.method() != Method::Cancel {
            if status < 200 {
                return None;
            }
            let event = self.offer_answered(cx, msg);
            self.remember(cx);
            return event;
        }
        if is_success(msg) {
            // A 2xx again, or that of another branch of a fork beyond us (RFC 3261 13.2.2.4).
            match up.dialog.matches(msg) {
                true => {
                    let flow = next(cx, &up.dialog, &self.peer, self.flow);
                    up.reack(cx, flow, msg.cseq().seq);
                }
                false => self.end_stray(cx, msg),
            }
            return None;
        }
        if up.asking == Some(key) && status >= 200 {
            up.asking = None;
            if matches!(status, 408 | 481) {
                return Some(Event::Lost { because: Some(format!("{status} to {}", msg.method().as_str())), status });
            }
            let phrase = String::from_utf8_lossy(msg.reason()).into_owned();
            let content_type = msg.text(Name::ContentType).unwrap_or("application/octet-stream").to_owned();
            let body = Some((content_type, msg.body_bytes())).filter(|(_, body)| !body.is_empty());
            return Some(Event::AskedAnswered { status, phrase, body });
        }
        None
    }
}

impl Up {
    /// Answers with 504 what waits for the other side for too long, and takes back an offer of ours that only rings. Whether an
    /// UPDATE of the peer's is to be answered so.
    fn run_out(&mut self, cx: &mut Cx<'_>, flow: &Flow) -> bool {
        let now = cx.now.mono;
        if let Some(offering) = self.offering.as_mut().filter(|o| o.until.is_some_and(|until| until <= now)) {
            offering.until = None;
            cx.tx.cancel(now, offering.key, None, cx.said);
        }
        for waiting in self.asked.iter_mut().filter(|w| w.until <= now) {
            let Some(key) = waiting.key.take() else { continue };
            let Some(request) = cx.tx.request_of(key) else { continue };
            let bytes = Writer::answer(request, flow.remote, 504, phrase(504), None).finish();
            cx.tx.respond(now, key, 504, bytes, cx.said);
        }
        // The first is over there and its answer will come; the others need not go any more.
        let mut place = 0;
        self.asked.retain(|waiting| {
            place += 1;
            place == 1 || waiting.key.is_some()
        });
        self.offered.as_ref().is_some_and(|o| o.until.is_some_and(|until| until <= now))
    }
}

fn is_success(msg: &Message) -> bool {
    msg.method() == Method::Invite && (200..300).contains(&msg.status())
}
