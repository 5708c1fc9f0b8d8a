//! The manifests in `deploy/csi`: a real API server takes them, and they ask of the program what it can.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::control_plane::ControlPlane;
use serde_json::Value;

use crate::support::{Ran, run};

/// How long a server may take to serve a kind that was just defined.
const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files, in the order in which they are applied.
fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn documents() -> Vec<Value> {
    documents_in("deploy/csi")
}

fn documents_in(folder: &str) -> Vec<Value> {
    let texts: Vec<_> = files_in(folder).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    texts.iter().flat_map(|text| text.split("\n---\n")).map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

/// The containers of all that has pods.
fn containers() -> Vec<Value> {
    let of =
        |document: &Value| document["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
    documents().iter().flat_map(of).collect()
}

/// `kubectl` at an API server.
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(crate) fn of(plane: &ControlPlane) -> Self {
        let program = sandbox::assets::Assets::from_environment().find("kubectl").unwrap();
        Self { program, kubeconfig: plane.kubeconfig_path() }
    }

    pub(crate) async fn run(&self, words: &[&str], input: &str) -> Ran {
        let mut command = assert_cmd::Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(words).write_stdin(input);
        let run = move || Ran::from(command.output().expect("run kubectl"));
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn apply(&self, path: &str, more: &[&str]) -> Ran {
        let path = root().join(path).into_os_string().into_string().unwrap();
        self.run(&[&["apply", "-f", &path], more].concat(), "").await
    }

    /// Defines the kinds of snapshots, and waits until they are served.
    pub(crate) async fn has_snapshots(&self) {
        self.apply("sandbox/sidecars/snapshots.yaml", &[]).await.good();
        let end = Instant::now() + PATIENCE;
        while self.run(&["get", "volumesnapshotclasses"], "").await.code != 0 {
            assert!(Instant::now() < end, "the kinds of snapshots are not served");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_the_manifests_of_the_driver() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kubectl");
    let control_plane = ControlPlane::start().await.unwrap();
    let kubectl = Kubectl::of(&control_plane);
    // What a dry run does not make is not there for what comes after it.
    kubectl.has_snapshots().await;
    kubectl.apply("deploy/csi/00-namespace.yaml", &[]).await.good();
    let taken = kubectl.apply("deploy/csi", &["--dry-run=server"]).await.good();
    // What takes the place of one of them is taken by itself.
    let replicated = kubectl.apply("deploy/replicated", &["--dry-run=server"]).await.good();
    assert_eq!(replicated.lines().count(), documents_in("deploy/replicated").len(), "{replicated}");
    kubectl.apply("deploy/operator/00-namespace.yaml", &[]).await.good();
    let scheduler = kubectl.apply("deploy/scheduler", &["--dry-run=server"]).await.good();
    assert_eq!(scheduler.lines().count(), documents_in("deploy/scheduler").len(), "{scheduler}");
    let all = documents();
    assert_eq!(taken.lines().count(), all.len(), "{taken}");
    for document in all.iter().filter(|document| document["kind"] != "Namespace") {
        let name = document["metadata"]["name"].as_str().unwrap();
        let line = taken.lines().find(|line| line.contains(&format!("/{name} created (server dry run)")));
        assert!(line.is_some(), "{} {name} is not taken: {taken}", document["kind"]);
    }
}

/// What the operator may do for volumes with replicas, it may do where the nodes' daemons are, and not elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_may_watch_leases_and_read_its_authority_where_storage_is() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kubectl");
    let control_plane = ControlPlane::start().await.unwrap();
    let kubectl = Kubectl::of(&control_plane);
    for path in ["operator/00-namespace.yaml", "operator/10-rights.yaml", "csi/00-namespace.yaml", "csi/20-rights.yaml"]
    {
        kubectl.apply(&format!("deploy/{path}"), &[]).await.good();
    }
    let may = async |verb: &str, what: &str, namespace: &str| {
        let account = "--as=system:serviceaccount:orlop-system:orlop-operator";
        kubectl.run(&["auth", "can-i", verb, what, "-n", namespace, account], "").await.stdout.trim() == "yes"
    };
    // Rights take effect a moment after they are given.
    let end = Instant::now() + PATIENCE;
    while !may("watch", "leases.coordination.k8s.io", "orlop-storage").await {
        assert!(Instant::now() < end, "the right to watch leases is not given");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(may("get", "secrets/orlop-replicas", "orlop-storage").await);
    assert!(may("create", "secrets", "orlop-storage").await);
    assert!(!may("watch", "leases.coordination.k8s.io", "default").await);
    assert!(!may("update", "leases.coordination.k8s.io", "orlop-storage").await);
    assert!(!may("update", "secrets/orlop-replicas", "orlop-storage").await);
}

#[test]
fn manifests_ask_of_the_program_what_it_can() {
    let ours: Vec<_> = containers().into_iter().filter(|one| one["image"] == "orlop/orlop:0.1.0").collect();
    assert_eq!(ours.len(), 2, "the daemon and its keeper");
    for container in ours {
        let mut words: Vec<_> =
            container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        // Words that are wrong are told before the help.
        words.push("--help");
        assert!(run(&words).good().contains("Usage: orlop"));
    }
    run(&["node", "--pool=/x", "--no-such-thing", "--help"]).ended(2).says("--no-such-thing");
}

#[test]
fn sidecars_are_pinned_and_have_no_privileges() {
    let images: Vec<_> = containers().iter().map(|one| one["image"].as_str().unwrap().to_owned()).collect();
    let rights = fs::read_to_string(root().join("deploy/csi/20-rights.yaml")).unwrap();
    for (image, project) in [
        ("csi-provisioner", "external-provisioner"),
        ("csi-resizer", "external-resizer"),
        ("csi-snapshotter", "external-snapshotter"),
    ] {
        let found = images.iter().find(|used| used.contains(&format!("/{image}:"))).expect(image);
        let release = found.rsplit_once(':').unwrap().1;
        assert!(rights.contains(&format!("{project} {release}")), "the rights are not those of {project} {release}");
    }
    // What has privileges on nodes, or sees their processes, has no token for the API server.
    for pods in documents().iter().map(|document| &document["spec"]["template"]["spec"]).filter(|pods| pods.is_object())
    {
        let is_privileged = |one: &Value| one["securityContext"]["privileged"] == true;
        let has_more = pods["hostPID"] == true || pods["containers"].as_array().unwrap().iter().any(is_privileged);
        assert!(!has_more || pods["automountServiceAccountToken"] == false, "{pods}");
    }
    for container in containers().iter().filter(|one| one["name"] != "node") {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{}", container["name"]);
        assert_eq!(context["capabilities"]["drop"][0], "ALL", "{}", container["name"]);
    }
}

#[test]
fn the_daemon_with_replicas_asks_of_the_program_what_it_can() {
    let text = fs::read_to_string(root().join("deploy/replicated/40-node.yaml")).unwrap();
    let daemon: Value = serde_saphyr::from_str(&text).unwrap();
    let words = daemon["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let mut words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
    assert!(words.contains(&"--cluster"), "{words:?}");
    words.extend(["--replicas-address=10.0.0.1", "--help"]);
    assert!(run(&words).good().contains("Usage: orlop"));
    run(&["node", "--pool=/x", "--cluster"]).ended(2).says("--replicas-tls");
}
