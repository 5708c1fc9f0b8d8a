//! A server of the network block device protocol (NBD), over devices of any kind.
//!
//! ```text
//! listener ─► connection ─► handshake: which export, which extensions ─► transmission: requests, several in flight
//!                                                                             │
//!                                                                             ▼
//!                                                                           Device
//! ```
//! What a device is, the trait [`block::Device`] says; a [`Server`] offers one or several of them under names. The protocol is that of the
//! public document of the NBD project: fixed newstyle handshake, TLS, structured replies, metadata contexts. Which contexts there are, the
//! device decides: `base:allocation`, and for a volume with snapshots the family `orlop:changed-since=SNAPSHOT`.
//!
//! A client is not trusted. Whatever it sends costs an error of the protocol or the connection, never a panic, and never more memory than
//! [`Limits`] says, and the texts of errors, which have at most 4096 bytes for each request.

mod connection;
mod execute;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod intake;
mod limits;
mod listen;
mod options;
mod outbox;
mod reply;
mod request;
mod server;
mod stream;
mod tls;
mod transmission;
mod uri;
mod wire;

pub use limits::Limits;
pub use listen::{ListenError, Listener, UnixSocket};
pub use server::{Export, ExportsError, Server};
pub use tls::{Tls, TlsError};
