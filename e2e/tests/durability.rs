//! What was acknowledged is there after SIGKILL.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    collections::HashMap,
    fmt::Write,
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{Deployment, Phone, Registration, Timing, Via, wait_until};

const USERS: usize = 500;
const DEVICES_PER_USER: usize = 4;
const WORKERS: usize = 6;
const ROUNDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(30);

/// What a phone was told of its contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Registered,
    Removed,
    /// A request was sent and never answered: both are right.
    Nothing,
}

type Ledger = Arc<Mutex<HashMap<(String, String), Told>>>;

fn user(number: usize) -> String {
    format!("u{number:05}")
}

fn import_users(deployment: &Deployment) {
    let mut text = String::from("address-of-record,password,home\n");
    for number in 0..USERS {
        writeln!(text, "sip:{0}@example.com,p{0},east", user(number)).unwrap();
    }
    let file = deployment.scratch().join("more.csv");
    fs::write(&file, text).unwrap();
    let ran = deployment.tandem(&["user", "import", &file.to_string_lossy()], b"").unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Registers one device, and unregisters one of eight again; every answer goes into the ledger.
fn register_one(server: SocketAddr, number: usize, ledger: &Ledger, acknowledged: &AtomicUsize) -> bool {
    let user = user(number % USERS);
    let Ok(phone) = Phone::with_password(&user, &format!("p{user}"), Via::Udp, server, "127.0.0.1", None)
    else {
        return false;
    };
    let key = (user, phone.contact());
    for expires in [3_600, 0] {
        if expires == 0 && !number.is_multiple_of(8) {
            return true;
        }
        let answer = phone.register_within(expires, Duration::from_secs(2));
        let told = match answer.map(|answer| answer.status) {
            Ok(200) if expires == 0 => Told::Removed,
            Ok(200) => Told::Registered,
            Ok(_) | Err(_) => Told::Nothing,
        };
        ledger.lock().unwrap().insert(key.clone(), told);
        if told == Told::Nothing {
            return false;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    true
}

fn registered_at(server: SocketAddr, user: &str) -> Vec<String> {
    let phone = Phone::with_password(user, &format!("p{user}"), Via::Udp, server, "127.0.0.1", None).unwrap();
    let question = Registration { contacts: Vec::new(), expires: None, cseq: None };
    let answer = phone.register_with(&question, LIMIT).unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.message);
    answer.message.values("Contact")
}

#[test]
fn every_acknowledged_binding_survives_sigkill_under_load() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    import_users(&deployment);
    let server = Deployment::sip("east1");
    let ledger: Ledger = Arc::default();
    let next = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let target = USERS * DEVICES_PER_USER / ROUNDS;
        let began = Instant::now();
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (ledger, next) = (Arc::clone(&ledger), Arc::clone(&next));
                let (acknowledged, is_over) = (Arc::clone(&acknowledged), Arc::clone(&is_over));
                thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        register_one(server, number, &ledger, &acknowledged);
                    }
                })
            })
            .collect();
        // At a moment that differs from round to round and from run to run.
        let at = target - (began.elapsed().subsec_nanos() as usize + round * 37) % 100;
        wait_until("registrations", LIMIT, || Ok(acknowledged.load(Ordering::Relaxed) >= at)).unwrap();
        deployment.kill("east1").unwrap();
        let under_load = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
        let restarted = Instant::now();
        deployment.start("east1").unwrap();
        deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
        let back = restarted.elapsed();

        let ledger = ledger.lock().unwrap();
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        let (mut kept, mut removed, mut unknown) = (0, 0, 0);
        for ((user, contact), told) in ledger.iter() {
            let list = found.entry(user.clone()).or_insert_with(|| registered_at(server, user));
            let is_there = list.iter().any(|value| value.contains(contact.as_str()));
            match told {
                Told::Registered => kept += usize::from(is_there),
                Told::Removed => removed += usize::from(!is_there),
                Told::Nothing => unknown += 1,
            }
            let is_right = match told {
                Told::Registered => is_there,
                Told::Removed => !is_there,
                Told::Nothing => true,
            };
            assert!(is_right, "{user} {contact}: told {told:?}, found {list:?}");
        }
        let some: Vec<_> = found.iter().take(5).collect();
        for (user, list) in some {
            assert_eq!(deployment.registrations(user).unwrap().len(), list.len());
        }
        println!(
            "round {}: SIGKILL after {} acknowledgements in {under_load:?}; serving again {back:?} after \
            its start; of \
             all rounds {kept} acknowledged bindings there, 0 lost, {removed} removed, {unknown} never \
             answered",
            round + 1,
            acknowledged.load(Ordering::Relaxed)
        );
    }
}
