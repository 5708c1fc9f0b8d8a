//! What somebody who may write in a namespace says of runs and of volumes there gives him no way out of it.

use std::time::Duration;

use api::{
    ApplicationBackup, ApplicationBackupSpec, HookState, HookStatus, Phase, RUN_LABEL, VolumeBackup, VolumeStage,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use operator::mover_pod::{self, Direction};
use operator::{Limits, OperatorConfig};
use serde_json::json;

use crate::support::kubelet::Behaviour;
use crate::support::{ADMIN, KEEP, SHOP, World, claim_manifest, short_limits, start, until};

const TENANT: &str = "tenant";

/// A world with a tenant who has a location, and `shop`, which is not his.
async fn with_a_tenant() -> World {
    let world = World::new().await;
    world.namespace(TENANT).await;
    world.location(TENANT).await;
    world.application().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_status_of_a_backup_reads_no_other_namespace() {
    sandbox::require_assets!();
    let world = with_a_tenant().await;
    let volume = |class: Option<&str>| VolumeBackup {
        namespace: SHOP.into(),
        claim: "data".into(),
        stage: VolumeStage::Pending,
        snapshot_class: class.map(Into::into),
        ..VolumeBackup::default()
    };
    let hook = |state| HookStatus {
        namespace: SHOP.into(),
        rule: "reach".into(),
        pod: "db-0".into(),
        pod_uid: "0".into(),
        container: "db".into(),
        started_at: Some(Time(Timestamp::now())),
        state,
        ..HookStatus::default()
    };
    let cases = [
        ("objects", vec![SHOP.to_owned()], json!({"stage": "Resources"}), "InvalidSpec"),
        ("draft", vec![SHOP.to_owned()], json!({"stage": "Publishing"}), "InvalidSpec"),
        ("volumes", vec![], json!({"stage": "Volumes", "volumes": [volume(None)]}), "StatusNotOwn"),
        ("snapshots", vec![], json!({"stage": "Volumes", "volumes": [volume(Some("any"))]}), "StatusNotOwn"),
        ("commands", vec![], json!({"stage": "PreExecRule", "hooks": [hook(HookState::Pending)]}), "StatusNotOwn"),
        ("holds", vec![], json!({"stage": "Volumes", "hooks": [hook(HookState::Holding)]}), "StatusNotOwn"),
    ];
    let backups: Api<ApplicationBackup> = world.api(TENANT);
    for (name, namespaces, forged, _) in &cases {
        let spec = ApplicationBackupSpec {
            namespaces: namespaces.clone(),
            backup_location: "main".into(),
            ..ApplicationBackupSpec::default()
        };
        backups.create(&PostParams::default(), &ApplicationBackup::new(name, spec)).await.unwrap();
        let mut status = json!({"phase": "Running", "observedGeneration": 1});
        status.as_object_mut().unwrap().extend(forged.as_object().unwrap().clone());
        let patch = Patch::Merge(json!({"status": status}));
        backups.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
    let operator = world.operator();
    world.location_phase(TENANT, "main", api::LocationPhase::Ready).await;
    for (name, _, _, word) in cases {
        let status = until(&format!("the end of {name}"), || async {
            backups.get(name).await.unwrap().status.filter(|status| status.phase.is_final())
        })
        .await;
        let complete = status.conditions.iter().find(|condition| condition.type_ == "Complete").unwrap();
        assert_eq!((status.phase, complete.reason.as_str()), (Phase::Failed, word), "{name}: {status:#?}");
        assert_eq!(status.recovery_point, None, "{name}");
    }
    assert!(world.kubelet.started().is_empty(), "a mover ran where it may not");
    assert!(world.repository().await.points().await.unwrap().is_empty(), "another namespace was stored");
    operator.stop().await;
}

/// A tenant with a volume, beside `shop` in what administrators back up.
async fn with_a_tenant_who_is_backed_up() -> World {
    let world = with_a_tenant().await;
    world.location(ADMIN).await;
    let folder = world.claim(TENANT, "own").await;
    std::fs::write(folder.join("mine"), "mine").unwrap();
    world
}

/// A backup of `shop` and of the tenant.
async fn backup_of_both(world: &World, name: &str) -> ApplicationBackup {
    world.backup_with(name, |spec| spec.namespaces = vec![SHOP.into(), TENANT.into()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bears_the_label_of_a_run_of_others_is_none_of_its_own() {
    sandbox::require_assets!();
    let world = with_a_tenant().await;
    world.location(ADMIN).await;
    let run = world.backup("b").await;
    let metadata = |name: &str| json!({"name": name, "labels": {RUN_LABEL: run.uid().unwrap()}, "finalizers": [KEEP]});
    // As many as there may be movers of one run, and under names of movers.
    for attempt in 1..=short_limits().movers_at_once {
        let name = mover_pod::name(&run.uid().unwrap(), Direction::Backup, 0, u32::try_from(attempt).unwrap());
        let spec = json!({"containers": [{"name": "mover", "image": "c:1"}]});
        world.create::<Pod>(TENANT, json!({"metadata": metadata(&name), "spec": spec})).await;
    }
    world.create::<Secret>(TENANT, json!({"metadata": metadata("secret")})).await;
    let claim = json!({"metadata": metadata("claim"), "spec": claim_manifest("claim")["spec"]});
    world.create::<PersistentVolumeClaim>(TENANT, claim).await;
    world.kubelet.script(|pod| match pod.namespace().as_deref() {
        Some(TENANT) => Behaviour::Hang,
        _ => Behaviour::Run,
    });
    // For as long as the test has patience, nothing that the run would wait for is given up.
    let limits = Limits { end_patience: Duration::from_secs(3600), ..short_limits() };
    let operator = start(world.client.clone(), OperatorConfig { limits, ..world.config() });
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let held = (world.hold::<Pod>(TENANT, false).await, world.hold::<Secret>(TENANT, false).await);
    assert_eq!(
        (held, world.hold::<PersistentVolumeClaim>(TENANT, false).await),
        ((4, 1), 1),
        "they were there all the time"
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_what_a_run_made_in_his_namespace_holds_it_up_for_a_while_only() {
    sandbox::require_assets!();
    let world = with_a_tenant_who_is_backed_up().await;
    world.kubelet.script(|pod| match pod.namespace().as_deref() {
        Some(TENANT) => Behaviour::NeverSchedule,
        _ => Behaviour::Run,
    });
    let limits = Limits { end_patience: Duration::from_secs(3), ..short_limits() };
    let operator = start(world.client.clone(), OperatorConfig { limits, ..world.config() });
    backup_of_both(&world, "b").await;
    until("a mover to hold", || async { (world.hold::<Pod>(TENANT, true).await == 1).then_some(()) }).await;
    assert_eq!(world.hold::<Secret>(TENANT, true).await, 1);
    world.kubelet.script(|_| Behaviour::Run);
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_eq!(
        (world.hold::<Pod>(TENANT, false).await, world.hold::<Secret>(TENANT, false).await),
        (1, 1),
        "they are held"
    );
    until("what was held to go", || async { world.left_behind().await.is_empty().then_some(()) }).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_for_a_mover_what_is_not_so_misses_his_own_volume_alone() {
    sandbox::require_assets!();
    let world = with_a_tenant_who_is_backed_up().await;
    world.kubelet.script(|pod| match pod.namespace().as_deref() {
        Some(TENANT) => Behaviour::Lie,
        _ => Behaviour::Run,
    });
    let operator = world.operator();
    backup_of_both(&world, "b").await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Incomplete, "{status:#?}");
    let volume = |namespace: &str| status.volumes.iter().find(|volume| volume.namespace == namespace).unwrap();
    assert_eq!((volume(SHOP).stage, volume(TENANT).stage), (VolumeStage::Done, VolumeStage::Missed));
    let reason = volume(TENANT).reason.clone().unwrap();
    assert!(reason.contains("is not in the repository") && reason.contains("attempt 3 of 3"), "{reason}");
    let point = world.repository().await.point(&status.recovery_point.unwrap().parse().unwrap()).await.unwrap();
    assert!(point.root("shop/data").is_some() && point.root("tenant/own").is_none() && !point.complete);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_name_of_a_mover_misses_his_own_volume_alone() {
    sandbox::require_assets!();
    let world = with_a_tenant_who_is_backed_up().await;
    world.claim(TENANT, "taken").await;
    let run = backup_of_both(&world, "b").await;
    let name = |volume| mover_pod::name(&run.uid().unwrap(), Direction::Backup, volume, 1);
    // A job of his own: it is not run. A pod of his own: no mover is made in its place.
    let job = json!({"metadata": {"name": name(1)}, "stringData": {"job.json": "{}"}});
    world.create::<Secret>(TENANT, job).await;
    let spec = json!({"containers": [{"name": "mover", "image": "c:1"}]});
    world.create::<Pod>(TENANT, json!({"metadata": {"name": name(2)}, "spec": spec})).await;
    let operator = world.operator();
    let status = world.finished("b").await.status.unwrap();
    let volumes: Vec<_> = status.volumes.iter().map(|v| (v.claim.as_str(), v.stage)).collect();
    let expected = [("data", VolumeStage::Done), ("own", VolumeStage::Done), ("taken", VolumeStage::Missed)];
    assert_eq!((status.phase, &volumes[..]), (Phase::Incomplete, &expected[..]), "{status:#?}");
    let reason = status.volumes[2].reason.clone().unwrap();
    assert!(reason.contains(&format!("there is a Pod {TENANT}/{}", name(2))), "{reason}");
    operator.stop().await;
}
