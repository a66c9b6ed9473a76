//! A phone as server: requests in, and what it answers (RFC 3261 sections 8.2, 9.2, 12 to 15).

use std::net::SocketAddr;

use super::sdp::Sdp;
use super::text::{Msg, param, phrase, uri_of};
use super::{Dialog, Phone, Respond, Stage, digest};
use crate::{SEC, Time};

impl Phone {
    /// Whether it was a retransmission, and the call.
    pub(super) fn request_arrives(&mut self, now: Time, from: SocketAddr, msg: Msg) -> (bool, Option<usize>) {
        if msg.method() == "ACK" {
            return self.ack_arrives(now, &msg);
        }
        if msg.method() == "OPTIONS" && self.habit.deaf_to_options {
            return (true, None);
        }
        if let Some(call) = self.absorb(now, &msg) {
            return (true, call);
        }
        let tx = self.serve(now, from, &msg);
        let call = match (msg.method(), msg.tag("To")) {
            ("CANCEL", _) => self.cancel_arrives(now, tx, &msg),
            (_, Some(_)) => self.dialog_request_arrives(now, tx, &msg),
            ("INVITE", None) => self.invite_arrives(now, tx, msg),
            ("REGISTER", None) => {
                self.register_arrives(now, tx, &msg);
                None
            }
            ("OPTIONS" | "MESSAGE" | "NOTIFY", None) => {
                self.reply(now, tx, Msg::response(&msg, 200, "OK", Some("out")).with("Allow", self.allow()));
                None
            }
            (_, None) => {
                self.reply(now, tx, Msg::response(&msg, 481, phrase(481), Some("no")));
                None
            }
        };
        if let Some(tx) = self.servers.iter_mut().find(|t| t.id == tx) {
            tx.call = call;
        }
        (false, call)
    }

    pub(super) fn invite_arrives(&mut self, now: Time, tx: u64, msg: Msg) -> Option<usize> {
        if !self.challenge(now, tx, &msg, "INVITE") {
            return None;
        }
        if let Some(session) = msg.get("Session-Expires")
            && session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(0) < self.habit.min_se
        {
            let min = self.habit.min_se.to_string();
            self.reply(now, tx, Msg::response(&msg, 422, phrase(422), Some("small")).with("Min-SE", min));
            return None;
        }
        let index = self.calls.len();
        let call = self.new_call(false, msg.call_id().to_owned(), msg);
        self.calls.push(call);
        for (after, act) in self.habit.on_invite.clone() {
            self.todo.push((now + after, Some(index), act));
        }
        Some(index)
    }

    pub(super) fn respond(&mut self, now: Time, index: usize, how: &Respond) {
        let call = &self.calls[index];
        let invite = call.invite.clone();
        let Some(tx) = self.servers.iter().find(|t| t.call == Some(index) && t.method == "INVITE").map(|t| t.id) else {
            return;
        };
        // Whoever has refused the offer has nothing more to say.
        if self.calls[index].result == Some(488) {
            return;
        }
        let answers = how.code == 183 || (200..300).contains(&how.code) || how.sdp;
        if answers && Sdp::read(&invite.body).is_ok_and(|offer| !self.speaks(&offer)) {
            return self.respond(now, index, &Respond { code: 488, tag: how.tag.clone(), ..Respond::default() });
        }
        let tag = how.tag.clone().unwrap_or_else(|| format!("{}-{index}", self.id.name));
        let words = how.phrase.clone().unwrap_or_else(|| phrase(how.code).to_owned());
        let tag_in = (how.code > 100).then_some(tag.as_str());
        let mut msg = Msg::response(&invite, how.code, &words, tag_in);
        for (name, value) in &how.headers {
            msg = msg.with(name, value.clone());
        }
        if (101..300).contains(&how.code) {
            msg = msg.with("Contact", self.contact()).with("Allow", self.allow());
            self.uas_dialog(index, &tag, &invite);
        }
        if answers {
            let body = match Sdp::read(&invite.body) {
                Ok(offer) => {
                    self.take(now, index, &offer, false);
                    self.answer(index, &offer)
                }
                Err(why) => {
                    if !invite.body.is_empty() {
                        self.complaints.push(why);
                    }
                    let offer = self.ours(&self.calls[index]).offer();
                    self.calls[index].offered = Some(offer.clone());
                    offer
                }
            };
            msg = msg.with_body("application/sdp", body.into_bytes());
            self.calls[index].voice.turn_on(now);
        }
        if (200..300).contains(&how.code) {
            if let Some(session) = invite.get("Session-Expires").filter(|_| self.habit.timer) {
                let seconds: Time = session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(1800);
                let who = param(session, "refresher").unwrap_or("uac").to_owned();
                msg = msg.with("Session-Expires", format!("{seconds};refresher={who}")).with("Require", "timer");
                self.calls[index].set_refresh(now, seconds * SEC, who == "uas");
            }
            for dialog in self.calls[index].dialogs.iter_mut().filter(|d| d.local_tag == tag) {
                dialog.confirmed = true;
            }
            self.came_up(now, index);
            self.calls[index].result = Some(how.code);
        } else if how.code >= 300 {
            self.end(index, Some(how.code));
        }
        self.reply(now, tx, msg);
    }

    pub(super) fn cancel_arrives(&mut self, now: Time, tx: u64, msg: &Msg) -> Option<usize> {
        if self.habit.deaf_to_cancel {
            return None;
        }
        let invite = self.servers.iter().find(|t| t.method == "INVITE" && t.is_of(msg)).map(|t| (t.id, t.call));
        let Some((invite_tx, call)) = invite else {
            self.reply(now, tx, Msg::response(msg, 481, phrase(481), Some("none")));
            return None;
        };
        self.reply(now, tx, Msg::response(msg, 200, "OK", None));
        if let Some(index) = call
            && self.calls[index].stage == Stage::Setup
        {
            let answer = Msg::response(&self.calls[index].invite, 487, phrase(487), Some(&self.tag_of(index)));
            self.end(index, Some(487));
            self.reply(now, invite_tx, answer);
        }
        call
    }

    pub(super) fn ack_arrives(&mut self, now: Time, msg: &Msg) -> (bool, Option<usize>) {
        let by_branch = self.servers.iter().position(|t| t.method == "INVITE" && t.is_of(msg) && t.refused());
        if let Some(i) = by_branch {
            let again = self.servers[i].confirm(now);
            return (again, self.servers[i].call);
        }
        let key = (msg.call_id(), msg.tag("To").unwrap_or(""), msg.cseq());
        let found = self.servers.iter().position(|t| t.method == "INVITE" && t.accepted_as() == Some(key));
        let Some(i) = found else { return (true, None) };
        let call = self.servers[i].call;
        let again = self.servers[i].confirm_accepted(now, key.1);
        if let (false, Some(index), false) = (again, call, msg.body.is_empty()) {
            match Sdp::read(&msg.body) {
                Ok(answer) => self.take(now, index, &answer, true),
                Err(why) => self.complaints.push(why),
            }
        }
        (again, call)
    }

    pub(super) fn dialog_request_arrives(&mut self, now: Time, tx: u64, msg: &Msg) -> Option<usize> {
        let (to, from) = (msg.tag("To").unwrap_or(""), msg.tag("From").unwrap_or(""));
        let fits = |d: &Dialog| d.local_tag == to && d.remote_tag == from;
        let found = self.calls.iter().enumerate().rev().find_map(|(i, c)| {
            (c.call_id == msg.call_id()).then(|| c.dialogs.iter().position(fits).map(|d| (i, d))).flatten()
        });
        let Some((index, at)) = found.filter(|&(i, d)| !self.calls[i].dialogs[d].over) else {
            self.reply(now, tx, Msg::response(msg, 481, phrase(481), None));
            return found.map(|f| f.0);
        };
        let dialog = &mut self.calls[index].dialogs[at];
        if msg.cseq() < dialog.remote_cseq {
            self.complaints.push(format!("{} with CSeq {} after {}", msg.label(), msg.cseq(), dialog.remote_cseq));
            self.reply(now, tx, Msg::response(msg, 500, phrase(500), None));
            return Some(index);
        }
        dialog.remote_cseq = msg.cseq();
        if let Some((_, code)) = self.habit.refuse.iter().find(|(m, _)| m == msg.method()) {
            self.reply(now, tx, Msg::response(msg, *code, phrase(*code), None));
            return Some(index);
        }
        match msg.method() {
            "BYE" => {
                dialog.over = true;
                self.reply(now, tx, Msg::response(msg, 200, "OK", None));
                if self.calls[index].dialogs.iter().all(|d| d.over || !d.confirmed) {
                    self.end(index, None);
                }
            }
            "INVITE" | "UPDATE" => self.offer_arrives(now, tx, index, at, msg),
            _ => self.reply(now, tx, Msg::response(msg, 200, "OK", None)),
        }
        Some(index)
    }

    pub(super) fn offer_arrives(&mut self, now: Time, tx: u64, index: usize, at: usize, msg: &Msg) {
        let glare = self.clients.iter().any(|t| t.call == Some(index) && t.is_offering());
        let unacked = self.servers.iter().any(|t| t.call == Some(index) && t.is_unacked() && t.id != tx);
        if (glare || unacked) && (msg.method() == "INVITE" || !msg.body.is_empty()) {
            self.reply(now, tx, Msg::response(msg, 491, phrase(491), None));
            return;
        }
        if Sdp::read(&msg.body).is_ok_and(|offer| !self.speaks(&offer)) {
            self.reply(now, tx, Msg::response(msg, 488, phrase(488), None));
            return;
        }
        let seconds = |value: &str| value.split(';').next().and_then(|s| s.trim().parse::<u32>().ok());
        if msg.get("Session-Expires").and_then(seconds).is_some_and(|s| s < self.habit.min_se_later) {
            let min = self.habit.min_se_later.to_string();
            self.reply(now, tx, Msg::response(msg, 422, phrase(422), None).with("Min-SE", min));
            return;
        }
        if let Some(contact) = msg.get("Contact") {
            self.calls[index].dialogs[at].target = uri_of(contact).to_owned();
        }
        let mut answer =
            Msg::response(msg, 200, "OK", None).with("Contact", self.contact()).with("Allow", self.allow());
        if let Some(session) = msg.get("Session-Expires").filter(|_| self.habit.timer) {
            let seconds: Time = session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(1800);
            let who = param(session, "refresher").unwrap_or("uac").to_owned();
            answer = answer.with("Session-Expires", format!("{seconds};refresher={who}")).with("Require", "timer");
            self.calls[index].set_refresh(now, seconds * SEC, who == "uas");
        }
        if !msg.body.is_empty() {
            match Sdp::read(&msg.body) {
                Ok(offer) => {
                    self.take(now, index, &offer, false);
                    let call = &mut self.calls[index];
                    call.version += 1;
                    let body = self.answer(index, &offer);
                    answer = answer.with_body("application/sdp", body.into_bytes());
                }
                Err(why) => self.complaints.push(why),
            }
        } else if msg.method() == "INVITE" {
            self.calls[index].version += 1;
            let offer = self.ours(&self.calls[index]).offer();
            self.calls[index].offered = Some(offer.clone());
            answer = answer.with_body("application/sdp", offer.into_bytes());
        }
        if let Some(t) = self.servers.iter_mut().find(|t| t.id == tx) {
            t.call = Some(index);
        }
        self.reply(now, tx, answer);
    }

    pub(super) fn register_arrives(&mut self, now: Time, tx: u64, msg: &Msg) {
        if !self.challenge(now, tx, msg, "REGISTER") {
            return;
        }
        let contact = msg.get("Contact").unwrap_or("").to_owned();
        let expires = param(&contact, "expires").or(msg.get("Expires")).and_then(|e| e.parse().ok()).unwrap_or(3600);
        if expires > 0 && expires < self.habit.min_expires {
            let least = self.habit.min_expires.to_string();
            self.reply(now, tx, Msg::response(msg, 423, phrase(423), Some("brief")).with("Min-Expires", least));
            return;
        }
        self.registered = (expires > 0).then_some(now + expires * SEC);
        let bare = contact.split(";expires").next().unwrap_or("").to_owned();
        let answer = Msg::response(msg, 200, "OK", Some("reg")).with("Contact", format!("{bare};expires={expires}"));
        self.reply(now, tx, answer);
    }

    /// Whether the request may go on: no challenge is wanted, or it is answered rightly.
    pub(super) fn challenge(&mut self, now: Time, tx: u64, msg: &Msg, method: &str) -> bool {
        let Some((user, password)) = self.habit.challenge.clone() else { return true };
        let (header, code, ask) = match method {
            "REGISTER" => ("Authorization", 401, "WWW-Authenticate"),
            _ => ("Proxy-Authorization", 407, "Proxy-Authenticate"),
        };
        if let Some(value) = msg.get(header) {
            let right = self.nonces.iter().any(|n| digest::proves(value, &user, &password, method, n));
            if right {
                if let Some((call_id, uri)) = &self.last_challenged
                    && call_id == msg.call_id()
                    && uri != msg.uri()
                {
                    self.complaints.push(format!("{uri} was challenged, {} came back", msg.uri()));
                }
                return true;
            }
        }
        let nonce = format!("{:016x}", self.rng.bits());
        self.nonces.push(nonce.clone());
        self.last_challenged = Some((msg.call_id().to_owned(), msg.uri().to_owned()));
        let ask_value = format!("Digest realm=\"carrier.example\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"");
        self.reply(now, tx, Msg::response(msg, code, phrase(code), Some("ask")).with(ask, ask_value));
        false
    }
}
