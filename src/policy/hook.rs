//! What a routing hook is asked and what it may answer (INTERFACE, "Routing hook"). Asking is `io`'s business, waiting the
//! call's; here are only the words.

use crate::base::Wall;
use crate::directory::{Label, Step};

/// Steps of an answer that are taken; the rest is not looked at.
pub const MAX_STEPS: usize = 16;
/// Tags of an answer that are taken.
pub const MAX_TAGS: usize = 16;
/// Bytes of a name, tag or address in an answer.
pub const MAX_TEXT: usize = 500;

/// What a hook is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The call record's id.
    pub call: String,
    /// The caller's number, E.164 where it is one; none if it is withheld.
    pub caller: Option<String>,
    /// What was called.
    pub called: String,
    /// Campaign of the number called.
    pub campaign: Option<String>,
    /// The caller's category.
    pub category: Option<String>,
    /// The caller's region, ISO 3166-2.
    pub region: Option<String>,
    /// The caller withholds the number.
    pub anonymous: bool,
    /// Now.
    pub at: Wall,
}

/// What a hook answered.
#[derive(Clone, Default, Debug)]
pub struct Answer {
    /// Where the call goes first; the steps that follow the hook come after these.
    pub to: Vec<Step>,
    /// Shown to whoever is rung.
    pub caller_name: Option<Label>,
    /// For the record.
    pub tags: Vec<(Label, Label)>,
    /// The customer's card, for the record's tag `card_url`.
    pub card_url: Option<Label>,
    /// Whether the call is recorded, if it says so.
    pub record: Option<bool>,
}

/// What came of asking: an answer, "go on", or why there is none.
pub type Outcome = Result<Option<Answer>, String>;
