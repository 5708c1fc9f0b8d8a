//! Real Kubernetes clusters on one machine, for trying and testing, and their faults.
//!
//! A [`Sandbox`] is a directory. In it are [`Cluster`]s, each with a control plane and [`Node`]s that have network,
//! mount, PID, UTS and IPC namespaces of their own. What runs in them is Kubernetes as it is anywhere.
//! Beside them there are parts that tests use alone: a [`control_plane`] without nodes, a [`fault_proxy`] and [`s3`].

mod address;
pub mod assets;
mod background;
mod bootstrap;
pub mod build;
mod cgroup;
mod cluster;
mod configuration;
pub mod control_plane;
mod daemon;
mod distribution;
mod error;
pub mod fault_proxy;
mod files;
mod forward;
mod helper;
mod image;
pub mod kms;
mod loops;
mod network;
mod node;
mod pki;
pub mod populate;
mod process;
mod process_one;
mod provisioner;
pub mod s3;
mod sandbox;
pub mod skip;
pub mod small_disk;
mod wait;

pub use cluster::{Cluster, DEFAULT_NODES};
pub use daemon::Daemon;
pub use distribution::Distribution;
pub use error::{Error, Result};
pub use forward::{Direction, Forward, Forwarder};
pub use image::{BUSYBOX, ImageConfig, to_archive as image_archive};
pub use network::Cuts;
pub use node::{Halt, Node};
pub use process::ProcessId;
pub use process_one::ProcessOne;
pub use provisioner::{PROVISIONER, Provisioner, STORAGE_CLASS};
pub use rustix::process::Signal;
pub use sandbox::{Guard, Sandbox};
pub use skips::{require_root, skip};
