//! The files that a server's certificates are read from.

use std::{
    fs,
    hash::Hasher,
    path::{Path, PathBuf},
};

use model::{Fqdn, WallTime};
use siphasher::sip::SipHasher13;
use topology::Server;
use transport::tls::{
    Identity, TlsError, certificate_facts, check_own_identity, client_config, internal_server_config,
    server_config, sip_client_config,
};

use super::{Certificates, InUse, Part};
use crate::Deployment;

/// Where a server's certificates and keys lie.
pub struct Files {
    internal: Identity,
    authority: PathBuf,
    /// `None` where the server speaks no TLS with phones.
    phones: Option<Identity>,
}

impl Files {
    /// The files of a server: of its folder, unless the topology names others for phones.
    pub fn of(deployment: &Deployment, server: &Server) -> Self {
        let internal = Identity {
            certificate: deployment.server_certificate(&server.name),
            key: deployment.server_key(&server.name),
        };
        let named = server.phone_certificate.as_ref().map(|named| Identity {
            certificate: deployment.root().join(&named.tls_certificate),
            key: deployment.root().join(&named.tls_key),
        });
        let is_secure = !server.listen.tls.is_empty() || !server.listen.wss.is_empty();
        let phones = is_secure.then(|| named.unwrap_or_else(|| internal.clone()));
        Self { internal, authority: deployment.authority_certificate(), phones }
    }

    /// A number that is the same while no file changes. Blocks.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        let phones = self.phones.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        for file in
            [&self.authority, &self.internal.certificate, &self.internal.key].into_iter().chain(phones)
        {
            match fs::read(file) {
                Ok(octets) => {
                    hasher.write_usize(octets.len());
                    hasher.write(&octets);
                }
                Err(_unreadable) => hasher.write_usize(usize::MAX),
            }
        }
        hasher.finish()
    }

    /// Reads all of them. Blocks.
    ///
    /// Errors: [`TlsError`]; nothing of what was read is to be used then.
    pub fn read(&self, fqdn: &Fqdn, now: WallTime) -> Result<Certificates, TlsError> {
        let certificates = Certificates {
            phones: self.phones.as_ref().map(|identity| server_config(identity, now)).transpose()?,
            internal_server: internal_server_config(&self.internal, &self.authority, now)?,
            internal_client: client_config(&self.authority, Some(&self.internal), now)?,
            sip_client: sip_client_config(&self.authority, &self.internal, now)?,
            facts: self.facts()?,
        };
        check_own_identity(&self.internal, &self.authority, fqdn.as_str(), now)?;
        Ok(certificates)
    }

    fn facts(&self) -> Result<Vec<InUse>, TlsError> {
        let phones = self.phones.iter().map(|identity| (Part::Phones, &identity.certificate));
        let all =
            phones.chain([(Part::Servers, &self.internal.certificate), (Part::Authority, &self.authority)]);
        all.map(|(part, path)| Ok(InUse { part, file: shown(path), facts: certificate_facts(path)? }))
            .collect()
    }
}

/// Who the command line is.
pub fn operator(deployment: &Deployment) -> Identity {
    Identity { certificate: deployment.operator_certificate(), key: deployment.operator_key() }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
