//! Doing the next step of a clone, and saying what was done.

use std::sync::Arc;

use api::{ApplicationClone, Failure, RUN_LABEL, ReplacePolicy, VolumeClone};
use application::{Applied as Outcome, Applier, Nameless, ObjectKey, Patience, RestoreOptions, clean, discover};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::facts::{Facts, Gathered};
use super::gather::snapshot_name;
use super::make::{self, Made};
use super::plan::Plan;
use super::validate::{failure, mapping};
use super::volume::{Step, patient};
use crate::claims::{self, SELECTED_NODE};
use crate::cleanup;
use crate::context::Context;
use crate::error::{During, Error};
use crate::objects;
use crate::restore::claim_manifest;
use crate::snapshots::{self, Import};

/// What was done.
pub(super) enum Applied {
    /// Nothing, and nothing will be.
    Rested,
    /// Nothing yet.
    Waited(String),
    /// The run is over.
    Failed(Failure),
    /// It has begun; these are its volumes.
    Begun(Box<ApplicationClone>, Vec<VolumeClone>),
    /// Something was made that others depend on.
    Again,
    /// Steps of volumes, by their index.
    Moved {
        /// As they were taken: a step may turn into another one.
        done: Vec<(usize, Step)>,
        /// Why others were not: the first of the reasons. What was done is noted all the same.
        error: Option<Error>,
    },
    /// Nothing temporary is left of the volumes.
    Left,
    /// Some objects could not be made for the moment.
    MadeInPart(String),
    /// The objects are made, as far as they can be.
    Made(Box<Made>),
}

/// Does what is planned.
///
/// # Errors
/// The API server did not answer; the same is planned again.
pub(super) async fn apply(context: &Context, gathered: &Gathered, plan: Plan) -> Result<Applied, Error> {
    let client = &context.client;
    match plan {
        Plan::Rest => {
            objects::set_finalizer(client, &gathered.run, false).await?;
            Ok(Applied::Rested)
        }
        Plan::Wait(why) => Ok(Applied::Waited(why)),
        Plan::Fail(failure) => Ok(still_there(context, gathered).await?.unwrap_or(Applied::Failed(failure))),
        Plan::Begin(volumes) => {
            Ok(Applied::Begun(Box::new(objects::set_finalizer(client, &gathered.run, true).await?), volumes))
        }
        Plan::MakeNamespace => make_namespace(context, gathered).await,
        Plan::Move(steps) => Ok(take_steps(context, gathered, steps).await),
        Plan::Leave => Ok(still_there(context, gathered).await?.unwrap_or(Applied::Left)),
        Plan::Make { held_back } => make::make(context, gathered, held_back).await,
        Plan::Undo => {
            if let Some(waits) = still_there(context, gathered).await? {
                return Ok(waits);
            }
            objects::set_finalizer(client, &gathered.run, false).await?;
            Ok(Applied::Rested)
        }
    }
}

/// Asks for the end of everything that was made for the run; what of it is still there, if anything.
async fn still_there(context: &Context, gathered: &Gathered) -> Result<Option<Applied>, Error> {
    let left = cleanup::end_run(context, &made(gathered)).await?;
    Ok((!left.is_empty()).then(|| Applied::Waited(format!("waits for {} to go", left.join(", ")))))
}

/// What it can have made for its own use. A claim in the destination is that for as long as it is not done.
fn made(gathered: &Gathered) -> cleanup::Made {
    let (spec, mut made) = (&gathered.run.spec, cleanup::Made::by(&gathered.uid));
    for (index, volume) in gathered.status().volumes.iter().enumerate() {
        for namespace in [spec.source_namespace.as_str(), spec.destination_namespace.as_str(), ""] {
            made.add(namespace, snapshot_name(&gathered.uid, index));
        }
        made.add(&spec.destination_namespace, volume.claim.clone());
    }
    made
}

/// What makes objects for a run, by a policy.
pub(super) async fn applier(
    context: &Context,
    gathered: &Gathered,
    policy: application::ReplacePolicy,
) -> Result<Applier, Error> {
    let (client, patience) = (context.client.clone(), Patience::default());
    let catalog = discover(&client, &patience).await.map_err(|failure| Error::Application {
        doing: "ask what kinds the cluster has".into(),
        source: failure.into(),
    })?;
    Ok(Applier::new(client, Arc::new(catalog), gathered.uid.clone(), policy, patience))
}

/// Makes the destination as the source is.
async fn make_namespace(context: &Context, gathered: &Gathered) -> Result<Applied, Error> {
    let name = &gathered.run.spec.source_namespace;
    let found = Api::<Namespace>::all(context.client.clone()).get_opt(name).await;
    let Some(source) = found.during(|| format!("read the namespace {name}"))? else {
        return Ok(Applied::Failed(failure("NamespaceNotFound", format!("the namespace {name} was deleted"))));
    };
    let mut object = serde_json::to_value(&source).during(|| format!("write the namespace {name}"))?;
    (object["apiVersion"], object["kind"]) = ("v1".into(), "Namespace".into());
    let fitted = fit(&gathered.run, &mut object);
    let Ok(key) = fitted else { return Ok(Applied::Failed(failure("Damaged", "the namespace has no name"))) };
    let applier = applier(context, gathered, application::ReplacePolicy::Retain).await?;
    Ok(match applier.apply(&key, &object).await {
        Outcome::Failed { reason, retryable: true } => Applied::Waited(reason),
        Outcome::Failed { reason, retryable: false } => {
            let message = format!("the namespace {} was not made: {reason}", gathered.run.spec.destination_namespace);
            Applied::Failed(failure("NamespaceNotMade", message))
        }
        _ => Applied::Again,
    })
}

/// Makes of an object of the source what is to be made in the destination; its key there.
fn fit(run: &ApplicationClone, object: &mut Value) -> Result<ObjectKey, Nameless> {
    clean::for_storage(object);
    clean::for_restore(&ObjectKey::of(object)?, object, RestoreOptions::default());
    mapping(run).apply(object)
}

/// Takes the steps of all volumes: trouble with one keeps no other from its own.
async fn take_steps(context: &Context, gathered: &Gathered, steps: Vec<(usize, Step)>) -> Applied {
    let (mut done, mut error) = (Vec::with_capacity(steps.len()), None);
    let volumes = gathered.status().volumes;
    for (index, step) in steps {
        let Some(volume) = volumes.get(index) else { continue };
        match take_step(context, gathered, index, volume, step).await {
            Ok(step) => done.push((index, step)),
            Err(trouble) => match trouble.creation_refusal() {
                Some(why) => done.push((index, patient(volume, gathered.now, context.limits().object_patience, &why))),
                None => drop(error.get_or_insert(trouble)),
            },
        }
    }
    Applied::Moved { done, error }
}

/// Takes a step; the one that was taken.
async fn take_step(
    context: &Context,
    gathered: &Gathered,
    index: usize,
    volume: &VolumeClone,
    step: Step,
) -> Result<Step, Error> {
    let (client, uid, spec) = (&context.client, &gathered.uid, &gathered.run.spec);
    let name = snapshot_name(uid, index);
    match &step {
        Step::Cut => {
            let class = volume.snapshot_class.as_deref().unwrap_or_default();
            snapshots::take(client, uid, &spec.source_namespace, &name, &volume.claim, class).await?;
        }
        Step::Import => {
            let handle = volume_handle(context, &spec.source_namespace, &volume.claim).await?;
            let Some(volume_handle) = handle else {
                return Ok(Step::Miss("its claim has another volume than that which was to be cloned".into()));
            };
            let (from, into) = (&spec.source_namespace, &spec.destination_namespace);
            let import = Import { run_uid: uid, name: &name, from, into, volume_handle: &volume_handle };
            if let Err(why) = snapshots::import(client, &import).await? {
                return Ok(Step::Miss(why));
            }
        }
        Step::Make => return make_claim(context, gathered, index, volume).await,
        Step::Release { uid } => {
            let patch = json!({"metadata": {"uid": uid, "labels": {RUN_LABEL: null}}});
            let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &spec.destination_namespace);
            let patched = api.patch(&volume.claim, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.during(|| format!("let the claim {}/{} stay", spec.destination_namespace, volume.claim))?;
            return Ok(Step::Done);
        }
        Step::Keep | Step::Done | Step::Wait(_) | Step::Miss(_) => {}
    }
    Ok(step)
}

/// The volume of a claim as its driver knows it. Whose a volume is stands on the volume: a claim may name one that is somebody else's.
async fn volume_handle(context: &Context, namespace: &str, claim: &str) -> Result<Option<String>, Error> {
    let Some(claim) = objects::read::<PersistentVolumeClaim>(&context.client, namespace, claim).await? else {
        return Ok(None);
    };
    let Some(name) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) else { return Ok(None) };
    let found = Api::<PersistentVolume>::all(context.client.clone()).get_opt(&name).await;
    let spec = found.during(|| format!("read the PersistentVolume {name}"))?.and_then(|volume| volume.spec);
    let is_its = |uid: Option<String>| uid.is_some() && uid == claim.uid();
    let spec = spec.filter(|spec| is_its(spec.claim_ref.as_ref().and_then(|of| of.uid.clone())));
    Ok(spec.and_then(|spec| Some(spec.csi?.volume_handle)))
}

/// Makes a claim like that of the source, whose volume is made from the snapshot.
async fn make_claim(context: &Context, gathered: &Gathered, index: usize, volume: &VolumeClone) -> Result<Step, Error> {
    let (client, spec, name) = (&context.client, &gathered.run.spec, snapshot_name(&gathered.uid, index));
    let Facts::Volumes { seen, .. } = &gathered.facts else { return Ok(Step::Keep) };
    let source: Option<PersistentVolumeClaim> = objects::read(client, &spec.source_namespace, &volume.claim).await?;
    let (Some(source), Some(snapshot)) = (source, seen.get(index).and_then(|seen| seen.snapshot.clone())) else {
        return Ok(Step::Miss("its claim was deleted before it was copied".into()));
    };
    let mut object = serde_json::to_value(&source).during(|| format!("write the claim {}", volume.claim))?;
    clean::for_storage(&mut object);
    let Ok(mut claim) = claim_manifest(&object, &mapping(&gathered.run)) else {
        return Ok(Step::Miss("its claim does not say what it is".into()));
    };
    claim["spec"]["dataSource"] = snapshots::data_source(&name);
    claim["spec"]["resources"]["requests"]["storage"] = snapshots::size(&source, &snapshot).into();
    set(&mut claim, "labels", RUN_LABEL, &gathered.uid);
    let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
    if claims::waits_for_a_node(client, class).await? == Some(true) {
        let Some(node) = claims::place(client, &spec.source_namespace, &volume.claim).await? else {
            let why =
                "no pod that runs tells any more on which node its volume is to be made; clone again when one does";
            return Ok(Step::Miss(why.into()));
        };
        set(&mut claim, "annotations", SELECTED_NODE, &node);
    }
    // A claim that has come up since the volumes were listed is somebody's, unless all are to be replaced.
    let policy = match spec.replace_policy {
        ReplacePolicy::Delete => application::ReplacePolicy::Delete,
        ReplacePolicy::Retain | ReplacePolicy::Update => application::ReplacePolicy::Retain,
    };
    let Ok(key) = ObjectKey::of(&claim) else { return Ok(Step::Keep) };
    let applier = applier(context, gathered, policy).await?;
    Ok(match applier.apply(&key, &claim).await {
        Outcome::Kept { why } => Step::Miss(format!("a claim of its name came up in the destination: {why}")),
        Outcome::Failed { reason, retryable: false } => Step::Miss(reason),
        Outcome::Failed { reason, retryable: true } => {
            patient(volume, gathered.now, context.limits().mover_start_deadline, &reason)
        }
        _ => Step::Make,
    })
}

fn set(object: &mut Value, map: &str, key: &str, value: &str) {
    if !object["metadata"][map].is_object() {
        object["metadata"][map] = json!({});
    }
    object["metadata"][map][key] = value.into();
}
