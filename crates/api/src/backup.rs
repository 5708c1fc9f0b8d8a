//! `ApplicationBackup`: one run that makes one recovery point.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{LedgerSummary, ObjectFilter, Phase, Timed};
use crate::rule::HookStatus;

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
    /// Name of a `Rule` in this namespace that runs before the volumes are read. What it does in the background goes on until they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_exec_rule: Option<String>,
    /// Name of a `Rule` in this namespace that runs when the volumes have been read; and whenever anything of `preExecRule` has run, also if the run fails or is
    /// deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_exec_rule: Option<String>,
    /// Per CSI driver, the `VolumeSnapshotClass` to take snapshots with. Where none is named, it is the default one of the driver, or the only one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub csi_snapshot_class_map: BTreeMap<String, String>,
    /// How volumes are read: the first policy that matches a claim counts. Where none does, a snapshot is read if the volume's driver can take one, and else the
    /// volume itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_policies: Vec<VolumePolicy>,
    /// What happens to the recovery point when this resource is deleted.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
}

/// How some volumes are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumePolicy {
    /// Only claims of one of these storage classes; of every one if none is given. The empty name is that of claims without a class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage_classes: Vec<String>,
    /// Only claims with these labels, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selectors: BTreeMap<String, String>,
    /// What is done.
    pub action: VolumeAction,
}

/// How a volume is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeAction {
    /// A snapshot of it is read. Where none can be taken, the volume is missed.
    #[default]
    Snapshot,
    /// It is read as it is, while the application goes on.
    Copy,
    /// It is left out.
    Skip,
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
    /// `preExecRule` runs.
    PreExecRule,
    /// Movers read the volumes.
    Volumes,
    /// What runs in the background is let go, and `postExecRule` runs.
    PostExecRule,
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
    /// What the rules did, action by action and pod by pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookStatus>,
    /// How the data of the volumes hangs together; set when all of it is fixed: read, or in a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// Why the run is going to end without a recovery point, while what it holds in the application is let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
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

/// How the data of the volumes hangs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consistency {
    /// What may be relied on.
    pub level: ConsistencyLevel,
    /// The earliest instant that data of a volume is of.
    pub cut_from: Time,
    /// The latest one. A volume that is read as it is, is of all instants from the begin of that to its end.
    pub cut_to: Time,
    /// The milliseconds between. Kubernetes keeps instants of most kinds to the second, so this is no finer.
    pub spread_millis: u64,
    /// Why it is so.
    pub reason: String,
}

/// What may be relied on in the data of several volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConsistencyLevel {
    /// The application was made ready by a rule, which held it so until all was read, or after which all data is of one instant.
    ApplicationConsistent,
    /// All data is of one instant: what a crash would have left then.
    CrashConsistent,
    /// Data of several volumes is of different instants, or files were copied while the application ran.
    NotConsistent,
}

/// Why a run is going to end without a recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// One word, for programs.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub message: String,
}

/// Where one volume is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeStage {
    /// Waits for its turn.
    #[default]
    Pending,
    /// A mover works on it; for a clone, its snapshot is taken or its volume made.
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
    /// Whether it is a block device, which is stored as an image: then it has no files, and its bytes are the size of the device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image: bool,
    /// Where it is.
    #[serde(default)]
    pub stage: VolumeStage,
    /// The `VolumeSnapshotClass` of the snapshot that is read; absent if the volume itself is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_class: Option<String>,
    /// The instant that its data is of, if it is read from a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_at: Option<Time>,
    /// How many movers were started for it.
    #[serde(default)]
    pub attempts: u32,
    /// When its snapshot was asked for, or, once that is taken, when its data began to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last of it had been read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Files, directories not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes of the files, or of the device.
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
