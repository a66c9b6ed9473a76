//! The sounds that a configuration names (`play:closed.wav`, `music` of a queue) and those that stand in for ours: looked for,
//! read, and encoded, when the configuration is read, so that nothing waits for a file while calls go on.
//!
//! It also warns of a `play:` before the first step that rings: nobody should be made to listen before a phone rings.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::dom::{Node, Value};
use super::problem::{Place, Problem};
use super::target::Parsed;
use crate::media::sound::{Language, Library, MAX_SOUNDS, Sound};
use crate::media::wav::MAX_BYTES;

/// Seconds of all sounds of the operator's together; each takes 24 kB.
const MAX_TOTAL_SECONDS: usize = 3600;
/// Steps that ring somebody begin with these, or are names alone (`manager`).
const RINGS_NOBODY: [&str; 3] = ["play:", "reject:", "hook:"];

/// All sounds, ours and the operator's; what is wrong with his goes to `problems`.
pub fn load(root: &Node, folder: &dyn Fn(Place) -> PathBuf, problems: &mut Vec<Problem>) -> Library {
    let own = root.get("sounds");
    let country = root.get("node").and_then(|node| node.get("country")).and_then(Node::text).unwrap_or("RU");
    let language = match own.and_then(|own| own.get("language")).and_then(Node::text) {
        Some("ru") => Language::Russian,
        Some("en") => Language::English,
        _ => Language::of(country),
    };
    let mut library = Library::own(language);
    let dir = own.and_then(|own| own.get("dir")).and_then(|node| Some(folder(node.at).join(node.text()?)));
    let place = |at: Place| dir.clone().unwrap_or_else(|| folder(at));
    let mut left = MAX_TOTAL_SECONDS * 50;
    if let Some(dir) = &dir {
        let ours: Vec<String> = library.iter().map(|(name, _)| name.to_string()).collect();
        for name in ours {
            let file = dir.join(format!("{name}.wav"));
            if file.is_file() {
                match read(&file, &mut left) {
                    Ok(sound) => library.put(&name, sound),
                    Err(why) => problems.push(unplayable(own.map_or(Place::default(), |n| n.at), &file, &why)),
                }
            }
        }
    }
    let mut named = Vec::new();
    names(root, &mut named);
    let ours = library.iter().count();
    for (at, name) in named {
        if library.get(name).is_some() {
            continue;
        }
        let file = place(at).join(name);
        match read(&file, &mut left) {
            Ok(_) if library.iter().count() >= ours + MAX_SOUNDS / 2 => {
                problems.push(unplayable(at, &file, &format!("more than {} sounds", MAX_SOUNDS / 2)));
                break;
            }
            Ok(sound) => library.put(name, sound),
            Err(why) => problems.push(unplayable(at, &file, &why)),
        }
    }
    for route in root.get("route").map(Node::items).unwrap_or_default() {
        listens_first(route.get("to").map(Node::items).unwrap_or_default(), problems);
    }
    library
}

fn unplayable(at: Place, file: &Path, why: &str) -> Problem {
    let problem = Problem::error("config::sound", at, format!("{} cannot be played: {why}", file.display()));
    problem.label("this sound").help("a WAV file of 8000 or 16000 samples a second: PCM, A-law or µ-law")
}

/// A file as a sound; `left`: how many 20 ms may still be taken up.
fn read(file: &Path, left: &mut usize) -> Result<Sound, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|e| e.to_string())?;
    if !opened.metadata().map_err(|e| e.to_string())?.is_file() {
        return Err("not a file".to_owned());
    }
    opened.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("larger than {} MiB", MAX_BYTES >> 20));
    }
    let sound = Sound::of_wav(&bytes).map_err(|e| e.to_string())?;
    *left = left.checked_sub(sound.frames()).ok_or(format!("all sounds together: {MAX_TOTAL_SECONDS} s at most"))?;
    Ok(sound)
}

/// Every sound that is named anywhere, with its place.
fn names<'a>(node: &'a Node, found: &mut Vec<(Place, &'a str)>) {
    match &node.value {
        Value::Text(text) if text.starts_with("play:") => {
            if let Ok(Parsed::Play(name)) = Parsed::read(text) {
                found.push((node.at, name));
            }
        }
        Value::List(items) => items.iter().for_each(|item| names(item, found)),
        Value::Table(entries) => {
            for entry in entries {
                match (entry.key.as_str(), entry.node.text()) {
                    ("music", Some(name)) => found.push((entry.node.at, name)),
                    _ => names(&entry.node, found),
                }
            }
        }
        Value::Text(_) | Value::Int(_) | Value::Float | Value::Bool(_) | Value::Date(_) => {}
    }
}

/// A prompt that stands before somebody who could have answered meanwhile.
fn listens_first(steps: &[Node], problems: &mut Vec<Problem>) {
    let target = |step: &Node| step.text().or_else(|| step.get("target")?.text()).map(str::to_owned);
    let rings = |step: &Node| target(step).is_some_and(|t| !RINGS_NOBODY.iter().any(|head| t.starts_with(head)));
    let Some(first) = steps.iter().position(rings) else { return };
    for step in steps[..first].iter().filter(|step| target(step).is_some_and(|t| t.starts_with("play:"))) {
        let what = "callers must listen to this before any phone rings";
        let problem = Problem::warning("config::prompt_first", step.at, what).label("played first");
        problems.push(problem.help("many hang up during a greeting: put it behind a step that rings"));
    }
}
