//! Who is this? Digest authentication of phones (RFC 7616, RFC 8760; RFC 3261 section 22) and what guards it: nonces that
//! cost no memory until somebody proved to know a password, no answer heard twice, guessing slowed down, and nothing in
//! shape or in time that tells an unknown user from a wrong password. Challenges of trunks are answered elsewhere.
//!
//! A nonce is the microsecond of its minting and an HMAC-SHA256 over that, the source (address, port, transport) and the
//! realm. A nonce that is not ours, of another source, or too old is answered `stale=true` *before* any password is
//! looked at: so nobody who cannot receive at his source address can guess, and nobody can lock out an address that he
//! only pretends to have.
//!
//! Failures count for the pair of address and user name first: a phone with an old password backs off alone. One such pair
//! at a time is all that an address has for nothing; every other failure there counts for the address too, so that whoever
//! tries many names, or many passwords, is slowed down whole. Nothing here knows whether a name exists. The same answer
//! sent again is no new guess, nor is a right password over the wrong URI.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::contact;
use crate::base::{Instant, Now, Rng};
use crate::directory::{Directory, Label};
use crate::sip::Message;
use crate::sip::digest::{self, Algorithm, Challenge, Credentials};
use crate::sip::name::{Method, Name};
use crate::sip::transport::Flow;

/// How long a nonce is good for.
pub const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// Nonces with a proven login that we remember; beyond it the oldest go stale early.
pub const NONCES: usize = 1 << 17;
/// How far behind the highest nonce count an unused one may come in (requests overtake each other).
pub const NC_WINDOW: u32 = 64;
/// Credentials in one request that we look at.
pub const CREDENTIALS: usize = 8;
/// Addresses whose failed logins are counted; pairs of address and user name too.
pub const SOURCES: usize = 16_384;
/// Extensions whose failed logins are counted.
pub const VICTIMS: usize = 16_384;
/// Failed logins under one name from one address, in a row. With [`SOURCE_LIMIT`] not more than 10 a minute, and less than
/// what [`AOR_LIMIT`] takes: one address alone never shuts an extension out elsewhere.
pub const PAIR_LIMIT: Limit = Limit { burst: 3, interval: Duration::from_secs(45) };
/// Failed logins of one address under all names but one.
pub const SOURCE_LIMIT: Limit = Limit { burst: 3, interval: Duration::from_secs(15) };
/// The same where any extension lives: an office behind one address has more than one phone with an old password.
pub const OFFICE_LIMIT: Limit = Limit { burst: 20, interval: Duration::from_secs(6) };
/// Failed logins of one extension from everywhere: 100 within the first hour.
pub const AOR_LIMIT: Limit = Limit { burst: 10, interval: Duration::from_secs(40) };
/// Failed logins of one extension from an address where it lives.
pub const HOME_LIMIT: Limit = Limit { burst: 10, interval: Duration::from_secs(6) };

/// How often full tables are searched for what can go.
const SWEEP: Duration = Duration::from_secs(10);
/// Bytes of the HMAC that a nonce carries.
const PROOF: usize = 12;
/// Characters of a nonce: 6 bytes of time and the proof in base 64.
const NONCE_LEN: usize = 24;
/// What an unknown user's password is for the arithmetic.
const NOBODY: &str = "nobody-has-this";

/// Who sent a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// This extension; its number.
    Known(Label),
    /// Not proven: to be answered with `status` (401, or 407 to a proxy's question) and these headers, strongest wish first.
    Challenge {
        /// 401 or 407.
        status: u16,
        /// WWW-Authenticate or Proxy-Authenticate, one per algorithm, in the order of `[node] digest`.
        headers: Vec<(Name, String)>,
    },
    /// Proven to be somebody who may not do this: 403 for a From that is not his.
    Refuse(u16),
}

/// Why a login failed: for the operator alone, the peer hears the same whatever it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// There is no such extension.
    UnknownUser,
    /// The password is another.
    WrongPassword,
    /// After earlier failures of this user or address nothing is looked at for a while.
    Waits,
    /// An algorithm that `[node] digest` does not name.
    Algorithm,
    /// The URI in the credentials is not that of the request.
    Uri,
    /// No nonce count: credentials of RFC 2069, without qop.
    NoCount,
    /// Credentials that were used before.
    Replay,
    /// Proven, but the request speaks in another's name.
    OtherName,
}

impl Fault {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Fault::UnknownUser => "there is no such extension",
            Fault::WrongPassword => "wrong password",
            Fault::Waits => "too many failures: nothing is looked at for a while",
            Fault::Algorithm => "an algorithm that [node] digest does not name",
            Fault::Uri => "the URI in its credentials is not that of the request",
            Fault::NoCount => "credentials without qop",
            Fault::Replay => "credentials that were used before",
            Fault::OtherName => "right password, but From names somebody else",
        }
    }
}

/// What an address is to the extension that somebody there claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It has a live binding there.
    Home,
    /// Another has.
    Office,
    /// Nobody has.
    Elsewhere,
}

/// A rate of failures: `burst` at once, then one per `interval`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// At once.
    pub burst: u32,
    /// Until the next.
    pub interval: Duration,
}

/// Digest authentication as a value.
#[derive(Debug)]
pub struct Auth {
    /// Keyed once; cloned for each nonce.
    mac: Hmac<Sha256>,
    /// The last nonce's time; no two nonces share one.
    minted: u64,
    /// Nonces minted at or before this are stale, whatever their age.
    floor: u64,
    /// Nonces that a login was proven with, by their time.
    used: BTreeMap<u64, Window>,
    pairs: Failures<(u64, IpAddr)>,
    sources: Failures<IpAddr>,
    offices: Failures<IpAddr>,
    /// The user name, as a hash, whose failures an address has for nothing while its pair is in debt.
    spared: hashbrown::HashMap<IpAddr, u64, ahash::RandomState>,
    victims: Failures<Label>,
    homes: Failures<(Label, IpAddr)>,
    hasher: ahash::RandomState,
    /// Stands for every unknown user, so that counting costs the same.
    nobody: Label,
    /// What was wrong with the last login, until it is taken.
    fault: Option<(String, Fault)>,
}

impl Auth {
    /// Draws its key.
    pub fn new(rng: &mut Rng) -> Auth {
        let mut key = [0; 32];
        rng.fill(&mut key);
        Auth {
            mac: <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("HMAC takes keys of any length"),
            minted: 0,
            floor: 0,
            used: BTreeMap::new(),
            pairs: Failures::new(PAIR_LIMIT, SOURCES, rng),
            sources: Failures::new(SOURCE_LIMIT, SOURCES, rng),
            offices: Failures::new(OFFICE_LIMIT, SOURCES, rng),
            spared: hashbrown::HashMap::with_hasher(rng.hasher()),
            victims: Failures::new(AOR_LIMIT, VICTIMS, rng),
            homes: Failures::new(HOME_LIMIT, VICTIMS, rng),
            hasher: rng.hasher(),
            nobody: Label::from(""),
            fault: None,
        }
    }

    /// Who sent `msg`, which came by `flow`? `proxy`: we are asked to carry it on (407), not to serve it (401).
    /// No extension is spared the back-off; [`super::Registrar::check`] spares those that live where the request came from.
    pub fn check(&mut self, now: Now, flow: &Flow, msg: &Message, directory: &Directory, proxy: bool) -> Verdict {
        self.check_at(now, flow, msg, directory, proxy, |_, _| Place::Elsewhere)
    }

    /// As [`Auth::check`]; `place` says what an address is to an extension: failures elsewhere do not lock it out at home.
    pub fn check_at(
        &mut self,
        now: Now,
        flow: &Flow,
        msg: &Message,
        directory: &Directory,
        proxy: bool,
        place: impl FnOnce(&str, IpAddr) -> Place,
    ) -> Verdict {
        let realm = realm(directory);
        let name = if proxy { Name::ProxyAuthorization } else { Name::Authorization };
        let given = msg
            .lines(name)
            .take(CREDENTIALS)
            .filter_map(|line| Credentials::parse(std::str::from_utf8(line).ok()?).ok())
            .find(|c| c.realm == realm);
        let Some(given) = given else {
            return self.challenge(now.mono, flow, directory, proxy, false);
        };
        match self.judge(now.mono, flow, msg, directory, &given, place) {
            Judgement::Stale => self.challenge(now.mono, flow, directory, proxy, true),
            Judgement::Wrong(fault) => {
                self.fault = Some((given.username.to_string(), fault));
                self.challenge(now.mono, flow, directory, proxy, false)
            }
            Judgement::Proven(who) if speaks_for(msg, &who) => Verdict::Known(who),
            Judgement::Proven(who) => {
                self.fault = Some((who.to_string(), Fault::OtherName));
                Verdict::Refuse(403)
            }
        }
    }

    /// What was wrong with the login that the last check did not let in: user name and reason. None where none was tried.
    pub fn take_fault(&mut self) -> Option<(String, Fault)> {
        self.fault.take()
    }

    /// Nonces with a proven login that are remembered.
    pub fn remembered(&self) -> usize {
        self.used.len()
    }

    fn judge(
        &mut self,
        now: Instant,
        flow: &Flow,
        msg: &Message,
        directory: &Directory,
        given: &Credentials<'_>,
        place: impl FnOnce(&str, IpAddr) -> Place,
    ) -> Judgement {
        let Some(minted) = self.minted_at(&given.nonce, flow, realm(directory)) else {
            return Judgement::Stale;
        };
        if minted <= self.floor || now.since(Instant::from_micros(minted)) > NONCE_LIFETIME {
            return Judgement::Stale;
        }

        // From here on the same work for a known and an unknown user.
        let extension = directory.extension(&given.username);
        let (who, password) = match extension {
            Some(e) => (&e.number, &*e.password.0),
            None => (&self.nobody, NOBODY),
        };
        let (who, source) = (who.clone(), network(flow.remote.ip()));
        let ha1 = digest::ha1(given.algorithm, &given.username, realm(directory), password);
        let knows = given.verify(&ha1, msg.method_text()) & extension.is_some();
        let proven = knows
            & directory.node.digest.contains(&given.algorithm)
            & contact::same_request(given.uri.as_ref(), msg.request_uri(), directory);
        let place = place(&who, flow.remote.ip());
        let pair = (hash(&self.hasher, &*given.username), source);
        let locked = match place {
            Place::Home => self.homes.locked(now, &(who.clone(), source)),
            Place::Office => {
                self.pairs.locked(now, &pair) | self.offices.locked(now, &source) | self.victims.locked(now, &who)
            }
            Place::Elsewhere => {
                self.pairs.locked(now, &pair) | self.sources.locked(now, &source) | self.victims.locked(now, &who)
            }
        };
        if locked {
            return Judgement::Wrong(Fault::Waits);
        }
        if !knows {
            let guess = hash(&self.hasher, (minted, &*given.response));
            self.count(now, place, who, pair, guess);
            return Judgement::Wrong(if extension.is_some() { Fault::WrongPassword } else { Fault::UnknownUser });
        }
        if !proven {
            let known = directory.node.digest.contains(&given.algorithm);
            return Judgement::Wrong(if known { Fault::Uri } else { Fault::Algorithm });
        }

        let Some(nc) = given.nc else { return Judgement::Wrong(Fault::NoCount) };
        self.forget_old(now);
        let request = (hash(&self.hasher, (msg.call_id(), msg.via().branch())) as u32).max(1);
        match self.used.entry(minted).or_default().take(nc, request) {
            Taken::New => {
                if self.used.len() > NONCES
                    && let Some((oldest, _)) = self.used.pop_first()
                {
                    self.floor = self.floor.max(oldest);
                }
                self.forgive(pair);
                Judgement::Proven(who)
            }
            Taken::FirstReplay => Judgement::Stale,
            Taken::Replay => Judgement::Wrong(Fault::Replay),
        }
    }

    /// Counts a wrong password.
    fn count(&mut self, now: Instant, place: Place, who: Label, pair: (u64, IpAddr), guess: u64) {
        let (name, source) = pair;
        if place == Place::Home {
            self.homes.count(now, (who, source), guess);
            return;
        }
        let counted = self.pairs.count(now, pair, guess);
        if self.pairs.swept == now {
            let pairs = &self.pairs.debts;
            self.spared.retain(|source, name| pairs.contains_key(&(*name, *source)));
        }
        if counted == Counted::Again {
            return;
        }
        self.victims.count(now, who, guess);
        // What its pair does not back off is not spared either.
        if counted == Counted::Once && self.spares(now, source, name) {
            return;
        }
        let addresses = if place == Place::Office { &mut self.offices } else { &mut self.sources };
        addresses.count(now, source, guess);
    }

    /// Whether the failures under this name are the ones that the address has for nothing; the first to fail gets that.
    fn spares(&mut self, now: Instant, source: IpAddr, name: u64) -> bool {
        match self.spared.get(&source) {
            Some(spared) if *spared != name && self.pairs.owes(now, &(*spared, source)) => false,
            _ => {
                // Bounded: who is here has a pair.
                self.spared.insert(source, name);
                true
            }
        }
    }

    /// A login succeeded: the next failure of the pair is its first again.
    fn forgive(&mut self, pair: (u64, IpAddr)) {
        self.pairs.debts.remove(&pair);
        if self.spared.get(&pair.1) == Some(&pair.0) {
            self.spared.remove(&pair.1);
        }
    }

    fn challenge(&mut self, now: Instant, flow: &Flow, directory: &Directory, proxy: bool, stale: bool) -> Verdict {
        self.minted = now.micros().max(self.minted + 1);
        let nonce = self.nonce(self.minted, flow, realm(directory));
        let (status, name) = if proxy { (407, Name::ProxyAuthenticate) } else { (401, Name::WwwAuthenticate) };
        let wanted: &[Algorithm] = if directory.node.digest.is_empty() {
            &[Algorithm::Sha256, Algorithm::Md5]
        } else {
            &directory.node.digest
        };
        let header = |algorithm: &Algorithm| {
            let challenge = Challenge { stale, ..Challenge::new(*algorithm, realm(directory), nonce.as_str()) };
            (name, challenge.to_string())
        };
        Verdict::Challenge { status, headers: wanted.iter().map(header).collect() }
    }

    fn nonce(&self, minted: u64, flow: &Flow, realm: &str) -> String {
        let mut mac = self.mac.clone();
        mac.update(&minted.to_be_bytes());
        match flow.remote.ip().to_canonical() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&flow.remote.port().to_be_bytes());
        mac.update(&[flow.transport as u8]);
        mac.update(realm.as_bytes());
        let proof = mac.finalize().into_bytes();
        let mut bytes = [0; 6 + PROOF];
        bytes[..6].copy_from_slice(&minted.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&proof[..PROOF]);
        base64(&bytes)
    }

    /// When we minted this nonce for this source; none if we did not.
    fn minted_at(&self, nonce: &str, flow: &Flow, realm: &str) -> Option<u64> {
        if nonce.len() != NONCE_LEN {
            return None;
        }
        let minted = nonce.as_bytes()[..8]
            .iter()
            .try_fold(0u64, |sum, c| BASE64.iter().position(|b| b == c).map(|digit| (sum << 6) | digit as u64))?;
        let ours = self.nonce(minted, flow, realm);
        bool::from(ours.as_bytes().ct_eq(nonce.as_bytes())).then_some(minted)
    }

    fn forget_old(&mut self, now: Instant) {
        let dead = now.micros().saturating_sub(NONCE_LIFETIME.as_micros() as u64);
        while let Some(entry) = self.used.first_entry()
            && *entry.key() < dead
        {
            entry.remove();
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Judgement {
    Proven(Label),
    Wrong(Fault),
    Stale,
}

/// The nonce counts that were used with one nonce (RFC 7616 section 5.12).
#[derive(Default, Debug)]
struct Window {
    highest: u32,
    /// Bit `i`: `highest - i` was used.
    used: u64,
    /// The request that was told `stale=true` for a used count, as a hash; 0 for none.
    replayed: u32,
}

#[derive(PartialEq, Eq, Debug)]
enum Taken {
    New,
    FirstReplay,
    Replay,
}

impl Window {
    /// `request`: a hash of which request it is, the same for a retransmission, whose first answer may have been lost.
    fn take(&mut self, nc: u32, request: u32) -> Taken {
        if nc > self.highest {
            let ahead = nc - self.highest;
            self.used = if ahead < NC_WINDOW { (self.used << ahead) | 1 } else { 1 };
            self.highest = nc;
            return Taken::New;
        }
        let behind = self.highest - nc;
        if nc != 0 && behind < NC_WINDOW && self.used & (1 << behind) == 0 {
            self.used |= 1 << behind;
            return Taken::New;
        }
        if self.replayed == 0 {
            self.replayed = request;
        }
        if self.replayed == request { Taken::FirstReplay } else { Taken::Replay }
    }
}

/// Failures by key. What is kept is when the debt of a key is paid off; a key without debt is forgotten.
#[derive(Debug)]
struct Failures<K> {
    limit: Limit,
    most: usize,
    debts: hashbrown::HashMap<K, Debt, ahash::RandomState>,
    swept: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Debt {
    paid_at: Instant,
    /// The last guess, as a hash.
    guess: u64,
}

#[derive(PartialEq, Eq, Debug)]
enum Counted {
    Once,
    /// It is the last guess, sent again: not counted.
    Again,
    /// No room: not counted.
    Full,
}

impl<K: std::hash::Hash + Eq> Failures<K> {
    fn new(limit: Limit, most: usize, rng: &mut Rng) -> Failures<K> {
        Failures { limit, most, debts: hashbrown::HashMap::with_hasher(rng.hasher()), swept: Instant::ZERO }
    }

    fn locked(&self, now: Instant, key: &K) -> bool {
        let debt = self.debts.get(key).map_or(Duration::ZERO, |debt| debt.paid_at.since(now));
        debt > self.limit.interval * (self.limit.burst - 1)
    }

    fn owes(&self, now: Instant, key: &K) -> bool {
        self.debts.get(key).is_some_and(|debt| debt.paid_at > now)
    }

    /// A full table counts no new keys until old ones are paid off; the other tables still hold.
    fn count(&mut self, now: Instant, key: K, guess: u64) -> Counted {
        if self.debts.len() >= self.most && now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.debts.retain(|_, debt| debt.paid_at > now);
        }
        let full = self.debts.len() >= self.most;
        match self.debts.get_mut(&key) {
            Some(debt) if debt.guess == guess => Counted::Again,
            Some(debt) => {
                *debt = Debt { paid_at: now.max(debt.paid_at) + self.limit.interval, guess };
                Counted::Once
            }
            None if full => Counted::Full,
            None => {
                self.debts.insert(key, Debt { paid_at: now + self.limit.interval, guess });
                Counted::Once
            }
        }
    }
}

/// A hash under our own key.
fn hash(hasher: &ahash::RandomState, of: impl std::hash::Hash) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, of)
}

/// The digest realm: our first domain.
pub fn realm(directory: &Directory) -> &str {
    directory.node.domains.first().map_or("strowger", |d| d)
}

/// Whether the From is the one who logged in. Who hides (RFC 3323 section 4.1.1.3) names nobody else; a REGISTER cannot hide.
fn speaks_for(msg: &Message, who: &str) -> bool {
    let from = msg.from();
    let user = from.uri.user_decoded();
    user == who || (msg.method() != Method::Register && from.uri.host.eq_ignore_ascii_case("anonymous.invalid"))
}

/// What counts as one source: an IPv4 address, or an IPv6 network of 64 bits.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base 64 (RFC 4648 section 5) of a whole number of 3-byte groups.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 3 * 4);
    for group in bytes.chunks_exact(3) {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for shift in [18, 12, 6, 0] {
            text.push(BASE64[(bits >> shift) as usize & 63] as char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrar::tests::{at, flow, office, request};
    use crate::sip::Transport;

    /// A client that knows digest from its own code path: it takes challenges and answers them.
    struct Client {
        auth: Auth,
        office: Directory,
        from: Flow,
        /// Of the last request; its branch is of it.
        cseq: u32,
    }

    /// What a test varies in an answer.
    #[derive(Clone)]
    struct Answer {
        user: &'static str,
        from: &'static str,
        password: &'static str,
        signed: &'static str,
        nc: u32,
        /// Which of the challenges.
        which: usize,
    }

    const RIGHT: Answer =
        Answer { user: "121", from: "121", password: "secret-of-121", signed: "sip:office.example", nc: 1, which: 0 };

    impl Client {
        fn new() -> Client {
            Client {
                auth: Auth::new(&mut Rng::from_number(5)),
                office: office(),
                from: flow(Transport::Udp, 1, 5060),
                cseq: 0,
            }
        }

        fn send(&mut self, second: u64, lines: &[&str], from: &str) -> Verdict {
            self.cseq += 1;
            self.send_again(second, lines, from)
        }

        fn send_again(&mut self, second: u64, lines: &[&str], from: &str) -> Verdict {
            let msg = request("REGISTER", "sip:office.example", from, self.cseq, lines);
            self.auth.check(at(second), &self.from, &msg, &self.office, false)
        }

        fn challenge(&mut self, second: u64) -> Vec<Challenge> {
            challenges(&self.send(second, &[], "121"))
        }

        fn line(&self, challenges: &[Challenge], a: &Answer) -> String {
            let c = &challenges[a.which];
            let value = digest::answer(c, a.user, a.password, "REGISTER", a.signed, "cn", a.nc, b"");
            format!("Authorization: {value}")
        }

        fn answer(&mut self, second: u64, challenges: &[Challenge], a: &Answer) -> Verdict {
            let line = self.line(challenges, a);
            self.send(second, &[&line], a.from)
        }
    }

    fn challenges(verdict: &Verdict) -> Vec<Challenge> {
        let Verdict::Challenge { status: 401, headers } = verdict else { panic!("{verdict:?}") };
        headers.iter().map(|(name, v)| (*name, Challenge::parse(v).expect("ours")).1).collect()
    }

    fn stale(verdict: &Verdict) -> Option<bool> {
        matches!(verdict, Verdict::Challenge { .. }).then(|| challenges(verdict).iter().all(|c| c.stale))
    }

    fn known() -> Verdict {
        Verdict::Known(Label::from("121"))
    }

    #[test]
    fn both_algorithms_in_the_operators_order() {
        let mut client = Client::new();
        let challenges = client.challenge(0);
        assert_eq!(challenges.iter().map(|c| c.algorithm).collect::<Vec<_>>(), [Algorithm::Md5, Algorithm::Sha256]);
        assert!(challenges.iter().all(|c| c.realm == "office.example" && !c.stale && c.nonce.len() == NONCE_LEN));
        for which in 0..2 {
            let fresh = client.challenge(0);
            assert_eq!(client.answer(1, &fresh, &Answer { which, ..RIGHT }), known());
        }
        client.office.node.digest = vec![Algorithm::Sha256];
        assert!(stale(&client.answer(1, &challenges, &RIGHT)).is_some(), "MD5 is not offered any more");
        assert!(client.auth.pairs.debts.is_empty(), "who knows the password does not guess");
    }

    #[test]
    fn a_proxy_asks_with_its_own_names() {
        let mut client = Client::new();
        let msg = request("INVITE", "sip:122@office.example", "121", 1, &[]);
        let verdict = client.auth.check(at(0), &client.from, &msg, &client.office, true);
        let Verdict::Challenge { status: 407, headers } = verdict else { panic!("{verdict:?}") };
        assert!(headers.iter().all(|(name, _)| *name == Name::ProxyAuthenticate));
        let challenge = Challenge::parse(&headers[0].1).expect("ours");
        let uri = "sip:122@office.example";
        let value = digest::answer(&challenge, "121", "secret-of-121", "INVITE", uri, "cn", 1, b"");
        let msg = request("INVITE", uri, "121", 2, &[&format!("Proxy-Authorization: {value}")]);
        assert_eq!(client.auth.check(at(0), &client.from, &msg, &client.office, true), known());
        assert_ne!(client.auth.check(at(0), &client.from, &msg, &client.office, false), known());
    }

    #[test]
    fn who_may_come_in() {
        let rows = [
            ("right", RIGHT, Some(known())),
            ("signed the address", Answer { signed: "sip:127.0.0.1:5060", ..RIGHT }, Some(known())),
            ("wrong password", Answer { password: "secret-of-122", ..RIGHT }, None),
            ("nobody", Answer { user: "999", from: "999", ..RIGHT }, None),
            ("no name", Answer { user: "", ..RIGHT }, None),
            ("nobody with nobody's password", Answer { user: "", from: "", password: NOBODY, ..RIGHT }, None),
            ("signed something else", Answer { signed: "sip:elsewhere.example", ..RIGHT }, None),
            ("in another's name", Answer { from: "122", ..RIGHT }, Some(Verdict::Refuse(403))),
            ("nonce count 0", Answer { nc: 0, ..RIGHT }, None),
        ];
        for (what, answer, want) in rows {
            if answer.from.is_empty() {
                continue;
            }
            let mut client = Client::new();
            let fresh = client.challenge(0);
            let got = client.answer(1, &fresh, &answer);
            match want {
                Some(want) => assert_eq!(got, want, "{what}"),
                None => assert_eq!(challenges(&got).len(), 2, "{what}"),
            }
        }
    }

    #[test]
    fn one_who_hides_is_still_known() {
        let mut client = Client::new();
        let text = |method: &str, line: &str| {
            let text = format!(
                "{method} sip:122@office.example SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nCall-ID: a\r\n\
                 From: <sip:anonymous@anonymous.invalid>;tag=1\r\nTo: <sip:122@office.example>\r\nCSeq: 1 {method}\r\n{line}\r\n"
            );
            Message::parse(bytes::Bytes::from(text)).expect("well written")
        };
        for (method, want) in [("INVITE", known()), ("REGISTER", Verdict::Refuse(403))] {
            let c = &client.challenge(0)[0];
            let value = digest::answer(c, "121", "secret-of-121", method, "sip:122@office.example", "cn", 1, b"");
            let msg = text(method, &format!("Proxy-Authorization: {value}\r\n"));
            assert_eq!(client.auth.check(at(0), &client.from, &msg, &client.office, true), want);
        }
    }

    #[test]
    fn a_stranger_s_answer_has_the_shape_of_a_wrong_password() {
        let mut client = Client::new();
        let fresh = client.challenge(0);
        let rows = [
            Answer { password: "wrong", ..RIGHT },
            Answer { user: "999", from: "999", ..RIGHT },
            Answer { user: "122", from: "122", password: "wrong", ..RIGHT },
        ];
        let shape = |verdict: Verdict| {
            let Verdict::Challenge { status, headers } = verdict else { panic!("{verdict:?}") };
            let text: Vec<String> = headers
                .iter()
                .map(|(name, v)| {
                    format!("{}: {}", name.as_str(), v.replace(&*Challenge::parse(v).expect("ours").nonce, "N"))
                })
                .collect();
            (status, text, headers.iter().map(|(_, v)| v.len()).collect::<Vec<_>>())
        };
        let shapes: Vec<_> = rows.iter().map(|a| shape(client.answer(1, &fresh, a))).collect();
        assert!(shapes.windows(2).all(|w| w[0] == w[1]), "{shapes:?}");
        let none = shape(client.send(1, &[], "121"));
        assert_eq!(none, shapes[0]);
    }

    #[test]
    fn counts_are_used_once_and_in_a_window() {
        let mut client = Client::new();
        let fresh = client.challenge(0);
        let mut nc = |nc: u32| client.answer(1, &fresh, &Answer { nc, ..RIGHT });
        for (count, want) in [
            (1, None),
            (2, None),
            (2, Some(true)),  // replayed: stale once
            (2, Some(false)), // and not again
            (5, None),
            (4, None), // overtaken, but not used
            (4, Some(false)),
            (100, None),
            (37, None), // the edge of the window
            (36, Some(false)),
            (0xffff_ffff, None),
            (3, Some(false)),
        ] {
            assert_eq!(stale(&nc(count)), want, "nc {count}");
        }
    }

    #[test]
    fn a_retransmission_is_told_the_same() {
        let mut client = Client::new();
        let fresh = client.challenge(0);
        assert_eq!(client.answer(1, &fresh, &RIGHT), known());
        let line = client.line(&fresh, &RIGHT);
        assert_eq!(stale(&client.send(2, &[&line], "121")), Some(true));
        for _ in 0..3 {
            assert_eq!(stale(&client.send_again(2, &[&line], "121")), Some(true), "the 407 was lost");
        }
        assert_eq!(stale(&client.send(3, &[&line], "121")), Some(false));
        assert_eq!(stale(&client.send_again(3, &[&line], "121")), Some(false));
    }

    #[test]
    fn nonces_are_of_their_time_and_source() {
        let mut client = Client::new();
        let fresh = client.challenge(0);
        let elsewhere = [flow(Transport::Udp, 1, 5061), flow(Transport::Udp, 2, 5060), flow(Transport::Tcp, 1, 5060)];
        let home = client.from;
        for other in elsewhere {
            client.from = other;
            assert_eq!(stale(&client.answer(1, &fresh, &RIGHT)), Some(true));
        }
        client.from = home;
        assert_eq!(client.answer(300, &fresh, &RIGHT), known());
        assert_eq!(stale(&client.answer(301, &fresh, &Answer { nc: 2, ..RIGHT })), Some(true));

        // Stale says nothing about the password, and counts nothing against anybody.
        let mut forged = client.challenge(400);
        forged[0].nonce = format!("AAAA{}", &forged[0].nonce[4..]);
        let failures = client.auth.pairs.debts.len();
        for user in ["121", "999"] {
            for nonce in ["", "x", "ÄÄÄÄÄÄÄÄÄÄÄÄ", forged[0].nonce.clone().as_str()] {
                forged[0].nonce = nonce.to_owned();
                let answer = Answer { user, from: user, password: "wrong", ..RIGHT };
                assert_eq!(stale(&client.answer(400, &forged, &answer)), Some(true));
            }
        }
        assert_eq!(client.auth.pairs.debts.len(), failures);
        // A nonce of another run of ours.
        client.auth = Auth::new(&mut Rng::from_number(6));
        assert_eq!(stale(&client.answer(1, &fresh, &RIGHT)), Some(true));
    }

    #[test]
    fn no_memory_before_a_proof_and_bounded_after() {
        let mut client = Client::new();
        for second in 0..1000 {
            let fresh = client.challenge(second);
            client.answer(second, &fresh, &Answer { user: "999", from: "999", ..RIGHT });
        }
        assert_eq!(client.auth.remembered(), 0);
        assert!(client.auth.pairs.debts.len() <= 1 && client.auth.victims.debts.len() <= 1);
        // What is pushed out of a full table cannot be replayed.
        let fresh = client.challenge(2000);
        assert_eq!(client.answer(2000, &fresh, &RIGHT), known());
        let minted = client.auth.minted;
        client.auth.used.extend((0..NONCES as u64).map(|i| (minted + 1 + i, Window::default())));
        client.auth.minted += 1 + NONCES as u64;
        let next = client.challenge(2000);
        assert_eq!(client.answer(2000, &next, &RIGHT), known());
        assert_eq!(client.auth.remembered(), NONCES + 1);
        assert_eq!(stale(&client.answer(2000, &fresh, &RIGHT)), Some(true));
        let later = client.challenge(2301);
        assert_eq!(client.answer(2301, &later, &RIGHT), known());
        assert!(client.auth.remembered() <= 2);
    }

    impl Client {
        /// Logs in as `user` from `host`, which is `place` to everybody.
        fn login(&mut self, second: u64, host: u8, place: Place, user: &'static str, password: &'static str) -> bool {
            self.from = flow(Transport::Udp, host, 5060);
            let fresh = self.challenge(second);
            let line = self.line(&fresh, &Answer { user, from: user, password, ..RIGHT });
            self.cseq += 1;
            let msg = request("REGISTER", "sip:office.example", user, self.cseq, &[&line]);
            let verdict = self.auth.check_at(at(second), &self.from, &msg, &self.office, false, |_, _| place);
            match verdict {
                Verdict::Known(who) => &*who == user,
                other => {
                    assert_eq!(challenges(&other).len(), 2);
                    false
                }
            }
        }

        /// Guesses that were looked at, so far as the pair of `host` and `user` is concerned.
        fn debt(&self, user: &str) -> Option<Debt> {
            let source = network(self.from.remote.ip());
            self.auth.pairs.debts.get(&(hash(&self.auth.hasher, user), source)).copied()
        }
    }

    const NAMES: [&str; 12] = ["121", "122", "123", "700", "701", "702", "703", "704", "705", "706", "707", "708"];

    #[test]
    fn one_address_makes_ten_guesses_a_minute_at_most() {
        // One name, some names, many names: in each minute of ten.
        for names in [1, 2, 3, NAMES.len()] {
            let mut client = Client::new();
            let mut looked_at = Vec::new();
            for half in 0..1200 {
                let user = NAMES[half as usize % names];
                let before = client.debt(user);
                client.login(half / 2, 1, Place::Elsewhere, user, "guess");
                if client.debt(user) != before {
                    looked_at.push(half);
                }
            }
            let most = looked_at.iter().map(|t| looked_at.iter().filter(|u| (*t..*t + 120).contains(u)).count()).max();
            assert!((4..=10).contains(&most.unwrap_or(0)), "{names} names: {most:?}");
            // Even the right password does not help there now; elsewhere it does.
            assert!(!client.login(599, 1, Place::Elsewhere, "121", "secret-of-121"));
            assert!(client.login(1000, 9, Place::Elsewhere, "121", "secret-of-121"), "{names} names");
        }
    }

    #[test]
    fn one_extension_is_guessed_at_a_hundred_times_an_hour_and_the_owner_stays_in() {
        let mut client = Client::new();
        let mut looked_at = 0;
        for second in 0..3600 {
            let before = client.auth.victims.debts.get("121").copied();
            client.login(second, (second % 100) as u8 + 10, Place::Elsewhere, "121", "guess");
            looked_at += u32::from(client.auth.victims.debts.get("121").copied() != before);
        }
        assert!((90..=100).contains(&looked_at), "{looked_at}");
        assert!(!client.login(3599, 9, Place::Elsewhere, "121", "secret-of-121"), "locked for strangers' addresses");
        assert!(client.login(3599, 9, Place::Home, "121", "secret-of-121"));
    }

    #[test]
    fn a_wrong_password_shuts_out_nobody_else() {
        // Once, or twice, and then right.
        for times in [1, 2] {
            let mut client = Client::new();
            for round in 0..20 {
                for _ in 0..times {
                    assert!(!client.login(round * 100, 1, Place::Elsewhere, "122", "old"));
                }
                assert!(
                    client.login(round * 100 + 1, 1, Place::Elsewhere, "122", "secret-of-122"),
                    "{times} wrong, round {round}"
                );
            }
        }
        // One phone of an address tries an old password (or an old name) all day long; the others come in, and so does it a
        // while after it was put right, and at any time elsewhere.
        for wrong in ["122", "700"] {
            let mut client = Client::new();
            for second in 0..1800 {
                client.login(second, 1, Place::Elsewhere, wrong, "old");
                if second % 7 == 0 {
                    assert!(client.login(second, 1, Place::Elsewhere, "121", "secret-of-121"), "{wrong} at {second}");
                    assert!(client.login(second, 2, Place::Elsewhere, "122", "secret-of-122"), "{wrong} at {second}");
                }
            }
            assert!(client.login(1800 + 45, 1, Place::Elsewhere, "122", "secret-of-122"));
        }
        // Three of them, in an office where somebody lives.
        let mut client = Client::new();
        for second in 0..1800 {
            for wrong in ["122", "700", "701"] {
                client.login(second, 1, Place::Office, wrong, "old");
            }
            if second % 7 == 0 {
                assert!(client.login(second, 1, Place::Office, "121", "secret-of-121"), "{second}");
                assert!(client.login(second, 1, Place::Home, "123", "secret-of-123"), "{second}");
            }
        }
    }

    #[test]
    fn what_is_no_guess_counts_for_nothing() {
        let mut client = Client::new();
        // The same answer again and again: its 401 is lost.
        let fresh = client.challenge(0);
        let line = client.line(&fresh, &Answer { password: "old", ..RIGHT });
        for _ in 0..11 {
            assert_eq!(stale(&client.send(0, &[&line], "121")), Some(false));
        }
        let debt = client.debt("121").expect("counted");
        assert_eq!(debt.paid_at, at(0).mono + PAIR_LIMIT.interval);
        // The right password over another place's URI.
        for _ in 0..11 {
            let fresh = client.challenge(0);
            assert!(stale(&client.answer(0, &fresh, &Answer { signed: "sip:elsewhere.example", ..RIGHT })).is_some());
        }
        assert_eq!(client.debt("121"), Some(debt));
        let fresh = client.challenge(0);
        assert_eq!(client.answer(0, &fresh, &RIGHT), known());
        assert_eq!((client.debt("121"), client.auth.spared.len()), (None, 0));
    }

    #[test]
    fn what_is_remembered_of_failures_is_bounded() {
        let mut client = Client::new();
        client.auth.pairs.most = 100;
        for host in 0..250 {
            client.login(u64::from(host) * 2, host, Place::Elsewhere, "700", "guess");
            let (spared, pairs) = (client.auth.spared.len(), client.auth.pairs.debts.len());
            assert!(spared <= pairs && pairs <= 100, "{spared} {pairs}");
        }
        assert!(client.auth.pairs.debts.len() > 10);
    }

    /// How well a stopwatch tells an unknown user from a wrong password, and what a login costs. Printed, never judged: clocks
    /// of a busy machine are no evidence.
    #[test]
    #[allow(clippy::disallowed_methods)] // it measures
    fn stopwatch() {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        let mut client = Client::new();
        let rows = [Answer { password: "wrong", ..RIGHT }, Answer { user: "999", from: "999", ..RIGHT }, RIGHT];
        for round in 0..3000 {
            let which = round % 3;
            let fresh = client.challenge(round as u64);
            let line = client.line(&fresh, &rows[which]);
            let msg = request("REGISTER", "sip:office.example", rows[which].from, 1, &[&line]);
            let began = std::hint::black_box(std::time::Instant::now());
            std::hint::black_box(client.auth.check(at(round as u64), &client.from, &msg, &client.office, false));
            times[which].push(began.elapsed().as_nanos());
        }
        let higher = times[0].iter().flat_map(|a| times[1].iter().map(move |b| (a > b) as u32 * 2 + (a == b) as u32));
        let auc = f64::from(higher.sum::<u32>()) / 2.0 / (times[0].len() * times[1].len()) as f64;
        let median = times.map(|mut t| {
            t.sort_unstable();
            t[t.len() / 2]
        });
        println!("wrong, unknown, right: {median:?} ns; AUC of wrong against unknown {auc:.3}");
    }

    #[test]
    fn full_tables_stay_full_and_are_cleared_when_paid_off() {
        let mut failures =
            Failures::new(Limit { burst: 2, interval: Duration::from_secs(1) }, 3, &mut Rng::from_number(1));
        for key in 0..10 {
            let want = if key < 3 { Counted::Once } else { Counted::Full };
            assert_eq!(failures.count(at(0).mono, key, 1), want);
        }
        assert_eq!(failures.debts.len(), 3);
        assert_eq!(failures.count(at(0).mono, 0, 1), Counted::Again);
        assert_eq!(failures.count(at(0).mono, 0, 2), Counted::Once);
        assert!(
            failures.locked(at(0).mono, &0) && !failures.locked(at(1).mono, &0) && !failures.locked(at(0).mono, &1)
        );
        failures.count(at(20).mono, 11, 3);
        assert_eq!(failures.debts.len(), 1);
    }

    #[test]
    fn networks() {
        for (ip, network_of) in
            [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
        {
            assert_eq!(network(ip.parse().expect("ip")).to_string(), network_of);
        }
    }
}
