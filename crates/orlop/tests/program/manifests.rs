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
fn files() -> Vec<PathBuf> {
    files_in("deploy/csi")
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn documents() -> Vec<Value> {
    let texts: Vec<_> = files().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    texts.iter().flat_map(|text| text.split("\n---\n")).map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

/// The containers of all that has pods.
fn containers() -> Vec<Value> {
    let of =
        |document: &Value| document["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
    documents().iter().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_the_manifests_of_the_driver() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kubectl");
    let control_plane = ControlPlane::start().await.unwrap();
    let kubectl = sandbox::assets::Assets::from_environment().find("kubectl").unwrap();
    let kubeconfig = control_plane.kubeconfig_path();
    let apply = move |words: Vec<String>| {
        let mut command = assert_cmd::Command::new(&kubectl);
        command.arg("--kubeconfig").arg(&kubeconfig).arg("apply").args(words);
        let run = move || Ran::from(command.output().expect("run kubectl"));
        async { tokio::task::spawn_blocking(run).await.unwrap() }
    };
    let file = |path: PathBuf| vec!["-f".to_owned(), path.to_str().unwrap().to_owned()];
    // What a dry run does not make is not there for what comes after it.
    apply(file(root().join("sandbox/sidecars/snapshots.yaml"))).await.good();
    apply(file(root().join("deploy/csi/00-namespace.yaml"))).await.good();
    let end = Instant::now() + PATIENCE;
    let taken = loop {
        let ran = apply([vec!["--dry-run=server".to_owned()], file(root().join("deploy/csi"))].concat()).await;
        // The kinds of snapshots are served a moment after they are defined.
        if ran.code == 0 || Instant::now() > end || !ran.stderr.contains("VolumeSnapshotClass") {
            break ran.good();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    // What takes the place of one of them is taken by itself.
    let replicated =
        apply([vec!["--dry-run=server".to_owned()], file(root().join("deploy/replicated"))].concat()).await.good();
    assert_eq!(replicated.lines().count(), 8, "{replicated}");
    apply(file(root().join("deploy/operator/00-namespace.yaml"))).await.good();
    let scheduler =
        apply([vec!["--dry-run=server".to_owned()], file(root().join("deploy/scheduler"))].concat()).await.good();
    assert_eq!(scheduler.lines().count(), 7, "{scheduler}");
    let all = documents();
    assert_eq!(taken.lines().count(), all.len(), "{taken}");
    for document in all.iter().filter(|document| document["kind"] != "Namespace") {
        let name = document["metadata"]["name"].as_str().unwrap();
        let line = taken.lines().find(|line| line.contains(&format!("/{name} created (server dry run)")));
        assert!(line.is_some(), "{} {name} is not taken: {taken}", document["kind"]);
    }
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

/// The daemon that holds replicas is the one that does not, but for what that needs: whoever changes the one changes the other.
#[test]
fn the_daemon_with_replicas_is_the_one_without_and_more() {
    let read = |folder: &str| -> Value {
        let text = fs::read_to_string(root().join(folder).join("40-node.yaml")).unwrap();
        serde_saphyr::from_str(&text).unwrap()
    };
    let (mut plain, replicated) = (read("deploy/csi"), read("deploy/replicated"));
    let pods = &mut plain["spec"]["template"]["spec"];
    let removed = pods.as_object_mut().unwrap().remove("automountServiceAccountToken");
    assert_eq!(removed, Some(Value::Bool(false)));
    pods["serviceAccountName"] = "orlop-node".into();
    let more = |list: &mut Value, one: Value| list.as_array_mut().unwrap().push(one);
    more(
        &mut pods["volumes"],
        serde_json::json!({"name": "replicas-tls", "secret": {"secretName": "orlop-replicas", "defaultMode": 256}}),
    );
    let daemon = &mut pods["containers"][0];
    for word in ["--cluster", "--replicas-tls=/etc/orlop/replicas", "--replicas-listen=0.0.0.0:7788"] {
        more(&mut daemon["args"], word.into());
    }
    let field = serde_json::json!({"fieldRef": {"fieldPath": "status.podIP"}});
    more(&mut daemon["env"], serde_json::json!({"name": "POD_IP", "valueFrom": field}));
    daemon["ports"].as_array_mut().unwrap().insert(0, serde_json::json!({"name": "replicas", "containerPort": 7788}));
    let mount = serde_json::json!({"name": "replicas-tls", "mountPath": "/etc/orlop/replicas", "readOnly": true});
    more(&mut daemon["volumeMounts"], mount);
    assert_eq!(plain, replicated);
    let mut words: Vec<&str> = replicated["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    words.extend(["--replicas-address=10.0.0.1", "--help"]);
    assert!(run(&words).good().contains("Usage: orlop"));
    run(&["node", "--pool=/x", "--cluster"]).ended(2).says("--replicas-tls");
}
