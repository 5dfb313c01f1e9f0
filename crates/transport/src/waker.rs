//! Interrupting a shard that waits.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Makes the next or current [`crate::Shard::next`] of one shard return; for other threads that put something
/// into the shard's mailbox. Put first, then wake. Several wakes before one `next` are one.
#[derive(Clone, Default)]
pub struct ShardWaker(Arc<Bell>);

#[derive(Default)]
struct Bell {
    is_rung: AtomicBool,
    sleeper: Mutex<Option<Waker>>,
}

impl ShardWaker {
    /// Wakes the shard; cheap when it is already woken.
    pub fn wake(&self) {
        if !self.0.is_rung.swap(true, Ordering::AcqRel) {
            let sleeper = self.0.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
        }
    }

    /// Takes a wake, or remembers whom to wake.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.0.is_rung.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        let mut sleeper = self.0.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *sleeper {
            Some(known) => known.clone_from(cx.waker()),
            None => *sleeper = Some(cx.waker().clone()),
        }
        drop(sleeper);
        // A wake between the first look and the registration found no sleeper.
        if self.0.is_rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl fmt::Debug for ShardWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardWaker").finish_non_exhaustive()
    }
}
