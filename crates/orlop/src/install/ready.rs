//! Waiting until what was applied works.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};

use super::manifests::Storage;
use crate::cluster::Cluster;
use crate::error::{Error, Exit, Result};
use crate::run::watch_until;

/// When waiting ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Waits until the server serves a kind.
pub(crate) async fn kind_is_served(cluster: &Cluster, name: &str, deadline: Deadline) -> Result<()> {
    let what = format!("wait for the custom resource {name}");
    watch_until(
        cluster,
        cluster.api_all(),
        name,
        &what,
        Some(deadline.left()),
        |crd: Option<CustomResourceDefinition>| {
            let conditions = crd.and_then(|crd| crd.status).and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|one| one.type_ == "Established" && one.status == "True").then_some(()))
        },
    )
    .await
}

/// Waits until all pods of what was installed are ready, and returns how many nodes still run the daemon of another version.
pub(crate) async fn all_is_ready(cluster: &Cluster, storage: Storage, deadline: Deadline) -> Result<i32> {
    deployment(cluster, api::ADMIN_NAMESPACE, "orlop-operator", deadline).await?;
    if storage == Storage::None {
        return Ok(0);
    }
    daemon_set(cluster, "orlop-keeper", deadline).await?;
    let behind = daemon_set(cluster, "orlop-node", deadline).await?;
    daemon_set(cluster, "orlop-csi", deadline).await?;
    deployment(cluster, api::STORAGE_NAMESPACE, "orlop-csi-resizer", deadline).await?;
    Ok(behind)
}

async fn deployment(cluster: &Cluster, namespace: &str, name: &str, deadline: Deadline) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    let what = format!("wait for the deployment {name}");
    let mut told = String::new();
    let done = watch_until(cluster, api, name, &what, Some(deadline.left()), |state: Option<Deployment>| {
        let Some(deployment) = state else { return Ok(None) };
        tell(&mut told, progress_of(&deployment));
        Ok(is_rolled_out(&deployment).then_some(()))
    });
    done.await.map_err(|e| with_a_look(e, namespace))
}

fn progress_of(deployment: &Deployment) -> String {
    let status = deployment.status.clone().unwrap_or_default();
    let (ready, wanted) = (status.ready_replicas.unwrap_or_default(), wanted(deployment));
    format!("deployment {}: {ready} of {wanted} are ready", deployment.name_any())
}

fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// All replicas are of the newest version, and work.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let is_seen = status.observed_generation >= deployment.metadata.generation;
    let [updated, ready, all] =
        [status.updated_replicas, status.ready_replicas, status.replicas].map(Option::unwrap_or_default);
    is_seen && updated == wanted(deployment) && ready == wanted(deployment) && all == wanted(deployment)
}

async fn daemon_set(cluster: &Cluster, name: &str, deadline: Deadline) -> Result<i32> {
    let api: Api<DaemonSet> = Api::namespaced(cluster.client(), api::STORAGE_NAMESPACE);
    let what = format!("wait for the daemons {name}");
    let mut told = String::new();
    let mut nowhere = false;
    let done = watch_until(cluster, api, name, &what, Some(deadline.left()), |state: Option<DaemonSet>| {
        let Some(set) = state else { return Ok(None) };
        nowhere = is_nowhere(&set);
        tell(&mut told, progress_of_daemons(&set));
        Ok(behind(&set))
    });
    let done = done.await;
    done.map_err(|e| match (e.exit_code(), nowhere) {
        (Exit::TimedOut | Exit::Interrupted, true) => e.next(format!(
            "compare the node selector of the DaemonSet with kubectl get nodes --show-labels: kubectl -n {} get daemonset {name} -o yaml",
            api::STORAGE_NAMESPACE
        )),
        _ => with_a_look(e, api::STORAGE_NAMESPACE),
    })
}

fn progress_of_daemons(set: &DaemonSet) -> String {
    let (status, name) = (set.status.clone().unwrap_or_default(), set.name_any());
    match is_nowhere(set) {
        true => format!("daemons {name}: none, since no node is one that they are for"),
        false => {
            format!("daemons {name}: {} of {} are ready", status.number_ready, status.desired_number_scheduled)
        }
    }
}

/// Its controller has seen it, and found no node for it.
fn is_nowhere(set: &DaemonSet) -> bool {
    is_seen(set) && set.status.as_ref().is_some_and(|status| status.desired_number_scheduled == 0)
}

fn is_seen(set: &DaemonSet) -> bool {
    set.status.as_ref().and_then(|status| status.observed_generation) >= set.metadata.generation
}

/// How many nodes have a daemon of another version, once there are daemons and all of them work; those that are replaced by hand alone are not waited for.
fn behind(set: &DaemonSet) -> Option<i32> {
    let status = set.status.clone().unwrap_or_default();
    let strategy = set.spec.update_strategy.as_ref().and_then(|one| one.type_.clone());
    let by_hand = strategy.as_deref() == Some("OnDelete");
    let wanted = status.desired_number_scheduled;
    let behind = wanted - status.updated_number_scheduled.unwrap_or_default();
    (is_seen(set) && wanted > 0 && status.number_ready == wanted && (by_hand || behind == 0)).then_some(behind)
}

/// Says where waiting is, whenever it is elsewhere than before.
fn tell(told: &mut String, now: String) {
    if *told != now {
        eprintln!("{now}");
        *told = now;
    }
}

fn with_a_look(error: Error, namespace: &str) -> Error {
    match error.exit_code() {
        Exit::TimedOut | Exit::Interrupted => error.next(format!("kubectl -n {namespace} describe pods")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_deployment_is_ready_when_all_of_it_is_of_the_newest_version_and_works() {
        let check = |status: Value, expected: bool| {
            let value = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status});
            let deployment: Deployment = serde_json::from_value(value).expect("a Deployment");
            assert_eq!(is_rolled_out(&deployment), expected, "{status}");
        };
        let status = |seen: i32, all: i32, updated: i32, ready: i32| json!({"observedGeneration": seen, "replicas": all, "updatedReplicas": updated, "readyReplicas": ready});
        check(json!({}), false);
        check(status(1, 2, 2, 2), false);
        check(status(2, 2, 2, 1), false);
        check(status(2, 3, 2, 2), false);
        check(status(2, 2, 2, 2), true);
    }

    fn set(strategy: &str, seen: i64, [wanted, ready, updated]: [i32; 3]) -> DaemonSet {
        let status = json!({
            "observedGeneration": seen, "desiredNumberScheduled": wanted, "numberReady": ready, "updatedNumberScheduled": updated,
            "currentNumberScheduled": wanted, "numberMisscheduled": 0,
        });
        let spec = json!({"selector": {}, "template": {}, "updateStrategy": {"type": strategy}});
        let value = json!({"metadata": {"name": "orlop-node", "generation": 2}, "spec": spec, "status": status});
        serde_json::from_value(value).expect("a DaemonSet")
    }

    #[test]
    fn no_daemons_are_not_all_daemons() {
        let check = |seen: i64, says: &str| {
            let set = set("OnDelete", seen, [0, 0, 0]);
            assert_eq!((behind(&set), progress_of_daemons(&set).as_str()), (None, says));
        };
        check(1, "daemons orlop-node: 0 of 0 are ready");
        check(2, "daemons orlop-node: none, since no node is one that they are for");
    }

    #[test]
    fn daemons_that_are_replaced_by_hand_are_not_waited_for_but_counted() {
        let check = |strategy: &str, ready: i32, updated: i32, expected: Option<i32>| {
            let set = set(strategy, 2, [3, ready, updated]);
            assert_eq!(behind(&set), expected, "{strategy} {ready} {updated}");
        };
        check("OnDelete", 2, 3, None);
        check("OnDelete", 3, 1, Some(2));
        check("RollingUpdate", 3, 1, None);
        check("RollingUpdate", 3, 3, Some(0));
    }
}
