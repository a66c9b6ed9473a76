//! The numbering plan: which country, regions and city a number belongs to. Immutable, asked for every call, in tens of
//! nanoseconds and without allocation.
//!
//! Zone 7 (Russia, Kazakhstan) is known by ranges: a small plan of fixed-line codes is built in, the registry's own files and an
//! import lie over it. Every other number belongs to a country by its E.164 code. A mobile number that was taken along to another
//! operator keeps its range's region.

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::country::Country;
use super::number::E164;
use super::region::Region;
use super::spelling::Spelled;
use crate::base::{Map, map};

/// The plan in force: what was imported, over what the configuration's files say, over what is built in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Numbering {
    files: Arc<Ranges>,
    imported: Option<Arc<Ranges>>,
}

/// Ranges of zone 7 with their places, to be searched.
#[derive(Clone)]
pub struct Ranges {
    /// Where the rows of each million of national numbers begin; one more at the end.
    index: Box<[u32]>,
    /// First national number of each row; rows are in order and do not overlap.
    first: Box<[u64]>,
    /// Last national number of each row.
    last: Box<[u64]>,
    /// Which of `places` the row is.
    place: Box<[u32]>,
    places: Box<[Entry]>,
}

/// Where a number belongs, as far as the plan says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// Country; none for satellites, international freephone and codes that nobody has.
    pub country: Option<Country>,
    /// Regions: one, more where the plan gives a range to several, or none for numbers of a whole country that is divided into
    /// regions. A foreign number has its country.
    pub regions: &'a [Region],
    /// The settlement, by its local name.
    pub city: Option<&'a str>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Entry {
    country: Country,
    regions: Box<[Region]>,
    city: Option<Box<str>>,
}

/// Ranges in the making. Of two that overlap the one that was added later counts.
#[derive(Clone)]
pub struct Draft {
    rows: Vec<Row>,
    places: Vec<Entry>,
    known: Map<Entry, u32>,
}

#[derive(Clone, Copy)]
struct Row {
    first: u64,
    last: u64,
    place: u32,
}

/// A range that no plan can have: it goes backwards, or lies outside of zone 7.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a range of numbers of zone 7")]
pub struct NoRange;

/// Rows of a plan at most; the registry has some 400,000.
pub const MAX_ROWS: usize = 2_000_000;

/// National numbers of zone 7 have ten digits behind the 7.
const ZONE: u64 = 70_000_000_000;
const NATIONAL: u64 = 10_000_000_000;
/// How many national numbers share an entry of the index.
const SPAN: u64 = 1_000_000;

impl Numbering {
    /// A plan of what the files say; the built-in one should lie below it.
    pub fn of(files: Ranges) -> Numbering {
        Numbering { files: Arc::new(files), imported: None }
    }

    /// The same files with other imported ranges, or none.
    pub fn with_imported(&self, imported: Option<Arc<Ranges>>) -> Numbering {
        Numbering { files: self.files.clone(), imported }
    }

    /// What was imported.
    pub fn imported(&self) -> Option<&Arc<Ranges>> {
        self.imported.as_ref()
    }

    /// Where a number belongs.
    pub fn place(&self, number: E164) -> Place<'_> {
        let known = |national| {
            let imported = self.imported.as_ref().and_then(|ranges| ranges.entry(national));
            imported.or_else(|| self.files.entry(national))
        };
        if let Some(entry) = national(number).and_then(known) {
            return Place { country: Some(entry.country), regions: &entry.regions, city: entry.city.as_deref() };
        }
        let country = Country::of(number);
        let regions = match country {
            None | Some(Country::RU) => &[],
            Some(country) => Region::countries(country),
        };
        Place { country, regions, city: None }
    }

    /// How many ranges it has; the built-in ones count.
    pub fn len(&self) -> usize {
        self.files.len() + self.imported.as_ref().map_or(0, |r| r.len())
    }

    /// Whether there is no range at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> usize {
        self.files.bytes() + self.imported.as_ref().map_or(0, |r| r.bytes())
    }
}

impl Ranges {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Bytes that they take in memory.
    pub fn bytes(&self) -> usize {
        let text = |e: &Entry| e.city.as_ref().map_or(0, |c| c.len()) + size_of_val(&*e.regions);
        size_of_val(&*self.index)
            + size_of_val(&*self.first)
            + size_of_val(&*self.last)
            + size_of_val(&*self.place)
            + size_of_val(&*self.places)
            + self.places.iter().map(text).sum::<usize>()
    }

    fn entry(&self, national: u64) -> Option<&Entry> {
        self.places.get(*self.place.get(self.row(national)?)? as usize)
    }

    fn row(&self, national: u64) -> Option<usize> {
        let slot = (national / SPAN) as usize;
        let (from, to) = (*self.index.get(slot)? as usize, *self.index.get(slot + 1)? as usize);
        // The rows that begin within this million, and the one before: it may reach into it.
        let within = self.first.get(from..to)?.partition_point(|first| *first <= national);
        let row = (from + within).checked_sub(1)?;
        (*self.last.get(row)? >= national).then_some(row)
    }
}

impl Numbering {
    /// The built-in plan: made once, for every directory begins with it.
    pub fn built_in() -> Arc<Numbering> {
        static PLAN: LazyLock<Arc<Numbering>> = LazyLock::new(|| Arc::new(Numbering::of(Draft::built_in().finish())));
        PLAN.clone()
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranges({})", self.len())
    }
}

impl Default for Draft {
    fn default() -> Draft {
        Draft { rows: Vec::new(), places: Vec::new(), known: map() }
    }
}

impl Draft {
    /// The built-in ranges, to be covered by better ones.
    pub fn built_in() -> Draft {
        let mut draft = Draft::default();
        for (code, region, city) in AREAS {
            let (Some(region), Ok(code)) = (Region::parse(region), code.parse::<u64>()) else { continue };
            // By ISO these are no parts of Russia, but their numbers are of its plan.
            let country = if region.code().starts_with("UA-") { Country::RU } else { region.country() };
            let city = (!city.is_empty()).then(|| (*city).into()).or_else(|| region.city().map(Into::into));
            let place = draft.intern(Entry { country, regions: [region].into(), city });
            let span = NATIONAL / 1000;
            draft.rows.push(Row { first: code * span, last: code * span + (span - 1), place });
        }
        draft
    }

    /// Adds a range, both ends included.
    pub fn add(&mut self, first: E164, last: E164, spelled: &Spelled) -> Result<(), NoRange> {
        let (Some(first), Some(last)) = (national(first), national(last)) else { return Err(NoRange) };
        if last < first || self.rows.len() >= MAX_ROWS {
            return Err(NoRange);
        }
        let (country, city) = (spelled.country, spelled.city.as_deref().map(Into::into));
        let regions = match (spelled.regions.as_slice(), country) {
            ([], Country::RU) => Box::default(),
            ([], country) => [Region::from(country)].into(),
            (regions, _) => regions.into(),
        };
        let place = self.intern(Entry { country, regions, city });
        self.rows.push(Row { first, last, place });
        Ok(())
    }

    /// The ranges.
    pub fn finish(self) -> Ranges {
        let rows = flatten(self.rows);
        let slots = NATIONAL / SPAN;
        let index = (0..=slots).map(|slot| rows.partition_point(|row| row.first < slot * SPAN) as u32).collect();
        Ranges {
            index,
            first: rows.iter().map(|row| row.first).collect(),
            last: rows.iter().map(|row| row.last).collect(),
            place: rows.iter().map(|row| row.place).collect(),
            places: self.places.into(),
        }
    }

    fn intern(&mut self, entry: Entry) -> u32 {
        if let Some(place) = self.known.get(&entry) {
            return *place;
        }
        // No more places than rows, and those are limited.
        let place = self.places.len() as u32;
        self.places.push(entry.clone());
        self.known.insert(entry, place);
        place
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} rows)", self.rows.len())
    }
}

/// Whether ten national digits begin with a code that the built-in plan, a mobile network, freephone or Kazakhstan has.
pub(super) fn is_area(national: &[u8]) -> bool {
    match national.get(..3) {
        Some([b'9' | b'7', ..] | [b'8', b'0', ..]) => true,
        Some(code) => AREAS.binary_search_by(|(area, ..)| area.as_bytes().cmp(code)).is_ok(),
        None => false,
    }
}

fn national(number: E164) -> Option<u64> {
    number.value().checked_sub(ZONE).filter(|n| *n < NATIONAL)
}

/// Rows in order and without overlap: of those that cover a number the last of the list.
fn flatten(rows: Vec<Row>) -> Vec<Row> {
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_key(|&i| rows[i as usize].first);
    let mut coming = order.into_iter().peekable();
    let mut flat: Vec<Row> = Vec::with_capacity(rows.len());
    // Rows that have begun; the later in the list, the higher.
    let mut open: BinaryHeap<u32> = BinaryHeap::new();
    let mut at = 0;
    loop {
        while let Some(i) = coming.next_if(|&i| rows[i as usize].first <= at) {
            open.push(i);
        }
        let Some(&top) = open.peek() else {
            match coming.peek() {
                Some(&next) => at = rows[next as usize].first,
                None => break,
            }
            continue;
        };
        let top = rows[top as usize];
        if top.last < at {
            open.pop();
            continue;
        }
        let next = coming.peek().map_or(u64::MAX, |&i| rows[i as usize].first);
        let last = top.last.min(next - 1);
        match flat.last_mut() {
            Some(before) if before.place == top.place && before.last + 1 == at => before.last = last,
            _ => flat.push(Row { first: at, last, place: top.place }),
        }
        at = last + 1;
    }
    flat
}

/// Fixed-line codes: the code, its region, the city if the code is a city's. By code.
#[rustfmt::skip]
static AREAS: [(&str, &str, &str); 97] = [
    ("301", "RU-BU", ""), ("302", "RU-ZAB", ""), ("336", "KZ", "Байконур"), ("341", "RU-UD", ""), ("342", "RU-PER", ""),
    ("343", "RU-SVE", ""), ("345", "RU-TYU", ""), ("346", "RU-KHM", ""), ("347", "RU-BA", ""), ("349", "RU-YAN", ""),
    ("351", "RU-CHE", ""), ("352", "RU-KGN", ""), ("353", "RU-ORE", ""), ("365", "UA-43", ""), ("381", "RU-OMS", ""),
    ("382", "RU-TOM", ""), ("383", "RU-NVS", ""), ("384", "RU-KEM", ""), ("385", "RU-ALT", ""), ("388", "RU-AL", ""),
    ("390", "RU-KK", ""), ("391", "RU-KYA", ""), ("394", "RU-TY", ""), ("395", "RU-IRK", ""), ("401", "RU-KGD", ""),
    ("411", "RU-SA", ""), ("413", "RU-MAG", ""), ("415", "RU-KAM", ""), ("416", "RU-AMU", ""), ("421", "RU-KHA", ""),
    ("423", "RU-PRI", ""), ("424", "RU-SAK", ""), ("426", "RU-YEV", ""), ("427", "RU-CHU", ""), ("471", "RU-KRS", ""),
    ("472", "RU-BEL", ""), ("473", "RU-VOR", ""), ("474", "RU-LIP", ""), ("475", "RU-TAM", ""), ("481", "RU-SMO", ""),
    ("482", "RU-TVE", ""), ("483", "RU-BRY", ""), ("484", "RU-KLU", ""), ("485", "RU-YAR", ""), ("486", "RU-ORL", ""),
    ("487", "RU-TUL", ""), ("491", "RU-RYA", ""), ("492", "RU-VLA", ""), ("493", "RU-IVA", ""), ("494", "RU-KOS", ""),
    ("495", "RU-MOW", ""), ("496", "RU-MOS", ""), ("498", "RU-MOS", ""), ("499", "RU-MOW", ""), ("811", "RU-PSK", ""),
    ("812", "RU-SPE", ""), ("813", "RU-LEN", ""), ("814", "RU-KR", ""), ("815", "RU-MUR", ""), ("816", "RU-NGR", ""),
    ("817", "RU-VLG", ""), ("818", "RU-ARK", ""), ("820", "RU-VLG", ""), ("821", "RU-KO", ""), ("831", "RU-NIZ", ""),
    ("833", "RU-KIR", ""), ("834", "RU-MO", ""), ("835", "RU-CU", ""), ("836", "RU-ME", ""), ("840", "GE-AB", ""),
    ("841", "RU-PNZ", ""), ("842", "RU-ULY", ""), ("843", "RU-TA", ""), ("844", "RU-VGG", ""), ("845", "RU-SAR", ""),
    ("846", "RU-SAM", ""), ("847", "RU-KL", ""), ("848", "RU-SAM", ""), ("851", "RU-AST", ""), ("855", "RU-TA", ""),
    ("856", "UA-14", ""), ("857", "UA-09", ""), ("860", "UA-65", ""), ("861", "RU-KDA", ""), ("862", "RU-KDA", "Сочи"),
    ("863", "RU-ROS", ""), ("865", "RU-STA", ""), ("866", "RU-KB", ""), ("867", "RU-SE", ""), ("869", "UA-40", ""),
    ("871", "RU-CE", ""), ("872", "RU-DA", ""), ("873", "RU-IN", ""), ("877", "RU-AD", ""), ("878", "RU-KC", ""),
    ("879", "RU-STA", ""), ("940", "GE-AB", ""),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directory::spelling;

    fn number(text: &str) -> E164 {
        text.parse().expect("a number")
    }

    fn said(plan: &Numbering, text: &str) -> String {
        let place = plan.place(number(text));
        let regions: Vec<&str> = place.regions.iter().map(|r| r.code()).collect();
        format!("{} {} {}", place.country.map_or("-", Country::code), regions.join("+"), place.city.unwrap_or("-"))
    }

    #[test]
    fn the_built_in_plan() {
        let plan = Numbering::built_in();
        #[rustfmt::skip]
        let table = [
            ("+73433000001", "RU RU-SVE -"),
            ("+73833000001", "RU RU-NVS -"),
            ("+74013000001", "RU RU-KGD -"),
            ("+74951234567", "RU RU-MOW Москва"),
            ("+74991234567", "RU RU-MOW Москва"),
            ("+74961234567", "RU RU-MOS -"),
            ("+74981234567", "RU RU-MOS -"),
            ("+78121234567", "RU RU-SPE Санкт-Петербург"),
            ("+78131234567", "RU RU-LEN -"),
            ("+78622000000", "RU RU-KDA Сочи"),
            ("+78692000000", "RU UA-40 Севастополь"),
            ("+73652000000", "RU UA-43 -"),
            ("+78003000001", "RU  -"),
            ("+79131234567", "RU  -"),
            ("+73362212345", "KZ KZ Байконур"),
            ("+77272500000", "KZ KZ -"),
            ("+76001234567", "KZ KZ -"),
            ("+78402261234", "GE GE-AB -"),
            ("+79407112233", "GE GE-AB -"),
            ("+995322123456", "GE GE -"),
            ("+375172123456", "BY BY -"),
            ("+442071234567", "GB GB -"),
            ("+441534123456", "JE JE -"),
            ("+12125551234", "US US -"),
            ("+14165551234", "CA CA -"),
            ("+12425551234", "BS BS -"),
            ("+35818123456", "AX AX -"),
            ("+358912345678", "FI FI -"),
            ("+4779123456", "SJ SJ -"),
            ("+3834123456", "XK XK -"),
            ("+80012345678", "-  -"),
            ("+881612345678", "-  -"),
            ("+2101234567", "-  -"),
            ("+7343300000", "RU  -"),
            ("+999999999999999", "-  -"),
        ];
        for (text, want) in table {
            assert_eq!(said(&plan, text), want, "{text}");
        }
        for pair in AREAS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} is not in order", pair[1].0);
        }
        assert!(AREAS.iter().all(|(code, region, _)| code.len() == 3 && Region::parse(region).is_some()));
    }

    #[test]
    fn what_is_added_later_covers_what_was_there() {
        let mut draft = Draft::built_in();
        let mut add = |first: &str, last: &str, cell: &str| {
            draft.add(number(first), number(last), &spelling::read(cell).expect("a place"))
        };
        assert_eq!(add("+73430000000", "+73439999999", "Свердловская обл."), Ok(()));
        assert_eq!(add("+73432000000", "+73433999999", "г. Екатеринбург|Свердловская обл."), Ok(()));
        assert_eq!(add("+73432500000", "+73432500000", "Пермский край"), Ok(()));
        assert_eq!(add("+79001400000", "+79001599999", "г. Москва * Московская область"), Ok(()));
        assert_eq!(add("+78000000000", "+78009999999", "Российская Федерация"), Ok(()));
        assert_eq!(add("+73439999999", "+73430000000", "Пермский край"), Err(NoRange));
        assert_eq!(add("+442071234567", "+442071234568", "Пермский край"), Err(NoRange));
        let plan = Numbering::of(draft.finish());
        for (text, want) in [
            ("+73431999999", "RU RU-SVE -"),
            ("+73432000000", "RU RU-SVE Екатеринбург"),
            ("+73432499999", "RU RU-SVE Екатеринбург"),
            ("+73432500000", "RU RU-PER -"),
            ("+73432500001", "RU RU-SVE Екатеринбург"),
            ("+73434000000", "RU RU-SVE -"),
            ("+79001399999", "RU  -"),
            ("+79001400000", "RU RU-MOW+RU-MOS -"),
            ("+79001600000", "RU  -"),
            ("+78003000001", "RU  -"),
            ("+73423000000", "RU RU-PER -"),
        ] {
            assert_eq!(said(&plan, text), want, "{text}");
        }
        // What was imported lies over the files, and lets them show through where it has nothing.
        let mut draft = Draft::default();
        let place = spelling::read("г. Сочи|Краснодарский край").expect("a place");
        assert_eq!(draft.add(number("+73432000000"), number("+73432000009"), &place), Ok(()));
        let both = plan.with_imported(Some(Arc::new(draft.finish())));
        assert_eq!(said(&both, "+73432000009"), "RU RU-KDA Сочи");
        assert_eq!(said(&both, "+73432000010"), "RU RU-SVE Екатеринбург");
        assert_eq!(said(&both.with_imported(None), "+73432000009"), "RU RU-SVE Екатеринбург");
    }

    proptest! {
        #[test]
        fn the_last_range_that_covers_a_number_is_its_own(
            rows in proptest::collection::vec((0u64..60, 0u64..30, 0u32..4), 0..20)
        ) {
            let rows: Vec<Row> = rows.into_iter().map(|(first, len, place)| Row { first, last: first + len, place }).collect();
            let flat = flatten(rows.clone());
            for pair in flat.windows(2) {
                prop_assert!(pair[0].first <= pair[0].last && pair[0].last < pair[1].first);
            }
            for n in 0..100 {
                let want = rows.iter().rev().find(|r| (r.first..=r.last).contains(&n)).map(|r| r.place);
                let got = flat.iter().find(|r| (r.first..=r.last).contains(&n)).map(|r| r.place);
                prop_assert_eq!(got, want);
            }
        }
    }
}
