//! SIGKILL at random moments: whatever was acknowledged before is there afterwards.
//!
//! Each test runs itself as a child that writes and prints what was acknowledged, kills it after a random
//! number of lines, opens the store and compares. Several rounds go on with the same store.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::mpsc,
};

use model::{AddressOfRecord, Chance, Epoch, PoolName, WallTime};
use registrar::{OperationId, Outcome};
use store::{
    CasOutcome, Change, Condition, ControlStore, Credentials, HotStore, LogPolicy, RedbControlStore, Scope,
    SingleVoterHotStore, SqliteUserStore, UserStore,
    conformance::{register, user},
};
use tempfile::TempDir;

const ROUNDS: u64 = 8;
/// Numbers that one round may use.
const ROUND_NUMBERS: u64 = 1_000_000;
const USERS: u64 = 300;
const NOW: WallTime = WallTime::from_secs(1_800_000_000);
/// Snapshots so often that a kill meets them at every stage.
const POLICY: LogPolicy =
    LogPolicy { commands_min: 100, commands_per_binding: 2, file_mib: 1, log_mib_max: 2 };

#[test]
fn acknowledged_bindings_survive_sigkill() {
    if let Some((place, start)) = crate::support::child() {
        write_bindings(&place, start);
    }
    let place = TempDir::new().unwrap();
    let home = home();
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    let mut chance = Chance::seeded(7);
    for round in 0..ROUNDS {
        let kill_after = chance.below(4_000);
        for number in
            killed_child("crash::acknowledged_bindings_survive_sigkill", place.path(), round, kill_after)
        {
            acknowledged.insert(number % USERS, number);
        }

        let store = SingleVoterHotStore::open_with(place.path(), POLICY).unwrap();

        for (of_user, number) in &acknowledged {
            let found = store.lookup(&home, &user(*of_user), NOW);
            let cseq = found.first().map(|binding| u64::from(binding.cseq()));
            // A later command may have been written and not been acknowledged; an earlier one is a loss.
            let cseq = cseq.unwrap_or_else(|| panic!("round {round}: user {of_user} is lost"));
            assert!(cseq >= *number && cseq % USERS == *of_user, "round {round}: {cseq} instead of {number}");
        }
    }
    assert!(
        std::fs::read_dir(place.path().join("snapshots")).unwrap().next().is_some(),
        "no snapshot was met"
    );
    assert_eq!(acknowledged.len() as u64, USERS);
}

/// Registers users in turn, 64 commands outstanding, and prints what is acknowledged.
fn write_bindings(place: &Path, start: u64) -> ! {
    let store = SingleVoterHotStore::open_with(place, POLICY).unwrap();
    let home = home();
    let (sender, receiver) = mpsc::channel();
    let mut waiting = 0;
    for number in start.. {
        let sender = sender.clone();
        let command = register(&home, number % USERS, u32::try_from(number).unwrap(), NOW);
        let reply = move |results: Vec<Result<Outcome, _>>| {
            assert!(matches!(results.as_slice(), [Ok(Outcome::Registered { .. })]), "{results:?}");
            sender.send(number).unwrap();
        };
        store.submit(vec![command], Box::new(reply));
        waiting += 1;
        if waiting == 64 {
            print_acknowledged(receiver.recv().unwrap());
            waiting -= 1;
        }
    }
    unreachable!("killed before")
}

#[test]
fn committed_accounts_survive_sigkill() {
    if let Some((place, start)) = crate::support::child() {
        write_accounts(&place.join("users.db"), start);
    }
    let place = TempDir::new().unwrap();
    let home = home();
    let mut chance = Chance::seeded(8);
    for round in 0..ROUNDS {
        let kill_after = chance.below(400);
        let acknowledged =
            killed_child("crash::committed_accounts_survive_sigkill", place.path(), round, kill_after);

        let store = SqliteUserStore::open(&place.path().join("users.db")).unwrap();

        for number in acknowledged {
            let repeated = store.commit(&home, Epoch::new(1), &account_batch(number)).unwrap();
            assert!(
                repeated.iter().all(|committed| committed.is_repeated),
                "round {round}: {number} is lost"
            );
        }
        store.check().unwrap();
        let page =
            store.journal(&store::Cursor::start(home.clone()), usize::MAX, &Scope::Everything).unwrap();
        page.check().unwrap();
        let last = store.cursor(&home, &Scope::Everything).unwrap().sequence;
        assert_eq!(last % 3, 0, "a batch is there as a whole or not at all");
    }
}

fn write_accounts(file: &Path, start: u64) -> ! {
    let store = SqliteUserStore::open(file).unwrap();
    for number in start.. {
        store.commit(&home(), Epoch::new(1), &account_batch(number)).unwrap();
        print_acknowledged(number);
    }
    unreachable!("killed before")
}

/// Three changes of one transaction.
fn account_batch(number: u64) -> Vec<Change> {
    (0..3)
        .map(|part| Change {
            operation: OperationId::new(u128::from(number * 3 + part)),
            aor: AddressOfRecord::new(&format!("sip:u{}-{part}@example.com", number % 50)).unwrap(),
            changed_at: NOW,
            condition: Condition::Any,
            write: store::Write::PutAccount {
                home: home(),
                credentials: Credentials { ha1_md5: [7; 16], ha1_sha256: [9; 32] },
                algorithms: None,
            },
        })
        .collect()
}

#[test]
fn written_control_records_survive_sigkill() {
    if let Some((place, _)) = crate::support::child() {
        write_records(&place.join("control.redb"));
    }
    let place = TempDir::new().unwrap();
    let mut chance = Chance::seeded(9);
    let mut highest = 0;
    for round in 0..ROUNDS {
        let kill_after = chance.below(400);
        let acknowledged =
            killed_child("crash::written_control_records_survive_sigkill", place.path(), round, kill_after);
        highest = acknowledged.into_iter().fold(highest, u64::max);

        let store = RedbControlStore::open(&place.path().join("control.redb")).unwrap();

        let versions: Vec<u64> =
            store.list("pool/").unwrap().records.iter().map(|(_, found)| found.version).collect();
        let written: u64 = versions.iter().sum();
        assert!(written >= highest, "round {round}: {written} writes are there, {highest} were acknowledged");
        highest = written;
    }
    assert!(highest > 0);
}

/// Writes seven records in turn and prints how many writes there were since the store exists.
fn write_records(file: &Path) -> ! {
    let store = RedbControlStore::open(file).unwrap();
    let mut revision = store.list("").unwrap().revision;
    loop {
        let key = format!("pool/{}", revision % 7);
        let expected = store.get(&key).unwrap().map_or(0, |found| found.version);
        match store.compare_and_set(&key, expected, &revision.to_be_bytes()).unwrap() {
            CasOutcome::Stored { revision: stored, .. } => revision = stored,
            CasOutcome::Conflict { found } => panic!("nobody else writes: {found:?}"),
        }
        print_acknowledged(revision);
    }
}

fn home() -> PoolName {
    PoolName::new("east").unwrap()
}

/// One line in one write: whole or not there at all.
pub fn print_acknowledged(number: u64) {
    let line = format!("acknowledged {number}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Runs the child, kills it after so many acknowledgements, and returns all it made until it died.
pub fn killed_child(test: &str, place: &Path, round: u64, kill_after: u64) -> Vec<u64> {
    let mut child = crate::support::command(test, place, (round + 1) * ROUND_NUMBERS).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        let number = line.strip_suffix('\n').and_then(|line| line.strip_prefix("acknowledged "));
        acknowledged.extend(number.map(|number| number.parse::<u64>().unwrap()));
        if acknowledged.len() as u64 == kill_after + 1 {
            child.kill().unwrap();
        }
        line.clear();
    }
    assert!(!child.wait().unwrap().success(), "the child was killed, not done");
    assert!(acknowledged.len() as u64 > kill_after, "the child ended early");
    acknowledged
}
