//! Commands as a phone causes them, for the suite, tests and measurements.

use std::net::SocketAddr;

use model::{AddressOfRecord, Epoch, FlowId, PoolName, Protocol, ServerName, WallTime};
use registrar::{
    Command, Contact, ContactChange, FlowRecord, Octets, OperationId, Path, Registration, UserChange,
};
use sip::NameAddr;

/// User number `number`.
pub fn user(number: u64) -> AddressOfRecord {
    AddressOfRecord::new(&format!("sip:u{number:07}@example.com")).expect("the text is an address-of-record")
}

/// User `number` registers a phone with an instance, over TLS, for an hour; a refresh has a higher `cseq`.
pub fn register(home: &PoolName, number: u64, cseq: u32, now: WallTime) -> Command {
    with_expiry(home, number, cseq, now, 3_600)
}

/// User `number` removes that phone.
pub fn unregister(home: &PoolName, number: u64, cseq: u32, now: WallTime) -> Command {
    with_expiry(home, number, cseq, now, 0)
}

fn with_expiry(home: &PoolName, number: u64, cseq: u32, now: WallTime, expires_s: u32) -> Command {
    let contact = format!(
        "<sip:u{number:07}@192.0.2.4:5062;transport=tls;ob>;reg-id=1;\
         +sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{number:012x}>\""
    );
    let address = NameAddr::parse(contact.as_bytes()).expect("the text is a contact");
    let contact = Contact::new(address, true).expect("the contact is within its limits");
    let registration = Registration {
        call_id: Octets::from(format!("{number:016x}1c2d3e4f@192.0.2.4").into_bytes()),
        cseq,
        contacts: vec![ContactChange { expires_s, contact }],
        path: Path::default(),
        flow: Some(flow(number)),
        devices: registrar::DeviceLimit::refusing(8),
    };
    let operation =
        OperationId::new(u128::from(number) << 64 | u128::from(cseq) << 1 | u128::from(expires_s == 0));
    let change = UserChange::Register(registration);
    Command::of_user(home.clone(), Epoch::new(1), operation, now, user(number), change)
}

fn flow(number: u64) -> FlowRecord {
    FlowRecord {
        server: ServerName::new("east-fe1").expect("the name is a label"),
        boot: 0x5eed_0000_0000_0001,
        flow: FlowId::new(1, number),
        protocol: Protocol::Tls,
        remote: SocketAddr::from(([192, 0, 2, 4], 5_062)),
        local: SocketAddr::from(([198, 51, 100, 1], 5_061)),
    }
}
