//! A group's state as octets: equal states have equal snapshots.

use model::{AddressOfRecord, Epoch};
use serde::{Deserialize, Serialize};

use super::{GroupState, Remembered, User};
use crate::{Binding, OperationId, Removal};

/// Rises with each change of the format.
const VERSION: u8 = 2;
/// The format without removals; still read.
const VERSION_WITHOUT_REMOVALS: u8 = 1;

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Written by another version of the program.
    #[error("the snapshot has format {found}, this program reads {VERSION}")]
    Version {
        /// The format found.
        found: u8,
    },
    /// Not a snapshot, or damaged.
    #[error("the snapshot is damaged")]
    Damaged(#[source] postcard::Error),
    /// It says one thing twice.
    #[error("the snapshot repeats a user or an operation")]
    Repeated,
}

#[derive(Serialize)]
struct Written<'a> {
    epoch: Epoch,
    users: Vec<(&'a AddressOfRecord, u32, &'a [Binding])>,
    operations: Vec<(OperationId, Remembered)>,
    removals: Vec<(&'a AddressOfRecord, &'a [Removal])>,
}

#[derive(Deserialize)]
struct Read {
    epoch: Epoch,
    users: Vec<(AddressOfRecord, u32, Vec<Binding>)>,
    operations: Vec<(OperationId, Remembered)>,
}

impl GroupState {
    /// Writes the whole state.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let users = self.sorted_users();
        let written = Written {
            epoch: self.epoch,
            users: users
                .into_iter()
                .map(|(aor, user)| (aor, user.indexed_at_s, user.bindings.as_slice()))
                .collect(),
            operations: self.operations.iter().collect(),
            removals: self.removals.sorted(),
        };
        postcard::to_extend(&written, vec![VERSION])
            .expect("invariant: memory takes everything, and no type above is of unknown length")
    }

    /// Reads what [`Self::encode_snapshot`] wrote.
    ///
    /// Errors: [`SnapshotError`]; no octets make it panic or allocate beyond their own number.
    pub fn decode_snapshot(octets: &[u8]) -> Result<Self, SnapshotError> {
        let (&version, body) = octets.split_first().ok_or(SnapshotError::Version { found: 0 })?;
        if version != VERSION && version != VERSION_WITHOUT_REMOVALS {
            return Err(SnapshotError::Version { found: version });
        }
        let (read, rest) = postcard::take_from_bytes::<Read>(body).map_err(SnapshotError::Damaged)?;
        let removals: Vec<(AddressOfRecord, Vec<Removal>)> = if version == VERSION {
            postcard::from_bytes(rest).map_err(SnapshotError::Damaged)?
        } else {
            Vec::new()
        };
        let mut state = Self { epoch: read.epoch, ..Self::default() };
        state.users.reserve(read.users.len());
        for (aor, indexed_at_s, bindings) in read.users {
            state.bindings += bindings.len();
            state.expiry.insert((indexed_at_s, aor.clone()));
            let user = User { bindings: bindings.into_iter().collect(), indexed_at_s };
            if state.users.insert(aor, user).is_some() {
                return Err(SnapshotError::Repeated);
            }
        }
        for (operation, remembered) in read.operations {
            if state.operations.find(operation).is_some() {
                return Err(SnapshotError::Repeated);
            }
            state.operations.remember(operation, remembered);
        }
        for (aor, removals) in removals {
            if removals.is_empty() || !state.removals.of(&aor).is_empty() {
                return Err(SnapshotError::Repeated);
            }
            state.removals.replace(&aor, removals);
        }
        Ok(state)
    }
}
