use serde_json::json;

use super::*;

fn names(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect()
}

fn mapping() -> Mapping {
    Mapping { namespaces: names(&[("shop", "shop-copy")]), storage_classes: names(&[("fast", "ssd")]) }
}

/// `fields` are merged over a bare object of that kind, before and after.
fn check(api_version: &str, kind: &str, before: Value, after: Value) {
    let whole = |mut fields: Value| {
        json::set(&mut fields, &["apiVersion"], api_version.into());
        json::set(&mut fields, &["kind"], kind.into());
        if json::text(&fields, &["metadata", "name"]).is_empty() {
            json::set(&mut fields, &["metadata", "name"], "x".into());
        }
        fields
    };
    let mut object = whole(before);
    mapping().apply(&mut object);
    assert_eq!(object, whole(after));
}

#[test]
fn an_object_moves_and_loses_the_manifest_of_its_old_place() {
    check(
        "v1",
        "ConfigMap",
        json!({"metadata": {"namespace": "shop", "annotations": {LAST_APPLIED: "{}", "a": "b"}}, "data": {"host": "db.shop.svc"}}),
        json!({"metadata": {"namespace": "shop-copy", "annotations": {"a": "b"}}, "data": {"host": "db.shop.svc"}}),
    );
    check(
        "v1",
        "Namespace",
        json!({"metadata": {"name": "shop", "labels": {NAME_LABEL: "shop"}}}),
        json!({"metadata": {"name": "shop-copy", "labels": {NAME_LABEL: "shop-copy"}}}),
    );
    let elsewhere = json!({"metadata": {"namespace": "other", "annotations": {LAST_APPLIED: "{}"}}});
    check("v1", "ConfigMap", elsewhere.clone(), elsewhere);
}

#[test]
fn subjects_are_renamed_in_all_their_forms() {
    let subjects = |ns: &str| {
        json!([
            {"kind": "ServiceAccount", "name": "web", "namespace": ns},
            {"kind": "ServiceAccount", "name": "web", "namespace": "other"},
            {"kind": "User", "name": format!("system:serviceaccount:{ns}:web")},
            {"kind": "User", "name": "jane"},
            {"kind": "Group", "name": format!("system:serviceaccounts:{ns}")},
            {"kind": "Group", "name": "system:serviceaccounts"},
        ])
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    check(
        rbac,
        "RoleBinding",
        json!({"metadata": {"namespace": "shop"}, "subjects": subjects("shop")}),
        json!({"metadata": {"namespace": "shop-copy"}, "subjects": subjects("shop-copy")}),
    );
    check(
        rbac,
        "ClusterRoleBinding",
        json!({"metadata": {"name": "web"}, "subjects": subjects("shop")}),
        json!({"metadata": {"name": "web-shop-copy"}, "subjects": subjects("shop-copy")}),
    );
    let untouched = json!({"metadata": {"name": "web"}, "subjects": subjects("else")});
    check(rbac, "ClusterRoleBinding", untouched.clone(), untouched);
}

#[test]
fn services_behind_webhooks_conversions_and_apis_are_renamed() {
    let webhook = |ns: &str| {
        json!({
            "name": "guard.example.com",
            "clientConfig": {"caBundle": "Y2E=", "service": {"name": "guard", "namespace": ns}},
            "namespaceSelector": {"matchExpressions": [{"key": NAME_LABEL, "operator": "NotIn", "values": [ns, "kube-system"]}]},
        })
    };
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        check(
            "admissionregistration.k8s.io/v1",
            kind,
            json!({"metadata": {"name": "guard", "annotations": {"cert-manager.io/inject-ca-from": "shop/guard"}}, "webhooks": [webhook("shop")]}),
            json!({"metadata": {"name": "guard-shop-copy", "annotations": {"cert-manager.io/inject-ca-from": "shop-copy/guard"}},
                "webhooks": [webhook("shop-copy")]}),
        );
    }
    let crd = |ns: &str| json!({"spec": {"conversion": {"webhook": {"clientConfig": {"service": {"namespace": ns, "name": "c"}}}}}});
    check("apiextensions.k8s.io/v1", "CustomResourceDefinition", crd("shop"), crd("shop-copy"));
    let api = |ns: &str| json!({"spec": {"service": {"namespace": ns, "name": "c"}}});
    check("apiregistration.k8s.io/v1", "APIService", api("shop"), api("shop-copy"));
}

#[test]
fn selectors_of_namespaces_by_name_are_renamed() {
    let policy = |ns: &str| {
        json!({"metadata": {"namespace": "other"}, "spec": {
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {NAME_LABEL: ns}}}, {"podSelector": {}}]}],
            "egress": [{"to": [{"namespaceSelector": {"matchExpressions": [{"key": NAME_LABEL, "operator": "In", "values": [ns]}]}}]}],
        }})
    };
    check("networking.k8s.io/v1", "NetworkPolicy", policy("shop"), policy("shop-copy"));
    let affinity = |ns: &str| {
        json!({"spec": {"containers": [], "affinity": {
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": [ns]}]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"namespaceSelector": {"matchLabels": {NAME_LABEL: ns}}}}]},
        }}})
    };
    check("v1", "Pod", affinity("shop"), affinity("shop-copy"));
}

#[test]
fn classes_of_claims_and_claim_templates_are_renamed() {
    let claim = |class: &str| json!({"metadata": {"annotations": {CLASS_ANNOTATION: class}}, "spec": {"storageClassName": class}});
    check("v1", "PersistentVolumeClaim", claim("fast"), claim("ssd"));
    check("v1", "PersistentVolumeClaim", claim("slow"), claim("slow"));
    let set = |class: &str| {
        json!({"spec": {
            "volumeClaimTemplates": [claim(class)],
            "template": {"spec": {"containers": [], "volumes": [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": claim(class)}}]}},
        }})
    };
    check("apps/v1", "StatefulSet", set("fast"), set("ssd"));
}

#[test]
fn names_can_be_swapped() {
    let swap = Mapping { namespaces: names(&[("a", "b"), ("b", "a")]), ..Mapping::default() };
    assert_eq!(swap.check(&["a".into(), "b".into()]), Ok(()));
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "a"}});
    swap.apply(&mut object);
    assert_eq!(json::text(&object, &["metadata", "namespace"]), "b");
}

#[test]
fn mappings_that_cannot_be_meant_are_refused() {
    let check = |pairs: &[(&str, &str)], expected: MappingError| {
        let mapping = Mapping { namespaces: names(pairs), ..Mapping::default() };
        assert_eq!(mapping.check(&["a".into(), "b".into()]), Err(expected));
    };
    let collision = |first: &str, second: &str, to: &str| MappingError::Collision {
        first: first.into(),
        second: second.into(),
        to: to.into(),
    };
    check(&[("a", "b")], collision("a", "b", "b"));
    check(&[("a", "c"), ("b", "c")], collision("a", "b", "c"));
    check(&[("x", "c")], MappingError::UnknownNamespace { from: "x".into(), known: vec!["a".into(), "b".into()] });
    for to in ["", "A", "-a", "a-", "a.b", &"a".repeat(64)] {
        check(&[("a", to)], MappingError::InvalidName { from: "a".into(), to: to.into() });
    }
}
