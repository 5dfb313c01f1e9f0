//! One pool: its process, its driver and what its phones would get.

use std::collections::{BTreeMap, VecDeque};

use model::{Instant, Machine};
use pairing::{Authority, CallId, Input, Output, Ownership, Parties, RequestId, Settings, Tenure};

use crate::clock::{Clock, Moment};

/// What a pool is, across its processes.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) parties: Parties,
    pub(crate) settings: Settings,
    /// How often a process was started.
    pub(crate) incarnation: u64,
    /// What survives a crash.
    pub(crate) remembered: Option<Tenure>,
    pub(crate) process: Option<Process>,
}

/// One process of a pool; a crash ends it and all it knows.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) clock: Clock,
    pub(crate) machine: Ownership,
    /// Arrived, not yet given to the machine.
    pub(crate) inbox: VecDeque<Arrival>,
    /// Given by the machine, not yet executed.
    pub(crate) work: VecDeque<Output>,
    /// Who waits for which answer: process and request of the other pool.
    pub(crate) calls: BTreeMap<CallId, (u64, RequestId)>,
    pub(crate) last_call: u64,
    /// The whole process stands still until then.
    pub(crate) paused_until: Moment,
    /// Only the driver's thread stands still until then; phones are answered.
    pub(crate) stalled_until: Moment,
    /// The authority in force in the threads that answer phones.
    authority: Option<Authority>,
    /// With the planted background loop: what the loop saw last.
    seen_by_loop: bool,
    /// When the driver wakes up for the machine's next deadline.
    pub(crate) wake_at: Option<Moment>,
}

/// What waits in front of a machine.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Input(Input),
    /// A promise request, with the process and the request of the other pool that wait for the answer.
    Asked(pairing::PromiseRequest, u64, RequestId),
}

impl Process {
    pub(crate) fn start(pool: &Pool, clock: Clock, moment: Moment) -> Self {
        let now = clock.read(moment);
        Self {
            clock,
            machine: Ownership::paired(pool.parties.clone(), pool.settings, now, pool.remembered.clone()),
            inbox: VecDeque::new(),
            work: VecDeque::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            paused_until: moment,
            stalled_until: moment,
            authority: None,
            seen_by_loop: false,
            wake_at: None,
        }
    }

    /// Until when the driver's thread does nothing, if it does nothing now.
    pub(crate) fn held_until(&self, moment: Moment) -> Option<Moment> {
        Some(self.paused_until.max(self.stalled_until)).filter(|&until| until > moment)
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.machine.poll_timeout().is_some_and(|at| at <= now)
    }

    pub(crate) fn put_in_force(&mut self, authority: Option<Authority>) {
        self.authority = authority;
        self.seen_by_loop = authority.is_some();
    }

    /// One turn of the planted background loop.
    pub(crate) fn refresh_loop(&mut self, moment: Moment) {
        self.seen_by_loop =
            self.authority.is_some_and(|authority| authority.holds_at(self.clock.read(moment)));
    }

    /// Under which authority a phone would be answered at this moment, and until when if nothing else
    /// happens.
    pub(crate) fn answerable(&self, moment: Moment, asks_loop: bool) -> Option<(Authority, Moment)> {
        let authority = self.authority.filter(|_| moment >= self.paused_until)?;
        let is_allowed =
            if asks_loop { self.seen_by_loop } else { authority.holds_at(self.clock.read(moment)) };
        is_allowed.then(|| (authority, self.clock.moment_of(authority.until)))
    }
}
