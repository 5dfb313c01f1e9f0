//! A real browser as a phone: JsSIP in Chromium over secure WebSocket, and baresip over UDP.
//!
//! Calls, BYE from either side and messages are judged, audio is not: baresip 1.0 of Debian 12 and Chromium
//! find each other by ICE and then agree on no keys (DTLS).

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test, in its helpers too")]

use e2e::{
    Deployment, Timing, Via,
    browser::WebPhone,
    softphone::{Account, Product, Softphone, pretend_network},
};

const TONE_HZ: u32 = 1_000;

#[test]
fn a_browser_and_baresip_call_each_other_and_message() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    pretend_network(deployment.namespace()).unwrap();
    let mut web = WebPhone::start(&deployment, "1001", "east1").unwrap();
    web.register(&deployment, "1001").unwrap();
    assert_eq!(deployment.registrations("1001").unwrap().len(), 1);
    let account = Account::of(&deployment, "1002", "east1", Via::Udp, TONE_HZ).unwrap();
    let account = Account { is_webrtc: true, ..account };
    let mut baresip = Softphone::start(&deployment, Product::Baresip, &account).unwrap();
    baresip.wait_registered().unwrap();

    // baresip calls, the browser hangs up.
    baresip.call("1001").unwrap();
    baresip.wait_established().unwrap();
    web.wait_up(true).unwrap();
    web.hang_up().unwrap();
    baresip.wait("session closed").unwrap();
    web.wait_up(false).unwrap();

    // The browser calls, baresip hangs up.
    web.dial("1002").unwrap();
    baresip.answer_user("1001").unwrap();
    web.wait_up(true).unwrap();
    baresip.type_line("/hangup").unwrap();
    web.wait_up(false).unwrap();
    let ended = web.ended().unwrap();
    assert_eq!(ended.to_string(), r#"["local: Terminated","remote: Terminated"]"#);

    web.message("1002", "hello baresip").unwrap();
    baresip.wait("hello baresip").unwrap();

    web.stop().unwrap();
    assert_eq!(deployment.registrations("1001").unwrap(), []);
}
