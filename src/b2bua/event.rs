//! What the world tells the core.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::ladder::Traced;
use super::sticky::Met;
use crate::call::hook::HookQuery;
use crate::call::leg::Opened;
use crate::call::record::RecordId;
use crate::directory::{Directory, Label};
use crate::media;
use crate::media::sound::SoundName;
use crate::policy;
use crate::policy::hook::Outcome;
use crate::registrar::Binding;
use crate::sip::transport::{Flow, Transport};

/// A question to the resolver, as the core numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueryId(pub u32);

/// A command from outside, as its sender numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// One whole message arrived: a datagram, or a frame of a stream.
    Received {
        /// Where it arrived and from where.
        flow: Flow,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A deadline passed.
    Tick,
    /// A datagram bounced (ICMP), or a connection was refused, reset or closed. With `conn` 0 everything that is on its
    /// way to that remote address by that transport has failed.
    FlowLost {
        /// Which.
        flow: Flow,
    },
    /// The resolver answered; an empty list is a failure.
    Resolved {
        /// The question.
        query: QueryId,
        /// Targets in the order to try (RFC 3263, RFC 2782).
        targets: Vec<Resolved>,
    },
    /// A routing hook answered, or why it did not.
    HookAnswer {
        /// The question.
        query: HookQuery,
        /// What came of it.
        outcome: Box<Outcome>,
    },
    /// A media worker or a recorder has news.
    Media(media::Output),
    /// RTP ports that are bound and free to use from now on.
    PortsReady(Vec<media::Port>),
    /// A new configuration.
    Directory(Arc<Directory>),
    /// Somebody asks for something.
    Command {
        /// Answered with [`crate::b2bua::Action::Reply`] under the same number.
        id: CommandId,
        /// What.
        ask: Ask,
    },
    /// Bindings that the store kept over a restart.
    Restore(Vec<Binding>),
    /// Phones that answered by themselves and were not closed before the restart, as the store kept them; after [`Event::Restore`].
    LeftOpen(Vec<Opened>),
    /// Which customers called which number of ours, or were shown it, as the store's records say, the oldest first; the last
    /// [`MAX_STICKY`] are kept.
    ///
    /// [`MAX_STICKY`]: crate::b2bua::MAX_STICKY
    Met(Vec<Met>),
    /// No new calls from now on; calls in progress go on.
    Drain,
}

/// One target of a resolved name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// By this transport.
    pub transport: Transport,
    /// To this address.
    pub address: IpAddr,
    /// And port.
    pub port: u16,
}

/// What a command asks.
#[derive(Clone, Debug)]
pub enum Ask {
    /// The ladder of a call, live or past, as long as the ring holds its messages.
    Ladder(RecordId),
    /// The last messages that belong to no call: `{items, next}`.
    Trace(Traced),
    /// What would become of a call; the answer is `{error}` if there can be no such call.
    Explain(policy::explain::Question),
    /// Counters and table sizes.
    Status,
    /// Plays a sound over a page, without a caller. Answered with `{call, with}`, or `{error}` if nobody can hear it.
    Page {
        /// The page's number.
        page: Label,
        /// Which sound of the library.
        sound: SoundName,
    },
    /// Ends a call.
    Hangup(RecordId),
    /// Ends all calls.
    HangupAll,
    /// Sets what an extension's user asks for; what is none stays. Answered with both, or `null` for an unknown extension.
    Agent {
        /// Whose.
        extension: Label,
        /// Nothing rings there.
        do_not_disturb: Option<bool>,
        /// No queue and no group rings there.
        paused: Option<bool>,
    },
}
