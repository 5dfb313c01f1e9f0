//! Forwarding: a list of patches over a message; what no patch names is copied octet for octet.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::{
    Framing, FramingError, HeaderId, Message, NameAddr, OwnedMessage, Parameters, Via,
    index::{Line, StartLine},
    parameters, scan,
    values::Split,
};

/// What changes in a message on its way through a proxy. Pops and removals concern what was received; pushed
/// values go on top of what is left, the one pushed last topmost, each on a line of its own; added headers go
/// to the end.
///
/// A message that came without Content-Length (a datagram) leaves with one, since it may leave over a stream.
#[derive(Clone, Debug)]
pub struct Rewrite<'a> {
    message: Message<'a>,
    request_uri: Option<&'a [u8]>,
    pushed: SmallVec<[(HeaderId, &'a [u8]); 4]>,
    added: SmallVec<[(&'a str, &'a [u8]); 2]>,
    removed: u128,
    max_forwards: Option<u32>,
    to_tag: Option<&'a [u8]>,
    mark: Option<Mark>,
    vias_popped: usize,
    routes_popped: usize,
    is_last_route_popped: bool,
}

/// Where a request really came from.
#[derive(Clone, Copy, Debug)]
struct Mark {
    received: IpAddr,
    port: u16,
}

impl<'a> Rewrite<'a> {
    /// A copy without changes.
    pub fn new(message: Message<'a>) -> Self {
        Self {
            message,
            request_uri: None,
            pushed: SmallVec::new(),
            added: SmallVec::new(),
            removed: 0,
            max_forwards: None,
            to_tag: None,
            mark: None,
            vias_popped: 0,
            routes_popped: 0,
            is_last_route_popped: false,
        }
    }

    /// Replaces the Request-URI; no effect on a response.
    pub fn set_request_uri(&mut self, uri: &'a [u8]) -> &mut Self {
        self.request_uri = Some(uri);
        self
    }

    /// Puts a whole Via value on top.
    pub fn push_via(&mut self, value: &'a [u8]) -> &mut Self {
        self.push(HeaderId::Via, value)
    }

    /// Takes the topmost received Via value away; each call one more.
    pub fn pop_top_via(&mut self) -> &mut Self {
        self.vias_popped += 1;
        self
    }

    /// Writes down in the topmost received Via where the request came from (RFC 3261 section 18.2.1, RFC
    /// 3581).
    ///
    /// `received` is added when it differs from the host of sent-by or rport is asked for; a valueless rport
    /// gets `port`. What the sender wrote there itself is replaced: it must not direct our responses.
    pub fn mark_top_via(&mut self, received: IpAddr, port: u16) -> &mut Self {
        self.mark = Some(Mark { received: received.to_canonical(), port });
        self
    }

    /// Sets Max-Forwards; adds it when absent.
    pub fn set_max_forwards(&mut self, hops: u32) -> &mut Self {
        self.max_forwards = Some(hops);
        self
    }

    /// Puts a whole Route value on top.
    pub fn push_route(&mut self, value: &'a [u8]) -> &mut Self {
        self.push(HeaderId::Route, value)
    }

    /// Adds a whole Route value below all others (RFC 3261 section 16.6 step 6, strict routing).
    pub fn append_route(&mut self, value: &'a [u8]) -> &mut Self {
        self.add_header(HeaderId::Route.name(), value)
    }

    /// Takes the topmost received Route value away; each call one more.
    pub fn pop_top_route(&mut self) -> &mut Self {
        self.routes_popped += 1;
        self
    }

    /// Takes the last received Route value away (RFC 3261 section 16.4, strict routing).
    pub fn pop_last_route(&mut self) -> &mut Self {
        self.is_last_route_popped = true;
        self
    }

    /// Takes all received Route values away.
    pub fn remove_route_all(&mut self) -> &mut Self {
        self.remove(HeaderId::Route)
    }

    /// Puts a whole Record-Route value on top.
    pub fn push_record_route(&mut self, value: &'a [u8]) -> &mut Self {
        self.push(HeaderId::RecordRoute, value)
    }

    /// Puts a whole Path value on top (RFC 3327).
    pub fn push_path(&mut self, value: &'a [u8]) -> &mut Self {
        self.push(HeaderId::Path, value)
    }

    /// Puts a whole Diversion value on top (RFC 5806).
    pub fn push_diversion(&mut self, value: &'a [u8]) -> &mut Self {
        self.push(HeaderId::Diversion, value)
    }

    /// Takes all received lines of a header away; no effect for [`HeaderId::Other`] and Content-Length.
    pub fn remove(&mut self, id: HeaderId) -> &mut Self {
        let kept = HeaderId::Other.bit() | HeaderId::ContentLength.bit();
        self.removed |= id.bit() & !kept;
        self
    }

    /// Adds a header line at the end. A line break in the value is written as a space.
    pub fn add_header(&mut self, name: &'a str, value: &'a [u8]) -> &mut Self {
        self.added.push((name, value));
        self
    }

    /// Adds a tag to To, unless it has one.
    pub fn set_to_tag(&mut self, tag: &'a [u8]) -> &mut Self {
        self.to_tag = Some(tag);
        self
    }

    fn push(&mut self, id: HeaderId, value: &'a [u8]) -> &mut Self {
        self.pushed.push((id, value));
        self
    }

    /// Appends the changed message to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.message.bytes.len() + 512);
        self.write_start_line(out);
        for &(id, value) in self.pushed.iter().rev() {
            write_line(out, id.name().as_bytes(), value);
        }
        if let Some(hops) = self.max_forwards
            && !self.message.has(HeaderId::MaxForwards)
        {
            write_number_line(out, HeaderId::MaxForwards, hops);
        }
        self.write_received(out);
        for &(name, value) in &self.added {
            write_line(out, name.as_bytes(), value);
        }
        let body = self.message.body();
        if !self.message.has(HeaderId::ContentLength) {
            write_number_line(out, HeaderId::ContentLength, u32::try_from(body.len()).unwrap_or(u32::MAX));
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }

    /// The changed message, written and indexed.
    ///
    /// Errors: [`FramingError`] when it has become too large, or when a new Request-URI or header is not fit
    /// for its line.
    pub fn to_message(&self) -> Result<OwnedMessage, FramingError> {
        let mut out = Vec::new();
        self.write_to(&mut out);
        OwnedMessage::parse(out.into(), Framing::Stream)
    }

    fn write_start_line(&self, out: &mut Vec<u8>) {
        let message = self.message;
        if let StartLine::Request { uri, .. } = message.index.start
            && let Some(new) = self.request_uri
        {
            out.extend_from_slice(message.part(message.index.begin, uri.start));
            scan::push_line_text(out, new);
            out.extend_from_slice(message.part(uri.end, message.index.headers_begin));
        } else {
            out.extend_from_slice(message.part(message.index.begin, message.index.headers_begin));
        }
    }

    /// The received header lines: ranges between patched lines are copied whole.
    fn write_received(&self, out: &mut Vec<u8>) {
        let message = self.message;
        let touched = self.touched();
        let mut copied_to = message.index.headers_begin;
        if touched != 0 {
            let mut progress = self.start_progress();
            for line in message.index.lines.iter().filter(|line| touched & line.id.bit() != 0) {
                out.extend_from_slice(message.part(copied_to, line.start));
                copied_to = line.end;
                self.write_patched(out, line, &mut progress);
            }
        }
        out.extend_from_slice(message.part(copied_to, message.index.headers_end));
    }

    /// The headers with lines that are not copied as they are.
    fn touched(&self) -> u128 {
        let when = |is_touched: bool, id: HeaderId| if is_touched { id.bit() } else { 0 };
        self.removed
            | when(self.max_forwards.is_some(), HeaderId::MaxForwards)
            | when(self.to_tag.is_some(), HeaderId::To)
            | when(self.mark.is_some() || self.vias_popped > 0, HeaderId::Via)
            | when(self.routes_popped > 0 || self.is_last_route_popped, HeaderId::Route)
    }

    fn start_progress(&self) -> Progress {
        let last_route =
            if self.is_last_route_popped { self.message.values(HeaderId::Route).count() } else { 0 };
        Progress { vias: self.vias_popped, routes: self.routes_popped, last_route, mark: self.mark }
    }

    fn write_patched(&self, out: &mut Vec<u8>, line: &Line, progress: &mut Progress) {
        if self.removed & line.id.bit() != 0 {
            return;
        }
        let value = line.value.of(self.message.bytes);
        let head = self.message.part(line.start, line.value.start);
        if line.id == HeaderId::Via {
            let kept = keep(value, &mut progress.vias, &mut 0);
            if kept.is_empty() {
                return;
            }
            out.extend_from_slice(head);
            match progress.mark.take() {
                Some(mark) => write_marked(out, kept, mark),
                None => out.extend_from_slice(kept),
            }
        } else if line.id == HeaderId::Route {
            let kept = keep(value, &mut progress.routes, &mut progress.last_route);
            if kept.is_empty() {
                return;
            }
            out.extend_from_slice(head);
            out.extend_from_slice(kept);
        } else if line.id == HeaderId::MaxForwards {
            out.extend_from_slice(head);
            scan::push_number(out, self.max_forwards.unwrap_or_default());
        } else {
            out.extend_from_slice(head);
            write_to_value(out, value, self.to_tag);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What is left to do while the received lines are written.
struct Progress {
    vias: usize,
    routes: usize,
    /// How many Route values there are up to the last one, counted down; 0 = it stays.
    last_route: usize,
    mark: Option<Mark>,
}

/// What stays of one line of a list: without its first `pops` elements and, when `last` counts down to 0
/// here, without its last one. Both counts lose what was used up.
fn keep<'v>(value: &'v [u8], pops: &mut usize, last: &mut usize) -> &'v [u8] {
    if *pops == 0 && *last == 0 {
        return value;
    }
    let mut split = Split::new(value);
    let mut start = None;
    let mut end = 0;
    while let Some((element_start, element_end)) = split.next_range() {
        let is_last = *last == 1;
        *last = last.saturating_sub(1);
        if *pops > 0 {
            *pops -= 1;
        } else if !is_last {
            start.get_or_insert(element_start);
            end = element_end;
        }
    }
    start.and_then(|start| value.get(start..end)).map_or(&[], scan::trim)
}

/// Writes the value of a request's first Via line with where it came from in its first element.
pub(crate) fn write_marked_top_via(out: &mut Vec<u8>, value: &[u8], received: IpAddr, port: u16) {
    write_marked(out, value, Mark { received: received.to_canonical(), port });
}

/// Writes a Via line's value with the mark in its first element.
fn write_marked(out: &mut Vec<u8>, value: &[u8], mark: Mark) {
    let end = Split::new(value).next_range().map_or(value.len(), |(_, end)| end);
    let (first, others) = scan::cut(value, end);
    let first = scan::trim(first);
    match Via::parse_start(first) {
        Some((via, parameters)) => write_marked_via(out, first, via.host, parameters, mark),
        None => out.extend_from_slice(first),
    }
    out.extend_from_slice(others);
}

/// Writes a Via value that was read before, with where its request came from.
pub(crate) fn write_marked_value(out: &mut Vec<u8>, via: &Via<'_>, received: IpAddr, port: u16) {
    let mark = Mark { received: received.to_canonical(), port };
    write_marked_via(out, via.text, via.host, via.parameters.bytes(), mark);
}

fn write_marked_via(out: &mut Vec<u8>, value: &[u8], host: &[u8], parameters: &[u8], mark: Mark) {
    let mut rest = parameters;
    out.extend_from_slice(scan::trim(scan::cut(value, value.len() - rest.len()).0));
    let is_elsewhere = scan::host_address(host).map(|address| address.to_canonical()) != Some(mark.received);
    let mut is_asked = false;
    while let Some((parameter, after)) = parameters::take_checked(rest) {
        let (text, _) = scan::cut(rest, rest.len() - after.len());
        rest = after;
        if parameter.name.eq_ignore_ascii_case(b"rport") {
            if !is_asked {
                out.extend_from_slice(b";rport=");
                scan::push_number(out, u32::from(mark.port));
            }
            is_asked = true;
        } else if !parameter.name.eq_ignore_ascii_case(b"received") {
            out.extend_from_slice(text);
        }
    }
    if is_elsewhere || is_asked {
        out.extend_from_slice(b";received=");
        scan::push_address(out, mark.received);
    }
}

/// Appends `name: value` as a line; `name` is a token.
pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    scan::push_line_text(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends `name: number` as a line.
pub(crate) fn write_number_line(out: &mut Vec<u8>, id: HeaderId, number: u32) {
    out.extend_from_slice(id.name().as_bytes());
    out.extend_from_slice(b": ");
    scan::push_number(out, number);
    out.extend_from_slice(b"\r\n");
}

/// Appends the value of To with a tag, unless it has one. A parameter `tag` that is no tag (see
/// [`NameAddr::tag`]) gives way to it: a name stands there once (RFC 3261 section 7.3.1), and who reads the
/// first one would find no tag.
pub(crate) fn write_to_value(out: &mut Vec<u8>, value: &[u8], tag: Option<&[u8]>) {
    if let Some(tag) = tag.filter(|_| value.last() == Some(&b'>')) {
        // Nothing behind the brackets: there is no tag to look for.
        out.extend_from_slice(value);
        out.extend_from_slice(b";tag=");
        return scan::push_line_text(out, tag);
    }
    let to = NameAddr::parse(value);
    let Some(tag) = tag.filter(|_| to.is_none_or(|to| to.tag().is_none())) else {
        return out.extend_from_slice(value);
    };
    let parameters = to.map(|to| to.parameters).filter(|parameters| parameters.has(b"tag"));
    let mut rest = parameters.map(Parameters::bytes).unwrap_or_default();
    out.extend_from_slice(scan::cut(value, value.len() - rest.len()).0);
    while let Some((parameter, after)) = parameters::take_checked(rest) {
        let (text, _) = scan::cut(rest, rest.len() - after.len());
        rest = after;
        if !parameter.name.eq_ignore_ascii_case(b"tag") {
            out.extend_from_slice(text);
        }
    }
    out.extend_from_slice(b";tag=");
    scan::push_line_text(out, tag);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Index;

    const REQUEST: &str = "INVITE sip:b@example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP h1;branch=z9hG4bK1 , SIP/2.0/TCP h2;branch=z9hG4bK2\r\n\
        v : SIP/2.0/UDP h3\r\n\
        Max-Forwards:  70\r\n\
        Route: <sip:p1;lr>,<sip:p2;lr>\r\n\
        X: y\r\n\
        Route:<sip:p3>\r\n\
        To: <sip:b@example.com>\r\n\
        Content-Length: 2\r\n\r\nhi";

    fn rewrite(text: &str, change: impl Fn(&mut Rewrite<'_>)) -> String {
        let mut index = Index::new();
        index.parse(text.as_bytes(), Framing::Datagram).unwrap();
        let mut rewrite = Rewrite::new(index.view(text.as_bytes()));
        change(&mut rewrite);
        let mut out = Vec::new();
        rewrite.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn via(value: &str, address: &str) -> String {
        let text = format!("INVITE sip:b SIP/2.0\r\nVia: {value}\r\nl: 0\r\n\r\n");
        let out = rewrite(&text, |rewrite| {
            rewrite.mark_top_via(address.parse().unwrap(), 4321);
        });
        out.lines().nth(1).unwrap().strip_prefix("Via: ").unwrap().to_owned()
    }

    #[test]
    fn without_changes_every_octet_stays() {
        assert_eq!(rewrite(REQUEST, |_| {}), REQUEST);
    }

    #[test]
    fn pushed_values_stand_on_top_and_the_rest_is_copied() {
        let out = rewrite(REQUEST, |rewrite| {
            rewrite
                .push_via(b"SIP/2.0/UDP me")
                .set_max_forwards(69)
                .push_route(b"<sip:p0;lr>")
                .push_route(b"<sip:first>");
            rewrite.append_route(b"<sip:end>").push_record_route(b"<sip:me;lr>").set_request_uri(b"sip:c@d");
        });

        let expected = REQUEST
            .replace(
                "INVITE sip:b@example.com SIP/2.0\r\n",
                "INVITE sip:c@d SIP/2.0\r\nRecord-Route: <sip:me;lr>\r\nRoute: <sip:first>\r\n\
                 Route: <sip:p0;lr>\r\nVia: SIP/2.0/UDP me\r\n",
            )
            .replace("Max-Forwards:  70", "Max-Forwards:  69")
            .replace("2\r\n\r\nhi", "2\r\nRoute: <sip:end>\r\n\r\nhi");
        assert_eq!(out, expected);
    }

    #[test]
    fn values_are_popped_across_commas_and_lines() {
        let vias = |count: usize| {
            rewrite(REQUEST, |rewrite| {
                for _ in 0..count {
                    rewrite.pop_top_via();
                }
            })
        };
        assert!(vias(1).contains("\r\nVia: SIP/2.0/TCP h2;branch=z9hG4bK2\r\nv : SIP/2.0/UDP h3\r\n"));
        assert!(vias(2).contains("SIP/2.0\r\nv : SIP/2.0/UDP h3\r\n"));
        assert!(vias(3).contains("SIP/2.0\r\nMax-Forwards:"));
        assert_eq!(vias(4), vias(3));

        let first = rewrite(REQUEST, |rewrite| _ = rewrite.pop_top_route());
        assert_eq!(first, REQUEST.replace("<sip:p1;lr>,", ""));
        let last = rewrite(REQUEST, |rewrite| _ = rewrite.pop_last_route());
        assert_eq!(last, REQUEST.replace("Route:<sip:p3>\r\n", ""));
        let middle = rewrite(REQUEST, |rewrite| _ = rewrite.pop_last_route().pop_top_route().pop_top_route());
        assert!(!middle.contains("Route"));
        let none = rewrite(REQUEST, |rewrite| _ = rewrite.remove_route_all().push_route(b"<sip:new>"));
        assert_eq!(none.matches("Route").count(), 1);

        let comma = REQUEST.replace("Route:<sip:p3>\r\n", "");
        let last = rewrite(&comma, |rewrite| _ = rewrite.pop_last_route());
        assert_eq!(last, comma.replace(",<sip:p2;lr>", ""));
    }

    #[test]
    fn the_source_of_a_request_is_written_into_its_via() {
        assert_eq!(via("SIP/2.0/UDP 192.0.2.1;branch=x", "192.0.2.1"), "SIP/2.0/UDP 192.0.2.1;branch=x");
        assert_eq!(via("SIP/2.0/UDP h;branch=x", "192.0.2.1"), "SIP/2.0/UDP h;branch=x;received=192.0.2.1");
        assert_eq!(
            via("SIP/2.0/UDP 192.0.2.1:5070 ; rport ;branch=x", "::ffff:192.0.2.1"),
            "SIP/2.0/UDP 192.0.2.1:5070;rport=4321;branch=x;received=192.0.2.1"
        );
        assert_eq!(
            via("SIP/2.0/UDP [2001:db8::1];rport, SIP/2.0/UDP h2;rport", "2001:db8::2"),
            "SIP/2.0/UDP [2001:db8::1];rport=4321;received=2001:db8::2, SIP/2.0/UDP h2;rport"
        );
    }

    #[test]
    fn what_a_sender_claims_about_its_source_is_replaced() {
        assert_eq!(
            via("SIP/2.0/UDP 192.0.2.1;received=203.0.113.9;branch=x", "192.0.2.1"),
            "SIP/2.0/UDP 192.0.2.1;branch=x"
        );
        assert_eq!(
            via("SIP/2.0/UDP h;rport=9;received=203.0.113.9;rport", "192.0.2.1"),
            "SIP/2.0/UDP h;rport=4321;received=192.0.2.1"
        );
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_there_is_kept() {
        let bare = "INVITE sip:b SIP/2.0\r\nTo: sip:b@c\r\n\r\nbody";
        let out = rewrite(bare, |rewrite| {
            rewrite.set_max_forwards(70).set_to_tag(b"t1").add_header("X", b"a\r\nb: c");
        });
        assert_eq!(
            out,
            "INVITE sip:b SIP/2.0\r\nMax-Forwards: 70\r\nTo: sip:b@c;tag=t1\r\nX: a  b: c\r\n\
             Content-Length: 4\r\n\r\nbody"
        );

        let tagged = REQUEST.replace("To: <sip:b@example.com>", "To: <sip:b@example.com>;tag=old");
        assert_eq!(rewrite(&tagged, |rewrite| _ = rewrite.set_to_tag(b"new")), tagged);
    }

    #[test]
    fn a_tag_without_a_value_gives_way_to_ours() {
        for (value, expected) in [
            ("<sip:b@c>;tag", "<sip:b@c>;tag=new"),
            ("<sip:b@c> ; x=\"a;tag\" ;TAG ; y;tag=\"\"", "<sip:b@c> ; x=\"a;tag\" ; y;tag=new"),
            ("sip:b@c;tag=old;tag", "sip:b@c;tag=old;tag"),
        ] {
            let text = format!("INVITE sip:b SIP/2.0\r\nTo: {value}\r\nl: 0\r\n\r\n");
            let out = rewrite(&text, |rewrite| _ = rewrite.set_to_tag(b"new"));
            assert_eq!(out, text.replace(value, expected));
        }
    }

    #[test]
    fn a_removed_header_is_gone_in_all_its_lines() {
        let out = rewrite(REQUEST, |rewrite| {
            rewrite.remove(HeaderId::Via).remove(HeaderId::Other).remove(HeaderId::ContentLength);
        });
        assert!(!out.contains("SIP/2.0/") && out.contains("X: y") && out.contains("Content-Length: 2"));
    }

    #[test]
    fn a_rewritten_message_is_ready_to_be_kept() {
        let mut index = Index::new();
        index.parse(REQUEST.as_bytes(), Framing::Datagram).unwrap();
        let mut rewrite = Rewrite::new(index.view(REQUEST.as_bytes()));

        let message = rewrite.push_via(b"SIP/2.0/UDP me").to_message().unwrap();
        assert_eq!(message.view().top_via().unwrap().host, b"me");

        rewrite.set_request_uri(b"sip:a b");
        assert_eq!(rewrite.to_message().unwrap_err(), FramingError::RequestLine);
    }
}
