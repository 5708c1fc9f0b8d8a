//! Backups that read snapshots of volumes, on a real API server with a played CSI driver.

use std::path::PathBuf;

use crate::support::crash::Crashes;
use crate::support::kubelet::{Behaviour, SNAPSHOTTED};
use crate::support::{ADMIN, SHOP, World, claim_manifest, kubelet, until};
use api::{ApplicationBackupStatus, ConsistencyLevel, Phase, Rule, VolumeAction, VolumePolicy, VolumeStage};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use serde_json::json;

/// An application with a claim that is copied, and one of a driver with snapshots.
async fn ready() -> (World, PathBuf) {
    let world = World::new().await;
    world.install_snapshots().await;
    world.location(ADMIN).await;
    world.application().await;
    let folder = snapshotted(&world, "ledger").await;
    (world, folder)
}

async fn snapshotted(world: &World, name: &str) -> PathBuf {
    let mut claim = claim_manifest(name);
    claim["spec"]["storageClassName"] = json!(SNAPSHOTTED);
    world.create::<PersistentVolumeClaim>(SHOP, claim).await;
    world.bound(SHOP, name).await;
    let folder = kubelet::volume_dir(&world.client, SHOP, name).await.unwrap();
    std::fs::write(folder.join("book"), "before").unwrap();
    folder
}

/// Bytes of the files that a recovery point has of a claim.
async fn bytes(world: &World, status: &ApplicationBackupStatus, claim: &str) -> u64 {
    let id = status.recovery_point.as_ref().unwrap().parse().unwrap();
    world.repository().await.point(&id).await.unwrap().root(&format!("shop/{claim}")).unwrap().bytes
}

async fn nothing_is_left(world: &World) {
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    assert_eq!(world.snapshots().await, Vec::<String>::new());
}

fn volume<'a>(status: &'a ApplicationBackupStatus, claim: &str) -> &'a api::VolumeBackup {
    status.volumes.iter().find(|volume| volume.claim == claim).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_read_and_the_application_is_held_only_until_it_is_taken() {
    sandbox::require_assets!();
    let (world, folder) = ready().await;
    world.running_pod(SHOP, "db-0", "db").await;
    let hold = format!("${{WAIT_CMD}}; echo what is written when it is let go > {}", folder.join("book").display());
    let actions = json!([{"type": "command", "value": hold, "background": true}]);
    let rule = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "Rule", "metadata": {"name": "quiesce"},
        "spec": {"rules": [{"podSelector": {"app": "db"}, "actions": actions}]},
    });
    world.create::<Rule>(ADMIN, rule).await;
    let operator = world.operator();
    world.backup_with("b", |spec| spec.pre_exec_rule = Some("quiesce".into())).await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert_eq!(bytes(&world, &status, "ledger").await, 6, "the snapshot was read, not what came later");
    assert!(std::fs::read_to_string(folder.join("book")).unwrap().starts_with("what is written"));
    let ledger = volume(&status, "ledger");
    assert!(ledger.cut_at.is_some() && ledger.snapshot_class.as_deref() == Some("copies"), "{ledger:?}");
    assert_eq!(volume(&status, "data").snapshot_class, None);
    assert_eq!(status.consistency.as_ref().unwrap().level, ConsistencyLevel::ApplicationConsistent);
    let stages: Vec<&str> = status.stages.iter().map(|stage| stage.stage.as_str()).collect();
    let expected = ["Preparing", "PreExecRule", "Volumes", "PostExecRule", "Volumes", "Resources", "Publishing"];
    assert_eq!(stages, expected);
    nothing_is_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_say_how_volumes_are_read() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    let operator = world.operator();
    let of =
        |class: &str, action| VolumePolicy { storage_classes: vec![class.into()], action, ..VolumePolicy::default() };

    world.backup_with("copied", |spec| spec.volume_policies = vec![of(SNAPSHOTTED, VolumeAction::Copy)]).await;
    let status = world.finished("copied").await.status.unwrap();
    assert_eq!((status.phase, volume(&status, "ledger").snapshot_class.as_ref()), (Phase::Succeeded, None));
    assert_eq!(status.consistency.unwrap().level, ConsistencyLevel::NotConsistent);

    world.backup_with("skipped", |spec| spec.volume_policies = vec![of(kubelet::CLASS, VolumeAction::Skip)]).await;
    let status = world.finished("skipped").await.status.unwrap();
    assert_eq!((status.phase, volume(&status, "data").stage), (Phase::Succeeded, VolumeStage::Skipped));
    assert_eq!(volume(&status, "data").reason.as_deref(), Some("volume-policy-skips-it"));
    assert_eq!(
        status.consistency.as_ref().unwrap().level,
        ConsistencyLevel::CrashConsistent,
        "one snapshot is of one instant"
    );

    world.backup_with("wanted", |spec| spec.volume_policies = vec![of(kubelet::CLASS, VolumeAction::Snapshot)]).await;
    let status = world.finished("wanted").await.status.unwrap();
    assert_eq!((status.phase, volume(&status, "data").stage), (Phase::Incomplete, VolumeStage::Missed));
    assert!(volume(&status, "data").reason.as_ref().unwrap().contains("no VolumeSnapshotClass"));

    world
        .backup_with("wrong", |spec| drop(spec.csi_snapshot_class_map.insert(kubelet::DRIVER.into(), "gone".into())))
        .await;
    let status = world.finished("wrong").await.status.unwrap();
    assert!(volume(&status, "ledger").reason.as_ref().unwrap().contains("there is no VolumeSnapshotClass gone"));
    nothing_is_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_taken_is_missed_with_the_words_of_the_driver() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    world.kubelet.refuse_snapshots("the pool is full");
    let operator = world.operator();
    world.backup("b").await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!((status.phase, volume(&status, "data").stage), (Phase::Incomplete, VolumeStage::Done), "{status:#?}");
    let reason = volume(&status, "ledger").reason.clone().unwrap();
    assert!(reason.contains("no snapshot was taken") && reason.contains("the pool is full"), "{reason}");
    nothing_is_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_fails_reads_the_same_snapshot_again() {
    sandbox::require_assets!();
    let (world, folder) = ready().await;
    let book = folder.join("book");
    world.kubelet.script(move |pod| {
        // The second volume in the order of their names is the one of which there is a snapshot.
        if pod.name_any().ends_with("-b1-1") {
            std::fs::write(&book, "written after the cut").unwrap();
            return Behaviour::Evict;
        }
        Behaviour::Run
    });
    let operator = world.operator();
    world.backup("b").await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let ledger = volume(&status, "ledger");
    assert_eq!((ledger.attempts, bytes(&world, &status, "ledger").await), (2, 6));
    nothing_is_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_snapshot_survives_the_death_of_its_operator_at_every_write() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    let crashes = Crashes::new(&world).await;
    let begin = async |name: &str| drop(world.backup(name).await);
    let end = async |name: &str| {
        world.finished(name).await;
        world.let_go(name).await;
    };
    let check = async |name: &str, how: &str| {
        let status = world.finished(name).await.status.unwrap();
        assert_eq!((status.phase, bytes(&world, &status, "ledger").await), (Phase::Succeeded, 6), "{how}: {status:#?}");
        until(&format!("{how}: nothing to be left"), || async {
            (world.left_behind().await.is_empty() && world.snapshots().await.is_empty()).then_some(())
        })
        .await;
    };
    crashes.everywhere(5, begin, end, check).await;
}
