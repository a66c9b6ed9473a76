//! Production calendars: a file a year, as xmlcalendar.ru publishes it (JSON or XML). A file takes the place of the one for its
//! year; years that no file names stay. They hold in every `[[calendar]]` that follows one (`holidays`), before its own files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::imported::Imported;
use super::{ImportError, Job, Outcome, What};
use crate::directory::calendar::Year;

/// Largest file; the usual ones have 2 KiB.
const MAX_FILE: u64 = 1024 * 1024;

/// Imports the files, all or none.
pub fn import(job: &mut Job<'_>) -> Result<Outcome, ImportError> {
    let mut outcome = Outcome::showing(job.shown);
    let mut years: Vec<(i16, String)> = Vec::new();
    job.progress.stage("reading", job.files.len() as u64);
    for (path, done) in job.files.iter().zip(1..) {
        let (year, text) = read(path)?;
        if years.iter().any(|(other, _)| *other == year) {
            let why = format!("is a second calendar of {year}");
            return Err(ImportError::Table { path: path.clone(), why });
        }
        years.push((year, text));
        outcome.rows += 1;
        job.progress.at(done);
    }
    let path = job.database;
    let store = |error| ImportError::Store { path: path.to_owned(), error };
    // The lock before the look: nobody else changes what is compared with.
    let database = match job.dry_run {
        true => Imported::look(path).map_err(store)?,
        false => Some(Imported::open(path).map_err(store)?),
    };
    let old = database.as_ref().map_or(Ok(Vec::new()), Imported::years).map_err(store)?;
    for (year, text) in &years {
        match old.iter().find(|(before, _)| before == year) {
            None => outcome.new.note(|| year.to_string()),
            Some((_, before)) if before == text => outcome.unchanged += 1,
            Some(_) => outcome.changed.note(|| year.to_string()),
        }
    }
    if !job.directory.calendars.iter().any(|calendar| calendar.follows) {
        outcome
            .notes
            .push("no [[calendar]] of the configuration has `holidays`, so none follows what is imported".into());
    }
    let Some(database) = database.filter(|_| !job.dry_run) else { return Ok(outcome) };
    for (year, text) in &years {
        database.put_year(*year, text).map_err(store)?;
    }
    let known = old.iter().filter(|(before, _)| !years.iter().any(|(year, _)| year == before)).count() + years.len();
    database.commit(What::Calendar, job.now, known as u64).map_err(store)?;
    Ok(outcome)
}

/// The year that a file describes, and its text.
fn read(path: &Path) -> Result<(i16, String), ImportError> {
    let wrong = |error| ImportError::Read { path: path.to_owned(), error };
    let table = |why: String| ImportError::Table { path: path.to_owned(), why };
    let mut bytes = Vec::new();
    File::open(path).map_err(wrong)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(table(format!("is larger than {MAX_FILE} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| table("is not UTF-8".to_owned()))?;
    let year = Year::read(&text).map_err(table)?;
    Ok((year.year, text))
}
