//! What a server says to somebody who proved that he knows the password: that it knows it too.

use super::{Credentials, Ha1, expected_response};

/// Octets of the longest client nonce that is repeated.
const CLIENT_NONCE_BYTES_MAX: usize = 256;

/// The value of an Authentication-Info header. Source: RFC 7616 section 3.5, RFC 3261 section 20.6.
#[derive(Clone, Copy, Debug)]
pub struct AuthenticationInfo<'a> {
    /// Of the password that both know.
    pub ha1: &'a Ha1,
    /// The credentials that were right.
    pub credentials: &'a Credentials<'a>,
    /// A nonce to be used from now on; must not hold a quotation mark or a backslash.
    pub next_nonce: Option<&'a [u8]>,
}

impl AuthenticationInfo<'_> {
    /// Appends the header value: `qop=auth`, `rspauth`, `cnonce`, `nc`, and `nextnonce` where there is one.
    /// `false`, and nothing appended, for credentials without `qop`, and where the client nonce is longer
    /// than 256 octets or folded.
    pub fn write_to(&self, out: &mut Vec<u8>) -> bool {
        let Some(protection) = &self.credentials.protection else { return false };
        let client_nonce = protection.client_nonce.raw();
        let is_plain = client_nonce.len() <= CLIENT_NONCE_BYTES_MAX
            && client_nonce.iter().all(|&octet| octet >= b' ' && octet != 0x7f);
        if !is_plain {
            return false;
        }
        // A2 is that of a request without method.
        let proof = expected_response(self.ha1, self.credentials, b"");
        out.extend_from_slice(b"qop=");
        out.extend_from_slice(protection.qop);
        for (name, value) in [(", rspauth=\"", proof.as_bytes()), ("\", cnonce=\"", client_nonce)] {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
        }
        out.extend_from_slice(b"\", nc=");
        out.extend_from_slice(protection.count_digits);
        if let Some(nonce) = self.next_nonce {
            out.extend_from_slice(b", nextnonce=\"");
            out.extend_from_slice(nonce);
            out.push(b'"');
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use md5::{Digest, Md5};

    use super::*;
    use crate::digest::Algorithm;

    fn info(credentials: &str, next_nonce: Option<&[u8]>) -> Option<String> {
        let credentials = Credentials::parse(credentials.as_bytes()).unwrap();
        let ha1 = Ha1::new(Algorithm::Md5, b"Mufasa", b"http-auth@example.org", b"Circle of Life");
        let mut out = Vec::new();
        let info = AuthenticationInfo { ha1: &ha1, credentials: &credentials, next_nonce };
        let is_written = info.write_to(&mut out);
        is_written.then(|| String::from_utf8(out).unwrap())
    }

    fn hex(text: &str) -> String {
        Md5::digest(text.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect()
    }

    const START: &str =
        "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir\", nonce=\"n0\"";

    #[test]
    fn the_server_proves_that_it_knows_the_password_for_this_very_answer() {
        let credentials = format!("{START}, nc=0000000a, cnonce=\"c\\\"0\", qop=auth, response=\"0\"");

        let ha1 = hex("Mufasa:http-auth@example.org:Circle of Life");
        let proof = hex(&format!("{ha1}:n0:0000000a:c\"0:auth:{}", hex(":/dir")));
        let expected = format!("qop=auth, rspauth=\"{proof}\", cnonce=\"c\\\"0\", nc=0000000a");
        assert_eq!(info(&credentials, None), Some(expected.clone()));
        assert_eq!(info(&credentials, Some(b"n1")), Some(format!("{expected}, nextnonce=\"n1\"")));
    }

    #[test]
    fn nothing_is_said_to_a_phone_that_sent_nothing_to_be_repeated_or_too_much() {
        assert_eq!(info(&format!("{START}, response=\"0\""), None), None);
        for cnonce in ["x".repeat(257), "a\r\n b".to_owned()] {
            let credentials = format!("{START}, nc=00000001, cnonce=\"{cnonce}\", qop=auth, response=\"0\"");
            assert_eq!(info(&credentials, Some(b"n1")), None);
        }
    }
}
