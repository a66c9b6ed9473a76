//! A telephone, or a carrier's edge, written from RFC 3261 (sections 8, 9, 10, 12 to 15, 17), 3264, 4028 and 7616 alone.
//! It does what it is told with [`Act`] and answers by itself what a person need not decide: ACK, 200 to BYE, CANCEL, INFO,
//! UPDATE, OPTIONS and re-INVITE, a challenge. What it finds wrong with its peer it writes down in `complaints`.

pub mod digest;
pub mod sdp;
pub mod text;
mod transaction;
pub mod voice;

use std::collections::VecDeque;
use std::net::SocketAddr;

use strowger::base::Rng;

use crate::{MS, SEC, Time};
use digest::Challenge;
use sdp::{Direction, Ours, Sdp};
use text::{First, Msg, address_of, param, phrase, uri_of, user_of};
use transaction::{ClientTx, Purpose, ServerTx};
use voice::{Tone, Voice};

/// RFC 3261 T1.
pub const T1: Time = 500 * MS;
/// RFC 3261 T2.
pub const T2: Time = 4 * SEC;

/// How a phone is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Datagrams.
    Udp,
    /// One connection to the server.
    Tcp,
}

/// What a phone is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name in ladders, unique.
    pub name: String,
    /// SIP user.
    pub user: String,
    /// Display name.
    pub display: String,
    /// Its digest password.
    pub password: String,
    /// Its signalling address.
    pub address: SocketAddr,
    /// Its transport.
    pub wire: Wire,
    /// Where the server listens.
    pub server: SocketAddr,
    /// Host part of the addresses it writes.
    pub domain: String,
    /// A carrier: From is a telephone number at its own address.
    pub carrier: bool,
    /// Index, for tones.
    pub index: u32,
}

/// How it behaves unless told otherwise.
#[derive(Clone, Debug)]
pub struct Habit {
    /// What it does some time after a new INVITE arrived.
    pub on_invite: Vec<(Time, Act)>,
    /// What it does some time after a call was set up, from either side.
    pub on_answer: Vec<(Time, Act)>,
    /// It challenges INVITE and REGISTER and wants this user and password.
    pub challenge: Option<(String, String)>,
    /// It answers its callers' session timers (RFC 4028).
    pub timer: bool,
    /// It wants sessions of at least so many seconds.
    pub min_se: u32,
    /// It wants that of refreshes only: a proxy on the way has been reconfigured.
    pub min_se_later: u32,
    /// It wants registrations of at least so many seconds (423).
    pub min_expires: u64,
    /// It does not answer OPTIONS.
    pub deaf_to_options: bool,
    /// It does not answer CANCEL.
    pub deaf_to_cancel: bool,
    /// It sends no ACK.
    pub no_ack: bool,
    /// Audio formats, in order.
    pub formats: Vec<(u8, String)>,
    /// It speaks when it may.
    pub speaks: bool,
    /// It refreshes its own registration.
    pub keeps_registered: bool,
    /// It answers a hold as if there was none.
    pub careless: bool,
    /// What it calls itself.
    pub user_agent: String,
    /// Status for in-dialog requests instead of 200, e.g. 488 for a re-INVITE.
    pub refuse: Vec<(String, u16)>,
}

impl Default for Habit {
    fn default() -> Habit {
        Habit {
            on_invite: Vec::new(),
            on_answer: Vec::new(),
            challenge: None,
            timer: true,
            min_se: 0,
            min_se_later: 0,
            min_expires: 0,
            deaf_to_options: false,
            deaf_to_cancel: false,
            no_ack: false,
            formats: vec![(8, "PCMA/8000".into()), (0, "PCMU/8000".into()), (101, "telephone-event/8000".into())],
            speaks: true,
            keeps_registered: true,
            careless: false,
            user_agent: "Tin Can 1.0".into(),
            refuse: Vec::new(),
        }
    }
}

/// What a phone is told to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Registers for so many seconds; 0 unregisters. A password other than its own may be given.
    Register {
        /// Seconds.
        expires: u32,
        /// Other password.
        password: Option<String>,
        /// `Contact: *`
        all: bool,
    },
    /// Calls.
    Invite(Invite),
    /// Answers the INVITE that waits.
    Respond(Respond),
    /// Gives up its call.
    Cancel,
    /// Hangs up.
    Bye,
    /// Re-INVITE.
    Reinvite(Offer),
    /// UPDATE with this offer, or without one.
    Update(Option<Offer>),
    /// UPDATE without an offer that asks for sessions of so many seconds.
    Refresh(u32),
    /// INFO with a digit.
    Info(char),
    /// Presses a key (RFC 4733).
    Press(char),
    /// Presses a key that is sent as sound.
    Sound(char),
    /// OPTIONS to a user.
    Options(String),
    /// MESSAGE to a user.
    Message(String, String),
    /// Sends its last request once more, byte for byte.
    Again,
    /// Sends a request as it stands, with a Via of its own.
    Raw(Box<Msg>),
    /// The INVITE of its last call once more, as if by another proxy: another branch, else the same.
    InviteByAnotherWay,
    /// Falls silent, or speaks again.
    Speak(bool),
}

/// An offer of a re-INVITE or UPDATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// `a=sendonly`
    Hold,
    /// `a=inactive`
    Inactive,
    /// `c=0.0.0.0`
    Zero,
    /// `a=sendrecv`
    Resume,
    /// None: the peer offers.
    Late,
}

/// How a call is placed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Invite {
    /// User part dialled, or a whole URI.
    pub to: String,
    /// User part of From, if not its own.
    pub from: Option<String>,
    /// No offer in INVITE.
    pub late: bool,
    /// Session-Expires value.
    pub session: Option<String>,
    /// More header lines.
    pub headers: Vec<(String, String)>,
    /// Max-Forwards, if not 70.
    pub hops: Option<u32>,
    /// Lines behind the audio stream in the offer.
    pub extra: String,
}

/// How a call is answered.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Respond {
    /// Status.
    pub code: u16,
    /// Phrase, if not the customary one.
    pub phrase: Option<String>,
    /// Tag in To; several make several dialogs, as a forking proxy behind us would.
    pub tag: Option<String>,
    /// Puts SDP into a provisional response (183 has it anyway).
    pub sdp: bool,
    /// More header lines.
    pub headers: Vec<(String, String)>,
}

/// A message that reached a phone.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Time,
    /// What.
    pub msg: Msg,
    /// Retransmission of something seen before.
    pub again: bool,
    /// A ladder has had it.
    pub used: bool,
    /// The call it belongs to.
    pub call: Option<usize>,
}

/// What a phone sends.
#[derive(Clone, Debug)]
pub enum Out {
    /// A SIP message.
    Sip {
        /// Where to; the connection's other end over TCP.
        to: SocketAddr,
        /// Bytes.
        bytes: Vec<u8>,
    },
    /// An RTP packet.
    Rtp {
        /// From our socket.
        from: SocketAddr,
        /// To.
        to: SocketAddr,
        /// Bytes.
        bytes: Vec<u8>,
    },
}

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// No final answer yet.
    Setup,
    /// Answered.
    Up,
    /// Over.
    Over,
}

/// A call as one phone sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// We placed it.
    pub ours: bool,
    /// Call-ID.
    pub call_id: String,
    /// Stage.
    pub stage: Stage,
    /// Its INVITE's final status as seen or given by us; 0 for a time-out.
    pub result: Option<u16>,
    /// Its audio.
    pub voice: Voice,
    /// When it was set up.
    pub up_at: Option<Time>,
    /// We hold.
    pub holding: bool,
    /// Its dialogs.
    pub dialogs: Vec<Dialog>,
    /// The INVITE as sent (the last one) or received.
    pub invite: Msg,
    /// Keys that we pressed, in whatever way.
    pub pressed: String,
    cancelled: bool,
    retries: u8,
    session: u64,
    version: u64,
    /// Our offer that waits for an answer, as text.
    offered: Option<String>,
    refresh: Option<Refresh>,
    wish: Direction,
    zero: bool,
}

/// One dialog (RFC 3261 section 12).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialog {
    /// Our tag.
    pub local_tag: String,
    /// Theirs.
    pub remote_tag: String,
    /// Our address with tag.
    pub local: String,
    /// Theirs with tag.
    pub remote: String,
    /// Remote target.
    pub target: String,
    /// Route set.
    pub route: Vec<String>,
    /// Our CSeq.
    pub cseq: u32,
    /// Theirs.
    pub remote_cseq: u32,
    /// Confirmed.
    pub confirmed: bool,
    /// Over.
    pub over: bool,
    ack: Option<(u32, Vec<u8>)>,
    invited: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Refresh {
    interval: Time,
    ours: bool,
    due: Time,
}

/// A phone.
pub struct Phone {
    /// Who it is.
    pub id: Identity,
    /// How it behaves.
    pub habit: Habit,
    /// Its calls, oldest first; they stay when they are over.
    pub calls: Vec<Call>,
    /// What reached it.
    pub inbox: Vec<Seen>,
    /// What it finds wrong with its peer.
    pub complaints: Vec<String>,
    /// What it wants sent.
    pub out: VecDeque<Out>,
    /// Until when it is registered (as a carrier: whether somebody registered with it).
    pub registered: Option<Time>,
    rng: Rng,
    clients: Vec<ClientTx>,
    servers: Vec<ServerTx>,
    todo: Vec<(Time, Option<usize>, Act)>,
    register_call: String,
    register_cseq: u32,
    register_password: Option<String>,
    last_request: Option<(SocketAddr, Vec<u8>)>,
    nonces: Vec<String>,
    last_challenged: Option<(String, String)>,
    known: Option<(Challenge, u32)>,
}

/// Nothing here to do this on: a ladder waits and tries again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotNow(pub String);

impl Phone {
    /// A phone that has just been plugged in.
    pub fn new(id: Identity, habit: Habit, rng: Rng) -> Phone {
        let mut rng = rng;
        let register_call = format!("reg-{:x}", rng.bits());
        Phone {
            id,
            habit,
            calls: Vec::new(),
            inbox: Vec::new(),
            complaints: Vec::new(),
            out: VecDeque::new(),
            registered: None,
            rng,
            clients: Vec::new(),
            servers: Vec::new(),
            todo: Vec::new(),
            register_call,
            register_cseq: 0,
            register_password: None,
            last_request: None,
            nonces: Vec::new(),
            last_challenged: None,
            known: None,
        }
    }

    /// The power fails and comes back: everything is forgotten but who it is.
    pub fn restart(&mut self) {
        let rng = self.rng.fork();
        let complaints = std::mem::take(&mut self.complaints);
        let mut calls = std::mem::take(&mut self.calls);
        let inbox = std::mem::take(&mut self.inbox);
        for call in &mut calls {
            call.stage = Stage::Over;
            call.voice.on = false;
            call.refresh = None;
            call.call_id.push_str("-forgotten");
            call.dialogs.iter_mut().for_each(|d| d.over = true);
        }
        *self = Phone::new(self.id.clone(), self.habit.clone(), rng);
        (self.complaints, self.calls, self.inbox) = (complaints, calls, inbox);
    }

    /// When it wants [`Phone::tick`].
    pub fn deadline(&self) -> Option<Time> {
        let clients = self.clients.iter().map(ClientTx::deadline);
        let servers = self.servers.iter().map(ServerTx::deadline);
        let todo = self.todo.iter().map(|t| t.0);
        let speech = self.calls.iter().filter(|_| self.habit.speaks).filter_map(|c| c.voice.deadline());
        let refresh = self.calls.iter().filter_map(|c| c.refresh.map(|r| r.due));
        clients.chain(servers).chain(todo).chain(speech).chain(refresh).min()
    }

    /// Lets its timers act.
    pub fn tick(&mut self, now: Time) {
        self.tick_clients(now);
        self.tick_servers(now);
        while let Some(i) = self.todo.iter().position(|t| t.0 <= now) {
            let (_, call, act) = self.todo.remove(i);
            // A habit that finds nothing to act on any more lets it be.
            let _ = self.act(now, call, &act);
        }
        for i in 0..self.calls.len() {
            self.tick_refresh(now, i);
            if self.habit.speaks
                && let Some((to, bytes)) = self.calls[i].voice.speak(now)
            {
                self.out.push_back(Out::Rtp { from: self.calls[i].voice.local, to, bytes });
            }
        }
    }

    /// Does what it is told; on `call`, or on its newest call that the act fits.
    pub fn act(&mut self, now: Time, call: Option<usize>, act: &Act) -> Result<(), NotNow> {
        match act {
            Act::Register { expires, password, all } => {
                self.register_password = password.clone();
                self.register(now, *expires, *all);
            }
            Act::Invite(invite) => self.invite(now, invite),
            Act::Respond(respond) => {
                let fits = |c: &Call| !c.ours && c.stage == Stage::Setup;
                let extra = |c: &Call| !c.ours && respond.tag.is_some() && c.stage == Stage::Up;
                let call = self.newest(call, |c| fits(c) || extra(c), "no INVITE waits")?;
                self.respond(now, call, respond);
            }
            Act::Cancel => {
                let call = self.newest(call, |c| c.ours && c.stage == Stage::Setup, "no call to give up")?;
                self.cancel(now, call);
            }
            Act::Bye => {
                let call = self.newest(call, |c| c.stage == Stage::Up, "no call to hang up")?;
                self.bye(now, call);
            }
            Act::Reinvite(offer) => {
                let call = self.idle(call, "INVITE")?;
                self.reinvite(now, call, *offer);
            }
            Act::Update(offer) => {
                let call = self.idle(call, "UPDATE")?;
                self.update(now, call, *offer);
            }
            Act::Refresh(seconds) => {
                let call = self.idle(call, "UPDATE")?;
                let (contact, session) = (self.contact(), format!("{seconds};refresher=uac"));
                self.in_dialog(now, call, "UPDATE", Purpose::Update, |m| {
                    m.with("Contact", contact).with("Supported", "timer").with("Session-Expires", session)
                });
            }
            Act::Info(key) => {
                let call = self.newest(call, |c| c.stage == Stage::Up, "no call for INFO")?;
                self.calls[call].pressed.push(*key);
                let body = format!("Signal={key}\r\nDuration=160\r\n").into_bytes();
                self.in_dialog(now, call, "INFO", Purpose::Plain, |m| m.with_body("application/dtmf-relay", body));
            }
            Act::Press(key) => {
                let call = self.newest(call, |c| c.stage == Stage::Up, "no call to press a key in")?;
                let event = "0123456789*#ABCD".find(*key).unwrap_or(0) as u8;
                self.calls[call].pressed.push(*key);
                self.calls[call].voice.press(event);
            }
            Act::Sound(key) => {
                let call = self.newest(call, |c| c.stage == Stage::Up, "no call to press a key in")?;
                self.calls[call].pressed.push(*key);
                self.calls[call].voice.sound_key(*key);
            }
            Act::Options(to) => {
                let msg = self.outside("OPTIONS", to, None).with("Accept", "application/sdp");
                self.send_request(now, msg, Purpose::Plain, None);
            }
            Act::Message(to, words) => {
                let msg = self.outside("MESSAGE", to, None).with_body("text/plain", words.clone().into_bytes());
                self.send_request(now, msg, Purpose::Plain, None);
            }
            Act::Again => {
                let (to, bytes) = self.last_request.clone().ok_or_else(|| NotNow("nothing sent yet".into()))?;
                self.out.push_back(Out::Sip { to, bytes });
            }
            Act::Raw(msg) => {
                let mut msg = (**msg).clone();
                let via = self.via();
                msg.headers.insert(0, ("Via".into(), via));
                match msg.method() {
                    "ACK" => self.out.push_back(Out::Sip { to: self.id.server, bytes: msg.write() }),
                    _ => self.send_request(now, msg, Purpose::Raw, None),
                }
            }
            Act::InviteByAnotherWay => {
                let mut msg = self.calls.last().ok_or_else(|| NotNow("no call yet".into()))?.invite.clone();
                msg.set("Via", None);
                return self.act(now, None, &Act::Raw(Box::new(msg)));
            }
            Act::Speak(on) => self.habit.speaks = *on,
        }
        Ok(())
    }

    /// A SIP message reaches it.
    pub fn receive(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        if bytes.iter().all(|b| matches!(b, b'\r' | b'\n')) {
            return;
        }
        let msg = match Msg::read(bytes) {
            Ok(msg) => msg,
            Err(why) => {
                self.complaints.push(format!("unreadable: {why}: {}", String::from_utf8_lossy(bytes)));
                return;
            }
        };
        self.complaints.extend(msg.faults());
        let first = self.inbox.len();
        self.inbox.push(Seen { at: now, msg: msg.clone(), again: false, used: false, call: None });
        let (again, call) = match msg.first {
            First::Request { .. } => self.request_arrives(now, from, msg),
            First::Response { .. } => self.response_arrives(now, msg),
        };
        (self.inbox[first].again, self.inbox[first].call) = (again, call);
    }

    /// An RTP packet reaches one of its ports.
    pub fn hear(&mut self, now: Time, port: u16, packet: &[u8]) {
        match self.calls.iter_mut().rev().find(|c| c.voice.local.port() == port) {
            Some(call) => call.voice.hear(now, packet),
            None => {
                // RTCP goes to the odd port and is not listened to.
                if port.is_multiple_of(2) {
                    self.complaints.push(format!("RTP to port {port}, which is not ours"));
                }
            }
        }
    }

    /// Its newest call, or the one with that index.
    pub fn call(&self, index: Option<usize>) -> Option<&Call> {
        match index {
            Some(i) => self.calls.get(i),
            None => self.calls.last(),
        }
    }

    /// Whether anything of it is unfinished: a call, or a transaction that still sends.
    pub fn is_busy(&self) -> bool {
        // What waits for an answer in a call that is over waits for nothing.
        let alive = |t: &ClientTx| t.is_sending() && t.call.is_none_or(|c| self.calls[c].stage != Stage::Over);
        self.calls.iter().any(|c| c.stage != Stage::Over) || self.clients.iter().any(alive)
    }

    // --- requests out -------------------------------------------------------------------------------------------------

    fn register(&mut self, now: Time, expires: u32, all: bool) {
        self.register_cseq += 1;
        let aor = format!("<sip:{}@{}>", self.id.user, self.id.domain);
        let contact = match all {
            true => "*".to_owned(),
            false => format!("{};expires={expires}", self.contact()),
        };
        let via = self.via();
        let tag = self.token();
        let mut msg = Msg::request("REGISTER", &format!("sip:{}", self.id.domain))
            .with("Via", via)
            .with("Max-Forwards", "70")
            .with("From", format!("{aor};tag={tag}"))
            .with("To", aor)
            .with("Call-ID", self.register_call.clone())
            .with("CSeq", format!("{} REGISTER", self.register_cseq))
            .with("Contact", contact)
            .with("User-Agent", self.habit.user_agent.clone());
        if all {
            msg = msg.with("Expires", "0");
        }
        self.authorize_ahead(&mut msg);
        self.send_request(now, msg, Purpose::Register { expires }, None);
    }

    fn invite(&mut self, now: Time, how: &Invite) {
        let index = self.calls.len();
        let mut msg = self.outside("INVITE", &how.to, how.from.as_deref());
        msg = msg.with("Contact", self.contact()).with("Allow", ALLOW).with("Supported", "timer");
        if let Some(session) = &how.session {
            msg = msg.with("Session-Expires", session.clone());
        }
        if let Some(hops) = how.hops {
            msg.set("Max-Forwards", Some(hops.to_string()));
        }
        for (name, value) in &how.headers {
            msg.set(name, Some(value.clone()));
        }
        let mut call = self.new_call(true, msg.call_id().to_owned(), msg.clone());
        if !how.late {
            let mut ours = self.ours(&call);
            ours.extra = how.extra.clone();
            let offer = ours.offer();
            call.offered = Some(offer.clone());
            msg = msg.with_body("application/sdp", offer.into_bytes());
        }
        call.invite = msg.clone();
        self.calls.push(call);
        self.send_request(now, msg, Purpose::Invite, Some(index));
    }

    fn cancel(&mut self, now: Time, index: usize) {
        self.calls[index].cancelled = true;
        let Some(tx) = self.clients.iter().rev().find(|t| t.call == Some(index) && t.purpose == Purpose::Invite) else {
            return;
        };
        if !tx.is_proceeding() {
            return; // section 9.1: not before a provisional response; sent when one arrives
        }
        let invite = tx.msg.clone();
        let mut msg = Msg::request("CANCEL", invite.uri());
        for name in ["Via", "From", "To", "Call-ID"] {
            if let Some(value) = invite.get(name) {
                msg = msg.with(name, value);
            }
        }
        msg = msg.with("CSeq", format!("{} CANCEL", invite.cseq())).with("Max-Forwards", "70");
        // Section 9.1: no final answer within 64*T1 of the CANCEL is one, too.
        let invite = |t: &&mut ClientTx| t.call == Some(index) && t.purpose == Purpose::Invite && t.is_sending();
        if let Some(tx) = self.clients.iter_mut().find(invite) {
            tx.give_up(now + 64 * T1);
        }
        self.send_request(now, msg, Purpose::Cancel, Some(index));
    }

    fn bye(&mut self, now: Time, index: usize) {
        self.in_dialog(now, index, "BYE", Purpose::Bye, |m| m);
        self.end(index, None);
    }

    fn reinvite(&mut self, now: Time, index: usize, offer: Offer) {
        let body = self.offer_for(index, offer);
        let contact = self.contact();
        let session = self.calls[index].refresh.map(|r| (r.interval / SEC, r.ours));
        self.in_dialog(now, index, "INVITE", Purpose::Reinvite(offer), |mut m| {
            m = m.with("Contact", contact).with("Allow", ALLOW).with("Supported", "timer");
            if let Some((seconds, ours)) = session {
                let who = if ours { "uac" } else { "uas" };
                m = m.with("Session-Expires", format!("{seconds};refresher={who}"));
            }
            match body {
                Some(body) => m.with_body("application/sdp", body.into_bytes()),
                None => m,
            }
        });
    }

    fn update(&mut self, now: Time, index: usize, offer: Option<Offer>) {
        let body = offer.and_then(|o| self.offer_for(index, o));
        let contact = self.contact();
        let session = self.calls[index].refresh.map(|r| (r.interval / SEC, r.ours));
        self.in_dialog(now, index, "UPDATE", Purpose::Update, |mut m| {
            m = m.with("Contact", contact).with("Supported", "timer");
            if let Some((seconds, ours)) = session {
                let who = if ours { "uac" } else { "uas" };
                m = m.with("Session-Expires", format!("{seconds};refresher={who}"));
            }
            match body {
                Some(body) => m.with_body("application/sdp", body.into_bytes()),
                None => m,
            }
        });
    }

    fn offer_for(&mut self, index: usize, offer: Offer) -> Option<String> {
        let call = &mut self.calls[index];
        call.version += 1;
        call.zero = offer == Offer::Zero;
        (call.wish, call.holding) = match offer {
            Offer::Hold => (Direction::SendOnly, true),
            Offer::Inactive => (Direction::Inactive, true),
            Offer::Zero => (Direction::SendRecv, true),
            Offer::Resume => (Direction::SendRecv, false),
            Offer::Late => (call.wish, call.holding),
        };
        if offer == Offer::Late {
            return None;
        }
        let text = self.ours(&self.calls[index]).offer();
        self.calls[index].offered = Some(text.clone());
        Some(text)
    }

    /// A request in the newest confirmed dialog of a call.
    fn in_dialog(&mut self, now: Time, index: usize, method: &str, purpose: Purpose, more: impl FnOnce(Msg) -> Msg) {
        let call = &self.calls[index];
        let Some(at) = call.dialogs.iter().rposition(|d| d.confirmed && !d.over) else { return };
        self.in_that_dialog(now, index, at, method, purpose, more);
    }

    fn in_that_dialog(
        &mut self,
        now: Time,
        index: usize,
        at: usize,
        method: &str,
        purpose: Purpose,
        more: impl FnOnce(Msg) -> Msg,
    ) {
        let via = self.via();
        let call = &mut self.calls[index];
        let dialog = &mut call.dialogs[at];
        dialog.cseq += 1;
        let mut msg = Msg::request(method, &dialog.target).with("Via", via).with("Max-Forwards", "70");
        for route in &dialog.route {
            msg = msg.with("Route", route.clone());
        }
        msg = msg
            .with("From", dialog.local.clone())
            .with("To", dialog.remote.clone())
            .with("Call-ID", call.call_id.clone())
            .with("CSeq", format!("{} {method}", dialog.cseq));
        let msg = more(msg);
        self.send_request(now, msg, purpose, Some(index));
    }

    /// A request outside a dialog.
    fn outside(&mut self, method: &str, to: &str, from: Option<&str>) -> Msg {
        let id = &self.id;
        let (uri, to) = match to.contains(':') {
            true => (to.to_owned(), format!("<{to}>")),
            false => (format!("sip:{to}@{}", id.domain), format!("<sip:{to}@{}>", id.domain)),
        };
        let host = if id.carrier { id.address.ip().to_string() } else { id.domain.clone() };
        let user = from.unwrap_or(&id.user);
        let display =
            if from.is_some() || id.display.is_empty() { String::new() } else { format!("\"{}\" ", id.display) };
        let from = format!("{display}<sip:{user}@{host}>;tag={}", token(&mut self.rng));
        let call_id = format!("{:016x}@{}", self.rng.bits(), self.id.address.ip());
        let via = self.via();
        let cseq = 1 + self.rng.below(1000);
        Msg::request(method, &uri)
            .with("Via", via)
            .with("Max-Forwards", "70")
            .with("From", from)
            .with("To", to)
            .with("Call-ID", call_id)
            .with("CSeq", format!("{cseq} {method}"))
    }

    // --- requests in --------------------------------------------------------------------------------------------------

    /// Whether it was a retransmission, and the call.
    fn request_arrives(&mut self, now: Time, from: SocketAddr, msg: Msg) -> (bool, Option<usize>) {
        if msg.method() == "ACK" {
            return self.ack_arrives(now, &msg);
        }
        if msg.method() == "OPTIONS" && self.habit.deaf_to_options {
            return (true, None);
        }
        if let Some(call) = self.absorb(now, &msg) {
            return (true, call);
        }
        let tx = self.serve(now, from, &msg);
        let call = match (msg.method(), msg.tag("To")) {
            ("CANCEL", _) => self.cancel_arrives(now, tx, &msg),
            (_, Some(_)) => self.dialog_request_arrives(now, tx, &msg),
            ("INVITE", None) => self.invite_arrives(now, tx, msg),
            ("REGISTER", None) => {
                self.register_arrives(now, tx, &msg);
                None
            }
            ("OPTIONS" | "MESSAGE" | "NOTIFY", None) => {
                self.reply(now, tx, Msg::response(&msg, 200, "OK", Some("out")).with("Allow", ALLOW));
                None
            }
            (_, None) => {
                self.reply(now, tx, Msg::response(&msg, 481, phrase(481), Some("no")));
                None
            }
        };
        if let Some(tx) = self.servers.iter_mut().find(|t| t.id == tx) {
            tx.call = call;
        }
        (false, call)
    }

    fn invite_arrives(&mut self, now: Time, tx: u64, msg: Msg) -> Option<usize> {
        if !self.challenge(now, tx, &msg, "INVITE") {
            return None;
        }
        if let Some(session) = msg.get("Session-Expires")
            && session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(0) < self.habit.min_se
        {
            let min = self.habit.min_se.to_string();
            self.reply(now, tx, Msg::response(&msg, 422, phrase(422), Some("small")).with("Min-SE", min));
            return None;
        }
        let index = self.calls.len();
        let call = self.new_call(false, msg.call_id().to_owned(), msg);
        self.calls.push(call);
        for (after, act) in self.habit.on_invite.clone() {
            self.todo.push((now + after, Some(index), act));
        }
        Some(index)
    }

    fn respond(&mut self, now: Time, index: usize, how: &Respond) {
        let call = &self.calls[index];
        let invite = call.invite.clone();
        let Some(tx) = self.servers.iter().find(|t| t.call == Some(index) && t.method == "INVITE").map(|t| t.id) else {
            return;
        };
        // Whoever has refused the offer has nothing more to say.
        if self.calls[index].result == Some(488) {
            return;
        }
        let answers = how.code == 183 || (200..300).contains(&how.code) || how.sdp;
        if answers && Sdp::read(&invite.body).is_ok_and(|offer| !self.speaks(&offer)) {
            return self.respond(now, index, &Respond { code: 488, tag: how.tag.clone(), ..Respond::default() });
        }
        let tag = how.tag.clone().unwrap_or_else(|| format!("{}-{index}", self.id.name));
        let words = how.phrase.clone().unwrap_or_else(|| phrase(how.code).to_owned());
        let tag_in = (how.code > 100).then_some(tag.as_str());
        let mut msg = Msg::response(&invite, how.code, &words, tag_in);
        for (name, value) in &how.headers {
            msg = msg.with(name, value.clone());
        }
        if (101..300).contains(&how.code) {
            msg = msg.with("Contact", self.contact()).with("Allow", ALLOW);
            self.uas_dialog(index, &tag, &invite);
        }
        if answers {
            let body = match Sdp::read(&invite.body) {
                Ok(offer) => {
                    self.take(now, index, &offer, false);
                    self.answer(index, &offer)
                }
                Err(why) => {
                    if !invite.body.is_empty() {
                        self.complaints.push(why);
                    }
                    let offer = self.ours(&self.calls[index]).offer();
                    self.calls[index].offered = Some(offer.clone());
                    offer
                }
            };
            msg = msg.with_body("application/sdp", body.into_bytes());
            self.calls[index].voice.turn_on(now);
        }
        if (200..300).contains(&how.code) {
            if let Some(session) = invite.get("Session-Expires").filter(|_| self.habit.timer) {
                let seconds: Time = session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(1800);
                let who = param(session, "refresher").unwrap_or("uac").to_owned();
                msg = msg.with("Session-Expires", format!("{seconds};refresher={who}")).with("Require", "timer");
                self.calls[index].set_refresh(now, seconds * SEC, who == "uas");
            }
            for dialog in self.calls[index].dialogs.iter_mut().filter(|d| d.local_tag == tag) {
                dialog.confirmed = true;
            }
            self.came_up(now, index);
            self.calls[index].result = Some(how.code);
        } else if how.code >= 300 {
            self.end(index, Some(how.code));
        }
        self.reply(now, tx, msg);
    }

    fn cancel_arrives(&mut self, now: Time, tx: u64, msg: &Msg) -> Option<usize> {
        if self.habit.deaf_to_cancel {
            return None;
        }
        let invite = self.servers.iter().find(|t| t.method == "INVITE" && t.is_of(msg)).map(|t| (t.id, t.call));
        let Some((invite_tx, call)) = invite else {
            self.reply(now, tx, Msg::response(msg, 481, phrase(481), Some("none")));
            return None;
        };
        self.reply(now, tx, Msg::response(msg, 200, "OK", None));
        if let Some(index) = call
            && self.calls[index].stage == Stage::Setup
        {
            let answer = Msg::response(&self.calls[index].invite, 487, phrase(487), Some(&self.tag_of(index)));
            self.end(index, Some(487));
            self.reply(now, invite_tx, answer);
        }
        call
    }

    fn ack_arrives(&mut self, now: Time, msg: &Msg) -> (bool, Option<usize>) {
        let by_branch = self.servers.iter().position(|t| t.method == "INVITE" && t.is_of(msg) && t.refused());
        if let Some(i) = by_branch {
            let again = self.servers[i].confirm(now);
            return (again, self.servers[i].call);
        }
        let key = (msg.call_id(), msg.tag("To").unwrap_or(""), msg.cseq());
        let found = self.servers.iter().position(|t| t.method == "INVITE" && t.accepted_as() == Some(key));
        let Some(i) = found else { return (true, None) };
        let call = self.servers[i].call;
        let again = self.servers[i].confirm_accepted(now, key.1);
        if let (false, Some(index), false) = (again, call, msg.body.is_empty()) {
            match Sdp::read(&msg.body) {
                Ok(answer) => self.take(now, index, &answer, true),
                Err(why) => self.complaints.push(why),
            }
        }
        (again, call)
    }

    fn dialog_request_arrives(&mut self, now: Time, tx: u64, msg: &Msg) -> Option<usize> {
        let (to, from) = (msg.tag("To").unwrap_or(""), msg.tag("From").unwrap_or(""));
        let fits = |d: &Dialog| d.local_tag == to && d.remote_tag == from;
        let found = self.calls.iter().enumerate().rev().find_map(|(i, c)| {
            (c.call_id == msg.call_id()).then(|| c.dialogs.iter().position(fits).map(|d| (i, d))).flatten()
        });
        let Some((index, at)) = found.filter(|&(i, d)| !self.calls[i].dialogs[d].over) else {
            self.reply(now, tx, Msg::response(msg, 481, phrase(481), None));
            return found.map(|f| f.0);
        };
        let dialog = &mut self.calls[index].dialogs[at];
        if msg.cseq() < dialog.remote_cseq {
            self.complaints.push(format!("{} with CSeq {} after {}", msg.label(), msg.cseq(), dialog.remote_cseq));
            self.reply(now, tx, Msg::response(msg, 500, phrase(500), None));
            return Some(index);
        }
        dialog.remote_cseq = msg.cseq();
        if let Some((_, code)) = self.habit.refuse.iter().find(|(m, _)| m == msg.method()) {
            self.reply(now, tx, Msg::response(msg, *code, phrase(*code), None));
            return Some(index);
        }
        match msg.method() {
            "BYE" => {
                dialog.over = true;
                self.reply(now, tx, Msg::response(msg, 200, "OK", None));
                if self.calls[index].dialogs.iter().all(|d| d.over || !d.confirmed) {
                    self.end(index, None);
                }
            }
            "INVITE" | "UPDATE" => self.offer_arrives(now, tx, index, at, msg),
            _ => self.reply(now, tx, Msg::response(msg, 200, "OK", None)),
        }
        Some(index)
    }

    fn offer_arrives(&mut self, now: Time, tx: u64, index: usize, at: usize, msg: &Msg) {
        let glare = self.clients.iter().any(|t| t.call == Some(index) && t.is_offering());
        let unacked = self.servers.iter().any(|t| t.call == Some(index) && t.is_unacked() && t.id != tx);
        if (glare || unacked) && (msg.method() == "INVITE" || !msg.body.is_empty()) {
            self.reply(now, tx, Msg::response(msg, 491, phrase(491), None));
            return;
        }
        if Sdp::read(&msg.body).is_ok_and(|offer| !self.speaks(&offer)) {
            self.reply(now, tx, Msg::response(msg, 488, phrase(488), None));
            return;
        }
        let seconds = |value: &str| value.split(';').next().and_then(|s| s.trim().parse::<u32>().ok());
        if msg.get("Session-Expires").and_then(seconds).is_some_and(|s| s < self.habit.min_se_later) {
            let min = self.habit.min_se_later.to_string();
            self.reply(now, tx, Msg::response(msg, 422, phrase(422), None).with("Min-SE", min));
            return;
        }
        if let Some(contact) = msg.get("Contact") {
            self.calls[index].dialogs[at].target = uri_of(contact).to_owned();
        }
        let mut answer = Msg::response(msg, 200, "OK", None).with("Contact", self.contact()).with("Allow", ALLOW);
        if let Some(session) = msg.get("Session-Expires").filter(|_| self.habit.timer) {
            let seconds: Time = session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(1800);
            let who = param(session, "refresher").unwrap_or("uac").to_owned();
            answer = answer.with("Session-Expires", format!("{seconds};refresher={who}")).with("Require", "timer");
            self.calls[index].set_refresh(now, seconds * SEC, who == "uas");
        }
        if !msg.body.is_empty() {
            match Sdp::read(&msg.body) {
                Ok(offer) => {
                    self.take(now, index, &offer, false);
                    let call = &mut self.calls[index];
                    call.version += 1;
                    let body = self.answer(index, &offer);
                    answer = answer.with_body("application/sdp", body.into_bytes());
                }
                Err(why) => self.complaints.push(why),
            }
        } else if msg.method() == "INVITE" {
            self.calls[index].version += 1;
            let offer = self.ours(&self.calls[index]).offer();
            self.calls[index].offered = Some(offer.clone());
            answer = answer.with_body("application/sdp", offer.into_bytes());
        }
        if let Some(t) = self.servers.iter_mut().find(|t| t.id == tx) {
            t.call = Some(index);
        }
        self.reply(now, tx, answer);
    }

    fn register_arrives(&mut self, now: Time, tx: u64, msg: &Msg) {
        if !self.challenge(now, tx, msg, "REGISTER") {
            return;
        }
        let contact = msg.get("Contact").unwrap_or("").to_owned();
        let expires = param(&contact, "expires").or(msg.get("Expires")).and_then(|e| e.parse().ok()).unwrap_or(3600);
        if expires > 0 && expires < self.habit.min_expires {
            let least = self.habit.min_expires.to_string();
            self.reply(now, tx, Msg::response(msg, 423, phrase(423), Some("brief")).with("Min-Expires", least));
            return;
        }
        self.registered = (expires > 0).then_some(now + expires * SEC);
        let bare = contact.split(";expires").next().unwrap_or("").to_owned();
        let answer = Msg::response(msg, 200, "OK", Some("reg")).with("Contact", format!("{bare};expires={expires}"));
        self.reply(now, tx, answer);
    }

    /// Whether the request may go on: no challenge is wanted, or it is answered rightly.
    fn challenge(&mut self, now: Time, tx: u64, msg: &Msg, method: &str) -> bool {
        let Some((user, password)) = self.habit.challenge.clone() else { return true };
        let (header, code, ask) = match method {
            "REGISTER" => ("Authorization", 401, "WWW-Authenticate"),
            _ => ("Proxy-Authorization", 407, "Proxy-Authenticate"),
        };
        if let Some(value) = msg.get(header) {
            let right = self.nonces.iter().any(|n| digest::proves(value, &user, &password, method, n));
            if right {
                if let Some((call_id, uri)) = &self.last_challenged
                    && call_id == msg.call_id()
                    && uri != msg.uri()
                {
                    self.complaints.push(format!("{uri} was challenged, {} came back", msg.uri()));
                }
                return true;
            }
        }
        let nonce = format!("{:016x}", self.rng.bits());
        self.nonces.push(nonce.clone());
        self.last_challenged = Some((msg.call_id().to_owned(), msg.uri().to_owned()));
        let ask_value = format!("Digest realm=\"carrier.example\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\"");
        self.reply(now, tx, Msg::response(msg, code, phrase(code), Some("ask")).with(ask, ask_value));
        false
    }

    // --- responses in -------------------------------------------------------------------------------------------------

    fn response_arrives(&mut self, now: Time, msg: Msg) -> (bool, Option<usize>) {
        let code = msg.code().unwrap_or(0);
        let Some(at) = self.clients.iter().position(|t| t.is_of(&msg)) else {
            // A 2xx may outlive its transaction by its retransmissions; anything else is late by 64*T1.
            return (true, None);
        };
        let tx = &mut self.clients[at];
        let (purpose, call) = (tx.purpose, tx.call);
        let request = tx.msg.clone();
        let news = tx.progress(now, code);
        if purpose.is_invite() && code >= 300 {
            let ack = ack_of(&request, &msg);
            let to = self.clients[at].to;
            if !self.habit.no_ack {
                self.out.push_back(Out::Sip { to, bytes: ack.write() });
            }
        }
        if purpose.is_invite()
            && (200..300).contains(&code)
            && let Some(index) = call
        {
            return (!self.accepted(now, index, purpose, &request, &msg, news), call);
        }
        if !news {
            return (true, call);
        }
        if code < 200 {
            if let Some(index) = call
                && purpose == Purpose::Invite
            {
                self.rings(now, index, &msg);
            }
            return (false, call);
        }
        if matches!(code, 401 | 407) && self.authorize(now, at, &msg) {
            return (false, call);
        }
        match purpose {
            Purpose::Register { expires } => {
                if (200..300).contains(&code) {
                    let granted = msg.list("Contact").into_iter().find(|c| uri_of(c) == uri_of(&self.contact()));
                    let granted = granted.and_then(|c| param(c, "expires")).and_then(|e| e.parse::<Time>().ok());
                    match (expires, granted) {
                        (0, None) => self.registered = None,
                        (0, Some(_)) => self.complaints.push("unregistered, but still listed".into()),
                        (_, None) => self.complaints.push("registered, but not listed with expires".into()),
                        (_, Some(seconds)) => {
                            self.registered = Some(now + seconds * SEC);
                            if self.habit.keeps_registered {
                                let again = Act::Register { expires, password: None, all: false };
                                self.todo.retain(|t| !matches!(t.2, Act::Register { .. }));
                                self.todo.push((now + seconds * SEC / 2, None, again));
                            }
                        }
                    }
                }
            }
            Purpose::Invite => {
                let Some(index) = call else { return (false, call) };
                let min = msg.get("Min-SE").map(str::to_owned);
                if let (422, Some(min), 0) = (code, min, self.calls[index].retries) {
                    self.calls[index].retries += 1;
                    let mut retry = request;
                    retry.set("Session-Expires", Some(min.clone()));
                    retry.set("Min-SE", Some(min));
                    self.count_nonce(&mut retry);
                    self.retry(now, retry, purpose, call);
                } else {
                    self.end(index, Some(code));
                }
            }
            Purpose::Reinvite(offer) => {
                let Some(index) = call else { return (false, call) };
                self.calls[index].offered = None;
                match code {
                    491 => {
                        // Section 14.1: the owner of the Call-ID waits 2.1 to 4 s, the other 0 to 2 s.
                        let wait = match self.calls[index].ours {
                            true => 2100 * MS + self.rng.below(190) * 10 * MS,
                            false => self.rng.below(200) * 10 * MS,
                        };
                        self.todo.push((now + wait, call, Act::Reinvite(offer)));
                    }
                    408 | 481 => self.bye(now, index),
                    _ => {}
                }
            }
            Purpose::Update => {
                let Some(index) = call else { return (false, call) };
                if (200..300).contains(&code) {
                    self.session_agreed(now, index, &msg);
                    if let Ok(answer) = Sdp::read(&msg.body) {
                        self.take(now, index, &answer, true);
                    }
                } else {
                    self.calls[index].offered = None;
                }
            }
            Purpose::Cancel | Purpose::Bye | Purpose::Plain | Purpose::Raw => {}
        }
        (false, call)
    }

    /// A provisional response to our call.
    fn rings(&mut self, now: Time, index: usize, msg: &Msg) {
        if self.calls[index].cancelled
            && !self.clients.iter().any(|t| t.call == Some(index) && t.purpose == Purpose::Cancel)
        {
            self.cancel(now, index);
        }
        if msg.tag("To").is_some() {
            self.uac_dialog(index, msg, false);
        }
        if !msg.body.is_empty() && self.calls[index].offered.is_some() && self.calls[index].stage == Stage::Setup {
            match Sdp::read(&msg.body) {
                Ok(answer) => {
                    self.take(now, index, &answer, true);
                    self.calls[index].voice.turn_on(now);
                }
                Err(why) => self.complaints.push(why),
            }
        }
    }

    /// A 2xx to an INVITE of ours; whether it is news.
    fn accepted(&mut self, now: Time, index: usize, purpose: Purpose, request: &Msg, msg: &Msg, first: bool) -> bool {
        let at = self.uac_dialog(index, msg, true);
        let dialog = &self.calls[index].dialogs[at];
        if let Some((cseq, ack)) = dialog.ack.clone()
            && cseq == request.cseq()
        {
            let to = self.next_hop(&self.calls[index].dialogs[at]);
            if !self.habit.no_ack {
                self.out.push_back(Out::Sip { to, bytes: ack });
            }
            return false;
        }
        let mut body = None;
        if request.body.is_empty() {
            match Sdp::read(&msg.body) {
                Ok(offer) => {
                    self.take(now, index, &offer, false);
                    body = Some(self.answer(index, &offer));
                }
                Err(why) => self.complaints.push(format!("200 to a late offer: {why}")),
            }
        } else if first || !msg.body.is_empty() {
            match Sdp::read(&msg.body) {
                Ok(answer) => self.take(now, index, &answer, true),
                Err(why) => self.complaints.push(format!("200: {why}")),
            }
        }
        self.session_agreed(now, index, msg);
        let via = self.via();
        let call = &mut self.calls[index];
        let dialog = &mut call.dialogs[at];
        let mut ack = Msg::request("ACK", &dialog.target).with("Via", via).with("Max-Forwards", "70");
        for route in &dialog.route {
            ack = ack.with("Route", route.clone());
        }
        ack = ack
            .with("From", dialog.local.clone())
            .with("To", dialog.remote.clone())
            .with("Call-ID", call.call_id.clone())
            .with("CSeq", format!("{} ACK", request.cseq()));
        // Section 22.2: credentials of the INVITE go into its ACK.
        for name in ["Authorization", "Proxy-Authorization"] {
            if let Some(value) = request.get(name) {
                ack = ack.with(name, value);
            }
        }
        if let Some(body) = body {
            ack = ack.with_body("application/sdp", body.into_bytes());
        }
        let bytes = ack.write();
        dialog.ack = Some((request.cseq(), bytes.clone()));
        let to = self.next_hop(&self.calls[index].dialogs[at]);
        if !self.habit.no_ack {
            self.out.push_back(Out::Sip { to, bytes });
        }
        let call = &mut self.calls[index];
        if purpose == Purpose::Invite {
            let surplus = call.dialogs.iter().enumerate().any(|(i, d)| i != at && d.confirmed && !d.over);
            call.result = Some(msg.code().unwrap_or(200));
            if call.cancelled || call.stage == Stage::Over || surplus {
                self.in_that_dialog(now, index, at, "BYE", Purpose::Bye, |m| m);
                self.calls[index].dialogs[at].over = true;
                if !surplus {
                    self.end(index, None);
                }
            } else {
                self.calls[index].voice.turn_on(now);
                self.came_up(now, index);
            }
        }
        true
    }

    fn session_agreed(&mut self, now: Time, index: usize, msg: &Msg) {
        if let Some(session) = msg.get("Session-Expires") {
            let seconds: Time = session.split(';').next().and_then(|s| s.trim().parse().ok()).unwrap_or(1800);
            let ours = param(session, "refresher").unwrap_or("uac") == "uac";
            self.calls[index].set_refresh(now, seconds * SEC, ours);
        } else if self.calls[index].refresh.is_some() {
            self.calls[index].refresh = None;
        }
    }

    /// Answers a challenge once; whether a retry went out.
    fn authorize(&mut self, now: Time, at: usize, msg: &Msg) -> bool {
        let (ask, header) = match msg.code() {
            Some(401) => ("WWW-Authenticate", "Authorization"),
            _ => ("Proxy-Authenticate", "Proxy-Authorization"),
        };
        let tx = &self.clients[at];
        let Some(challenge) = msg.headers.iter().filter(|(n, _)| n == ask).find_map(|(_, v)| Challenge::read(v)) else {
            return false;
        };
        let tried = tx.msg.get(header).is_some();
        if (tried && !challenge.stale) || self.id.carrier || self.id.password.is_empty() || tx.purpose == Purpose::Raw {
            return false;
        }
        let (purpose, call) = (tx.purpose, tx.call);
        let mut retry = tx.msg.clone();
        let password = match (&purpose, &self.register_password) {
            (Purpose::Register { .. }, Some(other)) => other.clone(),
            _ => self.id.password.clone(),
        };
        let cnonce = token(&mut self.rng);
        let answer = challenge.answer(&self.id.user, &password, retry.method(), retry.uri(), &cnonce, 1);
        retry.set(header, Some(answer));
        self.known = Some((challenge, 1));
        self.retry(now, retry, purpose, call);
        true
    }

    /// Uses the last nonce again, as phones do when they refresh.
    fn authorize_ahead(&mut self, msg: &mut Msg) {
        let Some((challenge, nc)) = &mut self.known else { return };
        if self.register_password.is_some() {
            return;
        }
        *nc += 1;
        let cnonce = token(&mut self.rng);
        let answer = challenge.answer(&self.id.user, &self.id.password, msg.method(), msg.uri(), &cnonce, *nc);
        msg.set("Authorization", Some(answer));
    }

    /// The same nonce in another request: its count goes up (RFC 7616 section 3.4).
    fn count_nonce(&mut self, msg: &mut Msg) {
        let Some((challenge, nc)) = &mut self.known else { return };
        for header in ["Authorization", "Proxy-Authorization"] {
            if msg.get(header).is_some() {
                *nc += 1;
                let cnonce = token(&mut self.rng);
                let (user, password) = (&self.id.user, &self.id.password);
                let answer = challenge.answer(user, password, msg.method(), msg.uri(), &cnonce, *nc);
                msg.set(header, Some(answer));
            }
        }
    }

    /// The same request once more with a CSeq one higher and a new branch (section 22.2).
    fn retry(&mut self, now: Time, mut msg: Msg, purpose: Purpose, call: Option<usize>) {
        let method = msg.method().to_owned();
        let cseq = msg.cseq() + 1;
        msg.set("CSeq", Some(format!("{cseq} {method}")));
        let via = self.via();
        msg.headers.retain(|(n, _)| n != "Via");
        msg.headers.insert(0, ("Via".into(), via));
        if let Purpose::Register { .. } = purpose {
            self.register_cseq = cseq;
        }
        if let Some(index) = call {
            match purpose {
                Purpose::Invite => self.calls[index].invite = msg.clone(),
                _ => self.calls[index].dialogs.iter_mut().for_each(|d| d.cseq = d.cseq.max(cseq)),
            }
        }
        self.send_request(now, msg, purpose, call);
    }

    // --- offers and answers -------------------------------------------------------------------------------------------

    /// Takes the peer's SDP: its offer, or its answer to ours.
    fn take(&mut self, now: Time, index: usize, sdp: &Sdp, answer: bool) {
        let offered = self.calls[index].offered.clone();
        if let (true, Some(offered)) = (answer, offered.as_deref()) {
            self.check_answer(offered, sdp);
        }
        let formats = self.habit.formats.clone();
        let call = &mut self.calls[index];
        let Some(media) = sdp.audio() else {
            call.voice.remote = None;
            return;
        };
        call.voice.remote = media.target();
        // We send what the peer hears, and the other way round, as far as we want to ourselves.
        let zero = media.address.is_some_and(|a| a.is_unspecified());
        let sends = media.direction.hears() && call.wish.sends() && !call.holding && !zero;
        let hears = media.direction.sends() && call.wish.hears();
        call.voice.direction = Direction::of(sends, hears);
        if answer {
            call.offered = None;
        }
        let mut pick = None;
        call.voice.digits_before.extend(call.voice.digits.take());
        call.voice.agreed_at = now;
        call.voice.listens = formats.iter().map(|f| f.0).collect();
        for format in &media.formats {
            let name = media.name(format);
            let pt: u8 = format.parse().unwrap_or(255);
            if name.starts_with("telephone-event") {
                let known = formats.iter().any(|(_, n)| n.starts_with("telephone-event"));
                call.voice.digits = known.then_some(pt);
            } else if formats.iter().any(|(_, n)| n.to_ascii_lowercase() == name) {
                call.voice.listens.push(pt);
                pick = pick.or(Some(pt));
            }
        }
        match pick {
            Some(pt) => call.voice.payload = pt,
            None => self.complaints.push(format!("no format of ours in {:?}", media.formats)),
        }
        if self.calls[index].stage == Stage::Up {
            self.calls[index].voice.turn_on(now);
        }
    }

    /// Whether an offer's audio has a codec that we speak; one without audio asks for nothing that we could not do.
    fn speaks(&self, offer: &Sdp) -> bool {
        let ours = |name: &str| self.habit.formats.iter().any(|(_, n)| n.eq_ignore_ascii_case(name));
        let codec = |name: &str| !name.starts_with("telephone-event") && ours(name);
        offer.audio().is_none_or(|audio| audio.formats.iter().any(|f| codec(&audio.name(f))))
    }

    /// RFC 3264 section 6.
    fn check_answer(&mut self, offered: &str, answer: &Sdp) {
        let Ok(offer) = Sdp::read(offered.as_bytes()) else { return };
        if offer.media.len() != answer.media.len() {
            let (n, m) = (offer.media.len(), answer.media.len());
            self.complaints.push(format!("{n} streams offered, {m} answered"));
        }
        for (o, a) in offer.media.iter().zip(&answer.media) {
            if (&o.kind, &o.proto) != (&a.kind, &a.proto) {
                self.complaints.push(format!("{} {} offered, {} {} answered", o.kind, o.proto, a.kind, a.proto));
            }
            if a.port != 0 && !a.formats.iter().any(|f| o.formats.contains(f)) {
                self.complaints.push(format!("{:?} offered, {:?} answered", o.formats, a.formats));
            }
            let wrong = (a.direction.sends() && !o.direction.hears()) || (a.direction.hears() && !o.direction.sends());
            if a.port != 0 && wrong {
                self.complaints.push(format!("{:?} offered, {:?} answered", o.direction, a.direction));
            }
        }
    }

    /// Our stream as we want it; an offer.
    fn ours(&self, call: &Call) -> Ours {
        Ours {
            address: call.voice.local,
            zero: call.zero,
            session: call.session,
            version: call.version,
            direction: call.wish,
            formats: self.habit.formats.clone(),
            extra: String::new(),
        }
    }

    /// Our answer to an offer that was taken.
    fn answer(&self, index: usize, offer: &Sdp) -> String {
        let call = &self.calls[index];
        let direction = if self.habit.careless { Direction::SendRecv } else { call.voice.direction };
        Ours { direction, zero: false, ..self.ours(call) }.answer(offer)
    }

    // --- odds and ends ------------------------------------------------------------------------------------------------

    fn new_call(&mut self, ours: bool, call_id: String, invite: Msg) -> Call {
        let index = self.calls.len();
        let tone = Tone((self.id.index << 16) | (index as u32 + 1));
        let port = 4000 + 2 * (index as u16 % 10_000);
        let voice = Voice::new(tone, SocketAddr::new(self.id.address.ip(), port), self.rng.bits());
        Call {
            ours,
            call_id,
            stage: Stage::Setup,
            result: None,
            voice,
            up_at: None,
            holding: false,
            dialogs: Vec::new(),
            invite,
            cancelled: false,
            retries: 0,
            session: self.rng.below(1 << 31),
            version: 1,
            offered: None,
            refresh: None,
            wish: Direction::SendRecv,
            zero: false,
            pressed: String::new(),
        }
    }

    fn came_up(&mut self, now: Time, index: usize) {
        if self.calls[index].stage == Stage::Up {
            return;
        }
        self.calls[index].stage = Stage::Up;
        self.calls[index].up_at = Some(now);
        for (after, act) in self.habit.on_answer.clone() {
            self.todo.push((now + after, Some(index), act));
        }
    }

    fn end(&mut self, index: usize, result: Option<u16>) {
        let call = &mut self.calls[index];
        call.stage = Stage::Over;
        call.result = call.result.or(result);
        call.voice.on = false;
        call.refresh = None;
        call.dialogs.iter_mut().filter(|d| d.confirmed).for_each(|d| d.over = true);
    }

    fn tick_refresh(&mut self, now: Time, index: usize) {
        let Some(refresh) = self.calls[index].refresh.filter(|r| r.due <= now) else { return };
        if self.calls[index].stage != Stage::Up {
            self.calls[index].refresh = None;
        } else if refresh.ours {
            // Moved on by the answer; tried again in a while if a transaction is in the way.
            self.calls[index].refresh = Some(Refresh { due: now + 5 * SEC, ..refresh });
            if self.idle(Some(index), "UPDATE").is_ok() {
                self.update(now, index, None);
            }
        } else {
            self.bye(now, index);
        }
    }

    fn uas_dialog(&mut self, index: usize, tag: &str, invite: &Msg) {
        let call = &mut self.calls[index];
        if call.dialogs.iter().any(|d| d.local_tag == tag) {
            return;
        }
        let mut local = invite.get("To").unwrap_or("").to_owned();
        local.push_str(&format!(";tag={tag}"));
        let cseq = 100 + self.rng.below(100) as u32;
        call.dialogs.push(Dialog {
            local_tag: tag.to_owned(),
            remote_tag: invite.tag("From").unwrap_or("").to_owned(),
            local,
            remote: invite.get("From").unwrap_or("").to_owned(),
            target: uri_of(invite.get("Contact").unwrap_or("")).to_owned(),
            route: invite.list("Record-Route").iter().map(|r| r.to_string()).collect(),
            cseq,
            remote_cseq: invite.cseq(),
            confirmed: false,
            over: false,
            ack: None,
            invited: invite.cseq(),
        });
    }

    fn uac_dialog(&mut self, index: usize, msg: &Msg, confirmed: bool) -> usize {
        let tag = msg.tag("To").unwrap_or("").to_owned();
        let call = &mut self.calls[index];
        let target = msg.get("Contact").map(|c| uri_of(c).to_owned());
        let own = msg.tag("From").unwrap_or("");
        if let Some(at) = call.dialogs.iter().position(|d| d.remote_tag == tag && d.local_tag == own) {
            let dialog = &mut call.dialogs[at];
            dialog.confirmed |= confirmed;
            if let Some(target) = target {
                dialog.target = target;
            }
            return at;
        }
        let mut route: Vec<String> = msg.list("Record-Route").iter().map(|r| r.to_string()).collect();
        route.reverse();
        let local_tag = msg.tag("From").unwrap_or("").to_owned();
        if call.invite.tag("From") != Some(&local_tag) {
            self.complaints.push(format!("{} with another From tag than ours", msg.label()));
        }
        call.dialogs.push(Dialog {
            local_tag,
            remote_tag: tag,
            local: msg.get("From").unwrap_or("").to_owned(),
            remote: msg.get("To").unwrap_or("").to_owned(),
            target: target.unwrap_or_else(|| call.invite.uri().to_owned()),
            route,
            cseq: call.invite.cseq(),
            remote_cseq: 0,
            confirmed,
            over: false,
            ack: None,
            invited: call.invite.cseq(),
        });
        call.dialogs.len() - 1
    }

    fn next_hop(&self, dialog: &Dialog) -> SocketAddr {
        let uri = dialog.route.first().map_or(dialog.target.as_str(), |r| uri_of(r));
        address_of(uri).unwrap_or(self.id.server)
    }

    fn newest(&self, call: Option<usize>, fits: impl Fn(&Call) -> bool, why: &str) -> Result<usize, NotNow> {
        let found = match call {
            Some(i) => Some(i).filter(|&i| self.calls.get(i).is_some_and(&fits)),
            None => self.calls.iter().rposition(fits),
        };
        found.ok_or_else(|| NotNow(why.to_owned()))
    }

    /// A call in which an offer may go out now.
    fn idle(&self, call: Option<usize>, method: &str) -> Result<usize, NotNow> {
        let index = self.newest(call, |c| c.stage == Stage::Up, &format!("no call for {method}"))?;
        let pending = self.clients.iter().any(|t| t.call == Some(index) && t.is_offering());
        let unacked = self.servers.iter().any(|t| t.call == Some(index) && t.is_unacked());
        match pending || unacked {
            true => Err(NotNow(format!("an offer is on its way, no {method} now"))),
            false => Ok(index),
        }
    }

    fn tag_of(&self, index: usize) -> String {
        self.calls[index].dialogs.first().map_or_else(|| format!("{}-{index}", self.id.name), |d| d.local_tag.clone())
    }

    /// Our Contact, without parameters of its own.
    pub fn contact(&self) -> String {
        let id = &self.id;
        let transport = match id.wire {
            Wire::Udp => "",
            Wire::Tcp => ";transport=tcp",
        };
        format!("<sip:{}@{}{transport}>", id.user, id.address)
    }

    fn via(&mut self) -> String {
        let token = token(&mut self.rng);
        let transport = match self.id.wire {
            Wire::Udp => "UDP",
            Wire::Tcp => "TCP",
        };
        format!("SIP/2.0/{transport} {};branch=z9hG4bK{token};rport", self.id.address)
    }

    fn token(&mut self) -> String {
        token(&mut self.rng)
    }
}

impl Call {
    fn set_refresh(&mut self, now: Time, interval: Time, ours: bool) {
        // RFC 4028 section 10: half the interval for the refresher; the other gives up min(32 s, a third) before the end.
        let due = match ours {
            true => interval / 2,
            false => interval - (interval / 3).min(32 * SEC),
        };
        self.refresh = Some(Refresh { interval, ours, due: now + due });
    }

    /// Whom it hears, packets counted from `since` on.
    pub fn hears_since(&self, since: Time) -> Vec<Tone> {
        self.voice.heard.iter().filter(|h| h.last >= since).map(|h| h.tone).collect()
    }
}

/// What our phones can do.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY, MESSAGE";

/// User part of the address in a From or To value.
pub fn user_in(value: &str) -> &str {
    user_of(uri_of(value))
}

/// ACK for a non-2xx final response (section 17.1.1.3).
fn ack_of(invite: &Msg, response: &Msg) -> Msg {
    let mut ack = Msg::request("ACK", invite.uri());
    for (name, value) in &invite.headers {
        if matches!(name.as_str(), "Via" | "From" | "Call-ID" | "Route" | "Authorization" | "Proxy-Authorization") {
            ack = ack.with(name, value.clone());
        }
    }
    ack.with("To", response.get("To").unwrap_or(""))
        .with("CSeq", format!("{} ACK", invite.cseq()))
        .with("Max-Forwards", "70")
}

fn token(rng: &mut Rng) -> String {
    format!("{:012x}", rng.bits() >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two phones on one wire that loses some packets, without anyone between.
    struct Pair([Phone; 2], Rng, u64, Time);

    impl Pair {
        fn new(loss: u64) -> Pair {
            let phone = |i: u32| {
                let address = |i: u32| SocketAddr::from(([10, 0, 0, i as u8], 5060));
                let id = Identity {
                    name: format!("p{i}"),
                    user: format!("10{i}"),
                    display: String::new(),
                    password: "secret".into(),
                    address: address(i),
                    wire: Wire::Udp,
                    server: address(3 - i),
                    domain: "d.example".into(),
                    carrier: false,
                    index: i,
                };
                Phone::new(id, Habit::default(), Rng::from_number(u64::from(i)))
            };
            Pair([phone(1), phone(2)], Rng::from_number(9), loss, 0)
        }

        fn play(&mut self, time: Time) {
            let until = self.3 + time;
            loop {
                for (i, far) in [(0, 1), (1, 0)] {
                    while let Some(out) = self.0[i].out.pop_front() {
                        if self.1.below(1000) < self.2 {
                            continue;
                        }
                        let from = self.0[i].id.address;
                        match out {
                            Out::Sip { bytes, .. } => self.0[far].receive(self.3, from, &bytes),
                            Out::Rtp { to, bytes, .. } => self.0[far].hear(self.3, to.port(), &bytes),
                        }
                    }
                }
                if self.0.iter().any(|p| !p.out.is_empty()) {
                    continue;
                }
                let next = self.0.iter().filter_map(Phone::deadline).min().unwrap_or(Time::MAX);
                if next > until {
                    self.3 = until;
                    return;
                }
                self.3 = self.3.max(next);
                self.0.iter_mut().for_each(|p| p.tick(self.3));
            }
        }

        fn act(&mut self, phone: usize, act: Act) {
            let now = self.3;
            self.0[phone].act(now, None, &act).expect("it can");
        }
    }

    fn answer(code: u16) -> Act {
        Act::Respond(Respond { code, ..Respond::default() })
    }

    #[test]
    fn two_phones_talk_hold_and_hang_up_over_any_wire() {
        for loss in [0, 200] {
            let mut pair = Pair::new(loss);
            pair.act(0, Act::Invite(Invite { to: "102".into(), late: loss > 0, ..Invite::default() }));
            pair.play(20 * SEC);
            pair.act(1, answer(180));
            pair.act(1, answer(200));
            pair.play(30 * SEC);
            let heard: Vec<_> = pair.0.iter().map(|p| p.calls[0].voice.heard.len()).collect();
            assert_eq!(heard, [1, 1]);
            pair.act(0, Act::Reinvite(Offer::Hold));
            pair.play(30 * SEC);
            let since = pair.3;
            pair.play(SEC);
            assert!(pair.0.iter().all(|p| p.calls[0].hears_since(since + 1).is_empty()), "held, yet heard");
            pair.act(0, Act::Reinvite(Offer::Resume));
            pair.play(30 * SEC);
            pair.act(1, Act::Bye);
            pair.play(60 * SEC);
            for phone in &pair.0 {
                assert_eq!(phone.calls[0].stage, Stage::Over);
                assert_eq!(
                    phone.complaints.iter().filter(|c| !c.contains("is not ours")).count(),
                    0,
                    "{:?}",
                    phone.complaints
                );
                assert!(phone.clients.is_empty() && phone.servers.is_empty());
            }
        }
    }

    #[test]
    fn a_caller_gives_up() {
        let mut pair = Pair::new(0);
        pair.act(0, Act::Invite(Invite { to: "102".into(), ..Invite::default() }));
        pair.play(SEC);
        pair.act(1, answer(180));
        pair.play(SEC);
        pair.act(0, Act::Cancel);
        pair.play(60 * SEC);
        let results: Vec<_> = pair.0.iter().map(|p| p.calls[0].result).collect();
        assert_eq!(results, [Some(487), Some(487)]);
    }
}
