//! Next hops given by name (RFC 3263): dnsmasq answers, the servers of a host are played by the test.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation ends the test, in its helpers too"
)]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use e2e::{Deployment, Message, NameServer, Operator, Phone, Timing, Via, wait_until};

const PATIENCE: Duration = Duration::from_secs(8);
const DNS: &str = "127.0.4.53";

/// A server of a host: answers every request with the same status, and tells what came.
struct Target {
    address: SocketAddr,
    told: Receiver<Message>,
}

impl Target {
    fn udp(status: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.7.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Some((request, _)) = Message::read(&buffer[..length]) else { continue };
                socket.send_to(&answer(&request, status), from).unwrap();
                if tell.send(request).is_err() {
                    return;
                }
            }
        });
        Self { address, told }
    }

    fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.7.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut held, mut buffer) = (Vec::new(), [0; 65_536]);
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                held.extend_from_slice(&buffer[..length]);
                while let Some((request, length)) = Message::read(&held) {
                    held.drain(..length);
                    stream.write_all(&answer(&request, "200 OK")).unwrap();
                    let _ = tell.send(request);
                }
            }
        });
        Self { address, told }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many requests came since the last look.
    fn count(&self) -> usize {
        self.told.try_iter().count()
    }
}

fn answer(request: &Message, status: &str) -> Vec<u8> {
    let mut response = Message::new(format!("SIP/2.0 {status}"));
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for value in request.lines(name) {
            response = response.with(name, value);
        }
    }
    response.write()
}

/// A port at which nobody is.
fn dead_port() -> u16 {
    UdpSocket::bind("127.0.7.1:0").unwrap().local_addr().unwrap().port()
}

/// A caller whose Contact is a host, and who he calls: all that this one sends goes to the host.
struct Pair {
    caller: Phone,
    callee: Phone,
}

impl Pair {
    fn new(deployment: &Deployment) -> Self {
        let phone = |user| Phone::new(deployment, user, Via::Udp, "east1", "127.0.0.1").unwrap();
        let pair = Self { caller: phone("1003"), callee: phone("1004") };
        for phone in [&pair.caller, &pair.callee] {
            assert_eq!(phone.register(300).unwrap().status, 200);
        }
        pair
    }

    /// The statuses of so many requests to a host, inside one call.
    fn ask(&self, host: &str, count: usize) -> Vec<u16> {
        self.caller.set_contact_at(host);
        let call = self.caller.call("1004").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
        self.callee.wait_acknowledged().unwrap();
        let statuses = (0..count).map(|_| self.callee.info("hello").unwrap().status).collect();
        assert_eq!(call.bye().unwrap().status, 200);
        self.callee.wait_ended().unwrap();
        statuses
    }
}

fn running() -> Deployment {
    let deployment = Deployment::new(Timing::DEFAULT).unwrap();
    let setting = format!("[pool.settings]\ndns_servers = [\"{DNS}\"]\ndns_timeout_ms = 1000\n");
    deployment.edit_topology(|text| text.replacen("[pool.settings]\n", &setting, 1)).unwrap();
    for server in e2e::SERVERS {
        deployment.start(server).unwrap();
    }
    deployment.wait_serving("east1", "east", Some("full"), Duration::from_secs(30)).unwrap();
    deployment
}

fn serve(deployment: &Deployment, ttl_s: u32, records: &[String]) -> NameServer {
    let address: IpAddr = DNS.parse().unwrap();
    let mut all = vec!["host-record=a.test,127.0.7.1".to_owned()];
    all.extend_from_slice(records);
    NameServer::start(deployment.scratch(), address, ttl_s, &all).unwrap()
}

fn srv(service: &str, port: u16, priority: u16, weight: u16) -> String {
    format!("srv-host={service}.test,a.test,{port},{priority},{weight}")
}

fn counted(deployment: &Deployment, name: &str) -> u64 {
    let mut operator = Operator::new(deployment, "east1", PATIENCE);
    let status = operator.ask("GET", "/v1/status", None).unwrap().json().unwrap();
    let counters = status["counters"].as_array().unwrap();
    counters.iter().find(|counter| counter[0] == name).unwrap()[1].as_u64().unwrap()
}

#[test]
fn the_zone_says_which_server_takes_a_request_and_the_next_one_when_it_is_dead() {
    let deployment = running();
    let (one, other, third) = (Target::udp("200 OK"), Target::udp("200 OK"), Target::udp("200 OK"));
    let (full, tcp) = (Target::udp("503 Service Unavailable"), Target::tcp());
    let records = [
        srv("_sip._udp.shared", one.port(), 1, 50),
        srv("_sip._udp.shared", other.port(), 1, 50),
        srv("_sip._udp.shared", third.port(), 2, 50),
        srv("_sip._udp.dead", dead_port(), 1, 0),
        srv("_sip._udp.dead", one.port(), 2, 0),
        srv("_sip._tcp.deaf", dead_port(), 1, 0),
        srv("_sip._tcp.deaf", tcp.port(), 2, 0),
        srv("_sip._udp.full", full.port(), 1, 0),
        srv("_sip._udp.full", one.port(), 2, 0),
        srv("_sip._udp.acked", third.port(), 1, 0),
        "naptr-record=chosen.test,10,50,s,SIP+D2U,,_sip._udp.shared.test".to_owned(),
        "naptr-record=deaf.test,10,50,s,SIP+D2T,,_sip._tcp.deaf.test".to_owned(),
    ];
    let dns = serve(&deployment, 300, &records);
    let pair = Pair::new(&deployment);

    // Two of one priority share; the third is for when both are gone.
    assert_eq!(pair.ask("shared.test", 40), [200; 40]);
    let shares = [one.count(), other.count(), third.count()];
    assert!(shares[0] > 0 && shares[1] > 0 && shares[2] == 0, "{shares:?}");
    assert_eq!(shares[0] + shares[1], 40);
    let questions =
        dns.log().unwrap().lines().filter(|line| line.contains("query[SRV] _sip._udp.shared")).count();
    assert_eq!(questions, 1, "an answer is kept for its time to live");
    assert_eq!(pair.ask("chosen.test", 2), [200; 2]);
    assert_eq!(one.count() + other.count(), 2);

    // Nobody at the first port: the next one, and afterwards that one at once.
    let before = counted(&deployment, "requests_at_next_address");
    assert_eq!(pair.ask("dead.test", 3), [200; 3]);
    assert_eq!(one.count(), 3);
    assert_eq!(counted(&deployment, "requests_at_next_address"), before + 1);

    // The same over TCP; the Via says so.
    assert_eq!(pair.ask("deaf.test", 2), [200; 2]);
    let request = tcp.told.recv_timeout(PATIENCE).unwrap();
    assert!(request.values("Via")[0].starts_with("SIP/2.0/TCP 127.0.1.1:5060;branch=z9hG4bK"), "{request:?}");

    // One that is full sends the request on to the next, as another transaction.
    assert_eq!(pair.ask("full.test", 1), [200]);
    let branch = |target: &Target| target.told.recv_timeout(PATIENCE).unwrap().values("Via").remove(0);
    assert_ne!(branch(&full), branch(&one));

    // A port needs no SRV, and a host that does not exist is told from one that nobody knows of.
    assert_eq!(pair.ask(&format!("a.test:{}", other.port()), 1), [200]);
    assert_eq!(other.count(), 1);
    assert_eq!(pair.ask("nowhere.test", 1), [404]);
    // The ACK is the first that goes to a host which only the 200 names; it waits as well.
    let named = Phone::new(&deployment, "1005", Via::Udp, "east1", "127.0.0.1").unwrap();
    assert_eq!(named.register(300).unwrap().status, 200);
    named.set_contact_at("acked.test");
    let call = pair.caller.call("1005").unwrap().unwrap_or_else(|answer| panic!("{:?}", answer.message));
    assert_eq!(third.told.recv_timeout(PATIENCE).unwrap().method(), Some("ACK"));
    assert_eq!(call.bye().unwrap().status, 200);
    assert_eq!(third.told.recv_timeout(PATIENCE).unwrap().method(), Some("BYE"));
    drop(dns);
    assert_eq!(pair.ask("later.test", 1), [504]);
    assert_eq!(pair.ask("shared.test", 2), [200; 2], "what is known stays known");
}

#[test]
fn a_host_that_moves_is_found_once_the_time_to_live_is_over() {
    let deployment = running();
    let (old, new) = (Target::udp("200 OK"), Target::udp("200 OK"));
    let dns = serve(&deployment, 2, &[srv("_sip._udp.moving", old.port(), 1, 1)]);
    let pair = Pair::new(&deployment);
    assert_eq!(pair.ask("moving.test", 1), [200]);
    assert_eq!(old.count(), 1);

    drop(dns);
    let _dns = serve(&deployment, 2, &[srv("_sip._udp.moving", new.port(), 1, 1)]);
    wait_until("the new server to be found", PATIENCE, || {
        assert_eq!(pair.ask("moving.test", 1), [200]);
        Ok(new.count() == 1)
    })
    .unwrap();
}

#[test]
fn nobody_sends_requests_to_foreign_hosts_through_us() {
    let deployment = running();
    let target = Target::udp("200 OK");
    let dns = serve(&deployment, 300, &[srv("_sip._udp.foreign", target.port(), 1, 1)]);
    let pair = Pair::new(&deployment);

    let foreign = pair.caller.message_to_uri("sip:somebody@foreign.test", "hello", &[]).unwrap();
    assert_eq!(foreign.status, 404);
    let routed = [("Route", "<sip:127.0.1.1:5060;lr>"), ("Route", "<sip:foreign.test;lr>")];
    let routed = pair.caller.message_to_uri("sip:1004@example.com", "hello", &routed).unwrap();
    assert_eq!(routed.status, 403);

    assert_eq!(target.count(), 0);
    assert!(!dns.log().unwrap().contains("foreign"), "{}", dns.log().unwrap());
}
