//! Ids, units, epochs, instants, limits and the machine trait that every other crate speaks in.
//!
//! Ring 0: nothing here does IO, reads a clock or draws from a global generator.

mod address_of_record;
mod chance;
pub mod documents;
mod epoch;
mod group;
pub mod limits;
mod machine;
mod names;
mod net;
mod source;
mod time;

pub use address_of_record::{AddressOfRecord, AddressOfRecordError};
pub use chance::Chance;
pub use epoch::{Beat, Epoch, StaleEpoch};
pub use group::RoutingGroup;
pub use machine::Machine;
pub use names::{Fqdn, NameError, PoolName, ServerName, SiteName};
pub use net::{ClientTransaction, FlowId, Leg, NextHop, Peer, Place, Protocol, ServerTransaction};
pub use source::{IpNetwork, NetworkError, Source};
pub use time::{Instant, WallTime};
