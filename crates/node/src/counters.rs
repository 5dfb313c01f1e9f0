//! What happened since the start, counted without locks.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one server; each only grows.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Names and values, in the order of the source.
            pub fn list(&self) -> Vec<(String, u64)> {
                vec![$((stringify!($name).to_owned(), self.$name.value()),)*]
            }
        }
    };
}

counters! {
    /// Requests that came from phones.
    requests_from_phones,
    /// Requests that came from other servers.
    requests_from_servers,
    /// Messages that could not be read.
    messages_malformed,
    /// Responses that belong to no request of ours.
    responses_stray,
    /// REGISTERs answered 200.
    registers_accepted,
    /// REGISTERs and requests answered 401 or 407.
    challenges_sent,
    /// REGISTERs answered 503 because nobody may serve the user now.
    registers_unavailable,
    /// REGISTERs passed on to the owner.
    registers_forwarded,
    /// REGISTERs redirected to the owner.
    registers_redirected,
    /// Writes whose outcome is unknown, answered 503.
    writes_unknown,
    /// Requests forwarded.
    requests_forwarded,
    /// Requests refused because a table was full.
    requests_overloaded,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
