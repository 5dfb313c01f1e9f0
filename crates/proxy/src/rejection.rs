//! Requests that are not forwarded, and the responses that say why. Source: RFC 3261 sections 8.2 and 16.3.

use bytes::Bytes;
use sip::{HeaderError, Message, ResponseBuilder, UriError};

use crate::{ForwardError, ProxyError};

/// Why a request with a SIPS URI reaches nobody (RFC 5630 section 6.3).
const SIPS_NOT_ALLOWED: &[u8] = b"380 tandem \"SIPS Not Allowed\"";

/// Why a request is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// A header that the proxy needs is missing or malformed: 400.
    #[error("a header field the proxy needs is bad")]
    Header(#[source] HeaderError),
    /// The Request-URI is malformed: 400.
    #[error("the Request-URI is malformed")]
    RequestUri(#[source] UriError),
    /// The URI in Route that decides the next hop is malformed: 400.
    #[error("the URI in Route is malformed")]
    RouteUri(#[source] UriError),
    /// The scheme of the Request-URI is not understood: 416.
    #[error("the scheme of the Request-URI is not supported")]
    UnsupportedScheme,
    /// Max-Forwards is 0: 483.
    #[error("Max-Forwards is used up")]
    TooManyHops,
    /// The request has been here before and nothing has changed: 482.
    #[error("the request has looped")]
    LoopDetected,
    /// Proxy-Require names an extension that is not understood: 420 with Unsupported.
    #[error("Proxy-Require asks for what is not supported")]
    BadExtension {
        /// The option tags, separated by commas.
        unsupported: Bytes,
    },
    /// No Max-Breadth is left: 440. Source: RFC 5393.
    #[error("Max-Breadth is used up")]
    MaxBreadthExceeded,
    /// The sender may not do this, or its flow token was tampered with: 403.
    #[error("the request is not allowed")]
    Forbidden,
    /// The voice policy of the caller does not allow the call: 403.
    #[error("the voice policy of the caller does not allow this call")]
    CallNotAllowed,
    /// No such user, or no such resource here: 404.
    #[error("there is no such user")]
    NotFound,
    /// The flow that the flow token names is gone: 430. Source: RFC 5626.
    #[error("the flow to the device is gone")]
    FlowFailed,
    /// The user has no device registered: 480.
    #[error("the user has no device")]
    TemporarilyUnavailable,
    /// No device of the user can be reached now: 480 with Retry-After. Source: RFC 3261 section 21.4.18.
    #[error("no device of the user can be reached")]
    Unreachable {
        /// Seconds until another attempt makes sense.
        retry_after_s: u32,
    },
    /// The request asks for TLS all the way, and the user's devices have registered without: 480 with Warning
    /// 380. Source: RFC 5630 section 5.3.
    #[error("no device of the user is reached by TLS all the way")]
    SipsNotAllowed,
    /// A CANCEL for a request that is not known: 481.
    #[error("there is no such call or transaction")]
    NoSuchTransaction,
    /// The user does not want to be disturbed: 486.
    #[error("the user does not want to be disturbed")]
    Busy,
    /// The caller cancelled before the request was forwarded: 487.
    #[error("the caller cancelled the request")]
    Terminated,
    /// Something failed here: 500.
    #[error("the server failed")]
    ServerInternal,
    /// Full, or not able to serve now: 503 with Retry-After.
    #[error("the service is not available now")]
    ServiceUnavailable {
        /// Seconds until another attempt makes sense.
        retry_after_s: u32,
    },
    /// Somebody who had to be asked, such as a name server, did not answer: 504. Source: RFC 3261 section
    /// 21.5.5.
    #[error("the next hop could not be looked up")]
    ServerTimeout,
    /// The request would be too large when forwarded: 513.
    #[error("the message is too large")]
    MessageTooLarge,
}

impl Reject {
    /// Status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::Header(_) | Self::RequestUri(_) | Self::RouteUri(_) => 400,
            Self::Forbidden | Self::CallNotAllowed => 403,
            Self::NotFound => 404,
            Self::UnsupportedScheme => 416,
            Self::BadExtension { .. } => 420,
            Self::FlowFailed => 430,
            Self::MaxBreadthExceeded => 440,
            Self::TemporarilyUnavailable | Self::Unreachable { .. } | Self::SipsNotAllowed => 480,
            Self::NoSuchTransaction => 481,
            Self::LoopDetected => 482,
            Self::TooManyHops => 483,
            Self::Busy => 486,
            Self::Terminated => 487,
            Self::ServerInternal => 500,
            Self::ServiceUnavailable { .. } => 503,
            Self::ServerTimeout => 504,
            Self::MessageTooLarge => 513,
        }
    }

    /// Reason phrase; for a 400 it names what is bad, as RFC 3261 section 21.4.1 asks, for a call that is not
    /// allowed the reason, which phones show.
    fn reason(&self) -> String {
        match self {
            Self::Header(error) => format!("Bad Request: {error}"),
            Self::RequestUri(_) => "Bad Request: the Request-URI is malformed".to_owned(),
            Self::CallNotAllowed => "Forbidden: Your Voice Policy Does Not Allow This Call".to_owned(),
            Self::RouteUri(_) => "Bad Request: the URI in Route is malformed".to_owned(),
            Self::UnsupportedScheme
            | Self::TooManyHops
            | Self::LoopDetected
            | Self::BadExtension { .. }
            | Self::MaxBreadthExceeded
            | Self::Forbidden
            | Self::NotFound
            | Self::FlowFailed
            | Self::TemporarilyUnavailable
            | Self::Unreachable { .. }
            | Self::SipsNotAllowed
            | Self::NoSuchTransaction
            | Self::Busy
            | Self::Terminated
            | Self::ServerInternal
            | Self::ServiceUnavailable { .. }
            | Self::ServerTimeout
            | Self::MessageTooLarge => sip::reason_phrase(self.status()).to_owned(),
        }
    }
}

impl From<&ForwardError> for Reject {
    fn from(error: &ForwardError) -> Self {
        match error {
            ForwardError::TooLarge => Self::MessageTooLarge,
            ForwardError::Malformed(_) => Self::ServerInternal,
        }
    }
}

impl From<&ProxyError> for Reject {
    fn from(error: &ProxyError) -> Self {
        match error {
            ProxyError::NoTargets => Self::TemporarilyUnavailable,
            ProxyError::Full { retry_after_s } => Self::ServiceUnavailable { retry_after_s: *retry_after_s },
            ProxyError::AlreadyStarted { .. } => Self::ServerInternal,
        }
    }
}

/// Appends the response that refuses `request`, with `to_tag` in To when it has none. An ACK is never
/// answered: the caller sees to that.
pub fn reject_response(request: Message<'_>, reject: &Reject, to_tag: &[u8], out: &mut Vec<u8>) {
    let reason = reject.reason();
    let retry_after_s;
    let mut builder = ResponseBuilder::new(request, reject.status(), reason.as_bytes()).to_tag(to_tag);
    match reject {
        Reject::SipsNotAllowed => builder = builder.header("Warning", SIPS_NOT_ALLOWED),
        Reject::BadExtension { unsupported } => builder = builder.header("Unsupported", unsupported),
        Reject::ServiceUnavailable { retry_after_s: seconds }
        | Reject::Unreachable { retry_after_s: seconds } => {
            retry_after_s = seconds.to_string();
            builder = builder.header("Retry-After", retry_after_s.as_bytes());
        }
        Reject::Header(_)
        | Reject::RequestUri(_)
        | Reject::RouteUri(_)
        | Reject::UnsupportedScheme
        | Reject::TooManyHops
        | Reject::LoopDetected
        | Reject::MaxBreadthExceeded
        | Reject::Forbidden
        | Reject::CallNotAllowed
        | Reject::Busy
        | Reject::NotFound
        | Reject::FlowFailed
        | Reject::TemporarilyUnavailable
        | Reject::NoSuchTransaction
        | Reject::Terminated
        | Reject::ServerInternal
        | Reject::ServerTimeout
        | Reject::MessageTooLarge => {}
    }
    builder.write_to(out);
}
