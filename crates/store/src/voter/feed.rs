//! Which users of a home pool changed last, for whoever follows them.
//!
//! A ring of addresses: a change costs a push, and memory is bounded whatever happens. A user that changed
//! twice stands in it twice; the reader of a page gets the state of the moment anyway, so the first of the
//! two tells everything and the second costs a repetition only when it is in another page.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use hashbrown::{HashMap, HashSet};
use model::{AddressOfRecord, PoolName, RoutingGroup, WallTime, limits};

use super::groups::Groups;
use crate::{BindingPage, CopyPlace, HotCursor, Wake};

/// Octets of bindings after which a page ends, so that it stays far below `limits::PEER_BODY_BYTES_MAX` with
/// the largest user on top.
const PAGE_BYTES_MAX: usize = 2 * 1_048_576;

/// The feeds of all home pools, of one incarnation of the store.
pub(super) struct Feeds {
    incarnation: u64,
    feeds: RwLock<HashMap<PoolName, Arc<Feed>>>,
}

/// The feed of one home pool.
#[derive(Default)]
pub(super) struct Feed(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    /// Number of the last change.
    newest: u64,
    /// Who made the last changes, oldest first; at most `limits::BINDING_CHANGES_MAX`.
    users: VecDeque<AddressOfRecord>,
    /// Who waits for the next change; at most `limits::BINDING_READERS_MAX`.
    waiting: VecDeque<Wake>,
}

impl Default for Feeds {
    fn default() -> Self {
        Self { incarnation: RandomState::new().hash_one(0).max(1), feeds: RwLock::default() }
    }
}

impl Feeds {
    /// The feed of a home pool, whether the store holds anything of it or not.
    pub(super) fn of(&self, home: &PoolName) -> Arc<Feed> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(home) {
            return Arc::clone(feed);
        }
        drop(feeds);
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(feeds.entry(home.clone()).or_default())
    }

    pub(super) fn newest(&self, home: &PoolName) -> HotCursor {
        let number = self.of(home).ring().newest;
        HotCursor { incarnation: self.incarnation, number, copying: None }
    }

    /// Calls `wake` at the next change after `number`, or now.
    pub(super) fn when_changed(&self, home: &PoolName, after: &HotCursor, wake: Wake) {
        let feed = self.of(home);
        let mut ring = feed.ring();
        let is_current = after.incarnation == self.incarnation && after.number == ring.newest;
        if !is_current || after.copying.is_some() {
            drop(ring);
            return wake();
        }
        ring.waiting.push_back(wake);
        let too_many = ring.waiting.len() > limits::BINDING_READERS_MAX;
        let longest = if too_many { ring.waiting.pop_front() } else { None };
        drop(ring);
        if let Some(longest) = longest {
            longest();
        }
    }

    /// The page after a cursor.
    pub(super) fn page(
        &self,
        home: &PoolName,
        groups: Option<&Groups>,
        after: &HotCursor,
        users_max: usize,
        now: WallTime,
    ) -> BindingPage {
        let feed = self.of(home);
        let users_max = users_max.clamp(1, limits::BINDING_USERS_PER_PAGE_MAX);
        // Numbers first, states after: what changes in between is in a later page again.
        let (newest, users) = feed.changed_after(self.incarnation, after, users_max);
        match (users, groups) {
            (Some(users), groups) => {
                let mut page = Page::new(after.clone(), newest, false);
                page.changes(groups, users, now);
                page.page
            }
            (None, None) => {
                Page::new(
                    HotCursor { incarnation: self.incarnation, number: newest, copying: None },
                    newest,
                    true,
                )
                .page
            }
            (None, Some(groups)) => {
                let is_going_on = after.incarnation == self.incarnation && after.copying.is_some();
                let begin = RoutingGroup::all().next().map(|group| CopyPlace { group, after: None });
                let fresh = HotCursor { incarnation: self.incarnation, number: newest, copying: begin };
                let mut page = Page::new(if is_going_on { after.clone() } else { fresh }, newest, true);
                page.copy(groups, users_max, now);
                page.page
            }
        }
    }
}

impl Feed {
    /// Notes that these users changed, and wakes who waits for it.
    pub(super) fn push(&self, users: impl Iterator<Item = AddressOfRecord>) {
        let mut ring = self.ring();
        for user in users {
            if ring.users.len() >= limits::BINDING_CHANGES_MAX {
                ring.users.pop_front();
            }
            ring.users.push_back(user);
            ring.newest = ring.newest.saturating_add(1);
        }
        if ring.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut ring.waiting);
        drop(ring);
        waiting.into_iter().for_each(|wake| wake());
    }

    /// Who made the changes after a cursor, at most `max` of them; `None` when it takes a full copy, or goes
    /// on with one.
    fn changed_after(
        &self,
        incarnation: u64,
        after: &HotCursor,
        max: usize,
    ) -> (u64, Option<Vec<AddressOfRecord>>) {
        let ring = self.ring();
        let behind = ring.newest.checked_sub(after.number).and_then(|behind| usize::try_from(behind).ok());
        let first = behind.and_then(|behind| ring.users.len().checked_sub(behind));
        let first = first.filter(|_| after.incarnation == incarnation && after.copying.is_none());
        let users = first.map(|first| ring.users.range(first..).take(max).cloned().collect());
        (ring.newest, users)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Every change under the lock is whole when it is left, panic or not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page that is being filled.
struct Page {
    page: BindingPage,
    octets: usize,
}

impl Page {
    fn new(from: HotCursor, newest: u64, is_copy: bool) -> Self {
        Self { page: BindingPage { next: from, users: Vec::new(), newest, is_copy }, octets: 0 }
    }

    /// Adds a user. `false` when the page is full.
    fn push(&mut self, groups: &Groups, group: RoutingGroup, aor: AddressOfRecord, now: WallTime) -> bool {
        let copy = groups.read(group, |state| state.copy_of(&aor, now));
        self.octets = self.octets.saturating_add(copy.octets());
        self.page.users.push((aor, copy));
        self.octets < PAGE_BYTES_MAX
    }

    fn changes(&mut self, groups: Option<&Groups>, changed: Vec<AddressOfRecord>, now: WallTime) {
        let Some(groups) = groups else { return };
        // The last change of a user is the one that counts for the order.
        let mut seen = HashSet::with_capacity(changed.len());
        let mut last: Vec<(usize, AddressOfRecord)> =
            changed.into_iter().enumerate().rev().filter(|(_, aor)| seen.insert(aor.clone())).collect();
        let count = last.first().map_or(0, |(at, _)| at.saturating_add(1));
        let mut done = count;
        while let Some((at, aor)) = last.pop() {
            if !self.push(groups, RoutingGroup::of(&aor), aor, now) {
                // What was left out of a user's earlier changes stands before its last one, which is not
                // reached.
                done = at.saturating_add(1);
                break;
            }
        }
        let done = u64::try_from(done).unwrap_or(u64::MAX);
        self.page.next.number = self.page.next.number.saturating_add(done);
    }

    fn copy(&mut self, groups: &Groups, users_max: usize, now: WallTime) {
        let Some(place) = self.page.next.copying.take() else { return };
        let mut after = place.after;
        for group in RoutingGroup::all().filter(|group| *group >= place.group) {
            let left = users_max.saturating_sub(self.page.users.len());
            let users = groups.read(group, |state| state.users_after(after.as_ref(), left));
            let is_complete = users.len() < left;
            for aor in users {
                after = Some(aor.clone());
                if !self.push(groups, group, aor, now) {
                    self.page.next.copying = Some(CopyPlace { group, after });
                    return;
                }
            }
            if !is_complete {
                self.page.next.copying = Some(CopyPlace { group, after });
                return;
            }
            after = None;
        }
    }
}
