//! Imports from files to the index and back: what tables may look like, what rows are taken, what an import changes.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::imported::load;
use super::*;
use crate::directory::calendar::{Calendar, Week, Year};
use crate::directory::{Contacts, Country, E164, Extension, Node};

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("strowger-import-{}-{}", std::process::id(), SERIAL.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("data/directory.db")
    }

    fn rejects(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("rejects.csv")).unwrap_or_default();
        text.lines().skip(1).map(|line| line.split_once(".csv,").expect("a file").1.to_owned()).collect()
    }

    /// Imports these files at second `at`.
    fn import(&self, at: i64, dry_run: bool, tables: &[&[u8]]) -> Result<Outcome, ImportError> {
        let files: Vec<PathBuf> = (0..tables.len()).map(|i| self.0.join(format!("{i}.csv"))).collect();
        files.iter().zip(tables).for_each(|(file, bytes)| fs::write(file, bytes).expect("a file"));
        let mut node = Node::new("lab", "lab.example");
        node.country = Some(Country::RU);
        let mut directory = Directory::empty(node);
        directory.extensions = vec![Extension::new("121", "Anna", "a-long-password-1")];
        let mut rejects = Rejects::to(&self.0.join("rejects.csv"));
        let done = What::Contacts.import(&mut Job {
            files: &files,
            dry_run,
            directory: &directory.indexed(),
            database: &self.database(),
            shown: EXAMPLES,
            now: Wall::from_micros(at * 1_000_000),
            rejects: &mut rejects,
            progress: &(),
        });
        rejects.close().expect("rejects can be written");
        done
    }

    /// Imports production calendars; what changed, or why nothing did.
    fn calendars(&self, texts: &[&str]) -> Result<Outcome, String> {
        let files: Vec<PathBuf> = (0..texts.len()).map(|i| self.0.join(format!("{i}.json"))).collect();
        files.iter().zip(texts).for_each(|(file, text)| fs::write(file, text).expect("a file"));
        let mut rejects = Rejects::to(&self.0.join("rejects.csv"));
        let directory = Directory::empty(Node::new("lab", "lab.example"));
        let mut job = Job {
            files: &files,
            dry_run: false,
            directory: &directory,
            database: &self.database(),
            shown: EXAMPLES,
            now: Wall::from_micros(0),
            rejects: &mut rejects,
            progress: &(),
        };
        What::Calendar.import(&mut job).map_err(|error| error.to_string())
    }

    fn contacts(&self) -> std::sync::Arc<Contacts> {
        load(&self.database()).expect("it can be read").contacts
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn number(text: &str) -> E164 {
    text.parse().expect("a number")
}

/// New, changed, removed, unchanged.
fn counts(outcome: &Outcome) -> [u64; 4] {
    [outcome.new.count, outcome.changed.count, outcome.removed.count, outcome.unchanged]
}

#[test]
fn tables_are_read_as_other_programs_write_them() {
    let utf8 = "Номер телефона;Имя;Категория\r\n8 (913) 123-45-67;\"ООО \"\"Ромашка\"\"; склад\";поставщик\r\n";
    let (cp1251, _, lossy) = encoding_rs::WINDOWS_1251.encode(utf8);
    assert!(!lossy);
    let utf16: Vec<u8> = "\u{feff}".encode_utf16().chain(utf8.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let tabs = "NUMBER\tNAME\tCATEGORY\n9131234567\t\"ООО \"\"Ромашка\"\"; склад\"\tпоставщик";
    let tables: [&[u8]; 7] = [
        utf8.as_bytes(),
        &[b"\xef\xbb\xbf", utf8.as_bytes()].concat(),
        &cp1251,
        &utf16,
        tabs.as_bytes(),
        &[b"sep=;\r\n", utf8.as_bytes()].concat(),
        "Phone 1,phone_2,full name,Group\n+79131234567,,\"ООО \"\"Ромашка\"\"; склад\",поставщик\n".as_bytes(),
    ];
    for table in tables {
        let folder = Folder::new();
        let outcome = folder.import(1, false, &[table]).expect("it is taken");
        assert_eq!((counts(&outcome), folder.rejects()), ([1, 0, 0, 0], vec![]), "{}", String::from_utf8_lossy(table));
        let contacts = folder.contacts();
        let contact = contacts.best(number("+79131234567")).expect("it was imported");
        assert_eq!(contact.name(), Some("ООО \"Ромашка\"; склад"));
        assert_eq!(contact.category(), Some("поставщик"));
    }
}

#[test]
fn a_row_is_taken_as_far_as_it_can_be() {
    let folder = Folder::new();
    let table = "number,name,manager,url,tags\n\
        \"+79130000001; 8 913 000-00-02\",Anna,121,https://crm.example/1,\"vip; debt\"\n\
        121,Boris,,,\n\
        +79130000003,Vera,999,,\n\
        +79130000004;nonsense,Gleb,,javascript:alert(1),\n\
        ,Daria,,,\n\
        \n\
        7.91E+10,Egor,,,\n\
        +79130000005,\"Zhanna\nof two lines\",,,\n\
        '+79130000006,Zinaida,,,,,,too much\n\
        '+79130000007,Ivan\n";
    let outcome = folder.import(1, false, &[table.as_bytes()]).expect("it is taken");
    assert_eq!((outcome.rows, outcome.new.count), (9, 5));
    let want = [
        "3,rejected,\"\"\"121\"\" is no telephone number\",121",
        "4,taken,there is no extension 999: kept without a manager,'+79130000003",
        "5,taken,\"\"\"nonsense\"\" is no telephone number; its url is no http or https address: kept without\",'+79130000004;nonsense",
        "6,rejected,has no number,",
        "8,rejected,\"\"\"7.91E+10\"\" is no telephone number: a spreadsheet has rounded it, format the column as text\",7.91E+10",
        "11,rejected,has more cells than there are columns (a separator within a cell that is not quoted?),",
    ];
    assert_eq!(folder.rejects(), want);
    let contacts = folder.contacts();
    let anna = contacts.best(number("+79130000002")).expect("it was imported");
    assert_eq!((anna.manager(), anna.url().as_deref()), (Some("121"), Some("https://crm.example/1")));
    assert_eq!(anna.tags().collect::<Vec<_>>(), ["vip", "debt"]);
    let zhanna = contacts.best(number("+79130000005")).expect("it was imported");
    assert_eq!(zhanna.name(), Some("Zhanna of two lines"));
    assert!(contacts.best(number("+79130000007")).is_some());
}

#[test]
fn an_open_quotation_mark_costs_its_line() {
    let folder = Folder::new();
    let mut table = "number,name\n+79130000001,\"open\n".to_owned();
    (2..200).for_each(|n| table.push_str(&format!("+7913{n:07},name {n}\n")));
    let outcome = folder.import(1, false, &[table.as_bytes()]).expect("it is taken");
    assert_eq!(counts(&outcome), [198, 0, 0, 0]);
    assert_eq!(folder.rejects(), ["2,rejected,a quotation mark is not closed,"]);
}

#[test]
fn an_import_replaces_what_was_there() {
    let folder = Folder::new();
    let first = "number,name,category\n+79130000001,Anna,regular\n+79130000002,Boris,\n+79130000003,Vera,\n\
        +79130000001,Anna's husband,\n";
    assert!(matches!(load(&folder.database()), Ok(lists) if lists.contacts.is_empty()));
    let dry = folder.import(1, true, &[first.as_bytes()]).expect("it is read");
    assert_eq!(counts(&dry), [4, 0, 0, 0]);
    assert!(!folder.database().exists(), "a dry run leaves nothing behind");
    folder.import(1, false, &[first.as_bytes()]).expect("it is taken");
    let best = |n: &str| {
        let contacts = folder.contacts();
        let contact = contacts.best(number(n));
        contact.map(|c| (c.id().0, c.changed().unix(), c.name().unwrap_or_default().to_owned()))
    };
    // Of those changed at once the last row decides.
    assert_eq!(best("+79130000001"), Some((4, 1, "Anna's husband".to_owned())));

    let second: [&[u8]; 2] = [
        b"number,name,category\n+79130000001,Anna,supplier\n+79130000001,Anna's husband,\n",
        b"number,name\n+79130000002;+79130000009,Boris B.\n+79130000004,Gleb\n",
    ];
    let dry = folder.import(2, true, &second).expect("it is read");
    assert_eq!(folder.contacts().best(number("+79130000001")).and_then(|c| c.category()), None);
    let outcome = folder.import(2, false, &second).expect("it is taken");
    assert_eq!((counts(&outcome), &outcome), ([1, 2, 1, 1], &dry));
    let changed = [
        "+79130000001 Anna: category regular -> supplier",
        "+79130000002 Boris: number +79130000002 -> +79130000002;+79130000009, name Boris -> Boris B.",
    ];
    assert_eq!(outcome.changed.examples, changed);
    assert_eq!(outcome.removed.examples, ["+79130000003 Vera"]);
    assert_eq!(best("+79130000001"), Some((1, 2, "Anna".to_owned())), "the one changed last decides");
    assert_eq!(best("+79130000009"), Some((2, 2, "Boris B.".to_owned())));
    assert_eq!((best("+79130000003"), best("+79130000004")), (None, Some((5, 2, "Gleb".to_owned()))));

    let again = folder.import(3, false, &second).expect("it is taken");
    assert_eq!(counts(&again), [0, 0, 0, 4]);
    assert_eq!(best("+79130000001"), Some((1, 2, "Anna".to_owned())), "what is the same has not changed");
    let bad = folder.import(4, false, &[b"number\nnonsense\n"]);
    assert!(matches!(bad, Err(ImportError::Nothing)));
    assert_eq!(folder.contacts().len(), 4);
}

#[test]
fn what_is_no_table_is_told_in_a_line() {
    let folder = Folder::new();
    for (table, why) in [("", "is empty"), ("name,url\nx,y\n", "has no column `number`"), ("\0\u{1}", "no column")] {
        let error = folder.import(1, false, &[table.as_bytes()]).expect_err("it is no table").to_string();
        assert!(error.contains(why), "{error}");
    }
    let missing = Path::new("/nonexistent.csv");
    assert!(matches!(table::Table::read(missing), Err(ImportError::Read { .. })));
}

#[test]
fn a_number_of_everybody_is_a_placeholder() {
    let folder = Folder::new();
    let rows: String = (0..1002).map(|n| format!("+79990000000;+7913{n:07},{n}\n")).collect();
    let outcome = folder.import(1, false, &[format!("number,name\n{rows}").as_bytes()]).expect("it is taken");
    assert_eq!((outcome.new.count, folder.rejects().len()), (1002, 2));
    assert_eq!(folder.contacts().all(number("+79990000000")).count(), 1000);
}

/// Every hostile text in every column: nothing panics, nothing is executed, and what is kept reads back harmless.
#[test]
fn hostile_texts_are_inert() {
    let root = std::env::var_os("STROWGER_DATA").map_or_else(|| "../shared/data".into(), PathBuf::from);
    let Ok(file) = fs::read_to_string(root.join("hostile-inputs/strings.txt")) else {
        return println!("SKIPPED: no {}", root.display());
    };
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\\') {
            bytes.extend(before.as_bytes());
            let hex = after.strip_prefix('x').and_then(|h| u8::from_str_radix(h.get(..2)?, 16).ok());
            let (byte, taken) = match (hex, after.as_bytes().first()) {
                (Some(byte), _) => (byte, 3),
                (None, Some(b'r')) => (b'\r', 1),
                (None, Some(b'n')) => (b'\n', 1),
                (None, Some(b't')) => (b'\t', 1),
                (None, _) => (b'\\', after.len().min(1)),
            };
            bytes.push(byte);
            rest = &after[taken..];
        }
        bytes.extend(rest.as_bytes());
        bytes
    };
    let hostile: Vec<Vec<u8>> = file.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(decode).collect();
    assert!(hostile.len() > 60, "the file is not what it was");
    let folder = Folder::new();
    for quoted in [true, false] {
        let mut table = b"number,name,category,manager,region,dealer,tags,url\n".to_vec();
        for (i, text) in hostile.iter().enumerate() {
            let doubled = |b: &u8| std::iter::repeat_n(*b, if *b == b'"' { 2 } else { 1 });
            let inside = text.iter().flat_map(doubled);
            let text = if quoted { [b'"'].into_iter().chain(inside).chain([b'"']).collect() } else { text.clone() };
            for column in 0..8 {
                let mut cells = vec![format!("+7913{i:07}").into_bytes(); 1];
                cells.resize(8, Vec::new());
                cells[column] = text.clone();
                table.extend(cells.join(&b','));
                table.push(b'\n');
            }
        }
        // Latin-1 bytes make it windows-1251 as a whole: both ways are to be harmless.
        folder.import(1, false, &[&table]).expect("some rows are taken");
        for contact in folder.contacts().iter() {
            let words = [contact.name(), contact.category(), contact.region(), contact.dealer()];
            assert!(words.iter().flatten().all(|w| !w.chars().any(char::is_control)), "{words:?}");
            assert_eq!(contact.manager(), None);
            assert!(contact.url().is_none_or(|url| url.starts_with("http://") || url.starts_with("https://")));
        }
        let rejects = fs::read(folder.0.join("rejects.csv")).expect("there are rejects");
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&rejects[..]);
        for row in reader.records() {
            let row = row.expect("it is well-formed");
            assert_eq!(row.len(), 5, "{row:?}");
            assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])), "{row:?}");
            assert!(row.iter().all(|cell| !cell.chars().any(char::is_control)), "{row:?}");
        }
    }
    assert!(!Path::new("/tmp/pwn").exists());
    let inside: Vec<_> =
        fs::read_dir(&folder.0).expect("the folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(inside.len(), 3, "{inside:?}");
}

#[test]
fn a_calendar_takes_the_place_of_the_one_for_its_year() {
    let folder = Folder::new();
    let month = |m: u8, days: &str| format!(r#"{{"month":{m},"days":"{}"}}"#, if m == 3 { days } else { "1" });
    let months = |days: &str| (1..=12).map(|m| month(m, days)).collect::<Vec<_>>().join(",");
    let year = |year: u16, days: &str| format!(r#"{{"year":{year},"months":[{}]}}"#, months(days));
    let (old, next, new) = (year(2026, "7,8"), year(2027, "6,7"), year(2026, "7,8,9"));
    assert_eq!(counts(&folder.calendars(&[&old, &next]).expect("two years")), [2, 0, 0, 0]);
    assert_eq!(counts(&folder.calendars(&[&old]).expect("a year")), [0, 0, 0, 1]);
    assert_eq!(counts(&folder.calendars(&[&new]).expect("a year")), [0, 1, 0, 0]);
    let wrong = folder.calendars(&[&next, "{}"]).expect_err("no calendar");
    assert!(wrong.contains("1.json"), "{wrong}");
    let wrong = folder.calendars(&[&old, &new]).expect_err("one year twice");
    assert!(wrong.contains("second calendar of 2026"), "{wrong}");

    // In force in calendars that follow one, before their own files, and in no others.
    let open = Week::default();
    let mut directory = Directory::empty(Node::new("lab", "lab.example"));
    let own = vec![Year::read(&old).expect("a year")];
    directory.calendars = vec![
        Calendar { follows: true, years: own.clone(), ..Calendar::new("office", open.clone()) },
        Calendar::new("guard", open),
    ];
    load(&folder.database()).expect("it can be read").put_into(&mut directory);
    let imported: Vec<usize> = directory.calendars.iter().map(|calendar| calendar.imported.len()).collect();
    assert_eq!(imported, [2, 0]);
    assert_eq!(directory.calendars[0].missing(jiff::civil::date(2026, 11, 1)), None);
    assert_eq!(directory.calendars[0].missing(jiff::civil::date(2027, 11, 1)), Some(2028));
}
