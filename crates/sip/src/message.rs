//! The borrowed view of one message, and the typed readers on it.

use model::limits;

use crate::{
    Addresses, CSeq, Date, HeaderError, HeaderId, Index, Method, NameAddr, Uri, UriError, Values, Via, Vias,
    index::{Line, StartLine},
    scan::{self, TOKEN},
};

/// One message in octets that stay where they are. Copy it freely.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(crate) index: &'a Index,
    pub(crate) bytes: &'a [u8],
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The field, if this crate knows it.
    pub id: HeaderId,
    /// The name as written.
    pub name: &'a [u8],
    /// The value without white space around it; line folds inside are kept.
    pub value: &'a [u8],
    /// The whole line, its line end included.
    pub line: &'a [u8],
}

/// The header lines of a message in order.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    lines: std::slice::Iter<'a, Line>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let line = self.lines.next()?;
        let part =
            |start: u16, end: u16| self.bytes.get(usize::from(start)..usize::from(end)).unwrap_or_default();
        Some(Header {
            id: line.id,
            name: part(line.start, line.name_end),
            value: line.value.of(self.bytes),
            line: part(line.start, line.end),
        })
    }
}

/// The Contact header of a message.
#[derive(Clone, Debug)]
pub enum Contacts<'a> {
    /// `Contact: *`, alone (RFC 3261 section 10.2.2).
    Star,
    /// The contacts in order; empty without a Contact header.
    List(Addresses<'a>),
}

/// Headers without which there is no message (RFC 3261 section 8.1.1; Max-Forwards is tolerated when absent,
/// as section 16.3 asks).
const MANDATORY: [HeaderId; 5] =
    [HeaderId::Via, HeaderId::From, HeaderId::To, HeaderId::CallId, HeaderId::CSeq];

/// Headers that stand there at most once, of those that a proxy or registrar reads.
const SINGLE: [HeaderId; 6] = [
    HeaderId::From,
    HeaderId::To,
    HeaderId::CallId,
    HeaderId::CSeq,
    HeaderId::MaxForwards,
    HeaderId::Expires,
];

/// Lists that a proxy or registrar walks.
const LISTS: [HeaderId; 9] = [
    HeaderId::Via,
    HeaderId::Route,
    HeaderId::RecordRoute,
    HeaderId::Contact,
    HeaderId::Path,
    HeaderId::ServiceRoute,
    HeaderId::Require,
    HeaderId::ProxyRequire,
    HeaderId::Supported,
];

const fn set<const N: usize>(ids: [HeaderId; N]) -> u128 {
    let mut set = 0;
    let mut at = 0;
    while at < N {
        // Evaluated at compile time, and `at` is below N.
        #[allow(clippy::indexing_slicing)]
        {
            set |= ids[at].bit();
        }
        at += 1;
    }
    set
}

impl<'a> Message<'a> {
    /// The message from its start line to the end of its body; what stood around it in a datagram is left
    /// out.
    pub fn bytes(self) -> &'a [u8] {
        self.part(self.index.begin, self.index.body.end)
    }

    /// Whether this is a request; `false` also when the start line could not be read.
    #[inline]
    pub fn is_request(self) -> bool {
        matches!(self.index.start, StartLine::Request { .. })
    }

    /// The method of the request line; of a response that of CSeq ([`Method::Other`] when unreadable).
    #[inline]
    pub fn method(self) -> Method {
        match self.index.start {
            StartLine::Request { method, .. } => method,
            StartLine::Response { .. } => self.cseq().map_or(Method::Other, |cseq| cseq.method),
            StartLine::Unread => Method::Other,
        }
    }

    /// The method as written, as for [`Self::method`]; empty when unreadable.
    pub fn method_bytes(self) -> &'a [u8] {
        match self.index.start {
            StartLine::Request { method_span, .. } => method_span.of(self.bytes),
            StartLine::Response { .. } => self.cseq().map_or(&[], |cseq| cseq.method_bytes),
            StartLine::Unread => &[],
        }
    }

    /// The Request-URI as written; empty for a response.
    #[inline]
    pub fn request_uri(self) -> &'a [u8] {
        match self.index.start {
            StartLine::Request { uri, .. } => uri.of(self.bytes),
            StartLine::Response { .. } | StartLine::Unread => &[],
        }
    }

    /// The status code, 100 to 699; 0 for a request.
    pub fn status(self) -> u16 {
        match self.index.start {
            StartLine::Response { status, .. } => status,
            StartLine::Request { .. } | StartLine::Unread => 0,
        }
    }

    /// The reason phrase of a response, which may be empty; empty for a request.
    pub fn reason(self) -> &'a [u8] {
        match self.index.start {
            StartLine::Response { reason, .. } => reason.of(self.bytes),
            StartLine::Request { .. } | StartLine::Unread => &[],
        }
    }

    /// The body.
    pub fn body(self) -> &'a [u8] {
        self.index.body.of(self.bytes)
    }

    /// The header lines in order.
    pub fn headers(self) -> Headers<'a> {
        Headers { bytes: self.bytes, lines: self.index.lines.iter() }
    }

    /// Whether at least one line of this header is there.
    #[inline]
    pub fn has(self, id: HeaderId) -> bool {
        self.index.present & id.bit() != 0
    }

    /// The first value line of this header, trimmed, line folds inside kept.
    #[inline]
    pub fn header(self, id: HeaderId) -> Option<&'a [u8]> {
        if id != HeaderId::Other && !self.has(id) {
            return None;
        }
        let line = self.index.lines.iter().find(|line| line.id == id)?;
        Some(line.value.of(self.bytes))
    }

    /// The value lines of this header in order, each as [`Self::header`] gives it.
    pub fn header_lines(self, id: HeaderId) -> impl Iterator<Item = &'a [u8]> {
        let is_there = id == HeaderId::Other || self.has(id);
        let is_repeated = id == HeaderId::Other || self.index.repeated & id.bit() != 0;
        let lines = if is_there { self.index.lines.as_slice() } else { &[] };
        let count = if is_repeated { lines.len() } else { 1 };
        lines.iter().filter(move |line| line.id == id).take(count).map(move |line| line.value.of(self.bytes))
    }

    /// The first value line of the header of this name, in any case; knows compact forms of known headers.
    pub fn header_named(self, name: &[u8]) -> Option<&'a [u8]> {
        let id = HeaderId::from_name(name);
        if id != HeaderId::Other {
            return self.header(id);
        }
        self.headers().find(|header| header.name.eq_ignore_ascii_case(name)).map(|found| found.value)
    }

    /// The comma-separated values of this header over all its lines.
    pub fn values(self, id: HeaderId) -> Values<'a> {
        Values::new(self, id)
    }

    /// The addresses of this header over all its lines.
    pub fn addresses(self, id: HeaderId) -> Addresses<'a> {
        Addresses::new(self.values(id), id)
    }

    /// The tokens of a header like Supported or Require over all its lines; empty elements are skipped.
    ///
    /// An element that is no token is [`HeaderError::Malformed`].
    pub fn tokens(self, id: HeaderId) -> impl Iterator<Item = Result<&'a [u8], HeaderError>> {
        let values = self.values(id).filter(|value| !value.is_empty());
        values.map(move |value| {
            if scan::all(value, TOKEN) { Ok(value) } else { Err(HeaderError::Malformed { header: id }) }
        })
    }

    /// Whether a header like Supported or Require lists this token, in any case.
    pub fn has_token(self, id: HeaderId, token: &[u8]) -> bool {
        self.has(id) && self.values(id).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// The topmost Via value.
    ///
    /// Errors: [`HeaderError::Missing`], [`HeaderError::Malformed`].
    #[inline]
    pub fn top_via(self) -> Result<Via<'a>, HeaderError> {
        let header = HeaderId::Via;
        let value = self.values(header).next().ok_or(HeaderError::Missing { header })?;
        Via::parse(value).ok_or(HeaderError::Malformed { header })
    }

    /// All Via values, topmost first.
    pub fn vias(self) -> Vias<'a> {
        Vias(self.values(HeaderId::Via))
    }

    /// The From address.
    ///
    /// Errors: [`HeaderError::Missing`], [`HeaderError::Repeated`], [`HeaderError::Malformed`].
    pub fn from(self) -> Result<NameAddr<'a>, HeaderError> {
        self.address(HeaderId::From)
    }

    /// The To address.
    ///
    /// Errors: [`HeaderError::Missing`], [`HeaderError::Repeated`], [`HeaderError::Malformed`].
    pub fn to(self) -> Result<NameAddr<'a>, HeaderError> {
        self.address(HeaderId::To)
    }

    /// The Call-ID.
    ///
    /// Errors: [`HeaderError::Missing`], [`HeaderError::Repeated`], [`HeaderError::Malformed`] (empty, or
    /// with white space).
    pub fn call_id(self) -> Result<&'a [u8], HeaderError> {
        let header = HeaderId::CallId;
        let value = self.single(header)?;
        // Without an early exit, so that the compiler looks at many octets at once.
        let is_bad = |octet: u8| octet <= b' ' || octet == 0x7f || octet == b',';
        let has_bad = value.iter().fold(false, |found, &octet| found | is_bad(octet));
        if !value.is_empty() && !has_bad { Ok(value) } else { Err(HeaderError::Malformed { header }) }
    }

    /// The CSeq.
    ///
    /// Errors: [`HeaderError::Missing`], [`HeaderError::Repeated`], [`HeaderError::Malformed`].
    pub fn cseq(self) -> Result<CSeq<'a>, HeaderError> {
        let header = HeaderId::CSeq;
        CSeq::parse(self.single(header)?).ok_or(HeaderError::Malformed { header })
    }

    /// Max-Forwards, 0 to 255; `None` when absent.
    ///
    /// Errors: [`HeaderError::Repeated`], [`HeaderError::Malformed`].
    pub fn max_forwards(self) -> Result<Option<u32>, HeaderError> {
        match self.number(HeaderId::MaxForwards)? {
            Some(256..) => Err(HeaderError::Malformed { header: HeaderId::MaxForwards }),
            hops => Ok(hops),
        }
    }

    /// Expires in seconds; `None` when absent.
    ///
    /// Errors: [`HeaderError::Repeated`], [`HeaderError::Malformed`] (a registrar reads that as
    /// [`crate::EXPIRES_MALFORMED_S`], RFC 3261 section 10.2.1.1).
    pub fn expires(self) -> Result<Option<u32>, HeaderError> {
        self.number(HeaderId::Expires)
    }

    /// A header whose value is one decimal number, such as Min-Expires, Max-Breadth, Flow-Timer or
    /// Retry-After without its comment; `None` when absent.
    ///
    /// Errors: [`HeaderError::Repeated`], [`HeaderError::Malformed`].
    pub fn number(self, header: HeaderId) -> Result<Option<u32>, HeaderError> {
        if !self.has(header) {
            return Ok(None);
        }
        let value = self.single(header)?;
        scan::number(value).map(Some).ok_or(HeaderError::Malformed { header })
    }

    /// The contacts.
    ///
    /// Errors: [`HeaderError::Malformed`] when `*` is not alone; a malformed contact is an error of the list.
    pub fn contacts(self) -> Result<Contacts<'a>, HeaderError> {
        let header = HeaderId::Contact;
        let has_star = |line: &[u8]| memchr::memchr(b'*', line).is_some();
        if self.header_lines(header).any(has_star) && self.values(header).any(|value| value == b"*") {
            let is_alone = self.values(header).count() == 1;
            return if is_alone { Ok(Contacts::Star) } else { Err(HeaderError::Malformed { header }) };
        }
        Ok(Contacts::List(self.addresses(header)))
    }

    /// The Route values, topmost first.
    pub fn routes(self) -> Addresses<'a> {
        self.addresses(HeaderId::Route)
    }

    /// The Record-Route values, topmost first.
    pub fn record_routes(self) -> Addresses<'a> {
        self.addresses(HeaderId::RecordRoute)
    }

    /// The Path values, topmost first (RFC 3327).
    pub fn paths(self) -> Addresses<'a> {
        self.addresses(HeaderId::Path)
    }

    /// The Service-Route values in order (RFC 3608).
    pub fn service_routes(self) -> Addresses<'a> {
        self.addresses(HeaderId::ServiceRoute)
    }

    /// The Date; `None` when absent.
    ///
    /// Errors: [`HeaderError::Malformed`], also for a zone other than GMT. Read it only if it matters: RFC
    /// 4475 section 3.1.2.12 advises against refusing a message for its Date.
    pub fn date(self) -> Result<Option<Date>, HeaderError> {
        let header = HeaderId::Date;
        match self.header(header) {
            None => Ok(None),
            Some(value) => Date::parse(value).map(Some).ok_or(HeaderError::Malformed { header }),
        }
    }

    /// What every element checks before it acts on a message: Via, From, To, Call-ID and CSeq are there and
    /// readable; they (but for Via), Max-Forwards and Expires are not repeated; Max-Forwards is readable; the
    /// method in CSeq is that of the request; the Request-URI is a URI without headers; lists keep to
    /// `limits`.
    ///
    /// Whether the Request-URI's scheme, the method or an extension is supported is the caller's business.
    ///
    /// Returns the topmost Via, which whoever goes on needs. Errors: [`HeaderError`]. Source: RFC 3261
    /// sections
    /// 8.1.1, 8.2.2 and 16.3, RFC 4475.
    pub fn check_mandatory(self) -> Result<Via<'a>, HeaderError> {
        let repeated = self.index.repeated & const { set(SINGLE) };
        if repeated != 0 {
            let header = SINGLE.into_iter().find(|id| repeated & id.bit() != 0).unwrap_or(HeaderId::Other);
            return Err(HeaderError::Repeated { header });
        }
        if self.index.present & const { set(MANDATORY) } != const { set(MANDATORY) } {
            let header = MANDATORY.into_iter().find(|&id| !self.has(id)).unwrap_or(HeaderId::Other);
            return Err(HeaderError::Missing { header });
        }
        self.check_list_lengths()?;
        let via = self.top_via()?;
        self.from()?;
        self.to()?;
        self.call_id()?;
        let cseq = self.cseq()?;
        self.max_forwards()?;
        if self.is_request() {
            if cseq.method_bytes != self.method_bytes() {
                return Err(HeaderError::CSeqMethod);
            }
            let uri = Uri::parse(self.request_uri()).map_err(HeaderError::RequestUri)?;
            if uri.headers.is_some() {
                return Err(HeaderError::RequestUri(UriError::Headers));
            }
        }
        Ok(via)
    }

    /// Looks for commas first, those inside of quotes too: a line has at most one element more, or in a short
    /// value, where looking costs more than it tells, as many as octets and one more. What is left over is
    /// counted.
    fn check_list_lengths(self) -> Result<(), HeaderError> {
        const SHORT: usize = 32;
        let (mut vias, mut others) = (0, 0);
        for line in &self.index.lines {
            if line.id.bit() & const { set(LISTS) } == 0 {
                continue;
            }
            let value = line.value.of(self.bytes);
            let elements = match value.len() {
                short @ ..SHORT => short + 1,
                _ if memchr::memchr(b',', value).is_none() => 1,
                _ => memchr::memchr_iter(b',', value).count() + 1,
            };
            if line.id == HeaderId::Via {
                vias += elements;
            } else {
                others += elements;
            }
        }
        if vias <= limits::VIAS_MAX && others <= limits::HEADER_VALUES_MAX {
            return Ok(());
        }
        for header in LISTS {
            let max = if header == HeaderId::Via { limits::VIAS_MAX } else { limits::HEADER_VALUES_MAX };
            if self.values(header).count() > max {
                return Err(HeaderError::TooMany { header });
            }
        }
        Ok(())
    }

    fn address(self, header: HeaderId) -> Result<NameAddr<'a>, HeaderError> {
        NameAddr::parse(self.single(header)?).ok_or(HeaderError::Malformed { header })
    }

    /// The value of a header that stands there once.
    fn single(self, header: HeaderId) -> Result<&'a [u8], HeaderError> {
        if self.index.repeated & header.bit() != 0 {
            return Err(HeaderError::Repeated { header });
        }
        self.header(header).ok_or(HeaderError::Missing { header })
    }

    #[inline]
    pub(crate) fn part(self, start: u16, end: u16) -> &'a [u8] {
        self.bytes.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Framing;

    fn check(line: &str) -> Result<(), HeaderError> {
        let text = format!(
            "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n{line}\r\nFrom: <sip:a>;tag=f\r\n\
             To: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
        );
        let mut index = Index::new();
        index.parse(text.as_bytes(), Framing::Datagram).unwrap();
        index.view(text.as_bytes()).check_mandatory().map(drop)
    }

    #[test]
    fn elements_of_a_list_count_however_short_they_are() {
        for (header, name, max) in [
            (HeaderId::Via, "Via", limits::VIAS_MAX - 1),
            (HeaderId::Route, "Route", limits::HEADER_VALUES_MAX),
            (HeaderId::Contact, "m", limits::HEADER_VALUES_MAX),
        ] {
            for element in ["", "a"] {
                let list = |count| format!("{name}: x{}", format!(",{element}").repeat(count - 1));
                assert_eq!(check(&list(max)), Ok(()));
                assert_eq!(check(&list(max + 1)), Err(HeaderError::TooMany { header }));
            }
        }
        assert_eq!(
            check(&format!("Via: {}", ",".repeat(200))),
            Err(HeaderError::TooMany { header: HeaderId::Via })
        );
    }

    #[test]
    fn commas_that_do_not_separate_do_not_count() {
        let commas = ",".repeat(200);
        assert_eq!(check(&format!("Route: \"{commas}\" <sip:{commas}@a;lr>")), Ok(()));
    }
}
