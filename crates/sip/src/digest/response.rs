//! The response: what proves that somebody knows the password.

use std::fmt;

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};
use subtle::ConstantTimeEq;

use super::{Algorithm, Credentials};

/// Octets of the longest hash.
const HASH_BYTES_MAX: usize = 32;

/// H(A1): the hash of `user:realm:password`. As good as the password inside its realm: never print or log it.
///
/// Source: RFC 7616 section 3.4.2.
#[derive(Clone, Copy)]
pub struct Ha1 {
    algorithm: Algorithm,
    hash: [u8; HASH_BYTES_MAX],
}

impl Ha1 {
    /// Hashes a password.
    pub fn new(algorithm: Algorithm, username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        let parts = [username, b":", realm, b":", password];
        let hash = match algorithm {
            Algorithm::Md5 => hash_of::<Md5>(&parts),
            Algorithm::Sha256 => hash_of::<Sha256>(&parts),
            Algorithm::Sha512_256 => hash_of::<Sha512_256>(&parts),
        };
        Self { algorithm, hash }
    }

    /// An MD5 hash made before.
    pub fn md5(hash: &[u8; 16]) -> Self {
        Self { algorithm: Algorithm::Md5, hash: padded(hash) }
    }

    /// A SHA-256 hash made before.
    pub const fn sha256(hash: &[u8; 32]) -> Self {
        Self { algorithm: Algorithm::Sha256, hash: *hash }
    }

    /// The algorithm of the hash.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash, 16 or 32 octets; for the store only.
    pub fn as_bytes(&self) -> &[u8] {
        self.hash.get(..self.algorithm.hash_bytes()).unwrap_or(&self.hash)
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ha1({}, ***)", self.algorithm)
    }
}

/// A hash in lower-case hexadecimal, 32 or 64 digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HexDigest {
    digits: [u8; 2 * HASH_BYTES_MAX],
    length: usize,
}

impl HexDigest {
    fn of(hash: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
        let mut digits = [0; 2 * HASH_BYTES_MAX];
        let mut length = 0;
        for (pair, &octet) in digits.chunks_exact_mut(2).zip(hash) {
            pair.copy_from_slice(&[digit(octet >> 4), digit(octet & 15)]);
            length += 2;
        }
        Self { digits, length }
    }

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(..self.length).unwrap_or(&self.digits)
    }
}

impl fmt::Debug for HexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// The response that somebody who knows the password sends with these credentials for a request of this
/// method.
///
/// The algorithm is that of `ha1`; compare it with that of the credentials before. Source: RFC 7616 section
/// 3.4.1.
pub fn expected_response(ha1: &Ha1, credentials: &Credentials<'_>, method: &[u8]) -> HexDigest {
    let hash = response_hash(ha1, credentials, method);
    HexDigest::of(hash.get(..ha1.algorithm.hash_bytes()).unwrap_or(&hash))
}

/// Whether the credentials prove knowledge of the password, compared in constant time; digits may be in any
/// case.
///
/// False when the credentials are for another algorithm than `ha1`.
pub fn verify(ha1: &Ha1, credentials: &Credentials<'_>, method: &[u8]) -> bool {
    let expected = response_hash(ha1, credentials, method);
    let sent = read_hex(credentials.response, ha1.algorithm.hash_bytes());
    let is_equal = sent.is_some_and(|sent| bool::from(sent.ct_eq(&expected)));
    is_equal && credentials.algorithm == ha1.algorithm
}

/// The octets that the digits spell out, the rest zero; `None` when they are not digits for `length` octets.
fn read_hex(digits: &[u8], length: usize) -> Option<[u8; HASH_BYTES_MAX]> {
    if digits.len() != 2 * length {
        return None;
    }
    let mut hash = [0; HASH_BYTES_MAX];
    for (octet, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            *octet = *octet << 4 | hex_value(digit)?;
        }
    }
    Some(hash)
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The hash that the response spells out, the rest zero.
fn response_hash(ha1: &Ha1, credentials: &Credentials<'_>, method: &[u8]) -> [u8; HASH_BYTES_MAX] {
    match ha1.algorithm {
        Algorithm::Md5 => response_hash_with::<Md5>(ha1, credentials, method),
        Algorithm::Sha256 => response_hash_with::<Sha256>(ha1, credentials, method),
        Algorithm::Sha512_256 => response_hash_with::<Sha512_256>(ha1, credentials, method),
    }
}

fn response_hash_with<D: Digest>(
    ha1: &Ha1,
    credentials: &Credentials<'_>,
    method: &[u8],
) -> [u8; HASH_BYTES_MAX] {
    let mut a2 = D::new();
    a2.update(method);
    a2.update(b":");
    credentials.uri.feed(|part| a2.update(part));
    let ha2 = HexDigest::of(&a2.finalize());

    let mut response = D::new();
    response.update(HexDigest::of(ha1.as_bytes()).as_bytes());
    response.update(b":");
    credentials.nonce.feed(|part| response.update(part));
    response.update(b":");
    if let Some(protection) = &credentials.protection {
        response.update(protection.count_digits);
        response.update(b":");
        protection.client_nonce.feed(|part| response.update(part));
        response.update(b":");
        response.update(protection.qop);
        response.update(b":");
    }
    response.update(ha2.as_bytes());
    padded(&response.finalize())
}

fn hash_of<D: Digest>(parts: &[&[u8]]) -> [u8; HASH_BYTES_MAX] {
    let mut hasher = D::new();
    for part in parts {
        hasher.update(part);
    }
    padded(&hasher.finalize())
}

fn padded(hash: &[u8]) -> [u8; HASH_BYTES_MAX] {
    let mut padded = [0; HASH_BYTES_MAX];
    for (to, from) in padded.iter_mut().zip(hash) {
        *to = *from;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUFASA: &str = r#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
        algorithm=ALGORITHM, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="RESPONSE",
        opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;

    fn mufasa(algorithm: Algorithm) -> Ha1 {
        Ha1::new(algorithm, b"Mufasa", b"http-auth@example.org", b"Circle of Life")
    }

    #[test]
    fn the_examples_of_rfc_7616_section_3_9_1_verify() {
        let examples = [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ];
        for (algorithm, response) in examples {
            let value = MUFASA.replace("ALGORITHM", algorithm.as_str()).replace("RESPONSE", response);
            let credentials = Credentials::parse(value.as_bytes()).unwrap();

            assert!(verify(&mufasa(algorithm), &credentials, b"GET"));
            assert_eq!(
                expected_response(&mufasa(algorithm), &credentials, b"GET").as_bytes(),
                response.as_bytes()
            );
            assert!(!verify(&mufasa(algorithm), &credentials, b"POST"));
            let other = Ha1::new(algorithm, b"Mufasa", b"http-auth@example.org", b"Circle Of Life");
            assert!(!verify(&other, &credentials, b"GET"));
        }
    }

    #[test]
    fn the_example_of_rfc_7616_section_3_9_2_verifies_as_corrected_by_erratum_4897() {
        let username = "J\u{e4}s\u{f8}n Doe";
        let value = format!(
            r#"Digest username="{username}", realm="api@example.org", uri="/doe.json", algorithm=SHA-512-256,
            nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", nc=00000001,
            cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", qop=auth,
            response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5""#
        );
        let credentials = Credentials::parse(value.as_bytes()).unwrap();
        let ha1 =
            Ha1::new(Algorithm::Sha512_256, username.as_bytes(), b"api@example.org", b"Secret, or not?");

        assert!(verify(&ha1, &credentials, b"GET"));
    }

    #[test]
    fn the_form_without_qop_of_rfc_2069_verifies() {
        // RFC 2069 section 2.4 with the response of its erratum 749.
        let value = br#"Digest username="Mufasa", realm="testrealm@host.com",
            nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html",
            response="1949323746fe6a43ef61f9606e7febea""#;
        let credentials = Credentials::parse(value).unwrap();
        let ha1 = Ha1::new(Algorithm::Md5, b"Mufasa", b"testrealm@host.com", b"CircleOfLife");

        assert!(verify(&ha1, &credentials, b"GET"));
    }

    #[test]
    fn digits_in_capitals_verify_and_a_response_of_another_length_does_not() {
        let parse = |response: &str| MUFASA.replace("ALGORITHM", "MD5").replace("RESPONSE", response);
        let right = "8ca523f5e9506fed4657c9700eebdbec";
        let long = format!("{right}\0");
        for (response, is_right) in
            [(right.to_uppercase().as_str(), true), (&right[..31], false), (&long, false), ("", false)]
        {
            let value = parse(response);
            let credentials = Credentials::parse(value.as_bytes()).unwrap();
            assert_eq!(verify(&mufasa(Algorithm::Md5), &credentials, b"GET"), is_right, "{response:?}");
        }
    }

    #[test]
    fn credentials_for_one_algorithm_do_not_verify_with_the_hash_of_another() {
        let value =
            MUFASA.replace("ALGORITHM", "SHA-256").replace("RESPONSE", "8ca523f5e9506fed4657c9700eebdbec");
        let credentials = Credentials::parse(value.as_bytes()).unwrap();

        assert!(!verify(&mufasa(Algorithm::Md5), &credentials, b"GET"));
    }

    #[test]
    fn an_escaped_string_is_hashed_as_meant() {
        let escaped = br#"Digest username="a",realm="r",nonce="n\"1",uri="sip:\x",response="0""#;
        let credentials = Credentials::parse(escaped).unwrap();
        let ha1 = Ha1::new(Algorithm::Md5, b"a", b"r", b"p");
        let hex = |text: &str| format!("{:?}", HexDigest::of(&Md5::digest(text.as_bytes())));

        let expected = hex(&format!("{}:n\"1:{}", hex("a:r:p"), hex("REGISTER:sip:x")));

        assert_eq!(format!("{:?}", expected_response(&ha1, &credentials, b"REGISTER")), expected);
    }

    #[test]
    fn a_hash_made_before_is_taken_back_and_never_printed() {
        let md5 = mufasa(Algorithm::Md5);
        let stored: [u8; 16] = md5.as_bytes().try_into().unwrap();

        assert_eq!(Ha1::md5(&stored).as_bytes(), md5.as_bytes());
        assert_eq!(format!("{md5:?}"), "Ha1(MD5, ***)");
    }
}
