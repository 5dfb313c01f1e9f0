//! Real softphones, baresip and linphone, register, call with audio, hold and message; and survive a pool.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test, in its helpers too")]

use std::time::Duration;

use e2e::{
    Deployment, SERVERS, Timing, Via,
    softphone::{Account, Product, Softphone, pretend_network},
};

/// What each phone sends: no harmonic of one is the other's tone.
const TONE_HZ: u32 = 440;
const OTHER_TONE_HZ: u32 = 1_000;
/// Share of the far tone in what a phone hears; the rest is the start of the call.
const SHARE_MIN: f64 = 0.8;
/// Share of any other tone.
const SHARE_ELSE_MAX: f64 = 0.02;

fn deployment(timing: Timing) -> Deployment {
    let deployment = Deployment::running(timing).unwrap();
    pretend_network(deployment.namespace()).unwrap();
    deployment
}

fn phone(
    deployment: &Deployment,
    product: Product,
    user: &str,
    server: &str,
    via: Via,
    tone: u32,
) -> Softphone {
    let account = Account::of(deployment, user, server, via, tone).unwrap();
    let mut phone = Softphone::start(deployment, product, &account).unwrap();
    phone.wait_registered().unwrap();
    phone
}

/// One calls the other, both hear the other's tone and nothing else, the caller hangs up.
fn call_with_audio(caller: &mut Softphone, caller_hz: u32, callee: &mut Softphone, callee_hz: u32) {
    caller.forget_recordings().unwrap();
    callee.forget_recordings().unwrap();
    caller.call(callee.user()).unwrap();
    callee.answer(caller).unwrap();
    caller.wait_audio().unwrap();
    callee.wait_audio().unwrap();
    caller.hang_up(callee).unwrap();
    for (hearer, far, own) in [(&*caller, callee_hz, caller_hz), (&*callee, caller_hz, callee_hz)] {
        let share = hearer.heard(far).unwrap();
        let rest = hearer.heard(own).unwrap();
        println!("{} heard {far} Hz: {share:.4} of the energy; {own} Hz: {rest:.6}", hearer.aor());
        assert!(share > SHARE_MIN, "{} heard {share} of {far} Hz\n{}", hearer.aor(), hearer.transcript());
        assert!(rest < SHARE_ELSE_MAX, "{} heard {rest} of {own} Hz", hearer.aor());
    }
}

fn baresip_and_linphone_over(via: Via) {
    let deployment = deployment(Timing::DEFAULT);
    let mut baresip = phone(&deployment, Product::Baresip, "1001", "east1", via, TONE_HZ);
    let mut linphone = phone(&deployment, Product::Linphone, "1002", "east1", via, OTHER_TONE_HZ);

    call_with_audio(&mut baresip, TONE_HZ, &mut linphone, OTHER_TONE_HZ);
    call_with_audio(&mut linphone, OTHER_TONE_HZ, &mut baresip, TONE_HZ);

    baresip.call("1002").unwrap();
    linphone.answer(&mut baresip).unwrap();
    baresip.hold().unwrap();
    linphone.wait("has been paused").unwrap();
    baresip.resume().unwrap();
    linphone.wait("Media streams established").unwrap();
    linphone.hang_up(&mut baresip).unwrap();

    baresip.message(&mut linphone, "hello linphone").unwrap();
    linphone.message(&mut baresip, "hello baresip").unwrap();
}

#[test]
fn baresip_and_linphone_call_hold_and_message_over_udp() {
    baresip_and_linphone_over(Via::Udp);
}

#[test]
fn baresip_and_linphone_call_hold_and_message_over_tcp() {
    baresip_and_linphone_over(Via::Tcp);
}

#[test]
fn baresip_and_linphone_call_hold_and_message_over_tls() {
    baresip_and_linphone_over(Via::Tls);
}

#[test]
fn phones_of_east_west_and_the_branch_call_each_other() {
    let deployment = deployment(Timing::DEFAULT);
    let mut east = phone(&deployment, Product::Linphone, "1001", "east1", Via::Tls, TONE_HZ);
    let mut west = phone(&deployment, Product::Baresip, "2001", "west1", Via::Udp, OTHER_TONE_HZ);
    call_with_audio(&mut east, TONE_HZ, &mut west, OTHER_TONE_HZ);
    call_with_audio(&mut west, OTHER_TONE_HZ, &mut east, TONE_HZ);
    east.message(&mut west, "from east").unwrap();
    west.message(&mut east, "from west").unwrap();
    drop(east);

    let mut branch = phone(&deployment, Product::Linphone, "3001", "branch1a", Via::Udp, TONE_HZ);
    call_with_audio(&mut branch, TONE_HZ, &mut west, OTHER_TONE_HZ);
    drop(west);

    let mut colleague = phone(&deployment, Product::Baresip, "3002", "branch1a", Via::Tcp, OTHER_TONE_HZ);
    call_with_audio(&mut colleague, OTHER_TONE_HZ, &mut branch, TONE_HZ);
}

#[test]
fn the_phones_that_init_makes_work_as_up_prints_them() {
    let deployment = deployment(Timing::DEFAULT);
    let mut baresip = Softphone::ready_made(&deployment, Product::Baresip, "1001").unwrap();
    let mut linphone = Softphone::ready_made(&deployment, Product::Linphone, "2001").unwrap();
    baresip.wait_registered().unwrap();
    linphone.wait_registered().unwrap();

    baresip.call("2001").unwrap();
    linphone.answer(&mut baresip).unwrap();
    linphone.hang_up(&mut baresip).unwrap();
    linphone.call("1001").unwrap();
    baresip.answer(&mut linphone).unwrap();
    baresip.hang_up(&mut linphone).unwrap();
    baresip.message(&mut linphone, "as printed").unwrap();
    linphone.message(&mut baresip, "so it is").unwrap();
}

#[test]
fn a_phone_with_a_second_registrar_outlives_its_pool_and_returns_to_it() {
    let deployment = Deployment::new(Timing::FAST).unwrap();
    pretend_network(deployment.namespace()).unwrap();
    deployment
        .edit_topology(|text| text.replace("hold_s = 3\n", "hold_s = 3\nexpires_min_s = 10\n"))
        .unwrap();
    for server in SERVERS {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(20)).unwrap();
    let account = Account::of(&deployment, "1001", "east1", Via::Udp, TONE_HZ).unwrap();
    let account = Account { backup: Some(Deployment::sip("west1")), expires_s: 10, ..account };
    let mut of_west = phone(&deployment, Product::Linphone, "2001", "west1", Via::Tcp, OTHER_TONE_HZ);
    let mut of_east = Softphone::start(&deployment, Product::Baresip, &account).unwrap();
    // One refused now is tried again by baresip after half a minute and more.
    let both = e2e::wait_until("both registrations", Duration::from_secs(20), || {
        Ok(deployment.registrations("1001")?.len() == 2)
    });
    both.unwrap_or_else(|error| panic!("{error}\n{}", of_east.transcript()));
    call_with_audio(&mut of_west, OTHER_TONE_HZ, &mut of_east, TONE_HZ);

    deployment.kill("east1").unwrap();
    let taken =
        deployment.wait_serving("west1", "east", Some("resiliency"), Duration::from_secs(10)).unwrap();
    let there = wait_binding(&deployment, &of_east, "west1");
    println!("east killed; west serves after {taken:?}, the phone is registered there {there:?} later");
    call_with_audio(&mut of_west, OTHER_TONE_HZ, &mut of_east, TONE_HZ);
    drop(of_west);
    let mut moved = phone(&deployment, Product::Linphone, "1002", "west1", Via::Tls, OTHER_TONE_HZ);
    call_with_audio(&mut moved, OTHER_TONE_HZ, &mut of_east, TONE_HZ);
    moved.message(&mut of_east, "both of east, both at west").unwrap();
    drop(moved);
    // baresip calls out by its first registrar only: to call meanwhile, it is started at the second one.
    let mut moved = Softphone::ready_made(&deployment, Product::Baresip, "1002-at-west").unwrap();
    moved.wait_registered().unwrap();
    moved.call("1001").unwrap();
    of_east.answer(&mut moved).unwrap();
    moved.hang_up(&mut of_east).unwrap();
    moved.message(&mut of_east, "as printed").unwrap();
    drop(moved);

    deployment.start("east1").unwrap();
    let back = deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(20)).unwrap();
    let here = wait_binding(&deployment, &of_east, "east1");
    println!("east started; it serves after {back:?}, the phone is registered there {here:?} later");
    let mut of_west = phone(&deployment, Product::Linphone, "2001", "west1", Via::Tcp, OTHER_TONE_HZ);
    call_with_audio(&mut of_west, OTHER_TONE_HZ, &mut of_east, TONE_HZ);
}

/// Waits until this server, and no other, holds a binding of the phone.
#[expect(clippy::panic, reason = "fails the test, with what the phone said")]
fn wait_binding(deployment: &Deployment, phone: &Softphone, server: &str) -> Duration {
    let what = format!("{} registered at {server} only", phone.user());
    let registered = e2e::wait_until(&what, Duration::from_secs(30), || {
        let bindings = deployment.registrations(phone.user())?;
        Ok(!bindings.is_empty() && bindings.iter().all(|(at, _)| at == server))
    });
    registered.unwrap_or_else(|error| panic!("{error}\n{}", phone.transcript()))
}
