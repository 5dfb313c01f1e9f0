//! Why a server does not start.

use std::path::PathBuf;

use model::ServerName;
use store::StoreError;
use topology::Role;
use transport::{BindError, tls::TlsError};

use crate::{call_records::SpoolError, peers::PeerServerError};

/// Why a server does not start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No server of the topology has this name.
    #[error("the topology has no server {name}: see its names with `tandem topology show`")]
    UnknownServer {
        /// The name asked for.
        name: ServerName,
    },
    /// The role is not part of this version.
    #[error(
        "this version does not run the role {role}: remove the server from the topology or start another one"
    )]
    RoleNotThere {
        /// The role asked for.
        role: Role,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A SIP listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The listener for other servers.
    #[error(transparent)]
    Peers(#[from] PeerServerError),
    /// Data files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Call records that wait for the owner of the user data.
    #[error(transparent)]
    CallRecords(#[from] SpoolError),
    /// The key of nonces.
    #[error("{} has no 32 octets to read: copy it from another server of the deployment", file.display())]
    NonceKey {
        /// The file.
        file: PathBuf,
    },
    /// The data folder.
    #[error("{} cannot be made: check the rights of its folder", folder.display())]
    Data {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A thread.
    #[error("no thread could be started")]
    Thread(#[source] std::io::Error),
}
