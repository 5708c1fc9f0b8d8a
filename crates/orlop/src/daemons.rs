//! `orlop operator` and `orlop mover`: what runs in pods.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgAction, Args};
use cluster::monitor;
use futures::future::BoxFuture;
use kube::Client;
use operator::rules::OfCluster;
use operator::{AsLocated, Bounds, Companion, Limits, OperatorConfig};
use prometheus_client::registry::Registry;
use records::Patience;
use records::kubernetes::KubernetesRecords;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ConnectionArgs, configuration};
use crate::error::{Error, Exit, Result};

/// Run the operator
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// The image that movers run: the operator's own
    #[arg(long, env = "ORLOP_IMAGE", hide_env_values = true, value_name = "IMAGE")]
    image: String,
    /// Secrets with which movers pull the image; they must exist in every namespace that has volumes
    #[arg(long, env = "ORLOP_IMAGE_PULL_SECRETS", hide_env_values = true, value_name = "NAME", value_delimiter = ',')]
    image_pull_secret: Vec<String>,
    /// Where health and metrics are served
    #[arg(
        long,
        env = "ORLOP_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    listen: SocketAddr,
    /// The namespace that the operator lives in
    #[arg(long, env = "POD_NAMESPACE", hide_env_values = true, value_name = "NAMESPACE", default_value = api::ADMIN_NAMESPACE)]
    home: String,
    /// The name of this process among the operators
    #[arg(long, env = "POD_NAME", hide_env_values = true, value_name = "NAME")]
    identity: Option<String>,
    /// Movers that work at once in the cluster
    #[arg(long, env = "ORLOP_MOVERS", hide_env_values = true, value_name = "COUNT", default_value_t = Limits::default().movers.cluster, value_parser = at_least_one)]
    movers: usize,
    /// Movers that use one location at once
    #[arg(long, env = "ORLOP_MOVERS_PER_LOCATION", hide_env_values = true, value_name = "COUNT", default_value_t = Limits::default().movers.location, value_parser = at_least_one)]
    movers_per_location: usize,
    /// Movers that work at once on one node
    #[arg(long, env = "ORLOP_MOVERS_PER_NODE", hide_env_values = true, value_name = "COUNT", default_value_t = Limits::default().movers.node, value_parser = at_least_one)]
    movers_per_node: usize,
    /// Move pods off nodes whose storage is offline, when their volumes can be used elsewhere
    #[arg(long, env = "ORLOP_STORAGE_MONITOR", hide_env_values = true, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    storage_monitor: bool,
    /// Work without holding the lease; only where there can be no second operator
    #[arg(long)]
    no_leader_election: bool,
    // It works in all namespaces, and lives in `home`: there is no other that could be meant.
    #[command(flatten)]
    cluster: ConnectionArgs,
}

/// Move one volume; the operator starts this
#[derive(Debug, Args)]
pub(crate) struct MoverArgs {
    /// File with the job, as JSON
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// File that the outcome is written to
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    message: PathBuf,
}

/// With none, nothing would ever be moved.
fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one is needed".into()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the operator until it is told to stop.
pub(crate) async fn operator(args: OperatorArgs) -> Result<Exit> {
    let cluster = Cluster::connect_to(&args.cluster, Some(args.home.clone())).await?;
    let identity = args.identity.unwrap_or_else(|| format!("orlop-{}", std::process::id()));
    let movers = Bounds { cluster: args.movers, location: args.movers_per_location, node: args.movers_per_node };
    let limits = Limits { movers, ..Limits::default() };
    let containers = Arc::new(OfCluster::new(cluster.client(), limits.hooks.exec_timeout));
    let mut companions: Vec<Arc<dyn Companion>> = vec![Arc::new(Placing::new(&cluster, &args.cluster).await?)];
    if args.storage_monitor {
        companions.push(Arc::new(Monitoring { client: cluster.client(), metrics: monitor::Metrics::default() }));
    }
    let config = OperatorConfig {
        namespace: args.home,
        identity,
        image: args.image,
        // An environment variable that is set and empty is one empty name.
        pull_secrets: args.image_pull_secret.into_iter().filter(|name| !name.is_empty()).collect(),
        listen: args.listen,
        leader_election: !args.no_leader_election,
        limits,
        stores: Arc::new(AsLocated),
        containers,
        companions,
    };
    let shutdown = CancellationToken::new();
    stop_at_signals(shutdown.clone())?;
    operator::run(cluster.client(), config, shutdown)
        .await
        .map(|()| Exit::Succeeded)
        .map_err(|e| Error::new("run the operator").because(e))
}

/// The controller of replicated volumes.
struct Placing {
    client: Client,
    records: KubernetesRecords,
}

impl Placing {
    async fn new(cluster: &Cluster, connection: &ConnectionArgs) -> Result<Self> {
        let records = KubernetesRecords::new(configuration(connection).await?, Patience::default());
        let records = records.map_err(|e| Error::new("run the operator").because(e))?;
        Ok(Self { client: cluster.client(), records })
    }
}

impl Companion for Placing {
    fn begin(&self) -> BoxFuture<'static, ()> {
        Box::pin(cluster::controller::run(self.client.clone(), self.records.clone(), cluster::Times::default()))
    }

    /// It counts nothing.
    fn register(&self, _: &mut Registry) {}
}

/// The monitor of the nodes' storage.
struct Monitoring {
    client: Client,
    metrics: monitor::Metrics,
}

impl Companion for Monitoring {
    fn begin(&self) -> BoxFuture<'static, ()> {
        Box::pin(monitor::run(self.client.clone(), cluster::Times::default(), self.metrics.clone()))
    }

    fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }
}

/// SIGTERM is how a kubelet stops a pod, SIGINT how a person stops a program.
pub(crate) fn stop_at_signals(shutdown: CancellationToken) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|e| Error::new("listen for signals").because(e));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("told to stop by SIGTERM"),
            _ = interrupt.recv() => tracing::info!("told to stop by SIGINT"),
        }
        shutdown.cancel();
    });
    Ok(())
}

/// Does the job of a mover. Its outcome says what went wrong, so nothing is added here.
pub(crate) async fn mover(args: MoverArgs) -> Result<Exit> {
    let lines = mover::Lines::new(std::io::stdout());
    let ended = mover::run_process(&args.job, &args.message, lines).await;
    Ok(if ended == ExitCode::SUCCESS { Exit::Succeeded } else { Exit::Failed })
}
