//! What runs made for their own use goes when they end.
//!
//! Everything of the kind bears the label of its run, so what is left is found without remembering what was made: a crash between
//! making a thing and noting it cannot leave it behind.

use std::collections::{BTreeMap, BTreeSet};

use api::{ApplicationBackup, ApplicationClone, ApplicationRestore, RUN_LABEL};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::error::{During, Error};
use crate::hold;
use crate::mover_pod;
use crate::objects::{self, Object};
use crate::snapshots;

async fn labelled<K: Object>(client: &Client, selector: &str) -> Result<Vec<K>, Error> {
    let list = Api::<K>::all(client.clone()).list(&ListParams::default().labels(selector)).await;
    Ok(list.during(|| format!("list {} with the label {selector}", K::plural(&())))?.items)
}

/// The label selector of what a run made.
#[must_use]
pub fn of_run(uid: &str) -> String {
    format!("{RUN_LABEL}={uid}")
}

/// Mover pods of a run, in all namespaces.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn movers(client: &Client, uid: &str) -> Result<Vec<Pod>, Error> {
    labelled(client, &of_run(uid)).await
}

/// Asks for the end of everything that a run made for its own use, and says what is still there. The run may end when that is nothing.
/// Pods go before claims: a claim that a pod uses stays until the pod is gone anyway.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn end_run(client: &Client, uid: &str) -> Result<Vec<String>, Error> {
    let selector = of_run(uid);
    let pods: Vec<Pod> = labelled(client, &selector).await?;
    for pod in &pods {
        mover_pod::end(client, pod).await?;
    }
    let mut left = still_there(client, pods).await?;
    left.extend(remove(client, labelled::<Secret>(client, &selector).await?).await?);
    left.extend(remove(client, labelled::<PersistentVolumeClaim>(client, &selector).await?).await?);
    // Some drivers keep a snapshot for as long as a volume stands on it.
    if left.is_empty() {
        left.extend(snapshots::end(client, &selector, |_| false).await?);
    }
    Ok(left)
}

async fn remove<K: Object>(client: &Client, things: Vec<K>) -> Result<Vec<String>, Error> {
    for thing in things.iter().filter(|thing| thing.meta().deletion_timestamp.is_none()) {
        objects::delete(client, thing, None).await?;
    }
    still_there(client, things).await
}

async fn still_there<K: Object>(client: &Client, things: Vec<K>) -> Result<Vec<String>, Error> {
    let mut left = Vec::new();
    for thing in things {
        let now: Option<K> = objects::read(client, &thing.namespace().unwrap_or_default(), &thing.name_any()).await?;
        if now.is_some_and(|n| n.uid() == thing.uid()) {
            left.push(objects::title(&thing));
        }
    }
    Ok(left)
}

/// Removes what is labelled with a run that does not exist any more, such as one whose finalizer was taken off by hand, or that is over, and lets go what it held.
/// The labelled things are listed before the runs: a run that begins in between is then known, and keeps what it made.
///
/// # Errors
/// The API server did not answer, or refused. That a hold could not be let go is no error: it may last, and the next sweep tries again.
pub async fn sweep(client: &Client) -> Result<(), Error> {
    let pods: Vec<Pod> = labelled(client, RUN_LABEL).await?;
    let secrets: Vec<Secret> = labelled(client, RUN_LABEL).await?;
    let claims: Vec<PersistentVolumeClaim> = labelled(client, RUN_LABEL).await?;
    let held = hold::held(client).await;
    let mut runs =
        alive(client, |run: &ApplicationBackup| run.status.as_ref().is_some_and(|s| s.phase.is_final())).await?;
    runs.extend(
        alive(client, |run: &ApplicationRestore| run.status.as_ref().is_some_and(|s| s.phase.is_final())).await?,
    );
    runs.extend(alive(client, |run: &ApplicationClone| run.status.as_ref().is_some_and(|s| s.phase.is_final())).await?);
    remove(client, orphans(pods, &runs)).await?;
    remove(client, orphans(secrets, &runs)).await?;
    remove(client, orphans(claims, &runs)).await?;
    let is_known = |labels: &BTreeMap<String, String>| labels.get(RUN_LABEL).is_some_and(|uid| runs.contains(uid));
    snapshots::end(client, RUN_LABEL, |snapshot| is_known(snapshot.labels())).await?;
    // Last, since these are others' kinds: one that does not answer keeps nothing else from going.
    if let Err(error) = held.let_go(client, |uid| !runs.contains(uid)).await {
        tracing::warn!(%error, "not everything is let go that is held by runs that are over; what could be is");
    }
    Ok(())
}

async fn alive<K: Object>(client: &Client, is_over: impl Fn(&K) -> bool) -> Result<BTreeSet<String>, Error> {
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    let list = list.during(|| format!("list {}", K::plural(&())))?;
    Ok(list.items.iter().filter(|run| !is_over(run)).filter_map(ResourceExt::uid).collect())
}

fn orphans<K: Object>(things: Vec<K>, runs: &BTreeSet<String>) -> Vec<K> {
    let known = |thing: &K| thing.labels().get(RUN_LABEL).is_some_and(|uid| runs.contains(uid));
    let orphans: Vec<K> = things.into_iter().filter(|thing| !known(thing)).collect();
    for orphan in &orphans {
        tracing::warn!(what = objects::title(orphan), "removed: its run is over or does not exist any more");
    }
    orphans
}
