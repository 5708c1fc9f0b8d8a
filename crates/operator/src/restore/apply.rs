//! Doing what is planned, and saying what was done.

use std::sync::Arc;

use api::{Failure, GitOpsHold, HookStatus, ObjectOutcomes, ReplacePolicy, RestorePlan, Workloads};
use kube::ResourceExt;

use super::gather::{Begun, Gathered, Scene, acting};
use super::inventory::Part;
use super::plan::{Move, Plan};
use super::point::Point;
use super::ready::Then;
use super::validate::{self, Refusal};
use super::volume::act::{Acted, Run};
use super::volume::observe::{Seen, made};
use super::volume::step::{Step, naming_what_is_kept};
use super::volume::view::Filled;
use super::{Restores, Trouble, begin, make};
use crate::cleanup;
use crate::error::Error;
use crate::hold;
use crate::mover_pod;
use crate::objects;
use crate::rules;

/// What was done.
#[derive(Debug)]
pub(super) enum Applied {
    /// Nothing, and nothing will be.
    Rested,
    /// Nothing yet.
    Waited(String),
    /// The run is over.
    Failed(Refusal),
    /// This is what would be done; with the reason, if something else was to be done.
    Foreseen(Box<RestorePlan>, Option<Refusal>),
    /// The run has begun; what it holds.
    Begun(Vec<GitOpsHold>),
    /// These are commands of a rule, to be run.
    Matched(Vec<HookStatus>),
    /// Steps of commands, by their index.
    Commanded(Vec<(usize, rules::Done)>),
    /// The rule that runs first is done.
    RuleDone,
    /// The objects of a part are made, as far as they can be.
    Made { part: Part, outcomes: ObjectOutcomes },
    /// Some objects of a part could not be made for the moment.
    MadeInPart(String),
    /// Steps were taken for volumes.
    Moved {
        moved: Vec<Moved>,
        /// Why others were not: the first of the reasons. What was done is noted all the same.
        error: Option<Error>,
    },
    /// Nothing temporary is left of the volumes.
    Left,
    /// The workloads were looked at.
    Looked(Workloads, Then),
    /// Everything was done, as far as it could be; a rule afterwards may have failed.
    Finished(Option<Failure>),
    /// Nothing is left of a run that is deleted.
    Undone,
}

/// A step that was taken for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) planned: Move,
    pub(super) acted: Acted,
    /// What the volume is filled with, if it is.
    pub(super) filled: Option<Filled>,
}

/// Does what is planned.
///
/// # Errors
/// The API server or the repository did not answer; the same is planned again.
pub(super) async fn apply(restores: &Restores, gathered: &mut Gathered, plan: Plan) -> Result<Applied, Error> {
    let context = &restores.context;
    match plan {
        Plan::Rest => {
            let_go(restores, gathered).await?;
            gathered.restore = objects::set_finalizer(&context.client, &gathered.restore, false).await?;
            Ok(Applied::Rested)
        }
        Plan::Wait(why) => Ok(Applied::Waited(why)),
        Plan::Fail(refusal) => {
            forget_rules(restores, gathered).await;
            Ok(still_there(restores, gathered).await?.unwrap_or(Applied::Failed(refusal)))
        }
        Plan::Foresee => begin::foresee(restores, gathered).await,
        Plan::Begin => begin::begin(restores, gathered).await,
        Plan::Match(rule, item) => matching(restores, gathered, &rule, item).await,
        Plan::Command(steps) => {
            let hooks = gathered.status().hooks;
            Ok(Applied::Commanded(rules::take(&acting(context, &gathered.restore, &gathered.uid), &hooks, steps).await))
        }
        Plan::RuleDone => {
            forget_rules(restores, gathered).await;
            Ok(Applied::RuleDone)
        }
        Plan::Note(workloads, then) => Ok(Applied::Looked(workloads, then)),
        Plan::Finish(failure) => {
            forget_rules(restores, gathered).await;
            Ok(Applied::Finished(failure))
        }
        Plan::Make { part, held_back } => make::make(restores, gathered, part, held_back).await,
        Plan::Move(moves) => Ok(take_steps(restores, gathered, moves).await),
        Plan::Leave => Ok(still_there(restores, gathered).await?.unwrap_or(Applied::Left)),
        Plan::Undo(moves) if moves.is_empty() => undo(restores, gathered).await,
        Plan::Undo(moves) => Ok(take_steps(restores, gathered, moves).await),
    }
}

/// Lets go what the run holds. Its finalizer goes after that, so there is always somebody who comes by.
async fn let_go(restores: &Restores, gathered: &Gathered) -> Result<(), Error> {
    let holds = gathered.restore.spec.hold_git_ops || !gathered.status().holds.is_empty();
    if !holds || !gathered.restore.finalizers().iter().any(|finalizer| finalizer == api::FINALIZER) {
        return Ok(());
    }
    let client = &restores.context.client;
    hold::held(client).await.let_go(client, |uid| uid == gathered.uid).await
}

/// The pods that an item of a rule is for: those in the namespaces that the restore goes to.
async fn matching(
    restores: &Restores,
    gathered: &Gathered,
    rule: &rules::Wanted,
    item: usize,
) -> Result<Applied, Error> {
    let Scene::Begun(Begun { point: Some(Ok(point)), .. }) = &gathered.scene else {
        return Ok(Applied::Waited("looks for the recovery point".into()));
    };
    let context = &restores.context;
    let goes: Vec<String> = validate::namespaces(&gathered.restore.spec, &point.facts.sources).into_iter().collect();
    let found = rules::list(&context.client, rule, item, &goes, context.limits()).await?;
    Ok(match found {
        Ok(commands) => Applied::Matched(commands),
        Err(failure) if rule.time == api::HookTime::Pre => Applied::Failed(failure.into()),
        Err(failure) => Applied::Finished(Some(failure)),
    })
}

/// Removes what commands of rules left in their containers, and ends those that still run.
async fn forget_rules(restores: &Restores, gathered: &Gathered) {
    let hooks = gathered.status().hooks;
    let acting = acting(&restores.context, &gathered.restore, &gathered.uid);
    drop(rules::take(&acting, &hooks, rules::let_go(&hooks)).await);
    rules::forget(&acting, &hooks).await;
}

/// Asks for the end of everything that was made for the run; what of it is still there, if anything.
async fn still_there(restores: &Restores, gathered: &Gathered) -> Result<Option<Applied>, Error> {
    let made = made(&gathered.uid, &gathered.status().volumes, restores.context.limits());
    let left = cleanup::end_run(&restores.context, &made).await?;
    Ok((!left.is_empty()).then(|| Applied::Waited(format!("waits for {} to go", left.join(", ")))))
}

async fn undo(restores: &Restores, gathered: &mut Gathered) -> Result<Applied, Error> {
    forget_rules(restores, gathered).await;
    if let Some(waits) = still_there(restores, gathered).await? {
        return Ok(waits);
    }
    let_go(restores, gathered).await?;
    gathered.restore = objects::set_finalizer(&restores.context.client, &gathered.restore, false).await?;
    Ok(Applied::Undone)
}

/// Takes the steps of all volumes: trouble with one keeps no other from its own.
async fn take_steps(restores: &Restores, gathered: &Gathered, moves: Vec<Move>) -> Applied {
    let none = Vec::new();
    let (seen, point) = match &gathered.scene {
        Scene::Begun(Begun { seen, point, .. }) => (seen, point.as_ref().and_then(|p| p.as_ref().ok())),
        Scene::Ending(seen) => (seen, None),
        Scene::Fresh(_) | Scene::Over => (&none, None),
    };
    let annotation = mover_pod::run_annotation(&gathered.restore);
    let replaces = gathered.restore.spec.replace_policy == ReplacePolicy::Delete;
    let run = Run { context: &restores.context, uid: &gathered.uid, annotation: &annotation, replaces };
    let (mut moved, mut error) = (Vec::with_capacity(moves.len()), None);
    for planned in moves {
        let Some(seen) = seen.get(planned.index) else { continue };
        match take_step(&run, seen, point, planned).await {
            Ok(mut one) => {
                one.acted = in_patience(restores, gathered, &one, seen);
                moved.push(one);
            }
            Err(trouble) => drop(error.get_or_insert(trouble)),
        }
    }
    Applied::Moved { moved, error }
}

/// What the API server answers with an error of its own may pass: it is asked again for as long as a mover may take to start.
fn in_patience(restores: &Restores, gathered: &Gathered, moved: &Moved, seen: &Seen) -> Acted {
    let trouble = Trouble::Making(seen.index);
    match &moved.acted {
        Acted::PutOff(why) => {
            let waited = restores.troubled_for(&gathered.uid, trouble, gathered.now);
            if waited < restores.context.limits().mover_start_deadline {
                return Acted::PutOff(why.clone());
            }
            Acted::Refused(naming_what_is_kept(&seen.view, why.clone()))
        }
        Acted::Refused(why) => Acted::Refused(naming_what_is_kept(&seen.view, why.clone())),
        Acted::Done => {
            if moved.planned.step.makes() {
                restores.recovered(&gathered.uid, trouble);
            }
            Acted::Done
        }
    }
}

async fn take_step(run: &Run<'_>, seen: &Seen, point: Option<&Arc<Point>>, mut planned: Move) -> Result<Moved, Error> {
    let fill = point.and_then(|point| Some((point.volumes.get(planned.index)?, &point.opened)));
    if let (Step::StartMover { attempt }, Some((_, opened))) = (&planned.step, fill)
        && let Err(why) = run.ask_for_turn(*attempt, seen, opened)
    {
        planned.step = Step::Wait(why);
    }
    let acted = match fill.map(|(wanted, _)| &wanted.source) {
        // Nothing is made for a volume that there is no data for.
        Some(Err(why)) if matches!(planned.step, Step::MakeFilling) => Acted::Refused(why.clone()),
        _ => {
            let acted = run.act(&planned.step, seen, fill).await;
            if let (Step::StartMover { attempt }, false) = (&planned.step, matches!(acted, Ok(Acted::Done))) {
                run.give_turn_back(*attempt, seen);
            }
            acted?
        }
    };
    let filled = match &planned.step {
        Step::NoteFilled(filled) => Some(*filled),
        _ => seen.view.filling.as_ref().and_then(|f| f.filled),
    };
    Ok(Moved { planned, acted, filled })
}
