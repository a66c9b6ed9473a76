//! `[[calendar]]`: its weekly hours and exceptions from the tree, its production calendars from their files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use super::build::View;
use super::check;
use super::dom::Node;
use super::problem::{Place, Problem};
use super::value;
use crate::directory::calendar::{Calendar, Except, Week, Year};

/// Production calendars by the place of the glob that names them.
pub type Years = BTreeMap<Place, Vec<Year>>;

/// Largest file of a production calendar; the usual ones have 2 KiB.
const MAX_FILE: u64 = 1024 * 1024;
/// Files of one glob at most: a century of years.
const MAX_FILES: usize = 100;

/// Reads the files that the calendars name, and tells of broken ones and of a year that is missing on `today`.
pub fn read(root: &Node, folder: &dyn Fn(Place) -> PathBuf, today: Date, problems: &mut Vec<Problem>) -> Years {
    let mut all = Years::new();
    for table in root.get("calendar").map(Node::items).unwrap_or_default() {
        let globs = table.get("holidays").map(Node::items).unwrap_or_default();
        for node in globs {
            let Some(glob) = node.text() else { continue };
            let files = check::matching(&folder(node.at), glob);
            if files.len() > MAX_FILES {
                let what = format!("`{glob}` matches more than {MAX_FILES} files");
                let problem = Problem::error("config::bad_calendar", node.at, what).label("too many");
                problems.push(problem.help("name the production calendars alone, a file a year"));
                continue;
            }
            let years = files.iter().filter_map(|path| match load(path) {
                Ok(year) => Some(year),
                Err(wrong) => {
                    let what = format!("{}: {wrong}", path.display());
                    let problem = Problem::error("config::bad_calendar", node.at, what).label("named here");
                    problems.push(
                        problem.help("the file is the JSON or XML of a year from xmlcalendar.ru, as it stands there"),
                    );
                    None
                }
            });
            let years: Vec<Year> = years.collect();
            all.insert(node.at, years);
        }
        let known: Vec<Year> = globs.iter().filter_map(|n| all.get(&n.at)).flatten().cloned().collect();
        let calendar = Calendar { follows: !globs.is_empty(), years: known, ..Calendar::new("", Week::default()) };
        // That no file matches is said already.
        if let Some(year) = calendar.missing(today).filter(|_| !calendar.years.is_empty())
            && let Some(at) = table.get("holidays").map(|n| n.at)
        {
            let name = table.get("name").and_then(Node::text).unwrap_or_default();
            let what = format!("calendar \"{name}\" has no production calendar for {year}");
            let problem = Problem::warning("config::no_year", at, what).label("the weekly hours hold meanwhile");
            problems.push(problem.help(format!("put the calendar of {year} beside the others, and reload")));
        }
    }
    all
}

/// Reads a file of either form.
pub fn load(path: &Path) -> Result<Year, value::Wrong> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    Year::read(&String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?)
}

/// The calendar of a table.
pub fn build(v: View<'_>, years: &Years) -> Option<Calendar> {
    let globs = v.own("holidays").map(Node::items).unwrap_or_default();
    let except = v.own("except").map(Node::items).unwrap_or_default().iter().filter_map(|node| {
        let date = |key: &str| value::date(node.get(key)?.text()?).ok();
        let first = date("date")?;
        Some(Except { first, last: date("until").unwrap_or(first), week: week(node.get("hours")) })
    });
    Some(Calendar {
        shortened: v.duration("shortened").unwrap_or_default(),
        follows: !globs.is_empty(),
        years: globs.iter().filter_map(|n| years.get(&n.at)).flatten().cloned().collect(),
        except: except.collect(),
        ..Calendar::new(&v.text("name")?, week(v.own("hours")))
    })
}

/// Weekly hours from a list of texts.
pub fn week(node: Option<&Node>) -> Week {
    let mut week = Week::default();
    for text in node.map(Node::items).unwrap_or_default().iter().filter_map(Node::text) {
        if let Ok((days, spans)) = value::hours_of_a_day(text) {
            spans.into_iter().for_each(|span| week.add(days, span));
        }
    }
    week
}
