//! What the core asks the world to do.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::event::{CommandId, QueryId};
use crate::base::Wall;
pub use crate::call::LiveCall;
use crate::call::hook::HookQuery;
use crate::call::leg::Opened;
use crate::call::record::{CallRecord, RecordId};
use crate::directory::{Hook, Label};
use crate::media;
use crate::policy::hook::Question;
use crate::registrar::Binding;
use crate::registrar::Left;
pub use crate::registrar::{LoginFailed, Trouble};
use crate::sip::transport::{Flow, Transport};

/// What to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message. For a reliable transport with `conn` 0: over a connection to that remote, opened if there is none.
    Send {
        /// From where to where.
        flow: Flow,
        /// What.
        bytes: Bytes,
    },
    /// Resolve a name by RFC 3263: NAPTR is not asked; SRV if there is no port; A and AAAA.
    Resolve {
        /// The question's number.
        query: QueryId,
        /// Host name.
        host: String,
        /// Port, if the URI has one.
        port: Option<u16>,
        /// Transport, if the URI says one.
        transport: Option<Transport>,
    },
    /// Ask a routing hook; the answer is [`super::Event::HookAnswer`].
    AskHook {
        /// The question's number.
        query: HookQuery,
        /// Whom to ask, and how.
        hook: Arc<Hook>,
        /// What.
        question: Box<Question>,
    },
    /// Tell a media worker.
    Media {
        /// Which worker, 0-based.
        worker: u16,
        /// What.
        command: media::Command,
    },
    /// Put something into the store. Never waited for.
    Save(Save),
    /// Tell readers outside what changed.
    Notify(Notice),
    /// The answer to a command.
    Reply {
        /// Which.
        id: CommandId,
        /// As JSON; `null` where nothing was found.
        answer: serde_json::Value,
    },
}

/// What goes into the store.
#[derive(Clone, Debug)]
pub enum Save {
    /// A finished call. Saving the same id again replaces it (a recording was closed later).
    Record(Box<CallRecord>),
    /// A binding is new or refreshed.
    Binding(Box<Binding>),
    /// A binding is gone.
    Unbind {
        /// Address of record: the extension's number.
        aor: String,
        /// The binding's contact URI.
        contact: String,
    },
    /// A phone answered by itself, or its dialog has changed. Kept over a restart ([`super::Event::LeftOpen`]).
    Opened(Box<Opened>),
    /// Such a phone is closed again.
    Closed {
        /// The Call-ID of its dialog.
        call_id: String,
    },
}

/// A change of what readers see.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A call began or changed.
    Call(Box<LiveCall>),
    /// A call is over.
    Ended(RecordId),
    /// A phone registered or refreshed.
    Phone(Box<PhoneView>),
    /// A phone's binding is gone.
    PhoneGone {
        /// What it was.
        phone: Box<PhoneView>,
        /// When it went.
        at: Wall,
        /// Why, in words.
        because: String,
    },
    /// A trunk changed.
    Trunk(Box<TrunkView>),
    /// Somebody did not get in. Not every time: see [`LoginFailed`].
    LoginFailed(Box<LoginFailed>),
    /// A carrier's call was not taken. Not every time: see [`NotTaken`].
    NotTaken(Box<NotTaken>),
    /// A phone came or went; not that it came again.
    Registration(Box<Registration>),
    /// A phone that a crash had left open is closed.
    Closed(Box<Closed>),
}

/// A phone came or went. One line of the log; at most [`Registration::LINES`] a minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Extension.
    pub extension: String,
    /// The flow that it registered by.
    pub source: Flow,
    /// User-Agent: the phone's words, to be escaped wherever they are written.
    pub user_agent: Option<String>,
    /// Until when it is registered, unless it comes again.
    pub expires_at: Wall,
    /// Why it is gone; none: it came.
    pub left: Option<Left>,
    /// Such lines that were not written since the last one.
    pub untold: u32,
}

impl Registration {
    /// Lines in a minute: a whole company that comes back after a power cut, and no phone that is out of its mind.
    pub const LINES: u32 = 600;
}

/// A phone or loudspeaker that answered by itself, and that the run before us left open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closed {
    /// The extension's number.
    pub extension: String,
    /// What became of it, in words of ours.
    pub because: String,
}

/// A carrier called a number that is none of its trunk's: it was challenged like any stranger, and its customer hears that
/// there is no such number. One line of the log, the same a minute later at the earliest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotTaken {
    /// The trunk whose address it came from.
    pub trunk: Label,
    /// What was called, as it stood in the request-URI: a stranger's words, to be escaped wherever they are written.
    pub called: String,
    /// Where it came from.
    pub source: Flow,
    /// Why it was not taken, and what to configure.
    pub because: String,
    /// The same again since the last line of it.
    pub again: u32,
    /// Such calls of anybody since the last line of all that were not told.
    pub untold: u32,
}

/// A phone's binding, as readers see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PhoneView {
    /// Extension.
    pub extension: String,
    /// Person or place.
    pub name: String,
    /// Always true: a phone that is not registered has no view.
    pub registered: bool,
    /// Contact URI.
    pub contact: String,
    /// `udp`, `tcp`.
    pub transport: String,
    /// Where its packets come from.
    pub source: String,
    /// User-Agent.
    pub user_agent: Option<String>,
    /// When the binding ends unless refreshed.
    pub expires_at: Wall,
    /// Why calls may not reach it although it is registered; none where nothing is known against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// Until when that counts, unless it registers again; none: until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble_until: Option<Wall>,
    /// When it left an INVITE without any answer; none if it answered the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_at: Option<Wall>,
}

/// A trunk, as readers see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrunkView {
    /// Name.
    pub name: String,
    /// Whether calls go out by it.
    pub up: bool,
    /// Since when that has been so.
    pub since: Wall,
    /// Why, in words: the last answer, or that there was none.
    pub because: String,
    /// `registered`, `not yet registered`, `expired`, `registration refused: 403 Forbidden`, `registration failed: no answer`, or none
    /// where we do not register.
    pub registration: Option<String>,
    /// Calls in progress.
    pub calls: u32,
    /// Each URI with its state.
    pub uris: Vec<String>,
}
