//! Plays a CSI driver with snapshots: what is not in the API of Kubernetes itself, as its project installs it, and who acts on it.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::kubelet::{DRIVER, volume_dir};
use super::{PATIENCE, World, parse};

/// The only class of the driver.
pub const SNAPSHOT_CLASS: &str = "copies";

pub fn resource(kind: &str) -> ApiResource {
    let plural = if kind == "VolumeSnapshot" { "volumesnapshots" } else { "volumesnapshotclasses" };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind), plural)
}

fn crd(kind: &str, scope: &str) -> CustomResourceDefinition {
    let plural = resource(kind).plural;
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    parse(json!({
        "metadata": {
            "name": format!("{plural}.snapshot.storage.k8s.io"),
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814"},
        },
        "spec": {
            "group": "snapshot.storage.k8s.io", "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": anything},
            }],
        },
    }))
}

impl World {
    /// From now on the cluster has snapshots.
    pub async fn install_snapshots(&self) {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in [crd("VolumeSnapshot", "Namespaced"), crd("VolumeSnapshotClass", "Cluster")] {
            crds.create(&PostParams::default(), &crd).await.unwrap();
            let name = crd.name_any();
            let established = await_condition(crds.clone(), &name, is_crd_established());
            tokio::time::timeout(PATIENCE, established).await.unwrap().unwrap();
        }
        let class: DynamicObject = parse(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": SNAPSHOT_CLASS},
            "driver": DRIVER, "deletionPolicy": "Delete",
        }));
        let classes: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource("VolumeSnapshotClass"));
        classes.create(&PostParams::default(), &class).await.unwrap();
    }

    /// The snapshots that are there, as `namespace/name`.
    pub async fn snapshots(&self) -> Vec<String> {
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource("VolumeSnapshot"));
        let name = |s: &DynamicObject| format!("{}/{}", s.namespace().unwrap_or_default(), s.name_any());
        all.list(&ListParams::default()).await.unwrap().iter().map(name).collect()
    }
}

/// Takes the snapshots that are asked for, into folders below `root`; with `refusal`, none, for that reason.
pub async fn tick(client: &Client, root: &Path, refusal: Option<&str>) -> anyhow::Result<()> {
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource("VolumeSnapshot"));
    let asked = match all.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for snapshot in asked.into_iter().filter(|s| s.data["status"]["readyToUse"] != json!(true)) {
        let namespace = snapshot.namespace().unwrap_or_default();
        let status = match refusal {
            Some(message) => json!({"status": {"readyToUse": false, "error": {"message": message}}}),
            None => {
                let claim = snapshot.data["spec"]["source"]["persistentVolumeClaimName"].as_str().unwrap_or_default();
                let uid = snapshot.uid().unwrap_or_default();
                copy(&volume_dir(client, &namespace, claim).await?, &root.join(format!("snapshot-{uid}")))?;
                json!({"status": {
                    "boundVolumeSnapshotContentName": format!("content-{uid}"), "readyToUse": true, "restoreSize": "1Gi",
                    "creationTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                }})
            }
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource("VolumeSnapshot"));
        super::kubelet::gone(
            api.patch_status(&snapshot.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await,
        )?;
    }
    Ok(())
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
