//! Contacts from a table: which columns there may be, what a row must have, and what an import changes.
//!
//! The files together are the whole directory: who stands in none of them is taken out. A contact that stays as it is keeps
//! the time of its last change, by which one of several with a number is chosen. A row is the contact of before if all of it
//! is the same; else the one that has a number in common with it, and better also the name.

use std::path::Path;

use hashbrown::HashTable;

use super::imported::{Imported, SEPARATOR};
use super::rejects::Rejects;
use super::table::Table;
use super::{Changes, ImportError, Job, Outcome};
use crate::base::{Map, map};
use crate::directory::contacts::{
    Builder, Contact, ContactId, Contacts, MAX_NUMBERS, MAX_TAGS, MAX_URL, MAX_WORD, NewContact,
};
use crate::directory::{Directory, E164, Region};

/// Contacts that may share a number; beyond that it is a placeholder.
const MAX_SHARED: u16 = 1000;
/// Bytes or contacts after which the one who watches is told.
const TELL: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Number,
    Name,
    Category,
    Manager,
    Region,
    Dealer,
    Tags,
    Url,
}

/// Columns and their names. The first of each is the one of the documentation.
#[rustfmt::skip]
const COLUMNS: &[(Column, &[&str])] = &[
    (Column::Number, &["number", "numbers", "phone", "phones", "tel", "telephone", "mobile", "phone number", "телефон", "телефоны",
        "номер", "номера", "номер телефона", "тел", "мобильный", "мобильный телефон", "рабочий телефон", "сотовый"]),
    (Column::Name, &["name", "full name", "contact", "company", "customer", "имя", "название", "наименование", "фио", "клиент",
        "контакт", "контрагент", "компания", "организация"]),
    (Column::Category, &["category", "group", "segment", "категория", "группа", "сегмент", "тип"]),
    (Column::Manager, &["manager", "responsible", "owner", "менеджер", "ответственный", "ответственный менеджер"]),
    (Column::Region, &["region", "регион", "область"]),
    (Column::Dealer, &["dealer", "partner", "дилер", "партнёр"]),
    (Column::Tags, &["tags", "tag", "теги", "тег", "метки", "метка"]),
    (Column::Url, &["url", "link", "card", "card url", "ссылка", "карточка", "адрес карточки"]),
];

/// Reads the files, compares, and unless it is a dry run, writes.
pub fn import(job: &mut Job<'_>) -> Result<Outcome, ImportError> {
    let mut outcome = Outcome::showing(job.shown);
    let new = read(job, &mut outcome)?;
    if new.is_empty() {
        return Err(ImportError::Nothing);
    }
    let path = job.database;
    let store = |error| ImportError::Store { path: path.to_owned(), error };
    // The lock before the look: nobody else changes what is compared with.
    let database = match job.dry_run {
        true => Imported::look(path).map_err(store)?,
        false => Some(Imported::open(path).map_err(store)?),
    };
    job.progress.stage("comparing", 0);
    let old = database.as_ref().map_or(Ok(Contacts::default()), Imported::contacts).map_err(store)?;
    let matches = Matches::of(&old, &new);
    matches.tell(&old, &new, &mut outcome);
    let Some(database) = database.filter(|_| !job.dry_run) else { return Ok(outcome) };
    job.progress.stage("writing", outcome.new.count + outcome.changed.count);
    database.remove_contacts(matches.gone(&old)).map_err(store)?;
    let mut next = database.last_contact().map_err(store)?;
    let (mut room, mut done) = (String::new(), 0);
    for (contact, fate) in new.iter().zip(&matches.fates) {
        let id = match *fate {
            Fate::Same(_) => continue,
            Fate::Changed(row) => old.get(row).id(),
            Fate::New => {
                next += 1;
                ContactId(next)
            }
        };
        let numbers: Vec<E164> = contact.numbers().collect();
        let tags: Vec<&str> = contact.tags().collect();
        let url = contact.url().unwrap_or_default();
        let put = NewContact { id, changed: job.now, ..plain(&contact, &numbers, &tags, &url) };
        database.put_contact(&put, &mut room).map_err(store)?;
        done += 1;
        if done % TELL == 0 {
            job.progress.at(done);
        }
    }
    database.commit(super::What::Contacts, job.now, new.len() as u64).map_err(store)?;
    Ok(outcome)
}

/// All files as contacts, without ids and times.
fn read(job: &mut Job<'_>, outcome: &mut Outcome) -> Result<Contacts, ImportError> {
    let mut reading = Reading { builder: Builder::default(), directory: job.directory, shared: map(), seen: map() };
    for path in job.files {
        let table = Table::read(path)?;
        let (columns, unknown) = table.columns(COLUMNS);
        if !columns.contains(&Some(Column::Number)) {
            let heads = table.heads().join(", ");
            return Err(table
                .wrong(format!("has no column `number`; its first line must name the columns, and it is: {heads}")));
        }
        if !unknown.is_empty() {
            outcome.notes.push(format!("{}: columns not used: {}", path.display(), unknown.join(", ")));
        }
        job.progress.stage("reading", table.size());
        let mut rows = table.rows();
        let mut draft = Draft::default();
        loop {
            let done = rows.done();
            let Some(row) = rows.next_row() else { break };
            outcome.rows += 1;
            if outcome.rows.is_multiple_of(TELL) {
                job.progress.at(done);
            }
            match row {
                Err((line, why)) => job.rejects.reject(path, line, why, "")?,
                Ok((line, cells)) => {
                    draft.clear();
                    for (cell, column) in cells.iter().zip(&columns) {
                        if let Some(column) = column {
                            draft.take(*column, cell);
                        }
                    }
                    reading.row(&mut draft, path, line, job.rejects)?;
                }
            }
        }
    }
    Ok(reading.builder.build())
}

/// A row on its way.
#[derive(Default, Debug)]
struct Draft {
    /// The number cells as they stand.
    raw: String,
    numbers: Vec<E164>,
    name: String,
    category: String,
    manager: String,
    region: String,
    dealer: String,
    tags: String,
    url: String,
}

impl Draft {
    fn clear(&mut self) {
        self.raw.clear();
        self.numbers.clear();
        let texts = [&mut self.name, &mut self.category, &mut self.manager, &mut self.region, &mut self.dealer];
        texts.into_iter().chain([&mut self.tags, &mut self.url]).for_each(String::clear);
    }

    /// Takes a cell. Of several columns of one meaning the first that says something counts, but all numbers.
    fn take(&mut self, column: Column, cell: &str) {
        let cell = cell.trim();
        // A spreadsheet's mark for text, also in what we write ourselves.
        let cell = cell.strip_prefix('\'').filter(|rest| rest.starts_with(['=', '+', '-', '@'])).unwrap_or(cell);
        if cell.is_empty() {
            return;
        }
        let text = match column {
            Column::Number => {
                if !self.raw.is_empty() {
                    self.raw.push(SEPARATOR);
                }
                return self.raw.push_str(cell);
            }
            Column::Name => &mut self.name,
            Column::Category => &mut self.category,
            Column::Manager => &mut self.manager,
            Column::Region => &mut self.region,
            Column::Dealer => &mut self.dealer,
            Column::Tags => &mut self.tags,
            Column::Url => &mut self.url,
        };
        if text.is_empty() {
            clean(cell, text);
        }
    }
}

struct Reading<'a> {
    builder: Builder,
    directory: &'a Directory,
    /// How many contacts a number has so far.
    shared: Map<E164, u16>,
    /// Which extensions there are, as managers name them.
    seen: Map<String, bool>,
}

impl Reading<'_> {
    /// Takes a row, or says why not.
    fn row(&mut self, draft: &mut Draft, file: &Path, line: u64, rejects: &mut Rejects) -> Result<(), ImportError> {
        let country = self.directory.node.country;
        let raw = std::mem::take(&mut draft.raw);
        let mut odd = None;
        for part in raw.split([SEPARATOR, '|', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
            match E164::read(part, country) {
                Some(number) => draft.numbers.push(number),
                // Only where the whole is no number: `8 (343) 300-00-01, доб. 12` may be one.
                None => {
                    for part in part.split([',', '/']).map(str::trim) {
                        match E164::read(part, country) {
                            Some(number) => draft.numbers.push(number),
                            None => odd = Some(part.to_owned()),
                        }
                    }
                }
            }
        }
        let mut reasons: Vec<String> = Vec::new();
        let shared = &mut self.shared;
        draft.numbers.retain(|number| {
            let count = shared.entry(*number).or_insert(0);
            *count += u16::from(*count <= MAX_SHARED);
            let room = *count <= MAX_SHARED;
            if !room {
                reasons.push(format!("{number} is already that of {MAX_SHARED} contacts: a placeholder?"));
            }
            room
        });
        if let Some(odd) = odd {
            reasons.push(match raw.contains("E+") {
                true => {
                    format!("\"{odd}\" is no telephone number: a spreadsheet has rounded it, format the column as text")
                }
                false => format!("\"{odd}\" is no telephone number"),
            });
        }
        if draft.numbers.len() > MAX_NUMBERS {
            draft.numbers.truncate(MAX_NUMBERS);
            reasons.push(format!("only the first {MAX_NUMBERS} numbers are kept"));
        }
        draft.raw = raw;
        if draft.numbers.is_empty() {
            let why = if reasons.is_empty() { "has no number".to_owned() } else { reasons.join("; ") };
            return rejects.reject(file, line, &why, &draft.raw);
        }
        self.check(draft, &mut reasons);
        let mut tags: Vec<&str> = draft.tags.split([SEPARATOR, ',', '|']).map(str::trim).collect();
        tags.retain(|tag| !tag.is_empty());
        if tags.len() > MAX_TAGS {
            tags.truncate(MAX_TAGS);
            reasons.push(format!("only the first {MAX_TAGS} tags are kept"));
        }
        let new = NewContact {
            numbers: &draft.numbers,
            name: &draft.name,
            category: &draft.category,
            manager: &draft.manager,
            region: &draft.region,
            dealer: &draft.dealer,
            tags: &tags,
            url: &draft.url,
            ..NewContact::default()
        };
        if let Err(full) = self.builder.push(&new) {
            return rejects.reject(file, line, &full.to_string(), &draft.raw);
        }
        if !reasons.is_empty() {
            rejects.trim(file, line, &reasons.join("; "), &draft.raw)?;
        }
        Ok(())
    }

    /// Leaves out what a contact can do without, and says so.
    fn check(&mut self, draft: &mut Draft, reasons: &mut Vec<String>) {
        if !draft.manager.is_empty() {
            let directory = self.directory;
            let known = match self.seen.get(&draft.manager) {
                Some(known) => *known,
                None => {
                    let known = directory.extension(&draft.manager).is_some();
                    self.seen.insert(draft.manager.clone(), known);
                    known
                }
            };
            if !known {
                reasons.push(format!("there is no extension {}: kept without a manager", draft.manager));
                draft.manager.clear();
            }
        }
        if !draft.region.is_empty() {
            let region = Region::read(&draft.region);
            let code = region.map_or("", Region::code);
            if region.is_none() {
                reasons.push(format!("\"{}\" is no region by ISO 3166-2: kept without", draft.region));
            }
            draft.region.clear();
            draft.region.push_str(code);
        }
        let web = |url: &str| {
            let scheme = |s: &str| url.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s));
            (scheme("http://") || scheme("https://")) && !url.contains([' ', '"', '<', '>', '\\'])
        };
        if !draft.url.is_empty() && (draft.url.len() > MAX_URL || !web(&draft.url)) {
            reasons.push("its url is no http or https address: kept without".to_owned());
            draft.url.clear();
        }
        let texts = [&mut draft.name, &mut draft.category, &mut draft.region, &mut draft.dealer];
        for text in texts.into_iter().filter(|text| text.len() > MAX_WORD) {
            text.truncate(text.floor_char_boundary(MAX_WORD));
            reasons.push(format!("a text was cut to {MAX_WORD} bytes"));
        }
        if draft.tags.split([SEPARATOR, ',', '|']).any(|tag| tag.len() > MAX_WORD) {
            reasons.push("a tag is too long: kept without tags".to_owned());
            draft.tags.clear();
        }
    }
}

/// Takes a text without what steers terminals and turns the reading direction; a new line is a space.
fn clean(cell: &str, into: &mut String) {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    for c in cell.chars().filter(|c| !turns(*c)) {
        into.push(if c.is_control() { ' ' } else { c });
    }
    into.truncate(into.trim_end().len());
}

/// What becomes of a contact of the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    New,
    /// It is this row of before.
    Same(u32),
    /// It takes the place of this row.
    Changed(u32),
}

/// Which contacts of the files are which of before.
struct Matches {
    fates: Vec<Fate>,
    /// Rows of before that are some contact of the files.
    taken: Vec<bool>,
}

impl Matches {
    fn of(old: &Contacts, new: &Contacts) -> Matches {
        let hash = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let key = |c: &Contact<'_>| {
            let numbers = c.numbers().fold(0, |sum: u64, n| sum.rotate_left(5) ^ hash.hash_one(n));
            let tags = c.tags().fold(0, |sum: u64, tag| sum.rotate_left(5) ^ hash.hash_one(tag));
            hash.hash_one((words(c), numbers, tags, c.url()))
        };
        let mut rows: HashTable<(u64, u32)> = HashTable::with_capacity(old.len());
        for (row, contact) in (0..).zip(old.iter()) {
            let key = key(&contact);
            rows.insert_unique(key, (key, row), |(key, _)| *key);
        }
        let mut taken = vec![false; old.len()];
        let mut fates: Vec<Fate> = new
            .iter()
            .map(|contact| {
                let key = key(&contact);
                // Each row of before once: two equal contacts are two.
                match rows.find_entry(key, |(k, row)| *k == key && same(&old.get(*row), &contact)) {
                    Ok(found) => {
                        let ((_, row), _) = found.remove();
                        taken[row as usize] = true;
                        Fate::Same(row)
                    }
                    Err(_) => Fate::New,
                }
            })
            .collect();
        for (contact, fate) in new.iter().zip(&mut fates).filter(|(_, fate)| **fate == Fate::New) {
            let free = |c: &Contact<'_>| !taken[c.place() as usize];
            let mut shares = contact.numbers().flat_map(|n| old.all(n)).filter(free);
            let found = shares.next().map(|first| match first.name() == contact.name() {
                true => first,
                false => shares.find(|c| c.name() == contact.name()).unwrap_or(first),
            });
            if let Some(found) = found {
                taken[found.place() as usize] = true;
                *fate = Fate::Changed(found.place());
            }
        }
        Matches { fates, taken }
    }

    fn gone(&self, old: &Contacts) -> impl Iterator<Item = ContactId> {
        old.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(contact, _)| contact.id())
    }

    fn tell(&self, old: &Contacts, new: &Contacts, outcome: &mut Outcome) {
        for (contact, fate) in new.iter().zip(&self.fates) {
            match *fate {
                Fate::New => outcome.new.note(|| brief(&contact)),
                Fate::Changed(row) => outcome.changed.note(|| difference(&old.get(row), &contact)),
                Fate::Same(_) => outcome.unchanged += 1,
            }
        }
        let removed: &mut Changes = &mut outcome.removed;
        for (contact, _) in old.iter().zip(&self.taken).filter(|(_, taken)| !**taken) {
            removed.note(|| brief(&contact));
        }
    }
}

fn same(a: &Contact<'_>, b: &Contact<'_>) -> bool {
    words(a) == words(b) && a.numbers().eq(b.numbers()) && a.tags().eq(b.tags()) && a.url() == b.url()
}

fn words<'a>(c: &Contact<'a>) -> [Option<&'a str>; 5] {
    [c.name(), c.category(), c.manager(), c.region(), c.dealer()]
}

fn plain<'a>(c: &Contact<'a>, numbers: &'a [E164], tags: &'a [&'a str], url: &'a str) -> NewContact<'a> {
    NewContact {
        id: c.id(),
        changed: c.changed(),
        numbers,
        name: c.name().unwrap_or_default(),
        category: c.category().unwrap_or_default(),
        manager: c.manager().unwrap_or_default(),
        region: c.region().unwrap_or_default(),
        dealer: c.dealer().unwrap_or_default(),
        tags,
        url,
    }
}

/// `+79131234567 Anna`.
fn brief(c: &Contact<'_>) -> String {
    format!("{} {}", numbers(c), c.name().unwrap_or_default()).trim_end().to_owned()
}

fn numbers(c: &Contact<'_>) -> String {
    c.numbers().map(|n| n.to_string()).collect::<Vec<_>>().join(";")
}

/// `+79131234567 Anna: category regular -> supplier`.
fn difference(old: &Contact<'_>, new: &Contact<'_>) -> String {
    let fields = |c: &Contact<'_>| {
        let text = |t: Option<&str>| t.unwrap_or("none").to_owned();
        let tags = c.tags().collect::<Vec<_>>().join(";");
        [
            ("number", numbers(c)),
            ("name", text(c.name())),
            ("category", text(c.category())),
            ("manager", text(c.manager())),
            ("region", text(c.region())),
            ("dealer", text(c.dealer())),
            ("tags", text(Some(&*tags).filter(|t| !t.is_empty()))),
            ("url", text(c.url().as_deref())),
        ]
    };
    let (before, after) = (fields(old), fields(new));
    let changed = before.iter().zip(&after).filter(|(b, a)| b.1 != a.1);
    let changed: Vec<String> = changed.map(|((what, b), (_, a))| format!("{what} {b} -> {a}")).collect();
    format!("{}: {}", brief(old), changed.join(", "))
}
