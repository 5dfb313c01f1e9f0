//! Random histories: what must hold for every subscriber after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Register { phone: u8, expires_s: u32 },
    Subscribe { phone: u8, expires_s: u32 },
    Refresh { subscription: usize, expires_s: u32 },
    Answer { subscription: usize, answer: u8 },
    Lose { subscription: usize },
    Steer,
    Stay,
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let short = || prop_oneof![Just(0_u32), Just(60), Just(90), Just(3_600)];
    prop_oneof![
        4 => (0..3_u8, short()).prop_map(|(phone, expires_s)| Step::Register { phone, expires_s }),
        3 => (0..3_u8, short()).prop_map(|(phone, expires_s)| Step::Subscribe { phone, expires_s }),
        2 => (0..6_usize, short()).prop_map(|(at, expires_s)| Step::Refresh { subscription: at, expires_s }),
        8 => (0..6_usize, 0..9_u8).prop_map(|(at, answer)| Step::Answer { subscription: at, answer }),
        1 => (0..6_usize).prop_map(|at| Step::Lose { subscription: at }),
        1 => Just(Step::Steer),
        1 => Just(Step::Stay),
        6 => (0..40_000_u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

/// What one subscriber saw.
#[derive(Default)]
struct Seen {
    versions: u32,
    is_waiting: bool,
    is_over: bool,
    last_at: Option<Duration>,
    /// A SUBSCRIBE since the last NOTIFY: the next one may come at once.
    has_asked: bool,
    body: String,
    phone: u8,
}

struct History {
    world: World,
    seen: BTreeMap<SubscriptionId, Seen>,
    cseq: u32,
    over: BTreeSet<SubscriptionId>,
}

impl Default for History {
    fn default() -> Self {
        let world = World::new(Settings::default());
        Self { world, seen: BTreeMap::new(), cseq: 0, over: BTreeSet::new() }
    }
}

impl History {
    fn check(&mut self, sent: Vec<(Duration, Sent)>) -> Result<(), TestCaseError> {
        for id in std::mem::take(&mut self.world.ended) {
            self.over.insert(id);
        }
        for (at, Sent { id, state, body }) in sent {
            let seen = self.seen.entry(id).or_default();
            prop_assert!(!seen.is_over, "{id:?} was told something after its end");
            prop_assert!(!seen.is_waiting, "{id:?} was told something while a NOTIFY was under way");
            prop_assert!(body.contains(&format!(" version=\"{}\" ", seen.versions)), "{body}");
            let is_last = matches!(state, SubscriptionState::Terminated(_));
            if let Some(last) = seen.last_at
                && !is_last
                && !seen.has_asked
            {
                prop_assert!(at - last >= s(5), "{id:?} after {:?}", at - last);
            }
            *seen = Seen {
                versions: seen.versions + 1,
                is_waiting: !is_last,
                is_over: is_last,
                last_at: Some(at),
                has_asked: false,
                body,
                phone: seen.phone,
            };
        }
        for id in &self.over {
            self.seen.entry(*id).or_default().is_over = true;
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let end = self.world.at + time;
        loop {
            let sent = self.world.sent().into_iter().map(|sent| (self.world.at, sent)).collect();
            self.check(sent)?;
            let due = self.world.events.poll_timeout().map(|due| due.saturating_since(Instant::START));
            match due.filter(|due| *due <= end) {
                Some(due) => {
                    self.world.at = self.world.at.max(due);
                    self.world.events.handle_timeout(self.world.now());
                }
                None => break,
            }
        }
        self.world.at = end;
        Ok(())
    }

    fn nth(&self, at: usize) -> Option<SubscriptionId> {
        let open: Vec<_> = self.seen.iter().filter(|(_, seen)| !seen.is_over).map(|(id, _)| *id).collect();
        open.get(at % open.len().max(1)).copied()
    }

    fn answer(&mut self, id: SubscriptionId, answer: u8) {
        let Some(seen) = self.seen.get_mut(&id).filter(|seen| seen.is_waiting) else { return };
        seen.is_waiting = false;
        let answer = match answer {
            0 => NotifyAnswer::Gone,
            1 => NotifyAnswer::Later(s(20)),
            _ => NotifyAnswer::Accepted,
        };
        seen.is_over = answer == NotifyAnswer::Gone;
        self.world.answer(id, answer);
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.cseq += 1;
        let now = self.world.now();
        match *step {
            Step::Register { phone, expires_s } => {
                let contact = format!("<sip:a@h{phone}>;expires={expires_s}");
                self.world.register(&format!("call{phone}"), self.cseq, &contact);
            }
            Step::Subscribe { phone, expires_s } => {
                let bound = self.world.bound();
                let ask = ask(&format!("sip:a@h{phone}"), self.cseq, expires_s);
                let granted = self.world.events.subscribe(now, &alice(), &pool("east"), &ask, &bound);
                prop_assert!(granted.is_ok(), "three phones of one user");
                let id = granted.map_or(SubscriptionId(0), |granted| granted.id);
                self.seen.entry(id).or_default().phone = phone;
            }
            Step::Refresh { subscription, expires_s } => {
                let Some(id) = self.nth(subscription) else { return Ok(()) };
                let phone = self.seen.get(&id).map_or(0, |seen| seen.phone);
                let ask = ask(&format!("sip:a@h{phone}"), self.cseq, expires_s);
                if self.world.events.refresh(now, id, &alice(), &ask).is_ok() {
                    self.seen.entry(id).or_default().has_asked = true;
                }
            }
            Step::Answer { subscription, answer } => {
                if let Some(id) = self.nth(subscription) {
                    self.answer(id, answer);
                }
            }
            Step::Lose { subscription } => {
                if let Some(id) = self.nth(subscription) {
                    self.world.events.lost(id);
                    self.seen.entry(id).or_default().is_over = true;
                }
            }
            Step::Steer => self.world.events.steer(now, &pool("east")),
            Step::Stay => self.world.events.stay(&pool("east")),
            Step::Pass { millis } => self.pass(Duration::from_millis(millis))?,
        }
        self.pass(Duration::ZERO)
    }
}

fn uris(text: &str) -> BTreeSet<String> {
    let parts = text.split("<contact ").skip(1).filter(|part| part.contains("state=\"active\""));
    parts.map(|part| part.split("<uri>").nth(1).unwrap().split('<').next().unwrap().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_subscriber_is_told_in_order_in_time_and_in_the_end_everything(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut history = History::default();
        for step in &steps {
            history.apply(step)?;
        }
        history.world.events.stay(&pool("east"));
        // Everybody answers, nothing changes any more, but what ends by itself: all know how things stand.
        for _ in 0..12 {
            let waiting: Vec<_> =
                history.seen.iter().filter(|(_, seen)| seen.is_waiting).map(|(id, _)| *id).collect();
            waiting.into_iter().for_each(|id| history.answer(id, 9));
            history.pass(s(6))?;
        }
        let bound: BTreeSet<String> = history
            .world
            .bound()
            .iter()
            .map(|binding| String::from_utf8(binding.uri().to_vec()).unwrap())
            .collect();
        for (id, seen) in history.seen.iter().filter(|(_, seen)| !seen.is_over && !seen.is_waiting) {
            prop_assert_eq!(uris(&seen.body), bound.clone(), "{:?}: {}", id, seen.body);
        }
        prop_assert!(history.world.events.len() <= 3);
        // In the end all times are over, and nothing is left.
        for _ in 0..3 {
            let waiting: Vec<_> =
                history.seen.iter().filter(|(_, seen)| seen.is_waiting).map(|(id, _)| *id).collect();
            waiting.into_iter().for_each(|id| history.answer(id, 9));
            history.pass(s(7_300))?;
        }
        prop_assert!(history.world.events.is_empty());
        prop_assert!(history.world.events.poll_timeout().is_none());
    }
}
