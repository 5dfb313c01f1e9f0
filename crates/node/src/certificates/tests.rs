//! What becomes of files that change, on real files.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use topology::{PhoneCertificate, Topology};

use super::*;

const EXAMPLE: &str = include_str!("../../../tandem/src/example.toml");

/// In the year 2046.
const LATER: WallTime = WallTime::from_secs(2_400_000_000);

/// A folder with an authority, and certificates for one server.
struct Files {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    server: Server,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (topology, _) = Topology::read(EXAMPLE).unwrap();
        let server = topology.servers.iter().find(|server| server.name.as_str() == "east1").unwrap().clone();
        let files = Self { folder: tempfile::tempdir().unwrap(), issuer, server };
        fs::create_dir_all(files.deployment().server(&files.server.name)).unwrap();
        fs::create_dir_all(files.folder.path().join("ca")).unwrap();
        fs::write(files.deployment().authority_certificate(), files.issuer.pem()).unwrap();
        files
    }

    fn deployment(&self) -> Deployment {
        Deployment::at(self.folder.path())
    }

    fn pem(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(2040, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write_certificate(&self, pem: &str) {
        fs::write(self.deployment().server_certificate(&self.server.name), pem).unwrap();
    }

    fn write_key(&self, pem: &str) {
        fs::write(self.deployment().server_key(&self.server.name), pem).unwrap();
    }

    /// Writes a good pair and starts.
    fn in_force(&self) -> CertificatesInForce {
        let (certificate, key) = self.pem(self.server.fqdn.as_str());
        self.write_certificate(&certificate);
        self.write_key(&key);
        CertificatesInForce::open(&self.deployment(), &self.server).unwrap()
    }
}

fn fingerprints(certificates: &CertificatesInForce) -> Vec<String> {
    certificates.statuses(clock::wall_time()).into_iter().map(|status| status.fingerprint).collect()
}

#[test]
fn a_renewed_pair_is_taken_up_by_itself_once_both_files_are_there() {
    let files = Files::new();
    let certificates = files.in_force();
    let told = Arc::new(AtomicUsize::new(0));
    let follower = Arc::clone(&told);
    certificates.follow(move |_| {
        follower.fetch_add(1, Ordering::Relaxed);
    });
    let before = fingerprints(&certificates);
    let now = clock::wall_time();
    let (certificate, key) = files.pem(files.server.fqdn.as_str());

    files.write_certificate(&certificate);
    certificates.look(now);
    files.write_key(&key);
    certificates.look(now);
    assert_eq!(fingerprints(&certificates), before, "the files are still changing");
    certificates.look(now);

    let after = fingerprints(&certificates);
    assert_eq!((after.len(), before.len()), (3, 3));
    assert_ne!(after[0], before[0]);
    assert_eq!(after[0], after[1], "the same file for phones and servers");
    assert_eq!(after[2], before[2], "the authority has not changed");
    assert_eq!(told.load(Ordering::Relaxed), 2, "once at the start");
    assert!(!certificates.reload(now).unwrap());
    assert_eq!(certificates.report(now).refused, None);
}

#[test]
fn what_cannot_be_used_is_refused_as_a_whole_and_told() {
    let files = Files::new();
    let certificates = files.in_force();
    let before = fingerprints(&certificates);
    let now = clock::wall_time();
    let (certificate, key) = files.pem(files.server.fqdn.as_str());

    files.write_certificate(&certificate);
    assert!(matches!(certificates.reload(now), Err(TlsError::KeyMismatch { .. })));
    let refused = certificates.report(now).refused.unwrap();
    assert!(refused.contains("key.pem is not the key"), "{refused}");
    assert!(matches!(certificates.reload(now), Err(TlsError::KeyMismatch { .. })), "not only the first time");

    files.write_key(&key);
    assert!(matches!(certificates.reload(LATER), Err(TlsError::Expired { .. })));
    files.write_certificate("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(matches!(certificates.reload(now), Err(TlsError::Damaged { .. })));
    let (certificate, key) = files.pem("www.example.com");
    files.write_certificate(&certificate);
    files.write_key(&key);
    let foreign = certificates.reload(now).unwrap_err();
    assert!(matches!(foreign, TlsError::NotOurs { .. }), "{foreign}");
    assert_eq!(fingerprints(&certificates), before);

    let (certificate, key) = files.pem(files.server.fqdn.as_str());
    files.write_certificate(&certificate);
    files.write_key(&key);
    assert!(certificates.reload(now).unwrap());
    assert_eq!(certificates.report(now).refused, None);
    assert_ne!(fingerprints(&certificates), before);
}

#[test]
fn phones_may_have_a_certificate_of_another_authority() {
    let (mut files, public) = (Files::new(), Files::new());
    let (certificate, key) = public.pem("sip.example.com");
    let at = |file: &str| files.folder.path().join(file).display().to_string();
    fs::write(at("phones.pem"), certificate).unwrap();
    fs::write(at("phones.key"), key).unwrap();
    // One path from the root, one from the folder of the topology.
    let tls_certificate = at("phones.pem");
    files.server.phone_certificate =
        Some(PhoneCertificate { tls_certificate, tls_key: "phones.key".to_owned() });

    let statuses = files.in_force().statuses(clock::wall_time());

    let names: Vec<_> =
        statuses.iter().map(|status| (status.part.as_str(), status.names.join(" "))).collect();
    assert_eq!(names[0], ("phones", "sip.example.com".to_owned()));
    assert_eq!(names[1], ("servers", files.server.fqdn.to_string()));
    assert!(statuses[0].listeners.iter().any(|at| at == "tls 127.0.1.1:5061"), "{statuses:?}");
}
