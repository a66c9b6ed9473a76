//! What carries a message, and between which two addresses (RFC 3261 section 18, RFC 7118). No sockets.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A plain stream.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket over TLS (RFC 7118).
    Wss,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 5] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

    /// Reads a Via's transport or a URI's `transport` parameter, in any case.
    pub fn from_token(token: &str) -> Option<Transport> {
        Self::ALL.into_iter().find(|t| t.via_token().eq_ignore_ascii_case(token))
    }

    /// As a Via header has it.
    pub fn via_token(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// As a URI's `transport` parameter has it.
    pub fn param(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    /// Whether the transport itself repeats what was lost, so that transactions need not.
    pub fn reliable(self) -> bool {
        self != Transport::Udp
    }

    /// Whether the transport is encrypted.
    pub fn secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// The port when nobody names one (RFC 3261 19.1.2, RFC 7118 5.2).
    pub fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
            Transport::Ws => 80,
            Transport::Wss => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.param())
    }
}

/// The path a message came on, or is to leave by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Flow {
    /// What carries it.
    pub transport: Transport,
    /// The listening socket's address, as others see it.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// Which connection. 0: a datagram, or "connect or reuse" on a reliable transport.
    pub conn: u32,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_both_ways() {
        for t in Transport::ALL {
            assert_eq!(Transport::from_token(t.via_token()), Some(t));
            assert_eq!(Transport::from_token(t.param()), Some(t));
        }
        assert_eq!(Transport::from_token("SCTP"), None);
    }
}
