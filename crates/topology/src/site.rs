//! Sites: well-connected machines.

use std::fmt;

use model::SiteName;
use serde::Serialize;

/// Machines at one place, connected at LAN speed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Its name, unique in the topology.
    pub name: SiteName,
    /// Central, or a branch of a central site.
    #[serde(flatten)]
    pub kind: SiteKind,
}

/// What a site is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SiteKind {
    /// A site with at least one front-end pool.
    Central,
    /// A site that gets its user services over the WAN.
    Branch {
        /// The central site it belongs to.
        parent: SiteName,
    },
}

impl SiteKind {
    /// The word in the document: `central` or `branch`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Central => "central",
            Self::Branch { .. } => "branch",
        }
    }
}

impl Site {
    /// The central site that a branch site belongs to; `None` for a central site.
    pub const fn parent(&self) -> Option<&SiteName> {
        match &self.kind {
            SiteKind::Central => None,
            SiteKind::Branch { parent } => Some(parent),
        }
    }
}

impl fmt::Display for SiteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
