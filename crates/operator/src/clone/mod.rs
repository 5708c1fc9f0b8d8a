//! Clones: an application is copied into another namespace of the same cluster, without a backup.
//!
//! ```text
//!   Preparing ──► Volumes ───────────────────────────► Resources ──► Done
//!   everything     a snapshot of each, made known in    everything
//!   is checked,    the destination, a claim from it;    else is read
//!   nothing made   snapshots go when all are bound      and made
//! ```
//! Invariants: nothing is made before everything that can be known was checked; a claim stays only when its volume was made from the snapshot; no workload is made when a volume is
//! missing; a snapshot goes only when nothing waits to be made from it; nothing with the label of the run is left when it is over.
//!
//! A claim bears the label of the run until it is bound. So what never became a volume goes with the run, as everything does that runs make for their own use.

mod apply;
mod facts;
mod gather;
mod make;
mod plan;
mod status;
mod validate;
mod volume;

use std::future::ready;
use std::sync::Arc;

use api::ApplicationClone;
use futures::StreamExt;
use kube::Api;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};

use crate::context::{Context, try_again};
use crate::error::Error;

/// Runs for ever.
pub(crate) async fn controller(context: Arc<Context>) {
    Controller::new(Api::<ApplicationClone>::all(context.client.clone()), watcher::Config::default())
        .with_config(context.controller_config())
        .run(reconcile, try_again, context)
        .for_each(|_| ready(()))
        .await;
}

async fn reconcile(cached: Arc<ApplicationClone>, context: Arc<Context>) -> Result<Action, Error> {
    let Some(gathered) = gather::gather(&context, &cached).await? else { return Ok(Action::await_change()) };
    let plan = plan::plan(&gathered, context.limits());
    let applied = apply::apply(&context, &gathered, plan).await?;
    status::write(&context, gathered, applied).await
}
