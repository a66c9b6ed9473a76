//! What an outgoing INVITE says: who calls, as whom, through which trunk, and who forwarded. It sends nothing.

use std::fmt;

use bytes::Bytes;

use super::super::{Cx, Place};
use crate::dialog::refresh::{self, Wish};
use crate::directory::vendor::AutoAnswer;
use crate::directory::{CallerIdForm, E164, Label, NumberFormat, Secret};
use crate::policy::Way;
use crate::sip::Name;

/// From of a caller who wants to be anonymous (RFC 3323 4.1.1.3).
const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A phone of this extension.
    Extension(Label),
    /// Somebody behind a trunk.
    Trunk {
        /// Which trunk.
        trunk: Label,
        /// Their number, as written on the trunk.
        number: Label,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Extension(number) => write!(f, "extension:{number}"),
            Peer::Trunk { number, .. } => write!(f, "number:{number}"),
        }
    }
}

/// Who calls, as the other side is told.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// Name.
    pub name: Option<String>,
    /// Number: E.164 or an extension.
    pub user: String,
    /// The caller wants to be anonymous.
    pub hidden: bool,
    /// The call came to this number of ours, and is forwarded where it goes out again.
    pub diverted: Option<Diverted>,
}

/// A number that forwards a call, told to the carrier (RFC 5806, RFC 7044).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diverted {
    /// The number.
    pub by: E164,
    /// Somebody rang before and did not answer.
    pub unanswered: bool,
}

impl Identity {
    /// With words before the name, or before the number where there is no name.
    pub fn shown_as(&self, before: Option<&str>) -> Identity {
        let name = before.map(|before| format!("{before}: {}", self.name.as_deref().unwrap_or(&self.user)));
        Identity { name: name.or_else(|| self.name.clone()), ..self.clone() }
    }
}

/// What an outgoing INVITE is made of; kept until its final answer, because it may have to be sent again.
#[derive(Debug)]
pub struct Dial {
    pub(super) place: Place,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) identity: Vec<(Name, String)>,
    pub(super) max_forwards: u8,
    pub(super) body: Option<Bytes>,
    pub(super) credentials: Option<Credentials>,
    /// If it says nothing at all, somebody else is tried.
    pub(super) impatient: bool,
    /// What it asks of the session's interval.
    pub(super) wish: Wish,
    /// Refreshing is our work, whatever the peer can do.
    pub(super) refreshes: bool,
}

/// User and password.
pub(super) type Credentials = Box<(Label, Secret)>;

impl Dial {
    /// For a place on a way. `impatient`: silence for [`SILENT_TRUNK`] is an answer.
    pub fn new(
        cx: &Cx<'_>,
        way: &Way,
        place: Place,
        caller: &Identity,
        max_forwards: u8,
        body: Option<Bytes>,
        impatient: bool,
    ) -> Dial {
        let directory = cx.directory;
        let domain = match directory.node.domains.first() {
            Some(domain) => domain.clone(),
            None => Label::from(place.flow.local.ip().to_string()),
        };
        match way {
            Way::Extension(number) => {
                let from = match caller.hidden {
                    true => ANONYMOUS.to_owned(),
                    false => address(caller.name.as_deref(), &caller.user, &domain),
                };
                let to = ["<sip:", number, "@", &domain, ">"].concat();
                let (identity, credentials, wish, refreshes) = (Vec::new(), None, Wish::default(), false);
                Dial { place, from, to, identity, max_forwards, body, credentials, impatient, wish, refreshes }
            }
            Way::Trunk { trunk, shown, .. } => {
                let trunk = directory.trunk(trunk);
                let user = match (trunk, shown) {
                    (Some(trunk), Some(shown)) => shown.written(trunk.number_format, directory.node.country),
                    _ => caller.user.clone(),
                };
                let own = format!("<sip:{user}@{domain}>");
                let from = if caller.hidden { ANONYMOUS.to_owned() } else { own.clone() };
                let form = trunk.map_or(CallerIdForm::From, |t| t.caller_id);
                let privacy = if caller.hidden { "full" } else { "off" };
                let mut identity = match form {
                    CallerIdForm::From => Vec::new(),
                    CallerIdForm::PAssertedIdentity => vec![(Name::PAssertedIdentity, own.clone())],
                    CallerIdForm::RemotePartyId => {
                        vec![(Name::RemotePartyId, format!("{own};party=calling;screen=yes;privacy={privacy}"))]
                    }
                };
                if caller.hidden {
                    identity.push((Name::Privacy, "id".to_owned()));
                }
                if let Some(diverted) = &caller.diverted {
                    let format = trunk.map_or(NumberFormat::E164, |t| t.number_format);
                    let by = diverted.by.written(format, directory.node.country);
                    identity.extend(diverted.headers(&format!("sip:{by}@{domain}"), &place.uri));
                }
                let credentials = trunk.and_then(|t| Some(Box::new((t.username.clone()?, t.password.clone()?))));
                let to = format!("<{}>", place.uri);
                let (wish, refreshes) = (Wish::default(), false);
                Dial { place, from, to, identity, max_forwards, body, credentials, impatient, wish, refreshes }
            }
        }
    }

    /// The phone answers by itself, told so in the words of its make. Its session is as short as may be, and only we keep it
    /// up: if we are gone, the phone hangs up by itself and is never left open.
    pub fn by_itself(mut self, how: AutoAnswer) -> Dial {
        let headers = [(Name::AlertInfo, how.alert_info), (Name::CallInfo, how.call_info)];
        self.identity.extend(headers.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))));
        if how.intercom {
            let at = self.place.uri.find('?').unwrap_or(self.place.uri.len());
            self.place.uri.insert_str(at, ";intercom=true");
        }
        self.wish = Wish { interval: refresh::LEAST, ..Wish::default() };
        self.refreshes = true;
        self
    }
}

impl Diverted {
    /// Who forwarded, and why: Diversion for carriers of the older way, History-Info with the cause of RFC 4458 for the others.
    fn headers(&self, by: &str, to: &str) -> [(Name, String); 2] {
        let (reason, cause) = if self.unanswered { ("no-answer", 408) } else { ("unconditional", 302) };
        let history = format!("<{by}>;index=1, <{to};cause={cause}>;index=1.1;mp=1");
        [(Name::Diversion, format!("<{by}>;reason={reason};counter=1")), (Name::HistoryInfo, history)]
    }
}

pub(super) fn address(name: Option<&str>, user: &str, domain: &str) -> String {
    let user = if user.is_empty() { "anonymous" } else { user };
    match name.filter(|n| !n.is_empty()) {
        Some(name) => [&crate::sip::quote(name), " <sip:", user, "@", domain, ">"].concat(),
        None => ["<sip:", user, "@", domain, ">"].concat(),
    }
}
