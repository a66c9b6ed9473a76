//! A telephone's mouth and ear: speaks a tone of its own as G.711 over RTP, 50 packets a second, and keeps what it hears.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::Rng;
use crate::media::Codec;
use crate::media::codec::{alaw, to_alaw, to_ulaw, ulaw};
use crate::media::dtmf;
use crate::media::packet::{Header, Sender};
use crate::media::tone::{self, Tone};

/// Samples a second.
pub const RATE: u32 = 8000;
/// Length of a packet.
const PACKET: Duration = Duration::from_millis(20);
/// Samples in a packet.
const SAMPLES: usize = 160;
/// What is remembered of what was heard, in samples: the last second.
const MEMORY: usize = 8000;

/// How long a key is held, in milliseconds.
const PRESS: u16 = 100;
/// Mean amplitude from which on there is sound, of 32767.
const AUDIBLE: u64 = 200;

/// A running voice. Dropped, it falls silent.
pub struct Voice {
    /// Where it hears.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Where it speaks to and in which payload type.
    to: Option<(SocketAddr, Codec)>,
    heard: Vec<i16>,
    packets: u64,
    /// Keys to press, each with the payload type of events.
    keys: VecDeque<(u8, char)>,
}

impl Voice {
    /// Opens its mouth and ear on loopback; speaks when told to whom.
    pub fn new(hz: u32, rng: &mut Rng) -> io::Result<Voice> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared { state: Mutex::default(), over: AtomicBool::new(false) });
        let sender = Sender::new(rng.bits32(), rng.bits32() as u16, rng.bits32());
        let body = {
            let shared = shared.clone();
            move || run(&socket, &shared, hz, sender)
        };
        let thread = std::thread::Builder::new().name(format!("voice-{hz}")).spawn(body)?;
        Ok(Voice { address, shared, thread: Some(thread) })
    }

    /// Speaks to `to` from now on; nobody: listens only.
    pub fn speak(&self, to: Option<(SocketAddr, Codec)>) {
        self.shared.lock().to = to;
    }

    /// Presses a key (RFC 4733), `event` being the payload type of events.
    pub fn press(&self, event: u8, key: char) {
        self.shared.lock().keys.push_back((event, key));
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.heard.clear();
        state.packets = 0;
    }

    /// Which of some tones it hears, and how many packets came since it last forgot.
    pub fn hears(&self, among: &[u32]) -> (Option<u32>, u64) {
        let state = self.shared.lock();
        // Without the first fifth: there the tone begins.
        let settled = &state.heard[state.heard.len() / 5..];
        (tone::heard(settled, RATE, among), state.packets)
    }

    /// Whether it hears any sound, silence being none.
    pub fn hears_sound(&self) -> bool {
        let state = self.shared.lock();
        let sum: u64 = state.heard.iter().map(|s| u64::from(s.unsigned_abs())).sum();
        sum > AUDIBLE * state.heard.len().max(1) as u64
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed; the demo's checks have failed by it.
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(socket: &UdpSocket, shared: &Shared, hz: u32, mut sender: Sender) {
    let mut tone = Tone::new(hz, RATE);
    let mut due = Instant::now() + PACKET;
    let mut buffer = [0; 2048];
    let mut speaking = false;
    let mut press: VecDeque<Vec<u8>> = VecDeque::new();
    while !shared.over.load(Ordering::Relaxed) {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            due += PACKET;
            let (to, key) = {
                let mut state = shared.lock();
                (state.to, state.keys.pop_front())
            };
            if let Some((event, key)) = key {
                press.extend(dtmf::press(&mut sender, event, key, PRESS));
            }
            if let (Some(packet), Some((to, _))) = (press.pop_front(), to) {
                speaking = false;
                socket.send_to(&packet, to).ok();
                continue;
            }
            sender.advance(SAMPLES as u32);
            let Some((to, codec)) = to else {
                speaking = false;
                continue;
            };
            let encode = if codec == Codec::Pcmu { to_ulaw } else { to_alaw };
            let payload: Vec<u8> = tone.by_ref().take(SAMPLES).map(encode).collect();
            let packet = sender.packet(payload_type(codec), !speaking, &payload);
            speaking = true;
            // A peer that is gone shows in what the others hear.
            socket.send_to(&packet, to).ok();
            continue;
        }
        if socket.set_read_timeout(Some(wait)).is_err() {
            return;
        }
        let Ok((n, _)) = socket.recv_from(&mut buffer) else { continue };
        let Some(header) = Header::parse(&buffer[..n]) else { continue };
        let decode = match header.payload_type {
            0 => ulaw,
            8 => alaw,
            _ => continue,
        };
        let mut state = shared.lock();
        state.packets += 1;
        state.heard.extend(buffer[header.start..header.end].iter().copied().map(decode));
        let extra = state.heard.len().saturating_sub(MEMORY);
        state.heard.drain(..extra);
    }
}

fn payload_type(codec: Codec) -> u8 {
    if codec == Codec::Pcmu { 0 } else { 8 }
}
