//! Routing groups: the twelve parts of a pool's users.

use std::{fmt, hash::Hasher};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::{AddressOfRecord, limits};

/// A twelfth of a pool's users: unit of placement, replication and quorum inside the pool. 0 to 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct RoutingGroup(u8);

impl RoutingGroup {
    /// The group of an address-of-record: keyed hash modulo the number of groups, the same on every server.
    ///
    /// The key is fixed: it keeps the groups even, it is not a defence against chosen names, who gain nothing
    /// by sharing a group.
    pub fn of(aor: &AddressOfRecord) -> Self {
        let mut hasher = SipHasher13::new_with_keys(0x7461_6e64_656d_2d67, 0x726f_7570_2d6b_6579);
        hasher.write(aor.as_str().as_bytes());
        let number = hasher.finish() % u64::from(limits::ROUTING_GROUPS);
        Self(u8::try_from(number).unwrap_or(0))
    }

    /// All groups in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..limits::ROUTING_GROUPS).map(Self)
    }

    /// The number, 0 to 11.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for RoutingGroup {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        if number < limits::ROUTING_GROUPS {
            Ok(Self(number))
        } else {
            Err(format!("routing groups are numbered 0 to {}, not {number}", limits::ROUTING_GROUPS - 1))
        }
    }
}

impl From<RoutingGroup> for u8 {
    fn from(group: RoutingGroup) -> Self {
        group.0
    }
}

impl fmt::Display for RoutingGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_even_within_a_tenth() {
        let mut counts = [0_u32; 12];
        for n in 0..120_000 {
            let aor = AddressOfRecord::new(&format!("sip:u{n:07}@example.com")).unwrap();
            counts[usize::from(RoutingGroup::of(&aor).number())] += 1;
        }
        assert!(counts.iter().all(|&c| (9_000..11_000).contains(&c)), "{counts:?}");
    }
}
