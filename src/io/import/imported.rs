//! Imported lists on disk: a SQLite database beside that of the call records. It is a file of its own because an import
//! writes a million rows in one transaction: whoever reads sees all of it or nothing, and the writer of call records never
//! waits for it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::What;
use super::numbering::Range;
use crate::base::Wall;
use crate::directory::calendar::Year;
use crate::directory::contacts::{Builder, ContactId, Contacts, NewContact};
use crate::directory::numbering::{Draft, Ranges};
use crate::directory::spelling::Spelled;
use crate::directory::{Country, Directory, E164, Region};
use crate::io::store::StoreError;
use crate::io::store::sqlite::migrate;

/// How long an import waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Separates numbers, and tags, of a contact.
pub(super) const SEPARATOR: char = ';';

/// Each brings the schema one version further; never edited once released.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE imported (
        what     TEXT PRIMARY KEY,
        at       INTEGER NOT NULL,      -- microseconds since 1970
        entries  INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE contact (
        id       INTEGER PRIMARY KEY,
        changed  INTEGER NOT NULL,      -- microseconds since 1970
        numbers  TEXT NOT NULL,         -- digits of E.164, separated by ;
        name     TEXT NOT NULL,         -- '' is none, here and below
        category TEXT NOT NULL,
        manager  TEXT NOT NULL,
        region   TEXT NOT NULL,
        dealer   TEXT NOT NULL,
        tags     TEXT NOT NULL,         -- separated by ;
        url      TEXT NOT NULL
    );
",
    "
    CREATE TABLE numbering (
        first    INTEGER NOT NULL,      -- digits of E.164
        last     INTEGER NOT NULL,
        country  TEXT NOT NULL,         -- ISO 3166-1
        regions  TEXT NOT NULL,         -- ISO 3166-2, separated by a space
        city     TEXT NOT NULL,         -- '' is none
        PRIMARY KEY (first, last)
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE calendar (
        year     INTEGER PRIMARY KEY,
        text     TEXT NOT NULL          -- the file as it was
    );
",
];

/// Everything that was imported, as a call needs it.
#[derive(Clone, Default, Debug)]
pub struct Lists {
    /// Contacts.
    pub contacts: Arc<Contacts>,
    /// The numbering plan, over that of the configuration's files; none if no plan was ever imported.
    pub numbering: Option<Arc<Ranges>>,
    /// Production calendars.
    pub years: Arc<[Year]>,
}

impl Lists {
    /// Puts them into a directory.
    pub fn put_into(&self, directory: &mut Directory) {
        directory.contacts = self.contacts.clone();
        directory.numbering = Arc::new(directory.numbering.with_imported(self.numbering.clone()));
        for calendar in directory.calendars.iter_mut().filter(|calendar| calendar.follows) {
            calendar.imported = self.years.clone();
        }
        directory.years = self.years.clone();
    }

    /// Those of a directory.
    pub fn of(directory: &Directory) -> Lists {
        Lists {
            contacts: directory.contacts.clone(),
            numbering: directory.numbering.imported().cloned(),
            years: directory.years.clone(),
        }
    }
}

/// Reads everything; where nothing was ever imported, there is nothing. Takes a second for a million rows.
pub fn load(path: &Path) -> Result<Lists, StoreError> {
    let Some(imported) = Imported::look(path)? else { return Ok(Lists::default()) };
    let mut draft = Draft::default();
    let mut skipped = 0u64;
    for range in imported.ranges()? {
        // Only what another program wrote into the file can be none.
        skipped += u64::from(draft.add(range.first, range.last, &range.place).is_err());
    }
    if skipped > 0 {
        tracing::warn!(skipped, "ranges of numbers that are none are left out");
    }
    let ranges = draft.finish();
    let numbering = (!ranges.is_empty()).then(|| Arc::new(ranges));
    let years = imported.years()?;
    // Only what another program wrote into the file is no calendar.
    let years = years.iter().filter_map(|(year, text)| {
        Year::read(text).inspect_err(|why| tracing::warn!(year, "an imported calendar is left out: it {why}")).ok()
    });
    Ok(Lists { contacts: Arc::new(imported.contacts()?), numbering, years: years.collect() })
}

/// The database.
#[derive(Debug)]
pub struct Imported {
    db: Connection,
}

impl Imported {
    /// Opens it for an import, creates it if need be, and keeps other imports out until [`Imported::commit`].
    pub fn open(path: &Path) -> Result<Imported, StoreError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        // Root imports for a server that runs as another user, and must make no file where that one pleases.
        if fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink()) {
            return Err(StoreError::Broken("it is a symbolic link, which is not followed".to_owned()));
        }
        let created = !path.exists();
        fs::create_dir_all(folder).map_err(|e| StoreError::Broken(e.to_string()))?;
        let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut db = Connection::open_with_flags(path, flags)?;
        if created {
            like_its_folder(path, folder);
        }
        db.busy_timeout(LOCK_WAIT)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        // Who was told that it is done may pull the plug.
        db.pragma_update(None, "synchronous", "full")?;
        db.pragma_update(None, "journal_size_limit", 1 << 20)?;
        db.set_prepared_statement_cache_capacity(32);
        migrate(&mut db, path, MIGRATIONS)?;
        db.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Imported { db })
    }

    /// Opens it for reading; none if nothing was ever imported.
    pub fn look(path: &Path) -> Result<Option<Imported>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(LOCK_WAIT)?;
        Ok(Some(Imported { db }))
    }

    /// All contacts.
    pub fn contacts(&self) -> Result<Contacts, StoreError> {
        let mut builder = Builder::default();
        let mut statement = self.db.prepare(
            "SELECT id, changed, numbers, name, category, manager, region, dealer, tags, url FROM contact ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        let (mut numbers, mut skipped) = (Vec::new(), 0u64);
        while let Some(row) = rows.next()? {
            let text = |column| row.get_ref(column)?.as_str().map_err(|e| StoreError::Broken(e.to_string()));
            numbers.clear();
            numbers.extend(text(2)?.split(SEPARATOR).filter_map(|n| E164::from_digits(n).ok()));
            let tags: Vec<&str> = text(8)?.split(SEPARATOR).filter(|tag| !tag.is_empty()).collect();
            let contact = NewContact {
                id: ContactId(row.get(0)?),
                changed: Wall::from_micros(row.get(1)?),
                numbers: &numbers,
                name: text(3)?,
                category: text(4)?,
                manager: text(5)?,
                region: text(6)?,
                dealer: text(7)?,
                tags: &tags,
                url: text(9)?,
            };
            // Only what another program wrote into the file can be too long.
            skipped += u64::from(builder.push(&contact).is_err());
        }
        if skipped > 0 {
            tracing::warn!(skipped, "contacts that find no room are left out");
        }
        Ok(builder.build())
    }

    /// The categories that contacts have.
    pub fn categories(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.db.prepare("SELECT DISTINCT category FROM contact WHERE category <> '' ORDER BY 1")?;
        let categories = statement.query_map([], |row| row.get(0))?;
        Ok(categories.collect::<Result<_, _>>()?)
    }

    /// The numbering plan, in the order of its ranges: wider ones before the narrower that begin with the same number.
    pub fn ranges(&self) -> Result<Vec<Range>, StoreError> {
        if !self.has("numbering")? {
            return Ok(Vec::new());
        }
        let mut statement =
            self.db.prepare("SELECT first, last, country, regions, city FROM numbering ORDER BY first, last DESC")?;
        let mut rows = statement.query([])?;
        let mut ranges = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |column| row.get_ref(column)?.as_str().map_err(|e| StoreError::Broken(e.to_string()));
            let number = |column| Ok::<_, StoreError>(E164::from_digits(&row.get::<_, i64>(column)?.to_string()).ok());
            let (Some(first), Some(last)) = (number(0)?, number(1)?) else { continue };
            let place = Spelled {
                country: Country::parse(text(2)?).unwrap_or(Country::RU),
                regions: text(3)?.split_whitespace().filter_map(Region::parse).collect(),
                city: Some(text(4)?).filter(|city| !city.is_empty()).map(str::to_owned),
            };
            ranges.push(Range { first, last, place });
        }
        Ok(ranges)
    }

    /// Whether there is such a table: a database that was made before there were any, and is only read, has none.
    fn has(&self, table: &str) -> Result<bool, StoreError> {
        let there = "SELECT count(*) FROM sqlite_schema WHERE name = ?1";
        Ok(self.db.query_row(there, [table], |row| row.get::<_, i64>(0))? > 0)
    }

    /// Production calendars: the year, and the file's text.
    pub fn years(&self) -> Result<Vec<(i16, String)>, StoreError> {
        if !self.has("calendar")? {
            return Ok(Vec::new());
        }
        let mut statement = self.db.prepare("SELECT year, text FROM calendar ORDER BY year")?;
        let years = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(years.collect::<Result<_, _>>()?)
    }

    /// Puts the production calendar of a year in, in the place of the one that is there.
    pub fn put_year(&self, year: i16, text: &str) -> Result<(), StoreError> {
        self.db.execute("INSERT OR REPLACE INTO calendar VALUES (?1, ?2)", params![year, text])?;
        Ok(())
    }

    /// Puts a numbering plan in the place of the one that is there. `tell` hears how many ranges are written.
    pub fn put_ranges(&self, ranges: &[Range], tell: impl Fn(u64)) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM numbering", [])?;
        let mut insert = self.db.prepare("INSERT OR REPLACE INTO numbering VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (range, done) in ranges.iter().zip(1..) {
            let Range { first, last, place } = range;
            let number = |n: &E164| i64::try_from(n.value()).unwrap_or(i64::MAX);
            let regions = place.regions.iter().map(|r| r.code()).collect::<Vec<_>>().join(" ");
            let city = place.city.as_deref().unwrap_or_default();
            insert.execute(params![number(first), number(last), place.country.code(), regions, city])?;
            tell(done);
        }
        Ok(())
    }

    /// Takes contacts out.
    pub fn remove_contacts(&self, gone: impl Iterator<Item = ContactId>) -> Result<(), StoreError> {
        let mut statement = self.db.prepare_cached("DELETE FROM contact WHERE id = ?1")?;
        for id in gone {
            statement.execute([id.0])?;
        }
        Ok(())
    }

    /// Puts a contact in, in the place of the one with its id.
    pub fn put_contact(&self, contact: &NewContact<'_>, room: &mut String) -> Result<(), StoreError> {
        room.clear();
        let mut separate = "";
        for number in contact.numbers {
            room.push_str(separate);
            // Its digits: the + goes without saying.
            room.push_str(&number.digits());
            separate = ";";
        }
        let tags = contact.tags.join(";");
        let c = contact;
        self.db
            .prepare_cached("INSERT OR REPLACE INTO contact VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
            .execute(params![
                c.id.0,
                c.changed.micros(),
                &**room,
                c.name,
                c.category,
                c.manager,
                c.region,
                c.dealer,
                tags,
                c.url
            ])?;
        Ok(())
    }

    /// The greatest id of a contact; 0 if there is none.
    pub fn last_contact(&self) -> Result<u32, StoreError> {
        Ok(self.db.query_row("SELECT coalesce(max(id), 0) FROM contact", [], |row| row.get(0))?)
    }

    /// Notes the import and makes it count.
    pub fn commit(self, what: What, at: Wall, entries: u64) -> Result<(), StoreError> {
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        self.db.execute(
            "INSERT OR REPLACE INTO imported VALUES (?1, ?2, ?3)",
            params![what.name(), at.micros(), entries],
        )?;
        self.db.execute_batch("COMMIT")?;
        Ok(())
    }
}

/// Gives a file to the user to whom its folder belongs: root may import for a server that runs as another user.
fn like_its_folder(path: &Path, folder: &Path) {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    let Ok(owner) = fs::metadata(folder) else { return };
    // Not root: the file is ours, and so is the folder, or it could not have been made.
    lchown(path, Some(owner.uid()), Some(owner.gid())).ok();
}
