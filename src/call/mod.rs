//! A call and what remains of it.

pub mod record;
