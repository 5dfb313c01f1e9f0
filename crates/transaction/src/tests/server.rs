//! Server transactions with messages.

use super::*;

#[test]
fn a_retransmitted_request_is_absorbed_and_answered_with_the_last_response() {
    let mut bench = Bench::new();
    let register = request("REGISTER", "r1");
    let server = bench.open(&register, udp());

    assert_eq!(bench.receive(&register, udp()), [""; 0]);
    assert_eq!(bench.respond(server, 200).unwrap(), ["send 200"]);
    assert_eq!(bench.receive(&register, udp()), ["send 200"]);
    assert_eq!(bench.receive(&register, udp()), ["send 200"]);
    assert_eq!(bench.wait(40_000), [(32_000, "finished".to_owned())]);
    assert_eq!(bench.receive(&register, udp()), ["request REGISTER"]);
    assert_eq!(bench.transactions.counters().retransmissions_received, 3);
}

#[test]
fn a_slow_non_invite_request_gets_100_after_3_5_s_and_no_answer_after_32_s() {
    let mut bench = Bench::new();
    let options = request("OPTIONS", "o1");
    let server = bench.open(&options, udp());

    assert_eq!(bench.wait(10_000), [(3_500, "send 100".to_owned())]);
    assert_eq!(bench.receive(&options, udp()), ["send 100"]);
    assert_eq!(bench.wait(30_000), [(22_000, "finished".to_owned())]);
    assert_eq!(bench.respond(server, 200), Err(TransactionError::Ended));
    assert_eq!(bench.transactions.counters().unanswered, 1);
}

#[test]
fn a_408_to_a_non_invite_request_is_refused_and_nothing_is_sent() {
    let mut bench = Bench::new();
    let server = bench.open(&request("BYE", "b1"), tcp());

    assert_eq!(bench.respond(server, 408), Err(TransactionError::NotAllowed { status: 408 }));
    for status in [0, 99, 700] {
        let refused = bench.transactions.respond(bench.now, server, status, Bytes::new());
        assert_eq!(refused, Err(TransactionError::NotAllowed { status }));
    }
    assert_eq!(bench.drain(), [""; 0]);
    assert_eq!(bench.respond(server, 200).unwrap(), ["send 200", "finished"]);
}

#[test]
fn an_invite_gets_100_trying_without_a_to_tag_after_200_ms() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "i1");
    bench.open(&invite, udp());
    assert_eq!(bench.receive(&invite, udp()), [""; 0]);

    bench.now = bench.now + Duration::from_millis(200);
    bench.transactions.handle_timeout(bench.now);

    let [Output::Transmit { to, bytes, client: None }] = &bench.outputs()[..] else { panic!() };
    assert_eq!(*to, udp());
    let trying = OwnedMessage::parse(bytes.clone(), Framing::Datagram).unwrap();
    assert_eq!(trying.view().status(), 100);
    assert_eq!(trying.view().to().unwrap().tag(), None);
    assert_eq!(trying.view().top_via().unwrap().branch(), Some(&b"z9hG4bKi1"[..]));
    assert_eq!(trying.view().call_id().unwrap(), b"call-1@client");
    assert_eq!(bench.receive(&invite, udp()), ["send 100"]);
}

#[test]
fn a_refused_invite_repeats_its_response_until_the_ack_and_absorbs_every_ack() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "i1");
    let ack = request("ACK", "i1");
    let server = bench.open(&invite, udp());
    assert_eq!(bench.respond(server, 180).unwrap(), ["send 180"]);
    assert_eq!(bench.receive(&ack, udp()), [""; 0]);
    assert_eq!(bench.receive(&invite, udp()), ["send 180"]);
    assert_eq!(bench.respond(server, 486).unwrap(), ["send 486"]);

    assert_eq!(bench.wait(1_600), [(500, "send 486".to_owned()), (1_500, "send 486".to_owned())]);
    assert_eq!(bench.receive(&invite, udp()), ["send 486"]);
    assert_eq!(bench.receive(&ack, udp()), [""; 0]);
    assert_eq!(bench.receive(&invite, udp()), [""; 0]);
    assert_eq!(bench.receive(&ack, udp()), [""; 0]);
    assert_eq!(bench.wait(10_000), [(5_000, "finished".to_owned())]);
    assert_eq!(bench.transactions.counters().acks_absorbed, 3);
}

#[test]
fn a_refused_invite_without_ack_ends_by_timer_h() {
    let mut bench = Bench::new();
    let server = bench.open(&request("INVITE", "i1"), tcp());
    assert_eq!(bench.respond(server, 603).unwrap(), ["send 603"]);
    assert_eq!(bench.wait(40_000), [(32_000, "finished".to_owned())]);
}

#[test]
fn an_accepted_invite_absorbs_retransmissions_sends_every_2xx_and_passes_acks_on() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "i1");
    let server = bench.open(&invite, udp());
    assert_eq!(bench.respond(server, 200).unwrap(), ["send 200"]);

    assert_eq!(bench.receive(&invite, udp()), [""; 0]);
    assert_eq!(bench.respond(server, 200).unwrap(), ["send 200"]);
    assert_eq!(bench.respond(server, 202).unwrap(), ["send 202"]);
    assert_eq!(bench.respond(server, 486), Err(TransactionError::AlreadyAnswered));
    assert_eq!(bench.receive(&request("ACK", "other"), udp()), ["ack"]);
    assert_eq!(bench.receive(&request("ACK", "i1"), udp()), ["ack"]);
    assert_eq!(bench.wait(40_000), [(32_000, "finished".to_owned())]);
    assert_eq!(bench.respond(server, 200), Err(TransactionError::Ended));
}

#[test]
fn an_ack_that_belongs_to_nothing_goes_to_the_tu() {
    assert_eq!(Bench::new().receive(&request("ACK", "nobody"), udp()), ["ack"]);
}

#[test]
fn a_cancel_finds_its_invite_and_is_a_transaction_of_its_own() {
    let mut bench = Bench::new();
    let invite = bench.open(&request("INVITE", "i1"), udp());
    let cancel = request("CANCEL", "i1");

    bench.transactions.receive(bench.now, message(&cancel), udp()).unwrap();
    let outputs = bench.outputs();
    let [Output::Cancel { server, invite: found, is_matched: true, .. }] = &outputs[..] else { panic!() };
    assert_eq!(*found, Some(invite));
    assert_ne!(*server, invite);
    assert_eq!(bench.respond(*server, 200).unwrap(), ["send 200"]);
    assert_eq!(bench.receive(&cancel, udp()), ["send 200"]);
    assert_eq!(bench.respond(invite, 487).unwrap(), ["send 487"]);
    assert_eq!(bench.receive(&request("ACK", "i1"), udp()), [""; 0]);
}

#[test]
fn a_cancel_of_nothing_or_of_another_method_says_so() {
    let mut bench = Bench::new();
    bench.open(&request("MESSAGE", "m1"), udp());

    assert_eq!(bench.receive(&request("CANCEL", "none"), udp()), ["cancel of nothing"]);
    assert_eq!(bench.receive(&request("CANCEL", "m1"), udp()), ["cancel of other"]);
}

#[test]
fn branch_sent_by_and_method_make_the_transaction_without_case() {
    let mut bench = Bench::new();
    let via = "SIP/2.0/UDP Client.example.com:5060;rport=4;branch=z9hG4bKabc";
    bench.open(&request_with_via("INFO", via), udp());

    let same = "SIP/2.0/UDP client.EXAMPLE.com:5060;rport=9;received=192.0.2.7;branch=z9hg4bKABC";
    assert_eq!(bench.receive(&request_with_via("INFO", same), udp()), [""; 0]);
    for other in [
        "SIP/2.0/UDP client.example.com:5060;rport=4;branch=z9hG4bKabcd",
        "SIP/2.0/UDP client.example.com:5061;rport=4;branch=z9hG4bKabc",
        "SIP/2.0/UDP client.example.com;rport=4;branch=z9hG4bKabc",
        "SIP/2.0/UDP client.example.co:5060;rport=4;branch=z9hG4bKabc",
    ] {
        assert_eq!(bench.receive(&request_with_via("INFO", other), udp()), ["request INFO"], "{other}");
    }
    assert_eq!(bench.receive(&request_with_via("UPDATE", via), udp()), ["request UPDATE"]);
}

#[test]
fn unknown_methods_are_told_apart_by_their_token() {
    let mut bench = Bench::new();
    assert_eq!(bench.receive(&request("WINK", "u"), udp()).len(), 1);
    assert_eq!(bench.receive(&request("NUDGE", "u"), udp()).len(), 1);
    assert_eq!(bench.receive(&request("WINK", "u"), udp()), [""; 0]);
    assert_eq!(bench.transactions.server_count(), 2);
}

#[test]
fn a_response_goes_where_rfc_3261_18_2_2_and_rfc_3581_say() {
    let table = [
        (udp(), "SIP/2.0/UDP 10.0.0.1:5070;received=192.0.2.1;branch=z9hG4bK1", "192.0.2.1:5070"),
        (udp(), "SIP/2.0/UDP 10.0.0.1;received=192.0.2.1;branch=z9hG4bK1", "192.0.2.1:5060"),
        (
            udp(),
            "SIP/2.0/UDP 10.0.0.1:5070;received=192.0.2.1;rport=40000;branch=z9hG4bK1",
            "192.0.2.1:40000",
        ),
        (udp(), "SIP/2.0/UDP 10.0.0.1:5070;maddr=203.0.113.5;rport=40000;branch=z9hG4bK1", "192.0.2.1:40000"),
        (tcp(), "SIP/2.0/TCP 10.0.0.1:5070;received=192.0.2.1;branch=z9hG4bK1", "192.0.2.1:40000"),
    ];
    for (from, via, remote) in table {
        let mut bench = Bench::new();
        let server = bench.open(&request_with_via("OPTIONS", via), from);
        bench.transactions.respond(bench.now, server, 200, response_bytes(200)).unwrap();
        let outputs = bench.outputs();
        let Some(Output::Transmit { to, .. }) = outputs.first() else { panic!() };
        assert_eq!(*to, Peer { remote: remote.parse().unwrap(), ..from }, "{via}");
    }
}

#[test]
fn requests_of_rfc_2543_are_matched_by_their_headers() {
    for via in [
        "SIP/2.0/UDP old.example.com:5060",
        "SIP/2.0/UDP old.example.com:5060;branch=1",
        "SIP/2.0/UDP old.example.com:5060;branch=z9hG4bK",
    ] {
        let mut bench = Bench::new();
        let invite = request_with_via("INVITE", via);
        let server = bench.open(&invite, udp());
        assert_eq!(bench.receive(&invite, udp()), [""; 0]);
        for (from, to) in
            [("CSeq: 7", "CSeq: 8"), ("call-1", "call-2"), ("tag=a1", "tag=a2"), ("bob@", "eve@")]
        {
            assert_eq!(bench.receive(&invite.replace(from, to), udp()), ["request INVITE"], "{to}");
        }
        assert_eq!(bench.receive(&request_with_via("CANCEL", via), udp()), ["cancel of invite"]);

        assert_eq!(bench.respond(server, 486).unwrap(), ["send 486"]);
        let ack = request_with_via("ACK", via);
        let tagged = |tag: &str| {
            ack.replace("To: <sip:bob@example.com>", &format!("To: <sip:bob@example.com>;tag={tag}"))
        };
        assert_eq!(bench.receive(&tagged("stranger"), udp()), ["ack"]);
        assert_eq!(bench.receive(&tagged("b486"), udp()), [""; 0]);
        assert_eq!(bench.receive(&tagged("b486"), udp()), [""; 0]);
        assert_eq!(bench.transactions.counters().acks_absorbed, 2);
    }
}

#[test]
fn the_ack_of_an_rfc_2543_client_for_a_2xx_is_passed_on() {
    let mut bench = Bench::new();
    let via = "SIP/2.0/UDP old.example.com";
    let server = bench.open(&request_with_via("INVITE", via), udp());
    bench.respond(server, 200).unwrap();

    let ack =
        request_with_via("ACK", via).replace("bob@example.com>\nCall", "bob@example.com>;tag=b200\nCall");
    assert_eq!(bench.receive(&ack, udp()), ["ack"]);
}

#[test]
fn the_ack_for_a_refused_reinvite_of_rfc_2543_is_absorbed() {
    let mut bench = Bench::new();
    let via = "SIP/2.0/UDP old.example.com";
    let in_dialog = |method| {
        request_with_via(method, via).replace("bob@example.com>\nCall", "bob@example.com>;tag=b488\nCall")
    };
    let server = bench.open(&in_dialog("INVITE"), udp());
    bench.respond(server, 488).unwrap();

    assert_eq!(bench.receive(&in_dialog("ACK"), udp()), [""; 0]);
    assert_eq!(bench.transactions.counters().acks_absorbed, 1);
}

#[test]
fn a_full_table_refuses_requests_but_takes_the_cancel_of_an_invite() {
    let mut bench = Bench::with(Settings { server_max: 2, ..Settings::default() });
    bench.open(&request("INVITE", "i1"), udp());
    bench.open(&request("REGISTER", "r1"), udp());

    let refused = bench.transactions.receive(bench.now, message(&request("REGISTER", "r2")), udp());
    assert_eq!(refused, Err(TransactionError::Full { max: 2 }));
    assert_eq!(refused.unwrap_err().status(), 503);
    assert_eq!(bench.receive(&request("REGISTER", "r1"), udp()), [""; 0]);
    assert_eq!(bench.receive(&request("CANCEL", "i1"), udp()), ["cancel of invite"]);
    assert!(bench.transactions.receive(bench.now, message(&request("CANCEL", "i2")), udp()).is_err());
    assert_eq!(bench.transactions.counters().refused, 2);
}

#[test]
fn a_full_table_lets_the_oldest_answered_request_go_and_no_other() {
    let mut bench = Bench::with(Settings { server_max: 3, ..Settings::default() });
    bench.open(&request("INVITE", "i1"), udp());
    let first = bench.open(&request("REGISTER", "r1"), udp());
    let second = bench.open(&request("REGISTER", "r2"), udp());
    bench.respond(second, 200).unwrap();
    bench.respond(first, 200).unwrap();

    assert_eq!(bench.receive(&request("REGISTER", "r3"), udp()), ["finished", "request REGISTER"]);
    assert_eq!(bench.receive(&request("REGISTER", "r1"), udp()), ["send 200"]);
    assert_eq!(bench.receive(&request("REGISTER", "r4"), udp()), ["finished", "request REGISTER"]);
    assert!(bench.transactions.receive(bench.now, message(&request("REGISTER", "r5")), udp()).is_err());
    assert_eq!(bench.transactions.counters().ended_early, 2);
}

#[test]
fn of_more_answered_requests_than_may_be_kept_the_oldest_goes_and_none_that_is_not_answered() {
    let mut bench = Bench::with(Settings { answered_max: 2, ..Settings::default() });
    bench.open(&request("REGISTER", "waiting"), udp());
    for name in ["r1", "r2"] {
        let server = bench.open(&request("REGISTER", name), udp());
        bench.respond(server, 200).unwrap();
    }
    assert_eq!(bench.receive(&request("REGISTER", "r1"), udp()), ["send 200"]);

    let third = bench.open(&request("REGISTER", "r3"), udp());
    bench.respond(third, 200).unwrap();

    for name in ["r2", "r3"] {
        assert_eq!(bench.receive(&request("REGISTER", name), udp()), ["send 200"], "{name}");
    }
    assert_eq!(bench.receive(&request("REGISTER", "waiting"), udp()), [""; 0]);
    assert_eq!(bench.receive(&request("REGISTER", "r1"), udp()), ["request REGISTER"]);
    assert_eq!(bench.transactions.counters().ended_early, 1);
}

#[test]
fn a_full_table_lets_the_oldest_accepted_invite_go_and_none_that_rings_or_was_refused() {
    for via in [udp(), tcp()] {
        let mut bench = Bench::with(Settings { server_max: 4, ..Settings::default() });
        let accepted = bench.open(&request("INVITE", "i1"), via);
        let later = bench.open(&request("INVITE", "i2"), via);
        let ringing = bench.open(&request("INVITE", "i3"), via);
        let refused = bench.open(&request("INVITE", "i4"), via);
        bench.respond(ringing, 180).unwrap();
        bench.respond(refused, 486).unwrap();
        bench.respond(accepted, 200).unwrap();
        bench.respond(later, 200).unwrap();
        bench.respond(accepted, 200).unwrap();

        for name in ["i5", "i6"] {
            assert_eq!(bench.receive(&request("INVITE", name), via), ["finished", "request INVITE"]);
        }
        assert_eq!(bench.respond(accepted, 200), Err(TransactionError::Ended));
        let more = bench.transactions.receive(bench.now, message(&request("INVITE", "i7")), via);
        assert_eq!(more, Err(TransactionError::Full { max: 4 }));
        bench.respond(ringing, 200).unwrap();
    }
}

#[test]
fn cancels_that_exceed_the_bound_do_not_raise_it() {
    let mut bench = Bench::with(Settings { server_max: 2, ..Settings::default() });
    for round in 0..100 {
        let invite = message(&request("INVITE", &format!("i{round}")));
        if bench.transactions.receive(bench.now, invite, udp()).is_err() {
            continue;
        }
        let cancel = message(&request("CANCEL", &format!("i{round}")));
        bench.transactions.receive(bench.now, cancel, udp()).unwrap();
        for output in bench.outputs() {
            if let Output::Cancel { server, .. } = output {
                bench.respond(server, 200).unwrap();
            }
        }
    }
    assert!(bench.transactions.server_count() <= 4, "{}", bench.transactions.server_count());
}

#[test]
fn a_request_without_a_readable_via_is_an_error() {
    let mut bench = Bench::new();
    let result = bench.transactions.receive(bench.now, message(&request_with_via("BYE", "nonsense")), udp());
    assert_eq!(result.unwrap_err().status(), 400);
    assert_eq!(bench.drain(), [""; 0]);
}

#[test]
fn the_request_is_let_go_with_the_final_response() {
    let mut bench = Bench::new();
    for (method, status) in [("INVITE", 200), ("INVITE", 404), ("REGISTER", 200)] {
        let register = message(&request(method, &format!("r{method}{status}")));
        bench.transactions.receive(bench.now, Arc::clone(&register), udp()).unwrap();
        let Some(Output::Request { server, .. }) = bench.transactions.poll_output() else { panic!() };
        assert_eq!(Arc::strong_count(&register), 2);
        bench.respond(server, status).unwrap();
        assert_eq!(Arc::strong_count(&register), 1);
    }
}

#[test]
fn an_accepted_invite_keeps_no_response_and_a_refused_one_does() {
    let mut bench = Bench::new();
    for (status, is_kept) in [(200, false), (404, true)] {
        let server = bench.open(&request("INVITE", &format!("k{status}")), udp());
        let bytes = Bytes::from(response_bytes(status).to_vec());
        bench.transactions.respond(bench.now, server, status, bytes.clone()).unwrap();
        bench.drain();
        assert_eq!(bytes.is_unique(), !is_kept, "{status}");
    }
}

#[test]
fn a_lingering_transaction_costs_at_most_320_octets_beside_its_response() {
    let (server, client) = (Transactions::SERVER_BYTES, Transactions::CLIENT_BYTES);
    assert!(server <= 320 && client <= 320, "{server} {client}");
}

#[test]
fn a_process_that_was_stopped_sends_one_response_not_a_burst() {
    let mut bench = Bench::new();
    let server = bench.open(&request("INVITE", "i1"), udp());
    bench.respond(server, 486).unwrap();

    bench.now = bench.now + Duration::from_secs(20);
    bench.transactions.handle_timeout(bench.now);
    bench.transactions.handle_timeout(bench.now);

    assert_eq!(bench.drain(), ["send 486"]);
}

#[test]
fn a_branch_of_any_length_names_its_transaction() {
    let mut bench = Bench::new();
    for length in [1, 40, 64, 200, 4_000] {
        let register = request("REGISTER", &"b".repeat(length));
        let server = bench.open(&register, udp());
        assert_eq!(bench.respond(server, 200).unwrap(), ["send 200"]);
        assert_eq!(bench.receive(&register, udp()), ["send 200"]);
    }
}

#[test]
fn two_thousand_registers_a_second_linger_32_s_and_then_make_room() {
    let mut bench = Bench::new();
    let mut most = 0;
    for number in 0..80_000_u64 {
        bench.now = bench.now + Duration::from_micros(500);
        bench.transactions.handle_timeout(bench.now);
        bench.drain();
        let server = bench.open(&request("REGISTER", &number.to_string()), udp());
        bench.transactions.respond(bench.now, server, 200, Bytes::from_static(b"SIP/2.0 200 OK")).unwrap();
        most = most.max(bench.transactions.server_count());
    }
    assert_eq!(most, 64_000);
    bench.wait(32_000);
    assert_eq!((bench.transactions.server_count(), bench.transactions.poll_timeout()), (0, None));
}
