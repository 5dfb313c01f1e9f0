//! Fencing: who may speak for a home pool's users.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Fencing epoch: who may speak for a pool's users. Starts at 0 and grows by one with each change of owner.
///
/// A server refuses any write stamped with an epoch lower than the highest it has seen. This type alone
/// compares epochs. Source: architecture, rule 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a home pool that never changed its owner.
    pub const ZERO: Self = Self(0);

    /// The epoch with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number itself, for wire and disk.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Accepts a write stamped `offered` where `self` is the highest epoch seen; returns the new highest.
    ///
    /// Errors: [`StaleEpoch`] when `offered` is lower.
    pub const fn admit(self, offered: Self) -> Result<Self, StaleEpoch> {
        if offered.0 < self.0 { Err(StaleEpoch { seen: self, offered }) } else { Ok(offered) }
    }

    /// Moves to the epoch of a new order.
    ///
    /// Errors: [`StaleEpoch`] when `ordered` is not higher than `self` (stale or repeated).
    pub const fn advance_to(self, ordered: Self) -> Result<Self, StaleEpoch> {
        if ordered.0 <= self.0 { Err(StaleEpoch { seen: self, offered: ordered }) } else { Ok(ordered) }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An epoch was refused because a higher (or, for an order, an equal) one was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch {offered} is stale, {seen} was seen")]
pub struct StaleEpoch {
    /// Highest epoch seen so far.
    pub seen: Epoch,
    /// The epoch that was refused.
    pub offered: Epoch,
}

/// The owner's sign of life in the ownership record: grows by one with each renewal, starts at 0 in each
/// epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Beat(u64);

impl Beat {
    /// The first beat of an epoch.
    pub const ZERO: Self = Self(0);

    /// The beat with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number itself, for wire and disk.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The beat after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_is_refused_and_an_equal_one_admitted() {
        let seen = Epoch::new(3);

        assert_eq!(seen.admit(Epoch::new(3)), Ok(Epoch::new(3)));
        assert_eq!(seen.admit(Epoch::new(5)), Ok(Epoch::new(5)));
        assert!(seen.admit(Epoch::new(2)).is_err());
        assert!(seen.advance_to(Epoch::new(3)).is_err());
    }
}
