//! The parts of a message by value, so that two messages can be compared wherever they stand.

use sip::{HeaderId, Message};

/// What a message says, without where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Method and Request-URI of a request.
    pub request: Option<(Vec<u8>, Vec<u8>)>,
    /// Status code and reason phrase; 0 and nothing for a request.
    pub status: (u16, Vec<u8>),
    /// Names and values in order.
    pub headers: Vec<(HeaderId, Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Parts {
    /// The parts of this message.
    pub fn of(message: Message<'_>) -> Self {
        let is_request = message.is_request();
        let headers = message.headers().map(|line| (line.id, line.name.to_vec(), line.value.to_vec()));
        Self {
            request: is_request.then(|| (message.method_bytes().to_vec(), message.request_uri().to_vec())),
            status: (message.status(), message.reason().to_vec()),
            headers: headers.collect(),
            body: message.body().to_vec(),
        }
    }

    /// The same without the lines of these headers.
    #[must_use]
    pub fn without(mut self, ids: &[HeaderId]) -> Self {
        self.headers.retain(|(id, ..)| !ids.contains(id));
        self
    }
}

/// The comma-separated values of a header, empty ones included.
pub fn values_of(message: Message<'_>, id: HeaderId) -> Vec<Vec<u8>> {
    message.values(id).map(<[u8]>::to_vec).collect()
}

/// Whether `part` is a range of `whole`, not a copy; an empty part is a range of anything.
pub fn is_within(part: &[u8], whole: &[u8]) -> bool {
    let (part_range, whole_range) = (part.as_ptr_range(), whole.as_ptr_range());
    part.is_empty() || (whole_range.start <= part_range.start && part_range.end <= whole_range.end)
}
