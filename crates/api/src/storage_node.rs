//! `StorageNode`: a node that holds replicas. Its daemon makes it; that it lives is told by a Lease.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wanted of a node. It is named like the node in Kubernetes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "StorageNode",
    doc = "A node that holds replicas of volumes. Delete it when the node never comes back: then its replicas are given up.",
    plural = "storagenodes",
    shortname = "osn",
    category = "orlop",
    status = "StorageNodeStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Drain","type":"boolean","jsonPath":".spec.drain"}"#,
    printcolumn = r#"{"name":"Trouble","type":"string","jsonPath":".status.health.state"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.freeBytes"}"#,
    printcolumn = r#"{"name":"Zone","type":"string","jsonPath":".status.zone"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StorageNodeSpec {
    /// It gets no new replicas, and those that it has are built elsewhere and leave it.
    #[serde(default)]
    pub drain: bool,
}

/// What a node tells of itself, and what the operator holds of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageNodeStatus {
    /// Where it serves its replicas to other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Bytes that are free in all of its pools that work.
    #[serde(default)]
    pub free_bytes: u64,
    /// Its pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<StoragePool>,
    /// The region that it is in, as the node's labels say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The zone that it is in, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the machine has that volumes need, as the node saw when it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<StorageMachine>,
    /// Nodes that this one was asked to look for, and does not reach.
    #[serde(default)]
    pub unreachable: Vec<String>,
    /// What is wrong with its storage, as the operator writes it; nothing as long as the node says that it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<StorageHealth>,
}

/// What is held of a node that does not say any more that it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageHealth {
    /// How sure that is.
    pub state: StorageState,
    /// Since when it is in this state.
    pub since: Time,
    /// Other nodes that are asked to look for it.
    pub observers: Vec<String>,
    /// Why, in words.
    pub message: String,
}

/// How sure it is that the storage of a node is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageState {
    /// It is silent, and others look for it. Nothing else follows from that.
    Suspect,
    /// It has been silent for long, and none of the others reaches it: pods are moved off it.
    Offline,
}

/// What a machine has that volumes need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageMachine {
    /// FUSE can be used.
    pub fuse: bool,
    /// Loop devices can be made.
    pub loop_devices: bool,
    /// The file systems that volumes can be made with.
    #[serde(default)]
    pub file_systems: Vec<String>,
}

/// A pool of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoragePool {
    /// What the node calls it.
    pub name: String,
    /// All of it.
    pub bytes: u64,
    /// What is not used.
    pub free_bytes: u64,
    /// It takes no more changes.
    #[serde(default)]
    pub failed: bool,
}
