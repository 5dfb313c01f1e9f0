//! What the search for servers asks of the DNS.

use std::{future::Future, net::IpAddr, time::Duration};

/// Asks the DNS. A name without such records is an empty answer, not an error.
pub trait Dns {
    /// The NAPTR records of a name. Source: RFC 3263 section 4.1.
    ///
    /// Errors: [`DnsError`].
    fn naptr(&self, name: &str) -> impl Future<Output = Result<Answer<Naptr>, DnsError>> + Send;

    /// The SRV records of a name. Source: RFC 2782.
    ///
    /// Errors: [`DnsError`].
    fn srv(&self, name: &str) -> impl Future<Output = Result<Answer<Srv>, DnsError>> + Send;

    /// The addresses of a name, those that are to be tried first before the others.
    ///
    /// Errors: [`DnsError`].
    fn addresses(&self, name: &str) -> impl Future<Output = Result<Answer<IpAddr>, DnsError>> + Send;
}

/// The records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The records; empty when there are none.
    pub records: Vec<T>,
    /// How long that may be believed: the shortest time to live of the records.
    pub lifetime: Duration,
}

/// A NAPTR record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    /// Lower is to be used first, and higher ones only without it.
    pub order: u16,
    /// Lower is better among those of one order.
    pub preference: u16,
    /// `s` when the replacement has SRV records.
    pub flags: String,
    /// Like `SIP+D2U`.
    pub services: String,
    /// The name to ask for next, in lower case, without a final full stop.
    pub replacement: String,
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower is tried first.
    pub priority: u16,
    /// Share of the load among those of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// Name of the server, in lower case, without a final full stop; empty: there is decidedly none.
    pub target: String,
}

/// Why the DNS gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// No name server answered in time.
    #[error("no name server answered in time")]
    TimedOut,
    /// They answered with an error, or with something that cannot be used.
    #[error("{0}")]
    Failed(String),
}
