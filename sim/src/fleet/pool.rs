//! One pool of the fleet: its disk, its process, and the two ownership machines in it.

use std::collections::{BTreeMap, VecDeque};

use model::{Epoch, Instant, Machine};
use pairing::{
    Authority, CallId, HandoverId, Input, Output, Ownership, Parties, RequestId, Settings, Tenure,
};

use super::data::{Cursor, Store};
use crate::clock::{Clock, Moment};

/// A pool's place in the fleet; its partner is the one beside it. A home pool is named by its place.
pub(crate) type Place = usize;

/// Pools of the fleet: two pairs.
pub(crate) const POOLS: usize = 4;

pub(crate) const fn partner_of(place: Place) -> Place {
    place ^ 1
}

/// What a pool is, across its processes. Index 0 is about its own users, 1 about its partner's.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) parties: [Parties; 2],
    pub(crate) settings: Settings,
    pub(crate) incarnation: u64,
    pub(crate) remembered: [Option<Tenure>; 2],
    pub(crate) stores: [Store; 2],
    pub(crate) process: Option<Process>,
}

/// One process; a crash ends it and all it knows.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) clock: Clock,
    pub(crate) desks: [Desk; 2],
    pub(crate) paused_until: Moment,
    /// The driver stands still until then; phones are answered.
    pub(crate) stalled_until: Moment,
    pub(crate) wake_at: Option<Moment>,
    pub(crate) last_call: u64,
}

/// One machine with what its driver needs.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) machine: Ownership,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) work: VecDeque<Output>,
    /// Who waits for which promise: process and request of the other pool.
    pub(crate) calls: BTreeMap<CallId, (u64, RequestId)>,
    /// Orders and cancels without an answer.
    pub(crate) orders: BTreeMap<CallId, Moment>,
    pub(crate) authority: Option<Authority>,
    /// No write is committed: the last page is being cut.
    pub(crate) is_closed: bool,
    /// What the reader of this pool's journal held when it asked last, and when that was.
    pub(crate) reader: Option<(Cursor, Moment)>,
    pub(crate) finishing: Option<HandoverId>,
    /// The owner's marks, when this pool's journal parted from the owner's.
    pub(crate) diverged: Option<Vec<(Epoch, usize)>>,
    pub(crate) is_able: bool,
}

impl Process {
    pub(crate) fn start(pool: &Pool, clock: Clock, moment: Moment) -> Self {
        let now = clock.read(moment);
        let desk = |parties: &Parties, remembered: &Option<Tenure>, store: &Store| {
            let mut desk = Desk {
                machine: Ownership::paired(parties.clone(), pool.settings, now, remembered.clone()),
                inbox: VecDeque::new(),
                work: VecDeque::new(),
                calls: BTreeMap::new(),
                orders: BTreeMap::new(),
                authority: None,
                is_closed: false,
                reader: None,
                finishing: None,
                diverged: None,
                is_able: true,
            };
            desk.become_able(!store.is_blank);
            desk
        };
        let [own, other] = &pool.parties;
        let [own_known, other_known] = &pool.remembered;
        let [own_store, other_store] = &pool.stores;
        let desks = [desk(own, own_known, own_store), desk(other, other_known, other_store)];
        Self { clock, desks, paused_until: moment, stalled_until: moment, wake_at: None, last_call: 0 }
    }

    pub(crate) fn is_held(&self, moment: Moment) -> bool {
        self.paused_until.max(self.stalled_until) > moment
    }

    pub(crate) fn next_call(&mut self) -> CallId {
        self.last_call += 1;
        CallId(self.last_call)
    }
}

impl Desk {
    pub(crate) fn become_able(&mut self, is_able: bool) {
        if self.is_able != is_able {
            self.is_able = is_able;
            self.inbox.push_back(Input::AbilityChanged { is_able });
        }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.machine.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Whether the other pool holds nearly everything, as far as its last question tells.
    pub(crate) fn is_close(&self, store: &Store, moment: Moment) -> bool {
        self.reader.is_some_and(|(cursor, at)| {
            moment.since(at) < std::time::Duration::from_secs(1)
                && store.has_cursor(cursor)
                && cursor.sequence + 3 >= store.len()
        })
    }
}

impl Pool {
    pub(crate) fn desk(&self, side: usize) -> Option<&Desk> {
        self.process.as_ref().and_then(|process| process.desks.get(side))
    }

    pub(crate) fn desk_mut(&mut self, side: usize) -> Option<&mut Desk> {
        self.process.as_mut().and_then(|process| process.desks.get_mut(side))
    }

    /// Under which authority a phone would be answered at this moment.
    pub(crate) fn answerable(&self, side: usize, moment: Moment) -> Option<Authority> {
        let process = self.process.as_ref().filter(|process| moment >= process.paused_until)?;
        let authority = process.desks.get(side)?.authority?;
        authority.holds_at(process.clock.read(moment)).then_some(authority)
    }
}

/// Which of a pool's two desks a home pool's is.
pub(crate) fn side_of(place: Place, home: Place) -> usize {
    usize::from(place != home)
}
