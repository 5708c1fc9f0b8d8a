//! Writing down what was done, and saying when to look again.

use std::collections::BTreeSet;

use api::{
    ApplicationRestore, ApplicationRestoreStatus, Failure, GitOpsHold, ObjectOutcomes, Phase, PlanCounts,
    ReplacePolicy, RestorePlan, RestoreStage, VolumeRestore, VolumeStage,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::Action;

use super::Restores;
use super::apply::{Applied, Moved};
use super::gather::{Begun, Gathered, Scene};
use super::inventory::Part;
use super::point::Point;
use super::ready::{Then, first_unready};
use super::transforms::forget_secrets;
use super::validate::{self, Refusal};
use super::volume::act::Acted;
use super::volume::step::Step;
use super::volume::view::WantedVolume;
use crate::conditions::{Answer, COMPLETE, Says, end_stages, enter_stage, set, shorten};
use crate::config::Limits;
use crate::context::Context;
use crate::error::Error;
use crate::objects;
use crate::rules;

/// Name of the rule by which a volume is left alone because its claim exists.
pub(crate) const CLAIM_EXISTS: &str = "claim-exists";
/// The kind, as metrics have it.
const KIND: &str = "ApplicationRestore";

/// Writes the status, if it changes, tells people of what is new in it, and says when to look again.
pub(super) async fn write(restores: &Restores, gathered: Gathered, applied: Applied) -> Result<Action, Error> {
    let context = &restores.context;
    let limits = context.limits();
    let again = again(&applied, limits);
    if matches!(gathered.scene, Scene::Ending(_)) {
        return match applied {
            Applied::Moved { error: Some(error), .. } => Err(error),
            _ => Ok(again),
        };
    }
    if matches!(applied, Applied::Rested | Applied::Undone) {
        return Ok(again);
    }
    let old = gathered.status();
    let point = match &gathered.scene {
        Scene::Fresh(fresh) => fresh.source.as_ref().and_then(|s| s.as_ref().ok()),
        Scene::Begun(Begun { point, .. }) => point.as_ref().and_then(|p| p.as_ref().ok()),
        Scene::Over | Scene::Ending(_) => None,
    };
    let none = BTreeSet::new();
    let claims = match &gathered.scene {
        Scene::Fresh(fresh) => &fresh.target.claims,
        _ => &none,
    };
    let facts = Facts { restore: &gathered.restore, point: point.map(|p| &**p), claims, limits, now: gathered.now };
    let new = next(&old, &applied, &facts);
    if new != old {
        let mut restore = gathered.restore.clone();
        restore.status = Some(new.clone());
        let written = objects::write_status(&context.client, &restore).await?;
        tell(context, &written, &old, &new).await;
    }
    // What was kept for the run goes when its finalizer does, at the next look.
    match applied {
        Applied::Moved { error: Some(error), .. } => Err(error),
        _ => Ok(again),
    }
}

fn again(applied: &Applied, limits: &Limits) -> Action {
    match applied {
        Applied::Rested | Applied::Undone => Action::await_change(),
        Applied::Waited(_) | Applied::Looked(_, Then::LookAgain) => Action::requeue(limits.poll),
        // What was begun is looked at in a while; what is about to be begun is begun at once.
        Applied::Commanded(done) if done.iter().all(|(_, done)| done.seen != rules::Seen::Intended) => {
            Action::requeue(limits.poll)
        }
        Applied::MadeInPart(_) => Action::requeue(limits.retry),
        Applied::Moved { moved, .. } if moved.iter().all(|m| matches!(m.planned.step, Step::Wait(_))) => {
            Action::requeue(limits.poll)
        }
        Applied::Moved { moved, .. } if moved.iter().any(Moved::is_to_be_tried_again) => Action::requeue(limits.retry),
        Applied::Moved { .. }
        | Applied::Failed(_)
        | Applied::Foreseen(..)
        | Applied::Begun(_)
        | Applied::Matched(_)
        | Applied::Commanded(_)
        | Applied::RuleDone
        | Applied::Made { .. }
        | Applied::Left
        | Applied::Looked(..)
        | Applied::Finished(_) => Action::requeue(limits.step_pause),
    }
}

/// What a new status depends on beside the old one and what was done.
struct Facts<'a> {
    restore: &'a ApplicationRestore,
    point: Option<&'a Point>,
    /// Claims that exist at the target, if that was looked at.
    claims: &'a BTreeSet<(String, String)>,
    limits: &'a Limits,
    now: Timestamp,
}

fn next(old: &ApplicationRestoreStatus, applied: &Applied, facts: &Facts<'_>) -> ApplicationRestoreStatus {
    let mut new = old.clone();
    if let Some(point) = facts.point {
        new.recovery_point = Some(point.facts.id.clone());
        let namespaces = validate::namespaces(&facts.restore.spec, &point.facts.sources);
        new.namespaces = namespaces.into_iter().collect();
    }
    match applied {
        Applied::Rested | Applied::Undone => {}
        Applied::Waited(why) | Applied::MadeInPart(why) => wait(&mut new, why, facts),
        Applied::Failed(refusal) => fail(&mut new, refusal, facts),
        Applied::Foreseen(plan, refusal) => foreseen(&mut new, plan, refusal.as_ref(), facts),
        Applied::Begun(holds) => begin(&mut new, holds, facts),
        Applied::Matched(commands) => new.hooks.extend(commands.iter().cloned()),
        Applied::Commanded(done) => {
            for (index, done) in done {
                if let Some(hook) = new.hooks.get_mut(*index) {
                    rules::advance(hook, done, facts.now, facts.limits);
                }
            }
        }
        Applied::RuleDone => enter(&mut new, RestoreStage::Foundations, facts),
        Applied::Made { part: Part::Foundations, outcomes } => {
            new.objects = Some(outcomes.clone());
            enter(&mut new, RestoreStage::Volumes, facts);
        }
        Applied::Made { part: Part::Resources, outcomes } => {
            let foundations = new.objects.take().unwrap_or_default();
            new.objects = Some(add(foundations, outcomes, facts.limits.missed_items));
            // What is no length of time was refused before anything began.
            match facts.restore.spec.ready_within() {
                Ok(Some(_)) => enter(&mut new, RestoreStage::Ready, facts),
                _ => finish(&mut new, None, facts),
            }
        }
        Applied::Moved { moved, .. } => {
            new.message = None;
            for one in moved {
                if let Some(volume) = new.volumes.get_mut(one.planned.index) {
                    note(volume, one, facts);
                }
            }
        }
        Applied::Left => enter(&mut new, RestoreStage::Resources, facts),
        Applied::Looked(workloads, then) => {
            new.message = first_unready(workloads).map(|why| {
                let all = format!("{} of {} workloads are ready; {why}", workloads.ready, workloads.wanted);
                shorten(&all, facts.limits.reason_chars)
            });
            new.workloads = Some(workloads.clone());
            match then {
                Then::LookAgain => {}
                Then::PostExecRule => enter(&mut new, RestoreStage::PostExecRule, facts),
                Then::Finish => finish(&mut new, None, facts),
            }
        }
        Applied::Finished(failure) => finish(&mut new, failure.as_ref(), facts),
    }
    if new.phase.is_final() {
        forget_secrets(&mut new.transforms);
    }
    new
}

/// Ends a run that only says what would be done; or that is to do another plan.
fn foreseen(new: &mut ApplicationRestoreStatus, plan: &RestorePlan, refusal: Option<&Refusal>, facts: &Facts<'_>) {
    new.plan = Some(plan.clone());
    if let Some(refusal) = refusal {
        return fail(new, refusal, facts);
    }
    let PlanCounts { create, update, replace, keep, skip, conflict } = plan.objects;
    let message = format!(
        "of the objects {create} would be made, {update} changed, {replace} replaced, {keep} kept, {skip} left out, {conflict} not taken by the cluster; \
         {} of {} volumes would be filled; nothing was changed",
        plan.filled_volumes(),
        plan.volumes.len()
    );
    new.phase = Phase::Succeeded;
    end(new, Answer::Yes, "Planned", message, facts);
}

fn wait(new: &mut ApplicationRestoreStatus, why: &str, facts: &Facts<'_>) {
    if new.stage < RestoreStage::Preparing {
        enter(new, RestoreStage::Preparing, facts);
    }
    new.message = Some(shorten(why, facts.limits.reason_chars));
}

fn enter(new: &mut ApplicationRestoreStatus, stage: RestoreStage, facts: &Facts<'_>) {
    new.stage = stage;
    new.message = None;
    enter_stage(&mut new.stages, &format!("{stage:?}"), facts.now);
}

fn begin(new: &mut ApplicationRestoreStatus, holds: &[GitOpsHold], facts: &Facts<'_>) {
    new.holds = holds.to_vec();
    new.phase = Phase::Running;
    new.observed_generation = facts.restore.metadata.generation;
    new.transforms = facts.point.map(|point| point.transforms.kept.clone()).unwrap_or_default();
    if new.stages.is_empty() {
        enter(new, RestoreStage::Preparing, facts);
    }
    let has_rule = facts.restore.spec.pre_exec_rule.is_some();
    enter(new, if has_rule { RestoreStage::PreExecRule } else { RestoreStage::Foundations }, facts);
    let volumes = facts.point.map(|p| p.volumes.as_slice()).unwrap_or_default();
    let begun = |wanted: &WantedVolume| VolumeRestore {
        image: wanted.is_image(),
        ..listed(&wanted.namespace, &wanted.claim, facts)
    };
    new.volumes = volumes.iter().map(begun).collect();
    let message = "under way".to_owned();
    say(new, Answer::Unknown, "Running", message, facts);
}

/// A volume as it is when the run begins. That is when it is decided whether its claim exists: nothing is made yet, so it is surely
/// somebody else's. One that comes up later is in the way of the data, and cannot stand for it.
fn listed(namespace: &str, claim: &str, facts: &Facts<'_>) -> VolumeRestore {
    let keeps = facts.restore.spec.replace_policy != ReplacePolicy::Delete;
    let left_alone = keeps && facts.claims.contains(&(namespace.to_owned(), claim.to_owned()));
    VolumeRestore {
        namespace: namespace.to_owned(),
        claim: claim.to_owned(),
        stage: if left_alone { VolumeStage::Skipped } else { VolumeStage::Pending },
        reason: left_alone.then(|| CLAIM_EXISTS.to_owned()),
        ..VolumeRestore::default()
    }
}

fn note(volume: &mut VolumeRestore, moved: &Moved, facts: &Facts<'_>) {
    let planned = &moved.planned;
    let decided = matches!(volume.stage, VolumeStage::Skipped | VolumeStage::Missed | VolumeStage::Done);
    if decided {
        return;
    }
    volume.attempts = planned.attempts;
    if let Some(filled) = moved.filled {
        (volume.files, volume.bytes) = ((!volume.image).then_some(filled.files), Some(filled.bytes));
    }
    let cut = |text: &str| Some(shorten(text, facts.limits.reason_chars));
    match (&planned.step, &moved.acted) {
        (_, Acted::PutOff(why)) => volume.reason = cut(why),
        (_, Acted::Refused(why)) => (volume.stage, volume.reason) = (VolumeStage::Missed, cut(why)),
        (Step::Miss(why), _) => (volume.stage, volume.reason) = (VolumeStage::Missed, cut(why)),
        (Step::Done, _) => {
            (volume.stage, volume.reason) = (VolumeStage::Done, None);
            volume.finished_at = Some(Time(facts.now));
        }
        (Step::Wait(why), _) => volume.reason = cut(why),
        (Step::StartMover { attempt }, _) => {
            (volume.stage, volume.attempts, volume.reason) = (VolumeStage::Moving, *attempt, None);
            volume.started_at.get_or_insert(Time(facts.now));
        }
        (Step::MakeFilling, _) => volume.reason = None,
        _ => {
            let failure = planned.failure.as_ref().map(|f| format!("try {} failed: {f}", planned.attempts));
            volume.reason = cut(failure.as_deref().unwrap_or("is handed over"));
        }
    }
}

impl Moved {
    /// A step was refused: there may be nothing to note, as when something is undone, but there is no use in hurrying either.
    fn is_to_be_tried_again(&self) -> bool {
        matches!(self.acted, Acted::Refused(_) | Acted::PutOff(_))
    }
}

fn add(mut sum: ObjectOutcomes, more: &ObjectOutcomes, most_items: usize) -> ObjectOutcomes {
    sum.wanted += more.wanted;
    sum.created += more.created;
    sum.updated += more.updated;
    sum.kept += more.kept;
    sum.replaced += more.replaced;
    sum.skipped += more.skipped;
    sum.failed += more.failed;
    sum.statuses += more.statuses;
    sum.failed_items.extend(more.failed_items.iter().cloned());
    sum.failed_items.truncate(most_items);
    sum.notes.extend(more.notes.iter().cloned());
    sum.notes.truncate(most_items);
    let is_new: Vec<String> = more.managed_by.iter().filter(|m| !sum.managed_by.contains(m)).cloned().collect();
    sum.managed_by.extend(is_new);
    sum.managed_by.truncate(most_items);
    sum
}

/// Ends a run that did all it could; the rule that runs afterwards may have failed.
fn finish(new: &mut ApplicationRestoreStatus, failure: Option<&Failure>, facts: &Facts<'_>) {
    let objects = new.objects.clone().unwrap_or_default();
    let count = |stage| new.volumes.iter().filter(|v| v.stage == stage).count();
    let (done, missed) = (count(VolumeStage::Done), count(VolumeStage::Missed));
    let there = objects.created + objects.updated + objects.kept + objects.replaced;
    let is_ready = new.workloads.as_ref().is_none_or(|workloads| workloads.ready == workloads.wanted);
    let (answer, reason) = match (missed > 0, objects.failed > 0, is_ready, failure) {
        (true, ..) => (Answer::No, "VolumesMissed"),
        (_, true, ..) => (Answer::No, "ObjectsFailed"),
        (_, _, false, _) => (Answer::No, "NotReady"),
        (.., Some(failure)) => (Answer::No, failure.reason.as_str()),
        (.., None) => (Answer::Yes, "Restored"),
    };
    let nothing = there == 0 && done == 0;
    new.phase = match (answer, nothing) {
        (Answer::Yes, _) => Phase::Succeeded,
        (_, false) => Phase::Incomplete,
        (_, true) => Phase::Failed,
    };
    let message = ending(new, &objects, failure, facts);
    end(new, answer, reason, message, facts);
}

/// What is said of a run that did all it could.
fn ending(
    new: &ApplicationRestoreStatus,
    objects: &ObjectOutcomes,
    failure: Option<&Failure>,
    facts: &Facts<'_>,
) -> String {
    let count = |stage| new.volumes.iter().filter(|v| v.stage == stage).count();
    let mut message = format!(
        "{} of {} objects are there ({} were before), {} of {} volumes",
        objects.created + objects.updated + objects.kept + objects.replaced,
        objects.wanted,
        objects.kept + objects.updated,
        count(VolumeStage::Done),
        new.volumes.len()
    );
    let skipped = count(VolumeStage::Skipped);
    if skipped > 0 {
        message.push_str(&format!(", {skipped} left as they were because their claims existed"));
    }
    if objects.skipped > 0 {
        message.push_str(&format!(", {} are left out by a rule", objects.skipped));
    }
    if let Some(workloads) = new.workloads.as_ref().filter(|workloads| workloads.wanted > 0) {
        message.push_str(&format!(", {} of {} workloads are ready", workloads.ready, workloads.wanted));
    }
    let notes = objects.notes.first().map(|first| format!("{}: {}", first.item, first.reason));
    let managed = (!objects.managed_by.is_empty())
        .then(|| format!("{} may put objects back to what its own source says", objects.managed_by.join(", ")));
    let unready = new.workloads.as_ref().and_then(first_unready);
    let failed = failure.map(|failure| format!("postExecRule: {}", failure.message));
    let not_run = facts.restore.spec.post_exec_rule.as_ref().filter(|_| new.stage != RestoreStage::PostExecRule);
    let not_run = not_run.map(|rule| format!("the rule {rule} was not run, since not everything is there and ready"));
    for part in [first_hole(new), unready, failed, not_run, notes, managed].into_iter().flatten() {
        message.push_str("; ");
        message.push_str(&part);
    }
    message
}

fn first_hole(new: &ApplicationRestoreStatus) -> Option<String> {
    let volume = new.volumes.iter().find(|v| v.stage == VolumeStage::Missed);
    if let Some(volume) = volume {
        let why = volume.reason.as_deref().unwrap_or_default();
        return Some(format!("the volume {}/{} is missing: {why}", volume.namespace, volume.claim));
    }
    let item = new.objects.as_ref()?.failed_items.first()?;
    Some(format!("{} is missing: {}", item.item, item.reason))
}

/// Ends a run that could not begin, or could not go on.
fn fail(new: &mut ApplicationRestoreStatus, refusal: &Refusal, facts: &Facts<'_>) {
    let changed = match (new.phase, new.stage) {
        (Phase::Running, RestoreStage::PreExecRule) => "; nothing was restored",
        (Phase::Running, _) => "; what it had made stays",
        _ => "; nothing was changed",
    };
    new.phase = Phase::Failed;
    end(new, Answer::No, &refusal.reason, format!("{}{changed}", refusal.message), facts);
}

fn end(new: &mut ApplicationRestoreStatus, answer: Answer, reason: &str, message: String, facts: &Facts<'_>) {
    new.stage = RestoreStage::Done;
    new.observed_generation = facts.restore.metadata.generation;
    end_stages(&mut new.stages, facts.now);
    say(new, answer, reason, message, facts);
}

fn say(new: &mut ApplicationRestoreStatus, answer: Answer, reason: &str, message: String, facts: &Facts<'_>) {
    let message = shorten(&message, facts.limits.reason_chars);
    new.message = Some(message.clone());
    let says = Says { type_: COMPLETE, answer, reason: reason.to_owned(), message };
    set(&mut new.conditions, says, facts.restore.metadata.generation, facts.now);
}

/// Tells people what is new: stages, missed volumes, the end.
async fn tell(
    context: &Context,
    restore: &ApplicationRestore,
    old: &ApplicationRestoreStatus,
    new: &ApplicationRestoreStatus,
) {
    for (index, volume) in new.volumes.iter().enumerate() {
        let before = old.volumes.get(index).map(|v| v.stage);
        if volume.stage == VolumeStage::Missed && before != Some(VolumeStage::Missed) {
            let why = volume.reason.as_deref().unwrap_or_default();
            let note = format!("the volume {}/{} is not restored: {why}", volume.namespace, volume.claim);
            context.events.warning(restore, "FillVolume", "VolumeMissed", &note).await;
        }
    }
    for note in rules::newly_failed(&old.hooks, &new.hooks) {
        context.events.warning(restore, "RunRule", "RuleFailed", &note).await;
    }
    let message = new.message.as_deref().unwrap_or_default();
    if new.phase.is_final() && !old.phase.is_final() {
        // A plan moves nothing.
        if !restore.spec.plan_only {
            count(context, new);
        }
        let reason = format!("{:?}", new.phase);
        match new.phase {
            Phase::Succeeded => context.events.normal(restore, "Restore", &reason, message).await,
            _ => context.events.warning(restore, "Restore", &reason, message).await,
        }
    } else if new.stage != old.stage {
        let note = format!("the stage {:?} begins", new.stage);
        context.events.normal(restore, "Restore", &format!("{:?}", new.stage), &note).await;
    }
}

fn count(context: &Context, status: &ApplicationRestoreStatus) {
    let missed = status.volumes.iter().filter(|v| v.stage == VolumeStage::Missed).count() as u64;
    let failed = status.objects.as_ref().map_or(0, |o| o.failed);
    context.metrics.run_ended(KIND, status.phase, missed + failed);
    context.metrics.stages_ended(KIND, &status.stages);
    context.metrics.moved(KIND, status.volumes.iter().filter_map(|v| v.bytes).sum());
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
