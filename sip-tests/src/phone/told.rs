//! What a phone is told: its habits, and what it is to do now. Doing it is `uac` and `uas`.

use super::text::Msg;
use crate::Time;

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
    /// It knows UPDATE (RFC 3311).
    pub update: bool,
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
    /// It may hear several at once: it speaks over loudspeakers that talk back.
    pub hears_many: bool,
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
            update: true,
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
            hears_many: false,
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
    /// The INVITE of its last call once more, as if by another proxy: another branch, and perhaps to another number; else the same.
    InviteByAnotherWay(Option<String>),
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
