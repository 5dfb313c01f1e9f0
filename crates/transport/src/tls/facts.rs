//! What an operator wants to know of a certificate.

use std::path::Path;

use model::WallTime;
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, time::ASN1Time};

use super::{TlsError, load_certificates, parse};

/// The first certificate of a file, as an operator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Distinguished name of whose it is, like `CN=east1.example.com`; may be empty.
    pub subject: String,
    /// Names it is good for (subject alternative names): DNS names, URIs and addresses, as they are written.
    pub names: Vec<String>,
    /// From when it is valid.
    pub begins: WallTime,
    /// Until when it is valid.
    pub ends: WallTime,
    /// SHA-256 of the certificate, 64 hexadecimal digits.
    pub fingerprint: String,
}

/// Reads the first certificate of a PEM file, whether it is valid now or not.
///
/// Errors: [`TlsError`].
pub fn certificate_facts(path: &Path) -> Result<CertificateFacts, TlsError> {
    let chain = load_certificates(path)?;
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate { path: path.to_owned() })?;
    let certificate = parse(path, first)?;
    let validity = certificate.validity();
    Ok(CertificateFacts {
        subject: certificate.subject().to_string(),
        names: names(&certificate),
        begins: wall_time(validity.not_before),
        ends: wall_time(validity.not_after),
        fingerprint: Sha256::digest(first).iter().map(|octet| format!("{octet:02x}")).collect(),
    })
}

fn wall_time(time: ASN1Time) -> WallTime {
    WallTime::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    names.value.general_names.iter().filter_map(text_of).collect()
}

fn text_of(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(text) | GeneralName::URI(text) = name {
        return Some((*text).to_owned());
    }
    let GeneralName::IPAddress(octets) = name else { return None };
    if let Ok(v4) = <[u8; 4]>::try_from(*octets) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(*octets).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}
