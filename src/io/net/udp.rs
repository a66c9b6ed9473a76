//! One listening UDP socket and what waits to leave by it. The engine reads and writes it itself; see [`super::batch`].

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;

use super::batch::{self, Inbox};
use crate::io::metrics::{Counter, Metrics};

/// Kernel buffer wanted per direction, in bytes: 4,000 messages of 1 kB while the engine is busy elsewhere.
pub const BUFFER: usize = 4 << 20;

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    /// Its address as others see it.
    pub local: SocketAddr,
    outbox: Vec<(SocketAddr, Bytes)>,
}

impl Socket {
    /// Takes a bound socket over; gives the kernel buffer that it got, in bytes.
    pub fn new(socket: UdpSocket, local: SocketAddr) -> io::Result<(Socket, usize)> {
        socket.set_nonblocking(true)?;
        batch::prepare(socket.as_fd(), socket.local_addr()?.is_ipv6())?;
        let buffer = batch::grow(socket.as_fd(), BUFFER);
        Ok((Socket { socket, local, outbox: Vec::with_capacity(2 * batch::BATCH) }, buffer))
    }

    /// Whether a datagram to `remote` can leave here.
    pub fn reaches(&self, remote: SocketAddr) -> bool {
        self.local.is_ipv4() == remote.is_ipv4()
    }

    /// Puts a datagram into the next batch.
    pub fn queue(&mut self, to: SocketAddr, bytes: Bytes) {
        self.outbox.push((to, bytes));
    }

    /// Sends what was queued. What the kernel has no room for is dropped and counted: whoever needs it sends again. Calls
    /// `lost` with each peer that cannot be reached.
    pub fn flush(&mut self, metrics: &Metrics, mut lost: impl FnMut(SocketAddr)) {
        let mut at = 0;
        // One bounce of an earlier datagram makes the next call fail once, whatever its own destination.
        let mut forgiven = false;
        while at < self.outbox.len() {
            match batch::send(self.socket.as_fd(), &self.outbox[at..]) {
                Ok(n) => {
                    metrics.add(Counter::UdpSent, n as u64);
                    at += n.max(1);
                    forgiven = false;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        metrics.add(Counter::UdpFull, (self.outbox.len() - at) as u64);
                        break;
                    }
                    io::ErrorKind::Interrupted => {}
                    _ if !forgiven => {
                        forgiven = true;
                        self.bounced(metrics, &mut lost);
                    }
                    _ => {
                        metrics.count(Counter::UdpRefused);
                        if unreachable(error.raw_os_error().unwrap_or(0)) {
                            lost(self.outbox[at].0);
                        }
                        at += 1;
                        forgiven = false;
                    }
                },
            }
        }
        self.outbox.clear();
    }

    /// Receives a batch, see [`Inbox::receive`]. Nothing there is no error but 0.
    pub fn receive(&self, inbox: &mut Inbox, metrics: &Metrics, mut lost: impl FnMut(SocketAddr)) -> usize {
        for _ in 0..2 {
            match inbox.receive(self.socket.as_fd()) {
                Ok(n) => {
                    metrics.add(Counter::UdpReceived, n as u64);
                    return n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
                // A bounce is reported by whichever call comes next; the datagrams are still there.
                Err(_) => self.bounced(metrics, &mut lost),
            }
        }
        0
    }

    /// Reads what bounced.
    pub fn bounced(&self, metrics: &Metrics, mut lost: impl FnMut(SocketAddr)) {
        batch::bounces(self.socket.as_fd(), |bounce| {
            metrics.count(Counter::UdpBounced);
            if unreachable(bounce.errno) {
                lost(bounce.remote);
            }
        });
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether an error says that nobody is there, rather than that one datagram was not liked.
fn unreachable(errno: i32) -> bool {
    matches!(errno, libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> Socket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        Socket::new(socket, local).unwrap().0
    }

    #[test]
    fn one_dead_peer_does_not_hold_up_the_others() {
        let metrics = Metrics::new();
        let (mut a, b) = (bound(), bound());
        let gone = { UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
        let mut lost = Vec::new();
        for i in 0..6u8 {
            a.queue(gone, Bytes::copy_from_slice(&[i]));
            a.queue(b.local, Bytes::copy_from_slice(&[i]));
            a.flush(&metrics, |r| lost.push(r));
        }
        a.bounced(&metrics, |r| lost.push(r));
        assert!(!lost.is_empty() && lost.iter().all(|r| *r == gone));
        let mut inbox = Inbox::new();
        assert_eq!(b.receive(&mut inbox, &metrics, |_| ()), 6);
        assert_eq!(metrics.read(Counter::UdpFull), 0);
    }

    #[test]
    fn an_address_without_a_route_is_lost_at_once() {
        let metrics = Metrics::new();
        let mut a = bound();
        let mut lost = Vec::new();
        // A socket bound to loopback has no route out.
        let far: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        a.queue(far, Bytes::from_static(b"x"));
        a.flush(&metrics, |r| lost.push(r));
        assert_eq!(metrics.read(Counter::UdpSent) + metrics.read(Counter::UdpRefused), 1);
        assert!(lost.iter().all(|r| *r == far));
    }
}
