//! From what shards saw to records, and which answered calls have not ended.

use std::{collections::VecDeque, hash::Hasher};

use hashbrown::HashMap;
use model::{
    AddressOfRecord, WallTime,
    documents::{CallId, CallRecord, CallResult, Direction},
    limits,
};
use sip::Message;
use siphasher::{
    sip::SipHasher13,
    sip128::{Hasher128, SipHasher13 as SipHasher128},
};
use topology::CallRecords;

use super::{AnsweredCall, CallEvent, OwedRecord};

/// Keys of hashes that must be the same on every server.
const KEYS: (u64, u64) = (0x7461_6e64_656d_2063, 0x616c_6c73_2031_0000);

/// The answered calls of one server that have not ended, and which records are made.
#[derive(Debug)]
pub struct Calls {
    kept: CallRecords,
    awaited: HashMap<u64, Vec<(AddressOfRecord, CallRecord)>>,
    /// In the order in which they were answered; those that ended meanwhile too.
    order: VecDeque<u64>,
    max: usize,
}

/// What a record says of a call; part of the operation's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Answer = 1,
    End = 2,
}

impl Calls {
    /// No call is known; these records are made, and the ends of at most `max` calls awaited.
    pub fn new(kept: CallRecords, max: usize) -> Self {
        Self { kept, awaited: HashMap::new(), order: VecDeque::new(), max: max.max(1) }
    }

    /// The records that an event makes.
    pub fn owed(&mut self, event: &CallEvent) -> Vec<OwedRecord> {
        match event {
            CallEvent::Answered(call) => self.answered(call),
            CallEvent::Ended { request, at } => self.ended(request.view(), *at),
        }
    }

    fn answered(&mut self, call: &AnsweredCall) -> Vec<OwedRecord> {
        // A challenge: the same call comes again with credentials.
        if matches!(call.status, 401 | 407) {
            return Vec::new();
        }
        let request = call.request.view();
        let Some(number) = number(request, request.from()) else { return Vec::new() };
        let made = call.caller.iter().map(|caller| (caller, Direction::Made));
        let received = call.called.iter().map(|called| (called, Direction::Received));
        let parties: Vec<(AddressOfRecord, CallRecord)> = made
            .chain(received)
            .filter(|(_, direction)| !(call.is_answered_elsewhere && *direction == Direction::Received))
            .map(|(user, direction)| (user.clone(), record(call, number, direction)))
            .filter(|(_, record)| self.is_kept(record))
            .collect();
        let is_awaited = |(_, record): &&(AddressOfRecord, CallRecord)| record.answered_at.is_some();
        let awaited: Vec<_> = parties.iter().filter(is_awaited).cloned().collect();
        if !awaited.is_empty() {
            self.await_end(number, awaited);
        }
        parties.into_iter().map(|(user, record)| owed(user, record, Step::Answer)).collect()
    }

    fn ended(&mut self, bye: Message<'_>, at: WallTime) -> Vec<OwedRecord> {
        // Either party may end the call; the caller's tag names it.
        let numbers = [number(bye, bye.from()), number(bye, bye.to())];
        let found = numbers.into_iter().flatten().find_map(|number| self.awaited.remove(&number));
        let ended = |(user, record)| owed(user, CallRecord { ended_at: Some(at), ..record }, Step::End);
        found.into_iter().flatten().map(ended).collect()
    }

    fn is_kept(&self, record: &CallRecord) -> bool {
        match self.kept {
            CallRecords::All => true,
            CallRecords::Missed => record.direction == Direction::Received && record.answered_at.is_none(),
            CallRecords::Off => false,
        }
    }

    fn await_end(&mut self, number: u64, parties: Vec<(AddressOfRecord, CallRecord)>) {
        while self.order.len() >= self.max.saturating_mul(2) || self.awaited.len() >= self.max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.awaited.remove(&oldest);
        }
        self.awaited.entry(number).or_default().extend(parties);
        self.order.push_back(number);
    }
}

/// What a user's log says of a call with its final answer.
fn record(call: &AnsweredCall, number: u64, direction: Direction) -> CallRecord {
    let request = call.request.view();
    let result = result(call, direction);
    let other = match direction {
        Direction::Made => request.to(),
        Direction::Received => request.from(),
    };
    CallRecord {
        call: call_id(number, direction),
        direction,
        other: text(other.map(|address| address.uri_bytes).unwrap_or_default()),
        began_at: call.began_at,
        answered_at: (result == CallResult::Answered).then_some(call.at),
        ended_at: (result != CallResult::Answered).then_some(call.at),
        result,
    }
}

fn result(call: &AnsweredCall, direction: Direction) -> CallResult {
    let is_received = direction == Direction::Received;
    match call.status {
        200..=299 if is_received && call.is_sent_on => CallResult::Missed,
        200..=299 => CallResult::Answered,
        486 | 600 => CallResult::Busy,
        603 => CallResult::Declined,
        487 if is_received => CallResult::Missed,
        487 => CallResult::Cancelled,
        408 | 480 => CallResult::Missed,
        _ => CallResult::Failed,
    }
}

fn owed(user: AddressOfRecord, record: CallRecord, step: Step) -> OwedRecord {
    let mut hasher = SipHasher128::new_with_keys(KEYS.0, KEYS.1);
    hasher.write(user.as_str().as_bytes());
    hasher.write_u8(0xff);
    hasher.write_u64(record.call.0);
    hasher.write_u8(step as u8);
    let operation = format!("{:032x}", u128::from(hasher.finish128()));
    OwedRecord { aor: user, operation, record }
}

/// A number for the call, from its Call-ID and the tag of one party; `None` when either cannot be read.
pub(super) fn number(
    request: Message<'_>,
    party: Result<sip::NameAddr<'_>, sip::HeaderError>,
) -> Option<u64> {
    let mut hasher = SipHasher13::new_with_keys(KEYS.0, KEYS.1);
    let call_id = request.call_id().ok()?;
    hasher.write_usize(call_id.len());
    hasher.write(call_id);
    hasher.write(party.ok()?.tag()?);
    Some(hasher.finish())
}

fn call_id(number: u64, direction: Direction) -> CallId {
    match direction {
        Direction::Made => CallId(number),
        Direction::Received => CallId(!number),
    }
}

/// At most `limits::DESTINATION_BYTES_MAX` octets of a URI.
fn text(uri: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(uri).into_owned();
    while text.len() > limits::DESTINATION_BYTES_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sip::{Framing, OwnedMessage};

    use super::*;

    fn message(method: &str, from: &str, to: &str) -> Arc<OwnedMessage> {
        let text = format!(
            "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: {from}\r\nTo: {to}\r\n\
             Call-ID: c1\r\nCSeq: 1 {method}\r\n\r\n"
        );
        Arc::new(OwnedMessage::parse(text.into_bytes().into(), Framing::Datagram).unwrap())
    }

    fn call(status: u16) -> AnsweredCall {
        AnsweredCall {
            request: message("INVITE", "Al <sip:al@example.com>;tag=a", "<sip:bob@example.com>"),
            caller: AddressOfRecord::new("sip:al@example.com").ok(),
            called: AddressOfRecord::new("sip:bob@example.com").ok(),
            began_at: WallTime::from_secs(100),
            at: WallTime::from_secs(105),
            status,
            is_sent_on: false,
            is_answered_elsewhere: false,
        }
    }

    fn results(owed: &[OwedRecord]) -> Vec<(Direction, CallResult)> {
        owed.iter().map(|owed| (owed.record.direction, owed.record.result)).collect()
    }

    fn all() -> Calls {
        Calls::new(CallRecords::All, 100)
    }

    #[test]
    fn an_answer_means_this_to_caller_and_called() {
        use CallResult::{Answered, Busy, Cancelled, Declined, Failed, Missed};
        let table = [
            (200, Answered, Answered),
            (486, Busy, Busy),
            (600, Busy, Busy),
            (603, Declined, Declined),
            (487, Cancelled, Missed),
            (480, Missed, Missed),
            (408, Missed, Missed),
            (404, Failed, Failed),
            (503, Failed, Failed),
        ];
        for (status, made, received) in table {
            let owed = all().owed(&CallEvent::Answered(call(status)));
            assert_eq!(
                results(&owed),
                [(Direction::Made, made), (Direction::Received, received)],
                "{status}"
            );
        }
    }

    #[test]
    fn either_party_ends_a_call_and_it_ends_once() {
        let parties = ["<sip:al@example.com>;tag=a", "<sip:bob@example.com>;tag=b"];
        for (from, to) in [(parties[0], parties[1]), (parties[1], parties[0])] {
            let mut calls = all();
            let began = calls.owed(&CallEvent::Answered(call(200)));
            let bye = CallEvent::Ended { request: message("BYE", from, to), at: WallTime::from_secs(200) };

            let ended = calls.owed(&bye);

            assert_eq!(ended.len(), 2);
            for (began, ended) in began.iter().zip(&ended) {
                assert_eq!(ended.record.call, began.record.call);
                assert_ne!(ended.operation, began.operation);
                assert_eq!(ended.record.answered_at, Some(WallTime::from_secs(105)));
                assert_eq!(ended.record.ended_at, Some(WallTime::from_secs(200)));
            }
            assert_eq!(calls.owed(&bye), []);
        }
    }

    #[test]
    fn the_same_event_has_the_same_operations_wherever_it_is_seen() {
        let owed = all().owed(&CallEvent::Answered(call(200)));

        assert_eq!(owed, all().owed(&CallEvent::Answered(call(200))));
        assert_ne!(owed[0].operation, owed[1].operation);
        assert_ne!(owed[0].record.call, owed[1].record.call);
        assert_eq!((owed[0].record.other.as_str(), owed[0].operation.len()), ("sip:bob@example.com", 32));
    }

    #[test]
    fn a_call_answered_where_it_was_sent_on_is_missed_and_one_answered_elsewhere_is_no_call() {
        let sent_on = AnsweredCall { is_sent_on: true, ..call(200) };
        let owed = all().owed(&CallEvent::Answered(sent_on));
        assert_eq!(results(&owed)[1], (Direction::Received, CallResult::Missed));

        let elsewhere = AnsweredCall { is_answered_elsewhere: true, ..call(487) };
        let owed = all().owed(&CallEvent::Answered(elsewhere));
        assert_eq!(results(&owed), [(Direction::Made, CallResult::Cancelled)]);
    }

    #[test]
    fn a_challenge_is_no_call() {
        assert_eq!(all().owed(&CallEvent::Answered(call(407))), []);
    }

    #[test]
    fn only_what_the_pool_keeps_is_recorded() {
        let of = |kept, status| Calls::new(kept, 100).owed(&CallEvent::Answered(call(status)));

        assert_eq!(results(&of(CallRecords::Missed, 487)), [(Direction::Received, CallResult::Missed)]);
        assert_eq!(results(&of(CallRecords::Missed, 486)), [(Direction::Received, CallResult::Busy)]);
        assert_eq!(of(CallRecords::Missed, 200), []);
        assert_eq!(of(CallRecords::Off, 487), []);
    }

    #[test]
    fn the_end_of_the_oldest_call_is_given_up_when_too_many_last() {
        let mut calls = Calls::new(CallRecords::All, 2);
        let invite = |tag: &str| message("INVITE", &format!("<sip:al@x.y>;tag={tag}"), "<sip:bob@x.y>");
        for tag in ["1", "2", "3"] {
            calls.owed(&CallEvent::Answered(AnsweredCall { request: invite(tag), ..call(200) }));
        }
        let bye = |tag: &str| CallEvent::Ended {
            request: message("BYE", &format!("<sip:al@x.y>;tag={tag}"), "<sip:bob@x.y>;tag=b"),
            at: WallTime::from_secs(200),
        };

        assert_eq!(calls.owed(&bye("1")), []);
        assert_eq!(calls.owed(&bye("2")).len(), 2);
        assert_eq!(calls.owed(&bye("3")).len(), 2);
    }
}
