//! What every implementation of a store must do, as suites that its tests run unchanged.
//!
//! A suite is a function generic over a factory that opens the store, and opens it again on the same data. It
//! panics with what was expected where an implementation differs; call it from a `#[test]`.

mod control;
mod hot;
mod user;

pub use control::{ControlFactory, control_store};
pub use hot::{HotFactory, hot_store, listing, register, submit_and_wait, unregister, user};
pub use user::{UserFactory, user_store};
