//! How fast a volume is read at any place, against a restore of it. A measurement, no test: it ends badly only when bytes are wrong.
//!
//! An image of 256 MiB, half of which compresses, in a repository in a folder; every round opens the repository anew, so that nothing is in
//! memory. Each number is the median of three rounds.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a measurement may panic")]

use futures::{StreamExt, stream};
use repository::volume::{
    self, BackupOptions, BlobCache, CacheError, DiskCache, Map, RestoreOptions, Stretch, VolumeReader,
};
use repository::{NoProgress, Passphrase, Repository, RetryPolicy, StoreConfig, TableRef};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 256 * MIB;
const ROUNDS: usize = 3;

fn image(path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    for number in 0..SIZE / MIB {
        let mut bytes = vec![0; MIB as usize];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        for pair in bytes.chunks_mut(32) {
            pair[16..].fill(7);
        }
        file.write_all_at(&bytes, number * MIB).unwrap();
    }
}

struct Place {
    folder: tempfile::TempDir,
    table: TableRef,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        image(&folder.path().join("image"));
        let store = Self::config(folder.path()).open(RetryPolicy::default()).unwrap();
        let repo = Repository::create(store, &Passphrase::new("secret")).await.unwrap();
        let writer = repo.writer(&"volume".parse().unwrap()).await.unwrap();
        let image = folder.path().join("image");
        let options = BackupOptions::default();
        let summary = volume::backup(&writer, &image, &options, Arc::new(NoProgress)).await.unwrap();
        writer.finish().await.unwrap();
        Self { folder, table: summary.root }
    }

    fn config(folder: &Path) -> StoreConfig {
        StoreConfig::FileSystem { path: folder.join("repository") }
    }

    async fn map(&self) -> (Repository, Map) {
        let store = Self::config(self.folder.path()).open(RetryPolicy::default()).unwrap();
        let repo = Repository::open(store, &Passphrase::new("secret")).await.unwrap();
        let map = Map::volume(&repo, self.table, SIZE);
        (repo, map)
    }

    async fn restore(&self) -> Duration {
        let (_, map) = self.map().await;
        let target = self.folder.path().join("restored");
        let clock = Instant::now();
        let options = RestoreOptions { replace: true, ..RestoreOptions::default() };
        volume::restore(&map, &target, &options, Arc::new(NoProgress)).await.unwrap();
        clock.elapsed()
    }

    /// Reads `len` bytes at each offset, so many at once; compares them outside of the time.
    async fn read(&self, offsets: &[u64], len: u64, at_once: usize, disk: Option<&Path>) -> Duration {
        let (repo, map) = self.map().await;
        let disk = disk.map(|folder| Arc::new(open_cache(folder)));
        let reader = VolumeReader::new(map, &BlobCache::new(&repo, BlobCache::DEFAULT_MEMORY, disk));
        let clock = Instant::now();
        let reads: Vec<_> = offsets.iter().map(|offset| reader.read(*offset..*offset + len)).collect();
        let found: Vec<_> = stream::iter(reads).buffered(at_once).collect().await;
        let took = clock.elapsed();
        let image = std::fs::File::open(self.folder.path().join("image")).unwrap();
        for (offset, found) in offsets.iter().zip(found) {
            let mut expected = vec![0; len as usize];
            image.read_exact_at(&mut expected, *offset).unwrap();
            let found: Vec<u8> = found.unwrap().iter().flat_map(data).copied().collect();
            assert!(found == expected, "{len} bytes at {offset} are wrong");
        }
        took
    }
}

/// Opens the cache, which work in the background of the last round may still have for a moment.
fn open_cache(folder: &Path) -> DiskCache {
    loop {
        match DiskCache::open(folder, 2 * SIZE) {
            Err(CacheError::InUse(_)) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn data(stretch: &Stretch) -> &[u8] {
    match stretch {
        Stretch::Data(bytes) => bytes,
        Stretch::Zeros(_) => &[],
    }
}

async fn median<F: Future<Output = Duration>>(mut round: impl FnMut() -> F) -> f64 {
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        all.push(round().await.as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    all[ROUNDS / 2]
}

#[tokio::main]
async fn main() {
    println!("| what | at once | MiB/s | reads/s |\n|---|---|---|---|");
    let place = Place::new().await;
    let seconds = median(|| place.restore()).await;
    println!("| restore into a file, synced | | {:.0} | |", SIZE as f64 / MIB as f64 / seconds);
    let sequence: Vec<u64> = (0..SIZE / (256 << 10)).map(|number| number * (256 << 10)).collect();
    // Offsets by a generator of fixed steps, so that every run reads the same.
    let random: Vec<u64> = (0..2000_u64).map(|number| number * 40_503 % (SIZE / 4096 - 16) * 4096).collect();
    let cache = place.folder.path().join("cache");
    place.read(&sequence, 256 << 10, 4, Some(&cache)).await;
    for (what, offsets, len, at_once, disk) in [
        ("in sequence, 256 KiB", &sequence, 256 << 10, 1, None),
        ("in sequence, 256 KiB", &sequence, 256 << 10, 4, None),
        ("in sequence, 256 KiB, from the cache on a disk", &sequence, 256 << 10, 4, Some(&cache)),
        ("at random, 4 KiB", &random, 4 << 10, 1, None),
        ("at random, 4 KiB", &random, 4 << 10, 16, None),
        ("at random, 60 KiB", &random, 60 << 10, 16, None),
    ] {
        let seconds = median(|| place.read(offsets, len, at_once, disk.map(|path| &**path))).await;
        let (reads, bytes) = (offsets.len() as f64, offsets.len() as f64 * len as f64);
        println!("| {what} | {at_once} | {:.0} | {:.0} |", bytes / MIB as f64 / seconds, reads / seconds);
    }
}
