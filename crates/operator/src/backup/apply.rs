//! Doing the next step of a backup, and saying what was done.

use std::sync::Arc;

use api::{ApplicationBackup, BackupStage, Failure, HookStatus, ReclaimPolicy, VolumeBackup};
use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client, ResourceExt};
use mover::{Direction as JobDirection, Job};
use repository::ErrorKind;

use super::deletion;
use super::gather::{Gathered, snapshot_name};
use super::outcome::Moved;
use super::parents;
use super::plan::{Moves, Plan, Reason, patience_is_over};
use super::store::{self, Draft, Report, StoreError};
use super::validate::{INVALID_SPEC, selection};
use super::volume::{Done, Step, again_or_miss, attempt_that_counts, form};
use crate::claims;
use crate::cleanup;
use crate::context::Context;
use crate::error::{During, Error};
use crate::mover_pod::{self, Direction, Mover, Placement};
use crate::objects;
use crate::repositories::{LocationProblem, Opened};
use crate::rules;
use crate::snapshots;
use crate::turns::Room;

/// What was done.
pub(super) enum Applied {
    /// Nothing had to be.
    Rested,
    /// Something about its deletion.
    Left(deletion::Applied),
    /// The run begins.
    Begun,
    /// A stage begins.
    Entered(BackupStage),
    /// Something outside of the run is waited for.
    Blocked(Reason),
    /// The run ended without a recovery point; nothing of it is left.
    Failed(Reason),
    /// The run is to end, and something that it made is still there.
    Ending {
        /// What.
        left: Vec<String>,
    },
    /// The run is to end without a recovery point, and its movers have ended.
    GivenUp(Failure),
    /// These are the volumes.
    Listed(Vec<VolumeBackup>),
    /// These are commands of a rule, to be run.
    Matched(Vec<HookStatus>),
    /// Steps of commands, by their index.
    Commanded(Vec<(usize, rules::Done)>),
    /// Steps of volumes.
    Moved {
        /// What was seen of commands that hold something meanwhile.
        held: Vec<(usize, rules::Done)>,
        /// Per volume, by its index.
        done: Vec<(usize, Done)>,
        /// Why no mover can be started.
        blocked: Option<Reason>,
        /// Why a step was not done: the first of the reasons. What was done is noted all the same.
        error: Option<Error>,
    },
    /// Everything is stored; it can be published.
    Stored,
    /// What was stored is of no use; it is stored again.
    Again,
    /// The recovery point is published, and this was read of it.
    Published(Box<Report>),
}

/// Does what is planned.
pub(super) async fn apply(context: &Context, gathered: &Gathered, plan: Plan) -> Result<Applied, Error> {
    match plan {
        Plan::Rest => {
            objects::set_finalizer(&context.client, &gathered.run, is_held(&gathered.run)).await?;
            Ok(Applied::Rested)
        }
        Plan::Leave(plan) => Ok(Applied::Left(deletion::apply(context, gathered, plan).await?)),
        Plan::Begin => Ok(Applied::Begun),
        Plan::Enter(stage) => {
            if gathered.stage() == BackupStage::PostExecRule {
                rules::forget(&gathered.acting(context), gathered.hooks()).await;
            }
            Ok(Applied::Entered(stage))
        }
        Plan::Block(reason) => Ok(Applied::Blocked(reason)),
        Plan::Fail(reason) => end(context, gathered, Applied::Failed(reason)).await,
        Plan::GiveUp(failure) => end(context, gathered, Applied::GivenUp(failure)).await,
        Plan::List(volumes) => Ok(Applied::Listed(volumes)),
        Plan::Match(rule, item) => matching(context, gathered, &rule, item).await,
        Plan::Command(steps) => {
            Ok(Applied::Commanded(rules::take(&gathered.acting(context), gathered.hooks(), steps).await))
        }
        Plan::Move(moves) => move_volumes(context, gathered, moves).await,
        Plan::Store(opened) => keep_draft(context, gathered, &opened).await,
        Plan::Publish(opened, draft) => publish(context, gathered, &opened, &draft).await,
        Plan::Adopt(opened, point) => {
            let limits = context.limits();
            match store::report(&opened.repository, *point, limits.missed_items, limits.reason_chars).await {
                Ok(report) => end(context, gathered, Applied::Published(Box::new(report))).await,
                Err(error) => troubled(context, gathered, error).await,
            }
        }
    }
}

/// Whether a run that is over must not vanish unnoticed: only when its recovery point is to go with it. All others can be deleted with no
/// operator at hand, as when Orlop is uninstalled.
fn is_held(run: &ApplicationBackup) -> bool {
    let held = run.finalizers().iter().any(|f| f == api::FINALIZER);
    let published = run.status.as_ref().is_some_and(|s| s.recovery_point.is_some());
    run.spec.reclaim_policy == ReclaimPolicy::Delete && (held || published)
}

/// Ends the run, once nothing that it made is left.
async fn end(context: &Context, gathered: &Gathered, how: Applied) -> Result<Applied, Error> {
    let left = cleanup::end_run(context, &gathered.made(context.limits())).await?;
    if left.is_empty() { Ok(how) } else { Ok(Applied::Ending { left }) }
}

/// The pods that an item of a rule is for.
async fn matching(context: &Context, gathered: &Gathered, rule: &rules::Wanted, item: usize) -> Result<Applied, Error> {
    let namespaces = selection(&gathered.run).namespaces;
    match rules::list(&context.client, rule, item, &namespaces, context.limits()).await? {
        Ok(commands) => Ok(Applied::Matched(commands)),
        // In the stage of the other rule there is nothing to be let go any more, but for what this one began.
        Err(failure) if gathered.may_hold() && gathered.failure().is_none() => {
            end(context, gathered, Applied::GivenUp(failure)).await
        }
        Err(failure) => {
            let first = gathered.failure().cloned().unwrap_or(failure);
            end(context, gathered, Applied::Failed(first.into())).await
        }
    }
}

async fn keep_draft(context: &Context, gathered: &Gathered, opened: &Opened) -> Result<Applied, Error> {
    match store::store(context, gathered, &opened.repository).await {
        Ok(draft) => {
            context.backups.keep_draft(&gathered.uid, draft);
            Ok(Applied::Stored)
        }
        // Another operator has published it meanwhile; the next look finds it.
        Err(StoreError::Repository(error)) if error.kind() == ErrorKind::AlreadyExists => Ok(Applied::Again),
        Err(error) => troubled(context, gathered, error).await,
    }
}

async fn publish(
    context: &Context,
    gathered: &Gathered,
    opened: &Opened,
    draft: &Arc<Draft>,
) -> Result<Applied, Error> {
    match store::publish(&opened.repository, draft).await {
        // The next look finds it published, and reads it.
        Ok(()) => Ok(Applied::Again),
        Err(StoreError::Repository(error)) if error.kind() == ErrorKind::AlreadyExists => Ok(Applied::Again),
        // What is stored stays good: when the trouble has passed, it is published without being stored again.
        Err(error) => troubled(context, gathered, error).await,
    }
}

/// Tells what may pass from what ends the run.
async fn troubled(context: &Context, gathered: &Gathered, error: StoreError) -> Result<Applied, Error> {
    let error = match error.into_retry() {
        Ok(retry) => return Err(retry),
        Err(error) => error,
    };
    let reason = match &error {
        StoreError::Repository(error) => {
            let problem = LocationProblem::Repository(error.clone());
            match patience_is_over(gathered, context.limits()) {
                None if problem.may_pass() => return Ok(Applied::Blocked((&problem).into())),
                Some(over) if problem.may_pass() => Reason::new(problem.reason(), format!("{problem}; {over}")),
                _ => (&problem).into(),
            }
        }
        StoreError::Capture(error) => Reason::new(INVALID_SPEC, error.to_string()),
        other => Reason::new("Damaged", other.to_string()),
    };
    end(context, gathered, Applied::Failed(reason)).await
}

async fn move_volumes(context: &Context, gathered: &Gathered, moves: Moves) -> Result<Applied, Error> {
    let (mut done, mut error) = (Vec::new(), None);
    let held = rules::take(&gathered.acting(context), gathered.hooks(), moves.held).await;
    for pod in &moves.stale {
        if let Err(trouble) = mover_pod::remove(&context.client, pod).await {
            error.get_or_insert(trouble);
        }
    }
    for (index, step) in moves.steps {
        match take_step(context, gathered, index, step, moves.start_with.as_ref()).await {
            Ok(outcome) => done.push((index, outcome)),
            Err(trouble) => drop(error.get_or_insert(trouble)),
        }
    }
    Ok(Applied::Moved { held, done, blocked: moves.blocked, error })
}

async fn take_step(
    context: &Context,
    gathered: &Gathered,
    index: usize,
    step: Step,
    start_with: Option<&Opened>,
) -> Result<Done, Error> {
    match (&step, start_with) {
        (Step::Start { attempt }, Some(opened)) => return start(context, gathered, index, *attempt, opened).await,
        (Step::Cut, _) => return cut(context, gathered, index).await,
        (Step::Force { attempt }, _) => force(context, gathered, index, *attempt).await?,
        (Step::Finish(moved) | Step::Miss { moved: Some(moved), .. }, Some(opened)) => {
            if let Some(doubt) = doubted(context, gathered, index, moved, opened).await? {
                return Ok(Done::Seen(doubt));
            }
        }
        _ => {}
    }
    Ok(Done::Seen(step))
}

/// What follows if a volume is not stored as its mover says. Whoever may make pods in the namespace of the volume may have made that one; a recovery point that names what is not in
/// the repository would be none, for all that is in it.
async fn doubted(
    context: &Context,
    gathered: &Gathered,
    index: usize,
    moved: &Moved,
    opened: &Opened,
) -> Result<Option<Step>, Error> {
    let volume = &gathered.volumes()[index];
    match moved.verify(&opened.repository, &gathered.point_id).await {
        Ok(()) => Ok(None),
        Err(error) if error.is_retryable() => {
            Err(error).during(|| format!("look for what was stored of {}/{}", volume.namespace, volume.claim))
        }
        Err(error) => {
            let reason = format!("what the mover says that it stored is not in the repository: {error}");
            Ok(Some(again_or_miss(attempt_that_counts(volume).unwrap_or_default(), reason, context.limits())))
        }
    }
}

/// Asks for the snapshot of a volume.
async fn cut(context: &Context, gathered: &Gathered, index: usize) -> Result<Done, Error> {
    let volume = &gathered.volumes()[index];
    let name = snapshot_name(&gathered.uid, index);
    let class = volume.snapshot_class.as_deref().unwrap_or_default();
    let taken = snapshots::take(&context.client, &gathered.uid, &volume.namespace, &name, &volume.claim, class).await;
    match taken {
        Ok(()) => Ok(Done::Seen(Step::Cut)),
        Err(error) => match error.creation_refusal() {
            Some(why) => {
                let reason = format!("the API server does not take a snapshot of it: {why}");
                Ok(Done::Seen(Step::Miss { reason, moved: None }))
            }
            None => Err(error),
        },
    }
}

/// What a mover reads, and where it may run.
struct Source {
    claim: String,
    placement: Placement,
}

/// For a volume of which there is a snapshot: a volume made from that, within reach of the first one.
async fn source_of_snapshot(context: &Context, gathered: &Gathered, index: usize) -> Result<Source, Error> {
    let (client, volume) = (&context.client, &gathered.volumes()[index]);
    let name = snapshot_name(&gathered.uid, index);
    let anywhere = Source { claim: name.clone(), placement: Placement::anywhere() };
    if objects::read::<PersistentVolumeClaim>(client, &volume.namespace, &name).await?.is_none() {
        let of = objects::read::<PersistentVolumeClaim>(client, &volume.namespace, &volume.claim).await?;
        let snapshot = snapshots::read(client, &volume.namespace, &name).await?;
        let (Some(of), Some(snapshot)) = (of, snapshot) else { return Ok(anywhere) };
        let claim = snapshots::claim_from(&gathered.uid, &name, &of, &name, &snapshot);
        objects::create(client, &claim.during(|| format!("write the claim {name}"))?).await?;
    }
    let Some(reach) = reach(client, &volume.namespace, &volume.claim).await? else { return Ok(anywhere) };
    Ok(Source { placement: anywhere.placement.within(&reach), ..anywhere })
}

/// The nodes that the volume of a claim can be mounted on, if they are not all. A volume made from its snapshot is made there, too.
async fn reach(client: &Client, namespace: &str, claim: &str) -> Result<Option<NodeSelector>, Error> {
    let claim = objects::read::<PersistentVolumeClaim>(client, namespace, claim).await?;
    let Some(name) = claim.and_then(|claim| claim.spec?.volume_name) else { return Ok(None) };
    let volume = Api::<PersistentVolume>::all(client.clone()).get_opt(&name).await;
    let volume = volume.during(|| format!("read the PersistentVolume {name}"))?;
    Ok(volume.and_then(|volume| volume.spec?.node_affinity?.required))
}

async fn start(
    context: &Context,
    gathered: &Gathered,
    index: usize,
    attempt: u32,
    opened: &Opened,
) -> Result<Done, Error> {
    let volume = &gathered.volumes()[index];
    let parents = context.backups.parents(&gathered.uid).unwrap_or_default();
    let content = format!("{}/{}", volume.namespace, volume.claim);
    let form = form(volume);
    let parents = parents
        .get(&parents::key(volume, form))
        .map(|p| std::iter::once(&p.point).chain(&p.older).cloned().collect::<Vec<_>>());
    let parents = parents.unwrap_or_default();
    let point = gathered.point_id.clone();
    let job = Job {
        store: opened.store.clone(),
        passphrase: opened.passphrase.clone(),
        volume: mover_pod::place(form).into(),
        form,
        direction: JobDirection::Backup { point, parents, content },
    };
    let job = serde_json::to_vec(&job).during(|| "write the job of a mover".into())?;
    let itself = match volume.cut_at {
        Some(_) => None,
        None => Some(placement(&context.client, &volume.namespace, &volume.claim).await?),
    };
    let run = mover_pod::run_annotation(&gathered.run);
    let name = mover_pod::name(&gathered.uid, Direction::Backup, index, attempt);
    let room = Room {
        namespace: volume.namespace.clone(),
        location: opened.location.clone(),
        node: itself.as_ref().and_then(Placement::node).map(ToOwned::to_owned),
    };
    // Who holds an application does not wait behind others: it would be held for nothing. `movers_at_once` bounds it all the same.
    let holds = gathered.hooks().iter().any(rules::is_open);
    if !holds && let Err(why) = context.turns.ask((&volume.namespace, &name), room, &run, gathered.now) {
        return Ok(Done::Waits { why });
    }
    let started = start_mover(context, gathered, (index, attempt), opened, itself, (&run, &job)).await;
    if !matches!(started, Ok(Done::Started { .. })) {
        context.turns.give_back(&volume.namespace, &name);
    }
    started
}

async fn start_mover(
    context: &Context,
    gathered: &Gathered,
    (index, attempt): (usize, u32),
    opened: &Opened,
    itself: Option<Placement>,
    (run, job): (&str, &[u8]),
) -> Result<Done, Error> {
    let volume = &gathered.volumes()[index];
    let source = match itself {
        Some(placement) => Ok(Source { claim: volume.claim.clone(), placement }),
        None => source_of_snapshot(context, gathered, index).await,
    };
    let source = match source {
        Ok(source) => source,
        Err(error) => match error.creation_refusal() {
            Some(reason) => return Ok(Done::Refused { reason }),
            None => return Err(error),
        },
    };
    let mover = Mover {
        run_uid: &gathered.uid,
        run,
        location: &opened.location,
        direction: Direction::Backup,
        volume: index,
        attempt,
        namespace: &volume.namespace,
        claim: &source.claim,
        form: form(volume),
        placement: &source.placement,
        image: &context.config.image,
        pull_secrets: &context.config.pull_secrets,
        deadline: context.limits().mover_deadline,
        job,
    };
    match mover.start(&context.client).await {
        Ok(()) => Ok(Done::Started { attempt }),
        Err(error) => match error.creation_refusal() {
            Some(reason) => Ok(Done::Refused { reason: mover_pod::explain(reason) }),
            None => Err(error),
        },
    }
}

/// Where a mover that reads a claim may run: on the node of a pod that runs and uses the claim, for there the volume can surely be mounted
/// a second time; or rather there than elsewhere, when the volume can be mounted by several nodes.
async fn placement(client: &Client, namespace: &str, claim: &str) -> Result<Placement, Error> {
    let anywhere = Placement::anywhere();
    let Some(node) = claims::node_of(client, namespace, claim).await? else { return Ok(anywhere) };
    let claim = objects::read::<PersistentVolumeClaim>(client, namespace, claim).await?;
    let modes = claim.and_then(|claim| claim.spec?.access_modes).unwrap_or_default();
    let several = modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany");
    Ok(if several { anywhere.rather_on(&node) } else { anywhere.on(&node) })
}

async fn force(context: &Context, gathered: &Gathered, index: usize, attempt: u32) -> Result<(), Error> {
    let volume = &gathered.volumes()[index];
    let name = mover_pod::name(&gathered.uid, Direction::Backup, index, attempt);
    match objects::read::<Pod>(&context.client, &volume.namespace, &name).await? {
        Some(pod) => mover_pod::remove(&context.client, &pod).await,
        None => Ok(()),
    }
}
