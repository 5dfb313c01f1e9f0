//! Request methods.

use std::fmt;

macro_rules! methods {
    ($($variant:ident = $token:literal, $source:literal;)*) => {
        /// Method of a request. Unknown methods are [`Method::Other`]; their token is read with
        /// [`crate::Message::method_bytes`] or [`crate::CSeq::method_bytes`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $(#[doc = concat!("`", $token, "`, ", $source, ".")] $variant,)*
            /// Any other token.
            Other,
        }

        impl Method {
            /// The method of this token. Methods are case-sensitive and know no escapes (RFC 3261 section
            /// 7.1).
            #[inline]
            pub fn from_bytes(token: &[u8]) -> Self {
                $(if token == $token.as_bytes() { return Self::$variant; })*
                Self::Other
            }

            /// The token; empty for [`Method::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $token,)*
                    Self::Other => "",
                }
            }
        }
    };
}

methods! {
    Register = "REGISTER", "RFC 3261";
    Invite = "INVITE", "RFC 3261";
    Ack = "ACK", "RFC 3261";
    Bye = "BYE", "RFC 3261";
    Cancel = "CANCEL", "RFC 3261";
    Options = "OPTIONS", "RFC 3261";
    Message = "MESSAGE", "RFC 3428";
    Prack = "PRACK", "RFC 3262";
    Update = "UPDATE", "RFC 3311";
    Info = "INFO", "RFC 6086";
    Subscribe = "SUBSCRIBE", "RFC 6665";
    Notify = "NOTIFY", "RFC 6665";
    Refer = "REFER", "RFC 3515";
    Publish = "PUBLISH", "RFC 3903";
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_known_by_its_exact_token() {
        for method in [Method::Invite, Method::Ack, Method::Register, Method::Publish] {
            assert_eq!(Method::from_bytes(method.as_str().as_bytes()), method);
        }
        for token in [&b"invite"[..], b"", b"INVITEX", b"RE%47IST%45R"] {
            assert_eq!(Method::from_bytes(token), Method::Other);
        }
    }
}
