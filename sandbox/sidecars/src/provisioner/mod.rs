//! In place of external-provisioner, on each node (`--node-deployment`): claims of which this node was selected get volumes, and volumes of this node that nobody claims any
//! more are deleted.
//!
//! Left out: classes that bind at once, and the room that is published for the scheduler (`CSIStorageCapacity`), which the releases of Kubernetes that the sandbox
//! builds do not serve.

mod create;
mod delete;
mod source;
mod volume;

use crate::driver::Driver;
use crate::events::Events;
use crate::flags::{ToDriver, duration};
use crate::objects::again;
use crate::proto::controller_service_capability::rpc;
use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// By this a volume is known as one that was made for a claim, and by whom.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// While a volume has this, its bytes are there.
const VOLUME_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The socket of the driver
    #[arg(long, default_value = "/run/csi/socket")]
    csi_address: PathBuf,
    /// The longest that a call may take
    #[arg(long, default_value = "15s", value_parser = duration)]
    timeout: Duration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    node_deployment: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    node_deployment_immediate_binding: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    strict_topology: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    immediate_topology: bool,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    extra_create_metadata: bool,
    /// Taken, and told to be left out
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    enable_capacity: bool,
    /// Of what is left out
    #[arg(long, requires = "enable_capacity", allow_hyphen_values = true)]
    capacity_ownerref_level: Option<i32>,
}

/// What both controllers know.
struct Context {
    client: Client,
    driver: Driver,
    events: Events,
    node: String,
    topology: HashMap<String, String>,
    /// The driver tells one writer from several pods of a node.
    tells_writers_apart: bool,
    extra_create_metadata: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    ensure!(arguments.node_deployment, "this stand-in is for --node-deployment");
    ensure!(
        !arguments.node_deployment_immediate_binding,
        "this stand-in is for --node-deployment-immediate-binding=false"
    );
    ensure!(
        arguments.strict_topology && !arguments.immediate_topology,
        "this stand-in is for --strict-topology and --immediate-topology=false"
    );
    if arguments.enable_capacity {
        let owner = arguments.capacity_ownerref_level;
        tracing::info!(?owner, "this stand-in does not publish capacities");
    }
    let node = std::env::var("NODE_NAME").context("NODE_NAME must be the name of this node")?;
    let driver = Driver::connect(&ToDriver { csi_address: arguments.csi_address, timeout: arguments.timeout }).await?;
    let topology = driver.topology().await?;
    let tells_writers_apart = driver.can(rpc::Type::SingleNodeMultiWriter).await?;
    let client = Client::try_default().await.context("find the API server")?;
    let events = Events::new(&client, driver.name.clone());
    let context = Arc::new(Context {
        events,
        client: client.clone(),
        driver,
        node,
        topology,
        tells_writers_apart,
        extra_create_metadata: arguments.extra_create_metadata,
    });
    let claims = Controller::new(Api::<PersistentVolumeClaim>::all(client.clone()), watcher::Config::default()).run(
        create::provision,
        |claim, failure, _| again(&claim.name_any(), failure),
        context.clone(),
    );
    let volumes = Controller::new(Api::<PersistentVolume>::all(client), watcher::Config::default()).run(
        delete::reclaim,
        |volume, failure, _| again(&volume.name_any(), failure),
        context,
    );
    // Errors have been reported where they happened, and what failed is tried again.
    tokio::join!(claims.for_each(async |_| ()), volumes.for_each(async |_| ()));
    anyhow::bail!("watching has ended")
}
