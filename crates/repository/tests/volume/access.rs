//! Reading at any place: against the image, through every kind of cache, and with stores and disks that go wrong.

use super::access_store::Counted;
use super::support::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use repository::volume::{Allocation, BlobCache, CacheError, DiskCache, Error, Map, Stretch, VolumeReader};
use repository::{Passphrase, Repository};
use sandbox::small_disk::SmallDisk;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn flat(stretches: &[Stretch]) -> Vec<u8> {
    let mut out = Vec::new();
    for stretch in stretches {
        match stretch {
            Stretch::Data(bytes) => out.extend_from_slice(bytes),
            Stretch::Zeros(len) => out.resize(out.len() + *len as usize, 0),
        }
    }
    out
}

fn of_disk(disk: &Disk, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    disk.file.read_exact_at(&mut bytes, range.start).unwrap();
    bytes
}

fn reader(map: Map, repo: &Repository, memory: u64) -> VolumeReader {
    VolumeReader::new(map, &BlobCache::new(repo, memory, None))
}

/// All that is told of a range, asked for in answers of `most`.
async fn all_extents(reader: &VolumeReader, range: Range<u64>, most: usize) -> Vec<Allocation> {
    let (mut found, mut at): (Vec<Allocation>, _) = (Vec::new(), range.start);
    while at < range.end {
        let next = reader.extents(at..range.end, most).await.unwrap();
        assert!(!next.is_empty() && next.len() <= most, "{next:?}");
        for stretch in next {
            assert!(stretch.len > 0);
            at += stretch.len;
            match found.last_mut() {
                Some(last) if last.is_data == stretch.is_data => last.len += stretch.len,
                _ => found.push(stretch),
            }
        }
    }
    assert_eq!(at, range.end);
    found
}

/// A disk of some generations of anything.
async fn anything(random: &mut StdRng, generations: u32) -> (World, Disk) {
    let (mut world, mut disk) = (World::new().await, Disk::new(SEGMENT + 9 * MIB + 77));
    for generation in 0..generations {
        for _ in 0..25 {
            disk.write_anything(random);
        }
        disk.write(SEGMENT - 3 * BLOCK, &page(6 * BLOCK as usize, u64::from(generation)));
        let changes = disk.take_changes();
        world.backup(&disk, generation > 0, (generation > 0).then_some(changes)).await;
    }
    (world, disk)
}

#[tokio::test]
async fn every_read_gives_what_the_image_has_whatever_fits_into_memory() {
    let seed: u64 = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (world, disk) = anything(&mut random, 4).await;
    for memory in [0, 300_000, 64 * MIB] {
        let reader = reader(world.map(), &world.repo, memory);
        for _ in 0..120 {
            let near = [0, SEGMENT - 2 * PART, SEGMENT, disk.size() - PART, random.random_range(0..disk.size())];
            let start = near[random.random_range(0..near.len())] + random.random_range(0..PART);
            let start = start.min(disk.size());
            let longest = if random.random_range(0..8) == 0 { 5 * MIB } else { 2 * PART };
            let end = (start + random.random_range(0..longest)).min(disk.size());
            let found = flat(&reader.read(start..end).await.unwrap());
            assert!(found == of_disk(&disk, start..end), "{start}..{end} with {memory} bytes of memory");
        }
    }
}

#[tokio::test]
async fn many_readers_at_once_get_what_the_image_has() {
    let mut random = StdRng::seed_from_u64(5);
    let (world, disk) = anything(&mut random, 2).await;
    let (reader, disk) = (reader(world.map(), &world.repo, MIB), Arc::new(disk));
    let tasks: Vec<_> = (0..40_u64)
        .map(|number| {
            let (reader, disk) = (reader.clone(), disk.clone());
            tokio::spawn(async move {
                let start = number % 8 * (disk.size() / 8);
                let range = start..start + MIB + number;
                assert!(flat(&reader.read(range.clone()).await.unwrap()) == of_disk(&disk, range));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_told_of_holes_and_data_is_what_is_stored() {
    let (mut world, mut disk) = (World::new().await, Disk::new(3 * SEGMENT + 5));
    disk.write(PART, &page(2 * PART as usize, 1));
    disk.write(SEGMENT - PART, &page(2 * PART as usize, 2));
    disk.write(3 * SEGMENT, b"last");
    world.backup(&disk, false, None).await;
    let reader = reader(world.map(), &world.repo, MIB);
    let (hole, data) = (|len| Allocation { len, is_data: false }, |len| Allocation { len, is_data: true });
    let whole =
        [hole(PART), data(2 * PART), hole(SEGMENT - 4 * PART), data(2 * PART), hole(2 * SEGMENT - PART), data(5)];
    for most in [1, 2, 100] {
        assert_eq!(all_extents(&reader, 0..disk.size(), most).await, whole);
    }
    assert_eq!(all_extents(&reader, PART + 5..PART + 7, 9).await, [data(2)]);
    assert_eq!(all_extents(&reader, 2 * SEGMENT..2 * SEGMENT + 9, 9).await, [hole(9)]);
    assert_eq!(reader.extents(7..7, 9).await.unwrap(), []);
    // In pieces too: what is told to be a hole is one in the image, and reads say the same.
    let mut random = StdRng::seed_from_u64(11);
    let (world, disk) = anything(&mut random, 3).await;
    let reader = self::reader(world.map(), &world.repo, MIB);
    let mut at = 0;
    for stretch in all_extents(&reader, 0..disk.size(), 3).await {
        if !stretch.is_data {
            let range = at..at + stretch.len.min(8 * MIB);
            assert!(of_disk(&disk, range.clone()).iter().all(|byte| *byte == 0), "{range:?}");
            assert_eq!(
                reader.read(range).await.unwrap().iter().map(|s| matches!(s, Stretch::Zeros(_))).min(),
                Some(true)
            );
        }
        at += stretch.len;
    }
}

#[tokio::test]
async fn empty_volumes_and_streams_are_read_too_and_nothing_beyond_the_end() {
    let (mut world, disk) = (World::new().await, Disk::new(5 * MIB));
    world.backup(&disk, false, None).await;
    let volume = reader(world.map(), &world.repo, MIB);
    assert_eq!(flat(&volume.read(0..5 * MIB).await.unwrap()), vec![0; 5 * MIB as usize]);
    assert_eq!(volume.read(MIB..MIB).await.unwrap(), []);
    for range in [0..5 * MIB + 1, 6 * MIB..7 * MIB, u64::MAX - 1..u64::MAX] {
        let error = volume.read(range.clone()).await.unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{range:?}: {error}");
        assert!(volume.extents(range, 9).await.is_err());
    }
    let bytes = noise(3 * MIB as usize + 5, 4);
    let writer = world.repo.writer(&"stream".parse().unwrap()).await.unwrap();
    let progress = Arc::new(repository::NoProgress);
    let cancel = tokio_util::sync::CancellationToken::new();
    let summary = repository::volume::store_stream(&writer, &bytes[..], &cancel, progress).await.unwrap();
    writer.finish().await.unwrap();
    let stream = Map::stream(&world.repo, summary.root, bytes.len() as u64);
    let stream = reader(stream, &world.repo, MIB);
    for range in [0..bytes.len() as u64, 12_345..2_000_000, bytes.len() as u64 - 1..bytes.len() as u64] {
        let expected = &bytes[range.start as usize..range.end as usize];
        assert!(flat(&stream.read(range).await.unwrap()) == expected);
    }
}

/// A disk with some MiB of data, in a store that counts what is asked of it.
async fn counted(len: u64) -> (Counted, Repository, Map, Disk) {
    let store = Counted::new();
    let (mut world, mut disk) = (World::on(store.store()).await, Disk::new(64 * MIB));
    disk.write(0, &page(len as usize, 3));
    world.backup(&disk, false, None).await;
    // Opened anew, so that nothing is remembered.
    let repo = Repository::open(store.store(), &Passphrase::new("secret")).await.unwrap();
    let last = world.last.unwrap();
    let map = Map::volume(&repo, last.table, last.size);
    store.take();
    (store, repo, map, disk)
}

#[tokio::test]
async fn holes_are_answered_without_reading_data_and_what_is_in_memory_without_the_store() {
    let (store, repo, map, disk) = counted(4 * MIB).await;
    let reader = reader(map, &repo, 16 * MIB);
    reader.read(40 * MIB..60 * MIB).await.unwrap();
    let map_reads = store.take();
    assert!(map_reads.reads <= 2 && map_reads.bytes < 100_000, "only pages of the map: {map_reads:?}");
    reader.extents(0..disk.size(), 1000).await.unwrap();
    assert_eq!(store.take().reads, 0, "the map is remembered");
    reader.read(5..PART + 5).await.unwrap();
    assert_eq!(store.take().reads, 1, "two neighbours are read at once");
    reader.read(100..2 * PART).await.unwrap();
    assert_eq!(store.take().reads, 0);
}

#[tokio::test]
async fn readers_of_one_place_share_what_is_read_and_neighbours_go_together() {
    let (store, repo, map, disk) = counted(4 * MIB).await;
    let reader = reader(map, &repo, 16 * MIB);
    let same = (0..50).map(|_| reader.read(0..PART));
    for found in futures::future::join_all(same).await {
        assert!(flat(&found.unwrap()) == of_disk(&disk, 0..PART));
    }
    let reads = store.take();
    assert!(reads.reads <= 3, "two pages and one blob: {reads:?}");
    let parts = (1..60).map(|number| reader.read(number * PART..(number + 1) * PART));
    for (number, found) in (1..).zip(futures::future::join_all(parts).await) {
        assert!(flat(&found.unwrap()) == of_disk(&disk, number * PART..(number + 1) * PART));
    }
    let reads = store.take();
    assert!(reads.reads <= 8, "59 parts that lie side by side: {reads:?}");
}

#[tokio::test]
async fn who_reads_in_sequence_finds_it_read_ahead() {
    let (store, repo, map, disk) = counted(32 * MIB).await;
    let reader = reader(map, &repo, 32 * MIB);
    let mut at = 0;
    while at < 32 * MIB {
        assert!(flat(&reader.read(at..at + PART).await.unwrap()) == of_disk(&disk, at..at + PART));
        at += PART;
    }
    let reads = store.take();
    assert!(reads.reads < 60, "512 reads of the client: {reads:?}");
    assert!(reads.bytes < 40 * MIB, "nothing is read twice: {reads:?}");
}

fn files_of(folder: &Path) -> Vec<std::path::PathBuf> {
    let below = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    below(folder).into_iter().filter(|path| path.is_dir()).flat_map(|folder| below(&folder)).collect()
}

/// Opens a cache that work in the background may still have for a moment.
async fn open_cache(folder: &Path, most: u64) -> DiskCache {
    loop {
        match DiskCache::open(folder, most) {
            Err(CacheError::InUse(_)) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

async fn read_through(cache: &Path, most: u64, repo: &Repository, map: &Map, disk: &Disk) {
    let cache = Arc::new(open_cache(cache, most).await);
    let reader = VolumeReader::new(map.clone(), &BlobCache::new(repo, MIB, Some(cache)));
    for start in (0..8 * MIB).step_by(MIB as usize) {
        assert!(flat(&reader.read(start..start + MIB).await.unwrap()) == of_disk(disk, start..start + MIB));
    }
}

#[tokio::test]
async fn a_cache_on_a_disk_survives_and_holds_nothing_in_clear() {
    let (store, repo, map, disk) = counted(8 * MIB).await;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    read_through(&cache, 64 * MIB, &repo, &map, &disk).await;
    assert!(store.take().bytes > 4 * MIB);
    read_through(&cache, 64 * MIB, &repo, &map, &disk).await;
    assert_eq!(store.take().reads, 0, "all of it is in the cache, pages of the map too");
    // The half of each page is sevens in clear; and nothing is there as it was written.
    for file in files_of(&cache) {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(16).any(|part| part == [7; 16]), "it is in clear");
    }
    // Another process must not have it at the same time.
    let held = open_cache(&cache, 64 * MIB).await;
    assert!(matches!(DiskCache::open(&cache, MIB), Err(CacheError::InUse(_))));
    drop(held);
    DiskCache::open(&cache, 64 * MIB).unwrap();
}

#[tokio::test]
async fn what_is_damaged_or_gone_in_a_cache_is_noticed_and_fetched_again() {
    let (store, repo, map, disk) = counted(8 * MIB).await;
    let folder = tempfile::tempdir().unwrap();
    read_through(folder.path(), 64 * MIB, &repo, &map, &disk).await;
    let before = files_of(folder.path());
    for (index, file) in before.iter().enumerate() {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        match index % 4 {
            0 => bytes[middle] ^= 1,
            1 => bytes.truncate(middle),
            2 => bytes.push(0),
            _ => bytes.clear(),
        }
        std::fs::write(file, bytes).unwrap();
    }
    std::fs::remove_file(&before[0]).unwrap();
    std::fs::write(folder.path().join("unfinished-7"), "half of a blob").unwrap();
    std::fs::write(folder.path().join("notes"), "of a person").unwrap();
    store.take();
    read_through(folder.path(), 64 * MIB, &repo, &map, &disk).await;
    assert!(store.take().bytes > 4 * MIB, "nothing that is damaged was used");
    read_through(folder.path(), 64 * MIB, &repo, &map, &disk).await;
    assert_eq!(store.take().reads, 0, "it is whole again");
    assert!(!folder.path().join("unfinished-7").exists() && folder.path().join("notes").exists());
}

#[tokio::test]
async fn a_cache_keeps_to_its_size_also_when_it_is_opened_with_less() {
    let (_, repo, map, disk) = counted(8 * MIB).await;
    let folder = tempfile::tempdir().unwrap();
    // The cache is still at work when it is dropped: a file that it has taken away meanwhile, or given its name, counts as none.
    let size = || files_of(folder.path()).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>();
    read_through(folder.path(), 2 * MIB, &repo, &map, &disk).await;
    assert!((MIB..=2 * MIB).contains(&size()), "{}", size());
    drop(open_cache(folder.path(), MIB).await);
    assert!((MIB / 2..=MIB).contains(&size()), "{}", size());
}

#[tokio::test]
async fn a_full_disk_only_ends_the_filling_of_the_cache() {
    let small = match SmallDisk::mount(3) {
        Ok(small) => small,
        Err(reason) => sandbox::skip!("{reason}"),
    };
    let (store, repo, map, disk) = counted(8 * MIB).await;
    read_through(small.path(), 64 * MIB, &repo, &map, &disk).await;
    assert!(!files_of(small.path()).is_empty());
    let left = std::fs::read_dir(small.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_str().unwrap().starts_with("unfinished")), "a part was left");
    let first = store.take().bytes;
    // What is in it serves, as far as it goes.
    read_through(small.path(), 64 * MIB, &repo, &map, &disk).await;
    let second = store.take().bytes;
    assert!(second > 0 && second < first, "{second} of {first} bytes are read again");
}

#[tokio::test]
async fn a_cache_takes_more_again_when_there_is_room() {
    let small = match SmallDisk::mount(3) {
        Ok(small) => small,
        Err(reason) => sandbox::skip!("{reason}"),
    };
    let (store, repo, map, disk) = counted(8 * MIB).await;
    let cache = Arc::new(open_cache(small.path(), 64 * MIB).await);
    let reader = VolumeReader::new(map, &BlobCache::new(&repo, MIB, Some(cache)));
    let read_all = async || {
        for start in (0..8 * MIB).step_by(MIB as usize) {
            assert!(flat(&reader.read(start..start + MIB).await.unwrap()) == of_disk(&disk, start..start + MIB));
        }
        store.take().bytes
    };
    let first = read_all().await;
    assert!(read_all().await > first / 4, "the disk is full, and the most is read again");
    small.resize(64).unwrap();
    let mut again = Vec::new();
    for _ in 0..8 {
        again.push(read_all().await);
    }
    assert_eq!(again.last(), Some(&0), "in the end all of it is in the cache: {again:?}");
}

#[tokio::test]
async fn a_damaged_or_missing_pack_is_an_error_for_what_lies_in_it_and_nothing_else() {
    let (store, repo, map, disk) = counted(8 * MIB).await;
    let reader = reader(map, &repo, MIB);
    reader.extents(0..MIB, 5).await.unwrap();
    store.flip(MIB);
    let (mut good, mut bad) = (0, 0);
    for start in (0..8 * MIB).step_by(PART as usize) {
        match reader.read(start..start + PART).await {
            Ok(found) => {
                assert!(flat(&found) == of_disk(&disk, start..start + PART), "a changed byte was handed over");
                good += 1;
            }
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                bad += 1;
            }
        }
    }
    assert_eq!((good, bad), (127, 1));
    store.refuse(true);
    let error = reader.read(0..8 * MIB).await.unwrap_err();
    assert!(!error.is_damage() && error.to_string().contains("pack"), "{error}");
    // When the store is back, so is the volume.
    store.refuse(false);
    assert!(flat(&reader.read(0..PART).await.unwrap()) == of_disk(&disk, 0..PART));
}
