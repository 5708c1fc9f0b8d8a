//! The control plane against itself: it starts, it is real, it survives a restart, and it leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use sandbox::control_plane::ControlPlane;
use sandbox::require_assets;
use serde_json::json;

/// What one of these tests waits for at most; all of it takes a second or two on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some(BTreeMap::from([("key".to_owned(), "value".to_owned())]));
    map
}

fn pod(name: &str) -> Pod {
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "none"}]}});
    serde_json::from_value(pod).unwrap()
}

fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn default_namespace<K>(client: &Client) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), "default")
}

#[tokio::test]
async fn objects_are_kept_over_a_restart_of_the_api_server() {
    require_assets!();
    let started = Instant::now();
    let mut plane = ControlPlane::start().await.unwrap();
    eprintln!("the control plane was ready after {:?}", started.elapsed());
    let maps: Api<ConfigMap> = default_namespace(&plane.client());
    maps.create(&PostParams::default(), &config_map("kept")).await.unwrap();

    plane.kill_apiserver().unwrap();
    let refused = maps.get("kept").await.unwrap_err();
    assert_eq!(status_code(&refused), None, "an answer from a server that is down: {refused}");

    plane.restart_apiserver().await.unwrap();
    assert_eq!(maps.get("kept").await.unwrap().data, config_map("kept").data);
}

#[tokio::test]
async fn rights_are_checked() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let mut kubeconfig = plane.kubeconfig().clone();
    kubeconfig.auth_infos[0].auth_info.as_mut().unwrap().impersonate = Some("nobody".to_owned());
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let maps: Api<ConfigMap> = default_namespace(&Client::try_from(config).unwrap());
    let refused = maps.get("any").await.unwrap_err();
    assert_eq!(status_code(&refused), Some(403), "{refused}");
}

#[tokio::test]
async fn pods_need_no_service_account_without_controllers() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let pods: Api<Pod> = default_namespace(&plane.client());
    pods.create(&PostParams::default(), &pod("alone")).await.unwrap();
}

#[tokio::test]
async fn with_controllers_a_deleted_namespace_is_emptied_and_pods_get_their_account() {
    require_assets!();
    let started = Instant::now();
    let plane = ControlPlane::builder().with_controller_manager().start().await.unwrap();
    eprintln!("the control plane with controllers was ready after {:?}", started.elapsed());
    let namespaces: Api<Namespace> = Api::all(plane.client());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("doomed".to_owned());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(plane.client(), "doomed");
    eventually("a pod is admitted with the account that a controller makes", async || {
        pods.create(&PostParams::default(), &pod("p")).await.is_ok()
    })
    .await;
    let created = pods.get("p").await.unwrap();
    assert_eq!(created.spec.unwrap().service_account_name.as_deref(), Some("default"));

    namespaces.delete("doomed", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || namespaces.get_opt("doomed").await.unwrap().is_none()).await;
}

#[tokio::test]
async fn nothing_is_left_when_it_is_dropped() {
    require_assets!();
    let plane = ControlPlane::builder().with_controller_manager().start().await.unwrap();
    let directory = plane.kubeconfig_path().parent().unwrap().to_owned();
    assert_eq!(processes_in(&directory), 3);
    drop(plane);
    assert_eq!(processes_in(&directory), 0);
    assert!(!directory.exists());
}

/// Set in the process in which the next test runs a second time, to be killed.
const CHILD_VARIABLE: &str = "ORLOP_CONTROL_PLANE_TEST_CHILD";

#[tokio::test]
async fn nothing_runs_on_when_the_test_is_killed() {
    require_assets!();
    if let Some(report) = std::env::var_os(CHILD_VARIABLE) {
        let plane = ControlPlane::start().await.unwrap();
        let draft = std::path::Path::new(&report).with_extension("draft");
        std::fs::write(&draft, plane.kubeconfig_path().parent().unwrap().to_str().unwrap()).unwrap();
        std::fs::rename(&draft, &report).unwrap();
        return std::future::pending().await;
    }
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["nothing_runs_on_when_the_test_is_killed", "--exact"])
        .env(CHILD_VARIABLE, &report)
        .env("TMPDIR", directory.path())
        .spawn()
        .unwrap();
    eventually("the child has a control plane", async || report.exists()).await;
    let plane = std::path::PathBuf::from(std::fs::read_to_string(&report).unwrap());
    assert_eq!(processes_in(&plane), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the control plane died with the child", async || processes_in(&plane) == 0).await;
}

/// How many processes have a directory, also a removed one, as their working directory.
fn processes_in(directory: &std::path::Path) -> usize {
    let directory = directory.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let working = entries.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
    working.filter(|cwd| cwd.to_str().is_some_and(|cwd| cwd.starts_with(directory))).count()
}
