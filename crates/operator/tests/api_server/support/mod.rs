//! A control plane, an operator in this process, and somebody who plays the node.

pub mod crash;
pub mod kubelet;
pub mod shells;
pub mod snapshotter;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{ApplicationBackup, ApplicationBackupSpec, BackupLocation, LocationPhase, RUN_LABEL};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use operator::objects::Object;
use operator::repositories::LocationSecrets;
use operator::{HookLimits, Limits, OperatorConfig, Stores};
use repository::{Passphrase, Repository, RetryPolicy, StoreConfig};
use sandbox::control_plane::Borrowed;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use kubelet::Kubelet;

/// What one condition is waited for at most; on an idle machine all of a run takes a few seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(25);
/// A finalizer of somebody who does not take it away by himself.
pub const KEEP: &str = "tenant.example/keep";
/// The passphrase of the test's repository.
pub const PASSPHRASE: &str = "a passphrase of a test";
/// The namespace that is backed up.
pub const SHOP: &str = "shop";
/// The namespace of the operator, and of runs on other namespaces.
pub const ADMIN: &str = api::ADMIN_NAMESPACE;

/// Locations are folders: a bucket is a folder below this one.
pub struct Folders(pub PathBuf);

impl Stores for Folders {
    fn locate(&self, location: &BackupLocation, _: &LocationSecrets) -> StoreConfig {
        StoreConfig::FileSystem { path: self.0.join(&location.spec.path) }
    }
}

/// Everything that a test of the operator needs.
pub struct World {
    pub client: Client,
    pub kubelet: Kubelet,
    pub shells: Arc<shells::Shells>,
    pub directory: TempDir,
    pub plane: Borrowed,
}

/// An operator in this process.
pub struct Operator {
    token: CancellationToken,
    task: JoinHandle<Result<(), operator::Error>>,
}

impl Operator {
    /// Ends it as a kill would: whatever it does is cut off where it is.
    pub async fn kill(self) {
        self.task.abort();
        self.token.cancel();
        // Cut off, so it has no result.
        drop(self.task.await);
    }

    /// Ends it as the end of its pod would.
    pub async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Limits that let a test see in seconds what takes minutes.
pub fn short_limits() -> Limits {
    Limits {
        poll: Duration::from_millis(50),
        retry: Duration::from_millis(100),
        conflict_retry: Duration::from_millis(20),
        location_patience: Duration::from_secs(3),
        probe_interval: Duration::from_secs(2),
        probe_retry: Duration::from_millis(300),
        probe_timeout: Duration::from_secs(20),
        // The played node is late on a busy machine.
        mover_start_deadline: Duration::from_secs(6),
        sweep_interval: Duration::from_secs(1),
        lease_duration: Duration::from_secs(2),
        lease_renew_deadline: Duration::from_millis(1500),
        lease_retry: Duration::from_millis(200),
        hooks: HookLimits {
            beat: Duration::from_millis(500),
            lease: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            retry: Duration::from_millis(200),
            ..HookLimits::default()
        },
        ..Limits::default()
    }
}

pub fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl World {
    /// A control plane with the CRDs, the namespaces `shop` and `orlop-system`, and somebody who plays the node.
    pub async fn new() -> Self {
        let mut plane = Borrowed::new().await.unwrap();
        let client = plane.client();
        let directory = tempfile::tempdir().unwrap();
        if install_crds(&client).await {
            plane.keep().await.unwrap();
        }
        let kubelet = Kubelet::start(client.clone(), &directory.path().join("volumes")).await.unwrap();
        let shells = Arc::new(shells::Shells::new(client.clone()));
        let world = Self { client, kubelet, shells, directory, plane };
        for name in [SHOP, ADMIN] {
            world.namespace(name).await;
        }
        world
    }

    /// Makes a namespace in which pods can be made.
    pub async fn namespace(&self, name: &str) {
        self.create_cluster(parse::<Namespace>(json!({"metadata": {"name": name}}))).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
        until("the default service account", || async { accounts.get_opt("default").await.unwrap() }).await;
    }

    async fn create_cluster(&self, namespace: Namespace) {
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// Makes an object.
    pub async fn create<K: Object>(&self, namespace: &str, value: Value) -> K {
        let object: K = parse(value);
        Api::namespaced(self.client.clone(), namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    pub fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The configuration of an operator with short limits.
    pub fn config(&self) -> OperatorConfig {
        OperatorConfig {
            companions: Vec::new(),
            namespace: ADMIN.into(),
            identity: "operator-1".into(),
            image: "orlop:test".into(),
            pull_secrets: Vec::new(),
            listen: ([127, 0, 0, 1], 0).into(),
            leader_election: false,
            limits: short_limits(),
            stores: Arc::new(Folders(self.buckets())),
            containers: self.shells.clone(),
        }
    }

    /// The folder of the buckets.
    pub fn buckets(&self) -> PathBuf {
        self.directory.path().join("buckets")
    }

    /// Starts an operator with short limits.
    pub fn operator(&self) -> Operator {
        start(self.client.clone(), self.config())
    }

    /// Makes the Secrets and the location `main` in a namespace, over the bucket `bucket`.
    pub async fn location(&self, namespace: &str) {
        self.secret(namespace, PASSPHRASE).await;
        self.create::<BackupLocation>(namespace, location_manifest("main")).await;
    }

    /// Makes the Secret of locations.
    pub async fn secret(&self, namespace: &str, passphrase: &str) {
        let data = json!({"access-key-id": "id", "secret-access-key": "key", "passphrase": passphrase});
        self.create::<Secret>(namespace, json!({"metadata": {"name": "keys"}, "stringData": data})).await;
    }

    /// Waits until the location of that name is in a phase.
    pub async fn location_phase(&self, namespace: &str, name: &str, phase: LocationPhase) -> BackupLocation {
        let api: Api<BackupLocation> = self.api(namespace);
        until(&format!("{phase:?} of the location {name}"), || async {
            let location = api.get(name).await.unwrap();
            (location.status.as_ref()?.phase == phase).then_some(location)
        })
        .await
    }

    /// The repository behind the location `main`.
    pub async fn repository(&self) -> Repository {
        let store = StoreConfig::FileSystem { path: self.buckets().join("bucket") };
        Repository::open(store.open(RetryPolicy::never()).unwrap(), &Passphrase::new(PASSPHRASE)).await.unwrap()
    }

    /// An application: a ConfigMap, a Secret and a claim with files.
    pub async fn application(&self) {
        self.create::<ConfigMap>(SHOP, json!({"metadata": {"name": "settings"}, "data": {"color": "blue"}})).await;
        self.create::<Secret>(SHOP, json!({"metadata": {"name": "token"}, "stringData": {"t": "secret"}})).await;
        let folder = self.claim(SHOP, "data").await;
        std::fs::write(folder.join("orders"), "one\ntwo\n").unwrap();
        std::fs::create_dir(folder.join("images")).unwrap();
        std::fs::write(folder.join("images/logo"), vec![7; 100_000]).unwrap();
    }

    /// A claim with a volume; its folder.
    pub async fn claim(&self, namespace: &str, name: &str) -> PathBuf {
        self.create::<PersistentVolumeClaim>(namespace, claim_manifest(name)).await;
        self.bound(namespace, name).await;
        kubelet::volume_dir(&self.client, namespace, name).await.unwrap()
    }

    /// Waits until a claim is bound.
    pub async fn bound(&self, namespace: &str, name: &str) {
        self.phase(namespace, name, "Bound").await;
    }

    /// Waits until a claim is in a phase.
    pub async fn phase(&self, namespace: &str, name: &str, phase: &str) {
        let api: Api<PersistentVolumeClaim> = self.api(namespace);
        until(&format!("the claim {name} to be {phase}"), || async {
            let claim = api.get(name).await.unwrap();
            (claim.status?.phase.as_deref() == Some(phase)).then_some(())
        })
        .await;
    }

    /// Creates a backup of `shop` in the admin namespace.
    pub async fn backup(&self, name: &str) -> ApplicationBackup {
        self.backup_with(name, |_| ()).await
    }

    /// Creates a backup of `shop` in the admin namespace, with changes to its spec.
    pub async fn backup_with(&self, name: &str, change: impl FnOnce(&mut ApplicationBackupSpec)) -> ApplicationBackup {
        let mut spec = ApplicationBackupSpec {
            namespaces: vec![SHOP.into()],
            backup_location: "main".into(),
            ..ApplicationBackupSpec::default()
        };
        change(&mut spec);
        let api: Api<ApplicationBackup> = self.api(ADMIN);
        api.create(&PostParams::default(), &ApplicationBackup::new(name, spec)).await.unwrap()
    }

    /// Waits until a backup is over.
    pub async fn finished(&self, name: &str) -> ApplicationBackup {
        let api: Api<ApplicationBackup> = self.api(ADMIN);
        until(&format!("the end of the backup {name}"), || async {
            let run = api.get(name).await.unwrap();
            run.status.as_ref()?.phase.is_final().then_some(run)
        })
        .await
    }

    /// Waits until a backup that is over is let go.
    pub async fn let_go(&self, name: &str) {
        let api: Api<ApplicationBackup> = self.api(ADMIN);
        until(&format!("the finalizer of the backup {name} to go"), || async {
            api.get(name).await.unwrap().metadata.finalizers.unwrap_or_default().is_empty().then_some(())
        })
        .await;
    }

    /// What runs have left for their own use, by kind and name.
    pub async fn left_behind(&self) -> Vec<String> {
        let mut left = names::<Pod>(&self.client).await;
        left.extend(names::<Secret>(&self.client).await);
        left.extend(names::<PersistentVolumeClaim>(&self.client).await);
        left
    }

    /// Has somebody hold all of a kind that bears the label of a run, or let go of it; how many there are.
    pub async fn hold<K: Object>(&self, namespace: &str, is_held: bool) -> usize {
        let api: Api<K> = self.api(namespace);
        let all = api.list(&ListParams::default().labels(RUN_LABEL)).await.unwrap().items;
        for thing in &all {
            let mut finalizers = thing.finalizers().to_vec();
            finalizers.retain(|finalizer| finalizer != KEEP);
            finalizers.extend(is_held.then(|| KEEP.to_owned()));
            let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
            api.patch(&thing.name_any(), &PatchParams::default(), &patch).await.unwrap();
        }
        all.len()
    }

    /// Waits for events about an object: they are published after what they tell of.
    pub async fn events(&self, namespace: &str, name: &str, reasons: &[&str]) {
        for reason in reasons {
            until(&format!("the event {reason} about {name}"), || async {
                self.event_reasons(namespace, name).await.iter().any(|found| found == reason).then_some(())
            })
            .await;
        }
    }

    /// Reasons of the events about an object.
    async fn event_reasons(&self, namespace: &str, name: &str) -> Vec<String> {
        let events = self.api::<Event>(namespace).list(&ListParams::default()).await.unwrap().items;
        let about = |e: &Event| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name);
        events.into_iter().filter(about).filter_map(|e| e.reason).collect()
    }
}

pub fn start(client: Client, config: OperatorConfig) -> Operator {
    let token = CancellationToken::new();
    let task = tokio::spawn(operator::run(client, config, token.clone()));
    Operator { token, task }
}

async fn names<K: Object>(client: &Client) -> Vec<String> {
    let list = Api::<K>::all(client.clone()).list(&ListParams::default().labels(RUN_LABEL)).await.unwrap();
    list.iter().map(|thing| format!("{} {}", K::kind(&()), thing.name_any())).collect()
}

/// Whether there were none yet.
async fn install_crds(client: &Client) -> bool {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = api::crds::all();
    if api.get_opt(&all[0].name_any()).await.unwrap().is_some() {
        return false;
    }
    for crd in all {
        api.create(&PostParams::default(), &crd).await.unwrap();
        let name = crd.name_any();
        let established = await_condition(api.clone(), &name, is_crd_established());
        tokio::time::timeout(PATIENCE, established).await.unwrap().unwrap();
    }
    true
}

pub fn location_manifest(name: &str) -> Value {
    json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "BackupLocation",
        "metadata": {"name": name},
        "spec": {
            "type": "s3", "path": "bucket", "credentialsSecret": "keys",
            "encryption": {"secretRef": {"name": "keys", "key": "passphrase"}},
        },
    })
}

pub fn claim_manifest(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": kubelet::CLASS,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// Looks until there is something; panics with what was waited for when there is not in time.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(LOOK).await;
    }
}
