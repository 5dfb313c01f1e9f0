//! Looks up hosts for the shards, which go on meanwhile (RFC 3263).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use model::limits;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tracing::warn;
use transport::location::{DnsError, LocateError, Located, Sought, SystemDns, locate};

use crate::shard::mail::{Mail, Mailer};

/// What became of looking for a host.
pub type Found = Result<Located, LocateError>;

/// A host that a shard asks for, and the shard.
struct Ask {
    sought: Sought,
    mailer: Mailer,
}

/// Where shards ask for hosts. Clones share it.
#[derive(Clone)]
pub struct Locator(mpsc::Sender<Ask>);

impl Locator {
    /// Asks the name servers `servers`, or those of the system, as long as shards ask; all questions about
    /// one host take `limit` at most. Call it inside the runtime that is to do the work.
    pub fn start(servers: &[SocketAddr], limit: Duration) -> Self {
        let (asks, asked) = mpsc::channel(limits::HOSTS_WAITING_MAX);
        let dns = SystemDns::new(servers, limit);
        if let Err(error) = &dns {
            warn!(%error, "no name server is known: hosts are not looked up; name some in dns_servers");
        }
        tokio::spawn(answer(asked, dns, limit));
        Self(asks)
    }

    /// Asks for a host; the answer comes as [`Mail::Located`]. `false` when too many wait.
    pub fn ask(&self, sought: Sought, mailer: Mailer) -> bool {
        self.0.try_send(Ask { sought, mailer }).is_ok()
    }
}

async fn answer(mut asked: mpsc::Receiver<Ask>, dns: Result<SystemDns, DnsError>, limit: Duration) {
    let room = Arc::new(Semaphore::new(limits::HOSTS_LOOKED_UP_MAX));
    while let Some(Ask { sought, mailer }) = asked.recv().await {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let dns = dns.clone();
        tokio::spawn(async move {
            let found = look(&dns, &sought, limit).await;
            mailer.post(Mail::Located(Box::new((sought, found))));
            drop(place);
        });
    }
}

async fn look(dns: &Result<SystemDns, DnsError>, sought: &Sought, limit: Duration) -> Found {
    let unknown = |source| LocateError::Unknown { host: Arc::clone(&sought.host), source };
    let dns = dns.as_ref().map_err(|error| unknown(error.clone()))?;
    timeout(limit, locate(dns, sought)).await.unwrap_or_else(|_| Err(unknown(DnsError::TimedOut)))
}
