//! What other threads put into a shard's mailbox.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use model::{AddressOfRecord, Peer, Source, limits};
use registrar::{Outcome, reg_event::Cause};
use store::HotError;
use transport::{ShardWaker, TlsConfigs, location::Sought};

use super::register::Waiting;
use crate::locator::Found;

/// One thing put into a shard's mailbox.
pub enum Mail {
    /// What became of a batch of commands: who waits, and in the same order what for.
    Outcomes(Vec<Waiting>, Vec<Result<Outcome, HotError>>),
    /// A message for a flow of this shard.
    Send {
        /// Where to.
        to: Peer,
        /// What.
        bytes: Bytes,
        /// The shard to be told when the flow is gone.
        from: u16,
    },
    /// What another shard was to send to this peer does not leave: the flow is gone.
    NotSent {
        /// The peer.
        to: Peer,
    },
    /// A response that another shard received for a request of this one.
    Response {
        /// Where it came from.
        from: Peer,
        /// The response.
        bytes: Bytes,
    },
    /// The bindings of a user with subscriptions here have changed.
    BindingsChanged {
        /// Whose.
        aor: AddressOfRecord,
        /// By what.
        cause: Cause,
    },
    /// A host that this shard asked for, and what became of it.
    Located(Box<(Sought, Found)>),
    /// Other certificates and trust for connections from now on.
    Tls(Box<TlsConfigs>),
    /// A source is banned: its connections are to be closed.
    Banned(Source),
    /// End.
    Stop,
}

/// The way into the mailbox of one shard. Clones share it.
#[derive(Clone)]
pub struct Mailer {
    waiting: Arc<Mutex<VecDeque<Mail>>>,
    waker: ShardWaker,
}

impl Mailer {
    /// The mailbox of the shard that this waker wakes.
    pub fn new(waker: ShardWaker) -> Self {
        Self { waiting: Arc::default(), waker }
    }

    /// Puts something in and wakes the shard. Messages are dropped when the mailbox is full, as a network
    /// would; outcomes never are, since their number is bounded by what waits for the disk or for a host,
    /// nor what the server itself orders.
    pub fn post(&self, mail: Mail) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let may_be_lost = match &mail {
            // Who has a connection open is not listened to all the same.
            Mail::Banned(_) => true,
            // A change that is not told is found a minute later at the latest.
            Mail::Send { .. }
            | Mail::NotSent { .. }
            | Mail::Response { .. }
            | Mail::BindingsChanged { .. } => true,
            Mail::Outcomes(..) | Mail::Located(_) | Mail::Tls(_) | Mail::Stop => false,
        };
        if !(may_be_lost && waiting.len() >= limits::COMMANDS_WAITING_MAX) {
            waiting.push_back(mail);
        }
        drop(waiting);
        self.waker.wake();
    }

    /// Takes everything out, in order.
    pub fn take(&self) -> VecDeque<Mail> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
