//! What a capture finds, leaves out and misses on a real API server.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use application::{
    Capture, CaptureError, Found, LedgerSummary, ObjectFilter, ObjectKey, Rule, Selection, SelectionError,
};
use kube::{Client, Config, config::KubeConfigOptions};
use sandbox::{control_plane::ControlPlane, require_assets};
use serde_json::json;
use support::*;

fn names(captured: &[application::Captured], kind: &str) -> Vec<String> {
    captured.iter().filter(|c| c.key.kind == kind).map(|c| c.key.name.clone()).collect()
}

#[tokio::test]
async fn every_object_is_in_the_ledger_once_over_many_pages() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("a"), namespace("b")]).await;
    let expected: Vec<String> = (0..110).map(|n| format!("m{n:03}")).collect();
    let mut maps = Vec::new();
    for name in &expected {
        // Some are large, so that pages shrink and grow.
        let size = if name.ends_with('7') { 300_000 } else { 10 };
        maps.push(config_map("b", name, &"x".repeat(size)));
        maps.push(config_map("a", name, "x"));
    }
    create(&client, maps).await;
    let captured = capture(&client, &["a", "b"]).await;
    assert_eq!(names(&captured, "ConfigMap"), [expected.clone(), expected].concat());
    let mut summary = LedgerSummary::default();
    captured.iter().for_each(|captured| summary.add(&captured.ledger_entry().outcome));
    assert_eq!(summary.wanted(), captured.len() as u64);
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(summary.stored, 222, "maps and the two namespaces");
    assert_eq!(summary.skipped["events"], 2, "one entry per namespace stands for a kind that is left out");
}

#[tokio::test]
async fn a_selection_takes_what_it_names_and_no_more() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let mut labelled = config_map("shop", "labelled", "x");
    labelled["metadata"]["labels"] = json!({"app": "web", "tier": "front"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop", "labels": {"app": "web"}}});
    create(&client, [namespace("shop"), config_map("shop", "plain", "x"), labelled, secret]).await;
    let shop = || Selection { namespaces: vec!["shop".into()], ..Selection::default() };

    let by_label =
        capture_selected(&client, Selection { label_selector: Some("app=web,tier notin (back)".into()), ..shop() })
            .await;
    assert_eq!(
        (names(&by_label, "ConfigMap"), names(&by_label, "Secret")),
        (vec!["labelled".into()], vec!["s".into()])
    );

    let by_kind = capture_selected(&client, Selection { resource_types: vec!["configmaps".into()], ..shop() }).await;
    assert_eq!((names(&by_kind, "ConfigMap").len(), names(&by_kind, "Secret").len()), (2, 0));

    let without =
        capture_selected(&client, Selection { exclude_resource_types: vec!["ConfigMap".into()], ..shop() }).await;
    assert_eq!((names(&without, "ConfigMap").len(), names(&without, "Secret").len()), (0, 1));

    let one = ObjectFilter { kind: Some("ConfigMap".into()), name: Some("plain".into()), ..ObjectFilter::default() };
    let by_name = capture_selected(&client, Selection { include_resources: vec![one], ..shop() }).await;
    assert_eq!(names(&by_name, "ConfigMap"), ["plain"]);
    assert_eq!(names(&by_name, "Namespace"), ["shop"], "its namespace comes with it");

    let garbled = Selection { label_selector: Some("app=(web".into()), ..shop() };
    let refused = Capture::start(client.clone(), catalog(&client).await, garbled, quick()).await.err();
    assert!(matches!(refused, Some(CaptureError::Selection(SelectionError::BadLabels { .. }))), "{refused:?}");

    let unknown = Selection { resource_types: vec!["Confgimap".into()], ..shop() };
    let refused = Capture::start(client.clone(), catalog(&client).await, unknown, quick()).await.err();
    assert!(
        matches!(refused, Some(CaptureError::Selection(SelectionError::UnknownType { field: "resourceTypes", .. }))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_missed() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop")]).await;
    let captured = capture(&client, &["shop", "typo"]).await;
    let Some(Found::Missed(reason)) = found(&captured, "Namespace", "typo") else { panic!("{captured:?}") };
    assert!(reason.contains("no such namespace"), "{reason}");
    assert!(matches!(found(&captured, "Namespace", "shop"), Some(Found::Stored(_))));
}

#[tokio::test]
async fn an_api_that_is_down_is_missed_and_hides_nothing_else() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let api = |group: &str| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": format!("v1.{group}")},
            "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 1, "insecureSkipTLSVerify": true,
                "service": {"name": "gone", "namespace": "shop"}},
        })
    };
    create(&client, [namespace("shop"), config_map("shop", "a", "x"), api("down.example.com"), api("metrics.k8s.io")])
        .await;
    eventually("the groups are announced", async || catalog(&client).await.broken().len() == 2).await;
    let captured = capture(&client, &["shop"]).await;
    let of_group = |group: &str| captured.iter().find(|c| c.key.group == group).unwrap();
    let down = of_group("down.example.com");
    assert_eq!((down.key.kind.as_str(), down.key.name.as_str()), (ObjectKey::ALL_KINDS, ObjectKey::ALL_NAMES));
    assert!(matches!(&down.found, Found::Missed(reason) if reason.contains("could not be discovered")), "{down:?}");
    assert_eq!(of_group("metrics.k8s.io").found, Found::Skipped(Rule::Metrics));
    assert!(matches!(found(&captured, "ConfigMap", "a"), Some(Found::Stored(_))));
    assert!(
        matches!(found(&captured, "APIService", "v1.down.example.com"), Some(Found::Stored(_))),
        "it is served from the namespace"
    );

    let excluded = Selection {
        namespaces: vec!["shop".into()],
        exclude_resource_types: vec!["*.down.example.com".into()],
        ..Selection::default()
    };
    let captured = capture_selected(&client, excluded).await;
    assert!(!captured.iter().any(|c| matches!(c.found, Found::Missed(_))), "a group that is excluded is not missed");
}

#[tokio::test]
async fn an_object_whose_owner_is_not_captured_is_stored() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop"), widgets(&["v1"])]).await;
    create(&client, [widget("shop", "v1")]).await;
    let owner = read(&client, "/apis/example.com/v1/namespaces/shop/widgets/gear").await;
    let owned = |name: &str, kind: &str, uid: &serde_json::Value| {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop", "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Widget", "name": "gear", "uid": uid, "controller": true}]}})
    };
    let uid = &owner["metadata"]["uid"];
    let another_life = json!("11111111-2222-3333-4444-555555555555");
    create(
        &client,
        [
            owned("made", "ResourceQuota", uid),
            owned("orphan", "ResourceQuota", &another_life),
            owned("kept", "Secret", uid),
        ],
    )
    .await;
    let captured = capture(&client, &["shop"]).await;
    assert_eq!(found(&captured, "ResourceQuota", "made"), Some(&Found::Skipped(Rule::OwnedAndRecreated)));
    assert!(
        matches!(found(&captured, "ResourceQuota", "orphan"), Some(Found::Stored(_))),
        "its owner is of another life"
    );
    assert!(matches!(found(&captured, "Secret", "kept"), Some(Found::Stored(_))), "what is in it cannot be made again");

    let without_owner = Selection {
        namespaces: vec!["shop".into()],
        exclude_resource_types: vec!["Widget".into()],
        ..Selection::default()
    };
    let captured = capture_selected(&client, without_owner).await;
    assert!(
        matches!(found(&captured, "ResourceQuota", "made"), Some(Found::Stored(_))),
        "its owner is not in the backup"
    );
}

#[tokio::test]
async fn what_a_made_again_object_needs_is_stored_with_the_parts_of_roles() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let rbac = "rbac.authorization.k8s.io";
    let role = |name: &str, labels: serde_json::Value| {
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": name, "labels": labels},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]})
    };
    let mut whole = role("system-monitor", json!({}));
    whole.as_object_mut().unwrap().remove("rules");
    whole["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"part-of": "monitor"}}]});
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000});
    create(
        &client,
        [
            namespace("shop"),
            widgets(&["v1"]),
            whole,
            role("part", json!({"part-of": "monitor"})),
            role("other", json!({})),
            class,
        ],
    )
    .await;
    create(&client, [widget("shop", "v1")]).await;
    let owner = read(&client, "/apis/example.com/v1/namespaces/shop/widgets/gear").await;
    let owned = |api_version: &str, kind: &str, name: &str, mut object: serde_json::Value| {
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        object["metadata"] = json!({"name": name, "namespace": "shop", "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Widget", "name": "gear", "uid": owner["metadata"]["uid"], "controller": true}]});
        object
    };
    let binding = json!({"roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "system-monitor"},
        "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}]});
    let pod = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"priorityClassName": "high", "containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": pod}});
    create(
        &client,
        [owned(&format!("{rbac}/v1"), "RoleBinding", "made", binding), owned("apps/v1", "ReplicaSet", "made", set)],
    )
    .await;

    let captured = capture(&client, &["shop"]).await;
    for kind in ["RoleBinding", "ReplicaSet"] {
        assert_eq!(found(&captured, kind, "made"), Some(&Found::Skipped(Rule::OwnedAndRecreated)), "{kind}");
    }
    for (kind, name) in [("PriorityClass", "high"), ("ClusterRole", "system-monitor"), ("ClusterRole", "part")] {
        assert!(matches!(found(&captured, kind, name), Some(Found::Stored(_))), "{kind} {name}");
    }
    assert_eq!(found(&captured, "ClusterRole", "other"), None);
}

#[tokio::test]
async fn what_may_not_be_read_is_missed() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}});
    let rbac = "rbac.authorization.k8s.io";
    let rule = json!({"apiGroups": [""], "resources": ["namespaces", "configmaps"], "verbs": ["get", "list"]});
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "some"}, "rules": [rule]});
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "some"},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "some"}, "subjects": [{"apiGroup": rbac, "kind": "User", "name": "jane"}]});
    create(&client, [namespace("shop"), config_map("shop", "a", "x"), secret, role, binding]).await;

    let mut config =
        Config::from_custom_kubeconfig(plane.kubeconfig().clone(), &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some("jane".into());
    let jane = Client::try_from(config).unwrap();
    let mut captured = Vec::new();
    eventually("the rights are in force", async || {
        captured = capture(&jane, &["shop"]).await;
        matches!(found(&captured, "ConfigMap", "a"), Some(Found::Stored(_)))
    })
    .await;
    let secrets = found(&captured, "Secret", ObjectKey::ALL_NAMES);
    assert!(matches!(secrets, Some(Found::Missed(reason)) if reason.contains("not allowed")), "{secrets:?}");
    assert_eq!(found(&captured, "Secret", "s"), None);
}
