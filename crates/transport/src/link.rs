//! The shard's end of one connection: what waits to be written, and the order to close.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;

use crate::SendError;

/// Shared by the shard, which writes into it, and the connection's task, which empties it.
pub(crate) struct Link(Mutex<State>);

struct State {
    order: Order,
    /// Accepted by `send`, not yet taken by the task.
    waiting: Vec<u8>,
    /// Taken by the task, not yet by the socket.
    in_flight: usize,
    task: Option<Waker>,
    /// Within which time the far end has promised to be heard again and again.
    heard_within: Option<Duration>,
}

/// What the shard wants of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Serve,
    CloseAfterFlush,
    Close,
    /// Close, because more was to be written than may wait.
    Overflowed,
}

impl Link {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State {
            order: Order::Serve,
            waiting: Vec::new(),
            in_flight: 0,
            task: None,
            heard_within: None,
        }))
    }

    /// Adds octets to be written, `header` first; above `bytes_max` in all, orders the end of the connection.
    pub(crate) fn push(&self, header: &[u8], bytes: &[u8], bytes_max: usize) -> Result<(), SendError> {
        let mut state = self.state();
        if state.order != Order::Serve {
            return Err(SendError::Closed);
        }
        let queued = state.in_flight + state.waiting.len() + header.len() + bytes.len();
        let result = if queued > bytes_max {
            state.order = Order::Overflowed;
            Err(SendError::QueueFull)
        } else {
            state.waiting.extend_from_slice(header);
            state.waiting.extend_from_slice(bytes);
            Ok(())
        };
        wake(state);
        result
    }

    /// Orders the end of the connection; a later order may only be a harder one.
    pub(crate) fn close(&self, after_flush: bool) {
        let mut state = self.state();
        match (state.order, after_flush) {
            (Order::Serve, true) => state.order = Order::CloseAfterFlush,
            (Order::Serve | Order::CloseAfterFlush, false) => state.order = Order::Close,
            (Order::CloseAfterFlush | Order::Close | Order::Overflowed, _) => return,
        }
        wake(state);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state().order == Order::Serve
    }

    /// Expects something of the far end within this time, again and again.
    pub(crate) fn expect_within(&self, within: Duration) {
        let mut state = self.state();
        if state.heard_within != Some(within) {
            state.heard_within = Some(within);
            wake(state);
        }
    }

    /// The order in force, and within which time the far end has to be heard; wakes the task when one of them
    /// changes or something is to be written.
    pub(crate) fn poll_order(&self, cx: &Context<'_>) -> (Order, Option<Duration>) {
        let mut state = self.state();
        match &mut state.task {
            Some(known) => known.clone_from(cx.waker()),
            None => state.task = Some(cx.waker().clone()),
        }
        (state.order, state.heard_within)
    }

    /// Adds the octets of an answer that the task itself gives; false when they are too many.
    pub(crate) fn answer(&self, bytes: &[u8], bytes_max: usize) -> bool {
        let mut state = self.state();
        let fits = state.in_flight + state.waiting.len() + bytes.len() <= bytes_max;
        if fits {
            state.waiting.extend_from_slice(bytes);
        }
        fits
    }

    /// Hands all waiting octets to the task.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut state = self.state();
        let taken = mem::take(&mut state.waiting);
        state.in_flight += taken.len();
        taken
    }

    /// The socket took `length` octets.
    pub(crate) fn written(&self, length: usize) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(length);
    }

    /// Ends the connection: nothing more is accepted. Returns how many octets were in flight, and what
    /// waited.
    pub(crate) fn finish(&self) -> (usize, Bytes) {
        let mut state = self.state();
        if state.order == Order::Serve {
            state.order = Order::Close;
        }
        state.task = None;
        (state.in_flight, Bytes::from(mem::take(&mut state.waiting)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let task = state.task.take();
    drop(state);
    if let Some(task) = task {
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_may_wait_ends_the_connection_and_is_not_kept() {
        let link = Link::new();

        assert_eq!(link.push(b"12", b"345678", 10), Ok(()));
        assert_eq!(link.take(), b"12345678");
        assert_eq!(link.push(b"a", b"bc", 10), Err(SendError::QueueFull));
        assert_eq!(link.push(b"", b"a", 10), Err(SendError::Closed));
        assert!(!link.is_open());
        assert_eq!(link.finish(), (8, Bytes::new()));
    }

    #[test]
    fn what_the_socket_took_makes_room() {
        let link = Link::new();
        link.push(b"12", b"345678", 10).unwrap();
        link.take();
        link.written(8);

        assert_eq!(link.push(b"", b"1234567890", 10), Ok(()));
    }

    #[test]
    fn a_flushing_close_may_become_an_immediate_one_but_not_the_reverse() {
        let link = Link::new();

        link.close(true);
        link.close(false);
        link.close(true);

        assert_eq!(link.state().order, Order::Close);
    }
}
