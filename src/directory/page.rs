//! `[[page]]`: an announcement over loudspeakers, and who may open somebody's loudspeaker or microphone. Only the operator's
//! words; `policy` reads them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Directory, Extension, Label};

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// What is dialled.
    pub number: Label,
    /// Name.
    pub name: Label,
    /// Who hears it, in file order.
    pub members: Vec<Member>,
    /// Loudspeakers and phones can be talked back from; groups of listeners cannot.
    pub talkback: bool,
    /// It lasts so long at most.
    pub max: Duration,
    /// Two tones come first.
    pub chime: bool,
    /// It takes over phones that are in a page or a call.
    pub emergency: bool,
    /// Who may speak it.
    pub allow: Vec<People>,
}

impl Page {
    /// A page with the defaults of the configuration: one way, 2 minutes at most, with a chime, and nobody may speak it.
    pub fn new(number: &str, members: Vec<Member>) -> Page {
        Page {
            number: number.into(),
            name: number.into(),
            members,
            talkback: false,
            max: Duration::from_secs(120),
            chime: true,
            emergency: false,
            allow: Vec::new(),
        }
    }
}

/// A member of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Member {
    /// A loudspeaker or phone.
    Extension(Label),
    /// All of a group (in that branch), loudspeakers too.
    Group(Label, Option<Label>),
    /// All members of another page.
    Page(Label),
    /// Whoever listens to plain RTP sent to this group.
    Multicast(SocketAddr),
    /// Polycom phones that listen to this group.
    Polycom {
        /// The group.
        group: SocketAddr,
        /// Channel, 1 to 50.
        channel: u8,
    },
}

/// People of the company, as `allow` and `intercom_from` name them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum People {
    /// One of them.
    Extension(Label),
    /// All of a group (in that branch).
    Group(Label, Option<Label>),
    /// The agents of a queue.
    Queue(Label),
    /// All of an office.
    Branch(Label),
}

impl People {
    /// Whether the extension is among them.
    pub fn include(&self, directory: &Directory, extension: &Extension) -> bool {
        match self {
            People::Extension(number) => extension.number == *number,
            People::Group(group, branch) => extension.is_in(group, branch.as_deref()),
            People::Queue(name) => directory.queue(name).is_some_and(|q| q.agents.contains(&extension.number)),
            People::Branch(name) => extension.branch.as_ref() == Some(name),
        }
    }
}

impl fmt::Display for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            People::Extension(number) => write!(f, "extension:{number}"),
            People::Group(group, None) => write!(f, "group:{group}"),
            People::Group(group, Some(branch)) => write!(f, "group:{group}@{branch}"),
            People::Queue(name) => write!(f, "queue:{name}"),
            People::Branch(name) => write!(f, "branch:{name}"),
        }
    }
}

impl Extension {
    /// Whether it belongs to a group (and to that branch).
    pub fn is_in(&self, group: &str, branch: Option<&str>) -> bool {
        self.groups.iter().any(|g| **g == *group) && branch.is_none_or(|b| self.branch.as_deref() == Some(b))
    }

    /// Why `caller` may have this phone answer by itself; none: it may not. Without `intercom_from` its own groups may.
    pub fn lets_in(&self, directory: &Directory, caller: &Extension) -> Option<String> {
        match &self.intercom_from {
            Some(people) => people.iter().find(|p| p.include(directory, caller)).map(People::to_string),
            None => self.groups.iter().find(|g| caller.is_in(g, None)).map(|group| format!("group:{group}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Node, Queue};

    #[test]
    fn who_is_let_in() {
        let mut directory = Directory::empty(Node::new("lab", "lab.example"));
        directory.queues.push(Queue::new("sales", vec!["123".into()]));
        let directory = directory.indexed();
        let extension = |number: &str, groups: &[&str], branch: &str| Extension {
            groups: groups.iter().map(|g| Label::from(*g)).collect(),
            branch: Some(branch.into()),
            ..Extension::new(number, number, "-")
        };
        let (anna, boris, vera) = (
            extension("121", &["sales"], "ekb"),
            extension("122", &["sales", "foremen"], "ekb"),
            extension("123", &[], "nsk"),
        );
        let lets = |people: Option<Vec<People>>, caller| {
            Extension { intercom_from: people, ..anna.clone() }.lets_in(&directory, caller)
        };
        for (people, caller, want) in [
            (None, &boris, Some("group:sales")),
            (None, &vera, None),
            (Some(vec![]), &boris, None),
            (Some(vec![People::Extension("122".into())]), &boris, Some("extension:122")),
            (Some(vec![People::Group("foremen".into(), None)]), &boris, Some("group:foremen")),
            (Some(vec![People::Group("foremen".into(), Some("nsk".into()))]), &boris, None),
            (Some(vec![People::Queue("sales".into())]), &vera, Some("queue:sales")),
            (Some(vec![People::Branch("nsk".into())]), &vera, Some("branch:nsk")),
            (Some(vec![People::Branch("nsk".into())]), &boris, None),
        ] {
            assert_eq!(lets(people.clone(), caller).as_deref(), want, "{people:?} {}", caller.number);
        }
    }
}
