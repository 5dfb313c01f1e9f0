//! Accounts of users.

use std::{fmt, str::FromStr};

use model::{AddressOfRecord, Epoch, PoolName, WallTime};
use serde::{Deserialize, Serialize};

/// What is known of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Who it is; the digest realm is its domain.
    pub aor: AddressOfRecord,
    /// The front-end pool that gives the user user services: the account is in its journal.
    pub journal: PoolName,
    /// Where the user is homed: that front-end pool, or a branch associated with it.
    pub home: PoolName,
    /// What proves the password; `None` where only the directory is held of this user.
    pub credentials: Option<Credentials>,
    /// Digest algorithms to offer this user, in this order; `None` = as the pool's settings say.
    pub algorithms: Option<Vec<DigestAlgorithm>>,
    /// Number of the last change of this account in its journal; from 1.
    pub version: u64,
    /// Epoch of that change.
    pub epoch: Epoch,
    /// When that change was made, by the clock of who made it.
    pub changed_at: WallTime,
}

/// The two HA1 values of RFC 7616 section 3.4.2: hash of `user:realm:password`. Prints as `***`.
///
/// As good as the password for this realm: never logged, never sent but to servers that authenticate the
/// user.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// By MD5.
    pub ha1_md5: [u8; 16],
    /// By SHA-256.
    pub ha1_sha256: [u8; 32],
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A digest algorithm for which accounts hold an HA1. Source: RFC 8760.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    /// `MD5`.
    #[serde(rename = "MD5")]
    Md5,
    /// `SHA-256`.
    #[serde(rename = "SHA-256")]
    Sha256,
}

impl DigestAlgorithm {
    /// The token of the `algorithm` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is neither `MD5` nor `SHA-256`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("accounts hold credentials for MD5 and SHA-256, not for {0:?}")]
pub struct UnknownAlgorithm(pub String);

impl FromStr for DigestAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        [Self::Md5, Self::Sha256]
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_print_as_stars() {
        let credentials = Credentials { ha1_md5: [7; 16], ha1_sha256: [7; 32] };

        assert_eq!(format!("{credentials:?}"), "***");
    }

    #[test]
    fn an_algorithm_is_read_in_any_case_and_an_unknown_one_refused() {
        assert_eq!("sha-256".parse(), Ok(DigestAlgorithm::Sha256));
        assert_eq!("MD5".parse(), Ok(DigestAlgorithm::Md5));
        assert!("SHA-512-256".parse::<DigestAlgorithm>().is_err());
    }
}
