//! What both ends know of how far readers are.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Instant, PoolName};
use store::HotCursor;
use tokio::sync::watch;

use super::StreamState;

/// For how long a reader that does not ask counts as reading: between two questions it writes a page.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// Moments kept of one home pool. More: every second one is dropped, and ages are shown higher.
const MOMENTS_MAX: usize = 64;

/// The accounts of all streams of one server.
pub(super) struct Ledger {
    books: Mutex<Books>,
    /// Changes with every question of a reader.
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Books {
    /// By home pool and reader.
    readers: BTreeMap<(PoolName, PoolName), Reading>,
    /// By home pool.
    moments: BTreeMap<PoolName, Moments>,
    /// By home pool.
    own: BTreeMap<PoolName, OwnReading>,
}

/// A pool that reads from us.
#[derive(Default)]
struct Reading {
    cursor: HotCursor,
    heard_at: Option<Instant>,
    /// Questions that wait for news.
    asking: u32,
}

/// Whether a reader is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Now,
    Not,
}

/// How far a reader of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReaderAccount {
    pub(super) heard: Heard,
    pub(super) is_copying: bool,
    /// Changes not confirmed; `u64::MAX` when it has to copy everything.
    pub(super) missing: u64,
    pub(super) age: Duration,
}

/// How far we are as reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnAccount {
    pub(super) source: PoolName,
    pub(super) state: StreamState,
    pub(super) missing: u64,
    pub(super) age: Duration,
}

struct OwnReading {
    source: PoolName,
    state: StreamState,
    missing: u64,
    /// When we last knew everything, or began to read.
    complete_at: Instant,
}

/// A question of a reader, until it is answered.
pub(crate) struct Asking<'a> {
    ledger: &'a Ledger,
    key: (PoolName, PoolName),
}

impl Default for Ledger {
    fn default() -> Self {
        Self { books: Mutex::default(), news: watch::channel(0).0 }
    }
}

impl Ledger {
    /// Sees every question from now on.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// A reader asks with a cursor: what is before it is on its disk.
    pub(super) fn asked(
        &self,
        home: &PoolName,
        reader: &PoolName,
        cursor: &HotCursor,
        newest: &HotCursor,
        now: Instant,
    ) -> Asking<'_> {
        let key = (home.clone(), reader.clone());
        let mut books = self.books();
        let reading = books.readers.entry(key.clone()).or_default();
        reading.cursor = cursor.clone();
        reading.heard_at = Some(now);
        reading.asking = reading.asking.saturating_add(1);
        books.moments.entry(home.clone()).or_default().note(newest.number, now);
        drop(books);
        self.news.send_modify(|number| *number = number.wrapping_add(1));
        Asking { ledger: self, key }
    }

    /// Changes up to `end` that a reader has not confirmed.
    pub(super) fn missing(&self, home: &PoolName, reader: &PoolName, end: &HotCursor) -> u64 {
        let books = self.books();
        let reading = books.readers.get(&(home.clone(), reader.clone()));
        reading.map_or(u64::MAX, |reading| missing(&reading.cursor, end))
    }

    pub(super) fn account_of_reader(
        &self,
        home: &PoolName,
        reader: &PoolName,
        newest: &HotCursor,
        now: Instant,
    ) -> ReaderAccount {
        let mut books = self.books();
        let moments = books.moments.entry(home.clone()).or_default();
        moments.note(newest.number, now);
        let moments = moments.clone();
        let Some(reading) = books.readers.get(&(home.clone(), reader.clone())) else {
            let age = now.saturating_since(Instant::START);
            return ReaderAccount { heard: Heard::Not, is_copying: false, missing: u64::MAX, age };
        };
        let missing = missing(&reading.cursor, newest);
        let is_fresh = reading.heard_at.is_some_and(|at| now.saturating_since(at) < HEARD_WITHIN);
        let age = match missing {
            0 => Duration::ZERO,
            u64::MAX => now.saturating_since(Instant::START),
            _ => moments.age_after(reading.cursor.number, now),
        };
        ReaderAccount {
            heard: if reading.asking > 0 || is_fresh { Heard::Now } else { Heard::Not },
            is_copying: missing == u64::MAX,
            missing,
            age,
        }
    }

    /// We read a home pool from `source`, and this is how it goes: `missing` changes are not on our disk.
    pub(super) fn reads(
        &self,
        home: &PoolName,
        source: &PoolName,
        state: StreamState,
        missing: Option<u64>,
        now: Instant,
    ) {
        let mut books = self.books();
        let own = books.own.entry(home.clone()).or_insert_with(|| OwnReading {
            source: source.clone(),
            state,
            missing: 0,
            complete_at: now,
        });
        let is_other = own.source != *source || own.state == StreamState::Idle;
        if is_other || state == StreamState::Idle || state == StreamState::Steady {
            own.complete_at = now;
        }
        own.source = source.clone();
        own.state = state;
        own.missing = match (state, missing) {
            (StreamState::Idle | StreamState::Steady, _) => 0,
            (StreamState::Initialising | StreamState::Behind | StreamState::Error, Some(missing)) => missing,
            (StreamState::Initialising | StreamState::Behind | StreamState::Error, None) => own.missing,
        };
    }

    pub(super) fn account_as_reader(&self, home: &PoolName, now: Instant) -> Option<OwnAccount> {
        let books = self.books();
        let own = books.own.get(home)?;
        let age = match own.state {
            StreamState::Idle | StreamState::Steady => Duration::ZERO,
            StreamState::Initialising | StreamState::Behind | StreamState::Error => {
                now.saturating_since(own.complete_at)
            }
        };
        Some(OwnAccount { source: own.source.clone(), state: own.state, missing: own.missing, age })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change under the lock is whole when it is left, panic or not.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// The reader, who knew everything, waited until this moment for the first change that it does not know.
    pub(crate) fn news_came(&self, cursor: &HotCursor, now: Instant) {
        let mut books = self.ledger.books();
        books.moments.entry(self.key.0.clone()).or_default().note(cursor.number, now);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(reading) = self.ledger.books().readers.get_mut(&self.key) {
            reading.asking = reading.asking.saturating_sub(1);
            reading.heard_at = Some(crate::clock::now());
        }
    }
}

/// Changes between a reader's cursor and an end; `u64::MAX` when the reader has to copy everything.
fn missing(cursor: &HotCursor, end: &HotCursor) -> u64 {
    let is_complete = cursor.incarnation == end.incarnation && cursor.copying.is_none();
    if is_complete { end.number.saturating_sub(cursor.number) } else { u64::MAX }
}

/// How many changes there were when: at each moment none above its number had been made.
#[derive(Clone, Debug, Default)]
struct Moments(VecDeque<(u64, Instant)>);

impl Moments {
    fn note(&mut self, number: u64, now: Instant) {
        // Of the moments with one number the last one tells most.
        while self.0.back().is_some_and(|(last, at)| *last == number && *at <= now) {
            self.0.pop_back();
        }
        if self.0.back().is_none_or(|(last, at)| *last < number && *at <= now) {
            self.0.push_back((number, now));
        }
        if self.0.len() > MOMENTS_MAX {
            self.0 = self.0.iter().copied().step_by(2).collect();
        }
    }

    /// How long ago the oldest change above `number` was made, at most.
    fn age_after(&self, number: u64, now: Instant) -> Duration {
        let before = self.0.iter().rev().find(|(noted, _)| *noted <= number);
        now.saturating_since(before.map_or(Instant::START, |(_, at)| *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> PoolName {
        PoolName::new(name).unwrap()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_micros(milliseconds * 1_000)
    }

    fn cursor(number: u64) -> HotCursor {
        HotCursor { incarnation: 5, number, copying: None }
    }

    fn account(ledger: &Ledger, newest: u64, now: Instant) -> ReaderAccount {
        ledger.account_of_reader(&pool("east"), &pool("west"), &cursor(newest), now)
    }

    #[test]
    fn a_reader_that_never_asked_lacks_everything() {
        let ledger = Ledger::default();

        let found = account(&ledger, 7, at(9_000));

        assert_eq!((found.heard, found.missing, found.age), (Heard::Not, u64::MAX, Duration::from_secs(9)));
    }

    #[test]
    fn the_lag_is_what_the_reader_has_not_confirmed_and_never_shown_younger_than_it_is() {
        let ledger = Ledger::default();
        let (east, west) = (pool("east"), pool("west"));
        let asking = ledger.asked(&east, &west, &cursor(10), &cursor(10), at(1_000));
        assert_eq!(
            (account(&ledger, 10, at(2_000)).missing, account(&ledger, 10, at(2_000)).heard),
            (0, Heard::Now)
        );

        asking.news_came(&cursor(10), at(5_000));
        let found = account(&ledger, 13, at(5_400));
        assert_eq!((found.missing, found.age), (3, Duration::from_millis(400)));

        drop(ledger.asked(&east, &west, &cursor(12), &cursor(13), at(5_500)));
        let found = account(&ledger, 13, at(5_700));
        assert_eq!(found.missing, 1);
        assert!(found.age >= Duration::from_millis(300), "{:?}", found.age);
        drop(ledger.asked(&east, &west, &cursor(13), &cursor(13), at(5_800)));
        assert_eq!(account(&ledger, 13, at(6_000)).age, Duration::ZERO);
    }

    #[test]
    fn a_reader_of_another_incarnation_or_inside_a_copy_lacks_everything() {
        let ledger = Ledger::default();
        let (east, west) = (pool("east"), pool("west"));
        let other = HotCursor { incarnation: 4, number: 10, copying: None };
        let _asking = ledger.asked(&east, &west, &other, &cursor(10), at(0));

        let found = account(&ledger, 10, at(1));

        assert_eq!((found.missing, found.is_copying), (u64::MAX, true));
        assert_eq!(ledger.missing(&east, &west, &cursor(0)), u64::MAX);
    }

    #[test]
    fn our_own_lag_grows_from_the_moment_at_which_we_knew_everything() {
        let ledger = Ledger::default();
        let (east, west) = (pool("east"), pool("west"));
        let age = |now| ledger.account_as_reader(&east, now).unwrap().age;
        assert_eq!(ledger.account_as_reader(&east, at(0)), None);

        ledger.reads(&east, &west, StreamState::Initialising, Some(100), at(1_000));
        assert_eq!(age(at(3_000)), Duration::from_secs(2));
        ledger.reads(&east, &west, StreamState::Steady, Some(0), at(4_000));
        assert_eq!(age(at(9_000)), Duration::ZERO);
        ledger.reads(&east, &west, StreamState::Error, None, at(9_000));
        assert_eq!(age(at(10_000)), Duration::from_secs(6));
        ledger.reads(&east, &west, StreamState::Idle, None, at(11_000));
        let found = ledger.account_as_reader(&east, at(12_000)).unwrap();
        assert_eq!((found.state, found.missing, found.age), (StreamState::Idle, 0, Duration::ZERO));
    }

    #[test]
    fn moments_stay_few_and_ages_never_too_low() {
        let mut moments = Moments::default();
        (0..10_000).for_each(|number| moments.note(number, at(number * 10)));

        assert!(moments.0.len() <= MOMENTS_MAX);
        for number in [0, 17, 5_000, 9_990] {
            // Change number + 1 was made after moment number.
            assert!(
                moments.age_after(number, at(100_000)) >= Duration::from_millis(100_000 - (number + 1) * 10)
            );
        }
    }
}
