//! In place of the controller of external-snapshotter, of which a cluster has one for all drivers (`--enable-distributed-snapshotting`): a VolumeSnapshot gets a content, which the
//! sidecar of the node with the volume fills, and becomes ready with it.
//!
//! Contents that are made by hand are bound to the snapshots that name them. Left out: default classes, and groups.

use crate::events::{Events, Kind};
use crate::failure::{Failure, Result, unless};
use crate::objects::{add_finalizer, again, is_here, named, remove_finalizers};
use crate::quantity::quantity;
use crate::snapshots::{
    BEING_DELETED, CONTENT_FINALIZER, ContentSource, MANAGED_BY, VolumeSnapshot, VolumeSnapshotContent,
    VolumeSnapshotContentSpec, class,
};
use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A snapshot has these from the beginning: it may be bound, and something may be made from it.
const SNAPSHOT_FINALIZERS: [&str; 2] = [
    "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection",
    "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
];
/// A claim has this while a snapshot of it is taken.
const CLAIM_FINALIZER: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    enable_distributed_snapshotting: bool,
}

struct Context {
    client: Client,
    events: Events,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    ensure!(arguments.enable_distributed_snapshotting, "this stand-in is for --enable-distributed-snapshotting");
    let client = Client::try_default().await.context("find the API server")?;
    let events = Events::new(&client, "snapshot-controller".to_owned());
    let context = Arc::new(Context { events, client: client.clone() });
    let of = |content: VolumeSnapshotContent| {
        let snapshot = content.spec.volume_snapshot_ref;
        Some(ObjectRef::new(&snapshot.name?).within(&snapshot.namespace?))
    };
    Controller::new(Api::<VolumeSnapshot>::all(client.clone()), watcher::Config::default())
        .watches(Api::<VolumeSnapshotContent>::all(client), watcher::Config::default(), of)
        .run(reconcile, |snapshot, failure, _| again(&snapshot.name_any(), failure), context)
        .for_each(async |_| ())
        .await;
    anyhow::bail!("watching has ended")
}

async fn reconcile(snapshot: Arc<VolumeSnapshot>, context: Arc<Context>) -> Result<Action> {
    if snapshot.metadata.deletion_timestamp.is_some() {
        delete(&snapshot, &context).await?;
        return Ok(Action::await_change());
    }
    let api = Api::<VolumeSnapshot>::namespaced(context.client.clone(), &snapshot.namespace().unwrap_or_default());
    if let Some(missing) =
        SNAPSHOT_FINALIZERS.iter().find(|finalizer| !snapshot.finalizers().iter().any(|f| f == *finalizer))
    {
        // The change brings it here again.
        add_finalizer(&api, &snapshot, missing).await?;
        return Ok(Action::await_change());
    }
    if snapshot.status.as_ref().and_then(|status| status.ready_to_use) == Some(true) {
        return Ok(Action::await_change());
    }
    let contents: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    let found =
        contents.get_opt(&content_name(&snapshot)).await.map_err(Failure::kubernetes("look for the content"))?;
    let done = match found {
        Some(content) => match bind(&snapshot, &content, &context).await {
            Ok(()) => follow(&snapshot, &content, &context).await,
            not_bound => not_bound,
        },
        None => begin(&snapshot, &context).await,
    };
    if let Err(failure) = &done {
        context.events.tell(&*snapshot, Kind::Warning, "SnapshotContentCreationFailed", failure).await;
    }
    done.map(|()| Action::await_change())
}

/// The content that the snapshot names, or is given.
fn content_name(snapshot: &VolumeSnapshot) -> String {
    let named = snapshot.spec.source.volume_snapshot_content_name.clone();
    named.unwrap_or_else(|| format!("snapcontent-{}", snapshot.uid().unwrap_or_default()))
}

/// Binds a content that was made by hand to the snapshot that it is meant for.
async fn bind(snapshot: &VolumeSnapshot, content: &VolumeSnapshotContent, context: &Context) -> Result<()> {
    let of = &content.spec.volume_snapshot_ref;
    let is_meant = of.name == snapshot.metadata.name
        && of.namespace == snapshot.metadata.namespace
        && of.uid.as_ref().is_none_or(|uid| Some(uid) == snapshot.metadata.uid.as_ref());
    if !is_meant {
        return Err(Failure::NotYet(format!("the content {} is of another snapshot", content.name_any())));
    }
    if of.uid.is_none() {
        let bound = Patch::Merge(json!({
            "metadata": {"finalizers": [CONTENT_FINALIZER]}, "spec": {"volumeSnapshotRef": {"uid": snapshot.uid()}},
        }));
        let contents: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
        let patched = contents.patch(&content.name_any(), &PatchParams::default(), &bound).await;
        patched.map_err(Failure::kubernetes("bind the content"))?;
    }
    Ok(())
}

/// Makes the content, for the node that has the volume.
async fn begin(snapshot: &VolumeSnapshot, context: &Context) -> Result<()> {
    let namespace = snapshot.namespace().unwrap_or_default();
    let claim = snapshot.spec.source.persistent_volume_claim_name.clone();
    let claim = claim.ok_or_else(|| Failure::NotYet("the content that the snapshot names is not there".to_owned()))?;
    let claim: PersistentVolumeClaim = named(&context.client, &namespace, &claim).await?;
    add_finalizer(&Api::namespaced(context.client.clone(), &namespace), &claim, CLAIM_FINALIZER).await?;
    let class_name = snapshot.spec.volume_snapshot_class_name.clone().unwrap_or_default();
    let class = class(&context.client, &class_name).await?;
    let volume = claim.spec.and_then(|spec| spec.volume_name).filter(|name| !name.is_empty());
    let volume = volume.ok_or_else(|| Failure::NotYet("the claim is not bound yet".to_owned()))?;
    let volume = Api::<PersistentVolume>::all(context.client.clone()).get(&volume).await;
    let volume = volume.map_err(Failure::kubernetes("get the persistent volume"))?;
    let spec = volume.spec.clone().unwrap_or_default();
    let csi = spec.csi.filter(|csi| csi.driver == class.driver);
    let csi = csi.ok_or_else(|| Failure::NotYet(format!("the volume is not of the driver {}", class.driver)))?;
    let mut content = VolumeSnapshotContent::new(
        &content_name(snapshot),
        VolumeSnapshotContentSpec {
            deletion_policy: class.deletion_policy,
            driver: class.driver,
            source: ContentSource { volume_handle: Some(csi.volume_handle), snapshot_handle: None },
            source_volume_mode: spec.volume_mode,
            volume_snapshot_class_name: Some(class_name),
            volume_snapshot_ref: snapshot.object_ref(&()),
        },
    );
    content.metadata.finalizers = Some(vec![CONTENT_FINALIZER.to_owned()]);
    content.metadata.labels = Some(BTreeMap::from([(MANAGED_BY.to_owned(), node_of(&volume, context).await?)]));
    let created = Api::all(context.client.clone()).create(&PostParams::default(), &content).await.map(drop);
    unless(409, created).map_err(Failure::kubernetes("create the content"))?;
    let status = json!({"status": {"boundVolumeSnapshotContentName": content.name_any(), "readyToUse": false}});
    set_status(snapshot, context, &status).await?;
    let note = format!("Waiting for a snapshot {namespace}/{} to be created by the CSI driver.", snapshot.name_any());
    context.events.tell(snapshot, Kind::Normal, "CreatingSnapshot", note).await;
    Ok(())
}

/// The node where a volume can be used.
async fn node_of(volume: &PersistentVolume, context: &Context) -> Result<String> {
    let nodes = Api::<Node>::all(context.client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.map_err(Failure::kubernetes("list nodes"))?;
    let fits = |node: &Node| is_here(volume, &node.labels().clone().into_iter().collect());
    let found = nodes.items.iter().find(|node| fits(node)).map(ResourceExt::name_any);
    found.ok_or_else(|| Failure::NotYet(format!("no node can use the volume {}", volume.name_any())))
}

/// Takes over what the sidecar says of the content.
async fn follow(snapshot: &VolumeSnapshot, content: &VolumeSnapshotContent, context: &Context) -> Result<()> {
    let Some(status) = content.status.as_ref().filter(|status| status.ready_to_use == Some(true)) else {
        return Ok(());
    };
    let created = status.creation_time.and_then(|at| Timestamp::from_nanosecond(i128::from(at)).ok());
    let size = status.restore_size.and_then(|size| u64::try_from(size).ok());
    let told = json!({"status": {
        "boundVolumeSnapshotContentName": content.name_any(),
        "readyToUse": true,
        "creationTime": created.map(|at| at.strftime("%FT%TZ").to_string()),
        "restoreSize": size.map(quantity),
    }});
    set_status(snapshot, context, &told).await?;
    release_claim(snapshot, context).await?;
    context
        .events
        .tell(snapshot, Kind::Normal, "SnapshotReady", format!("Snapshot {} is ready to use.", snapshot.name_any()))
        .await;
    Ok(())
}

/// Its content goes first, and the snapshot behind it with that.
async fn delete(snapshot: &VolumeSnapshot, context: &Context) -> Result<()> {
    let contents: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    let name = content_name(snapshot);
    if let Some(content) = contents.get_opt(&name).await.map_err(Failure::kubernetes("look for the content"))? {
        if !content.annotations().contains_key(BEING_DELETED) {
            let told = Patch::Merge(json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}}));
            let patched = contents.patch(&name, &PatchParams::default(), &told).await;
            patched.map_err(Failure::kubernetes("tell the content that it is to be deleted"))?;
        }
        if content.spec.deletion_policy == "Delete" {
            if content.metadata.deletion_timestamp.is_none() {
                let gone = contents.delete(&name, &DeleteParams::default()).await.map(drop);
                unless(404, gone).map_err(Failure::kubernetes("delete the content"))?;
            }
            // Its end brings the snapshot here again; should that be missed, it is looked for.
            if contents.get_opt(&name).await.map_err(Failure::kubernetes("look for the content"))?.is_some() {
                return Err(Failure::NotYet("the content is not gone yet".to_owned()));
            }
        }
    }
    release_claim(snapshot, context).await?;
    let api = Api::<VolumeSnapshot>::namespaced(context.client.clone(), &snapshot.namespace().unwrap_or_default());
    match api.get_opt(&snapshot.name_any()).await.map_err(Failure::kubernetes("look at the snapshot"))? {
        Some(snapshot) => remove_finalizers(&api, &snapshot, &SNAPSHOT_FINALIZERS).await,
        None => Ok(()),
    }
}

/// The claim may go when no other snapshot of it is being taken.
async fn release_claim(snapshot: &VolumeSnapshot, context: &Context) -> Result<()> {
    let namespace = snapshot.namespace().unwrap_or_default();
    let Some(name) = &snapshot.spec.source.persistent_volume_claim_name else { return Ok(()) };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    let Some(claim) = claims.get_opt(name).await.map_err(Failure::kubernetes("get the claim"))? else { return Ok(()) };
    let all = Api::<VolumeSnapshot>::namespaced(context.client.clone(), &namespace).list(&ListParams::default()).await;
    let all = all.map_err(Failure::kubernetes("list snapshots"))?;
    let waits = |other: &VolumeSnapshot| {
        let is_ready = other.status.as_ref().and_then(|status| status.ready_to_use) == Some(true);
        let is_of_it = other.spec.source.persistent_volume_claim_name.as_ref() == Some(name);
        is_of_it && !is_ready && other.uid() != snapshot.uid() && other.metadata.deletion_timestamp.is_none()
    };
    if all.items.iter().any(waits) {
        return Ok(());
    }
    remove_finalizers(&claims, &claim, &[CLAIM_FINALIZER]).await
}

async fn set_status(snapshot: &VolumeSnapshot, context: &Context, status: &serde_json::Value) -> Result<()> {
    let api = Api::<VolumeSnapshot>::namespaced(context.client.clone(), &snapshot.namespace().unwrap_or_default());
    let patched = api.patch_status(&snapshot.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
    patched.map(drop).map_err(Failure::kubernetes("say what became of the snapshot"))
}
