//! Where the servers of a host are (RFC 3263): from the host, port and transport of a URI to addresses, in
//! the order in which they are tried.
//!
//! [`locate`] asks a [`Dns`] and gives [`Located`], which may be kept for [`Located::lifetime`]; each request
//! then draws its own order by [`Located::in_order`], so that weights share the load (RFC 2782).
//!
//! Transports are taken in our own order where the zone has no preference: UDP, TCP, TLS. TLS alone serves
//! `sips`. SCTP and WebSocket are never found: nobody connects to a client of the latter.

mod dns;
mod system;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use model::{Chance, Place, Protocol, limits};

pub use dns::{Answer, Dns, DnsError, Naptr, Srv};
pub use system::SystemDns;

/// What of a URI says where its server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sought {
    /// Host name in lower case, without a final full stop; never an address.
    pub host: Arc<str>,
    /// The port, where one is named.
    pub port: Option<u16>,
    /// The transport, where one is named.
    pub protocol: Option<Protocol>,
    /// Whether only TLS will do.
    pub is_sips: bool,
}

/// The servers of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Never empty.
    servers: Vec<Server>,
    /// How long this may be used.
    pub lifetime: Duration,
}

/// One server, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    /// Lower is tried first: preference of its transport, then priority of RFC 2782.
    rank: (u16, u16),
    weight: u16,
    protocol: Protocol,
    /// Never empty.
    addresses: Vec<SocketAddr>,
}

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// The name does not exist, or has no server for SIP.
    #[error("{host} has no address of a SIP server")]
    Nothing {
        /// The host.
        host: Arc<str>,
        /// How long that may be believed.
        lifetime: Duration,
    },
    /// Nobody could say.
    #[error("{host} could not be looked up")]
    Unknown {
        /// The host.
        host: Arc<str>,
        /// Why.
        #[source]
        source: DnsError,
    },
}

impl Located {
    /// The places to try, in order: by rank; of one rank a server is drawn by weight, then another of those
    /// left (RFC 2782). At most [`limits::LOCATED_PLACES_MAX`].
    pub fn in_order(&self, chance: &mut Chance) -> Vec<Place> {
        let mut left: Vec<&Server> = self.servers.iter().collect();
        left.sort_by_key(|server| server.rank);
        let mut places = Vec::new();
        while let Some(first) = left.first() {
            let of_rank = left.iter().take_while(|server| server.rank == first.rank).count();
            let drawn = draw(left.iter().take(of_rank).map(|server| server.weight), chance);
            let server = left.remove(drawn);
            let protocol = server.protocol;
            places.extend(server.addresses.iter().map(|&remote| Place { protocol, remote }));
        }
        places.truncate(limits::LOCATED_PLACES_MAX);
        places
    }
}

/// Which of these is taken. A weight of 0 has a small chance beside others (RFC 2782, "Usage rules"), here as
/// if weights were multiplied by 100 and those of 0 were 1.
fn draw(weights: impl Iterator<Item = u16> + Clone, chance: &mut Chance) -> usize {
    let scaled = |weight: u16| (u64::from(weight) * 100).max(1);
    let mut point = chance.below(weights.clone().map(scaled).sum());
    for (at, weight) in weights.enumerate() {
        match point.checked_sub(scaled(weight)) {
            Some(rest) => point = rest,
            None => return at,
        }
    }
    0
}

/// Finds the servers of a host (RFC 3263 sections 4.1 and 4.2).
///
/// Errors: [`LocateError`]. Asks at most about 50 questions, those that can be asked together one after the
/// other: the bound is of the records that are followed, `limits::LOCATED_SERVERS_MAX`.
pub async fn locate(dns: &impl Dns, sought: &Sought) -> Result<Located, LocateError> {
    let mut search = Search { dns, lifetime: limits::DNS_LIFETIME_MAX, servers: Vec::new() };
    match search.run(sought).await {
        Ok(()) if search.servers.is_empty() => {
            let lifetime = search.lifetime.clamp(limits::DNS_LIFETIME_MIN, limits::DNS_NOTHING_LIFETIME_MAX);
            Err(LocateError::Nothing { host: Arc::clone(&sought.host), lifetime })
        }
        Ok(()) => {
            let lifetime = search.lifetime.max(limits::DNS_LIFETIME_MIN);
            Ok(Located { servers: search.servers, lifetime })
        }
        Err(source) => Err(LocateError::Unknown { host: Arc::clone(&sought.host), source }),
    }
}

struct Search<'a, D> {
    dns: &'a D,
    lifetime: Duration,
    servers: Vec<Server>,
}

impl<D: Dns> Search<'_, D> {
    async fn run(&mut self, sought: &Sought) -> Result<(), DnsError> {
        let plain = sought.protocol.unwrap_or(Protocol::Udp);
        let protocol = if sought.is_sips { Protocol::Tls } else { plain };
        if let Some(port) = sought.port {
            return self.addresses(&sought.host, protocol, port, (0, 0), 0).await;
        }
        if sought.protocol.is_some() {
            self.services(&sought.host, protocol, 0).await?;
        } else {
            self.by_naptr(sought).await?;
            if self.servers.is_empty() {
                for (preference, &candidate) in (0_u16..).zip(supported(sought.is_sips)) {
                    self.services(&sought.host, candidate, preference).await?;
                }
            }
        }
        if self.servers.is_empty() {
            self.addresses(&sought.host, protocol, protocol.default_port(), (0, 0), 0).await?;
        }
        Ok(())
    }

    /// RFC 3263 section 4.1: the transports that the zone prefers, each with the name of its SRV records.
    async fn by_naptr(&mut self, sought: &Sought) -> Result<(), DnsError> {
        let answer = self.dns.naptr(&sought.host).await?;
        self.believe(&answer);
        let mut usable: Vec<_> = answer
            .records
            .into_iter()
            .filter_map(|record| Some((service_protocol(&record)?, record)))
            .filter(|(protocol, _)| supported(sought.is_sips).contains(protocol))
            .collect();
        usable.sort_by_key(|(_, record)| (record.order, record.preference));
        for (preference, (protocol, record)) in (0_u16..).zip(usable).take(limits::LOCATED_SERVERS_MAX) {
            self.srv(&record.replacement, protocol, preference).await?;
        }
        Ok(())
    }

    async fn services(&mut self, host: &str, protocol: Protocol, preference: u16) -> Result<(), DnsError> {
        let name = match protocol {
            Protocol::Udp => format!("_sip._udp.{host}"),
            Protocol::Tcp => format!("_sip._tcp.{host}"),
            Protocol::Tls => format!("_sips._tcp.{host}"),
            Protocol::Ws | Protocol::Wss => return Ok(()),
        };
        self.srv(&name, protocol, preference).await
    }

    async fn srv(&mut self, name: &str, protocol: Protocol, preference: u16) -> Result<(), DnsError> {
        let answer = self.dns.srv(name).await?;
        self.believe(&answer);
        let mut records = answer.records;
        records.sort_by_key(|record| record.priority);
        for record in records {
            // "." says that the service is decidedly not available.
            if self.servers.len() >= limits::LOCATED_SERVERS_MAX || record.target.is_empty() {
                continue;
            }
            let rank = (preference, record.priority);
            self.addresses(&record.target, protocol, record.port, rank, record.weight).await?;
        }
        Ok(())
    }

    async fn addresses(
        &mut self,
        host: &str,
        protocol: Protocol,
        port: u16,
        rank: (u16, u16),
        weight: u16,
    ) -> Result<(), DnsError> {
        let answer = self.dns.addresses(host).await?;
        self.believe(&answer);
        let usable = answer.records.into_iter().filter(|address| is_usable(*address));
        let addresses: Vec<_> = usable
            .take(limits::LOCATED_PLACES_MAX)
            .map(|address: IpAddr| SocketAddr::new(address, port))
            .collect();
        if !addresses.is_empty() && !matches!(protocol, Protocol::Ws | Protocol::Wss) {
            self.servers.push(Server { rank, weight, protocol, addresses });
        }
        Ok(())
    }

    fn believe<T>(&mut self, answer: &Answer<T>) {
        self.lifetime = self.lifetime.min(answer.lifetime);
    }
}

/// Transports that we speak towards servers, in our own order.
const fn supported(is_sips: bool) -> &'static [Protocol] {
    if is_sips { &[Protocol::Tls] } else { &[Protocol::Udp, Protocol::Tcp, Protocol::Tls] }
}

/// The transport of a NAPTR record whose replacement has SRV records. Source: RFC 3263 section 4.1.
fn service_protocol(record: &Naptr) -> Option<Protocol> {
    if !record.flags.eq_ignore_ascii_case("s") {
        return None;
    }
    let is = |service: &str| record.services.eq_ignore_ascii_case(service);
    if is("SIP+D2U") {
        Some(Protocol::Udp)
    } else if is("SIP+D2T") {
        Some(Protocol::Tcp)
    } else if is("SIPS+D2T") {
        Some(Protocol::Tls)
    } else {
        None
    }
}

/// Whether an address is one that a server can have.
fn is_usable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && address != IpAddr::V4([255; 4].into())
}

#[cfg(test)]
mod tests;
