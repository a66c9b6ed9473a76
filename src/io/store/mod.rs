//! What survives us: call records, bindings and opened phones, in a database that no call ever waits for.
//!
//! ```text
//! engine --save--> bounded queue --every BATCH--> writer thread --one transaction--> Store (SQLite)
//!                                                     |  refused: locked, full, broken
//!                                                     +--append--> spill.ndjson --replayed in order--> Store
//! ```
//!
//! The writer sleeps while batches gather, so a busy server wakes it about twelve times a second, whatever it saves. A
//! batch that the database refuses goes to a file, and everything after it too, until the file is replayed; every entry
//! says the whole state of its key, so replaying twice is replaying once. What was written down before a `kill -9` stays;
//! a power cut costs at most the last second ([`SYNC_BATCHES`]).

pub mod spill;
pub mod sqlite;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::b2bua::Save;
use crate::base::Wall;
use crate::call::leg::Opened;
use crate::call::record::{CallRecord, Outcome, RecordId};
use crate::registrar::Binding;
use spill::Spill;
pub use sqlite::Sqlite;

/// How long entries gather before they are written.
pub const BATCH: Duration = Duration::from_millis(80);
/// Batches until the disk is told to keep them (fsync): at most a second is lost by a power cut.
pub const SYNC_BATCHES: u32 = 12;
/// Entries that wait for the writer; more are lost and counted.
pub const QUEUE: usize = 32_768;
/// Bytes of the spill file; what does not fit waits in memory, then is lost and counted.
pub const SPILL: u64 = 1 << 30;
/// Entries of the spill file that are replayed in one transaction.
pub const REPLAY: usize = 4096;
/// Pauses between tries while the database refuses: first, and longest.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Records in one answer of [`Reader::records`].
pub const PAGE: usize = 1000;

/// One thing to be kept. The latest of a key says all there is to say about it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A call; replaces the record with the same id, which keeps its place.
    Record(Box<CallRecord>),
    /// A binding.
    Binding(Box<Binding>),
    /// No binding any more.
    Unbind {
        /// Address of record.
        aor: String,
        /// Contact URI.
        contact: String,
    },
    /// A phone answered by itself.
    Opened(Box<Opened>),
    /// It is closed again.
    Closed {
        /// The Call-ID of its dialog.
        call_id: String,
    },
    /// A recording's file was deleted for its age.
    Deleted {
        /// The recording's id.
        recording: String,
        /// When.
        at: Wall,
    },
}

impl From<Save> for Entry {
    fn from(save: Save) -> Entry {
        match save {
            Save::Record(record) => Entry::Record(record),
            Save::Binding(binding) => Entry::Binding(binding),
            Save::Unbind { aor, contact } => Entry::Unbind { aor, contact },
            Save::Opened(opened) => Entry::Opened(opened),
            Save::Closed { call_id } => Entry::Closed { call_id },
        }
    }
}

/// A database. Owned by the writer thread.
pub trait Store: Send + 'static {
    /// Writes a batch, wholly or not at all.
    fn apply(&mut self, batch: &[Entry]) -> Result<(), StoreError>;
    /// Has the disk keep what was written.
    fn sync(&mut self) -> Result<(), StoreError>;
    /// All bindings, expired ones too.
    fn bindings(&mut self) -> Result<Vec<Binding>, StoreError>;
    /// Phones that were opened and not closed.
    fn opened(&mut self) -> Result<Vec<Opened>, StoreError>;
    /// A view of its own for readers; it never holds up the writer.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
}

/// Reads what is kept. Blocks: not for an async thread.
pub trait Reader: Send {
    /// Records in the order in which they were first stored, each with the cursor to go on from. A cursor never skips a
    /// record and never gives one twice.
    fn records(&mut self, filter: &Filter) -> Result<Vec<(Cursor, CallRecord)>, StoreError>;
    /// One record.
    fn record(&mut self, id: RecordId) -> Result<Option<CallRecord>, StoreError>;
    /// All bindings, expired ones too.
    fn bindings(&mut self) -> Result<Vec<Binding>, StoreError>;
    /// The numbers of the calls that began at or after `since`, the latest first, at most `limit`.
    fn numbers(&mut self, since: Wall, limit: usize) -> Result<Vec<Numbers>, StoreError>;
}

/// The numbers of a call, as its record has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// When it began.
    pub at: Wall,
    /// Who called.
    pub caller: Option<String>,
    /// What was called.
    pub called: String,
    /// Caller ID that went out.
    pub shown: Option<String>,
}

/// What an earlier run left for this one.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Kept {
    /// Bindings, expired ones too.
    pub bindings: Vec<Binding>,
    /// Phones that answered by themselves and were not closed.
    pub opened: Vec<Opened>,
}

/// A place in the sequence of records; 0 is before the first.
pub type Cursor = i64;

/// Which records.
#[derive(Clone, Default, Debug)]
pub struct Filter {
    /// Only after this cursor.
    pub after: Cursor,
    /// At most so many; 0 and what is above [`PAGE`] are [`PAGE`].
    pub limit: usize,
    /// Calls that began at or after.
    pub since: Option<Wall>,
    /// Calls that began before.
    pub until: Option<Wall>,
    /// Caller, number called or caller ID shown, as the record has it.
    pub number: Option<String>,
    /// Outcome.
    pub outcome: Option<Outcome>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused for now: locked, full, unreadable. Trying again later may help.
    #[error("the database refuses: {0}")]
    Busy(String),
    /// It cannot be done, now or later.
    #[error("the database cannot do it: {0}")]
    Broken(String),
    /// Another version of strowger wrote it.
    #[error("{path} has schema {found}, this version knows {known}: run a newer strowger")]
    Newer {
        /// The file.
        path: String,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
}

/// Hands entries to the writer thread. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

/// What the writer counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreCounts {
    /// Entries in the database.
    pub stored: u64,
    /// Entries that went through the spill file.
    pub spilled: u64,
    /// Entries that found room nowhere.
    pub lost: u64,
    /// Transactions.
    pub batches: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The writer waits here.
    work: Condvar,
    /// [`StoreHandle::flush`] waits here.
    done: Condvar,
    stored: AtomicU64,
    spilled: AtomicU64,
    lost: AtomicU64,
    batches: AtomicU64,
}

#[derive(Default, Debug)]
struct State {
    queue: VecDeque<Entry>,
    /// The writer sleeps until it is woken.
    asleep: bool,
    /// How many flushes were asked for, and answered.
    asked: u64,
    answered: u64,
    closing: bool,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where the lock is held, so a poisoned one is as good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the database, replays what an earlier run left in the spill file, and starts the writer. Gives the handle and what the
/// earlier run left. `data_dir` holds the spill file.
pub fn start(mut store: impl Store, data_dir: &Path) -> Result<(StoreHandle, Kept), StoreError> {
    let mut spill = Spill::open(data_dir, SPILL);
    let mut left = Vec::new();
    if let Err(why) = spill.replay(|batch| store.apply(batch)) {
        tracing::warn!(%why, "the database refuses; records of the last run wait in the spill file");
        left = spill.read_all();
    }
    let (mut bindings, mut opened) = (store.bindings()?, store.opened()?);
    for entry in left {
        match entry {
            Entry::Binding(new) => {
                bindings.retain(|b| !(b.aor == new.aor && b.contact == new.contact && b.instance == new.instance));
                bindings.push(*new);
            }
            Entry::Unbind { aor, contact } => bindings.retain(|b| !(b.aor == aor && b.contact == contact)),
            Entry::Opened(new) => {
                opened.retain(|o| o.dialog.call_id != new.dialog.call_id);
                opened.push(*new);
            }
            Entry::Closed { call_id } => opened.retain(|o| *o.dialog.call_id != *call_id),
            Entry::Record(_) | Entry::Deleted { .. } => {}
        }
    }
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        work: Condvar::new(),
        done: Condvar::new(),
        stored: AtomicU64::new(0),
        spilled: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        batches: AtomicU64::new(0),
    });
    let writer = Writer { shared: shared.clone(), store, spill, kept: Vec::new(), unsynced: 0, pause: None };
    let thread = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || writer.run())
        .map_err(|e| StoreError::Broken(format!("no thread: {e}")))?;
    shared.lock().thread = Some(thread);
    Ok((StoreHandle { shared }, Kept { bindings, opened }))
}

impl StoreHandle {
    /// Has something kept. Never waits; takes a lock that is never held longer than a push.
    pub fn save(&self, save: Save) {
        self.push(save.into());
    }

    /// Notes in its record that a recording's file was deleted at `at`.
    pub fn mark_deleted(&self, recording: &str, at: Wall) {
        self.push(Entry::Deleted { recording: recording.to_owned(), at });
    }

    /// Waits until all that was saved before is written down, in the database or in the spill file; false if that took longer.
    pub fn flush(&self, within: Duration) -> bool {
        let mut state = self.shared.lock();
        state.asked += 1;
        let mine = state.asked;
        self.shared.work.notify_one();
        let (_state, late) = self
            .shared
            .done
            .wait_timeout_while(state, within, |s| s.answered < mine)
            .unwrap_or_else(PoisonError::into_inner);
        !late.timed_out()
    }

    /// Writes down what is left and ends the writer. What is saved later is lost.
    pub fn close(&self) {
        let thread = {
            let mut state = self.shared.lock();
            state.closing = true;
            self.shared.work.notify_one();
            state.thread.take()
        };
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }

    /// What was counted.
    pub fn counts(&self) -> StoreCounts {
        let s = &self.shared;
        StoreCounts {
            stored: s.stored.load(Relaxed),
            spilled: s.spilled.load(Relaxed),
            lost: s.lost.load(Relaxed),
            batches: s.batches.load(Relaxed),
        }
    }

    /// Entries that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    fn push(&self, entry: Entry) {
        let mut state = self.shared.lock();
        if state.queue.len() >= QUEUE || state.closing {
            drop(state);
            self.shared.lost.fetch_add(1, Relaxed);
            return;
        }
        state.queue.push_back(entry);
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.shared.work.notify_one();
        }
    }
}

/// The writer thread's own.
struct Writer<S> {
    shared: Arc<Shared>,
    store: S,
    spill: Spill,
    /// What neither the database nor the spill file took.
    kept: Vec<Entry>,
    /// Batches since the disk was told to keep them.
    unsynced: u32,
    /// While the database refuses: how long to wait, and how much of that is over.
    pause: Option<(Duration, Duration)>,
}

impl<S: Store> Writer<S> {
    fn run(mut self) {
        let mut batch = VecDeque::new();
        let mut quiet = false;
        loop {
            let (flush, closing) = self.gather(&mut batch, quiet);
            quiet = batch.is_empty();
            let urgent = flush.is_some() || closing;
            self.write(batch.drain(..).collect(), urgent);
            if self.unsynced >= SYNC_BATCHES || (self.unsynced > 0 && (quiet || urgent)) {
                self.sync();
            }
            if let Some(asked) = flush {
                self.shared.lock().answered = asked;
                self.shared.done.notify_all();
            }
            if closing {
                return;
            }
        }
    }

    /// Sleeps until there is a batch: through [`BATCH`], and before it, if nothing came during the last one, until somebody saves.
    fn gather(&mut self, batch: &mut VecDeque<Entry>, quiet: bool) -> (Option<u64>, bool) {
        let urgent = |s: &mut State| !s.closing && s.asked == s.answered;
        let mut state = self.shared.lock();
        if quiet && !self.refused() {
            while state.queue.is_empty() && urgent(&mut state) {
                state.asleep = true;
                state = self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.asleep = false;
        }
        (state, _) = self.shared.work.wait_timeout_while(state, BATCH, urgent).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.queue, batch);
        let flush = (state.asked != state.answered).then_some(state.asked);
        (flush, state.closing)
    }

    fn refused(&self) -> bool {
        self.pause.is_some() || !self.kept.is_empty()
    }

    fn write(&mut self, batch: Vec<Entry>, urgent: bool) {
        let mut batch = batch;
        if !self.kept.is_empty() {
            self.kept.append(&mut batch);
            batch = std::mem::take(&mut self.kept);
        }
        if self.spill.is_empty() && !self.paused(urgent) {
            if batch.is_empty() {
                self.pause = None;
                return;
            }
            match self.apply(&batch) {
                Ok(()) => {
                    self.recovered();
                    return;
                }
                Err(why) => self.refuse(&why),
            }
        }
        if !batch.is_empty() {
            match self.spill.append(&batch) {
                Ok(()) => {
                    self.unsynced += 1;
                    self.shared.spilled.fetch_add(batch.len() as u64, Relaxed);
                }
                Err(why) => self.keep(batch, &why),
            }
        }
        if !self.spill.is_empty() && !self.paused(urgent) {
            let (store, shared) = (&mut self.store, &self.shared);
            let replayed = self.spill.replay(|batch| {
                store.apply(batch)?;
                shared.stored.fetch_add(batch.len() as u64, Relaxed);
                shared.batches.fetch_add(1, Relaxed);
                Ok(())
            });
            match replayed {
                Ok(()) => {
                    self.unsynced += 1;
                    self.recovered();
                }
                Err(why) => self.refuse(&why),
            }
        }
    }

    fn apply(&mut self, batch: &[Entry]) -> Result<(), StoreError> {
        let mut stored = batch.len();
        match self.store.apply(batch) {
            Ok(()) => {}
            Err(StoreError::Busy(why)) => return Err(StoreError::Busy(why)),
            // One bad entry must not keep the others out.
            Err(StoreError::Broken(_) | StoreError::Newer { .. }) => {
                stored = spill::one_by_one(&mut self.store, batch)?
            }
        }
        self.unsynced += 1;
        self.shared.lost.fetch_add((batch.len() - stored) as u64, Relaxed);
        self.shared.stored.fetch_add(stored as u64, Relaxed);
        self.shared.batches.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Whether a refusal is too fresh for another try. Each call is one [`BATCH`] later than the last.
    fn paused(&mut self, urgent: bool) -> bool {
        let Some((whole, over)) = &mut self.pause else { return false };
        *over += BATCH;
        !urgent && over < whole
    }

    fn refuse(&mut self, why: &StoreError) {
        let pause = match self.pause {
            None => {
                tracing::warn!(%why, "records go to the spill file until the database takes them again");
                RETRY.0
            }
            Some((whole, _)) => (whole * 2).min(RETRY.1),
        };
        self.pause = Some((pause, Duration::ZERO));
    }

    fn recovered(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!("the database takes records again");
        }
    }

    fn keep(&mut self, batch: Vec<Entry>, why: &std::io::Error) {
        self.kept = batch;
        if self.kept.len() > QUEUE {
            let lost = self.kept.len() - QUEUE;
            self.kept.truncate(QUEUE);
            self.shared.lost.fetch_add(lost as u64, Relaxed);
            tracing::error!(%why, lost, "neither the database nor the spill file takes records");
        }
        if self.pause.is_none() {
            self.pause = Some((RETRY.0, Duration::ZERO));
        }
    }

    fn sync(&mut self) {
        self.unsynced = 0;
        let spilled = self.spill.sync().map_err(|e| StoreError::Busy(e.to_string()));
        if let Err(why) = self.store.sync().and(spilled) {
            tracing::warn!(%why, "the disk does not confirm what was written");
        }
    }
}

#[cfg(test)]
mod tests;
