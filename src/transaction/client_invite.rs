//! The INVITE client transaction: RFC 3261 section 17.1.1 with the Accepted state of RFC 6026, and the CANCEL that waits for
//! the first provisional answer (RFC 3261 9.1). A pure value; [`Layer`](super::Layer) owns it and does what it says.
//!
//! The ACK of a 2xx is the dialog's and never passes here. The CANCEL itself is a [non-INVITE transaction](super::client) of its own.
//!
//! ```text
//!                                |INVITE from TU
//!              Timer A fires     |INVITE sent
//!              Reset A,          V                      Timer B fires
//!              INVITE sent +-----------+                or Transport Err.
//!                +---------|           |---------------+inform TU
//!                |         |  Calling  |               |
//!                +-------->|           |-------------->|
//!                          +-----------+ 2xx           |
//!                             |  |       2xx to TU     |
//!                             |  |1xx                  |
//!     300-699 +---------------+  |1xx to TU            |
//!    ACK sent |                  |CANCEL if wished     |
//! resp. to TU |  1xx             V                     |
//!             |  1xx to TU  -----------+               |
//!             |  +---------|           |               |
//!             |  |         |Proceeding |-------------->|
//!             |  +-------->|           | 2xx           |
//!             |            +-----------+ 2xx to TU     |
//!             |       300-699    |  | 64*T1 after CANCEL|
//!             |       ACK sent,  |  +-----------------+ |
//!             |       resp. to TU|     inform TU      | |
//!             |                  |                    | |   NOTE:
//!             |  300-699         V                    | |
//!             |  ACK sent  +-----------+Transport Err.| |   Transitions
//!             |  +---------|           |Inform TU     | |   are labeled
//!             |  |         | Completed |              | |   with the event
//!             |  +-------->|           |------+       | |   over the action
//!             |            +-----------+      |       | |   to be taken.
//!             |              ^   |            |       | |
//!             |              |   | Timer D    |       | |
//!             +--------------+   | fires      |       | |
//!                                | -          |       | V
//!                                |            |  +---------+
//!                                |            |  |         |---+ 2xx
//!                                |            |  | Accepted|   | 2xx to TU
//!                                |            |  |         |<--+
//!                                V            V  +---------+
//!                          +------------+          | Timer M fires
//!                          | Terminated |<---------+ -
//!                          +------------+
//! ```

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::timing::{Backoff, Pace, earlier};
use crate::base::Instant;
use crate::sip::{Message, Name, Writer};

/// Where the transaction stands. The timers are fields of the states.
#[derive(Debug)]
pub enum State {
    /// No answer yet.
    Calling {
        /// What is retransmitted, and what ACK and CANCEL are made from.
        invite: Bytes,
        /// Timer A.
        resend: Option<Backoff>,
        /// Timer B.
        give_up: Instant,
        /// A CANCEL that waits for the first provisional answer.
        cancel: Option<Wish>,
    },
    /// Provisionally answered. It may ring as long as the user likes; only a CANCEL sets an end.
    Proceeding {
        /// What ACK and CANCEL are made from.
        invite: Bytes,
        /// 64 T1 after the CANCEL (RFC 3261 9.1).
        give_up: Option<Instant>,
    },
    /// Refused; each repeated refusal gets its ACK again.
    Completed {
        /// Our ACK.
        ack: Bytes,
        /// Timer D.
        until: Instant,
    },
    /// Accepted; further 2xx (repeated, or of another branch of a fork) go to the user.
    Accepted {
        /// Timer M.
        until: Instant,
    },
    /// Over.
    Terminated,
}

/// A wish to CANCEL, with the value of the Reason header.
#[derive(Debug)]
pub struct Wish(pub Option<Box<str>>);

/// What happens to the transaction.
#[derive(Debug)]
pub enum Input<'a> {
    /// A 1xx.
    Provisional,
    /// A 2xx.
    Success,
    /// A 3xx to 6xx.
    Failure(&'a Message),
    /// The user gave up.
    Cancel(Wish),
    /// A deadline has come.
    Timer,
    /// The transport could not deliver.
    Broken,
}

/// What is to be done.
#[derive(Debug)]
pub enum Act {
    /// Send again, or send the ACK.
    Send(Bytes),
    /// Start the CANCEL's own transaction with these bytes.
    Cancel(Bytes),
    /// Hand the answer to the user.
    Deliver,
    /// An answer that no user waits for.
    Stray,
    /// Tell the user that nobody answered.
    Timeout,
    /// Tell the user that the transport failed.
    Failed,
}

/// At most two things come of one input.
pub type Acts = SmallVec<[Act; 2]>;

impl State {
    /// The INVITE was sent.
    pub fn start(now: Instant, pace: Pace, invite: Bytes) -> State {
        State::Calling { invite, resend: pace.a(now), give_up: pace.b(now), cancel: None }
    }

    /// One step.
    pub fn handle(self, now: Instant, pace: Pace, input: Input<'_>) -> (State, Acts) {
        match (self, input) {
            (State::Calling { invite, cancel: None, .. }, Input::Provisional) => {
                (State::Proceeding { invite, give_up: None }, smallvec![Act::Deliver])
            }
            (State::Calling { invite, cancel: Some(Wish(reason)), .. }, Input::Provisional) => {
                let cancel = cancel(&invite, reason.as_deref());
                (State::Proceeding { invite, give_up: Some(pace.b(now)) }, smallvec![Act::Deliver, Act::Cancel(cancel)])
            }
            (State::Calling { .. } | State::Proceeding { .. }, Input::Success) => {
                (State::Accepted { until: pace.m(now) }, smallvec![Act::Deliver])
            }
            (State::Calling { invite, .. } | State::Proceeding { invite, .. }, Input::Failure(answer)) => {
                let ack = ack(&invite, answer);
                let acts = smallvec![Act::Send(ack.clone()), Act::Deliver];
                match pace.d(now) {
                    Some(until) => (State::Completed { ack, until }, acts),
                    None => (State::Terminated, acts),
                }
            }
            // a second wish changes nothing but fills in a reason
            (State::Calling { invite, resend, give_up, cancel }, Input::Cancel(wish)) => {
                let cancel = Some(match cancel {
                    Some(Wish(Some(reason))) => Wish(Some(reason)),
                    Some(Wish(None)) | None => wish,
                });
                (State::Calling { invite, resend, give_up, cancel }, smallvec![])
            }
            (State::Calling { invite, resend, give_up, cancel }, Input::Timer) => {
                if give_up <= now {
                    return (State::Terminated, smallvec![Act::Timeout]);
                }
                match resend {
                    Some(timer) if timer.at() <= now => {
                        let acts = smallvec![Act::Send(invite.clone())];
                        (State::Calling { invite, resend: Some(timer.next(now)), give_up, cancel }, acts)
                    }
                    Some(_) | None => (State::Calling { invite, resend, give_up, cancel }, smallvec![]),
                }
            }
            (State::Calling { .. }, Input::Broken) => (State::Terminated, smallvec![Act::Failed]),

            (State::Proceeding { invite, give_up }, Input::Provisional) => {
                (State::Proceeding { invite, give_up }, smallvec![Act::Deliver])
            }
            (State::Proceeding { invite, give_up: None }, Input::Cancel(Wish(reason))) => {
                let cancel = cancel(&invite, reason.as_deref());
                (State::Proceeding { invite, give_up: Some(pace.b(now)) }, smallvec![Act::Cancel(cancel)])
            }
            // one CANCEL is enough: its own transaction repeats it
            (State::Proceeding { invite, give_up: Some(at) }, Input::Cancel(_)) => {
                (State::Proceeding { invite, give_up: Some(at) }, smallvec![])
            }
            (State::Proceeding { invite, give_up }, Input::Timer) => {
                if give_up.is_some_and(|at| at <= now) {
                    (State::Terminated, smallvec![Act::Timeout])
                } else {
                    (State::Proceeding { invite, give_up }, smallvec![])
                }
            }
            // the request has arrived; its answer may come over another connection (RFC 3261 18.2.2)
            (State::Proceeding { invite, give_up }, Input::Broken) => {
                (State::Proceeding { invite, give_up }, smallvec![])
            }

            (State::Completed { ack, until }, Input::Failure(_)) => {
                let acts = smallvec![Act::Send(ack.clone())];
                (State::Completed { ack, until }, acts)
            }
            // late: the final answer has overtaken it
            (State::Completed { ack, until }, Input::Provisional) => (State::Completed { ack, until }, smallvec![]),
            // another branch of a fork accepted after the call was refused: whoever wants may ACK and BYE it
            (State::Completed { ack, until }, Input::Success) => {
                (State::Completed { ack, until }, smallvec![Act::Stray])
            }
            // there is nothing left to cancel
            (State::Completed { ack, until }, Input::Cancel(_)) => (State::Completed { ack, until }, smallvec![]),
            (State::Completed { ack, until }, Input::Timer) => {
                if until <= now {
                    (State::Terminated, smallvec![])
                } else {
                    (State::Completed { ack, until }, smallvec![])
                }
            }
            // the user has its final answer; the peer will ask for the ACK again if it misses it
            (State::Completed { ack, until }, Input::Broken) => (State::Completed { ack, until }, smallvec![]),

            (State::Accepted { until }, Input::Success) => (State::Accepted { until }, smallvec![Act::Deliver]),
            // late, or of a branch of a fork that lost: the proxy that forked it has taken care of it
            (State::Accepted { until }, Input::Provisional | Input::Failure(_)) => {
                (State::Accepted { until }, smallvec![])
            }
            // a CANCEL has no effect on what was accepted: the user sends BYE
            (State::Accepted { until }, Input::Cancel(_)) => (State::Accepted { until }, smallvec![]),
            (State::Accepted { until }, Input::Timer) => {
                if until <= now {
                    (State::Terminated, smallvec![])
                } else {
                    (State::Accepted { until }, smallvec![])
                }
            }
            // nothing of ours is under way
            (State::Accepted { until }, Input::Broken) => (State::Accepted { until }, smallvec![]),

            // the slot is only kept for the CANCEL's transaction
            (
                State::Terminated,
                Input::Provisional
                | Input::Success
                | Input::Failure(_)
                | Input::Cancel(_)
                | Input::Timer
                | Input::Broken,
            ) => (State::Terminated, smallvec![]),
        }
    }

    /// When [`Input::Timer`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            State::Calling { resend, give_up, .. } => earlier(resend.map(Backoff::at), Some(*give_up)),
            State::Proceeding { give_up, .. } => *give_up,
            State::Completed { until, .. } | State::Accepted { until } => Some(*until),
            State::Terminated => None,
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self, State::Terminated)
    }
}

/// The ACK of a refusal (RFC 3261 17.1.1.3): the INVITE's Request-URI, top Via, Route, From, Call-ID and CSeq number; the answer's To.
fn ack(invite: &Bytes, answer: &Message) -> Bytes {
    match Message::parse(invite.clone()) {
        Ok(invite) => match answer.header(Name::To) {
            Some(to) => same_hop(&invite, "ACK", to).finish(),
            None => Bytes::new(),
        },
        // we wrote it: see `Layer::request`
        Err(_) => Bytes::new(),
    }
}

/// The CANCEL (RFC 3261 9.1): everything as in the INVITE, To included.
fn cancel(invite: &Bytes, reason: Option<&str>) -> Bytes {
    match Message::parse(invite.clone()) {
        Ok(invite) => {
            let mut writer = same_hop(&invite, "CANCEL", invite.header(Name::To).unwrap_or_default());
            if let Some(reason) = reason {
                writer.header(Name::Reason, reason);
            }
            writer.finish()
        }
        // we wrote it: see `Layer::request`
        Err(_) => Bytes::new(),
    }
}

fn same_hop(invite: &Message, method: &str, to: &[u8]) -> Writer {
    let mut writer = Writer::request(method, invite.request_uri());
    // only the top Via: the others belong to hops behind us
    if let Some(via) = invite.lines(Name::Via).next() {
        writer.header(Name::Via, via);
    }
    writer.header(Name::MaxForwards, "70");
    writer.copy(invite, Name::Route);
    writer.copy(invite, Name::From);
    writer.header(Name::To, to);
    writer.copy(invite, Name::CallId);
    writer.fmt(Name::CSeq, format_args!("{} {method}", invite.cseq().seq));
    writer
}
