//! The file of rows that could not be taken as they are: file, line, what became of it, why, and what stood there. It is made
//! when the first such row comes.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::ImportError;
use crate::io::cli::output;

/// Lines of it at most; the rest is only counted.
const MAX_LINES: u64 = 1_000_000;

/// Where rejected rows go.
#[derive(Debug)]
pub struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    /// Rows that were not taken.
    pub rejected: u64,
    /// Rows that were taken without something.
    pub trimmed: u64,
}

impl Rejects {
    /// To be written there.
    pub fn to(path: &Path) -> Rejects {
        Rejects { path: path.to_owned(), file: None, rejected: 0, trimmed: 0 }
    }

    /// A row is not taken.
    pub fn reject(&mut self, file: &Path, line: u64, why: &str, what: &str) -> Result<(), ImportError> {
        self.rejected += 1;
        self.write(file, line, "rejected", why, what)
    }

    /// A row is taken, but for something in it.
    pub fn trim(&mut self, file: &Path, line: u64, why: &str, what: &str) -> Result<(), ImportError> {
        self.trimmed += 1;
        self.write(file, line, "taken", why, what)
    }

    /// Writes out what is buffered; the file, if there was anything to say.
    pub fn close(mut self) -> Result<Option<PathBuf>, ImportError> {
        match self.file.take().map(|mut file| file.flush()) {
            None => Ok(None),
            Some(Ok(())) => Ok(Some(self.path)),
            Some(Err(error)) => Err(ImportError::Rejects { path: self.path, error }),
        }
    }

    fn write(&mut self, file: &Path, line: u64, became: &str, why: &str, what: &str) -> Result<(), ImportError> {
        if self.rejected + self.trimmed > MAX_LINES {
            return Ok(());
        }
        let wrong = |error| ImportError::Rejects { path: self.path.clone(), error };
        let out = match &mut self.file {
            Some(out) => out,
            none => {
                // Through no link: whoever may write beside the lists must not choose what an import by root overwrites.
                let mut open = OpenOptions::new();
                let open = open.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
                let mut out = BufWriter::new(open.open(&self.path).map_err(wrong)?);
                out.write_all(output::csv(["file", "line", "row", "reason", "text"]).as_bytes()).map_err(wrong)?;
                none.insert(out)
            }
        };
        let (why, what) = (output::plain(why), output::plain(what));
        let row = output::csv([&*file.to_string_lossy(), &line.to_string(), became, &why, &what]);
        out.write_all(row.as_bytes()).map_err(wrong)
    }
}
