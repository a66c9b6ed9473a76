//! A heap of deadlines. The heap only says *whose* turn it may be; the deadline itself is a field of its owner's state,
//! so a state that is left takes its timer along and nothing is ever cancelled. A key that comes up too early or for a
//! state that is gone is simply put back or dropped by its owner.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Instant;

/// Deadlines of owners named by `K`, earliest first; equal deadlines come in the order of their arming.
#[derive(Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<Entry<K>>>,
    serial: u64,
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
        Timers { heap: BinaryHeap::new(), serial: 0 }
    }

    /// Has `key` come up at `at`. An owner whose deadline moves later need not arm again before the earlier one came up.
    pub fn arm(&mut self, at: Instant, key: K) {
        self.serial += 1;
        self.heap.push(Reverse(Entry { at, serial: self.serial, key }));
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.heap.peek().map(|e| e.0.at)
    }

    /// The earliest deadline and whose it is.
    pub fn peek(&self) -> Option<(Instant, K)>
    where
        K: Copy,
    {
        self.heap.peek().map(|e| (e.0.at, e.0.key))
    }

    /// The next key whose deadline is not after `now`.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        if self.deadline()? > now {
            return None;
        }
        self.heap.pop().map(|e| e.0.key)
    }

    /// How many deadlines are armed, those of forgotten owners included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
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
        assert_eq!(timers.deadline(), Some(Instant::from_micros(30)));
    }
}
