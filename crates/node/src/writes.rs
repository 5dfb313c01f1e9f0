//! Changes of user data under the authority of this server.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{Epoch, PoolName};
use pairing::{Authority, Service, Standing};
use store::{Change, CommitError, Committed, UserStore, Write};

use crate::{Hindrance, Shared, clock};

/// How long a change waits for users who are on their way into the journal: longer than they take.
pub const ARRIVE_WITHIN: Duration = Duration::from_millis(1_500);

/// Why user data were not changed. Except for [`Self::Unknown`], nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another pool owns the home pool's users, or nobody is known to.
    #[error("{}", not_owner(.journal, .owner.as_ref()))]
    NotOwner {
        /// Whose user data.
        journal: PoolName,
        /// Who changes them at present, as far as is known.
        owner: Option<PoolName>,
    },
    /// This server stands in for a pool that is gone: user data are read-only until an operator orders the
    /// failover.
    #[error(
        "{journal} is in resiliency mode here: user data can be read but not changed until it is back, or \
         until `tandem pool failover {journal}`"
    )]
    Resiliency {
        /// Whose user data.
        journal: PoolName,
    },
    /// The users come from another journal, and not all are there.
    #[error("users of {home} are on their way from the journal of {from} to that of {journal}: try again")]
    Arriving {
        /// Where the users are homed.
        home: PoolName,
        /// The journal that they leave.
        from: PoolName,
        /// The journal into which they come.
        journal: PoolName,
    },
    /// The right to change them ended while they were written: whether the change counts is known later.
    #[error(
        "the ownership of {journal} changed meanwhile: whether the change counts is unknown; ask again with \
             the same operation id"
    )]
    Moved {
        /// Whose user data.
        journal: PoolName,
    },
    /// The store refused, or does not know.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The thread that wrote ended.
    #[error("whether the change was made is unknown; ask again with the same operation id")]
    Unknown,
}

fn not_owner(journal: &PoolName, owner: Option<&PoolName>) -> String {
    match owner {
        Some(owner) => format!("user data of {journal} are changed at {owner} at present"),
        None => format!("nobody may change user data of {journal} at this moment; try again"),
    }
}

/// Commits changes to the journal of `journal` under the authority that this server holds at this moment.
///
/// The answer is given only while that authority lasts: nothing is acknowledged that a new owner may not
/// have.
/// Errors: [`WriteError`].
pub async fn commit(
    shared: &Arc<Shared>,
    journal: PoolName,
    changes: Vec<Change>,
) -> Result<Vec<Committed>, WriteError> {
    // Who does not own the journal does not learn when users arrive in it.
    shared.writing_authority(&journal)?;
    let homes = homes_of(shared, &changes);
    for home in &homes {
        shared.associations.arrived(home, ARRIVE_WITHIN).await;
    }
    let _writing = shared.gates.of(&journal).read_owned().await;
    let held = shared.writing_authority(&journal)?;
    for home in &homes {
        shared.may_change(home, &journal, held)?;
    }
    let (users, name) = (Arc::clone(&shared.users), journal.clone());
    let done = tokio::task::spawn_blocking(move || users.commit(&name, held, &changes));
    let committed = done.await.map_err(|_| WriteError::Unknown)?;
    match &committed {
        Ok(_) => shared.back_end.worked(),
        Err(CommitError::Store(_) | CommitError::Unknown(_)) => shared.back_end.failed(clock::now()),
        Err(_) => {}
    }
    let committed = committed?;
    match shared.writing_authority(&journal) {
        Ok(still) if still == held => Ok(committed),
        Ok(_) | Err(_) => Err(WriteError::Moved { journal }),
    }
}

/// Where the users are homed whom these changes are about.
fn homes_of(shared: &Shared, changes: &[Change]) -> BTreeSet<PoolName> {
    let mut homes = BTreeSet::new();
    for change in changes {
        let known = shared.directory.user(&change.aor);
        homes.extend(known.and_then(|user| shared.directory.homes().name(user.home).cloned()));
        if let Write::PutAccount { home, .. } = &change.write {
            homes.insert(home.clone());
        }
    }
    homes
}

impl Shared {
    /// Whether the data of users homed on `home` may be changed in `journal`, which this server owns under
    /// `epoch`.
    ///
    /// Errors: [`WriteError::Arriving`], [`WriteError::NotOwner`].
    pub fn may_change(&self, home: &PoolName, journal: &PoolName, epoch: Epoch) -> Result<(), WriteError> {
        self.associations.may_write(home, journal, epoch).map_err(|hindrance| match hindrance {
            Hindrance::Arriving { from } => {
                WriteError::Arriving { home: home.clone(), from, journal: journal.clone() }
            }
            Hindrance::Elsewhere { journal: owner } => {
                WriteError::NotOwner { journal: journal.clone(), owner: Some(owner) }
            }
        })
    }

    /// The epoch under which this server may change user data of a home pool at this moment.
    ///
    /// Errors: [`WriteError::NotOwner`], [`WriteError::Resiliency`].
    pub fn writing_authority(&self, journal: &PoolName) -> Result<Epoch, WriteError> {
        let index = self.directory.homes().index(journal);
        let authority = self.authority.read();
        let held = index.and_then(|index| authority.holds(index, clock::now()));
        may_write(journal, held, index.and_then(|index| authority.standing(index)))
    }
}

/// The epoch under which user data may be written with this authority, as far as one is held.
fn may_write(
    journal: &PoolName,
    held: Option<Authority>,
    standing: Option<&Standing>,
) -> Result<Epoch, WriteError> {
    match (held, standing) {
        (Some(held), _) if held.service == Service::Full => Ok(held.epoch),
        (Some(_), _) => Err(WriteError::Resiliency { journal: journal.clone() }),
        (None, Some(Standing::Elsewhere { tenure, .. })) => {
            Err(WriteError::NotOwner { journal: journal.clone(), owner: Some(tenure.owner.clone()) })
        }
        (None, Some(Standing::Serving(_) | Standing::Paused(_) | Standing::Unknown) | None) => {
            Err(WriteError::NotOwner { journal: journal.clone(), owner: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Instant;
    use pairing::{Contact, PoolState, Tenure};

    use super::*;

    #[test]
    fn only_the_owner_with_user_services_writes_and_others_say_who_is_to_be_asked() {
        let [east, west] = ["east", "west"].map(|name| PoolName::new(name).unwrap());
        let held = |service| Some(Authority { epoch: Epoch::new(3), until: Instant::NEVER_ENDS, service });
        let said = |held, standing: Option<&Standing>| {
            may_write(&east, held, standing).map_err(|error| error.to_string())
        };

        assert_eq!(said(held(Service::Full), None), Ok(Epoch::new(3)));
        let resiliency = said(held(Service::Resiliency), None).unwrap_err();
        assert!(resiliency.contains("tandem pool failover east"), "{resiliency}");
        let tenure = Tenure::new(west, Epoch::new(3), PoolState::FailedOver);
        let elsewhere = Standing::Elsewhere { tenure, contact: Contact::Heard };
        let elsewhere = said(None, Some(&elsewhere)).unwrap_err();
        assert!(elsewhere.contains("at west"), "{elsewhere}");
        let nobody = said(None, Some(&Standing::Unknown)).unwrap_err();
        assert!(nobody.contains("try again"), "{nobody}");
    }
}
