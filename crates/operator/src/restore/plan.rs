//! What is to be done next: a pure function of what was gathered.

use std::time::Duration;

use api::{ApplicationRestoreStatus, Failure, ReplacePolicy, RestoreStage, VolumeRestore, VolumeStage, Workloads};
use application::ObjectKey;
use application::readiness::Readiness;

use super::gather::{Begun, Fresh, Gathered, Scene};
use super::inventory::Part;
use super::ready::{self, Then};
use super::validate::{self, Refusal, Source, Verdict};
use super::volume::observe::Seen;
use super::volume::step::{Step, discard, miss, next};
use super::volume::view::{MoverState, Terms, WantedVolume};
use crate::admission;
use crate::config::Limits;
use crate::rules::{self, Next, RuleFacts, Wanted};
use crate::trust;

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing, ever.
    Rest,
    /// Nothing yet; why.
    Wait(String),
    /// End the run without its having begun, or after what it had was taken from it.
    Fail(Refusal),
    /// Say what would be done, and do nothing.
    Foresee,
    /// Begin: note where it goes and which volumes it has. Not if another plan was to be done than the one that would be.
    Begin,
    /// Find the pods for an item of a rule.
    Match(Wanted, usize),
    /// Do these steps for commands of rules, by their index.
    Command(Vec<(usize, rules::Step)>),
    /// The rule that runs first is done: go on.
    RuleDone,
    /// Note how the workloads are.
    Note(Workloads, Then),
    /// Everything is done, as far as it could be; a rule afterwards may have failed.
    Finish(Option<Failure>),
    /// Make the objects of one part.
    Make {
        part: Part,
        /// Those that stand on volumes are held back, because volumes were missed.
        held_back: bool,
    },
    /// Take steps for volumes.
    Move(Vec<Move>),
    /// All volumes are done with: go on, when nothing that was made for them is left.
    Leave,
    /// Remove what was made for the run, which is being deleted.
    Undo(Vec<Move>),
}

/// A step for one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) index: usize,
    pub(super) step: Step,
    /// Movers started before the step.
    pub(super) attempts: u32,
    /// How the newest mover failed, if it did.
    pub(super) failure: Option<String>,
}

/// Decides.
pub(super) fn plan(gathered: &Gathered, limits: &Limits) -> Plan {
    match &gathered.scene {
        Scene::Over => Plan::Rest,
        Scene::Ending(seen) => Plan::Undo(seen.iter().filter_map(|seen| undo(seen, limits)).collect()),
        Scene::Fresh(fresh) => begin(gathered, fresh, limits),
        Scene::Begun(begun) => go_on(gathered, begun, limits),
    }
}

fn begin(gathered: &Gathered, fresh: &Fresh, limits: &Limits) -> Plan {
    let restore = &gathered.restore;
    let patience = limits.location_patience;
    let found = |source: &Source| validate::source(&restore.spec, source, gathered.without_point, patience);
    let verdict = match (&fresh.spec, &fresh.source) {
        (Verdict::Go, Some(Ok(point))) => match found(&Source::Found(Box::new(point.facts.clone()))) {
            Verdict::Go => validate::target(restore, &admission::age(restore), &point.facts, &fresh.target),
            other => other,
        },
        (Verdict::Go, Some(Err(source))) => found(source),
        (Verdict::Go, None) => Verdict::Wait("looks for the recovery point".into()),
        (bad, _) => bad.clone(),
    };
    match verdict {
        Verdict::Go if restore.spec.plan_only => Plan::Foresee,
        Verdict::Go => Plan::Begin,
        Verdict::Wait(why) => Plan::Wait(why),
        Verdict::Refuse(refusal) => Plan::Fail(refusal),
    }
}

/// What makes it impossible to go on with a restore that has begun.
fn trouble(gathered: &Gathered, begun: &Begun, limits: &Limits) -> Verdict {
    match (&begun.spec, &begun.point) {
        (Verdict::Go, Some(Ok(point))) => {
            let listed = point.volumes.iter().map(|wanted| (wanted.namespace.as_str(), wanted.claim.as_str()));
            let believed = trust::of_volumes(&gathered.status().volumes, listed).err().map(Refusal::from);
            let refusal = validate::off_limits(&gathered.restore, &point.facts).or(believed);
            refusal.map_or(Verdict::Go, Verdict::Refuse)
        }
        (Verdict::Go, None) => Verdict::Wait("looks for the recovery point".into()),
        (Verdict::Go, Some(Err(source))) => {
            let spec = &gathered.restore.spec;
            validate::source(spec, source, gathered.without_point, limits.location_patience)
        }
        (bad, _) => bad.clone(),
    }
}

fn go_on(gathered: &Gathered, begun: &Begun, limits: &Limits) -> Plan {
    if let Some(facts) = &begun.rule {
        return rule(gathered, begun, facts, limits);
    }
    let status = gathered.status();
    if status.stage == RestoreStage::Ready && begun.spec == Verdict::Go {
        return wait_until_ready(gathered, &status, &begun.workloads, limits);
    }
    let refusal = match trouble(gathered, begun, limits) {
        Verdict::Go => None,
        Verdict::Wait(why) => return Plan::Wait(why),
        Verdict::Refuse(refusal) => Some(refusal),
    };
    match (status.stage, refusal) {
        (RestoreStage::Volumes, refusal) => {
            let wanted = begun.point.as_ref().and_then(|point| point.as_ref().ok()).map(|point| &point.volumes[..]);
            volumes(gathered, &status, &begun.seen, wanted.unwrap_or_default(), limits, refusal)
        }
        (_, Some(refusal)) => Plan::Fail(refusal),
        (RestoreStage::Foundations, None) => Plan::Make { part: Part::Foundations, held_back: false },
        (_, None) => Plan::Make { part: Part::Resources, held_back: any_missed(&status) },
    }
}

/// What is done next for the rule of this stage. Whatever keeps it from its end, what it began ends first.
fn rule(gathered: &Gathered, begun: &Begun, facts: &RuleFacts, limits: &Limits) -> Plan {
    let status = gathered.status();
    let open = rules::let_go(&status.hooks);
    let next = match &begun.spec {
        Verdict::Refuse(refusal) if open.is_empty() => return Plan::Fail(refusal.clone()),
        Verdict::Refuse(_) => return Plan::Command(open),
        _ => facts.next(&status.hooks, gathered.now, limits),
    };
    let is_first = status.stage == RestoreStage::PreExecRule;
    match next {
        Next::List { item } => match (facts.wanted(), trouble(gathered, begun, limits)) {
            (None, _) => Plan::RuleDone,
            (Some(rule), Verdict::Go) => Plan::Match(rule, item),
            (_, Verdict::Wait(why)) => Plan::Wait(why),
            (_, Verdict::Refuse(_)) if !open.is_empty() => Plan::Command(open),
            (_, Verdict::Refuse(refusal)) if is_first => Plan::Fail(refusal),
            (_, Verdict::Refuse(refusal)) => Plan::Finish(Some(refusal.into())),
        },
        Next::Steps(steps) => Plan::Command(steps),
        Next::Fail(_) if !open.is_empty() => Plan::Command(open),
        Next::Fail(failure) if is_first => Plan::Fail(failure.into()),
        Next::Fail(failure) => Plan::Finish(Some(failure)),
        Next::Done if is_first => Plan::RuleDone,
        Next::Done => Plan::Finish(None),
    }
}

fn wait_until_ready(
    gathered: &Gathered,
    status: &ApplicationRestoreStatus,
    looked: &[(ObjectKey, Readiness)],
    limits: &Limits,
) -> Plan {
    let workloads = ready::summary(status.workloads.as_ref(), looked, limits.workloads, limits.reason_chars);
    let since = status.stages.last().map_or(gathered.now, |stage| stage.started_at.0);
    let waited = Duration::try_from(gathered.now.duration_since(since)).unwrap_or_default();
    // What is no length of time was refused before anything began.
    let within = gathered.restore.spec.ready_within().ok().flatten().unwrap_or_default();
    let is_whole = !any_missed(status) && status.objects.as_ref().is_none_or(|objects| objects.failed == 0);
    let runs_a_rule = is_whole && gathered.restore.spec.post_exec_rule.is_some();
    let then = ready::then(&workloads, waited, within, runs_a_rule);
    Plan::Note(workloads, then)
}

/// Whether a volume that was wanted is not there.
pub(super) fn any_missed(status: &ApplicationRestoreStatus) -> bool {
    status.volumes.iter().any(|v| v.stage == VolumeStage::Missed)
}

fn volumes(
    gathered: &Gathered,
    status: &ApplicationRestoreStatus,
    seen: &[Seen],
    wanted: &[WantedVolume],
    limits: &Limits,
    refusal: Option<Refusal>,
) -> Plan {
    let policy = gathered.restore.spec.replace_policy;
    let mut moves: Vec<Move> = seen
        .iter()
        .zip(&status.volumes)
        .filter_map(|(seen, volume)| match (volume.stage, &refusal) {
            (VolumeStage::Done, _) => None,
            (VolumeStage::Skipped | VolumeStage::Missed, _) => undo(seen, limits),
            (_, Some(refusal)) => Some(with(seen, volume, miss(&seen.view, refusal.message.clone()))),
            (_, None) => Some(step(seen, volume, policy, limits)),
        })
        .collect();
    in_order(&mut moves, seen, status, wanted);
    queue(&mut moves, seen, limits);
    match refusal {
        _ if !moves.is_empty() => Plan::Move(moves),
        Some(refusal) => Plan::Fail(refusal),
        None => Plan::Leave,
    }
}

fn undo(seen: &Seen, limits: &Limits) -> Option<Move> {
    let step = discard(&seen.view, limits.claim_patience)?;
    Some(Move { index: seen.index, step, attempts: attempts(seen, 0), failure: None })
}

fn attempts(seen: &Seen, noted: u32) -> u32 {
    noted.max(seen.view.mover.as_ref().map_or(0, |m| m.attempt))
}

fn with(seen: &Seen, volume: &VolumeRestore, step: Step) -> Move {
    let failure = match seen.view.mover.as_ref().map(|m| &m.state) {
        Some(MoverState::Failed { reason, .. }) => Some(reason.clone()),
        _ => None,
    };
    Move { index: seen.index, step, attempts: attempts(seen, volume.attempts), failure }
}

fn step(seen: &Seen, volume: &VolumeRestore, policy: ReplacePolicy, limits: &Limits) -> Move {
    let terms = Terms {
        policy,
        attempts: attempts(seen, volume.attempts),
        max_attempts: limits.mover_attempts,
        claim_deadline: limits.claim_patience,
    };
    with(seen, volume, next(&seen.view, &terms))
}

/// Lets a mover wait for the volumes before its own that the same pod mounts, until it is decided where they are: where it is started may
/// decide where its volume is made, and one node must reach all of them.
fn in_order(moves: &mut [Move], seen: &[Seen], status: &ApplicationRestoreStatus, wanted: &[WantedVolume]) {
    let decided = |index: usize| {
        let over =
            |v: &VolumeRestore| matches!(v.stage, VolumeStage::Done | VolumeStage::Skipped | VolumeStage::Missed);
        status.volumes.get(index).is_none_or(over) || seen.get(index).is_none_or(|seen| seen.view.disk.is_some())
    };
    for planned in moves.iter_mut().filter(|planned| matches!(planned.step, Step::StartMover { .. })) {
        let beside = wanted.get(planned.index).map(|wanted| &wanted.beside[..]).unwrap_or_default();
        let before = beside.iter().find(|beside| beside.index < planned.index && !decided(beside.index));
        if let Some(before) = before {
            let why = format!("waits until the volume of {}, which the same pod mounts, is made", before.claim);
            planned.step = Step::Wait(why);
        }
    }
}

/// Lets a bounded number of movers work at a time; the other volumes wait for their turn.
fn queue(moves: &mut [Move], seen: &[Seen], limits: &Limits) {
    let works = |s: &&Seen| {
        s.view.mover.as_ref().is_some_and(|m| matches!(m.state, MoverState::Waiting { .. } | MoverState::Running))
    };
    let free = limits.movers_at_once.saturating_sub(seen.iter().filter(works).count());
    let starts = |m: &&mut Move| matches!(m.step, Step::MakeFilling | Step::StartMover { .. });
    for planned in moves.iter_mut().filter(starts).skip(free) {
        planned.step = Step::Wait("waits for its turn".into());
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
