//! The last operations of a group and what came of them, so that each takes effect once.

use std::{collections::VecDeque, hash::BuildHasherDefault};

use hashbrown::HashMap;
use model::limits;
use serde::{Deserialize, Serialize};

use crate::{OperationId, Outcome, RegisterError, spread::Spread};

/// At most `limits::OPERATIONS_REMEMBERED_MAX` operations, the oldest leave.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Operations {
    order: VecDeque<OperationId>,
    results: HashMap<OperationId, Remembered, BuildHasherDefault<Spread>>,
}

/// What came of an operation, as far as it cannot be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Remembered {
    Registered,
    Expired(u32),
    OutOfOrder,
    TooManyDevices(u16),
    TooManyFlows(u16),
    UnknownContact,
}

impl Operations {
    pub(super) fn find(&self, operation: OperationId) -> Option<Remembered> {
        self.results.get(&operation).copied()
    }

    /// Remembers an operation that was not remembered before.
    pub(super) fn remember(&mut self, operation: OperationId, result: Remembered) {
        if self.order.len() >= limits::OPERATIONS_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.results.remove(&oldest);
        }
        if self.results.insert(operation, result).is_none() {
            self.order.push_back(operation);
        }
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (OperationId, Remembered)> {
        self.order.iter().filter_map(|&operation| Some((operation, self.find(operation)?)))
    }
}

impl Remembered {
    /// What to remember of an outcome; `None` for a refusal that does not depend on the group's bindings.
    pub(super) const fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Registered { .. } => Some(Self::Registered),
            Outcome::Expired { bindings } => Some(Self::Expired(*bindings)),
            Outcome::Refused(error) => match error {
                RegisterError::OutOfOrder => Some(Self::OutOfOrder),
                RegisterError::TooManyDevices { max } => Some(Self::TooManyDevices(*max)),
                RegisterError::TooManyFlows { max } => Some(Self::TooManyFlows(*max)),
                RegisterError::UnknownContact => Some(Self::UnknownContact),
                RegisterError::Header(_)
                | RegisterError::TooLong { .. }
                | RegisterError::TooManyContacts { .. }
                | RegisterError::Wildcard
                | RegisterError::SeveralFlows
                | RegisterError::NoDevice
                | RegisterError::Extension { .. }
                | RegisterError::UnknownDomain
                | RegisterError::IntervalTooBrief { .. }
                | RegisterError::FirstHopLacksOutbound
                | RegisterError::StaleEpoch(_) => None,
            },
        }
    }

    pub(super) const fn refusal(self) -> Option<RegisterError> {
        match self {
            Self::Registered | Self::Expired(_) => None,
            Self::OutOfOrder => Some(RegisterError::OutOfOrder),
            Self::TooManyDevices(max) => Some(RegisterError::TooManyDevices { max }),
            Self::TooManyFlows(max) => Some(RegisterError::TooManyFlows { max }),
            Self::UnknownContact => Some(RegisterError::UnknownContact),
        }
    }

    /// Bindings that an expiry removed.
    pub(super) const fn expired(self) -> u32 {
        match self {
            Self::Expired(bindings) => bindings,
            Self::Registered
            | Self::OutOfOrder
            | Self::TooManyDevices(_)
            | Self::TooManyFlows(_)
            | Self::UnknownContact => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_operations_leave_when_the_bound_is_reached() {
        let mut operations = Operations::default();
        let max = limits::OPERATIONS_REMEMBERED_MAX as u128;

        for number in 0..max + 2 {
            operations.remember(OperationId::new(number), Remembered::Registered);
        }

        assert_eq!(operations.find(OperationId::new(1)), None);
        assert_eq!(operations.find(OperationId::new(2)), Some(Remembered::Registered));
        assert_eq!(operations.iter().count() as u128, max);
    }
}
