//! Phones are sent to where they belong, and thousands at once harm nobody: 302, reg-event, storm control.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{
    Answer, Call, Deployment, Message, Phone, Subscription, Timing, Via,
    burst::{BurstUser, register_at_once},
    wait_for, wait_until,
};

const LIMIT: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(4);

/// The example deployment, running, with more pool settings for east and west and two shards everywhere.
fn running(timing: Timing, settings: &str) -> Deployment {
    let deployment = Deployment::new(timing).unwrap();
    deployment
        .edit_topology(|text| {
            let text = text.replace("shards = 1\n", "shards = 2\n");
            text.replace("lease_ttl_s =", &format!("{settings}\nlease_ttl_s ="))
        })
        .unwrap();
    for server in e2e::SERVERS {
        deployment.start(server).unwrap();
    }
    for (server, home) in [("east1", "east"), ("west1", "west")] {
        deployment.wait_serving(server, home, Some("full"), LIMIT).unwrap();
    }
    deployment
}

fn phone(deployment: &Deployment, user: &str, via: Via, server: &str) -> Phone {
    let phone = Phone::new(deployment, user, via, server, "127.0.0.1").unwrap();
    assert_eq!(phone.register(300).unwrap().status, 200);
    phone
}

fn subscribe(phone: &Phone, expires: u32) -> (Subscription, Answer) {
    let subscribed = phone.subscribe(phone.user(), "reg", expires).unwrap();
    subscribed.unwrap_or_else(|answer| panic!("{:?}", answer.message))
}

/// Waits for the notification with this number, counted from 0, and checks what all have in common.
fn notification(subscription: &Subscription, number: usize, limit: Duration) -> Message {
    let what = format!("notification {number}");
    let found = wait_for(&what, limit, || Ok(subscription.notifications().get(number).cloned()));
    let (notify, _) = found.unwrap();
    assert_eq!(notify.header("Event"), Some("reg"));
    assert_eq!(notify.header("Content-Type"), Some("application/reginfo+xml"));
    let text = body(&notify);
    assert!(text.contains(&format!(" version=\"{number}\" state=\"full\"")), "{text}");
    notify
}

fn body(notify: &Message) -> String {
    String::from_utf8(notify.body.clone()).unwrap()
}

/// What a document says of the contact with this URI, its `<contact>` tag.
fn contact<'a>(text: &'a str, uri: &str) -> &'a str {
    let found = text.split("<contact ").find(|part| part.contains(&format!("<uri>{uri}</uri>")));
    found.and_then(|part| part.split('>').next()).unwrap_or_else(|| panic!("no {uri} in {text}"))
}

fn counter(deployment: &Deployment, server: &str, name: &str) -> u64 {
    let json = deployment.tandem(&["pool", "status", "--output", "json"], b"").unwrap().json().unwrap();
    let asked = json.as_array().unwrap().iter().find(|asked| asked["server"] == server).unwrap();
    let counters = asked["status"]["counters"].as_array().unwrap();
    let found = counters.iter().find(|pair| pair[0] == name);
    found.unwrap_or_else(|| panic!("no {name}"))[1].as_u64().unwrap()
}

#[test]
fn a_phone_at_the_wrong_pool_is_told_the_owner_and_its_backup_by_its_own_protocol() {
    let deployment = running(Timing::DEFAULT, "second_registration = \"redirect\"");
    let rows = [(Via::Udp, 5060, "udp"), (Via::Tcp, 5060, "tcp"), (Via::Tls, 5061, "tls")];
    for (via, port, transport) in rows {
        let phone = Phone::new(&deployment, "1003", via, "west1", "127.0.0.1").unwrap();

        let answer = phone.register(300).unwrap();

        assert_eq!((answer.status, answer.challenges), (302, 1), "{:?}", answer.message);
        let expected = [
            format!("<sip:127.0.1.1:{port};transport={transport}>;q=0.7"),
            format!("<sip:127.0.2.1:{port};transport={transport}>;q=0.3"),
        ];
        assert_eq!(answer.message.values("Contact"), expected);
        println!("{transport}: 302 {}", expected.join(", "));
    }
    let wrong = Phone::new(&deployment, "1003", Via::Udp, "west1", "127.0.0.1").unwrap();
    wrong.set_password("wrong");
    assert_eq!(wrong.register(300).unwrap().status, 401, "only who proves it learns where users are");
}

#[test]
fn a_phone_that_subscribes_is_told_what_becomes_of_its_registrations() {
    let deployment = running(Timing::DEFAULT, "");
    for via in [Via::Udp, Via::Tcp] {
        let user = if via == Via::Udp { "1003" } else { "1004" };
        let desk = phone(&deployment, user, via, "east1");

        desk.forget_nonces();
        let (subscription, accepted) = subscribe(&desk, 600);
        assert_eq!((accepted.header("Expires"), accepted.challenges), (Some("600"), 1));
        let first = notification(&subscription, 0, SOON);
        assert!(first.header("Subscription-State").unwrap().starts_with("active;expires="), "{first:?}");
        let tag = contact(&body(&first), &desk.contact()).to_owned();
        assert!(tag.contains("state=\"active\" event=\"registered\" expires=\""), "{tag}");

        // The pause between two notifications: 5 s.
        let mobile = phone(&deployment, user, Via::Udp, "east1");
        let second = body(&notification(&subscription, 1, LIMIT));
        assert!(contact(&second, &mobile.contact()).contains("event=\"registered\""), "{second}");
        assert!(contact(&second, &desk.contact()).contains("state=\"active\""), "{second}");
        let told = Instant::now();
        assert_eq!(mobile.register(0).unwrap().status, 200);
        let third = body(&notification(&subscription, 2, LIMIT));
        assert!(contact(&third, &mobile.contact()).contains("event=\"unregistered\""), "{third}");
        assert!(told.elapsed() > SOON, "{:?}", told.elapsed());

        // A refresh is answered with how things stand at once; what an operator removed, after the pause.
        assert_eq!(subscription.refresh(600).unwrap().status, 200);
        let fourth = body(&notification(&subscription, 3, SOON));
        assert!(!fourth.contains(&mobile.contact()), "{fourth}");
        let aor = format!("sip:{user}@example.com");
        assert_eq!(deployment.tandem(&["registration", "remove", &aor], b"").unwrap().code, 0);
        let fifth = body(&notification(&subscription, 4, LIMIT));
        assert!(contact(&fifth, &desk.contact()).contains("event=\"deactivated\""), "{fifth}");

        assert_eq!(subscription.refresh(0).unwrap().status, 200);
        let last = notification(&subscription, 5, SOON);
        assert_eq!(last.header("Subscription-State"), Some("terminated;reason=timeout"), "{last:?}");
        assert_eq!(subscription.refresh(600).unwrap().status, 481);
        println!("{via:?}: {}", body(&last));
    }
}

#[test]
fn a_subscription_that_cannot_be_is_refused_with_the_reason() {
    let deployment = running(Timing::DEFAULT, "");
    let phone = phone(&deployment, "1003", Via::Udp, "east1");
    let refused = |to: &str, event: &str, expires: u32| {
        phone.subscribe(to, event, expires).unwrap().map(|(_, answer)| answer).unwrap_err()
    };

    let brief = refused("1003", "reg", 10);
    assert_eq!((brief.status, brief.header("Min-Expires")), (423, Some("60")));
    assert_eq!(refused("1004", "reg", 600).status, 403, "somebody else's registrations");
    let (subscription, _) = subscribe(&phone, 600);
    let bad = subscription.refresh_event("presence", 600).unwrap();
    assert_eq!((bad.status, bad.header("Allow-Events")), (489, Some("reg")), "{:?}", bad.message);
    assert_eq!(subscription.refresh_unknown(600).unwrap().status, 481);
    assert_eq!(subscription.refresh(600).unwrap().status, 200);

    let stranger =
        Phone::with_password("1003", "wrong", Via::Udp, Deployment::sip("east1"), "127.0.0.1", None).unwrap();
    let wrong = stranger.subscribe("1003", "reg", 600).unwrap().map(drop).unwrap_err();
    assert_eq!(wrong.status, 401);

    // What the server does not know itself goes to the user's phones; this one makes no dialog of it.
    assert!(phone.subscribe("1003", "dialog", 600).is_err());
    assert_eq!(phone.received("SUBSCRIBE").len(), 1);
}

#[test]
fn a_phone_with_a_second_flow_subscribes_through_the_partner() {
    let deployment = running(Timing::DEFAULT, "");
    for via in [Via::Udp, Via::Tcp] {
        let user = if via == Via::Udp { "1003" } else { "1004" };
        let phone = phone(&deployment, user, via, "west1");

        let (subscription, accepted) = subscribe(&phone, 600);
        assert!(!accepted.message.values("Record-Route").is_empty(), "{:?}", accepted.message);
        let first = body(&notification(&subscription, 0, SOON));
        assert!(contact(&first, &phone.contact()).contains("state=\"active\""), "{first}");
        assert_eq!(subscription.refresh(900).unwrap().header("Expires"), Some("900"));
        notification(&subscription, 1, SOON);
        assert_eq!(counter(&deployment, "west1", "subscriptions_accepted"), 0);
    }
    assert_eq!(counter(&deployment, "east1", "subscriptions_accepted"), 2);
}

#[test]
fn phones_that_subscribed_at_the_partner_are_sent_home_at_the_set_pace() {
    let settings = "second_registration = \"redirect\"\nsteer_phones_per_s = 8";
    let deployment = running(Timing::FAST, settings);
    deployment.kill("east1").unwrap();
    deployment.wait_serving("west1", "east", Some("resiliency"), LIMIT).unwrap();
    let users = ["1003", "1004", "1005", "1006"];
    let phones: Vec<Phone> = (0..16)
        .map(|number| {
            let via = if number % 2 == 0 { Via::Udp } else { Via::Tcp };
            let phone = Phone::new(&deployment, users[number % 4], via, "west1", "127.0.0.1").unwrap();
            let accepted = phone.register(300).unwrap();
            assert_eq!((accepted.status, accepted.mode().as_deref()), (200, Some("resiliency")));
            phone
        })
        .collect();
    let subscriptions: Vec<Subscription> = phones.iter().map(|phone| subscribe(phone, 3_600).0).collect();
    for subscription in &subscriptions {
        notification(subscription, 0, SOON);
    }

    deployment.start("east1").unwrap();
    deployment.wait_serving("east1", "east", Some("full"), LIMIT).unwrap();
    let returned = Instant::now();
    let last = |subscription: &Subscription| subscription.notifications().last().cloned().unwrap();
    let is_over = |subscription: &&Subscription| {
        last(subscription).header("Subscription-State") == Some("terminated;reason=deactivated")
    };
    let over = || subscriptions.iter().filter(is_over).count();
    wait_until("the first phone to be sent home", SOON, || Ok(over() > 0)).unwrap();
    let first = returned.elapsed();
    wait_until("all phones to be sent home", LIMIT, || Ok(over() == 16)).unwrap();
    let all = returned.elapsed();
    // Two shards send 4 a second each: 7 pauses of 250 ms when the phones are even, 15 when all are in one.
    assert!(all - first >= Duration::from_millis(1_500), "{first:?} to {all:?}");
    assert_eq!(counter(&deployment, "west1", "phones_steered"), 16);
    println!("16 phones sent home: the first {first:?}, the last {all:?} after the return");

    for (phone, subscription) in phones.iter().zip(&subscriptions) {
        let text = body(&last(subscription));
        let tag = contact(&text, &phone.contact());
        assert!(tag.contains("state=\"terminated\" event=\"deactivated\""), "{tag}");
    }
    // Told to register again, a phone asks where it is registered now, is sent on, and is at home.
    let phone = phones.first().unwrap();
    let moved = phone.register(300).unwrap();
    assert_eq!(moved.status, 302, "{:?}", moved.message);
    assert!(moved.message.values("Contact")[0].contains("127.0.1.1:5060"), "{:?}", moved.message);
    phone.use_server(Deployment::sip("east1"));
    let home = phone.register(300).unwrap();
    assert_eq!((home.status, home.mode().as_deref()), (200, Some("full")), "{:?}", home.message);
    let (again, _) = subscribe(phone, 3_600);
    notification(&again, 0, SOON);
}

#[test]
fn long_registrations_are_granted_a_little_shorter_each_user_his_own_part() {
    let deployment = running(Timing::DEFAULT, "");
    let granted = |phone: &Phone, expires: u32| -> u32 {
        let answer = phone.register(expires).unwrap();
        let contact = answer.message.values("Contact").remove(0);
        contact.split("expires=").nth(1).unwrap().parse().unwrap()
    };
    let users = ["1003", "1004", "1005", "1006", "1007", "1008"];
    let phones: Vec<Phone> = users.map(|user| phone(&deployment, user, Via::Udp, "east1")).into();

    let long: Vec<u32> = phones.iter().map(|phone| granted(phone, 3_600)).collect();

    assert!(long.iter().all(|granted| (3_240..=3_600).contains(granted)), "{long:?}");
    assert!(long.iter().any(|granted| granted.abs_diff(long[0]) > 10), "{long:?}");
    assert_eq!(granted(&phones[0], 300), 300);
    println!("3600 s asked for: {long:?}");
}

/// The disk of a server made slow: each sync of the thread that writes bindings takes this much longer, until
/// it is dropped.
struct SlowDisk(Child);

impl SlowDisk {
    fn of(deployment: &Deployment, server: &str, delay: Duration) -> Self {
        let tasks = format!("/proc/{}/task", deployment.process_id(server).unwrap());
        let named = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "hot-writer")
        };
        let writer = fs::read_dir(tasks).unwrap().map(Result::unwrap).find(named).expect("the writer");
        let calls = "fsync,fdatasync,sync_file_range";
        let tracer = Command::new("strace")
            .args(["-q", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"])
            .arg(format!("inject={calls}:delay_enter={}", delay.as_micros()))
            .args(["-p", &writer.file_name().to_string_lossy()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace");
        let status = writer.path().join("status");
        wait_until("the writer to be traced", SOON, || {
            let text = fs::read_to_string(&status)?;
            Ok(text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")))
        })
        .unwrap();
        Self(tracer)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Phones that register before the burst.
const FIRST: usize = 200;
/// Phones that register at the same moment.
const BURST: usize = 5_000;
/// Phones that try whether the storm is over: one for each socket of a burst.
const FEW: usize = 16;
/// Threads of a flood: each sends several times what a shard can answer.
const FLOODERS: usize = 2;

/// Calls that were up before the storm, and who speaks.
struct Office {
    callers: Vec<Phone>,
    _called: Vec<Phone>,
    calls: Vec<Call>,
}

impl Office {
    fn open(deployment: &Deployment) -> Self {
        let phones = |users: [&str; 3]| users.map(|user| phone(deployment, user, Via::Udp, "east1")).into();
        let (callers, called): (Vec<Phone>, Vec<Phone>) =
            (phones(["1003", "1004", "1005"]), phones(["1006", "1007", "1008"]));
        let pairs = callers.iter().zip(&called);
        let calls = pairs.map(|(caller, called)| caller.call(called.user()).unwrap().unwrap()).collect();
        Self { callers, _called: called, calls }
    }

    /// What is not new goes on: the disk makes a refresh slow, but nobody refuses it, nor anything of a call.
    fn goes_on(&self) {
        let refreshed = self.callers[0].register(300).unwrap();
        assert_eq!(refreshed.status, 200, "{:?}", refreshed.message);
        assert_eq!(self.callers[1].message("1008", "hello").unwrap().status, 200);
        for call in &self.calls {
            assert_eq!(call.bye().unwrap().status, 200);
        }
        let emergency = self.callers[2].call("112").unwrap().unwrap_err();
        assert_ne!(emergency.status, 503, "{:?}", emergency.message);
    }
}

/// Makes `count` users of east whose phones are a burst.
fn import_burst(deployment: &Deployment, count: usize) -> Vec<BurstUser> {
    let user = |number| BurstUser { user: format!("b{number:05}"), password: format!("p{number}") };
    let users: Vec<BurstUser> = (0..count).map(user).collect();
    let row = |user: &BurstUser| format!("sip:{}@example.com,{},east\n", user.user, user.password);
    let csv: String = users.iter().map(row).collect();
    assert_eq!(deployment.tandem(&["user", "import", "-"], csv.as_bytes()).unwrap().code, 0);
    users
}

/// Registers all at once; who was put off, and the seconds each was told, in order.
fn put_off(users: &[BurstUser]) -> (Vec<BurstUser>, Vec<u32>) {
    let answers = register_at_once(Deployment::sip("east1"), "127.0.0.1", users, 300, LIMIT).unwrap();
    let is_put_off = |user: &&BurstUser| match answers[&user.user].status() {
        Some(200) => false,
        Some(503) => true,
        other => panic!("{}: {other:?}", user.user),
    };
    let left: Vec<BurstUser> = users.iter().filter(is_put_off).cloned().collect();
    let told = |user: &BurstUser| answers[&user.user].header("Retry-After").unwrap().parse().unwrap();
    let mut told: Vec<u32> = left.iter().map(told).collect();
    told.sort_unstable();
    (left, told)
}

#[test]
fn five_thousand_phones_at_a_slow_disk_are_spread_and_calls_go_on() {
    let deployment = running(Timing::DEFAULT, "");
    let users = import_burst(&deployment, FIRST + BURST);
    let office = Office::open(&deployment);

    let slow = SlowDisk::of(&deployment, "east1", Duration::from_millis(600));
    // The first ones make the disk's latency known, and are served although it takes long.
    let (first, users) = users.split_at(FIRST);
    assert_eq!(put_off(first).0.len(), 0);
    let began = Instant::now();
    let (left, told) = put_off(users);
    let took = began.elapsed();
    assert!(left.len() > BURST / 2, "{} of {BURST} put off", left.len());
    assert!(told[0] >= 2 && told[told.len() - 1] <= 120, "{told:?}");
    assert!(told[told.len() * 9 / 10] >= told[told.len() / 10] + 4, "{told:?}");
    office.goes_on();
    let counter = |name| counter(&deployment, "east1", name);
    assert!(counter("registers_deferred") >= u64::try_from(left.len()).unwrap());
    assert_eq!((counter("requests_deferred"), counter("storms_begun") >= 1), (0, true));
    println!(
        "disk 600 ms a sync: of {BURST} phones at once {} told to come back after {} to {} s (median {}), \
         all answered within {took:?}; calls, messages and refreshes untouched",
        left.len(),
        told[0],
        told[told.len() - 1],
        told[told.len() / 2]
    );

    drop(slow);
    let mended = Instant::now();
    // A few at a time try until both shards let all of them in, then all others come, a tenth at a time.
    let mut few = left.chunks(FEW);
    let (tried, _) = wait_for("new phones to be let in again", LIMIT, || {
        let users = few.next().expect("enough phones");
        Ok(put_off(users).0.is_empty().then_some(few.len()))
    })
    .unwrap();
    let open = mended.elapsed();
    let rest = &left[left.len().saturating_sub(tried * FEW)..];
    assert!(rest.len() > BURST / 4, "{}", rest.len());
    for tenth in rest.chunks(rest.len().div_ceil(10)) {
        assert_eq!(put_off(tenth).0.len(), 0, "refused again");
    }
    println!("the disk mended: new phones are let in after {open:?}, {} of them at once", rest.len());
}

/// Sends REGISTERs of nobody to a server as fast as [`FLOODERS`] threads can, until it is dropped.
struct Flood {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Flood {
    fn of(server: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let flood = move || {
            let sockets: Vec<UdpSocket> = (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for socket in &sockets {
                    let request = format!(
                        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKf{sent}\r\n\
                         From: <sip:f{sent}@example.com>;tag=1\r\nTo: <sip:f{sent}@example.com>\r\n\
                         Call-ID: flood{sent}\r\nCSeq: 1 REGISTER\r\nContact: <sip:f@127.0.0.1>\r\n\
                         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
                        socket.local_addr().unwrap()
                    );
                    let _what_is_lost_is_lost = socket.send_to(request.as_bytes(), server);
                    sent += 1;
                }
            }
            sent
        };
        let threads = (0..FLOODERS).map(|_| thread::spawn(flood.clone())).collect();
        Self { is_over, threads }
    }

    /// Ends it; how many were sent.
    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

#[test]
fn a_server_that_cannot_keep_up_puts_off_new_requests_and_nothing_of_a_call() {
    let deployment = running(Timing::DEFAULT, "latency_target_ms = 25");
    let over_tcp = |user: &str| {
        let phone = Phone::new(&deployment, user, Via::Tcp, "east1", "127.0.0.1").unwrap();
        let (accepted, _) = wait_for("a registration", LIMIT, || {
            let answer = phone.register(300)?;
            Ok((answer.status == 200).then_some(answer))
        })
        .unwrap();
        (phone, accepted)
    };
    let ((caller, _), (called, _)) = (over_tcp("1003"), over_tcp("1004"));
    let call = caller.call("1004").unwrap().unwrap();
    called.wait_acknowledged().unwrap();

    let flood = Flood::of(Deployment::sip("east1"));
    let (refused, after) = wait_for("a message to be put off", LIMIT, || {
        let answer = caller.message("1004", "hello")?;
        Ok((answer.status == 503).then_some(answer))
    })
    .unwrap();
    let retry_after = refused.retry_after().unwrap();
    assert!((2..=6).contains(&retry_after), "not longer because of the flood: {retry_after}");
    // In the storm, one after the other: an emergency, a refresh, the end of the call.
    let emergency = caller.call("112").unwrap().unwrap_err();
    assert_ne!(emergency.status, 503, "{:?}", emergency.message);
    assert_eq!(caller.register(300).unwrap().status, 200);
    assert_eq!(caller.message("1004", "hello").unwrap().status, 503, "it is still a storm");
    assert_eq!(call.bye().unwrap().status, 200);
    called.wait_ended().unwrap();
    let sent = flood.end();

    let ((), calm) =
        wait_for("a message", LIMIT, || Ok((caller.message("1004", "hello")?.status == 200).then_some(())))
            .unwrap();
    assert!(counter(&deployment, "east1", "requests_deferred") >= 2);
    assert!(counter(&deployment, "east1", "datagrams_dropped") > 0);
    println!(
        "{sent} REGISTERs of nobody: after {after:?} new requests were put off for {retry_after} s; an \
         emergency, a refresh and a BYE went through; {calm:?} after the flood all was let in again"
    );
}
