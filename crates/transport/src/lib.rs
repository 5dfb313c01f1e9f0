//! UDP, TCP, TLS and WebSocket sockets, flows and framing.
//!
//! One [`Shard`] belongs to one thread with a tokio current-thread runtime. The thread's loop is
//!
//! ```no_run
//! # async fn run(mut shard: transport::Shard, deadline: Option<std::time::Instant>) {
//! let mut inbox = transport::Inbox::new();
//! loop {
//!     shard.next(&mut inbox, deadline).await;
//!     for event in inbox.drain() {
//!         match event {
//!             transport::Event::Datagram { peer, bytes } => {
//!                 let _refused = shard.send(&peer, bytes);
//!             }
//!             _other => {}
//!         }
//!     }
//!     // the mailbox that goes with `Shard::waker`, then the timers
//!     shard.flush();
//! }
//! # }
//! ```
//!
//! [`Shard::bind`] must be called inside the runtime (`runtime.block_on(async { Shard::bind(..) })` or an
//! entered handle): it registers sockets and spawns tasks with `tokio::spawn` - one per stream connection,
//! and one per UDP socket for the errors that come back. They are never one per message, end with the shard,
//! and run while the thread awaits [`Shard::next`]. No `LocalSet` is needed.
//!
//! A datagram is handed out in place, in a slot of the [`Inbox`]; a message of a stream is copied once into
//! [`bytes::Bytes`] of its own size, so that keeping it keeps nothing else. Nothing here knows SIP beyond
//! framing: `received` and `rport`, where to send a response, and what to do after a failure are `node`'s.
//!
//! Keep-alives end here: CRLF and empty datagrams are dropped, STUN Binding requests are answered on the SIP
//! socket (RFC 5626 section 8), CRLFCRLF on a stream is answered with CRLF.
//!
//! Which flow (RFC 3261 sections 18.1.1 and 18.2.2): a response goes to the [`model::Peer`] of its request,
//! over the connection it came by while that lives ([`Shard::send`]); a request goes over the flow that a
//! flow token names ([`Shard::peer`]) or to an address, over the connection that [`Shard::connect`] finds or
//! makes.
//!
//! Who is banned ([`BannedSources`]) is dropped here, before anything is read.
//!
//! A WebSocket (RFC 7118) is a connection with another framing: `websocket` in place of `framing`, over TCP
//! or TLS. It is only ever accepted, never made: clients of that transport cannot be connected to.
//!
//! Where the servers of a host name are (RFC 3263) is found by [`location`], for [`Shard::connect`] to go
//! there.

mod accept;
mod banned;
mod config;
mod connection;
mod dial;
mod error;
mod event;
mod flows;
mod framing;
mod hub;
mod inbox;
mod link;
pub mod location;
mod mmsg;
mod shard;
mod sockets;
mod stun;
pub mod tls;
mod udp;
mod upgrade;
mod waker;
mod websocket;

pub use banned::BannedSources;
pub use config::{Destination, Settings, ShardConfig, TlsConfigs};
pub use error::{BindError, CloseReason, ConnectError, ConnectFailure, SendError, SendFailure};
pub use event::Event;
pub use inbox::{Backlog, Inbox};
pub use shard::{Bound, Counters, Shard};
pub use waker::ShardWaker;
