//! The simulated world that strowger is tested in, on virtual time and without a socket.
//!
//! - [`phone`]: telephones and carriers written from the RFCs alone. They never use `strowger::sip`, so that a misreading
//!   of ours does not agree with itself.
//! - [`net`]: delay, loss, duplication and reordering, drawn from a seed.
//! - [`world`]: the clock, the network, the phones, the core under test and its pure media relay, driven together.
//! - [`oracle`]: what must hold after every step, whatever the world did.
//! - [`ladder`]: scenario files that a telephone admin can read (`ladders/*.ladder`, the language is described there).
//! - [`swarm`]: a seed draws a world and minutes of its life; [`queues`]: what must hold of who is rung when.
//!
//! `cargo test -p sip-tests --test ladders [NAME]` and `cargo test --release -p sip-tests --test swarm`.

pub mod core;
pub mod ladder;
pub mod net;
pub mod office;
pub mod oracle;
pub mod phone;
pub mod queues;
pub mod sounds;
pub mod swarm;
pub mod world;

/// Microseconds of virtual time since the world began.
pub type Time = u64;

/// One millisecond of [`Time`].
pub const MS: Time = 1_000;

/// One second of [`Time`].
pub const SEC: Time = 1_000_000;
