//! What a volume is made from: a snapshot, or another claim's volume. Neither may go meanwhile, for which they get finalizers.

use super::Context;
use crate::failure::{Failure, Result};
use crate::objects::{add_finalizer, named, remove_finalizers};
use crate::proto::VolumeContentSource;
use crate::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::snapshots::{GROUP, VolumeSnapshot, VolumeSnapshotContent};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TypedLocalObjectReference};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

const CLONING: &str = "provisioner.storage.kubernetes.io/cloning-protection";
const FROM_SNAPSHOT: &str = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";

fn data_source(claim: &PersistentVolumeClaim) -> Option<&TypedLocalObjectReference> {
    claim.spec.as_ref()?.data_source.as_ref()
}

/// The source of a claim's volume, as the driver knows it.
pub(super) async fn of(claim: &PersistentVolumeClaim, context: &Context) -> Result<Option<VolumeContentSource>> {
    let namespace = claim.namespace().unwrap_or_default();
    let Some(source) = data_source(claim) else { return Ok(None) };
    let source = match (source.api_group.as_deref(), source.kind.as_str()) {
        (Some(GROUP), "VolumeSnapshot") => Type::Snapshot(snapshot(&namespace, &source.name, context).await?),
        (None, "PersistentVolumeClaim") => Type::Volume(volume(&namespace, &source.name, context).await?),
        (_, kind) => {
            return Err(Failure::NotYet(format!("a data source of kind {kind} is not handled by the provisioner")));
        }
    };
    Ok(Some(VolumeContentSource { r#type: Some(source) }))
}

async fn snapshot(namespace: &str, name: &str, context: &Context) -> Result<SnapshotSource> {
    let snapshot: VolumeSnapshot = named(&context.client, namespace, name).await?;
    let not_ready = || Failure::NotYet(format!("snapshot {name} is not Ready"));
    let status = snapshot.status.clone().filter(|status| status.ready_to_use == Some(true)).ok_or_else(not_ready)?;
    let content = status.bound_volume_snapshot_content_name.ok_or_else(not_ready)?;
    let content = Api::<VolumeSnapshotContent>::all(context.client.clone()).get(&content).await;
    let content = content.map_err(Failure::kubernetes("get the content of the snapshot"))?;
    if content.spec.driver != context.driver.name {
        return Err(Failure::NotYet(format!("snapshot {name} is of the driver {}", content.spec.driver)));
    }
    let handle = content.status.and_then(|status| status.snapshot_handle).ok_or_else(not_ready)?;
    add_finalizer(&Api::namespaced(context.client.clone(), namespace), &snapshot, FROM_SNAPSHOT).await?;
    Ok(SnapshotSource { snapshot_id: handle })
}

async fn volume(namespace: &str, name: &str, context: &Context) -> Result<VolumeSource> {
    let claim: PersistentVolumeClaim = named(&context.client, namespace, name).await?;
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    if volume.is_empty() || claim.metadata.deletion_timestamp.is_some() {
        return Err(Failure::NotYet(format!("the PVC DataSource {name} must be bound, and not be deleted")));
    }
    let volume = Api::<PersistentVolume>::all(context.client.clone()).get(&volume).await;
    let volume = volume.map_err(Failure::kubernetes("get the volume of the source"))?;
    let csi = volume.spec.and_then(|spec| spec.csi).filter(|csi| csi.driver == context.driver.name);
    let csi = csi.ok_or_else(|| Failure::NotYet(format!("the PVC DataSource {name} has no volume of this driver")))?;
    add_finalizer(&Api::namespaced(context.client.clone(), namespace), &claim, CLONING).await?;
    Ok(VolumeSource { volume_id: csi.volume_handle })
}

/// A volume was made from it.
pub(super) async fn release_snapshot(claim: &PersistentVolumeClaim, context: &Context) -> Result<()> {
    let Some(source) = data_source(claim).filter(|source| source.kind == "VolumeSnapshot") else { return Ok(()) };
    let namespace = claim.namespace().unwrap_or_default();
    let snapshot: VolumeSnapshot = named(&context.client, &namespace, &source.name).await?;
    remove_finalizers(&Api::namespaced(context.client.clone(), &namespace), &snapshot, &[FROM_SNAPSHOT]).await
}

/// The claim that this one was cloned from may go, when no other one waits to be cloned from it.
pub(super) async fn release_claim(claim: &PersistentVolumeClaim, context: &Context) -> Result<()> {
    let Some(source) = data_source(claim).filter(|source| source.kind == "PersistentVolumeClaim") else {
        return Ok(());
    };
    let namespace = claim.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    let Some(origin) = api.get_opt(&source.name).await.map_err(Failure::kubernetes("get the source of the clone"))?
    else {
        return Ok(());
    };
    if !origin.finalizers().iter().any(|there| there == CLONING) {
        return Ok(());
    }
    let all = api.list(&ListParams::default()).await.map_err(Failure::kubernetes("list claims"))?;
    let waits = |other: &PersistentVolumeClaim| {
        let is_bound = other.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        !is_bound && data_source(other).is_some_and(|of| of.kind == source.kind && of.name == source.name)
    };
    if all.items.iter().any(waits) {
        return Ok(());
    }
    remove_finalizers(&api, &origin, &[CLONING]).await
}
