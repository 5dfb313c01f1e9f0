//! What running servers take of a new topology, and what needs their restart.

use model::PoolName;
use serde::Serialize;

use crate::{Change, Role, Topology, What, diff};

/// A branch that gets its user services from another pool than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Association {
    /// The branch.
    pub branch: PoolName,
    /// Its associated pool until now.
    pub from: PoolName,
    /// Its associated pool from now on.
    pub to: PoolName,
}

/// The difference between the topology in force and the one that is to replace it, as running servers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OnlineChange {
    /// What they take.
    pub associations: Vec<Association>,
    /// What they act upon only after a restart.
    pub restart: Vec<Change>,
}

/// Divides what differs between `old` and `new`.
///
/// Online go `version`, `associated_pool` of branches, and `parent` of branch sites: no server acts upon a
/// site's parent, and without it no branch could go to a pool of another central site.
pub fn online_change(old: &Topology, new: &Topology) -> OnlineChange {
    let branches = || new.pools.iter().filter(|pool| pool.role == Role::Branch);
    let is_online = |change: &Change| match &change.what {
        What::Added | What::Removed => false,
        What::Changed { key, .. } => match key.as_str() {
            "version" => change.subject == "topology",
            "associated_pool" => branches().any(|branch| change.subject == format!("pool {}", branch.name)),
            "parent" => {
                let mut branch_sites = new.sites.iter().filter(|site| site.parent().is_some());
                branch_sites.any(|site| change.subject == format!("site {}", site.name))
            }
            _ => false,
        },
    };
    let restart: Vec<Change> = diff(old, new).into_iter().filter(|change| !is_online(change)).collect();
    let associations = branches().filter_map(|branch| {
        let from = old.pool(&branch.name)?.associated_pool.clone()?;
        let to = branch.associated_pool.clone()?;
        (from != to).then(|| Association { branch: branch.name.clone(), from, to })
    });
    OnlineChange { associations: associations.collect(), restart }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../tandem/src/example.toml");

    fn change(edit: impl Fn(&str) -> String) -> OnlineChange {
        let read = |text: &str| Topology::read(text).unwrap().0;
        online_change(&read(EXAMPLE), &read(&edit(EXAMPLE)))
    }

    fn other_pool(text: &str) -> String {
        let text = text.replace("version = 1", "version = 2");
        let text = text.replace("associated_pool = \"east\"", "associated_pool = \"west\"");
        text.replacen("parent = \"east\"", "parent = \"west\"", 1)
    }

    #[test]
    fn a_branch_goes_to_another_pool_online() {
        let found = change(other_pool);

        let [east, west, branch] = ["east", "west", "branch1"].map(|name| PoolName::new(name).unwrap());
        assert_eq!(found.associations, [Association { branch, from: east, to: west }]);
        assert_eq!(found.restart, []);
        assert_eq!(change(|text| text.to_owned()), OnlineChange::default());
    }

    #[test]
    fn everything_else_needs_a_restart_and_each_is_named() {
        let edit = |text: &str| {
            let text = other_pool(text)
                .replace("users_expected = 10\nusers_capacity", "users_expected = 11\nusers_capacity");
            text.replace("127.0.3.1:5061", "127.0.3.1:5062")
                .replace("parent = \"west\"", "parent = \"east\"")
                .replacen("parent = \"east\"", "parent = \"west\"", 1)
        };

        let found = change(edit);

        let subjects: Vec<_> = found.restart.iter().map(|change| change.subject.as_str()).collect();
        assert_eq!(subjects, ["pool east", "pool west", "server branch1a"]);
        assert_eq!(found.associations.len(), 1);
    }
}
