//! What is refused, and what messages look like.

use serde_json::json;

use super::*;

#[test]
fn requests_of_strangers_and_impossible_owners_are_refused_and_change_nothing() {
    let mut rig = Rig::owner();
    let ask = |home: &str, from: &str, owner: &str| PromiseRequest {
        home: name(home),
        from: name(from),
        ask: Ask::Promise { tenure: tenure(owner, 9, PoolState::Active) },
    };
    let call = CallId(1);
    let cases = [
        (ask("north", PARTNER, PARTNER), OwnershipError::WrongHome { home: name("north") }, 404),
        (ask(HOME, "north", "north"), OwnershipError::Stranger { from: name("north") }, 403),
        (ask(HOME, PARTNER, HOME), OwnershipError::ImpossibleOwner { owner: name(HOME) }, 400),
    ];
    for (body, expected, status) in cases {
        let refused = rig.machine.handle(at(100), Input::PromiseAsked { call, body }).unwrap_err();
        assert_eq!((refused.status(), &refused), (status, &expected));
        assert_eq!(rig.machine.poll_output(), None);
    }
    assert_eq!(rig.machine.known(), Some(&at_home(0)));
}

#[test]
fn messages_have_the_documented_json() {
    let request =
        PromiseRequest { home: name(HOME), from: name(PARTNER), ask: Ask::Promise { tenure: taken_over(1) } };
    let tenure = json!({ "owner": "west", "epoch": 1, "state": "taken_over" });
    let expected = json!({ "home": "east", "from": "west", "ask": { "promise": { "tenure": tenure } } });
    assert_eq!(serde_json::to_value(&request).unwrap(), expected);
    let hold_left = Duration::from_millis(90_500);
    let answer = PromiseAnswer { known: Some(at_home(0)), verdict: Verdict::ReturnNoted { hold_left } };
    let known = json!({ "owner": "east", "epoch": 0, "state": "active" });
    let expected = json!({ "known": known, "verdict": { "return_noted": { "hold_left_ms": 90_500 } } });
    assert_eq!(serde_json::to_value(&answer).unwrap(), expected);
    let record = r#"{"owner":"east","epoch":4,"beat":17,"state":"active","later":"ignored"}"#;
    assert_eq!(serde_json::from_str::<OwnershipRecord>(record).unwrap(), stored(at_home(4), 17, 1).record);
    let refused = PromiseAnswer { known: None, verdict: Verdict::Refused { reason: Refusal::TakingOver } };
    let text = r#"{"known":null,"verdict":{"refused":{"reason":"taking_over"}}}"#;
    assert_eq!(serde_json::from_str::<PromiseAnswer>(text).unwrap(), refused);
}
