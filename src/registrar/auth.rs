//! Who is this? Digest authentication of phones (RFC 7616, RFC 8760; RFC 3261 section 22) and what guards it: nonces that
//! cost no memory until somebody proved to know a password, no answer heard twice, guessing slowed down, and nothing in
//! shape or in time that tells an unknown user from a wrong password. Challenges of trunks are answered elsewhere.
//!
//! A nonce is the microsecond of its minting and an HMAC-SHA256 over that, the source (address, port, transport) and the
//! realm. A nonce that is not ours, of another source, or too old is answered `stale=true` *before* any password is
//! looked at: so nobody who cannot receive at his source address can guess, and nobody can lock out an address that he
//! only pretends to have.

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
/// Addresses whose failed logins are counted.
pub const SOURCES: usize = 16_384;
/// Extensions whose failed logins are counted.
pub const VICTIMS: usize = 16_384;
/// Failed logins of one address: so many at once, then one per interval (10 within the first minute).
pub const SOURCE_LIMIT: Limit = Limit { burst: 5, interval: Duration::from_secs(12) };
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
    sources: Failures<IpAddr>,
    victims: Failures<Label>,
    homes: Failures<(Label, IpAddr)>,
    /// Stands for every unknown user, so that counting costs the same.
    nobody: Label,
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
            sources: Failures::new(SOURCE_LIMIT, SOURCES, rng),
            victims: Failures::new(AOR_LIMIT, VICTIMS, rng),
            homes: Failures::new(HOME_LIMIT, VICTIMS, rng),
            nobody: Label::from(""),
        }
    }

    /// Who sent `msg`, which came by `flow`? `proxy`: we are asked to carry it on (407), not to serve it (401).
    /// No extension is spared the back-off; [`super::Registrar::check`] spares those that live where the request came from.
    pub fn check(&mut self, now: Now, flow: &Flow, msg: &Message, directory: &Directory, proxy: bool) -> Verdict {
        self.check_home(now, flow, msg, directory, proxy, |_, _| false)
    }

    /// As [`Auth::check`]; `lives` says whether an extension has a live binding at an address, whose failures elsewhere
    /// then do not lock it out there.
    pub fn check_home(
        &mut self,
        now: Now,
        flow: &Flow,
        msg: &Message,
        directory: &Directory,
        proxy: bool,
        lives: impl FnOnce(&str, IpAddr) -> bool,
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
        match self.judge(now.mono, flow, msg, directory, &given, lives) {
            Judgement::Stale => self.challenge(now.mono, flow, directory, proxy, true),
            Judgement::Wrong => self.challenge(now.mono, flow, directory, proxy, false),
            Judgement::Proven(who) if speaks_for(msg, &who) => Verdict::Known(who),
            Judgement::Proven(_) => Verdict::Refuse(403),
        }
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
        lives: impl FnOnce(&str, IpAddr) -> bool,
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
        let proven = given.verify(&ha1, msg.method_text())
            & extension.is_some()
            & directory.node.digest.contains(&given.algorithm)
            & contact::same_request(given.uri.as_ref(), msg.request_uri(), directory);
        let home = lives(&who, flow.remote.ip());
        let locked = if home {
            self.homes.locked(now, &(who.clone(), source))
        } else {
            self.sources.locked(now, &source) | self.victims.locked(now, &who)
        };
        if locked {
            return Judgement::Wrong;
        }
        if !proven {
            if home {
                self.homes.count(now, (who, source));
            } else {
                self.sources.count(now, source);
                self.victims.count(now, who);
            }
            return Judgement::Wrong;
        }

        let Some(nc) = given.nc else { return Judgement::Wrong };
        self.forget_old(now);
        match self.used.entry(minted).or_default().take(nc) {
            Taken::New => {
                if self.used.len() > NONCES
                    && let Some((oldest, _)) = self.used.pop_first()
                {
                    self.floor = self.floor.max(oldest);
                }
                Judgement::Proven(who)
            }
            Taken::FirstReplay => Judgement::Stale,
            Taken::Replay => Judgement::Wrong,
        }
    }

    fn challenge(&mut self, now: Instant, flow: &Flow, directory: &Directory, proxy: bool, stale: bool) -> Verdict {
        self.minted = now.micros().max(self.minted + 1);
        let nonce = self.nonce(self.minted, flow, realm(directory));
        let (status, name) = if proxy { (407, Name::ProxyAuthenticate) } else { (401, Name::WwwAuthenticate) };
        let wanted: &[Algorithm] =
            if directory.node.digest.is_empty() { &[Algorithm::Sha256, Algorithm::Md5] } else { &directory.node.digest };
        let header = |algorithm: &Algorithm| {
            let challenge = Challenge {
                realm: realm(directory).to_string(),
                nonce: nonce.clone(),
                algorithm: *algorithm,
                qop: true,
                opaque: None,
                stale,
            };
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
        let minted = nonce.as_bytes()[..8].iter().try_fold(0u64, |sum, c| {
            BASE64.iter().position(|b| b == c).map(|digit| (sum << 6) | digit as u64)
        })?;
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
    Wrong,
    Stale,
}

/// The nonce counts that were used with one nonce (RFC 7616 section 5.12).
#[derive(Default, Debug)]
struct Window {
    highest: u32,
    /// Bit `i`: `highest - i` was used.
    used: u64,
    replayed: bool,
}

#[derive(PartialEq, Eq, Debug)]
enum Taken {
    New,
    FirstReplay,
    Replay,
}

impl Window {
    fn take(&mut self, nc: u32) -> Taken {
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
        if std::mem::replace(&mut self.replayed, true) { Taken::Replay } else { Taken::FirstReplay }
    }
}

/// Failures by key. What is kept is when the debt of a key is paid off; a key without debt is forgotten.
#[derive(Debug)]
struct Failures<K> {
    limit: Limit,
    most: usize,
    paid_at: hashbrown::HashMap<K, Instant, ahash::RandomState>,
    swept: Instant,
}

impl<K: std::hash::Hash + Eq> Failures<K> {
    fn new(limit: Limit, most: usize, rng: &mut Rng) -> Failures<K> {
        Failures { limit, most, paid_at: hashbrown::HashMap::with_hasher(rng.hasher()), swept: Instant::ZERO }
    }

    fn locked(&self, now: Instant, key: &K) -> bool {
        let debt = self.paid_at.get(key).map_or(Duration::ZERO, |paid_at| paid_at.since(now));
        debt > self.limit.interval * (self.limit.burst - 1)
    }

    /// A full table counts no new keys until old ones are paid off; the other tables still hold.
    fn count(&mut self, now: Instant, key: K) {
        if self.paid_at.len() >= self.most && now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        let full = self.paid_at.len() >= self.most;
        if let Some(paid_at) = self.paid_at.get_mut(&key) {
            *paid_at = now.max(*paid_at) + self.limit.interval;
        } else if !full {
            self.paid_at.insert(key, now + self.limit.interval);
        }
    }
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
fn network(ip: IpAddr) -> IpAddr {
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
