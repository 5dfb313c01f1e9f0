//! Shortens registrations by a part that is each user's own, so that those made together do not end together.
//!
//! The part is the same at every refresh: so the end of a binding moves on at each, and is never nearer than
//! before (a nearer one has to be put in order again, which costs as much as a new binding).

use std::hash::{Hash, Hasher};

use model::AddressOfRecord;
use siphasher::sip::SipHasher13;

use crate::UserChange;

/// A shorter registration is granted in full: its phone comes often enough anyway.
const SPREAD_FROM_S: u32 = 600;

/// By how much registrations are shortened. Source: RFC 3261 section 10.3 step 7, which lets the registrar
/// choose a shorter time than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpirySpread {
    /// At most so much of the time, in percent, 0 to 100; 0 = not at all.
    pub percent: u32,
    /// Never below so many seconds.
    pub min_s: u32,
    /// Nobody outside can tell who is granted how much.
    pub key: u64,
}

impl ExpirySpread {
    /// Shortens each expiry of 600 seconds or more in `change` by the user's part, even over the range.
    pub fn apply(self, change: &mut UserChange, aor: &AddressOfRecord) {
        if self.percent == 0 {
            return;
        }
        match change {
            UserChange::Register(registration) => {
                let mut hasher = SipHasher13::new_with_keys(self.key, 0);
                aor.hash(&mut hasher);
                let part = hasher.finish() >> 32;
                for contact in &mut registration.contacts {
                    contact.expires_s = self.shortened(contact.expires_s, part);
                }
            }
            UserChange::RemoveAll { .. } | UserChange::Remove { .. } | UserChange::FlowClosed { .. } => {}
        }
    }

    /// `part` is a fraction of 2^32.
    fn shortened(self, expires_s: u32, part: u64) -> u32 {
        if expires_s < SPREAD_FROM_S {
            return expires_s;
        }
        let most = u64::from(expires_s) * u64::from(self.percent.min(100)) / 100;
        let less = u32::try_from(((most + 1) * part) >> 32).unwrap_or(0);
        expires_s.saturating_sub(less).max(self.min_s.min(expires_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{read, register};

    fn granted(expires_s: u32, spread: ExpirySpread, user: u64) -> u32 {
        let request = read(&register("c", 1, &[&format!("Contact: <sip:a@h>;expires={expires_s}")])).unwrap();
        let mut change = request.change.unwrap();
        let aor = AddressOfRecord::new(&format!("sip:u{user}@example.com")).unwrap();
        spread.apply(&mut change, &aor);
        let UserChange::Register(registration) = change else { panic!("{change:?}") };
        registration.contacts[0].expires_s
    }

    #[test]
    fn long_registrations_are_spread_evenly_downwards_over_the_range() {
        let spread = ExpirySpread { percent: 10, min_s: 60, key: 7 };

        let all: Vec<u32> = (0..2_000).map(|seed| granted(3_600, spread, seed)).collect();

        assert!(all.iter().all(|granted| (3_240..=3_600).contains(granted)));
        for tenth in 0..10_u32 {
            let range = 3_240 + 36 * tenth..3_240 + 36 * (tenth + 1);
            let share = all.iter().filter(|granted| range.contains(*granted)).count();
            assert!((120..280).contains(&share), "{range:?}: {share}");
        }
    }

    #[test]
    fn short_ones_removals_and_a_spread_of_zero_are_left_alone() {
        let spread = ExpirySpread { percent: 50, min_s: 60, key: 7 };
        for seed in 0..50 {
            assert_eq!(granted(599, spread, seed), 599);
            assert_eq!(granted(0, spread, seed), 0);
            assert_eq!(granted(3_600, ExpirySpread { percent: 0, min_s: 60, key: 7 }, seed), 3_600);
        }
    }

    #[test]
    fn nobody_is_granted_less_than_the_minimum_or_more_than_he_asked_for() {
        let spread = ExpirySpread { percent: 50, min_s: 900, key: 7 };
        for seed in 0..200 {
            assert!((900..=1_000).contains(&granted(1_000, spread, seed)));
            assert_eq!(granted(600, spread, seed), 600);
        }
    }

    #[test]
    fn a_user_is_granted_the_same_at_every_refresh() {
        let spread = ExpirySpread { percent: 10, min_s: 60, key: 7 };

        assert_eq!(granted(3_600, spread, 5), granted(3_600, spread, 5));
        assert_ne!(granted(3_600, spread, 5), granted(3_600, ExpirySpread { key: 8, ..spread }, 5));
    }
}
