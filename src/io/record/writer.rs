//! A writer thread: takes blocks from the tapes, and every so often writes what is final of each recording.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::tape::{Block, Control, Entry, HANDOVER};
use super::wav::{Scratch, Wav};
use crate::base::{Instant, Map, map};
use crate::io::clock::Clock;
use crate::io::relay::{Report, Sink};
use crate::media::track::{self, Track};
use crate::media::{Output, Payloads, Port, Recorded, RecordingId, Side};

/// How often recordings are looked at.
const ROUND: Duration = Duration::from_millis(50);
/// How often what is final of a recording is written. Each has its own beat, so that they do not all write at once.
const WRITE: Duration = Duration::from_millis(200);
/// How many writes there are to one true header.
const WRITES_PER_FLUSH: u32 = 2;
/// How often a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long after an empty channel a packet of that time may still come: a tape's wait, and a worker's nap.
const UNDERWAY: Duration = Duration::from_millis(HANDOVER.as_millis() as u64 + 50);
/// How long nothing more is said of the disk after something was: some files may be written and others not.
const QUIET: Duration = Duration::from_secs(10);
/// Longest sleep of a writer without recordings.
const IDLE: Duration = Duration::from_secs(3600);

/// A writer that has not begun.
pub(super) struct Prepared {
    pub dir: PathBuf,
    pub clock: Clock,
    pub sink: Sink,
    pub from: Receiver<Block>,
}

impl Prepared {
    /// Writes until every tape and handle is gone.
    pub fn run(self) {
        let mut writer = Writer {
            dir: self.dir,
            sink: self.sink,
            files: map(),
            taps: map(),
            scratch: Scratch::default(),
            samples: Vec::new(),
            until: Instant::ZERO,
            alarm: Alarm::default(),
        };
        let mut round = Instant::ZERO;
        loop {
            let now = self.clock.mono();
            let wait = if writer.files.is_empty() { IDLE } else { round.since(now).min(ROUND) };
            match self.from.recv_timeout(wait) {
                Ok(block) => writer.take(block),
                Err(RecvTimeoutError::Timeout) => writer.caught_up(self.clock.mono()),
                Err(RecvTimeoutError::Disconnected) => return writer.finish_all(self.clock.mono()),
            }
            // Blocks come in bursts; a round is due all the same, or a backlog would keep its samples in memory.
            loop {
                let now = self.clock.mono();
                if now >= round {
                    writer.round(now);
                    round = now + ROUND;
                }
                match self.from.try_recv() {
                    Ok(block) => writer.take(block),
                    Err(TryRecvError::Empty) => break writer.caught_up(now),
                    Err(TryRecvError::Disconnected) => break,
                }
            }
        }
    }
}

struct Writer {
    dir: PathBuf,
    sink: Sink,
    files: Map<RecordingId, Recording>,
    taps: Map<Port, (RecordingId, Side)>,
    scratch: Scratch,
    samples: Vec<i16>,
    /// Everything that arrived up to then has been seen.
    until: Instant,
    alarm: Alarm,
}

struct Recording {
    track: Track,
    wav: Wav,
    due: Instant,
    writes: u32,
    failed: bool,
    /// Why there was no file when it was last tried to make one.
    fault: Option<String>,
}

impl Writer {
    fn take(&mut self, mut block: Block) {
        for port in &block.missed {
            if let Some(recording) = self.taps.get(port).and_then(|(id, _)| self.files.get_mut(id)) {
                recording.track.mark_incomplete();
            }
        }
        let until = block.until;
        block.read(|entry| match entry {
            Entry::Packet(port, when, packet) => {
                if let Some((id, side)) = self.taps.get(&port)
                    && let Some(recording) = self.files.get_mut(id)
                {
                    recording.track.packet(*side, when, packet);
                }
            }
            Entry::Control(when, Control::Tap(port, id, side, payloads)) => self.tap(when, port, id, side, payloads),
            Entry::Control(_, Control::Untap(port)) => {
                self.taps.remove(&port);
            }
            Entry::Control(when, Control::Finish(id)) => self.finish(when, id),
        });
        block.recycle();
        self.until = self.until.max(until);
    }

    fn caught_up(&mut self, now: Instant) {
        self.until = self.until.max(Instant::from_micros(now.micros().saturating_sub(UNDERWAY.as_micros() as u64)));
    }

    fn round(&mut self, now: Instant) {
        for (id, recording) in &mut self.files {
            if recording.due <= now {
                let before = recording.track.written();
                let result = recording.write(self.until, &mut self.samples);
                recording.due = now + if recording.wav.is_open() { WRITE } else { RETRY };
                // Where nothing was to be written, that it went well means nothing.
                if result.is_err() || recording.track.written() > before {
                    self.alarm.hear(now, *id, &result);
                }
            }
        }
    }

    fn tap(&mut self, when: Instant, port: Port, id: RecordingId, side: Side, payloads: Payloads) {
        let recording = self.files.entry(id).or_insert_with(|| {
            let rate = track::rate(&payloads);
            let (wav, made) = Wav::new(&self.dir, id, rate, self.scratch.clone());
            self.alarm.hear(when, id, &made);
            let fault = made.err().map(|error| error.to_string());
            Recording {
                track: Track::new(when, rate),
                wav,
                due: when + WRITE,
                writes: 0,
                failed: fault.is_some(),
                fault,
            }
        });
        recording.track.tap(side, payloads);
        self.taps.insert(port, (id, side));
    }

    fn finish(&mut self, when: Instant, id: RecordingId) {
        self.taps.retain(|_, (tapped, _)| *tapped != id);
        let result = match self.files.remove(&id) {
            Some(recording) => recording.finish(when, &mut self.samples),
            // Nothing was ever tapped into it.
            None => Recorded { no_file: Some("nothing came to be recorded".to_owned()), ..Recorded::default() },
        };
        (self.sink)(Report::Media(Output::Recorded { recording: id, result }));
    }

    fn finish_all(mut self, now: Instant) {
        let ids: Vec<RecordingId> = self.files.keys().copied().collect();
        ids.into_iter().for_each(|id| self.finish(now, id));
    }
}

impl Recording {
    fn write(&mut self, until: Instant, samples: &mut Vec<i16>) -> io::Result<()> {
        let mut result = if self.wav.is_open() { Ok(()) } else { self.reopen() };
        loop {
            samples.clear();
            if self.track.drain(until, samples) == 0 {
                break;
            }
            result = self.wav.write(samples).and(result);
        }
        self.writes += 1;
        if self.writes.is_multiple_of(WRITES_PER_FLUSH) {
            result = self.wav.flush().and(result);
        }
        self.failed |= result.is_err();
        result
    }

    fn reopen(&mut self) -> io::Result<()> {
        let result = self.wav.reopen();
        self.fault = result.as_ref().err().map(ToString::to_string);
        result
    }

    fn finish(mut self, when: Instant, samples: &mut Vec<i16>) -> Recorded {
        loop {
            samples.clear();
            if self.track.finish(when, samples) == 0 {
                break;
            }
            self.failed |= self.wav.write(samples).is_err();
        }
        if !self.wav.is_open() {
            let _ = self.reopen();
        }
        let mut result = self.track.result();
        result.gaps_ms += 2 * self.wav.missing() * 1000 / u64::from(self.track.rate());
        if !self.wav.made() {
            let fault = self.fault.take().unwrap_or_else(|| "no reason was given".to_owned());
            result.no_file = Some(format!("{} cannot be written: {fault}", self.wav.path().display()));
        }
        self.failed |= self.wav.finish().is_err();
        result.complete &= !self.failed;
        result
    }
}

/// What is said of the disk: one line when recordings begin to fail, one when they go on; not one per file and second.
#[derive(Default)]
struct Alarm {
    failing: bool,
    said: Option<Instant>,
}

impl Alarm {
    fn hear(&mut self, now: Instant, recording: RecordingId, result: &io::Result<()>) {
        let quiet = self.said.is_some_and(|said| now.since(said) < QUIET);
        if result.is_err() == self.failing || quiet {
            return;
        }
        (self.failing, self.said) = (result.is_err(), Some(now));
        match result {
            Err(error) => {
                tracing::error!(%recording, %error, "recordings cannot be written; calls go on, it is tried again every second");
            }
            Ok(()) => tracing::info!(%recording, "recordings are written again"),
        }
    }
}
