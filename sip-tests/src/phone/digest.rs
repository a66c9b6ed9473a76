//! Digest authentication (RFC 7616, RFC 8760), both sides of it, written a second time.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::text::split_list;

/// What a challenge says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// realm
    pub realm: String,
    /// nonce
    pub nonce: String,
    /// opaque
    pub opaque: Option<String>,
    /// SHA-256 rather than MD5
    pub sha256: bool,
    /// qop=auth is offered
    pub qop: bool,
    /// stale=true
    pub stale: bool,
}

impl Challenge {
    /// Reads a WWW-Authenticate or Proxy-Authenticate value.
    pub fn read(value: &str) -> Option<Challenge> {
        let fields = fields(value)?;
        let get = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let algorithm = get("algorithm").unwrap_or_else(|| "MD5".into());
        let sha256 = match algorithm.to_ascii_uppercase().as_str() {
            "MD5" => false,
            "SHA-256" => true,
            _ => return None,
        };
        Some(Challenge {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            sha256,
            qop: get("qop").is_some_and(|q| q.split(',').any(|q| q.trim() == "auth")),
            stale: get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
        })
    }

    /// The value of Authorization or Proxy-Authorization.
    pub fn answer(&self, user: &str, password: &str, method: &str, uri: &str, cnonce: &str, nc: u32) -> String {
        let nc = format!("{nc:08x}");
        let qop = self.qop.then_some((cnonce, nc.as_str()));
        let response = response(self.sha256, user, &self.realm, password, method, uri, &self.nonce, qop);
        let algorithm = if self.sha256 { "SHA-256" } else { "MD5" };
        let (realm, nonce) = (&self.realm, &self.nonce);
        let mut out = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm={algorithm}"
        );
        if self.qop {
            out.push_str(&format!(", cnonce=\"{cnonce}\", qop=auth, nc={nc}"));
        }
        if let Some(opaque) = &self.opaque {
            out.push_str(&format!(", opaque=\"{opaque}\""));
        }
        out
    }
}

/// Whether `value` (Authorization) proves that its sender knows the password for `method`, and answers `nonce`.
pub fn proves(value: &str, user: &str, password: &str, method: &str, nonce: &str) -> bool {
    let Some(fields) = fields(value) else { return false };
    let get = |name: &str| fields.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
    let sha256 = get("algorithm").eq_ignore_ascii_case("SHA-256");
    let qop = (get("qop") == "auth").then(|| (get("cnonce"), get("nc")));
    let want = response(sha256, user, get("realm"), password, method, get("uri"), get("nonce"), qop);
    get("username") == user && get("nonce") == nonce && get("response") == want
}

#[expect(clippy::too_many_arguments, reason = "the RFC's formula has that many terms")]
fn response(
    sha256: bool,
    user: &str,
    realm: &str,
    password: &str,
    method: &str,
    uri: &str,
    nonce: &str,
    qop: Option<(&str, &str)>,
) -> String {
    let ha1 = hash(sha256, &format!("{user}:{realm}:{password}"));
    let ha2 = hash(sha256, &format!("{method}:{uri}"));
    match qop {
        Some((cnonce, nc)) => hash(sha256, &format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}")),
        None => hash(sha256, &format!("{ha1}:{nonce}:{ha2}")),
    }
}

fn hash(sha256: bool, text: &str) -> String {
    let bytes: Vec<u8> = if sha256 { Sha256::digest(text).to_vec() } else { Md5::digest(text).to_vec() };
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn fields(value: &str) -> Option<Vec<(String, String)>> {
    let rest = value.trim().get(..7).filter(|s| s.eq_ignore_ascii_case("digest ")).map(|_| &value.trim()[7..])?;
    let field = |part: &str| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned()))
    };
    split_list(rest).into_iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7616_3_9_1() {
        for (sha256, want) in [
            (false, "8ca523f5e9506fed4657c9700eebdbec"),
            (true, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let got = response(
                sha256,
                "Mufasa",
                "http-auth@example.org",
                "Circle of Life",
                "GET",
                "/dir/index.html",
                "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                Some(("f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "00000001")),
            );
            assert_eq!(got, want);
        }
    }

    #[test]
    fn an_answer_proves_itself() {
        let challenge = Challenge::read("Digest realm=\"r\", nonce=\"n,1\", qop=\"auth,auth-int\", algorithm=SHA-256")
            .expect("a challenge");
        let answer = challenge.answer("u", "p", "INVITE", "sip:1@a", "c", 1);
        assert!(proves(&answer, "u", "p", "INVITE", "n,1"));
        assert!(!proves(&answer, "u", "q", "INVITE", "n,1"));
    }
}
