//! Requests that were forwarded to the owner and have no answer yet: should it not be the owner any more,
//! they are dealt with here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use hashbrown::HashMap;
use model::{Instant, Peer, ServerName, ServerTransaction};
use sip::OwnedMessage;

use super::Origin;

/// How long the owner may take, less than the patience of a phone: an owner that hangs is not told from a
/// dead one.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Requests that were forwarded, and REGISTERs by age.
#[derive(Debug, Default)]
pub struct PassedOn {
    requests: HashMap<ServerTransaction, Passed>,
    due: VecDeque<(Instant, ServerTransaction)>,
}

/// One that was forwarded.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The request as it came.
    pub request: Arc<OwnedMessage>,
    /// From whom.
    pub from: Peer,
    /// Whether it came from a phone or a server.
    pub(super) origin: Origin,
    /// To whom it was forwarded.
    pub towards: ServerName,
    /// Whether it was forwarded before, and waited: what it is answered now counts.
    pub is_last: bool,
}

impl PassedOn {
    /// Remembers a REGISTER that is forwarded at `now`.
    pub fn insert(&mut self, now: Instant, server: ServerTransaction, passed: Passed) {
        self.requests.insert(server, passed);
        self.due.push_back((now + ANSWER_WITHIN, server));
    }

    /// Remembers another request, whose answer may take its time.
    pub fn insert_patiently(&mut self, server: ServerTransaction, passed: Passed) {
        self.requests.insert(server, passed);
    }

    /// Forgets one that is answered, and returns it.
    pub fn remove(&mut self, server: ServerTransaction) -> Option<Passed> {
        self.requests.remove(&server)
    }

    /// The next one whose time is over at `now`.
    pub fn overdue(&mut self, now: Instant) -> Option<(ServerTransaction, Passed)> {
        while self.due.front().is_some_and(|(due, _)| *due <= now) {
            let (_, server) = self.due.pop_front()?;
            if let Some(passed) = self.requests.remove(&server) {
                return Some((server, passed));
            }
        }
        None
    }

    /// When [`Self::overdue`] may have one.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.front().map(|(due, _)| *due)
    }
}
