//! The INVITE server transaction: RFC 3261 section 17.2.1 with the Accepted state of RFC 6026. A pure value;
//! [`Layer`](super::Layer) owns it and does what it says.
//!
//! A 2xx is repeated by the dialog (`dialog::invite`), not here: Accepted only absorbs the INVITE's retransmissions, so it holds
//! neither the INVITE nor the 2xx. In Proceeding no timer runs but that of the 100: how long it may ring is the user's business.
//!
//! ```text
//!                                        |INVITE
//!                                        |pass INV to TU
//!                     INVITE             V send 100 if TU won't in 200 ms
//!                     send response+------------+
//!                         +--------|            |--------+ 101-199 from TU
//!                         |        |            |        | send response
//!                         +------->|            |<-------+
//!                                  | Proceeding |
//!                                  |            |--------+ Transport Err.
//!                                  |            |        | Inform TU
//!                                  |            |<-------+
//!                                  +------------+
//!                     300-699 from TU |    |2xx from TU
//!                     send response   |    |send response
//!                      +--------------+    +------------+
//!                      |                                |
//!     INVITE           V          Timer G fires         |
//!     send response +-----------+ send response         |
//!          +--------|           |--------+              |
//!          |        |           |        |              |
//!          +------->| Completed |<-------+      INVITE  |  Transport Err.
//!                   |           |               -       |  -
//!          +--------|           |----+          +-----+ |  +---+
//!          |        +-----------+    | ACK      |     | V  V   |
//!          |          ^   |          | -        |  +------------+
//!          |          |   |          |          +->|            |---+ ACK
//!          +----------+   |          |             |  Accepted  |   | to TU
//!          Transport Err. |          |             |            |<--+
//!          Inform TU      |          V             +------------+
//!                         |      +-----------+        |  ^     |
//!                         |      |           |        |  |     |
//!                         |      | Confirmed |        |  +-----+
//!                         |      |           |        |  2xx from TU
//!           Timer H fires |      +-----------+        |  send response
//!           inform TU     |          |                |
//!                         |          | Timer I fires  | Timer L fires
//!                         |          | -              | -
//!                         |          V                |
//!                         |        +------------+     |
//!                         +------->| Terminated |<----+
//!                                  +------------+
//! ```

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::timing::{Backoff, Pace, earlier};
use crate::base::Instant;

/// Where the transaction stands. The timers are fields of the states.
#[derive(Debug)]
pub enum State {
    /// The user works on it.
    Proceeding {
        /// The last provisional answer, repeated on demand.
        last: Option<Bytes>,
        /// When the 100 is due, if the user has said nothing by then.
        trying: Option<Instant>,
    },
    /// Refused; the refusal is repeated until the ACK comes.
    Completed {
        /// The refusal.
        answer: Bytes,
        /// Timer G.
        resend: Option<Backoff>,
        /// Timer H.
        give_up: Instant,
    },
    /// The ACK came; further ACKs are absorbed.
    Confirmed {
        /// Timer I.
        until: Instant,
    },
    /// Accepted; retransmitted INVITEs are absorbed.
    Accepted {
        /// The status of the 2xx.
        status: u16,
        /// Timer L.
        until: Instant,
    },
    /// Over.
    Terminated,
}

/// What happens to the transaction.
#[derive(Debug)]
pub enum Input {
    /// The INVITE again.
    Invite,
    /// An ACK with the INVITE's branch.
    Ack,
    /// The user's 1xx, or our own 100.
    Provisional(Bytes),
    /// The user's 2xx: status and message.
    Success(u16, Bytes),
    /// The user's 3xx to 6xx.
    Failure(Bytes),
    /// A deadline has come.
    Timer,
    /// The transport could not deliver, or its connection is gone.
    Broken,
}

/// What is to be done.
#[derive(Debug)]
pub enum Act {
    /// Send an answer.
    Send(Bytes),
    /// Make a 100 and come back with [`Input::Provisional`].
    Trying,
    /// Tell the user that its refusal was acknowledged.
    Acked,
    /// Hand the ACK to the user's dialog.
    Deliver,
    /// Tell the user that its refusal was never acknowledged.
    NoAck,
    /// Tell the user that nobody is there to be answered.
    Lost,
}

/// At most one thing comes of one input.
pub type Acts = SmallVec<[Act; 1]>;

impl State {
    /// The INVITE has come; `trying` is when it gets a 100.
    pub fn start(trying: Instant) -> State {
        State::Proceeding { last: None, trying: Some(trying) }
    }

    /// One step.
    pub fn handle(self, now: Instant, pace: Pace, input: Input) -> (State, Acts) {
        match (self, input) {
            (State::Proceeding { last: Some(last), trying }, Input::Invite) => {
                let acts = smallvec![Act::Send(last.clone())];
                (State::Proceeding { last: Some(last), trying }, acts)
            }
            // the peer is impatient: it gets its 100 now
            (State::Proceeding { last: None, trying: _ }, Input::Invite) => {
                (State::Proceeding { last: None, trying: None }, smallvec![Act::Trying])
            }
            // there was nothing to acknowledge yet
            (State::Proceeding { last, trying }, Input::Ack) => (State::Proceeding { last, trying }, smallvec![]),
            (State::Proceeding { .. }, Input::Provisional(answer)) => {
                let acts = smallvec![Act::Send(answer.clone())];
                (State::Proceeding { last: Some(answer), trying: None }, acts)
            }
            (State::Proceeding { .. }, Input::Success(status, answer)) => {
                (State::Accepted { status, until: pace.l(now) }, smallvec![Act::Send(answer)])
            }
            (State::Proceeding { .. }, Input::Failure(answer)) => {
                let acts = smallvec![Act::Send(answer.clone())];
                (State::Completed { answer, resend: pace.g(now), give_up: pace.h(now) }, acts)
            }
            (State::Proceeding { last, trying }, Input::Timer) => {
                if trying.is_some_and(|at| at <= now) {
                    (State::Proceeding { last, trying: None }, smallvec![Act::Trying])
                } else {
                    (State::Proceeding { last, trying }, smallvec![])
                }
            }
            (State::Proceeding { last, trying }, Input::Broken) => {
                (State::Proceeding { last, trying }, smallvec![Act::Lost])
            }

            (State::Completed { answer, resend, give_up }, Input::Invite) => {
                let acts = smallvec![Act::Send(answer.clone())];
                (State::Completed { answer, resend, give_up }, acts)
            }
            (State::Completed { .. }, Input::Ack) => match pace.i(now) {
                Some(until) => (State::Confirmed { until }, smallvec![Act::Acked]),
                None => (State::Terminated, smallvec![Act::Acked]),
            },
            // there is one final answer, and it has been given
            (
                State::Completed { answer, resend, give_up },
                Input::Provisional(_) | Input::Success(..) | Input::Failure(_),
            ) => (State::Completed { answer, resend, give_up }, smallvec![]),
            (State::Completed { answer, resend, give_up }, Input::Timer) => {
                if give_up <= now {
                    return (State::Terminated, smallvec![Act::NoAck]);
                }
                match resend {
                    Some(timer) if timer.at() <= now => {
                        let acts = smallvec![Act::Send(answer.clone())];
                        (State::Completed { answer, resend: Some(timer.next(now)), give_up }, acts)
                    }
                    Some(_) | None => (State::Completed { answer, resend, give_up }, smallvec![]),
                }
            }
            // the ACK may come over another connection; Timer H tells the user otherwise
            (State::Completed { answer, resend, give_up }, Input::Broken) => {
                (State::Completed { answer, resend, give_up }, smallvec![])
            }

            // both were on their way when the ACK came
            (State::Confirmed { until }, Input::Invite | Input::Ack) => (State::Confirmed { until }, smallvec![]),
            // there is one final answer, and it has been given
            (State::Confirmed { until }, Input::Provisional(_) | Input::Success(..) | Input::Failure(_)) => {
                (State::Confirmed { until }, smallvec![])
            }
            (State::Confirmed { until }, Input::Timer) => {
                if until <= now {
                    (State::Terminated, smallvec![])
                } else {
                    (State::Confirmed { until }, smallvec![])
                }
            }
            // nothing of ours is under way
            (State::Confirmed { until }, Input::Broken) => (State::Confirmed { until }, smallvec![]),

            // absorbed: the dialog repeats its 2xx by its own timer
            (State::Accepted { status, until }, Input::Invite) => (State::Accepted { status, until }, smallvec![]),
            // a peer that gives the ACK of a 2xx the INVITE's branch, as RFC 2543 had it
            (State::Accepted { status, until }, Input::Ack) => {
                (State::Accepted { status, until }, smallvec![Act::Deliver])
            }
            (State::Accepted { status, until }, Input::Success(again, answer)) => {
                let acts = if again == status { smallvec![Act::Send(answer)] } else { smallvec![] };
                (State::Accepted { status, until }, acts)
            }
            // there is one final answer, and it has been given
            (State::Accepted { status, until }, Input::Provisional(_) | Input::Failure(_)) => {
                (State::Accepted { status, until }, smallvec![])
            }
            (State::Accepted { status, until }, Input::Timer) => {
                if until <= now {
                    (State::Terminated, smallvec![])
                } else {
                    (State::Accepted { status, until }, smallvec![])
                }
            }
            // the dialog notices when its 2xx stays without ACK
            (State::Accepted { status, until }, Input::Broken) => (State::Accepted { status, until }, smallvec![]),

            // the layer drops the slot with this state
            (
                State::Terminated,
                Input::Invite
                | Input::Ack
                | Input::Provisional(_)
                | Input::Success(..)
                | Input::Failure(_)
                | Input::Timer
                | Input::Broken,
            ) => (State::Terminated, smallvec![]),
        }
    }

    /// When [`Input::Timer`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            State::Proceeding { trying, .. } => *trying,
            State::Completed { resend, give_up, .. } => earlier(resend.map(Backoff::at), Some(*give_up)),
            State::Confirmed { until } | State::Accepted { until, .. } => Some(*until),
            State::Terminated => None,
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self, State::Terminated)
    }

    /// Whether no final answer was given yet.
    pub fn is_open(&self) -> bool {
        matches!(self, State::Proceeding { .. })
    }

    /// Whether the final answer was a refusal.
    pub fn is_refused(&self) -> bool {
        matches!(self, State::Completed { .. } | State::Confirmed { .. })
    }

    /// The last answer, if the state still holds one.
    pub fn answer(&self) -> Option<&Bytes> {
        match self {
            State::Proceeding { last, .. } => last.as_ref(),
            State::Completed { answer, .. } => Some(answer),
            State::Confirmed { .. } | State::Accepted { .. } | State::Terminated => None,
        }
    }
}
