//! What a backup's next step depends on, read from the cluster and from the repository.
//!
//! Only what the stage needs is read, and all of it past the caches: a decision on an old view could start a mover twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::{ApplicationBackup, BackupStage, Failure, HookStatus, HookTime, VolumeBackup};
use application::SelectionError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::{Api, Client, ResourceExt};
use repository::{ErrorKind, PointId, RecoveryPoint};

use super::consistency::is_cut;
use super::parents::{self, Parents};
use super::store::Draft;
use super::volume::{ClaimState, attempt_that_counts, is_final};
use super::{deletion, validate};
use crate::claims::{self, ClaimFacts};
use crate::cleanup::{self, Made};
use crate::config::Limits;
use crate::context::Context;
use crate::error::{During, Error};
use crate::mover_pod::{self, Direction, MoverState, SoFar};
use crate::objects;
use crate::repositories::{LocationProblem, Opened};
use crate::rules::{self, Acting, Named, RuleFacts, Seen};
use crate::snapshots::{self, Class, Snapshot};

/// Everything that the next step depends on.
pub(super) struct Gathered {
    /// The run, as it is now.
    pub run: ApplicationBackup,
    /// Its uid.
    pub uid: String,
    /// The recovery point that it makes.
    pub point_id: PointId,
    /// Now.
    pub now: Timestamp,
    /// What its stage needs.
    pub facts: Facts,
}

/// What a stage needs.
#[allow(clippy::large_enum_variant, reason = "there is one of them in a reconcile")]
pub(super) enum Facts {
    /// Nothing more.
    None,
    /// It must not go on; why. So nothing that it says of itself was followed.
    Barred(Failure),
    /// The run is being deleted.
    Leaving(deletion::Leaving),
    /// What is to be backed up, and where to.
    Preparing(Preparing),
    /// A rule, and what was seen of its commands.
    Rule(RuleFacts),
    /// The volumes and their movers.
    Volumes(Volumes),
    /// What is to be stored, or published.
    Storing(Storing),
}

/// What is to be backed up, and where to.
pub(super) struct Preparing {
    /// The repository.
    pub location: Result<Opened, LocationProblem>,
    /// Namespaces that cannot be backed up, each with the reason.
    pub lost_namespaces: Vec<(String, &'static str)>,
    /// What is wrong with the rules.
    pub rules: Result<(), Failure>,
    /// The classes of snapshots that there are.
    pub classes: Vec<Class>,
    /// The claims that are selected.
    pub claims: Result<Vec<ClaimFacts>, SelectionError>,
}

/// The volumes and their movers.
pub(super) struct Volumes {
    /// What was seen of commands that hold something, by their index.
    pub held: BTreeMap<usize, Seen>,
    /// The repository, if a mover may be started or judged.
    pub location: Option<Result<Opened, LocationProblem>>,
    /// Mover pods of the run.
    pub movers: Vec<Pod>,
    /// Their states, by name and namespace.
    pub states: HashMap<(String, String), MoverState>,
    /// How far those that run are.
    pub so_far: HashMap<(String, String), SoFar>,
    /// Claims of volumes that wait for a mover, by the index of the volume.
    pub claims: HashMap<usize, ClaimState>,
    /// Snapshots of volumes that are read from one, by the index of the volume; nothing for one that is not there.
    pub snapshots: HashMap<usize, Option<Snapshot>>,
    /// What the volumes had before.
    pub parents: Arc<Parents>,
}

/// What is to be stored, or published.
pub(super) struct Storing {
    /// The repository.
    pub location: Result<Opened, LocationProblem>,
    /// The recovery point, if it is published already.
    pub published: Option<RecoveryPoint>,
    /// The recovery point, if it is stored and not published.
    pub draft: Option<Arc<Draft>>,
}

impl Gathered {
    /// The stage of the run.
    pub(super) fn stage(&self) -> BackupStage {
        self.run.status.as_ref().map_or(BackupStage::Pending, |s| s.stage)
    }

    /// The volumes of the run, as its status has them.
    pub(super) fn volumes(&self) -> &[VolumeBackup] {
        self.run.status.as_ref().map_or(&[], |s| s.volumes.as_slice())
    }

    /// The commands of its rules, as its status has them.
    pub(super) fn hooks(&self) -> &[HookStatus] {
        self.run.status.as_ref().map_or(&[], |s| s.hooks.as_slice())
    }

    /// Why it is going to end without a recovery point, if it is.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.run.status.as_ref()?.failure.as_ref()
    }

    /// Whether something of its rules may hold the application.
    pub(super) fn may_hold(&self) -> bool {
        let stages = BackupStage::PreExecRule..=BackupStage::PostExecRule;
        stages.contains(&self.stage()) && !self.is_cut() && rules::has_begun(self.hooks())
    }

    /// Whether the data of all volumes is fixed: read, or in a snapshot.
    pub(super) fn is_cut(&self) -> bool {
        self.run.status.as_ref().is_some_and(|status| status.consistency.is_some())
    }

    /// What it can have made for its own use.
    pub(super) fn made(&self, limits: &Limits) -> Made {
        let mut made = Made::by(&self.uid);
        for (index, volume) in self.volumes().iter().enumerate() {
            made.add_movers(&volume.namespace, Direction::Backup, index, limits.mover_attempts);
            made.add(&volume.namespace, snapshot_name(&self.uid, index));
        }
        made
    }

    /// How many of its volumes have a mover that counts. What else bears the names of its movers is about to go, and takes nobody's place.
    pub(super) fn at_work(&self, states: &HashMap<(String, String), MoverState>) -> usize {
        let has_mover = |(index, volume): (usize, &VolumeBackup)| {
            mover_name(&self.uid, index, volume)
                .is_some_and(|name| states.contains_key(&(volume.namespace.clone(), name)))
        };
        self.volumes().iter().enumerate().filter(|volume| has_mover(*volume)).count()
    }

    /// Whether it is being deleted.
    pub(super) fn is_leaving(&self) -> bool {
        self.run.metadata.deletion_timestamp.is_some()
    }

    /// On whose behalf commands of its rules run.
    pub(super) fn acting<'a>(&'a self, context: &'a Context) -> Acting<'a> {
        let scope = objects::scope(&self.run);
        Acting { containers: &*context.config.containers, limits: context.limits(), uid: &self.uid, scope }
    }
}

/// The name of the recovery point of a run: the same whoever asks, whenever.
pub(super) fn point_id(run: &ApplicationBackup) -> Result<PointId, Error> {
    let uid = objects::uid(run)?;
    let created = run.metadata.creation_timestamp.as_ref();
    let created = created.ok_or_else(|| Error::NotStored(objects::title(run), "creationTimestamp"))?.0;
    let name = format!("{}-{}", created.strftime("%Y%m%d-%H%M%S"), mover_pod::short(&uid));
    name.parse().map_err(|_| Error::NotStored(objects::title(run), "uid of letters and digits"))
}

/// Reads all of it; nothing if the run is gone.
pub(super) async fn gather(context: &Context, cached: &ApplicationBackup) -> Result<Option<Gathered>, Error> {
    let namespace = cached.namespace().unwrap_or_default();
    let Some(run) = objects::read::<ApplicationBackup>(&context.client, &namespace, &cached.name_any()).await? else {
        return Ok(None);
    };
    let (uid, point_id) = (objects::uid(&run)?, point_id(&run)?);
    let mut gathered = Gathered { run, uid, point_id, now: Timestamp::now(), facts: Facts::None };
    gathered.facts = facts(context, &gathered).await?;
    Ok(Some(gathered))
}

async fn facts(context: &Context, gathered: &Gathered) -> Result<Facts, Error> {
    // What is held in the application is let go first.
    if gathered.is_leaving() && !gathered.may_hold() {
        return Ok(Facts::Leaving(deletion::gather(context, gathered).await?));
    }
    let has_begun = !matches!(gathered.stage(), BackupStage::Pending | BackupStage::Done);
    if let Some(failure) = validate::barred(&gathered.run).filter(|_| has_begun) {
        return Ok(Facts::Barred(failure));
    }
    Ok(match gathered.stage() {
        BackupStage::Pending | BackupStage::Done => Facts::None,
        BackupStage::Preparing => Facts::Preparing(preparing(context, gathered).await?),
        BackupStage::PreExecRule => Facts::Rule(rule(context, gathered, HookTime::Pre).await?),
        BackupStage::Volumes => Facts::Volumes(volumes(context, gathered).await?),
        BackupStage::PostExecRule => Facts::Rule(rule(context, gathered, HookTime::Post).await?),
        BackupStage::Resources | BackupStage::Publishing => Facts::Storing(storing(context, gathered).await?),
    })
}

pub(super) async fn location(
    context: &Context,
    run: &ApplicationBackup,
) -> Result<Result<Opened, LocationProblem>, Error> {
    let namespace = run.namespace().unwrap_or_default();
    context.repositories.open_named(&context.client, &namespace, &run.spec.backup_location).await
}

async fn preparing(context: &Context, gathered: &Gathered) -> Result<Preparing, Error> {
    let run = &gathered.run;
    let selection = validate::selection(run);
    let lost_namespaces = lost_namespaces(&context.client, &selection.namespaces).await?;
    let claims = match lost_namespaces.is_empty() {
        true => claims::selected(&context.client, &selection).await?,
        false => Ok(Vec::new()),
    };
    let rules = rules_are_fit(context, run).await?;
    let classes = snapshots::classes(&context.client).await?;
    let claims = match claims {
        Ok(claims) if !classes.is_empty() => Ok(claims::with_drivers(&context.client, claims).await?),
        other => other,
    };
    Ok(Preparing { location: location(context, run).await?, lost_namespaces, rules, classes, claims })
}

/// The rule of a run that is to run then.
fn named<'a>(run: &'a ApplicationBackup, namespace: &'a str, time: HookTime) -> Option<Named<'a>> {
    let name = match time {
        HookTime::Pre => &run.spec.pre_exec_rule,
        HookTime::Post => &run.spec.post_exec_rule,
    };
    Some(Named { namespace, name: name.as_deref()?, time, may_hold: time == HookTime::Pre })
}

/// Finds out before anything is begun whether the rules can run.
async fn rules_are_fit(context: &Context, run: &ApplicationBackup) -> Result<Result<(), Failure>, Error> {
    let namespace = run.namespace().unwrap_or_default();
    let all = [HookTime::Pre, HookTime::Post].into_iter().filter_map(|time| named(run, &namespace, time));
    rules::are_fit(&context.client, all).await
}

async fn rule(context: &Context, gathered: &Gathered, time: HookTime) -> Result<RuleFacts, Error> {
    let namespace = gathered.run.namespace().unwrap_or_default();
    let rule = named(&gathered.run, &namespace, time);
    rules::gather(&context.client, rule, &gathered.acting(context), gathered.hooks()).await
}

/// Looks after what is held, now and then.
async fn held(context: &Context, gathered: &Gathered) -> BTreeMap<usize, Seen> {
    let is_open = gathered.hooks().iter().any(rules::is_open);
    if !is_open || !context.backups.is_time_to_beat(&gathered.uid, gathered.now, context.limits().hooks.beat) {
        return BTreeMap::new();
    }
    rules::look(&gathered.acting(context), gathered.hooks()).await
}

async fn lost_namespaces(client: &Client, names: &[String]) -> Result<Vec<(String, &'static str)>, Error> {
    let api = Api::<Namespace>::all(client.clone());
    let mut lost = Vec::new();
    for name in names {
        match api.get_opt(name).await.during(|| format!("read the namespace {name}"))? {
            None => lost.push((name.clone(), "does not exist")),
            Some(n) if n.metadata.deletion_timestamp.is_some() => lost.push((name.clone(), "is being deleted")),
            Some(_) => {}
        }
    }
    Ok(lost)
}

async fn volumes(context: &Context, gathered: &Gathered) -> Result<Volumes, Error> {
    let client = &context.client;
    let mut movers = cleanup::movers(client, &gathered.made(context.limits())).await?;
    // They only have to go before what comes next begins: they are asked to, and whoever holds one of them holds the run up for a while only.
    let is_read = gathered.volumes().iter().all(|volume| is_final(volume) || !gathered.is_cut() && is_cut(volume));
    let (now, patience) = (gathered.now, context.limits().end_patience);
    if is_read && context.waits.is_over(&gathered.uid, !movers.is_empty(), now, patience) {
        movers.clear();
    }
    let key = |pod: &Pod| (pod.namespace().unwrap_or_default(), pod.name_any());
    let states: HashMap<_, _> =
        movers.iter().map(|pod| (key(pod), mover_pod::state(pod, now, context.limits()))).collect();
    let mut so_far = HashMap::new();
    let runs: Vec<&Pod> = movers.iter().filter(|pod| states.get(&key(pod)) == Some(&MoverState::Running)).collect();
    let due = !runs.is_empty() && context.backups.is_time_to_look(&gathered.uid, gathered.now, context.limits().poll);
    for pod in runs.into_iter().filter(|_| due) {
        if let Some(progress) = mover_pod::so_far(client, pod).await {
            so_far.insert(key(pod), progress);
        }
    }
    let free = context.limits().movers_at_once.saturating_sub(gathered.at_work(&states));
    let claims = claims_that_wait(client, gathered, &states, free).await?;
    let judged = states.values().any(|s| matches!(s, MoverState::Succeeded { .. } | MoverState::Failed { .. }));
    let snapshots = snapshots_of(client, gathered).await?;
    let held = held(context, gathered).await;
    let mut facts =
        Volumes { held, location: None, movers, states, so_far, claims, snapshots, parents: Arc::default() };
    if judged || !facts.claims.is_empty() {
        let (location, parents) = location_and_parents(context, gathered).await?;
        (facts.location, facts.parents) = (Some(location), parents);
    }
    Ok(facts)
}

/// Looks at the snapshots of volumes that are read from one and have no mover yet.
async fn snapshots_of(client: &Client, gathered: &Gathered) -> Result<HashMap<usize, Option<Snapshot>>, Error> {
    let mut found = HashMap::new();
    for (index, volume) in gathered.volumes().iter().enumerate() {
        if volume.snapshot_class.is_some() && volume.stage == api::VolumeStage::Pending {
            let name = snapshot_name(&gathered.uid, index);
            found.insert(index, snapshots::read(client, &volume.namespace, &name).await?);
        }
    }
    Ok(found)
}

/// The name of the snapshot of a volume, and of the claim that it is read through.
pub(super) fn snapshot_name(uid: &str, index: usize) -> String {
    format!("orlop-{}-s{index}", mover_pod::short(uid))
}

/// Looks at the claims of volumes that have no mover yet: of all that are to be cut, and of as many others as could have one now.
async fn claims_that_wait(
    client: &Client,
    gathered: &Gathered,
    states: &HashMap<(String, String), MoverState>,
    free: usize,
) -> Result<HashMap<usize, ClaimState>, Error> {
    let (mut claims, mut others) = (HashMap::new(), 0);
    // From another one on at each look, so that volumes of which the node is full keep none of the others from asking.
    let volumes = gathered.volumes();
    let first = usize::try_from(gathered.now.as_second()).unwrap_or_default() % volumes.len().max(1);
    let in_turn = volumes.iter().enumerate().skip(first).chain(volumes.iter().enumerate().take(first));
    for (index, volume) in in_turn {
        let Some(name) = mover_name(&gathered.uid, index, volume) else { continue };
        if states.contains_key(&(volume.namespace.clone(), name)) || volume.stage == api::VolumeStage::Moving {
            continue;
        }
        let is_to_be_cut = volume.snapshot_class.is_some() && volume.cut_at.is_none();
        if !is_to_be_cut && others == free {
            continue;
        }
        others += usize::from(!is_to_be_cut);
        let claim: Option<PersistentVolumeClaim> = objects::read(client, &volume.namespace, &volume.claim).await?;
        let there = claim.is_some_and(|c| c.metadata.deletion_timestamp.is_none());
        claims.insert(index, if there { ClaimState::Present } else { ClaimState::Gone });
    }
    Ok(claims)
}

/// The name of the mover that counts for a volume.
pub(super) fn mover_name(uid: &str, index: usize, volume: &VolumeBackup) -> Option<String> {
    attempt_that_counts(volume).map(|attempt| mover_pod::name(uid, Direction::Backup, index, attempt))
}

async fn location_and_parents(
    context: &Context,
    gathered: &Gathered,
) -> Result<(Result<Opened, LocationProblem>, Arc<Parents>), Error> {
    let opened = match location(context, &gathered.run).await? {
        Ok(opened) => opened,
        Err(problem) => return Ok((Err(problem), Arc::default())),
    };
    if let Some(parents) = context.backups.parents(&gathered.uid) {
        return Ok((Ok(opened), parents));
    }
    Ok(match opened.repository.points().await {
        Ok(entries) => {
            let parents = Arc::new(parents::find(&entries, &context.cluster_id));
            context.backups.keep_parents(&gathered.uid, parents.clone());
            (Ok(opened), parents)
        }
        Err(error) => (Err(error.into()), Arc::default()),
    })
}

async fn storing(context: &Context, gathered: &Gathered) -> Result<Storing, Error> {
    let location = location(context, &gathered.run).await?;
    let draft = context.backups.draft(&gathered.uid);
    let opened = match location {
        Ok(opened) => opened,
        Err(problem) => return Ok(Storing { location: Err(problem), published: None, draft }),
    };
    Ok(match opened.repository.point(&gathered.point_id).await {
        Ok(point) => Storing { location: Ok(opened), published: Some(point), draft },
        Err(error) if error.kind() == ErrorKind::NotFound => Storing { location: Ok(opened), published: None, draft },
        Err(error) => Storing { location: Err(error.into()), published: None, draft },
    })
}
