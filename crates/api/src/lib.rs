//! The custom resources of `orlop.io/v1alpha1`: their types, their validation and the CRDs generated from them.
//!
//! Invariant: a field that is in the schema is acted upon. What a version of Orlop does not do is not in its schema, so that nothing is
//! accepted and ignored. The crate is pure: it knows no clock, no network and no client.
//!
//! The schemas do without CEL: a server or a kubectl from before Kubernetes 1.23 refuses a CRD that has it, so what a plain schema cannot
//! say is checked by the operator, on every server alike.

pub mod backup;
pub mod clone;
pub mod common;
pub mod crds;
pub mod location;
pub mod placement_strategy;
pub mod restore;
pub mod rule;
pub mod schedule;
pub mod storage_node;
pub mod transformation;
pub mod validate;
pub mod volume;
pub mod volume_record;

pub use backup::{
    ApplicationBackup, ApplicationBackupSpec, ApplicationBackupStatus, BackupStage, Consistency, ConsistencyLevel,
    Failure, ReclaimPolicy, VolumeAction, VolumeBackup, VolumePolicy, VolumeStage,
};
pub use clone::{ApplicationClone, ApplicationCloneSpec, ApplicationCloneStatus, CloneStage, VolumeClone};
pub use common::{LedgerSummary, Missed, ObjectFilter, Phase, Timed};
pub use location::{
    BackupLocation, BackupLocationSpec, BackupLocationStatus, LocationPhase, LocationType, S3Config, SecretKeyRef,
};
pub use placement_strategy::{
    LabelExpression, LabelOperator, PlacementEnforcement, PlacementStrategy, PlacementStrategySpec,
    ReplicaPlacementRule, VolumePlacementRule,
};
pub use restore::{
    ApplicationRestore, ApplicationRestoreSpec, ApplicationRestoreStatus, GitOpsHold, HoldState, ObjectOutcomes,
    ObjectPlan, PlanCounts, PlannedAction, PlannedChange, ReplacePolicy, RestorePlan, RestoreStage, RestoreTransform,
    VolumePlan, VolumeRestore, WorkloadState, WorkloadStatus, Workloads,
};
pub use rule::{HookState, HookStatus, HookTime, OnNoMatch, PodRule, Rule, RuleAction, RuleSpec};
pub use schedule::{
    ApplicationBackupSchedule, ApplicationBackupScheduleSpec, ApplicationBackupScheduleStatus, BackupTemplate,
    ConcurrencyPolicy, NamespacedSchedulePolicy, NamespacedSchedulePolicySpec, RunKind, SchedulePolicy,
    SchedulePolicySpec, ScheduledBackupSpec, ScheduledRun,
};
pub use storage_node::{
    StorageHealth, StorageMachine, StorageNode, StorageNodeSpec, StorageNodeStatus, StoragePool, StorageState,
};
pub use transformation::{
    PatchOp, PatchOperation, PathOperation, ResourceTransformation, ResourceTransformationSpec,
    ResourceTransformationStatus, TransformPath, TransformSpec, TransformationPhase, ValueType,
};
pub use validate::FieldError;
pub use volume::{
    HeldReplica, Volume, VolumeLimits, VolumePhase, VolumeReplica, VolumeSource, VolumeSpec, VolumeStatus,
    WantedSnapshot,
};
pub use volume_record::{
    Counter, RecordAttached, RecordMember, RecordSnapshot, RecordStanding, RecordTaken, VolumeRecord, VolumeRecordSpec,
};

/// The API group of everything here.
pub const GROUP: &str = "orlop.io";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";
/// The namespace Orlop is installed in; resources in it may act on any namespace, others only on their own.
pub const ADMIN_NAMESPACE: &str = "orlop-system";
/// The namespace that the daemons of nodes are installed in, with the leases that tell which of them live.
pub const STORAGE_NAMESPACE: &str = "orlop-storage";
/// On everything a run makes for its own use (mover pods, their secrets and temporary claims): the uid of the run's resource.
/// What bears it is never part of an application.
pub const RUN_LABEL: &str = "orlop.io/run";
/// On every object a restore made: the namespace and name of the restore.
pub const RESTORED_BY: &str = "orlop.io/restored-by";
/// Keeps a resource until what it stands for outside of the cluster is gone.
pub const FINALIZER: &str = "orlop.io/recovery-point";
/// Keeps a volume until no node has a replica of it any more.
pub const VOLUME_FINALIZER: &str = "orlop.io/replicas";
/// Written on a location to have it probed now; any new value asks once more. The command line writes the instant.
pub const CHECK_REQUESTED: &str = "orlop.io/check-requested-at";
