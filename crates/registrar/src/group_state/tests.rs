//! The rules of RFC 3261 section 10.3 and RFC 5626 section 6, one by one.

use std::time::Duration;

use model::{Epoch, RoutingGroup, ServerName, StaleEpoch, WallTime, limits};

use super::*;
use crate::{
    DeviceLimit, OkHeaders, OperationId, RegisterSettings,
    test_support::{REFERENCE, START, alice, command, flow, message, read, read_with, register},
};

/// A group and the number of operations so far.
struct Group(GroupState, u128);

impl Group {
    fn new() -> Self {
        Self(GroupState::new(), 0)
    }

    fn apply(&mut self, now: WallTime, change: UserChange) -> Result<Vec<String>, RegisterError> {
        self.1 += 1;
        match self.0.apply(&command(self.1, now, change)) {
            Outcome::Registered { bindings, .. } => Ok(uris(&bindings)),
            Outcome::Refused(error) => Err(error),
            Outcome::Expired { .. } => panic!("not an expiry"),
        }
    }

    /// What is bound after a REGISTER with this Call-ID, CSeq and contacts.
    fn register(&mut self, call_id: &str, cseq: u32, contact: &str) -> Result<Vec<String>, RegisterError> {
        self.register_at(START, call_id, cseq, contact)
    }

    fn register_at(
        &mut self,
        now: WallTime,
        call_id: &str,
        cseq: u32,
        contact: &str,
    ) -> Result<Vec<String>, RegisterError> {
        let expires = if contact == "*" { "Expires: 0" } else { "Expires: 600" };
        let request = register(call_id, cseq, &[&format!("Contact: {contact}"), expires]);
        self.apply(now, read(&request)?.change.unwrap())
    }
}

fn uris(bindings: &[Binding]) -> Vec<String> {
    bindings.iter().map(|binding| String::from_utf8_lossy(binding.uri()).into_owned()).collect()
}

fn after(seconds: u64) -> WallTime {
    START + Duration::from_secs(seconds)
}

fn ok(uris: &[&str]) -> Result<Vec<String>, RegisterError> {
    Ok(uris.iter().map(|&uri| uri.to_owned()).collect())
}

#[test]
fn several_devices_are_bound_and_found_highest_q_first_then_newest() {
    let mut group = Group::new();
    group.register("1", 1, "<sip:a@h1>;q=0.5").unwrap();
    group.register_at(after(1), "2", 1, "<sip:a@h2>;q=0.7").unwrap();

    let bound = group.register_at(after(2), "3", 1, "<sip:a@h3>;q=0.5, <sip:a@h4>");

    assert_eq!(bound, ok(&["sip:a@h4", "sip:a@h2", "sip:a@h3", "sip:a@h1"]));
    assert_eq!((group.0.len(), group.0.users_len()), (4, 1));
    assert!(group.0.lookup(&AddressOfRecord::new("sip:b@example.com").unwrap(), START).is_empty());
}

#[test]
fn a_cseq_that_is_not_higher_in_the_same_call_fails_and_changes_nothing() {
    let mut group = Group::new();
    group.register("1", 5, "<sip:a@h1>").unwrap();
    let before = group.0.clone();

    assert_eq!(group.register("1", 5, "<sip:a@h1>"), Err(RegisterError::OutOfOrder));
    assert_eq!(group.register("1", 4, "<sip:a@h1>;expires=0"), Err(RegisterError::OutOfOrder));
    assert_eq!(group.register("1", 4, "<sip:a@h9>, <sip:a@h1>"), Err(RegisterError::OutOfOrder));

    assert_eq!(group.0.users, before.users);
    assert_eq!(group.register("1", 6, "<sip:a@h1>;expires=0"), ok(&[]));
}

#[test]
fn another_call_id_updates_and_removes_whatever_its_cseq() {
    let mut group = Group::new();
    group.register("1", 5, "<sip:a@h1>").unwrap();

    assert_eq!(group.register("2", 1, "<sip:a@h1>;x"), ok(&["sip:a@h1"]));
    let bindings = group.0.lookup(&alice(), START);
    assert_eq!(
        (bindings[0].call_id(), bindings[0].cseq(), bindings[0].parameters()),
        (&b"2"[..], 1, &b";x"[..])
    );
    assert_eq!(group.register("3", 1, "<sip:a@h1>;expires=0"), ok(&[]));
    assert_eq!(
        group.register("3", 2, "<sip:a@h1>;expires=0"),
        ok(&[]),
        "removing what is not there is no error"
    );
}

#[test]
fn a_wildcard_removes_all_unless_one_binding_of_its_call_is_newer() {
    let mut group = Group::new();
    group.register("1", 5, "<sip:a@h1>").unwrap();
    group.register("2", 9, "<sip:a@h2>").unwrap();

    assert_eq!(group.register("1", 5, "*"), Err(RegisterError::OutOfOrder));
    assert_eq!(group.0.len(), 2);
    assert_eq!(group.register("1", 6, "*"), ok(&[]));
    assert!(group.0.is_empty());
    assert_eq!(group.0.expiry.len(), 0);
}

#[test]
fn contacts_are_compared_by_the_rules_for_uris() {
    let mut group = Group::new();
    group.register("1", 1, "<sip:%61@H1;transport=TCP>").unwrap();

    assert_eq!(group.register("1", 2, "<sip:a@h1;Transport=tcp>"), ok(&["sip:a@h1;Transport=tcp"]));
    assert_eq!(group.register("1", 3, "<sip:a@h1>").unwrap().len(), 2, "a transport may resolve elsewhere");
    assert_eq!(group.register("1", 4, "<sips:a@h1>").unwrap().len(), 3);
    assert_eq!(group.register("1", 5, "<tel:+1>, <tel:+2>").unwrap().len(), 5);
    assert_eq!(group.register("1", 6, "<tel:+1>;expires=0").unwrap().len(), 4);
}

#[test]
fn of_two_equivalent_bindings_the_one_spelled_the_same_is_meant() {
    let mut group = Group::new();
    group.register("1", 1, "<sip:a@h;security=on>").unwrap();
    group.register("1", 2, "<sip:a@h;security=off>").unwrap();

    assert_eq!(group.register("2", 1, "<sip:a@h;security=off>;expires=0"), ok(&["sip:a@h;security=on"]));
}

#[test]
fn a_contact_that_stands_twice_counts_as_it_stands_last() {
    let mut group = Group::new();

    assert_eq!(group.register("1", 1, "<sip:a@h>;expires=60, <sip:a@h>;expires=0"), ok(&[]));
    assert_eq!(group.register("1", 2, "<sip:a@h>;expires=0, <sip:a@h>;expires=60"), ok(&["sip:a@h"]));
}

#[test]
fn an_instance_without_reg_id_is_one_binding_wherever_the_device_is() {
    let mut group = Group::new();
    let one = ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>\"";
    let two = ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000000000002>\"";
    group.register("1", 1, &format!("<sip:a@h:1000>{one}")).unwrap();

    assert_eq!(
        group.register("2", 1, &format!("<sip:a@h:2000>{}", one.to_lowercase())),
        ok(&["sip:a@h:2000"])
    );
    assert_eq!(
        group.register("3", 1, &format!("<sip:a@h:2000>{two}")).unwrap().len(),
        2,
        "two NATs, one URI"
    );
    let unnamed = group.register("4", 1, "<sip:a@h:2000>;expires=0").unwrap();
    assert_eq!(unnamed.len(), 1, "without an instance the URI decides");
}

#[test]
fn each_flow_of_a_device_is_a_binding_of_its_own() {
    let mut group = Group::new();
    let flow = |id: u32, port: u16| format!("<sip:a@h:{port}>;+sip.instance=\"<urn:uuid:1>\";reg-id={id}");
    group.register("1", 1, &flow(1, 1000)).unwrap();
    assert_eq!(group.register("2", 1, &flow(2, 1000)).unwrap().len(), 2);

    assert_eq!(group.register("3", 1, &flow(1, 3000)), ok(&["sip:a@h:3000", "sip:a@h:1000"]));
    assert_eq!(group.register("4", 1, "<sip:a@h:3000>").unwrap().len(), 3, "a plain registration is another");
    group.register("3", 2, &flow(3, 1)).unwrap();
    group.register("3", 3, &flow(4, 1)).unwrap();
    assert_eq!(group.register("3", 4, &flow(5, 1)), Err(RegisterError::TooManyFlows { max: 4 }));
    assert_eq!(group.register("3", 5, &format!("{};expires=0", flow(1, 9))).unwrap().len(), 4);
}

#[test]
fn one_device_too_many_is_refused_and_the_others_go_on() {
    let mut group = Group::new();
    for number in 1..=8 {
        group.register(&number.to_string(), 1, &format!("<sip:a@h{number}>")).unwrap();
    }

    assert_eq!(group.register("9", 1, "<sip:a@h9>"), Err(RegisterError::TooManyDevices { max: 8 }));
    assert_eq!(group.register("8", 2, "<sip:a@h8>").unwrap().len(), 8);
    assert_eq!(group.register("9", 2, "<sip:a@h1>;expires=0, <sip:a@h9>").unwrap().len(), 8);
    let settings = RegisterSettings { devices: DeviceLimit::refusing(2), ..Default::default() };
    let refresh = read_with(&register("9", 3, &["Contact: <sip:a@h9>"]), &settings).unwrap();
    assert_eq!(
        group.apply(START, refresh.change.unwrap()).unwrap().len(),
        8,
        "a lower setting throws nobody out"
    );
}

#[test]
fn a_binding_ends_no_earlier_than_told_and_is_then_never_seen() {
    let mut group = Group::new();
    group.register("1", 7, "<sip:a@h>;expires=60").unwrap();
    let binding = group.0.lookup(&alice(), START)[0].clone();

    assert_eq!(binding.expires_in_s(START), 60);
    assert_eq!(binding.expires_in_s(after(59)), 1);
    assert_eq!(binding.expires_in_s(after(60)), 1);
    assert!(!binding.is_expired(after(60)));
    assert_eq!(group.0.lookup(&alice(), after(61)).len(), 0);
    assert_eq!(group.0.len(), 1);
    assert_eq!(group.register_at(after(61), "1", 7, "<sip:a@h>"), ok(&["sip:a@h"]), "its CSeq is forgotten");
}

#[test]
fn expiry_removes_the_bindings_of_a_bounded_number_of_users_nearest_end_first() {
    let mut state = GroupState::new();
    let expire = |state: &mut GroupState, operation: u128, now: WallTime, users_max: u32| {
        let mut command = command(operation, now, UserChange::Remove { contact: None });
        command.change = Change::Expire { users_max };
        state.apply(&command)
    };
    for number in 0..10_u32 {
        let change =
            read(&register("1", 1, &[&format!("Contact: <sip:a@h>;expires={}", 100 - number)])).unwrap();
        let aor = AddressOfRecord::new(&format!("sip:u{number}@example.com")).unwrap();
        let mut command = command(u128::from(number), START, change.change.clone().unwrap());
        command.change = Change::User { aor, change: change.change.unwrap() };
        state.apply(&command);
    }

    assert_eq!(expire(&mut state, 100, after(90), 100), Outcome::Expired { bindings: 0 });
    assert_eq!(expire(&mut state, 101, after(95), 2), Outcome::Expired { bindings: 2 });
    assert_eq!(expire(&mut state, 101, after(95), 2), Outcome::Expired { bindings: 2 }, "once");
    assert_eq!(state.users_len(), 8);
    let left: Vec<_> = state.iter().map(|(aor, _)| aor.user()).collect();
    assert_eq!(left, ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"]);
    assert_eq!(expire(&mut state, 102, after(1_000), 100), Outcome::Expired { bindings: 8 });
    assert_eq!((state.len(), state.expiry.len()), (0, 0));
}

#[test]
fn a_refresh_leaves_the_index_alone_and_expiry_moves_the_user_to_the_new_end() {
    let mut group = Group::new();
    group.register("1", 1, "<sip:a@h>;expires=60").unwrap();
    let first = group.0.expiry.clone();
    group.register_at(after(30), "1", 2, "<sip:a@h>;expires=60").unwrap();
    assert_eq!(group.0.expiry, first);

    assert_eq!(group.0.remove_expired(after(61), 10), 0);

    let end = group.0.lookup(&alice(), after(61))[0].expires_at().as_secs();
    assert_eq!(group.0.expiry.iter().map(|(at, _)| u64::from(*at)).collect::<Vec<_>>(), [end]);
    assert_eq!(group.0.remove_expired(after(91), 10), 1);
    assert!(group.0.is_empty());
}

#[test]
fn a_repeated_operation_takes_effect_once_and_a_refused_one_stays_refused() {
    let mut state = GroupState::new();
    let change = |contact: &str| read(&register("1", 1, &[contact])).unwrap().change.unwrap();
    let first = command(1, START, change("Contact: <sip:a@h1>"));
    let once = state.apply(&first);
    let after_once = state.clone();

    assert_eq!(state.apply(&first), once);
    assert_eq!(state, after_once);

    let refused = command(2, START, change("Contact: <sip:a@h1>;x"));
    assert_eq!(state.apply(&refused), Outcome::Refused(RegisterError::OutOfOrder));
    state.apply(&command(3, START, UserChange::Remove { contact: None }));
    assert_eq!(state.apply(&refused), Outcome::Refused(RegisterError::OutOfOrder));
    assert_eq!(
        state.apply(&first),
        Outcome::Registered { bindings: Bindings::new(), replaced: Bindings::new() },
        "with the bindings of now"
    );
}

#[test]
fn a_lower_epoch_is_refused_and_changes_nothing() {
    let mut state = GroupState::new();
    let mut stale = command(2, START, UserChange::Remove { contact: None });
    let mut fresh = stale.clone();
    fresh.epoch = Epoch::new(3);
    fresh.operation = OperationId::new(1);
    stale.epoch = Epoch::new(2);
    state.apply(&fresh);
    let before = state.clone();

    let refused = state.apply(&stale);

    let error = StaleEpoch { seen: Epoch::new(3), offered: Epoch::new(2) };
    assert_eq!(refused, Outcome::Refused(RegisterError::StaleEpoch(error)));
    assert_eq!(RegisterError::StaleEpoch(error).status(), 503);
    assert_eq!((state.highest_epoch(), &state), (Epoch::new(3), &before));
}

#[test]
fn a_closed_flow_takes_its_bindings_along_and_no_others() {
    let mut group = Group::new();
    group.register("1", 1, "<sip:a@h1>").unwrap();
    let closed =
        |boot, flow| UserChange::FlowClosed { server: ServerName::new("east1").unwrap(), boot, flow };
    let number = flow(1).flow.number();

    assert_eq!(group.0.lookup(&alice(), START)[0].flow(), Some(flow(1).view()));
    assert_eq!(group.apply(START, closed(6, number)), ok(&["sip:a@h1"]));
    assert_eq!(group.apply(START, closed(7, number + 1)), ok(&["sip:a@h1"]));
    assert_eq!(group.apply(START, closed(7, number)), ok(&[]));
}

#[test]
fn an_operator_removes_one_contact_or_all() {
    let mut group = Group::new();
    group.register("1", 1, "<sip:a@h1>, <sip:a@h2>, <sip:a@h3>").unwrap();
    let remove = |uri: &str| UserChange::Remove { contact: Some(uri.as_bytes().into()) };

    assert_eq!(group.apply(START, remove("sip:a@H2")).unwrap().len(), 2);
    assert_eq!(group.apply(START, remove("sip:a@h2")), Err(RegisterError::UnknownContact));
    assert_eq!(group.apply(START, UserChange::Remove { contact: None }), ok(&[]));
}

#[test]
fn where_the_oldest_leaves_the_device_that_registered_longest_ago_makes_room() {
    let settings = RegisterSettings { devices: DeviceLimit::replacing(2), ..Default::default() };
    let mut group = GroupState::new();
    let mut register_at = |second: u32, call_id: &str, contact: &str| {
        let request = register(call_id, second, &[&format!("Contact: {contact}")]);
        let change = read_with(&request, &settings).unwrap().change.unwrap();
        match group.apply(&command(second.into(), after(second.into()), change)) {
            Outcome::Registered { bindings, replaced } => Ok((uris(&bindings), uris(&replaced))),
            Outcome::Refused(error) => Err(error),
            Outcome::Expired { .. } => panic!("not an expiry"),
        }
    };
    let desk = |number: u32| format!("<sip:a@desk{number}>;+sip.instance=\"<desk>\";reg-id={number}");
    let both = |bound: [&str; 2]| bound.map(str::to_owned).to_vec();
    register_at(1, "1", &desk(1)).unwrap();
    register_at(2, "2", "<sip:a@cell>").unwrap();
    register_at(3, "3", &desk(2)).unwrap();

    let (bound, replaced) = register_at(4, "4", "<sip:a@tablet>").unwrap();

    assert_eq!(replaced, both(["sip:a@cell", ""])[..1]);
    assert_eq!(bound, ["sip:a@tablet", "sip:a@desk2", "sip:a@desk1"], "a flow of the desk is newer");
    let (bound, replaced) = register_at(5, "4", "<sip:a@tablet>").unwrap();
    assert_eq!((bound.len(), replaced.len()), (3, 0), "a refresh drives nobody out");
    let (bound, replaced) = register_at(6, "5", "<sip:a@cell>").unwrap();
    assert_eq!(bound, both(["sip:a@cell", "sip:a@tablet"]));
    assert_eq!(replaced, both(["sip:a@desk1", "sip:a@desk2"]), "a device leaves with all its flows");
    let three = register_at(7, "6", "<sip:a@1>, <sip:a@2>, <sip:a@3>");
    assert_eq!(three, Err(RegisterError::TooManyDevices { max: 2 }), "no REGISTER drives out its own");
}

#[test]
fn the_200_ok_names_every_binding_with_its_parameters_path_service_route_and_outbound() {
    let mut state = GroupState::new();
    let text = REFERENCE.replace("Expires: 600", "Path: <sip:edge;lr>\r\nExpires: 600");
    let request = read(&message(&text)).unwrap();
    let mut command = command(1, START, request.change.clone().unwrap());
    command.change = Change::User { aor: request.aor.clone(), change: request.change.clone().unwrap() };
    command.group = RoutingGroup::of(&request.aor);
    state.apply(&command);
    let mut headers = OkHeaders::new();

    for _ in 0..2 {
        let bindings = state.lookup(&request.aor, after(10));
        headers.fill(&request, &bindings, [&b"<sip:east.example.com;lr>"[..]], None, after(10));
    }

    let lines: Vec<_> = headers
        .iter()
        .map(|(id, value)| format!("{}: {}", id.name(), String::from_utf8_lossy(value)))
        .collect();
    assert_eq!(
        lines,
        [
            "Contact: <sip:1000247@192.0.2.17:5060;transport=udp;ob>;\
             +sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\";reg-id=1;expires=590",
            "Path: <sip:edge;lr>",
            "Service-Route: <sip:east.example.com;lr>",
            "Require: outbound",
            "Date: Tue, 14 Nov 2023 22:13:30 GMT",
        ]
    );
}

#[test]
fn a_snapshot_of_another_format_or_with_damage_is_refused_without_harm() {
    let mut group = Group::new();
    group.register("1", 1, "<sip:a@h1>;+sip.instance=\"<urn:uuid:1>\", <sip:b@h2>").unwrap();
    let snapshot = group.0.encode_snapshot();
    assert_eq!(GroupState::decode_snapshot(&snapshot), Ok(group.0.clone()));

    let mut other = snapshot.clone();
    other[0] = 9;
    assert_eq!(GroupState::decode_snapshot(&other), Err(SnapshotError::Version { found: 9 }));
    assert!(GroupState::decode_snapshot(&[]).is_err());
    for at in 1..snapshot.len() {
        assert!(GroupState::decode_snapshot(&snapshot[..at]).is_err());
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = snapshot.clone();
            damaged[at] = value;
            if let Ok(mut state) = GroupState::decode_snapshot(&damaged) {
                let _ = state.apply(&command(
                    99,
                    START,
                    UserChange::Remove { contact: Some(b"sip:x"[..].into()) },
                ));
                let _ = state.remove_expired(after(1_000), 10);
                let _ = format!("{state:?}");
            }
        }
    }
}

#[test]
fn the_reference_contact_needs_less_than_700_octets() {
    let mut state = GroupState::new();
    let request = read(&message(REFERENCE)).unwrap();
    let users = 50_000_usize;
    let mut text_bytes = 0;
    for number in 0..users {
        let aor = AddressOfRecord::new(&format!("sip:u{number:07}@example.com")).unwrap();
        // The shared text of the address: two counters and the text.
        text_bytes += 2 * size_of::<usize>() + aor.as_str().len();
        state.change_user(&aor, &request.change.clone().unwrap(), START).unwrap();
    }

    let bindings: usize =
        state.users.values().flat_map(|user| &user.bindings).map(Binding::memory_bytes).sum();
    // A node of the index holds up to 11 entries and on average two thirds of that, and a header of 16
    // octets.
    let index = state.expiry.len() * (size_of::<(u32, AddressOfRecord)>() * 3 / 2 + 3);
    let map = state.users.allocation_size();
    let each = (bindings + text_bytes + index + map) / users;

    println!(
        "{each} octets per contact: binding {}, map {}, index {}, address {}",
        bindings / users,
        map / users,
        index / users,
        text_bytes / users
    );
    assert!(each < 700, "{each}");
    assert_eq!(limits::OPERATIONS_REMEMBERED_MAX, 4_096, "bounded per group, not counted per contact");
}
