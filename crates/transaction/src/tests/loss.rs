//! A client and a server with their TUs over a network that loses, repeats, delays and reorders, in virtual
//! time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use model::Chance;

use super::*;

/// What the network does.
#[derive(Clone, Copy, Debug)]
struct Weather {
    lost_percent: u64,
    repeated_percent: u64,
    delay_max_ms: u64,
}

/// What the UAC's TU has heard of one request.
#[derive(Debug, Default)]
struct Heard {
    finals: Vec<u16>,
    ended: usize,
}

/// What is going to happen, in order of time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    ToServer(Bytes),
    ToClient(Bytes),
    /// The UAS's TU answers request `number`.
    Answer {
        number: usize,
        status: u16,
    },
    /// The UAS core repeats its 2xx to INVITE `number`.
    Repeat {
        number: usize,
        interval_ms: u64,
    },
}

struct World {
    chance: Chance,
    weather: Weather,
    now: Instant,
    client: Transactions,
    server: Transactions,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    serial: u64,
    methods: Vec<&'static str>,
    heard: Vec<Heard>,
    /// Per request, the transaction at the server and what its TU answered.
    opened: BTreeMap<usize, ServerTransaction>,
    answered: BTreeMap<usize, u16>,
    acknowledged: BTreeMap<usize, usize>,
    opened_count: usize,
    finished_count: usize,
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let settings = Settings { proceeding_max: Duration::from_secs(200), seed, ..Settings::default() };
        Self {
            chance: Chance::seeded(seed),
            weather,
            now: Instant::START,
            client: Transactions::new(settings.clone()),
            server: Transactions::new(settings),
            events: BinaryHeap::new(),
            serial: 0,
            methods: Vec::new(),
            heard: Vec::new(),
            opened: BTreeMap::new(),
            answered: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            opened_count: 0,
            finished_count: 0,
        }
    }

    fn at(&mut self, milliseconds: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((self.now + Duration::from_millis(milliseconds), self.serial, event)));
    }

    fn send(&mut self, event: impl Fn() -> Event) {
        let copies = if self.chance.below(100) < self.weather.repeated_percent { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance.below(100) >= self.weather.lost_percent {
                let delay = 1 + self.chance.below(self.weather.delay_max_ms);
                self.at(delay, event());
            }
        }
    }

    fn start(&mut self, method: &'static str) {
        let number = self.methods.len();
        self.methods.push(method);
        self.heard.push(Heard::default());
        let request = message(&request(method, &number.to_string()));
        self.client.request(self.now, request, udp(), number as u64).unwrap();
        self.settle();
    }

    /// Runs until nothing is left to happen.
    fn run(&mut self) {
        loop {
            let event_at = self.events.peek().map(|Reverse((at, ..))| *at);
            let next = [event_at, self.client.poll_timeout(), self.server.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next else { return };
            self.now = self.now.max(next);
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            self.settle();
            while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
                let Some(Reverse((_, _, event))) = self.events.pop() else { return };
                self.happen(event);
                self.settle();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToServer(bytes) => {
                let message = Arc::new(OwnedMessage::parse(bytes, Framing::Datagram).unwrap());
                self.server.receive(self.now, message, udp()).unwrap();
            }
            Event::ToClient(bytes) => {
                let message = Arc::new(OwnedMessage::parse(bytes, Framing::Datagram).unwrap());
                self.client.receive(self.now, message, udp()).unwrap();
            }
            Event::Answer { number, status } => {
                self.answer(number, status);
                if status == 200 && self.methods[number] == "INVITE" {
                    self.at(500, Event::Repeat { number, interval_ms: 500 });
                }
            }
            Event::Repeat { number, interval_ms } => {
                let is_ended = !self.answer(number, 200);
                if !is_ended && !self.acknowledged.contains_key(&number) {
                    let interval_ms = (interval_ms * 2).min(4_000);
                    self.at(interval_ms, Event::Repeat { number, interval_ms });
                }
            }
        }
    }

    fn answer(&mut self, number: usize, status: u16) -> bool {
        let bytes = message(&response(status, self.methods[number], &number.to_string())).bytes().clone();
        let is_sent = self.server.respond(self.now, self.opened[&number], status, bytes).is_ok();
        if is_sent && status >= 200 {
            self.answered.insert(number, status);
        }
        is_sent
    }

    fn settle(&mut self) {
        while let Some(output) = self.client.poll_output() {
            self.client_output(output);
        }
        while let Some(output) = self.server.poll_output() {
            self.server_output(output);
        }
    }

    fn client_output(&mut self, output: Output) {
        match output {
            Output::Transmit { bytes, client: Some(_), .. } => self.send(|| Event::ToServer(bytes.clone())),
            Output::Response { tag, response, .. } => {
                let number = usize::try_from(tag).unwrap();
                let status = response.view().status();
                if status >= 200 {
                    self.heard[number].finals.push(status);
                }
                if status == 200 && self.methods[number] == "INVITE" {
                    let ack = request("ACK", &format!("ack-{number}"));
                    let ack = ack.replace("call-1@", &format!("call-{number}@"));
                    let bytes = message(&ack).bytes().clone();
                    self.send(|| Event::ToServer(bytes.clone()));
                }
            }
            Output::ClientTimeout { tag, .. } | Output::ClientFailed { tag, .. } => {
                self.heard[usize::try_from(tag).unwrap()].ended += 1;
            }
            Output::Transmit { client: None, .. }
            | Output::Request { .. }
            | Output::Cancel { .. }
            | Output::Ack { .. }
            | Output::ServerFinished { .. } => panic!("not of a client: {output:?}"),
        }
    }

    fn server_output(&mut self, output: Output) {
        match output {
            Output::Transmit { bytes, client: None, .. } => self.send(|| Event::ToClient(bytes.clone())),
            Output::Request { server, request, .. } => {
                let branch = request.view().top_via().unwrap().branch().unwrap();
                let number: usize = std::str::from_utf8(&branch[7..]).unwrap().parse().unwrap();
                self.opened_count += 1;
                assert_eq!(self.opened.insert(number, server), None, "request {number} came twice");
                let is_invite = self.methods[number] == "INVITE";
                let status = [200, 486, 603][usize::try_from(self.chance.below(3)).unwrap()];
                let ringing = self.chance.below(3);
                if is_invite && ringing > 0 {
                    self.at(ringing * 100, Event::Answer { number, status: 180 });
                }
                let delay = 400 + self.chance.below(if is_invite { 20_000 } else { 6_000 });
                self.at(delay, Event::Answer { number, status });
            }
            Output::Ack { request, .. } => {
                let call_id = request.view().call_id().unwrap();
                let digits = call_id.iter().filter(|octet| octet.is_ascii_digit()).copied().collect();
                let number: usize = String::from_utf8(digits).unwrap().parse().unwrap();
                *self.acknowledged.entry(number).or_default() += 1;
            }
            Output::ServerFinished { .. } => self.finished_count += 1,
            Output::Transmit { client: Some(_), .. }
            | Output::Cancel { .. }
            | Output::Response { .. }
            | Output::ClientTimeout { .. }
            | Output::ClientFailed { .. } => panic!("not of a server: {output:?}"),
        }
    }

    /// Every request had exactly one final outcome, and nothing is left.
    fn check(&self) {
        for (number, heard) in self.heard.iter().enumerate() {
            let method = self.methods[number];
            let is_accepted_invite = method == "INVITE" && heard.finals.first() == Some(&200);
            if is_accepted_invite {
                assert_eq!(heard.ended, 0, "{number} {method} {heard:?}");
                assert!(heard.finals.iter().all(|&status| status == 200), "{number} {heard:?}");
            } else {
                assert_eq!(heard.finals.len() + heard.ended, 1, "{number} {method} {heard:?}");
            }
            if let Some(status) = heard.finals.first() {
                assert_eq!(self.answered.get(&number), Some(status), "{number} {method}");
            }
        }
        assert_eq!((self.client.client_count(), self.server.server_count()), (0, 0));
        assert_eq!((self.client.server_count(), self.server.client_count()), (0, 0));
        assert_eq!(self.opened_count, self.finished_count);
    }
}

fn run(seed: u64, weather: Weather) -> World {
    let mut world = World::new(seed, weather);
    for method in ["INVITE", "REGISTER", "BYE", "INVITE", "OPTIONS", "INVITE", "MESSAGE", "INVITE"] {
        world.start(method);
    }
    world.run();
    world.check();
    world
}

#[test]
fn without_loss_every_request_has_the_answer_that_was_given() {
    let world = run(1, Weather { lost_percent: 0, repeated_percent: 0, delay_max_ms: 50 });
    assert!(world.heard.iter().all(|heard| heard.ended == 0));
    assert_eq!(world.client.counters().stray_responses, 0);
}

#[test]
fn with_a_dead_network_every_request_times_out() {
    let world = run(1, Weather { lost_percent: 100, repeated_percent: 0, delay_max_ms: 50 });
    assert!(world.heard.iter().all(|heard| heard.ended == 1));
}

#[test]
fn with_loss_repetition_and_disorder_every_request_has_exactly_one_final_outcome() {
    let mut answered = 0;
    for seed in 0..300 {
        let weather = Weather {
            lost_percent: seed % 7 * 12,
            repeated_percent: seed % 5 * 15,
            delay_max_ms: [5, 300, 1_200][usize::try_from(seed % 3).unwrap()],
        };
        let world = run(seed, weather);
        answered += world.heard.iter().filter(|heard| heard.ended == 0).count();
    }
    assert!(answered > 1_500, "only {answered} of 2400 were answered");
}

#[test]
fn with_a_tenth_lost_nearly_every_request_is_answered() {
    let mut unanswered = 0;
    for seed in 1_000..1_100 {
        let world = run(seed, Weather { lost_percent: 10, repeated_percent: 10, delay_max_ms: 200 });
        unanswered += world.heard.iter().filter(|heard| heard.ended > 0).count();
    }
    assert!(unanswered <= 4, "{unanswered} of 800 were not answered");
}
