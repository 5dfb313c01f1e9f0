//! Octets that travel between stores: an encoding that finds its own damage, and JSON inside of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// Content with a SHA-256 over its purpose and its encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed<T> {
    pub(crate) content: T,
    checksum: [u8; 32],
}

impl<T: Serialize + DeserializeOwned> Sealed<T> {
    /// Content with its checksum; `purpose` keeps one kind of content from being taken for another.
    pub(crate) fn new(purpose: &str, content: T) -> Self {
        let checksum = checksum(purpose, &content);
        Self { content, checksum }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encoded(self)
    }

    /// Reads what [`Self::encode`] made, or says what is wrong.
    pub(crate) fn decode(purpose: &str, octets: &[u8]) -> Result<Self, String> {
        let sealed: Self =
            postcard::from_bytes(octets).map_err(|error| format!("not a {purpose}: {error}"))?;
        sealed.check(purpose)?;
        Ok(sealed)
    }

    pub(crate) fn check(&self, purpose: &str) -> Result<(), String> {
        if checksum(purpose, &self.content) == self.checksum {
            return Ok(());
        }
        Err("the checksum differs".to_owned())
    }
}

fn checksum(purpose: &str, content: &impl Serialize) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("tandem {purpose}\n"));
    hash.update(encoded(content));
    hash.finalize().into()
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value)
        .expect("invariant: pages hold only types that postcard encodes, into a growing vector")
}

/// A value as JSON text; it is stored and sent like this so that a later version can add to it.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("invariant: documents hold only types that JSON has, keys are texts")
}

/// For `#[serde(with)]`: a field as JSON text inside of another encoding.
pub(crate) mod as_json {
    use serde::de::Error as _;

    use super::{Deserialize, DeserializeOwned, Deserializer, Serialize, Serializer, json};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&json(value))
    }

    pub(crate) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}
