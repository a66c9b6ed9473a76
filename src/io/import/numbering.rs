//! The Russian registry of numbers, as the regulator publishes it: `ABC-3xx.csv` to `DEF-9xx.csv`, in all the forms that it had.
//! Columns are known by their names: six (`АВС/ DEF;От;До;Емкость;Оператор;Регион`), seven (with `ИНН`), eight (with `Территория
//! ГАР`); a byte order mark or none, UTF-8 or windows-1251, tabs round the separators.
//!
//! A row that says something else than its range and a known place is refused with its reason; nothing of it is guessed.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::path::Path;

use csv::StringRecord;

use super::imported::Imported;
use super::table::Table;
use super::{ImportError, Job, Outcome, What};
use crate::base::{Map, map};
use crate::directory::E164;
use crate::directory::numbering::MAX_ROWS;
use crate::directory::spelling::{self, Spelled, UnknownPlace};

/// Characters of a refused row that are shown.
const MAX_SHOWN: usize = 200;
/// Largest file; the whole registry has 40 MiB in four of them.
const MAX_FILE: u64 = 256 * 1024 * 1024;
/// Rows after which the one who watches is told.
const TELL: u64 = 4096;

/// A range of the registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// First number.
    pub first: E164,
    /// Last number.
    pub last: E164,
    /// Where they belong.
    pub place: Spelled,
}

/// A row that is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Line of the file, from 1.
    pub line: u64,
    /// Why, in words.
    pub why: String,
    /// What stands there.
    pub row: String,
}

/// Why a row is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRow {
    /// The first column.
    #[error("the code is not three digits that an area or mobile network of zone 7 can have")]
    Code,
    /// From or to.
    #[error("the range is not given by two numbers of up to seven digits, the smaller first")]
    Range,
    /// The redundancy that tells of a mistake in one of the three.
    #[error("the capacity is not that of the range ({range})")]
    Capacity {
        /// How many numbers the range has.
        range: u64,
    },
    /// No place is named.
    #[error("no region is named")]
    NoRegion,
    /// A place that nobody knows.
    #[error(transparent)]
    Region(#[from] UnknownPlace),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Code,
    From,
    To,
    Capacity,
    Region,
    Territory,
    Ignored,
}

/// Columns and their names. The letters of the first one are Cyrillic in some files and Latin in others.
#[rustfmt::skip]
const COLUMNS: &[(Column, &[&str])] = &[
    (Column::Code, &["АВС/DEF", "ABC/DEF", "АВС", "ABC", "DEF", "Код", "Код ABC/DEF", "Код АВС/DEF", "Code"]),
    (Column::From, &["От", "From"]),
    (Column::To, &["До", "To"]),
    (Column::Capacity, &["Емкость", "Capacity"]),
    (Column::Region, &["Регион", "Region"]),
    (Column::Territory, &["Территория ГАР", "Территория"]),
    (Column::Ignored, &["Оператор", "Operator", "ИНН", "INN"]),
];

/// Reads the files, compares, and unless it is a dry run, writes. The files together are the whole list.
pub fn import(job: &mut Job<'_>) -> Result<Outcome, ImportError> {
    let mut outcome = Outcome::showing(job.shown);
    let mut ranges = Vec::new();
    for path in job.files {
        let table = load(path)?;
        job.progress.stage("reading", table.size());
        let (rejects, progress) = (&mut *job.rejects, job.progress);
        let refuse = |row: Refused| rejects.reject(path, row.line, &row.why, &row.row);
        outcome.rows += read(&table, |range| ranges.push(range), refuse, |done| progress.at(done))?;
        if ranges.len() > MAX_ROWS {
            return Err(table.wrong(format!("has with the files before it more than {MAX_ROWS} rows")));
        }
    }
    if ranges.is_empty() {
        return Err(ImportError::Nothing);
    }
    // Of a range that stands there twice the last counts; of two that overlap the narrower.
    ranges.reverse();
    ranges.sort_by_key(order);
    ranges.dedup_by_key(|range| order(range));
    let path = job.database;
    let store = |error| ImportError::Store { path: path.to_owned(), error };
    // The lock before the look: nobody else changes what is compared with.
    let database = match job.dry_run {
        true => Imported::look(path).map_err(store)?,
        false => Some(Imported::open(path).map_err(store)?),
    };
    job.progress.stage("comparing", 0);
    let old = database.as_ref().map_or(Ok(Vec::new()), Imported::ranges).map_err(store)?;
    compare(&old, &ranges, &mut outcome);
    let Some(database) = database.filter(|_| !job.dry_run) else { return Ok(outcome) };
    job.progress.stage("writing", ranges.len() as u64);
    let progress = job.progress;
    database
        .put_ranges(&ranges, |done| {
            if done % TELL == 0 {
                progress.at(done)
            }
        })
        .map_err(store)?;
    database.commit(What::Numbering, job.now, ranges.len() as u64).map_err(store)?;
    Ok(outcome)
}

/// The order in which ranges are kept: wider ones before the narrower that begin with the same number.
fn order(range: &Range) -> (E164, Reverse<E164>) {
    (range.first, Reverse(range.last))
}

/// What changes between two lists in [`order`].
fn compare(old: &[Range], new: &[Range], outcome: &mut Outcome) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let which = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => order(before).cmp(&order(after)),
        };
        let before = if which.is_le() { old.next() } else { None };
        let after = if which.is_ge() { new.next() } else { None };
        match (before, after) {
            (Some(before), Some(after)) if before.place == after.place => outcome.unchanged += 1,
            (Some(before), Some(after)) => outcome.changed.note(|| format!("{after}, was {}", place(&before.place))),
            (Some(gone), None) => outcome.removed.note(|| gone.to_string()),
            (None, Some(new)) => outcome.new.note(|| new.to_string()),
            (None, None) => return,
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}: {}", self.first, self.last, place(&self.place))
    }
}

fn place(place: &Spelled) -> String {
    let regions = place.regions.iter().map(|r| r.code()).collect::<Vec<_>>().join(" ");
    let land = if regions.is_empty() { place.country.code().to_owned() } else { regions };
    place.city.as_ref().map_or(land.clone(), |city| format!("{land} {city}"))
}

/// Reads a file. See [`table`].
pub fn load(path: &Path) -> Result<Table, ImportError> {
    let wrong = |error| ImportError::Read { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(wrong)?.len() > MAX_FILE {
        let why = format!("is larger than {} MiB", MAX_FILE >> 20);
        return Err(ImportError::Table { path: path.to_owned(), why });
    }
    table(path, std::fs::read(path).map_err(wrong)?)
}

/// Reads the bytes of a file, whatever their encoding. The first row is the names of the columns.
pub fn table(path: &Path, mut bytes: Vec<u8>) -> Result<Table, ImportError> {
    // Older files have tabs round their semicolons; no text of the registry has any.
    if bytes.windows(2).any(|pair| pair == b"\t;" || pair == b";\t") {
        bytes.retain(|b| *b != b'\t');
    }
    Table::of(path, bytes)
}

/// Reads the rows of a table, in their order; gives how many there are. `tell` hears how many bytes are done.
pub fn read(
    table: &Table,
    mut take: impl FnMut(Range),
    mut refuse: impl FnMut(Refused) -> Result<(), ImportError>,
    tell: impl Fn(u64),
) -> Result<u64, ImportError> {
    let (columns, _) = table.columns(COLUMNS);
    let at = |column| columns.iter().position(|c| *c == Some(column));
    let place = Columns {
        code: at(Column::Code),
        from: at(Column::From),
        to: at(Column::To),
        capacity: at(Column::Capacity),
        region: at(Column::Region),
        territory: at(Column::Territory),
    };
    for (there, name) in
        [(place.code, "АВС/ DEF"), (place.from, "От"), (place.to, "До"), (place.region.or(place.territory), "Регион")]
    {
        if there.is_none() {
            return Err(table.wrong(format!("has no column \"{name}\" in its first line")));
        }
    }
    let mut known: Map<String, Result<Spelled, UnknownPlace>> = map();
    let mut rows = table.rows();
    let mut count = 0;
    loop {
        if count % TELL == 0 {
            tell(rows.done());
        }
        let Some(next) = rows.next_row() else { return Ok(count) };
        count += 1;
        if count > MAX_ROWS as u64 {
            return Err(table.wrong(format!("has more than {MAX_ROWS} rows")));
        }
        match next {
            Ok((line, cells)) => match place.read(cells, &mut known) {
                Ok(range) => take(range),
                Err(why) => refuse(Refused { line, why: why.to_string(), row: shown(cells) })?,
            },
            Err((line, why)) => refuse(Refused { line, why: why.to_owned(), row: String::new() })?,
        }
    }
}

/// Where each column stands.
struct Columns {
    code: Option<usize>,
    from: Option<usize>,
    to: Option<usize>,
    capacity: Option<usize>,
    region: Option<usize>,
    territory: Option<usize>,
}

impl Columns {
    fn read(
        &self,
        cells: &StringRecord,
        known: &mut Map<String, Result<Spelled, UnknownPlace>>,
    ) -> Result<Range, BadRow> {
        let cell = |at: Option<usize>| at.and_then(|at| cells.get(at)).unwrap_or_default().trim();
        let (code, from, to) = (cell(self.code), cell(self.from), cell(self.to));
        // No code begins with 0, 1, 2 or 5; 6 and 7 are Kazakhstan's and not Russia's to give.
        let fits = code.len() == 3 && code.starts_with(['3', '4', '8', '9']);
        let code = number(code, 3).filter(|_| fits).ok_or(BadRow::Code)?;
        let (from, to) = match (number(from, 7), number(to, 7)) {
            (Some(from), Some(to)) if from <= to => (from, to),
            _ => return Err(BadRow::Range),
        };
        let range = to - from + 1;
        let capacity = cell(self.capacity);
        if !capacity.is_empty() && number(capacity, 8) != Some(range) {
            return Err(BadRow::Capacity { range });
        }
        let (region, territory) = (cell(self.region), cell(self.territory));
        let mut look = |text: &str| match known.get(text) {
            Some(place) => place.clone(),
            None => {
                let place = spelling::read(text);
                known.insert(text.to_owned(), place.clone());
                place
            }
        };
        let place = match (region, territory) {
            ("", "") => return Err(BadRow::NoRegion),
            ("", territory) => look(territory)?,
            (region, "") => look(region)?,
            (region, territory) => look(region).or_else(|unknown| look(territory).map_err(|_| unknown))?,
        };
        let whole = |local: u64| E164::from_digits(&format!("7{code}{local:07}"));
        match (whole(from), whole(to)) {
            (Ok(first), Ok(last)) => Ok(Range { first, last, place }),
            _ => Err(BadRow::Range),
        }
    }
}

/// Up to so many digits and nothing else; files leave leading zeros out.
fn number(text: &str, most: usize) -> Option<u64> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

fn shown(cells: &StringRecord) -> String {
    let row = cells.iter().collect::<Vec<&str>>().join(";");
    row.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<(Vec<Range>, Vec<Refused>), ImportError> {
        let (mut ranges, mut refused) = (Vec::new(), Vec::new());
        let table = table(Path::new("x.csv"), bytes.to_vec())?;
        let refuse = |row| {
            refused.push(row);
            Ok(())
        };
        read(&table, |range| ranges.push(range), refuse, |_| {})?;
        Ok((ranges, refused))
    }

    fn one(text: &str) -> String {
        let (ranges, refused) = all(text.as_bytes()).expect("a table");
        match (ranges.as_slice(), refused.as_slice()) {
            ([range], []) => range.to_string(),
            ([], [row]) => format!("line {}: {}", row.line, row.why),
            _ => format!("{} ranges, {} refused", ranges.len(), refused.len()),
        }
    }

    #[test]
    fn every_form_that_the_registry_had() {
        const TWELVE: &str = "+73012110000 to +73012129999: RU-BU Улан-Удэ";
        #[rustfmt::skip]
        let table = [
            ("АВС/ DEF;От;До;Емкость;Оператор;Регион;Территория ГАР;ИНН\n301;2110000;2129999;20000;\"ПАО \"\"Ростелеком\"\"\";\
              г. Улан-Удэ|Республика Бурятия;г. Улан-Удэ|г.о. город Улан-Удэ|Республика Бурятия;7707049388\n", TWELVE),
            ("\u{feff}АВС/ DEF;От;До;Емкость;Оператор;Регион;ИНН\r\n301;2110000;2129999;20000;x;г. Улан-Удэ|Республика Бурятия;1\r\n", TWELVE),
            ("ABC/ DEF;От;До;Емкость;Оператор;Регион\n301;2110000;2129999;20000;x;г. Улан-Удэ|Республика Бурятия", TWELVE),
            ("ABC;От;До;Емкость;Оператор;Регион\n301;2110000;2129999;20000;x;г. Улан-Удэ|Республика Бурятия", TWELVE),
            ("DEF\t;\tОт\t;\tДо\t;\tЕмкость\t;\tОператор\t;\tРегион\n301\t;\t2110000\t;\t2129999\t;\t20000\t;\tx\t;\tг. Улан-Удэ|Республика Бурятия", TWELVE),
            // Columns in another order, one more, none of capacity.
            ("Регион;До;От;АВС/DEF;Прочее\nг. Улан-Удэ|Республика Бурятия;2129999;2110000;301;z", TWELVE),
            // No place in its own column.
            ("DEF;От;До;Регион;Территория ГАР\n301;2110000;2129999;;г. Улан-Удэ|Республика Бурятия", TWELVE),
            ("DEF;От;До;Регион;Территория ГАР\n301;2110000;2129999;р-н Заречный;г. Улан-Удэ|Республика Бурятия", TWELVE),
            ("DEF;От;До;Емкость;Регион\n900;0;61999;62000;Краснодарский край", "+79000000000 to +79000061999: RU-KDA"),
            ("DEF;От;До;Регион\n900;1400000;1599999;г. Москва * Московская область", "+79001400000 to +79001599999: RU-MOW RU-MOS"),
            ("DEF;От;До;Регион\n800;0000000;9999999;Российская Федерация", "+78000000000 to +78009999999: RU"),
            ("DEF;От;До;Регион\n336;2200000;2299999;г. Байконур", "+73362200000 to +73362299999: KZ Байконур"),
        ];
        for (text, want) in table {
            assert_eq!(one(text), want, "{text}");
        }
        let (old, _, _) = encoding_rs::WINDOWS_1251.encode(table[2].0);
        let (ranges, refused) = all(&old).expect("a table");
        assert_eq!((ranges.len(), ranges[0].to_string().as_str(), refused.len()), (1, TWELVE, 0));
    }

    #[test]
    fn bad_rows_are_refused_with_line_and_reason() {
        for (row, why) in [
            ("30;0;9;Тверская обл.", "the code is not"),
            ("123;0;9;Тверская обл.", "the code is not"),
            ("727;0;9;Тверская обл.", "the code is not"),
            ("4822;0;9;Тверская обл.", "the code is not"),
            (";0;9;Тверская обл.", "the code is not"),
            ("482;9;0;Тверская обл.", "the range is not"),
            ("482;;9;Тверская обл.", "the range is not"),
            ("482;0;10000000;Тверская обл.", "the range is not"),
            ("482;-1;9;Тверская обл.", "the range is not"),
            ("482;0;9e1;Тверская обл.", "the range is not"),
            ("482;0;9;", "no region is named"),
            ("482;0;9", "no region is named"),
            ("482;0;9;Атлантида", "no region is known for \"Атлантида\""),
            ("482;0;9;Тверская обл.;11", "the capacity is not that of the range (10)"),
        ] {
            let said = one(&format!("DEF;От;До;Регион;Емкость\n{row}\n"));
            assert!(said.starts_with(&format!("line 2: {why}")), "{row}: {said}");
        }
        for text in ["", "DEF;От;До\n", "От;До;Регион\n", "Регион\n", "482;0;9;Тверская обл.\n"]
        {
            assert!(all(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_difference_of_two_lists() {
        let head = "DEF;От;До;Регион\n";
        let old = "482;0;9;Тверская обл.\n482;10;19;Тверская обл.\n482;20;29;Тверская обл.\n";
        let new = "482;0;9;Тверская обл.\n482;10;19;Псковская обл.\n482;30;39;Тверская обл.\n";
        let read = |text: &str| all(format!("{head}{text}").as_bytes()).expect("a table").0;
        let mut outcome = Outcome::default();
        compare(&read(old), &read(new), &mut outcome);
        let counts = [outcome.new.count, outcome.changed.count, outcome.removed.count, outcome.unchanged];
        assert_eq!(counts, [1, 1, 1, 1]);
        assert_eq!(outcome.changed.examples, ["+74820000010 to +74820000019: RU-PSK, was RU-TVE"]);
    }

    #[test]
    fn every_row_of_the_real_registry_has_its_region() {
        let data = std::env::var_os("STROWGER_DATA")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), Into::into)
            .join("numbering");
        if !data.is_dir() {
            return println!("SKIPPED: {} is not there", data.display());
        }
        let built_in = crate::directory::Numbering::built_in();
        for (file, rows) in [("ABC-fixed.csv", 92), ("DEF-9xx.csv", 9_677)] {
            let (ranges, refused) = all(&std::fs::read(data.join(file)).expect("a file")).expect("a table");
            assert_eq!(refused, [], "{file}");
            assert_eq!(ranges.len(), rows, "{file}");
            let whole = |range: &&Range| range.place.regions.is_empty();
            assert_eq!(
                ranges.iter().filter(whole).count(),
                if rows > 100 { 36 } else { 0 },
                "the whole country, {file}"
            );
            if file != "ABC-fixed.csv" {
                continue;
            }
            // 495 and 496 stand the wrong way round there.
            for range in
                ranges.iter().filter(|r| !r.first.digits().starts_with("7495") && !r.first.digits().starts_with("7496"))
            {
                let place = built_in.place(range.first);
                assert_eq!(place.regions, range.place.regions.as_slice(), "{range}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(
            head in "[АВСDEF/ ;ОтДоРегион\t\"\n]{0,40}",
            cells in proptest::collection::vec("(\\PC{0,12}|[0-9]{1,8}|\"|г\\. Москва|Тверская обл\\.|\n|;|\\|)", 0..60),
        ) {
            let body = cells.concat();
            all(format!("{head}{body}").as_bytes()).ok();
            all(format!("DEF;От;До;Регион\n{body}").as_bytes()).expect("it has its columns");
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            all(&bytes).ok();
            let (mut with_head, head) = (Vec::new(), "DEF;От;До;Регион\n".as_bytes());
            with_head.extend_from_slice(head);
            with_head.extend_from_slice(&bytes);
            all(&with_head).ok();
        }
    }
}
