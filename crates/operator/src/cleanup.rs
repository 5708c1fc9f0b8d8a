//! What runs made for their own use goes when they end.
//!
//! Everything of the kind bears the label of its run, so what is left is found without remembering what was made: a crash between
//! making a thing and noting it cannot leave it behind. The label alone says nothing: whoever may make things in a namespace chooses
//! their labels, and puts finalizers on them. So a run heeds only what it can have made, and waits for that for a while only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::{ApplicationBackup, ApplicationClone, ApplicationRestore, RUN_LABEL};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::context::Context;
use crate::error::{During, Error};
use crate::hold;
use crate::mover_pod::{self, Direction};
use crate::objects::{self, Object};
use crate::snapshots;

/// Runs of which it is remembered since when they wait. More at once wait longer.
const REMEMBERED: usize = 1024;

/// What a run can have made for its own use: names follow from its uid, namespaces from its volumes.
#[derive(Clone, Debug)]
pub struct Made {
    uid: String,
    names: BTreeSet<(String, String)>,
}

impl Made {
    /// Nothing yet.
    #[must_use]
    pub fn by(uid: &str) -> Self {
        Self { uid: uid.to_owned(), names: BTreeSet::new() }
    }

    /// Adds a thing; one of the cluster's scope is in the namespace of no name.
    pub fn add(&mut self, namespace: &str, name: String) {
        self.names.insert((namespace.to_owned(), name));
    }

    /// Adds the movers of a volume, and their Secrets.
    pub fn add_movers(&mut self, namespace: &str, direction: Direction, volume: usize, attempts: u32) {
        for attempt in 1..=attempts {
            self.add(namespace, mover_pod::name(&self.uid, direction, volume, attempt));
        }
    }

    /// Whether a thing that bears the label of the run may be of it.
    fn has<K: ResourceExt>(&self, thing: &K) -> bool {
        self.names.contains(&(thing.namespace().unwrap_or_default(), thing.name_any()))
    }

    fn selector(&self) -> String {
        of_run(&self.uid)
    }
}

/// Since when runs wait for the end of what they made. An operator that begins anew waits anew.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<HashMap<String, Timestamp>>);

impl Waits {
    /// Whether a run has waited for long enough; `left` says whether there is anything to wait for.
    pub(crate) fn is_over(&self, uid: &str, left: bool, now: Timestamp, patience: Duration) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !left {
            since.remove(uid);
            return true;
        }
        if since.len() >= REMEMBERED && !since.contains_key(uid) {
            since.clear();
        }
        let since = *since.entry(uid.to_owned()).or_insert(now);
        now > since && now.duration_since(since).unsigned_abs() >= patience
    }
}

async fn labelled<K: Object>(client: &Client, selector: &str) -> Result<Vec<K>, Error> {
    let list = Api::<K>::all(client.clone()).list(&ListParams::default().labels(selector)).await;
    Ok(list.during(|| format!("list {} with the label {selector}", K::plural(&())))?.items)
}

/// The label selector of what a run made.
#[must_use]
pub fn of_run(uid: &str) -> String {
    format!("{RUN_LABEL}={uid}")
}

async fn made<K: Object>(client: &Client, made: &Made) -> Result<Vec<K>, Error> {
    let mut found = labelled::<K>(client, &made.selector()).await?;
    found.retain(|thing| made.has(thing));
    Ok(found)
}

/// Mover pods of a run, in all namespaces.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn movers(client: &Client, by: &Made) -> Result<Vec<Pod>, Error> {
    made(client, by).await
}

/// Asks for the end of everything that a run made for its own use, and says what of it is still there. The run may end when that is nothing: also
/// when it was waited for long enough. It was asked to go then, and goes as soon as nobody holds it.
///
/// # Errors
/// The API server did not answer, or refused.
pub async fn end_run(context: &Context, by: &Made) -> Result<Vec<String>, Error> {
    let left = end_all(&context.client, by).await?;
    let patience = context.limits().end_patience;
    if !context.waits.is_over(&by.uid, !left.is_empty(), Timestamp::now(), patience) {
        return Ok(left);
    }
    if !left.is_empty() {
        tracing::warn!(
            run = by.uid,
            left = left.join(", "),
            "the run ends without waiting for these any longer; see what holds them"
        );
    }
    Ok(Vec::new())
}

/// Pods go before claims: a claim that a pod uses stays until the pod is gone anyway.
async fn end_all(client: &Client, by: &Made) -> Result<Vec<String>, Error> {
    let pods: Vec<Pod> = made(client, by).await?;
    for pod in &pods {
        mover_pod::end(client, pod).await?;
    }
    let mut left = still_there(client, pods).await?;
    left.extend(remove(client, made::<Secret>(client, by).await?).await?);
    left.extend(remove(client, made::<PersistentVolumeClaim>(client, by).await?).await?);
    // Some drivers keep a snapshot for as long as a volume stands on it.
    if left.is_empty() {
        left.extend(snapshots::end(client, &by.selector(), |snapshot| !by.has(snapshot)).await?);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_has_made_what_its_names_say_where_its_volumes_are_and_nothing_else() {
        let uid = "12345678-9abc";
        let mut made = Made::by(uid);
        made.add_movers("shop", Direction::Backup, 0, 2);
        made.add("", "orlop-12345678-c0".into());
        let check = |namespace: Option<&str>, name: &str, expected: bool| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"namespace": namespace, "name": name, "labels": {RUN_LABEL: uid}},
            }))
            .expect("the test's pod is a pod");
            assert_eq!(made.has(&pod), expected, "{namespace:?} {name}");
        };
        check(Some("shop"), "orlop-12345678-b0-1", true);
        check(Some("shop"), "orlop-12345678-b0-2", true);
        check(Some("shop"), "orlop-12345678-b0-3", false);
        check(Some("shop"), "orlop-12345678-b1-1", false);
        check(Some("shop"), "orlop-12345678-r0-1", false);
        check(Some("bank"), "orlop-12345678-b0-1", false);
        check(Some("shop"), "mine", false);
        check(None, "orlop-12345678-c0", true);
        check(Some("shop"), "orlop-12345678-c0", false);
    }

    #[test]
    fn a_run_waits_for_what_it_made_and_not_for_ever() {
        let waits = Waits::default();
        let is_over = |uid, left, second| {
            let now = Timestamp::from_second(second).expect("a small number of seconds is a timestamp");
            waits.is_over(uid, left, now, Duration::from_secs(60))
        };
        assert!(!is_over("a", true, 100));
        assert!(!is_over("a", true, 159));
        assert!(!is_over("b", true, 159), "each run has its own time");
        assert!(is_over("a", true, 160));
        assert!(is_over("a", false, 161));
        assert!(!is_over("a", true, 162), "what comes later is waited for anew");
        assert!(!is_over("a", true, 100), "a clock that was set back lets nothing go early");
    }
}
