//! Measures the user store on this disk: import by pages, copy by the journal, loading all accounts.
//!
//! `cargo run -p store --example import_rate [DIRECTORY]`; the directory must not exist and is removed
//! afterwards.

use std::{env, fs, path::PathBuf, time::Instant};

use model::{AddressOfRecord, Epoch, PoolName, WallTime, limits};
use store::{Change, Condition, Credentials, OperationId, Scope, SqliteUserStore, UserStore, Write};

const USERS: u32 = 100_000;

fn main() -> anyhow::Result<()> {
    let directory =
        env::args().nth(1).map_or_else(|| env::temp_dir().join("tandem-import-rate"), PathBuf::from);
    anyhow::ensure!(!directory.exists(), "{} exists: remove it or name another", directory.display());
    let home = PoolName::new("east")?;
    let store = SqliteUserStore::open(&directory.join("users.db"))?;
    let accounts = (0..USERS).map(account).collect::<Result<Vec<_>, _>>()?;

    let begun = Instant::now();
    for page in accounts.chunks(limits::ACCOUNTS_PER_PAGE_MAX) {
        store.commit(&home, Epoch::ZERO, page)?;
    }
    report("import", begun);

    let copy = SqliteUserStore::open(&directory.join("copy.db"))?;
    let begun = Instant::now();
    loop {
        let cursor = copy.cursor(&home, &Scope::Everything)?;
        let page = store.journal(&cursor, limits::ACCOUNTS_PER_PAGE_MAX, &Scope::Everything)?;
        copy.apply(&home, &page)?;
        if page.is_end() {
            break;
        }
    }
    report("copy by the journal", begun);

    let begun = Instant::now();
    let mut count = 0_u32;
    store.load_all(&mut |_| count += 1)?;
    anyhow::ensure!(count == USERS, "{count} accounts were loaded");
    report("load all", begun);

    let begun = Instant::now();
    for change in &accounts {
        anyhow::ensure!(store.read(&change.aor)?.is_some(), "{} is missing", change.aor);
    }
    report("read each", begun);

    drop(store);
    let begun = Instant::now();
    drop(SqliteUserStore::open(&directory.join("users.db"))?);
    report("open, with quick check", begun);
    println!(
        "{:24} {:>8} octets per account",
        "file",
        directory.join("users.db").metadata()?.len() / u64::from(USERS)
    );
    fs::remove_dir_all(&directory)?;
    Ok(())
}

fn account(number: u32) -> anyhow::Result<Change> {
    let octet = u8::try_from(number % 251)?;
    Ok(Change {
        operation: OperationId::new(
            u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ),
        aor: AddressOfRecord::new(&format!("sip:u{number:07}@example.com"))?,
        changed_at: WallTime::from_secs(1_800_000_000),
        condition: Condition::Absent,
        write: Write::PutAccount {
            home: PoolName::new("east")?,
            credentials: Credentials { ha1_md5: [octet; 16], ha1_sha256: [octet; 32] },
            algorithms: None,
        },
    })
}

fn report(what: &str, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what:24} {seconds:>8.2} s, {:>8.0} accounts/s", f64::from(USERS) / seconds);
}
