//! Two operators who err: the wrong pool, the wrong order, twice, late, at once; a sensible one for peace.

use std::time::Duration;

use model::{Epoch, WallTime};
use pairing::{Input, Operator, Order, OrderId, OrderKind, PoolState};

use super::{
    Breach, Fleet, Spot, Step,
    pool::{POOLS, Place, partner_of, side_of},
};
use crate::{
    network::{between, hits},
    witness::Witness,
};

/// Orders that an operator may repeat.
const REMEMBERED: usize = 12;

#[derive(Debug)]
pub(crate) struct Operators {
    name: Operator,
    last: u64,
    given: Vec<(Place, Order)>,
}

impl Operators {
    pub(crate) const fn new(name: Operator) -> Self {
        Self { name, last: 0, given: Vec::new() }
    }
}

/// An order or a cancel on its way to a pool.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    place: Place,
    home: Place,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Order(Order),
    Cancel(OrderId),
}

impl Fleet {
    /// One of the operators does something, sensible or not.
    pub(super) fn operate(&mut self) {
        if self.is_at_peace {
            return;
        }
        let next = between(&mut self.chance, Duration::from_millis(300), Duration::from_secs(5));
        self.schedule(self.now.after(next), Step::Operator);
        let home = usize::try_from(self.chance.below(4)).unwrap_or(0) % POOLS;
        let (epoch, owner, state) = self.seen(home);
        let place = if hits(&mut self.chance, 800) { owner } else { partner_of(owner) };
        let what = match self.chance.below(20) {
            0..=2 => self.repeated(home),
            3..=5 => self.cancelled(home),
            6..=7 => {
                let kind = self.any_kind();
                Some(What::Order(self.new_order(kind, home, epoch)))
            }
            _ => {
                let kind = self.fitting_kind(state);
                let epoch = if hits(&mut self.chance, 50) { epoch.next() } else { epoch };
                Some(What::Order(self.new_order(kind, home, epoch)))
            }
        };
        let Some(what) = what else { return };
        let is_disaster = match &what {
            What::Order(order) => matches!(order.kind, OrderKind::Disaster | OrderKind::DisasterFailback),
            What::Cancel(_) => false,
        };
        let place = if is_disaster && hits(&mut self.chance, 800) { partner_of(owner) } else { place };
        self.dispatch(&Given { place, home, what });
    }

    /// The order arrives a little later, sometimes twice, sometimes much later.
    fn dispatch(&mut self, given: &Given) {
        self.tell(|| format!("operator {given:?}"));
        let copies = if hits(&mut self.chance, 150) { 2 } else { 1 };
        for _ in 0..copies {
            let longest = if hits(&mut self.chance, 100) { 20_000 } else { 200 };
            let delay = self.up_to(Duration::from_millis(longest));
            self.schedule(self.now.after(delay), Step::Given(given.clone()));
        }
    }

    pub(super) fn given(&mut self, given: &Given) {
        let (now, side) = (self.now, side_of(given.place, given.home));
        self.judge.tally.orders += 1;
        let Some(process) = self.pools.get_mut(given.place).and_then(|pool| pool.process.as_mut()) else {
            return;
        };
        let call = process.next_call();
        let input = match &given.what {
            What::Order(order) => Input::Ordered { call, order: order.clone() },
            What::Cancel(of) => Input::CancelOrdered { call, of: *of },
        };
        if let Some(desk) = process.desks.get_mut(side) {
            desk.orders.insert(call, now);
            desk.inbox.push_back(input);
        }
    }

    /// What the record says: epoch, owner, state.
    fn seen(&self, home: Place) -> (Epoch, Place, PoolState) {
        let stored = self.witness.get(home).and_then(Witness::stored);
        let Some(stored) = stored else { return (Epoch::ZERO, home, PoolState::Active) };
        let is_home = self.names.get(home) == Some(&stored.record.owner);
        let owner = if is_home { home } else { partner_of(home) };
        (stored.record.epoch, owner, stored.record.state)
    }

    fn new_order(&mut self, kind: OrderKind, home: Place, epoch: Epoch) -> Order {
        self.operators.last += 1;
        let seconds = self.now.0 / 1_000_000 + 1_700_000_000;
        let stepped = seconds.wrapping_add(self.variant.wall_step_s.wrapping_mul(self.operators.last));
        let order = Order {
            id: OrderId::new(u128::from(self.operators.last)),
            kind,
            epoch,
            ordered_at: WallTime::from_secs(stepped),
            by: self.operators.name.clone(),
        };
        self.operators.given.push((home, order.clone()));
        if self.operators.given.len() > REMEMBERED {
            self.operators.given.remove(0);
        }
        order
    }

    fn repeated(&mut self, home: Place) -> Option<What> {
        self.last_of(home).map(What::Order)
    }

    fn cancelled(&mut self, home: Place) -> Option<What> {
        self.last_of(home).map(|order| What::Cancel(order.id))
    }

    /// One of the last orders about a home pool.
    fn last_of(&mut self, home: Place) -> Option<Order> {
        let skip = usize::try_from(self.chance.below(3)).unwrap_or(0) / 2;
        let mut orders = self.operators.given.iter().rev().filter(|(place, _)| *place == home);
        orders.nth(skip).map(|(_, order)| order.clone())
    }

    fn any_kind(&mut self) -> OrderKind {
        match self.chance.below(5) {
            0 => OrderKind::Failover,
            1 => OrderKind::Switchover,
            2 => OrderKind::Failback,
            3 => OrderKind::Disaster,
            _ => OrderKind::DisasterFailback,
        }
    }

    fn fitting_kind(&mut self, state: PoolState) -> OrderKind {
        let is_urgent = hits(&mut self.chance, 200);
        match state {
            PoolState::Active | PoolState::FailingOver if is_urgent => OrderKind::Disaster,
            PoolState::Active | PoolState::FailingOver => OrderKind::Switchover,
            PoolState::TakenOver => OrderKind::Failover,
            PoolState::FailedOver | PoolState::FailingBack if is_urgent => OrderKind::DisasterFailback,
            PoolState::FailedOver | PoolState::FailingBack => OrderKind::Failback,
        }
    }

    /// In peace: orders the failback of what is failed over, and looks again.
    pub(super) fn bring_home(&mut self, home: Place) {
        self.schedule(self.now.after(Duration::from_secs(2)), Step::BringHome(home));
        let (epoch, owner, state) = self.seen(home);
        if state == PoolState::FailedOver {
            let order = self.new_order(OrderKind::Failback, home, epoch);
            self.tell(|| format!("sensible operator {order:?}"));
            self.given(&Given { place: owner, home, what: What::Order(order) });
        }
    }

    /// Whoever ordered long ago has an answer.
    pub(super) fn look_back_at_orders(&mut self) {
        let before = crate::clock::Moment(self.now.0.saturating_sub(30_000_000));
        for place in 0..POOLS {
            for home in [place, partner_of(place)] {
                let desk = self.pools.get(place).and_then(|pool| pool.desk(side_of(place, home)));
                let oldest = desk.and_then(|desk| desk.orders.values().min().copied());
                if let Some(given) = oldest.filter(|&given| given < before) {
                    return self.judge.fail(Breach::NoAnswer { given, home });
                }
            }
        }
    }

    pub(super) fn spot(&mut self) -> Spot {
        match self.chance.below(8) {
            7 => Spot::Witness,
            at @ 4..=6 => Spot::Branch(usize::try_from(at).unwrap_or(4) - 4),
            at => Spot::Pool(usize::try_from(at).unwrap_or(0)),
        }
    }
}
