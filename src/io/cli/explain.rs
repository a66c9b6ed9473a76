//! `strowger explain`: what would become of a call, told as a colleague would.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::output::{self, plain};
use super::{Fail, Office, complain};
use crate::base::Wall;
use crate::directory::Directory;
use crate::io::api::client::ClientError;
use crate::io::clock::Clock;
use crate::io::config::Config;
use crate::io::config::problem::suggest;
use crate::io::import::imported;
use crate::policy::explain::{Leg, Question, Step, Way};
use crate::policy::{Explained, Live, Why, explain, gave_nothing};
use crate::sip::phrase;

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A call that comes in from a carrier, or one that a phone of ours makes.
    way: Direction,
    /// Who calls: a number or `anonymous`; for outbound an extension.
    #[arg(long)]
    from: String,
    /// What is called: a number of ours; for outbound what is dialled.
    #[arg(long)]
    to: String,
    /// When, e.g. 2026-11-22T18:05[Asia/Novosibirsk]; without a zone in the node's; now if absent.
    #[arg(long)]
    at: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Direction {
    Inbound,
    Outbound,
}

/// Explains a call.
pub fn run(config: &std::path::Path, args: &Args) -> Result<(), Fail> {
    let office = Office::open(config)?;
    let at = args.at.as_deref().map(|text| instant(&office, text)).transpose()?;
    let way = match args.way {
        Direction::Inbound => Way::Inbound,
        Direction::Outbound => Way::Outbound,
    };
    let question = Question { way, from: args.from.trim().to_owned(), to: args.to.trim().to_owned(), at };
    let (told, alone) = match office.client.get(&format!("/explain?{}", output::query(&question))) {
        Ok(answer) => (serde_json::from_value(answer)?, None),
        Err(error @ (ClientError::Unreachable { .. } | ClientError::Denied { .. })) => {
            (offline(config, &question)?, Some(error))
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(why) = alone {
        let why = match why {
            ClientError::Unreachable { .. } => "no server answers".to_owned(),
            other => other.to_string(),
        };
        complain(&format!("{why}: all phones are taken as registered and free, all trunks as up"));
    }
    if args.json {
        return output::json(&Explained::json(&told));
    }
    let when = office.time(told.at, "%A %Y-%m-%d %H:%M");
    output::say(&tell(&told, &question, &format!("{when} in {}", office.zone())))
}

/// By the configuration alone.
fn offline(config: &std::path::Path, question: &Question) -> Result<Explained, Fail> {
    let config = Config::load(config)?;
    let mut directory = std::sync::Arc::unwrap_or_clone(config.directory);
    match imported::load(&config.files.imported) {
        Ok(lists) => lists.put_into(&mut directory),
        Err(error) => complain(&format!("what was imported is left out: {error}")),
    }
    let ask = question.ask(&directory).map_err(|why| Fail::NotFound(plain(&why)))?;
    let at = question.at.unwrap_or_else(|| Clock::new().wall());
    Ok(explain(&ask, &directory, &AllFree(&directory), at))
}

/// Every phone is registered and free, every trunk is up.
struct AllFree<'a>(&'a Directory);

impl Live for AllFree<'_> {
    fn bindings(&self, extension: &str) -> usize {
        usize::from(self.0.extension(extension).is_some())
    }
    fn calls(&self, _: &str) -> u32 {
        0
    }
    fn trunk_up(&self, _: &str) -> bool {
        true
    }
    fn trunk_calls(&self, _: &str) -> u32 {
        0
    }
}

/// `2026-11-22T18:05[Asia/Novosibirsk]`, an instant by RFC 3339, or a local time of the node.
fn instant(office: &Office, text: &str) -> Result<Wall, Fail> {
    let zoned = || text.parse::<jiff::Zoned>().ok().map(|z| z.timestamp());
    let stamp = || text.parse::<jiff::Timestamp>().ok();
    let local = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(civil.to_zoned(office.places.zone.clone()).ok()?.timestamp())
    };
    // A local time with a zone that there is not is no local time of the node.
    if let Some((_, zone)) = text.split_once('[')
        && zoned().is_none()
    {
        let zone = plain(zone.trim_end_matches(']'));
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let hint = suggest(&zone, known.iter().map(String::as_str), "");
        let hint = if hint.starts_with("did") { hint } else { "write it as Asia/Novosibirsk".to_owned() };
        return Err(Fail::Usage(format!("--at: there is no time zone {zone}, or no such time in it; {hint}")));
    }
    let found = zoned().or_else(stamp).or_else(local);
    let found = found.ok_or_else(|| {
        let clean = plain(text);
        Fail::Usage(format!(
            "--at {clean}: write 2026-11-22T18:05, 2026-11-22T18:05[Asia/Novosibirsk] or an instant by RFC 3339"
        ))
    })?;
    Ok(Wall::from_micros(found.as_microsecond()))
}

fn tell(told: &Explained, question: &Question, when: &str) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{}", plain(&words));
    };
    let way = if question.way == Way::Inbound { "calls" } else { "dials" };
    line(format!("{} {way} {}, {when}.", question.from, question.to));
    for why in &told.decided {
        line(sentence(why));
    }
    for (i, step) in told.steps.iter().enumerate() {
        let mut sentences = reasons(step);
        let first = if sentences.len() == 1 { sentences.remove(0) } else { String::new() };
        line(format!("{}. {}: {first}", i + 1, step.target).trim_end().to_owned());
        sentences.into_iter().for_each(|sentence| line(format!("   {sentence}")));
    }
    let rang = told.steps.iter().any(|s| !s.legs.is_empty());
    let refused = told.steps.iter().any(|s| s.refused.is_some());
    let end = format!("{} {}", told.last, phrase(told.last));
    match (rang, refused) {
        (_, true) => {}
        (true, false) if question.way == Way::Inbound => line(format!("If nobody answers, the caller gets {end}.")),
        (true, false) => {}
        (false, false) => line(format!("So nobody rings, and the caller gets {end}.")),
    }
    text
}

/// `Route "x" is not taken: …`.
fn sentence(why: &Why) -> String {
    let is = if why.rule.starts_with("route ") { " is " } else { ": " };
    let mut chars = why.rule.chars();
    let rule: String = chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect();
    format!("{rule}{is}{}.", why.because)
}

/// Why a step is as it is, and who rings: a sentence each.
fn reasons(step: &Step) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    let mut nothing: Vec<&str> = Vec::new();
    for why in &step.why {
        // Most rules of the caller ID say nothing of most numbers; `--json` has the reason of each.
        if let Some(rule) = gave_nothing(why) {
            nothing.push(rule);
            continue;
        }
        let mut sentence = match *why.rule == *step.target {
            true => why.because.clone(),
            false => format!("{}: {}", why.rule, why.because),
        };
        if *why.rule == *"caller ID" && !nothing.is_empty() {
            sentence.push_str(&format!(" (no number by {})", list(&std::mem::take(&mut nothing), "or")));
        }
        sentence.push('.');
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    if !nothing.is_empty() {
        sentences.push(format!("caller ID: no number by {}.", list(&nothing, "or")));
    }
    for (i, legs) in step.legs.chunk_by(|a, b| a.turn == b.turn).enumerate() {
        let rings = if i == 0 { "Rings" } else { "Then rings" };
        let time = format!("for up to {}", seconds(legs.first().map_or(0, |leg| leg.ring_ms)));
        match ringing(legs) {
            words if words.len() > 1 => {
                sentences.push(format!("{rings} {time}:"));
                sentences.extend(words.into_iter().map(|words| format!("- {words}")));
            }
            words => sentences.push(format!("{rings} {}, {time}.", words.concat())),
        }
    }
    if sentences.is_empty() {
        sentences.push("Nobody rings.".to_owned());
    }
    sentences
}

/// `a, b or c`.
fn list(words: &[&str], last_but: &str) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {last_but} {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// `extension:121 (Anna)`; `the mobile of 121, number:… by trunk a showing … (else by …; has to press 1)`.
fn ringing(legs: &[Leg]) -> Vec<String> {
    let by = |leg: &Leg| match (&leg.trunk, leg.shown) {
        (Some(trunk), Some(shown)) => format!(" by trunk {trunk} showing {shown}"),
        (Some(trunk), None) => format!(" by trunk {trunk} showing no number"),
        (None, _) => String::new(),
    };
    // A leg with those that ring in its place.
    let one = |legs: &[Leg]| {
        let Some((leg, instead)) = legs.split_first() else { return String::new() };
        let whose = leg.mobile_of.as_deref().map(|owner| format!("the mobile of {owner}, ")).unwrap_or_default();
        let name = leg.name.as_deref().map(|n| format!(" ({n})")).unwrap_or_default();
        let mut notes: Vec<String> = instead.iter().map(|leg| format!("else{}", by(leg))).collect();
        if leg.after_ms > 0 {
            notes.push(format!("after {}", seconds(leg.after_ms)));
        }
        if leg.confirm {
            notes.push("has to press 1".to_owned());
        }
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        format!("{whose}{}{name}{}{notes}", leg.target, by(leg))
    };
    legs.chunk_by(|_, next| next.instead).map(one).collect()
}

fn seconds(ms: u64) -> String {
    match ms {
        ms if ms % 60_000 == 0 && ms >= 120_000 => format!("{} min", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_in_words() {
        let leg = |target: &str, trunk: Option<&str>, instead| Leg {
            target: target.into(),
            name: None,
            ring_ms: 20_000,
            after_ms: 0,
            trunk: trunk.map(Into::into),
            shown: trunk.and_then(|_| "+73433000001".parse().ok()),
            turn: 1,
            mobile_of: None,
            confirm: false,
            instead,
        };
        let mobile = |instead| Leg {
            mobile_of: Some("121".into()),
            confirm: true,
            after_ms: 5000,
            ..leg("number:+79120000777", Some(if instead { "b" } else { "a" }), instead)
        };
        let step = |why: &[(&str, &str)], legs| {
            let why = why.iter().map(|(rule, because)| Why::new(*rule, *because)).collect();
            let step = Step { target: "queue:sales".to_owned(), taken: true, why, legs, refused: None };
            reasons(&step).join("\n")
        };
        for (legs, want) in [
            (vec![leg("extension:121", None, false)], "Rings extension:121, for up to 20 s."),
            (
                vec![
                    leg("extension:121", None, false),
                    leg("extension:122", None, false),
                    leg("extension:123", None, false),
                ],
                "Rings for up to 20 s:\n- extension:121\n- extension:122\n- extension:123",
            ),
            (
                vec![leg("number:+79120000777", Some("a"), false), leg("number:+79120000777", Some("b"), true)],
                "Rings number:+79120000777 by trunk a showing +73433000001 (else by trunk b showing +73433000001), for up to 20 s.",
            ),
            (
                vec![leg("extension:121", None, false), mobile(false), mobile(true), leg("extension:122", None, false)],
                "Rings for up to 20 s:\n- extension:121\n- the mobile of 121, number:+79120000777 by trunk a showing +73433000001 \
                 (else by trunk b showing +73433000001; after 5 s; has to press 1)\n- extension:122",
            ),
            (Vec::new(), "Nobody rings."),
        ] {
            assert_eq!(step(&[], legs), want);
        }
        let caller_id = [
            ("queue:sales", "open"),
            ("caller ID", "sticky: +79120000777 has not called"),
            ("caller ID", "city: the city of +79120000777 is not known"),
            ("caller ID", "region: +73433000002 not shown: its trunk cannot take the call"),
            ("caller ID", "branch: the caller has no branch"),
            ("caller ID", "+73433000001, default: what the configuration names; on trunk a"),
        ];
        let want = "open.\ncaller ID: region: +73433000002 not shown: its trunk cannot take the call (no number by sticky or city).\n\
                    caller ID: +73433000001, default: what the configuration names; on trunk a (no number by branch).\n\
                    Rings extension:121, for up to 20 s.";
        assert_eq!(step(&caller_id, vec![leg("extension:121", None, false)]), want);
        assert_eq!(step(&caller_id[1..2], Vec::new()), "caller ID: no number by sticky.");
        for (ms, want) in [(1_500, "1500 ms"), (90_000, "90 s"), (180_000, "3 min")] {
            assert_eq!(seconds(ms), want);
        }
    }
}
