//! Plays a CSI driver with snapshots: what is not in the API of Kubernetes itself, as its project installs it, and who acts on it.

use std::path::Path;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::kubelet::{DRIVER, volume_dir};
use super::{PATIENCE, World, parse};

/// The only class of the driver.
pub const SNAPSHOT_CLASS: &str = "copies";

pub fn resource(kind: &str) -> ApiResource {
    let plural = match kind {
        "VolumeSnapshot" => "volumesnapshots",
        "VolumeSnapshotContent" => "volumesnapshotcontents",
        _ => "volumesnapshotclasses",
    };
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
        let cluster = ["VolumeSnapshotClass", "VolumeSnapshotContent"].map(|kind| crd(kind, "Cluster"));
        for crd in [crd("VolumeSnapshot", "Namespaced")].into_iter().chain(cluster) {
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

    /// The contents of snapshots that are there.
    pub async fn contents(&self) -> Vec<String> {
        contents(&self.client).list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect()
    }
}

fn contents(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource("VolumeSnapshotContent"))
}

/// Takes the snapshots that are asked for, into folders below `root`; with `refusal`, none, for that reason. One whose content goes with it goes with the last that knows of it.
pub async fn tick(client: &Client, root: &Path, refusal: Option<&str>) -> anyhow::Result<()> {
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource("VolumeSnapshot"));
    let there = match all.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    end(client, root).await?;
    for snapshot in there.into_iter().filter(|s| s.data["status"]["readyToUse"] != json!(true)) {
        let namespace = snapshot.namespace().unwrap_or_default();
        let source = &snapshot.data["spec"]["source"];
        let status = match (refusal, source["volumeSnapshotContentName"].as_str()) {
            (Some(message), _) => json!({"readyToUse": false, "error": {"message": message}}),
            (None, Some(content)) => {
                if contents(client).get_opt(content).await?.is_none() {
                    continue;
                }
                told(content)
            }
            (None, None) => told(&take(client, root, &snapshot).await?),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource("VolumeSnapshot"));
        let patch = Patch::Merge(json!({"status": status}));
        super::kubelet::gone(api.patch_status(&snapshot.name_any(), &PatchParams::default(), &patch).await)?;
    }
    Ok(())
}

/// What is said of a snapshot that is taken.
pub fn told(content: &str) -> Value {
    json!({
        "boundVolumeSnapshotContentName": content, "readyToUse": true, "restoreSize": "1Gi", "error": null,
        "creationTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

/// Takes one; its content, which tells what it is of.
async fn take(client: &Client, root: &Path, snapshot: &DynamicObject) -> anyhow::Result<String> {
    let (namespace, uid) = (snapshot.namespace().unwrap_or_default(), snapshot.uid().unwrap_or_default());
    let claim = snapshot.data["spec"]["source"]["persistentVolumeClaimName"].as_str().unwrap_or_default();
    let folder = format!("snapshot-{uid}");
    copy(&volume_dir(client, &namespace, claim).await?, &root.join(&folder))?;
    let volume = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace).get(claim).await?;
    let volume = volume.spec.and_then(|spec| spec.volume_name).unwrap_or_default();
    let volume = Api::<PersistentVolume>::all(client.clone()).get(&volume).await?;
    let handle = volume.spec.and_then(|spec| spec.csi).map(|csi| csi.volume_handle);
    let name = format!("content-{uid}");
    let content: DynamicObject = parse(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": name},
        "spec": {
            "driver": DRIVER, "deletionPolicy": "Delete", "source": {"volumeHandle": handle},
            "volumeSnapshotRef": {"namespace": namespace, "name": snapshot.name_any(), "uid": uid},
        },
    }));
    let api = contents(client);
    match api.create(&PostParams::default(), &content).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => drop(other?),
    }
    let status = Patch::Merge(json!({"status": {"snapshotHandle": folder}}));
    api.patch_status(&name, &PatchParams::default(), &status).await?;
    Ok(name)
}

/// Ends contents that go with their snapshots, and what they stand for: also for those who still know of it by another content.
async fn end(client: &Client, root: &Path) -> anyhow::Result<()> {
    for content in contents(client).list(&ListParams::default()).await? {
        let of = &content.data["spec"]["volumeSnapshotRef"];
        let text = |field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let api =
            Api::<DynamicObject>::namespaced_with(client.clone(), &text("namespace"), &resource("VolumeSnapshot"));
        let there = api.get_opt(&text("name")).await?.is_some_and(|snapshot| snapshot.uid() == Some(text("uid")));
        if content.data["spec"]["deletionPolicy"] == "Delete" && !there {
            std::fs::remove_dir_all(root.join(content.data["status"]["snapshotHandle"].as_str().unwrap_or("none")))
                .ok();
            super::kubelet::gone(contents(client).delete(&content.name_any(), &Default::default()).await)?;
        }
    }
    Ok(())
}

/// The folder of a snapshot, by its content.
pub async fn snapshot_folder(client: &Client, namespace: &str, name: &str) -> anyhow::Result<String> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource("VolumeSnapshot"));
    let snapshot = api.get(name).await?;
    let content = snapshot.data["status"]["boundVolumeSnapshotContentName"].as_str().unwrap_or_default();
    let content = contents(client).get(content).await?;
    let handles = [&content.data["status"], &content.data["spec"]["source"]].map(|at| at["snapshotHandle"].as_str());
    let handle = handles.into_iter().flatten().next();
    Ok(handle.ok_or_else(|| anyhow::anyhow!("the content of {name} names no snapshot"))?.to_owned())
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
