//! What registration takes from the heap: nothing to authenticate, little to keep.

use std::time::Duration;

use model::{AddressOfRecord, Chance, Epoch, FlowId, PoolName, Protocol, ServerName, Source, WallTime};
use registrar::{
    Command, FlowRecord, GroupState, OperationId, RegisterSettings,
    authentication::{
        AccountView, Accounts, Algorithms, AuthenticationSettings, Authenticator, Challenger, NonceKey,
        Rejection,
    },
    read_register,
};
use sip::{
    Framing, Index,
    digest::{Algorithm, Credentials, Ha1, expected_response},
};

const NOW: WallTime = WallTime::from_secs(1_700_000_000);

/// The reference REGISTER of `reference/rust-crates.md` section 6 with these credentials.
fn register(credentials: &str) -> String {
    let authorization =
        if credentials.is_empty() { String::new() } else { format!("Authorization: {credentials}\r\n") };
    format!(
        "REGISTER sip:registrar.example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.17:5060;branch=z9hG4bK-524287-1---d8754z8b1f0c;rport\r\n\
         Max-Forwards: 70\r\n\
         Contact: <sip:1000247@192.0.2.17:5060;transport=udp;ob>;\
         +sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\";reg-id=1;expires=600\r\n\
         To: \"Alice Example\" <sip:1000247@example.com>\r\n\
         From: \"Alice Example\" <sip:1000247@example.com>;tag=6f3a1c4e\r\n\
         Call-ID: 9b2f7c11-45d0-4c7e-8a31-6f0e5d21c9aa@192.0.2.17\r\n\
         CSeq: 1482 REGISTER\r\n\
         Expires: 600\r\n\
         Supported: path, outbound, gruu\r\n\
         User-Agent: ExamplePhone/4.2.1\r\n\
         {authorization}Content-Length: 0\r\n\r\n"
    )
}

struct One(AccountView);

impl Accounts for One {
    fn account(&self, username: &[u8], realm: &str) -> Option<AccountView> {
        (username == b"1000247" && realm == "example.com").then(|| self.0.clone())
    }
}

fn ha1(algorithm: Algorithm) -> Ha1 {
    Ha1::new(algorithm, b"1000247", b"example.com", b"secret")
}

fn answer(nonce: &str, algorithm: Algorithm, count: u32) -> String {
    let blank = format!(
        "Digest username=\"1000247\",realm=\"example.com\",nonce=\"{nonce}\",\
         uri=\"sip:registrar.example.com\",\
         response=\"\",cnonce=\"0a4f113b\",nc={count:08x},qop=auth,algorithm={algorithm}"
    );
    let credentials = Credentials::parse(blank.as_bytes()).expect("well-formed credentials");
    let response = expected_response(&ha1(algorithm), &credentials, b"REGISTER");
    blank.replace("response=\"\"", &format!("response=\"{}\"", String::from_utf8_lossy(response.as_bytes())))
}

#[test]
fn authenticating_a_register_allocates_nothing() {
    let settings = AuthenticationSettings {
        algorithms: Algorithms::SHA256_MD5,
        nonce_lifetime: Duration::from_secs(300),
    };
    let mut authenticator = Authenticator::new(settings, &NonceKey::new([1; 32]), None, Chance::seeded(1));
    let accounts = One(AccountView {
        aor: AddressOfRecord::new("sip:1000247@example.com").unwrap(),
        ha1_md5: ha1(Algorithm::Md5).as_bytes().try_into().unwrap(),
        ha1_sha256: ha1(Algorithm::Sha256).as_bytes().try_into().unwrap(),
        algorithms: None,
    });
    let source = Source::of("192.0.2.17".parse().unwrap());
    let mut index = Index::new();
    let mut check = |text: &str| {
        index.parse(text.as_bytes(), Framing::Datagram).unwrap();
        let message = index.view(text.as_bytes());
        let mut result = None;
        let used = allocation_counter::measure(|| {
            let claimed = &accounts.0.aor;
            result =
                Some(authenticator.check_user(NOW, message, Challenger::Server, claimed, &source, &accounts));
        });
        (result.unwrap(), used.count_total)
    };
    let (Err(Rejection::Challenge(challenged)), _) = check(&register("")) else { panic!("no challenge") };
    let value = String::from_utf8_lossy(&challenged.values[0]).into_owned();
    let nonce = value.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    check(&register(&answer(nonce, Algorithm::Md5, 1))).0.unwrap();

    for (algorithm, count) in [(Algorithm::Md5, 2), (Algorithm::Sha256, 3)] {
        let (result, allocations) = check(&register(&answer(nonce, algorithm, count)));

        assert!(result.is_ok());
        assert_eq!(allocations, 0, "{algorithm}");
    }
}

#[test]
fn a_group_keeps_the_reference_contact_in_less_than_700_octets() {
    let users = 20_000_u32;
    let east = PoolName::new("east").unwrap();
    let flow = FlowRecord {
        server: ServerName::new("east1").unwrap(),
        boot: 7,
        flow: FlowId::new(0, 1),
        protocol: Protocol::Udp,
        remote: "192.0.2.17:5060".parse().unwrap(),
        local: "192.0.2.1:5060".parse().unwrap(),
    };
    let text = register("");
    let mut index = Index::new();
    index.parse(text.as_bytes(), Framing::Datagram).unwrap();
    let message = index.view(text.as_bytes());
    let mut state = GroupState::new();

    let used = allocation_counter::measure(|| {
        for number in 0..users {
            let read =
                read_register(message, &RegisterSettings::default(), |_| true, Some(flow.clone())).unwrap();
            let aor = AddressOfRecord::new(&format!("sip:u{number:07}@example.com")).unwrap();
            let operation = OperationId::new(u128::from(number));
            let change = read.change.unwrap();
            state.apply(&Command::of_user(east.clone(), Epoch::ZERO, operation, NOW, aor, change));
        }
    });

    let each = used.bytes_current / i64::from(users);
    println!("{each} octets per contact, remembered operations included");
    assert_eq!(state.len(), usize::try_from(users).unwrap());
    assert!((200..700).contains(&each), "{each}");
}
