//! Which part of a journal a reader is given.

use std::{fmt, str::FromStr};

use model::PoolName;
use serde::{Deserialize, Serialize, Serializer};

/// What a reader is given of each change. Its text is `everything`, `directory` or `branch:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Scope {
    /// Everything, secrets included: for the partner.
    Everything,
    /// For a branch: the accounts, settings and voice policies of its users, and who is homed where of all
    /// others. A user who leaves the branch arrives as one of the others: secrets and documents go.
    Branch(PoolName),
    /// Who is homed where: for servers that only find users. Carries no secrets.
    Directory,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Branch(branch) => write!(f, "branch:{branch}"),
            Self::Directory => f.write_str("directory"),
        }
    }
}

/// A text that names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is everything, directory or branch:NAME, not {0:?}")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let unknown = || UnknownScope(text.to_owned());
        match (text, text.strip_prefix("branch:")) {
            ("everything", _) => Ok(Self::Everything),
            ("directory", _) => Ok(Self::Directory),
            (_, Some(branch)) => PoolName::new(branch).map(Self::Branch).map_err(|_| unknown()),
            (_, None) => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = UnknownScope;

    fn try_from(text: String) -> Result<Self, UnknownScope> {
        text.parse()
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_printed_and_nothing_else_is_one() {
        for scope in [Scope::Everything, Scope::Branch(PoolName::new("hill").unwrap()), Scope::Directory] {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for wrong in ["", "accounts", "branch", "branch:", "branch:a b", "Directory"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
        }
    }
}
