//! A relay worker: one thread that owns the calls given to it. It receives, has `media::relay` patch the packet in place, and
//! sends; with a tape, it copies. Per packet there is no lock, no allocation, no channel, no log line.
//!
//! While packets flow it naps 1 ms between rounds, so that many packets share one wake-up; when a round finds nothing it sleeps
//! until a packet, a command or a deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::ports::{Pair, Sockets};
use super::{Report, Sink};
use crate::base::Instant;
use crate::io::clock::Clock;
use crate::io::record::{Control, Tape};
use crate::media::packet::{FIXED, MAX_PACKET};
use crate::media::relay::{Arrival, Relay, Spoken, Verdict};
use crate::media::sound::Library;
use crate::media::{Command, Output, Port, Recorded};

/// The nap between two rounds that found packets.
pub const NAP: Duration = Duration::from_millis(1);
/// How often silence is looked for while there are calls.
const TICK: Duration = Duration::from_millis(250);
/// Ready sockets that are fetched at a time.
const EVENTS: usize = 1024;
/// Packets that are thrown away at most when a port is taken into use: what strangers sent while it rested.
const MAX_STALE: usize = 4096;
/// The token of the eventfd.
const WAKE: u64 = u64::MAX;

/// Wakes a worker that sleeps; costs nothing while it does not.
#[derive(Debug)]
pub struct Wake {
    event: EventFd,
    asleep: AtomicBool,
}

impl Wake {
    /// A bell for one worker.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(event: EventFd) -> Wake {
        Wake { event, asleep: AtomicBool::new(false) }
    }

    /// To be called after something was put where the worker looks before it sleeps.
    pub fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            let _ = self.event.write(1);
        }
    }
}

/// A worker that has not begun.
pub struct Worker {
    relay: Relay,
    sockets: Arc<Sockets>,
    epoll: Epoll,
    wake: Arc<Wake>,
    commands: Receiver<Command>,
    tape: Option<Tape>,
    sounds: Arc<ArcSwap<Library>>,
    /// Pairs whose packets are recorded.
    tapped: Vec<bool>,
    clock: Clock,
    sink: Sink,
    out: Vec<Output>,
}

impl Worker {
    /// A worker without calls.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(
        sockets: Arc<Sockets>,
        wake: Arc<Wake>,
        commands: Receiver<Command>,
        tape: Option<Tape>,
        sounds: Arc<ArcSwap<Library>>,
        clock: Clock,
        sink: Sink,
    ) -> nix::Result<Worker> {
        let epoll = Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake.event, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let (relay, tapped, out) = (Relay::new(), Vec::new(), Vec::new());
        Ok(Worker { relay, sockets, epoll, wake, commands, tape, sounds, tapped, clock, sink, out })
    }

    /// Relays until the other end of the commands is gone.
    pub fn run(mut self) {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut buffer = [0; MAX_PACKET + 1];
        let mut now = self.clock.mono();
        let mut tick = now + TICK;
        let mut busy = false;
        loop {
            if !self.obey(now) {
                return;
            }
            let mut timeout = Duration::ZERO;
            if !busy {
                self.wake.asleep.store(true, Ordering::SeqCst);
                // A command that came before the bell was armed would wait for the next packet.
                if !self.obey(now) {
                    return;
                }
                timeout = self.patience(now, tick);
            }
            let ready = self.epoll.wait(&mut events, epoll_timeout(timeout)).unwrap_or(0);
            self.wake.asleep.store(false, Ordering::SeqCst);
            now = self.clock.mono();
            for event in &events[..ready] {
                match event.data() {
                    WAKE => drop(self.wake.event.read()),
                    token => self.receive(now, token, &mut buffer),
                }
            }
            self.speak(now, &mut buffer);
            if now >= tick {
                self.relay.tick(now, &mut self.out);
                tick = now + TICK;
            } else if self.relay.has_news() {
                self.relay.news(&mut self.out);
            }
            self.report();
            if let Some(tape) = &mut self.tape {
                tape.tick(now);
            }
            busy = ready > 0;
            if busy && ready < EVENTS {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Takes all commands that wait. False when there will never be another.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.apply(now, command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn apply(&mut self, now: Instant, command: Command) {
        match &command {
            Command::Open { port, .. } => self.watch(*port),
            Command::Close { port } => self.unwatch(now, *port),
            Command::Play { .. } => {
                self.relay.apply(now, Command::Sounds(self.sounds.load_full()), &mut self.out);
            }
            _ => {}
        }
        match command {
            Command::Tap { port, recording, side, payloads } => {
                if let (Some(tape), Some(index)) = (&mut self.tape, self.sockets.index(port)) {
                    tape.control(now, Control::Tap(port, recording, side, payloads));
                    self.tapped.resize(self.tapped.len().max(index + 1), false);
                    self.tapped[index] = true;
                }
            }
            Command::Untap { port } => self.untap(now, port),
            Command::Finish { recording } => match &mut self.tape {
                Some(tape) => tape.control(now, Control::Finish(recording)),
                None => {
                    let no_file = Some("this server has no recorder".to_owned());
                    let result = Recorded { no_file, ..Recorded::default() };
                    self.out.push(Output::Recorded { recording, result });
                }
            },
            other => self.relay.apply(now, other, &mut self.out),
        }
        self.report();
    }

    fn receive(&mut self, now: Instant, token: u64, buffer: &mut [u8; MAX_PACKET + 1]) {
        let (index, rtcp) = ((token >> 1) as usize, token & 1 != 0);
        let Some(pair) = self.sockets.pair(index) else { return };
        let Ok((length, from)) = socket(pair, rtcp).recv_from(buffer) else { return };
        let packet = &mut buffer[..length];
        let arrival = Arrival { port: self.sockets.port(index), rtcp, from: canonical(from) };
        let taped = !rtcp && self.tapped.get(index).is_some_and(|tapped| *tapped);
        let before = packet.first_chunk::<FIXED>().copied().filter(|_| taped);
        let verdict = self.relay.packet(now, arrival, packet);
        if let (Some(fixed), Some(tape), true) = (before, &mut self.tape, verdict.is_from_peer()) {
            tape.packet(now, arrival.port, &fixed, &packet[FIXED..]);
        }
        if verdict == Verdict::Fan {
            return self.announce(now, arrival.port, length, buffer);
        }
        if let Verdict::Forward { port, to, rtcp } = verdict
            && let Some(pair) = self.sockets.index(port).and_then(|index| self.sockets.pair(index))
        {
            // A full buffer or an unreachable peer loses this packet, as any network does.
            let _ = socket(pair, rtcp).send_to(packet, to);
        }
    }

    /// Sends a packet from every port that hears the announcement.
    fn announce(&mut self, now: Instant, from: Port, length: usize, packet: &[u8]) {
        let mut buffer = [0; MAX_PACKET + 1];
        for nth in 0..self.relay.fans(from) {
            if let Some(Spoken { port, to, length }) = self.relay.fan(now, from, nth, &packet[..length], &mut buffer)
                && let Some((_, pair)) = self.pair(port)
            {
                let _ = pair.rtp.send_to(&buffer[..length], to);
            }
        }
    }

    /// Sends what is due of the sounds that we play.
    fn speak(&mut self, now: Instant, buffer: &mut [u8; MAX_PACKET + 1]) {
        while let Some(Spoken { port, to, length }) = self.relay.speak(now, buffer) {
            if let Some((_, pair)) = self.pair(port) {
                let _ = pair.rtp.send_to(&buffer[..length], to);
            }
        }
    }

    fn watch(&mut self, port: Port) {
        let Some((index, pair)) = self.pair(port) else {
            tracing::warn!(port = port.0, "RTP port was never bound");
            return;
        };
        let mut buffer = [0; 1];
        for (rtcp, socket) in [(0, &pair.rtp), (1, &pair.rtcp)] {
            for _ in 0..MAX_STALE {
                if socket.recv(&mut buffer).is_err() {
                    break;
                }
            }
            // Already there if the core opens a port twice.
            let _ = self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, (index as u64) << 1 | rtcp));
        }
    }

    fn unwatch(&mut self, now: Instant, port: Port) {
        self.untap(now, port);
        if let Some((_, pair)) = self.pair(port) {
            let _ = self.epoll.delete(&pair.rtp);
            let _ = self.epoll.delete(&pair.rtcp);
        }
    }

    fn untap(&mut self, now: Instant, port: Port) {
        let tapped = self.sockets.index(port).and_then(|index| self.tapped.get_mut(index));
        if let (Some(tapped), Some(tape)) = (tapped.filter(|tapped| **tapped), &mut self.tape) {
            *tapped = false;
            tape.control(now, Control::Untap(port));
        }
    }

    fn pair(&self, port: Port) -> Option<(usize, &Pair)> {
        let index = self.sockets.index(port)?;
        Some((index, self.sockets.pair(index)?))
    }

    /// How long there is nothing to do but wait.
    fn patience(&self, now: Instant, tick: Instant) -> Duration {
        let silence = (!self.relay.is_empty()).then_some(tick);
        let deadlines = [silence, self.tape.as_ref().and_then(Tape::deadline), self.relay.speaks_at()];
        deadlines.into_iter().flatten().min().map_or(Duration::MAX, |at| at.since(now))
    }

    fn report(&mut self) {
        for output in self.out.drain(..) {
            (self.sink)(Report::Media(output));
        }
    }
}

fn socket(pair: &Pair, rtcp: bool) -> &std::net::UdpSocket {
    if rtcp { &pair.rtcp } else { &pair.rtp }
}

/// IPv4 as IPv4, whatever kind of socket it came by.
fn canonical(from: SocketAddr) -> SocketAddr {
    match from {
        SocketAddr::V4(_) => from,
        SocketAddr::V6(v6) => SocketAddr::new(v6.ip().to_canonical(), v6.port()),
    }
}

fn epoll_timeout(timeout: Duration) -> EpollTimeout {
    let ms = timeout.as_micros().div_ceil(1000);
    u16::try_from(ms)
        .map_or(if timeout == Duration::MAX { EpollTimeout::NONE } else { EpollTimeout::MAX }, EpollTimeout::from)
}
