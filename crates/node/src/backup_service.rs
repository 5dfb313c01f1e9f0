//! The backup service: every home pool's user data and bindings, copied to who may have to serve its users.
//!
//! A reader asks the owner of a home pool for what comes after its cursor, again and again, each question
//! waiting for news. The owner learns from the cursors how far its readers are: what would be lost now.

mod change_times;
mod conflict_counts;
mod ledger;
mod orphans;
mod progress;
mod pull;
mod purge;

pub use change_times::ChangeTimes;
pub use conflict_counts::ConflictCounts;
pub use ledger::CopyLedger;
pub use orphans::{Offered, counted};
pub use progress::{CopyState, PageCounts, Progress, QUIET_MAX, Refusal};
pub use pull::{Divergence, Scopes, start};
pub use purge::purge_strangers;
