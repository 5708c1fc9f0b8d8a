//! Looking at a clone and at what its stage depends on, past the caches.

use std::collections::BTreeMap;

use api::{ApplicationClone, CloneStage, VolumeClone};
use application::apply::RESTORED_BY;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Client, ResourceExt};

use super::facts::{Claim, Facts, Gathered, Preparing};
use super::validate;
use super::volume::{self, Made, Seen};
use crate::admission;
use crate::claims::{self, SELECTED_NODE};
use crate::context::Context;
use crate::error::Error;
use crate::mover_pod;
use crate::objects;
use crate::restore::{NamespaceState, claim_users, namespace_state};
use crate::snapshots;

/// The name of what is made between a volume and its clone: both snapshots, and the content that makes the second one known.
pub(super) fn snapshot_name(uid: &str, index: usize) -> String {
    format!("orlop-{}-c{index}", mover_pod::short(uid))
}

/// Reads all of it; nothing if the run is gone.
pub(super) async fn gather(context: &Context, cached: &ApplicationClone) -> Result<Option<Gathered>, Error> {
    let namespace = cached.namespace().unwrap_or_default();
    let Some(run) = objects::read::<ApplicationClone>(&context.client, &namespace, &cached.name_any()).await? else {
        return Ok(None);
    };
    let uid = objects::uid(&run)?;
    let facts = facts(context, &run, &uid).await?;
    Ok(Some(Gathered { run, uid, now: Timestamp::now(), facts }))
}

async fn facts(context: &Context, run: &ApplicationClone, uid: &str) -> Result<Facts, Error> {
    let status = run.status.clone().unwrap_or_default();
    // A run that is over is not followed in what it says, and one that is leaving only in its uid.
    if status.phase.is_final() {
        return Ok(Facts::Over);
    }
    if run.metadata.deletion_timestamp.is_some() {
        return Ok(Facts::Leaving);
    }
    if let Some(failure) = validate::barred(run) {
        return Ok(Facts::Barred(failure));
    }
    Ok(match status.stage {
        CloneStage::Pending | CloneStage::Preparing => Facts::Preparing(preparing(context, run).await?),
        CloneStage::Volumes => Facts::Volumes {
            destination: namespace_state(&context.client, &run.spec.destination_namespace).await?,
            seen: seen(&context.client, run, uid, &status.volumes).await?,
        },
        CloneStage::Resources | CloneStage::Done => Facts::Resources,
    })
}

async fn preparing(context: &Context, run: &ApplicationClone) -> Result<Preparing, Error> {
    let (client, spec) = (&context.client, &run.spec);
    let mut facts = Preparing {
        waits: None,
        source: None,
        destination: None,
        others: Vec::new(),
        claims: Ok(Vec::new()),
        existing: Default::default(),
        users: BTreeMap::new(),
        classes: Vec::new(),
        admission: None,
    };
    // Nobody waits here, in a place that others need to go on with what they have begun.
    match context.admission.clone().try_lock_owned() {
        Ok(admission) => facts.admission = Some(admission),
        Err(_) => facts.waits = Some("another run is beginning just now".into()),
    }
    if facts.waits.is_some() {
        return Ok(facts);
    }
    facts.others = admission::others(client, run).await?;
    facts.source = Some(namespace_state(client, &spec.source_namespace).await?);
    facts.destination = Some(namespace_state(client, &spec.destination_namespace).await?);
    if facts.source != Some(NamespaceState::Active) {
        return Ok(facts);
    }
    facts.classes = snapshots::classes(client).await?;
    facts.claims = claims_of(client, run).await?;
    let existing = objects::list::<PersistentVolumeClaim>(client, &spec.destination_namespace).await?;
    facts.existing = existing.iter().map(ResourceExt::name_any).collect();
    facts.users = claim_users(client, &spec.destination_namespace).await?;
    Ok(facts)
}

async fn claims_of(client: &Client, run: &ApplicationClone) -> Result<Result<Vec<Claim>, String>, Error> {
    let selected = match claims::selected(client, &validate::selection(run)).await? {
        Ok(selected) => claims::with_drivers(client, selected).await?,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut found = Vec::new();
    // One without a volume is an object like others.
    for facts in selected.into_iter().filter(|claim| claim.bound) {
        let waits_for_a_node = claims::waits_for_a_node(client, &facts.storage_class).await?;
        let node = match waits_for_a_node {
            Some(true) => claims::place(client, &facts.namespace, &facts.name).await?,
            _ => None,
        };
        found.push(Claim { facts, waits_for_a_node, node });
    }
    Ok(Ok(found))
}

/// Looks at all volumes that are not done with.
async fn seen(client: &Client, run: &ApplicationClone, uid: &str, volumes: &[VolumeClone]) -> Result<Vec<Seen>, Error> {
    let (source, destination) = (&run.spec.source_namespace, &run.spec.destination_namespace);
    let mut all = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let name = snapshot_name(uid, index);
        let mut seen = Seen::default();
        if !volume::is_final(volume) {
            let claim: Option<PersistentVolumeClaim> = objects::read(client, source, &volume.claim).await?;
            seen.is_there = claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_none());
            seen.snapshot = snapshots::read(client, source, &name).await?;
            seen.imported = snapshots::imported(client, destination, &name).await?;
            seen.made = made(client, destination, &volume.claim, uid, &name).await?;
        }
        all.push(seen);
    }
    Ok(all)
}

/// The claim in the destination, if this run has made it.
async fn made(client: &Client, namespace: &str, claim: &str, uid: &str, snapshot: &str) -> Result<Option<Made>, Error> {
    let Some(claim) = objects::read::<PersistentVolumeClaim>(client, namespace, claim).await? else { return Ok(None) };
    let note = claim.annotations().get(RESTORED_BY).map(String::as_str).unwrap_or_default();
    let is_ours = note.split_once('/').is_some_and(|(run, _)| run == uid);
    let spec = claim.spec.clone().unwrap_or_default();
    let is_bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let has_source =
        spec.data_source.as_ref().is_some_and(|source| source.kind == "VolumeSnapshot" && source.name == snapshot);
    let is_labelled = claim.labels().contains_key(api::RUN_LABEL);
    // A driver that has no room on the node takes its name away, so that a scheduler finds another; here there is none yet.
    let lacks_node = !is_bound
        && !claim.annotations().contains_key(SELECTED_NODE)
        && claims::waits_for_a_node(client, &spec.storage_class_name.unwrap_or_default()).await? == Some(true);
    Ok(is_ours.then(|| Made { uid: claim.uid().unwrap_or_default(), has_source, is_bound, is_labelled, lacks_node }))
}
