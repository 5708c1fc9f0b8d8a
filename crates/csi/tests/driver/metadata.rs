//! What is data in a snapshot, and what has changed since an older one.

use crate::world::{MIB, World, block, refused, request, require};
use csi::Volumes;
use csi::proto::volume_capability::access_mode::Mode;
use csi::proto::{self, GetMetadataAllocatedRequest, GetMetadataDeltaRequest};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use tonic::Code;

fn allocated(id: &str, start: i64, most: i32) -> GetMetadataAllocatedRequest {
    GetMetadataAllocatedRequest {
        snapshot_id: id.to_owned(),
        starting_offset: start,
        max_results: most,
        ..Default::default()
    }
}

fn delta(base: &str, target: &str, start: i64, most: i32) -> GetMetadataDeltaRequest {
    GetMetadataDeltaRequest {
        base_snapshot_id: base.to_owned(),
        target_snapshot_id: target.to_owned(),
        starting_offset: start,
        max_results: most,
        ..Default::default()
    }
}

/// The ranges in each message.
type Told = Vec<Vec<(i64, i64)>>;

fn ranges(metadata: &[proto::BlockMetadata]) -> Vec<(i64, i64)> {
    metadata.iter().map(|range| (range.byte_offset, range.size_bytes)).collect()
}

async fn data(world: &mut World, asked: GetMetadataAllocatedRequest) -> Told {
    let mut stream = world.metadata.get_metadata_allocated(asked).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(page) = stream.message().await.unwrap() {
        assert_eq!((page.block_metadata_type, page.volume_capacity_bytes), (2, 8 * MIB));
        told.push(ranges(&page.block_metadata));
    }
    told
}

async fn changed(world: &mut World, asked: GetMetadataDeltaRequest) -> Told {
    let mut stream = world.metadata.get_metadata_delta(asked).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(page) = stream.message().await.unwrap() {
        assert_eq!((page.block_metadata_type, page.volume_capacity_bytes), (2, 8 * MIB));
        told.push(ranges(&page.block_metadata));
    }
    told
}

async fn fill(world: &World, blocks: &'static [u64]) {
    let volumes = world.volumes();
    let write = move || {
        let device = volumes.find("a").unwrap().unwrap().device.unwrap();
        let device = OpenOptions::new().write(true).open(device).unwrap();
        blocks.iter().for_each(|block| device.write_all_at(&[7; 4096], block * 4096).unwrap());
        device.sync_all().unwrap();
    };
    tokio::task::spawn_blocking(write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_told_in_pages_from_any_place_on() {
    require!();
    let mut world = World::new(&[100]).await;
    let mut asked = request("a", 8);
    asked.volume_capabilities = vec![block(Mode::SingleNodeWriter)];
    world.controller.create_volume(asked).await.unwrap();
    world.snapshot("a", "empty").await.unwrap();
    world.stage("a", block(Mode::SingleNodeWriter)).await.unwrap();
    fill(&world, &[0, 1, 5, 100, 2047]).await;
    world.snapshot("a", "one").await.unwrap();
    fill(&world, &[5, 6, 300]).await;
    world.snapshot("a", "two").await.unwrap();

    const B: i64 = 4096;
    assert_eq!(data(&mut world, allocated("a@empty", 0, 0)).await, [vec![]], "one message tells the size");
    let one = [(0, 2 * B), (5 * B, B), (100 * B, B), (2047 * B, B)];
    assert_eq!(data(&mut world, allocated("a@one", 0, 0)).await, [one.to_vec()]);
    assert_eq!(data(&mut world, allocated("a@one", 0, 3)).await, [one[..3].to_vec(), one[3..].to_vec()]);
    assert_eq!(data(&mut world, allocated("a@one", B + 1, 0)).await, [[&[(B, B)], &one[1..]].concat()]);
    assert_eq!(data(&mut world, allocated("a@one", 6 * B, 0)).await, [one[2..].to_vec()]);
    assert_eq!(data(&mut world, allocated("a@one", 8 * MIB, 0)).await, [vec![]]);
    let two = vec![(5 * B, 2 * B), (300 * B, B)];
    assert_eq!(changed(&mut world, delta("a@one", "a@two", 0, 0)).await, std::slice::from_ref(&two));
    assert_eq!(changed(&mut world, delta("a@one", "a@two", 7 * B, 1)).await, [two[1..].to_vec()]);
    assert_eq!(changed(&mut world, delta("a@empty", "a@one", 0, 0)).await, [one.to_vec()]);

    for (asked, code, said) in [
        (allocated("a@gone", 0, 0), Code::NotFound, "no snapshot a@gone"),
        (allocated("", 0, 0), Code::InvalidArgument, "snapshot_id"),
        (allocated("a@one", -1, 0), Code::OutOfRange, "starting_offset"),
        (allocated("a@one", 8 * MIB + 1, 0), Code::OutOfRange, "starting_offset"),
        (allocated("a@one", 0, -1), Code::InvalidArgument, "max_results"),
    ] {
        refused(world.metadata.get_metadata_allocated(asked).await, code, said);
    }
    for (asked, code, said) in [
        (delta("a@gone", "a@one", 0, 0), Code::NotFound, "no snapshot a@gone"),
        (delta("a@one", "a@gone", 0, 0), Code::NotFound, "no snapshot a@gone"),
        (delta("", "a@one", 0, 0), Code::InvalidArgument, "base_snapshot_id"),
        (delta("a@one", "a@two", -1, 0), Code::OutOfRange, "starting_offset"),
    ] {
        refused(world.metadata.get_metadata_delta(asked).await, code, said);
    }
    // The other way round, and of another volume: there is nothing to tell.
    world.create("b", 8).await;
    world.snapshot("b", "other").await.unwrap();
    for (base, target) in [("a@two", "a@one"), ("b@other", "a@two")] {
        let mut stream = world.metadata.get_metadata_delta(delta(base, target, 0, 0)).await.unwrap().into_inner();
        let ended = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        refused(ended, Code::InvalidArgument, "does not come from");
    }
    world.unstage("a").await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_in_a_clone_is_told_since_its_source() {
    require!();
    let mut world = World::new(&[100]).await;
    let mut asked = request("src", 8);
    asked.volume_capabilities = vec![block(Mode::SingleNodeWriter)];
    world.controller.create_volume(asked.clone()).await.unwrap();
    world.snapshot("src", "s").await.unwrap();
    asked.name = "a".into();
    asked.volume_content_source = crate::world::from_snapshot("src@s");
    world.controller.create_volume(asked).await.unwrap();
    world.stage("a", block(Mode::SingleNodeWriter)).await.unwrap();
    fill(&world, &[9]).await;
    world.snapshot("a", "t").await.unwrap();
    assert_eq!(changed(&mut world, delta("src@s", "a@t", 0, 0)).await, [vec![(9 * 4096, 4096)]]);
    world.unstage("a").await.unwrap();
    world.end().await;
}
