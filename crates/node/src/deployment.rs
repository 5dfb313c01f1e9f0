//! Where the files of a deployment lie.

use std::path::{Path, PathBuf};

use model::ServerName;

/// The folder that `tandem init` makes: topology, certificates and one folder for each server.
///
/// ```text
/// topology.toml            the document every server reads
/// ca/cert.pem, ca/key.pem  the deployment's own certificate authority; the key is needed only to add servers
/// operator/cert.pem, key.pem   what the command line presents to servers
/// servers/NAME/cert.pem, key.pem, nonce.key   what server NAME presents, and the key of its nonces
/// servers/NAME/data/       its bindings, accounts and, for the control role, the control records
/// servers/NAME/log         what it wrote when `tandem up` started it
/// ```
#[derive(Clone, Debug)]
pub struct Deployment {
    root: PathBuf,
    topology: PathBuf,
}

impl Deployment {
    /// The deployment in this folder; nothing is read yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { topology: root.join("topology.toml"), root }
    }

    /// The deployment whose topology document is this file.
    pub fn of_topology(file: &Path) -> Self {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self { topology: file.to_path_buf(), ..Self::at(parent.unwrap_or_else(|| Path::new("."))) }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The topology document.
    pub fn topology(&self) -> PathBuf {
        self.topology.clone()
    }

    /// Certificate of the deployment's certificate authority.
    pub fn authority_certificate(&self) -> PathBuf {
        self.root.join("ca/cert.pem")
    }

    /// Private key of the certificate authority.
    pub fn authority_key(&self) -> PathBuf {
        self.root.join("ca/key.pem")
    }

    /// Certificate that the command line presents.
    pub fn operator_certificate(&self) -> PathBuf {
        self.root.join("operator/cert.pem")
    }

    /// Private key of the command line.
    pub fn operator_key(&self) -> PathBuf {
        self.root.join("operator/key.pem")
    }

    /// The folder of one server.
    pub fn server(&self, server: &ServerName) -> PathBuf {
        self.root.join("servers").join(server.as_str())
    }

    /// Certificate of one server.
    pub fn server_certificate(&self, server: &ServerName) -> PathBuf {
        self.server(server).join("cert.pem")
    }

    /// Private key of one server.
    pub fn server_key(&self, server: &ServerName) -> PathBuf {
        self.server(server).join("key.pem")
    }

    /// The key under which this deployment's servers make nonces: 32 octets, the same on every server.
    pub fn nonce_key(&self, server: &ServerName) -> PathBuf {
        self.server(server).join("nonce.key")
    }

    /// Data folder of one server.
    pub fn data(&self, server: &ServerName) -> PathBuf {
        self.server(server).join("data")
    }
}
