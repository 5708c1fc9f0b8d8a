//! A snapshot of one namespace, made known in another: claims are made from snapshots of their own namespace only.

use kube::api::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{Snapshot, contents, create, labels, snapshot, snapshots};
use crate::error::{During, Error};

/// On a content: the node whose sidecar looks after it, where each node has its own.
const MANAGED_BY: &str = "snapshot.storage.kubernetes.io/managed-by";

/// A snapshot of one namespace that is to be known in another one.
pub(crate) struct Import<'a> {
    /// Uid of the run.
    pub run_uid: &'a str,
    /// Its name, in both namespaces, and that of the content in between.
    pub name: &'a str,
    /// Where it was taken.
    pub from: &'a str,
    /// Where it is to be known.
    pub into: &'a str,
    /// The volume that it must be of, as its driver knows it.
    pub volume_handle: &'a str,
}

/// Makes a snapshot known in another namespace; why that cannot be, if it cannot. What it is of is read from the cluster's scope: what stands in its own namespace may come from somebody
/// who wants the data of others.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn import(client: &Client, import: &Import<'_>) -> Result<Result<(), String>, Error> {
    let Import { name, from, into, .. } = import;
    let found = snapshots(client, from).get_opt(name).await;
    let Some(snapshot) = found.during(|| format!("read the VolumeSnapshot {from}/{name}"))? else {
        return Ok(Err("its snapshot is gone".into()));
    };
    let bound = snapshot.data["status"]["boundVolumeSnapshotContentName"].as_str().unwrap_or_default().to_owned();
    let found = contents(client).get_opt(&bound).await;
    let Some(content) = found.during(|| format!("read the VolumeSnapshotContent {bound}"))? else {
        return Ok(Err(format!("the VolumeSnapshotContent {bound} of its snapshot is gone")));
    };
    let manifest = match imported_content(import, &snapshot, &content) {
        Ok(manifest) => manifest,
        Err(why) => return Ok(Err(why)),
    };
    create(&contents(client), manifest, || format!("create the VolumeSnapshotContent {name}")).await?;
    let manifest = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": into, "labels": labels(import.run_uid)},
        "spec": {
            "volumeSnapshotClassName": content.data["spec"]["volumeSnapshotClassName"],
            "source": {"volumeSnapshotContentName": name},
        },
    });
    create(&snapshots(client, into), manifest, || format!("create the VolumeSnapshot {into}/{name}")).await?;
    Ok(Ok(()))
}

/// A second content of a snapshot, whose end does not end that.
fn imported_content(import: &Import<'_>, snapshot: &DynamicObject, content: &DynamicObject) -> Result<Value, String> {
    let (of, name) = (&content.data["spec"], content.name_any());
    let reference = &of["volumeSnapshotRef"];
    let is_of_it = reference["namespace"] == import.from
        && reference["name"] == import.name
        && reference["uid"] == snapshot.uid().unwrap_or_default();
    if !is_of_it || of["source"]["volumeHandle"] != import.volume_handle {
        return Err(format!("the VolumeSnapshotContent {name}, which its snapshot names, is of something else"));
    }
    let Some(handle) = content.data["status"]["snapshotHandle"].as_str() else {
        return Err(format!("the VolumeSnapshotContent {name} of its snapshot names no snapshot of the driver"));
    };
    let mut labels = labels(import.run_uid);
    if let Some(node) = content.labels().get(MANAGED_BY) {
        labels[MANAGED_BY] = node.clone().into();
    }
    Ok(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": import.name, "labels": labels},
        "spec": {
            "deletionPolicy": "Retain",
            "driver": of["driver"],
            "sourceVolumeMode": of["sourceVolumeMode"],
            "volumeSnapshotClassName": of["volumeSnapshotClassName"],
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "name": import.name, "namespace": import.into,
            },
        },
    }))
}

/// Reads a snapshot that was made known in a namespace. One of its name that is something else has an error.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn imported(client: &Client, namespace: &str, name: &str) -> Result<Option<Snapshot>, Error> {
    let found = snapshots(client, namespace).get_opt(name).await;
    let found = found.during(|| format!("read the VolumeSnapshot {namespace}/{name}"))?;
    Ok(found.map(|object| match object.data["spec"]["source"]["volumeSnapshotContentName"] == name {
        true => snapshot(&object.data["status"]),
        false => Snapshot {
            error: Some(format!("somebody else has made the VolumeSnapshot {namespace}/{name}; delete it")),
            ..Snapshot::default()
        },
    }))
}
