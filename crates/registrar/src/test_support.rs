//! Requests and commands for tests.

use bytes::Bytes;
use model::{AddressOfRecord, Epoch, FlowId, PoolName, Protocol, ServerName, WallTime};
use sip::{Framing, OwnedMessage};

use crate::{
    Command, FlowRecord, OperationId, RegisterError, RegisterRequest, RegisterSettings, UserChange,
    read_register,
};

/// Alice's reference REGISTER of `reference/rust-crates.md` section 6.
pub(crate) const REFERENCE: &str = "REGISTER sip:registrar.example.com SIP/2.0\r\n\
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
    Content-Length: 0\r\n\r\n";

/// When the tests begin: half a second past a full one.
pub(crate) const START: WallTime = WallTime::from_micros(1_700_000_000_500_000);

pub(crate) fn message(text: &str) -> OwnedMessage {
    OwnedMessage::parse(Bytes::copy_from_slice(text.as_bytes()), Framing::Datagram).unwrap()
}

/// A REGISTER of `sip:a@example.com` with these header lines besides the usual ones.
pub(crate) fn register(call_id: &str, cseq: u32, lines: &[&str]) -> OwnedMessage {
    let mut text = format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\
         From: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: {call_id}\r\n\
         CSeq: {cseq} REGISTER\r\n"
    );
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("Content-Length: 0\r\n\r\n");
    message(&text)
}

pub(crate) fn read(request: &OwnedMessage) -> Result<RegisterRequest, RegisterError> {
    read_with(request, &RegisterSettings::default())
}

pub(crate) fn read_with(
    request: &OwnedMessage,
    settings: &RegisterSettings,
) -> Result<RegisterRequest, RegisterError> {
    read_register(request.view(), settings, |domain| domain == "example.com", Some(flow(1)))
}

pub(crate) fn flow(number: u64) -> FlowRecord {
    FlowRecord {
        server: ServerName::new("east1").unwrap(),
        boot: 7,
        flow: FlowId::new(0, number),
        protocol: Protocol::Udp,
        remote: "192.0.2.17:5060".parse().unwrap(),
        local: "192.0.2.1:5060".parse().unwrap(),
    }
}

pub(crate) fn alice() -> AddressOfRecord {
    AddressOfRecord::new("sip:a@example.com").unwrap()
}

pub(crate) fn command(operation: u128, now: WallTime, change: UserChange) -> Command {
    let east = PoolName::new("east").unwrap();
    Command::of_user(east, Epoch::new(1), OperationId::new(operation), now, alice(), change)
}
