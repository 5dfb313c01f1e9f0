//! The driver: shards, roles, links between servers and telemetry; the only crate that spawns tasks.
//!
//! [`serve`] runs one server of a topology. A server of the front-end or branch role has one thread for each
//! shard (`shard`), which owns its sockets and machines, and one runtime for everything else: the ownership
//! machines (`ownership`), copies of accounts (`replication`), what other servers say (`links`) and the API
//! (`api`).

pub mod accounts;
pub mod api;
mod authority;
pub mod clock;
mod counters;
mod deployment;
mod directory;
mod flow_token;
mod handover;
mod links;
mod ownership;
pub mod peers;
mod replication;
mod secret;
mod server;
mod shard;
mod shared;

pub use authority::AuthorityTable;
pub use counters::{Counter, Counters};
pub use deployment::Deployment;
pub use directory::{Directory, HomeIndex, Homes, User};
pub use flow_token::{FlowTokens, TokenFlow};
pub use links::Links;
pub use ownership::{OwnershipContext, OwnershipHandle, Ownerships, ownership_key};
pub use replication::Scopes;
pub use secret::Secret;
pub use server::{READY_LINE, ServeError, operator_client, serve};
pub use shared::{Place, Shared};
