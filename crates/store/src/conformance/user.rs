//! The suite of [`UserStore`].

mod commit;
mod journal;

use model::{AddressOfRecord, Epoch, PoolName, WallTime};

use crate::{
    AccountChange, AccountWrite, CommitError, Committed, Condition, Credentials, OperationId, UserStore,
};

/// Opens the store under test.
pub trait UserFactory {
    /// The implementation.
    type Store: UserStore;

    /// A store that holds nothing.
    fn create(&self) -> Self::Store;

    /// The same store again, after `store` was closed.
    fn reopen(&self, store: Self::Store) -> Self::Store;
}

/// Runs every check on fresh stores.
pub fn user_store(factory: &impl UserFactory) {
    commit::run(factory);
    journal::run(factory);
}

fn pool(name: &str) -> PoolName {
    PoolName::new(name).expect("the name is a label")
}

fn user(number: u64) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:u{number:07}@example.com")).expect("the text is an address-of-record")
}

fn secret(seed: u64) -> Credentials {
    let octet = u8::try_from(seed % 251).unwrap_or(0);
    Credentials { ha1_md5: [octet; 16], ha1_sha256: [octet; 32] }
}

/// A change of user `number` under operation `operation`; the secret is that of the operation.
fn put(operation: u64, number: u64) -> AccountChange {
    AccountChange {
        operation: OperationId::new(operation.into()),
        aor: user(number),
        changed_at: WallTime::from_secs(operation),
        condition: Condition::Any,
        write: AccountWrite::Put { credentials: secret(operation), algorithms: None },
    }
}

fn remove(operation: u64, number: u64) -> AccountChange {
    AccountChange { write: AccountWrite::Remove, ..put(operation, number) }
}

fn commit_one(
    store: &impl UserStore,
    home: &PoolName,
    epoch: u64,
    change: AccountChange,
) -> Result<Committed, CommitError> {
    let committed = store.commit(home, Epoch::new(epoch), &[change])?;
    assert_eq!(committed.len(), 1, "one answer for each change");
    Ok(committed.into_iter().next().expect("one answer for each change"))
}
