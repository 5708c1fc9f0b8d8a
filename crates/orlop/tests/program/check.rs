//! `orlop check` on a real API server, whose nodes the test plays.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use sandbox::control_plane::ControlPlane;
use serde_json::{Value, json};

use crate::support::Ran;

async fn check(plane: &ControlPlane, words: &[&str]) -> Ran {
    let mut command = crate::support::orlop();
    command.env("KUBECONFIG", plane.kubeconfig_path()).arg("check").args(words);
    tokio::task::spawn_blocking(move || command.output().expect("run orlop").into()).await.expect("orlop is run")
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).expect("standard output is JSON")
}

/// What is said of a node, or of the cluster.
fn verdict(report: &Value, check: &str, node: Option<&str>) -> String {
    let is_it = |one: &&Value| one["check"] == check && one["node"].as_str() == node;
    let found = report["findings"].as_array().expect("findings").iter().find(is_it);
    found.unwrap_or_else(|| panic!("{check} of {node:?} is not in {report:#}"))["verdict"].as_str().unwrap().to_owned()
}

async fn add_node(client: &Client, name: &str, zone: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let info = json!({
        "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "6.6.1", "kubeProxyVersion": "",
        "kubeletVersion": "v1.20.2", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
    });
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

/// Renews the lease of a node as its kubelet does, by a clock that is so far ahead.
async fn renew(client: &Client, name: &str, ahead: SignedDuration) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"renewTime": (Timestamp::now() + ahead).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()},
    });
    leases.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&lease)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_looked_at_before_orlop_is_in_it_and_what_is_not_known_is_not_good() {
    sandbox::require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    // Without a node nothing can run.
    let ran = check(&plane, &["-o", "json", "--clocks", "0s"]).await.ended(1).says("not as they should be");
    assert_eq!(verdict(&report(&ran), "nodes", None), "problem");
    for (name, zone) in [("a", "east"), ("b", "west"), ("c", "west")] {
        add_node(&client, name, zone).await;
        renew(&client, name, SignedDuration::ZERO).await;
    }
    let kubelets = tokio::spawn(async move {
        loop {
            for (name, ahead_s) in [("a", 0), ("b", 0), ("c", 20)] {
                renew(&client, name, SignedDuration::from_secs(ahead_s)).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
    let ran = check(&plane, &["-o", "json", "--clocks", "1m"]).await.ended(0);
    kubelets.abort();
    let said = report(&ran);
    let of_cluster = [
        ("kubernetes", "good"),
        ("custom resources", "warning"),
        ("operator", "warning"),
        ("snapshots", "warning"),
        ("nodes", "good"),
        ("zones", "good"),
        ("etcd", "unknown"),
        ("scheduler", "unknown"),
    ];
    for (name, expected) in of_cluster {
        assert_eq!(verdict(&said, name, None), expected, "{name} in {said:#}");
    }
    for (name, expected) in [("ready", "good"), ("kernel", "warning"), ("front ends", "unknown"), ("clock", "good")] {
        assert_eq!(verdict(&said, name, Some("a")), expected, "{name} in {said:#}");
    }
    assert_eq!(verdict(&said, "clock", Some("c")), "warning");
    assert_eq!(said["verdict"], "warning");
    // People have one line for nodes that are alike, and are told what to do.
    let text = check(&plane, &["--clocks", "0s"]).await.good();
    assert!(text.contains("a, b, c") && text.contains("WHAT TO DO") && text.contains("orlop install"), "{text}");
    check(&plane, &["--clocks", "0s", "--strict"]).await.ended(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_is_no_cluster_of_which_nothing_is_known() {
    sandbox::require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let ran = check(&plane, &["--context", "nowhere"]).await.ended(1);
    assert_eq!(ran.stdout, "");
    ran.says("nowhere");
}
