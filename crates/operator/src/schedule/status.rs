//! Writing down what a schedule did.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{ApplicationBackupSchedule, ApplicationBackupScheduleStatus, Phase, ReclaimPolicy, RunKind, ScheduledRun};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use recovery::schedule::MOST_MISSED;

use super::apply::Applied;
use super::gather::{Gathered, Run};
use super::plan::{Begin, Problem};
use crate::conditions::{Answer, READY, Says, set, shorten};
use crate::context::Context;
use crate::error::Error;
use crate::objects;

/// How long a schedule is left alone at most: the clock of the machine may be set.
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// Runs of one kind that the status names, the newest; enough for every policy that people write, and small enough for etcd.
const ITEMS: usize = 100;

/// Writes the status, if it changes, tells of what turned, and says when to look again.
pub(super) async fn write(context: &Context, gathered: Gathered, applied: Applied) -> Result<Action, Error> {
    if matches!(applied, Applied::Left) {
        return Ok(Action::await_change());
    }
    let old = gathered.schedule.status.clone().unwrap_or_default();
    let new = next(&gathered, &applied, context.limits().reason_chars);
    let schedule = ApplicationBackupSchedule { status: Some(new.clone()), ..gathered.schedule };
    if new != old {
        objects::write_status(&context.client, &schedule).await?;
        tell(context, &schedule, &old, &new, &applied).await;
    }
    Ok(match applied {
        Applied::Worked { begun: Some(_), .. } => Action::requeue(Duration::ZERO),
        Applied::Worked { next: Some(next), .. } => Action::requeue(rest(next, gathered.now)),
        Applied::Reported(_) => Action::requeue(context.limits().probe_retry),
        _ => Action::requeue(LONGEST_REST),
    })
}

/// Until just after the next run is due.
fn rest(next: Timestamp, now: Timestamp) -> Duration {
    let left = next.duration_since(now).max(SignedDuration::ZERO).unsigned_abs();
    (left + Duration::from_millis(10)).min(LONGEST_REST)
}

fn next(gathered: &Gathered, applied: &Applied, reason_chars: usize) -> ApplicationBackupScheduleStatus {
    let Gathered { schedule, runs, now, .. } = gathered;
    let mut new = schedule.status.clone().unwrap_or_default();
    let generation = schedule.metadata.generation;
    new.observed_generation = generation;
    let (mut all, mut next_run) = (runs.clone(), None);
    if let Applied::Worked { begun, removed, next, .. } = applied {
        all.retain(|run| !removed.contains(&run.backup.name_any()));
        if let Some((begin, run)) = begun {
            new.last_trigger = begin.request.clone().or(new.last_trigger);
            all.retain(|other| other.backup.name_any() != run.backup.name_any());
            all.push(run.clone());
        }
        next_run = *next;
    }
    new.next_run_at = next_run.map(Time);
    let complete = all.iter().filter(|run| run.phase() == Phase::Succeeded);
    new.last_complete_at = complete.map(|run| run.slot).max().map(Time);
    for run in &all {
        let last = new.last_scheduled.entry(run.kind.text().to_owned()).or_insert(Time(run.slot));
        last.0 = last.0.max(run.slot);
    }
    new.items = items(&all);
    let (answer, reason, message) = words(schedule, applied);
    let message = shorten(&message, reason_chars);
    new.message = Some(message.clone());
    set(&mut new.conditions, Says { type_: READY, answer, reason: reason.into(), message }, generation, *now);
    new
}

fn items(runs: &[Run]) -> BTreeMap<String, Vec<ScheduledRun>> {
    let mut items = BTreeMap::<String, Vec<ScheduledRun>>::new();
    for run in runs.iter().filter(|run| !run.is_leaving()) {
        let status = run.backup.status.as_ref();
        let ended = status.and_then(|status| status.stages.last()).and_then(|stage| stage.finished_at.clone());
        items.entry(run.kind.text().to_owned()).or_default().push(ScheduledRun {
            name: run.backup.name_any(),
            scheduled_at: Time(run.slot),
            phase: run.phase(),
            finished_at: ended.filter(|_| run.phase().is_final()),
        });
    }
    for of_kind in items.values_mut() {
        of_kind.sort_by(|a, b| (&b.scheduled_at, &b.name).cmp(&(&a.scheduled_at, &a.name)));
        of_kind.truncate(ITEMS);
    }
    items
}

fn words(schedule: &ApplicationBackupSchedule, applied: &Applied) -> (Answer, &'static str, String) {
    let (begun, waits_for) = match applied {
        Applied::Reported(Problem { reason, message }) => return (Answer::No, reason, message.clone()),
        Applied::Worked { begun, waits_for, .. } => (begun.as_ref(), waits_for.as_ref()),
        Applied::Left => (None, None),
    };
    if let Some((begin, _)) = begun.filter(|(begin, _)| begin.missed > 0) {
        return (Answer::Yes, "CaughtUp", missed(begin));
    }
    if let Some(earlier) = waits_for {
        return (Answer::Yes, "Waiting", format!("a run is due and begins when {earlier} has ended"));
    }
    if schedule.spec.suspend {
        return (Answer::Yes, "Suspended", "no run begins while spec.suspend is set".into());
    }
    let along = match schedule.spec.reclaim_policy {
        ReclaimPolicy::Delete => "; its recovery points are deleted with it",
        ReclaimPolicy::Retain => "",
    };
    (
        Answer::Yes,
        "Scheduled",
        format!("runs begin at the times of the policy {}{along}", schedule.spec.schedule_policy_name),
    )
}

fn missed(begin: &Begin) -> String {
    let Begin { missed, kind, slot, .. } = begin;
    let more = if *missed >= MOST_MISSED { " or more" } else { "" };
    let kind = kind.text();
    format!(
        "{missed}{more} earlier runs of {kind} were missed, because the schedule was suspended, an earlier run went on, or no operator was there; the run for {slot} stands for them"
    )
}

async fn tell(
    context: &Context,
    schedule: &ApplicationBackupSchedule,
    old: &ApplicationBackupScheduleStatus,
    new: &ApplicationBackupScheduleStatus,
    applied: &Applied,
) {
    match applied {
        Applied::Reported(problem) if old.message != new.message => {
            context.events.warning(schedule, "Schedule", problem.reason, &problem.message).await;
        }
        Applied::Worked { begun: Some((begin, run)), .. } => {
            let note = match begin.kind {
                RunKind::Manual => format!("{} was begun, as was asked for", run.backup.name_any()),
                _ => format!("{} was begun; it was due at {}", run.backup.name_any(), begin.slot),
            };
            context.events.normal(schedule, "Schedule", "RunBegun", &note).await;
            if begin.missed > 0 {
                context.events.warning(schedule, "Schedule", "RunsMissed", &missed(begin)).await;
            }
        }
        _ => {}
    }
}
