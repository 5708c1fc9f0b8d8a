//! The status of custom resources, which only their controllers know otherwise.

use api::{ApplicationRestore, ApplicationRestoreStatus, Phase, PlannedAction};
use application::ObjectKey;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::restore::point::{Wanted, publish, shop};
use crate::restore::{over, ready, restore_with};
use crate::support::{SHOP, World, parse};

const GROUP: &str = "statuses.example.com";

/// Defines a kind, with a status that is written by itself or without.
async fn define(world: &World, kind: &str, with_status: bool) {
    let plural = format!("{}s", kind.to_lowercase());
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": any, "status": {"type": "object", "properties": {"phase": {"type": "string"}, "copies": {"type": "integer"}}},
        }}},
    });
    if with_status {
        version["subresources"] = json!({"status": {}});
    }
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": {"kind": kind, "plural": plural}, "versions": [version]},
    });
    let api: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    let definition: CustomResourceDefinition = parse(definition);
    api.create(&PostParams::default(), &definition).await.unwrap();
    await_condition(api, &definition.name_any(), is_crd_established()).await.unwrap();
}

fn kind(world: &World, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind));
    Api::namespaced_with(world.client.clone(), namespace, &resource)
}

async fn make(world: &World, of: &str, name: &str, status: Value) {
    let api = kind(world, of, SHOP);
    let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": of, "metadata": {"name": name}, "spec": {"size": 1}, "status": status});
    api.create(&PostParams::default(), &parse(object)).await.unwrap();
    let patch = Patch::Merge(json!({"status": status}));
    drop(api.patch_status(name, &PatchParams::default(), &patch).await);
}

async fn status(world: &World, of: &str, namespace: &str, name: &str) -> Value {
    kind(world, of, namespace).get(name).await.unwrap().data["status"].take()
}

async fn restore(world: &World, name: &str, point: &str, kinds: &[&str], plans: bool) -> ApplicationRestoreStatus {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some(point.into());
        spec.namespace_mapping = [(SHOP.to_owned(), name.to_owned())].into();
        spec.restore_status_for = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        spec.plan_only = plans;
    })
    .await;
    over(world, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_comes_back_where_it_is_asked_for_and_can_be_written() {
    sandbox::require_assets!();
    let world = ready().await;
    define(&world, "Widget", true).await;
    define(&world, "Gadget", false).await;
    make(&world, "Widget", "w", json!({"phase": "Bound", "copies": 3})).await;
    make(&world, "Widget", "fresh", json!({})).await;
    make(&world, "Gadget", "g", json!({"phase": "Bound"})).await;
    let operator = world.operator();
    world.backup("b").await;
    let backup = world.finished("b").await.status.unwrap();
    assert_eq!(backup.phase, Phase::Succeeded, "{backup:#?}");
    let point = backup.recovery_point.unwrap();

    let without = restore(&world, "without", &point, &[], false).await;
    assert_eq!((without.phase, without.objects.unwrap().statuses), (Phase::Succeeded, 0));
    assert_eq!(status(&world, "Widget", "without", "w").await, Value::Null, "nobody asked for it");

    let kinds = ["Widget.statuses.example.com", "gadgets", "Gizmo"];
    let planned = restore(&world, "plan", &point, &kinds, true).await;
    let plan = planned.plan.unwrap();
    let restores = |name: &str| plan.items.iter().find(|item| item.item.ends_with(name)).unwrap().restores_status;
    assert!(restores("plan/w") && !restores("plan/fresh"), "{plan:#?}");
    assert_eq!(plan.notes, ["restoreStatusFor: Gizmo is the kind of no object that is restored"]);

    let done = restore(&world, "with", &point, &kinds, false).await;
    assert_eq!(done.phase, Phase::Succeeded, "{done:#?}");
    let objects = done.objects.unwrap();
    assert_eq!(objects.statuses, 1, "{objects:?}");
    assert_eq!(status(&world, "Widget", "with", "w").await, json!({"phase": "Bound", "copies": 3}));
    let said =
        |name: &str| objects.notes.iter().find(|note| note.item.ends_with(name)).map(|note| note.reason.as_str());
    assert!(said("with/g").unwrap().contains("no status subresource"), "{objects:?}");
    let fresh = said("with/fresh").unwrap();
    assert!(fresh.contains("the recovery point has none"), "{fresh}");
    assert!(said("restoreStatusFor").unwrap().contains("Gizmo"), "{objects:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_once_and_not_over_a_newer_one() {
    sandbox::require_assets!();
    let world = ready().await;
    define(&world, "Widget", true).await;
    let catalog =
        std::sync::Arc::new(application::discover(&world.client, &application::Patience::default()).await.unwrap());
    let applier = application::Applier::new(
        world.client.clone(),
        catalog,
        "run-1",
        application::ReplacePolicy::Retain,
        application::Patience::default(),
    );
    let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Widget", "metadata": {"name": "w", "namespace": SHOP}, "spec": {}});
    let key = ObjectKey::of(&object).unwrap();
    assert_eq!(applier.apply(&key, &object).await, application::Applied::Created);
    let old = json!({"phase": "Bound", "unknown": {"a": 1}});
    let written = applier.write_status(&key, &old).await.unwrap();
    assert_eq!(written, application::StatusWritten::Written(vec!["unknown".into()]), "what is dropped is told");
    let newer = Patch::Merge(json!({"status": {"phase": "Lost"}}));
    kind(&world, "Widget", SHOP).patch_status("w", &PatchParams::default(), &newer).await.unwrap();
    // The same run comes by again.
    applier.write_status(&key, &old).await.unwrap();
    assert_eq!(status(&world, "Widget", SHOP, "w").await, json!({"phase": "Lost"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_does_not_come_back_whatever_status_is_asked_for() {
    sandbox::require_assets!();
    let world = ready().await;
    let forged = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "ApplicationRestore", "metadata": {"name": "forged", "namespace": SHOP},
        "spec": {"recoveryPoint": "p1", "backupLocation": "main", "preExecRule": "reach"},
        "status": {"phase": "Running", "stage": "PreExecRule", "namespaces": ["kube-system"], "observedGeneration": 1},
    });
    let mut objects = shop().objects;
    objects.push(forged);
    publish(&world, "p1", Wanted { objects, ..shop() }).await;
    let operator = world.operator();
    let kinds = ["ApplicationRestore"];
    let plan = restore(&world, "plan", "p1", &kinds, true).await.plan.unwrap();
    let item = plan.items.iter().find(|item| item.item.ends_with("plan/forged")).unwrap();
    assert_eq!(item.action, PlannedAction::Skip, "{item:?}");
    assert!(item.reason.as_ref().unwrap().starts_with("orlop-runs"), "{item:?}");
    let done = restore(&world, "done", "p1", &kinds, false).await;
    assert_eq!(done.phase, Phase::Succeeded, "{done:#?}");
    let objects = done.objects.unwrap();
    assert_eq!((objects.skipped, objects.statuses), (1, 0), "{objects:?}");
    let note = objects.notes.iter().find(|note| note.item.ends_with("done/forged")).unwrap();
    assert!(note.reason.contains("orlop-runs"), "{note:?}");
    assert!(world.api::<ApplicationRestore>("done").get_opt("forged").await.unwrap().is_none(), "a run came back");
    operator.stop().await;
}
