//! sip
pub mod digest; pub mod transport;
