//! Recovery points made by hand, so that a test has just what it is about in them.

use std::path::PathBuf;
use std::sync::Arc;

use application::{LedgerEntry, ObjectKey, Outcome, canonical};
use jiff::Timestamp;
use repository::table::Builder;
use repository::tree::{self, BackupOptions};
use repository::{
    Claim, NoProgress, PackInfo, Passphrase, RecoveryPoint, Repository, RetryPolicy, Root, RootKind, Source, Stats,
    StoreConfig, TableRef, Writer,
};
use serde_json::{Value, json};

use crate::support::{PASSPHRASE, SHOP, World, claim_manifest};

/// A recovery point of the namespace `shop`, and which packs its parts are in.
pub struct Made {
    pub id: String,
    /// Packs of each volume, in the order in which they were added.
    pub volume_packs: Vec<Vec<PackInfo>>,
    /// Packs of the objects and of the ledger.
    pub object_packs: Vec<PackInfo>,
}

/// Files of a volume, by their paths.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// What a recovery point is to hold.
#[derive(Default)]
pub struct Wanted {
    pub objects: Vec<Value>,
    /// Name of the claim, and its files.
    pub volumes: Vec<(&'static str, Files)>,
    /// Claims whose data was missed.
    pub missed: Vec<&'static str>,
}

/// The application that most tests restore: two claims' worth of what matters, and a workload that uses the data.
pub fn shop() -> Wanted {
    Wanted { objects: shop_objects(), volumes: vec![("data", shop_files())], missed: Vec::new() }
}

pub fn shop_files() -> Files {
    vec![("orders", b"one\ntwo\n".to_vec()), ("images/logo", vec![7; 100_000])]
}

pub fn object(kind: &str, api_version: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": SHOP}});
    merge(&mut object, rest);
    object
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

/// The namespace itself.
pub fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP, "labels": {"team": "sales"}}})
}

pub fn config_map(name: &str, data: Value) -> Value {
    object("ConfigMap", "v1", name, json!({"data": data}))
}

fn shop_objects() -> Vec<Value> {
    let pod = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "web", "image": "web:1", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    });
    let rbac = "rbac.authorization.k8s.io";
    vec![
        namespace(),
        config_map("settings", json!({"color": "blue"})),
        object("Secret", "v1", "token", json!({"data": {"t": "c2VjcmV0"}, "type": "Opaque"})),
        object("ServiceAccount", "v1", "web", json!({})),
        object(
            "Role",
            "rbac.authorization.k8s.io/v1",
            "reader",
            json!({
                "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
            }),
        ),
        object(
            "RoleBinding",
            "rbac.authorization.k8s.io/v1",
            "reads",
            json!({
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": SHOP}],
            }),
        ),
        // One claim and no more: the temporary claim must not count.
        object("ResourceQuota", "v1", "quota", json!({"spec": {"hard": {"persistentvolumeclaims": "1"}}})),
        object(
            "Service",
            "v1",
            "web",
            json!({
                "spec": {"clusterIP": "10.0.0.77", "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]},
            }),
        ),
        object("PersistentVolumeClaim", "v1", "data", claim_manifest("data")),
        object(
            "Deployment",
            "apps/v1",
            "web",
            json!({
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": pod},
            }),
        ),
    ]
}

/// Publishes a recovery point in the bucket of the location `main`.
pub async fn publish(world: &World, id: &str, wanted: Wanted) -> Made {
    publish_with(world, id, wanted, |_| ()).await
}

/// The same, with changes to what it says of its volumes.
pub async fn publish_with(world: &World, id: &str, wanted: Wanted, change: impl Fn(&mut Root)) -> Made {
    let store = StoreConfig::FileSystem { path: world.buckets().join("bucket") };
    let store = store.open(RetryPolicy::never()).unwrap();
    let repository = Repository::open_or_create(store, &Passphrase::new(PASSPHRASE)).await.unwrap();
    let point_id = id.parse().unwrap();
    let (mut roots, mut volume_packs, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for (claim, files) in wanted.volumes {
        let writer = repository.writer(&point_id).await.unwrap();
        let mut root = volume(&writer, &repository, claim, files).await;
        change(&mut root);
        roots.push(root);
        let written = writer.finish().await.unwrap();
        sessions.push(written.session);
        volume_packs.push(written.packs);
    }
    let writer = repository.writer(&point_id).await.unwrap();
    let ledger = ledger(&wanted.objects, &roots, &wanted.missed);
    let objects = objects_table(&writer, &wanted.objects).await;
    let ledger = table(&writer, ledger.iter().map(LedgerEntry::encode).collect()).await;
    let written = writer.finish().await.unwrap();
    sessions.push(written.session);
    let object_packs = written.packs;
    let source = Source::Application {
        cluster_id: "another".into(),
        cluster_name: None,
        backup: "orlop-system/test".into(),
        namespaces: vec![SHOP.into()],
    };
    let point = RecoveryPoint {
        version: RecoveryPoint::VERSION,
        id: point_id,
        created: Timestamp::now(),
        source,
        tags: repository::Tags::default(),
        complete: wanted.missed.is_empty(),
        objects: Some(objects),
        ledger: Some(ledger),
        roots,
        sessions,
        packs: volume_packs.iter().flatten().chain(&object_packs).copied().collect(),
        stats: Stats::default(),
    };
    repository.publish(&point).await.unwrap();
    Made { id: id.into(), volume_packs, object_packs }
}

async fn volume(writer: &Writer, repository: &Repository, claim: &str, files: Files) -> Root {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let now = Timestamp::now();
    let options = BackupOptions::new(now);
    let tree = tree::backup(writer, repository, directory.path(), None, &options, Arc::new(NoProgress)).await.unwrap();
    let stored = object("PersistentVolumeClaim", "v1", claim, claim_manifest(claim));
    Root {
        name: format!("{SHOP}/{claim}"),
        kind: RootKind::Tree,
        table: tree.root,
        files: tree.files,
        bytes: tree.bytes,
        changed_while_read: 0,
        started: now,
        finished: now,
        claim: Some(Claim { namespace: SHOP.into(), name: claim.into(), object: stored }),
    }
}

fn ledger(objects: &[Value], roots: &[Root], missed: &[&str]) -> Vec<LedgerEntry> {
    let volume = |claim: &str| ObjectKey {
        group: "orlop.io".into(),
        version: "v1alpha1".into(),
        kind: "Volume".into(),
        namespace: Some(SHOP.into()),
        name: claim.into(),
    };
    let stored = objects.iter().map(|o| ObjectKey::of(o).unwrap());
    let stored = stored.chain(roots.iter().map(|r| volume(&r.claim.as_ref().unwrap().name)));
    let stored = stored.map(|key| LedgerEntry { key, outcome: Outcome::Stored });
    let missed = missed.iter().map(|claim| LedgerEntry {
        key: volume(claim),
        outcome: Outcome::Missed { reason: "the mover was evicted".into() },
    });
    stored.chain(missed).collect()
}

async fn objects_table(writer: &Writer, objects: &[Value]) -> TableRef {
    let entry = |o: &Value| (ObjectKey::of(o).unwrap().encode(), canonical::to_bytes(o));
    table(writer, objects.iter().map(entry).collect()).await
}

async fn table(writer: &Writer, mut entries: Vec<(Vec<u8>, Vec<u8>)>) -> TableRef {
    entries.sort();
    let mut builder = Builder::new(writer);
    for (key, value) in entries {
        builder.push(&key, &value).await.unwrap();
    }
    builder.finish().await.unwrap()
}

/// The file that a pack is.
pub fn pack_file(world: &World, pack: &PackInfo) -> PathBuf {
    let mut folders = vec![world.buckets().join("bucket")];
    let name = pack.id.to_string();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|n| n.to_string_lossy() == name) {
                return path;
            }
        }
    }
    panic!("there is no file {name}");
}
