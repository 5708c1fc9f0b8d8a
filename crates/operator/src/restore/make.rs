//! Making the objects of a recovery point.

use std::sync::Arc;
use std::time::Duration;

use api::ApplicationRestore;
use application::{Applied as Outcome, Applier, Loss, ObjectKey, Patience, StatusWritten, Wave, discover, gitops};
use futures::{StreamExt, stream};
use kube::ResourceExt;
use serde_json::Value;

use super::apply::Applied;
use super::gather::{Begun, Gathered, Scene};
use super::inventory::{Part, stands_on_volumes};
use super::point::Point;
use super::prepared::{LIVES_ON, OBJECTS_AT_ONCE, Prepared, Preparer};
use super::validate::Refusal;
use super::{Restores, Trouble};
use crate::error::Error;
use crate::objects;
use crate::repositories::LocationProblem;
use crate::tally::{Tally, policy};

/// Why objects are not made when volumes were missed.
pub(crate) const HELD_BACK: &str = "not made, because not all volumes could be filled: what runs on them would run on nothing, and might write over it";

/// Makes the objects of a part.
pub(super) async fn make(
    restores: &Restores,
    gathered: &Gathered,
    part: Part,
    held_back: bool,
) -> Result<Applied, Error> {
    let Scene::Begun(Begun { point: Some(Ok(point)), .. }) = &gathered.scene else {
        return Ok(Applied::Waited("looks for the recovery point".into()));
    };
    let mut maker = Maker::new(restores, gathered, point).await?;
    match maker.make_part(part, held_back).await {
        Ok(true) => {}
        Ok(false) => return Ok(Applied::Waited("is being deleted".into())),
        Err(Error::Repository { source, .. }) => return Ok(unread(restores, gathered, *source)),
        Err(error) => return Err(error),
    }
    if let Some(why) = maker.tally.passing.take()
        && is_patient(restores, gathered, restores.context.limits().object_patience)
    {
        return Ok(Applied::MadeInPart(why));
    }
    restores.recovered(&gathered.uid, Trouble::Objects);
    if part == Part::Foundations {
        maker.tally.outcomes.wanted += point.facts.inventory.left_alone;
        maker.tally.outcomes.kept += point.facts.inventory.left_alone;
        point.facts.inventory.skipped.iter().for_each(|(key, rule)| maker.tally.skip(&point.at_target(key), *rule));
        idle(gathered, point).iter().for_each(|(field, why)| maker.tally.note(field, why));
    }
    Ok(Applied::Made { part, outcomes: maker.tally.outcomes })
}

/// What the spec asks for and is for nothing that is restored: the field, and a sentence.
pub(super) fn idle(gathered: &Gathered, point: &Point) -> Vec<(&'static str, String)> {
    let transforms = point.facts.transformed.idle.iter().map(|idle| ("transforms", idle.clone()));
    let statuses = point.facts.inventory.idle_kinds(&gathered.restore.spec.restore_status_for);
    let statuses =
        statuses.map(|kind| ("restoreStatusFor", format!("{kind} is the kind of no object that is restored")));
    transforms.chain(statuses).collect()
}

/// Whether an object is one that the run has made, and not one that was there.
fn is_new(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Created | Outcome::Replaced | Outcome::Reduced { .. })
}

pub(super) fn is_patient(restores: &Restores, gathered: &Gathered, patience: Duration) -> bool {
    restores.troubled_for(&gathered.uid, Trouble::Objects, gathered.now) < patience
}

/// The objects could not be read from the repository: waited for, or the end.
pub(super) fn unread(restores: &Restores, gathered: &Gathered, error: repository::Error) -> Applied {
    restores.drop_point(&gathered.uid);
    let problem = LocationProblem::from(error);
    if problem.may_pass() && is_patient(restores, gathered, restores.context.limits().location_patience) {
        return Applied::Waited(problem.to_string());
    }
    Applied::Failed(Refusal::new(problem.reason(), problem.to_string()))
}

/// Makes objects, and counts.
struct Maker<'a> {
    restores: &'a Restores,
    restore: &'a ApplicationRestore,
    point: &'a Point,
    preparer: Preparer<'a>,
    applier: Applier,
    tally: Tally,
}

impl<'a> Maker<'a> {
    async fn new(restores: &'a Restores, gathered: &'a Gathered, point: &'a Point) -> Result<Self, Error> {
        let client = restores.context.client.clone();
        let patience = Patience::default();
        let catalog = discover(&client, &patience).await.map_err(|failure| Error::Application {
            doing: "ask what kinds the cluster has".into(),
            source: failure.into(),
        })?;
        let policy = policy(gathered.restore.spec.replace_policy);
        Ok(Self {
            restores,
            restore: &gathered.restore,
            point,
            preparer: Preparer::new(&client, &gathered.restore, point).await?,
            applier: Applier::new(client, Arc::new(catalog), gathered.uid.clone(), policy, patience),
            tally: Tally::new(restores.context.limits()),
        })
    }

    /// Makes a part, wave by wave. Says whether the restore is still wanted.
    async fn make_part(&mut self, part: Part, held_back: bool) -> Result<bool, Error> {
        for (wave, keys) in self.point.facts.inventory.part(part) {
            if held_back && stands_on_volumes(wave) {
                self.hold_back(&keys);
            } else if !self.make_wave(wave, &keys).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hold_back(&mut self, keys: &[ObjectKey]) {
        for key in keys {
            self.tally.count(key, Outcome::Failed { reason: HELD_BACK.into(), retryable: false }, None);
        }
    }

    /// Makes one wave, kind by kind, as the table of objects has them side by side. Says whether the restore is still wanted.
    async fn make_wave(&mut self, wave: Wave, keys: &[ObjectKey]) -> Result<bool, Error> {
        tracing::debug!(?wave, objects = keys.len(), restore = self.restore.name_any(), "making objects");
        for kind in keys.chunk_by(|a, b| (&a.group, &a.kind) == (&b.group, &b.kind)) {
            if self.is_deleted().await? {
                return Ok(false);
            }
            self.make_kind(kind).await?;
        }
        Ok(true)
    }

    async fn is_deleted(&self) -> Result<bool, Error> {
        let namespace = self.restore.namespace().unwrap_or_default();
        let client = &self.restores.context.client;
        let now: Option<ApplicationRestore> = objects::read(client, &namespace, &self.restore.name_any()).await?;
        Ok(now.is_none_or(|r| r.uid() != self.restore.uid() || r.metadata.deletion_timestamp.is_some()))
    }

    /// Makes objects of one kind; their keys are in ascending order.
    async fn make_kind(&mut self, keys: &[ObjectKey]) -> Result<(), Error> {
        for some in keys.chunks(OBJECTS_AT_ONCE) {
            let (lived_on, objects): (Vec<_>, Vec<_>) =
                self.preparer.read(some).await?.into_iter().partition(|one| one.is_lived_on);
            for one in lived_on {
                self.tally.count(&one.key, Outcome::Kept { why: LIVES_ON.into() }, None);
            }
            let (left, made): (Vec<_>, Vec<_>) =
                objects.into_iter().partition(|one| one.loss.is_some_and(|loss| loss.is_whole));
            left.into_iter().for_each(|one| self.leave_out(&one));
            let managers: Vec<Option<String>> = made.iter().map(|one| gitops::manager(&one.object)).collect();
            let losses: Vec<Option<Loss>> = made.iter().map(|one| one.loss).collect();
            let statuses: Vec<Option<Value>> = made.iter().map(|one| one.status.clone()).collect();
            let made = stream::iter(made.into_iter().map(|one| (one.key, one.object)));
            let outcomes: Vec<_> = self.applier.apply_each(made).collect().await;
            for ((((key, outcome), loss), manager), status) in
                outcomes.into_iter().zip(losses).zip(managers).zip(statuses)
            {
                let outcome = match status {
                    Some(status) if is_new(&outcome) => self.write_status(&key, outcome, &status).await,
                    _ => outcome,
                };
                if !matches!(outcome, Outcome::Kept { .. } | Outcome::Failed { .. }) {
                    self.tally.note_manager(manager);
                }
                self.tally.count(&key, outcome, loss);
            }
        }
        Ok(())
    }

    /// Writes the status of an object that was made. One that cannot be written makes the object one that is not there as it should be.
    async fn write_status(&mut self, key: &ObjectKey, outcome: Outcome, status: &Value) -> Outcome {
        if status.is_null() {
            self.tally.note(key, "made without a status: the recovery point has none of it");
            return outcome;
        }
        match self.applier.write_status(key, status).await {
            Ok(StatusWritten::NoSubresource) => {
                self.tally.note(
                    key,
                    "made without its status: its kind has no status subresource, by which alone it could be written",
                );
            }
            Ok(StatusWritten::Written(lacking)) => {
                self.tally.outcomes.statuses += 1;
                if !lacking.is_empty() {
                    self.tally.note(
                        key,
                        &format!("its status lacks fields that this cluster does not know: {}", lacking.join(", ")),
                    );
                }
            }
            Err(failure) => {
                let reason = format!("it is made, but its status was not written: {}", failure.reason);
                return Outcome::Failed { reason, retryable: failure.retryable };
            }
        }
        outcome
    }

    fn leave_out(&mut self, left: &Prepared) {
        if let Some(loss) = left.loss {
            self.tally.skip(&left.key, loss.rule);
        }
    }
}
