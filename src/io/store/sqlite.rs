//! SQLite as the store (WAL, one writing connection): records as a few indexed columns and their JSON, bindings, opened phones,
//! and the version of the schema. Cursors are rowids: there is one writer, it commits in order, and a row keeps its place when it is
//! replaced, so a reader that goes on from a cursor misses nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params, params_from_iter};

use super::{Cursor, Entry, Filter, Numbers, PAGE, Reader, Store, StoreError};
use crate::base::Wall;
use crate::call::leg::Opened;
use crate::call::record::{CallRecord, Outcome, RecordId};
use crate::registrar::Binding;

/// How long a statement waits for another process's lock before the batch goes to the spill file.
pub const LOCK_WAIT: Duration = Duration::from_millis(100);
/// Bytes of a page.
const PAGE_SIZE: i64 = 8192;
/// Size of the write-ahead log at which it is put into the database, and to which it is cut back, in bytes.
const WAL: i64 = 16 << 20;

/// Each brings the schema one version further; never edited once released.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE record (
        seq      INTEGER PRIMARY KEY,   -- the cursor
        id       BLOB NOT NULL UNIQUE,  -- 16 bytes, sorts by time
        json     TEXT NOT NULL
    );
    CREATE TABLE brief (                -- what records are looked for by; small enough to be read through
        seq      INTEGER PRIMARY KEY,
        started  INTEGER NOT NULL,      -- microseconds since 1970
        outcome  TEXT NOT NULL,
        caller   TEXT,
        called   TEXT NOT NULL,
        shown    TEXT
    );
    CREATE TABLE recording (
        id       TEXT PRIMARY KEY,
        seq      INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE binding (
        aor      TEXT NOT NULL,
        contact  TEXT NOT NULL,
        instance TEXT NOT NULL,         -- '' where the phone gave none
        json     TEXT NOT NULL,
        PRIMARY KEY (aor, contact, instance)
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE opened (
        call_id  TEXT PRIMARY KEY,
        json     TEXT NOT NULL
    ) WITHOUT ROWID;
",
];

/// The writing connection.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    db: Connection,
    /// The next record's place. There is only one writer, so it need not be asked for.
    next: Cursor,
    /// Room for JSON.
    json: Vec<u8>,
}

impl Sqlite {
    /// Opens or creates the database and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Sqlite, StoreError> {
        let mut db = Connection::open(path)?;
        db.busy_timeout(LOCK_WAIT)?;
        // Records are longer than rows usually are. Only a new file takes it.
        db.pragma_update(None, "page_size", PAGE_SIZE)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        // A kill loses nothing; what a power cut may take is bounded by `Store::sync`.
        db.pragma_update(None, "synchronous", "normal")?;
        db.pragma_update(None, "wal_autocheckpoint", WAL / PAGE_SIZE)?;
        db.pragma_update(None, "journal_size_limit", WAL)?;
        db.set_prepared_statement_cache_capacity(32);
        migrate(&mut db, path, MIGRATIONS)?;
        let next = db.query_row("SELECT coalesce(max(seq), 0) + 1 FROM record", [], |row| row.get(0))?;
        Ok(Sqlite { path: path.to_owned(), db, next, json: Vec::new() })
    }

    /// A connection that only reads. The database must exist.
    pub fn open_reader(path: &Path) -> Result<SqliteReader, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(LOCK_WAIT)?;
        Ok(SqliteReader { db })
    }
}

impl Store for Sqlite {
    fn apply(&mut self, batch: &[Entry]) -> Result<(), StoreError> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut next = self.next;
        {
            let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO record (seq, id, json) VALUES (?1, ?2, ?3)")?;
            let mut brief = tx.prepare_cached(
                "INSERT OR REPLACE INTO brief (seq, started, outcome, caller, called, shown) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for entry in batch {
                match entry {
                    Entry::Record(r) => {
                        let json = encode(&mut self.json, r)?;
                        let id = r.id.0.to_be_bytes();
                        let new = insert.execute(params![next, id, json])? == 1;
                        let seq = if new {
                            next += 1;
                            next - 1
                        } else {
                            tx.prepare_cached("UPDATE record SET json = ?2 WHERE id = ?1 RETURNING seq")?
                                .query_row(params![id, json], |row| row.get(0))?
                        };
                        let (started, caller) = (r.started_at.micros(), &r.caller.number);
                        brief.execute(params![seq, started, outcome(r.outcome), caller, r.called.number, r.shown])?;
                        for recording in &r.recordings {
                            tx.prepare_cached("INSERT OR REPLACE INTO recording (id, seq) VALUES (?1, ?2)")?
                                .execute(params![recording.id, seq])?;
                        }
                    }
                    Entry::Binding(b) => {
                        let instance = b.instance.as_deref().unwrap_or("");
                        let json = encode(&mut self.json, b)?;
                        tx.prepare_cached(
                            "INSERT OR REPLACE INTO binding (aor, contact, instance, json) VALUES (?1, ?2, ?3, ?4)",
                        )?
                        .execute(params![b.aor, b.contact, instance, json])?;
                    }
                    Entry::Unbind { aor, contact } => {
                        tx.prepare_cached("DELETE FROM binding WHERE aor = ?1 AND contact = ?2")?
                            .execute(params![aor, contact])?;
                    }
                    Entry::Opened(opened) => {
                        let json = encode(&mut self.json, opened)?;
                        tx.prepare_cached("INSERT OR REPLACE INTO opened (call_id, json) VALUES (?1, ?2)")?
                            .execute(params![opened.dialog.call_id, json])?;
                    }
                    Entry::Closed { call_id } => {
                        tx.prepare_cached("DELETE FROM opened WHERE call_id = ?1")?.execute(params![call_id])?;
                    }
                    Entry::Deleted { recording, at } => deleted(&tx, recording, *at)?,
                }
            }
        }
        tx.commit()?;
        self.next = next;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        // No log: nothing was written since the last checkpoint, which syncs by itself.
        let Ok(wal) = File::open(wal) else { return Ok(()) };
        wal.sync_data().map_err(|e| StoreError::Busy(e.to_string()))
    }

    fn bindings(&mut self) -> Result<Vec<Binding>, StoreError> {
        bindings(&self.db)
    }

    fn opened(&mut self) -> Result<Vec<Opened>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT json FROM opened ORDER BY call_id")?;
        let mut rows = statement.query([])?;
        let (mut found, mut unreadable) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            match decode(row.get_ref(0)?) {
                Ok(opened) => found.push(opened),
                // It hangs up by itself when its session runs out.
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            tracing::warn!("{unreadable} stored phones that were opened cannot be read; skipped");
        }
        Ok(found)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(Sqlite::open_reader(&self.path)?))
    }
}

/// A reading connection.
#[derive(Debug)]
pub struct SqliteReader {
    db: Connection,
}

impl Reader for SqliteReader {
    fn records(&mut self, filter: &Filter) -> Result<Vec<(Cursor, CallRecord)>, StoreError> {
        let mut sql = String::from("SELECT seq, json FROM brief JOIN record USING (seq) WHERE seq > ?1");
        let mut values = vec![Value::from(filter.after)];
        let mut also = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(&condition.replace("?n", &format!("?{}", values.len())));
        };
        if let Some(number) = &filter.number {
            also(" AND (caller = ?n OR called = ?n OR shown = ?n)", Value::from(number.clone()));
        }
        if let Some(since) = filter.since {
            also(" AND started >= ?n", Value::from(since.micros()));
            // From the first such id on there is something to find.
            also(" AND seq >= (SELECT min(seq) FROM record WHERE id >= ?n)", Value::from(first_id(since)));
        }
        if let Some(until) = filter.until {
            also(" AND started < ?n", Value::from(until.micros()));
        }
        if let Some(wanted) = filter.outcome {
            also(" AND outcome = ?n", Value::from(outcome(wanted).to_owned()));
        }
        let limit = if filter.limit == 0 { PAGE } else { filter.limit.min(PAGE) };
        sql.push_str(&format!(" ORDER BY seq LIMIT {limit}"));
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((row.get(0)?, decode(row.get_ref(1)?)?));
        }
        Ok(found)
    }

    fn record(&mut self, id: RecordId) -> Result<Option<CallRecord>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT json FROM record WHERE id = ?1")?;
        let mut rows = statement.query(params![id.0.to_be_bytes()])?;
        rows.next()?.map(|row| decode(row.get_ref(0)?)).transpose()
    }

    fn bindings(&mut self) -> Result<Vec<Binding>, StoreError> {
        bindings(&self.db)
    }

    fn numbers(&mut self, since: Wall, limit: usize) -> Result<Vec<Numbers>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT started, caller, called, shown FROM brief
             WHERE seq >= (SELECT min(seq) FROM record WHERE id >= ?1) AND started >= ?2 ORDER BY seq DESC LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![first_id(since), since.micros(), limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let at = Wall::from_micros(row.get(0)?);
            found.push(Numbers { at, caller: row.get(1)?, called: row.get(2)?, shown: row.get(3)? });
        }
        Ok(found)
    }
}

/// Brings the schema up to date, whose versions these steps are.
pub(in crate::io) fn migrate(db: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    let known = steps.len() as i64;
    let version = |db: &Connection| -> Result<i64, StoreError> {
        let there: bool = db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'schema'", [], |r| r.get(0))?;
        if !there {
            return Ok(0);
        }
        Ok(db.query_row("SELECT version FROM schema", [], |r| r.get(0)).optional()?.unwrap_or(0))
    };
    let found = version(db)?;
    if found > known {
        return Err(StoreError::Newer { path: path.display().to_string(), found, known });
    }
    if found == known {
        return Ok(());
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    // Another process may have been faster.
    let found = version(&tx)?;
    if found == 0 {
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL); INSERT INTO schema VALUES (0);",
        )?;
    }
    for step in steps.iter().skip(found as usize) {
        tx.execute_batch(step)?;
    }
    tx.execute("UPDATE schema SET version = ?1", [known])?;
    tx.commit()?;
    Ok(())
}

/// Notes in its record that a recording's file is gone. A recording that no record has is nobody's loss.
fn deleted(db: &Connection, recording: &str, at: Wall) -> Result<(), StoreError> {
    let mut find =
        db.prepare_cached("SELECT seq, json FROM record JOIN recording USING (seq) WHERE recording.id = ?1")?;
    let mut rows = find.query(params![recording])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let (seq, mut record): (i64, CallRecord) = (row.get(0)?, decode(row.get_ref(1)?)?);
    drop(rows);
    record.recordings.iter_mut().filter(|r| r.id == recording).for_each(|r| r.deleted_at = Some(at));
    let mut json = Vec::new();
    let json = encode(&mut json, &record)?;
    db.prepare_cached("UPDATE record SET json = ?2 WHERE seq = ?1")?.execute(params![seq, json])?;
    Ok(())
}

/// Ids begin with the millisecond of the start: no call that began at `since` or later has a smaller one.
fn first_id(since: Wall) -> Vec<u8> {
    ((since.micros().max(0) as u128 / 1000) << 80).to_be_bytes().to_vec()
}

fn bindings(db: &Connection) -> Result<Vec<Binding>, StoreError> {
    let mut statement = db.prepare_cached("SELECT json FROM binding ORDER BY aor, contact, instance")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // One that cannot be read is made anew by its phone.
        match decode(row.get_ref(0)?) {
            Ok(binding) => found.push(binding),
            Err(why) => tracing::warn!(%why, "a stored binding cannot be read; skipped"),
        }
    }
    Ok(found)
}

/// `outcome` as the record's JSON has it.
fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::NonTarget => "non_target",
        Outcome::Short => "short",
        Outcome::Missed => "missed",
        Outcome::Busy => "busy",
        Outcome::Rejected => "rejected",
        Outcome::Failed => "failed",
    }
}

fn encode<'a>(room: &'a mut Vec<u8>, value: &impl serde::Serialize) -> Result<&'a str, StoreError> {
    room.clear();
    serde_json::to_writer(&mut *room, value).map_err(|e| StoreError::Broken(e.to_string()))?;
    std::str::from_utf8(room).map_err(|e| StoreError::Broken(e.to_string()))
}

fn decode<T: serde::de::DeserializeOwned>(json: rusqlite::types::ValueRef<'_>) -> Result<T, StoreError> {
    let text = json.as_str().map_err(|e| StoreError::Broken(e.to_string()))?;
    serde_json::from_str(text).map_err(|e| StoreError::Broken(e.to_string()))
}

impl From<rusqlite::Error> for StoreError {
    /// Only what says that this very entry cannot be written is broken; all else may pass.
    fn from(error: rusqlite::Error) -> StoreError {
        let broken = match &error {
            rusqlite::Error::SqliteFailure(e, _) => matches!(
                e.code,
                ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
                    | ErrorCode::ParameterOutOfRange
            ),
            rusqlite::Error::ToSqlConversionFailure(_) | rusqlite::Error::Utf8Error(..) => true,
            _ => false,
        };
        if broken { StoreError::Broken(error.to_string()) } else { StoreError::Busy(error.to_string()) }
    }
}

#[cfg(test)]
impl Sqlite {
    /// As if the disk had only so much room.
    pub(super) fn limit_pages(&mut self, pages: u32) {
        self.db.pragma_update(None, "max_page_count", pages).expect("limits");
    }
}
