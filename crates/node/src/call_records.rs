//! Call records: what happened to users' calls, on its way into their call logs.
//!
//! ```text
//! shard ──final answer, BYE──▶ CallRecorder (bounded) ──every 200 ms──▶ writer ──▶ user store, at the owner
//!                                                                         │
//!                                                        anywhere else    ▼
//!                                                                       spool ──▶ owner, when there is one
//! ```
//!
//! A shard only notes what happened and keeps the request; the writer does the rest. Only the owner of user
//! data may write a call log. So a server that is not the owner (the partner in resiliency mode,
//! a branch appliance, the pool of a phone whose user is homed elsewhere) keeps the records in files until
//! the owner has said that they are on its disk. A record may be delivered twice; it is kept once, since a
//! record that tells nothing new changes nothing.

mod calls;
mod lasting;
mod spool;
mod writer;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use model::{AddressOfRecord, PoolName, WallTime, documents::CallRecord, limits};
use serde::{Deserialize, Serialize};
use sip::OwnedMessage;
use store::OperationId;
use tokio::sync::Notify;

use crate::{Counters, HomeIndex};

pub use calls::Calls;
pub use lasting::LastingCalls;
pub use spool::{Spool, SpoolError};
pub use writer::{start, write_here};

/// Something that happened to a call, as a shard saw it.
#[derive(Clone, Debug)]
pub enum CallEvent {
    /// A call of a user of ours, or to one, has its final answer.
    Answered(AnsweredCall),
    /// A BYE went through.
    Ended {
        /// The BYE.
        request: Arc<OwnedMessage>,
        /// When.
        at: WallTime,
    },
}

/// A call with its final answer.
#[derive(Clone, Debug)]
pub struct AnsweredCall {
    /// The INVITE.
    pub request: Arc<OwnedMessage>,
    /// Who called, where it is a user who proved it here.
    pub caller: Option<AddressOfRecord>,
    /// Who was called, where it is a user whom this server serves.
    pub called: Option<AddressOfRecord>,
    /// When the INVITE came.
    pub began_at: WallTime,
    /// When the answer left.
    pub at: WallTime,
    /// Status of the answer.
    pub status: u16,
    /// Whether it was answered where the called user sent the call.
    pub is_sent_on: bool,
    /// Whether the call was taken back because somebody else answered it.
    pub is_answered_elsewhere: bool,
}

/// A record that belongs into the call log of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwedRecord {
    /// Whose.
    pub aor: AddressOfRecord,
    /// Names user, call and step, 32 hexadecimal digits: the same wherever it is made.
    pub operation: String,
    /// What is known.
    pub record: CallRecord,
}

impl OwedRecord {
    /// The operation that writes it; `None` when its name is not 32 hexadecimal digits.
    pub fn operation(&self) -> Option<OperationId> {
        let number = u128::from_str_radix(&self.operation, 16).ok()?;
        (self.operation.len() == 32).then(|| OperationId::new(number))
    }
}

/// Records for the users in one journal; body of `POST /v1/call_records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwedRecords {
    /// Pool in whose journal the users' data live.
    pub journal: PoolName,
    /// The records, at most `limits::ACCOUNTS_PER_PAGE_MAX`.
    pub records: Vec<OwedRecord>,
}

/// Takes what shards saw of calls, until the writer fetches it.
#[derive(Debug, Default)]
pub struct CallRecorder {
    waiting: Mutex<VecDeque<CallEvent>>,
    lasting: Mutex<LastingCalls>,
    news: Notify,
}

impl CallRecorder {
    /// Notes an event. When too many wait it is not kept but counted: those before it are nearer to the disk.
    pub fn note(&self, event: CallEvent, counters: &Counters) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= limits::CALL_EVENTS_WAITING_MAX {
            return counters.call_records_lost.add();
        }
        let is_first = waiting.is_empty();
        waiting.push_back(event);
        drop(waiting);
        if is_first {
            self.news.notify_one();
        }
    }

    /// The oldest events, at most `max`.
    pub fn take(&self, max: usize) -> Vec<CallEvent> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(max);
        waiting.drain(..count).collect()
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts the calls that began and ended by these events.
    pub fn count(&self, events: &[CallEvent], home_of: impl Fn(&AddressOfRecord) -> Option<HomeIndex>) {
        let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().for_each(|event| lasting.note(event, &home_of));
    }

    /// Answered calls of users of this home pool that were not seen to end: see [`LastingCalls`].
    pub fn lasting(&self, home: HomeIndex) -> u64 {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner).of(home)
    }

    /// Done when there may be something to take.
    pub async fn wait(&self) {
        if self.is_empty() {
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_recorder_counts_what_it_does_not_keep() {
        let (recorder, counters) = (CallRecorder::default(), Counters::default());
        let text = "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>;tag=1\r\n\
                    To: <sip:b@b>;tag=2\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n\r\n";
        let request = OwnedMessage::parse(text.as_bytes().to_vec().into(), sip::Framing::Datagram).unwrap();
        let event = CallEvent::Ended { request: Arc::new(request), at: WallTime::from_secs(1) };

        for _ in 0..limits::CALL_EVENTS_WAITING_MAX + 3 {
            recorder.note(event.clone(), &counters);
        }

        assert_eq!(counters.call_records_lost.value(), 3);
        assert_eq!(recorder.take(10).len(), 10);
        assert_eq!(recorder.len(), limits::CALL_EVENTS_WAITING_MAX - 10);
    }
}
