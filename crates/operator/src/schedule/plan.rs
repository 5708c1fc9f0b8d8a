//! What a schedule does next. Pure.

use api::schedule::TRIGGER_REQUESTED;
use api::{ApplicationBackup, ConcurrencyPolicy, Phase, ReclaimPolicy, RunKind};
use jiff::Timestamp;
use kube::ResourceExt;
use recovery::schedule::Due;

use super::gather::Gathered;
use super::retention::surplus;
use super::validate::{Courses, courses, validate};

/// What to do.
#[derive(Debug)]
pub(super) enum Plan {
    /// The schedule is being deleted.
    Leave {
        /// Runs that go with it.
        runs: Vec<ApplicationBackup>,
        /// Nothing keeps it any more.
        is_over: bool,
    },
    /// It cannot work.
    Report(Problem),
    /// It works.
    Work(Work),
}

/// Why a schedule cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// One word in CamelCase.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What a schedule that can work does.
#[derive(Debug)]
pub(super) struct Work {
    /// A run that begins. There is one at most: the next one is looked for when this is there.
    pub begin: Option<Begin>,
    /// Runs that are not to be kept.
    pub surplus: Vec<ApplicationBackup>,
    /// When the next run is due; none while the schedule is suspended.
    pub next: Option<Timestamp>,
    /// A run is due, and waits for this one to end.
    pub waits_for: Option<String>,
    /// The first time after that of the last complete run, of each kind, that a run was or will be due; none while the schedule is suspended.
    pub incomplete_from: Option<Timestamp>,
}

/// A run that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begin {
    /// For which of the times.
    pub kind: RunKind,
    /// When it was due.
    pub slot: Timestamp,
    /// How many before it were missed.
    pub missed: u32,
    /// By which request, when somebody asked for it.
    pub request: Option<String>,
}

/// Decides.
pub(super) fn plan(gathered: &Gathered) -> Plan {
    let schedule = &gathered.schedule;
    if schedule.metadata.deletion_timestamp.is_some() {
        return leave(gathered);
    }
    if let Err(message) = validate(schedule) {
        return Plan::Report(Problem { reason: "InvalidSpec", message });
    }
    let name = &schedule.spec.schedule_policy_name;
    let Some(policy) = &gathered.policy else {
        let message = format!(
            "there is no policy {name}: create a NamespacedSchedulePolicy of this name in this namespace, or a SchedulePolicy"
        );
        return Plan::Report(Problem { reason: "PolicyNotFound", message });
    };
    let begin = schedule.metadata.creation_timestamp.as_ref().map_or(gathered.now, |time| time.0);
    match courses(policy, begin) {
        Ok(courses) => Plan::Work(work(gathered, &courses)),
        Err(message) => {
            Plan::Report(Problem { reason: "InvalidPolicy", message: format!("the policy {name}: {message}") })
        }
    }
}

fn leave(gathered: &Gathered) -> Plan {
    let takes_along = gathered.schedule.spec.reclaim_policy == ReclaimPolicy::Delete;
    let runs: Vec<_> = gathered.runs.iter().filter(|_| takes_along).collect();
    let is_over = runs.is_empty();
    Plan::Leave {
        runs: runs.into_iter().filter(|run| !run.is_leaving()).map(|run| run.backup.clone()).collect(),
        is_over,
    }
}

fn work(gathered: &Gathered, courses: &Courses) -> Work {
    let spec = &gathered.schedule.spec;
    let surplus = surplus(&gathered.runs, courses, gathered.now);
    let mut work = Work { begin: asked_for(gathered), surplus, next: None, waits_for: None, incomplete_from: None };
    if !spec.suspend {
        let dues = courses.courses.iter().filter_map(|course| {
            let due = course.calendar.due(last(gathered, course.kind), gathered.now)?;
            Some((due, course.kind))
        });
        let first = dues.min_by_key(|(due, kind)| (due.slot, *kind));
        work.begin =
            work.begin.or(first.map(|(Due { slot, missed }, kind)| Begin { kind, slot, missed, request: None }));
        let next = courses.courses.iter().filter_map(|course| course.calendar.next(Some(gathered.now)));
        work.next = next.min();
        work.incomplete_from = incomplete_from(gathered, courses);
    }
    let mut under_way = gathered.runs.iter().filter(|run| !run.phase().is_final() && !run.is_leaving());
    if spec.concurrency_policy == ConcurrencyPolicy::Forbid
        && let Some(earlier) = under_way.next()
        && work.begin.take().is_some()
    {
        work.waits_for = Some(earlier.backup.name_any());
    }
    work
}

/// From when on there is no complete run for what was due.
fn incomplete_from(gathered: &Gathered, courses: &Courses) -> Option<Timestamp> {
    let first = courses.courses.iter().filter_map(|course| {
        let complete = gathered.runs.iter().filter(|run| run.kind == course.kind && run.phase() == Phase::Succeeded);
        course.calendar.next(complete.map(|run| run.slot).max())
    });
    first.min()
}

/// When the last run of a kind was due: its runs may be gone, and what was written down may be older than they are.
fn last(gathered: &Gathered, kind: RunKind) -> Option<Timestamp> {
    let status = gathered.schedule.status.as_ref();
    let noted = status.and_then(|status| status.last_scheduled.get(kind.text())).map(|time| time.0);
    let seen = gathered.runs.iter().filter(|run| run.kind == kind).map(|run| run.slot).max();
    noted.max(seen)
}

/// A run that somebody asks for, by a value of the annotation that was not followed yet. The run is named after the value, so that it is made once.
fn asked_for(gathered: &Gathered) -> Option<Begin> {
    let request = gathered.schedule.annotations().get(TRIGGER_REQUESTED)?;
    let followed = gathered.schedule.status.as_ref().and_then(|status| status.last_trigger.as_ref());
    let is_new = followed != Some(request) && request.chars().any(|c| c.is_ascii_alphanumeric());
    is_new.then(|| Begin { kind: RunKind::Manual, slot: gathered.now, missed: 0, request: Some(request.clone()) })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
