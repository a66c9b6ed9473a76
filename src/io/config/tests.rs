//! Configurations good and bad.

use super::*;

#[test]
fn the_office_is_accepted_as_it_stands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/office.toml");
    let config = Config::load(&path).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert_eq!(config.directory.not_yet.len(), 27);
}
