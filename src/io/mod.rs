//! The world: threads, sockets, files and the clock. The only folder that may name them; it tells the core what happened and
//! does what the core wants done.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
pub mod config;
pub mod engine;
pub mod metrics;
pub mod net;
pub mod record;
pub mod relay;
pub mod store;
pub mod dns;
