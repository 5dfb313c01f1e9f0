//! Authentication from the phone's side: challenges answered rightly, wrongly, late and twice.

use sip::{OwnedMessage, digest::expected_response};

use super::*;
use crate::test_support::message;

const NOW: WallTime = WallTime::from_secs(1_700_000_000);
const LIFETIME: Duration = Duration::from_secs(300);
const KEY: NonceKey = NonceKey::new([1; 32]);

/// Alice has the pool's algorithms, Bob only MD5, Carol authenticates under another name than her address.
struct Directory;

impl Accounts for Directory {
    fn account(&self, username: &[u8], realm: &str) -> Option<AccountView> {
        let (user, algorithms) = match username {
            b"alice" => ("alice", None),
            b"bob" => ("bob", Some(Algorithms::MD5)),
            b"c-4711" => ("carol", None),
            b"d\"q" => ("dora", None),
            _ => return None,
        };
        (realm == "example.com").then(|| AccountView {
            aor: AddressOfRecord::new(&format!("sip:{user}@{realm}")).unwrap(),
            ha1_md5: hash(Algorithm::Md5, username).try_into().unwrap(),
            ha1_sha256: hash(Algorithm::Sha256, username).try_into().unwrap(),
            algorithms,
        })
    }
}

fn hash(algorithm: Algorithm, username: &[u8]) -> Vec<u8> {
    Ha1::new(algorithm, username, b"example.com", b"secret").as_bytes().to_vec()
}

fn authenticator(key: &NonceKey, algorithms: Algorithms) -> Authenticator {
    let settings = AuthenticationSettings { algorithms, nonce_lifetime: LIFETIME };
    Authenticator::new(settings, key, None, Chance::seeded(1))
}

fn usual() -> Authenticator {
    authenticator(&KEY, Algorithms::SHA256_MD5)
}

/// Where the phone is.
fn here() -> Source {
    Source::of("192.0.2.1".parse().unwrap())
}

/// A REGISTER of `user` with this header line, if any.
fn register(user: &str, line: &str) -> OwnedMessage {
    request("REGISTER", "sip:example.com", "sip:x@elsewhere.org", &format!("sip:{user}@example.com"), line)
}

fn request(method: &str, uri: &str, from: &str, to: &str, line: &str) -> OwnedMessage {
    let line = if line.is_empty() { String::new() } else { format!("{line}\r\n") };
    message(&format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\nFrom: <{from}>;tag=1\r\n\
         To: <{to}>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{line}Content-Length: 0\r\n\r\n"
    ))
}

fn check(
    authenticator: &mut Authenticator,
    now: WallTime,
    request: &OwnedMessage,
) -> Result<AddressOfRecord, Rejection> {
    authenticator.check(now, request.view(), Challenger::Server, &here(), &Directory)
}

fn challenged(result: Result<AddressOfRecord, Rejection>) -> Challenged {
    match result {
        Err(Rejection::Challenge(challenged)) => challenged,
        other => panic!("{other:?}"),
    }
}

/// The nonce of a fresh challenge.
fn nonce_of(challenged: &Challenged) -> String {
    let value = std::str::from_utf8(&challenged.values[0]).unwrap();
    value.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn nonce(authenticator: &mut Authenticator, now: WallTime) -> String {
    nonce_of(&challenged(check(authenticator, now, &register("alice", ""))))
}

/// What a phone answers.
#[derive(Clone)]
struct Answer<'a> {
    username: &'a str,
    password: &'a str,
    realm: &'a str,
    nonce: &'a str,
    uri: &'a str,
    method: &'a str,
    algorithm: Algorithm,
    count: u32,
}

impl Answer<'_> {
    fn line(&self) -> String {
        let Self { username, password, realm, nonce, uri, method, algorithm, count } = self;
        let escaped = username.replace('"', "\\\"");
        let without = format!(
            "Digest username=\"{escaped}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm={algorithm}, cnonce=\"0a4f113b\", nc={count:08x}, qop=auth"
        );
        let blank = format!("{without}, response=\"\"");
        let credentials = Credentials::parse(blank.as_bytes()).unwrap();
        let ha1 = Ha1::new(*algorithm, username.as_bytes(), realm.as_bytes(), password.as_bytes());
        let response = expected_response(&ha1, &credentials, method.as_bytes());
        format!("Authorization: {without}, response=\"{}\"", String::from_utf8_lossy(response.as_bytes()))
    }
}

fn answer(nonce: &str) -> Answer<'_> {
    Answer {
        username: "alice",
        password: "secret",
        realm: "example.com",
        nonce,
        uri: "sip:example.com",
        method: "REGISTER",
        algorithm: Algorithm::Md5,
        count: 1,
    }
}

fn aor(user: &str) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:{user}@example.com")).unwrap()
}

#[test]
fn a_request_without_credentials_is_challenged_with_each_algorithm_in_order() {
    let first = challenged(check(&mut usual(), NOW, &register("alice", "")));

    assert_eq!((first.status, first.header, first.is_stale), (401, HeaderId::WwwAuthenticate, false));
    assert_eq!(first.cause, Cause::NoCredentials);
    let nonce = nonce_of(&first);
    let values: Vec<_> =
        first.values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    assert_eq!(
        values,
        [
            format!("Digest realm=\"example.com\", nonce=\"{nonce}\", algorithm=SHA-256, qop=\"auth\""),
            format!("Digest realm=\"example.com\", nonce=\"{nonce}\", algorithm=MD5, qop=\"auth\""),
        ]
    );
}

#[test]
fn a_proxy_asks_with_407_and_reads_its_own_header() {
    let mut proxy = usual();
    let invite =
        |line: &str| request("INVITE", "sip:bob@example.com", "sip:alice@example.com", "sip:b@x", line);
    let ask = |proxy: &mut Authenticator, line: &str| {
        proxy.check(NOW, invite(line).view(), Challenger::Proxy, &here(), &Directory)
    };
    let first = challenged(ask(&mut proxy, ""));
    let nonce = nonce_of(&first);
    let line = Answer { method: "INVITE", uri: "sip:bob@example.com", ..answer(&nonce) }.line();

    assert_eq!((first.status, first.header), (407, HeaderId::ProxyAuthenticate));
    assert_eq!(challenged(ask(&mut proxy, &line)).cause, Cause::NoCredentials);
    assert_eq!(ask(&mut proxy, &format!("Proxy-{line}")), Ok(aor("alice")));
}

#[test]
fn the_right_password_is_accepted_with_either_algorithm() {
    let mut server = usual();
    for (algorithm, count) in [(Algorithm::Md5, 1), (Algorithm::Sha256, 2)] {
        let nonce = nonce(&mut server, NOW);
        let line = Answer { algorithm, count, ..answer(&nonce) }.line();

        assert_eq!(check(&mut server, NOW, &register("alice", &line)), Ok(aor("alice")));
    }
}

#[test]
fn credentials_are_found_among_those_for_others() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let other =
        "Authorization: Digest username=\"x\", realm=\"other\", nonce=\"n\", uri=\"u\", response=\"0\"";
    let lines = format!("Authorization: Basic eDp5\r\n{other}\r\n{}", answer(&nonce).line());

    assert_eq!(check(&mut server, NOW, &register("alice", &lines)), Ok(aor("alice")));
    assert_eq!(challenged(check(&mut server, NOW, &register("alice", other))).cause, Cause::NoCredentials);
}

#[test]
fn an_unknown_user_and_a_wrong_password_cannot_be_told_apart() {
    let outcome = |user: &str, username: &str, password: &str| {
        let mut server = usual();
        let nonce = nonce(&mut server, NOW);
        let line = Answer { username, password, ..answer(&nonce) }.line();
        challenged(check(&mut server, NOW, &register(user, &line)))
    };
    let wrong = outcome("alice", "alice", "guess");
    let unknown = outcome("nobody", "nobody", "guess");

    assert_eq!(wrong, unknown);
    assert_eq!((wrong.is_stale, wrong.cause), (false, Cause::WrongCredentials));
    let plain = |user: &str| challenged(check(&mut usual(), NOW, &register(user, "")));
    assert_eq!(plain("alice"), plain("nobody"));
}

#[test]
fn the_hash_that_stands_in_for_an_unknown_user_proves_nothing() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let credentials = format!(
        "Digest username=\"nobody\", realm=\"example.com\", nonce=\"{nonce}\", \
         uri=\"sip:example.com\", response=\"\""
    );
    let parsed = Credentials::parse(credentials.as_bytes()).unwrap();
    let response = expected_response(&nobody(Algorithm::Md5), &parsed, b"REGISTER");
    let response = String::from_utf8_lossy(response.as_bytes()).into_owned();
    let forged = credentials.replace("response=\"\"", &format!("response=\"{response}\""));
    let forged = register("nobody", &format!("Authorization: {forged}"));
    assert_eq!(challenged(check(&mut server, NOW, &forged)).cause, Cause::WrongCredentials);
}

#[test]
fn an_old_nonce_is_stale_and_its_successor_is_accepted() {
    let mut server = usual();
    let old = nonce(&mut server, NOW);
    let later = NOW + LIFETIME + Duration::from_secs(1);

    let stale = challenged(check(&mut server, later, &register("alice", &answer(&old).line())));

    assert_eq!((stale.is_stale, stale.cause), (true, Cause::ExpiredNonce));
    assert!(stale.values.iter().all(|value| value.windows(10).any(|part| part == b"stale=true")));
    let line = answer(&nonce_of(&stale)).line();
    assert_eq!(check(&mut server, later, &register("alice", &line)), Ok(aor("alice")));
}

#[test]
fn a_phone_that_moves_to_another_address_is_asked_once_more_and_not_for_its_password() {
    let mut server = usual();
    let there = Source::of("198.51.100.7".parse().unwrap());
    let at = |server: &mut Authenticator, source, line: &str| {
        server.check(NOW, register("alice", line).view(), Challenger::Server, &source, &Directory)
    };
    let nonce = nonce(&mut server, NOW);
    let line = answer(&nonce).line();

    let stale = challenged(at(&mut server, there, &line));

    assert_eq!((stale.is_stale, stale.cause), (true, Cause::ForeignNonce));
    let line = answer(&nonce_of(&stale)).line();
    assert_eq!(at(&mut server, there, &line), Ok(aor("alice")));
}

/// Keeps account of one sender; passwords are looked at while `is_patient`.
struct Account {
    is_patient: bool,
    told: std::cell::RefCell<Vec<String>>,
}

impl Account {
    fn note(&self, what: &str, username: &[u8], realm: &[u8]) {
        let (username, realm) = (String::from_utf8_lossy(username), String::from_utf8_lossy(realm));
        self.told.borrow_mut().push(format!("{what} {username}@{realm}"));
    }
}

impl Sender for Account {
    fn source(&self) -> Source {
        here()
    }

    fn may_try(&self, username: &[u8], realm: &[u8]) -> Result<(), Duration> {
        self.note("try", username, realm);
        if self.is_patient { Ok(()) } else { Err(Duration::from_secs(7)) }
    }

    fn wrong(&self, username: &[u8], realm: &[u8]) {
        self.note("wrong", username, realm);
    }

    fn foreign(&self, username: &[u8], realm: &[u8]) {
        self.note("foreign", username, realm);
    }

    fn right(&self, username: &[u8], realm: &[u8]) {
        self.note("right", username, realm);
    }
}

#[test]
fn account_is_kept_of_each_password_that_was_looked_at_and_of_nothing_else() {
    let mut server = usual();
    let stranger = authenticator(&NonceKey::new([9; 32]), Algorithms::MD5);
    let (nonce, foreign) = (
        nonce(&mut server, NOW),
        nonce_of(&challenged(check(&mut { stranger }, NOW, &register("alice", "")))),
    );
    let account = Account { is_patient: true, told: Default::default() };
    let lines = [
        String::new(),
        answer(&foreign).line(),
        Answer { password: "guess", ..answer(&nonce) }.line(),
        Answer { username: "al\"x", password: "guess", ..answer(&nonce) }.line(),
        Answer { algorithm: Algorithm::Sha512_256, password: "guess", ..answer(&nonce) }.line(),
        answer(&nonce).line(),
        answer(&nonce).line(),
    ];
    for line in lines {
        let request = register("alice", &line);
        let _seen_by_its_account =
            server.check(NOW, request.view(), Challenger::Server, &account, &Directory);
    }

    let line = Answer { count: 2, ..answer(&nonce) }.line();
    let other = register("bob", &line);
    let refused = server.check(NOW, other.view(), Challenger::Server, &account, &Directory);
    assert_eq!(refused, Err(Rejection::Forbidden));

    let told = account.told.into_inner();
    let (alice, other) = ("alice@example.com", "al\"x@example.com");
    let expected = [
        format!("try {alice}"),
        format!("wrong {alice}"),
        format!("try {other}"),
        format!("wrong {other}"),
        format!("try {alice}"),
        format!("try {alice}"),
        format!("right {alice}"),
        format!("try {alice}"),
        format!("try {alice}"),
        format!("foreign {alice}"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn who_has_to_wait_learns_nothing_of_the_password() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let account = Account { is_patient: false, told: Default::default() };
    for password in ["secret", "guess"] {
        let line = Answer { password, ..answer(&nonce) }.line();
        let refused =
            server.check(NOW, register("alice", &line).view(), Challenger::Server, &account, &Directory);

        assert_eq!(refused, Err(Rejection::SlowedDown { retry_after: Duration::from_secs(7) }));
        assert_eq!(refused.unwrap_err().status(), 480);
    }
    assert!(
        check(&mut server, NOW, &register("alice", &answer(&nonce).line())).is_ok(),
        "nothing was used up"
    );
}

#[test]
fn an_attempt_that_another_server_judges_is_told_from_what_proves_nothing() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let there = Source::of("198.51.100.7".parse().unwrap());
    let is_attempt = |source, line: &str| {
        let request = register("alice", line);
        server.attempt(NOW, request.view(), Challenger::Server, source, &Directory).is_some()
    };
    let good = answer(&nonce).line();

    assert!(is_attempt(here(), &good));
    assert!(!is_attempt(there, &good) && !is_attempt(here(), ""));
    assert!(!is_attempt(here(), &good.replace("=MD5", "=SHA-512-256")));
    assert!(!is_attempt(here(), &good.replace("realm=\"example.com\"", "realm=\"example.org\"")));
}

#[test]
fn who_proved_the_password_gets_the_servers_proof_and_a_new_nonce_when_his_ages() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let line = answer(&nonce).line();
    let request = register("alice", &line);
    let mut info = |now, request: &OwnedMessage, source| {
        let info = server.info(now, request.view(), Challenger::Server, source, &Directory)?;
        Some(String::from_utf8(info.to_vec()).unwrap())
    };
    let later = NOW + LIFETIME / 2 + Duration::from_secs(1);
    let there = Source::of("198.51.100.7".parse().unwrap());

    let value = line.strip_prefix("Authorization: ").unwrap();
    let ha1 = Ha1::new(Algorithm::Md5, b"alice", b"example.com", b"secret");
    let proof = expected_response(&ha1, &Credentials::parse(value.as_bytes()).unwrap(), b"");
    let proof = String::from_utf8_lossy(proof.as_bytes()).into_owned();
    let expected = format!("qop=auth, rspauth=\"{proof}\", cnonce=\"0a4f113b\", nc=00000001");
    assert_eq!(info(NOW, &request, here()), Some(expected.clone()));

    let with_next = info(later, &request, here()).unwrap();
    let next = with_next.strip_prefix(&format!("{expected}, nextnonce=\"")).unwrap().trim_end_matches('"');
    assert_eq!(info(NOW, &request, there), None, "not for a nonce of another source");
    let wrong = Answer { password: "guess", ..answer(&nonce) }.line();
    assert_eq!(info(NOW, &register("alice", &wrong), here()), None, "not for a wrong password");
    let unknown = Answer { username: "nobody", ..answer(&nonce) }.line();
    assert_eq!(info(NOW, &register("nobody", &unknown), here()), None);

    let line = answer(next).line();
    let after_the_first = NOW + LIFETIME + Duration::from_secs(1);
    assert_eq!(check(&mut server, after_the_first, &register("alice", &line)), Ok(aor("alice")));
}

#[test]
fn a_wrong_password_with_a_nonce_sent_elsewhere_proves_nothing() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let wrong = register("alice", &Answer { password: "guess", ..answer(&nonce) }.line());
    let there = Source::of("198.51.100.7".parse().unwrap());

    let refused = server.check(NOW, wrong.view(), Challenger::Server, &there, &Directory);
    assert_eq!(challenged(refused).cause, Cause::ForeignNonce);
    assert_eq!(challenged(check(&mut server, NOW, &wrong)).cause, Cause::WrongCredentials);
}

#[test]
fn a_nonce_count_is_accepted_once_and_only_upwards() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let mut send = |count| {
        let line = Answer { count, ..answer(&nonce) }.line();
        check(&mut server, NOW, &register("alice", &line))
    };

    assert!(send(2).is_ok());
    for count in [2, 1] {
        let replay = challenged(send(count));
        assert_eq!((replay.is_stale, replay.cause), (true, Cause::Replay));
    }
    assert!(send(3).is_ok());
}

#[test]
fn a_wrong_password_uses_up_no_count() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let wrong = Answer { password: "guess", count: 9, ..answer(&nonce) }.line();
    challenged(check(&mut server, NOW, &register("alice", &wrong)));

    assert!(check(&mut server, NOW, &register("alice", &answer(&nonce).line())).is_ok());
}

#[test]
fn credentials_without_qop_work_once_per_nonce() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let base = format!(
        "Digest username=\"alice\", realm=\"example.com\", nonce=\"{nonce}\", \
         uri=\"sip:example.com\", response=\"\""
    );
    let ha1 = Ha1::new(Algorithm::Md5, b"alice", b"example.com", b"secret");
    let response = expected_response(&ha1, &Credentials::parse(base.as_bytes()).unwrap(), b"REGISTER");
    let response = format!("response=\"{}\"", String::from_utf8_lossy(response.as_bytes()));
    let old = register("alice", &format!("Authorization: {}", base.replace("response=\"\"", &response)));

    assert_eq!(check(&mut server, NOW, &old), Ok(aor("alice")));
    assert_eq!(challenged(check(&mut server, NOW, &old)).cause, Cause::Replay);
}

#[test]
fn a_nonce_of_another_server_with_the_key_is_accepted_and_of_a_stranger_not() {
    let there = nonce(&mut usual(), NOW);
    let mut partner = Authenticator::new(
        AuthenticationSettings { algorithms: Algorithms::MD5, nonce_lifetime: LIFETIME },
        &KEY,
        None,
        Chance::seeded(2),
    );
    let later = Answer { count: 7, ..answer(&there) }.line();
    assert_eq!(check(&mut partner, NOW, &register("alice", &later)), Ok(aor("alice")));

    let mut stranger = authenticator(&NonceKey::new([9; 32]), Algorithms::MD5);
    let refused = challenged(check(&mut stranger, NOW, &register("alice", &later)));
    assert_eq!((refused.is_stale, refused.cause), (true, Cause::ForeignNonce));
}

#[test]
fn a_user_with_a_list_of_his_own_is_offered_that_and_held_to_it() {
    let mut server = usual();
    let first = challenged(check(&mut server, NOW, &register("bob", "")));
    assert_eq!(first.values.len(), 1);
    assert!(first.values[0].windows(3).any(|part| part == b"MD5"));
    let nonce = nonce_of(&first);

    let sha = Answer { username: "bob", algorithm: Algorithm::Sha256, ..answer(&nonce) };
    assert_eq!(challenged(check(&mut server, NOW, &register("bob", &sha.line()))).cause, Cause::NotOffered);
    let md5 = Answer { algorithm: Algorithm::Md5, ..sha };
    assert_eq!(check(&mut server, NOW, &register("bob", &md5.line())), Ok(aor("bob")));
}

#[test]
fn a_pool_that_offers_one_algorithm_refuses_the_other() {
    let mut server = authenticator(&KEY, Algorithms::new(&[Algorithm::Sha256]).unwrap());
    let nonce = nonce(&mut server, NOW);

    let refused = challenged(check(&mut server, NOW, &register("alice", &answer(&nonce).line())));

    assert_eq!((refused.cause, refused.values.len()), (Cause::NotOffered, 1));
}

#[test]
fn auth_int_and_session_algorithms_get_a_challenge_and_broken_credentials_a_400() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let good = answer(&nonce).line();
    for (from, to) in [("qop=auth", "qop=auth-int"), ("=MD5", "=MD5-sess"), ("=MD5", "=SHA-512-256")] {
        let refused = challenged(check(&mut server, NOW, &register("alice", &good.replace(from, to))));
        assert_eq!((refused.cause, refused.is_stale), (Cause::NotOffered, false), "{to}");
    }
    for (from, to) in
        [("nc=00000001", "nc=1"), ("realm=\"example.com\",", ""), (", qop", ", nc=00000001, qop")]
    {
        let refused = check(&mut server, NOW, &register("alice", &good.replace(from, to))).unwrap_err();
        assert_eq!(refused.status(), 400, "{to}");
    }
    let blank = good.replace(&nonce, "");
    assert_eq!(challenged(check(&mut server, NOW, &register("alice", &blank))).cause, Cause::NoCredentials);
}

#[test]
fn the_name_of_another_user_is_forbidden_with_the_right_password() {
    let mut server = usual();
    let nonce = nonce(&mut server, NOW);
    let line = |count| Answer { count, ..answer(&nonce) }.line();

    assert_eq!(check(&mut server, NOW, &register("bob", &line(1))), Err(Rejection::Forbidden));
    assert_eq!(check(&mut server, NOW, &register("Alice", &line(2))), Err(Rejection::Forbidden));
    assert_eq!(check(&mut server, NOW, &register("%61lice", &line(3))), Ok(aor("alice")));
    let mut invite = |from: &str, count| {
        let line = Answer { count, method: "INVITE", uri: "sip:bob@example.com", ..answer(&nonce) }.line();
        check(&mut server, NOW, &request("INVITE", "sip:bob@example.com", from, "sip:bob@example.com", &line))
    };
    assert_eq!(invite("sips:alice@EXAMPLE.com:5061;x=y", 4), Ok(aor("alice")));
    assert_eq!(invite("sip:bob@example.com", 5).unwrap_err().status(), 403);
}

#[test]
fn a_user_may_authenticate_under_another_name_than_the_address() {
    let mut server = usual();
    for (username, user) in [("c-4711", "carol"), ("d\"q", "dora")] {
        let nonce = nonce(&mut server, NOW);
        let line = Answer { username, ..answer(&nonce) }.line();
        assert_eq!(check(&mut server, NOW, &register(user, &line)), Ok(aor(user)));
    }
}

#[test]
fn the_uri_may_differ_in_port_and_parameters_but_not_in_user_or_host() {
    let mut server = usual();
    let mut invite = |asked: &str, uri: &str| {
        let nonce = nonce(&mut server, NOW);
        let line = Answer { method: "INVITE", uri, ..answer(&nonce) }.line();
        check(&mut server, NOW, &request("INVITE", asked, "sip:alice@example.com", "sip:b@x", &line)).is_ok()
    };
    assert!(invite("sip:bob@example.com;user=phone", "sip:bob@EXAMPLE.com:5060"));
    assert!(invite("sip:%62ob@example.com", "sip:bob@example.com"));
    assert!(invite("tel:+1-201-555", "tel:+1201555"));
    assert!(!invite("sip:+1900@example.com", "sip:bob@example.com"));
    assert!(!invite("sip:bob@example.com", "sip:bob@example.org"));
    assert!(!invite("sip:bob@example.com", "nonsense"));

    let nonce = nonce(&mut server, NOW);
    let moved = answer(&nonce).line();
    let east = request("REGISTER", "sip:east.example.net;lr", "sip:a@b.c", "sip:alice@example.com", &moved);
    assert_eq!(check(&mut server, NOW, &east), Ok(aor("alice")));
    let refused = Answer { uri: "sip:evil.example.net", count: 2, ..answer(&nonce) }.line();
    let refused = check(&mut server, NOW, &register("alice", &refused));
    assert_eq!(refused, Err(Rejection::BadRequest(BadRequest::UriMismatch)));
}

#[test]
fn an_address_that_names_no_user_is_a_bad_request() {
    for to in ["sip:example.com", "tel:+123", "sip:a@b c"] {
        let request = request("REGISTER", "sip:example.com", "sip:a@b.c", to, "");
        assert_eq!(check(&mut usual(), NOW, &request).unwrap_err().status(), 400, "{to}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let account = Directory.account(b"alice", "example.com").unwrap();
    let printed = format!("{:?} {:?} {account:?}", usual(), KEY);

    assert!(printed.contains("NonceKey(***)") && printed.contains("Nonces(***)"));
    assert!(printed.contains("ha1: \"***\""));
}
