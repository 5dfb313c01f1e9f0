//! The highest count seen of each nonce, so that nothing is accepted twice.

use std::{hash::BuildHasherDefault, time::Duration};

use hashbrown::HashMap;
use model::WallTime;

use crate::spread::Spread;

/// One use of a nonce by somebody who knows the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceUse {
    /// The nonce: 56 bits drawn at random.
    pub salt: u64,
    /// When it was issued, in seconds since the Unix epoch.
    pub issued_at_s: u32,
    /// `nc`, from 1.
    pub count: u32,
}

/// Remembers nonce counts. `node` may put one behind a lock for all shards of a server, so that a request
/// caught on one shard is no good on another.
pub trait NonceLedger {
    /// Whether this use is the first of its count and of all higher ones; remembers it if so.
    fn admit(&mut self, now: WallTime, used: NonceUse) -> bool;
}

/// Nonce counts of this process in two generations: the older one is dropped as a whole when the younger is
/// full, or when everything in it has expired. 17 octets per nonce and place in the tables.
///
/// What is dropped early is not forgotten: a nonce no younger than any dropped one is refused from then on,
/// which costs an honest phone one `stale` challenge.
#[derive(Clone, Debug)]
pub struct NonceCounts {
    young: Generation,
    old: Generation,
    young_since: WallTime,
    lifetime: Duration,
    generation_max: usize,
    /// Nonces issued up to then may have been dropped.
    dropped_until_s: u32,
}

#[derive(Clone, Debug, Default)]
struct Generation {
    counts: HashMap<u64, u32, BuildHasherDefault<Spread>>,
    newest_issue_s: u32,
}

impl NonceCounts {
    /// Remembers at most `nonces_max` nonces that live for `lifetime`.
    pub fn new(lifetime: Duration, nonces_max: usize) -> Self {
        Self {
            young: Generation::default(),
            old: Generation::default(),
            young_since: WallTime::default(),
            lifetime,
            generation_max: (nonces_max / 2).max(1),
            dropped_until_s: 0,
        }
    }

    /// Nonces remembered.
    pub fn len(&self) -> usize {
        self.young.counts.len() + self.old.counts.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn turn_over_when_due(&mut self, now: WallTime) {
        let is_full = self.young.counts.len() >= self.generation_max;
        if !is_full && now.saturating_since(self.young_since) <= self.lifetime {
            return;
        }
        if !self.old.counts.is_empty() {
            self.dropped_until_s = self.dropped_until_s.max(self.old.newest_issue_s);
        }
        self.old.counts.clear();
        self.old.newest_issue_s = 0;
        std::mem::swap(&mut self.young, &mut self.old);
        self.young_since = now;
    }
}

impl NonceLedger for NonceCounts {
    fn admit(&mut self, now: WallTime, used: NonceUse) -> bool {
        self.turn_over_when_due(now);
        if let Some(highest) = self.young.counts.get_mut(&used.salt) {
            let is_new = used.count > *highest;
            *highest = used.count.max(*highest);
            return is_new;
        }
        match self.old.counts.get(&used.salt) {
            Some(&highest) if used.count <= highest => return false,
            Some(_) => {
                self.old.counts.remove(&used.salt);
            }
            None if used.issued_at_s <= self.dropped_until_s => return false,
            None => {}
        }
        self.young.counts.insert(used.salt, used.count);
        self.young.newest_issue_s = self.young.newest_issue_s.max(used.issued_at_s);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> WallTime {
        WallTime::from_secs(1_700_000_000 + seconds)
    }

    fn used(salt: u64, issued: u32, count: u32) -> NonceUse {
        NonceUse { salt, issued_at_s: 1_700_000_000 + issued, count }
    }

    #[test]
    fn each_count_of_a_nonce_is_admitted_once_and_only_upwards() {
        let mut counts = NonceCounts::new(LIFETIME, 100);
        let mut admit = |count| counts.admit(at(0), used(1, 0, count));

        assert_eq!(
            [admit(3), admit(3), admit(2), admit(4), admit(u32::MAX), admit(4)],
            [true, false, false, true, true, false]
        );
    }

    #[test]
    fn a_nonce_in_use_outlives_the_turn_over() {
        let mut counts = NonceCounts::new(LIFETIME, 100);
        counts.admit(at(0), used(1, 0, 1));
        counts.admit(at(301), used(2, 301, 1));

        assert!(!counts.admit(at(301), used(1, 0, 1)));
        assert!(counts.admit(at(301), used(1, 0, 2)));
        assert!(!counts.admit(at(301), used(1, 0, 2)));
    }

    #[test]
    fn the_bound_holds_and_what_was_dropped_cannot_be_replayed() {
        let mut counts = NonceCounts::new(LIFETIME, 10);
        for issued in 0..1_000_u32 {
            let salt = u64::from(issued);
            assert!(counts.admit(at(salt), used(salt, issued, 1)));
            assert!(counts.len() <= 10);
        }

        for issued in 0..1_000_u32 {
            assert!(!counts.admit(at(1_000), used(u64::from(issued), issued, 1)), "{issued}");
        }
        assert!(counts.admit(at(1_000), used(2_000, 1_000, 1)));
    }

    #[test]
    fn memory_is_given_back_to_later_nonces_when_all_have_expired() {
        let mut counts = NonceCounts::new(LIFETIME, 100);
        for salt in 0..10 {
            counts.admit(at(0), used(salt, 0, 1));
        }
        counts.admit(at(301), used(20, 301, 1));
        counts.admit(at(602), used(30, 602, 1));

        assert_eq!(counts.len(), 2);
    }
}
