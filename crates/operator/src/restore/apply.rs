//! Doing what is planned, and saying what was done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::{ApplicationRestore, ApplicationRestoreSpec, BackupLocation, Missed, ObjectOutcomes, ReplacePolicy};
use application::{Applied as Outcome, Applier, Loss, ObjectKey, Patience, RestoreOptions, Wave, clean, discover};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{Client, ResourceExt};
use repository::table::Reader;
use serde_json::Value;

use super::gather::{Begun, Gathered, Scene};
use super::inventory::{Part, stands_on_volumes};
use super::plan::{Move, Plan};
use super::point::{self, Point};
use super::validate::{self, Refusal};
use super::volume::act::{Acted, Run};
use super::volume::observe::Seen;
use super::volume::step::{Step, naming_what_is_kept};
use super::volume::view::Filled;
use super::{Restores, Trouble};
use crate::cleanup;
use crate::conditions::shorten;
use crate::error::{During, Error};
use crate::mover_pod;
use crate::objects;
use crate::repositories::{LocationProblem, secret_names};

/// Objects in memory at a time. Each may have 1.5 MiB, so this is 48 MiB at the worst.
const OBJECTS_AT_ONCE: usize = 32;

/// Why an object is kept that the restore needs itself.
const LIVES_ON: &str = "the restore reads the recovery point with it, so it stays as it is, whatever the policy";

/// Why objects are not made when volumes were missed.
const HELD_BACK: &str = "not made, because not all volumes could be filled: what runs on them would run on nothing, and might write over it";

/// What was done.
#[derive(Debug)]
pub(super) enum Applied {
    /// Nothing, and nothing will be.
    Rested,
    /// Nothing yet.
    Waited(String),
    /// The run is over.
    Failed(Refusal),
    /// The run has begun.
    Begun,
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
            gathered.restore = objects::set_finalizer(&context.client, &gathered.restore, false).await?;
            Ok(Applied::Rested)
        }
        Plan::Wait(why) => Ok(Applied::Waited(why)),
        Plan::Fail(refusal) => Ok(still_there(restores, gathered).await?.unwrap_or(Applied::Failed(refusal))),
        Plan::Begin => {
            gathered.restore = objects::set_finalizer(&context.client, &gathered.restore, true).await?;
            Ok(Applied::Begun)
        }
        Plan::Make { part, held_back } => make(restores, gathered, part, held_back).await,
        Plan::Move(moves) => Ok(take_steps(restores, gathered, moves).await),
        Plan::Leave => Ok(still_there(restores, gathered).await?.unwrap_or(Applied::Left)),
        Plan::Undo(moves) if moves.is_empty() => undo(restores, gathered).await,
        Plan::Undo(moves) => Ok(take_steps(restores, gathered, moves).await),
    }
}

/// Asks for the end of everything that was made for the run; what of it is still there, if anything.
async fn still_there(restores: &Restores, gathered: &Gathered) -> Result<Option<Applied>, Error> {
    let left = cleanup::end_run(&restores.context.client, &gathered.uid).await?;
    Ok((!left.is_empty()).then(|| Applied::Waited(format!("waits for {} to go", left.join(", ")))))
}

async fn undo(restores: &Restores, gathered: &mut Gathered) -> Result<Applied, Error> {
    if let Some(waits) = still_there(restores, gathered).await? {
        return Ok(waits);
    }
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
        _ => run.act(&planned.step, seen, fill).await?,
    };
    let filled = match &planned.step {
        Step::NoteFilled(filled) => Some(*filled),
        _ => seen.view.filling.as_ref().and_then(|f| f.filled),
    };
    Ok(Moved { planned, acted, filled })
}

/// Makes the objects of a part.
async fn make(restores: &Restores, gathered: &Gathered, part: Part, held_back: bool) -> Result<Applied, Error> {
    let Scene::Begun(Begun { point: Some(Ok(point)), .. }) = &gathered.scene else {
        return Ok(Applied::Waited("looks for the recovery point".into()));
    };
    let mut maker = Maker::new(restores, gathered, point).await?;
    match maker.make_part(part, held_back).await {
        Ok(true) => {}
        Ok(false) => return Ok(Applied::Waited("is being deleted".into())),
        Err(Error::Repository { source, .. }) => return Ok(unread(restores, gathered, *source)),
        Err(error) => return Err(error),
    }
    if let Some(why) = maker.passing.take()
        && is_patient(restores, gathered, restores.context.limits().object_patience)
    {
        return Ok(Applied::MadeInPart(why));
    }
    restores.recovered(&gathered.uid, Trouble::Objects);
    if part == Part::Foundations {
        maker.outcomes.wanted += point.facts.inventory.left_alone;
        maker.outcomes.kept += point.facts.inventory.left_alone;
    }
    Ok(Applied::Made { part, outcomes: maker.outcomes })
}

fn is_patient(restores: &Restores, gathered: &Gathered, patience: Duration) -> bool {
    restores.troubled_for(&gathered.uid, Trouble::Objects, gathered.now) < patience
}

/// The objects could not be read from the repository: waited for, or the end.
fn unread(restores: &Restores, gathered: &Gathered, error: repository::Error) -> Applied {
    restores.drop_point(&gathered.uid);
    let problem = LocationProblem::from(error);
    if problem.may_pass() && is_patient(restores, gathered, restores.context.limits().location_patience) {
        return Applied::Waited(problem.to_string());
    }
    Applied::Failed(Refusal { reason: problem.reason(), message: problem.to_string() })
}

/// An object as it is to be made, under its name at the target.
struct Prepared {
    key: ObjectKey,
    object: Value,
    /// What the mapping takes away from it.
    loss: Option<Loss>,
}

/// What a restore keeps of the ties to the old cluster.
fn options(spec: &ApplicationRestoreSpec) -> RestoreOptions {
    RestoreOptions { keep_cluster_ips: spec.preserve_cluster_ips, keep_node_ports: spec.preserve_node_ports }
}

/// The location that a restore reads from, and the Secrets that the location names. They stay as they are whatever the policy: the recovery
/// point may have them as they were, with keys that were exchanged since, and nothing more could be read with these.
async fn livelihood(client: &Client, restore: &ApplicationRestore) -> Result<BTreeSet<ObjectKey>, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let key = |group: &str, kind: &str, name: &str| ObjectKey {
        group: group.into(),
        version: String::new(),
        kind: kind.into(),
        namespace: Some(namespace.clone()),
        name: name.into(),
    };
    let name = &restore.spec.backup_location;
    let location: Option<BackupLocation> = objects::read(client, &namespace, name).await?;
    let secrets = location.iter().flat_map(secret_names).map(|(secret, _)| key("", "Secret", secret));
    Ok(secrets.chain([key(api::GROUP, "BackupLocation", name)]).collect())
}

/// Makes objects, and counts.
struct Maker<'a> {
    restores: &'a Restores,
    restore: &'a ApplicationRestore,
    point: &'a Point,
    /// The namespaces that the restore goes to, by its spec as it is now.
    namespaces: BTreeSet<String>,
    applier: Applier,
    /// What the restore itself lives on.
    livelihood: BTreeSet<ObjectKey>,
    outcomes: ObjectOutcomes,
    /// A failure that may pass.
    passing: Option<String>,
}

impl<'a> Maker<'a> {
    async fn new(restores: &'a Restores, gathered: &'a Gathered, point: &'a Point) -> Result<Self, Error> {
        let client = restores.context.client.clone();
        let patience = Patience::default();
        let catalog = discover(&client, &patience).await.map_err(|failure| Error::Application {
            doing: "ask what kinds the cluster has".into(),
            source: failure.into(),
        })?;
        let policy = match gathered.restore.spec.replace_policy {
            ReplacePolicy::Retain => application::ReplacePolicy::Retain,
            ReplacePolicy::Delete => application::ReplacePolicy::Delete,
            ReplacePolicy::Update => application::ReplacePolicy::Update,
        };
        Ok(Self {
            restores,
            restore: &gathered.restore,
            point,
            namespaces: validate::namespaces(&gathered.restore.spec, &point.facts.sources),
            applier: Applier::new(client, Arc::new(catalog), gathered.uid.clone(), policy, patience),
            livelihood: livelihood(&restores.context.client, &gathered.restore).await?,
            outcomes: ObjectOutcomes::default(),
            passing: None,
        })
    }

    /// Makes a part, wave by wave. Says whether the restore is still wanted.
    async fn make_part(&mut self, part: Part, held_back: bool) -> Result<bool, Error> {
        for (wave, keys) in self.point.facts.inventory.part(part) {
            if held_back && stands_on_volumes(wave) {
                self.hold_back(&keys);
            } else if !self.make_wave(wave, &keys).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hold_back(&mut self, keys: &[ObjectKey]) {
        for key in keys {
            self.count(key, Outcome::Failed { reason: HELD_BACK.into(), retryable: false }, None);
        }
    }

    /// Makes one wave, kind by kind, as the table of objects has them side by side. Says whether the restore is still wanted.
    async fn make_wave(&mut self, wave: Wave, keys: &[ObjectKey]) -> Result<bool, Error> {
        tracing::debug!(?wave, objects = keys.len(), restore = self.restore.name_any(), "making objects");
        for kind in keys.chunk_by(|a, b| (&a.group, &a.kind) == (&b.group, &b.kind)) {
            if self.is_deleted().await? {
                return Ok(false);
            }
            self.make_kind(kind).await?;
        }
        Ok(true)
    }

    async fn is_deleted(&self) -> Result<bool, Error> {
        let namespace = self.restore.namespace().unwrap_or_default();
        let client = &self.restores.context.client;
        let now: Option<ApplicationRestore> = objects::read(client, &namespace, &self.restore.name_any()).await?;
        Ok(now.is_none_or(|r| r.uid() != self.restore.uid() || r.metadata.deletion_timestamp.is_some()))
    }

    /// Makes objects of one kind; their keys are in ascending order.
    async fn make_kind(&mut self, keys: &[ObjectKey]) -> Result<(), Error> {
        let wanted: BTreeSet<Vec<u8>> = keys.iter().map(ObjectKey::encode).collect();
        let (Some(first), Some(last), Some(table)) = (wanted.first(), wanted.last(), self.point.document.objects)
        else {
            return Ok(());
        };
        let repository = &self.point.opened.repository;
        let stored = Reader::new(repository, table)
            .scan(first)
            .try_take_while(|(key, _)| std::future::ready(Ok(key[..] <= last[..])))
            .try_filter(|(key, _)| std::future::ready(wanted.contains(&key[..])))
            .try_chunks(OBJECTS_AT_ONCE);
        let mut stored = std::pin::pin!(stored);
        let mut found = 0;
        while let Some(chunk) = stored.next().await {
            let chunk = chunk.map_err(|error| error.1).during(|| "read objects of the recovery point".into())?;
            found += chunk.len();
            let objects = chunk.iter().map(|(key, value)| self.prepare(key, value)).collect::<Result<Vec<_>, _>>();
            let objects = objects.during(|| "read objects of the recovery point".into())?;
            let (lives_on, objects): (Vec<_>, Vec<_>) = objects.into_iter().partition(|one| self.lives_on(&one.key));
            for one in lives_on {
                self.count(&one.key, Outcome::Kept { why: LIVES_ON.into() }, None);
            }
            let (left, made): (Vec<_>, Vec<_>) =
                objects.into_iter().partition(|one| one.loss.is_some_and(|l| l.is_whole));
            left.into_iter().for_each(|one| self.leave_out(&one));
            let losses: Vec<Option<Loss>> = made.iter().map(|one| one.loss).collect();
            let made = stream::iter(made.into_iter().map(|one| (one.key, one.object)));
            let outcomes: Vec<_> = self.applier.apply_each(made).collect().await;
            for ((key, outcome), loss) in outcomes.into_iter().zip(losses) {
                self.count(&key, outcome, loss);
            }
        }
        if found == wanted.len() {
            return Ok(());
        }
        let what = format!("{} objects of the kind {} are not there any more", wanted.len() - found, keys[0].kind);
        let object = "the table of objects of the recovery point".to_owned();
        Err(repository::Error::Damaged { object, what }).during(|| "read objects of the recovery point".into())
    }

    /// An object as it is to be made, under its name at the target.
    fn prepare(&self, key: &[u8], value: &[u8]) -> Result<Prepared, repository::Error> {
        let (key, mut object) = point::decode(key, value)?;
        clean::for_restore(&key, &mut object, options(&self.restore.spec));
        let loss = self.point.mapping.loss(&key, &object);
        let name = point::named(self.point.mapping.apply(&mut object))?;
        point::check_target(&self.namespaces, &name)?;
        Ok(Prepared { key: name, object, loss })
    }

    fn lives_on(&self, key: &ObjectKey) -> bool {
        self.livelihood
            .iter()
            .any(|own| own.is(&key.group, &key.kind) && own.namespace == key.namespace && own.name == key.name)
    }

    fn leave_out(&mut self, left: &Prepared) {
        self.outcomes.wanted += 1;
        self.outcomes.skipped += 1;
        if let Some(loss) = left.loss {
            self.note(&left.key, &format!("not made ({}): {}", loss.rule.name(), loss.rule.why()));
        }
    }

    fn count(&mut self, key: &ObjectKey, outcome: Outcome, loss: Option<Loss>) {
        self.outcomes.wanted += 1;
        if let (Outcome::Created | Outcome::Replaced | Outcome::Reduced { .. }, Some(loss)) = (&outcome, loss) {
            let rule = format!("({}): {}", loss.rule.name(), loss.rule.why());
            self.note(key, &format!("made without its conversion, and served in its stored version only {rule}"));
        }
        match outcome {
            Outcome::Created => self.outcomes.created += 1,
            Outcome::Updated => self.outcomes.updated += 1,
            Outcome::Replaced => self.outcomes.replaced += 1,
            Outcome::Reduced { replaced, fields } => {
                let count = if replaced { &mut self.outcomes.replaced } else { &mut self.outcomes.created };
                *count += 1;
                self.note(key, &format!("made without fields that this cluster does not know: {}", fields.join(", ")));
            }
            Outcome::Kept { why } => {
                tracing::debug!(object = %key, why, "kept");
                self.outcomes.kept += 1;
            }
            Outcome::Failed { reason, retryable } => self.fail(key, &reason, retryable),
        }
    }

    fn note(&mut self, key: &ObjectKey, why: &str) {
        let limits = self.restores.context.limits();
        if self.outcomes.notes.len() < limits.missed_items {
            let reason = shorten(why, limits.reason_chars);
            self.outcomes.notes.push(Missed { item: key.to_string(), reason });
        }
    }

    fn fail(&mut self, key: &ObjectKey, reason: &str, retryable: bool) {
        let limits = self.restores.context.limits();
        self.outcomes.failed += 1;
        if retryable {
            self.passing.get_or_insert_with(|| format!("{key}: {reason}"));
        }
        if self.outcomes.failed_items.len() < limits.missed_items {
            let reason = shorten(reason, limits.reason_chars);
            self.outcomes.failed_items.push(Missed { item: key.to_string(), reason });
        }
    }
}
