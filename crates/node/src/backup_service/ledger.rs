//! What this server knows of every copy to and from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Instant, PoolName, ServerName};
use tokio::sync::watch;

use super::{ChangeTimes, CopyState, Progress};
use crate::api::wire::{Copied, CopyStatus};

/// All copies to and from this server. Bounded by the servers and home pools of the topology: only those are
/// ever named.
#[derive(Debug)]
pub struct CopyLedger {
    me: ServerName,
    inner: Mutex<Inner>,
    /// Grows whenever a reader asks.
    questions: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Copies that this server makes, by home pool.
    copies: BTreeMap<PoolName, Copy>,
    /// Readers of journals that this server holds.
    readers: BTreeMap<(PoolName, ServerName), Reader>,
    /// Readers that confirmed the last change of a journal after this server had stopped to serve its users.
    finals: BTreeSet<(PoolName, ServerName)>,
    /// When the journals held here grew.
    times: BTreeMap<PoolName, ChangeTimes>,
}

#[derive(Debug)]
struct Copy {
    from: Option<ServerName>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug)]
struct Reader {
    held: u64,
    asked_at: Instant,
}

impl CopyLedger {
    /// An empty ledger of this server.
    pub fn new(me: ServerName) -> Self {
        Self { me, inner: Mutex::default(), questions: watch::channel(0).0 }
    }

    /// Notes that the journal of `home` held here ends at `last`.
    pub fn grew(&self, home: &PoolName, last: u64, now: Instant) {
        self.lock().times.entry(home.clone()).or_default().record(last, now);
    }

    /// Notes that a reader asks for what comes after `held`: everything up to there is durable at the reader.
    pub fn asked(&self, home: &PoolName, reader: &ServerName, held: u64, now: Instant) {
        let mut inner = self.lock();
        inner.finals.remove(&(home.clone(), reader.clone()));
        inner.readers.insert((home.clone(), reader.clone()), Reader { held, asked_at: now });
        drop(inner);
        self.questions.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Notes that a reader does not copy users of `home` any more: nothing is lost with what it lacks.
    pub fn left(&self, home: &PoolName, reader: &ServerName) {
        self.lock().readers.remove(&(home.clone(), reader.clone()));
    }

    /// Notes that `reader` has everything of `home`, which this server does not serve any more.
    pub fn finished(&self, home: &PoolName, reader: &ServerName) {
        self.lock().finals.insert((home.clone(), reader.clone()));
    }

    /// Forgets what readers of `home` said: they said it to an earlier owner.
    pub fn forget_readers(&self, home: &PoolName) {
        self.lock().readers.retain(|(known, _), _| known != home);
    }

    /// Returns when `reader` has said that it holds the changes of `home` up to `sequence`.
    pub async fn confirmed(&self, home: &PoolName, reader: &ServerName, sequence: u64) {
        let mut questions = self.questions.subscribe();
        let key = (home.clone(), reader.clone());
        loop {
            questions.borrow_and_update();
            if self.lock().readers.get(&key).is_some_and(|reader| reader.held >= sequence) {
                return;
            }
            if questions.changed().await.is_err() {
                return std::future::pending().await; // never: the sender is ours
            }
        }
    }

    /// Changes what is known of the copy of `home` that this server makes from `from`.
    pub fn copying(
        &self,
        home: &PoolName,
        from: Option<&ServerName>,
        is_begun: bool,
        change: impl FnOnce(&mut Progress),
    ) {
        let mut inner = self.lock();
        let copy = inner
            .copies
            .entry(home.clone())
            .or_insert_with(|| Copy { from: None, progress: Progress::new(is_begun) });
        copy.from = from.cloned();
        change(&mut copy.progress);
    }

    /// How far the given reader is behind the journal of `home` held here: changes, and the age of the
    /// oldest. `None` when that reader has not asked since the start.
    pub fn lag_of(&self, home: &PoolName, reader: &ServerName, now: Instant) -> Option<(u64, Duration)> {
        let inner = self.lock();
        let reader = inner.readers.get(&(home.clone(), reader.clone()))?;
        Some(lag(inner.times.get(home), reader.held, now))
    }

    /// For how long the given reader of `home` has not asked; `None` when it has not since the start.
    pub fn silence_of(&self, home: &PoolName, reader: &ServerName, now: Instant) -> Option<Duration> {
        let inner = self.lock();
        let reader = inner.readers.get(&(home.clone(), reader.clone()))?;
        Some(now.saturating_since(reader.asked_at))
    }

    /// Every copy of documents to and from this server. Readers count only where `is_owner` says that this
    /// server's journal of the home pool is the one to copy.
    pub fn list(&self, now: Instant, is_owner: impl Fn(&PoolName) -> bool) -> Vec<CopyStatus> {
        let inner = self.lock();
        let copies = inner.copies.iter().filter(|(home, _)| !is_owner(home)).map(|(home, copy)| CopyStatus {
            home: home.clone(),
            what: Copied::Documents,
            from: copy.from.clone(),
            to: self.me.clone(),
            state: Some(copy.progress.state(now)),
            lag_entries: None,
            lag_ms: None,
            silent_ms: copy.progress.silence(now).map(millis),
            pages: Some(copy.progress.counts()),
            reason: copy.progress.reason().map(ToOwned::to_owned),
        });
        let readers = inner.readers.iter().filter(|((home, _), _)| is_owner(home));
        let readers = readers.map(|((home, reader), known)| {
            let (entries, age) = lag(inner.times.get(home), known.held, now);
            CopyStatus {
                home: home.clone(),
                what: Copied::Documents,
                from: Some(self.me.clone()),
                to: reader.clone(),
                state: None,
                lag_entries: Some(entries),
                lag_ms: Some(millis(age)),
                silent_ms: Some(millis(now.saturating_since(known.asked_at))),
                pages: None,
                reason: None,
            }
        });
        let finals = inner.finals.iter().filter(|(home, _)| !is_owner(home));
        let finals = finals.map(|(home, reader)| CopyStatus {
            home: home.clone(),
            what: Copied::Documents,
            from: Some(self.me.clone()),
            to: reader.clone(),
            state: Some(CopyState::Final),
            lag_entries: Some(0),
            lag_ms: Some(0),
            silent_ms: None,
            pages: None,
            reason: None,
        });
        copies.chain(readers).chain(finals).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lag(times: Option<&ChangeTimes>, held: u64, now: Instant) -> (u64, Duration) {
    times.map_or((0, Duration::ZERO), |times| (times.last().saturating_sub(held), times.age_after(held, now)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn east() -> PoolName {
        PoolName::new("east").unwrap()
    }

    fn server(name: &str) -> ServerName {
        ServerName::new(name).unwrap()
    }

    #[test]
    fn the_owner_shows_what_each_reader_lacks() {
        let ledger = CopyLedger::new(server("east-fe1"));
        ledger.grew(&east(), 10, at(1));
        ledger.asked(&east(), &server("west-fe1"), 10, at(2));
        ledger.grew(&east(), 13, at(3));

        let shown = ledger.list(at(5), |_| true);

        assert_eq!(shown.len(), 1);
        assert_eq!((shown[0].lag_entries, shown[0].lag_ms), (Some(3), Some(2_000)));
        assert_eq!(ledger.lag_of(&east(), &server("north-fe1"), at(5)), None);
    }

    #[tokio::test]
    async fn a_handover_waits_until_the_reader_holds_everything() {
        let ledger = CopyLedger::new(server("east-fe1"));
        ledger.asked(&east(), &server("west-fe1"), 9, at(1));

        let (east, west) = (east(), server("west-fe1"));
        let mut waiting = std::pin::pin!(ledger.confirmed(&east, &west, 10));
        let is_early = tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_ok();
        ledger.asked(&east, &west, 10, at(2));
        waiting.await;

        assert!(!is_early);
    }

    #[test]
    fn a_reader_shows_its_state_and_no_readers_of_its_own_copy() {
        let ledger = CopyLedger::new(server("west-fe1"));
        ledger.asked(&east(), &server("branch1-sba"), 3, at(1));
        ledger.copying(&east(), Some(&server("east-fe1")), false, |progress| {
            progress.applied(at(1), true, true);
        });

        let shown = ledger.list(at(2), |_| false);

        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].state, Some(CopyState::Steady));
        assert_eq!(shown[0].from, Some(server("east-fe1")));
    }

    #[test]
    fn a_copy_is_final_from_its_last_confirmation_until_its_reader_asks_again() {
        let ledger = CopyLedger::new(server("east-fe1"));
        let state = |is_owner: bool| ledger.list(at(3), |_| is_owner).first().and_then(|copy| copy.state);
        ledger.finished(&east(), &server("west-fe1"));

        assert_eq!(state(false), Some(CopyState::Final));
        assert_eq!(state(true), None, "the handover did not succeed after all");
        ledger.asked(&east(), &server("west-fe1"), 9, at(2));
        assert_eq!(state(false), None);
    }
}
