//! The task that feeds one ownership machine and executes what it asks for.

use std::{path::PathBuf, time::Duration};

use hashbrown::HashMap;
use model::{Epoch, Instant, Machine, PoolName};
use pairing::{
    CallId, Event, HandoverId, Input, Order, OrderId, OrderResult, Output, Ownership, OwnershipError,
    OwnershipRecord, PromiseAnswer, PromiseRequest, RecordVersion, RequestId, Standing, StoredRecord, Tenure,
};
use store::{Health, HotStore};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{OwnershipContext, handover::Handover, memory};
use crate::{
    HomeIndex,
    api::control::{CompareAndSet, Record, Swap},
    clock,
    peers::Endpoint,
};

/// Time between two looks at how close the other pool is to holding everything.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// How long a change of owner may take before requests are refused again.
const CHANGE_WITHIN: Duration = Duration::from_secs(2);

/// What a driver is told.
pub enum Message {
    /// The answer to something the machine asked for.
    Input(Input),
    /// The other pool asks.
    Asked {
        /// What.
        body: PromiseRequest,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<PromiseAnswer, OwnershipError>>,
    },
    /// An operator orders.
    Ordered {
        /// What.
        order: Order,
        /// Where the answer goes.
        answer: oneshot::Sender<OrderResult>,
    },
    /// An operator cancels.
    Cancelled {
        /// The order to undo.
        of: OrderId,
        /// Where the answer goes.
        answer: oneshot::Sender<OrderResult>,
    },
}

/// One machine with everything around it.
pub struct Driver {
    pub(super) machine: Ownership,
    pub(super) index: HomeIndex,
    pub(super) home: PoolName,
    pub(super) key: String,
    pub(super) witness: Option<Endpoint>,
    pub(super) partner: Endpoint,
    pub(super) patience: Duration,
    pub(super) drain_max: Duration,
    pub(super) memory: PathBuf,
    pub(super) handover: Handover,
    pub(super) known: watch::Sender<Option<Tenure>>,
    pub(super) sender: mpsc::Sender<Message>,
    pub(super) context: OwnershipContext,
    pub(super) calls: Calls,
    /// The epoch that the store of user data was last told of.
    pub(super) fenced: Option<Epoch>,
    pub(super) look_at: Instant,
    /// Whether registrations can be written here, as the machine was told.
    pub(super) is_able: bool,
}

/// Who waits for an answer of the machine.
#[derive(Default)]
pub struct Calls {
    promises: HashMap<CallId, oneshot::Sender<Result<PromiseAnswer, OwnershipError>>>,
    orders: HashMap<CallId, oneshot::Sender<OrderResult>>,
    last: u64,
}

impl Calls {
    fn next(&mut self) -> CallId {
        self.last += 1;
        CallId(self.last)
    }
}

impl Driver {
    /// Runs until every handle of the machine is gone.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        loop {
            self.drain().await;
            let due = self.machine.poll_timeout().map_or(self.look_at, |due| due.min(self.look_at));
            match tokio::time::timeout_at(clock::runtime_instant(due).into(), inbox.recv()).await {
                Ok(Some(message)) => self.message(message),
                Ok(None) => return,
                Err(_) => self.machine.handle_timeout(clock::now()),
            }
            self.look_at_progress();
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.input(input),
            Message::Asked { body, answer } => {
                let call = self.calls.next();
                match self.machine.handle(clock::now(), Input::PromiseAsked { call, body }) {
                    Ok(()) => drop(self.calls.promises.insert(call, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            Message::Ordered { order, answer } => {
                let call = self.calls.next();
                self.calls.orders.insert(call, answer);
                self.input(Input::Ordered { call, order });
            }
            Message::Cancelled { of, answer } => {
                let call = self.calls.next();
                self.calls.orders.insert(call, answer);
                self.input(Input::CancelOrdered { call, of });
            }
        }
    }

    fn input(&mut self, input: Input) {
        if let Err(error) = self.machine.handle(clock::now(), input) {
            warn!(pool = %self.home, %error, "input to the ownership machine refused");
        }
    }

    /// Tells the machine, while this pool owns, how close the other one is to holding everything.
    fn look_at_progress(&mut self) {
        let now = clock::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + PROGRESS_EVERY;
        let is_able = self.is_able_now(now);
        if is_able != self.is_able {
            self.is_able = is_able;
            warn!(pool = %self.home, is_able, "ability to keep registrations changed");
            self.input(Input::AbilityChanged { is_able });
        }
        if matches!(self.machine.standing(now), Standing::Serving(_)) {
            let is_close = self.handover.is_close(now);
            self.input(Input::HandoverProgress { is_close });
        }
    }

    /// Whether this pool is able to have the users: it keeps registrations, or it has them and nobody is
    /// there to take them over. Without the partner calls alone are better than nothing.
    fn is_able_now(&self, now: Instant) -> bool {
        if !matches!(self.context.hot.health(), Health::ReadOnly { .. }) {
            return true;
        }
        let owns = self.machine.known().is_some_and(|tenure| tenure.owner != self.handover.other);
        owns && !self.handover.is_heard(now)
    }

    /// Executes what the machine asks for, in order, then publishes how things stand.
    async fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Read { request } => self.read(request),
                Output::CompareAndSet { request, expected, record } => self.swap(request, expected, record),
                Output::AskPartner { request, body } => self.ask_partner(request, body),
                Output::Answer { call, body } => {
                    if let Some(answer) = self.calls.promises.remove(&call) {
                        let _asker_gone = answer.send(Ok(body));
                    }
                }
                Output::OrderAnswer { call, result } => {
                    if let Some(answer) = self.calls.orders.remove(&call) {
                        let _asker_gone = answer.send(result);
                    }
                }
                Output::FinishHandover { handover } => {
                    self.owner_changes();
                    self.finish(handover);
                }
                Output::Authority(authority) => {
                    if let Some(authority) = authority {
                        self.fence(authority.epoch).await;
                    }
                    self.publish();
                }
                Output::Remember(tenure) => memory::remember(&self.memory, &tenure),
                Output::Event(event) => self.tell(&event),
            }
        }
        self.publish();
    }

    /// Makes the store of user data refuse every lower epoch before anything is answered under this one.
    async fn fence(&mut self, epoch: Epoch) {
        if self.fenced == Some(epoch) {
            return;
        }
        match self.handover.fence(epoch).await {
            Ok(()) => self.fenced = Some(epoch),
            // Documents stay safe: a commit under this epoch raises it itself or is refused.
            Err(error) => warn!(pool = %self.home, epoch = epoch.number(), error, "epoch not fenced"),
        }
    }

    fn publish(&self) {
        self.context.authority.set(self.index, self.machine.standing(clock::now()));
        let known = self.machine.known();
        let mut is_gone = false;
        let is_news = self.known.send_if_modified(|told| {
            let is_news = told.as_ref() != known;
            if is_news {
                is_gone = is_handed_over(&self.handover.other, told.as_ref(), known);
                *told = known.cloned();
            }
            is_news
        });
        if is_news {
            let is_operating = known.is_some_and(|tenure| tenure.state.is_moving());
            self.context.authority.operate(self.index, is_operating);
        }
        if is_gone {
            // What readers said of this journal they say to the owner from now on. Only now: the next owner
            // is asked before it knows that it is one, and the question stands for as long as it may wait.
            self.handover.copies.forget_readers(&self.home);
        }
    }

    /// Lets requests wait for the next owner instead of refusing them.
    fn owner_changes(&self) {
        self.context.authority.change_until(self.index, clock::now() + CHANGE_WITHIN);
    }

    fn finish(&self, handover: HandoverId) {
        let (sender, within) = (self.sender.clone(), self.drain_max);
        let work = self.handover.clone();
        let home = self.home.clone();
        tokio::spawn(async move {
            let input = match work.finish(within).await {
                Ok(()) => Input::HandoverFinished { handover },
                Err(reason) => {
                    warn!(pool = %home, reason, "handover not confirmed");
                    Input::HandoverFailed { handover }
                }
            };
            let _ended = sender.send(Message::Input(input)).await;
        });
    }

    fn read(&self, request: RequestId) {
        let Some(witness) = self.witness.clone() else { return self.fail(Input::WitnessFailed { request }) };
        let (client, sender, within) = (self.context.client.clone(), self.sender.clone(), self.patience);
        let path = format!("/v1/control/{}", self.key);
        tokio::spawn(async move {
            let input = match client.get::<Option<Record>>(&witness, &path, within).await {
                Ok(found) => match found.map(stored).transpose() {
                    Ok(found) => Input::RecordRead { request, found },
                    Err(_) => Input::WitnessFailed { request },
                },
                Err(_) => Input::WitnessFailed { request },
            };
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    fn swap(&self, request: RequestId, expected: Option<RecordVersion>, record: OwnershipRecord) {
        let Some(witness) = self.witness.clone() else { return self.fail(Input::WitnessFailed { request }) };
        let (client, sender, within) = (self.context.client.clone(), self.sender.clone(), self.patience);
        let path = format!("/v1/control/{}", self.key);
        tokio::spawn(async move {
            let failed = Input::WitnessFailed { request };
            let input = match serde_json::to_string(&record) {
                Ok(value) => {
                    let body = CompareAndSet { expected: expected.map_or(0, |version| version.0), value };
                    match client.post::<Swap>(&witness, &path, &body, within).await {
                        Ok(Swap::Stored { version }) => {
                            Input::Swapped { request, version: RecordVersion(version) }
                        }
                        Ok(Swap::Conflict { found }) => match found.map(stored).transpose() {
                            Ok(found) => Input::SwapRefused { request, found },
                            Err(_) => failed,
                        },
                        Err(_) => failed,
                    }
                }
                Err(_) => failed,
            };
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    fn ask_partner(&self, request: RequestId, body: PromiseRequest) {
        let (client, sender, within) = (self.context.client.clone(), self.sender.clone(), self.patience);
        let partner = self.partner.clone();
        tokio::spawn(async move {
            let answer = client.post::<PromiseAnswer>(&partner, "/v1/promise", &body, within).await;
            let input = match answer {
                Ok(answer) => Input::PartnerAnswered { request, answer },
                Err(_) => Input::PartnerFailed { request },
            };
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    /// Reports a failure that is known at once, by the same way as the others.
    fn fail(&self, input: Input) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    fn tell(&self, event: &Event) {
        let pool = &self.home;
        match event {
            Event::OwnerKnown(tenure) => {
                self.owner_changes();
                info!(%pool, owner = %tenure.owner, epoch = tenure.epoch.number(), "owner known");
            }
            Event::ServingBegan { epoch } => info!(%pool, epoch = epoch.number(), "serving began"),
            Event::ServingEnded { epoch } => warn!(%pool, epoch = epoch.number(), "serving ended"),
            Event::TakeoverBegan { epoch } => warn!(%pool, epoch = epoch.number(), "takeover began"),
            Event::TakeoverAbandoned { epoch } => {
                warn!(%pool, epoch = epoch.number(), "takeover abandoned");
            }
            Event::ReturnBegan { epoch } => info!(%pool, epoch = epoch.number(), "return began"),
            Event::ReturnAbandoned { epoch } => warn!(%pool, epoch = epoch.number(), "return abandoned"),
            Event::OperationBegan(order) => {
                warn!(%pool, kind = %order.kind, order = %order.id, "operation began")
            }
            Event::OperationCompleted(order) => {
                warn!(%pool, kind = %order.kind, order = %order.id, "operation completed");
            }
            Event::OperationUndone { order, reason } => {
                warn!(%pool, kind = %order.kind, order = %order.id, %reason, "operation undone");
            }
            Event::HandoverBegan { handover } => info!(%pool, handover = handover.0, "handover began"),
            Event::HandoverAbandoned { handover } => {
                warn!(%pool, handover = handover.0, "handover abandoned");
            }
            Event::OwnerImpossible(tenure) => {
                warn!(%pool, owner = %tenure.owner, "the control store names an owner outside the pair");
            }
            Event::WitnessBehind { known, .. } => {
                warn!(%pool, epoch = known.number(), "the control store holds an older ownership record");
            }
        }
    }
}

/// Whether the users went to the pool `other` between these two.
fn is_handed_over(other: &PoolName, before: Option<&Tenure>, after: Option<&Tenure>) -> bool {
    let is_theirs = |tenure: Option<&Tenure>| tenure.map(|tenure| tenure.owner == *other);
    is_theirs(before) == Some(false) && is_theirs(after) == Some(true)
}

fn stored(record: Record) -> Result<StoredRecord, serde_json::Error> {
    let value = serde_json::from_str(&record.value)?;
    Ok(StoredRecord { version: RecordVersion(record.version), record: value })
}

#[cfg(test)]
mod tests {
    use pairing::PoolState;

    use super::*;

    #[test]
    fn readers_are_forgotten_when_the_users_go_and_not_when_they_are_about_to_come() {
        let [east, west] = ["east", "west"].map(|name| PoolName::new(name).unwrap());
        let tenure = |owner: &PoolName, state| Tenure::new(owner.clone(), Epoch::new(1), state);
        let at_home = tenure(&east, PoolState::Active);
        let moving = tenure(&east, PoolState::FailingOver);
        let moved = tenure(&west, PoolState::FailedOver);

        // At west, to which east hands its users over: east asks as a reader before west knows that it owns.
        assert!(!is_handed_over(&east, None, Some(&at_home)));
        assert!(!is_handed_over(&east, Some(&at_home), Some(&moving)));
        assert!(!is_handed_over(&east, Some(&moving), Some(&moved)));
        assert!(is_handed_over(&east, Some(&moved), Some(&at_home)));
    }
}
