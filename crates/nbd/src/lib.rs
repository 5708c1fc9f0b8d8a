//! A server of the network block device protocol (NBD), over devices of any kind.
//!
//! ```text
//! listener ─► connection ─► handshake: which export, which extensions ─► transmission: requests, several in flight
//!                                                                             │
//!                                                                             ▼
//!                                                                           Device
//! ```
//! What a device is, the trait [`Device`] says; a [`Server`] offers one or several of them under names. The protocol is that of the
//! public document of the NBD project: fixed newstyle handshake, structured replies, metadata contexts such as `base:allocation`. There
//! is no TLS: who asks for it is told that it is not supported, and goes on in clear or leaves.
//!
//! A client is not trusted. Whatever it sends costs an error of the protocol or the connection, never a panic, and never more memory than
//! [`Limits`] says.

mod connection;
mod device;
mod execute;
mod handshake;
mod limits;
mod listen;
mod options;
mod reply;
mod request;
mod server;
mod uri;
mod wire;

pub use device::{
    ALLOCATION, BlockSizes, Description, Device, Failure, FailureKind, Features, HOLE, Piece, Status, ZERO, ZeroMode,
};
pub use limits::Limits;
pub use listen::{ListenError, Listener, UnixSocket};
pub use server::{Export, ExportsError, Server};
pub use uri::uri;
