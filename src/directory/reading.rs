//! Telephone numbers as people, phones and carriers write them, read into their one form: `8 (343) 300-00-01, доб. 12`,
//! `810442071234567`, `tel:3000001;phone-context=+7343`, `anonymous`. Every door of the product reads with this: SIP's From, To
//! and request-URI, what a phone dials, files of contacts, the API.
//!
//! No library of numbering metadata stands behind it: which lengths a country's numbers may have decides nothing here, and what
//! does decide (zone 7 in all its spellings, each trunk's own habits) no such library knows.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::country::Country;
use super::number::E164;
use super::{NumberFormat, numbering};

/// What somebody wrote where a number is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// A number, and the digits to be dialled once it answers, if some were named.
    Number(E164, Option<Suffix>),
    /// The caller does not want to be known, or the network could not say.
    Anonymous,
    /// Neither.
    Malformed,
}

/// An extension behind a number ("доб. 12", `;ext=12`): 1 to 8 digits, leading zeros kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suffix {
    digits: [u8; Suffix::MOST],
    len: u8,
}

/// How numbers are written at one door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dialect {
    /// Whose national form is understood; none: only numbers with their country code.
    pub country: Option<Country>,
    /// How the trunk writes: where it says `international`, digits without a plus begin with the country code.
    pub format: NumberFormat,
}

/// Longest text that is read, in bytes.
const MAX_TEXT: usize = 160;
/// Digits of a number with all its prefixes, at most.
const MAX_DIGITS: usize = 24;

impl Dialect {
    /// What phones dial and people write in `country`.
    pub fn of(country: Option<Country>) -> Dialect {
        Dialect { country, format: NumberFormat::E164 }
    }
}

impl From<Country> for Dialect {
    fn from(country: Country) -> Dialect {
        Dialect::of(Some(country))
    }
}

impl From<Option<Country>> for Dialect {
    fn from(country: Option<Country>) -> Dialect {
        Dialect::of(country)
    }
}

impl Reading {
    /// Reads a text: the user part of a SIP or tel URI (decoded, with its parameters), a cell of a file, what was dialled.
    pub fn of(text: &str, dialect: impl Into<Dialect>) -> Reading {
        // What carriers and phones send most: nothing that people put between, before or behind the digits.
        if let Some(plain) = Written::plain(text) {
            return plain.read(None, None, dialect.into());
        }
        let text = text.trim().trim_matches(['"', '<', '>', '\'']).trim();
        if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            return Reading::Malformed;
        }
        let text = strip_scheme(text);
        let (user, host) = text.split_once('@').unwrap_or((text, ""));
        if is_anonymous(user) || host.eq_ignore_ascii_case(ANONYMOUS_HOST) {
            return Reading::Anonymous;
        }
        let (body, params) = user.split_once(';').unwrap_or((user, ""));
        let Some((body, suffix)) = split_suffix(body) else { return Reading::Malformed };
        let Some(mut suffix) = suffix.map_or(Some(None), |digits| Suffix::read(digits).map(Some)) else {
            return Reading::Malformed;
        };
        let mut context = None;
        for param in params.split(';').filter(|p| !p.is_empty()) {
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "ext" | "postd" if !value.is_empty() => match Suffix::read(value) {
                    Some(digits) => suffix = Some(digits),
                    None => return Reading::Malformed,
                },
                // RFC 3966 5.1.5: the leading digits of a local number. A domain says nothing about them.
                "phone-context" => context = value.strip_prefix('+'),
                // Everything else (`phone-context` by domain, isub, npdi, rn, cpc, oli …) does not change the number.
                _ => {}
            }
        }
        let Some(written) = Written::of(body) else { return Reading::Malformed };
        written.read(context, suffix, dialect.into())
    }

    /// The number, if it is one.
    pub fn number(self) -> Option<E164> {
        match self {
            Reading::Number(number, _) => Some(number),
            Reading::Anonymous | Reading::Malformed => None,
        }
    }
}

impl Suffix {
    /// Most digits.
    const MOST: usize = 8;

    /// From digits with spaces or hyphens between them.
    fn read(text: &str) -> Option<Suffix> {
        let mut suffix = Suffix { digits: [0; Suffix::MOST], len: 0 };
        for c in text.bytes().filter(|c| !matches!(c, b' ' | b'-' | b'.')) {
            if !c.is_ascii_digit() || usize::from(suffix.len) == Suffix::MOST {
                return None;
            }
            suffix.digits[usize::from(suffix.len)] = c;
            suffix.len += 1;
        }
        (suffix.len > 0).then_some(suffix)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        self.digits.get(..usize::from(self.len)).and_then(|d| std::str::from_utf8(d).ok()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Suffix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

type Digits = SmallVec<[u8; MAX_DIGITS]>;

/// The digits of a number without what people put between them.
struct Written {
    digits: Digits,
    plus: bool,
}

impl Written {
    /// Digits, with a plus before them or without, and nothing else.
    fn plain(text: &str) -> Option<Written> {
        let digits = text.strip_prefix('+').unwrap_or(text);
        let is_plain = (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| Written { digits: Digits::from_slice(digits.as_bytes()), plus: digits.len() < text.len() })
    }

    /// What they say; `context` is the leading digits of a local number.
    fn read(self, context: Option<&str>, suffix: Option<Suffix>, dialect: Dialect) -> Reading {
        let Written { digits, plus } = self;
        if digits.iter().all(|d| *d == b'0') {
            // Networks send zeros for a number that is withheld or was lost on the way.
            return if digits.is_empty() || plus { Reading::Malformed } else { Reading::Anonymous };
        }
        let number = match context.filter(|_| !plus).map(|c| Written::of(c).map(|c| c.digits)) {
            Some(None) => None,
            Some(Some(mut whole)) => {
                whole.extend_from_slice(&digits);
                international(&whole, dialect)
            }
            None if plus => international(&digits, dialect),
            None => bare(&digits, dialect),
        };
        number.map_or(Reading::Malformed, |number| Reading::Number(number, suffix))
    }

    fn of(text: &str) -> Option<Written> {
        // `+44 (0)20 …`: the zero is for those who dial at home.
        let text: Cow<'_, str> = match text.contains('+') && text.contains("(0)") {
            true => text.replacen("(0)", "", 1).into(),
            false => text.into(),
        };
        let mut written = Written { digits: Digits::new(), plus: false };
        for c in text.chars() {
            match c {
                '0'..='9' if written.digits.len() < MAX_DIGITS => written.digits.push(c as u8),
                '+' if !written.plus && written.digits.is_empty() => written.plus = true,
                ' ' | '(' | ')' | '-' | '.' | '/' | '~' | '\u{a0}' | '\u{2009}' | '\u{202f}' => {}
                // Hyphens, dashes and the minus of word processors.
                '\u{2010}'..='\u{2015}' | '\u{2212}' => {}
                _ => return None,
            }
        }
        Some(written)
    }
}

/// What stands behind a plus, or an international prefix.
fn international(digits: &[u8], dialect: Dialect) -> Option<E164> {
    match digits {
        // Zone 7 has ten digits behind the 7. People of its countries write `+7 8 913 …` and `+8 913 …`.
        [b'7', national @ ..] if national.len() == 10 => zone_7(national),
        [b'7', b'8', national @ ..] if national.len() == 10 => zone_7(national),
        [b'7', ..] => None,
        // Where the code is another country's (+84, +86), it is taken as written; no number of +880 goes on with 0.
        [b'8', national @ ..] if is_of_zone_7(dialect) && national.len() == 10 => {
            let whole = from(digits)?;
            match is_nobodys(whole) || national.starts_with(b"800") {
                true => zone_7(national).or(Some(whole)),
                false => Some(whole),
            }
        }
        digits => from(digits),
    }
}

/// What stands without a plus.
fn bare(digits: &[u8], dialect: Dialect) -> Option<E164> {
    let Some(country) = dialect.country else { return from(digits) };
    if is_of_zone_7(dialect) {
        return match digits {
            // No area code begins with 1, so this is never 8 and ten digits.
            [b'8', b'1', b'0', rest @ ..] if rest.len() >= 7 => international(rest, dialect),
            [b'0', b'0', rest @ ..] => international(rest, dialect),
            // A trunk that writes country codes means another country's number, unless the code is one of ours.
            [first, rest @ ..]
                if dialect.format == NumberFormat::International
                    && ((digits.len() == 10 && !numbering::is_area(digits))
                        || (*first == b'8' && rest.len() == 10 && !numbering::is_area(rest))) =>
            {
                from(digits)
            }
            [b'7' | b'8', national @ ..] if national.len() == 10 => zone_7(national),
            national if national.len() == 10 => zone_7(national),
            [b'7', ..] => international(digits, dialect),
            short if short.len() < 10 => None,
            whole => from(whole),
        };
    }
    let (cc, plan) = (country.calling_code().as_bytes(), country.dialling());
    let own = |rest: &[u8]| from(&[cc, rest].concat());
    if let Some(rest) = plan.international.iter().find_map(|p| digits.strip_prefix(p.as_bytes())) {
        return international(rest, dialect);
    }
    if dialect.format == NumberFormat::International {
        return from(digits);
    }
    let trunk = plan.national.as_bytes();
    match digits.strip_prefix(trunk) {
        // North America dials its country code.
        Some(rest) if trunk == cc && rest.len() == 10 => own(rest),
        _ if trunk == cc && digits.len() == 10 => own(digits),
        Some(rest) if !trunk.is_empty() && trunk != cc => own(rest),
        // Nothing is put before a national number there; longer ones have their country code.
        Some(rest) if trunk.is_empty() && rest.len() <= plan.longest => own(rest),
        _ if digits.len() >= 10 => from(digits).filter(|n| !is_nobodys(*n)),
        _ => None,
    }
}

fn is_of_zone_7(dialect: Dialect) -> bool {
    matches!(dialect.country, Some(Country::RU | Country::KZ))
}

/// Ten digits of zone 7: no area code begins with 0, 1, 2 or 5.
fn zone_7(national: &[u8]) -> Option<E164> {
    let fits = !matches!(national.first(), None | Some(b'0' | b'1' | b'2' | b'5'));
    fits.then(|| from(&[b"7", national].concat())).flatten()
}

fn from(digits: &[u8]) -> Option<E164> {
    E164::from_digits(std::str::from_utf8(digits).ok()?).ok()
}

fn is_nobodys(number: E164) -> bool {
    Country::of(number).is_none()
}

fn strip_scheme(text: &str) -> &str {
    for scheme in ["tel:", "sip:", "sips:"] {
        if text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)) {
            return &text[scheme.len()..];
        }
    }
    text
}

/// The host that stands for nobody (RFC 3323 4.1.1.3).
pub const ANONYMOUS_HOST: &str = "anonymous.invalid";

/// Whether a user part or a display name says that the caller is not to be known. An empty one does.
pub fn is_anonymous(text: &str) -> bool {
    const WORDS: [&str; 30] = [
        "anonymous",
        "anonym",
        "unavailable",
        "unknown",
        "restricted",
        "private",
        "withheld",
        "hidden",
        "blocked",
        "none",
        "null",
        "nobody",
        "no number",
        "no caller id",
        "number withheld",
        "number unavailable",
        "private number",
        "unknown number",
        "unknown caller",
        "caller id blocked",
        "out of area",
        "not available",
        "id unavailable",
        "аноним",
        "анонимный",
        "неизвестный",
        "неизвестен",
        "скрытый номер",
        "номер скрыт",
        "неизвестный номер",
    ];
    let text = text.trim().trim_matches(['"', '<', '>', '\'']).trim();
    let lower: String =
        text.chars().map(|c| if matches!(c, '_' | '-' | '.') { ' ' } else { c }).collect::<String>().to_lowercase();
    text.is_empty() || WORDS.contains(&lower.trim())
}

/// Cuts "доб. 12", "ext. 12", "x12", "#12", ",,12" off. None if what stands behind such a word cannot be an extension;
/// nothing behind a `#` or comma is nothing (phones end what they dial with it).
fn split_suffix(text: &str) -> Option<(&str, Option<&str>)> {
    const MARKS: [&str; 10] = ["добавочный", "добав", "доб", "внутр", "вн", "extension", "ext", "x", "#", ","];
    let lower = text.to_lowercase();
    let found = MARKS.iter().filter_map(|mark| Some((lower.find(mark)?, *mark)));
    let Some((at, mark)) = found.min_by_key(|(at, mark)| (*at, usize::MAX - mark.len())) else {
        return Some((text, None));
    };
    // Small and capital letters of both alphabets are equally long. Others are not, and stand in no number.
    let (body, rest) = (text.get(..at)?, text.get(at + mark.len()..)?);
    let rest = rest.trim_matches([' ', '.', ':', '№', '#', ',', '\u{a0}']);
    let body = body.trim_end_matches([' ', ',', '(', '\u{a0}']);
    match rest {
        "" if matches!(mark, "#" | ",") => Some((body, None)),
        "" => None,
        rest => match (mark, split_suffix(rest)) {
            // "…, доб. 12"
            (",", Some(("", Some(digits)))) => Some((body, Some(digits))),
            _ => Some((body, Some(rest.trim_end_matches(')')))),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RU: Dialect = Dialect { country: Some(Country::RU), format: NumberFormat::E164 };

    fn told(text: &str, dialect: Dialect) -> String {
        match Reading::of(text, dialect) {
            Reading::Number(number, None) => number.to_string(),
            Reading::Number(number, Some(suffix)) => format!("{number} {}", suffix.as_str()),
            Reading::Anonymous => "anonymous".to_owned(),
            Reading::Malformed => "malformed".to_owned(),
        }
    }

    #[test]
    fn numbers_are_read_in_every_russian_spelling() {
        #[rustfmt::skip]
        let table = [
            // One number.
            ("8 (343) 300-00-01", "+73433000001"),
            ("8(343)300-00-01", "+73433000001"),
            ("8-343-300-00-01", "+73433000001"),
            ("+7 343 300 00 01", "+73433000001"),
            ("+7 (343) 300-00-01", "+73433000001"),
            ("(+7) 343 3000001", "+73433000001"),
            ("+7\u{a0}343\u{a0}300\u{2011}00\u{2011}01", "+73433000001"),
            ("+7 343 300–00–01", "+73433000001"),
            ("7/343/300.00.01", "+73433000001"),
            ("73433000001", "+73433000001"),
            ("83433000001", "+73433000001"),
            ("3433000001", "+73433000001"),
            ("\"+73433000001\"", "+73433000001"),
            ("<+73433000001>", "+73433000001"),
            ("tel:+7-343-300-00-01", "+73433000001"),
            ("TEL:+73433000001", "+73433000001"),
            ("sip:+73433000001@carrier.example", "+73433000001"),
            ("+73433000001@127.0.0.1:5060", "+73433000001"),
            ("tel:3000001;phone-context=+7343", "+73433000001"),
            ("83433000001;phone-context=+7", "+73433000001"),
            ("83433000001;phone-context=office.example", "+73433000001"),
            ("+73433000001;npdi;rn=+73430000000", "+73433000001"),
            ("81073433000001", "+73433000001"),
            ("00 7 343 300-00-01", "+73433000001"),
            // The country code and the 8 at once.
            ("+8 (343) 300-00-01", "+73433000001"),
            ("+7 8 343 300-00-01", "+73433000001"),
            ("+8 800 300-00-01", "+78003000001"),
            ("8 800 300 00 01", "+78003000001"),
            ("8 (913) 123-45-67", "+79131234567"),
            ("+8 913 123-45-67", "+79131234567"),
            // Neighbours in zone 7.
            ("8 727 250 00 00", "+77272500000"),
            ("7272500000", "+77272500000"),
            ("8 840 226-12-34", "+78402261234"),
            // Abroad.
            ("810442071234567", "+442071234567"),
            ("8~10 44 20 7123 4567", "+442071234567"),
            ("8 10 44 20 7123 4567", "+442071234567"),
            ("+44 (0)20 7123 4567", "+442071234567"),
            ("0044 20 7123 4567", "+442071234567"),
            ("442071234567", "+442071234567"),
            ("+12125551234", "+12125551234"),
            ("+84951234567", "+84951234567"),
            ("+8801712345678", "+8801712345678"),
            ("+80012345678", "+80012345678"),
            ("+375 17 212-34-56", "+375172123456"),
            // Extensions.
            ("8 (343) 300-00-01 доб. 12", "+73433000001 12"),
            ("8 (343) 300-00-01, доб.012", "+73433000001 012"),
            ("+7 343 300-00-01 ДОБ 12", "+73433000001 12"),
            ("+7 343 300-00-01 (доб. 12)", "+73433000001 12"),
            ("+7 343 300-00-01 добавочный 12", "+73433000001 12"),
            ("+7 343 300-00-01 вн. 12", "+73433000001 12"),
            ("+73433000001 ext. 12", "+73433000001 12"),
            ("+73433000001 Extension: 12", "+73433000001 12"),
            ("+73433000001x12", "+73433000001 12"),
            ("+73433000001#12", "+73433000001 12"),
            ("+73433000001,,12#", "+73433000001 12"),
            ("+73433000001;ext=12", "+73433000001 12"),
            ("tel:+73433000001;ext=1-2;isub=7", "+73433000001 12"),
            ("+73433000001;postd=12", "+73433000001 12"),
            ("89131234567#", "+79131234567"),
            ("+73433000001 доб.", "malformed"),
            ("+73433000001 доб. sales", "malformed"),
            ("+73433000001 доб. 123456789", "malformed"),
            ("+73433000001;ext=a", "malformed"),
            // Nobody.
            ("", "anonymous"),
            ("  ", "anonymous"),
            ("\"\"", "anonymous"),
            ("anonymous", "anonymous"),
            ("Anonymous", "anonymous"),
            ("anonymous@anonymous.invalid", "anonymous"),
            ("sip:anonymous@anonymous.invalid", "anonymous"),
            ("sip:+73433000001@anonymous.invalid", "anonymous"),
            ("Unavailable", "anonymous"),
            ("unknown", "anonymous"),
            ("<unknown>", "anonymous"),
            ("Restricted", "anonymous"),
            ("Private", "anonymous"),
            ("PRIVATE NUMBER", "anonymous"),
            ("private_number", "anonymous"),
            ("No-Caller-ID", "anonymous"),
            ("withheld", "anonymous"),
            ("Аноним", "anonymous"),
            ("Скрытый номер", "anonymous"),
            ("0", "anonymous"),
            ("0000000000", "anonymous"),
            // Nothing.
            ("+", "malformed"),
            ("+0", "malformed"),
            ("121", "malformed"),
            ("112", "malformed"),
            ("3000001", "malformed"),
            ("+7343300000", "malformed"),
            ("+734330000012", "malformed"),
            ("734330000012", "malformed"),
            ("0433000001", "malformed"),
            ("81234567890", "malformed"),
            ("5433000001", "malformed"),
            ("+1234567890123456", "malformed"),
            ("12345678901234567890123456789", "malformed"),
            ("8 (343) 300-OO-O1", "malformed"),
            ("+7343+3000001", "malformed"),
            ("Анна", "malformed"),
            ("*80121", "malformed"),
            ("８３４３３０００００１", "malformed"),
            ("+73433000001\r\nX: y", "malformed"),
            ("İİİİ доб 1", "malformed"),
        ];
        for (text, want) in table {
            assert_eq!(told(text, RU), want, "{text}");
        }
    }

    #[test]
    fn each_trunk_and_country_has_its_own_habits() {
        let national = NumberFormat::National;
        let international = NumberFormat::International;
        #[rustfmt::skip]
        let table = [
            // A trunk that writes country codes: what is no code of ours is a country's.
            ("RU", international, "73433000001", "+73433000001"),
            ("RU", international, "83433000001", "+73433000001"),
            ("RU", international, "3433000001", "+73433000001"),
            ("RU", international, "9131234567", "+79131234567"),
            ("RU", international, "8003000001", "+78003000001"),
            ("RU", international, "4512345678", "+4512345678"),
            ("RU", international, "6591234567", "+6591234567"),
            ("RU", international, "84901234567", "+84901234567"),
            ("RU", international, "84951234567", "+74951234567"),
            ("RU", international, "37112345678", "+37112345678"),
            ("RU", international, "380441234567", "+380441234567"),
            ("RU", international, "2345678", "malformed"),
            ("RU", national, "4512345678", "+74512345678"),
            ("RU", national, "84901234567", "+74901234567"),
            ("RU", national, "810375172123456", "+375172123456"),
            ("KZ", national, "8 727 250 00 00", "+77272500000"),
            ("KZ", national, "8 343 300 00 01", "+73433000001"),
            ("KZ", national, "7272500000", "+77272500000"),
            ("KZ", national, "8 10 49 30 123456", "+4930123456"),
            ("BY", national, "8 017 212 34 56", "+375172123456"),
            ("BY", national, "80172123456", "+375172123456"),
            ("BY", national, "8 10 7 913 123 45 67", "+79131234567"),
            ("DE", national, "030 123456", "+4930123456"),
            ("DE", national, "00 7 343 300 00 01", "+73433000001"),
            ("DE", national, "4930123456", "+4930123456"),
            ("DE", international, "4930123456", "+4930123456"),
            ("DE", national, "123456", "malformed"),
            ("GB", national, "020 7123 4567", "+442071234567"),
            ("US", national, "(212) 555-1234", "+12125551234"),
            ("US", national, "1 212 555 1234", "+12125551234"),
            ("US", national, "011 7 343 300 00 01", "+73433000001"),
            ("PL", national, "22 123 45 67", "+48221234567"),
            ("PL", national, "48221234567", "+48221234567"),
            ("IT", national, "06 1234 5678", "+390612345678"),
            ("DK", national, "12 34 56 78", "+4512345678"),
            ("HU", national, "06 1 234 5678", "+3612345678"),
            ("GE", national, "0322 12 34 56", "+995322123456"),
            ("", national, "+73433000001", "+73433000001"),
            ("", national, "73433000001", "+73433000001"),
            ("", national, "83433000001", "+83433000001"),
            ("", national, "121", "malformed"),
        ];
        for (country, format, text, want) in table {
            let dialect = Dialect { country: Country::parse(country), format };
            assert_eq!(told(text, dialect), want, "{country} {format:?} {text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_without_a_panic(text in "\\PC{0,60}", at in 0usize..250) {
            let country = Country::all().nth(at);
            for format in [NumberFormat::E164, NumberFormat::International, NumberFormat::National] {
                Reading::of(&text, Dialect { country, format });
            }
        }

        #[test]
        fn a_number_is_read_in_each_of_its_forms(digits in 1_000_000u64..1_000_000_000_000_000, at in 0usize..250) {
            let number = E164::from_digits(&digits.to_string()).expect("7 to 15 digits");
            let country = Country::all().nth(at);
            prop_assume!(digits / 10_000_000_000 == 7 || !digits.to_string().starts_with('7'));
            let read = Reading::of(&number.to_string(), country).number();
            // Zone 7 corrects `+8 913 …`.
            prop_assert!(read == Some(number) || number.digits().starts_with('8') || number.digits().starts_with('7'));
        }
    }
}
