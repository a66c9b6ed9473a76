//! stub until the sip layer lands
use serde::{Deserialize, Serialize};
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Transport { Udp, Tcp, Tls, Ws, Wss }
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Flow { pub transport: Transport, pub local: std::net::SocketAddr, pub remote: std::net::SocketAddr, pub conn: u32 }
