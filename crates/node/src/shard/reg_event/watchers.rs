//! Which shards hold subscriptions to whose registrations, and the way there for everybody who changes them.

use std::sync::{
    OnceLock, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};

use hashbrown::HashMap;
use model::AddressOfRecord;
use registrar::reg_event::Cause;

use super::super::mail::{Mail, Mailer};

/// Shared by all shards and by whatever else changes bindings.
#[derive(Default)]
pub struct Watchers {
    /// Users watched, to ask without a lock.
    count: AtomicUsize,
    /// Shards by user; a user's devices may subscribe in several.
    users: RwLock<HashMap<AddressOfRecord, Vec<u16>>>,
    shards: OnceLock<Vec<Mailer>>,
}

impl Watchers {
    /// Tells it the mailboxes of all shards, by number; before that nobody can be watched.
    pub fn connect(&self, shards: Vec<Mailer>) {
        let _connected_once = self.shards.set(shards);
    }

    /// A user's bindings have changed: tells the shards with subscriptions to them.
    pub fn changed(&self, aor: &AddressOfRecord, cause: Cause) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        for shard in users.get(aor).into_iter().flatten() {
            self.post(*shard, Mail::BindingsChanged { aor: aor.clone(), cause });
        }
    }

    /// A shard holds subscriptions to this user's registrations from now on.
    pub(super) fn add(&self, aor: &AddressOfRecord, shard: u16) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let shards = users.entry(aor.clone()).or_default();
        if !shards.contains(&shard) {
            shards.push(shard);
        }
        self.count.store(users.len(), Ordering::Relaxed);
    }

    /// It holds none any more.
    pub(super) fn remove(&self, aor: &AddressOfRecord, shard: u16) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(shards) = users.get_mut(aor) {
            shards.retain(|other| *other != shard);
            if shards.is_empty() {
                users.remove(aor);
            }
        }
        self.count.store(users.len(), Ordering::Relaxed);
    }

    fn post(&self, shard: u16, mail: Mail) {
        if let Some(mailer) = self.shards.get().and_then(|shards| shards.get(usize::from(shard))) {
            mailer.post(mail);
        }
    }
}
