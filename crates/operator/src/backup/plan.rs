//! What a backup does next. Pure: everything it depends on was gathered, everything it decides is data.

use api::{BackupStage, Failure, HookTime, VolumeAction, VolumeBackup, VolumePolicy, VolumeStage};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use repository::RecoveryPoint;
use std::sync::Arc;

use super::consistency::is_cut;
use super::deletion;
use super::gather::{Facts, Gathered, Preparing, Storing, Volumes, mover_name};
use super::parents;
use super::store::Draft;
use super::validate::{INVALID_SPEC, validate, was_changed};
use super::volume::{self, ClaimState, Seen, Step, form, is_final};
use crate::claims::ClaimFacts;
use crate::conditions::{BLOCKED, yes_since};
use crate::config::Limits;
use crate::mover_pod::MoverState;
use crate::repositories::{LocationProblem, Opened};
use crate::rules::{self, Next, RuleFacts, Wanted};
use crate::snapshots;

/// The rule by which a claim without a volume is left out.
pub(super) const RULE_NO_VOLUME: &str = "claim-has-no-volume";

/// The rule by which a volume is left out that a policy of the run skips.
pub(super) const RULE_POLICY: &str = "volume-policy-skips-it";

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
    /// The run is to end without a recovery point: end its movers, then let go what it holds in the application.
    GiveUp(Failure),
    /// These are the volumes.
    List(Vec<VolumeBackup>),
    /// Find the pods for an item of a rule.
    Match(Wanted, usize),
    /// Do these steps for commands of rules, by their index.
    Command(Vec<(usize, rules::Step)>),
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

impl From<Reason> for Failure {
    fn from(Reason { reason, message }: Reason) -> Self {
        Self { reason, message }
    }
}

impl From<Failure> for Reason {
    fn from(Failure { reason, message }: Failure) -> Self {
        Self { reason, message }
    }
}

impl From<&LocationProblem> for Reason {
    fn from(problem: &LocationProblem) -> Self {
        Self::new(problem.reason(), problem.to_string())
    }
}

/// Steps of volumes.
pub(super) struct Moves {
    /// For commands that hold something meanwhile, by their index.
    pub held: Vec<(usize, rules::Step)>,
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
    match decide(gathered, limits) {
        // What was begun in the application has an end there, however the run ends.
        Plan::Fail(reason) if gathered.may_hold() && gathered.stage() != BackupStage::PostExecRule => {
            Plan::GiveUp(reason.into())
        }
        plan => plan,
    }
}

fn decide(gathered: &Gathered, limits: &Limits) -> Plan {
    match &gathered.facts {
        Facts::Barred(failure) => barred(gathered, failure),
        Facts::Rule(facts) if gathered.stage() == BackupStage::PostExecRule => after(gathered, facts, limits),
        Facts::Rule(_) | Facts::Volumes(_) if gathered.is_leaving() => {
            Plan::Fail(Reason::new("Deleted", "the run was deleted before it was done"))
        }
        Facts::Preparing(_) | Facts::Rule(_) | Facts::Volumes(_) | Facts::Storing(Storing { published: None, .. })
            if was_changed(&gathered.run) =>
        {
            let message = "the spec was changed after the run began; a backup is one run: create another";
            Plan::Fail(Reason::new("SpecChanged", message))
        }
        Facts::Leaving(leaving) => Plan::Leave(deletion::plan(leaving)),
        Facts::Preparing(facts) => prepare(gathered, facts, limits),
        Facts::Rule(facts) => before(gathered, facts, limits),
        Facts::Volumes(facts) => volumes(gathered, facts, limits),
        Facts::Storing(facts) => storing(gathered, facts, limits),
        Facts::None if gathered.stage() == BackupStage::Done => Plan::Rest,
        Facts::None => match validate(&gathered.run) {
            Ok(()) => Plan::Begin,
            Err(message) => Plan::Fail(Reason::new(INVALID_SPEC, message)),
        },
    }
}

/// Ends a run that must not go on, once nothing is left that its commands hold.
fn barred(gathered: &Gathered, failure: &Failure) -> Plan {
    let open = rules::let_go(gathered.hooks());
    if open.is_empty() { Plan::Fail(failure.clone().into()) } else { Plan::Command(open) }
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
    if let Err(failure) = &facts.rules {
        return Plan::Fail(failure.clone().into());
    }
    match &facts.claims {
        Err(error) => Plan::Fail(Reason::new(INVALID_SPEC, error.to_string())),
        Ok(claims) => Plan::List(claims.iter().map(|claim| listed(gathered, facts, claim)).collect()),
    }
}

/// `preExecRule` runs.
fn before(gathered: &Gathered, facts: &RuleFacts, limits: &Limits) -> Plan {
    match facts.next(gathered.hooks(), gathered.now, limits) {
        Next::List { item } => facts.wanted().map_or(Plan::Enter(BackupStage::Volumes), |rule| Plan::Match(rule, item)),
        Next::Steps(steps) => Plan::Command(steps),
        Next::Done => Plan::Enter(BackupStage::Volumes),
        Next::Fail(failure) => Plan::Fail(failure.into()),
    }
}

/// What is held is let go, then `postExecRule` runs.
fn after(gathered: &Gathered, facts: &RuleFacts, limits: &Limits) -> Plan {
    let held = rules::let_go(gathered.hooks());
    let is_of_the_rule = |index: &usize| gathered.hooks().get(*index).is_some_and(|hook| hook.time == HookTime::Post);
    if held.iter().any(|(index, _)| !is_of_the_rule(index)) {
        return Plan::Command(held.into_iter().filter(|(index, _)| !is_of_the_rule(index)).collect());
    }
    let failure = gathered.failure().cloned().or_else(|| rules::failed(gathered.hooks(), HookTime::Pre));
    match facts.next(gathered.hooks(), gathered.now, limits) {
        Next::List { item } if facts.wanted().is_some() => {
            facts.wanted().map_or(Plan::Rest, |rule| Plan::Match(rule, item))
        }
        Next::Steps(steps) => Plan::Command(steps),
        Next::Fail(of_rule) if !held.is_empty() => {
            // Others of the rule still run: they end first.
            if failure.is_some() { Plan::Command(held) } else { Plan::GiveUp(of_rule) }
        }
        Next::Fail(of_rule) => Plan::Fail(failure.unwrap_or(of_rule).into()),
        Next::List { .. } | Next::Done => match failure {
            Some(failure) => Plan::Fail(failure.into()),
            None => Plan::Enter(after_cut(gathered)),
        },
    }
}

/// The stage that follows when the data of all volumes is fixed.
fn after_cut(gathered: &Gathered) -> BackupStage {
    if gathered.volumes().iter().all(is_final) { BackupStage::Resources } else { BackupStage::Volumes }
}

/// What the policies say of a claim; nothing if none matches it.
fn action(gathered: &Gathered, claim: &ClaimFacts) -> Option<VolumeAction> {
    let matches = |policy: &&VolumePolicy| {
        let is_of_class = policy.storage_classes.is_empty() || policy.storage_classes.contains(&claim.storage_class);
        is_of_class && policy.selectors.iter().all(|(key, value)| claim.labels.get(key) == Some(value))
    };
    gathered.run.spec.volume_policies.iter().find(matches).map(|policy| policy.action)
}

/// The class of the snapshot that is to be read instead of a volume.
fn snapshot_class(gathered: &Gathered, facts: &Preparing, claim: &ClaimFacts) -> Result<Option<String>, String> {
    let action = action(gathered, claim);
    if action == Some(VolumeAction::Copy) {
        return Ok(None);
    }
    let named = &gathered.run.spec.csi_snapshot_class_map;
    let class = match &claim.driver {
        Some(driver) => snapshots::choose(&facts.classes, driver, named)?.map(|class| class.name.clone()),
        None => None,
    };
    match (class, action) {
        (None, Some(VolumeAction::Snapshot)) => {
            let driver = claim.driver.as_deref().unwrap_or("none");
            Err(format!(
                "a policy wants a snapshot, and there is no VolumeSnapshotClass to take one with (driver of the volume: {driver})"
            ))
        }
        (class, _) => Ok(class),
    }
}

fn listed(gathered: &Gathered, facts: &Preparing, claim: &ClaimFacts) -> VolumeBackup {
    let mut volume = listed_to_be_copied(claim);
    if volume.stage != VolumeStage::Pending {
        return volume;
    }
    if action(gathered, claim) == Some(VolumeAction::Skip) {
        (volume.stage, volume.reason) = (VolumeStage::Skipped, Some(RULE_POLICY.into()));
        return volume;
    }
    match snapshot_class(gathered, facts, claim) {
        Ok(class) => volume.snapshot_class = class,
        Err(reason) => (volume.stage, volume.reason) = (VolumeStage::Missed, Some(reason)),
    }
    volume
}

fn listed_to_be_copied(claim: &ClaimFacts) -> VolumeBackup {
    let (stage, reason) = if claim.deleting {
        (VolumeStage::Missed, Some("the claim is being deleted"))
    } else if claim.lost {
        (
            VolumeStage::Missed,
            Some("the claim's volume is gone (phase Lost); if its data is not needed, delete the claim"),
        )
    } else if !claim.bound {
        (VolumeStage::Skipped, Some(RULE_NO_VOLUME))
    } else {
        (VolumeStage::Pending, None)
    };
    VolumeBackup {
        namespace: claim.namespace.clone(),
        claim: claim.name.clone(),
        image: claim.block,
        stage,
        reason: reason.map(Into::into),
        ..VolumeBackup::default()
    }
}

fn volumes(gathered: &Gathered, facts: &Volumes, limits: &Limits) -> Plan {
    let volumes = gathered.volumes();
    let failed = rules::failed(gathered.hooks(), HookTime::Pre).filter(|_| !gathered.is_cut());
    if let Some(failure) = failed {
        return Plan::Fail(failure.into());
    }
    let all_are_final = volumes.iter().all(is_final);
    if volumes.iter().all(is_cut) && facts.movers.is_empty() && !gathered.is_cut() {
        let spec = &gathered.run.spec;
        let has_rules = spec.pre_exec_rule.is_some() || spec.post_exec_rule.is_some();
        return Plan::Enter(if has_rules { BackupStage::PostExecRule } else { after_cut(gathered) });
    }
    if all_are_final && facts.movers.is_empty() {
        return Plan::Enter(BackupStage::Resources);
    }
    let problem = facts.location.as_ref().and_then(|l| l.as_ref().err());
    let mut slots = limits.movers_at_once.saturating_sub(gathered.at_work(&facts.states));
    let mut steps = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let seen = seen(gathered, facts, index, volume);
        // Nobody can judge an empty volume without its parent, so an outcome waits for the repository.
        let ended = matches!(seen.mover, Some(MoverState::Succeeded { .. } | MoverState::Failed { .. }));
        if problem.is_some() && ended {
            continue;
        }
        let step = if volume.snapshot_class.is_some() && !gathered.is_cut() {
            volume::cut(volume, &seen, gathered.now, limits)
        } else {
            volume::next(volume, &seen, slots > 0 && problem.is_none(), gathered.now, limits)
        };
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
    let held = rules::hold(gathered.hooks(), &facts.held);
    Plan::Move(Moves { held, steps, stale: stale(gathered, facts), start_with, blocked })
}

fn seen(gathered: &Gathered, facts: &Volumes, index: usize, volume: &VolumeBackup) -> Seen {
    let Some(name) = mover_name(&gathered.uid, index, volume) else { return Seen::default() };
    let key = (volume.namespace.clone(), name);
    let snapshot = facts.snapshots.get(&index).cloned();
    let claim = match (&volume.cut_at, &snapshot) {
        // What is read is made from the snapshot when it can be.
        (Some(_), Some(Some(snapshot))) if snapshot.is_ready => ClaimState::Present,
        (Some(_), Some(None)) => ClaimState::Gone,
        (Some(_), _) => ClaimState::Unknown,
        (None, _) => facts.claims.get(&index).copied().unwrap_or(ClaimState::Unknown),
    };
    Seen {
        snapshot,
        mover: facts.states.get(&key).cloned(),
        claim,
        parent: facts.parents.get(&parents::key(volume, form(volume))).cloned(),
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

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
