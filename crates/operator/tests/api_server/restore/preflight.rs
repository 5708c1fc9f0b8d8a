//! What is refused, or waits, before anything is made.

use api::{ApplicationRestoreSpec, Phase};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::restore::point::{Wanted, config_map, namespace, object, pack_file, publish, shop};
use crate::restore::{assert_nothing_left, namespace_exists, over, ready, reason, restore, restore_with, says};
use crate::support::SHOP;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_and_changes_nothing() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "good", shop()).await;
    let widget = object("Widget", "example.com/v1", "w", json!({"spec": {}}));
    publish(&world, "widget", Wanted { objects: vec![namespace(), widget], ..shop() }).await;
    publish(&world, "partly", Wanted { missed: vec!["cache"], ..shop() }).await;
    // Content of its own: what another point has too would be found there.
    let mut objects = shop().objects;
    objects.push(config_map("only-here", json!({})));
    let damaged = publish(&world, "damaged", Wanted { objects, ..shop() }).await;
    let pack = pack_file(&world, &damaged.object_packs[0]);
    std::fs::remove_file(&pack).unwrap();
    let pack = pack.file_name().unwrap().to_string_lossy().into_owned();
    let operator = world.operator();
    type Change = fn(&mut ApplicationRestoreSpec);
    let cases: [(&str, &str, Change, &str, &[&str]); 8] = [
        ("unknown", "nowhere", |_| (), "NoRecoveryPoint", &["nowhere", "good", "partly"]),
        ("kind", "widget", |_| (), "KindMissing", &["Widget", "example.com", "includeResources"]),
        ("incomplete", "partly", |_| (), "Incomplete", &["shop/cache", "evicted", "acceptIncomplete"]),
        ("damage", "damaged", |_| (), "Damaged", &[&pack]),
        (
            "class",
            "good",
            |s| s.storage_class_mapping = [("disk".into(), "gold".into())].into(),
            "StorageClassMissing",
            &["gold", "one of: csi-disk, disk"],
        ),
        (
            "source",
            "good",
            |s| s.namespace_mapping = [("bank".into(), "t".into())].into(),
            "InvalidSpec",
            &["spec.namespaceMapping", "bank", SHOP],
        ),
        (
            "name",
            "good",
            |s| s.namespace_mapping = [("shop".into(), "Shop".into())].into(),
            "InvalidSpec",
            &["Shop", "lower-case"],
        ),
        ("location", "good", |s| s.backup_location = "elsewhere".into(), "LocationNotFound", &["elsewhere"]),
    ];
    for (name, point, change, word, parts) in cases {
        restore_with(&world, name, |spec| {
            spec.recovery_point = Some(point.into());
            spec.namespace_mapping = [(SHOP.to_owned(), format!("t-{name}"))].into();
            change(spec);
        })
        .await;
        let status = over(&world, name).await;
        assert_eq!((status.phase, reason(&status)), (Phase::Failed, word), "{name}: {status:#?}");
        let message = status.message.clone().unwrap();
        for part in parts {
            assert!(message.contains(part), "{name}: {part:?} in {message:?}");
        }
        assert!(!namespace_exists(&world, &format!("t-{name}")).await, "{name} made something");
    }
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_point_is_taken_by_who_accepts_it_and_is_no_success() {
    sandbox::require_assets!();
    let world = ready().await;
    // Without the quota, which has no room for a second claim.
    let objects = shop().objects.into_iter().filter(|o| o["kind"] != "ResourceQuota").collect();
    publish(&world, "partly", Wanted { objects, missed: vec!["cache"], ..shop() }).await;
    let operator = world.operator();
    restore_with(&world, "r", |spec| {
        spec.recovery_point = Some("partly".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "t".to_owned())].into();
        spec.accept_incomplete = true;
    })
    .await;
    let status = over(&world, "r").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "VolumesMissed"), "{status:#?}");
    let cache = status.volumes.iter().find(|v| v.claim == "cache").unwrap();
    assert!(cache.reason.as_ref().unwrap().contains("evicted"), "{cache:?}");
    crate::restore::whole::assert_data(&world, "t").await;
    // With the missing claim made by hand everything comes.
    world
        .create::<k8s_openapi::api::core::v1::PersistentVolumeClaim>("t", crate::support::claim_manifest("cache"))
        .await;
    restore_with(&world, "again", |spec| {
        spec.recovery_point = Some("partly".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "t".to_owned())].into();
        spec.accept_incomplete = true;
    })
    .await;
    let status = over(&world, "again").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_in_the_point_comes_before_its_objects() {
    sandbox::require_assets!();
    let world = ready().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    });
    let widget = object("Widget", "example.com/v1", "w", json!({"spec": {"size": 3}}));
    publish(&world, "p1", Wanted { objects: vec![namespace(), definition, widget], ..Wanted::default() }).await;
    let operator = world.operator();
    restore(&world, "r", "p1", "t").await;
    let status = over(&world, "r").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_eq!(status.objects.unwrap().created, 3);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_being_deleted_is_waited_for() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    world.namespace("old").await;
    let mut held = config_map("held", json!({}));
    held["metadata"] = json!({"name": "held", "finalizers": ["example.com/hold"]});
    world.create::<ConfigMap>("old", held).await;
    Api::<Namespace>::all(world.client.clone()).delete("old", &DeleteParams::default()).await.unwrap();
    let operator = world.operator();
    restore(&world, "r", "p1", "old").await;
    let waiting = says(&world, "r", "the namespace old to be gone").await;
    assert_eq!(waiting.phase, Phase::Pending);
    let free = json!({"metadata": {"finalizers": null}});
    let maps = world.api::<ConfigMap>("old");
    maps.patch("held", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    let status = over(&world, "r").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    crate::restore::whole::assert_data(&world, "old").await;
    operator.stop().await;
}
