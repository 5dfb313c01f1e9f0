//! A group against a naive model of RFC 3261 section 10.3, on random sequences of commands.

use std::{collections::BTreeMap, time::Duration};

use model::{AddressOfRecord, Epoch, PoolName, RoutingGroup, ServerName, WallTime};
use proptest::prelude::*;

use super::*;
use crate::{
    OperationId,
    test_support::{START, flow, read, register},
};

/// One contact of one device: how it is spelled, and what it is the same as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    number: u8,
    has_instance: bool,
    reg_id: Option<u8>,
}

impl Device {
    /// `port` moves a device with an instance about; the others are known by their URI.
    fn contact(self, port: u16, spelling: u8) -> String {
        let Self { number, has_instance, reg_id } = self;
        let host = if spelling == 0 { "Host" } else { "HOST" };
        let mut text = if has_instance {
            format!("<sip:i{number}@{host}:{port}>;+sip.instance=\"<urn:uuid:{number}>\"")
        } else {
            format!("<sip:u{number}@{host}>")
        };
        if let Some(reg_id) = reg_id {
            text.push_str(&format!(";reg-id={reg_id}"));
        }
        text
    }
}

fn device() -> impl Strategy<Value = Device> {
    (0..3_u8, any::<bool>(), prop::option::of(1..3_u8)).prop_map(|(number, has_instance, reg_id)| Device {
        number,
        has_instance,
        reg_id: reg_id.filter(|_| has_instance),
    })
}

#[derive(Clone, Debug)]
enum Step {
    Register { user: u8, call: u8, cseq: u32, contacts: Vec<(Device, u16, u8, u32)>, flow: u64 },
    Wildcard { user: u8, call: u8, cseq: u32 },
    Remove { user: u8 },
    FlowClosed { user: u8, flow: u64 },
    Expire { users_max: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let expires_s = prop_oneof![Just(0), Just(60), Just(120), Just(3_600)];
    let contacts = prop::collection::vec((device(), 1..4_u16, 0..2_u8, expires_s), 0..3);
    let register = (0..2_u8, 0..3_u8, 0..6_u32, contacts, 0..3_u64)
        .prop_map(|(user, call, cseq, contacts, flow)| Step::Register { user, call, cseq, contacts, flow });
    prop_oneof![
        10 => register,
        1 => (0..2_u8, 0..3_u8, 0..6_u32).prop_map(|(user, call, cseq)| Step::Wildcard { user, call, cseq }),
        1 => (0..2_u8).prop_map(|user| Step::Remove { user }),
        1 => (0..2_u8, 0..3_u64).prop_map(|(user, flow)| Step::FlowClosed { user, flow }),
        1 => prop_oneof![Just(0_u32), Just(2)].prop_map(|users_max| Step::Expire { users_max }),
    ]
}

/// Commands with the time before each in seconds (mostly forwards), and how often it is submitted.
fn script() -> impl Strategy<Value = Vec<(Step, i64, usize)>> {
    let jump = prop_oneof![6 => 0..30_i64, 2 => 50..130_i64, 1 => 3_000..4_000_i64, 1 => -40..0_i64];
    prop::collection::vec((step(), jump, 1..3_usize), 1..40)
}

const DEVICES_MAX: u16 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelBinding {
    uri: String,
    call: u8,
    cseq: u32,
    expires_at_s: u64,
    flow: u64,
}

/// Bindings by user and device, as plain as can be.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<u8, BTreeMap<Device, ModelBinding>>);

impl Model {
    /// Applies one step; whether it succeeds.
    fn apply(&mut self, step: &Step, now: WallTime) -> bool {
        let (user, mut bound) = match step {
            Step::Expire { users_max: 0 } => return true,
            Step::Expire { .. } => {
                self.forget_expired(now);
                return true;
            }
            Step::Register { user, .. }
            | Step::Wildcard { user, .. }
            | Step::Remove { user }
            | Step::FlowClosed { user, .. } => (*user, self.0.get(user).cloned().unwrap_or_default()),
        };
        bound.retain(|_, binding| binding.expires_at_s > now.as_secs());
        let before = bound.clone();
        match step {
            Step::Register { call, cseq, contacts, flow, .. } => {
                for (device, port, spelling, expires_s) in contacts {
                    if before.get(device).is_some_and(|held| held.call == *call && *cseq <= held.cseq) {
                        return false;
                    }
                    let contact = device.contact(*port, *spelling);
                    let uri = contact[1..contact.find('>').unwrap()].to_owned();
                    let expires_at_s = now.as_micros().div_ceil(1_000_000) + u64::from(*expires_s);
                    let binding = ModelBinding { uri, call: *call, cseq: *cseq, expires_at_s, flow: *flow };
                    match expires_s {
                        0 => bound.remove(device),
                        _ => bound.insert(*device, binding),
                    };
                }
                let devices = |bound: &BTreeMap<Device, _>| {
                    let mut names: Vec<_> =
                        bound.keys().map(|device| (device.number, device.has_instance)).collect();
                    names.dedup();
                    names.sort();
                    names.dedup();
                    names.len()
                };
                if bound.len() > before.len() && devices(&bound) > usize::from(DEVICES_MAX) {
                    return false;
                }
            }
            Step::Wildcard { call, cseq, .. } => {
                if before.values().any(|held| held.call == *call && *cseq <= held.cseq) {
                    return false;
                }
                bound.clear();
            }
            Step::Remove { .. } => bound.clear(),
            Step::FlowClosed { flow, .. } => bound.retain(|_, held| held.flow != *flow),
            Step::Expire { .. } => {}
        }
        self.0.insert(user, bound);
        true
    }

    /// Only a clock that goes back could tell the difference.
    fn forget_expired(&mut self, now: WallTime) {
        for bound in self.0.values_mut() {
            bound.retain(|_, binding| binding.expires_at_s > now.as_secs());
        }
    }

    /// What is bound at `now`.
    fn uris(&self, user: u8, now: WallTime) -> Vec<(String, u64)> {
        let bound = self.0.get(&user).into_iter().flat_map(BTreeMap::values);
        let alive = bound.filter(|binding| binding.expires_at_s > now.as_secs());
        let mut uris: Vec<_> = alive.map(|binding| (binding.uri.clone(), binding.expires_at_s)).collect();
        uris.sort();
        uris
    }
}

fn aor(user: u8) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:user{user}@example.com")).unwrap()
}

/// The command of a step; `None` for a REGISTER that is refused before it becomes one.
fn command(step: &Step, operation: u128, now: WallTime) -> Option<Command> {
    let (user, change) = match step {
        Step::Register { user, call, cseq, contacts, flow: number } => {
            let lines: Vec<_> = contacts
                .iter()
                .map(|(device, port, spelling, expires_s)| {
                    format!("Contact: {};expires={expires_s}", device.contact(*port, *spelling))
                })
                .collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let mut change = read(&register(&call.to_string(), *cseq, &lines)).ok()?.change?;
            if let UserChange::Register(registration) = &mut change {
                registration.devices = crate::DeviceLimit::refusing(DEVICES_MAX);
                registration.flow = Some(flow(*number));
            }
            (*user, change)
        }
        Step::Wildcard { user, call, cseq } => {
            let call_id = call.to_string().into_bytes().into();
            (*user, UserChange::RemoveAll { call_id, cseq: *cseq })
        }
        Step::Remove { user } => (*user, UserChange::Remove { contact: None }),
        Step::FlowClosed { user, flow: number } => {
            let server = ServerName::new("east1").unwrap();
            (*user, UserChange::FlowClosed { server, boot: 7, flow: flow(*number).flow.number() })
        }
        Step::Expire { users_max } => {
            let change = Change::Expire { users_max: *users_max };
            return Some(base(operation, now, RoutingGroup::of(&aor(0)), change));
        }
    };
    let change = Change::User { aor: aor(user), change };
    Some(base(operation, now, RoutingGroup::of(&aor(user)), change))
}

fn base(operation: u128, now: WallTime, group: RoutingGroup, change: Change) -> Command {
    let home = PoolName::new("east").unwrap();
    Command { home, group, epoch: Epoch::ZERO, operation: OperationId::new(operation), now, change }
}

/// What must hold after every command.
fn check_invariants(state: &GroupState) {
    let mut bindings = 0;
    for (aor, user) in &state.users {
        assert!(!user.bindings.is_empty());
        assert!(state.expiry.contains(&(user.indexed_at_s, aor.clone())));
        assert!(user.bindings.iter().all(|binding| binding.expires_at_s() >= user.indexed_at_s));
        bindings += user.bindings.len();
    }
    assert_eq!((state.bindings, state.expiry.len()), (bindings, state.users.len()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_group_agrees_with_the_naive_model_step_by_step(script in script()) {
        let mut state = GroupState::new();
        let mut once = GroupState::new();
        let mut naive = Model::default();
        let mut now = START;
        for (number, (step, jump_s, times)) in script.iter().enumerate() {
            now = WallTime::from_micros(now.as_micros().saturating_add_signed(jump_s * 1_000_000));
            let Some(command) = command(step, number as u128, now) else { continue };
            let is_done = naive.apply(step, now);

            let outcome = once.apply(&command);
            for _ in 0..*times {
                let again = state.apply(&command);
                prop_assert_eq!(&again, &outcome);
            }

            prop_assert_eq!(&state, &once);
            prop_assert_eq!(matches!(outcome, Outcome::Refused(_)), !is_done, "{:?}", outcome);
            check_invariants(&state);
            for user in 0..2 {
                let found = state.lookup(&aor(user), now);
                let mut found: Vec<_> = found
                    .iter()
                    .map(|binding| {
                        (String::from_utf8(binding.uri().to_vec()).unwrap(), binding.expires_at().as_secs())
                    })
                    .collect();
                found.sort();
                prop_assert_eq!(found, naive.uris(user, now));
            }
        }
        let snapshot = state.encode_snapshot();
        let restored = GroupState::decode_snapshot(&snapshot).unwrap();
        prop_assert_eq!(&restored, &state);
        prop_assert_eq!(restored.encode_snapshot(), snapshot);
    }

    #[test]
    fn a_command_is_the_same_after_disk(step in step()) {
        if let Some(command) = command(&step, 7, START + Duration::from_secs(1)) {
            let disk = postcard::to_allocvec(&command).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Command>(&disk).unwrap(), command);
        }
    }

    #[test]
    fn a_replica_from_a_snapshot_goes_on_as_the_others_do(script in script(), cut in 0..40_usize) {
        let mut old = GroupState::new();
        let mut new = GroupState::new();
        let mut now = START;
        for (number, (step, jump_s, _)) in script.iter().enumerate() {
            if number == cut {
                new = GroupState::decode_snapshot(&old.encode_snapshot()).unwrap();
            }
            now = WallTime::from_micros(now.as_micros().saturating_add_signed(jump_s * 1_000_000));
            let Some(command) = command(step, number as u128, now) else { continue };
            let outcome = old.apply(&command);
            if number >= cut {
                prop_assert_eq!(new.apply(&command), outcome);
                prop_assert_eq!(new.encode_snapshot(), old.encode_snapshot());
            }
        }
    }
}
