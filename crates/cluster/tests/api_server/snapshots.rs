//! Snapshots, clones and growth of replicated volumes, as the CSI driver of a node asks for them.

use crate::world::{World, attach, detach, make, new_volume, read, until, write};
use api::VolumeRecord;
use csi::{Kind, Labels, Snapshot, SnapshotState, Volumes};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

pub(crate) async fn take(world: &World, i: usize, id: &'static str) -> Result<Snapshot, csi::Error> {
    let labels = Labels::from([("purpose".to_owned(), "test".to_owned())]);
    world.ask(i, move |volumes| volumes.snapshot(&[id.to_owned()], &labels)).await.map(|mut taken| taken.remove(0))
}

async fn held(world: &World) -> usize {
    (0..world.machines.len()).map(|i| world.node(i).held_snapshots().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_cloned_and_deleted() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    skips::require_block_devices!();
    let world = World::new(3).await;
    make(&world, 0, "pvc-1", 2).await;
    // Nobody uses the volume: the node that is asked serves it for the moment.
    let empty = take(&world, 2, "pvc-1@empty").await.unwrap();
    assert!(empty.state == SnapshotState::Ready && empty.bytes == 16 << 20 && empty.volume == "pvc-1", "{empty:?}");
    assert!(world.records().await[0].spec.attached.is_none(), "it was given back");
    let device = attach(&world, 0, "pvc-1").await.unwrap();
    write(&device, 3, 3).await.unwrap();
    let taken = take(&world, 1, "pvc-1@s").await.unwrap();
    write(&device, 3, 4).await.unwrap();
    assert_eq!(take(&world, 2, "pvc-1@s").await.unwrap(), Snapshot { is_asked_here: false, ..taken.clone() });
    let other = world.ask(0, |volumes| volumes.snapshot(&["pvc-1@s".into()], &Labels::new())).await.unwrap_err();
    assert_eq!(other.kind, Kind::Exists, "{other}");
    let all = world.ask(0, |volumes| volumes.snapshots()).await.unwrap();
    assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["pvc-1@empty", "pvc-1@s"]);
    until("each replica to have both, and nothing else", async || held(&world).await == 4).await;
    // A volume begins as it, and is used elsewhere.
    let clone = world.ask(1, |volumes| volumes.clone_snapshot("pvc-1@s", new_volume("pvc-2", 2))).await.unwrap();
    assert_eq!((clone.bytes, clone.replicas), (16 << 20, 2));
    let one = world.ask(1, |volumes| volumes.clone_snapshot("pvc-1@s", new_volume("pvc-3", 1))).await.unwrap_err();
    assert!(one.kind == Kind::Invalid && one.story.contains("class like that of its source"), "{one}");
    let gone = world.ask(1, |volumes| volumes.clone_snapshot("pvc-1@t", new_volume("pvc-3", 2))).await.unwrap_err();
    assert_eq!(gone.kind, Kind::NotFound, "{gone}");
    let kept = world.ask(0, |volumes| volumes.delete("pvc-1")).await.unwrap_err();
    assert_eq!(kept.kind, Kind::Precondition, "{kept}");
    for id in ["pvc-1@empty", "pvc-1@s", "pvc-1@s"] {
        world.ask(2, move |volumes| volumes.delete_snapshot(id)).await.unwrap();
    }
    until("what is deleted to be in no pool any more", async || held(&world).await == 0).await;
    let cloned = attach(&world, 1, "pvc-2").await.unwrap();
    assert_eq!((read(&cloned, 3).await, read(&device, 3).await), (3, 4));
    write(&cloned, 3, 5).await.unwrap();
    assert_eq!(read(&device, 3).await, 4);
    detach(&world, 1, "pvc-2").await;
    detach(&world, 0, "pvc-1").await;
    for id in ["pvc-1", "pvc-2"] {
        world.ask(0, move |volumes| volumes.delete(id)).await.unwrap();
    }
    until("the volumes to go", async || world.records().await.is_empty()).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_no_pool_has_any_more_is_told_as_lost() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let world = World::new(2).await;
    make(&world, 0, "pvc-1", 2).await;
    take(&world, 0, "pvc-1@s").await.unwrap();
    // As it is when the pools of all that took it are gone, and later replicas have the volume.
    let record = world.records().await.remove(0);
    let mut snapshots = json!(record.spec.snapshots);
    snapshots[0]["taken"]["holders"] = json!([]);
    let patch = Patch::Merge(json!({"spec": {"snapshots": snapshots}}));
    let records: Api<VolumeRecord> = Api::all(world.client.clone());
    records.patch(&record.name_any(), &PatchParams::default(), &patch).await.unwrap();
    let all = world.ask(1, |volumes| volumes.snapshots()).await.unwrap();
    assert_eq!(all.iter().map(|one| one.state).collect::<Vec<_>>(), [SnapshotState::Lost]);
    let again = take(&world, 0, "pvc-1@s").await.unwrap_err();
    assert!(again.kind == Kind::Damaged && again.story.contains("is lost with the pools"), "{again}");
    let clone = world.ask(0, |volumes| volumes.clone_snapshot("pvc-1@s", new_volume("pvc-2", 2))).await.unwrap_err();
    assert!(clone.kind == Kind::Damaged && world.volume("pvc-2").await.is_none(), "{clone}");
    world.ask(1, |volumes| volumes.delete_snapshot("pvc-1@s")).await.unwrap();
    until("it to be gone", async || world.records().await[0].spec.snapshots.is_empty()).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_while_it_is_used_and_while_it_is_not() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    skips::require_block_devices!();
    let world = World::new(2).await;
    make(&world, 0, "pvc-1", 2).await;
    let device = attach(&world, 0, "pvc-1").await.unwrap();
    assert!(write(&device, 6000, 1).await.is_err(), "beyond the end");
    let grown = world.ask(0, |volumes| volumes.grow("pvc-1", 32 << 20)).await.unwrap();
    assert_eq!(grown.bytes, 32 << 20);
    write(&device, 6000, 1).await.unwrap();
    let again = world.ask(0, |volumes| volumes.grow("pvc-1", 32 << 20)).await.unwrap();
    assert_eq!(again, grown);
    detach(&world, 0, "pvc-1").await;
    let grown = world.ask(1, |volumes| volumes.grow("pvc-1", 48 << 20)).await.unwrap();
    assert_eq!(grown.bytes, 48 << 20);
    let device = attach(&world, 1, "pvc-1").await.unwrap();
    write(&device, 12_000, 2).await.unwrap();
    assert_eq!(read(&device, 6000).await, 1);
    detach(&world, 1, "pvc-1").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_a_volume_is_made_from_is_not_deleted() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let mut world = World::new(2).await;
    make(&world, 0, "pvc-1", 2).await;
    take(&world, 0, "pvc-1@s").await.unwrap();
    // Nobody makes replicas of the new volume.
    world.cut_off(0).await;
    world.cut_off(1).await;
    let clone = world.ask(0, |volumes| volumes.clone_snapshot("pvc-1@s", new_volume("pvc-2", 2)));
    let delete = async {
        until("the new volume to be asked for", async || world.volume("pvc-2").await.is_some()).await;
        world.ask(1, |volumes| volumes.delete_snapshot("pvc-1@s")).await
    };
    let (made, deleted) = tokio::join!(clone, delete);
    let refused = deleted.unwrap_err();
    assert!(refused.kind == Kind::Busy && refused.story.contains("is being made into pvc-2"), "{refused}");
    assert!(made.is_err(), "no replica of it was made");
    world.end().await;
}
