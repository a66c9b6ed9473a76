//! What belongs to the node as a whole: bindings, trunks, ports, who is busy, deadlines, and what is to be done outside. Calls
//! see it as [`Switch`].

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::action::{Action, LiveCall, Notice, PhoneView, Registration, Save};
use super::ladder::Ladder;
use super::left_open::MAX_OPENED;
use super::line::Line;
use super::ports::Ports;
use super::sticky::{Met, Sticky};
use super::trunks::{Purposes, Trunks, Want};
use crate::base::{Budget, Instant, Map, Now, Timers, Wall};
use crate::call::hook::HookQuery;
use crate::call::leg::Opened;
use crate::call::record::{CallRecord, RecordId};
use crate::call::{CallKey, LegKey, Peer, Place, Switch, Ticket};
use crate::directory::{Directory, E164, Hook, Label};
use crate::media::{Command, Port, RecordingId};
use crate::policy::hook::Question;
use crate::policy::{Live, Way, queue};
use crate::registrar::{Binding, Change, Left, Registrar};
use crate::sip::{Flow, Transport};

/// Our own addresses, one for each listener, as the other side reaches them.
#[derive(Clone, Debug, Default)]
pub struct Locals(pub Vec<(Transport, SocketAddr)>);

impl Locals {
    /// The path from us to an address: the first listener of that transport and family.
    pub fn flow_to(&self, transport: Transport, remote: SocketAddr) -> Option<Flow> {
        let family = |local: &SocketAddr| local.is_ipv4() == remote.is_ipv4();
        let local = self.0.iter().find(|(t, local)| *t == transport && family(local))?.1;
        Some(Flow { transport, local, remote, conn: 0 })
    }
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// A leg's.
    Leg(LegKey),
    /// A call's.
    Call(CallKey),
    /// An agent's rest is over.
    Line,
}

/// A phone that an emergency page wants: it leaves all other calls.
#[derive(Debug)]
pub(super) struct TakenOver {
    pub page: CallKey,
    pub extension: Label,
    pub words: String,
}

/// The node.
#[derive(Debug)]
pub struct Node {
    pub(super) directory: Arc<Directory>,
    pub(super) registrar: Registrar,
    pub(super) trunks: Trunks,
    pub(super) purposes: Purposes,
    pub(super) wants: Vec<Want>,
    pub(super) ports: Ports,
    pub(super) port_owner: Map<Port, CallKey>,
    pub(super) recording_owner: Map<RecordingId, CallKey>,
    /// Calls of each extension, with how many legs.
    pub(super) busy: Map<Label, SmallVec<[(CallKey, u16); 2]>>,
    pub(super) line: Line,
    pub(super) timers: Timers<Due>,
    pub(super) sticky: Sticky,
    pub(super) ladder: Ladder,
    /// Lines of the log about phones that come and go.
    pub(super) comings: Budget,
    pub(super) out: VecDeque<Action>,
    pub(super) locals: Locals,
    /// Phones that an emergency page wants.
    pub(super) taken_over: Vec<TakenOver>,
    /// How many opened phones the store keeps.
    pub(super) opened: usize,
    pub(super) media: IpAddr,
    pub(super) now: Now,
}

impl Node {
    /// Tells store and readers what became of bindings.
    pub(super) fn bindings_changed(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.line.wake();
        }
        for change in changes {
            match change {
                Change::Added(binding) => {
                    self.came_or_went(&binding, None);
                    self.bound(binding);
                }
                Change::Refreshed(binding) => self.bound(binding),
                Change::Removed { binding, left } => {
                    // That it came with another contact says the line of its coming.
                    if left != Left::Replaced {
                        self.came_or_went(&binding, Some(left));
                    }
                    let at = self.now.wall.min(binding.expires_at);
                    let (phone, because) = (Box::new(self.phone(&binding)), left.words().to_owned());
                    self.out.push_back(Action::Notify(Notice::PhoneGone { phone, at, because }));
                    let Binding { aor, contact, .. } = *binding;
                    self.out.push_back(Action::Save(Save::Unbind { aor, contact }));
                }
            }
        }
    }

    fn bound(&mut self, binding: Binding) {
        self.phone_changed(&binding);
        self.out.push_back(Action::Save(Save::Binding(Box::new(binding))));
    }

    fn came_or_went(&mut self, binding: &Binding, left: Option<Left>) {
        let Some(untold) = self.comings.note(self.now.mono) else { return };
        let told = Registration {
            extension: binding.aor.clone(),
            source: binding.flow,
            user_agent: binding.user_agent.clone(),
            expires_at: binding.expires_at,
            left,
            untold,
        };
        self.out.push_back(Action::Notify(Notice::Registration(Box::new(told))));
    }

    /// Tells readers what is known of a phone now.
    pub(super) fn phone_changed(&mut self, binding: &Binding) {
        self.out.push_back(Action::Notify(Notice::Phone(Box::new(self.phone(binding)))));
    }

    /// A phone that was opened needs not be kept any more.
    pub(super) fn forget(&mut self, opened: &Opened) {
        let call_id = opened.dialog.call_id.to_string();
        self.out.push_back(Action::Save(Save::Closed { call_id }));
    }

    fn phone(&self, binding: &Binding) -> PhoneView {
        let trouble = self.registrar.trouble(binding, self.now);
        let name = self.directory.extension(&binding.aor).map_or(String::new(), |e| e.name.to_string());
        PhoneView {
            extension: binding.aor.clone(),
            name,
            registered: true,
            contact: binding.contact.clone(),
            transport: binding.flow.transport.param().to_owned(),
            source: binding.flow.remote.to_string(),
            user_agent: binding.user_agent.clone(),
            expires_at: binding.expires_at,
            trouble: trouble.map(|(trouble, _)| trouble),
            trouble_until: trouble.and_then(|(_, until)| until),
            unanswered_at: self.registrar.unanswered(binding),
        }
    }
}

impl Live for Node {
    fn bindings(&self, extension: &str) -> usize {
        self.registrar.bindings(extension, self.now).count()
    }

    fn registered(&self, extension: &str) -> bool {
        self.registrar.registered(extension, self.now).next().is_some()
    }

    fn calls(&self, extension: &str) -> u32 {
        self.busy.get(extension).map_or(0, |calls| calls.len() as u32)
    }

    fn trunk_up(&self, trunk: &str) -> bool {
        self.trunks.is_up(trunk)
    }

    fn trunk_calls(&self, trunk: &str) -> u32 {
        self.trunks.calls(trunk)
    }

    fn sticky(&self, customer: E164) -> Option<(E164, Wall)> {
        self.sticky.of(customer)
    }

    fn agent(&self, extension: &str) -> queue::Agent {
        self.line.agent(extension)
    }

    fn last_rung(&self, queue: &str) -> Option<Label> {
        self.line.last_rung(queue).cloned()
    }
}

impl Switch for Node {
    fn places(&mut self, way: &Way) -> Vec<Place> {
        match way {
            Way::Extension(number) => {
                let place = |b: &Binding| Place {
                    flow: b.flow,
                    uri: b.contact.clone(),
                    route: b
                        .path
                        .iter()
                        .map(|p| if p.starts_with('<') { p.clone() } else { format!("<{p}>") })
                        .collect(),
                    media: self.media,
                    agent: b.user_agent.clone(),
                };
                self.registrar.bindings(number, self.now).map(place).collect()
            }
            Way::Trunk { trunk, user, .. } => {
                let place = |(flow, uri): (Flow, Label)| Place {
                    flow,
                    uri: with_user(&uri, user, &flow),
                    route: Vec::new(),
                    media: self.media,
                    agent: None,
                };
                self.trunks.places(trunk).into_iter().map(place).collect()
            }
        }
    }

    fn reach(&self, extension: &str) -> Option<Flow> {
        self.registrar.bindings(extension, self.now).next().map(|b| b.flow)
    }

    fn take_port(&mut self, now: Instant, call: CallKey) -> Option<Port> {
        let port = self.ports.take(now)?;
        self.port_owner.insert(port, call);
        Some(port)
    }

    fn give_port(&mut self, now: Instant, port: Port) {
        self.port_owner.remove(&port);
        self.ports.give(now, port);
    }

    fn media(&mut self, worker: u16, command: Command) {
        self.out.push_back(Action::Media { worker, command });
    }

    fn occupy(&mut self, call: CallKey, peer: &Peer, extension: Option<&Label>, more: bool) {
        if let Peer::Trunk { trunk, .. } = peer {
            self.trunks.occupy(trunk, more);
        }
        let Some(extension) = extension else { return };
        let calls = self.busy.entry(extension.clone()).or_default();
        match (calls.iter().position(|(key, _)| *key == call), more) {
            (Some(at), true) => calls[at].1 += 1,
            (None, true) => calls.push((call, 1)),
            (Some(at), false) if calls[at].1 > 1 => calls[at].1 -= 1,
            (Some(at), false) => drop(calls.remove(at)),
            (None, false) => {}
        }
        if calls.is_empty() {
            self.busy.remove(extension);
            self.line.wake();
        }
    }

    fn join(&mut self, queue: &Label, call: CallKey) -> Option<Ticket> {
        self.line.join(queue, call)
    }

    fn leave(&mut self, ticket: Ticket) {
        self.line.leave(ticket);
    }

    fn again(&mut self, ticket: Ticket) {
        self.line.again(ticket);
    }

    fn rang(&mut self, queue: &Label, agent: &Label) {
        self.line.rang(queue, agent);
    }

    fn idle(&mut self, now: Instant, agent: &Label, wrap_up: Duration) {
        if let Some(until) = self.line.idle(now, agent, wrap_up) {
            self.timers.arm(until, Due::Line);
        }
    }

    fn trunk_said(&mut self, now: Now, trunk: &str, flow: &Flow, fault: Option<&str>) {
        self.trunks.said(now, trunk, flow, fault, &mut self.wants);
    }

    fn phone_said(&mut self, now: Now, extension: &str, flow: &Flow, answered: bool) {
        for binding in self.registrar.invited(now, extension, flow, answered) {
            self.phone_changed(&binding);
        }
    }

    fn take_over(&mut self, page: CallKey, extension: &Label, words: &str) {
        self.taken_over.push(TakenOver { page, extension: extension.clone(), words: words.to_owned() });
    }

    fn named(&mut self, call: RecordId, call_id: &str, who: &Peer) {
        self.ladder.leg(call, call_id, who.clone());
    }

    fn recording(&mut self, call: CallKey, recording: RecordingId, begins: bool) {
        match begins {
            true => self.recording_owner.insert(recording, call),
            false => self.recording_owner.remove(&recording),
        };
    }

    fn opened(&mut self, opened: &Opened, anew: bool) -> bool {
        if anew && self.opened >= MAX_OPENED {
            return false;
        }
        self.opened += usize::from(anew);
        self.out.push_back(Action::Save(Save::Opened(Box::new(opened.clone()))));
        true
    }

    fn closed(&mut self, opened: &Opened) {
        self.opened = self.opened.saturating_sub(1);
        self.forget(opened);
    }

    fn met(&mut self, customer: E164, ours: E164) {
        self.sticky.met(Met { customer, ours, at: self.now.wall });
    }

    fn ask_hook(&mut self, query: HookQuery, hook: Arc<Hook>, question: Box<Question>) {
        self.out.push_back(Action::AskHook { query, hook, question });
    }

    fn changed(&mut self, live: LiveCall) {
        self.out.push_back(Action::Notify(Notice::Call(Box::new(live))));
    }

    fn save(&mut self, record: Box<CallRecord>) {
        self.out.push_back(Action::Notify(Notice::Ended(record.id)));
        self.out.push_back(Action::Save(Save::Record(record)));
    }

    fn arm_leg(&mut self, at: Instant, leg: LegKey) {
        self.timers.arm(at, Due::Leg(leg));
    }

    fn arm_call(&mut self, at: Instant, call: CallKey) {
        self.timers.arm(at, Due::Call(call));
    }
}

/// A trunk's URI with the user that is called.
fn with_user(uri: &str, user: &str, flow: &Flow) -> String {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("sip", uri));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = if host.is_empty() { flow.remote.to_string() } else { host.to_owned() };
    format!("{scheme}:{user}@{host}")
}
