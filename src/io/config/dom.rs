//! TOML text to a tree that knows where each part stands, over several files. Syntax errors do not stop the reading of the
//! rest, so that all can be told at once.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, alike};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value stands; of a table its header.
    pub at: Place,
    /// The value.
    pub value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer; none if it does not fit 64 bits.
    Int(Option<i64>),
    /// A float; nothing here is one.
    Float,
    /// A boolean.
    Bool(bool),
    /// A date or time, as written.
    Date(String),
    /// An array.
    List(Vec<Node>),
    /// A table, in file order.
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: Place,
    /// Its value.
    pub node: Node,
    /// How the key is written, where that is no key and [`Entry::key`] is the one that was probably meant.
    pub written: Option<String>,
}

impl Node {
    /// An empty table at a place.
    pub fn table(at: Place) -> Node {
        Node { at, value: Value::Table(Vec::new()) }
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Int(_) => "an integer",
            Value::Float => "a number",
            Value::Bool(_) => "true or false",
            Value::Date(_) => "a bare date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries, if it is a table.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The entry with this key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The value with this key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.node)
    }

    /// The items of a list; a single value counts as a list of one.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// The place of a part of the text, `range` in bytes of the text; the whole place if the text is written with escapes.
    pub fn part(&self, range: Range<usize>) -> Place {
        let Some(text) = self.text() else { return self.at };
        let plain = (self.at.end - self.at.start) as usize == text.len() + 2;
        if !plain || range.end > text.len() || range.start > range.end {
            return self.at;
        }
        let start = self.at.start + 1;
        Place { start: start + range.start as u32, end: start + range.end as u32, ..self.at }
    }
}

/// Reads one file. What cannot be read is reported, the rest is returned; `broken` gets every line (1-based) that a slip
/// of syntax reaches, whose remains say nothing.
pub fn read(file: u16, text: &str, problems: &mut Vec<Problem>, broken: &mut Vec<(u16, usize)>) -> Node {
    let (table, errors) = DeTable::parse_recoverable(text);
    let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
    let mut last: Option<usize> = None;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let here = line(span.start);
        let at = Place::new(file, span);
        let message = error.message().trim().replace('\n', "; ");
        if message.starts_with("duplicate key") {
            // Keys that a lost bracket left without their table look doubled.
            if broken.iter().any(|(f, l)| *f == file && *l <= here) {
                continue;
            }
            let problem = Problem::error("config::duplicate_key", at, message).label("again here");
            problems.push(problem.help("a key may stand once in its table; remove one of them"));
            continue;
        }
        broken.push((file, here + 1));
        // One slip makes an error in every line that it swallows; the first says it.
        if last.is_none_or(|l| here > l + 1) {
            let problem = match text.lines().nth(here).and_then(bare) {
                Some((word, help)) => {
                    Problem::error("config::syntax", at, format!("`{word}` is no value in TOML")).help(help)
                }
                None => Problem::error("config::syntax", at, message).help(
                    "this is not TOML; a quote or bracket may be missing here or in the line above (https://toml.io)",
                ),
            };
            problems.push(problem);
        }
        last = Some(here);
    }
    Node { at: Place::new(file, 0..0), value: table_value(file, table.get_ref()) }
}

/// The word that stands behind `=` without quotes, and what was probably meant by the line.
fn bare(line: &str) -> Option<(&str, String)> {
    let (key, value) = line.split_once('=')?;
    let (key, word) = (key.trim(), value.split('#').next()?.trim());
    let plain = |c: char| c.is_alphanumeric() || "+-_.:/@*".contains(c);
    if word.is_empty() || !word.chars().all(plain) || key.contains(['"', '{', '[']) {
        return None;
    }
    let meant = match word.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => "true".to_owned(),
        "no" | "off" | "false" => "false".to_owned(),
        _ => format!("\"{word}\""),
    };
    Some((word, format!("did you mean `{key} = {meant}`?")))
}

/// Joins a further file into the first: lists grow, tables are united, a value that stands twice is an error.
pub fn merge(into: &mut Node, from: Node, problems: &mut Vec<Problem>) {
    let Value::Table(from) = from.value else { return };
    let Value::Table(entries) = &mut into.value else { return };
    for entry in from {
        let Some(known) = entries.iter_mut().find(|e| e.key == entry.key) else {
            entries.push(entry);
            continue;
        };
        match (&mut known.node.value, entry.node.value) {
            (Value::List(all), Value::List(more)) => all.extend(more),
            (Value::Table(_), value @ Value::Table(_)) => {
                merge(&mut known.node, Node { at: entry.node.at, value }, problems);
            }
            // Every file may say which schema it is written for.
            (Value::Int(a), Value::Int(b)) if entry.key == "schema" && *a == b => {}
            _ => problems.push(
                Problem::error("config::duplicate_key", entry.at, format!("`{}` stands in two files", entry.key))
                    .label("again here")
                    .other(known.at, "first here")
                    .help("a key may stand once; remove one of them"),
            ),
        }
    }
}

/// The text for quoting: as long as the original, with secrets masked and control characters replaced.
pub fn quotable(text: &str, root: &Node) -> Arc<str> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t' | '\r') {
            bytes.extend(std::iter::repeat_n(b'?', c.len_utf8()));
        } else {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
        }
    }
    mask(root, false, &mut bytes);
    // Masks cover whole strings with ASCII, so this never replaces anything.
    String::from_utf8_lossy(&bytes).into()
}

/// Keys whose text is nobody's business, and their misspellings.
fn secret_key(key: &str) -> bool {
    ["password", "secret"].iter().any(|name| *name == key || alike(key, [*name]).is_some())
}

fn mask(node: &Node, secret: bool, bytes: &mut [u8]) {
    match &node.value {
        Value::Text(_) if secret => {
            let inside = node.at.start as usize + 1..(node.at.end as usize).saturating_sub(1);
            if let Some(slice) = bytes.get_mut(inside) {
                for byte in slice.iter_mut().filter(|b| !matches!(**b, b'\n' | b'\r')) {
                    *byte = b'*';
                }
            }
        }
        Value::Table(entries) => {
            for entry in entries {
                // In { env, default } only the default is secret.
                let inner = if secret { entry.key == "default" } else { secret_key(&entry.key) };
                mask(&entry.node, inner, bytes);
            }
        }
        Value::List(items) => items.iter().for_each(|item| mask(item, secret, bytes)),
        Value::Text(_) | Value::Int(_) | Value::Float | Value::Bool(_) | Value::Date(_) => {}
    }
}

fn table_value(file: u16, table: &DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            at: Place::new(file, key.span()),
            node: Node { at: Place::new(file, value.span()), value: plain(file, value.get_ref()) },
            written: None,
        })
        .collect();
    entries.sort_by_key(|e| e.at);
    Value::Table(entries)
}

fn plain(file: u16, value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(int) => Value::Int(i64::from_str_radix(int.as_str(), int.radix()).ok()),
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::List(
            items.iter().map(|v| Node { at: Place::new(file, v.span()), value: plain(file, v.get_ref()) }).collect(),
        ),
        DeValue::Table(table) => table_value(file, table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_texts_own() {
        let text = "a = \"xyz\"\n[[b]]\nc = 0x1F\n";
        let root = read(0, text, &mut Vec::new(), &mut Vec::new());
        let a = root.get("a").expect("a");
        assert_eq!(&text[a.at.start as usize..a.at.end as usize], "\"xyz\"");
        assert_eq!(a.part(1..2), Place { file: 0, start: 6, end: 7 });
        let b = &root.get("b").expect("b").items()[0];
        assert_eq!(&text[b.at.start as usize..b.at.end as usize], "[[b]]");
        assert!(matches!(b.get("c").map(|n| &n.value), Some(Value::Int(Some(31)))));
    }

    #[test]
    fn secrets_and_control_characters_are_not_quoted() {
        let text = "pasword = \"geheim\" # \u{1b}[31m\u{9b}\n[t]\npassword = { env = \"E\", default = \"geheim\" }\n";
        let root = read(0, text, &mut Vec::new(), &mut Vec::new());
        let shown = quotable(text, &root);
        assert_eq!(shown.len(), text.len());
        assert!(!shown.contains("geheim") && !shown.contains('\u{1b}') && !shown.contains('\u{9b}'), "{shown}");
        assert!(shown.contains("env = \"E\""), "{shown}");
    }
}
