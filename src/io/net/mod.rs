//! Listening sockets: they are opened here and nowhere else, so that they can be handed to a next process one day.

pub mod batch;
pub mod tcp;
pub mod udp;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::directory::Listen;
use crate::sip::transport::Transport;

/// Connections that the kernel holds until we accept them.
const BACKLOG: i32 = 1024;

/// Where we listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Transport.
    pub transport: Transport,
    /// The socket's own address, with the real port where the configuration says 0.
    pub bound: SocketAddr,
    /// The same as others see it: Via, Contact, `Flow::local`.
    pub local: SocketAddr,
}

/// All listening sockets, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Where, in the order of the configuration.
    pub addresses: Vec<Address>,
    /// UDP sockets, for the engine.
    pub udp: Vec<udp::Socket>,
    /// TCP sockets with their addresses as others see them, for [`tcp`].
    pub tcp: Vec<(TcpListener, SocketAddr)>,
    /// The smallest kernel buffer that a UDP socket got, in bytes.
    pub buffer: usize,
}

impl Listeners {
    /// Binds everything, or says what is in the way.
    pub fn bind(listen: &[Listen]) -> Result<Listeners, CannotListen> {
        let mut listeners = Listeners { buffer: usize::MAX, ..Listeners::default() };
        for entry in listen {
            let wrong = |error| CannotListen { transport: entry.transport, bind: entry.bind, error };
            listeners.add(entry).map_err(wrong)?;
        }
        Ok(listeners)
    }

    fn add(&mut self, entry: &Listen) -> io::Result<()> {
        let seen = |bound: SocketAddr| Address {
            transport: entry.transport,
            bound,
            local: SocketAddr::new(entry.advertise.unwrap_or(bound.ip()), bound.port()),
        };
        let address = match entry.transport {
            Transport::Udp => {
                let socket = open(entry.bind, Type::DGRAM, Protocol::UDP)?;
                let socket = UdpSocket::from(socket);
                let address = seen(socket.local_addr()?);
                let (socket, buffer) = udp::Socket::new(socket, address.local)?;
                self.buffer = self.buffer.min(buffer);
                self.udp.push(socket);
                address
            }
            Transport::Tcp => {
                let socket = open(entry.bind, Type::STREAM, Protocol::TCP)?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                let socket = TcpListener::from(socket);
                let address = seen(socket.local_addr()?);
                self.tcp.push((socket, address.local));
                address
            }
            Transport::Tls | Transport::Ws | Transport::Wss => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "not yet"));
            }
        };
        self.addresses.push(address);
        Ok(())
    }
}

/// A listener that could not be opened.
#[derive(Debug)]
pub struct CannotListen {
    /// Transport.
    pub transport: Transport,
    /// As configured.
    pub bind: SocketAddr,
    /// What the system says.
    pub error: io::Error,
}

impl std::error::Error for CannotListen {}

impl fmt::Display for CannotListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, bind, port) = (self.transport.param(), self.bind, self.bind.port());
        write!(f, "cannot listen on {transport} {bind}: ")?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                let kind = if self.transport == Transport::Udp { 'u' } else { 't' };
                write!(
                    f,
                    "another program has this port (`ss -l{kind}np 'sport = :{port}'` shows which); \
                     stop it or change `bind` in [[listen]]"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "this machine has no such address (`ip addr` shows which it has); change `bind` in [[listen]]"
                )
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "not allowed; ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit"
                )
            }
            _ => write!(f, "{}", self.error),
        }
    }
}

fn open(bind: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), kind, Some(protocol))?;
    if bind.is_ipv6() {
        // An IPv4 peer is to appear as one; who wants both listens on both.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // After a restart old connections in TIME-WAIT do not keep the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(bind))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(transport: Transport, bind: &str) -> Listen {
        Listen { transport, bind: bind.parse().unwrap(), advertise: None }
    }

    #[test]
    fn ports_are_taken_and_told() {
        let listeners = Listeners::bind(&[
            listen(Transport::Udp, "127.0.0.1:0"),
            listen(Transport::Tcp, "127.0.0.1:0"),
            Listen { advertise: Some("203.0.113.7".parse().unwrap()), ..listen(Transport::Udp, "127.0.0.1:0") },
        ])
        .unwrap();
        assert!(listeners.addresses.iter().all(|a| a.bound.port() != 0 && a.local.port() == a.bound.port()));
        assert_eq!((listeners.udp.len(), listeners.tcp.len()), (2, 1));
        assert_eq!(listeners.addresses[2].local.ip().to_string(), "203.0.113.7");
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let taken =
            Listeners::bind(&[listen(Transport::Udp, "127.0.0.1:0"), listen(Transport::Tcp, "127.0.0.1:0")]).unwrap();
        for (i, (transport, hint)) in
            [(Transport::Udp, "ss -lunp"), (Transport::Tcp, "ss -ltnp")].into_iter().enumerate()
        {
            let bind = taken.addresses[i].bound;
            let error = Listeners::bind(&[Listen { transport, bind, advertise: None }]).unwrap_err().to_string();
            assert!(error.contains(&bind.to_string()) && error.contains(hint), "{error}");
        }
        let error = Listeners::bind(&[listen(Transport::Udp, "192.0.2.200:5060")]).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on udp 192.0.2.200:5060: ") && error.contains("ip addr"), "{error}");
    }
}
