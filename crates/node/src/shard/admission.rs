//! Where storm control acts: which requests of a shard are put off. See [`crate::storm`].

use model::{AddressOfRecord, Peer, ServerTransaction};
use pairing::RegisterDecision;
use registrar::is_refresh;
use sip::{Message, Uri};
use tracing::warn;

use super::{Shard, Turn};
use crate::{
    HomeIndex, clock,
    storm::{Backlog, Work},
};

impl Shard {
    /// Measures the turn that ends; `began` is when its first message was dealt with.
    pub(super) fn measure_turn(&mut self, turn: &Turn<'_>, began: model::Instant, backlog: Backlog) {
        if self.storm.turn(began, turn.now, backlog) {
            self.shared.counters.storms_begun.add();
            warn!(
                shard = self.number,
                registrations = self.storm.defers_registers(),
                requests = self.storm.defers_requests(),
                "too slow for what comes: new work is put off"
            );
        }
    }

    /// What stood in the sockets when the batch that is dealt with now was taken; at that moment.
    pub(super) fn backlog(&self, found: transport::Backlog) -> Backlog {
        self.shared.counters.datagrams_dropped.add_many(found.dropped);
        // Zero when the wall clock was set back in between.
        let waited = found.oldest.map(|oldest| clock::wall_time().saturating_since(oldest));
        Backlog { waited: waited.unwrap_or_default(), is_losing: found.dropped > 0 }
    }

    /// Counts what the sockets did by themselves since the last turn.
    pub(super) fn count_sockets(&mut self) {
        let now = self.sockets.counters();
        let before = std::mem::replace(&mut self.counted, now);
        if now == before {
            return;
        }
        let counters = &self.shared.counters;
        for (counter, now, before) in [
            (&counters.stun_answered, now.stun_answered, before.stun_answered),
            (&counters.stun_dropped, now.stun_dropped, before.stun_dropped),
            (&counters.datagrams_banned, now.datagrams_banned, before.datagrams_banned),
            (&counters.connections_banned, now.connections_banned, before.connections_banned),
            (&counters.connections_refused, now.connections_refused, before.connections_refused),
        ] {
            counter.add_many(usize::try_from(now - before).unwrap_or(usize::MAX));
        }
    }

    /// Whether a REGISTER is to be put off: it would make new work for the disk here or at the owner, and is
    /// no refresh of what is bound.
    pub(super) fn defers_register(
        &self,
        request: Message<'_>,
        home: HomeIndex,
        aor: &AddressOfRecord,
        decision: &RegisterDecision,
    ) -> bool {
        if !self.storm.defers_registers() {
            return false;
        }
        match decision {
            RegisterDecision::Serve { .. } | RegisterDecision::Forward { .. } => {}
            RegisterDecision::Redirect { .. } | RegisterDecision::Unavailable { .. } => return false,
        }
        !is_refresh(request, &self.shared.bindings(home, aor))
    }

    /// Whether a request is to be put off: it begins something new and is no emergency.
    pub(super) fn defers_request(&self, request: Message<'_>) -> bool {
        let is_emergency =
            || Uri::parse(request.request_uri()).is_ok_and(|uri| self.settings.emergency.contain(&uri));
        self.storm.defers_requests() && !is_inside_dialog(request) && !is_emergency()
    }

    /// Puts a request off, in its transaction.
    pub(super) fn put_off(&mut self, server: ServerTransaction, request: Message<'_>, work: Work) {
        let seconds = self.retry_after(work);
        self.answer(server, request, 503, &[("Retry-After", seconds.as_bytes())]);
    }

    /// Puts a request off for which there is no transaction.
    pub(super) fn put_off_at_once(&mut self, peer: &Peer, request: Message<'_>, work: Work) {
        let seconds = self.retry_after(work);
        self.send_statelessly(peer, request, 503, &[("Retry-After", seconds.as_bytes())]);
    }

    fn retry_after(&mut self, work: Work) -> String {
        match work {
            Work::Register => self.shared.counters.registers_deferred.add(),
            Work::Request => self.shared.counters.requests_deferred.add(),
        }
        self.storm.retry_after_s(work, &mut self.chance).to_string()
    }
}

/// Whether a request says that it belongs to a dialog: BYE and the like always do. Whether that is true is
/// found out later, as for any request.
fn is_inside_dialog(request: Message<'_>) -> bool {
    request.to().is_ok_and(|to| to.tag().is_some())
}
