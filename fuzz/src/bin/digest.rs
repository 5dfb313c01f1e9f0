//! Digest credentials: what is read is what was sent, in whichever way it is quoted, and only who knows the
//! password passes. Input: a header value; after a NUL a method, after another a password, then a realm.
#![no_main]

use fuzz::is_within;
use libfuzzer_sys::fuzz_target;
use sip::digest::{
    Algorithm, Challenge, Credentials, CredentialsError, Ha1, Protection, Quoted, expected_response, verify,
};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512_256];

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(4, |&octet| octet == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (value, method, password, realm) = (next(), next(), next(), next());
    challenge_comes_back(realm, password);
    let credentials = match Credentials::parse(value) {
        Ok(credentials) => credentials,
        Err(error) => return explain(error),
    };
    for quoted in strings(&credentials) {
        is_read_as_it_stands(quoted, value);
    }
    assert!(is_within(credentials.response, value));
    if let Some(Protection { qop, count_digits, count, .. }) = credentials.protection {
        assert!(qop.eq_ignore_ascii_case(b"auth") && count > 0 && count_digits.len() == 8);
        let digits = std::str::from_utf8(count_digits).unwrap();
        assert_eq!(u32::from_str_radix(digits, 16), Ok(count));
    }
    let printed = print(&credentials);
    let again = Credentials::parse(&printed).expect("credentials printed by the book are read");
    assert_eq!(meaning(&again), meaning(&credentials), "{}", printed.escape_ascii());
    only_the_password_passes(&credentials, &again, method, password);
});

fn explain(error: CredentialsError) {
    assert!(!error.to_string().is_empty());
}

fn strings<'a>(credentials: &Credentials<'a>) -> Vec<Quoted<'a>> {
    let Credentials { username, realm, nonce, uri, .. } = *credentials;
    let client_nonce = credentials.protection.map(|protection| protection.client_nonce);
    [Some(username), Some(realm), Some(nonce), Some(uri), client_nonce, credentials.opaque]
        .into_iter()
        .flatten()
        .collect()
}

fn is_read_as_it_stands(quoted: Quoted<'_>, value: &[u8]) {
    assert!(is_within(quoted.raw(), value));
    let mut fed = Vec::new();
    quoted.feed(|part| fed.extend_from_slice(part));
    assert_eq!(fed, *quoted.unescaped());
    assert!(fed.len() <= quoted.raw().len());
    assert_eq!(quoted.is_empty(), quoted.raw().is_empty());
    if !quoted.raw().contains(&b'\\') {
        assert_eq!(fed, quoted.raw());
    }
}

/// Strings with quotes and escapes undone, the proof, the algorithm, qop and count.
type Meaning = (Vec<Vec<u8>>, Vec<u8>, Algorithm, Option<(Vec<u8>, u32)>);

fn meaning(credentials: &Credentials<'_>) -> Meaning {
    let strings = strings(credentials).into_iter().map(|quoted| quoted.unescaped().into_owned()).collect();
    let protection = credentials.protection.map(|protection| (protection.qop.to_vec(), protection.count));
    (strings, credentials.response.to_vec(), credentials.algorithm, protection)
}

/// The same credentials with every string quoted, in another order and with a parameter that nobody knows.
fn print(credentials: &Credentials<'_>) -> Vec<u8> {
    let mut out = b"DIGEST , ".to_vec();
    let mut put = |name: &str, string: Quoted<'_>| {
        out.extend_from_slice(format!("{name} =\r\n \"").as_bytes());
        for &octet in string.unescaped().iter() {
            if matches!(octet, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(octet);
        }
        out.extend_from_slice(b"\" ,");
    };
    if let Some(opaque) = credentials.opaque {
        put("opaque", opaque);
    }
    put("URI", credentials.uri);
    put("nonce", credentials.nonce);
    put("realm", credentials.realm);
    put("x-unknown", Quoted::plain(b"a, response=b"));
    put("username", credentials.username);
    if let Some(protection) = &credentials.protection {
        put("cnonce", protection.client_nonce);
        out.extend_from_slice(b"nc=");
        out.extend_from_slice(protection.count_digits);
        out.extend_from_slice(b",qop=");
        out.extend_from_slice(protection.qop);
        out.push(b',');
    }
    // The proof is compared as it stands, escapes and all: a token stays one if it can.
    let needs_quotes = |octet: &u8| b" \t\r\n,\"".contains(octet);
    let is_bare = !credentials.response.is_empty() && !credentials.response.iter().any(needs_quotes);
    out.extend_from_slice(if is_bare { b"response=" } else { b"response=\"" });
    out.extend_from_slice(credentials.response);
    out.extend_from_slice(if is_bare { b"," } else { b"\"," });
    out.extend_from_slice(b"algorithm=");
    out.extend_from_slice(credentials.algorithm.as_str().as_bytes());
    out
}

fn only_the_password_passes(
    credentials: &Credentials<'_>,
    again: &Credentials<'_>,
    method: &[u8],
    password: &[u8],
) {
    let (username, realm) = (credentials.username.unescaped(), credentials.realm.unescaped());
    for algorithm in ALGORITHMS {
        let ha1 = Ha1::new(algorithm, &username, &realm, password);
        let proof = expected_response(&ha1, credentials, method);
        assert_eq!(proof.as_bytes().len(), 2 * algorithm.hash_bytes());
        assert_eq!(proof, expected_response(&ha1, again, method), "the proof is over what is meant");
        let is_known = proof.as_bytes().eq_ignore_ascii_case(credentials.response);
        let passes = verify(&ha1, credentials, method);
        assert_eq!(passes, is_known && credentials.algorithm == algorithm);

        let proven = Credentials { response: proof.as_bytes(), algorithm, ..*credentials };
        assert!(verify(&ha1, &proven, method));
        for algorithm in ALGORITHMS.into_iter().filter(|other| *other != algorithm) {
            assert!(!verify(&ha1, &Credentials { algorithm, ..proven }, method));
        }
        let upper = proof.as_bytes().to_ascii_uppercase();
        assert!(verify(&ha1, &Credentials { response: &upper, ..proven }, method));
        let mut wrong = upper.clone();
        wrong[upper.len() / 2] = if upper[upper.len() / 2] == b'0' { b'1' } else { b'0' };
        assert!(!verify(&ha1, &Credentials { response: &wrong, ..proven }, method));
        assert!(!verify(&ha1, &Credentials { response: &upper[1..], ..proven }, method));
        let other = Ha1::new(algorithm, &username, &realm, &[password, b"!"].concat());
        assert!(!verify(&other, &proven, method));
        assert!(format!("{ha1:?}").ends_with("***)"));
    }
}

/// A phone that copies realm, nonce and algorithm out of a challenge gives back what was put in.
fn challenge_comes_back(realm: &[u8], nonce: &[u8]) {
    let nonce: Vec<u8> = nonce.iter().copied().filter(|octet| !b"\"\\".contains(octet)).collect();
    for algorithm in ALGORITHMS {
        let challenge = Challenge { realm, nonce: &nonce, algorithm, is_stale: realm.len() % 2 == 1 };
        let mut value = Vec::new();
        challenge.write_to(&mut value);
        value.extend_from_slice(b", username=u, uri=\"sip:b\", response=0, nc=00000001, cnonce=\"c\"");
        let copied = Credentials::parse(&value).expect("a challenge is a list of parameters");
        assert_eq!((&*copied.realm.unescaped(), copied.nonce.raw()), (realm, &nonce[..]));
        assert_eq!(copied.algorithm, algorithm);
        assert_eq!(Algorithm::from_bytes(algorithm.as_str().as_bytes()), Some(algorithm));
    }
}
