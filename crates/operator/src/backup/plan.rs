//! What a backup does next. Pure: everything it depends on was gathered, everything it decides is data.

use api::{BackupStage, VolumeBackup, VolumeStage};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use repository::RecoveryPoint;
use std::sync::Arc;

use super::deletion;
use super::gather::{ClaimFacts, Facts, Gathered, Preparing, Storing, Volumes, mover_name};
use super::store::Draft;
use super::validate::{validate, was_changed};
use super::volume::{self, ClaimState, Seen, Step, is_final};
use crate::conditions::{BLOCKED, yes_since};
use crate::config::Limits;
use crate::mover_pod::MoverState;
use crate::repositories::{LocationProblem, Opened};

/// The rule by which a claim without a volume is left out.
pub(super) const RULE_NO_VOLUME: &str = "claim-has-no-volume";

/// The next step of a run.
pub(super) enum Plan {
    /// Nothing more happens.
    Rest,
    /// The run is being deleted.
    Leave(deletion::Plan),
    /// Make sure that it is not deleted behind our back, then go to a stage.
    Begin,
    /// Go to a stage.
    Enter(BackupStage),
    /// Something outside of the run is waited for.
    Block(Reason),
    /// The run ends without a recovery point.
    Fail(Reason),
    /// These are the volumes.
    List(Vec<VolumeBackup>),
    /// Do these steps.
    Move(Moves),
    /// Store the objects and the ledger.
    Store(Opened),
    /// Publish what is stored.
    Publish(Opened, Arc<Draft>),
    /// It is published: write down what it is.
    Adopt(Opened, Box<RecoveryPoint>),
}

/// A word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// One word in CamelCase.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Reason {
    pub(super) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

impl From<&LocationProblem> for Reason {
    fn from(problem: &LocationProblem) -> Self {
        Self::new(problem.reason(), problem.to_string())
    }
}

/// Steps of volumes.
pub(super) struct Moves {
    /// Per volume, by its index.
    pub steps: Vec<(usize, Step)>,
    /// Mover pods that are of no use any more.
    pub stale: Vec<Pod>,
    /// What movers are started with, and their parents; there if one is to be started.
    pub start_with: Option<Opened>,
    /// Why none can be started.
    pub blocked: Option<Reason>,
}

/// Decides.
pub(super) fn plan(gathered: &Gathered, limits: &Limits) -> Plan {
    match &gathered.facts {
        Facts::Preparing(_) | Facts::Volumes(_) | Facts::Storing(Storing { published: None, .. })
            if was_changed(&gathered.run) =>
        {
            let message = "the spec was changed after the run began; a backup is one run: create another";
            Plan::Fail(Reason::new("SpecChanged", message))
        }
        Facts::Leaving(leaving) => Plan::Leave(deletion::plan(leaving)),
        Facts::Preparing(facts) => prepare(gathered, facts, limits),
        Facts::Volumes(facts) => volumes(gathered, facts, limits),
        Facts::Storing(facts) => storing(gathered, facts, limits),
        Facts::None if gathered.stage() == BackupStage::Done => Plan::Rest,
        Facts::None => match validate(&gathered.run) {
            Ok(()) => Plan::Begin,
            Err(message) => Plan::Fail(Reason::new("InvalidSpec", message)),
        },
    }
}

/// Waits for what may pass, as long as patience lasts; fails at once for what will not.
fn block_or_fail(gathered: &Gathered, problem: &LocationProblem, limits: &Limits) -> Plan {
    if !problem.may_pass() {
        return Plan::Fail(problem.into());
    }
    match patience_is_over(gathered, limits) {
        Some(over) => Plan::Fail(Reason::new(problem.reason(), format!("{problem}; {over}"))),
        None => Plan::Block(problem.into()),
    }
}

/// Whether the run has been blocked for too long, in words.
pub(super) fn patience_is_over(gathered: &Gathered, limits: &Limits) -> Option<String> {
    let since = yes_since(&gathered.run.status.as_ref()?.conditions, BLOCKED)?;
    let waited = gathered.now.duration_since(since);
    let over = !waited.is_negative() && waited.unsigned_abs() >= limits.location_patience;
    over.then(|| format!("it was waited for since {since}; create the backup again when it is mended"))
}

fn prepare(gathered: &Gathered, facts: &Preparing, limits: &Limits) -> Plan {
    if let Some((name, why)) = facts.lost_namespaces.first() {
        let message = format!("the namespace {name} {why}; name namespaces that exist in spec.namespaces");
        return Plan::Fail(Reason::new("NamespaceNotFound", message));
    }
    if let Err(problem) = &facts.location {
        return block_or_fail(gathered, problem, limits);
    }
    match &facts.claims {
        Err(error) => Plan::Fail(Reason::new("InvalidSpec", error.to_string())),
        Ok(claims) => Plan::List(claims.iter().map(listed).collect()),
    }
}

fn listed(claim: &ClaimFacts) -> VolumeBackup {
    let (stage, reason) = if claim.deleting {
        (VolumeStage::Missed, Some("the claim is being deleted"))
    } else if claim.lost {
        (
            VolumeStage::Missed,
            Some("the claim's volume is gone (phase Lost); if its data is not needed, delete the claim"),
        )
    } else if !claim.bound {
        (VolumeStage::Skipped, Some(RULE_NO_VOLUME))
    } else if claim.block {
        let why =
            "the volume is a block device (volumeMode Block), which cannot be read as files; back it up by other means";
        (VolumeStage::Missed, Some(why))
    } else {
        (VolumeStage::Pending, None)
    };
    VolumeBackup {
        namespace: claim.namespace.clone(),
        claim: claim.name.clone(),
        stage,
        reason: reason.map(Into::into),
        ..VolumeBackup::default()
    }
}

fn volumes(gathered: &Gathered, facts: &Volumes, limits: &Limits) -> Plan {
    let volumes = gathered.volumes();
    if volumes.iter().all(is_final) && facts.movers.is_empty() {
        return Plan::Enter(BackupStage::Resources);
    }
    let problem = facts.location.as_ref().and_then(|l| l.as_ref().err());
    let mut slots = limits.movers_at_once.saturating_sub(facts.states.len());
    let mut steps = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let seen = seen(gathered, facts, index, volume);
        // Nobody can judge an empty volume without its parent, so an outcome waits for the repository.
        let ended = matches!(seen.mover, Some(MoverState::Succeeded { .. } | MoverState::Failed { .. }));
        if problem.is_some() && ended {
            continue;
        }
        let step = volume::next(volume, &seen, slots > 0 && problem.is_none(), gathered.now, limits);
        if matches!(step, Step::Start { .. }) {
            slots = slots.saturating_sub(1);
        }
        steps.push((index, step));
    }
    let blocked = match problem.map(|problem| block_or_fail(gathered, problem, limits)) {
        Some(Plan::Block(reason)) => Some(reason),
        Some(fail) => return fail,
        None => None,
    };
    let start_with = facts.location.as_ref().and_then(|l| l.as_ref().ok()).cloned();
    Plan::Move(Moves { steps, stale: stale(gathered, facts), start_with, blocked })
}

fn seen(gathered: &Gathered, facts: &Volumes, index: usize, volume: &VolumeBackup) -> Seen {
    let Some(name) = mover_name(&gathered.uid, index, volume) else { return Seen::default() };
    let key = (volume.namespace.clone(), name);
    Seen {
        mover: facts.states.get(&key).cloned(),
        claim: facts.claims.get(&index).copied().unwrap_or(ClaimState::Unknown),
        parent: facts.parents.get(&format!("{}/{}", volume.namespace, volume.claim)).cloned(),
        so_far: facts.so_far.get(&key).copied(),
    }
}

/// Movers of attempts that do not count any more: what they left is in the status by now.
fn stale(gathered: &Gathered, facts: &Volumes) -> Vec<Pod> {
    let counts = |pod: &&Pod| {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let mut volumes = gathered.volumes().iter().enumerate();
        !volumes.any(|(i, v)| v.namespace == namespace && mover_name(&gathered.uid, i, v).as_ref() == Some(&name))
    };
    facts.movers.iter().filter(counts).cloned().collect()
}

fn storing(gathered: &Gathered, facts: &Storing, limits: &Limits) -> Plan {
    let opened = match &facts.location {
        Ok(opened) => opened.clone(),
        Err(problem) => return block_or_fail(gathered, problem, limits),
    };
    if let Some(point) = &facts.published {
        return Plan::Adopt(opened, Box::new(point.clone()));
    }
    match (gathered.stage(), &facts.draft) {
        (BackupStage::Publishing, Some(draft)) => Plan::Publish(opened, draft.clone()),
        _ => Plan::Store(opened),
    }
}
