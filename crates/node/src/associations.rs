//! Which pool each branch is associated with, where it came from, and who may change its users' data
//! meanwhile.
//!
//! ```text
//!            new topology            first page asked for           all settled         none left at A
//! A: takes changes ───▶ takes them still (open) ───▶ refuses them ─────────────────────▶ forgets them
//! B:                    holds and refuses them ─────────────────────▶ takes them ───────▶ forgets A
//! ```
//! What is known is on disk before it counts. Source: docs/decisions/0006.

mod giving;
mod memory;
mod taking;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use model::{Epoch, PoolName};
use tokio::{sync::watch, time::timeout};
use topology::Topology;

use crate::api::wire::MoveStatus;
pub use giving::{GiveError, Giving, Parting, give, part};
use memory::{Former, Memory, Open, Record};
pub use taking::start;

/// File in the server's data folder.
const FILE: &str = "associations.json";

/// Associations of all branches as this server knows them.
#[derive(Debug)]
pub struct Associations {
    file: PathBuf,
    memory: RwLock<Memory>,
    /// Held while the file is written; nobody who only reads waits for the disk.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
    /// How the moves go that this server works on, by branch and former pool.
    moves: Mutex<BTreeMap<(PoolName, PoolName), MoveStatus>>,
}

/// Why the data of a branch's users cannot be changed in a journal now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// They are on their way into it.
    Arriving {
        /// The journal that they come from.
        from: PoolName,
    },
    /// They have left it, or never were in it.
    Elsewhere {
        /// The journal into which they belong.
        journal: PoolName,
    },
}

impl Associations {
    /// What an earlier process of this server knew, brought up to date with `topology`.
    ///
    /// Errors: the file cannot be read or written; it is never begun anew, since users might be lost.
    pub fn open(folder: &std::path::Path, topology: &Topology) -> std::io::Result<Self> {
        let file = folder.join(FILE);
        let known = memory::read(&file)?;
        let this = Self {
            file,
            memory: RwLock::new(known),
            writing: Mutex::default(),
            changes: watch::channel(0).0,
            moves: Mutex::default(),
        };
        this.adopt(topology, |_| None)?;
        Ok(this)
    }

    /// Takes over the associations of a topology, durably; call it before that is in force. `open` gives the
    /// epoch under which this server owns a journal now.
    ///
    /// Errors: not on disk; nothing was changed.
    pub fn adopt(
        &self,
        topology: &Topology,
        open: impl Fn(&PoolName) -> Option<Epoch>,
    ) -> std::io::Result<()> {
        self.change(|memory| {
            memory.version = topology.version;
            memory.branches.retain(|branch, _| topology.associated_of(branch).is_some());
            for branch in &topology.pools {
                let Some(pool) = &branch.associated_pool else { continue };
                let record = memory.branches.entry(branch.name.clone());
                let record = record.or_insert_with(|| Record::new(pool.clone()));
                let from = std::mem::replace(&mut record.pool, pool.clone());
                if from == *pool {
                    continue;
                }
                record.open = open(&from).map(|epoch| Open { journal: from.clone(), epoch });
                record.former.retain(|former| former.pool != from && former.pool != *pool);
                record.former.push(Former { pool: from, is_taken: false });
            }
        })
    }

    /// The journal into which changes of a branch's users go at this server; `None` for what is no branch.
    pub fn journal_of(&self, home: &PoolName) -> Option<PoolName> {
        let memory = self.read();
        let record = memory.branches.get(home)?;
        Some(record.open.as_ref().map_or_else(|| record.pool.clone(), |open| open.journal.clone()))
    }

    /// Whether the data of users homed on `home` may be changed in `journal`, owned under `epoch`.
    ///
    /// Errors: [`Hindrance`].
    pub fn may_write(&self, home: &PoolName, journal: &PoolName, epoch: Epoch) -> Result<(), Hindrance> {
        let memory = self.read();
        let Some(record) = memory.branches.get(home) else { return Ok(()) };
        if *journal == record.pool {
            let untaken = record.former.iter().find(|former| !former.is_taken);
            return untaken.map_or(Ok(()), |former| Err(Hindrance::Arriving { from: former.pool.clone() }));
        }
        // A branch's own journal holds nothing but what the branch writes there.
        let is_open =
            record.open.as_ref().is_some_and(|open| open.journal == *journal && open.epoch == epoch);
        if is_open || journal == home {
            return Ok(());
        }
        Err(Hindrance::Elsewhere { journal: record.pool.clone() })
    }

    /// Waits, at the owner of the journal of its associated pool, until the users of `home` have arrived in
    /// it, at most `within`.
    pub async fn arrived(&self, home: &PoolName, within: Duration) {
        let mut changes = self.changes.subscribe();
        let arrived = async {
            let is_arriving = || {
                let memory = self.read();
                let record = memory.branches.get(home).filter(|record| record.open.is_none());
                record.is_some_and(|record| record.former.iter().any(|former| !former.is_taken))
            };
            while is_arriving() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _tried_anyhow = timeout(within, arrived).await;
    }

    /// The pools from whose journals users of `branch` may still have to come, the last one first.
    pub fn former(&self, branch: &PoolName) -> Vec<PoolName> {
        let memory = self.read();
        let record = memory.branches.get(branch);
        record
            .map(|record| record.former.iter().rev().map(|former| former.pool.clone()).collect())
            .unwrap_or_default()
    }

    /// Branches whose users may still have to leave the journal of `pool`.
    pub fn leaving(&self, pool: &PoolName) -> Vec<PoolName> {
        let memory = self.read();
        let leaves = |record: &Record| record.former.iter().any(|former| former.pool == *pool);
        memory.branches.iter().filter(|(_, record)| leaves(record)).map(|(name, _)| name.clone()).collect()
    }

    /// Whether users of any branch may still have to leave a former journal.
    fn is_any_leaving(&self) -> bool {
        self.read().branches.values().any(|record| !record.former.is_empty())
    }

    /// The journal of this server that still takes changes of `branch`'s users although they are to leave it.
    fn open_journal(&self, branch: &PoolName) -> Option<PoolName> {
        self.read().branches.get(branch)?.open.as_ref().map(|open| open.journal.clone())
    }

    /// From now on no change of `branch`'s users is taken in the journal that they leave.
    fn close(&self, branch: &PoolName) -> std::io::Result<()> {
        self.change(|memory| {
            if let Some(record) = memory.branches.get_mut(branch) {
                record.open = None;
            }
        })
    }

    /// Users of `branch` were found in the journal of `pool`, from which they may have to come.
    fn found(&self, branch: &PoolName, pool: &PoolName) -> std::io::Result<()> {
        self.change(|memory| {
            let Some(record) = memory.branches.get_mut(branch) else { return };
            if record.pool != *pool && !record.former.iter().any(|former| former.pool == *pool) {
                record.former.push(Former { pool: pool.clone(), is_taken: false });
            }
        })
    }

    /// Whether all users of `branch` that were in the journal of `pool` are settled.
    fn is_taken(&self, branch: &PoolName, pool: &PoolName) -> bool {
        let memory = self.read();
        let former = memory.branches.get(branch).map(|record| &record.former);
        former.is_none_or(|former| former.iter().all(|former| former.pool != *pool || former.is_taken))
    }

    /// All users of `branch` that were in the journal of `pool` are settled.
    fn taken(&self, branch: &PoolName, pool: &PoolName) -> std::io::Result<()> {
        self.change(|memory| {
            let record = memory.branches.get_mut(branch);
            let former =
                record.and_then(|record| record.former.iter_mut().find(|former| former.pool == *pool));
            if let Some(former) = former {
                former.is_taken = true;
            }
        })
    }

    /// No user of `branch` is left in the journal of `pool`.
    fn forget(&self, branch: &PoolName, pool: &PoolName) -> std::io::Result<()> {
        self.moves().remove(&(branch.clone(), pool.clone()));
        self.change(|memory| {
            if let Some(record) = memory.branches.get_mut(branch) {
                record.former.retain(|former| former.pool != *pool);
            }
        })
    }

    /// How the moves go that this server works on.
    pub fn status(&self) -> Vec<MoveStatus> {
        self.moves().values().cloned().collect()
    }

    /// Notes how a move goes; returns whether that is news.
    fn note(&self, status: MoveStatus) -> bool {
        let key = (status.branch.clone(), status.from.clone());
        let is_news = self.moves().get(&key) != Some(&status);
        self.moves().insert(key, status);
        is_news
    }

    /// Another server works on the moves of this branch.
    fn leave(&self, branch: &PoolName) {
        self.moves().retain(|(moving, _), _| moving != branch);
    }

    /// Does what writes to the disk where blocking is allowed.
    async fn on_disk(
        self: &Arc<Self>,
        change: impl FnOnce(&Self) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<()> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || change(&this)).await.map_err(std::io::Error::other)?
    }

    fn change(&self, change: impl FnOnce(&mut Memory)) -> std::io::Result<()> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.read().clone();
        let mut next = before.clone();
        change(&mut next);
        if next != before {
            memory::write(&self.file, &next)?;
            *self.memory.write().unwrap_or_else(PoisonError::into_inner) = next;
            self.changes.send_modify(|number| *number = number.wrapping_add(1));
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn moves(&self) -> std::sync::MutexGuard<'_, BTreeMap<(PoolName, PoolName), MoveStatus>> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../tandem/src/example.toml");

    fn name(text: &str) -> PoolName {
        PoolName::new(text).unwrap()
    }

    fn topology(associated: &str) -> Topology {
        let text =
            EXAMPLE.replace("associated_pool = \"east\"", &format!("associated_pool = \"{associated}\""));
        Topology::read(&text.replacen("parent = \"east\"", &format!("parent = \"{associated}\""), 1))
            .unwrap()
            .0
    }

    fn verdict(at: &Associations, journal: &str, epoch: u64) -> Result<(), Hindrance> {
        at.may_write(&name("branch1"), &name(journal), Epoch::new(epoch))
    }

    #[test]
    fn the_former_owner_takes_changes_until_the_first_page_and_never_again() {
        let folder = tempfile::tempdir().unwrap();
        let east = Associations::open(folder.path(), &topology("east")).unwrap();
        let elsewhere = || Err(Hindrance::Elsewhere { journal: name("west") });
        assert_eq!(verdict(&east, "east", 4), Ok(()));

        east.adopt(&topology("west"), |_| Some(Epoch::new(4))).unwrap();
        assert_eq!(east.journal_of(&name("branch1")), Some(name("east")));
        assert_eq!(verdict(&east, "east", 4), Ok(()));
        assert_eq!(verdict(&east, "east", 5), elsewhere(), "another owner may have given pages meanwhile");
        assert!(verdict(&east, "west", 9).is_err());

        let restarted = Associations::open(folder.path(), &topology("west")).unwrap();
        assert_eq!(verdict(&restarted, "east", 4), Ok(()), "nobody has asked");
        restarted.close(&name("branch1")).unwrap();
        assert_eq!(verdict(&restarted, "east", 4), elsewhere());
        let restarted = Associations::open(folder.path(), &topology("west")).unwrap();
        assert_eq!(verdict(&restarted, "east", 4), elsewhere(), "not after a restart either");
        assert_eq!(restarted.journal_of(&name("branch1")), Some(name("west")));
    }

    #[test]
    fn the_new_owner_takes_changes_when_all_are_settled_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        drop(Associations::open(folder.path(), &topology("east")).unwrap());
        let west = Associations::open(folder.path(), &topology("west")).unwrap();
        let (branch, east) = (name("branch1"), name("east"));
        assert_eq!(verdict(&west, "west", 1), Err(Hindrance::Arriving { from: east.clone() }));
        assert_eq!(verdict(&west, "east", 1), Err(Hindrance::Elsewhere { journal: name("west") }));

        west.taken(&branch, &east).unwrap();
        assert_eq!(verdict(&west, "west", 1), Ok(()));
        let west = Associations::open(folder.path(), &topology("west")).unwrap();
        assert_eq!((verdict(&west, "west", 1), west.former(&branch)), (Ok(()), vec![east.clone()]));
        assert_eq!(west.leaving(&east), std::slice::from_ref(&branch));

        west.forget(&branch, &east).unwrap();
        assert_eq!((west.former(&branch), west.leaving(&east)), (vec![], vec![]));
        west.adopt(&topology("east"), |_| None).unwrap();
        assert_eq!(verdict(&west, "east", 1), Err(Hindrance::Arriving { from: name("west") }), "and back");
    }

    #[test]
    fn home_pools_that_are_no_branches_are_not_hindered_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let known = Associations::open(folder.path(), &topology("east")).unwrap();
        assert_eq!(known.may_write(&name("east"), &name("east"), Epoch::ZERO), Ok(()));
        assert_eq!(known.journal_of(&name("east")), None);

        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        assert!(Associations::open(folder.path(), &topology("east")).is_err());
    }

    #[tokio::test]
    async fn a_change_waits_for_the_users_and_goes_on_when_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        drop(Associations::open(folder.path(), &topology("east")).unwrap());
        let west = Associations::open(folder.path(), &topology("west")).unwrap();
        let (branch, long) = (name("branch1"), Duration::from_secs(3_600));

        let mut waiting = std::pin::pin!(west.arrived(&branch, long));
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        west.taken(&branch, &name("east")).unwrap();
        waiting.await;
        west.arrived(&name("east"), long).await;
    }
}
