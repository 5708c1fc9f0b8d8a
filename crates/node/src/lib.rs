//! The volumes of a node: the pools that they lie in, and the block devices that they are served as.
//!
//! ```text
//! orlop volume, CSI ─► gRPC on a unix socket ─► Node
//!                                                 ├── Store: a pool, and what is recorded of its volumes
//!                                                 └── Attachments: FUSE + loop, NBD
//!
//! a block device ─► counted ─► limited and shared out ─► encrypted ─┬► a pool
//!                                                                     └► an attachment ─► replicas here and on other nodes
//! ```
//! A [`Node`] opens pools and does what it is asked, one change at a time. The pool's catalog is the truth about what exists; what is recorded beside it
//! follows it, so that a crash between the two leaves nothing half done. What is attached is in a list that the next process reads: it takes block devices
//! over from the keeper, and whoever uses them has waited, and goes on.
//!
//! [`serve`] answers the control API, and [`connect`] is how a client comes to it. A pool that no node has open is used through the same API, by
//! [`offline`]: there is one way to do everything.
//!
//! With a [`Replication`] it is one of several nodes: it holds replicas for the volumes of all of them, and serves volumes that have replicas on some.
//! Which volumes there are, and who may serve them, is in records that it is given a store of.
//!
//! What is *absent*: nothing here knows Kubernetes, or decides where replicas are.

mod attachments;
pub mod crypt;
mod daemon;
mod device;
mod error;
mod meter;
mod metrics;
mod node;
mod pool_spec;
pub mod qos;
mod records;
mod replicated;
mod runtime;
mod scrub;
mod secrets;
mod service;
mod serving;
mod snapshots;
mod store;
mod trim;
mod volumes;

/// The control API, as `proto/orlop/node/v1/node.proto` says it.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod proto {
    tonic::include_proto!("orlop.node.v1");

    /// What the API is, for those who ask a server.
    pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/node.bin"));
}

pub use daemon::{Client, ServeError, connect, control_socket, offline, serve, serve_metrics};
pub use device::CHANGED_SINCE;
pub use error::{Error, Kind, Result};
pub use node::{Config, Node, Serving};
pub use pool_spec::PoolSpec;
pub use replicated::{AnyRecords, ReplicatedVolume, Replication, Room, SnapshotHere};
pub use runtime::RuntimeDir;
pub use scrub::Pace;
pub use service::Service;
pub use volume::Access;
