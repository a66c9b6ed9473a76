//! The non-INVITE server transaction: RFC 3261 section 17.2.2. A pure value; [`Layer`](super::Layer) owns it and does what it says.
//!
//! One thing is added to the figure: a request that the user never answers is forgotten when the peer has given up (its Timer F);
//! answering later would be of no use (RFC 4320 section 4.2).
//!
//! ```text
//!                                 |Request received
//!                                 |pass to TU
//!                                 V
//!                           +-----------+
//!                           |           |
//!                           | Trying    |-------------+
//!                           |           |             |
//!                           +-----------+             |200-699 from TU
//!                                 |                   |send response
//!                                 |1xx from TU        |
//!                                 |send response      |
//!                                 |                   |
//!              Request            V      1xx from TU  |
//!              send response+-----------+send response|
//!                  +--------|           |--------+    |
//!                  |        | Proceeding|        |    |
//!                  +------->|           |<-------+    |
//!           +<--------------|           |             |
//!           |Trnsprt Err    +-----------+             |
//!           |Inform TU            |                   |
//!           |                     |                   |
//!           |                     |200-699 from TU    |
//!           |                     |send response      |
//!           |  Request            V                   |
//!           |  send response+-----------+             |
//!           |      +--------|           |             |
//!           |      |        | Completed |<------------+
//!           |      +------->|           |
//!           +<--------------|           |
//!           |Trnsprt Err    +-----------+
//!           |Inform TU            |
//!           |                     |Timer J fires
//!           |                     |-
//!           |                     |
//!           |                     V
//!           |               +-----------+
//!           |               |           |
//!           +-------------->| Terminated|
//!                           |           |
//!                           +-----------+
//! ```

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::timing::Pace;
use crate::base::Instant;

/// Where the transaction stands. The timers are fields of the states.
#[derive(Debug)]
pub enum State {
    /// The user works on it.
    Trying {
        /// When the peer has given up.
        forget: Instant,
    },
    /// Provisionally answered.
    Proceeding {
        /// The last provisional answer, repeated on demand.
        last: Bytes,
        /// When the peer has given up.
        forget: Instant,
    },
    /// Answered; the answer is repeated on demand.
    Completed {
        /// The answer.
        answer: Bytes,
        /// Timer J.
        until: Instant,
    },
    /// Over.
    Terminated,
}

/// What happens to the transaction.
#[derive(Debug)]
pub enum Input {
    /// The request again.
    Request,
    /// The user's 1xx.
    Provisional(Bytes),
    /// The user's 2xx to 6xx.
    Final(Bytes),
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
    /// Tell the user that nobody is there to be answered.
    Lost,
}

/// At most one thing comes of one input.
pub type Acts = SmallVec<[Act; 1]>;

impl State {
    /// The request has come.
    pub fn start(now: Instant, pace: Pace) -> State {
        State::Trying { forget: pace.f(now) }
    }

    /// One step.
    pub fn handle(self, now: Instant, pace: Pace, input: Input) -> (State, Acts) {
        match (self, input) {
            // there is no answer to repeat
            (State::Trying { forget }, Input::Request) => (State::Trying { forget }, smallvec![]),
            (State::Proceeding { last, forget }, Input::Request) => {
                let acts = smallvec![Act::Send(last.clone())];
                (State::Proceeding { last, forget }, acts)
            }
            (State::Trying { forget } | State::Proceeding { forget, .. }, Input::Provisional(answer)) => {
                let acts = smallvec![Act::Send(answer.clone())];
                (State::Proceeding { last: answer, forget }, acts)
            }
            (State::Trying { .. } | State::Proceeding { .. }, Input::Final(answer)) => match pace.j(now) {
                Some(until) => {
                    let acts = smallvec![Act::Send(answer.clone())];
                    (State::Completed { answer, until }, acts)
                }
                None => (State::Terminated, smallvec![Act::Send(answer)]),
            },
            (State::Trying { forget }, Input::Timer) => {
                (if forget <= now { State::Terminated } else { State::Trying { forget } }, smallvec![])
            }
            (State::Proceeding { last, forget }, Input::Timer) => {
                (if forget <= now { State::Terminated } else { State::Proceeding { last, forget } }, smallvec![])
            }
            (State::Trying { .. } | State::Proceeding { .. }, Input::Broken) => {
                (State::Terminated, smallvec![Act::Lost])
            }

            (State::Completed { answer, until }, Input::Request) => {
                let acts = smallvec![Act::Send(answer.clone())];
                (State::Completed { answer, until }, acts)
            }
            // there is one final answer, and it has been given
            (State::Completed { answer, until }, Input::Provisional(_) | Input::Final(_)) => {
                (State::Completed { answer, until }, smallvec![])
            }
            (State::Completed { answer, until }, Input::Timer) => {
                (if until <= now { State::Terminated } else { State::Completed { answer, until } }, smallvec![])
            }
            // the user is done with it; the peer may still ask again from elsewhere
            (State::Completed { answer, until }, Input::Broken) => (State::Completed { answer, until }, smallvec![]),

            // the layer drops the slot with this state
            (
                State::Terminated,
                Input::Request | Input::Provisional(_) | Input::Final(_) | Input::Timer | Input::Broken,
            ) => (State::Terminated, smallvec![]),
        }
    }

    /// When [`Input::Timer`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            State::Trying { forget } | State::Proceeding { forget, .. } => Some(*forget),
            State::Completed { until, .. } => Some(*until),
            State::Terminated => None,
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self, State::Terminated)
    }

    /// Whether no final answer was given yet.
    pub fn is_open(&self) -> bool {
        matches!(self, State::Trying { .. } | State::Proceeding { .. })
    }
}
