//! Names of sites, pools, servers and hosts.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than the type allows.
    #[error("a name has 1 to {max} characters, this one has {length}")]
    Length {
        /// Characters in the text.
        length: usize,
        /// Most characters allowed.
        max: usize,
    },
    /// A character that does not belong there.
    #[error("{found:?} is not allowed in a name: use letters, digits and inner hyphens")]
    Character {
        /// The first character that does not belong.
        found: char,
    },
    /// A host name without a dot.
    #[error("a fully qualified domain name has at least two labels")]
    NotQualified,
}

/// A fully qualified domain name in lower case: labels of letters, digits and inner hyphens, 1 to 63 octets
/// each, at least two labels, at most 253 octets. Source: RFC 1123 section 2.1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Fqdn(Arc<str>);

impl Fqdn {
    /// Checks `text` and lowers its case.
    ///
    /// Errors: [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > 253 {
            return Err(NameError::Length { length: text.len(), max: 253 });
        }
        let lower = text.to_ascii_lowercase();
        for label in lower.split('.') {
            check_label(label)?;
        }
        if !lower.contains('.') {
            return Err(NameError::NotQualified);
        }
        Ok(Self(lower.into()))
    }

    /// The name as text, in lower case, without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() || label.len() > 63 {
        return Err(NameError::Length { length: label.len(), max: 63 });
    }
    let found = label
        .char_indices()
        .find(|&(at, c)| {
            let is_edge = at == 0 || at + c.len_utf8() == label.len();
            !(c.is_ascii_alphanumeric() || (c == '-' && !is_edge))
        })
        .map(|(_, c)| c);
    found.map_or(Ok(()), |found| Err(NameError::Character { found }))
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Fqdn {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Fqdn {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl Serialize for Fqdn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

macro_rules! short_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// One label: 1 to 63 letters, digits and inner hyphens, kept in lower case.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and lowers its case.
            ///
            /// Errors: [`NameError`].
            pub fn new(text: &str) -> Result<Self, NameError> {
                let lower = text.to_ascii_lowercase();
                check_label(&lower)?;
                Ok(Self(lower.into()))
            }

            /// The name as text, in lower case.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

short_name!(
    /// The short name of a site, unique in the topology.
    SiteName
);
short_name!(
    /// The short name of a pool, unique in the topology; what operators type. Its FQDN is what phones
    /// resolve.
    PoolName
);
short_name!(
    /// The short name of a server, unique in the topology.
    ServerName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lowered_and_checked() {
        assert_eq!(Fqdn::new("East.Example.COM").unwrap().as_str(), "east.example.com");
        assert_eq!(Fqdn::new("east").unwrap_err(), NameError::NotQualified);
        assert_eq!(Fqdn::new("a_b.example").unwrap_err(), NameError::Character { found: '_' });
        assert_eq!(Fqdn::new("-a.example").unwrap_err(), NameError::Character { found: '-' });
        assert!(Fqdn::new("a..example").is_err());
        assert_eq!(PoolName::new("East").unwrap().as_str(), "east");
        assert!(PoolName::new("a.b").is_err());
    }
}
