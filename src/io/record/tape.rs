//! The way from a relay worker to a writer: packets are copied into a block of memory, and whole blocks change hands. So a
//! packet costs the relay one copy: no lock, no allocation, no channel. A writer that is too slow (a disk that stalls) makes
//! blocks pile up to a limit; then packets are left out of the recording and said to be, and the call knows nothing of it.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::base::Instant;
use crate::media::packet::FIXED;
use crate::media::{Payloads, Port, RecordingId, Side};

/// Bytes of packets in a block.
pub const BLOCK: usize = 64 * 1024;
/// Blocks that may wait for one writer: 96 MiB, ten seconds of 500 calls.
pub const MAX_BLOCKS: usize = 1536;
/// How long a packet waits in a block that is not full.
pub const HANDOVER: Duration = Duration::from_millis(100);
/// Empty blocks that are kept.
const SPARE: usize = 32;
/// Port, length and arrival before each packet.
const HEAD: usize = 12;

/// What a writer is told besides packets.
#[derive(Debug)]
pub enum Control {
    /// Packets of this port belong to this side of this recording from now on.
    Tap(Port, RecordingId, Side, Payloads),
    /// They do not any more.
    Untap(Port),
    /// The recording is over.
    Finish(RecordingId),
}

/// Packets and what is said between them.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    /// What is said before the packet that begins at this offset, and when.
    controls: Vec<(usize, Instant, Control)>,
    /// Ports of which packets were left out.
    pub missed: Vec<Port>,
    /// Everything that arrived up to then is in this block or an earlier one.
    pub until: Instant,
    home: SyncSender<Block>,
}

/// One thing in a block.
#[derive(Debug)]
pub enum Entry<'a> {
    /// A packet as it arrived, at a port, when.
    Packet(Port, Instant, &'a [u8]),
    /// Something said, when.
    Control(Instant, Control),
}

impl Block {
    /// Reads it in order. What was said is taken out.
    pub fn read(&mut self, mut each: impl FnMut(Entry<'_>)) {
        let mut controls = self.controls.drain(..).peekable();
        let mut at = 0;
        loop {
            while let Some((_, when, control)) = controls.next_if(|(before, ..)| *before <= at) {
                each(Entry::Control(when, control));
            }
            let Some(head) = self.bytes.get(at..at + HEAD) else { break };
            let port = Port(u16::from_le_bytes([head[0], head[1]]));
            let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let micros = head[4..].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            each(Entry::Packet(port, Instant::from_micros(micros), &self.bytes[at + HEAD..at + HEAD + length]));
            at += HEAD + length;
        }
    }

    /// Gives the memory back to where it came from, if it is still wanted there.
    pub fn recycle(mut self) {
        self.bytes.clear();
        self.missed.clear();
        let home = self.home.clone();
        let _ = home.try_send(self);
    }
}

/// The relay's end.
#[derive(Debug)]
pub struct Tape {
    to: SyncSender<Block>,
    home: SyncSender<Block>,
    spare: Receiver<Block>,
    block: Block,
    /// When the first thing was put into the block.
    since: Option<Instant>,
}

impl Tape {
    /// A tape to one writer.
    pub fn new(to: SyncSender<Block>) -> Tape {
        let (home, spare) = sync_channel(SPARE);
        let block = empty(&home);
        Tape { to, home, spare, block, since: None }
    }

    /// Copies a packet. Its fixed header is given apart, as it was before the relay patched it.
    pub fn packet(&mut self, now: Instant, port: Port, fixed: &[u8; FIXED], rest: &[u8]) {
        let length = FIXED + rest.len();
        if self.block.bytes.len() + HEAD + length > BLOCK && !self.hand_over(now) {
            if !self.block.missed.contains(&port) {
                self.block.missed.push(port);
            }
            return;
        }
        self.since.get_or_insert(now);
        let bytes = &mut self.block.bytes;
        bytes.extend_from_slice(&port.0.to_le_bytes());
        bytes.extend_from_slice(&(length as u16).to_le_bytes());
        bytes.extend_from_slice(&now.micros().to_le_bytes());
        bytes.extend_from_slice(fixed);
        bytes.extend_from_slice(rest);
    }

    /// Says something after the packets so far. It is never left out; there are no more of these than commands of the core.
    pub fn control(&mut self, now: Instant, control: Control) {
        self.since.get_or_insert(now);
        self.block.controls.push((self.block.bytes.len(), now, control));
    }

    /// Hands the block over if it has waited long enough.
    pub fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) && !self.hand_over(now) {
            // The writer is far behind: once more in a while, not in every round.
            self.since = Some(now);
        }
    }

    /// When [`Tape::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + HANDOVER)
    }

    fn hand_over(&mut self, now: Instant) -> bool {
        let next = self.spare.try_recv().unwrap_or_else(|_| empty(&self.home));
        let mut full = std::mem::replace(&mut self.block, next);
        full.until = now;
        match self.to.try_send(full) {
            Ok(()) => {
                self.since = None;
                true
            }
            Err(TrySendError::Full(full) | TrySendError::Disconnected(full)) => {
                std::mem::replace(&mut self.block, full).recycle();
                false
            }
        }
    }
}

fn empty(home: &SyncSender<Block>) -> Block {
    let bytes = Vec::with_capacity(BLOCK);
    Block { bytes, controls: Vec::new(), missed: Vec::new(), until: Instant::ZERO, home: home.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn text(block: &mut Block) -> String {
        let mut all = Vec::new();
        block.read(|entry| {
            all.push(match entry {
                Entry::Packet(port, when, bytes) => format!("{}@{}:{}", port.0, when.micros() / 1000, bytes.len()),
                Entry::Control(_, Control::Untap(port)) => format!("untap {}", port.0),
                Entry::Control(_, control) => format!("{control:?}"),
            });
        });
        all.join(" ")
    }

    #[test]
    fn packets_and_words_stay_in_order() {
        let (to, from) = sync_channel(2);
        let mut tape = Tape::new(to);
        assert_eq!(tape.deadline(), None);
        tape.control(at(1), Control::Untap(Port(1)));
        tape.packet(at(2), Port(20000), &[0; FIXED], &[1; 160]);
        tape.packet(at(3), Port(20002), &[0; FIXED], &[]);
        tape.control(at(4), Control::Untap(Port(2)));
        tape.tick(at(100));
        assert!(from.try_recv().is_err());
        assert_eq!(tape.deadline(), Some(at(101)));
        tape.tick(at(101));
        let mut block = from.try_recv().expect("a block");
        assert_eq!(text(&mut block), "untap 1 20000@2:172 20002@3:12 untap 2");
        assert_eq!((block.until, text(&mut block).contains("untap")), (at(101), false));
        block.recycle();
        assert!(tape.spare.try_recv().is_ok_and(|block| block.bytes.capacity() >= BLOCK && block.bytes.is_empty()));
    }

    #[test]
    fn a_writer_that_does_not_come_costs_packets_but_no_words() {
        let (to, from) = sync_channel(2);
        let mut tape = Tape::new(to);
        for i in 0..4 * BLOCK as u64 / 1000 {
            tape.packet(at(i), Port(7), &[0; FIXED], &[1; 1000]);
        }
        tape.control(at(9999), Control::Untap(Port(7)));
        tape.tick(at(20_000));
        assert_eq!(tape.deadline(), Some(at(20_100)), "it tries again later");
        let _ = (from.try_recv(), from.try_recv());
        tape.tick(at(20_100));
        let mut last = from.try_recv().expect("the third block");
        assert_eq!(last.missed, [Port(7)]);
        assert!(text(&mut last).ends_with("untap 7"));
    }
}
