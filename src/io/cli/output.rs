//! Data on standard output: tables, CSV, JSON lines. What comes from the network is made harmless for the sink that it goes
//! to: control characters on a terminal, formulas in a spreadsheet. A reader that has gone away is no error.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde::Serialize;

use super::Fail;

/// Writes to standard output.
pub fn say(text: &str) -> Result<(), Fail> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// One JSON object a line.
pub fn json(value: &impl Serialize) -> Result<(), Fail> {
    let mut line = serde_json::to_string(value).map_err(|e| Fail::Failed(e.to_string()))?;
    line.push('\n');
    say(&line)
}

/// A table; on a terminal it fits the window, elsewhere no cell is broken.
pub fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Result<(), Fail> {
    let terminal = io::stdout().is_terminal();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(if terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled });
    let head = |text: &str| if terminal { Cell::new(text).add_attribute(Attribute::Bold) } else { Cell::new(text) };
    table.set_header(heads.into_iter().map(head));
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| plain(&cell))));
    let lines: Vec<String> = table.lines().map(|l| l.trim().to_owned()).collect();
    say(&(lines.join("\n") + "\n"))
}

/// A line of CSV (RFC 4180, with a bare line feed). A cell that a spreadsheet would take for a formula gets a leading `'`.
pub fn csv<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for (i, cell) in cells.into_iter().enumerate() {
        if i > 0 {
            line.push(',');
        }
        let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        let quoted = cell.contains([',', '"', '\n', '\r']);
        if quoted {
            line.push('"');
        }
        if formula {
            line.push('\'');
        }
        line.push_str(&cell.replace('"', "\"\""));
        if quoted {
            line.push('"');
        }
    }
    line.push('\n');
    line
}

/// Text that cannot steer a terminal: control characters and those that turn the reading direction are written out.
pub fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) {
            clean.extend(c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// A value's fields as a query string.
pub fn query(wanted: &impl Serialize) -> String {
    let value = serde_json::to_value(wanted).unwrap_or_default();
    let pairs = value.as_object().into_iter().flatten().map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let escape = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
        format!("{key}={}", text.bytes().map(escape).collect::<String>())
    });
    pairs.collect::<Vec<String>>().join("&")
}

/// `4.2 s`, `1:05 min`, `2:03:04 h`.
pub fn lasted(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{} s", ms % 1000 / 100),
        60..3600 => format!("{}:{:02} min", s / 60, s % 60),
        _ => format!("{}:{:02}:{:02} h", s / 3600, s / 60 % 60, s % 60),
    }
}

/// A word of a record as it stands in its JSON, e.g. `non_target`.
pub fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| Some(v.as_str()?.to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_text() {
        for (cell, want) in [
            ("=cmd|'/c calc'!A0", "'=cmd|'/c calc'!A0"),
            ("+79131234567", "'+79131234567"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\r=1", "\"'\r=1\""),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(csv([cell]), format!("{want}\n"));
        }
        assert_eq!(csv(["a", "b"]), "a,b\n");
    }

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}c\u{202e}d\ne"), "a\\u{1b}[2Jb\\u{9b}c\\u{202e}d\\u{a}e");
        assert_eq!(plain("Анна 121"), "Анна 121");
    }

    #[test]
    fn times_are_short() {
        for (ms, want) in [(4_250, "4.2 s"), (65_000, "1:05 min"), (7_384_000, "2:03:04 h")] {
            assert_eq!(lasted(ms), want);
        }
    }
}
