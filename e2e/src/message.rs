//! SIP messages as the test phone reads and writes them: line by line, independent of our own parser.

use std::fmt::Write;

/// A SIP request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    /// Header names as written, and values.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Message {
    /// A message without headers.
    pub fn new(start: impl Into<String>) -> Self {
        Self { start: start.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// The same with one more header at the end.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Reads the first whole message of a stream; returns it with its length. `None`: more is needed, or it
    /// is no SIP.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let mut lines = head.split("\r\n");
        let mut message = Self::new(lines.next()?);
        for line in lines {
            if let Some((name, value)) = line.split_once(':') {
                message.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        let length = message.header("Content-Length").and_then(|text| text.parse().ok()).unwrap_or(0_usize);
        let whole = end.checked_add(4)?.checked_add(length)?;
        message.body = bytes.get(end + 4..whole)?.to_vec();
        Some((message, whole))
    }

    /// The message as it is sent, with its Content-Length.
    pub fn write(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n", self.body.len());
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Status code of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// Method of a request.
    pub fn method(&self) -> Option<&str> {
        if self.start.starts_with("SIP/2.0 ") { None } else { self.start.split(' ').next() }
    }

    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.lines(name).next()
    }

    /// Every line of a header, as written.
    pub fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a header, lists taken apart.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.lines(name).flat_map(split_list).collect()
    }

    /// Number and method of CSeq.
    pub fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header("CSeq")?.split_once(' ')?;
        Some((number.trim().parse().ok()?, method.trim()))
    }

    /// The URI of the first Contact.
    pub fn contact_uri(&self) -> Option<String> {
        self.values("Contact").first().map(|value| uri_of(value))
    }
}

/// The URI inside a name-addr or addr-spec.
pub(crate) fn uri_of(value: &str) -> String {
    match (value.find('<'), value.find('>')) {
        (Some(from), Some(to)) if from < to => value.get(from + 1..to).unwrap_or_default().to_owned(),
        _ => value.split(';').next().unwrap_or_default().trim().to_owned(),
    }
}

/// A parameter of a header value, after the URI.
pub(crate) fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let after = value.rfind('>').map_or(value, |at| value.get(at..).unwrap_or_default());
    after.split(';').skip(1).find_map(|part| {
        let (found, content) = part.split_once('=')?;
        found.trim().eq_ignore_ascii_case(name).then_some(content.trim())
    })
}

fn split_list(line: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let (mut in_quotes, mut in_angle) = (false, false);
    for character in line.chars() {
        match character {
            '"' => in_quotes = !in_quotes,
            '<' if !in_quotes => in_angle = true,
            '>' if !in_quotes => in_angle = false,
            ',' if !in_quotes && !in_angle => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = values.last_mut() {
            last.push(character);
        }
    }
    values.into_iter().map(|value| value.trim().to_owned()).collect()
}
