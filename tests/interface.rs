//! `fixtures/interface.txt` says which test holds which promise of the interface. This sees to it that the tests are there; that
//! they fail without what they test was tried by hand.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::path::Path;

#[test]
fn every_promise_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let table = read("fixtures/interface.txt");
    let (mut wrong, mut promises) = (String::new(), 0);
    for (i, line) in table.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.is_empty()) {
        promises += 1;
        let tests = line.split_once('|').map_or("", |(_, tests)| tests.trim());
        if tests.is_empty() {
            let _ = writeln!(wrong, "line {}: no test", i + 1);
        }
        for test in names(tests) {
            let there = match test.split_once(' ').unwrap_or((test, "")) {
                ("row", name) => name.split_once(": ").is_some_and(|(file, row)| {
                    read(&format!("fixtures/policy/{file}.toml")).contains(&format!("\nname = \"{row}"))
                }),
                ("caller-id:", words) => read("fixtures/policy/caller-id/calls.txt").contains(words),
                ("ladder", name) => root.join(format!("sip-tests/ladders/{name}.ladder")).exists(),
                ("test", name) => name.split_once(": ").is_some_and(|(file, test)| {
                    let function = format!("fn {test}(");
                    read(file).split("#[test]").skip(1).any(|code| code.contains(&function))
                }),
                ("mistake", code) => read("src/io/config/tests.rs").contains(&format!("\"{code}\"")),
                ("sipp", name) => ["run", "routes.py", "pages.py"]
                    .iter()
                    .any(|file| read(&format!("sip-tests/sipp/{file}")).contains(&format!("\ndef {name}("))),
                _ => false,
            };
            if !there {
                let _ = writeln!(wrong, "line {}: there is no `{test}`", i + 1);
            }
        }
    }
    assert!(wrong.is_empty(), "fixtures/interface.txt\n{wrong}");
    assert!(promises > 100, "only {promises} promises");
}

/// Names of tests behind each other; a comma that does not begin one belongs to the name.
fn names(tests: &str) -> Vec<&str> {
    const KINDS: [&str; 6] = [", row ", ", caller-id: ", ", ladder ", ", test ", ", mistake ", ", sipp "];
    let mut ends: Vec<usize> = KINDS.iter().flat_map(|kind| tests.match_indices(kind).map(|(at, _)| at)).collect();
    ends.sort_unstable();
    ends.push(tests.len());
    let mut begin = 0;
    let cut = |end| {
        let name = tests.get(begin..end).unwrap_or_default();
        begin = end + 2;
        name
    };
    ends.into_iter().map(cut).collect()
}
