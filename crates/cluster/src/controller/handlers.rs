//! Kubernetes' snapshots of replicated volumes are given to a node.
//!
//! external-snapshotter runs beside the daemon of each node, and does what is asked of contents that have the node's name in a label. snapshot-controller sets that for volumes
//! that lie on one node alone, and for no others. Here it is set for the rest: to the node that uses the volume, or one that has a replica, or any that lives; and to
//! another when that one has died.

use super::place::NodeView;
use crate::error::{Result, ask, code};
use crate::times::Times;
use api::Volume;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;

/// The label by which external-snapshotter knows what is its own.
const MANAGED_BY: &str = "snapshot.storage.kubernetes.io/managed-by";

/// Sets the label where it is needed. Tells whether the cluster knows such snapshots at all.
pub(super) async fn hand_out(
    client: &Client,
    times: &Times,
    volumes: &[Arc<Volume>],
    nodes: &[NodeView],
) -> Result<bool> {
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    let all = ListParams::default();
    let found = match ask(times.request, || "list the VolumeSnapshotContents".into(), api.list(&all)).await {
        Err(error) if code(&error) == Some(404) => return Ok(false),
        found => found?,
    };
    let mut outcome = Ok(());
    for content in found.items {
        let Some(node) = handler(&content, volumes, nodes) else { continue };
        let (name, patch) = (content.name_any(), Patch::Merge(json!({"metadata": {"labels": {MANAGED_BY: node}}})));
        let what = || format!("give the VolumeSnapshotContent {name} to the node {node}");
        let given = ask(times.request, what, api.patch(&name, &PatchParams::default(), &patch)).await;
        outcome = outcome.and(match given {
            Err(error) if code(&error) == Some(404) => Ok(()),
            given => given.map(drop),
        });
    }
    outcome.map(|()| true)
}

/// The node that a content is to be given to; nothing if it is no affair of this driver's replicated volumes, or has one that lives.
fn handler(content: &DynamicObject, volumes: &[Arc<Volume>], nodes: &[NodeView]) -> Option<String> {
    let spec = content.data.get("spec")?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if text(spec.get("driver")).as_deref() != Some(csi::DRIVER) {
        return None;
    }
    let source = spec.get("source")?;
    let handle = text(source.get("volumeHandle")).or_else(|| text(source.get("snapshotHandle")))?;
    let volume = handle.split_once('@').map_or(handle.as_str(), |(volume, _)| volume);
    let volume = volumes.iter().find(|other| other.name_any() == volume)?;
    let lives = |name: &String| nodes.iter().any(|node| *node.name.0 == *name.as_str() && node.is_alive());
    if content.labels().get(MANAGED_BY).is_some_and(lives) {
        return None;
    }
    let status = volume.status.clone().unwrap_or_default();
    let replicas = status.replicas.into_iter().map(|replica| replica.node);
    let any = nodes.iter().map(|node| node.name.0.to_string());
    status.attached_node.into_iter().chain(replicas).chain(any).find(lives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::place::tests::node;
    use api::{VolumeReplica, VolumeSpec, VolumeStatus};
    use std::time::Duration;

    fn content(source: Value, label: Option<&str>) -> DynamicObject {
        let labels = label.map_or(json!({}), |label| json!({ MANAGED_BY: label }));
        let object = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": { "name": "c", "labels": labels }, "spec": { "driver": "volumes.orlop.io", "source": source },
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn contents_of_replicated_volumes_are_given_to_nodes_that_live() {
        let mut volume = Volume::new("pvc-1", VolumeSpec::default());
        let replica = VolumeReplica { node: "b".into(), ..VolumeReplica::default() };
        volume.status = Some(VolumeStatus { replicas: vec![replica], ..VolumeStatus::default() });
        let mut nodes = [node("a", "", 1), node("b", "", 1), node("c", "", 1)];
        let of = |content: &DynamicObject, volume: &Volume, nodes: &[NodeView]| {
            handler(content, &[Arc::new(volume.clone())], nodes)
        };
        let by_volume = content(json!({"volumeHandle": "pvc-1"}), None);
        assert_eq!(of(&by_volume, &volume, &nodes).as_deref(), Some("b"), "it has a replica");
        let by_snapshot = content(json!({"snapshotHandle": "pvc-1@s"}), None);
        volume.status.as_mut().unwrap().attached_node = Some("c".into());
        assert_eq!(of(&by_snapshot, &volume, &nodes).as_deref(), Some("c"), "it uses the volume");
        assert_eq!(of(&content(json!({"volumeHandle": "pvc-2"}), None), &volume, &nodes), None, "it is none of these");
        let given = content(json!({"volumeHandle": "pvc-1"}), Some("c"));
        assert_eq!(of(&given, &volume, &nodes), None);
        nodes[2].silent_for = Duration::from_secs(60);
        assert_eq!(of(&given, &volume, &nodes).as_deref(), Some("b"), "the one that had it has died");
        nodes[1].silent_for = Duration::from_secs(60);
        assert_eq!(of(&given, &volume, &nodes).as_deref(), Some("a"));
        let mut others = by_volume;
        others.data["spec"]["driver"] = json!("other");
        assert_eq!(of(&others, &volume, &nodes), None);
    }
}
