//! `strowger records`.

use super::output::{self, word};
use super::{Fail, Office, complain};
use crate::base::Wall;
use crate::call::record::{CallRecord, Outcome};
use crate::directory::{Country, E164};
use crate::io::api::client::ClientError;
use crate::io::api::{Page, Wanted};
use crate::io::clock::Clock;
use crate::io::config::duration;
use crate::io::store::{Reader, Sqlite, StoreError};

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Calls that began since: today, yesterday, `24h`, `7d`, 2026-11-22, 2026-11-22T09:00, or RFC 3339.
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    since: String,
    /// Calls that began before.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Calls of this number, however it is written: caller, called or shown.
    #[arg(long)]
    number: Option<String>,
    /// Calls with this outcome: answered, non_target, short, missed, busy, rejected, failed.
    #[arg(long)]
    outcome: Option<String>,
    /// As CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Columns of the CSV form; new ones are added at the end.
#[rustfmt::skip]
const COLUMNS: [&str; 25] = [
    "id", "direction", "started_at", "answered_at", "ended_at", "caller", "caller_name", "category", "region", "called",
    "label", "campaign", "channel", "brand", "shown", "outcome", "answered_by", "branch", "trunk", "wait_ms", "talk_ms",
    "hold_ms", "ended_by", "sip", "reason",
];

/// Lists finished calls.
pub fn run(office: &Office, args: &Args) -> Result<(), Fail> {
    let mut wanted = Wanted {
        since: Some(instant(office, "--since", &args.since)?),
        until: args.until.as_deref().map(|t| instant(office, "--until", t)).transpose()?,
        number: args.number.as_deref().map(|text| number(text, office.places.country)),
        outcome: args.outcome.as_deref().map(outcome).transpose()?,
        ..Wanted::default()
    };
    let mut source = Source { office, offline: None };
    let mut rows = Vec::new();
    let mut page = source.page(&wanted)?;
    if args.csv {
        output::say(&output::csv(COLUMNS))?;
    }
    loop {
        for record in &page.items {
            if args.json {
                output::json(record)?;
            } else if args.csv {
                output::say(&output::csv(cells(record).iter().map(String::as_str)))?;
            } else {
                rows.push(row(office, record));
            }
        }
        match page.next {
            Some(next) => wanted.after = Some(next),
            None => break,
        }
        page = source.page(&wanted)?;
    }
    if args.csv || args.json {
        return Ok(());
    }
    if rows.is_empty() {
        complain(&format!("no finished calls since {}", output::plain(&args.since)));
        return Ok(());
    }
    let started = office.column("STARTED");
    output::table([&started, "WAY", "CALLER", "CALLED", "OUTCOME", "ANSWERED BY", "WAIT", "TALK", "ID"], rows)
}

/// Where records come from: the server, or its database while it does not run.
struct Source<'a> {
    office: &'a Office,
    offline: Option<Box<dyn Reader>>,
}

impl Source<'_> {
    fn page(&mut self, wanted: &Wanted) -> Result<Page, Fail> {
        let failed = |e: StoreError| Fail::Failed(e.to_string());
        if self.offline.is_none() {
            match self.office.client.get(&format!("/records?{}", output::query(wanted))) {
                Ok(answer) => return Ok(serde_json::from_value(answer)?),
                Err(ClientError::Unreachable { .. }) if self.office.places.database.exists() => {
                    complain("no server answers: read from its database");
                    self.offline = Some(Box::new(Sqlite::open_reader(&self.office.places.database).map_err(failed)?));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let reader = self.offline.as_mut().expect("it was opened above, or this returned");
        Page::read(&mut **reader, wanted.clone()).map_err(failed)
    }
}

fn outcome(word: &str) -> Result<Outcome, Fail> {
    serde_json::from_value(word.into()).map_err(|_| {
        let known = "answered, non_target, short, missed, busy, rejected, failed";
        Fail::Usage(format!("--outcome {}: one of {known}", output::plain(word)))
    })
}

/// A telephone number as records have it, in E.164; what is none (an extension, a queue) as it stands.
fn number(text: &str, country: Option<Country>) -> String {
    E164::read(text.trim(), country).map_or_else(|| text.trim().to_owned(), |number| number.to_string())
}

/// `7d` ago, a day or a time in the office's zone, or an instant.
fn instant(office: &Office, option: &str, text: &str) -> Result<Wall, Fail> {
    if let Ok(ago) = duration(text) {
        let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        return Ok(Wall::from_micros(Clock::new().wall().micros().saturating_sub(micros)));
    }
    let day = match text {
        "today" => Some(0),
        "yesterday" => Some(1),
        _ => None,
    };
    if let Some(days) = day {
        return Ok(midnight(Clock::new().wall(), &office.places.zone, days));
    }
    let stamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(civil.to_zoned(office.places.zone.clone()).ok()?.timestamp())
    });
    let stamp = stamp.ok_or_else(|| {
        let clean = output::plain(text);
        Fail::Usage(format!(
            "{option} {clean}: write today, yesterday, 24h, 7d, 2026-11-22, 2026-11-22T09:00 or an instant by RFC 3339"
        ))
    })?;
    Ok(Wall::from_micros(stamp.as_microsecond()))
}

/// The beginning of the day that was so many days before now, there.
fn midnight(now: Wall, zone: &jiff::tz::TimeZone, days: i64) -> Wall {
    let here = now.timestamp().to_zoned(zone.clone());
    let day = here.date().checked_sub(jiff::Span::new().days(days)).unwrap_or(here.date());
    let begins = day.to_zoned(zone.clone()).map_or(now.timestamp(), |zoned| zoned.timestamp());
    Wall::from_micros(begins.as_microsecond())
}

fn row(office: &Office, record: &CallRecord) -> [String; 9] {
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
    [
        office.time(record.started_at, "%m-%d %H:%M:%S"),
        word(record.direction),
        or(&record.caller.number, "withheld"),
        record.called.number.clone(),
        word(record.outcome),
        or(&record.answered_by, "-"),
        output::lasted(record.wait_ms),
        output::lasted(record.talk_ms),
        record.id.to_string(),
    ]
}

fn cells(record: &CallRecord) -> [String; 25] {
    let or = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        record.id.to_string(),
        word(record.direction),
        record.started_at.to_string(),
        record.answered_at.map(|at| at.to_string()).unwrap_or_default(),
        record.ended_at.to_string(),
        or(&record.caller.number),
        or(&record.caller.name),
        or(&record.caller.category),
        or(&record.caller.region),
        record.called.number.clone(),
        or(&record.called.label),
        or(&record.called.campaign),
        or(&record.called.channel),
        record.called.brand.to_string(),
        or(&record.shown),
        word(record.outcome),
        or(&record.answered_by),
        or(&record.branch),
        or(&record.trunk),
        record.wait_ms.to_string(),
        record.talk_ms.to_string(),
        record.hold_ms.to_string(),
        word(record.hangup.by),
        record.hangup.sip.map(|s| s.to_string()).unwrap_or_default(),
        or(&record.hangup.reason),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_of_the_office() {
        let zone = jiff::tz::TimeZone::get("Asia/Novosibirsk").expect("it is known");
        let now = Wall::try_from("2026-11-25T20:00:00Z".to_owned()).expect("a stamp");
        // It is the 26th already in Novosibirsk.
        for (days, want) in [(0, "2026-11-25T17:00:00.000Z"), (1, "2026-11-24T17:00:00.000Z")] {
            assert_eq!(midnight(now, &zone, days).to_string(), want);
        }
    }

    #[test]
    fn a_number_in_any_spelling() {
        for (text, want) in [
            ("+79131234567", "+79131234567"),
            ("8 (913) 123-45-67", "+79131234567"),
            ("79131234567", "+79131234567"),
            ("9131234567", "+79131234567"),
            (" 121 ", "121"),
            ("sales", "sales"),
        ] {
            assert_eq!(number(text, Some(Country::RU)), want);
        }
        assert_eq!(number("+442071234567", None), "+442071234567");
    }
}
