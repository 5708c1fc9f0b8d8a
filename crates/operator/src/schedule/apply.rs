//! Doing what a schedule does next.

use api::schedule::{RUN_KIND_LABEL, SCHEDULE_LABEL, SCHEDULED_AT};
use api::{ApplicationBackup, ReclaimPolicy};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::gather::{Gathered, Run};
use super::plan::{Begin, Plan, Problem, Work};
use crate::context::Context;
use crate::error::{During, Error};
use crate::objects;

/// Characters of a request that are in the name of its run: an instant has fewer.
const REQUEST_CHARS: usize = 40;

/// What was done.
#[allow(clippy::large_enum_variant, reason = "there is one of them in a reconcile")]
pub(super) enum Applied {
    /// It is being deleted.
    Left,
    /// It cannot work.
    Reported(Problem),
    /// It works.
    Worked {
        /// The run that was begun, with its backup.
        begun: Option<(Begin, Run)>,
        /// The names of runs that are being removed.
        removed: Vec<String>,
        /// When the next run is due.
        next: Option<Timestamp>,
        /// A run is due, and waits for this one to end.
        waits_for: Option<String>,
    },
}

/// Does what is planned.
pub(super) async fn apply(context: &Context, gathered: &Gathered, plan: Plan) -> Result<Applied, Error> {
    let (client, schedule) = (&context.client, &gathered.schedule);
    match plan {
        Plan::Leave { runs, is_over } => {
            for run in &runs {
                remove(client, run).await?;
            }
            if is_over {
                objects::set_finalizer(client, schedule, false).await?;
            }
            Ok(Applied::Left)
        }
        Plan::Report(problem) => {
            hold(context, gathered).await?;
            Ok(Applied::Reported(problem))
        }
        Plan::Work(work) => {
            hold(context, gathered).await?;
            do_work(context, gathered, work).await
        }
    }
}

/// A schedule whose runs go with it must not vanish before they do; all others can be deleted with no operator at hand.
async fn hold(context: &Context, gathered: &Gathered) -> Result<(), Error> {
    let takes_along = gathered.schedule.spec.reclaim_policy == ReclaimPolicy::Delete;
    objects::set_finalizer(&context.client, &gathered.schedule, takes_along).await.map(drop)
}

async fn do_work(context: &Context, gathered: &Gathered, work: Work) -> Result<Applied, Error> {
    let begun = match work.begin {
        Some(begin) => {
            let run = run(gathered, &begin);
            if let Err(error) = objects::create(&context.client, &run).await {
                return refused(&run, error);
            }
            Run::of(run).map(|run| (begin, run))
        }
        None => None,
    };
    let mut removed = Vec::new();
    for run in &work.surplus {
        remove(&context.client, run).await?;
        removed.push(run.name_any());
    }
    Ok(Applied::Worked { begun, removed, next: work.next, waits_for: work.waits_for })
}

/// A schedule whose runs are not taken must not look as if it worked: it says so, and tries again.
fn refused(run: &ApplicationBackup, error: Error) -> Result<Applied, Error> {
    let Some(why) = error.creation_refusal() else { return Err(error) };
    let message = format!("the API server does not take the run {}: {why}; it is tried again", run.name_any());
    Ok(Applied::Reported(Problem { reason: "RunRefused", message }))
}

/// Deletes a run with its recovery point. That the point goes is said of the run only now: whatever else deletes it, such as the end of its namespace, leaves
/// the recovery point where it is.
async fn remove(client: &Client, run: &ApplicationBackup) -> Result<(), Error> {
    let has_point = run.status.as_ref().is_some_and(|status| status.recovery_point.is_some());
    if has_point {
        let ours = api::FINALIZER.to_owned();
        let others = run.finalizers().iter().filter(|finalizer| **finalizer != ours);
        let finalizers: Vec<&String> = others.chain([&ours]).collect();
        let patch = json!({
            "metadata": {"finalizers": finalizers, "resourceVersion": run.resource_version()},
            "spec": {"reclaimPolicy": ReclaimPolicy::Delete},
        });
        let api = objects::beside::<ApplicationBackup, _>(client, run);
        let patched = api.patch(&run.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.during(|| format!("say of the {} that its recovery point goes with it", objects::title(run)))?;
    }
    objects::delete(client, run, None).await
}

/// The backup of a run. Its name follows from what it is for, so that it is made once.
fn run(gathered: &Gathered, begin: &Begin) -> ApplicationBackup {
    let name = gathered.schedule.name_any();
    let kind = begin.kind.text();
    let what_for = match &begin.request {
        Some(request) => {
            request.to_lowercase().chars().filter(char::is_ascii_alphanumeric).take(REQUEST_CHARS).collect()
        }
        None => begin.slot.strftime("%Y%m%d%H%M%S").to_string(),
    };
    let run_name = format!("{name}-{}-{what_for}", kind.to_lowercase());
    let mut run = ApplicationBackup::new(&run_name, gathered.schedule.spec.template.spec.run());
    run.metadata.namespace = gathered.schedule.namespace();
    run.labels_mut().insert(SCHEDULE_LABEL.into(), name);
    run.labels_mut().insert(RUN_KIND_LABEL.into(), kind.into());
    run.annotations_mut().insert(SCHEDULED_AT.into(), begin.slot.to_string());
    run
}
