//! The topology that a server acts upon; a new one replaces it while the server runs.

use std::{
    hash::Hasher,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use siphasher::sip::SipHasher13;
use tokio::sync::watch;
use topology::{Finding, OnlineChange, Topology, decode, online_change, replacement_findings};

/// The topology in force, and the file from which a new one is read.
pub struct TopologyInForce {
    file: PathBuf,
    current: ArcSwap<Topology>,
    /// Grows whenever something that follows from the topology is to be computed again.
    changes: watch::Sender<u64>,
    /// Held while a document takes the place of another.
    replacing: Mutex<()>,
}

/// A document that was read to replace the one in force.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The document; `None` when it has errors.
    pub topology: Option<Arc<Topology>>,
    /// A number that is the same for the same octets, 16 hexadecimal digits.
    pub fingerprint: String,
    /// What differs from the one in force.
    pub change: OnlineChange,
    /// Why it cannot take its place; empty when it can, or is in force already.
    pub refusals: Vec<String>,
}

impl TopologyInForce {
    /// The topology of the document `file`, which was read at the start.
    pub fn new(file: PathBuf, topology: Topology) -> Self {
        Self {
            file,
            current: ArcSwap::from_pointee(topology),
            changes: watch::channel(0).0,
            replacing: Mutex::new(()),
        }
    }

    /// The topology in force now. Keep it only as long as one decision takes.
    pub fn now(&self) -> Arc<Topology> {
        self.current.load_full()
    }

    /// Changes whenever another topology is in force, or [`Self::look_again`] was called.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Lets everything that follows from the topology be computed again.
    pub fn look_again(&self) {
        self.changes.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Reads the file; blocks. Nothing changes.
    pub fn read(&self) -> Candidate {
        examine(&self.file, &self.now())
    }

    /// Reads the file and puts it in force, unless something speaks against it or its fingerprint is not
    /// `expected`; blocks. `remember` is called before, and may refuse.
    pub fn replace(
        &self,
        expected: &str,
        remember: impl FnOnce(&Topology, &OnlineChange) -> Result<(), Vec<String>>,
    ) -> Candidate {
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut candidate = self.read();
        if candidate.fingerprint != expected {
            let file = self.file.display();
            candidate.refusals.push(format!("{file} is not what was looked at before: reload again"));
        }
        let Some(topology) = candidate.topology.clone().filter(|_| candidate.refusals.is_empty()) else {
            return candidate;
        };
        if topology == self.now() {
            return candidate;
        }
        match remember(&topology, &candidate.change) {
            Ok(()) => {
                self.current.store(topology);
                self.look_again();
            }
            Err(refusals) => candidate.refusals = refusals,
        }
        candidate
    }
}

/// The document in `file`, and what speaks against putting it in force after `current`.
fn examine(file: &Path, current: &Topology) -> Candidate {
    let mut candidate = Candidate {
        topology: None,
        fingerprint: String::new(),
        change: OnlineChange::default(),
        refusals: Vec::new(),
    };
    let octets = match std::fs::read(file) {
        Ok(octets) => octets,
        Err(error) => {
            candidate.refusals.push(format!("{} cannot be read: {error}", file.display()));
            return candidate;
        }
    };
    let mut hasher = SipHasher13::new();
    hasher.write(&octets);
    candidate.fingerprint = format!("{:016x}", hasher.finish());
    let read = decode(&octets).map_err(|finding| vec![finding]).and_then(Topology::read);
    let topology = match read {
        Ok((topology, _warnings)) => topology,
        Err(findings) => {
            candidate.refusals = errors(&findings);
            return candidate;
        }
    };
    if topology != *current {
        candidate.refusals = errors(&replacement_findings(current, &topology, |_| 0));
        candidate.change = online_change(current, &topology);
        let restart = candidate.change.restart.iter();
        candidate.refusals.extend(restart.map(|change| format!("{change}: needs a restart of the servers")));
    }
    candidate.topology = Some(Arc::new(topology));
    candidate
}

fn errors(findings: &[Finding]) -> Vec<String> {
    findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../tandem/src/example.toml");

    fn in_force(folder: &Path, file: &str) -> TopologyInForce {
        let path = folder.join("topology.toml");
        std::fs::write(&path, file).unwrap();
        TopologyInForce::new(path, Topology::read(EXAMPLE).unwrap().0)
    }

    fn moved(version: u64) -> String {
        let text = EXAMPLE.replace("version = 1", &format!("version = {version}"));
        let text = text.replace("associated_pool = \"east\"", "associated_pool = \"west\"");
        text.replacen("parent = \"east\"", "parent = \"west\"", 1)
    }

    #[test]
    fn an_association_is_taken_online_once_it_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let topology = in_force(folder.path(), &moved(2));
        let mut changes = topology.changes();
        let fingerprint = topology.read().fingerprint;

        let refused = topology.replace(&fingerprint, |_, _| Err(vec!["the disk is full".to_owned()]));
        assert_eq!((refused.refusals.len(), topology.now().version), (1, 1));
        let wrong = topology.replace("0", |_, _| Ok(()));
        assert_eq!((wrong.refusals.len(), topology.now().version), (1, 1));
        assert!(!changes.has_changed().unwrap());

        let taken = topology.replace(&fingerprint, |_, change| {
            assert_eq!(change.associations.len(), 1);
            Ok(())
        });
        assert_eq!((taken.refusals.len(), topology.now().version), (0, 2));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let again = topology.replace(&fingerprint, |_, _| Err(vec!["not asked".to_owned()]));
        assert!(again.refusals.is_empty(), "it is in force already");
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn everything_that_speaks_against_a_document_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let refusals = |text: &str| in_force(folder.path(), text).read().refusals;

        assert_eq!(refusals(EXAMPLE), Vec::<String>::new());
        assert_eq!(refusals(&moved(1)).len(), 1, "the version has not grown");
        let linted = refusals(&moved(2).replacen("parent = \"west\"", "parent = \"east\"", 1));
        assert!(linted.iter().any(|line| line.contains("branch-associated-pool")), "{linted:?}");
        let more = refusals(&moved(2).replace("127.0.3.1:5061", "127.0.3.1:5062"));
        assert!(more.len() == 1 && more.iter().all(|line| line.contains("branch1a")), "{more:?}");
        assert_eq!(refusals("version = ").len(), 1);
        std::fs::remove_file(folder.path().join("topology.toml")).unwrap();
        let topology = Topology::read(EXAMPLE).unwrap().0;
        assert_eq!(examine(&folder.path().join("topology.toml"), &topology).refusals.len(), 1);
    }
}
