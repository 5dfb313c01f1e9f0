//! Who served when: a watch over both pools that keeps every 200 OK and proves that owners never overlap.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{Deployment, Heard, Phone, Via, phone::feature};

/// Patience for one question; a later answer is kept all the same.
const ASK_WITHIN: Duration = Duration::from_millis(250);
/// Time until a watch is accepted.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// Patience for the end of a registration.
const FORGET_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// The pool that made a 200 OK, by the backup registrar it names: the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Pool east.
    East,
    /// Pool west.
    West,
}

/// Phones of one user of pool east that register all the time, one at east and one at west.
#[derive(Debug)]
pub struct Watch {
    is_over: Arc<AtomicBool>,
    phones: Vec<JoinHandle<Vec<Heard>>>,
}

/// What a watch has seen.
#[derive(Debug)]
pub struct Seen {
    heard: Vec<Heard>,
}

impl Watch {
    /// Starts watching as this user, who must not be used otherwise. Each phone registers again and again.
    ///
    /// Errors: no sockets, or the first registration is refused.
    pub fn start(deployment: &Deployment, user: &str) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut phones = Vec::new();
        for server in ["east1", "west1"] {
            let phone = Phone::new(deployment, user, Via::Udp, server, "127.0.0.1")?;
            // Where the users are not served now it is told where they are; a server that just started may
            // put it off.
            let begun = crate::wait_until("a watch to be accepted", BEGIN_WITHIN, || {
                Ok([200, 302].contains(&phone.register(300)?.status))
            });
            begun.with_context(|| format!("at {server}"))?;
            let is_over = Arc::clone(&is_over);
            phones.push(thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let _kept_in_the_history = phone.register_within(300, ASK_WITHIN);
                    thread::sleep(PAUSE);
                }
                let history = phone.history("REGISTER");
                // A user has only so many contacts: the next watch needs room for its own.
                for server in ["east1", "west1"] {
                    phone.use_server(Deployment::sip(server));
                    if phone.register_within(0, FORGET_WITHIN).is_ok_and(|answer| answer.status == 200) {
                        break;
                    }
                }
                history
            }));
        }
        Ok(Self { is_over, phones })
    }

    /// Ends the watch.
    ///
    /// Errors: a watching thread failed.
    pub fn end(self) -> Result<Seen> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut heard = Vec::new();
        for phone in self.phones {
            heard.extend(phone.join().map_err(|_| anyhow!("a watching thread failed"))?);
        }
        Ok(Seen { heard })
    }
}

impl Seen {
    /// Every 200 OK of this pool.
    pub fn served_by(&self, owner: Owner) -> impl Iterator<Item = &Heard> {
        self.heard.iter().filter(move |heard| owner_of(heard) == Some(owner))
    }

    /// How many responses had this status.
    pub fn count(&self, status: u16) -> usize {
        self.heard.iter().filter(|heard| heard.message.status() == Some(status)).count()
    }

    /// Proves that there was one change from east to west and one back, or none back: every response was made
    /// between its request and its arrival, so west served at least from the first arrival to the last
    /// request of its answers; no answer of east may have been made surely within that time. Returns how long
    /// nobody is known to have served at the takeover and, if there was one, at the return.
    ///
    /// Errors: two pools served at one time, or one did not serve at all.
    pub fn prove_one_owner(&self) -> Result<(Duration, Option<Duration>)> {
        let began =
            self.served_by(Owner::West).map(|heard| heard.received).min().context("west never served")?;
        let ended = self.served_by(Owner::West).map(|heard| heard.sent).max().context("west never served")?;
        for heard in self.served_by(Owner::East) {
            ensure!(
                heard.sent < began || heard.received > ended,
                "east answered 200 while west served: request {:?} after west began, answer {:?} before \
                it ended: {:?}",
                heard.sent.saturating_duration_since(began),
                ended.saturating_duration_since(heard.received),
                heard.message
            );
        }
        let east = || self.served_by(Owner::East);
        let last =
            east().map(|heard| heard.received).filter(|at| *at < began).max().context("east never served")?;
        let again =
            east().filter(|heard| heard.received > ended && heard.sent > began).map(|heard| heard.received);
        let gap = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let first_west = began;
        let last_west = self.served_by(Owner::West).map(|heard| heard.received).max().unwrap_or(ended);
        Ok((gap(last, first_west), again.min().map(|again| gap(last_west, again))))
    }

    /// The most changes of owner that the answers prove: the longest chain of answers, by the pools in turn,
    /// each asked for after the one before it had arrived. Owners took turns at least that often; with more
    /// changes than the epoch rose, two served at one time.
    pub fn changes_proved(&self) -> usize {
        let mut answers: Vec<(Owner, &Heard)> =
            self.heard.iter().filter_map(|heard| Some((owner_of(heard)?, heard))).collect();
        answers.sort_by_key(|(_, heard)| heard.received);
        let mut changes = 0;
        let mut last: Option<(Owner, Instant)> = None;
        for (owner, heard) in answers {
            match last {
                None => last = Some((owner, heard.received)),
                Some((former, at)) if former != owner && heard.sent > at => {
                    changes += 1;
                    last = Some((owner, heard.received));
                }
                Some(_) => {}
            }
        }
        changes
    }
}

fn owner_of(heard: &Heard) -> Option<Owner> {
    if heard.message.status() != Some(200) {
        return None;
    }
    match feature(&heard.message, "+g.tandem.backup=\"")?.as_str() {
        "west.example.com" => Some(Owner::East),
        "east.example.com" => Some(Owner::West),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    /// A 200 OK between two instants, in milliseconds.
    fn served(base: Instant, backup: &str, sent: u64, received: u64) -> Heard {
        let at = |ms| base + Duration::from_millis(ms);
        let caps = format!("*;+g.tandem.mode=\"full\";+g.tandem.backup=\"{backup}.example.com\"");
        let message = Message::new("SIP/2.0 200 OK").with("Feature-Caps", caps);
        Heard { sent: at(sent), received: at(received), message }
    }

    #[test]
    fn one_change_and_one_return_are_found_right_and_their_gaps_measured() {
        let base = Instant::now();
        let heard = vec![
            served(base, "west", 0, 10),
            served(base, "east", 100, 110),
            served(base, "east", 200, 210),
            served(base, "west", 300, 310),
        ];

        let (takeover, back) = Seen { heard }.prove_one_owner().unwrap();

        assert_eq!(takeover, Duration::from_millis(100));
        assert_eq!(back, Some(Duration::from_millis(100)));
    }

    #[test]
    fn changes_of_owner_are_counted_only_where_answers_prove_them() {
        let base = Instant::now();
        let heard = vec![
            served(base, "west", 0, 10),
            served(base, "east", 20, 30),
            // Both may have been made in either order.
            served(base, "west", 25, 60),
            served(base, "east", 40, 50),
            served(base, "west", 70, 80),
        ];

        assert_eq!(Seen { heard }.changes_proved(), 2);
    }

    #[test]
    fn an_answer_of_the_former_owner_within_the_time_of_the_new_one_is_found() {
        let base = Instant::now();
        let heard = vec![
            served(base, "west", 0, 10),
            served(base, "east", 100, 110),
            served(base, "west", 120, 130),
            served(base, "east", 200, 210),
        ];

        assert!(Seen { heard }.prove_one_owner().is_err());
    }
}
