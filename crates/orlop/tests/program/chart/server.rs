//! The chart on a real API server, without nodes.

use std::path::Path;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use sandbox::control_plane::ControlPlane;

use super::{Command, chart};
use crate::manifests::Kubectl;
use crate::support::{Ran, orlop};

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_what_the_chart_renders() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kubectl");
    let helm = require_helm!();
    let plane = ControlPlane::start().await.unwrap();
    let kubectl = Kubectl::of(&plane);
    kubectl.has_snapshots().await;
    for namespace in ["orlop-system", "orlop-storage"] {
        kubectl.run(&["create", "namespace", namespace], "").await.good();
    }
    // What an old server does not have is left out by its version.
    let everything = [
        "storage.mode=replicated",
        "image.pullSecrets={one,two}",
        "operator.movers.node=7",
        "operator.nodeSelector.kind=infra",
        "operator.tolerations[0].operator=Exists",
        "operator.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
        "operator.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].key=metadata.name",
        "operator.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].operator=In",
        "operator.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].values={a}",
        "storage.updateStrategy=RollingUpdate",
        "networkPolicies.metricsFrom[0].namespaceSelector.matchLabels.name=watch",
        "networkPolicies.apiServer[0].ports[0].port=6443",
    ];
    let mut command = Command::new(&helm);
    command.args(["template", "orlop", "--namespace", "orlop-system", "--kube-version", "1.20.2"]).arg(chart());
    for value in everything {
        command.args(["--set", value]);
    }
    let text = Ran::from(command.output().unwrap()).good();
    let taken = kubectl.run(&["apply", "--dry-run=server", "-f", "-"], &text).await.good();
    let asked = text.lines().filter(|line| line.starts_with("kind: ")).count();
    assert_eq!(taken.lines().filter(|line| line.ends_with("(server dry run)")).count(), asked, "{taken}");
    assert!(asked > 40 && !text.contains("kind: PodDisruptionBudget"), "{asked} objects");
}

/// Helm at an API server.
async fn at(helm: &Path, plane: &ControlPlane, words: &[&str]) -> Ran {
    let mut command = assert_cmd::Command::new(helm);
    command.args(words).args(["--namespace", "orlop-system", "--kubeconfig"]).arg(plane.kubeconfig_path());
    tokio::task::spawn_blocking(move || command.output().expect("run helm").into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_upgrades_and_uninstalls_and_leaves_what_cannot_be_made_again() {
    sandbox::require_assets!();
    let helm = require_helm!();
    let plane = ControlPlane::start().await.unwrap();
    let folder = chart().into_os_string().into_string().unwrap();
    let chosen = [
        "--set",
        "storage.mode=csi,storage.snapshots=false,storage.pools[0].path=/var/lib/orlop/a,storage.pools[0].size=1GiB,storage.pools[1].path=/dev/sdb",
    ];
    let words = [&["install", "orlop", &folder, "--create-namespace"][..], &chosen].concat();
    let said = at(&helm, &plane, &words).await.good();
    assert!(said.contains("Orlop 0.1.0 is installed"), "{said}");
    let operators: Api<Deployment> = Api::namespaced(plane.client(), "orlop-system");
    let daemons: Api<DaemonSet> = Api::namespaced(plane.client(), "orlop-storage");
    assert!(daemons.get_opt("orlop-node").await.unwrap().is_some());
    // Who has Helm does not have the program change what Helm keeps.
    let mut program = orlop();
    program.env("KUBECONFIG", plane.kubeconfig_path()).arg("upgrade");
    let ran: Ran = tokio::task::spawn_blocking(move || program.output().expect("run orlop")).await.unwrap().into();
    ran.ended(1).says("helm upgrade orlop");
    // Helm forgets what was chosen when anything is.
    let forgets = at(&helm, &plane, &["upgrade", "orlop", &folder, "--set", "operator.replicas=3"]).await;
    forgets.ended(1).says("with storage.mode=none").says("--reset-then-reuse-values");
    // One of them is another value than the daemons have, whichever was given again.
    for (pools, says) in [
        ("", "the pool /var/lib/orlop/a here"),
        (",storage.pools[0].path=/var/lib/orlop/a,storage.pools[0].size=2GiB", "the pool /dev/sdb here"),
    ] {
        let other = format!("storage.mode=replicated,storage.snapshots=false{pools}");
        let takes = at(&helm, &plane, &["upgrade", "orlop", &folder, "--set", &other]).await;
        takes.ended(1).says(says).says("--reset-then-reuse-values");
    }
    assert!(daemons.get_opt("orlop-node").await.unwrap().is_some());
    let words = [&["upgrade", "orlop", &folder, "--set", "operator.replicas=3"][..], &chosen].concat();
    at(&helm, &plane, &words).await.good();
    assert_eq!(operators.get("orlop-operator").await.unwrap().spec.replicas, Some(3));
    // Without nodes nobody runs what it asks before.
    at(&helm, &plane, &["uninstall", "orlop", "--no-hooks"]).await.good();
    assert!(operators.get_opt("orlop-operator").await.unwrap().is_none());
    assert!(daemons.get_opt("orlop-node").await.unwrap().is_none());
    let crds: Api<CustomResourceDefinition> = Api::all(plane.client());
    assert!(crds.get_opt("volumes.orlop.io").await.unwrap().is_some());
    let namespace = Api::<Namespace>::all(plane.client()).get("orlop-storage").await.unwrap();
    assert_eq!(namespace.metadata.deletion_timestamp, None);
}
