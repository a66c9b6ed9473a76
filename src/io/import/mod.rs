//! Lists that are too long for the configuration and come from other programs: who calls from which number. They are read
//! from CSV, compared with what was there, and kept in a database of their own, from which a server takes them whole:
//! when it starts, and when it is told.
//!
//! ```text
//!  files --table--> rows --contacts--> what is new, changed, gone --imported--> directory.db
//!                    |                                                              | load
//!                    +--> rejects (file, line, reason)            Directory <-------+
//! ```
//!
//! To add a kind of list: a variant of [`What`] and its line in [`What::import`]; a file like [`contacts`] that reads its rows
//! and compares; in [`imported`] a migration, a field of `Lists`, and a line in each of `load` and `Lists::put_into`.

pub mod calendar;
pub mod contacts;
pub mod imported;
pub mod numbering;
pub mod rejects;
pub mod table;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::store::StoreError;
use crate::base::Wall;
use crate::directory::Directory;
use rejects::Rejects;

/// Changes of each kind that are shown unless all are wanted.
pub const EXAMPLES: usize = 5;

/// What can be imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum What {
    /// Who calls from which number: `number`, `name`, `category`, `manager`, `region`, `dealer`, `tags`, `url`.
    Contacts,
    /// Which number belongs to which region: the Russian registry's own files.
    Numbering,
    /// Which days are off: production calendars from xmlcalendar.ru, a file a year.
    Calendar,
}

impl What {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            What::Contacts => "contacts",
            What::Numbering => "numbering",
            What::Calendar => "calendar",
        }
    }

    /// Reads the files and puts what they say in the place of what was there.
    pub fn import(self, job: &mut Job<'_>) -> Result<Outcome, ImportError> {
        match self {
            What::Contacts => contacts::import(job),
            What::Numbering => numbering::import(job),
            What::Calendar => calendar::import(job),
        }
    }
}

/// One import.
pub struct Job<'a> {
    /// Which files; together they are the whole list.
    pub files: &'a [PathBuf],
    /// Only tells what would change.
    pub dry_run: bool,
    /// What rows are held against: the country of the numbers, extensions.
    pub directory: &'a Directory,
    /// The database of imported lists.
    pub database: &'a Path,
    /// How many changes of each kind are told one by one.
    pub shown: usize,
    /// When it is.
    pub now: Wall,
    /// Where rows go that cannot be taken as they are.
    pub rejects: &'a mut Rejects,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// Somebody who watches an import.
pub trait Progress {
    /// What is done next, and in how many steps; 0: nobody knows.
    fn stage(&self, what: &'static str, steps: u64);
    /// So many steps of it are done.
    fn at(&self, done: u64);
}

/// Nobody watches.
impl Progress for () {
    fn stage(&self, _: &'static str, _: u64) {}
    fn at(&self, _: u64) {}
}

/// What an import did, or would do.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Outcome {
    /// Rows in the files.
    pub rows: u64,
    /// What was not there.
    pub new: Changes,
    /// What is there and changes.
    pub changed: Changes,
    /// What was there and is in no file.
    pub removed: Changes,
    /// What stays as it is.
    pub unchanged: u64,
    /// Remarks on the files as a whole.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Nothing yet; so many changes of each kind are told one by one.
    fn showing(shown: usize) -> Outcome {
        let changes = || Changes { shown, ..Changes::default() };
        Outcome { new: changes(), changed: changes(), removed: changes(), ..Outcome::default() }
    }
}

/// Changes of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Changes {
    /// How many.
    pub count: u64,
    /// The first of them in words.
    pub examples: Vec<String>,
    #[serde(skip)]
    shown: usize,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { count: 0, examples: Vec::new(), shown: EXAMPLES }
    }
}

impl Changes {
    /// One more, told only if it is among the first.
    fn note(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < self.shown {
            self.examples.push(words());
        }
    }
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is no such table.
    #[error("{}: {why}", .path.display())]
    Table {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// No row can be taken; what is there is better than nothing.
    #[error("no row can be taken, so nothing was changed")]
    Nothing,
    /// The rejects cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Rejects {
        /// Where to.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The database.
    #[error("{}: {error}", .path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// What it says.
        error: StoreError,
    },
}

#[cfg(test)]
mod tests;
