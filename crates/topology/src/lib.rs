//! The deployment as one versioned document: sites, pools, servers, pairs, branches; lint and diff.
//!
//! The document is TOML, described key by key in `docs/operations/topology.md`. It is read in three steps:
//!
//! ```text
//! text --parse--> raw::Document --check--> findings
//!                       |
//!                       +------build-----> Topology      (only when no finding is an error)
//! ```
//!
//! The raw form keeps every value where it stood in the text and tolerates anything that is missing, unknown
//! or wrong, so that one problem never hides another. Nobody outside this crate sees it: others get a
//! [`Topology`] whose references all resolve, or the list of [`Finding`]s.

mod build;
mod check;
mod diff;
mod entry;
mod finding;
mod name;
mod online;
mod pair;
mod parse;
mod pool;
mod print;
mod raw;
mod replacement;
mod rule;
mod section;
mod server;
mod settings;
mod site;
mod suggestion;
mod topology;

pub use diff::{Change, What, diff};
pub use finding::{Finding, Position, Severity};
pub use name::{DeploymentName, SoftwareVersion, SoftwareVersionError};
pub use online::{Association, OnlineChange, online_change};
pub use pair::Pair;
pub use pool::{BackEnd, Edition, Pool, Role};
pub use replacement::{removal_findings, replacement_findings};
pub use rule::Rule;
pub use server::{Listen, PhoneCertificate, Server};
pub use settings::{
    BranchRecovery, CallRecords, DevicesBeyondMax, DigestAlgorithm, EMERGENCY_NUMBERS_DEFAULT, NumberSetting,
    PoolSettings, SecondRegistration, TAKEOVER_MARGIN,
};
pub use site::{Site, SiteKind};
pub use topology::{Topology, decode, lint};
