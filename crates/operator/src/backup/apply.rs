//! Doing the next step of a backup, and saying what was done.

use std::sync::Arc;

use api::{BackupStage, VolumeBackup};
use k8s_openapi::api::core::v1::Pod;
use mover::{Direction as JobDirection, Job};
use repository::ErrorKind;

use super::deletion;
use super::gather::Gathered;
use super::plan::{Moves, Plan, Reason};
use super::store::{self, Draft, Report, StoreError};
use super::volume::{Done, Step};
use crate::cleanup;
use crate::context::Context;
use crate::error::{During, Error};
use crate::mover_pod::{self, Direction, Mover, VOLUME_PATH};
use crate::objects;
use crate::repositories::{LocationProblem, Opened};

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
    /// These are the volumes.
    Listed(Vec<VolumeBackup>),
    /// Steps of volumes.
    Moved {
        /// Per volume, by its index.
        done: Vec<(usize, Done)>,
        /// Why no mover can be started.
        blocked: Option<Reason>,
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
        Plan::Rest => Ok(Applied::Rested),
        Plan::Leave(plan) => Ok(Applied::Left(deletion::apply(context, gathered, plan).await?)),
        Plan::Begin => Ok(Applied::Begun),
        Plan::Enter(stage) => Ok(Applied::Entered(stage)),
        Plan::Block(reason) => Ok(Applied::Blocked(reason)),
        Plan::Fail(reason) => end(context, gathered, Applied::Failed(reason)).await,
        Plan::List(volumes) => Ok(Applied::Listed(volumes)),
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

/// Ends the run, once nothing that it made is left.
async fn end(context: &Context, gathered: &Gathered, how: Applied) -> Result<Applied, Error> {
    let left = cleanup::end_run(&context.client, &gathered.uid).await?;
    if left.is_empty() { Ok(how) } else { Ok(Applied::Ending { left }) }
}

async fn keep_draft(context: &Context, gathered: &Gathered, opened: &Opened) -> Result<Applied, Error> {
    match store::store(context, gathered, &opened.repository).await {
        Ok(draft) => {
            context.backups.keep_draft(&gathered.uid, draft);
            Ok(Applied::Stored)
        }
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
        Err(error) => {
            context.backups.drop_draft(&gathered.uid);
            troubled(context, gathered, error).await
        }
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
            if problem.may_pass() {
                return Ok(Applied::Blocked((&problem).into()));
            }
            (&problem).into()
        }
        StoreError::Capture(error) => Reason::new("InvalidSpec", error.to_string()),
        other => Reason::new("Damaged", other.to_string()),
    };
    end(context, gathered, Applied::Failed(reason)).await
}

async fn move_volumes(context: &Context, gathered: &Gathered, moves: Moves) -> Result<Applied, Error> {
    for pod in &moves.stale {
        mover_pod::remove(&context.client, pod).await?;
    }
    let mut done = Vec::new();
    for (index, step) in moves.steps {
        let outcome = match (&step, &moves.start_with) {
            (Step::Start { attempt }, Some(opened)) => start(context, gathered, index, *attempt, opened).await?,
            (Step::Force { attempt }, _) => {
                force(context, gathered, index, *attempt).await?;
                Done::Seen(step)
            }
            _ => Done::Seen(step),
        };
        done.push((index, outcome));
    }
    Ok(Applied::Moved { done, blocked: moves.blocked })
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
    let parent = parents.get(&format!("{}/{}", volume.namespace, volume.claim)).map(|p| p.root);
    let job = Job {
        store: opened.store.clone(),
        passphrase: opened.passphrase.clone(),
        volume: VOLUME_PATH.into(),
        direction: JobDirection::Backup { parent },
    };
    let job = serde_json::to_vec(&job).during(|| "write the job of a mover".into())?;
    let node = node_of(context, &volume.namespace, &volume.claim).await?;
    let mover = Mover {
        run_uid: &gathered.uid,
        run: &mover_pod::run_annotation(&gathered.run),
        direction: Direction::Backup,
        volume: index,
        attempt,
        namespace: &volume.namespace,
        claim: &volume.claim,
        node: node.as_deref(),
        image: &context.config.image,
        deadline: context.limits().mover_deadline,
        job: &job,
    };
    match mover.start(&context.client).await {
        Ok(()) => Ok(Done::Started { attempt }),
        Err(error) => match error.refusal() {
            Some(reason) => Ok(Done::Refused { reason }),
            None => Err(error),
        },
    }
}

/// The node of a pod that runs and uses the claim: there the volume can surely be mounted a second time.
async fn node_of(context: &Context, namespace: &str, claim: &str) -> Result<Option<String>, Error> {
    let pods = objects::list::<Pod>(&context.client, namespace).await?;
    Ok(pods.iter().filter(|pod| mover_pod::uses(pod, claim)).find_map(|pod| pod.spec.as_ref()?.node_name.clone()))
}

async fn force(context: &Context, gathered: &Gathered, index: usize, attempt: u32) -> Result<(), Error> {
    let volume = &gathered.volumes()[index];
    let name = mover_pod::name(&gathered.uid, Direction::Backup, index, attempt);
    match objects::read::<Pod>(&context.client, &volume.namespace, &name).await? {
        Some(pod) => mover_pod::remove(&context.client, &pod).await,
        None => Ok(()),
    }
}
