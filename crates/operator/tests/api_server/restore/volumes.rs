//! Movers that fail, and volumes that cannot be filled.

use api::{ApplicationRestore, Phase, VolumeStage};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};
use serde_json::json;

use crate::restore::point::{Wanted, pack_file, publish, shop, shop_files};
use crate::restore::whole::assert_data;
use crate::restore::{assert_nothing_left, over, ready, reason, restore, volumes_of};
use crate::support::kubelet::Behaviour;
use crate::support::{ADMIN, World, claim_manifest, start, until};

/// Asserts that a restore whose volume could not be filled made what stands on nothing, and neither claim nor workload.
async fn assert_not_handed_over(world: &World, name: &str, said: &str) {
    let status = over(world, name).await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "VolumesMissed"), "{name}: {status:#?}");
    let volume = status.volumes.iter().find(|v| v.claim == "data").unwrap();
    assert_eq!(volume.stage, VolumeStage::Missed);
    assert!(volume.reason.as_ref().unwrap().contains(said), "{name}: {said:?} in {volume:?}");
    assert!(status.message.unwrap().contains("shop2-"), "the volume is named");
    let namespace = &volume.namespace;
    let claims = world.api::<PersistentVolumeClaim>(namespace);
    assert!(claims.get_opt("data").await.unwrap().is_none(), "{name}: an unfilled volume was handed over");
    assert!(world.api::<Deployment>(namespace).get_opt("web").await.unwrap().is_none(), "{name}: a workload was made");
    world.api::<ConfigMap>(namespace).get("settings").await.unwrap();
    let failed = status.objects.unwrap();
    assert_eq!(failed.failed, 1, "{failed:?}");
    assert!(failed.failed_items[0].item.contains("Deployment"), "{failed:?}");
    world.events(ADMIN, name, &["VolumeMissed"]).await;
    until("the volume that was not filled to go", || async {
        let left = volumes_of(world, namespace).await;
        let unfilled = left.iter().filter(|v| {
            let claim = v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|c| c.name.clone());
            claim.is_some_and(|c| c.starts_with("orlop-fill-"))
        });
        (unfilled.count() == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfilled_volume_is_never_handed_over() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    for (name, behaviour, said) in [
        ("evicted", Behaviour::Evict, "Evicted"),
        ("killed", Behaviour::Kill, "the last of 3 tries"),
        ("memory", Behaviour::OutOfMemory, "OOMKilled"),
        ("stuck", Behaviour::NeverSchedule, "0/1 nodes are available"),
    ] {
        world.kubelet.script(move |_| behaviour);
        restore(&world, name, "p1", &format!("shop2-{name}")).await;
        assert_not_handed_over(&world, name, said).await;
    }
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_fails_is_followed_by_one_that_does_not() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    for (name, behaviour, attempts) in [
        ("evicted", Behaviour::Evict, 2),
        ("killed", Behaviour::Kill, 2),
        // It did everything and nobody heard of it: the next one finds a full volume and refuses it, the third gets a new one.
        ("unheard", Behaviour::RunUnheard, 3),
    ] {
        world.kubelet.script(move |pod| if pod.name_any().ends_with("-1") { behaviour } else { Behaviour::Run });
        restore(&world, name, "p1", name).await;
        let status = over(&world, name).await;
        assert_eq!((status.phase, status.volumes[0].attempts), (Phase::Succeeded, attempts), "{name}: {status:#?}");
        assert_data(&world, name).await;
    }
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_damaged_pack_is_named_and_the_other_volumes_come_back() {
    sandbox::require_assets!();
    let world = ready().await;
    let volumes = || vec![("data", shop_files()), ("other", vec![("file", b"kept".to_vec())])];
    let made = [
        publish(&world, "missing", Wanted { volumes: volumes(), ..shop() }).await,
        // Other content, so that its packs are its own.
        publish(
            &world,
            "flipped",
            Wanted { volumes: vec![("data", vec![("orders", b"three".to_vec())]), volumes().remove(1)], ..shop() },
        )
        .await,
    ];
    let file = made.iter().map(|m| pack_file(&world, &m.volume_packs[0][0])).collect::<Vec<_>>();
    std::fs::remove_file(&file[0]).unwrap();
    let mut bytes = std::fs::read(&file[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file[1], bytes).unwrap();
    let operator = world.operator();
    for (made, file) in made.iter().zip(&file) {
        restore(&world, &made.id, &made.id, &format!("shop2-{}", made.id)).await;
        let pack = file.file_name().unwrap().to_string_lossy();
        // The quota of the application allows one claim, and that is the other one; what counts is that the lost one is named.
        let status = over(&world, &made.id).await;
        let volume = |claim: &str| status.volumes.iter().find(|v| v.claim == claim).unwrap().clone();
        assert_eq!(volume("data").stage, VolumeStage::Missed, "{status:#?}");
        assert!(volume("data").reason.unwrap().contains(&*pack), "{pack} in {status:#?}");
        assert_eq!(volume("data").attempts, 1, "another try cannot help");
        assert_eq!(volume("other").stage, VolumeStage::Done, "{status:#?}");
        assert_not_handed_over(&world, &made.id, &pack).await;
    }
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_running_restore_ends_its_movers_and_claims() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    world.kubelet.script(|_| Behaviour::Hang);
    restore(&world, "r", "p1", "shop2").await;
    until("a mover", || async { (!world.kubelet.started().is_empty()).then_some(()) }).await;
    let api: Api<ApplicationRestore> = world.api(ADMIN);
    api.delete("r", &DeleteParams::default()).await.unwrap();
    until("the restore to go", || async { api.get_opt("r").await.unwrap().is_none().then_some(()) }).await;
    assert_nothing_left(&world).await;
    let claims = world.api::<PersistentVolumeClaim>("shop2").list(&Default::default()).await.unwrap();
    assert!(claims.items.is_empty(), "{:?}", claims.items);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_comes_up_while_its_volume_is_filled_does_not_stand_for_it() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    world.kubelet.script(|_| Behaviour::Hang);
    restore(&world, "r", "p1", "shop2").await;
    until("a mover", || async { (!world.kubelet.started().is_empty()).then_some(()) }).await;
    world.create::<PersistentVolumeClaim>("shop2", claim_manifest("data")).await;
    let status = over(&world, "r").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "VolumesMissed"), "{status:#?}");
    assert_eq!(status.volumes[0].stage, VolumeStage::Missed);
    assert!(status.volumes[0].reason.as_ref().unwrap().contains("somebody made the claim"), "{status:#?}");
    assert!(world.api::<Deployment>("shop2").get_opt("web").await.unwrap().is_none(), "a workload was made");
    world.api::<PersistentVolumeClaim>("shop2").get("data").await.unwrap();
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_whose_movers_the_api_server_cannot_make_are_missed_and_not_waited_for_for_ever() {
    sandbox::require_assets!();
    let world = ready().await;
    let objects = shop().objects.into_iter().filter(|o| o["kind"] != "ResourceQuota").collect();
    let volumes = vec![("data", shop_files()), ("other", vec![("file", b"kept".to_vec())])];
    publish(&world, "p1", Wanted { objects, volumes, ..Wanted::default() }).await;
    // What an API server answers when a webhook that it must ask is down.
    let refused = Rule::on(Verb::Create, Fault::INTERNAL_ERROR).path("/namespaces/shop2/pods");
    let proxy = FaultProxy::start(world.plane.kubeconfig(), Plan::none().with(refused)).await.unwrap();
    let operator = start(proxy.client().await.unwrap(), world.config());
    restore(&world, "r", "p1", "shop2").await;
    let status = over(&world, "r").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "VolumesMissed"), "{status:#?}");
    for volume in &status.volumes {
        assert!(volume.reason.as_ref().unwrap().contains("injected by the fault proxy"), "{volume:?}");
    }
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_volumes_of_one_pod_are_made_where_it_may_run() {
    sandbox::require_assets!();
    let world = ready().await;
    let mut objects: Vec<_> = shop().objects.into_iter().filter(|o| o["kind"] != "ResourceQuota").collect();
    let web = objects.iter_mut().find(|o| o["kind"] == "Deployment").unwrap();
    let spec = &mut web["spec"]["template"]["spec"];
    spec["nodeSelector"] = json!({"disk": "ssd"});
    spec["tolerations"] = json!([{"key": "db", "operator": "Exists", "effect": "NoSchedule"}]);
    spec["volumes"] = json!([
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "o", "persistentVolumeClaim": {"claimName": "other"}},
    ]);
    let volumes = vec![("data", shop_files()), ("other", vec![("file", b"kept".to_vec())])];
    publish(&world, "p1", Wanted { objects, volumes, ..Wanted::default() }).await;
    let operator = world.operator();
    restore(&world, "r", "p1", "shop2").await;
    assert_eq!(over(&world, "r").await.phase, Phase::Succeeded);
    let movers = world.kubelet.started();
    assert_eq!(movers.len(), 2);
    for mover in &movers {
        let spec = mover.spec.as_ref().unwrap();
        assert_eq!(spec.node_selector.as_ref().unwrap()["disk"], "ssd");
        let keys: Vec<_> = spec.tolerations.iter().flatten().map(|t| t.key.as_deref()).collect();
        assert!(keys.contains(&Some("db")) && !keys.contains(&None), "{keys:?}");
    }
    let second = movers.iter().find(|mover| mover.name_any().contains("-r1-")).unwrap().spec.as_ref().unwrap();
    let affinity = serde_json::to_string(&second.affinity).unwrap();
    assert!(affinity.contains("kubernetes.io/hostname"), "within reach of the first volume: {affinity}");
    operator.stop().await;
}
