//! End-to-end tests with real processes, phones and faults: the harness.
//!
//! A test makes a [`Deployment`]: a folder made by `tandem init`, in a network namespace of its own
//! ([`Namespace`]), so that tests collide neither with each other nor with anybody's running servers. Servers
//! are real processes that can be killed, frozen and started again; links are cut with nftables. The
//! [`Phone`] is a small SIP phone, written from the RFCs and not from our own parser, that keeps exact
//! account of what it was answered and when.

mod deployment;
mod digest;
mod ledger;
mod message;
mod namespace;
mod phone;
mod sipp;
mod socket;
pub mod softphone;
mod wait;

pub use deployment::{Deployment, Ran, SERVERS, Timing, tandem_binary};
pub use ledger::{Owner, Watch};
pub use message::Message;
pub use namespace::Namespace;
pub use phone::{Answer, Call, Heard, Manners, Phone, Registration};
pub use sipp::{Sipp, SippResult};
pub use socket::Via;
pub use wait::{wait_for, wait_until};
