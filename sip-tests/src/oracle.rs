//! What must hold in every world. The oracle reads each message that reaches the server and each that it sends, hears what
//! the phones hear, and sees each record. It knows the RFCs and nothing of how the core is built.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use strowger::call::record::{CallRecord, PhaseKind, RecordId};

use crate::phone::T1;
use crate::phone::text::{First, Msg};
use crate::phone::voice::Tone;
use crate::{SEC, Time};

/// How many faults are kept; one is enough to fail.
const MAX_FAULTS: usize = 50;
/// Most messages that one event may have the core send.
pub const MAX_BURST: usize = 400;

/// The invariants, with what they need to remember.
#[derive(Default)]
pub struct Oracle {
    /// What did not hold.
    pub faults: Vec<String>,
    /// Records, in the order of their first saving.
    pub records: Vec<CallRecord>,
    asked: BTreeMap<(SocketAddr, String, String), Asked>,
    asking: BTreeMap<(String, String), Asking>,
    accepted: BTreeMap<(String, String, u32), (Time, bool)>,
    dialogs: BTreeMap<(String, String, String), Answered>,
    parties: BTreeMap<String, BTreeSet<String>>,
    askers: BTreeMap<String, BTreeSet<String>>,
    partners: BTreeMap<Tone, Tone>,
    saved: BTreeMap<RecordId, u32>,
    openings: usize,
}

/// A request to the server.
struct Asked {
    at: Time,
    what: String,
    finals: Vec<Vec<u8>>,
    code: Option<u16>,
    /// An INVITE outside a dialog.
    opening: bool,
    /// It was told that something rings, or more.
    rang: bool,
    /// When its transaction is gone, so that the same bytes are a new request.
    over_at: Option<Time>,
    /// The connection that its answer had to go by was lost before it was given.
    broken: bool,
}

/// A request of the server's.
struct Asking {
    at: Time,
    what: String,
    bytes: Vec<u8>,
    provisional: bool,
    finals: BTreeSet<(u16, String)>,
    final_at: Option<Time>,
    cancelled_at: Option<Time>,
    /// Its transport failed: the transaction ended there (section 17.1.4).
    broken: bool,
    acked: bool,
}

/// A leg that was answered.
struct Answered {
    at: Time,
    who: String,
    bye: bool,
}

impl Oracle {
    /// Notes a fault.
    pub fn fault(&mut self, now: Time, what: impl AsRef<str>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(format!("{:9.3} s  {}", now as f64 / SEC as f64, what.as_ref()));
        }
    }

    /// A message reaches the server. `party` is whose address it comes from.
    pub fn server_hears(&mut self, now: Time, from: SocketAddr, party: &str, msg: &Msg) {
        let branch = msg.branch().unwrap_or("").to_owned();
        let key = dialog_key(msg);
        match &msg.first {
            First::Request { method, .. } => {
                if method == "ACK" {
                    let name = (from, branch, "INVITE".to_owned());
                    if let Some(asked) = self.asked.get_mut(&name).filter(|a| a.code.is_some_and(|c| c >= 300)) {
                        // Timer I: T4, or nothing over a reliable transport.
                        let reliable = msg.get("Via").is_some_and(|v| v.starts_with("SIP/2.0/TCP"));
                        asked.over_at.get_or_insert(if reliable { now } else { now + 5 * SEC });
                    }
                    return;
                }
                if method == "BYE"
                    && let Some(answered) = self.dialogs.get_mut(&key)
                    && answered.who == party
                {
                    answered.bye = true;
                }
                let call_id = msg.call_id().to_owned();
                self.askers.entry(call_id.clone()).or_default().insert(party.to_owned());
                let opening = method == "INVITE" && msg.tag("To").is_none();
                if msg.tag("To").is_none() {
                    self.parties.entry(call_id).or_default().insert(party.to_owned());
                }
                let what = format!("{} from {party}", msg.label());
                let name = (from, branch, method.clone());
                // Once its transaction is over, the same request is a new one.
                let over =
                    |a: &Asked| a.over_at.is_some_and(|at| at <= now) || a.at + 64 * T1 < now && a.code.is_some();
                if self.asked.get(&name).is_none_or(over) {
                    self.openings += usize::from(opening);
                    let asked = Asked {
                        at: now,
                        what,
                        finals: Vec::new(),
                        code: None,
                        opening,
                        rang: false,
                        over_at: None,
                        broken: false,
                    };
                    self.asked.insert(name, asked);
                }
            }
            First::Response { code, .. } => {
                let method = msg.method().to_owned();
                let Some(asking) = self.asking.get_mut(&(branch, method.clone())) else { return };
                if *code < 200 {
                    // After Timer B there is nobody left to take it to heart (section 17.1.1.2).
                    asking.provisional |= now < asking.at + 64 * T1;
                    return;
                }
                asking.final_at.get_or_insert(now);
                let tag = msg.tag("To").unwrap_or("").to_owned();
                // After 64*T1 without any answer, or since its CANCEL, the transaction is gone (Timer B, section 9.1). What comes for it may be
                // acknowledged and ended, but need not be.
                let began = asking.cancelled_at.or((!asking.provisional).then_some(asking.at));
                let gone = asking.broken || began.is_some_and(|at| now >= at + 64 * T1);
                asking.acked |= gone && *code >= 300;
                asking.finals.insert((*code, tag.clone()));
                if method == "INVITE" && (200..300).contains(code) {
                    self.accepted.entry((msg.call_id().to_owned(), tag, msg.cseq())).or_insert((now, gone));
                    let answered = Answered { at: now, who: party.to_owned(), bye: gone };
                    self.dialogs.entry(key).or_insert(answered);
                }
            }
        }
    }

    /// The server sends a message to `party`.
    pub fn server_says(&mut self, now: Time, to: SocketAddr, party: &str, msg: &Msg, bytes: &[u8]) {
        let branch = msg.branch().unwrap_or("").to_owned();
        let key = dialog_key(msg);
        match &msg.first {
            First::Request { method, .. } => {
                self.request_goes_out(now, party, msg, bytes, method, branch, key);
            }
            First::Response { code, .. } => {
                let method = msg.method().to_owned();
                let Some(asked) = self.asked.get_mut(&(to, branch, method.clone())) else {
                    // Over a connection, or to a Via of another port: the source differs. Looked up by branch alone.
                    self.answer_goes_elsewhere(now, party, msg, bytes);
                    return;
                };
                let fault = asked.answer(*code, bytes, msg);
                // Timer J is nothing over a reliable transport: the same request once more is a new one.
                if *code >= 200 && method != "INVITE" && msg.get("Via").is_some_and(|v| v.starts_with("SIP/2.0/TCP")) {
                    asked.over_at.get_or_insert(now);
                }
                if let Some(fault) = fault {
                    self.fault(now, fault);
                }
                self.note_answer(now, party, msg, *code, &method, key);
            }
        }
    }

    /// What the server sent to `party` and is not answered yet has failed, and it was told so; what it was asked from there need not be answered.
    pub fn connection_lost(&mut self, party: &str) {
        let from = format!(" from {party}");
        for (_, asked) in
            self.asked.iter_mut().filter(|((_, _, method), a)| method != "INVITE" && a.what.ends_with(&from))
        {
            asked.broken |= asked.finals.is_empty();
        }
        let to = format!(" to {party}");
        for asking in self.asking.values_mut().filter(|a| a.final_at.is_none() && a.what.ends_with(&to)) {
            asking.broken = true;
        }
    }

    /// The server was killed: what it was asked or asked itself comes to nothing, and its calls have no record. Whoever was answered is
    /// still to have a BYE, sent or got.
    pub fn server_killed(&mut self) {
        self.asked.clear();
        self.asking.values_mut().filter(|asking| asking.final_at.is_none()).for_each(|asking| asking.broken = true);
        self.accepted.values_mut().for_each(|accepted| accepted.1 = true);
    }

    /// A phone hears a tone in a call that is up since `up_at`.
    pub fn ear(&mut self, now: Time, own: Tone, heard: Tone, up_at: Option<Time>) {
        // Packets of early media, of a fork's loser too, may still be under way.
        if up_at.is_none_or(|at| now < at + SEC) {
            return;
        }
        if own == heard {
            self.fault(now, format!("{} hears itself", name(own)));
            return;
        }
        let before = self.partners.insert(own, heard);
        if let Some(before) = before.filter(|b| *b != heard) {
            self.fault(now, format!("{} hears {} and {}: crossed", name(own), name(before), name(heard)));
        }
        if let Some(other) = self.partners.get(&heard).copied().filter(|o| *o != own) {
            self.fault(now, format!("{} hears {}, which hears {}: crossed", name(own), name(heard), name(other)));
        }
    }

    /// A call's record is saved.
    pub fn record(&mut self, now: Time, record: &CallRecord, may_come_again: bool) {
        let times = self.saved.entry(record.id).or_default();
        *times += 1;
        let times = *times;
        if times > 1 && !may_come_again {
            self.fault(now, format!("record {} saved {times} times", record.id));
        }
        match self.records.iter_mut().find(|r| r.id == record.id) {
            Some(old) => *old = record.clone(),
            None => self.records.push(record.clone()),
        }
        let length = (record.ended_at - record.started_at).as_millis() as u64;
        let sum = record.wait_ms + record.talk_ms + record.hold_ms;
        if length != sum {
            let (w, t, h) = (record.wait_ms, record.talk_ms, record.hold_ms);
            self.fault(now, format!("record {}: wait {w} + talk {t} + hold {h} = {sum}, not {length} ms", record.id));
        }
        if record.ended_at < record.started_at {
            self.fault(now, format!("record {}: ended before it began", record.id));
        }
        let mut at = record.started_at;
        for phase in &record.journey {
            if phase.at != at || phase.until < phase.at {
                self.fault(
                    now,
                    format!("record {}: a gap or overlap before {:?} at {}", record.id, phase.phase, phase.at),
                );
            }
            at = phase.until;
        }
        if record.journey.is_empty() || at != record.ended_at {
            self.fault(now, format!("record {}: the journey ends {at}, the call {}", record.id, record.ended_at));
        }
        let mut winners: Vec<(u32, &str)> = Vec::new();
        for who in record.journey.iter().flat_map(|p| &p.who).filter(|w| w.result == "answered") {
            if !winners.iter().any(|w| w.0 == who.leg) {
                winners.push((who.leg, &who.target));
            }
        }
        // Many hear a page.
        if winners.len() > 1 && !record.journey.iter().any(|p| p.phase == PhaseKind::Page) {
            self.fault(now, format!("record {}: several winners: {winners:?}", record.id));
        }
        let answered = record.outcome == strowger::call::record::Outcome::Answered;
        if answered != record.answered_at.is_some() || answered != record.answered_by.is_some() {
            let (o, a, b) = (record.outcome, record.answered_at, &record.answered_by);
            self.fault(now, format!("record {}: {o:?}, answered at {a:?} by {b:?}", record.id));
        }
        if !answered && record.talk_ms + record.hold_ms > 0 {
            self.fault(now, format!("record {}: talk without an answer", record.id));
        }
    }

    /// Everything has come to rest: what should have happened by now has.
    pub fn rest(&mut self, now: Time) {
        let mut faults = Vec::new();
        for asked in self.asked.values().filter(|a| a.finals.is_empty()) {
            // Nobody may say 408 to a request that was proxied (RFC 4320 section 4.2).
            if asked.broken || asked.what.starts_with("MESSAGE") {
                continue;
            }
            faults.push(format!("{} at {:.3} s never got a final answer", asked.what, asked.at as f64 / SEC as f64));
        }
        for (key, (at, _)) in self.accepted.iter().filter(|a| !a.1.1) {
            faults.push(format!("200 of {:.3} s for {} was never acknowledged", *at as f64 / SEC as f64, key.0));
        }
        for asking in self.asking.values() {
            let refused = asking.finals.iter().any(|f| f.0 >= 300);
            if refused && !asking.acked && asking.what.starts_with("INVITE") {
                faults.push(format!("{}: its refusal was never acknowledged", asking.what));
            }
        }
        let calls = self.asked.values().filter(|a| a.opening && a.code.is_some_and(|c| c / 100 == 2)).count();
        // What the operator has played over a page has no caller and no INVITE of one.
        let callers = || self.records.iter().filter(|r| r.caller.name.as_deref() != Some("operator"));
        let records = callers().filter(|r| r.answered_at.is_some()).count();
        // A prompt may have answered where nobody did.
        let prompted =
            |r: &&CallRecord| r.answered_at.is_none() && r.journey.iter().any(|p| p.phase == PhaseKind::Prompt);
        let prompts = callers().filter(prompted).count();
        if calls < records || calls > records + prompts {
            faults.push(format!("{calls} calls were answered, {records} records say so"));
        }
        let openings = self.openings;
        if callers().count() > openings {
            faults.push(format!("{} records of {openings} INVITEs", callers().count()));
        }
        let rang = self.asked.values().filter(|a| a.opening && a.rang).count();
        if self.records.len() < rang {
            faults.push(format!("{rang} calls rang, {} have a record", self.records.len()));
        }
        for answered in self.dialogs.values().filter(|d| !d.bye) {
            let at = answered.at as f64 / SEC as f64;
            faults.push(format!("the leg of {}, answered at {at:.3} s, got and sent no BYE", answered.who));
        }
        for fault in faults {
            self.fault(now, fault);
        }
    }

    /// When the server's INVITE attempts on a party left, first sendings and retransmissions alike are not told apart here.
    pub fn invites(&self) -> impl Iterator<Item = (Time, &str)> {
        self.asking.values().filter(|a| a.what.starts_with("INVITE")).map(|a| (a.at, a.what.as_str()))
    }

    #[expect(clippy::too_many_arguments, reason = "taken apart by the only caller")]
    fn request_goes_out(
        &mut self,
        now: Time,
        party: &str,
        msg: &Msg,
        bytes: &[u8],
        method: &str,
        branch: String,
        key: (String, String, String),
    ) {
        if method == "ACK" {
            if let Some(asking) = self.asking.get_mut(&(branch, "INVITE".into()))
                && asking.finals.iter().any(|f| f.0 >= 300)
            {
                asking.acked = true;
                return;
            }
            let tag = msg.tag("To").unwrap_or("").to_owned();
            match self.accepted.get_mut(&(msg.call_id().to_owned(), tag, msg.cseq())) {
                Some(accepted) => accepted.1 = true,
                None => self.fault(now, format!("ACK to {party} that belongs to nothing")),
            }
            return;
        }
        let parties = self.parties.entry(msg.call_id().to_owned()).or_default();
        parties.insert(party.to_owned());
        // A proxied request keeps its Call-ID (section 16.6).
        if parties.len() > 1 && method != "MESSAGE" {
            let who = parties.iter().cloned().collect::<Vec<_>>().join(" and ");
            self.fault(now, format!("{} to {party}: one Call-ID for {who}", msg.label()));
        }
        if method == "CANCEL" {
            if let Some(invite) = self.asking.get_mut(&(branch.clone(), "INVITE".into())) {
                invite.cancelled_at.get_or_insert(now);
            }
            match self.asking.get(&(branch.clone(), "INVITE".into())) {
                None => self.fault(now, format!("CANCEL to {party} for no INVITE")),
                Some(invite) if !invite.provisional => {
                    self.fault(now, format!("CANCEL to {party} before any provisional response (RFC 3261 9.1)"));
                }
                Some(invite) if invite.final_at.is_some_and(|at| at < now) => {
                    // Its retransmissions may go on until it is answered itself; only a first one is wrong.
                    if !self.asking.contains_key(&(branch.clone(), "CANCEL".into())) {
                        self.fault(now, format!("CANCEL to {party} after its final response (RFC 3261 9.1)"));
                    }
                }
                Some(_) => {}
            }
        }
        if method == "BYE" {
            if let Some(answered) = self.dialogs.get_mut(&key) {
                answered.bye = true;
            } else {
                self.fault(now, format!("BYE to {party} in a dialog that was never answered"));
            }
        }
        match self.asking.get(&(branch.clone(), method.to_owned())) {
            Some(asking) if asking.bytes != bytes => {
                self.fault(now, format!("{} to {party}: a retransmission that differs", msg.label()));
            }
            Some(asking) if asking.final_at.is_some_and(|at| at + SEC < now) => {
                self.fault(now, format!("{} to {party}: sent again after its final response", msg.label()));
            }
            Some(_) => {}
            None => {
                let what = format!("{} to {party}", msg.label());
                let asking = Asking {
                    at: now,
                    what,
                    bytes: bytes.to_vec(),
                    provisional: false,
                    finals: BTreeSet::new(),
                    final_at: None,
                    cancelled_at: None,
                    broken: false,
                    acked: false,
                };
                self.asking.insert((branch, method.to_owned()), asking);
            }
        }
    }

    fn answer_goes_elsewhere(&mut self, now: Time, party: &str, msg: &Msg, bytes: &[u8]) {
        let (branch, method, code) = (msg.branch().unwrap_or(""), msg.method().to_owned(), msg.code().unwrap_or(0));
        let fault = match self.asked.iter_mut().find(|(k, _)| k.1 == branch && k.2 == method) {
            Some((_, asked)) => asked.answer(code, bytes, msg),
            None => Some(format!("{} to {party}, who asked nothing", msg.label())),
        };
        if let Some(fault) = fault {
            self.fault(now, fault);
        }
        self.note_answer(now, party, msg, code, &method, dialog_key(msg));
    }

    fn note_answer(
        &mut self,
        now: Time,
        party: &str,
        msg: &Msg,
        code: u16,
        method: &str,
        key: (String, String, String),
    ) {
        let known = self.askers.get(msg.call_id()).is_some_and(|p| p.contains(party));
        if !known {
            self.fault(now, format!("{} to {party}, which has no part in that call", msg.label()));
        }
        if method == "INVITE" && (200..300).contains(&code) {
            self.dialogs.entry(key).or_insert(Answered { at: now, who: party.to_owned(), bye: false });
        }
    }
}

impl Asked {
    /// Notes an answer; what is wrong with it.
    fn answer(&mut self, code: u16, bytes: &[u8], msg: &Msg) -> Option<String> {
        self.rang |= (101..300).contains(&code);
        if code < 200 {
            return (!self.finals.is_empty())
                .then(|| format!("{} after the final answer to {}", msg.label(), self.what));
        }
        if self.finals.is_empty() {
            self.finals.push(bytes.to_vec());
            self.code = Some(code);
            return None;
        }
        if self.finals.iter().any(|f| f == bytes) {
            return None;
        }
        // A challenge is stateless: asked again, it is another one with a new nonce (section 8.2.7). So is the answer to a
        // CANCEL, which changes nothing the second time.
        let stateless = matches!(code, 401 | 407) || msg.method() == "CANCEL";
        if stateless && self.code == Some(code) || msg.method() == "CANCEL" && code == 481 {
            return None;
        }
        self.finals.push(bytes.to_vec());
        Some(format!("{}: a second final answer, or a retransmission that differs: {}", self.what, msg.label()))
    }
}

/// Name of a tone in a fault: phone's index and call.
pub fn name(tone: Tone) -> String {
    format!("phone {} call {}", tone.0 >> 16, tone.0 & 0xffff)
}

/// A dialog by Call-ID and both tags in order of their text.
fn dialog_key(msg: &Msg) -> (String, String, String) {
    let (from, to) = (msg.tag("From").unwrap_or("").to_owned(), msg.tag("To").unwrap_or("").to_owned());
    let (a, b) = if from < to { (from, to) } else { (to, from) };
    (msg.call_id().to_owned(), a, b)
}
