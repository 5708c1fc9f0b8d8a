//! What the tests against a real API server share.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test's helpers may panic as the test may, and each test uses some"
)]

use std::{sync::Arc, time::Duration};

use application::{
    ApiCatalog, Applied, Applier, Capture, Captured, Found, Mapping, ObjectKey, Patience, ReplacePolicy,
    RestoreOptions, Selection, canonical, clean, discover, order::order,
};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{Client, api::PostParams, core::Request};
use serde_json::{Value, json};

/// Gives up early, so that what must fail fails soon.
pub(crate) fn quick() -> Patience {
    Patience {
        tries: 3,
        first_wait: Duration::from_millis(50),
        gone_within: Duration::from_secs(3),
        ..Patience::default()
    }
}

pub(crate) async fn catalog(client: &Client) -> Arc<ApiCatalog> {
    Arc::new(discover(client, &quick()).await.unwrap())
}

/// Creates objects as a user would. Kinds among them that others of them define are waited for.
pub(crate) async fn create(client: &Client, objects: impl IntoIterator<Item = Value>) {
    let mut catalog = catalog(client).await;
    for object in objects {
        let key = ObjectKey::of(&object).unwrap();
        eventually(&format!("{key} is served"), async || {
            let is_served = catalog.get(&key.group, &key.kind).is_some();
            if !is_served {
                catalog = self::catalog(client).await;
            }
            is_served
        })
        .await;
        let kind = catalog.get(&key.group, &key.kind).unwrap();
        let path = kind.path(&key.version, key.namespace.as_deref());
        let request = Request::new(path).create(&PostParams::default(), canonical::to_bytes(&object)).unwrap();
        if let Err(error) = client.request::<Value>(request).await {
            panic!("{key}: {error}");
        }
    }
}

/// Reads an object; `null` if it is not there.
pub(crate) async fn read(client: &Client, path: &str) -> Value {
    let (path, name) = path.rsplit_once('/').unwrap();
    let request = Request::new(path).get(name, &kube::core::params::GetParams::default()).unwrap();
    match client.request(request).await {
        Ok(value) => value,
        Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
        Err(error) => panic!("{path}/{name}: {error}"),
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(crate) fn config_map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"key": value}})
}

/// The definition of the kind `Widget` in the group `example.com`, served at the given versions.
pub(crate) fn widgets(versions: &[&str]) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version =
        |(index, name): (usize, &&str)| json!({"name": name, "served": true, "storage": index == 0, "schema": schema});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
            "versions": versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    })
}

pub(crate) fn widget(namespace: &str, version: &str) -> Value {
    json!({
        "apiVersion": format!("example.com/{version}"), "kind": "Widget",
        "metadata": {"name": "gear", "namespace": namespace}, "spec": {"teeth": 12, "ratio": 0.1, "big": 9007199254740993i64},
    })
}

/// Captures whole namespaces.
pub(crate) async fn capture(client: &Client, namespaces: &[&str]) -> Vec<Captured> {
    let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    capture_selected(client, Selection { namespaces, ..Selection::default() }).await
}

pub(crate) async fn capture_selected(client: &Client, selection: Selection) -> Vec<Captured> {
    capture_all(client, selection, quick()).await
}

/// Captures whole namespaces from a cluster that has to be borne with.
pub(crate) async fn capture_patiently(client: &Client, namespaces: &[&str], patience: Patience) -> Vec<Captured> {
    let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    capture_all(client, Selection { namespaces, ..Selection::default() }, patience).await
}

async fn capture_all(client: &Client, selection: Selection, patience: Patience) -> Vec<Captured> {
    let catalog = Arc::new(discover(client, &patience).await.unwrap());
    let capture = Capture::start(client.clone(), catalog, selection, patience).await.unwrap();
    let captured: Vec<_> = capture.into_stream().try_collect().await.unwrap();
    let keys: Vec<_> = captured.iter().map(|captured| captured.key.encode()).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "objects come once, in the order of their keys");
    captured
}

/// What became of one object.
pub(crate) fn found<'a>(captured: &'a [Captured], kind: &str, name: &str) -> Option<&'a Found> {
    captured.iter().find(|c| c.key.kind == kind && c.key.name == name).map(|c| &c.found)
}

/// The objects of a capture that would be restored, mapped and in order.
pub(crate) fn restorable(captured: &[Captured], mapping: &Mapping) -> Vec<Value> {
    let stored = |key: ObjectKey| {
        let captured = captured.iter().find(|captured| captured.key == key).unwrap();
        let Found::Stored(object) = &captured.found else { panic!("{key} is not stored") };
        let mut object = object.clone();
        clean::for_restore(&key, &mut object, RestoreOptions::default());
        let is_lost = mapping.loss(&key, &object).is_some_and(|loss| loss.is_whole);
        mapping.apply(&mut object).unwrap();
        (!is_lost).then_some(object)
    };
    let keys = captured.iter().filter(|c| matches!(c.found, Found::Stored(_))).map(|c| c.key.clone());
    order(keys).into_iter().flat_map(|(_, keys)| keys).filter_map(stored).collect()
}

/// Restores objects in one run.
pub(crate) async fn restore(
    client: &Client,
    run: &str,
    policy: ReplacePolicy,
    objects: &[Value],
) -> Vec<(ObjectKey, Applied)> {
    restore_patiently(client, run, policy, objects, quick()).await
}

/// Restores objects in one run into a cluster that has to be borne with.
pub(crate) async fn restore_patiently(
    client: &Client,
    run: &str,
    policy: ReplacePolicy,
    objects: &[Value],
    patience: Patience,
) -> Vec<(ObjectKey, Applied)> {
    let catalog = Arc::new(discover(client, &patience).await.unwrap());
    let applier = Applier::new(client.clone(), catalog, run, policy, patience);
    // One wave after the other, as an operator does it.
    let mut outcomes = Vec::new();
    for wave in objects.chunk_by(|a, b| wave(a) == wave(b)) {
        outcomes.extend(
            applier
                .apply_each(stream::iter(wave.iter().map(|object| (ObjectKey::of(object).unwrap(), object.clone()))))
                .collect::<Vec<_>>()
                .await,
        );
    }
    outcomes
}

fn wave(object: &Value) -> Option<application::Wave> {
    application::Wave::of(&ObjectKey::of(object).unwrap())
}

pub(crate) async fn restore_one(client: &Client, run: &str, policy: ReplacePolicy, object: &Value) -> Applied {
    restore(client, run, policy, std::slice::from_ref(object)).await.remove(0).1
}
