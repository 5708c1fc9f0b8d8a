//! The CRDs, as they are in `deploy/crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{
    ApplicationBackup, ApplicationBackupSchedule, ApplicationRestore, BackupLocation, NamespacedSchedulePolicy,
    PlacementStrategy, ResourceTransformation, Rule, SchedulePolicy, StorageNode, Volume, VolumeRecord,
};

/// All CRDs, in the order of their names.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        ApplicationBackup::crd(),
        ApplicationBackupSchedule::crd(),
        ApplicationRestore::crd(),
        BackupLocation::crd(),
        NamespacedSchedulePolicy::crd(),
        PlacementStrategy::crd(),
        ResourceTransformation::crd(),
        Rule::crd(),
        SchedulePolicy::crd(),
        StorageNode::crd(),
        Volume::crd(),
        VolumeRecord::crd(),
    ]
}
