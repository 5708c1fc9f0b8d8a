//! What a restore would do, and doing just that.

use api::{ApplicationRestoreStatus, ObjectPlan, Phase, PlannedAction, ReplacePolicy, RestorePlan};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::restore::point::{Wanted, config_map, namespace, publish, shop};
use crate::restore::whole::assert_data;
use crate::restore::{assert_nothing_left, namespace_exists, over, ready, reason, restore_with, webhook};
use crate::support::{SHOP, World, claim_manifest};

/// Restores `p1` into the namespace `t`, or only plans that.
async fn restore(world: &World, name: &str, policy: ReplacePolicy, hash: Option<&str>) -> ApplicationRestoreStatus {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "t".to_owned())].into();
        spec.replace_policy = policy;
        spec.plan_only = hash.is_none();
        spec.plan_hash = hash.map(Into::into);
    })
    .await;
    over(world, name).await
}

async fn plan(world: &World, name: &str, policy: ReplacePolicy) -> RestorePlan {
    let status = restore(world, name, policy, None).await;
    assert_eq!((status.phase, reason(&status)), (Phase::Succeeded, "Planned"), "{status:#?}");
    assert!(status.message.unwrap().contains("nothing was changed"));
    status.plan.unwrap()
}

fn item<'a>(plan: &'a RestorePlan, name: &str) -> &'a ObjectPlan {
    plan.items.iter().find(|item| item.item.ends_with(name)).unwrap_or_else(|| panic!("{name} in {plan:#?}"))
}

/// A namespace in which some of what is restored exists, with other content.
async fn occupied(world: &World) {
    world.namespace("t").await;
    let settings = json!({"metadata": {"name": "settings", "labels": {"kept": "yes"}}, "data": {"color": "red"}});
    world.create::<ConfigMap>("t", settings).await;
    world.create::<Secret>("t", json!({"metadata": {"name": "token"}, "stringData": {"t": "another"}})).await;
}

async fn color(world: &World) -> String {
    world.api::<ConfigMap>("t").get("settings").await.unwrap().data.unwrap()["color"].clone()
}

async fn paint(world: &World, color: &str) {
    let patch = json!({"data": {"color": color}});
    world.api::<ConfigMap>("t").patch("settings", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn assert_nothing_made(world: &World) {
    assert!(world.api::<Deployment>("t").list(&ListParams::default()).await.unwrap().items.is_empty());
    assert!(world.api::<PersistentVolumeClaim>("t").get_opt("data").await.unwrap().is_none());
    assert!(world.kubelet.started().is_empty(), "a mover was started");
    assert_nothing_left(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_would_change_and_changes_nothing_and_is_what_is_done() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    occupied(&world).await;
    let operator = world.operator();
    let plan = plan(&world, "plan", ReplacePolicy::Update).await;
    let settings = item(&plan, "t/settings");
    assert_eq!(settings.action, PlannedAction::Update);
    let changes: Vec<_> =
        settings.changes.iter().map(|c| (c.path.as_str(), c.from.as_deref(), c.to.as_deref())).collect();
    assert_eq!(changes, [("/data/color", Some("\"red\""), Some("\"blue\""))], "what the point does not have stays");
    let token = item(&plan, "t/token");
    assert_eq!((token.action, token.changes[0].path.as_str()), (PlannedAction::Update, "/data/t"));
    let text = serde_json::to_string(&plan).unwrap();
    for secret in ["c2VjcmV0", "YW5vdGhlcg", "another"] {
        assert!(!text.contains(secret), "a Secret is shown: {text}");
    }
    assert_eq!(item(&plan, "t/web").action, PlannedAction::Create);
    let counts = plan.objects;
    assert_eq!((counts.create, counts.update, counts.conflict), (6, 3, 0), "the namespace changes too: {plan:#?}");
    let volume = &plan.volumes[0];
    assert_eq!((volume.action, volume.files, volume.bytes), (PlannedAction::Create, 2, 100_008));
    assert_eq!((plan.files, plan.bytes, plan.estimated_seconds), (2, 100_008, None));
    assert_nothing_made(&world).await;
    assert_eq!(color(&world).await, "red");

    let status = restore(&world, "done", ReplacePolicy::Update, Some(&plan.hash)).await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let objects = status.objects.unwrap();
    assert_eq!((objects.created, objects.updated), (counts.create, counts.update), "as planned: {objects:?}");
    assert_eq!(color(&world).await, "blue");
    assert_data(&world, "t").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_would_be_another_now_is_not_done() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    occupied(&world).await;
    let operator = world.operator();
    let before = plan(&world, "plan", ReplacePolicy::Update).await;
    assert_eq!(plan(&world, "again", ReplacePolicy::Update).await.hash, before.hash, "nothing has changed");
    paint(&world, "green").await;
    let status = restore(&world, "changed", ReplacePolicy::Update, Some(&before.hash)).await;
    assert_eq!((status.phase, reason(&status)), (Phase::Failed, "PlanChanged"), "{status:#?}");
    let now = status.plan.clone().unwrap();
    let message = status.message.unwrap();
    for part in ["t/settings (Update, with other changes)", &before.hash, &now.hash, "nothing was changed"] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
    let status = restore(&world, "policy", ReplacePolicy::Retain, Some(&before.hash)).await;
    assert!(status.message.unwrap().contains("t/settings (Keep, it was Update)"));
    let status = restore(&world, "unknown", ReplacePolicy::Update, Some(&"0".repeat(64))).await;
    assert!(status.message.unwrap().contains("not known in what they differ"));
    // A Secret whose value is another one is told apart too, though nobody sees it.
    let again = plan(&world, "third", ReplacePolicy::Update).await;
    let patch = json!({"stringData": {"t": "a third"}});
    world.api::<Secret>("t").patch("token", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let status = restore(&world, "secret", ReplacePolicy::Update, Some(&again.hash)).await;
    assert_eq!(reason(&status), "PlanChanged", "{status:#?}");
    assert_nothing_made(&world).await;
    assert_eq!(color(&world).await, "green");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_knows_what_the_cluster_would_refuse_and_who_else_writes() {
    sandbox::require_assets!();
    let world = ready().await;
    let mut kept = config_map("kept", json!({"a": "1"}));
    kept["metadata"]["labels"] = json!({
        "kustomize.toolkit.fluxcd.io/name": "shop", "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    });
    let objects = vec![
        namespace(),
        config_map("refused", json!({})),
        config_map("frozen", json!({"a": "new"})),
        config_map("settings", json!({"color": "blue"})),
        kept,
    ];
    publish(&world, "p1", Wanted { objects, ..shop() }).await;
    let _guard = webhook::refuse(&world.client, "refused").await;
    let operator = world.operator();
    // Nothing is there: nothing can be asked about what would be in a namespace that is not.
    let fresh = plan(&world, "fresh", ReplacePolicy::Update).await;
    assert_eq!((fresh.objects.create, fresh.items.len()), (5, 5), "{fresh:#?}");
    assert!(!namespace_exists(&world, "t").await, "the plan made something");

    occupied(&world).await;
    let frozen = json!({"metadata": {"name": "frozen"}, "immutable": true, "data": {"a": "old"}});
    world.create::<ConfigMap>("t", frozen).await;
    world.create::<PersistentVolumeClaim>("t", claim_manifest("data")).await;
    let update = plan(&world, "update", ReplacePolicy::Update).await;
    for (name, said) in [("t/refused", webhook::NAME), ("t/frozen", "immutable")] {
        let item = item(&update, name);
        assert_eq!(item.action, PlannedAction::Conflict, "{item:?}");
        assert!(item.reason.as_ref().unwrap().contains(said), "{said:?} in {item:?}");
    }
    assert_eq!(update.items[0].action, PlannedAction::Conflict, "what is refused comes first");
    assert_eq!(update.managed_by, ["Flux Kustomization flux-system/shop"]);
    assert_eq!(item(&update, "t/kept").managed_by.as_deref(), Some("Flux Kustomization flux-system/shop"));
    assert_eq!(update.volumes[0].action, PlannedAction::Keep);
    assert_eq!(update.bytes, 0, "nothing would be written");

    let replace = plan(&world, "replace", ReplacePolicy::Delete).await;
    assert_eq!(item(&replace, "t/frozen").action, PlannedAction::Replace, "what cannot change can be replaced");
    assert_eq!(replace.volumes[0].action, PlannedAction::Replace);
    let settings = item(&replace, "t/settings");
    let changed: Vec<_> = settings.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(changed, ["/data/color", "/metadata/labels"], "what the point does not have goes: {settings:?}");
    let retain = plan(&world, "retain", ReplacePolicy::Retain).await;
    assert_eq!(item(&retain, "t/settings").action, PlannedAction::Keep);
    assert_eq!(color(&world).await, "red");
    operator.stop().await;
}
