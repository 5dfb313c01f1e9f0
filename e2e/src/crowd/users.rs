//! Names and passwords of a crowd's users, and what each of them knows between two requests.

use std::fmt::Write;

use super::CrowdPlan;
use crate::digest::Challenge;

/// User part of a user with a phone.
pub fn user_name(number: u32) -> String {
    format!("c{number:05}")
}

/// User part of a caller homed on the pool of this server.
pub fn caller_name(server: usize, number: u32) -> String {
    format!("k{server}{number:03}")
}

/// Password of any of them.
fn password(name: &str) -> String {
    format!("pw-{name}")
}

/// The file for `tandem user import`: users homed on `homes[0]`, callers on both.
pub fn users_csv(plan: &CrowdPlan, homes: [&str; 2]) -> String {
    let mut text = String::from("address-of-record,password,home\n");
    let mut push = |name: &str, home: &str| {
        let _ = writeln!(text, "sip:{name}@example.com,{},{home}", password(name));
    };
    for number in 0..plan.users {
        push(&user_name(number), homes[0]);
    }
    for (server, home) in homes.into_iter().enumerate() {
        for number in 0..plan.callers {
            push(&caller_name(server, number), home);
        }
    }
    text
}

/// Somebody who authenticates: a user or a caller.
#[derive(Debug)]
pub struct Party {
    /// User part.
    pub name: String,
    password: String,
    challenge: Option<Challenge>,
    /// CSeq of the last REGISTER.
    pub cseq: u32,
    /// Server that is asked first.
    pub server: usize,
    /// Whether a REGISTER is under way.
    pub is_registering: bool,
    /// Whether a REGISTER was ever accepted.
    pub is_registered: bool,
    /// Whether the last probe failed.
    pub is_unreachable: bool,
    /// Whether a repetition of that probe is due.
    pub is_probed_again: bool,
}

impl Party {
    /// Somebody who knows no nonce yet.
    pub fn new(name: String, server: usize) -> Self {
        let password = password(&name);
        Self {
            name,
            password,
            challenge: None,
            cseq: 0,
            server,
            is_registering: false,
            is_registered: false,
            is_unreachable: false,
            is_probed_again: false,
        }
    }

    /// Takes a new challenge.
    pub fn challenged<'a>(&mut self, values: impl Iterator<Item = &'a str>) {
        self.challenge = Challenge::choose(values, false);
    }

    /// Credentials for the next request, where a nonce is known.
    pub fn credentials(&mut self, method: &str, uri: &str) -> Option<String> {
        let challenge = self.challenge.as_mut()?;
        Some(challenge.answer(&self.name, &self.password, method, uri))
    }
}
