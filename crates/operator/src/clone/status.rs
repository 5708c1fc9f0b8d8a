//! Writing down what was done, and saying when to look again.

use std::time::Duration;

use api::{
    ApplicationClone, ApplicationCloneStatus, CloneStage, Failure, ObjectOutcomes, Phase, VolumeClone, VolumeStage,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::Action;

use super::apply::Applied;
use super::facts::{Facts, Gathered};
use super::make::Made;
use super::plan::any_missed;
use super::volume::{Seen, Step};
use crate::conditions::{Answer, COMPLETE, Says, end_stages, enter_stage, set, shorten};
use crate::config::Limits;
use crate::context::Context;
use crate::error::Error;
use crate::objects;

/// The kind, as metrics have it.
const KIND: &str = "ApplicationClone";
/// How long a stage is looked at often: most clones are made by then, and drivers that copy take much longer.
const SOON: Duration = Duration::from_secs(30);
/// How many pauses between steps there are between two such looks.
const PAUSES: u32 = 3;

/// Writes the status if it changes, tells people of what is new in it, and says when to look again.
pub(super) async fn write(context: &Context, gathered: Gathered, applied: Applied) -> Result<Action, Error> {
    let limits = context.limits();
    if matches!(applied, Applied::Rested) {
        return Ok(Action::await_change());
    }
    let old = gathered.status();
    let run = match &applied {
        Applied::Begun(run, _) => run,
        _ => &gathered.run,
    };
    let new = advanced(run, &gathered, &applied, limits);
    if new != old {
        let run = ApplicationClone { status: Some(new.clone()), ..run.clone() };
        let run = objects::write_status(&context.client, &run).await?;
        tell(context, &run, &old, &new).await;
    }
    let next = again(&applied, &new, gathered.now, limits);
    match applied {
        Applied::Moved { error: Some(error), .. } => Err(error),
        _ => Ok(next),
    }
}

fn again(applied: &Applied, new: &ApplicationCloneStatus, now: Timestamp, limits: &Limits) -> Action {
    let since = new.stages.last().map_or(now, |stage| stage.started_at.0);
    let is_soon = now.duration_since(since).unsigned_abs() < SOON;
    let wait = if is_soon { (limits.step_pause * PAUSES).min(limits.poll) } else { limits.poll };
    let waits = |(_, step): &(usize, Step)| matches!(step, Step::Wait(_));
    Action::requeue(match applied {
        Applied::MadeInPart(_) => limits.retry,
        Applied::Waited(_) => wait,
        Applied::Moved { done, .. } if done.iter().all(waits) => wait,
        _ => limits.step_pause,
    })
}

/// The status after what was done.
fn advanced(run: &ApplicationClone, gathered: &Gathered, applied: &Applied, limits: &Limits) -> ApplicationCloneStatus {
    let (mut new, now) = (run.status.clone().unwrap_or_default(), gathered.now);
    match applied {
        Applied::Rested | Applied::Again => {}
        Applied::Waited(why) | Applied::MadeInPart(why) => {
            if new.stage == CloneStage::Pending {
                enter(&mut new, CloneStage::Preparing, now);
            }
            new.message = Some(shorten(why, limits.reason_chars));
        }
        Applied::Failed(failure) => fail(&mut new, failure, run, now, limits),
        Applied::Begun(_, volumes) => {
            if new.stages.is_empty() {
                enter(&mut new, CloneStage::Preparing, now);
            }
            enter(&mut new, CloneStage::Volumes, now);
            new.phase = Phase::Running;
            new.observed_generation = run.metadata.generation;
            new.volumes.clone_from(volumes);
        }
        Applied::Moved { done, .. } => {
            new.message = None;
            note_cuts(&mut new.volumes, &gathered.facts);
            for (index, step) in done {
                if let Some(volume) = new.volumes.get_mut(*index) {
                    note(volume, step, now, limits);
                }
            }
        }
        Applied::Left => enter(&mut new, CloneStage::Resources, now),
        Applied::Made(made) => finish(&mut new, made, run, now, limits),
    }
    new
}

fn enter(new: &mut ApplicationCloneStatus, stage: CloneStage, now: Timestamp) {
    new.stage = stage;
    new.message = None;
    enter_stage(&mut new.stages, &format!("{stage:?}"), now);
}

/// Notes the instants that snapshots are of.
fn note_cuts(volumes: &mut [VolumeClone], facts: &Facts) {
    let Facts::Volumes { seen, .. } = facts else { return };
    let cut = |seen: &Seen| seen.snapshot.as_ref().and_then(|snapshot| snapshot.cut_at);
    for (volume, at) in volumes.iter_mut().zip(seen.iter().map(cut)) {
        volume.cut_at = volume.cut_at.take().or(at.map(Time));
    }
}

fn note(volume: &mut VolumeClone, step: &Step, now: Timestamp, limits: &Limits) {
    let cut = |text: &str| Some(shorten(text, limits.reason_chars));
    match step {
        Step::Keep => {}
        Step::Wait(why) => volume.reason = cut(why),
        Step::Miss(why) => (volume.stage, volume.reason) = (VolumeStage::Missed, cut(why)),
        Step::Done => {
            (volume.stage, volume.reason) = (VolumeStage::Done, None);
            volume.finished_at = Some(Time(now));
        }
        Step::Cut | Step::Import | Step::Make | Step::Release { .. } => {
            (volume.stage, volume.reason) = (VolumeStage::Moving, None);
        }
    }
    volume.started_at.get_or_insert(Time(now));
}

/// Ends a run that could not begin, or could not go on.
fn fail(new: &mut ApplicationCloneStatus, failure: &Failure, run: &ApplicationClone, now: Timestamp, limits: &Limits) {
    let changed = if new.phase == Phase::Running { "what it had made stays" } else { "nothing was changed" };
    for volume in new.volumes.iter_mut().filter(|v| matches!(v.stage, VolumeStage::Pending | VolumeStage::Moving)) {
        volume.stage = VolumeStage::Missed;
        volume.reason = Some("the clone failed before its volume was made".into());
    }
    new.phase = Phase::Failed;
    let message = format!("{}; {changed}", failure.message);
    end(new, Answer::No, &failure.reason, &message, run, now, limits);
}

/// Ends a run that did all it could.
fn finish(new: &mut ApplicationCloneStatus, made: &Made, run: &ApplicationClone, now: Timestamp, limits: &Limits) {
    let objects = &made.outcomes;
    let (answer, reason) = match (any_missed(&new.volumes), objects.failed > 0) {
        (true, _) => (Answer::No, "VolumesMissed"),
        (_, true) => (Answer::No, "ObjectsFailed"),
        _ => (Answer::Yes, "Cloned"),
    };
    let nothing = there(objects) == 0 && !new.volumes.iter().any(|volume| volume.stage == VolumeStage::Done);
    new.phase = match (answer, nothing) {
        (Answer::Yes, _) => Phase::Succeeded,
        (_, false) => Phase::Incomplete,
        (_, true) => Phase::Failed,
    };
    let message = ending(&new.volumes, objects, run);
    (new.objects, new.skipped_by) = (Some(objects.clone()), made.skipped_by.clone());
    end(new, answer, reason, &message, run, now, limits);
}

fn there(objects: &ObjectOutcomes) -> u64 {
    objects.created + objects.updated + objects.kept + objects.replaced
}

/// What is said of a run that did all it could.
fn ending(volumes: &[VolumeClone], objects: &ObjectOutcomes, run: &ApplicationClone) -> String {
    let count = |stage| volumes.iter().filter(|volume| volume.stage == stage).count();
    let mut message = format!(
        "{} of {} objects are there ({} were before), {} of {} volumes",
        there(objects),
        objects.wanted - objects.skipped,
        objects.kept + objects.updated,
        count(VolumeStage::Done),
        volumes.len()
    );
    let left = count(VolumeStage::Skipped);
    if left > 0 {
        message.push_str(&format!(", {left} left as they were because their claims existed"));
    }
    if objects.skipped > 0 {
        message.push_str(&format!(", {} objects are left out by a rule", objects.skipped));
    }
    let missed = volumes.iter().find(|volume| volume.stage == VolumeStage::Missed).map(|volume| {
        let why = volume.reason.as_deref().unwrap_or_default();
        format!("the volume {}/{} is missing: {why}", run.spec.destination_namespace, volume.claim)
    });
    let failed = objects.failed_items.first().map(|item| format!("{} is missing: {}", item.item, item.reason));
    let notes = objects.notes.first().map(|first| format!("{}: {}", first.item, first.reason));
    let managed = (!objects.managed_by.is_empty()).then(|| {
        format!(
            "{} may change or remove objects that bear its mark as its own source says",
            objects.managed_by.join(", ")
        )
    });
    for part in [missed.or(failed), notes, managed].into_iter().flatten() {
        message.push_str("; ");
        message.push_str(&part);
    }
    message
}

fn end(
    new: &mut ApplicationCloneStatus,
    answer: Answer,
    reason: &str,
    message: &str,
    run: &ApplicationClone,
    now: Timestamp,
    limits: &Limits,
) {
    new.stage = CloneStage::Done;
    new.observed_generation = run.metadata.generation;
    end_stages(&mut new.stages, now);
    let message = shorten(message, limits.reason_chars);
    new.message = Some(message.clone());
    let says = Says { type_: COMPLETE, answer, reason: reason.to_owned(), message };
    set(&mut new.conditions, says, run.metadata.generation, now);
}

/// Tells people what is new: stages, missed volumes, the end.
async fn tell(context: &Context, run: &ApplicationClone, old: &ApplicationCloneStatus, new: &ApplicationCloneStatus) {
    for (index, volume) in new.volumes.iter().enumerate() {
        let before = old.volumes.get(index).map(|volume| volume.stage);
        if volume.stage == VolumeStage::Missed && before != Some(VolumeStage::Missed) {
            let why = volume.reason.as_deref().unwrap_or_default();
            let note = format!("the volume {}/{} is not cloned: {why}", run.spec.source_namespace, volume.claim);
            context.events.warning(run, "CloneVolume", "VolumeMissed", &note).await;
        }
    }
    let message = new.message.as_deref().unwrap_or_default();
    if new.phase.is_final() && !old.phase.is_final() {
        count(context, new);
        let reason = format!("{:?}", new.phase);
        match new.phase {
            Phase::Succeeded => context.events.normal(run, "Clone", &reason, message).await,
            _ => context.events.warning(run, "Clone", &reason, message).await,
        }
    } else if new.stage != old.stage {
        let note = format!("the stage {:?} begins", new.stage);
        context.events.normal(run, "Clone", &format!("{:?}", new.stage), &note).await;
    }
}

fn count(context: &Context, status: &ApplicationCloneStatus) {
    let missed = status.volumes.iter().filter(|volume| volume.stage == VolumeStage::Missed).count() as u64;
    let failed = status.objects.as_ref().map_or(0, |objects| objects.failed);
    context.metrics.run_ended(KIND, status.phase, missed + failed);
    context.metrics.stages_ended(KIND, &status.stages);
}
