//! TLS and mutual TLS on real sockets, with certificates made for each test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use common::{Seen, Server, any, expect, message, run};
use model::{Protocol, WallTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use transport::{
    CloseReason, ConnectError, ConnectFailure, Destination, Settings, ShardConfig, TlsConfigs,
    tls::{
        Identity, TlsError, certificate_facts, check_own_identity, client_config, internal_server_config,
        server_config, sip_client_config,
    },
};

/// In November 2026.
const NOW: WallTime = WallTime::from_secs(1_795_000_000);

/// A certificate authority with its files in a directory of its own.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("authority.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn roots(&self) -> PathBuf {
        self.path("authority.pem")
    }

    fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity {
            certificate: self.path(&format!("{}.pem", names[0])),
            key: self.path(&format!("{}.key", names[0])),
        };
        fs::write(&identity.certificate, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    /// A server of ours: internal listener and outbound connections with one certificate.
    fn server_of_ours(&self, shard: u16, names: &[&str]) -> Server {
        let identity = self.issue(names);
        let tls_configs = TlsConfigs {
            internal_server: Some(internal_server_config(&identity, &self.roots(), NOW).unwrap()),
            internal_client: Some(client_config(&self.roots(), Some(&identity), NOW).unwrap()),
            ..TlsConfigs::default()
        };
        Server::start(ShardConfig { shard, internal: Some(any()), tls_configs, ..ShardConfig::default() })
    }
}

fn tls_server(authority: &Authority, names: &[&str], settings: Settings) -> Server {
    let server = Some(server_config(&authority.issue(names), NOW).unwrap());
    let client = Some(client_config(&authority.roots(), None, NOW).unwrap());
    let tls_configs = TlsConfigs { server, client, ..TlsConfigs::default() };
    Server::start(ShardConfig { tls: vec![any()], tls_configs, settings, ..ShardConfig::default() })
}

async fn phone(
    address: SocketAddr,
    roots: &Path,
    identity: Option<&Identity>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(client_config(roots, identity, NOW).unwrap());
    let stream = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

#[test]
fn messages_pass_over_tls_both_ways_and_carry_no_names() {
    run(async {
        let authority = Authority::new("test");
        let mut server = tls_server(&authority, &["pool.example.com"], Settings::default());
        let address = server.shard.bound().tls[0];
        let roots = authority.roots();
        let mut phone = server.during(phone(address, &roots, None, "pool.example.com")).await.unwrap();
        let long = message(&"x".repeat(50_000));
        phone.write_all(&long).await.unwrap();
        server.during(phone.flush()).await.unwrap();

        let (peer, bytes, names) = server.message().await;
        server.shard.send(&peer, b"answer ").unwrap();
        server.shard.send(&peer, &long).unwrap();
        server.during(expect(&mut phone, b"answer ")).await;
        server.during(expect(&mut phone, &long)).await;

        assert_eq!((peer.protocol, peer.local, names), (Protocol::Tls, address, None));
        assert_eq!(bytes, long);
        phone.write_all(b"\r\n\r\n").await.unwrap();
        server.during(expect(&mut phone, b"\r\n")).await;
        server.shard.close(peer.flow, true);
        assert_eq!(server.during(phone.read(&mut [0; 1])).await.unwrap(), 0);
        drop(phone);
        assert_eq!(server.closed(peer.flow).await, (CloseReason::ClosedHere, 0));
    });
}

#[test]
fn an_outbound_tls_connection_verifies_the_name_and_is_reused_per_name() {
    run(async {
        let authority = Authority::new("test");
        let mut server =
            tls_server(&authority, &["pool.example.com", "other.example.com"], Settings::default());
        let address = server.shard.bound().tls[0];

        let good = server.shard.connect(&Destination::tls(address, "pool.example.com")).unwrap();
        server.shard.send(&good, &message("to myself")).unwrap();
        let (from, bytes, _) = server.message().await;
        assert_eq!(bytes, message("to myself"));
        assert_ne!(from.flow, good.flow);
        assert_eq!(server.shard.connect(&Destination::tls(address, "pool.example.com")).unwrap(), good);
        let other = server.shard.connect(&Destination::tls(address, "other.example.com")).unwrap();
        assert_ne!(other.flow, good.flow);

        let bad = server.shard.connect(&Destination::tls(address, "wrong.example.com")).unwrap();
        server.shard.send(&bad, b"secret").unwrap();
        let failed = loop {
            match server.turn().await.into_iter().find(|seen| matches!(seen, Seen::ConnectFailed { .. })) {
                Some(Seen::ConnectFailed { peer, reason, unsent }) => break (peer, reason, unsent),
                _ => continue,
            }
        };
        assert_eq!((failed.0, failed.2.as_ref()), (bad, b"secret".as_slice()));
        let ConnectFailure::Tls(reason) = failed.1 else { panic!("{:?}", failed.1) };
        assert!(reason.contains("wrong.example.com"), "{reason}");
        let invalid = server.shard.connect(&Destination::tls(address, "not a name"));
        assert_eq!(invalid, Err(ConnectError::Name { name: "not a name".to_owned() }));
        let internal = server.shard.connect(&Destination::internal(address, "pool.example.com"));
        assert_eq!(internal, Err(ConnectError::NoTls));
    });
}

#[test]
fn servers_of_one_authority_know_each_other_by_name() {
    run(async {
        let authority = Authority::new("ours");
        let mut east = authority.server_of_ours(1, &["East.Example.com", "pool.example.com"]);
        let mut west = authority.server_of_ours(2, &["west.example.com"]);
        let address = west.shard.bound().internal.unwrap();

        let peer = east.shard.connect(&Destination::internal(address, "west.example.com")).unwrap();
        east.shard.send(&peer, &message("from east")).unwrap();
        let (from, bytes, names) = east.during(west.message()).await;
        west.shard.send(&from, &message("from west")).unwrap();
        let (back, answer, server_names) = west.during(east.message()).await;

        assert_eq!((bytes, answer), (message("from east").into(), message("from west").into()));
        let expected: Arc<[String]> = ["east.example.com".to_owned(), "pool.example.com".to_owned()].into();
        assert_eq!(names, Some(expected));
        assert_eq!(server_names, Some(["west.example.com".to_owned()].into()));
        assert_eq!((back, peer.local), (peer, east.shard.bound().internal.unwrap()));
    });
}

#[test]
fn the_internal_listener_refuses_no_certificate_and_a_foreign_one() {
    run(async {
        let authority = Authority::new("ours");
        let foreign = Authority::new("theirs");
        let mut server = authority.server_of_ours(1, &["east.example.com"]);
        let address = server.shard.bound().internal.unwrap();
        let stranger = foreign.issue(&["west.example.com"]);

        for (identity, expected) in [(None, "no certificates"), (Some(&stranger), "UnknownIssuer")] {
            let roots = authority.roots();
            // In TLS 1.3 the client learns only from its first read that it was refused.
            let attempt = async {
                let mut phone = phone(address, &roots, identity, "east.example.com").await?;
                phone.write_all(&message("let me in")).await?;
                phone.read(&mut [0; 1]).await
            };
            let (attempt, seen) = tokio::join!(attempt, server.one());

            assert!(attempt.is_err(), "{attempt:?}");
            let Seen::Closed { reason: CloseReason::Tls(reason), .. } = seen else { panic!("{seen:?}") };
            assert!(reason.contains(expected), "{reason}");
        }
        assert_eq!(server.shard.connections(), 0);
    });
}

#[test]
fn our_servers_refuse_a_server_of_another_authority_or_another_name() {
    run(async {
        let authority = Authority::new("ours");
        let foreign = Authority::new("theirs");
        let mut east = authority.server_of_ours(1, &["east.example.com"]);
        let mut west = authority.server_of_ours(2, &["west.example.com"]);
        let mut impostor = foreign.server_of_ours(3, &["west.example.com"]);

        for (server, name) in [(&mut impostor, "west.example.com"), (&mut west, "north.example.com")] {
            let address = server.shard.bound().internal.unwrap();
            let peer = east.shard.connect(&Destination::internal(address, name)).unwrap();
            east.shard.send(&peer, b"secret").unwrap();

            let seen = server.during(east.one()).await;

            let Seen::ConnectFailed { reason: ConnectFailure::Tls(_), unsent, .. } = seen else {
                panic!("{seen:?}")
            };
            assert_eq!(unsent.as_ref(), b"secret");
        }
    });
}

#[test]
fn a_handshake_that_takes_too_long_is_closed() {
    run(async {
        let authority = Authority::new("test");
        let settings = Settings { half_open_max: Duration::from_millis(50), ..Settings::default() };
        let mut server = tls_server(&authority, &["pool.example.com"], settings);
        let mut silent = TcpStream::connect(server.shard.bound().tls[0]).await.unwrap();
        // The first octets of a ClientHello.
        silent.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();

        let seen = server.one().await;

        assert!(matches!(seen, Seen::Closed { reason: CloseReason::TooSlow, unsent: 0, .. }), "{seen:?}");
    });
}

#[test]
fn new_certificates_are_used_without_a_restart() {
    run(async {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let mut server = tls_server(&old, &["pool.example.com"], Settings::default());
        let address = server.shard.bound().tls[0];
        let roots = old.roots();
        server.during(phone(address, &roots, None, "pool.example.com")).await.unwrap();

        let renewed = Some(server_config(&new.issue(&["pool.example.com"]), NOW).unwrap());
        server.shard.set_tls(TlsConfigs { server: renewed, ..TlsConfigs::default() });

        let roots = new.roots();
        server.during(phone(address, &roots, None, "pool.example.com")).await.unwrap();
    });
}

#[test]
fn an_expired_certificate_is_named_with_its_end_and_the_remedy() {
    let authority = Authority::new("test");
    let identity = authority.issue_with(&["old.example.com"], |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    });

    let errors = [
        server_config(&identity, NOW).unwrap_err(),
        internal_server_config(&identity, &authority.roots(), NOW).unwrap_err(),
        client_config(&authority.roots(), Some(&identity), NOW).unwrap_err(),
    ];

    for error in errors {
        assert!(matches!(error, TlsError::Expired { .. }), "{error}");
        let text = error.to_string();
        for part in ["CN=old.example.com", "old.example.com.pem", "expired on Jan  1", "2020", "renew it"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let facts = certificate_facts(&identity.certificate).unwrap();
    assert_eq!(facts.ends, WallTime::from_secs(1_577_836_800));
    assert_eq!(
        (facts.subject.as_str(), facts.names.as_slice()),
        ("CN=old.example.com", &["old.example.com".to_owned()][..])
    );
    assert_eq!(facts.fingerprint.len(), 64);
}

#[test]
fn a_certificate_that_is_not_yet_valid_points_at_the_clock() {
    let authority = Authority::new("test");
    let identity = authority.issue_with(&["new.example.com"], |params| {
        params.not_before = date_time_ymd(2040, 1, 1);
    });

    let error = server_config(&identity, NOW).unwrap_err();

    assert!(matches!(error, TlsError::NotYetValid { .. }), "{error}");
    assert!(error.to_string().contains("check the clock"), "{error}");
}

/// An error, what it must be, and the file that it must name.
type Case<'a> = (TlsError, fn(&TlsError) -> bool, &'a Path);

#[test]
fn a_file_that_is_missing_damaged_or_of_the_wrong_kind_is_named() {
    let authority = Authority::new("test");
    let good = authority.issue(&["a.example.com"]);
    let other = authority.issue(&["b.example.com"]);
    let with = |certificate: &Path, key: &Path| {
        let identity = Identity { certificate: certificate.to_owned(), key: key.to_owned() };
        server_config(&identity, NOW).unwrap_err()
    };
    let missing = authority.path("none.pem");
    let garbage = authority.path("garbage.pem");
    fs::write(&garbage, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    let not_x509 = authority.path("not-x509.pem");
    fs::write(&not_x509, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();

    let cases: [Case<'_>; 7] = [
        (with(&missing, &good.key), |error| matches!(error, TlsError::Missing { .. }), &missing),
        (with(&good.certificate, &missing), |error| matches!(error, TlsError::Missing { .. }), &missing),
        (with(&good.key, &good.key), |error| matches!(error, TlsError::NoCertificate { .. }), &good.key),
        (
            with(&good.certificate, &good.certificate),
            |error| matches!(error, TlsError::NoKey { .. }),
            &good.certificate,
        ),
        (with(&garbage, &good.key), |error| matches!(error, TlsError::Damaged { .. }), &garbage),
        (with(&not_x509, &good.key), |error| matches!(error, TlsError::Damaged { .. }), &not_x509),
        (
            with(&good.certificate, &other.key),
            |error| matches!(error, TlsError::KeyMismatch { .. }),
            &other.key,
        ),
    ];

    for (error, is_expected, path) in cases {
        assert!(is_expected(&error), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let unreadable = client_config(authority.directory.path(), None, NOW).unwrap_err();
    assert!(matches!(unreadable, TlsError::Unreadable { .. }), "{unreadable:?}");
}

#[test]
fn what_other_servers_would_refuse_is_refused_here_first() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let identity = ours.issue(&["east1.example.com"]);

    assert!(check_own_identity(&identity, &ours.roots(), "east1.example.com", NOW).is_ok());
    let of_another = check_own_identity(&identity, &ours.roots(), "west1.example.com", NOW).unwrap_err();
    let stranger =
        check_own_identity(&foreign.issue(&["east1.example.com"]), &ours.roots(), "east1.example.com", NOW);

    for error in [of_another, stranger.unwrap_err()] {
        assert!(matches!(error, TlsError::NotOurs { .. }), "{error}");
        assert!(error.to_string().contains("tandem certificate renew"), "{error}");
    }
}

/// A ClientHello of TLS 1.1 with one cipher suite that was in use then.
fn old_client_hello() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    // No session; TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA; no compression.
    hello.extend([0, 0, 2, 0xc0, 0x09, 1, 0]);
    // Extensions: secp256r1, uncompressed points, ecdsa_secp256r1_sha256.
    hello.extend([0, 22, 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[test]
fn tls_before_1_2_is_refused_by_an_alert() {
    run(async {
        let authority = Authority::new("test");
        let mut server = tls_server(&authority, &["pool.example.com"], Settings::default());
        let address = server.shard.bound().tls[0];
        let mut client = server.during(TcpStream::connect(address)).await.unwrap();

        client.write_all(&old_client_hello()).await.unwrap();
        let mut answer = Vec::new();
        let _reset_or_not = server.during(client.read_to_end(&mut answer)).await;

        // Alert, version, length 2, fatal, protocol_version.
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
        assert_eq!(answer.get(3..7), Some(&[0, 2, 2, 70][..]), "{answer:?}");
    });
}

/// Whether a server with these names in its certificate is accepted by who looks for `domain`.
async fn is_accepted(authority: &Authority, names: &[SanType], domain: &str) -> bool {
    let identity = authority.issue_with(&["server"], |params| {
        params.distinguished_name.push(DnType::CommonName, "example.com");
        params.subject_alt_names = names.to_vec();
    });
    let server = Some(server_config(&identity, NOW).unwrap());
    let own = authority.issue(&["client.example.com"]);
    let client = Some(sip_client_config(&authority.roots(), &own, NOW).unwrap());
    let tls_configs = TlsConfigs { server, client, ..TlsConfigs::default() };
    let config = ShardConfig { tls: vec![any()], tls_configs, ..ShardConfig::default() };
    let mut both = Server::start(config);
    let address = both.shard.bound().tls[0];
    let peer = both.shard.connect(&Destination::tls(address, domain)).unwrap();
    both.shard.send(&peer, &message("hello")).unwrap();
    loop {
        for seen in both.turn().await {
            match seen {
                Seen::Message { .. } => return true,
                Seen::ConnectFailed { reason: ConnectFailure::Tls(_), .. } => return false,
                _ => {}
            }
        }
    }
}

#[test]
fn a_sip_domain_is_proved_by_its_uri_or_else_its_dns_name_and_never_by_a_wildcard() {
    run(async {
        let authority = Authority::new("test");
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        let cases = [
            (vec![uri("sip:example.com")], true),
            (vec![dns("example.com")], true),
            (vec![dns("EXAMPLE.com"), dns("other.org")], true),
            // The domain, not one of its users, nor another scheme.
            (vec![uri("sip:alice@example.com")], false),
            (vec![uri("https://example.com")], false),
            // A SIP URI says all that there is to say.
            (vec![uri("sip:other.org"), dns("example.com")], false),
            // Whole, and nothing like it.
            (vec![dns("*.com")], false),
            (vec![dns("sip.example.com")], false),
            (vec![], false),
        ];
        for (names, expected) in cases {
            assert_eq!(is_accepted(&authority, &names, "example.com").await, expected, "{names:?}");
        }
        assert!(!is_accepted(&authority, &[dns("*.example.com")], "sip.example.com").await);
    });
}
