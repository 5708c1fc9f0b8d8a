//! Schedules: they make backups at their times, and remove those that are not to be kept.
//!
//! A schedule keeps no list of its own: its runs are the backups with its label, named after what they are for and when that was due. So two
//! operators cannot make one twice, and one that is killed between any two steps is followed by another that goes on.

mod apply;
mod gather;
mod plan;
mod retention;
mod status;
mod validate;

use std::future::ready;
use std::sync::Arc;

use api::schedule::SCHEDULE_LABEL;
use api::{ApplicationBackup, ApplicationBackupSchedule, NamespacedSchedulePolicy, Phase, SchedulePolicy};
use futures::StreamExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt};

use crate::context::{Context, try_again};
use crate::error::Error;
use crate::metrics::ScheduleState;
use gather::Gathered;
use plan::Plan;

/// Runs for ever.
pub(crate) async fn controller(context: Arc<Context>) {
    let client = context.client.clone();
    let controller = Controller::new(Api::<ApplicationBackupSchedule>::all(client.clone()), watcher::Config::default());
    let (schedules, same) = (controller.store(), controller.store());
    let runs = watcher::Config::default().labels(SCHEDULE_LABEL);
    controller
        .with_config(context.controller_config())
        .watches(Api::<ApplicationBackup>::all(client.clone()), runs, |run| schedule_of(&run))
        .watches(Api::<SchedulePolicy>::all(client.clone()), watcher::Config::default(), move |policy| {
            naming(&schedules, None, &policy.name_any())
        })
        .watches(Api::<NamespacedSchedulePolicy>::all(client), watcher::Config::default(), move |policy| {
            naming(&same, policy.namespace().as_deref(), &policy.name_any())
        })
        .run(reconcile, try_again, context)
        .for_each(|_| ready(()))
        .await;
}

/// The schedule that made a run.
fn schedule_of(run: &ApplicationBackup) -> Option<ObjectRef<ApplicationBackupSchedule>> {
    let name = run.labels().get(SCHEDULE_LABEL)?;
    Some(ObjectRef::new(name).within(&run.namespace()?))
}

/// The schedules that name a policy, in one namespace or in all.
fn naming(
    schedules: &Store<ApplicationBackupSchedule>,
    namespace: Option<&str>,
    policy: &str,
) -> Vec<ObjectRef<ApplicationBackupSchedule>> {
    let of_namespace = |s: &ApplicationBackupSchedule| namespace.is_none() || s.namespace().as_deref() == namespace;
    let all = schedules.state().into_iter().filter(|s| s.spec.schedule_policy_name == policy && of_namespace(s));
    all.map(|schedule| ObjectRef::from_obj(&*schedule)).collect()
}

async fn reconcile(cached: Arc<ApplicationBackupSchedule>, context: Arc<Context>) -> Result<Action, Error> {
    let Some(gathered) = gather::gather(&context, &cached).await? else {
        context.metrics.forget_schedule(&cached.namespace().unwrap_or_default(), &cached.name_any());
        return Ok(Action::await_change());
    };
    let plan = plan::plan(&gathered);
    count(&context, &gathered, &plan);
    let applied = apply::apply(&context, &gathered, plan).await?;
    status::write(&context, gathered, applied).await
}

/// Tells the metrics how a schedule is.
fn count(context: &Context, gathered: &Gathered, plan: &Plan) {
    let (schedule, runs) = (&gathered.schedule, &gathered.runs);
    let complete = runs.iter().filter(|run| run.phase() == Phase::Succeeded).map(|run| run.slot).max();
    let made = schedule.metadata.creation_timestamp.as_ref().map_or(gathered.now, |time| time.0);
    let ended = runs.iter().rev().find(|run| run.phase().is_final());
    let ledger = ended.and_then(|run| run.backup.status.as_ref()?.ledger.as_ref());
    let state = ScheduleState {
        last_complete: complete.unwrap_or(made),
        due: if let Plan::Work(work) = plan { work.incomplete_from } else { None },
        missed: ledger.map_or(0, |ledger| ledger.missed),
    };
    context.metrics.scheduled(&schedule.namespace().unwrap_or_default(), &schedule.name_any(), state);
}
