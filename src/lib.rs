//! strowger: an embedded SIP back-to-back user agent and company telephone edge.

pub mod base;
pub mod call;
pub mod dialog;
pub mod directory;
pub mod b2bua;
#[cfg(feature = "io")]
pub mod io;
pub mod media;
pub mod policy;
pub mod registrar;
pub mod sdp;
pub mod sip;
pub mod transaction;
