//! The core as the world's subject.

use strowger::b2bua::{Action, Event};
use strowger::base::{Instant, Now};
use strowger::directory::Directory;

use crate::world::Subject;

/// A core that serves `directory`.
pub fn core(_directory: Directory, _seed: u64) -> Box<dyn Subject> {
    Box::new(Deaf)
}

/// Stands in until the core has landed.
struct Deaf;

impl Subject for Deaf {
    fn handle(&mut self, _now: Now, _event: Event) {}
    fn poll(&mut self) -> Option<Action> {
        None
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn tables(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}
