//! The end of the custom resources, and of what the cluster has of backups: in an order in which nothing that is to be removed from a repository stays there.

use api::{ApplicationBackup, ApplicationBackupSchedule, ApplicationClone, ApplicationRestore};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};

use super::ready::Deadline;
use crate::cluster::Cluster;
use crate::error::{Error, Exit, Result};
use crate::run::watch_until;
use crate::verbs::{self, Kind};

/// Without an operator nobody lets go of what it holds.
pub(super) async fn refuse_held(cluster: &Cluster, crds: &[CustomResourceDefinition]) -> Result<()> {
    for crd in crds {
        let (kind, plural) = (&crd.spec.names.kind, &crd.spec.names.plural);
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(api::GROUP, api::VERSION, kind));
        resource.plural.clone_from(plural);
        let all = verbs::pages(&Api::<DynamicObject>::all_with(cluster.client(), &resource)).await;
        let all = all.map_err(|e| cluster.explain(format!("list {plural}"), e))?;
        let held: Vec<_> = all.iter().filter(|one| !one.finalizers().is_empty()).map(ResourceExt::name_any).collect();
        if !held.is_empty() {
            let says = format!(
                "delete the custom resources: no operator is at work to let go of {plural} {}",
                held.join(", ")
            );
            return Err(Error::new(says).next(
                "orlop install, wait until it works, and uninstall again; or take their finalizers off by hand: recovery points stay then",
            ));
        }
    }
    Ok(())
}

/// Deletes them with all resources of their kinds, and waits until the operator has let go of those.
///
/// What the operator removes from a repository it removes through the location, so that goes last. Schedules go first, since they make backups; and resources before
/// their definitions, since the operator reads some kinds for the sake of others.
pub(super) async fn delete(cluster: &Cluster, crds: &[CustomResourceDefinition], deadline: Deadline) -> Result<()> {
    delete_all::<ApplicationBackupSchedule>(cluster, crds, deadline).await?;
    delete_all::<ApplicationRestore>(cluster, crds, deadline).await?;
    delete_all::<ApplicationClone>(cluster, crds, deadline).await?;
    delete_all::<ApplicationBackup>(cluster, crds, deadline).await?;
    // A definition that is being deleted takes no new resources: what was made meanwhile goes here, while there are locations.
    let (runs, rest): (Vec<_>, Vec<_>) = crds.iter().partition(|crd| {
        is_of::<ApplicationBackupSchedule>(crd)
            || is_of::<ApplicationRestore>(crd)
            || is_of::<ApplicationClone>(crd)
            || is_of::<ApplicationBackup>(crd)
    });
    delete_definitions(cluster, &runs, deadline).await?;
    delete_definitions(cluster, &rest, deadline).await
}

fn is_of<K: Kind>(crd: &CustomResourceDefinition) -> bool {
    crd.spec.names.kind == K::kind(&())
}

async fn delete_all<K: Kind>(cluster: &Cluster, crds: &[CustomResourceDefinition], deadline: Deadline) -> Result<()> {
    if !crds.iter().any(is_of::<K>) {
        return Ok(());
    }
    let found = verbs::all::<K>(cluster, &cluster.api_all()).await?;
    let beside = |one: &K| Api::<K>::namespaced(cluster.client(), &one.namespace().unwrap_or_default());
    let what = |one: &K| format!("delete {} {}", K::NOUN, one.name_any());
    for one in &found {
        match beside(one).delete(&one.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(|e| cluster.explain(what(one), e))?),
        }
    }
    for one in &found {
        verbs::wait_gone(cluster, beside(one), one, &what(one), Some(deadline.left())).await?;
    }
    Ok(())
}

async fn delete_definitions(cluster: &Cluster, crds: &[&CustomResourceDefinition], deadline: Deadline) -> Result<()> {
    let api: Api<CustomResourceDefinition> = cluster.api_all();
    for crd in crds {
        match api.delete(&crd.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(|e| cluster.explain(format!("delete {}", crd.name_any()), e))?),
        }
    }
    for crd in crds {
        let (name, uid) = (crd.name_any(), crd.uid());
        let what = format!("wait until {name} is gone");
        let gone = watch_until(
            cluster,
            api.clone(),
            &name,
            &what,
            Some(deadline.left()),
            |state: Option<CustomResourceDefinition>| {
                // One of the same name that was made since is another one.
                Ok(state.is_none_or(|now| now.uid() != uid).then_some(()))
            },
        );
        gone.await.map_err(|e| match e.exit_code() {
            Exit::TimedOut | Exit::Interrupted => {
                e.next(format!("see what is left of them: kubectl get {name} -A; then uninstall again"))
            }
            _ => e,
        })?;
    }
    Ok(())
}
