//! The control plane against itself: it starts, it is real, it survives a restart, and it leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use sandbox::control_plane::{Borrowed, ControlPlane, lend};
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
    namespaces.create(&PostParams::default(), &namespace("doomed")).await.unwrap();
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

fn namespace(name: &str) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace
}

#[tokio::test]
async fn who_borrows_a_control_plane_finds_what_was_kept_and_nothing_else() {
    require_assets!();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let lender = tokio::spawn({
        let socket = socket.clone();
        async move { lend(&socket).await.unwrap() }
    });
    eventually("the lender listens", async || socket.exists()).await;
    let server = |plane: &Borrowed| plane.kubeconfig().clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();

    let mut first = Borrowed::from_lender(&socket).await.unwrap();
    let maps: Api<ConfigMap> = default_namespace(&first.client());
    maps.create(&PostParams::default(), &config_map("kept")).await.unwrap();
    first.keep().await.unwrap();
    maps.create(&PostParams::default(), &config_map("left")).await.unwrap();
    maps.delete("kept", &DeleteParams::default()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(first.client());
    namespaces.create(&PostParams::default(), &namespace("left")).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(first.client(), "left");
    eventually("a pod is admitted", async || pods.create(&PostParams::default(), &pod("p")).await.is_ok()).await;
    let before = server(&first);
    drop(first);

    // Another one may be lent first: the first is still being cleaned.
    let mut others = Vec::new();
    let again = loop {
        let next = Borrowed::from_lender(&socket).await.unwrap();
        if server(&next) == before {
            break next;
        }
        others.push(next);
        assert!(others.len() < 3, "the first is not lent again");
    };
    let client = again.client();
    let maps: Api<ConfigMap> = default_namespace(&client);
    assert_eq!(maps.get("kept").await.unwrap().data, config_map("kept").data);
    assert!(maps.get_opt("left").await.unwrap().is_none());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert!(namespaces.get_opt("left").await.unwrap().is_none());
    let secrets: Api<Secret> = Api::all(client.clone());
    let namespaces_of = |list: Vec<Secret>| list.into_iter().filter_map(|s| s.metadata.namespace).collect::<Vec<_>>();
    assert!(!namespaces_of(secrets.list(&ListParams::default()).await.unwrap().items).contains(&"left".to_owned()));
    // It works on, for namespaces of the same name too.
    namespaces.create(&PostParams::default(), &namespace("left")).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "left");
    eventually("a pod is admitted", async || pods.create(&PostParams::default(), &pod("p")).await.is_ok()).await;

    let crds: Api<CustomResourceDefinition> = Api::all(client);
    crds.create(&PostParams::default(), &things()).await.unwrap();
    drop((again, others));
    let fresh = async {
        let next = Borrowed::from_lender(&socket).await.unwrap();
        let crds: Api<CustomResourceDefinition> = Api::all(next.client());
        crds.list(&ListParams::default()).await.unwrap().items.is_empty()
    };
    assert!(fresh.await, "a plane that has a definition more is not lent again");
    lender.abort();
}

/// The definition of a resource.
fn things() -> CustomResourceDefinition {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    serde_json::from_value(json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    }))
    .unwrap()
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
