//! Pairs: two front-end pools, each the other's backup registrar.

use std::fmt;

use model::PoolName;
use serde::Serialize;

/// Two front-end pools, each the other's backup registrar, copying user data both ways.
///
/// Equal whichever pool is named first.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// The two pools, as written.
    pub pools: [PoolName; 2],
}

impl Pair {
    /// The other pool of the pair; `None` when `pool` is not in it.
    pub fn partner_of(&self, pool: &PoolName) -> Option<&PoolName> {
        let [first, second] = &self.pools;
        if pool == first {
            Some(second)
        } else if pool == second {
            Some(first)
        } else {
            None
        }
    }

    /// The two pools in alphabetical order; what names the pair.
    pub fn sorted(&self) -> [&PoolName; 2] {
        let [first, second] = &self.pools;
        if first <= second { [first, second] } else { [second, first] }
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl Eq for Pair {}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.sorted();
        write!(f, "{first} + {second}")
    }
}
