//! Random inputs: nothing panics, every transaction ends within its longest timer, the tables empty.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const METHODS: [&str; 7] = ["INVITE", "ACK", "CANCEL", "BYE", "REGISTER", "OPTIONS", "WINK"];
const STATUSES: [u16; 10] = [99, 100, 180, 200, 202, 302, 408, 487, 603, 700];

#[derive(Clone, Debug)]
enum Step {
    Request { method: usize, branch: usize, is_reliable: bool, is_old: bool },
    Response { method: usize, branch: usize, status: usize },
    Send { method: usize, branch: usize, is_reliable: bool },
    Answer { server: usize, status: usize },
    Fail { client: usize },
    Wait { milliseconds: u64, is_noticed: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let method = 0..METHODS.len();
    let status = 0..STATUSES.len();
    prop_oneof![
        (method.clone(), 0..4_usize, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(method, branch, is_reliable, is_old)| Step::Request { method, branch, is_reliable, is_old }
        ),
        (method.clone(), 0..4_usize, status.clone()).prop_map(|(method, branch, status)| Step::Response {
            method,
            branch,
            status
        }),
        (method, 0..4_usize, any::<bool>()).prop_map(|(method, branch, is_reliable)| Step::Send {
            method,
            branch,
            is_reliable
        }),
        (0..20_usize, status).prop_map(|(server, status)| Step::Answer { server, status }),
        (0..20_usize).prop_map(|client| Step::Fail { client }),
        (prop_oneof![0..2_000_u64, 0..40_000_u64, 0..1_000_000_u64], prop::bool::weighted(0.8))
            .prop_map(|(milliseconds, is_noticed)| Step::Wait { milliseconds, is_noticed }),
    ]
}

/// What came out about each transaction.
#[derive(Default)]
struct Ledger {
    servers: BTreeMap<ServerTransaction, usize>,
    clients: BTreeMap<ClientTransaction, Outcome>,
}

#[derive(Default, Debug)]
struct Outcome {
    is_invite: bool,
    refused: usize,
    accepted: usize,
    ended: usize,
}

impl Ledger {
    fn take(&mut self, bench: &mut Bench) {
        for output in bench.outputs() {
            match output {
                Output::Request { server, .. } | Output::Cancel { server, .. } => {
                    assert_eq!(self.servers.insert(server, 0), None);
                }
                Output::ServerFinished { server } => *self.servers.get_mut(&server).unwrap() += 1,
                Output::Response { client, response, .. } => {
                    let outcome = self.clients.get_mut(&client).unwrap();
                    match response.view().status() {
                        ..200 => assert_eq!(outcome.refused + outcome.accepted + outcome.ended, 0),
                        200..300 => outcome.accepted += 1,
                        300.. => outcome.refused += 1,
                    }
                }
                Output::ClientTimeout { client, .. } | Output::ClientFailed { client, .. } => {
                    self.clients.get_mut(&client).unwrap().ended += 1;
                }
                Output::Transmit { .. } | Output::Ack { .. } => {}
            }
        }
    }

    fn check(&self) {
        assert!(self.servers.values().all(|&finished| finished == 1), "{:?}", self.servers);
        for outcome in self.clients.values() {
            let accepted = if outcome.is_invite { outcome.accepted.min(1) } else { outcome.accepted };
            assert_eq!(accepted + outcome.refused + outcome.ended, 1, "{outcome:?}");
        }
    }
}

fn apply(bench: &mut Bench, ledger: &mut Ledger, step: Step) {
    let transport = |is_reliable| if is_reliable { tcp() } else { udp() };
    match step {
        Step::Request { method, branch, is_reliable, is_old } => {
            let text = if is_old {
                request_with_via(METHODS[method], "SIP/2.0/UDP old.example.com")
            } else {
                request(METHODS[method], &branch.to_string())
            };
            let received = bench.transactions.receive(bench.now, message(&text), transport(is_reliable));
            assert!(matches!(received, Ok(()) | Err(TransactionError::Full { .. })), "{received:?}");
        }
        Step::Response { method, branch, status } => {
            let status = STATUSES[status].clamp(100, 699);
            let text = response(status, METHODS[method], &branch.to_string());
            bench.transactions.receive(bench.now, message(&text), udp()).unwrap();
        }
        Step::Send { method, branch, is_reliable } => {
            let text = request(METHODS[method], &branch.to_string());
            if let Ok(client) = bench.request(&text, transport(is_reliable)) {
                let is_invite = METHODS[method] == "INVITE";
                let known = ledger.clients.insert(client, Outcome { is_invite, ..Outcome::default() });
                assert!(known.is_none());
            }
        }
        Step::Answer { server, status } => {
            let server = ledger.servers.keys().nth(server).copied().unwrap_or(ServerTransaction(9));
            let _ = bench.respond_quietly(server, STATUSES[status]);
        }
        Step::Fail { client } => {
            let client = ledger.clients.keys().nth(client).copied().unwrap_or(ClientTransaction(9));
            bench.transactions.transport_failed(bench.now, client);
        }
        Step::Wait { milliseconds, is_noticed } => {
            bench.now = bench.now + Duration::from_millis(milliseconds);
            if is_noticed {
                bench.transactions.handle_timeout(bench.now);
            }
        }
    }
}

impl Bench {
    fn respond_quietly(&mut self, server: ServerTransaction, status: u16) -> Result<(), TransactionError> {
        self.transactions.respond(self.now, server, status, Bytes::from_static(b"SIP/2.0 response"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_inputs_never_panic_and_every_transaction_ends_in_time(
        steps in prop::collection::vec(step(), 1..120),
        server_max in prop_oneof![Just(3_usize), Just(1_000)],
    ) {
        let mut bench = Bench::with(Settings { server_max, client_max: 6, ..Settings::default() });
        let mut ledger = Ledger::default();
        for step in steps {
            apply(&mut bench, &mut ledger, step);
            ledger.take(&mut bench);
            prop_assert!(bench.transactions.server_count() <= 2 * server_max);
            prop_assert!(bench.transactions.client_count() <= 12);
        }

        bench.transactions.handle_timeout(bench.now);
        ledger.take(&mut bench);
        let longest = bench.now + Duration::from_secs(15 * 60);
        let mut turns = 0;
        while let Some(at) = bench.transactions.poll_timeout() {
            turns += 1;
            prop_assert!(turns < 10_000, "timers without end");
            prop_assert!(at <= longest);
            bench.now = bench.now.max(at);
            bench.transactions.handle_timeout(bench.now);
            ledger.take(&mut bench);
        }
        ledger.check();
        prop_assert_eq!((bench.transactions.server_count(), bench.transactions.client_count()), (0, 0));
    }
}
