//! Where a phone sends a call on to with a 3xx. Whoever has the phone in hand (or has broken into it) gets no further than by
//! dialling: extensions and names of this company, and outside numbers of the extension's own class. Other hosts, emergency
//! numbers and whatever cannot be read are not followed, and the trail says why.

use super::rule::dialled;
use super::{Ask, Stage, Why};
use crate::base::Wall;
use crate::directory::{Directory, Label, Target};

/// Phones whose 3xx is followed in one call.
pub const MAX_DIVERSIONS: usize = 5;
/// Contacts of one 3xx that are looked at.
pub const MAX_CONTACTS: usize = 4;

/// A Contact of a phone's 3xx.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contact {
    /// A user at this company, or a telephone number: as if it had been dialled.
    Dialled(String),
    /// Somebody at that host, which is not ours.
    Elsewhere(String),
    /// No URI that a call could go to.
    Unreadable,
}

/// The stages that come in the place of an extension whose phone sent the call on, in the order of `contacts`. `from` is the
/// stage that rang it.
pub fn divert(
    ask: &Ask,
    directory: &Directory,
    at: Wall,
    extension: &Label,
    from: &Stage,
    contacts: &[Contact],
    why: &mut Vec<Why>,
) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for (i, contact) in contacts.iter().enumerate() {
        let (to, found) = match contact {
            _ if i >= MAX_CONTACTS => ("", Err(format!("only {MAX_CONTACTS} contacts are looked at"))),
            Contact::Dialled(text) => (text.as_str(), leads(ask, directory, at, extension, text)),
            Contact::Elsewhere(host) => ("", Err(format!("{host} is not this company"))),
            Contact::Unreadable => ("", Err("no contact that a call could go to".to_owned())),
        };
        let to = if to.is_empty() { String::new() } else { format!(" to {to}") };
        let because = match found {
            Ok((found, because)) => {
                stages.extend(found.into_iter().map(|stage| sent_on(stage, extension, from)));
                format!("followed: {because}")
            }
            Err(because) => format!("not followed: {because}"),
        };
        why.push(Why::new(format!("302 of {extension}{to}"), because));
        if i >= MAX_CONTACTS {
            break;
        }
    }
    stages
}

fn leads(
    ask: &Ask,
    directory: &Directory,
    at: Wall,
    extension: &Label,
    text: &str,
) -> Result<(Vec<Stage>, String), String> {
    let mut plan = dialled(ask, directory, extension, text, at);
    let because = plan.why.pop().map(|why| why.because).unwrap_or_default();
    // Nobody opens somebody else's phone, or speaks in the shop, by having a phone send the call there.
    if plan.stages.iter().any(|stage| stage.intercom || matches!(stage.target, Target::Page(_))) {
        return Err("announcements and intercom are for who dials them".to_owned());
    }
    match plan.stages.first().map(|stage| &stage.target) {
        None => Err(because),
        // Phones that forward by themselves would ring rescuers with somebody else's call.
        Some(Target::Emergency(_)) => Err("an emergency number is only ever dialled".to_owned()),
        Some(Target::Extension(own)) if own == extension => Err("it is its own number".to_owned()),
        Some(Target::Extension(caller)) if matches!(ask, Ask::Dialled { extension, .. } if extension == caller) => {
            Err("it is who calls".to_owned())
        }
        Some(_) => Ok((plan.stages, because)),
    }
}

/// A stage as the call goes on to it: it rings as long as the one before would have, and is held to the same.
fn sent_on(stage: Stage, extension: &Label, from: &Stage) -> Stage {
    let ring = match stage.target {
        Target::Extension(_) | Target::Number(_) => from.ring,
        _ => stage.ring,
    };
    Stage {
        ring,
        confirm: stage.confirm.or(from.confirm),
        caller_name: stage.caller_name.or_else(|| from.caller_name.clone()),
        record: stage.record.or(from.record),
        by: Some(extension.clone()),
        ..stage
    }
}
