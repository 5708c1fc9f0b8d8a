//! What becomes of single objects when a real API server takes them, or does not.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;
#[path = "support/webhook.rs"]
mod webhook;

use application::{Applied, ReplacePolicy};
use sandbox::{control_plane::ControlPlane, require_assets};
use serde_json::json;
use support::*;

fn reason(applied: &Applied) -> &str {
    match applied {
        Applied::Failed { reason, .. } => reason,
        other => panic!("{other:?} is no failure"),
    }
}

#[tokio::test]
async fn the_policy_says_what_becomes_of_an_object_that_is_there() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop")]).await;
    let wanted = config_map("shop", "settings", "from the backup");
    let path = "/api/v1/namespaces/shop/configmaps/settings";
    let mut there = config_map("shop", "settings", "of now");
    there["data"]["extra"] = "kept by Update".into();

    create(&client, [there]).await;
    let before = read(&client, path).await;
    let retained = restore_one(&client, "run-1", ReplacePolicy::Retain, &wanted).await;
    assert!(matches!(retained, Applied::Kept { .. }), "{retained:?}");
    assert_eq!(read(&client, path).await, before, "nothing at all has changed");

    for _ in 0..2 {
        assert_eq!(restore_one(&client, "run-2", ReplacePolicy::Update, &wanted).await, Applied::Updated);
    }
    let updated = read(&client, path).await;
    assert_eq!(updated["data"], json!({"key": "from the backup", "extra": "kept by Update"}));
    assert_eq!(updated["metadata"]["uid"], before["metadata"]["uid"]);

    for _ in 0..2 {
        assert_eq!(restore_one(&client, "run-3", ReplacePolicy::Delete, &wanted).await, Applied::Replaced);
    }
    let replaced = read(&client, path).await;
    assert_eq!(replaced["data"], json!({"key": "from the backup"}));
    assert_ne!(replaced["metadata"]["uid"], before["metadata"]["uid"]);
}

#[tokio::test]
async fn what_holds_an_object_that_is_to_be_replaced_is_named() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let mut held = config_map("shop", "held", "old");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&client, [namespace("shop"), held]).await;
    let wanted = config_map("shop", "held", "new");
    let outcome = restore_one(&client, "run-1", ReplacePolicy::Delete, &wanted).await;
    assert!(reason(&outcome).contains("held by the finalizers example.com/hold"), "{outcome:?}");
    let outcome = restore_one(&client, "run-2", ReplacePolicy::Retain, &wanted).await;
    assert!(reason(&outcome).contains("example.com/hold"), "an object on its way out is not kept: {outcome:?}");
}

#[tokio::test]
async fn a_field_that_cannot_change_is_an_error_that_tells_the_way() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let mut there = config_map("shop", "fixed", "old");
    there["immutable"] = true.into();
    create(&client, [namespace("shop"), there]).await;
    let wanted = config_map("shop", "fixed", "new");
    let outcome = restore_one(&client, "run-1", ReplacePolicy::Update, &wanted).await;
    assert!(reason(&outcome).contains("replacePolicy Delete replaces the object"), "{outcome:?}");
    assert!(matches!(outcome, Applied::Failed { retryable: false, .. }));
}

#[tokio::test]
async fn what_is_missing_or_too_large_is_said_and_the_others_are_made() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop")]).await;
    let objects = [
        config_map("shop", "a", "fits"),
        config_map("shop", "b", &"x".repeat(2 << 20)),
        config_map("shop", "c", &"x".repeat(4 << 20)),
        config_map("nowhere", "d", "no namespace"),
        widget("shop", "v1"),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad", "namespace": "shop"}, "spec": {"ports": [{"port": 99999, "protocol": "TCP"}]}}),
    ];
    let outcomes = restore(&client, "run-1", ReplacePolicy::Retain, &objects).await;
    let outcome = |index: usize| &outcomes[index].1;
    assert_eq!(*outcome(0), Applied::Created);
    for too_large in [1, 2] {
        assert!(
            reason(outcome(too_large)).starts_with("it is larger than this cluster accepts"),
            "{:?}",
            outcome(too_large)
        );
    }
    assert!(reason(outcome(3)).contains("namespaces \"nowhere\" not found"), "{:?}", outcome(3));
    assert!(
        reason(outcome(4)).contains("the kind Widget.example.com is not known to this cluster"),
        "{:?}",
        outcome(4)
    );
    assert!(reason(outcome(5)).contains("spec.ports[0].port"), "{:?}", outcome(5));
    assert!(
        outcomes.iter().skip(1).all(|(_, applied)| matches!(applied, Applied::Failed { retryable: false, .. })),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn an_existing_definition_is_kept_with_its_versions() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop"), widgets(&["v2"])]).await;
    let objects = [widgets(&["v1"]), widget("shop", "v1"), widget("shop", "v2")];
    for policy in [ReplacePolicy::Update, ReplacePolicy::Delete] {
        let outcomes = restore(&client, &format!("{policy:?}"), policy, &objects).await;
        let Applied::Kept { why } = &outcomes[0].1 else { panic!("{outcomes:?}") };
        assert!(why.contains("other versions (v2)") && why.contains("the backup's v1"), "{why}");
        assert!(reason(&outcomes[1].1).contains("serves Widget.example.com in v2 only"), "{outcomes:?}");
        assert!(matches!(outcomes[2].1, Applied::Created | Applied::Replaced), "{outcomes:?}");
    }
}

#[tokio::test]
async fn a_variable_given_twice_is_restored_as_it_was() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop")]).await;
    let env = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "env": env}]}}},
    });
    assert_eq!(restore_one(&client, "run-1", ReplacePolicy::Retain, &deployment).await, Applied::Created);
    let there = read(&client, "/apis/apps/v1/namespaces/shop/deployments/web").await;
    assert_eq!(there["spec"]["template"]["spec"]["containers"][0]["env"], env);
}

#[tokio::test]
async fn a_definition_with_rules_that_the_server_is_too_old_for_is_made() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let mut definition = widgets(&["v1"]);
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "has(self.spec)", "message": "a widget has a spec"}]);
    // A newer server knows the field, and keeps it. An older one drops it, and the same run says so each time that it comes by.
    for _ in 0..2 {
        let applied = restore_one(&client, "run-1", ReplacePolicy::Retain, &definition).await;
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
        let there = read(&client, path).await;
        let schema = &there["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let field = "spec.versions[0].schema.openAPIV3Schema.x-kubernetes-validations".to_owned();
        let expected = match schema.get("x-kubernetes-validations") {
            Some(_) => Applied::Created,
            None => Applied::Reduced { replaced: false, fields: vec![field] },
        };
        assert_eq!(applied, expected);
    }
    create(&client, [namespace("shop")]).await;
    assert_eq!(restore_one(&client, "run-1", ReplacePolicy::Retain, &widget("shop", "v1")).await, Applied::Created);
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_is_worth_another_try() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "guard"},
        "webhooks": [{"name": "guard.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "clientConfig": {"url": "https://127.0.0.1:1/"}, "timeoutSeconds": 1,
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}],
    });
    create(&client, [namespace("shop"), webhook]).await;
    let wanted = config_map("shop", "a", "x");
    let mut outcome = Applied::Created;
    eventually("the webhook is asked", async || {
        outcome = restore_one(&client, "run-1", ReplacePolicy::Delete, &wanted).await;
        matches!(outcome, Applied::Failed { .. }) || {
            let request = kube::core::Request::new("/api/v1/namespaces/shop/configmaps")
                .delete("a", &kube::api::DeleteParams::default());
            client.request_text(request.unwrap()).await.unwrap();
            false
        }
    })
    .await;
    assert!(reason(&outcome).contains("guard.example.com"), "{outcome:?}");
    assert!(matches!(outcome, Applied::Failed { retryable: true, .. }));
}

#[tokio::test]
async fn a_webhook_that_refuses_an_object_is_named_and_the_others_are_made() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop"), webhook::start()]).await;
    let refused = config_map("shop", webhook::REFUSED, "x");
    let mut run = 0;
    let mut outcomes = Vec::new();
    eventually("the webhook is asked", async || {
        run += 1;
        let objects = [refused.clone(), config_map("shop", "taken", "x")];
        outcomes = restore(&client, &format!("run-{run}"), ReplacePolicy::Delete, &objects).await;
        matches!(outcomes[0].1, Applied::Failed { .. })
    })
    .await;
    assert_eq!(reason(&outcomes[0].1), "the admission webhook \"guard.example.com\" refused it: no such maps here");
    assert!(matches!(outcomes[0].1, Applied::Failed { retryable: false, .. }));
    assert!(matches!(outcomes[1].1, Applied::Created | Applied::Replaced), "{outcomes:?}");
}
