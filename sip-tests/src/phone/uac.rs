//! A phone as client: requests out, and what comes back (RFC 3261 sections 8.1, 9.1, 10, 12 to 14, 17.1).

use super::digest::Challenge;
use super::sdp::{Direction, Sdp};
use super::text::{Msg, param, uri_of};
use super::transaction::{ClientTx, Purpose};
use super::{Act, Invite, Offer, Out, Phone, Stage, T1, token};
use crate::{MS, SEC, Time};

impl Phone {
    pub(super) fn register(&mut self, now: Time, expires: u32, all: bool) {
        self.register_cseq += 1;
        let aor = format!("<sip:{}@{}>", self.id.user, self.id.domain);
        let contact = match all {
            true => "*".to_owned(),
            false => format!("{};expires={expires}", self.contact()),
        };
        let via = self.via();
        let tag = self.token();
        let mut msg = Msg::request("REGISTER", &format!("sip:{}", self.id.domain))
            .with("Via", via)
            .with("Max-Forwards", "70")
            .with("From", format!("{aor};tag={tag}"))
            .with("To", aor)
            .with("Call-ID", self.register_call.clone())
            .with("CSeq", format!("{} REGISTER", self.register_cseq))
            .with("Contact", contact)
            .with("User-Agent", self.habit.user_agent.clone());
        if all {
            msg = msg.with("Expires", "0");
        }
        self.authorize_ahead(&mut msg);
        self.send_request(now, msg, Purpose::Register { expires }, None);
    }

    pub(super) fn invite(&mut self, now: Time, how: &Invite) {
        let index = self.calls.len();
        let mut msg = self.outside("INVITE", &how.to, how.from.as_deref());
        msg = msg.with("Contact", self.contact()).with("Allow", self.allow()).with("Supported", "timer");
        if let Some(session) = &how.session {
            msg = msg.with("Session-Expires", session.clone());
        }
        if let Some(hops) = how.hops {
            msg.set("Max-Forwards", Some(hops.to_string()));
        }
        for (name, value) in &how.headers {
            msg.set(name, Some(value.clone()));
        }
        let mut call = self.new_call(true, msg.call_id().to_owned(), msg.clone());
        if !how.late {
            let mut ours = self.ours(&call);
            ours.extra = how.extra.clone();
            let offer = ours.offer();
            call.offered = Some(offer.clone());
            msg = msg.with_body("application/sdp", offer.into_bytes());
        }
        call.invite = msg.clone();
        self.calls.push(call);
        self.send_request(now, msg, Purpose::Invite, Some(index));
    }

    pub(super) fn cancel(&mut self, now: Time, index: usize) {
        self.calls[index].cancelled = true;
        let Some(tx) = self.clients.iter().rev().find(|t| t.call == Some(index) && t.purpose == Purpose::Invite) else {
            return;
        };
        if !tx.is_proceeding() {
            return; // section 9.1: not before a provisional response; sent when one arrives
        }
        let invite = tx.msg.clone();
        let mut msg = Msg::request("CANCEL", invite.uri());
        for name in ["Via", "From", "To", "Call-ID"] {
            if let Some(value) = invite.get(name) {
                msg = msg.with(name, value);
            }
        }
        msg = msg.with("CSeq", format!("{} CANCEL", invite.cseq())).with("Max-Forwards", "70");
        // Section 9.1: no final answer within 64*T1 of the CANCEL is one, too.
        let invite = |t: &&mut ClientTx| t.call == Some(index) && t.purpose == Purpose::Invite && t.is_sending();
        if let Some(tx) = self.clients.iter_mut().find(invite) {
            tx.give_up(now + 64 * T1);
        }
        self.send_request(now, msg, Purpose::Cancel, Some(index));
    }

    pub(super) fn bye(&mut self, now: Time, index: usize) {
        self.in_dialog(now, index, "BYE", Purpose::Bye, |m| m);
        self.end(index, None);
    }

    /// Re-INVITE or UPDATE, with an offer or without.
    pub(super) fn renegotiate(&mut self, now: Time, index: usize, purpose: Purpose, offer: Option<Offer>) {
        let method = if purpose.is_invite() { "INVITE" } else { "UPDATE" };
        let body = offer.and_then(|offer| self.offer_for(index, offer));
        let (contact, allow) = (self.contact(), self.allow());
        let session = self.calls[index].refresh.map(|r| (r.interval / SEC, r.ours));
        self.in_dialog(now, index, method, purpose, |mut m| {
            m = m.with("Contact", contact).with("Allow", allow).with("Supported", "timer");
            if let Some((seconds, ours)) = session {
                let who = if ours { "uac" } else { "uas" };
                m = m.with("Session-Expires", format!("{seconds};refresher={who}"));
            }
            match body {
                Some(body) => m.with_body("application/sdp", body.into_bytes()),
                None => m,
            }
        });
    }

    pub(super) fn offer_for(&mut self, index: usize, offer: Offer) -> Option<String> {
        let call = &mut self.calls[index];
        call.version += 1;
        call.zero = offer == Offer::Zero;
        (call.wish, call.holding) = match offer {
            Offer::Hold => (Direction::SendOnly, true),
            Offer::Inactive => (Direction::Inactive, true),
            Offer::Zero => (Direction::SendRecv, true),
            Offer::Resume => (Direction::SendRecv, false),
            Offer::Late => (call.wish, call.holding),
        };
        if offer == Offer::Late {
            return None;
        }
        let text = self.ours(&self.calls[index]).offer();
        self.calls[index].offered = Some(text.clone());
        Some(text)
    }

    /// A request in the newest confirmed dialog of a call.
    pub(super) fn in_dialog(
        &mut self,
        now: Time,
        index: usize,
        method: &str,
        purpose: Purpose,
        more: impl FnOnce(Msg) -> Msg,
    ) {
        let call = &self.calls[index];
        let Some(at) = call.dialogs.iter().rposition(|d| d.confirmed && !d.over) else { return };
        self.in_that_dialog(now, index, at, method, purpose, more);
    }

    pub(super) fn in_that_dialog(
        &mut self,
        now: Time,
        index: usize,
        at: usize,
        method: &str,
        purpose: Purpose,
        more: impl FnOnce(Msg) -> Msg,
    ) {
        let via = self.via();
        let call = &mut self.calls[index];
        let dialog = &mut call.dialogs[at];
        dialog.cseq += 1;
        let mut msg = Msg::request(method, &dialog.target).with("Via", via).with("Max-Forwards", "70");
        for route in &dialog.route {
            msg = msg.with("Route", route.clone());
        }
        msg = msg
            .with("From", dialog.local.clone())
            .with("To", dialog.remote.clone())
            .with("Call-ID", call.call_id.clone())
            .with("CSeq", format!("{} {method}", dialog.cseq));
        let msg = more(msg);
        self.send_request(now, msg, purpose, Some(index));
    }

    /// A request outside a dialog.
    pub(super) fn outside(&mut self, method: &str, to: &str, from: Option<&str>) -> Msg {
        let id = &self.id;
        let (uri, to) = match to.contains(':') {
            true => (to.to_owned(), format!("<{to}>")),
            false => (format!("sip:{to}@{}", id.domain), format!("<sip:{to}@{}>", id.domain)),
        };
        let host = if id.carrier { id.address.ip().to_string() } else { id.domain.clone() };
        let user = from.unwrap_or(&id.user);
        let display =
            if from.is_some() || id.display.is_empty() { String::new() } else { format!("\"{}\" ", id.display) };
        let from = format!("{display}<sip:{user}@{host}>;tag={}", token(&mut self.rng));
        let call_id = format!("{:016x}@{}", self.rng.bits(), self.id.address.ip());
        let via = self.via();
        let cseq = 1 + self.rng.below(1000);
        Msg::request(method, &uri)
            .with("Via", via)
            .with("Max-Forwards", "70")
            .with("From", from)
            .with("To", to)
            .with("Call-ID", call_id)
            .with("CSeq", format!("{cseq} {method}"))
    }

    pub(super) fn response_arrives(&mut self, now: Time, msg: Msg) -> (bool, Option<usize>) {
        let code = msg.code().unwrap_or(0);
        let Some(at) = self.clients.iter().position(|t| t.is_of(&msg)) else {
            // A 2xx may outlive its transaction by its retransmissions; anything else is late by 64*T1.
            return (true, None);
        };
        let tx = &mut self.clients[at];
        let (purpose, call) = (tx.purpose, tx.call);
        let request = tx.msg.clone();
        let news = tx.progress(now, code);
        if purpose.is_invite() && code >= 300 {
            let ack = ack_of(&request, &msg);
            let to = self.clients[at].to;
            if !self.habit.no_ack {
                self.out.push_back(Out::Sip { to, bytes: ack.write() });
            }
        }
        if purpose.is_invite()
            && (200..300).contains(&code)
            && let Some(index) = call
        {
            return (!self.accepted(now, index, purpose, &request, &msg, news), call);
        }
        if !news {
            return (true, call);
        }
        if code < 200 {
            if let Some(index) = call
                && purpose == Purpose::Invite
            {
                self.rings(now, index, &msg);
            }
            return (false, call);
        }
        if matches!(code, 401 | 407) && self.authorize(now, at, &msg) {
            return (false, call);
        }
        match purpose {
            Purpose::Register { expires } => {
                if (200..300).contains(&code) {
                    let granted = msg.list("Contact").into_iter().find(|c| uri_of(c) == uri_of(&self.contact()));
                    let granted = granted.and_then(|c| param(c, "expires")).and_then(|e| e.parse::<Time>().ok());
                    match (expires, granted) {
                        (0, None) => self.registered = None,
                        (0, Some(_)) => self.complaints.push("unregistered, but still listed".into()),
                        (_, None) => self.complaints.push("registered, but not listed with expires".into()),
                        (_, Some(seconds)) => {
                            self.registered = Some(now + seconds * SEC);
                            if self.habit.keeps_registered {
                                let again = Act::Register { expires, password: None, all: false };
                                self.todo.retain(|t| !matches!(t.2, Act::Register { .. }));
                                self.todo.push((now + seconds * SEC / 2, None, again));
                            }
                        }
                    }
                }
            }
            Purpose::Invite => {
                let Some(index) = call else { return (false, call) };
                let min = msg.get("Min-SE").map(str::to_owned);
                if let (422, Some(min), 0) = (code, min, self.calls[index].retries) {
                    self.calls[index].retries += 1;
                    let mut retry = request;
                    retry.set("Session-Expires", Some(min.clone()));
                    retry.set("Min-SE", Some(min));
                    self.count_nonce(&mut retry);
                    self.retry(now, retry, purpose, call);
                } else {
                    self.end(index, Some(code));
                }
            }
            Purpose::Reinvite(offer) => {
                let Some(index) = call else { return (false, call) };
                self.calls[index].offered = None;
                match code {
                    491 => {
                        // Section 14.1: the owner of the Call-ID waits 2.1 to 4 s, the other 0 to 2 s.
                        let wait = match self.calls[index].ours {
                            true => 2100 * MS + self.rng.below(190) * 10 * MS,
                            false => self.rng.below(200) * 10 * MS,
                        };
                        self.todo.push((now + wait, call, Act::Reinvite(offer)));
                    }
                    408 | 481 => self.bye(now, index),
                    _ => {}
                }
            }
            Purpose::Update => {
                let Some(index) = call else { return (false, call) };
                if (200..300).contains(&code) {
                    self.session_agreed(now, index, &msg);
                    if let Ok(answer) = Sdp::read(&msg.body) {
                        self.take(now, index, &answer, true);
                    }
                } else {
                    self.calls[index].offered = None;
                }
            }
            Purpose::Cancel | Purpose::Bye | Purpose::Plain | Purpose::Raw => {}
        }
        (false, call)
    }

    /// A provisional response to our call.
    pub(super) fn rings(&mut self, now: Time, index: usize, msg: &Msg) {
        if self.calls[index].cancelled
            && !self.clients.iter().any(|t| t.call == Some(index) && t.purpose == Purpose::Cancel)
        {
            self.cancel(now, index);
        }
        if msg.tag("To").is_some() {
            self.uac_dialog(index, msg, false);
        }
        if !msg.body.is_empty() && self.calls[index].offered.is_some() && self.calls[index].stage == Stage::Setup {
            match Sdp::read(&msg.body) {
                Ok(answer) => {
                    self.take(now, index, &answer, true);
                    self.calls[index].voice.turn_on(now);
                }
                Err(why) => self.complaints.push(why),
            }
        }
    }

    /// A 2xx to an INVITE of ours; whether it is news.
    pub(super) fn accepted(
        &mut self,
        now: Time,
        index: usize,
        purpose: Purpose,
        request: &Msg,
        msg: &Msg,
        first: bool,
    ) -> bool {
        let at = self.uac_dialog(index, msg, true);
        let dialog = &self.calls[index].dialogs[at];
        if let Some((cseq, ack)) = dialog.ack.clone()
            && cseq == request.cseq()
        {
            let to = self.next_hop(&self.calls[index].dialogs[at]);
            if !self.habit.no_ack {
                self.out.push_back(Out::Sip { to, bytes: ack });
            }
            return false;
        }
        let mut body = None;
        if request.body.is_empty() {
            match Sdp::read(&msg.body) {
                Ok(offer) => {
                    self.take(now, index, &offer, false);
                    body = Some(self.answer(index, &offer));
                }
                Err(why) => self.complaints.push(format!("200 to a late offer: {why}")),
            }
        } else if first || !msg.body.is_empty() {
            match Sdp::read(&msg.body) {
                Ok(answer) => self.take(now, index, &answer, true),
                Err(why) => self.complaints.push(format!("200: {why}")),
            }
        }
        self.session_agreed(now, index, msg);
        let via = self.via();
        let call = &mut self.calls[index];
        let dialog = &mut call.dialogs[at];
        let mut ack = Msg::request("ACK", &dialog.target).with("Via", via).with("Max-Forwards", "70");
        for route in &dialog.route {
            ack = ack.with("Route", route.clone());
        }
        ack = ack
            .with("From", dialog.local.clone())
            .with("To", dialog.remote.clone())
            .with("Call-ID", call.call_id.clone())
            .with("CSeq", format!("{} ACK", request.cseq()));
        // Section 22.2: credentials of the INVITE go into its ACK.
        for name in ["Authorization", "Proxy-Authorization"] {
            if let Some(value) = request.get(name) {
                ack = ack.with(name, value);
            }
        }
        if let Some(body) = body {
            ack = ack.with_body("application/sdp", body.into_bytes());
        }
        let bytes = ack.write();
        dialog.ack = Some((request.cseq(), bytes.clone()));
        let to = self.next_hop(&self.calls[index].dialogs[at]);
        if !self.habit.no_ack {
            self.out.push_back(Out::Sip { to, bytes });
        }
        let call = &mut self.calls[index];
        if purpose == Purpose::Invite {
            let surplus = call.dialogs.iter().enumerate().any(|(i, d)| i != at && d.confirmed && !d.over);
            call.result = Some(msg.code().unwrap_or(200));
            if call.cancelled || call.stage == Stage::Over || surplus {
                self.in_that_dialog(now, index, at, "BYE", Purpose::Bye, |m| m);
                self.calls[index].dialogs[at].over = true;
                if !surplus {
                    self.end(index, None);
                }
            } else {
                self.calls[index].voice.turn_on(now);
                self.came_up(now, index);
            }
        }
        true
    }

    pub(super) fn session_agreed(&mut self, now: Time, index: usize, msg: &Msg) {
        if let Some(session) = msg.get("Session-Expires") {
            let seconds: Time = session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(1800);
            let ours = param(session, "refresher").unwrap_or("uac") == "uac";
            self.calls[index].set_refresh(now, seconds * SEC, ours);
        } else if self.calls[index].refresh.is_some() {
            self.calls[index].refresh = None;
        }
    }

    /// Answers a challenge once; whether a retry went out.
    pub(super) fn authorize(&mut self, now: Time, at: usize, msg: &Msg) -> bool {
        let (ask, header) = match msg.code() {
            Some(401) => ("WWW-Authenticate", "Authorization"),
            _ => ("Proxy-Authenticate", "Proxy-Authorization"),
        };
        let tx = &self.clients[at];
        let Some(challenge) = msg.headers.iter().filter(|(n, _)| n == ask).find_map(|(_, v)| Challenge::read(v)) else {
            return false;
        };
        let tried = tx.msg.get(header).is_some();
        if (tried && !challenge.stale) || self.id.carrier || self.id.password.is_empty() || tx.purpose == Purpose::Raw {
            return false;
        }
        let (purpose, call) = (tx.purpose, tx.call);
        let mut retry = tx.msg.clone();
        let password = match (&purpose, &self.register_password) {
            (Purpose::Register { .. }, Some(other)) => other.clone(),
            _ => self.id.password.clone(),
        };
        let cnonce = token(&mut self.rng);
        let answer = challenge.answer(&self.id.user, &password, retry.method(), retry.uri(), &cnonce, 1);
        retry.set(header, Some(answer));
        self.known = Some((challenge, 1));
        self.retry(now, retry, purpose, call);
        true
    }

    /// Uses the last nonce again, as phones do when they refresh.
    pub(super) fn authorize_ahead(&mut self, msg: &mut Msg) {
        let Some((challenge, nc)) = &mut self.known else { return };
        if self.register_password.is_some() {
            return;
        }
        *nc += 1;
        let cnonce = token(&mut self.rng);
        let answer = challenge.answer(&self.id.user, &self.id.password, msg.method(), msg.uri(), &cnonce, *nc);
        msg.set("Authorization", Some(answer));
    }

    /// The same nonce in another request: its count goes up (RFC 7616 section 3.4).
    pub(super) fn count_nonce(&mut self, msg: &mut Msg) {
        let Some((challenge, nc)) = &mut self.known else { return };
        for header in ["Authorization", "Proxy-Authorization"] {
            if msg.get(header).is_some() {
                *nc += 1;
                let cnonce = token(&mut self.rng);
                let (user, password) = (&self.id.user, &self.id.password);
                let answer = challenge.answer(user, password, msg.method(), msg.uri(), &cnonce, *nc);
                msg.set(header, Some(answer));
            }
        }
    }

    /// The same request once more with a CSeq one higher and a new branch (section 22.2).
    pub(super) fn retry(&mut self, now: Time, mut msg: Msg, purpose: Purpose, call: Option<usize>) {
        let method = msg.method().to_owned();
        let cseq = msg.cseq() + 1;
        msg.set("CSeq", Some(format!("{cseq} {method}")));
        let via = self.via();
        msg.headers.retain(|(n, _)| n != "Via");
        msg.headers.insert(0, ("Via".into(), via));
        if let Purpose::Register { .. } = purpose {
            self.register_cseq = cseq;
        }
        if let Some(index) = call {
            match purpose {
                Purpose::Invite => self.calls[index].invite = msg.clone(),
                _ => self.calls[index].dialogs.iter_mut().for_each(|d| d.cseq = d.cseq.max(cseq)),
            }
        }
        self.send_request(now, msg, purpose, call);
    }
}

/// ACK for a non-2xx final response (section 17.1.1.3).
fn ack_of(invite: &Msg, response: &Msg) -> Msg {
    let mut ack = Msg::request("ACK", invite.uri());
    for (name, value) in &invite.headers {
        if matches!(name.as_str(), "Via" | "From" | "Call-ID" | "Route" | "Authorization" | "Proxy-Authorization") {
            ack = ack.with(name, value.clone());
        }
    }
    ack.with("To", response.get("To").unwrap_or(""))
        .with("CSeq", format!("{} ACK", invite.cseq()))
        .with("Max-Forwards", "70")
}
