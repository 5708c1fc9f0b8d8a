//! Connections between attachments and replicas on other nodes.
//!
//! ```text
//! attachment ─► Link ─┬─ control: seals, renewals, flushes, lists ─┐
//!                     ├─ data: blocks 0 to 63, 128 to 191, … ──────┼─► Server ─► Replica
//!                     └─ data: blocks 64 to 127, 192 to 255, … ────┘
//! ```
//! The protocol takes messages that are lost, doubled or late. So a link is nothing that its user waits for: what cannot be sent is dropped, and asked again by the
//! attachment; and what was sent on a connection that broke may still be answered on the next one.
//!
//! Who looks at snapshots has a connection of his own ([`Line`]), and waits for each answer: there is another replica to ask, or nobody.

mod limits;
mod line;
mod link;
mod outbox;
mod server;
mod stream;
mod tls;

pub use limits::Limits;
pub(crate) use line::Line;
pub use link::{Addresses, Network};
pub(crate) use link::{Ends, Link};
pub use server::Server;
#[cfg(test)]
pub(crate) use tls::name_of;
pub use tls::{Security, Tls, TlsError};

use replication::wire::{Farewell, LOOKS, MOST_DATA, WireError};
use std::io;
use std::net::SocketAddr;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    /// The other side has left.
    #[error("the peer has left")]
    Left,
    /// The system has ended it.
    #[error("use the connection")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error("understand the peer")]
    Wire(#[from] WireError),
    /// A message that does not belong there.
    #[error("the peer sent {0}")]
    Unexpected(&'static str),
    /// Something took too long.
    #[error("{0} took too long")]
    Slow(&'static str),
    /// Nobody knows where to connect to.
    #[error("no address of {0} is known")]
    NoAddress(replication::units::NodeId),
    /// The other side refuses.
    #[error("{0}")]
    Refused(Farewell),
    /// The other side does not know what it would be asked.
    #[error(
        "the daemon of its node speaks version {0} of the protocol, and snapshots are looked at from version {LOOKS} on; upgrade it"
    )]
    Older(u16),
    /// This side does.
    #[error("the peer was refused: {0}")]
    Refusing(Farewell),
}

impl Closed {
    /// With what it comes from, in one line.
    pub(crate) fn story(&self) -> String {
        let mut story = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            story.push_str(&format!(": {error}"));
            source = error.source();
        }
        story
    }
}

/// Why replicas are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this machine's.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// In clear, everybody who reaches it would have all volumes.
    #[error("{address} is reached from elsewhere, and nothing would be encrypted; give the node a certificate")]
    Clear {
        /// Where.
        address: SocketAddr,
    },
    /// A bound that cannot be.
    #[error("{bytes} bytes for the requests of a connection are less than the longest one has, which is {MOST_DATA}")]
    Bytes {
        /// What was wanted.
        bytes: u32,
    },
}
