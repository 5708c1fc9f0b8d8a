//! Clusters that are given keep what is theirs: on control planes without nodes, where the job itself cannot be done.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use sandbox::control_plane::ControlPlane;
use scenarios::state::{Given, State};
use scenarios::tidy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

async fn create<K>(api: &Api<K>, object: Value)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn namespaces(client: &Client) -> Api<Namespace> {
    Api::all(client.clone())
}

/// The program of the demo, with a cluster that is given and a store that is never asked.
fn demo(kubeconfig: &Path, directory: &Path, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--dir").arg(directory).args(words).env("KUBECONFIG", kubeconfig);
    command.env_remove("KUBECONFIG_EAST").env_remove("KUBECONFIG_WEST");
    for name in ["DEMO_S3_ENDPOINT", "DEMO_S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ORLOP_IMAGE"] {
        command.env(name, "none");
    }
    let output = command.env("DEMO_PASSPHRASE_FILE", "/none").output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_namespace_of_the_demos_name_is_refused_and_keeps_it() {
    sandbox::require_assets!();
    let plane = ControlPlane::builder().with_controller_manager().start().await.unwrap();
    let client = plane.client();
    tidy::refuse_existing(&client).await.unwrap();
    create(&namespaces(&client), json!({"metadata": {"name": "shop"}})).await;
    let volume = json!({"metadata": {"name": "broken"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Mi"}, "hostPath": {"path": "/nowhere"}}});
    create(&Api::<PersistentVolume>::all(client.clone()), volume).await;

    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("demo");
    let (succeeded, said) = demo(&plane.kubeconfig_path(), &directory, &["up"]);
    assert!(!succeeded && said.contains("namespace shop, persistentvolume broken"), "{said}");
    assert!(!directory.exists(), "nothing was begun");
    let (succeeded, said) = demo(&plane.kubeconfig_path(), &directory, &["down"]);
    assert!(succeeded, "{said}");
    assert!(namespaces(&client).get("shop").await.unwrap().metadata.deletion_timestamp.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_has_made_goes_and_nothing_else() {
    sandbox::require_assets!();
    let plane = ControlPlane::builder().with_controller_manager().start().await.unwrap();
    let client = plane.client();
    let marked = |name: &str, run: &str| json!({"metadata": {"name": name, "labels": {(tidy::RUN_LABEL): run}}});
    create(&namespaces(&client), marked("shop", "mine")).await;
    create(&namespaces(&client), marked("files", "another")).await;
    create(&namespaces(&client), json!({"metadata": {"name": "shop-restored"}})).await;
    create(&namespaces(&client), json!({"metadata": {"name": api::ADMIN_NAMESPACE}})).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), api::ADMIN_NAMESPACE);
    create(&maps, marked("other", "mine")).await;

    // What `make demo KEEP=1` has written down is what `make demo-down` goes by, whatever KUBECONFIG says by then.
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("demo");
    let kubeconfig = plane.kubeconfig_path();
    let given = Given { east: kubeconfig.clone(), west: kubeconfig.clone() };
    State { run: "mine".into(), given: Some(given) }.claim(&directory).unwrap();
    let (succeeded, said) = demo(&kubeconfig, &directory, &["up"]);
    assert!(!succeeded && said.contains("make demo-down"), "{said}");
    let (succeeded, said) = demo(Path::new("/none"), &directory, &["down"]);
    assert!(succeeded, "{said}");

    assert!(!directory.exists());
    assert!(namespaces(&client).get_opt("shop").await.unwrap().is_none());
    for name in ["files", "shop-restored", api::ADMIN_NAMESPACE] {
        let namespace = namespaces(&client).get(name).await.unwrap();
        assert!(namespace.metadata.deletion_timestamp.is_none(), "{name}");
    }
    maps.get("other").await.unwrap();
}
