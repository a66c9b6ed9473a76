//! What readers outside the engine see of the present: calls, phones, trunks. The engine writes, anybody reads; the truth of a
//! call stays in the core. No guard of a table leaves this file.

use std::sync::Arc;

use dashmap::DashMap;

use crate::b2bua::{LiveCall, Notice, PhoneView, TrunkView};
use crate::call::record::RecordId;

/// The views. Copies share them.
#[derive(Clone, Default, Debug)]
pub struct Live(Arc<Tables>);

#[derive(Default, Debug)]
struct Tables {
    /// Boxed: a table has room for twice as many as there are.
    calls: DashMap<RecordId, Box<LiveCall>>,
    /// By address of record and contact.
    phones: DashMap<(String, String), PhoneView>,
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
            Notice::PhoneGone { aor, contact } => drop(tables.phones.remove(&(aor, contact))),
            Notice::Trunk(trunk) => drop(tables.trunks.insert(trunk.name.clone(), *trunk)),
            // They are for the log, and no state.
            Notice::LoginFailed(_) | Notice::NotTaken(_) => {}
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
    use crate::base::Wall;

    #[test]
    fn phones_come_change_and_go() {
        let live = Live::default();
        let phone = |extension: &str, source: &str| {
            Notice::Phone(Box::new(PhoneView {
                extension: extension.into(),
                name: String::new(),
                contact: "sip:x".into(),
                transport: "udp".into(),
                source: source.into(),
                user_agent: None,
                expires_at: Wall::default(),
                trouble: None,
                trouble_until: None,
            }))
        };
        let copy = live.clone();
        for notice in [phone("122", "a"), phone("121", "a"), phone("122", "b")] {
            live.apply(notice);
        }
        let seen: Vec<_> = copy.phones().into_iter().map(|p| (p.extension, p.source)).collect();
        assert_eq!(seen, [("121".into(), "a".into()), ("122".into(), "b".into())]);
        live.apply(Notice::PhoneGone { aor: "122".into(), contact: "sip:x".into() });
        assert_eq!(copy.phones().len(), 1);
    }
}
