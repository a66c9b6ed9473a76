//! The sockets of the RTP ports: bound in blocks by a thread of their own, ahead of need, and reported; kept for good.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

use crate::media::Port;

/// Pairs that are bound at a time.
pub const BLOCK: usize = 256;
/// Descriptors that are left to everybody else.
const RESERVE: usize = 256;
/// Expedited forwarding (RFC 3246) in the type-of-service byte: what telephones use for voice.
const VOICE: u32 = 0xb8;

/// RTP and RTCP, on a port and the next.
#[derive(Debug)]
pub struct Pair {
    /// The even port.
    pub rtp: UdpSocket,
    /// The next.
    pub rtcp: UdpSocket,
}

/// All pairs of the range; each is bound once and never closed.
#[derive(Debug)]
pub struct Sockets {
    ip: IpAddr,
    first: u16,
    pairs: Box<[OnceLock<Pair>]>,
    next: AtomicUsize,
}

impl Sockets {
    /// A range without sockets yet. An odd first port is skipped, as is a last one without its partner.
    pub fn new(ip: IpAddr, ports: RangeInclusive<u16>) -> Sockets {
        let first = ports.start().div_ceil(2) * 2;
        let count = (usize::from(*ports.end()) + 1).saturating_sub(usize::from(first)) / 2;
        Sockets { ip, first, pairs: (0..count).map(|_| OnceLock::new()).collect(), next: AtomicUsize::new(0) }
    }

    /// Which pair a port is, if it is of the range.
    pub fn index(&self, port: Port) -> Option<usize> {
        let offset = usize::from(port.0.checked_sub(self.first)?);
        (offset % 2 == 0 && offset / 2 < self.pairs.len()).then_some(offset / 2)
    }

    /// The port of a pair.
    pub fn port(&self, index: usize) -> Port {
        Port(self.first + 2 * index as u16)
    }

    /// The sockets of a pair, if they are bound.
    pub fn pair(&self, index: usize) -> Option<&Pair> {
        self.pairs.get(index)?.get()
    }

    /// Binds the next block. What somebody else has is left out; nothing is returned at the end of the range, or of the
    /// process's descriptors. One thread at a time.
    pub fn bind_block(&self) -> Vec<Port> {
        let mut bound = Vec::with_capacity(BLOCK);
        while bound.len() < BLOCK {
            let index = self.next.load(Ordering::Relaxed);
            if index >= self.pairs.len() {
                break;
            }
            match self.bind(self.port(index)) {
                Ok(pair) => {
                    let _ = self.pairs[index].set(pair);
                    bound.push(self.port(index));
                }
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
                    ) =>
                {
                    tracing::error!(%error, port = self.port(index).0, "no more RTP ports can be bound");
                    break;
                }
                Err(error) => tracing::debug!(%error, port = self.port(index).0, "RTP port left out"),
            }
            self.next.store(index + 1, Ordering::Relaxed);
        }
        bound
    }

    fn bind(&self, port: Port) -> io::Result<Pair> {
        let bind = |port: u16| {
            let socket = UdpSocket::bind(SocketAddr::new(self.ip, port))?;
            socket.set_nonblocking(true)?;
            // A network that does not let us mark our packets carries them all the same.
            let _ = match self.ip {
                IpAddr::V4(_) => SockRef::from(&socket).set_tos_v4(VOICE),
                IpAddr::V6(_) => SockRef::from(&socket).set_tclass_v6(VOICE),
            };
            self.to_groups(&SockRef::from(&socket));
            Ok::<UdpSocket, io::Error>(socket)
        };
        Ok(Pair { rtp: bind(port.0)?, rtcp: bind(port.0 + 1)? })
    }

    /// What goes to a multicast group goes out by the interface that we are bound to, and no router passes it on. A machine
    /// without multicast relays calls all the same.
    fn to_groups(&self, socket: &SockRef<'_>) {
        let _ = match self.ip {
            IpAddr::V4(ip) if ip.is_unspecified() => socket.set_multicast_ttl_v4(GROUP_HOPS),
            IpAddr::V4(ip) => socket.set_multicast_ttl_v4(GROUP_HOPS).and_then(|()| socket.set_multicast_if_v4(&ip)),
            IpAddr::V6(_) => socket.set_multicast_hops_v6(GROUP_HOPS),
        };
    }
}

/// Routers that an announcement to a multicast group passes: none.
const GROUP_HOPS: u32 = 1;

/// Raises the limit of open files as far as we may, and says how many pairs fit under it.
pub fn allowance() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return BLOCK };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // A small limit is shared by halves.
    limit.saturating_sub(RESERVE).max(limit / 2) / 2
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_range_is_pairs_of_even_ports() {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (range, pairs, first) in
            [(20000..=20003, 2, 20000), (20001..=20004, 1, 20002), (20001..=20002, 0, 20002), (65534..=65535, 1, 65534)]
        {
            let sockets = Sockets::new(localhost, range);
            assert_eq!((sockets.pairs.len(), sockets.first), (pairs, first));
            for index in 0..pairs {
                assert_eq!(sockets.index(sockets.port(index)), Some(index));
            }
            assert_eq!(sockets.index(Port(first + 1)), None);
            assert!(sockets.pair(0).is_none());
        }
        assert!(allowance() > 0);
    }

    #[test]
    fn what_somebody_else_has_is_left_out() {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let taken = UdpSocket::bind((localhost, 0)).expect("a port");
        let port = taken.local_addr().map(|a| a.port()).expect("an address").clamp(1028, 65000) & !1;
        let sockets = Sockets::new(localhost, port - 4..=port + 5);
        let bound = sockets.bind_block();
        assert!(!bound.contains(&Port(port)) && !bound.is_empty(), "{port} {bound:?}");
        assert!(sockets.bind_block().is_empty());
        assert!(bound.iter().all(|port| sockets.index(*port).is_some_and(|i| sockets.pair(i).is_some())));
        // What goes to a group goes out by our own interface and passes no router.
        let pair = bound.first().and_then(|port| sockets.pair(sockets.index(*port)?)).expect("one is bound");
        let socket = SockRef::from(&pair.rtp);
        assert_eq!(socket.multicast_ttl_v4().ok(), Some(1));
        assert_eq!(socket.multicast_if_v4().ok(), Some(std::net::Ipv4Addr::LOCALHOST));
    }
}
