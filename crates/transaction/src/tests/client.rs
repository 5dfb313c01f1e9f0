//! Client transactions with messages.

use super::*;

#[test]
fn a_refused_invite_is_acknowledged_by_the_transaction_each_time_the_response_comes() {
    let mut bench = Bench::new();
    let client = bench.request(&request("INVITE", "i1"), udp()).unwrap();
    assert_eq!(bench.drain(), ["send INVITE"]);
    assert_eq!(bench.wait(600), [(500, "send INVITE".to_owned())]);
    assert_eq!(bench.receive(&response(180, "INVITE", "i1"), udp()), ["response 180 for 77"]);
    assert_eq!(bench.wait(60_000), []);

    bench.transactions.receive(bench.now, message(&response(486, "INVITE", "i1")), udp()).unwrap();
    let outputs = bench.outputs();
    let [Output::Transmit { to, bytes, client: Some(from) }, Output::Response { tag: 77, .. }] = &outputs[..]
    else {
        panic!("{outputs:?}");
    };
    assert_eq!((*to, *from), (udp(), client));
    let ack = OwnedMessage::parse(bytes.clone(), Framing::Datagram).unwrap();
    assert_eq!(ack.view().request_uri(), b"sip:bob@example.com");
    assert_eq!(ack.view().method_bytes(), b"ACK");
    assert_eq!(ack.view().top_via().unwrap().branch(), Some(&b"z9hG4bKi1"[..]));
    assert_eq!(ack.view().values(sip::HeaderId::Via).count(), 1);
    assert_eq!(ack.view().to().unwrap().tag(), Some(&b"b486"[..]));
    assert_eq!(ack.view().cseq().unwrap().number, 7);

    assert_eq!(bench.receive(&response(486, "INVITE", "i1"), udp()), ["send ACK"]);
    assert_eq!(bench.receive(&response(200, "INVITE", "i1"), udp()), [""; 0]);
    assert_eq!(bench.wait(31_999), []);
    assert_eq!(bench.receive(&response(486, "INVITE", "i1"), udp()), ["send ACK"]);
    assert_eq!(bench.wait(1), []);
    assert_eq!(bench.transactions.client_count(), 0);
    assert_eq!(bench.receive(&response(486, "INVITE", "i1"), udp()), [""; 0]);
    assert_eq!(bench.transactions.counters().stray_responses, 1);
}

#[test]
fn every_2xx_to_an_invite_goes_to_the_tu_for_64_t1_and_is_never_acknowledged_here() {
    let mut bench = Bench::new();
    bench.request(&request("INVITE", "i1"), tcp()).unwrap();
    bench.drain();

    assert_eq!(bench.receive(&response(200, "INVITE", "i1"), tcp()), ["response 200 for 77"]);
    bench.wait(31_999);
    assert_eq!(bench.receive(&response(200, "INVITE", "i1"), tcp()), ["response 200 for 77"]);
    bench.wait(1);
    assert_eq!(bench.receive(&response(200, "INVITE", "i1"), tcp()), [""; 0]);
}

#[test]
fn an_invite_without_any_response_is_sent_seven_times_and_times_out() {
    let mut bench = Bench::new();
    bench.request(&request("INVITE", "i1"), udp()).unwrap();
    bench.drain();
    let happened = bench.wait(60_000);
    assert_eq!(happened.len(), 7);
    assert!(happened[..6].iter().all(|(_, what)| what == "send INVITE"));
    assert_eq!(happened[6], (32_000, "timeout for 77".to_owned()));
}

#[test]
fn a_request_is_repeated_until_its_response_and_gives_the_tu_one_final_response() {
    let mut bench = Bench::new();
    bench.request(&request("REGISTER", "r1"), udp()).unwrap();
    assert_eq!(bench.drain(), ["send REGISTER"]);
    assert_eq!(bench.wait(500), [(500, "send REGISTER".to_owned())]);
    assert_eq!(bench.receive(&response(100, "REGISTER", "r1"), udp()), ["response 100 for 77"]);
    assert_eq!(bench.receive(&response(200, "REGISTER", "r1"), udp()), ["response 200 for 77"]);
    assert_eq!(bench.receive(&response(200, "REGISTER", "r1"), udp()), [""; 0]);
    assert_eq!(bench.receive(&response(401, "REGISTER", "r1"), udp()), [""; 0]);
    assert_eq!(bench.wait(60_000), []);
    assert_eq!((bench.transactions.client_count(), bench.transactions.poll_timeout()), (0, None));
}

#[test]
fn a_response_matches_by_branch_and_cseq_method() {
    let mut bench = Bench::new();
    bench.request(&request("INVITE", "i1"), udp()).unwrap();
    bench.request(&request("CANCEL", "i1"), udp()).unwrap();
    bench.drain();

    assert_eq!(bench.receive(&response(200, "OPTIONS", "i1"), udp()), [""; 0]);
    assert_eq!(bench.receive(&response(200, "INVITE", "i2"), udp()), [""; 0]);
    assert_eq!(bench.receive(&response(200, "ACK", "i1"), udp()), [""; 0]);
    assert_eq!(bench.receive(&response(200, "INVITE", "i1").replace("branch=", "other="), udp()), [""; 0]);
    assert_eq!(bench.transactions.counters().stray_responses, 4);
    assert_eq!(bench.receive(&response(200, "CANCEL", "i1"), udp()), ["response 200 for 77"]);
    assert_eq!(bench.receive(&response(487, "INVITE", "i1"), udp()), ["send ACK", "response 487 for 77"]);
}

#[test]
fn a_cancelled_invite_that_stays_silent_times_out_after_64_t1() {
    let mut bench = Bench::new();
    bench.request(&request("INVITE", "i1"), tcp()).unwrap();
    bench.receive(&response(180, "INVITE", "i1"), tcp());
    bench.request(&request("CANCEL", "i1"), tcp()).unwrap();
    bench.drain();
    assert_eq!(bench.receive(&response(200, "CANCEL", "i1"), tcp()), ["response 200 for 77"]);

    assert_eq!(bench.wait(60_000), [(32_000, "timeout for 77".to_owned())]);
}

#[test]
fn a_transport_failure_ends_a_transaction_that_sends() {
    let mut bench = Bench::new();
    for method in ["INVITE", "OPTIONS"] {
        let client = bench.request(&request(method, "f"), tcp()).unwrap();
        bench.drain();
        bench.transactions.transport_failed(bench.now, client);
        assert_eq!(bench.drain(), ["failed for 77"]);
        bench.transactions.transport_failed(bench.now, client);
        assert_eq!(bench.drain(), [""; 0]);
    }
    let ringing = bench.request(&request("INVITE", "f2"), tcp()).unwrap();
    bench.receive(&response(180, "INVITE", "f2"), tcp());
    bench.transactions.transport_failed(bench.now, ringing);
    assert_eq!(bench.receive(&response(200, "INVITE", "f2"), tcp()), ["response 200 for 77"]);
    assert_eq!(bench.transactions.counters().client_failures, 2);
}

#[test]
fn what_cannot_be_a_client_transaction_is_refused() {
    let mut bench = Bench::with(Settings { client_max: 2, ..Settings::default() });
    assert_eq!(bench.request(&request("ACK", "a"), udp()), Err(TransactionError::NoTransaction));
    assert_eq!(bench.request(&response(200, "BYE", "a"), udp()), Err(TransactionError::NoTransaction));
    let unnamed = request_with_via("BYE", "SIP/2.0/UDP client.example.com");
    assert!(matches!(bench.request(&unnamed, udp()), Err(TransactionError::Header(_))));
    bench.request(&request("INVITE", "a"), udp()).unwrap();
    assert_eq!(bench.request(&request("INVITE", "a"), udp()), Err(TransactionError::Duplicate));
    bench.request(&request("BYE", "a"), udp()).unwrap();
    assert_eq!(bench.request(&request("BYE", "b"), udp()), Err(TransactionError::Full { max: 2 }));
    bench.request(&request("CANCEL", "a"), udp()).unwrap();
    assert_eq!(bench.drain(), ["send INVITE", "send BYE", "send CANCEL"]);
}

#[test]
fn a_full_table_lets_answered_requests_go_first_and_then_the_oldest_accepted_invite() {
    let mut bench = Bench::with(Settings { client_max: 3, ..Settings::default() });
    for name in ["i1", "i2"] {
        bench.request(&request("INVITE", name), udp()).unwrap();
        bench.receive(&response(200, "INVITE", name), udp());
    }
    bench.request(&request("BYE", "b1"), udp()).unwrap();
    bench.receive(&response(200, "BYE", "b1"), udp());

    bench.request(&request("INVITE", "i3"), udp()).unwrap();
    bench.drain();
    assert_eq!(bench.receive(&response(200, "INVITE", "i1"), udp()), ["response 200 for 77"]);
    bench.request(&request("INVITE", "i4"), udp()).unwrap();
    bench.drain();
    assert_eq!(bench.receive(&response(200, "INVITE", "i1"), udp()), [""; 0]);
    assert_eq!(bench.receive(&response(200, "INVITE", "i2"), udp()), ["response 200 for 77"]);
    bench.request(&request("INVITE", "i5"), udp()).unwrap();
    assert_eq!(bench.request(&request("BYE", "b2"), udp()), Err(TransactionError::Full { max: 3 }));
    assert_eq!(bench.transactions.counters().ended_early, 3);
}

#[test]
fn the_request_is_let_go_with_the_final_response() {
    let mut bench = Bench::new();
    for (method, status) in [("INVITE", 200), ("INVITE", 404), ("REGISTER", 200)] {
        let branch = format!("r{method}{status}");
        let sent = message(&request(method, &branch));
        bench.transactions.request(bench.now, Arc::clone(&sent), udp(), 1).unwrap();
        assert_eq!(Arc::strong_count(&sent), 2);
        bench.receive(&response(status, method, &branch), udp());
        assert_eq!(Arc::strong_count(&sent), 1);
    }
}

#[test]
fn the_next_timer_is_known_to_the_microsecond() {
    let mut bench = Bench::new();
    bench.now = Instant::from_micros(1_234_567);
    assert_eq!(bench.transactions.poll_timeout(), None);
    bench.request(&request("OPTIONS", "o"), udp()).unwrap();
    assert_eq!(bench.transactions.poll_timeout(), Some(Instant::from_micros(1_734_567)));

    bench.drain();
    bench.transactions.handle_timeout(Instant::from_micros(1_734_566));
    assert_eq!(bench.drain(), [""; 0]);
    bench.transactions.handle_timeout(Instant::from_micros(1_734_567));
    assert_eq!(bench.drain(), ["send OPTIONS"]);
}
