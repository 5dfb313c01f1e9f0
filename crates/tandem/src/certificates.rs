//! The deployment's own certificate authority: makes it, and signs what servers and operators present.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use node::{Deployment, clock, peers::OPERATOR_NAME_PREFIX};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use topology::{Server, Topology};

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority's own certificate is valid.
const AUTHORITY_DAYS: u32 = 3_650;
/// How long the certificates it signs are valid.
const LEAF_DAYS: u32 = 730;

/// The deployment's certificate authority, able to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority and writes its certificate and key.
    pub fn create(deployment: &Deployment, name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("no key could be made")?;
        let mut params = params(Vec::new(), &format!("{name} certificate authority"), AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("the authority's certificate")?;
        write(&deployment.authority_certificate(), certificate.pem().as_bytes(), 0o644)?;
        write(&deployment.authority_key(), key.serialize_pem().as_bytes(), 0o600)?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// Opens the authority that `tandem init` made.
    pub fn open(deployment: &Deployment) -> Result<Self> {
        let certificate = read(&deployment.authority_certificate())?;
        let key = KeyPair::from_pem(&read(&deployment.authority_key())?)
            .with_context(|| format!("{} is no private key", deployment.authority_key().display()))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .with_context(|| format!("{} is no certificate", deployment.authority_certificate().display()))?;
        Ok(Self { issuer })
    }

    /// Signs what a server presents to phones, servers and operators, and writes certificate and key.
    ///
    /// It carries the server's and its pool's FQDN, the deployment's domains and the addresses it listens on.
    pub fn sign_server(&self, deployment: &Deployment, topology: &Topology, server: &Server) -> Result<()> {
        let mut names = vec![server.fqdn.to_string()];
        names.extend(topology.pool(&server.pool).map(|pool| pool.fqdn.to_string()));
        names.extend(topology.domains.iter().map(ToString::to_string));
        names.dedup();
        let mut addresses: Vec<_> = listening(server).map(|address| address.ip()).collect();
        addresses.sort();
        addresses.dedup();
        let mut params = params(names, server.fqdn.as_str(), LEAF_DAYS)?;
        params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
        self.sign(params, &deployment.server_certificate(&server.name), &deployment.server_key(&server.name))
    }

    /// Signs what the command line presents to servers, and writes certificate and key.
    pub fn sign_operator(&self, deployment: &Deployment, name: &str) -> Result<()> {
        let params = params(vec![format!("{OPERATOR_NAME_PREFIX}{name}")], "operator", LEAF_DAYS)?;
        self.sign(params, &deployment.operator_certificate(), &deployment.operator_key())
    }

    fn sign(&self, mut params: CertificateParams, certificate: &Path, key: &Path) -> Result<()> {
        let pair = KeyPair::generate().context("no key could be made")?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&pair, &self.issuer).context("the certificate could not be signed")?;
        write(certificate, signed.pem().as_bytes(), 0o644)?;
        write(key, pair.serialize_pem().as_bytes(), 0o600)
    }
}

fn params(names: Vec<String>, common_name: &str, days: u32) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("a name does not fit a certificate")?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(clock::wall_time().as_secs());
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
    Ok(params)
}

fn listening(server: &Server) -> impl Iterator<Item = SocketAddr> {
    let listen = &server.listen;
    let phones = listen.phones().into_iter().flat_map(|(_, addresses)| addresses);
    phones.chain(&listen.internal_sip).chain([&listen.internal_http]).copied()
}

/// Writes a file that only `mode` lets others read, replacing what was there in one step.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let context = || format!("{} cannot be written", path.display());
    let parent = path.parent().context("a file has a folder")?;
    fs::create_dir_all(parent).with_context(context)?;
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh).with_context(context)?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(context)?;
    fs::rename(&fresh, path).with_context(context)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
