//! Transactions: RFC 3261 section 17 with the corrections of RFC 6026, as one value that is told the time.
//!
//! ```text
//!            receive(flow, message)                 request / cancel / respond
//!   wire ----------------------------> [ Layer ] <------------------------------ user (dialogs, calls, registrar)
//!        <---------------------------- slots,    ------------------------------>
//!            Output::Send              lookup,      Output::Request, Response, Cancel, Ack, Timeout, ...
//!                                      deadlines
//!                                         |
//!            server_invite, server, client_invite, client: pure machines, (state, input) -> (state, acts)
//! ```
//!
//! - The layer absorbs and answers retransmissions, sends the 100, acknowledges refusals, answers CANCEL, and gives up.
//! - It does not repeat a 2xx, nor acknowledge one: that is the dialog's work (`dialog::invite`). It knows no dialogs, no
//!   authentication, no next hops, and does not look for merged requests (482): those are its user's.
//! - An answer goes back on the flow that its request came on, to the very address and port that it came from, as if every request had
//!   `rport` (RFC 3261 18.2.2, RFC 3581): what stands in a Via is what a stranger says, where the packet came from is a fact.
//! - A message that matches a transaction but comes from another IP address than the transaction's peer is not of that peer: a CANCEL gets
//!   481, everything else is dropped and counted.
//!
//! Tables are bounded. A full one answers 503 with Retry-After and holds nothing; requests inside a dialog may use a quarter more, so that calls can
//! still be ended.

use std::mem;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashTable;
use sha2::{Digest, Sha256};
use slotmap::{Key, KeyData, SlotMap, new_key_type};

use crate::base::{Instant, Rng, Timers};
use crate::sip::{Flow, Message, Method, Name, NameAddr, Transport, Writer, phrase};

pub mod client;
pub mod client_invite;
pub mod server;
pub mod server_invite;
pub mod timing;

pub use timing::Timing;
use timing::{Pace, earlier};

/// The most server transactions held at once, lingering ones included. At 32 s each this is 4,000 calls a second.
pub const SERVERS: usize = 400_000;
/// The most client transactions held at once, lingering ones included.
pub const CLIENTS: usize = 400_000;
/// What Retry-After says when a table is full, in seconds.
pub const RETRY_AFTER: u32 = 5;
/// A lookup key longer than this is replaced by its digest: nobody makes us remember a branch of 60 kB for 32 s.
const LONG_ID: usize = 256;
/// What every branch of RFC 3261 begins with.
const MAGIC: &str = "z9hG4bK";
/// A deadline that never comes.
const NEVER: Instant = Instant::from_micros(u64::MAX);

new_key_type! {
    /// A server transaction: a request that came in.
    pub struct ServerKey;
    /// A client transaction: a request that we send.
    pub struct ClientKey;
}

/// How much the layer holds, and when it says 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Server transactions, lingering ones included.
    pub servers: usize,
    /// Client transactions, lingering ones included.
    pub clients: usize,
    /// What Retry-After says when full, in seconds.
    pub retry_after: u32,
    /// After how long an INVITE that the user has not answered gets its 100. Zero: at once, before the user sees the INVITE.
    pub trying_after: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { servers: SERVERS, clients: CLIENTS, retry_after: RETRY_AFTER, trying_after: timing::TRYING_AFTER }
    }
}

/// Why a request could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// Nobody listens there: ICMP port unreachable, a refused connection.
    Refused,
    /// No way there: ICMP net or host unreachable, a connection that cannot be made in time, a message too long to be sent.
    Unreachable,
    /// The connection was closed or reset.
    Closed,
    /// Too many client transactions.
    Full,
}

/// In words: a request had no answer in time.
pub const NO_ANSWER: &str = "no answer";

impl Failure {
    /// In words, for records, readers and the log.
    pub fn words(self, transport: Transport) -> &'static str {
        match self {
            Failure::Refused if transport.reliable() => "nobody listens there (connection refused)",
            Failure::Refused => "nobody listens there (ICMP)",
            Failure::Unreachable => "no way there",
            Failure::Closed => "the connection was closed",
            Failure::Full => "too many requests under way",
        }
    }
}

/// What the layer has to say. `U` is the user's token.
#[derive(Clone, Debug)]
pub enum Output<U> {
    /// Send these bytes.
    Send {
        /// By this path.
        flow: Flow,
        /// One message.
        bytes: Bytes,
    },
    /// A new request, neither ACK nor CANCEL. To be answered with [`Layer::respond`].
    Request {
        /// Its transaction.
        key: ServerKey,
        /// Where it came from.
        flow: Flow,
        /// The request.
        msg: Message,
    },
    /// A CANCEL has met its unanswered INVITE, and got its 200 from the layer. The user is to answer the INVITE with 487.
    Cancel {
        /// The INVITE's transaction.
        invite: ServerKey,
        /// The INVITE's user.
        user: Option<U>,
        /// The CANCEL.
        msg: Message,
    },
    /// The ACK of a 2xx (or of nothing we know): for the dialog.
    Ack {
        /// Where it came from.
        flow: Flow,
        /// The ACK.
        msg: Message,
    },
    /// The ACK of a refusal.
    Acked {
        /// The INVITE's transaction.
        key: ServerKey,
        /// Its user.
        user: Option<U>,
    },
    /// An answer: provisional or final. The 2xx of an INVITE come again with each retransmission and each branch of a fork, for 64 T1.
    Response {
        /// The request's transaction.
        key: ClientKey,
        /// Its user.
        user: U,
        /// The answer.
        msg: Message,
    },
    /// An answer that belongs to no transaction. To be counted; who wants may ACK and BYE a 2xx of an INVITE.
    Stray {
        /// Where it came from.
        flow: Flow,
        /// The answer.
        msg: Message,
    },
    /// Nobody answered: Timer B or F, or 64 T1 after a CANCEL. To be treated as 408.
    Timeout {
        /// The request's transaction; it is over.
        key: ClientKey,
        /// Its user.
        user: U,
    },
    /// The transport could not deliver. To be treated as 503.
    Failed {
        /// The request's transaction; it is over.
        key: ClientKey,
        /// Its user.
        user: U,
        /// Why.
        error: Failure,
    },
    /// Nobody acknowledged a refusal: Timer H.
    NoAck {
        /// The INVITE's transaction; it is over.
        key: ServerKey,
        /// Its user.
        user: Option<U>,
    },
    /// The connection that an unanswered request came on is gone. An INVITE's transaction goes on until the user has answered it.
    Lost {
        /// The request's transaction.
        key: ServerKey,
        /// Its user.
        user: Option<U>,
    },
}

/// What was not delivered to anybody, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Requests refused with 503 because the table was full.
    pub full: u64,
    /// Answers without a transaction.
    pub stray: u64,
    /// Messages that matched a transaction of another peer.
    pub foreign: u64,
    /// CANCELs without an INVITE (481).
    pub lone_cancel: u64,
}

/// All transactions of an engine.
#[derive(Debug)]
pub struct Layer<U> {
    servers: SlotMap<ServerKey, Server<U>>,
    clients: SlotMap<ClientKey, Client<U>>,
    /// Server transactions by branch, sent-by and method. Keyed, because what is hashed comes from the network.
    table: HashTable<ServerKey>,
    hasher: ahash::RandomState,
    timers: Timers<Who>,
    /// The request that came last: most are answered or dismissed before anything else happens, so its first deadline is armed only then.
    fresh: Option<ServerKey>,
    rng: Rng,
    timing: Timing,
    limits: Limits,
    engine: u16,
    counts: Counts,
    /// Room for the lookup key of the request at hand.
    scratch: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Server(ServerKey),
    Client(ClientKey),
}

#[derive(Debug)]
struct Server<U> {
    /// What a retransmission, an ACK and a CANCEL are recognised by.
    id: Box<[u8]>,
    hash: u64,
    /// The request's To tag, if it is matched as RFC 2543 has it.
    old: Option<Box<str>>,
    flow: Flow,
    user: Option<U>,
    state: ServerState,
    /// Until the final answer; apart, since what lingers for 32 s after it is most of what there is.
    request: Option<Box<Message>>,
    /// The To tag of the final answer, for late CANCELs.
    tag: Option<Box<str>>,
    cancelled: bool,
    armed: Instant,
}

#[derive(Debug)]
enum ServerState {
    Invite(server_invite::State),
    Other(server::State),
}

#[derive(Debug)]
struct Client<U> {
    secret: u64,
    armed: Instant,
    /// None while the slot is only reserved.
    sent: Option<Sent<U>>,
}

#[derive(Debug)]
struct Sent<U> {
    flow: Flow,
    user: U,
    method: Method,
    state: ClientState,
    /// The transaction of the CANCEL, which shares the INVITE's branch.
    cancel: Option<Box<client::State>>,
}

#[derive(Debug)]
enum ClientState {
    Invite(client_invite::State),
    Other(client::State),
}

/// What happens to a server transaction.
enum ToServer {
    Again,
    Ack(Message),
    Respond(u16, Bytes),
    Timer,
    Broken,
}

/// What happens to a client transaction.
enum ToClient {
    Answer(Message),
    Cancel(client_invite::Wish),
    Timer,
    Broken(Failure),
}

impl<U: Copy> Layer<U> {
    /// An empty layer. `engine` goes into every branch, so that of several engines the owner of an answer can be found.
    pub fn new(rng: &mut Rng, engine: u16, timing: Timing, limits: Limits) -> Layer<U> {
        Layer {
            servers: SlotMap::with_key(),
            clients: SlotMap::with_key(),
            table: HashTable::new(),
            hasher: rng.hasher(),
            timers: Timers::new(),
            fresh: None,
            rng: rng.fork(),
            timing,
            limits,
            engine,
            counts: Counts::default(),
            scratch: Vec::new(),
        }
    }

    /// A parsed message from the wire.
    pub fn receive(&mut self, now: Instant, flow: Flow, msg: Message, out: &mut Vec<Output<U>>) {
        self.arm_fresh();
        if !msg.is_request() {
            self.response(now, flow, msg, out);
        } else {
            match msg.method() {
                Method::Ack => self.ack(now, flow, msg, out),
                Method::Cancel => self.cancel_in(flow, msg, out),
                _ => self.request_in(now, flow, msg, out),
            }
        }
        self.prune();
    }

    /// Reserves a client transaction and mints its branch: `z9hG4bK`, then engine number, slot and 64 random bits in base 32, so that an answer
    /// finds its slot without a hash table. Follow up with [`Layer::request`] or [`Layer::release`]. When the table is full the key
    /// is null, and `request` will report [`Failure::Full`].
    pub fn branch(&mut self) -> (ClientKey, String) {
        if self.clients.len() >= self.limits.clients {
            return (ClientKey::null(), String::from(MAGIC));
        }
        let secret = self.rng.bits();
        let key = self.clients.insert(Client { secret, armed: NEVER, sent: None });
        (key, encode(self.engine, key.data().as_ffi(), secret))
    }

    /// Gives back a branch that was not used.
    pub fn release(&mut self, key: ClientKey) {
        if self.clients.get(key).is_some_and(|slot| slot.sent.is_none()) {
            self.clients.remove(key);
        }
    }

    /// Sends a request that we wrote, whose top Via has the branch of `key`, alone in its line. INVITE or not, but neither ACK nor CANCEL.
    #[allow(clippy::too_many_arguments)]
    pub fn request(
        &mut self,
        now: Instant,
        key: ClientKey,
        flow: Flow,
        bytes: Bytes,
        method: Method,
        user: U,
        out: &mut Vec<Output<U>>,
    ) {
        let pace = self.pace(flow);
        let Some(slot) = self.clients.get_mut(key) else {
            out.push(Output::Failed { key, user, error: Failure::Full });
            return;
        };
        // a branch is good for one request
        if slot.sent.is_some() {
            return;
        }
        out.push(Output::Send { flow, bytes: bytes.clone() });
        let state = match method {
            Method::Invite => ClientState::Invite(client_invite::State::start(now, pace, bytes)),
            _ => ClientState::Other(client::State::start(now, pace, bytes)),
        };
        slot.sent = Some(Sent { flow, user, method, state, cancel: None });
        self.settle_client(key);
        self.prune();
    }

    /// Takes an INVITE back. The CANCEL waits for the first provisional answer (RFC 3261 9.1); after a final answer there is none. `reason`
    /// is the value of its Reason header (RFC 3326). If no final answer comes within 64 T1: [`Output::Timeout`].
    pub fn cancel(&mut self, now: Instant, key: ClientKey, reason: Option<&str>, out: &mut Vec<Output<U>>) {
        let wish = client_invite::Wish(reason.map(Box::from));
        self.drive_client(now, key, ToClient::Cancel(wish), out);
        self.prune();
    }

    /// Answers a request: any number of 1xx, then one final. What comes after the final is not sent, except the same 2xx again.
    pub fn respond(&mut self, now: Instant, key: ServerKey, status: u16, bytes: Bytes, out: &mut Vec<Output<U>>) {
        self.drive_server(now, key, ToServer::Respond(status, bytes), out);
        self.prune();
    }

    /// Answers a request without remembering it (RFC 3261 8.2.7): for challenges and refusals of strangers, who will get the same answer when they
    /// ask again. The ACK of such an answer comes as [`Output::Ack`].
    pub fn dismiss(&mut self, key: ServerKey, bytes: Bytes, out: &mut Vec<Output<U>>) {
        if let Some(slot) = self.servers.get(key) {
            out.push(Output::Send { flow: slot.flow, bytes });
            self.forget(key);
            self.prune();
        }
    }

    /// The transport could not deliver a request of ours.
    pub fn failed(&mut self, now: Instant, key: ClientKey, error: Failure, out: &mut Vec<Output<U>>) {
        self.drive_client(now, key, ToClient::Broken(error), out);
        self.prune();
    }

    /// A datagram bounced, or a connection is gone. With `conn` 0 everything on its way to `flow.remote` has failed, else what uses that
    /// connection. An INVITE that was provisionally answered goes on. Walks all transactions.
    pub fn lost(&mut self, now: Instant, flow: Flow, error: Failure, out: &mut Vec<Output<U>>) {
        let hit = |f: Flow| {
            f.transport == flow.transport && f.remote == flow.remote && (flow.conn == 0 || f.conn == flow.conn)
        };
        let clients: Vec<ClientKey> =
            self.clients.iter().filter(|(_, c)| c.sent.as_ref().is_some_and(|s| hit(s.flow))).map(|(k, _)| k).collect();
        for key in clients {
            if let Some(sent) = self.clients.get_mut(key).and_then(|slot| slot.sent.as_mut()) {
                // what is still to be said goes over a new connection
                sent.flow.conn = 0;
            }
            self.drive_client(now, key, ToClient::Broken(error), out);
        }
        // a datagram that bounced may have been any; a connection is where the peer was
        if flow.conn != 0 {
            let servers: Vec<ServerKey> = self.servers.iter().filter(|(_, s)| hit(s.flow)).map(|(k, _)| k).collect();
            for key in servers {
                self.drive_server(now, key, ToServer::Broken, out);
            }
        }
        self.prune();
    }

    /// A deadline has passed.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output<U>>) {
        self.arm_fresh();
        while let Some(who) = self.timers.pop(now) {
            match who {
                Who::Server(key) => {
                    let Some(slot) = self.servers.get_mut(key).filter(|slot| slot.armed <= now) else { continue };
                    slot.armed = NEVER;
                    self.drive_server(now, key, ToServer::Timer, out);
                }
                Who::Client(key) => {
                    let Some(slot) = self.clients.get_mut(key).filter(|slot| slot.armed <= now) else { continue };
                    slot.armed = NEVER;
                    self.drive_client(now, key, ToClient::Timer, out);
                }
            }
        }
        self.prune();
    }

    /// Sets the user's token of a request.
    pub fn set_user(&mut self, key: ServerKey, user: U) {
        if let Some(slot) = self.servers.get_mut(key) {
            slot.user = Some(user);
        }
    }

    /// When [`Layer::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let fresh = self.fresh.and_then(|key| self.servers.get(key)).and_then(|slot| slot.state.deadline());
        earlier(self.timers.deadline(), fresh)
    }

    /// The user's token of a request.
    pub fn user(&self, key: ServerKey) -> Option<&U> {
        self.servers.get(key)?.user.as_ref()
    }

    /// The request of a transaction that has no final answer yet.
    pub fn request_of(&self, key: ServerKey) -> Option<&Message> {
        self.servers.get(key)?.request.as_deref()
    }

    /// The flow that a request's answers go by.
    pub fn flow_of(&self, key: ServerKey) -> Option<Flow> {
        self.servers.get(key).map(|slot| slot.flow)
    }

    /// The path that a request of ours went by.
    pub fn path_of(&self, key: ClientKey) -> Option<Flow> {
        self.clients.get(key).and_then(|slot| slot.sent.as_ref()).map(|sent| sent.flow)
    }

    /// Whether a request still waits for its final answer.
    pub fn is_open(&self, key: ServerKey) -> bool {
        self.servers.get(key).is_some_and(|slot| slot.state.is_open())
    }

    /// Whether a request was refused; `None` if its transaction is over.
    pub fn is_refused(&self, key: ServerKey) -> Option<bool> {
        self.servers.get(key).map(|slot| slot.state.is_refused())
    }

    /// How many server and client transactions there are, lingering and reserved ones included.
    pub fn len(&self) -> (usize, usize) {
        (self.servers.len(), self.clients.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.clients.is_empty()
    }

    /// What was not delivered to anybody.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn response(&mut self, now: Instant, flow: Flow, msg: Message, out: &mut Vec<Output<U>>) {
        let found = msg.branch().and_then(|branch| decode(branch, self.engine)).and_then(|(slot, secret)| {
            let key = ClientKey::from(KeyData::from_ffi(slot));
            let client = self.clients.get(key).filter(|c| c.secret == secret && key.data().as_ffi() == slot)?;
            let method = client.sent.as_ref()?.method;
            (method == msg.method() || (method == Method::Invite && msg.method() == Method::Cancel)).then_some(key)
        });
        match found {
            Some(key) => self.drive_client(now, key, ToClient::Answer(msg), out),
            None => {
                self.counts.stray += 1;
                out.push(Output::Stray { flow, msg });
            }
        }
    }

    fn ack(&mut self, now: Instant, flow: Flow, msg: Message, out: &mut Vec<Output<U>>) {
        match self.find(&msg) {
            Some(key) if !self.is_of_peer(key, flow) => self.counts.foreign += 1,
            Some(key) => self.drive_server(now, key, ToServer::Ack(msg), out),
            None => out.push(Output::Ack { flow, msg }),
        }
    }

    fn cancel_in(&mut self, flow: Flow, msg: Message, out: &mut Vec<Output<U>>) {
        let invite = self.find(&msg).filter(|key| self.is_of_peer(*key, flow));
        // the same tag for a CANCEL that comes again
        let minted = format!("{:016x}", self.hasher.hash_one((&self.scratch[..], "tag")));
        let Some((key, slot)) = invite.and_then(|key| Some((key, self.servers.get_mut(key)?))) else {
            self.counts.lone_cancel += 1;
            let bytes = Writer::answer(&msg, flow.remote, 481, phrase(481), Some(&minted)).finish();
            out.push(Output::Send { flow, bytes });
            return;
        };
        let tag = slot.tag.as_deref().map(String::from).or_else(|| to_tag(slot.state.answer()?)).unwrap_or(minted);
        let bytes = Writer::answer(&msg, flow.remote, 200, phrase(200), Some(&tag)).finish();
        out.push(Output::Send { flow, bytes });
        // after the final answer, or a second time, it has no effect
        if slot.state.is_open() && !mem::replace(&mut slot.cancelled, true) {
            out.push(Output::Cancel { invite: key, user: slot.user, msg });
        }
    }

    fn request_in(&mut self, now: Instant, flow: Flow, msg: Message, out: &mut Vec<Output<U>>) {
        if let Some(key) = self.find(&msg) {
            if !self.is_of_peer(key, flow) {
                self.counts.foreign += 1;
                return;
            }
            if let Some(slot) = self.servers.get_mut(key) {
                // a peer behind NAT whose port moved, or that has connected again
                slot.flow = flow;
            }
            self.drive_server(now, key, ToServer::Again, out);
            return;
        }
        let limit = match msg.to_tag() {
            None => self.limits.servers,
            Some(_) => self.limits.servers.saturating_add(self.limits.servers / 4),
        };
        let hash = self.hasher.hash_one(&self.scratch[..]);
        if self.servers.len() >= limit {
            self.counts.full += 1;
            let mut writer = Writer::answer(&msg, flow.remote, 503, phrase(503), Some(&format!("{hash:016x}")));
            writer.fmt(Name::RetryAfter, format_args!("{}", self.limits.retry_after));
            out.push(Output::Send { flow, bytes: writer.finish() });
            return;
        }
        let state = match msg.method() {
            Method::Invite => ServerState::Invite(server_invite::State::start(now + self.limits.trying_after)),
            _ => ServerState::Other(server::State::start(now, self.pace(flow))),
        };
        let key = self.servers.insert(Server {
            id: Box::from(&self.scratch[..]),
            hash,
            old: (!is_new(msg.branch())).then(|| Box::from(msg.to_tag().unwrap_or_default())),
            flow,
            user: None,
            state,
            request: Some(Box::new(msg.clone())),
            tag: None,
            cancelled: false,
            armed: NEVER,
        });
        self.table.insert_unique(hash, key, |key| self.servers.get(*key).map_or(0, |slot| slot.hash));
        if self.limits.trying_after.is_zero() && msg.method() == Method::Invite {
            self.drive_server(now, key, ToServer::Timer, out);
        } else {
            self.fresh = Some(key);
        }
        out.push(Output::Request { key, flow, msg });
    }

    /// The server transaction that a request belongs to (RFC 3261 17.2.3). An ACK and a CANCEL find their INVITE. Leaves the request's lookup
    /// key in `scratch`.
    fn find(&mut self, msg: &Message) -> Option<ServerKey> {
        identify(msg, &mut self.scratch);
        let hash = self.hasher.hash_one(&self.scratch[..]);
        let (servers, id) = (&self.servers, &self.scratch[..]);
        let is_it = |key: &ServerKey| {
            let Some(slot) = servers.get(*key) else { return false };
            &slot.id[..] == id
                && match (&slot.old, msg.method()) {
                    (None, _) => true,
                    // the ACK has the tag of the answer
                    (Some(asked), Method::Ack) => {
                        let answered = slot.tag.as_deref().map(String::from).or_else(|| to_tag(slot.state.answer()?));
                        let tag = msg.to_tag().unwrap_or_default();
                        **asked == *tag || answered.is_some_and(|answered| answered == tag)
                    }
                    (Some(asked), _) => **asked == *msg.to_tag().unwrap_or_default(),
                }
        };
        self.table.find(hash, is_it).copied()
    }

    fn is_of_peer(&self, key: ServerKey, flow: Flow) -> bool {
        self.servers.get(key).is_some_and(|slot| slot.flow.remote.ip() == flow.remote.ip())
    }

    fn drive_server(&mut self, now: Instant, key: ServerKey, event: ToServer, out: &mut Vec<Output<U>>) {
        let timing = self.timing;
        let Some(slot) = self.servers.get_mut(key) else { return };
        let pace = timing.over(slot.flow.transport.reliable());
        match &mut slot.state {
            ServerState::Invite(state) => {
                use server_invite::{Act, Input, State};
                let mut ack = None;
                let input = match event {
                    ToServer::Again => Input::Invite,
                    ToServer::Ack(msg) => {
                        ack = Some(msg);
                        Input::Ack
                    }
                    ToServer::Respond(100..=199, bytes) => Input::Provisional(bytes),
                    ToServer::Respond(status @ 200..=299, bytes) => {
                        if state.is_open() {
                            slot.tag = to_tag(&bytes).map(String::into_boxed_str);
                        }
                        Input::Success(status, bytes)
                    }
                    ToServer::Respond(_, bytes) => Input::Failure(bytes),
                    ToServer::Timer => Input::Timer,
                    ToServer::Broken => Input::Broken,
                };
                let mut next = Some(input);
                while let Some(input) = next.take() {
                    let (after, acts) = mem::replace(state, State::Terminated).handle(now, pace, input);
                    *state = after;
                    for act in acts {
                        match act {
                            Act::Send(bytes) => out.push(Output::Send { flow: slot.flow, bytes }),
                            Act::Trying => {
                                next = slot.request.as_ref().map(|invite| {
                                    let answer = Writer::answer(invite, slot.flow.remote, 100, phrase(100), None);
                                    Input::Provisional(answer.finish())
                                });
                            }
                            Act::Acked => out.push(Output::Acked { key, user: slot.user }),
                            Act::Deliver => {
                                if let Some(msg) = ack.take() {
                                    out.push(Output::Ack { flow: slot.flow, msg });
                                }
                            }
                            Act::NoAck => out.push(Output::NoAck { key, user: slot.user }),
                            Act::Lost => out.push(Output::Lost { key, user: slot.user }),
                        }
                    }
                }
            }
            ServerState::Other(state) => {
                use server::{Act, Input, State};
                let input = match event {
                    ToServer::Again => Input::Request,
                    // an ACK only ever finds an INVITE
                    ToServer::Ack(_) => return,
                    ToServer::Respond(100..=199, bytes) => Input::Provisional(bytes),
                    ToServer::Respond(_, bytes) => Input::Final(bytes),
                    ToServer::Timer => Input::Timer,
                    ToServer::Broken => Input::Broken,
                };
                let (after, acts) = mem::replace(state, State::Terminated).handle(now, pace, input);
                *state = after;
                for act in acts {
                    match act {
                        Act::Send(bytes) => out.push(Output::Send { flow: slot.flow, bytes }),
                        Act::Lost => out.push(Output::Lost { key, user: slot.user }),
                    }
                }
            }
        }
        self.settle_server(key);
    }

    fn drive_client(&mut self, now: Instant, key: ClientKey, event: ToClient, out: &mut Vec<Output<U>>) {
        let timing = self.timing;
        let Some(sent) = self.clients.get_mut(key).and_then(|slot| slot.sent.as_mut()) else { return };
        let (flow, user) = (sent.flow, sent.user);
        let pace = timing.over(flow.transport.reliable());
        // the CANCEL's own transaction: whatever comes of it, the INVITE's final answer is what counts
        if let Some(cancel) = &mut sent.cancel {
            use client::{Act, Input, State};
            let input = match &event {
                ToClient::Answer(msg) if msg.method() == Method::Cancel && msg.status() < 200 => {
                    Some(Input::Provisional)
                }
                ToClient::Answer(msg) if msg.method() == Method::Cancel => Some(Input::Final),
                ToClient::Answer(_) | ToClient::Cancel(_) => None,
                ToClient::Timer => Some(Input::Timer),
                ToClient::Broken(_) => Some(Input::Broken),
            };
            if let Some(input) = input {
                let (after, acts) = mem::replace(&mut **cancel, State::Terminated).handle(now, pace, input);
                **cancel = after;
                for act in acts {
                    match act {
                        Act::Send(bytes) => out.push(Output::Send { flow, bytes }),
                        Act::Deliver | Act::Timeout | Act::Failed => {}
                    }
                }
            }
        }
        let mut error = Failure::Closed;
        let mut answer = None;
        match &mut sent.state {
            ClientState::Invite(state) => {
                use client_invite::{Act, Input, State};
                let input = match event {
                    ToClient::Answer(msg) if msg.method() == Method::Cancel => {
                        self.settle_client(key);
                        return;
                    }
                    ToClient::Answer(msg) => match answer.insert(msg) {
                        msg if msg.status() < 200 => Input::Provisional,
                        msg if msg.status() < 300 => Input::Success,
                        msg => Input::Failure(msg),
                    },
                    ToClient::Cancel(wish) => Input::Cancel(wish),
                    ToClient::Timer => Input::Timer,
                    ToClient::Broken(why) => {
                        error = why;
                        Input::Broken
                    }
                };
                let (after, acts) = mem::replace(state, State::Terminated).handle(now, pace, input);
                *state = after;
                for act in acts {
                    match act {
                        Act::Send(bytes) => out.push(Output::Send { flow, bytes }),
                        Act::Cancel(bytes) => {
                            out.push(Output::Send { flow, bytes: bytes.clone() });
                            sent.cancel = Some(Box::new(client::State::start(now, pace, bytes)));
                        }
                        Act::Deliver => out.extend(answer.take().map(|msg| Output::Response { key, user, msg })),
                        Act::Stray => {
                            self.counts.stray += 1;
                            out.extend(answer.take().map(|msg| Output::Stray { flow, msg }));
                        }
                        Act::Timeout => out.push(Output::Timeout { key, user }),
                        Act::Failed => out.push(Output::Failed { key, user, error }),
                    }
                }
            }
            ClientState::Other(state) => {
                use client::{Act, Input, State};
                let input = match event {
                    ToClient::Answer(msg) => {
                        let status = answer.insert(msg).status();
                        if status < 200 { Input::Provisional } else { Input::Final }
                    }
                    // only an INVITE can be cancelled (RFC 3261 9.1)
                    ToClient::Cancel(_) => return,
                    ToClient::Timer => Input::Timer,
                    ToClient::Broken(why) => {
                        error = why;
                        Input::Broken
                    }
                };
                let (after, acts) = mem::replace(state, State::Terminated).handle(now, pace, input);
                *state = after;
                for act in acts {
                    match act {
                        Act::Send(bytes) => out.push(Output::Send { flow, bytes }),
                        Act::Deliver => out.extend(answer.take().map(|msg| Output::Response { key, user, msg })),
                        Act::Timeout => out.push(Output::Timeout { key, user }),
                        Act::Failed => out.push(Output::Failed { key, user, error }),
                    }
                }
            }
        }
        self.settle_client(key);
    }

    /// Lets go of what a server transaction no longer needs, and arms its next deadline.
    fn settle_server(&mut self, key: ServerKey) {
        let Some(slot) = self.servers.get_mut(key) else { return };
        if slot.state.is_over() {
            self.forget(key);
            return;
        }
        if !slot.state.is_open() {
            slot.request = None;
        }
        if let Some(at) = slot.state.deadline().filter(|at| *at < slot.armed) {
            slot.armed = at;
            self.timers.arm(at, Who::Server(key));
        }
    }

    /// Drops a client transaction that is over, or arms its next deadline.
    fn settle_client(&mut self, key: ClientKey) {
        let Some(slot) = self.clients.get_mut(key) else { return };
        let Some(sent) = &mut slot.sent else { return };
        if sent.cancel.as_ref().is_some_and(|cancel| cancel.is_over()) {
            sent.cancel = None;
        }
        if sent.is_over() {
            self.clients.remove(key);
            return;
        }
        if let Some(at) = sent.deadline().filter(|at| *at < slot.armed) {
            slot.armed = at;
            self.timers.arm(at, Who::Client(key));
        }
    }

    fn arm_fresh(&mut self) {
        if let Some(key) = self.fresh.take() {
            self.settle_server(key);
        }
    }

    fn forget(&mut self, key: ServerKey) {
        if let Some(slot) = self.servers.remove(key)
            && let Ok(entry) = self.table.find_entry(slot.hash, |other| *other == key)
        {
            entry.remove();
        }
    }

    /// Takes deadlines of states that were left from the top of the heap, so that nobody wakes up for them.
    fn prune(&mut self) {
        while let Some((at, who)) = self.timers.peek() {
            let (armed, due) = match who {
                Who::Server(key) => match self.servers.get_mut(key) {
                    Some(slot) => (&mut slot.armed, slot.state.deadline()),
                    None => (&mut NEVER.clone(), None),
                },
                Who::Client(key) => match self.clients.get_mut(key) {
                    Some(slot) => (&mut slot.armed, slot.sent.as_ref().and_then(Sent::deadline)),
                    None => (&mut NEVER.clone(), None),
                },
            };
            if *armed == at && due.is_some_and(|due| due <= at) {
                return;
            }
            self.timers.pop(at);
            if *armed == at {
                *armed = due.unwrap_or(NEVER);
                if let Some(due) = due {
                    self.timers.arm(due, who);
                }
            }
        }
    }

    fn pace(&self, flow: Flow) -> Pace {
        self.timing.over(flow.transport.reliable())
    }
}

impl ServerState {
    fn deadline(&self) -> Option<Instant> {
        match self {
            ServerState::Invite(state) => state.deadline(),
            ServerState::Other(state) => state.deadline(),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            ServerState::Invite(state) => state.is_over(),
            ServerState::Other(state) => state.is_over(),
        }
    }

    fn is_open(&self) -> bool {
        match self {
            ServerState::Invite(state) => state.is_open(),
            ServerState::Other(state) => state.is_open(),
        }
    }

    fn is_refused(&self) -> bool {
        match self {
            ServerState::Invite(state) => state.is_refused(),
            // only INVITEs are told apart so
            ServerState::Other(_) => false,
        }
    }

    fn answer(&self) -> Option<&Bytes> {
        match self {
            ServerState::Invite(state) => state.answer(),
            // only an INVITE is cancelled or acknowledged
            ServerState::Other(_) => None,
        }
    }
}

impl<U> Sent<U> {
    fn deadline(&self) -> Option<Instant> {
        let own = match &self.state {
            ClientState::Invite(state) => state.deadline(),
            ClientState::Other(state) => state.deadline(),
        };
        earlier(own, self.cancel.as_ref().and_then(|cancel| cancel.deadline()))
    }

    fn is_over(&self) -> bool {
        let own = match &self.state {
            ClientState::Invite(state) => state.is_over(),
            ClientState::Other(state) => state.is_over(),
        };
        own && self.cancel.is_none()
    }
}

/// Whether a branch is one of RFC 3261: the magic cookie and something behind it.
fn is_new(branch: Option<&str>) -> bool {
    branch.is_some_and(|b| b.len() > MAGIC.len() && b.starts_with(MAGIC))
}

/// Writes what a request is recognised by into `id` (RFC 3261 17.2.3). ACK and CANCEL get the key of their INVITE.
fn identify(msg: &Message, id: &mut Vec<u8>) {
    id.clear();
    let method = match msg.method() {
        Method::Ack | Method::Cancel => Method::Invite.as_str(),
        _ => msg.method_text(),
    };
    let via = msg.via();
    match msg.branch() {
        Some(branch) if is_new(Some(branch)) => {
            id.extend_from_slice(branch.as_bytes());
            id.push(0);
            id.extend(via.host.bytes().map(|c| c.to_ascii_lowercase()));
            id.extend_from_slice(&via.port.unwrap_or(0).to_be_bytes());
            id.extend_from_slice(method.as_bytes());
        }
        // RFC 2543: all that identifies the request. The To tag is compared apart, since an ACK has that of the answer.
        Some(_) | None => {
            let seq = msg.cseq().seq.to_be_bytes();
            let (call, tag) = (msg.call_id().as_bytes(), msg.from_tag().unwrap_or_default().as_bytes());
            let top = msg.raw_values(Name::Via).next().unwrap_or_default();
            for part in [&b"2543"[..], method.as_bytes(), &seq, call, tag, msg.request_uri().as_bytes(), top] {
                id.extend_from_slice(part);
                id.push(0);
            }
        }
    }
    if id.len() > LONG_ID {
        let digest = Sha256::digest(&id[..]);
        id.clear();
        id.extend_from_slice(&digest);
    }
}

/// The To tag of an answer that our user wrote.
fn to_tag(answer: &Bytes) -> Option<String> {
    // Line by line: it is one of the first, and a searcher costs more to make.
    let mut rest = &answer[..];
    let line = loop {
        let end = memchr::memchr(b'\n', rest)?;
        rest = &rest[end + 1..];
        if let Some(value) = rest.strip_prefix(b"To: ") {
            break value;
        }
    };
    let to = std::str::from_utf8(&line[..memchr::memchr(b'\r', line)?]).ok()?;
    NameAddr::parse(to).ok()?.params.get("tag").map(String::from)
}

/// 32 letters that no transport, no peer and no eye confuses.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Engine number, slot, secret: 18 bytes.
const BRANCH_BYTES: usize = 18;
/// The same as letters.
const BRANCH_LETTERS: usize = (BRANCH_BYTES * 8).div_ceil(5);
/// What each byte stands for in a branch, plus one; 0 is no letter.
const VALUES: [u8; 256] = {
    let mut values = [0; 256];
    let mut i = 0;
    while i < LETTERS.len() {
        values[LETTERS[i] as usize] = i as u8 + 1;
        i += 1;
    }
    values
};

fn encode(engine: u16, slot: u64, secret: u64) -> String {
    let mut raw = [0u8; BRANCH_BYTES];
    raw[..2].copy_from_slice(&engine.to_be_bytes());
    raw[2..10].copy_from_slice(&slot.to_be_bytes());
    raw[10..].copy_from_slice(&secret.to_be_bytes());
    let mut text = [0u8; MAGIC.len() + BRANCH_LETTERS];
    text[..MAGIC.len()].copy_from_slice(MAGIC.as_bytes());
    let (mut bits, mut held, mut at) = (0u32, 0, MAGIC.len());
    for byte in raw {
        bits = bits << 8 | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text[at] = LETTERS[(bits >> held & 31) as usize];
            at += 1;
        }
    }
    // 144 bits are 28 letters and 4 bits
    text[at] = LETTERS[(bits << (5 - held) & 31) as usize];
    String::from(std::str::from_utf8(&text).expect("letters are ASCII"))
}

/// Slot and secret of a branch of ours; each branch has one spelling only.
fn decode(branch: &str, engine: u16) -> Option<(u64, u64)> {
    let text = branch.strip_prefix(MAGIC)?.as_bytes();
    if text.len() != BRANCH_LETTERS {
        return None;
    }
    let mut raw = [0u8; BRANCH_BYTES];
    let (mut bits, mut held, mut at) = (0u32, 0, 0);
    for letter in text {
        let value = u32::from(VALUES[usize::from(*letter)].checked_sub(1)?);
        bits = bits << 5 | value;
        held += 5;
        if held >= 8 {
            held -= 8;
            raw[at] = (bits >> held) as u8;
            at += 1;
        }
    }
    let padding = bits & ((1 << held) - 1);
    let number = |part: &[u8]| part.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    (padding == 0 && number(&raw[..2]) == u64::from(engine)).then(|| (number(&raw[2..10]), number(&raw[10..])))
}

#[cfg(test)]
mod tests;
