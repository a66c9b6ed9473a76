//! What reading and writing a message costs: nanoseconds and allocations of a 950-byte INVITE, ours and rsip's side by side.
//!
//! `cargo bench --bench wire` prints Criterion's figures, then one line per figure.
#![allow(clippy::disallowed_methods)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use strowger::sip::{Message, Name, Writer};

/// Counts allocations; growing one counts as well.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is handed to the system's allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Not exact between threads, but there is one, and a locked instruction would be measured too.
fn count() {
    ALLOCATIONS.store(ALLOCATIONS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As a desk phone sends it, 950 bytes.
const INVITE: &str = "INVITE sip:+73833000001@pbx.example.com:5060;transport=udp SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.168.1.120:5062;branch=z9hG4bK2813650341;rport\r\n\
From: \"Anna Ivanova, Sales\" <sip:121@pbx.example.com:5060>;tag=3098413862\r\n\
To: <sip:+73833000001@pbx.example.com:5060>\r\n\
Call-ID: 0_193648843155021@192.168.1.120\r\n\
CSeq: 2 INVITE\r\n\
Contact: <sip:121@192.168.1.120:5062>\r\n\
Content-Type: application/sdp\r\n\
Allow: INVITE, INFO, PRACK, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REGISTER, SUBSCRIBE, REFER, PUBLISH, UPDATE, MESSAGE\r\n\
Max-Forwards: 70\r\n\
User-Agent: Yealink SIP-T46S 66.86.0.15\r\n\
Supported: replaces, timer\r\n\
Session-Expires: 1800;refresher=uac\r\n\
Min-SE: 90\r\n\
Allow-Events: talk,hold,conference,refer,check-sync\r\n\
Content-Length: 237\r\n\
\r\n\
v=0\r\n\
o=- 20041 20041 IN IP4 192.168.1.120\r\n\
s=SDP data\r\n\
c=IN IP4 192.168.1.120\r\n\
t=0 0\r\n\
m=audio 11796 RTP/AVP 8 0 101\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=fmtp:101 0-15\r\n\
a=ptime:20\r\n\
a=sendrecv\r\n";

fn parse(wire: Bytes) -> Message {
    Message::parse(wire).expect("it is well-formed")
}

/// The INVITE as it leaves on the other side: own Via, tags, Call-ID and Contact, the rest copied.
fn emit(m: &Message) -> Bytes {
    let mut w = Writer::request(m.method_text(), m.request_uri());
    w.header(Name::Via, "SIP/2.0/UDP 203.0.113.5:5060;branch=z9hG4bK0a1b2c3d4e5f60718293;rport")
        .parts(Name::From, &["\"Anna Ivanova, Sales\" <", m.from_uri(), ">;tag=", "0a1b2c3d4e5f6071"])
        .copy(m, Name::To)
        .header(Name::CallId, "0a1b2c3d4e5f60718293a4b5c6d7e8f9")
        .cseq(m.cseq().seq, "INVITE")
        .header(Name::Contact, "<sip:203.0.113.5:5060>")
        .number(Name::MaxForwards, 69u8)
        .copy_where(m, |name, _, _| {
            matches!(
                name,
                Name::Allow
                    | Name::UserAgent
                    | Name::Supported
                    | Name::SessionExpires
                    | Name::MinSe
                    | Name::AllowEvents
            )
        });
    w.body("application/sdp", m.body())
}

/// The answer to it.
fn answer(m: &Message) -> Bytes {
    let mut w = Writer::answer(m, ([192, 168, 1, 120], 5062).into(), 180, "Ringing", Some("0a1b2c3d4e5f6071"));
    w.header(Name::Contact, "<sip:203.0.113.5:5060>");
    w.finish()
}

fn rsip_parse(wire: &[u8]) -> rsip::SipMessage {
    rsip::SipMessage::try_from(wire).expect("rsip reads it too")
}

/// Nanoseconds (best of 20 rounds) and allocations of one call.
fn figure<T>(name: &str, mut f: impl FnMut() -> T) {
    const ROUND: u32 = 2000;
    drop(black_box(f()));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(black_box(f()));
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..ROUND {
                black_box(f());
            }
            start.elapsed().as_nanos() as f64 / f64::from(ROUND)
        })
        .fold(f64::INFINITY, f64::min);
    println!("wire: {name:<28} {best:>8.0} ns {allocations:>5} allocations");
}

fn main() {
    // Every parse is given a buffer of its own, as the transport gives it. A static one needs none, so that only parsing is counted.
    let wire = Bytes::from_static(INVITE.as_bytes());
    let message = parse(wire.clone());
    assert_eq!((INVITE.len(), message.body().len()), (950, 237), "the INVITE is what it says");
    let folded = INVITE.replacen("Supported: ", "Supported:\r\n ", 1);
    let folded = Bytes::from(folded.into_bytes());

    let mut c = Criterion::default().configure_from_args();
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Bytes(INVITE.len() as u64));
    group.bench_function("parse", |b| b.iter(|| parse(black_box(&wire).clone())));
    group.bench_function("emit", |b| b.iter(|| emit(black_box(&message))));
    group.bench_function("parse+emit", |b| b.iter(|| emit(&parse(black_box(&wire).clone()))));
    group.bench_function("rsip parse", |b| b.iter(|| rsip_parse(black_box(INVITE.as_bytes()))));
    group.finish();
    c.final_summary();

    println!();
    figure("parse", || parse(black_box(&wire).clone()));
    figure("parse, a line folded", || parse(Bytes::copy_from_slice(black_box(&folded))));
    figure("emit", || emit(black_box(&message)));
    figure("answer 180", || answer(black_box(&message)));
    figure("parse + emit", || emit(&parse(black_box(&wire).clone())));
    figure("typed views", || {
        let m = black_box(&message);
        (m.via().port, m.from().uri.port, m.to().uri.port, m.uri().map(|u| u.port), m.contact().map(|c| c.uri.port))
    });
    figure("rsip: parse", || rsip_parse(black_box(INVITE.as_bytes())));
    figure("rsip: parse + emit", || rsip_parse(black_box(INVITE.as_bytes())).to_string());
}
