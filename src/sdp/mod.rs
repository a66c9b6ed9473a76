//! Session descriptions (RFC 8866) and the offer/answer rules over them (RFC 3264), as a back-to-back user agent needs them.

pub mod offer;
pub mod session;

pub use offer::{Origin, Rewrite};
pub use session::{Direction, Format, Media, SdpError, Session};
