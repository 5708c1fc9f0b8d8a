//! The daemons of nodes, and how they are replaced.

use std::time::Duration;

use api::Volume;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::Cluster;

impl Cluster {
    /// What controllers would say once all pods work; of the daemons of nodes, how many are of the newest version.
    async fn everything_is_ready(&self, updated: i32) {
        for (namespace, name) in [("orlop-system", "orlop-operator"), ("orlop-storage", "orlop-csi-resizer")] {
            let api: Api<Deployment> = Api::namespaced(self.client(), namespace);
            let seen = api.get(name).await.unwrap().metadata.generation;
            let status = json!({"observedGeneration": seen, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2});
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await.unwrap();
        }
        for (name, updated) in [("orlop-keeper", 2), ("orlop-node", updated), ("orlop-csi", 2)] {
            let seen = self.daemons().get(name).await.unwrap().metadata.generation;
            let status = json!({
                "observedGeneration": seen, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberReady": 2, "numberMisscheduled": 0,
                "updatedNumberScheduled": updated,
            });
            self.daemons()
                .patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status})))
                .await
                .unwrap();
        }
    }

    async fn node(&self, name: &str, kernel: &str) {
        let nodes: Api<Node> = Api::all(self.client());
        let node = json!({"metadata": {"name": name}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let info = json!({
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": kernel, "kubeProxyVersion": "",
            "kubeletVersion": "v1.20.2", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
        });
        let status = Patch::Merge(json!({"status": {"nodeInfo": info}}));
        nodes.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client(), "orlop-storage")
    }

    /// A daemon of a version, as the controller of its set makes one.
    async fn daemon(&self, name: &str, node: &str, revision: &str) {
        self.daemon_with(name, node, revision, &["node", "--cluster"]).await;
    }

    async fn daemon_with(&self, name: &str, node: &str, revision: &str, args: &[&str]) {
        let labels = json!({"app.kubernetes.io/name": "orlop-node", "controller-revision-hash": revision});
        let spec = json!({"nodeName": node, "containers": [{"name": "node", "image": "x", "args": args}], "automountServiceAccountToken": false});
        let pod = json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let status = Patch::Merge(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        self.pods().patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    async fn revision(&self, hash: &str, number: i64) {
        let set = self.daemons().get("orlop-node").await.unwrap();
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "orlop-node", "uid": set.metadata.uid});
        let metadata = json!({"name": hash, "labels": {"controller-revision-hash": hash}, "ownerReferences": [owner]});
        let revision = json!({"metadata": metadata, "revision": number, "data": {}});
        let api: Api<ControllerRevision> = Api::namespaced(self.client(), "orlop-storage");
        api.create(&PostParams::default(), &serde_json::from_value(revision).unwrap()).await.unwrap();
    }

    async fn is_being_deleted(&self, pod: &str) -> bool {
        self.pods().get_opt(pod).await.unwrap().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_are_replaced_one_after_the_other_where_pods_go_on_and_nowhere_else() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    cluster.run(&["install", "--storage", "replicated", "--no-wait"]).await.good();
    for (node, kernel) in [("a", "6.12.1"), ("b", "6.9.0"), ("old", "6.8.12")] {
        cluster.node(node, kernel).await;
        cluster.daemon(&format!("{node}-1"), node, "first").await;
    }
    for (hash, number) in [("first", 1), ("second", 2)] {
        cluster.revision(hash, number).await;
    }
    cluster.everything_is_ready(0).await;
    cluster.run(&["upgrade"]).await.says("2 nodes run the daemon of the version before").good();
    assert!(!cluster.is_being_deleted("a-1").await);
    // While a volume lacks a replica, nothing is replaced.
    let volumes: Api<Volume> = Api::all(cluster.client());
    let volume = json!({"apiVersion": "orlop.io/v1alpha1", "kind": "Volume", "metadata": {"name": "v"}, "spec": {"bytes": 4096, "replicas": 2, "minimumInSync": 1}});
    volumes.patch("v", &PatchParams::apply("test"), &Patch::Apply(&volume)).await.unwrap();
    let phase = async |phase: &str| {
        let status = Patch::Merge(json!({"status": {"phase": phase}}));
        volumes.patch_status("v", &PatchParams::default(), &status).await.unwrap();
    };
    phase("Degraded").await;
    let late = cluster.run(&["upgrade", "--nodes", "--timeout", "3s"]).await.ended(4);
    late.says("wait until all replicas are in sync, before the daemon of a is replaced");
    assert!(!cluster.is_being_deleted("a-1").await);
    phase("Healthy").await;
    let upgrading = cluster.start(&["upgrade", "--nodes"]);
    for node in ["a", "b"] {
        let before = format!("{node}-1");
        while !cluster.is_being_deleted(&before).await {
            assert!(!upgrading.is_finished(), "it ended before {before} was replaced");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // One at a time: the next is left alone until this one works.
        assert!(node == "b" || !cluster.is_being_deleted("b-1").await);
        cluster.daemon(&format!("{node}-2"), node, "second").await;
    }
    let ran = upgrading.await.unwrap().says("node old: on its kernel block devices end with the daemon");
    ran.good();
    assert!(!cluster.is_being_deleted("old-1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_do_not_work_where_daemons_are_of_volumes_with_one_copy() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    cluster.run(&["install", "--storage", "csi", "--no-wait"]).await.good();
    for node in ["a", "b"] {
        cluster.node(node, "6.12.1").await;
        cluster.daemon_with(&format!("{node}-1"), node, "first", &["node"]).await;
    }
    cluster.run(&["install", "--storage", "replicated", "--no-wait"]).await.good();
    cluster.everything_is_ready(0).await;
    // Also when it is run again, since nothing has become better by then.
    for words in [&["install", "--storage", "replicated"][..], &["upgrade"]] {
        let ran = cluster.run(words).await.says("volumes with replicas do not work yet").says(": a, b");
        assert!(!ran.stderr.contains(" works."), "{}", ran.stderr);
        ran.good();
    }
    for node in ["a", "b"] {
        cluster.pods().delete(&format!("{node}-1"), &DeleteParams::default().grace_period(0)).await.unwrap();
        cluster.daemon(&format!("{node}-2"), node, "second").await;
    }
    cluster.everything_is_ready(2).await;
    cluster.run(&["install", "--storage", "replicated"]).await.says(" works.").good();
}
