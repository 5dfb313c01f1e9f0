//! What the driver hands over: a request and where it may go.

use std::sync::Arc;

use bytes::Bytes;
use model::{Leg, NextHop, ServerTransaction};
use sip::OwnedMessage;

use crate::{Diversions, Routing};

/// One place a request may go to, resolved. Source: RFC 3261 sections 16.5 and 16.6.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the bytes go: what [`crate::next_hop_uri`] resolves to.
    pub next_hop: NextHop,
    /// The Request-URI of this target; parameters and headers that a Request-URI may not have are removed.
    pub request_uri: Bytes,
    /// Values to push on top of Route, first to visit first: a stored Path (RFC 3327), or policy (16.6 step
    /// 6).
    pub routes: Vec<Bytes>,
    /// Preference in thousandths: higher ones are tried first, equal ones at once.
    pub q: u16,
    /// The device, when several targets are flows to one: any number, the same for the same address-of-record
    /// and `+sip.instance`. Only one flow of a device is tried at a time, another only after a 408, a 430 or
    /// a failure to send. `None`: a device of its own. Source: RFC 5626 section 7.
    pub device: Option<u64>,
    /// Our Via and Record-Route towards the target.
    pub leg: Arc<Leg>,
    /// Value of a Diversion header field to put on top: who sent the call here, and why. Source: RFC 5806.
    pub diversion: Option<Bytes>,
}

impl Target {
    /// Whether this is the same place over the same way (16.5: a target is in the set once).
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.next_hop == other.next_hop
            && self.routes == other.routes
            && same_uri(&self.request_uri, &other.request_uri)
    }
}

/// Whether two URIs are the same by RFC 3261 section 19.1.4; unreadable ones only when equal octet by octet.
pub(crate) fn same_uri(one: &[u8], other: &[u8]) -> bool {
    one == other
        || matches!(
            (sip::Uri::parse(one), sip::Uri::parse(other)),
            (Ok(one), Ok(other)) if one.is_equivalent(&other)
        )
}

/// A request that passed validation, with its targets. Source: RFC 3261 section 16.6.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The server transaction that waits for the response.
    pub server: ServerTransaction,
    /// The request as received.
    pub request: Arc<OwnedMessage>,
    /// Our Record-Route towards the caller.
    pub leg: Arc<Leg>,
    /// Whether we stay on the path of the dialog; [`crate::dialog_forming`] says for which requests it
    /// matters. The URIs in the legs are SIPS where 16.6 step 4 asks for it.
    pub record_route: bool,
    /// What of the received Route was ours: [`crate::Preprocessed::routing`].
    pub routing: Routing,
    /// Whether a 430 may be passed on to who sent it: a proxy that knows the flows of devices, never an
    /// endpoint (RFC 5626 section 11.5).
    pub knows_flows: bool,
    /// Where it may go, in any order.
    pub targets: Vec<Target>,
    /// Where an INVITE goes when these do not take it.
    pub diversions: Option<Box<Diversions>>,
}
