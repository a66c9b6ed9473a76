//! A call's SIP messages as a ladder: time, who, and an arrow to or from us for each message. Drawn for people; the messages
//! come from the core's ring as JSON.

use std::fmt::Write as _;

use serde_json::Value;

use super::cli::output::plain;
use crate::base::Wall;

/// Width of a column.
const WIDTH: usize = 28;
/// Legs that get a column; further ones share the last.
const MAX_LEGS: usize = 8;

/// Draws what `Ask::Ladder` answered; `time` says a stamp in words of 12 characters.
pub fn draw(ladder: &Value, time: &dyn Fn(Wall) -> String) -> String {
    let messages: Vec<&Value> = ladder["messages"].as_array().into_iter().flatten().collect();
    let mut legs: Vec<&str> = Vec::new();
    for message in &messages {
        let who = message["who"].as_str().unwrap_or("?");
        if !legs.contains(&who) && legs.len() < MAX_LEGS {
            legs.push(who);
        }
    }
    // Who called stands on the left, we beside him, who was called on the right.
    let column = |leg: usize| if leg == 0 { 0 } else { leg + 1 };
    let columns = legs.len().max(1) + 1;
    let mut heads = vec![String::new(); columns];
    heads[1] = "strowger".to_owned();
    for (i, leg) in legs.iter().enumerate() {
        heads[column(i)] = clip(&plain(leg), WIDTH - 2);
    }
    let mut text = format!("{:13}", "");
    for head in &heads {
        let _ = write!(text, "{head:^WIDTH$}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for message in messages {
        let who = message["who"].as_str().unwrap_or("?");
        let leg = legs.iter().position(|l| *l == who).unwrap_or(legs.len().saturating_sub(1));
        let at = message["at"].as_str().and_then(|at| Wall::try_from(at.to_owned()).ok()).map(time).unwrap_or_default();
        let (from, to) = if message["sent"] == true { (1, column(leg)) } else { (column(leg), 1) };
        let line = rung(columns, from, to, &name(message["message"].as_str().unwrap_or_default()));
        let _ = writeln!(text, "{at:13}{}", line.trim_end());
    }
    text
}

/// One line: bars at every column, an arrow between two of them with its name on it.
fn rung(columns: usize, from: usize, to: usize, name: &str) -> String {
    let centre = |c: usize| c * WIDTH + WIDTH / 2;
    let mut line = vec![' '; columns * WIDTH];
    for c in 0..columns {
        line[centre(c)] = '│';
    }
    let (left, right) = (centre(from.min(to)) + 1, centre(from.max(to)) - 1);
    for cell in &mut line[left..=right] {
        *cell = '─';
    }
    if from < to {
        line[right] = '>';
    } else {
        line[left] = '<';
    }
    let room = right - left - 3;
    let name = clip(name, room);
    let start = left + 2 + (room - name.chars().count()) / 2;
    for (i, c) in format!(" {name} ").chars().enumerate() {
        line[start - 1 + i] = c;
    }
    line.into_iter().collect()
}

/// A message in a few words: `INVITE (sdp)`, `183 Session Progress (sdp)`, `200 OK BYE`.
pub fn name(message: &str) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let first = head.lines().next().unwrap_or_default();
    let mut words = first.splitn(3, ' ');
    let (one, two, three) =
        (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut name = if one.starts_with("SIP/") { format!("{two} {three}") } else { one.to_owned() };
    // To which request an answer belongs goes without saying for INVITE only.
    let asked = head.lines().find_map(|l| l.strip_prefix("CSeq:")).and_then(|v| v.split_ascii_whitespace().nth(1));
    if let Some(method) = asked.filter(|m| *m != "INVITE" && one.starts_with("SIP/")) {
        name.push(' ');
        name.push_str(method);
    }
    if body.starts_with("v=0") {
        name.push_str(" (sdp)");
    }
    plain(&name)
}

fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_ladder() {
        let message = |at: &str, sent: bool, who: &str, text: &str| json!({ "at": format!("2026-11-22T10:00:0{at}Z"), "sent": sent, "who": who, "remote": "x", "message": text });
        let ladder = json!({ "call": "x", "messages": [
            message("0.000", false, "carrier-b", "INVITE sip:x SIP/2.0\r\nA: b\r\n\r\nv=0\r\n"),
            message("0.001", true, "extension:121", "INVITE sip:x SIP/2.0\r\n\r\nv=0\r\n"),
            message("0.002", false, "extension:121", "SIP/2.0 180 Ringing\r\n\r\n"),
            message("0.003", true, "carrier-b", "SIP/2.0 200 \u{1b}[31mOK\r\nCSeq: 2 BYE\r\n\r\n"),
        ]});
        let time = |at: Wall| at.to_string()[11..23].to_owned();
        let want = "
                      carrier-b                    strowger                 extension:121
10:00:00.000               │────── INVITE (sdp) ──────>│                           │
10:00:00.001               │                           │────── INVITE (sdp) ──────>│
10:00:00.002               │                           │<────── 180 Ringing ───────│
10:00:00.003               │<─ 200 \\u{1b}[31mOK BYE ───│                           │
";
        assert_eq!(format!("\n{}", draw(&ladder, &time)), want);
        assert!(!draw(&Value::Null, &time).is_empty());
    }
}
