//! What is data in a snapshot of a replicated volume, and what has changed since an older one, as a backup asks for it on any node.

use crate::snapshots::take;
use crate::world::{World, attach, detach, make, new_volume, until, write};
use api::VolumeRecord;
use csi::{Kind, Secret, Volumes};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

const BLOCK: u64 = 4096;

/// The blocks that a node tells, from a byte on.
async fn told(
    world: &World,
    i: usize,
    of: &'static str,
    since: Option<&'static str>,
    start: u64,
) -> Result<Vec<u64>, csi::Error> {
    world
        .ask(i, move |volumes| {
            let mut blocks = Vec::new();
            let mut tell = |ranges: Vec<csi::Range>| {
                assert!(ranges.iter().all(|range| range.length > 0));
                let ends =
                    ranges.into_iter().map(|range| (range.offset / BLOCK, (range.offset + range.length) / BLOCK));
                blocks.extend(ends.flat_map(|(first, end)| first..end));
                true
            };
            volumes.ranges(of, since, start, &mut tell).map(|()| blocks)
        })
        .await
}

async fn write_all(device: &std::path::Path, blocks: &[u64]) {
    for block in blocks {
        write(device, *block, 7).await.unwrap();
    }
}

fn secret() -> Secret {
    Secret::new(b"open barley".to_vec())
}

/// With a replica and without one, encrypted, and while the volume grows.
#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_exactly_what_was_written() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    skips::require_block_devices!();
    let world = World::new(3).await;
    world.ask(0, |volumes| volumes.create(new_volume("pvc-1", 2), Some(&secret()))).await.unwrap();
    let device = world.ask(0, |volumes| volumes.attach("pvc-1", Some(&secret()))).await.unwrap();
    take(&world, 2, "pvc-1@empty").await.unwrap();
    write_all(&device, &[1, 2, 500]).await;
    take(&world, 1, "pvc-1@a").await.unwrap();
    write_all(&device, &[2, 3, 4000]).await;
    take(&world, 2, "pvc-1@b").await.unwrap();
    world.ask(0, |volumes| volumes.grow("pvc-1", 32 << 20)).await.unwrap();
    write_all(&device, &[3, 8000]).await;
    take(&world, 0, "pvc-1@c").await.unwrap();
    write_all(&device, &[5]).await;
    for i in 0..3 {
        let told = async |of, since, start| told(&world, i, of, since, start).await.unwrap();
        assert_eq!(told("pvc-1@empty", None, 0).await, [0; 0]);
        assert_eq!(told("pvc-1@a", None, 0).await, [1, 2, 500], "node {i}");
        assert_eq!(told("pvc-1@c", None, 3 * BLOCK).await, [3, 500, 4000, 8000], "node {i}");
        assert_eq!(told("pvc-1@b", Some("pvc-1@a"), 0).await, [2, 3, 4000], "node {i}");
        assert_eq!(told("pvc-1@b", Some("pvc-1@a"), 3 * BLOCK + 1).await, [3, 4000], "node {i}");
        assert_eq!(told("pvc-1@c", Some("pvc-1@a"), 0).await, [2, 3, 4000, 8000], "node {i}");
        assert_eq!(told("pvc-1@c", Some("pvc-1@b"), 16 << 20).await, [8000], "node {i}");
        assert_eq!(told("pvc-1@b", Some("pvc-1@a"), 16 << 20).await, [0; 0], "it ends there");
    }
    // What there is no way between.
    make(&world, 1, "pvc-2", 2).await;
    take(&world, 1, "pvc-2@a").await.unwrap();
    for (since, kind, said) in [
        ("pvc-1@b", Kind::Precondition, "does not come from"),
        ("pvc-2@a", Kind::Invalid, "no snapshot of pvc-1"),
        ("pvc-1@gone", Kind::NotFound, "no snapshot pvc-1@gone"),
    ] {
        let error = told(&world, 2, "pvc-1@a", Some(since), 0).await.unwrap_err();
        assert!(error.kind == kind && error.story.contains(said), "{since}: {error}");
    }
    detach(&world, 0, "pvc-1").await;
    assert_eq!(told(&world, 2, "pvc-1@b", Some("pvc-1@a"), 0).await.unwrap(), [2, 3, 4000], "nobody serves it");
    world.end().await;
}

/// What a replica does not have that was built later is told by one that does; and by nobody when that is away.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_does_not_have_that_was_built_later_is_told_by_another() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    skips::require_block_devices!();
    let mut world = World::new(3).await;
    make(&world, 0, "pvc-1", 2).await;
    let device = attach(&world, 0, "pvc-1").await.unwrap();
    write_all(&device, &[1, 2]).await;
    take(&world, 0, "pvc-1@a").await.unwrap();
    let other =
        world.members().await.iter().find(|(node, _)| node != "node-0").map(|(node, _)| world.index(node)).unwrap();
    let third = 3 - other;
    world.stop(other).await;
    write_all(&device, &[3]).await;
    until("a replica in place of the one that is gone", async || {
        let members = world.members().await;
        members.len() == 2 && members.contains(&(format!("node-{third}"), true))
    })
    .await;
    write_all(&device, &[4]).await;
    take(&world, third, "pvc-1@b").await.unwrap();
    write_all(&device, &[5]).await;
    let changed = async |world: &World| told(world, third, "pvc-1@b", Some("pvc-1@a"), 0).await;
    assert_eq!(changed(&world).await.unwrap(), [3, 4], "it asks the node that has both");
    let has_all = |blocks: &[u64]| (1..=4).all(|block| blocks.contains(&block)) && blocks.len() < 20;
    let data = told(&world, third, "pvc-1@b", None, 0).await.unwrap();
    assert!(has_all(&data), "{data:?}");
    detach(&world, 0, "pvc-1").await;
    world.stop(0).await;
    let away = changed(&world).await.unwrap_err();
    assert!(away.kind == Kind::Busy && away.story.contains("node-0") && away.story.contains("ask again"), "{away}");
    let data = told(&world, third, "pvc-1@b", None, 0).await.unwrap();
    assert!(has_all(&data), "what it has itself it tells alone: {data:?}");
    world.start(0).await;
    until("the node to be found where it is now", async || changed(&world).await.is_ok()).await;
    assert_eq!(changed(&world).await.unwrap(), [3, 4]);
    // As it is when all that had the first are gone: what the record does not say is not asked for, though node 0 has it.
    let record = world.records().await.remove(0);
    let is_third = |member: &&api::RecordMember| member.node == format!("node-{third}");
    let replica = record.spec.members.iter().find(is_third).unwrap().replica.clone();
    let mut snapshots = record.spec.snapshots.clone();
    let taken = snapshots.iter_mut().filter_map(|snapshot| snapshot.taken.as_mut());
    let mut by_two = taken.filter(|taken| taken.holders.len() == 2);
    by_two.next().unwrap().holders = vec![replica];
    let patch = Patch::Merge(json!({"spec": {"snapshots": snapshots}}));
    let records: Api<VolumeRecord> = Api::all(world.client.clone());
    records.patch(&record.name_any(), &PatchParams::default(), &patch).await.unwrap();
    let none = changed(&world).await.unwrap_err();
    assert!(none.kind == Kind::Precondition && none.story.contains("no replica has both"), "{none}");
    world.end().await;
}
