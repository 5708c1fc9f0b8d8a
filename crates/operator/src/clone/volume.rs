//! One volume of a clone: what to do next. Pure.

use std::time::Duration;

use api::{VolumeClone, VolumeStage};
use jiff::Timestamp;

use crate::config::Limits;
use crate::snapshots::Snapshot;

/// What is seen of one volume.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its claim is in the source, and not being deleted.
    pub(super) is_there: bool,
    /// The snapshot that is taken of it.
    pub(super) snapshot: Option<Snapshot>,
    /// That snapshot, as it is known in the destination.
    pub(super) imported: Option<Snapshot>,
    /// The claim that was made from that.
    pub(super) made: Option<Made>,
}

/// A claim that the run has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) uid: String,
    /// Its volume comes from the snapshot: an API server that does not know the field makes the claim without it.
    pub(super) has_source: bool,
    /// It has its volume.
    pub(super) is_bound: bool,
    /// It goes with the run.
    pub(super) is_labelled: bool,
    /// Its class makes volumes only for a node, and it has none.
    pub(super) lacks_node: bool,
}

/// The next step of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is done with.
    Keep,
    /// Take a snapshot.
    Cut,
    /// Make the snapshot known in the destination.
    Import,
    /// Make the claim.
    Make,
    /// The volume is there: let the claim stay when the run goes.
    Release {
        /// The uid of the claim.
        uid: String,
    },
    /// It is cloned.
    Done,
    /// Somebody else has something to do; what.
    Wait(String),
    /// Give up; why.
    Miss(String),
}

/// Whether nothing more will happen to a volume.
pub(super) fn is_final(volume: &VolumeClone) -> bool {
    matches!(volume.stage, VolumeStage::Done | VolumeStage::Skipped | VolumeStage::Missed)
}

/// Decides the next step.
pub(super) fn next(volume: &VolumeClone, seen: &Seen, now: Timestamp, limits: &Limits) -> Step {
    if is_final(volume) {
        return Step::Keep;
    }
    match &seen.made {
        Some(made) if !made.has_source => Step::Miss(
            "this cluster made the claim without its dataSource, so it would be empty; back the application up and restore it instead".into(),
        ),
        Some(made) if made.lacks_node => Step::Miss(
            "its driver could not make the volume on the node of the source; see its events, make room there, and clone again".into(),
        ),
        Some(made) if !made.is_bound => patient(volume, now, limits.mover_deadline, "waits for its volume to be made"),
        Some(made) if made.is_labelled => Step::Release { uid: made.uid.clone() },
        Some(_) => Step::Done,
        None => before_the_claim(volume, seen, now, limits),
    }
}

fn before_the_claim(volume: &VolumeClone, seen: &Seen, now: Timestamp, limits: &Limits) -> Step {
    let why = |snapshot: &Snapshot, otherwise: &str| snapshot.error.clone().unwrap_or_else(|| otherwise.to_owned());
    match (&seen.snapshot, &seen.imported) {
        (None, _) if volume.cut_at.is_some() => {
            Step::Miss("its snapshot was deleted before a volume was made from it".into())
        }
        (None, _) if !seen.is_there => Step::Miss("the claim was deleted before a snapshot of it was taken".into()),
        (None, _) => Step::Cut,
        (Some(taken), _) if taken.cut_at.is_none() => {
            let why = why(taken, "waits for its snapshot; see that the cluster's snapshot controller runs");
            patient(volume, now, limits.mover_start_deadline, &why)
        }
        (Some(taken), _) if !taken.is_ready => {
            patient(volume, now, limits.mover_deadline, &why(taken, "waits for its snapshot to be ready"))
        }
        (Some(_), None) => Step::Import,
        (Some(_), Some(known)) if !known.is_ready => {
            let why = why(known, "waits for its snapshot to be known in the destination");
            patient(volume, now, limits.mover_start_deadline, &why)
        }
        (Some(_), Some(_)) => Step::Make,
    }
}

/// Waits, unless that went on for too long since the snapshot was asked for.
pub(super) fn patient(volume: &VolumeClone, now: Timestamp, within: Duration, why: &str) -> Step {
    let since = volume.started_at.as_ref().map(|time| time.0);
    let over = since.is_some_and(|since| now > since && now.duration_since(since).unsigned_abs() >= within);
    if over { Step::Miss(format!("{why} (given up after {} s)", within.as_secs())) } else { Step::Wait(why.to_owned()) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
    }

    fn taken(is_ready: bool) -> Option<Snapshot> {
        Some(Snapshot { cut_at: Some(at(1)), is_ready, ..Snapshot::default() })
    }

    fn made(has_source: bool, is_bound: bool, is_labelled: bool) -> Option<Made> {
        Some(Made { uid: "u".into(), has_source, is_bound, is_labelled, lacks_node: false })
    }

    #[test]
    fn a_claim_is_made_from_a_snapshot_that_is_ready_and_stays_when_it_is_bound() {
        let volume = VolumeClone { started_at: Some(Time(at(0))), ..VolumeClone::default() };
        let check = |seen: Seen, now: i64, expected: &str| {
            let step = format!("{:?}", next(&volume, &seen, at(now), &Limits::default()));
            assert!(step.starts_with(expected), "{seen:?} at {now}: {step}");
        };
        let seen = Seen { is_there: true, ..Seen::default() };
        check(Seen::default(), 1, "Miss");
        check(seen.clone(), 1, "Cut");
        check(Seen { snapshot: Some(Snapshot::default()), ..seen.clone() }, 1, "Wait");
        check(Seen { snapshot: Some(Snapshot::default()), ..seen.clone() }, 3600, "Miss");
        check(Seen { snapshot: taken(false), ..seen.clone() }, 3600, "Wait");
        let seen = Seen { snapshot: taken(true), ..seen };
        check(seen.clone(), 1, "Import");
        check(Seen { imported: taken(false), ..seen.clone() }, 1, "Wait");
        let seen = Seen { imported: taken(true), ..seen };
        check(seen.clone(), 1, "Make");
        check(Seen { made: made(true, false, true), ..seen.clone() }, 3600, "Wait");
        check(Seen { made: made(true, true, true), ..seen.clone() }, 1, "Release");
        check(Seen { made: made(true, true, false), ..seen.clone() }, 1, "Done");
        check(Seen { made: made(false, true, true), ..seen.clone() }, 1, "Miss");
        let homeless = made(true, false, true).map(|made| Made { lacks_node: true, ..made });
        check(Seen { made: homeless, ..seen }, 1, "Miss");
    }

    #[test]
    fn what_is_done_with_is_left_alone_and_a_snapshot_is_not_taken_twice() {
        let seen = Seen { is_there: true, ..Seen::default() };
        let check = |volume: VolumeClone, expected: &Step| {
            let step = next(&volume, &seen, at(1), &Limits::default());
            assert_eq!(std::mem::discriminant(&step), std::mem::discriminant(expected), "{volume:?}: {step:?}");
        };
        for stage in [VolumeStage::Done, VolumeStage::Skipped, VolumeStage::Missed] {
            check(VolumeClone { stage, ..VolumeClone::default() }, &Step::Keep);
        }
        check(VolumeClone { cut_at: Some(Time(at(0))), ..VolumeClone::default() }, &Step::Miss(String::new()));
    }
}
