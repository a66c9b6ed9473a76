//! Days as an office knows them, the production calendars of three years, and every change of the clock in every zone.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

use jiff::civil::{DateTime, date};
use proptest::prelude::*;

use super::*;

fn span(from: u16, until: u16) -> Span {
    Span { from: from / 100 * 60 + from % 100, until: until / 100 * 60 + until % 100 }
}

const WORKDAYS: [bool; 7] = [true, true, true, true, true, false, false];

fn week(spans: &[([bool; 7], Span)]) -> Week {
    let mut week = Week::default();
    spans.iter().for_each(|(days, span)| week.add(*days, *span));
    week
}

fn zone(name: &str) -> TimeZone {
    super::zone(name).expect("it is in the bundle")
}

fn wall(local: &str, zone: &TimeZone) -> Wall {
    let local: DateTime = local.parse().expect("a local time");
    let at = zone.to_ambiguous_timestamp(local).compatible().expect("within range");
    Wall::from_micros(at.as_microsecond())
}

/// The production calendars, read by path; none where they are not.
fn production() -> Vec<Year> {
    let data = std::env::var_os("STROWGER_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let read = |year| {
        let text = std::fs::read_to_string(data.join(format!("calendars/ru-{year}.json"))).ok()?;
        Some(Year::read(&text).expect("it is a production calendar"))
    };
    let years: Vec<Year> = [2024, 2025, 2026].into_iter().filter_map(read).collect();
    if years.is_empty() {
        eprintln!("SKIPPED: no calendars in {}", data.display());
    }
    years
}

#[test]
fn a_week_and_its_exceptions() {
    let saturday = [false, false, false, false, false, true, false];
    let mut shop = Calendar::new(
        "shop",
        week(&[
            (WORKDAYS, span(900, 1300)),
            (WORKDAYS, span(1400, 1800)),
            (saturday, span(2200, 3000)), // until Sunday 06:00
        ]),
    );
    let closed = |first, last| Except { first, last, week: Week::default() };
    shop.except = vec![
        closed(date(2026, 12, 28), date(2027, 1, 10)),
        Except { first: date(2026, 12, 29), last: date(2026, 12, 29), week: week(&[([true; 7], span(1000, 1200))]) },
        closed(date(2026, 11, 15), date(2026, 11, 15)), // a Sunday, which has no hours anyway
    ];
    let zone = zone("Asia/Yekaterinburg");
    for (local, hours, because) in [
        ("2026-11-25T08:59", Hours::Closed, "Wed 08:59 in Asia/Yekaterinburg: before hours (09:00-13:00, 14:00-18:00)"),
        ("2026-11-25T09:00", Hours::Open, "Wed 09:00 in Asia/Yekaterinburg: open (09:00-13:00, 14:00-18:00)"),
        ("2026-11-25T12:59:59", Hours::Open, "open"),
        ("2026-11-25T13:00", Hours::Closed, "between hours"),
        ("2026-11-25T14:00", Hours::Open, "open"),
        ("2026-11-25T18:00", Hours::Closed, "after hours"),
        ("2026-11-28T21:59", Hours::Closed, "before hours (22:00-06:00)"),
        ("2026-11-28T22:00", Hours::Open, "open (22:00-06:00)"),
        ("2026-11-29T05:59", Hours::Open, "Sun 05:59 in Asia/Yekaterinburg: still open since the evening before"),
        ("2026-11-29T06:00", Hours::Closed, "no hours on this weekday"),
        ("2026-11-15T03:00", Hours::Open, "still open since the evening before (22:00-06:00)"),
        ("2026-11-15T12:00", Hours::Closed, "by an exception"),
        ("2026-12-28T10:00", Hours::Holiday, "closed on 2026-12-28 by an exception of the calendar"),
        ("2026-12-29T10:00", Hours::Open, "open (10:00-12:00, by an exception)"),
        ("2026-12-29T12:00", Hours::Closed, "after hours (10:00-12:00, by an exception)"),
        ("2027-01-10T10:00", Hours::Closed, "by an exception"),
        ("2027-01-11T10:00", Hours::Open, "open"),
    ] {
        let (got, why) = shop.at(wall(local, &zone), &zone);
        assert_eq!(got, hours, "{local}: {why}");
        assert!(why.contains(because), "{local}: {why}");
    }
    assert_eq!(shop.missing(date(2026, 12, 31)), None, "it follows no production calendar");
}

#[test]
fn the_production_calendar_decides_within_the_week() {
    let years = production();
    if years.is_empty() {
        return;
    }
    let mut office = Calendar {
        shortened: Duration::from_secs(3600),
        follows: true,
        years,
        ..Calendar::new("office", week(&[(WORKDAYS, span(900, 1800))]))
    };
    // Mondays are short, to see whose hours a moved day has.
    office.week.0[0] = vec![span(1000, 1600)];
    office.except = vec![Except {
        first: date(2026, 12, 30),
        last: date(2026, 12, 30),
        week: week(&[(WORKDAYS, span(900, 1500))]),
    }];
    let zone = zone("Asia/Yekaterinburg");
    for (local, hours, because) in [
        ("2026-01-08T12:00", Hours::Holiday, "2026-01-08 is a day off in the production calendar"),
        ("2026-01-09T12:00", Hours::Holiday, "2026-01-09 is a day off"),
        ("2026-01-09T03:00", Hours::Holiday, "2026-01-09 is a day off"),
        ("2026-01-10T12:00", Hours::Closed, "no hours on this weekday"),
        ("2026-05-09T12:00", Hours::Closed, "2026-05-09 is a day off"), // a Saturday, on which nobody works anyway
        ("2026-04-30T16:59", Hours::Open, "open (09:00-17:00, shortened day)"),
        ("2026-04-30T17:00", Hours::Closed, "after hours (09:00-17:00, shortened day)"),
        ("2026-12-30T14:00", Hours::Open, "by an exception"),
        ("2026-12-30T15:30", Hours::Closed, "by an exception"),
        ("2026-12-31T12:00", Hours::Holiday, "2026-12-31 is a day off"),
        // Saturday 2025-11-01 is worked for Monday the 3rd, and ends early.
        ("2025-11-01T14:59", Hours::Open, "10:00-15:00, moved working day with the hours of Mon, shortened"),
        ("2025-11-01T15:00", Hours::Closed, "after hours"),
        ("2025-11-03T12:00", Hours::Holiday, "2025-11-03 is a day off"),
        // Saturday 2024-04-27 for Monday the 29th; 2024-11-02 for Tuesday 04-30; 2024-12-28 for Monday the 30th.
        ("2024-04-27T09:30", Hours::Closed, "before hours (10:00-16:00, moved working day with the hours of Mon)"),
        ("2024-11-02T16:59", Hours::Open, "09:00-17:00, moved working day with the hours of Tue, shortened"),
        ("2024-12-28T12:00", Hours::Open, "hours of Mon"),
        // No calendar for this year: the week holds.
        ("2027-01-01T12:00", Hours::Open, "open (09:00-18:00)"),
    ] {
        let (got, why) = office.at(wall(local, &zone), &zone);
        assert_eq!(got, hours, "{local}: {why}");
        assert!(why.contains(because), "{local}: {why}");
    }
    // A shop that opens on Saturdays does so on ordinary ones, and not on Victory Day.
    office.week.0[5] = vec![span(1000, 1500)];
    for (local, hours) in
        [("2026-01-17T12:00", Hours::Open), ("2026-05-09T12:00", Hours::Holiday), ("2026-01-03T12:00", Hours::Holiday)]
    {
        assert_eq!(office.at(wall(local, &zone), &zone).0, hours, "{local}");
    }
    for (today, missing) in
        [(date(2026, 10, 31), None), (date(2026, 11, 1), Some(2027)), (date(2027, 2, 1), Some(2027))]
    {
        assert_eq!(office.missing(today), missing, "{today}");
    }
}

#[test]
fn the_files_add_up_to_their_own_statistics() {
    for year in production() {
        // workdays of 2024, 2025, 2026, from the files' own statistics
        let workdays = match year.year {
            2024 => 248,
            _ => 247,
        };
        let first = date(year.year, 1, 1);
        let worked =
            first.series(jiff::ToSpan::days(1)).take_while(|d| d.year() == year.year).filter(|d| match year.day(*d) {
                Some(Special::Off) => false,
                Some(Special::Shortened | Special::Moved { .. }) => true,
                None => !matches!(d.weekday(), Weekday::Saturday | Weekday::Sunday),
            });
        assert_eq!(worked.count(), workdays, "{}", year.year);
    }
}

#[test]
fn json_and_xml_of_one_year_are_one() {
    let years = production();
    let Some(json) = years.iter().find(|y| y.year == 2026) else { return };
    let data = std::env::var_os("STROWGER_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let xml = std::fs::read_to_string(data.join("calendars/ru-2026.xml")).expect("it lies beside the JSON");
    assert_eq!(Year::read(&xml).as_ref(), Ok(json));
}

/// What jiff's civil arithmetic says: the local time lies between begin and end of a span of its day or the day before.
fn reference(week: &Week, at: jiff::Timestamp, zone: &TimeZone) -> bool {
    let local = at.to_zoned(zone.clone()).datetime();
    let begins = [local.date(), local.date().yesterday().expect("within range")];
    begins.into_iter().any(|day| {
        week.of(day.weekday()).iter().any(|s| {
            let minutes = |m: u16| jiff::SignedDuration::from_mins(i64::from(m));
            let midnight = day.to_datetime(jiff::civil::Time::midnight());
            let begin = midnight.checked_add(minutes(s.from)).expect("within range");
            let end = midnight.checked_add(minutes(s.until)).expect("within range");
            begin <= local && local < end
        })
    })
}

#[test]
fn every_change_of_every_clock() {
    // Hours that begin, end and lie within the hours at which clocks change, crossing midnight too.
    let calendar = Calendar::new(
        "night",
        week(&[
            ([true; 7], span(15, 130)),
            ([true; 7], span(200, 245)),
            (WORKDAYS, span(900, 1800)),
            ([true; 7], span(2230, 2410)),
        ]),
    );
    let (from, to): (jiff::Timestamp, jiff::Timestamp) =
        ("1990-01-01T00:00:00Z".parse().expect("a stamp"), "2040-01-01T00:00:00Z".parse().expect("a stamp"));
    let (mut zones, mut changes) = (0, 0);
    for name in TimeZoneDatabase::bundled().available() {
        let zone = zone(name.as_str());
        zones += 1;
        for change in zone.following(from).take_while(|c| c.timestamp() < to) {
            changes += 1;
            for minutes in [-121, -61, -31, -1, 0, 1, 29, 31, 59, 61, 121, 600] {
                let at = change.timestamp() + jiff::SignedDuration::from_mins(minutes);
                let (got, why) = calendar.at(Wall::from_micros(at.as_microsecond()), &zone);
                assert_eq!(got == Hours::Open, reference(&calendar.week, at, &zone), "{name} {at}: {why}");
            }
        }
    }
    assert!(zones > 400 && changes > 10_000, "{zones} zones, {changes} changes");
}

#[test]
fn an_hour_that_comes_twice_and_one_that_does_not_come() {
    let berlin = zone("Europe/Berlin");
    let night = Calendar::new("night", week(&[([true; 7], span(200, 300))]));
    // Berlin 2026: 02:00 to 03:00 is left out on 29 March and comes twice on 25 October (UTC+2, then UTC+1).
    for (utc, hours) in [
        ("2026-03-29T00:59:59Z", Hours::Closed), // 01:59:59
        ("2026-03-29T01:00:00Z", Hours::Closed), // 03:00
        ("2026-10-24T23:59:59Z", Hours::Closed), // 01:59:59
        ("2026-10-25T00:00:00Z", Hours::Open),   // 02:00, first time
        ("2026-10-25T00:59:59Z", Hours::Open),
        ("2026-10-25T01:00:00Z", Hours::Open), // 02:00, second time
        ("2026-10-25T01:59:59Z", Hours::Open),
        ("2026-10-25T02:00:00Z", Hours::Closed), // 03:00
    ] {
        let at: jiff::Timestamp = utc.parse().expect("a stamp");
        assert_eq!(night.at(Wall::from_micros(at.as_microsecond()), &berlin).0, hours, "{utc}");
    }
}

proptest! {
    #[test]
    fn any_week_any_instant(
        spans in proptest::collection::vec((any::<[bool; 7]>(), 0u16..1440, 1u16..=1440), 0..6),
        seconds in 631_152_000i64..2_208_988_800, // 1990 to 2040
        name in 0usize..400,
    ) {
        let bundle = TimeZoneDatabase::bundled();
        let names: Vec<_> = bundle.available().collect();
        let zone = zone(names[name % names.len()].as_str());
        let spans: Vec<_> = spans.into_iter().map(|(d, from, len)| (d, Span { from, until: from + len })).collect();
        let calendar = Calendar::new("any", week(&spans));
        let at = jiff::Timestamp::from_second(seconds).expect("within range");
        let (got, why) = calendar.at(Wall::from_micros(at.as_microsecond()), &zone);
        prop_assert_eq!(got == Hours::Open, reference(&calendar.week, at, &zone), "{}", why);
        prop_assert_ne!(got, Hours::Holiday);
    }
}
