//! `strowger call ID`.

use std::fmt::Write as _;

use serde_json::Value;

use super::output::{self, word};
use super::{Fail, Office, complain};
use crate::b2bua::LiveCall;
use crate::call::record::{By, CallRecord, Hangup, RecordId, RecordingEntry};
use crate::io::api::client::ClientError;
use crate::io::ladder;
use crate::io::store::{Reader as _, Sqlite};
use crate::sip::phrase;

/// How instants within a call are shown.
const CLOCK: &str = "%H:%M:%S%.3f";

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The call's id, as `calls` and `records` show it.
    id: String,
    /// Shows its SIP messages.
    #[arg(long)]
    ladder: bool,
    /// As JSON; with --ladder the whole messages.
    #[arg(long)]
    json: bool,
}

/// Shows a call.
pub fn run(office: &Office, args: &Args) -> Result<(), Fail> {
    let id: RecordId = args.id.parse().map_err(|e| Fail::Usage(format!("{}: {e}", output::plain(&args.id))))?;
    if args.ladder {
        let found = office.client.get(&format!("/calls/{id}/ladder"))?;
        return if args.json {
            output::json(&found)
        } else {
            output::say(&ladder::draw(&found, &|at| office.time(at, CLOCK)))
        };
    }
    let mut answer = match office.client.get(&format!("/calls/{id}")) {
        Err(ClientError::Unreachable { .. }) if office.places.database.exists() => {
            complain("no server answers: read from its database");
            serde_json::json!({ "live": false, "call": stored(office, id)? })
        }
        other => other?,
    };
    let call = answer["call"].take();
    if args.json {
        return output::json(&call);
    }
    output::say(&match answer["live"] == true {
        true => progress(office, &serde_json::from_value(call)?),
        false => past(office, &serde_json::from_value(call)?),
    })
}

fn stored(office: &Office, id: RecordId) -> Result<Value, Fail> {
    let mut reader = Sqlite::open_reader(&office.places.database).map_err(|e| Fail::Failed(e.to_string()))?;
    let record = reader.record(id).map_err(|e| Fail::Failed(e.to_string()))?;
    Ok(serde_json::to_value(record.ok_or_else(|| Fail::NotFound(format!("there is no call {id}")))?)?)
}

fn progress(office: &Office, call: &LiveCall) -> String {
    let mut page = Page::default();
    page.line("call", &format!("{}, {}, {}", call.id, word(call.direction), call.state));
    page.line("caller", &call.caller);
    page.line("called", &call.called);
    let since = office.time(call.started_at, "%Y-%m-%d %H:%M:%S");
    page.line("since", &format!("{since} ({})", office.zone()));
    page.line("with", &call.with.join(", "));
    page.line("trunk", call.trunk.as_deref().unwrap_or_default());
    page.line("shown", call.shown.as_deref().unwrap_or_default());
    page.0
}

fn past(office: &Office, record: &CallRecord) -> String {
    let mut page = Page::default();
    let (caller, called) = (&record.caller, &record.called);
    page.line("call", &format!("{}, {}, {}", record.id, word(record.direction), word(record.outcome)));
    page.line("caller", &named(caller.number.as_deref(), caller.name.as_deref()));
    page.line("called", &named(Some(&called.number), called.label.as_deref().or(called.campaign.as_deref())));
    page.line("shown", record.shown.as_deref().unwrap_or_default());
    page.line("trunk", record.trunk.as_deref().unwrap_or_default());
    page.line("answered by", record.answered_by.as_deref().unwrap_or_default());
    let time = |at| office.time(at, "%H:%M:%S");
    let answered = record.answered_at.map(|at| format!(", answered {}", time(at))).unwrap_or_default();
    let began = office.time(record.started_at, "%Y-%m-%d %H:%M:%S");
    page.line("time", &format!("{began}{answered}, ended {} ({})", time(record.ended_at), office.zone()));
    let spent = [("wait", record.wait_ms), ("talk", record.talk_ms), ("hold", record.hold_ms)];
    page.line("spent", &spent.map(|(what, ms)| format!("{what} {}", output::lasted(ms))).join(", "));
    page.line("ended", &ended(&record.hangup));
    page.line("note", record.note.as_deref().unwrap_or_default());
    page.head("journey");
    for phase in &record.journey {
        let ms = u64::try_from((phase.until - phase.at).as_millis()).unwrap_or(u64::MAX);
        let words = format!("{:<8} {:>9}  {}", word(phase.phase), output::lasted(ms), phase.why);
        page.line(&office.time(phase.at, CLOCK), &words);
        for who in &phase.who {
            let why = who.why.as_deref().map(|w| format!(" ({w})")).unwrap_or_default();
            page.line("", &format!("{:20}{}: {}{why}", "", who.target, who.result));
        }
    }
    page.head("why");
    for why in &record.explain {
        page.line("", &format!("{}: {}", why.rule, why.because));
    }
    if !record.recordings.is_empty() {
        page.head("recordings");
    }
    for entry in &record.recordings {
        page.line("", &recording(office, entry));
    }
    page.0
}

/// `by the caller`; of a call that nobody took, with the status that the caller got.
fn ended(hangup: &Hangup) -> String {
    let reason = hangup.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
    match (hangup.by, hangup.sip) {
        (By::Caller, Some(_)) => format!("by the caller, before anybody took it{reason}"),
        (By::Caller, None) => format!("by the caller{reason}"),
        (By::Callee, None) => format!("by the one called{reason}"),
        (By::System, None) => format!("by strowger{reason}"),
        (By::Callee | By::System, Some(status)) => {
            let end = format!("{status} {}", phrase(status));
            match hangup.reason.as_deref().filter(|r| *r != end) {
                // In whose words the caller heard it is not known here.
                Some(reason) => format!("nobody took it ({reason}); the caller got {status}"),
                None => format!("nobody took it; the caller got {end}"),
            }
        }
    }
}

fn named(number: Option<&str>, name: Option<&str>) -> String {
    match (number, name) {
        (Some(number), Some(name)) => format!("{number} ({name})"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "withheld".to_owned(),
    }
}

fn recording(office: &Office, entry: &RecordingEntry) -> String {
    let file = entry.id.parse().ok().map(|id| crate::io::record::path(&office.places.recordings, id, 1));
    let file = file.map_or_else(|| entry.id.clone(), |f| f.display().to_string());
    let mut notes = Vec::new();
    if let Some(at) = entry.deleted_at {
        notes.push(format!("deleted {}", office.time(at, "%Y-%m-%d")));
    }
    if !entry.complete {
        notes.push("not complete".to_owned());
    }
    if entry.gaps_ms > 0 {
        notes.push(format!("{} of gaps", output::lasted(entry.gaps_ms)));
    }
    if !entry.undecoded.is_empty() {
        notes.push("some of it could not be decoded".to_owned());
    }
    if notes.is_empty() { file } else { format!("{file} ({})", notes.join(", ")) }
}

/// Lines of a name and a value.
#[derive(Default)]
struct Page(String);

impl Page {
    /// One line; none where there is nothing to say. Writing to a string cannot fail.
    fn line(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            let line = format!("{name:<12}  {}", output::plain(text));
            writeln!(self.0, "{}", line.trim_end()).ok();
        }
    }

    fn head(&mut self, name: &str) {
        writeln!(self.0, "\n{name}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_call_ended() {
        for (by, sip, reason, want) in [
            (By::Caller, None, None, "by the caller"),
            (By::Callee, None, Some("Normal Clearing"), "by the one called: Normal Clearing"),
            (By::Caller, Some(487), None, "by the caller, before anybody took it"),
            (By::Callee, Some(480), None, "nobody took it; the caller got 480 Temporarily Unavailable"),
            (By::Callee, Some(486), Some("486 Busy Here"), "nobody took it; the caller got 486 Busy Here"),
            (By::System, Some(503), Some("no port"), "nobody took it (no port); the caller got 503"),
            (
                By::Callee,
                Some(403),
                Some("403 Account blocked"),
                "nobody took it (403 Account blocked); the caller got 403",
            ),
            (By::System, None, Some("ended by the operator"), "by strowger: ended by the operator"),
        ] {
            let reason = reason.map(str::to_owned);
            assert_eq!(ended(&Hangup { by, sip, reason }), want);
        }
    }
}
