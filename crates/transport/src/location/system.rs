//! The DNS of the system, or of name servers given by address, through hickory.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::{DnsError as NetDnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};

use super::dns::{Answer, Dns, DnsError, Naptr, Srv};

/// How long it is believed that a name has no such records, where the zone does not say.
const NOTHING_FOR: Duration = Duration::from_secs(30);
/// Tries of one question.
const TRIES: u32 = 2;

/// Asks name servers. Clones share connections.
#[derive(Clone)]
pub struct SystemDns {
    resolver: TokioResolver,
}

impl SystemDns {
    /// Asks `servers`, or those that the system names (`/etc/resolv.conf`) when there are none; one question
    /// takes `limit` at most. Call it inside the runtime that is to do the work.
    ///
    /// Errors: [`DnsError`] when the system names none that can be read.
    pub fn new(servers: &[SocketAddr], limit: Duration) -> Result<Self, DnsError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| failed(&error))?
        } else {
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = limit / TRIES;
        options.attempts = 1;
        // What is found is kept by who asks.
        options.cache_size = 0;
        let resolver = builder.build().map_err(|error| failed(&error))?;
        Ok(Self { resolver })
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        // The final full stop: no search domains.
        let absolute =
            Name::from_ascii(format!("{name}.")).map_err(|error| DnsError::Failed(error.to_string()))?;
        match self.resolver.lookup(absolute, kind).await {
            Ok(found) => Ok(Answer { records: records(&found, read), lifetime: lifetime(&found) }),
            Err(NetError::Dns(NetDnsError::NoRecordsFound(nothing))) => {
                let lifetime = nothing.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
                Ok(Answer { records: Vec::new(), lifetime: lifetime.unwrap_or(NOTHING_FOR) })
            }
            Err(NetError::Timeout) => Err(DnsError::TimedOut),
            Err(error) => Err(failed(&error)),
        }
    }
}

impl Dns for SystemDns {
    async fn naptr(&self, name: &str) -> Result<Answer<Naptr>, DnsError> {
        let read = |data: &RData| {
            let RData::NAPTR(record) = data else { return None };
            Some(Naptr {
                order: record.order,
                preference: record.preference,
                flags: text(&record.flags),
                services: text(&record.services),
                replacement: host(&record.replacement),
            })
        };
        self.ask(name, RecordType::NAPTR, read).await
    }

    async fn srv(&self, name: &str) -> Result<Answer<Srv>, DnsError> {
        let read = |data: &RData| {
            let RData::SRV(record) = data else { return None };
            Some(Srv {
                priority: record.priority,
                weight: record.weight,
                port: record.port,
                target: host(&record.target),
            })
        };
        self.ask(name, RecordType::SRV, read).await
    }

    /// IPv6 before IPv4. One of the two questions may fail.
    async fn addresses(&self, name: &str) -> Result<Answer<IpAddr>, DnsError> {
        let v6 = self.ask(name, RecordType::AAAA, |data| {
            if let RData::AAAA(address) = data { Some(IpAddr::V6(address.0)) } else { None }
        });
        let v4 = self.ask(name, RecordType::A, |data| {
            if let RData::A(address) = data { Some(IpAddr::V4(address.0)) } else { None }
        });
        match both(v6, v4).await {
            (Ok(mut six), Ok(four)) => {
                // That there is none of one family says nothing of how long the other is there.
                let lifetime = match (six.records.is_empty(), four.records.is_empty()) {
                    (true, false) => four.lifetime,
                    (false, true) => six.lifetime,
                    (true, true) | (false, false) => six.lifetime.min(four.lifetime),
                };
                six.records.extend(four.records);
                Ok(Answer { records: six.records, lifetime })
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.records.is_empty() => Ok(one),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

async fn both<A: Future, B: Future>(one: A, other: B) -> (A::Output, B::Output) {
    tokio::join!(one, other)
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn records<T>(found: &Lookup, read: impl Fn(&RData) -> Option<T>) -> Vec<T> {
    found.answers().iter().filter_map(|record| read(&record.data)).collect()
}

fn lifetime(found: &Lookup) -> Duration {
    let seconds = found.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(seconds.unwrap_or(0).into())
}

/// A name in lower case without its final full stop; empty for the root.
fn host(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn failed(error: &NetError) -> DnsError {
    DnsError::Failed(error.to_string())
}
