//! `strowger trunks`.

use super::{Fail, Office, complain, output};
use crate::b2bua::TrunkView;
use crate::base::Wall;

/// Lists trunks.
pub fn run(office: &Office, json: bool) -> Result<(), Fail> {
    let trunks: Vec<TrunkView> = office.items("/trunks")?;
    if json {
        return trunks.iter().try_for_each(output::json);
    }
    if trunks.is_empty() {
        complain("no trunk is configured");
        return Ok(());
    }
    let row = |trunk: &TrunkView| {
        [
            trunk.name.clone(),
            if trunk.up { "up" } else { "down" }.to_owned(),
            // The epoch: nothing has been heard of it yet.
            if trunk.since == Wall::default() { "-".to_owned() } else { office.time(trunk.since, "%Y-%m-%d %H:%M:%S") },
            trunk.calls.to_string(),
            trunk.registration.clone().unwrap_or_else(|| "-".to_owned()),
            trunk.because.clone(),
            trunk.uris.join(", "),
        ]
    };
    output::table(["TRUNK", "STATE", "SINCE", "CALLS", "REGISTRATION", "BECAUSE", "URIS"], trunks.iter().map(row))
}
