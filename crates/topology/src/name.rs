//! Names that only the topology uses.

use std::{fmt, sync::Arc};

use model::{NameError, SiteName};
use serde::Serialize;

/// The name of a deployment: one label of letters, digits and inner hyphens, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DeploymentName(SiteName);

impl DeploymentName {
    /// Checks `text` and lowers its case.
    ///
    /// Errors: [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        SiteName::new(text).map(Self)
    }

    /// The name as text, in lower case.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for DeploymentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The version of the software that a pool runs: 1 to 32 letters, digits, dots, hyphens and plus signs.
///
/// Compared for equality only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct SoftwareVersion(Arc<str>);

/// A text is not a software version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a software version has 1 to 32 letters, digits, dots, hyphens and plus signs")]
pub struct SoftwareVersionError;

impl SoftwareVersion {
    /// Checks `text`.
    ///
    /// Errors: [`SoftwareVersionError`].
    pub fn new(text: &str) -> Result<Self, SoftwareVersionError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if (1..=32).contains(&text.len()) && text.chars().all(is_plain) {
            Ok(Self(text.into()))
        } else {
            Err(SoftwareVersionError)
        }
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<SoftwareVersion> for String {
    fn from(version: SoftwareVersion) -> Self {
        version.0.as_ref().to_owned()
    }
}

impl fmt::Display for SoftwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_software_version_is_a_short_plain_text() {
        assert_eq!(SoftwareVersion::new("1.4.0-rc1+7").unwrap().as_str(), "1.4.0-rc1+7");
        for text in ["", "1 4", "1.4\n", "a/b", &"1".repeat(33)] {
            assert_eq!(SoftwareVersion::new(text), Err(SoftwareVersionError), "{text:?}");
        }
    }
}
