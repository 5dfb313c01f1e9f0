//! Talking to the servers of a deployment as its operator.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use model::{AddressOfRecord, PoolName};
use node::{
    Deployment, ServedHome, Serving,
    api::wire::UserWhere,
    operator_client,
    peers::{Endpoint, PeerClient, PeerError},
};
use tokio::task::JoinSet;
use topology::{Server, Topology};

use crate::{failure::Usage, serve};

/// How long a server may take to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a server may take to say whom it serves.
const SERVING_WITHIN: Duration = Duration::from_secs(3);

/// A deployment whose servers can be asked.
pub struct Remote {
    /// Its topology.
    pub topology: Topology,
    /// Presents the operator's certificate.
    pub client: PeerClient,
}

impl Remote {
    /// Reads topology and operator certificate of the deployment in `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        let deployment = Deployment::at(dir);
        let topology = serve::read_topology(&deployment.topology())
            .with_context(|| format!("{} is no deployment: name one with --dir", dir.display()))?;
        let client = PeerClient::new(operator_client(&deployment)?, None);
        Ok(Self { topology, client })
    }

    /// Where a server is asked.
    pub fn endpoint(server: &Server) -> Endpoint {
        Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() }
    }

    /// The server to ask about the users of a home pool.
    pub fn home_server(&self, home: &PoolName) -> Result<Endpoint> {
        let is_home = self.topology.home_pools().any(|pool| pool.name == *home);
        let server = self.topology.servers_of(home).next().filter(|_| is_home);
        let names: Vec<_> = self.topology.home_pools().map(|pool| pool.name.to_string()).collect();
        let server =
            server.ok_or_else(|| Usage(format!("{home} is no home pool; there are {}", names.join(", "))))?;
        Ok(Self::endpoint(server))
    }

    /// The server to ask for the data of a home pool's users: the one that owns them now with user services,
    /// of the associated pool where the home is a branch. Without such a one, whoever serves them in
    /// resiliency mode: it may read, and says why it does not write.
    ///
    /// Errors: the home pool does not exist, no server answers, or none of those that do owns the users.
    pub async fn owner(&self, home: &PoolName) -> Result<Endpoint> {
        self.home_server(home)?;
        let associated = self.topology.associated_of(home).map(|pool| &pool.name);
        self.owner_of_journal(associated.unwrap_or(home)).await
    }

    /// The server to ask for the data of a user, as [`Self::owner`]: while a branch goes to another
    /// associated pool, servers know better than the file whose journal that is.
    ///
    /// Errors: nobody knows the user; as [`Self::owner`].
    pub async fn owner_of(&self, aor: &AddressOfRecord) -> Result<(PoolName, Endpoint)> {
        let UserWhere { home, journal, .. } = self.find(aor).await?;
        let endpoint = match &journal {
            Some(journal) => self.owner_of_journal(journal).await?,
            None => self.owner(&home).await?,
        };
        Ok((home, endpoint))
    }

    async fn owner_of_journal(&self, journal: &PoolName) -> Result<Endpoint> {
        let (claims, unreachable) = self.claims(journal).await;
        let best = claims.into_iter().max_by_key(|(_, claim)| (claim.is_full, claim.epoch));
        if let Some((endpoint, _)) = best {
            return Ok(endpoint);
        }
        if let Some(error) = unreachable {
            return Err(anyhow::Error::new(error).context(format!("nobody who answers owns {journal}")));
        }
        anyhow::bail!("nobody may serve {journal} at this moment: see `tandem pool status`, then try again")
    }

    /// Who says that it serves a home pool, and why one that did not answer did not.
    async fn claims(&self, journal: &PoolName) -> (Vec<(Endpoint, ServedHome)>, Option<PeerError>) {
        let mut asked = JoinSet::new();
        for server in self.registrars() {
            let (client, endpoint) = (self.client.clone(), Self::endpoint(server));
            asked.spawn(async move {
                let serving: Result<Serving, _> = client.get(&endpoint, "/v1/serving", SERVING_WITHIN).await;
                (endpoint, serving)
            });
        }
        let (mut claims, mut unreachable) = (Vec::new(), None);
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((endpoint, Ok(serving))) => {
                    let served = serving.homes.into_iter().find(|served| served.home == *journal);
                    claims.extend(served.map(|served| (endpoint, served)));
                }
                Ok((_, Err(error))) => unreachable = Some(error),
                Err(_) => {}
            }
        }
        (claims, unreachable)
    }

    /// Where a user is homed and served: the answer of the first server that knows the user.
    pub async fn find(&self, aor: &AddressOfRecord) -> Result<UserWhere> {
        let path = format!("/v1/users/where?aor={}", escape(aor.as_str()));
        let mut unreachable = None;
        let mut unknown = None;
        for server in self.registrars() {
            match self.client.get(&Self::endpoint(server), &path, ANSWER_WITHIN).await {
                Ok(found) => return Ok(found),
                Err(error @ PeerError::Refused { .. }) => unknown = Some(error),
                Err(error) => unreachable = Some(error),
            }
        }
        Err(unknown.or(unreachable).context("the topology has no server that homes users")?.into())
    }

    /// The servers that keep registrations.
    pub fn registrars(&self) -> impl Iterator<Item = &Server> {
        self.topology.home_pools().flat_map(|pool| self.topology.servers_of(&pool.name))
    }
}

/// Reads an address-of-record as an operator types it; `sip:` may be left out.
pub fn address(text: &str) -> Result<AddressOfRecord> {
    let full = if text.contains(':') { text.to_owned() } else { format!("sip:{text}") };
    AddressOfRecord::new(&full).map_err(|error| Usage(format!("{text:?}: {error}")).into())
}

/// Reads the name of a pool as an operator types it.
pub fn pool_name(text: &str) -> Result<PoolName> {
    PoolName::new(text).map_err(|error| Usage(format!("{text:?} is no pool name: {error}")).into())
}

/// Escapes a value for the query part of a path.
pub fn escape(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_typed_without_its_scheme() {
        assert_eq!(address("alice@example.com").unwrap().as_str(), "sip:alice@example.com");
        assert_eq!(address("sip:alice@example.com").unwrap().as_str(), "sip:alice@example.com");
        assert!(address("alice").is_err());
    }

    #[test]
    fn a_query_value_is_escaped() {
        assert_eq!(escape("sip:a+b@x.y"), "sip%3Aa%2Bb%40x.y");
    }
}
