//! Reads a SUBSCRIBE to registrations, and says why one is refused.

use bytes::Bytes;
use model::limits;
use sip::{HeaderError, HeaderId, Message, Parameters};

use super::{CONTENT_TYPE, PACKAGE};
use crate::Octets;

/// Time granted to a SUBSCRIBE that asks for none. Source: RFC 3680 section 4.4.
const EXPIRES_DEFAULT_S: u32 = 3_761;
/// A shorter time than this may be refused, a longer one never (RFC 6665 section 4.2.1.1).
const BRIEF_S: u32 = 3_600;
/// Seconds after which a phone may come again when there is no room.
const RETRY_AFTER_FULL_S: u32 = 60;

/// What a pool grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeSettings {
    /// Shortest subscription granted; a shorter wish gets 423.
    pub expires_min_s: u32,
    /// Longest subscription granted; a longer wish gets this.
    pub expires_max_s: u32,
}

impl Default for SubscribeSettings {
    /// One minute, two hours.
    fn default() -> Self {
        Self { expires_min_s: 60, expires_max_s: 7_200 }
    }
}

/// A SUBSCRIBE, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// The `id` of Event, which each NOTIFY repeats.
    pub event_id: Option<Octets>,
    /// Seconds granted; 0 = end it, or only tell how things stand.
    pub expires_s: u32,
    /// CSeq number.
    pub cseq: u32,
    /// Where NOTIFY goes: the contact URI.
    pub target: Octets,
}

/// Why a SUBSCRIBE is refused. A refused one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// A header that is needed is missing or malformed.
    #[error("a header of the request cannot be used")]
    Header(#[from] HeaderError),
    /// A header above the size that is kept.
    #[error("{header} has more than {max} octets")]
    TooLong {
        /// The header.
        header: HeaderId,
        /// Most octets.
        max: usize,
    },
    /// Another event package than `reg`, or none.
    #[error("only the event package reg is supported")]
    BadEvent,
    /// Accept rules out the only format there is.
    #[error("the subscriber does not accept {CONTENT_TYPE}")]
    NotAcceptable,
    /// A time below the minimum.
    #[error("the subscription is shorter than {min_s} seconds")]
    IntervalTooBrief {
        /// Shortest time granted.
        min_s: u32,
    },
    /// Somebody else's registrations.
    #[error("users subscribe to their own registrations only")]
    Forbidden,
    /// One subscription more than a user may have.
    #[error("the user has {max} subscriptions already")]
    TooManyOfUser {
        /// Most subscriptions.
        max: usize,
    },
    /// A dialog that is none of ours.
    #[error("there is no such subscription")]
    NoSubscription,
    /// A CSeq below that of an earlier SUBSCRIBE of the dialog (RFC 3261 section 12.2.2).
    #[error("the request is older than one that was dealt with")]
    OutOfOrder,
    /// `limits::SUBSCRIPTIONS_MAX` are held.
    #[error("there is no room for another subscription")]
    Full,
}

impl SubscribeError {
    /// Status code of the response.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Header(_) | Self::TooLong { .. } => 400,
            Self::Forbidden | Self::TooManyOfUser { .. } => 403,
            Self::NotAcceptable => 406,
            Self::IntervalTooBrief { .. } => 423,
            Self::NoSubscription => 481,
            Self::BadEvent => 489,
            Self::OutOfOrder => 500,
            Self::Full => 503,
        }
    }

    /// The header that the response carries besides; at most one.
    pub fn header(&self) -> Option<(HeaderId, Bytes)> {
        let warning = |text: String| Some((HeaderId::Warning, format!("399 tandem \"{text}\"").into()));
        match self {
            Self::IntervalTooBrief { min_s } => Some((HeaderId::MinExpires, min_s.to_string().into())),
            Self::BadEvent => Some((HeaderId::AllowEvents, Bytes::from_static(PACKAGE.as_bytes()))),
            Self::NotAcceptable => Some((HeaderId::Accept, Bytes::from_static(CONTENT_TYPE.as_bytes()))),
            Self::Full => Some((HeaderId::RetryAfter, RETRY_AFTER_FULL_S.to_string().into())),
            Self::TooManyOfUser { max } => warning(format!("at most {max} subscriptions per user")),
            Self::Header(error) => warning(error.to_string()),
            Self::TooLong { header, max } => warning(format!("{header} has more than {max} octets")),
            Self::Forbidden | Self::NoSubscription | Self::OutOfOrder => None,
        }
    }
}

/// Reads a SUBSCRIBE.
///
/// Errors: every [`SubscribeError`] that does not depend on what is subscribed to.
pub fn read_subscribe(
    request: Message<'_>,
    settings: &SubscribeSettings,
) -> Result<SubscribeRequest, SubscribeError> {
    let event_id = read_event(request)?;
    check_accept(request)?;
    let expires_s = granted(request.expires()?, settings)?;
    let mut contacts = request.addresses(HeaderId::Contact);
    let malformed = HeaderError::Malformed { header: HeaderId::Contact };
    let contact = contacts.next().ok_or(HeaderError::Missing { header: HeaderId::Contact })??;
    if contacts.next().is_some() || contact.uri().is_err() {
        return Err(malformed.into());
    }
    let target = kept(contact.uri_bytes, HeaderId::Contact, limits::CONTACT_BYTES_MAX)?;
    Ok(SubscribeRequest { event_id, expires_s, cseq: request.cseq()?.number, target })
}

/// The `id` of an Event header that names this package. Both are compared octet by octet (RFC 6665 section
/// 8.2.1).
fn read_event(request: Message<'_>) -> Result<Option<Octets>, SubscribeError> {
    let value = request.header(HeaderId::Event).ok_or(SubscribeError::BadEvent)?;
    let end = value.iter().position(|&octet| octet == b';').unwrap_or(value.len());
    let (package, parameters) = value.split_at_checked(end).unwrap_or_default();
    if package.trim_ascii() != PACKAGE.as_bytes() {
        return Err(SubscribeError::BadEvent);
    }
    let malformed = HeaderError::Malformed { header: HeaderId::Event };
    let parameters = Parameters::parse(parameters).ok_or(malformed)?;
    let id = parameters.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(b"id"));
    match id.map(|id| (id.value, id.is_quoted)) {
        None => Ok(None),
        Some((Some(id), false)) => kept(id, HeaderId::Event, limits::EVENT_ID_BYTES_MAX).map(Some),
        Some((None, _) | (Some(_), true)) => Err(malformed.into()),
    }
}

fn check_accept(request: Message<'_>) -> Result<(), SubscribeError> {
    let is_ours = |value: &[u8]| {
        let range = value.split(|&octet| octet == b';').next().unwrap_or_default().trim_ascii();
        let ours = [CONTENT_TYPE.as_bytes(), b"application/*", b"*/*"];
        ours.iter().any(|ours| range.eq_ignore_ascii_case(ours))
    };
    if !request.has(HeaderId::Accept) || request.values(HeaderId::Accept).any(is_ours) {
        Ok(())
    } else {
        Err(SubscribeError::NotAcceptable)
    }
}

fn granted(asked_s: Option<u32>, settings: &SubscribeSettings) -> Result<u32, SubscribeError> {
    let asked_s = asked_s.unwrap_or(EXPIRES_DEFAULT_S);
    if asked_s > 0 && asked_s < BRIEF_S && asked_s < settings.expires_min_s {
        return Err(SubscribeError::IntervalTooBrief { min_s: settings.expires_min_s });
    }
    Ok(asked_s.min(settings.expires_max_s))
}

fn kept(octets: &[u8], header: HeaderId, max: usize) -> Result<Octets, SubscribeError> {
    if octets.len() > max { Err(SubscribeError::TooLong { header, max }) } else { Ok(octets.into()) }
}
