//! What a fresh cluster is told over its API, and when it is ready for pods.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as NodeObject, NodeSpec, NodeStatus, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::cluster::Cluster;
use crate::daemon::{Daemon, Minor};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::process::ProcessId;
use crate::wait;

/// How long an API server may take until it is ready: 4 s on two idle cores, more when clusters start side by side.
const API_LIMIT: Duration = Duration::from_secs(90);
/// How long nodes may take to get ready after their kubelets have started.
const NODES_LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
/// An answer that takes longer counts as none, and is asked for again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Before this release a pod is admitted only when its service account has a secret with a token.
const NO_TOKEN_SECRETS: Minor = Minor(24);

pub(crate) async fn until_api_ready(cluster: &Cluster, process: ProcessId) -> Result<()> {
    let client = cluster.client().await?;
    let what = format!("the start of the API server of {}", cluster.name());
    wait::until(&what, API_LIMIT, LOOK, async || {
        if !process.runs() {
            return Err(cluster.control_plane().ended(Daemon::ApiServer));
        }
        let Ok(request) = http_get("/readyz") else {
            return Ok(None);
        };
        let answer = tokio::time::timeout(ANSWER_LIMIT, client.request_text(request)).await;
        Ok(matches!(answer, Ok(Ok(text)) if text == "ok").then_some(()))
    })
    .await
}

fn http_get(path: &str) -> std::result::Result<hyper::Request<Vec<u8>>, hyper::http::Error> {
    hyper::Request::get(path).body(Vec::new())
}

/// Creates the nodes before their kubelets do: with the addresses of their pods, which a kubelet waits for, and with
/// labels that a kubelet may not set itself.
pub(crate) async fn create_nodes(cluster: &Cluster) -> Result<()> {
    let api: Api<NodeObject> = Api::all(cluster.client().await?);
    for node in cluster.nodes() {
        match api.create(&PostParams::default(), &node_object(&node)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Error::kubernetes(format!("create node {node}"))(error)),
        }
    }
    Ok(())
}

fn node_object(node: &Node<'_>) -> NodeObject {
    let (cluster, number) = (node.cluster().name(), node.number().0);
    let labels = [
        ("kubernetes.io/hostname", node.name().to_owned()),
        ("topology.kubernetes.io/region", cluster.to_owned()),
        ("topology.kubernetes.io/zone", format!("{cluster}-zone{number}")),
        ("rack", format!("{cluster}-rack{number}")),
    ];
    let pods = node.cluster().index().pods_of(node.number());
    let none =
        BTreeMap::from([("pods".to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("0".into()))]);
    NodeObject {
        metadata: ObjectMeta {
            name: Some(node.name().to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            annotations: Some(
                [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { pod_cidr: Some(pods.clone()), pod_cidrs: Some(vec![pods]), ..NodeSpec::default() }),
        // No pod is placed on it until its kubelet says what it has.
        status: Some(NodeStatus { capacity: Some(none.clone()), allocatable: Some(none), ..NodeStatus::default() }),
    }
}

/// Waits until every node is ready and pods are admitted.
///
/// A node counts only when its kubelet has said so since then: what an earlier one has said stays in etcd.
pub(crate) async fn until_ready(cluster: &Cluster, minor: Minor, since: Timestamp) -> Result<()> {
    let client = cluster.client().await?;
    let nodes: Api<NodeObject> = Api::all(client.clone());
    let wanted = usize::from(cluster.node_count());
    let what = format!("the nodes of {} to get ready", cluster.name());
    wait::until(&what, NODES_LIMIT, LOOK, async || {
        let listed = nodes.list(&ListParams::default()).await;
        let listed = listed.map_err(Error::kubernetes(format!("list the nodes of {}", cluster.name())))?;
        let ready = listed.iter().filter(|node| is_ready(node, since)).count();
        Ok((ready >= wanted).then_some(()))
    })
    .await?;
    until_pods_are_admitted(client, cluster, minor).await
}

fn is_ready(node: &NodeObject, since: Timestamp) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    // The API knows seconds only.
    let fresh = |at: &Time| at.0.as_second() >= since.as_second();
    conditions.into_iter().any(|condition| {
        condition.type_ == "Ready"
            && condition.status == "True"
            && condition.last_heartbeat_time.as_ref().is_some_and(fresh)
    })
}

async fn until_pods_are_admitted(client: Client, cluster: &Cluster, minor: Minor) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client);
    let what = format!("the default service account of {}", cluster.name());
    wait::until(&what, NODES_LIMIT, LOOK, async || {
        let account = accounts.get_opt("default").await;
        let account =
            account.map_err(Error::kubernetes(format!("get the service account default of {}", cluster.name())))?;
        let admits = |account: &ServiceAccount| {
            minor >= NO_TOKEN_SECRETS || account.secrets.as_ref().is_some_and(|secrets| !secrets.is_empty())
        };
        Ok(account.is_some_and(|account| admits(&account)).then_some(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(condition: &serde_json::Value, expected: bool) {
        let since: Timestamp = "2026-01-01T12:00:00.7Z".parse().expect("a time");
        let node = json!({"status": {"conditions": [{"type": "MemoryPressure", "status": "False"}, condition]}});
        let node: NodeObject = serde_json::from_value(node).expect("a node");
        assert_eq!(is_ready(&node, since), expected, "{condition}");
    }

    #[test]
    fn only_what_a_kubelet_has_said_since_counts() {
        let ready = |status: &str, at: &str| json!({"type": "Ready", "status": status, "lastHeartbeatTime": at});
        check(&ready("True", "2026-01-01T12:00:00Z"), true);
        check(&ready("True", "2026-01-01T12:00:05Z"), true);
        check(&ready("True", "2026-01-01T11:59:59Z"), false);
        check(&ready("False", "2026-01-01T12:00:05Z"), false);
        check(&ready("Unknown", "2026-01-01T12:00:05Z"), false);
        check(&json!({"type": "Ready", "status": "True"}), false);
    }
}
