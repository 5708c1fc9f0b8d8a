//! Backups: one run, one recovery point.
//!
//! ```text
//!   Pending ─► Preparing ─► PreExecRule ─► Volumes ─► PostExecRule ─► Resources ─► Publishing ─► Done
//!                 │              │            │            │              ▲            │
//!                 │              └────────────┴─── fails ─►│              └── draft ───┘   an operator that is new has no
//!                 └──────────────────────────────► Failed ◄┘                               draft, and stores again
//! ```
//! The two stages of rules are left out where no rule is named. What fails between them passes through the second: what was begun in an application has an end.
//! What is fixed in the first pass through Volumes, by a copy or by a snapshot, is what the rules hold the application for; snapshots are read in a second pass
//! after PostExecRule, while the application goes on.
//!
//! Invariant: the status of a run is written only from what was read back, and a run is final only when nothing that it made for its own
//! use is left. The recovery point's name follows from the run alone, so a run that is taken up by another operator finds what the first
//! one published, and adopts it.

mod apply;
mod consistency;
mod deletion;
mod gather;
pub(crate) mod memory;
mod outcome;
mod parents;
mod plan;
mod status;
mod store;
mod validate;
mod volume;

use std::future::ready;
use std::sync::Arc;

use api::{ApplicationBackup, Phase, RUN_LABEL};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};

use crate::context::{Context, try_again};
use crate::error::Error;
use crate::mover_pod;

/// Runs for ever.
pub(crate) async fn controller(context: Arc<Context>) {
    let client = context.client.clone();
    let movers = watcher::Config::default().labels(RUN_LABEL);
    let woken = context.clone();
    Controller::new(Api::<ApplicationBackup>::all(client.clone()), watcher::Config::default())
        .with_config(context.controller_config())
        .watches(Api::<Pod>::all(client), movers, move |pod| {
            mover_pod::run_of::<ApplicationBackup>(&pod).into_iter().chain(woken.turns.next())
        })
        .run(reconcile, try_again, context)
        .for_each(|_| ready(()))
        .await;
}

async fn reconcile(cached: Arc<ApplicationBackup>, context: Arc<Context>) -> Result<Action, Error> {
    let Some(gathered) = gather::gather(&context, &cached).await? else {
        return Ok(Action::await_change());
    };
    note_good_point(&context, &gathered.run);
    let plan = plan::plan(&gathered, context.limits());
    let applied = apply::apply(&context, &gathered, plan).await?;
    status::write(&context, gathered, applied).await
}

/// Tells the metrics of a complete recovery point, also of one that an operator before this one has made.
fn note_good_point(context: &Context, run: &ApplicationBackup) {
    let Some((namespaces, at)) = good_point(run) else { return };
    namespaces.iter().for_each(|namespace| context.metrics.good_point(namespace, at));
}

/// Of which namespaces a run has made a complete recovery point, and when, as it says. Of those that it may not act on it has made none, whatever it says: who
/// watches over them would believe that they are safe.
fn good_point(run: &ApplicationBackup) -> Option<(Vec<String>, Timestamp)> {
    let status = run.status.as_ref().filter(|status| status.phase == Phase::Succeeded)?;
    let ended = status.stages.last()?.finished_at.as_ref()?.0;
    validate::barred(run).is_none().then(|| (validate::selection(run).namespaces, ended))
}

#[cfg(test)]
mod tests {
    use api::{ApplicationBackupSpec, ApplicationBackupStatus, Timed};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn nobody_is_told_that_a_namespace_is_safe_by_a_run_of_another() {
        let check = |own: &str, of: &str, expected: bool| {
            let spec = ApplicationBackupSpec {
                namespaces: vec![of.to_owned()],
                backup_location: "main".into(),
                ..ApplicationBackupSpec::default()
            };
            let mut run = ApplicationBackup::new("b", spec);
            run.metadata.namespace = Some(own.into());
            let at = Time(Timestamp::UNIX_EPOCH);
            run.status = Some(ApplicationBackupStatus {
                phase: Phase::Succeeded,
                stages: vec![Timed { stage: "Publishing".into(), started_at: at.clone(), finished_at: Some(at) }],
                ..ApplicationBackupStatus::default()
            });
            let told = good_point(&run).map(|(namespaces, _)| namespaces);
            assert_eq!(told, expected.then(|| vec![of.to_owned()]), "{of} by a run in {own}");
        };
        check("shop", "shop", true);
        check("tenant", "shop", false);
        check(api::ADMIN_NAMESPACE, "shop", true);
    }
}
