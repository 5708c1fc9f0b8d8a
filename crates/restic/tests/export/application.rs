//! Applications: objects, ledger, volumes, and the recovery point itself.

use std::fs;

use repository::{Source, TableRef, Writer, canonical_json, table};
use serde_json::{Value, json};

use super::support::{Place, point, require_restic, said_by};

async fn store(writer: &Writer, mut entries: Vec<(String, Value)>) -> TableRef {
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut table = table::Builder::new(writer);
    for (key, value) in entries {
        table.push(key.as_bytes(), &canonical_json::to_bytes(&value).unwrap()).await.unwrap();
    }
    table.finish().await.unwrap()
}

fn key(group: &str, kind: &str, namespace: &str, name: &str) -> String {
    let scope = if namespace.is_empty() { "c" } else { "a" };
    [scope, group, kind, namespace, name].join("\0")
}

/// Keys and objects, with names that sort in another order with an end than without.
fn objects() -> Vec<(String, Value)> {
    let long = format!("{}.{}", "x".repeat(126), "y".repeat(126));
    [
        ("", "Secret", "shop", "web"),
        ("", "Secret", "shop", "web-tls"),
        ("", "Secret", "shop", "web.old"),
        ("", "ConfigMap", "shop", &long),
        ("apps", "Deployment", "shop", "web"),
        ("apps", "Deployment", "stage", "web"),
        ("core", "Odd", "shop", "x"),
        ("rbac.authorization.k8s.io", "ClusterRole", "", "system:web/../x"),
        ("", "Namespace", "", "shop"),
    ]
    .map(|(group, kind, namespace, name)| {
        (key(group, kind, namespace, name), json!({"kind": kind, "metadata": {"name": name, "namespace": namespace}}))
    })
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_files_from_which_nothing_is_lost() {
    require_restic!();
    let place = Place::new().await;
    fs::write(place.path("data/file"), "in the volume").unwrap();
    let objects = objects();
    let writer = place.repository.writer(&"shop-1".parse().unwrap()).await.unwrap();
    let ledger = objects.iter().map(|(key, _)| (key.clone(), json!({"version": "v1", "outcome": "stored"}))).collect();
    let mut point = point("shop-1", vec![place.tree(&writer, "shop/data", &place.path("data")).await]);
    point.objects = Some(store(&writer, objects.clone()).await);
    point.ledger = Some(store(&writer, ledger).await);
    point.source = Source::Application {
        cluster_id: "1234".to_owned(),
        cluster_name: Some("prod".to_owned()),
        backup: "ops/nightly".to_owned(),
        namespaces: vec!["shop".to_owned(), "stage".to_owned()],
    };
    place.publish(writer, &mut point).await;
    place.export(&[point.clone()]).await;
    place.check();

    let snapshot = &place.snapshots()[0];
    assert_eq!(snapshot["hostname"], "prod");
    assert_eq!(snapshot["paths"], json!(["/ledger.jsonl", "/objects", "/recovery-point.json", "/volumes/shop/data"]));
    assert_eq!(snapshot["tags"][3], "backup=ops/nightly");
    let restored = place.restore("latest");
    let read = |path: &str| fs::read(restored.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(read("volumes/shop/data/file"), b"in the volume");
    let (_, secret) = &objects[0];
    let bytes = canonical_json::to_bytes(secret).unwrap();
    assert_eq!(read("objects/namespaced/core/Secret/shop/web.json"), bytes);
    for path in [
        "namespaced/core/Secret/shop/web-tls.json",
        "namespaced/core/Secret/shop/web.old.json",
        "namespaced/apps/Deployment/shop/web.json",
        "namespaced/apps/Deployment/stage/web.json",
        "namespaced/%63ore/Odd/shop/x.json",
        "cluster/core/Namespace/shop.json",
        "cluster/rbac.authorization.k8s.io/ClusterRole/system:web%2F..%2Fx.json",
    ] {
        read(&format!("objects/{path}"));
    }
    // Every object is in a file, whatever its name became.
    let files = said_by("find", &["objects", "-type", "f"], &restored);
    let mut found: Vec<_> = files.lines().map(read).collect();
    let mut wanted: Vec<_> = objects.iter().map(|(_, value)| canonical_json::to_bytes(value).unwrap()).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let ledger = String::from_utf8(read("ledger.jsonl")).unwrap();
    assert_eq!(ledger.lines().count(), objects.len());
    let first = r#"{"group":"","kind":"ConfigMap","name":""#;
    assert!(
        ledger.starts_with(first) && ledger.contains(r#""outcome":"stored","scope":"namespaced","version":"v1"}"#),
        "{ledger}"
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&read("recovery-point.json")).unwrap(),
        serde_json::to_value(&point).unwrap()
    );
}
