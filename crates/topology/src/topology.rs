//! The validated topology and what others ask of it.

use std::collections::BTreeMap;

use model::{Fqdn, PoolName, ServerName, SiteName, limits};
use serde::Serialize;

use crate::{DeploymentName, Finding, Pair, Pool, Role, Rule, Server, Site, check, parse, raw::Document};

/// A deployment in which every name is valid, every reference resolves and no rule is broken.
///
/// Made by [`Topology::read`]. The order of sites, pools, servers and pairs is that of the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Grows with every change; 1 or more.
    pub version: u64,
    /// The name of the deployment.
    pub deployment: DeploymentName,
    /// The SIP domains served; never empty, the first is the default and the digest realm of pools.
    pub domains: Vec<Fqdn>,
    /// The sites.
    pub sites: Vec<Site>,
    /// The pools.
    pub pools: Vec<Pool>,
    /// The servers.
    pub servers: Vec<Server>,
    /// The pairs.
    pub pairs: Vec<Pair>,
    #[serde(skip)]
    pub(crate) index: Index,
}

/// Where the parts of a topology are, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    sites: BTreeMap<SiteName, usize>,
    pools: BTreeMap<PoolName, usize>,
    servers: BTreeMap<ServerName, usize>,
    fqdns: BTreeMap<Fqdn, usize>,
    partners: BTreeMap<PoolName, PoolName>,
}

impl Index {
    pub(crate) fn of(sites: &[Site], pools: &[Pool], servers: &[Server], pairs: &[Pair]) -> Self {
        let both_ways = |pair: &Pair| {
            let [first, second] = pair.pools.clone();
            [(first.clone(), second.clone()), (second, first)]
        };
        Self {
            sites: sites.iter().enumerate().map(|(at, site)| (site.name.clone(), at)).collect(),
            pools: pools.iter().enumerate().map(|(at, pool)| (pool.name.clone(), at)).collect(),
            servers: servers.iter().enumerate().map(|(at, server)| (server.name.clone(), at)).collect(),
            fqdns: servers.iter().enumerate().map(|(at, server)| (server.fqdn.clone(), at)).collect(),
            partners: pairs.iter().flat_map(both_ways).collect(),
        }
    }
}

impl Topology {
    /// Reads a document, at most [`limits::TOPOLOGY_BYTES_MAX`] octets of TOML.
    ///
    /// With the topology come the warnings, in the order of the text. Errors: all findings, warnings
    /// included, in the order of the text; at least one is an error.
    pub fn read(text: &str) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let (document, mut findings) = examine(text);
        if findings.iter().any(Finding::is_error) {
            return Err(findings);
        }
        match document.as_ref().map(Self::try_from) {
            Some(Ok(topology)) => Ok((topology, findings)),
            Some(Err(finding)) => {
                findings.push(finding);
                Err(findings)
            }
            None => Err(findings),
        }
    }

    /// The site with this name.
    pub fn site(&self, name: &SiteName) -> Option<&Site> {
        self.index.sites.get(name).and_then(|&at| self.sites.get(at))
    }

    /// The pool with this name.
    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.index.pools.get(name).and_then(|&at| self.pools.get(at))
    }

    /// The server with this name.
    pub fn server(&self, name: &ServerName) -> Option<&Server> {
        self.index.servers.get(name).and_then(|&at| self.servers.get(at))
    }

    /// The server with this host name; how the certificate of a peer becomes a server.
    pub fn server_by_fqdn(&self, fqdn: &Fqdn) -> Option<&Server> {
        self.index.fqdns.get(fqdn).and_then(|&at| self.servers.get(at))
    }

    /// The pool a server belongs to.
    pub fn pool_of(&self, server: &ServerName) -> Option<&Pool> {
        self.pool(&self.server(server)?.pool)
    }

    /// The servers of a pool, in the order of the document.
    pub fn servers_of(&self, pool: &PoolName) -> impl Iterator<Item = &Server> {
        self.pool(pool).into_iter().flat_map(|pool| &pool.servers).filter_map(|name| self.server(name))
    }

    /// The other pool of the pair that `pool` is in.
    pub fn partner_of(&self, pool: &PoolName) -> Option<&Pool> {
        self.pool(self.index.partners.get(pool)?)
    }

    /// The front-end pool that gives a branch pool its user services.
    pub fn associated_of(&self, branch: &PoolName) -> Option<&Pool> {
        self.pool(self.pool(branch)?.associated_pool.as_ref()?)
    }

    /// The backup registrar of a home pool: the partner of a front-end pool, the associated pool of a branch.
    pub fn backup_of(&self, pool: &PoolName) -> Option<&Pool> {
        match self.pool(pool)?.role {
            Role::FrontEnd => self.partner_of(pool),
            Role::Branch => self.associated_of(pool),
            Role::Director | Role::Edge | Role::Mediation | Role::Control => None,
        }
    }

    /// The branch pools associated with a front-end pool, in the order of the document.
    pub fn branches_of(&self, pool: &PoolName) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(move |branch| branch.associated_pool.as_ref() == Some(pool))
    }

    /// The pools on which users can be homed: front-end and branch pools, in the order of the document.
    pub fn home_pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(|pool| pool.role.homes_users())
    }

    /// The servers that serve the control store; the third party of every pair. At most one.
    pub fn control_servers(&self) -> impl Iterator<Item = &Server> {
        self.pools
            .iter()
            .filter(|pool| pool.role == Role::Control)
            .flat_map(|pool| &pool.servers)
            .filter_map(|name| self.server(name))
    }

    /// The domain that is meant where none is named: the first one.
    pub fn default_domain(&self) -> Option<&Fqdn> {
        self.domains.first()
    }
}

/// All findings of a document, errors and warnings, in the order of the text; those without a place come
/// first.
///
/// A document that cannot be read as TOML has `syntax` findings only.
pub fn lint(text: &str) -> Vec<Finding> {
    examine(text).1
}

/// The text of a topology file.
///
/// Errors: a `syntax` finding when it is not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<&str, Finding> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let text = String::from_utf8_lossy(good);
        Finding::new(
            Rule::Syntax,
            Some(parse::position(&text, text.len())),
            "topology",
            "the file is not UTF-8 text",
            "save it as UTF-8 without a byte order mark",
        )
    })
}

fn examine(text: &str) -> (Option<Document>, Vec<Finding>) {
    if text.len() > limits::TOPOLOGY_BYTES_MAX {
        let message = format!(
            "the document has {} octets, at most {} are read",
            text.len(),
            limits::TOPOLOGY_BYTES_MAX
        );
        let remedy = "split the deployment, or remove what is no longer used";
        return (None, vec![Finding::new(Rule::DocumentSize, None, "topology", message, remedy)]);
    }
    let (document, mut findings) = parse::document(text);
    if let Some(document) = &document {
        check::document(document, &mut findings);
    }
    findings.sort();
    findings.dedup();
    (document, findings)
}
