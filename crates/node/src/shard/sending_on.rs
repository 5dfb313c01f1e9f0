//! Calls to users who have wishes: forwarding, simultaneous ring, do-not-disturb.
//!
//! A call that is sent on to a user is a request of its own to the server that serves that user, this one
//! included: so the wishes of that user are followed in turn, wherever he is served, and a call that comes
//! back is seen as a loop. The Diversion header field says who sent it on and counts how often (RFC 5806).

use bytes::Bytes;
use model::{AddressOfRecord, NextHop, documents::Destination};
use proxy::{Diversions, NoAnswer, Reject, Target};
use sip::{HeaderId, Message, Method, Uri};

use super::{Shard, Turn, location::Located};
use crate::{Callee, DiversionReason, Ringing, UserServices, Wish, shared::Place};

/// q of targets among which nothing else sets the order.
const Q_ALONE: u16 = 1_000;

impl Shard {
    /// What a URI is to voice policies.
    pub(super) fn callee(&self, uri: &Uri<'_>) -> Callee {
        if self.settings.emergency.contain(uri) {
            Callee::Emergency
        } else if self.own_user(uri).is_some() {
            Callee::Inside
        } else {
            Callee::Outside
        }
    }

    /// What is done with a call to a user whose phones are these.
    ///
    /// Errors: 404 when every call goes where nobody is, 480 when nothing rings, 486 for a user who does not
    /// want to be disturbed.
    pub(super) fn by_wish(
        &self,
        turn: &Turn<'_>,
        aor: &AddressOfRecord,
        request: Message<'_>,
        services: &UserServices,
        phones: Vec<Target>,
    ) -> Result<Located, Reject> {
        let times = request.values(HeaderId::Diversion).count();
        let callee = |to: &Destination| {
            Uri::parse(to.as_str().as_bytes()).map_or(Callee::Outside, |uri| self.callee(&uri))
        };
        let (to, why, refused) = match services.wish(times, callee) {
            Wish::Refuse => return Err(Reject::Busy),
            Wish::SendOn(to, why @ DiversionReason::DoNotDisturb) => (to, why, Reject::Busy),
            Wish::SendOn(to, why) => (to, why, Reject::NotFound),
            Wish::Ring(Ringing { together, not_reachable: Some(to), .. })
                if phones.is_empty() && together.is_empty() =>
            {
                (to, DiversionReason::Unavailable, Reject::TemporarilyUnavailable)
            }
            Wish::Ring(ringing) => return self.ring(turn, aor, &ringing, phones),
        };
        let target = self.sent_on(turn, to, aor, why, Q_ALONE).ok_or(refused)?;
        Ok(Located { is_sent_on: true, ..Located::of(vec![target]) })
    }

    fn ring(
        &self,
        turn: &Turn<'_>,
        aor: &AddressOfRecord,
        ringing: &Ringing<'_>,
        phones: Vec<Target>,
    ) -> Result<Located, Reject> {
        let mut targets = phones;
        let q = targets.iter().map(|target| target.q).max().unwrap_or(Q_ALONE);
        let together = ringing.together.iter();
        targets.extend(together.filter_map(|to| self.sent_on(turn, to, aor, DiversionReason::FollowMe, q)));
        if targets.is_empty() {
            return Err(Reject::TemporarilyUnavailable);
        }
        let later = |to: &Destination, why| self.sent_on(turn, to, aor, why, Q_ALONE);
        let diversions = Diversions {
            busy: ringing.busy.and_then(|to| later(to, DiversionReason::UserBusy)),
            no_answer: ringing.no_answer.and_then(|(to, after)| {
                Some(NoAnswer { after, target: later(to, DiversionReason::NoAnswer)? })
            }),
            not_reachable: ringing.not_reachable.and_then(|to| later(to, DiversionReason::Unavailable)),
        };
        let diversions = (!diversions.is_empty()).then(|| Box::new(diversions));
        Ok(Located { diversions, ..Located::of(targets) })
    }

    /// A call that `diverter` sends on: to the server that serves the destination, or to this one, which then
    /// says why nobody does. `None` for a destination that leads nowhere: the diverter himself, nobody, and
    /// everything outside, where no trunk leads yet.
    fn sent_on(
        &self,
        turn: &Turn<'_>,
        to: &Destination,
        diverter: &AddressOfRecord,
        why: DiversionReason,
        q: u16,
    ) -> Option<Target> {
        let uri = Uri::parse(to.as_str().as_bytes()).ok()?;
        let aor = self.own_user(&uri).filter(|aor| aor != diverter)?;
        let user = self.shared.directory.user(&aor)?;
        let server = match self.place_of(turn, user.home) {
            Place::Server(server) => server,
            Place::Here(_) | Place::ByCopy | Place::Nowhere { .. } => self.shared.server.name.clone(),
        };
        Some(Target {
            next_hop: NextHop::Server(server),
            request_uri: Bytes::copy_from_slice(to.as_str().as_bytes()),
            routes: Vec::new(),
            q,
            device: None,
            leg: self.legs.internal()?,
            diversion: Some(Bytes::from(why.header(diverter))),
        })
    }
}

/// Whether a request begins a call: what users wish and may is about these only.
pub(super) fn is_new_call(request: Message<'_>) -> bool {
    request.method() == Method::Invite && request.to().is_ok_and(|to| to.tag().is_none())
}
