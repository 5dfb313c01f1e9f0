//! Waiting until somebody else may own some home pool's users.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

use crate::Shared;

/// Leases, and what other servers said, lapse by time alone: nothing tells of that.
const LAPSE_WITHIN: Duration = Duration::from_secs(1);

/// News of owners, from this server's own ownership machines and from other servers, and of the topology.
/// What changes after it was made is not missed.
#[derive(Debug)]
pub struct OwnerNews {
    here: watch::Receiver<u64>,
    topology: watch::Receiver<u64>,
    elsewhere: watch::Receiver<u64>,
}

impl OwnerNews {
    /// News from now on.
    pub fn of(shared: &Shared) -> Self {
        Self {
            here: shared.authority.changes(),
            elsewhere: shared.links.changes(),
            topology: shared.topology.changes(),
        }
    }

    /// Returns when there is news, or after a second: look again.
    pub async fn next(&mut self) {
        let news = async {
            tokio::select! {
                changed = self.here.changed() => changed,
                changed = self.elsewhere.changed() => changed,
                changed = self.topology.changed() => changed,
            }
        };
        let _look_again_anyhow = timeout(LAPSE_WITHIN, news).await;
    }
}
