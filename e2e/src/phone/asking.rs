//! The phone asks: requests inside and outside of dialogs, challenges, retransmissions.

use std::{
    net::SocketAddr,
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{ANSWER_WITHIN, Answer, Dialog, Line, SDP, fresh, key_of};
use crate::{Message, Via, digest::Challenge, message::uri_of};

/// Time until the first retransmission over UDP (RFC 3261 T1).
const T1: Duration = Duration::from_millis(500);

impl Line {
    /// A request outside a dialog, without Via.
    pub(super) fn outside(&self, method: &str, uri: &str, call_id: &str, tag: &str, attempt: u32) -> Message {
        Message::new(format!("{method} {uri} SIP/2.0"))
            .with("Max-Forwards", "70")
            .with("From", format!("<{}>;tag={tag}", self.aor()))
            .with("To", format!("<{uri}>"))
            .with("Call-ID", call_id)
            .with("CSeq", format!("{attempt} {method}"))
    }

    pub(super) fn invite(&self, uri: &str, call_id: &str, limit: Duration) -> Result<Answer> {
        let tag = fresh();
        let contact = self.dialog_contact();
        let answer = self.ask("INVITE", uri, limit, |attempt| {
            let mut request = self
                .outside("INVITE", uri, call_id, &tag, attempt)
                .with("Contact", format!("<{contact}>"))
                .with("Content-Type", "application/sdp");
            request.body = SDP.as_bytes().to_vec();
            request
        })?;
        if (200..300).contains(&answer.status) {
            let (cseq, _) = answer.message.cseq().context("CSeq")?;
            let mut routes = answer.message.values("Record-Route");
            routes.reverse();
            let dialog = Dialog {
                local: answer.header("From").context("From")?.to_owned(),
                remote: answer.header("To").context("To")?.to_owned(),
                target: answer.message.contact_uri().context("a 200 to INVITE has a Contact")?,
                routes,
                cseq,
                is_acknowledged: true,
                is_ended: false,
                invite: None,
            };
            let ack = self.inside(&dialog, call_id, "ACK", cseq);
            self.send_inside(&dialog, &ack)?;
            self.state().dialogs.insert(call_id.to_owned(), dialog);
        }
        Ok(answer)
    }

    pub(super) fn bye(&self, call_id: &str) -> Result<Answer> {
        let dialog = {
            let mut state = self.state();
            let dialog = state.dialogs.get_mut(call_id).context("no such call")?;
            dialog.cseq += 1;
            dialog.is_ended = true;
            dialog.clone()
        };
        let bye = self.inside(&dialog, call_id, "BYE", dialog.cseq);
        self.exchange_at(self.next_hop(&dialog), &bye, ANSWER_WITHIN)
    }

    pub(super) fn info(&self, call_id: &str, text: &str) -> Result<Answer> {
        let dialog = {
            let mut state = self.state();
            let dialog = state.dialogs.get_mut(call_id).context("no such call")?;
            dialog.cseq += 1;
            dialog.clone()
        };
        let mut info = self.inside(&dialog, call_id, "INFO", dialog.cseq).with("Content-Type", "text/plain");
        info.body = text.as_bytes().to_vec();
        self.exchange_at(self.next_hop(&dialog), &info, ANSWER_WITHIN)
    }

    /// A request inside a dialog, with its Via.
    pub(super) fn inside(&self, dialog: &Dialog, call_id: &str, method: &str, cseq: u32) -> Message {
        let mut request = Message::new(format!("{method} {} SIP/2.0", dialog.target))
            .with("Via", self.new_via())
            .with("Max-Forwards", "70");
        for route in &dialog.routes {
            request = request.with("Route", route);
        }
        request
            .with("From", &dialog.local)
            .with("To", &dialog.remote)
            .with("Call-ID", call_id)
            .with("CSeq", format!("{cseq} {method}"))
    }

    pub(super) fn send_inside(&self, dialog: &Dialog, request: &Message) -> Result<()> {
        self.socket.send(self.next_hop(dialog), &request.write())
    }

    /// Where a request of a dialog goes: its first route, else its target. Streams have only the one way.
    pub(super) fn next_hop(&self, dialog: &Dialog) -> SocketAddr {
        let uri = dialog.routes.first().map_or_else(|| dialog.target.clone(), |route| uri_of(route));
        let host = uri.trim_start_matches("sip:").split(';').next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        host.parse().unwrap_or_else(|_| self.server())
    }

    pub(super) fn new_via(&self) -> String {
        format!("SIP/2.0/{} {};branch=z9hG4bK{};rport", self.via.token(), self.sent_by, fresh())
    }

    /// Sends requests until one is not challenged, at most three. `build` makes each one, without Via.
    pub(super) fn ask(
        &self,
        method: &'static str,
        uri: &str,
        limit: Duration,
        build: impl FnMut(u32) -> Message,
    ) -> Result<Answer> {
        self.ask_at(self.server(), method, uri, limit, build)
    }

    /// The same, to another address than the server's.
    pub(super) fn ask_at(
        &self,
        to: SocketAddr,
        method: &'static str,
        uri: &str,
        limit: Duration,
        mut build: impl FnMut(u32) -> Message,
    ) -> Result<Answer> {
        let mut is_for_server = matches!(method, "REGISTER" | "SUBSCRIBE");
        for attempt in 1..=3 {
            let mut request = build(attempt);
            request.headers.insert(0, ("Via".to_owned(), self.new_via()));
            let names = |is_for_server| {
                if is_for_server {
                    ("Authorization", "WWW-Authenticate")
                } else {
                    ("Proxy-Authorization", "Proxy-Authenticate")
                }
            };
            let (header, _) = names(is_for_server);
            let (password, mut used) = (self.password(), None);
            if let Some(known) = self.state().challenges.get_mut(header) {
                let value = known.answer(&self.user, &password, method, uri);
                request = request.with(header, value);
                used = Some(known.clone());
            }
            let mut answer = self.exchange_at(to, &request, limit)?;
            answer.challenges = usize::try_from(attempt - 1)?;
            if !matches!(answer.status, 401 | 407) || attempt == 3 {
                return Ok(answer);
            }
            let was_for_server = is_for_server;
            is_for_server = answer.status == 401;
            let (header, challenge) = names(is_for_server);
            let stale =
                answer.message.lines(challenge).any(|line| line.to_lowercase().contains("stale=true"));
            let new = Challenge::choose(answer.message.lines(challenge), self.state().md5_only);
            let new = new.with_context(|| format!("no challenge to answer: {:?}", answer.message))?;
            if let Some(used) = used
                && was_for_server == is_for_server
                && (used.is_same_nonce(&new) || (attempt > 1 && !stale))
            {
                return Ok(answer);
            }
            self.state().challenges.insert(header, new);
        }
        bail!("unreachable: the third attempt returns")
    }

    pub(super) fn password(&self) -> String {
        self.password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn exchange(&self, request: &Message, limit: Duration) -> Result<Answer> {
        self.exchange_at(self.server(), request, limit)
    }

    /// Sends a request, again over UDP while nothing comes, and waits for its final response.
    pub(super) fn exchange_at(&self, to: SocketAddr, request: &Message, limit: Duration) -> Result<Answer> {
        let key = key_of(request).context("a request has Via and CSeq")?;
        let method = request.cseq().context("CSeq")?.1.to_owned();
        let bytes = request.write();
        let sent = Instant::now();
        self.state().sent.insert(key.clone(), sent);
        self.socket.send(to, &bytes)?;
        let (mut again_at, mut pause) = (sent + T1, T1);
        let mut state = self.state();
        loop {
            let responses = state.responses.get(&key).map(Vec::as_slice).unwrap_or_default();
            let status = |message: &Message| message.status().unwrap_or(0);
            if let Some((received, found)) = responses.iter().find(|(_, found)| status(found) >= 200) {
                let provisional = responses.iter().map(|(_, found)| status(found));
                let answer = Answer {
                    status: status(found),
                    message: found.clone(),
                    sent,
                    received: *received,
                    challenges: 0,
                    provisional: provisional.filter(|status| (101..200).contains(status)).collect(),
                };
                drop(state);
                if method == "INVITE" && answer.status >= 300 {
                    self.acknowledge_refusal(to, request, &answer.message)?;
                }
                return Ok(answer);
            }
            let has_provisional = !responses.is_empty();
            let now = Instant::now();
            ensure!(now - sent < limit, "no final response to {} of {} within {limit:?}", method, self.user);
            ensure!(!state.is_lost, "the connection of {} was closed", self.user);
            if self.via == Via::Udp && now >= again_at && !(method == "INVITE" && has_provisional) {
                self.socket.send(to, &bytes)?;
                pause = (pause * 2).min(Duration::from_secs(4));
                again_at = now + pause;
            }
            let wait = Duration::from_millis(100).min(limit);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The ACK for a refused INVITE (RFC 3261 section 17.1.1.3).
    pub(super) fn acknowledge_refusal(
        &self,
        to: SocketAddr,
        invite: &Message,
        response: &Message,
    ) -> Result<()> {
        let uri = invite.start.split(' ').nth(1).context("a request line")?;
        let (number, _) = invite.cseq().context("CSeq")?;
        let copy = |name: &str| invite.header(name).map(ToOwned::to_owned).context("a header to copy");
        let ack = Message::new(format!("ACK {uri} SIP/2.0"))
            .with("Via", copy("Via")?)
            .with("Max-Forwards", "70")
            .with("From", copy("From")?)
            .with("To", response.header("To").context("To")?)
            .with("Call-ID", copy("Call-ID")?)
            .with("CSeq", format!("{number} ACK"));
        self.socket.send(to, &ack.write())
    }
}
