//! SIP on the wire (RFC 3261 sections 7, 8, 18 to 20 and 25): a bounded, copy-free parser, a writer that cannot be made to split
//! headers, stream framing, digest, and the checks at the door.
//!
//! ```text
//! bytes --Framer--> one message --Message::parse--> Message --door::check--> transaction, registrar, calls
//!                      |                 |                          |
//!                      +-----Malformed (drop, or a stateless answer)+--Refusal
//! ```
//!
//! It holds no state beyond one message (or one stream's unread bytes), never panics on what comes from outside, and knows nothing of
//! transactions or dialogs.

mod chars;
pub mod digest;
pub mod door;
pub mod header;
pub mod limits;
pub mod message;
mod multipart;
pub mod name;
pub mod originate;
pub mod print;
pub mod proof;
pub mod transport;
pub mod uri;
pub mod wire;

pub use message::{CSeq, Drop, Malformed, Message, Refusal};
pub use name::{Method, Name};
pub use print::{Writer, phrase, quote};
pub use transport::{Flow, Transport};
pub use uri::{Bad, NameAddr, Params, Scheme, Uri, Via};
pub use wire::{FrameError, Framer};
