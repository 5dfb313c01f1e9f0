//! What of a SUBSCRIBE is read, and what refuses it.

use super::*;

fn subscribe(lines: &[&str]) -> Result<SubscribeRequest, SubscribeError> {
    let mut text = "SUBSCRIBE sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n\
        From: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: c\r\nCSeq: 7 SUBSCRIBE\r\n"
        .to_owned();
    for line in lines {
        text.push_str(&format!("{line}\r\n"));
    }
    text.push_str("Content-Length: 0\r\n\r\n");
    read_subscribe(message(&text).view(), &SubscribeSettings::default())
}

const CONTACT: &str = "Contact: <sip:a@h1;transport=tcp>";

#[test]
fn a_subscribe_is_read() {
    let read = subscribe(&["Event: reg;id=4a", CONTACT, "Expires: 600"]).unwrap();

    assert_eq!(
        read,
        SubscribeRequest {
            event_id: Some(b"4a"[..].into()),
            expires_s: 600,
            cseq: 7,
            target: b"sip:a@h1;transport=tcp"[..].into()
        }
    );
}

#[test]
fn the_time_granted_is_within_the_bounds() {
    for (line, expected) in [
        ("Subject: none", Ok(3_761)),
        ("Expires: 0", Ok(0)),
        ("Expires: 59", Err(SubscribeError::IntervalTooBrief { min_s: 60 })),
        ("Expires: 60", Ok(60)),
        ("Expires: 7201", Ok(7_200)),
        ("Expires: 4294967295", Ok(7_200)),
    ] {
        let read = subscribe(&["Event: reg", CONTACT, line]).map(|read| read.expires_s);
        assert_eq!(read, expected, "{line}");
    }
}

#[test]
fn a_refusal_has_the_status_and_the_header_that_the_rfc_asks_for() {
    let long = format!("Event: reg;id={}", "x".repeat(200));
    let rows: [(&[&str], u16, Option<&str>); 12] = [
        (&[CONTACT], 489, Some("Allow-Events: reg")),
        (&["Event: presence", CONTACT], 489, Some("Allow-Events: reg")),
        (&["Event: REG", CONTACT], 489, Some("Allow-Events: reg")),
        (&["Event: reg.winfo", CONTACT], 489, Some("Allow-Events: reg")),
        (&["o: reg", "Accept: text/plain", CONTACT], 406, Some("Accept: application/reginfo+xml")),
        (&["Event: reg", "Accept:", CONTACT], 406, Some("Accept: application/reginfo+xml")),
        (&["Event: reg", CONTACT, "Expires: 5"], 423, Some("Min-Expires: 60")),
        (&["Event: reg"], 400, None),
        (&["Event: reg", "Contact: *"], 400, None),
        (&["Event: reg", "Contact: <sip:a@h>, <sip:b@h>"], 400, None),
        (&["Event: reg;id=\"x y\"", CONTACT], 400, None),
        (&[&long, CONTACT], 400, None),
    ];
    for (lines, status, header) in rows {
        let error = subscribe(lines).unwrap_err();
        assert_eq!(error.status(), status, "{lines:?} {error:?}");
        if let Some(expected) = header {
            let (id, value) = error.header().unwrap();
            assert_eq!(format!("{}: {}", id.name(), value.escape_ascii()), expected, "{lines:?}");
        }
    }
    assert!(subscribe(&["Event: reg", "Accept: text/plain, application/*;q=0.1", CONTACT]).is_ok());
    assert_eq!(SubscribeError::NoSubscription.status(), 481);
    assert_eq!(SubscribeError::Full.header().map(|(id, _)| id.name()), Some("Retry-After"));
}
