//! strowger: an embedded SIP back-to-back user agent and company telephone edge.
//!
//! One rule decides the tree: **only [`io`] touches a socket, a file, a clock, a thread or the word `async`.** Everything else
//! is `(now, event) -> actions`, so that a call replays from its seed and a million of them run in minutes of virtual time.
//!
//! # Who may use whom
//!
//! ```text
//! main -> io -> b2bua -> call -+-> policy -> directory -+
//!                  |           +-> dialog -> transaction +-> sip -> base
//!                  |           +-> sdp -> media ---------|--------> base
//!                  +-> registrar -> directory -----------+
//! ```
//!
//! A folder may use what stands to its right, never what stands to its left; lower ones answer upward by return value.
//! `tests/layers.rs` holds the exact table and fails on a line that breaks it.
//!
//! | folder | what it is |
//! | --- | --- |
//! | [`base`] | time that is told, deadlines, the one random source |
//! | [`sip`] | messages: parser, writer, digest, transports |
//! | [`sdp`] | session descriptions: offer and answer |
//! | [`media`] | packets: relay, mix, RTCP, codecs, the timeline of a recording; and what the core tells media workers |
//! | [`transaction`], [`dialog`] | RFC 3261's state machines |
//! | [`registrar`] | where phones are, and whether they are who they say |
//! | [`directory`] | what the operator configured; swapped whole |
//! | [`policy`] | where a call goes and why: a pure function |
//! | [`call`] | calls: legs, forks, hold, journey, record |
//! | [`b2bua`] | all that as one value: handle, poll, deadline |
//! | `io` | the world: engine thread, sockets, relay, recordings, store, configuration (feature `io`, on by default) |
//!
//! # The way of one call
//!
//! 1. A datagram arrives at the engine's thread: [`b2bua::Event::Received`]. [`sip`] parses it in place, [`transaction`] knows a
//!    retransmission from a new request and answers 100.
//! 2. [`b2bua`] asks who that is: a phone proves itself to the [`registrar`] (407), a trunk is known by its address and one of its numbers.
//! 3. [`policy`] turns caller, number and what is live into steps, each with its reason.
//! 4. [`call`] rings the step: a leg for each branch, with own Call-ID, tag and caller ID, and our media ports in its SDP.
//! 5. 180 and 183 go back. The first 200 wins; the others get CANCEL, with a `Reason` so that they do not note a missed call.
//! 6. A media worker relays both ways and taps the recording; hold, resume and session timers are re-INVITEs and UPDATEs of the [`dialog`].
//! 7. BYE from either side. When both legs, the relay's counts and the recorder are done, one [`call::record`] is saved.
//!
//! # Words of the trade
//!
//! - **AoR** (address of record): a name to call, here an extension. **Binding**: where it is now. **Contact**: the URI of that place.
//! - **Flow**: transport, our address and theirs: the way back through a NAT.
//! - **Transaction**: a request and its answers. **Branch**: its id in Via; also one of the legs of a fork.
//! - **Dialog**: what two ends remember of each other (tags, CSeq, route set). **Leg**: one dialog of a call.
//! - **Fork**: ringing several at once. **Early media**: sound before the answer. **Late offer**: an INVITE without SDP.
//! - **Trunk**: a line to a carrier. **DID**: a number of ours on it. **Queue**: several who may answer. **Agent**: one of them.
//! - **Relay**: RTP passing through our ports. **Plan**, **journey**: what was to happen to a call, and what did. **CDR**: the call record.
//!
//! # With your own sockets
//!
//! No threads and no runtime: a phone registers with digest, a carrier's call rings it, and the carrier is told.
//!
//! ```
//! # #![allow(clippy::disallowed_methods)]
//! use std::{net::UdpSocket, sync::Arc, time};
//! use strowger::b2bua::{Action, B2bua, Event, Settings};
//! use strowger::base::{Instant, Now, Wall};
//! use strowger::directory::{Directory, Extension, Node, Number, Relay, Route, Target, Trunk};
//! use strowger::sip::{Flow, Message, Transport, Writer, digest};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let socket = || UdpSocket::bind("127.0.0.1:0").inspect(|s| s.set_read_timeout(Some(time::Duration::from_millis(50))).expect("valid"));
//! let (server, phone, carrier) = (socket()?, socket()?, socket()?);
//! let (at, phone_at, carrier_at) = (server.local_addr()?, phone.local_addr()?, carrier.local_addr()?);
//!
//! // One trunk with one number, one extension; every call goes to it, media past us.
//! let mut directory = Directory::empty(Node::new("lab", "lab.example"));
//! directory.media.relay = Relay::Never;
//! directory.trunks.push(Trunk::new("carrier", &format!("sip:{carrier_at}")));
//! directory.numbers.push(Number::new("+73833000001".parse()?, "carrier"));
//! directory.extensions.push(Extension::new("121", "Anna", "correct horse"));
//! directory.routes.push(Route::new("all", Target::Extension("121".into())));
//! let settings = Settings { listen: vec![(Transport::Udp, at)], ..Settings::default() };
//! let mut b2bua = B2bua::new(Arc::new(directory.indexed()), settings, [7; 32]); // a seed from the system, in earnest
//!
//! // The world: datagrams and deadlines go in, datagrams come out. Actions for media, store and readers are dropped here.
//! let start = time::Instant::now();
//! let mut serve = || loop {
//!     let mut buffer = [0; 65_536];
//!     let received = server.recv_from(&mut buffer);
//!     let wall = Wall::from_micros(time::UNIX_EPOCH.elapsed().expect("it is after 1970").as_micros() as i64);
//!     let now = Now { mono: Instant::from_micros(start.elapsed().as_micros() as u64), wall };
//!     let flow = |remote| Flow { transport: Transport::Udp, local: at, remote, conn: 0 };
//!     b2bua.handle(now, match received {
//!         Ok((n, remote)) => Event::Received { flow: flow(remote), bytes: buffer[..n].to_vec().into() },
//!         Err(_) => Event::Tick, // a real loop waits until b2bua.deadline()
//!     });
//!     while let Some(action) = b2bua.poll() {
//!         if let Action::Send { flow, bytes } = action { server.send_to(&bytes, flow.remote).expect("loopback takes it"); }
//!     }
//!     if received.is_err() { return }
//! };
//! let hear = |socket: &UdpSocket| {
//!     let mut buffer = [0; 65_536];
//!     let n = socket.recv(&mut buffer).expect("something was sent");
//!     Message::parse(buffer[..n].to_vec().into()).expect("it is SIP")
//! };
//!
//! // The phone registers: 401, digest, 200.
//! let register = |cseq, credentials: &str| format!("REGISTER sip:lab.example SIP/2.0\r\nVia: SIP/2.0/UDP {phone_at};branch=z9hG4bK{cseq}\r\n\
//!     From: <sip:121@lab.example>;tag=1\r\nTo: <sip:121@lab.example>\r\nCall-ID: 1\r\nCSeq: {cseq} REGISTER\r\n\
//!     Contact: <sip:{phone_at}>\r\n{credentials}\r\n");
//! phone.send_to(register(1, "").as_bytes(), at)?;
//! serve();
//! let (_, challenge) = digest::Challenge::choose(&hear(&phone)).ok_or("not a 401")?;
//! let credentials = digest::answer(&challenge, "121", "correct horse", "REGISTER", "sip:lab.example", "c0ffee", 1, b"");
//! phone.send_to(register(2, &format!("Authorization: {credentials}\r\n")).as_bytes(), at)?;
//! serve();
//! assert_eq!(hear(&phone).status(), 200);
//!
//! // The carrier calls; the phone rings, and the carrier hears so.
//! let invite = format!("INVITE sip:+73833000001@{at} SIP/2.0\r\nVia: SIP/2.0/UDP {carrier_at};branch=z9hG4bK1\r\n\
//!     From: <sip:+79131234567@carrier>;tag=2\r\nTo: <sip:+73833000001@{at}>\r\nCall-ID: 2\r\nCSeq: 1 INVITE\r\n\
//!     Contact: <sip:{carrier_at}>\r\n\r\n");
//! carrier.send_to(invite.as_bytes(), at)?;
//! serve();
//! phone.send_to(&Writer::answer(&hear(&phone), at, 180, "Ringing", Some("3")).finish(), at)?;
//! serve();
//! assert!(std::iter::repeat_with(|| hear(&carrier)).any(|m| m.status() == 180)); // after our OPTIONS
//! # Ok(()) }
//! ```

pub mod b2bua;
pub mod base;
pub mod call;
pub mod dialog;
pub mod directory;
#[cfg(feature = "io")]
pub mod io;
pub mod media;
pub mod policy;
pub mod registrar;
pub mod sdp;
pub mod sip;
pub mod transaction;
