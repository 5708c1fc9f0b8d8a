//! Many objects of many kinds, for benchmarks and for tests of capture.
//!
//! The n-th object is always the same, so that two clusters that were populated alike can be compared.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use kube::Client;
use serde_json::{Value, json};

/// Requests under way at the same time. The API server takes 200 changes at a time before it refuses more, and is not
/// faster with more than a few dozen.
const CONCURRENCY: usize = 48;

/// Objects that share a namespace, as in a cluster with applications of some size.
const OBJECTS_PER_NAMESPACE: usize = 1_000;

/// The largest data of one ConfigMap or Secret: most are far smaller.
const LARGEST_DATA_BYTES: usize = 6_000;

/// What [`objects`] has made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// The namespaces, which the objects are spread over.
    pub namespaces: Vec<String>,
    /// How many objects of each kind there are; the namespaces are not among them.
    pub kinds: BTreeMap<String, usize>,
}

/// Makes `count` objects, in namespaces `populated-0`, `populated-1` and so on, which must not be there yet.
pub async fn objects(client: &Client, count: usize) -> Result<Population> {
    let namespaces: Vec<_> = (0..count.div_ceil(OBJECTS_PER_NAMESPACE)).map(namespace).collect();
    let made = namespaces.iter().map(|name| {
        create(
            client,
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
    });
    stream::iter(made).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;

    let mut kinds = BTreeMap::new();
    let made = (0..count).map(|index| {
        let (path, object) = object(index);
        *kinds.entry(object["kind"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        create(client, path, object)
    });
    stream::iter(made).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
    Ok(Population { namespaces, kinds })
}

/// The `index`-th object and the path to post it to.
fn object(index: usize) -> (String, Value) {
    let kind = &KINDS[index % KINDS.len()];
    let namespace = namespace(index / OBJECTS_PER_NAMESPACE);
    let name = format!("object-{index:06}");
    let tier = if index.is_multiple_of(2) { "front" } else { "back" };
    let labels = json!({"app": format!("app-{}", index % 20), "tier": tier});
    let mut object = (kind.body)(index, &name);
    object["apiVersion"] = json!(kind.api_version);
    object["kind"] = json!(kind.kind);
    object["metadata"] = json!({
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": {"example.com/note": text(index, index % 300)},
    });
    let root = if kind.api_version.contains('/') { "apis" } else { "api" };
    (format!("/{root}/{}/namespaces/{namespace}/{}", kind.api_version, kind.plural), object)
}

fn namespace(index: usize) -> String {
    format!("populated-{index}")
}

struct Kind {
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// The object without what all have.
    body: fn(usize, &str) -> Value,
}

/// Kinds that every supported version serves, and whose objects no controller needs to run for.
const KINDS: &[Kind] = &[
    Kind { api_version: "v1", kind: "ConfigMap", plural: "configmaps", body: config_map },
    Kind { api_version: "v1", kind: "Secret", plural: "secrets", body: secret },
    Kind { api_version: "apps/v1", kind: "Deployment", plural: "deployments", body: workload },
    Kind { api_version: "v1", kind: "Service", plural: "services", body: service },
    Kind { api_version: "v1", kind: "ServiceAccount", plural: "serviceaccounts", body: |_, _| json!({}) },
    Kind { api_version: "rbac.authorization.k8s.io/v1", kind: "Role", plural: "roles", body: role },
    Kind {
        api_version: "rbac.authorization.k8s.io/v1",
        kind: "RoleBinding",
        plural: "rolebindings",
        body: role_binding,
    },
    Kind { api_version: "v1", kind: "PersistentVolumeClaim", plural: "persistentvolumeclaims", body: claim },
    Kind {
        api_version: "networking.k8s.io/v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        body: network_policy,
    },
    Kind { api_version: "v1", kind: "ConfigMap", plural: "configmaps", body: config_map },
];

fn config_map(index: usize, _name: &str) -> Value {
    json!({"data": {"settings.conf": text(index, size(index)), "level": "info"}})
}

fn secret(index: usize, _name: &str) -> Value {
    json!({"type": "Opaque", "data": {"token": STANDARD.encode(text(index, size(index)))}})
}

fn workload(index: usize, name: &str) -> Value {
    let labels = json!({"workload": name});
    json!({"spec": {
        // Without replicas there are no pods, also where controllers run.
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{
                "name": "main",
                "image": "example.com/image:1",
                "args": ["--number", index.to_string()],
                "env": [{"name": "SETTINGS", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            }]},
        },
    }})
}

fn service(_index: usize, name: &str) -> Value {
    // Headless: the range of service addresses is not to limit how many there can be.
    json!({"spec": {"clusterIP": "None", "selector": {"workload": name}, "ports": [{"name": "http", "port": 80}]}})
}

fn role(_index: usize, _name: &str) -> Value {
    json!({"rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]})
}

fn role_binding(_index: usize, name: &str) -> Value {
    json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name}],
    })
}

fn claim(index: usize, _name: &str) -> Value {
    let size = format!("{}Gi", index % 8 + 1);
    json!({"spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "absent",
        "resources": {"requests": {"storage": size}},
    }})
}

fn network_policy(_index: usize, name: &str) -> Value {
    json!({"spec": {"podSelector": {"matchLabels": {"workload": name}}, "policyTypes": ["Ingress"]}})
}

/// Sizes from tens of bytes to the largest, the small ones being the more frequent.
fn size(index: usize) -> usize {
    let spread = index.wrapping_mul(2_654_435_761) % 1_000 + 1;
    (LARGEST_DATA_BYTES * spread / 1_000) * spread / 1_000
}

/// Text of a length that compresses about as well as configuration does.
fn text(index: usize, length: usize) -> String {
    let mut text = String::with_capacity(length + 32);
    let mut line = index;
    while text.len() < length {
        line = line.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("option-{:03} = {:x}\n", line % 1_000, line >> 40));
    }
    text.truncate(length);
    text
}

async fn create(client: &Client, path: impl Into<String>, object: Value) -> Result<()> {
    let path = path.into();
    let body = serde_json::to_vec(&object).context("write an object as JSON")?;
    let request = Request::post(&path).header(CONTENT_TYPE, "application/json").body(body).context("make a request")?;
    client.request::<Value>(request).await.with_context(|| format!("create an object at {path}"))?;
    Ok(())
}
