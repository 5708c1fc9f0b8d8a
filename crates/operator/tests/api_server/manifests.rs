//! The manifests in `deploy/operator` do what they say: with the rights in them, and no others, everything works.

use std::path::Path;

use crate::schedule::{NAME, policy, runs_are, schedule};
use crate::support::{ADMIN, Operator, World, start, until};
use api::{ApplicationBackupSchedule, Phase, ReclaimPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::KubeConfigOptions;
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::{Api, Client, Config, ResourceExt};
use operator::OperatorConfig;
use serde_json::json;

const ACCOUNT: &str = "system:serviceaccount:orlop-system:orlop-operator";

/// The documents of all files in `deploy/operator`, in the order in which they are applied.
fn documents() -> Vec<DynamicObject> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/operator");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    texts.iter().flat_map(|text| text.split("\n---\n")).map(|d| serde_saphyr::from_str(d).unwrap()).collect()
}

async fn apply(client: &Client, object: &DynamicObject) {
    let gvk = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
    let (resource, capabilities) = discovery::pinned_kind(client, &gvk).await.unwrap();
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), &object.namespace().unwrap(), &resource),
    };
    let params = PatchParams::apply("test").force();
    api.patch(&object.name_any(), &params, &Patch::Apply(object)).await.unwrap();
}

/// A client with the rights of the operator's account.
async fn as_operator(world: &World) -> Client {
    let mut kubeconfig = world.plane.kubeconfig().clone();
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|u| u.auth_info.as_mut()) {
        user.impersonate = Some(ACCOUNT.into());
        user.impersonate_groups = Some(vec!["system:serviceaccounts".into(), "system:authenticated".into()]);
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// A cluster that nothing is restored into, with an application, and an operator that has the rights for that.
async fn only_backed_up() -> (World, Operator) {
    let world = World::new().await;
    for document in documents() {
        apply(&world.client, &document).await;
    }
    let bindings: Api<ClusterRoleBinding> = Api::all(world.client.clone());
    bindings.delete("orlop-operator-restore", &DeleteParams::default()).await.unwrap();
    let config = OperatorConfig { leader_election: true, ..world.config() };
    let operator = start(as_operator(&world).await, config);
    world.location(ADMIN).await;
    world.application().await;
    (world, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_work_with_the_rights_for_backups_alone() {
    sandbox::require_assets!();
    let (world, operator) = only_backed_up().await;
    world.backup_with("b", |s| s.reclaim_policy = ReclaimPolicy::Delete).await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    world.events(ADMIN, "b", &["Succeeded"]).await;
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    api.delete("b", &DeleteParams::default()).await.unwrap();
    until("the backup to go", || async { api.get_opt("b").await.unwrap().is_none().then_some(()) }).await;
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_work_with_the_rights_for_backups_alone() {
    sandbox::require_assets!();
    let (world, operator) = only_backed_up().await;
    policy(&world, 1).await;
    schedule(&world, json!({"reclaimPolicy": "Delete"})).await;
    runs_are(&world, &["nightly-interval-"]).await;
    let api: Api<ApplicationBackupSchedule> = world.api(ADMIN);
    api.delete(NAME, &DeleteParams::default()).await.unwrap();
    until("the schedule to go with its runs", || async { api.get_opt(NAME).await.unwrap().is_none().then_some(()) })
        .await;
    operator.stop().await;
}

#[test]
fn the_operator_and_its_movers_run_the_same_image() {
    let deployment = documents().into_iter().find(|d| d.types.as_ref().unwrap().kind == "Deployment").unwrap();
    let deployment: Deployment = serde_json::from_value(serde_json::to_value(deployment).unwrap()).unwrap();
    let container = deployment.spec.template.spec.unwrap().containers.remove(0);
    let of_movers = container.env.unwrap().into_iter().find(|e| e.name == "ORLOP_IMAGE").unwrap().value;
    assert_eq!(container.image, of_movers);
}
