//! How much of anything a peer may have, and how long it may take.

use std::time::Duration;

/// The bounds of connections; the defaults fit nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that a server has at once; one more is told so and closed. An attachment has `data_connections` and one more to each replica.
    pub connections: usize,
    /// Connections to a server that it does not know yet, since they have not come to the end of TLS and the first messages, at once; one more is closed. Many come at once when a
    /// node is back; an attachment tries again.
    pub handshakes: usize,
    /// Connections of a link that carry blocks. More of them use more cores, and more system calls.
    pub data_connections: usize,
    /// Bytes that the requests of one connection hold at a server at once: what they write, or will have read. More is left in the network, where the sender's
    /// outbox notices it. At least 4 MiB, the longest request.
    pub bytes: u32,
    /// Bytes that wait to be sent on one connection; more are dropped, and asked again later.
    pub outbox_bytes: usize,
    /// Messages that wait to be sent on one connection.
    pub outbox_messages: usize,
    /// How long connecting, TLS and the first messages may take together.
    pub handshake: Duration,
    /// How long what was sent may stay without the peer's machine having it, before the connection is given up.
    pub stall: Duration,
    /// How long after a failure a connection is tried again: twice as long each time, from the first to the second.
    pub backoff: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshakes: 1024,
            data_connections: 2,
            bytes: 16 << 20,
            outbox_bytes: 64 << 20,
            outbox_messages: 8192,
            handshake: Duration::from_secs(5),
            stall: Duration::from_secs(10),
            backoff: (Duration::from_millis(50), Duration::from_secs(2)),
        }
    }
}

/// How long a connection may be silent before the peer's machine is asked whether it is there, how long it may take to answer, and how often it is asked.
/// Leases notice a peer that is gone sooner; this frees what belonged to it.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
pub(super) const KEEPALIVE_PROBES: u32 = 3;
/// How long a page of what a snapshot has may take: for it a pool reads some sixty blocks of its map, beside all else that its disk has to do.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// Neighbouring blocks that take the same connection: 256 KiB, so that a sequential writer uses all of them and its requests still go out together.
pub(super) const STRIPE_BLOCKS: u64 = 64;
