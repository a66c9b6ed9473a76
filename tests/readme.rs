//! The README's configuration is the file that it names, and the server takes it as it stands.
#![cfg(feature = "io")]
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;
use std::process::Command;

use strowger::io::config::Config;

const README: &str = include_str!("../README.md");

#[test]
fn the_small_configuration_is_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/small.toml");
    let text = fs::read_to_string(&path).expect("it is there");
    let shown = README.split("```toml\n").nth(1).and_then(|t| t.split("```").next());
    assert_eq!(shown, Some(&*text), "the README shows something else than fixtures/small.toml");
    let config = Config::load(&path).unwrap_or_else(|report| panic!("{}", report.render(false)));
    assert_eq!(config.directory.not_yet, Vec::<String>::new(), "it names what is not in force");
}

#[test]
fn its_examples_of_explain_are_what_the_command_says() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let folder = std::env::temp_dir().join(format!("strowger-readme-{}", std::process::id()));
    fs::create_dir_all(folder.join("calendars")).expect("a folder");
    for file in ["office.toml", "calendars/ru-2026.json"] {
        fs::copy(fixtures.join(file), folder.join(file)).expect("copied");
    }
    let shown = README.split("```\n$ strowger explain").nth(1).and_then(|t| t.split("```").next()).expect("examples");
    let examples: Vec<&str> = shown.split("\n$ strowger explain").collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let (command, want) = example.split_once('\n').expect("a command and what it says");
        let words = command.split_whitespace().map(|word| word.trim_matches('"'));
        let mut strowger = Command::new(env!("CARGO_BIN_EXE_strowger"));
        let done = strowger.arg("explain").args(words).env("STROWGER_CONFIG", folder.join("office.toml")).output();
        let said = String::from_utf8(done.expect("it runs").stdout).expect("UTF-8");
        assert_eq!(said.trim_end(), want.trim_end(), "{command}");
    }
    fs::remove_dir_all(&folder).ok();
}

#[test]
fn the_tree_is_all_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree =
        README.split("## The tree").nth(1).and_then(|t| t.split("```").nth(1)).expect("the README shows the tree");
    let folders = tree.split_whitespace().filter(|w| w.ends_with('/') || w.ends_with(".rs") || *w == ".ci/run");
    for name in folders {
        let there = root.join(name).exists() || root.join("sip-tests").join(name).exists();
        assert!(there, "the README's tree names {name}, which is not there");
    }
}
