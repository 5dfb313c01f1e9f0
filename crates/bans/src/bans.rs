//! The machine: counts offences, slows guessing down, bans, and lets go again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use model::{Instant, IpNetwork, Source, limits};

use crate::{
    Cause, Offence, Proof, UserKey,
    record::{Record, WAIT_MAX},
};

/// How long a source that did nothing more is remembered at least.
const MEMORY_MIN: Duration = WAIT_MAX.saturating_mul(5);

/// What a pool decides about bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Offences within the window that make a ban; 0 = none does.
    pub offences_max: u32,
    /// How long a window is; it begins with its first offence.
    pub window: Duration,
    /// How long the first ban of a source lasts; each further one lasts twice as long.
    pub lasts: Duration,
    /// The longest ban, and how long after the end of one a further one lasts longer.
    pub lasts_max: Duration,
}

/// A ban that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub source: Source,
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
    /// Offences that led to it.
    pub offences: u32,
    /// Which ban of this source it is, from 1.
    pub times: u32,
}

/// Work for the driver, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Do not listen to this source any more, and close its connections.
    Banned(Ban),
    /// Listen to it again.
    Lifted(Source, Lifted),
}

/// Why a ban ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// Its time was over.
    Ended,
    /// An operator wanted it.
    Operator,
    /// `limits::BANS_MAX` others are in force, and it would have been the first to end.
    Full,
}

/// Why an operator cannot ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanError {
    /// The source is never banned: one of our own servers, or in an exempt network.
    Exempt,
}

/// Who misbehaved, and who is banned; of one server.
///
/// At most `limits::SOURCES_TRACKED_MAX` sources and `limits::BANS_MAX` bans, those that are over and
/// remembered included.
#[derive(Clone, Debug)]
pub struct Bans {
    settings: Settings,
    exempt: Vec<IpNetwork>,
    /// Sources in two generations: the older one is dropped as a whole when the younger is full or has lasted
    /// as long as sources are remembered. Who does something more is in the younger.
    young: BTreeMap<Source, Record>,
    old: BTreeMap<Source, Record>,
    young_since: Instant,
    bans: BTreeMap<Source, Known>,
    /// When the next thing happens to each of `bans`.
    ends: BTreeSet<(Instant, Source)>,
    /// How many of `bans` are not over.
    in_force: usize,
    outputs: VecDeque<Output>,
}

/// A ban in force, or one that is over and makes the next one longer.
#[derive(Clone, Copy, Debug)]
struct Known {
    ban: Ban,
    is_over: bool,
    /// Its key in `Bans::ends`.
    end: Instant,
}

impl Bans {
    /// Nobody misbehaved yet. `exempt` are the networks that are never counted and never banned.
    pub const fn new(settings: Settings, exempt: Vec<IpNetwork>) -> Self {
        Self {
            settings,
            exempt,
            young: BTreeMap::new(),
            old: BTreeMap::new(),
            young_since: Instant::START,
            bans: BTreeMap::new(),
            ends: BTreeSet::new(),
            in_force: 0,
            outputs: VecDeque::new(),
        }
    }

    /// A source did something wrong; without proof that it was this source nothing happens.
    pub fn offence(&mut self, now: Instant, source: Source, offence: Offence, proof: Proof) {
        match proof {
            Proof::None => {}
            Proof::Connection | Proof::Nonce => self.count(now, source, offence),
        }
    }

    /// Asks whether a password of `user` may be looked at that came from `source` with a nonce sent there.
    ///
    /// Errors: not for so long; the sender is told to come back then.
    pub fn may_try(&mut self, now: Instant, source: Source, user: UserKey) -> Result<(), Duration> {
        if let Some(known) = self.bans.get(&source).filter(|known| !known.is_over) {
            return Err(known.ban.until.saturating_since(now));
        }
        let waits = self.record(now, source).and_then(|record| record.wait(now, user));
        let Some((left, is_offence)) = waits else { return Ok(()) };
        if is_offence {
            self.count(now, source, Offence::WrongCredentials);
        }
        Err(left)
    }

    /// The password of `user` was wrong, which came from `source` with a nonce sent there.
    pub fn wrong(&mut self, now: Instant, source: Source, user: UserKey) {
        self.count(now, source, Offence::WrongCredentials);
        if let Some(record) = self.record(now, source) {
            record.wrong(now, user);
        }
    }

    /// The password of `user` was right, and the request in the name of another: an offence, and the next try
    /// has to wait as after a wrong one, so that one phone that is set up wrongly has nobody banned.
    pub fn foreign(&mut self, now: Instant, source: Source, user: UserKey) {
        self.count(now, source, Offence::ForeignName);
        if let Some(record) = self.record(now, source) {
            record.wrong(now, user);
        }
    }

    /// The password of `user` was right, which came from `source` with a nonce sent there.
    pub fn right(&mut self, now: Instant, source: Source, user: UserKey) {
        if let Some(record) = self.record(now, source) {
            record.right(user);
        }
    }

    /// Bans a source for `lasts`, in place of a ban that is in force.
    ///
    /// Errors: [`BanError`]; nothing changed.
    pub fn add(&mut self, now: Instant, source: Source, lasts: Duration) -> Result<(), BanError> {
        if self.is_exempt(source) {
            return Err(BanError::Exempt);
        }
        self.ban(now, source, Cause::Operator, 0, Some(lasts));
        Ok(())
    }

    /// Ends a ban and forgets everything about a source; `false` when it was not banned.
    pub fn remove(&mut self, source: Source) -> bool {
        self.young.remove(&source);
        self.old.remove(&source);
        let was_banned = self.is_banned(source);
        self.forget(source, Lifted::Operator);
        was_banned
    }

    /// The bans in force, in the order of their addresses.
    pub fn list(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values().filter(|known| !known.is_over).map(|known| &known.ban)
    }

    /// Whether a source is banned.
    pub fn is_banned(&self, source: Source) -> bool {
        self.bans.get(&source).is_some_and(|known| !known.is_over)
    }

    /// Whether [`Self::may_try`] would refuse nothing and [`Self::right`] would change nothing, for whomever.
    pub fn is_quiet(&self) -> bool {
        self.tracked() == 0 && self.in_force == 0
    }

    /// Sources that misbehaved and are remembered.
    pub fn tracked(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Lets bans end whose time is over, and forgets what is old.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.turn_over_when_due(now);
        while let Some(&(end, source)) = self.ends.first() {
            if end > now {
                return;
            }
            self.ends.pop_first();
            let Some(known) = self.bans.get_mut(&source) else { continue };
            if known.is_over {
                self.bans.remove(&source);
                continue;
            }
            known.is_over = true;
            self.in_force -= 1;
            known.end = known.ban.until + self.settings.lasts_max;
            self.ends.insert((known.end, source));
            self.outputs.push_back(Output::Lifted(source, Lifted::Ended));
        }
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let forget_at = (self.tracked() > 0).then(|| self.young_since + self.memory());
        let end = self.ends.first().map(|(end, _)| *end);
        forget_at.into_iter().chain(end).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn count(&mut self, now: Instant, source: Source, offence: Offence) {
        if self.is_banned(source) || self.is_exempt(source) {
            return;
        }
        self.turn_over_when_due(now);
        if self.tracked() == 0 {
            self.young_since = now;
        }
        let window = self.settings.window;
        let known = self.old.remove(&source);
        let record = self.young.entry(source).or_insert_with(|| known.unwrap_or(Record::new(now)));
        if offence == Offence::Stalled && !record.stalled() {
            return;
        }
        let offences = record.count(now, window);
        if self.settings.offences_max > 0 && offences >= self.settings.offences_max {
            self.young.remove(&source);
            self.ban(now, source, Cause::Offence(offence), offences, None);
        }
    }

    /// What is known of a source that misbehaved; who is asked about becomes young again.
    fn record(&mut self, now: Instant, source: Source) -> Option<&mut Record> {
        self.turn_over_when_due(now);
        if let Some(record) = self.old.remove(&source) {
            self.young.insert(source, record);
        }
        self.young.get_mut(&source)
    }

    fn turn_over_when_due(&mut self, now: Instant) {
        let is_full = self.young.len() >= limits::SOURCES_TRACKED_MAX / 2;
        let is_over = now.saturating_since(self.young_since) >= self.memory();
        if is_full || is_over {
            self.old = std::mem::take(&mut self.young);
            self.young_since = now;
        }
    }

    fn memory(&self) -> Duration {
        self.settings.window.max(MEMORY_MIN)
    }

    fn ban(&mut self, now: Instant, source: Source, cause: Cause, offences: u32, lasts: Option<Duration>) {
        let before = self.bans.get(&source).copied();
        let times_before = before.map_or(0, |known| known.ban.times);
        let longer = self.settings.lasts.saturating_mul(1_u32.checked_shl(times_before).unwrap_or(u32::MAX));
        let lasts = lasts.unwrap_or(longer.min(self.settings.lasts_max));
        if let Some(known) = before {
            self.ends.remove(&(known.end, source));
        } else if self.bans.len() >= limits::BANS_MAX
            && let Some(&(_, first)) = self.ends.first()
        {
            self.forget(first, Lifted::Full);
        }
        if before.is_none_or(|known| known.is_over) {
            self.in_force += 1;
        }
        let until = now + lasts;
        let ban = Ban { source, cause, since: now, until, offences, times: times_before.saturating_add(1) };
        self.bans.insert(source, Known { ban, is_over: false, end: until });
        self.ends.insert((until, source));
        self.outputs.push_back(Output::Banned(ban));
    }

    fn forget(&mut self, source: Source, why: Lifted) {
        let Some(known) = self.bans.remove(&source) else { return };
        self.ends.remove(&(known.end, source));
        if !known.is_over {
            self.in_force -= 1;
            self.outputs.push_back(Output::Lifted(source, why));
        }
    }

    fn is_exempt(&self, source: Source) -> bool {
        self.exempt.iter().any(|network| network.touches(source))
    }

    #[cfg(test)]
    pub(crate) fn users_of(&self, source: Source) -> usize {
        self.young.get(&source).or_else(|| self.old.get(&source)).map_or(0, Record::users)
    }
}
