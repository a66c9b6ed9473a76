//! Addresses of record and where they are now.

use serde::{Deserialize, Serialize};

use crate::base::Wall;
use crate::sip::transport::Flow;

/// Where a phone is (RFC 3261 section 10).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// Address of record: the extension's number.
    pub aor: String,
    /// Contact URI as the phone gave it, with its URI parameters.
    pub contact: String,
    /// `+sip.instance` and `reg-id`, by which a phone that moved replaces its own binding.
    pub instance: Option<String>,
    /// Path (RFC 3327), outermost first.
    pub path: Vec<String>,
    /// The flow that it registered by; calls go out over it.
    pub flow: Flow,
    /// Call-ID of the REGISTER.
    pub call_id: String,
    /// CSeq of the REGISTER.
    pub cseq: u32,
    /// q value times 1000.
    pub q: u16,
    /// User-Agent.
    pub user_agent: Option<String>,
    /// When it ends.
    pub expires_at: Wall,
}
