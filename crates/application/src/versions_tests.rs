use super::*;
use crate::catalog::tests::served;

const VERBS: &[&str] = &["create", "get", "list"];

/// A cluster that serves kinds of the given places.
fn cluster(places: &[(&str, &str, &str, &str)]) -> ApiCatalog {
    let group = |(group, version, kind, plural): &(&str, &str, &str, &str)| {
        served(group, version, true, &[(kind, plural, true, VERBS)])
    };
    ApiCatalog::build(places.iter().map(group).collect())
}

/// The object as the cluster takes it, with the path.
fn put(catalog: &ApiCatalog, object: &Value) -> (String, Value) {
    let key = ObjectKey::of(object).expect("the test's object has a name");
    let spot = find(catalog, &key).expect("the cluster takes it");
    let fitted = spot.fit(object).into_owned();
    (spot.path, fitted)
}

/// Rewritten to `newer` in a cluster that has only that, and to `older` likewise.
fn check_both(kind: (&str, &str), older: (&str, Value), newer: (&str, Value)) {
    let whole = |(api_version, fields): (&str, Value)| {
        let mut object = fields;
        json::set(&mut object, &["apiVersion"], api_version.into());
        json::set(&mut object, &["kind"], kind.0.into());
        json::set(&mut object, &["metadata"], json!({"name": "x", "namespace": "shop"}));
        object
    };
    let (older, newer) = (whole(older), whole(newer));
    for (from, to) in [(&older, &newer), (&newer, &older)] {
        let api_version = json::text(to, &["apiVersion"]);
        let (group, version) = api_version.split_once('/').expect("a group");
        let catalog = cluster(&[(group, version, kind.0, kind.1)]);
        let (path, object) = put(&catalog, from);
        assert_eq!(path, format!("/apis/{api_version}/namespaces/shop/{}", kind.1));
        assert_eq!(object, *to);
        assert_eq!(put(&catalog, to).1, *to, "what is served is left alone");
    }
}

#[test]
fn kinds_that_only_changed_the_version_are_renamed() {
    let job = json!({"spec": {"schedule": "* * * * *", "jobTemplate": {}}});
    check_both(("CronJob", "cronjobs"), ("batch/v1beta1", job.clone()), ("batch/v1", job));
    let scaler = json!({"spec": {"maxReplicas": 3, "metrics": [{"type": "Resource"}]}});
    check_both(
        ("HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        ("autoscaling/v2beta2", scaler.clone()),
        ("autoscaling/v2", scaler),
    );
}

#[test]
fn an_empty_selector_of_a_budget_keeps_its_meaning() {
    let budget = |api_version: &str, selector: Value| {
        let mut object = json!({"apiVersion": api_version, "kind": "PodDisruptionBudget",
            "metadata": {"name": "x", "namespace": "shop"}, "spec": {"minAvailable": 1}});
        if !selector.is_null() {
            json::set(&mut object, &["spec", "selector"], selector);
        }
        object
    };
    let check = |from: &str, to: &str, before: Value, after: Value| {
        let (group, version) = to.split_once('/').expect("a group");
        let catalog = cluster(&[(group, version, "PodDisruptionBudget", "poddisruptionbudgets")]);
        assert_eq!(put(&catalog, &budget(from, before)).1, budget(to, after));
    };
    let (old, new) = ("policy/v1beta1", "policy/v1");
    let web = json!({"matchLabels": {"app": "web"}});
    for (from, to) in [(old, new), (new, old)] {
        check(from, to, web.clone(), web.clone());
        check(from, to, Value::Null, Value::Null);
    }
    let every = json!({"matchExpressions": [{"key": NO_POD_HAS, "operator": "DoesNotExist"}]});
    for empty in [json!({}), json!({"matchLabels": {}}), json!({"matchExpressions": [], "matchLabels": null})] {
        check(old, new, empty.clone(), Value::Null);
        check(new, old, empty, every.clone());
    }
}

#[test]
fn slices_keep_where_their_endpoints_are() {
    let slice = |endpoint: Value| json!({"addressType": "IPv4", "endpoints": [endpoint], "ports": [{"port": 80}]});
    let kind = ("EndpointSlice", "endpointslices");
    let bare = slice(json!({"addresses": ["10.0.0.1"]}));
    check_both(kind, ("discovery.k8s.io/v1beta1", bare.clone()), ("discovery.k8s.io/v1", bare));
    let older = slice(json!({"nodeName": "n1", "topology": {HOST_LABEL: "n1", ZONE_LABEL: "a"}}));
    let newer = slice(json!({"nodeName": "n1", "zone": "a"}));
    check_both(kind, ("discovery.k8s.io/v1beta1", older), ("discovery.k8s.io/v1", newer));
}

#[test]
fn ingresses_are_rewritten_field_by_field() {
    let older = json!({"spec": {
        "ingressClassName": "nginx", "tls": [{"hosts": ["h"]}],
        "backend": {"serviceName": "web", "servicePort": 80},
        "rules": [{"host": "h", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"serviceName": "web", "servicePort": "http"}},
            {"path": "/files", "pathType": "Exact", "backend": {"resource": {"kind": "Bucket", "name": "b"}}},
        ]}}, {"host": "bare"}],
    }});
    let newer = json!({"spec": {
        "ingressClassName": "nginx", "tls": [{"hosts": ["h"]}],
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
        "rules": [{"host": "h", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}},
            {"path": "/files", "pathType": "Exact", "backend": {"resource": {"kind": "Bucket", "name": "b"}}},
        ]}}, {"host": "bare"}],
    }});
    for old_group in ["networking.k8s.io", "extensions"] {
        let older = (&*format!("{old_group}/v1beta1"), older.clone());
        check_both(("Ingress", "ingresses"), older, ("networking.k8s.io/v1", newer.clone()));
    }
    let untyped = json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "x", "namespace": "shop"},
        "spec": {"rules": [{"http": {"paths": [{"path": "/"}]}}]}});
    let catalog = cluster(&[("networking.k8s.io", "v1", "Ingress", "ingresses")]);
    let path = &put(&catalog, &untyped).1["spec"]["rules"][0]["http"]["paths"][0];
    assert_eq!(path["pathType"], "ImplementationSpecific");
}

#[test]
fn the_newest_version_that_is_served_is_taken() {
    let job =
        json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "x", "namespace": "shop"}});
    let both = cluster(&[
        ("networking.k8s.io", "v1beta1", "Ingress", "ingresses"),
        ("networking.k8s.io", "v1", "Ingress", "ingresses"),
    ]);
    assert_eq!(put(&both, &job).0, "/apis/networking.k8s.io/v1/namespaces/shop/ingresses");
}

#[test]
fn what_the_cluster_lacks_is_named() {
    let verbs = VERBS;
    let catalog = ApiCatalog::build(vec![
        served("example.com", "v2", true, &[("Widget", "widgets", true, verbs), ("Zone", "zones", false, verbs)]),
        served("batch", "v1beta1", true, &[("CronJob", "cronjobs", true, verbs)]),
    ]);
    let check = |group: &str, version: &str, kind: &str, namespace: Option<&str>, expected: Result<&str, &str>| {
        let key = ObjectKey {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: "x".into(),
        };
        let found = find(&catalog, &key).map(|spot| spot.path).map_err(|failure| failure.reason);
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
        assert_eq!(super::check(&catalog, &key).is_ok(), expected.is_ok());
    };
    let example = "example.com";
    check(example, "v2", "Widget", Some("shop"), Ok("/apis/example.com/v2/namespaces/shop/widgets"));
    check(example, "v2", "Zone", None, Ok("/apis/example.com/v2/zones"));
    check("batch", "v1", "CronJob", Some("shop"), Ok("/apis/batch/v1beta1/namespaces/shop/cronjobs"));
    check(
        example,
        "v1",
        "Widget",
        Some("shop"),
        Err(
            "this cluster serves Widget.example.com in v2 only, and the backup has it in v1: install a release that serves both",
        ),
    );
    check(
        example,
        "v1",
        "Gadget",
        None,
        Err(
            "the kind Gadget.example.com is not known to this cluster: install what defines it (a CRD or an aggregated API), then restore again",
        ),
    );
    check(
        example,
        "v2",
        "Zone",
        Some("shop"),
        Err("Zone.example.com lives in cluster scope in this cluster, and in the backup it does not"),
    );
    check(
        "batch",
        "v2",
        "CronJob",
        Some("shop"),
        Err(
            "this cluster serves CronJob.batch in v1beta1 only, and the backup has it in v2: install a release that serves both",
        ),
    );
}
