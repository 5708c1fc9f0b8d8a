//! One volume of a backup: what to do next, and what its status says after it was done. Pure.

use api::{VolumeBackup, VolumeStage};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

use super::outcome::{self, Moved, Reported};
use super::parents::Parent;
use crate::conditions::shorten;
use crate::config::Limits;
use crate::mover_pod::{MoverState, SoFar};

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
}

/// The next step of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
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
            let reason = "the claim was deleted before its data was read".to_owned();
            Step::Miss { reason, moved: None }
        }
        (None, _) => match refused_too_long(volume, now, limits.mover_start_deadline) {
            Some(reason) => Step::Miss { reason, moved: None },
            None if slot && seen.claim == ClaimState::Present => Step::Start { attempt },
            None => Step::Keep,
        },
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

fn again_or_miss(attempt: u32, reason: String, limits: &Limits) -> Step {
    if attempt < limits.mover_attempts {
        return Step::Again { reason };
    }
    Step::Miss { reason: format!("{reason} (attempt {attempt} of {})", limits.mover_attempts), moved: None }
}

/// A mover that ended well may still have found too little.
fn judge(volume: &VolumeBackup, moved: Moved, parent: Option<&Parent>) -> Step {
    if let Some(parent) = parent.filter(|p| p.files > 0 && moved.files == 0) {
        let reason = format!(
            "the volume held {} files in recovery point {}, and holds none now; if that is meant, delete the claim {}/{} from the \
             application, or accept this point as incomplete",
            parent.files, parent.point, volume.namespace, volume.claim
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
pub(super) enum Done {
    /// Nothing had to be done in the cluster; the step itself is what happened.
    Seen(Step),
    /// A mover was started.
    Started {
        /// Which.
        attempt: u32,
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
        Done::Started { attempt } => moving(volume, attempt, now),
        Done::Refused { reason } => {
            volume.started_at.get_or_insert(Time(now));
            volume.reason = short(format!("{REFUSED}: {reason}"));
        }
        Done::Seen(Step::Note { attempt, waits_for, so_far }) => {
            moving(volume, attempt, now);
            volume.reason = waits_for.and_then(short);
            if let Some(SoFar { files, bytes }) = so_far {
                (volume.files, volume.bytes) = (Some(files), Some(bytes));
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
    volume.files = Some(moved.files);
    volume.bytes = Some(moved.bytes);
    volume.stored_bytes = Some(moved.stored_bytes());
    volume.changed_while_read = Some(moved.changed_while_read);
    volume.result = Some(moved.encode());
}
