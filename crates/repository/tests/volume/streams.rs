//! Streams.

use super::support::*;
use repository::volume::{self, Map};
use repository::{NoProgress, Repository};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

async fn there_and_back(repo: &Repository, bytes: &[u8]) -> (u64, Vec<u8>) {
    let (cancel, progress) = (CancellationToken::new(), Arc::new(NoProgress));
    let writer = repo.writer(&"scratch".parse().unwrap()).await.unwrap();
    let summary = volume::store_stream(&writer, bytes, &cancel, progress.clone()).await.unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    let written = writer.finish().await.unwrap();
    let mut back = Vec::new();
    let map = Map::stream(repo, summary.root, summary.bytes);
    volume::read_stream(&map, &mut back, &cancel, progress).await.unwrap();
    (written.stats.new_bytes, back)
}

#[tokio::test]
async fn streams_of_any_length_come_back() {
    let world = World::new().await;
    for len in [0, 1, 100_000, 5 << 20, (20 << 20) + 77] {
        let bytes = page(len, len as u64);
        let (_, back) = there_and_back(&world.repo, &bytes).await;
        assert!(back == bytes, "a stream of {len} bytes came back as one of {}", back.len());
    }
}

#[tokio::test]
async fn what_comes_twice_in_a_stream_is_stored_once() {
    let world = World::new().await;
    let once = page(8 << 20, 1);
    let twice = [&once[..], b"between", &once[..]].concat();
    let (new_bytes, back) = there_and_back(&world.repo, &twice).await;
    assert!(back == twice);
    assert!(new_bytes < 13 << 20, "{new_bytes} bytes are new of {}", twice.len());
}

#[tokio::test]
async fn a_volume_can_be_read_as_a_stream() {
    let (mut world, mut disk) = (World::new().await, Disk::new((30 << 20) + 5));
    disk.write(9 << 20, &page(100_000, 1));
    world.backup(&disk, false, None).await;
    let mut back = Vec::new();
    let (cancel, progress) = (CancellationToken::new(), Arc::new(NoProgress));
    volume::read_stream(&world.map(), &mut back, &cancel, progress).await.unwrap();
    assert!(back == std::fs::read(disk.path()).unwrap());
}
