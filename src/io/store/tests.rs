//! The store against a real SQLite: locked, full, killed, replayed, and how much it costs.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;

use rusqlite::Connection;

use super::*;
use crate::base::Rng;
use crate::call::record::{By, Called, Caller, Direction, Hangup, Phase, PhaseKind, RecordingEntry, VERSION, Who};
use crate::dialog::Dialog;
use crate::policy::Why;
use crate::sip::transport::{Flow, Transport};

const LONG: Duration = Duration::from_secs(60);

/// A directory of its own, gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("strowger-store-{}-{}", std::process::id(), SERIAL.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("temporary directory");
        Dir(path)
    }

    fn db(&self) -> PathBuf {
        self.0.join("strowger.db")
    }

    fn start(&self) -> (StoreHandle, Kept) {
        start(Sqlite::open(&self.db()).expect("opens"), &self.0).expect("starts")
    }

    fn reader(&self) -> impl Reader + use<> {
        Sqlite::open_reader(&self.db()).expect("opens")
    }

    fn ids(&self) -> Vec<u128> {
        let (mut reader, mut ids, mut after) = (self.reader(), Vec::new(), 0);
        loop {
            let page = reader.records(&Filter { after, ..Filter::default() }).expect("reads");
            let Some((last, _)) = page.last() else { return ids };
            after = *last;
            ids.extend(page.iter().map(|(_, r)| number(r)));
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn number(record: &CallRecord) -> u128 {
    record.id.0 & 0xffff_ffff_ffff
}

/// The id of call number `n`, minted at its start.
fn id(n: u64) -> RecordId {
    RecordId((u128::from(1_795_350_000 + n) * 1000) << 80 | u128::from(n))
}

/// Call number `n`: one a second, of a size as real ones have.
fn record(n: u64) -> CallRecord {
    let at = |s: u64| Wall::from_micros((1_795_350_000 + n as i64 + s as i64) * 1_000_000);
    let who = |leg: u32, result: &str| Who {
        target: format!("extension:{}", 120 + leg),
        leg,
        at: at(1),
        until: at(6),
        result: result.to_owned(),
        why: (result == "elsewhere").then(|| "Call completed elsewhere".to_owned()),
    };
    let phase = |phase, from, until, who| Phase {
        phase,
        at: at(from),
        until: at(until),
        why: "route \"suppliers\": step 1".to_owned(),
        who,
    };
    CallRecord {
        id: id(n),
        v: VERSION,
        direction: Direction::In,
        started_at: at(0),
        answered_at: Some(at(6)),
        ended_at: at(66),
        caller: Caller { number: Some(format!("+7913{:07}", n % 1000)), ..Caller::default() },
        called: Called { number: format!("+7383300000{}", n % 3), ..Called::default() },
        shown: None,
        outcome: if n.is_multiple_of(10) { Outcome::Missed } else { Outcome::Answered },
        answered_by: Some("extension:121".to_owned()),
        branch: None,
        trunk: Some("carrier-a".to_owned()),
        wait_ms: 6000,
        talk_ms: 60_000,
        hold_ms: 0,
        hangup: Hangup { by: By::Caller, sip: None, reason: None },
        journey: vec![
            phase(PhaseKind::Route, 0, 1, Vec::new()),
            phase(PhaseKind::Ring, 1, 6, vec![who(1, "answered"), who(2, "elsewhere")]),
            phase(PhaseKind::Talk, 6, 66, vec![who(1, "answered")]),
        ],
        recordings: Vec::new(),
        tags: Default::default(),
        note: None,
        kind: None,
        explain: vec![Why { rule: "route \"suppliers\"".into(), because: "number +73833000001".to_owned() }],
    }
}

fn save(handle: &StoreHandle, n: u64) {
    handle.save(Save::Record(Box::new(record(n))));
}

fn binding(aor: &str, contact: &str) -> Binding {
    Binding {
        aor: aor.to_owned(),
        contact: contact.to_owned(),
        instance: None,
        path: vec!["<sip:edge;lr>".to_owned()],
        flow: Flow {
            transport: Transport::Udp,
            local: ([127, 0, 0, 1], 5060).into(),
            remote: ([192, 0, 2, 1], 5062).into(),
            conn: 0,
        },
        call_id: "c".to_owned(),
        cseq: 7,
        q: 500,
        user_agent: Some("test".to_owned()),
        expires_at: Wall::from_micros(1_795_350_000_123_000),
    }
}

#[test]
fn records_come_back_by_every_filter_and_keep_their_place() {
    let dir = Dir::new();
    let (handle, _) = dir.start();
    (1..=30).for_each(|n| save(&handle, n));
    let mut longer = record(5);
    longer.note = Some("later".to_owned());
    handle.save(Save::Record(Box::new(longer.clone())));
    assert!(handle.flush(LONG));
    let mut reader = dir.reader();
    let mut find = |filter: Filter| -> Vec<u128> {
        reader.records(&filter).expect("reads").iter().map(|(_, r)| number(r)).collect()
    };
    let all = Filter::default;
    assert_eq!(find(all()), (1..=30).collect::<Vec<u128>>());
    assert_eq!(find(Filter { after: 28, ..all() }), [29, 30]);
    assert_eq!(find(Filter { limit: 2, ..all() }), [1, 2]);
    assert_eq!(find(Filter { outcome: Some(Outcome::Missed), ..all() }), [10, 20, 30]);
    assert_eq!(find(Filter { number: Some("+79130000007".to_owned()), ..all() }), [7]);
    let (since, until) = (Some(record(3).started_at), Some(record(6).started_at));
    assert_eq!(find(Filter { since, until, ..all() }), [3, 4, 5]);
    let numbers = dir.reader().numbers(record(28).started_at, 2).expect("reads");
    let last = |n: u64| {
        let CallRecord { started_at: at, caller, called, shown, .. } = record(n);
        Numbers { at, caller: caller.number, called: called.number, shown }
    };
    assert_eq!(numbers, [last(30), last(29)]);
    assert_eq!(dir.reader().numbers(record(31).started_at, 9).expect("reads"), []);
    let called = Some("+73833000000".to_owned());
    assert_eq!(find(Filter { number: called, after: 3, since, until: None, limit: 2, ..all() }), [6, 9]);
    assert_eq!(find(Filter { number: Some("' OR 1=1 --".to_owned()), ..all() }), [0u128; 0]);
    assert_eq!(reader.record(id(5)).expect("reads"), Some(longer));
    assert_eq!(reader.record(id(99)).expect("reads"), None);
    handle.close();
}

#[test]
fn bindings_survive_and_go() {
    let dir = Dir::new();
    let (handle, none) = dir.start();
    assert_eq!(none, Kept::default());
    let (a, mut b) = (binding("121", "sip:a@h"), binding("121", "sip:b@h"));
    for keep in [&a, &b, &binding("122", "sip:a@h")] {
        handle.save(Save::Binding(Box::new(keep.clone())));
    }
    b.cseq = 8;
    handle.save(Save::Binding(Box::new(b.clone())));
    handle.save(Save::Unbind { aor: "122".to_owned(), contact: "sip:a@h".to_owned() });
    handle.close();
    let (handle, back) = dir.start();
    assert_eq!(back.bindings, [a, b]);
    handle.close();
}

/// As it is when a phone has answered by itself: leg number `n`.
fn opened(n: u32) -> Opened {
    let dialog = Dialog {
        call_id: format!("1-{n:x}").into(),
        local_tag: "1.2.3".into(),
        remote_tag: "r".into(),
        local: "\"Shop floor\" <sip:121@h>".into(),
        remote: "<sip:601@h>".into(),
        local_seq: 1,
        remote_seq: None,
        remote_invite: false,
        target: "sip:601@192.0.2.1:5062".into(),
        routes: vec!["<sip:edge;lr>".into()].into(),
        early: false,
        flow: binding("601", "-").flow,
    };
    Opened { extension: "601".to_owned(), dialog }
}

#[test]
fn opened_phones_survive_until_they_are_closed() {
    let dir = Dir::new();
    let (handle, _) = dir.start();
    let (a, mut b) = (opened(1), opened(2));
    for keep in [&a, &b, &opened(3)] {
        handle.save(Save::Opened(Box::new(keep.clone())));
    }
    b.dialog.local_seq = 7;
    handle.save(Save::Opened(Box::new(b.clone())));
    handle.save(Save::Closed { call_id: "1-3".to_owned() });
    handle.close();
    let (handle, back) = dir.start();
    assert_eq!(back.opened, [a, b.clone()]);
    handle.save(Save::Closed { call_id: "1-1".to_owned() });
    handle.close();
    // One that another version wrote is nobody's.
    Connection::open(dir.db())
        .and_then(|db| db.execute("INSERT INTO opened (call_id, json) VALUES ('x', '{}')", []))
        .expect("inserts");
    let (handle, back) = dir.start();
    assert_eq!(back.opened, [b]);
    handle.close();
}

#[test]
fn a_database_of_the_first_schema_is_brought_up_to_date() {
    let dir = Dir::new();
    let mut db = Connection::open(dir.db()).expect("opens");
    sqlite::migrate(&mut db, &dir.db(), &sqlite::MIGRATIONS[..1]).expect("creates");
    drop(db);
    let (handle, none) = dir.start();
    assert_eq!(none, Kept::default());
    handle.save(Save::Opened(Box::new(opened(1))));
    handle.close();
    let (handle, back) = dir.start();
    assert_eq!(back.opened, [opened(1)]);
    handle.close();
}

#[test]
fn a_deleted_recording_is_noted() {
    let dir = Dir::new();
    let (handle, _) = dir.start();
    let at = Wall::from_micros(1_800_000_000_000_000);
    let mut recorded = record(1);
    recorded.recordings.push(RecordingEntry {
        id: "R1".to_owned(),
        from: recorded.started_at,
        until: None,
        gaps_ms: 0,
        complete: true,
        undecoded: Vec::new(),
        deleted_at: None,
    });
    handle.save(Save::Record(Box::new(recorded)));
    handle.mark_deleted("R1", at);
    handle.mark_deleted("nobody's", at);
    assert!(handle.flush(LONG));
    let record = dir.reader().record(id(1)).expect("reads").expect("there");
    assert_eq!(record.recordings[0].deleted_at, Some(at));
    handle.close();
}

#[test]
fn a_locked_database_costs_no_record_and_no_time() {
    let dir = Dir::new();
    let (handle, _) = dir.start();
    save(&handle, 1);
    assert!(handle.flush(LONG));
    let other = Connection::open(dir.db()).expect("opens");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    let mut slowest = Duration::ZERO;
    for n in 2..=500 {
        let began = std::time::Instant::now();
        save(&handle, n);
        slowest = slowest.max(began.elapsed());
    }
    handle.save(Save::Binding(Box::new(binding("121", "sip:a@h"))));
    // Written down even now, though not in the database.
    assert!(handle.flush(LONG));
    assert_eq!(handle.counts().spilled, 500);
    assert!(dir.0.join(spill::NAME).exists());
    for n in 501..=600 {
        save(&handle, n);
    }
    assert!(handle.flush(LONG));
    assert_eq!(dir.ids(), [1]);
    other.execute_batch("ROLLBACK").expect("unlocks");
    assert!(handle.flush(LONG));
    assert_eq!(dir.ids(), (1..=600).collect::<Vec<u128>>(), "all, once, in order");
    assert!(!dir.0.join(spill::NAME).exists());
    save(&handle, 601);
    handle.close();
    let (counts, ids) = (handle.counts(), dir.ids());
    assert_eq!((ids.len(), counts.stored, counts.lost), (601, 602, 0));
    println!("longest save while the database was locked: {slowest:?}");
}

#[test]
fn a_full_database_costs_no_record() {
    let dir = Dir::new();
    let mut store = Sqlite::open(&dir.db()).expect("opens");
    store.limit_pages(100);
    let (handle, _) = start(store, &dir.0).expect("starts");
    for n in 1..=2000 {
        save(&handle, n);
        if n % 100 == 0 {
            assert!(handle.flush(LONG));
        }
    }
    handle.close();
    let stored = dir.ids().len();
    assert!(stored > 0 && stored < 2000, "{stored}");
    assert!(handle.counts().spilled > 0);
    // The next run finds room.
    let (handle, _) = dir.start();
    handle.close();
    assert_eq!(dir.ids(), (1..=2000).collect::<Vec<u128>>());
    assert!(!dir.0.join(spill::NAME).exists());
}

#[test]
fn what_is_in_the_spill_file_counts_when_the_database_stays_locked() {
    let dir = Dir::new();
    drop(Sqlite::open(&dir.db()).expect("opens"));
    let mut spill = Spill::open(&dir.0, SPILL);
    let unbind = Entry::Unbind { aor: "121".to_owned(), contact: "sip:b@h".to_owned() };
    let kept = binding("121", "sip:a@h");
    let (first, second) = (Entry::Binding(Box::new(kept.clone())), Entry::Binding(Box::new(binding("121", "sip:b@h"))));
    let [open, closed] = [1, 2].map(|n| Entry::Opened(Box::new(opened(n))));
    spill.append(&[first, second, unbind, open, closed, Entry::Closed { call_id: "1-2".to_owned() }]).expect("appends");
    let store = Sqlite::open(&dir.db()).expect("opens");
    let other = Connection::open(dir.db()).expect("opens");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    let (handle, left) = start(store, &dir.0).expect("starts even so");
    assert_eq!(left, Kept { bindings: vec![kept], opened: vec![opened(1)] });
    other.execute_batch("ROLLBACK").expect("unlocks");
    handle.close();
    assert!(!dir.0.join(spill::NAME).exists());
}

#[test]
fn replaying_twice_is_replaying_once_and_cut_lines_are_skipped() {
    let dir = Dir::new();
    let mut store = Sqlite::open(&dir.db()).expect("opens");
    let mut spill = Spill::open(&dir.0, SPILL);
    let entries: Vec<Entry> = (1..=3).map(|n| Entry::Record(Box::new(record(n)))).collect();
    spill.append(&entries).expect("appends");
    // As if the process was killed after the commit and before the file was emptied; and once more in the middle of a line.
    store.apply(&entries[..2]).expect("applies");
    std::fs::OpenOptions::new()
        .append(true)
        .open(dir.0.join(spill::NAME))
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"{\"record\":{\"id\""))
        .expect("appends");
    let mut spill = Spill::open(&dir.0, SPILL);
    spill.append(&[Entry::Record(Box::new(record(4)))]).expect("appends");
    spill.replay(|batch| store.apply(batch)).expect("replays");
    assert_eq!(dir.ids(), [1, 2, 3, 4]);
    assert!(spill.is_empty());
}

#[test]
fn bounds_hold_when_nothing_takes_anything() {
    // Neither database nor file: what waits is bounded, what is beyond is counted.
    struct Nothing;
    impl Store for Nothing {
        fn apply(&mut self, _: &[Entry]) -> Result<(), StoreError> {
            Err(StoreError::Busy("no".to_owned()))
        }
        fn sync(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
        fn bindings(&mut self) -> Result<Vec<Binding>, StoreError> {
            Ok(Vec::new())
        }
        fn opened(&mut self) -> Result<Vec<Opened>, StoreError> {
            Ok(Vec::new())
        }
        fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
            Err(StoreError::Busy("no".to_owned()))
        }
    }
    let (handle, _) = start(Nothing, std::path::Path::new("/proc/no/such/place")).expect("starts");
    let unbind = || Save::Unbind { aor: "1".to_owned(), contact: "sip:1@h".to_owned() };
    for n in 0..3 * QUEUE {
        handle.save(unbind());
        if n % 8192 == 0 {
            handle.flush(LONG);
        }
    }
    handle.close();
    handle.save(unbind());
    let counts = handle.counts();
    assert_eq!((counts.stored, counts.spilled), (0, 0));
    assert!(counts.lost as usize >= 2 * QUEUE, "{counts:?}");
}

#[test]
fn an_unknown_entry_does_not_block_the_others() {
    struct Picky(Sqlite);
    impl Store for Picky {
        fn apply(&mut self, batch: &[Entry]) -> Result<(), StoreError> {
            match batch.iter().any(|e| matches!(e, Entry::Record(r) if r.id == id(2))) {
                true => Err(StoreError::Broken("not this one".to_owned())),
                false => self.0.apply(batch),
            }
        }
        fn sync(&mut self) -> Result<(), StoreError> {
            self.0.sync()
        }
        fn bindings(&mut self) -> Result<Vec<Binding>, StoreError> {
            self.0.bindings()
        }
        fn opened(&mut self) -> Result<Vec<Opened>, StoreError> {
            self.0.opened()
        }
        fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
            self.0.reader()
        }
    }
    let dir = Dir::new();
    let (handle, _) = start(Picky(Sqlite::open(&dir.db()).expect("opens")), &dir.0).expect("starts");
    (1..=3).for_each(|n| save(&handle, n));
    handle.close();
    assert_eq!(dir.ids(), [1, 3]);
    assert_eq!(handle.counts().lost, 1);
}

#[test]
fn a_newer_schema_is_left_alone() {
    let dir = Dir::new();
    drop(Sqlite::open(&dir.db()).expect("opens"));
    Connection::open(dir.db()).and_then(|db| db.execute("UPDATE schema SET version = 99", [])).expect("updates");
    assert!(matches!(Sqlite::open(&dir.db()), Err(StoreError::Newer { found: 99, .. })));
}

/// The other half of `a_kill_costs_the_last_batch_at_most`: saves until it is killed.
#[test]
fn child_saves_until_killed() {
    let Ok(dir) = std::env::var("STROWGER_TEST_STORE") else { return };
    let dir = PathBuf::from(dir);
    let (handle, _) = start(Sqlite::open(&dir.join("strowger.db")).expect("opens"), &dir).expect("starts");
    for n in 1.. {
        save(&handle, n);
        if n % 1000 == 0 {
            handle.flush(LONG);
            println!("flushed {n}");
        }
    }
}

#[test]
fn a_kill_costs_the_last_batch_at_most() {
    let dir = Dir::new();
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "io::store::tests::child_saves_until_killed", "--nocapture"])
        .env("STROWGER_TEST_STORE", &dir.0)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let flushed = lines.filter_map(|l| l.rsplit_once("flushed ")?.1.parse::<u128>().ok()).nth(7).expect("flushes");
    child.kill().and_then(|()| child.wait()).expect("killed");
    let ids = dir.ids();
    assert!(ids.len() as u128 >= flushed);
    assert_eq!(ids, (1..=ids.len() as u128).collect::<Vec<_>>(), "no hole");
    let distinct: BTreeSet<u128> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len());
}

/// What a record costs on a core. Printed, never judged: `cargo test --release --lib io::store -- --nocapture throughput`.
#[test]
fn throughput_of_a_hundred_thousand_records() {
    const N: u64 = if cfg!(debug_assertions) { 5_000 } else { 100_000 };
    let mut rng = Rng::from_number(1);
    let entries: Vec<Entry> = (1..=N)
        .map(|n| {
            let mut r = record(n);
            r.id = RecordId::mint(r.started_at, &mut rng);
            Entry::Record(Box::new(r))
        })
        .collect();
    let each = |d: Duration| d.as_secs_f64() * 1e6 / N as f64;
    let (mut room, mut bytes) = (Vec::new(), 0);
    let before = cpu();
    for entry in &entries {
        room.clear();
        serde_json::to_writer(&mut room, entry).expect("serialises");
        bytes += room.len();
    }
    println!("{N} records of {} bytes: JSON alone {:.2} us CPU each", bytes / entries.len(), each(cpu() - before));
    // As 200 and 2,000 calls a second make them.
    for batch in [16, 160] {
        let dir = Dir::new();
        let mut store = Sqlite::open(&dir.db()).expect("opens");
        let before = cpu();
        for entries in entries.chunks(batch) {
            store.apply(entries).expect("applies");
        }
        println!("in batches of {batch}, JSON included: {:.2} us CPU each", each(cpu() - before));
    }
    let dir = Dir::new();
    let (handle, _) = dir.start();
    let before = cpu();
    for entry in entries {
        handle.push(entry);
        if handle.waiting() > QUEUE / 2 {
            handle.flush(LONG);
        }
    }
    handle.close();
    assert_eq!(handle.counts().stored, N);
    println!("through the writer: {:.2} us CPU each; {:?}", each(cpu() - before), handle.counts());
}

/// CPU time of this process (all threads).
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let ticks: u64 = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum())
        .unwrap_or(0);
    Duration::from_millis(ticks * 10)
}
