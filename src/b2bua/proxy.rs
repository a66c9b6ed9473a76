//! Requests outside a dialog that pass from one known phone to another: MESSAGE, as a stateful proxy does it (RFC 3261 section
//! 16), to every place where the other is registered. The sender is who it proved to be; what it says of itself beyond that goes
//! no further.

use bytes::Bytes;
use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;

use crate::base::Instant;
use crate::call::{Owner, Place};
use crate::sip::{Message, Name, Refusal, Writer, phrase};
use crate::transaction::{ClientKey, Layer, Output, ServerKey};
use slotmap::{Key, KeyData};

new_key_type! {
    /// A request that is on its way.
    pub struct ProxyKey;
}

/// Requests on their way.
#[derive(Debug, Default)]
pub struct Proxy {
    open: SlotMap<ProxyKey, Passing>,
}

#[derive(Debug)]
struct Passing {
    server: ServerKey,
    request: Message,
    waiting: SmallVec<[ClientKey; 2]>,
    best: Option<Message>,
    /// What its sender gets if nobody answers.
    otherwise: u16,
}

/// What became of a request that was sent on.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// This.
    Came(&'a Message),
    /// Nobody answered.
    TimedOut,
    /// It could not be delivered.
    Unreachable,
}

/// Requests on their way at most.
pub const MAX_OPEN: usize = 10_000;

impl ProxyKey {
    /// As it stands in a transaction's token.
    pub fn token(self) -> u64 {
        self.data().as_ffi()
    }

    /// From a transaction's token.
    pub fn from_token(token: u64) -> ProxyKey {
        ProxyKey::from(KeyData::from_ffi(token))
    }
}

impl Proxy {
    /// Sends the request on to these places.
    pub fn pass(
        &mut self,
        now: Instant,
        tx: &mut Layer<Owner>,
        said: &mut Vec<Output<Owner>>,
        server: ServerKey,
        request: Message,
        places: Vec<Place>,
    ) -> Result<(), Refusal> {
        let hops = request.max_forwards().unwrap_or(70);
        if hops == 0 {
            return Err(Refusal::status(483));
        }
        if self.open.len() >= MAX_OPEN {
            return Err(Refusal::status(503).with(Name::RetryAfter, "5"));
        }
        let method = request.method();
        let key = self.open.insert(Passing { server, request, waiting: SmallVec::new(), best: None, otherwise: 408 });
        for place in places {
            let (branch_key, branch) = tx.branch();
            let Some(passing) = self.open.get_mut(key) else { break };
            passing.waiting.push(branch_key);
            let bytes = forwarded(&passing.request, &place, &branch, hops - 1);
            tx.request(now, branch_key, place.flow, bytes, method, Owner::Proxy(key.token()), said);
        }
        Ok(())
    }

    /// An answer came, or it is known that none will. The best one goes back when the last has come.
    pub fn answered(
        &mut self,
        now: Instant,
        tx: &mut Layer<Owner>,
        said: &mut Vec<Output<Owner>>,
        key: ProxyKey,
        client: ClientKey,
        answer: Answer<'_>,
    ) {
        let Some(passing) = self.open.get_mut(key) else { return };
        let mut last = false;
        match answer {
            Answer::Came(msg) if msg.status() < 200 => return,
            Answer::Came(msg) => {
                last = matches!(msg.status(), 200..=299 | 600..=699);
                let better = passing.best.as_ref().is_none_or(|best| rank(msg.status()) < rank(best.status()));
                if better {
                    passing.best = Some(msg.clone());
                }
            }
            Answer::TimedOut => {}
            // As if it had answered 503, and that is for us alone: the sender would think that we are not there (RFC 3261 16.9, 16.7 point 6).
            Answer::Unreachable => passing.otherwise = 500,
        }
        passing.waiting.retain(|k| *k != client);
        let done = passing.waiting.is_empty() || last;
        if !done {
            return;
        }
        let Some(passing) = self.open.remove(key) else { return };
        let Some(flow) = tx.flow_of(passing.server) else { return };
        let (status, bytes) = match &passing.best {
            Some(best) => {
                let words = String::from_utf8_lossy(best.reason()).into_owned();
                let mut w = Writer::answer(&passing.request, flow.remote, best.status(), &words, best.to_tag());
                w.copy(best, Name::Reason).copy(best, Name::RetryAfter);
                let body = best.body();
                let bytes = match best.text(Name::ContentType).filter(|_| !body.is_empty()) {
                    Some(content_type) => w.body(content_type, body),
                    None => w.finish(),
                };
                (best.status(), bytes)
            }
            None => {
                let (status, tag) = (passing.otherwise, format!("{:x}", key.token()));
                let w = Writer::answer(&passing.request, flow.remote, status, phrase(status), Some(&tag));
                (status, w.finish())
            }
        };
        tx.respond(now, passing.server, status, bytes, said);
    }

    /// How many are on their way.
    pub fn len(&self) -> usize {
        self.open.len()
    }
}

/// What a sender says that its receiver must not take from it, and what is rewritten on the way.
fn stays(name: Name) -> bool {
    matches!(
        name,
        Name::Via
            | Name::MaxForwards
            | Name::Route
            | Name::RecordRoute
            | Name::ContentLength
            | Name::ContentType
            | Name::Authorization
            | Name::ProxyAuthorization
            | Name::PAssertedIdentity
            | Name::PPreferredIdentity
            | Name::RemotePartyId
            | Name::Diversion
            | Name::HistoryInfo
            | Name::AlertInfo
            | Name::CallInfo
            | Name::AnswerMode
            | Name::PrivAnswerMode
    )
}

fn forwarded(request: &Message, place: &Place, branch: &str, hops: u8) -> Bytes {
    let mut w = Writer::request(request.method_text(), &place.uri);
    let (token, local) = (place.flow.transport.via_token(), place.flow.local);
    w.fmt(Name::Via, format_args!("SIP/2.0/{token} {local};branch={branch};rport"));
    w.copy(request, Name::Via);
    w.number(Name::MaxForwards, hops);
    for route in &place.route {
        w.header(Name::Route, route);
    }
    w.copy_where(request, |name, _, _| !stays(name));
    match request.text(Name::ContentType).filter(|_| !request.body().is_empty()) {
        Some(content_type) => w.body(content_type, request.body()),
        None => w.finish(),
    }
}

/// Better first: 2xx, 6xx, then the lower class (RFC 3261 16.7).
fn rank(status: u16) -> u16 {
    match status {
        200..=299 => 0,
        600.. => 1,
        _ => status / 100,
    }
}
