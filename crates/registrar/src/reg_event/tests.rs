//! Subscriptions by table: what each input makes of each state.

use std::time::Duration;

use model::{AddressOfRecord, Instant, PoolName, WallTime};

use super::{
    Cause, Ending, Granted, NotifyAnswer, Now, Output, RegEvents, Settings, SubscribeError, SubscribeRequest,
    SubscribeSettings, SubscriptionId, SubscriptionState, read_subscribe,
};
use crate::{
    Bindings, GroupState, Outcome,
    test_support::{START, alice, command, message, read, register},
};

mod documents;
mod properties;
mod requests;

const ACTIVE_AN_HOUR: SubscriptionState = SubscriptionState::Active { expires_s: 3_600 };

/// The machine with a registrar beside it, as the driver puts them together.
pub(super) struct World {
    pub(super) events: RegEvents,
    group: GroupState,
    operation: u128,
    pub(super) at: Duration,
    /// Subscriptions that are over, in order.
    pub(super) ended: Vec<SubscriptionId>,
}

/// A NOTIFY as the machine wanted it sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) id: SubscriptionId,
    pub(super) state: SubscriptionState,
    pub(super) body: String,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            events: RegEvents::new(settings),
            group: GroupState::new(),
            operation: 0,
            at: Duration::ZERO,
            ended: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { instant: Instant::START + self.at, wall: WallTime::from_micros(START.as_micros()) + self.at }
    }

    /// A REGISTER of Alice's from one of her phones, told to the machine.
    pub(super) fn register(&mut self, call_id: &str, cseq: u32, contact: &str) {
        let request = read(&register(call_id, cseq, &[&format!("Contact: {contact}")])).unwrap();
        self.operation += 1;
        let outcome = self.group.apply(&command(self.operation, self.now().wall, request.change.unwrap()));
        let Outcome::Registered { bindings, .. } = outcome else { panic!("{outcome:?}") };
        self.events.bindings(self.now(), &alice(), &bindings, Cause::Register);
    }

    pub(super) fn bound(&self) -> Bindings {
        self.group.lookup(&alice(), self.now().wall)
    }

    pub(super) fn subscribe(&mut self, phone: &str, expires_s: u32) -> Result<Granted, SubscribeError> {
        let (now, bound) = (self.now(), self.bound());
        self.events.subscribe(now, &alice(), &pool("east"), &ask(phone, 1, expires_s), &bound)
    }

    /// What was to be sent; looks bindings up where the machine asks for it.
    pub(super) fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(output) = self.events.poll_output() {
            match output {
                Output::Notify { id, state, body, .. } => sent.push(Sent { id, state, body }),
                Output::Look { aor } => {
                    let (now, bound) = (self.now(), self.bound());
                    self.events.bindings(now, &aor, &bound, Cause::Other);
                }
                Output::Ended { id } => self.ended.push(id),
                Output::Watch { .. } | Output::Unwatch { .. } => {}
            }
        }
        sent
    }

    /// Lets time pass, every timer at its time, and returns what was sent meanwhile.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.at + time;
        let mut sent = self.sent();
        while let Some(due) = self.events.poll_timeout().map(|due| due.saturating_since(Instant::START))
            && due <= end
        {
            self.at = self.at.max(due);
            self.events.handle_timeout(self.now());
            sent.extend(self.sent());
        }
        self.at = end;
        sent
    }

    pub(super) fn answer(&mut self, id: SubscriptionId, answer: NotifyAnswer) {
        self.events.answered(self.now(), id, answer);
    }

    /// A subscription of an hour whose first NOTIFY was answered.
    fn subscribed(&mut self, phone: &str) -> SubscriptionId {
        let Granted { id, .. } = self.subscribe(phone, 3_600).unwrap();
        assert_eq!(self.sent().len(), 1);
        self.answer(id, NotifyAnswer::Accepted);
        id
    }
}

pub(super) fn pool(name: &str) -> PoolName {
    PoolName::new(name).unwrap()
}

pub(super) fn ask(phone: &str, cseq: u32, expires_s: u32) -> SubscribeRequest {
    SubscribeRequest { event_id: None, expires_s, cseq, target: phone.as_bytes().into() }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_subscription_begins_with_the_full_state_and_ends_with_its_time() {
    let mut world = World::new(Settings::default());
    world.register("one", 1, "<sip:a@h1>;expires=300");

    let granted = world.subscribe("sip:a@h1", 120).unwrap();

    let first = world.sent();
    assert_eq!(granted.expires_s, 120);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].state, SubscriptionState::Active { expires_s: 120 });
    assert!(first[0].body.contains("<uri>sip:a@h1</uri>"), "{}", first[0].body);
    world.answer(granted.id, NotifyAnswer::Accepted);
    assert_eq!(world.pass(s(119)), []);
    let last = world.pass(s(1));
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].state, SubscriptionState::Terminated(Ending::Timeout));
    assert!(last[0].body.contains("version=\"1\""), "{}", last[0].body);
    assert!(world.events.is_empty() && world.events.poll_timeout().is_none());
}

#[test]
fn a_change_is_told_at_once_and_the_next_one_five_seconds_later() {
    let mut world = World::new(Settings::default());
    let id = world.subscribed("sip:a@h1");
    assert_eq!(world.pass(s(10)), []);

    world.register("two", 1, "<sip:a@h2>;expires=300");
    assert_eq!(world.sent().len(), 1);
    world.answer(id, NotifyAnswer::Accepted);
    world.register("three", 1, "<sip:a@h3>;expires=300");
    world.register("two", 2, "<sip:a@h2>;expires=0");
    assert_eq!(world.pass(Duration::from_millis(4_999)), []);

    let later = world.pass(Duration::from_millis(1));
    assert_eq!(later.len(), 1);
    for part in ["event=\"unregistered\"", "event=\"registered\"", "<uri>sip:a@h2<", "<uri>sip:a@h3<"] {
        assert!(later[0].body.contains(part), "{}", later[0].body);
    }
}

#[test]
fn a_mere_refresh_is_not_told_but_seen_in_the_next_document() {
    let mut world = World::new(Settings::default());
    world.register("one", 1, "<sip:a@h1>;expires=300");
    let id = world.subscribed("sip:a@h1");

    world.register("one", 2, "<sip:a@h1>;expires=300");
    assert_eq!(world.pass(s(20)), []);
    world.register("two", 1, "<sip:a@h2>;expires=300");

    let told = world.sent();
    assert_eq!((told.len(), told[0].id), (1, id));
    assert!(told[0].body.contains("event=\"refreshed\""), "{}", told[0].body);
}

#[test]
fn a_contact_that_is_not_refreshed_is_told_as_expired_when_it_ends() {
    let mut world = World::new(Settings::default());
    world.register("one", 1, "<sip:a@h1>;expires=70");
    world.subscribed("sip:a@h1");

    assert_eq!(world.pass(s(70)), []);
    let told = world.pass(s(2));

    assert_eq!(told.len(), 1);
    assert!(told[0].body.contains("state=\"terminated\" event=\"expired\""), "{}", told[0].body);
    assert!(told[0].body.contains("\" state=\"terminated\">\n<contact"), "{}", told[0].body);
}

#[test]
fn what_is_removed_by_other_means_is_deactivated_and_found_by_looking() {
    let mut world = World::new(Settings::default());
    world.register("one", 1, "<sip:a@h1>;expires=3600");
    world.subscribed("sip:a@h1");
    world.group = GroupState::new();

    let told = world.pass(Settings::default().look_every);

    assert_eq!(told.len(), 1);
    assert!(told[0].body.contains("event=\"deactivated\""), "{}", told[0].body);
}

#[test]
fn nothing_is_sent_while_a_notify_is_under_way() {
    let mut world = World::new(Settings::default());
    let id = world.subscribe("sip:a@h1", 3_600).unwrap().id;
    assert_eq!(world.sent().len(), 1);

    world.register("two", 1, "<sip:a@h2>");
    world.events.steer(world.now(), &pool("east"));
    assert_eq!(world.pass(s(20)), []);
    world.answer(id, NotifyAnswer::Accepted);

    let told = world.sent();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].state, SubscriptionState::Terminated(Ending::Deactivated));
    assert!(told[0].body.contains("event=\"deactivated\""), "{}", told[0].body);
}

#[test]
fn an_answer_decides_what_becomes_of_the_subscription() {
    let later = NotifyAnswer::Later(s(30));
    for (answer, told_within_20_s, told_within_30_s, remains) in
        [(NotifyAnswer::Accepted, 1, 1, true), (later, 0, 1, true), (NotifyAnswer::Gone, 0, 0, false)]
    {
        let mut world = World::new(Settings::default());
        let id = world.subscribe("sip:a@h1", 3_600).unwrap().id;
        assert_eq!(world.sent().len(), 1);

        world.answer(id, answer);
        world.register("two", 1, "<sip:a@h2>");
        let first = world.pass(s(20)).len();
        let all = first + world.pass(s(10)).len();

        assert_eq!((first, all), (told_within_20_s, told_within_30_s), "{answer:?}");
        assert_eq!(!world.events.is_empty(), remains, "{answer:?}");
    }
}

#[test]
fn a_refresh_is_told_at_once_and_prolongs_and_zero_ends() {
    let mut world = World::new(Settings::default());
    let id = world.subscribed("sip:a@h1");
    assert_eq!(world.pass(s(3_000)), []);

    let now = world.now();
    world.events.refresh(now, id, &alice(), &ask("sip:a@h1", 2, 3_600)).unwrap();
    assert_eq!(world.sent().iter().map(|sent| sent.state).collect::<Vec<_>>(), [ACTIVE_AN_HOUR]);
    world.answer(id, NotifyAnswer::Accepted);
    assert_eq!(world.pass(s(3_599)), []);
    let now = world.now();
    world.events.refresh(now, id, &alice(), &ask("sip:a@h1", 3, 0)).unwrap();

    let last = world.sent();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].state, SubscriptionState::Terminated(Ending::Timeout));
    assert!(world.events.is_empty());
}

#[test]
fn a_refresh_of_another_user_dialog_order_or_id_is_refused() {
    let mut world = World::new(Settings::default());
    let id = world.subscribed("sip:a@h1");
    let bob = AddressOfRecord::new("sip:b@example.com").unwrap();
    let other_id = SubscribeRequest { event_id: Some(b"7"[..].into()), ..ask("sip:a@h1", 2, 60) };
    let now = world.now();
    let mut refresh = |id, aor: &AddressOfRecord, request| world.events.refresh(now, id, aor, &request);

    assert_eq!(refresh(id, &bob, ask("sip:a@h1", 2, 60)), Err(SubscribeError::NoSubscription));
    assert_eq!(refresh(id, &alice(), other_id), Err(SubscribeError::NoSubscription));
    assert_eq!(refresh(id, &alice(), ask("sip:a@h1", 1, 60)), Err(SubscribeError::OutOfOrder));
    assert_eq!(
        refresh(SubscriptionId(99), &alice(), ask("sip:a@h1", 2, 60)),
        Err(SubscribeError::NoSubscription)
    );
}

#[test]
fn a_fetch_tells_once_and_leaves_nothing_behind() {
    let mut world = World::new(Settings::default());
    world.register("one", 1, "<sip:a@h1>");

    let granted = world.subscribe("sip:a@h1", 0).unwrap();

    let told = world.sent();
    assert_eq!((told.len(), granted.expires_s), (1, 0));
    assert_eq!(told[0].state, SubscriptionState::Terminated(Ending::Timeout));
    assert!(told[0].body.contains("state=\"active\" event=\"registered\""), "{}", told[0].body);
    assert!(world.events.is_empty() && world.events.poll_timeout().is_none());
}

#[test]
fn a_phone_that_restarted_replaces_its_subscription_and_others_are_bounded() {
    let settings = Settings { per_user_max: 2, subscriptions_max: 3, ..Settings::default() };
    let mut world = World::new(settings);
    let first = world.subscribed("sip:a@h1");
    let again = world.subscribed("sip:a@h1");
    world.subscribed("sip:a@h2");

    assert_ne!(first, again);
    assert_eq!(world.events.len(), 2);
    assert_eq!(world.subscribe("sip:a@h3", 60), Err(SubscribeError::TooManyOfUser { max: 2 }));
    let now = world.now();
    let mut of = |user: &str| {
        let aor = AddressOfRecord::new(&format!("sip:{user}@example.com")).unwrap();
        world.events.subscribe(now, &aor, &pool("east"), &ask("sip:x@h", 1, 60), &[])
    };
    assert!(of("b").is_ok());
    assert_eq!(of("c"), Err(SubscribeError::Full));
    assert_eq!(world.events.len(), 3);
}

#[test]
fn phones_are_sent_away_at_the_pace_in_the_order_of_routing_groups() {
    let settings = Settings { steer_every: Duration::from_millis(10), ..Settings::default() };
    let mut world = World::new(settings);
    let mut groups = std::collections::BTreeMap::new();
    for number in 0..300 {
        let aor = AddressOfRecord::new(&format!("sip:u{number}@example.com")).unwrap();
        let home = pool(if number % 3 == 0 { "west" } else { "east" });
        let now = world.now();
        let id = world.events.subscribe(now, &aor, &home, &ask("sip:x@h", 1, 3_600), &[]).unwrap().id;
        world.answer(id, NotifyAnswer::Accepted);
        groups.insert(id, model::RoutingGroup::of(&aor));
    }
    assert_eq!(world.pass(s(1)).len(), 300);

    world.events.steer(world.now(), &pool("east"));
    let mut told = Vec::new();
    for tenth in 1..=20 {
        world.events.steer(world.now(), &pool("east"));
        told.extend(world.pass(Duration::from_millis(100)));
        let expected = (tenth * 10 + 1).min(200);
        assert_eq!(told.len(), expected, "after {tenth} tenths of a second");
    }

    let order: Vec<_> = told.iter().map(|sent| groups[&sent.id]).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(told.iter().all(|sent| sent.state == SubscriptionState::Terminated(Ending::Deactivated)));
    assert_eq!((world.events.len(), world.events.steered_len()), (100, 0));
    assert_eq!(world.events.homes().collect::<Vec<_>>(), [&pool("west")]);
}

#[test]
fn an_owner_that_is_one_again_keeps_who_was_not_sent_away_yet() {
    let mut world = World::new(Settings { steer_every: s(1), ..Settings::default() });
    let ids: Vec<_> = (1..=4).map(|phone| world.subscribed(&format!("sip:a@h{phone}"))).collect();

    world.events.steer(world.now(), &pool("east"));
    assert_eq!(world.pass(Duration::from_millis(1_500)).len(), 2);
    world.events.stay(&pool("west"));
    assert_eq!(world.events.steered_len(), 2);
    world.events.stay(&pool("east"));

    assert_eq!(world.pass(s(60)), []);
    assert_eq!(world.events.len(), ids.len() - 2);
}

#[test]
fn who_refreshes_while_waiting_to_be_sent_away_is_sent_away_then() {
    let mut world = World::new(Settings { steer_every: s(10), ..Settings::default() });
    let ids: Vec<_> = (1..=3).map(|phone| world.subscribed(&format!("sip:a@h{phone}"))).collect();
    world.events.steer(world.now(), &pool("east"));
    assert_eq!(world.pass(s(1)).len(), 1);

    let (now, last) = (world.now(), ids[2]);
    let granted = world.events.refresh(now, last, &alice(), &ask("sip:a@h3", 2, 3_600)).unwrap();

    assert_eq!(granted.expires_s, 3_600);
    let told = world.sent();
    assert_eq!(told.iter().map(|sent| sent.id).collect::<Vec<_>>(), [last]);
    assert_eq!(told[0].state, SubscriptionState::Terminated(Ending::Deactivated));
}

#[test]
fn an_ending_says_what_the_phone_is_to_do() {
    for (ending, state, contact) in [
        (Ending::Deactivated, "terminated;reason=deactivated", "event=\"deactivated\" q"),
        (
            Ending::Probation { retry_after_s: 30 },
            "terminated;reason=probation;retry-after=30",
            "event=\"probation\" retry-after=\"30\" q",
        ),
        (Ending::Rejected, "terminated;reason=rejected", "event=\"rejected\" q"),
    ] {
        let mut world = World::new(Settings::default());
        world.register("one", 1, "<sip:a@h1>");
        world.subscribed("sip:a@h1");

        let now = world.now();
        world.events.end_user(now, &alice(), ending);

        let told = world.sent();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].state.to_value(), state);
        assert!(told[0].body.contains(contact), "{}", told[0].body);
        assert!(world.events.is_empty());
    }
}

#[test]
fn a_lost_flow_ends_the_subscription_without_a_word() {
    let mut world = World::new(Settings::default());
    let id = world.subscribed("sip:a@h1");

    world.events.lost(id);

    assert_eq!(world.events.poll_output(), Some(Output::Ended { id }));
    assert_eq!(world.events.poll_output(), Some(Output::Unwatch { aor: alice() }));
    assert_eq!(world.events.poll_output(), None);
    assert!(world.events.poll_timeout().is_none());
}
