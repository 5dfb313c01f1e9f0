//! Calls of one user.

use serde::{Deserialize, Serialize};

use crate::{WallTime, limits};

/// Names one call at one user, the same wherever and however often it is recorded: a hash of Call-ID, From
/// tag and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// The newest calls of one user, oldest first; at most `limits::CALL_RECORDS_MAX`, older ones leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallLog {
    records: Vec<CallRecord>,
}

/// What is known of one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRecord {
    /// Which call.
    pub call: CallId,
    /// Made or received.
    pub direction: Direction,
    /// The URI of the other party, at most `limits::DESTINATION_BYTES_MAX` octets of it.
    pub other: String,
    /// When it began.
    pub began_at: WallTime,
    /// When it was answered; never for a missed call.
    pub answered_at: Option<WallTime>,
    /// When it ended; unknown while it lasts, and when its end was not seen here.
    pub ended_at: Option<WallTime>,
    /// What became of it.
    pub result: CallResult,
}

/// Who called whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The user called.
    Made,
    /// The user was called.
    Received,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallResult {
    /// It was answered.
    Answered,
    /// Nobody answered, or nobody was there.
    Missed,
    /// The called party was busy.
    Busy,
    /// The called party refused.
    Declined,
    /// The caller gave up.
    Cancelled,
    /// It could not be delivered.
    Failed,
}

impl CallLog {
    /// The calls, oldest first.
    pub fn records(&self) -> &[CallRecord] {
        &self.records
    }

    /// Keeps a record. What is known of the same call already is completed, never taken back: so records may
    /// come twice, late, and from two pools.
    pub fn record(&mut self, new: CallRecord) {
        match self.records.iter_mut().find(|known| known.call == new.call) {
            Some(known) => known.complete(new),
            None => {
                let at = self.records.partition_point(|known| known.began_at <= new.began_at);
                self.records.insert(at, new);
            }
        }
        let excess = self.records.len().saturating_sub(limits::CALL_RECORDS_MAX);
        self.records.drain(..excess);
    }
}

impl CallRecord {
    fn complete(&mut self, new: Self) {
        let was_answered = self.answered_at.is_some();
        self.answered_at = self.answered_at.or(new.answered_at);
        self.ended_at = self.ended_at.max(new.ended_at);
        if !was_answered && self.answered_at.is_some() {
            self.result = CallResult::Answered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(call: u64, began_s: u64) -> CallRecord {
        CallRecord {
            call: CallId(call),
            direction: Direction::Received,
            other: "sip:bob@example.com".to_owned(),
            began_at: WallTime::from_micros(began_s * 1_000_000),
            answered_at: None,
            ended_at: None,
            result: CallResult::Missed,
        }
    }

    #[test]
    fn a_record_that_comes_twice_is_kept_once() {
        let mut log = CallLog::default();

        log.record(record(1, 5));
        log.record(record(1, 5));

        assert_eq!(log.records(), [record(1, 5)]);
    }

    #[test]
    fn what_is_known_of_a_call_is_completed_in_whatever_order_it_comes() {
        let answered = CallRecord {
            answered_at: Some(WallTime::from_micros(6_000_000)),
            result: CallResult::Answered,
            ..record(1, 5)
        };
        let ended = CallRecord { ended_at: Some(WallTime::from_micros(9_000_000)), ..answered.clone() };
        let (mut forward, mut backward) = (CallLog::default(), CallLog::default());

        for step in [&record(1, 5), &answered, &ended] {
            forward.record(step.clone());
        }
        for step in [&ended, &answered, &record(1, 5)] {
            backward.record(step.clone());
        }

        assert_eq!(forward, backward);
        assert_eq!(forward.records(), [ended]);
    }

    #[test]
    fn the_oldest_call_leaves_a_full_log() {
        let mut log = CallLog::default();

        for number in 0..=u64::try_from(limits::CALL_RECORDS_MAX).unwrap() {
            log.record(record(number, number));
        }

        assert_eq!(log.records().len(), limits::CALL_RECORDS_MAX);
        assert_eq!(log.records().first().map(|first| first.call), Some(CallId(1)));
    }
}
