//! An image, what is changed in it, and recovery points of it.

use crate::literals;
pub(crate) use crate::literals::noise;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use repository::volume::{self, BackupOptions, Changes, Map, Parent, VerifySummary, VolumeSummary};
use repository::{
    Claim, NoProgress, Passphrase, RecoveryPoint, Repository, RetryPolicy, Root, RootKind, Stats, Store, StoreConfig,
};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) const BLOCK: u64 = volume::BLOCK_LEN;
pub(crate) const PART: u64 = volume::PART_LEN;
pub(crate) const SEGMENT: u64 = volume::SEGMENT_LEN;

/// Bytes that compress to about a half, as those of databases do.
pub(crate) fn page(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = noise(len, seed);
    for pair in bytes.chunks_mut(32) {
        let half = pair.len() / 2;
        pair[half..].fill(7);
    }
    bytes
}

/// An image in a file, and what has been changed in it since the last recovery point.
pub(crate) struct Disk {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) file: std::fs::File,
    pub(crate) changed: Vec<(u64, u64)>,
}

impl Disk {
    pub(crate) fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file =
            std::fs::File::options().create_new(true).read(true).write(true).open(folder.path().join("disk")).unwrap();
        file.set_len(size).unwrap();
        Self { folder, file, changed: Vec::new() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    pub(crate) fn size(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).unwrap();
        self.changed.push((offset, bytes.len() as u64));
    }

    pub(crate) fn grow(&mut self, size: u64) {
        self.file.set_len(size).unwrap();
    }

    /// A write of random place, length and content: blocks, parts, or anything; sometimes zeros.
    pub(crate) fn write_anything(&mut self, random: &mut StdRng) {
        let len = match random.random_range(0..6) {
            0 => random.random_range(1..BLOCK),
            1..=3 => BLOCK * random.random_range(1..5),
            4 => PART * random.random_range(1..4),
            _ => random.random_range(1..PART * 2),
        };
        let size = self.size();
        let mut offset = random.random_range(0..size);
        if random.random_range(0..3) > 0 {
            offset = offset / BLOCK * BLOCK;
        }
        let len = len.min(size - offset) as usize;
        let bytes = if random.random_range(0..4) == 0 { vec![0; len] } else { page(len, random.next_u64()) };
        self.write(offset, &bytes);
    }

    /// The list of what has changed, and begins a new one.
    pub(crate) fn take_changes(&mut self) -> Changes {
        Changes::new(std::mem::take(&mut self.changed), self.size()).unwrap()
    }
}

/// A repository and its last recovery point of the disk.
pub(crate) struct World {
    pub(crate) repo: Repository,
    pub(crate) last: Option<Parent>,
    count: u32,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(StoreConfig::Memory.open(RetryPolicy::default()).unwrap()).await
    }

    pub(crate) async fn on(store: Store) -> Self {
        let repo = Repository::create(store, &Passphrase::new("secret")).await.unwrap();
        Self { repo, last: None, count: 0 }
    }

    /// Stores the disk and publishes a recovery point of it; the next one may have it as its parent.
    pub(crate) async fn backup(&mut self, disk: &Disk, parent: bool, changes: Option<Changes>) -> VolumeSummary {
        let options = BackupOptions { parent: self.last.filter(|_| parent), changes, cancel: CancellationToken::new() };
        self.count += 1;
        let id: repository::PointId = format!("point-{}", self.count).parse().unwrap();
        let writer = self.repo.writer(&id).await.unwrap();
        let summary = volume::backup(&writer, &disk.path(), &options, Arc::new(NoProgress)).await.unwrap();
        let written = writer.finish().await.unwrap();
        self.repo.verify_packs(&written.packs).await.unwrap();
        let claim = Claim {
            namespace: "shop".into(),
            name: "data".into(),
            object: serde_json::json!({"kind": "PersistentVolumeClaim"}),
        };
        let (time, amounts) = (literals::passed(), (0, summary.bytes));
        let root = literals::root("shop/data", RootKind::Volume, summary.root, amounts, time);
        let roots = vec![Root { claim: Some(claim), ..root }];
        let stats =
            Stats { new_bytes: written.stats.new_bytes, stored_bytes: written.stats.stored_bytes, ..Stats::default() };
        let point = RecoveryPoint { stats, ..literals::point(id, time, roots, written.session, written.packs) };
        self.repo.publish(&point).await.unwrap();
        self.last = Some(Parent { table: summary.root, size: summary.bytes });
        summary
    }

    pub(crate) fn map(&self) -> Map {
        let last = self.last.unwrap();
        Map::volume(&self.repo, last.table, last.size)
    }

    pub(crate) async fn verify(&self, disk: &Disk) -> VerifySummary {
        let progress = Arc::new(NoProgress);
        volume::verify(&self.map(), &disk.path(), &CancellationToken::new(), progress).await.unwrap()
    }

    /// Wants the last recovery point to be the disk, byte for byte, also when it is restored; and the repository to be clean.
    pub(crate) async fn is(&self, disk: &Disk) {
        let target = disk.folder.path().join("restored");
        let options = volume::RestoreOptions { replace: true, ..Default::default() };
        volume::restore(&self.map(), &target, &options, Arc::new(NoProgress)).await.unwrap();
        let status = std::process::Command::new("cmp").arg(&target).arg(disk.path()).status().unwrap();
        assert!(status.success(), "the restored volume differs");
        assert!(self.verify(disk).await.is_equal());
    }

    pub(crate) async fn check(&self) {
        let mut findings = Vec::new();
        let options = repository::check::CheckOptions { read_data: true };
        repository::check::check(&self.repo, options, &NoProgress, &mut |finding| findings.push(finding))
            .await
            .unwrap();
        assert_eq!(findings, []);
    }
}
