//! In place of external-resizer: a claim that asks for more gets a larger volume.
//!
//! A driver whose controller expands volumes is asked to; one of which only the node service does is not, as there is nothing to ask (the original calls this its trivial
//! resizer). Then the persistent volume gets its new size, and the claim the condition by which the kubelet of the node knows that the rest is to be done.
//!
//! Left out: giving up sizes that cannot be had, volumes that expand only while nobody uses them, and classes of attributes.

use crate::driver::Driver;
use crate::events::{Events, Kind};
use crate::failure::{Failure, Result};
use crate::flags::{ToDriver, duration};
use crate::lease::Wanted;
use crate::objects::again;
use crate::proto;
use crate::proto::controller_service_capability::rpc;
use crate::quantity::{STORAGE, quantity, storage};
use anyhow::Context as _;
use clap::{ArgAction, Args};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const PENDING: &str = "FileSystemResizePending";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The socket of the driver
    #[arg(long, default_value = "/run/csi/socket")]
    csi_address: PathBuf,
    /// The longest that a call may take
    #[arg(long, default_value = "10s", value_parser = duration)]
    timeout: Duration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    leader_election: bool,
}

struct Context {
    client: Client,
    driver: Driver,
    events: Events,
    /// The driver's controller expands volumes.
    by_controller: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let driver = Driver::connect(&ToDriver { csi_address: arguments.csi_address, timeout: arguments.timeout }).await?;
    let by_controller = driver.can(rpc::Type::ExpandVolume).await?;
    if !by_controller {
        anyhow::ensure!(driver.expands_on_nodes().await?, "the driver expands no volumes");
        tracing::info!("the driver expands volumes on their nodes only");
    }
    let client = Client::try_default().await.context("find the API server")?;
    let lease = format!("external-resizer-{}", driver.name.replace('.', "-"));
    let events = Events::new(&client, format!("external-resizer {}", driver.name));
    let context = Arc::new(Context { events, client: client.clone(), driver, by_controller });
    let work = async {
        Controller::new(Api::<PersistentVolumeClaim>::all(client.clone()), watcher::Config::default())
            .run(expand, |claim, failure, _| again(&claim.name_any(), failure), context)
            .for_each(async |_| ())
            .await;
        anyhow::bail!("watching has ended")
    };
    if !arguments.leader_election {
        return work.await;
    }
    let lease = Wanted::new(client.clone(), lease)?;
    lease.acquire().await;
    tokio::select! {
        ended = work => ended,
        lost = lease.keep() => lost,
    }
}

async fn expand(claim: Arc<PersistentVolumeClaim>, context: Arc<Context>) -> Result<Action> {
    let Some(wanted) = wanted(&claim) else { return Ok(Action::await_change()) };
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    let volume = api.get(&name).await.map_err(Failure::kubernetes(format!("get the persistent volume {name}")))?;
    let spec = volume.spec.clone().unwrap_or_default();
    let Some(csi) = spec.csi.filter(|csi| csi.driver == context.driver.name) else { return Ok(Action::await_change()) };
    let has = storage(spec.capacity.as_ref()).unwrap_or(0);
    if has >= wanted && condition(&claim, PENDING) {
        // The kubelet is at it.
        return Ok(Action::await_change());
    }
    if has < wanted {
        mark(&claim, &context, "Resizing", "", wanted, "ControllerResizeInProgress").await?;
        let note = format!("External resizer is resizing volume {name}");
        context.events.tell(&*claim, Kind::Normal, "Resizing", note).await;
        let bytes = match context.by_controller {
            true => ask(&csi.volume_handle, wanted, &claim, &context).await?,
            false => wanted,
        };
        let larger = json!({"spec": {"capacity": {STORAGE: quantity(bytes)}}});
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(larger)).await;
        patched.map_err(Failure::kubernetes(format!("give the persistent volume {name} its size")))?;
    }
    let message = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
    mark(&claim, &context, PENDING, message, wanted, "NodeResizePending").await?;
    let note = "Require file system resize of volume on node";
    context.events.tell(&*claim, Kind::Normal, "FileSystemResizeRequired", note).await;
    Ok(Action::await_change())
}

/// The size that a claim asks for, if it is bound and has less.
fn wanted(claim: &PersistentVolumeClaim) -> Option<u64> {
    let (spec, status) = (claim.spec.as_ref()?, claim.status.as_ref()?);
    let wanted = storage(spec.resources.as_ref()?.requests.as_ref())?;
    let has = storage(status.capacity.as_ref())?;
    (status.phase.as_deref() == Some("Bound") && wanted > has).then_some(wanted)
}

fn condition(claim: &PersistentVolumeClaim, kind: &str) -> bool {
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Has the driver's controller do it.
async fn ask(handle: &str, wanted: u64, claim: &PersistentVolumeClaim, context: &Context) -> Result<u64> {
    let range = proto::CapacityRange { required_bytes: i64::try_from(wanted).unwrap_or(i64::MAX), limit_bytes: 0 };
    let request = proto::ControllerExpandVolumeRequest {
        volume_id: handle.to_owned(),
        capacity_range: Some(range),
        ..proto::ControllerExpandVolumeRequest::default()
    };
    match context.driver.controller().controller_expand_volume(context.driver.timed(request)).await {
        Ok(answer) => Ok(u64::try_from(answer.into_inner().capacity_bytes).unwrap_or(wanted)),
        Err(status) => {
            let failure = Failure::from(status);
            context.events.tell(claim, Kind::Warning, "VolumeResizeFailed", &failure).await;
            Err(failure)
        }
    }
}

/// Says in the claim how far it is. Older servers leave out what they do not know.
async fn mark(
    claim: &PersistentVolumeClaim,
    context: &Context,
    kind: &str,
    message: &str,
    bytes: u64,
    status: &str,
) -> Result<()> {
    let conditions: Value = json!([{"type": kind, "status": "True", "lastTransitionTime": Timestamp::now().strftime("%FT%TZ").to_string(), "message": message}]);
    let patch = json!({"status": {
        "conditions": conditions,
        "allocatedResources": {STORAGE: quantity(bytes)},
        "allocatedResourceStatuses": {STORAGE: status},
    }});
    let api = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), &claim.namespace().unwrap_or_default());
    let patched = api.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(Failure::kubernetes(format!("say that the claim is {kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, status: &str, phase: &str, expected: Option<u64>) {
        let claim = json!({
            "metadata": {"name": "data"},
            "spec": {"resources": {"requests": {"storage": spec}}},
            "status": {"phase": phase, "capacity": {"storage": status}, "conditions": [{"type": PENDING, "status": "True"}]},
        });
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).expect("a claim");
        assert_eq!(wanted(&claim), expected, "{spec} {status} {phase}");
        assert!(condition(&claim, PENDING) && !condition(&claim, "Resizing"));
    }

    #[test]
    fn a_bound_claim_that_asks_for_more_is_resized() {
        check("2Gi", "1Gi", "Bound", Some(2 << 30));
        check("1Gi", "1Gi", "Bound", None);
        check("2Gi", "1Gi", "Pending", None);
        check("2Gi", "nonsense", "Bound", None);
    }
}
