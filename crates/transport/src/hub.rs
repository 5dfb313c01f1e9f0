//! Where connection tasks and their shard meet: the queue of events, with back-pressure, and one read buffer.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use model::limits;

use crate::{BannedSources, Settings, event::Event};

/// Octets of one read of a stream; holds the longest TLS record.
const READ_BYTES: usize = 32_768;

pub(crate) struct Hub {
    pub(crate) settings: Settings,
    pub(crate) banned: Arc<BannedSources>,
    /// Reports of lost datagrams that found no room.
    pub(crate) failures_dropped: AtomicU64,
    queue: Mutex<Queue>,
    /// All tasks of a shard run on one thread and read one after the other: one buffer is enough, and a
    /// connection that waits holds none.
    read_buffer: Mutex<Box<[u8]>>,
}

struct Queue {
    events: VecDeque<Event<'static>>,
    message_bytes: usize,
    failures: usize,
    shard: Option<Waker>,
    blocked: Vec<Waker>,
    /// Counts how often the shard took the events, which also empties `blocked`.
    turn: u64,
}

impl Hub {
    pub(crate) fn new(settings: Settings, banned: Arc<BannedSources>) -> Self {
        Self {
            settings,
            banned,
            failures_dropped: AtomicU64::new(0),
            queue: Mutex::new(Queue {
                events: VecDeque::new(),
                message_bytes: 0,
                failures: 0,
                shard: None,
                blocked: Vec::new(),
                turn: 1,
            }),
            read_buffer: Mutex::new(vec![0; READ_BYTES].into_boxed_slice()),
        }
    }

    /// Appends an event and wakes the shard.
    pub(crate) fn push(&self, event: Event<'static>) {
        let mut queue = self.queue();
        match &event {
            Event::Message { bytes, .. } | Event::Malformed { bytes, .. } => {
                queue.message_bytes += bytes.len()
            }
            Event::SendFailed { .. } if queue.failures >= limits::SEND_FAILURES_MAX => {
                self.failures_dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Event::SendFailed { .. } => queue.failures += 1,
            // One each per connection, so bounded by the connections.
            Event::Datagram { .. } | Event::Closed { .. } | Event::ConnectFailed { .. } => {}
        }
        queue.events.push_back(event);
        let shard = queue.shard.take();
        drop(queue);
        if let Some(shard) = shard {
            shard.wake();
        }
    }

    /// Ready while messages may be added; otherwise wakes the task when the shard has taken them.
    ///
    /// `waits_in_turn` belongs to the task, 0 at first: in which turn it was put on the list.
    pub(crate) fn poll_room(&self, cx: &Context<'_>, waits_in_turn: &mut u64) -> Poll<()> {
        let mut queue = self.queue();
        if queue.events.len() < self.settings.events_max.max(1)
            && queue.message_bytes < limits::STREAM_EVENT_BYTES_MAX
        {
            return Poll::Ready(());
        }
        if *waits_in_turn != queue.turn {
            *waits_in_turn = queue.turn;
            queue.blocked.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Swaps the waiting events into `events`, which is empty; otherwise wakes the shard at the next one.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, events: &mut VecDeque<Event<'static>>) -> Poll<()> {
        let mut queue = self.queue();
        if queue.events.is_empty() {
            match &mut queue.shard {
                Some(known) => known.clone_from(cx.waker()),
                None => queue.shard = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        std::mem::swap(&mut queue.events, events);
        queue.message_bytes = 0;
        queue.failures = 0;
        queue.turn += 1;
        for waker in queue.blocked.drain(..) {
            waker.wake();
        }
        Poll::Ready(())
    }

    pub(crate) fn read_buffer(&self) -> MutexGuard<'_, Box<[u8]>> {
        self.read_buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
