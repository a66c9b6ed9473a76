//! Targets as the operator writes them: `extension:121`, `group:foremen@ekb`, `reject:486`. Grammar only; whether the thing
//! exists is `walk`'s business.

use std::net::SocketAddr;
use std::ops::Range;

use super::problem::suggest;
use super::schema::{Named, Targets};
use super::value;
use crate::directory::E164;

/// A target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// `extension:121`, `queue:sales`, …: a thing with a name; `group:foremen@ekb` with the branch.
    Named(Named, &'a str, Option<&'a str>),
    /// `manager`.
    Manager,
    /// `branch:open`.
    OpenBranch,
    /// `dealer:nearest`.
    NearestDealer,
    /// `number:+7912…`.
    Number(E164),
    /// `play:closed.wav`.
    Play(&'a str),
    /// `reject:486`.
    Reject(u16),
    /// `multicast:239.255.70.0:10000`.
    Multicast(SocketAddr),
    /// `polycom:224.0.1.116:5001/25`: the group and the channel.
    Polycom(SocketAddr, u8),
}

/// What is wrong with a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Which bytes of it.
    pub range: Range<usize>,
    /// What, in words.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// Of a Polycom group that names none: the first of those for announcements, to which phones listen unless told otherwise.
const POLYCOM_CHANNEL: u8 = 26;

const KINDS: [&str; 13] = [
    "extension",
    "queue",
    "group",
    "manager",
    "branch",
    "dealer",
    "duty",
    "number",
    "hook",
    "page",
    "play",
    "reject",
    "multicast",
];

impl<'a> Parsed<'a> {
    /// Reads a target.
    pub fn read(text: &'a str) -> Result<Parsed<'a>, Wrong> {
        let whole = 0..text.len();
        if text == "manager" {
            return Ok(Parsed::Manager);
        }
        let Some((kind, argument)) = text.split_once(':') else {
            let example = "a target is written as kind:name, e.g. `extension:121` or `queue:sales`";
            let help = match super::problem::alike(text, ["manager"]) {
                Some(_) => "did you mean `manager`?".to_owned(),
                None if KINDS.contains(&text) => format!("a name is missing: `{text}:…`"),
                None => example.to_owned(),
            };
            return Err(Wrong { range: whole, what: format!("`{text}` is not a target"), help });
        };
        let at = kind.len() + 1;
        let rest = at..text.len();
        let bad = |what: String, help: &str| Wrong { range: rest.clone(), what, help: help.to_owned() };
        if argument.is_empty() {
            return Err(Wrong {
                range: whole,
                what: format!("`{text}` has no name"),
                help: format!("write `{kind}:` and what is meant"),
            });
        }
        Ok(match kind {
            "extension" => Parsed::Named(Named::Extension, argument, None),
            "queue" => Parsed::Named(Named::Queue, argument, None),
            "group" => match argument.split_once('@') {
                Some((group, branch)) => Parsed::Named(Named::Group, group, Some(branch)),
                None => Parsed::Named(Named::Group, argument, None),
            },
            "branch" if argument == "open" => Parsed::OpenBranch,
            "branch" => Parsed::Named(Named::Branch, argument, None),
            "dealer" if argument == "nearest" => Parsed::NearestDealer,
            "dealer" => Parsed::Named(Named::Dealer, argument, None),
            "duty" => Parsed::Named(Named::Duty, argument, None),
            "hook" => Parsed::Named(Named::Hook, argument, None),
            "page" => Parsed::Named(Named::Page, argument, None),
            "number" => match value::e164(argument) {
                Ok(number) => Parsed::Number(number),
                Err(wrong) => {
                    return Err(bad(
                        format!("`{argument}` {wrong}"),
                        "write it with + and the country code: `number:+79120000101`",
                    ));
                }
            },
            "reject" => match argument.parse::<u16>() {
                Ok(status) if (400..=699).contains(&status) => Parsed::Reject(status),
                _ => {
                    return Err(bad(
                        format!("`{argument}` is not a status that refuses"),
                        "write 400 to 699, e.g. `reject:486` (busy) or `reject:603` (declined)",
                    ));
                }
            },
            "play" if argument.bytes().any(|b| b < b' ') => {
                return Err(bad(format!("{argument:?} is not a file"), "name a WAV file"));
            }
            "play" => Parsed::Play(argument),
            "multicast" | "polycom" => {
                let address = argument.split('/').next().unwrap_or_default();
                let multicast = value::address(address).ok().filter(|a| a.ip().is_multicast());
                let channel = match argument.split_once('/') {
                    Some((_, channel)) => channel.parse::<u8>().ok().filter(|c| (1..=50).contains(c)),
                    None => Some(POLYCOM_CHANNEL),
                };
                match (multicast, channel) {
                    (Some(group), Some(_)) if kind == "multicast" && !argument.contains('/') => {
                        Parsed::Multicast(group)
                    }
                    (Some(group), Some(channel)) if kind == "polycom" => Parsed::Polycom(group, channel),
                    _ => {
                        return Err(bad(
                            format!("`{argument}` is not a multicast address with a port"),
                            "write e.g. `multicast:239.255.70.0:10000` or `polycom:224.0.1.116:5001/25`",
                        ));
                    }
                }
            }
            _ => {
                let help = suggest(kind, KINDS, "");
                return Err(Wrong { range: 0..kind.len(), what: format!("`{kind}` is not a kind of target"), help });
            }
        })
    }

    /// Why it must not stand at such a place.
    pub fn misplaced(&self, place: Targets) -> Option<&'static str> {
        let (allowed, words) = match place {
            Targets::Step => (
                !matches!(self, Parsed::Multicast(_) | Parsed::Polycom(..)),
                "a call cannot be sent there; it belongs into `members` of a page",
            ),
            Targets::Agent => (
                matches!(self, Parsed::Named(Named::Extension | Named::Group, ..) | Parsed::Number(_)),
                "only extension:, group: and number: can answer a queue",
            ),
            Targets::Member => (
                matches!(
                    self,
                    Parsed::Named(Named::Extension | Named::Group | Named::Page, ..)
                        | Parsed::Multicast(_)
                        | Parsed::Polycom(..)
                ),
                "only extension:, group:, page:, multicast: and polycom: can hear a page",
            ),
            Targets::People => (
                matches!(self, Parsed::Named(Named::Extension | Named::Group | Named::Queue | Named::Branch, ..)),
                "only extension:, group:, queue: and branch: are people",
            ),
        };
        (!allowed).then_some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let group = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        for (text, want) in [
            ("extension:121", Some(Parsed::Named(Named::Extension, "121", None))),
            ("group:foremen@ekb", Some(Parsed::Named(Named::Group, "foremen", Some("ekb")))),
            ("manager", Some(Parsed::Manager)),
            ("branch:open", Some(Parsed::OpenBranch)),
            ("reject:486", Some(Parsed::Reject(486))),
            ("multicast:239.255.70.0:10000", Some(Parsed::Multicast(group([239, 255, 70, 0], 10_000)))),
            ("polycom:224.0.1.116:5001/25", Some(Parsed::Polycom(group([224, 0, 1, 116], 5001), 25))),
            ("polycom:224.0.1.116:5001", Some(Parsed::Polycom(group([224, 0, 1, 116], 5001), 26))),
            ("polycom:224.0.1.116:5001/51", None),
            ("multicast:239.255.70.0:10000/1", None),
            ("reject:200", None),
            ("number:89131234567", None),
            ("multicast:10.0.0.1:5000", None),
            ("queue", None),
            ("queue:", None),
            ("teleport:x", None),
            ("", None),
        ] {
            assert_eq!(Parsed::read(text).ok(), want, "{text}");
        }
    }
}
