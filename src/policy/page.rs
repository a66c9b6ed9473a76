//! Who hears a page, and who may speak one; who may have a phone answer by itself. Pages may have pages as members: every
//! member hears it once, however often it is named.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::fork::Hindrance;
use super::{Ask, Live, Moment};
use crate::directory::{Directory, Extension, Label, Member, Page, People};

/// A loudspeaker answers within so long, or the page goes on without it.
pub const DIAL: Duration = Duration::from_secs(5);
/// Members of one page at most, those of its pages included.
pub const MAX_MEMBERS: usize = 200;

/// Members of a page at this moment.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Members {
    /// Loudspeakers and phones to be dialled, in order.
    pub speakers: Vec<Speaker>,
    /// Groups to be sent to.
    pub zones: Vec<Zone>,
    /// Who is left out.
    pub left_out: Vec<LeftOut>,
}

/// A loudspeaker or phone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Speaker {
    /// Its extension.
    pub extension: Label,
    /// It is in a call, which has to end first.
    pub takes_over: bool,
}

/// A multicast group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// Plain RTP.
    Rtp(SocketAddr),
    /// In Polycom's framing.
    Polycom {
        /// The group.
        group: SocketAddr,
        /// Channel.
        channel: u8,
    },
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Rtp(group) => write!(f, "multicast:{group}"),
            Zone::Polycom { group, channel } => write!(f, "polycom:{group}/{channel}"),
        }
    }
}

/// A member that does not hear it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Who.
    pub extension: Label,
    /// The status that says so.
    pub status: u16,
    /// In words.
    pub because: &'static str,
}

/// Who hears the page now, who does not, and why.
pub fn members(page: &Page, moment: &Moment<'_>) -> Members {
    let mut found = Members::default();
    let mut pages: Vec<Label> = Vec::new();
    let mut seen: Vec<Label> = Vec::new();
    let mut ahead = vec![page];
    while let Some(next) = ahead.pop() {
        if pages.contains(&next.number) {
            continue;
        }
        pages.push(next.number.clone());
        let mut within = Vec::new();
        for member in &next.members {
            match member {
                Member::Page(number) => within.extend(moment.directory.page(number)),
                Member::Multicast(group) => found.zone(Zone::Rtp(*group)),
                Member::Polycom { group, channel } => found.zone(Zone::Polycom { group: *group, channel: *channel }),
                Member::Extension(number) => {
                    let extension = moment.directory.extension(number);
                    extension.into_iter().for_each(|e| found.speaker(page, e, moment, &mut seen));
                }
                Member::Group(group, branch) => {
                    let all = moment.directory.extensions.iter().filter(|e| e.is_in(group, branch.as_deref()));
                    all.for_each(|e| found.speaker(page, e, moment, &mut seen));
                }
            }
        }
        ahead.extend(within.into_iter().rev());
    }
    found
}

impl Members {
    /// Nobody would hear it.
    pub fn is_empty(&self) -> bool {
        self.speakers.is_empty() && self.zones.is_empty()
    }

    fn zone(&mut self, zone: Zone) {
        if !self.zones.contains(&zone) && self.speakers.len() + self.zones.len() < MAX_MEMBERS {
            self.zones.push(zone);
        }
    }

    fn speaker(&mut self, page: &Page, extension: &Extension, moment: &Moment<'_>, seen: &mut Vec<Label>) {
        if seen.contains(&extension.number) {
            return;
        }
        seen.push(extension.number.clone());
        let full = self.speakers.len() + self.zones.len() >= MAX_MEMBERS;
        match hears(page, extension, moment) {
            Ok(_) if full => self.leave_out(extension, 503, "the page has too many members"),
            Ok(takes_over) => self.speakers.push(Speaker { extension: extension.number.clone(), takes_over }),
            Err(Hindrance { status, because, .. }) => self.leave_out(extension, status, because),
        }
    }

    fn leave_out(&mut self, extension: &Extension, status: u16, because: &'static str) {
        self.left_out.push(LeftOut { extension: extension.number.clone(), status, because });
    }
}

/// Whether a phone hears the page; and whether a call of its has to end for that.
fn hears(page: &Page, extension: &Extension, moment: &Moment<'_>) -> Result<bool, Hindrance> {
    let Moment { ask, directory, live, .. } = *moment;
    let not = |status, because| Err(Hindrance { status, because, passes: false });
    let speaker = match ask {
        Ask::Dialled { extension, .. } => directory.extension(extension),
        Ask::In { .. } | Ask::Operator { .. } => None,
    };
    let let_in = match ask {
        // The operator may have any phone play something: it hears nothing of it.
        Ask::Operator { .. } => true,
        Ask::Dialled { .. } => speaker.is_some_and(|speaker| extension.lets_in(directory, speaker).is_some()),
        Ask::In { .. } => false,
    };
    let busy = live.calls(&extension.number) > 0;
    match () {
        () if speaker.is_some_and(|s| s.number == extension.number) => not(482, "it speaks itself"),
        () if !extension.paging && !let_in => not(403, "it does not let the caller in (intercom_from)"),
        () if live.bindings(&extension.number) == 0 => not(480, "not registered"),
        // A loudspeaker sounds an emergency whatever it was told.
        () if live.agent(&extension.number).do_not_disturb && !(page.emergency && extension.paging) => {
            not(480, "do not disturb")
        }
        () if busy && !page.emergency => not(486, "busy"),
        () => Ok(busy),
    }
}

/// Why an extension may speak the page; none: it may not.
pub(super) fn may_speak(page: &Page, directory: &Directory, caller: &Extension) -> Option<String> {
    page.allow.iter().find(|p| p.include(directory, caller)).map(People::to_string)
}

/// Whether a phone can be talked into at once.
pub(super) fn intercom(extension: &Extension, live: &dyn Live) -> Result<(), Hindrance> {
    let passes = |status, because| Err(Hindrance { status, because, passes: true });
    match () {
        () if live.agent(&extension.number).do_not_disturb => passes(480, "do not disturb"),
        () if live.bindings(&extension.number) == 0 => passes(480, "not registered"),
        () if live.calls(&extension.number) > 0 => passes(486, "busy"),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Wall;
    use crate::directory::Node;
    use crate::policy::queue::Agent;

    /// What is so: registered, in a call, not to be disturbed.
    #[derive(Default)]
    struct So {
        away: Vec<&'static str>,
        busy: Vec<&'static str>,
        dnd: Vec<&'static str>,
    }

    impl Live for So {
        fn bindings(&self, extension: &str) -> usize {
            usize::from(!self.away.contains(&extension))
        }
        fn calls(&self, extension: &str) -> u32 {
            u32::from(self.busy.contains(&extension))
        }
        fn trunk_up(&self, _: &str) -> bool {
            true
        }
        fn trunk_calls(&self, _: &str) -> u32 {
            0
        }
        fn agent(&self, extension: &str) -> Agent {
            Agent { do_not_disturb: self.dnd.contains(&extension), ..Agent::default() }
        }
    }

    fn company() -> Directory {
        let mut directory = Directory::empty(Node::new("lab", "lab.example"));
        for (number, paging) in [("121", false), ("122", false), ("123", false), ("601", true), ("602", true)] {
            let groups = if number == "123" { vec![] } else { vec!["floor".into()] };
            directory.extensions.push(Extension { paging, groups, ..Extension::new(number, number, "-") });
        }
        let multicast = Member::Multicast(SocketAddr::from(([239, 255, 70, 0], 10_000)));
        let group = Member::Group("floor".into(), None);
        let extension = |number: &str| Member::Extension(number.into());
        let page = |number: &str| Member::Page(number.into());
        directory.pages = vec![
            Page::new("700", vec![extension("602"), extension("601"), extension("123")]),
            Page {
                emergency: true,
                ..Page::new("799", vec![page("700"), multicast.clone(), extension("601"), page("799")])
            },
            Page::new("701", vec![group, page("702"), multicast]),
            Page::new("702", vec![page("701"), extension("601")]),
        ];
        directory.indexed()
    }

    /// `speakers +zones -left out: why`, those taken over with `!`.
    fn told(number: &str, ask: &Ask, so: &So) -> String {
        let directory = company();
        let moment =
            Moment { ask, directory: &directory, live: so, at: Wall::default(), tried: &[], spent: &[], rung: &[] };
        let found = members(directory.page(number).expect("it is there"), &moment);
        let speaker = |s: &Speaker| format!("{}{}", s.extension, if s.takes_over { "!" } else { "" });
        let mut words: Vec<String> = found.speakers.iter().map(speaker).collect();
        words.extend(found.zones.iter().map(|_| "+zone".to_owned()));
        words.extend(found.left_out.iter().map(|l| format!("-{}: {}", l.extension, l.because)));
        words.join(" ")
    }

    #[test]
    fn who_hears_a_page() {
        let by = |extension: &str| Ask::Dialled { extension: extension.into(), text: "700".into() };
        let outside = Ask::In {
            trunk: "t".into(),
            number: "+73430000001".parse().expect("E.164"),
            caller: None,
            anonymous: true,
        };
        let operator = Ask::Operator { page: "700".into() };
        let closed = "-123: it does not let the caller in (intercom_from)";
        for (page, ask, so, want) in [
            ("700", by("121"), So::default(), format!("602 601 {closed}")),
            ("700", operator.clone(), So::default(), "602 601 123".to_owned()),
            ("700", outside, So::default(), format!("602 601 {closed}")),
            ("700", by("601"), So::default(), format!("602 -601: it speaks itself {closed}")),
            ("700", by("121"), So { busy: vec!["602"], ..So::default() }, format!("601 -602: busy {closed}")),
            ("700", by("121"), So { away: vec!["601"], ..So::default() }, format!("602 -601: not registered {closed}")),
            ("700", by("121"), So { dnd: vec!["601"], ..So::default() }, format!("602 -601: do not disturb {closed}")),
            // A page in a page, itself, and one member twice.
            (
                "799",
                by("121"),
                So { busy: vec!["602"], dnd: vec!["601"], ..So::default() },
                format!("601 602! +zone {closed}"),
            ),
            (
                "799",
                operator,
                So { dnd: vec!["123"], ..So::default() },
                "601 602 +zone -123: do not disturb".to_owned(),
            ),
            // Two pages that name each other; groups with their loudspeakers.
            ("701", by("121"), So::default(), "122 601 602 +zone -121: it speaks itself".to_owned()),
            ("702", by("121"), So::default(), "601 122 602 +zone -121: it speaks itself".to_owned()),
        ] {
            assert_eq!(told(page, &ask, &so), want, "{page} {ask:?}");
        }
    }
}
