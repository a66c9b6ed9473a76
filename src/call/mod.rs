//! A customer's call: legs, and what joins them.
//!
//! ```text
//!              INVITE          stage by stage             2xx of a leg            BYE, silence, fault
//!   Routing ------------> Ringing (fork of legs) ------------------> Connected ----------------------> Closing --> gone
//!                             |   every stage is used up, or the caller leaves                            ^
//!                             +---------------------------------------------------------------------------+
//! ```
//!
//! A [`Leg`] is one dialog's side of it: it turns commands into SIP and SIP into [`leg::Event`]s. A [`Call`] knows nothing of
//! SIP's mechanics: it takes those events, asks `policy` whom to ring, and tells legs what to do. [`Cx`] is what both may
//! use meanwhile: the transaction layer, the clock's reading, the directory, and the [`Switch`] for all that belongs to the
//! node as a whole. Files: `fork` (who rings, who wins), `queue` (who waits), `confirm` (who
//! has to press a key first), `divert` (a phone's 302), `prompt` (what a caller hears from us), `page` (announcements), `talk` (offers, hold, digits, the end), `bridge` (streams), `cdr`
//! (the record), `journey` (phases).

pub mod bridge;
pub mod cdr;
mod confirm;
mod divert;
mod fork;
pub mod hook;
pub mod journey;
pub mod leg;
mod page;
mod prompt;
mod queue;
pub mod record;
mod talk;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slotmap::{Key, SlotMap, new_key_type};
use smallvec::SmallVec;

use crate::base::{Instant, Now, Rng, Wall};
use crate::directory::{Directory, E164, Label, Relay, Target};
use crate::media::sound::SoundName;
use crate::media::{self, Port, Recorded, RecordingId};
use crate::policy::{self, Ask, Plan, Stage, Way};
use crate::sdp::session::Format;
use crate::sip::transport::Flow;
use crate::transaction::timing::Timing;
use crate::transaction::{self, Layer};
use journey::Journey;
pub use leg::{Leg, Peer};
use record::{By, Called, Caller, Direction, RecordId, RecordingEntry};

new_key_type! {
    /// A call in progress.
    pub struct CallKey;
    /// A leg in progress.
    pub struct LegKey;
}

/// Who uses a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A leg of a call.
    Leg(LegKey),
    /// A trunk, by its place in the node's table: OPTIONS and REGISTER.
    Trunk(u32),
    /// Nobody: its answer changes nothing any more.
    Nobody,
    /// A request that is proxied.
    Proxy(u64),
    /// A phone that the run before us left open, by its number in the node's table: BYE.
    LeftOpen(u32),
}

/// A caller's place in the line of those who wait for agents: a lower one is served first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// Where a branch of a fork can be reached: one phone of an extension, or one address of a trunk.
#[derive(Clone, PartialEq, Debug)]
pub struct Place {
    /// By this path.
    pub flow: Flow,
    /// Request-URI.
    pub uri: String,
    /// Route headers (Path of the registration).
    pub route: Vec<String>,
    /// Where our RTP ports are, as it reaches them.
    pub media: IpAddr,
    /// What the phone calls itself.
    pub agent: Option<String>,
}

/// What belongs to the node as a whole.
pub trait Switch: policy::Live {
    /// Where somebody can be reached that way now, best first.
    fn places(&mut self, way: &Way) -> Vec<Place>;
    /// Where a phone of the extension is now.
    fn reach(&self, extension: &str) -> Option<Flow>;
    /// A free RTP port for a call.
    fn take_port(&mut self, now: Instant, call: CallKey) -> Option<Port>;
    /// A port comes back.
    fn give_port(&mut self, now: Instant, port: Port);
    /// Tells a media worker.
    fn media(&mut self, worker: u16, command: media::Command);
    /// The call has one leg more (or less) with that peer; `extension` is whose phone or mobile it is.
    fn occupy(&mut self, call: CallKey, peer: &Peer, extension: Option<&Label>, more: bool);
    /// The call takes the last place in a queue's line, if there is one; it is served in its turn ([`Call::serve`]).
    fn join(&mut self, queue: &Label, call: CallKey) -> Option<Ticket>;
    /// It gives its place up.
    fn leave(&mut self, ticket: Ticket);
    /// It is to be served again.
    fn again(&mut self, ticket: Ticket);
    /// The queue rang an agent.
    fn rang(&mut self, queue: &Label, agent: &Label);
    /// An extension's talk is over, or nobody took the ringing; its agent rests so long.
    fn idle(&mut self, now: Instant, agent: &Label, wrap_up: Duration);
    /// A trunk's address did not take a call; it did, if `fault` is none.
    fn trunk_said(&mut self, now: Now, trunk: &str, flow: &Flow, fault: Option<&str>);
    /// A phone of the extension answered an INVITE by anything at all, or did not.
    fn phone_said(&mut self, now: Now, extension: &str, flow: &Flow, answered: bool);
    /// An emergency page wants a phone that is in other calls: they end, or go on without it. `words`: the reason.
    fn take_over(&mut self, page: CallKey, extension: &Label, words: &str);
    /// A leg of this call has this Call-ID (for ladders).
    fn named(&mut self, call: RecordId, call_id: &str, who: &Peer);
    /// A recording of the call begins, or its file was given up on.
    fn recording(&mut self, call: CallKey, recording: RecordingId, begins: bool);
    /// The call changed as readers see it.
    fn changed(&mut self, live: LiveCall);
    /// The call is over.
    fn save(&mut self, record: Box<record::CallRecord>);
    /// A phone answered by itself, or is elsewhere than it was: it is kept, so that a crash does not leave it open. False: too many
    /// are kept; `anew` ones count.
    fn opened(&mut self, opened: &leg::Opened, anew: bool) -> bool;
    /// Such a phone is closed again, and forgotten.
    fn closed(&mut self, opened: &leg::Opened);
    /// A customer called a number of ours, or is shown it.
    fn met(&mut self, customer: E164, ours: E164);
    /// Asks a routing hook; its answer comes to [`Call::hook_answered`].
    fn ask_hook(
        &mut self,
        query: hook::HookQuery,
        hook: std::sync::Arc<crate::directory::Hook>,
        question: Box<policy::hook::Question>,
    );
    /// Has the leg's deadline come up.
    fn arm_leg(&mut self, at: Instant, leg: LegKey);
    /// Has the call's deadline come up.
    fn arm_call(&mut self, at: Instant, call: CallKey);
}

/// What calls and legs may use while something happens.
pub struct Cx<'a> {
    /// When it happens.
    pub now: Now,
    /// Transactions.
    pub tx: &'a mut Layer<Owner>,
    /// What they have to say, to be dealt with after this.
    pub said: &'a mut Vec<transaction::Output<Owner>>,
    /// Tags, Call-IDs, SSRCs.
    pub rng: &'a mut Rng,
    /// The configuration.
    pub directory: &'a Directory,
    /// The node.
    pub switch: &'a mut dyn Switch,
    /// In every identifier that we mint.
    pub engine: u16,
    /// SIP's timers.
    pub timing: Timing,
}

/// All legs of the node.
pub type Legs = SlotMap<LegKey, Leg>;

/// A call.
#[derive(Debug)]
pub struct Call {
    /// Its key.
    pub key: CallKey,
    /// Its record's id.
    pub id: RecordId,
    /// Which way.
    pub direction: Direction,
    /// Who calls.
    pub caller: Caller,
    /// What was called.
    pub called: Called,
    /// Caller ID that went out.
    pub shown: Option<String>,
    /// Trunk that it came or went by.
    pub trunk: Option<Label>,
    /// Who talks or talked.
    pub answered_by: Option<Peer>,
    /// The page that was heard.
    pub paged: Option<Label>,
    /// Media worker.
    pub worker: u16,
    /// The caller's leg.
    pub a: LegKey,
    /// Phases.
    pub journey: Journey,
    /// What the node knows the trunk's pair of caller's and called number by, until the call goes out again.
    pub pair: Option<u64>,
    state: State,
    ask: Ask,
    plan: Plan,
    identity: leg::Identity,
    max_forwards: u8,
    first_ring: Option<Instant>,
    relay: bool,
    recording: Option<Box<RecordingEntry>>,
    recording_id: Option<RecordingId>,
    end: Option<End>,
    ended_at: Option<Now>,
    branch: Option<Label>,
    short_ring: Duration,
    /// Where the route may queue or play, offers hold no more than what we can play and park (INTERFACE, Media).
    basic: bool,
    /// What a page without a caller plays.
    sounds: Vec<SoundName>,
    /// It goes to an emergency number.
    emergency: bool,
    /// How long the agent rests after this call.
    wrap_up: Duration,
    /// For the record.
    tags: std::collections::BTreeMap<String, String>,
    /// Every leg that is not over yet, the caller's included.
    alive: SmallVec<[LegKey; 4]>,
}

#[derive(Debug)]
enum State {
    Ringing(Box<Ringing>),
    Connected(Connected),
    Paging(Box<page::Paging>),
    Closing { until: Instant, recorded: bool },
}

/// Legs ring, stage by stage.
#[derive(Debug, Default)]
struct Ringing {
    stages: VecDeque<Stage>,
    stage: Option<Stage>,
    /// The stage's patience over all rounds.
    stage_ends: Option<Instant>,
    /// Steps that join the stage later.
    later: Vec<fork::Later>,
    /// Branches of the present round.
    rungs: Vec<fork::Rung>,
    /// Its place in the line, while the stage is a queue.
    ticket: Option<Ticket>,
    /// Agents of the queue who were rung, the last at the end.
    rung: Vec<Label>,
    /// The caller was told that somebody will be rung.
    told: bool,
    /// Targets that the call went through.
    tried: Vec<Target>,
    /// Extensions that rejected this call.
    spent: Vec<Label>,
    /// Extensions whose phone sent the call on.
    sent_on: Vec<Label>,
    /// The hook that is asked.
    asking: Option<hook::Asking>,
    /// Hooks asked so far.
    hooks_asked: u32,
    /// Best final answer so far (RFC 3261 16.7).
    best: Option<Final>,
    /// Who has answered and has yet to confirm.
    questions: SmallVec<[confirm::Question; 1]>,
    /// Ways on which somebody answered and did not confirm: a voicemail, by all signs.
    unconfirmed: Vec<Way>,
    /// What we say to the caller ourselves.
    voice: Option<prompt::Voice>,
    /// How many early dialogs the caller has seen.
    variants: u8,
    /// When the caller is to get a provisional answer again.
    remind: Option<Instant>,
}

/// Two legs talk.
#[derive(Debug)]
struct Connected {
    b: LegKey,
    held: bool,
    /// What both ends had before an offer that is under way, to be put back if it is refused.
    standing: Option<Box<Standing>>,
    /// The caller, who was answered before, is offered the codec of who answered him now.
    recoding: bool,
    /// Who answered by itself hears a tone on this port before the caller hears anything; over by then at the latest.
    tone: Option<(Port, Instant)>,
}

type Ends = (Option<bytes::Bytes>, Option<bytes::Bytes>);

#[derive(Debug)]
struct Standing {
    offerer_end: Ends,
    other_end: Ends,
    /// The offerer sent no offer: the other's answer is one, and the offerer's ACK the answer to it.
    late: bool,
}

/// A final answer of a leg.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Final {
    /// Status.
    pub status: u16,
    /// Its phrase.
    pub phrase: String,
    /// Reason header.
    pub reason: Option<String>,
    /// Nothing was heard of the peer: the status is ours, and the phrase says what was the matter.
    pub unheard: bool,
}

#[derive(Debug)]
struct End {
    by: By,
    sip: Option<u16>,
    reason: Option<String>,
    cause: Cause,
}

/// What ended an unanswered call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    CallerLeft,
    Nobody,
    Refused,
    Fault,
}

/// After the last BYE the recorder has this long to close its file before the record is saved without its word.
const RECORDER_PATIENCE: Duration = Duration::from_secs(5);
/// What losers are told (RFC 3326).
pub const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";
/// What a caller is told for whom there is no RTP port.
pub const NO_PORT: &str = "Q.850;cause=34;text=\"No circuit/channel available\"";

/// A call in progress, as readers see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LiveCall {
    /// Its id, the later record's.
    pub id: RecordId,
    /// Which way it goes.
    pub direction: Direction,
    /// `routing`, `waiting` (in a queue), `ringing`, `talking`, `hold`, `paging`.
    pub state: Cow<'static, str>,
    /// INVITE received.
    pub started_at: Wall,
    /// First answered.
    pub answered_at: Option<Wall>,
    /// Who calls.
    pub caller: String,
    /// What was called.
    pub called: String,
    /// Who rings or talks, e.g. `extension:121`.
    pub with: Vec<String>,
    /// Trunk.
    pub trunk: Option<String>,
    /// Caller ID that went out.
    pub shown: Option<String>,
}

/// What a new call begins with.
pub struct Opening {
    /// Its key.
    pub key: CallKey,
    /// Which way.
    pub direction: Direction,
    /// Who calls, for the record.
    pub caller: Caller,
    /// What was called, for the record.
    pub called: Called,
    /// Who calls, for the other side's From.
    pub identity: leg::Identity,
    /// Trunk that it came by.
    pub trunk: Option<Label>,
    /// The caller's leg.
    pub a: LegKey,
    /// Who asked for what.
    pub ask: Ask,
    /// What policy says to that.
    pub plan: Plan,
    /// Hops left.
    pub max_forwards: u8,
    /// Media worker.
    pub worker: u16,
}

impl Call {
    /// A call begins; the caller's leg stands already. Follow with [`Call::start`].
    pub fn new(opening: Opening, cx: &mut Cx<'_>) -> Call {
        let Opening { key, direction, caller, called, identity, trunk, a, ask, mut plan, max_forwards, worker } =
            opening;
        let journey = Journey::begin(cx.now, "the call arrived");
        let stages = VecDeque::from(std::mem::take(&mut plan.stages));
        let emergency_number = stages.iter().any(|s| matches!(s.target, Target::Emergency(_)));
        let basic = stages.iter().any(|s| s.target.may_play() || s.confirm == Some(true) || s.answer);
        Call {
            key,
            id: RecordId::mint(cx.now.wall, cx.rng),
            direction,
            caller,
            called,
            shown: None,
            trunk,
            answered_by: None,
            paged: None,
            worker,
            a,
            journey,
            state: State::Ringing(Box::new(Ringing { stages, ..Ringing::default() })),
            ask,
            pair: None,
            plan,
            identity,
            max_forwards,
            first_ring: None,
            relay: cx.directory.media.relay == Relay::Always,
            recording: None,
            recording_id: None,
            end: None,
            ended_at: None,
            branch: None,
            short_ring: cx.directory.short_ring,
            basic,
            sounds: Vec::new(),
            emergency: emergency_number,
            wrap_up: Duration::ZERO,
            tags: Default::default(),
            // A page that the operator has played has no caller.
            alive: Some(a).filter(|a| !a.is_null()).into_iter().collect(),
        }
    }

    /// It is a page on which this is played, instead of a caller's voice.
    pub fn playing(mut self, sound: SoundName) -> Call {
        self.sounds.push(sound);
        self
    }

    /// Begins to ring. `body` is the caller's offer, if it made one.
    pub fn start(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        match self.plan.refuse {
            Some(refuse) => {
                let cause = if refuse.status == 480 { Cause::Nobody } else { Cause::Refused };
                self.refuse(legs, cx, refuse.status, refuse.phrase, None, cause);
            }
            None => {
                self.next_stage(legs, cx);
                self.show(legs, cx);
            }
        }
    }

    /// Refuses a caller for whom there is no RTP port.
    pub fn no_port(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        self.refuse(legs, cx, 503, "Service Unavailable", Some(NO_PORT.to_owned()), Cause::Fault);
    }

    /// When it was first answered.
    pub fn answered_at(&self) -> Option<Wall> {
        let ms = self.journey.first_answered()?;
        Some(self.journey.started_at() + Duration::from_millis(ms))
    }

    /// Tells readers what the call looks like now.
    fn show(&self, legs: &Legs, cx: &mut Cx<'_>) {
        if self.is_closing() {
            return;
        }
        let live = LiveCall {
            id: self.id,
            direction: self.direction,
            state: self.state_name().into(),
            started_at: self.journey.started_at(),
            answered_at: self.answered_at(),
            caller: self.caller.number.clone().unwrap_or_else(|| "anonymous".to_owned()),
            called: self.called.number.clone(),
            with: self.with(legs),
            trunk: self.trunk.as_deref().map(str::to_owned),
            shown: self.shown.clone(),
        };
        cx.switch.changed(live);
    }

    /// Something happened on a leg of this call.
    pub fn on(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, leg: LegKey, event: leg::Event) {
        match &self.state {
            State::Ringing(_) if leg == self.a => self.caller_while_ringing(legs, cx, event),
            State::Ringing(_) => self.branch_while_ringing(legs, cx, leg, event),
            State::Connected(_) => self.while_connected(legs, cx, leg, event),
            State::Paging(_) => self.while_paging(legs, cx, leg, event),
            State::Closing { .. } => self.while_closing(legs, cx, leg, event),
        }
    }

    /// The call's deadline came up.
    pub fn tick(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        match &self.state {
            State::Ringing(_) => self.patience(legs, cx),
            State::Connected(_) => self.tone_due(legs, cx),
            State::Paging(_) => self.page_due(legs, cx),
            State::Closing { until, recorded } => {
                if *until <= cx.now.mono && !*recorded {
                    self.recorded(cx, None);
                }
            }
        }
    }

    /// Silence on a port of a leg that ought to send.
    pub fn silent(&mut self, legs: &mut Legs, cx: &mut Cx<'_>) {
        let seconds = cx.directory.media.timeout.as_secs();
        let words = format!("no media for {seconds} s");
        match self.state {
            State::Connected(_) => self.end_talk(legs, cx, None, By::System, Some(words)),
            State::Paging(_) => self.end_page(legs, cx, None, By::System, Some(words)),
            State::Ringing(_) | State::Closing { .. } => {}
        }
    }

    /// The node or an operator ends the call.
    pub fn hang_up(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, words: &str) {
        match self.state {
            State::Ringing(_) => {
                self.refuse(legs, cx, 503, "Service Unavailable", Some(words.to_owned()), Cause::Fault)
            }
            State::Connected(_) => self.end_talk(legs, cx, None, By::System, Some(words.to_owned())),
            State::Paging(_) => self.end_page(legs, cx, None, By::System, Some(words.to_owned())),
            State::Closing { .. } => {}
        }
    }

    /// The recorder closed the file, or did not in time.
    pub fn recorded(&mut self, cx: &mut Cx<'_>, result: Option<Recorded>) {
        if let Some(why) = result.as_ref().and_then(|result| result.no_file.clone()) {
            // A record names no file that there is not.
            self.recording = None;
            self.plan.why.push(policy::Why::new("recording", format!("there is none: {why}")));
        }
        if let Some(entry) = &mut self.recording {
            match result {
                Some(result) => {
                    entry.gaps_ms = result.gaps_ms;
                    entry.complete = result.complete;
                    entry.undecoded = result.undecoded;
                    entry.until = Some(entry.from + Duration::from_millis(result.length_ms));
                }
                None => entry.until = Some(self.journey.stamp(cx.now.mono)),
            }
        }
        if let Some(id) = self.recording_id {
            cx.switch.recording(self.key, id, false);
        }
        if let State::Closing { recorded, .. } = &mut self.state
            && !*recorded
        {
            *recorded = true;
            let record = self.record();
            cx.switch.save(Box::new(record));
        }
    }

    /// Whether nothing is left of it but its record.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closing { recorded: true, .. }) && self.alive.is_empty()
    }

    /// Whether it came in and goes out again through a trunk.
    pub fn goes_out(&self) -> bool {
        self.shown.is_some()
    }

    /// `routing`, `waiting`, `ringing`, `talking`, `hold`, `paging`, `ended`.
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Ringing(ringing) if ringing.legs().next().is_some() => "ringing",
            State::Ringing(ringing) if ringing.ticket.is_some() => "waiting",
            State::Ringing(_) => "routing",
            State::Connected(connected) if connected.held => "hold",
            State::Connected(_) => "talking",
            State::Paging(_) => "paging",
            State::Closing { .. } => "ended",
        }
    }

    /// Whether it is over but for its recording and the last answers.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// Who rings or talks.
    pub fn with<'a>(&'a self, legs: &'a Legs) -> Vec<String> {
        let keys: SmallVec<[LegKey; 4]> = match &self.state {
            State::Ringing(ringing) => ringing.legs().collect(),
            State::Connected(connected) => SmallVec::from_slice(&[connected.b]),
            State::Paging(paging) => paging.legs().collect(),
            State::Closing { .. } => SmallVec::new(),
        };
        let mut names: Vec<String> = keys.iter().filter_map(|k| legs.get(*k)).map(|l| l.peer.to_string()).collect();
        names.dedup();
        names
    }

    /// The recording of this call.
    pub fn recording_id(&self) -> Option<RecordingId> {
        self.recording_id
    }

    /// Gives a leg's ports back and the leg itself, if it is over.
    fn bury(&mut self, legs: &mut Legs, cx: &mut Cx<'_>, key: LegKey) {
        let Some(leg) = legs.get_mut(key) else { return };
        self.close_end(cx, leg);
        if leg.is_over() {
            if let Some(opened) = leg.opened() {
                cx.switch.closed(opened);
            }
            legs.remove(key);
            self.alive.retain(|k| *k != key);
        }
    }

    /// The codecs that an offer within this call is cut to.
    fn keep(&self) -> Option<&'static [Format]> {
        static BASIC: [Format; 4] = Format::BASIC;
        self.basic.then_some(&BASIC[..])
    }

    fn give_back(&self, cx: &mut Cx<'_>, mut end: bridge::End) {
        let mut commands = Vec::new();
        let ports = end.close(&mut commands);
        commands.into_iter().for_each(|c| cx.switch.media(self.worker, c));
        ports.into_iter().for_each(|p| cx.switch.give_port(cx.now.mono, p));
    }

    fn close_end(&self, cx: &mut Cx<'_>, leg: &mut Leg) {
        if let Some(end) = leg.end.take() {
            self.give_back(cx, *end);
        }
        if leg.occupies {
            leg.occupies = false;
            cx.switch.occupy(self.key, &leg.peer, leg.extension(), false);
        }
    }
}
