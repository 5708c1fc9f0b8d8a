//! The next step for one volume: a pure function of what is seen.
//!
//! The hand-over, in its order. A crash after any step is followed by the next one, since each leaves something that tells it from the
//! one before; what would be lost is said with each.
//!
//! 1. The temporary claim is made, and a mover fills it. Nobody else can have it: its name is ours. *Crash: the mover goes on by itself.*
//! 2. `filled` is noted on the temporary claim, only after the mover said that it compared everything. From here on the claim's volume
//!    is known to be whole. *Crash before: the mover's outcome is read again, or the mover is gone and another is started.*
//! 3. The movers are removed, so that nothing has the volume mounted.
//! 4. The volume's reclaim policy becomes `Retain`, the one it had stands in an annotation, and so does the claim that it replaces. From
//!    here on no lost claim takes the data with it.
//! 5. A claim that is to be replaced is deleted: not before, so that it outlives a fill that fails. From here on the filled volume may be
//!    the only copy: whatever happens, it is kept.
//! 6. The claim that is wanted is made, bound to the volume by name. It stays pending, nothing can mount it.
//! 7. The volume is promised to it, by uid; the control plane binds the two. *Crash: 6 is found done by the mark on the claim.*
//! 8. When they are bound, the volume gets its reclaim policy back.
//! 9. The temporary claim, which the control plane now calls lost, is deleted. It goes last: it is what a new operator finds first.

use std::time::Duration;

use api::ReplacePolicy;

use super::view::{Disk, Filled, Filling, MoverState, Target, Terms, View};

/// One step. Each can be done again, and does nothing then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing can be done until the cluster moves; why.
    Wait(String),
    /// Make the temporary claim.
    MakeFilling,
    /// Start a mover.
    StartMover { attempt: u32 },
    /// Delete all movers of the volume, with their secrets.
    RemoveMovers,
    /// Note on the temporary claim that its volume is filled.
    NoteFilled(Filled),
    /// Keep the volume whatever happens to its claims, noting the reclaim policy it has and the claim that will be deleted for it.
    Hold { disk: String, policy: String, made_for_us: bool, replaces: Option<String> },
    /// Delete the claim that exists.
    RemoveTarget { uid: String },
    /// Make the claim that is wanted.
    MakeTarget { disk: String },
    /// Promise the volume to the claim that is wanted.
    Promise { disk: String, claim_uid: String },
    /// Set the volume's reclaim policy, and forget the noted one.
    Release { disk: String, policy: String },
    /// Delete the temporary claim.
    RemoveFilling { uid: String },
    /// The volume is handed over, and nothing temporary is left.
    Done,
    /// The volume will not come; why. What is left of the try is removed afterwards.
    Miss(String),
}

impl Step {
    /// Whether it makes something.
    pub(crate) fn makes(&self) -> bool {
        matches!(self, Self::MakeFilling | Self::StartMover { .. } | Self::MakeTarget { .. })
    }
}

/// The next step towards a claim that is filled.
pub(crate) fn next(view: &View, terms: &Terms) -> Step {
    if let Some(step) = view.stray.as_ref().and_then(|disk| give_up(view, disk)) {
        return step;
    }
    match &view.target {
        Some(target) if target.ours => finish(view, target, terms),
        // What was there before the run is skipped when it begins, and never comes here.
        Some(target) if terms.policy != ReplacePolicy::Delete && target.deleted.is_none() => miss(
            view,
            "somebody made the claim while the restore ran, so it does not have the data of the recovery point; end what made it, \
             delete it, and create another restore",
        ),
        Some(target) if target.deleted.is_none() && !target.users.is_empty() => miss(
            view,
            format!(
                "the claim exists and is to be replaced, but pods use it: {}; end them and create another restore",
                target.users.join(", ")
            ),
        ),
        _ => fill(view, terms),
    }
}

/// Gives the volume up; if the claim that it replaces is gone, the reason says where the data is.
pub(crate) fn miss(view: &View, reason: impl Into<String>) -> Step {
    Step::Miss(naming_what_is_kept(view, reason.into()))
}

/// A reason for giving the volume up, with what a person needs to know of the copy that is kept.
pub(crate) fn naming_what_is_kept(view: &View, reason: String) -> String {
    match only_copy(view) {
        Some(disk) => format!(
            "{reason}; the claim that it replaces is gone, so the filled volume {} is kept, with the reclaim policy Retain: make a claim \
             for it by hand, or restore again and delete it",
            disk.name
        ),
        None => reason,
    }
}

/// The filled volume, when the claim that it replaces is deleted or about to be.
fn only_copy(view: &View) -> Option<&Disk> {
    [&view.disk, &view.stray].into_iter().flatten().find(|disk| is_only_copy(view, disk))
}

fn is_only_copy(view: &View, disk: &Disk) -> bool {
    let lives = |uid: &String| view.target.as_ref().is_some_and(|t| t.uid == *uid && t.deleted.is_none());
    disk.replaces.as_ref().is_some_and(|uid| !lives(uid))
}

/// Whether it is the control plane's turn: to bind the claim to the volume that is promised to it, or to let a deleted claim go.
pub(crate) fn is_control_planes_turn(view: &View) -> bool {
    let goes = view.mover.is_none() && view.filling.as_ref().is_some_and(|filling| filling.deleted.is_some());
    goes || match &view.target {
        Some(target) if target.ours => target.deleted.is_none() && !target.bound && is_promised(view, target),
        Some(target) => target.deleted.is_some() && view.filling.as_ref().is_some_and(|f| f.filled.is_some()),
        None => false,
    }
}

fn is_promised(view: &View, target: &Target) -> bool {
    view.disk.as_ref().is_some_and(|disk| disk.promised.as_deref() == Some(&target.uid))
}

/// Steps 1 to 6.
fn fill(view: &View, terms: &Terms) -> Step {
    let Some(filling) = &view.filling else {
        return match &view.mover {
            Some(_) => remove_movers(view),
            None if terms.attempts >= terms.max_attempts => Step::Miss(given_up(terms)),
            None => Step::MakeFilling,
        };
    };
    if filling.deleted.is_some() {
        return match &view.mover {
            Some(_) => remove_movers(view),
            None if view.waited > terms.claim_deadline => {
                let seconds = terms.claim_deadline.as_secs();
                miss(
                    view,
                    format!("its temporary claim did not go in {seconds} s after it was deleted; see what holds it"),
                )
            }
            None => Step::Wait("waits for its temporary claim to go".into()),
        };
    }
    if filling.filled.is_some() { hand_over(view, terms) } else { move_data(view, filling, terms) }
}

/// Steps 1 to 2, with a temporary claim.
fn move_data(view: &View, filling: &Filling, terms: &Terms) -> Step {
    let Some(mover) = &view.mover else {
        if terms.attempts >= terms.max_attempts {
            return Step::Miss(given_up(terms));
        }
        return Step::StartMover { attempt: terms.attempts + 1 };
    };
    match &mover.state {
        MoverState::NeverStarted { why } => Step::Miss(format!(
            "the mover pod did not start in time: {why}; see that a node can run it and mount the volume"
        )),
        MoverState::Waiting { why } => Step::Wait(format!("the mover pod waits: {why}")),
        MoverState::Running => Step::Wait("is being filled".into()),
        // Nobody knows whether it has stopped, so nobody else may write to this volume.
        MoverState::Ending { overdue: true } => drop_filling(view, filling),
        MoverState::Ending { overdue: false } => remove_movers(view),
        MoverState::Done(filled) => Step::NoteFilled(*filled),
        MoverState::Failed { reason, retryable: false, .. } => Step::Miss(reason.clone()),
        MoverState::Failed { reason, .. } if mover.attempt.max(terms.attempts) >= terms.max_attempts => {
            Step::Miss(format!("{reason} (the last of {} tries)", terms.max_attempts))
        }
        MoverState::Failed { tainted: true, .. } => drop_filling(view, filling),
        MoverState::Failed { .. } => remove_movers(view),
    }
}

/// Steps 3 to 6: the volume is filled.
fn hand_over(view: &View, terms: &Terms) -> Step {
    if view.mover.is_some() {
        return remove_movers(view);
    }
    let Some(disk) = &view.disk else {
        return miss(view, "the volume that was filled went away before it was handed over");
    };
    let replaces = view.target.as_ref().filter(|t| t.deleted.is_none()).map(|t| t.uid.clone());
    if let Some(step) = hold(disk, replaces) {
        return step;
    }
    match &view.target {
        None => Step::MakeTarget { disk: disk.name.clone() },
        Some(Target { deleted: Some(_), .. }) if view.waited > terms.claim_deadline => {
            let seconds = terms.claim_deadline.as_secs();
            miss(
                view,
                format!(
                    "the claim that is to be replaced did not go in {seconds} s after it was deleted; see what holds it"
                ),
            )
        }
        Some(Target { deleted: Some(_), .. }) => Step::Wait("waits for the claim that it replaces to go".into()),
        Some(target) => Step::RemoveTarget { uid: target.uid.clone() },
    }
}

/// Steps 7 to 9: the claim that is wanted is there, and ours.
fn finish(view: &View, target: &Target, terms: &Terms) -> Step {
    if target.deleted.is_some() {
        return miss(view, "the restored claim was deleted by somebody else");
    }
    let Some(disk) = &view.disk else {
        return miss(view, "the volume that was filled went away while it was handed over");
    };
    if !is_promised(view, target) {
        return hold(disk, None)
            .unwrap_or_else(|| Step::Promise { disk: disk.name.clone(), claim_uid: target.uid.clone() });
    }
    if target.bound {
        return match (&disk.original, &view.filling) {
            (Some(policy), _) => Step::Release { disk: disk.name.clone(), policy: policy.clone() },
            (None, Some(Filling { deleted: None, uid, .. })) => Step::RemoveFilling { uid: uid.clone() },
            // Nothing depends on it any more.
            (None, Some(_)) if view.waited > terms.claim_deadline => Step::Done,
            (None, Some(_)) => Step::Wait("waits for its temporary claim to go".into()),
            (None, None) => Step::Done,
        };
    }
    if view.waited > terms.claim_deadline {
        let seconds = terms.claim_deadline.as_secs();
        let what = format!(
            "the claim was not bound to the filled volume in {seconds} s; see that the controller manager of the cluster runs"
        );
        return miss(view, what);
    }
    Step::Wait("waits for the claim to be bound to the filled volume".into())
}

/// The next step towards nothing temporary being left of a volume that is skipped, missed, or of a run that is deleted. None when
/// that is so, or when somebody has held what is left for too long. A claim that is bound to its filled volume stays: it is whole.
pub(crate) fn discard(view: &View, claim_deadline: Duration) -> Option<Step> {
    if let Some(step) = view.stray.as_ref().and_then(|disk| give_up(view, disk)) {
        return Some(step);
    }
    if view.mover.is_some() {
        return Some(remove_movers(view));
    }
    let filling = view.filling.as_ref().filter(|f| f.deleted.is_none() || view.waited <= claim_deadline);
    if let Some(target) = view.target.as_ref().filter(|t| t.ours) {
        if !(target.bound && is_promised(view, target)) {
            return Some(match target.deleted {
                None => Step::RemoveTarget { uid: target.uid.clone() },
                Some(_) => Step::Wait("waits for the claim that was not handed over to go".into()),
            });
        }
        if let Some(Disk { name, original: Some(policy), .. }) = &view.disk {
            return Some(Step::Release { disk: name.clone(), policy: policy.clone() });
        }
        return filling.map(remove_filling);
    }
    filling.map(|filling| drop_filling(view, filling))
}

/// Deletes the temporary claim, and its volume if that was made for it. The only copy is not given up while a claim names it: what is
/// noted on it, which says that it is the only one, goes last.
fn drop_filling(view: &View, filling: &Filling) -> Step {
    let goes = |disk: &&Disk| filling.deleted.is_none() && !is_only_copy(view, disk);
    let given_up = view.disk.as_ref().filter(goes).and_then(|disk| give_up(view, disk));
    given_up.unwrap_or_else(|| remove_filling(filling))
}

/// Lets a volume go with its claim if it was made for us. One that was there before is left with its content, whatever its reclaim
/// policy was: the content may be somebody's. The only copy is kept, too.
fn give_up(view: &View, disk: &Disk) -> Option<Step> {
    let goes = disk.made_for_us && !is_only_copy(view, disk);
    let policy = if goes { "Delete" } else { "Retain" };
    let undone = disk.policy == policy && disk.original.is_none();
    (!undone).then(|| Step::Release { disk: disk.name.clone(), policy: policy.into() })
}

fn remove_filling(filling: &Filling) -> Step {
    match filling.deleted {
        None => Step::RemoveFilling { uid: filling.uid.clone() },
        Some(_) => Step::Wait("waits for its temporary claim to go".into()),
    }
}

fn remove_movers(view: &View) -> Step {
    match &view.mover {
        Some(mover) if mover.goes => Step::Wait("waits for a mover pod to go".into()),
        _ => Step::RemoveMovers,
    }
}

/// Holds a volume, unless that is done; `replaces` is the claim that is about to be deleted for it.
fn hold(disk: &Disk, replaces: Option<String>) -> Option<Step> {
    let noted = replaces.is_none() || replaces == disk.replaces;
    if disk.policy == "Retain" && disk.original.is_some() && noted {
        return None;
    }
    Some(Step::Hold {
        disk: disk.name.clone(),
        policy: disk.original.clone().unwrap_or_else(|| disk.policy.clone()),
        made_for_us: disk.made_for_us,
        replaces: replaces.or_else(|| disk.replaces.clone()),
    })
}

fn given_up(terms: &Terms) -> String {
    format!("the mover pod disappeared (the last of {} tries)", terms.max_attempts)
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod step_tests;
