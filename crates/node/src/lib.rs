//! The driver: shards, roles, links between servers and telemetry; the only crate that spawns tasks.
//!
//! [`serve`] runs one server of a topology. A server of the front-end or branch role has one thread for each
//! shard (`shard`), which owns its sockets and machines, and one runtime for everything else: the ownership
//! machines (`ownership`), copies of user data (`backup_service`), of bindings
//! (`binding_stream`), what other servers say (`links`) and the API
//! (`api`).

pub mod accounts;
pub mod api;
mod associations;
mod authority;
mod back_end;
pub mod backup_service;
mod binding_stream;
pub mod call_records;
mod certificates;
pub mod clock;
mod counters;
mod defence;
mod deployment;
mod directory;
mod emergency;
mod flow_token;
mod gates;
mod links;
mod locator;
mod owner_news;
mod ownership;
pub mod peers;
mod secret;
mod server;
mod shard;
mod shared;
mod storm;
mod topology_in_force;
mod user_services;
mod writes;

pub use associations::{Associations, Hindrance};
pub use authority::AuthorityTable;
pub use back_end::BackEnd;
pub use backup_service::Scopes;
pub use binding_stream::{BindingStreams, FinalError, StreamLag, StreamPart, StreamState};
pub use call_records::CallRecorder;
pub use certificates::{Certificates, CertificatesInForce, operator_client};
pub use counters::{Counter, Counters};
pub use defence::Defence;
pub use deployment::Deployment;
pub use directory::{Directory, HomeIndex, Homes, User};
pub use emergency::EmergencyNumbers;
pub use flow_token::{FlowTokens, TokenFlow};
pub use gates::Gates;
pub use links::{Links, ServedHome, Serving};
pub use locator::Locator;
pub use owner_news::OwnerNews;
pub use ownership::{OwnershipContext, OwnershipHandle, Ownerships, ownership_key, remembered_owner};
pub use secret::Secret;
pub use server::{READY_LINE, ServeError, serve};
pub use shared::{Place, Shared};
pub use topology_in_force::{Candidate, TopologyInForce};
pub use user_services::{Callee, DiversionReason, Ringing, UserServices, Wish};
