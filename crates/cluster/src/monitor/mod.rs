//! The monitor of storage: it says of which nodes the storage is offline, and moves pods off them.
//!
//! ```text
//! Leases ─► silent for how long? ─► judge (pure) ─► StorageNode.status.health ─► agents look ─► .status.unreachable ─┐
//!                                     ▲                                                                              │
//!                                     └──────────────────────────────────────────────────────────────────────────────┘
//! offline ─► the pods on the node ─► which can go on elsewhere? ─► its Lease past all caches ─► delete some; again at the next look
//! ```
//! # Rules
//!
//! * It is not needed for data to be safe. Whoever takes a volume from a node waits for the leases of the attachment there, whatever became of its pod; so a
//!   pod that is deleted by mistake is started anew, and that is all.
//! * A pod is deleted only if that helps: it uses volumes with replicas, each of them has one in sync on storage that works, and a controller makes the pod
//!   again, elsewhere. Of those that stay, an event says why.
//! * A pod that is being deleted, and whose kubelet is lost or takes too long, is freed: as long as it is there, a StatefulSet makes no other. But not one with a
//!   volume of another driver: it may run on, and nobody would refuse what it writes there.
//! * Pods without volumes of ours are no business of this.

mod health;
mod metrics;
mod pods;

pub use metrics::Metrics;

use crate::agent::{Failing, watched};
use crate::error::{Result, ask, code};
use crate::heartbeat::{self, Pulse};
use crate::times::Times;
use api::{StorageHealth, StorageNode, StorageState};
use health::Witness;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

struct Monitor {
    client: Client,
    times: Times,
    metrics: Metrics,
    events: Recorder,
    pulse: Pulse,
    /// Since when pods are seen to be deleted, by their uids.
    ending: BTreeMap<String, Instant>,
    /// Pods of which was told why they stay.
    staying: BTreeSet<String>,
}

/// Works for as long as it is polled, from when storage is installed. What goes wrong is told in the log and tried again.
pub async fn run(client: Client, times: Times, metrics: Metrics) {
    crate::wait_for_storage(&client, &times).await;
    let reporter = Reporter { controller: "orlop-storage-monitor".into(), instance: None };
    let events = Recorder::new(client.clone(), reporter);
    let (pulse, ending, staying) = (Pulse::default(), BTreeMap::new(), BTreeSet::new());
    let mut monitor = Monitor { client: client.clone(), times, metrics, events, pulse, ending, staying };
    let changed = Arc::new(Notify::new());
    let (nodes, node_events) = watched::<StorageNode>(Api::all(client.clone()), changed.clone());
    let (leases, lease_events) = watched::<Lease>(heartbeat::leases(&client), Arc::new(Notify::new()));
    let look = async {
        if tokio::try_join!(nodes.wait_until_ready(), leases.wait_until_ready()).is_err() {
            return;
        }
        let mut failing = Failing::default();
        loop {
            failing.heed("look after the storage of nodes", monitor.look(&nodes.state(), &leases.state()).await);
            let _event = tokio::time::timeout(monitor.times.look, changed.notified()).await;
            tokio::time::sleep(monitor.times.settle).await;
        }
    };
    tokio::select! {
        () = look => {}
        () = node_events => {}
        () = lease_events => {}
    }
}

impl Monitor {
    /// One look at all nodes. What fails for one does not keep the others; the first error is told.
    async fn look(&mut self, nodes: &[Arc<StorageNode>], leases: &[Arc<Lease>]) -> Result<()> {
        let now = Instant::now();
        self.pulse.look(leases, now);
        let mut all: Vec<Witness> = nodes.iter().map(|node| self.witness(node, now)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let judged: Vec<_> = all.iter().map(|node| health::judge(node, &all, &self.times, Timestamp::now())).collect();
        let troubled: BTreeSet<&str> = all
            .iter()
            .zip(&judged)
            .filter(|(_, health)| health.is_some())
            .map(|(node, _)| node.name.as_str())
            .collect();
        let mut offline = 0;
        let mut outcome = Ok(());
        for (node, health) in all.iter().zip(&judged) {
            if node.health != *health {
                outcome = outcome.and(self.tell(&node.name, health.as_ref()).await);
            }
            if let Some(health) = health.as_ref().filter(|health| health.state == StorageState::Offline) {
                offline += 1;
                outcome = outcome.and(self.relieve(&node.name, health, &troubled).await);
            }
        }
        self.metrics.offline(offline);
        if offline == 0 {
            self.ending.clear();
            self.staying.clear();
        }
        outcome
    }

    fn witness(&mut self, node: &StorageNode, now: Instant) -> Witness {
        let name = node.name_any();
        let status = node.status.clone().unwrap_or_default();
        let silent_for = self.pulse.silent_for(&name, now);
        Witness { name, silent_for, unreachable: status.unreachable, health: status.health }
    }

    async fn tell(&self, node: &str, health: Option<&StorageHealth>) -> Result<()> {
        match health {
            Some(health) => {
                tracing::warn!(node, state = ?health.state, health.message, "the storage of a node is in trouble")
            }
            None => tracing::info!(node, "the storage of a node is back"),
        }
        let api: Api<StorageNode> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"status": {"health": health}}));
        let what = || format!("write the status of the StorageNode {node}");
        match ask(self.times.request, what, api.patch_status(node, &PatchParams::default(), &patch)).await {
            Err(error) if code(&error) == Some(404) => Ok(()),
            patched => patched.map(drop),
        }
    }

    /// Whether a node says even now nothing: by its Lease as it is read past all caches.
    async fn is_silent_still(&self, node: &str) -> Result<bool> {
        let (leases, name) = (heartbeat::leases(&self.client), heartbeat::name(node));
        let found = ask(self.times.request, || format!("read the Lease {name}"), leases.get_opt(&name)).await?;
        let version = found.and_then(|lease| lease.metadata.resource_version);
        Ok(version.is_none_or(|version| self.pulse.version(node) == Some(&version)))
    }
}
