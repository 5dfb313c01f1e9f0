//! What goes into an ownership machine and what comes out of it.

use model::{Epoch, PoolName};

use crate::{
    Authority, HandoverId, Order, OrderId, OrderResult, OwnershipRecord, PromiseAnswer, PromiseRequest,
    RecordVersion, StoredRecord, Tenure, UndoReason,
};

/// A request of this machine to the witness or to the other pool; unique until the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request of the other pool or an order that waits for our answer; chosen by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What happened. The driver reads `now` *after* it received what it reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The witness answered a read.
    RecordRead {
        /// Of the [`Output::Read`].
        request: RequestId,
        /// What is stored; `None` when nothing is.
        found: Option<StoredRecord>,
    },
    /// The witness made the change.
    Swapped {
        /// Of the [`Output::CompareAndSet`].
        request: RequestId,
        /// Version of the new value.
        version: RecordVersion,
    },
    /// The witness did not make the change: another value is stored.
    SwapRefused {
        /// Of the [`Output::CompareAndSet`].
        request: RequestId,
        /// What is stored, when the witness says it.
        found: Option<StoredRecord>,
    },
    /// The witness did not answer, or with an error; whether a change was made is unknown.
    WitnessFailed {
        /// Of the [`Output::Read`] or [`Output::CompareAndSet`].
        request: RequestId,
    },
    /// The other pool answered.
    PartnerAnswered {
        /// Of the [`Output::AskPartner`].
        request: RequestId,
        /// Its answer.
        answer: PromiseAnswer,
    },
    /// The other pool did not answer, or with an error.
    PartnerFailed {
        /// Of the [`Output::AskPartner`].
        request: RequestId,
    },
    /// The other pool asks; answered by one [`Output::Answer`] at once.
    PromiseAsked {
        /// Comes back in the answer.
        call: CallId,
        /// Its request; `from` is already checked against its certificate.
        body: PromiseRequest,
    },
    /// This pool became able or unable to serve: quorum, disk, operator. Able at the start.
    AbilityChanged {
        /// Whether it is able now.
        is_able: bool,
    },
    /// An operator orders; answered by one [`Output::OrderAnswer`], as soon as it is certain: at once, when
    /// the witness has it, or when that took too long.
    Ordered {
        /// Comes back in the answer.
        call: CallId,
        /// The order.
        order: Order,
    },
    /// An operator cancels the operation that this order began; answered by one [`Output::OrderAnswer`].
    CancelOrdered {
        /// Comes back in the answer.
        call: CallId,
        /// Id of the order that is to be undone.
        of: OrderId,
    },
    /// While this pool owns: whether the other pool is so close to holding everything (documents, bindings,
    /// for a failback the home pool's orphans too) that the rest can be sent within
    /// [`crate::Settings::drain_max`]. Not close at the start and after a handover that failed.
    HandoverProgress {
        /// Whether it is close now.
        is_close: bool,
    },
    /// The other pool confirmed that it durably holds everything that was acknowledged here.
    HandoverFinished {
        /// Of the [`Output::FinishHandover`].
        handover: HandoverId,
    },
    /// The other pool cannot confirm it.
    HandoverFailed {
        /// Of the [`Output::FinishHandover`].
        handover: HandoverId,
    },
}

/// Work for the driver, executed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read the ownership record from a quorum of the witness.
    Read {
        /// Comes back with the answer.
        request: RequestId,
    },
    /// Replace the ownership record if its version is still the expected one.
    CompareAndSet {
        /// Comes back with the answer.
        request: RequestId,
        /// Version to replace; `None`: only if nothing is stored.
        expected: Option<RecordVersion>,
        /// What to store.
        record: OwnershipRecord,
    },
    /// Send this to the other pool.
    AskPartner {
        /// Comes back with the answer.
        request: RequestId,
        /// What to send.
        body: PromiseRequest,
    },
    /// Answer the other pool. Every [`Output::Authority`] before it has to be in force first.
    Answer {
        /// Of the [`Input::PromiseAsked`].
        call: CallId,
        /// What to send.
        body: PromiseAnswer,
    },
    /// Put this authority in force in every thread that answers phones, before the next output is executed.
    Authority(Option<Authority>),
    /// Keep this on disk and give it back at the next start. Safety does not depend on it.
    Remember(Tenure),
    /// This pool stopped serving: wait until every write accepted before is durable here or refused, send the
    /// rest to the other pool and report [`Input::HandoverFinished`] when it confirmed to hold all of it,
    /// durably. The machine gives up after [`crate::Settings::drain_max`] and then ignores the report.
    FinishHandover {
        /// Comes back in the report.
        handover: HandoverId,
    },
    /// What became of an order or a cancel.
    OrderAnswer {
        /// Of the [`Input::Ordered`] or [`Input::CancelOrdered`].
        call: CallId,
        /// What became of it.
        result: OrderResult,
    },
    /// Log and count this.
    Event(Event),
}

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This pool learnt who the owner is, or that it changed.
    OwnerKnown(Tenure),
    /// This pool began to serve the home pool's users.
    ServingBegan {
        /// Under this epoch.
        epoch: Epoch,
    },
    /// This pool stopped serving the home pool's users.
    ServingEnded {
        /// Under this epoch.
        epoch: Epoch,
    },
    /// The owner was silent for too long; this pool asks the witness to make it the owner.
    TakeoverBegan {
        /// The epoch it would get.
        epoch: Epoch,
    },
    /// The owner was not silent after all, or the witness did not answer.
    TakeoverAbandoned {
        /// The epoch it would have got.
        epoch: Epoch,
    },
    /// The home pool is back and stable; this pool stopped serving and asks the witness to return the users.
    ReturnBegan {
        /// The home pool's new epoch.
        epoch: Epoch,
    },
    /// The witness did not answer; this pool goes on as the owner.
    ReturnAbandoned {
        /// The epoch the home pool would have got.
        epoch: Epoch,
    },
    /// An order was begun: it is in the ownership record.
    OperationBegan(Order),
    /// The operation that this order began is completed: the users are where it wanted them.
    OperationCompleted(Order),
    /// The operation that this order began was undone: the users stay where they were.
    OperationUndone {
        /// The order.
        order: Order,
        /// Why.
        reason: UndoReason,
    },
    /// This pool stopped serving and waits for the other pool to confirm that it holds everything.
    HandoverBegan {
        /// Which.
        handover: HandoverId,
    },
    /// The other pool did not confirm in time, or the witness did not answer; this pool serves again.
    HandoverAbandoned {
        /// Which.
        handover: HandoverId,
    },
    /// The witness holds a record whose owner is not of this pair; it is ignored until an operator corrects
    /// it.
    OwnerImpossible(Tenure),
    /// The witness holds an older record than this pool knows, or none: it was restored or emptied.
    WitnessBehind {
        /// The epoch of its record.
        stored: Option<Epoch>,
        /// The epoch this pool knows.
        known: Epoch,
    },
}

/// Why an input was refused; a refused input changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnershipError {
    /// The request is about another home pool than this machine's.
    #[error("the request is about home pool {home}")]
    WrongHome {
        /// The home pool in the request.
        home: PoolName,
    },
    /// The request is not from the other pool of the pair.
    #[error("pool {from} has no part in the ownership of this home pool")]
    Stranger {
        /// The pool that asked.
        from: PoolName,
    },
    /// The request names an owner outside the pair, or the asker claims a tenure that is not its own.
    #[error("pool {owner} cannot be the owner here")]
    ImpossibleOwner {
        /// The owner in the request.
        owner: PoolName,
    },
}

impl OwnershipError {
    /// Status of the HTTP answer to the other pool.
    pub fn status(&self) -> u16 {
        match self {
            Self::WrongHome { .. } => 404,
            Self::Stranger { .. } => 403,
            Self::ImpossibleOwner { .. } => 400,
        }
    }
}
