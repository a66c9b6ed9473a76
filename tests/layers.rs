//! The drawing "who may use whom" of `src/lib.rs`, as a test: every `crate::…` path in `src/` must point to the right.
//!
//! `cargo check --lib --no-default-features` proves that the core cannot name tokio, and clippy (clippy.toml) that it opens no socket or
//! file and asks no clock; this reads the sources as text. It knows no macros and no `super::super`, which the house does not write.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

/// Layer, and what it may use besides itself. `io` may use all of them; nobody may use `io`.
const MAY_USE: [(&str, &str); 11] = [
    ("base", ""),
    ("sip", "base"),
    ("media", "base"),
    ("sdp", "base sip media"),
    ("directory", "base sip"),
    ("policy", "base directory"),
    ("registrar", "base sip directory"),
    ("transaction", "base sip"),
    ("dialog", "base sip sdp transaction"),
    ("call", "base sip media sdp directory policy transaction dialog"),
    ("b2bua", "base sip media sdp directory policy registrar transaction dialog call"),
];

/// Words, and the only folder whose code may hold them.
const ONLY_IN: [(&str, &str); 4] = [("async", "io"), ("await", "io"), ("tokio", "io"), ("rsip", "sip")];

#[test]
fn everyone_uses_only_what_stands_to_the_right() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut faults, mut read) = (Vec::new(), 0);
    for file in sources(&src) {
        let name = file.strip_prefix(&src).expect("it was found there");
        let mut parts = name.components();
        let (Some(layer), Some(_)) = (parts.next(), parts.next()) else { continue }; // lib.rs and main.rs may use all
        let text = fs::read_to_string(&file).expect("sources are UTF-8");
        let layer = layer.as_os_str().to_str().expect("layers have plain names");
        faults
            .extend(check(layer, &text).into_iter().map(|(line, why)| format!("src/{}:{line}: {why}", name.display())));
        read += 1;
    }
    assert!(read > MAY_USE.len(), "the sources are not where this test looks for them");
    assert!(faults.is_empty(), "{} uses against the drawing in src/lib.rs:\n  {}", faults.len(), faults.join("\n  "));
}

#[test]
fn it_sees_what_it_is_for() {
    let fault = |layer, text| check(layer, text).first().map(|(line, why)| format!("{line}: {why}"));
    let table: [(&str, &str, Option<&str>); 10] = [
        ("call", "use crate::policy::{self, Why};\nuse crate::base::Now;", None),
        ("call", "//! See [`crate::b2bua`].\n/// [`crate::io`]\n", None),
        ("policy", "\nuse crate::call::Leg;", Some("2: `policy` may not use `call`, only base directory")),
        ("base", "let x = crate::sip::Name::Via;", Some("1: `base` may not use `sip`, only itself")),
        ("sip", "use crate::io::clock;", Some("1: `sip` may not use `io`, only base")),
        ("sip", "use crate::{base, io};", Some("1: write one `use crate::layer` a line, so that it can be read here")),
        ("call", "use tokio::time;", Some("1: only src/io says `tokio`")),
        ("call", "let tokio_like = \"\";", None),
        ("transaction", "pub async fn run() {}", Some("1: only src/io says `async`")),
        ("web", "", Some("1: `web` is not in the drawing: enter it in tests/layers.rs and in src/lib.rs")),
    ];
    for (layer, text, expected) in table {
        assert_eq!(fault(layer, text).as_deref(), expected, "{layer}: {text}");
    }
}

/// Line number and fault of each line that uses what it may not.
fn check(layer: &str, text: &str) -> Vec<(usize, String)> {
    let may = match MAY_USE.iter().find(|(name, _)| *name == layer) {
        Some((_, may)) => may,
        None if layer == "io" => return Vec::new(),
        None => {
            return vec![(
                1,
                format!("`{layer}` is not in the drawing: enter it in tests/layers.rs and in src/lib.rs"),
            )];
        }
    };
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        for used in code.match_indices("crate::").map(|(at, _)| word(&code[at + "crate::".len()..])) {
            if used.is_empty() {
                faults
                    .push((number + 1, "write one `use crate::layer` a line, so that it can be read here".to_owned()));
            } else if used != layer && !may.split(' ').any(|m| m == used) {
                let may = if may.is_empty() { "itself" } else { may };
                faults.push((number + 1, format!("`{layer}` may not use `{used}`, only {may}")));
            }
        }
        for (named, folder) in ONLY_IN.iter().filter(|(_, folder)| *folder != layer) {
            if code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == *named) {
                faults.push((number + 1, format!("only src/{folder} says `{named}`")));
            }
        }
    }
    faults
}

/// The identifier that a text begins with.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("src is a folder");
    let mut found: Vec<PathBuf> = entries.map(|e| e.expect("its entries can be read").path()).collect();
    found.sort();
    found.into_iter().flat_map(|p| if p.is_dir() { sources(&p) } else { vec![p] }).collect()
}
