//! Ownership of a home pool: leases, takeover, return and operators' orders, as machines.
//!
//! For each home pool of a pair, both pools run one [`Ownership`]. Together with the witness (the control
//! store) they keep one promise: never two pools able to answer the home pool's users at one instant,
//! whatever the network, the clocks' rates (within 1 %) and the processes do. `docs/protocols/ownership.md`
//! has the rule, the proof and the message formats; the crate `sim` tries to break it.
//!
//! [`decide_register`] says what a pool does with a REGISTER, given what it knows.

mod authority;
mod decision;
mod exchange;
mod order;
mod ownership;
mod promise;
mod record;
mod request;
mod settings;

pub use authority::{Authority, Contact, Service, Standing};
pub use decision::{
    BranchRecovery, BranchView, PoolView, RegisterDecision, SecondRegistration, UserServices,
    decide_branch_register, decide_register,
};
pub use exchange::{CallId, Event, Input, Output, OwnershipError, RequestId};
pub use order::{
    HandoverId, OPERATOR_BYTES_MAX, Operator, Order, OrderBlocker, OrderError, OrderId, OrderKind,
    OrderResult, UndoReason,
};
pub use ownership::Ownership;
pub use promise::{Ask, PromiseAnswer, PromiseRequest, Refusal, Verdict};
pub use record::{OwnershipRecord, PoolState, RecordVersion, StoredRecord, Tenure};
pub use request::{OwnerLink, RequestDecision, decide_request};
#[doc(hidden)]
pub use settings::Planted;
pub use settings::{Parties, Settings};
