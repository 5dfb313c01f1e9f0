//! Copies that this server has no business with any more, after its pool was unpaired: they go at its start.

use std::path::Path;

use model::PoolName;
use store::{Cursor, PurgeError, Scope, StoreError, UserStore};
use topology::Topology;
use tracing::{error, warn};

use super::Scopes;
use crate::remembered_owner;

/// Removes the journals that `pool` has no part in by this topology, and those of which it holds everything
/// where the directory is its due; a narrower copy is made again by the backup service. The store removes a
/// journal only when it verified that nothing of it is left. Each is logged.
///
/// Never removed: the pool's own journal, and one whose owner this pool was when it last had a part in it,
/// since nobody else may have what was changed here. Such a journal stays, with an error in the log.
///
/// Errors: the store cannot be read. A journal that could not be purged is logged and stays.
pub fn purge_strangers(
    users: &impl UserStore,
    topology: &Topology,
    pool: &PoolName,
    data: &Path,
) -> Result<(), StoreError> {
    let scopes = Scopes::of(topology, pool);
    for journal in users.journals()? {
        if journal == *pool || !is_strange(users, &scopes, &journal)? {
            continue;
        }
        if remembered_owner(data, &journal).is_some_and(|owner| owner == *pool) {
            error!(
                pool = %journal,
                "this server has no part in the pool any more, but owned its users: their data are kept. \
                 Pair the pools again, fail back, then unpair them"
            );
            continue;
        }
        match users.purge(&journal, pool) {
            Ok(purged) => {
                let (rows, changes) = (purged.rows, purged.changes);
                warn!(pool = %journal, rows, changes, "copy purged: not paired");
            }
            Err(PurgeError::Store(error)) => return Err(error),
            Err(error @ (PurgeError::OwnPool { .. } | PurgeError::Left { .. } | PurgeError::Unknown(_))) => {
                error!(pool = %journal, %error, "copy not purged; trying again at the next start");
            }
        }
    }
    Ok(())
}

/// Whether more of a journal is held than this server is due.
fn is_strange(users: &impl UserStore, scopes: &Scopes, journal: &PoolName) -> Result<bool, StoreError> {
    Ok(match scopes.wanted(journal) {
        None => true,
        Some(Scope::Everything) => false,
        Some(Scope::Directory | Scope::Branch(_)) => {
            users.cursor(journal, &Scope::Everything)? != Cursor::start(journal.clone())
        }
    })
}

#[cfg(test)]
mod tests {
    use model::{AddressOfRecord, Epoch, WallTime};
    use pairing::{PoolState, Tenure};
    use store::SqliteUserStore;

    use super::*;
    use crate::{Secret, accounts};

    const PAIRED: &str = include_str!("../../../tandem/src/example.toml");

    fn name(text: &str) -> PoolName {
        PoolName::new(text).unwrap()
    }

    /// A store of east with users in these journals.
    fn store(folder: &Path, journals: &[&str]) -> SqliteUserStore {
        let users = SqliteUserStore::open(&folder.join(accounts::USERS_FILE)).unwrap();
        for journal in journals {
            let aor = AddressOfRecord::new(&format!("sip:{journal}@example.com")).unwrap();
            let password = Secret::new("x".to_owned());
            let put = accounts::put(&name(journal), &aor, &password, None, WallTime::from_secs(1)).unwrap();
            users.commit(&name(journal), Epoch::new(1), &[put]).unwrap();
        }
        users
    }

    fn left(users: &SqliteUserStore) -> Vec<String> {
        users.journals().unwrap().iter().map(ToString::to_string).collect()
    }

    fn unpaired() -> Topology {
        Topology::read(&PAIRED.replace("[[pair]]\npools = [\"east\", \"west\"]\n", "")).unwrap().0
    }

    #[test]
    fn after_unpairing_the_copy_of_the_former_partner_goes_and_the_own_journal_stays() {
        let folder = tempfile::tempdir().unwrap();
        let users = store(folder.path(), &["east", "west", "north"]);

        let paired = Topology::read(PAIRED).unwrap().0;
        purge_strangers(&users, &paired, &name("east"), folder.path()).unwrap();
        assert_eq!(left(&users), ["east", "west"], "north is in no topology");

        purge_strangers(&users, &unpaired(), &name("east"), folder.path()).unwrap();
        assert_eq!(left(&users), ["east"]);
        let west = AddressOfRecord::new("sip:west@example.com").unwrap();
        assert_eq!(users.read(&west).unwrap(), None, "its secrets are gone");
    }

    #[test]
    fn what_this_pool_owned_when_it_was_unpaired_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let users = store(folder.path(), &["east", "west"]);
        let tenure = Tenure::new(name("east"), Epoch::new(4), PoolState::FailedOver);
        let file = folder.path().join("ownership-west.json");
        std::fs::write(file, serde_json::to_vec(&tenure).unwrap()).unwrap();

        purge_strangers(&users, &unpaired(), &name("east"), folder.path()).unwrap();

        assert_eq!(left(&users), ["east", "west"]);
    }
}
