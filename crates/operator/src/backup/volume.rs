//! One volume of a backup: what to do next, and what its status says after it was done. Pure.

use api::{VolumeBackup, VolumeStage};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mover::Form;
use std::time::Duration;

use super::outcome::{self, Moved, Reported};
use super::parents::Parent;
use crate::conditions::shorten;
use crate::config::Limits;
use crate::mover_pod::{MoverState, SoFar};
use crate::snapshots::Snapshot;

/// What became of the claim since the volumes were listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClaimState {
    /// It was not looked at, since nothing depends on it now.
    #[default]
    Unknown,
    /// It is there.
    Present,
    /// It is gone, or about to be.
    Gone,
}

/// What is seen of one volume.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The mover of the attempt that counts: the current one, or else the next one, which an operator that died may have started.
    pub mover: Option<MoverState>,
    /// Its claim.
    pub claim: ClaimState,
    /// What it had before.
    pub parent: Option<Parent>,
    /// How far its mover is.
    pub so_far: Option<SoFar>,
    /// Its snapshot, if it is read from one and that was looked at.
    pub snapshot: Option<Option<Snapshot>>,
}

/// The next step of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Take a snapshot.
    Cut,
    /// The snapshot is taken.
    Taken {
        /// The instant that its data is of.
        at: Timestamp,
    },
    /// Start a mover.
    Start {
        /// From 1.
        attempt: u32,
    },
    /// A mover is there: note what is seen of it.
    Note {
        /// Which.
        attempt: u32,
        /// What it waits for.
        waits_for: Option<String>,
        /// How far it is.
        so_far: Option<SoFar>,
    },
    /// The mover's node is lost: remove the pod by force.
    Force {
        /// Which.
        attempt: u32,
    },
    /// The attempt failed: another one.
    Again {
        /// Why it failed.
        reason: String,
    },
    /// Give up.
    Miss {
        /// Why.
        reason: String,
        /// What there is all the same.
        moved: Option<Moved>,
    },
    /// It is stored.
    Finish(Moved),
}

/// As what a volume is moved.
pub(super) fn form(volume: &VolumeBackup) -> Form {
    if volume.image { Form::Image } else { Form::Files }
}

/// The attempt whose mover counts for a volume.
pub(super) fn attempt_that_counts(volume: &VolumeBackup) -> Option<u32> {
    match volume.stage {
        VolumeStage::Pending => Some(volume.attempts + 1),
        VolumeStage::Moving => Some(volume.attempts),
        VolumeStage::Done | VolumeStage::Skipped | VolumeStage::Missed => None,
    }
}

/// Whether nothing more will happen to a volume.
pub(super) fn is_final(volume: &VolumeBackup) -> bool {
    attempt_that_counts(volume).is_none()
}

/// Decides the next step. `slot` says whether one more mover may run.
pub(super) fn next(volume: &VolumeBackup, seen: &Seen, slot: bool, now: Timestamp, limits: &Limits) -> Step {
    let Some(attempt) = attempt_that_counts(volume) else { return Step::Keep };
    match (&seen.mover, volume.stage) {
        (Some(state), _) => with_mover(volume, attempt, state, seen, limits),
        (None, VolumeStage::Moving) => again_or_miss(attempt, "the mover pod was deleted".into(), limits),
        (None, _) if seen.claim == ClaimState::Gone => {
            let what = if volume.cut_at.is_some() { "snapshot" } else { "claim" };
            Step::Miss { reason: format!("the {what} was deleted before its data was read"), moved: None }
        }
        (None, _) => match refused_too_long(volume, now, limits.mover_start_deadline) {
            Some(reason) => Step::Miss { reason, moved: None },
            None if slot && seen.claim == ClaimState::Present => Step::Start { attempt },
            None => Step::Keep,
        },
    }
}

/// Decides the next step of a volume that is read from a snapshot, as long as that is not taken.
pub(super) fn cut(volume: &VolumeBackup, seen: &Seen, now: Timestamp, limits: &Limits) -> Step {
    if is_final(volume) || volume.cut_at.is_some() {
        return Step::Keep;
    }
    let since = volume.started_at.as_ref().map(|time| time.0);
    let over = since
        .is_some_and(|since| now > since && now.duration_since(since).unsigned_abs() >= limits.mover_start_deadline);
    match &seen.snapshot {
        None => Step::Keep,
        Some(None) if seen.claim == ClaimState::Gone => {
            Step::Miss { reason: "the claim was deleted before a snapshot of it was taken".into(), moved: None }
        }
        Some(None) => Step::Cut,
        Some(Some(Snapshot { cut_at: Some(at), .. })) => Step::Taken { at: *at },
        Some(Some(Snapshot { error, .. })) if over => {
            let why = error.as_deref().unwrap_or("the driver says nothing; see that its snapshot controller runs");
            let reason = format!("no snapshot was taken within {} s: {why}", limits.mover_start_deadline.as_secs());
            Step::Miss { reason, moved: None }
        }
        Some(Some(_)) => Step::Keep,
    }
}

fn refused_too_long(volume: &VolumeBackup, now: Timestamp, deadline: Duration) -> Option<String> {
    let reason = volume.reason.as_deref().filter(|r| r.starts_with(REFUSED))?;
    let since = volume.started_at.as_ref()?.0;
    (now > since && now.duration_since(since).unsigned_abs() >= deadline).then(|| reason.to_owned())
}

fn with_mover(volume: &VolumeBackup, attempt: u32, state: &MoverState, seen: &Seen, limits: &Limits) -> Step {
    let note = |waits_for, so_far| Step::Note { attempt, waits_for, so_far };
    match state {
        MoverState::Waiting { why } => note(Some(why.clone()), None),
        MoverState::Running => note(None, seen.so_far),
        MoverState::Ending { overdue: true } => Step::Force { attempt },
        MoverState::Ending { overdue: false } => note(Some("the mover pod is being deleted".into()), None),
        MoverState::NeverStarted { why } => Step::Miss {
            reason: format!(
                "the mover pod did not start within {} s: {why}; see that a node can run it and mount the volume",
                limits.mover_start_deadline.as_secs()
            ),
            moved: None,
        },
        MoverState::Failed { reason, message } => {
            let reason = format!("the mover failed: {reason}");
            match message.as_deref().map(outcome::parse) {
                Some(Ok(Reported::Moved(moved))) => judge(volume, moved, seen.parent.as_ref()),
                Some(Ok(Reported::Failed { retryable: false, .. })) => Step::Miss { reason, moved: None },
                _ => again_or_miss(attempt, reason, limits),
            }
        }
        MoverState::Succeeded { message } => match outcome::parse(message) {
            Ok(Reported::Moved(moved)) => judge(volume, moved, seen.parent.as_ref()),
            Ok(Reported::Failed { error, .. }) => again_or_miss(attempt, format!("the mover failed: {error}"), limits),
            Err(error) => again_or_miss(attempt, format!("what the mover left cannot be read: {error}"), limits),
        },
    }
}

/// Another attempt, if there is one left.
pub(super) fn again_or_miss(attempt: u32, reason: String, limits: &Limits) -> Step {
    if attempt < limits.mover_attempts {
        return Step::Again { reason };
    }
    Step::Miss { reason: format!("{reason} (attempt {attempt} of {})", limits.mover_attempts), moved: None }
}

/// A mover that ended well may still have found too little.
fn judge(volume: &VolumeBackup, moved: Moved, parent: Option<&Parent>) -> Step {
    if let Some(parent) = parent.filter(|p| p.held > 0 && moved.held() == 0) {
        let what = match moved.form {
            Form::Files => format!("held {} files in recovery point {}, and holds none now", parent.held, parent.point),
            Form::Image => {
                format!("held data in recovery point {}, and is all zeros now", parent.point)
            }
        };
        let reason = format!(
            "the volume {what}; if that is meant, delete the claim {}/{} from the application, or accept this point as incomplete",
            volume.namespace, volume.claim
        );
        return Step::Miss { reason, moved: Some(moved) };
    }
    match moved.unreadable() {
        Some(reason) => Step::Miss { reason, moved: Some(moved) },
        None => Step::Finish(moved),
    }
}

/// How a mover that the API server does not take begins its reason.
pub(super) const REFUSED: &str = "the mover pod was refused";

/// What was done about a volume.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one of them per volume, for a moment")]
pub(super) enum Done {
    /// Nothing had to be done in the cluster; the step itself is what happened.
    Seen(Step),
    /// A mover was started.
    Started {
        /// Which.
        attempt: u32,
    },
    /// It is not its turn.
    Waits {
        /// For what.
        why: String,
    },
    /// The API server refused the mover.
    Refused {
        /// In its words.
        reason: String,
    },
}

/// Writes into the status of a volume what was done about it.
pub(super) fn advance(volume: &mut VolumeBackup, done: Done, now: Timestamp, reason_chars: usize) {
    let short = |text: String| Some(shorten(&text, reason_chars));
    match done {
        Done::Seen(Step::Keep | Step::Start { .. } | Step::Force { .. }) => {}
        Done::Seen(Step::Cut) => {
            volume.started_at.get_or_insert(Time(now));
        }
        Done::Seen(Step::Taken { at }) => {
            (volume.cut_at, volume.started_at, volume.reason) = (Some(Time(at)), None, None);
        }
        Done::Started { attempt } => moving(volume, attempt, now),
        // Refusals before it are another matter: their time does not run while it waits.
        Done::Waits { why } => (volume.reason, volume.started_at) = (short(why), None),
        Done::Refused { reason } => {
            volume.started_at.get_or_insert(Time(now));
            volume.reason = short(format!("{REFUSED}: {reason}"));
        }
        Done::Seen(Step::Note { attempt, waits_for, so_far }) => {
            moving(volume, attempt, now);
            volume.reason = waits_for.and_then(short);
            if let Some(SoFar { files, bytes }) = so_far {
                (volume.files, volume.bytes) = ((!volume.image).then_some(files), Some(bytes));
            }
        }
        Done::Seen(Step::Again { reason }) => {
            // A mover that was started by an operator that died before it noted so counts too.
            volume.attempts = attempt_that_counts(volume).unwrap_or(volume.attempts);
            volume.stage = VolumeStage::Pending;
            (volume.files, volume.bytes, volume.started_at) = (None, None, None);
            volume.reason = short(format!("attempt {}: {reason}", volume.attempts));
        }
        Done::Seen(Step::Miss { reason, moved }) => {
            volume.stage = VolumeStage::Missed;
            volume.finished_at = Some(Time(now));
            (volume.files, volume.bytes) = (None, None);
            if let Some(moved) = moved {
                hold(volume, &moved);
            }
            volume.reason = short(reason);
        }
        Done::Seen(Step::Finish(moved)) => {
            volume.stage = VolumeStage::Done;
            volume.attempts = volume.attempts.max(1);
            volume.finished_at = Some(Time(now));
            hold(volume, &moved);
            volume.reason = None;
        }
    }
}

fn moving(volume: &mut VolumeBackup, attempt: u32, now: Timestamp) {
    if volume.stage != VolumeStage::Moving || volume.attempts != attempt {
        (volume.stage, volume.attempts, volume.started_at, volume.reason) =
            (VolumeStage::Moving, attempt, Some(Time(now)), None);
    }
}

fn hold(volume: &mut VolumeBackup, moved: &Moved) {
    let has_files = moved.form == Form::Files;
    volume.files = has_files.then_some(moved.files);
    volume.bytes = Some(moved.bytes);
    volume.stored_bytes = Some(moved.stored_bytes());
    // Nobody can tell of a device whether it was written to while it was read.
    volume.changed_while_read = has_files.then_some(moved.changed_while_read);
    volume.result = Some(moved.encode());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "a tree";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
    }

    fn tree() -> repository::TableRef {
        let bytes = [1; repository::TableRef::LEN];
        repository::TableRef::decode(&mut repository::Fields::new(&bytes)).expect(ROOT)
    }

    fn moved(files: u64, missed: u64) -> Moved {
        Moved {
            form: Form::Files,
            root: tree(),
            files,
            bytes: files * 10,
            new_bytes: 1,
            changed_while_read: 0,
            missed,
            first_missed: None,
            packs: mover::PackList::default(),
            sessions: Vec::new(),
        }
    }

    fn message(files: u64, missed: u64) -> String {
        let tree = serde_json::to_value(tree()).expect(ROOT);
        let none = serde_json::json!({"count": 0, "first": []});
        let failure = (missed > 0)
            .then(|| serde_json::json!({"error": "some were missed", "kind": "incomplete", "retryable": false}));
        let mut outcome = serde_json::json!({
            "ok": missed == 0,
            "seconds": 1.0,
            "backup": {
                "stored": {"files": {
                    "root": tree, "files": files, "directories": 1, "others": 0, "bytes": files * 10, "newBytes": 1,
                    "unchangedFiles": 0, "changedWhileRead": none, "vanished": none, "skipped": none,
                    "missed": {"count": missed, "first": []}, "parentLost": null,
                }},
                "packs": {"count": 0, "bytes": 0, "listed": []},
                "sessions": [],
            },
        });
        if let Some(failure) = failure {
            outcome["failure"] = failure;
        }
        outcome.to_string()
    }

    fn failed(retryable: bool) -> MoverState {
        let failure = serde_json::json!({"error": "full", "kind": "noSpace", "retryable": retryable});
        let message = serde_json::json!({"ok": false, "seconds": 1.0, "failure": failure}).to_string();
        MoverState::Failed { reason: "full".into(), message: Some(message) }
    }

    fn volume(stage: VolumeStage, attempts: u32) -> VolumeBackup {
        VolumeBackup { namespace: "shop".into(), claim: "data".into(), stage, attempts, ..VolumeBackup::default() }
    }

    fn seen(mover: Option<MoverState>) -> Seen {
        Seen { mover, claim: ClaimState::Present, ..Seen::default() }
    }

    fn step(volume: &VolumeBackup, seen: &Seen, slot: bool) -> Step {
        next(volume, seen, slot, at(1000), &Limits::default())
    }

    #[test]
    fn a_volume_that_waits_starts_when_there_is_a_slot_and_a_claim() {
        let pending = volume(VolumeStage::Pending, 0);
        assert_eq!(step(&pending, &seen(None), true), Step::Start { attempt: 1 });
        assert_eq!(step(&pending, &seen(None), false), Step::Keep);
        let unknown = Seen { claim: ClaimState::Unknown, ..seen(None) };
        assert_eq!(step(&pending, &unknown, true), Step::Keep);
        let gone = Seen { claim: ClaimState::Gone, ..seen(None) };
        assert!(matches!(step(&pending, &gone, true), Step::Miss { reason, .. } if reason.contains("deleted")));
    }

    #[test]
    fn a_mover_that_a_dead_operator_started_is_taken_over() {
        let pending = volume(VolumeStage::Pending, 1);
        let running = seen(Some(MoverState::Running));
        let expected = Step::Note { attempt: 2, waits_for: None, so_far: None };
        assert_eq!(step(&pending, &running, true), expected);
        let mut taken = pending;
        advance(&mut taken, Done::Seen(expected), at(5), 100);
        assert_eq!((taken.stage, taken.attempts), (VolumeStage::Moving, 2));
    }

    #[test]
    fn attempts_end_with_the_last_one() {
        let check = |attempts, state: Option<MoverState>, again: bool| {
            let step = step(&volume(VolumeStage::Moving, attempts), &seen(state.clone()), true);
            assert_eq!(matches!(step, Step::Again { .. }), again, "attempt {attempts}, {state:?}: {step:?}");
            assert_eq!(matches!(step, Step::Miss { .. }), !again, "attempt {attempts}, {state:?}: {step:?}");
        };
        check(1, None, true);
        check(2, None, true);
        check(3, None, false);
        check(1, Some(failed(true)), true);
        check(3, Some(failed(true)), false);
        check(1, Some(failed(false)), false);
        check(1, Some(MoverState::Failed { reason: "Evicted".into(), message: None }), true);
        check(1, Some(MoverState::NeverStarted { why: "no node".into() }), false);
        check(1, Some(MoverState::Succeeded { message: "not an outcome".into() }), true);
    }

    #[test]
    fn what_a_mover_stored_is_judged() {
        let parent = |held| Some(Parent { point: "p1".parse().expect(ROOT), held, older: Vec::new() });
        let check = |files, missed, before: Option<u64>, expected: &str| {
            let mut seen = seen(Some(MoverState::Succeeded { message: message(files, missed) }));
            seen.parent = before.and_then(parent);
            let step = step(&volume(VolumeStage::Moving, 1), &seen, true);
            match (&step, expected) {
                (Step::Finish(done), "") => assert_eq!(done, &moved(files, missed)),
                (Step::Miss { reason, moved: Some(_) }, said) if !said.is_empty() => {
                    assert!(reason.contains(said), "{reason}");
                }
                _ => panic!("{files} files, {missed} missed, {before:?} before: {step:?}"),
            }
        };
        check(2, 0, None, "");
        check(2, 0, Some(5), "");
        check(0, 0, None, "");
        check(0, 0, Some(0), "");
        check(0, 0, Some(5), "held 5 files in recovery point p1");
        check(2, 1, None, "1 files could not be read");
    }

    #[test]
    fn a_device_that_held_data_must_not_be_all_zeros() {
        let check = |segments: u64, before: Option<u64>, good: bool| {
            let root = repository::TableRef { entries: segments, ..tree() };
            let image = serde_json::json!({"volume": {
                "root": root, "bytes": 4096, "dataBytes": 0, "readBytes": 0, "keptSegments": 0, "compactedSegments": 0,
            }, "newBytes": 1});
            let stored = serde_json::json!({"stored": {"image": image}, "packs": {"count": 0, "bytes": 0, "listed": []}, "sessions": []});
            let message = serde_json::json!({"ok": true, "seconds": 1.0, "backup": stored}).to_string();
            let mut seen = seen(Some(MoverState::Succeeded { message }));
            let older = Vec::new();
            seen.parent = before.map(|held| Parent { point: "p1".parse().expect(ROOT), held, older });
            let mut volume = VolumeBackup { image: true, ..volume(VolumeStage::Moving, 1) };
            let step = step(&volume, &seen, true);
            match &step {
                Step::Finish(_) => assert!(good, "{segments} {before:?}"),
                Step::Miss { reason, .. } => assert!(!good && reason.contains("all zeros now"), "{reason}"),
                other => panic!("{other:?}"),
            }
            advance(&mut volume, Done::Seen(step), at(7), 100);
            assert_eq!((volume.files, volume.changed_while_read, volume.bytes), (None, None, Some(4096)));
        };
        check(0, None, true);
        check(0, Some(0), true);
        check(3, Some(9), true);
        check(0, Some(1), false);
    }

    #[test]
    fn a_refused_mover_is_tried_again_for_as_long_as_one_that_does_not_start() {
        let mut refused = volume(VolumeStage::Pending, 0);
        let quota = Done::Refused { reason: "exceeded quota".into() };
        advance(&mut refused, quota.clone(), at(900), 100);
        advance(&mut refused, quota, at(950), 100);
        assert_eq!(refused.started_at.as_ref().map(|t| t.0), Some(at(900)), "the first refusal counts");
        let limits = Limits { mover_start_deadline: Duration::from_secs(100), ..Limits::default() };
        assert_eq!(next(&refused, &seen(None), true, at(999), &limits), Step::Start { attempt: 1 });
        let step = next(&refused, &seen(None), true, at(1000), &limits);
        assert!(matches!(step, Step::Miss { reason, .. } if reason.contains("exceeded quota")));
    }

    #[test]
    fn the_status_keeps_what_the_recovery_point_needs() {
        let mut done = volume(VolumeStage::Moving, 1);
        advance(&mut done, Done::Seen(Step::Finish(moved(2, 0))), at(7), 100);
        assert_eq!((done.stage, done.files, done.bytes), (VolumeStage::Done, Some(2), Some(20)));
        let kept = Moved::decode(done.result.as_deref().expect("a result is kept")).expect("it reads back");
        assert_eq!(kept, moved(2, 0));
    }

    #[test]
    fn a_failed_attempt_leaves_nothing_of_its_progress() {
        let mut volume = volume(VolumeStage::Moving, 1);
        let so_far = Some(SoFar { files: 7, bytes: 70 });
        advance(&mut volume, Done::Seen(Step::Note { attempt: 1, waits_for: None, so_far }), at(1), 100);
        assert_eq!(volume.bytes, Some(70));
        advance(&mut volume, Done::Seen(Step::Again { reason: "evicted".into() }), at(2), 100);
        assert_eq!((volume.stage, volume.attempts, volume.bytes), (VolumeStage::Pending, 1, None));
        assert_eq!(volume.reason.as_deref(), Some("attempt 1: evicted"));
    }
}
