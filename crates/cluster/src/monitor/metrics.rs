//! What the monitor has seen and done.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::Registry;

/// Counts that somebody else serves.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    offline: Gauge,
    deleted: Counter,
}

impl Metrics {
    /// Puts them among others.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("storage_nodes_offline", "Nodes of which the storage is offline", self.offline.clone());
        let what = "Pods that were deleted since the storage of their node is offline";
        registry.register("storage_pods_deleted", what, self.deleted.clone());
    }

    pub(super) fn offline(&self, nodes: i64) {
        self.offline.set(nodes);
    }

    pub(super) fn deleted(&self) {
        self.deleted.inc();
    }
}
