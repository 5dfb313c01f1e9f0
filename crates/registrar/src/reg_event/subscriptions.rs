//! The subscriptions of one shard.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use model::{AddressOfRecord, Instant, PoolName, RoutingGroup};

use super::{
    Cause, Ending, Now, Settings, SubscribeError, SubscribeRequest, SubscriptionId, SubscriptionState,
    contacts::{Contact, Contacts},
    document,
    subscription::{Due, Phase, Subscription},
};
use crate::{Binding, Gruus, Octets};

/// Bindings are looked up at most so often for one user because of time alone.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How far the steering may catch up when it was held up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The subscriptions of one shard, as a machine. Drain [`Self::poll_output`] after each input.
#[derive(Debug)]
pub struct RegEvents {
    settings: Settings,
    /// Those of the contacts, for the documents.
    gruus: Option<Gruus>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    users: BTreeMap<AddressOfRecord, Watched>,
    /// Users by home pool.
    homes: BTreeMap<PoolName, usize>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Who is to be sent away, in the order of routing groups.
    steered: BTreeSet<(RoutingGroup, SubscriptionId)>,
    steer_at: Instant,
    outputs: VecDeque<Output>,
    next: u64,
}

/// A user with subscriptions.
#[derive(Clone, Debug)]
struct Watched {
    home: PoolName,
    contacts: Contacts,
    subscriptions: Vec<SubscriptionId>,
    look_at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Look(AddressOfRecord),
    Subscription(SubscriptionId),
}

/// A SUBSCRIBE was accepted: answer 200 with these, before executing outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The subscription.
    pub id: SubscriptionId,
    /// The value of Expires.
    pub expires_s: u32,
}

/// How a NOTIFY was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyAnswer {
    /// 2xx.
    Accepted,
    /// A refusal with Retry-After: the subscription stays (RFC 6665 section 4.2.2).
    Later(Duration),
    /// Any other refusal, no answer, or no way to the subscriber: the subscription is over.
    Gone,
}

/// Work for the driver, executed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a NOTIFY in the dialog of a subscription, and report the answer unless the state is terminated.
    Notify {
        /// The subscription.
        id: SubscriptionId,
        /// The `id` of Event.
        event_id: Option<Octets>,
        /// Subscription-State.
        state: SubscriptionState,
        /// The document.
        body: String,
    },
    /// Look up this user's bindings and give them to [`RegEvents::bindings`].
    Look {
        /// Whose.
        aor: AddressOfRecord,
    },
    /// From now on changes of this user's bindings are of interest.
    Watch {
        /// Whose.
        aor: AddressOfRecord,
    },
    /// From now on they are not.
    Unwatch {
        /// Whose.
        aor: AddressOfRecord,
    },
    /// The subscription is over: forget its dialog.
    Ended {
        /// The subscription.
        id: SubscriptionId,
    },
}

impl RegEvents {
    /// No subscriptions yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            gruus: None,
            subscriptions: BTreeMap::new(),
            users: BTreeMap::new(),
            homes: BTreeMap::new(),
            timers: BTreeSet::new(),
            steered: BTreeSet::new(),
            steer_at: Instant::START,
            outputs: VecDeque::new(),
            next: 0,
        }
    }

    /// The same, with the GRUUs of contacts in its documents (RFC 5628).
    #[must_use]
    pub fn with_gruus(self, gruus: Option<Gruus>) -> Self {
        Self { gruus, ..self }
    }

    /// A SUBSCRIBE outside of a dialog, of a user who was authenticated, for that user's own registrations.
    /// `bindings` are those alive now.
    ///
    /// Errors: `TooManyOfUser`, `Full`.
    pub fn subscribe(
        &mut self,
        now: Now,
        aor: &AddressOfRecord,
        home: &PoolName,
        request: &SubscribeRequest,
        bindings: &[Binding],
    ) -> Result<Granted, SubscribeError> {
        if request.expires_s == 0 {
            return Ok(self.fetch(now, aor, request, bindings));
        }
        if let Some(former) = self.same_subscriber(aor, request) {
            self.drop_subscription(former);
        }
        let of_user = self.users.get(aor).map_or(0, |user| user.subscriptions.len());
        if of_user >= self.settings.per_user_max {
            return Err(SubscribeError::TooManyOfUser { max: self.settings.per_user_max });
        }
        if self.subscriptions.len() >= self.settings.subscriptions_max {
            return Err(SubscribeError::Full);
        }
        let id = self.fresh_id();
        if !self.users.contains_key(aor) {
            self.watch(now, aor, home, bindings);
        }
        let Some(user) = self.users.get_mut(aor) else { return Err(SubscribeError::Full) };
        user.subscriptions.push(id);
        let subscription = Subscription {
            aor: aor.clone(),
            target: request.target.clone(),
            event_id: request.event_id.clone(),
            cseq: request.cseq,
            expires_at: now.instant + seconds(request.expires_s),
            version: 0,
            seen: 0,
            due: Due::AtOnce,
            phase: Phase::Quiet { may_notify_at: now.instant },
            timer: None,
        };
        self.subscriptions.insert(id, subscription);
        self.bindings(now, aor, bindings, Cause::Other);
        self.advance(now, id);
        Ok(Granted { id, expires_s: request.expires_s })
    }

    /// A SUBSCRIBE inside the dialog of a subscription, of the same user: refreshes it, or ends it with
    /// `expires_s` 0.
    ///
    /// Errors: `NoSubscription` also where the Event has another `id`, `OutOfOrder`.
    pub fn refresh(
        &mut self,
        now: Now,
        id: SubscriptionId,
        aor: &AddressOfRecord,
        request: &SubscribeRequest,
    ) -> Result<Granted, SubscribeError> {
        let subscription = self.subscriptions.get_mut(&id).ok_or(SubscribeError::NoSubscription)?;
        if subscription.aor != *aor || subscription.event_id != request.event_id {
            return Err(SubscribeError::NoSubscription);
        }
        if request.cseq <= subscription.cseq {
            return Err(SubscribeError::OutOfOrder);
        }
        subscription.cseq = request.cseq;
        subscription.target = request.target.clone();
        subscription.expires_at = now.instant + seconds(request.expires_s);
        subscription.due = Due::AtOnce;
        // Who is about to be sent away anyway is told so now.
        if self.steered.remove(&(RoutingGroup::of(aor), id)) {
            self.end(now, id, Ending::Deactivated);
        } else {
            self.advance(now, id);
        }
        Ok(Granted { id, expires_s: request.expires_s })
    }

    /// What is bound for a user now: after [`Output::Look`], and whenever it changed. Without effect for
    /// users who are not watched.
    pub fn bindings(&mut self, now: Now, aor: &AddressOfRecord, bindings: &[Binding], cause: Cause) {
        let Some(user) = self.users.get_mut(aor) else { return };
        let before = user.contacts.changes();
        user.contacts.update(bindings, cause, now.wall);
        let has_changed = user.contacts.changes() != before;
        let subscribers = if has_changed { user.subscriptions.clone() } else { Vec::new() };
        self.look_later(now, aor);
        for id in subscribers {
            self.advance(now, id);
        }
    }

    /// The account is gone, or must not register any more: ends the user's subscriptions.
    pub fn end_user(&mut self, now: Now, aor: &AddressOfRecord, ending: Ending) {
        let subscribers = self.users.get(aor).map(|user| user.subscriptions.clone());
        for id in subscribers.unwrap_or_default() {
            self.end(now, id, ending);
        }
    }

    /// Sends everybody of a home pool away to its new owner, at the pace of the settings and in the order of
    /// routing groups. Repeating it changes nothing.
    pub fn steer(&mut self, now: Now, home: &PoolName) {
        if self.steered.is_empty() {
            self.steer_at = self.steer_at.max(now.instant);
        }
        for (aor, user) in self.users.iter().filter(|(_, user)| user.home == *home) {
            let group = RoutingGroup::of(aor);
            self.steered.extend(user.subscriptions.iter().map(|id| (group, *id)));
        }
    }

    /// The owner is this server again: who was not sent away yet stays.
    pub fn stay(&mut self, home: &PoolName) {
        let (users, subscriptions) = (&self.users, &self.subscriptions);
        self.steered.retain(|(_, id)| {
            let user = subscriptions.get(id).and_then(|subscription| users.get(&subscription.aor));
            user.is_some_and(|user| user.home != *home)
        });
    }

    /// The answer to a NOTIFY whose state was active. Without effect when the subscription is over.
    pub fn answered(&mut self, now: Now, id: SubscriptionId, answer: NotifyAnswer) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let Phase::Notifying { may_notify_at, ending } = subscription.phase else { return };
        let may_notify_at = match answer {
            NotifyAnswer::Gone => return self.drop_subscription(id),
            NotifyAnswer::Accepted => may_notify_at,
            NotifyAnswer::Later(pause) => {
                if subscription.due == Due::Nothing {
                    subscription.due = Due::Again;
                }
                may_notify_at.max(now.instant + pause)
            }
        };
        subscription.phase = Phase::Quiet { may_notify_at };
        match ending {
            Some(ending) => self.terminate(now, id, ending),
            None => self.advance(now, id),
        }
    }

    /// Nothing reaches the subscriber any more.
    pub fn lost(&mut self, id: SubscriptionId) {
        self.drop_subscription(id);
    }

    /// Lets what is due take effect; safe early, late or twice.
    pub fn handle_timeout(&mut self, now: Now) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now.instant)
            && let Some((_, timer)) = self.timers.pop_first()
        {
            match timer {
                Timer::Subscription(id) => self.advance(now, id),
                Timer::Look(aor) => {
                    self.look_later(now, &aor);
                    self.outputs.push_back(Output::Look { aor });
                }
            }
        }
        while self.steer_at <= now.instant
            && let Some((_, id)) = self.steered.pop_first()
        {
            self.steer_at = self.steer_at.max(now.instant - CATCH_UP) + self.settings.steer_every;
            self.end(now, id, Ending::Deactivated);
        }
    }

    /// When to call [`Self::handle_timeout`] next; `None` = only after an input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let steer = (!self.steered.is_empty()).then_some(self.steer_at);
        timer.into_iter().chain(steer).min()
    }

    /// The next thing to do; `None` when there is nothing left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Home pools whose users have subscriptions.
    pub fn homes(&self) -> impl Iterator<Item = &PoolName> {
        self.homes.keys()
    }

    /// Phones that are still to be sent away.
    pub fn steered_len(&self) -> usize {
        self.steered.len()
    }

    /// Subscriptions held.
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// How things stand, once, without a subscription (RFC 6665 section 4.4.3).
    fn fetch(
        &mut self,
        now: Now,
        aor: &AddressOfRecord,
        request: &SubscribeRequest,
        bindings: &[Binding],
    ) -> Granted {
        let id = self.fresh_id();
        let contacts: Vec<Contact> = Contacts::new(bindings).report(0).collect();
        let body = document::write(aor, 0, &contacts, self.gruus.as_ref(), now.wall);
        let state = SubscriptionState::Terminated(Ending::Timeout);
        self.outputs.push_back(Output::Notify { id, event_id: request.event_id.clone(), state, body });
        self.outputs.push_back(Output::Ended { id });
        Granted { id, expires_s: 0 }
    }

    fn same_subscriber(&self, aor: &AddressOfRecord, request: &SubscribeRequest) -> Option<SubscriptionId> {
        let of_user = self.users.get(aor)?.subscriptions.iter();
        of_user.copied().find(|id| {
            self.subscriptions.get(id).is_some_and(|subscription| {
                subscription.target == request.target && subscription.event_id == request.event_id
            })
        })
    }

    fn watch(&mut self, now: Now, aor: &AddressOfRecord, home: &PoolName, bindings: &[Binding]) {
        let user = Watched {
            home: home.clone(),
            contacts: Contacts::new(bindings),
            subscriptions: Vec::new(),
            look_at: now.instant,
        };
        self.users.insert(aor.clone(), user);
        *self.homes.entry(home.clone()).or_default() += 1;
        self.outputs.push_back(Output::Watch { aor: aor.clone() });
        self.look_later(now, aor);
    }

    /// Sends what is due and sets the timer for what is not yet.
    fn advance(&mut self, now: Now, id: SubscriptionId) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let changes = self.users.get(&subscription.aor).map_or(0, |user| user.contacts.changes());
        let is_over = subscription.expires_at <= now.instant;
        let timer = match (&mut subscription.phase, subscription.due) {
            (Phase::Notifying { ending, .. }, _) => {
                if is_over && ending.is_none() {
                    *ending = Some(Ending::Timeout);
                }
                ending.is_none().then_some(subscription.expires_at)
            }
            (Phase::Quiet { .. }, _) if is_over => return self.terminate(now, id, Ending::Timeout),
            (Phase::Quiet { .. }, Due::AtOnce) => return self.notify(now, id),
            (Phase::Quiet { may_notify_at }, due @ (Due::Nothing | Due::Again)) => {
                let is_behind = due == Due::Again || subscription.seen < changes;
                if is_behind && *may_notify_at <= now.instant {
                    return self.notify(now, id);
                }
                let next = if is_behind { *may_notify_at } else { subscription.expires_at };
                Some(next.min(subscription.expires_at))
            }
        };
        self.set_timer(id, timer);
    }

    fn notify(&mut self, now: Now, id: SubscriptionId) {
        let pause = self.settings.pause;
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let Some(user) = self.users.get(&subscription.aor) else { return };
        let contacts: Vec<Contact> = user.contacts.report(subscription.seen).collect();
        let left = subscription.expires_at.saturating_since(now.instant);
        let state = SubscriptionState::Active { expires_s: left.as_secs().max(1) };
        let body = document::write(
            &subscription.aor,
            subscription.version,
            &contacts,
            self.gruus.as_ref(),
            now.wall,
        );
        self.outputs.push_back(Output::Notify { id, event_id: subscription.event_id.clone(), state, body });
        subscription.version = subscription.version.wrapping_add(1);
        subscription.seen = user.contacts.changes();
        subscription.due = Due::Nothing;
        subscription.phase = Phase::Notifying { may_notify_at: now.instant + pause, ending: None };
        let (aor, expires_at) = (subscription.aor.clone(), subscription.expires_at);
        self.set_timer(id, Some(expires_at));
        self.forget_ended(&aor);
    }

    /// Ends a subscription as soon as no NOTIFY is under way.
    fn end(&mut self, now: Now, id: SubscriptionId, why: Ending) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        match &mut subscription.phase {
            Phase::Quiet { .. } => self.terminate(now, id, why),
            Phase::Notifying { ending, .. } => {
                *ending = Some(why);
                self.set_timer(id, None);
            }
        }
    }

    /// The last NOTIFY.
    fn terminate(&mut self, now: Now, id: SubscriptionId, ending: Ending) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        let user = self.users.get(&subscription.aor);
        let reported = user.map(|user| user.contacts.report(subscription.seen));
        let contacts: Vec<Contact> =
            reported.into_iter().flatten().map(|contact| ending.of_contact(contact)).collect();
        let body = document::write(
            &subscription.aor,
            subscription.version,
            &contacts,
            self.gruus.as_ref(),
            now.wall,
        );
        let state = SubscriptionState::Terminated(ending);
        self.outputs.push_back(Output::Notify { id, event_id: subscription.event_id.clone(), state, body });
        self.drop_subscription(id);
    }

    fn drop_subscription(&mut self, id: SubscriptionId) {
        self.set_timer(id, None);
        let Some(subscription) = self.subscriptions.remove(&id) else { return };
        let aor = subscription.aor;
        self.steered.remove(&(RoutingGroup::of(&aor), id));
        self.outputs.push_back(Output::Ended { id });
        let Some(user) = self.users.get_mut(&aor) else { return };
        user.subscriptions.retain(|other| *other != id);
        if !user.subscriptions.is_empty() {
            return self.forget_ended(&aor);
        }
        self.timers.remove(&(user.look_at, Timer::Look(aor.clone())));
        if let Some(user) = self.users.remove(&aor)
            && let Some(count) = self.homes.get_mut(&user.home)
        {
            *count -= 1;
            if *count == 0 {
                self.homes.remove(&user.home);
            }
        }
        self.outputs.push_back(Output::Unwatch { aor });
    }

    /// Lets go of contacts that ended and that every subscriber was told of.
    fn forget_ended(&mut self, aor: &AddressOfRecord) {
        let Some(user) = self.users.get_mut(aor) else { return };
        let seen = user.subscriptions.iter().filter_map(|id| Some(self.subscriptions.get(id)?.seen)).min();
        user.contacts.forget_ended(seen.unwrap_or(u64::MAX));
    }

    /// Looks a user up again when the next contact ends, and now and then besides.
    fn look_later(&mut self, now: Now, aor: &AddressOfRecord) {
        let Some(user) = self.users.get_mut(aor) else { return };
        let ends_in = user.contacts.next_expiry().map(|at| at.saturating_since(now.wall).max(LOOK_PAUSE));
        let within = ends_in.unwrap_or(self.settings.look_every).min(self.settings.look_every);
        self.timers.remove(&(user.look_at, Timer::Look(aor.clone())));
        user.look_at = now.instant + within;
        self.timers.insert((user.look_at, Timer::Look(aor.clone())));
    }

    fn set_timer(&mut self, id: SubscriptionId, at: Option<Instant>) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if let Some(former) = std::mem::replace(&mut subscription.timer, at) {
            self.timers.remove(&(former, Timer::Subscription(id)));
        }
        if let Some(at) = at {
            self.timers.insert((at, Timer::Subscription(id)));
        }
    }

    fn fresh_id(&mut self) -> SubscriptionId {
        self.next += 1;
        SubscriptionId(self.next)
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(u64::from(number))
}
