//! `orlop install`, `upgrade` and `uninstall` on a real API server, without nodes: the test says what controllers would say.

mod goodbye;
mod nodes;

use std::collections::BTreeSet;
use std::time::Duration;

use api::{ApplicationBackup, Volume};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use sandbox::control_plane::ControlPlane;
use serde_json::{Value, json};

use crate::support::Ran;

struct Cluster {
    plane: ControlPlane,
}

impl Cluster {
    async fn new() -> Self {
        Self { plane: ControlPlane::start().await.unwrap() }
    }

    fn client(&self) -> Client {
        self.plane.client()
    }

    fn start(&self, words: &[&str]) -> tokio::task::JoinHandle<Ran> {
        let mut command = crate::support::orlop();
        command.env("KUBECONFIG", self.plane.kubeconfig_path()).args(words);
        tokio::task::spawn_blocking(move || command.output().expect("run orlop").into())
    }

    async fn run(&self, words: &[&str]) -> Ran {
        self.start(words).await.expect("orlop is run")
    }

    fn operator(&self) -> Api<Deployment> {
        Api::namespaced(self.client(), "orlop-system")
    }

    fn daemons(&self) -> Api<DaemonSet> {
        Api::namespaced(self.client(), "orlop-storage")
    }

    /// What is named after Orlop, of kinds that the manifests have.
    async fn left(&self) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        let all = ListParams::default();
        left.extend(self.operator().list(&all).await.unwrap().items.into_iter().filter_map(|one| one.metadata.name));
        left.extend(self.daemons().list(&all).await.unwrap().items.into_iter().filter_map(|one| one.metadata.name));
        let roles = Api::<ClusterRole>::all(self.client()).list(&all).await.unwrap().items;
        left.extend(roles.into_iter().filter_map(|one| one.metadata.name).filter(|name| name.starts_with("orlop")));
        let classes = Api::<StorageClass>::all(self.client()).list(&all).await.unwrap().items;
        left.extend(classes.into_iter().filter_map(|one| one.metadata.name));
        left
    }

    async fn has_crds(&self) -> bool {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client());
        crds.get_opt("applicationbackups.orlop.io").await.unwrap().is_some()
    }

    /// What its controller says once a replica of the operator is ready.
    async fn operator_is_at_work(&self) {
        let status = Patch::Merge(json!({"status": {"replicas": 1, "readyReplicas": 1}}));
        self.operator().patch_status("orlop-operator", &PatchParams::default(), &status).await.unwrap();
    }

    async fn volume(&self, name: &str, driver: &str) {
        let spec = json!({
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": driver, "volumeHandle": name},
            "claimRef": {"namespace": "shop", "name": "data"},
        });
        let volume = json!({"metadata": {"name": name}, "spec": spec});
        let api: Api<PersistentVolume> = Api::all(self.client());
        api.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    }

    async fn forget_volume(&self, name: &str) {
        let api: Api<PersistentVolume> = Api::all(self.client());
        // Nobody else takes off what protects it.
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        api.patch(name, &PatchParams::default(), &free).await.unwrap();
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orlop_is_installed_with_its_custom_resources_first_and_again_changes_nothing() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    for words in
        [&["install", "--storage", "replicated", "--dry-run"][..], &["install", "--dry-run", "--force-conflicts"]]
    {
        let dry = cluster.run(words).await.good();
        let tried = "(dry run on the server: nothing was changed)";
        for what in ["customresourcedefinition.apiextensions.k8s.io/volumes.orlop.io", "namespace/orlop-system"] {
            assert!(dry.contains(&format!("{what} applied {tried}")), "{what} in {dry}");
        }
        // The server has said nothing of what is in a namespace that it does not have.
        let untold = "deployment.apps/orlop-operator applied (dry run, not checked: its namespace is not there yet)";
        assert!(dry.contains(untold), "{dry}");
    }
    assert!(!cluster.has_crds().await && cluster.left().await.is_empty());
    let image = "registry.example.com/orlop:0.0.1";
    let pools = ["--pool", "/dev/disk/by-id/a"];
    let words = [&["install", "--storage", "replicated", "--image", image, "--no-wait"][..], &pools].concat();
    let ran = cluster.run(&words).await;
    // This server has no kinds of snapshots, and is told so.
    let ran = ran.says("no kinds of snapshots").good();
    let position =
        |what: &str| ran.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what} in {ran}"));
    assert!(position("customresourcedefinition") < position("namespace/orlop-system"));
    assert!(position("clusterrole.rbac.authorization.k8s.io/orlop-node") < position("daemonset.apps/orlop-node"));
    let daemon = cluster.daemons().get("orlop-node").await.unwrap();
    let container = &daemon.spec.template.spec.as_ref().unwrap().containers[0];
    let words_of_it = container.args.clone().unwrap();
    assert_eq!(container.image.as_deref(), Some(image));
    assert!(
        words_of_it.contains(&"--pool=/dev/disk/by-id/a".to_owned()) && words_of_it.contains(&"--cluster".to_owned())
    );
    cluster.run(&words).await.good();
    let again = cluster.daemons().get("orlop-node").await.unwrap();
    assert_eq!(again.metadata.generation, daemon.metadata.generation);
    // What is not given stays as it is; what is given and would be exchanged is refused.
    let other = ["install", "--storage", "replicated", "--image", image, "--no-wait", "--pool", "/dev/disk/by-id/b"];
    cluster.run(&other).await.ended(1).says("nodes have the pools /dev/disk/by-id/a");
    cluster.run(&["install", "--storage", "replicated", "--no-wait"]).await.ended(1).says("orlop upgrade");
    cluster.run(&["install", "--image", image, "--no-wait"]).await.good();
    let again = cluster.daemons().get("orlop-node").await.unwrap();
    assert_eq!(again.metadata.generation, daemon.metadata.generation);
    // Replicas are not taken from under volumes.
    for fewer in ["none", "csi"] {
        cluster.run(&["install", "--storage", fewer, "--no-wait"]).await.ended(1).says("with --storage replicated");
    }
    // What was chosen stays chosen, in the version of the program.
    cluster.run(&["upgrade", "--no-wait"]).await.good();
    let daemon = cluster.daemons().get("orlop-node").await.unwrap();
    let container = &daemon.spec.template.spec.as_ref().unwrap().containers[0];
    assert_eq!(container.image.as_deref(), Some(concat!("registry.example.com/orlop:", env!("CARGO_PKG_VERSION"))));
    assert_eq!(container.args.clone().unwrap(), words_of_it);
    let upgraded = cluster.daemons().get("orlop-node").await.unwrap().metadata.generation;
    cluster.run(&["install", "--no-wait"]).await.good();
    assert_eq!(cluster.daemons().get("orlop-node").await.unwrap().metadata.generation, upgraded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_does_not_cut_down_what_a_newer_one_has_made() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    cluster.run(&["install", "--no-wait"]).await.good();
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/snapshots/items/properties/colour";
    let newer = serde_json::from_value(json!([{"op": "add", "path": path, "value": {"type": "string"}}])).unwrap();
    crds.patch("volumerecords.orlop.io", &PatchParams::default(), &Patch::Json::<()>(newer)).await.unwrap();
    let image = |one: &Deployment| one.spec.template.spec.as_ref().unwrap().containers[0].image.clone();
    let before = image(&cluster.operator().get("orlop-operator").await.unwrap());
    for words in [
        &["install", "--no-wait", "--image", "orlop/orlop:next"][..],
        &["install", "--no-wait", "--image", "orlop/orlop:next", "--force-conflicts"],
        &["install", "--dry-run"],
        &["upgrade", "--no-wait", "--image", "orlop/orlop:next"],
    ] {
        cluster.run(words).await.ended(1).says("of a newer version").says("volumerecords.orlop.io");
    }
    let crd = serde_json::to_value(crds.get("volumerecords.orlop.io").await.unwrap()).unwrap();
    assert!(crd.pointer(path).is_some(), "the field is gone");
    assert_eq!(image(&cluster.operator().get("orlop-operator").await.unwrap()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_changed_by_hand_is_named_and_nothing_is_changed() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    cluster.run(&["upgrade"]).await.ended(1).says("it is not installed in this cluster");
    cluster.run(&["install", "--no-wait", "--storage", "csi"]).await.good();
    let generation = async || cluster.daemons().get("orlop-node").await.unwrap().metadata.generation;
    let before = generation().await;
    cluster.run(&["upgrade", "--no-wait"]).await.good();
    assert_eq!(generation().await, before, "nothing is new, and the daemons are of another version");
    let more = Patch::Merge(json!({"spec": {"replicas": 3}}));
    cluster.operator().patch("orlop-operator", &PatchParams::default(), &more).await.unwrap();
    let ran = cluster.run(&["upgrade", "--no-wait", "--image", "orlop/orlop:next"]).await.ended(1);
    let ran = ran.says("deployment.apps/orlop-operator").says(".spec.replicas").says("--force-conflicts");
    assert_eq!(ran.stdout, "");
    let image = |one: &Deployment| one.spec.template.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let operator = cluster.operator().get("orlop-operator").await.unwrap();
    assert_eq!((operator.spec.replicas, image(&operator).as_str()), (Some(3), "orlop/orlop:0.1.0"));
    // The server is asked also when conflicts are not in the way.
    let dry = ["upgrade", "--dry-run", "--force-conflicts", "--image", "orlop/orlop:next"];
    let said = cluster.run(&dry).await.good();
    assert!(said.contains("deployment.apps/orlop-operator applied (dry run on the server"), "{said}");
    let wrong = ["upgrade", "--dry-run", "--force-conflicts", "--image", ""];
    cluster.run(&wrong).await.ended(1).says("deployment.apps/orlop-operator");
    cluster.run(&["upgrade", "--no-wait", "--image", "orlop/orlop:next", "--force-conflicts"]).await.good();
    let operator = cluster.operator().get("orlop-operator").await.unwrap();
    assert_eq!((operator.spec.replicas, image(&operator).as_str()), (Some(2), "orlop/orlop:next"));
    // What Helm has installed, Helm changes.
    let helms = Patch::Merge(json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}));
    cluster.operator().patch("orlop-operator", &PatchParams::default(), &helms).await.unwrap();
    for verb in ["install", "upgrade", "uninstall"] {
        cluster.run(&[verb]).await.ended(1).says(&format!("helm {verb} orlop"));
    }
    // And asks before, by this.
    cluster.run(&["uninstall", "--dry-run"]).await.good();
    // What the cluster does not know is not half installed.
    let other = Cluster::new().await;
    other
        .run(&["install", "--monitoring", "--no-wait"])
        .await
        .ended(1)
        .says("ServiceMonitor")
        .says("operator of Prometheus");
    assert!(other.left().await.is_empty() && !other.has_crds().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_waited_for_and_says_where_it_is() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    let ran = cluster.run(&["install", "--timeout", "5s"]).await.ended(4);
    ran.says("deployment orlop-operator: 0 of 2 are ready").says("kubectl -n orlop-system describe pods");
    let installing = cluster.start(&["install"]);
    let generation = cluster.operator().get("orlop-operator").await.unwrap().metadata.generation;
    let status =
        json!({"status": {"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}});
    cluster.operator().patch_status("orlop-operator", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    installing.await.unwrap().says("works").good();
}

#[tokio::test(flavor = "multi_thread")]
async fn orlop_is_not_taken_from_under_volumes_and_leaves_what_cannot_be_made_again() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    cluster.run(&["install", "--storage", "replicated", "--no-wait"]).await.good();
    let installed = cluster.left().await;
    assert!(installed.contains("orlop-r2") && installed.contains("orlop-node"), "{installed:?}");
    cluster.volume("pvc-1", "volumes.orlop.io").await;
    cluster.volume("pvc-2", "ebs.csi.aws.com").await;
    let volumes: Api<Volume> = Api::all(cluster.client());
    let spec = json!({"bytes": 4096, "replicas": 2, "minimumInSync": 1});
    let volume: Volume = serde_json::from_value(json!({"metadata": {"name": "pvc-3"}, "spec": spec})).unwrap();
    let volume = Volume { metadata: volume.metadata, spec: volume.spec, status: None };
    volumes.create(&PostParams::default(), &volume).await.unwrap();
    let refused = cluster.run(&["uninstall"]).await.ended(1).says("pvc-1, claimed by shop/data").says("volume pvc-3");
    assert!(!refused.stderr.contains("pvc-2"), "{}", refused.stderr);
    cluster.run(&["uninstall", "--delete-crds"]).await.ended(1);
    assert!(cluster.left().await == installed && cluster.has_crds().await);
    cluster.forget_volume("pvc-1").await;
    cluster.run(&["uninstall"]).await.ended(1).says("volume pvc-3");
    volumes.delete("pvc-3", &DeleteParams::default()).await.unwrap();
    // Of a backup there is only what the cluster has of it.
    let backups: Api<ApplicationBackup> = Api::namespaced(cluster.client(), "default");
    let backup: Value = json!({"metadata": {"name": "b", "finalizers": ["orlop.io/recovery-point"]}, "spec": {"backupLocation": "main"}});
    backups.create(&PostParams::default(), &serde_json::from_value(backup).unwrap()).await.unwrap();
    let dry = cluster.run(&["uninstall", "--dry-run"]).await.good();
    assert!(dry.contains("daemonset.apps/orlop-node deleted (dry run on the server: nothing was changed)"), "{dry}");
    assert_eq!(cluster.left().await, installed);
    let gone = cluster.run(&["uninstall"]).await.says("orlop-storage stay").good();
    assert!(gone.contains("storageclass.storage.k8s.io/orlop-r2 deleted"), "{gone}");
    assert_eq!(cluster.left().await, BTreeSet::new());
    assert!(cluster.has_crds().await && backups.get_opt("b").await.unwrap().is_some());
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    for name in ["orlop-system", "orlop-storage"] {
        let namespace = namespaces.get(name).await.unwrap();
        assert_eq!(namespace.metadata.deletion_timestamp, None, "{name}");
    }
    // Without an operator nobody lets go of what is held.
    let held = cluster.run(&["uninstall", "--delete-crds"]).await.ended(1);
    held.says("no operator is at work to let go of applicationbackups b");
    // One that is not ready lets go of nothing either.
    cluster.run(&["install", "--no-wait"]).await.good();
    cluster.run(&["uninstall", "--delete-crds"]).await.ended(1).says("no operator is at work");
    assert!(cluster.has_crds().await && cluster.left().await.contains("orlop-operator"));
    cluster.operator_is_at_work().await;
    let waiting = cluster.start(&["uninstall", "--delete-crds", "--timeout", "2m"]);
    let is_deleted =
        async || backups.get_opt("b").await.is_ok_and(|b| b.is_some_and(|b| b.metadata.deletion_timestamp.is_some()));
    while !is_deleted().await {
        assert!(!waiting.is_finished(), "it ended while a backup was held");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The operator is there until its resources are gone.
    assert!(cluster.operator().get_opt("orlop-operator").await.unwrap().is_some());
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    backups.patch("b", &PatchParams::default(), &free).await.unwrap();
    waiting.await.unwrap().good();
    assert!(!cluster.has_crds().await && cluster.left().await.is_empty());
    cluster.run(&["uninstall"]).await.says("Nothing of Orlop is installed").good();
}
