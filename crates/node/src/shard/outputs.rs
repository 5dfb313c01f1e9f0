//! Executes what the transaction and the proxy machines ask for.

use std::sync::Arc;

use bytes::Bytes;
use model::{ClientTransaction, NextHop, Peer, ServerTransaction};
use proxy::{BranchFailure, BranchKey, Reject};
use sip::{Message, Method, OwnedMessage, Uri};
use transport::{Destination, SendError};

use super::{
    Origin, Shard, Turn,
    held::Held,
    journeys::{to_place, with_via},
    mail::Mail,
    passed_on::Passed,
};

impl Shard {
    /// Until neither machine wants anything more.
    pub(super) fn drain(&mut self, turn: &Turn<'_>, origin: &Origin) {
        loop {
            if let Some(output) = self.transactions.poll_output() {
                self.transaction_output(turn, origin, output);
            } else if let Some(output) = self.proxy.poll_output() {
                self.proxy_output(turn, output);
            } else {
                return;
            }
        }
    }

    fn transaction_output(&mut self, turn: &Turn<'_>, origin: &Origin, output: transaction::Output) {
        use transaction::Output;
        match output {
            Output::Transmit { to, bytes, client } => self.transmit(turn, to, bytes, client),
            Output::Request { server, request, from } => self.request(turn, origin, server, &request, from),
            Output::Cancel { server, invite, is_matched, request, .. } => {
                self.cancel(turn, server, invite, is_matched, &request);
            }
            Output::Ack { request, from } => self.acknowledge(turn, origin, &request, from),
            Output::Response { tag, response, .. } => {
                if response.view().status() == 503 && self.journeys.may_go_on(tag) {
                    return self.branch_failed(turn, tag, BranchFailure::Transport);
                }
                if response.view().status() >= 200 {
                    self.sent.remove(tag);
                    self.journeys.end(tag);
                }
                if let Some(number) = BranchKey::from(tag).driver_number() {
                    return self.notify_answered(turn, number, Some(response.view()));
                }
                self.proxy.response(turn.now, BranchKey::from(tag), &response);
            }
            Output::ClientTimeout { tag, .. } => self.branch_failed(turn, tag, BranchFailure::Timeout),
            Output::ClientFailed { tag, .. } => self.branch_failed(turn, tag, BranchFailure::Transport),
            Output::ServerFinished { server } => self.proxy.server_finished(server),
        }
    }

    fn proxy_output(&mut self, turn: &Turn<'_>, output: proxy::Output) {
        use proxy::Output;
        match output {
            Output::Forward { branch, request, next_hop } => {
                self.send_request(turn, branch, request, &next_hop)
            }
            Output::Respond { server, status, response } => {
                let passed_on = (status >= 200).then(|| self.passed_on.remove(server)).flatten();
                if let Some(passed) = passed_on.as_ref().filter(|passed| is_register(passed)) {
                    self.judged_by_owner(&passed.from, passed.request.view(), status, &response);
                }
                let is_retried =
                    |passed: &Passed| is_owner_failure(passed, status) && may_have_moved(turn, passed);
                if let Some(passed) = passed_on.as_ref().filter(|passed| is_retried(passed)) {
                    return self.owner_failed(turn, server, passed);
                }
                let response = match &passed_on {
                    Some(passed) if passed.request.view().method() == Method::Register => {
                        self.with_flow_timer(passed.request.view(), &passed.from, status, response)
                    }
                    Some(_) | None => response,
                };
                self.call_answered(server, status);
                let _ended_meanwhile = self.transactions.respond(turn.now, server, status, response);
            }
            Output::Unreachable { server, request, is_unsent } => {
                self.unreachable(turn, server, request.view(), is_unsent);
            }
            Output::Cancel { branch, request, next_hop } => {
                let peer = self.sent.peer(u64::from(branch)).or_else(|| self.resolve(&next_hop));
                let via = self.journeys.via(u64::from(branch));
                let request = via.and_then(|via| with_via(request.view(), via)).unwrap_or(request);
                if let Some(peer) = peer {
                    let tag = u64::from(BranchKey::NONE);
                    let _timer_ends_the_branch = self.transactions.request(turn.now, request, peer, tag);
                }
            }
            Output::Terminate { branch } => {
                self.journeys.end(u64::from(branch));
                if let Some(client) = self.sent.client(u64::from(branch)) {
                    self.transactions.transport_failed(turn.now, client);
                }
            }
            // Recursion on 3xx is off: the driver is never asked.
            Output::Redirected { branch, .. } => self.proxy.redirect(turn.now, branch, Vec::new(), &[]),
            Output::Diverted { server, .. } => self.calls.sent_on(server),
            Output::Finished { server } => {
                // One that is never answered (RFC 4320 section 4.2).
                self.passed_on.remove(server);
                self.calls.forget(server);
            }
        }
    }

    /// Nothing that a request was forwarded to could be sent to. `is_unsent`: it has not even left, so
    /// another way may be tried, and no phone gets it twice.
    fn unreachable(
        &mut self,
        turn: &Turn<'_>,
        server: ServerTransaction,
        request: Message<'_>,
        is_unsent: bool,
    ) {
        if let Some(passed) = self.passed_on.remove(server) {
            let is_register = passed.request.view().method() == Method::Register;
            let held = || Held::new(&passed.origin, server, &passed.request, passed.from);
            if is_unsent && !is_register && self.go_round(turn, held(), passed.towards.clone()) {
                return;
            }
            if may_have_moved(turn, &passed) {
                return self.owner_failed(turn, server, &passed);
            }
        }
        let names_user = Uri::parse(request.request_uri()).is_ok_and(|uri| self.own_user(&uri).is_some());
        let reject = why_unreachable(request, names_user, self.settings.proxy.retry_after_s);
        self.call_answered(server, reject.status());
        self.reject(server, request, &reject);
    }

    fn branch_failed(&mut self, turn: &Turn<'_>, tag: u64, failure: BranchFailure) {
        let failure = if self.sent.is_unsent(tag) { BranchFailure::Unreachable } else { failure };
        self.sent.remove(tag);
        if self.go_on(turn, tag, failure) {
            return;
        }
        if let Some(number) = BranchKey::from(tag).driver_number() {
            return self.notify_answered(turn, number, None);
        }
        self.proxy.branch_failed(turn.now, BranchKey::from(tag), failure);
    }

    fn send_request(
        &mut self,
        turn: &Turn<'_>,
        branch: BranchKey,
        request: Arc<OwnedMessage>,
        next_hop: &NextHop,
    ) {
        if self.set_out(turn, branch, &request, next_hop) {
            return;
        }
        let tag = u64::from(branch);
        let Some(peer) = self.resolve(next_hop) else {
            return self.proxy.branch_failed(turn.now, branch, BranchFailure::Unreachable);
        };
        match self.transactions.request(turn.now, request, peer, tag) {
            Ok(client) => {
                self.shared.counters.requests_forwarded.add();
                self.sent.insert(tag, client, peer);
            }
            Err(_) => self.proxy.branch_failed(turn.now, branch, BranchFailure::Full),
        }
    }

    /// The peer that a next hop stands for; a connection is made where there is none.
    pub(super) fn resolve(&mut self, next_hop: &NextHop) -> Option<Peer> {
        let destination = match next_hop {
            NextHop::Flow(peer) => return Some(*peer),
            NextHop::Address { protocol, remote } => Destination::address(*protocol, *remote),
            NextHop::Server(name) => {
                let topology = self.shared.topology();
                let server = topology.server(name)?;
                Destination::internal(server.listen.internal_sip?, server.fqdn.as_str())
            }
            NextHop::Host { name, places } => to_place(name, *places.first()?),
        };
        self.sockets.connect(&destination).ok()
    }

    pub(super) fn transmit(
        &mut self,
        turn: &Turn<'_>,
        to: Peer,
        bytes: Bytes,
        client: Option<ClientTransaction>,
    ) {
        match self.sockets.send(&to, &bytes) {
            Ok(()) => {}
            Err(SendError::OtherShard { shard }) => {
                if let Some(mailer) = self.others.get(usize::from(shard)) {
                    mailer.post(Mail::Send { to, bytes, from: self.number });
                }
            }
            Err(SendError::Closed | SendError::QueueFull | SendError::NoSocket) => {
                if let Some(client) = client {
                    self.transactions.transport_failed(turn.now, client);
                }
            }
        }
    }

    /// RFC 3261 sections 9.2 and 16.10: the CANCEL is answered by us, what it cancels by the proxy.
    fn cancel(
        &mut self,
        turn: &Turn<'_>,
        server: ServerTransaction,
        invite: Option<ServerTransaction>,
        is_matched: bool,
        request: &OwnedMessage,
    ) {
        if !is_matched {
            return self.reject(server, request.view(), &Reject::NoSuchTransaction);
        }
        self.answer(server, request.view(), 200, &[]);
        let waiting = |invite| self.held.remove(invite).or_else(|| self.hosts.remove(invite));
        if let Some(held) = invite.and_then(waiting) {
            return self.answer(held.server, held.request.view(), 487, &[]);
        }
        if let Some(invite) = invite {
            self.calls.cancelled(invite, request.view());
            self.proxy.cancel(turn.now, invite, Some(request.view()));
        }
    }
}

/// Whether a failure may come from a change of owners. What becomes of a REGISTER is never the failure
/// itself: its phone is told to come back.
fn may_have_moved(turn: &Turn<'_>, passed: &Passed) -> bool {
    // Who forwards to us looks again for the owner itself.
    if passed.origin != Origin::Phone {
        return false;
    }
    passed.request.view().method() == Method::Register || turn.authority.is_any_moving(turn.now)
}

fn is_register(passed: &Passed) -> bool {
    passed.request.view().method() == Method::Register
}

/// Whether an answer says that who gave it is not, or no more, the owner of the user.
fn is_owner_failure(passed: &Passed, status: u16) -> bool {
    if is_register(passed) { matches!(status, 408 | 500 | 503) } else { matches!(status, 480 | 500 | 503) }
}

/// What the caller is told: 480 for a user of ours, who is known and has no place now where requests can go
/// (RFC 3261 section 21.4.18), 500 for all else (16.7 step 6). Inside a dialog too: there a 480 would end the
/// call (RFC 5057 section 5.1), a 500 only the attempt. Never 503, which says that we serve nobody (21.5.4).
fn why_unreachable(request: Message<'_>, names_user: bool, retry_after_s: u32) -> Reject {
    let is_inside_dialog = request.to().is_ok_and(|to| to.tag().is_some());
    if names_user && !is_inside_dialog {
        Reject::Unreachable { retry_after_s }
    } else {
        Reject::ServerInternal
    }
}

#[cfg(test)]
mod tests {
    use sip::{Framing, Index};

    use super::*;

    fn why(to: &str, names_user: bool) -> u16 {
        let text = format!("INVITE sip:bob@example.com SIP/2.0\r\nTo: {to}\r\n\r\n");
        let mut index = Index::new();
        index.parse(text.as_bytes(), Framing::Datagram).unwrap();
        why_unreachable(index.view(text.as_bytes()), names_user, 5).status()
    }

    #[test]
    fn a_user_whom_nothing_reaches_is_temporarily_unavailable_but_not_inside_a_dialog() {
        assert_eq!(why("<sip:bob@example.com>", true), 480);
        assert_eq!(why("<sip:bob@example.com>;tag=t", true), 500);
        assert_eq!(why("<sip:bob@example.com>", false), 500);
    }
}
