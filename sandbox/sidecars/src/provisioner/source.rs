//! What a volume is made from: a snapshot, or another claim's volume. Neither may go meanwhile, for which they get finalizers.

use super::Context;
use crate::failure::{Failure, Result};
use crate::objects::{add_finalizer, named, remove_finalizers};
use crate::proto::VolumeContentSource;
use crate::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::snapshots::{GROUP, VolumeSnapshot, VolumeSnapshotContent};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TypedLocalObjectReference};
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

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

/// A claim has its volume. What that was made from may go, when no other claim waits to have one made from it.
pub(super) async fn release(claim: &PersistentVolumeClaim, context: &Context) -> Result<()> {
    let Some(source) = data_source(claim) else { return Ok(()) };
    let (client, namespace) = (context.client.clone(), claim.namespace().unwrap_or_default());
    match source.kind.as_str() {
        "VolumeSnapshot" => let_go::<VolumeSnapshot>(client, &namespace, source, FROM_SNAPSHOT).await,
        "PersistentVolumeClaim" => let_go::<PersistentVolumeClaim>(client, &namespace, source, CLONING).await,
        _ => Ok(()),
    }
}

async fn let_go<K>(client: Client, namespace: &str, source: &TypedLocalObjectReference, finalizer: &str) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(&source.name).await.map_err(Failure::kubernetes("get the source of a volume"))?;
    let Some(origin) = found.filter(|origin| origin.finalizers().iter().any(|there| there == finalizer)) else {
        return Ok(());
    };
    let claims = Api::<PersistentVolumeClaim>::namespaced(client, namespace).list(&ListParams::default()).await;
    let claims = claims.map_err(Failure::kubernetes("list claims"))?;
    let waits = |other: &PersistentVolumeClaim| {
        let is_bound = other.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        !is_bound && data_source(other).is_some_and(|of| of.kind == source.kind && of.name == source.name)
    };
    if claims.items.iter().any(waits) {
        return Ok(());
    }
    remove_finalizers(&api, &origin, &[finalizer]).await
}
