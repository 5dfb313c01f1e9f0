//! What a shard notes of calls, for their records: as little as possible, since every call passes here.

use std::sync::Arc;

use hashbrown::HashMap;
use model::{AddressOfRecord, ServerTransaction, WallTime};
use proxy::Reject;
use sip::{HeaderId, Message, Method, OwnedMessage, Uri};
use topology::CallRecords;

use super::{Shard, Turn, location::Located, sending_on::is_new_call};
use crate::{
    call_records::{AnsweredCall, CallEvent},
    clock,
    shared::Place,
};

/// What the Reason of a CANCEL says when somebody else answered. Source: RFC 3326 section 2.
const ELSEWHERE: &[u8] = b"cause=200";

/// The calls of one shard that wait for their final answer.
#[derive(Debug)]
pub struct CallsBegun {
    kept: CallRecords,
    calls: HashMap<ServerTransaction, Begun>,
}

#[derive(Debug)]
struct Begun {
    request: Arc<OwnedMessage>,
    caller: Option<AddressOfRecord>,
    called: Option<AddressOfRecord>,
    began_at: WallTime,
    is_sent_on: bool,
    is_answered_elsewhere: bool,
}

impl CallsBegun {
    /// No call is known; these records are made of those to come.
    pub fn new(kept: CallRecords) -> Self {
        Self { kept, calls: HashMap::new() }
    }

    /// The call of this server transaction goes where the called user sends it.
    pub(super) fn sent_on(&mut self, server: ServerTransaction) {
        if let Some(begun) = self.calls.get_mut(&server) {
            begun.is_sent_on = true;
        }
    }

    /// The caller, or a proxy on its behalf, took the call back.
    pub(super) fn cancelled(&mut self, server: ServerTransaction, cancel: Message<'_>) {
        if let Some(begun) = self.calls.get_mut(&server) {
            let says = |value: &[u8]| value.windows(ELSEWHERE.len()).any(|part| part == ELSEWHERE);
            begun.is_answered_elsewhere = cancel.values(HeaderId::Reason).any(says);
        }
    }

    /// Nothing will be answered any more.
    pub(super) fn forget(&mut self, server: ServerTransaction) {
        if !self.calls.is_empty() {
            self.calls.remove(&server);
        }
    }
}

impl Shard {
    /// A request that was let in: a new call of a user who proved it, or to one who is served here, is noted
    /// until its answer, a BYE at once. `located` says where it goes, if anywhere.
    pub(super) fn note_call(
        &mut self,
        turn: &Turn<'_>,
        server: ServerTransaction,
        request: &Arc<OwnedMessage>,
        caller: Option<AddressOfRecord>,
        located: Result<&Located, &Reject>,
    ) {
        let view = request.view();
        if self.calls.kept == CallRecords::Off {
            return;
        }
        if view.method() == Method::Bye && self.calls.kept == CallRecords::All {
            let event = CallEvent::Ended { request: Arc::clone(request), at: clock::wall_time() };
            return self.shared.calls.note(event, &self.shared.counters);
        }
        if !is_new_call(view) {
            return;
        }
        let called = match located {
            Ok(located) => located.called.clone(),
            // The called user has nothing to do with what the caller may not do.
            Err(Reject::CallNotAllowed) => None,
            Err(_) => self.called_here(turn, view),
        };
        let is_missed_only = self.calls.kept == CallRecords::Missed;
        let caller = caller.filter(|_| !is_missed_only);
        if caller.is_some() || called.is_some() {
            let begun = Begun {
                request: Arc::clone(request),
                caller,
                called,
                began_at: clock::wall_time(),
                is_sent_on: located.is_ok_and(|located| located.is_sent_on),
                is_answered_elsewhere: false,
            };
            self.calls.calls.insert(server, begun);
        }
    }

    /// The user of ours whom a call names that goes nowhere, when his calls are dealt with here.
    fn called_here(&self, turn: &Turn<'_>, request: Message<'_>) -> Option<AddressOfRecord> {
        let aor = self.own_user(&Uri::parse(request.request_uri()).ok()?)?;
        let user = self.shared.directory.user(&aor)?;
        matches!(self.place_of(turn, user.home), Place::Here(_) | Place::ByCopy).then_some(aor)
    }

    /// A final answer leaves in this server transaction.
    pub(super) fn call_answered(&mut self, server: ServerTransaction, status: u16) {
        if self.calls.calls.is_empty() || status < 200 {
            return;
        }
        let Some(begun) = self.calls.calls.remove(&server) else { return };
        let Begun { request, caller, called, began_at, is_sent_on, is_answered_elsewhere } = begun;
        let at = clock::wall_time();
        let event = CallEvent::Answered(AnsweredCall {
            request,
            caller,
            called,
            began_at,
            at,
            status,
            is_sent_on,
            is_answered_elsewhere,
        });
        self.shared.calls.note(event, &self.shared.counters);
    }
}
