//! A phone sends the call on with a 3xx (RFC 3261 8.1.3.4, 21.3). What it names is policy's to judge; here it is read, and rung
//! instead of the phone: with the others of the stage where others ring still, else as stages of the call. An extension sends a
//! call on once, and is not rung again in that call: there is no circle. A carrier's 3xx is never followed.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::{Call, Cx, Legs, State};
use crate::directory::{Directory, Label};
use crate::policy::divert::{Contact, MAX_DIVERSIONS, divert};
use crate::policy::{Stage, Why};
use crate::sip::{Message, Name, Uri};

/// Contacts of a 3xx that are kept, best first.
const MAX_KEPT: usize = 16;

/// The URIs that a 3xx names, by their q; equals in the order of the message.
pub(super) fn named(msg: &Message) -> Vec<String> {
    // 305 and 380 name no other place for the call.
    if !matches!(msg.status(), 300..=302) {
        return Vec::new();
    }
    let contacts = msg.addresses(Name::Contact).filter_map(Result::ok).take(MAX_KEPT);
    let mut contacts: Vec<(u16, String)> = contacts.map(|c| (c.q().unwrap_or(1000), c.uri.raw.to_owned())).collect();
    contacts.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
    contacts.into_iter().map(|(_, uri)| uri).collect()
}

/// What such a URI asks for. `here` is our address as that phone reaches it.
fn read(uri: &str, directory: &Directory, here: IpAddr) -> Contact {
    let Ok(uri) = Uri::parse(uri) else { return Contact::Unreadable };
    let text = uri.user_number();
    if uri.is_tel() {
        // A context says of which place the number is (RFC 3966 5.1.5).
        let context = uri.params.get("phone-context").filter(|context| context.starts_with('+')).unwrap_or_default();
        let number: String = text.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect();
        return Contact::Dialled(if number.starts_with('+') { number } else { format!("{context}{number}") });
    }
    let ours = uri.ip().map_or_else(
        || directory.node.domains.iter().any(|domain| domain.eq_ignore_ascii_case(uri.host)),
        |ip| ip.to_canonical() == here.to_canonical(),
    );
    match (uri.is_sip(), ours, text.is_empty()) {
        (true, true, false) => Contact::Dialled(text.into_owned()),
        (true, false, _) => Contact::Elsewhere(uri.host.to_owned()),
        (true, true, true) | (false, ..) => Contact::Unreadable,
    }
}

impl Call {
    /// A phone of the extension sent the call on to these URIs; its leg is over. Whether the call has gone on to other stages.
    pub(super) fn sent_on(
        &mut self,
        legs: &mut Legs,
        cx: &mut Cx<'_>,
        rung: usize,
        extension: &Label,
        here: IpAddr,
        uris: &[String],
    ) -> bool {
        let State::Ringing(ringing) = &mut self.state else { return false };
        let Some(stage) = ringing.stage.clone() else { return false };
        let mut why = Vec::new();
        let mut stages = VecDeque::new();
        if ringing.sent_on.contains(extension) || ringing.sent_on.len() >= MAX_DIVERSIONS {
            let because = format!("not followed: the call was sent on by {} already", ringing.sent_on.join(", "));
            why.push(Why::new(format!("302 of {extension}"), because));
        } else {
            let contacts: Vec<Contact> = uris.iter().map(|uri| read(uri, cx.directory, here)).collect();
            stages.extend(divert(&self.ask, cx.directory, cx.now.wall, extension, &stage, &contacts, &mut why));
            let before = stages.len();
            stages.retain(|next: &Stage| next.target != stage.target);
            if stages.len() < before {
                why.push(Why::new(format!("302 of {extension}"), format!("the call is at {} already", stage.target)));
            }
        }
        why.retain(|why| !self.plan.why.contains(why));
        self.plan.why.append(&mut why);
        if stages.is_empty() {
            return false;
        }
        ringing.sent_on.push(extension.clone());
        if !ringing.spent.contains(extension) {
            ringing.spent.push(extension.clone());
        }
        ringing.spend(rung, 302);
        let others = ringing.ticket.is_some() || !self.idle();
        if others {
            self.join(legs, cx, stages);
            return false;
        }
        if let State::Ringing(ringing) = &mut self.state {
            stages.into_iter().rev().for_each(|stage| ringing.stages.push_front(stage));
        }
        self.next_stage(legs, cx);
        self.show(legs, cx);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::Wall;
    use crate::directory::{Class, Country, E164, Extension, Node, Number, Queue, Route, Target, Trunk};
    use crate::policy::Ask;

    fn office(class: Class) -> Directory {
        let mut directory = Directory::empty(Node::new("lab", "office.example"));
        directory.node.country = Some(Country::RU);
        directory.trunks.push(Trunk::new("a", "sip:203.0.113.1"));
        directory.numbers.push(Number::new("+73433000001".parse().expect("a number"), "a"));
        directory.extensions = ["121", "122", "123", "124"].map(|n| Extension::new(n, n, "secret")).to_vec();
        directory.extensions[1].outbound = class;
        directory.queues.push(Queue::new("sales", vec!["121".into(), "122".into()]));
        directory.routes.push(Route::new("all", Target::Queue("sales".into())));
        directory.dial.outside = vec!["8XXXXXXXXXX".into(), "+X.".into(), "810X.".into()];
        directory.dial.emergency = vec!["112".into()];
        directory.indexed()
    }

    /// Where a call goes that 122's phone sends on to these contacts.
    fn leads(class: Class, contacts: &str) -> (String, Vec<Why>) {
        let msg = format!(
            "SIP/2.0 302 Moved Temporarily\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:121@a>;tag=1\r\n\
             To: <sip:122@a>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContact: {contacts}\r\n\r\n"
        );
        let msg = Message::parse(msg.into_bytes().into()).expect("it is SIP");
        let (directory, here) = (office(class), "192.0.2.1".parse().expect("an address"));
        let contacts: Vec<Contact> = named(&msg).iter().map(|uri| read(uri, &directory, here)).collect();
        let caller: Option<E164> = "+79990000000".parse().ok();
        let number = "+73433000001".parse().expect("a number");
        let ask = Ask::In { trunk: "a".into(), number, caller, anonymous: false };
        let from = Stage::new(Target::Extension("122".into()), Duration::from_secs(20));
        let mut why = Vec::new();
        let stages = divert(&ask, &directory, Wall::default(), &"122".into(), &from, &contacts, &mut why);
        let targets: Vec<String> = stages.iter().map(|stage| stage.target.to_string()).collect();
        (targets.join(" "), why)
    }

    /// Whoever has got hold of a phone gets no further by its 302 than by dialling.
    #[test]
    fn toll_fraud_by_302() {
        use Class::{Internal, International, National};
        for (class, contacts, want) in [
            // Colleagues, queues and our own numbers: whoever may do least may do that.
            (Internal, "<sip:124@office.example>", "extension:124"),
            (Internal, "<sip:124@192.0.2.1:5060;transport=tcp>;expires=60", "extension:124"),
            (Internal, "sip:124@OFFICE.example", "extension:124"),
            (Internal, "<sips:124@office.example>", "extension:124"),
            (Internal, "<tel:124;phone-context=office.example>", "extension:124"),
            (Internal, "<sip:sales@office.example>", "queue:sales"),
            (Internal, "<sip:+73433000001@office.example>", "queue:sales"),
            // Outside numbers by class, however they are written.
            (Internal, "<sip:89131234567@office.example>", ""),
            (Internal, "<tel:+79131234567>", ""),
            (Internal, "<sip:88095551234@office.example>", ""),
            (National, "<sip:89131234567@office.example>", "number:+79131234567"),
            (National, "<tel:+7-913-123-45-67>", "number:+79131234567"),
            (National, "<tel:9131234567;phone-context=+7>", "number:+79131234567"),
            (National, "<sip:810442071234567@office.example>", ""),
            (National, "<sip:+442071234567@office.example;user=phone>", ""),
            (National, "<tel:+44(20)7123-4567>", ""),
            (National, "<tel:2071234567;phone-context=+44>", ""),
            (International, "<sip:810442071234567@office.example>", "number:+442071234567"),
            (International, "<tel:2071234567;phone-context=+44>", "number:+442071234567"),
            (International, "<sip:+00442071234567@office.example>", ""),
            (International, "<sip:00442071234567@office.example>", ""),
            // Forbidden ones, whatever the class.
            (National, "<sip:88095551234@office.example>", ""),
            (National, "<tel:8095551234;phone-context=+7>", ""),
            (International, "<sip:+78095551234@office.example>", ""),
            (International, "<sip:8108816123456@office.example>", ""),
            (International, "<tel:+979-1-2345-6789>", ""),
            (International, "<sip:810448712345678@office.example>", "number:+448712345678"),
            // Other hosts, whatever the class.
            (International, "<sip:89131234567@evil.example>", ""),
            (International, "<sip:124@192.0.2.99>", ""),
            (International, "<sip:124@office.example.evil.example>", ""),
            (International, "<sip:124@evil.example;maddr=192.0.2.1>", ""),
            (International, "<sip:office.example@evil.example>", ""),
            // No such thing.
            (International, "<sip:office.example>", ""),
            (International, "<http://office.example/124>", ""),
            (International, "<mailto:124@office.example>", ""),
            (International, "<urn:service:sos>", ""),
            (International, "*", ""),
            (International, "<sip:124&sip/442071234567@office.example>", ""),
            (International, "<sip:124,125@office.example>", ""),
            (International, "<sip:124%0d%0aTo:%20x@office.example>", ""),
            (International, "<sip:999@office.example>", ""),
            // Rescuers, and itself.
            (International, "<sip:112@office.example>", ""),
            (International, "<tel:112>", ""),
            (International, "<sip:122@office.example>", ""),
            // Headers in the URI go nowhere.
            (Internal, "<sip:124@office.example?Replaces=x%3Bto-tag=1>", "extension:124"),
            // Several: by q, those that are allowed.
            (
                National,
                "<sip:124@office.example>;q=0.1, <sip:+442071234567@office.example>;q=1.0, <sip:123@office.example>;q=0.5",
                "extension:123 extension:124",
            ),
            (National, "<sip:123@office.example>;q=2, <sip:124@office.example>;q=0.999", "extension:123 extension:124"),
            (
                National,
                "<sip:121@office.example>, <sip:123@office.example>, <sip:112@office.example>, <sip:124@office.example>, \
                 <sip:sales@office.example>",
                "extension:121 extension:123 extension:124",
            ),
        ] {
            let (got, why) = leads(class, contacts);
            assert_eq!(got, want, "{class} {contacts}: {why:?}");
            assert!(contacts == "*" || !why.is_empty(), "nothing is said of {contacts}");
        }
    }

    #[test]
    fn a_hundred_contacts_are_a_few() {
        let many: Vec<String> = (0..100).map(|n| format!("<sip:8913123{n:04}@office.example>")).collect();
        let (got, why) = leads(Class::National, &many.join(", "));
        assert_eq!(got.split(' ').count(), crate::policy::divert::MAX_CONTACTS);
        assert_eq!(why.len(), crate::policy::divert::MAX_CONTACTS + 1);
    }
}
