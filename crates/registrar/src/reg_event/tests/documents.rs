//! Documents, as a subscriber reads them.

use model::limits;

use super::*;

fn document(register: &[(&str, &str)]) -> String {
    let mut world = World::new(Settings::default());
    for (call_id, contact) in register {
        world.register(call_id, 1, contact);
    }
    world.subscribe("sip:a@h1", 0).unwrap();
    world.sent().remove(0).body
}

#[test]
fn a_document_has_the_form_of_the_rfc() {
    let text =
        document(&[("call<\"1\">", "<sip:a@h1;x=1>;q=0.5;expires=300;audio;+sip.instance=\"<urn:uuid:1>\"")]);

    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"0\" state=\"full\">\n\
        <registration aor=\"sip:a@example.com\" id=\"rID\" state=\"active\">\n\
        <contact id=\"cID\" state=\"active\" event=\"registered\" expires=\"300\" q=\"0.500\" \
        callid=\"call&lt;&quot;1&quot;&gt;\" cseq=\"1\"><uri>sip:a@h1;x=1</uri>\
        <unknown-param name=\"audio\"></unknown-param>\
        <unknown-param name=\"+sip.instance\">&lt;urn:uuid:1&gt;</unknown-param></contact>\n\
        </registration>\n</reginfo>\n";
    assert_eq!(without_ids(&text), expected);
}

/// The document with each `id` replaced, which must be sixteen hexadecimal digits.
fn without_ids(text: &str) -> String {
    let mut out = text.to_owned();
    for letter in ['r', 'c'] {
        let start = out.find(&format!(" id=\"{letter}")).unwrap() + 6;
        assert!(out[start..start + 16].chars().all(|digit| digit.is_ascii_hexdigit()), "{out}");
        out.replace_range(start..start + 16, "ID");
    }
    out
}

#[test]
fn nobody_bound_is_a_registration_that_never_began() {
    let text = document(&[]);

    assert!(text.contains("state=\"init\">\n</registration>"), "{text}");
}

#[test]
fn each_contact_has_an_id_of_its_own_that_stays() {
    let mut world = World::new(Settings::default());
    world.register("one", 1, "<sip:a@h1>;expires=3600");
    world.register("two", 1, "<sip:a@h2>;expires=3600");
    let ids = |text: &str| -> Vec<String> {
        let parts = text.split("<contact id=\"").skip(1);
        parts.map(|part| part.split('"').next().unwrap().to_owned()).collect()
    };

    world.subscribe("sip:a@h1", 0).unwrap();
    let before = ids(&world.sent().remove(0).body);
    world.register("one", 2, "<sip:a@h1>;expires=3600");
    world.pass(s(5));
    world.subscribe("sip:a@h1", 0).unwrap();
    let mut after = ids(&world.sent().remove(0).body);

    assert_eq!(before.len(), 2);
    assert_ne!(before[0], before[1]);
    after.sort();
    let mut sorted = before;
    sorted.sort();
    assert_eq!(after, sorted);
}

#[test]
fn a_document_stays_below_its_bound_and_leaves_out_what_can_be_spared() {
    let long = "x".repeat(900);
    let contacts: Vec<(String, String)> = (0..8)
        .flat_map(|call| (0..8).map(move |number| (format!("c{call}"), format!("{call}-{number}"))))
        .map(|(call, name)| (format!("{call}-{name}"), name))
        .collect();
    let mut group = GroupState::new();
    for (at, (call, name)) in contacts.iter().enumerate() {
        let line = format!("Contact: <sip:a@{name}.{}>;p=\"&&&&{}\"", &long[..800], &long[..100]);
        let mut request = read(&register(call, 1, &[&line])).unwrap().change.unwrap();
        if let crate::UserChange::Register(registration) = &mut request {
            registration.devices = crate::DeviceLimit::refusing(limits::DEVICES_PER_USER_MAX);
        }
        let operation = u128::try_from(at).unwrap() + 1;
        assert!(matches!(group.apply(&command(operation, START, request)), Outcome::Registered { .. }));
    }
    let mut world = World { group, ..World::new(Settings::default()) };

    world.subscribe("sip:a@h1", 0).unwrap();
    let text = world.sent().remove(0).body;

    let contacts = text.matches("<contact ").count();
    assert!(text.len() < limits::REGINFO_BYTES_MAX + 100, "{}", text.len());
    assert!((25..64).contains(&contacts), "{contacts}");
    assert!(text.ends_with("</contact>\n</registration>\n</reginfo>\n"));
}
