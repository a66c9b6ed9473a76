//! The company's contacts: who calls from which number. An immutable index, built once and swapped whole,
//! so that a call's lookup never waits for a database. It reads no file and knows no spelling of numbers: `io::import` does.
//!
//! One contact may have several numbers, one number several contacts. A million contacts are a million rows of 36 bytes,
//! not a million objects: names lie in one text, what repeats (categories, managers, beginnings of addresses) is kept once.
//!
//! ```text
//!  E164 --hash--> starts[bucket]..starts[bucket + 1] --> entries (number, row), the one changed last first
//!                                                                    |
//!  text <-- name, rest of the address -- rows[row] <-----------------+
//!                                           |  numbers of the row: places in entries
//! ```

use std::fmt;

use ahash::RandomState;
use hashbrown::HashTable;

use super::E164;
use crate::base::Wall;

/// Contacts at most.
pub const MAX_CONTACTS: usize = 20_000_000;
/// Numbers of one contact at most.
pub const MAX_NUMBERS: usize = 64;
/// Bytes of a name, category, manager, region, dealer or tag at most.
pub const MAX_WORD: usize = 512;
/// Bytes of a card's address at most.
pub const MAX_URL: usize = 2048;
/// Tags of one contact at most.
pub const MAX_TAGS: usize = 64;

/// A contact's key in the store. It stays the same while the contact is only changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct ContactId(pub u32);

/// All contacts.
pub struct Contacts {
    rows: Box<[Row]>,
    /// Names and rests of addresses, row by row.
    text: Box<str>,
    /// Categories, managers, regions, dealers.
    words: Pool,
    /// Beginnings of addresses, up to the last `/` or `=`.
    sites: Pool,
    /// Sets of tags, each joined by [`TAG_END`].
    tags: Pool,
    /// Where a bucket's entries begin; one more than there are buckets.
    starts: Box<[u32]>,
    entries: Box<[Entry]>,
    /// Places in `entries`, row by row.
    numbers: Box<[u32]>,
}

/// One contact. What stands between this row and the next belongs to it, so the last row is none.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct Row {
    changed: Wall,
    id: ContactId,
    text: u32,
    numbers: u32,
    tags: u32,
    name: u16,
    site: u16,
    category: u16,
    manager: u16,
    region: u16,
    dealer: u16,
}

#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct Entry {
    number: E164,
    row: u32,
}

/// No text holds it: it is taken out at the door.
const TAG_END: char = '\u{1f}';

/// A contact to be put in. Empty text is none.
#[derive(Clone, Copy, Default, Debug)]
pub struct NewContact<'a> {
    /// Its key.
    pub id: ContactId,
    /// When it was last changed.
    pub changed: Wall,
    /// Its numbers.
    pub numbers: &'a [E164],
    /// Name.
    pub name: &'a str,
    /// Category, e.g. `supplier`.
    pub category: &'a str,
    /// Number of its manager's extension.
    pub manager: &'a str,
    /// ISO 3166-2 region.
    pub region: &'a str,
    /// Dealer who looks after it.
    pub dealer: &'a str,
    /// Tags.
    pub tags: &'a [&'a str],
    /// Address of its card.
    pub url: &'a str,
}

/// Why a contact has no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// [`MAX_CONTACTS`], or 4 GiB of text.
    #[error("there are too many contacts")]
    Contacts,
    /// 65,535 different categories, managers, regions and dealers together.
    #[error("there are too many different categories, managers, regions and dealers (65,535 together)")]
    Words,
    /// [`MAX_WORD`], [`MAX_URL`], [`MAX_NUMBERS`] or [`MAX_TAGS`].
    #[error("a text is too long, or there are too many numbers or tags")]
    Long,
}

/// A contact, looked at where it lies.
#[derive(Clone, Copy)]
pub struct Contact<'a> {
    contacts: &'a Contacts,
    row: usize,
}

impl Contacts {
    /// The contact with this number; of several, the one changed last.
    pub fn best(&self, number: E164) -> Option<Contact<'_>> {
        self.all(number).next()
    }

    /// All contacts with this number, the one changed last first; of those changed at once, the one put in last.
    pub fn all(&self, number: E164) -> impl Iterator<Item = Contact<'_>> {
        let bucket = bucket(number, self.starts.len() - 1);
        let entries = match self.starts.get(bucket..bucket + 2) {
            Some(&[from, until]) => &self.entries[from as usize..until as usize],
            _ => &[],
        };
        let found = entries.iter().filter(move |entry| { entry.number } == number);
        found.map(|entry| Contact { contacts: self, row: entry.row as usize })
    }

    /// All contacts, in the order in which they were put in.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Contact<'_>> {
        (0..self.len()).map(|row| Contact { contacts: self, row })
    }

    /// The contact in this place of [`Contacts::iter`]. Panics if there is none.
    pub fn get(&self, row: u32) -> Contact<'_> {
        assert!((row as usize) < self.len(), "there is no contact in place {row}");
        Contact { contacts: self, row: row as usize }
    }

    /// How many contacts.
    pub fn len(&self) -> usize {
        self.rows.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory, all told.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rows)
            + size_of_val(&*self.starts)
            + size_of_val(&*self.entries)
            + size_of_val(&*self.numbers)
            + self.text.len()
            + [&self.words, &self.sites, &self.tags].iter().map(|pool| pool.bytes()).sum::<usize>()
    }
}

impl Default for Contacts {
    /// None.
    fn default() -> Contacts {
        Builder::default().build()
    }
}

impl fmt::Debug for Contacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contacts({})", self.len())
    }
}

impl<'a> Contact<'a> {
    /// Its place in [`Contacts::iter`].
    pub fn place(&self) -> u32 {
        self.row as u32
    }

    /// Its key in the store.
    pub fn id(&self) -> ContactId {
        self.row().id
    }

    /// When it was last changed.
    pub fn changed(&self) -> Wall {
        self.row().changed
    }

    /// Name.
    pub fn name(&self) -> Option<&'a str> {
        some(self.texts().0)
    }

    /// Category. A caller without one, or in no directory, is `unknown`.
    pub fn category(&self) -> Option<&'a str> {
        some(self.contacts.words.get(self.row().category.into()))
    }

    /// Number of its manager's extension.
    pub fn manager(&self) -> Option<&'a str> {
        some(self.contacts.words.get(self.row().manager.into()))
    }

    /// ISO 3166-2 region.
    pub fn region(&self) -> Option<&'a str> {
        some(self.contacts.words.get(self.row().region.into()))
    }

    /// Dealer who looks after it.
    pub fn dealer(&self) -> Option<&'a str> {
        some(self.contacts.words.get(self.row().dealer.into()))
    }

    /// Tags.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.contacts.tags.get(self.row().tags).split(TAG_END).filter(|tag| !tag.is_empty())
    }

    /// Address of its card, put together on demand.
    pub fn url(&self) -> Option<String> {
        let (site, rest) = (self.contacts.sites.get(self.row().site.into()), self.texts().1);
        (!site.is_empty() || !rest.is_empty()).then(|| [site, rest].concat())
    }

    /// Its numbers, in the order in which they were given.
    pub fn numbers(&self) -> impl ExactSizeIterator<Item = E164> + use<'a> {
        let contacts = self.contacts;
        let (from, until) = (self.row().numbers as usize, self.next().numbers as usize);
        contacts.numbers[from..until].iter().map(|&at| contacts.entries[at as usize].number)
    }

    fn row(&self) -> &'a Row {
        &self.contacts.rows[self.row]
    }

    fn next(&self) -> &'a Row {
        &self.contacts.rows[self.row + 1]
    }

    fn texts(&self) -> (&'a str, &'a str) {
        let row = self.row();
        let text = &self.contacts.text[row.text as usize..self.next().text as usize];
        text.split_at(row.name.into())
    }
}

impl fmt::Debug for Contact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Contact");
        f.field("id", &self.id().0).field("numbers", &self.numbers().collect::<Vec<_>>()).field("name", &self.name());
        f.finish_non_exhaustive()
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

/// Takes contacts one by one and makes the index of them.
#[derive(Default)]
pub struct Builder {
    rows: Vec<Row>,
    text: String,
    words: Pool,
    sites: Pool,
    tags: Pool,
    /// Row by row.
    numbers: Vec<E164>,
    /// Room for joining tags.
    joined: String,
}

impl Builder {
    /// Puts a contact in. A number that it names twice counts once.
    pub fn push(&mut self, new: &NewContact<'_>) -> Result<(), Full> {
        let words = [new.name, new.category, new.manager, new.region, new.dealer];
        let long = words.iter().chain(new.tags).any(|w| w.len() > MAX_WORD) || new.url.len() > MAX_URL;
        if long || new.numbers.len() > MAX_NUMBERS || new.tags.len() > MAX_TAGS {
            return Err(Full::Long);
        }
        let place = |at: usize| u32::try_from(at).map_err(|_| Full::Contacts);
        let mut row = self.end()?;
        place(self.text.len() + new.name.len() + new.url.len())?;
        place(self.numbers.len() + new.numbers.len())?;
        if self.rows.len() >= MAX_CONTACTS {
            return Err(Full::Contacts);
        }
        let mut word = |text| self.words.put(text, u16::MAX.into()).map(|at| at as u16).ok_or(Full::Words);
        (row.category, row.manager) = (word(new.category)?, word(new.manager)?);
        (row.region, row.dealer) = (word(new.region)?, word(new.dealer)?);
        let (site, rest) = new.url.split_at(new.url.rfind(['/', '=']).map_or(0, |at| at + 1));
        // Addresses that have no beginning in common are kept whole.
        let kept = self.sites.put(site, u16::MAX.into());
        row.site = kept.unwrap_or(0) as u16;
        self.joined.clear();
        for (i, tag) in new.tags.iter().enumerate() {
            self.joined.extend((i > 0).then_some(TAG_END));
            self.joined.push_str(tag);
        }
        row.tags = self.tags.put(&self.joined, u32::MAX).ok_or(Full::Contacts)?;
        (row.id, row.changed, row.name) = (new.id, new.changed, new.name.len() as u16);
        self.text.push_str(new.name);
        self.text.push_str(if kept.is_some() { rest } else { new.url });
        for (i, number) in new.numbers.iter().enumerate() {
            if !new.numbers[..i].contains(number) {
                self.numbers.push(*number);
            }
        }
        self.rows.push(row);
        Ok(())
    }

    /// How many were put in.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none was put in.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The index. For a million contacts it takes some tenths of a second: not for a thread that somebody waits for.
    pub fn build(mut self) -> Contacts {
        let end = self.end().expect("push keeps to what 32 bits hold");
        self.rows.push(end);
        let (rows, numbers) = (self.rows.into_boxed_slice(), self.numbers);
        // Where each bucket begins: how many come before it.
        let buckets = numbers.len();
        let mut starts = vec![0u32; buckets + 1];
        numbers.iter().for_each(|n| starts[bucket(*n, buckets) + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut order: Vec<u32> = (0..rows.len() as u32 - 1).collect();
        order.sort_by_key(|&row| rows[row as usize].changed);
        let mut free: Vec<u32> = starts.clone();
        let mut entries: Vec<Entry> = numbers.iter().map(|&number| Entry { number, row: 0 }).collect();
        let mut places = vec![0u32; numbers.len()];
        for &row in order.iter().rev() {
            for i in rows[row as usize].numbers..rows[row as usize + 1].numbers {
                let number = numbers[i as usize];
                let place = &mut free[bucket(number, buckets)];
                entries[*place as usize] = Entry { number, row };
                places[i as usize] = *place;
                *place += 1;
            }
        }
        Contacts {
            rows,
            text: self.text.into_boxed_str(),
            words: self.words.closed(),
            sites: self.sites.closed(),
            tags: self.tags.closed(),
            starts: starts.into_boxed_slice(),
            entries: entries.into_boxed_slice(),
            numbers: places.into_boxed_slice(),
        }
    }

    /// A row that begins where the last one ends.
    fn end(&self) -> Result<Row, Full> {
        let place = |at: usize| u32::try_from(at).map_err(|_| Full::Contacts);
        Ok(Row {
            changed: Wall::default(),
            id: ContactId(0),
            text: place(self.text.len())?,
            numbers: place(self.numbers.len())?,
            tags: 0,
            name: 0,
            site: 0,
            category: 0,
            manager: 0,
            region: 0,
            dealer: 0,
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Builder({})", self.rows.len())
    }
}

/// Texts that are kept once each and named by their place; place 0 is the empty one.
#[derive(Default)]
struct Pool {
    text: String,
    ends: Vec<u32>,
    /// Places by text, while texts are put in.
    places: HashTable<u32>,
}

impl Pool {
    fn get(&self, place: u32) -> &str {
        text_at(&self.text, &self.ends, place)
    }

    /// The place of a text; none if it were beyond `limit`.
    fn put(&mut self, text: &str, limit: u32) -> Option<u32> {
        if text.is_empty() {
            return Some(0);
        }
        let Pool { text: all, ends, places } = self;
        let hash = HASH.hash_one(text);
        if let Some(&place) = places.find(hash, |&place| text_at(all, ends, place) == text) {
            return Some(place);
        }
        let place = u32::try_from(ends.len() + 1).ok().filter(|place| *place <= limit)?;
        let end = u32::try_from(all.len() + text.len()).ok()?;
        all.push_str(text);
        ends.push(end);
        places.insert_unique(hash, place, |&place| HASH.hash_one(text_at(all, ends, place)));
        Some(place)
    }

    fn closed(mut self) -> Pool {
        self.places = HashTable::new();
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self
    }

    fn bytes(&self) -> usize {
        self.text.capacity() + size_of::<u32>() * self.ends.capacity()
    }
}

fn text_at<'a>(text: &'a str, ends: &[u32], place: u32) -> &'a str {
    let Some(last) = (place as usize).checked_sub(1) else { return "" };
    let from = last.checked_sub(1).map_or(0, |before| ends[before] as usize);
    &text[from..ends[last] as usize]
}

/// The same in every run, as all hashing of what the operator gave.
const HASH: RandomState = RandomState::with_seeds(0x5354_524f_5747_4552, 4, 5, 6);

/// Spreads numbers over buckets by the upper bits of their hash.
fn bucket(number: E164, buckets: usize) -> usize {
    ((u128::from(HASH.hash_one(number)) * buckets as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(n: u64) -> E164 {
        E164::from_digits(&(79_000_000_000 + n).to_string()).expect("a number")
    }

    fn put(builder: &mut Builder, name: &str, changed: i64, numbers: &[u64]) {
        let numbers: Vec<E164> = numbers.iter().map(|n| number(*n)).collect();
        let changed = Wall::from_micros(changed);
        builder.push(&NewContact { name, changed, numbers: &numbers, ..NewContact::default() }).expect("there is room");
    }

    fn names(contacts: &Contacts, n: u64) -> Vec<&str> {
        contacts.all(number(n)).filter_map(|c| c.name()).collect()
    }

    #[test]
    fn the_one_changed_last_decides() {
        let mut builder = Builder::default();
        put(&mut builder, "old", 10, &[1, 2]);
        put(&mut builder, "new", 30, &[1]);
        put(&mut builder, "middle", 20, &[1, 3, 1]);
        put(&mut builder, "as new", 30, &[1]);
        let contacts = builder.build();
        assert_eq!(names(&contacts, 1), ["as new", "new", "middle", "old"]);
        assert_eq!(contacts.best(number(1)).and_then(|c| c.name()), Some("as new"));
        assert_eq!(names(&contacts, 2), ["old"]);
        assert_eq!(names(&contacts, 4), [""; 0]);
        let middle = contacts.best(number(3)).expect("it was put in");
        assert_eq!(middle.numbers().collect::<Vec<_>>(), [number(1), number(3)]);
        assert!(Contacts::default().best(number(1)).is_none() && Contacts::default().is_empty());
    }

    #[test]
    fn a_contact_reads_as_it_was_given() {
        let mut builder = Builder::default();
        let (numbers, tags) = ([number(5)], ["vip", "долг"]);
        let url = "https://crm.example/c?id=17";
        let one = NewContact {
            id: ContactId(7),
            changed: Wall::from_micros(-3),
            numbers: &numbers,
            name: "ООО «Ромашка»",
            category: "supplier",
            manager: "121",
            region: "RU-NVS",
            dealer: "altai",
            tags: &tags,
            url,
        };
        builder.push(&one).expect("there is room");
        builder.push(&NewContact { numbers: &numbers, ..NewContact::default() }).expect("there is room");
        let contacts = builder.build();
        let (bare, full) = (contacts.best(number(5)), contacts.all(number(5)).last());
        // -3 is before 0.
        let (bare, full) = (bare.expect("two were put in"), full.expect("two were put in"));
        assert_eq!((full.id(), full.changed()), (one.id, one.changed));
        let words = [full.name(), full.category(), full.manager(), full.region(), full.dealer()];
        assert_eq!(words, [one.name, one.category, one.manager, one.region, one.dealer].map(Some));
        assert_eq!((full.tags().collect::<Vec<_>>(), full.url().as_deref()), (tags.to_vec(), Some(url)));
        assert_eq!((bare.name(), bare.category(), bare.url(), bare.tags().next()), (None, None, None, None));
    }

    #[test]
    fn limits_hold() {
        let mut builder = Builder::default();
        let long = "x".repeat(MAX_WORD + 1);
        assert_eq!(builder.push(&NewContact { name: &long, ..NewContact::default() }), Err(Full::Long));
        let mut full = None;
        for i in 0..=u32::from(u16::MAX) {
            let (category, url) = (i.to_string(), format!("https://{i}.example/{i}"));
            let new = NewContact { category: &category, url: &url, ..NewContact::default() };
            full = builder.push(&new).err().map(|why| (i, why)).or(full);
        }
        assert_eq!(full, Some((65_535, Full::Words)));
        let contacts = builder.build();
        let last = contacts.iter().last().expect("many were put in");
        assert_eq!(last.url().as_deref(), Some("https://65534.example/65534"));
    }

    proptest! {
        #[test]
        fn every_number_finds_its_contacts(list in prop::collection::vec(
            (0i64..5, prop::collection::vec(0u64..40, 0..4)), 0..60))
        {
            let mut builder = Builder::default();
            for (i, (changed, numbers)) in list.iter().enumerate() {
                put(&mut builder, &i.to_string(), *changed, numbers);
            }
            let contacts = builder.build();
            for n in 0..40 {
                let mut expected: Vec<(i64, usize)> =
                    list.iter().enumerate().filter(|(_, c)| c.1.contains(&n)).map(|(i, c)| (c.0, i)).collect();
                expected.sort();
                let expected: Vec<String> = expected.iter().rev().map(|(_, i)| i.to_string()).collect();
                prop_assert_eq!(names(&contacts, n), expected);
            }
        }
    }
}
