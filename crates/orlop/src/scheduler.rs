//! `orlop scheduler`: what kube-scheduler asks where pods are put.

use crate::cluster::{Cluster, ConnectionArgs};
use crate::daemons::stop_at_signals;
use crate::error::{Error, Exit, Result};
use clap::Args;
use scheduler::{Cache, Extender, listen};
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// Run the scheduler extender: pods are put where the replicas of their volumes are
#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    /// Where kube-scheduler asks, and health and metrics are served
    #[arg(
        long,
        env = "ORLOP_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8099"
    )]
    listen: SocketAddr,
    #[command(flatten)]
    cluster: ConnectionArgs,
}

/// Answers until it is told to stop.
pub(crate) async fn scheduler(args: SchedulerArgs) -> Result<Exit> {
    let failed = |error| Error::new("run the scheduler extender").because(error);
    let cluster = Cluster::connect_to(&args.cluster, None).await?;
    let listener = listen(args.listen).await.map_err(failed)?;
    let (cache, watches) = Cache::watching(&cluster.client(), &cluster::Times::default());
    let stop = CancellationToken::new();
    stop_at_signals(stop.clone())?;
    let serving = Extender::new(cache, Some(cluster.client())).serve(listener, stop);
    tokio::select! {
        served = serving => served.map(|()| Exit::Succeeded).map_err(failed),
        // They go on for as long as somebody polls them.
        () = watches => Ok(Exit::Failed),
    }
}
