//! A table as other programs write it: CSV with comma, semicolon or tab, in UTF-8 with or without a byte order mark, UTF-16 or
//! windows-1251, with a line of column names in any case and order. What the columns mean is said by who reads the table.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};
use encoding_rs::{Encoding, WINDOWS_1251};

use super::ImportError;

/// Largest file.
pub const MAX_FILE: u64 = 2 << 30;
/// Lines that one row may stand in: more is a quotation mark that was never closed.
const MAX_LINES: u64 = 64;
/// Lines at most with a quotation mark that is not closed; each costs a look to the end of the file.
const MAX_UNCLOSED: u32 = 20;
/// Columns at most.
const MAX_COLUMNS: usize = 256;

/// A file that was read, decoded, its first line understood as column names.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    text: String,
    separator: u8,
    /// Where the first row begins, and in which line.
    body: (usize, u64),
    heads: Vec<String>,
}

/// A row with its line, or the line of what is none, and why.
pub type Row<'a> = Result<(u64, &'a StringRecord), (u64, &'static str)>;

impl Table {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Table, ImportError> {
        let wrong = |error| ImportError::Read { path: path.to_owned(), error };
        let size = std::fs::metadata(path).map_err(wrong)?.len();
        if size > MAX_FILE {
            let why = format!("is larger than {} GiB; split it", MAX_FILE >> 30);
            return Err(ImportError::Table { path: path.to_owned(), why });
        }
        Table::of(path, std::fs::read(path).map_err(wrong)?)
    }

    /// The table that these bytes are.
    pub fn of(path: &Path, bytes: Vec<u8>) -> Result<Table, ImportError> {
        let text = decode(bytes);
        let mut begin = 0;
        let mut separator = None;
        // A line of its own, by which Excel is told what separates columns.
        let first = line(&text, 0);
        if let Some(&[named]) = first.trim_end().strip_prefix("sep=").map(str::as_bytes) {
            (separator, begin) = (Some(named), first.len());
        }
        let head = line(&text, begin);
        let separator = separator.unwrap_or_else(|| guess(head));
        let mut reader = reader(separator, &text[begin..]);
        let mut names = StringRecord::new();
        let found = reader.read_record(&mut names).unwrap_or(false);
        if !found || names.len() > MAX_COLUMNS {
            let why = if found { "has too many columns" } else { "is empty" }.to_owned();
            return Err(ImportError::Table { path: path.to_owned(), why });
        }
        let position = reader.position();
        let body = (begin + position.byte() as usize, position.line() + u64::from(begin > 0));
        let heads = names.iter().map(|name| name.trim().to_owned()).collect();
        drop(reader);
        Ok(Table { path: path.to_owned(), text, separator, body, heads })
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes, by which [`Rows::done`] counts.
    pub fn size(&self) -> u64 {
        self.text.len() as u64
    }

    /// Which column each head is by one of its names, and the heads that are none. Case, spaces and punctuation do not count,
    /// nor does a number at the end (`Phone 2`).
    pub fn columns<C: Copy>(&self, known: &[(C, &[&str])]) -> (Vec<Option<C>>, Vec<&str>) {
        let find = |name: &str| known.iter().find(|(_, names)| names.iter().any(|n| plain(n) == name)).map(|k| k.0);
        let found: Vec<Option<C>> = self
            .heads
            .iter()
            .map(|head| {
                let name = plain(head);
                find(&name).or_else(|| find(name.trim_end_matches(|c: char| c.is_ascii_digit())))
            })
            .collect();
        let unknown = found.iter().zip(&self.heads).filter(|(c, _)| c.is_none()).map(|(_, head)| &**head);
        let unknown = unknown.filter(|head| !head.is_empty()).collect();
        (found, unknown)
    }

    /// Its column names as they stand there.
    pub fn heads(&self) -> &[String] {
        &self.heads
    }

    /// What is wrong with the table as a whole.
    pub fn wrong(&self, why: impl Into<String>) -> ImportError {
        ImportError::Table { path: self.path.clone(), why: why.into() }
    }

    /// Its rows.
    pub fn rows(&self) -> Rows<'_> {
        let (begin, line) = self.body;
        let reader = reader(self.separator, &self.text[begin..]);
        Rows { table: self, reader, begin, lines: line - 1, row: StringRecord::new(), unclosed: 0 }
    }
}

/// The rows of a table, one by one. Empty ones are passed over.
#[derive(Debug)]
pub struct Rows<'a> {
    table: &'a Table,
    reader: csv::Reader<&'a [u8]>,
    /// Where the reader began: bytes and lines before it.
    begin: usize,
    lines: u64,
    row: StringRecord,
    /// Lines with a quotation mark that is not closed.
    unclosed: u32,
}

impl Rows<'_> {
    /// Bytes that were read.
    pub fn done(&self) -> u64 {
        self.begin as u64 + self.reader.position().byte()
    }

    /// The next row.
    pub fn next_row(&mut self) -> Option<Row<'_>> {
        loop {
            let found = self.reader.read_record(&mut self.row).unwrap_or(false);
            if !found {
                return None;
            }
            // A row's position is that of the empty lines before it, which are no rows.
            let from = self.row.position().cloned().unwrap_or_else(csv::Position::new);
            let at = self.begin + from.byte() as usize;
            let empty = self.table.text[at..].bytes().take_while(|b| matches!(b, b'\r' | b'\n'));
            let (mut at, mut first) = (at, from.line());
            for byte in empty {
                at += 1;
                first += u64::from(byte == b'\n');
            }
            let line = self.lines + first;
            if self.reader.position().line() - first > MAX_LINES {
                self.unclosed += 1;
                if self.unclosed > MAX_UNCLOSED {
                    // Each was looked for to the end of the file.
                    self.begin = self.table.text.len();
                    self.reader = reader(self.table.separator, "");
                    return Some(Err((line, "too many quotation marks are not closed: the rest is not read")));
                }
                // Only this line is given up.
                self.begin = at + super::table::line(&self.table.text, at).len();
                self.lines = line;
                self.reader = reader(self.table.separator, &self.table.text[self.begin..]);
                return Some(Err((line, "a quotation mark is not closed")));
            }
            if self.row.iter().all(|cell| cell.trim().is_empty()) {
                continue;
            }
            let heads = self.table.heads.len();
            if self.row.iter().skip(heads).any(|cell| !cell.trim().is_empty()) {
                return Some(Err((
                    line,
                    "has more cells than there are columns (a separator within a cell that is not quoted?)",
                )));
            }
            return Some(Ok((line, &self.row)));
        }
    }
}

fn reader(separator: u8, text: &str) -> csv::Reader<&[u8]> {
    ReaderBuilder::new().delimiter(separator).has_headers(false).flexible(true).from_reader(text.as_bytes())
}

/// The line that begins there, with its end.
fn line(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    &rest[..memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |end| end + 1)]
}

/// What separates the names of a first line.
fn guess(head: &str) -> u8 {
    let count = |separator: u8| {
        let mut quoted = false;
        head.bytes()
            .filter(|b| {
                quoted ^= *b == b'"';
                !quoted && *b == separator
            })
            .count()
    };
    // The last of those that are equal; a table of one column has none.
    [b'\t', b';', b','].into_iter().max_by_key(|s| count(*s)).unwrap_or(b',')
}

fn decode(bytes: Vec<u8>) -> String {
    let decoded = |encoding: &'static Encoding, bytes: &[u8]| match encoding.decode(bytes).0 {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    };
    if let Some((encoding, _)) = Encoding::for_bom(&bytes) {
        return decoded(encoding, &bytes);
    }
    String::from_utf8(bytes).unwrap_or_else(|bad| decoded(WINDOWS_1251, bad.as_bytes()))
}

/// A column's name without what people write differently.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    letters.map(|c| if c == 'ё' { 'е' } else { c }).collect()
}
