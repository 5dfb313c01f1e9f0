//! Who may answer for which home pool's users, as all shards see it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use model::Instant;
use pairing::{Authority, Standing};

use crate::{HomeIndex, Homes};

/// What this server knows of the ownership of each home pool, in force for every shard at once.
///
/// A shard holds the read guard from testing its authority until its answers have left; whoever changes an
/// entry waits for that. So nothing is sent under an authority after it was taken away.
#[derive(Debug)]
pub struct AuthorityTable {
    homes: RwLock<Vec<Option<Standing>>>,
}

/// The table as it is while the guard is held.
pub struct AuthorityGuard<'a>(RwLockReadGuard<'a, Vec<Option<Standing>>>);

impl AuthorityTable {
    /// A table in which nothing is known of any home pool.
    pub fn new(homes: &Homes) -> Self {
        Self { homes: RwLock::new(homes.iter().map(|_| None).collect()) }
    }

    /// Puts a standing in force; returns when no shard can answer under the former one any more.
    pub fn set(&self, home: HomeIndex, standing: Standing) {
        let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = homes.get_mut(usize::from(home.0)) {
            *entry = Some(standing);
        }
    }

    /// The table, unchanged until the guard is dropped.
    pub fn read(&self) -> AuthorityGuard<'_> {
        AuthorityGuard(self.homes.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AuthorityGuard<'_> {
    /// What is known of this home pool; `None` where this server has no part in its ownership.
    pub fn standing(&self, home: HomeIndex) -> Option<&Standing> {
        self.0.get(usize::from(home.0)).and_then(Option::as_ref)
    }

    /// The authority to answer for this home pool's users at `now`, which must be fresh.
    pub fn holds(&self, home: HomeIndex, now: Instant) -> Option<Authority> {
        match self.standing(home)? {
            Standing::Serving(authority) if authority.holds_at(now) => Some(*authority),
            Standing::Serving(_) | Standing::Paused(_) | Standing::Elsewhere { .. } | Standing::Unknown => {
                None
            }
        }
    }
}
