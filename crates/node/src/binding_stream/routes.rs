//! Who reads whose bindings from whom.

use model::PoolName;
use topology::{Role, Topology};

/// The pools that may come to serve a home pool's users: the pair, and for a branch appliance itself and the
/// pair it is associated with.
fn members<'a>(topology: &'a Topology, home: &'a PoolName) -> impl Iterator<Item = &'a PoolName> {
    let owned = decisive(topology, home);
    let partner = topology.partner_of(owned).map(|pool| &pool.name);
    let itself = (owned != home).then_some(home);
    itself.into_iter().chain([owned]).chain(partner)
}

/// The front-end pool whose owner decides who reads: the home pool, or the one a branch is associated with.
pub(super) fn decisive<'a>(topology: &'a Topology, home: &'a PoolName) -> &'a PoolName {
    let pool = topology.pool(home).filter(|pool| pool.role == Role::Branch);
    pool.and_then(|pool| pool.associated_pool.as_ref()).unwrap_or(home)
}

/// A front-end pool and the branches associated with it: what changes its owner together.
pub(super) fn with_branches<'a>(
    topology: &'a Topology,
    home: &'a PoolName,
) -> impl Iterator<Item = &'a PoolName> {
    topology.home_pools().map(|pool| &pool.name).filter(move |pool| decisive(topology, pool) == home)
}

/// Whether `reader` may read the bindings of `home` that `source` holds.
pub fn may_read(topology: &Topology, reader: &PoolName, source: &PoolName, home: &PoolName) -> bool {
    let is_member = |pool: &PoolName| members(topology, home).any(|member| member == pool);
    reader != source && is_member(reader) && is_member(source)
}

/// The pool that `pool` has to read `home` from now; `None` = from nobody. `serves`: whether this server
/// serves a front-end pool's users; `served_by`: which pool says that it does.
///
/// Of a pair: the one that does not serve reads from the other one. Of a branch: who serves its associated
/// pool reads from the appliance, the partner of that from there, and the appliance reads back from there
/// what was registered while it was away.
pub(super) fn source_now(
    topology: &Topology,
    pool: &PoolName,
    home: &PoolName,
    serves: impl Fn(&PoolName) -> bool,
    served_by: impl Fn(&PoolName) -> Option<PoolName>,
) -> Option<PoolName> {
    let owned = decisive(topology, home);
    let source = if pool == home && owned != home {
        served_by(owned)?
    } else if !serves(owned) {
        topology.partner_of(pool)?.name.clone()
    } else if owned != home {
        home.clone()
    } else {
        return None;
    };
    may_read(topology, pool, &source, home).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPOLOGY: &str = include_str!("../../../tandem/src/example.toml");

    fn example() -> Topology {
        Topology::read(TOPOLOGY).unwrap().0
    }

    fn pool(name: &str) -> PoolName {
        PoolName::new(name).unwrap()
    }

    /// From whom a pool reads, when these pools serve the users of east and of west.
    fn source(reader: &str, home: &str, owners: [&str; 2]) -> Option<String> {
        let owner = |home: &PoolName| match home.as_str() {
            "east" => owners[0].to_owned(),
            _ => owners[1].to_owned(),
        };
        let found = source_now(
            &example(),
            &pool(reader),
            &pool(home),
            |home| owner(home) == reader,
            |home| PoolName::new(&owner(home)).ok(),
        );
        found.map(|source| source.to_string())
    }

    #[test]
    fn who_does_not_serve_reads_from_who_does() {
        for (owners, reader, home, expected) in [
            (["east", "west"], "west", "east", Some("east")),
            (["east", "west"], "east", "east", None),
            (["west", "west"], "east", "east", Some("west")),
            (["west", "west"], "west", "east", None),
            (["east", "west"], "west", "branch1", Some("east")),
            (["east", "west"], "east", "branch1", Some("branch1")),
            (["east", "west"], "branch1", "branch1", Some("east")),
            (["west", "west"], "west", "branch1", Some("branch1")),
            (["west", "west"], "east", "branch1", Some("west")),
            (["west", "west"], "branch1", "branch1", Some("west")),
        ] {
            let found = source(reader, home, owners);
            assert_eq!(found.as_deref(), expected, "{reader} reads {home}, owners {owners:?}");
        }
    }

    #[test]
    fn a_branch_with_another_associated_pool_is_read_there() {
        let text = TOPOLOGY.replace("associated_pool = \"east\"", "associated_pool = \"west\"");
        let text = text.replacen("parent = \"east\"", "parent = \"west\"", 1);
        let topology = Topology::read(&text).unwrap().0;
        let source = |reader: &str| {
            let serves = |home: &PoolName| home.as_str() == reader;
            let found =
                source_now(&topology, &pool(reader), &pool("branch1"), serves, |home| Some(home.clone()));
            found.map(|source| source.to_string())
        };

        assert_eq!(source("west").as_deref(), Some("branch1"));
        assert_eq!(source("east").as_deref(), Some("west"));
        assert_eq!(source("branch1").as_deref(), Some("west"));
    }

    #[test]
    fn nobody_reads_whose_users_it_will_never_serve() {
        let topology = example();
        let may = |reader: &str, source: &str, home: &str| {
            may_read(&topology, &pool(reader), &pool(source), &pool(home))
        };

        assert!(
            may("west", "east", "east") && may("east", "west", "east") && may("east", "branch1", "branch1")
        );
        for (reader, source, home) in [
            ("branch1", "east", "east"),
            ("branch1", "east", "west"),
            ("east", "branch1", "east"),
            ("control", "east", "east"),
            ("east", "east", "east"),
            ("nobody", "east", "east"),
        ] {
            assert!(!may(reader, source, home), "{reader} {source} {home}");
        }
        let together: Vec<_> = with_branches(&topology, &pool("east")).cloned().collect();
        assert_eq!(together, ["east", "branch1"].map(pool));
    }
}
