//! Answered transactions in the order in which they were answered.

use std::collections::VecDeque;

use crate::table::Id;

/// A queue of transactions that end after the same time, so that those that have ended are at its front.
#[derive(Debug, Default)]
pub(crate) struct Answered(VecDeque<Id>);

impl Answered {
    /// Adds the newest, and forgets those at the front that have ended by themselves.
    pub(crate) fn push(&mut self, id: Id, is_live: impl Fn(Id) -> bool) {
        while self.0.front().is_some_and(|&id| !is_live(id)) {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }

    /// How many there are, those that have ended behind the front included.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of them have not ended, counted up to `most`.
    pub(crate) fn count(&self, most: usize, is_live: impl Fn(Id) -> bool) -> usize {
        self.0.iter().filter(|&&id| is_live(id)).take(most).count()
    }

    /// Takes the oldest that has not ended.
    pub(crate) fn pop(&mut self, is_live: impl Fn(Id) -> bool) -> Option<Id> {
        loop {
            let id = self.0.pop_front()?;
            if is_live(id) {
                return Some(id);
            }
        }
    }
}
