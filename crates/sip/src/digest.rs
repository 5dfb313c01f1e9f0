//! Digest authentication: credentials, challenges and responses. Source: RFC 7616, RFC 8760, RFC 3261 section
//! 22.
//!
//! `qop="auth"` is offered and understood, and the form without `qop` of RFC 2069, which RFC 3261 section
//! 22.4 still allows. `auth-int`, session algorithms and hashed user names are never offered and are refused
//! when they come. Reading credentials and checking a response allocate nothing.

mod algorithm;
mod challenge;
mod credentials;
mod info;
mod response;

pub use algorithm::Algorithm;
pub use challenge::Challenge;
pub use credentials::{Credentials, CredentialsError, Protection, Quoted};
pub use info::AuthenticationInfo;
pub use response::{Ha1, HexDigest, expected_response, verify};
