//! Telephone numbers in their one form, E.164, and how phones and carriers write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NumberFormat;
use super::country::Country;
use super::reading::{Dialect, Reading};

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

    /// Whether the number belongs to `country`; an unknown one owns nothing.
    pub fn is_of(self, country: Option<Country>) -> bool {
        country.is_some() && Country::of(self) == country
    }

    /// The number as people of `country` dial it at home; E.164 where the country is not known.
    pub fn national(self, country: Option<Country>) -> String {
        let Some(country) = country else { return self.to_string() };
        let (digits, dialling) = (self.digits(), country.dialling());
        match digits.strip_prefix(country.calling_code()) {
            Some(rest) if !country.calling_code().is_empty() && rest.len() <= dialling.longest => {
                format!("{}{rest}", dialling.national)
            }
            _ => format!("{}{digits}", dialling.international.first().unwrap_or(&"00")),
        }
    }

    /// The number as a trunk wants it written.
    pub fn written(self, format: NumberFormat, country: Option<Country>) -> String {
        match format {
            NumberFormat::E164 => self.to_string(),
            NumberFormat::International => self.digits(),
            NumberFormat::National => self.national(country),
        }
    }

    /// Reads a number in any spelling; see [`Reading`] for the extension behind it and for callers who have none.
    pub fn read(text: &str, dialect: impl Into<Dialect>) -> Option<E164> {
        Reading::of(text, dialect).number()
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

/// How E.164 numbers begin: `+7809`, or a whole number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix(u64);

/// Why something is no beginning of numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the beginning of E.164 numbers (+ and 1 to 15 digits)")]
pub struct NotPrefix;

impl Prefix {
    /// Whether the number begins so.
    pub fn begins(self, number: E164) -> bool {
        number.begins_with(self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl FromStr for Prefix {
    type Err = NotPrefix;
    fn from_str(text: &str) -> Result<Prefix, NotPrefix> {
        let digits = text.strip_prefix('+').ok_or(NotPrefix)?;
        let fits = (1..=MAX_DIGITS).contains(&digits.len()) && !digits.starts_with('0');
        if !fits || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotPrefix);
        }
        digits.parse().map(Prefix).map_err(|_| NotPrefix)
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
    fn numbers_are_written_as_people_dial_them() {
        for (number, country, want) in [
            ("+79131234567", "RU", "89131234567"),
            ("+77272500000", "RU", "87272500000"),
            ("+78402261234", "RU", "88402261234"),
            ("+442071234567", "RU", "810442071234567"),
            ("+79131234567", "", "+79131234567"),
            ("+442071234567", "GB", "02071234567"),
            ("+79131234567", "DE", "0079131234567"),
            ("+375172123456", "BY", "80172123456"),
            ("+79131234567", "BY", "81079131234567"),
            ("+12125551234", "US", "12125551234"),
            ("+442071234567", "US", "011442071234567"),
            ("+48123456789", "PL", "123456789"),
        ] {
            let number: E164 = number.parse().expect("a number");
            let country = Country::parse(country);
            assert_eq!(number.national(country), want);
            assert_eq!(E164::read(want, country), Some(number), "{want} in {country:?}");
        }
    }

    #[test]
    fn beginnings_of_numbers() {
        for (prefix, number, want) in [
            ("+7809", "+78091234567", true),
            ("+7809", "+78081234567", false),
            ("+881", "+8816123456", true),
            ("+8", "+79131234567", false),
            ("+79131234567", "+79131234567", true),
            ("+791312345678", "+79131234567", false),
        ] {
            let prefix: Prefix = prefix.parse().expect("a beginning");
            assert_eq!(prefix.begins(number.parse().expect("a number")), want, "{prefix} {number}");
        }
        for wrong in ["", "+", "7809", "+0", "+78o9", "+7809*", "+1234567890123456"] {
            assert_eq!(wrong.parse::<Prefix>(), Err(NotPrefix), "{wrong}");
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
