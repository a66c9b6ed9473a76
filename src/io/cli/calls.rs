//! `strowger calls`.

use super::{Fail, Office, complain, output};
use crate::b2bua::LiveCall;

/// Lists calls in progress.
pub fn run(office: &Office, json: bool) -> Result<(), Fail> {
    let calls: Vec<LiveCall> = office.items("/calls")?;
    if json {
        return calls.iter().try_for_each(output::json);
    }
    if calls.is_empty() {
        complain("no calls");
        return Ok(());
    }
    let row = |call: &LiveCall| {
        [
            office.time(call.started_at, "%H:%M:%S"),
            output::word(call.direction),
            call.state.to_string(),
            call.caller.clone(),
            call.called.clone(),
            if call.with.is_empty() { "-".to_owned() } else { call.with.join(", ") },
            call.trunk.clone().unwrap_or_else(|| "-".to_owned()),
            call.id.to_string(),
        ]
    };
    let since = office.column("SINCE");
    output::table([&since, "WAY", "STATE", "CALLER", "CALLED", "WITH", "TRUNK", "ID"], calls.iter().map(row))
}
