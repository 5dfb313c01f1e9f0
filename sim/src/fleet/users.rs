//! Users who change documents and register, and branches that keep call records until the owner takes them.

use std::time::Duration;

use model::{Chance, Epoch, PoolName};
use pairing::{
    Authority, BranchRecovery, BranchView, Contact, PoolView, RegisterDecision, SecondRegistration, Service,
    Standing, UserServices, decide_branch_register,
};

use super::{
    Breach, Fleet, Mistake, Step,
    data::{Entry, Kind},
    pool::{Place, partner_of, side_of},
};
use crate::network::{between, hits};

/// Documents of each home pool.
const DOCUMENTS: u64 = 4;
/// Devices of each home pool.
const DEVICES: u64 = 4;

/// A branch appliance: its users' call records wait on its disk.
#[derive(Debug)]
pub(crate) struct Branch {
    name: PoolName,
    pub(crate) associated: Place,
    pub(crate) recovery: BranchRecovery,
    pub(crate) records: Vec<u64>,
}

/// A change whose authority was tested and that is not on disk yet.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    place: Place,
    home: Place,
    incarnation: u64,
    epoch: Epoch,
    document: u8,
}

pub(crate) fn branches(chance: &mut Chance) -> Vec<Branch> {
    let branch = |(associated, name)| {
        Some(Branch {
            name: PoolName::new(name).ok()?,
            associated,
            recovery: if hits(chance, 500) { BranchRecovery::Follow } else { BranchRecovery::None },
            records: Vec::new(),
        })
    };
    [(0, "lisbon"), (1, "porto"), (2, "faro")].into_iter().map_while(branch).collect()
}

impl Fleet {
    fn next_operation(&mut self) -> u64 {
        self.last_operation += 1;
        self.last_operation
    }

    fn draw_small(&mut self, bound: u64) -> u8 {
        u8::try_from(self.chance.below(bound)).unwrap_or(0)
    }

    fn answering(&self, home: Place) -> Option<(Place, Authority)> {
        [home, partner_of(home)].into_iter().find_map(|place| {
            let pool = self.pools.get(place)?;
            pool.answerable(side_of(place, home), self.now).map(|authority| (place, authority))
        })
    }

    /// A user changes a document, where documents can be changed.
    pub(super) fn write(&mut self, home: Place) {
        let next = between(&mut self.chance, Duration::from_millis(100), Duration::from_millis(900));
        self.schedule(self.now.after(next), Step::Write(home));
        let document = self.draw_small(DOCUMENTS);
        let takes = self.up_to(Duration::from_millis(150));
        let Some((place, authority)) = self.answering(home) else { return };
        if authority.service != Service::Full || self.is_quiet {
            return;
        }
        let Some(pool) = self.pools.get(place) else { return };
        let commit = Commit { place, home, incarnation: pool.incarnation, epoch: authority.epoch, document };
        self.schedule(self.now.after(takes), Step::Commit(commit));
    }

    /// It reaches the disk, if the store still takes it, and is acknowledged.
    pub(super) fn commit(&mut self, commit: &Commit) {
        let &Commit { place, home, incarnation, epoch, document } = commit;
        let now = self.now;
        let operation = self.next_operation();
        let is_forgotten = self.variant.mistake == Mistake::FenceForgotten;
        let Some(pool) = self.pools.get_mut(place).filter(|pool| pool.incarnation == incarnation) else {
            return;
        };
        let side = side_of(place, home);
        // Time between test and answer is what the margin is for; longer pauses are left out.
        let is_running = pool.process.as_ref().is_some_and(|process| process.paused_until <= now);
        let is_closed = pool.desk(side).is_none_or(|desk| desk.is_closed);
        let Some(store) = pool.stores.get_mut(side) else { return };
        let is_refused = (is_closed || epoch < store.fence) && !is_forgotten;
        if !is_running || is_refused || store.is_blank {
            return;
        }
        let base = store.current(document);
        store.append(Entry { epoch, operation, kind: Kind::Document { document, base } });
        self.acknowledge(place, home, operation);
    }

    pub(super) fn acknowledge(&mut self, place: Place, home: Place, operation: u64) {
        self.judge.tally.acknowledged += 1;
        if let Some(acknowledged) = self.judge.acknowledged.get_mut(home) {
            acknowledged.insert(operation);
        }
        if self.judge.handed_over.get(home).is_some_and(|by| *by == Some(place)) {
            self.judge.fail(Breach::LeftBehind { at: self.now, home, operation });
        }
    }

    /// A phone registers with whoever answers.
    pub(super) fn register(&mut self, home: Place) {
        let next = between(&mut self.chance, Duration::from_millis(300), Duration::from_millis(2_000));
        self.schedule(self.now.after(next), Step::Register(home));
        let device = self.draw_small(DEVICES);
        let operation = self.next_operation();
        let Some((place, authority)) = self.answering(home) else { return };
        let side = side_of(place, home);
        let Some(pool) = self.pools.get_mut(place) else { return };
        if let Some(store) = pool.stores.get_mut(side) {
            store.bindings.insert(device, operation);
        }
        // In resiliency mode a registration may be left behind by a change of owner: phones renew it.
        let is_kept = authority.service == Service::Full;
        if let Some(registered) = self.judge.registered.get_mut(home).filter(|_| is_kept) {
            registered.insert(device, operation);
        }
    }

    /// A call ends at a branch: its record waits there.
    pub(super) fn call_ended(&mut self, branch: usize) {
        let next = between(&mut self.chance, Duration::from_secs(1), Duration::from_secs(4));
        self.schedule(self.now.after(next), Step::CallEnded(branch));
        let operation = self.next_operation();
        if let Some(branch) = self.branches.get_mut(branch).filter(|_| !self.is_quiet) {
            branch.records.push(operation);
        }
    }

    /// Phones of a branch that is down try the partner too while it owns: the branch's rule says what it
    /// does.
    pub(super) fn look_at_branches(&mut self, home: Place, at_partner: Option<Authority>) {
        let place = partner_of(home);
        let (Some(_), Some(pool)) = (at_partner, self.pools.get(place)) else { return };
        let (Some(desk), Some(process)) = (pool.desk(side_of(place, home)), &pool.process) else { return };
        let standing = desk.machine.standing(process.clock.read(self.now));
        if !matches!(standing, Standing::Serving(_)) {
            return; // the machine has stopped, its driver is late to hear it
        }
        let is_mistaken = self.variant.mistake == Mistake::BranchFollowsAnyway;
        let is_wrong = |branch: &Branch| {
            let recovery = if is_mistaken { BranchRecovery::Follow } else { branch.recovery };
            let view = BranchView::Pool {
                branch: &branch.name,
                contact: Contact::Silent { takeover_in: None },
                pool: PoolView {
                    parties: desk.machine.parties(),
                    standing: &standing,
                    second_registration: SecondRegistration::Redirect,
                    user_services: UserServices::Available,
                },
                recovery,
            };
            let is_served = matches!(decide_branch_register(view), RegisterDecision::Serve { .. });
            is_served != (branch.recovery == BranchRecovery::Follow)
        };
        let mut branches = self.branches.iter().enumerate();
        let wrong = branches.find(|(_, branch)| branch.associated == home && is_wrong(branch));
        if let Some((branch, _)) = wrong {
            self.judge.fail(Breach::BranchRuleBroken { at: self.now, branch });
        }
    }

    /// Every call record of every branch arrived once.
    pub(super) fn look_back_at_branches(&mut self) {
        for (at, branch) in self.branches.iter().enumerate() {
            let home = branch.associated;
            let Some(store) = self.pools.get(home).and_then(|pool| pool.stores.first()) else { continue };
            for &operation in &branch.records {
                let times = store.records_of(at).filter(|&it| it == operation).count();
                if times != 1 {
                    return self.judge.fail(Breach::RecordNotOnce { branch: at, operation, times });
                }
            }
        }
    }
}
