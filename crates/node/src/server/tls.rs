//! Certificates of one server.

use std::sync::Arc;

use model::ServerName;
use rustls::{ClientConfig, ServerConfig};
use transport::{
    TlsConfigs,
    tls::{Identity, TlsError, client_config, internal_server_config, server_config},
};

use crate::{Deployment, clock};

/// What one server presents, and whom it trusts.
pub struct Certificates {
    /// For phones.
    pub phones: Arc<ServerConfig>,
    /// For other servers and operators, who must present one of ours.
    pub internal_server: Arc<ServerConfig>,
    /// Towards other servers.
    pub internal_client: Arc<ClientConfig>,
}

impl Certificates {
    /// Reads the files of one server.
    ///
    /// Errors: [`TlsError`], which names the file: missing, unreadable, not matching, expired.
    pub fn read(deployment: &Deployment, server: &ServerName) -> Result<Self, TlsError> {
        let now = clock::wall_time();
        let identity = Identity {
            certificate: deployment.server_certificate(server),
            key: deployment.server_key(server),
        };
        let authority = deployment.authority_certificate();
        Ok(Self {
            phones: server_config(&identity, now)?,
            internal_server: internal_server_config(&identity, &authority, now)?,
            internal_client: client_config(&authority, Some(&identity), now)?,
        })
    }

    /// What the sockets of a shard need.
    pub fn of_shard(&self) -> TlsConfigs {
        TlsConfigs {
            server: Some(Arc::clone(&self.phones)),
            client: Some(Arc::clone(&self.internal_client)),
            internal_server: Some(Arc::clone(&self.internal_server)),
            internal_client: Some(Arc::clone(&self.internal_client)),
        }
    }
}

/// What the command line presents to servers.
///
/// Errors: as [`Certificates::read`].
pub fn operator_client(deployment: &Deployment) -> Result<Arc<ClientConfig>, TlsError> {
    let identity =
        Identity { certificate: deployment.operator_certificate(), key: deployment.operator_key() };
    client_config(&deployment.authority_certificate(), Some(&identity), clock::wall_time())
}
