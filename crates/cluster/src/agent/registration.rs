//! The node tells where its replicas are served, and how much room it has.

use super::{Agent, Failing};
use crate::error::{Result, ask, code};
use api::{StorageNode, StorageNodeSpec, StorageNodeStatus, StoragePool};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::sync::Arc;

/// Where a node is, as its labels say.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

impl Agent {
    /// Tells it at once, and again whenever it has changed.
    pub(super) async fn report(self: Arc<Self>) {
        let (mut failing, mut said) = (Failing::default(), None);
        let mut asked_for = self.asked_for.subscribe();
        loop {
            let is_asked = !asked_for.borrow_and_update().is_empty();
            let reported = self.report_once(&mut said).await;
            let pause = if reported.is_ok() && !is_asked { self.times.report } else { self.times.heartbeat };
            failing.heed("tell of this node", reported);
            let _asked = tokio::time::timeout(pause, asked_for.changed()).await;
        }
    }

    async fn report_once(&self, said: &mut Option<StorageNodeStatus>) -> Result<()> {
        let labels = self.labels().await?;
        let unreachable = self.unreachable().await;
        let room = self.node.room();
        let pool = |room: &node::Room| StoragePool {
            name: room.pool.clone(),
            bytes: room.bytes,
            free_bytes: room.free,
            failed: room.has_failed,
        };
        let status = StorageNodeStatus {
            address: Some(self.address.to_string()),
            free_bytes: room.iter().filter(|room| !room.has_failed).map(|room| room.free).sum(),
            pools: room.iter().map(pool).collect(),
            region: labels.get(REGION).cloned(),
            zone: labels.get(ZONE).cloned(),
            version: Some(self.version.clone()),
            machine: Some(self.machine.clone()),
            unreachable,
            // What the operator writes stays as it is.
            health: None,
        };
        let api: Api<StorageNode> = Api::all(self.client.clone());
        let what = || format!("write the StorageNode {}", self.me);
        if said.is_none() {
            // With what somebody has written into its spec, if it is there.
            let new = StorageNode::new(&self.me, StorageNodeSpec::default());
            match ask(self.times.request, what, api.create(&PostParams::default(), &new)).await {
                Err(error) if code(&error) != Some(409) => return Err(error),
                _ => {}
            }
        }
        if said.as_ref() != Some(&status) {
            let patch = Patch::Merge(json!({"status": status}));
            let asked = PatchParams::default();
            let patched = ask(self.times.request, what, api.patch_status(&self.me, &asked, &patch)).await;
            if let Err(error) = patched {
                // Somebody may have deleted it: then it is made again.
                *said = None;
                return Err(error);
            }
            *said = Some(status);
        }
        Ok(())
    }

    async fn labels(&self) -> Result<std::collections::BTreeMap<String, String>> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = ask(self.times.request, || format!("read the Node {}", self.me), nodes.get_opt(&self.me)).await?;
        Ok(found.map(|node| node.labels().clone()).unwrap_or_default())
    }
}
