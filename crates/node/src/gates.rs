//! Who is writing user data of which home pool: whoever ends the right to write waits for them.

use std::sync::Arc;

use hashbrown::HashMap;
use model::PoolName;
use tokio::sync::RwLock;

/// One gate for each home pool. A writer holds it for reading from testing the authority until its change is
/// durable and answered; the handover takes it for writing to know that no change is under way.
#[derive(Debug)]
pub struct Gates {
    homes: HashMap<PoolName, Arc<RwLock<()>>>,
    other: Arc<RwLock<()>>,
}

impl Gates {
    /// Gates of these home pools.
    pub fn of_homes<'a>(homes: impl Iterator<Item = &'a PoolName>) -> Self {
        Self { homes: homes.map(|home| (home.clone(), Arc::default())).collect(), other: Arc::default() }
    }

    /// The gate of a home pool; those that are not of the topology share one.
    pub fn of(&self, home: &PoolName) -> Arc<RwLock<()>> {
        Arc::clone(self.homes.get(home).unwrap_or(&self.other))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_handover_waits_for_writers_of_its_home_pool_only() {
        let [east, west] = ["east", "west"].map(|name| PoolName::new(name).unwrap());
        let gates = Gates::of_homes([&east, &west].into_iter());
        let one = gates.of(&east).read_owned().await;
        let two = gates.of(&east).read_owned().await;
        let _nobody_writes_at_west = gates.of(&west).write_owned().await;

        let mut handover = std::pin::pin!(gates.of(&east).write_owned());
        drop(one);
        assert!(timeout(Duration::ZERO, &mut handover).await.is_err(), "another one writes");
        drop(two);
        let nobody_writes = handover.await;

        let mut writer = std::pin::pin!(gates.of(&east).read_owned());
        assert!(timeout(Duration::ZERO, &mut writer).await.is_err(), "nobody begins to write any more");
        drop(nobody_writes);
        let _writes_again = writer.await;
    }
}
