//! In place of the sidecar of external-snapshotter, on each node (`--node-deployment`): a content that the controller has given to this node becomes a snapshot, and goes with it.
//!
//! One that is made by hand for a snapshot that is there says what the driver says of that. Left out: groups, and secrets.

use crate::driver::Driver;
use crate::events::{Events, Kind};
use crate::failure::{Failure, Result};
use crate::flags::{ToDriver, duration};
use crate::objects::{PREFIX, again, for_driver, remove_finalizers};
use crate::proto;
use crate::snapshots::{BEING_CREATED, BEING_DELETED, CONTENT_FINALIZER, MANAGED_BY, VolumeSnapshotContent, class};
use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args};
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The socket of the driver
    #[arg(long, default_value = "/run/csi/socket")]
    csi_address: PathBuf,
    /// The longest that a call may take
    #[arg(long, default_value = "1m", value_parser = duration)]
    timeout: Duration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    node_deployment: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    extra_create_metadata: bool,
}

struct Context {
    client: Client,
    driver: Driver,
    events: Events,
    extra_create_metadata: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    ensure!(arguments.node_deployment, "this stand-in is for --node-deployment");
    let node = std::env::var("NODE_NAME").context("NODE_NAME must be the name of this node")?;
    let driver = Driver::connect(&ToDriver { csi_address: arguments.csi_address, timeout: arguments.timeout }).await?;
    let client = Client::try_default().await.context("find the API server")?;
    let events = Events::new(&client, format!("snapshotter {}", driver.name));
    let context = Arc::new(Context {
        events,
        client: client.clone(),
        driver,
        extra_create_metadata: arguments.extra_create_metadata,
    });
    let mine = watcher::Config::default().labels(&format!("{MANAGED_BY}={node}"));
    Controller::new(Api::<VolumeSnapshotContent>::all(client), mine)
        .run(reconcile, |content, failure, _| again(&content.name_any(), failure), context)
        .for_each(async |_| ())
        .await;
    anyhow::bail!("watching has ended")
}

async fn reconcile(content: Arc<VolumeSnapshotContent>, context: Arc<Context>) -> Result<Action> {
    if content.spec.driver != context.driver.name {
        return Ok(Action::await_change());
    }
    let is_ready = content.status.as_ref().and_then(|status| status.ready_to_use) == Some(true);
    let done = if content.metadata.deletion_timestamp.is_some() {
        delete(&content, &context).await.map_err(|failure| ("SnapshotDeleteError", failure))
    } else if !is_ready {
        create(&content, &context).await.map_err(|failure| ("SnapshotCreationFailed", failure))
    } else {
        Ok(())
    };
    match done {
        Ok(()) => Ok(Action::await_change()),
        Err((reason, failure)) => {
            context.events.tell(&*content, Kind::Warning, reason, &failure).await;
            Err(failure)
        }
    }
}

async fn create(content: &VolumeSnapshotContent, context: &Context) -> Result<()> {
    let Some(volume) = content.spec.source.volume_handle.clone() else { return look(content, context).await };
    let class = class(&context.client, content.spec.volume_snapshot_class_name.as_deref().unwrap_or_default()).await?;
    annotate(content, context, &json!({BEING_CREATED: "yes"})).await?;
    let mut parameters = for_driver(&class.parameters);
    let of = &content.spec.volume_snapshot_ref;
    if context.extra_create_metadata {
        for (key, value) in [
            ("volumesnapshot/name", of.name.clone().unwrap_or_default()),
            ("volumesnapshot/namespace", of.namespace.clone().unwrap_or_default()),
            ("volumesnapshotcontent/name", content.name_any()),
        ] {
            parameters.insert(format!("{PREFIX}{key}"), value);
        }
    }
    let request = proto::CreateSnapshotRequest {
        name: format!("snapshot-{}", of.uid.as_deref().unwrap_or_default()),
        source_volume_id: volume,
        parameters,
        ..proto::CreateSnapshotRequest::default()
    };
    let asked = context.driver.controller().create_snapshot(context.driver.timed(request)).await;
    let taken = match asked {
        Ok(answer) => answer.into_inner().snapshot.unwrap_or_default(),
        Err(status) => {
            let is_final =
                !matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted);
            if is_final {
                annotate(content, context, &json!({BEING_CREATED: null})).await?;
            }
            return Err(status.into());
        }
    };
    let ready = tell(content, context, &taken).await?;
    annotate(content, context, &json!({BEING_CREATED: null})).await?;
    ready
}

/// Says of a content what its driver says of the snapshot; the inner result is whether that can be used yet.
async fn tell(content: &VolumeSnapshotContent, context: &Context, snapshot: &proto::Snapshot) -> Result<Result<()>> {
    let created = snapshot.creation_time.unwrap_or_default();
    let status = json!({"status": {
        "snapshotHandle": snapshot.snapshot_id,
        "creationTime": created.seconds * 1_000_000_000 + i64::from(created.nanos),
        "restoreSize": snapshot.size_bytes,
        "readyToUse": snapshot.ready_to_use,
        "error": null,
    }});
    set_status(content, context, &status).await?;
    let not_yet = || Failure::NotYet("the snapshot is not ready to use yet".to_owned());
    Ok(if snapshot.ready_to_use { Ok(()) } else { Err(not_yet()) })
}

/// Says of a content that is made by hand what the driver knows of its snapshot.
async fn look(content: &VolumeSnapshotContent, context: &Context) -> Result<()> {
    let Some(snapshot_id) = content.spec.source.snapshot_handle.clone() else { return Ok(()) };
    let request = proto::ListSnapshotsRequest { snapshot_id: snapshot_id.clone(), ..Default::default() };
    let answer = context.driver.controller().list_snapshots(context.driver.timed(request)).await?.into_inner();
    let found = answer.entries.into_iter().find_map(|entry| entry.snapshot);
    let Some(found) = found else {
        return Err(Failure::NotYet(format!("the driver has no snapshot {snapshot_id}")));
    };
    tell(content, context, &found).await?
}

/// A snapshot goes with its content, when the controller has seen that it is to.
async fn delete(content: &VolumeSnapshotContent, context: &Context) -> Result<()> {
    let is_told = content.annotations().contains_key(BEING_DELETED);
    let handle = content.status.as_ref().and_then(|status| status.snapshot_handle.clone());
    if !is_told {
        return Ok(());
    }
    if let Some(snapshot_id) = handle.filter(|_| content.spec.deletion_policy == "Delete") {
        let request = proto::DeleteSnapshotRequest { snapshot_id, ..proto::DeleteSnapshotRequest::default() };
        context.driver.controller().delete_snapshot(context.driver.timed(request)).await?;
        set_status(content, context, &json!({"status": {"snapshotHandle": null, "readyToUse": false}})).await?;
    }
    let api: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    match api.get_opt(&content.name_any()).await.map_err(Failure::kubernetes("look at the content"))? {
        Some(content) => remove_finalizers(&api, &content, &[CONTENT_FINALIZER]).await,
        None => Ok(()),
    }
}

async fn annotate(content: &VolumeSnapshotContent, context: &Context, annotations: &Value) -> Result<()> {
    let api: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let patched = api.patch(&content.name_any(), &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(Failure::kubernetes("annotate the content"))
}

async fn set_status(content: &VolumeSnapshotContent, context: &Context, status: &Value) -> Result<()> {
    let api: Api<VolumeSnapshotContent> = Api::all(context.client.clone());
    let patched = api.patch_status(&content.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
    patched.map(drop).map_err(Failure::kubernetes("say what became of the content"))
}
