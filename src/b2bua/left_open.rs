//! Phones that the run before us left open: a crash took it in the middle of a page or an intercom call. Each gets its BYE at
//! once (RFC 3261 section 15), and is forgotten when that was answered or nobody is there any more; the operator is told.
//!
//! ```text
//!   the store --BYE--> Asked --final answer, no answer, nobody there--> forgotten
//!                       |  ^
//!   its connection is   |  | it registers anew: BYE over that connection
//!   gone (TCP)          Waits --PATIENCE--> forgotten
//! ```
//!
//! A challenge is an answer like others, as in every dialog with a phone: whoever is at its address now would get a digest of the
//! extension's password.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::{Action, Closed, Notice};
use super::node::Node;
use super::{B2bua, USER_AGENT};
use crate::base::Instant;
use crate::call::leg::Opened;
use crate::call::{Owner, Switch};
use crate::sip::{Flow, Message, Method, Name};
use crate::transaction::Failure;

/// Phones that are kept at once; one more is opened all the same, and hangs up by itself should we crash (RFC 4028).
pub const MAX_OPENED: usize = 4096;
/// Far more requests than one dialog has between two writings: the BYE's number is surely higher than any that the phone has seen.
const LEAP: u32 = 1 << 20;
/// A phone whose connection is gone has so long to register anew; by then its session has run out.
const PATIENCE: Duration = Duration::from_secs(90);
/// What it is told.
const REASON: &str = "SIP;cause=480;text=\"the server was restarted\"";

/// Those that are not forgotten yet.
#[derive(Debug, Default)]
pub struct LeftOpen {
    list: BTreeMap<u32, Left>,
    next: u32,
}

#[derive(Debug)]
struct Left {
    opened: Opened,
    /// It registers anew until then; none: its BYE is under way.
    waits: Option<Instant>,
}

impl LeftOpen {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// When the next one is given up.
    pub fn deadline(&self) -> Option<Instant> {
        self.list.values().filter_map(|left| left.waits).min()
    }

    fn waiting(&self, fits: impl Fn(&Left, Instant) -> bool) -> Vec<u32> {
        let found = self.list.iter().filter(|(_, left)| left.waits.is_some_and(|until| fits(left, until)));
        found.map(|(number, _)| *number).collect()
    }
}

impl B2bua {
    /// The store remembers these.
    pub(super) fn left_open(&mut self, all: Vec<Opened>) {
        for mut opened in all {
            opened.dialog.local_seq = opened.dialog.local_seq.saturating_add(LEAP);
            // Written down again with its new number, should we crash too.
            if !self.node.opened(&opened, true) {
                self.node.forget(&opened);
                continue;
            }
            let number = self.left_open.next;
            self.left_open.next = number.wrapping_add(1);
            self.left_open.list.insert(number, Left { opened, waits: None });
            self.end_left_open(number);
        }
    }

    /// Its phone answered.
    pub(super) fn left_open_answered(&mut self, number: u32, msg: &Message) {
        let because = match msg.status() {
            100..=199 => return,
            200..=299 => "it hung up".to_owned(),
            481 => "it had hung up by itself".to_owned(),
            status => format!("it answered {status}"),
        };
        self.left_open_over(number, &because);
    }

    /// Nobody answered, or it could not be reached.
    pub(super) fn left_open_failed(&mut self, number: u32, failure: Option<Failure>) {
        let Some(left) = self.left_open.list.get_mut(&number) else { return };
        let tried = left.opened.dialog.flow;
        match failure {
            None => self.left_open_over(number, "no answer"),
            // A connection is not the phone (RFC 3261 18.4).
            Some(_) if tried.transport.reliable() => {
                if self.node.way_to(&left.opened).is_some_and(|way| way != tried) {
                    return self.end_left_open(number);
                }
                left.waits = Some(self.node.now.mono + PATIENCE);
            }
            Some(_) => self.left_open_over(number, "nobody listens there"),
        }
    }

    /// A phone of this extension has registered: it may be one whose connection is gone.
    pub(super) fn left_open_registered(&mut self, extension: &str) {
        for number in self.left_open.waiting(|left, _| left.opened.extension == extension) {
            self.end_left_open(number);
        }
    }

    /// Gives up those that did not register anew.
    pub(super) fn left_open_due(&mut self) {
        let now = self.node.now.mono;
        for number in self.left_open.waiting(|_, until| until <= now) {
            self.left_open_over(number, "its connection is gone, and it did not register again");
        }
    }

    /// Sends the BYE.
    fn end_left_open(&mut self, number: u32) {
        let Some(left) = self.left_open.list.get_mut(&number) else { return };
        let Some(flow) = self.node.way_to(&left.opened) else {
            return self.left_open_over(number, "no listener of ours reaches it any more");
        };
        left.opened.dialog.flow = flow;
        left.waits = None;
        let (key, branch) = self.tx.branch();
        let mut w = left.opened.dialog.request(Method::Bye, &branch, None);
        w.header(Name::Reason, REASON).header(Name::UserAgent, USER_AGENT);
        let (now, bytes) = (self.node.now.mono, w.finish());
        self.tx.request(now, key, flow, bytes, Method::Bye, Owner::LeftOpen(number), &mut self.said);
    }

    fn left_open_over(&mut self, number: u32, because: &str) {
        let Some(left) = self.left_open.list.remove(&number) else { return };
        self.node.closed(&left.opened);
        let closed = Closed { extension: left.opened.extension, because: because.to_owned() };
        self.node.out.push_back(Action::Notify(Notice::Closed(Box::new(closed))));
    }
}

impl Node {
    /// The path now to a phone that the run before us opened: by the listener that it knows; one that came by a connection is
    /// where it is registered now, or where it was.
    fn way_to(&self, opened: &Opened) -> Option<Flow> {
        let old = opened.dialog.flow;
        let same = |now: &Flow| now.transport == old.transport && now.remote.ip() == old.remote.ip();
        match old.transport.reliable() {
            true => self.reach(&opened.extension).filter(same),
            false => Some(Flow { conn: 0, ..old }).filter(|_| self.locals.0.contains(&(old.transport, old.local))),
        }
        .or_else(|| self.locals.flow_to(old.transport, old.remote))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Event, Save, Settings};
    use super::*;
    use crate::base::{Now, Wall};
    use crate::dialog::Dialog;
    use crate::directory::{Directory, Extension, Node as ThisNode};
    use crate::sip::{Transport, Writer};

    /// A core that has just started, and what came of what it was told last.
    struct Run {
        b2bua: B2bua,
        at: Instant,
        sent: Vec<(Flow, Message)>,
        kept: Vec<Opened>,
        forgotten: Vec<String>,
        told: Vec<Closed>,
    }

    const HERE: &str = "192.0.2.1:5060";
    const THERE: &str = "192.0.2.9:5062";

    fn opened(n: usize, transport: Transport) -> Opened {
        let [local, remote] = [HERE, THERE].map(|a| a.parse().expect("an address"));
        let dialog = Dialog {
            call_id: format!("1-{n}").into(),
            local_tag: "1.2.3".into(),
            remote_tag: "r".into(),
            local: "<sip:121@lab.example>".into(),
            remote: "<sip:601@lab.example>".into(),
            local_seq: 3,
            remote_seq: None,
            remote_invite: false,
            target: "sip:601@192.0.2.9:5062".into(),
            routes: Box::default(),
            early: false,
            flow: Flow { transport, local, remote, conn: 7 },
        };
        Opened { extension: "601".to_owned(), dialog }
    }

    impl Run {
        fn of(all: Vec<Opened>) -> Run {
            let mut directory = Directory::empty(ThisNode::new("lab", "lab.example"));
            directory.extensions.push(Extension::new("601", "Shop", "correct horse"));
            let here = HERE.parse().expect("an address");
            let listen = vec![(Transport::Udp, here), (Transport::Tcp, here)];
            let b2bua = B2bua::new(Arc::new(directory.indexed()), Settings { listen, ..Settings::default() }, [7; 32]);
            let (sent, kept, forgotten, told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let mut run = Run { b2bua, at: Instant::from_micros(1), sent, kept, forgotten, told };
            run.hear(Event::LeftOpen(all));
            run
        }

        fn hear(&mut self, event: Event) {
            self.sent.clear();
            self.b2bua.handle(Now { mono: self.at, wall: Wall::default() }, event);
            while let Some(action) = self.b2bua.poll() {
                match action {
                    Action::Send { flow, bytes } => self.sent.push((flow, Message::parse(bytes).expect("ours"))),
                    Action::Save(Save::Opened(opened)) => self.kept.push(*opened),
                    Action::Save(Save::Closed { call_id }) => self.forgotten.push(call_id),
                    Action::Notify(Notice::Closed(closed)) => self.told.push(*closed),
                    other => panic!("{other:?}"),
                }
            }
        }

        /// The phone answers what it got last.
        fn answers(&mut self, status: u16) {
            let (flow, bye) = self.sent.last().cloned().expect("it got something");
            let bytes = Writer::answer(&bye, flow.local, status, "So", None).finish();
            self.hear(Event::Received { flow, bytes });
        }

        /// Time passes until nothing is due any more.
        fn wait(&mut self) {
            while let Some(at) = self.b2bua.deadline() {
                self.at = at;
                self.hear(Event::Tick);
            }
        }

        fn because(&self) -> Vec<&str> {
            self.told.iter().map(|closed| &*closed.because).collect()
        }
    }

    #[test]
    fn each_gets_a_bye_that_it_cannot_take_for_an_old_one() {
        let run = Run::of(vec![opened(1, Transport::Udp), opened(2, Transport::Udp)]);
        assert_eq!(run.b2bua.status().left_open, 2);
        for (n, ((flow, bye), kept)) in run.sent.iter().zip(&run.kept).enumerate() {
            assert_eq!((bye.method(), bye.call_id()), (Method::Bye, &*format!("1-{}", n + 1)));
            assert_eq!((bye.from_tag(), bye.to_tag()), (Some("1.2.3"), Some("r")));
            assert_eq!(bye.cseq().seq, 4 + LEAP);
            assert_eq!((flow.remote.to_string(), flow.conn), (THERE.to_owned(), 0));
            // Should we crash once more, the next BYE has a higher number still.
            assert_eq!(kept.dialog.local_seq, 3 + LEAP);
        }
        assert_eq!(run.sent.len(), 2);
    }

    #[test]
    fn it_is_forgotten_when_it_answered_or_nobody_is_there() {
        for (status, words) in [(200, "it hung up"), (481, "it had hung up by itself"), (401, "it answered 401")] {
            let mut run = Run::of(vec![opened(1, Transport::Udp)]);
            run.answers(status);
            assert_eq!((run.because(), &*run.forgotten), (vec![words], &["1-1".to_owned()][..]), "{status}");
            assert_eq!(run.b2bua.status().left_open, 0);
        }
        let mut run = Run::of(vec![opened(1, Transport::Udp)]);
        run.wait();
        assert_eq!((run.because(), run.forgotten.len()), (vec!["no answer"], 1));
        let mut run = Run::of(vec![opened(1, Transport::Udp)]);
        let flow = run.sent[0].0;
        run.hear(Event::FlowLost { flow });
        assert_eq!((run.because(), run.forgotten.len()), (vec!["nobody listens there"], 1));
    }

    #[test]
    fn one_whose_connection_is_gone_has_until_its_session_runs_out() {
        let mut run = Run::of(vec![opened(1, Transport::Tcp)]);
        let flow = run.sent[0].0;
        assert_eq!((flow.transport, flow.conn), (Transport::Tcp, 0));
        run.hear(Event::FlowLost { flow });
        assert_eq!((run.told.len(), run.b2bua.status().left_open), (0, 1));
        run.wait();
        assert_eq!(run.because(), ["its connection is gone, and it did not register again"]);
        assert_eq!(run.at, Instant::from_micros(1) + PATIENCE);
    }

    #[test]
    fn no_more_are_kept_than_there_may_be() {
        let run = Run::of((0..=MAX_OPENED).map(|n| opened(n, Transport::Udp)).collect());
        assert_eq!((run.sent.len(), run.kept.len()), (MAX_OPENED, MAX_OPENED));
        assert_eq!(run.forgotten, [format!("1-{MAX_OPENED}")]);
    }
}
