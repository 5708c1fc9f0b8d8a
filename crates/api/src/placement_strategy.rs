//! `PlacementStrategy`: where the replicas of volumes must or should be. A StorageClass names it.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rules about where replicas are. Without any, they are on different nodes, and spread over regions, zones and racks.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "PlacementStrategy",
    doc = "Where the replicas of volumes must or should be. A StorageClass names it by its parameter placement_strategy. Rules that change count for replicas that are made afterwards.",
    plural = "placementstrategies",
    shortname = "plst",
    category = "orlop",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStrategySpec {
    /// Replicas together, or on nodes with certain labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replica_affinity: Vec<ReplicaPlacementRule>,
    /// Replicas apart, or away from nodes with certain labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replica_anti_affinity: Vec<ReplicaPlacementRule>,
    /// Near other volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_affinity: Vec<VolumePlacementRule>,
    /// Away from other volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_anti_affinity: Vec<VolumePlacementRule>,
}

/// What a rule means that cannot be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlacementEnforcement {
    /// No replica is made.
    #[default]
    Required,
    /// It is made elsewhere.
    Preferred,
}

/// A rule about the replicas of the volume itself: either `topologyKey` or `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaPlacementRule {
    /// What it means that the rule cannot be kept.
    #[serde(default)]
    pub enforcement: PlacementEnforcement,
    /// Of a preferred rule, against other preferred ones; 1 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<u32>,
    /// For how many replicas at least the rule is kept; for all if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3))]
    pub affected_replicas: Option<u32>,
    /// A label of nodes. Affinity: the replicas are on nodes with the same value. Anti-affinity: each has another. A node without the label keeps neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_key: Option<String>,
    /// What is asked of the labels of a node. Affinity: a replica is where all of it holds. Anti-affinity: it is not where all of it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// A rule about the replicas of other volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumePlacementRule {
    /// What it means that the rule cannot be kept.
    #[serde(default)]
    pub enforcement: PlacementEnforcement,
    /// Of a preferred rule, against other preferred ones; 1 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<u32>,
    /// For how many replicas at least the rule is kept; for all if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3))]
    pub affected_replicas: Option<u32>,
    /// What near means: nodes with the same value of this label; the same node if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_key: Option<String>,
    /// Which volumes: those with labels (`spec.labels` of the Volume, such as `csi.storage.k8s.io/pvc/namespace`) for which all of this holds. An affinity to
    /// volumes of which there is none is kept by a volume that is one of them itself.
    #[schemars(length(min = 1))]
    pub match_expressions: Vec<LabelExpression>,
}

/// What is asked of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: LabelOperator,
    /// Values: some for `In` and `NotIn`, one whole number for `Lt` and `Gt`, none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What may be asked of a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It is there, with one of the values.
    #[default]
    In,
    /// It is not there, or has another value.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is a whole number below the value.
    Lt,
    /// It is a whole number above the value.
    Gt,
}
