//! Requests between servers, and from the command line to a server: HTTP/1.1 and JSON under mutual TLS.

mod client;
mod identity;
mod server;

pub use client::{Endpoint, PeerClient, PeerError};
pub use identity::{Caller, Identity, IdentityError, OPERATOR_NAME_PREFIX};
pub use server::{PeerServer, PeerServerError};
