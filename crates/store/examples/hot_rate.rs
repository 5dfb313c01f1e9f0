//! Measures the hot store on this disk: commands per second, processor time per command, memory per contact,
//! and what it takes to copy everything to another store.
//!
//! `cargo run -p store --example hot_rate [DIRECTORY [CONTACTS]]`; the directory must not exist and is
//! removed afterwards; 100,000 contacts unless told otherwise.

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::Command as Process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Instant,
};

use anyhow::Context;
use model::{PoolName, WallTime};
use registrar::{Command, Outcome};
use store::{HotCursor, HotError, HotStore, SingleVoterHotStore, conformance};

const CONTACTS: u64 = 100_000;
/// Ticks of the processor times in /proc: fixed at 100 by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;
const NOW: WallTime = WallTime::from_secs(1_800_000_000);

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().map_or_else(|| env::temp_dir().join("tandem-hot-rate"), PathBuf::from);
    let users = match arguments.next().as_deref() {
        Some("reopen") => return reopen(&directory),
        Some(number) => number.parse().context("CONTACTS is a whole number")?,
        None => CONTACTS,
    };
    anyhow::ensure!(!directory.exists(), "{} exists: remove it or name another", directory.display());
    let store = SingleVoterHotStore::open(&directory)?;
    let home = PoolName::new("east")?;
    println!("{:28} {:>12} {:>12} {:>12}", "", "commands/s", "CPU us each", "wall s");
    for (cseq, outstanding, name) in [
        (1, 64, "new, 64 outstanding"),
        (2, 64, "refresh, 64 outstanding"),
        (3, 1_024, "refresh, 1,024 outstanding"),
    ] {
        let commands: Vec<_> =
            (0..users).map(|number| conformance::register(&home, number, cseq, NOW)).collect();
        measure(&store, &commands, outstanding, name)?;
    }
    lookups(&store, &home, users);
    copies(&store, &home, &directory)?;
    drop(store);
    println!("{:28} {:>12}", "disk, octets per contact", size_of(&directory)? / users);
    let status = Process::new(env::current_exe()?).arg(&directory).arg("reopen").status()?;
    anyhow::ensure!(status.success(), "reopening failed");
    fs::remove_dir_all(&directory)?;
    Ok(())
}

/// Submits one command after the other, so many at a time, as a shard does: each is made when it is
/// submitted, answers are collected, and the shard is woken when it sleeps. Making the commands is measured
/// alone and not counted.
fn measure(
    store: &impl HotStore,
    commands: &[Command],
    outstanding: usize,
    name: &str,
) -> anyhow::Result<()> {
    let count = f64::from(u32::try_from(commands.len())?);
    let answers = Arc::new(Answers::default());
    let begun = cpu_seconds()?;
    commands.iter().for_each(|command| drop(black_box(command.clone())));
    let making = cpu_seconds()? - begun;
    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
    let mut left = commands.iter();
    let (mut done, mut submitted) = (0, 0);
    while done < commands.len() {
        for command in left.by_ref().take(outstanding + done - submitted) {
            let answers = Arc::clone(&answers);
            store.submit(vec![command.clone()], Box::new(move |results| answers.add(&results)));
            submitted += 1;
        }
        done += answers.wait();
    }
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu - making);
    anyhow::ensure!(answers.refused.load(Ordering::Relaxed) == 0, "commands were refused");
    println!("{name:28} {:>12.0} {:>12.2} {wall:>12.2}", count / wall, cpu * 1e6 / count);
    Ok(())
}

/// Answers that a shard has not seen yet.
struct Answers {
    count: AtomicUsize,
    refused: AtomicUsize,
    shard: Thread,
}

impl Default for Answers {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), refused: AtomicUsize::new(0), shard: thread::current() }
    }
}

impl Answers {
    fn add(&self, results: &[Result<Outcome, HotError>]) {
        if !matches!(results.first(), Some(Ok(Outcome::Registered { .. }))) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.shard.unpark();
        }
    }

    fn wait(&self) -> usize {
        loop {
            match self.count.swap(0, Ordering::AcqRel) {
                0 => thread::park(),
                count => return count,
            }
        }
    }
}

fn lookups(store: &impl HotStore, home: &PoolName, users: u64) {
    let users: Vec<_> = (0..users).map(conformance::user).collect();
    let begun = Instant::now();
    let found: usize = users.iter().map(|user| store.lookup(home, user, NOW).len()).sum();
    let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(found).unwrap_or(u32::MAX));
    println!("{:28} {:>12} {each:>12.2}", "lookup, us each", "");
}

/// A full copy to a second store, page by page, as the stream of bindings does it; then the same again, when
/// it is no news.
fn copies(store: &impl HotStore, home: &PoolName, directory: &Path) -> anyhow::Result<()> {
    let place = directory.with_extension("copy");
    let reader = SingleVoterHotStore::open(&place)?;
    for name in ["full copy, users/s", "the same without news"] {
        let (begun, cpu) = (Instant::now(), cpu_seconds()?);
        let (mut cursor, mut users) = (HotCursor::default(), 0_u32);
        loop {
            let page = store.changes(home, &cursor, 500, NOW);
            let is_end = page.is_end();
            cursor = page.next;
            users += u32::try_from(page.users.len())?;
            let news = page.users.into_iter().filter(|(aor, copy)| reader.is_news(home, aor, copy, NOW));
            let epoch = store.highest_epoch(home);
            let merge = |(aor, copy)| Command::of_copy(home.clone(), epoch, NOW, aor, copy);
            let results = conformance::submit_and_wait(&reader, news.map(merge).collect());
            anyhow::ensure!(results.iter().all(Result::is_ok), "a copy was not written");
            if is_end {
                break;
            }
        }
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        let count = f64::from(users);
        println!("{name:28} {:>12.0} {:>12.2} {wall:>12.2}", count / wall, cpu * 1e6 / count);
    }
    anyhow::ensure!(reader.bindings(home) == store.bindings(home), "the copy is not complete");
    drop(reader);
    fs::remove_dir_all(&place)?;
    Ok(())
}

/// In a process of its own: what a restart costs, and what memory the contacts need.
fn reopen(directory: &Path) -> anyhow::Result<()> {
    let before = resident_bytes()?;
    let begun = Instant::now();
    let store = SingleVoterHotStore::open(directory)?;
    let bindings = store.bindings(&PoolName::new("east")?);
    let seconds = begun.elapsed().as_secs_f64();
    let octets = resident_bytes()?.saturating_sub(before) / u64::try_from(bindings.max(1))?;
    println!("{:28} {seconds:>12.2}", "restart, s");
    println!("{:28} {octets:>12}", "memory, octets per contact");
    Ok(())
}

/// Processor time of this process, all threads, user and system.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has no name")?;
    let ticks: u32 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0_u32)).sum();
    Ok(f64::from(ticks) / TICKS_PER_SECOND)
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kilobytes * 1_024)
}

fn size_of(directory: &Path) -> anyhow::Result<u64> {
    let mut octets = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        octets += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(octets)
}
