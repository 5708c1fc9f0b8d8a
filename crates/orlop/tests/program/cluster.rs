//! The verbs for resources against a real API server. There is no operator: each test writes the status that one would write.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::Ran;
use anyhow::{Context, Result};
use api::{ApplicationBackup, ApplicationRestore, BackupLocation};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Resource};
use sandbox::control_plane::ControlPlane;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    control_plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Cluster {
    async fn bare() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let kubeconfig = control_plane.kubeconfig_path();
        Ok(Self { control_plane, kubeconfig })
    }

    /// With the custom resources.
    async fn with_crds() -> Result<Self> {
        let cluster = Self::bare().await?;
        let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
        for crd in api::crds::all() {
            let name = crd.metadata.name.clone().context("a CRD has a name")?;
            crds.create(&PostParams::default(), &crd).await?;
            let served = await_condition(crds.clone(), &name, conditions::is_crd_established());
            tokio::time::timeout(PATIENCE, served).await??;
        }
        Ok(cluster)
    }

    fn client(&self) -> Client {
        self.control_plane.client()
    }

    fn api<K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client(), "default")
    }

    /// Runs the binary beside the test.
    fn start(&self, words: &[&str]) -> tokio::task::JoinHandle<Ran> {
        let mut command = crate::support::orlop();
        command.env("KUBECONFIG", &self.kubeconfig).args(words);
        tokio::task::spawn_blocking(move || command.output().expect("run orlop").into())
    }

    async fn run(&self, words: &[&str]) -> Ran {
        self.start(words).await.expect("orlop is run")
    }

    /// Writes a status as the operator would, as soon as the resource is there.
    async fn set_status<K>(&self, name: &str, status: Value) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let there = await_condition(self.api::<K>(), name, |o: Option<&K>| o.is_some());
        tokio::time::timeout(PATIENCE, there).await??;
        let patch = Patch::Merge(json!({ "status": status }));
        self.api::<K>().patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

fn location_words<'a>(files: &'a [String; 2], more: &[&'a str]) -> Vec<&'a str> {
    let words =
        ["location", "add", "main", "s3://backups/east", "--endpoint", "http://127.0.0.1:9000", "--access-key-id"];
    let files = ["me", "--secret-access-key-file", &files[0], "--password-file", &files[1]];
    [&words[..], &files[..], more].concat()
}

fn secret_files(dir: &tempfile::TempDir) -> Result<[String; 2]> {
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content)?;
        path.into_os_string().into_string().map_err(|p| anyhow::anyhow!("{p:?} is not text"))
    };
    Ok([file("key", "hush\n")?, file("password", "open sesame\n")?])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_the_cluster_opens_a_repository() {
    sandbox::require_assets!();
    let cluster = Cluster::bare().await.unwrap();
    let entries = json!({"passphrase": "open sesame\n", "other": "wrong"});
    let secret = json!({"metadata": {"name": "backup"}, "stringData": entries});
    cluster.api::<Secret>().create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = secret_files(&dir).unwrap();
    let location = format!("file://{}", dir.path().join("repository").display());
    let repo = ["repo", "--location", &location];
    cluster.run(&[&repo[..], &["init", "--password-file", &files[1]]].concat()).await.good();
    let list = async |name: &str| cluster.run(&[&repo[..], &["list", "--password-secret", name]].concat()).await;
    list("default/backup").await.good();
    list("default/backup:other").await.ended(1).says("opens with this passphrase");
    list("default/backup:third").await.ended(1).says("it has no entry third");
    list("default/nothing").await.ended(1).says("\"nothing\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_orlop_says_how_to_install_it() {
    sandbox::require_assets!();
    let cluster = Cluster::bare().await.unwrap();
    for words in
        [&["backup", "list"][..], &["backup", "create", "b", "--backup-location", "main"], &["restore", "show", "r"]]
    {
        let ran = cluster.run(words).await.ended(1);
        ran.says("Orlop is not installed in this cluster").says("next: orlop install");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_is_added_with_its_secret_and_waited_for() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = secret_files(&dir).unwrap();

    let dry = cluster.run(&location_words(&files, &["--dry-run"])).await.good();
    assert!(dry.contains("backuplocation.orlop.io/main created (dry run on the server: nothing was changed)"), "{dry}");
    assert!(
        cluster.api::<Secret>().list(&Default::default()).await.unwrap().items.iter().all(|s| s
            .metadata
            .name
            .as_deref()
            != Some("orlop-location-main"))
    );

    let adding = cluster.start(&location_words(&files, &[]));
    let status =
        json!({"phase": "Ready", "repositoryId": "r-1", "recoveryPoints": 3, "lastCheckedAt": "2027-01-15T08:00:00Z"});
    cluster.set_status::<BackupLocation>("main", status).await.unwrap();
    let text = adding.await.unwrap().good();
    assert!(text.contains("Recovery points:  3"), "{text}");

    let location = cluster.api::<BackupLocation>().get("main").await.unwrap();
    assert_eq!((location.spec.path.as_str(), location.spec.prefix.as_deref()), ("backups", Some("east")));
    let secret = cluster.api::<Secret>().get(&location.spec.credentials_secret).await.unwrap();
    let data = secret.data.expect("the Secret has data");
    let entry = |key: &str| data.get(key).map(|v| String::from_utf8_lossy(&v.0).into_owned());
    assert_eq!(entry("access-key-id").as_deref(), Some("me"));
    assert_eq!(entry("secret-access-key").as_deref(), Some("hush"));
    assert_eq!(entry(&location.spec.encryption.secret_ref.key).as_deref(), Some("open sesame"));

    cluster.run(&location_words(&files, &[])).await.ended(1).says("\"main\" already exists");
    let list = cluster.run(&["location", "list"]).await.good();
    assert!(list.contains("main   Ready"), "{list}");
    assert_eq!(cluster.run(&["location", "list", "-o", "name"]).await.good(), "backuplocation.orlop.io/main\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_cannot_be_used_says_why_and_is_checked_again() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = secret_files(&dir).unwrap();
    let adding = cluster.start(&location_words(&files, &[]));
    let condition = json!({"type": "Ready", "status": "False", "reason": "AccessDenied", "message": "m", "lastTransitionTime": "2027-01-15T08:00:00Z"});
    let status = json!({"phase": "Unavailable", "message": "the key is not known", "conditions": [condition], "lastCheckedAt": "2027-01-15T08:00:00Z"});
    cluster.set_status::<BackupLocation>("main", status).await.unwrap();
    adding
        .await
        .unwrap()
        .ended(1)
        .says("location main cannot be used (AccessDenied): the key is not known")
        .says("orlop location check main -n default");

    let checking = cluster.start(&["location", "check", "main"]);
    let asked = |l: Option<&BackupLocation>| {
        l.is_some_and(|l| {
            l.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("orlop.io/check-requested-at"))
        })
    };
    tokio::time::timeout(PATIENCE, await_condition(cluster.api::<BackupLocation>(), "main", asked))
        .await
        .unwrap()
        .unwrap();
    cluster
        .set_status::<BackupLocation>(
            "main",
            json!({"phase": "Ready", "message": null, "lastCheckedAt": "2027-01-15T08:05:00Z"}),
        )
        .await
        .unwrap();
    let text = checking.await.unwrap().good();
    assert!(text.contains("Phase:     Ready"), "{text}");
    cluster
        .run(&["location", "check", "main", "--timeout", "1s"])
        .await
        .ended(4)
        .says("kubectl get pods -n orlop-system");

    let gone = cluster.run(&["location", "delete", "main"]).await.good();
    assert_eq!(gone, "backuplocation.orlop.io/main deleted, the repository in backups stays\n");
    cluster.run(&["location", "check", "main"]).await.ended(1).says("orlop location list -n default shows their names");
    // The Secret stays; other content in it is not overwritten, and the location is then not made either.
    std::fs::write(&files[1], "another").unwrap();
    cluster
        .run(&location_words(&files, &["--no-wait"]))
        .await
        .ended(1)
        .says("there is a Secret orlop-location-main with other content");
    assert!(cluster.api::<BackupLocation>().get_opt("main").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_waited_for_ends_by_its_phase() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    for (name, phase, code) in [("good", "Succeeded", 0), ("bad", "Failed", 1), ("half", "Incomplete", 3)] {
        let running = cluster.start(&["backup", "create", name, "--backup-location", "main", "--wait"]);
        let volume = json!({"namespace": "default", "claim": "data", "stage": "Moving", "attempts": 1});
        cluster
            .set_status::<ApplicationBackup>(name, json!({"phase": "Running", "stage": "Volumes", "volumes": [volume]}))
            .await
            .unwrap();
        let volume = json!({"namespace": "default", "claim": "data", "stage": "Done", "files": 3, "bytes": 4096, "storedBytes": 1024});
        let status = json!({"phase": phase, "stage": "Done", "recoveryPoint": "p-1", "volumes": [volume],
            "ledger": {"wanted": 2, "stored": 2, "skipped": 0, "missed": 0}});
        cluster.set_status::<ApplicationBackup>(name, status).await.unwrap();
        let ran = running.await.unwrap().ended(code).says(&format!("backup default/{name}: {phase}"));
        assert!(ran.stdout.contains(&format!("Phase:           {phase}")), "{}", ran.stdout);
        assert!(ran.stdout.contains("default/data   Done    3       4.0 KiB   1.0 KiB"), "{}", ran.stdout);
    }
    let list = cluster.run(&["backup", "list", "-o", "json"]).await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(list["items"][0]["apiVersion"], "orlop.io/v1alpha1");
    assert!(list["items"][0]["metadata"]["managedFields"].is_null());
    let shown = cluster.run(&["backup", "show", "half", "-o", "yaml"]).await.good();
    assert!(shown.contains("phase: Incomplete"), "{shown}");
    let gone = cluster.run(&["backup", "delete", "good"]).await.good();
    assert_eq!(gone, "applicationbackup.orlop.io/good deleted, the recovery point p-1 stays in main\n");
    assert!(cluster.api::<ApplicationBackup>().get_opt("good").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_4_when_the_time_is_over() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    cluster
        .run(&["backup", "create", "slow", "--backup-location", "main", "--wait", "--timeout", "1s"])
        .await
        .ended(4)
        .says("wait for backup slow: not within 1.0 s")
        .says("next: orlop backup show slow -n default");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_deleted_while_it_is_waited_for_has_failed() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    let running = cluster.start(&["backup", "create", "b", "--backup-location", "main", "--wait"]);
    cluster.set_status::<ApplicationBackup>("b", json!({"phase": "Running", "stage": "Volumes"})).await.unwrap();
    cluster.run(&["backup", "delete", "b"]).await.good();
    running.await.unwrap().ended(1).says("it was deleted before its end was seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_backup_is_said_and_nothing_is_made() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    let create = ["backup", "create", "b", "--backup-location", "main"];
    cluster
        .run(&[&create[..], &["--namespaces", "other"]].concat())
        .await
        .ended(2)
        .says("spec.namespaces[0]: \"other\" is not allowed");
    cluster.run(&["backup", "create", "Not_A_Name", "--backup-location", "main"]).await.ended(1).says("Not_A_Name");
    cluster.run(&[&create[..], &["-n", "nowhere"]].concat()).await.ended(1).says("namespaces \"nowhere\" not found");
    let dry = cluster.run(&[&create[..], &["--dry-run"]].concat()).await.good();
    assert_eq!(
        dry,
        "applicationbackup.orlop.io/b created: backs up default to main (dry run on the server: nothing was changed)\n"
    );
    assert!(cluster.api::<ApplicationBackup>().list(&Default::default()).await.unwrap().items.is_empty());
    cluster.run(&["backup", "list"]).await.ended(0).says("There are no backups in default.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_the_location_from_its_backup() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    cluster.run(&["backup", "create", "web", "--backup-location", "main", "-l", "app=web"]).await.good();
    let made = cluster
        .run(&["restore", "web", "--to", "default=copy", "--storage-class", "fast=standard", "-o", "json"])
        .await
        .json();
    assert_eq!(made["spec"]["backupLocation"], "main");
    assert_eq!(made["spec"]["namespaceMapping"], json!({"default": "copy"}));
    assert_eq!(made["spec"]["storageClassMapping"], json!({"fast": "standard"}));
    let name = made["metadata"]["name"].as_str().expect("the restore has a name");
    assert!(name.starts_with("web-"), "{name}");

    let words = ["restore", "create", "--recovery-point", "p-1", "--backup-location", "main", "--name", "r", "--wait"];
    let running = cluster.start(&words);
    let objects = json!({"wanted": 5, "created": 4, "updated": 0, "kept": 0, "replaced": 0, "failed": 1,
        "failedItems": [{"item": "Service default/web", "reason": "the webhook w says no"}]});
    cluster
        .set_status::<ApplicationRestore>("r", json!({"phase": "Incomplete", "stage": "Done", "objects": objects}))
        .await
        .unwrap();
    let ran = running.await.unwrap().ended(3);
    assert!(ran.stdout.contains("Service default/web   the webhook w says no"), "{}", ran.stdout);
    let list = cluster.run(&["restore", "list", "-n", "default"]).await.good();
    assert!(list.contains("Incomplete"), "{list}");
    let gone = cluster.run(&["restore", "delete", "r"]).await.good();
    assert_eq!(gone, "applicationrestore.orlop.io/r deleted, what it has restored stays\n");
    cluster.run(&["restore", "missing"]).await.ended(1).says("orlop backup list -n default shows their names");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_for_administrators() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    let home = api::ADMIN_NAMESPACE;
    let namespace = serde_json::from_value(json!({"metadata": {"name": home}})).unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let create = ["clone", "create", "shop", "copy", "--name", "c", "--dry-run"];
    cluster.run(&create).await.ended(2).says("metadata.namespace: \"default\" is not allowed: orlop-system");
    let into_itself = ["clone", "create", "shop", "shop", "-n", home];
    cluster.run(&into_itself).await.ended(2).says("spec.destinationNamespace: \"shop\" is not allowed");
    let dry = cluster.run(&[&create[..], &["-n", home]].concat()).await.good();
    assert_eq!(
        dry,
        "applicationclone.orlop.io/c created: clones shop into copy (dry run on the server: nothing was changed)\n"
    );
    cluster.run(&["clone", "list", "-n", home]).await.ended(0).says("There are no clones in orlop-system.");
}

/// What a person writes who has heard of a field that is not there, or has mistyped one.
fn with_unknown_fields() -> Value {
    json!({"apiVersion": "orlop.io/v1alpha1", "kind": "ApplicationBackup", "metadata": {"name": "b", "namespace": "default"},
        "spec": {"namespaces": ["default"], "backupLocation": "main", "reclaimPolicie": "Delete"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_nobody_knows_is_refused_or_dropped_and_never_kept() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kubectl");
    let cluster = Cluster::with_crds().await.unwrap();
    let resource = kube::api::ApiResource::erase::<ApplicationBackup>(&());
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(cluster.client(), "default", &resource);
    let object = serde_json::from_value(with_unknown_fields()).unwrap();

    let applied = api.patch("b", &PatchParams::apply("test"), &Patch::Apply(&object)).await;
    let refused = applied.expect_err("server-side apply takes declared fields only").to_string();
    assert!(refused.contains("reclaimPolicie") && refused.contains("not declared in schema"), "{refused}");

    let kubectl = sandbox::assets::Assets::from_environment().find("kubectl").unwrap();
    let kubeconfig = cluster.kubeconfig.clone();
    // The schema is published a moment after the kind is served; until then kubectl has none to go by, and only tries.
    let apply = move || {
        let mut command = assert_cmd::Command::new(&kubectl);
        command.arg("--kubeconfig").arg(&kubeconfig).args(["apply", "--dry-run=server", "-f", "-"]);
        Ran::from(command.write_stdin(with_unknown_fields().to_string()).output().expect("run kubectl"))
    };
    let end = std::time::Instant::now() + PATIENCE;
    let refused = loop {
        let ran = tokio::task::spawn_blocking(apply.clone()).await.unwrap();
        if ran.code != 0 && !ran.stderr.contains("failed to download openapi") {
            break ran.stderr;
        }
        assert!(std::time::Instant::now() < end, "kubectl takes it: {ran:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(refused.contains("unknown field") && refused.contains("reclaimPolicie"), "{refused}");

    api.create(&PostParams::default(), &object).await.unwrap();
    let kept = api.get("b").await.unwrap();
    assert_eq!(kept.data["spec"]["backupLocation"], "main");
    assert!(kept.data["spec"].get("reclaimPolicie").is_none(), "{:?}", kept.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_waits_says_for_what_and_ends_in_time() {
    sandbox::require_assets!();
    let cluster = Cluster::with_crds().await.unwrap();
    cluster.run(&["backup", "create", "b", "--backup-location", "main", "--reclaim-policy", "delete"]).await.good();
    let finalizer = json!({"metadata": {"finalizers": [api::FINALIZER]}});
    let backups = cluster.api::<ApplicationBackup>();
    backups.patch("b", &PatchParams::default(), &Patch::Merge(&finalizer)).await.unwrap();
    let released = |message: &str| {
        json!({"type": "Released", "status": "False", "reason": "Unreachable", "message": message,
            "lastTransitionTime": "2027-01-15T08:00:00Z"})
    };
    let status = json!({"phase": "Succeeded", "stage": "Done", "recoveryPoint": "p-1", "conditions": [released("no route to the bucket")]});
    cluster.set_status::<ApplicationBackup>("b", status).await.unwrap();

    // There is no location yet, so nobody could remove the recovery point.
    let asked = cluster.run(&["backup", "delete", "b", "--dry-run"]).await.good();
    assert!(asked.contains("deleted, the recovery point p-1 stays in main: there is no such location"), "{asked}");
    let dir = tempfile::tempdir().unwrap();
    let files = secret_files(&dir).unwrap();
    cluster.run(&location_words(&files, &["--no-wait"])).await.good();
    cluster
        .run(&["backup", "delete", "b", "--timeout", "2s"])
        .await
        .ended(4)
        .says("backup b: no route to the bucket")
        .says("not within 2.0 s")
        .says("next: see what keeps it: orlop backup show b -n default -o yaml");
    let asked = cluster.run(&["backup", "delete", "b", "--no-wait"]).await.good();
    assert!(asked.contains("is being deleted, the recovery point p-1 will be removed from main"), "{asked}");

    cluster.run(&["backup", "create", "c", "--backup-location", "main", "--reclaim-policy", "delete"]).await.good();
    backups.patch("c", &PatchParams::default(), &Patch::Merge(finalizer)).await.unwrap();
    let status = json!({"phase": "Succeeded", "stage": "Done", "recoveryPoint": "p-2"});
    cluster.set_status::<ApplicationBackup>("c", status).await.unwrap();
    let waiting = cluster.start(&["backup", "delete", "c"]);
    let asked = |b: Option<&ApplicationBackup>| b.is_some_and(|b| b.metadata.deletion_timestamp.is_some());
    tokio::time::timeout(PATIENCE, await_condition(backups.clone(), "c", asked)).await.unwrap().unwrap();
    let let_go = json!({"metadata": {"finalizers": null}});
    backups.patch("c", &PatchParams::default(), &Patch::Merge(let_go)).await.unwrap();
    let gone = waiting.await.unwrap().good();
    assert_eq!(gone, "applicationbackup.orlop.io/c deleted, the recovery point p-2 is gone from main\n");
}
