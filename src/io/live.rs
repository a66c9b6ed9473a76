//! What readers outside the engine see of the present: calls, phones, trunks. The engine writes, anybody reads; the truth of a
//! call stays in the core. No guard of a table leaves this file.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use crate::b2bua::{LiveCall, Notice, PhoneView, TrunkView};
use crate::base::Wall;
use crate::call::record::RecordId;
use crate::directory::Extension;

/// An extension without a registered phone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Away {
    /// Extension.
    pub extension: String,
    /// Person or place.
    pub name: String,
    /// Always false.
    pub registered: bool,
    /// The phone that was registered last, if one was since the server began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Seen>,
}

/// What was seen of a phone that is gone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Until when it was registered.
    pub at: Wall,
    /// Why it is not any more.
    pub because: String,
    /// Where its packets came from.
    pub source: String,
    /// User-Agent.
    pub user_agent: Option<String>,
}

/// The views. Copies share them.
#[derive(Clone, Default, Debug)]
pub struct Live(Arc<Tables>);

#[derive(Default, Debug)]
struct Tables {
    /// Boxed: a table has room for twice as many as there are.
    calls: DashMap<RecordId, Box<LiveCall>>,
    /// By address of record and contact.
    phones: DashMap<(String, String), PhoneView>,
    /// By extension: the phone that went last.
    gone: DashMap<String, Seen>,
    trunks: DashMap<String, TrunkView>,
}

impl Live {
    /// Takes a change in.
    pub fn apply(&self, notice: Notice) {
        let tables = &self.0;
        match notice {
            Notice::Call(call) => drop(tables.calls.insert(call.id, call)),
            Notice::Ended(id) => drop(tables.calls.remove(&id)),
            Notice::Phone(phone) => {
                tables.phones.insert((phone.extension.clone(), phone.contact.clone()), *phone);
            }
            Notice::PhoneGone { phone, at, because } => {
                let PhoneView { extension, contact, source, user_agent, .. } = *phone;
                tables.phones.remove(&(extension.clone(), contact));
                tables.gone.insert(extension, Seen { at, because, source, user_agent });
            }
            Notice::Trunk(trunk) => drop(tables.trunks.insert(trunk.name.clone(), *trunk)),
            // They are for the log, and no state.
            Notice::LoginFailed(_) | Notice::NotTaken(_) | Notice::Registration(_) | Notice::Closed(_) => {}
        }
    }

    /// Calls in progress, oldest first.
    pub fn calls(&self) -> Vec<LiveCall> {
        let mut calls: Vec<LiveCall> = self.0.calls.iter().map(|c| (**c).clone()).collect();
        calls.sort_by_key(|c| (c.started_at, c.id));
        calls
    }

    /// One call in progress.
    pub fn call(&self, id: RecordId) -> Option<LiveCall> {
        self.0.calls.get(&id).map(|c| (**c).clone())
    }

    /// Registered phones by extension.
    pub fn phones(&self) -> Vec<PhoneView> {
        let mut phones: Vec<PhoneView> = self.0.phones.iter().map(|p| p.clone()).collect();
        phones.sort_by(|a, b| (&a.extension, &a.contact).cmp(&(&b.extension, &b.contact)));
        phones
    }

    /// Of these extensions those without a registered phone, and what was seen of it last, since this server began.
    pub fn away<'a>(&self, extensions: impl Iterator<Item = &'a Extension>) -> Vec<Away> {
        let here: BTreeSet<String> = self.0.phones.iter().map(|p| p.extension.clone()).collect();
        let away = extensions.filter(|e| !here.contains(&*e.number)).map(|e| Away {
            extension: e.number.to_string(),
            name: e.name.to_string(),
            registered: false,
            last: self.0.gone.get(&*e.number).map(|seen| seen.clone()),
        });
        away.collect()
    }

    /// Trunks by name.
    pub fn trunks(&self) -> Vec<TrunkView> {
        let mut trunks: Vec<TrunkView> = self.0.trunks.iter().map(|t| t.clone()).collect();
        trunks.sort_by(|a, b| a.name.cmp(&b.name));
        trunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_come_change_and_go() {
        let live = Live::default();
        let view = |extension: &str, source: &str| {
            Box::new(PhoneView {
                extension: extension.into(),
                name: String::new(),
                registered: true,
                contact: "sip:x".into(),
                transport: "udp".into(),
                source: source.into(),
                user_agent: None,
                expires_at: Wall::default(),
                trouble: None,
                trouble_until: None,
                unanswered_at: None,
            })
        };
        let phone = |extension: &str, source: &str| Notice::Phone(view(extension, source));
        let copy = live.clone();
        for notice in [phone("122", "a"), phone("121", "a"), phone("122", "b")] {
            live.apply(notice);
        }
        let seen: Vec<_> = copy.phones().into_iter().map(|p| (p.extension, p.source)).collect();
        assert_eq!(seen, [("121".into(), "a".into()), ("122".into(), "b".into())]);
        let at = Wall::from_micros(7);
        live.apply(Notice::PhoneGone { phone: view("122", "b"), at, because: "it signed off".into() });
        assert_eq!(copy.phones().len(), 1);
        let extensions = ["121", "122", "123"].map(|n| Extension::new(n, "Anna", "a long password"));
        let away = copy.away(extensions.iter());
        let last = away.iter().map(|a| (a.extension.as_str(), a.last.as_ref().map(|l| (l.at, l.because.as_str()))));
        assert_eq!(last.collect::<Vec<_>>(), [("122", Some((at, "it signed off"))), ("123", None)]);
    }
}
