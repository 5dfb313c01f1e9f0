//! Measures documents in the user store on this disk: commits in batches, the copy by the journal, coming
//! back with orphans.
//!
//! `cargo run -p store --example document_rate [DIRECTORY]`; the directory must not exist and is removed
//! afterwards.

use std::{env, fs, path::PathBuf, time::Instant};

use model::{
    AddressOfRecord, Epoch, PoolName, WallTime,
    documents::{
        CallId, CallRecord, CallResult, ContactListEdit, Direction, Edit, ListedContact, UserSettings,
    },
    limits,
};
use store::{Change, Condition, Credentials, OperationId, Scope, SqliteUserStore, UserStore, Write};

const USERS: u32 = 20_000;
const CHANGES: u32 = 40_000;

/// What is committed.
#[derive(Clone, Copy)]
enum Kind {
    Settings,
    Contact,
    Call,
}

struct Bench {
    home: PoolName,
    operation: u32,
}

fn main() -> anyhow::Result<()> {
    let directory =
        env::args().nth(1).map_or_else(|| env::temp_dir().join("tandem-document-rate"), PathBuf::from);
    anyhow::ensure!(!directory.exists(), "{} exists: remove it or name another", directory.display());
    let mut bench = Bench { home: PoolName::new("east")?, operation: 0 };
    let owner = SqliteUserStore::open(&directory.join("owner.db"))?;
    let copy = SqliteUserStore::open(&directory.join("copy.db"))?;
    for first in (0..USERS).step_by(limits::ACCOUNTS_PER_PAGE_MAX) {
        let last = (first + u32::try_from(limits::ACCOUNTS_PER_PAGE_MAX)?).min(USERS);
        let accounts = (first..last).map(|user| bench.account(user)).collect::<anyhow::Result<Vec<_>>>()?;
        owner.commit(&bench.home, Epoch::ZERO, &accounts)?;
    }

    for (name, kind) in [("settings", Kind::Settings), ("contacts", Kind::Contact), ("calls", Kind::Call)] {
        for batch in [1, 10, 100] {
            let count = if batch == 1 { CHANGES / 10 } else { CHANGES };
            let begun = Instant::now();
            bench.commit(&owner, Epoch::ZERO, kind, USERS, count, batch)?;
            report(&format!("{name}, batches of {batch}"), count, begun);
        }
    }
    bench.commit(&owner, Epoch::ZERO, Kind::Call, 100, 12_000, 1_000)?;
    let begun = Instant::now();
    bench.commit(&owner, Epoch::ZERO, Kind::Call, 100, CHANGES, 100)?;
    report("calls in full logs, batches of 100", CHANGES, begun);
    bench.commit(&owner, Epoch::ZERO, Kind::Contact, 100, 20_000, 1_000)?;
    let begun = Instant::now();
    bench.commit(&owner, Epoch::ZERO, Kind::Contact, 100, CHANGES / 10, 100)?;
    report("contacts in lists of 200, batches of 100", CHANGES / 10, begun);

    let begun = Instant::now();
    let rows = bench.pull(&owner, &copy)?;
    report("copy by the journal", rows, begun);

    copy.fence(&bench.home, Epoch::new(2))?;
    let common = copy.cursor(&bench.home, &Scope::Everything)?;
    bench.commit(&owner, Epoch::new(1), Kind::Contact, USERS, CHANGES, 100)?;
    let begun = Instant::now();
    let mut after = common.sequence;
    loop {
        let page = owner.orphans(&common, after, limits::ACCOUNTS_PER_PAGE_MAX)?;
        copy.adopt(Epoch::new(2), WallTime::from_secs(1), &page)?;
        after = page.next();
        if page.is_end() {
            break;
        }
    }
    report("adopt orphans", CHANGES, begun);
    let begun = Instant::now();
    owner.rewind(&common, after)?;
    let rows = bench.pull(&copy, &owner)?;
    report("go back and pull", rows, begun);
    let begun = Instant::now();
    let purged = owner.purge(&bench.home, &PoolName::new("west")?)?;
    report("purge", u32::try_from(purged.rows)?, begun);
    let octets = directory.join("copy.db").metadata()?.len() / u64::from(USERS);
    println!("{:44} {octets:>8} octets per user", "file");
    fs::remove_dir_all(&directory)?;
    Ok(())
}

impl Bench {
    /// Commits so many changes of the users in turn, so many in one transaction.
    fn commit(
        &mut self,
        store: &SqliteUserStore,
        epoch: Epoch,
        kind: Kind,
        users: u32,
        count: u32,
        batch: u32,
    ) -> anyhow::Result<()> {
        for first in (0..count).step_by(usize::try_from(batch)?) {
            let users = (first..first + batch).map(|number| number.wrapping_mul(7_919) % users);
            let changes = users.map(|user| self.edit(kind, user)).collect::<anyhow::Result<Vec<_>>>()?;
            store.commit(&self.home, epoch, &changes)?;
        }
        Ok(())
    }

    fn pull(&self, from: &SqliteUserStore, to: &SqliteUserStore) -> anyhow::Result<u32> {
        let mut rows = 0;
        loop {
            let cursor = to.cursor(&self.home, &Scope::Everything)?;
            let page = from.journal(&cursor, limits::ACCOUNTS_PER_PAGE_MAX, &Scope::Everything)?;
            to.apply(&self.home, &page)?;
            rows += page.entries().len();
            if page.is_end() {
                return Ok(u32::try_from(rows)?);
            }
        }
    }

    fn edit(&mut self, kind: Kind, user: u32) -> anyhow::Result<Change> {
        let number = u64::from(self.operation);
        let edit = match kind {
            Kind::Settings => Edit::Settings(UserSettings {
                do_not_disturb: number.is_multiple_of(2),
                ..UserSettings::default()
            }),
            Kind::Contact => Edit::ContactList(ContactListEdit::Put {
                contact: AddressOfRecord::new(&format!("sip:c{:07}@example.com", number % 100_000))?,
                listed: ListedContact::default(),
            }),
            Kind::Call => Edit::CallRecord(CallRecord {
                call: CallId(number),
                direction: Direction::Made,
                other: "sip:somebody@example.com".to_owned(),
                began_at: WallTime::from_secs(1_800_000_000 + number),
                answered_at: Some(WallTime::from_secs(1_800_000_001 + number)),
                ended_at: Some(WallTime::from_secs(1_800_000_060 + number)),
                result: CallResult::Answered,
            }),
        };
        self.change(user, Write::Edit(edit))
    }

    fn account(&mut self, user: u32) -> anyhow::Result<Change> {
        let credentials = Credentials { ha1_md5: [7; 16], ha1_sha256: [9; 32] };
        let home = self.home.clone();
        self.change(user, Write::PutAccount { home, credentials, algorithms: None })
    }

    fn change(&mut self, user: u32, write: Write) -> anyhow::Result<Change> {
        self.operation += 1;
        let scattered = u128::from(self.operation).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Ok(Change {
            operation: OperationId::new(scattered),
            aor: AddressOfRecord::new(&format!("sip:u{user:07}@example.com"))?,
            changed_at: WallTime::from_secs(1_800_000_000),
            condition: Condition::Any,
            write,
        })
    }
}

fn report(what: &str, count: u32, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what:44} {seconds:>8.2} s, {:>8.0}/s", f64::from(count) / seconds);
}
