//! RFC 3261 section 16 step by step, and the RFCs that changed it.

mod cancelling;
mod diverting;
mod forking;
mod forwarding;
mod responding;
mod routing;
