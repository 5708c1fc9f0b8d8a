//! The CRDs, as they are in `deploy/crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, ResourceExt};

use crate::{
    ApplicationBackup, ApplicationBackupSchedule, ApplicationClone, ApplicationRestore, BackupLocation,
    NamespacedSchedulePolicy, PlacementStrategy, ResourceTransformation, Rule, SchedulePolicy, StorageNode, Volume,
    VolumeRecord,
};

/// On a CRD: the version of Orlop that it is of. By its schema alone nobody could tell a newer one from an older one.
pub const VERSION_ANNOTATION: &str = "orlop.io/version";

/// All CRDs, in the order of their names.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all = of_types();
    for crd in &mut all {
        crd.annotations_mut().insert(VERSION_ANNOTATION.into(), env!("CARGO_PKG_VERSION").into());
    }
    all
}

fn of_types() -> Vec<CustomResourceDefinition> {
    vec![
        ApplicationBackup::crd(),
        ApplicationBackupSchedule::crd(),
        ApplicationClone::crd(),
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
