//! The former owner's side: gives pages of users, and parts with them when they are settled.

use std::sync::Arc;

use model::{AddressOfRecord, Epoch, PoolName, limits};
use serde::{Deserialize, Serialize};
use store::{CommitError, Departure, JournalError, MovePage, MovePageContent, UserStore};

use crate::{Shared, accounts, clock, writes::WriteError};

/// Which users are asked for; the query of `GET /v1/leaving`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Giving {
    /// The journal that they leave.
    pub journal: PoolName,
    /// The branch where they are homed.
    pub home: PoolName,
    /// The pool in whose journal they settle.
    pub to: PoolName,
    /// The last one of the page before.
    pub after: Option<AddressOfRecord>,
}

/// Who is settled and may go; the body of `POST /v1/leaving`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parting {
    /// The journal that they leave.
    pub journal: PoolName,
    /// The branch where they are homed.
    pub home: PoolName,
    /// The pool in whose journal they are settled.
    pub to: PoolName,
    /// Epoch of the owner who gave the pages.
    pub epoch: Epoch,
    /// Last number of the journal when the first page was made.
    pub last: u64,
}

/// Why users were not given, or not parted with.
#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    /// The topology in force here does not have the branch there.
    #[error(
        "in version {version} of the topology, which is in force here, {home} is not associated with {to}: \
         `tandem topology reload`"
    )]
    Topology {
        /// The version.
        version: u64,
        /// The branch.
        home: PoolName,
        /// Who asks for its users.
        to: PoolName,
    },
    /// This server does not own the journal at this moment.
    #[error(transparent)]
    NotOwner(#[from] WriteError),
    /// The pages came from another owner, or none was given: ask for them first.
    #[error("the owner of {journal} has changed, or gave nothing yet: ask again for the users of {home}")]
    Again {
        /// The journal.
        journal: PoolName,
        /// The branch.
        home: PoolName,
    },
    /// A user has more than one answer carries: conflicts, since documents have a bound.
    #[error("{aor} has more than fits into one answer: resolve conflicts about this user first")]
    TooLarge {
        /// Who.
        aor: AddressOfRecord,
    },
    /// That nothing is taken any more could not be written down.
    #[error("the associations of branches cannot be written")]
    Memory(#[source] std::io::Error),
    /// The users cannot be read.
    #[error(transparent)]
    Read(#[from] JournalError),
    /// The users were not removed, or it is unknown.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store's thread ended.
    #[error("the store's thread ended")]
    Ended(#[from] tokio::task::JoinError),
}

/// A page of users who leave a journal that this server owns. Before the first one is read, changes under way
/// are waited for, and none is taken any more.
///
/// Errors: [`GiveError`].
pub async fn give(shared: &Arc<Shared>, asked: Giving) -> Result<MovePage, GiveError> {
    let Giving { journal, home, to, after } = asked;
    check(shared, &journal, &home, &to)?;
    let epoch = shared.writing_authority(&journal)?;
    if shared.associations.open_journal(&home).is_some_and(|open| open == journal) {
        let _nobody_writes = shared.gates.of(&journal).write_owned().await;
        let closing = home.clone();
        let closed = shared.associations.on_disk(move |known| known.close(&closing)).await;
        closed.map_err(GiveError::Memory)?;
    }
    let (users, of) = (Arc::clone(&shared.users), (journal.clone(), home));
    let read = move || users.leaving(&of.0, &of.1, after.as_ref(), limits::MOVE_USERS_MAX);
    let page = tokio::task::spawn_blocking(read).await??;
    let still = shared.writing_authority(&journal)?;
    if still != epoch || page.content().epoch > epoch {
        return Err(GiveError::NotOwner(WriteError::Moved { journal }));
    }
    // The store may not have seen this owner's epoch yet; it does when the users depart.
    let page = MovePage::new(MovePageContent { epoch, ..page.content().clone() });
    match page.next() {
        Some(aor) if page.encode().len() > limits::PEER_BODY_BYTES_MAX => {
            Err(GiveError::TooLarge { aor: aor.clone() })
        }
        Some(_) | None => Ok(page),
    }
}

/// Removes users who are settled from a journal that this server owns; returns how many.
///
/// Errors: [`GiveError`]; some may be gone then.
pub async fn part(shared: &Arc<Shared>, settled: Parting) -> Result<usize, GiveError> {
    let Parting { journal, home, to, epoch, last } = settled;
    check(shared, &journal, &home, &to)?;
    let is_open = shared.associations.open_journal(&home).is_some_and(|open| open == journal);
    let mut count = 0_usize;
    loop {
        let _writing = shared.gates.of(&journal).read_owned().await;
        if is_open || shared.writing_authority(&journal)? != epoch {
            return Err(GiveError::Again { journal, home });
        }
        let departure = Departure { journal: journal.clone(), home: home.clone(), epoch, last };
        let users = Arc::clone(&shared.users);
        let depart = move || users.depart(&departure, clock::wall_time(), accounts::fresh_operation());
        match tokio::task::spawn_blocking(depart).await?? {
            0 => return Ok(count),
            gone => count = count.saturating_add(gone),
        }
    }
}

/// Whether the topology in force here has these users leave this journal for that pool.
fn check(shared: &Shared, journal: &PoolName, home: &PoolName, to: &PoolName) -> Result<(), GiveError> {
    let topology = shared.topology();
    let is_there = topology.associated_of(home).is_some_and(|pool| pool.name == *to);
    if is_there && journal != to {
        return Ok(());
    }
    Err(GiveError::Topology { version: topology.version, home: home.clone(), to: to.clone() })
}
