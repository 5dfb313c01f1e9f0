//! The removals of a group's users: few, and each for a limited time.

use std::{
    collections::BTreeSet,
    hash::{BuildHasherDefault, DefaultHasher},
};

use hashbrown::HashMap;
use model::{AddressOfRecord, WallTime};

use crate::Removal;

/// At most `limits::REMOVALS_PER_USER_MAX` removals of each user, by user and by when the first one is over.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Removals {
    users: HashMap<AddressOfRecord, Vec<Removal>, BuildHasherDefault<DefaultHasher>>,
    /// One entry per user: none of the user's removals is over before this second.
    ends: BTreeSet<(u32, AddressOfRecord)>,
}

impl Removals {
    pub(super) fn of(&self, aor: &AddressOfRecord) -> &[Removal] {
        if self.users.is_empty() {
            return &[];
        }
        self.users.get(aor).map(Vec::as_slice).unwrap_or_default()
    }

    /// Users with removals, in no order.
    pub(super) fn users(&self) -> impl Iterator<Item = &AddressOfRecord> {
        self.users.keys()
    }

    /// All of them, in the order of the users' addresses.
    pub(super) fn sorted(&self) -> Vec<(&AddressOfRecord, &[Removal])> {
        let mut sorted: Vec<_> =
            self.users.iter().map(|(aor, removals)| (aor, removals.as_slice())).collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
        sorted
    }

    pub(super) fn replace(&mut self, aor: &AddressOfRecord, removals: Vec<Removal>) {
        if let Some(first) = first_end(self.of(aor)) {
            self.ends.remove(&(first, aor.clone()));
        }
        match first_end(&removals) {
            Some(first) => {
                self.ends.insert((first, aor.clone()));
                self.users.insert(aor.clone(), removals);
            }
            None => drop(self.users.remove(aor)),
        }
    }

    /// Lets go of what is over, for at most `users_max` users.
    pub(super) fn expire(&mut self, now: WallTime, users_max: u32) {
        for _ in 0..users_max {
            let first = self.ends.first().filter(|(end_s, _)| u64::from(*end_s) <= now.as_secs());
            let Some((_, aor)) = first.cloned() else { return };
            let kept = self.of(&aor).iter().filter(|removal| !removal.is_over(now)).cloned().collect();
            self.replace(&aor, kept);
        }
    }
}

fn first_end(removals: &[Removal]) -> Option<u32> {
    removals.iter().map(Removal::until_s).min()
}
