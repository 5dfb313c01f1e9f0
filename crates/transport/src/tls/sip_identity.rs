//! Whom we reach over TLS by the name of a SIP domain: its identities in a certificate, and nothing like
//! them.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// Accepts a server whose certificate comes from one of our authorities and has the domain that we asked for
/// as a SIP identity. Source: RFC 5922 sections 7.1, 7.2 and 7.4.
#[derive(Debug)]
pub(crate) struct SipDomainVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl SipDomainVerifier {
    pub(crate) const fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Self {
        Self { roots, provider }
    }
}

impl ServerCertVerifier for SipDomainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        // An address is no SIP domain: it stands in the certificate as an address.
        let ServerName::DnsName(name) = server_name else {
            verify_server_name(&certificate, server_name)?;
            return Ok(ServerCertVerified::assertion());
        };
        let name = name.as_ref().trim_end_matches('.');
        if sip_identities(end_entity).iter().any(|identity| identity.eq_ignore_ascii_case(name)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The SIP domains that a certificate is for: hosts of `sip` URIs without a user, or where it has none of
/// these its DNS names, to be compared whole: a wildcard matches nothing. The common name is not looked at.
fn sip_identities(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = &names.value.general_names;
    let uris =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { domain_of(uri) } else { None });
    let uris: Vec<String> = uris.map(str::to_owned).collect();
    if !uris.is_empty() {
        return uris;
    }
    let dns = names.iter().filter_map(|name| {
        if let GeneralName::DNSName(dns) = name {
            Some((*dns).trim_end_matches('.').to_owned())
        } else {
            None
        }
    });
    dns.collect()
}

/// The host of a `sip` URI that names a domain, not a user.
fn domain_of(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
        return None;
    }
    let host = rest.split([';', '?', ':']).next()?.trim_end_matches('.');
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sip_uri_names_a_domain_only_without_a_user() {
        assert_eq!(domain_of("sip:example.com"), Some("example.com"));
        assert_eq!(domain_of("SIP:example.com:5061;transport=tls"), Some("example.com"));
        assert_eq!(domain_of("sip:alice@example.com"), None);
        assert_eq!(domain_of("sips:example.com"), None);
        assert_eq!(domain_of("https://example.com"), None);
        assert_eq!(domain_of("sip:"), None);
    }
}
