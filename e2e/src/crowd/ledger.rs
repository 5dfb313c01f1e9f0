//! What a crowd asked and what it was answered, and what follows from that: failures, outages, percentiles.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// A REGISTER of a user's phone, challenges and redirections included.
    Register,
    /// A MESSAGE to a user, to see whether he is reached.
    Probe,
    /// A MESSAGE of the steady load.
    Message,
    /// A call of the steady load: INVITE, ACK, BYE.
    Call,
}

/// One deed and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was tried.
    pub deed: Deed,
    /// Number of the user who registered or was called.
    pub user: u32,
    /// Index of the server that was asked first.
    pub server: usize,
    /// Just before the first request was sent.
    pub sent: Instant,
    /// Just after the last answer, or when patience ended.
    pub ended: Instant,
    /// Final status; 0: no answer; 200 of anybody but the user's phone counts as 299.
    pub status: u16,
    /// Whether a 200 OK to REGISTER promised full service.
    pub is_full: bool,
    /// Redirections that were followed.
    pub redirections: u8,
}

impl Entry {
    /// Whether it ended well.
    pub const fn is_good(&self) -> bool {
        self.status == 200
    }
}

/// Time without an answer for one user, as a prober saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The user.
    pub user: u32,
    /// From the first failing probe to the first answer after it; `None`: no answer came any more.
    pub lasted: Option<Duration>,
}

/// Every stretch of failing probes, by user.
pub fn outages(entries: &[Entry]) -> Vec<Outage> {
    let mut by_user: HashMap<u32, Vec<&Entry>> = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.deed == Deed::Probe) {
        by_user.entry(entry.user).or_default().push(entry);
    }
    let mut found = Vec::new();
    for (user, mut probes) in by_user {
        probes.sort_by_key(|probe| probe.sent);
        let mut began: Option<Instant> = None;
        for probe in probes {
            match (began, probe.is_good()) {
                (None, false) => began = Some(probe.sent),
                (Some(first), true) => {
                    found.push(Outage { user, lasted: Some(probe.ended.saturating_duration_since(first)) });
                    began = None;
                }
                (None, true) | (Some(_), false) => {}
            }
        }
        if began.is_some() {
            found.push(Outage { user, lasted: None });
        }
    }
    found.sort_by_key(|outage| (outage.lasted.is_none(), outage.lasted, outage.user));
    found
}

/// By user, how long after `from` the first answer came to a deed of this kind that was begun after `from`.
pub fn first_good(entries: &[Entry], deed: Deed, from: Instant) -> BTreeMap<u32, Duration> {
    let mut first = BTreeMap::new();
    let good = entries.iter().filter(|entry| entry.deed == deed && entry.sent >= from && entry.is_good());
    for entry in good {
        let after = entry.ended.saturating_duration_since(from);
        let best = first.entry(entry.user).or_insert(after);
        *best = after.min(*best);
    }
    first
}

/// How many deeds ended how, begun within this time, by kind and status.
pub fn tally(entries: &[Entry], from: Instant, to: Instant) -> BTreeMap<(Deed, u16), usize> {
    let mut counts = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.sent >= from && entry.sent < to) {
        *counts.entry((entry.deed, entry.status)).or_default() += 1;
    }
    counts
}

/// Nearest-rank percentiles in one line: 50, 90, 99 and the greatest.
pub fn percentiles(mut durations: Vec<Duration>) -> String {
    durations.sort();
    let Some(last) = durations.last() else { return "none".to_owned() };
    let rank = |percent: usize| {
        let at = (durations.len() * percent).div_ceil(100).saturating_sub(1);
        durations.get(at).copied().unwrap_or_default().as_secs_f64()
    };
    format!(
        "p50 {:.3} s, p90 {:.3} s, p99 {:.3} s, greatest {:.3} s of {}",
        rank(50),
        rank(90),
        rank(99),
        last.as_secs_f64(),
        durations.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(base: Instant, user: u32, sent: u64, status: u16) -> Entry {
        Entry {
            deed: Deed::Probe,
            user,
            server: 1,
            sent: base + Duration::from_millis(sent),
            ended: base + Duration::from_millis(sent + 10),
            status,
            is_full: false,
            redirections: 0,
        }
    }

    #[test]
    fn an_outage_lasts_from_the_first_failing_probe_to_the_next_answer() {
        let base = Instant::now();
        let entries = [
            probe(base, 1, 900, 200),
            probe(base, 1, 0, 200),
            probe(base, 1, 300, 503),
            probe(base, 1, 100, 0),
            probe(base, 2, 100, 200),
            probe(base, 3, 100, 480),
        ];

        let found = outages(&entries);

        let lasted = Some(Duration::from_millis(810));
        assert_eq!(found, [Outage { user: 1, lasted }, Outage { user: 3, lasted: None }]);
    }

    #[test]
    fn a_user_is_found_at_the_first_answer_to_what_was_begun_afterwards() {
        let base = Instant::now();
        let entries = [probe(base, 1, 90, 200), probe(base, 1, 400, 200), probe(base, 1, 200, 200)];

        let found = first_good(&entries, Deed::Probe, base + Duration::from_millis(100));

        assert_eq!(found, BTreeMap::from([(1, Duration::from_millis(110))]));
    }
}
