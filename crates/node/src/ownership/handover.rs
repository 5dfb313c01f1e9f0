//! Giving everything to the other pool of a pair: how close it is, and the last of it after serving has
//! ended.

use std::{sync::Arc, time::Duration};

use model::{Epoch, Instant, PoolName, ServerName};
use store::{Scope, SqliteUserStore, UserStore};
use tokio::time::timeout;

use crate::{BindingStreams, Gates, StreamLag, StreamState, backup_service::CopyLedger};

/// Changes that the other pool may lack and still count as close: one page.
const ENTRIES_CLOSE: u64 = 500;
/// Users with changed bindings that the other pool may lack and still count as close.
const USERS_CLOSE: u64 = 2_000;
/// Age of the oldest change that a reader may lack and still count as close: a reader that asks is younger.
const AGE_CLOSE: Duration = Duration::from_secs(2);
/// Age of the last question of a reader that is there: it asks every ten seconds when there is no news.
const HEARD_WITHIN: Duration = Duration::from_secs(15);
/// How long the store of user data may take to note an epoch.
const FENCE_WITHIN: Duration = Duration::from_secs(1);

/// What a handover of one home pool works on; cheap to clone.
#[derive(Clone)]
pub struct Handover {
    /// The home pool.
    pub home: PoolName,
    /// The other pool of the pair.
    pub other: PoolName,
    /// Its server.
    pub reader: ServerName,
    /// User data.
    pub users: Arc<SqliteUserStore>,
    /// Who holds what of it.
    pub copies: Arc<CopyLedger>,
    /// Bindings.
    pub streams: Arc<BindingStreams>,
    /// Who is writing user data.
    pub gates: Arc<Gates>,
}

/// Whether the reader follows every one of these streams and lacks little.
fn are_close(bindings: &[StreamLag]) -> bool {
    bindings.iter().all(|lag| {
        let is_followed = matches!(lag.state, StreamState::Steady | StreamState::Behind);
        is_followed && lag.users <= USERS_CLOSE
    })
}

impl Handover {
    /// Whether the other pool holds so much that the rest is sent within a moment.
    pub fn is_close(&self, now: Instant) -> bool {
        let documents = self.copies.lag_of(&self.home, &self.reader, now);
        let are_documents =
            documents.is_some_and(|(entries, age)| entries <= ENTRIES_CLOSE && age <= AGE_CLOSE);
        let bindings = self.streams.lags_of_reader(&self.home, &self.other);
        are_documents && are_close(&bindings)
    }

    /// Whether the other pool asked for user data a moment ago: it is there and could take the users over.
    pub fn is_heard(&self, now: Instant) -> bool {
        self.copies.silence_of(&self.home, &self.reader, now).is_some_and(|silence| silence < HEARD_WITHIN)
    }

    /// Waits, after serving has ended, until the other pool durably holds everything that was acknowledged
    /// here.
    ///
    /// Errors: what is missing, when it does not within `within`.
    pub async fn finish(&self, within: Duration) -> Result<(), &'static str> {
        let documents = async {
            // Whoever writes now asked while this pool served; nobody begins to write any more.
            let _nobody_writes = self.gates.of(&self.home).write_owned().await;
            let (users, home) = (Arc::clone(&self.users), self.home.clone());
            let end = tokio::task::spawn_blocking(move || users.cursor(&home, &Scope::Everything)).await;
            let end = end.ok().and_then(Result::ok).ok_or("the journal's end cannot be read")?;
            self.copies.confirmed(&self.home, &self.reader, end.sequence).await;
            Ok(())
        };
        let documents = async {
            timeout(within, documents).await.map_err(|_| "the last documents were not confirmed in time")?
        };
        let bindings = async {
            let sent = self.streams.final_bindings(&self.home, &self.other, within).await;
            sent.map_err(|_| "the last bindings were not confirmed in time")
        };
        tokio::try_join!(documents, bindings)?;
        self.copies.finished(&self.home, &self.reader);
        Ok(())
    }

    /// Makes `epoch` the lowest under which user data of the home pool is written here.
    ///
    /// Errors: why the store did not.
    pub async fn fence(&self, epoch: Epoch) -> Result<(), String> {
        let (users, home) = (Arc::clone(&self.users), self.home.clone());
        let fenced = tokio::task::spawn_blocking(move || users.fence(&home, epoch));
        match timeout(FENCE_WITHIN, fenced).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("the store's thread ended".to_owned()),
            Err(_) => Err("the disk is too slow".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamPart;

    #[test]
    fn a_reader_that_does_not_follow_the_bindings_of_a_branch_yet_is_not_close() {
        let lag = |home: &str, state, users| StreamLag {
            home: PoolName::new(home).unwrap(),
            part: StreamPart::Source,
            other: PoolName::new("east").unwrap(),
            state,
            users,
            seconds: 0.0,
        };
        let own = lag("east", StreamState::Steady, 0);

        assert!(are_close(&[own.clone(), lag("branch1", StreamState::Behind, 7)]));
        assert!(!are_close(&[own.clone(), lag("branch1", StreamState::Initialising, 7)]));
        assert!(!are_close(&[own.clone(), lag("branch1", StreamState::Idle, 0)]));
        assert!(!are_close(&[own, lag("branch1", StreamState::Behind, USERS_CLOSE + 1)]));
    }
}
