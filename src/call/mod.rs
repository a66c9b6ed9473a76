//! A call and what remains of it.

pub mod journey;
pub mod record;
pub mod bridge;
