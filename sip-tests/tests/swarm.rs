//! Plays seeded worlds.
fn main() {}
