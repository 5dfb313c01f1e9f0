//! Who misbehaves, and who is therefore not listened to for a while.
//!
//! ```text
//!                     guesses of one user                 offences_max within window
//!   unknown source ------------------------> slowed down ----------------------------> banned
//!         ^                                       |                                      |
//!         +--- right password, or nothing more ---+            until it ends             |
//!         +----------------------------- remembered: banned again, twice as long <-------+
//! ```
//!
//! Two things are kept apart, because both can be turned against the honest:
//!
//! * **A ban is of a source and needs proof** that the offences came from there ([`Proof`]): a connection, or
//!   credentials with a nonce that was sent to that source. What comes in a datagram without that can have
//!   been sent by anybody in anybody's name, and counts for nothing.
//! * **Slow-down is of one user from one source**, never of a user: nobody is locked out by what others do
//!   elsewhere. It comes first, so that one phone with a wrong password adds few offences to its source,
//!   and hundreds of phones behind the same NAT go on being served. Whoever is in with the right password
//!   takes offences of his source back, once per window and user.
//!
//! Source: RFC 3261 sections 26.1.5 and 26.3.2.4, RFC 7616 sections 5.4 and 5.5.

mod bans;
mod offence;
mod record;
#[cfg(test)]
mod tests;

pub use bans::{Ban, BanError, Bans, Lifted, Output, Settings};
pub use offence::{Cause, Offence, Proof};
pub use record::UserKey;
