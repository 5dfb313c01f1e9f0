//! `HotStore`: bindings, in memory for lookups, on disk before they are acknowledged.

use std::sync::Arc;

use model::{AddressOfRecord, Epoch, PoolName, WallTime};
use registrar::{Binding, Bindings, Command, Outcome, UserCopy};

use crate::{BindingPage, HotCursor};

/// Called once with the results of a submission, in the order of its commands.
pub type Reply = Box<dyn FnOnce(Vec<Result<Outcome, HotError>>) + Send>;

/// Called once when there is news; it must be short, and must not wait for the store.
pub type Wake = Box<dyn FnOnce() + Send>;

/// The routing groups of every home pool that this server serves or backs up.
///
/// `submit` and the lookups never wait for the disk. Expired bindings are let go by submitting
/// [`registrar::Change::Expire`] now and then, a command like any other.
pub trait HotStore: Send + Sync {
    /// Makes the commands durable, applies them in order and calls `reply`.
    ///
    /// The commands of one submission, and submissions of one thread, are applied in their order. A command
    /// may be applied although its result is [`HotError::Unknown`]: submit it again under the same operation
    /// id. `reply` is called by the store's writer, or at once by the caller's thread when nothing is
    /// written; it must be short, and must not wait for the store. It is called exactly once, whatever
    /// happens.
    fn submit(&self, batch: Vec<Command>, reply: Reply);

    /// The bindings of a user that are alive at `now`, most preferred first. Everything acknowledged is seen.
    fn lookup(&self, home: &PoolName, aor: &AddressOfRecord, now: WallTime) -> Bindings;

    /// Hands over every binding held of a home pool, expired ones included, by routing group and
    /// address-of-record.
    ///
    /// A routing group stands still while it is handed over: keep `each` short.
    fn for_each_binding(&self, home: &PoolName, each: &mut dyn FnMut(&AddressOfRecord, &Binding));

    /// Bindings held of a home pool, expired ones included.
    fn bindings(&self, home: &PoolName) -> usize;

    /// The highest epoch that a command of this home pool carried.
    fn highest_epoch(&self, home: &PoolName) -> Epoch;

    /// The users of a home pool that changed after a cursor, with what is known of each at `now`; at most
    /// `users_max` and `limits::BINDING_USERS_PER_PAGE_MAX` of them.
    ///
    /// Every change acknowledged is in this page or a later one. A cursor of another incarnation, or one that
    /// is more than `limits::BINDING_CHANGES_MAX` changes old, begins a full copy.
    fn changes(&self, home: &PoolName, after: &HotCursor, users_max: usize, now: WallTime) -> BindingPage;

    /// The cursor of a reader that knows everything of a home pool at this moment.
    fn newest_change(&self, home: &PoolName) -> HotCursor;

    /// Calls `wake` when [`Self::changes`] has something after this cursor: at once when it has already.
    ///
    /// It may be called without need: when more than `limits::BINDING_READERS_MAX` wait for one home pool,
    /// the one that waits longest is.
    fn when_changed(&self, home: &PoolName, after: &HotCursor, wake: Wake);

    /// Whether merging this copy of a user (`registrar::Change::Merge`) would change anything.
    fn is_news(&self, home: &PoolName, aor: &AddressOfRecord, copy: &UserCopy, now: WallTime) -> bool;

    /// Home pools that have a log here, in order of name.
    fn homes(&self) -> Vec<PoolName>;

    /// Whether the store takes commands, and what is wrong with it.
    fn health(&self) -> Health;
}

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HotError {
    /// `limits::COMMANDS_WAITING_MAX` commands wait already; nothing was written. Answer 503 with
    /// Retry-After.
    #[error("too many commands wait for the disk")]
    Overloaded,
    /// Writing was begun and failed: the command may be found applied after a restart. Never answer success.
    #[error("whether the command is on disk is unknown: {reason}")]
    Unknown {
        /// What the system said.
        reason: Arc<str>,
    },
    /// The store takes no commands since an earlier write failed; nothing was written.
    #[error("the store takes no commands: {reason}")]
    Failed {
        /// What the system said then.
        reason: Arc<str>,
    },
    /// The command names a home pool beyond `limits::HOME_POOLS_MAX`; nothing was written.
    #[error("a store holds at most {max} home pools")]
    TooManyHomes {
        /// How many are taken.
        max: usize,
    },
}

/// Whether a hot store works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Good,
    /// Commands are taken, but the log cannot be shortened: it grows until this is repaired.
    LogGrows {
        /// What the system said.
        reason: Arc<str>,
    },
    /// No commands are taken; lookups go on. Repair the cause, then start the server again.
    ReadOnly {
        /// What the system said.
        reason: Arc<str>,
    },
}
