//! The routing groups in memory, shared by the writer and those who look up.

use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::{ArcSwap, Guard};
use hashbrown::HashMap;
use model::{PoolName, RoutingGroup};
use registrar::GroupState;

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

/// The routing groups of one home pool, one for each number.
pub(super) struct Groups(Vec<RwLock<GroupState>>);

impl Groups {
    pub(super) fn empty() -> Self {
        Self::new(RoutingGroup::all().map(|_| GroupState::new()))
    }

    pub(super) fn new(groups: impl Iterator<Item = GroupState>) -> Self {
        Self(groups.map(RwLock::new).collect())
    }

    pub(super) fn read<T>(&self, group: RoutingGroup, read: impl FnOnce(&GroupState) -> T) -> T {
        read(&self.lock(group).read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn write<T>(&self, group: RoutingGroup, write: impl FnOnce(&mut GroupState) -> T) -> T {
        write(&mut self.lock(group).write().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self, group: RoutingGroup) -> &RwLock<GroupState> {
        self.0
            .get(usize::from(group.number()))
            .expect("invariant: one group for each number of a routing group")
    }
}
