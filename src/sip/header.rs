//! Typed values of headers that calls turn on: session timers (RFC 4028), Replaces (RFC 3891), Refer-To (RFC 3515), Reason (RFC 3326),
//! RAck (RFC 3262), events (RFC 6665), Diversion (RFC 5806), Privacy (RFC 3323, 3325), Retry-After. One value each, read from text and
//! written by `Display`. Addresses are `NameAddr`s (`Message::addresses`), plain numbers `Message::seconds`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::chars;
use super::name::Method;
use super::print::quote;
use super::uri::{self, Bad, NameAddr, Params};

/// Who refreshes a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refresher {
    /// The side that sent the request.
    Uac,
    /// The side that answers it.
    Uas,
}

/// Session-Expires (RFC 4028 section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SessionExpires {
    /// In seconds.
    pub delta: u32,
    /// Who refreshes, when it is said.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Reads a value.
    pub fn parse(value: &str) -> Result<SessionExpires, Bad> {
        let (delta, params) = head(value)?;
        let refresher = match params.get("refresher") {
            Some(who) if who.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            Some(who) if who.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            Some(_) => return Err(Bad("refresher of Session-Expires")),
            None => None,
        };
        Ok(SessionExpires { delta: seconds(delta).ok_or(Bad("Session-Expires"))?, refresher })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.delta)?;
        match self.refresher {
            Some(Refresher::Uac) => f.write_str(";refresher=uac"),
            Some(Refresher::Uas) => f.write_str(";refresher=uas"),
            None => Ok(()),
        }
    }
}

/// Min-SE (RFC 4028 section 5), in seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MinSe(pub u32);

impl MinSe {
    /// Reads a value.
    pub fn parse(value: &str) -> Result<MinSe, Bad> {
        let (delta, _) = head(value)?;
        Ok(MinSe(seconds(delta).ok_or(Bad("Min-SE"))?))
    }
}

impl fmt::Display for MinSe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Retry-After (RFC 3261 20.33) without its comment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RetryAfter {
    /// In seconds.
    pub seconds: u32,
    /// How long it will then be there, in seconds.
    pub duration: Option<u32>,
}

impl RetryAfter {
    /// Reads a value.
    pub fn parse(value: &str) -> Result<RetryAfter, Bad> {
        let bad = Bad("Retry-After");
        let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let after = seconds(&value[..digits]).ok_or(bad)?;
        let mut rest = value[digits..].trim_start();
        if let Some(comment) = rest.strip_prefix('(') {
            rest = comment.rsplit_once(')').ok_or(bad)?.1;
        }
        let params = Params::parse(rest.as_bytes())?;
        Ok(RetryAfter { seconds: after, duration: params.get("duration").and_then(seconds) })
    }
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seconds)?;
        self.duration.map_or(Ok(()), |d| write!(f, ";duration={d}"))
    }
}

/// Which dialog a new call takes the place of (RFC 3891).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Replaces {
    /// Its Call-ID.
    pub call_id: String,
    /// The tag that the side which gets this had in that dialog.
    pub to_tag: String,
    /// The other side's tag.
    pub from_tag: String,
    /// Only while it has not been answered.
    pub early_only: bool,
}

impl Replaces {
    /// Reads a value.
    pub fn parse(value: &str) -> Result<Replaces, Bad> {
        let (call_id, params) = head(value)?;
        let tag = |name| params.get(name).filter(|t| !t.is_empty()).ok_or(Bad("tags of Replaces"));
        if call_id.is_empty() || !chars::all(call_id.as_bytes(), chars::VISIBLE) {
            return Err(Bad("Call-ID of Replaces"));
        }
        Ok(Replaces {
            call_id: call_id.to_owned(),
            to_tag: tag("to-tag")?.to_owned(),
            from_tag: tag("from-tag")?.to_owned(),
            early_only: params.has("early-only"),
        })
    }
}

impl fmt::Display for Replaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};to-tag={};from-tag={}", self.call_id, self.to_tag, self.from_tag)?;
        if self.early_only { f.write_str(";early-only") } else { Ok(()) }
    }
}

/// Where a call is to be transferred to (RFC 3515).
#[derive(Clone, Debug)]
pub struct ReferTo<'a> {
    /// The target as written; its URI's headers are not for sending.
    pub address: NameAddr<'a>,
    /// The method that is asked for, when it is not INVITE.
    pub method: Option<Method>,
    /// The dialog to take the place of (attended transfer).
    pub replaces: Option<Replaces>,
}

impl<'a> ReferTo<'a> {
    /// Reads a value.
    pub fn parse(value: &'a str) -> Result<ReferTo<'a>, Bad> {
        let address = NameAddr::parse(value)?;
        let method = address.uri.params.get("method").map(|m| Method::from_bytes(m.as_bytes()));
        let mut replaces = None;
        for header in address.uri.headers.unwrap_or("").split('&') {
            if let Some((name, text)) = header.split_once('=')
                && uri::decode(name).eq_ignore_ascii_case("replaces")
                && replaces.replace(Replaces::parse(&uri::decode(text))?).is_some()
            {
                return Err(Bad("two Replaces in Refer-To"));
            }
        }
        Ok(ReferTo { address, method, replaces })
    }

    /// The target's URI without its headers.
    pub fn target(&self) -> &'a str {
        let raw = self.address.uri.raw;
        match self.address.uri.headers {
            Some(headers) => &raw[..raw.len() - headers.len() - 1],
            None => raw,
        }
    }
}

/// One Reason (RFC 3326).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason<'a> {
    /// `SIP`, `Q.850`, ...
    pub protocol: &'a str,
    /// The code in that protocol.
    pub cause: Option<u16>,
    /// For people.
    pub text: Option<Cow<'a, str>>,
}

impl<'a> Reason<'a> {
    /// Reads one value of the list.
    pub fn parse(value: &'a str) -> Result<Reason<'a>, Bad> {
        let (protocol, params) = head(value)?;
        if protocol.is_empty() || !chars::all(protocol.as_bytes(), chars::TOKEN) {
            return Err(Bad("protocol of Reason"));
        }
        let text =
            params.get("text").map(|t| if t.contains('\\') { uri::unescape(t).into() } else { Cow::Borrowed(t) });
        Ok(Reason { protocol, cause: params.get("cause").and_then(|c| c.parse().ok()), text })
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol)?;
        if let Some(cause) = self.cause {
            write!(f, ";cause={cause}")?;
        }
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ";text={}", quote(text)))
    }
}

/// One Diversion (RFC 5806).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diversion<'a> {
    /// Who has diverted.
    pub address: NameAddr<'a>,
    /// `unconditional`, `user-busy`, `no-answer`, ...
    pub reason: Option<&'a str>,
    /// How many diversions this one stands for; at least 1.
    pub counter: u32,
}

impl<'a> Diversion<'a> {
    /// Reads one value of the list.
    pub fn parse(value: &'a str) -> Result<Diversion<'a>, Bad> {
        let address = NameAddr::parse(value)?;
        let counter = address.params.get("counter").and_then(seconds).unwrap_or(1).max(1);
        Ok(Diversion { address, reason: address.params.get("reason"), counter })
    }
}

/// One Remote-Party-ID (draft-ietf-sip-privacy-04, what older carriers and phones have instead of P-Asserted-Identity).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemotePartyId<'a> {
    /// Who.
    pub address: NameAddr<'a>,
    /// Whether it is about the called side.
    pub called: bool,
    /// Whether it was checked.
    pub screen: bool,
    /// Whether it is to be hidden.
    pub private: bool,
}

impl<'a> RemotePartyId<'a> {
    /// Reads one value of the list.
    pub fn parse(value: &'a str) -> Result<RemotePartyId<'a>, Bad> {
        let address = NameAddr::parse(value)?;
        let is = |name, what: &str| address.params.get(name).is_some_and(|v| v.eq_ignore_ascii_case(what));
        let private = address.params.get("privacy").is_some_and(|p| !p.eq_ignore_ascii_case("off"));
        Ok(RemotePartyId { address, called: is("party", "called"), screen: is("screen", "yes"), private })
    }
}

/// Privacy (RFC 3323, RFC 3325, RFC 7044).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Privacy {
    /// The asserted identity is to be hidden.
    pub id: bool,
    /// What the user put in is to be hidden.
    pub user: bool,
    /// Headers are to be hidden.
    pub header: bool,
    /// The session is to be hidden.
    pub session: bool,
    /// The history is to be hidden.
    pub history: bool,
    /// Nothing is to be hidden, whatever the default.
    pub none: bool,
    /// Better no call than one that is not hidden.
    pub critical: bool,
}

impl Privacy {
    /// Reads a value (`;` between, and `,` as some write it). Unknown ones are passed over.
    pub fn parse(value: &str) -> Privacy {
        let mut privacy = Privacy::default();
        for word in value.split([';', ',']) {
            match word.trim().to_ascii_lowercase().as_str() {
                "id" => privacy.id = true,
                "user" => privacy.user = true,
                "header" => privacy.header = true,
                "session" => privacy.session = true,
                "history" => privacy.history = true,
                "none" => privacy.none = true,
                "critical" => privacy.critical = true,
                _ => {}
            }
        }
        privacy
    }

    /// Whether the caller's identity is to be hidden from the called side.
    pub fn hides(&self) -> bool {
        !self.none && (self.id || self.user || self.header)
    }
}

/// Which provisional response a PRACK is for (RFC 3262 7.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RAck {
    /// Its RSeq.
    pub rseq: u32,
    /// The CSeq of its request.
    pub cseq: u32,
    /// The method of its request.
    pub method: Method,
}

impl RAck {
    /// Reads a value.
    pub fn parse(value: &str) -> Result<RAck, Bad> {
        let mut words = value.split_ascii_whitespace();
        match (words.next().and_then(number), words.next().and_then(number), words.next(), words.next()) {
            (Some(rseq), Some(cseq), Some(method), None) => {
                Ok(RAck { rseq, cseq, method: Method::from_bytes(method.as_bytes()) })
            }
            _ => Err(Bad("RAck")),
        }
    }
}

impl fmt::Display for RAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.rseq, self.cseq, self.method)
    }
}

/// Event (RFC 6665 8.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// The package, with its templates.
    pub package: &'a str,
    /// Which of several subscriptions.
    pub id: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// Reads a value.
    pub fn parse(value: &'a str) -> Result<Event<'a>, Bad> {
        let (package, params) = head(value)?;
        if package.is_empty() || !chars::all(package.as_bytes(), chars::TOKEN) {
            return Err(Bad("Event"));
        }
        Ok(Event { package, id: params.get("id") })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.package)?;
        self.id.map_or(Ok(()), |id| write!(f, ";id={id}"))
    }
}

/// Subscription-State (RFC 6665 8.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionState<'a> {
    /// `active`, `pending`, `terminated`, ...
    pub state: &'a str,
    /// Seconds left.
    pub expires: Option<u32>,
    /// Why it ended.
    pub reason: Option<&'a str>,
    /// When to try again, in seconds.
    pub retry_after: Option<u32>,
}

impl<'a> SubscriptionState<'a> {
    /// Reads a value.
    pub fn parse(value: &'a str) -> Result<SubscriptionState<'a>, Bad> {
        let (state, params) = head(value)?;
        if state.is_empty() || !chars::all(state.as_bytes(), chars::TOKEN) {
            return Err(Bad("Subscription-State"));
        }
        let number = |name| params.get(name).and_then(seconds);
        Ok(SubscriptionState {
            state,
            expires: number("expires"),
            reason: params.get("reason"),
            retry_after: number("retry-after"),
        })
    }
}

impl fmt::Display for SubscriptionState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.state)?;
        if let Some(reason) = self.reason {
            write!(f, ";reason={reason}")?;
        }
        if let Some(seconds) = self.expires {
            write!(f, ";expires={seconds}")?;
        }
        self.retry_after.map_or(Ok(()), |s| write!(f, ";retry-after={s}"))
    }
}

impl NameAddr<'_> {
    /// A Contact's `expires` in seconds; too much is the maximum (RFC 3261 20.19).
    pub fn expires(&self) -> Option<u32> {
        self.params.get("expires").and_then(seconds)
    }

    /// A Contact's `q` in thousandths.
    pub fn q(&self) -> Option<u16> {
        let (whole, fraction) = match self.params.get("q")?.split_once('.') {
            Some((whole, fraction)) => (whole, fraction),
            None => (self.params.get("q")?, ""),
        };
        if fraction.len() > 3 || !fraction.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let thousandths: u16 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let thousandths = thousandths * [1, 100, 10, 1][fraction.len()];
        match (whole, thousandths) {
            ("0" | "", t) => Some(t),
            ("1", 0) => Some(1000),
            _ => None,
        }
    }
}

/// A value up to its first `;`, and its parameters.
fn head(value: &str) -> Result<(&str, Params<'_>), Bad> {
    let value = value.trim();
    let end = value.find(';').unwrap_or(value.len());
    Ok((value[..end].trim_end(), Params::parse(&value.as_bytes()[end..])?))
}

/// Digits only; what is beyond 32 bits is the maximum.
fn seconds(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u32::MAX))
}

/// Digits only, within 32 bits.
fn number(text: &str) -> Option<u32> {
    chars::number(text.as_bytes(), u64::from(u32::MAX)).map(|n| n as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_both_ways() {
        macro_rules! same {
            ($type:ident: $($text:expr),+) => { $(assert_eq!($type::parse($text).unwrap().to_string(), $text);)+ };
        }
        same!(SessionExpires: "1800", "90;refresher=uac", "4294967295;refresher=uas");
        same!(MinSe: "90");
        same!(RetryAfter: "18", "120;duration=3600");
        same!(Replaces: "a@b;to-tag=1;from-tag=2", "x;to-tag=7;from-tag=8;early-only");
        same!(Reason: "SIP", "SIP;cause=200;text=\"Call completed elsewhere\"", "Q.850;cause=16");
        same!(RAck: "776656 1 INVITE");
        same!(Event: "refer;id=93809824", "presence.winfo");
        same!(SubscriptionState: "active;expires=60", "terminated;reason=noresource", "terminated;reason=probation;retry-after=5");
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in ["", "x", "-1", "90;refresher=me", "90;;"] {
            assert!(SessionExpires::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "a", "a;to-tag=1", "a;to-tag=;from-tag=2", ";to-tag=1;from-tag=2", "a b;to-tag=1;from-tag=2"] {
            assert!(Replaces::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "1 INVITE", "1 2", "1 2 INVITE x", "4294967296 1 INVITE", "-1 1 INVITE"] {
            assert!(RAck::parse(bad).is_err(), "{bad}");
        }
        assert!(RetryAfter::parse("soon").is_err() && Reason::parse(";cause=1").is_err() && Event::parse("").is_err());
    }

    #[test]
    fn details() {
        assert_eq!(SessionExpires::parse(" 99999999999 ; refresher = UAC").unwrap().delta, u32::MAX);
        assert_eq!(RetryAfter::parse("5 (I'm in a meeting);duration=60").unwrap().duration, Some(60));
        assert_eq!(Reason::parse("SIP;text=\"a \\\"b\\\"\"").unwrap().text.as_deref(), Some("a \"b\""));
        let refer =
            ReferTo::parse("<sip:300@x;method=INVITE?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces>")
                .unwrap();
        assert_eq!(refer.replaces.as_ref().map(|r| r.call_id.as_str()), Some("a@b"));
        assert_eq!((refer.target(), refer.method), ("sip:300@x;method=INVITE", Some(Method::Invite)));
        assert!(ReferTo::parse("<sip:a@b?Replaces=x>").is_err());
        let d = Diversion::parse("\"Bob\" <sip:+7383@x>;reason=user-busy;counter=2").unwrap();
        assert_eq!((d.reason, d.counter, d.address.uri.user), (Some("user-busy"), 2, Some("+7383")));
        let r = RemotePartyId::parse("<sip:1@x>;party=calling;screen=yes;privacy=full").unwrap();
        assert!(r.screen && r.private && !r.called);
        assert!(
            Privacy::parse("id;critical").hides() && !Privacy::parse("none").hides() && !Privacy::parse("x").hides()
        );
        let q = |text: &str| NameAddr::parse(&format!("<sip:a@b>;q={text}")).unwrap().q();
        assert_eq!(["1", "1.000", "0.5", "0.33", "0.125", ".7"].map(q), [1000, 1000, 500, 330, 125, 700].map(Some));
        assert_eq!(["1.1", "2", "0.1234", "x", "0.-1"].map(q), [None; 5]);
    }
}
