//! TLS configurations from PEM files, with errors that name the file and what to do. TLS 1.2 and 1.3 only.

mod facts;
mod sip_identity;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::WallTime;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

use sip_identity::SipDomainVerifier;

pub use facts::{CertificateFacts, certificate_facts};

const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Files of who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM: the server's certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM: the private key of the first certificate.
    pub key: PathBuf,
}

/// Why a TLS configuration cannot be made. Each message names the file and ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not there.
    #[error("{} does not exist; create it or correct its path in the configuration", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read; let the user of the service read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file is not PEM, or damaged.
    #[error("{} is not valid PEM ({detail}); restore it from where it was issued", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No certificate in the file.
    #[error("{} holds no certificate; it must have a section BEGIN CERTIFICATE", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No private key in the file.
    #[error(
        "{} holds no private key; it must have a section BEGIN PRIVATE KEY, without a passphrase",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not belong together.
    #[error(
        "the key in {} is not the key of the certificate in {}; install the pair that was issued together",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// The certificate has run out.
    #[error(
        "the certificate of {subject} in {} expired on {end}; renew it and install the new one",
        path.display()
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        subject: String,
        /// When it ended.
        end: String,
    },
    /// The certificate is for later.
    #[error(
        "the certificate of {subject} in {} is valid only from {start}; check the clock of this machine, or \
         install the certificate that is valid now",
        path.display()
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        subject: String,
        /// When it begins.
        start: String,
    },
    /// Our other servers would refuse the certificate.
    #[error(
        "the certificate in {} is not one that other servers take from {name}: it must come from {} and \
         carry that name; the reason follows, `tandem certificate renew` makes the right one",
        path.display(), authorities.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// The file with the deployment's authority.
        authorities: PathBuf,
        /// Our name.
        name: String,
        /// The reason.
        #[source]
        source: Box<rustls::Error>,
    },
    /// rustls does not take what is in the file.
    #[error("{} cannot be used for TLS; the reason follows, replace the file", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What TLS listeners for phones and other domains present. Asks for no client certificate. Sessions are
/// resumed by tickets whose keys rotate, so that a pool of phones that reconnects at once costs less.
///
/// `now` is what certificates are compared with. Errors: [`TlsError`].
pub fn server_config(identity: &Identity, now: WallTime) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| unusable(&identity.certificate, error))?
        .with_no_client_auth();
    let (chain, key) = load_identity(identity, now)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| identity_error(identity, error))?;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| unusable(&identity.certificate, error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// What the internal listener presents: requires a client certificate issued by one of `authorities` (PEM),
/// and checks it on every connection, because no session is resumed.
///
/// `now` is what certificates are compared with. Errors: [`TlsError`].
pub fn internal_server_config(
    identity: &Identity,
    authorities: &Path,
    now: WallTime,
) -> Result<Arc<ServerConfig>, TlsError> {
    let roots = load_authorities(authorities, now)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| unusable(authorities, error))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| unusable(&identity.certificate, error))?
        .with_client_cert_verifier(verifier);
    let (chain, key) = load_identity(identity, now)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| identity_error(identity, error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// How outbound TLS trusts: servers whose certificate comes from one of `authorities` (PEM) and carries their
/// name. With an `identity` our certificate is presented to servers that ask, and no session is resumed.
///
/// `now` is what certificates are compared with. Errors: [`TlsError`].
pub fn client_config(
    authorities: &Path,
    identity: Option<&Identity>,
    now: WallTime,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = load_authorities(authorities, now)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| unusable(authorities, error))?
        .with_root_certificates(roots);
    let Some(identity) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let (chain, key) = load_identity(identity, now)?;
    let mut config =
        builder.with_client_auth_cert(chain, key).map_err(|error| identity_error(identity, error))?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// How outbound TLS to SIP domains trusts: as [`client_config`], and a name must be one of the certificate's
/// SIP identities: the host of a `sip` URI, or without any such URI a DNS name, compared whole; no wildcard,
/// no common name (RFC 5922 sections 7.1, 7.2 and 7.4).
///
/// `now` is what certificates are compared with. Errors: [`TlsError`].
pub fn sip_client_config(
    authorities: &Path,
    identity: &Identity,
    now: WallTime,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = SipDomainVerifier::new(load_authorities(authorities, now)?, provider());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| unusable(authorities, error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let (chain, key) = load_identity(identity, now)?;
    let mut config =
        builder.with_client_auth_cert(chain, key).map_err(|error| identity_error(identity, error))?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Makes sure that our other servers will accept what this one presents: that it comes from one of
/// `authorities` (PEM) and carries `name`, our FQDN. What phones are presented may come from anywhere.
///
/// Errors: [`TlsError`], [`TlsError::NotOurs`] among them.
pub fn check_own_identity(
    identity: &Identity,
    authorities: &Path,
    name: &str,
    now: WallTime,
) -> Result<(), TlsError> {
    let refused = |source| TlsError::NotOurs {
        path: identity.certificate.clone(),
        authorities: authorities.to_owned(),
        name: name.to_owned(),
        source: Box::new(source),
    };
    let roots = Arc::new(load_authorities(authorities, now)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| unusable(authorities, error))?;
    let chain = load_certificates(&identity.certificate)?;
    let own_name = ServerName::try_from(name.to_owned())
        .map_err(|_invalid| refused(rustls::Error::General("the name fits no certificate".to_owned())))?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()));
    let Some((first, others)) = chain.split_first() else {
        return Err(TlsError::NoCertificate { path: identity.certificate.clone() });
    };
    verifier.verify_server_cert(first, others, &own_name, &[], time).map(drop).map_err(refused)
}

/// The DNS names in a certificate, in lower case; empty when it has none or cannot be read.
pub(crate) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| {
            if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None }
        })
        .collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn load_identity(
    identity: &Identity,
    now: WallTime,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = load_certificates(&identity.certificate)?;
    for certificate in &chain {
        check_validity(&identity.certificate, certificate, now)?;
    }
    let path = &identity.key;
    let key = PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            TlsError::NoKey { path: path.clone() }
        } else {
            TlsError::Damaged { path: path.clone(), detail: error.to_string() }
        }
    })?;
    Ok((chain, key))
}

/// Authorities that have run out are left out; when none is left, that is the error.
fn load_authorities(path: &Path, now: WallTime) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for certificate in load_certificates(path)? {
        let checked = check_validity(path, &certificate, now)
            .and_then(|()| roots.add(certificate).map_err(|error| unusable(path, error)));
        if let Err(error) = checked {
            refused.get_or_insert(error);
        }
    }
    match refused {
        Some(error) if roots.is_empty() => Err(error),
        Some(_) | None => Ok(roots),
    }
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Damaged { path: path.to_owned(), detail: error.to_string() })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            TlsError::Missing { path }
        } else {
            TlsError::Unreadable { path, source }
        }
    })
}

fn check_validity(path: &Path, certificate: &CertificateDer<'_>, now: WallTime) -> Result<(), TlsError> {
    let certificate = parse(path, certificate)?;
    let validity = certificate.validity();
    let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let subject = || certificate.subject().to_string();
    if now.as_secs() > seconds(validity.not_after) {
        let end = validity.not_after.to_string();
        return Err(TlsError::Expired { path: path.to_owned(), subject: subject(), end });
    }
    if now.as_secs() < seconds(validity.not_before) {
        let start = validity.not_before.to_string();
        return Err(TlsError::NotYetValid { path: path.to_owned(), subject: subject(), start });
    }
    Ok(())
}

fn parse<'a>(path: &Path, certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate)
        .map_err(|error| TlsError::Damaged { path: path.to_owned(), detail: error.to_string() })
}

fn identity_error(identity: &Identity, error: rustls::Error) -> TlsError {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        TlsError::KeyMismatch { certificate: identity.certificate.clone(), key: identity.key.clone() }
    } else {
        unusable(&identity.key, error)
    }
}

fn unusable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), source: Box::new(source) }
}
