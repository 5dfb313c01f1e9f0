//! Who is at the other end of a connection between servers, by the names in its certificate.

use model::{Fqdn, ServerName};
use rustls::pki_types::CertificateDer;
use topology::Topology;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// First label of the DNS name in an operator's certificate; the rest is the deployment's name.
pub const OPERATOR_NAME_PREFIX: &str = "operator.";

/// Who asks, as far as the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A server of the topology.
    Server(ServerName),
    /// The command line of an operator.
    Operator,
}

/// The identity that a connection's certificate proved; handlers extract it.
#[derive(Clone, Debug)]
pub struct Caller(pub Identity);

/// Why a certificate that our authority signed is not let in.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The connection has no certificate, or one that cannot be read.
    #[error("no readable client certificate")]
    Certificate,
    /// None of its names is a server of the topology or the operator's.
    #[error("the certificate names {names:?}, none of them a server of this topology")]
    Unknown {
        /// DNS names in the certificate.
        names: Vec<String>,
    },
}

impl Identity {
    /// Reads the identity from the peer's verified certificate chain, end entity first.
    ///
    /// Errors: [`IdentityError`].
    pub fn of(chain: Option<&[CertificateDer<'_>]>, topology: &Topology) -> Result<Self, IdentityError> {
        let certificate = chain.and_then(<[_]>::first).ok_or(IdentityError::Certificate)?;
        let names = dns_names(certificate)?;
        Self::of_names(&names, topology).ok_or(IdentityError::Unknown { names })
    }

    /// The identity that one of these DNS names of a verified certificate stands for.
    pub fn of_names(names: &[String], topology: &Topology) -> Option<Self> {
        let server = names.iter().find_map(|name| topology.server_by_fqdn(&Fqdn::new(name).ok()?));
        let operator = format!("{OPERATOR_NAME_PREFIX}{}", topology.deployment);
        match server {
            Some(server) => Some(Self::Server(server.name.clone())),
            None => names.contains(&operator).then_some(Self::Operator),
        }
    }
}

fn dns_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, IdentityError> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| IdentityError::Certificate)?;
    let names = parsed.subject_alternative_name().map_err(|_| IdentityError::Certificate)?;
    Ok(names.map_or_else(Vec::new, |extension| {
        let dns = extension.value.general_names.iter().filter_map(|name| {
            if let GeneralName::DNSName(text) = name { Some((*text).to_owned()) } else { None }
        });
        dns.collect()
    }))
}
