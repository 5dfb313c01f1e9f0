//! The challenge: the value of a `WWW-Authenticate` or `Proxy-Authenticate` header.

use super::Algorithm;

/// One challenge; write one header per algorithm, the preferred one first (RFC 8760 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The protection space, unescaped; for us a domain.
    pub realm: &'a [u8],
    /// Must not hold a quotation mark or a backslash.
    pub nonce: &'a [u8],
    /// The algorithm this header asks for.
    pub algorithm: Algorithm,
    /// The nonce that came was no good, the password may be right: ask nobody for it again.
    pub is_stale: bool,
}

impl Challenge<'_> {
    /// Appends the header value, `Digest realm="...",...`, with `qop="auth"` always (RFC 8760 section 2.6
    /// point 8).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Digest realm=\"");
        for &octet in self.realm {
            if matches!(octet, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(octet);
        }
        out.extend_from_slice(b"\", nonce=\"");
        out.extend_from_slice(self.nonce);
        out.extend_from_slice(b"\", ");
        if self.is_stale {
            out.extend_from_slice(b"stale=true, ");
        }
        out.extend_from_slice(b"algorithm=");
        out.extend_from_slice(self.algorithm.as_str().as_bytes());
        out.extend_from_slice(b", qop=\"auth\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(challenge: Challenge<'_>) -> String {
        let mut out = Vec::new();
        challenge.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_challenge_names_realm_nonce_algorithm_and_offers_auth_only() {
        let challenge =
            Challenge { realm: b"example.com", nonce: b"n0", algorithm: Algorithm::Sha256, is_stale: false };

        assert_eq!(
            written(challenge),
            r#"Digest realm="example.com", nonce="n0", algorithm=SHA-256, qop="auth""#
        );
        assert!(written(Challenge { is_stale: true, ..challenge }).contains("stale=true"));
    }

    #[test]
    fn a_quotation_mark_in_the_realm_is_escaped() {
        let challenge =
            Challenge { realm: br#"a"b\c"#, nonce: b"n0", algorithm: Algorithm::Md5, is_stale: false };

        assert!(written(challenge).starts_with(r#"Digest realm="a\"b\\c", "#));
    }
}
