//! Certificates in force. Fields are only ever added.

use serde::{Deserialize, Serialize};

/// One certificate of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// What it is there for: `phones` and `servers` for what these are presented, `authority` for what other
    /// servers and operators must come from.
    pub part: String,
    /// Where it is presented, like `tls 192.0.2.1:5061`.
    pub listeners: Vec<String>,
    /// Its file.
    pub file: String,
    /// Distinguished name of whose it is.
    pub subject: String,
    /// DNS names, URIs and addresses that it is good for.
    pub names: Vec<String>,
    /// When it ends, in seconds since the Unix epoch.
    pub not_after_s: u64,
    /// Seconds until then; negative afterwards.
    pub expires_in_s: i64,
    /// SHA-256 of it, 64 hexadecimal digits.
    pub fingerprint: String,
}

/// Answer of `GET` and `POST /v1/certificates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// What is in force now.
    pub certificates: Vec<CertificateStatus>,
    /// Whether reading the files again put others in force.
    pub is_changed: bool,
    /// Why the files as they are now are not in force; `None` when they are, as far as they were looked at.
    pub refused: Option<String>,
}
