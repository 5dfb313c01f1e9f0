//! Waiting for a store that another process is letting go of.

use std::{thread, time::Duration};

use crate::StoreError;

const PAUSE: Duration = Duration::from_millis(20);
const ATTEMPTS: u32 = 50;

/// Opens a store; while it is in use, tries again for a second.
///
/// The process before may still be ending, and one that starts another process shares its locks with it for a
/// moment.
pub(crate) fn patiently<T>(mut open: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 1..ATTEMPTS {
        match open() {
            Err(StoreError::InUse { .. }) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    open()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_free_in_a_moment_is_opened_and_other_errors_do_not_wait() {
        let mut attempts = 0;
        let opened = patiently(|| {
            attempts += 1;
            if attempts < 3 { Err(StoreError::InUse { file: "x".into() }) } else { Ok(attempts) }
        });
        let mut tries = 0;
        let damaged: Result<(), _> = patiently(|| {
            tries += 1;
            Err(StoreError::corrupt("x".as_ref(), "damaged"))
        });

        assert_eq!(opened.unwrap(), 3);
        assert!(matches!(damaged, Err(StoreError::Corrupt { .. })));
        assert_eq!(tries, 1);
    }
}
