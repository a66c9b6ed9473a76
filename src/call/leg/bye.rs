//! The end of a leg, by us: BYE, CANCEL or a refusal, whatever it is doing.

use bytes::Bytes;

use super::super::{Cx, Owner};
use super::{Event, Leg, Peer, State, USER_AGENT, Up, next};
use crate::base::Rng;
use crate::sip::proof::Proofs;
use crate::sip::{Flow, Message, Method, Name, Writer};
use crate::transaction::{ClientKey, Failure};

/// A leg whose BYE is on its way. It may have to be said again, once with credentials and once over a new connection; and 2xx of ours that it
/// overtook are still acknowledged.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) up: Box<Up>,
    /// The BYE.
    pub(super) key: ClientKey,
    reason: Option<Box<str>>,
    proofs: Proofs,
    /// A broken connection has been replaced.
    reconnected: bool,
}

impl Leg {
    /// Ends the leg, whatever it is doing: BYE, CANCEL, or a refusal. A callee's BYE waits for the ACK of its 2xx.
    pub fn hang_up(&mut self, cx: &mut Cx<'_>, reason: Option<&str>) {
        if self.is_silent(cx.now.mono)
            && let Peer::Extension(number) = &self.peer
        {
            cx.switch.phone_said(cx.now, number, &self.flow, false);
        }
        match &mut self.state {
            State::Invited(_) => self.refuse(cx, 487, "Request Terminated", reason),
            State::Calling(calling) => {
                calling.patience = None;
                if !calling.cancelled {
                    calling.cancelled = true;
                    cx.tx.cancel(cx.now.mono, calling.key, reason, cx.said);
                }
            }
            State::Up(up) => {
                up.settle(cx, &self.flow);
                if let Some(offering) = up.offering.as_ref().filter(|o| o.method == Method::Invite) {
                    cx.tx.cancel(cx.now.mono, offering.key, None, cx.said);
                }
                if let Some(seq) = up.owed.take() {
                    let flow = next(cx, &up.dialog, &self.peer, self.flow);
                    up.acknowledge(cx, flow, seq, None);
                }
                up.bye_due = Some(reason.map(Box::from));
                self.bye_if_due(cx);
            }
            State::Ending(_) | State::Over => {}
        }
        self.rearm(cx);
    }

    /// Says the BYE that is due, unless the ACK of a 2xx of ours is to come first (RFC 3261 15). Whether it was said.
    pub(super) fn bye_if_due(&mut self, cx: &mut Cx<'_>) -> bool {
        match &mut self.state {
            State::Up(up) if up.usage.may_bye() && up.bye_due.is_some() => {}
            State::Up(_) | State::Invited(_) | State::Calling(_) | State::Ending(_) | State::Over => return false,
        }
        let State::Up(mut up) = std::mem::replace(&mut self.state, State::Over) else { return false };
        up.usage.end();
        let reason = up.bye_due.take().flatten();
        let ending = Ending { up, key: ClientKey::default(), reason, proofs: Proofs::default(), reconnected: false };
        self.say_bye(cx, Box::new(ending));
        true
    }

    /// The final answer to our BYE: a challenge is met, anything else is the end.
    pub(super) fn bye_answered(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Ending(mut ending) = std::mem::replace(&mut self.state, State::Over) else { return None };
        if ending.up.credentials.is_none() || !ending.proofs.challenged(msg) {
            return Some(Event::Gone);
        }
        self.say_bye(cx, ending);
        None
    }

    /// Nobody answered our BYE, or it could not be sent: where the connection was dead, the peer is where it was all the same, and still
    /// thinks it talks.
    pub(super) fn bye_failed(&mut self, cx: &mut Cx<'_>, failure: Option<Failure>) -> Option<Event> {
        let State::Ending(mut ending) = std::mem::replace(&mut self.state, State::Over) else { return None };
        let broken = failure.is_some() && self.flow.transport.reliable();
        if !broken || std::mem::replace(&mut ending.reconnected, true) {
            return Some(Event::Gone);
        }
        self.flow.conn = 0;
        self.say_bye(cx, ending);
        None
    }

    fn say_bye(&mut self, cx: &mut Cx<'_>, mut ending: Box<Ending>) {
        let (key, branch) = cx.tx.branch();
        let Ending { up, reason, proofs, .. } = &mut *ending;
        let mut w = up.dialog.request(Method::Bye, &branch, None);
        if let Some(reason) = reason {
            w.header(Name::Reason, &**reason);
        }
        up.prove(proofs, Method::Bye, None, cx.rng);
        for (name, value) in proofs.values() {
            w.header(name, value);
        }
        w.header(Name::UserAgent, USER_AGENT);
        let flow = next(cx, &up.dialog, &self.peer, self.flow);
        cx.tx.request(cx.now.mono, key, flow, w.finish(), Method::Bye, Owner::Leg(self.key), cx.said);
        ending.key = key;
        self.state = State::Ending(ending);
    }
}

impl Up {
    /// Answers the challenges that a request of ours in this dialog has met.
    pub(super) fn prove(&self, proofs: &mut Proofs, method: Method, body: Option<&Bytes>, rng: &mut Rng) {
        if let Some((user, password)) = self.credentials.as_deref() {
            let body = body.map(|body| &body[..]).unwrap_or_default();
            proofs.prove((user, &password.0), method, &self.dialog.target, body, rng);
        }
    }

    /// The dialog ends: what the peer asked and nobody will answer is answered.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>, flow: &Flow) {
        let open = self.offered.take().map(|o| o.key).into_iter();
        for key in open.chain(self.asked.drain(..).filter_map(|waiting| waiting.key)) {
            if let Some(request) = cx.tx.request_of(key) {
                let bytes = Writer::answer(request, flow.remote, 487, "Request Terminated", None).finish();
                cx.tx.respond(cx.now.mono, key, 487, bytes, cx.said);
            }
        }
        self.usage.refuse();
    }
}
