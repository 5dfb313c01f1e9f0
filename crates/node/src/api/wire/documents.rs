//! Documents of users.

use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{Document, Edit},
};
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/documents`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserDocuments {
    /// Whose.
    pub aor: AddressOfRecord,
    /// Home pool of the user.
    pub home: PoolName,
    /// Pool in whose journal the documents live.
    pub journal: PoolName,
    /// One of each kind; of a kind that was never edited the empty one, with version 0.
    pub documents: Vec<DocumentRecord>,
}

/// A document with its version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Number of its last change in the journal; 0 = never edited.
    pub version: u64,
    /// Ownership epoch of that change.
    pub epoch: Epoch,
    /// When that change was made, in microseconds since 1970.
    pub changed_at: WallTime,
    /// The document.
    pub document: Document,
}

/// Body of `PATCH /v1/documents`: one edit of one document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentPatch {
    /// Whose document.
    pub aor: AddressOfRecord,
    /// 32 hexadecimal digits, drawn by who asks; the same request again changes nothing.
    pub operation: String,
    /// The version that is edited, 0 = none yet; the edit is refused when there is another. `None`: any.
    #[serde(default)]
    pub expected: Option<u64>,
    /// The edit. Call records are written by servers only.
    pub edit: Edit,
}

/// Answer of `PATCH /v1/documents`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Patched {
    /// Version of the document now.
    pub version: u64,
}
