//! What a request of ours proves itself with (RFC 3261 22.2, 22.3): an answer to each proxy and server that has challenged it. Not here: when a
//! request is sent again, and whose password it is.

use super::digest::{self, Challenge};
use super::message::Message;
use super::name::{Method, Name};
use crate::base::Rng;

/// How often one request is sent again because it was challenged: by two servers, each of which may find its nonce stale.
pub const MAX_CHALLENGES: u8 = 4;

/// Answers to challenges, one for each realm.
#[derive(Clone, Default, Debug)]
pub struct Proofs {
    proofs: Vec<Proof>,
    challenged: u8,
}

#[derive(Clone, Debug)]
struct Proof {
    /// Authorization or Proxy-Authorization.
    name: Name,
    challenge: Challenge,
    /// How often its nonce was used (`nc`).
    uses: u32,
    /// What was sent last.
    value: String,
}

impl Proofs {
    /// Takes the challenges of a 401 or 407. Whether the request may go out again: not if there is none that we can answer, if one comes again
    /// that our password did not satisfy, or too often.
    pub fn challenged(&mut self, response: &Message) -> bool {
        let challenges = Challenge::all(response);
        let any = !challenges.is_empty();
        for (name, challenge) in challenges {
            let asker = |p: &&mut Proof| p.name == name && p.challenge.realm == challenge.realm;
            let new = |challenge| Proof { name, challenge, uses: 0, value: String::new() };
            match self.proofs.iter_mut().find(asker) {
                // A nonce that was good for one request need not say that it is stale now.
                Some(proof) if challenge.stale || proof.uses > 1 => *proof = new(challenge),
                Some(_) => return false,
                None => self.proofs.push(new(challenge)),
            }
        }
        self.challenged = self.challenged.saturating_add(1);
        any && self.challenged <= MAX_CHALLENGES
    }

    /// Answers all challenges for a request that goes out now, with this request URI and body.
    pub fn prove(&mut self, (user, password): (&str, &str), method: Method, uri: &str, body: &[u8], rng: &mut Rng) {
        for proof in &mut self.proofs {
            proof.uses += 1;
            let cnonce = format!("{:016x}", rng.bits());
            let method = method.as_str();
            proof.value = digest::answer(&proof.challenge, user, password, method, uri, &cnonce, proof.uses, body);
        }
    }

    /// The answers as they were given last: the ACK of an INVITE says what the INVITE did (RFC 3261 13.2.2.4).
    pub fn values(&self) -> impl Iterator<Item = (Name, &str)> {
        self.proofs.iter().map(|proof| (proof.name, proof.value.as_str()))
    }

    /// The answer in this header, Authorization or Proxy-Authorization.
    pub fn value(&self, name: Name) -> Option<&str> {
        self.values().find(|value| value.0 == name).map(|value| value.1)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::sip::digest::Credentials;

    const US: (&str, &str) = ("u", "p");

    fn refusal(status: u16, challenges: &[&str]) -> Message {
        let name = if status == 401 { "WWW-Authenticate" } else { "Proxy-Authenticate" };
        let lines: String = challenges.iter().map(|c| format!("{name}: Digest {c}, qop=\"auth\"\r\n")).collect();
        let text = format!(
            "SIP/2.0 {status} No\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: c\r\n\
             CSeq: 1 INVITE\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).expect("the test writes it well")
    }

    fn sent(proofs: &mut Proofs) -> Vec<(Name, String, String, u32)> {
        proofs.prove(US, Method::Invite, "sip:b@h", b"", &mut Rng::from_number(1));
        let read = |(name, value)| {
            let read = Credentials::parse(value).expect("we wrote it");
            (name, read.realm.into_owned(), read.nonce.into_owned(), read.nc.expect("it is counted"))
        };
        proofs.values().map(read).collect()
    }

    #[test]
    fn each_server_on_the_way_gets_its_own_answer() {
        let mut proofs = Proofs::default();
        assert!(proofs.challenged(&refusal(407, &["realm=\"proxy\", nonce=\"1\""])));
        assert_eq!(sent(&mut proofs), [(Name::ProxyAuthorization, "proxy".into(), "1".into(), 1)]);
        // the user agent server behind it, with two realms, and two hashes for one of them
        let two =
            ["realm=\"uas\", nonce=\"2\"", "realm=\"uas\", nonce=\"3\", algorithm=SHA-256", "realm=\"x\", nonce=\"4\""];
        assert!(proofs.challenged(&refusal(401, &two)));
        assert_eq!(
            sent(&mut proofs),
            [
                (Name::ProxyAuthorization, "proxy".into(), "1".into(), 2),
                (Name::Authorization, "uas".into(), "2".into(), 1),
                (Name::Authorization, "x".into(), "4".into(), 1),
            ]
        );
        assert!(proofs.value(Name::ProxyAuthorization).is_some_and(|value| value.contains("nc=00000002")));
    }

    #[test]
    fn a_wrong_password_is_not_tried_twice_and_a_stale_nonce_is() {
        let first = refusal(401, &["realm=\"r\", nonce=\"1\""]);
        let again = refusal(401, &["realm=\"r\", nonce=\"2\""]);
        let stale = refusal(401, &["realm=\"r\", nonce=\"2\", stale=true"]);
        let rows = [("wrong", 1, &again, false), ("used twice", 2, &again, true), ("stale", 1, &stale, true)];
        for (what, uses, answer, goes) in rows {
            let mut proofs = Proofs::default();
            assert!(proofs.challenged(&first));
            (0..uses).for_each(|_| drop(sent(&mut proofs)));
            assert_eq!(proofs.challenged(answer), goes, "{what}");
            if goes {
                assert_eq!(sent(&mut proofs), [(Name::Authorization, "r".into(), "2".into(), 1)], "{what}");
            }
        }
        let mut proofs = Proofs::default();
        let times = std::iter::repeat_with(|| proofs.challenged(&stale)).take_while(|again| *again).take(100).count();
        assert_eq!(times, usize::from(MAX_CHALLENGES));
        assert!(!Proofs::default().challenged(&refusal(401, &[])));
        assert!(!Proofs::default().challenged(&refusal(403, &["realm=\"r\", nonce=\"1\""])));
    }
}
