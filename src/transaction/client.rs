//! The non-INVITE client transaction: RFC 3261 section 17.1.2. A pure value; [`Layer`](super::Layer) owns it and does what it says.
//! A CANCEL is one of these too; it lives beside its INVITE, whose branch it shares.
//!
//! ```text
//!                                    |Request from TU
//!                                    |send request
//!                Timer E             V
//!                send request  +-----------+
//!                    +---------|           |-------------------+
//!                    |         |  Trying   |  Timer F          |
//!                    +-------->|           |  or Transport Err.|
//!                              +-----------+  inform TU        |
//!                 200-699         |  |                         |
//!                 resp. to TU     |  |1xx                      |
//!                 +---------------+  |resp. to TU              |
//!                 |                  |                         |
//!                 |   Timer E        V       Timer F           |
//!                 |   send req +-----------+ or Transport Err. |
//!                 |  +---------|           | inform TU         |
//!                 |  |         |Proceeding |------------------>|
//!                 |  +-------->|           |-----+             |
//!                 |            +-----------+     |1xx          |
//!                 |              |      ^        |resp to TU   |
//!                 | 200-699      |      +--------+             |
//!                 | resp. to TU  |                             |
//!                 |              V                             |
//!                 |            +-----------+                   |
//!                 |            |           |                   |
//!                 |            | Completed |                   |
//!                 +----------->|           |                   |
//!                              +-----------+                   |
//!                                   |                          |
//!                                   | Timer K                  |
//!                                   | -                        |
//!                                   V                          |
//!                              +------------+                  |
//!                              | Terminated |<-----------------+
//!                              +------------+
//! ```

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::timing::{Backoff, Pace, earlier};
use crate::base::Instant;

/// Where the transaction stands. The timers are fields of the states.
#[derive(Debug)]
pub enum State {
    /// No answer yet.
    Trying {
        /// What is retransmitted.
        request: Bytes,
        /// Timer E.
        resend: Option<Backoff>,
        /// Timer F.
        give_up: Instant,
    },
    /// Provisionally answered: retransmitted every T2.
    Proceeding {
        /// What is retransmitted.
        request: Bytes,
        /// Timer E.
        resend: Option<Backoff>,
        /// Timer F, still from the beginning.
        give_up: Instant,
    },
    /// Answered; repeated answers are absorbed.
    Completed {
        /// Timer K.
        until: Instant,
    },
    /// Over.
    Terminated,
}

/// What happens to the transaction.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// A 1xx.
    Provisional,
    /// A 2xx to 6xx.
    Final,
    /// A deadline has come.
    Timer,
    /// The transport could not deliver.
    Broken,
}

/// What is to be done.
#[derive(Debug)]
pub enum Act {
    /// Send again.
    Send(Bytes),
    /// Hand the answer to the user.
    Deliver,
    /// Tell the user that nobody answered.
    Timeout,
    /// Tell the user that the transport failed.
    Failed,
}

/// At most one thing comes of one input.
pub type Acts = SmallVec<[Act; 1]>;

impl State {
    /// The request was sent.
    pub fn start(now: Instant, pace: Pace, request: Bytes) -> State {
        State::Trying { request, resend: pace.e(now), give_up: pace.f(now) }
    }

    /// One step.
    pub fn handle(self, now: Instant, pace: Pace, input: Input) -> (State, Acts) {
        match (self, input) {
            (
                State::Trying { request, resend, give_up } | State::Proceeding { request, resend, give_up },
                Input::Provisional,
            ) => (State::Proceeding { request, resend, give_up }, smallvec![Act::Deliver]),
            (State::Trying { .. } | State::Proceeding { .. }, Input::Final) => match pace.k(now) {
                Some(until) => (State::Completed { until }, smallvec![Act::Deliver]),
                None => (State::Terminated, smallvec![Act::Deliver]),
            },
            (State::Trying { give_up, .. } | State::Proceeding { give_up, .. }, Input::Timer) if give_up <= now => {
                (State::Terminated, smallvec![Act::Timeout])
            }
            (State::Trying { request, resend, give_up }, Input::Timer) => match resend {
                Some(timer) if timer.at() <= now => {
                    let acts = smallvec![Act::Send(request.clone())];
                    (State::Trying { request, resend: Some(timer.next(now)), give_up }, acts)
                }
                Some(_) | None => (State::Trying { request, resend, give_up }, smallvec![]),
            },
            (State::Proceeding { request, resend, give_up }, Input::Timer) => match resend {
                Some(timer) if timer.at() <= now => {
                    let acts = smallvec![Act::Send(request.clone())];
                    (State::Proceeding { request, resend: Some(timer.slowest(now)), give_up }, acts)
                }
                Some(_) | None => (State::Proceeding { request, resend, give_up }, smallvec![]),
            },
            (State::Trying { .. } | State::Proceeding { .. }, Input::Broken) => {
                (State::Terminated, smallvec![Act::Failed])
            }

            // repeated: the user has its answer
            (State::Completed { until }, Input::Provisional | Input::Final) => {
                (State::Completed { until }, smallvec![])
            }
            (State::Completed { until }, Input::Timer) => {
                if until <= now {
                    (State::Terminated, smallvec![])
                } else {
                    (State::Completed { until }, smallvec![])
                }
            }
            // nothing of ours is under way
            (State::Completed { until }, Input::Broken) => (State::Completed { until }, smallvec![]),

            // over; a CANCEL stays in this state while its INVITE lives on
            (State::Terminated, Input::Provisional | Input::Final | Input::Timer | Input::Broken) => {
                (State::Terminated, smallvec![])
            }
        }
    }

    /// When [`Input::Timer`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            State::Trying { resend, give_up, .. } | State::Proceeding { resend, give_up, .. } => {
                earlier(resend.map(Backoff::at), Some(*give_up))
            }
            State::Completed { until } => Some(*until),
            State::Terminated => None,
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self, State::Terminated)
    }
}
