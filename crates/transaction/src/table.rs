//! The table of transactions: slots with generations, an index by keyed hash, and the timer wheel.
//!
//! In the steady state nothing is allocated: slots, index and wheel keep their room. The index holds slot
//! numbers only; a hit is confirmed by comparing the key. The hash is keyed with a secret, so that a peer
//! cannot choose keys that collide.

use std::hash::Hasher;

use hashbrown::HashTable;
use model::{Chance, Instant};
use siphasher::sip::SipHasher13;

use crate::{key::Key, wheel::Wheel};

const INDEX_BITS: u32 = 24;
/// Most entries of a table: the number of a slot has 24 bits in an [`Id`], its generation the other 40.
pub(crate) const SLOTS_MAX: usize = 1 << INDEX_BITS;
/// End of the list of free slots.
const NONE: u32 = u32::MAX;

/// Transactions of one kind.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    first_free: u32,
    live: usize,
    index: HashTable<u32>,
    wheel: Wheel,
    hasher: SipHasher13,
}

/// Names an entry; never names another one, not even when the slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub u64);

#[derive(Debug)]
struct Slot<T> {
    generation: u64,
    content: Content<T>,
}

#[derive(Debug)]
enum Content<T> {
    Free { next: u32 },
    Live { hash: u64, key: Key, entry: T },
}

impl Id {
    fn new(slot: u32, generation: u64) -> Self {
        Self(generation << INDEX_BITS | u64::from(slot))
    }

    fn slot(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX) & (SLOTS_MAX - 1)
    }

    fn generation(self) -> u64 {
        self.0 >> INDEX_BITS
    }
}

impl<T> Table<T> {
    /// An empty table; `seed` keys its hashes. Has room for `entries` from the start, which costs address
    /// space and no memory: to move a table that grows would hold up everything in it.
    pub(crate) fn new(seed: u64, entries: usize) -> Self {
        let mut chance = Chance::seeded(seed);
        Self {
            slots: Vec::with_capacity(entries),
            first_free: NONE,
            live: 0,
            index: HashTable::with_capacity(entries),
            wheel: Wheel::new(entries),
            hasher: SipHasher13::new_with_keys(chance.bits(), chance.bits()),
        }
    }

    /// Entries in the table.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// The entry with this key that `is_match` accepts.
    pub(crate) fn find(&self, key: &[u8], is_match: impl Fn(&T) -> bool) -> Option<Id> {
        let found = self.index.find(self.hash(key), |&slot| match self.content(slot) {
            Some(Content::Live { key: stored, entry, .. }) => is_match(entry) && stored.as_slice() == key,
            Some(Content::Free { .. }) | None => false,
        })?;
        let slot = self.slots.get(*found as usize)?;
        Some(Id::new(*found, slot.generation))
    }

    /// Adds an entry; `None` when every slot is taken.
    pub(crate) fn insert(&mut self, key: &[u8], entry: T) -> Option<Id> {
        let hash = self.hash(key);
        let content = Content::Live { hash, key: Key::from_slice(key), entry };
        let number = if self.first_free == NONE {
            if self.slots.len() >= SLOTS_MAX {
                return None;
            }
            let number = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot { generation: 1, content });
            number
        } else {
            let number = self.first_free;
            let slot = self.slots.get_mut(number as usize)?;
            if let Content::Free { next } = std::mem::replace(&mut slot.content, content) {
                self.first_free = next;
            }
            number
        };
        let id = Id::new(number, self.slots.get(number as usize)?.generation);
        let slots = &self.slots;
        self.index.insert_unique(hash, number, |&slot| hash_of(slots, slot));
        self.live += 1;
        Some(id)
    }

    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        let slot = self.slots.get(id.slot()).filter(|slot| slot.generation == id.generation())?;
        match &slot.content {
            Content::Live { entry, .. } => Some(entry),
            Content::Free { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation())?;
        match &mut slot.content {
            Content::Live { entry, .. } => Some(entry),
            Content::Free { .. } => None,
        }
    }

    /// Takes an entry and its deadline out.
    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let number = u32::try_from(id.slot()).ok()?;
        let slot = self.slots.get_mut(id.slot())?;
        let content = std::mem::replace(&mut slot.content, Content::Free { next: self.first_free });
        slot.generation = (slot.generation + 1) & (u64::MAX >> INDEX_BITS);
        self.first_free = number;
        let Content::Live { hash, entry, .. } = content else { return None };
        if let Ok(indexed) = self.index.find_entry(hash, |&slot| slot == number) {
            indexed.remove();
        }
        self.wheel.cancel(number);
        self.live -= 1;
        Some(entry)
    }

    /// Sets the deadline of a live entry, in place of the one it has.
    pub(crate) fn arm(&mut self, id: Id, deadline: Instant) {
        if let Ok(slot) = u32::try_from(id.slot()) {
            self.wheel.arm(slot, deadline);
        }
    }

    /// Takes the deadline of one entry that is due; `None` when there is none left.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Id> {
        let number = self.wheel.pop_due(now)?;
        let slot = self.slots.get(number as usize)?;
        Some(Id::new(number, slot.generation))
    }

    /// An instant not after the earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Octets in memory for each entry, without what the entry points to.
    pub(crate) const fn bytes_per_entry() -> usize {
        // The index has 4 octets and 1 of control for each bucket, and is at most 7/8 full.
        size_of::<Slot<T>>() + crate::wheel::BYTES_PER_SLOT + 6
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher;
        hasher.write(key);
        hasher.finish()
    }

    fn content(&self, slot: u32) -> Option<&Content<T>> {
        self.slots.get(slot as usize).map(|slot| &slot.content)
    }
}

fn hash_of<T>(slots: &[Slot<T>], slot: u32) -> u64 {
    match slots.get(slot as usize).map(|slot| &slot.content) {
        Some(Content::Live { hash, .. }) => *hash,
        Some(Content::Free { .. }) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_key_and_by_what_it_holds() {
        let mut table = Table::new(1, 0);
        let invite = table.insert(b"branch", "INVITE").unwrap();
        let cancel = table.insert(b"branch", "CANCEL").unwrap();

        assert_eq!(table.find(b"branch", |entry| *entry == "INVITE"), Some(invite));
        assert_eq!(table.find(b"branch", |entry| *entry == "CANCEL"), Some(cancel));
        assert_eq!(table.find(b"branch", |entry| *entry == "BYE"), None);
        assert_eq!(table.find(b"other", |_| true), None);
    }

    #[test]
    fn an_id_dies_with_its_entry_although_the_slot_lives_on() {
        let mut table = Table::new(1, 0);
        let first = table.insert(b"a", 1).unwrap();
        table.arm(first, Instant::from_micros(5));
        assert_eq!(table.remove(first), Some(1));
        let second = table.insert(b"a", 2).unwrap();

        assert_eq!(first.slot(), second.slot());
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&2));
        assert_eq!(table.pop_due(Instant::from_micros(10)), None);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn thousands_of_entries_come_and_go_and_leave_no_room_behind() {
        let mut table = Table::new(7, 0);
        for round in 0..5_u32 {
            let ids: Vec<_> =
                (0..3_000_u32).map(|n| table.insert(&(n + round).to_be_bytes(), n).unwrap()).collect();
            for (n, id) in (0..).zip(&ids) {
                assert_eq!(table.find(&(n + round).to_be_bytes(), |_| true), Some(*id));
            }
            for (n, id) in (0..).zip(ids) {
                assert_eq!(table.remove(id), Some(n));
            }
            assert_eq!((table.len(), table.slots.len(), table.index.len()), (0, 3_000, 0));
        }
    }
}
