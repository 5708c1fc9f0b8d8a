//! Writing down what was done, and nothing else.

use std::time::Duration;

use api::{ApplicationBackup, ApplicationBackupStatus, BackupStage, Phase, VolumeBackup, VolumeStage};
use jiff::Timestamp;
use kube::runtime::controller::Action;

use super::apply::Applied;
use super::consistency;
use super::deletion;
use super::gather::Gathered;
use super::plan::Reason;
use super::store::Report;
use super::validate::selection;
use super::volume::{Done, Step, advance};
use crate::conditions::{
    Answer, BLOCKED, COMPLETE, RELEASED, Says, end_stages, enter_stage, said, set, set_once, shorten, yes_since,
};
use crate::config::Limits;
use crate::context::Context;
use crate::error::Error;
use crate::objects;
use crate::rules;

/// The kind, for metrics.
const KIND: &str = "ApplicationBackup";

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// At once.
    Now,
    /// In a while.
    Later(Duration),
    /// When something changes.
    Change,
}

impl From<Next> for Action {
    fn from(next: Next) -> Self {
        match next {
            Next::Now => Self::requeue(Duration::ZERO),
            Next::Later(wait) => Self::requeue(wait),
            Next::Change => Self::await_change(),
        }
    }
}

/// Writes the status if it changes, tells of what turned, and says when to look again.
pub(super) async fn write(context: &Context, gathered: Gathered, applied: Applied) -> Result<Action, Error> {
    let Gathered { run, uid, now, .. } = gathered;
    let run = match applied {
        // Before anything is made for a run, it is made sure that the run cannot vanish unnoticed.
        Applied::Begun => objects::set_finalizer(&context.client, &run, true).await?,
        _ => run,
    };
    let namespaces = selection(&run).namespaces;
    let old = run.status.clone().unwrap_or_default();
    let (new, next) = advanced(&run, &applied, now, context.limits());
    if new != old {
        let run = ApplicationBackup { status: Some(new.clone()), ..run };
        let run = objects::write_status(&context.client, &run).await?;
        tell(context, &run, &old, &new).await;
    }
    if new.stage == BackupStage::Done && old.stage != BackupStage::Done {
        count(context, &new, &applied, &namespaces);
        context.backups.forget(&uid);
    }
    match applied {
        Applied::Moved { error: Some(error), .. } => Err(error),
        _ => Ok(next.into()),
    }
}

/// A run of which all movers wait for their turn is looked at more seldom: it is woken when it is next.
const LOOKS_LEFT_OUT: u32 = 4;

fn only_waits(done: &[(usize, Done)]) -> bool {
    let waits = |done: &Done| matches!(done, Done::Waits { .. });
    done.iter().any(|(_, done)| waits(done))
        && done.iter().all(|(_, done)| waits(done) || *done == Done::Seen(Step::Keep))
}

/// The status after what was done.
fn advanced(
    run: &ApplicationBackup,
    applied: &Applied,
    now: Timestamp,
    limits: &Limits,
) -> (ApplicationBackupStatus, Next) {
    let mut new = run.status.clone().unwrap_or_default();
    // The generation that the run began with, since a run follows no change.
    new.observed_generation = new.observed_generation.or(run.metadata.generation);
    let next = match applied {
        Applied::Rested => return (run.status.clone().unwrap_or_default(), Next::Change),
        Applied::Left(left) => return (leave(run, left, now, limits), after_leaving(left, limits)),
        Applied::Begun => {
            new.phase = Phase::Running;
            enter(&mut new, BackupStage::Preparing, now)
        }
        Applied::Entered(stage) => {
            let is_cut = matches!(stage, BackupStage::Volumes | BackupStage::Resources)
                && new.volumes.iter().all(consistency::is_cut);
            if is_cut && new.consistency.is_none() {
                new.consistency = consistency::of(&new.volumes, &new.hooks);
            }
            enter(&mut new, *stage, now)
        }
        Applied::GivenUp(failure) => {
            new.failure.get_or_insert_with(|| failure.clone());
            enter(&mut new, BackupStage::PostExecRule, now)
        }
        Applied::Matched(commands) => {
            new.hooks.extend(commands.iter().cloned());
            Next::Now
        }
        Applied::Commanded(done) => {
            commanded(&mut new, done, now, limits);
            Next::Later(limits.poll)
        }
        Applied::Blocked(reason) => block(&mut new, reason, now, limits),
        Applied::Listed(volumes) => {
            new.volumes.clone_from(volumes);
            let has_rule = run.spec.pre_exec_rule.is_some();
            enter(&mut new, if has_rule { BackupStage::PreExecRule } else { BackupStage::Volumes }, now)
        }
        Applied::Moved { held, done, blocked, .. } => {
            commanded(&mut new, held, now, limits);
            for (index, done) in done {
                if let Some(volume) = new.volumes.get_mut(*index) {
                    advance(volume, done.clone(), now, limits.reason_chars);
                }
            }
            match blocked {
                Some(reason) => block(&mut new, reason, now, limits),
                None => {
                    unblock(&mut new, now);
                    Next::Later(if only_waits(done) { limits.poll * LOOKS_LEFT_OUT } else { limits.poll })
                }
            }
        }
        Applied::Stored => {
            // A run that is blocked stays so until it is published: storing what was stored before is no progress.
            new.stage = BackupStage::Publishing;
            enter_stage(&mut new.stages, &stage_name(BackupStage::Publishing), now);
            Next::Now
        }
        Applied::Again => Next::Now,
        Applied::Ending { left } => {
            new.message = Some(shorten(&format!("ends when these are gone: {}", left.join(", ")), limits.reason_chars));
            Next::Later(limits.poll)
        }
        Applied::Failed(reason) => fail(&mut new, reason, now, limits),
        Applied::Published(report) => finish(&mut new, report, now),
    };
    (new, next)
}

fn commanded(new: &mut ApplicationBackupStatus, done: &[(usize, rules::Done)], now: Timestamp, limits: &Limits) {
    for (index, done) in done {
        if let Some(hook) = new.hooks.get_mut(*index) {
            rules::advance(hook, done, now, limits);
        }
    }
}

fn stage_name(stage: BackupStage) -> String {
    format!("{stage:?}")
}

fn enter(new: &mut ApplicationBackupStatus, stage: BackupStage, now: Timestamp) -> Next {
    new.stage = stage;
    new.message = None;
    enter_stage(&mut new.stages, &stage_name(stage), now);
    unblock(new, now);
    Next::Now
}

fn block(new: &mut ApplicationBackupStatus, reason: &Reason, now: Timestamp, limits: &Limits) -> Next {
    let message = shorten(&reason.message, limits.reason_chars);
    let says = Says { type_: BLOCKED, answer: Answer::Yes, reason: reason.reason.clone(), message };
    set_once(&mut new.conditions, says, new.observed_generation, now);
    new.message = said(&new.conditions, BLOCKED).map(Into::into);
    Next::Later(limits.retry)
}

fn unblock(new: &mut ApplicationBackupStatus, now: Timestamp) {
    if yes_since(&new.conditions, BLOCKED).is_some() {
        let says =
            Says { type_: BLOCKED, answer: Answer::No, reason: "GoesOn".into(), message: "the run goes on".into() };
        set(&mut new.conditions, says, new.observed_generation, now);
        new.message = None;
    }
}

fn done(
    new: &mut ApplicationBackupStatus,
    phase: Phase,
    answer: Answer,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    unblock(new, now);
    end_stages(&mut new.stages, now);
    (new.stage, new.phase) = (BackupStage::Done, phase);
    new.message = Some(message.clone());
    let says = Says { type_: COMPLETE, answer, reason: reason.into(), message };
    set(&mut new.conditions, says, new.observed_generation, now);
}

fn fail(new: &mut ApplicationBackupStatus, reason: &Reason, now: Timestamp, limits: &Limits) -> Next {
    for volume in &mut new.volumes {
        if matches!(volume.stage, VolumeStage::Pending | VolumeStage::Moving) {
            volume.stage = VolumeStage::Missed;
            volume.reason = Some("the backup failed before its data was read".into());
        }
    }
    let message = shorten(&reason.message, limits.reason_chars);
    done(new, Phase::Failed, Answer::No, &reason.reason, message, now);
    Next::Change
}

fn finish(new: &mut ApplicationBackupStatus, report: &Report, now: Timestamp) -> Next {
    let Report { point, ledger } = report;
    new.recovery_point = Some(point.id.to_string());
    new.bytes = Some(point.stats.bytes);
    new.stored_bytes = Some(point.stats.stored_bytes);
    new.ledger = Some(ledger.clone());
    if point.complete && ledger.missed == 0 {
        let message =
            format!("{} objects and volumes are stored and were read back, {} skipped", ledger.stored, ledger.skipped);
        done(new, Phase::Succeeded, Answer::Yes, "NothingMissed", message, now);
    } else {
        let first = ledger.missed_items.first().map(|m| format!(", such as {}: {}", m.item, m.reason));
        let message = format!("{} of {} are missed{}", ledger.missed, ledger.wanted, first.unwrap_or_default());
        done(new, Phase::Incomplete, Answer::No, "Missed", message, now);
    }
    Next::Change
}

/// The status of a run that is being deleted: only why it is still there.
fn leave(
    run: &ApplicationBackup,
    left: &deletion::Applied,
    now: Timestamp,
    limits: &Limits,
) -> ApplicationBackupStatus {
    let mut new = run.status.clone().unwrap_or_default();
    let (reason, message) = match left {
        deletion::Applied::Rested | deletion::Applied::Released => return new,
        deletion::Applied::Ending { left } => ("Ending", format!("waits for {} to go", left.join(", "))),
        deletion::Applied::Waiting(problem) => {
            (problem.reason(), format!("the recovery point is not removed yet: {problem}"))
        }
    };
    let message = shorten(&message, limits.reason_chars);
    let says = Says { type_: RELEASED, answer: Answer::No, reason: reason.into(), message };
    set_once(&mut new.conditions, says, run.metadata.generation, now);
    new
}

fn after_leaving(left: &deletion::Applied, limits: &Limits) -> Next {
    match left {
        deletion::Applied::Rested | deletion::Applied::Released => Next::Change,
        deletion::Applied::Ending { .. } => Next::Later(limits.poll),
        deletion::Applied::Waiting(_) => Next::Later(limits.retry),
    }
}

/// Events for what turned: stages, volumes that are missed, the end.
async fn tell(
    context: &Context,
    run: &ApplicationBackup,
    old: &ApplicationBackupStatus,
    new: &ApplicationBackupStatus,
) {
    for volume in newly_missed(old, new) {
        let note = format!(
            "{}/{}: {}",
            volume.namespace,
            volume.claim,
            volume.reason.as_deref().unwrap_or("no reason was kept")
        );
        context.events.warning(run, "BackUpVolume", "VolumeMissed", &note).await;
    }
    for note in rules::newly_failed(&old.hooks, &new.hooks) {
        context.events.warning(run, "RunRule", "RuleFailed", &note).await;
    }
    if old.stage == new.stage {
        return;
    }
    let message = new.message.as_deref().unwrap_or("begins");
    match new.phase {
        Phase::Failed | Phase::Incomplete => {
            context.events.warning(run, "BackUp", &format!("{:?}", new.phase), message).await;
        }
        Phase::Succeeded => context.events.normal(run, "BackUp", "Succeeded", message).await,
        Phase::Pending | Phase::Running => {
            context.events.normal(run, "BackUp", &stage_name(new.stage), message).await;
        }
    }
}

fn newly_missed<'a>(
    old: &'a ApplicationBackupStatus,
    new: &'a ApplicationBackupStatus,
) -> impl Iterator<Item = &'a VolumeBackup> {
    new.volumes.iter().enumerate().filter_map(|(i, volume)| {
        let was = old.volumes.get(i).is_some_and(|v| v.stage == VolumeStage::Missed);
        (volume.stage == VolumeStage::Missed && !was).then_some(volume)
    })
}

/// Counts a run that is over, of these namespaces. A recovery point that was found where this run's was to be may say that it is of others.
fn count(context: &Context, new: &ApplicationBackupStatus, applied: &Applied, own: &[String]) {
    let metrics = &context.metrics;
    metrics.run_ended(KIND, new.phase, new.ledger.as_ref().map_or(0, |l| l.missed));
    metrics.stages_ended(KIND, &new.stages);
    metrics.moved(KIND, new.bytes.unwrap_or(0));
    metrics.stored(new.stored_bytes.unwrap_or(0));
    let Applied::Published(report) = applied else { return };
    let repository::Source::Application { namespaces, .. } = &report.point.source else { return };
    for namespace in namespaces.iter().filter(|namespace| report.point.complete && own.contains(namespace)) {
        metrics.good_point(namespace, report.point.created);
    }
}
