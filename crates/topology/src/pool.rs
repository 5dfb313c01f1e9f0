//! Pools: servers with the same role, addressed by one FQDN.

use std::fmt;

use model::{Fqdn, PoolName, ServerName, SiteName};
use serde::Serialize;

use crate::{PoolSettings, SoftwareVersion};

/// Servers with the same role, addressed by one FQDN. A one-server pool is a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Its name, unique in the topology.
    pub name: PoolName,
    /// The host name that phones and other pools resolve, unique among pools and servers.
    pub fqdn: Fqdn,
    /// What its servers do.
    pub role: Role,
    /// Where its servers stand.
    pub site: SiteName,
    /// Its servers in the order of the document; at least one.
    pub servers: Vec<ServerName>,
    /// Which set of services it offers; front-end pools only, [`Edition::Enterprise`] for the others.
    pub edition: Edition,
    /// The database of its user data.
    pub back_end: BackEnd,
    /// The software its servers run, where the document says so.
    pub software: Option<SoftwareVersion>,
    /// The third voter of a front-end pool of two servers.
    pub tie_breaker: Option<ServerName>,
    /// Users homed here, as planned.
    pub users_expected: u64,
    /// Users its servers can carry; `None` = not stated, so not checked.
    pub users_capacity: Option<u64>,
    /// Of a branch pool: the front-end pool that gives it user services and backs its registrar.
    pub associated_pool: Option<PoolName>,
    /// Of an edge or mediation pool: where it sends what comes in.
    pub next_hop: Option<PoolName>,
    /// How it treats phones and its partner.
    pub settings: PoolSettings,
}

/// What the servers of a pool do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Registrar, proxy and user services for the users homed on the pool.
    FrontEnd,
    /// First hop: authenticates, then redirects or proxies to the owner. Homes nobody.
    Director,
    /// The border to the internet. Homes nobody.
    Edge,
    /// Back-to-back user agent towards the telephone network. Homes nobody.
    Mediation,
    /// Survivable branch appliance: registrar and gateway that work with the WAN cut.
    Branch,
    /// Topology, pool states and ownership epochs: the control store.
    Control,
}

impl Role {
    /// Every role, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::FrontEnd, Self::Director, Self::Edge, Self::Mediation, Self::Branch, Self::Control];

    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FrontEnd => "front_end",
            Self::Director => "director",
            Self::Edge => "edge",
            Self::Mediation => "mediation",
            Self::Branch => "branch",
            Self::Control => "control",
        }
    }

    /// Whether users can be homed on such a pool.
    pub const fn homes_users(self) -> bool {
        match self {
            Self::FrontEnd | Self::Branch => true,
            Self::Director | Self::Edge | Self::Mediation | Self::Control => false,
        }
    }

    /// Whether such a pool can be in a pair.
    pub const fn has_partner(self) -> bool {
        match self {
            Self::FrontEnd => true,
            Self::Director | Self::Edge | Self::Mediation | Self::Branch | Self::Control => false,
        }
    }

    /// Whether such a server speaks SIP.
    pub const fn speaks_sip(self) -> bool {
        match self {
            Self::FrontEnd | Self::Director | Self::Edge | Self::Mediation | Self::Branch => true,
            Self::Control => false,
        }
    }

    /// The most servers of one pool; `None` = no rule. Source: product, section 3; for branch appliances and
    /// the control store, which is one file, one.
    pub const fn servers_max(self) -> Option<usize> {
        match self {
            Self::FrontEnd | Self::Edge => Some(12),
            Self::Director => Some(10),
            Self::Branch | Self::Control => Some(1),
            Self::Mediation => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The set of services of a front-end pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edition {
    /// Up to twelve servers, which survive the loss of one another.
    #[default]
    Enterprise,
    /// One server that is everything; high availability only by its pair.
    Standard,
}

impl Edition {
    /// Every edition.
    pub const ALL: [Self; 2] = [Self::Enterprise, Self::Standard];

    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enterprise => "enterprise",
            Self::Standard => "standard",
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The database of a pool's user data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackEnd {
    /// A file on the server's own disk.
    #[default]
    Embedded,
    /// PostgreSQL: primary, synchronous standby and witness.
    Postgresql,
}

impl BackEnd {
    /// Every kind of back end.
    pub const ALL: [Self; 2] = [Self::Embedded, Self::Postgresql];

    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgresql => "postgresql",
        }
    }
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
