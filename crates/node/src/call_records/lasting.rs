//! Answered calls that have not ended, counted for each home pool: who would notice when it dies.

use std::{collections::VecDeque, time::Duration};

use hashbrown::HashMap;
use model::{AddressOfRecord, WallTime, limits};

use super::{CallEvent, calls::number};
use crate::HomeIndex;

/// For how long a call counts that nobody ended: phones that die say no BYE.
const LASTS_MAX: Duration = Duration::from_secs(12 * 3_600);

/// The answered calls of one server, by home pool. An upper bound: a call that ended without a BYE through
/// this server counts for twelve hours. Bounded by `limits::CALLS_AWAITED_MAX`; beyond, the oldest do not
/// count.
#[derive(Debug, Default)]
pub struct LastingCalls {
    homes: HashMap<u64, Vec<HomeIndex>>,
    /// In the order in which they were answered; those that ended meanwhile too.
    order: VecDeque<(u64, WallTime)>,
    counts: HashMap<HomeIndex, u64>,
}

impl LastingCalls {
    /// Takes note of what a shard saw; `home_of` says where a user is homed.
    pub fn note(&mut self, event: &CallEvent, home_of: impl Fn(&AddressOfRecord) -> Option<HomeIndex>) {
        match event {
            CallEvent::Answered(call) if (200..300).contains(&call.status) => {
                let request = call.request.view();
                let Some(number) = number(request, request.from()) else { return };
                let parties = call.caller.iter().chain(&call.called);
                let mut homes: Vec<HomeIndex> = parties.filter_map(home_of).collect();
                homes.dedup();
                self.make_room(call.at);
                self.end(number);
                for home in &homes {
                    *self.counts.entry(*home).or_default() += 1;
                }
                self.homes.insert(number, homes);
                self.order.push_back((number, call.at));
            }
            CallEvent::Answered(_) => {}
            CallEvent::Ended { request, .. } => {
                // Either party may end the call; the caller's tag names it.
                let view = request.view();
                for number in [number(view, view.from()), number(view, view.to())].into_iter().flatten() {
                    self.end(number);
                }
            }
        }
    }

    /// How many calls of users of this home pool last.
    pub fn of(&self, home: HomeIndex) -> u64 {
        self.counts.get(&home).copied().unwrap_or(0)
    }

    fn end(&mut self, number: u64) {
        for home in self.homes.remove(&number).unwrap_or_default() {
            if let Some(count) = self.counts.get_mut(&home) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn make_room(&mut self, now: WallTime) {
        let max = limits::CALLS_AWAITED_MAX;
        let lasts = u64::try_from(LASTS_MAX.as_micros()).unwrap_or(u64::MAX);
        while let Some((number, at)) = self.order.front().copied() {
            let is_old = now.as_micros().saturating_sub(at.as_micros()) > lasts;
            if !is_old && self.order.len() < max.saturating_mul(2) && self.homes.len() < max {
                break;
            }
            self.order.pop_front();
            self.end(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sip::{Framing, OwnedMessage};

    use super::*;
    use crate::call_records::AnsweredCall;

    const EAST: HomeIndex = HomeIndex(0);
    const WEST: HomeIndex = HomeIndex(1);

    fn request(method: &str, call: u32, tags: [&str; 2]) -> Arc<OwnedMessage> {
        let [from, to] = tags;
        let text = format!(
            "{method} sip:b@x.y SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@x.y>;tag={from}\r\n\
             To: <sip:b@x.y>;tag={to}\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\n\r\n"
        );
        Arc::new(OwnedMessage::parse(text.into_bytes().into(), Framing::Datagram).unwrap())
    }

    fn answered(call: u32, status: u16, at: u64) -> CallEvent {
        let user = |name: &str| Some(AddressOfRecord::new(name).unwrap());
        CallEvent::Answered(AnsweredCall {
            request: request("INVITE", call, ["f", ""]),
            caller: user("sip:east@example.com"),
            called: user("sip:west@example.com"),
            began_at: WallTime::from_secs(at),
            at: WallTime::from_secs(at),
            status,
            is_sent_on: false,
            is_answered_elsewhere: false,
        })
    }

    fn ended(call: u32, tags: [&str; 2]) -> CallEvent {
        CallEvent::Ended { request: request("BYE", call, tags), at: WallTime::from_secs(9) }
    }

    fn home(aor: &AddressOfRecord) -> Option<HomeIndex> {
        Some(if aor.as_str().contains("east") { EAST } else { WEST })
    }

    #[test]
    fn a_call_counts_for_the_home_pools_of_both_parties_until_either_ends_it() {
        let mut calls = LastingCalls::default();
        for event in [answered(1, 200, 1), answered(2, 200, 1), answered(3, 486, 1), answered(2, 200, 1)] {
            calls.note(&event, home);
        }
        assert_eq!((calls.of(EAST), calls.of(WEST)), (2, 2));

        calls.note(&ended(1, ["t", "f"]), home);
        calls.note(&ended(1, ["t", "f"]), home);
        calls.note(&ended(7, ["f", "t"]), home);

        assert_eq!((calls.of(EAST), calls.of(WEST)), (1, 1));
    }

    #[test]
    fn a_call_that_nobody_ended_counts_for_half_a_day() {
        let mut calls = LastingCalls::default();
        calls.note(&answered(1, 200, 0), home);
        calls.note(&answered(2, 200, 12 * 3_600), home);
        assert_eq!(calls.of(EAST), 2);

        calls.note(&answered(3, 200, 12 * 3_600 + 1), home);

        assert_eq!(calls.of(EAST), 2, "the first does not count any more");
    }
}
