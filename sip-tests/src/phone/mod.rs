//! A telephone, or a carrier's edge, written from RFC 3261 (sections 8, 9, 10, 12 to 15, 17), 3264, 4028 and 7616 alone.
//! It does what it is told with [`Act`] and answers by itself what a person need not decide: ACK, 200 to BYE, CANCEL, INFO,
//! UPDATE, OPTIONS and re-INVITE, a challenge. What it finds wrong with its peer it writes down in `complaints`.
//!
//! Files: `told` (habits and acts), `call` (calls and dialogs), `uac` and `uas` (requests out and in), `offer` (codecs), `transaction`,
//! `text` (messages), `sdp`, `digest`, `voice` (RTP). None of it is strowger's code.

mod call;
pub mod digest;
mod offer;
pub mod sdp;
pub mod text;
mod told;
mod transaction;
mod uac;
mod uas;
pub mod voice;

use std::collections::VecDeque;
use std::net::SocketAddr;

use strowger::base::Rng;

use crate::{MS, SEC, Time};
pub use call::{Call, Dialog, Stage};
use digest::Challenge;
use text::{First, Msg, address_of, uri_of, user_of};
pub use told::{Act, Habit, Invite, Offer, Respond};
use transaction::{ClientTx, Purpose, ServerTx};

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
                self.renegotiate(now, call, Purpose::Reinvite(*offer), Some(*offer));
            }
            Act::Update(offer) => {
                let call = self.idle(call, "UPDATE")?;
                self.renegotiate(now, call, Purpose::Update, *offer);
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
            Act::InviteByAnotherWay(to) => {
                let mut msg = self.calls.last().ok_or_else(|| NotNow("no call yet".into()))?.invite.clone();
                msg.set("Via", None);
                if let (Some(to), First::Request { uri, .. }) = (to, &mut msg.first) {
                    *uri = format!("sip:{to}@{}", self.id.domain);
                }
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

    fn allow(&self) -> &'static str {
        if self.habit.update { ALLOW } else { ALLOW_OLD }
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

/// What our phones can do.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY, MESSAGE";
/// What those can do that know no UPDATE.
const ALLOW_OLD: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, MESSAGE";

/// User part of the address in a From or To value.
pub fn user_in(value: &str) -> &str {
    user_of(uri_of(value))
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
