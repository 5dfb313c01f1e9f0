//! The hash algorithms of digest authentication.

use std::fmt;

/// A hash algorithm, without its session variant. Source: RFC 7616 section 3.3, RFC 8760 section 2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `MD5`; what credentials without an `algorithm` mean.
    Md5,
    /// `SHA-256`.
    Sha256,
    /// `SHA-512-256`: SHA-512/256 of FIPS 180-4.
    Sha512_256,
}

impl Algorithm {
    /// Reads the token of an `algorithm` parameter, in any case; `None` for session variants and unknown
    /// ones.
    pub const fn from_bytes(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"MD5") {
            Some(Self::Md5)
        } else if token.eq_ignore_ascii_case(b"SHA-256") {
            Some(Self::Sha256)
        } else if token.eq_ignore_ascii_case(b"SHA-512-256") {
            Some(Self::Sha512_256)
        } else {
            None
        }
    }

    /// The token as registered with IANA.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    /// Octets of a hash: 16 or 32.
    pub const fn hash_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 | Self::Sha512_256 => 32,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_in_any_case_and_printed_as_registered() {
        for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512_256] {
            let lower = algorithm.as_str().to_ascii_lowercase();
            assert_eq!(Algorithm::from_bytes(lower.as_bytes()), Some(algorithm));
        }
    }

    #[test]
    fn session_variants_and_unknown_algorithms_are_not_understood() {
        for token in ["MD5-sess", "SHA-256-sess", "SHA256", "AKAv1-MD5", ""] {
            assert_eq!(Algorithm::from_bytes(token.as_bytes()), None, "{token}");
        }
    }
}
