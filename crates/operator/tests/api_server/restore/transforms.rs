//! Objects that are changed on their way back.

use api::{
    ApplicationRestore, ApplicationRestoreStatus, Phase, ResourceTransformation, RestoreStage, TransformationPhase,
};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::restore::point::{publish, shop};
use crate::restore::whole::assert_data;
use crate::restore::{assert_nothing_left, namespace_exists, over, ready, reason, restore_with};
use crate::support::kubelet::Behaviour;
use crate::support::{ADMIN, SHOP, World, parse, until};

pub(super) async fn transformation(world: &World, name: &str, specs: Value) {
    let manifest = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "ResourceTransformation",
        "metadata": {"name": name}, "spec": {"transformSpecs": specs},
    });
    world.create::<ResourceTransformation>(ADMIN, manifest).await;
}

/// Restores `p1` into a namespace of the name of the restore, with transformations; a plan of that if `plans`.
async fn restore(world: &World, name: &str, transforms: &[&str], plans: bool) -> ApplicationRestoreStatus {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), name.to_owned())].into();
        spec.transforms = transforms.iter().map(|name| (*name).to_owned()).collect();
        spec.plan_only = plans;
    })
    .await;
    over(world, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_claims_come_back_changed_as_the_plan_says() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    transformation(
        &world,
        "smaller",
        json!([
            {"resource": "apps/v1/Deployment", "names": ["web"],
                "paths": [{"path": "spec.replicas", "operation": "modify", "type": "int", "value": "3"},
                    {"path": "spec.template.metadata.annotations", "operation": "add", "type": "keypair", "value": "site:west"}],
                "jsonPatch": [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "west/web:1"}]},
            {"resource": "v1/Service", "selectors": {"tier": "none"}, "mergePatch": "spec: {type: NodePort}"},
        ]),
    )
    .await;
    transformation(
        &world,
        "west",
        json!([
            {"resource": "v1/ConfigMap", "mergePatch": "data: {color: null, site: west}"},
            {"resource": "v1/Secret", "paths": [{"path": "data.t", "operation": "modify", "value": "d2VzdA=="}]},
            {"resource": "v1/PersistentVolumeClaim", "names": ["data"],
                "paths": [{"path": "metadata.labels", "operation": "add", "type": "keypair", "value": "site:west"},
                    {"path": "spec.resources.requests.storage", "operation": "modify", "value": "500Mi"}]},
        ]),
    )
    .await;
    let operator = world.operator();
    let planned = restore(&world, "plan", &["smaller", "west"], true).await;
    assert_eq!((planned.phase, reason(&planned)), (Phase::Succeeded, "Planned"), "{planned:#?}");
    let plan = planned.plan.unwrap();
    let fields = |name: &str| -> Vec<(String, Option<String>)> {
        let item = plan.items.iter().find(|item| item.item.ends_with(name)).unwrap();
        item.transformed.iter().map(|change| (change.path.clone(), change.to.clone())).collect()
    };
    let change = |path: &str, to: Option<&str>| (path.to_owned(), to.map(ToOwned::to_owned));
    assert_eq!(fields("plan/settings"), [change("/data/color", None), change("/data/site", Some("\"west\""))]);
    assert!(
        fields("Deployment.apps plan/web").iter().any(|one| *one == change("/spec/replicas", Some("3"))),
        "{plan:#?}"
    );
    assert_eq!(fields("plan/token"), [change("/data/t", Some("(not shown)"))]);
    let claim: Vec<&str> = plan.volumes[0].transformed.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(claim, ["/metadata/labels", "/spec/resources/requests/storage"]);
    assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
    assert!(plan.notes[0].contains("smaller, transformSpecs[1] (v1/Service) is for no object"), "{:?}", plan.notes);

    let status = restore(&world, "west", &["smaller", "west"], false).await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let notes = status.objects.unwrap().notes;
    assert!(notes[0].reason.contains("transformSpecs[1] (v1/Service)"), "{notes:?}");
    let web = world.api::<Deployment>("west").get("web").await.unwrap().spec;
    let pod = web.template.spec.unwrap();
    assert_eq!((web.replicas, pod.containers[0].image.as_deref()), (Some(3), Some("west/web:1")));
    let settings = world.api::<ConfigMap>("west").get("settings").await.unwrap().data.unwrap();
    assert_eq!((settings.get("color"), settings["site"].as_str()), (None, "west"));
    assert_eq!(world.api::<Secret>("west").get("token").await.unwrap().data.unwrap()["t"].0, b"west");
    let service = world.api::<Service>("west").get("web").await.unwrap().spec.unwrap();
    assert_eq!(service.type_.as_deref(), Some("ClusterIP"), "it does not bear the label");
    assert_data(&world, "west").await;
    let claim = world.api::<PersistentVolumeClaim>("west").get("data").await.unwrap();
    assert_eq!(claim.metadata.labels.unwrap()["site"], "west");
    assert_eq!(claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0, "500Mi");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_said_and_changes_nothing() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let deployment = |change: Value| {
        let mut spec = json!({"resource": "apps/v1/Deployment"});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!([spec])
    };
    let path = |path: &str, operation: &str, type_: &str, value: &str| {
        deployment(json!({"paths": [{"path": path, "operation": operation, "type": type_, "value": value}]}))
    };
    let operator = world.operator();
    let cases = [
        ("absent", path("spec.nothing", "modify", "int", "1"), "TransformFailed", "there is no /spec/nothing in it"),
        (
            "test",
            deployment(json!({"jsonPatch": [{"op": "test", "path": "/spec/replicas", "value": 7}]})),
            "TransformFailed",
            "another value than the test wants",
        ),
        ("identity", deployment(json!({"mergePatch": "metadata: null"})), "TransformFailed", "another object"),
        ("invalid", path("spec.replicas", "modify", "int", "-1"), "TransformRefused", "spec.replicas"),
        ("type", path("spec.replicas", "modify", "string", "many"), "TransformRefused", "replicas"),
        ("unknown", path("spec.replica", "add", "int", "1"), "TransformRefused", "would drop: spec.replica"),
        (
            "source",
            json!([{"resource": "v1/PersistentVolumeClaim", "mergePatch": "spec: {dataSource: {kind: PersistentVolumeClaim, name: x}}"}]),
            "TransformFailed",
            "sets spec.dataSource",
        ),
        (
            "volume",
            json!([{"resource": "v1/PersistentVolumeClaim", "paths": [{"path": "spec.volumeName", "operation": "add", "value": "v"}]}]),
            "TransformFailed",
            "sets spec.volumeName",
        ),
        ("wrong", path("metadata.name", "modify", "string", "x"), "TransformationInvalid", "another object"),
    ];
    for (name, specs, word, part) in cases {
        transformation(&world, name, specs).await;
        for plans in [true, false] {
            let run = format!("{name}-{plans}");
            let status = restore(&world, &run, &[name], plans).await;
            assert_eq!((status.phase, reason(&status)), (Phase::Failed, word), "{run}: {status:#?}");
            let message = status.message.unwrap();
            for part in [part, "nothing was changed"] {
                assert!(message.contains(part), "{run}: {part:?} in {message:?}");
            }
            assert!(!namespace_exists(&world, &run).await, "{run} made something");
        }
    }
    let status = restore(&world, "missing", &["elsewhere"], false).await;
    assert_eq!(reason(&status), "TransformationMissing", "{status:#?}");
    assert!(world.api::<Deployment>(ADMIN).list(&ListParams::default()).await.unwrap().items.is_empty());
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transformation_says_whether_it_can_be_used() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    let good = json!([{"resource": "v1/ConfigMap", "mergePatch": "data: {a: b}"}]);
    transformation(&world, "good", good.clone()).await;
    transformation(&world, "bad", json!([{"resource": "ConfigMap", "mergePatch": "data: {a: b}"}])).await;
    let is = |name: &'static str, phase: TransformationPhase| {
        let api = world.api::<ResourceTransformation>(ADMIN);
        async move {
            until(&format!("{phase:?} of {name}"), || async {
                let status = api.get(name).await.unwrap().status?;
                (status.phase == phase).then_some(status)
            })
            .await
        }
    };
    is("good", TransformationPhase::Ready).await;
    let bad = is("bad", TransformationPhase::Failed).await;
    let message = bad.message.unwrap();
    assert!(message.contains("spec.transformSpecs[0].resource") && message.contains("apps/v1/Deployment"), "{message}");
    let patch = json!({"spec": {"transformSpecs": good}});
    let api = world.api::<ResourceTransformation>(ADMIN);
    api.patch("bad", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    is("bad", TransformationPhase::Ready).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_does_what_its_transformations_said_when_it_began() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let scale = |replicas: &str| {
        json!([{"resource": "apps/v1/Deployment",
            "paths": [{"path": "spec.replicas", "operation": "modify", "type": "int", "value": replicas}]}])
    };
    transformation(&world, "scale", scale("0")).await;
    let operator = world.operator();
    let planned = restore(&world, "plan", &["scale"], true).await;
    let hash = planned.plan.unwrap().hash;
    world.kubelet.script(|_| Behaviour::NeverSchedule);
    restore_with(&world, "t", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "t".to_owned())].into();
        spec.transforms = vec!["scale".into()];
    })
    .await;
    let api = world.api::<api::ApplicationRestore>(ADMIN);
    until("the begin of t", || async {
        let status = api.get("t").await.unwrap().status?;
        (status.stage == api::RestoreStage::Volumes).then_some(())
    })
    .await;
    operator.kill().await;
    let transformations = world.api::<ResourceTransformation>(ADMIN);
    let changed = json!({"spec": {"transformSpecs": scale("5")}});
    transformations.patch("scale", &PatchParams::default(), &Patch::Merge(changed)).await.unwrap();
    world.kubelet.script(|_| Behaviour::Run);
    let operator = world.operator();
    restore_with(&world, "again", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "plan".to_owned())].into();
        spec.transforms = vec!["scale".into()];
        spec.plan_hash = Some(hash);
    })
    .await;
    assert_eq!(reason(&over(&world, "again").await), "PlanChanged", "another content is another plan");
    transformations.delete("scale", &DeleteParams::default()).await.unwrap();
    let status = over(&world, "t").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_eq!(status.transforms[0].name, "scale");
    let web = world.api::<Deployment>("t").get("web").await.unwrap();
    assert_eq!(web.spec.replicas, Some(0), "as it was when the run began");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_does_not_answer_refuses_no_transformation() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    transformation(&world, "west", json!([{"resource": "v1/ConfigMap", "mergePatch": "data: {site: west}"}])).await;
    let webhook: ValidatingWebhookConfiguration = parse(json!({
        "metadata": {"name": "silent"},
        "webhooks": [{
            "name": "silent.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "matchConditions": [{"name": "ours", "expression": "object.metadata.name == 'settings'"}],
        }],
    }));
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(world.client.clone());
    webhooks.create(&PostParams::default(), &webhook).await.unwrap();
    let settings = || parse::<ConfigMap>(json!({"metadata": {"name": "settings"}}));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let maps = world.api::<ConfigMap>("default");
    until("the webhook to be asked", || async { maps.create(&dry, &settings()).await.is_err().then_some(()) }).await;
    let operator = world.operator();
    restore_with(&world, "west", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "west".to_owned())].into();
        spec.transforms = vec!["west".into()];
    })
    .await;
    until("the restore to begin", || async {
        let status = world.api::<ApplicationRestore>(ADMIN).get("west").await.unwrap().status?;
        (status.stage == RestoreStage::Foundations).then_some(())
    })
    .await;
    webhooks.delete("silent", &DeleteParams::default()).await.unwrap();
    let status = over(&world, "west").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let made = world.api::<ConfigMap>("west").get("settings").await.unwrap().data.unwrap();
    assert_eq!(made["site"], "west");
    operator.stop().await;
}
