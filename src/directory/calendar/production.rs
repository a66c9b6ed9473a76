//! A production calendar: the days of one year on which a country works otherwise than its week says, read from the JSON or
//! XML of xmlcalendar.ru. Reads text, never files.
//!
//! The JSON lists all days off, ordinary weekends too. A weekend day counts here only if a public holiday or a moved day
//! off falls on it (`transitions`, `+`): whether an office works on ordinary Saturdays is its own affair. The XML says so
//! itself.

use std::collections::BTreeMap;

use jiff::civil::{Date, Weekday};
use serde::Deserialize;

/// What is wrong with a file, in words.
pub type Wrong = String;

/// One year.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Year {
    /// Which.
    pub year: i16,
    days: BTreeMap<Date, Special>,
}

/// A day that is not like its weekday.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// A public holiday or a day off that was moved here.
    Off,
    /// A working day that ends earlier.
    Shortened,
    /// A Saturday or Sunday that is worked.
    Moved {
        /// The weekday that it replaces, if the file names it.
        replaces: Option<Weekday>,
        /// Whether it ends earlier besides.
        shortened: bool,
    },
}

/// Years that make sense here.
const YEARS: std::ops::RangeInclusive<i16> = 1990..=2200;

impl Year {
    /// Reads a file of either form.
    pub fn read(text: &str) -> Result<Year, Wrong> {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        match text.as_bytes().first() {
            Some(b'{') => json(text),
            Some(b'<') => xml(text),
            _ => Err("is neither JSON nor XML of a production calendar".to_owned()),
        }
    }

    /// What the day is, if it is not like its weekday.
    pub fn day(&self, date: Date) -> Option<Special> {
        self.days.get(&date).copied()
    }

    /// How many days are off, ordinary weekends not counted; how many end earlier; how many Saturdays and Sundays are worked.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |f: fn(&Special) -> bool| self.days.values().filter(|d| f(d)).count();
        (
            count(|d| *d == Special::Off),
            count(|d| matches!(d, Special::Shortened | Special::Moved { shortened: true, .. })),
            count(|d| matches!(d, Special::Moved { .. })),
        )
    }
}

fn weekend(date: Date) -> bool {
    matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

fn year_of(year: i64) -> Result<i16, Wrong> {
    let known = i16::try_from(year).ok().filter(|y| YEARS.contains(y));
    known.ok_or_else(|| format!("is for the year {year}, which cannot be"))
}

/// `MM.DD` of a year.
fn month_day(year: i16, text: &str) -> Result<Date, Wrong> {
    let parts = text.split_once('.').and_then(|(m, d)| Some((m.parse().ok()?, d.parse().ok()?)));
    let date = parts.and_then(|(month, day)| Date::new(year, month, day).ok());
    date.ok_or_else(|| format!("names the day `{}`, which is not a MM.DD of {year}", text.escape_debug()))
}

#[derive(Deserialize)]
struct Json {
    year: i64,
    months: Vec<Month>,
    #[serde(default)]
    transitions: Vec<Transition>,
}

#[derive(Deserialize)]
struct Month {
    month: i8,
    days: String,
}

#[derive(Deserialize)]
struct Transition {
    from: String,
    to: String,
}

fn json(text: &str) -> Result<Year, Wrong> {
    let file: Json = serde_json::from_str(text).map_err(|e| format!("is not a production calendar: {e}"))?;
    let year = year_of(file.year)?;
    let mut moved = BTreeMap::new();
    for one in &file.transitions {
        moved.insert(month_day(year, &one.from)?, month_day(year, &one.to)?);
    }
    let mut listed = BTreeMap::new();
    let mut seen = [false; 12];
    for month in &file.months {
        let known = usize::try_from(month.month).ok().and_then(|m| seen.get_mut(m.checked_sub(1)?));
        match known {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(format!("has the month {} twice", month.month)),
            None => return Err(format!("has a month {}", month.month)),
        }
        for word in month.days.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let digits = word.bytes().take_while(u8::is_ascii_digit).count();
            let date = word[..digits].parse().ok().and_then(|day| Date::new(year, month.month, day).ok());
            let mark = &word[digits..];
            match (date, mark) {
                (Some(date), "" | "*" | "+") => listed.insert(date, mark.bytes().next()),
                _ => return Err(format!("has the day `{}` in month {}", word.escape_debug(), month.month)),
            };
        }
    }
    if let Some(missing) = seen.iter().position(|s| !s) {
        return Err(format!("lacks the month {}", missing + 1));
    }
    let mut days = BTreeMap::new();
    let replaces = |date: &Date| moved.get(date).map(|to: &Date| to.weekday());
    let mut date = Date::new(year, 1, 1).ok();
    while let Some(day) = date.filter(|d| d.year() == year) {
        let special = match (listed.get(&day), weekend(day)) {
            (Some(Some(b'*')), false) => Some(Special::Shortened),
            (Some(Some(b'*')), true) => Some(Special::Moved { replaces: replaces(&day), shortened: true }),
            (Some(Some(_)), _) | (Some(None), false) => Some(Special::Off),
            (Some(None), true) => moved.contains_key(&day).then_some(Special::Off),
            (None, true) => Some(Special::Moved { replaces: replaces(&day), shortened: false }),
            (None, false) => None,
        };
        days.extend(special.map(|s| (day, s)));
        date = day.tomorrow().ok();
    }
    Ok(Year { year, days })
}

/// A `<day d="MM.DD" t="1|2|3" f="MM.DD"/>`.
struct Tag {
    date: Date,
    kind: u8,
    from: Option<Date>,
}

fn xml(text: &str) -> Result<Year, Wrong> {
    let mut year = None;
    let mut tags = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let end = if rest.starts_with("<!--") { rest.find("-->") } else { rest.find('>') };
        let Some(end) = end else { return Err("has a tag that is not closed".to_owned()) };
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        let name = tag.split(|c: char| c.is_ascii_whitespace() || c == '/').next().unwrap_or_default();
        match (name, year) {
            ("calendar", _) => {
                let written = attribute(tag, "year").and_then(|y| y.parse().ok());
                year = Some(year_of(written.ok_or("has no `year` in its <calendar>")?)?);
            }
            ("day", Some(year)) => {
                let date = month_day(year, attribute(tag, "d").ok_or("has a <day> without `d`")?)?;
                let from = attribute(tag, "f").map(|f| month_day(year, f)).transpose()?;
                let kind = match attribute(tag, "t") {
                    Some("1") => 1,
                    Some("2") => 2,
                    Some("3") => 3,
                    _ => return Err(format!("has the day {date} without a kind of 1 to 3")),
                };
                tags.push(Tag { date, kind, from });
            }
            ("day", None) => return Err("has a <day> outside its <calendar>".to_owned()),
            _ => {}
        }
    }
    let year = year.ok_or("has no <calendar>")?;
    let moved: BTreeMap<Date, Weekday> = tags.iter().filter_map(|t| Some((t.from?, t.date.weekday()))).collect();
    let special = |tag: &Tag| match (tag.kind, weekend(tag.date)) {
        (1, _) => Some(Special::Off),
        (2, false) => Some(Special::Shortened),
        (kind, true) => Some(Special::Moved { replaces: moved.get(&tag.date).copied(), shortened: kind == 2 }),
        (_, false) => None, // a weekday that is worked is like any other
    };
    Ok(Year { year, days: tags.iter().filter_map(|t| Some((t.date, special(t)?))).collect() })
}

/// The value of an attribute; quotes of either kind.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = tag;
    loop {
        let equals = rest.find('=')?;
        let key = rest[..equals].trim_end().rsplit(|c: char| c.is_ascii_whitespace()).next()?;
        let value = rest[equals + 1..].trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (inside, after) = value[1..].split_once(quote)?;
        if key == name {
            return Some(inside);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn months(first: &str) -> String {
        let rest: Vec<String> = (2..=12).map(|m| format!("{{\"month\":{m},\"days\":\"\"}}")).collect();
        format!("[{{\"month\":1,\"days\":\"{first}\"}},{}]", rest.join(","))
    }

    #[test]
    fn marks_of_the_json() {
        // January 2028 begins on a Saturday.
        let text = format!(
            "\u{feff} {{\"year\":2028,\"months\":{},\"transitions\":[{{\"from\":\"01.01\",\"to\":\"01.05\"}},\
             {{\"from\":\"01.15\",\"to\":\"01.18\"}}]}}",
            months("1,2,3,4*,5+,8,9,16, 22*,23,29+,30")
        );
        let year = Year::read(&text).expect("it is right");
        for (day, want) in [
            (1, Some(Special::Off)), // a weekend day whose day off was moved: a public holiday
            (2, None),               // an ordinary Sunday
            (3, Some(Special::Off)),
            (4, Some(Special::Shortened)),
            (5, Some(Special::Off)),
            (6, None),
            (15, Some(Special::Moved { replaces: Some(Weekday::Tuesday), shortened: false })),
            (22, Some(Special::Moved { replaces: None, shortened: true })),
            (29, Some(Special::Off)),
        ] {
            assert_eq!(year.day(Date::constant(2028, 1, day)), want, "{day}");
        }
    }

    #[test]
    fn the_xml_says_the_same() {
        let year = Year::read(
            "<?xml version=\"1.0\"?><calendar year='2028'><!-- <day d=\"99.99\"/> --><days>\
             <day t=\"1\" d=\"01.05\" f=\"01.15\"/><day d=\"01.15\" t=\"3\"/><day d=\"01.22\" t=\"2\"/>\
             <day d=\"01.04\" t=\"2\" h=\"1\"/></days></calendar>",
        );
        let year = year.expect("it is right");
        assert_eq!(year.counts(), (1, 2, 2));
        assert_eq!(
            year.day(Date::constant(2028, 1, 15)),
            Some(Special::Moved { replaces: Some(Weekday::Wednesday), shortened: false })
        );
    }

    #[test]
    fn what_is_no_calendar() {
        let table: [(String, &str); 10] = [
            (String::new(), "is neither"),
            ("{}".to_owned(), "missing field `year`"),
            (format!("{{\"year\":20261,\"months\":{}}}", months("")), "cannot be"),
            (format!("{{\"year\":2026,\"months\":{}}}", months("32")), "has the day `32` in month 1"),
            (format!("{{\"year\":2026,\"months\":{}}}", months("1!")), "has the day `1!` in month 1"),
            ("{\"year\":2026,\"months\":[{\"month\":1,\"days\":\"\"}]}".to_owned(), "lacks the month 2"),
            ("{\"year\":2026,\"months\":[{\"month\":13,\"days\":\"\"}]}".to_owned(), "has a month 13"),
            ("<calendar>".to_owned(), "has no `year`"),
            ("<calendar year=\"2026\"><day d=\"02.30\" t=\"1\"/>".to_owned(), "names the day `02.30`"),
            ("<calendar year=\"2026\"".to_owned(), "not closed"),
        ];
        for (text, want) in table {
            let wrong = Year::read(&text).expect_err(&text);
            assert!(wrong.contains(want), "{text}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(head in "[{<]", text in "(?s).{0,200}") {
            let _ = Year::read(&format!("{head}{text}"));
            let _ = Year::read(&format!("<calendar year=\"2026\"><day {text}>"));
            let _ = Year::read(&format!("{{\"year\":2026,\"months\":{}}}", months(&text.escape_default().to_string())));
        }
    }
}
