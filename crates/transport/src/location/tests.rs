//! The search on zones that answer at once.

use std::{
    collections::HashMap,
    future::{Future, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::*;

/// A zone whose answers are there at once.
#[derive(Default)]
struct Zone {
    naptr: HashMap<&'static str, Vec<Naptr>>,
    srv: HashMap<&'static str, Vec<Srv>>,
    addresses: HashMap<&'static str, Vec<&'static str>>,
    broken: Option<&'static str>,
}

const TTL: Duration = Duration::from_secs(300);

impl Zone {
    fn answer<T: Clone>(&self, found: Option<&Vec<T>>, name: &str) -> Result<Answer<T>, DnsError> {
        if self.broken == Some(name) {
            return Err(DnsError::TimedOut);
        }
        Ok(Answer { records: found.cloned().unwrap_or_default(), lifetime: TTL })
    }
}

impl Dns for Zone {
    fn naptr(&self, name: &str) -> impl Future<Output = Result<Answer<Naptr>, DnsError>> + Send {
        ready(self.answer(self.naptr.get(name), name))
    }

    fn srv(&self, name: &str) -> impl Future<Output = Result<Answer<Srv>, DnsError>> + Send {
        ready(self.answer(self.srv.get(name), name))
    }

    fn addresses(&self, name: &str) -> impl Future<Output = Result<Answer<IpAddr>, DnsError>> + Send {
        let found =
            self.addresses.get(name).map(|list| list.iter().map(|text| text.parse().unwrap()).collect());
        ready(self.answer(found.as_ref(), name))
    }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn sought(uri: &str) -> Sought {
    let (is_sips, rest) = match uri.strip_prefix("sips:") {
        Some(rest) => (true, rest),
        None => (false, uri.strip_prefix("sip:").unwrap()),
    };
    let (address, transport) = rest.split_once(";transport=").map_or((rest, None), |(a, t)| (a, Some(t)));
    let (host, port) =
        address.split_once(':').map_or((address, None), |(h, p)| (h, Some(p.parse().unwrap())));
    let protocol = transport.map(|name| Protocol::ALL.into_iter().find(|p| p.name() == name).unwrap());
    Sought { host: host.into(), port, protocol, is_sips }
}

/// The places of a URI as `protocol address`, in one order.
fn places(zone: &Zone, uri: &str) -> Vec<String> {
    match now(locate(zone, &sought(uri))) {
        Ok(located) => {
            let places = located.in_order(&mut Chance::seeded(1));
            places.iter().map(|place| format!("{} {}", place.protocol, place.remote)).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight, port, target: target.to_owned() }
}

fn naptr(order: u16, preference: u16, flags: &str, services: &str, replacement: &str) -> Naptr {
    let text = str::to_owned;
    Naptr { order, preference, flags: text(flags), services: text(services), replacement: text(replacement) }
}

/// The example of RFC 3263 section 4.1, with addresses.
fn example() -> Zone {
    let records = vec![
        naptr(100, 50, "s", "SIP+D2U", "_sip._udp.example.com"),
        naptr(50, 50, "s", "SIPS+D2T", "_sips._tcp.example.com"),
        naptr(90, 50, "s", "SIP+D2T", "_sip._tcp.example.com"),
        naptr(10, 50, "u", "E2U+sip", "nowhere.example.com"),
        naptr(20, 50, "s", "SIP+D2S", "_sip._sctp.example.com"),
    ];
    Zone {
        naptr: [("example.com", records)].into(),
        srv: [
            ("_sip._udp.example.com", vec![srv(0, 1, 5060, "a.example.com")]),
            (
                "_sip._tcp.example.com",
                vec![srv(1, 2, 5060, "b.example.com"), srv(0, 1, 5070, "a.example.com")],
            ),
            ("_sips._tcp.example.com", vec![srv(0, 1, 5061, "a.example.com")]),
        ]
        .into(),
        addresses: [
            ("a.example.com", vec!["2001:db8::1", "192.0.2.1"]),
            ("b.example.com", vec!["192.0.2.2"]),
            ("example.com", vec!["192.0.2.9"]),
        ]
        .into(),
        broken: None,
    }
}

#[test]
fn the_zone_chooses_the_transport_where_the_uri_does_not() {
    let zone = example();

    assert_eq!(
        places(&zone, "sip:example.com"),
        [
            "tls [2001:db8::1]:5061",
            "tls 192.0.2.1:5061",
            "tcp [2001:db8::1]:5070",
            "tcp 192.0.2.1:5070",
            "tcp 192.0.2.2:5060",
            "udp [2001:db8::1]:5060",
            "udp 192.0.2.1:5060",
        ]
    );
    assert_eq!(places(&zone, "sips:example.com"), ["tls [2001:db8::1]:5061", "tls 192.0.2.1:5061"]);
}

#[test]
fn a_transport_in_the_uri_is_kept_and_a_port_needs_addresses_only() {
    let zone = example();

    assert_eq!(places(&zone, "sip:example.com;transport=udp").first().unwrap(), "udp [2001:db8::1]:5060");
    assert_eq!(places(&zone, "sip:example.com;transport=tcp").last().unwrap(), "tcp 192.0.2.2:5060");
    assert_eq!(places(&zone, "sip:example.com:5080"), ["udp 192.0.2.9:5080"]);
    assert_eq!(places(&zone, "sip:example.com:5080;transport=tcp"), ["tcp 192.0.2.9:5080"]);
    assert_eq!(places(&zone, "sips:example.com:5080"), ["tls 192.0.2.9:5080"]);
    // The transport of a sips URI is below TLS (RFC 3261 section 26.2.2).
    assert_eq!(places(&zone, "sips:example.com;transport=tcp").first().unwrap(), "tls [2001:db8::1]:5061");
}

#[test]
fn without_naptr_services_are_asked_for_and_without_those_the_host_itself() {
    let mut zone = example();
    zone.naptr.clear();
    assert_eq!(places(&zone, "sip:example.com").first().unwrap(), "udp [2001:db8::1]:5060");
    assert_eq!(places(&zone, "sip:example.com").len(), 7);

    zone.srv.clear();
    assert_eq!(places(&zone, "sip:example.com"), ["udp 192.0.2.9:5060"]);
    assert_eq!(places(&zone, "sips:example.com"), ["tls 192.0.2.9:5061"]);
    assert_eq!(places(&zone, "sip:example.com;transport=tcp"), ["tcp 192.0.2.9:5060"]);
}

#[test]
fn a_host_without_servers_is_told_apart_from_a_silent_name_server() {
    let mut zone = example();
    zone.srv.insert("_sip._udp.none.example.com", vec![srv(0, 0, 0, "")]);
    zone.broken = Some("b.example.com");

    assert_eq!(places(&zone, "sip:none.example.com"), ["none.example.com has no address of a SIP server"]);
    assert_eq!(places(&zone, "sip:example.com;transport=tcp"), ["example.com could not be looked up"]);
    let nothing = now(locate(&zone, &sought("sip:none.example.com")));
    assert!(matches!(nothing, Err(LocateError::Nothing { lifetime, .. }) if lifetime <= TTL), "{nothing:?}");
}

#[test]
fn addresses_that_no_server_has_and_websockets_are_passed_over() {
    let mut zone = example();
    zone.addresses.insert("odd.example.com", vec!["0.0.0.0", "224.0.0.1", "::", "ff02::1", "192.0.2.3"]);

    assert_eq!(places(&zone, "sip:odd.example.com:5060"), ["udp 192.0.2.3:5060"]);
    assert_eq!(places(&zone, "sip:odd.example.com;transport=ws").len(), 1);
    assert!(places(&zone, "sip:odd.example.com;transport=ws").first().unwrap().contains("no address"));
}

#[test]
fn servers_beyond_the_bound_are_left_out() {
    let mut zone = Zone::default();
    zone.srv
        .insert("_sip._udp.big.example.com", (0..500).map(|n| srv(n, 0, 5060, "a.example.com")).collect());
    zone.addresses.insert("a.example.com", vec!["192.0.2.1"; 100]);

    let located = now(locate(&zone, &sought("sip:big.example.com;transport=udp"))).unwrap();

    assert_eq!(located.servers.len(), limits::LOCATED_SERVERS_MAX);
    assert_eq!(located.in_order(&mut Chance::seeded(1)).len(), limits::LOCATED_PLACES_MAX);
    assert_eq!(located.lifetime, TTL);
}

mod order {
    use proptest::prelude::*;

    use super::*;

    fn located(servers: &[(u16, u16)]) -> Located {
        let servers = servers.iter().zip(1_u16..).map(|(&(priority, weight), port)| Server {
            rank: (0, priority),
            weight,
            protocol: Protocol::Udp,
            addresses: vec![SocketAddr::new(IpAddr::from([192, 0, 2, 1]), port)],
        });
        Located { servers: servers.collect(), lifetime: TTL }
    }

    proptest! {
        #[test]
        fn every_server_is_tried_once_and_lower_priorities_first(
            servers in prop::collection::vec((0_u16..4, 0_u16..1_000), 1..12),
            seed: u64,
        ) {
            let order = located(&servers).in_order(&mut Chance::seeded(seed));

            let at: Vec<usize> = order.iter().map(|place| usize::from(place.remote.port()) - 1).collect();
            let mut all = at.clone();
            all.sort_unstable();
            prop_assert_eq!(all, (0..servers.len()).collect::<Vec<_>>());
            prop_assert!(at.is_sorted_by_key(|&server| servers[server].0));
        }

        #[test]
        fn the_first_is_drawn_by_its_share_of_the_weight(
            weights in prop::collection::vec(0_u16..100, 2..6),
            seed: u64,
        ) {
            const DRAWS: u32 = 4_000;
            let located = located(&weights.iter().map(|&weight| (7, weight)).collect::<Vec<_>>());
            let mut chance = Chance::seeded(seed);
            let mut first = vec![0_u32; weights.len()];
            for _ in 0..DRAWS {
                let order = located.in_order(&mut chance);
                first[usize::from(order[0].remote.port()) - 1] += 1;
            }

            let scaled = |weight: u16| (f64::from(weight) * 100.0).max(1.0);
            let sum: f64 = weights.iter().copied().map(scaled).sum();
            for (&weight, &count) in weights.iter().zip(&first) {
                let share = scaled(weight) / sum;
                let expected = share * f64::from(DRAWS);
                // Six standard deviations: one in a thousand million draws is beyond.
                let bound = 6.0 * (f64::from(DRAWS) * share * (1.0 - share)).sqrt() + 1.0;
                prop_assert!((f64::from(count) - expected).abs() <= bound, "{weights:?} {first:?}");
            }
        }
    }
}
