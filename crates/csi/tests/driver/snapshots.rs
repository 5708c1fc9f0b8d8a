//! Snapshots, and what is made from them.

use crate::steps::Site;
use crate::world::{MIB, World, from_snapshot, from_volume, map, mounted, refused, request, require, write};
use csi::proto::volume_capability::access_mode::Mode;
use csi::proto::{self, ListSnapshotsRequest};
use std::fs;
use tonic::Code;

fn ids(told: &proto::ListSnapshotsResponse) -> Vec<String> {
    told.entries.iter().map(|entry| entry.snapshot.clone().unwrap().snapshot_id).collect()
}

async fn list(world: &mut World, asked: ListSnapshotsRequest) -> proto::ListSnapshotsResponse {
    world.controller.list_snapshots(asked).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_once_and_its_name_is_of_one_volume() {
    require!();
    let mut world = World::new(&[100]).await;
    for name in ["a", "b"] {
        world.create(name, 8).await;
    }
    let taken = world.snapshot("a", "s").await.unwrap();
    assert_eq!((taken.snapshot_id.as_str(), taken.source_volume_id.as_str()), ("a@s", "a"));
    assert!(taken.ready_to_use && taken.size_bytes == 8 * MIB && taken.creation_time.unwrap().seconds > 1_700_000_000);
    assert_eq!(world.snapshot("a", "s").await.unwrap(), taken);
    refused(world.snapshot("b", "s").await, Code::AlreadyExists, "it is of the volume a");
    refused(world.snapshot("gone", "t").await, Code::NotFound, "no volume gone");
    refused(world.snapshot("", "t").await, Code::InvalidArgument, "source_volume_id");
    refused(world.snapshot("a", "").await, Code::InvalidArgument, "name");
    let long = world.snapshot("a", &"x".repeat(128)).await.unwrap();
    assert_eq!(world.snapshot("a", &"x".repeat(128)).await.unwrap(), long);
    let odd = proto::CreateSnapshotRequest {
        source_volume_id: "a".into(),
        name: "t".into(),
        parameters: map(&[("compress", "yes")]),
        ..Default::default()
    };
    refused(world.controller.create_snapshot(odd).await, Code::InvalidArgument, "compress");
    world.snapshot("b", "sb").await.unwrap();

    let all = list(&mut world, ListSnapshotsRequest::default()).await;
    assert_eq!(ids(&all), [long.snapshot_id.as_str(), "a@s", "b@sb"]);
    let first = list(&mut world, ListSnapshotsRequest { max_entries: 2, ..Default::default() }).await;
    let rest = list(&mut world, ListSnapshotsRequest { starting_token: first.next_token, ..Default::default() }).await;
    assert_eq!((ids(&rest), rest.next_token.as_str()), (vec!["b@sb".to_owned()], ""));
    let of_b = ListSnapshotsRequest { source_volume_id: "b".into(), ..Default::default() };
    assert_eq!(ids(&list(&mut world, of_b).await), ["b@sb"]);
    let one = ListSnapshotsRequest { snapshot_id: "a@s".into(), ..Default::default() };
    assert_eq!(list(&mut world, one).await.entries[0].snapshot, Some(taken.clone()));
    for gone in [
        ListSnapshotsRequest { snapshot_id: "none".into(), ..Default::default() },
        ListSnapshotsRequest { source_volume_id: "none".into(), ..Default::default() },
    ] {
        assert_eq!(list(&mut world, gone).await.entries, []);
    }
    let wrong = ListSnapshotsRequest { starting_token: "x".into(), ..Default::default() };
    refused(world.controller.list_snapshots(wrong).await, Code::Aborted, "starting_token");

    let get = |id: &str| proto::GetSnapshotRequest { snapshot_id: id.into(), ..Default::default() };
    assert_eq!(world.controller.get_snapshot(get("a@s")).await.unwrap().into_inner().snapshot, Some(taken));
    refused(world.controller.get_snapshot(get("a@t")).await, Code::NotFound, "a@t");
    let delete = |id: &str| proto::DeleteSnapshotRequest { snapshot_id: id.into(), ..Default::default() };
    for id in ["a@s", "a@s", "never-there", "@", "a@", "x@y"] {
        world.controller.delete_snapshot(delete(id)).await.unwrap();
    }
    refused(world.controller.delete_snapshot(delete("")).await, Code::InvalidArgument, "snapshot_id");
    assert_eq!(ids(&list(&mut world, ListSnapshotsRequest::default()).await).len(), 2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_not_deleted_while_it_is_taken_nor_told_of_while_it_is_deleted() {
    require!();
    let site = Site::new(false).await;
    let mut life = site.live(None).await;
    // Its id is not its name.
    let create = proto::CreateSnapshotRequest {
        source_volume_id: "source".into(),
        name: "of Monday".into(),
        ..Default::default()
    };
    let taken = life.controller.create_snapshot(create.clone()).await.unwrap().into_inner().snapshot.unwrap();
    let id = taken.snapshot_id;
    let delete = proto::DeleteSnapshotRequest { snapshot_id: id.clone(), ..Default::default() };
    life.controller.delete_snapshot(delete.clone()).await.unwrap();

    let begun = life.fuse.steps();
    let held = life.fuse.hold().await;
    let (mut controller, asked) = (life.controller.clone(), create.clone());
    let taking = tokio::spawn(async move { controller.create_snapshot(asked).await });
    life.fuse.has_begun(begun + 1).await;
    refused(life.controller.delete_snapshot(delete.clone()).await, Code::Aborted, &id);
    drop(held);
    taking.await.unwrap().unwrap();

    let held = life.fuse.hold().await;
    let (mut controller, asked) = (life.controller.clone(), delete);
    let deleting = tokio::spawn(async move { controller.delete_snapshot(asked).await });
    life.fuse.has_begun(begun + 2).await;
    refused(life.controller.create_snapshot(create.clone()).await, Code::Aborted, &id);
    drop(held);
    deleting.await.unwrap().unwrap();
    assert_eq!(life.controller.create_snapshot(create).await.unwrap().into_inner().snapshot.unwrap().snapshot_id, id);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_outlive_their_volume_and_are_not_taken_for_those_of_another() {
    require!();
    let mut world = World::new(&[100]).await;
    world.create("a", 8).await;
    world.snapshot("a", "s").await.unwrap();
    world.delete("a").await.unwrap();
    refused(world.controller.create_volume(request("a", 8)).await, Code::AlreadyExists, "delete them first");
    let mut clone = request("b", 8);
    clone.volume_content_source = from_snapshot("a@s");
    let made = world.controller.create_volume(clone.clone()).await.unwrap().into_inner().volume.unwrap();
    let delete = proto::DeleteSnapshotRequest { snapshot_id: "a@s".into(), ..Default::default() };
    world.controller.delete_snapshot(delete).await.unwrap();
    // What it was made from is gone, and it is what it was.
    assert_eq!(world.controller.create_volume(clone).await.unwrap().into_inner().volume.unwrap(), made);
    assert_eq!(made.content_source, from_snapshot("a@s"));
    world.create("a", 8).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_have_the_files_and_the_size_that_was_asked_for() {
    require!("mkfs.ext4", "mkfs.xfs", "resize2fs", "xfs_growfs");
    for (fs, mib) in [("ext4", 32), ("xfs", 320)] {
        let mut world = World::new(&[1500]).await;
        let usage = || mounted(fs, Mode::SingleNodeWriter);
        let mut asked = request("a", mib);
        asked.volume_capabilities = vec![usage()];
        world.controller.create_volume(asked.clone()).await.unwrap();
        world.stage("a", usage()).await.unwrap();
        write(&world.staging("a"), "f", b"first");
        world.snapshot("a", "s").await.unwrap();
        write(&world.staging("a"), "f", b"second");

        // Larger than the source: its file system is, too.
        for (name, source) in [("of-snapshot", from_snapshot("a@s")), ("of-volume", from_volume("a"))] {
            let mut clone = asked.clone();
            clone.name = name.into();
            clone.volume_content_source = source;
            clone.capacity_range.as_mut().unwrap().required_bytes = 2 * mib * MIB;
            let made = world.controller.create_volume(clone).await.unwrap().into_inner().volume.unwrap();
            assert_eq!(made.capacity_bytes, 2 * mib * MIB);
            world.stage(name, usage()).await.unwrap();
            let room = rustix::fs::statvfs(world.staging(name)).unwrap();
            assert!(
                room.f_blocks * room.f_frsize > u64::try_from(mib * 3 / 2 * MIB).unwrap(),
                "{fs}: {} blocks",
                room.f_blocks
            );
        }
        let read = |name: &str| fs::read(format!("{}/f", world.staging(name))).unwrap();
        assert_eq!((read("of-snapshot"), read("of-volume")), (b"first".to_vec(), b"second".to_vec()));
        // What was taken for the clone alone is gone.
        assert_eq!(ids(&list(&mut world, ListSnapshotsRequest::default()).await), ["a@s"]);
        for name in ["a", "of-snapshot", "of-volume"] {
            world.unstage(name).await.unwrap();
        }
        let mut small = asked.clone();
        (small.name, small.volume_content_source) = ("small".into(), from_snapshot("a@s"));
        small.capacity_range = Some(proto::CapacityRange { required_bytes: MIB, limit_bytes: (mib - 1) * MIB });
        refused(world.controller.create_volume(small).await, Code::OutOfRange, "as the source has");
        source_elsewhere(&mut world, asked).await;
        world.end().await;
    }
}

/// A source that is not here is told of in two ways: to who has chosen this node, so that another one is chosen.
async fn source_elsewhere(world: &mut World, mut asked: proto::CreateVolumeRequest) {
    asked.name = "far".into();
    for source in [from_snapshot("a@gone"), from_volume("gone")] {
        asked.volume_content_source = source;
        asked.accessibility_requirements = None;
        refused(world.controller.create_volume(asked.clone()).await, Code::NotFound, "gone");
        let here = proto::Topology { segments: map(&[("topology.volumes.orlop.io/node", "here")]) };
        asked.accessibility_requirements =
            Some(proto::TopologyRequirement { requisite: vec![here.clone()], preferred: vec![here] });
        let told = world.controller.create_volume(asked.clone()).await;
        refused(told, Code::ResourceExhausted, "on the node of its source");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_as_encrypted_as_its_source() {
    require!("mkfs.ext4");
    let mut world = World::new(&[200]).await;
    let secret = || map(&[("passphrase", "long and secret")]);
    let mut encrypted = request("e", 16);
    (encrypted.parameters, encrypted.secrets) = (map(&[("secure", "true")]), secret());
    world.controller.create_volume(encrypted.clone()).await.unwrap();
    world.snapshot("e", "s").await.unwrap();
    world.create("clear", 16).await;
    let mut clone = request("c", 16);
    clone.volume_content_source = from_snapshot("e@s");
    refused(world.controller.create_volume(clone.clone()).await, Code::InvalidArgument, "names no secret");
    encrypted.name = "d".into();
    encrypted.volume_content_source = from_volume("clear");
    refused(world.controller.create_volume(encrypted).await, Code::InvalidArgument, "in clear");
    (clone.parameters, clone.secrets) = (map(&[("secure", "true")]), secret());
    world.controller.create_volume(clone).await.unwrap();

    let stage = |world: &World, secrets| proto::NodeStageVolumeRequest {
        volume_id: "c".into(),
        staging_target_path: world.staging("c"),
        volume_capability: Some(mounted("", Mode::SingleNodeWriter)),
        secrets,
        ..Default::default()
    };
    let without = stage(&world, map(&[]));
    refused(world.plugin.node_stage_volume(without).await, Code::InvalidArgument, "no entry \"passphrase\"");
    let wrong = stage(&world, map(&[("passphrase", "another")]));
    refused(world.plugin.node_stage_volume(wrong).await, Code::Unauthenticated, "unwrap the key");
    let right = stage(&world, secret());
    world.plugin.node_stage_volume(right.clone()).await.unwrap();
    world.plugin.node_stage_volume(right).await.unwrap();
    write(&world.staging("c"), "f", b"x");
    world.unstage("c").await.unwrap();
    world.end().await;
}
