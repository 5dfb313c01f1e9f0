//! Waiting for something to happen, with a deadline instead of a guess.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` finds something; returns it and how long that took.
///
/// Errors: nothing within `limit`; the message says `what` was waited for.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok((found, began.elapsed()));
        }
        if began.elapsed() >= limit {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until `look` says yes; returns how long that took.
///
/// Errors: as [`wait_for`].
pub fn wait_until(what: &str, limit: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<Duration> {
    wait_for(what, limit, || Ok(look()?.then_some(()))).map(|((), took)| took)
}
