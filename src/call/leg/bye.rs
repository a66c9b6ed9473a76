//! The end of a leg, by us: BYE, CANCEL or a refusal, whatever it is doing.

use super::super::{Cx, Owner};
use super::invite::SILENT_PHONE;
use super::{Credentials, Leg, Peer, State, USER_AGENT, Up, next};
use crate::dialog::Dialog;
use crate::sip::{Flow, Method, Name, Writer};

#[derive(Debug)]
pub(super) struct Ending {
    pub(super) dialog: Dialog,
    pub(super) reason: Option<Box<str>>,
    pub(super) credentials: Option<Credentials>,
    /// A broken connection has been replaced.
    pub(super) reconnected: bool,
}

impl Leg {
    /// Ends the leg, whatever it is doing: BYE, CANCEL, or a refusal. A callee's BYE waits for the ACK of its 2xx.
    pub fn hang_up(&mut self, cx: &mut Cx<'_>, reason: Option<&str>) {
        match &mut self.state {
            State::Invited(_) => self.refuse(cx, 487, "Request Terminated", reason),
            State::Calling(calling) => {
                calling.patience = None;
                if !calling.heard
                    && cx.now.mono.since(calling.asked) >= SILENT_PHONE
                    && let Peer::Extension(number) = &self.peer
                {
                    cx.switch.phone_said(cx.now, number, &self.flow, false);
                }
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
                match up.usage.may_bye() {
                    true => self.bye(cx, reason),
                    false => up.bye_due = Some(reason.map(str::to_owned)),
                }
            }
            State::Ending(_) | State::Over => {}
        }
        self.rearm(cx);
    }

    pub(super) fn bye(&mut self, cx: &mut Cx<'_>, reason: Option<&str>) {
        let State::Up(up) = std::mem::replace(&mut self.state, State::Ending(None)) else { return };
        let Up { mut dialog, credentials, .. } = *up;
        self.say_bye(cx, &mut dialog, reason, None);
        let reason = reason.map(Box::from);
        self.state = State::Ending(Some(Box::new(Ending { dialog, reason, credentials, reconnected: false })));
    }

    pub(super) fn say_bye(
        &mut self,
        cx: &mut Cx<'_>,
        dialog: &mut Dialog,
        reason: Option<&str>,
        proof: Option<(Name, String)>,
    ) {
        let (key, branch) = cx.tx.branch();
        let mut w = dialog.request(Method::Bye, &branch, None);
        if let Some(reason) = reason {
            w.header(Name::Reason, reason);
        }
        if let Some((name, value)) = proof {
            w.header(name, value);
        }
        w.header(Name::UserAgent, USER_AGENT);
        let flow = next(cx, dialog, &self.peer, self.flow);
        cx.tx.request(cx.now.mono, key, flow, w.finish(), Method::Bye, Owner::Leg(self.key), cx.said);
    }
}

impl Up {
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
