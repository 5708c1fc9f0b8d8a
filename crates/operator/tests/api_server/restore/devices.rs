//! Claims for block devices: stored as images, and filled from them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use api::{ApplicationBackupStatus, ApplicationRestoreStatus, ConsistencyLevel, Phase, PlannedAction, VolumeStage};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use repository::{RecoveryPoint, RootKind};
use serde_json::json;

use super::transforms::transformation;
use super::{assert_nothing_left, namespace_exists, over, ready, reason, restore_with};
use crate::support::kubelet::{Behaviour, CLASS, DEVICE, SNAPSHOTTED, volume_dir};
use crate::support::{ADMIN, SHOP, World, claim_manifest, until};

const BYTES: u64 = 16 << 20;

/// A claim for a device with something on it; the file that is the device.
async fn device(world: &World, name: &str, class: &str) -> PathBuf {
    let mut claim = claim_manifest(name);
    claim["spec"]["volumeMode"] = "Block".into();
    claim["spec"]["storageClassName"] = class.into();
    claim["spec"]["resources"]["requests"]["storage"] = "16Mi".into();
    world.create::<PersistentVolumeClaim>(SHOP, claim).await;
    world.bound(SHOP, name).await;
    let device = volume_dir(&world.client, SHOP, name).await.unwrap().join(DEVICE);
    write(&device, b"a label", 0);
    write(&device, &[7; 70_000], 5 << 20);
    device
}

fn write(device: &PathBuf, bytes: &[u8], offset: u64) {
    File::options().write(true).open(device).unwrap().write_all_at(bytes, offset).unwrap();
}

async fn backed_up(world: &World, name: &str) -> (ApplicationBackupStatus, RecoveryPoint) {
    world.backup(name).await;
    let status = world.finished(name).await.status.unwrap();
    let id = status.recovery_point.clone().unwrap().parse().unwrap();
    (status, world.repository().await.point(&id).await.unwrap())
}

async fn restored(
    world: &World,
    name: &str,
    point: &RecoveryPoint,
    transform: Option<&str>,
) -> ApplicationRestoreStatus {
    begin(world, name, point, transform, false).await;
    over(world, name).await
}

async fn begin(world: &World, name: &str, point: &RecoveryPoint, transform: Option<&str>, plans: bool) {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some(point.id.to_string());
        spec.namespace_mapping = [(SHOP.to_owned(), name.to_owned())].into();
        spec.transforms = transform.iter().map(|name| (*name).to_owned()).collect();
        spec.plan_only = plans;
        spec.accept_incomplete = true;
    })
    .await;
}

async fn device_of(world: &World, namespace: &str, claim: &str) -> Vec<u8> {
    let found = world.api::<PersistentVolumeClaim>(namespace).get(claim).await.unwrap().spec.unwrap();
    assert_eq!(found.volume_mode.as_deref(), Some("Block"));
    fs::read(volume_dir(&world.client, namespace, claim).await.unwrap().join(DEVICE)).unwrap()
}

/// The movers of one direction that were started so far.
fn movers(world: &World, direction: &str) -> Vec<Pod> {
    let is = |pod: &Pod| pod.name_any().split('-').nth(2).is_some_and(|part| part.starts_with(direction));
    world.kubelet.started().into_iter().filter(is).collect()
}

fn assert_least_rights(movers: &[Pod]) {
    assert!(!movers.is_empty());
    for pod in movers {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let security = container.security_context.clone().unwrap();
        assert_eq!(security.privileged, Some(false));
        assert_eq!(security.capabilities.unwrap().add, Some(vec!["DAC_OVERRIDE".to_owned()]));
        assert_eq!(container.volume_devices.as_ref().map(Vec::len), Some(1));
        assert!(container.volume_mounts.iter().flatten().all(|mount| mount.name != "volume"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_stored_as_an_image_and_another_one_filled_with_it() {
    sandbox::require_assets!();
    let world = ready().await;
    let source = device(&world, "disk", CLASS).await;
    let operator = world.operator();
    let (status, point) = backed_up(&world, "first").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let volume = &status.volumes[0];
    assert!(volume.image && volume.snapshot_class.is_none(), "{volume:?}");
    assert_eq!((volume.files, volume.bytes, volume.changed_while_read), (None, Some(BYTES), None));
    // It was read while whoever has it could write to it.
    assert_eq!(status.consistency.unwrap().level, ConsistencyLevel::NotConsistent);
    let root = point.root("shop/disk").unwrap();
    assert_eq!((root.kind, root.files, root.bytes, point.stats.bytes), (RootKind::Volume, 0, BYTES, BYTES));
    assert!(point.complete && point.stats.new_bytes < BYTES, "zeros take no room: {:?}", point.stats);
    assert_least_rights(&movers(&world, "b"));

    write(&source, b"another", 9 << 20);
    let (again, second) = backed_up(&world, "second").await;
    assert_eq!(again.phase, Phase::Succeeded);
    assert!(second.stats.new_bytes < 200_000, "only what has changed is new: {:?}", second.stats);
    begin(&world, "planned", &second, None, true).await;
    let plan = over(&world, "planned").await.plan.unwrap();
    assert_eq!((plan.files, plan.bytes), (0, BYTES));
    assert_eq!((plan.volumes[0].action, plan.volumes[0].image), (PlannedAction::Create, true));

    // The first mover did everything and nobody heard of it: the next one writes over it.
    world.kubelet.script(|pod| match pod.name_any().ends_with("-1") {
        true => Behaviour::RunUnheard,
        false => Behaviour::Run,
    });
    let status = restored(&world, "elsewhere", &second, None).await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    let volume = &status.volumes[0];
    assert!(volume.image && volume.attempts == 2, "{volume:?}");
    assert_eq!((volume.stage, volume.files, volume.bytes), (VolumeStage::Done, None, Some(BYTES)));
    assert!(device_of(&world, "elsewhere", "disk").await == fs::read(&source).unwrap(), "the bytes are others");
    assert_least_rights(&movers(&world, "r"));
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_device_is_read_as_a_device() {
    sandbox::require_assets!();
    let world = ready().await;
    world.install_snapshots().await;
    let source = device(&world, "disk", SNAPSHOTTED).await;
    let before = fs::read(&source).unwrap();
    let written = source.clone();
    // By the time that a mover runs, the application has gone on.
    world.kubelet.script(move |_| {
        write(&written, b"later", 1 << 20);
        Behaviour::Run
    });
    let operator = world.operator();
    let (status, point) = backed_up(&world, "first").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert!(status.volumes[0].cut_at.is_some() && status.volumes[0].image, "{status:#?}");
    assert_eq!(status.consistency.unwrap().level, ConsistencyLevel::CrashConsistent);
    assert!(fs::read(&source).unwrap() != before, "it was written to meanwhile");
    let status = restored(&world, "elsewhere", &point, None).await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert!(device_of(&world, "elsewhere", "disk").await == before, "it is not as it was when the snapshot was taken");
    assert_nothing_left(&world).await;
    assert_eq!(world.snapshots().await, Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_held_data_before_must_not_be_all_zeros_now() {
    sandbox::require_assets!();
    let world = ready().await;
    let source = device(&world, "disk", CLASS).await;
    device(&world, "blank", CLASS).await;
    let blank = volume_dir(&world.client, SHOP, "blank").await.unwrap().join(DEVICE);
    fs::write(&blank, vec![0; 1 << 20]).unwrap();
    let operator = world.operator();
    let (status, full) = backed_up(&world, "full").await;
    assert_eq!(status.phase, Phase::Succeeded, "a device that never held anything is no loss: {status:#?}");
    fs::write(&source, vec![0; 16 << 20]).unwrap();
    let (status, _) = backed_up(&world, "wiped").await;
    assert_eq!(status.phase, Phase::Incomplete);
    let missed = |claim: &str| status.volumes.iter().find(|v| v.claim == claim).unwrap().reason.clone();
    let why = missed("disk").unwrap();
    assert!(why.contains(full.id.as_str()) && why.contains("all zeros now"), "{why}");
    assert_eq!(missed("blank"), None);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_not_put_where_it_does_not_fit() {
    sandbox::require_assets!();
    let world = ready().await;
    device(&world, "disk", CLASS).await;
    world.application().await;
    let claims = |change| json!([{"resource": "v1/PersistentVolumeClaim", "mergePatch": change}]);
    transformation(&world, "files", claims("spec: {volumeMode: Filesystem}")).await;
    transformation(&world, "devices", claims("spec: {volumeMode: Block}")).await;
    let small = json!([{"resource": "v1/PersistentVolumeClaim", "names": ["disk"],
        "mergePatch": "spec: {resources: {requests: {storage: 8Mi}}}"}]);
    transformation(&world, "small", small).await;
    let operator = world.operator();
    let (_, point) = backed_up(&world, "first").await;
    for (transform, said) in [("files", "has an image of a block device"), ("devices", "has files")] {
        for plans in [true, false] {
            let name = format!("{transform}-{plans}");
            begin(&world, &name, &point, Some(transform), plans).await;
            let status = over(&world, &name).await;
            assert_eq!((status.phase, reason(&status)), (Phase::Failed, "VolumeModeDiffers"), "{status:#?}");
            assert!(status.message.as_ref().unwrap().contains(said), "{:?}", status.message);
            assert!(!namespace_exists(&world, &name).await, "a refused restore made something");
        }
    }
    let status = restored(&world, "small", &point, Some("small")).await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "VolumesMissed"), "{status:#?}");
    let volume = status.volumes.iter().find(|v| v.claim == "disk").unwrap();
    let why = volume.reason.clone().unwrap();
    assert_eq!((volume.stage, volume.attempts), (VolumeStage::Missed, 1), "it will not do better again");
    assert!(why.contains("8388608 bytes") && why.contains("needs 16777216"), "{why}");
    let made = world.api::<PersistentVolumeClaim>("small");
    assert!(made.get_opt("disk").await.unwrap().is_none(), "it was handed over");
    made.get("data").await.unwrap();
    world.api::<ConfigMap>("small").get("settings").await.unwrap();
    until("the temporary claim to go", || async { world.left_behind().await.is_empty().then_some(()) }).await;
    world.events(ADMIN, "small", &["VolumeMissed"]).await;
    operator.stop().await;
}
