//! What every layer stands on, and what knows nothing of SIP: instants, deadlines, randomness, tables.

pub mod lines;
pub mod rng;
pub mod time;
pub mod timer;

pub use lines::{Budget, Lines};
pub use rng::Rng;
pub use time::{Instant, Now, Wall};
pub use timer::Timers;

/// A hash map whose order is the same in every run. Keys that come from the network belong into a table that is seeded
/// from [`Rng`] (see [`Rng::hasher`]); this one is for keys of our own.
pub type Map<K, V> = hashbrown::HashMap<K, V, ahash::RandomState>;

/// An empty [`Map`].
pub fn map<K, V>() -> Map<K, V> {
    Map::with_hasher(ahash::RandomState::with_seeds(0x5354_524f_5747_4552, 1, 2, 3))
}
