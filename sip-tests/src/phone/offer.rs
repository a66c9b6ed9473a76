//! Offers and answers (RFC 3264): what is agreed, and what is wrong with the peer's.

use super::sdp::{Direction, Ours, Sdp};
use super::{Call, Phone, Stage};
use crate::Time;

impl Phone {
    /// Takes the peer's SDP: its offer, or its answer to ours.
    pub(super) fn take(&mut self, now: Time, index: usize, sdp: &Sdp, answer: bool) {
        let offered = self.calls[index].offered.clone();
        if let (true, Some(offered)) = (answer, offered.as_deref()) {
            self.check_answer(offered, sdp);
        }
        let formats = self.habit.formats.clone();
        let call = &mut self.calls[index];
        let Some(media) = sdp.audio() else {
            call.voice.remote = None;
            return;
        };
        call.voice.remote = media.target();
        // We send what the peer hears, and the other way round, as far as we want to ourselves.
        let zero = media.address.is_some_and(|a| a.is_unspecified());
        let sends = media.direction.hears() && call.wish.sends() && !call.holding && !zero;
        let hears = media.direction.sends() && call.wish.hears();
        call.voice.direction = Direction::of(sends, hears);
        if answer {
            call.offered = None;
        }
        let mut pick = None;
        call.voice.digits_before.extend(call.voice.digits.take());
        call.voice.agreed_at = now;
        call.voice.listens = formats.iter().map(|f| f.0).collect();
        for format in &media.formats {
            let name = media.name(format);
            let pt: u8 = format.parse().unwrap_or(255);
            if name.starts_with("telephone-event") {
                let known = formats.iter().any(|(_, n)| n.starts_with("telephone-event"));
                call.voice.digits = known.then_some(pt);
            } else if formats.iter().any(|(_, n)| n.to_ascii_lowercase() == name) {
                call.voice.listens.push(pt);
                pick = pick.or(Some(pt));
            }
        }
        match pick {
            Some(pt) => call.voice.payload = pt,
            None => self.complaints.push(format!("no format of ours in {:?}", media.formats)),
        }
        if self.calls[index].stage == Stage::Up {
            self.calls[index].voice.turn_on(now);
        }
    }

    /// Whether an offer's audio has a codec that we speak; one without audio asks for nothing that we could not do.
    pub(super) fn speaks(&self, offer: &Sdp) -> bool {
        let ours = |name: &str| self.habit.formats.iter().any(|(_, n)| n.eq_ignore_ascii_case(name));
        let codec = |name: &str| !name.starts_with("telephone-event") && ours(name);
        offer.audio().is_none_or(|audio| audio.formats.iter().any(|f| codec(&audio.name(f))))
    }

    /// RFC 3264 section 6.
    pub(super) fn check_answer(&mut self, offered: &str, answer: &Sdp) {
        let Ok(offer) = Sdp::read(offered.as_bytes()) else { return };
        if offer.media.len() != answer.media.len() {
            let (n, m) = (offer.media.len(), answer.media.len());
            self.complaints.push(format!("{n} streams offered, {m} answered"));
        }
        for (o, a) in offer.media.iter().zip(&answer.media) {
            if (&o.kind, &o.proto) != (&a.kind, &a.proto) {
                self.complaints.push(format!("{} {} offered, {} {} answered", o.kind, o.proto, a.kind, a.proto));
            }
            if a.port != 0 && !a.formats.iter().any(|f| o.formats.contains(f)) {
                self.complaints.push(format!("{:?} offered, {:?} answered", o.formats, a.formats));
            }
            let wrong = (a.direction.sends() && !o.direction.hears()) || (a.direction.hears() && !o.direction.sends());
            if a.port != 0 && wrong {
                self.complaints.push(format!("{:?} offered, {:?} answered", o.direction, a.direction));
            }
        }
    }

    /// Our stream as we want it; an offer.
    pub(super) fn ours(&self, call: &Call) -> Ours {
        Ours {
            address: call.voice.local,
            zero: call.zero,
            session: call.session,
            version: call.version,
            direction: call.wish,
            formats: self.habit.formats.clone(),
            extra: String::new(),
        }
    }

    /// Our answer to an offer that was taken.
    pub(super) fn answer(&self, index: usize, offer: &Sdp) -> String {
        let call = &self.calls[index];
        let direction = if self.habit.careless { Direction::SendRecv } else { call.voice.direction };
        Ours { direction, zero: false, ..self.ours(call) }.answer(offer)
    }
}
