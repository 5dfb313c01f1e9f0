//! Writers of user data that keep an account of every acknowledgement, and what became of it.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

/// Items of this process so far: none is written twice.
static ITEMS: AtomicUsize = AtomicUsize::new(0);

/// How a try to write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable.
    Acknowledged,
    /// It was not done, with the status and the reason.
    Refused(u16, String),
    /// No answer: it may have been done.
    Unknown(String),
}

/// The documents of users, as an operator or a phone changes them at one server.
pub trait Documents: Send + fmt::Debug {
    /// Puts an item into the user's document; the same item again changes nothing.
    fn write(&mut self, user: &str, item: &str) -> Written;

    /// Every item in the user's document.
    ///
    /// Errors: it cannot be read.
    fn read(&mut self, user: &str) -> Result<BTreeSet<String>>;
}

/// One item that was to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// User.
    pub user: String,
    /// Item.
    pub item: String,
    /// Just before the first try.
    pub sent: Instant,
    /// Just after the acknowledgement; `None`: there was none.
    pub acknowledged: Option<Instant>,
    /// Tries that were refused or not answered before.
    pub failures: Vec<Written>,
}

/// Threads that write all the time, each at one server and, when that refuses, at the other.
#[derive(Debug)]
pub struct Writers {
    is_over: Arc<AtomicBool>,
    writes: Arc<Mutex<Vec<Write>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts one thread for each pair of clients: home pool and partner. Each writes to one of `users` after
    /// the other, `rate` times a second. An item that was refused is tried again every 25 ms, at both in
    /// turn, for `patience`.
    ///
    /// Errors: no thread.
    pub fn start<D: Documents + 'static>(
        clients: Vec<[D; 2]>,
        users: &[String],
        rate: u32,
        patience: Duration,
    ) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(Mutex::new(Vec::new()));
        let pause = Duration::from_secs(1) / rate.max(1);
        let mut threads = Vec::new();
        for (number, mut clients) in clients.into_iter().enumerate() {
            let (is_over, writes, users) = (Arc::clone(&is_over), Arc::clone(&writes), users.to_vec());
            threads.push(thread::Builder::new().name(format!("writer {number}")).spawn(move || {
                for count in 0_usize.. {
                    let Some(user) = users.get(count % users.len().max(1)) else { return };
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let began = Instant::now();
                    let item = format!("w{number}n{}", ITEMS.fetch_add(1, Ordering::Relaxed));
                    let write = write_one(&mut clients, user, item, patience);
                    writes.lock().unwrap_or_else(PoisonError::into_inner).push(write);
                    thread::sleep(pause.saturating_sub(began.elapsed()));
                }
            })?);
        }
        Ok(Self { is_over, writes, threads })
    }

    /// What was written so far.
    pub fn writes(&self) -> Vec<Write> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the writers and returns everything they wrote.
    ///
    /// Errors: a writer failed.
    pub fn end(self) -> Result<Vec<Write>> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a writer failed"))?;
        }
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(writes)
    }
}

fn write_one<D: Documents>(clients: &mut [D; 2], user: &str, item: String, patience: Duration) -> Write {
    let sent = Instant::now();
    let mut write = Write { user: user.to_owned(), item, sent, acknowledged: None, failures: Vec::new() };
    for client in (0..2).cycle() {
        let Some(client) = clients.get_mut(client) else { break };
        match client.write(user, &write.item) {
            Written::Acknowledged => {
                write.acknowledged = Some(Instant::now());
                // Where it went well is asked first from now on.
                if write.failures.len() % 2 == 1 {
                    clients.reverse();
                }
                break;
            }
            failure @ (Written::Refused(..) | Written::Unknown(_)) => write.failures.push(failure),
        }
        if sent.elapsed() >= patience {
            break;
        }
        thread::sleep(Duration::from_millis(25));
    }
    write
}

/// The acknowledged items that are not in the documents any more.
///
/// Errors: a document cannot be read.
pub fn missing<'a>(writes: &'a [Write], documents: &mut impl Documents) -> Result<Vec<&'a Write>> {
    let mut missing = Vec::new();
    let users: BTreeSet<&str> = writes.iter().map(|write| write.user.as_str()).collect();
    for user in users {
        let found = documents.read(user)?;
        missing.extend(writes.iter().filter(|write| {
            write.user == user && write.acknowledged.is_some() && !found.contains(&write.item)
        }));
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Memory {
        refusals: u32,
        items: BTreeSet<String>,
    }

    impl Documents for Memory {
        fn write(&mut self, _user: &str, item: &str) -> Written {
            if self.refusals > 0 {
                self.refusals -= 1;
                return Written::Refused(503, "moving".to_owned());
            }
            self.items.insert(item.to_owned());
            Written::Acknowledged
        }

        fn read(&mut self, _user: &str) -> Result<BTreeSet<String>> {
            Ok(self.items.clone())
        }
    }

    #[test]
    fn what_is_refused_here_is_written_there_and_there_first_from_then_on() {
        let mut clients = [Memory { refusals: 9, ..Memory::default() }, Memory::default()];

        let first = write_one(&mut clients, "u", "a".to_owned(), Duration::from_secs(1));
        let second = write_one(&mut clients, "u", "b".to_owned(), Duration::from_secs(1));

        assert_eq!(first.failures.len(), 1);
        assert!(first.acknowledged.is_some());
        assert_eq!(second.failures.len(), 0);
    }

    #[test]
    fn an_acknowledged_item_that_is_gone_is_missing() {
        let mut memory = Memory::default();
        let mut clients = [Memory::default(), Memory::default()];
        let write = write_one(&mut clients, "u", "a".to_owned(), Duration::from_secs(1));

        let writes = [write];
        assert_eq!(missing(&writes, &mut clients[0]).unwrap().len(), 0);
        assert_eq!(missing(&writes, &mut memory).unwrap().len(), 1);
    }
}
