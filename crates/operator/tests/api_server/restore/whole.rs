//! What comes back when all is well.

use api::{Phase, ReplacePolicy, VolumeStage};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, ResourceQuota, Secret, Service};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::restore::point::{Wanted, config_map, namespace, object, publish, shop};
use crate::restore::{assert_nothing_left, over, ready, reason, restore, restore_with, status, volumes_of};
use crate::support::kubelet::volume_dir;
use crate::support::{ADMIN, PASSPHRASE, SHOP, World, claim_manifest, location_manifest};

/// Asserts that the data of `shop` is in the claim `data` of a namespace, and that nothing shows how it came there.
pub async fn assert_data(world: &World, namespace: &str) {
    let folder = volume_dir(&world.client, namespace, "data").await.unwrap();
    assert_eq!(std::fs::read(folder.join("orders")).unwrap(), b"one\ntwo\n");
    assert_eq!(std::fs::read(folder.join("images/logo")).unwrap(), vec![7; 100_000]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "something else is in the volume");
    let claim = world.api::<PersistentVolumeClaim>(namespace).get("data").await.unwrap();
    assert_eq!(claim.status.unwrap().phase.as_deref(), Some("Bound"));
    let volumes = volumes_of(world, namespace).await;
    assert_eq!(volumes.len(), 1, "{volumes:?}");
    let spec = volumes[0].spec.clone().unwrap();
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"), "the policy is back");
    assert_eq!(spec.claim_ref.unwrap().name.as_deref(), Some("data"));
    assert!(!volumes[0].annotations().contains_key("orlop.io/held"));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_volumes_come_back_under_another_name() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    restore(&world, "r", "p1", "shop2").await;
    let status = over(&world, "r").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let objects = status.objects.clone().unwrap();
    assert_eq!((objects.wanted, objects.created, objects.failed), (9, 9, 0), "{objects:?}");
    let volume = &status.volumes[0];
    assert_eq!((volume.namespace.as_str(), volume.claim.as_str(), volume.stage), ("shop2", "data", VolumeStage::Done));
    assert_eq!((volume.files, volume.bytes, volume.attempts), (Some(2), Some(100_008), 1));
    assert_eq!(status.namespaces, ["shop2"]);
    assert_eq!(status.recovery_point.as_deref(), Some("p1"));
    let stages: Vec<&str> = status.stages.iter().map(|s| s.stage.as_str()).collect();
    assert_eq!(stages, ["Preparing", "Foundations", "Volumes", "Resources"]);
    assert!(status.stages.iter().all(|s| s.finished_at.is_some()));

    assert_data(&world, "shop2").await;
    assert_nothing_left(&world).await;
    let namespace = Api::<Namespace>::all(world.client.clone()).get("shop2").await.unwrap();
    assert_eq!(namespace.labels().get("team").map(String::as_str), Some("sales"));
    let settings = world.api::<ConfigMap>("shop2").get("settings").await.unwrap();
    assert_eq!(settings.data.unwrap()["color"], "blue");
    let token = world.api::<Secret>("shop2").get("token").await.unwrap();
    assert_eq!(token.data.unwrap()["t"].0, b"secret");
    let binding = world.api::<RoleBinding>("shop2").get("reads").await.unwrap();
    assert_eq!(binding.subjects.unwrap()[0].namespace.as_deref(), Some("shop2"));
    let service = world.api::<Service>("shop2").get("web").await.unwrap();
    assert_ne!(service.spec.unwrap().cluster_ip.as_deref(), Some("10.0.0.77"));
    world.api::<Deployment>("shop2").get("web").await.unwrap();
    world.api::<ResourceQuota>("shop2").get("quota").await.unwrap();
    world.events(ADMIN, "r", &["Foundations", "Volumes", "Resources", "Succeeded"]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_comes_back_by_its_name() {
    sandbox::require_assets!();
    let world = ready().await;
    world.application().await;
    let operator = world.operator();
    world.backup("b").await;
    restore_with(&world, "r", |spec| {
        spec.backup_name = Some("b".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "shop2".to_owned())].into();
    })
    .await;
    let status = over(&world, "r").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_eq!(status.recovery_point, world.finished("b").await.status.unwrap().recovery_point);
    assert_data(&world, "shop2").await;
    let settings = world.api::<ConfigMap>("shop2").get("settings").await.unwrap();
    assert_eq!(settings.data.unwrap()["color"], "blue");
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_in_an_ordinary_namespace_leaves_the_cluster_alone() {
    sandbox::require_assets!();
    let world = ready().await;
    world.location(SHOP).await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    let spec = api::ApplicationRestoreSpec {
        backup_location: "main".into(),
        recovery_point: Some("p1".into()),
        ready_timeout: Some("0s".into()),
        ..Default::default()
    };
    let api: Api<api::ApplicationRestore> = world.api(SHOP);
    api.create(&Default::default(), &api::ApplicationRestore::new("own", spec)).await.unwrap();
    let status = crate::restore::until("the end of the restore", || async {
        let status = api.get("own").await.unwrap().status?;
        status.phase.is_final().then_some(status)
    })
    .await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let objects = status.objects.unwrap();
    assert_eq!(
        (objects.wanted, objects.created, objects.kept),
        (9, 6, 3),
        "namespace, role and binding stay: {objects:?}"
    );
    assert!(world.api::<RoleBinding>(SHOP).get_opt("reads").await.unwrap().is_none(), "it granted rights");
    let namespace = Api::<Namespace>::all(world.client.clone()).get(SHOP).await.unwrap();
    assert_eq!(namespace.labels().get("team"), None, "the namespace was changed");
    assert_data(&world, SHOP).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_stay_when_asked_and_what_calls_a_moved_service_is_left_out() {
    sandbox::require_assets!();
    let world = ready().await;
    let service = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.78", "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30123}]}});
    let webhook = json!({"name": "guard.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "clientConfig": {"service": {"name": "web", "namespace": SHOP}, "caBundle": "Y2E="},
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["configmaps"]}]});
    let guard = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "guard"}, "webhooks": [webhook]});
    let objects = vec![namespace(), object("Service", "v1", "web", service), guard];
    publish(&world, "p1", Wanted { objects, ..Wanted::default() }).await;
    let operator = world.operator();
    restore_with(&world, "r", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "shop2".to_owned())].into();
        spec.preserve_node_ports = true;
        spec.preserve_cluster_ips = true;
    })
    .await;
    let status = over(&world, "r").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let objects = status.objects.unwrap();
    assert_eq!((objects.wanted, objects.created, objects.skipped), (3, 2, 1), "{objects:?}");
    assert!(
        objects.notes[0].item.contains("guard") && objects.notes[0].reason.contains("moved-service"),
        "{objects:?}"
    );
    assert!(status.message.unwrap().contains("moved-service"));
    let spec = world.api::<Service>("shop2").get("web").await.unwrap().spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.0.0.78"));
    assert_eq!(spec.ports.unwrap()[0].node_port, Some(30123));
    let guards =
        Api::<ValidatingWebhookConfiguration>::all(world.client.clone()).list(&Default::default()).await.unwrap();
    assert!(guards.items.is_empty(), "{guards:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_restores_into_one_namespace_the_second_waits() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    restore(&world, "one", "p1", "shop2").await;
    restore(&world, "two", "p1", "shop2").await;
    let operator = world.operator();
    let ends = [over(&world, "one").await, over(&world, "two").await];
    assert!(ends.iter().all(|s| s.phase == Phase::Succeeded), "{ends:#?}");
    let begun =
        |s: &api::ApplicationRestoreStatus| s.stages.iter().find(|s| s.stage == "Foundations").unwrap().started_at.0;
    let ended = |s: &api::ApplicationRestoreStatus| s.stages.last().unwrap().finished_at.clone().unwrap().0;
    let (first, second) = if begun(&ends[0]) <= begun(&ends[1]) { (&ends[0], &ends[1]) } else { (&ends[1], &ends[0]) };
    assert!(ended(first) <= begun(second), "they ran at the same time: {ends:#?}");
    assert_eq!(first.volumes[0].stage, VolumeStage::Done);
    assert_eq!(second.volumes[0].stage, VolumeStage::Skipped);
    assert_eq!(second.objects.as_ref().unwrap().created, 0);
    assert_data(&world, "shop2").await;
    assert_nothing_left(&world).await;
    operator.stop().await;
}

/// A namespace in which things of the same names exist, with other content.
async fn occupied(world: &World, namespace: &str) {
    world.namespace(namespace).await;
    let settings = json!({"metadata": {"name": "settings"}, "data": {"color": "red"}});
    world.create::<ConfigMap>(namespace, settings).await;
    let folder = world.claim(namespace, "data").await;
    std::fs::write(folder.join("old"), "old").unwrap();
}

async fn color(world: &World, namespace: &str) -> String {
    world.api::<ConfigMap>(namespace).get("settings").await.unwrap().data.unwrap()["color"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_is_kept_changed_or_replaced_by_policy() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    for (policy, expected_color, replaced) in [
        (ReplacePolicy::Retain, "red", false),
        (ReplacePolicy::Update, "blue", false),
        (ReplacePolicy::Delete, "blue", true),
    ] {
        let name = format!("{policy:?}").to_lowercase();
        occupied(&world, &name).await;
        restore_with(&world, &name, |spec| {
            spec.recovery_point = Some("p1".into());
            spec.namespace_mapping = [(SHOP.to_owned(), name.clone())].into();
            spec.replace_policy = policy;
        })
        .await;
        let status = over(&world, &name).await;
        assert_eq!(status.phase, Phase::Succeeded, "{policy:?}: {status:#?}");
        assert_eq!(color(&world, &name).await, expected_color, "{policy:?}");
        let stage = if replaced { VolumeStage::Done } else { VolumeStage::Skipped };
        assert_eq!(status.volumes[0].stage, stage, "{policy:?}");
        if replaced {
            assert_data(&world, &name).await;
        } else {
            assert_eq!(status.volumes[0].reason.as_deref(), Some("claim-exists"));
            let folder = volume_dir(&world.client, &name, "data").await.unwrap();
            assert_eq!(std::fs::read(folder.join("old")).unwrap(), b"old", "{policy:?}");
        }
    }
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_use_is_not_replaced() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    occupied(&world, "used").await;
    let pod = json!({"metadata": {"name": "db-0"}, "spec": {
        "containers": [{"name": "db", "image": "db:1"}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    }});
    world.create::<Pod>("used", pod).await;
    let operator = world.operator();
    restore_with(&world, "r", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "used".to_owned())].into();
        spec.replace_policy = ReplacePolicy::Delete;
    })
    .await;
    let status = over(&world, "r").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Failed, "ClaimInUse"), "{status:#?}");
    assert!(status.message.unwrap().contains("used/data by db-0"));
    assert_eq!(color(&world, "used").await, "red", "something was changed");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_pick_objects_and_their_volumes() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    let kind = |kind: &str| vec![api::ObjectFilter { kind: Some(kind.into()), ..Default::default() }];
    for (name, filter, objects, volumes) in [("maps", "configmaps", 2, 0), ("data", "PersistentVolumeClaim", 1, 1)] {
        restore_with(&world, name, |spec| {
            spec.recovery_point = Some("p1".into());
            spec.namespace_mapping = [(SHOP.to_owned(), format!("only-{name}"))].into();
            spec.include_resources = kind(filter);
        })
        .await;
        let status = over(&world, name).await;
        assert_eq!(status.phase, Phase::Succeeded, "{name}: {status:#?}");
        assert_eq!((status.objects.unwrap().created, status.volumes.len()), (objects, volumes), "{name}");
    }
    restore_with(&world, "none", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "only-none".to_owned())].into();
        spec.include_resources = kind("Gadget");
    })
    .await;
    let nothing = over(&world, "none").await;
    assert_eq!((nothing.phase, reason(&nothing)), (Phase::Failed, "NothingPicked"), "{nothing:#?}");
    assert_data(&world, "only-data").await;
    let claims = world.api::<PersistentVolumeClaim>("only-maps").list(&Default::default()).await.unwrap();
    assert!(claims.items.is_empty());
    // A claim made by hand, of another size, is as good as any that exists.
    world.create::<PersistentVolumeClaim>("only-maps", claim_manifest("data")).await;
    assert_eq!(status(&world, "maps").await.phase, Phase::Succeeded, "what is over stays so");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_the_location_and_the_secrets_that_it_lives_on() {
    sandbox::require_assets!();
    let world = ready().await;
    world.location(SHOP).await;
    // As they were before the keys were exchanged.
    let keys = object("Secret", "v1", "keys", json!({"data": {"passphrase": "b2xk"}, "type": "Opaque"}));
    let mut location = object("BackupLocation", "orlop.io/v1alpha1", "main", location_manifest("main"));
    location["spec"]["path"] = "elsewhere".into();
    let objects = vec![namespace(), keys, location, config_map("settings", json!({"color": "blue"}))];
    publish(&world, "p1", Wanted { objects, ..Wanted::default() }).await;
    let api: Api<api::ApplicationRestore> = world.api(SHOP);
    let operator = world.operator();
    for policy in [ReplacePolicy::Update, ReplacePolicy::Delete] {
        let name = format!("{policy:?}").to_lowercase();
        let spec = api::ApplicationRestoreSpec {
            backup_location: "main".into(),
            recovery_point: Some("p1".into()),
            replace_policy: policy,
            ..Default::default()
        };
        api.create(&Default::default(), &api::ApplicationRestore::new(&name, spec)).await.unwrap();
        let status = crate::restore::until("the end of the restore", || async {
            let status = api.get(&name).await.unwrap().status?;
            status.phase.is_final().then_some(status)
        })
        .await;
        assert_eq!(status.phase, Phase::Succeeded, "{policy:?}: {status:#?}");
        assert_eq!(status.objects.unwrap().kept, 3, "{policy:?}: the namespace, the location and its Secret");
        let keys = world.api::<Secret>(SHOP).get("keys").await.unwrap();
        assert_eq!(keys.data.unwrap()["passphrase"].0, PASSPHRASE.as_bytes(), "{policy:?}");
        let location = world.api::<api::BackupLocation>(SHOP).get("main").await.unwrap();
        assert_eq!(location.spec.path, "bucket", "{policy:?}");
        assert_eq!(color(&world, SHOP).await, "blue", "{policy:?}");
    }
    operator.stop().await;
}
