//! Executes what the transaction and the proxy machines ask for.

use std::sync::Arc;

use bytes::Bytes;
use model::{ClientTransaction, NextHop, Peer, ServerTransaction};
use proxy::{BranchFailure, BranchKey, Reject};
use sip::OwnedMessage;
use transport::{Destination, SendError};

use super::{Origin, Shard, Turn, mail::Mail};

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
                if response.view().status() >= 200 {
                    self.sent.remove(tag);
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
                match passed_on.filter(|_| matches!(status, 408 | 500 | 503)) {
                    Some(request) => self.owner_failed(server, request.view()),
                    None => {
                        let _ended_meanwhile = self.transactions.respond(turn.now, server, status, response);
                    }
                }
            }
            Output::Cancel { branch, request, next_hop } => {
                let peer = self.sent.peer(u64::from(branch)).or_else(|| self.resolve(&next_hop));
                if let Some(peer) = peer {
                    let tag = u64::from(BranchKey::NONE);
                    let _timer_ends_the_branch = self.transactions.request(turn.now, request, peer, tag);
                }
            }
            Output::Terminate { branch } => {
                if let Some(client) = self.sent.client(u64::from(branch)) {
                    self.transactions.transport_failed(turn.now, client);
                }
            }
            // Recursion on 3xx is off: the driver is never asked.
            Output::Redirected { branch, .. } => self.proxy.redirect(turn.now, branch, Vec::new(), &[]),
            Output::Finished { .. } => {}
        }
    }

    fn branch_failed(&mut self, turn: &Turn<'_>, tag: u64, failure: BranchFailure) {
        self.sent.remove(tag);
        self.proxy.branch_failed(turn.now, BranchKey::from(tag), failure);
    }

    fn send_request(
        &mut self,
        turn: &Turn<'_>,
        branch: BranchKey,
        request: Arc<OwnedMessage>,
        next_hop: &NextHop,
    ) {
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
                let server = self.shared.topology.server(name)?;
                Destination::internal(server.listen.internal_sip?, server.fqdn.as_str())
            }
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
                    mailer.post(Mail::Send { to, bytes });
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
        if let Some(invite) = invite {
            self.proxy.cancel(turn.now, invite, Some(request.view()));
        }
    }
}
