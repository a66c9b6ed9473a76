//! `strowger phones`.

use serde::{Deserialize, Serialize};

use super::{Fail, Office, complain, output};
use crate::b2bua::{PhoneView, Trouble};
use crate::base::Wall;
use crate::io::clock::Clock;
use crate::io::live::Away;

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those that are registered.
    #[arg(long)]
    registered: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// An extension with a phone, or without.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Phone {
    Here(Box<PhoneView>),
    Away(Away),
}

/// Lists extensions and their phones.
pub fn run(office: &Office, args: &Args) -> Result<(), Fail> {
    let mut phones: Vec<Phone> = office.items("/phones")?;
    phones.retain(|phone| !args.registered || matches!(phone, Phone::Here(_)));
    if args.json {
        return phones.iter().try_for_each(output::json);
    }
    if phones.is_empty() {
        complain(if args.registered { "no phone is registered" } else { "there is no [[extension]]" });
        return Ok(());
    }
    let now = Clock::new().wall();
    let row = |phone: &Phone| match phone {
        Phone::Here(phone) => here(office, phone, now),
        Phone::Away(away) => gone(office, away),
    };
    let until = office.column("UNTIL");
    output::table(["EXTENSION", "NAME", "FROM", &until, "REACHED", "USER AGENT", "CONTACT"], phones.iter().map(row))
}

fn here(office: &Office, phone: &PhoneView, now: Wall) -> [String; 7] {
    [
        phone.extension.clone(),
        phone.name.clone(),
        format!("{} {}", phone.transport, phone.source),
        office.time(phone.expires_at, "%H:%M:%S"),
        reached(office, phone, now),
        phone.user_agent.clone().unwrap_or_else(|| "-".to_owned()),
        phone.contact.clone(),
    ]
}

fn gone(office: &Office, away: &Away) -> [String; 7] {
    let none = || "-".to_owned();
    let last = away.last.as_ref();
    let reached = last.map_or_else(
        || "no".to_owned(),
        |last| format!("no: {} at {}", last.because, office.time(last.at, "%m-%d %H:%M:%S")),
    );
    [
        away.extension.clone(),
        away.name.clone(),
        last.map_or_else(|| "not registered".to_owned(), |last| format!("not registered (was at {})", last.source)),
        none(),
        reached,
        last.and_then(|last| last.user_agent.clone()).unwrap_or_else(none),
        none(),
    ]
}

/// Whether calls reach it, as far as is known.
fn reached(office: &Office, phone: &PhoneView, now: Wall) -> String {
    match phone.trouble.filter(|_| phone.trouble_until.is_none_or(|until| until > now)) {
        Some(Trouble::Bounced) => "bounced: tried last".to_owned(),
        Some(Trouble::Closed) => "no: connection gone".to_owned(),
        None => phone.unanswered_at.map_or_else(
            || "yes".to_owned(),
            |at| format!("did not answer the INVITE of {}", office.time(at, "%m-%d %H:%M:%S")),
        ),
    }
}
