//! What changed between two topologies, by name.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    Topology,
    section::{KeyValue, Section, sections},
};

/// One difference between two topologies. Prints on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What changed: `topology`, `site east`, `pool east`, `server east-fe1`, `pair east + west`.
    pub subject: String,
    /// How.
    #[serde(flatten)]
    pub what: What,
}

/// How a subject changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// One of its keys has another value.
    Changed {
        /// The key as in the document; of a setting `settings.` and the key.
        key: String,
        /// The value before, as in the document; `-` when it had none.
        from: String,
        /// The value now, as in the document; `-` when it has none.
        to: String,
    },
}

/// The changes from `old` to `new`: first the topology itself, then sites, pools, servers and pairs, each by
/// name; the keys of one subject in the order of the documentation.
///
/// Compares values in force: writing down a default changes nothing, nor does the order of the tables.
pub fn diff(old: &Topology, new: &Topology) -> Vec<Change> {
    let mut subjects: BTreeMap<(usize, String), [Option<Section>; 2]> = BTreeMap::new();
    for (side, topology) in [old, new].into_iter().enumerate() {
        for section in sections(topology) {
            let kind = ["", "site", "pool", "server", "pair"].iter().position(|&kind| kind == section.kind);
            let sides = subjects.entry((kind.unwrap_or_default(), section.subject.clone())).or_default();
            if let Some(place) = sides.get_mut(side) {
                *place = Some(section);
            }
        }
    }
    let mut changes = Vec::new();
    for ((_, subject), sides) in subjects {
        match sides {
            [None, Some(_)] => changes.push(Change { subject, what: What::Added }),
            [Some(_), None] => changes.push(Change { subject, what: What::Removed }),
            [Some(before), Some(after)] => changes.extend(compare(&subject, &before, &after)),
            [None, None] => {}
        }
    }
    changes
}

fn compare(subject: &str, before: &Section, after: &Section) -> Vec<Change> {
    let plain = compare_keys(subject, "", &before.keys, &after.keys);
    let settings = compare_keys(subject, "settings.", &before.settings, &after.settings);
    plain.into_iter().chain(settings).collect()
}

fn compare_keys(subject: &str, prefix: &str, before: &[KeyValue], after: &[KeyValue]) -> Vec<Change> {
    let value = |keys: &[KeyValue], key: &str| {
        keys.iter().find(|(name, _)| *name == key).map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
    };
    let gone = before.iter().filter(|(key, _)| !after.iter().any(|(name, _)| name == key));
    let keys = after.iter().chain(gone).map(|&(key, _)| key);
    keys.map(|key| (key, value(before, key), value(after, key)))
        .filter(|(_, from, to)| from != to)
        .map(|(key, from, to)| Change {
            subject: subject.to_owned(),
            what: What::Changed { key: format!("{prefix}{key}"), from, to },
        })
        .collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Added => write!(f, "+ {}", self.subject),
            What::Removed => write!(f, "- {}", self.subject),
            What::Changed { key, from, to } => write!(f, "~ {}: {key}: {from} -> {to}", self.subject),
        }
    }
}
