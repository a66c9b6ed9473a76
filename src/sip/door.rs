//! Checks at the door for a request outside a dialog (RFC 3261 8.2), those that need no knowledge of users, in this order:
//! framing, 400 and 505 (the parser has done them); method 501; scheme 416; Max-Forwards 483; Require 420; body 415 and 406.
//! Authentication and users come after it, elsewhere.

use super::message::{Message, Refusal};
use super::name::{Method, Name};
use super::uri::Scheme;

/// The methods that we answer, as an Allow header has them.
pub const ALLOW: &str =
    "INVITE, ACK, BYE, CANCEL, REGISTER, OPTIONS, INFO, UPDATE, PRACK, SUBSCRIBE, NOTIFY, REFER, MESSAGE";
/// The option tags that may stand in Require.
pub const SUPPORTED: &[&str] = &["timer", "path"];
/// The body type of calls, as an Accept header has it.
pub const ACCEPT: &str = "application/sdp";

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
    if msg.method() != Method::Invite {
        return Ok(());
    }
    if !msg.body().is_empty() {
        let encoded = msg.values(Name::ContentEncoding).any(|e| !e.eq_ignore_ascii_case("identity"));
        if encoded {
            return Err(Refusal::status(415).with(Name::AcceptEncoding, "identity"));
        }
        let known = msg.content_type().is_some_and(|t| t.eq_ignore_ascii_case(ACCEPT) || starts(t, "multipart/"));
        if !known && !optional(msg) {
            return Err(Refusal::status(415).with(Name::Accept, ACCEPT));
        }
    }
    if msg.has(Name::Accept) && !msg.values(Name::Accept).any(takes_sdp) {
        return Err(Refusal::status(406));
    }
    Ok(())
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
