//! Keeps clusters that were given as they were: refuses to begin where something of ours would meet something of theirs, marks
//! what is made, and deletes nothing but what bears the mark. Orlop itself stays.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{demo, pods, shop};

/// Bears the name of the run that made an object.
pub const RUN_LABEL: &str = "scenarios.orlop.io/run";

/// The namespace of the tests that follow the demo.
pub const FILES: &str = "files";
/// The volume of the tests that follow the demo.
pub const BROKEN: &str = "broken";
/// The backups of the tests that follow the demo.
pub const BACKUPS: [&str; 3] = ["killed-mover", "killed-operator", "broken-volume"];

/// For a namespace with running pods to be gone.
const LIMIT: Duration = Duration::from_secs(180);

/// Refuses a cluster in which something has a name that the scenarios use: it would be taken for theirs.
///
/// # Errors
/// There is such a thing, or the cluster does not answer.
pub async fn refuse_existing(client: &Client) -> anyhow::Result<()> {
    let admin = api::ADMIN_NAMESPACE;
    let mut found = Vec::new();
    let namespaces = Api::<Namespace>::all(client.clone());
    for name in [shop::NAMESPACE, demo::RESTORED, FILES] {
        look(&mut found, &namespaces, name).await?;
    }
    look(&mut found, &Api::<PersistentVolume>::all(client.clone()), BROKEN).await?;
    let backups = Api::<api::ApplicationBackup>::namespaced(client.clone(), admin);
    for name in BACKUPS {
        look(&mut found, &backups, name).await?;
    }
    let schedules = Api::<api::ApplicationBackupSchedule>::namespaced(client.clone(), admin);
    look(&mut found, &schedules, demo::SCHEDULE).await?;
    let policies = Api::<api::NamespacedSchedulePolicy>::namespaced(client.clone(), admin);
    look(&mut found, &policies, demo::SCHEDULE_POLICY).await?;
    let restores = Api::<api::ApplicationRestore>::namespaced(client.clone(), admin);
    for name in [demo::PLAN, demo::RESTORE] {
        look(&mut found, &restores, name).await?;
    }
    look(&mut found, &Api::<api::BackupLocation>::namespaced(client.clone(), admin), demo::LOCATION).await?;
    look(&mut found, &Api::<api::Rule>::namespaced(client.clone(), admin), demo::RULE).await?;
    look(&mut found, &Api::<Secret>::namespaced(client.clone(), admin), &location_secret()).await?;
    if !found.is_empty() {
        bail!("there is already, and will not be touched: {}; use a cluster that has none of these", found.join(", "));
    }
    Ok(())
}

/// The Secret that `orlop location add` makes.
fn location_secret() -> String {
    format!("orlop-location-{}", demo::LOCATION)
}

async fn look<K>(found: &mut Vec<String>, api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.get(name).await {
        Err(error) if is_absent(&error) => {}
        Ok(_) => found.push(format!("{} {name}", K::kind(&()).to_lowercase())),
        Err(error) => return Err(error).with_context(|| format!("look for {name}")),
    }
    Ok(())
}

/// Whether there is no such object, or no such kind, which has no objects either; both have one code, but only the first a reason.
fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// A manifest with the mark where it has `RUN_LABEL: RUN`.
#[must_use]
pub fn marked(manifest: &str, run: &str) -> String {
    manifest.replace("RUN_LABEL: RUN", &format!("{RUN_LABEL}: {run}"))
}

/// Marks an object that a command has just made.
///
/// # Errors
/// It is not there, or cannot be changed.
pub async fn mark<K>(api: &Api<K>, name: &str, run: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let label = json!({"metadata": {"labels": {RUN_LABEL: run}}});
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(label)).await;
    patched.map(drop).with_context(|| format!("mark {name}"))
}

/// Marks the location of the demo and its Secret.
///
/// # Errors
/// One of them is not there, or cannot be changed.
pub(crate) async fn mark_location(client: &Client, run: &str) -> anyhow::Result<()> {
    let admin = api::ADMIN_NAMESPACE;
    mark(&Api::<api::BackupLocation>::namespaced(client.clone(), admin), demo::LOCATION, run).await?;
    mark(&Api::<Secret>::namespaced(client.clone(), admin), &location_secret(), run).await
}

/// Deletes what a run has made in a cluster, and waits until it is gone.
///
/// # Errors
/// Something cannot be deleted, or is not gone in time.
pub async fn remove(client: &Client, run: &str) -> anyhow::Result<()> {
    let admin = api::ADMIN_NAMESPACE;
    delete(&Api::<api::ApplicationRestore>::namespaced(client.clone(), admin), run).await?;
    // With their runs and the recovery points of these.
    delete(&Api::<api::ApplicationBackupSchedule>::namespaced(client.clone(), admin), run).await?;
    delete(&Api::<api::NamespacedSchedulePolicy>::namespaced(client.clone(), admin), run).await?;
    delete(&Api::<api::ApplicationBackup>::namespaced(client.clone(), admin), run).await?;
    delete(&Api::<api::Rule>::namespaced(client.clone(), admin), run).await?;
    delete(&Api::<api::BackupLocation>::namespaced(client.clone(), admin), run).await?;
    delete(&Api::<Secret>::namespaced(client.clone(), admin), run).await?;
    delete(&Api::<Namespace>::all(client.clone()), run).await?;
    delete(&Api::<PersistentVolume>::all(client.clone()), run).await
}

/// Deletes the objects of one kind that bear the mark.
async fn delete<K>(api: &Api<K>, run: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let marked = ListParams::default().labels(&format!("{RUN_LABEL}={run}"));
    let kind = K::kind(&());
    let found = match api.list(&marked).await {
        Err(error) if is_absent(&error) => return Ok(()),
        listed => listed.with_context(|| format!("list what is marked of kind {kind}"))?,
    };
    for object in found {
        let name = object.name_any();
        // Another object that has got the name meanwhile is not meant.
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&name, &params).await {
            Err(error) if is_absent(&error) => {}
            deleted => drop(deleted.with_context(|| format!("delete {kind} {name}"))?),
        }
    }
    pods::wait_for(&format!("the end of what was marked of kind {kind}"), LIMIT, || async {
        Ok(api.list(&marked).await?.items.is_empty().then_some(()))
    })
    .await
}
