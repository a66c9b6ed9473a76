//! Many datagrams per system call: `recvmmsg`, `sendmmsg`, and the queue of ICMP errors (`IP_RECVERR`, ip(7)). Of the
//! signalling sockets the only file with unsafe code; it knows bytes and addresses, nothing of SIP.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use bytes::Bytes;

/// Datagrams per system call, at most.
pub const BATCH: usize = 64;
/// Room for one datagram: the largest that UDP can carry. Pages that no datagram reached are never touched.
const SLOT: usize = 65_536;
/// Room for the control data of one ICMP error.
const CONTROL: usize = 512;
/// ICMP errors read per call of [`bounces`], so that a storm of them does not keep the engine.
const BOUNCES: usize = 64;

/// Reusable room for one batch of received datagrams.
pub struct Inbox {
    buffers: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    /// Pointed to by `headers`.
    _vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// How many headers the last call filled.
    used: usize,
}

// SAFETY: the raw pointers inside point to heap memory that the same value owns and never moves.
unsafe impl Send for Inbox {}

impl Inbox {
    /// Takes address space for a batch; memory is used as datagrams come.
    pub fn new() -> Inbox {
        let mut buffers = vec![0u8; BATCH * SLOT].into_boxed_slice();
        // SAFETY: all zeros is a valid sockaddr_storage, iovec and mmsghdr.
        let mut names: Box<[libc::sockaddr_storage]> = vec![unsafe { mem::zeroed() }; BATCH].into_boxed_slice();
        let base = buffers.as_mut_ptr();
        let mut vectors: Box<[libc::iovec]> = (0..BATCH)
            // SAFETY: i * SLOT lies within the allocation of BATCH * SLOT bytes.
            .map(|i| libc::iovec { iov_base: unsafe { base.add(i * SLOT) }.cast(), iov_len: SLOT })
            .collect();
        let headers = names
            .iter_mut()
            .zip(vectors.iter_mut())
            .map(|(name, vector)| {
                // SAFETY: as above.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_name = ptr::from_mut(name).cast();
                header.msg_hdr.msg_namelen = NAME_LEN;
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Inbox { buffers, names, _vectors: vectors, headers, used: 0 }
    }

    /// Receives what lies in the socket, at most [`BATCH`] datagrams, without waiting. Fewer than that: it is drained.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for header in &mut self.headers[..self.used] {
            header.msg_hdr.msg_namelen = NAME_LEN;
        }
        self.used = 0;
        // SAFETY: BATCH headers, each with a name, one vector and a buffer of SLOT bytes, all owned by self.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        self.used = n as usize;
        Ok(self.used)
    }

    /// Sender and bytes of datagram `i` of the last batch; none where the sender is no IP address.
    pub fn datagram(&self, i: usize) -> Option<(SocketAddr, &[u8])> {
        let header = self.headers[..self.used].get(i)?;
        let len = (header.msg_len as usize).min(SLOT);
        Some((address(&self.names[i])?, &self.buffers[i * SLOT..i * SLOT + len]))
    }
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox::new()
    }
}

/// Sends the first datagrams of `batch`, at most [`BATCH`], without waiting. Gives how many left; an error is the first one's.
pub fn send(socket: BorrowedFd<'_>, batch: &[(SocketAddr, Bytes)]) -> io::Result<usize> {
    let count = batch.len().min(BATCH);
    let mut names = [mem::MaybeUninit::<libc::sockaddr_storage>::uninit(); BATCH];
    let mut vectors = [mem::MaybeUninit::<libc::iovec>::uninit(); BATCH];
    let mut headers = [mem::MaybeUninit::<libc::mmsghdr>::uninit(); BATCH];
    for (i, (to, bytes)) in batch[..count].iter().enumerate() {
        let length = write_address(&mut names[i], *to);
        // sendmmsg does not write through iov_base.
        vectors[i].write(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        // SAFETY: all zeros is a valid mmsghdr.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_name = names[i].as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = length;
        header.msg_hdr.msg_iov = vectors[i].as_mut_ptr();
        header.msg_hdr.msg_iovlen = 1;
        headers[i].write(header);
    }
    // SAFETY: the first `count` headers were written above and point to names, vectors and bytes that outlive the call.
    let n = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count as libc::c_uint,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// A datagram of ours that came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounce {
    /// Where it was to go.
    pub remote: SocketAddr,
    /// Why not, as the system numbers errors.
    pub errno: i32,
}

/// Reads what bounced, without waiting, at most 64 at once. The socket must have been [`prepare`]d.
pub fn bounces(socket: BorrowedFd<'_>, mut each: impl FnMut(Bounce)) {
    for _ in 0..BOUNCES {
        // SAFETY: all zeros is a valid sockaddr_storage and msghdr.
        let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut control = Control([0; CONTROL]);
        let mut byte = [0u8; 1];
        let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
        header.msg_name = ptr::from_mut(&mut name).cast();
        header.msg_namelen = NAME_LEN;
        header.msg_iov = &mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL as _;
        // SAFETY: the header points to a name, a vector and a control buffer on this frame, with their lengths.
        let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if n < 0 {
            return;
        }
        // SAFETY: the kernel filled msg_control and msg_controllen; CMSG_* walk within them.
        let errno = unsafe {
            let mut found = None;
            let mut item = libc::CMSG_FIRSTHDR(&header);
            while !item.is_null() {
                let kind = ((*item).cmsg_level, (*item).cmsg_type);
                if kind == (libc::IPPROTO_IP, libc::IP_RECVERR) || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) {
                    let error: libc::sock_extended_err = ptr::read_unaligned(libc::CMSG_DATA(item).cast());
                    found = Some(error.ee_errno as i32);
                }
                item = libc::CMSG_NXTHDR(&header, item);
            }
            found
        };
        if let (Some(errno), Some(remote)) = (errno, address(&name)) {
            each(Bounce { remote, errno });
        }
    }
}

/// Makes the socket queue ICMP errors, and lets routers cut large datagrams (a SIP message cannot be resent smaller).
pub fn prepare(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
    }
}

/// Asks for socket buffers of `bytes`, beyond the system's limit where we may. Gives what the smaller one got.
pub fn grow(socket: BorrowedFd<'_>, bytes: usize) -> usize {
    let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let got = |forced, plain| {
        if set(socket, libc::SOL_SOCKET, forced, wanted).is_err() {
            // Being refused leaves the system's default, which read() below reports.
            set(socket, libc::SOL_SOCKET, plain, wanted).ok();
        }
        // The kernel doubles what is asked for its own book-keeping (socket(7)).
        read(socket, libc::SOL_SOCKET, plain) / 2
    };
    got(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF).min(got(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF))
}

const NAME_LEN: libc::socklen_t = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// Aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is one c_int, which lives through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> usize {
    let mut value: libc::c_int = 0;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is one c_int, and so long is the room for it.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, ptr::from_mut(&mut value).cast(), &mut length) };
    if done == 0 { usize::try_from(value).unwrap_or(0) } else { 0 }
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is, and sockaddr_storage has room and alignment for it.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
            Some(match ip.to_canonical() {
                IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
                IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id)),
            })
        }
        _ => None,
    }
}

fn write_address(into: &mut mem::MaybeUninit<libc::sockaddr_storage>, to: SocketAddr) -> libc::socklen_t {
    match to {
        SocketAddr::V4(to) => {
            // SAFETY: all zeros is a valid sockaddr_in; the storage has room and alignment for it.
            unsafe {
                let mut name: libc::sockaddr_in = mem::zeroed();
                name.sin_family = libc::AF_INET as libc::sa_family_t;
                name.sin_port = to.port().to_be();
                name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
                into.as_mut_ptr().cast::<libc::sockaddr_in>().write(name);
            }
            mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(to) => {
            // SAFETY: as above.
            unsafe {
                let mut name: libc::sockaddr_in6 = mem::zeroed();
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_port = to.port().to_be();
                name.sin6_addr.s6_addr = to.ip().octets();
                name.sin6_scope_id = to.scope_id();
                into.as_mut_ptr().cast::<libc::sockaddr_in6>().write(name);
            }
            mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    fn pair(ip: &str) -> (UdpSocket, UdpSocket) {
        (UdpSocket::bind((ip, 0)).unwrap(), UdpSocket::bind((ip, 0)).unwrap())
    }

    #[test]
    fn batches_go_out_and_come_in_over_both_families() {
        for ip in ["127.0.0.1", "::1"] {
            let (a, b) = pair(ip);
            let to = b.local_addr().unwrap();
            let batch: Vec<_> = (0..BATCH + 6).map(|i| (to, Bytes::from(vec![i as u8; i + 1]))).collect();
            assert_eq!(send(a.as_fd(), &batch).unwrap(), BATCH);
            assert_eq!(send(a.as_fd(), &batch[BATCH..]).unwrap(), 6);
            let mut inbox = Inbox::new();
            let mut seen = 0;
            // Loopback delivers before send returns.
            while seen < batch.len() {
                let n = inbox.receive(b.as_fd()).unwrap();
                for i in 0..n {
                    let (from, bytes) = inbox.datagram(i).unwrap();
                    assert_eq!((from, bytes), (a.local_addr().unwrap(), &batch[seen].1[..]));
                    seen += 1;
                }
                assert!(inbox.datagram(n).is_none());
            }
            assert_eq!(inbox.receive(b.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_closed_port_is_heard_of_on_an_unconnected_socket() {
        for ip in ["127.0.0.1", "::1"] {
            let (a, b) = pair(ip);
            let gone = b.local_addr().unwrap();
            drop(b);
            prepare(a.as_fd(), gone.is_ipv6()).unwrap();
            send(a.as_fd(), &[(gone, Bytes::from_static(b"x"))]).unwrap();
            // Wakes as soon as the error is there; the read itself reports it and is not what we look at.
            a.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            a.recv_from(&mut [0; 8]).unwrap_err();
            let mut seen = Vec::new();
            bounces(a.as_fd(), |b| seen.push(b));
            assert_eq!(seen, [Bounce { remote: gone, errno: libc::ECONNREFUSED }], "{ip}");
        }
    }

    #[test]
    fn buffers_grow_and_say_how_far() {
        let (a, _) = pair("127.0.0.1");
        let got = grow(a.as_fd(), 64 * 1024);
        assert!(got >= 64 * 1024, "{got}");
    }
}
