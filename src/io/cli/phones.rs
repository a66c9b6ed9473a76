//! `strowger phones`.

use super::{Fail, Office, complain, output};
use crate::b2bua::{PhoneView, Trouble};
use crate::base::Wall;
use crate::io::clock::Clock;

/// Lists registered phones.
pub fn run(office: &Office, json: bool) -> Result<(), Fail> {
    let phones: Vec<PhoneView> = office.items("/phones")?;
    if json {
        return phones.iter().try_for_each(output::json);
    }
    if phones.is_empty() {
        complain("no phone is registered");
        return Ok(());
    }
    let now = Clock::new().wall();
    let row = |phone: &PhoneView| {
        [
            phone.extension.clone(),
            phone.name.clone(),
            format!("{} {}", phone.transport, phone.source),
            office.time(phone.expires_at, "%H:%M:%S"),
            reached(phone, now).to_owned(),
            phone.user_agent.clone().unwrap_or_else(|| "-".to_owned()),
            phone.contact.clone(),
        ]
    };
    output::table(["EXTENSION", "NAME", "FROM", "UNTIL", "REACHED", "USER AGENT", "CONTACT"], phones.iter().map(row))
}

/// Whether calls reach it, as far as is known.
fn reached(phone: &PhoneView, now: Wall) -> &'static str {
    match phone.trouble.filter(|_| phone.trouble_until.is_none_or(|until| until > now)) {
        None => "yes",
        Some(Trouble::Bounced) => "bounced: tried last",
        Some(Trouble::Closed) => "no: connection gone",
    }
}
