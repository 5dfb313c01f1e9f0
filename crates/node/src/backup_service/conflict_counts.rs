//! How many conflicts wait for an operator, without counting them anew for each question.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use model::PoolName;
use store::{StoreError, UserStore};

/// Conflicts read at once.
const PAGE_MAX: usize = 500;

/// The number of conflicts in each journal held here, counted again only after something changed.
#[derive(Debug, Default)]
pub struct ConflictCounts(Mutex<BTreeMap<PoolName, Counted>>);

#[derive(Clone, Copy, Debug)]
struct Counted {
    /// Number of the store's last change of which the count knows.
    at: u64,
    count: u64,
}

impl ConflictCounts {
    /// The conflicts in `journal`; `change` is a number that grows with every change of the store, read
    /// before the call. Reads at most `limits::CONFLICTS_MAX` conflicts; blocks.
    ///
    /// Errors: the store cannot be read.
    pub fn of(&self, users: &impl UserStore, journal: &PoolName, change: u64) -> Result<u64, StoreError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(journal).copied();
        if let Some(known) = known.filter(|known| known.at == change) {
            return Ok(known.count);
        }
        let (mut count, mut after) = (0, None);
        loop {
            let page = users.conflicts(journal, after, PAGE_MAX)?;
            count += u64::try_from(page.len()).unwrap_or(u64::MAX);
            match page.last() {
                Some(last) if page.len() == PAGE_MAX => after = Some(last.id),
                Some(_) | None => break,
            }
        }
        let counted = Counted { at: change, count };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(journal.clone(), counted);
        Ok(count)
    }
}
