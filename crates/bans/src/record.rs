//! What is remembered of one source that misbehaved.

use std::time::Duration;

use model::{Instant, limits};

/// Wrong passwords for one user from one source that cost nothing: people mistype.
const GUESSES_FREE: u32 = 3;
/// The first wait after these; it doubles with each further wrong password.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Attempts during a wait of which one counts as an offence: a phone that asks each second is a nuisance,
/// who asks hundreds of times is at work.
const HASTY_PER_OFFENCE: u32 = 16;
/// Stalled connections of which one counts as an offence. We may be the slow ones, or the network: then all
/// phones of an office stall at once.
const STALLED_PER_OFFENCE: u32 = 12;
/// Words of the set of users that took offences back.
const PAID_WORDS: usize = 16;

/// A user name as it is guessed for, whether there is such a user or not: a keyed hash, since names may be of
/// any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey(pub u64);

/// What is remembered of one source.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// When the window began: with its first offence.
    since: Instant,
    /// Offences in it, less what was taken back.
    offences: u32,
    /// Connections that stalled.
    stalled: u32,
    /// Who took some back in this window: one bit for each hash, so that two users may count as one.
    paid: Option<Box<[u64; PAID_WORDS]>>,
    /// Users whose passwords are guessed; at most `limits::USERS_PER_SOURCE_MAX`.
    users: Vec<Guesses>,
}

#[derive(Clone, Copy, Debug)]
struct Guesses {
    user: UserKey,
    wrong: u32,
    hasty: u32,
    /// No password of this user is looked at before.
    wait_until: Instant,
}

impl Record {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { since: now, offences: 0, stalled: 0, paid: None, users: Vec::new() }
    }

    /// Counts an offence; returns how many there are in the window now.
    pub(crate) fn count(&mut self, now: Instant, window: Duration) -> u32 {
        if now.saturating_since(self.since) > window {
            self.since = now;
            self.offences = 0;
            self.paid = None;
        }
        self.offences = self.offences.saturating_add(1);
        self.offences
    }

    /// Notes a stalled connection; whether it counts as an offence.
    pub(crate) fn stalled(&mut self) -> bool {
        self.stalled = self.stalled.saturating_add(1);
        self.stalled.is_multiple_of(STALLED_PER_OFFENCE)
    }

    /// How long `user` has to wait until another password is looked at, and whether asking before is an
    /// offence.
    pub(crate) fn wait(&mut self, now: Instant, user: UserKey) -> Option<(Duration, bool)> {
        let guesses = self.users.iter_mut().find(|guesses| guesses.user == user)?;
        let left = guesses.wait_until.saturating_since(now);
        if left.is_zero() {
            return None;
        }
        guesses.hasty = guesses.hasty.saturating_add(1);
        Some((left, guesses.hasty.is_multiple_of(HASTY_PER_OFFENCE)))
    }

    /// Notes a wrong password for `user`. When too many users are guessed for, the one who waits the shortest
    /// is forgotten: who guesses for that many commits offences enough.
    pub(crate) fn wrong(&mut self, now: Instant, user: UserKey) {
        let at = match self.users.iter().position(|guesses| guesses.user == user) {
            Some(at) => at,
            None => {
                if self.users.len() >= limits::USERS_PER_SOURCE_MAX {
                    let shortest = self.users.iter().enumerate().min_by_key(|(_, of)| of.wait_until);
                    let shortest = shortest.map_or(0, |(at, _)| at);
                    self.users.swap_remove(shortest);
                }
                self.users.push(Guesses { user, wrong: 0, hasty: 0, wait_until: now });
                self.users.len() - 1
            }
        };
        let Some(guesses) = self.users.get_mut(at) else { return };
        guesses.wrong = guesses.wrong.saturating_add(1);
        if let Some(doublings) = guesses.wrong.checked_sub(GUESSES_FREE) {
            let wait = WAIT_FIRST.saturating_mul(1 << doublings.min(16));
            guesses.wait_until = now + wait.min(WAIT_MAX);
        }
    }

    /// Notes a right password for `user`: his own guesses are forgotten and taken back, or one offence of
    /// somebody else; once in a window. A wait of his ends.
    pub(crate) fn right(&mut self, user: UserKey) {
        let own = self.users.iter().position(|guesses| guesses.user == user);
        let wrong = own.map_or(0, |at| self.users.swap_remove(at).wrong);
        if self.offences > 0 && self.pay(user) {
            self.offences = self.offences.saturating_sub(wrong.max(1));
        }
    }

    #[cfg(test)]
    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }

    /// Whether `user` takes something back for the first time in this window.
    fn pay(&mut self, user: UserKey) -> bool {
        let bits = u64::from(u64::BITS);
        let word = usize::try_from(user.0 / bits).unwrap_or(0) % PAID_WORDS;
        let mask = 1 << (user.0 % bits);
        let paid = self.paid.get_or_insert_with(|| Box::new([0; PAID_WORDS]));
        let Some(word) = paid.get_mut(word) else { return false };
        let is_first = *word & mask == 0;
        *word |= mask;
        is_first
    }
}
