//! Deadlines of many owners. The heap only says *whose* turn it may be; the deadline itself is a field of its owner's state,
//! so a state that is left takes its timer along and nothing is ever cancelled. A key that comes up too early or for a
//! state that is gone is simply put back or dropped by its owner.
//!
//! Deadlines on the grid of [`GRID`] (those that only clean up are put there) lie in one list per point, since there may be
//! hundreds of thousands of them: arming and coming up cost the same however many there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use super::Instant;

/// The grid of deadlines that are in no hurry.
pub const GRID: Duration = Duration::from_millis(250);

/// Deadlines of owners named by `K`, earliest first; equal deadlines come in the order of their arming.
#[derive(Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<Entry<K>>>,
    cells: BTreeMap<Instant, VecDeque<K>>,
    serial: u64,
    in_cells: usize,
}

#[derive(Debug)]
struct Entry<K> {
    at: Instant,
    serial: u64,
    key: K,
}

impl<K> Timers<K> {
    /// No deadlines.
    pub fn new() -> Timers<K> {
        Timers { heap: BinaryHeap::new(), cells: BTreeMap::new(), serial: 0, in_cells: 0 }
    }

    /// Has `key` come up at `at`. An owner whose deadline moves later need not arm again before the earlier one came up.
    pub fn arm(&mut self, at: Instant, key: K) {
        if at.micros().is_multiple_of(GRID.as_micros() as u64) {
            self.in_cells += 1;
            return self.cells.entry(at).or_default().push_back(key);
        }
        self.serial += 1;
        self.heap.push(Reverse(Entry { at, serial: self.serial, key }));
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Instant> {
        let (cell, heap) = (self.cells.keys().next().copied(), self.heap.peek().map(|e| e.0.at));
        cell.into_iter().chain(heap).min()
    }

    /// The earliest deadline and whose it is.
    pub fn peek(&self) -> Option<(Instant, K)>
    where
        K: Copy,
    {
        let at = self.deadline()?;
        match self.cells.first_key_value().filter(|(cell, _)| **cell == at) {
            Some((_, keys)) => keys.front().map(|key| (at, *key)),
            None => self.heap.peek().map(|e| (at, e.0.key)),
        }
    }

    /// The next key whose deadline is not after `now`.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let at = self.deadline().filter(|at| *at <= now)?;
        let Some(mut cell) = self.cells.first_entry().filter(|cell| *cell.key() == at) else {
            return self.heap.pop().map(|e| e.0.key);
        };
        let key = cell.get_mut().pop_front();
        if cell.get().is_empty() {
            cell.remove();
        }
        self.in_cells -= usize::from(key.is_some());
        key
    }

    /// How many deadlines are armed, those of forgotten owners included.
    pub fn len(&self) -> usize {
        self.heap.len() + self.in_cells
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers::new()
    }
}

impl<K> PartialEq for Entry<K> {
    fn eq(&self, other: &Entry<K>) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}
impl<K> Eq for Entry<K> {}
impl<K> PartialOrd for Entry<K> {
    fn partial_cmp(&self, other: &Entry<K>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Entry<K> {
    fn cmp(&self, other: &Entry<K>) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_equals_in_order() {
        let mut timers = Timers::new();
        for (at, key) in [(30, 'c'), (10, 'a'), (20, 'b'), (10, 'A')] {
            timers.arm(Instant::from_micros(at), key);
        }
        let now = Instant::from_micros(20);
        let mut due = String::new();
        while let Some(key) = timers.pop(now) {
            due.push(key);
        }
        assert_eq!(due, "aAb");
        timers.arm(Instant::from_micros(0), 'g');
        timers.arm(Instant::from_micros(0), 'h');
        assert_eq!(timers.peek(), Some((Instant::ZERO, 'g')));
        assert_eq!((timers.pop(now), timers.pop(now), timers.pop(now)), (Some('g'), Some('h'), None));
        assert_eq!(timers.len(), 1);
        assert_eq!(timers.deadline(), Some(Instant::from_micros(30)));
    }
}
