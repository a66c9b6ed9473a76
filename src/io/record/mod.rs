//! Recordings: relay workers copy packets onto a [`tape`], a writer thread decodes them, places them on the call's timeline
//! (`media::track`) and writes the file ([`wav`]).
//!
//! The call never waits: what a writer cannot take in time is left out and said to be (`complete: false`). A file is playable
//! at every moment; a killed process loses what was heard in the last [`LOSS`]. Files older than `keep` are deleted, by the
//! date in their names; nothing that is not named like a recording is touched.

pub mod tape;
pub mod wav;
mod writer;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use tape::{Control, Tape};
pub use wav::{parts, path};

use crate::io::clock::Clock;
use crate::io::relay::{Report, Sink};
use crate::media::RecordingId;
use tape::{Block, MAX_BLOCKS};

/// The most that a kill costs of each recording: what is on the tape, may still be filled by late packets, and was written but
/// not said in the header.
pub const LOSS: Duration = Duration::from_millis(900);
/// How often old files are looked for.
const SWEEP: Duration = Duration::from_secs(3600);
/// Newest days whose files are looked at for repair: a call that was cut by a crash began in one of them.
const REPAIR_DAYS: usize = 3;
/// Most writer threads.
const MAX_WRITERS: usize = 16;

/// What recordings need to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they go.
    pub dir: PathBuf,
    /// Files older than this are deleted; none: never.
    pub keep: Option<Duration>,
    /// Writer threads, 1 to 16.
    pub writers: usize,
}

/// The running writers. Dropped, it waits until all files are closed; every [`Handle`] and [`Tape`] must be gone before.
#[derive(Debug)]
pub struct Recorder {
    handle: Option<Handle>,
    writers: Vec<JoinHandle<()>>,
    sweeper: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The way to the writers, for relay workers.
#[derive(Clone, Debug)]
pub struct Handle {
    writers: Vec<SyncSender<Block>>,
}

impl Recorder {
    /// Starts the writers. Files that a crash left are mended, and old ones deleted, by a thread of its own.
    ///
    /// # Errors
    /// A thread cannot be started. A folder that cannot be made is no error here: each recording says so.
    pub fn start(settings: Settings, clock: Clock, sink: Sink) -> io::Result<Recorder> {
        let mut recorder = Recorder { handle: None, writers: Vec::new(), sweeper: None };
        let mut handle = Handle { writers: Vec::new() };
        for i in 0..settings.writers.clamp(1, MAX_WRITERS) {
            let (to, from) = sync_channel(MAX_BLOCKS);
            let writer = writer::Prepared { dir: settings.dir.clone(), clock: clock.clone(), sink: sink.clone(), from };
            recorder.writers.push(Builder::new().name(format!("record-{i}")).spawn(move || writer.run())?);
            handle.writers.push(to);
        }
        recorder.handle = Some(handle);
        let (stop, stopped) = channel();
        // What is there now was written by an earlier process; what comes later is somebody's who is writing it.
        let left = newest(&settings.dir);
        let sweeper = Builder::new().name("record-sweep".into()).spawn(move || {
            let mended = repair_all(&left);
            if mended > 0 {
                tracing::info!(files = mended, "recordings of an unclean end mended");
            }
            loop {
                if let Some(keep) = settings.keep {
                    let old = clock.wall().micros().saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
                    let deleted = delete(&settings.dir, |id| id.minted_at().micros() < old);
                    if !deleted.is_empty() {
                        tracing::info!(recordings = deleted.len(), "recordings older than `keep` deleted");
                    }
                    deleted.into_iter().for_each(|recording| sink(Report::Deleted { recording }));
                }
                match stopped.recv_timeout(SWEEP) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        recorder.sweeper = Some((stop, sweeper));
        Ok(recorder)
    }

    /// The way to the writers.
    pub fn handle(&self) -> Handle {
        self.handle.clone().expect("it is only taken by drop")
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.handle = None;
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
        if let Some((stop, sweeper)) = self.sweeper.take() {
            drop(stop);
            let _ = sweeper.join();
        }
    }
}

impl Handle {
    /// A tape for one worker. A worker always has the same writer.
    pub fn tape(&self, worker: usize) -> Tape {
        Tape::new(self.writers[worker % self.writers.len()].clone())
    }
}

/// Whether recordings can be written there; the folder is made if it is not there yet.
///
/// # Errors
/// They cannot: what the system says.
pub fn writable(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    probe(dir)
}

/// Whether files can be made in a folder that is there.
///
/// # Errors
/// They cannot: what the system says.
pub fn probe(dir: &Path) -> io::Result<()> {
    let file = dir.join(format!(".strowger-{}", std::process::id()));
    fs::File::create(&file)?;
    fs::remove_file(&file)
}

/// Mends the files of the newest days that a killed process left; returns how many. Not while somebody writes there.
pub fn repair(dir: &Path) -> usize {
    repair_all(&newest(dir))
}

fn repair_all(files: &[PathBuf]) -> usize {
    let mended = files.iter().filter(|file| match wav::repair(file) {
        Ok(mended) => mended,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "recording cannot be mended");
            false
        }
    });
    mended.count()
}

fn newest(dir: &Path) -> Vec<PathBuf> {
    let mut days = days(dir);
    days.sort_unstable();
    days.iter().rev().take(REPAIR_DAYS).flat_map(|day| files(day)).map(|(_, path)| path).collect()
}

/// Deletes recordings that are `old`, and days that are empty then.
fn delete(dir: &Path, old: impl Fn(RecordingId) -> bool) -> BTreeSet<RecordingId> {
    let mut deleted = BTreeSet::new();
    for day in days(dir) {
        for (id, path) in files(&day) {
            if old(id) && fs::remove_file(&path).is_ok() {
                deleted.insert(id);
            }
        }
        // These succeed for empty folders only.
        for folder in day.ancestors().take(3) {
            let _ = fs::remove_dir(folder);
        }
    }
    deleted
}

/// `DIR/YYYY/MM/DD`.
fn days(dir: &Path) -> Vec<PathBuf> {
    let numbers = |dir: PathBuf, digits: usize| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(move |path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            name.len() == digits && name.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let months = numbers(dir.to_owned(), 4).flat_map(|year| numbers(year, 2));
    months.flat_map(|month| numbers(month, 2)).collect()
}

/// The recordings of a day.
fn files(day: &Path) -> Vec<(RecordingId, PathBuf)> {
    let entries = fs::read_dir(day).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter_map(|path| Some((id_of(path.file_name()?.to_str()?)?, path))).collect()
}

/// The recording that a file name (`ID.wav`, `ID-2.wav`) belongs to.
fn id_of(name: &str) -> Option<RecordingId> {
    let stem = name.strip_suffix(".wav")?;
    let (id, part) = stem.split_once('-').unwrap_or((stem, "2"));
    part.parse::<u32>().ok()?;
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Rng, Wall};

    #[test]
    fn only_old_recordings_are_deleted() {
        let dir = std::env::temp_dir().join(format!("strowger-keep-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let mut rng = Rng::from_number(3);
        let mut ids = Vec::new();
        for day in 0..4i64 {
            let id = RecordingId::mint(Wall::from_micros((20_000 + day) * 86_400_000_000), &mut rng);
            let (wav, made) = wav::Wav::new(&dir, id, 8000, wav::Scratch::default());
            assert!(made.and(wav.finish()).is_ok());
            ids.push(id);
        }
        let stranger = path(&dir, ids[0], 1).with_file_name("notes.wav");
        fs::write(&stranger, "mine").expect("written");
        let deleted = delete(&dir, |id| id.minted_at() < ids[2].minted_at());
        assert!(deleted.into_iter().eq(ids[..2].iter().copied()));
        let left: Vec<bool> = ids.iter().map(|id| path(&dir, *id, 1).exists()).collect();
        assert_eq!(left, [false, false, true, true]);
        assert!(stranger.exists() && !path(&dir, ids[1], 1).parent().is_some_and(Path::exists));
        for (name, known) in
            [("01KAN0000000000000000000AB.wav", true), ("01KAN0000000000000000000AB-2.wav", true), ("x.wav", false)]
        {
            assert_eq!(id_of(name).is_some(), known, "{name}");
        }
        let _ = fs::remove_dir_all(&dir);
    }
}
