//! Every bound on what others can fill. Each has an answer when it is reached, named here.

use std::time::Duration;

/// Octets of one SIP message, body included. More: 513 on a datagram or the stream is closed.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// Octets of the header section of a message. More: 513 or the stream is closed.
pub const HEADER_SECTION_BYTES_MAX: usize = 32_768;
/// Header lines in one message. More: 400.
pub const HEADERS_MAX: usize = 256;
/// Values of one header, commas and repeated lines counted alike. More: 400.
pub const HEADER_VALUES_MAX: usize = 128;
/// Via values a request may carry when it reaches us. More: 400.
pub const VIAS_MAX: usize = 70;
/// Octets of an address-of-record. More: 400.
pub const ADDRESS_OF_RECORD_BYTES_MAX: usize = 256;
/// Octets of one Contact URI with its parameters. More: 400.
pub const CONTACT_BYTES_MAX: usize = 1_024;
/// Octets of a device's instance that goes into its public GRUU. More: it has none.
pub const GRUU_INSTANCE_BYTES_MAX: usize = 128;
/// Octets of all Path values of one registration. More: 400.
pub const PATH_BYTES_MAX: usize = 2_048;
/// Octets of a Call-ID kept with a binding. More: 400.
pub const CALL_ID_BYTES_MAX: usize = 256;
/// Contacts in one REGISTER. More: 400.
pub const CONTACTS_PER_REGISTER_MAX: usize = 32;
/// Default of the devices of one user. More: 403 with the reason.
pub const DEVICES_PER_USER_DEFAULT: u16 = 8;
/// The most devices a topology may allow one user.
pub const DEVICES_PER_USER_MAX: u16 = 64;
/// Targets of one forked request. The rest is left out, lowest q first.
pub const TARGETS_MAX: usize = 64;
/// Forwarded branches of one request, redirects included. More: the best response so far.
pub const BRANCHES_MAX: usize = 64;
/// Routing groups of a pool.
pub const ROUTING_GROUPS: u8 = 12;
/// Server transactions of one shard. More: 503 with Retry-After.
pub const SERVER_TRANSACTIONS_MAX: usize = 200_000;
/// Answered server transactions of one shard that wait for nothing but retransmissions: 2,000 requests a
/// second over the 32 s of Timer J (RFC 3261 section 17.2.2). More: the oldest ends early, so that what is
/// kept stays small enough for the processor's caches at any load.
pub const SERVER_TRANSACTIONS_ANSWERED_MAX: usize = 65_536;
/// Client transactions of one shard. More: 503 with Retry-After upstream.
pub const CLIENT_TRANSACTIONS_MAX: usize = 200_000;
/// Forwarded requests that one shard keeps. More: 503 with Retry-After.
pub const PROXY_CONTEXTS_MAX: usize = 100_000;
/// Stream connections of one shard. More: the newest is closed.
pub const CONNECTIONS_MAX: usize = 100_000;
/// Stream connections of one remote address. More: the newest is closed.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 20_000;
/// Octets waiting to be written to one connection. More: the connection is closed.
pub const CONNECTION_WRITE_BYTES_MAX: usize = 262_144;
/// Octets of the HTTP request by which a connection becomes a WebSocket. More: 431 and closed.
pub const UPGRADE_BYTES_MAX: usize = 8_192;
/// Octets that are read and dropped from a connection after our close, so that our last answer is not lost:
/// what may be under way. More: the connection is reset.
pub const CONNECTION_LINGER_BYTES_MAX: usize = 1_048_576;
/// Time a connection may take for its TLS handshake, for its upgrade to WebSocket and for each whole message.
/// More: closed.
pub const CONNECTION_HALF_OPEN_MAX: Duration = Duration::from_secs(10);
/// Commands waiting for the disk of one server. More: 503 with Retry-After.
pub const COMMANDS_WAITING_MAX: usize = 65_536;
/// Commands of one group commit.
pub const COMMIT_BATCH_MAX: usize = 1_024;
/// Emergency numbers of one pool. More: the topology is refused.
pub const EMERGENCY_NUMBERS_MAX: usize = 32;
/// Octets of a topology document. More: refused.
pub const TOPOLOGY_BYTES_MAX: usize = 4 * 1_048_576;
/// Octets of the body of one request between servers. More: 413.
pub const PEER_BODY_BYTES_MAX: usize = 8 * 1_048_576;
/// Changes in one page of a journal, of an import or of a commit. More: refused, or a further page.
pub const ACCOUNTS_PER_PAGE_MAX: usize = 2_000;
/// Requests between servers that wait for one peer. More: the newest fails.
pub const PEER_REQUESTS_MAX: usize = 256;
/// Nonces whose counts one server remembers. More: the oldest leave and their next use is `stale`.
pub const NONCES_TRACKED_MAX: usize = 1_000_000;
/// By how much wall clocks of two servers may differ without harm.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);
/// Octets of the key of a control record. More: refused.
pub const CONTROL_KEY_BYTES_MAX: usize = 256;
/// Octets of one control record. More: refused.
pub const CONTROL_VALUE_BYTES_MAX: usize = 65_536;
/// Records in one control store. More: refused.
pub const CONTROL_RECORDS_MAX: usize = 65_536;
/// Home pools of which one store holds data. More: refused.
pub const HOME_POOLS_MAX: usize = 1_024;
/// Newest operations of a home pool's user data that are recognised when repeated. Older: executed again,
/// except the one that made an account what it is.
pub const JOURNAL_OPERATIONS_MAX: u64 = 100_000;
/// Time without an octet after which a stream connection is closed, unless configured: longer than the half
/// hour after which a phone refreshes a registration of one hour.
pub const CONNECTION_IDLE_DEFAULT: Duration = Duration::from_secs(2_400);
/// Events of stream connections that wait for one shard. More: connections are not read until there is room.
pub const STREAM_EVENTS_MAX: usize = 1_024;
/// Octets of messages that wait for one shard. More: connections are not read until there is room.
pub const STREAM_EVENT_BYTES_MAX: usize = 8 * 1_048_576;
/// Octets of datagrams of one UDP socket that wait for the system to take them. More: the newest is refused.
pub const DATAGRAM_QUEUE_BYTES_MAX: usize = 4 * 1_048_576;
/// Reports of lost datagrams that wait for one shard. More: the newest is dropped and counted.
pub const SEND_FAILURES_MAX: usize = 1_024;
/// Operations that one routing group remembers, so that a repeated one takes effect once. More: the oldest
/// are forgotten; the order of CSeq then refuses a repetition.
pub const OPERATIONS_REMEMBERED_MAX: usize = 4_096;
/// Bindings of one user after those of two pools were merged. The oldest are left out.
pub const BINDINGS_PER_USER_MAX: usize = 256;
/// Removed bindings that one user's routing group remembers, so that no copy of them comes back. More: those
/// that end first are forgotten, and a copy that the other pool kept of them is seen until it expires.
pub const REMOVALS_PER_USER_MAX: usize = 64;
/// Changes of bindings of one home pool that are kept for the other pool. More: the oldest are forgotten, and
/// a reader that has not read them begins a full copy.
pub const BINDING_CHANGES_MAX: usize = 65_536;
/// Users in one page of the binding stream.
pub const BINDING_USERS_PER_PAGE_MAX: usize = 500;
/// Readers of one home pool's bindings that wait for news. More: the one that waits longest gets an empty
/// page.
pub const BINDING_READERS_MAX: usize = 16;
/// Flows of one device (RFC 5626 section 4.2.1 expects up to four). More: 403 with the reason.
pub const FLOWS_PER_DEVICE_MAX: u16 = 4;
/// Octets of a destination of forwarding or simultaneous ring, and of the other party in a call record. More:
/// refused; of a call record the rest is left out.
pub const DESTINATION_BYTES_MAX: usize = 256;
/// How often a call may be sent on by forwarding and simultaneous ring. After that it rings where it is.
pub const DIVERSIONS_MAX: usize = 10;
/// Destinations that ring together with a user's phones. More: refused.
pub const SIMULTANEOUS_RING_MAX: usize = 8;
/// Contacts in one user's list. More: refused.
pub const CONTACTS_PER_LIST_MAX: usize = 1_000;
/// Groups in one user's contact list. More: refused.
pub const GROUPS_PER_LIST_MAX: usize = 64;
/// Octets of the name of a group or of a contact in a list. More: refused.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Calls that began, were answered or ended and are not written down yet, of one server. More: the newest are
/// not written down, and counted.
pub const CALL_EVENTS_WAITING_MAX: usize = 20_000;
/// Answered calls whose end one server awaits. More: of the oldest the end is not written down.
pub const CALLS_AWAITED_MAX: usize = 100_000;
/// Call records that one server keeps for the owner of the user data while there is none. More: the newest
/// are not kept, and counted.
pub const CALL_RECORDS_SPOOLED_MAX: usize = 200_000;
/// Calls that are remembered for one user. More: the oldest leave.
pub const CALL_RECORDS_MAX: usize = 100;
/// Octets of one edit of a document. More: 413.
pub const DOCUMENT_EDIT_BYTES_MAX: usize = 65_536;
/// Octets of one document as stored: `CONTACTS_PER_LIST_MAX` contacts with long names. More: refused.
pub const DOCUMENT_BYTES_MAX: usize = 1_048_576;
/// Subscriptions to registrations that one shard keeps. More: 503 with Retry-After.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Subscriptions to the registrations of one user in one shard. More: 403 with the reason.
pub const SUBSCRIPTIONS_PER_USER_MAX: usize = 16;
/// Octets of each header kept for a dialog of ours: From, To, all Record-Route values. More: 400.
pub const DIALOG_HEADER_BYTES_MAX: usize = 2_048;
/// Octets of the `id` parameter of an Event header. More: 400.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Octets of one document of registration information. Contacts beyond, least preferred first, are left out.
pub const REGINFO_BYTES_MAX: usize = 32_768;
/// Contacts of one user that have ended and are to be reported. More: the oldest are not.
pub const CONTACTS_ENDED_MAX: usize = 64;
/// Octets of documents in one page of a journal or of orphans, beyond its first document. More: a further
/// page. With its first document and the rest of its entries it stays below `PEER_BODY_BYTES_MAX`.
pub const JOURNAL_PAGE_BYTES_MAX: usize = 4 * 1_048_576;
/// Octets of documents in one page of users who go to another journal, beyond its last user. More: a further
/// page.
pub const MOVE_PAGE_BYTES_MAX: usize = 2 * 1_048_576;
/// Users in one page of those who go to another journal, and removed at a time where they were. More: again.
pub const MOVE_USERS_MAX: usize = 500;
/// Conflicts of one journal that wait for the operator. More: no more orphans are adopted until some are
/// resolved; they stay where they are.
pub const CONFLICTS_MAX: usize = 10_000;
/// Requests of one shard that wait while a home pool's users are between two owners. More: 503 with
/// Retry-After.
pub const REQUESTS_HELD_MAX: usize = 20_000;
/// Addresses that one shard remembers to refuse TCP. More: the oldest are forgotten and tried again.
pub const TCP_REFUSALS_MAX: usize = 20_000;
/// Sources whose offences one server counts. More: those that did nothing for longest are forgotten.
pub const SOURCES_TRACKED_MAX: usize = 65_536;
/// Users whose passwords are guessed from one source, of which that is remembered. More: the one who would
/// wait the shortest is forgotten.
pub const USERS_PER_SOURCE_MAX: usize = 32;
/// Bans of one server, those included that are over and make the next one longer. More: the one that would
/// end first ends.
pub const BANS_MAX: usize = 10_000;
/// Networks of one pool that are never banned. More: the topology is refused.
pub const BAN_EXEMPT_MAX: usize = 256;
/// The longest ban that an operator may order. More: 400.
pub const BAN_ORDERED_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Addresses that one request tries of the servers of a host (RFC 3263). The rest is left out.
pub const LOCATED_PLACES_MAX: usize = 16;
/// Servers of a host that are looked up. The rest, with the highest priorities, is left out.
pub const LOCATED_SERVERS_MAX: usize = 16;
/// Longest time for which the servers of a host are believed, whatever the zone says.
pub const DNS_LIFETIME_MAX: Duration = Duration::from_secs(3_600);
/// Shortest time for which they are.
pub const DNS_LIFETIME_MIN: Duration = Duration::from_secs(1);
/// Longest time for which it is believed that a host has none.
pub const DNS_NOTHING_LIFETIME_MAX: Duration = Duration::from_secs(60);
/// Hosts of which one shard keeps the servers. More: those that ended are forgotten, then all.
pub const HOSTS_KNOWN_MAX: usize = 10_000;
/// Hosts that are looked up at a time, by one server. More wait.
pub const HOSTS_LOOKED_UP_MAX: usize = 64;
/// Hosts that wait to be looked up, by one server. More: 504.
pub const HOSTS_WAITING_MAX: usize = 4_096;
/// Requests of one shard that wait for the address of a host. More: 504.
pub const REQUESTS_FOR_HOSTS_MAX: usize = 4_096;
/// Failed addresses of hosts that one shard remembers. More: the oldest are forgotten.
pub const PLACES_FAILED_MAX: usize = 10_000;
/// Name servers of one pool. More: the topology is refused.
pub const DNS_SERVERS_MAX: usize = 8;
