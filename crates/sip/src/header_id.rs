//! Names of header fields, long and compact, found by a perfect hash made at compile time.

use std::fmt;

macro_rules! header_ids {
    ($($variant:ident = $name:literal,)*) => {
        /// A header field that this crate knows by name. All others are [`HeaderId::Other`] and pass
        /// untouched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum HeaderId {
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
            /// A field that is not in this list; its name is in the message.
            Other,
        }

        impl HeaderId {
            /// Every known field, without [`HeaderId::Other`].
            pub const KNOWN: &'static [Self] = &[$(Self::$variant,)*];

            /// The long name in its usual spelling; empty for [`HeaderId::Other`].
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other => "",
                }
            }
        }
    };
}

header_ids! {
    Via = "Via",
    From = "From",
    To = "To",
    CallId = "Call-ID",
    CSeq = "CSeq",
    MaxForwards = "Max-Forwards",
    Contact = "Contact",
    Route = "Route",
    RecordRoute = "Record-Route",
    Path = "Path",
    ServiceRoute = "Service-Route",
    Expires = "Expires",
    MinExpires = "Min-Expires",
    ContentLength = "Content-Length",
    ContentType = "Content-Type",
    ContentEncoding = "Content-Encoding",
    ContentLanguage = "Content-Language",
    ContentDisposition = "Content-Disposition",
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    WwwAuthenticate = "WWW-Authenticate",
    ProxyAuthenticate = "Proxy-Authenticate",
    AuthenticationInfo = "Authentication-Info",
    ProxyAuthenticationInfo = "Proxy-Authentication-Info",
    Require = "Require",
    ProxyRequire = "Proxy-Require",
    Supported = "Supported",
    Unsupported = "Unsupported",
    Allow = "Allow",
    AllowEvents = "Allow-Events",
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    AcceptContact = "Accept-Contact",
    RejectContact = "Reject-Contact",
    RequestDisposition = "Request-Disposition",
    AlertInfo = "Alert-Info",
    CallInfo = "Call-Info",
    ErrorInfo = "Error-Info",
    Date = "Date",
    Event = "Event",
    SubscriptionState = "Subscription-State",
    SipEtag = "SIP-ETag",
    SipIfMatch = "SIP-If-Match",
    UserAgent = "User-Agent",
    Server = "Server",
    Warning = "Warning",
    RetryAfter = "Retry-After",
    FeatureCaps = "Feature-Caps",
    FlowTimer = "Flow-Timer",
    MaxBreadth = "Max-Breadth",
    Timestamp = "Timestamp",
    Reason = "Reason",
    Subject = "Subject",
    Priority = "Priority",
    Organization = "Organization",
    InReplyTo = "In-Reply-To",
    ReplyTo = "Reply-To",
    MimeVersion = "MIME-Version",
    RAck = "RAck",
    RSeq = "RSeq",
    ReferTo = "Refer-To",
    ReferredBy = "Referred-By",
    Replaces = "Replaces",
    Join = "Join",
    SessionExpires = "Session-Expires",
    MinSe = "Min-SE",
    Privacy = "Privacy",
    PAssertedIdentity = "P-Asserted-Identity",
    PPreferredIdentity = "P-Preferred-Identity",
    HistoryInfo = "History-Info",
    Diversion = "Diversion",
    Identity = "Identity",
    InfoPackage = "Info-Package",
    RecvInfo = "Recv-Info",
}

impl HeaderId {
    /// The field of this name, long or compact, in any case (RFC 3261 section 7.3.1).
    #[inline]
    pub fn from_name(name: &[u8]) -> Self {
        let (Some(&first), Some(&middle), Some(&last)) =
            (name.first(), name.get(name.len() / 2), name.last())
        else {
            return Self::Other;
        };
        if name.len() == 1 {
            return Self::from_compact(first);
        }
        let slot = slot(SEED, name.len(), first, middle, last);
        let found = SLOTS.get(slot).copied().unwrap_or(Self::Other);
        if is_same_name(name, found.name().as_bytes()) { found } else { Self::Other }
    }

    /// Compact forms: RFC 3261 section 7.3.3 and the IANA registry.
    const fn from_compact(letter: u8) -> Self {
        match letter.to_ascii_lowercase() {
            b'a' => Self::AcceptContact,
            b'b' => Self::ReferredBy,
            b'c' => Self::ContentType,
            b'd' => Self::RequestDisposition,
            b'e' => Self::ContentEncoding,
            b'f' => Self::From,
            b'i' => Self::CallId,
            b'j' => Self::RejectContact,
            b'k' => Self::Supported,
            b'l' => Self::ContentLength,
            b'm' => Self::Contact,
            b'o' => Self::Event,
            b'r' => Self::ReferTo,
            b's' => Self::Subject,
            b't' => Self::To,
            b'u' => Self::AllowEvents,
            b'v' => Self::Via,
            b'x' => Self::SessionExpires,
            b'y' => Self::Identity,
            _ => Self::Other,
        }
    }

    /// The bit of this field in a set of fields.
    #[inline]
    pub(crate) const fn bit(self) -> u128 {
        1 << (self as u8)
    }
}

const _: () = assert!(HeaderId::KNOWN.len() < 128, "a set of fields is a u128");

impl fmt::Display for HeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const SLOT_BITS: u32 = 10;
const SLOT_COUNT: usize = 1 << SLOT_BITS;
const SEED: u64 = seed();
const SLOTS: [HeaderId; SLOT_COUNT] = slots();

/// Where a name is looked up: a hash of its length and three of its letters, case ignored.
#[inline]
const fn slot(seed: u64, length: usize, first: u8, middle: u8, last: u8) -> usize {
    let letters = (first as u64 | (middle as u64) << 8 | (last as u64) << 16) | 0x20_2020;
    let hash = (letters << 8 | (length as u64 & 0xff)).wrapping_mul(seed) >> (64 - SLOT_BITS);
    // At most SLOT_BITS bits are left.
    #[allow(clippy::cast_possible_truncation)]
    {
        hash as usize
    }
}

/// Whether both are the same name in any case, compared in words of eight, four or two octets that may
/// overlap. `known` holds letters and hyphens only.
#[inline]
fn is_same_name(name: &[u8], known: &[u8]) -> bool {
    if name.len() != known.len() {
        return false;
    }
    let (words, _) = name.as_chunks::<8>();
    let (known_words, _) = known.as_chunks::<8>();
    for (word, known_word) in words.iter().zip(known_words) {
        if !is_same_word(u64::from_le_bytes(*word), u64::from_le_bytes(*known_word)) {
            return false;
        }
    }
    match (name.last_chunk(), known.last_chunk()) {
        (Some(word), Some(known_word)) => {
            is_same_word(u64::from_le_bytes(*word), u64::from_le_bytes(*known_word))
        }
        (None | Some(_), _) if name.len() >= 4 => {
            let word =
                |octets: Option<&[u8; 4]>| octets.map_or(0, |octets| u64::from(u32::from_le_bytes(*octets)));
            is_same_word(word(name.first_chunk()), word(known.first_chunk()))
                && is_same_word(word(name.last_chunk()), word(known.last_chunk()))
        }
        (None | Some(_), _) => name.eq_ignore_ascii_case(known),
    }
}

/// Octets may differ in the bit of the case where the known one is a letter.
#[inline]
const fn is_same_word(word: u64, known: u64) -> bool {
    let letters = known & 0x4040_4040_4040_4040;
    (word ^ known) & !(letters >> 1) == 0
}

// The three functions run at compile time, where an index out of bounds is a compile error.
#[allow(clippy::indexing_slicing)]
const fn slot_of(seed: u64, id: HeaderId) -> usize {
    let name = id.name().as_bytes();
    slot(seed, name.len(), name[0], name[name.len() / 2], name[name.len() - 1])
}

/// The first multiplier that gives each known name a slot of its own.
#[allow(clippy::indexing_slicing)]
const fn seed() -> u64 {
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    loop {
        let mut taken = [false; SLOT_COUNT];
        let mut at = 0;
        while at < HeaderId::KNOWN.len() {
            let slot = slot_of(seed, HeaderId::KNOWN[at]);
            if taken[slot] {
                break;
            }
            taken[slot] = true;
            at += 1;
        }
        if at == HeaderId::KNOWN.len() {
            return seed;
        }
        seed = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(2);
    }
}

#[allow(clippy::indexing_slicing)]
const fn slots() -> [HeaderId; SLOT_COUNT] {
    let mut slots = [HeaderId::Other; SLOT_COUNT];
    let mut at = 0;
    while at < HeaderId::KNOWN.len() {
        let id = HeaderId::KNOWN[at];
        slots[slot_of(SEED, id)] = id;
        at += 1;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for &id in HeaderId::KNOWN {
            assert_eq!(HeaderId::from_name(id.name().as_bytes()), id);
            assert_eq!(HeaderId::from_name(id.name().to_ascii_uppercase().as_bytes()), id);
            assert_eq!(HeaderId::from_name(id.name().to_ascii_lowercase().as_bytes()), id);
        }
    }

    #[test]
    fn compact_names_are_found_in_any_case() {
        assert_eq!(HeaderId::from_name(b"v"), HeaderId::Via);
        assert_eq!(HeaderId::from_name(b"V"), HeaderId::Via);
        assert_eq!(HeaderId::from_name(b"L"), HeaderId::ContentLength);
        assert_eq!(HeaderId::from_name(b"z"), HeaderId::Other);
    }

    #[test]
    fn an_unknown_name_stays_unknown() {
        for name in
            [&b""[..], b"C%6Fntact", b"Contact ", b"Vib", b"X-Via", b"Call\rID", b"C\0ll-ID", &[b'a'; 300]]
        {
            assert_eq!(HeaderId::from_name(name), HeaderId::Other);
        }
    }
}
