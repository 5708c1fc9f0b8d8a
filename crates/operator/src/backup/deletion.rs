//! A backup that is being deleted: its movers end, and its recovery point goes or stays as it says.

use api::{BackupStage, ReclaimPolicy};

use super::gather::{Gathered, location};
use crate::cleanup;
use crate::context::Context;
use crate::error::Error;
use crate::objects;
use crate::repositories::{LocationProblem, Opened};

/// What matters when a backup is deleted.
pub(super) struct Leaving {
    /// Our finalizer holds it.
    pub held: bool,
    /// The repository, if the recovery point is to go.
    pub location: Option<Result<Opened, LocationProblem>>,
}

/// What to do about it.
pub(super) enum Plan {
    /// Nothing: it is not held by us.
    Rest,
    /// End its movers, then let it go; the recovery point stays.
    Release {
        /// Why the recovery point stays although it was to go.
        stays: Option<String>,
    },
    /// End its movers, remove the recovery point, then let it go.
    Forget(Box<Opened>),
    /// The recovery point cannot be removed now.
    Wait(LocationProblem),
}

/// What was done about it.
pub(super) enum Applied {
    /// Nothing.
    Rested,
    /// Something that the run made is still there.
    Ending {
        /// What.
        left: Vec<String>,
    },
    /// It is let go.
    Released,
    /// The recovery point cannot be removed now.
    Waiting(LocationProblem),
}

pub(super) async fn gather(context: &Context, gathered: &Gathered) -> Result<Leaving, Error> {
    let run = &gathered.run;
    let held = run.metadata.finalizers.iter().flatten().any(|f| f == api::FINALIZER);
    let goes = run.spec.reclaim_policy == ReclaimPolicy::Delete && may_have_published(gathered);
    let location = if held && goes { Some(location(context, run).await?) } else { None };
    Ok(Leaving { held, location })
}

/// Whether there may be a recovery point. A run publishes only in its last stage but one; that it did may not have been noted.
fn may_have_published(gathered: &Gathered) -> bool {
    let published = gathered.run.status.as_ref().is_some_and(|s| s.recovery_point.is_some());
    published || matches!(gathered.stage(), BackupStage::Resources | BackupStage::Publishing | BackupStage::Done)
}

/// Decides. A location that is gone holds nothing that could be removed through it, so it does not hold the resource either; one that
/// cannot be reached is waited for.
pub(super) fn plan(leaving: &Leaving) -> Plan {
    match &leaving.location {
        _ if !leaving.held => Plan::Rest,
        None => Plan::Release { stays: None },
        Some(Ok(opened)) => Plan::Forget(Box::new(opened.clone())),
        Some(Err(problem @ LocationProblem::NoLocation { .. })) => Plan::Release { stays: Some(problem.to_string()) },
        Some(Err(problem)) => Plan::Wait(problem.clone()),
    }
}

pub(super) async fn apply(context: &Context, gathered: &Gathered, plan: Plan) -> Result<Applied, Error> {
    if matches!(plan, Plan::Rest) {
        return Ok(Applied::Rested);
    }
    let left = cleanup::end_run(context, &gathered.made(context.limits())).await?;
    if !left.is_empty() {
        return Ok(Applied::Ending { left });
    }
    let stays = match plan {
        Plan::Rest => return Ok(Applied::Rested),
        Plan::Wait(problem) => return Ok(Applied::Waiting(problem)),
        Plan::Release { stays } => stays,
        Plan::Forget(opened) => match opened.repository.forget(&gathered.point_id).await {
            Ok(()) => None,
            Err(error) => return Ok(Applied::Waiting(error.into())),
        },
    };
    if let Some(why) = &stays {
        let note = format!("recovery point {} stays where it is: {why}", gathered.point_id);
        context.events.warning(&gathered.run, "Delete", "RecoveryPointStays", &note).await;
    }
    objects::set_finalizer(&context.client, &gathered.run, false).await?;
    context.backups.forget(&gathered.uid);
    Ok(Applied::Released)
}
