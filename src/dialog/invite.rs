//! The INVITE usage of one dialog: RFC 3261 sections 13 and 14, UPDATE (RFC 3311), offers and answers (RFC 3264, RFC 6337), and the
//! races of RFC 5407. A plain value: it says what may be sent and what a request is refused with, and repeats the 2xx. It writes no messages and
//! reads no SDP: its user says whether there was one.
//!
//! Three small machines, each of which has one thing under way at a time:
//!
//! ```text
//! theirs (the peer's INVITE)                        ours (our INVITE)
//!
//!          invited()                                          inviting()
//!   +------+ ------> +---------+                      +------+ --------> +---------+
//!   | Idle |         | Pending |--+ invited(): 500    | Idle |           | Waiting |--+ invited(): 491
//!   +------+ <------ +---------+<-+                   +------+ <-------- +---------+<-+
//!    ^    ^  refusal     |                               ^      a final       |
//!    |    |              | 2xx                           |      answer        | 491
//!    |    |              V                               |                    V
//!    |    | ACK     +---------+                          | Act::Retry   +---------+
//!    |    +---------| Unacked |--+ T1, doubling to T2:   +--------------|  Glare  |
//!    +--------------|         |<-+ Act::Resend                          +---------+
//!      64*T1:       +---------+                          2.1 to 4 s if the Call-ID is ours, else 0 to 2 s
//!      Act::NoAck
//!
//! offer:   Idle --we send one--> Sent --answer comes--> Idle
//!          Idle --one comes--> Received --we answer--> Idle        a refusal of its carrier takes an offer back
//! ```
//!
//! Reliable provisional answers (RFC 3262) are not known here: the SDP of a 1xx is a preview of the answer that the 2xx repeats.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::base::{Instant, Rng};
use crate::sip::{Name, Refusal};
use crate::transaction::timing::{Backoff, GRID, Timing, earlier};

/// Retry-After of a request that met another one of its kind under way: a random number of seconds up to this (RFC 3261 14.2, RFC 3311 5.2).
pub const RETRY_AFTER: u64 = 10;
/// Glare back-off if the Call-ID is ours: from, to, in steps of 10 ms (RFC 3261 14.1).
const GLARE_OWNER: (u64, u64) = (210, 400);
/// Glare back-off if the Call-ID is the peer's, in steps of 10 ms.
const GLARE_OTHER: (u64, u64) = (0, 200);
/// ACKs of ours that are kept to be said again. Within 64 T1 nobody needs more; the oldest gives way.
const ACKS: usize = 8;

/// The INVITE usage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// We made the Call-ID.
    owner: bool,
    theirs: Theirs,
    ours: Ours,
    /// The number of an UPDATE of the peer's that we have not answered.
    their_update: Option<u32>,
    /// The number of an UPDATE of ours that is not answered.
    our_update: Option<u32>,
    offer: Offer,
    /// Our ACKs, the oldest first.
    acks: Vec<Acked>,
}

/// The peer's INVITE.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Theirs {
    /// None.
    Idle,
    /// Not finally answered.
    Pending {
        /// Its CSeq number.
        seq: u32,
    },
    /// Answered with 2xx; the ACK has not come.
    Unacked(Box<Unacked>),
}

/// A 2xx of ours without ACK.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unacked {
    /// The INVITE's CSeq number.
    seq: u32,
    /// The 2xx.
    answer: Bytes,
    /// When to send it again, over any transport: the next hop may not be the last.
    resend: Backoff,
    /// When to give up.
    give_up: Instant,
}

/// Our INVITE.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ours {
    /// None.
    Idle,
    /// Not finally answered.
    Waiting {
        /// Its CSeq number.
        seq: u32,
    },
    /// Accepted with an offer (ours had none): the ACK has to bring the answer.
    Answering {
        /// Its CSeq number.
        seq: u32,
    },
    /// It met one of the peer's; to be sent again.
    Glare {
        /// When.
        until: Instant,
    },
}

/// Where offer and answer stand (RFC 3264).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Offer {
    /// No offer without its answer.
    Idle,
    /// We offered.
    Sent(Carrier),
    /// The peer offered.
    Received(Carrier),
}

/// What carries an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Carrier {
    /// An INVITE.
    Invite,
    /// An UPDATE.
    Update,
    /// The 2xx of an INVITE without offer; the ACK brings the answer ("late offer").
    Success,
}

/// What the SDP of a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// There is none.
    Nothing,
    /// A 1xx shows what the answer will be (RFC 3261 13.2.1).
    Preview,
    /// An offer.
    Offer,
    /// The answer.
    Answer,
    /// There should have been none: to be ignored.
    Unasked,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Send the 2xx again.
    Resend(Bytes),
    /// The 2xx was never acknowledged: send BYE (RFC 3261 13.3.1.4).
    NoAck,
    /// Send the INVITE or UPDATE again that met one of the peer's.
    Retry,
}

/// An ACK of ours, to be said again with each repeated 2xx.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Acked {
    /// The INVITE's CSeq number.
    seq: u32,
    /// The ACK, with the answer to a late offer if it brought one.
    ack: Bytes,
    until: Instant,
}

impl Usage {
    /// The usage that an INVITE of the peer's begins. `offer`: it has SDP.
    pub fn uas(seq: u32, offer: bool) -> Usage {
        let offer = if offer { Offer::Received(Carrier::Invite) } else { Offer::Idle };
        Usage { theirs: Theirs::Pending { seq }, offer, ..Usage::idle(false) }
    }

    /// The usage that our INVITE begins. `offer`: it has SDP.
    pub fn uac(seq: u32, offer: bool) -> Usage {
        let offer = if offer { Offer::Sent(Carrier::Invite) } else { Offer::Idle };
        Usage { ours: Ours::Waiting { seq }, offer, ..Usage::idle(true) }
    }

    /// The usage of an established session with nothing under way. `owner`: we made the Call-ID.
    pub fn idle(owner: bool) -> Usage {
        Usage {
            owner,
            theirs: Theirs::Idle,
            ours: Ours::Idle,
            their_update: None,
            our_update: None,
            offer: Offer::Idle,
            acks: Vec::new(),
        }
    }

    /// A re-INVITE of the peer's. Refused: 491 if ours is under way, 500 with Retry-After if another of the peer's is (RFC 3261 14.2).
    ///
    /// One that comes before the ACK of the INVITE before: the peer has our 2xx, or it would not send it; it is not repeated any longer. If that ACK was to bring
    /// an answer: 491 (RFC 5407 3.1.4 and 3.1.5).
    pub fn invited(&mut self, seq: u32, offer: bool, rng: &mut Rng) -> Result<(), Refusal> {
        match (&self.ours, &self.theirs) {
            (Ours::Waiting { .. } | Ours::Answering { .. }, _) => return Err(glare()),
            (Ours::Idle | Ours::Glare { .. }, Theirs::Pending { .. }) => return Err(again(rng)),
            (Ours::Idle | Ours::Glare { .. }, Theirs::Idle | Theirs::Unacked(_)) => self.may_be_offered(rng)?,
        }
        self.theirs = Theirs::Pending { seq };
        if offer {
            self.offer = Offer::Received(Carrier::Invite);
        }
        Ok(())
    }

    /// We send a 1xx to the peer's INVITE, with SDP or without. Says what the SDP is.
    pub fn ringing(&self, sdp: bool) -> Part {
        match (sdp, self.offer) {
            (false, _) => Part::Nothing,
            (true, Offer::Received(Carrier::Invite)) => Part::Preview,
            // an offer in an unreliable 1xx is none (RFC 3261 13.2.1)
            (true, Offer::Idle | Offer::Sent(_) | Offer::Received(Carrier::Update | Carrier::Success)) => Part::Unasked,
        }
    }

    /// We accept the peer's INVITE with this 2xx; it is repeated from now on. Says what its SDP is: an offer, if the INVITE had none.
    pub fn accept(&mut self, now: Instant, timing: Timing, answer: Bytes, sdp: bool) -> Part {
        let seq = match &self.theirs {
            Theirs::Pending { seq } => *seq,
            // there is nothing to accept
            Theirs::Idle | Theirs::Unacked(_) => return Part::Unasked,
        };
        let resend = Backoff::start(now, timing.t1.min(timing.t2), timing.t2);
        let give_up = now + timing.timeout();
        self.theirs = Theirs::Unacked(Box::new(Unacked { seq, answer, resend, give_up }));
        match (self.offer, sdp) {
            (Offer::Received(Carrier::Invite), true) => {
                self.offer = Offer::Idle;
                Part::Answer
            }
            // accepted without an answer: the offer is void
            (Offer::Received(Carrier::Invite), false) => {
                self.offer = Offer::Idle;
                Part::Nothing
            }
            (Offer::Idle, true) => {
                self.offer = Offer::Sent(Carrier::Success);
                Part::Offer
            }
            (Offer::Idle | Offer::Sent(_) | Offer::Received(Carrier::Update | Carrier::Success), false) => {
                Part::Nothing
            }
            (Offer::Sent(_) | Offer::Received(Carrier::Update | Carrier::Success), true) => Part::Unasked,
        }
    }

    /// We refuse the peer's INVITE; an offer in it is void.
    pub fn refuse(&mut self) {
        match self.theirs {
            Theirs::Pending { .. } => {
                self.theirs = Theirs::Idle;
                self.take_back(Offer::Received(Carrier::Invite));
            }
            // there is nothing to refuse
            Theirs::Idle | Theirs::Unacked(_) => {}
        }
    }

    /// An ACK of the peer's for its INVITE number `seq`. `None`: one that was not waited for, such as a repeated one. Else what its SDP is; an ACK
    /// that brings nothing though our 2xx had an offer leaves [`Usage::offer`] idle and says `Nothing`.
    pub fn acked(&mut self, seq: u32, sdp: bool) -> Option<Part> {
        match &self.theirs {
            Theirs::Unacked(waiting) if waiting.seq == seq => {}
            Theirs::Idle | Theirs::Pending { .. } | Theirs::Unacked(_) => return None,
        }
        self.theirs = Theirs::Idle;
        let asked = self.offer == Offer::Sent(Carrier::Success);
        if asked {
            self.offer = Offer::Idle;
        }
        Some(match (sdp, asked) {
            (true, true) => Part::Answer,
            (true, false) => Part::Unasked,
            (false, _) => Part::Nothing,
        })
    }

    /// Whether we may send a re-INVITE now: nothing may be under way in either direction (RFC 3261 14.1), nor an offer without answer.
    pub fn may_invite(&self) -> bool {
        matches!(self.ours, Ours::Idle | Ours::Glare { .. })
            && self.theirs == Theirs::Idle
            && self.our_update.is_none()
            && self.their_update.is_none()
            && self.offer == Offer::Idle
    }

    /// We send a re-INVITE, as [`Usage::may_invite`] allows, or the INVITE again with credentials or another number.
    pub fn inviting(&mut self, seq: u32, offer: bool) {
        self.ours = Ours::Waiting { seq };
        if offer {
            self.offer = Offer::Sent(Carrier::Invite);
        }
    }

    /// A 1xx to our INVITE: what its SDP is.
    pub fn progress(&self, sdp: bool) -> Part {
        match (sdp, self.offer) {
            (false, _) => Part::Nothing,
            (true, Offer::Sent(Carrier::Invite)) => Part::Preview,
            (true, Offer::Idle | Offer::Received(_) | Offer::Sent(Carrier::Update | Carrier::Success)) => Part::Unasked,
        }
    }

    /// A 2xx to our INVITE number `seq`. `None`: a repeated one, see [`Usage::reack`]. Else what its SDP is; after an offer the ACK has to bring the answer.
    /// Send the ACK and say so with [`Usage::acknowledge`].
    pub fn accepted(&mut self, seq: u32, sdp: bool) -> Option<Part> {
        match self.ours {
            Ours::Waiting { seq: waiting } if waiting == seq => {}
            Ours::Idle | Ours::Waiting { .. } | Ours::Answering { .. } | Ours::Glare { .. } => return None,
        }
        self.ours = Ours::Idle;
        Some(match (self.offer, sdp) {
            (Offer::Sent(Carrier::Invite), sdp) => {
                self.offer = Offer::Idle;
                if sdp { Part::Answer } else { Part::Nothing }
            }
            (Offer::Idle, true) => {
                self.offer = Offer::Received(Carrier::Success);
                self.ours = Ours::Answering { seq };
                Part::Offer
            }
            (Offer::Idle | Offer::Received(_) | Offer::Sent(Carrier::Update | Carrier::Success), false) => {
                Part::Nothing
            }
            (Offer::Received(_) | Offer::Sent(Carrier::Update | Carrier::Success), true) => Part::Unasked,
        })
    }

    /// We send this ACK of a 2xx, and will say it again for 64 T1 with each repeated 2xx.
    pub fn acknowledge(&mut self, now: Instant, timing: Timing, seq: u32, ack: Bytes) {
        if (self.ours == Ours::Answering { seq }) {
            self.ours = Ours::Idle;
        }
        self.take_back(Offer::Received(Carrier::Success));
        if self.acks.len() == ACKS {
            self.acks.remove(0);
        }
        self.acks.push(Acked { seq, ack, until: (now + timing.timeout()).round_up(GRID) });
    }

    /// A repeated 2xx to our INVITE number `seq`: the ACK that is to be said again, as it was (RFC 3261 13.2.2.4).
    pub fn reack(&self, seq: u32) -> Option<&Bytes> {
        self.acks.iter().find(|acked| acked.seq == seq).map(|acked| &acked.ack)
    }

    /// A refusal of our INVITE, or nobody answered it (408). After 491 [`Act::Retry`] will come; else our offer is void and nothing is under way.
    pub fn refused(&mut self, now: Instant, status: u16, rng: &mut Rng) {
        match self.ours {
            Ours::Waiting { .. } => {
                self.take_back(Offer::Sent(Carrier::Invite));
                self.ours = self.after_refusal(now, status, rng);
            }
            // nothing of ours is under way
            Ours::Idle | Ours::Answering { .. } | Ours::Glare { .. } => {}
        }
    }

    /// An UPDATE of the peer's (RFC 3311 5.2). Refused: 500 with Retry-After if another is under way, or an offer of the peer's is unanswered; 491 if one of
    /// ours is.
    pub fn updated(&mut self, seq: u32, offer: bool, rng: &mut Rng) -> Result<(), Refusal> {
        if self.their_update.is_some() {
            return Err(again(rng));
        }
        if offer {
            self.may_be_offered(rng)?;
            self.offer = Offer::Received(Carrier::Update);
        }
        self.their_update = Some(seq);
        Ok(())
    }

    /// We answer the peer's UPDATE, which settles an offer in it one way or the other.
    pub fn update_answered(&mut self) {
        self.their_update = None;
        self.take_back(Offer::Received(Carrier::Update));
    }

    /// Whether we may send an UPDATE now. Without SDP it never disturbs an offer.
    pub fn may_update(&self, offer: bool) -> bool {
        self.our_update.is_none() && (!offer || (self.offer == Offer::Idle && self.their_update.is_none()))
    }

    /// We send an UPDATE, as [`Usage::may_update`] allows.
    pub fn updating(&mut self, seq: u32, offer: bool) {
        self.our_update = Some(seq);
        if offer {
            self.offer = Offer::Sent(Carrier::Update);
        }
    }

    /// A final answer to our UPDATE number `seq`. `None`: one that was not waited for. After 491 [`Act::Retry`] will come.
    pub fn update_done(&mut self, now: Instant, seq: u32, status: u16, sdp: bool, rng: &mut Rng) -> Option<Part> {
        if self.our_update != Some(seq) {
            return None;
        }
        self.our_update = None;
        let asked = self.take_back(Offer::Sent(Carrier::Update));
        if self.ours == Ours::Idle && status >= 300 {
            self.ours = self.after_refusal(now, status, rng);
        }
        Some(match (sdp, asked && status < 300) {
            (false, _) => Part::Nothing,
            (true, true) => Part::Answer,
            (true, false) => Part::Unasked,
        })
    }

    /// Whether we may send BYE: a callee waits for the ACK of its 2xx, or for giving up on it (RFC 3261 section 15; RFC 5407 3.1.3 says what happens else).
    pub fn may_bye(&self) -> bool {
        !matches!(self.theirs, Theirs::Unacked(_))
    }

    /// The session is over: nothing is repeated and nothing tried again. Repeated 2xx are still acknowledged.
    pub fn end(&mut self) {
        *self = Usage { acks: std::mem::take(&mut self.acks), ..Usage::idle(self.owner) };
    }

    /// Where offer and answer stand.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// The peer's INVITE.
    pub fn theirs(&self) -> &Theirs {
        &self.theirs
    }

    /// Our INVITE.
    pub fn ours(&self) -> &Ours {
        &self.ours
    }

    /// When [`Usage::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let theirs = match &self.theirs {
            Theirs::Unacked(waiting) => Some(waiting.resend.at().min(waiting.give_up)),
            Theirs::Idle | Theirs::Pending { .. } => None,
        };
        let ours = match &self.ours {
            // the peer's goes first
            Ours::Glare { until } if self.can_retry() => Some(*until),
            Ours::Glare { .. } | Ours::Idle | Ours::Waiting { .. } | Ours::Answering { .. } => None,
        };
        earlier(earlier(theirs, ours), self.acks.first().map(|acked| acked.until))
    }

    /// A deadline may have passed.
    pub fn tick(&mut self, now: Instant, acts: &mut Vec<Act>) {
        match &mut self.theirs {
            Theirs::Unacked(waiting) if waiting.give_up <= now => {
                self.theirs = Theirs::Idle;
                self.take_back(Offer::Sent(Carrier::Success));
                acts.push(Act::NoAck);
            }
            Theirs::Unacked(waiting) if waiting.resend.at() <= now => {
                waiting.resend = waiting.resend.next(now);
                acts.push(Act::Resend(waiting.answer.clone()));
            }
            Theirs::Unacked(_) | Theirs::Idle | Theirs::Pending { .. } => {}
        }
        match self.ours {
            Ours::Glare { until } if until <= now && self.can_retry() => {
                self.ours = Ours::Idle;
                acts.push(Act::Retry);
            }
            Ours::Glare { .. } | Ours::Idle | Ours::Waiting { .. } | Ours::Answering { .. } => {}
        }
        if self.acks.first().is_some_and(|acked| acked.until <= now) {
            self.acks.retain(|acked| acked.until > now);
            // thousands of these stand for hours
            self.acks.shrink_to_fit();
        }
    }

    fn can_retry(&self) -> bool {
        self.may_invite()
    }

    fn may_be_offered(&self, rng: &mut Rng) -> Result<(), Refusal> {
        match self.offer {
            Offer::Idle => Ok(()),
            Offer::Sent(_) => Err(glare()),
            Offer::Received(_) => Err(again(rng)),
        }
    }

    /// Ends this offer, and says whether it was the one under way.
    fn take_back(&mut self, offer: Offer) -> bool {
        let was = self.offer == offer;
        if was {
            self.offer = Offer::Idle;
        }
        was
    }

    fn after_refusal(&self, now: Instant, status: u16, rng: &mut Rng) -> Ours {
        if status != 491 {
            return Ours::Idle;
        }
        let (least, most) = if self.owner { GLARE_OWNER } else { GLARE_OTHER };
        let steps = least + rng.below(most - least + 1);
        Ours::Glare { until: now + Duration::from_millis(steps * 10) }
    }
}

fn glare() -> Refusal {
    Refusal::status(491)
}

fn again(rng: &mut Rng) -> Refusal {
    Refusal::status(500).with(Name::RetryAfter, rng.below(RETRY_AFTER + 1).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Rng;

    const TIMING: Timing =
        Timing { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) };

    fn ms(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn rng() -> Rng {
        Rng::from_number(5)
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn run(usage: &mut Usage, until: u64) -> Vec<(u64, Act)> {
        let mut log = Vec::new();
        while let Some(at) = usage.deadline().filter(|at| *at <= ms(until)) {
            let mut acts = Vec::new();
            usage.tick(at, &mut acts);
            log.extend(acts.into_iter().map(|act| (at.micros() / 1000, act)));
        }
        log
    }

    fn status(result: Result<(), Refusal>) -> u16 {
        result.err().map_or(200, |r| r.status)
    }

    #[test]
    fn a_2xx_is_repeated_until_its_ack() {
        let mut usage = Usage::uas(1, true);
        assert_eq!(usage.ringing(true), Part::Preview);
        assert_eq!(usage.accept(ms(0), TIMING, bytes("200"), true), Part::Answer);
        assert!(!usage.may_bye() && !usage.may_invite());
        let at: Vec<u64> = run(&mut usage, 9000).into_iter().map(|(at, _)| at).collect();
        assert_eq!(at, [500, 1500, 3500, 7500]);
        assert_eq!(usage.acked(2, false), None, "another INVITE's");
        assert_eq!(usage.acked(1, false), Some(Part::Nothing));
        assert_eq!(usage.acked(1, false), None, "repeated");
        assert!(usage.may_bye() && usage.may_invite());
        assert_eq!(usage.deadline(), None);
        assert_eq!(usage, Usage::idle(false));
    }

    #[test]
    fn a_2xx_without_ack_ends_after_64_t1() {
        let mut usage = Usage::uas(1, false);
        assert_eq!(usage.accept(ms(0), TIMING, bytes("200"), true), Part::Offer);
        let log = run(&mut usage, 60_000);
        let at: Vec<u64> = log.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500, 32_000]);
        assert_eq!(log.last().map(|(_, act)| act), Some(&Act::NoAck));
        assert!(usage.may_bye());
        assert_eq!((usage.offer(), usage.deadline()), (Offer::Idle, None));
    }

    #[test]
    fn late_offer_both_ways() {
        // the peer's INVITE has none
        let mut usage = Usage::uas(1, false);
        assert_eq!(usage.ringing(true), Part::Unasked);
        assert_eq!(usage.accept(ms(0), TIMING, bytes("200"), true), Part::Offer);
        assert_eq!(usage.offer(), Offer::Sent(Carrier::Success));
        assert_eq!(usage.acked(1, true), Some(Part::Answer));
        assert_eq!(usage.offer(), Offer::Idle);
        // the ACK forgot it
        let mut usage = Usage::uas(1, false);
        usage.accept(ms(0), TIMING, bytes("200"), true);
        assert_eq!(usage.acked(1, false), Some(Part::Nothing));
        assert_eq!(usage.offer(), Offer::Idle);
        // ours has none
        let mut usage = Usage::uac(1, false);
        assert_eq!(usage.progress(true), Part::Unasked);
        assert_eq!(usage.accepted(1, true), Some(Part::Offer));
        assert!(!usage.may_invite());
        assert_eq!(status(usage.invited(9, true, &mut rng())), 491, "our answer is still to come");
        usage.acknowledge(ms(0), TIMING, 1, bytes("ACK"));
        assert!(usage.may_invite());
    }

    #[test]
    fn a_repeated_2xx_gets_the_same_ack() {
        let mut usage = Usage::uac(7, true);
        assert_eq!(usage.progress(true), Part::Preview);
        assert_eq!(usage.accepted(7, true), Some(Part::Answer));
        usage.acknowledge(ms(10), TIMING, 7, bytes("ACK of 7"));
        assert_eq!(usage.accepted(7, true), None);
        assert_eq!(usage.reack(7), Some(&bytes("ACK of 7")));
        assert_eq!(usage.reack(6), None);
        usage.end();
        assert_eq!(usage.reack(7), Some(&bytes("ACK of 7")), "also after BYE");
        assert_eq!(usage.deadline(), Some(ms(32_250)));
        assert!(run(&mut usage, 40_000).is_empty());
        assert_eq!(usage.reack(7), None);
        assert_eq!(usage.deadline(), None);
    }

    #[test]
    fn each_2xx_gets_its_own_ack() {
        let mut usage = Usage::idle(true);
        for seq in 0..ACKS as u32 + 1 {
            usage.inviting(seq, true);
            assert_eq!(usage.accepted(seq, true), Some(Part::Answer));
            usage.acknowledge(ms(u64::from(seq) * 1000), TIMING, seq, format!("ACK of {seq}").into());
        }
        assert_eq!(usage.reack(0), None, "one too many");
        assert_eq!(usage.reack(1), Some(&bytes("ACK of 1")));
        assert!(run(&mut usage, 33_900).is_empty());
        assert_eq!((usage.reack(1), usage.reack(2)), (None, Some(&bytes("ACK of 2"))));
    }

    /// What a re-INVITE and an UPDATE with and without offer of the peer's get in each situation, and whether ours may go out.
    #[test]
    fn who_may_ask_when() {
        type Make = fn() -> Usage;
        type Row = (&'static str, Make, u16, u16, u16, bool, bool, bool);
        let waiting: Make = || Usage::uac(1, true);
        let late: Make = || Usage::uac(1, false);
        let pending: Make = || Usage::uas(1, true);
        let bare: Make = || Usage::uas(1, false);
        let unacked: Make = || {
            let mut usage = Usage::uas(1, true);
            usage.accept(ms(0), TIMING, bytes("200"), true);
            usage
        };
        let offered: Make = || {
            let mut usage = Usage::uas(1, false);
            usage.accept(ms(0), TIMING, bytes("200"), true);
            usage
        };
        let updating: Make = || {
            let mut usage = Usage::idle(true);
            usage.updating(2, true);
            usage
        };
        let refreshing: Make = || {
            let mut usage = Usage::idle(true);
            usage.updating(2, false);
            usage
        };
        let updated: Make = || {
            let mut usage = Usage::idle(true);
            assert!(usage.updated(2, true, &mut rng()).is_ok());
            usage
        };
        let refreshed: Make = || {
            let mut usage = Usage::idle(true);
            assert!(usage.updated(2, false, &mut rng()).is_ok());
            usage
        };
        let table: [Row; 11] = [
            // situation, their INVITE, their UPDATE with offer, without; our INVITE, our UPDATE with offer, without
            ("idle", || Usage::idle(true), 200, 200, 200, true, true, true),
            ("our INVITE waits", waiting, 491, 491, 200, false, false, true),
            ("our INVITE without offer waits", late, 491, 200, 200, false, true, true),
            ("their INVITE waits", pending, 500, 500, 200, false, false, true),
            ("their INVITE without offer waits", bare, 500, 200, 200, false, true, true),
            ("our 2xx waits for ACK (RFC 5407 3.1.4)", unacked, 200, 200, 200, false, true, true),
            ("our 2xx with an offer waits for ACK (RFC 5407 3.1.5)", offered, 491, 491, 200, false, false, true),
            ("our UPDATE with offer waits", updating, 491, 491, 200, false, false, false),
            ("our UPDATE without offer waits", refreshing, 200, 200, 200, false, false, false),
            ("their UPDATE with offer waits", updated, 500, 500, 500, false, false, true),
            ("their UPDATE without offer waits", refreshed, 200, 500, 500, false, false, true),
        ];
        for (what, make, invite, update, refresh, may_invite, may_offer, may_refresh) in table {
            assert_eq!(status(make().invited(9, true, &mut rng())), invite, "INVITE: {what}");
            assert_eq!(status(make().updated(9, true, &mut rng())), update, "UPDATE with offer: {what}");
            assert_eq!(status(make().updated(9, false, &mut rng())), refresh, "UPDATE: {what}");
            let usage = make();
            assert_eq!(usage.may_invite(), may_invite, "our INVITE: {what}");
            assert_eq!(
                (usage.may_update(true), usage.may_update(false)),
                (may_offer, may_refresh),
                "our UPDATE: {what}"
            );
        }
        let refusal = pending().invited(9, true, &mut rng()).expect_err("500");
        let (name, seconds) = refusal.headers.first().expect("Retry-After");
        assert_eq!(*name, Name::RetryAfter);
        assert!(seconds.parse::<u64>().is_ok_and(|s| s <= 10));
    }

    /// RFC 5407 3.1.4: the ACK is lost, a re-INVITE comes instead.
    #[test]
    fn a_re_invite_stops_the_2xx_before() {
        let mut usage = Usage::uas(1, true);
        usage.accept(ms(0), TIMING, bytes("200 one"), true);
        assert!(usage.invited(2, true, &mut rng()).is_ok());
        assert_eq!(usage.deadline(), None);
        assert_eq!(usage.acked(1, false), None, "the late ACK");
        assert_eq!(usage.accept(ms(10), TIMING, bytes("200 two"), true), Part::Answer);
        assert_eq!(usage.acked(1, false), None, "the late ACK once more");
        assert_eq!(usage.acked(2, false), Some(Part::Nothing));
    }

    /// RFC 5407 3.3.1: re-INVITEs cross; both get 491, and try again at different times.
    #[test]
    fn crossing_re_invites() {
        for (owner, least, most) in [(true, 2100, 4000), (false, 0, 2000)] {
            let mut rng = rng();
            let mut seen = (u64::MAX, 0);
            for _ in 0..500 {
                let mut usage = Usage::idle(owner);
                usage.inviting(8, true);
                assert_eq!(status(usage.invited(3, true, &mut rng)), 491);
                usage.refused(ms(0), 491, &mut rng);
                let at = usage.deadline().expect("a retry").micros();
                assert_eq!(at % 10_000, 0, "steps of 10 ms");
                seen = (seen.0.min(at / 1000), seen.1.max(at / 1000));
                assert_eq!(run(&mut usage, 5000), [(at / 1000, Act::Retry)]);
                assert_eq!(usage, Usage::idle(owner));
            }
            assert!(seen.0 >= least && seen.0 <= least + 60, "{seen:?}");
            assert!(seen.1 <= most && seen.1 >= most - 60, "{seen:?}");
        }
    }

    #[test]
    fn a_retry_lets_the_peer_go_first() {
        let mut usage = Usage::idle(true);
        usage.inviting(8, true);
        usage.refused(ms(0), 491, &mut rng());
        assert!(usage.invited(3, true, &mut rng()).is_ok());
        assert_eq!(usage.deadline(), None);
        usage.accept(ms(3000), TIMING, bytes("200"), true);
        assert_eq!(run(&mut usage, 4400), [(3500, Act::Resend(bytes("200")))]);
        usage.acked(3, false);
        let mut acts = Vec::new();
        assert!(usage.deadline().is_some_and(|at| at <= ms(4400)));
        usage.tick(ms(4400), &mut acts);
        assert_eq!(acts, [Act::Retry]);
    }

    #[test]
    fn refusals_take_offers_back() {
        let mut usage = Usage::idle(true);
        assert!(usage.invited(3, true, &mut rng()).is_ok());
        usage.refuse();
        assert_eq!(usage, Usage::idle(true));
        usage.inviting(8, true);
        usage.refused(ms(0), 488, &mut rng());
        assert_eq!(usage, Usage::idle(true));
        usage.updating(9, true);
        assert_eq!(usage.update_done(ms(0), 8, 200, true, &mut rng()), None);
        assert_eq!(usage.update_done(ms(0), 9, 488, true, &mut rng()), Some(Part::Unasked));
        assert_eq!(usage, Usage::idle(true));
        usage.updating(10, true);
        assert_eq!(usage.update_done(ms(0), 10, 200, true, &mut rng()), Some(Part::Answer));
        usage.updating(11, true);
        usage.update_done(ms(0), 11, 491, false, &mut rng());
        assert!(matches!(usage.ours(), Ours::Glare { .. }), "UPDATE backs off like INVITE (RFC 3311 5.3)");
        assert!(usage.updated(4, true, &mut rng()).is_ok());
        usage.update_answered();
        assert_eq!(usage.offer(), Offer::Idle);
    }

    #[test]
    fn a_usage_is_a_plain_value() {
        let mut usage = Usage::uas(1, false);
        usage.accept(ms(0), TIMING, bytes("200"), true);
        let json = serde_json::to_string(&usage).expect("a plain value");
        assert_eq!(serde_json::from_str::<Usage>(&json).expect("the same"), usage);
        usage.end();
        assert_eq!(usage, Usage::idle(false));
    }

    proptest! {
        /// Whatever the two sides do in whatever order: no panic, one 2xx at a time is repeated, each at most until its ACK or its end, and with
        /// nothing under way an offer is always settled.
        #[test]
        fn anything_may_happen(steps in prop::collection::vec((0u8..16, 1u32..4, any::<bool>(), 0u64..9000), 0..60), owner in any::<bool>()) {
            let (mut usage, mut rng, mut now) = (Usage::idle(owner), rng(), 0);
            let (mut accepted, mut settled) = (0, 0);
            for (what, seq, sdp, pause) in steps {
                match what {
                    0 => drop(usage.invited(seq, sdp, &mut rng)),
                    1 => {
                        let open = matches!(usage.theirs(), Theirs::Pending { .. });
                        usage.accept(ms(now), TIMING, bytes("200"), sdp);
                        accepted += usize::from(open);
                    }
                    2 => usage.refuse(),
                    3 => settled += usize::from(usage.acked(seq, sdp).is_some()),
                    4 if usage.may_invite() => usage.inviting(seq, sdp),
                    5 => drop(usage.accepted(seq, sdp).map(|_| usage.acknowledge(ms(now), TIMING, seq, bytes("ACK")))),
                    6 => usage.refused(ms(now), if sdp { 491 } else { 488 }, &mut rng),
                    7 => drop(usage.updated(seq, sdp, &mut rng)),
                    8 => usage.update_answered(),
                    9 if usage.may_update(sdp) => usage.updating(seq, sdp),
                    10 => drop(usage.update_done(ms(now), seq, if pause % 2 == 0 { 200 } else { 491 }, sdp, &mut rng)),
                    11 => drop((usage.ringing(sdp), usage.progress(sdp), usage.reack(seq).is_some())),
                    _ => {
                        now += pause;
                        settled += run(&mut usage, now).into_iter().filter(|(_, act)| *act == Act::NoAck).count();
                    }
                }
                prop_assert!(settled <= accepted);
            }
            usage.update_answered();
            for seq in 1..4 {
                usage.update_done(ms(now), seq, 200, true, &mut rng);
            }
            usage.refused(ms(now), 486, &mut rng);
            usage.refuse();
            run(&mut usage, now + 100_000);
            prop_assert_eq!(usage, Usage::idle(owner));
        }
    }
}
