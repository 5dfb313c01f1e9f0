//! What is asked of a routing group, and what came of it.

use model::{AddressOfRecord, Epoch, PoolName, RoutingGroup, ServerName, WallTime};
use serde::{Deserialize, Serialize};

use crate::{Bindings, ContactChange, FlowRecord, Octets, OperationId, Path, RegisterError, UserCopy};

/// One entry of a routing group's log. Everything that decides the result is in it, the time included, so
/// that every replica comes to the same state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The home pool whose users the group holds.
    pub home: PoolName,
    /// The group; for a change of one user that user's, see [`Command::of_user`].
    pub group: RoutingGroup,
    /// The epoch of who submits it; a lower one than the group has seen is refused.
    pub epoch: Epoch,
    /// Names the operation: it takes effect once, however often it is submitted.
    pub operation: OperationId,
    /// When the submitter took it up.
    pub now: WallTime,
    /// What to do.
    pub change: Change,
}

impl Command {
    /// A command about one user, in the group of that user.
    pub fn of_user(
        home: PoolName,
        epoch: Epoch,
        operation: OperationId,
        now: WallTime,
        aor: AddressOfRecord,
        change: UserChange,
    ) -> Self {
        let group = RoutingGroup::of(&aor);
        Self { home, group, epoch, operation, now, change: Change::User { aor, change } }
    }

    /// A command that merges what another pool knows of a user.
    pub fn of_copy(
        home: PoolName,
        epoch: Epoch,
        now: WallTime,
        aor: AddressOfRecord,
        copy: UserCopy,
    ) -> Self {
        let group = RoutingGroup::of(&aor);
        Self { home, group, epoch, operation: OperationId::new(0), now, change: Change::Merge { aor, copy } }
    }
}

/// What a command does. Logs hold the order of the variants: new ones come last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Changes the bindings of one user.
    User {
        /// Whose.
        aor: AddressOfRecord,
        /// How.
        change: UserChange,
    },
    /// Lets go of bindings that have expired, for at most this many users. Expired bindings are never seen
    /// anyway: this returns their memory.
    Expire {
        /// Bounds the work.
        users_max: u32,
    },
    /// Takes over what another pool knows of a user: of each binding the newest version stays. Idempotent by
    /// itself, so that its operation is neither looked up nor remembered.
    Merge {
        /// Whose.
        aor: AddressOfRecord,
        /// What the other pool knows.
        copy: UserCopy,
    },
}

impl Change {
    /// The user whose bindings it changes; `None` for what concerns a whole group.
    pub const fn user(&self) -> Option<&AddressOfRecord> {
        match self {
            Self::User { aor, .. } | Self::Merge { aor, .. } => Some(aor),
            Self::Expire { .. } => None,
        }
    }

    /// Whether a repetition has to be recognised by its operation; a merge is harmless any number of times.
    pub(crate) const fn takes_effect_once(&self) -> bool {
        match self {
            Self::User { .. } | Self::Expire { .. } => true,
            Self::Merge { .. } => false,
        }
    }
}

/// What happens to the bindings of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// Adds, refreshes and removes bindings (RFC 3261 section 10.3 step 7).
    Register(Registration),
    /// `Contact: *`: removes all bindings (step 6).
    RemoveAll {
        /// Call-ID of the REGISTER.
        call_id: Octets,
        /// CSeq of the REGISTER.
        cseq: u32,
    },
    /// An operator removes the binding with this contact URI, or all of them.
    Remove {
        /// The URI as sent or an equivalent one; `None` = all.
        contact: Option<Octets>,
    },
    /// A connection has closed: its bindings reach nobody any more.
    FlowClosed {
        /// The server that held it.
        server: ServerName,
        /// The boot of that server.
        boot: u64,
        /// [`model::FlowId::number`] of the flow.
        flow: u64,
    },
}

/// One REGISTER with contacts, checked and read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its Call-ID, at most `limits::CALL_ID_BYTES_MAX` octets.
    pub call_id: Octets,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its contacts in order, at most `limits::CONTACTS_PER_REGISTER_MAX`.
    pub contacts: Vec<ContactChange>,
    /// The route back to the phone.
    pub path: Path,
    /// The flow it came over; `None` when it came through another server, which is then in the path.
    pub flow: Option<FlowRecord>,
    /// Devices this user may have when it is done.
    pub devices: DeviceLimit,
}

/// How many devices a user may register, and what becomes of one more.
///
/// On disk a number with a mark in its highest bit, which no limit reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceLimit(u16);

impl DeviceLimit {
    const REPLACES: u16 = 0x8000;

    /// One more is refused with 403.
    pub const fn refusing(max: u16) -> Self {
        Self(max & !Self::REPLACES)
    }

    /// For one more, the one that registered longest ago leaves.
    pub const fn replacing(max: u16) -> Self {
        Self(max | Self::REPLACES)
    }

    /// Most devices, 1 to `limits::DEVICES_PER_USER_MAX`.
    pub const fn max(self) -> u16 {
        self.0 & !Self::REPLACES
    }

    /// Whether the oldest leaves.
    pub const fn replaces_oldest(self) -> bool {
        self.0 & Self::REPLACES != 0
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or done before.
    Registered {
        /// What is bound now, as [`crate::GroupState::lookup`] orders it. After a repeated operation: what is
        /// bound now, not then.
        bindings: Bindings,
        /// What left to make room for a new device; nothing after a repeated operation.
        replaced: Bindings,
    },
    /// Expired bindings are gone.
    Expired {
        /// How many.
        bindings: u32,
    },
    /// Nothing was changed.
    Refused(RegisterError),
}
