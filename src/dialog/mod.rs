//! Dialogs: RFC 3261 section 12 as a plain value. It knows tags, CSeqs, route set and remote target; it checks what comes in and begins
//! what goes out. It holds no timers and no transactions.
//!
//! - [`invite`]: the INVITE usage of a dialog: one INVITE at a time, offers and answers, the 2xx until its ACK.
//! - [`refresh`]: session timers.
//!
//! Whether a request may come from where it came from is its user's business, as is the route to the next hop: [`Dialog::next_hop`] names it, but what
//! came over a flow that is still there goes back over that flow.

use serde::{Deserialize, Serialize};

use crate::sip::{Flow, Message, Method, Name, NameAddr, Refusal, Uri, Writer};

pub mod invite;
pub mod refresh;

/// The most hops of a route set. A longer one is refused.
pub const ROUTES: usize = 32;
/// Max-Forwards of requests that begin here (RFC 3261 8.1.1.6).
pub const MAX_FORWARDS: &str = "70";

/// One dialog as one side sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dialog {
    /// The Call-ID.
    pub call_id: Box<str>,
    /// Our tag.
    pub local_tag: Box<str>,
    /// The peer's tag; empty for a peer of RFC 2543 that has none.
    pub remote_tag: Box<str>,
    /// Our address as our From has it, without tag.
    pub local: Box<str>,
    /// The peer's address as our To has it, without tag.
    pub remote: Box<str>,
    /// The CSeq number of our last request; 0 before the first.
    pub local_seq: u32,
    /// The CSeq number of the peer's last request.
    pub remote_seq: Option<u32>,
    /// The method of the peer's last request was INVITE (a BYE with the same number is let through, see [`Dialog::accept`]).
    pub remote_invite: bool,
    /// The remote target: what the peer's Contact says.
    pub target: Box<str>,
    /// The route set, nearest hop first, each value as the Record-Route had it.
    pub routes: Box<[Box<str>]>,
    /// Not yet confirmed by a 2xx.
    pub early: bool,
    /// The path to the peer. The user moves it when the peer moves.
    pub flow: Flow,
}

/// What a dialog that we begin takes from our request.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The Call-ID.
    pub call_id: &'a str,
    /// From without tag.
    pub local: &'a str,
    /// The tag of From.
    pub local_tag: &'a str,
    /// To without tag.
    pub remote: &'a str,
    /// The CSeq number.
    pub seq: u32,
    /// The request URI.
    pub target: &'a str,
    /// The path it went by.
    pub flow: Flow,
}

impl Dialog {
    /// The dialog that we enter by answering `request` with `local_tag` (RFC 3261 12.1.1). A peer that forgot its Contact is reached under its From.
    /// The answer has to carry the request's Record-Route.
    pub fn uas(request: &Message, local_tag: &str, flow: Flow) -> Result<Dialog, Refusal> {
        let routes = route_set(request).ok_or_else(bad_route)?;
        let (from, to) = (request.from(), request.to());
        Ok(Dialog {
            call_id: request.call_id().into(),
            local_tag: local_tag.into(),
            remote_tag: request.from_tag().unwrap_or_default().into(),
            local: address(&to),
            remote: address(&from),
            local_seq: 0,
            remote_seq: Some(request.cseq().seq),
            remote_invite: request.method() == Method::Invite,
            target: target(&request.contact().unwrap_or(from).uri),
            routes,
            early: true,
            flow,
        })
    }

    /// The dialog that an answer above 100 to our request begins or confirms (RFC 3261 12.1.2). `None` if it is no answer to that request, or has too
    /// long a route.
    pub fn uac(sent: &Sent<'_>, answer: &Message) -> Option<Dialog> {
        let mut dialog = Dialog::begun(sent, answer)?;
        dialog.confirm(answer).then_some(dialog)
    }

    /// The dialog of an answer that we only acknowledge and end: by its route, else straight to its Contact. `None` if it is no answer to that
    /// request.
    pub fn stray(sent: &Sent<'_>, answer: &Message) -> Option<Dialog> {
        let mut dialog = Dialog::begun(sent, answer)?;
        if !dialog.confirm(answer) {
            dialog.retarget(answer);
        }
        Some(dialog)
    }

    fn begun(sent: &Sent<'_>, answer: &Message) -> Option<Dialog> {
        let ours = answer.call_id() == sent.call_id && answer.from_tag() == Some(sent.local_tag);
        if !ours || answer.status() <= 100 || answer.cseq().seq != sent.seq {
            return None;
        }
        Some(Dialog {
            call_id: sent.call_id.into(),
            local_tag: sent.local_tag.into(),
            remote_tag: answer.to_tag().unwrap_or_default().into(),
            local: sent.local.into(),
            remote: sent.remote.into(),
            local_seq: sent.seq,
            remote_seq: None,
            remote_invite: false,
            target: sent.target.into(),
            routes: Box::default(),
            early: true,
            flow: sent.flow,
        })
    }

    /// Takes a further answer to the request that began the dialog: the route set is computed anew (RFC 3261 13.2.2.4), and a 2xx ends the early phase.
    /// False if its route is too long; nothing is changed then.
    pub fn confirm(&mut self, answer: &Message) -> bool {
        let Some(mut routes) = route_set(answer) else { return false };
        routes.reverse();
        self.routes = routes;
        self.early &= answer.status() >= 300 || answer.status() < 200;
        self.retarget(answer);
        true
    }

    /// Checks the order of a request of the peer's (RFC 3261 12.2.2). Numbers may be skipped; a lower one gets 500, and so does the same one again (the
    /// transaction layer has absorbed retransmissions), except a BYE numbered as the INVITE before it: some peers do that, and ending is the safe
    /// side. ACK and CANCEL have their INVITE's number and are not checked.
    ///
    /// The remote target stays: see [`Dialog::retarget`].
    pub fn accept(&mut self, request: &Message) -> Result<(), Refusal> {
        let (seq, method) = (request.cseq().seq, request.method());
        if matches!(method, Method::Ack | Method::Cancel) {
            return Ok(());
        }
        let in_order = match self.remote_seq {
            None => true,
            Some(last) => seq > last || (seq == last && method == Method::Bye && self.remote_invite),
        };
        if !in_order {
            return Err(Refusal::new(500, "CSeq Out Of Order"));
        }
        self.remote_seq = Some(seq);
        self.remote_invite = method == Method::Invite;
        Ok(())
    }

    /// Takes the Contact of a target refresh as the remote target: of an INVITE or UPDATE of the peer's when it is answered with 2xx, of a 2xx to ours
    /// (RFC 3261 12.2, RFC 6141 section 4). Says whether it moved.
    pub fn retarget(&mut self, msg: &Message) -> bool {
        let Some(contact) = msg.contact() else { return false };
        let new = target(&contact.uri);
        let moved = new != self.target;
        self.target = new;
        moved
    }

    /// Begins the next request in this dialog: Via (with `branch`, sent by the flow's local address), Max-Forwards, Route, From, To, Call-ID, the next
    /// CSeq, Contact if given (the header's whole value; target refreshes need one). The rest and the body are the caller's.
    pub fn request(&mut self, method: Method, branch: &str, contact: Option<&str>) -> Writer {
        self.local_seq = self.local_seq.saturating_add(1);
        let mut writer = self.begin(method, self.local_seq, branch);
        if let Some(contact) = contact {
            writer.header(Name::Contact, contact);
        }
        writer
    }

    /// Begins the ACK of a 2xx to our INVITE number `seq` (RFC 3261 13.2.2.4), with a branch of its own. Credentials as in the INVITE and the body are the
    /// caller's.
    pub fn ack(&self, seq: u32, branch: &str) -> Writer {
        self.begin(Method::Ack, seq, branch)
    }

    /// Whether a message has the identifiers of this dialog (RFC 3261 12.2.2; a peer of RFC 2543 has no tag).
    pub fn matches(&self, msg: &Message) -> bool {
        let (local, remote) = match msg.is_request() {
            true => (msg.to_tag(), msg.from_tag()),
            false => (msg.from_tag(), msg.to_tag()),
        };
        *self.call_id == *msg.call_id()
            && *self.local_tag == *local.unwrap_or_default()
            && *self.remote_tag == *remote.unwrap_or_default()
    }

    /// The URI of the hop that our requests go to first.
    pub fn next_hop(&self) -> &str {
        match self.routes.first() {
            Some(route) => bare(route),
            None => &self.target,
        }
    }

    fn begin(&self, method: Method, seq: u32, branch: &str) -> Writer {
        // a first hop that is a strict router of RFC 2543 gets itself as the request URI, and the target as the last route (RFC 3261 12.2.1.1)
        let (uri, routes, last) = match self.routes.split_first() {
            Some((first, rest)) if !is_loose(first) => (bare(first), rest, Some(&self.target)),
            Some(_) | None => (&*self.target, &self.routes[..], None),
        };
        let mut writer = Writer::request(method.as_str(), uri);
        writer.via(&self.flow, branch);
        writer.header(Name::MaxForwards, MAX_FORWARDS);
        for route in routes {
            writer.header(Name::Route, &**route);
        }
        if let Some(target) = last {
            writer.fmt(Name::Route, format_args!("<{target}>"));
        }
        writer.parts(Name::From, &[&self.local, ";tag=", &self.local_tag]);
        match &*self.remote_tag {
            "" => writer.header(Name::To, &*self.remote),
            tag => writer.parts(Name::To, &[&self.remote, ";tag=", tag]),
        };
        writer.header(Name::CallId, &*self.call_id);
        writer.cseq(seq, method.as_str());
        writer
    }
}

fn bad_route() -> Refusal {
    Refusal::new(400, "Bad Record-Route")
}

/// Refuses a request that could begin no dialog because its route cannot be followed: too long, or no list of addresses.
pub fn check_route(request: &Message) -> Result<(), Refusal> {
    route_set(request).map(|_| ()).ok_or_else(bad_route)
}

/// The Record-Route values in order; `None` if there are too many, or one that is no address.
fn route_set(msg: &Message) -> Option<Box<[Box<str>]>> {
    let mut routes = Vec::new();
    for value in msg.raw_values(Name::RecordRoute) {
        let value = std::str::from_utf8(value).ok()?;
        NameAddr::parse(value).ok()?;
        if routes.len() == ROUTES {
            return None;
        }
        routes.push(Box::from(value));
    }
    Some(routes.into())
}

/// An address without its parameters, in brackets.
fn address(addr: &NameAddr<'_>) -> Box<str> {
    match addr.display {
        Some(display) => [display, " <", addr.uri.raw, ">"].concat().into(),
        None => ["<", addr.uri.raw, ">"].concat().into(),
    }
}

/// A URI as a request URI may have it: without headers (RFC 3261 19.1.1).
fn target(uri: &Uri<'_>) -> Box<str> {
    match uri.headers {
        Some(headers) => uri.raw[..uri.raw.len() - headers.len() - 1].into(),
        None => uri.raw.into(),
    }
}

fn bare(route: &str) -> &str {
    NameAddr::parse(route).map_or(route, |addr| addr.uri.raw)
}

fn is_loose(route: &str) -> bool {
    NameAddr::parse(route).is_ok_and(|addr| addr.uri.params.has("lr"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::sip::Transport;

    fn flow() -> Flow {
        Flow {
            transport: Transport::Udp,
            local: "192.0.2.1:5060".parse().expect("address"),
            remote: "192.0.2.9:5062".parse().expect("address"),
            conn: 0,
        }
    }

    fn parse(text: &str) -> Message {
        Message::parse(Bytes::from(text.replace('\n', "\r\n"))).expect("a message of our own")
    }

    fn request(method: &str, seq: u32, from: &str, to: &str, extra: &str) -> Message {
        parse(&format!(
            "{method} sip:b@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\nMax-Forwards: 70\nFrom: \"A, B\" <sip:a@example.com>{from}\n\
             To: sip:b@example.com{to}\nCall-ID: c1\nCSeq: {seq} {method}\n{extra}\n"
        ))
    }

    fn answer(status: u16, from: &str, to: &str, extra: &str) -> Message {
        parse(&format!(
            "SIP/2.0 {status} So\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\nFrom: <sip:x@example.com>;tag={from}\nTo: <sip:b@example.com>{to}\nCall-ID: c1\n\
             CSeq: 7 INVITE\n{extra}\n"
        ))
    }

    fn sent() -> Sent<'static> {
        Sent {
            call_id: "c1",
            local: "<sip:x@example.com>",
            local_tag: "a",
            remote: "<sip:b@example.com>",
            seq: 7,
            target: "sip:b@example.com",
            flow: flow(),
        }
    }

    fn head(writer: Writer) -> String {
        String::from_utf8_lossy(&writer.finish()).replace("\r\n", "\n")
    }

    #[test]
    fn as_uas_the_dialog_is_the_request_seen_from_here() {
        let invite = request(
            "INVITE",
            4,
            ";tag=a;x=y",
            "",
            "Contact: <sip:a@192.0.2.9:5062;ob?x=y>\nRecord-Route: <sip:p2;lr>, <sip:p1;lr>\nRecord-Route: <sip:p0;lr>\n",
        );
        let mut dialog = Dialog::uas(&invite, "b", flow()).expect("a dialog");
        assert_eq!(
            head(dialog.request(Method::Bye, "z9hG4bKx", None)),
            "BYE sip:a@192.0.2.9:5062;ob SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx;rport\nMax-Forwards: 70\nRoute: <sip:p2;lr>\nRoute: <sip:p1;lr>\n\
             Route: <sip:p0;lr>\nFrom: <sip:b@example.com>;tag=b\nTo: \"A, B\" <sip:a@example.com>;tag=a\nCall-ID: c1\nCSeq: 1 BYE\nContent-Length: 0\n\n"
        );
        assert_eq!(dialog.next_hop(), "sip:p2;lr");
        let json = serde_json::to_string(&dialog).expect("a plain value");
        assert_eq!(serde_json::from_str::<Dialog>(&json).expect("the same"), dialog);
    }

    #[test]
    fn as_uac_the_route_is_reversed_and_a_2xx_computes_it_anew() {
        let ringing =
            answer(180, "a", ";tag=b", "Record-Route: <sip:p1;lr>, <sip:p2;lr>\nContact: <sip:b@192.0.2.9>\n");
        let mut dialog = Dialog::uac(&sent(), &ringing).expect("a dialog");
        assert!(dialog.early && dialog.matches(&ringing));
        assert_eq!(dialog.routes.iter().map(|r| &**r).collect::<Vec<_>>(), ["<sip:p2;lr>", "<sip:p1;lr>"]);
        let ok = answer(200, "a", ";tag=b", "Record-Route: <sip:p3;lr>\nContact: <sip:b2@192.0.2.9>\n");
        assert!(dialog.confirm(&ok));
        assert!(!dialog.early);
        assert_eq!(
            head(dialog.ack(7, "z9hG4bKy")),
            "ACK sip:b2@192.0.2.9 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKy;rport\nMax-Forwards: 70\nRoute: <sip:p3;lr>\n\
             From: <sip:x@example.com>;tag=a\nTo: <sip:b@example.com>;tag=b\nCall-ID: c1\nCSeq: 7 ACK\nContent-Length: 0\n\n"
        );
        let next = head(dialog.request(Method::Invite, "z9hG4bKz", Some("<sip:x@192.0.2.1>")));
        assert!(next.contains("CSeq: 8 INVITE\nContact: <sip:x@192.0.2.1>\n"));
        // a fork: another tag, another dialog
        assert!(!dialog.matches(&answer(200, "a", ";tag=b2", "")));
        assert!(Dialog::uac(&sent(), &answer(200, "z", ";tag=b", "")).is_none(), "not our tag");
        assert!(Dialog::uac(&sent(), &answer(100, "a", "", "")).is_none(), "100 makes no dialog");
    }

    /// RFC 3261 12.2.1.1: the example of a strict router.
    #[test]
    fn a_strict_router_gets_itself_as_request_uri() {
        let ok = answer(
            200,
            "a",
            ";tag=b",
            "Record-Route: <sip:p2;lr>, <sip:p1>\nContact: <sip:b@192.0.2.9;transport=udp>\n",
        );
        let mut dialog = Dialog::uac(&sent(), &ok).expect("a dialog");
        let bye = head(dialog.request(Method::Bye, "z9hG4bKx", None));
        assert!(bye.starts_with("BYE sip:p1 SIP/2.0\n"));
        assert!(bye.contains("Route: <sip:p2;lr>\nRoute: <sip:b@192.0.2.9;transport=udp>\nFrom"));
        assert_eq!(dialog.next_hop(), "sip:p1");
    }

    #[test]
    fn order_of_requests() {
        let invite = request("INVITE", 10, ";tag=a", "", "");
        let table = [
            ("INFO", 11, None),
            ("INFO", 900, None),
            ("INFO", 10, Some(500)),
            ("INFO", 9, Some(500)),
            ("INVITE", 10, Some(500)),
            ("BYE", 10, None),
            ("BYE", 9, Some(500)),
            ("ACK", 10, None),
            ("ACK", 3, None),
            ("CANCEL", 10, None),
        ];
        for (method, seq, refused) in table {
            let mut dialog = Dialog::uas(&invite, "b", flow()).expect("a dialog");
            let got = dialog.accept(&request(method, seq, ";tag=a", ";tag=b", "")).err().map(|r| r.status);
            assert_eq!(got, refused, "{method} {seq}");
            let moved = refused.is_none() && !matches!(method, "ACK" | "CANCEL");
            assert_eq!(dialog.remote_seq, Some(if moved { seq } else { 10 }), "{method} {seq}");
        }
        let mut dialog = Dialog::uac(&sent(), &answer(200, "a", ";tag=b", "")).expect("a dialog");
        assert!(
            dialog.accept(&request("INFO", 1, ";tag=b", ";tag=a", "")).is_ok(),
            "the first number is the peer's choice"
        );
        assert!(dialog.accept(&request("BYE", 1, ";tag=b", ";tag=a", "")).is_err());
    }

    #[test]
    fn tags_decide() {
        let mut dialog = Dialog::uas(&request("INVITE", 1, ";tag=a", "", ""), "b", flow()).expect("a dialog");
        for (from, to, same) in [
            (";tag=a", ";tag=b", true),
            (";tag=a", "", false),
            ("", ";tag=b", false),
            (";tag=b", ";tag=a", false),
            (";tag=A", ";tag=b", false),
        ] {
            assert_eq!(dialog.matches(&request("BYE", 2, from, to, "")), same, "{from} {to}");
        }
        // RFC 2543
        dialog.remote_tag = "".into();
        assert!(dialog.matches(&request("BYE", 2, "", ";tag=b", "")));
        assert!(head(dialog.request(Method::Bye, "z9hG4bKx", None)).contains("To: \"A, B\" <sip:a@example.com>\n"));
    }

    #[test]
    fn targets_move() {
        let mut dialog = Dialog::uas(&request("INVITE", 1, ";tag=a", "", ""), "b", flow()).expect("a dialog");
        assert_eq!(&*dialog.target, "sip:a@example.com", "no Contact: the From");
        assert!(dialog.retarget(&request("UPDATE", 2, ";tag=a", ";tag=b", "Contact: <sip:a@192.0.2.77>\n")));
        assert!(!dialog.retarget(&request("UPDATE", 3, ";tag=a", ";tag=b", "")));
        assert_eq!(&*dialog.target, "sip:a@192.0.2.77");
    }

    #[test]
    fn long_routes_are_refused() {
        let routes = "Record-Route: <sip:p;lr>\n".repeat(ROUTES + 1);
        let refused = Dialog::uas(&request("INVITE", 1, ";tag=a", "", &routes), "b", flow());
        assert_eq!(refused.err().map(|r| r.status), Some(400));
        assert!(Dialog::uac(&sent(), &answer(200, "a", ";tag=b", &routes)).is_none());
    }
}
