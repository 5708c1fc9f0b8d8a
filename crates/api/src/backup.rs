//! `ApplicationBackup`: one run that makes one recovery point.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{LedgerSummary, ObjectFilter, Phase, Timed};

/// Backs up the objects, the configuration and the data of an application, once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "ApplicationBackup",
    doc = "One run that makes one recovery point of an application: its objects, its configuration and its data.",
    plural = "applicationbackups",
    shortname = "oab",
    category = "orlop",
    namespaced,
    status = "ApplicationBackupStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Stage","type":"string","jsonPath":".status.stage"}"#,
    printcolumn = r#"{"name":"Wanted","type":"integer","jsonPath":".status.ledger.wanted"}"#,
    printcolumn = r#"{"name":"Missed","type":"integer","jsonPath":".status.ledger.missed"}"#,
    printcolumn = r#"{"name":"Bytes","type":"integer","jsonPath":".status.bytes"}"#,
    printcolumn = r#"{"name":"Recovery Point","type":"string","jsonPath":".status.recoveryPoint"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationBackupSpec {
    /// The namespaces to back up; the resource's own if none is given. Others than its own only in the namespace `orlop-system`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels that an object must bear, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selectors: BTreeMap<String, String>,
    /// Only objects that match one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_resources: Vec<ObjectFilter>,
    /// Only these kinds, such as `ConfigMap`, `Deployment.apps` or `Secret.core`; `*.example.com` is every kind of a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_types: Vec<String>,
    /// Not these kinds, written in the same ways. `PersistentVolumeClaim` here leaves the data out too; a whole group that does not
    /// answer is no hole when it is excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_resource_types: Vec<String>,
    /// Name of the `BackupLocation` in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub backup_location: String,
    /// What happens to the recovery point when this resource is deleted.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
}

/// What happens to the recovery point when its resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is removed from the location.
    Delete,
}

/// Where a backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum BackupStage {
    /// Not looked at yet.
    #[default]
    Pending,
    /// The location is opened, the volumes are listed.
    Preparing,
    /// Movers read the volumes.
    Volumes,
    /// The objects are read and stored, with the ledger.
    Resources,
    /// What was stored is read back, then the recovery point is published.
    Publishing,
    /// Nothing more happens.
    Done,
}

/// What is known of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationBackupStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run is as a whole.
    #[serde(default)]
    pub phase: Phase,
    /// What it does now.
    #[serde(default)]
    pub stage: BackupStage,
    /// The stages so far, with their times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Timed>,
    /// Identity of the recovery point; set when it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<String>,
    /// How the wanted items ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerSummary>,
    /// The volumes, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeBackup>,
    /// Bytes of all volumes as an application sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes that this run added to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Complete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Where one volume is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeStage {
    /// Waits for its turn.
    #[default]
    Pending,
    /// A mover works on it.
    Moving,
    /// Done, and read back.
    Done,
    /// Left out by a named rule.
    Skipped,
    /// Wanted, and not there; the reason says why.
    Missed,
}

/// One volume of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeBackup {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub claim: String,
    /// Where it is.
    #[serde(default)]
    pub stage: VolumeStage,
    /// How many movers were started for it.
    #[serde(default)]
    pub attempts: u32,
    /// When its data began to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last of it had been read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Files, directories not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes added to the repository for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Files that were written while they were read. 0 means that the copy is of one state of each file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_while_read: Option<u64>,
    /// What the mover handed over, for the recovery point. Not for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it is skipped or missed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
