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
    let key = mapping().apply(&mut object);
    assert_eq!(key, ObjectKey::of(&object));
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

fn webhooks(namespace: &str, bundle: &str) -> Value {
    let webhook = json!({
        "name": "guard.example.com",
        "clientConfig": {"caBundle": bundle, "service": {"name": "guard", "namespace": namespace}},
        "namespaceSelector": {"matchExpressions": [{"key": NAME_LABEL, "operator": "NotIn", "values": [namespace, "kube-system"]}]},
    });
    json!({"metadata": {"name": "guard", "annotations": {INJECTION: format!("{namespace}/guard")}}, "webhooks": [webhook]})
}

#[test]
fn webhooks_that_get_a_certificate_are_renamed() {
    let mut moved = webhooks("shop-copy", "");
    json::set(&mut moved, &["metadata", "name"], "guard-shop-copy".into());
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        check("admissionregistration.k8s.io/v1", kind, webhooks("shop", ""), moved.clone());
    }
    let elsewhere = webhooks("other", "Y2E=");
    check("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", elsewhere.clone(), elsewhere);
}

#[test]
fn what_calls_a_service_that_moves_is_lost() {
    let check = |api_version: &str, kind: &str, fields: &Value, expected: Option<bool>| {
        let mut object = fields.clone();
        json::set(&mut object, &["apiVersion"], api_version.into());
        json::set(&mut object, &["kind"], kind.into());
        json::set(&mut object, &["metadata", "name"], "x".into());
        let key = ObjectKey::of(&object).expect("it has a name");
        let loss = mapping().loss(&key, &object);
        assert_eq!(
            loss.map(|loss| (loss.rule, loss.is_whole)),
            expected.map(|whole| (Rule::MovedService, whole)),
            "{object}"
        );
        assert_eq!(Mapping::default().loss(&key, &object), None, "nothing moves");
    };
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        let check = |fields: &Value, expected| check("admissionregistration.k8s.io/v1", kind, fields, expected);
        check(&webhooks("shop", "Y2E="), Some(true));
        check(&webhooks("other", "Y2E="), None);
        check(&webhooks("shop", ""), None);
        let mut bare = webhooks("shop", "");
        json::remove(&mut bare, &["metadata"]);
        check(&bare, Some(true));
        let mut both = webhooks("other", "Y2E=");
        let second = webhooks("shop", "Y2E=")["webhooks"][0].take();
        both["webhooks"].as_array_mut().expect("a list").push(second);
        check(&both, Some(true));
    }
    let config = |ns: &str| json!({"service": {"name": "c", "namespace": ns}, "caBundle": "Y2E="});
    let conversion = |ns: &str| json!({"spec": {"conversion": {"webhook": {"clientConfig": config(ns)}}}});
    let check_definition =
        |fields: &Value, expected| check("apiextensions.k8s.io/v1", "CustomResourceDefinition", fields, expected);
    check_definition(&conversion("shop"), Some(false));
    check_definition(&conversion("other"), None);
    check_definition(&json!({"spec": {"conversion": {"strategy": "None"}}}), None);
    let check_api = |fields: &Value, expected| check("apiregistration.k8s.io/v1", "APIService", fields, expected);
    check_api(&json!({"spec": config("shop")}), Some(true));
    check_api(&json!({"spec": config("other")}), None);
    let unchecked = json!({"spec": {"service": {"name": "c", "namespace": "shop"}, "insecureSkipTLSVerify": true}});
    check_api(&unchecked, None);
    check("v1", "ConfigMap", &json!({"spec": config("shop")}), None);
}

#[test]
fn a_definition_without_its_conversion_serves_what_it_stores() {
    let versions = |old_is_served: bool| json!([{"name": "v1", "served": true, "storage": true}, {"name": "v1beta1", "served": old_is_served, "storage": false}]);
    let conversion = |ns: &str| json!({"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": "Y2E=", "service": {"name": "c", "namespace": ns}}}});
    check(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        json!({"spec": {"conversion": conversion("shop"), "versions": versions(true)}}),
        json!({"spec": {"versions": versions(false)}}),
    );
    let elsewhere = json!({"spec": {"conversion": conversion("other"), "versions": versions(true)}});
    check("apiextensions.k8s.io/v1", "CustomResourceDefinition", elsewhere.clone(), elsewhere);
    let api = |ns: &str| json!({"spec": {"insecureSkipTLSVerify": true, "service": {"namespace": ns, "name": "c"}}});
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
    check(
        "v1",
        "PersistentVolumeClaim",
        json!({"spec": {"storageClassName": "fast", "volumeAttributesClassName": "gold"}}),
        json!({"spec": {"storageClassName": "ssd"}}),
    );
    let set = |class: &str| {
        json!({"spec": {
            "volumeClaimTemplates": [claim(class)],
            "template": {"spec": {"containers": [], "volumes": [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": claim(class)}}]}},
        }})
    };
    check("apps/v1", "StatefulSet", set("fast"), set("ssd"));
}

#[test]
fn a_claim_without_a_class_is_told_from_one_that_says_nothing() {
    let mapping = Mapping { storage_classes: names(&[("", "ssd")]), ..Mapping::default() };
    let apply = |spec: Value| {
        let mut claim =
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "x"}, "spec": spec});
        mapping.apply(&mut claim).expect("it has a name");
        claim
    };
    let absent = apply(json!({}));
    assert_eq!((&absent["spec"], &absent["metadata"]), (&json!({}), &json!({"name": "x"})));
    assert_eq!(apply(json!({"storageClassName": ""}))["spec"], json!({"storageClassName": "ssd"}));
    assert_eq!(apply(json!({"storageClassName": "fast"}))["spec"], json!({"storageClassName": "fast"}));
}

#[test]
fn names_can_be_swapped() {
    let swap = Mapping { namespaces: names(&[("a", "b"), ("b", "a")]), ..Mapping::default() };
    assert_eq!(swap.check(&["a".into(), "b".into()]), Ok(()));
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "a"}});
    let key = swap.apply(&mut object).expect("it has a name");
    assert_eq!(key.namespace.as_deref(), Some("b"));
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
