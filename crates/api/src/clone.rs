//! `ApplicationClone`: copies an application into another namespace of the same cluster, without a backup.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::VolumeStage;
use crate::common::{Phase, Timed};
use crate::restore::{ObjectOutcomes, ReplacePolicy};

/// Copies the objects and the data of an application into another namespace, once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "ApplicationClone",
    doc = "One run that copies an application into another namespace of this cluster, its data by snapshots. In the namespace orlop-system only.",
    plural = "applicationclones",
    shortname = "oac",
    category = "orlop",
    namespaced,
    status = "ApplicationCloneStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Stage","type":"string","jsonPath":".status.stage"}"#,
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.sourceNamespace"}"#,
    printcolumn = r#"{"name":"Destination","type":"string","jsonPath":".spec.destinationNamespace"}"#,
    printcolumn = r#"{"name":"Created","type":"integer","jsonPath":".status.objects.created"}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.objects.failed"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationCloneSpec {
    /// The namespace that is copied.
    #[schemars(length(min = 1, max = 63))]
    pub source_namespace: String,
    /// The namespace that it is copied into. It is made as the source is if it does not exist.
    #[schemars(length(min = 1, max = 63))]
    pub destination_namespace: String,
    /// Labels that an object must bear, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selectors: BTreeMap<String, String>,
    /// What happens to objects that exist in the destination.
    #[serde(default)]
    pub replace_policy: ReplacePolicy,
}

/// Where a clone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CloneStage {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Source and destination are looked at; nothing is made.
    Preparing,
    /// Snapshots of the volumes are taken, and claims made from them in the destination.
    Volumes,
    /// The objects are read from the source and made in the destination.
    Resources,
    /// Nothing more happens.
    Done,
}

/// What is known of a clone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationCloneStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run is as a whole.
    #[serde(default)]
    pub phase: Phase,
    /// What it does now.
    #[serde(default)]
    pub stage: CloneStage,
    /// The stages so far, with their times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Timed>,
    /// What became of the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectOutcomes>,
    /// Of the objects that were skipped, how many by which rule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_by: BTreeMap<String, u64>,
    /// The volumes, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeClone>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Complete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One volume of a clone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClone {
    /// Name of the claim, in both namespaces.
    pub claim: String,
    /// Where it is.
    #[serde(default)]
    pub stage: VolumeStage,
    /// The `VolumeSnapshotClass` of the snapshot that it is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_class: Option<String>,
    /// The instant that its data is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_at: Option<Time>,
    /// When its snapshot was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its claim in the destination was bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Why it is skipped or missed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
