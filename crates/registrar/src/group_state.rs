//! The state of one routing group: who is bound where.
//!
//! [`GroupState::apply`] is deterministic: the same commands in the same order make the same state on every
//! replica, octet for octet in a snapshot. A command takes effect as a whole or not at all, and once. Expired
//! bindings are never seen: each change of a user drops that user's first, and [`crate::Change::Expire`]
//! returns the memory of users who never come back, found in an index by time with one entry per user.
//!
//! What is removed is remembered as long as a copy of it may be alive at the other pool ([`crate::Removal`]),
//! and what the other pool knows comes in as [`Change::Merge`].
//!
//! The reference REGISTER (`reference/rust-crates.md` section 6, with the flow it came over) costs 415 octets
//! of memory, everything counted but the allocator's own; the test in `group_state/tests.rs` holds it under
//! 700.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    hash::{BuildHasherDefault, DefaultHasher},
};

use hashbrown::HashMap;
use model::{AddressOfRecord, Epoch, WallTime};

use crate::{Binding, Bindings, Change, Command, Outcome, RegisterError, UserChange, UserCopy, user_copy};

mod change;
#[cfg(test)]
mod merge_tests;
#[cfg(test)]
mod model_tests;
mod operations;
mod removals;
mod snapshot;
#[cfg(test)]
mod tests;

use operations::{Operations, Remembered};
use removals::Removals;
pub use snapshot::SnapshotError;

/// Bindings of the users of one routing group of one home pool.
///
/// Keys are addresses-of-record of accounts, so a fixed hash is safe.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GroupState {
    epoch: Epoch,
    users: HashMap<AddressOfRecord, User, BuildHasherDefault<DefaultHasher>>,
    /// One entry per user: no binding of the user ends before this second.
    expiry: BTreeSet<(u32, AddressOfRecord)>,
    operations: Operations,
    removals: Removals,
    bindings: usize,
}

/// The bindings of one user, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    bindings: Bindings,
    /// The second under which the user stands in the index.
    indexed_at_s: u32,
}

impl GroupState {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one command.
    ///
    /// Refuses an epoch lower than the highest seen. A repeated operation changes nothing and is answered as
    /// before, with the bindings of now. Refused commands change nothing but the epoch.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        match self.epoch.admit(command.epoch) {
            Ok(epoch) => self.epoch = epoch,
            Err(stale) => return Outcome::Refused(RegisterError::StaleEpoch(stale)),
        }
        if command.change.takes_effect_once()
            && let Some(remembered) = self.operations.find(command.operation)
        {
            return self.recall(command, remembered);
        }
        let outcome = match &command.change {
            Change::User { aor, change } => match self.change_user(aor, change, command.now) {
                Ok(replaced) => Outcome::Registered { bindings: self.lookup(aor, command.now), replaced },
                Err(error) => Outcome::Refused(error),
            },
            Change::Expire { users_max } => {
                Outcome::Expired { bindings: self.remove_expired(command.now, *users_max) }
            }
            Change::Merge { aor, copy } => {
                self.merge_user(aor, copy, command.now);
                self.registered(aor, command.now)
            }
        };
        if command.change.takes_effect_once()
            && let Some(remembered) = Remembered::of(&outcome)
        {
            self.operations.remember(command.operation, remembered);
        }
        outcome
    }

    fn registered(&self, aor: &AddressOfRecord, now: WallTime) -> Outcome {
        Outcome::Registered { bindings: self.lookup(aor, now), replaced: Bindings::new() }
    }

    /// The bindings of a user that are alive at `now`, highest q first, then the most recently registered.
    pub fn lookup(&self, aor: &AddressOfRecord, now: WallTime) -> Bindings {
        let Some(user) = self.users.get(aor) else { return Bindings::new() };
        let mut alive: Bindings =
            user.bindings.iter().filter(|binding| !binding.is_expired(now)).cloned().collect();
        alive.sort_by_key(|binding| Reverse((binding.q(), binding.updated_at())));
        alive
    }

    /// The highest epoch of any command.
    pub const fn highest_epoch(&self) -> Epoch {
        self.epoch
    }

    /// Bindings held, those that have expired and are not yet removed included.
    pub const fn len(&self) -> usize {
        self.bindings
    }

    /// Whether nobody is bound.
    pub const fn is_empty(&self) -> bool {
        self.bindings == 0
    }

    /// Users with bindings, counted as [`Self::len`] does.
    pub fn users_len(&self) -> usize {
        self.users.len()
    }

    /// All users with their bindings that are held, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&AddressOfRecord, &[Binding])> {
        self.sorted_users().into_iter().map(|(aor, user)| (aor, user.bindings.as_slice()))
    }

    /// What this group knows of a user at `now`, for the other pool.
    pub fn copy_of(&self, aor: &AddressOfRecord, now: WallTime) -> UserCopy {
        let held = self.users.get(aor).map(|user| user.bindings.as_slice()).unwrap_or_default();
        let removals = self.removals.of(aor);
        UserCopy {
            bindings: held.iter().filter(|binding| !binding.is_expired(now)).cloned().collect(),
            removals: removals.iter().filter(|removal| !removal.is_over(now)).cloned().collect(),
        }
    }

    /// Whether [`Change::Merge`] of this copy would change anything but let go of what is over.
    pub fn is_news(&self, aor: &AddressOfRecord, copy: &UserCopy, now: WallTime) -> bool {
        let mut known = self.copy_of(aor, now);
        let (bindings, removals) = user_copy::merge(&known.bindings, &known.removals, copy, now);
        known.bindings.sort_by(|a, b| b.version().cmp(&a.version()));
        let known_removals = user_copy::merge_removals(&known.removals, &[], now);
        known.bindings.as_slice() != bindings.as_slice() || known_removals != removals
    }

    /// The users of whom [`Self::copy_of`] knows something, in the order of their addresses, at most `max`
    /// after `after`.
    pub fn users_after(&self, after: Option<&AddressOfRecord>, max: usize) -> Vec<AddressOfRecord> {
        let users =
            self.users.keys().chain(self.removals.users().filter(|aor| !self.users.contains_key(*aor)));
        let mut later: Vec<_> = users.filter(|aor| after.is_none_or(|after| *aor > after)).collect();
        if later.len() > max {
            later.select_nth_unstable(max);
            later.truncate(max);
        }
        later.sort_unstable();
        later.into_iter().cloned().collect()
    }

    /// Removes expired bindings of at most `users_max` users, those first whose end was nearest; returns how
    /// many bindings. Inside the log use [`Change::Expire`].
    fn remove_expired(&mut self, now: WallTime, users_max: u32) -> u32 {
        let mut removed = 0_u32;
        for _ in 0..users_max {
            if self.expiry.first().is_none_or(|(at_s, _)| u64::from(*at_s) > now.as_secs()) {
                break;
            }
            let Some((_, aor)) = self.expiry.pop_first() else { break };
            let Some(user) = self.users.get(&aor) else { continue };
            let alive = alive_of(&user.bindings, now);
            let gone = user.bindings.len() - alive.len();
            removed = removed.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX));
            self.replace(&aor, alive);
            self.index_again(&aor);
        }
        self.removals.expire(now, users_max);
        removed
    }

    /// Returns what left to make room for a new device.
    fn change_user(
        &mut self,
        aor: &AddressOfRecord,
        change: &UserChange,
        now: WallTime,
    ) -> Result<Bindings, RegisterError> {
        let current = self.users.get(aor).map(|user| alive_of(&user.bindings, now)).unwrap_or_default();
        let (mut changed, replaced) = change::apply(&current, change, now)?;
        let gone = user_copy::settle(&current, &mut changed, self.removals.of(aor), now);
        self.replace(aor, changed);
        if !gone.is_empty() {
            let removals = user_copy::merge_removals(self.removals.of(aor), &gone, now);
            self.removals.replace(aor, removals);
        }
        Ok(replaced)
    }

    fn merge_user(&mut self, aor: &AddressOfRecord, copy: &UserCopy, now: WallTime) {
        let held = self.users.get(aor).map(|user| user.bindings.as_slice()).unwrap_or_default();
        let (bindings, removals) = user_copy::merge(held, self.removals.of(aor), copy, now);
        self.replace(aor, bindings);
        self.removals.replace(aor, removals);
    }

    /// Puts a user's bindings in place and keeps count and index right. The index is touched only when the
    /// user is new, gone, or ends earlier than it says: a refresh leaves it alone.
    fn replace(&mut self, aor: &AddressOfRecord, bindings: Bindings) {
        let end_s = bindings.iter().map(Binding::expires_at_s).min();
        let count = bindings.len();
        match (self.users.get_mut(aor), end_s) {
            (None, None) => {}
            (None, Some(end_s)) => {
                self.users.insert(aor.clone(), User { bindings, indexed_at_s: end_s });
                self.expiry.insert((end_s, aor.clone()));
                self.bindings += count;
            }
            (Some(user), None) => {
                self.bindings -= user.bindings.len();
                let entry = (user.indexed_at_s, aor.clone());
                self.users.remove(aor);
                self.expiry.remove(&entry);
            }
            (Some(user), Some(end_s)) => {
                self.bindings = self.bindings - user.bindings.len() + count;
                user.bindings = bindings;
                if end_s < user.indexed_at_s {
                    self.index_again(aor);
                }
            }
        }
    }

    /// Moves a user in the index to where the first binding ends.
    fn index_again(&mut self, aor: &AddressOfRecord) {
        let Some(user) = self.users.get_mut(aor) else { return };
        let Some(end_s) = user.bindings.iter().map(Binding::expires_at_s).min() else { return };
        let mut entry = (user.indexed_at_s, aor.clone());
        user.indexed_at_s = end_s;
        self.expiry.remove(&entry);
        entry.0 = end_s;
        self.expiry.insert(entry);
    }

    /// The answer to an operation that was applied before.
    fn recall(&self, command: &Command, remembered: Remembered) -> Outcome {
        match (&command.change, remembered.refusal()) {
            (_, Some(error)) => Outcome::Refused(error),
            (Change::User { aor, .. } | Change::Merge { aor, .. }, None) => self.registered(aor, command.now),
            (Change::Expire { .. }, None) => Outcome::Expired { bindings: remembered.expired() },
        }
    }

    fn sorted_users(&self) -> Vec<(&AddressOfRecord, &User)> {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_unstable_by(|a, b| a.0.cmp(b.0));
        users
    }
}

fn alive_of(bindings: &[Binding], now: WallTime) -> Bindings {
    bindings.iter().filter(|binding| !binding.is_expired(now)).cloned().collect()
}
