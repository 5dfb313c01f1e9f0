//! What is remembered for a while and then forgotten by itself.

use std::{collections::VecDeque, hash::Hash, time::Duration};

use hashbrown::HashMap;
use model::Instant;

/// Keys that are remembered for a fixed time, at most so many; of more the oldest are forgotten.
#[derive(Debug)]
pub struct Remembered<K> {
    span: Duration,
    max: usize,
    until: HashMap<K, Instant>,
    /// In the order in which they end, those included that were noted again since or forgotten.
    order: VecDeque<(Instant, K)>,
}

impl<K: Clone + Eq + Hash> Remembered<K> {
    /// Nothing yet; each key is remembered for `span`.
    pub fn new(span: Duration, max: usize) -> Self {
        Self { span, max, until: HashMap::new(), order: VecDeque::new() }
    }

    /// Remembers a key from now on.
    pub fn note(&mut self, now: Instant, key: K) {
        let until = now + self.span;
        self.order.push_back((until, key.clone()));
        self.until.insert(key, until);
        while self.order.front().is_some_and(|(end, _)| *end <= now) || self.order.len() > self.max {
            let Some((end, key)) = self.order.pop_front() else { return };
            if self.until.get(&key) == Some(&end) {
                self.until.remove(&key);
            }
        }
    }

    /// Whether a key is remembered.
    pub fn holds(&self, now: Instant, key: &K) -> bool {
        !self.until.is_empty() && self.until.get(key).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_key_is_remembered_for_its_time_counted_from_the_last_note() {
        let mut keys = Remembered::new(Duration::from_secs(10), 100);
        keys.note(at(0), 'a');
        keys.note(at(5), 'a');
        keys.note(at(11), 'b');

        assert!(keys.holds(at(14), &'a') && keys.holds(at(20), &'b'));
        assert!(!keys.holds(at(15), &'a') && !keys.holds(at(21), &'b') && !keys.holds(at(0), &'c'));
    }

    #[test]
    fn of_too_many_keys_the_oldest_are_forgotten() {
        let mut keys = Remembered::new(Duration::from_secs(10), 3);
        for key in 0..1_000 {
            keys.note(at(1), key);
        }

        assert_eq!((keys.until.len(), keys.order.len()), (3, 3));
        assert!(keys.holds(at(1), &999) && !keys.holds(at(1), &996));
    }
}
