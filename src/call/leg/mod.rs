//! A leg: our side of one dialog (RFC 3261 sections 12 to 15), as user agent server for the caller, as user agent client for
//! each place that is rung.
//!
//! ```text
//!   UAS: Invited --accept--> Up --hang_up, BYE--> Ending --> Over          UAC: Calling --2xx--> Up --hang_up, BYE--> Ending --> Over
//!           \--refuse, CANCEL--> Over                                             \--refusal, time-out--> Over
//!                                                                                  \--hang_up: CANCEL--> (its final answer) --> Over
//! ```
//!
//! It speaks SIP and knows nothing of who else is in the call: what the call must decide comes out as an [`Event`], what the
//! call decided comes in as a method. Offers and answers pass through it unread. Session timers, digest answers to a trunk,
//! repeated 2xx, glare and late BYEs are its own business.
//!
//! Files: `dial` (what an INVITE of ours says), `invite` (the first INVITE), `offer` (re-INVITE, UPDATE, refreshes), `ask` (INFO), `bye` (the
//! end), `arrive` (what comes in), `id` (tags and Call-IDs), `opened` (what is kept of a phone that answered by itself).

mod arrive;
mod ask;
mod bye;
mod dial;
mod id;
mod invite;
mod offer;
mod opened;

use std::collections::VecDeque;

use bytes::Bytes;
use slotmap::Key;
use smallvec::SmallVec;

use super::bridge::End;
use super::{CallKey, Cx, LegKey};
use crate::base::Instant;
use crate::dialog::Dialog;
use crate::dialog::invite::Usage;
use crate::dialog::refresh::{self, Wish};
use crate::directory::Label;
use crate::sip::header::{Refresher, SessionExpires};
use crate::sip::proof::Proofs;
use crate::sip::{Flow, Message, Method, Name, Refusal, Writer};
use crate::transaction::{ClientKey, ServerKey};

pub use ask::Asked;
use ask::{MAX_ASKED, ToAsk, Waiting, pass_until};
use bye::Ending;
use dial::Credentials;
pub use dial::{Dial, Diverted, Identity, Peer};
use id::{is_variant, mint_tag};
pub use id::{leg_of, mint_call_id};
use invite::SILENT_PHONE;
pub use invite::{SILENT_TRUNK, disown, too_short};
pub use opened::Opened;

/// Methods that we take part in, as Allow says them.
pub use crate::sip::door::ALLOW;

/// What we call ourselves.
pub const USER_AGENT: &str = concat!("strowger/", env!("CARGO_PKG_VERSION"));

/// Early dialogs of one INVITE that are told apart.
const MAX_EARLY: usize = 8;

/// What a leg tells its call.
#[derive(Clone, Debug)]
pub enum Event {
    /// 180, 181, 182, 183.
    Progress {
        /// Status.
        status: u16,
        /// Early media.
        body: Option<Bytes>,
        /// Which early dialog, in order of appearance.
        early: u8,
    },
    /// 2xx; to be acknowledged with [`Leg::ack`].
    Answered {
        /// Its description: an answer, or an offer if we made none.
        body: Option<Bytes>,
        /// Which early dialog.
        early: u8,
    },
    /// A final refusal, or none at all.
    Refused {
        /// Status.
        status: u16,
        /// Its phrase.
        phrase: String,
        /// Reason header.
        reason: Option<String>,
        /// Whether it rang before.
        connected: bool,
        /// Where it sends the call on to, best first.
        contacts: Vec<String>,
        /// The peer did not say so: there was no answer, or no way to it, and the phrase says which.
        unheard: bool,
    },
    /// The caller cancelled.
    Cancelled {
        /// Reason header.
        reason: Option<String>,
    },
    /// Our 2xx was acknowledged.
    Acked {
        /// The answer to a late offer.
        body: Option<Bytes>,
    },
    /// The peer offers anew, or asks for an offer; to be answered with [`Leg::answer_offered`].
    Offered {
        /// The offer.
        body: Option<Bytes>,
    },
    /// The peer cancelled its re-INVITE, and got its 487; or it will not wait for the answer to its UPDATE any longer, and got 504.
    Withdrawn,
    /// The peer described itself anew where it only had to repeat itself: in its answer to a refresh of ours.
    Restated {
        /// Its description.
        body: Bytes,
    },
    /// The answer to [`Leg::offer`]. A 2xx is to be acknowledged with [`Leg::ack`].
    OfferAnswered {
        /// Status.
        status: u16,
        /// Phrase.
        phrase: String,
        /// Description.
        body: Option<Bytes>,
    },
    /// INFO and the like; to be answered with [`Leg::answer_asked`].
    Asked {
        /// What.
        asked: Asked,
    },
    /// The answer to [`Leg::ask`].
    AskedAnswered {
        /// Status.
        status: u16,
        /// Phrase.
        phrase: String,
        /// Its body and the type of it.
        body: Option<(String, Bytes)>,
    },
    /// The peer hung up.
    Bye {
        /// Reason header.
        reason: Option<String>,
    },
    /// The dialog is lost: session timer, 408 or 481 to a request of ours, no ACK.
    Lost {
        /// Why, in words.
        because: Option<String>,
        /// The status that says so.
        status: u16,
    },
    /// It is over; nothing more will come.
    Gone,
}

/// Our side of a dialog.
#[derive(Debug)]
pub struct Leg {
    /// Its key.
    pub key: LegKey,
    /// Its call.
    pub call: CallKey,
    /// Its number in the call's journey.
    pub number: u32,
    /// Who is there.
    pub peer: Peer,
    /// Its streams. Boxed, like much else that most legs never need: thousands of legs stand for hours.
    pub end: Option<Box<End>>,
    /// The extension whose mobile it is, or the number of an agent who has none.
    pub owner: Option<Label>,
    /// It counts as one of the peer's calls.
    pub occupies: bool,
    pub(super) flow: Flow,
    call_id: Box<str>,
    tag: Box<str>,
    state: State,
    /// Deadline that has been asked for.
    armed: Option<Instant>,
    /// The description that we sent last, where there is no [`End`] to keep it.
    told: Option<Bytes>,
    /// Tags of other branches of a fork beyond us that answered too, and got their BYE.
    strays: SmallVec<[Box<str>; 1]>,
    /// The phone is told to answer by itself.
    by_itself: bool,
    /// What is kept of it over a crash.
    opened: Option<Box<Opened>>,
}

#[derive(Debug)]
enum State {
    Invited(Invited),
    Calling(Box<Calling>),
    Up(Box<Up>),
    /// BYE is on its way.
    Ending(Box<Ending>),
    Over,
}

#[derive(Debug)]
struct Invited {
    invite: ServerKey,
    remote_tag: Box<str>,
    offer: Option<Bytes>,
}

#[derive(Debug)]
struct Calling {
    key: ClientKey,
    dial: Dial,
    seq: u32,
    rang: bool,
    cancelled: bool,
    /// When it was first sent.
    asked: Instant,
    /// It was answered by anything at all.
    heard: bool,
    /// When an address that says nothing is given up.
    patience: Option<Instant>,
    proofs: Proofs,
    timer: refresh::Offered,
    early: SmallVec<[(Box<str>, u8); 1]>,
    variants: SmallVec<[(u8, u8); 1]>,
}

#[derive(Debug)]
struct Up {
    dialog: Dialog,
    usage: Usage,
    timer: Option<refresh::Session>,
    update: bool,
    credentials: Option<Credentials>,
    /// What our last INVITE proved itself with: its ACK says the same (RFC 3261 13.2.2.4).
    proofs: Proofs,
    /// A re-INVITE or UPDATE of ours.
    offering: Option<Box<Offering>>,
    /// The peer's re-INVITE or UPDATE.
    offered: Option<Box<Offered>>,
    asking: Option<ClientKey>,
    /// What is to be asked once our re-INVITE or UPDATE has its final answer: it must not overtake one that is lost and sent
    /// again, which would then come out of order (RFC 3261 12.2.2).
    to_ask: Option<Box<ToAsk>>,
    /// What passes to the other side, in order; the first is there.
    asked: VecDeque<Waiting>,
    /// What our requests say of the session's interval; a 422 raises it for the rest of the dialog (RFC 4028 7.4).
    interval: refresh::Offered,
    /// A 2xx of the peer's that has not had its ACK.
    owed: Option<u32>,
    /// A refresh of ours met an offer of the peer's (491), and is to be tried again.
    refresh_refused: bool,
    /// BYE, with this reason, waits for the ACK of our 2xx.
    bye_due: Option<Option<Box<str>>>,
    variants: SmallVec<[(u8, u8); 1]>,
    early: SmallVec<[(Box<str>, u8); 1]>,
}

#[derive(Debug)]
struct Offering {
    key: ClientKey,
    method: Method,
    /// A session refresh of ours, not an offer that passes.
    refresh: bool,
    body: Option<Bytes>,
    proofs: Proofs,
    seq: u32,
    /// When it is taken back, once.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Offered {
    key: ServerKey,
    method: Method,
    timer: refresh::Asked,
    /// When an UPDATE is answered by us. A re-INVITE may take as long as it likes.
    until: Option<Instant>,
}

impl Leg {
    /// The caller's leg. `msg` has Contact, and its Session-Expires is not too small (see [`too_short`]).
    pub fn uas(
        key: LegKey,
        call: CallKey,
        peer: Peer,
        invite: ServerKey,
        flow: Flow,
        msg: &Message,
        cx: &mut Cx<'_>,
    ) -> Leg {
        let offer = sdp(msg);
        let remote_tag = msg.from_tag().unwrap_or_default().into();
        let state = State::Invited(Invited { invite, remote_tag, offer });
        Leg {
            key,
            call,
            number: 0,
            peer,
            end: None,
            owner: None,
            occupies: false,
            flow,
            call_id: msg.call_id().into(),
            tag: mint_tag(cx.engine, key, cx.rng),
            state,
            armed: None,
            told: None,
            strays: SmallVec::new(),
            by_itself: false,
            opened: None,
        }
    }

    /// A leg to be rung; follow with [`Leg::invite`].
    pub fn uac(
        key: LegKey,
        call: CallKey,
        number: u32,
        peer: Peer,
        dial: Dial,
        end: Option<End>,
        cx: &mut Cx<'_>,
    ) -> Leg {
        let calling = Calling {
            key: ClientKey::null(),
            seq: 0,
            rang: false,
            cancelled: false,
            asked: cx.now.mono,
            heard: false,
            patience: None,
            proofs: Proofs::default(),
            timer: refresh::Offered::new(dial.wish),
            early: SmallVec::new(),
            variants: SmallVec::new(),
            dial,
        };
        Leg {
            key,
            call,
            number,
            peer,
            end: end.map(Box::new),
            owner: None,
            occupies: false,
            flow: calling.dial.place.flow,
            by_itself: calling.dial.refreshes,
            opened: None,
            call_id: mint_call_id(cx.engine, cx.rng),
            tag: mint_tag(cx.engine, key, cx.rng),
            state: State::Calling(Box::new(calling)),
            armed: None,
            told: None,
            strays: SmallVec::new(),
        }
    }

    /// Its Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Who is at the other end: an extension, by a phone or by its mobile, or an agent who has none.
    pub fn extension(&self) -> Option<&Label> {
        match &self.peer {
            Peer::Extension(number) => Some(number),
            Peer::Trunk { .. } => self.owner.as_ref(),
        }
    }

    /// The flow that it was set up by.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// The caller's offer.
    pub fn offered(&self) -> Option<&Bytes> {
        match &self.state {
            State::Invited(invited) => invited.offer.as_ref(),
            State::Calling(_) | State::Up(_) | State::Ending(_) | State::Over => None,
        }
    }

    /// Whether the caller made no offer: the callee's answer will be one.
    pub fn offered_late(&self) -> bool {
        matches!(&self.state, State::Invited(Invited { offer: None, .. }))
    }

    /// Whether it is a caller's whose INVITE is not answered.
    pub fn is_invited(&self) -> bool {
        matches!(self.state, State::Invited(_))
    }

    /// Whether it is answered and not over.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether it has said nothing at all to an INVITE of some time ago.
    pub fn is_silent(&self, now: Instant) -> bool {
        let State::Calling(calling) = &self.state else { return false };
        !calling.heard && !calling.cancelled && now.since(calling.asked) >= SILENT_PHONE
    }

    /// Whether a message is of this dialog: Call-ID and both tags.
    pub fn owns(&self, msg: &Message) -> bool {
        let (local, remote) = (msg.to_tag().unwrap_or_default(), msg.from_tag().unwrap_or_default());
        let ours = *self.call_id == *msg.call_id() && local.strip_prefix(&*self.tag).is_some_and(is_variant);
        ours && match &self.state {
            State::Invited(invited) => *invited.remote_tag == *remote,
            State::Calling(calling) => calling.early.iter().any(|(tag, _)| **tag == *remote),
            State::Up(up) => *up.dialog.remote_tag == *remote && *up.dialog.local_tag == *local,
            State::Ending(_) => true,
            State::Over => false,
        }
    }

    /// The early dialog of a callee as an early dialog towards the caller: a number of its own for each.
    pub fn variant_of(&mut self, early: u8, next: &mut u8) -> u8 {
        let variants = match &mut self.state {
            State::Calling(calling) => &mut calling.variants,
            State::Up(up) => &mut up.variants,
            State::Invited(_) | State::Ending(_) | State::Over => return 0,
        };
        if let Some((_, variant)) = variants.iter().find(|(e, _)| *e == early) {
            return *variant;
        }
        let variant = *next;
        *next = next.saturating_add(1);
        variants.push((early, variant));
        variant
    }

    /// The connection that it was set up by is gone; the dialog is not.
    pub fn disconnected(&mut self) {
        self.flow.conn = 0;
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Calling(calling) => calling.patience,
            State::Up(up) => up.deadline(),
            State::Invited(_) | State::Ending(_) | State::Over => None,
        }
    }

    fn rearm(&mut self, cx: &mut Cx<'_>) {
        let Some(at) = self.deadline() else { return };
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            cx.switch.arm_leg(at, self.key);
        }
    }
}

impl Up {
    fn new(
        dialog: Dialog,
        usage: Usage,
        timer: Option<refresh::Session>,
        update: bool,
        credentials: Option<Credentials>,
    ) -> Up {
        Up {
            dialog,
            usage,
            timer,
            update,
            credentials,
            proofs: Proofs::default(),
            offering: None,
            offered: None,
            asking: None,
            to_ask: None,
            asked: VecDeque::new(),
            interval: refresh::Offered::new(Wish::default()),
            owed: None,
            refresh_refused: false,
            bye_due: None,
            variants: SmallVec::new(),
            early: SmallVec::new(),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let asked = self.asked.iter().filter(|w| w.key.is_some()).map(|w| w.until).min();
        let offers = [self.offered.as_ref().and_then(|o| o.until), self.offering.as_ref().and_then(|o| o.until)];
        let timer = self.timer.map(|t| t.deadline());
        let to_ask = self.to_ask.as_ref().map(|waiting| waiting.until);
        offers.into_iter().chain([asked, to_ask, self.usage.deadline(), timer]).flatten().min()
    }
}

fn finish(w: Writer, body: Option<&Bytes>) -> Bytes {
    match body {
        Some(body) => w.body("application/sdp", body),
        None => w.finish(),
    }
}

/// The session description of a message, if it has one, also as a part of a multipart body.
pub fn sdp(msg: &Message) -> Option<Bytes> {
    let part = msg.sdp().ok().flatten().filter(|part| !part.is_empty())?;
    Some(msg.body_bytes().slice_ref(part))
}

fn asked_timer(msg: &Message) -> refresh::Asked {
    let expires = msg.text(Name::SessionExpires).and_then(|v| SessionExpires::parse(v).ok());
    refresh::Asked {
        supported: msg.lists(Name::Supported, "timer") || msg.lists(Name::Require, "timer"),
        expires: expires.map(|e| (e.delta, e.refresher)),
        min_se: msg.seconds(Name::MinSe),
    }
}

fn write_timer(w: &mut Writer, asked: refresh::Asked, now: Instant) -> Option<refresh::Session> {
    let answer = refresh::answer(Wish::default(), asked);
    if let refresh::Answer::Accept { expires, refresher, require } = answer {
        let who = match refresher {
            Refresher::Uac => "uac",
            Refresher::Uas => "uas",
        };
        w.fmt(Name::SessionExpires, format_args!("{expires};refresher={who}"));
        if require {
            w.header(Name::Require, "timer");
        }
    }
    refresh::Session::answered(now, answer)
}

fn refuse(cx: &mut Cx<'_>, key: ServerKey, flow: Flow, msg: &Message, refusal: &Refusal) {
    let bytes = Writer::refuse(msg, flow.remote, refusal, None).finish();
    cx.tx.respond(cx.now.mono, key, refusal.status, bytes, cx.said);
}

/// Where the next request goes. A phone is reached over the flow that it came by, whatever its Contact says (it may be behind
/// NAT), or, if that connection is gone, where it is registered now; a trunk where its route or Contact says, if that is an
/// address.
fn next(cx: &Cx<'_>, dialog: &Dialog, peer: &Peer, flow: Flow) -> Flow {
    let lost = flow.transport.reliable() && flow.conn == 0;
    match peer {
        // Another phone of the same person is not this one.
        Peer::Extension(number) if lost => {
            cx.switch.reach(number).filter(|now| now.remote.ip() == flow.remote.ip()).unwrap_or(flow)
        }
        Peer::Extension(_) => flow,
        Peer::Trunk { .. } if flow.transport.reliable() && !lost => flow,
        Peer::Trunk { .. } => {
            let uri = crate::sip::Uri::parse(dialog.next_hop()).ok();
            let remote = uri.and_then(|u| Some(std::net::SocketAddr::new(u.ip()?, u.port.unwrap_or(5060))));
            Flow { remote: remote.filter(|r| r.is_ipv4() == flow.local.is_ipv4()).unwrap_or(flow.remote), ..flow }
        }
    }
}

/// A peer that moved to another port of its own (or another connection) is answered there.
fn moved(old: Flow, new: Flow) -> Flow {
    if old.transport == new.transport { Flow { local: old.local, ..new } } else { new }
}
