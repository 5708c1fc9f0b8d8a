//! The controllers: backups and their schedules, restores and their transformations, clones, locations.
//!
//! Each kind is reconciled in five named steps, one module each: *gather* reads the cluster and the repository, *validate* and *plan* are
//! pure, *apply* does the next step and says what it did, *status* writes that down. A reconcile looks at what is there and remembers
//! nothing, so that an operator that is killed anywhere is replaced by another that goes on.

mod admission;
mod backup;
mod claims;
pub mod cleanup;
mod clone;
pub mod conditions;
pub mod config;
pub mod context;
pub mod error;
pub mod events;
mod hold;
pub mod http;
pub mod leader;
mod location;
pub mod metrics;
pub mod mover_pod;
pub mod objects;
pub mod repositories;
mod restore;
pub mod rules;
mod schedule;
mod snapshots;
mod tally;
mod transformation;
mod trust;
mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kube::Client;
use tokio_util::sync::CancellationToken;

use metrics::Metrics;

pub use config::{Companion, HookLimits, Limits, OperatorConfig};
pub use context::Context;
pub use error::Error;
pub use repositories::{AsLocated, Stores};
pub use turns::Bounds;

/// Runs the operator until `shutdown`: serves health and metrics, waits for the lease, then runs the controllers for as long as it has it.
///
/// # Errors
/// The port cannot be had. Everything that can get better by itself is waited for instead.
pub async fn run(client: Client, config: OperatorConfig, shutdown: CancellationToken) -> Result<(), Error> {
    let listener = http::listen(&config).await?;
    let metrics = Metrics::with(&config.companions);
    let pages = http::Pages { metrics: Arc::new(metrics), ..http::Pages::default() };
    let server = tokio::spawn(http::serve(listener, pages.clone(), shutdown.clone().cancelled_owned()));
    tokio::select! {
        () = work(client, config, &pages, &shutdown) => {}
        () = shutdown.cancelled() => {}
    }
    match server.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the server of health and metrics ended badly"),
        Err(error) => tracing::warn!(%error, "the server of health and metrics was cut off"),
    }
    Ok(())
}

async fn work(client: Client, config: OperatorConfig, pages: &http::Pages, shutdown: &CancellationToken) {
    let cluster_id = context::cluster_id(&client, &config.limits).await;
    pages.ready.store(true, Ordering::Relaxed);
    let context = Arc::new(Context::new(client.clone(), config.clone(), pages.metrics.clone(), cluster_id));
    if config.leader_election {
        leader::lead(client, &config, &pages.metrics, shutdown, || controllers(context.clone())).await;
    } else {
        pages.metrics.set_leader(true);
        controllers(context).await;
    }
}

/// All controllers. They end only by being dropped.
async fn controllers(context: Arc<Context>) {
    tokio::join!(
        location::controller(context.clone()),
        backup::controller(context.clone()),
        restore::controller(context.clone()),
        clone::controller(context.clone()),
        schedule::controller(context.clone()),
        transformation::controller(context.clone()),
        context::sweep(context.clone()),
        context.turns.watch(context.client.clone()),
        futures::future::join_all(context.config.companions.iter().map(|companion| companion.begin())),
    );
}
