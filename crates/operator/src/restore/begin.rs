//! The begin of a restore: the last things that are found out, the plan if that is all that is wanted, and the first things that are done.

use super::apply::Applied;
use super::gather::{Gathered, Scene};
use super::validate::Refusal;
use super::{Restores, Trouble, foresee, make, trial};
use crate::error::Error;
use crate::hold;
use crate::objects;

/// Says what would be done, unless transformations make what cannot be.
pub(super) async fn foresee(restores: &Restores, gathered: &Gathered) -> Result<Applied, Error> {
    match try_transforms(restores, gathered).await? {
        Some(trouble) => Ok(trouble),
        None => look_ahead(restores, gathered).await,
    }
}

/// Says what would be done now.
async fn look_ahead(restores: &Restores, gathered: &Gathered) -> Result<Applied, Error> {
    let Scene::Fresh(fresh) = &gathered.scene else { return Ok(Applied::Waited("looks ahead".into())) };
    let Some(Ok(point)) = &fresh.source else { return Ok(Applied::Waited("looks for the recovery point".into())) };
    match foresee::plan(restores, gathered, point, &fresh.target).await {
        Ok(plan) => {
            restores.recovered(&gathered.uid, Trouble::Objects);
            Ok(Applied::Foreseen(Box::new(plan), None))
        }
        Err(error) => unforeseen(restores, gathered, error),
    }
}

/// Something could not be found out before the restore begins: waited for, or the end.
fn unforeseen(restores: &Restores, gathered: &Gathered, error: Error) -> Result<Applied, Error> {
    match error {
        Error::Repository { source, .. } => Ok(make::unread(restores, gathered, *source)),
        // As when objects are made: what the API server cannot say now it may say soon, and is asked no longer than that.
        error @ Error::Application { .. } => {
            let patience = restores.context.limits().object_patience;
            Ok(if make::is_patient(restores, gathered, patience) {
                Applied::Waited(error.to_string())
            } else {
                Applied::Failed(Refusal::new("NotForeseen", error.to_string()))
            })
        }
        error => Err(error),
    }
}

/// Asks whether the cluster takes what transformations make; what follows if it does not, or does not say.
async fn try_transforms(restores: &Restores, gathered: &Gathered) -> Result<Option<Applied>, Error> {
    let Scene::Fresh(fresh) = &gathered.scene else { return Ok(None) };
    let Some(Ok(point)) = &fresh.source else { return Ok(None) };
    match trial::refusal(restores, gathered, point, &fresh.target).await {
        Ok(refusal) => Ok(refusal.map(Applied::Failed)),
        Err(error) => unforeseen(restores, gathered, error).map(Some),
    }
}

/// Begins, unless transformations make what cannot be, or another plan is to be done than the one that would be.
pub(super) async fn begin(restores: &Restores, gathered: &mut Gathered) -> Result<Applied, Error> {
    if let Some(trouble) = try_transforms(restores, gathered).await? {
        return Ok(trouble);
    }
    if let Some(hash) = gathered.restore.spec.plan_hash.clone() {
        let plan = match look_ahead(restores, gathered).await? {
            Applied::Foreseen(plan, _) => plan,
            other => return Ok(other),
        };
        if let Some(refusal) = foresee::refusal(restores, gathered, &hash, &plan).await? {
            return Ok(Applied::Foreseen(plan, Some(refusal)));
        }
    }
    gathered.restore = objects::set_finalizer(&restores.context.client, &gathered.restore, true).await?;
    hold(restores, gathered).await
}

/// Holds what keeps the objects, if that is asked for, and begins. What cannot be held may undo what is restored, so nothing is.
async fn hold(restores: &Restores, gathered: &Gathered) -> Result<Applied, Error> {
    let Scene::Fresh(fresh) = &gathered.scene else { return Ok(Applied::Begun(Vec::new())) };
    let Some(Ok(point)) = fresh.source.as_ref().filter(|_| gathered.restore.spec.hold_git_ops) else {
        return Ok(Applied::Begun(Vec::new()));
    };
    match hold::hold(&restores.context.client, &gathered.uid, &point.facts.kept, objects::scope(&gathered.restore))
        .await
    {
        Ok(holds) => Ok(Applied::Begun(holds)),
        Err(error) if error.refusal().is_some() => Ok(Applied::Failed(Refusal::new("NotHeld", error.to_string()))),
        Err(error) => Err(error),
    }
}
