//! Client and server transactions of RFC 3261 section 17 with RFC 6026 and RFC 4320, as a machine.
//!
//! One [`Transactions`] per shard. Inputs are method calls with `now`; what is to be done comes out of
//! [`Transactions::poll_output`] in order; time is told with [`Transactions::handle_timeout`]. The four
//! state machines have a file each, without messages or tables: `client_invite`, `client_non_invite`,
//! `server_invite`, `server_non_invite`. `client` and `server` connect them to messages, `key` finds the
//! transaction of a message, `table` and `wheel` keep transactions and their deadlines.
//!
//! What is left to others: the driver checks mandatory headers and that a response's top Via is ours, adds
//! `received` and `rport`, and answers statelessly when a call fails with [`TransactionError::Full`]; the
//! TU sends the ACK for a 2xx and, as a UAS, repeats the 2xx until that ACK comes.

mod answered;
mod client;
mod client_invite;
mod client_non_invite;
mod counters;
mod error;
mod key;
mod output;
mod server;
mod server_invite;
mod server_non_invite;
mod settings;
mod table;
mod transactions;
mod wheel;

pub use counters::Counters;
pub use error::TransactionError;
pub use output::Output;
pub use settings::Settings;
pub use transactions::Transactions;

#[cfg(test)]
mod tests;
