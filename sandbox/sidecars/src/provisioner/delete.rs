//! A volume that nobody claims any more is deleted: by the driver, then as an object.

use super::volume::DELETION_SECRET;
use super::{Context, PROVISIONED_BY, VOLUME_FINALIZER};
use crate::events::Kind;
use crate::failure::{Failure, Result, unless};
use crate::objects::{is_here, remove_finalizers, secret};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::DeleteParams;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) async fn reclaim(volume: Arc<PersistentVolume>, context: Arc<Context>) -> Result<Action> {
    let Some(handle) = to_delete(&volume, &context) else { return Ok(Action::await_change()) };
    let name = volume.name_any();
    let deleted = async {
        let secrets = match DELETION_SECRET.map(|key| volume.annotations().get(key).cloned().unwrap_or_default()) {
            [name, namespace] if !name.is_empty() => secret(&context.client, &namespace, &name).await?,
            _ => HashMap::new(),
        };
        context.driver.delete_volume(&handle, secrets).await
    };
    if let Err(failure) = deleted.await {
        context.events.tell(&*volume, Kind::Warning, "VolumeFailedDelete", &failure).await;
        return Err(failure);
    }
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    let gone = api.delete(&name, &DeleteParams::default()).await.map(drop);
    unless(404, gone).map_err(Failure::kubernetes(format!("delete the persistent volume {name}")))?;
    if let Some(left) = api.get_opt(&name).await.map_err(Failure::kubernetes("look at the persistent volume"))? {
        remove_finalizers(&api, &left, &[VOLUME_FINALIZER]).await?;
    }
    tracing::info!(volume = name, "deleted");
    Ok(Action::await_change())
}

/// What the driver calls it, if it is to go, and lies on this node.
fn to_delete(volume: &PersistentVolume, context: &Context) -> Option<String> {
    let is_ours = volume.annotations().get(PROVISIONED_BY).is_some_and(|name| *name == context.driver.name);
    let spec = volume.spec.as_ref()?;
    let is_released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
    let deletes = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    // Without its finalizer its bytes are gone already.
    let is_there =
        volume.metadata.deletion_timestamp.is_none() || volume.finalizers().iter().any(|f| f == VOLUME_FINALIZER);
    let csi = spec.csi.as_ref().filter(|csi| csi.driver == context.driver.name)?;
    (is_ours && is_released && deletes && is_there && is_here(volume, &context.topology))
        .then(|| csi.volume_handle.clone())
}
