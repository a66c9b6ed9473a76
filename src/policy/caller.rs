//! Who calls, as far as it is known, and what follows from it: the number called, the branches of both sides.

use super::Ask;
use crate::directory::{Branch, Directory, E164, Extension, Label, Number, Region};

/// The two ends of a call, looked up once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'a> {
    directory: &'a Directory,
    /// The caller's number; none where it is withheld, none at all, or the caller is one of ours.
    pub caller: Option<E164>,
    /// The caller withholds the number.
    pub anonymous: bool,
    /// The caller is this extension of ours.
    pub extension: Option<&'a Extension>,
    /// The trunk that the call came by.
    pub trunk: Option<&'a Label>,
    /// The number of ours that was called.
    pub number: Option<&'a Number>,
}

impl<'a> Ends<'a> {
    pub fn of(ask: &'a Ask, directory: &'a Directory) -> Ends<'a> {
        match ask {
            Ask::In { trunk, number, caller, anonymous } => Ends {
                directory,
                caller: *caller,
                anonymous: *anonymous,
                extension: None,
                trunk: Some(trunk),
                number: directory.number(*number),
            },
            Ask::Dialled { extension, text } => {
                let read = || E164::read(text, directory.node.country).and_then(|n| directory.number(n));
                Ends {
                    directory,
                    caller: None,
                    anonymous: false,
                    extension: directory.extension(extension),
                    trunk: None,
                    number: if directory.extension(text).is_some() { None } else { read() },
                }
            }
        }
    }

    /// The branch of the number called: its own, else the first with its region.
    pub fn called_branch(&self) -> Option<&'a Branch> {
        let number = self.number?;
        match &number.branch {
            Some(name) => self.directory.branch(name),
            None => self.in_region(number.region?),
        }
    }

    /// The caller's branch, and why: an extension's own, else that of the number called.
    pub fn branch(&self) -> Option<(&'a Branch, &'static str)> {
        let own = self.extension.and_then(|e| self.directory.branch(e.branch.as_deref()?));
        own.map(|b| (b, "the caller's own branch"))
            .or_else(|| self.called_branch().map(|b| (b, "the branch of the number called")))
    }

    fn in_region(&self, region: Region) -> Option<&'a Branch> {
        self.directory.branches.iter().find(|b| b.region == Some(region))
    }
}
