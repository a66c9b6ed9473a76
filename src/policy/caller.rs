//! Who calls, as far as it is known, and what follows from it: category and region, the number called, the branches of both
//! sides, and whether an office is open.

use jiff::tz::TimeZone;
use smallvec::SmallVec;

use super::{Ask, Why};
use crate::base::Wall;
use crate::directory::calendar::{Calendar, Hours};
use crate::directory::{Branch, Contact, Directory, E164, Extension, Label, Number, Region};

/// The category of a caller in no directory, or without one there.
pub(super) const UNKNOWN: &str = "unknown";

/// The two ends of a call, looked up once.
#[derive(Clone, Debug)]
pub(super) struct Ends<'a> {
    directory: &'a Directory,
    /// The caller's number; none where it is no number, or the caller is one of ours.
    pub caller: Option<E164>,
    /// The caller withholds the number.
    pub anonymous: bool,
    /// The caller is this extension of ours.
    pub extension: Option<&'a Extension>,
    /// The trunk that the call came by.
    pub trunk: Option<&'a Label>,
    /// The number of ours that was called.
    pub number: Option<&'a Number>,
    /// The caller's contact; of several the one changed last.
    pub contact: Option<Contact<'a>>,
    /// The caller's category.
    pub category: &'a str,
    /// The tags of the caller's contact.
    pub tags: SmallVec<[&'a str; 4]>,
    /// The region that the contact names, or the branch of an extension.
    own_region: Option<Region>,
    /// Regions of the caller's number, where nothing better is known.
    regions: &'a [Region],
}

impl<'a> Ends<'a> {
    pub fn of(ask: &'a Ask, directory: &'a Directory) -> Ends<'a> {
        let nobody = Ends {
            directory,
            caller: None,
            anonymous: false,
            extension: None,
            trunk: None,
            number: None,
            contact: None,
            category: UNKNOWN,
            tags: SmallVec::new(),
            own_region: None,
            regions: &[],
        };
        match ask {
            Ask::In { trunk, number, caller, anonymous } => {
                let contact = caller.and_then(|n| directory.contacts.best(n));
                let own_region =
                    contact.and_then(|c| c.region()).and_then(|r| Region::parse(r).or_else(|| Region::read(r)));
                let regions = caller.filter(|_| own_region.is_none()).map(|n| directory.numbering.place(n).regions);
                Ends {
                    caller: *caller,
                    anonymous: *anonymous,
                    trunk: Some(trunk),
                    number: directory.number(*number),
                    contact,
                    category: contact.and_then(|c| c.category()).unwrap_or(UNKNOWN),
                    tags: contact.iter().flat_map(|c| c.tags()).collect(),
                    own_region,
                    regions: regions.unwrap_or_default(),
                    ..nobody
                }
            }
            Ask::Operator { .. } => nobody,
            Ask::Dialled { extension, text } => {
                let extension = directory.extension(extension);
                let own = extension.and_then(|e| directory.branch(e.branch.as_deref()?));
                let inside = directory.extension(text).is_some();
                let number = E164::read(text, directory.node.country).filter(|_| !inside);
                Ends {
                    extension,
                    number: number.and_then(|n| directory.number(n)),
                    own_region: own.and_then(|b| b.region),
                    ..nobody
                }
            }
        }
    }

    /// The caller's regions: the contact's, else those of the number (a range may belong to several).
    pub fn regions(&self) -> impl Iterator<Item = Region> + use<'a> {
        self.own_region.into_iter().chain(self.regions.iter().copied())
    }

    /// The first of the caller's regions that is among these.
    pub fn region_among(&self, list: &[Region]) -> Option<Region> {
        self.regions().find(|r| list.contains(r))
    }

    /// The caller's manager, if that is an extension of ours.
    pub fn manager(&self) -> Option<&'a Extension> {
        self.directory.extension(self.contact?.manager()?)
    }

    /// The branch of the number called: its own, else the first with its region.
    pub fn called_branch(&self) -> Option<&'a Branch> {
        let number = self.number?;
        match &number.branch {
            Some(name) => self.directory.branch(name),
            None => self.in_region(number.region?),
        }
    }

    /// The zone in which a route's calendar is read: of the branch of the number called, else the node's.
    pub fn zone(&self) -> &'a TimeZone {
        self.called_branch().map_or(&self.directory.node.zone, |b| &b.zone)
    }

    /// The caller's branch, and why: an extension's own; of the contact's manager; with the caller's region; of the number
    /// called.
    pub fn branch(&self) -> Option<(&'a Branch, &'static str)> {
        let of = |extension: Option<&'a Extension>| self.directory.branch(extension?.branch.as_deref()?);
        let own = || Some((of(self.extension)?, "the caller's own branch"));
        let manager = || Some((of(self.manager())?, "the branch of the caller's manager"));
        let region = || Some((self.regions().find_map(|r| self.in_region(r))?, "the branch of the caller's region"));
        let called = || Some((self.called_branch()?, "the branch of the number called"));
        own().or_else(manager).or_else(region).or_else(called)
    }

    fn in_region(&self, region: Region) -> Option<&'a Branch> {
        self.directory.branches.iter().find(|b| b.region == Some(region))
    }

    /// What the trail says of the caller.
    pub fn told(&self) -> Why {
        let mut because = String::with_capacity(96);
        let mut say = |words: &[&str]| because.extend(words.iter().copied());
        match (self.extension, self.contact, self.caller) {
            (Some(extension), ..) => say(&["extension ", &extension.number, " (", &extension.name, ")"]),
            (None, Some(contact), _) => say(&[contact.name().unwrap_or("a contact"), ", category ", self.category]),
            (None, None, Some(_)) => say(&["in no directory, category ", UNKNOWN]),
            (None, None, None) => say(&["without a number, category ", UNKNOWN]),
        }
        if self.extension.is_none() && self.caller.is_some() {
            for (i, region) in self.regions().enumerate() {
                say(&[if i == 0 { ", region " } else { " or " }, region.code()]);
            }
            if self.regions().next().is_none() {
                say(&[", region not known"]);
            }
        }
        if let Some(manager) = self.contact.and_then(|c| c.manager()) {
            say(&[", manager ", manager]);
        }
        Why::new("caller", because)
    }
}

/// Whether something with these hours in this zone is open, and why; without hours it always is.
pub(super) fn open(hours: Option<&Calendar>, zone: &TimeZone, at: Wall) -> Result<String, String> {
    match hours.map(|calendar| calendar.at(at, zone)) {
        None => Ok("always open".to_owned()),
        Some((Hours::Open, because)) => Ok(because),
        Some((Hours::Closed | Hours::Holiday, because)) => Err(because),
    }
}
