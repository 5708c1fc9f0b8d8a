//! The resources of snapshots. Of a VolumeSnapshot all is here that its spec may have, since it is written back; of the others what the stand-ins look at.

use crate::failure::{Failure, Result};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, CustomResource};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Their group.
pub(crate) const GROUP: &str = "snapshot.storage.k8s.io";
/// Which node has the volume of a content, and so takes its snapshot.
pub(crate) const MANAGED_BY: &str = "snapshot.storage.kubernetes.io/managed-by";
/// The sidecar has asked for the snapshot and has no answer yet.
pub(crate) const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
/// The controller has seen that the snapshot of a content is to be deleted.
pub(crate) const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// While a content has this, its snapshot may be there.
pub(crate) const CONTENT_FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";

/// What a snapshot is to be of.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshot",
    namespaced,
    status = "SnapshotStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeSnapshotSpec {
    pub(crate) source: SnapshotSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume_snapshot_class_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) persistent_volume_claim_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume_snapshot_content_name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bound_volume_snapshot_content_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ready_to_use: Option<bool>,
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshotContent",
    status = "ContentStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeSnapshotContentSpec {
    pub(crate) deletion_policy: String,
    pub(crate) driver: String,
    pub(crate) source: ContentSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_volume_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume_snapshot_class_name: Option<String>,
    pub(crate) volume_snapshot_ref: ObjectReference,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContentSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume_handle: Option<String>,
    /// Of one that is made by hand for a snapshot that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot_handle: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContentStatus {
    pub(crate) snapshot_handle: Option<String>,
    /// In nanoseconds since 1970.
    pub(crate) creation_time: Option<i64>,
    pub(crate) restore_size: Option<i64>,
    pub(crate) ready_to_use: Option<bool>,
}

/// How snapshots of a driver are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClassFields {
    pub(crate) driver: String,
    pub(crate) deletion_policy: String,
    #[serde(default)]
    pub(crate) parameters: BTreeMap<String, String>,
}

/// The class of this name.
pub(crate) async fn class(client: &Client, name: &str) -> Result<ClassFields> {
    let kind = GroupVersionKind::gvk(GROUP, "v1", "VolumeSnapshotClass");
    let kind = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotclasses");
    let found = Api::<DynamicObject>::all_with(client.clone(), &kind).get(name).await;
    let found = found.map_err(Failure::kubernetes(format!("get the snapshot class {name}")))?;
    serde_json::from_value(found.data).map_err(|error| Failure::NotYet(format!("the snapshot class {name}: {error}")))
}
