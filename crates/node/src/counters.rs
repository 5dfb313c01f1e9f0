//! What happened since the start, counted without locks.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:expr])* $name:ident,)*) => {
        /// Counters of one server; each only grows.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Names and values, in the order of the source.
            pub fn list(&self) -> Vec<(String, u64)> {
                vec![$((stringify!($name).to_owned(), self.$name.value()),)*]
            }

            /// What each of them counts, in the order of [`Self::list`].
            pub fn meanings() -> Vec<&'static str> {
                vec![$(concat!($($doc),*).trim(),)*]
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
    /// Registrations removed to make room for a new device of the same user.
    devices_replaced,
    /// REGISTERs and requests answered 401 or 407.
    challenges_sent,
    /// Passwords that were wrong, or of users who do not exist, with a nonce sent to where they came from.
    credentials_wrong,
    /// Passwords that were not looked at because several before them were wrong, answered 503.
    guesses_slowed,
    /// Bans that began.
    bans_begun,
    /// REGISTERs answered 503 because nobody may serve the user now.
    registers_unavailable,
    /// REGISTERs passed on to the owner.
    registers_forwarded,
    /// Requests that waited for a new owner instead of being refused.
    requests_held,
    /// REGISTERs redirected to the owner.
    registers_redirected,
    /// REGISTERs that make a new binding, put off with 503 in a storm.
    registers_deferred,
    /// Requests that begin something new, put off with 503 in a storm.
    requests_deferred,
    /// Datagrams that the kernel dropped because a shard did not fetch them in time.
    datagrams_dropped,
    /// STUN keep-alives of phones answered on a SIP port (RFC 5626 section 8).
    stun_answered,
    /// Datagrams that began like STUN and could not be answered.
    stun_dropped,
    /// Connections of phones closed because nothing came within Flow-Timer and its grace (RFC 5626).
    flows_silent,
    /// Connections closed at once because there were too many.
    connections_refused,
    /// Datagrams dropped because their source is banned.
    datagrams_banned,
    /// Connections refused or closed because their source is banned.
    connections_banned,
    /// Times at which a shard began to put something off.
    storms_begun,
    /// Subscriptions of phones to their registrations that were accepted.
    subscriptions_accepted,
    /// NOTIFY requests sent to them.
    notifications_sent,
    /// Phones that were told to register again because their users have another owner.
    phones_steered,
    /// Writes whose outcome is unknown, answered 503.
    writes_unknown,
    /// Requests forwarded.
    requests_forwarded,
    /// Requests that waited until a host was looked up (RFC 3263).
    requests_for_hosts,
    /// Requests that went to another address of a host after one had failed (RFC 3263 section 4.3).
    requests_at_next_address,
    /// Requests too long for UDP that were sent over TCP (RFC 3261 section 18.1.1).
    long_requests_by_tcp,
    /// Of these, those that went over UDP after all because TCP was refused.
    long_requests_refused,
    /// Requests routed by the copied bindings of a pool whose owner does not answer.
    requests_by_copy,
    /// Requests refused because a table was full.
    requests_overloaded,
    /// Call records written into call logs by this server.
    call_records_written,
    /// Call records kept for the owner of the user data.
    call_records_spooled,
    /// Call records kept before that the owner of the user data has now.
    call_records_delivered,
    /// Calls and call records for which there was no room.
    call_records_lost,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `count`.
    pub fn add_many(&self, count: usize) {
        if count > 0 {
            self.0.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
