//! What a listening address may be.

use std::net::{IpAddr, SocketAddr};

use crate::entry::shorten;

/// Reads `IP:port`.
///
/// Errors: what is wrong, and the remedy.
pub(crate) fn listening_address(text: &str) -> Result<SocketAddr, (String, String)> {
    let shown = shorten(text);
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err((format!("\"{shown}\" is not an IP address with a port"), syntax_remedy(text)));
    };
    if address.port() == 0 {
        let remedy = "name the port, 5060 for SIP or 5061 for SIP over TLS by custom".to_owned();
        return Err((format!("\"{shown}\" has port 0"), remedy));
    }
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() {
        let remedy = "name one address of the server: Via, Record-Route and other servers need it".to_owned();
        return Err((format!("\"{shown}\" means every address"), remedy));
    }
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_multicast() || is_broadcast {
        return Err((
            format!("\"{shown}\" is a multicast or broadcast address"),
            "name one address of the server".to_owned(),
        ));
    }
    Ok(SocketAddr::new(ip, address.port()))
}

fn syntax_remedy(text: &str) -> String {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 5_060);
        return format!("add the port, as in \"{example}\"");
    }
    if text.bytes().any(|octet| octet.is_ascii_alphabetic()) && !text.contains("::") {
        return "write the IP address in place of the host name, as in \"192.0.2.10:5060\"".to_owned();
    }
    "write it as in \"192.0.2.10:5060\" or \"[2001:db8::10]:5060\"".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_interface_and_a_port() {
        assert!(listening_address("127.0.1.1:5060").is_ok());
        assert!(listening_address("[2001:db8::1]:5061").is_ok());
        for text in
            ["0.0.0.0:5060", "[::]:5060", "[::ffff:0.0.0.0]:1", "224.0.0.1:5060", "1.2.3.4:0", "", "1.2.3.4"]
        {
            assert!(listening_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_it_means() {
        assert_eq!(listening_address("[::ffff:192.0.2.1]:5060"), listening_address("192.0.2.1:5060"));
    }

    #[test]
    fn the_remedy_fits_the_mistake() {
        let remedy = |text| listening_address(text).unwrap_err().1;

        assert_eq!(remedy("2001:db8::1"), "add the port, as in \"[2001:db8::1]:5060\"");
        assert!(remedy("fe1.example.com:5060").contains("host name"));
    }
}
