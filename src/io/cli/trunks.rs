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
            state(trunk).to_owned(),
            // The epoch: nothing has been heard of it yet.
            if trunk.since == Wall::default() { "-".to_owned() } else { office.time(trunk.since, "%Y-%m-%d %H:%M:%S") },
            trunk.calls.to_string(),
            because(trunk),
            trunk.uris.join(", "),
        ]
    };
    let since = office.column("SINCE");
    output::table(["TRUNK", "STATE", &since, "CALLS", "BECAUSE", "URIS"], trunks.iter().map(row))
}

/// Whether it registers and is not registered.
fn lacks_registration(trunk: &TrunkView) -> bool {
    trunk.registration.as_deref().is_some_and(|state| state != "registered")
}

fn state(trunk: &TrunkView) -> &'static str {
    match (trunk.up, lacks_registration(trunk)) {
        (false, _) => "down",
        (true, true) => "not registered",
        (true, false) if trunk.registration.is_some() => "up, registered",
        (true, false) => "up",
    }
}

/// Why it is so.
fn because(trunk: &TrunkView) -> String {
    // The state says that already.
    let because = trunk.because.strip_prefix("down: ").filter(|_| !trunk.up).unwrap_or(&trunk.because);
    match trunk.registration.as_deref().filter(|_| lacks_registration(trunk)) {
        Some(registration) if trunk.up => format!("{registration}; calls are tried all the same"),
        Some(registration) => format!("{because}; {registration}"),
        None => because.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_that_is_not_registered_is_not_up() {
        let refused = "registration refused: 403 Forbidden";
        for (up, registration, is, why) in [
            (true, None, "up", "up"),
            (true, Some("registered"), "up, registered", "up"),
            (
                true,
                Some(refused),
                "not registered",
                "registration refused: 403 Forbidden; calls are tried all the same",
            ),
            (false, Some(refused), "down", "no answer; registration refused: 403 Forbidden"),
            (false, None, "down", "no answer"),
            (true, Some("expired"), "not registered", "expired; calls are tried all the same"),
        ] {
            let trunk = TrunkView {
                name: "t".to_owned(),
                up,
                since: Wall::default(),
                because: if up { "up" } else { "down: no answer" }.to_owned(),
                registration: registration.map(str::to_owned),
                calls: 0,
                uris: Vec::new(),
            };
            assert_eq!((state(&trunk), because(&trunk).as_str()), (is, why));
        }
    }
}
