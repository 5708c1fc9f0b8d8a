//! A populated namespace goes through a backup and comes back: in another namespace, and in another cluster.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use std::collections::BTreeMap;

use application::{
    Applied, Captured, Found, Mapping, ObjectKey, ReplacePolicy, RestoreOptions, Rule, Selection, canonical, clean,
};
use kube::Client;
use sandbox::{control_plane::ControlPlane, require_assets};
use serde_json::{Value, json};
use support::*;

/// An application with something of everything, in the namespace `shop`.
fn shop() -> Vec<Value> {
    [configuration(), workloads(), vec![widget("shop", "v1")]].concat()
}

fn of(api_version: &str, kind: &str, name: &str, fields: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}});
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    object
}

fn claim() -> Value {
    let resources = json!({"requests": {"storage": "1Gi"}});
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": resources})
}

fn configuration() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let role_ref =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let web = json!({"kind": "ServiceAccount", "name": "web", "namespace": "shop"});
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let limit = json!({"type": "Container", "default": {"memory": "1Gi"}});
    let address = json!({"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 5432}]});
    let from = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}});
    vec![
        of("v1", "ConfigMap", "settings", json!({"data": {"host": "db.shop.svc"}})),
        of("v1", "Secret", "password", json!({"data": {"p": "cGFzcw=="}})),
        of("v1", "ServiceAccount", "web", json!({})),
        of(rbac, "Role", "reader", json!({"rules": rules})),
        of(rbac, "RoleBinding", "reader", json!({"roleRef": role_ref("Role", "reader"), "subjects": [web]})),
        of(rbac, "RoleBinding", "viewer", json!({"roleRef": role_ref("ClusterRole", "view"), "subjects": [web]})),
        of("v1", "PersistentVolumeClaim", "data", json!({"spec": claim()})),
        of("v1", "LimitRange", "limits", json!({"spec": {"limits": [limit]}})),
        of("v1", "Service", "db", json!({"spec": {"clusterIP": "None", "ports": [{"port": 5432}]}})),
        of("v1", "Endpoints", "db", json!({"subsets": [address]})),
        of(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "in",
            json!({"spec": {"podSelector": {}, "ingress": [{"from": [from]}]}}),
        ),
    ]
}

fn workloads() -> Vec<Value> {
    let container =
        json!({"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]});
    let pod = json!({"serviceAccountName": "web", "priorityClassName": "high", "containers": [container]});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod});
    let selector = json!({"matchLabels": {"app": "web"}});
    let claims = json!([{"metadata": {"name": "data"}, "spec": claim()}]);
    let set = json!({"replicas": 0, "serviceName": "db", "selector": selector, "template": template, "volumeClaimTemplates": claims});
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "m"}]}}});
    let ports = json!([{"port": 80}]);
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    vec![
        of("v1", "Service", "web", json!({"spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": ports}})),
        of(
            "apps/v1",
            "Deployment",
            "web",
            json!({"spec": {"replicas": 1, "selector": selector, "template": template}}),
        ),
        of("apps/v1", "StatefulSet", "db", json!({"spec": set})),
        of("batch/v1", "Job", "migrate", json!({"spec": job})),
        of("v1", "Pod", "tool", json!({"spec": {"containers": [{"name": "c", "image": "t"}]}})),
        of(
            "networking.k8s.io/v1",
            "Ingress",
            "web",
            json!({"spec": {"ingressClassName": "nginx", "defaultBackend": backend}}),
        ),
        of(
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            "web",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target}}),
        ),
    ]
}

/// What is around the application: what it needs from cluster scope, and what it does not.
fn surroundings() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let account = |namespace: &str| json!({"kind": "ServiceAccount", "name": "web", "namespace": namespace});
    let role = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    vec![
        namespace("shop"),
        widgets(&["v1"]),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}, "provisioner": "example.com/fast"}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "nginx"},
            "spec": {"controller": "example.com/nginx"}}),
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "node-reader"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "node-readers"},
            "roleRef": role("node-reader"), "subjects": [account("shop"), account("other")]}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "others"},
            "roleRef": role("node-reader"), "subjects": [account("other")]}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "guard"},
            "webhooks": [{"name": "guard.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
                "clientConfig": {"service": {"name": "web", "namespace": "shop"}, "caBundle": ""},
                "rules": [{"apiGroups": ["none.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nothings"]}]}]}),
    ]
}

async fn populate(client: &Client) {
    create(client, surroundings()).await;
    eventually("the namespace has its account", async || {
        !read(client, "/api/v1/namespaces/shop/serviceaccounts/default").await.is_null()
    })
    .await;
    create(client, shop()).await;
    for (kind, rule) in [
        ("ReplicaSet", Rule::OwnedAndRecreated),
        ("Pod", Rule::OwnedAndRecreated),
        ("Endpoints", Rule::ControllerEndpoints),
        ("EndpointSlice", Rule::ControllerEndpoints),
        ("ConfigMap", Rule::RootCertificate),
        ("ServiceAccount", Rule::DefaultServiceAccount),
    ] {
        eventually(&format!("a controller has made a {kind}"), async || {
            let selection = Selection {
                namespaces: vec!["shop".into()],
                exclude_resource_types: vec!["Secret".into()],
                ..Selection::default()
            };
            let captured = capture_selected(client, selection).await;
            captured.iter().any(|c| c.key.kind == kind && c.found == Found::Skipped(rule))
        })
        .await;
    }
}

fn to_copy() -> Mapping {
    Mapping {
        namespaces: BTreeMap::from([("shop".into(), "copy".into())]),
        storage_classes: BTreeMap::from([("fast".into(), "ssd".into())]),
    }
}

/// The objects of an application, without what ties them to a cluster, by kind and name.
fn contents(captured: &[Captured], mapping: &Mapping) -> BTreeMap<String, String> {
    let of_namespaces = captured.iter().filter(|captured| captured.key.namespace.is_some());
    of_namespaces
        .filter_map(|captured| {
            let Found::Stored(object) = &captured.found else {
                return None;
            };
            let mut object = object.clone();
            clean::for_restore(&captured.key, &mut object, RestoreOptions::default());
            mapping.apply(&mut object).unwrap();
            let key = format!("{} {}", captured.key.kind, captured.key.name);
            Some((key, String::from_utf8(canonical::to_bytes(&object)).unwrap()))
        })
        .collect()
}

fn all_are(outcomes: &[(ObjectKey, Applied)], wanted: impl Fn(&ObjectKey, &Applied) -> bool) {
    let others: Vec<_> = outcomes.iter().filter(|(key, applied)| !wanted(key, applied)).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test]
async fn an_application_comes_back_under_another_name_beside_the_original() {
    require_assets!();
    let plane = ControlPlane::builder().with_controller_manager().start().await.unwrap();
    let client = plane.client();
    populate(&client).await;
    let captured = capture(&client, &["shop"]).await;
    let before = contents(&captured, &to_copy());
    assert_eq!(
        before.len(),
        shop().len(),
        "everything that was made is stored, and nothing that controllers made: {:#?}",
        before.keys()
    );

    create(&client, [namespace("copy")]).await;
    let objects = restorable(&captured, &to_copy());
    let is_kept = |key: &ObjectKey| key.namespace.is_none() && key.kind != "ClusterRoleBinding";
    assert!(
        !objects.iter().any(|object| object["kind"] == "ValidatingWebhookConfiguration"),
        "its service has moved, and its certificate is for the old name"
    );
    let outcomes = restore(&client, "run-1", ReplacePolicy::Retain, &objects).await;
    all_are(&outcomes, |key, applied| match applied {
        Applied::Created => !is_kept(key),
        Applied::Kept { .. } => is_kept(key),
        _ => false,
    });

    let copy = capture(&client, &["copy"]).await;
    assert_eq!(contents(&copy, &Mapping::default()), before);
    let binding = read(&client, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/node-readers-copy").await;
    assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": "web", "namespace": "copy"}]));
    let original = read(&client, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/node-readers").await;
    assert_eq!(original["subjects"].as_array().unwrap().len(), 2, "the original's binding is not touched");

    let again = restore(&client, "run-1", ReplacePolicy::Retain, &objects).await;
    assert_eq!(again, outcomes, "the same run again does and reports the same");
    let other_run = restore(&client, "run-2", ReplacePolicy::Retain, &objects).await;
    all_are(&other_run, |_, applied| matches!(applied, Applied::Kept { .. }));
}

#[tokio::test]
async fn an_application_comes_back_in_a_cluster_that_has_nothing_of_it() {
    require_assets!();
    let east = ControlPlane::builder().with_controller_manager().start().await.unwrap();
    let west = ControlPlane::start().await.unwrap();
    populate(&east.client()).await;
    let captured = capture(&east.client(), &["shop"]).await;
    let stored = |kind: &str, name: &str| matches!(found(&captured, kind, name), Some(Found::Stored(_)));
    for (kind, name) in [
        ("Namespace", "shop"),
        ("CustomResourceDefinition", "widgets.example.com"),
        ("ClusterRole", "node-reader"),
        ("PriorityClass", "high"),
        ("StorageClass", "fast"),
        ("IngressClass", "nginx"),
        ("ValidatingWebhookConfiguration", "guard"),
    ] {
        assert!(stored(kind, name), "{kind} {name}: {:?}", found(&captured, kind, name));
    }
    assert_eq!(found(&captured, "ClusterRole", "view"), Some(&Found::Skipped(Rule::BuiltIn)));
    assert_eq!(found(&captured, "ClusterRoleBinding", "others"), None);
    let Some(Found::Stored(binding)) = found(&captured, "ClusterRoleBinding", "node-readers") else {
        panic!("not stored")
    };
    assert_eq!(binding["subjects"].as_array().unwrap().len(), 1, "reduced to the accounts that are captured");

    let objects = restorable(&captured, &Mapping::default());
    let outcomes = restore(&west.client(), "run-1", ReplacePolicy::Retain, &objects).await;
    all_are(&outcomes, |_, applied| *applied == Applied::Created);
    let there = capture(&west.client(), &["shop"]).await;
    assert_eq!(contents(&there, &Mapping::default()), contents(&captured, &Mapping::default()));
    let class = read(&west.client(), "/apis/storage.k8s.io/v1/storageclasses/fast").await;
    assert!(class.is_null(), "storage classes are kept for reference, not restored");
}

#[tokio::test]
async fn an_unchanged_application_has_unchanged_bytes() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, surroundings()).await;
    create(&client, shop().into_iter().filter(|object| object["kind"] != "Pod")).await;
    let bytes = |captured: &[Captured]| -> Vec<Vec<u8>> {
        captured
            .iter()
            .map(|captured| match &captured.found {
                Found::Stored(object) => canonical::to_bytes(object),
                _ => captured.ledger_entry().encode().1,
            })
            .collect()
    };
    let first = capture(&client, &["shop"]).await;
    // What a controller would do all day: the status of an object changes, and with it the version that the server gives it.
    let path = "/apis/apps/v1/namespaces/shop/deployments";
    let status = json!({"status": {"observedGeneration": 1, "replicas": 1}});
    let request = kube::core::Request::new(path)
        .patch_subresource("status", "web", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&status))
        .unwrap();
    let _: Value = client.request(request).await.unwrap();
    let second = capture(&client, &["shop"]).await;
    assert_eq!(bytes(&second), bytes(&first));
}
