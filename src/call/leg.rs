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

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use slotmap::{Key, KeyData};
use smallvec::SmallVec;

use super::bridge::End;
use super::{CallKey, Cx, LegKey, Owner, Place};
use crate::base::{Instant, Rng};
use crate::dialog::invite::{Act, Carrier, Offer, Part, Usage};
use crate::dialog::refresh::{self, Due, Wish};
use crate::dialog::{Dialog, Sent};
use crate::directory::vendor::AutoAnswer;
use crate::directory::{CallerIdForm, E164, Label, NumberFormat, Secret};
use crate::policy::Way;
use crate::sip::digest::{self, Challenge};
use crate::sip::header::{Refresher, SessionExpires};
use crate::sip::{Flow, Message, Method, Name, Refusal, Writer, phrase};
use crate::transaction::{ClientKey, Failure, Output, ServerKey};

/// Methods that we take part in, as Allow says them.
pub use crate::sip::door::ALLOW;
/// What we call ourselves.
pub const USER_AGENT: &str = concat!("strowger/", env!("CARGO_PKG_VERSION"));
/// An address of a trunk that says nothing at all to an INVITE for so long is given up, and the next one tried.
pub const SILENT_TRUNK: Duration = Duration::from_millis(3500);
/// From of a caller who wants to be anonymous (RFC 3323 4.1.1.3).
const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";
/// Times that one INVITE is sent again with credentials.
const MAX_CHALLENGES: u8 = 2;
/// Early dialogs of one INVITE that are told apart.
const MAX_EARLY: usize = 8;
/// Requests of one peer that wait for the other side: one is over there, the others follow in order. One more gets 500. Digits
/// by INFO come as fast as a thumb; nobody has more than that many of them under way who hears answers at all.
const MAX_ASKED: usize = 16;
/// A re-INVITE of ours that rings or hangs with a provisional answer is taken back after so long: nobody else ends it.
const MAX_OFFERING: Duration = Duration::from_secs(60);

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A phone of this extension.
    Extension(Label),
    /// Somebody behind a trunk.
    Trunk {
        /// Which trunk.
        trunk: Label,
        /// Their number, as written on the trunk.
        number: Label,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Extension(number) => write!(f, "extension:{number}"),
            Peer::Trunk { number, .. } => write!(f, "number:{number}"),
        }
    }
}

/// Who calls, as the other side is told.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// Name.
    pub name: Option<String>,
    /// Number: E.164 or an extension.
    pub user: String,
    /// The caller wants to be anonymous.
    pub hidden: bool,
    /// The call came to this number of ours, and is forwarded where it goes out again.
    pub diverted: Option<Diverted>,
}

/// A number that forwards a call, told to the carrier (RFC 5806, RFC 7044).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diverted {
    /// The number.
    pub by: E164,
    /// Somebody rang before and did not answer.
    pub unanswered: bool,
}

impl Identity {
    /// With words before the name, or before the number where there is no name.
    pub fn shown_as(&self, before: Option<&str>) -> Identity {
        let name = before.map(|before| format!("{before}: {}", self.name.as_deref().unwrap_or(&self.user)));
        Identity { name: name.or_else(|| self.name.clone()), ..self.clone() }
    }
}

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

/// A request within the dialog that passes to the other side.
#[derive(Clone, Debug)]
pub struct Asked {
    /// INFO, MESSAGE.
    pub method: Method,
    /// Its type.
    pub content_type: Option<String>,
    /// Its body, byte for byte.
    pub body: Bytes,
}

/// What an outgoing INVITE is made of; kept until its final answer, because it may have to be sent again.
#[derive(Debug)]
pub struct Dial {
    place: Place,
    from: String,
    to: String,
    identity: Vec<(Name, String)>,
    max_forwards: u8,
    body: Option<Bytes>,
    credentials: Option<Credentials>,
    /// If it says nothing at all, somebody else is tried.
    impatient: bool,
    /// What it asks of the session's interval.
    wish: Wish,
    /// Refreshing is our work, whatever the peer can do.
    refreshes: bool,
}

type Credentials = (Label, Secret);

impl Dial {
    /// For a place on a way. `impatient`: silence for [`SILENT_TRUNK`] is an answer.
    pub fn new(
        cx: &Cx<'_>,
        way: &Way,
        place: Place,
        caller: &Identity,
        max_forwards: u8,
        body: Option<Bytes>,
        impatient: bool,
    ) -> Dial {
        let directory = cx.directory;
        let domain = match directory.node.domains.first() {
            Some(domain) => domain.clone(),
            None => Label::from(place.flow.local.ip().to_string()),
        };
        match way {
            Way::Extension(number) => {
                let from = match caller.hidden {
                    true => ANONYMOUS.to_owned(),
                    false => address(caller.name.as_deref(), &caller.user, &domain),
                };
                let to = ["<sip:", number, "@", &domain, ">"].concat();
                let (identity, credentials, wish, refreshes) = (Vec::new(), None, Wish::default(), false);
                Dial { place, from, to, identity, max_forwards, body, credentials, impatient, wish, refreshes }
            }
            Way::Trunk { trunk, shown, .. } => {
                let trunk = directory.trunk(trunk);
                let user = match (trunk, shown) {
                    (Some(trunk), Some(shown)) => shown.written(trunk.number_format, directory.node.country),
                    _ => caller.user.clone(),
                };
                let own = format!("<sip:{user}@{domain}>");
                let from = if caller.hidden { ANONYMOUS.to_owned() } else { own.clone() };
                let form = trunk.map_or(CallerIdForm::From, |t| t.caller_id);
                let privacy = if caller.hidden { "full" } else { "off" };
                let mut identity = match form {
                    CallerIdForm::From => Vec::new(),
                    CallerIdForm::PAssertedIdentity => vec![(Name::PAssertedIdentity, own.clone())],
                    CallerIdForm::RemotePartyId => {
                        vec![(Name::RemotePartyId, format!("{own};party=calling;screen=yes;privacy={privacy}"))]
                    }
                };
                if caller.hidden {
                    identity.push((Name::Privacy, "id".to_owned()));
                }
                if let Some(diverted) = &caller.diverted {
                    let format = trunk.map_or(NumberFormat::E164, |t| t.number_format);
                    let by = diverted.by.written(format, directory.node.country);
                    identity.extend(diverted.headers(&format!("sip:{by}@{domain}"), &place.uri));
                }
                let credentials = trunk.and_then(|t| Some((t.username.clone()?, t.password.clone()?)));
                let to = format!("<{}>", place.uri);
                let (wish, refreshes) = (Wish::default(), false);
                Dial { place, from, to, identity, max_forwards, body, credentials, impatient, wish, refreshes }
            }
        }
    }

    /// The phone answers by itself, told so in the words of its make. Its session is as short as may be, and only we keep it
    /// up: if we are gone, the phone hangs up by itself and is never left open.
    pub fn by_itself(mut self, how: AutoAnswer) -> Dial {
        let headers = [(Name::AlertInfo, how.alert_info), (Name::CallInfo, how.call_info)];
        self.identity.extend(headers.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))));
        if how.intercom {
            let at = self.place.uri.find('?').unwrap_or(self.place.uri.len());
            self.place.uri.insert_str(at, ";intercom=true");
        }
        self.wish = Wish { interval: refresh::LEAST, ..Wish::default() };
        self.refreshes = true;
        self
    }
}

impl Diverted {
    /// Who forwarded, and why: Diversion for carriers of the older way, History-Info with the cause of RFC 4458 for the others.
    fn headers(&self, by: &str, to: &str) -> [(Name, String); 2] {
        let (reason, cause) = if self.unanswered { ("no-answer", 408) } else { ("unconditional", 302) };
        let history = format!("<{by}>;index=1, <{to};cause={cause}>;index=1.1;mp=1");
        [(Name::Diversion, format!("<{by}>;reason={reason};counter=1")), (Name::HistoryInfo, history)]
    }
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
    /// Its streams.
    pub end: Option<End>,
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
}

#[derive(Debug)]
enum State {
    Invited(Invited),
    Calling(Box<Calling>),
    Up(Box<Up>),
    /// BYE is on its way; what is needed to send it again, once with credentials and once over a new connection.
    Ending(Option<Box<Ending>>),
    Over,
}

#[derive(Debug)]
struct Invited {
    invite: ServerKey,
    remote_tag: Box<str>,
    offer: Option<Bytes>,
    timer: refresh::Asked,
}

#[derive(Debug)]
struct Calling {
    key: ClientKey,
    dial: Dial,
    seq: u32,
    rang: bool,
    cancelled: bool,
    /// When an address that says nothing is given up.
    patience: Option<Instant>,
    challenges: u8,
    authorization: Option<(Name, String)>,
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
    proof: Option<(Name, String)>,
    /// A re-INVITE or UPDATE of ours.
    offering: Option<Offering>,
    /// The peer's re-INVITE or UPDATE.
    offered: Option<Offered>,
    asking: Option<ClientKey>,
    /// What is to be asked once our re-INVITE or UPDATE has its final answer: it must not overtake one that is lost and sent
    /// again, which would then come out of order (RFC 3261 12.2.2).
    to_ask: Option<ToAsk>,
    /// What passes to the other side, in order; the first is there.
    asked: VecDeque<Waiting>,
    /// What our requests say of the session's interval; a 422 raises it for the rest of the dialog (RFC 4028 7.4).
    interval: refresh::Offered,
    /// A 2xx of the peer's that has not had its ACK.
    owed: Option<u32>,
    /// A refresh of ours met an offer of the peer's (491), and is to be tried again.
    refresh_refused: bool,
    /// BYE waits for the ACK of our 2xx.
    bye_due: Option<Option<String>>,
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
    challenged: bool,
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

#[derive(Debug)]
struct Waiting {
    /// None once we have answered it ourselves.
    key: Option<ServerKey>,
    asked: Asked,
    until: Instant,
}

#[derive(Debug)]
struct ToAsk {
    asked: Asked,
    until: Instant,
}

#[derive(Debug)]
struct Ending {
    dialog: Dialog,
    reason: Option<Box<str>>,
    credentials: Option<Credentials>,
    /// A broken connection has been replaced.
    reconnected: bool,
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
        let state = State::Invited(Invited { invite, remote_tag, offer, timer: asked_timer(msg) });
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
            patience: None,
            challenges: 0,
            authorization: None,
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
            end,
            owner: None,
            occupies: false,
            flow: calling.dial.place.flow,
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

    /// Whether it is answered and not over.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
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

    // --- towards the caller ------------------------------------------------------------------------------------------

    /// A provisional answer. `variant` names the early dialog.
    pub fn progress(&mut self, cx: &mut Cx<'_>, status: u16, variant: u8, body: Option<&Bytes>) {
        let State::Invited(invited) = &self.state else { return };
        let Some(request) = cx.tx.request_of(invited.invite) else { return };
        let mut w = Writer::answer(request, self.flow.remote, status, phrase(status), Some(&self.tag_of(variant)));
        w.copy(request, Name::RecordRoute).contact(&self.flow);
        let bytes = finish(w, body);
        cx.tx.respond(cx.now.mono, invited.invite, status, bytes, cx.said);
    }

    /// 200: the call is answered.
    pub fn accept(&mut self, cx: &mut Cx<'_>, variant: u8, body: Option<&Bytes>) {
        let tag = self.tag_of(variant);
        let State::Invited(invited) = &self.state else { return };
        let Some(request) = cx.tx.request_of(invited.invite) else { return };
        let Ok(mut dialog) = Dialog::uas(request, &tag, self.flow) else { return };
        dialog.early = false;
        let mut usage = Usage::uas(request.cseq().seq, invited.offer.is_some());
        let mut w = Writer::answer(request, self.flow.remote, 200, "OK", Some(&tag));
        w.copy(request, Name::RecordRoute).contact(&self.flow);
        w.header(Name::Allow, ALLOW).header(Name::Supported, "timer");
        let timer = write_timer(&mut w, invited.timer, cx.now.mono);
        let update = allows_update(request);
        let last = self.end.as_ref().and_then(|e| e.last_told());
        let body = body.or(last).cloned();
        let bytes = finish(w, body.as_ref());
        let has_body = body.is_some();
        if self.end.is_none() {
            self.told = body.as_deref().map(Bytes::copy_from_slice);
        }
        usage.accept(cx.now.mono, cx.timing, bytes.clone(), has_body);
        cx.tx.respond(cx.now.mono, invited.invite, 200, bytes, cx.said);
        self.state = State::Up(Box::new(Up::new(dialog, usage, timer, update, None)));
        self.rearm(cx);
    }

    /// The final refusal of the caller's INVITE.
    pub fn refuse(&mut self, cx: &mut Cx<'_>, status: u16, words: &str, reason: Option<&str>) {
        let State::Invited(invited) = &self.state else { return };
        if let Some(request) = cx.tx.request_of(invited.invite) {
            let mut w = Writer::answer(request, self.flow.remote, status, words, Some(&self.tag));
            if let Some(reason) = reason {
                w.header(Name::Reason, reason);
            }
            if status == 503 {
                w.header(Name::RetryAfter, "5");
            }
            cx.tx.respond(cx.now.mono, invited.invite, status, w.finish(), cx.said);
        }
        self.state = State::Over;
    }

    // --- towards a callee --------------------------------------------------------------------------------------------

    /// Sends the INVITE, or sends it again with credentials or another session interval.
    pub fn invite(&mut self, cx: &mut Cx<'_>) {
        let State::Calling(calling) = &mut self.state else { return };
        let (key, branch) = cx.tx.branch();
        calling.key = key;
        calling.seq += 1;
        let dial = &calling.dial;
        let flow = dial.place.flow;
        let mut w = Writer::request("INVITE", &dial.place.uri);
        w.via(&flow, &branch);
        w.number(Name::MaxForwards, dial.max_forwards);
        for route in &dial.place.route {
            w.header(Name::Route, route);
        }
        w.parts(Name::From, &[&dial.from, ";tag=", &self.tag]);
        w.header(Name::To, &dial.to).header(Name::CallId, &*self.call_id);
        w.cseq(calling.seq, "INVITE");
        w.contact(&flow).header(Name::Allow, ALLOW).header(Name::Supported, "timer");
        match dial.refreshes {
            true => w.fmt(Name::SessionExpires, format_args!("{};refresher=uac", calling.timer.expires)),
            false => w.number(Name::SessionExpires, calling.timer.expires),
        };
        if let Some(min_se) = calling.timer.min_se {
            w.number(Name::MinSe, min_se);
        }
        for (name, value) in &dial.identity {
            w.header(*name, value);
        }
        if let Some((name, value)) = &calling.authorization {
            w.header(*name, value);
        }
        w.header(Name::UserAgent, USER_AGENT);
        let bytes = finish(w, dial.body.as_ref());
        if self.end.is_none() {
            self.told = dial.body.as_deref().map(Bytes::copy_from_slice);
        }
        calling.patience = dial.impatient.then(|| cx.now.mono + SILENT_TRUNK);
        cx.tx.request(cx.now.mono, key, flow, bytes, Method::Invite, Owner::Leg(self.key), cx.said);
        self.rearm(cx);
    }

    /// Acknowledges the 2xx that is owed an ACK, with the answer to a late offer if there is one.
    pub fn ack(&mut self, cx: &mut Cx<'_>, body: Option<&Bytes>) {
        let State::Up(up) = &mut self.state else { return };
        let Some(seq) = up.owed.take() else { return };
        let flow = next(cx, &up.dialog, &self.peer, self.flow);
        // An answer only where there was an offer (RFC 3261 13.2.1).
        let body = body.filter(|_| up.usage.offer() == Offer::Received(Carrier::Success));
        up.acknowledge(cx, flow, seq, body);
        if self.end.is_none() && body.is_some() {
            self.told = body.map(|b| Bytes::copy_from_slice(b));
        }
        self.rearm(cx);
    }

    /// Whether a 2xx of the peer's waits for its ACK.
    pub fn owes_ack(&self) -> bool {
        matches!(&self.state, State::Up(up) if up.owed.is_some())
    }

    // --- once it is up -----------------------------------------------------------------------------------------------

    /// Whether an offer may be sent now (RFC 3261 14.1). One that overtook an INFO of ours would cost that INFO.
    pub fn may_offer(&self) -> bool {
        let State::Up(up) = &self.state else { return false };
        up.usage.may_invite() && up.offering.is_none() && up.offered.is_none() && up.asking.is_none()
    }

    /// Sends a re-INVITE with this offer, or without one to ask for it.
    pub fn offer(&mut self, cx: &mut Cx<'_>, body: Option<&Bytes>) {
        if self.end.is_none() && body.is_some() {
            self.told = body.map(|b| Bytes::copy_from_slice(b));
        }
        self.renegotiate(cx, Method::Invite, body.cloned(), false, None);
        self.rearm(cx);
    }

    /// The offer that we sent last, where the call keeps no streams.
    pub fn last_offer(&self) -> Option<&[u8]> {
        self.told.as_deref()
    }

    /// Answers the peer's re-INVITE or UPDATE.
    pub fn answer_offered(&mut self, cx: &mut Cx<'_>, status: u16, words: &str, body: Option<&Bytes>) {
        let State::Up(up) = &mut self.state else { return };
        let Some(Offered { key, method, timer, until: _ }) = up.offered.take() else { return };
        let Some(request) = cx.tx.request_of(key) else { return };
        let mut w = Writer::answer(request, self.flow.remote, status, words, None);
        let accepted = (200..300).contains(&status);
        if accepted {
            up.dialog.retarget(request);
            w.copy(request, Name::RecordRoute).contact(&self.flow);
            w.header(Name::Allow, ALLOW).header(Name::Supported, "timer");
            up.timer = write_timer(&mut w, timer, cx.now.mono).or(up.timer);
        }
        let bytes = finish(w, body.filter(|_| accepted));
        match (method, accepted) {
            (Method::Invite, true) => {
                up.usage.accept(cx.now.mono, cx.timing, bytes.clone(), body.is_some());
            }
            (Method::Invite, false) => up.usage.refuse(),
            _ => up.usage.update_answered(),
        }
        if self.end.is_none() && accepted && body.is_some() {
            self.told = body.map(|b| Bytes::copy_from_slice(b));
        }
        cx.tx.respond(cx.now.mono, key, status, bytes, cx.said);
        self.rearm(cx);
    }

    /// Passes a request within the dialog, if there is one still; behind an offer of ours that is not answered yet.
    pub fn ask(&mut self, cx: &mut Cx<'_>, asked: Asked) -> bool {
        let State::Up(up) = &mut self.state else { return false };
        match up.offering {
            Some(_) => up.to_ask = Some(ToAsk { asked, until: pass_until(cx) }),
            None => self.send_asked(cx, &asked),
        }
        self.rearm(cx);
        true
    }

    /// Our offer has its final answer: what waited behind it goes out.
    fn ask_due(&mut self, cx: &mut Cx<'_>) {
        if let State::Up(up) = &mut self.state
            && up.offering.is_none()
            && let Some(ToAsk { asked, .. }) = up.to_ask.take()
        {
            self.send_asked(cx, &asked);
        }
    }

    fn send_asked(&mut self, cx: &mut Cx<'_>, asked: &Asked) {
        let State::Up(up) = &mut self.state else { return };
        let (key, branch) = cx.tx.branch();
        let mut w = up.dialog.request(asked.method, &branch, None);
        w.contact(&self.flow);
        w.header(Name::UserAgent, USER_AGENT);
        let bytes = match &asked.content_type {
            Some(content_type) => w.body(content_type, &asked.body),
            None => w.finish(),
        };
        up.asking = Some(key);
        let flow = next(cx, &up.dialog, &self.peer, self.flow);
        cx.tx.request(cx.now.mono, key, flow, bytes, asked.method, Owner::Leg(self.key), cx.said);
    }

    /// Answers the peer's INFO; the next one that waits, if there is one, is to be asked now.
    pub fn answer_asked(
        &mut self,
        cx: &mut Cx<'_>,
        status: u16,
        words: &str,
        body: Option<&(String, Bytes)>,
    ) -> Option<Asked> {
        let State::Up(up) = &mut self.state else { return None };
        let Waiting { key, .. } = up.asked.pop_front()?;
        if let Some((key, request)) = key.and_then(|key| Some((key, cx.tx.request_of(key)?))) {
            let w = Writer::answer(request, self.flow.remote, status, words, None);
            let bytes = match body {
                Some((content_type, body)) => w.body(content_type, body),
                None => w.finish(),
            };
            cx.tx.respond(cx.now.mono, key, status, bytes, cx.said);
        }
        up.asked.front().map(|waiting| waiting.asked.clone())
    }

    /// Refuses whatever the peer asked within the dialog.
    pub fn decline(&mut self, cx: &mut Cx<'_>, status: u16) {
        self.answer_offered(cx, status, phrase(status), None);
        while self.answer_asked(cx, status, phrase(status), None).is_some() {}
    }

    /// Says again what stands, because the peer has agreed to something that was taken back.
    pub fn restate(&mut self, cx: &mut Cx<'_>) {
        let Some(body) = self.end.as_mut().and_then(End::restated) else { return };
        self.renegotiate(cx, Method::Invite, Some(body), true, None);
        self.rearm(cx);
    }

    /// Ends the leg, whatever it is doing: BYE, CANCEL, or a refusal. A callee's BYE waits for the ACK of its 2xx.
    pub fn hang_up(&mut self, cx: &mut Cx<'_>, reason: Option<&str>) {
        match &mut self.state {
            State::Invited(_) => self.refuse(cx, 487, "Request Terminated", reason),
            State::Calling(calling) => {
                calling.patience = None;
                if !calling.cancelled {
                    calling.cancelled = true;
                    cx.tx.cancel(cx.now.mono, calling.key, reason, cx.said);
                }
            }
            State::Up(up) => {
                up.settle(cx, &self.flow);
                if let Some(offering) = up.offering.as_ref().filter(|o| o.method == Method::Invite) {
                    cx.tx.cancel(cx.now.mono, offering.key, None, cx.said);
                }
                if let Some(seq) = up.owed.take() {
                    let flow = next(cx, &up.dialog, &self.peer, self.flow);
                    up.acknowledge(cx, flow, seq, None);
                }
                match up.usage.may_bye() {
                    true => self.bye(cx, reason),
                    false => up.bye_due = Some(reason.map(str::to_owned)),
                }
            }
            State::Ending(_) | State::Over => {}
        }
        self.rearm(cx);
    }

    fn bye(&mut self, cx: &mut Cx<'_>, reason: Option<&str>) {
        let State::Up(up) = std::mem::replace(&mut self.state, State::Ending(None)) else { return };
        let Up { mut dialog, credentials, .. } = *up;
        self.say_bye(cx, &mut dialog, reason, None);
        let reason = reason.map(Box::from);
        self.state = State::Ending(Some(Box::new(Ending { dialog, reason, credentials, reconnected: false })));
    }

    fn say_bye(&mut self, cx: &mut Cx<'_>, dialog: &mut Dialog, reason: Option<&str>, proof: Option<(Name, String)>) {
        let (key, branch) = cx.tx.branch();
        let mut w = dialog.request(Method::Bye, &branch, None);
        if let Some(reason) = reason {
            w.header(Name::Reason, reason);
        }
        if let Some((name, value)) = proof {
            w.header(name, value);
        }
        w.header(Name::UserAgent, USER_AGENT);
        let flow = next(cx, dialog, &self.peer, self.flow);
        cx.tx.request(cx.now.mono, key, flow, w.finish(), Method::Bye, Owner::Leg(self.key), cx.said);
    }

    // --- what arrives ------------------------------------------------------------------------------------------------

    /// A request within the dialog.
    pub fn on_request(&mut self, cx: &mut Cx<'_>, key: ServerKey, flow: Flow, msg: &Message) -> Option<Event> {
        let method = msg.method();
        let respond = |cx: &mut Cx<'_>, status: u16| {
            let bytes = Writer::answer(msg, flow.remote, status, phrase(status), None).finish();
            cx.tx.respond(cx.now.mono, key, status, bytes, cx.said);
        };
        let reason = || msg.text(Name::Reason).map(str::to_owned);
        let up = match &mut self.state {
            State::Up(up) => up,
            // A caller may give up with BYE (RFC 3261 15); anything else has to wait until there is somebody to talk to.
            State::Invited(_) if method == Method::Bye => {
                respond(cx, 200);
                return Some(Event::Bye { reason: reason() });
            }
            State::Invited(_) | State::Calling(_) => {
                let status = match method {
                    Method::Update if sdp(msg).is_none() => 200,
                    Method::Invite | Method::Update => 491,
                    Method::Options => 200,
                    Method::Ack
                    | Method::Bye
                    | Method::Cancel
                    | Method::Info
                    | Method::Message
                    | Method::Notify
                    | Method::Other
                    | Method::Prack
                    | Method::Publish
                    | Method::Refer
                    | Method::Register
                    | Method::Subscribe => 481,
                };
                respond(cx, status);
                return None;
            }
            State::Ending(_) => {
                respond(cx, if method == Method::Bye { 200 } else { 481 });
                return None;
            }
            State::Over => {
                respond(cx, 481);
                return None;
            }
        };
        if let Err(refusal) = up.dialog.accept(msg) {
            refuse(cx, key, flow, msg, &refusal);
            return None;
        }
        match method {
            Method::Bye => {
                respond(cx, 200);
                up.settle(cx, &self.flow);
                // Its 2xx is owed an ACK though there is no answer to put into it any more (RFC 3261 13.2.2.4).
                if let Some(seq) = up.owed.take() {
                    let flow = next(cx, &up.dialog, &self.peer, self.flow);
                    up.acknowledge(cx, flow, seq, None);
                }
                self.state = State::Over;
                Some(Event::Bye { reason: reason() })
            }
            Method::Invite | Method::Update => {
                let event = up.renegotiated(cx, self.key, key, flow, msg);
                self.flow = moved(self.flow, flow);
                self.rearm(cx);
                event
            }
            method if super::talk::passes(method) => {
                if up.asked.len() >= MAX_ASKED {
                    refuse(cx, key, flow, msg, &Refusal::status(500).with(Name::RetryAfter, "1"));
                    return None;
                }
                cx.tx.set_user(key, Owner::Leg(self.key));
                let content_type = msg.text(Name::ContentType).map(str::to_owned);
                let asked = Asked { method, content_type, body: msg.body_bytes() };
                let first = up.asked.is_empty();
                up.asked.push_back(Waiting { key: Some(key), asked: asked.clone(), until: pass_until(cx) });
                self.rearm(cx);
                first.then_some(Event::Asked { asked })
            }
            Method::Options => {
                let mut w = Writer::answer(msg, flow.remote, 200, "OK", None);
                w.header(Name::Allow, ALLOW).header(Name::Accept, "application/sdp");
                cx.tx.respond(cx.now.mono, key, 200, w.finish(), cx.said);
                None
            }
            // There is no subscription, no reliable provisional answer, and transfers are not yet in force.
            Method::Subscribe | Method::Notify | Method::Prack => {
                respond(cx, 481);
                None
            }
            Method::Refer
            | Method::Publish
            | Method::Register
            | Method::Ack
            | Method::Cancel
            | Method::Info
            | Method::Message
            | Method::Other => {
                refuse(cx, key, flow, msg, &Refusal::status(405).with(Name::Allow, ALLOW));
                None
            }
        }
    }

    /// An ACK for a 2xx of ours.
    pub fn on_ack(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Up(up) = &mut self.state else { return None };
        let body = sdp(msg);
        let part = up.usage.acked(msg.cseq().seq, body.is_some())?;
        let event = Event::Acked { body: body.filter(|_| part == Part::Answer) };
        if let Some(reason) = up.bye_due.take() {
            self.bye(cx, reason.as_deref());
            return None;
        }
        self.rearm(cx);
        Some(event)
    }

    /// The peer's CANCEL met its INVITE, the first or a later one.
    pub fn on_cancel(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let reason = msg.text(Name::Reason).map(str::to_owned);
        match &self.state {
            State::Invited(_) => Some(Event::Cancelled { reason }),
            State::Up(up) if up.offered.as_ref().is_some_and(|o| o.method == Method::Invite) => {
                self.answer_offered(cx, 487, phrase(487), None);
                Some(Event::Withdrawn)
            }
            State::Up(_) | State::Calling(_) | State::Ending(_) | State::Over => None,
        }
    }

    /// Takes back an offer of ours that is not answered yet.
    pub fn withdraw(&mut self, cx: &mut Cx<'_>) {
        if let State::Up(up) = &mut self.state
            && let Some(offering) = up.offering.as_ref().filter(|o| o.method == Method::Invite)
        {
            cx.tx.cancel(cx.now.mono, offering.key, None, cx.said);
        }
    }

    /// An answer to a request of ours.
    pub fn on_response(&mut self, cx: &mut Cx<'_>, key: ClientKey, msg: &Message) -> Option<Event> {
        let event = match &mut self.state {
            State::Calling(calling) if calling.key == key => self.invite_answered(cx, msg),
            // The INVITE that was challenged and sent again has a younger transaction.
            State::Calling(_) => None,
            State::Up(_) => self.answered_in_dialog(cx, key, msg),
            State::Ending(again) if msg.method() == Method::Bye && msg.status() >= 200 => {
                let again = again.take().and_then(|ending| Some((ending.dialog, ending.reason, ending.credentials?)));
                match (again, Challenge::choose(msg)) {
                    (Some((mut dialog, reason, (user, password))), Some((name, challenge))) => {
                        let cnonce = format!("{:016x}", cx.rng.bits());
                        let uri = dialog.target.clone();
                        let value = digest::answer(&challenge, &user, &password.0, "BYE", &uri, &cnonce, 1, &[]);
                        self.say_bye(cx, &mut dialog, reason.as_deref(), Some((name, value)));
                        None
                    }
                    _ => {
                        self.state = State::Over;
                        Some(Event::Gone)
                    }
                }
            }
            // A 2xx of a fork after we hung up: acknowledged and ended.
            State::Ending(_) | State::Over | State::Invited(_) => {
                if msg.method() == Method::Invite && (200..300).contains(&msg.status()) {
                    self.end_stray(cx, msg);
                }
                None
            }
        };
        if !matches!(event, Some(Event::Lost { .. })) {
            self.ask_due(cx);
        }
        self.rearm(cx);
        event
    }

    /// Nobody answered a request of ours, or it could not be sent.
    pub fn on_failure(&mut self, cx: &mut Cx<'_>, key: ClientKey, failure: Option<Failure>) -> Option<Event> {
        let (status, words) = match failure {
            None => (408, "no answer"),
            Some(Failure::Refused) => (503, "nobody listens there"),
            Some(Failure::Unreachable) => (503, "no way there"),
            Some(Failure::Closed) => (503, "the connection was closed"),
            Some(Failure::Full) => (503, "too many requests under way"),
        };
        match &mut self.state {
            State::Calling(calling) if calling.key == key => {
                let connected = calling.rang;
                self.state = State::Over;
                Some(Event::Refused { status, phrase: words.to_owned(), reason: None, connected, contacts: Vec::new() })
            }
            // A connection is not the peer: what did not get through costs itself, not the call (RFC 3261 8.1.3.1).
            State::Up(up) if failure.is_some() && self.flow.transport.reliable() => {
                self.flow.conn = 0;
                if let Some(offering) = up.offering.take_if(|o| o.key == key) {
                    match offering.method {
                        Method::Invite => up.usage.refused(cx.now.mono, status, cx.rng),
                        _ => {
                            up.usage.update_done(cx.now.mono, offering.seq, status, false, cx.rng);
                        }
                    }
                    if let (true, Some(timer)) = (offering.refresh, up.timer.as_mut()) {
                        timer.again(cx.now.mono);
                    }
                    self.ask_due(cx);
                    self.rearm(cx);
                    return (!offering.refresh).then(|| Event::OfferAnswered {
                        status,
                        phrase: words.to_owned(),
                        body: None,
                    });
                }
                let asking = up.asking.take_if(|asking| *asking == key);
                asking.map(|_| Event::AskedAnswered { status, phrase: words.to_owned(), body: None })
            }
            State::Up(up) => {
                let ours = up.offering.as_ref().is_some_and(|o| o.key == key) || up.asking == Some(key);
                ours.then(|| Event::Lost { because: Some(words.to_owned()), status })
            }
            State::Ending(ending) => {
                // The connection that it went by was dead: the peer is where it was all the same, and still thinks it talks.
                let again =
                    ending.take().filter(|e| failure.is_some() && self.flow.transport.reliable() && !e.reconnected);
                let Some(mut ending) = again else {
                    self.state = State::Over;
                    return Some(Event::Gone);
                };
                self.flow.conn = 0;
                ending.reconnected = true;
                let reason = ending.reason.clone();
                self.say_bye(cx, &mut ending.dialog, reason.as_deref(), None);
                self.state = State::Ending(Some(ending));
                None
            }
            State::Calling(_) | State::Invited(_) | State::Over => None,
        }
    }

    /// A deadline may have come up.
    pub fn tick(&mut self, cx: &mut Cx<'_>) -> Option<Event> {
        self.armed = None;
        let now = cx.now.mono;
        let event = match &mut self.state {
            State::Calling(calling) if calling.patience.is_some_and(|p| p <= now) => {
                calling.patience = None;
                calling.cancelled = true;
                cx.tx.cancel(now, calling.key, None, cx.said);
                let phrase = "no answer at all".to_owned();
                Some(Event::Refused { status: 408, phrase, reason: None, connected: false, contacts: Vec::new() })
            }
            State::Up(up) => {
                let mut acts = Vec::new();
                up.usage.tick(now, &mut acts);
                let (mut event, mut again) = (None, false);
                for act in acts {
                    match act {
                        Act::Resend(bytes) => cx.said.push(Output::Send { flow: self.flow, bytes }),
                        Act::NoAck => {
                            event = Some(Event::Lost { because: Some("no ACK".to_owned()), status: 408 });
                        }
                        // What passed from the other side is for its sender to try again.
                        Act::Retry => again = std::mem::take(&mut up.refresh_refused),
                    }
                }
                if event.is_none() && up.run_out(cx, &self.flow) {
                    self.answer_offered(cx, 504, phrase(504), None);
                    self.rearm(cx);
                    return Some(Event::Withdrawn);
                }
                if event.is_none() && up.to_ask.take_if(|waiting| waiting.until <= now).is_some() {
                    event = Some(Event::AskedAnswered { status: 504, phrase: phrase(504).to_owned(), body: None });
                }
                let due = if event.is_none() { up.timer.as_mut().and_then(|t| t.due(now)) } else { None };
                match due {
                    None if again => self.refresh(cx),
                    Some(Due::Refresh) => self.refresh(cx),
                    Some(Due::End) => {
                        event = Some(Event::Lost { because: Some("session timer expired".to_owned()), status: 408 });
                    }
                    None => {}
                }
                if let State::Up(up) = &mut self.state
                    && matches!(event, Some(Event::Lost { .. }))
                    && let Some(reason) = up.bye_due.take()
                {
                    self.bye(cx, reason.as_deref());
                    event = None;
                }
                event
            }
            State::Calling(_) | State::Invited(_) | State::Ending(_) | State::Over => None,
        };
        self.rearm(cx);
        event
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

    fn tag_of(&self, variant: u8) -> String {
        match variant {
            0 => self.tag.to_string(),
            n => format!("{}.{n}", self.tag),
        }
    }

    fn invite_answered(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Calling(calling) = &mut self.state else { return None };
        calling.patience = None;
        let status = msg.status();
        match status {
            100 => None,
            101..=199 => {
                calling.rang = true;
                if calling.cancelled {
                    return None;
                }
                let early = calling.early_of(msg);
                Some(Event::Progress { status, body: sdp(msg), early })
            }
            200..=299 => self.confirmed(cx, msg),
            _ => {
                let again = !calling.cancelled && calling.again(cx, msg);
                if again {
                    self.invite(cx);
                    return None;
                }
                let (connected, cancelled) = (calling.rang, calling.cancelled);
                self.state = State::Over;
                if cancelled {
                    return Some(Event::Gone);
                }
                let phrase = String::from_utf8_lossy(msg.reason()).into_owned();
                let reason = msg.text(Name::Reason).map(str::to_owned);
                Some(Event::Refused { status, phrase, reason, connected, contacts: super::divert::named(msg) })
            }
        }
    }

    fn confirmed(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Calling(calling) = &mut self.state else { return None };
        let sent = Sent {
            call_id: &self.call_id,
            local: &calling.dial.from,
            local_tag: &self.tag,
            remote: &calling.dial.to,
            seq: calling.seq,
            target: &calling.dial.place.uri,
            flow: self.flow,
        };
        let dialog = Dialog::uac(&sent, msg)?;
        let body = sdp(msg);
        let early = calling.early_of(msg);
        let mut usage = Usage::uac(calling.seq, calling.dial.body.is_some());
        usage.accepted(calling.seq, body.is_some());
        let expires = msg.text(Name::SessionExpires).and_then(|v| SessionExpires::parse(v).ok());
        let timer = calling.timer.agreed(cx.now.mono, expires.map(|e| (e.delta, e.refresher)));
        let mut up = Up::new(dialog, usage, timer, allows_update(msg), calling.dial.credentials.take());
        up.interval = calling.timer;
        up.proof = calling.authorization.take();
        up.owed = Some(calling.seq);
        up.early = std::mem::take(&mut calling.early);
        up.variants = std::mem::take(&mut calling.variants);
        let cancelled = calling.cancelled;
        self.state = State::Up(Box::new(up));
        if cancelled {
            // Our CANCEL crossed it (RFC 3261 9.1): the call exists, so it is acknowledged and ended.
            self.hang_up(cx, Some(super::ELSEWHERE));
            return None;
        }
        Some(Event::Answered { body, early })
    }

    /// A 2xx of another branch of a fork beyond us, or one that came after all: ACK, then BYE.
    fn end_stray(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        let (from, to) = (msg.from(), msg.to());
        let target = msg.contact().map_or(to.uri.raw, |c| c.uri.raw);
        let (local, remote) = (format!("<{}>", from.uri.raw), format!("<{}>", to.uri.raw));
        let seq = msg.cseq().seq;
        let tag = msg.from_tag().unwrap_or_default();
        let sent = Sent {
            call_id: &self.call_id,
            local: &local,
            local_tag: tag,
            remote: &remote,
            seq,
            target,
            flow: self.flow,
        };
        let Some(mut dialog) = Dialog::uac(&sent, msg) else { return };
        let flow = next(cx, &dialog, &self.peer, self.flow);
        let (unused, branch) = cx.tx.branch();
        cx.said.push(Output::Send { flow, bytes: dialog.ack(seq, &branch).finish() });
        cx.tx.release(unused);
        if self.strays.len() >= MAX_EARLY || self.strays.iter().any(|tag| **tag == *dialog.remote_tag) {
            return;
        }
        self.strays.push(dialog.remote_tag.clone());
        let (key, branch) = cx.tx.branch();
        let mut w = dialog.request(Method::Bye, &branch, None);
        w.header(Name::Reason, super::ELSEWHERE).header(Name::UserAgent, USER_AGENT);
        cx.tx.request(cx.now.mono, key, flow, w.finish(), Method::Bye, Owner::Leg(self.key), cx.said);
    }

    fn answered_in_dialog(&mut self, cx: &mut Cx<'_>, key: ClientKey, msg: &Message) -> Option<Event> {
        let State::Up(up) = &mut self.state else { return None };
        let status = msg.status();
        let seq = msg.cseq().seq;
        if up.offering.as_ref().is_some_and(|o| o.key == key) && msg.method() != Method::Cancel {
            return if status < 200 { None } else { self.offer_answered(cx, msg) };
        }
        if msg.method() == Method::Invite && (200..300).contains(&status) {
            // The 2xx of the first INVITE again, or that of another branch of a fork beyond us (RFC 3261 13.2.2.4).
            if msg.to_tag() != Some(&*up.dialog.remote_tag) {
                self.end_stray(cx, msg);
            } else if let Some(bytes) = up.usage.reack(seq) {
                let flow = next(cx, &up.dialog, &self.peer, self.flow);
                cx.said.push(Output::Send { flow, bytes });
            }
            return None;
        }
        if up.asking == Some(key) && status >= 200 {
            up.asking = None;
            if matches!(status, 408 | 481) {
                return Some(Event::Lost { because: Some(format!("{status} to {}", msg.method().as_str())), status });
            }
            let phrase = String::from_utf8_lossy(msg.reason()).into_owned();
            let content_type = msg.text(Name::ContentType).unwrap_or("application/octet-stream").to_owned();
            let body = Some((content_type, msg.body_bytes())).filter(|(_, body)| !body.is_empty());
            return Some(Event::AskedAnswered { status, phrase, body });
        }
        None
    }

    fn offer_answered(&mut self, cx: &mut Cx<'_>, msg: &Message) -> Option<Event> {
        let State::Up(up) = &mut self.state else { return None };
        let offering = up.offering.take()?;
        let (status, seq, body) = (msg.status(), msg.cseq().seq, sdp(msg));
        let accepted = (200..300).contains(&status);
        match offering.method {
            Method::Invite if accepted => {
                up.usage.accepted(seq, body.is_some());
                up.dialog.retarget(msg);
                up.owed = Some(seq);
            }
            Method::Invite => up.usage.refused(cx.now.mono, status, cx.rng),
            _ => {
                up.usage.update_done(cx.now.mono, seq, status, body.is_some(), cx.rng);
                if accepted {
                    up.dialog.retarget(msg);
                }
            }
        }
        if accepted {
            let expires = msg.text(Name::SessionExpires).and_then(|v| SessionExpires::parse(v).ok());
            up.timer = up.interval.agreed(cx.now.mono, expires.map(|e| (e.delta, e.refresher)));
        } else if let (422, Some(raised)) = (status, up.interval.raise(msg.seconds(Name::MinSe))) {
            up.interval = raised;
            self.renegotiate(cx, offering.method, offering.body, offering.refresh, None);
            return None;
        } else if let (401 | 407, false, Some((user, password)), Some((name, challenge))) =
            (status, offering.challenged, up.credentials.clone(), Challenge::choose(msg))
        {
            let uri = up.dialog.target.clone();
            let cnonce = format!("{:016x}", cx.rng.bits());
            let method = offering.method.as_str();
            let value = digest::answer(&challenge, &user, &password.0, method, &uri, &cnonce, 1, &[]);
            self.renegotiate(cx, offering.method, offering.body, offering.refresh, Some((name, value)));
            return None;
        }
        if matches!(status, 408 | 481) {
            return Some(Event::Lost { because: Some(format!("{status} to {}", offering.method.as_str())), status });
        }
        if offering.refresh {
            match (accepted, offering.method) {
                (true, Method::Invite) => {
                    self.ack(cx, None);
                    let told_anew = self.end.as_ref().and(body);
                    return told_anew.map(|body| Event::Restated { body });
                }
                (true, _) => {}
                (false, _) => {
                    up.refresh_refused = status == 491;
                    if let (Some(timer), true) = (up.timer.as_mut(), status != 491) {
                        timer.again(cx.now.mono);
                    }
                }
            }
            return None;
        }
        let phrase = String::from_utf8_lossy(msg.reason()).into_owned();
        Some(Event::OfferAnswered { status, phrase, body })
    }

    fn refresh(&mut self, cx: &mut Cx<'_>) {
        let told = self.end.as_ref().and_then(|e| e.last_told()).or(self.told.as_ref()).cloned();
        let State::Up(up) = &mut self.state else { return };
        if up.offering.is_some() || up.asking.is_some() || !up.usage.may_invite() {
            if let Some(timer) = &mut up.timer {
                timer.again(cx.now.mono);
            }
            return;
        }
        match up.update {
            true => self.renegotiate(cx, Method::Update, None, true, None),
            false => self.renegotiate(cx, Method::Invite, told, true, None),
        }
    }

    fn renegotiate(
        &mut self,
        cx: &mut Cx<'_>,
        method: Method,
        body: Option<Bytes>,
        refresh: bool,
        authorization: Option<(Name, String)>,
    ) {
        let State::Up(up) = &mut self.state else { return };
        let (key, branch) = cx.tx.branch();
        let mut w = up.dialog.request(method, &branch, None);
        w.contact(&self.flow).header(Name::Allow, ALLOW).header(Name::Supported, "timer");
        if let Some(timer) = &up.timer {
            let who = if timer.ours { "uac" } else { "uas" };
            let expires = timer.expires.max(up.interval.min_se.unwrap_or(0));
            w.fmt(Name::SessionExpires, format_args!("{expires};refresher={who}"));
        }
        if let Some(min_se) = up.interval.min_se {
            w.number(Name::MinSe, min_se);
        }
        let challenged = authorization.is_some();
        if let Some((name, value)) = &authorization {
            w.header(*name, value);
        }
        if method == Method::Invite {
            up.proof = authorization;
        }
        w.header(Name::UserAgent, USER_AGENT);
        let bytes = finish(w, body.as_ref());
        match method {
            Method::Update => up.usage.updating(up.dialog.local_seq, body.is_some()),
            _ => up.usage.inviting(up.dialog.local_seq, body.is_some()),
        }
        let until = (method == Method::Invite).then(|| cx.now.mono + MAX_OFFERING);
        let seq = up.dialog.local_seq;
        up.offering = Some(Offering { key, method, refresh, body, challenged, seq, until });
        let flow = next(cx, &up.dialog, &self.peer, self.flow);
        cx.tx.request(cx.now.mono, key, flow, bytes, method, Owner::Leg(self.key), cx.said);
    }
}

impl Calling {
    fn early_of(&mut self, msg: &Message) -> u8 {
        let Some(tag) = msg.to_tag() else { return 0 };
        if let Some((_, early)) = self.early.iter().find(|(t, _)| **t == *tag) {
            return *early;
        }
        let early = self.early.len().min(MAX_EARLY) as u8;
        if self.early.len() < MAX_EARLY {
            self.early.push((tag.into(), early));
        }
        early
    }

    /// Whether the INVITE is to be sent again: with credentials, or with a longer session interval.
    fn again(&mut self, cx: &mut Cx<'_>, msg: &Message) -> bool {
        match msg.status() {
            401 | 407 => {
                let (Some((user, password)), Some((name, challenge))) =
                    (&self.dial.credentials, Challenge::choose(msg))
                else {
                    return false;
                };
                if self.challenges >= MAX_CHALLENGES || (self.challenges > 0 && !challenge.stale) {
                    return false;
                }
                self.challenges += 1;
                let cnonce = format!("{:016x}", cx.rng.bits());
                let uri = &self.dial.place.uri;
                let value = digest::answer(&challenge, user, &password.0, "INVITE", uri, &cnonce, 1, &[]);
                self.authorization = Some((name, value));
                true
            }
            422 => {
                let raised = self.timer.raise(msg.seconds(Name::MinSe));
                self.timer = raised.unwrap_or(self.timer);
                raised.is_some()
            }
            _ => false,
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
            proof: None,
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

    fn acknowledge(&mut self, cx: &mut Cx<'_>, flow: Flow, seq: u32, body: Option<&Bytes>) {
        // The ACK of a 2xx is no transaction, but its branch must be new all the same.
        let (unused, branch) = cx.tx.branch();
        let mut w = self.dialog.ack(seq, &branch);
        if let Some((name, value)) = &self.proof {
            w.header(*name, value);
        }
        let bytes = finish(w, body);
        cx.tx.release(unused);
        self.usage.acknowledge(cx.now.mono, cx.timing, seq, bytes.clone());
        cx.said.push(Output::Send { flow, bytes });
    }

    /// The peer's re-INVITE or UPDATE.
    fn renegotiated(
        &mut self,
        cx: &mut Cx<'_>,
        leg: LegKey,
        key: ServerKey,
        flow: Flow,
        msg: &Message,
    ) -> Option<Event> {
        let (body, seq) = (sdp(msg), msg.cseq().seq);
        let timer = asked_timer(msg);
        // An UPDATE that offers while a re-INVITE asks for an offer: one of them at a time (RFC 3311 5.2).
        if self.offered.is_some()
            && msg.method() == Method::Update
            && body.is_some()
            && self.usage.offer() == Offer::Idle
        {
            refuse(cx, key, flow, msg, &Refusal::status(491));
            return None;
        }
        if let refresh::Answer::TooShort(min_se) = refresh::answer(Wish::default(), timer) {
            refuse(cx, key, flow, msg, &Refusal::status(422).with(Name::MinSe, min_se.to_string()));
            return None;
        }
        let allowed = match msg.method() {
            Method::Invite => self.usage.invited(seq, body.is_some(), cx.rng),
            _ => self.usage.updated(seq, body.is_some(), cx.rng),
        };
        if let Err(refusal) = allowed {
            refuse(cx, key, flow, msg, &refusal);
            return None;
        }
        if msg.method() == Method::Update && body.is_none() {
            self.dialog.retarget(msg);
            self.usage.update_answered();
            let mut w = Writer::answer(msg, flow.remote, 200, "OK", None);
            w.contact(&self.dialog.flow).header(Name::Allow, ALLOW).header(Name::Supported, "timer");
            self.timer = write_timer(&mut w, timer, cx.now.mono).or(self.timer);
            cx.tx.respond(cx.now.mono, key, 200, w.finish(), cx.said);
            return None;
        }
        cx.tx.set_user(key, Owner::Leg(leg));
        let until = (msg.method() == Method::Update).then(|| pass_until(cx));
        self.offered = Some(Offered { key, method: msg.method(), timer, until });
        Some(Event::Offered { body })
    }

    /// Answers with 504 what waits for the other side for too long, and takes back an offer of ours that only rings. Whether an
    /// UPDATE of the peer's is to be answered so.
    fn run_out(&mut self, cx: &mut Cx<'_>, flow: &Flow) -> bool {
        let now = cx.now.mono;
        if let Some(offering) = self.offering.as_mut().filter(|o| o.until.is_some_and(|until| until <= now)) {
            offering.until = None;
            cx.tx.cancel(now, offering.key, None, cx.said);
        }
        for waiting in self.asked.iter_mut().filter(|w| w.until <= now) {
            let Some(key) = waiting.key.take() else { continue };
            let Some(request) = cx.tx.request_of(key) else { continue };
            let bytes = Writer::answer(request, flow.remote, 504, phrase(504), None).finish();
            cx.tx.respond(now, key, 504, bytes, cx.said);
        }
        // The first is over there and its answer will come; the others need not go any more.
        let mut place = 0;
        self.asked.retain(|waiting| {
            place += 1;
            place == 1 || waiting.key.is_some()
        });
        self.offered.as_ref().is_some_and(|o| o.until.is_some_and(|until| until <= now))
    }

    fn deadline(&self) -> Option<Instant> {
        let asked = self.asked.iter().filter(|w| w.key.is_some()).map(|w| w.until).min();
        let offers = [self.offered.as_ref().and_then(|o| o.until), self.offering.as_ref().and_then(|o| o.until)];
        let timer = self.timer.map(|t| t.deadline());
        let to_ask = self.to_ask.as_ref().map(|waiting| waiting.until);
        offers.into_iter().chain([asked, to_ask, self.usage.deadline(), timer]).flatten().min()
    }

    /// The dialog ends: what the peer asked and nobody will answer is answered.
    fn settle(&mut self, cx: &mut Cx<'_>, flow: &Flow) {
        let open = self.offered.take().map(|o| o.key).into_iter();
        for key in open.chain(self.asked.drain(..).filter_map(|waiting| waiting.key)) {
            if let Some(request) = cx.tx.request_of(key) {
                let bytes = Writer::answer(request, flow.remote, 487, "Request Terminated", None).finish();
                cx.tx.respond(cx.now.mono, key, 487, bytes, cx.said);
            }
        }
        self.usage.refuse();
    }
}

/// A 2xx to an INVITE of ours whose leg is gone: acknowledged, and ended, from what it says itself. Else its sender would
/// repeat it for 64*T1 and talk to nobody (RFC 3261 13.2.2.4).
pub fn disown(cx: &mut Cx<'_>, flow: Flow, msg: &Message) {
    let (from, to) = (msg.from(), msg.to());
    let (local, remote) = (format!("<{}>", from.uri.raw), format!("<{}>", to.uri.raw));
    let target = msg.contact().map_or(to.uri.raw, |c| c.uri.raw);
    let (seq, local_tag) = (msg.cseq().seq, msg.from_tag().unwrap_or_default());
    let sent = Sent { call_id: msg.call_id(), local: &local, local_tag, remote: &remote, seq, target, flow };
    let Some(mut dialog) = Dialog::uac(&sent, msg) else { return };
    let (unused, branch) = cx.tx.branch();
    cx.said.push(Output::Send { flow, bytes: dialog.ack(seq, &branch).finish() });
    cx.tx.release(unused);
    let (key, branch) = cx.tx.branch();
    let mut w = dialog.request(Method::Bye, &branch, None);
    w.header(Name::UserAgent, USER_AGENT);
    cx.tx.request(cx.now.mono, key, flow, w.finish(), Method::Bye, Owner::Nobody, cx.said);
}

/// The Min-SE that a caller is to be told with 422, if its session interval is too short (RFC 4028 section 9).
pub fn too_short(msg: &Message) -> Option<u32> {
    match refresh::answer(Wish::default(), asked_timer(msg)) {
        refresh::Answer::TooShort(min_se) => Some(min_se),
        refresh::Answer::Accept { .. } => None,
    }
}

/// The leg that a local tag names. It may be gone, and another may have taken its place: see [`Leg::owns`].
pub fn leg_of(tag: &str) -> Option<LegKey> {
    let mut parts = tag.split('.');
    let (_engine, slot) = (parts.next()?, parts.next()?);
    u64::from_str_radix(slot, 16).ok().map(|n| LegKey::from(KeyData::from_ffi(n)))
}

fn mint_tag(engine: u16, key: LegKey, rng: &mut Rng) -> Box<str> {
    let mut text = Hex::new();
    text.number(engine.into()).sign(b'.').number(key.data().as_ffi()).sign(b'.');
    text.digits(rng.bits(), 16).digits(rng.bits32().into(), 8).text().into()
}

/// A Call-ID of ours: the engine's number and 96 random bits.
pub fn mint_call_id(engine: u16, rng: &mut Rng) -> Box<str> {
    Hex::new().number(engine.into()).sign(b'-').digits(rng.bits(), 16).digits(rng.bits32().into(), 8).text().into()
}

/// Room for the longest identifier of ours: an engine, a leg's key, 96 random bits, two signs between them.
const LONGEST_ID: usize = 4 + 1 + 16 + 1 + 24;

/// Identifiers in hexadecimal, made without the formatter: every leg has two.
struct Hex {
    room: [u8; LONGEST_ID],
    len: usize,
}

impl Hex {
    fn new() -> Hex {
        Hex { room: [0; LONGEST_ID], len: 0 }
    }

    fn sign(&mut self, sign: u8) -> &mut Hex {
        self.room[self.len] = sign;
        self.len += 1;
        self
    }

    /// As many digits as it has.
    fn number(&mut self, n: u64) -> &mut Hex {
        self.digits(n, (u64::BITS - n.leading_zeros()).div_ceil(4).max(1))
    }

    fn digits(&mut self, n: u64, count: u32) -> &mut Hex {
        for at in (0..count).rev() {
            self.sign(b"0123456789abcdef"[(n >> (4 * at) & 15) as usize]);
        }
        self
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.room[..self.len]).expect("digits are ASCII")
    }
}

fn is_variant(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

fn address(name: Option<&str>, user: &str, domain: &str) -> String {
    let user = if user.is_empty() { "anonymous" } else { user };
    match name.filter(|n| !n.is_empty()) {
        Some(name) => [&crate::sip::quote(name), " <sip:", user, "@", domain, ">"].concat(),
        None => ["<sip:", user, "@", domain, ">"].concat(),
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

/// A request that is no INVITE and passes to the other side is answered by us when that takes so long that its sender would give
/// up before the answer came (Timer F; RFC 4320 4.2), with time for the answer to be lost and asked for again.
fn pass_until(cx: &Cx<'_>) -> Instant {
    cx.now.mono + cx.timing.timeout() * 3 / 4
}

fn allows_update(msg: &Message) -> bool {
    msg.values(Name::Allow).any(|m| m.eq_ignore_ascii_case("UPDATE"))
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
