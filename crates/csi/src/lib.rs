//! The CSI driver `volumes.orlop.io`: how a container orchestrator makes, mounts, snapshots and deletes volumes.
//!
//! ```text
//! provisioner, resizer, snapshotter, kubelet
//!        │ CSI 1.12 on one unix socket
//!        ▼
//! Identity, Controller, GroupController, SnapshotMetadata        Node
//!        │                                                        │
//!        ▼                                                        ▼
//! Volumes: who owns the volumes (a node, here OnNode)   ◄──  Host: mounts and file systems of this machine
//!                                                            Ledger: how each volume was asked to be used
//! ```
//! **Names are ids.** The id of a volume is the name that its owner knows it by, and follows from the name that the orchestrator gave; what cannot be
//! derived from it is noted in labels of the volume, which lie where its bytes lie. So there is no table beside the volumes that could be lost or
//! could say something else.
//!
//! **Every call can be repeated.** Each is a row of steps of the kind "see that it is so", in an order in which any beginning of the row is a state that the
//! same call, or the one that undoes it, goes on from. What is mounted is read from the kernel's table, never remembered; the ledger only tells how it
//! was asked for. A call on something that another call works on is told to come again (`ABORTED`).
//!
//! **Nothing is formatted that has data.** A file system is made on a volume of which no block was ever written, or on which this driver began to make
//! one and was interrupted before anybody could have mounted it.
//!
//! What is *absent*: publishing by the controller (the volumes are where they are used), ephemeral volumes, access from several nodes.

mod busy;
mod capability;
mod check;
mod controller;
mod driver;
mod group;
mod host;
mod identity;
mod kubelet;
mod ledger;
mod metadata;
mod names;
mod node_service;
mod on_node;
mod parameters;
mod registration;
mod server;
mod size;
mod status;
mod token;
mod volumes;

/// The protocol, as `proto/csi/v1/csi.proto` says it.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod proto {
    tonic::include_proto!("csi.v1");
}

/// What a kubelet asks of a socket in its folder of plug-ins.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod plugins {
    tonic::include_proto!("pluginregistration");
}

pub use driver::{Config, DRIVER, Driver, TOPOLOGY};
pub use host::{Content, DeviceInfo, FileSystem, Host, HostError, Linux, Mount, Place, Room};
pub use ledger::LedgerError;
pub use names::is_for_clone;
pub use on_node::OnNode;
pub use registration::register;
pub use server::{Endpoint, Listening, ServeError, serve};
pub use volumes::{
    Capacity, Error, Kind, Labels, Limits, NewVolume, Origin, Range, Secret, Snapshot, SnapshotState, Volume, Volumes,
};
