//! The next step for one volume: a pure function of what is seen.
//!
//! The hand-over, in its order. A crash after any step is followed by the next one, since each leaves something that tells it from the
//! one before; what would be lost is said with each.
//!
//! 1. The temporary claim is made, and a mover fills it. Nobody else can have it: its name is ours. *Crash: the mover goes on by itself.*
//! 2. `filled` is noted on the temporary claim, only after the mover said that it compared everything. From here on the claim's volume
//!    is known to be whole. *Crash before: the mover's outcome is read again, or the mover is gone and another is started.*
//! 3. The movers are removed, so that nothing has the volume mounted.
//! 4. The volume's reclaim policy becomes `Retain`, the one it had stands in an annotation. From here on no lost claim takes the data
//!    with it.
//! 5. A claim that is to be replaced is deleted: not before, so that it outlives a fill that fails.
//! 6. The claim that is wanted is made, bound to the volume by name. It stays pending, nothing can mount it.
//! 7. The volume is promised to it, by uid; the control plane binds the two. *Crash: 6 is found done by the mark on the claim.*
//! 8. When they are bound, the volume gets its reclaim policy back.
//! 9. The temporary claim, which the control plane now calls lost, is deleted. It goes last: it is what a new operator finds first.

use api::ReplacePolicy;

use super::view::{Disk, Filled, Filling, MoverState, Target, Terms, View};

/// Name of the rule by which a volume is left alone because its claim exists.
pub(crate) const CLAIM_EXISTS: &str = "claim-exists";

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
    /// Keep the volume whatever happens to its claims, noting the reclaim policy it has.
    Hold { disk: String, policy: String, made_for_us: bool },
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
    /// The volume is left alone by a rule.
    Skip(&'static str),
    /// The volume will not come; why. What is left of the try is removed afterwards.
    Miss(String),
}

/// The next step towards a claim that is filled.
pub(crate) fn next(view: &View, terms: &Terms) -> Step {
    if let Some(step) = view.stray.as_ref().and_then(give_up) {
        return step;
    }
    match &view.target {
        Some(target) if target.ours => finish(view, target, terms),
        Some(target) if terms.policy != ReplacePolicy::Delete && target.deleted.is_none() => Step::Skip(CLAIM_EXISTS),
        Some(target) if target.deleted.is_none() && !target.users.is_empty() => Step::Miss(format!(
            "the claim exists and is to be replaced, but pods use it: {}; end them and create another restore",
            target.users.join(", ")
        )),
        _ => fill(view, terms),
    }
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
        MoverState::Ending { .. } => remove_movers(view),
        MoverState::Done(filled) => Step::NoteFilled(*filled),
        MoverState::Failed { reason, retryable: false, .. } => Step::Miss(reason.clone()),
        MoverState::Failed { reason, .. } if mover.attempt.max(terms.attempts) >= terms.max_attempts => {
            Step::Miss(format!("{reason} (the last of {} tries)", terms.max_attempts))
        }
        MoverState::Failed { tainted: true, .. } => drop_filling(view, filling),
        MoverState::Failed { .. } => Step::RemoveMovers,
    }
}

/// Steps 3 to 6: the volume is filled.
fn hand_over(view: &View, terms: &Terms) -> Step {
    if view.mover.is_some() {
        return remove_movers(view);
    }
    let Some(disk) = &view.disk else {
        return Step::Miss("the volume that was filled went away before it was handed over".into());
    };
    if let Some(step) = hold(disk) {
        return step;
    }
    match &view.target {
        None => Step::MakeTarget { disk: disk.name.clone() },
        Some(Target { deleted: Some(since), .. }) if passed(*since, terms.claim_deadline, terms) => {
            Step::Miss(format!(
                "the claim that is to be replaced did not go in {} s after it was deleted; see what holds it",
                terms.claim_deadline.as_secs()
            ))
        }
        Some(Target { deleted: Some(_), .. }) => Step::Wait("waits for the claim that it replaces to go".into()),
        Some(target) => Step::RemoveTarget { uid: target.uid.clone() },
    }
}

/// Steps 7 to 9: the claim that is wanted is there, and ours.
fn finish(view: &View, target: &Target, terms: &Terms) -> Step {
    if target.deleted.is_some() {
        return Step::Miss("the restored claim was deleted by somebody else".into());
    }
    let Some(disk) = &view.disk else {
        return Step::Miss("the volume that was filled went away while it was handed over".into());
    };
    let promised = disk.promised.as_deref() == Some(&target.uid);
    if promised && target.bound {
        return match (&disk.original, &view.filling) {
            (Some(policy), _) => Step::Release { disk: disk.name.clone(), policy: policy.clone() },
            (None, Some(Filling { deleted: None, uid, .. })) => Step::RemoveFilling { uid: uid.clone() },
            (None, Some(_)) => Step::Wait("waits for its temporary claim to go".into()),
            (None, None) => Step::Done,
        };
    }
    if passed(target.created, terms.claim_deadline, terms) {
        return Step::Miss(format!(
            "the claim was not bound to the filled volume in {} s; see that the controller manager of the cluster runs",
            terms.claim_deadline.as_secs()
        ));
    }
    if promised {
        return Step::Wait("waits for the claim to be bound to the filled volume".into());
    }
    hold(disk).unwrap_or_else(|| Step::Promise { disk: disk.name.clone(), claim_uid: target.uid.clone() })
}

/// The next step towards nothing temporary being left of a volume that is skipped, missed, or of a run that is deleted. None when
/// that is so. A claim that is bound to its filled volume stays: it is whole.
pub(crate) fn discard(view: &View) -> Option<Step> {
    if let Some(step) = view.stray.as_ref().and_then(give_up) {
        return Some(step);
    }
    if view.mover.is_some() {
        return Some(remove_movers(view));
    }
    if let Some(target) = view.target.as_ref().filter(|t| t.ours) {
        let whole = target.bound && view.disk.as_ref().is_some_and(|d| d.promised.as_deref() == Some(&target.uid));
        if !whole {
            return Some(match target.deleted {
                None => Step::RemoveTarget { uid: target.uid.clone() },
                Some(_) => Step::Wait("waits for the claim that was not handed over to go".into()),
            });
        }
        if let Some(Disk { name, original: Some(policy), .. }) = &view.disk {
            return Some(Step::Release { disk: name.clone(), policy: policy.clone() });
        }
        return view.filling.as_ref().map(remove_filling);
    }
    view.filling.as_ref().map(|filling| drop_filling(view, filling))
}

/// Deletes the temporary claim, and its volume if that was made for it.
fn drop_filling(view: &View, filling: &Filling) -> Step {
    let given_up = view.disk.as_ref().filter(|_| filling.deleted.is_none()).and_then(give_up);
    given_up.unwrap_or_else(|| remove_filling(filling))
}

/// Lets a volume go with its claim if it was made for us. One that was there before is left with its content, whatever its reclaim
/// policy was: the content may be somebody's.
fn give_up(disk: &Disk) -> Option<Step> {
    let policy = if disk.made_for_us { "Delete" } else { "Retain" };
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
    match view.mover.as_ref().map(|m| &m.state) {
        Some(MoverState::Ending { overdue: false }) => Step::Wait("waits for a mover pod to go".into()),
        _ => Step::RemoveMovers,
    }
}

fn hold(disk: &Disk) -> Option<Step> {
    if disk.policy == "Retain" && disk.original.is_some() {
        return None;
    }
    let policy = disk.original.clone().unwrap_or_else(|| disk.policy.clone());
    Some(Step::Hold { disk: disk.name.clone(), policy, made_for_us: disk.made_for_us })
}

fn given_up(terms: &Terms) -> String {
    format!("the mover pod disappeared (the last of {} tries)", terms.max_attempts)
}

fn passed(since: jiff::Timestamp, deadline: std::time::Duration, terms: &Terms) -> bool {
    terms.now.duration_since(since).unsigned_abs() > deadline && terms.now > since
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod step_tests;
