//! `[numbering] files`: the registry's own CSV files, read when the configuration is.

use std::path::PathBuf;

use super::check;
use super::dom::Node;
use super::problem::{Place, Problem};
use crate::directory::Numbering;
use crate::directory::numbering::Draft;
use crate::io::import::numbering::{self, Refused};

/// Files at most.
const MAX_FILES: usize = 100;

/// Reads the files that the configuration names into a plan over the built-in one, and tells of those that are none and of rows
/// that are not taken.
pub fn read(root: &Node, folder: &dyn Fn(Place) -> PathBuf, problems: &mut Vec<Problem>) -> Numbering {
    let mut draft = Draft::built_in();
    let nodes = root.get("numbering").and_then(|n| n.get("files")).map(Node::items).unwrap_or_default();
    for node in nodes {
        let Some(glob) = node.text() else { continue };
        let files = check::matching(&folder(node.at), glob);
        let wrong = |why: String| {
            let problem = Problem::error("config::bad_numbering", node.at, why).label("named here");
            problem.help("name the registry's own CSV files, with their line of column names: АВС/ DEF;От;До;…;Регион")
        };
        if files.len() > MAX_FILES {
            problems.push(wrong(format!("`{glob}` matches more than {MAX_FILES} files")));
            continue;
        }
        for path in files {
            let (mut first, mut count, mut full) = (None, 0u64, false);
            let take = |r: numbering::Range| full |= draft.add(r.first, r.last, &r.place).is_err();
            let refuse = |row: Refused| {
                count += 1;
                first.get_or_insert(row);
                Ok(())
            };
            let rows = numbering::load(&path).and_then(|table| numbering::read(&table, take, refuse, |_| {}));
            match (rows, first) {
                (Err(error), _) => problems.push(wrong(error.to_string())),
                (Ok(_), _) if full => {
                    problems.push(wrong(format!("{}: more ranges than a plan can have", path.display())));
                }
                (Ok(_), None) => {}
                (Ok(rows), Some(Refused { line, why, .. })) => {
                    let what =
                        format!("{}: {count} of {rows} rows are not taken; in line {line}: {why}", path.display());
                    let problem = Problem::warning("config::numbering_row", node.at, what).label("named here");
                    problems.push(problem.help("numbers of such a row have the region of their area code, or none"));
                }
            }
        }
    }
    Numbering::of(draft.finish())
}
