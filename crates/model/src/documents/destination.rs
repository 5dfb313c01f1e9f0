//! Where a call may be sent on a user's behalf.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use crate::limits;

/// Why a text is not a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Neither a SIP nor a telephone URI.
    #[error("a destination begins with sip:, sips: or tel:")]
    Scheme,
    /// Empty behind the scheme, or longer than `limits::DESTINATION_BYTES_MAX`.
    #[error("a destination has at most {max} octets and something behind its scheme")]
    Length {
        /// Most octets.
        max: usize,
    },
    /// A character that a URI cannot hold.
    #[error("{found:?} is not allowed in a destination")]
    Character {
        /// The first one.
        found: char,
    },
}

/// A URI with scheme `sip`, `sips` or `tel` to which calls are sent: printable ASCII without spaces, quotes
/// and angle brackets, without headers. Whether anybody answers there is another matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Destination(Arc<str>);

impl Destination {
    /// Checks `text`.
    ///
    /// Errors: [`DestinationError`].
    pub fn new(text: &str) -> Result<Self, DestinationError> {
        let schemes = ["sip:", "sips:", "tel:"];
        let begins =
            |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        let scheme = schemes.into_iter().find(|scheme| begins(scheme)).ok_or(DestinationError::Scheme)?;
        let max = limits::DESTINATION_BYTES_MAX;
        if text.len() > max || text.len() == scheme.len() {
            return Err(DestinationError::Length { max });
        }
        let is_allowed = |found: &char| found.is_ascii_graphic() && !matches!(found, '<' | '>' | '"' | '?');
        if let Some(found) = text.chars().find(|found| !is_allowed(found)) {
            return Err(DestinationError::Character { found });
        }
        Ok(Self(text.into()))
    }

    /// The URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, DestinationError> {
        Self::new(&text)
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_sips_and_tel_are_destinations_and_nothing_else() {
        for good in ["sip:bob@example.com", "SIPS:bob@example.com;x=y", "tel:+4930123"] {
            assert_eq!(Destination::new(good).map(|found| found.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(Destination::new("mailto:bob@example.com"), Err(DestinationError::Scheme));
        assert!(matches!(Destination::new("sip:"), Err(DestinationError::Length { .. })));
    }

    #[test]
    fn a_destination_cannot_carry_headers_or_break_out_of_its_brackets() {
        for bad in ["sip:a@b?Route=x", "sip:a@b>;x", "sip:a\r\nVia: x@b", "sip:a b@c", "sip:\u{e4}@b"] {
            assert!(matches!(Destination::new(bad), Err(DestinationError::Character { .. })), "{bad}");
        }
    }
}
