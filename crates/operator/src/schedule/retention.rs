//! Which runs of a schedule are kept.
//!
//! Each of its times keeps the newest complete runs that it made, and the tiers keep the newest complete one of each of their periods, of whatever time. What
//! nobody keeps goes, but never: a run that has not ended, one that somebody asked for or has pinned, the newest complete one of each time, or the newest one.
//! Runs of a time that the policy does not have any more stay until somebody deletes them: what they were to be kept for is not known.

use std::collections::BTreeSet;

use api::schedule::PINNED;
use api::{ApplicationBackup, Phase, RunKind};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::ResourceExt;
use repository::retention::{Group, Known, Policy, decide};

use super::gather::Run;
use super::validate::Courses;

/// The runs that are not to be kept.
pub(super) fn surplus(runs: &[Run], courses: &Courses, now: Timestamp) -> Vec<ApplicationBackup> {
    let ended: Vec<(usize, &Run)> =
        runs.iter().enumerate().filter(|(_, run)| run.phase().is_final() && !run.is_leaving()).collect();
    let mut kept = BTreeSet::new();
    for course in &courses.courses {
        let own = ended.iter().filter(|(_, run)| run.kind == course.kind);
        if let Ok(policy) = Policy::new(Some(course.retain), [], None, Vec::new()) {
            kept.extend(keeps(&policy, own, now, &courses.zone));
        }
    }
    if let Some(tiers) = &courses.tiers {
        kept.extend(keeps(tiers, ended.iter(), now, &courses.zone));
    }
    let is_followed = |kind: RunKind| courses.courses.iter().any(|course| course.kind == kind);
    let goes = |(index, run): &&(usize, &Run)| is_followed(run.kind) && !kept.contains(index);
    ended.iter().filter(goes).map(|(_, run)| run.backup.clone()).collect()
}

/// The places of the runs that a policy keeps.
fn keeps<'a>(
    policy: &Policy,
    runs: impl Iterator<Item = &'a (usize, &'a Run)>,
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<usize> {
    let known = runs.filter_map(|(index, run)| {
        Some(Known {
            // The order of runs of one instant; their own names may have what names of recovery points have not.
            id: format!("{index:010}").parse().ok()?,
            created: run.slot,
            group: Group::default(),
            tags: Default::default(),
            pinned: run.backup.annotations().contains_key(PINNED) || run.backup.labels().contains_key(PINNED),
            complete: run.phase() == Phase::Succeeded,
        })
    });
    let decisions = decide(policy, known.collect(), now, zone);
    decisions.iter().filter(|d| d.is_kept()).filter_map(|d| d.point.id.as_str().parse().ok()).collect()
}
