//! Whether the back end of user services, the store of user data, can be written.
//!
//! Registrations and calls do without it. Its users go on with full service for a while, user data read-only,
//! and after a threshold are told that they are in resiliency mode. Source: product, section 4.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::Instant;
use pairing::UserServices;
use store::UserStore;
use tokio::time::sleep;
use tracing::{error, info};

use crate::{Shared, clock};

/// Time between two tries to write while the back end is lost.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// File that is written to see whether the disk has room.
const PROBE_FILE: &str = "probe";
/// Octets of it.
const PROBE_BYTES: usize = 256 * 1_024;

/// Since when the back end cannot be written, as all parts of a server see it.
#[derive(Debug)]
pub struct BackEnd {
    /// Microseconds since the process started, plus one; 0 = it can be written.
    lost_since: AtomicU64,
    lost_after: Duration,
}

impl BackEnd {
    /// A back end that works; users are told after `lost_after` without it.
    pub const fn new(lost_after: Duration) -> Self {
        Self { lost_since: AtomicU64::new(0), lost_after }
    }

    /// A write failed at `now`.
    pub fn failed(&self, now: Instant) {
        let since = now.as_micros().saturating_add(1);
        let before = self.lost_since.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed);
        if before.is_ok() {
            error!("user data cannot be written: they are read-only; registrations and calls go on");
        }
    }

    /// A write succeeded.
    pub fn worked(&self) {
        if self.lost_since.swap(0, Ordering::Relaxed) != 0 {
            info!("user data can be written again");
        }
    }

    /// Whether writes fail at present.
    pub fn is_failing(&self) -> bool {
        self.lost_since.load(Ordering::Relaxed) != 0
    }

    /// Whether users have user services at `now`: until the back end was lost for longer than the threshold.
    pub fn user_services(&self, now: Instant) -> UserServices {
        match self.lost_since.load(Ordering::Relaxed).checked_sub(1) {
            Some(since) if now.saturating_since(Instant::from_micros(since)) >= self.lost_after => {
                UserServices::Lost
            }
            Some(_) | None => UserServices::Available,
        }
    }
}

/// Tries to write while writes fail, until dropped: nobody else may try for a long time.
pub async fn watch(shared: Arc<Shared>) {
    loop {
        sleep(TRY_EVERY).await;
        if !shared.back_end.is_failing() {
            continue;
        }
        let (users, own) = (Arc::clone(&shared.users), shared.pool.clone());
        let probe = shared.data.join(PROBE_FILE);
        let tried = tokio::task::spawn_blocking(move || {
            let has_room = write_probe(&probe).is_ok();
            let fenced = users.highest_epoch(&own).is_ok_and(|epoch| users.fence(&own, epoch).is_ok());
            has_room && fenced
        });
        match tried.await {
            Ok(true) => shared.back_end.worked(),
            Ok(false) | Err(_) => shared.back_end.failed(clock::now()),
        }
    }
}

/// Writes as much as a few commits need, and takes it away again: a change as small as an epoch finds room in
/// the store's own file on a disk that has none.
fn write_probe(file: &Path) -> std::io::Result<()> {
    let written = File::create(file).and_then(|mut probe| {
        probe.write_all(&[0; PROBE_BYTES])?;
        probe.sync_all()
    });
    let removed = fs::remove_file(file);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn users_lose_their_services_only_after_the_threshold_and_get_them_back_at_once() {
        let back_end = BackEnd::new(Duration::from_secs(60));
        assert_eq!(back_end.user_services(at(0)), UserServices::Available);

        back_end.failed(at(0));
        back_end.failed(at(50));
        assert!(back_end.is_failing());
        assert_eq!(back_end.user_services(at(59)), UserServices::Available);
        assert_eq!(back_end.user_services(at(60)), UserServices::Lost);

        back_end.worked();
        assert_eq!(back_end.user_services(at(61)), UserServices::Available);
    }
}
