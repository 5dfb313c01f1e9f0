//! Who may answer for which home pool's users, as all shards see it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use model::{Epoch, Instant, PoolName};
use pairing::{Authority, Service, Standing};
use tokio::sync::watch;

use crate::{HomeIndex, Homes};

/// What this server knows of the ownership of each home pool, in force for every shard at once.
///
/// A shard holds the read guard from testing its authority until its answers have left; whoever changes an
/// entry waits for that. So nothing is sent under an authority after it was taken away.
#[derive(Debug)]
pub struct AuthorityTable {
    homes: RwLock<Vec<Entry>>,
    /// Grows whenever this server begins or ceases to serve a home pool, or learns of another owner.
    changes: watch::Sender<u64>,
}

/// What is known of one home pool.
#[derive(Debug)]
struct Entry {
    standing: Option<Standing>,
    /// Until when its users may be between two owners.
    changing_until: Instant,
    /// Whether an operation is under way.
    is_operating: bool,
}

/// The table as it is while the guard is held.
pub struct AuthorityGuard<'a>(RwLockReadGuard<'a, Vec<Entry>>);

impl AuthorityTable {
    /// A table in which nothing is known of any home pool.
    pub fn new(homes: &Homes) -> Self {
        let unknown = || Entry { standing: None, changing_until: Instant::START, is_operating: false };
        let entries = homes.iter().map(|_| unknown()).collect();
        Self { homes: RwLock::new(entries), changes: watch::channel(0).0 }
    }

    /// Puts a standing in force; returns when no shard can answer under the former one any more.
    pub fn set(&self, home: HomeIndex, standing: Standing) {
        let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = homes.get_mut(usize::from(home.0)) else { return };
        let is_news = entry.standing.as_ref().map(news_in) != Some(news_in(&standing));
        entry.standing = Some(standing);
        drop(homes);
        if is_news {
            self.changes.send_modify(|number| *number = number.wrapping_add(1));
        }
    }

    /// Says that the users of a home pool may be between two owners until then: requests for them may wait.
    pub fn change_until(&self, home: HomeIndex, until: Instant) {
        let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = homes.get_mut(usize::from(home.0)) {
            entry.changing_until = until;
        }
    }

    /// Says whether an operation on a home pool is under way.
    pub fn operate(&self, home: HomeIndex, is_operating: bool) {
        let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = homes.get_mut(usize::from(home.0)) {
            entry.is_operating = is_operating;
        }
    }

    /// Changes whenever this server begins or ceases to serve a home pool, or learns of another owner. The
    /// end of an authority that was not renewed is no change: it is in the authority.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The table, unchanged until the guard is dropped.
    pub fn read(&self) -> AuthorityGuard<'_> {
        AuthorityGuard(self.homes.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What others wait for: who serves under which epoch, and how where it is this server.
fn news_in(standing: &Standing) -> (Option<Epoch>, Option<Service>, Option<&PoolName>) {
    match standing {
        Standing::Serving(authority) => (Some(authority.epoch), Some(authority.service), None),
        Standing::Paused(tenure) | Standing::Elsewhere { tenure, .. } => {
            (Some(tenure.epoch), None, Some(&tenure.owner))
        }
        Standing::Unknown => (None, None, None),
    }
}

impl AuthorityGuard<'_> {
    /// What is known of this home pool; `None` where this server has no part in its ownership.
    pub fn standing(&self, home: HomeIndex) -> Option<&Standing> {
        self.entry(home)?.standing.as_ref()
    }

    /// Whether this home pool's users may be between two owners at `now`.
    pub fn is_changing(&self, home: HomeIndex, now: Instant) -> bool {
        self.entry(home).is_some_and(|entry| now < entry.changing_until)
    }

    /// Whether some home pool's users may be between two owners at `now`.
    pub fn is_any_changing(&self, now: Instant) -> bool {
        self.0.iter().any(|entry| now < entry.changing_until)
    }

    /// Whether an operation on some home pool is under way or its users may be between two owners.
    pub fn is_any_moving(&self, now: Instant) -> bool {
        self.0.iter().any(|entry| entry.is_operating || now < entry.changing_until)
    }

    fn entry(&self, home: HomeIndex) -> Option<&Entry> {
        self.0.get(usize::from(home.0))
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

#[cfg(test)]
mod tests {
    use topology::Topology;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn table() -> (AuthorityTable, HomeIndex, HomeIndex) {
        let topology = Topology::read(include_str!("../../tandem/src/example.toml")).unwrap().0;
        let homes = Homes::of(&topology);
        let index = |name: &str| homes.index(&model::PoolName::new(name).unwrap()).unwrap();
        (AuthorityTable::new(&homes), index("east"), index("west"))
    }

    #[test]
    fn users_are_between_two_owners_until_the_given_instant() {
        let (table, east, west) = table();
        table.change_until(east, at(5));

        let now = table.read();
        assert!(now.is_changing(east, at(4)) && !now.is_changing(east, at(5)));
        assert!(!now.is_changing(west, at(4)));
        assert!(now.is_any_changing(at(4)) && !now.is_any_changing(at(5)));
    }

    #[test]
    fn a_pool_is_moving_while_an_operation_is_under_way() {
        let (table, east, _) = table();
        table.operate(east, true);
        assert!(table.read().is_any_moving(at(9)) && !table.read().is_any_changing(at(9)));
        table.operate(east, false);
        assert!(!table.read().is_any_moving(at(9)));
    }

    #[test]
    fn an_authority_holds_before_its_end_and_a_renewal_is_no_news() {
        let (table, east, west) = table();
        let mut news = table.changes();
        let serving =
            |until, service| Standing::Serving(Authority { epoch: Epoch::new(1), until: at(until), service });

        table.set(east, serving(5, Service::Full));
        assert!(news.has_changed().unwrap());
        news.borrow_and_update();
        table.set(east, serving(9, Service::Full));
        assert!(!news.has_changed().unwrap());
        assert!(table.read().holds(east, at(8)).is_some() && table.read().holds(east, at(9)).is_none());
        assert!(table.read().holds(west, at(1)).is_none());

        table.set(east, serving(9, Service::Resiliency));
        assert!(news.has_changed().unwrap(), "another service is news");
    }
}
