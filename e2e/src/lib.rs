//! End-to-end tests with real processes, phones and faults: the harness.
//!
//! A test makes a [`Deployment`]: a folder made by `tandem init`, in a network namespace of its own
//! ([`Namespace`]), so that tests collide neither with each other nor with anybody's running servers. Servers
//! are real processes that can be killed, frozen and started again; links are cut with nftables. The
//! [`Phone`] is a small SIP phone, written from the RFCs and not from our own parser, that keeps exact
//! account of what it was answered and when.

pub mod attacker;
pub mod browser;
pub mod burst;
mod contact_lists;
pub mod crowd;
mod deployment;
mod digest;
mod disk;
pub mod documents;
mod ledger;
mod message;
mod name_server;
mod namespace;
mod operator;
mod phone;
pub mod rows;
mod sight;
mod sipp;
mod socket;
pub mod softphone;
mod wait;
mod websocket;

pub use contact_lists::ContactLists;
pub use deployment::{Deployment, Ran, RunningCommand, SERVERS, Timing, tandem_binary};
pub use disk::Disk;
pub use ledger::{Owner, Watch};
pub use message::Message;
pub use name_server::NameServer;
pub use namespace::Namespace;
pub use operator::{Operator, Reply};
pub use phone::{Answer, Call, Heard, Manners, Phone, Registration, Subscription};
pub use sight::{Sight, Watcher};
pub use sipp::{Sipp, SippResult};
pub use socket::Via;
pub use wait::{wait_for, wait_until};
