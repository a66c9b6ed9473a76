//! The command as its users meet it: what it prints where, and its exit codes.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "schema = 1\n[node]\ndata_dir = \"data\"\n[[listen]]\nbind = \"127.0.0.1:5060\"\n";

fn strowger(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(words).env_remove("STROWGER_CONFIG").env_remove("RUST_LOG").output().expect("it runs")
}

fn file(name: &str, text: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("strowger-cli-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("strowger.toml");
    std::fs::write(&path, text).expect("a file");
    path
}

#[test]
fn exit_codes_and_streams() {
    let good = file("good", GOOD);
    let bad = file("bad", &GOOD.replace("bind", "bnid"));
    let (good, bad) = (good.to_str().expect("UTF-8"), bad.to_str().expect("UTF-8"));
    let folder = std::path::Path::new(good).parent().and_then(|f| f.to_str()).expect("UTF-8");
    let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    #[rustfmt::skip]
    let table: &[(&[&str], i32, &str, &str)] = &[
        (&["check", good], 0, "valid: 0 trunks", ""),
        (&["check", "--config", good], 0, "valid", ""),
        (&["check", bad], 2, "", "did you mean `bind`?"),
        (&["check", "/nonexistent.toml"], 2, "", "config::file"),
        (&["serve", "--config", bad], 2, "", "config::unknown_key"),
        (&["serve", "--config", good, "--log", "=="], 2, "", "--log"),
        (&["calls", "--config", good], 4, "", "no server answers"),
        // A server that runs is found although its file has been broken since.
        (&["calls", "--config", bad], 4, "", "no server answers"),
        (&["call", id, "--config", good], 4, "", "no server answers"),
        (&["call", "nonsense", "--config", good], 2, "", "not a call id"),
        (&["records", "--csv", "--config", good], 4, "", "no server answers"),
        (&["records", "--since", "tomorrow", "--config", good], 2, "", "write today, yesterday, 24h"),
        (&["records", "--since", "yesterday", "--config", good], 4, "", "no server answers"),
        (&["trace", "--config", good], 4, "", "no server answers"),
        (&["check", folder], 2, "", "this is a folder, not a file"),
        (&["reload", "--config", good], 4, "", "no server answers"),
        (&["teleport"], 2, "", "unrecognized subcommand"),
        (&["--version"], 0, "strowger ", ""),
        (&["completions", "bash"], 0, "complete", ""),
        (&["check", "--defaults"], 0, "schema = 1", ""),
    ];
    for (words, code, out, err) in table {
        let done = strowger(words);
        let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.status.code(), Some(*code), "{words:?}\n{stdout}\n{stderr}");
        assert!(stdout.contains(out) && stderr.contains(err), "{words:?}\n{stdout}\n{stderr}");
        assert!(*code == 0 || stdout.is_empty(), "{words:?}: data on failure\n{stdout}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_strowger"));
    let mut child =
        child.args(["check", "--defaults"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("it ends");
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stderr).as_ref()), (Some(0), ""));
}
