//! What the transactions count.

/// What happened since the shard started; for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Responses that matched no client transaction, and were dropped (RFC 6026 section 7.2).
    pub stray_responses: u64,
    /// Requests absorbed as retransmissions, answered again or not.
    pub retransmissions_received: u64,
    /// ACKs absorbed by the INVITE server transaction they belong to.
    pub acks_absorbed: u64,
    /// Requests and responses that timers or retransmissions made us send again, ACKs included.
    pub retransmissions_sent: u64,
    /// 100 Trying sent because the TU took its time.
    pub trying_sent: u64,
    /// Client transactions that ended without a final response.
    pub client_timeouts: u64,
    /// Client transactions whose request did not reach its peer.
    pub client_failures: u64,
    /// Server transactions that ended without a final response of the TU.
    pub unanswered: u64,
    /// Answered transactions that ended early to make room.
    pub ended_early: u64,
    /// Requests refused because there were too many transactions.
    pub refused: u64,
}
