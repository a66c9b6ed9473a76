//! Calls and dialogs as a phone keeps them (RFC 3261 section 12), and session timers (RFC 4028). No message is made here.

use std::net::SocketAddr;

use super::Phone;
use super::sdp::Direction;
use super::text::{Msg, address_of, uri_of};
use super::transaction::Purpose;
use super::voice::{Tone, Voice};
use crate::{SEC, Time};

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// No final answer yet.
    Setup,
    /// Answered.
    Up,
    /// Over.
    Over,
}

/// A call as one phone sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// We placed it.
    pub ours: bool,
    /// Call-ID.
    pub call_id: String,
    /// Stage.
    pub stage: Stage,
    /// Its INVITE's final status as seen or given by us; 0 for a time-out.
    pub result: Option<u16>,
    /// Its audio.
    pub voice: Voice,
    /// When it was set up.
    pub up_at: Option<Time>,
    /// We hold.
    pub holding: bool,
    /// Its dialogs.
    pub dialogs: Vec<Dialog>,
    /// The INVITE as sent (the last one) or received.
    pub invite: Msg,
    /// Keys that we pressed, in whatever way.
    pub pressed: String,
    pub(super) cancelled: bool,
    pub(super) retries: u8,
    pub(super) session: u64,
    pub(super) version: u64,
    /// Our offer that waits for an answer, as text.
    pub(super) offered: Option<String>,
    pub(super) refresh: Option<Refresh>,
    pub(super) wish: Direction,
    pub(super) zero: bool,
}

/// One dialog (RFC 3261 section 12).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialog {
    /// Our tag.
    pub local_tag: String,
    /// Theirs.
    pub remote_tag: String,
    /// Our address with tag.
    pub local: String,
    /// Theirs with tag.
    pub remote: String,
    /// Remote target.
    pub target: String,
    /// Route set.
    pub route: Vec<String>,
    /// Our CSeq.
    pub cseq: u32,
    /// Theirs.
    pub remote_cseq: u32,
    /// Confirmed.
    pub confirmed: bool,
    /// Over.
    pub over: bool,
    pub(super) ack: Option<(u32, Vec<u8>)>,
    pub(super) invited: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refresh {
    pub(super) interval: Time,
    pub(super) ours: bool,
    pub(super) due: Time,
}

impl Call {
    pub(super) fn set_refresh(&mut self, now: Time, interval: Time, ours: bool) {
        // RFC 4028 section 10: half the interval for the refresher; the other gives up min(32 s, a third) before the end.
        let due = match ours {
            true => interval / 2,
            false => interval - (interval / 3).min(32 * SEC),
        };
        self.refresh = Some(Refresh { interval, ours, due: now + due });
    }

    /// Whom it hears, packets counted from `since` on.
    pub fn hears_since(&self, since: Time) -> Vec<Tone> {
        self.voice.heard.iter().filter(|h| h.last >= since).map(|h| h.tone).collect()
    }
}

impl Phone {
    pub(super) fn new_call(&mut self, ours: bool, call_id: String, invite: Msg) -> Call {
        let index = self.calls.len();
        let tone = Tone((self.id.index << 16) | (index as u32 + 1));
        let port = 4000 + 2 * (index as u16 % 10_000);
        let voice = Voice::new(tone, SocketAddr::new(self.id.address.ip(), port), self.rng.bits());
        Call {
            ours,
            call_id,
            stage: Stage::Setup,
            result: None,
            voice,
            up_at: None,
            holding: false,
            dialogs: Vec::new(),
            invite,
            cancelled: false,
            retries: 0,
            session: self.rng.below(1 << 31),
            version: 1,
            offered: None,
            refresh: None,
            wish: Direction::SendRecv,
            zero: false,
            pressed: String::new(),
        }
    }

    pub(super) fn came_up(&mut self, now: Time, index: usize) {
        if self.calls[index].stage == Stage::Up {
            return;
        }
        self.calls[index].stage = Stage::Up;
        self.calls[index].up_at = Some(now);
        for (after, act) in self.habit.on_answer.clone() {
            self.todo.push((now + after, Some(index), act));
        }
    }

    pub(super) fn end(&mut self, index: usize, result: Option<u16>) {
        let call = &mut self.calls[index];
        call.stage = Stage::Over;
        call.result = call.result.or(result);
        call.voice.on = false;
        call.refresh = None;
        call.dialogs.iter_mut().filter(|d| d.confirmed).for_each(|d| d.over = true);
    }

    pub(super) fn tick_refresh(&mut self, now: Time, index: usize) {
        let Some(refresh) = self.calls[index].refresh.filter(|r| r.due <= now) else { return };
        if self.calls[index].stage != Stage::Up {
            self.calls[index].refresh = None;
        } else if refresh.ours {
            // Moved on by the answer; tried again in a while if a transaction is in the way.
            self.calls[index].refresh = Some(Refresh { due: now + 5 * SEC, ..refresh });
            if self.idle(Some(index), "UPDATE").is_ok() {
                self.renegotiate(now, index, Purpose::Update, None);
            }
        } else {
            self.bye(now, index);
        }
    }

    pub(super) fn uas_dialog(&mut self, index: usize, tag: &str, invite: &Msg) {
        let call = &mut self.calls[index];
        if call.dialogs.iter().any(|d| d.local_tag == tag) {
            return;
        }
        let mut local = invite.get("To").unwrap_or("").to_owned();
        local.push_str(&format!(";tag={tag}"));
        let cseq = 100 + self.rng.below(100) as u32;
        call.dialogs.push(Dialog {
            local_tag: tag.to_owned(),
            remote_tag: invite.tag("From").unwrap_or("").to_owned(),
            local,
            remote: invite.get("From").unwrap_or("").to_owned(),
            target: uri_of(invite.get("Contact").unwrap_or("")).to_owned(),
            route: invite.list("Record-Route").iter().map(|r| r.to_string()).collect(),
            cseq,
            remote_cseq: invite.cseq(),
            confirmed: false,
            over: false,
            ack: None,
            invited: invite.cseq(),
        });
    }

    pub(super) fn uac_dialog(&mut self, index: usize, msg: &Msg, confirmed: bool) -> usize {
        let tag = msg.tag("To").unwrap_or("").to_owned();
        let call = &mut self.calls[index];
        let target = msg.get("Contact").map(|c| uri_of(c).to_owned());
        let own = msg.tag("From").unwrap_or("");
        if let Some(at) = call.dialogs.iter().position(|d| d.remote_tag == tag && d.local_tag == own) {
            let dialog = &mut call.dialogs[at];
            dialog.confirmed |= confirmed;
            if let Some(target) = target {
                dialog.target = target;
            }
            return at;
        }
        let mut route: Vec<String> = msg.list("Record-Route").iter().map(|r| r.to_string()).collect();
        route.reverse();
        let local_tag = msg.tag("From").unwrap_or("").to_owned();
        if call.invite.tag("From") != Some(&local_tag) {
            self.complaints.push(format!("{} with another From tag than ours", msg.label()));
        }
        call.dialogs.push(Dialog {
            local_tag,
            remote_tag: tag,
            local: msg.get("From").unwrap_or("").to_owned(),
            remote: msg.get("To").unwrap_or("").to_owned(),
            target: target.unwrap_or_else(|| call.invite.uri().to_owned()),
            route,
            cseq: call.invite.cseq(),
            remote_cseq: 0,
            confirmed,
            over: false,
            ack: None,
            invited: call.invite.cseq(),
        });
        call.dialogs.len() - 1
    }

    pub(super) fn next_hop(&self, dialog: &Dialog) -> SocketAddr {
        let uri = dialog.route.first().map_or(dialog.target.as_str(), |r| uri_of(r));
        address_of(uri).unwrap_or(self.id.server)
    }
}
