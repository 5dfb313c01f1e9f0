//! What can be wrong with a message, in three levels: framing, a header that somebody needs, and (the
//! caller's business, not here) well formed but refused.

use crate::HeaderId;

/// The message cannot be delimited, or its start line or header section cannot be read at all.
///
/// On a stream the connection is closed after the answer, if there is one. After an error
/// [`crate::Index::view`] shows what could be read, which is enough to answer a request whose Via is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Nothing but line ends: a keep-alive.
    #[error("the datagram holds no message")]
    Empty,
    /// The request line is not `Method SP Request-URI SP SIP/2.0`.
    #[error("the request line is malformed")]
    RequestLine,
    /// The status line is not `SIP/2.0 SP code SP reason`, or the code is not 100 to 699.
    #[error("the status line is malformed")]
    StatusLine,
    /// A version other than `SIP/2.0`.
    #[error("the version of the protocol is not SIP/2.0")]
    Version,
    /// A header line without a name, or without a colon after it.
    #[error("the header line that starts at octet {at} is malformed")]
    HeaderLine {
        /// Offset of the line.
        at: usize,
    },
    /// CR without LF or LF without CR before the body: two readers could disagree where a header ends.
    #[error("there is a bare CR or LF at octet {at}")]
    BareLineBreak {
        /// Offset of the octet.
        at: usize,
    },
    /// No empty line ends the header section.
    #[error("the header section does not end")]
    Unterminated,
    /// More than `limits::HEADERS_MAX` header lines.
    #[error("there are too many header lines")]
    TooManyHeaders,
    /// A header section above `limits::HEADER_SECTION_BYTES_MAX`.
    #[error("the header section is too large")]
    HeaderSectionTooLarge,
    /// A message above `limits::MESSAGE_BYTES_MAX`.
    #[error("the message is too large")]
    MessageTooLarge,
    /// Content-Length is not a number of digits only, or stands there more than once.
    #[error("Content-Length is malformed or repeated")]
    ContentLength,
    /// No Content-Length on a stream (RFC 3261 section 18.3).
    #[error("Content-Length is missing on a stream")]
    ContentLengthMissing,
    /// Fewer octets than Content-Length promises (or, for one message cut from a stream, not exactly as
    /// many).
    #[error("the body is not as long as Content-Length says")]
    BodyLength,
}

impl FramingError {
    /// Status code of the answer to a request; `None` = no answer, drop the datagram or close the stream.
    ///
    /// Whether there is a request to answer tells [`crate::Message::is_request`]: a response is never
    /// answered.
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Empty | Self::StatusLine => None,
            Self::Version => Some(505),
            Self::HeaderSectionTooLarge | Self::MessageTooLarge => Some(513),
            Self::RequestLine
            | Self::HeaderLine { .. }
            | Self::BareLineBreak { .. }
            | Self::Unterminated
            | Self::TooManyHeaders
            | Self::ContentLength
            | Self::ContentLengthMissing
            | Self::BodyLength => Some(400),
        }
    }
}

/// A header that somebody needs is missing, repeated or malformed. A header that nobody reads is never an
/// error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The header is not there.
    #[error("{header} is missing")]
    Missing {
        /// The header.
        header: HeaderId,
    },
    /// A header that may stand there once stands there more often.
    #[error("{header} is repeated")]
    Repeated {
        /// The header.
        header: HeaderId,
    },
    /// The value cannot be read.
    #[error("{header} is malformed")]
    Malformed {
        /// The header.
        header: HeaderId,
    },
    /// More values than `limits::HEADER_VALUES_MAX`, or for Via `limits::VIAS_MAX`.
    #[error("{header} has too many values")]
    TooMany {
        /// The header.
        header: HeaderId,
    },
    /// The method in CSeq is not that of the request line.
    #[error("the method in CSeq is not that of the request")]
    CSeqMethod,
    /// The Request-URI cannot be read.
    #[error("the Request-URI is malformed")]
    RequestUri(#[source] UriError),
}

impl HeaderError {
    /// Status code of the answer to a request: always 400. A response with this error is dropped.
    pub const fn status(self) -> u16 {
        400
    }

    /// The header to name in the answer; `None` for the Request-URI.
    pub const fn header(self) -> Option<HeaderId> {
        match self {
            Self::Missing { header }
            | Self::Repeated { header }
            | Self::Malformed { header }
            | Self::TooMany { header } => Some(header),
            Self::CSeqMethod => Some(HeaderId::CSeq),
            Self::RequestUri(_) => None,
        }
    }
}

/// Why a text is not a URI, or not the URI that is needed.
#[derive(Clone, Debug, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No scheme, or not letters, digits, `+`, `-` and `.` after a letter.
    #[error("the URI has no scheme")]
    Scheme,
    /// The user or password part is empty or holds an octet that must be escaped.
    #[error("the user part of the URI is malformed")]
    User,
    /// The host is missing, or is not a name or an address.
    #[error("the host of the URI is malformed")]
    Host,
    /// The port is not a number from 0 to 65,535.
    #[error("the port of the URI is malformed")]
    Port,
    /// A parameter without a name or with an octet that must be escaped.
    #[error("the parameters of the URI are malformed")]
    Parameters,
    /// The headers after `?` are malformed, or stand where none are allowed.
    #[error("the headers of the URI are malformed or not allowed here")]
    Headers,
    /// `%` that is not followed by two hexadecimal digits.
    #[error("the URI has a malformed escape")]
    Escape,
    /// An octet that no URI can hold.
    #[error("the URI has an octet that is not allowed")]
    Octet,
    /// A URI that names no user at a domain, where an address-of-record is needed.
    #[error("the URI is not an address-of-record")]
    NotAddressOfRecord,
}
