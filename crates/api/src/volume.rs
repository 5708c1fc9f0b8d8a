//! `Volume`: a volume with replicas on several nodes. The CSI driver makes it for a claim.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a replicated volume is to be. Its uid is the id of its record.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "Volume",
    doc = "A volume with replicas on several nodes. What is known of it for certain is in the VolumeRecord that is named after its uid.",
    plural = "volumes",
    shortname = "ovol",
    category = "orlop",
    status = "VolumeStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"In Sync","type":"string","jsonPath":".status.inSync"}"#,
    printcolumn = r#"{"name":"Attached","type":"string","jsonPath":".status.attachedNode"}"#,
    printcolumn = r#"{"name":"Bytes","type":"integer","jsonPath":".spec.bytes"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Its size: whole blocks of 4096 bytes. It may become larger; one that is smaller than before changes nothing.
    #[schemars(range(min = 4096))]
    pub bytes: u64,
    /// How many replicas there are to be, each on another node.
    #[schemars(range(min = 1, max = 3))]
    pub replicas: u32,
    /// How many of them have to be in sync for writes and reads to go on; with fewer they wait. It is taken over when the volume is placed.
    #[schemars(range(min = 1, max = 3))]
    pub minimum_in_sync: u32,
    /// The node that the first replica is put on, if there is room: where the volume is going to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_node: Option<String>,
    /// The PlacementStrategy whose rules its replicas keep. As long as there is none of this name, or it is wrong, no replica is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_strategy: Option<String>,
    /// How much may be asked of it in a second.
    #[serde(default)]
    pub limits: VolumeLimits,
    /// The key that its bytes are encrypted with, wrapped with a secret (JSON); without it, it is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped_key: Option<String>,
    /// What whoever made it has noted of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it begins as; without it, it begins empty. It does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<VolumeSource>,
    /// The snapshots that there are to be, by their names. Which of them are taken is in the record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<String, WantedSnapshot>,
}

/// A snapshot that a volume begins as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSource {
    /// The id of the record of the volume that it was taken of: 32 hexadecimal digits.
    pub volume: String,
    /// The id of the snapshot in that record: 32 hexadecimal digits.
    pub snapshot: String,
}

/// A snapshot that there is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WantedSnapshot {
    /// Its id in the record, which no other snapshot ever has: 32 hexadecimal digits.
    pub id: String,
    /// When it was asked for, in seconds since 1970. All that was written until then is in it.
    pub created: u64,
    /// The node whose driver was asked for it.
    #[serde(default)]
    pub node: String,
    /// What whoever asked has noted of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How much may be asked of a volume in a second; what is not given is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeLimits {
    /// Reads, writes and flushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes read and written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// How a volume is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How it is as a whole.
    #[serde(default)]
    pub phase: VolumePhase,
    /// How many replicas hold every acknowledged write, of how many there are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_sync: Option<String>,
    /// The node that serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_node: Option<String>,
    /// Its replicas, as its record has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<VolumeReplica>,
    /// The nodes that have made a replica of it in one of their pools, and have not removed it. Each node writes its own; the volume is gone when there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holders: BTreeMap<String, HeldReplica>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Healthy`: all replicas are in sync.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// How a volume is as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumePhase {
    /// Its replicas are not placed yet.
    #[default]
    Pending,
    /// All replicas that are wanted hold every acknowledged write.
    Healthy,
    /// Some do not: they are away, or are being built.
    Degraded,
    /// It was deleted, and its replicas are being removed.
    Deleting,
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeReplica {
    /// Its id: 16 hexadecimal digits.
    pub replica: String,
    /// Where it is.
    pub node: String,
    /// It holds every acknowledged write.
    pub in_sync: bool,
    /// It shall leave as soon as the others are enough.
    #[serde(default)]
    pub retiring: bool,
}

/// A replica that a node has made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldReplica {
    /// Its id: 16 hexadecimal digits.
    pub replica: String,
    /// It is in one of the node's pools, with what it begins as.
    #[serde(default)]
    pub made: bool,
    /// It is in none of the node's pools any more, and another one has to take its place.
    #[serde(default)]
    pub lost: bool,
}
