//! A phone's transactions (RFC 3261 section 17, RFC 6026), as lists that are searched: a phone has few.

use std::net::SocketAddr;

use super::text::Msg;
use super::{Offer, Out, Phone, T1, T2, Wire};
use crate::Time;

/// What a client transaction is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Register { expires: u32 },
    Invite,
    Reinvite(Offer),
    Cancel,
    Bye,
    Update,
    Plain,
    Raw,
}

impl Purpose {
    pub(super) fn is_invite(self) -> bool {
        matches!(self, Purpose::Invite | Purpose::Reinvite(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientState {
    /// Calling or Trying.
    Trying,
    Proceeding,
    /// A final answer came; retransmissions of it are recognised until `end`.
    Done,
}

/// A request of ours.
#[derive(Debug)]
pub(super) struct ClientTx {
    pub(super) msg: Msg,
    pub(super) to: SocketAddr,
    pub(super) purpose: Purpose,
    pub(super) call: Option<usize>,
    branch: String,
    bytes: Vec<u8>,
    state: ClientState,
    resend: Option<(Time, Time)>,
    end: Time,
}

impl ClientTx {
    pub(super) fn deadline(&self) -> Time {
        self.resend.map_or(self.end, |(at, _)| at.min(self.end))
    }

    pub(super) fn is_of(&self, response: &Msg) -> bool {
        response.branch() == Some(&self.branch) && response.method() == self.msg.method()
    }

    pub(super) fn is_proceeding(&self) -> bool {
        self.state == ClientState::Proceeding
    }

    /// Waits no longer than that.
    pub(super) fn give_up(&mut self, at: Time) {
        self.end = self.end.min(at);
    }

    /// Waits for a final answer.
    pub(super) fn is_sending(&self) -> bool {
        self.state != ClientState::Done
    }

    /// An offer of ours may be on its way.
    pub(super) fn is_offering(&self) -> bool {
        self.is_sending() && (self.purpose.is_invite() || self.purpose == Purpose::Update)
    }

    /// Notes a response; whether it is news.
    pub(super) fn progress(&mut self, now: Time, code: u16) -> bool {
        let invite = self.msg.method() == "INVITE";
        match (self.state, code) {
            (ClientState::Done, _) => false,
            (_, 100..=199) => {
                self.state = ClientState::Proceeding;
                if invite {
                    // No limit of ours: whoever calls decides how long it rings.
                    self.resend = None;
                    self.end = Time::MAX;
                } else if let Some((at, _)) = self.resend {
                    self.resend = Some((at, T2));
                }
                true
            }
            (_, _) => {
                self.state = ClientState::Done;
                self.resend = None;
                self.end = now + 64 * T1;
                true
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ServerState {
    /// Trying or Proceeding.
    Open,
    /// A final answer went out; resent by the clock while an ACK is due.
    Final { resend: Option<(Time, Time)>, acked: bool, tags: Vec<(String, bool)> },
}

/// A request of the peer's.
#[derive(Debug)]
pub(super) struct ServerTx {
    pub(super) id: u64,
    pub(super) method: String,
    pub(super) call: Option<usize>,
    branch: String,
    sent_by: String,
    request: (String, u32),
    from: SocketAddr,
    last: Vec<Vec<u8>>,
    code: u16,
    state: ServerState,
    end: Time,
}

impl ServerTx {
    pub(super) fn deadline(&self) -> Time {
        match &self.state {
            ServerState::Final { resend: Some((at, _)), .. } => self.end.min(*at),
            _ => self.end,
        }
    }

    /// Whether a request with this Via belongs to it (CANCEL and ACK carry their INVITE's).
    pub(super) fn is_of(&self, msg: &Msg) -> bool {
        msg.branch() == Some(&self.branch) && msg.sent_by() == self.sent_by
    }

    pub(super) fn refused(&self) -> bool {
        self.code >= 300
    }

    pub(super) fn accepted_as(&self) -> Option<(&str, &str, u32)> {
        match &self.state {
            ServerState::Final { tags, .. } if (200..300).contains(&self.code) => {
                let tag = tags.iter().find(|t| !t.1).or(tags.last()).map_or("", |t| t.0.as_str());
                Some((self.request.0.as_str(), tag, self.request.1))
            }
            _ => None,
        }
    }

    /// An INVITE that is not settled: no final answer, or no ACK for it.
    pub(super) fn is_unacked(&self) -> bool {
        let settled = matches!(self.state, ServerState::Final { acked: true, .. });
        self.method == "INVITE" && !settled && self.code < 300
    }

    /// ACK of a refusal; whether it had come before.
    pub(super) fn confirm(&mut self, _now: Time) -> bool {
        match &mut self.state {
            ServerState::Final { resend, acked, .. } => {
                *resend = None;
                std::mem::replace(acked, true)
            }
            ServerState::Open => true,
        }
    }

    /// ACK of a 2xx; whether it had come before.
    pub(super) fn confirm_accepted(&mut self, _now: Time, tag: &str) -> bool {
        match &mut self.state {
            ServerState::Final { resend, acked, tags } => {
                let known = tags.iter_mut().find(|t| t.0 == tag);
                let before = known.is_none_or(|t| std::mem::replace(&mut t.1, true));
                if tags.iter().all(|t| t.1) {
                    *resend = None;
                    *acked = true;
                }
                before
            }
            ServerState::Open => true,
        }
    }
}

impl Phone {
    pub(super) fn send_request(&mut self, now: Time, msg: Msg, purpose: Purpose, call: Option<usize>) {
        let route = msg.list("Route").first().map(|r| super::uri_of(r).to_owned());
        let in_dialog = msg.tag("To").is_some() && purpose != Purpose::Cancel;
        let hop = route.or_else(|| in_dialog.then(|| msg.uri().to_owned()));
        let to = hop.and_then(|uri| super::address_of(&uri)).unwrap_or(self.id.server);
        let bytes = msg.write();
        let branch = msg.branch().unwrap_or_default().to_owned();
        self.last_request = Some((to, bytes.clone()));
        self.out.push_back(Out::Sip { to, bytes: bytes.clone() });
        let resend = (self.id.wire == Wire::Udp).then_some((now + T1, T1));
        let state = ClientState::Trying;
        self.clients.push(ClientTx { msg, to, purpose, call, branch, bytes, state, resend, end: now + 64 * T1 });
    }

    pub(super) fn tick_clients(&mut self, now: Time) {
        let mut over = Vec::new();
        for tx in &mut self.clients {
            if tx.end <= now {
                if tx.is_sending() {
                    over.push((tx.purpose, tx.call));
                }
                continue;
            }
            if let Some((at, interval)) = tx.resend
                && at <= now
            {
                let doubled = 2 * interval;
                let next = if tx.purpose.is_invite() { doubled } else { doubled.min(T2) };
                tx.resend = Some((now + next, next));
                self.out.push_back(Out::Sip { to: tx.to, bytes: tx.bytes.clone() });
            }
        }
        self.clients.retain(|t| t.end > now);
        for (purpose, call) in over {
            let Some(index) = call else { continue };
            match purpose {
                // Section 9.1: a CANCEL without effect; section 14.1, 12.2.1.2: a dialog without its peer is over.
                Purpose::Invite | Purpose::Cancel => self.end(index, Some(0)),
                Purpose::Reinvite(_) | Purpose::Update => self.bye(now, index),
                Purpose::Register { .. } | Purpose::Bye | Purpose::Plain | Purpose::Raw => {}
            }
            if purpose == Purpose::Cancel {
                self.clients.retain(|t| t.call != call || t.purpose != Purpose::Invite);
            }
        }
    }

    /// A retransmission is answered as before: its call, if it is one.
    pub(super) fn absorb(&mut self, _now: Time, msg: &Msg) -> Option<Option<usize>> {
        let tx = self.servers.iter().find(|t| t.is_of(msg) && t.method == msg.method())?;
        if let Some(last) = tx.last.last() {
            self.out.push_back(Out::Sip { to: tx.from, bytes: last.clone() });
        }
        Some(tx.call)
    }

    pub(super) fn serve(&mut self, now: Time, from: SocketAddr, msg: &Msg) -> u64 {
        let id = self.rng.bits();
        // An INVITE may ring for long; everything else is answered at once.
        let end = if msg.method() == "INVITE" { Time::MAX } else { now + 64 * T1 };
        self.servers.push(ServerTx {
            id,
            method: msg.method().to_owned(),
            call: None,
            branch: msg.branch().unwrap_or_default().to_owned(),
            sent_by: msg.sent_by().to_owned(),
            request: (msg.call_id().to_owned(), msg.cseq()),
            from,
            last: Vec::new(),
            code: 0,
            state: ServerState::Open,
            end,
        });
        id
    }

    pub(super) fn reply(&mut self, now: Time, id: u64, msg: Msg) {
        let reliable = self.id.wire == Wire::Tcp;
        let Some(tx) = self.servers.iter_mut().find(|t| t.id == id) else { return };
        let code = msg.code().unwrap_or(0);
        let bytes = msg.write();
        self.out.push_back(Out::Sip { to: tx.from, bytes: bytes.clone() });
        tx.last.push(bytes);
        if code < 200 {
            tx.code = tx.code.max(code);
            return;
        }
        tx.code = code;
        tx.end = now + 64 * T1;
        let invite = tx.method == "INVITE";
        let tag = msg.tag("To").unwrap_or("").to_owned();
        let mut tags = match &tx.state {
            ServerState::Final { tags, .. } => tags.clone(),
            ServerState::Open => Vec::new(),
        };
        if tags.is_empty() && (200..300).contains(&code) {
            tx.last.drain(..tx.last.len() - 1);
        }
        tags.push((tag, false));
        // Refusals are not repeated over a reliable transport, 2xx are (section 13.3.1.4).
        let resend = (invite && (!reliable || code < 300)).then_some((now + T1, T1));
        tx.state = ServerState::Final { resend, acked: !invite, tags };
    }

    pub(super) fn tick_servers(&mut self, now: Time) {
        let mut unheard = Vec::new();
        for tx in &mut self.servers {
            let ServerState::Final { resend, acked, tags } = &mut tx.state else { continue };
            if let Some((at, interval)) = *resend
                && at <= now
            {
                let next = (2 * interval).min(T2);
                *resend = Some((now + next, next));
                let waiting = tags.iter().filter(|t| !t.1).count().max(1);
                for bytes in tx.last.iter().rev().take(waiting) {
                    self.out.push_back(Out::Sip { to: tx.from, bytes: bytes.clone() });
                }
            }
            if tx.end <= now && !*acked && (200..300).contains(&tx.code) {
                unheard.extend(tx.call);
            }
        }
        self.servers.retain(|t| t.end > now);
        for index in unheard {
            // Section 13.3.1.4: never acknowledged.
            if self.calls[index].stage == super::Stage::Up {
                self.bye(now, index);
            }
        }
    }
}
