//! What matters of volumes, one by one.

use super::support::*;
use repository::volume::{self, BackupOptions, Changes, Error};
use repository::{NoProgress, Repository, Store};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SIZE: u64 = 40 * PART + 3 * BLOCK + 100;

#[tokio::test]
async fn a_volume_comes_back_and_its_holes_stay_holes() {
    let (mut world, mut disk) = (World::new().await, Disk::new(2 * SEGMENT + 5000));
    disk.write(PART * 3, &page(300_000, 1));
    disk.write(SEGMENT - 10, &page(20, 2));
    disk.write(2 * SEGMENT + 4990, &page(10, 3));
    let summary = world.backup(&disk, false, None).await;
    assert!(summary.data_bytes < 600_000 && summary.read_bytes < 600_000, "{summary:?}");
    world.is(&disk).await;
    world.check().await;
    use std::os::unix::fs::MetadataExt;
    let blocks = std::fs::metadata(disk.folder.path().join("restored")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks are written of a sparse volume");
}

/// Pages of the map need a worker while batches of content have all of them: none may wait for the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_with_many_pages_of_extents_comes_back() {
    const PARTS: u64 = 6000;
    let (mut world, mut disk) = (World::new().await, Disk::new(PARTS * PART));
    for part in 0..PARTS {
        disk.write(part * PART, &part.to_le_bytes());
        disk.write(part * PART + BLOCK, b"not a hole");
    }
    let stored = tokio::time::timeout(std::time::Duration::from_secs(120), world.backup(&disk, false, None));
    let summary = stored.await.expect("it ends, and does not wait for itself");
    assert_eq!(summary.data_bytes, PARTS * PART);
    world.is(&disk).await;
}

#[tokio::test]
async fn an_empty_volume_comes_back() {
    for size in [0, 1, SIZE] {
        let (mut world, disk) = (World::new().await, Disk::new(size));
        assert_eq!(world.backup(&disk, false, None).await.data_bytes, 0);
        world.is(&disk).await;
        world.check().await;
    }
}

#[tokio::test]
async fn what_has_not_changed_is_neither_read_nor_stored() {
    let (mut world, mut disk) = (World::new().await, Disk::new(2 * SEGMENT));
    disk.write(0, &page(4 << 20, 1));
    disk.write(SEGMENT, &page(4 << 20, 2));
    world.backup(&disk, false, None).await;
    disk.take_changes();
    disk.write(PART + 100, b"changed");
    let changes = disk.take_changes();
    let summary = world.backup(&disk, true, Some(changes)).await;
    assert_eq!((summary.read_bytes, summary.kept_segments), (BLOCK, 1));
    world.is(&disk).await;
    // Without a list all is read, and what is equal is found by its identity.
    let before = stored_bytes(&world.repo).await;
    let summary = world.backup(&disk, true, None).await;
    assert_eq!(summary.read_bytes, 8 << 20);
    assert!(stored_bytes(&world.repo).await - before < 200_000, "only the part in pieces and pages are stored");
    world.is(&disk).await;
    world.check().await;
}

async fn stored_bytes(repo: &Repository) -> u64 {
    let store: &Store = repo.store();
    store.list("").await.unwrap().iter().map(|object| object.size).sum()
}

#[tokio::test]
async fn a_list_that_misses_a_change_is_found_by_a_comparison() {
    let (mut world, mut disk) = (World::new().await, Disk::new(SIZE));
    disk.write(0, &page(SIZE as usize, 1));
    world.backup(&disk, false, None).await;
    disk.take_changes();
    disk.write(5 * PART, b"named");
    let named = disk.take_changes();
    disk.write(9 * PART + BLOCK, b"forgotten");
    let summary = world.backup(&disk, true, Some(named)).await;
    assert_eq!(summary.read_bytes, BLOCK);
    let found = world.verify(&disk).await;
    assert_eq!(found.different_bytes, BLOCK);
    assert_eq!((found.first[0].offset, found.first[0].len), (9 * PART + BLOCK, BLOCK));
    // Too much in a list costs, and harms nobody.
    world.backup(&disk, true, Some(Changes::new([(0, SIZE)], SIZE).unwrap())).await;
    world.is(&disk).await;
}

#[tokio::test]
async fn a_volume_may_grow_and_shrink() {
    let (mut world, mut disk) = (World::new().await, Disk::new(SIZE));
    disk.write(0, &page(SIZE as usize, 1));
    world.backup(&disk, false, None).await;
    disk.take_changes();
    disk.grow(SEGMENT + SIZE);
    // Written, and not in the list: that it is beyond the parent's end is enough.
    disk.write(SIZE + 5, b"in what it has grown by");
    disk.write(SEGMENT + 7, b"in a new segment");
    disk.changed.clear();
    let changes = disk.take_changes();
    world.backup(&disk, true, Some(changes)).await;
    world.is(&disk).await;
    for size in [SIZE + PART, 7 * BLOCK + 11] {
        disk.grow(size);
        let changes = disk.take_changes();
        world.backup(&disk, true, Some(changes)).await;
        world.is(&disk).await;
    }
    world.check().await;
}

#[tokio::test]
async fn what_a_restore_reads_is_bounded_however_many_incrementals_there_are() {
    let (mut world, mut disk) = (World::new().await, Disk::new(16 << 20));
    disk.write(0, &page(16 << 20, 1));
    world.backup(&disk, false, None).await;
    disk.take_changes();
    let (mut compacted, mut read) = (0, Vec::new());
    for generation in 0..24 {
        for block in (0..(16 << 20) / BLOCK).filter(|block| (block * 7 + generation * 13) % 20 == 0) {
            disk.write(block * BLOCK, &page(BLOCK as usize, block + generation * 100_000));
        }
        let changes = disk.take_changes();
        let summary = world.backup(&disk, true, Some(changes)).await;
        compacted += summary.compacted_segments;
        read.push(summary.read_bytes);
        world.is(&disk).await;
    }
    assert!((2..=4).contains(&compacted), "{compacted} of 24 incrementals compacted; they read {read:?}");
    world.check().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    let (world, disk) = (World::new().await, Disk::new(SIZE));
    let writer = world.repo.writer(&"scratch".parse().unwrap()).await.unwrap();
    let changes = Some(Changes::new([(0, 1)], SIZE).unwrap());
    let options = BackupOptions { changes, ..BackupOptions::default() };
    let error = volume::backup(&writer, &disk.path(), &options, Arc::new(NoProgress)).await.unwrap_err();
    assert!(matches!(error, Error::NoParent), "{error}");
    let missing = disk.folder.path().join("missing");
    let options = BackupOptions::default();
    let error = volume::backup(&writer, &missing, &options, Arc::new(NoProgress)).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[tokio::test]
async fn a_restore_that_does_not_become_whole_leaves_nothing() {
    let (mut world, mut disk) = (World::new().await, Disk::new(SIZE));
    disk.write(0, &page(SIZE as usize, 1));
    world.backup(&disk, false, None).await;
    let target = disk.folder.path().join("target");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let options = volume::RestoreOptions { cancel, ..Default::default() };
    let error = volume::restore(&world.map(), &target, &options, Arc::new(NoProgress)).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(std::fs::read_dir(disk.folder.path()).unwrap().count(), 1, "only the disk is there");
    // What is there is not touched unless that was asked for.
    std::fs::write(&target, "mine").unwrap();
    let error = volume::restore(&world.map(), &target, &Default::default(), Arc::new(NoProgress)).await.unwrap_err();
    assert!(matches!(error, Error::TargetExists { .. }), "{error}");
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    // Neither is what could not hold a volume, whatever was asked for.
    let folder = disk.folder.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let fifo = disk.folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let options = volume::RestoreOptions { replace: true, ..Default::default() };
    for target in [folder, fifo] {
        let error = volume::restore(&world.map(), &target, &options, Arc::new(NoProgress)).await.unwrap_err();
        assert!(matches!(error, Error::NotAnImage { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_restore_goes_on_with_what_is_there_and_believes_nothing_of_it() {
    let (mut world, mut disk) = (World::new().await, Disk::new(64 << 20));
    disk.write(0, &page(8 << 20, 1));
    disk.write(32 << 20, &page(8 << 20, 2));
    world.backup(&disk, false, None).await;
    let folder = disk.folder.path().to_owned();
    let (target, unfinished) = (folder.join("target"), folder.join("target.orlop-unfinished"));
    let resume = |cancel| volume::RestoreOptions { resume: true, cancel, ..Default::default() };
    let restore = async |options: volume::RestoreOptions| {
        volume::restore(&world.map(), &target, &options, Arc::new(NoProgress)).await
    };
    let is_whole = || std::process::Command::new("cmp").arg(&target).arg(disk.path()).status().unwrap().success();

    // Half of it, with a byte that is wrong, something in a hole, and more than there is to be.
    let mut half = page(8 << 20, 1);
    half[PART as usize + 7] ^= 1;
    half.resize(24 << 20, 9);
    half.resize(80 << 20, 9);
    std::fs::write(&unfinished, &half).unwrap();
    // Cut off, it leaves what there is.
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = restore(resume(cancel)).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(unfinished.exists() && !target.exists());
    std::fs::write(&unfinished, &half).unwrap();
    let done = restore(resume(CancellationToken::new())).await.unwrap();
    assert_eq!((done.data_bytes, done.kept_bytes), (16 << 20, (8 << 20) - PART));
    assert!(is_whole() && !unfinished.exists());

    // What is whole already is read, and nothing is fetched; what is not is mended.
    let done = restore(resume(CancellationToken::new())).await.unwrap();
    assert_eq!((done.data_bytes, done.kept_bytes), (16 << 20, 16 << 20));
    assert!(is_whole());
    let file = std::fs::File::options().write(true).open(&target).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"other", (33 << 20) + 1).unwrap();
    let done = restore(resume(CancellationToken::new())).await.unwrap();
    assert_eq!(done.kept_bytes, (16 << 20) - PART);
    assert!(is_whole());
}

#[tokio::test]
async fn a_comparison_sees_any_block_also_in_holes_and_another_size() {
    let (mut world, mut disk) = (World::new().await, Disk::new(64 << 20));
    disk.write(20 << 20, &page(PART as usize, 1));
    world.backup(&disk, false, None).await;
    assert!(world.verify(&disk).await.is_equal());
    for offset in [0, (20 << 20) + 5, (20 << 20) + PART, (64 << 20) - 1] {
        let mut was = [0];
        std::os::unix::fs::FileExt::read_exact_at(&disk.file, &mut was, offset).unwrap();
        disk.write(offset, &[!was[0]]);
        let found = world.verify(&disk).await;
        assert_eq!((found.different_bytes, found.first[0].offset), (BLOCK, offset / BLOCK * BLOCK));
        disk.write(offset, &was);
    }
    disk.grow((64 << 20) + 1);
    assert_eq!(world.verify(&disk).await.other_size, Some((64 << 20) + 1));
}
