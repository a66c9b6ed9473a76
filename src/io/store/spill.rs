//! Where entries wait while the database refuses them: a file of one JSON value a line, appended in order and replayed in
//! order. Replaying is idempotent (each entry is the whole state of its key), so the file is emptied only after all of it was taken.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Entry, REPLAY, Store, StoreError};

/// Its name in the data directory.
pub const NAME: &str = "spill.ndjson";

/// The file. It exists only while it is needed.
#[derive(Debug)]
pub struct Spill {
    path: PathBuf,
    file: Option<File>,
    /// Bytes in the file.
    len: u64,
    most: u64,
    room: Vec<u8>,
}

impl Spill {
    /// Looks for what an earlier run left behind.
    pub fn open(data_dir: &Path, most: u64) -> Spill {
        let path = data_dir.join(NAME);
        let mut spill = Spill { path, file: None, len: 0, most, room: Vec::new() };
        if spill.path.exists()
            && let Err(why) = spill.open_file()
        {
            tracing::error!(path = %spill.path.display(), %why, "the spill file of the last run cannot be read");
        }
        spill
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes a batch behind what is there, wholly or not at all.
    pub fn append(&mut self, batch: &[Entry]) -> io::Result<()> {
        self.room.clear();
        for entry in batch {
            serde_json::to_writer(&mut self.room, entry)?;
            self.room.push(b'\n');
        }
        if self.len + self.room.len() as u64 > self.most {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spill file is as large as it may be"));
        }
        if self.file.is_none() {
            self.open_file()?;
        }
        let file = self.file.as_mut().expect("opened above");
        if let Err(why) = file.write_all(&self.room) {
            // A line cut off by a full disk would spoil the next.
            file.set_len(self.len)?;
            return Err(why);
        }
        self.len += self.room.len() as u64;
        Ok(())
    }

    /// Gives everything to `apply` in order, [`REPLAY`] at a time, and empties the file once all was taken. Lines that are no
    /// entries (cut off by a power cut) are skipped.
    pub fn replay(&mut self, mut apply: impl FnMut(&[Entry]) -> Result<(), StoreError>) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut lines = self.lines().map_err(|e| StoreError::Busy(e.to_string()))?;
        let mut batch = Vec::with_capacity(REPLAY);
        loop {
            batch.clear();
            batch.extend(lines.by_ref().take(REPLAY));
            if batch.is_empty() {
                break;
            }
            match apply(&batch) {
                Ok(()) => {}
                Err(StoreError::Busy(why)) => return Err(StoreError::Busy(why)),
                // One bad entry must not keep the others out for ever.
                Err(StoreError::Broken(_) | StoreError::Newer { .. }) => {
                    for entry in &batch {
                        match apply(std::slice::from_ref(entry)) {
                            Ok(()) => {}
                            Err(StoreError::Busy(why)) => return Err(StoreError::Busy(why)),
                            Err(why) => lost(entry, &why),
                        }
                    }
                }
            }
        }
        self.clear().map_err(|e| StoreError::Busy(e.to_string()))
    }

    /// Everything in the file.
    pub fn read_all(&mut self) -> Vec<Entry> {
        self.lines().map(|lines| lines.collect()).unwrap_or_default()
    }

    /// Has the disk keep what was appended.
    pub fn sync(&mut self) -> io::Result<()> {
        match &self.file {
            Some(file) if self.len > 0 => file.sync_data(),
            _ => Ok(()),
        }
    }

    fn clear(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.set_len(0)?;
        }
        self.len = 0;
        self.file = None;
        std::fs::remove_file(&self.path)
    }

    fn open_file(&mut self) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        self.len = file.seek(SeekFrom::End(0))?;
        // The last line of a process that was cut off may lack its end.
        if self.len > 0 {
            file.write_all(b"\n")?;
            self.len += 1;
        }
        self.file = Some(file);
        Ok(())
    }

    fn lines(&self) -> io::Result<impl Iterator<Item = Entry> + use<>> {
        let lines = BufReader::new(File::open(&self.path)?).split(b'\n').map_while(Result::ok);
        Ok(lines.filter(|line| !line.is_empty()).filter_map(|line| {
            serde_json::from_slice(&line)
                .inspect_err(|why| tracing::warn!(%why, "a line of the spill file is no entry; skipped"))
                .ok()
        }))
    }
}

/// Writes a batch entry by entry; those that never can be written are logged whole. Gives how many were written.
pub(super) fn one_by_one(store: &mut impl Store, batch: &[Entry]) -> Result<usize, StoreError> {
    let mut stored = 0;
    for entry in batch {
        match store.apply(std::slice::from_ref(entry)) {
            Ok(()) => stored += 1,
            Err(StoreError::Busy(why)) => return Err(StoreError::Busy(why)),
            Err(why) => lost(entry, &why),
        }
    }
    Ok(stored)
}

fn lost(entry: &Entry, why: &StoreError) {
    let entry = serde_json::to_string(entry).unwrap_or_default();
    tracing::error!(%why, entry, "an entry cannot be stored");
}
