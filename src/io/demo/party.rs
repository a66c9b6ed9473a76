//! A simulated telephone or carrier: a small SIP user agent (RFC 3261) on a UDP socket of its own, played by a script. It
//! shares the server's message types and nothing of how the server decides. OPTIONS it answers by itself.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::voice::Voice;
use crate::base::Rng;
use crate::media::Codec;
use crate::sdp::offer::{self, Origin};
use crate::sdp::session::{Direction, Format, Session};
use crate::sip::digest::{self, Challenge};
use crate::sip::print::{Writer, phrase};
use crate::sip::{Message, Method, Name};

/// How long a script waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often the listening thread looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);

/// What did not happen, in words for the one who reads the demo.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missed(pub String);

impl From<io::Error> for Missed {
    fn from(error: io::Error) -> Missed {
        Missed(format!("the demo's own socket: {error}"))
    }
}

/// One that calls and is called.
pub struct Party {
    /// Its SIP user.
    pub user: String,
    /// Its digest password; none: it proves itself by its address.
    pub password: Option<String>,
    /// Its socket's address.
    pub address: SocketAddr,
    server: SocketAddr,
    socket: Arc<UdpSocket>,
    heard: Receiver<Message>,
    /// Heard while something else was waited for.
    aside: VecDeque<Message>,
    rng: Rng,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Questions for our health that were answered.
    health: Arc<AtomicU32>,
}

/// A call in which a party is.
pub struct Call {
    call_id: String,
    /// Our From value, with tag.
    local: String,
    /// The other side's To value, with its tag once known.
    remote: String,
    target: String,
    seq: u32,
    origin: Origin,
    /// The INVITE that made it, or the last of ours in it.
    pub invite: Message,
    /// Its mouth and ear.
    pub voice: Voice,
    codec: Codec,
    /// Payload type of events, where they were agreed.
    event: Option<u8>,
    peer: Option<SocketAddr>,
}

/// A call that rings here.
pub struct Ringing {
    /// What rings.
    pub invite: Message,
    /// Our tag of it.
    pub tag: String,
}

impl Party {
    /// A party that talks to the server at `server`.
    pub fn new(user: &str, password: Option<String>, server: SocketAddr, rng: &mut Rng) -> io::Result<Party> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(LOOK))?;
        let address = socket.local_addr()?;
        let (socket, over, health) = (Arc::new(socket), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (tell, heard) = channel();
        let ear = Ear { socket: socket.clone(), over: over.clone(), health: health.clone(), tell };
        let thread = std::thread::Builder::new().name(format!("party-{user}")).spawn(move || ear.run())?;
        Ok(Party {
            user: user.to_owned(),
            password,
            address,
            server,
            socket,
            heard,
            aside: VecDeque::new(),
            rng: rng.fork(),
            over,
            thread: Some(thread),
            health,
        })
    }

    /// Tells where the server is, once it is known.
    pub fn set_server(&mut self, server: SocketAddr) {
        self.server = server;
    }

    /// Registers (or, with the wrong password, tries to); gives the last answer.
    pub fn register(&mut self, domain: &str, password: &str, expires: u32) -> Result<Message, Missed> {
        let uri = format!("sip:{domain}");
        let who = format!("<sip:{}@{domain}>", self.user);
        let from = format!("{who};tag={}", self.token());
        let call_id = self.token();
        let mut proof = None;
        for seq in 1.. {
            let mut w = self.request(Method::Register, &uri, &from, &who, &call_id, seq);
            w.fmt(Name::Contact, format_args!("<sip:{}@{}>;expires={expires}", self.user, self.address));
            if let Some((name, value)) = proof.take() {
                w.header(name, value);
            }
            self.send(&w.finish());
            let answer = self.answer_to(&call_id, seq)?;
            proof = match answer.status() {
                401 if seq == 1 => self.proof(&answer, password, Method::Register, &uri),
                _ => None,
            };
            if proof.is_none() {
                return Ok(answer);
            }
        }
        unreachable!("the second answer is returned")
    }

    /// Begins a call; the server's challenge is answered. `from` is a From value without tag.
    pub fn invite(&mut self, uri: &str, from: &str, hz: u32) -> Result<Call, Missed> {
        let voice = Voice::new(hz, &mut self.rng)?;
        let origin = Origin::new(self.rng.bits());
        let body = offer::offer(&origin, voice.address.ip(), voice.address.port(), &CODECS, Direction::SendRecv);
        let body = body.to_bytes();
        let local = format!("{from};tag={}", self.token());
        let remote = format!("<{uri}>");
        let call_id = self.token();
        let mut proof = None;
        for seq in 1.. {
            let mut w = self.request(Method::Invite, uri, &local, &remote, &call_id, seq);
            w.fmt(Name::Contact, format_args!("<sip:{}@{}>", self.user, self.address));
            if let Some((name, value)) = proof.take() {
                w.header(name, value);
            }
            let bytes = w.body("application/sdp", &body);
            self.send(&bytes);
            let invite = own(bytes)?;
            let Some(password) = self.password.clone().filter(|_| seq == 1) else {
                return Ok(Call {
                    call_id,
                    local,
                    remote,
                    target: uri.to_owned(),
                    seq,
                    origin,
                    invite,
                    voice,
                    codec: Codec::Pcma,
                    event: None,
                    peer: None,
                });
            };
            let first = self.wait("the server's challenge", PATIENCE, |m| is_answer(m, &call_id, seq))?;
            if !matches!(first.status(), 401 | 407) {
                return Err(Missed(format!(
                    "{} was not asked for its password but told {}",
                    self.user,
                    first.status()
                )));
            }
            self.acknowledge_refusal(&invite, &first);
            proof = self.proof(&first, &password, Method::Invite, uri);
        }
        unreachable!("the second INVITE is returned")
    }

    /// Waits for a provisional answer like 180.
    pub fn progress(&mut self, call: &Call, status: u16) -> Result<Message, Missed> {
        let (id, seq) = (call.call_id.clone(), call.seq);
        self.wait(&format!("{status} {}", phrase(status)), PATIENCE, |m| is_answer(m, &id, seq) && m.status() == status)
    }

    /// Waits for the answer to our INVITE, acknowledges it and talks.
    pub fn answered(&mut self, call: &mut Call) -> Result<(), Missed> {
        let answer = self.final_answer(call)?;
        if answer.status() != 200 {
            self.acknowledge_refusal(&call.invite, &answer);
            return Err(Missed(format!("{} was refused: {} {}", self.user, answer.status(), text(answer.reason()))));
        }
        call.remote = header(&answer, Name::To);
        if let Some(contact) = answer.contact() {
            call.target = contact.uri.raw.to_owned();
        }
        call.heed(answer.body())?;
        let ack = self.request(Method::Ack, &call.target, &call.local, &call.remote, &call.call_id, call.seq);
        self.send(&ack.finish());
        Ok(())
    }

    /// Waits for the final answer to our INVITE.
    pub fn final_answer(&mut self, call: &Call) -> Result<Message, Missed> {
        let (id, seq) = (call.call_id.clone(), call.seq);
        self.wait("a final answer", PATIENCE, |m| is_answer(m, &id, seq) && m.status() >= 200)
    }

    /// Gives up a call that rings: CANCEL, its 200, the INVITE's 487 and its ACK.
    pub fn give_up(&mut self, call: &Call) -> Result<(), Missed> {
        let invite = &call.invite;
        let mut w = Writer::request("CANCEL", invite.request_uri());
        w.header(Name::Via, invite.header(Name::Via).unwrap_or_default()).number(Name::MaxForwards, 70u32);
        w.header(Name::From, &call.local).header(Name::To, &call.remote).header(Name::CallId, &call.call_id);
        w.fmt(Name::CSeq, format_args!("{} CANCEL", call.seq));
        self.send(&w.finish());
        let last = self.final_answer(call)?;
        self.acknowledge_refusal(invite, &last);
        match last.status() {
            487 => Ok(()),
            other => Err(Missed(format!("a cancelled call ended with {other}, not 487"))),
        }
    }

    /// Waits for a call to us.
    pub fn called(&mut self) -> Result<Message, Missed> {
        let what = format!("a call to {}", self.user);
        self.wait(&what, PATIENCE, is_call)
    }

    /// Waits for a call to one of those who are reached through us: a carrier's subscriber.
    pub fn called_as(&mut self, number: &str) -> Result<Message, Missed> {
        let wanted =
            |m: &Message| is_call(m) && m.request_uri().strip_prefix("sip:").is_some_and(|u| u.starts_with(number));
        self.wait(&format!("a call to {number}"), PATIENCE, wanted)
    }

    /// Waits for a call to us, or to a subscriber of ours, and rings.
    pub fn rings(&mut self, number: Option<&str>) -> Result<Ringing, Missed> {
        let invite = match number {
            Some(number) => self.called_as(number)?,
            None => self.called()?,
        };
        let tag = self.token();
        self.reply(&invite, 180, &tag, None);
        Ok(Ringing { invite, tag })
    }

    /// Whether nobody has called here since the scene began, but for the calls that were waited for.
    pub fn left_alone(&mut self) -> bool {
        self.aside.extend(self.heard.try_iter());
        !self.aside.iter().any(is_call)
    }

    /// Whether our call has got its final answer already.
    pub fn has_answer(&mut self, call: &Call) -> bool {
        self.aside.extend(self.heard.try_iter());
        self.aside.iter().any(|m| is_answer(m, &call.call_id, call.seq) && m.status() >= 200)
    }

    /// Forgets what came and nobody waited for: a new scene begins.
    pub fn forget(&mut self) {
        self.aside.clear();
        self.heard.try_iter().for_each(drop);
    }

    /// Answers a call to us provisionally or refuses it. `tag` is our tag of this call. With a challenge: 407.
    pub fn reply(&mut self, request: &Message, status: u16, tag: &str, challenge: Option<&Challenge>) {
        let mut w = Writer::answer(request, self.server, status, phrase(status), Some(tag));
        if let Some(challenge) = challenge {
            w.fmt(Name::ProxyAuthenticate, format_args!("{challenge}"));
        }
        if status < 300 {
            w.fmt(Name::Contact, format_args!("<sip:{}@{}>", self.user, self.address));
        }
        self.send(&w.finish());
    }

    /// Accepts a call that rings here and talks; the ACK comes by [`Party::acknowledged`].
    pub fn accept(&mut self, ringing: &Ringing, hz: u32) -> Result<Call, Missed> {
        let Ringing { invite, tag } = ringing;
        let voice = Voice::new(hz, &mut self.rng)?;
        let theirs = Session::parse(invite.body()).map_err(|e| Missed(format!("an offer that cannot be read: {e}")))?;
        let origin = Origin::new(self.rng.bits());
        let (ip, port) = (voice.address.ip(), voice.address.port());
        let answer = offer::answer(&theirs, &origin, ip, port, &CODECS, Direction::SendRecv)
            .map_err(|e| Missed(format!("an offer that cannot be answered: {e}")))?;
        let mut w = Writer::answer(invite, self.server, 200, "OK", Some(tag));
        w.fmt(Name::Contact, format_args!("<sip:{}@{}>", self.user, self.address));
        self.send(&w.body("application/sdp", &answer.to_bytes()));
        let mut call = Call {
            call_id: invite.call_id().to_owned(),
            local: format!("{};tag={tag}", header(invite, Name::To)),
            remote: header(invite, Name::From),
            target: invite.contact().map_or_else(String::new, |c| c.uri.raw.to_owned()),
            seq: 0,
            origin,
            invite: invite.clone(),
            voice,
            codec: Codec::Pcma,
            event: None,
            peer: None,
        };
        call.heed(invite.body())?;
        Ok(call)
    }

    /// Begins to hold a call, or to take it up again, by a new offer.
    pub fn hold(&mut self, call: &mut Call, on: bool) -> Result<(), Missed> {
        call.seq += 1;
        call.origin.version += 1;
        let direction = if on { Direction::SendOnly } else { Direction::SendRecv };
        let format = [if call.codec == Codec::Pcmu { Format::PCMU } else { Format::PCMA }, Format::EVENT];
        let (ip, port) = (call.voice.address.ip(), call.voice.address.port());
        let body = offer::offer(&call.origin, ip, port, &format, direction).to_bytes();
        let mut w = self.request(Method::Invite, &call.target, &call.local, &call.remote, &call.call_id, call.seq);
        w.fmt(Name::Contact, format_args!("<sip:{}@{}>", self.user, self.address));
        let bytes = w.body("application/sdp", &body);
        self.send(&bytes);
        call.invite = own(bytes)?;
        if on {
            call.voice.speak(None);
        }
        Ok(())
    }

    /// Waits for the answer to [`Party::hold`].
    pub fn hold_answered(&mut self, call: &mut Call, on: bool) -> Result<(), Missed> {
        let answer = self.final_answer(call)?;
        if answer.status() != 200 {
            let invite = call.invite.clone();
            self.acknowledge_refusal(&invite, &answer);
            return Err(Missed(format!("the new offer of {} was refused: {}", self.user, answer.status())));
        }
        let ack = self.request(Method::Ack, &call.target, &call.local, &call.remote, &call.call_id, call.seq);
        self.send(&ack.finish());
        if !on {
            call.voice.speak(call.peer.map(|peer| (peer, call.codec)));
        }
        Ok(())
    }

    /// Answers the other side's hold or resume: gives what it wants, and speaks only if it listens.
    pub fn held(&mut self, call: &mut Call) -> Result<Direction, Missed> {
        let id = call.call_id.clone();
        let again = self
            .wait("a re-INVITE", PATIENCE, |m| m.is_request() && m.method() == Method::Invite && m.call_id() == id)?;
        let theirs = Session::parse(again.body()).map_err(|e| Missed(format!("an offer that cannot be read: {e}")))?;
        call.origin.version += 1;
        let (ip, port) = (call.voice.address.ip(), call.voice.address.port());
        let answer = offer::answer(&theirs, &call.origin, ip, port, &CODECS, Direction::SendRecv)
            .map_err(|e| Missed(format!("an offer that cannot be answered: {e}")))?;
        let mut w = Writer::answer(&again, self.server, 200, "OK", None);
        w.fmt(Name::Contact, format_args!("<sip:{}@{}>", self.user, self.address));
        self.send(&w.body("application/sdp", &answer.to_bytes()));
        let theirs = offer::direction(&theirs, theirs.audio().unwrap_or(0));
        call.voice.speak(call.peer.filter(|_| theirs.receives()).map(|peer| (peer, call.codec)));
        Ok(theirs)
    }

    /// Hangs up.
    pub fn hang_up(&mut self, mut call: Call) -> Result<(), Missed> {
        let mut proof = None;
        for attempt in 1.. {
            call.seq += 1;
            let mut w = self.request(Method::Bye, &call.target, &call.local, &call.remote, &call.call_id, call.seq);
            if let Some((name, value)) = proof.take() {
                w.header(name, value);
            }
            self.send(&w.finish());
            let answer = self.answer_to(&call.call_id, call.seq)?;
            match (answer.status(), self.password.clone()) {
                (200, _) => return Ok(()),
                (401 | 407, Some(password)) if attempt == 1 => {
                    proof = self.proof(&answer, &password, Method::Bye, &call.target.clone());
                }
                (status, _) => return Err(Missed(format!("the BYE was answered {status}"))),
            }
        }
        unreachable!("the second answer is returned")
    }

    /// Waits for the other side to hang up.
    pub fn hung_up_on(&mut self, call: Call) -> Result<Message, Missed> {
        let id = call.call_id.clone();
        let bye =
            self.wait("the BYE", PATIENCE, |m| m.is_request() && m.method() == Method::Bye && m.call_id() == id)?;
        self.send(&Writer::answer(&bye, self.server, 200, "OK", None).finish());
        Ok(bye)
    }

    /// Waits for a CANCEL of a call that rings here, answers it and the INVITE.
    pub fn called_off(&mut self, ringing: &Ringing) -> Result<Message, Missed> {
        let Ringing { invite, tag } = ringing;
        let id = invite.call_id().to_owned();
        let what = format!("the CANCEL to {}", self.user);
        let cancel =
            self.wait(&what, PATIENCE, |m| m.is_request() && m.method() == Method::Cancel && m.call_id() == id)?;
        self.send(&Writer::answer(&cancel, self.server, 200, "OK", Some(tag)).finish());
        self.reply(invite, 487, tag, None);
        self.wait("the ACK of 487", PATIENCE, |m| m.is_request() && m.method() == Method::Ack && m.call_id() == id)?;
        Ok(cancel)
    }

    /// Waits for the ACK of a final answer that we gave.
    pub fn acknowledged(&mut self, invite: &Message) -> Result<(), Missed> {
        let id = invite.call_id().to_owned();
        self.wait("the ACK", PATIENCE, |m| m.is_request() && m.method() == Method::Ack && m.call_id() == id)?;
        Ok(())
    }

    /// Whether the server asked for our health, and so knows that we live.
    pub fn was_asked(&self) -> bool {
        self.health.load(Ordering::Relaxed) > 0
    }

    /// Random text for tags, branches and Call-IDs.
    pub fn token(&mut self) -> String {
        format!("{:016x}", self.rng.bits())
    }

    /// A nonce of ours.
    pub fn challenge(&mut self, realm: &str) -> Challenge {
        let nonce = self.token();
        Challenge::new(digest::Algorithm::Md5, realm, nonce)
    }

    #[allow(clippy::too_many_arguments)]
    fn request(&mut self, method: Method, uri: &str, from: &str, to: &str, id: &str, seq: u32) -> Writer {
        let branch = self.token();
        let mut w = Writer::request(method.as_str(), uri);
        w.fmt(Name::Via, format_args!("SIP/2.0/UDP {};rport;branch=z9hG4bK{branch}", self.address));
        w.number(Name::MaxForwards, 70u32).header(Name::From, from).header(Name::To, to).header(Name::CallId, id);
        w.fmt(Name::CSeq, format_args!("{seq} {}", method.as_str()));
        w.header(Name::UserAgent, "strowger demo");
        w
    }

    /// The header that answers a challenge.
    fn proof(&mut self, answer: &Message, password: &str, method: Method, uri: &str) -> Option<(Name, String)> {
        let (name, challenge) = Challenge::choose(answer)?;
        let cnonce = self.token();
        let value = digest::answer(&challenge, &self.user, password, method.as_str(), uri, &cnonce, 1, b"");
        Some((name, value))
    }

    /// ACK of a final answer that is no 2xx: the INVITE's own branch (RFC 3261 17.1.1.3).
    fn acknowledge_refusal(&mut self, invite: &Message, answer: &Message) {
        let mut w = Writer::request("ACK", invite.request_uri());
        w.header(Name::Via, invite.header(Name::Via).unwrap_or_default()).number(Name::MaxForwards, 70u32);
        w.header(Name::From, header(answer, Name::From)).header(Name::To, header(answer, Name::To));
        w.header(Name::CallId, answer.call_id()).fmt(Name::CSeq, format_args!("{} ACK", answer.cseq().seq));
        self.send(&w.finish());
    }

    fn answer_to(&mut self, call_id: &str, seq: u32) -> Result<Message, Missed> {
        self.wait("an answer", PATIENCE, |m| is_answer(m, call_id, seq) && m.status() >= 200)
    }

    /// Waits for what the script needs next; the rest is kept aside.
    fn wait(&mut self, what: &str, within: Duration, wanted: impl Fn(&Message) -> bool) -> Result<Message, Missed> {
        if let Some(at) = self.aside.iter().position(&wanted) {
            return Ok(self.aside.remove(at).expect("position found it"));
        }
        let until = Instant::now() + within;
        while let Ok(message) = self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if wanted(&message) {
                return Ok(message);
            }
            self.aside.push_back(message);
        }
        Err(Missed(format!("{} waited {} s for {what} in vain", self.user, within.as_secs())))
    }

    fn send(&self, bytes: &Bytes) {
        // What does not arrive is missed by whoever waits for it, and said.
        self.socket.send_to(bytes, self.server).ok();
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Call {
    /// Presses a key.
    pub fn press(&self, key: char) -> Result<(), Missed> {
        let event = self.event.ok_or_else(|| Missed("no keys were agreed".into()))?;
        self.voice.press(event, key);
        Ok(())
    }

    /// Speaks to where the other side's description says.
    fn heed(&mut self, body: &[u8]) -> Result<(), Missed> {
        let theirs = Session::parse(body).map_err(|e| Missed(format!("an answer that cannot be read: {e}")))?;
        let stream = theirs.audio().ok_or_else(|| Missed("no sound was agreed".into()))?;
        let codecs = theirs.media[stream].codecs();
        let spoken = codecs.iter().map(Format::codec).find(|c| matches!(c, Codec::Pcma | Codec::Pcmu));
        self.codec = spoken.ok_or_else(|| Missed("no codec in common".into()))?;
        self.event = theirs.media[stream].event_payload();
        self.peer = theirs.remote(stream);
        self.voice.speak(self.peer.map(|peer| (peer, self.codec)));
        Ok(())
    }
}

/// What a party speaks.
const CODECS: [Format; 3] = [Format::PCMA, Format::PCMU, Format::EVENT];

/// The listening side of a party.
struct Ear {
    socket: Arc<UdpSocket>,
    over: Arc<AtomicBool>,
    health: Arc<AtomicU32>,
    tell: Sender<Message>,
}

impl Ear {
    fn run(self) {
        let mut buffer = vec![0; 65_536];
        // The server repeats what was not answered in time; the script wants to hear it once.
        let mut last: VecDeque<Bytes> = VecDeque::with_capacity(16);
        while !self.over.load(Ordering::Relaxed) {
            let Ok((n, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let bytes = Bytes::copy_from_slice(&buffer[..n]);
            let Ok(message) = Message::parse(bytes.clone()) else { continue };
            if message.is_request() && message.method() == Method::Options {
                self.health.fetch_add(1, Ordering::Relaxed);
                let answer = Writer::answer(&message, from, 200, "OK", Some("demo")).finish();
                self.socket.send_to(&answer, from).ok();
                continue;
            }
            if last.contains(&bytes) {
                continue;
            }
            if last.len() == 16 {
                last.pop_front();
            }
            last.push_back(bytes);
            if self.tell.send(message).is_err() {
                return;
            }
        }
    }
}

/// A request for a new call.
fn is_call(message: &Message) -> bool {
    message.is_request() && message.method() == Method::Invite && message.to_tag().is_none()
}

fn is_answer(message: &Message, call_id: &str, seq: u32) -> bool {
    !message.is_request()
        && message.call_id() == call_id
        && message.cseq().seq == seq
        && message.status() > 100
        && message.method() != Method::Cancel
}

/// A message that we wrote, read back.
fn own(bytes: Bytes) -> Result<Message, Missed> {
    Message::parse(bytes).map_err(|_| Missed("the demo wrote a message that cannot be read".into()))
}

fn header(message: &Message, name: Name) -> String {
    text(message.header(name).unwrap_or_default())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
