//! What authentication has to look up.

use std::fmt;

use model::AddressOfRecord;
use sip::digest::{Algorithm, Ha1};

/// The accounts of the domains served here; implemented by `node` on its copy of the user data.
pub trait Accounts {
    /// The account that authenticates as `username` in `realm` (a domain in lower case); `None` when there is
    /// none.
    ///
    /// `username` is what the phone sent, not necessarily UTF-8.
    fn account(&self, username: &[u8], realm: &str) -> Option<AccountView>;

    /// The algorithms offered to the user `user` of the domain `realm` before they say who they authenticate
    /// as; `None` = those of the pool, also for users who do not exist.
    ///
    /// `user` is the user part of the address, escapes kept. Override it where user names differ from
    /// addresses.
    fn algorithms(&self, user: &[u8], realm: &str) -> Option<Algorithms> {
        self.account(user, realm).and_then(|account| account.algorithms)
    }
}

/// What authentication needs to know of an account.
#[derive(Clone)]
pub struct AccountView {
    /// The address-of-record that it may use.
    pub aor: AddressOfRecord,
    /// H(A1) for MD5.
    pub ha1_md5: [u8; 16],
    /// H(A1) for SHA-256.
    pub ha1_sha256: [u8; 32],
    /// The algorithms offered to this account; `None` = those of the pool.
    pub algorithms: Option<Algorithms>,
}

impl AccountView {
    pub(super) fn ha1(&self, algorithm: Algorithm) -> Option<Ha1> {
        match algorithm {
            Algorithm::Md5 => Some(Ha1::md5(&self.ha1_md5)),
            Algorithm::Sha256 => Some(Ha1::sha256(&self.ha1_sha256)),
            Algorithm::Sha512_256 => None,
        }
    }
}

impl fmt::Debug for AccountView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountView")
            .field("aor", &self.aor)
            .field("ha1", &"***")
            .field("algorithms", &self.algorithms)
            .finish()
    }
}

/// One or two algorithms in the order in which they are offered: those that accounts have hashes for.
///
/// SHA-256 before MD5 serves most phones, MD5 alone the old ones (measured with seven clients).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms {
    first: Algorithm,
    second: Option<Algorithm>,
}

impl Algorithms {
    /// MD5 alone.
    pub const MD5: Self = Self { first: Algorithm::Md5, second: None };
    /// SHA-256, then MD5.
    pub const SHA256_MD5: Self = Self { first: Algorithm::Sha256, second: Some(Algorithm::Md5) };

    /// These algorithms in this order; `None` when there are none, one is there twice, or SHA-512-256 is
    /// among them.
    pub fn new(algorithms: &[Algorithm]) -> Option<Self> {
        let (&first, rest) = algorithms.split_first()?;
        let second = match rest {
            [] => None,
            [second] if *second != first => Some(*second),
            [..] => return None,
        };
        let algorithms = Self { first, second };
        (!algorithms.contains(Algorithm::Sha512_256)).then_some(algorithms)
    }

    /// In the order in which they are offered.
    pub fn iter(self) -> impl Iterator<Item = Algorithm> {
        std::iter::once(self.first).chain(self.second)
    }

    /// Whether this one is offered.
    pub fn contains(self, algorithm: Algorithm) -> bool {
        self.first == algorithm || self.second == Some(algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_that_accounts_have_hashes_for_are_offered() {
        use Algorithm::{Md5, Sha256, Sha512_256};

        assert_eq!(Algorithms::new(&[Sha256, Md5]), Some(Algorithms::SHA256_MD5));
        assert_eq!(Algorithms::new(&[Md5]), Some(Algorithms::MD5));
        assert_eq!(Algorithms::new(&[Md5, Sha256]).unwrap().iter().collect::<Vec<_>>(), [Md5, Sha256]);
        for bad in [&[][..], &[Md5, Md5], &[Sha512_256], &[Md5, Sha256, Md5]] {
            assert_eq!(Algorithms::new(bad), None, "{bad:?}");
        }
    }
}
