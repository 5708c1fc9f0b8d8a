//! Replacing the daemons of nodes, one after the other, where pods with volumes go on meanwhile. Where block devices end with the daemon, somebody has to drain the node before.

use std::time::Duration;

use api::{Volume, VolumePhase};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};

use super::present::REPLICATED;
use super::ready::Deadline;
use crate::check;
use crate::cluster::Cluster;
use crate::error::{Error, Exit, Result};
use crate::verbs;

/// What the pods of the daemons have in common.
const DAEMONS: &str = "app.kubernetes.io/name=orlop-node";
/// Of which version of its DaemonSet a pod is.
const REVISION: &str = "controller-revision-hash";
/// How often it is looked whether things are so.
const LOOK: Duration = Duration::from_millis(500);

/// Replaces those that are not of the newest version, each when the one before works and volumes have all of their replicas. Returns the nodes that are to be drained first, which it leaves alone.
pub(crate) async fn replace(cluster: &Cluster, deadline: Deadline) -> Result<Vec<String>> {
    let newest = newest(cluster).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), api::STORAGE_NAMESPACE);
    let mut behind: Vec<(String, Pod)> =
        daemons(cluster, &pods).await?.into_iter().filter(|(_, pod)| !is_of(pod, &newest)).collect();
    behind.sort_by(|(a, _), (b, _)| a.cmp(b));
    let nodes: Vec<Node> = verbs::pages(&cluster.api_all()).await.map_err(|e| cluster.explain("list the nodes", e))?;
    let mut left = Vec::new();
    for (node, pod) in behind {
        if !nodes.iter().any(|one| one.name_any() == node && check::devices_outlive_daemons(one)) {
            left.push(node);
            continue;
        }
        until(
            deadline,
            &format!("wait until all replicas are in sync, before the daemon of {node} is replaced"),
            || are_whole(cluster),
        )
        .await?;
        eprintln!("node {node}: its daemon is being replaced");
        let what = || format!("replace the daemon of {node}");
        match pods.delete(&pod.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.map_err(|e| cluster.explain(what(), e))?),
        }
        let works = async || {
            let all = daemons(cluster, &pods).await?;
            Ok(all.iter().any(|(of, pod)| *of == node && is_of(pod, &newest) && check::is_ready(pod)))
        };
        until(deadline, &what(), works).await?;
    }
    Ok(left)
}

/// The nodes whose daemons hold no replicas, since they are of a time when volumes had one copy.
pub(crate) async fn hold_no_replicas(cluster: &Cluster) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), api::STORAGE_NAMESPACE);
    let holds = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| check::words(spec).any(|word| word == REPLICATED));
    let all = daemons(cluster, &pods).await?;
    let mut nodes: Vec<_> = all.into_iter().filter(|(_, pod)| !holds(pod)).map(|(node, _)| node).collect();
    nodes.sort();
    Ok(nodes)
}

/// The newest version of the DaemonSet.
async fn newest(cluster: &Cluster) -> Result<String> {
    let revisions: Api<ControllerRevision> = Api::namespaced(cluster.client(), api::STORAGE_NAMESPACE);
    let all =
        verbs::pages(&revisions).await.map_err(|e| cluster.explain("look for the newest version of the daemons", e))?;
    let is_ours = |one: &&ControllerRevision| one.owner_references().iter().any(|owner| owner.name == "orlop-node");
    let newest = all.iter().filter(is_ours).max_by_key(|one| one.revision);
    let hash = newest.and_then(|one| one.labels().get(REVISION).cloned());
    hash.ok_or_else(|| Error::new("look for the newest version of the daemons: the DaemonSet orlop-node has none yet"))
}

/// The daemons, with the nodes that they are on.
async fn daemons(cluster: &Cluster, pods: &Api<Pod>) -> Result<Vec<(String, Pod)>> {
    let all = pods.list(&ListParams::default().labels(DAEMONS)).await;
    let all = all.map_err(|e| cluster.explain("list the daemons of nodes", e))?;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Ok(all.items.into_iter().filter_map(|pod| Some((node(&pod)?, pod))).collect())
}

fn is_of(pod: &Pod, revision: &str) -> bool {
    pod.labels().get(REVISION).is_some_and(|of| of == revision) && pod.metadata.deletion_timestamp.is_none()
}

/// No volume lacks a replica that another one would have to stand for.
async fn are_whole(cluster: &Cluster) -> Result<bool> {
    let volumes: Vec<Volume> = match verbs::pages(&cluster.api_all()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        found => found.map_err(|e| cluster.explain("look whether replicas are in sync", e))?,
    };
    let is_degraded = |one: &Volume| one.status.as_ref().is_some_and(|status| status.phase == VolumePhase::Degraded);
    Ok(!volumes.iter().any(is_degraded))
}

async fn until(deadline: Deadline, what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    while !is_so().await? {
        if deadline.left().is_zero() {
            let late = Error::new(format!("{what}: not within the time that was given")).exit(Exit::TimedOut);
            return Err(late.next(format!(
                "kubectl -n {} get pods -o wide; then go on with orlop upgrade --nodes",
                api::STORAGE_NAMESPACE
            )));
        }
        tokio::time::sleep(LOOK.min(deadline.left())).await;
    }
    Ok(())
}
