//! `[[hook]]`: a program of the company's that decides where a call goes, asked over HTTP while the caller hears ringing.

use std::time::Duration;

use super::{Label, Secret, Step};

/// A hook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name, as in `hook:crm`.
    pub name: Label,
    /// Where it is asked: `http` or `https`.
    pub url: Label,
    /// How long the answer may take, the connection included; then the next step.
    pub timeout: Duration,
    /// In whose words it is asked and answers.
    pub shape: Shape,
    /// How long an answer for the same caller and number is taken from memory; zero: never.
    pub cache: Duration,
    /// Questions under way at once; one more goes on to the next step.
    pub concurrent: u32,
}

/// The words of a question and its answer.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Our own: POST of JSON, `{to: [step…]}` or 204.
    Strowger,
    /// Sipuni's node "HTTP request": GET with `fromnum`, `tonum`, `label`, `time`; the answer picks one of two branches.
    Sipuni {
        /// Sent as `label`.
        label: Label,
        /// Which part of the answer decides (a JSON pointer, RFC 6901).
        pick: Label,
        /// What stands there for the first branch; anything else is the second.
        is: Label,
        /// Steps of the first branch.
        first: Vec<Step>,
        /// Steps of the second.
        second: Vec<Step>,
    },
    /// MTS Exolve's forwarding to a URL: JSON-RPC `getControlCallFollowMe`.
    Exolve,
    /// Zadarma's and Novofon's `NOTIFY_START`: POST of a form, signed with the secret if there is one.
    Zadarma {
        /// API secret for the `Signature` header.
        secret: Option<Secret>,
    },
}

impl Hook {
    /// A hook that speaks our own words, with the defaults of the configuration.
    pub fn new(name: &str, url: &str) -> Hook {
        Hook {
            name: name.into(),
            url: url.into(),
            timeout: Duration::from_millis(300),
            shape: Shape::Strowger,
            cache: Duration::ZERO,
            concurrent: 32,
        }
    }
}
