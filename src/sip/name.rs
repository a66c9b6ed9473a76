//! Names of methods and headers (RFC 3261 section 20 and the extensions in the IANA registry). Looked up without allocation or
//! hashing by the process; unknown ones stay text in the message.

/// A method. What is not listed is [`Method::Other`]; its text stays in the message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// RFC 3261.
    Invite,
    /// RFC 3261.
    Ack,
    /// RFC 3261.
    Bye,
    /// RFC 3261.
    Cancel,
    /// RFC 3261.
    Register,
    /// RFC 3261.
    Options,
    /// RFC 6086.
    Info,
    /// RFC 3311.
    Update,
    /// RFC 3262.
    Prack,
    /// RFC 6665.
    Subscribe,
    /// RFC 6665.
    Notify,
    /// RFC 3515.
    Refer,
    /// RFC 3428.
    Message,
    /// RFC 3903.
    Publish,
    /// Any other token.
    #[default]
    Other,
}

impl Method {
    /// All known ones.
    pub const ALL: [Method; 14] = [
        Method::Invite,
        Method::Ack,
        Method::Bye,
        Method::Cancel,
        Method::Register,
        Method::Options,
        Method::Info,
        Method::Update,
        Method::Prack,
        Method::Subscribe,
        Method::Notify,
        Method::Refer,
        Method::Message,
        Method::Publish,
    ];

    /// Methods are case-sensitive (RFC 3261 7.1).
    #[inline]
    pub fn from_bytes(text: &[u8]) -> Method {
        match text {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"REGISTER" => Method::Register,
            b"OPTIONS" => Method::Options,
            b"INFO" => Method::Info,
            b"UPDATE" => Method::Update,
            b"PRACK" => Method::Prack,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"REFER" => Method::Refer,
            b"MESSAGE" => Method::Message,
            b"PUBLISH" => Method::Publish,
            _ => Method::Other,
        }
    }

    /// As on the wire; of [`Method::Other`] only the word `OTHER` (the message knows its text).
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Register => "REGISTER",
            Method::Options => "OPTIONS",
            Method::Info => "INFO",
            Method::Update => "UPDATE",
            Method::Prack => "PRACK",
            Method::Subscribe => "SUBSCRIBE",
            Method::Notify => "NOTIFY",
            Method::Refer => "REFER",
            Method::Message => "MESSAGE",
            Method::Publish => "PUBLISH",
            Method::Other => "OTHER",
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! names {
    ($($name:ident $text:literal $(or $compact:literal)?),* $(,)?) => {
        /// A header's name. What is not listed is [`Name::Other`]; its text stays in the message.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Name {
            /// Any other name.
            Other,
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl Name {
            /// How many there are, [`Name::Other`] included.
            pub const COUNT: usize = Name::ALL.len() + 1;

            /// All known ones.
            pub const ALL: &'static [Name] = &[$(Name::$name),*];

            /// The canonical spelling; of [`Name::Other`] the empty text.
            #[inline]
            pub const fn as_str(self) -> &'static str {
                match self { $(Name::$name => $text,)* Name::Other => "" }
            }
        }

        /// Every spelling: long forms in the order of the enum, then compact ones.
        const SPELLINGS: &[(&str, Name)] = &[$(($text, Name::$name),)* $($(($compact, Name::$name),)?)*];
    };
}

names! {
    Via "Via" or "v",
    From "From" or "f",
    To "To" or "t",
    CallId "Call-ID" or "i",
    CSeq "CSeq",
    Contact "Contact" or "m",
    MaxForwards "Max-Forwards",
    Route "Route",
    RecordRoute "Record-Route",
    ContentType "Content-Type" or "c",
    ContentLength "Content-Length" or "l",
    ContentEncoding "Content-Encoding" or "e",
    ContentDisposition "Content-Disposition",
    ContentLanguage "Content-Language",
    ContentId "Content-ID",
    MimeVersion "MIME-Version",
    Expires "Expires",
    MinExpires "Min-Expires",
    Authorization "Authorization",
    ProxyAuthorization "Proxy-Authorization",
    WwwAuthenticate "WWW-Authenticate",
    ProxyAuthenticate "Proxy-Authenticate",
    AuthenticationInfo "Authentication-Info",
    Require "Require",
    ProxyRequire "Proxy-Require",
    Supported "Supported" or "k",
    Unsupported "Unsupported",
    Allow "Allow",
    AllowEvents "Allow-Events" or "u",
    Accept "Accept",
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AcceptContact "Accept-Contact" or "a",
    RejectContact "Reject-Contact" or "j",
    RequestDisposition "Request-Disposition" or "d",
    UserAgent "User-Agent",
    Server "Server",
    Reason "Reason",
    SessionExpires "Session-Expires" or "x",
    MinSe "Min-SE",
    PAssertedIdentity "P-Asserted-Identity",
    PPreferredIdentity "P-Preferred-Identity",
    PCalledPartyId "P-Called-Party-ID",
    PAccessNetworkInfo "P-Access-Network-Info",
    PChargingVector "P-Charging-Vector",
    PEarlyMedia "P-Early-Media",
    RemotePartyId "Remote-Party-ID",
    Privacy "Privacy",
    Identity "Identity" or "y",
    IdentityInfo "Identity-Info" or "n",
    Diversion "Diversion",
    HistoryInfo "History-Info",
    AlertInfo "Alert-Info",
    CallInfo "Call-Info",
    ErrorInfo "Error-Info",
    ReferTo "Refer-To" or "r",
    ReferredBy "Referred-By" or "b",
    ReferSub "Refer-Sub",
    Replaces "Replaces",
    Join "Join",
    TargetDialog "Target-Dialog",
    RSeq "RSeq",
    RAck "RAck",
    Event "Event" or "o",
    SubscriptionState "Subscription-State",
    SipEtag "SIP-ETag",
    SipIfMatch "SIP-If-Match",
    Path "Path",
    ServiceRoute "Service-Route",
    RetryAfter "Retry-After",
    Warning "Warning",
    Date "Date",
    Timestamp "Timestamp",
    Subject "Subject" or "s",
    Organization "Organization",
    Priority "Priority",
    InReplyTo "In-Reply-To",
    ReplyTo "Reply-To",
    AnswerMode "Answer-Mode",
    PrivAnswerMode "Priv-Answer-Mode",
    UserToUser "User-to-User",
    SessionId "Session-ID",
    FlowTimer "Flow-Timer",
    SecurityClient "Security-Client",
    SecurityServer "Security-Server",
    SecurityVerify "Security-Verify",
}

/// Slots of the look-up table: a power of two well above the number of spellings, so that probing is short.
const SLOTS: usize = 512;

/// The longest known spelling, in bytes: three words.
const LONGEST: usize = 24;

/// A spelling in lower case, filled up with zeros.
type Words = [u64; 3];

/// Names, hashed by their words.
static TABLE: [(Words, Name); SLOTS] = table();

const fn slot(words: Words) -> usize {
    let mixed = words[0] ^ words[1].rotate_left(21) ^ words[2].rotate_left(42);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.trailing_zeros())) as usize
}

/// The words of a short text in any case.
const fn words(text: &[u8]) -> Words {
    let mut words = [0; 3];
    let mut i = 0;
    while i < text.len() {
        words[i / 8] |= ((text[i] | 0x20) as u64) << (i % 8 * 8);
        i += 1;
    }
    words
}

const fn table() -> [(Words, Name); SLOTS] {
    let mut table = [([0; 3], Name::Other); SLOTS];
    let mut i = 0;
    while i < SPELLINGS.len() {
        let words = words(SPELLINGS[i].0.as_bytes());
        let mut at = slot(words);
        while table[at].0[0] != 0 {
            at = (at + 1) % SLOTS;
        }
        table[at] = (words, SPELLINGS[i].1);
        i += 1;
    }
    table
}

#[inline]
fn look_up(words: Words) -> Name {
    let mut at = slot(words);
    loop {
        let (found, name) = &TABLE[at];
        // An empty slot holds no words and the name of none.
        if (found[0] ^ words[0]) | (found[1] ^ words[1]) | (found[2] ^ words[2]) == 0 || found[0] == 0 {
            return *name;
        }
        at = (at + 1) % SLOTS;
    }
}

/// The name that stands at `at` directly before a colon, and its length; None if it is long, or blanks stand before the colon, or the
/// message ends soon: the careful way finds it then.
#[inline]
pub(super) fn prefix(buf: &[u8], at: usize) -> Option<(Name, usize)> {
    let piece: &[u8; LONGEST] = buf.get(at..at + LONGEST)?.try_into().expect("24 bytes");
    let word = |i: usize| u64::from_le_bytes(piece[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
    let (a, b, c) = (word(0), word(1), word(2));
    if let Some((a, n)) = until_colon(a) {
        return Some((look_up([a, 0, 0]), n));
    }
    if let Some((b, n)) = until_colon(b) {
        return Some((look_up([a | BLANKS, b, 0]), n + 8));
    }
    let (c, n) = until_colon(c)?;
    Some((look_up([a | BLANKS, b | BLANKS, c]), n + 16))
}

/// The bytes of a word in front of its first colon, in lower case, and how many they are. A control character could pass for a letter or a
/// hyphen, but there is none: the caller has looked.
#[inline]
fn until_colon(word: u64) -> Option<(u64, usize)> {
    let other = word ^ (ONES * b':' as u64);
    let colon = other.wrapping_sub(ONES) & !other & (ONES * 0x80);
    let before = colon.trailing_zeros() & !7;
    (colon != 0).then(|| ((word | BLANKS) & ((1 << (before & 63)) - 1), before as usize / 8))
}

/// Each byte 1.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
/// Each byte a space: the bit that makes letters small.
const BLANKS: u64 = ONES * 0x20;

/// How a line of each name begins, filled up: copying a fixed length costs less than a call.
static STARTS: [([u8; LONGEST], u8); Name::COUNT] = starts();

const fn starts() -> [([u8; LONGEST], u8); Name::COUNT] {
    let mut starts = [([0; LONGEST], 0); Name::COUNT];
    let mut i = 0;
    while i < Name::COUNT {
        // A line must have a name. Who writes one of `Other` wanted another function.
        let (name, text) =
            if i == 0 { (Name::Other, "X-Unnamed") } else { (Name::ALL[i - 1], Name::ALL[i - 1].as_str()) };
        let text = text.as_bytes();
        let (start, len) = &mut starts[name as usize];
        let mut at = 0;
        while at < text.len() {
            start[at] = text[at];
            at += 1;
        }
        start[at] = b':';
        start[at + 1] = b' ';
        *len = at as u8 + 2;
        i += 1;
    }
    starts
}

impl Name {
    /// Writes the name, a colon and a space.
    #[inline]
    pub(super) fn start(self, out: &mut Vec<u8>) {
        let (start, len) = &STARTS[self as usize];
        let end = out.len() + usize::from(*len);
        out.extend_from_slice(start);
        out.truncate(end);
    }

    /// Looks a name up, long or compact, in any case.
    pub fn from_bytes(text: &[u8]) -> Name {
        if text.is_empty() || text.len() > LONGEST || text.iter().any(|&c| c <= b' ') {
            return Name::Other;
        }
        look_up(words(text))
    }

    /// Whether it may occur only once in a message.
    #[inline]
    pub(super) const fn is_single(self) -> bool {
        matches!(
            self,
            Name::From
                | Name::To
                | Name::CallId
                | Name::CSeq
                | Name::MaxForwards
                | Name::ContentLength
                | Name::ContentType
        )
    }

    /// Its bit in a message's set of names present; names share bits.
    #[inline]
    pub(super) const fn bit(self) -> u64 {
        1 << (self as u8 & 63)
    }

    /// Whether values of this header may stand in one line, separated by commas (RFC 3261 7.3.1).
    pub const fn is_list(self) -> bool {
        matches!(
            self,
            Name::Via
                | Name::Contact
                | Name::Route
                | Name::RecordRoute
                | Name::Path
                | Name::ServiceRoute
                | Name::Require
                | Name::ProxyRequire
                | Name::Supported
                | Name::Unsupported
                | Name::Allow
                | Name::AllowEvents
                | Name::Accept
                | Name::AcceptEncoding
                | Name::AcceptLanguage
                | Name::AcceptContact
                | Name::RejectContact
                | Name::RequestDisposition
                | Name::ContentEncoding
                | Name::ContentLanguage
                | Name::Reason
                | Name::PAssertedIdentity
                | Name::PPreferredIdentity
                | Name::RemotePartyId
                | Name::Diversion
                | Name::HistoryInfo
                | Name::AlertInfo
                | Name::CallInfo
                | Name::ErrorInfo
                | Name::Warning
                | Name::InReplyTo
                | Name::SecurityClient
                | Name::SecurityServer
                | Name::SecurityVerify
        )
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_found_in_any_case() {
        for (text, name) in SPELLINGS {
            assert_eq!(Name::from_bytes(text.as_bytes()), *name, "{text}");
            assert_eq!(Name::from_bytes(text.to_ascii_lowercase().as_bytes()), *name, "{text}");
            assert_eq!(Name::from_bytes(text.to_ascii_uppercase().as_bytes()), *name, "{text}");
            let line = format!("xx{}: and so on until there is enough", text.to_ascii_uppercase());
            assert_eq!(prefix(line.as_bytes(), 2), Some((*name, text.len())), "{text}");
        }
        for text in ["", "q", "Viaa", "C%6Fntact", "Call_ID", "X-Custom", "Content-Lengthh"] {
            assert_eq!(Name::from_bytes(text.as_bytes()), Name::Other, "{text}");
        }
        assert!(SPELLINGS.iter().all(|s| s.0.len() <= LONGEST) && SPELLINGS.len() < SLOTS / 2);
    }

    #[test]
    fn methods_go_both_ways() {
        for m in Method::ALL {
            assert_eq!(Method::from_bytes(m.as_str().as_bytes()), m);
        }
        assert_eq!(Method::from_bytes(b"invite"), Method::Other);
        assert_eq!(Method::from_bytes(b"RE%47IST%45R"), Method::Other);
    }
}
