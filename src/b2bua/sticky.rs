//! Which number of ours a customer knows us by: the one called, or shown, last. Bounded: the oldest are forgotten first. The
//! table is filled from the call records at the start, so it is written down nowhere else.

use std::collections::VecDeque;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::base::Wall;
use crate::directory::E164;

/// Customers that are remembered at most.
pub const MAX_STICKY: usize = 200_000;

/// That a customer called a number of ours, or was shown it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// The customer.
    pub customer: E164,
    /// The number of ours.
    pub ours: E164,
    /// When.
    pub at: Wall,
}

/// The table.
#[derive(Debug)]
pub(super) struct Sticky {
    last: HashMap<E164, (E164, Wall), RandomState>,
    /// Customers by age. One who came again stands twice; only the entry with the table's own stamp counts.
    age: VecDeque<(E164, Wall)>,
    max: usize,
}

impl Sticky {
    pub fn new(max: usize, hasher: RandomState) -> Sticky {
        Sticky { last: HashMap::with_hasher(hasher), age: VecDeque::new(), max }
    }

    /// The later meeting counts, whichever is told first.
    pub fn met(&mut self, met: Met) {
        let Met { customer, ours, at } = met;
        if self.last.get(&customer).is_some_and(|(_, known)| *known > at) {
            return;
        }
        self.last.insert(customer, (ours, at));
        self.age.push_back((customer, at));
        while self.last.len() > self.max {
            let Some((oldest, at)) = self.age.pop_front() else { break };
            if self.last.get(&oldest).is_some_and(|(_, known)| *known == at) {
                self.last.remove(&oldest);
            }
        }
        if self.age.len() > self.max.saturating_mul(2) {
            let last = &self.last;
            self.age.retain(|(customer, at)| last.get(customer).is_some_and(|(_, known)| known == at));
        }
    }

    pub fn of(&self, customer: E164) -> Option<(E164, Wall)> {
        self.last.get(&customer).copied()
    }

    pub fn len(&self) -> usize {
        self.last.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn met(customer: u64, ours: u64, at: i64) -> Met {
        let number = |n: u64| E164::from_digits(&(79_130_000_000 + n).to_string()).expect("a number");
        Met { customer: number(customer), ours: number(ours), at: Wall::from_micros(at) }
    }

    #[test]
    fn the_later_counts_and_the_oldest_goes() {
        let mut sticky = Sticky::new(3, Rng::new([7; 32]).hasher());
        let of = |sticky: &Sticky, n| sticky.of(met(n, 0, 0).customer).map(|(ours, at)| (ours.digits(), at.micros()));
        let ours = |n: u64| (79_130_000_000 + n).to_string();
        for (customer, number, at) in [(1, 90, 10), (2, 91, 20), (1, 92, 30), (1, 93, 5), (3, 94, 40), (4, 95, 50)] {
            sticky.met(met(customer, number, at));
        }
        assert_eq!(of(&sticky, 1), Some((ours(92), 30)), "what is told late does not count");
        assert_eq!(of(&sticky, 2), None, "the oldest is forgotten");
        assert_eq!(of(&sticky, 4), Some((ours(95), 50)));
        // One customer who calls all day does not make the table grow.
        (100..1000).for_each(|at| sticky.met(met(4, 96, at)));
        assert!(sticky.age.len() <= 7 && sticky.len() == 3, "{} {}", sticky.age.len(), sticky.len());
        assert_eq!(of(&sticky, 1), Some((ours(92), 30)));
    }
}
