//! How much of anything a client may have.

use std::time::Duration;

/// The bounds of a server; the defaults fit one that serves a few clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. One more is closed at once: waiting would let idle ones keep a busy one out without a word.
    pub connections: usize,
    /// Requests of one connection that are worked on at once; the next is not taken before one is answered. nbdcopy has 64 in flight over four
    /// connections, qemu 16, the kernel's client 128.
    pub requests: usize,
    /// Bytes that the requests of one connection hold at once: what they read or write, and the states of stretches that they ask for. One
    /// request of the longest kind is always allowed.
    pub bytes: u32,
    /// How long the handshake may take: a person at a shell needs less, and a client that says nothing must not keep a place.
    pub handshake: Duration,
    /// How long a client may take to accept a part of a reply before it counts as dead.
    pub stall: Duration,
    /// How long requests in flight may go on when the server is stopped.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16,
            requests: 128,
            bytes: 32 << 20,
            handshake: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            farewell: Duration::from_secs(5),
        }
    }
}

/// How long a client over TCP may say nothing before he is asked whether he is there, how long he may take to answer, and how often he is
/// asked: one whose machine is gone loses his place after two minutes.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const KEEPALIVE_PROBES: u32 = 6;
/// Bytes of an option that are kept; longer ones are skipped and refused. The longest name has 4 KiB, and 15 queries of that length fit.
pub(crate) const MAX_OPTION_LEN: u32 = 64 << 10;
/// Bytes of an option that are skipped before the connection is closed instead.
pub(crate) const MAX_SKIPPED_LEN: u32 = 16 << 20;
/// Options in one handshake; a client needs about five.
pub(crate) const MAX_OPTIONS: usize = 128;
/// Bytes of a name or another text, as the protocol says.
pub(crate) const MAX_TEXT_LEN: usize = 4096;
/// Stretches that one answer about a context has at most; the client asks again for the rest. 8 bytes each.
pub(crate) const MAX_STATUSES: usize = 8192;
/// Contexts that are told of in one answer; a volume with more snapshots tells of each by its name.
pub(crate) const MAX_LISTED: usize = 10_000;
/// Contexts that a connection has; a client needs one or two, and an answer has the stretches of all.
pub(crate) const MAX_CHOSEN: usize = 16;
