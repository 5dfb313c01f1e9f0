//! Contact lists as documents: an item of a user is a contact in the list.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    Deployment, Operator,
    documents::{Documents, Written},
};

/// Time for one request.
const LIMIT: Duration = Duration::from_secs(2);

/// Contact lists, changed at one server.
#[derive(Debug)]
pub struct ContactLists {
    operator: Operator,
}

impl ContactLists {
    /// Contact lists as this server knows them.
    pub fn new(deployment: &Deployment, server: &str) -> Self {
        Self { operator: Operator::new(deployment, server, LIMIT) }
    }
}

impl Documents for ContactLists {
    fn write(&mut self, user: &str, item: &str) -> Written {
        let put = json!({ "contact": format!("sip:{item}@example.com"), "listed": {} });
        let body = json!({
            "aor": format!("sip:{user}@example.com"),
            "operation": operation(user, item),
            "edit": { "contact_list": { "put": put } },
        });
        match self.operator.ask("PATCH", "/v1/documents", Some(&body)) {
            Ok(reply) if reply.status == 200 => Written::Acknowledged,
            Ok(reply) => Written::Refused(reply.status, reply.body),
            Err(error) => Written::Unknown(format!("{error:#}")),
        }
    }

    fn read(&mut self, user: &str) -> Result<BTreeSet<String>> {
        let reply = self.operator.ask("GET", &format!("/v1/documents?aor=sip:{user}@example.com"), None)?;
        ensure!(reply.status == 200, "{reply:?}");
        let json = reply.json()?;
        let documents = json.get("documents").and_then(Value::as_array).context("documents")?.iter();
        let lists = documents.filter_map(|record| record.pointer("/document/contact_list/contacts"));
        let contacts = lists.filter_map(Value::as_object).flat_map(|list| list.keys());
        let names = contacts.filter_map(|aor| aor.strip_prefix("sip:")?.split('@').next());
        Ok(names.map(ToOwned::to_owned).collect())
    }
}

/// The same for the same item, so that a repetition is recognised: 32 hexadecimal digits (FNV-1a, twice).
fn operation(user: &str, item: &str) -> String {
    let hash = |seed: u64| {
        let octets = user.bytes().chain([0]).chain(item.bytes());
        octets.fold(seed, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
    };
    format!("{:016x}{:016x}", hash(0xcbf2_9ce4_8422_2325), hash(0x8422_2325_cbf2_9ce4))
}
