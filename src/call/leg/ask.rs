//! Other requests within the dialog that pass from one side to the other (INFO, MESSAGE): one at a time, in order, and behind an
//! offer of ours that is not answered yet.

use bytes::Bytes;

use super::super::{Cx, Owner};
use super::{Leg, State, USER_AGENT, next};
use crate::base::Instant;
use crate::sip::{Method, Name, Writer, phrase};
use crate::transaction::ServerKey;

/// Requests of one peer that wait for the other side: one is over there, the others follow in order. One more gets 500. Digits
/// by INFO come as fast as a thumb; nobody has more than that many of them under way who hears answers at all.
pub(super) const MAX_ASKED: usize = 16;

/// A request within the dialog that passes to the other side.
#[derive(Clone, Debug)]
pub struct Asked {
    /// INFO, MESSAGE.
    pub method: Method,
    /// Its type.
    pub content_type: Option<String>,
    /// Its body, byte for byte.
    pub body: Bytes,
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// None once we have answered it ourselves.
    pub(super) key: Option<ServerKey>,
    pub(super) asked: Asked,
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) struct ToAsk {
    pub(super) asked: Asked,
    pub(super) until: Instant,
}

impl Leg {
    /// Passes a request within the dialog, if there is one still; behind an offer of ours that is not answered yet.
    pub fn ask(&mut self, cx: &mut Cx<'_>, asked: Asked) -> bool {
        let State::Up(up) = &mut self.state else { return false };
        match up.offering {
            Some(_) => up.to_ask = Some(Box::new(ToAsk { asked, until: pass_until(cx) })),
            None => self.send_asked(cx, &asked),
        }
        self.rearm(cx);
        true
    }

    /// Our offer has its final answer: what waited behind it goes out.
    pub(super) fn ask_due(&mut self, cx: &mut Cx<'_>) {
        if let State::Up(up) = &mut self.state
            && up.offering.is_none()
            && let Some(waiting) = up.to_ask.take()
        {
            self.send_asked(cx, &waiting.asked);
        }
    }

    fn send_asked(&mut self, cx: &mut Cx<'_>, asked: &Asked) {
        let State::Up(up) = &mut self.state else { return };
        let (key, branch) = cx.tx.branch();
        let mut w = up.dialog.request(asked.method, &branch, None);
        w.contact(&self.flow);
        w.header(Name::UserAgent, USER_AGENT);
        let bytes = match &asked.content_type {
            Some(content_type) => w.body(content_type, &asked.body),
            None => w.finish(),
        };
        up.asking = Some(key);
        let flow = next(cx, &up.dialog, &self.peer, self.flow);
        cx.tx.request(cx.now.mono, key, flow, bytes, asked.method, Owner::Leg(self.key), cx.said);
    }

    /// Answers the peer's INFO; the next one that waits, if there is one, is to be asked now.
    pub fn answer_asked(
        &mut self,
        cx: &mut Cx<'_>,
        status: u16,
        words: &str,
        body: Option<&(String, Bytes)>,
    ) -> Option<Asked> {
        let State::Up(up) = &mut self.state else { return None };
        let Waiting { key, .. } = up.asked.pop_front()?;
        if let Some((key, request)) = key.and_then(|key| Some((key, cx.tx.request_of(key)?))) {
            let w = Writer::answer(request, self.flow.remote, status, words, None);
            let bytes = match body {
                Some((content_type, body)) => w.body(content_type, body),
                None => w.finish(),
            };
            cx.tx.respond(cx.now.mono, key, status, bytes, cx.said);
        }
        up.asked.front().map(|waiting| waiting.asked.clone())
    }

    /// Refuses whatever the peer asked within the dialog.
    pub fn decline(&mut self, cx: &mut Cx<'_>, status: u16) {
        self.answer_offered(cx, status, phrase(status), None);
        while self.answer_asked(cx, status, phrase(status), None).is_some() {}
    }
}

/// A request that is no INVITE and passes to the other side is answered by us when that takes so long that its sender would give
/// up before the answer came (Timer F; RFC 4320 4.2), with time for the answer to be lost and asked for again.
pub(super) fn pass_until(cx: &Cx<'_>) -> Instant {
    cx.now.mono + cx.timing.timeout() * 3 / 4
}
