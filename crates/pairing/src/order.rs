//! Operators' orders: failover, switchover, failback, and why one is not carried out.

use std::{fmt, str::FromStr};

use model::{Epoch, PoolName, WallTime};
use serde::{Deserialize, Serialize};

use crate::PoolState;

/// Octets of an operator's name in an order. More: the order is refused before it is given.
pub const OPERATOR_BYTES_MAX: usize = 128;

/// The identity of an order: 128 bits, drawn by whoever gives it. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderId(u128);

impl OrderId {
    /// The identity with these bits.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<OrderId> for String {
    fn from(id: OrderId) -> Self {
        id.to_string()
    }
}

impl FromStr for OrderId {
    type Err = OrderError;

    fn from_str(text: &str) -> Result<Self, OrderError> {
        let is_hex = text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
        bits.map(Self).ok_or(OrderError::Id)
    }
}

impl TryFrom<String> for OrderId {
    type Error = OrderError;

    fn try_from(text: String) -> Result<Self, OrderError> {
        text.parse()
    }
}

/// Who gave an order, as the records show it: 1 to [`OPERATOR_BYTES_MAX`] octets without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Operator(String);

impl Operator {
    /// Checks the name. Errors: [`OrderError::Operator`].
    pub fn new(text: impl Into<String>) -> Result<Self, OrderError> {
        let text = text.into();
        let is_good = (1..=OPERATOR_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if is_good { Ok(Self(text)) } else { Err(OrderError::Operator) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Operator> for String {
    fn from(operator: Operator) -> Self {
        operator.0
    }
}

impl TryFrom<String> for Operator {
    type Error = OrderError;

    fn try_from(text: String) -> Result<Self, OrderError> {
        Self::new(text)
    }
}

/// Why a text is not an order's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Not an identity.
    #[error("an order's id is 32 hexadecimal digits")]
    Id,
    /// Not an operator's name.
    #[error("an operator's name is 1 to {OPERATOR_BYTES_MAX} octets without control characters")]
    Operator,
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// The partner takes everything; the home pool is alive, or the partner took over by itself.
    Failover,
    /// The partner takes everything from a home pool that cannot be reached; what was not copied is accepted
    /// as lost until it comes back.
    Disaster,
    /// The partner takes everything; both pools are alive and nothing is lost.
    Switchover,
    /// The home pool gets its users back; both pools are alive and nothing is lost.
    Failback,
    /// The home pool takes its users from a partner that cannot be reached; what was not copied is accepted
    /// as lost until the partner comes back.
    DisasterFailback,
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failover => "failover",
            Self::Disaster => "failover --disaster",
            Self::Switchover => "switchover",
            Self::Failback => "failback",
            Self::DisasterFailback => "failback --disaster",
        })
    }
}

/// An operator's order about one home pool. The ownership record keeps the last one that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by whoever orders; the same id again is the same order, not a second one.
    pub id: OrderId,
    /// What is ordered.
    pub kind: OrderKind,
    /// The epoch that whoever orders saw when planning. An order made for an epoch that is over does nothing.
    pub epoch: Epoch,
    /// When it was given, by the clock of whoever gave it. Data only: nothing is decided by it.
    pub ordered_at: WallTime,
    /// Who gave it.
    pub by: Operator,
}

/// Why an operation ended where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoReason {
    /// By an operator.
    Cancelled,
    /// The other pool did not come close to holding everything within `Settings::operation_max`.
    NotClose,
    /// The other pool came close, but did not confirm in time that it holds everything.
    NotConfirmed,
    /// The other pool, or the witness, was not heard steadily enough within `Settings::operation_max`.
    NotHeard,
}

impl fmt::Display for UndoReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled by an operator",
            Self::NotClose => "the other pool did not catch up in time",
            Self::NotConfirmed => "the other pool did not confirm in time that it holds everything",
            Self::NotHeard => "the other pool or the control store was not heard steadily enough",
        })
    }
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderResult {
    /// It is in the ownership record and is being carried out, or was done at once.
    Accepted {
        /// The state it led to.
        state: PoolState,
    },
    /// It was accepted before; nothing new was begun.
    Repeated {
        /// The state now.
        state: PoolState,
        /// Set when it was undone meanwhile.
        undone: Option<UndoReason>,
    },
    /// It was not begun.
    Refused {
        /// Every reason the machine knows, at least one, in the order of [`OrderBlocker`].
        blockers: Vec<OrderBlocker>,
    },
    /// The witness did not answer in time: it may still be begun. Give the same order again to find out.
    Unsure,
}

/// What stands in the way of an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum OrderBlocker {
    /// This pool does not know yet who the owner is.
    #[error("this pool does not know yet which pool owns the users; try again in a few seconds")]
    OwnerUnknown,
    /// The order has to be given to the owner.
    #[error("the users are owned by {owner}: give the order there")]
    NotTheOwner {
        /// Where to give it.
        owner: PoolName,
    },
    /// Ownership changed after the order was planned.
    #[error("ownership changed since the order was planned (epoch {planned}, now {known}): look again")]
    OtherEpoch {
        /// In the order.
        planned: Epoch,
        /// Now.
        known: Epoch,
    },
    /// Nothing is left to do.
    #[error("this is already done: the pool is {}", state_text(*.state))]
    AlreadyDone {
        /// The state.
        state: PoolState,
    },
    /// Another operation is under way.
    #[error("another operation is under way: {kind}, order {id}")]
    OtherOperation {
        /// Its kind.
        kind: OrderKind,
        /// Its id.
        id: OrderId,
    },
    /// An operation is under way whose order this pool does not know.
    #[error("another operation is under way")]
    UnknownOperation,
    /// The partner took over by itself: what the home pool did not hand over cannot be got by a switchover.
    #[error("the partner took the users over by itself: a failover makes it permanent, a switchover cannot")]
    TakenOver,
    /// A takeover ended by itself, so there is nothing that only a command returns.
    #[error("the pool was not failed over by command: its users return by themselves")]
    ReturnsByItself,
    /// The owner, another pool than this, is not heard here.
    #[error("{owner} is not heard here: `--disaster` goes on without what it did not copy")]
    OwnerUnheard {
        /// The owner.
        owner: PoolName,
    },
    /// The owner is alive: a disaster order would lose what an ordinary one keeps.
    #[error("{owner} is alive and owns the users: the order without `--disaster` loses nothing")]
    OwnerAlive {
        /// The owner.
        owner: PoolName,
    },
    /// The other pool does not answer the owner.
    #[error("the other pool does not answer")]
    PartnerUnheard,
    /// The owner may not serve at this moment.
    #[error("this pool is the owner, but does not serve at this moment")]
    NotServing,
    /// This pool cannot serve: quorum, disk or operator.
    #[error("this pool is not able to serve (quorum, disk, or stopped by an operator)")]
    Unable,
    /// The witness does not answer this pool.
    #[error("the control store does not answer")]
    NoWitness,
    /// No such operation is under way.
    #[error("nothing to cancel: no operation of that id is under way")]
    NothingToCancel,
    /// The last step is under way or done.
    #[error("too late to cancel: the last step is under way or done")]
    TooLateToCancel,
    /// Another order waits for the witness.
    #[error("another order is being written to the control store; try again")]
    Busy,
}

fn state_text(state: PoolState) -> &'static str {
    match state {
        PoolState::Active => "served by its own servers",
        PoolState::TakenOver => "taken over by its partner",
        PoolState::FailingOver => "failing over",
        PoolState::FailedOver => "failed over",
        PoolState::FailingBack => "failing back",
    }
}

/// One drained handover: from the moment the owner stopped until it is confirmed or given up. Unique until
/// the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoverId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_is_thirty_two_hexadecimal_digits_and_nothing_else() {
        let id: OrderId = "00000000000000000000000000000abc".parse().unwrap();
        assert_eq!((id, id.to_string().len()), (OrderId::new(0xabc), 32));
        for text in ["", "abc", "+0000000000000000000000000000abc", "0000000000000000000000000000000g"] {
            assert_eq!(text.parse::<OrderId>(), Err(OrderError::Id), "{text}");
        }
    }

    #[test]
    fn an_operators_name_is_bounded_and_printable() {
        assert!(Operator::new("ada@example.org").is_ok());
        for text in [String::new(), "a\nb".to_owned(), "x".repeat(OPERATOR_BYTES_MAX + 1)] {
            assert_eq!(Operator::new(text), Err(OrderError::Operator));
        }
    }

    #[test]
    fn blockers_read_as_sentences_for_an_operator() {
        let owner = PoolName::new("west").unwrap();
        let text = OrderBlocker::NotTheOwner { owner }.to_string();
        assert_eq!(text, "the users are owned by west: give the order there");
        let done = OrderBlocker::AlreadyDone { state: PoolState::FailedOver };
        assert_eq!(done.to_string(), "this is already done: the pool is failed over");
    }
}
