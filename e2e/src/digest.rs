//! Digest authentication of the test phone. Source: RFC 7616, RFC 8760.

use md5::{Digest, Md5};
use sha2::Sha256;

/// A challenge that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    algorithm: Algorithm,
    opaque: Option<String>,
    uses: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Challenge {
    /// The first challenge in this order of preference: SHA-256, MD5; only MD5 when `md5_only`.
    pub fn choose<'a>(values: impl Iterator<Item = &'a str>, md5_only: bool) -> Option<Self> {
        let all: Vec<Self> = values.filter_map(Self::read).collect();
        let strongest = all.iter().find(|challenge| challenge.algorithm == Algorithm::Sha256 && !md5_only);
        strongest.or_else(|| all.iter().find(|challenge| challenge.algorithm == Algorithm::Md5)).cloned()
    }

    fn read(value: &str) -> Option<Self> {
        let rest = value.strip_prefix("Digest ")?;
        let algorithm = match field(rest, "algorithm").as_deref() {
            None | Some("MD5") => Algorithm::Md5,
            Some("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        let (realm, nonce, opaque) = (field(rest, "realm")?, field(rest, "nonce")?, field(rest, "opaque"));
        Some(Self { realm, nonce, algorithm, opaque, uses: 0 })
    }

    /// Whether it is the same nonce.
    pub fn is_same_nonce(&self, other: &Self) -> bool {
        self.nonce == other.nonce
    }

    /// The Authorization value for the next use of the nonce.
    pub fn answer(&mut self, user: &str, password: &str, method: &str, uri: &str) -> String {
        self.uses += 1;
        let (nc, cnonce) = (format!("{:08x}", self.uses), crate::phone::fresh());
        let ha1 = self.hash(&format!("{user}:{}:{password}", self.realm));
        let ha2 = self.hash(&format!("{method}:{uri}"));
        let response = self.hash(&format!("{ha1}:{}:{nc}:{cnonce}:auth:{ha2}", self.nonce));
        let algorithm = match self.algorithm {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        };
        let opaque = self.opaque.as_ref().map(|opaque| format!(", opaque=\"{opaque}\"")).unwrap_or_default();
        format!(
            "Digest username=\"{user}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", response=\"{response}\", \
             algorithm={algorithm}, cnonce=\"{cnonce}\", qop=auth, nc={nc}{opaque}",
            self.realm, self.nonce
        )
    }

    /// Whether an Authentication-Info proves that the server knows the password too (RFC 7616 section 3.5).
    pub fn is_proved_by(&self, info: &str, user: &str, password: &str, uri: &str) -> bool {
        let of = |name| field(info, name).unwrap_or_default();
        let ha1 = self.hash(&format!("{user}:{}:{password}", self.realm));
        let ha2 = self.hash(&format!(":{uri}"));
        let (nc, cnonce, qop) = (of("nc"), of("cnonce"), of("qop"));
        let proof = self.hash(&format!("{ha1}:{}:{nc}:{cnonce}:{qop}:{ha2}", self.nonce));
        of("rspauth") == proof && qop == "auth" && nc == format!("{:08x}", self.uses)
    }

    fn hash(&self, text: &str) -> String {
        match self.algorithm {
            Algorithm::Md5 => hex(&Md5::digest(text.as_bytes())),
            Algorithm::Sha256 => hex(&Sha256::digest(text.as_bytes())),
        }
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.split(',').find_map(|part| {
        let (found, value) = part.trim().split_once('=')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7616_gives_its_hashes() {
        let challenge = Challenge {
            realm: "r".into(),
            nonce: "n".into(),
            algorithm: Algorithm::Md5,
            opaque: None,
            uses: 0,
        };
        let text = "Mufasa:http-auth@example.org:Circle of Life";

        assert_eq!(challenge.hash(text), "3d78807defe7de2157e2b0b6573a855f");
        assert_eq!(
            Challenge { algorithm: Algorithm::Sha256, ..challenge }.hash(text),
            "7987c64c30e25f1b74be53f966b49b90f2808aa92faf9a00262392d7b4794232"
        );
    }
}
