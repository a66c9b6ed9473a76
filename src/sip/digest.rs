//! Digest authentication (RFC 3261 section 22, RFC 7616, RFC 8760): MD5 and SHA-256, `qop=auth`; `auth-int` only when a peer offers
//! nothing else; the form without qop (RFC 2069) only where asked for. Not here: nonces and their windows (the registrar's), `-sess`,
//! `userhash`.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use md5::Digest as _;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::message::Message;
use super::name::Name;
use super::uri::{Bad, unescape};

/// Realms of one response that are heeded.
const REALMS: usize = 4;

/// A hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Algorithm {
    /// Broken for other uses, and what most phones speak.
    #[serde(rename = "MD5")]
    Md5,
    /// RFC 8760.
    #[serde(rename = "SHA-256")]
    Sha256,
}

impl Algorithm {
    /// As the `algorithm` parameter has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    /// Reads an `algorithm` parameter, in any case.
    pub fn from_token(token: &str) -> Option<Algorithm> {
        [Algorithm::Md5, Algorithm::Sha256].into_iter().find(|a| a.as_str().eq_ignore_ascii_case(token))
    }

    /// The lower-case hexadecimal hash of the parts with `:` between them.
    fn hash(self, parts: &[&[u8]]) -> String {
        match self {
            Algorithm::Md5 => hex(&digest(md5::Md5::new(), parts)),
            Algorithm::Sha256 => hex(&digest(sha2::Sha256::new(), parts)),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The hash of who and secret, in lower-case hexadecimal: what may be stored instead of the password.
pub fn ha1(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> String {
    algorithm.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()])
}

/// The value of WWW-Authenticate or Proxy-Authenticate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// Whose passwords.
    pub realm: String,
    /// To be given back.
    pub nonce: String,
    /// The hash; MD5 where none was named.
    pub algorithm: Algorithm,
    /// What protection is offered.
    pub qop: Qop,
    /// To be given back when there.
    pub opaque: Option<String>,
    /// The password was right, only the nonce was old.
    pub stale: bool,
}

/// What a challenge offers to protect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Qop {
    /// Nothing named (RFC 2069).
    None,
    /// `auth`, perhaps among others.
    Auth,
    /// `auth-int` and not `auth`.
    AuthInt,
}

impl Challenge {
    /// A challenge of ours, `qop=auth`.
    pub fn new(algorithm: Algorithm, realm: impl Into<String>, nonce: impl Into<String>) -> Challenge {
        Challenge { realm: realm.into(), nonce: nonce.into(), algorithm, qop: Qop::Auth, opaque: None, stale: false }
    }

    /// Reads one challenge. Other schemes, and algorithms that we do not have, are bad.
    pub fn parse(value: &str) -> Result<Challenge, Bad> {
        let (mut realm, mut nonce, mut opaque, mut stale) = (None, None, None, false);
        let (mut algorithm, mut qop) = (Algorithm::Md5, Qop::None);
        for pair in pairs(value)? {
            let (name, text) = pair?;
            match () {
                () if name.eq_ignore_ascii_case("realm") => realm = Some(text.into_owned()),
                () if name.eq_ignore_ascii_case("nonce") => nonce = Some(text.into_owned()),
                () if name.eq_ignore_ascii_case("opaque") => opaque = Some(text.into_owned()),
                () if name.eq_ignore_ascii_case("stale") => stale = text.eq_ignore_ascii_case("true"),
                () if name.eq_ignore_ascii_case("algorithm") => {
                    algorithm = Algorithm::from_token(&text).ok_or(Bad("algorithm of challenge"))?;
                }
                () if name.eq_ignore_ascii_case("qop") => {
                    let offers = |what: &str| text.split(',').any(|q| q.trim().eq_ignore_ascii_case(what));
                    qop = match (offers("auth"), offers("auth-int")) {
                        (true, _) => Qop::Auth,
                        (_, true) => Qop::AuthInt,
                        _ => return Err(Bad("qop of challenge")),
                    };
                }
                () => {}
            }
        }
        let realm = realm.ok_or(Bad("challenge without realm"))?;
        let nonce = nonce.ok_or(Bad("challenge without nonce"))?;
        Ok(Challenge { realm, nonce, algorithm, qop, opaque, stale })
    }

    /// The topmost challenge of a 401 or 407 that we can answer (RFC 8760 2.4), and the header for it.
    pub fn choose(response: &Message) -> Option<(Name, Challenge)> {
        Challenge::all(response).into_iter().next()
    }

    /// The topmost challenge of each realm that we can answer, and the header for it. A 407 may have those of several proxies (RFC 3261 22.3).
    pub fn all(response: &Message) -> Vec<(Name, Challenge)> {
        let (ask, give) = match response.status() {
            401 => (Name::WwwAuthenticate, Name::Authorization),
            407 => (Name::ProxyAuthenticate, Name::ProxyAuthorization),
            _ => return Vec::new(),
        };
        let mut all: Vec<(Name, Challenge)> = Vec::new();
        for challenge in response.lines(ask).filter_map(|v| Challenge::parse(std::str::from_utf8(v).ok()?).ok()) {
            if all.len() < REALMS && !all.iter().any(|(_, other)| other.realm == challenge.realm) {
                all.push((give, challenge));
            }
        }
        all
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest realm={}, nonce={}, algorithm={}", Quoted(&self.realm), Quoted(&self.nonce), self.algorithm)?;
        match self.qop {
            Qop::None => {}
            Qop::Auth => f.write_str(", qop=\"auth\"")?,
            Qop::AuthInt => f.write_str(", qop=\"auth-int\"")?,
        }
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", Quoted(opaque))?;
        }
        if self.stale { f.write_str(", stale=true") } else { Ok(()) }
    }
}

/// The value of Authorization or Proxy-Authorization.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials<'a> {
    /// Who.
    pub username: Cow<'a, str>,
    /// Of which realm.
    pub realm: Cow<'a, str>,
    /// The nonce given back.
    pub nonce: Cow<'a, str>,
    /// The URI that was hashed.
    pub uri: Cow<'a, str>,
    /// The hash.
    pub response: Cow<'a, str>,
    /// MD5 where none was named.
    pub algorithm: Algorithm,
    /// `qop` as written.
    pub qop: Option<Cow<'a, str>>,
    /// The client's nonce.
    pub cnonce: Option<Cow<'a, str>>,
    /// How often this nonce was used.
    pub nc: Option<u32>,
    /// What came with the challenge.
    pub opaque: Option<Cow<'a, str>>,
}

impl<'a> Credentials<'a> {
    /// Reads one value. Other schemes, and algorithms that we do not have, are bad; so is a parameter that occurs twice.
    pub fn parse(value: &'a str) -> Result<Credentials<'a>, Bad> {
        const NAMES: [&str; 10] =
            ["username", "realm", "nonce", "uri", "response", "algorithm", "qop", "cnonce", "nc", "opaque"];
        let mut found: [Option<Cow<'a, str>>; 10] = Default::default();
        for pair in pairs(value)? {
            let (name, text) = pair?;
            if let Some(i) = NAMES.iter().position(|n| n.eq_ignore_ascii_case(name))
                && found[i].replace(text).is_some()
            {
                return Err(Bad("parameter of credentials occurs twice"));
            }
        }
        let [username, realm, nonce, uri, response, algorithm, qop, cnonce, nc, opaque] = found;
        let algorithm = match algorithm {
            Some(text) => Algorithm::from_token(&text).ok_or(Bad("algorithm of credentials"))?,
            None => Algorithm::Md5,
        };
        let nc = match nc {
            Some(text) if text.len() == 8 && text.bytes().all(|c| c.is_ascii_hexdigit()) => {
                Some(u32::from_str_radix(&text, 16).map_err(|_| Bad("nc of credentials"))?)
            }
            Some(_) => return Err(Bad("nc of credentials")),
            None => None,
        };
        Ok(Credentials {
            username: username.ok_or(Bad("credentials without username"))?,
            realm: realm.ok_or(Bad("credentials without realm"))?,
            nonce: nonce.ok_or(Bad("credentials without nonce"))?,
            uri: uri.ok_or(Bad("credentials without uri"))?,
            response: response.ok_or(Bad("credentials without response"))?,
            algorithm,
            qop,
            cnonce,
            nc,
            opaque,
        })
    }

    /// Whether the response is right for this secret and method, with `qop=auth`. Takes the same time whatever is wrong in the response.
    pub fn verify(&self, ha1: &str, method: &str) -> bool {
        match (&self.qop, &self.cnonce, self.nc) {
            (Some(qop), Some(cnonce), Some(nc)) if qop.eq_ignore_ascii_case("auth") => {
                let nc = format!("{nc:08x}");
                let middle: [&[u8]; 3] = [nc.as_bytes(), cnonce.as_bytes(), qop.as_bytes()];
                self.matches(ha1, method, &middle)
            }
            _ => false,
        }
    }

    /// The same for a challenge that had no qop (RFC 2069): credentials with `qop=auth` count, and those without any.
    pub fn verify_without_qop(&self, ha1: &str, method: &str) -> bool {
        if self.qop.is_none() { self.matches(ha1, method, &[]) } else { self.verify(ha1, method) }
    }

    fn matches(&self, ha1: &str, method: &str, middle: &[&[u8]]) -> bool {
        let expected = response(self.algorithm, ha1, &self.nonce, middle, method, &self.uri, None);
        let given = self.response.to_ascii_lowercase();
        expected.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// The value of Authorization or Proxy-Authorization that answers a challenge. `nc` counts the uses of this nonce from 1; `cnonce` is fresh
/// random text; `body` only matters where a peer insists on `auth-int`.
#[allow(clippy::too_many_arguments)]
pub fn answer(
    challenge: &Challenge,
    user: &str,
    password: &str,
    method: &str,
    uri: &str,
    cnonce: &str,
    nc: u32,
    body: &[u8],
) -> String {
    let algorithm = challenge.algorithm;
    let ha1 = ha1(algorithm, user, &challenge.realm, password);
    let nc = format!("{nc:08x}");
    let (qop, body) = match challenge.qop {
        Qop::None => (None, None),
        Qop::Auth => (Some("auth"), None),
        Qop::AuthInt => (Some("auth-int"), Some(body)),
    };
    let response = match qop {
        None => response(algorithm, &ha1, &challenge.nonce, &[], method, uri, None),
        Some(qop) => {
            let middle: [&[u8]; 3] = [nc.as_bytes(), cnonce.as_bytes(), qop.as_bytes()];
            response(algorithm, &ha1, &challenge.nonce, &middle, method, uri, body)
        }
    };
    let mut out = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\", algorithm={algorithm}",
        Quoted(user),
        Quoted(&challenge.realm),
        Quoted(&challenge.nonce),
        Quoted(uri),
    );
    // Writing to a string cannot fail.
    if let Some(qop) = qop {
        let _ = write!(out, ", qop={qop}, nc={nc}, cnonce={}", Quoted(cnonce));
    }
    if let Some(opaque) = &challenge.opaque {
        let _ = write!(out, ", opaque={}", Quoted(opaque));
    }
    out
}

/// `H(HA1 : nonce [: nc : cnonce : qop] : H(method : uri [: H(body)]))`
fn response(
    algorithm: Algorithm,
    ha1: &str,
    nonce: &str,
    middle: &[&[u8]],
    method: &str,
    uri: &str,
    body: Option<&[u8]>,
) -> String {
    let ha2 = match body {
        None => algorithm.hash(&[method.as_bytes(), uri.as_bytes()]),
        Some(body) => algorithm.hash(&[method.as_bytes(), uri.as_bytes(), algorithm.hash(&[body]).as_bytes()]),
    };
    match *middle {
        [nc, cnonce, qop] => algorithm.hash(&[ha1.as_bytes(), nonce.as_bytes(), nc, cnonce, qop, ha2.as_bytes()]),
        _ => algorithm.hash(&[ha1.as_bytes(), nonce.as_bytes(), ha2.as_bytes()]),
    }
}

fn digest<D: md5::Digest>(mut hasher: D, parts: &[&[u8]]) -> impl AsRef<[u8]> + use<D> {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            hasher.update(b":");
        }
        hasher.update(part);
    }
    hasher.finalize()
}

fn hex(bytes: &impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .as_ref()
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// Text as a quoted string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => {}
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// The parameters of a value of the scheme `Digest`.
fn pairs(value: &str) -> Result<Pairs<'_>, Bad> {
    let value = value.trim();
    match value.split_at_checked(6) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("Digest") && rest.starts_with([' ', '\t']) => {
            Ok(Pairs { rest })
        }
        _ => Err(Bad("scheme of authentication")),
    }
}

/// `name=value` with commas between; a value is a token or a quoted string.
struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, Cow<'a, str>), Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_start_matches([' ', '\t', ',']);
        self.rest = "";
        if rest.is_empty() {
            return None;
        }
        let bad = Some(Err(Bad("parameter of authentication")));
        let Some((name, rest)) = rest.split_once('=') else { return bad };
        let (name, rest) = (name.trim_end(), rest.trim_start());
        if name.is_empty() || !super::chars::all(name.as_bytes(), super::chars::TOKEN) {
            return bad;
        }
        let (text, rest) = if rest.starts_with('"') {
            let Some(end) = super::chars::quoted_end(rest.as_bytes(), 0) else { return bad };
            let inner = &rest[1..end - 1];
            (if inner.contains('\\') { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) }, &rest[end..])
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (Cow::Borrowed(rest[..end].trim_end()), &rest[end..])
        };
        let rest = rest.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return bad;
        }
        self.rest = rest;
        Some(Ok((name, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC7616: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=ALG, \
        nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";

    /// RFC 7616 3.9.1.
    #[test]
    fn vectors_of_rfc_7616() {
        let table = [
            ("MD5", Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ];
        for (name, algorithm, expected) in table {
            let challenge = Challenge::parse(&RFC7616.replace("ALG", name)).unwrap();
            assert_eq!((challenge.algorithm, challenge.qop), (algorithm, Qop::Auth));
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let value = answer(&challenge, "Mufasa", "Circle of Life", "GET", "/dir/index.html", cnonce, 1, b"");
            assert!(value.contains(&format!("response=\"{expected}\"")), "{value}");
            let credentials = Credentials::parse(&value).unwrap();
            let secret = ha1(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life");
            assert!(credentials.verify(&secret, "GET") && credentials.nc == Some(1));
            assert!(!credentials.verify(&secret, "POST"));
            assert!(!credentials.verify(&ha1(algorithm, "Mufasa", "http-auth@example.org", "circle of life"), "GET"));
            assert_eq!(credentials.opaque.as_deref(), challenge.opaque.as_deref());
        }
    }

    /// RFC 2617 3.5 with qop, and RFC 2069's form of it.
    #[test]
    fn vectors_of_rfc_2617_and_2069() {
        let with = "Digest username=\"Mufasa\",realm=\"testrealm@host.com\",nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\",uri=\"/dir/index.html\",\
            qop=auth,nc=00000001,cnonce=\"0a4f113b\",response=\"6629fae49393a05397450978507c4ef1\",opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let secret = ha1(Algorithm::Md5, "Mufasa", "testrealm@host.com", "Circle Of Life");
        assert_eq!(secret, "939e7578ed9e3c518a452acee763bce9");
        assert!(Credentials::parse(with).unwrap().verify(&secret, "GET"));
        let without = "digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
            uri=\"/dir/index.html\", response=\"670FD8C2DF070C60B045671B8B24FF02\"";
        let credentials = Credentials::parse(without).unwrap();
        assert!(credentials.verify_without_qop(&secret, "GET") && !credentials.verify(&secret, "GET"));
    }

    #[test]
    fn challenges_go_both_ways() {
        let mut challenge = Challenge::new(Algorithm::Sha256, "a \"b\" \\c", "n/=");
        (challenge.opaque, challenge.stale) = (Some("o".into()), true);
        let text = challenge.to_string();
        assert_eq!(
            text,
            r#"Digest realm="a \"b\" \\c", nonce="n/=", algorithm=SHA-256, qop="auth", opaque="o", stale=true"#
        );
        assert_eq!(Challenge::parse(&text).unwrap(), challenge);
        let lean = Challenge::parse("DIGEST  nonce=abc , realm = \"r\"").unwrap();
        assert_eq!((lean.algorithm, lean.qop, lean.stale), (Algorithm::Md5, Qop::None, false));
        for bad in [
            "Basic realm=\"x\"",
            "Digest",
            "Digest ",
            "Digest realm=\"x\"",
            "Digest realm=\"x\", nonce=\"y",
            "Digest realm=\"x\" nonce=\"y\"",
            "Digest realm=\"x\", nonce=\"y\", algorithm=MD5-sess",
            "Digest realm=\"x\", nonce=\"y\", qop=\"token\"",
        ] {
            assert!(Challenge::parse(bad).is_err(), "{bad}");
        }
        for bad in ["nc=1", "nc=+0000001", "nc=00000001, nc=00000001", "algorithm=SHA-512-256"] {
            let text = format!("Digest username=\"a\", realm=\"b\", nonce=\"c\", uri=\"d\", response=\"e\", {bad}");
            assert!(Credentials::parse(&text).is_err(), "{bad}");
        }
    }

    #[test]
    fn auth_int_only_where_nothing_else_is_offered() {
        let challenge = Challenge::parse("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"").unwrap();
        let value = answer(&challenge, "u", "p", "INVITE", "sip:a@b", "c", 2, b"v=0\r\n");
        assert!(value.contains("qop=auth-int, nc=00000002"));
        assert_ne!(value, answer(&challenge, "u", "p", "INVITE", "sip:a@b", "c", 2, b""));
        assert!(!Credentials::parse(&value).unwrap().verify(&ha1(Algorithm::Md5, "u", "r", "p"), "INVITE"));
    }
}
