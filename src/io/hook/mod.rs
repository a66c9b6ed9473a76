//! Asks routing hooks over HTTP. Nobody waits for it: the answer, or why there is none, comes back by a callback within the
//! hook's `timeout`. A hook that fails is left alone for a while ([`breaker`]); so many questions at once and no more; answers
//! may be remembered. What is asked and understood is [`shape`]'s business.
//!
//! TLS by rustls with the system's roots; redirects are not followed; link-local addresses (where clouds keep their
//! credentials) are not connected to, whatever the name says.

pub mod breaker;
pub mod shape;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::runtime::Handle;

use crate::base::Instant;
use crate::directory::{Hook, Label};
use crate::io::clock::Clock;
use crate::policy::hook::{Answer, Outcome, Question};
use breaker::Breaker;
use shape::Request;

/// Bytes of an answer that are read; a longer one is a failure.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Answers remembered for one hook; when there are more, all are forgotten.
pub const MAX_CACHE: usize = 10_000;
/// Idle connections kept to one host.
const IDLE: usize = 4;

/// The asker. Cheap to clone.
#[derive(Clone)]
pub struct Hooks {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    client: OnceLock<Result<Client, String>>,
    clock: Clock,
    known: Mutex<HashMap<Label, Known>>,
}

/// What is remembered of a hook.
#[derive(Default)]
struct Known {
    breaker: Breaker,
    flying: u32,
    /// By caller and number called.
    answers: HashMap<(Option<String>, String), (Instant, Option<Answer>)>,
}

impl Hooks {
    /// An asker whose requests run on `runtime`. TLS and its roots are loaded with the first question.
    pub fn new(runtime: Handle, clock: Clock) -> Hooks {
        Hooks { inner: Arc::new(Inner { runtime, client: OnceLock::new(), clock, known: Mutex::default() }) }
    }

    /// Asks. `answer` is called once: at once where the answer is remembered or the hook is left alone, else on another
    /// thread when it answered or its time is up.
    pub fn ask(&self, hook: &Hook, question: &Question, answer: impl FnOnce(Outcome) + Send + 'static) {
        let key = (question.caller.clone(), question.called.clone());
        match self.inner.admit(hook, &key) {
            Ok(Some(known)) => return answer(Ok(known)),
            Ok(None) => {}
            Err(why) => return answer(Err(why)),
        }
        let (inner, hook) = (self.inner.clone(), hook.clone());
        let request = shape::request(&hook, question);
        self.inner.runtime.spawn(async move {
            // What a hook makes of one caller is no sign that it is ill: callers could switch it off for everybody.
            let (ill, outcome) = match tokio::time::timeout(hook.timeout, inner.fetch(request)).await {
                Ok(Ok((status, body))) => {
                    let answer = shape::answer(&hook, status, &body, &crate::io::config::read_step);
                    (status >= 500 || status == 429, answer)
                }
                Ok(Err(why)) => (true, Err(why)),
                Err(_) => (true, Err(format!("no answer within {} ms", hook.timeout.as_millis()))),
            };
            inner.landed(&hook, key, ill, &outcome);
            answer(outcome);
        });
    }
}

impl Inner {
    /// A remembered answer, or leave to ask; the reason where there is neither.
    fn admit(&self, hook: &Hook, key: &(Option<String>, String)) -> Result<Option<Option<Answer>>, String> {
        let now = self.clock.mono();
        let mut all = self.lock();
        let known = all.entry(hook.name.clone()).or_default();
        if hook.cache > Duration::ZERO
            && let Some((until, answer)) = known.answers.get(key)
            && *until > now
        {
            return Ok(Some(answer.clone()));
        }
        if known.flying >= hook.concurrent {
            return Err(format!("{} questions to it are under way already", known.flying));
        }
        known.breaker.admit(now).map_err(|left| {
            format!("it failed {} times in a row: left alone for {} s more", breaker::FAILURES, left.as_secs() + 1)
        })?;
        known.flying += 1;
        Ok(None)
    }

    fn landed(&self, hook: &Hook, key: (Option<String>, String), ill: bool, outcome: &Outcome) {
        let now = self.clock.mono();
        let mut all = self.lock();
        let known = all.entry(hook.name.clone()).or_default();
        known.flying = known.flying.saturating_sub(1);
        match outcome {
            Ok(answer) => {
                known.breaker.worked();
                if hook.cache > Duration::ZERO {
                    if known.answers.len() >= MAX_CACHE {
                        known.answers.clear();
                    }
                    known.answers.insert(key, (now + hook.cache, answer.clone()));
                }
            }
            Err(_) if !ill => known.breaker.worked(),
            Err(why) => {
                if known.breaker.failed(now) {
                    let pause = breaker::PAUSE.as_secs();
                    tracing::warn!(hook = %hook.name, last = %why, "hook left alone for {pause} s: it failed {} times in a row", breaker::FAILURES);
                }
            }
        }
    }

    async fn fetch(&self, request: Request) -> Result<(u16, Vec<u8>), String> {
        let url = Url::parse(&request.url).map_err(|e| format!("its URL cannot be used: {e}"))?;
        if let Some(ip) = literal(&url).filter(|ip| !allowed(*ip)) {
            return Err(format!("{ip} is link-local: not connected to"));
        }
        let client = self.client.get_or_init(client).as_ref().map_err(Clone::clone)?;
        let asked = match request.body {
            Some((kind, body)) => client.post(url).header("Content-Type", kind).body(body),
            None => client.get(url),
        };
        let asked = match request.header {
            Some((name, value)) => asked.header(name, value),
            None => asked,
        };
        let mut response = asked.header("Accept", "application/json").send().await.map_err(|e| words(&e))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| words(&e))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(format!("its answer is longer than {} KiB", MAX_ANSWER / 1024));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Label, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client() -> Result<Client, String> {
    // Fails only if the process has one already, which will do.
    rustls::crypto::ring::default_provider().install_default().ok();
    Client::builder()
        .redirect(Policy::none())
        // A proxy would look names up itself, behind the back of the guard.
        .no_proxy()
        .dns_resolver(Arc::new(Guarded))
        .pool_max_idle_per_host(IDLE)
        .user_agent(crate::b2bua::USER_AGENT)
        .build()
        .map_err(|error| format!("TLS cannot be had here: {}", words(&error)))
}

/// The innermost reason: the outer ones repeat the URL, which may hold a secret.
fn words(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match (error.is_connect(), inner.source().is_none()) {
        (true, _) => format!("cannot connect: {inner}"),
        (false, _) => format!("{inner}"),
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn allowed(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

/// The system's resolver without link-local addresses.
struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.filter(|a| allowed(a.ip())).collect();
            match found.is_empty() {
                true => Err(format!("{} has no address that may be connected to", name.as_str()).into()),
                false => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests;
