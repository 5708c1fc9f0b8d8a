//! Nodes whose storage is gone, and the pods on them. There is no kubelet here, so a pod that is deleted with a grace period stays until it is freed.

use crate::world::{World, make, times, until};
use api::{StorageNode, StorageState};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "default";

impl World {
    async fn create<K>(&self, api: Api<K>, object: Value) -> K
    where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
    {
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    /// A node in Kubernetes, whose kubelet works or does not.
    async fn machine(&self, name: &str, ready: &str) {
        let api: Api<Node> = Api::all(self.client.clone());
        if api.get_opt(name).await.unwrap().is_none() {
            self.create(api.clone(), json!({"metadata": {"name": name}})).await;
        }
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// A claim that is bound to a volume of this driver.
    async fn claim(&self, volume: &str, driver: &str) {
        let name = format!("claim-{volume}");
        let room = json!({"storage": "16Mi"});
        let volume = json!({
            "metadata": {"name": format!("pv-{volume}")},
            "spec": {
                "capacity": room, "accessModes": ["ReadWriteOnce"], "csi": {"driver": driver, "volumeHandle": volume},
                "claimRef": {"namespace": NAMESPACE, "name": name},
            },
        });
        let volume = self.create::<PersistentVolume>(Api::all(self.client.clone()), volume).await;
        let claim = json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": room}, "volumeName": volume.name_any(), "storageClassName": ""},
        });
        self.create::<PersistentVolumeClaim>(self.pods_around(), claim).await;
    }

    fn pods_around<K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// A pod on a node that uses volumes.
    async fn pod(&self, name: &str, node: &str, volumes: &[&str], maker: Option<&str>) {
        self.held_pod(name, node, volumes, maker, &[]).await;
    }

    /// The same, with finalizers of others.
    async fn held_pod(&self, name: &str, node: &str, volumes: &[&str], maker: Option<&str>, finalizers: &[&str]) {
        let used = volumes
            .iter()
            .map(|volume| json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("claim-{volume}")}}));
        let owner = |kind| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "maker", "uid": "0f0f0f0f-0000-0000-0000-000000000000", "controller": true}]);
        let pod = json!({
            "metadata": {"name": name, "ownerReferences": maker.map(owner), "finalizers": finalizers},
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": "none"}], "volumes": used.collect::<Vec<_>>(),
            },
        });
        self.create::<Pod>(self.pods_around(), pod).await;
    }

    async fn pods(&self) -> Vec<Pod> {
        self.pods_around::<Pod>().list(&ListParams::default()).await.unwrap().items
    }

    async fn pod_names(&self) -> Vec<String> {
        self.pods().await.iter().map(ResourceExt::name_any).collect()
    }

    async fn health(&self, node: &str) -> Option<api::StorageHealth> {
        Api::<StorageNode>::all(self.client.clone()).get(node).await.unwrap().status.and_then(|status| status.health)
    }

    async fn state(&self, node: &str) -> Option<StorageState> {
        self.health(node).await.map(|health| health.state)
    }

    /// What events say of a pod.
    async fn told(&self, pod: &str) -> String {
        let events = self.pods_around::<Event>().list(&ListParams::default()).await.unwrap().items;
        let of_it = events
            .into_iter()
            .filter(|event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(pod));
        of_it.filter_map(|event| event.note).collect::<Vec<_>>().join("\n")
    }

    /// The nodes with replicas of a volume with two of them, and the one without.
    async fn places(&self) -> (usize, usize, usize) {
        let members = self.members().await;
        let [first, other] = [self.index(&members[0].0), self.index(&members[1].0)];
        (first, other, 3 - first - other)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_moved_off_a_node_whose_storage_is_gone_if_that_helps() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let mut world = World::new(3).await;
    make(&world, 0, "two", 2).await;
    let (dead, other, _) = world.places().await;
    let (node, elsewhere) = (format!("node-{dead}"), format!("node-{other}"));
    for machine in [&node, &elsewhere] {
        world.machine(machine, "True").await;
    }
    for (volume, driver) in [("two", csi::DRIVER), ("one", csi::DRIVER), ("foreign", "csi.example.com")] {
        world.claim(volume, driver).await;
    }
    world.pod("moves", &node, &["two"], Some("StatefulSet")).await;
    world.pod("mixed", &node, &["two", "foreign"], Some("StatefulSet")).await;
    world.pod("daemon", &node, &["two"], Some("DaemonSet")).await;
    world.pod("bare", &node, &["two"], None).await;
    world.pod("pinned", &node, &["two", "one"], Some("ReplicaSet")).await;
    world.pod("foreign", &node, &["foreign"], Some("ReplicaSet")).await;
    world.pod("none", &node, &[], Some("ReplicaSet")).await;
    world.pod("elsewhere", &elsewhere, &["two"], Some("ReplicaSet")).await;

    let begin = Instant::now();
    world.stop(dead).await;
    // Its kubelet works, and here there is none that ends the pod: it is given its time, and freed.
    until("the pod to be deleted", async || {
        world.pods().await.iter().any(|pod| pod.name_any() == "moves" && pod.metadata.deletion_timestamp.is_some())
    })
    .await;
    assert!(begin.elapsed() >= times().offline_after - times().heartbeat, "too soon: {:?}", begin.elapsed());
    let offline = world.health(&node).await.unwrap();
    assert!(offline.state == StorageState::Offline && offline.observers.len() == 2, "{offline:?}");
    until("the pod to be freed", async || !world.pod_names().await.contains(&"moves".to_owned())).await;
    let why = [
        ("bare", "no controller"),
        ("daemon", "DaemonSet"),
        ("pinned", "one has one copy"),
        ("mixed", "another driver"),
    ];
    for (pod, why) in why {
        until("it to be told why a pod stays", async || world.told(pod).await.contains(why)).await;
    }
    assert!(world.told("moves").await.contains("out of reach"), "{}", world.told("moves").await);
    let mut left = world.pods().await;
    left.sort_by_key(ResourceExt::name_any);
    let names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["bare", "daemon", "elsewhere", "foreign", "mixed", "none", "pinned"]);
    let is_right = |pod: &Pod| pod.metadata.deletion_timestamp.is_some() == (pod.name_any() == "mixed");
    assert!(left.iter().all(is_right), "{left:?}");
    assert!(world.told("foreign").await.is_empty() && world.told("none").await.is_empty());

    // Nobody ends pods there any more: they go at once, also one that somebody else has deleted and that would not have been.
    world.machine(&node, "Unknown").await;
    // As many as are deleted at one look are freed, and held by somebody else: they are in nobody's way.
    for i in 0..5 {
        world.held_pod(&format!("held-{i}"), &node, &["two"], Some("StatefulSet"), &["example.com/hold"]).await;
    }
    world.pod("lost", &node, &["two"], Some("StatefulSet")).await;
    world.pods_around::<Pod>().delete("bare", &kube::api::DeleteParams::default()).await.unwrap();
    until("the pods of a lost node to be freed", async || {
        let names = world.pod_names().await;
        !names.contains(&"lost".to_owned()) && !names.contains(&"bare".to_owned())
    })
    .await;
    assert!(world.pod_names().await.contains(&"mixed".to_owned()), "nobody refuses what it writes to the other driver");

    world.start(dead).await;
    until("the node to be well again", async || world.state(&node).await.is_none()).await;
    world.machine(&node, "True").await;
    world.pod("returned", &node, &["two"], Some("StatefulSet")).await;
    tokio::time::sleep(3 * times().look).await;
    assert!(world.pod_names().await.contains(&"returned".to_owned()));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_others_reach_keeps_its_pods() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let mut world = World::new(3).await;
    make(&world, 0, "two", 2).await;
    let (cut, ..) = world.places().await;
    let node = format!("node-{cut}");
    world.machine(&node, "True").await;
    world.claim("two", csi::DRIVER).await;
    world.pod("stays", &node, &["two"], Some("StatefulSet")).await;
    // Cut off from the API server alone: it serves on, and the others say so.
    world.cut_off(cut).await;
    until("the node to be suspect", async || world.state(&node).await == Some(StorageState::Suspect)).await;
    let begin = Instant::now();
    while begin.elapsed() < times().offline_after + Duration::from_secs(4) {
        assert_eq!(world.state(&node).await, Some(StorageState::Suspect));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(world.health(&node).await.unwrap().message.contains("may reach it"));
    let pods = world.pods().await;
    assert!(pods.len() == 1 && pods[0].metadata.deletion_timestamp.is_none(), "{pods:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_stays_where_no_other_replica_works_and_while_nobody_could_say_what_is_gone() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let mut world = World::new(3).await;
    make(&world, 0, "two", 2).await;
    let (first, other, third) = world.places().await;
    let node = format!("node-{first}");
    world.machine(&node, "True").await;
    world.claim("two", csi::DRIVER).await;
    world.pod("stays", &node, &["two"], Some("StatefulSet")).await;
    world.stop(first).await;
    world.stop(other).await;
    until("both to be offline", async || {
        let (a, b) = (world.state(&node).await, world.state(&format!("node-{other}")).await);
        (a, b) == (Some(StorageState::Offline), Some(StorageState::Offline))
    })
    .await;
    until("it to be told why the pod stays", async || world.told("stays").await.contains("no replica of its volume"))
        .await;
    // All are silent: rather than that all have died, nothing is heard any more.
    world.stop(third).await;
    until("nothing to be said any more", async || world.state(&node).await == Some(StorageState::Suspect)).await;
    assert!(world.pods().await.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()));
    world.end().await;
}
