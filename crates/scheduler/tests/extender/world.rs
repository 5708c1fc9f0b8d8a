//! A control plane with a scheduler, nodes that are objects, and daemons that say that they live.

use api::{STORAGE_NAMESPACE, StorageNode, Volume, VolumeRecord};
use cluster::Times;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use sandbox::control_plane::ControlPlane;
use scheduler::{Cache, Extender, listen};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SHOP: &str = "shop";
/// How long anything may take that must happen; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

pub(crate) struct World {
    scheduler: Child,
    _plane: ControlPlane,
    _folder: TempDir,
    client: Client,
    address: SocketAddr,
    silent: Arc<Mutex<BTreeSet<String>>>,
    /// The first claim that was made.
    first: OnceLock<String>,
    beating: JoinHandle<()>,
    extender: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    pub(crate) async fn new(nodes: usize) -> Self {
        let plane = ControlPlane::start().await.unwrap();
        let client = plane.client();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in api::crds::all() {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        for name in [SHOP, STORAGE_NAMESPACE] {
            create(&Api::<Namespace>::all(client.clone()), json!({"metadata": {"name": name}})).await;
        }
        until("the kinds to be served", async || {
            let all = ListParams::default();
            let nodes = Api::<StorageNode>::all(client.clone()).list(&all).await.is_ok();
            let volumes = Api::<Volume>::all(client.clone()).list(&all).await.is_ok();
            nodes && volumes && Api::<VolumeRecord>::all(client.clone()).list(&all).await.is_ok()
        })
        .await;
        let names: Vec<String> = (0..nodes).map(|i| format!("node-{i}")).collect();
        for name in &names {
            node(&client, name).await;
        }
        let silent = Arc::<Mutex<BTreeSet<String>>>::default();
        let beating = tokio::spawn(beat(client.clone(), names, silent.clone()));
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let times = Times { dead_after: Duration::from_secs(3), ..Times::default() };
        let (cache, watches) = Cache::watching(&client, &times);
        let stop = CancellationToken::new();
        let serving = Extender::new(cache, Some(client.clone())).serve(listener, stop.clone());
        let extender = tokio::spawn(async move {
            tokio::select! {
                served = serving => served.unwrap(),
                () = watches => {}
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let scheduler = scheduler(&plane.kubeconfig_path(), folder.path(), address);
        let extender = Some((stop, extender));
        let world = Self {
            scheduler,
            _plane: plane,
            _folder: folder,
            client,
            address,
            silent,
            first: OnceLock::new(),
            beating,
            extender,
        };
        until("the extender to be ready", async || world.is_ready().await).await;
        world
    }

    fn api<K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), SHOP)
    }

    /// A claim with a volume whose replicas are on these nodes.
    pub(crate) async fn volume(&self, name: &str, nodes: &[&str]) {
        self.first.get_or_init(|| name.to_owned());
        let spec = json!({"bytes": 4 << 20, "replicas": nodes.len(), "minimumInSync": 1});
        let volume =
            create(&Api::<Volume>::all(self.client.clone()), json!({"metadata": {"name": name}, "spec": spec})).await;
        let id = volume.uid().unwrap().replace('-', "");
        let members: Vec<Value> = (1..)
            .zip(nodes)
            .map(|(i, node)| json!({"replica": format!("{i:016x}"), "node": node, "standing": "InSync"}))
            .collect();
        let record = json!({"epoch": "1", "equal": "1", "inSync": nodes.len(), "memberCount": nodes.len(), "minimum": 1, "blocks": "1024", "members": members});
        create(&Api::<VolumeRecord>::all(self.client.clone()), json!({"metadata": {"name": id}, "spec": record})).await;
        let size = json!({"storage": "4Mi"});
        let source = json!({"driver": "volumes.orlop.io", "volumeHandle": name});
        let claim_ref = json!({"namespace": SHOP, "name": name});
        let bound = json!({"accessModes": ["ReadWriteOnce"], "capacity": size, "csi": source, "claimRef": claim_ref, "storageClassName": "orlop-r2"});
        create(&Api::<PersistentVolume>::all(self.client.clone()), json!({"metadata": {"name": name}, "spec": bound}))
            .await;
        let metadata = json!({"name": name, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}});
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": size}, "volumeName": name, "storageClassName": "orlop-r2"});
        create(&self.api::<PersistentVolumeClaim>(), json!({"metadata": metadata, "spec": spec})).await;
        let claims: Api<PersistentVolumeClaim> = self.api();
        let phase = Patch::Merge(json!({"status": {"phase": "Bound"}}));
        claims.patch_status(name, &PatchParams::default(), &phase).await.unwrap();
    }

    /// A pod with the claim of its name.
    pub(crate) async fn pod(&self, name: &str, only_local: bool) {
        let annotations = if only_local { json!({scheduler::ONLY_LOCAL: "true"}) } else { json!({}) };
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]);
        let spec = json!({"containers": [container("0")], "volumes": volumes});
        create(&self.api::<Pod>(), json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec})).await;
    }

    /// A pod without a volume, which needs a processor.
    pub(crate) async fn plain(&self, name: &str) {
        create(&self.api::<Pod>(), json!({"metadata": {"name": name}, "spec": {"containers": [container("1")]}})).await;
    }

    /// A pod that takes all processors of a node.
    pub(crate) async fn fill(&self, node: &str) {
        let spec = json!({"containers": [container("4")], "nodeName": node});
        create(&self.api::<Pod>(), json!({"metadata": {"name": format!("fills-{node}")}, "spec": spec})).await;
    }

    async fn look(&self, name: &str) -> Pod {
        self.api::<Pod>().get(name).await.unwrap()
    }

    /// Where a pod is put.
    pub(crate) async fn placed(&self, name: &str) -> String {
        until("the pod to be put somewhere", async || self.look(name).await.spec.unwrap().node_name.is_some()).await;
        self.look(name).await.spec.unwrap().node_name.unwrap()
    }

    /// Why it is put nowhere.
    pub(crate) async fn waiting(&self, name: &str) -> String {
        let told = async || {
            let conditions = self.look(name).await.status?.conditions?;
            conditions.into_iter().find(|one| one.type_ == "PodScheduled" && one.status == "False")?.message
        };
        until("the pod to be told why it waits", async || told().await.is_some()).await;
        told().await.unwrap()
    }

    pub(crate) fn silence(&self, node: &str) {
        self.silent.lock().unwrap().insert(node.to_owned());
    }

    /// Whether the extender refuses a node for the first volume.
    pub(crate) async fn refused(&self, node: &str) -> bool {
        let pod = json!({"metadata": {"name": "asks", "namespace": SHOP}, "spec": {"containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": self.first.get().unwrap()}}]}});
        let (_, body) = self.http("POST", "/filter", &json!({"Pod": pod, "NodeNames": [node]}).to_string()).await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["FailedNodes"].get(node).is_some()
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.http("GET", "/readyz", "").await.0.contains(" 200 ")
    }

    pub(crate) async fn metrics(&self) -> String {
        self.http("GET", "/metrics", "").await.1
    }

    /// The reasons of all events about a pod.
    pub(crate) async fn events(&self, pod: &str) -> Vec<String> {
        let found = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let about = found.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(pod));
        about.filter_map(|event| event.reason).collect()
    }

    /// The head and the body of an answer.
    async fn http(&self, method: &str, path: &str, body: &str) -> (String, String) {
        let mut connection = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// Asks about a pod with the first volume, with something beside; the begin of the answer and the rest. Nothing if the connection was cut off.
    pub(crate) async fn asked(&self, pod: &str, nodes: Value, beside: &str) -> (String, String) {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": self.first.get().unwrap()}}]);
        let pod = json!({"metadata": {"name": pod, "namespace": SHOP}, "spec": {"containers": [], "volumes": volumes}});
        let mut asked = json!({"Pod": pod, "beside": beside});
        asked.as_object_mut().unwrap().extend(nodes.as_object().unwrap().clone());
        let asked = asked.to_string();
        let mut connection = self.begun(asked.len()).await;
        // Who is refused may be so before all is said.
        let _cut_off = connection.write_all(asked.as_bytes()).await;
        let mut answer = Vec::new();
        let _cut_off = connection.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        answer.split_once("\r\n").map(|(status, rest)| (status.to_owned(), rest.to_owned())).unwrap_or_default()
    }

    /// A request of which the body has not been sent.
    pub(crate) async fn begun(&self, length: usize) -> tokio::net::TcpStream {
        let mut connection = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /filter HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection
    }

    pub(crate) async fn stop_extender(&mut self) {
        if let Some((stop, extender)) = self.extender.take() {
            stop.cancel();
            extender.await.unwrap();
        }
    }

    pub(crate) async fn end(mut self) {
        self.stop_extender().await;
        self.beating.abort();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ended = self.scheduler.kill();
        let _status = self.scheduler.wait();
    }
}

fn container(processors: &str) -> Value {
    json!({"name": "c", "image": "none", "resources": {"requests": {"cpu": processors}}})
}

async fn create<K: Clone + Debug + DeserializeOwned + Serialize>(api: &Api<K>, object: Value) -> K {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// A node that is ready, with storage.
async fn node(client: &Client, name: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    create(&nodes, json!({"metadata": {"name": name}})).await;
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "100"});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"allocatable": room, "capacity": room, "conditions": ready}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    // The admission of nodes has them begin as not ready.
    let taints = Patch::Merge(json!({"spec": {"taints": null}}));
    nodes.patch(name, &PatchParams::default(), &taints).await.unwrap();
    let storage: Api<StorageNode> = Api::all(client.clone());
    create(&storage, json!({"metadata": {"name": name}, "spec": {}})).await;
    let pools = json!([{"name": "pool", "bytes": 1 << 30, "freeBytes": 1 << 29}]);
    let status = Patch::Merge(json!({"status": {"freeBytes": 1 << 29, "pools": pools}}));
    storage.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(client.clone(), STORAGE_NAMESPACE);
    let labels = json!({"orlop.io/storage-node": name});
    create(&leases, json!({"metadata": {"name": format!("storage-node-{name}"), "labels": labels}, "spec": {"leaseTransitions": 0}})).await;
}

/// Says of all nodes that they live, but for those that are silent.
async fn beat(client: Client, names: Vec<String>, silent: Arc<Mutex<BTreeSet<String>>>) {
    let leases: Api<Lease> = Api::namespaced(client, STORAGE_NAMESPACE);
    for count in 1.. {
        for name in &names {
            let is_silent = silent.lock().unwrap().contains(name);
            if !is_silent {
                let renewed = Patch::Merge(json!({"spec": {"leaseTransitions": count}}));
                let _unless_it_ends =
                    leases.patch(&format!("storage-node-{name}"), &PatchParams::default(), &renewed).await;
            }
        }
        tokio::time::sleep(3 * PAUSE).await;
    }
}

/// The real one, with the extender.
fn scheduler(kubeconfig: &Path, folder: &Path, extender: SocketAddr) -> Child {
    let program = sandbox::assets::Assets::from_environment().find("kube-scheduler").unwrap();
    let version = Command::new(&program).arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
    let api = match minor {
        ..22 => "v1beta1",
        22..25 => "v1beta2",
        _ => "v1",
    };
    let mut config = json!({
        "apiVersion": format!("kubescheduler.config.k8s.io/{api}"),
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "leaderElection": {"leaderElect": false},
        "extenders": [{
            "urlPrefix": format!("http://{extender}"), "filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 1,
            "nodeCacheCapable": true, "ignorable": true, "httpTimeout": "5s",
        }],
    });
    if minor < 22 {
        // Beside a configuration the flag for it is not heeded, and its usual port is one for each machine.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        (config["healthzBindAddress"], config["metricsBindAddress"]) = (json!(port), json!(port));
    }
    let path = folder.join("scheduler.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let log = std::fs::File::create(folder.join("scheduler.log")).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(path);
    // Nobody asks it for its health.
    command.arg("--secure-port=0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}
