//! The whole as one value.

pub mod action;
pub mod event;
pub mod ladder;
pub mod ports;

pub use action::{Action, LiveCall, Notice, PhoneView, Save, TrunkView};
pub use event::{Ask, CommandId, Event, QueryId};
