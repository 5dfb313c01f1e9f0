//! Request validation, target choice, forking and response handling of RFC 3261 section 16, as a machine.
//!
//! The driver calls, in this order: [`validate`] (16.3), [`preprocess`] (16.4), its own location service
//! (16.5) and server location (16.6 step 7), then [`Proxy::start`], which forwards to the targets (16.6),
//! gathers the responses (16.7), watches Timer C (16.8), cancels (16.10), and sends a call on that its
//! targets do not take ([`Diversions`]). A refusal becomes a response by
//! [`reject_response`]. An ACK for a 2xx, which belongs to no transaction, goes through
//! [`stateless::forward`] (16.11).
//!
//! Later documents observed: RFC 4320 (no 408 to a non-INVITE, no provisional but 100), RFC 5393 (loop
//! detection, Max-Breadth), RFC 5626 section 7 (one flow of a device at a time), RFC 5658 (double
//! Record-Route), RFC 6026 (a 2xx goes upstream through its server transaction or not at all), RFC 3326
//! (Reason in CANCEL).

mod branch;
mod context;
mod diversion;
mod fork;
mod forwarding;
mod loop_detection;
mod open;
mod output;
mod preprocessing;
mod proxy;
mod rejection;
mod request_uri;
mod responses;
mod settings;
pub mod stateless;
mod target;
mod upstream;
mod validation;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod testing;

pub use branch::BranchFailure;
pub use diversion::{DiversionCause, Diversions, NoAnswer};
pub use forwarding::{ForwardError, dialog_forming, next_hop_uri};
pub use output::{BranchKey, Output};
pub use preprocessing::{OwnNames, Preprocessed, Routing, preprocess};
pub use proxy::{Proxy, ProxyError};
pub use rejection::{Reject, reject_response};
pub use settings::Settings;
pub use target::{Incoming, Target};
pub use validation::{Rules, validate, validate_checked};
