//! From passwords to accounts, and from accounts to the store.

use std::path::Path;

use model::{AddressOfRecord, Epoch, PoolName, WallTime};
use sip::digest::{Algorithm, Ha1};
use store::{
    Change, CommitError, Condition, Credentials, DigestAlgorithm, OperationId, SqliteUserStore, StoreError,
    UserStore, Write,
};

use crate::{Secret, clock};

/// Name of the user store's file in a server's data folder.
pub const USERS_FILE: &str = "users.sqlite";

/// Why accounts could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The hash of a password has the wrong size: the algorithm is not supported.
    #[error("the digest of {aor} has an unexpected size")]
    Digest {
        /// Whose.
        aor: AddressOfRecord,
    },
    /// The files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The changes were refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What proves a password in the realm of the address's domain. The password itself is not kept.
///
/// Errors: [`AccountsError::Digest`] never in practice; it says so instead of guessing.
pub fn credentials(aor: &AddressOfRecord, password: &Secret) -> Result<Credentials, AccountsError> {
    let hash = |algorithm| {
        let (user, realm) = (aor.user().as_bytes(), aor.domain().as_bytes());
        Ha1::new(algorithm, user, realm, password.reveal().as_bytes())
    };
    let digest = || AccountsError::Digest { aor: aor.clone() };
    Ok(Credentials {
        ha1_md5: hash(Algorithm::Md5).as_bytes().try_into().map_err(|_| digest())?,
        ha1_sha256: hash(Algorithm::Sha256).as_bytes().try_into().map_err(|_| digest())?,
    })
}

/// The change that adds a user homed on `home` or replaces password and algorithms.
///
/// Errors: as [`credentials`].
pub fn put(
    home: &PoolName,
    aor: &AddressOfRecord,
    password: &Secret,
    algorithms: Option<Vec<DigestAlgorithm>>,
    now: WallTime,
) -> Result<Change, AccountsError> {
    let credentials = credentials(aor, password)?;
    Ok(Change {
        operation: fresh_operation(),
        aor: aor.clone(),
        changed_at: now,
        condition: Condition::Any,
        write: Write::PutAccount { home: home.clone(), credentials, algorithms },
    })
}

/// An operation id that nobody else draws.
pub fn fresh_operation() -> OperationId {
    OperationId::new(u128::from(clock::random_seed()) << 64 | u128::from(clock::random_seed()))
}

/// Writes accounts into the data folder of a server that does not run, under epoch 0.
///
/// Errors: [`AccountsError`]; nothing is written then.
pub fn commit_offline(data: &Path, home: &PoolName, changes: &[Change]) -> Result<(), AccountsError> {
    std::fs::create_dir_all(data).map_err(|source| StoreError::from_io(data, source))?;
    let store = SqliteUserStore::open(&data.join(USERS_FILE))?;
    store.commit(home, Epoch::ZERO, changes)?;
    Ok(())
}
