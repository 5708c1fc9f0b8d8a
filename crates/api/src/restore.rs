//! `ApplicationRestore`: brings a recovery point back, here or in another cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::VolumeStage;
use crate::common::{Missed, ObjectFilter, Phase, Timed};
use crate::rule::HookStatus;
use crate::transformation::TransformSpec;

mod plan;
mod workload;

pub use plan::{ObjectPlan, PlanCounts, PlannedAction, PlannedChange, RestorePlan, VolumePlan};
pub use workload::{WorkloadState, WorkloadStatus, Workloads};

/// Brings the objects and the data of a recovery point back.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "ApplicationRestore",
    doc = "One run that brings a recovery point back, here or in another cluster.",
    plural = "applicationrestores",
    shortname = "oar",
    category = "orlop",
    namespaced,
    status = "ApplicationRestoreStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Stage","type":"string","jsonPath":".status.stage"}"#,
    printcolumn = r#"{"name":"Created","type":"integer","jsonPath":".status.objects.created"}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.objects.failed"}"#,
    printcolumn = r#"{"name":"Recovery Point","type":"string","jsonPath":".status.recoveryPoint"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[schemars(extend("oneOf" = [{"required": ["backupName"]}, {"required": ["recoveryPoint"]}]))]
#[serde(rename_all = "camelCase")]
pub struct ApplicationRestoreSpec {
    /// The `ApplicationBackup` in this namespace whose recovery point is wanted. Either this or `recoveryPoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_name: Option<String>,
    /// Identity of the recovery point, as `orlop backup list` shows it; for one that another cluster made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<String>,
    /// Name of the `BackupLocation` in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub backup_location: String,
    /// Old namespace to new. Namespaces that are not named keep their names. References inside of objects follow.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_mapping: BTreeMap<String, String>,
    /// Old storage class to new. The empty name is that of claims which say that they have no class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_class_mapping: BTreeMap<String, String>,
    /// What happens to objects that exist already.
    #[serde(default)]
    pub replace_policy: ReplacePolicy,
    /// Only objects that match one of these; all of them if none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_resources: Vec<ObjectFilter>,
    /// Names of `ResourceTransformation`s in this namespace: what they change in objects, one after the other. The run does what they say when it
    /// begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub transforms: Vec<String>,
    /// Kinds of custom resources whose status is written back when the restore has made them, as in `Widget`, `Widget.example.com` or `*.example.com`. Others
    /// have a status when their controller gives them one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_status_for: Vec<String>,
    /// Hold what keeps the objects of the restore as its own source says, until the restore has ended: Applications of Argo CD, Kustomizations and HelmReleases
    /// of Flux, in this cluster; outside of `orlop-system` those in this namespace only. What somebody has suspended himself is left as it is. Without it they may put objects back while data comes back.
    #[serde(default)]
    pub hold_git_ops: bool,
    /// Take a recovery point that is known to lack something. Without it such a restore is refused.
    #[serde(default)]
    pub accept_incomplete: bool,
    /// Keep the node ports of Services, and the ports of their health checks. Without it the cluster gives new ones. A Service whose
    /// port is taken is not made.
    #[serde(default)]
    pub preserve_node_ports: bool,
    /// Keep the addresses that Services have within the cluster: for a cluster of the same address range, when something knows them.
    /// Without it the cluster gives new ones. A Service whose address is taken, or out of range, is not made.
    #[serde(default, rename = "preserveClusterIPs")]
    pub preserve_cluster_ips: bool,
    /// Name of a `Rule` in this namespace that runs before anything is changed, in pods that run in the namespaces that are restored into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_exec_rule: Option<String>,
    /// Name of a `Rule` in this namespace that runs when everything is there and the workloads are ready, and not otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_exec_rule: Option<String>,
    /// How long the restored workloads may take to be ready, such as `90s` or `1h`; 10 minutes if it is not given. With `0s` nobody waits for
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout: Option<String>,
    /// Change nothing: `status.plan` says what the restore would do.
    #[serde(default)]
    pub plan_only: bool,
    /// The hash of a plan: do just that, or end before anything is changed when something else would be done now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
}

/// What happens to objects that exist already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplacePolicy {
    /// They stay as they are, and so does the data of claims that exist.
    #[default]
    Retain,
    /// They are deleted and made anew, claims and their data too.
    Delete,
    /// They are changed to what the recovery point, or the source of a clone, has; claims that exist keep their data.
    Update,
}

/// Where a restore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RestoreStage {
    /// Not looked at yet.
    #[default]
    Pending,
    /// The recovery point is opened, the target is checked.
    Preparing,
    /// `preExecRule` runs.
    PreExecRule,
    /// What volumes and workloads stand on: custom resource definitions, namespaces, identities, configuration.
    Foundations,
    /// Movers fill new claims; nobody else can have them yet.
    Volumes,
    /// The filled claims are handed over, everything else is made.
    Resources,
    /// The workloads that were made are waited for.
    Ready,
    /// `postExecRule` runs.
    PostExecRule,
    /// Nothing more happens.
    Done,
}

/// What is known of a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationRestoreStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run is as a whole.
    #[serde(default)]
    pub phase: Phase,
    /// What it does now.
    #[serde(default)]
    pub stage: RestoreStage,
    /// The stages so far, with their times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Timed>,
    /// Identity of the recovery point that is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<String>,
    /// The namespaces that it restores into, as soon as they are known. Restores that share one run one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// How the objects ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectOutcomes>,
    /// The volumes, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeRestore>,
    /// The workloads that were made, and whether they are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Workloads>,
    /// What the rules did, action by action and pod by pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookStatus>,
    /// The transformations, as they were when the run began. Values for Secrets are taken out when it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<RestoreTransform>,
    /// What keeps the objects of the restore as its own source says, and whether it was held while the restore was under way, as `holdGitOps` asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<GitOpsHold>,
    /// What the restore would do, with `planOnly`; and what it would do now, when that is not the plan of `planHash`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<RestorePlan>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Complete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A transformation, as a restore has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTransform {
    /// The `ResourceTransformation`.
    pub name: String,
    /// The generation of it.
    #[serde(default)]
    pub generation: i64,
    /// What it says.
    pub transform_specs: Vec<TransformSpec>,
}

/// What is done about a resource that keeps objects as its own source says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HoldState {
    /// It is held until the restore has ended.
    #[default]
    Held,
    /// Somebody else has suspended it, so it is left as it is, then too.
    WasSuspended,
    /// It is in another namespace, and the restore is one of its own namespace only: it is left alone, and may put objects back.
    LeftAlone,
}

/// A resource that keeps objects as its own source says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitOpsHold {
    /// `Application` of Argo CD, `Kustomization` or `HelmRelease` of Flux.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is done about it.
    pub state: HoldState,
}

/// How the objects of a restore ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectOutcomes {
    /// In the recovery point, and picked.
    pub wanted: u64,
    /// Made.
    pub created: u64,
    /// Existed, and were changed.
    pub updated: u64,
    /// Existed, and were left alone.
    pub kept: u64,
    /// Existed, were deleted and made anew.
    pub replaced: u64,
    /// Left out by a named rule; `notes` has the first of them.
    #[serde(default)]
    pub skipped: u64,
    /// Not there. Anything but 0 means that the run is not green.
    pub failed: u64,
    /// Statuses that were written back, as `restoreStatusFor` asks for.
    #[serde(default)]
    pub statuses: u64,
    /// The first of the failed ones, with their reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_items: Vec<Missed>,
    /// The first of those that were left out by a rule, or that were made without some of what the recovery point has, each with the
    /// reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Missed>,
    /// What keeps objects that were made or changed as its own source says, such as `Argo CD application shop`, and may put them back to that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_by: Vec<String>,
}

/// One volume of a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRestore {
    /// Namespace of the new claim.
    pub namespace: String,
    /// Name of the claim.
    pub claim: String,
    /// Whether it is a block device, which is filled with an image: then it has no files, and its bytes are the size of the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image: bool,
    /// Where it is.
    #[serde(default)]
    pub stage: VolumeStage,
    /// How many movers were started for it.
    #[serde(default)]
    pub attempts: u32,
    /// When it began to be filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Files written, and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes of the files, or of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it is skipped or missed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
