//! Checks at the door for a request outside a dialog (RFC 3261 8.2), those that need no knowledge of users, in this order:
//! framing, 400 and 505 (the parser has done them); method 501; scheme 416; Max-Forwards 483; Require 420; body 415 and 406.
//! Authentication and users come after it, elsewhere.

use super::message::{Message, Refusal};
use super::name::{Method, Name};
use super::uri::Scheme;

/// The methods that we take, as an Allow header has them.
pub const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, MESSAGE, REGISTER";
/// The option tags that may stand in Require.
pub const SUPPORTED: &[&str] = &["timer", "path"];
/// The body type of calls, as an Accept header has it.
pub const ACCEPT: &str = "application/sdp";
/// The body types of a MESSAGE (RFC 3428, RFC 3862, RFC 5438, RFC 3994), as an Accept header has them.
pub const ACCEPT_MESSAGE: &str = "text/*, message/cpim, message/imdn+xml, application/im-iscomposing+xml";

/// Looks at a request outside a dialog.
pub fn check(msg: &Message) -> Result<(), Refusal> {
    method(msg)?;
    scheme(msg)?;
    hops(msg)?;
    extensions(msg)?;
    body(msg)
}

/// 501 with the methods that we have.
pub fn not_implemented() -> Refusal {
    Refusal::status(501).with(Name::Allow, ALLOW)
}

fn method(msg: &Message) -> Result<(), Refusal> {
    if msg.method() == Method::Other { Err(not_implemented()) } else { Ok(()) }
}

fn scheme(msg: &Message) -> Result<(), Refusal> {
    match msg.uri().map(|u| u.scheme) {
        Ok(Scheme::Sip | Scheme::Sips | Scheme::Tel) => {}
        _ => return Err(Refusal::status(416)),
    }
    // An address of record is a SIP address (RFC 3261 10.3, RFC 4475 3.3.4).
    if msg.method() == Method::Register && !msg.to().uri.is_sip() {
        return Err(Refusal::new(400, "Address of Record Is No SIP URI"));
    }
    Ok(())
}

/// What we answer ourselves may have run out of hops (RFC 4475 3.3.11).
fn hops(msg: &Message) -> Result<(), Refusal> {
    match (msg.method(), msg.max_forwards()) {
        (Method::Options | Method::Register | Method::Ack | Method::Cancel, _) => Ok(()),
        (_, Some(0)) => Err(Refusal::status(483)),
        _ => Ok(()),
    }
}

fn extensions(msg: &Message) -> Result<(), Refusal> {
    if matches!(msg.method(), Method::Ack | Method::Cancel) {
        return Ok(());
    }
    let mut unsupported = String::new();
    for name in [Name::Require, Name::ProxyRequire] {
        for tag in msg.values(name).filter(|tag| !SUPPORTED.iter().any(|s| s.eq_ignore_ascii_case(tag))) {
            if !unsupported.is_empty() {
                unsupported.push_str(", ");
            }
            unsupported.push_str(tag);
        }
    }
    if unsupported.is_empty() { Ok(()) } else { Err(Refusal::status(420).with(Name::Unsupported, unsupported)) }
}

fn body(msg: &Message) -> Result<(), Refusal> {
    let accept = match msg.method() {
        Method::Invite | Method::Update => ACCEPT,
        Method::Message => ACCEPT_MESSAGE,
        _ => return Ok(()),
    };
    if !msg.body().is_empty() {
        let encoded = msg.values(Name::ContentEncoding).any(|e| !e.eq_ignore_ascii_case("identity"));
        if encoded {
            return Err(Refusal::status(415).with(Name::AcceptEncoding, "identity"));
        }
        // A call's SDP may lie in a multipart, whose parts have to be told apart; a MESSAGE is passed on whole, to phones that would have
        // to read it whole.
        let known = match msg.method() {
            Method::Invite | Method::Update => {
                msg.sdp().map_err(|_| Refusal::new(400, "Bad Multipart Body"))?.is_some()
            }
            _ => msg.content_type().is_some_and(|t| listed(accept, t)),
        };
        if !known && !optional(msg) {
            return Err(Refusal::status(415).with(Name::Accept, accept));
        }
    }
    if msg.method() == Method::Invite && msg.has(Name::Accept) && !msg.values(Name::Accept).any(takes_sdp) {
        return Err(Refusal::status(406));
    }
    Ok(())
}

/// Whether a list of types, as an Accept header has it, holds this one.
fn listed(accept: &str, kind: &str) -> bool {
    accept.split(", ").any(|range| match range.strip_suffix('*') {
        Some(family) => starts(kind, family),
        None => range.eq_ignore_ascii_case(kind),
    })
}

/// Whether the body may be ignored (RFC 3261 20.11).
fn optional(msg: &Message) -> bool {
    let Some(value) = msg.text(Name::ContentDisposition) else { return false };
    value.split(';').skip(1).any(|p| {
        p.split_once('=').is_some_and(|(n, v)| {
            n.trim().eq_ignore_ascii_case("handling") && v.trim().eq_ignore_ascii_case("optional")
        })
    })
}

fn takes_sdp(range: &str) -> bool {
    let range = range.split(';').next().unwrap_or("").trim();
    ["application/sdp", "application/*", "*/*"].iter().any(|t| t.eq_ignore_ascii_case(range))
}

fn starts(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|t| t.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn refusal(method: &str, uri: &str, lines: &str, body: &str) -> Option<(u16, Option<String>)> {
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
             Call-ID: c\r\nCSeq: 1 {method}\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let msg = Message::parse(Bytes::from(text)).expect("the test writes it well");
        check(&msg).err().map(|r| {
            let accept = r.headers.iter().find(|(name, _)| *name == Name::Accept);
            (r.status, accept.map(|(_, value)| value.clone()))
        })
    }

    #[test]
    fn bodies_are_of_a_known_type_or_refused_with_what_is_known() {
        let sdp = Some((415, Some(ACCEPT.to_owned())));
        let text = Some((415, Some(ACCEPT_MESSAGE.to_owned())));
        let rows = [
            ("INVITE", "Content-Type: application/sdp\r\n", None),
            ("INVITE", "Content-Type: multipart/mixed;boundary=x\r\n", Some((400, None))),
            ("INVITE", "Content-Type: text/plain\r\n", sdp.clone()),
            ("INVITE", "", sdp),
            ("INVITE", "Content-Type: application/sdp\r\nAccept: text/plain\r\n", Some((406, None))),
            ("MESSAGE", "Content-Type: text/plain;charset=UTF-8\r\n", None),
            ("MESSAGE", "Content-Type: Text/HTML\r\n", None),
            ("MESSAGE", "Content-Type: message/CPIM\r\n", None),
            ("MESSAGE", "Content-Type: message/imdn+xml\r\n", None),
            ("MESSAGE", "Content-Type: application/im-iscomposing+xml\r\n", None),
            ("MESSAGE", "Content-Type: text/plain\r\nAccept: text/plain\r\n", None),
            // RFC 4475 3.1.1.11 (mpart01).
            ("MESSAGE", "Content-Type: multipart/mixed;boundary=7a9cbec02ceef655\r\n", text.clone()),
            ("MESSAGE", "Content-Type: application/sdp\r\n", text.clone()),
            ("MESSAGE", "Content-Type: texts/plain\r\n", text.clone()),
            ("MESSAGE", "", text),
            ("MESSAGE", "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", Some((415, None))),
            ("MESSAGE", "Content-Type: image/png\r\nContent-Disposition: render;handling=optional\r\n", None),
            ("INFO", "Content-Type: application/dtmf-relay\r\n", None),
        ];
        for (method, lines, want) in rows {
            assert_eq!(refusal(method, "sip:b@h", lines, "body"), want, "{method} {lines}");
        }
        assert_eq!(refusal("MESSAGE", "sip:b@h", "Content-Type: image/png\r\n", ""), None, "no body, no type");
    }

    #[test]
    fn the_first_fault_in_order_counts() {
        let mut lines = String::from("Content-Type: image/png\r\n");
        assert_eq!(refusal("MESSAGE", "sip:b@h", &lines, "x").map(|r| r.0), Some(415));
        lines += "Require: nothing\r\n";
        assert_eq!(refusal("MESSAGE", "sip:b@h", &lines, "x").map(|r| r.0), Some(420));
        lines += "Max-Forwards: 0\r\n";
        assert_eq!(refusal("MESSAGE", "sip:b@h", &lines, "x").map(|r| r.0), Some(483));
        assert_eq!(refusal("MESSAGE", "nobodyKnowsThis:b", &lines, "x").map(|r| r.0), Some(416));
    }

    #[test]
    fn each_check_in_its_turn() {
        let table: &[(&str, &str, &str, Result<(), u16>)] = &[
            ("INVITE", "sip:a@b", "", Ok(())),
            ("INVITE", "sips:a@b", "", Ok(())),
            ("INVITE", "tel:+7383", "", Ok(())),
            ("FOO", "x:y", "Max-Forwards: 0\r\nRequire: x\r\n", Err(501)),
            ("INVITE", "x:y", "Max-Forwards: 0\r\nRequire: x\r\n", Err(416)),
            ("INVITE", "sip:a@b", "Max-Forwards: 0\r\nRequire: x\r\n", Err(483)),
            ("MESSAGE", "sip:a@b", "Max-Forwards: 0\r\n", Err(483)),
            ("OPTIONS", "sip:a@b", "Max-Forwards: 0\r\n", Ok(())),
            ("REGISTER", "sip:b", "Max-Forwards: 0\r\n", Ok(())),
            ("INVITE", "sip:a@b", "Require: timer, X\r\nc: text/plain\r\n", Err(420)),
            ("INVITE", "sip:a@b", "Require: TIMER\r\n", Ok(())),
            ("INVITE", "sip:a@b", "Proxy-Require: y\r\n", Err(420)),
            ("CANCEL", "sip:a@b", "Require: x\r\n", Ok(())),
            ("INVITE", "sip:a@b", "c: text/plain\r\nAccept: text/plain\r\n\r\nhello", Err(415)),
            ("INVITE", "sip:a@b", "\r\nhello", Err(415)),
            (
                "INVITE",
                "sip:a@b",
                "c: text/plain\r\nContent-Disposition: session ; handling = optional\r\n\r\nhello",
                Ok(()),
            ),
            ("INVITE", "sip:a@b", "c: application/SDP;x=y\r\nContent-Encoding: gzip\r\n\r\nv=0", Err(415)),
            ("INVITE", "sip:a@b", "c: application/SDP;x=y\r\ne: identity\r\n\r\nv=0", Ok(())),
            (
                "INVITE",
                "sip:a@b",
                "c: multipart/mixed;boundary=x\r\n\r\n--x\r\nc: application/sdp\r\n\r\nv\r\n--x--",
                Ok(()),
            ),
            ("INVITE", "sip:a@b", "c: multipart/mixed;boundary=x\r\n\r\n--x\r\n\r\nv\r\n--x--", Err(415)),
            ("INVITE", "sip:a@b", "c: multipart/mixed\r\n\r\n--x\r\n", Err(400)),
            ("INVITE", "sip:a@b", "Accept: text/plain\r\n", Err(406)),
            ("INVITE", "sip:a@b", "Accept: text/plain, application/sdp;q=0.1\r\n", Ok(())),
            ("INVITE", "sip:a@b", "Accept: */*\r\n", Ok(())),
            ("REGISTER", "sip:b", "t: <tel:+7>\r\n", Err(400)),
        ];
        for (method, uri, rest, expected) in table {
            let to = if rest.contains("t: <") { "" } else { "To: <sip:a@b>\r\n" };
            let end = if rest.contains("\r\n\r\n") || rest.starts_with("\r\n") { "" } else { "\r\n" };
            let text = format!(
                "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nCall-ID: c\r\n\
                 CSeq: 1 {method}\r\n{to}{rest}{end}"
            );
            let msg = Message::parse(Bytes::from(text.clone())).expect("well-formed");
            assert_eq!(check(&msg).map_err(|r| r.status), *expected, "{text}");
        }
    }
}
