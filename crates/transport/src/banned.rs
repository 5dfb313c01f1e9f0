//! The sources that no shard of a server listens to.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use hashbrown::HashSet;
use model::Source;

/// Sources whose datagrams are dropped as soon as they are received and whose connections are refused; shared
/// by all shards of a server. Who fills it bounds it.
///
/// While it is empty it costs one load of an atomic for each batch of datagrams and each connection.
#[derive(Debug, Default)]
pub struct BannedSources {
    is_any: AtomicBool,
    list: ArcSwap<HashSet<Source>>,
}

/// The list as it was at one moment.
pub(crate) struct Banned(Guard<Arc<HashSet<Source>>>);

impl BannedSources {
    /// Adds a source. What comes from it is dropped from now on; its open connections are the caller's.
    pub fn insert(&self, source: Source) {
        self.change(|list| list.insert(source));
    }

    /// Takes a source out.
    pub fn remove(&self, source: Source) {
        self.change(|list| list.remove(&source));
    }

    /// Whether what comes from this address is dropped.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.now().is_some_and(|banned| banned.contains(address))
    }

    /// The list as it is now; `None` while it is empty.
    pub(crate) fn now(&self) -> Option<Banned> {
        self.is_any.load(Ordering::Relaxed).then(|| Banned(self.list.load()))
    }

    fn change(&self, change: impl Fn(&mut HashSet<Source>) -> bool) {
        self.list.rcu(|list| {
            let mut list = HashSet::clone(list);
            change(&mut list);
            list
        });
        self.is_any.store(!self.list.load().is_empty(), Ordering::Relaxed);
    }
}

impl Banned {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&Source::of(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_found_by_each_of_its_addresses_until_it_is_taken_out() {
        let banned = BannedSources::default();
        let source = Source::of("2001:db8:1:2::7".parse().unwrap());
        let address: IpAddr = "2001:db8:1:2::8".parse().unwrap();
        assert!(!banned.contains(address) && banned.now().is_none());

        banned.insert(source);
        assert!(banned.contains(address) && !banned.contains("192.0.2.1".parse().unwrap()));

        banned.remove(source);
        assert!(!banned.contains(address) && banned.now().is_none());
    }
}
