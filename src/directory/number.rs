//! Telephone numbers in their one form, E.164, and how phones and carriers write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NumberFormat;

/// A number in E.164 form: 7 to 15 digits behind a `+` (ITU-T E.164: at most 15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct E164(u64);

/// Why something is no E.164 number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a telephone number in E.164 form (+ and 7 to 15 digits)")]
pub struct NotE164;

/// Fewest digits that we take for a number that somebody can be called back at.
const MIN_DIGITS: usize = 7;
/// Most digits (ITU-T E.164).
const MAX_DIGITS: usize = 15;

impl E164 {
    /// From bare digits, country code first.
    pub fn from_digits(digits: &str) -> Result<E164, NotE164> {
        let fits = (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len());
        if !fits || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotE164);
        }
        digits.parse().map(E164).map_err(|_| NotE164)
    }

    /// The digits, country code first, without `+`.
    pub fn digits(self) -> String {
        self.0.to_string()
    }

    /// The digits as one number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Whether the digits begin with those of `head`; 0 stands for no digits.
    pub fn begins_with(self, head: u64) -> bool {
        let length = |n: u64| n.checked_ilog10().map_or(0, |n| n + 1);
        let rest = length(self.0).checked_sub(length(head));
        rest.is_some_and(|rest| head == 0 || self.0 / 10u64.pow(rest) == head)
    }

    /// Whether the number belongs to the plan of `country` (ISO 3166-1); unknown countries own nothing.
    pub fn is_of(self, country: &str) -> bool {
        let digits = self.digits();
        match country {
            // Zone 7: Kazakhstan has 76 and 77, Russia the rest.
            "RU" => digits.starts_with('7') && !digits.starts_with("76") && !digits.starts_with("77"),
            "KZ" => digits.starts_with("76") || digits.starts_with("77"),
            _ => false,
        }
    }

    /// The number as people of `country` dial it at home; E.164 where that country's plan is not known.
    pub fn national(self, country: &str) -> String {
        let digits = self.digits();
        match (country, digits.strip_prefix('7')) {
            ("RU" | "KZ", Some(rest)) if rest.len() == 10 => format!("8{rest}"),
            ("RU" | "KZ", _) => format!("810{digits}"),
            _ => self.to_string(),
        }
    }

    /// The number as a trunk wants it written.
    pub fn written(self, format: NumberFormat, country: &str) -> String {
        match format {
            NumberFormat::E164 => self.to_string(),
            NumberFormat::International => self.digits(),
            NumberFormat::National => self.national(country),
        }
    }

    /// Reads a number as a phone or a carrier of `country` may write it: `+7…`, `7…`, `8…`, `810…`, ten digits, with
    /// spaces, brackets and hyphens.
    pub fn read(text: &str, country: &str) -> Option<E164> {
        const MAX_TEXT: usize = 40;
        if text.len() > MAX_TEXT {
            return None;
        }
        let mut digits = String::with_capacity(text.len());
        let mut plus = false;
        for (i, c) in text.trim().chars().enumerate() {
            match c {
                '+' if i == 0 => plus = true,
                '0'..='9' => digits.push(c),
                ' ' | '(' | ')' | '-' | '.' | '\u{a0}' => {}
                _ => return None,
            }
        }
        if plus {
            return E164::from_digits(&digits).ok();
        }
        let full = match (country, digits.len()) {
            ("RU" | "KZ", n) if digits.starts_with("810") && n > 11 => digits[3..].to_owned(),
            ("RU" | "KZ", 11) if digits.starts_with('8') || digits.starts_with('7') => format!("7{}", &digits[1..]),
            ("RU" | "KZ", 10) => format!("7{digits}"),
            ("RU" | "KZ", n) if n < 10 => return None,
            _ => digits,
        };
        E164::from_digits(&full).ok()
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for E164 {
    type Err = NotE164;
    fn from_str(text: &str) -> Result<E164, NotE164> {
        E164::from_digits(text.strip_prefix('+').ok_or(NotE164)?)
    }
}

impl Serialize for E164 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for E164 {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<E164, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether `text` fits an `outside` pattern: digits and `+` stand for themselves, `X` for any digit, a final `.` for one
/// or more digits.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (body, open) = match pattern.strip_suffix('.') {
        Some(body) => (body, true),
        None => (pattern, false),
    };
    if text.len() < body.len() + usize::from(open) || (!open && text.len() != body.len()) {
        return false;
    }
    let head = body.bytes().zip(text.bytes()).all(|(p, t)| if p == b'X' { t.is_ascii_digit() } else { p == t });
    head && text.bytes().skip(body.len()).all(|t| t.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_russian_spelling() {
        for (text, want) in [
            ("8 (343) 300-00-01", Some("+73433000001")),
            ("+7 343 300 00 01", Some("+73433000001")),
            ("73433000001", Some("+73433000001")),
            ("3433000001", Some("+73433000001")),
            ("810442071234567", Some("+442071234567")),
            ("121", None),
            ("anonymous", None),
            ("+", None),
            ("", None),
            ("+1234567890123456", None),
        ] {
            assert_eq!(E164::read(text, "RU").map(|n| n.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_as_people_dial_them() {
        for (number, want) in [("+79131234567", "89131234567"), ("+442071234567", "810442071234567")] {
            let number: E164 = number.parse().expect("a number");
            assert_eq!(number.national("RU"), want);
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("8XXXXXXXXXX", "89131234567", true),
            ("8XXXXXXXXXX", "8913123456", false),
            ("+X.", "+79131234567", true),
            ("+X.", "+7", false),
            ("810X.", "810442071234567", true),
            ("810X.", "121", false),
        ] {
            assert_eq!(fits(pattern, text), want, "{pattern} {text}");
        }
    }
}
