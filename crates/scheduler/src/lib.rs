//! An extender of kube-scheduler: pods are put where the replicas of their volumes are, and nowhere where storage does not work.
//!
//! ```text
//! kube-scheduler ─► POST /filter, /prioritize ─► Cache (watches) ─► Wanted, NodeFacts ─► decide (pure) ─► nodes, reasons, scores
//! ```
//! # Rules
//!
//! * Answers come from what watches have told: none waits for the API server.
//! * Anybody may ask who reaches the port, so a request is small, and few are answered at once; nothing is told of pods that the API server does not have.
//! * It fails open. Whoever does not know how storage is must not keep pods from starting: all nodes are given back, with an event on the pod and a count.
//! * It only makes things better. A pod that is put elsewhere works all the same, since volumes with replicas are reached over the network.
//! * Volumes with one copy are none of its business: their PersistentVolumes name their node, and kube-scheduler heeds that.

mod cache;
mod decide;
mod metrics;
mod protocol;
mod server;

pub use cache::{Cache, Stores};
pub use decide::{NodeFacts, Storage, VolumeFacts, Wanted, filter, prioritize};
pub use metrics::Metrics;
pub use server::{Error, Extender, listen};

/// On a pod: it is put only on nodes that have a replica of each of its volumes.
pub const ONLY_LOCAL: &str = "orlop.io/prefer-local-node-only";
