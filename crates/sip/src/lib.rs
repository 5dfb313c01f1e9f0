//! SIP syntax: parse, print, headers, URIs, framing and digest, byte-preserving.
//!
//! The received octets stay as they are. [`Index`] records where the start line, each header's name and value
//! and the body stand; typed views ([`Via`], [`NameAddr`], [`Uri`], ...) are read on demand; [`Rewrite`]
//! forwards by copying ranges and patching what a proxy changes. Nothing requires UTF-8, known methods,
//! schemes or transports. Parsing into a reused [`Index`] and writing into a reused buffer allocate nothing.
//!
//! Errors have three levels: [`FramingError`] (400, 505, 513, or close), [`HeaderError`] (a bad header that
//! somebody needs: 400), and well formed but refused (416, 420, 483, ...), which is the caller's decision.

mod cseq;
mod date;
pub mod digest;
mod error;
mod generate;
mod header_id;
mod index;
mod message;
mod method;
mod name_addr;
mod owned;
mod parameters;
mod reason;
mod response;
mod rewrite;
mod scan;
mod stream;
mod uri;
mod uri_compare;
mod values;
mod via;

pub use cseq::CSeq;
pub use date::Date;
pub use error::{FramingError, HeaderError, UriError};
pub use generate::{ack_for, cancel_for};
pub use header_id::HeaderId;
pub use index::{Framing, Index};
pub use message::{Contacts, Header, Headers, Message};
pub use method::Method;
pub use name_addr::{Addresses, EXPIRES_MALFORMED_S, NameAddr};
pub use owned::OwnedMessage;
pub use parameters::{Parameter, Parameters};
pub use reason::reason_phrase;
pub use response::ResponseBuilder;
pub use rewrite::Rewrite;
pub use scan::host_address;
pub use stream::{StreamFramer, StreamStep};
pub use uri::{Scheme, Uri};
pub use values::{Values, split_values};
pub use via::{Via, Vias};
