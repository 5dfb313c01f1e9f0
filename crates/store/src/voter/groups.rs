//! The routing groups in memory, shared by the writer and those who look up.

use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::{ArcSwap, Guard};
use hashbrown::HashMap;
use model::{PoolName, RoutingGroup};
use registrar::GroupState;

use super::feed::Feed;

/// Home pools by name. Only the writer adds; nobody removes.
#[derive(Default)]
pub(super) struct Homes(ArcSwap<Map>);

type Map = HashMap<PoolName, Arc<Groups>>;

impl Homes {
    pub(super) fn load(&self) -> Guard<Arc<Map>> {
        self.0.load()
    }

    /// Adds a home pool; called by one thread only.
    pub(super) fn add(&self, home: PoolName, groups: Arc<Groups>) {
        let mut map = Map::clone(&self.0.load());
        map.insert(home, groups);
        self.0.store(Arc::new(map));
    }
}

/// The routing groups of one home pool, one for each number, and who changed last in them.
pub(super) struct Groups {
    groups: Vec<RwLock<GroupState>>,
    pub(super) feed: Arc<Feed>,
}

impl Groups {
    pub(super) fn empty(feed: Arc<Feed>) -> Self {
        Self::new(RoutingGroup::all().map(|_| GroupState::new()), feed)
    }

    pub(super) fn new(groups: impl Iterator<Item = GroupState>, feed: Arc<Feed>) -> Self {
        Self { groups: groups.map(RwLock::new).collect(), feed }
    }

    pub(super) fn read<T>(&self, group: RoutingGroup, read: impl FnOnce(&GroupState) -> T) -> T {
        read(&self.lock(group).read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn write<T>(&self, group: RoutingGroup, write: impl FnOnce(&mut GroupState) -> T) -> T {
        write(&mut self.lock(group).write().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self, group: RoutingGroup) -> &RwLock<GroupState> {
        self.groups
            .get(usize::from(group.number()))
            .expect("invariant: one group for each number of a routing group")
    }
}
