//! `strowger phones`.

use super::{Fail, Office, complain, output};
use crate::b2bua::PhoneView;

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
    let row = |phone: &PhoneView| {
        [
            phone.extension.clone(),
            phone.name.clone(),
            format!("{} {}", phone.transport, phone.source),
            office.time(phone.expires_at, "%H:%M:%S"),
            phone.user_agent.clone().unwrap_or_else(|| "-".to_owned()),
            phone.contact.clone(),
        ]
    };
    output::table(["EXTENSION", "NAME", "FROM", "UNTIL", "USER AGENT", "CONTACT"], phones.iter().map(row))
}
