//! Plays the node, the scheduler and the provisioner of volumes for a control plane that has none.
//!
//! A claim of the storage class [`CLASS`] gets a volume that is a folder on this machine; the controllers of the control plane bind them.
//! A mover pod is given to the node [`NODE`], and its job is run in this process on that folder, by the code that the pod would run. What
//! A claim for a device gets a folder with a file that is the device. What
//! goes wrong is scripted: a [`Behaviour`] per pod. Pods that are no movers are left alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::RUN_LABEL;
use k8s_openapi::api::core::v1::{
    Container, Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, Secret,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use mover::{Job, Lines};
use repository::{Fields, TableRef};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::snapshotter::{copy, snapshot_folder};

/// The storage class whose claims get volumes.
pub const CLASS: &str = "disk";
/// Another one: its volumes are of a CSI driver that takes snapshots, if the cluster has them.
pub const SNAPSHOTTED: &str = "csi-disk";
/// The driver of those.
pub const DRIVER: &str = "disk.orlop.test";
/// On a volume: its folder.
const FOLDER: &str = "orlop.test/folder";
/// The node.
pub const NODE: &str = "node-1";
/// In the folder of a volume that is a device: the device, which is a file here.
pub const DEVICE: &str = "device";
/// Time between two looks at what is there.
const TICK: Duration = Duration::from_millis(50);

/// What becomes of a mover pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It runs to its end.
    Run,
    /// No node takes it.
    NeverSchedule,
    /// It is evicted as soon as it runs.
    Evict,
    /// Somebody deletes it as soon as it runs.
    Kill,
    /// It is killed for its memory.
    OutOfMemory,
    /// It runs, and does nothing until it is deleted.
    Hang,
    /// It does all its work, and is gone before anybody hears of it.
    RunUnheard,
    /// It is somebody's who says that he has stored what he has not.
    Lie,
}

type Script = Box<dyn Fn(&Pod) -> Behaviour + Send>;

struct Shared {
    refuses_snapshots: Mutex<Option<String>>,
    client: Client,
    root: PathBuf,
    script: Mutex<Script>,
    running: Mutex<HashMap<String, CancellationToken>>,
    started: Mutex<Vec<Pod>>,
}

/// The actor; it ends when it is dropped.
pub struct Kubelet {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    /// Starts it; folders of volumes are made below `root`.
    pub async fn start(client: Client, root: &Path) -> anyhow::Result<Self> {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": NODE}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &node).await?;
        for class in [CLASS, SNAPSHOTTED] {
            let class: StorageClass = serde_json::from_value(json!({
                "metadata": {"name": class}, "provisioner": "orlop.test/disk", "reclaimPolicy": "Delete",
            }))?;
            Api::all(client.clone()).create(&PostParams::default(), &class).await?;
        }
        let shared = Arc::new(Shared {
            client,
            root: root.to_owned(),
            script: Mutex::new(Box::new(|_| Behaviour::Run)),
            refuses_snapshots: Mutex::default(),
            running: Mutex::default(),
            started: Mutex::default(),
        });
        let actor = shared.clone();
        let task = tokio::spawn(async move {
            loop {
                // A test's API server may be away for a moment; the next tick looks again.
                if let Err(error) = actor.tick().await {
                    eprintln!("kubelet: {error:#}");
                }
                tokio::time::sleep(TICK).await;
            }
        });
        Ok(Self { shared, task })
    }

    /// From now on mover pods behave like this.
    pub fn script(&self, script: impl Fn(&Pod) -> Behaviour + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// From now on no snapshot is taken, for this reason.
    pub fn refuse_snapshots(&self, reason: &str) {
        *self.shared.refuses_snapshots.lock().unwrap() = Some(reason.to_owned());
    }

    /// The mover pods that were given to the node so far.
    pub fn started(&self) -> Vec<Pod> {
        self.shared.started.lock().unwrap().clone()
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

fn ended(phase: &str, terminated: Value) -> Value {
    json!({"phase": phase, "containerStatuses": [{
        "name": "mover", "image": "orlop:test", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": terminated},
    }]})
}

/// The outcome of a mover that has stored a tree: a root like that of any, which is in no repository.
fn lie() -> String {
    let bytes = [1; TableRef::LEN];
    let root = TableRef::decode(&mut Fields::new(&bytes)).unwrap();
    let none = json!({"count": 0, "first": []});
    let tree = json!({
        "root": root, "files": 1, "directories": 1, "others": 0, "bytes": u64::MAX, "newBytes": u64::MAX, "unchangedFiles": 0,
        "changedWhileRead": none, "vanished": none, "skipped": none, "missed": none, "parentLost": null,
    });
    let packs = json!({"count": 0, "bytes": 0, "listed": []});
    json!({"ok": true, "seconds": 1.0, "backup": {"stored": {"files": tree}, "packs": packs, "sessions": []}})
        .to_string()
}

impl Shared {
    async fn tick(self: &Arc<Self>) -> anyhow::Result<()> {
        self.provision().await?;
        let refusal = self.refuses_snapshots.lock().unwrap().clone();
        super::snapshotter::tick(&self.client, &self.root, refusal.as_deref()).await?;
        let movers = ListParams::default().labels(RUN_LABEL);
        for pod in Api::<Pod>::all(self.client.clone()).list(&movers).await?.items {
            let behaviour = (self.script.lock().unwrap())(&pod);
            self.look_after(pod, behaviour).await?;
        }
        Ok(())
    }

    async fn provision(&self) -> anyhow::Result<()> {
        let claims: Api<PersistentVolumeClaim> = Api::all(self.client.clone());
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        for claim in claims.list(&ListParams::default()).await?.items {
            let spec = claim.spec.clone().unwrap_or_default();
            let class = spec.storage_class_name.as_deref();
            let ours = (class == Some(CLASS) || class == Some(SNAPSHOTTED)) && spec.volume_name.is_none();
            if ours && claim.metadata.deletion_timestamp.is_none() {
                self.make_volume(&volumes, &claim).await?;
            }
        }
        for volume in volumes.list(&ListParams::default()).await?.items {
            let released = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Released");
            let spec = volume.spec.clone().unwrap_or_default();
            if released && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete") {
                if let Some(path) = volume.annotations().get(FOLDER) {
                    std::fs::remove_dir_all(path).or_else(|e| match e.kind() {
                        std::io::ErrorKind::NotFound => Ok(()),
                        _ => Err(e),
                    })?;
                }
                volumes.delete(&volume.name_any(), &DeleteParams::default()).await?;
            }
        }
        Ok(())
    }

    async fn make_volume(&self, volumes: &Api<PersistentVolume>, claim: &PersistentVolumeClaim) -> anyhow::Result<()> {
        let uid = claim.uid().unwrap_or_default();
        let spec = claim.spec.clone().unwrap_or_default();
        let path = self.root.join(&uid);
        std::fs::create_dir_all(&path)?;
        if let Some(source) = &spec.data_source {
            let namespace = claim.namespace().unwrap_or_default();
            copy(&self.root.join(snapshot_folder(&self.client, &namespace, &source.name).await?), &path)?;
        }
        let (device, mut capacity) = (path.join(DEVICE), "1Gi".to_owned());
        if spec.volume_mode.as_deref() == Some("Block") {
            let bytes = size_of(&spec)?;
            capacity = bytes.to_string();
            if !device.exists() {
                std::fs::File::create(&device)?.set_len(bytes)?;
            }
        }
        let class = spec.storage_class_name.unwrap_or_default();
        let mut volume = json!({
            "metadata": {"name": format!("pv-{uid}"), "annotations": {FOLDER: path}},
            "spec": {
                "capacity": {"storage": capacity},
                "accessModes": spec.access_modes,
                "volumeMode": spec.volume_mode,
                "storageClassName": class,
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": claim.namespace(), "name": claim.name_any(), "uid": uid},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]},
                ]}]}},
            },
        });
        if class == SNAPSHOTTED {
            volume["spec"]["csi"] = json!({"driver": DRIVER, "volumeHandle": uid});
        } else {
            volume["spec"]["hostPath"] = json!({"path": path});
        }
        let volume: PersistentVolume = serde_json::from_value(volume)?;
        match volumes.create(&PostParams::default(), &volume).await {
            Err(kube::Error::Api(s)) if s.is_already_exists() => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    async fn look_after(self: &Arc<Self>, pod: Pod, behaviour: Behaviour) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let placed = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        if pod.metadata.deletion_timestamp.is_some() {
            if let Some(token) = self.running.lock().unwrap().get(&uid) {
                // A pod is gone only when its containers have ended.
                token.cancel();
                return Ok(());
            }
            return gone(api.delete(&name, &DeleteParams::default().grace_period(0)).await);
        }
        match (placed, behaviour) {
            (false, Behaviour::NeverSchedule) => {
                let condition = json!({
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient memory",
                });
                self.report(&pod, json!({"phase": "Pending", "conditions": [condition]})).await
            }
            (false, _) if !self.has_volumes(&pod).await? => Ok(()),
            (false, _) => {
                let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}});
                let bound: Result<Value, _> =
                    api.create_subresource("binding", &name, &PostParams::default(), &binding).await;
                gone(bound)
            }
            (true, _) if phase(&pod) != "Pending" => Ok(()),
            (true, behaviour) => self.start(pod, behaviour).await,
        }
    }

    /// Whether the claims of a pod are bound: until then a scheduler has no node for it.
    async fn has_volumes(&self, pod: &Pod) -> anyhow::Result<bool> {
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        for name in volumes.filter_map(|v| v.persistent_volume_claim.as_ref().map(|c| &c.claim_name)) {
            let claim = claims.get_opt(name).await?;
            if claim.and_then(|c| c.status?.phase).as_deref() != Some("Bound") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn report(&self, pod: &Pod, status: Value) -> anyhow::Result<()> {
        set_status(&self.client, pod, status).await
    }

    async fn start(self: &Arc<Self>, pod: Pod, behaviour: Behaviour) -> anyhow::Result<()> {
        self.started.lock().unwrap().push(pod.clone());
        self.report(&pod, json!({"phase": "Running"})).await?;
        match behaviour {
            Behaviour::Hang | Behaviour::NeverSchedule => Ok(()),
            Behaviour::Evict => {
                let status = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"});
                self.report(&pod, status).await
            }
            Behaviour::OutOfMemory => {
                self.report(&pod, ended("Failed", json!({"exitCode": 137, "reason": "OOMKilled"}))).await
            }
            Behaviour::Lie => {
                self.report(&pod, ended("Succeeded", json!({"exitCode": 0, "reason": "Completed", "message": lie()})))
                    .await
            }
            Behaviour::Kill => {
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
                gone(api.delete(&pod.name_any(), &DeleteParams::default()).await)
            }
            Behaviour::Run | Behaviour::RunUnheard => {
                let (uid, token) = (pod.uid().unwrap_or_default(), CancellationToken::new());
                self.running.lock().unwrap().insert(uid.clone(), token.clone());
                let shared = self.clone();
                tokio::spawn(async move {
                    let heard = behaviour == Behaviour::Run;
                    if let Err(error) = shared.run(&pod, &token, heard).await {
                        eprintln!("kubelet: the mover {}: {error:#}", pod.name_any());
                    }
                    shared.running.lock().unwrap().remove(&uid);
                });
                Ok(())
            }
        }
    }

    async fn run(&self, pod: &Pod, token: &CancellationToken, heard: bool) -> anyhow::Result<()> {
        let namespace = pod.namespace().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let volumes = spec.volumes.unwrap_or_default();
        let claim = volumes.iter().find_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone()));
        let secret = volumes.iter().find_map(|v| v.secret.as_ref()?.secret_name.clone());
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let secret = secrets.get(&secret.unwrap_or_default()).await?;
        let bytes = secret.data.unwrap_or_default().remove("job.json").unwrap_or_default();
        let mut job: Job = serde_json::from_slice(&bytes.0)?;
        let folder = volume_dir(&self.client, &namespace, &claim.unwrap_or_default()).await?;
        job.volume = place_of(&job, spec.containers.first(), &folder)?;
        let outcome = mover::run(&job, &Lines::new(std::io::sink()), token).await;
        if !heard {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            return gone(api.delete(&pod.name_any(), &DeleteParams::default()).await);
        }
        let (phase, code, reason) = if outcome.ok { ("Succeeded", 0, "Completed") } else { ("Failed", 1, "Error") };
        let terminated = json!({"exitCode": code, "reason": reason, "message": outcome.to_message()});
        self.report(pod, ended(phase, terminated)).await
    }
}

/// Bytes that a claim asks for, in bytes, mebibytes or gibibytes.
fn size_of(spec: &PersistentVolumeClaimSpec) -> anyhow::Result<u64> {
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = requests.and_then(|requests| requests.get("storage")).map(|quantity| quantity.0.clone());
    let asked = asked.unwrap_or_default();
    let (number, unit) = match (asked.strip_suffix("Mi"), asked.strip_suffix("Gi")) {
        (Some(number), _) => (number, 20),
        (_, Some(number)) => (number, 30),
        _ => (asked.as_str(), 0),
    };
    Ok(number.parse::<u64>()? << unit)
}

/// Where the volume of a mover is on this machine. As a kubelet does, it takes a pod only that has a device where the claim is for one, and else a mount.
fn place_of(job: &Job, container: Option<&Container>, folder: &Path) -> anyhow::Result<PathBuf> {
    let is_there = |path: &str| job.volume == Path::new(path);
    let mounts = container.and_then(|container| container.volume_mounts.as_deref()).unwrap_or_default();
    let devices = container.and_then(|container| container.volume_devices.as_deref()).unwrap_or_default();
    let is_mounted = mounts.iter().any(|mount| is_there(&mount.mount_path));
    let is_device = devices.iter().any(|device| is_there(&device.device_path));
    let device = folder.join(DEVICE);
    match (device.exists(), is_mounted, is_device) {
        (false, true, false) => Ok(folder.to_owned()),
        (true, false, true) => Ok(device),
        (has_device, ..) => anyhow::bail!("has a device: {has_device}, mounted: {is_mounted}, a device: {is_device}"),
    }
}

/// Plays the node for the pods of applications, from now on: a pod that is made runs, and is ready. It ends when it is dropped.
pub struct Runs(JoinHandle<()>);

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Runs {
    /// For all pods that are no movers, and for those that are made later.
    pub fn start(client: Client) -> Self {
        Self(tokio::spawn(async move {
            loop {
                if let Err(error) = run_all(&client).await {
                    eprintln!("kubelet: {error:#}");
                }
                tokio::time::sleep(TICK).await;
            }
        }))
    }
}

async fn run_all(client: &Client) -> anyhow::Result<()> {
    let others = ListParams::default().labels(&format!("!{RUN_LABEL}"));
    for pod in Api::<Pod>::all(client.clone()).list(&others).await?.items {
        if phase(&pod) == "Pending" && pod.metadata.deletion_timestamp.is_none() {
            let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
            set_status(client, &pod, status).await?;
        }
    }
    Ok(())
}

/// Says of a pod what a node, or the scheduler, would say.
pub async fn set_status(client: &Client, pod: &Pod, status: Value) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
    gone(api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await)
}

/// That a pod is gone meanwhile is no error of a node.
pub fn gone<T>(result: Result<T, kube::Error>) -> anyhow::Result<()> {
    match result {
        Err(kube::Error::Api(s)) if s.is_not_found() || s.is_conflict() => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// The folder that is the volume of a claim.
pub async fn volume_dir(client: &Client, namespace: &str, claim: &str) -> anyhow::Result<PathBuf> {
    let claim = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).get(claim).await?;
    let volume = claim.spec.and_then(|s| s.volume_name).unwrap_or_default();
    let volume = Api::<PersistentVolume>::all(client.clone()).get(&volume).await?;
    let path = volume.annotations().get(FOLDER);
    Ok(path.ok_or_else(|| anyhow::anyhow!("the volume of the claim is no folder"))?.into())
}
