//! Argo CD and Flux, held while a restore is under way. Of them there are the kinds, and nobody who acts on them.

use api::{ApplicationRestore, ApplicationRestoreStatus, HoldState, Phase, RestoreStage};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};
use serde_json::{Value, json};

use crate::restore::point::{Wanted, config_map, publish, shop};
use crate::restore::{assert_nothing_left, over, ready, reason, restore_with};
use crate::support::crash::Crashes;
use crate::support::kubelet::Behaviour;
use crate::support::{ADMIN, SHOP, World, parse, until};

const SKIP: &str = "argocd.argoproj.io/skip-reconcile";
const ARGO: (&str, &str, &str, &str) = ("argoproj.io", "v1alpha1", "Application", "applications");
const KUSTOMIZATION: (&str, &str, &str, &str) =
    ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations");
const HELM: (&str, &str, &str, &str) = ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", "helmreleases");

type Kind = (&'static str, &'static str, &'static str, &'static str);

/// Defines the kind of a tool, as far as it matters here.
async fn define(world: &World, (group, version, kind, plural): Kind) {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": any, "status": any}});
    let definition: CustomResourceDefinition = parse(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
    }));
    let api: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    api.create(&PostParams::default(), &definition).await.unwrap();
    await_condition(api, &definition.name_any(), is_crd_established()).await.unwrap();
}

fn api(world: &World, (group, version, kind, _): Kind) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(world.client.clone(), "tools", &resource)
}

async fn make(world: &World, kind: Kind, name: &str, rest: Value) {
    let mut object = json!({"apiVersion": format!("{}/{}", kind.0, kind.1), "kind": kind.2, "metadata": {"name": name}, "spec": {"interval": "1m"}});
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    api(world, kind).create(&PostParams::default(), &parse(object)).await.unwrap();
}

/// Which of these are suspended: an Application, two Kustomizations, a HelmRelease.
async fn suspended(world: &World) -> [bool; 4] {
    let application = api(world, ARGO).get("shop").await.unwrap();
    let skips = application.annotations().get(SKIP).is_some_and(|skip| skip == "true");
    let suspends = async |kind, name: &str| api(world, kind).get(name).await.unwrap().data["spec"]["suspend"] == true;
    let (config, other) = (suspends(KUSTOMIZATION, "config").await, suspends(KUSTOMIZATION, "other").await);
    [skips, config, other, suspends(HELM, "web").await]
}

/// A cluster with the tools, and a recovery point of what they keep.
async fn tools(world: &World) {
    world.namespace("tools").await;
    for kind in [ARGO, KUSTOMIZATION, HELM] {
        define(world, kind).await;
    }
    let flux = |kind: &str, name: &str| json!({format!("{kind}.toolkit.fluxcd.io/name"): name, format!("{kind}.toolkit.fluxcd.io/namespace"): "tools"});
    let mut tracked = config_map("tracked", json!({}));
    tracked["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": "shop:/ConfigMap:shop/tracked"});
    let mut released = config_map("released", json!({}));
    released["metadata"]["labels"] = flux("helm", "web");
    let mut objects = shop().objects;
    objects.extend([tracked, released]);
    publish(world, "p1", Wanted { objects, ..shop() }).await;
    make(world, ARGO, "shop", json!({"spec": {"destination": {"server": "https://kubernetes.default.svc"}}})).await;
    make(world, ARGO, "east", json!({"spec": {"destination": {"server": "https://east.example.com"}}})).await;
    // By its inventory: its objects bear no mark in the recovery point.
    let entry = |namespace: &&str| json!({"id": format!("{namespace}_settings__ConfigMap"), "v": "v1"});
    let lists = |namespaces: &[&str]| {
        let entries: Vec<Value> = namespaces.iter().map(entry).collect();
        json!({"status": {"inventory": {"entries": entries}}})
    };
    make(world, KUSTOMIZATION, "config", lists(&["t", "done", "deleted"])).await;
    make(world, KUSTOMIZATION, "other", lists(&["elsewhere"])).await;
    make(world, HELM, "web", json!({"spec": {"suspend": true}})).await;
}

async fn begin(world: &World, name: &str, target: &str) {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), target.to_owned())].into();
        spec.hold_git_ops = true;
    })
    .await;
}

/// Waits until a restore is over and let go.
async fn let_go(world: &World, name: &str) -> ApplicationRestoreStatus {
    let status = over(world, name).await;
    until(&format!("the finalizer of {name} to go"), || async {
        let restore = world.api::<ApplicationRestore>(ADMIN).get(name).await.unwrap();
        restore.metadata.finalizers.unwrap_or_default().is_empty().then_some(())
    })
    .await;
    status
}

const CALM: [bool; 4] = [false, false, false, true];
const HELD: [bool; 4] = [true, true, false, true];

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_held_while_data_comes_back_and_let_go_in_any_ending() {
    sandbox::require_assets!();
    let world = ready().await;
    tools(&world).await;
    world.kubelet.script(|_| Behaviour::NeverSchedule);
    let operator = world.operator();
    restore_with(&world, "plan", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "t".to_owned())].into();
        spec.hold_git_ops = true;
        spec.plan_only = true;
    })
    .await;
    let plan = over(&world, "plan").await.plan.unwrap();
    assert_eq!(plan.holds.len(), 3, "{plan:#?}");
    assert_eq!(suspended(&world).await, CALM, "a plan holds nothing");

    for name in ["done", "deleted"] {
        begin(&world, name, name).await;
        until(&format!("the data of {name}"), || async {
            let status = world.api::<ApplicationRestore>(ADMIN).get(name).await.unwrap().status?;
            (status.stage == RestoreStage::Volumes).then_some(())
        })
        .await;
        assert_eq!(suspended(&world).await, HELD, "{name}");
        if name == "deleted" {
            world.api::<ApplicationRestore>(ADMIN).delete(name, &DeleteParams::default()).await.unwrap();
        } else {
            world.kubelet.script(|_| Behaviour::Run);
            let status = let_go(&world, name).await;
            assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
            let holds: Vec<_> = status.holds.iter().map(|hold| (hold.name.as_str(), hold.state)).collect();
            use HoldState::{Held, WasSuspended};
            assert_eq!(holds, [("shop", Held), ("config", Held), ("web", WasSuspended)]);
            world.kubelet.script(|_| Behaviour::NeverSchedule);
        }
        until(&format!("the tools to be let go after {name}"), || async {
            (suspended(&world).await == CALM).then_some(())
        })
        .await;
    }
    let application = api(&world, ARGO).get("shop").await.unwrap();
    assert!(
        !application.annotations().contains_key("orlop.io/held-by") && !application.annotations().contains_key(SKIP)
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_holds_that_is_gone_is_let_go_and_what_another_holds_is_not() {
    sandbox::require_assets!();
    let world = ready().await;
    tools(&world).await;
    // Two runs hold it; nobody knows one of them any more.
    let operator = world.operator();
    world.kubelet.script(|_| Behaviour::NeverSchedule);
    begin(&world, "alive", "t").await;
    until("the hold", || async { (suspended(&world).await == HELD).then_some(()) }).await;
    let uid = world.api::<ApplicationRestore>(ADMIN).get("alive").await.unwrap().uid().unwrap();
    let held_by = async || api(&world, ARGO).get("shop").await.unwrap().annotations().get("orlop.io/held-by").cloned();
    assert_eq!(held_by().await, Some(uid.clone()));
    let both = json!({"metadata": {"annotations": {"orlop.io/held-by": format!("gone,{uid}")}}});
    api(&world, ARGO).patch("shop", &PatchParams::default(), &Patch::Merge(both)).await.unwrap();
    until("the run that is gone to be forgotten", || async { (held_by().await == Some(uid.clone())).then_some(()) })
        .await;
    assert_eq!(suspended(&world).await, HELD, "one holds it still");
    world.kubelet.script(|_| Behaviour::Run);
    assert_eq!(let_go(&world, "alive").await.phase, Phase::Succeeded);
    assert_eq!(suspended(&world).await, CALM);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_let_go_keeps_nothing_else_held() {
    sandbox::require_assets!();
    let world = ready().await;
    world.namespace("tools").await;
    for kind in [ARGO, KUSTOMIZATION, HELM] {
        define(&world, kind).await;
    }
    let held = |name: &str| {
        let metadata = json!({"name": name, "annotations": {"orlop.io/held-by": "gone"}});
        json!({"metadata": metadata, "spec": {"suspend": true}})
    };
    // More than a page of a list.
    let names: Vec<String> = (0..40).map(|n| format!("k-{n:02}")).collect();
    for name in &names {
        make(&world, KUSTOMIZATION, name, held(name)).await;
    }
    make(&world, HELM, "web", held("web")).await;
    let plan = Plan::none()
        .with(Rule::on(Verb::List, Fault::INTERNAL_ERROR).path("/applications"))
        .with(Rule::on(Verb::Patch, Fault::INTERNAL_ERROR).path("/kustomizations/k-00"));
    let proxy = FaultProxy::start(world.plane.kubeconfig(), plan).await.unwrap();
    operator::cleanup::sweep(&proxy.client().await.unwrap()).await.unwrap();
    let is_held = async |kind, name: &str| {
        let object = api(&world, kind).get(name).await.unwrap();
        let by = object.annotations().contains_key("orlop.io/held-by");
        assert_eq!(by, object.data["spec"]["suspend"] == true, "{object:?}");
        by
    };
    let mut left = Vec::new();
    for name in &names {
        if is_held(KUSTOMIZATION, name).await {
            left.push(name.as_str());
        }
    }
    assert_eq!(left, ["k-00"]);
    assert!(!is_held(HELM, "web").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_let_go_also_by_the_operator_after_one_that_died() {
    sandbox::require_assets!();
    let world = ready().await;
    tools(&world).await;
    let crashes = Crashes::new(&world).await;
    let begins = async |name: &str| begin(&world, name, name).await;
    let ends = async |name: &str| drop(let_go(&world, name).await);
    crashes
        .everywhere(4, begins, ends, async |name: &str, how: &str| {
            let status = over(&world, name).await;
            assert_eq!((status.phase, reason(&status)), (Phase::Succeeded, "Restored"), "{how}: {status:#?}");
            assert_eq!(suspended(&world).await, CALM, "{how}");
            assert_nothing_left(&world).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_its_own_namespace_holds_nothing_in_another() {
    sandbox::require_assets!();
    let world = ready().await;
    tools(&world).await;
    world.namespace("tenant").await;
    world.location("tenant").await;
    let operator = world.operator();
    let spec = api::ApplicationRestoreSpec {
        recovery_point: Some("p1".into()),
        backup_location: "main".into(),
        namespace_mapping: [(SHOP.to_owned(), "tenant".to_owned())].into(),
        ready_timeout: Some("0s".into()),
        hold_git_ops: true,
        ..api::ApplicationRestoreSpec::default()
    };
    let restores: Api<ApplicationRestore> = world.api("tenant");
    restores.create(&PostParams::default(), &ApplicationRestore::new("r", spec)).await.unwrap();
    let status = until("the end of r", || async {
        restores.get("r").await.unwrap().status.filter(|status| status.phase.is_final())
    })
    .await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert!(
        !status.holds.is_empty() && status.holds.iter().all(|hold| hold.state == HoldState::LeftAlone),
        "{status:#?}"
    );
    let application = api(&world, ARGO).get("shop").await.unwrap();
    let held_once = |entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.manager.as_deref() == Some("orlop-hold")
    };
    assert!(!application.managed_fields().iter().any(held_once), "{application:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_tools_nothing_is_held() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    begin(&world, "r", "t").await;
    let status = let_go(&world, "r").await;
    assert_eq!((status.phase, status.holds.len()), (Phase::Succeeded, 0), "{status:#?}");
    operator.stop().await;
}
