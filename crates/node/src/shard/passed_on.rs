//! REGISTERs that were forwarded to the owner and have no answer yet.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use hashbrown::HashMap;
use model::{Instant, ServerTransaction};
use sip::OwnedMessage;

/// How long the owner may take, less than the patience of a phone: an owner that hangs is not told from a
/// dead one.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// REGISTERs that were forwarded, oldest first.
#[derive(Debug, Default)]
pub struct PassedOn {
    requests: HashMap<ServerTransaction, Arc<OwnedMessage>>,
    due: VecDeque<(Instant, ServerTransaction)>,
}

impl PassedOn {
    /// Remembers one that is forwarded at `now`.
    pub fn insert(&mut self, now: Instant, server: ServerTransaction, request: Arc<OwnedMessage>) {
        self.requests.insert(server, request);
        self.due.push_back((now + ANSWER_WITHIN, server));
    }

    /// Forgets one that is answered, and returns it.
    pub fn remove(&mut self, server: ServerTransaction) -> Option<Arc<OwnedMessage>> {
        self.requests.remove(&server)
    }

    /// The next one whose time is over at `now`.
    pub fn overdue(&mut self, now: Instant) -> Option<(ServerTransaction, Arc<OwnedMessage>)> {
        while self.due.front().is_some_and(|(due, _)| *due <= now) {
            let (_, server) = self.due.pop_front()?;
            if let Some(request) = self.requests.remove(&server) {
                return Some((server, request));
            }
        }
        None
    }

    /// When [`Self::overdue`] may have one.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.front().map(|(due, _)| *due)
    }
}
