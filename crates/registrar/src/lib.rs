//! Bindings, REGISTER processing, authentication and the state of a routing group, as machines.
//!
//! A REGISTER takes this way: [`read_register`] checks and reads it (RFC 3261 section 10.3 steps 2 and 5 to
//! 7), [`authentication::Authenticator`] says who sent it (steps 3 and 4), the resulting [`Change`] goes into
//! a [`Command`] that the store makes durable and hands to [`GroupState::apply`] (steps 6 and 7, atomic and
//! the same on every replica), and [`OkHeaders`] says in the 200 OK what is bound now (step 8). Phones that
//! subscribe to it learn of changes by [`reg_event`].

pub mod authentication;
mod base64;
mod binding;
mod command;
mod contact;
mod error;
mod expiry_spread;
mod flow;
mod group_state;
mod gruu;
mod octets;
mod ok_headers;
mod operation;
mod path;
mod read_register;
mod refresh;
pub mod reg_event;
mod settings;
mod spread;
#[cfg(test)]
mod test_support;
mod user_copy;

pub use binding::{Binding, Bindings};
pub use command::{Change, Command, DeviceLimit, Outcome, Registration, UserChange};
pub use contact::{Contact, ContactChange};
pub use error::RegisterError;
pub use expiry_spread::ExpirySpread;
pub use flow::{FlowRecord, FlowView};
pub use group_state::{GroupState, SnapshotError};
pub use gruu::{Gruu, GruuSeries, Gruus, write_public};
pub use octets::Octets;
pub use ok_headers::{OkHeaders, write_contact};
pub use operation::{OperationId, OperationKey};
pub use path::Path;
pub use read_register::{RegisterRequest, check_extensions, read_register, read_register_of};
pub use refresh::is_refresh;
pub use settings::{PathWithoutSupport, RegisterSettings};
pub use user_copy::{Removal, UserCopy};
